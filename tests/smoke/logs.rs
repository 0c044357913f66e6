//! One id leads through the logs of all parts, from the API to the container.

use serde_json::json;

use crate::harness::{Cluster, SOON, Timing, post};
use crate::support::RedisServer;

#[tokio::test]
async fn one_id_follows_a_pod_through_all_logs() {
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let scheduler = cluster.scheduler();
    let (api, address) = cluster.api().await;
    let simulated = [("KUBELEET_NODE__RUNTIME", "simulated")];
    let agent = cluster.agent("worker1", &simulated).await;
    let wish = json!({"name": "web", "image": "web"});
    let answer = post(&address, "/service", &wish).await;
    let pod = answer.body["pods"][0].as_str().expect("a pod").to_owned();
    cluster.all_run(1, SOON).await;

    // A pod's id is its submission and its index: the API tells the first, for all pods at once.
    let submission = pod.rsplit_once('-').expect("an index").0;
    api.logged(submission).await;
    scheduler.logged(&pod).await;
    agent.logged(&pod).await;
    for process in [&scheduler, &agent] {
        let log = process.err();
        let told = log.lines().filter(|line| line.contains(&pod));
        assert!(
            told.into_iter().all(|line| line.contains("worker1")),
            "{log}"
        );
    }
    let log = agent.err();
    let started = log.lines().find(|line| line.contains("container started"));
    let started = started.expect("the start is told");
    assert!(started.contains("container.id"), "{started}");
}
