//! The function library in Redis: loaded where it is absent or older; a newer one stays.

use std::sync::atomic::{AtomicU64, Ordering};

use super::call::Reply;
use super::connection::{Connection, is_forbidden, is_function_absent};
use super::{Store, StoreError};

const LUA: &str = include_str!("../../redis/kubeleet.lua");

/// Version of the library, as its Lua says; a test compares the two.
pub(super) const VERSION: u64 = 8;
/// Version of the keys this process reads and writes.
pub(super) const SCHEMA: u64 = 1;

/// Every function of the library, in the order of the file.
pub const FUNCTIONS: [&str; 60] = [
    "kl_library_version",
    "kl_library_serves",
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

    /// Loads the library where it is absent or older. A newer one stays, and serves this process if it says
    /// so; else it is refused.
    pub(super) async fn load_library(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let theirs = self.ask_number(connection, "kl_library_version").await?;
        match theirs.cmp(&VERSION) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.check_served(connection, theirs).await,
            std::cmp::Ordering::Less => self.replace_library(connection, theirs).await,
        }
    }

    /// A number that the library says of itself; 0 where it does not.
    async fn ask_number(
        &self,
        connection: &mut Connection,
        function: &'static str,
    ) -> Result<u64, StoreError> {
        match self.run_on(connection, &self.function(function)).await {
            Ok(value) => Reply::new(function, vec![value]).number::<u64>(),
            Err(error) if is_absent(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// During an upgrade processes of the last version go on with the library of the next.
    async fn check_served(
        &self,
        connection: &mut Connection,
        theirs: u64,
    ) -> Result<(), StoreError> {
        let serves = self.ask_number(connection, "kl_library_serves").await?;
        if serves == 0 || serves > VERSION {
            return Err(StoreError::Newer {
                what: "library",
                theirs,
                ours: VERSION,
            });
        }
        tracing::info!(
            theirs,
            ours = VERSION,
            "Redis holds a newer function library, which serves this version too"
        );
        Ok(())
    }

    async fn replace_library(
        &self,
        connection: &mut Connection,
        theirs: u64,
    ) -> Result<(), StoreError> {
        let mut load = super::call::command("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(LUA);
        let loaded = self.run_command::<String>(connection, "FUNCTION LOAD", &load);
        match loaded.await {
            Ok(_) => {
                tracing::info!(version = VERSION, "function library loaded");
                Ok(())
            }
            Err(StoreError::Call { source, .. }) if is_forbidden(&source) => {
                Err(StoreError::Older {
                    theirs,
                    ours: VERSION,
                })
            }
            Err(error) => Err(error),
        }
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
