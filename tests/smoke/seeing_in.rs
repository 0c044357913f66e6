//! What a user sees of real containers by `leet`: logs, commands with pipes and terminals, use.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubeleet::model::{PodId, ServiceSpec};
use kubeleet::store::{Submit, SubmitMode, SubmitOutcome};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::harness::{Cluster, END_LIMIT, IMAGE, LEET, Process, SOON, Timing, build_images};
use crate::support::{RedisServer, eventually};

/// How soon a command is over whose client has gone.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How soon one is over whose API has gone without a word: its lease, and two renewals.
const SILENCE: Duration = Duration::from_secs(30);

/// A cluster of real processes with one pod that runs `script`.
struct Running {
    cluster: Cluster,
    pod: String,
    address: String,
    api: Process,
    _processes: Vec<Process>,
    _redis: RedisServer,
}

impl Running {
    async fn start(script: &str) -> Running {
        build_images().await;
        let redis = RedisServer::start().await;
        let cluster = Cluster::on(&redis, Timing::REAL).await;
        let processes = vec![cluster.scheduler(), cluster.agent("worker1", &[]).await];
        let (api, address) = cluster.api().await;
        let mut spec = ServiceSpec::new("web", IMAGE);
        spec.command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let submit = Submit {
            spec: &spec,
            submission: &PodId::new_submission(),
            mode: SubmitMode::Create,
            idempotency: None,
        };
        let outcome = cluster.store.services().submit(&submit).await;
        assert!(
            matches!(outcome, Ok(SubmitOutcome::Created { .. })),
            "{outcome:?}"
        );
        let pod = cluster.all_run(1, SOON).await.remove(0).id.to_string();
        Running {
            cluster,
            pod,
            address,
            api,
            _processes: processes,
            _redis: redis,
        }
    }

    /// A command of `leet` that is under way.
    fn begin(&self, line: &str) -> Process {
        Process::start(LEET, &words(line), &[("KUBELEET_API", &self.address)])
    }

    /// A command of `leet` with this input: its exit code and what it writes.
    fn pipe(&self, line: &str, input: &[u8]) -> (Option<i32>, Vec<u8>) {
        let mut child = Command::new(LEET)
            .args(words(line))
            .env("KUBELEET_API", &self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("leet starts");
        let mut stdin = child.stdin.take().expect("its input");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("leet ends");
        let _ = writer.join();
        (output.status.code(), output.stdout)
    }

    /// The same, as text.
    fn leet(&self, line: &str) -> (Option<i32>, String) {
        let (code, out) = self.pipe(line, b"");
        (code, String::from_utf8(out).expect("text"))
    }
}

/// Words, of which the last may hold spaces, behind ` | `.
fn words(line: &str) -> Vec<&str> {
    match line.split_once(" | ") {
        Some((line, last)) => line.split(' ').chain([last]).collect(),
        None => line.split(' ').collect(),
    }
}

/// Waits until a process on this machine has this command line, or none has.
async fn process_is(command: &str, there: bool, limit: Duration) {
    eventually(limit, &format!("{command:?} runs: {there}"), async || {
        let found = Command::new("pgrep").args(["-xf", command]).output();
        let found = found
            .expect("pgrep, of the package procps")
            .status
            .success();
        if found == there {
            Ok(())
        } else {
            Err(format!("{found}"))
        }
    })
    .await;
}

#[tokio::test]
async fn logs_are_read_while_it_runs_and_after_it_is_gone() {
    // The engine reads the two streams apart: what follows at once may be stamped first.
    let script = "echo first; sleep 1; echo second >&2; mkfifo /tmp/fifo; \
                  while read line </tmp/fifo; do echo got $line; done";
    let running = Running::start(script).await;
    let pod = &running.pod;
    eventually(SOON, "both lines are there", async || {
        let (code, out) = running.leet("logs web");
        let expected = format!("{pod} first\n{pod} second\n");
        if code == Some(0) && out == expected {
            Ok(())
        } else {
            Err(out)
        }
    })
    .await;
    assert_eq!(running.leet(&format!("logs --tail 1 {pod}")).1, "second\n");
    let (_, stamped) = running.leet(&format!("logs -t --tail 1 {pod}"));
    let (time, line) = stamped.trim().split_once(' ').expect("a time");
    assert_eq!(line, "second");
    assert_eq!(
        running.leet(&format!("logs --since {time} {pod}")).1,
        "second\n"
    );
    assert_eq!(running.leet(&format!("logs --since 0s {pod}")).1, "");

    let following = running.begin(&format!("logs -f --tail 1 {pod}"));
    let shown = async |expected: &str| {
        eventually(SOON, "the line is shown", async || match following.out() {
            out if out == expected => Ok(()),
            out => Err(out),
        })
        .await;
    };
    shown("second\n").await;
    // As soon as it is written, and not with what comes later.
    let (code, _) = running.leet(&format!("exec {pod} -- sh -c | echo one >/tmp/fifo"));
    assert_eq!(code, Some(0));
    shown("second\ngot one\n").await;

    let long = "x".repeat(40_000);
    let (code, _) = running.pipe(
        &format!("exec -i {pod} -- sh -c | cat >/tmp/fifo"),
        format!("{long}\n").as_bytes(),
    );
    assert_eq!(code, Some(0));
    eventually(SOON, "a long line comes in pieces", async || {
        let out = following.out();
        let joined: String = out.lines().skip(2).collect();
        if joined.len() == "got ".len() + long.len() {
            Ok(())
        } else {
            Err(format!("{}", joined.len()))
        }
    })
    .await;

    assert_eq!(running.leet("rm web").0, Some(0));
    running.cluster.containers.settle(0, SOON).await;
    let mut following = following;
    let status = following.ended(END_LIMIT).await;
    assert_eq!(status.code(), Some(0), "{following}");
    let (code, out) = running.leet(&format!("logs {pod}"));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("first\nsecond\ngot one\ngot xxx"), "{out}");
    let (code, _) = running.leet("logs web");
    assert_eq!(code, Some(1), "the service is gone");
}

#[tokio::test]
async fn commands_are_run_and_end_with_their_client() {
    let running = Running::start("exec sleep 1000").await;
    let pod = &running.pod;
    let both = running.leet(&format!(
        "exec {pod} -- sh -c | echo out; echo err >&2; exit 7"
    ));
    assert_eq!(both, (Some(7), "out\n".to_owned()));
    assert_eq!(running.leet(&format!("exec {pod} none")).0, Some(126));
    assert_eq!(running.leet("exec none ls").0, Some(255));
    assert_eq!(running.leet("exec -t web ls").0, Some(255), "no terminal");

    let bytes: Vec<u8> = (0..1_000_000_u32)
        .map(|number| number.to_le_bytes()[0])
        .collect();
    let (code, out) = running.pipe("exec -i web cat", &bytes);
    assert_eq!(code, Some(0));
    assert!(out == bytes, "{} bytes", out.len());
    assert_eq!(running.pipe("exec -i web -- wc -c", &bytes).1, b"1000000\n");

    // One that is hung up, and one that does not care.
    for (trap, seconds) in [("", "98765"), ("trap '' HUP; ", "98764")] {
        let mut client = running.begin(&format!("exec web -- sh -c | {trap}exec sleep {seconds}"));
        let process = format!("sleep {seconds}");
        process_is(&process, true, SOON).await;
        client.kill9();
        process_is(&process, false, AT_ONCE).await;
    }

    let (code, out) = running.leet("top --once -o json");
    assert_eq!(code, Some(0));
    let idle: Value = serde_json::from_str(&out).expect("JSON");
    let usage = |stats: &Value, field: &str| stats[0]["usage"][field].as_f64().expect("a number");
    assert_eq!(idle[0]["pod"], pod.as_str());
    assert!(usage(&idle, "cpu_cores") < 0.2, "{idle}");
    let busy = running.begin(
        "exec web -- sh -c | x=$(head -c 30000000 /dev/zero | tr '\\0' a); while :; do :; done",
    );
    eventually(SOON, "it is seen at work", async || {
        let (_, out) = running.leet("top --once --service web -o json");
        let stats: Value = serde_json::from_str(&out).map_err(|error| error.to_string())?;
        let cpu = usage(&stats, "cpu_cores");
        // At most one core, however much of it others leave.
        let is_sane = (0.1..1.3).contains(&cpu)
            && usage(&stats, "memory_bytes") > 20e6
            && usage(&stats, "pids") >= 2.0;
        if is_sane { Ok(()) } else { Err(out) }
    })
    .await;
    let (_, table) = running.leet("top --once --node worker1");
    assert!(
        table.starts_with("POD") && table.contains("worker1"),
        "{table}"
    );
    drop(busy);

    let mut running = running;
    let _client = running.begin("exec web -- sleep 98763");
    process_is("sleep 98763", true, SOON).await;
    running.api.kill9();
    process_is("sleep 98763", false, SILENCE).await;
}

/// A terminal of our own, with what was written to it.
struct Terminal {
    master: OwnedFd,
    slave: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("its rights");
        unlockpt(&master).expect("its lock");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let path = name.to_str().expect("a path");
        let mut options = File::options();
        let slave = options
            .read(true)
            .write(true)
            .open(path)
            .expect("its other end");
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, heard) = (
            File::from(master.try_clone().expect("a copy")),
            seen.clone(),
        );
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                heard
                    .lock()
                    .expect("no panic")
                    .extend_from_slice(&piece[..length]);
            }
        });
        Terminal {
            master,
            slave,
            seen,
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("a size");
    }

    fn types(&self, text: &str) {
        let mut master = File::from(self.master.try_clone().expect("a copy"));
        master.write_all(text.as_bytes()).expect("it is typed");
    }

    async fn shows(&self, text: &str) {
        eventually(SOON, &format!("the terminal shows {text:?}"), async || {
            let seen = String::from_utf8_lossy(&self.seen.lock().expect("no panic")).into_owned();
            if seen.contains(text) {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await;
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("its modes").local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    /// Starts `leet`, to which this is the terminal.
    fn leet(&self, running: &Running, line: &str) -> Child {
        let end = || Stdio::from(self.slave.try_clone().expect("a copy"));
        Command::new("setsid")
            .args(["--ctty", LEET])
            .args(words(line))
            .env("KUBELEET_API", &running.address)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid, of the package util-linux")
    }
}

async fn code_of(child: &mut Child) -> Option<i32> {
    eventually(SOON, "it ends", async || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    })
    .await
}

#[tokio::test]
async fn a_shell_has_the_users_terminal() {
    let running = Running::start("exec sleep 1000").await;
    let terminal = Terminal::open();
    terminal.resize(100, 30);
    assert!(!terminal.is_raw());
    let mut leet = terminal.leet(&running, "exec -it web -- sh");
    terminal.shows("# ").await;
    assert!(terminal.is_raw());
    terminal.types("stty size; echo $((6*7))\r");
    terminal.shows("30 100\r\n42\r\n").await;
    terminal.resize(132, 50);
    eventually(SOON, "the new size is known", async || {
        terminal.types("stty size\r");
        let seen = String::from_utf8_lossy(&terminal.seen.lock().expect("no panic")).into_owned();
        if seen.contains("50 132\r\n") {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    // An interrupt is the command's, not ours.
    terminal.types("sleep 87654\r");
    process_is("sleep 87654", true, SOON).await;
    terminal.types("\x03");
    process_is("sleep 87654", false, SOON).await;
    terminal.types("exit 3\r");
    assert_eq!(code_of(&mut leet).await, Some(3));
    assert!(!terminal.is_raw(), "the terminal is as before");

    // Its terminal is closed, or it is killed: so is what runs in it.
    for (signal, is_raw) in [("TERM", false), ("KILL", true)] {
        let mut leet = terminal.leet(&running, "exec -it web -- sh");
        eventually(SOON, "it has the terminal", async || {
            match terminal.is_raw() {
                true => Ok(()),
                false => Err(String::new()),
            }
        })
        .await;
        terminal.types("sleep 76543\r");
        process_is("sleep 76543", true, SOON).await;
        crate::support::signal(&leet, signal);
        process_is("sleep 76543", false, AT_ONCE).await;
        code_of(&mut leet).await;
        assert_eq!(terminal.is_raw(), is_raw, "{signal}");
    }
}
