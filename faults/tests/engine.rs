//! The played engine as a process: what it answers, what outlives it, and how it breaks.

#![expect(clippy::unwrap_used, reason = "a test says by its end what went wrong")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kubeleet_faults::logs::{Deed, Did};
use serde_json::{Value, json};

/// Longest wait for what takes a moment.
const SOON: Duration = Duration::from_secs(10);

/// An engine that plays one node; its folder goes with it.
struct Engine {
    child: Child,
    dir: PathBuf,
}

impl Engine {
    fn start(name: &str) -> Engine {
        let dir =
            std::env::temp_dir().join(format!("kubeleet-engine-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Engine {
            child: spawn(&dir),
            dir,
        }
    }

    /// kill -9, and a new one.
    fn again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.dir);
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        ask(&self.dir.join("n1.sock"), method, path, body)
    }

    fn control(&self, path: &str, body: &Value) {
        let (status, said) = ask(&self.dir.join("control.sock"), "POST", path, body);
        assert_eq!(status, 200, "{said}");
    }

    fn create(&self, name: &str) -> (u16, Value) {
        let body = json!({
            "Image": "spaster/alpine-sleep", "Env": ["A=b"],
            "Labels": {"orchestrator": "kubeleet", "kubeleet.pod": name},
        });
        self.ask(
            "POST",
            &format!("/v1.47/containers/create?name={name}"),
            &body,
        )
    }

    /// What the truth log says of ours.
    fn did(&self) -> Vec<Did> {
        let log = std::fs::read_to_string(self.dir.join("engine-n1.jsonl")).unwrap();
        let deeds = log
            .lines()
            .map(|line| serde_json::from_str::<Deed>(line).unwrap());
        let ours = deeds.filter(|deed| deed.labels.contains_key("orchestrator"));
        ours.map(|deed| deed.did).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(dir: &Path) -> Child {
    // A killed one leaves its socket, which nobody serves: only an answer says that this one is there.
    let child = Command::new(env!("CARGO_BIN_EXE_engine"))
        .args(["--node", "n1", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + SOON;
    while ["n1.sock", "control.sock"]
        .iter()
        .any(|name| UnixStream::connect(dir.join(name)).is_err())
    {
        assert!(Instant::now() < deadline, "the engine does not come");
        std::thread::yield_now();
    }
    child
}

/// One request on a connection of its own; status 0 if no answer came.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: e\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return (0, Value::Null);
    };
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = String::new();
    if stream.write_all(head.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() {
        return (0, Value::Null);
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or(0),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

fn id_of(answer: &(u16, Value)) -> String {
    assert_eq!(answer.0, 201, "{}", answer.1);
    answer.1["Id"].as_str().unwrap().to_owned()
}

#[test]
fn containers_outlive_the_process() {
    let mut engine = Engine::start("outlive");
    let id = id_of(&engine.create("web"));
    assert_eq!(engine.create("web").0, 409);
    let info = engine.ask("GET", "/info", &Value::Null).1["ID"].clone();
    assert_eq!(
        engine
            .ask("POST", &format!("/containers/{id}/start"), &Value::Null)
            .0,
        204
    );
    assert_eq!(
        engine
            .ask("POST", &format!("/containers/{id}/start"), &Value::Null)
            .0,
        304
    );
    engine.again();
    let filters = "%7B%22label%22%3A%5B%22kubeleet.pod%3Dweb%22%5D%7D";
    let (_, listed) = engine.ask(
        "GET",
        &format!("/containers/json?filters={filters}"),
        &Value::Null,
    );
    assert_eq!(listed[0]["Id"], json!(id));
    assert_eq!(listed[0]["State"], "running");
    assert_eq!(
        listed.as_array().unwrap().len(),
        1,
        "the foreign one has no such label"
    );
    assert_eq!(engine.ask("GET", "/info", &Value::Null).1["ID"], info);
    assert_eq!(
        engine
            .ask("POST", &format!("/containers/{id}/stop?t=5"), &Value::Null)
            .0,
        204
    );
    let (_, seen) = engine.ask("GET", "/containers/web/json", &Value::Null);
    assert_eq!(seen["State"]["ExitCode"], 143);
    assert_eq!(
        engine
            .ask(
                "DELETE",
                &format!("/containers/{id}?force=true"),
                &Value::Null
            )
            .0,
        204
    );
    assert_eq!(
        engine.ask("GET", "/containers/web/json", &Value::Null).0,
        404
    );
    assert_eq!(
        engine.did(),
        [Did::Created, Did::Started, Did::Ended, Did::Removed]
    );
}

#[test]
fn it_breaks_on_demand() {
    let engine = Engine::start("breaks");
    let fault = |kind: &str, seconds: f64| {
        engine.control(
            "/fault",
            &json!({"node": "n1", "kind": kind, "seconds": seconds}),
        );
    };
    fault("created_but_error", 60.0);
    assert_eq!(engine.create("web").0, 500);
    fault("list_error", 60.0);
    assert_eq!(engine.ask("GET", "/containers/json", &Value::Null).0, 500);
    engine.control("/heal", &json!({"node": "*"}));
    assert_eq!(engine.create("web").0, 409, "it is there all the same");
    fault("conflict409", 60.0);
    assert_eq!(engine.create("other").0, 409);
    engine.control("/heal", &json!({"node": "*"}));
    assert_eq!(
        engine.ask("GET", "/containers/other/json", &Value::Null).0,
        404
    );
    assert_eq!(
        engine.ask("POST", "/containers/web/start", &Value::Null).0,
        204
    );
    // Away at once, with what it has running; back a moment later.
    fault("restart_lost", 0.3);
    assert_eq!(engine.ask("GET", "/_ping", &Value::Null).0, 0);
    let deadline = Instant::now() + SOON;
    while engine.ask("GET", "/_ping", &Value::Null).0 != 200 {
        assert!(Instant::now() < deadline, "it does not come back");
    }
    assert_eq!(
        engine.ask("GET", "/containers/web/json", &Value::Null).1["State"]["ExitCode"],
        137
    );
    assert_eq!(engine.did(), [Did::Created, Did::Started, Did::Ended]);
}
