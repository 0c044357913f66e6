//! What a pod asks for and is limited to: how amounts are written, compared and summed.

mod requests;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::amounts::{Amounts, DISK, PIDS};
use super::digits::digits;

pub use requests::Requests;

/// Least memory a container can be limited to: what Docker's engine allows.
pub const MEMORY_MIN: u64 = 6 * 1024 * 1024;
/// Most memory one pod can ask for: far above any machine, far below overflow of a sum.
pub const MEMORY_MAX: u64 = 1 << 50;
/// Most cpu one pod can ask for, in thousandths of a core.
pub const CPU_MILLIS_MAX: u64 = 100_000 * 1000;

/// Most processes of one pod: what Linux can number.
pub const PIDS_MAX: u64 = 1 << 22;

const CPU_RULE: &str =
    "cores as a number or text, 0.001 to 100000, such as 0.5, \"0.5\" or \"500m\"";
const BYTES_RULE: &str = "bytes as a whole number, or text such as \"64Mi\", \"64M\", \"64m\" or \"1g\", 1 byte to 1 PiB";
const PIDS_RULE: &str = "a whole number, 1 to 4194304";
const MEMORY_RULE: &str =
    "bytes as a whole number, or text such as \"64Mi\", \"64M\", \"64m\" or \"1g\", 6 MiB to 1 PiB";

/// What a pod asks for and is limited to. Zero is "no limit, and nothing asked for".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Cores: a number (`0.5`), or text (`"0.5"`, `"500m"`).
    #[serde(
        default,
        rename = "cpu",
        deserialize_with = "cpu_millis",
        serialize_with = "cpu_cores",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<CpuAmount>)]
    pub cpu_millis: u64,
    /// Bytes: a whole number, or text with a unit (`"64Mi"`, `"1g"`; `k`, `m` and `g` count in 1024s).
    #[serde(
        default,
        rename = "memory",
        deserialize_with = "memory_bytes",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
    pub memory_bytes: u64,
    /// Memory and swap together, in the same form as memory; no swap where none is said.
    #[serde(
        default,
        rename = "memory_swap",
        deserialize_with = "memory_bytes",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
    pub memory_swap_bytes: u64,
    /// Size of `/dev/shm`, likewise; the engine's default where none is said.
    #[serde(
        default,
        rename = "shm",
        deserialize_with = "bytes",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
    pub shm_bytes: u64,
    /// Most processes and threads; without bound where none is said.
    #[serde(
        default,
        rename = "pids",
        deserialize_with = "pids",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<u64>)]
    pub pids_max: u64,
    /// Bytes of the node's disk that it asks for, likewise. Not a limit: most engines cannot keep a
    /// container's files to one.
    #[serde(
        default,
        rename = "disk",
        deserialize_with = "bytes",
        skip_serializing_if = "is_zero"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
    pub disk_bytes: u64,
    /// What it asks for of its node where that is less than its limits, or where it has none.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub requests: Requests,
    /// Devices it is given, by kind: `{"gpu": 2}`. Each is one pod's at a time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"gpu": 1}))]
    pub devices: BTreeMap<String, u32>,
}

impl Resources {
    /// Thousandths of a core that it asks for: its limit, where it does not say otherwise.
    pub fn cpu_asked(&self) -> u64 {
        self.requests.cpu_millis.unwrap_or(self.cpu_millis)
    }

    /// Bytes of memory that it asks for, likewise.
    pub fn memory_asked(&self) -> u64 {
        self.requests.memory_bytes.unwrap_or(self.memory_bytes)
    }

    /// What else it asks for.
    pub fn asks(&self) -> Amounts {
        let mut asks = Amounts::default();
        asks.add(DISK, self.disk_bytes);
        asks.add(PIDS, self.requests.pids.unwrap_or(0));
        for (kind, count) in &self.devices {
            asks.add(kind, u64::from(*count));
        }
        asks
    }
}

/// Cores of cpu.
#[derive(utoipa::ToSchema)]
#[schema(example = 0.5)]
#[allow(dead_code, reason = "describes the JSON for OpenAPI only")]
#[serde(untagged)]
#[derive(Serialize)]
pub enum CpuAmount {
    /// `0.5`
    Cores(f64),
    /// `"0.5"`, `"500m"`
    Text(String),
}

/// Bytes of memory.
#[derive(utoipa::ToSchema)]
#[schema(example = "64Mi")]
#[allow(dead_code, reason = "describes the JSON for OpenAPI only")]
#[serde(untagged)]
#[derive(Serialize)]
pub enum MemoryAmount {
    /// `67108864`
    Bytes(u64),
    /// `"64Mi"`
    Text(String),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn cpu_cores<S: serde::Serializer>(millis: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    if millis.is_multiple_of(1000) {
        serializer.serialize_u64(millis / 1000)
    } else {
        // At most CPU_MILLIS_MAX, so exact in a double.
        #[expect(clippy::cast_precision_loss, reason = "bounded by CPU_MILLIS_MAX")]
        serializer.serialize_f64(*millis as f64 / 1000.0)
    }
}

fn cpu_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    amount(deserializer, CPU_RULE, parse_cpu)
}

fn pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let parse = |text: &str| digits(text).filter(|pids| (1..=PIDS_MAX).contains(pids));
    amount(deserializer, PIDS_RULE, parse)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    amount(deserializer, BYTES_RULE, parse_bytes)
}

/// An amount of bytes that may be left out.
pub(crate) fn some_bytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    bytes(deserializer).map(Some)
}

fn memory_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    amount(deserializer, MEMORY_RULE, parse_memory)
}

/// A number or a text as text through `parse`; the error names what was given and what is allowed.
fn amount<'de, D: Deserializer<'de>>(
    deserializer: D,
    rule: &str,
    parse: fn(&str) -> Option<u64>,
) -> Result<u64, D::Error> {
    let given = Value::deserialize(deserializer)?;
    let parsed = match &given {
        Value::Number(number) => parse(&number.to_string()),
        Value::String(text) => parse(text),
        _ => None,
    };
    parsed.ok_or_else(|| {
        serde::de::Error::custom(format_args!("invalid value: {given}, expected {rule}"))
    })
}

/// Thousandths of a core from `0.5` or `500m`; `None` outside 1 to [`CPU_MILLIS_MAX`].
pub fn parse_cpu(text: &str) -> Option<u64> {
    let millis = match text.strip_suffix('m') {
        Some(millis) => digits::<u64>(millis)?,
        None => {
            let cores = decimal(text)?;
            // Rounded, so 0.29 is 290 and not 289.
            let millis = (cores * 1000.0).round();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "checked to lie within 0 and CPU_MILLIS_MAX"
            )]
            if (0.0..=CPU_MILLIS_MAX as f64).contains(&millis) {
                millis as u64
            } else {
                return None;
            }
        }
    };
    (1..=CPU_MILLIS_MAX).contains(&millis).then_some(millis)
}

/// Bytes from `67108864`, `64Mi`, `64M` or `64m`; `None` outside [`MEMORY_MIN`] to [`MEMORY_MAX`].
///
/// Lower-case units and those with `i` count in 1024s, as Docker does; `K`, `M`, `G` and `T`
/// count in 1000s, as the SI and Kubernetes do.
pub fn parse_memory(text: &str) -> Option<u64> {
    parse_bytes(text).filter(|bytes| *bytes >= MEMORY_MIN)
}

/// The same for what may be small, such as a tmpfs; `None` outside 1 to [`MEMORY_MAX`].
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit: u64 = match &text[digits..] {
        "" | "b" | "B" => 1,
        "k" | "kb" | "Ki" | "KiB" => 1 << 10,
        "m" | "mb" | "Mi" | "MiB" => 1 << 20,
        "g" | "gb" | "Gi" | "GiB" => 1 << 30,
        "t" | "tb" | "Ti" | "TiB" => 1 << 40,
        "K" | "KB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = match text[..digits].parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit)?,
        Err(_) => {
            #[expect(
                clippy::cast_precision_loss,
                reason = "units are powers far below 2^53"
            )]
            let bytes = decimal(&text[..digits])? * unit as f64;
            // A fraction of a byte is a mistake, one of a MiB is not.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "checked to lie within 0 and MEMORY_MAX"
            )]
            if unit > 1 && (0.0..=MEMORY_MAX as f64).contains(&bytes) {
                bytes as u64
            } else {
                return None;
            }
        }
    };
    (1..=MEMORY_MAX).contains(&bytes).then_some(bytes)
}

/// A plain decimal: digits with at most one point; no sign, exponent, `inf` or `nan`.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_as_cores_or_thousandths() {
        for (text, millis) in [
            ("1", 1000),
            ("0.5", 500),
            ("500m", 500),
            ("0.29", 290),
            ("64", 64000),
        ] {
            assert_eq!(parse_cpu(text), Some(millis), "{text}");
        }
        for bad in [
            "", "0", "-1", "0m", "nan", "inf", "1e3", "1.2.3", "0.0001", "100001", "x", "m",
        ] {
            assert_eq!(parse_cpu(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_is_read_with_units() {
        for (text, bytes) in [
            ("67108864", 64 << 20),
            ("64Mi", 64 << 20),
            ("64m", 64 << 20),
            ("64M", 64_000_000),
            ("1.5g", 3 << 29),
            ("1g", 1 << 30),
        ] {
            assert_eq!(parse_memory(text), Some(bytes), "{text}");
        }
        for bad in [
            "",
            "0",
            "1",
            "5m",
            "-1",
            "1.5",
            "64 Mi",
            "1e9",
            "64X",
            "Mi",
            "18446744073709551616",
            "2048Ti",
        ] {
            assert_eq!(parse_memory(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_may_be_small_is_read_likewise() {
        for (text, bytes) in [("1", 1), ("64k", 65_536), ("1.5m", 3 << 19)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "0", "0k", "0.5", "k"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
        let given = r#"{"memory":"64Mi","memory_swap":"1g","shm":"1m","pids":"100"}"#;
        let resources: Resources = serde_json::from_str(given).unwrap();
        assert_eq!(resources.memory_swap_bytes, 1 << 30);
        assert_eq!((resources.shm_bytes, resources.pids_max), (1 << 20, 100));
        for bad in [r#"{"pids":0}"#, r#"{"pids":-1}"#, r#"{"memory_swap":"1m"}"#] {
            assert!(serde_json::from_str::<Resources>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_is_the_limit_unless_it_says_otherwise() {
        let of = |json: &str| serde_json::from_str::<Resources>(json).unwrap();
        let limits = of(r#"{"cpu":2,"memory":"1g","pids":9}"#);
        assert_eq!((limits.cpu_asked(), limits.memory_asked()), (2000, 1 << 30));
        assert!(limits.asks().is_empty(), "a limit of pids is only that");
        let given = r#"{"cpu":2,"memory":1073741824,"disk":1024,"requests":{"cpu":0.5,"memory":0,"pids":5},"devices":{"fpga":1,"gpu":2}}"#;
        let less = of(given);
        assert_eq!((less.cpu_asked(), less.memory_asked()), (500, 0));
        assert_eq!(less.asks().to_string(), "disk=1024,fpga=1,gpu=2,pids=5");
        assert_eq!(serde_json::to_string(&less).unwrap(), given);
        let alone = of(r#"{"requests":{"cpu":"250m","memory":"1k"}}"#);
        assert_eq!((alone.cpu_asked(), alone.memory_asked()), (250, 1024));
        for bad in [
            r#"{"cpu":-1}"#,
            r#"{"memory":"x"}"#,
            r#"{"pids":1.5}"#,
            r#"{"disk":1}"#,
        ] {
            assert!(serde_json::from_str::<Requests>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_keeps_the_amount() {
        let given = r#"{"cpu":"250m","memory":"64Mi"}"#;
        let resources: Resources = serde_json::from_str(given).unwrap();
        let shown = serde_json::to_string(&resources).unwrap();
        assert_eq!(shown, r#"{"cpu":0.25,"memory":67108864}"#);
        assert_eq!(
            serde_json::from_str::<Resources>(&shown).unwrap(),
            resources
        );
    }
}
