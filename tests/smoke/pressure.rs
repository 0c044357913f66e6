//! For real: a machine whose kernel is under pressure is spared.

use std::collections::HashMap;
use std::time::Duration;

use crate::harness::{CalmMachine, Cluster, Process, SOON, Timing, show};
use crate::support::{RedisServer, eventually, find};

/// Where the kernel tells the cpu's pressure.
const PRESSURE: &str = "/proc/pressure/cpu";
/// Percent of the last 10 s in which something waited for the cpu.
const PRESSED: f64 = 50.0;
/// Time for the kernel's average to rise.
const RISE: Duration = Duration::from_secs(60);
/// Pods placed.
const PODS: u32 = 100;
/// Those of them that have to go elsewhere.
const ELSEWHERE: usize = 95;

#[tokio::test]
async fn a_machine_under_real_load_is_spared() {
    let told = std::fs::read_to_string(PRESSURE);
    assert!(
        told.is_ok(),
        "this kernel has no PSI: boot it with psi=1 ({PRESSURE}: {told:?})"
    );
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::QUICK).await;
    let calm = CalmMachine::new();
    let simulated = ("KUBELEET_NODE__RUNTIME", "simulated");
    let calm = [simulated, calm.variable()];
    let _agents = [
        cluster.agent("pressed", &[simulated]).await,
        cluster.agent("calm1", &calm).await,
        cluster.agent("calm2", &calm).await,
    ];
    let _load = load();
    eventually(
        RISE,
        "the kernel is pressed, and Redis told so",
        async || {
            let (kernel, node) = (avg10(), cluster.store.nodes().get("pressed", SOON).await);
            let node = node
                .map_err(|error| error.to_string())?
                .ok_or("no such node")?;
            let told = node.pressure.cpu_avg10 >= PRESSED && node.cpu_used > 0.5;
            if kernel >= PRESSED && told {
                Ok(())
            } else {
                Err(format!("{kernel}: {node:?}"))
            }
        },
    )
    .await;

    let _scheduler = cluster.scheduler();
    cluster.submit("web", PODS).await;
    let pods = cluster
        .all_run(usize::try_from(PODS).expect("a few"), SOON)
        .await;
    let mut nodes: HashMap<String, usize> = HashMap::new();
    for pod in pods {
        *nodes.entry(pod.node.expect("a node")).or_default() += 1;
    }
    show(format_args!("cpu pressure {} %: {nodes:?}", avg10()));
    let spared = nodes.get("calm1").unwrap_or(&0) + nodes.get("calm2").unwrap_or(&0);
    assert!(spared >= ELSEWHERE, "{nodes:?}");
}

/// More work than the machine can do, of the lowest priority: the other tests hardly notice.
fn load() -> Process {
    let program = find("stress-ng").expect("stress-ng in PATH: apt install stress-ng");
    let program = program.display().to_string();
    let cores = std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
    let workers = (cores * 4).to_string();
    let words = ["-n", "19", &program, "--cpu", &workers, "--timeout", "90s"];
    Process::start("/usr/bin/nice", &words, &[])
}

fn avg10() -> f64 {
    let told = std::fs::read_to_string(PRESSURE).unwrap_or_default();
    let some = told
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="));
    some.and_then(|percent| percent.parse().ok())
        .expect("the average over 10 s")
}
