//! What a node offers: the settings where they say so, else what its machine has; and more than that
//! where the settings overcommit.

use std::path::Path;

use super::devices::Devices;
use crate::container::EngineInfo;
use crate::model::amounts::{DISK, OFFER_MAX, PIDS};
use crate::model::resources::{parse_bytes, parse_memory};
use crate::model::{Amounts, Capacity};
use crate::settings::{RuntimeKind, Settings};
use crate::telemetry::chain;

/// Where the kernel says how many processes it numbers, below `node.proc_dir`.
const PID_MAX_FILE: &str = "sys/kernel/pid_max";
/// Where devices are; those of the machine, also where the agent runs in a container that has them.
const DEV_DIR: &str = "/dev";

/// What a node offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    pub(super) capacity: Capacity,
    /// Disk and pids.
    pub(super) amounts: Amounts,
    pub(super) devices: Devices,
}

impl Offer {
    /// What the node of these settings offers, with this engine.
    pub(super) fn of(settings: &Settings, engine: &EngineInfo) -> Offer {
        let (node, ratios) = (&settings.node, &settings.agent.overcommit);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "settings are checked to be sound amounts"
        )]
        let cpu_millis = if node.cpu > 0.0 {
            (node.cpu * 1000.0) as u64
        } else {
            engine.cpu_millis
        };
        let memory_bytes = parse_memory(&node.memory).unwrap_or(engine.memory_bytes);
        let mut amounts = Amounts::default();
        let disk = parse_bytes(&node.disk).unwrap_or_else(|| disk_of(engine));
        amounts.add(DISK, times(disk, ratios.disk));
        let pids = if node.pids > 0 {
            node.pids
        } else {
            pid_max(&node.proc_dir)
        };
        amounts.add(PIDS, times(pids, ratios.pids));
        let real = node.runtime == RuntimeKind::Docker;
        let dev_dir = if real {
            Path::new(DEV_DIR)
        } else {
            Path::new("")
        };
        Offer {
            capacity: Capacity {
                pods_max: node.pods_max,
                cpu_millis: times(cpu_millis, ratios.cpu),
                memory_bytes: times(memory_bytes, ratios.memory),
            },
            amounts,
            devices: Devices::of(&settings.agent, dev_dir, &node.proc_dir),
        }
    }
}

fn times(amount: u64, ratio: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio is positive, and OFFER_MAX is exact in a double"
    )]
    let product = (amount as f64 * ratio).min(OFFER_MAX as f64) as u64;
    product
}

/// Size of the disk that holds the engine's data, as `df` counts it: what only root may use is none.
/// Nothing if it cannot be seen from here.
fn disk_of(engine: &EngineInfo) -> u64 {
    let Some(path) = &engine.data_dir else {
        return 0;
    };
    match rustix::fs::statvfs(path) {
        Ok(disk) => {
            let used = disk.f_blocks.saturating_sub(disk.f_bfree);
            used.saturating_add(disk.f_bavail)
                .saturating_mul(disk.f_frsize)
        }
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                error = chain(&error),
                "the engine's data cannot be seen from here: no disk is offered, unless node.disk says how much"
            );
            0
        }
    }
}

fn pid_max(proc_dir: &Path) -> u64 {
    let text = std::fs::read_to_string(proc_dir.join(PID_MAX_FILE));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(data_dir: Option<&str>) -> EngineInfo {
        EngineInfo {
            id: String::new(),
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
            version: String::new(),
            data_dir: data_dir.map(Into::into),
        }
    }

    #[test]
    fn the_machine_is_offered_unless_the_settings_say_otherwise() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("sys/kernel")).unwrap();
        std::fs::write(proc.path().join(PID_MAX_FILE), "32768\n").unwrap();
        let mut settings = Settings::default();
        settings.node.proc_dir = proc.path().to_owned();
        let offer = Offer::of(&settings, &engine(Some("/")));
        assert_eq!(
            (offer.capacity.cpu_millis, offer.amounts.of(PIDS)),
            (4000, 32768)
        );
        assert!(offer.amounts.of(DISK) > 0);
        for unseen in [None, Some("/no/such/folder")] {
            assert_eq!(Offer::of(&settings, &engine(unseen)).amounts.of(DISK), 0);
        }
        (settings.node.cpu, settings.node.pids) = (1.5, 100);
        (settings.node.memory, settings.node.disk) = ("1Gi".to_owned(), "10k".to_owned());
        let said = Offer::of(&settings, &engine(None));
        assert_eq!(
            (said.capacity.cpu_millis, said.capacity.memory_bytes),
            (1500, 1 << 30)
        );
        assert_eq!(said.amounts.to_string(), "disk=10240,pids=100");
    }

    #[test]
    fn ratios_multiply_what_is_offered() {
        let mut settings = Settings::default();
        let ratios = &mut settings.agent.overcommit;
        (ratios.cpu, ratios.memory, ratios.disk, ratios.pids) = (2.5, 0.5, 2.0, 1e9);
        (settings.node.disk, settings.node.pids) = ("1k".to_owned(), 4_194_304);
        let offer = Offer::of(&settings, &engine(None));
        assert_eq!(offer.capacity.cpu_millis, 10_000);
        assert_eq!(offer.capacity.memory_bytes, 4 << 30);
        assert_eq!(
            (offer.amounts.of(DISK), offer.amounts.of(PIDS)),
            (2048, 4_194_304_000_000_000)
        );
    }
}
