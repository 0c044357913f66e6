//! Reads file and environment, refuses unknown keys, and merges what is right key by key.
//!
//! Each key is tried alone, so that one bad value does not hide the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use config::{Config, Environment, File, FileFormat, Source, Value, ValueKind};

use super::parts::Settings;
use super::problems::Problem;
use super::rules::{self, Secrecy};
use crate::model::Violation;
use crate::model::explain::NAME_COMPARED_MAX;

/// What every variable begins with.
const PREFIX: &str = "KUBELEET";
/// Between [`PREFIX`] and the key.
const PREFIX_SEPARATOR: &str = "_";
/// Between the parts of a key; two, because keys hold single ones.
const SEPARATOR: &str = "__";
/// Read by the command line alone (`settings::api_url`); no setting of a daemon.
pub(super) const API_VARIABLE: &str = "KUBELEET_API";
/// How the environment is called in messages.
const ENVIRONMENT: &str = "the environment";

/// A value, and where it is from.
pub(super) struct Given {
    value: Value,
    origin: String,
}

/// All known keys with their defaults, such as `redis.pool_size`.
pub(super) fn defaults() -> BTreeMap<String, serde_json::Value> {
    let mut keys = BTreeMap::new();
    // Settings are plain data, which always has a JSON form.
    if let Ok(settings) = serde_json::to_value(Settings::default()) {
        flatten_json("", settings, &mut keys);
    }
    keys
}

fn flatten_json(
    path: &str,
    value: serde_json::Value,
    keys: &mut BTreeMap<String, serde_json::Value>,
) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                flatten_json(&join(path, &key), value, keys);
            }
        }
        leaf => {
            keys.insert(path.to_owned(), leaf);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What is given for known keys, by key: the file's, with the environment's on top.
pub(super) fn read(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Given> {
    let known: BTreeSet<String> = defaults().into_keys().collect();
    let mut given = BTreeMap::new();
    if let Some(path) = file {
        match read_file(path) {
            Ok(table) => {
                let origin = path.display().to_string();
                keep_known("", table, &origin, &known, &mut given, problems);
            }
            Err(problem) => problems.push(problem),
        }
    }
    read_variables(variables, &known, &mut given, problems);
    given
}

fn read_file(path: &Path) -> Result<config::Map<String, Value>, Problem> {
    let text = std::fs::read_to_string(path).map_err(|source| Problem::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    File::from_str(&text, FileFormat::Toml)
        .collect()
        .map_err(|source| Problem::NotToml {
            path: path.to_owned(),
            source,
        })
}

/// Walks the file's tables: a key is known, or leads to known ones, or is refused.
fn keep_known(
    path: &str,
    table: config::Map<String, Value>,
    origin: &str,
    known: &BTreeSet<String>,
    given: &mut BTreeMap<String, Given>,
    problems: &mut Vec<Problem>,
) {
    // The map's own order is random; problems are shown in the order of keys.
    for (key, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
        let key = join(path, &key);
        let section = known.iter().any(|known| {
            known
                .strip_prefix(&key)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        match value.kind {
            ValueKind::Table(table) if section => {
                keep_known(&key, table, origin, known, given, problems);
            }
            kind if known.contains(&key) => {
                let origin = origin.to_owned();
                let value = Value::new(None, kind);
                given.insert(key, Given { value, origin });
            }
            kind if section => problems.push(Problem::NotAllowed {
                violation: Violation::new(
                    &key,
                    Value::new(None, kind),
                    format!("a table: [{key}]"),
                ),
                origin: origin.to_owned(),
            }),
            _ => problems.push(Problem::Unknown {
                nearest: nearest(&key, known.iter().cloned()),
                given: key,
                origin: origin.to_owned(),
            }),
        }
    }
}

fn read_variables(
    variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    known: &BTreeSet<String>,
    given: &mut BTreeMap<String, Given>,
    problems: &mut Vec<Problem>,
) {
    let variable_of: BTreeMap<String, &String> =
        known.iter().map(|key| (variable(key), key)).collect();
    let ours = format!("{PREFIX}{PREFIX_SEPARATOR}");
    let mut wanted = config::Map::new();
    let variables: BTreeMap<OsString, OsString> = variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.to_uppercase().starts_with(&ours) || name == API_VARIABLE {
            continue;
        }
        let Some(key) = variable_of.get(&name) else {
            problems.push(Problem::Unknown {
                nearest: nearest(&name, variable_of.keys().cloned()),
                given: name,
                origin: ENVIRONMENT.to_owned(),
            });
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                wanted.insert(name, value);
            }
            Err(value) => problems.push(Problem::NotAllowed {
                violation: Violation::new(
                    key.as_str(),
                    shown(key, &value.to_string_lossy()),
                    "text in UTF-8",
                ),
                origin: ENVIRONMENT.to_owned(),
            }),
        }
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(PREFIX_SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(wanted));
    // Only names and values that are known to be text are left, which is all it can fail on.
    for (key, value) in environment.collect().into_iter().flatten() {
        let origin = format!("{ENVIRONMENT}, {}", variable(&key));
        given.insert(key, Given { value, origin });
    }
}

/// The variable for a key: `redis.pool_size` is `KUBELEET_REDIS__POOL_SIZE`.
pub(super) fn variable(key: &str) -> String {
    let key = key.replace('.', SEPARATOR).to_uppercase();
    format!("{PREFIX}{PREFIX_SEPARATOR}{key}")
}

/// The most alike of the known names and of the sections they stand in.
fn nearest(given: &str, known: impl Iterator<Item = String>) -> String {
    let given: String = given.chars().take(NAME_COMPARED_MAX).collect();
    let given = given.to_uppercase();
    let alike = |known: &String| strsim::damerau_levenshtein(&given, &known.to_uppercase());
    let with_sections = known.flat_map(|key| {
        let ends = key.match_indices('.').map(|(end, _)| end);
        let sections: Vec<_> = ends.map(|end| key[..end].to_owned()).collect();
        sections.into_iter().chain([key])
    });
    with_sections.min_by_key(alike).unwrap_or_default()
}

/// What may be shown of a value: nothing of one that may hold a password.
fn shown(key: &str, value: &str) -> String {
    match rules::secrecy(key) {
        Secrecy::Open => value.to_owned(),
        Secrecy::Address => super::parts::redacted(value),
        Secrecy::Whole => "***".to_owned(),
    }
}

/// The settings with every value that is allowed; the others are told as problems.
pub(super) fn merge(given: BTreeMap<String, Given>, problems: &mut Vec<Problem>) -> Settings {
    let defaults = defaults();
    let mut origins = BTreeMap::new();
    let mut wrong = BTreeSet::new();
    let mut good = Config::builder();
    for (key, Given { value, origin }) in given {
        origins.insert(key.clone(), origin.clone());
        let alone = is_of_kind(&value.kind, defaults.get(&key))
            .then(|| Config::builder().set_override(&key, value.clone()))
            .and_then(Result::ok)
            .and_then(|builder| builder.build().ok())
            .and_then(|config| config.try_deserialize::<Settings>().ok());
        if alone.is_some() {
            // Cannot fail: the same key was taken right before.
            if let Ok(next) = good.clone().set_override(&key, value) {
                good = next;
            }
        } else {
            let violation =
                Violation::new(&key, shown(&key, &value.to_string()), rules::allowed(&key));
            problems.push(Problem::NotAllowed { violation, origin });
            wrong.insert(key);
        }
    }
    let settings: Settings = good
        .build()
        .and_then(Config::try_deserialize)
        .unwrap_or_default();
    for violation in rules::check(&settings) {
        // A key that could not even be read is already told, and stands at its default here.
        let (key, related) = (violation.field.as_str(), rules::related(&violation.field));
        if wrong.contains(key) || related.is_some_and(|related| wrong.contains(related)) {
            continue;
        }
        let origin = [Some(key), related]
            .into_iter()
            .flatten()
            .find_map(|key| origins.get(key).cloned());
        problems.push(Problem::NotAllowed {
            violation,
            origin: origin.unwrap_or_else(|| "the defaults".to_owned()),
        });
    }
    settings
}

/// False for what `config` would bend into shape: `on` or `1.7` for a whole number.
fn is_of_kind(given: &ValueKind, default: Option<&serde_json::Value>) -> bool {
    if default.is_some_and(serde_json::Value::is_boolean) {
        return match given {
            ValueKind::Boolean(_) => true,
            ValueKind::String(text) => text == "true" || text == "false",
            _ => false,
        };
    }
    let number = default.and_then(serde_json::Value::as_number);
    match (number, given) {
        (None, ValueKind::Array(_)) => default.is_some_and(serde_json::Value::is_array),
        (None, ValueKind::Boolean(_) | ValueKind::Nil | ValueKind::Table(_)) => false,
        (None, _) => true,
        (Some(number), ValueKind::String(text)) if number.is_f64() => text.parse::<f64>().is_ok(),
        (Some(_), ValueKind::String(text)) => text.parse::<u64>().is_ok(),
        (Some(number), ValueKind::Float(_)) => number.is_f64(),
        (Some(_), ValueKind::I64(_) | ValueKind::U64(_)) => true,
        (Some(_), _) => false,
    }
}
