//! Whatever is wrong with a request is told as a problem, and changes nothing in Redis.

use hyper::Method;
use hyper::body::Bytes;

use crate::api::{Answer, TestApi, content};
use crate::support::RedisServer;

/// Small, so that bodies over the limit are cheap.
const BODY_MAX: usize = 64 * 1024;

struct Case {
    what: &'static str,
    body: Bytes,
    status: u16,
    kind: &'static str,
    field: &'static str,
}

fn invalid(body: impl Into<Bytes>, field: &'static str) -> Case {
    Case {
        what: field,
        body: body.into(),
        status: 400,
        kind: "invalid-request",
        field,
    }
}

fn malformed(what: &'static str, body: impl Into<Bytes>) -> Case {
    Case {
        what,
        body: body.into(),
        status: 400,
        kind: "malformed-json",
        field: "",
    }
}

/// A service with one thing more.
fn with(more: &str) -> String {
    format!(r#"{{"name":"web","image":"nginx",{more}}}"#)
}

fn bodies() -> Vec<Case> {
    let name = |name: &str| invalid(format!(r#"{{"name":"{name}","image":"nginx"}}"#), "name");
    let image = |image: &str| invalid(format!(r#"{{"name":"web","image":"{image}"}}"#), "image");
    let replicas = |count: &str| invalid(with(&format!(r#""replicas":{count}"#)), "replicas");
    let mut cases = vec![
        malformed("empty", ""),
        malformed("spaces", " \r\n\t"),
        malformed("open", r#"{"name":"web""#),
        malformed("comma", r#"{"name":"web","image":"nginx",}"#),
        malformed("two", r#"{"name":"web","image":"nginx"}{}"#),
        malformed("form", "name=web&image=nginx"),
        malformed("utf-16", &b"\xff\xfe{\0}\0"[..]),
        malformed(
            "invalid utf-8",
            &b"{\"name\":\"w\xc3\x28\",\"image\":\"nginx\"}"[..],
        ),
        malformed("nul", &b"\0"[..]),
        malformed("nul inside", &b"{\"name\":\"w\0\",\"image\":\"nginx\"}"[..]),
        malformed("lone surrogate", r#"{"name":"\ud800","image":"nginx"}"#),
        malformed("deep", with(&format!(r#""args":{}"#, "[".repeat(30_000)))),
        malformed(
            "deep and closed",
            with(&format!(r#""x":{}{}"#, "[".repeat(200), "]".repeat(200))),
        ),
        malformed("nan", with(r#""replicas":NaN"#)),
        malformed("huge number", with(r#""replicas":1e999"#)),
        invalid("[]", ""),
        invalid(r#"["web","default","nginx",1]"#, ""),
        invalid("null", ""),
        invalid("7", ""),
        invalid(r#""web""#, ""),
        invalid(r#"{"image":"nginx"}"#, "name"),
        invalid(r#"{"name":"web"}"#, "image"),
        invalid("{}", "name"),
        invalid(with(r#""imag":"x""#), "imag"),
        invalid(with(r#""Replicas":1"#), "Replicas"),
        invalid(with(r#""privilegd":true"#), "privilegd"),
        invalid(with(r#""privileged":1"#), "privileged"),
        invalid(with(r#""network":"container:x""#), "network"),
        invalid(
            with(r#""mounts":[{"type":"bind","source":"/a/../b","target":"/c"}]"#),
            "mounts[0].source",
        ),
        invalid(
            with(r#""mounts":[{"type":"disk","target":"/c"}]"#),
            "mounts[0].type",
        ),
        invalid(
            with(r#""read_only":true,"files":[{"path":"/a","content":""}]"#),
            "files[0].path",
        ),
        invalid(
            with(r#""health":{"liveness":{"interval":"1 day"}}"#),
            "health.liveness.interval",
        ),
        invalid(with(r#""stop":{"signal":"SIGNOPE"}"#), "stop.signal"),
        invalid(with(r#""registry":{"username":"u"}"#), "registry.password"),
        invalid(with(r#""name":"other""#), "name"),
        invalid(with(r#""replica":1,"replicas":1"#), "replicas"),
        invalid(with(r#""namespace":"A""#), "namespace"),
        invalid(with(r#""namespace":"a:b""#), "namespace"),
        invalid(with(r#""args":"x""#), "args"),
        invalid(with(r#""args":[1]"#), "args[0]"),
        invalid(with(r#""args":["a\u0000"]"#), "args[0]"),
        invalid(with(r#""command":{}"#), "command"),
        invalid(with(r#""env":["A=b"]"#), "env"),
        invalid(with(r#""env":{"A":1}"#), "env.A"),
        invalid(with(r#""env":{"A=":"b"}"#), "env"),
        invalid(with(r#""env":{"":"b"}"#), "env"),
        invalid(with(r#""env":{"A":"\u0000"}"#), "env.A"),
        invalid(with(r#""labels":{"kubeleet.node":"x"}"#), "labels"),
        invalid(with(r#""labels":{"orchestrator":"x"}"#), "labels"),
        invalid(with(r#""ports":[0]"#), "ports[0]"),
        invalid(with(r#""ports":[80,65536]"#), "ports[1]"),
        invalid(with(r#""ports":["80",80]"#), "ports[1]"),
        invalid(with(r#""ports":[{"container":80,"hst":1}]"#), "ports[0]"),
        invalid(with(r#""ports":80"#), "ports"),
        invalid(with(r#""priority":"urgent""#), "priority"),
        invalid(with(r#""resources":{"cpu":-1}"#), "resources.cpu"),
        invalid(with(r#""resources":{"cpu":"lots"}"#), "resources.cpu"),
        invalid(with(r#""resources":{"memory":"1"}"#), "resources.memory"),
        invalid(with(r#""resources":{"memory":true}"#), "resources.memory"),
        invalid(with(r#""resources":{"gpu":1}"#), "resources.gpu"),
        invalid(r#"{"name":7,"image":"nginx"}"#, "name"),
        invalid(r#"{"name":null,"image":"nginx"}"#, "name"),
        invalid(r#"{"name":["web"],"image":"nginx"}"#, "name"),
        invalid(r#"{"name":"web","image":{}}"#, "image"),
        Case {
            what: "over the limit",
            body: with(&format!(r#""args":["{}"]"#, "x".repeat(BODY_MAX))).into(),
            status: 413,
            kind: "body-too-large",
            field: "",
        },
    ];
    let long = "a".repeat(64);
    for bad in [
        "", "-web", "web-", "Web", "w b", "a/b", "a:b", "*", "..", "w\\u0000", "w\\n", "wäb",
        "{a}", &long,
    ] {
        cases.push(name(bad));
    }
    for bad in [
        "",
        "Nginx",
        "nginx:",
        "http://x",
        "$(id)",
        "a b",
        "../x",
        "a@sha256:1",
        "a:b:c",
        "nginx\\u0000",
    ] {
        cases.push(image(bad));
    }
    for bad in [
        "0",
        "-1",
        "1.5",
        "\"3\"",
        "null",
        "true",
        "[]",
        "{}",
        "10001",
        "4294967296",
        "18446744073709551616",
        "1e30",
    ] {
        cases.push(replicas(bad));
    }
    cases
}

fn check(case: &Case, answer: &Answer) {
    let shown = String::from_utf8_lossy(&case.body);
    let shown: String = shown.chars().take(200).collect();
    assert_eq!(
        answer.status, case.status,
        "{} {shown}: {answer:?}",
        case.what
    );
    answer.assert_problem(case.status, case.kind);
    let field = answer.body["field"].as_str().unwrap_or_default();
    assert_eq!(field, case.field, "{} {shown}: {answer:?}", case.what);
    if case.kind == "invalid-request" {
        for part in ["given", "allowed"] {
            assert!(answer.body[part].is_string(), "{shown}: {answer:?}");
        }
        assert!(!answer.body["violations"].as_array().unwrap().is_empty());
    }
    // What was given comes back shortened.
    assert!(
        answer.bytes.len() < 4096,
        "{}: {}",
        case.what,
        answer.bytes.len()
    );
}

#[tokio::test]
async fn bad_bodies_are_refused_and_change_nothing() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "bad", |settings| {
        settings.api.body_bytes_max = BODY_MAX;
    })
    .await;
    let standing = r#"{"name":"stands","image":"a","replicas":2}"#;
    assert_eq!(api.post("/service", standing).await.status, 201);
    let before = content(&redis).await;
    for case in bodies() {
        for path in ["/service", "/v1/services"] {
            check(&case, &api.post(path, case.body.clone()).await);
        }
    }
    let other = api
        .post("/service", r#"{"name":"stands","image":"b","replicas":2}"#)
        .await;
    other.assert_problem(409, "service-exists");
    assert_eq!(content(&redis).await, before);
    // After all that it still serves.
    assert_eq!(
        api.post("/service", with(r#""replicas":1"#)).await.status,
        201
    );
}

#[tokio::test]
async fn bad_requests_around_the_body_are_refused_and_change_nothing() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "bad", |_| {}).await;
    assert_eq!(
        api.post("/service", with(r#""replicas":2"#)).await.status,
        201
    );
    let pod = api.get("/v1/pods").await.texts("items", "id").remove(0);
    let before = content(&redis).await;
    let long = "k".repeat(256);
    for key in ["", " ", "a b", "ä", &long] {
        let headers = [("idempotency-key", key)];
        let body = r#"{"name":"new","image":"a"}"#;
        let answer = api.send(Method::POST, "/service", &headers, body).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], "Idempotency-Key");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let body = r#"{"name":"new","image":"a"}"#;
    let answer = api.send(Method::POST, "/service", &twice, body).await;
    answer.assert_problem(400, "invalid-request");
    for content_type in [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
    ] {
        let headers = [("content-type", content_type)];
        let answer = api.send(Method::POST, "/service", &headers, body).await;
        answer.assert_problem(415, "unsupported-media-type");
    }
    for (path, field) in [
        ("/service?namespace=A", "namespace"),
        ("/service?namspace=a", "namspace"),
        ("/service?namespace=a&namespace=b", "namespace"),
    ] {
        let answer = api.post(path, body).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], field, "{path}");
    }
    for (body, field) in [
        (r#"{"replicas":-1}"#, "replicas"),
        (r#"{"replicas":10001}"#, "replicas"),
        (r#"{"replicas":"1"}"#, "replicas"),
        (r#"{"replicas":1.5}"#, "replicas"),
        (r#"{"replcas":1}"#, "replcas"),
        (r#"{"replica":1,"replicas":1}"#, "replicas"),
        ("{}", "replicas"),
        ("[1]", ""),
    ] {
        let answer = api.post("/v1/services/web/scale", body).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let malformed = api.post("/v1/services/web/scale", "{").await;
    malformed.assert_problem(400, "malformed-json");
    for (path, field) in [
        ("/v1/services?limit=0", "limit"),
        ("/v1/services?limit=1001", "limit"),
        ("/v1/services?limit=x", "limit"),
        ("/v1/services?cursor=x", "cursor"),
        ("/v1/services?namespace=a&cursor=b/c", "cursor"),
        ("/v1/services/UPPER", "name"),
        ("/v1/services/a%3Apods", "name"),
        ("/v1/services/web?limit=1", "limit"),
        ("/v1/pods?phase=Running", "phase"),
        ("/v1/pods?node=a/b", "node"),
        ("/v1/pods?service=a:b", "service"),
        ("/v1/pods?service=a/b&namespace=c", "namespace"),
        ("/v1/pods?cursor=rubbish", "cursor"),
        ("/v1/pods?cursor=~99999999999999999~", "cursor"),
        ("/v1/pods?cursor=*~1~", "cursor"),
        ("/v1/pods?staus=x", "staus"),
        ("/v1/pods/..%2Fx", "id"),
        ("/v1/nodes?cursor=%2F", "cursor"),
        ("/v1/nodes/a%20b", "name"),
    ] {
        let answer = api.get(path).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], field, "{path}: {answer:?}");
    }
    let not_text = api.get("/v1/pods/%ff").await;
    not_text.assert_problem(400, "invalid-request");
    for (path, kind) in [
        ("/", "not-found"),
        ("/v2/services", "not-found"),
        ("/v1/services/", "not-found"),
        ("/v1/services/none", "service-not-found"),
        ("/v1/pods/none", "pod-not-found"),
        ("/v1/nodes/none", "node-not-found"),
    ] {
        api.get(path).await.assert_problem(404, kind);
    }
    for (method, path, allow) in [
        (Method::GET, "/service", "POST"),
        (Method::PUT, "/v1/services", "GET,HEAD,POST"),
        (Method::POST, "/v1/pods", "GET,HEAD"),
    ] {
        let answer = api.send(method, path, &[], "").await;
        answer.assert_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow);
    }
    let owned = api.delete(&format!("/v1/pods/{pod}")).await;
    owned.assert_problem(409, "pod-owned");
    let detail = owned.body["detail"].as_str().unwrap();
    assert!(detail.contains("service default/web"), "{detail}");
    api.delete("/v1/pods/none")
        .await
        .assert_problem(404, "pod-not-found");
    assert_eq!(content(&redis).await, before);
}

#[tokio::test]
async fn every_request_has_an_id() {
    let api = TestApi::start("ids").await;
    let given = [("x-request-id", "my-id")];
    let answer = api.send(Method::GET, "/healthz", &given, "").await;
    assert_eq!(answer.header("x-request-id"), "my-id");
    let long = "i".repeat(129);
    for bad in ["a b", &long] {
        let answer = api
            .send(Method::GET, "/healthz", &[("x-request-id", bad)], "")
            .await;
        assert_eq!(answer.header("x-request-id").len(), 16);
    }
}
