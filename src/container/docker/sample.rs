//! What a container uses, as the engine tells it.

use std::time::UNIX_EPOCH;

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt as _;
use humantime_serde::re::humantime::parse_rfc3339;

use super::{ASK_LIMIT, Docker};
use crate::container::{RuntimeError, Sample, Verb};

impl Docker {
    pub(in crate::container) async fn sample(&self, id: &str) -> Result<Sample, RuntimeError> {
        let options = StatsOptionsBuilder::new()
            .stream(false)
            .one_shot(true)
            .build();
        let told = self
            .link
            .call(Verb::Sample, ASK_LIMIT, |client| async move {
                client.stats(id, Some(options)).next().await.transpose()
            })
            .await;
        let told = match told {
            Err(failure) if failure.status == Some(404) => None,
            other => other?,
        };
        told.as_ref()
            .and_then(sample)
            .ok_or_else(|| RuntimeError::ContainerMissing { id: id.to_owned() })
    }
}

/// The figures of a running container; an ended one has none.
fn sample(told: &ContainerStatsResponse) -> Option<Sample> {
    let at = parse_rfc3339(told.read.as_deref()?).ok()?;
    let at = at.duration_since(UNIX_EPOCH).ok()?;
    let cpu = told.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = told.memory_stats.as_ref();
    let used = memory.and_then(|memory| memory.usage)?;
    // Pages of files that are read no more; the name tells the version of the kernel's groups.
    let details = memory.and_then(|memory| memory.stats.as_ref());
    let droppable = details.and_then(|stats| {
        let one = |name| stats.get(name);
        one("total_inactive_file").or_else(|| one("inactive_file"))
    });
    let networks = told.networks.iter().flat_map(|networks| networks.values());
    let (received, sent) = networks.fold((0, 0), |(received, sent), network| {
        let (more, out) = (network.rx_bytes.unwrap_or(0), network.tx_bytes.unwrap_or(0));
        (received + more, sent + out)
    });
    let blocks = told.blkio_stats.as_ref();
    let blocks = blocks.and_then(|blocks| blocks.io_service_bytes_recursive.as_deref());
    let moved = |name: &str| -> u64 {
        let of_kind = blocks.unwrap_or_default().iter().filter(|entry| {
            let kind = entry.op.as_deref().unwrap_or_default();
            kind.eq_ignore_ascii_case(name)
        });
        of_kind.filter_map(|entry| entry.value).sum()
    };
    Some(Sample {
        at_ns: u64::try_from(at.as_nanos()).ok()?,
        cpu_ns: cpu,
        memory_bytes: used.saturating_sub(droppable.copied().unwrap_or(0)),
        memory_limit_bytes: memory.and_then(|memory| memory.limit).unwrap_or(0),
        network_received_bytes: received,
        network_sent_bytes: sent,
        block_read_bytes: moved("read"),
        block_written_bytes: moved("write"),
        pids: told
            .pids_stats
            .as_ref()
            .and_then(|pids| pids.current)
            .unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(memory_stats: serde_json::Value) -> ContainerStatsResponse {
        serde_json::from_value(json!({
            "read": "2026-11-20T10:29:09.222360945Z",
            "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 100},
                {"major": 8, "minor": 16, "op": "read", "value": 1},
                {"major": 8, "minor": 0, "op": "Write", "value": 7},
                {"major": 8, "minor": 0, "op": "Total", "value": 108},
            ]},
            "cpu_stats": {"cpu_usage": {"total_usage": 20_707_922_u64}},
            "memory_stats": memory_stats,
            "networks": {
                "eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 1, "tx_bytes": 1},
            },
        }))
        .unwrap()
    }

    #[test]
    fn both_versions_of_groups_are_understood() {
        for droppable in ["total_inactive_file", "inactive_file"] {
            let memory = json!({"usage": 1000, "limit": 4000, "stats": {droppable: 300}});
            let expected = Sample {
                at_ns: 1_795_170_549_222_360_945,
                cpu_ns: 20_707_922,
                memory_bytes: 700,
                memory_limit_bytes: 4000,
                network_received_bytes: 6,
                network_sent_bytes: 7,
                block_read_bytes: 101,
                block_written_bytes: 7,
                pids: 3,
            };
            assert_eq!(sample(&told(memory)), Some(expected));
        }
    }

    #[test]
    fn an_ended_container_uses_nothing_that_can_be_told() {
        assert_eq!(sample(&told(json!({}))), None);
    }
}
