//! Hostile HTTP, byte by byte over TCP: what no client library would send, and what would wear a server out.
//!
//! Whatever comes: no status of 500 and above, no crash, nothing in Redis, and the next good request
//! is served. Bodies and parameters that break a rule are in `api_bad_input`.

use std::time::{Duration, Instant};

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{TestApi, content};
use crate::support::{RedisServer, eventually};

/// Longest wait for the end of an answer; above the API's own 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// After an answer the API either closes, or waits for more.
const SILENCE: Duration = Duration::from_millis(500);
const GOOD: &str = r#"{"name":"web","image":"nginx"}"#;

/// Everything that comes back until the API closes, or says no more.
async fn exchange(api: &TestApi, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&api.address).await.unwrap();
    // The API may close before it has read all.
    let _ = stream.write_all(request).await;
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut limit = ANSWER_LIMIT;
    loop {
        match tokio::time::timeout(limit, stream.read_buf(&mut answer)).await {
            Ok(Ok(read)) if read > 0 => limit = SILENCE,
            _ => return answer,
        }
    }
}

/// The statuses of answers, one after another.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let status = |part: &str| part.get(..3).and_then(|status| status.parse().ok());
    text.split("HTTP/1.")
        .skip(1)
        .filter_map(|part| status(part.get(2..)?))
        .collect()
}

/// A request with headers as they are given, and the end of the connection after it.
fn raw(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line}\r\nhost: a\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    raw("POST /service HTTP/1.1", headers, body)
}

fn long(byte: char, count: usize) -> String {
    String::from(byte).repeat(count)
}

/// What is sent, and the statuses one of which answers it; none where the connection just ends.
fn table() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let length = GOOD.len();
    let sized = |more: &str| post(&format!("content-length: {length}\r\n{more}"), GOOD);
    let get = |path: &str| raw(&format!("GET {path} HTTP/1.1"), "", "");
    let chunked = |chunks: &str| post("transfer-encoding: chunked\r\n", chunks);
    vec![
        // No HTTP at all.
        ("rubbish", b"\x00\xff\xfe\r\n\r\n".to_vec(), &[400]),
        ("another protocol", b"*1\r\n$4\r\nPING\r\n\r\n".to_vec(), &[400]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("HTTP/0.9", b"GET /healthz\r\n\r\n".to_vec(), &[400]),
        ("HTTP/9.9", b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(), &[400, 505]),
        ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(), &[200]),
        ("no host", b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(), &[200, 400]),
        ("line ends of another kind", b"GET /healthz HTTP/1.1\nhost: a\nconnection: close\n\n".to_vec(), &[200, 400]),
        // Methods.
        ("no method", raw(" /healthz HTTP/1.1", "", ""), &[400]),
        ("unknown method", raw("EAT /service HTTP/1.1", "", ""), &[405]),
        ("long method", raw(&format!("{} / HTTP/1.1", long('A', 50_000)), "", ""), &[400, 404, 405]),
        ("connect", raw("CONNECT evil.example:443 HTTP/1.1", "", ""), &[404, 405, 400]),
        ("trace", raw("TRACE /healthz HTTP/1.1", "", ""), &[405]),
        ("options", raw("OPTIONS * HTTP/1.1", "", ""), &[400, 404, 405]),
        // Addresses.
        ("two slashes", get("//"), &[404]),
        ("dots", get("/v1/pods/%2e%2e"), &[400, 404]),
        ("plain dots", get("/../../etc/passwd"), &[404]),
        ("nul", get("/v1/pods/%00"), &[400]),
        ("no utf-8", get("/v1/pods/%ff%fe"), &[400]),
        ("half a percent", get("/v1/pods/%"), &[400, 404]),
        ("raw nul", b"GET /v1/\0 HTTP/1.1\r\n\r\n".to_vec(), &[400]),
        ("raw high bytes", b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(), &[400, 404]),
        ("another host", raw("GET http://evil.example/healthz HTTP/1.1", "", ""), &[200, 400, 404]),
        ("a long path", get(&format!("/{}", long('a', 60_000))), &[404, 414]),
        ("too long a path", get(&format!("/{}", long('a', 70_000))), &[414]),
        ("a long name", get(&format!("/v1/services/{}", long('a', 10_000))), &[400]),
        ("a long query", get(&format!("/v1/pods?cursor={}", long('a', 60_000))), &[400]),
        ("many parameters", get(&format!("/v1/pods?{}", "a=b&".repeat(10_000))), &[400]),
        ("a cursor of marks", get("/v1/pods?cursor=%2A%3F%5B%5D%0D%0A"), &[400]),
        ("a fragment", get("/healthz#x"), &[200, 400]),
        // Headers.
        ("a large header", sized(&format!("x: {}\r\n", long('a', 64 * 1024))), &[201, 431]),
        ("too large a header", raw("GET /healthz HTTP/1.1", &format!("x: {}\r\n", long('a', 2_000_000)), ""), &[431]),
        ("many headers", raw("GET /healthz HTTP/1.1", &"x: y\r\n".repeat(5000), ""), &[431]),
        ("space before the colon", sized("x : y\r\n"), &[400]),
        ("a folded header", sized("x: y\r\n z\r\n"), &[400]),
        ("no colon", sized("xy\r\n"), &[400]),
        ("nul in a header", sized("x: \0\r\n"), &[400]),
        ("high bytes in a header", post(&format!("content-length: {length}\r\nidempotency-key: \u{e4}\r\n"), GOOD), &[400]),
        ("a line break in a key", sized("idempotency-key: a\rb\r\n"), &[400]),
        ("origin of another site", sized("origin: http://evil.example\r\n"), &[201]),
        // Lengths of bodies; the pairs by which one request is smuggled in another.
        ("a length that is none", post("content-length: x\r\n", GOOD), &[400]),
        ("a negative length", post("content-length: -1\r\n", GOOD), &[400]),
        ("a signed length", post(&format!("content-length: +{length}\r\n"), GOOD), &[400]),
        ("a huge length", post("content-length: 99999999999999999999999\r\n", GOOD), &[400]),
        ("100 MB announced", post("content-length: 104857600\r\n", ""), &[408, 413]),
        ("two lengths", post(&format!("content-length: {length}\r\ncontent-length: 1\r\n"), GOOD), &[400]),
        ("a list of lengths", post(&format!("content-length: {length}, 1\r\n"), GOOD), &[400]),
        ("length and chunks", post(&format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"), "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"), &[400]),
        ("chunks and length", post("transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"), &[400]),
        ("chunks of another name", post("transfer-encoding: xchunked\r\n", GOOD), &[400, 501]),
        ("chunks, then another coding", post("transfer-encoding: chunked, gzip\r\n", GOOD), &[400, 501]),
        ("chunks twice", post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"), &[400, 501]),
        ("chunks in HTTP/1.0", b"POST /service HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), &[400]),
        ("no size of a chunk", chunked("x\r\n"), &[400]),
        ("a negative chunk", chunked("-1\r\n"), &[400]),
        ("a chunk too large for any number", chunked("fffffffffffffffff\r\n"), &[400]),
        ("a chunk of another length", chunked("5\r\nabc\r\n0\r\n\r\n"), &[400]),
        ("a long extension of a chunk", chunked(&format!("1;{}\r\n{{\r\n0\r\n\r\n", long('x', 100_000))), &[400]),
        ("many trailers", chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(20_000))), &[400]),
        ("no length", post("", ""), &[400]),
        // Codings.
        ("a gzip bomb", post("content-encoding: gzip\r\ncontent-length: 4\r\n", "\x1f\u{7f}ab"), &[415]),
        ("several codings", post("content-encoding: br, gzip\r\ncontent-length: 4\r\n", "abcd"), &[415]),
        ("an expectation nobody has", sized("expect: the-unexpected\r\n"), &[201, 417]),
        // Upgrades.
        ("an upgrade of a submit", sized("upgrade: websocket\r\nconnection: upgrade\r\n"), &[201, 400]),
        ("half a websocket", raw("GET /v1/pods/a-1/exec HTTP/1.1", "upgrade: websocket\r\n", ""), &[400, 404, 426]),
        ("a websocket of another site", b"GET /v1/pods/a-1/exec HTTP/1.1\r\nhost: a\r\norigin: http://evil.example\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec(), &[403]),
    ]
}

#[tokio::test]
async fn hostile_bytes_are_refused_and_the_next_request_is_served() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "bytes", |_| {}).await;
    let mut wrong = Vec::new();
    for (what, request, allowed) in table() {
        let before = content(&redis).await;
        let answer = exchange(&api, &request).await;
        let got = statuses(&answer);
        let shown: String = String::from_utf8_lossy(&answer).chars().take(500).collect();
        if got != allowed[..allowed.len().min(1)] && (got.len() != 1 || !allowed.contains(&got[0]))
        {
            wrong.push(format!("{what}: {got:?} {shown}"));
            continue;
        }
        // What reached the API is told as a problem; a broken frame only has its status.
        let Some(status) = got.first() else {
            continue;
        };
        if *status >= 400 && shown.contains("x-request-id") {
            assert!(
                shown.contains("application/problem+json"),
                "{what}: {shown}"
            );
            assert!(shown.contains(r#""detail":""#), "{what}: {shown}");
        }
        if *status == 201 {
            assert_eq!(api.delete("/v1/services/web").await.status, 202, "{what}");
            api.control().await;
        } else {
            assert_eq!(content(&redis).await, before, "{what}");
        }
        assert_eq!(api.get("/healthz").await.status, 200, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(api.post("/service", GOOD).await.status, 201);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_a_bad_one_ends_them() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "pipeline", |_| {}).await;
    let get = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let last = "GET /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = exchange(&api, format!("{}{last}", get.repeat(200)).as_bytes()).await;
    let got = statuses(&answer);
    assert_eq!((got.len(), got[199], got[200]), (201, 200, 404));

    // The bytes after a body that is shorter than what follows are a request of their own, and a bad one.
    let short = format!(
        "POST /service HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}{get}rubbish\0\r\n\r\n{get}"
    );
    let got = statuses(&exchange(&api, short.as_bytes()).await);
    assert_eq!(
        got,
        [400, 200, 400],
        "nothing is served behind what is no HTTP"
    );
    assert!(content(&redis).await.is_empty());
}

#[tokio::test]
async fn a_body_is_asked_for_before_it_is_sent() {
    let api = TestApi::start("continue").await;
    let mut stream = TcpStream::connect(&api.address).await.unwrap();
    let head = post(
        &format!("content-length: {}\r\nexpect: 100-continue\r\n", GOOD.len()),
        "",
    );
    stream.write_all(&head).await.unwrap();
    let mut asked = [0; 25];
    tokio::time::timeout(ANSWER_LIMIT, stream.read_exact(&mut asked))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GOOD.as_bytes()).await.unwrap();
    assert_eq!(statuses(&read_all(&mut stream).await), [201]);
}

/// Bodies that come too slowly, too short or too long: each is told within the API's own time.
#[tokio::test]
async fn slow_and_endless_bodies_hold_up_nobody() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "slow", |_| {}).await;
    let began = Instant::now();
    let slow = async {
        let mut stream = TcpStream::connect(&api.address).await.unwrap();
        stream
            .write_all(&post("transfer-encoding: chunked\r\n", ""))
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        let drip = async {
            loop {
                if write.write_all(b"1\r\n \r\n").await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = drip => {}
            _ = read.read_to_end(&mut answer) => {}
        }
        answer
    };
    let short = post("content-length: 500\r\n", GOOD);
    let short = exchange(&api, &short);
    let endless = async {
        let mut stream = TcpStream::connect(&api.address).await.unwrap();
        stream
            .write_all(&post("content-length: 104857600\r\n", ""))
            .await
            .unwrap();
        let block = vec![b' '; 1 << 20];
        let mut answer = Vec::new();
        for _ in 0..100 {
            if stream.write_all(&block).await.is_err() {
                break;
            }
        }
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let others = async {
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(api.get("/healthz").await.status, 200);
            assert!(asked.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (slow, short, endless, ()) = tokio::join!(slow, short, endless, others);
    assert_eq!(statuses(&slow), [408]);
    assert_eq!(statuses(&short), [408]);
    // A client that sends on after the answer may lose it with the connection.
    assert!(
        matches!(statuses(&endless)[..], [] | [413]),
        "{:?}",
        statuses(&endless)
    );
    assert!(began.elapsed() < ANSWER_LIMIT, "{:?}", began.elapsed());
    assert!(content(&redis).await.is_empty());
}

/// More connections than the API serves, silent ones and ones in the middle of a header.
#[tokio::test]
async fn silent_connections_shut_nobody_out() {
    let api = TestApi::start("silent").await;
    let mut silent = Vec::new();
    for number in 0..900 {
        let mut stream = TcpStream::connect(&api.address).await.unwrap();
        if number % 2 == 0 {
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nx")
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    let asked = Instant::now();
    eventually(ANSWER_LIMIT, "a good request is served", async || {
        let answer = tokio::time::timeout(Duration::from_secs(5), api.get("/healthz")).await;
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "{:?}",
        asked.elapsed()
    );
}

/// Bodies that are JSON, or nearly, at the edges of depth, length and number; the large limit is the default one.
#[tokio::test]
async fn bodies_at_the_edges_are_judged_quickly() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "edges", |_| {}).await;
    let with = |more: &str| format!(r#"{{"name":"web","image":"nginx",{more}}}"#);
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let entries = |count: usize| {
        let entries: Vec<String> = (0..count)
            .map(|number| format!(r#""k{number}":"""#))
            .collect();
        entries.join(",")
    };
    let mut bodies = vec![
        (with(&format!(r#""args":{}"#, deep("[", "]"))), 400, ""),
        (
            with(&format!(
                r#""x":{}1{}"#,
                r#"{"a":"#.repeat(50_000),
                "}".repeat(50_000)
            )),
            400,
            "",
        ),
        (format!("\u{feff}{GOOD}"), 400, ""),
        (with(r#""__proto__":{"privileged":true}"#), 400, "__proto__"),
        (with(r#""constructor":1"#), 400, "constructor"),
        (with(&format!(r#""{}":1"#, long('x', 900_000))), 400, "x"),
        (
            with(&format!(r#""env":{{{}}}"#, entries(70_000))),
            400,
            "env",
        ),
        (
            with(&format!(r#""labels":{{{}}}"#, entries(70_000))),
            400,
            "labels",
        ),
        (
            with(&format!(r#""args":[{}]"#, vec![r#""""#; 200_000].join(","))),
            400,
            "args",
        ),
        (
            with(&format!(
                r#""args":[{}]"#,
                vec![r#""\u0000""#; 1000].join(",")
            )),
            400,
            "args[0]",
        ),
        (
            with(&format!(r#""ports":[{}]"#, vec!["80"; 50_000].join(","))),
            400,
            "ports",
        ),
        (with(r#""env":{"A":"\ud800"}"#), 400, ""),
        (with(r#""env":{"A":"\udc00\ud800"}"#), 400, ""),
        (
            with(r#""placement":{"score":"((((((((((((((((((((((((((((((((((((((((((((((((1"}"#),
            400,
            "placement.score",
        ),
        (
            with(&format!(
                r#""placement":{{"score":"1{}"}}"#,
                "*2".repeat(400)
            )),
            400,
            "placement.score",
        ),
        (with(r#""resources":{"memory":0}"#), 400, "resources.memory"),
        (with(r#""resources":{"memory":1}"#), 400, "resources.memory"),
        (
            with(r#""resources":{"memory":"5Mi"}"#),
            400,
            "resources.memory",
        ),
        (
            with(r#""resources":{"memory":18446744073709551616}"#),
            400,
            "resources.memory",
        ),
        (with(r#""resources":{"memory":1e400}"#), 400, ""),
        (
            with(r#""resources":{"memory":-0}"#),
            400,
            "resources.memory",
        ),
        (with(r#""resources":{"cpu":1e3}"#), 201, ""),
        (with(r#""resources":{"cpu":"1e3"}"#), 400, "resources.cpu"),
        (with(r#""resources":{"cpu":0.1}"#), 201, ""),
        (with(r#""resources":{"cpu":"+1"}"#), 400, "resources.cpu"),
        (
            with(r#""resources":{"cpu":"Infinity"}"#),
            400,
            "resources.cpu",
        ),
        (
            with(r#""resources":{"memory":"1Pi"}"#),
            400,
            "resources.memory",
        ),
        (
            with(r#""mounts":[{"type":"bind","source":"../..","target":"/x"}]"#),
            400,
            "mounts[0].source",
        ),
        (
            with(r#""mounts":[{"type":"bind","source":"x","target":"/x"}]"#),
            400,
            "mounts[0].source",
        ),
        (with(r#""pid":"host""#), 400, "pid"),
        (
            with(r#""capabilities":{"add":["ALL THINGS"]}"#),
            400,
            "capabilities.add",
        ),
        (with(r#""ports":["8080:80","8080:81"]"#), 400, "ports[1]"),
        (
            with(r#""placement":{"constraints":["zone=eu","zone!=eu"]}"#),
            201,
            "",
        ), // it waits, and says why
    ];
    for number in [
        "1e3",
        "-0",
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551616",
        "1e9",
        "1E400",
        "0x10",
        "01",
        "1_0",
        "+1",
        ".5",
        "Infinity",
    ] {
        let field = if matches!(
            number,
            "0x10" | "01" | "1_0" | "+1" | ".5" | "Infinity" | "1E400"
        ) {
            ""
        } else {
            "replicas"
        };
        bodies.push((with(&format!(r#""replicas":{number}"#)), 400, field));
    }
    let names = [
        (long('a', 63), 201),
        (long('a', 64), 400),
        (long('a', 253), 400),
        (long('a', 10_000), 400),
        ("--all".into(), 400),
        ("-l".into(), 400),
        ("a*".into(), 400),
        ("a?".into(), 400),
        ("a[b]".into(), 400),
        ("😀".into(), 400),
        ("\u{202e}web".into(), 400),
        ("w\u{0435}b".into(), 400),
        ("a\\r\\nb".into(), 400),
        ("a".into(), 201),
    ];
    for (name, status) in names {
        bodies.push((
            format!(r#"{{"name":"{name}","image":"nginx"}}"#),
            status,
            if status == 400 { "name" } else { "" },
        ));
    }
    for image in [
        long('a', 5000),
        "image@sha256:abc".into(),
        "http://x/y".into(),
        "$(id)".into(),
        "a:+1".into(),
        "h:+1/a".into(),
        "a\\u0000".into(),
    ] {
        bodies.push((
            format!(r#"{{"name":"web","image":"{image}"}}"#),
            400,
            "image",
        ));
    }
    for (body, status, field) in bodies {
        let shown: String = body.chars().take(150).collect();
        let before = content(&redis).await;
        let asked = Instant::now();
        let answer = api.post("/service", body).await;
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{shown}: {:?}",
            asked.elapsed()
        );
        if status == 400 {
            let told = answer.body["field"].as_str().unwrap_or_default();
            assert!(
                told.starts_with(field) && (field.is_empty() == told.is_empty()),
                "{shown}: {answer:?}"
            );
            assert!(
                answer.bytes.len() < 32 * 1024,
                "{shown}: {}",
                answer.bytes.len()
            );
            assert_eq!(content(&redis).await, before, "{shown}");
        } else {
            let name = answer.body["name"].as_str().unwrap();
            assert_eq!(
                api.delete(&format!("/v1/services/{name}")).await.status,
                202
            );
            api.control().await;
        }
    }
}

#[tokio::test]
async fn a_wish_that_comes_many_times_at_once_is_one() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "many", |_| {}).await;
    let headers = [
        ("idempotency-key", "one"),
        ("content-type", "application/json"),
    ];
    let send = |_| api.send(Method::POST, "/service", &headers, GOOD);
    let answers = futures_util::future::join_all((0..100).map(send)).await;
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{answers:?}"
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.body["pods"] == answers[0].body["pods"])
    );
    assert_eq!(api.get("/v1/pods").await.texts("items", "id").len(), 1);
    let other = api
        .send(
            Method::POST,
            "/service",
            &headers,
            r#"{"name":"web","image":"other"}"#,
        )
        .await;
    other.assert_problem(422, "idempotency-key-reused");

    // Deleted while it is made, twice, and what was never there.
    let submit = api.post(
        "/service",
        r#"{"name":"late","image":"nginx","replicas":2000}"#,
    );
    let delete = async {
        eventually(ANSWER_LIMIT, "it is there", async || {
            match api.delete("/v1/services/late").await {
                answer if answer.status == 202 => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await;
    };
    let (submitted, ()) = tokio::join!(submit, delete);
    assert!(submitted.status < 500, "{submitted:?}");
    let again = api.delete("/v1/services/late").await;
    assert!(matches!(again.status, 202 | 404), "{again:?}");
    api.delete("/v1/services/never")
        .await
        .assert_problem(404, "service-not-found");
    let old = [("if-match", "7"), ("content-type", "application/json")];
    let put = api
        .send(Method::PUT, "/v1/services/web", &old, r#"{"image":"a"}"#)
        .await;
    put.assert_problem(412, "revision-moved");
    for bad in ["x", "\"", "-1", "1, 2", "99999999999999999999"] {
        let headers = [("if-match", bad), ("content-type", "application/json")];
        let put = api
            .send(
                Method::PUT,
                "/v1/services/web",
                &headers,
                r#"{"image":"a"}"#,
            )
            .await;
        put.assert_problem(400, "invalid-request");
        assert_eq!(put.body["field"], "If-Match");
    }
}
