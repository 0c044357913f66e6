//! Reports: what a worker leaves to be told to Redis, and the inbox entries dropped with it.

use super::Workers;
use crate::agent::life::Status;
use crate::container::Container;
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
        let container = self.table.container(pod);
        let running = container.filter(|_| status.phase.is_some_and(Phase::runs));
        self.calls.outbox.tell(Report {
            phase: status.phase,
            reason: status.reason,
            exit_code: status.exit_code,
            container: status.container,
            ready: status.ready,
            restarts: Some(status.restarts),
            ports: running.as_ref().map(ports_of).unwrap_or_default(),
            digest: self.table.digest(pod).unwrap_or_default(),
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

    /// Learns the digest of the image that a pod's container runs, to be told with its state.
    pub(super) async fn learn_digest(&self, pod: &PodId) {
        let Some(container) = self.table.container(pod) else {
            return;
        };
        if self.table.digest(pod).is_none() {
            // Where there is none, or the engine does not say, there is none to tell.
            let asked = self.runtime().digest(&container.image).await;
            let digest = asked.ok().flatten().unwrap_or_default();
            self.table.set_digest(pod, digest);
        }
    }

    /// Says why a pod is not further yet, and keeps its entries.
    pub(super) fn tell_reason(&self, pod: &PodId, token: Token, reason: String) {
        self.calls.outbox.tell(Report {
            reason,
            ..Report::new(pod.clone(), token)
        });
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

/// The ports that a container has of its node, as a report holds them.
fn ports_of(container: &Container) -> String {
    let bound = container.ports.iter().filter(|port| port.host.is_some());
    let bound: Vec<String> = bound.map(ToString::to_string).collect();
    bound.join(",")
}
