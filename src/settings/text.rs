//! Forms of values that TOML and the environment have no common way to write.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::{Error, IntoDeserializer as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::parts::{DeviceSettings, RegistrySettings, Secret};

/// A list, or a text with commas between the items, as an environment variable must hold it.
pub(super) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct ListOrText<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ListOrText<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list, or a text with commas between the items")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text.split(',').map(str::trim);
            items
                .filter(|item| !item.is_empty())
                .map(|item| T::deserialize(item.into_deserializer()))
                .collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListOrText(PhantomData))
}

/// A registry's login as it may be written: a table, or `user:password@host`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RegistryText {
    Table(RegistryTable),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryTable {
    host: String,
    username: String,
    password: Secret,
}

impl TryFrom<RegistryText> for RegistrySettings {
    type Error = &'static str;

    fn try_from(text: RegistryText) -> Result<RegistrySettings, &'static str> {
        let RegistryTable {
            host,
            username,
            password,
        } = match text {
            RegistryText::Table(table) => table,
            // A password may hold both signs, a host and a user's name cannot.
            RegistryText::Text(text) => text
                .rsplit_once('@')
                .and_then(|(login, host)| Some((login.split_once(':')?, host)))
                .map(|((username, password), host)| RegistryTable {
                    host: host.to_owned(),
                    username: username.to_owned(),
                    password: Secret::from(password),
                })
                .ok_or("it is not user:password@host")?,
        };
        Ok(RegistrySettings {
            host,
            username,
            password,
        })
    }
}

/// A device as it may be written: a table, or `kind/id` with its paths after colons.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum DeviceText {
    Table(DeviceTable),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceTable {
    kind: String,
    id: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl TryFrom<DeviceText> for DeviceSettings {
    type Error = &'static str;

    fn try_from(text: DeviceText) -> Result<DeviceSettings, &'static str> {
        let DeviceTable {
            kind,
            id,
            paths,
            env,
        } = match text {
            DeviceText::Table(table) => table,
            DeviceText::Text(text) => {
                let mut parts = text.split(':');
                let name = parts.next().and_then(|name| name.split_once('/'));
                let (kind, id) = name.ok_or("it is not kind/id:path:path")?;
                DeviceTable {
                    kind: kind.to_owned(),
                    id: id.to_owned(),
                    paths: parts.map(str::to_owned).collect(),
                    env: BTreeMap::new(),
                }
            }
        };
        Ok(DeviceSettings {
            kind,
            id,
            paths,
            env,
        })
    }
}

/// `auto` for `None`: TOML has no null, and a variable must be able to undo what the file says.
pub(super) mod durability_or_auto {
    use serde::{Serialize, Serializer};

    use super::super::parts::Durability;
    use super::{Deserialize, Deserializer};

    const AUTO: &str = "auto";

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
    pub(crate) fn serialize<S: Serializer>(
        durability: &Option<Durability>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match durability {
            Some(durability) => durability.serialize(serializer),
            None => serializer.serialize_str(AUTO),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Durability>, D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == AUTO {
            return Ok(None);
        }
        let word = serde::de::value::StringDeserializer::new(word);
        Durability::deserialize(word).map(Some)
    }
}
