//! What is left over: services of a project that its files do not name any more.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::CliError;
use super::input::FileArgs;
use super::{Applied, short, show};
use crate::client::{Client, ClientError};
use crate::model::ServiceKey;
use crate::wishes::{PROJECT_LABEL, Reading};

/// Where left-over services are looked for; empty where none are.
pub(super) type Scope = BTreeSet<(String, String)>;

/// The projects and namespaces of the files, if left-over services are wanted.
pub(super) fn scope(reading: &Reading, args: &FileArgs, wanted: bool) -> Result<Scope, CliError> {
    let mut scope = Scope::new();
    if !wanted {
        return Ok(scope);
    }
    for wish in &reading.wishes {
        let Some(project) = &wish.project else {
            return Err(CliError::Wrong(format!(
                "{}: service {} has no label {PROJECT_LABEL}, by which --prune finds what is left over: give one, or say --project",
                wish.place,
                short(&wish.key)
            )));
        };
        scope.insert((project.clone(), wish.key.namespace.clone()));
    }
    // Also where no service is left in the files.
    if let Some(project) = &reading.project {
        let namespace = args
            .namespace
            .as_deref()
            .unwrap_or(ServiceKey::DEFAULT_NAMESPACE);
        scope.insert((project.clone(), namespace.to_owned()));
    }
    Ok(scope)
}

/// The services of the scope that the files do not name.
pub(super) async fn left_over(
    client: &Client,
    reading: &Reading,
    scope: &Scope,
) -> Result<Vec<Applied>, ClientError> {
    let wishes = reading.wishes.iter().map(|wish| &wish.key);
    let named: BTreeSet<&ServiceKey> = wishes.chain(&reading.off).collect();
    let mut old = Vec::new();
    for (project, namespace) in scope {
        let label = format!("{PROJECT_LABEL}={project}");
        let parameters = [
            ("label", Some(label.as_str())),
            ("namespace", Some(namespace.as_str())),
        ];
        let found: Vec<Value> = client.all("/v1/services", &parameters).await?;
        for service in found {
            let stays = named.contains(&show::key_of(&service)) || service["deleting"] == true;
            if !stays {
                old.push(Applied::deleted(service));
            }
        }
    }
    Ok(old)
}
