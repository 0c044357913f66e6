//! compose.yaml, brought up for real: a service is accepted and runs, also after the master's death.

mod stack;

use std::time::Duration;

use serde_json::json;

use self::stack::Stack;
use crate::support::eventually;

/// Longest wait from the start of all containers to the first accepted service.
const UP: Duration = Duration::from_secs(60);
/// Longest wait from acceptance to a running container: nothing is pulled.
const RUN: Duration = Duration::from_secs(30);
/// Longest time without a master: Sentinel needs about 5 s.
const FAIL_OVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn compose_goes_on_without_its_first_master() {
    let mut stack = Stack::up();
    let (one, two) = (stack.api(1), stack.api(2));

    let before = stack.name("before");
    accepted(&one, &before, UP).await;
    runs_on_worker1(&stack, &two, &before).await;

    stack.kill("redis-1");
    let after = stack.name("after");
    accepted(&two, &after, FAIL_OVER).await;
    runs_on_worker1(&stack, &one, &after).await;
    assert_eq!(
        stack.containers(&before).len(),
        1,
        "what ran is left running"
    );
}

/// Posts until it is accepted: the same service again makes nothing new.
async fn accepted(api: &str, name: &str, limit: Duration) {
    let body = json!({"name": name, "image": stack::SAMPLE}).to_string();
    eventually(limit, "the service is accepted", async || {
        let answer = stack::curl(&["-X", "POST", &format!("{api}/service"), "-d", &body])?;
        match answer["replicas"].as_u64() {
            Some(1) => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
}

async fn runs_on_worker1(stack: &Stack, api: &str, name: &str) {
    eventually(RUN, "its pod runs", async || {
        let answer = stack::curl(&[&format!("{api}/v1/pods?service={name}")])?;
        let pod = &answer["items"][0];
        match (pod["phase"].as_str(), pod["node"].as_str()) {
            (Some("running"), Some("worker1")) => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    assert_eq!(stack.containers(name).len(), 1, "the engine agrees");
}
