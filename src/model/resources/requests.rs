//! What a pod asks for where that is not what it is limited to.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    BYTES_RULE, CPU_RULE, CpuAmount, MemoryAmount, PIDS_MAX, PIDS_RULE, amount, cpu_cores,
    parse_bytes, parse_cpu,
};

/// What a pod asks for of its node: that much is kept free for it. Zero asks for nothing, whatever
/// the limit is; where nothing is said of cpu or memory, the limit is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Cores, written as the limit is; at most the limit.
    #[serde(
        default,
        rename = "cpu",
        deserialize_with = "some_cpu",
        serialize_with = "some_cores",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<CpuAmount>)]
    pub cpu_millis: Option<u64>,
    /// Bytes, likewise.
    #[serde(
        default,
        rename = "memory",
        deserialize_with = "some_memory",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads; none are asked for where nothing is said.
    #[serde(
        default,
        deserialize_with = "some_pids",
        skip_serializing_if = "Option::is_none"
    )]
    pub pids: Option<u64>,
}

impl Requests {
    /// True if nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Requests::default()
    }
}

#[expect(clippy::ref_option, reason = "serde gives references")]
fn some_cores<S: Serializer>(millis: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    cpu_cores(&millis.unwrap_or(0), serializer)
}

fn some_cpu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    amount(deserializer, CPU_RULE, |text| or_zero(text, parse_cpu)).map(Some)
}

fn some_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    amount(deserializer, BYTES_RULE, |text| or_zero(text, parse_bytes)).map(Some)
}

fn some_pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let parse = |text: &str| text.parse().ok().filter(|pids| *pids <= PIDS_MAX);
    amount(deserializer, PIDS_RULE, parse).map(Some)
}

fn or_zero(text: &str, parse: fn(&str) -> Option<u64>) -> Option<u64> {
    if text == "0" { Some(0) } else { parse(text) }
}
