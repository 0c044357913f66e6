//! Services in Redis: submit, split, scale, delete, and reading them.

use std::collections::HashMap;
use std::time::Duration;

use super::call::command;
use super::{Store, StoreError};
use crate::model::service::RegistryLogin;
use crate::model::{Service, ServiceKey, ServiceSpec};
use crate::telemetry::chain;

/// Pods made or stopped by one call of a split: a few milliseconds of Redis.
const SPLIT_STEP: u32 = 500;

/// The port of services.
pub struct Services<'a>(pub(super) &'a Store);

/// A service to submit.
#[derive(Debug, Clone)]
pub struct Submit<'a> {
    /// What is wanted.
    pub spec: &'a ServiceSpec,
    /// Random name of this submission; the same one is used when it is tried again.
    pub submission: &'a str,
    /// The user's key for repeating, if one was given.
    pub idempotency: Option<Idempotency>,
    /// What may become of a wish that stands already.
    pub mode: SubmitMode,
}

/// What may become of a wish that stands already under the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitMode {
    /// Another wish is a conflict.
    Create,
    /// It is changed.
    Apply {
        /// The number of replicas is left as it is.
        keep_replicas: bool,
        /// The revision it must have; 0 for none at all.
        expected: Option<u64>,
    },
}

/// An `Idempotency-Key` and what it was used for.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The key, as the user gave it.
    pub key: String,
    /// Fingerprint of the request's content.
    pub request: String,
    /// How long it is remembered.
    pub ttl: Duration,
}

/// What became of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// The service is new; all its pods are made.
    Created {
        /// Its revision.
        revision: u64,
        /// When, by Redis's clock.
        created_ms: u64,
    },
    /// The very same wish stands already.
    Exists {
        /// Its revision.
        revision: u64,
        /// When it was made, by Redis's clock.
        created_ms: u64,
    },
    /// Another wish stood, and was changed.
    Changed {
        /// Its revision now.
        revision: u64,
        /// When it was made, by Redis's clock.
        created_ms: u64,
    },
    /// It does not have the expected revision.
    Moved {
        /// The one it has; 0 if there is no such service.
        revision: u64,
    },
    /// The same request was answered before under this idempotency key.
    Repeated {
        /// Submission of the first one.
        submission: String,
        /// Its revision.
        revision: u64,
        /// When it was made, by Redis's clock.
        created_ms: u64,
    },
    /// Another wish stands under this name.
    Conflict,
    /// A service of this name is being deleted.
    Deleting,
    /// The idempotency key was used for another request.
    KeyReused,
}

/// What became of a scale or delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleOutcome {
    /// All pods are made, or told to stop.
    Done,
    /// There is no such service.
    Absent,
    /// It is being deleted.
    Deleting,
    /// It does not have the expected revision.
    Moved {
        /// The one it has.
        revision: u64,
    },
}

/// One revision of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// When it was made, by Redis's clock.
    pub created_ms: u64,
    /// What its pods run.
    pub spec: ServiceSpec,
}

/// Pages of what is no service among the keys of services that are passed over in one look.
const RUBBISH_PAGES_MAX: usize = 100;

impl Services<'_> {
    /// Submits a service and makes its pods. The first call is the commit: what it leaves to make
    /// is carried on by any scheduler, should this process die.
    ///
    /// # Errors
    /// After an error that [`StoreError::is_retryable`], the same submission may be tried again.
    pub async fn submit(&self, submit: &Submit<'_>) -> Result<SubmitOutcome, StoreError> {
        let spec = submit.spec;
        let service = spec.key();
        let (key, request, ttl) = match &submit.idempotency {
            Some(idempotency) => (
                format!("{}:{}", spec.namespace, idempotency.key),
                idempotency.request.as_str(),
                idempotency.ttl,
            ),
            None => (String::new(), "", Duration::ZERO),
        };
        let (mode, replicas, expected) = match submit.mode {
            SubmitMode::Create => ("create", spec.replicas.to_string(), None),
            SubmitMode::Apply {
                keep_replicas: true,
                expected,
            } => ("apply", String::new(), expected),
            SubmitMode::Apply { expected, .. } => ("apply", spec.replicas.to_string(), expected),
        };
        let registry = spec.registry.as_ref().map(serde_json::to_string);
        let registry = registry.and_then(Result::ok).unwrap_or_default();
        let call = self.0.function("kl_service_submit");
        let call = call
            .arg(service.to_string())
            .arg(spec.to_stored())
            .arg(replicas)
            .arg(submit.submission)
            .arg(spec.resources.cpu_asked())
            .arg(spec.resources.memory_asked())
            .arg(spec.priority.as_str())
            .arg(SPLIT_STEP)
            .arg(key)
            .arg(request)
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
            .arg(spec.host_ports().join(","))
            .arg(spec.wishes())
            .arg(registry)
            .arg(mode)
            .arg(expected_text(expected))
            .arg(spec.found_by())
            .arg(rank_text(spec))
            .arg(if spec.preemptible { "" } else { "1" })
            .arg(spec.resources.asks().to_string())
            .arg(spec.on_node_loss.held());
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "created" => {
                let revision = reply.number()?;
                let made: u32 = reply.number()?;
                let created_ms = reply.number()?;
                if made < spec.replicas {
                    self.split(&service).await?;
                }
                Ok(SubmitOutcome::Created {
                    revision,
                    created_ms,
                })
            }
            "exists" => Ok(SubmitOutcome::Exists {
                revision: reply.number()?,
                created_ms: reply.number()?,
            }),
            "repeated" => Ok(SubmitOutcome::Repeated {
                submission: reply.text()?,
                revision: reply.number()?,
                created_ms: reply.number()?,
            }),
            "changed" => {
                let revision = reply.number()?;
                let created_ms = reply.number()?;
                self.split(&service).await?;
                Ok(SubmitOutcome::Changed {
                    revision,
                    created_ms,
                })
            }
            "moved" => Ok(SubmitOutcome::Moved {
                revision: reply.number()?,
            }),
            "conflict" => Ok(SubmitOutcome::Conflict),
            "deleting" => Ok(SubmitOutcome::Deleting),
            "mismatch" => Ok(SubmitOutcome::KeyReused),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Carries a service's split on until its pods are as many as wanted, or all are told to stop.
    ///
    /// # Errors
    /// What was made stays made; calling again goes on from there.
    pub async fn split(&self, service: &ServiceKey) -> Result<(), StoreError> {
        loop {
            let call = self.0.function("kl_service_split");
            let call = call.arg(service.to_string()).arg(SPLIT_STEP);
            let mut reply = self.0.commit(call).await?;
            let word = reply.text()?;
            match word.as_str() {
                "absent" => return Ok(()),
                "split" => {
                    if reply.text()? == reply.text()? {
                        return Ok(());
                    }
                }
                _ => return Err(reply.unknown(word)),
            }
        }
    }

    /// Changes how many pods a service has.
    ///
    /// # Errors
    /// As [`Services::submit`].
    pub async fn scale(
        &self,
        service: &ServiceKey,
        replicas: u32,
        submission: &str,
        expected: Option<u64>,
    ) -> Result<ScaleOutcome, StoreError> {
        let call = |function| {
            let call = self.0.function(function).arg(service.to_string());
            let call = call.arg(replicas).arg(submission).arg(SPLIT_STEP);
            call.arg(expected_text(expected))
        };
        match self.finish(service, call("kl_service_scale")).await {
            // What makes room must not be refused for want of room.
            Err(full) if full.is_full() => {
                let shrunk = self.finish(service, call("kl_service_shrink")).await?;
                shrunk.ok_or(full)
            }
            scaled => scaled?.ok_or_else(|| StoreError::Protocol {
                function: "kl_service_scale",
                what: "grows".to_owned(),
            }),
        }
    }

    /// Deletes a service: its pods are told to stop, and it is forgotten when the last is gone.
    ///
    /// # Errors
    /// As [`Services::submit`].
    pub async fn delete(
        &self,
        service: &ServiceKey,
        expected: Option<u64>,
    ) -> Result<ScaleOutcome, StoreError> {
        let call = self.0.function("kl_service_delete");
        let call = call.arg(service.to_string()).arg(SPLIT_STEP);
        let call = call.arg(expected_text(expected));
        let deleted = self.finish(service, call).await?;
        Ok(deleted.unwrap_or(ScaleOutcome::Done))
    }

    /// Makes the call and carries its split on; `None` if only a shrink was allowed and it grows.
    async fn finish(
        &self,
        service: &ServiceKey,
        call: super::call::Call,
    ) -> Result<Option<ScaleOutcome>, StoreError> {
        let deletes = call.function == "kl_service_delete";
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "scaled" | "deleting" if word == "scaled" || deletes => {
                if reply.text()? != reply.text()? {
                    self.split(service).await?;
                }
                Ok(Some(ScaleOutcome::Done))
            }
            "deleting" => Ok(Some(ScaleOutcome::Deleting)),
            "absent" => Ok(Some(ScaleOutcome::Absent)),
            "moved" => Ok(Some(ScaleOutcome::Moved {
                revision: reply.number()?,
            })),
            "grows" => Ok(None),
            _ => Err(reply.unknown(word)),
        }
    }

    /// The revisions that are kept, the current one last; `None` if there is no such service.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn revisions(
        &self,
        service: &ServiceKey,
    ) -> Result<Option<Vec<Revision>>, StoreError> {
        let mut get = command("HGETALL");
        get.arg(self.0.keys.service(service));
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        let (hash,): (HashMap<String, String>,) = self.0.read("HGETALL", &pipeline).await?;
        if hash.is_empty() {
            return Ok(None);
        }
        let mut revisions: Vec<Revision> = hash
            .iter()
            .filter_map(|(field, spec)| {
                let revision = field.strip_prefix("spec:")?;
                let created = hash.get(&format!("revised_ms:{revision}"));
                let mut spec: ServiceSpec = serde_json::from_str(spec).ok()?;
                spec.signature = None;
                Some(Revision {
                    revision: revision.parse().ok()?,
                    created_ms: created.and_then(|ms| ms.parse().ok()).unwrap_or(0),
                    spec,
                })
            })
            .collect();
        revisions.sort_by_key(|revision| revision.revision);
        Ok(Some(revisions))
    }

    /// The service, with its count of running pods.
    ///
    /// # Errors
    /// Redis cannot be reached, or holds what no version of ours wrote.
    pub async fn get(&self, service: &ServiceKey) -> Result<Option<(Service, u32)>, StoreError> {
        Ok(self.read(std::slice::from_ref(service)).await?.pop())
    }

    /// Those of `services` that there are, in one round trip.
    ///
    /// # Errors
    /// As [`Services::get`].
    pub async fn get_all(
        &self,
        services: &[ServiceKey],
    ) -> Result<Vec<(Service, u32)>, StoreError> {
        self.read(services).await
    }

    /// The same, with the login of its image's registry, which is shown to nobody.
    ///
    /// # Errors
    /// As [`Services::get`].
    pub async fn get_with_login(
        &self,
        service: &ServiceKey,
    ) -> Result<Option<(Service, u32, Option<RegistryLogin>)>, StoreError> {
        let Some((standing, running)) = self.get(service).await? else {
            return Ok(None);
        };
        let mut get = command("HGET");
        get.arg(self.0.keys.service(service)).arg("registry");
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        let (login,): (Option<String>,) = self.0.read("HGET", &pipeline).await?;
        let login = login.and_then(|login| serde_json::from_str(&login).ok());
        Ok(Some((standing, running, login)))
    }

    /// Services in the order of their keys, after `after`, of one namespace or of all.
    ///
    /// # Errors
    /// Redis cannot be reached, or holds what no version of ours wrote.
    pub async fn list(
        &self,
        namespace: Option<&str>,
        after: Option<&ServiceKey>,
        limit: usize,
    ) -> Result<Vec<(Service, u32)>, StoreError> {
        let keys = self.keys(namespace, after, limit).await?;
        let mut found = Vec::with_capacity(keys.len());
        for service in self.read_each(&keys).await? {
            match service {
                Ok(service) => found.push(service),
                // One record that a person damaged must not hide the others.
                Err(error) => tracing::error!(error = chain(&error), "a service cannot be read"),
            }
        }
        Ok(found)
    }

    /// Keys of services, likewise.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn keys(
        &self,
        namespace: Option<&str>,
        after: Option<&ServiceKey>,
        limit: usize,
    ) -> Result<Vec<ServiceKey>, StoreError> {
        // '0' follows '/', so `ns/` to `ns0` is exactly the namespace.
        let mut first = match (namespace, after) {
            (_, Some(after)) => format!("({after}").into_bytes(),
            (Some(namespace), None) => format!("[{namespace}/").into_bytes(),
            (None, None) => b"-".to_vec(),
        };
        let last = namespace.map_or_else(|| "+".to_owned(), |namespace| format!("({namespace}0"));
        let mut keys = Vec::new();
        for _ in 0..RUBBISH_PAGES_MAX {
            let wanted = limit - keys.len();
            let mut range = command("ZRANGEBYLEX");
            range.arg(self.0.keys.services()).arg(&first).arg(&last);
            range.arg("LIMIT").arg(0).arg(wanted);
            let mut pipeline = redis::pipe();
            pipeline.add_command(range);
            let (found,): (Vec<Vec<u8>>,) = self.0.read("ZRANGEBYLEX", &pipeline).await?;
            let key = |key: &Vec<u8>| ServiceKey::parse(std::str::from_utf8(key).ok()?);
            keys.extend(found.iter().filter_map(key));
            // What a person put among them must not hide those behind it.
            match found.last() {
                Some(last) if found.len() == wanted && keys.len() < limit => {
                    first = [b"(", last.as_slice()].concat();
                }
                _ => break,
            }
        }
        Ok(keys)
    }

    async fn read(&self, keys: &[ServiceKey]) -> Result<Vec<(Service, u32)>, StoreError> {
        self.read_each(keys).await?.into_iter().collect()
    }

    async fn read_each(
        &self,
        keys: &[ServiceKey],
    ) -> Result<Vec<Result<(Service, u32), StoreError>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for key in keys {
            let mut get = command("HGETALL");
            get.arg(self.0.keys.service(key));
            pipeline.add_command(get);
        }
        let hashes = self.0.read_hashes(pipeline).await?;
        let services = keys
            .iter()
            .zip(&hashes)
            .filter(|(_, hash)| !hash.is_empty());
        Ok(services
            .map(|(key, hash)| read_service(key, hash))
            .collect())
    }
}

fn expected_text(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |revision| revision.to_string())
}

pub(super) fn read_service(
    key: &ServiceKey,
    hash: &HashMap<String, String>,
) -> Result<(Service, u32), StoreError> {
    let broken = |what: &str| StoreError::Protocol {
        function: "HGETALL",
        what: format!("service {key} without a sound {what}"),
    };
    let number = |field: &str| hash.get(field).and_then(|text| text.parse::<u64>().ok());
    let revision = number("revision").ok_or_else(|| broken("revision"))?;
    let replicas = number("replicas")
        .and_then(|replicas| u32::try_from(replicas).ok())
        .ok_or_else(|| broken("replicas"))?;
    let spec = hash
        .get(&format!("spec:{revision}"))
        .and_then(|spec| serde_json::from_str::<ServiceSpec>(spec).ok())
        .ok_or_else(|| broken("spec"))?;
    let spec = ServiceSpec {
        signature: None, // it is between the API and the nodes
        ..spec
    };
    let running = number("running")
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0);
    let service = Service {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        revision,
        replicas,
        deleting: hash.contains_key("deleting"),
        created_ms: number("created_ms").unwrap_or(0),
        spec,
    };
    Ok((service, running))
}

/// A rank as it is stored; empty where there is none.
pub(super) fn rank_text(spec: &ServiceSpec) -> String {
    match spec.rank {
        0 => String::new(),
        rank => rank.to_string(),
    }
}
