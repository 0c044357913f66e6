//! Carrying an apply out: waiting, asking for it, and telling what became of it.

use std::time::Instant;

use serde_json::Value;

use super::super::CliError;
use super::super::output::{self, Format, OutputError};
use super::wait::{self, Waited};
use super::{Applied, ApplyArgs, short, show};
use crate::client::{Client, ClientError};
use crate::wishes::Wish;

/// Carrying an apply out.
pub(super) struct Run<'a> {
    client: &'a Client,
    args: &'a ApplyArgs,
    done: Vec<Applied>,
}

impl<'a> Run<'a> {
    pub(super) fn new(client: &'a Client, args: &'a ApplyArgs) -> Run<'a> {
        let done = Vec::new();
        Run { client, args, done }
    }

    /// Makes one wish so, once what it waits for is so.
    pub(super) async fn one(&mut self, wish: &Wish, plan: &Applied) -> Result<(), String> {
        // A service that stays as it is needs nobody to be ready.
        if plan.changes_something() && !self.args.no_wait {
            for after in &wish.after {
                let waited = wait::until(self.client, after, self.args.timeout).await;
                match (waited, after.required) {
                    (Waited::Done, _) => {}
                    (Waited::Failed(why), false) => {
                        output::say(&format!("{why}; going on without it"))
                    }
                    (Waited::Failed(why), true) => return Err(why),
                }
            }
        }
        let deadline = Instant::now() + self.args.timeout;
        let applied = loop {
            let answer = self
                .client
                .apply::<Applied>(&wish.key, &wish.body, false)
                .await;
            match answer {
                Ok(applied) => break applied,
                Err(ClientError::Refused(problem))
                    if problem.is("service-deleting")
                        && !self.args.no_wait
                        && Instant::now() < deadline =>
                {
                    let timeout = deadline.saturating_duration_since(Instant::now());
                    wait::until_gone(self.client, &wish.key, timeout).await?;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        self.show(applied).map_err(|error| error.to_string())
    }

    /// Deletes a service that is left over; false where that is refused.
    pub(super) async fn prune(&mut self, old: &Applied) -> Result<bool, CliError> {
        let key = show::key_of(&old.service);
        match self
            .client
            .delete_service::<Value>(&key.name, Some(&key.namespace))
            .await
        {
            Ok(service) => {
                self.show(Applied::deleted(service))?;
                Ok(true)
            }
            // Somebody was faster.
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(true),
            Err(error) => {
                output::complain(&format!("service {}: {error}", short(&key)));
                Ok(false)
            }
        }
    }

    fn show(&mut self, applied: Applied) -> Result<(), OutputError> {
        let shown = match self.args.output.output {
            Format::Table => output::text(&show::line(&applied, "")),
            Format::Json => Ok(()),
        };
        self.done.push(applied);
        match shown {
            // What was begun is ended, whether or not somebody still reads.
            Err(OutputError::Closed) => Ok(()),
            shown => shown,
        }
    }

    pub(super) fn show_json(&self) -> Result<(), CliError> {
        match self.args.output.output {
            Format::Json => Ok(output::json(&self.done)?),
            Format::Table => Ok(()),
        }
    }
}
