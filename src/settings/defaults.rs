//! The value of every key that is not given.
//!
//! Invariant: `config/kubeleet.toml` shows the same values (test `example_file_shows_every_default`).

use std::path::PathBuf;
use std::time::Duration;

use super::parts::*;
use crate::model::Strategy;
use crate::model::service::{BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET};

impl Default for RedisSettings {
    fn default() -> Self {
        RedisSettings {
            url: Secret::from("redis://127.0.0.1:6379"),
            sentinels: Vec::new(),
            master: "kubeleet".to_owned(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            accept_unsafe: false,
            pool_size: 16,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            durability: None,
            recovery_time: Duration::from_secs(20),
            commit_timeout: Duration::from_secs(1),
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            listen: "127.0.0.1:8080".to_owned(),
            replicas_max: 10_000,
            body_bytes_max: 1024 * 1024,
            idempotency_ttl: Duration::from_secs(24 * 60 * 60),
            signing_key_file: PathBuf::new(),
        }
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        NodeSettings {
            name: String::new(),
            runtime: RuntimeKind::Docker,
            docker_socket: String::new(),
            cpu: 0.0,
            memory: String::new(),
            disk: String::new(),
            pids: 0,
            pods_max: 250,
            labels: Vec::new(),
            proc_dir: PathBuf::from("/proc"),
            run_dir: PathBuf::from("/run/kubeleet"),
            cgroup_dir: PathBuf::from("/sys/fs/cgroup"),
        }
    }
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        HeartbeatSettings {
            interval: Duration::from_secs(5),
            lease: Duration::from_secs(20),
        }
    }
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        SchedulerSettings {
            batch: 500,
            claim_lease: Duration::from_secs(10),
            sweep_interval: Duration::from_millis(500),
            compare_interval: Duration::from_secs(30),
            ended_kept: 5,
            revisions_kept: 10,
            strategy: Strategy::default(),
            weights: Weights::default(),
            rebalance: RebalanceSettings::default(),
        }
    }
}

impl Default for RebalanceSettings {
    /// It suggests and moves nothing: who has never asked for it must not find pods moved, and who
    /// could use it learns of it from the events.
    fn default() -> Self {
        RebalanceSettings {
            mode: RebalanceMode::Suggest,
            moves_per_minute: 2,
            lasting: Duration::from_secs(60),
            rest: Duration::from_secs(10 * 60),
            patience: Duration::from_secs(3 * 60),
            threshold: Thresholds::default(),
        }
    }
}

impl Default for Thresholds {
    /// Below the limits at which a node takes nothing more: the pressure should go before that.
    fn default() -> Self {
        Thresholds {
            cpu: 80.0,
            memory: 20.0,
            io: 40.0,
        }
    }
}

impl Default for PressureLimits {
    /// No limit for the cpu: on a machine that is merely in full use something nearly always waits for it,
    /// and it gets on all the same.
    fn default() -> Self {
        PressureLimits {
            cpu: 0.0,
            memory: 40.0,
            io: 60.0,
        }
    }
}

impl Default for Weights {
    /// Pressure outweighs counts: a machine in distress must not be chosen for being empty.
    fn default() -> Self {
        Weights {
            pods: 1.0,
            cpu: 1.0,
            memory: 1.0,
            pressure_memory: 4.0,
            pressure_io: 3.0,
            pressure_cpu: 2.0,
            placed: 1.0,
        }
    }
}

impl Default for AgentSettings {
    fn default() -> Self {
        AgentSettings {
            concurrency: 4,
            stop_grace: Duration::from_secs(10),
            resync_interval: Duration::from_secs(30),
            log_tail_bytes: 64 * 1024,
            registries: Vec::new(),
            image_disk_high: 0.85,
            image_disk_low: 0.75,
            image_unused: Duration::from_secs(60 * 60),
            images_kept: 3,
            devices: Vec::new(),
            overcommit: OvercommitSettings::default(),
            allow: AllowSettings::default(),
            pressure_limit: PressureLimits::default(),
            require_signed: false,
            trusted_keys: Vec::new(),
            drift_interval: Duration::from_secs(10),
            restart_backoff: BACKOFF_FIRST,
            restart_backoff_max: BACKOFF_MAX,
            restart_reset: BACKOFF_RESET,
        }
    }
}

impl Default for OvercommitSettings {
    /// Nothing is offered twice.
    fn default() -> Self {
        OvercommitSettings {
            cpu: 1.0,
            memory: 1.0,
            disk: 1.0,
            pids: 1.0,
        }
    }
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        SimulatedSettings {
            start_time: Duration::from_millis(5),
            stop_time: Duration::from_millis(5),
            pull_time: Duration::ZERO,
            failure_rate: 0.0,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            filter: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}
