//! Reports: what a worker leaves to be told to Redis, and the inbox entries dropped with it.

use super::{Trouble, Workers};
use crate::agent::life::Status;
use crate::model::{Phase, PodId, Token};
use crate::store::backoff::Backoff;
use crate::store::{From, Report};
use crate::telemetry::chain;

impl Workers {
    /// Leaves word of where a pod is.
    pub(super) fn tell(&self, pod: &PodId, token: Token, status: Status) {
        if let Some(phase) = status.phase {
            tracing::info!(pod.id = %pod, node.id = self.node(), reason = status.reason, "pod is {phase}");
        }
        self.calls.outbox.tell(Report {
            phase: status.phase,
            reason: status.reason,
            exit_code: status.exit_code,
            container: status.container,
            ready: status.ready,
            restarts: Some(status.restarts),
            ..Report::new(pod.clone(), token)
        });
    }

    /// Leaves word that nothing is left of a pod that was to be stopped.
    pub(super) fn tell_stopped(&self, pod: &PodId, token: Token) {
        tracing::info!(pod.id = %pod, node.id = self.node(), "pod is stopped");
        self.calls.outbox.tell(Report {
            phase: Some(Phase::Stopped),
            ..Report::new(pod.clone(), token)
        });
    }

    /// Says why a pod is not further yet, and keeps its entries.
    #[expect(clippy::unused_async, reason = "it is one of the steps of a pull")]
    pub(super) async fn report_reason(
        &self,
        pod: &PodId,
        token: Token,
        reason: String,
    ) -> Result<(), Trouble> {
        self.calls.outbox.tell(Report {
            reason,
            ..Report::new(pod.clone(), token)
        });
        Ok(())
    }

    /// Drops the pod's inbox entries, after what was left of it before.
    pub(super) fn drop_entries(&self, pod: &PodId) {
        let entries = self.table.take_entries(pod);
        self.calls.outbox.drop_entries(pod, entries);
    }

    /// The entries name no pod and nothing runs under that id: nobody can make sense of them.
    pub(super) async fn bury_entries(&self, pod: &PodId) {
        for entry in self.table.take_entries(pod) {
            let from = From::Inbox(self.node());
            let mut backoff = Backoff::new();
            while let Err(error) = self
                .store()
                .bury(from, &entry.bytes, "no pod has this id")
                .await
            {
                tracing::warn!(
                    error = chain(&error),
                    "burying an entry failed, trying again"
                );
                backoff.wait(&self.parts.ends).await;
            }
        }
    }
}
