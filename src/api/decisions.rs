//! `/v1/decisions` and `/v1/pods/{id}/explain`: why pods are where they are, or wait.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{DecisionList, Explained, answer};
use super::attempt::{Effect, attempt};
use super::pods::{absent, pod_id};
use super::problem::Problem;
use super::query::Parameters;
use super::schema::{AbsentProblem, Problems};
use crate::model::digits::digits;
use crate::model::{Decision, Phase, Pod, PodId};
use crate::store::PodDecision;

/// Decisions answered where no limit is said.
const LIMIT_DEFAULT: usize = 20;

/// Say why a pod is where it is, or why it waits
///
/// With the decision of the scheduler, where it is kept: the nodes as they were then, what each
/// one's score was made of, and why others did not take the pod.
#[utoipa::path(
    get,
    path = "/v1/pods/{id}/explain",
    tag = "pods",
    params(("id" = String, Path, description = "The pod")),
    responses((status = 200, description = "Why", body = Explained), Problems, AbsentProblem),
)]
pub(super) async fn explain_pod(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = pod_id(&id, &uri)?;
    let read = async || {
        let pod = app.store.pods().get(&id).await?;
        Ok((pod, app.store.decisions().of_pod(&id).await?))
    };
    let (pod, found) = attempt(Effect::Reads, read).await?.value;
    let Some(pod) = pod else {
        return Err(absent(&id));
    };
    let note = note(&pod, &found);
    let explained = Explained {
        pod: pod.id,
        service: pod.service,
        phase: pod.phase,
        node: pod.node,
        reason: pod.reason,
        decision: found.decision,
        note,
    };
    Ok(answer(StatusCode::OK, explained))
}

/// What is to be said beside the decision, or why there is none.
fn note(pod: &Pod, found: &PodDecision) -> Option<String> {
    let told = match (&found.decision, pod.phase) {
        (Some(decision), _) => return beside(decision, &pod.id),
        (None, _) if found.by_hand => {
            "it was pushed on the list of its node by hand: nobody decided"
        }
        (None, Phase::Waiting) if found.id.is_none() => {
            "it was not tried yet, or the try was not recorded"
        }
        (None, Phase::Waiting) => "the decision by which it waits is not kept any more",
        (None, _) => {
            "the decision is not kept: only the newest are, and under load a part of them is recorded"
        }
    };
    Some(told.to_owned())
}

fn beside(decision: &Decision, pod: &PodId) -> Option<String> {
    if decision.pods.iter().any(|told| told.id == *pod) {
        return None;
    }
    let (told, all) = (decision.pods.len(), decision.pods_all);
    Some(format!(
        "the decision holds the first {told} of {all} pods, and this is none of them"
    ))
}

/// Read the newest decisions
///
/// What schedulers decided for whole batches of pods, newest first. The newest 1,000 of the last 7
/// days are kept, at most 16 MiB of them; under load a part of them is recorded.
#[utoipa::path(
    get,
    path = "/v1/decisions",
    tag = "pods",
    params(
        ("since" = Option<u64>, Query, description = "Only those made then or later, milliseconds since 1970"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items, 20 where none is said"),
    ),
    responses((status = 200, description = "Decisions", body = DecisionList), Problems),
)]
pub(super) async fn list_decisions(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["since", "limit"]);
    let rule = "milliseconds since 1970, a whole number";
    let since = parameters.get("since", rule, |text| {
        digits::<u64>(text).filter(|since| i64::try_from(*since).is_ok())
    });
    let limit = parameters.count("limit", 1).unwrap_or(LIMIT_DEFAULT);
    parameters.check()?;
    let read = async || {
        let decisions = app.store.decisions();
        decisions.newest(since.unwrap_or(0), limit).await
    };
    let items = attempt(Effect::Reads, read).await?.value;
    Ok(answer(StatusCode::OK, DecisionList { items }))
}
