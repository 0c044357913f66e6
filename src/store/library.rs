//! The function library in Redis: loaded where it is absent or older, refused where it is newer.

use std::sync::atomic::{AtomicU64, Ordering};

use super::call::Reply;
use super::connection::{Connection, is_function_absent};
use super::{Store, StoreError};

const LUA: &str = include_str!("../../redis/kubeleet.lua");

/// Version of the library, as its Lua says; a test compares the two.
pub(super) const VERSION: u64 = 8;
/// Version of the keys this process reads and writes.
pub(super) const SCHEMA: u64 = 1;

/// Every function of the library, in the order of the file.
pub const FUNCTIONS: [&str; 59] = [
    "kl_library_version",
    "kl_cluster_open",
    "kl_memory_check",
    "kl_cluster_mend",
    "kl_key_mend",
    "kl_node_compare",
    "kl_service_submit",
    "kl_service_split",
    "kl_service_scale",
    "kl_service_shrink",
    "kl_service_delete",
    "kl_service_claim",
    "kl_service_view",
    "kl_service_step",
    "kl_service_compare",
    "kl_pod_claim",
    "kl_pod_assign",
    "kl_node_lower",
    "kl_pod_preempt",
    "kl_service_nodes",
    "kl_claim_expire",
    "kl_parked_release",
    "kl_decision_keep",
    "kl_pod_adopt",
    "kl_dead_add",
    "kl_dead_bury",
    "kl_dead_requeue",
    "kl_dead_drop",
    "kl_inbox_mend",
    "kl_inbox_pop",
    "kl_pod_take",
    "kl_pod_report",
    "kl_pod_stop",
    "kl_cluster_check",
    "kl_service_restore",
    "kl_pod_restore",
    "kl_node_register",
    "kl_node_heartbeat",
    "kl_node_leave",
    "kl_node_snapshot",
    "kl_node_sweep",
    "kl_node_restore",
    "kl_node_label",
    "kl_node_mark",
    "kl_node_draining",
    "kl_node_evict",
    "kl_node_remove",
    "kl_pod_return",
    "kl_node_strain",
    "kl_node_culprits",
    "kl_pod_move",
    "kl_move_expire",
    "kl_session_open",
    "kl_session_take",
    "kl_session_write",
    "kl_session_read",
    "kl_session_keep",
    "kl_session_end",
    "kl_logs_keep",
];

/// Remembers for which master the library was checked.
#[derive(Debug, Default)]
pub(super) struct Library {
    /// Generation of the connection it was last checked on; 0 is none.
    checked: AtomicU64,
}

impl Store {
    /// Checks library and schema once per master; loads a library that is absent or older.
    pub(super) async fn ensure_library(
        &self,
        connection: &mut Connection,
    ) -> Result<(), StoreError> {
        let generation = connection.generation();
        if self.library.checked.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        self.load_library(connection).await?;
        self.check_schema(connection).await?;
        self.check_memory(connection).await?;
        self.library.checked.store(generation, Ordering::Release);
        Ok(())
    }

    /// Refuses keys of a newer schema: this process would damage them.
    async fn check_schema(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let mut get = super::call::command("HGET");
        get.arg(self.keys.cluster()).arg("schema");
        let theirs: Option<u64> = self.run_command(connection, "HGET", &get).await?;
        match theirs {
            Some(theirs) if theirs > SCHEMA => Err(StoreError::Newer {
                what: "schema",
                theirs,
                ours: SCHEMA,
            }),
            _ => Ok(()),
        }
    }

    /// Loads the library unless Redis already has this version; refuses a newer one.
    pub(super) async fn load_library(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let version = self.function("kl_library_version");
        let theirs = match self.run_on(connection, &version).await {
            Ok(value) => Reply::new("kl_library_version", vec![value]).number::<u64>()?,
            Err(error) if is_absent(&error) => 0,
            Err(error) => return Err(error),
        };
        if theirs > VERSION {
            return Err(StoreError::Newer {
                what: "library",
                theirs,
                ours: VERSION,
            });
        }
        if theirs < VERSION {
            let mut load = super::call::command("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(LUA);
            self.run_command::<String>(connection, "FUNCTION LOAD", &load)
                .await?;
            tracing::info!(version = VERSION, "function library loaded");
        }
        Ok(())
    }
}

/// True if Redis does not have the function: it is new, was flushed, or failed over before it
/// was replicated.
pub(super) fn is_absent(error: &StoreError) -> bool {
    match error {
        StoreError::Call { source, .. } => is_function_absent(source),
        _ => false,
    }
}
