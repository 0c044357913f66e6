//! Commands through Redis: what passes both ways, how they end, and what ends them.

use std::time::Duration;

use kubeleet::client::{ClientError, ExecIncoming};
use kubeleet::model::{ExecFrame, ExecWish, Phase, PodId, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::seeing::Seeing;
use crate::support::cluster::{Cluster, SOON};
use crate::support::{RedisServer, eventually};

/// How soon a command is over whose client has gone.
const AT_ONCE: Duration = Duration::from_secs(5);

fn wish(command: &str) -> ExecWish {
    ExecWish {
        command: command.split(' ').map(str::to_owned).collect(),
        stdin: true,
        ..ExecWish::default()
    }
}

/// A cluster with one running pod.
async fn one_pod() -> (Cluster, Seeing, PodId) {
    let cluster = Cluster::start(1).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster
        .all_in(&service, Phase::Running, 1)
        .await
        .remove(0)
        .id;
    (cluster, api, pod)
}

async fn next(incoming: &mut ExecIncoming) -> ExecFrame {
    let next = tokio::time::timeout(SOON, incoming.next()).await;
    next.expect("a frame in time").unwrap()
}

async fn execs_are(cluster: &Cluster, count: u64, limit: Duration) {
    eventually(
        limit,
        &format!("{count} commands run"),
        async || match cluster.engine("worker1").counts().execs {
            now if now == count => Ok(()),
            now => Err(format!("{now}")),
        },
    )
    .await;
}

#[tokio::test]
async fn a_command_tells_its_output_and_its_code() {
    let (cluster, api, pod) = one_pod().await;
    let exec = async |command: &str| api.client.exec(pod.as_str(), &wish(command)).await.unwrap();
    let (_outgoing, mut incoming) = exec("echo hello there").await;
    assert_eq!(
        next(&mut incoming).await,
        ExecFrame::Stdout(b"hello there\n".to_vec())
    );
    assert_eq!(next(&mut incoming).await, ExecFrame::Exit(0));
    for (command, code) in [("exit 7", 7), ("none", 127)] {
        let (_outgoing, mut incoming) = exec(command).await;
        assert_eq!(next(&mut incoming).await, ExecFrame::Exit(code));
    }

    let (mut outgoing, mut incoming) = exec("cat").await;
    let sent: Vec<u8> = (0..200_000_u32)
        .map(|number| number.to_le_bytes()[0])
        .collect();
    let send = async {
        for piece in sent.chunks(50_000) {
            outgoing
                .send(&ExecFrame::Stdin(piece.to_vec()))
                .await
                .unwrap();
        }
        outgoing.send(&ExecFrame::StdinEnd).await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        loop {
            match next(&mut incoming).await {
                ExecFrame::Stdout(bytes) => received.extend(bytes),
                last => return (received, last),
            }
        }
    };
    let ((), (received, last)) = tokio::join!(send, receive);
    assert_eq!(last, ExecFrame::Exit(0));
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    cluster.no_session_is_left(AT_ONCE).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_terminal_has_the_clients_size() {
    let (cluster, api, pod) = one_pod().await;
    let size = |columns, rows| TerminalSize { columns, rows };
    let wish = ExecWish {
        tty: true,
        size: Some(size(80, 24)),
        ..wish("size")
    };
    let (mut outgoing, mut incoming) = api.client.exec(pod.as_str(), &wish).await.unwrap();
    let mut seen = String::new();
    let mut see = async |what: &str| {
        while !seen.ends_with(what) {
            match next(&mut incoming).await {
                ExecFrame::Stdout(bytes) => seen.push_str(std::str::from_utf8(&bytes).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    };
    see("24 80\n").await;
    outgoing
        .send(&ExecFrame::Resize(size(132, 50)))
        .await
        .unwrap();
    see("50 132\n").await;
    drop((outgoing, incoming));
    execs_are(&cluster, 0, AT_ONCE).await;
}

#[tokio::test]
async fn a_command_ends_when_its_client_goes() {
    let (cluster, api, pod) = one_pod().await;
    for command in ["sleep", "cat"] {
        let ends = api.client.exec(pod.as_str(), &wish(command)).await.unwrap();
        execs_are(&cluster, 1, SOON).await;
        drop(ends);
        execs_are(&cluster, 0, AT_ONCE).await;
        cluster.no_session_is_left(AT_ONCE).await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn input_that_is_not_read_fills_nothing() {
    let (cluster, api, pod) = one_pod().await;
    let (mut outgoing, incoming) = api.client.exec(pod.as_str(), &wish("sleep")).await.unwrap();
    execs_are(&cluster, 1, SOON).await;
    // Until the buffers on the way are full: nobody reads it.
    let send = async {
        loop {
            outgoing
                .send(&ExecFrame::Stdin(vec![0; 16 * 1024]))
                .await
                .unwrap();
        }
    };
    let stopped = tokio::time::timeout(Duration::from_secs(2), send).await;
    assert!(stopped.is_err(), "it waits");
    let stream = cluster.key(&cluster.keys_like("session:*:in").await[0]);
    let entries: u64 = cluster.redis(&["XLEN", &stream]).await;
    assert!(entries <= 16, "{entries} entries");
    cluster.engine("worker1").end_pod(&pod, 0, None);
    execs_are(&cluster, 0, AT_ONCE).await;
    drop((outgoing, incoming));
    cluster.no_session_is_left(SOON).await;
}

#[tokio::test]
async fn a_command_ends_with_its_container_its_agent_the_api_or_redis() {
    let mut server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |_| {}).await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 2).await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;

    let (_outgoing, mut incoming) = api
        .client
        .exec(pods[0].id.as_str(), &wish("sleep"))
        .await
        .unwrap();
    execs_are(&cluster, 1, SOON).await;
    cluster.engine("worker1").end_pod(&pods[0].id, 0, None);
    assert_eq!(next(&mut incoming).await, ExecFrame::Exit(137));

    let pod = pods[1].id.as_str();
    let (_outgoing, mut incoming) = api.client.exec(pod, &wish("sleep")).await.unwrap();
    execs_are(&cluster, 1, SOON).await;
    cluster.take_agent("worker1").stop().await.unwrap();
    execs_are(&cluster, 0, AT_ONCE).await;
    drop(incoming);
    cluster.start_agent("worker1");
    cluster.ready("worker1").await;

    (_, incoming) = api.client.exec(pod, &wish("sleep")).await.unwrap();
    execs_are(&cluster, 1, SOON).await;
    server.restart().await;
    let lost = "Redis was lost on the way: ask again".to_owned();
    assert_eq!(next(&mut incoming).await, ExecFrame::Error(lost));
    execs_are(&cluster, 0, AT_ONCE).await;
}

#[tokio::test]
async fn the_end_of_the_api_ends_commands() {
    let (cluster, api, pod) = one_pod().await;
    let (_outgoing, mut incoming) = api.client.exec(pod.as_str(), &wish("sleep")).await.unwrap();
    execs_are(&cluster, 1, SOON).await;
    api.shutdown.cancel();
    let ends = "the API is ending: ask again".to_owned();
    assert_eq!(next(&mut incoming).await, ExecFrame::Error(ends));
    execs_are(&cluster, 0, AT_ONCE).await;
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let (cluster, api, pod) = one_pod().await;
    let refused = async |pod: &str| match api.client.exec(pod, &wish("echo")).await {
        Err(ClientError::Refused(problem)) => problem.r#type,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(refused("none").await, "/problems/pod-not-found");
    let (_outgoing, mut incoming) = api.client.exec(pod.as_str(), &wish("")).await.unwrap();
    let why = next(&mut incoming).await;
    assert!(
        matches!(&why, ExecFrame::Error(why) if why.contains("command")),
        "{why:?}"
    );
    cluster.engine("worker1").end_pod(&pod, 0, None);
    cluster.pod_in(&pod, Phase::Succeeded).await;
    assert_eq!(refused(pod.as_str()).await, "/problems/pod-not-running");
    cluster.end().await;
}

#[tokio::test]
async fn pages_of_other_sites_run_nothing() {
    let (_cluster, api, pod) = one_pod().await;
    let answer = async |headers: &str| {
        let request = format!(
            "GET /v1/pods/{pod}/exec HTTP/1.1\r\nhost: {}\r\n{headers}\r\n",
            api.address
        );
        let mut connection = TcpStream::connect(&api.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = connection.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let plain = answer("").await;
    assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    assert!(plain.contains("/problems/upgrade-required"), "{plain}");
    let foreign = answer(&format!("{upgrade}origin: http://evil.example\r\n")).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let own = answer(&format!("{upgrade}origin: http://{}\r\n", api.address)).await;
    assert!(own.starts_with("HTTP/1.1 101"), "{own}");
    let none = answer(upgrade).await;
    assert!(none.starts_with("HTTP/1.1 101"), "{none}");
}
