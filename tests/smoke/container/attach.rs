//! Logs, commands and use: what every engine does for a container that runs.

use futures_util::StreamExt as _;
use kubeleet::container::{ExecEnd, ExecEndOutcome, LogRead, RuntimeError, Verb};
use kubeleet::model::{ExecWish, LogStream};
use tokio::io::AsyncWriteExt as _;

use super::bench::{Bench, DEADLINE};
use crate::support::eventually;

pub(super) async fn what_runs_can_be_seen_into(bench: &Bench) {
    let mut spec = bench.spec();
    let talk = "echo out; echo err >&2; echo; exec sleep 1000";
    spec.spec.command = ["sh", "-c", talk].map(str::to_owned).to_vec();
    let id = bench.create(&spec).await;
    let wish = ExecWish {
        command: vec!["echo".to_owned(), "hello".to_owned()],
        ..ExecWish::default()
    };
    let early = bench.runtime.exec(&id, &wish).await.err().unwrap();
    assert!(
        matches!(
            early,
            RuntimeError::Refused {
                verb: Verb::Exec,
                ..
            }
        ),
        "{early}"
    );
    bench.runtime.start(&id).await.unwrap();
    if let Some(script) = bench.script() {
        script.say(&spec.pod, LogStream::Stdout, "out");
        script.say(&spec.pod, LogStream::Stderr, "err");
        script.say(&spec.pod, LogStream::Stdout, "");
    }
    logs(bench, &id).await;
    commands(bench, &id).await;

    let sample = bench.runtime.sample(&id).await.unwrap();
    assert!(sample.at_ns > 0 && sample.pids >= 1, "{sample:?}");
    assert!(
        sample.memory_bytes > 0 && sample.memory_bytes <= sample.memory_limit_bytes,
        "{sample:?}"
    );
    assert!(sample.cpu_ns > 0, "{sample:?}");

    bench.runtime.remove(&id).await.unwrap();
    let missing = |error: Option<RuntimeError>| {
        let is_missing =
            matches!(&error, Some(RuntimeError::ContainerMissing { id: gone }) if *gone == id);
        assert!(is_missing, "{error:?}");
    };
    missing(bench.runtime.sample(&id).await.err());
    missing(bench.runtime.exec(&id, &wish).await.err());
    let mut lines = bench.runtime.logs(&id, LogRead::default()).await.unwrap();
    missing(lines.next().await.unwrap().err());
}

async fn logs(bench: &Bench, id: &str) {
    let read = async |read: LogRead| -> Vec<(LogStream, String)> {
        let lines = bench.runtime.logs(id, read).await.unwrap();
        let lines: Vec<_> = lines.collect().await;
        let shown = lines.into_iter().map(|line| {
            let line = line.unwrap();
            let line = line.line();
            assert_eq!(
                line.time.len(),
                "2026-11-20T10:21:22.123456789Z".len(),
                "{line:?}"
            );
            assert!(!line.partial, "{line:?}");
            (line.stream, String::from_utf8(line.text.to_vec()).unwrap())
        });
        shown.collect()
    };
    let all = eventually(DEADLINE, "three lines are written", async || {
        match read(LogRead::default()).await {
            lines if lines.len() == 3 => Ok(lines),
            lines => Err(format!("{lines:?}")),
        }
    })
    .await;
    let of = |stream| {
        all.iter()
            .filter(move |line| line.0 == stream)
            .map(|line| line.1.as_str())
    };
    assert_eq!(of(LogStream::Stdout).collect::<Vec<_>>(), ["out", ""]);
    assert_eq!(of(LogStream::Stderr).collect::<Vec<_>>(), ["err"]);
    let last = LogRead {
        tail: Some(1),
        ..LogRead::default()
    };
    assert_eq!(read(last).await, all[2..]);
    let future = LogRead {
        since_s: Some(4_000_000_000 / 2),
        ..LogRead::default()
    };
    assert_eq!(read(future).await, []);

    let follow = LogRead {
        follow: true,
        ..LogRead::default()
    };
    let mut following = bench.runtime.logs(id, follow).await.unwrap();
    for _ in 0..3 {
        tokio::time::timeout(DEADLINE, following.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    let waits = futures_util::FutureExt::now_or_never(following.next());
    assert!(waits.is_none(), "it waits for more");
}

async fn commands(bench: &Bench, id: &str) {
    let run = async |command: &[&str], input: Option<&[u8]>| {
        let wish = ExecWish {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: input.is_some(),
            ..ExecWish::default()
        };
        let mut exec = bench.runtime.exec(id, &wish).await.unwrap();
        if let Some(input) = input {
            exec.input.write_all(input).await.unwrap();
            exec.input.shutdown().await.unwrap();
        }
        let mut output = Vec::new();
        while let Some(piece) = exec.output.next().await {
            let piece = piece.unwrap();
            assert_eq!(piece.stream, LogStream::Stdout);
            output.extend(piece.bytes);
        }
        (output, bench.runtime.exec_exit(&exec.id).await.unwrap())
    };
    assert_eq!(
        run(&["echo", "hello"], None).await,
        (b"hello\n".to_vec(), Some(0))
    );
    // Bytes that a decoder could take for something else.
    let bytes: Vec<u8> = (0..8000_u32)
        .map(|number| number.to_le_bytes()[0])
        .collect();
    let (output, code) = run(&["cat"], Some(&bytes)).await;
    assert!(
        output == bytes && code == Some(0),
        "{} bytes, {code:?}",
        output.len()
    );

    let wish = ExecWish {
        command: vec!["sleep".to_owned(), "4321".to_owned()],
        ..ExecWish::default()
    };
    let mut exec = bench.runtime.exec(id, &wish).await.unwrap();
    let ended = bench
        .runtime
        .exec_end(&exec.id, ExecEnd::HangUp)
        .await
        .unwrap();
    assert_eq!(ended, ExecEndOutcome::Told);
    let end = tokio::time::timeout(DEADLINE, exec.output.next()).await;
    assert!(end.expect("its output ends").is_none());
    eventually(DEADLINE, "it has ended", async || {
        match bench.runtime.exec_end(&exec.id, ExecEnd::Kill).await {
            Ok(ExecEndOutcome::Ended) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
