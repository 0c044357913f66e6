//! Fuzz targets of the nouns: words, names, specs, frames.

use std::collections::BTreeMap;

use super::{bytes, text};
use crate::model::amounts::{count_devices, device_names};
use crate::model::log::LogLine;
use crate::model::node::{labels_text, read_labels};
use crate::model::placement::{Constraint, OwnScore};
use crate::model::resources::{parse_bytes, parse_cpu, parse_memory};
use crate::model::{
    Amounts, EntryId, ExecFrame, ImageReference, Owner, Phase, PodId, Port, Position, RawPod,
    ServiceKey, ServiceSpec, Span,
};

/// Specs with most of what can be said.
pub(crate) const SPECS: [&str; 4] = [
    r#"{"name":"web","image":"nginx:1.27","replicas":3,"env":{"MODE":"live"},"resources":{"cpu":0.5,"memory":"64Mi"},"ports":["8080:80"],"priority":"normal"}"#,
    r#"{"name":"shop","namespace":"n","image":"registry.example:5000/team/shop:1.2","pull":"always","registry":{"username":"r","password":"p"},"command":["x"],"args":["serve"],"working_dir":"/srv","user":"1000:1000","labels":{"l":"m"},"rank":7,"preempts":true,"preemptible":false,"restart":{"policy":"on-failure","max":3},"stop":{"signal":"SIGINT","grace":"3s"}}"#,
    r#"{"name":"a","image":"b","resources":{"cpu":"500m","memory":67108864,"memory_swap":"128Mi","shm":4096,"pids":9,"disk":"1g","requests":{"cpu":0.25,"memory":1024,"pids":8},"devices":{"gpu":1}},"health":{"liveness":{"tcp":{"port":2},"start_period":"1s","interval":"2s","timeout":"3s","failures":4,"successes":5},"engine":false},"ulimits":{"nofile":{"soft":1,"hard":2}},"capabilities":{"add":["SYS_TIME"],"drop":["NET_RAW"]}}"#,
    r#"{"name":"a","image":"b","mounts":[{"type":"tmpfs","target":"/t","read_only":true,"size":4096},{"type":"volume","source":"v","target":"/d"}],"files":[{"path":"/d/f","content":"c","mode":"0400","uid":1,"gid":2,"secret":true},{"path":"/d/g","base64":"AA=="}],"devices":[{"host":"/dev/a","container":"/dev/b","permissions":"r"}],"network":"bridge","dns":["9.9.9.9"],"extra_hosts":{"h":"::1"},"init":false,"ports":[{"container":2,"host":1,"protocol":"udp"},80,"53:53/udp"],"placement":{"labels":{"zone":"eu"},"constraints":["zone in (eu, us)","cores>=8"]}}"#,
];

/// A spec that is accepted is stored and read back as it was, but for the count and the login.
pub(crate) fn reads_back(spec: &ServiceSpec) {
    let stored = spec.to_stored();
    let again: ServiceSpec = serde_json::from_str(&stored).expect("what is stored is a spec");
    assert_eq!(again.violations(u32::MAX), []);
    assert_eq!(again.to_stored(), stored);
    let same = ServiceSpec {
        replicas: 1,
        registry: None,
        ..spec.clone()
    };
    assert_eq!(again, same);
    let shown = serde_json::to_string(&spec.without_secrets()).expect("it is shown");
    let _: ServiceSpec = serde_json::from_str(&shown).expect("what is shown is a spec");
}

#[test]
fn fuzz_raw_pod() {
    let seeds = SPECS.map(|spec| {
        spec.replacen("{", r#"{"uuid":"u-1","replica":2,"#, 1)
            .replace(r#","replicas":3"#, "")
    });
    let seeds = seeds.each_ref().map(|seed| seed.as_bytes());
    bytes("raw pod", &seeds, |entry| {
        let shown = RawPod::shown(entry);
        assert!(!String::from_utf8_lossy(&shown).contains(r#""password":"p""#));
        match RawPod::parse(entry) {
            Ok(raw) => {
                assert_eq!(PodId::parse(raw.id.as_str()), Some(raw.id));
                reads_back(&raw.spec);
            }
            Err(why) => assert!(!why.is_empty()),
        }
    });
}

#[test]
fn fuzz_spec() {
    bytes("spec", &SPECS.map(str::as_bytes), |body| {
        let Ok(spec) = serde_json::from_slice::<ServiceSpec>(body) else {
            return;
        };
        let violations = spec.violations(10);
        for broken in &violations {
            assert!(broken.to_string().len() < 4096, "{broken}");
        }
        if violations.is_empty() {
            reads_back(&spec);
        }
    });
}

#[test]
fn fuzz_amounts() {
    let seeds = [
        "0.5",
        "500m",
        "64Mi",
        "1.5g",
        "67108864",
        "disk=4096,gpu=2,pids=9",
        ",gpu/0,gpu/1,",
    ];
    text("amounts", &seeds, |text| {
        for read in [parse_cpu, parse_memory, parse_bytes] {
            if let Some(amount) = read(text) {
                assert!(!text.starts_with(['+', '-', ' ']), "{text} is {amount}");
                assert!(amount > 0);
            }
        }
        if let Some(bytes) = parse_bytes(text) {
            assert_eq!(parse_bytes(&bytes.to_string()), Some(bytes));
        }
        if let Some(millis) = parse_cpu(text) {
            assert_eq!(parse_cpu(&format!("{millis}m")), Some(millis));
        }
        let amounts = Amounts::parse(text);
        assert_eq!(Amounts::parse(&amounts.to_string()), amounts);
        let names = device_names(text);
        assert_eq!(device_names(&names.join(",")), names);
        let _ = count_devices(text).less([amounts].iter());
    });
}

#[test]
fn fuzz_spans() {
    let seeds = ["10s", "1m30s", "500ms", "1.5h", "7", "100us", "1h 2m 3s"];
    text("spans", &seeds, |text| {
        if let Some(span) = Span::parse(text) {
            assert_eq!(Span::parse(&span.to_string()), Some(span));
        }
        let json = serde_json::from_str::<Span>(text).ok();
        if let Some(span) = json {
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{text}");
        }
    });
}

#[test]
fn fuzz_images() {
    let digest = format!("localhost:5000/team/app:1.2@sha256:{}", "a".repeat(64));
    let seeds = [
        "nginx",
        "spaster/alpine-sleep",
        "gcr.io/a/b__c/d.e:v1",
        &digest,
    ];
    text("images", &seeds, |text| {
        let _ = ImageReference::host_of(text);
        let Some(image) = ImageReference::parse(text) else {
            return;
        };
        let mut again = image.repository.to_owned();
        for (mark, part) in [(':', image.tag), ('@', image.digest)] {
            if let Some(part) = part {
                again.push(mark);
                again.push_str(part);
            }
        }
        assert_eq!(again, text);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"+$\"'".contains(&byte)),
            "{text}"
        );
    });
}

#[test]
fn fuzz_ports() {
    let seeds = [
        "80",
        "8080:80",
        "53:53/udp",
        "1:2/tcp",
        r#"{"container":2,"host":1,"protocol":"udp"}"#,
    ];
    text("ports", &seeds, |text| {
        let read = [Port::parse(text), serde_json::from_str(text).ok()];
        for port in read.into_iter().flatten() {
            assert_eq!(Port::parse(&port.to_string()), Some(port));
            assert!(!text.contains('+'), "{text}");
            let json = serde_json::to_string(&port).expect("a port is shown");
            assert_eq!(serde_json::from_str::<Port>(&json).ok(), Some(port));
        }
    });
}

#[test]
fn fuzz_labels_and_names() {
    let seeds = [
        "zone=eu,disk=ssd,empty=",
        "default/web",
        "7h2k9m4xq0ws-0",
        "service:default/web",
        "crash-loop",
    ];
    text("labels and names", &seeds, |text| {
        let labels = read_labels(text);
        assert_eq!(read_labels(&labels_text(&labels)), labels);
        if let Some(key) = ServiceKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        if let Some(id) = PodId::parse(text) {
            assert_eq!(id.as_str(), text);
            let _ = id.short();
        }
        if let Some(phase) = Phase::parse(text) {
            assert_eq!(phase.as_str(), text);
        }
        let _ = Owner::parse(text);
    });
}

#[test]
fn fuzz_constraints() {
    let seeds = [
        "zone in (eu, us)",
        "zone not in (eu)",
        "disk",
        "!disk",
        "a=b",
        "a!=b",
        "cores>=8",
        "price<0.25",
    ];
    text("constraints", &seeds, |text| {
        if let Some(constraint) = Constraint::parse(text) {
            let again = Constraint::parse(&constraint.to_string());
            assert_eq!(again.as_ref(), Some(&constraint));
            let _ = constraint.holds(&BTreeMap::from([(
                constraint.key.clone(),
                "1.5".to_owned(),
            )]));
        }
    });
}

#[test]
fn fuzz_own_scores() {
    let seeds = [
        "10 * pressure_memory + price + label_rank ^ 2",
        "min(pods, 3) / cpu",
        "!(pods > 1) || cpu == 2",
        "-(memory % 2)",
        "1e3 + 5k",
    ];
    text("own scores", &seeds, |text| {
        let began = std::time::Instant::now();
        if let Ok(score) = OwnScore::parse(text) {
            for value in [0.0, -1.0, 1.5, f64::MAX, f64::NAN] {
                let value = score.evaluate(|_| Some(value));
                assert!(value.is_none_or(f64::is_finite));
            }
        }
        assert!(began.elapsed().as_secs() < 2, "{text}");
    });
}

#[test]
fn fuzz_positions() {
    let seeds = [
        "1795160000000-0.1",
        "1795160000000-0",
        "0-0",
        "18446744073709551615-18446744073709551615.4294967295",
    ];
    text("positions", &seeds, |text| {
        if let Some(position) = Position::parse(text) {
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        if let Some(entry) = EntryId::parse(text) {
            assert_eq!(EntryId::parse(&entry.to_string()), Some(entry));
        }
    });
}

#[test]
fn fuzz_frames() {
    let frames: [&[u8]; 7] = [
        b"\x00in",
        b"\x01out",
        b"\x02err",
        b"\x03",
        b"\x04{\"columns\":80,\"rows\":24}",
        b"\x05137",
        b"\x06why",
    ];
    bytes("exec frames", &frames, |message| {
        if let Some(frame) = ExecFrame::read(message) {
            let again = frame.to_bytes();
            assert_eq!(ExecFrame::read(&again), Some(frame));
        }
    });
}

#[test]
fn fuzz_log_lines() {
    let seeds: [&[u8]; 2] = [
        b"o 2026-11-20T10:21:22.000000001Z text\nE 1 more\n",
        b"e 1 \n",
    ];
    bytes("log lines", &seeds, |batch| {
        let lines: Vec<LogLine<'_>> = LogLine::read_all(batch).collect();
        let mut again = Vec::new();
        for line in &lines {
            line.write_to(&mut again);
        }
        assert!(again.len() <= batch.len() + 1);
        assert_eq!(LogLine::read_all(&again).collect::<Vec<_>>(), lines);
    });
}
