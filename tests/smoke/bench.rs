//! `leet bench`: each command measures something, at sizes of no meaning.

use serde_json::Value;

use crate::harness::{LEET, Process, SOON};

/// Starts a measure; its figures come at its end.
fn measure(command: &str) -> Process {
    let words: Vec<&str> = ["bench"].into_iter().chain(command.split(' ')).collect();
    Process::start(LEET, &[&*words, &["-o", "json"]].concat(), &[])
}

async fn figures(mut process: Process) -> Value {
    let status = process.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{process}");
    let figures: Value = serde_json::from_str(&process.out()).expect("it is JSON");
    for known in ["redis", "cpu", "load", "began"] {
        assert!(figures[known].is_string(), "{known}: {figures}");
    }
    figures
}

fn above(figures: &Value, name: &str, least: f64) {
    let figure = figures[name].as_f64();
    assert!(figure > Some(least), "{name}: {figures}");
}

#[tokio::test]
async fn every_measure_gives_its_figures() {
    // All at once: most of the time they wait.
    let place =
        measure("place --nodes 7 --pods 200 --services 5 --schedulers 2 --constraints mixed");
    let run = measure("run --nodes 2 --pods 10 --services 3 --rest-seconds 1");
    let converge = measure("converge --services 10 --nodes 2");
    let beats = measure("beats --nodes 20 --seconds 1");
    let memory = measure("memory --pods 100 --services 2");
    let latency = measure("latency --nodes 2 --posts 3 --rate 200 --pods-per-post 10 --seconds 1");
    let loss = measure("loss --one-node-pods 20 --nodes 8 --lost 2 --pods 30 --lease-seconds 1");

    let place = figures(place).await;
    above(&place, "pods_per_second", 0.0);
    above(&place, "redis_commands_per_pod", 1.0);
    assert_eq!(place["parked"], 0, "{place}");
    let run = figures(run).await;
    above(&run, "running_s", 0.0);
    above(&run, "kib_per_agent", 0.0);
    above(&figures(converge).await, "converged_s", 0.0);
    let beats = figures(beats).await;
    assert_eq!(beats["wanted_beats_per_second"], 4.0, "{beats}");
    above(&beats, "beats_per_second", 2.0);
    above(&figures(memory).await, "bytes_per_pod", 100.0);
    let latency = figures(latency).await;
    above(&latency, "idle_p50_ms", 0.0);
    above(&latency, "steady_pods_per_second", 0.0);
    let loss = figures(loss).await;
    above(&loss, "one_node_queued_s", 0.0);
    above(&loss, "reassigned_s", 0.0);
}

#[tokio::test]
async fn a_measure_that_cannot_be_made_says_why() {
    let ended = Process::run(LEET, &["bench", "loss", "--nodes", "4", "--lost", "2"], &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("fewer than half"), "{ended:?}");
}
