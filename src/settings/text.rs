//! Forms of values that TOML and the environment have no common way to write.

use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list, or a text with commas between the items, as an environment variable must hold it.
pub(super) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de> + for<'a> From<&'a str>,
    D: Deserializer<'de>,
{
    struct ListOrText<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + for<'a> From<&'a str>> Visitor<'de> for ListOrText<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list, or a text with commas between the items")
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text.split(',').map(str::trim);
            Ok(items.filter(|item| !item.is_empty()).map(T::from).collect())
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
