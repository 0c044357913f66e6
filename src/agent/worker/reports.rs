//! Reports: what a worker tells Redis, and the inbox entries that are dropped with it.

use super::{Entry, Trouble, Workers};
use crate::container::Container;
use crate::model::{Phase, PodId, Token};
use crate::process::failpoint;
use crate::store::backoff::Backoff;
use crate::store::{From, Report, ReportOutcome};
use crate::telemetry::chain;

impl Workers {
    /// Reports a phase, and drops the pod's inbox entries with it.
    pub(super) async fn report(
        &self,
        pod: &PodId,
        token: Token,
        phase: Option<Phase>,
        reason: String,
        exit_code: Option<i64>,
    ) -> Result<ReportOutcome, Trouble> {
        let container = self.table.container(pod);
        let (ports, digest) = match &container {
            Some(container) if phase.is_some_and(Phase::runs) => {
                (ports_of(container), self.digest_of(pod, container).await)
            }
            _ => Default::default(),
        };
        let mut entries = self.table.take_entries(pod).into_iter();
        let report = Report {
            phase,
            reason,
            exit_code,
            container: container.map(|container| container.id).unwrap_or_default(),
            ports,
            digest,
            entry: entries.next().map(|entry| entry.bytes),
            ..Report::new(pod.clone(), token)
        };
        failpoint("agent.before_report");
        let outcome = self.calls.report(report).await.ok_or(Trouble::Ends)?;
        failpoint("agent.after_report");
        for entry in entries {
            self.drop_entry(pod, entry).await?;
        }
        Ok(outcome)
    }

    /// Digest of a container's image; empty where there is none, or the engine does not say.
    async fn digest_of(&self, pod: &PodId, container: &Container) -> String {
        if let Some(known) = self.table.digest(pod) {
            return known;
        }
        let asked = self.runtime().digest(&container.image).await;
        let digest = asked.ok().flatten().unwrap_or_default();
        self.table.set_digest(pod, digest.clone());
        digest
    }

    /// Says why a pod is not further yet, and keeps its entries.
    pub(super) async fn report_reason(
        &self,
        pod: &PodId,
        token: Token,
        reason: String,
    ) -> Result<(), Trouble> {
        let report = Report {
            reason,
            ..Report::new(pod.clone(), token)
        };
        self.calls
            .report(report)
            .await
            .ok_or(Trouble::Ends)
            .map(drop)
    }

    /// Drops the pod's inbox entries: there is nothing to tell.
    pub(super) async fn drop_entries(&self, pod: &PodId) -> Result<(), Trouble> {
        for entry in self.table.take_entries(pod) {
            self.drop_entry(pod, entry).await?;
        }
        Ok(())
    }

    async fn drop_entry(&self, pod: &PodId, entry: Entry) -> Result<(), Trouble> {
        let report = Report {
            entry: Some(entry.bytes),
            ..Report::new(pod.clone(), Token::default())
        };
        self.calls
            .report(report)
            .await
            .ok_or(Trouble::Ends)
            .map(drop)
    }

    /// The entries name no pod and nothing runs under that id: nobody can make sense of them.
    pub(super) async fn bury_entries(&self, pod: &PodId) -> Result<(), Trouble> {
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
        Ok(())
    }
}

/// The ports that a container has of its node, as a report holds them.
fn ports_of(container: &Container) -> String {
    let bound = container.ports.iter().filter(|port| port.host.is_some());
    let bound: Vec<String> = bound.map(ToString::to_string).collect();
    bound.join(",")
}
