//! Tables: what is said of a service, and what becomes of it.

use serde_json::{Value, json};

use super::super::tests::{read_with, told};
use super::super::{Level, Options, Reading};

/// Files beside the compose file.
const FILES: [(&str, &str); 4] = [
    ("/app/a.env", "A=file\nB=file\n"),
    ("/app/raw.env", "R=\"$A\"\n"),
    ("/app/token", "secret\n"),
    ("/app/labels", "l=file\n"),
];

/// Reads a service `web` of image `i` that says `more`; `top` stands beside it.
fn service(more: &str, top: &str) -> Reading {
    let restart = if more.contains("restart") {
        ""
    } else {
        "restart: always, "
    };
    let text = format!("name: p\nservices:\n  web: {{image: i, {restart}{more}}}\n{top}\n");
    let mut options = Options::default();
    options
        .environment
        .insert("HOME".to_owned(), "/home/u".to_owned());
    options
        .environment
        .insert("TOKEN".to_owned(), "t0".to_owned());
    read_with(&[("f", &text)], &FILES, &options)
}

fn check_with(top: &str, more: &str, expected: Value) {
    let reading = service(more, top);
    let refused: Vec<String> = told(&reading)
        .into_iter()
        .filter(|line| !line.starts_with("warning"))
        .collect();
    assert!(refused.is_empty(), "{more}: {refused:?}");
    let mut whole =
        json!({"name": "web", "namespace": "default", "image": "i", "labels": {"project": "p"}});
    for (key, value) in expected.as_object().unwrap() {
        whole[key] = value.clone();
    }
    assert_eq!(reading.wishes[0].body, whole, "{more}");
}

fn check(more: &str, expected: Value) {
    check_with("", more, expected);
}

/// The one thing that is said, besides what every file is told.
fn tells_with(top: &str, more: &str, level: Level, field: &str, part: &str) {
    let reading = service(more, top);
    let found = reading
        .notes
        .iter()
        .find(|note| note.level == level && note.field == field);
    let Some(note) = found else {
        panic!("{more}: {:?}", told(&reading));
    };
    assert!(note.text.contains(part), "{more}: {note}");
    if level != Level::Warning {
        let graver = reading
            .notes
            .iter()
            .filter(|note| note.level != Level::Warning)
            .count();
        assert_eq!(graver, 1, "{more}: {:?}", told(&reading));
    }
}

fn refuses(more: &str, field: &str, part: &str) {
    tells_with("", more, Level::Refused, field, part);
}

fn warns(more: &str, field: &str, part: &str) {
    tells_with("", more, Level::Warning, field, part);
}

#[test]
fn programs() {
    check("command: \"a 'b c' d\"", json!({"args": ["a", "b c", "d"]}));
    check("command: [a, b c]", json!({"args": ["a", "b c"]}));
    check("command: ", json!({}));
    check(
        "entrypoint: /e --x, command: [a]",
        json!({"command": ["/e", "--x"], "args": ["a"]}),
    );
    check(
        "entrypoint: [], command: [a, b]",
        json!({"command": ["a"], "args": ["b"]}),
    );
    check(
        "user: 1000, working_dir: /w, init: true",
        json!({"user": "1000", "working_dir": "/w", "init": true}),
    );
    check(
        "stop_signal: SIGINT, stop_grace_period: 1m30s",
        json!({"stop": {"signal": "SIGINT", "grace": "90s"}}),
    );
    check("pull_policy: if_not_present", json!({}));
    check("pull_policy: always", json!({"pull": "always"}));
    check("pull_policy: never", json!({"pull": "never"}));
    refuses(
        "entrypoint: []",
        "services.web.entrypoint",
        "needs a command",
    );
    refuses(
        "command: \"a 'b\"",
        "services.web.command",
        "balanced quotes",
    );
    refuses(
        "command: {a: b}",
        "services.web.command",
        "a list is needed, a mapping is given",
    );
    refuses(
        "pull_policy: daily",
        "services.web.pull_policy",
        "always, missing",
    );
    refuses(
        "stop_grace_period: soon",
        "services.web.stop_grace_period",
        "a duration",
    );
    refuses(
        "working_dir: w",
        "services.web.working_dir",
        "an absolute path",
    );
    warns("command: []", "services.web.command", "the image's own");
    warns(
        "pull_policy: build",
        "services.web.pull_policy",
        "nothing is built",
    );
    warns("build: .", "services.web.build", "docker build -t i");
}

#[test]
fn an_image_is_needed() {
    let tell = |service: &str| {
        let text = format!("services:\n  web:\n    restart: always\n{service}");
        told(&read_with(&[("f", &text)], &[], &Options::default()))
    };
    assert_eq!(
        tell("    build:\n      context: .\n"),
        [
            "refused f:4: services.web.build: nothing is built here: docker build -t REGISTRY/NAME:TAG ..., docker push it, and set image to that name"
        ]
    );
    assert_eq!(tell(""), ["refused f:2: services.web: an image is needed"]);
    assert_eq!(tell("    image: NO\n").len(), 1);
}

#[test]
fn variables_and_labels() {
    check(
        "environment: {A: 1.10, B: yes, C: '', D: , TOKEN: }",
        json!({"env": {"A": "1.10", "B": "yes", "C": "", "TOKEN": "t0"}}),
    );
    check(
        "environment: [A=b=c, TOKEN, NONE]",
        json!({"env": {"A": "b=c", "TOKEN": "t0"}}),
    );
    check(
        "env_file: a.env",
        json!({"env": {"A": "file", "B": "file"}}),
    );
    check(
        "env_file: [a.env, {path: raw.env, format: raw}, {path: gone, required: false}], environment: [B=own]",
        json!({"env": {"A": "file", "B": "own", "R": "\"$A\""}}),
    );
    check(
        "labels: {a: b, c: , d: 1}",
        json!({"labels": {"a": "b", "c": "", "d": "1", "project": "p"}}),
    );
    check(
        "labels: [a=b, c], label_file: labels",
        json!({"labels": {"a": "b", "c": "", "l": "file", "project": "p"}}),
    );
    refuses(
        "env_file: gone",
        "services.web.env_file",
        "gone cannot be read",
    );
    refuses(
        "environment: {A: [b]}",
        "services.web.environment.A",
        "a text is needed, a list is given",
    );
    refuses(
        "environment: [{A: b}]",
        "services.web.environment",
        "a mapping is needed",
    );
    refuses(
        "labels: {project: q}",
        "services.web.labels",
        "leave it out",
    );
    refuses(
        "labels: {kubeleet.x: q}",
        "services.web.labels",
        "does not begin with",
    );
}

#[test]
fn ports() {
    check(
        "ports: [80, '8080:81', '53:53/udp']",
        json!({"ports": [
            {"container": 80, "protocol": "tcp"}, {"container": 81, "host": 8080, "protocol": "tcp"},
            {"container": 53, "host": 53, "protocol": "udp"},
        ]}),
    );
    check(
        "ports: ['8000-8001:9000-9001', '0.0.0.0:5:6', '[::]:7:8']",
        json!({"ports": [
            {"container": 9000, "host": 8000, "protocol": "tcp"}, {"container": 9001, "host": 8001, "protocol": "tcp"},
            {"container": 6, "host": 5, "protocol": "tcp"}, {"container": 8, "host": 7, "protocol": "tcp"},
        ]}),
    );
    check(
        "ports: ['3000-3001']",
        json!({"ports": [{"container": 3000, "protocol": "tcp"}, {"container": 3001, "protocol": "tcp"}]}),
    );
    check(
        "ports: [{target: 80, published: '8080', protocol: udp, mode: host, host_ip: 0.0.0.0}]",
        json!({"ports": [{"container": 80, "host": 8080, "protocol": "udp"}]}),
    );
    check(
        "ports: ['80:80', '80:80/tcp']",
        json!({"ports": [{"container": 80, "host": 80, "protocol": "tcp"}]}),
    );
    refuses(
        "ports: ['127.0.0.1:80:80']",
        "services.web.ports[0]",
        "to listen on 127.0.0.1 alone",
    );
    refuses(
        "ports: ['127.0.0.1::80']",
        "services.web.ports[0]",
        "alone is not possible",
    );
    refuses(
        "ports: ['[::1]:80:80']",
        "services.web.ports[0]",
        "to listen on ::1 alone",
    );
    refuses(
        "ports: [{target: 80, host_ip: 10.0.0.1}]",
        "services.web.ports[0].host_ip",
        "10.0.0.1",
    );
    refuses(
        "ports: ['8000-9000:80']",
        "services.web.ports[0]",
        "as many ports",
    );
    refuses("ports: ['80/sctp']", "services.web.ports[0]", "sctp");
    refuses(
        "ports: [eighty]",
        "services.web.ports[0]",
        "allowed is a port",
    );
    refuses(
        "ports: ['1-65535']",
        "services.web.ports[0]",
        "at most 100 ports",
    );
    refuses(
        "ports: [{published: 80}]",
        "services.web.ports[0]",
        "target is needed",
    );
    refuses(
        "ports: [{target: 80, hostip: x}]",
        "services.web.ports[0].hostip",
        "meant is perhaps host_ip",
    );
    refuses(
        "ports: ['80:80', '81:80']",
        "services.web.ports",
        "each port once",
    );
    warns(
        "ports: ['80:80'], deploy: {replicas: 2}",
        "services.web.ports",
        "need as many nodes",
    );
    warns(
        "ports: [{target: 80, mode: ingress}]",
        "services.web.ports[0].mode",
        "no effect",
    );
}

#[test]
fn volumes() {
    let top = "volumes:\n  data:\n  named: {name: other}\n  ext: {external: true}\n  nfs: {driver_opts: {type: nfs}}\n  drv: {driver: x}\n";
    let check = |more: &str, mounts: Value| check_with(top, more, json!({"mounts": mounts}));
    let refuses =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Refused, field, part);
    let warns =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Warning, field, part);
    check(
        "volumes: ['data:/d', 'named:/n:ro', 'ext:/e']",
        json!([
            {"type": "volume", "source": "p_data", "target": "/d"},
            {"type": "volume", "source": "other", "target": "/n", "read_only": true},
            {"type": "volume", "source": "ext", "target": "/e"},
        ]),
    );
    check(
        "volumes: ['./x:/a', '../y:/b:rw', '/z:/c:ro,cached', '~/h:/d', '.:/e']",
        json!([
            {"type": "bind", "source": "/app/x", "target": "/a"},
            {"type": "bind", "source": "/y", "target": "/b"},
            {"type": "bind", "source": "/z", "target": "/c", "read_only": true},
            {"type": "bind", "source": "/home/u/h", "target": "/d"},
            {"type": "bind", "source": "/app", "target": "/e"},
        ]),
    );
    check(
        "volumes: [/app/cache]",
        json!([{"type": "volume", "source": "p_web_app_cache", "target": "/app/cache"}]),
    );
    check(
        "volumes: [{type: bind, source: ./x, target: /a, read_only: true}, {type: volume, source: data, target: /b}, {type: tmpfs, target: /c, tmpfs: {size: 64m}}]",
        json!([
            {"type": "bind", "source": "/app/x", "target": "/a", "read_only": true},
            {"type": "volume", "source": "p_data", "target": "/b"},
            {"type": "tmpfs", "target": "/c", "size": 67_108_864},
        ]),
    );
    check("tmpfs: /run", json!([{"type": "tmpfs", "target": "/run"}]));
    check(
        "tmpfs: ['/run:size=1g,ro', /tmp]",
        json!([{"type": "tmpfs", "target": "/run", "read_only": true, "size": 1_073_741_824}, {"type": "tmpfs", "target": "/tmp"}]),
    );
    refuses(
        "volumes: ['gone:/d']",
        "services.web.volumes[0]",
        "no volume gone at the top",
    );
    refuses(
        "volumes: ['data:/d:shared']",
        "services.web.volumes[0]",
        "shared is not possible",
    );
    refuses(
        "volumes: ['nfs:/d']",
        "volumes.nfs.driver_opts",
        "make the volume on the nodes",
    );
    refuses(
        "volumes: ['drv:/d']",
        "volumes.drv.driver",
        "make the volume on the nodes",
    );
    refuses(
        "volumes: ['data:d']",
        "services.web.volumes",
        "an absolute path",
    );
    refuses(
        "volumes: [{type: npipe, target: /x}]",
        "services.web.volumes[0]",
        "possible here are bind",
    );
    refuses(
        "volumes: [{type: volume, source: data, target: /x, volume: {subpath: y}}]",
        "services.web.volumes[0].volume.subpath",
        "not possible",
    );
    refuses(
        "volumes: [{type: bind, source: /s, target: /x, bind: {propagation: shared}}]",
        "services.web.volumes[0].bind.propagation",
        "not possible",
    );
    refuses(
        "volumes: ['data:/d', './x:/d']",
        "services.web.volumes",
        "each target once",
    );
    warns(
        "volumes: ['data:/d']",
        "services.web.volumes",
        "each node keeps a volume of its own (p_data)",
    );
    warns(
        "volumes: ['./x:/d']",
        "services.web.volumes",
        "on the nodes that run a pod, and allowed by their settings (/app/x)",
    );
    warns(
        "volumes: ['/x:/d:Z']",
        "services.web.volumes[0]",
        "label the path",
    );
    warns(
        "volumes: [/x]",
        "services.web.volumes[0]",
        "is p_web_x here",
    );
    warns("volumes: ['ext:/e']", "volumes.ext", "on every node");
    warns(
        "tmpfs: '/run:mode=1770'",
        "services.web.tmpfs",
        "mode=1770 has no effect",
    );
    let held = service(
        "volumes: ['data:/d'], deploy: {placement: {constraints: [node.hostname == n1]}}",
        top,
    );
    assert_eq!(told(&held), Vec::<String>::new());
}

#[test]
fn secrets_and_configs() {
    let top = "secrets:\n  token: {file: ./token}\n  env: {environment: TOKEN}\n  ext: {external: true}\n  none: {environment: NOPE}\n  gone: {file: gone}\nconfigs:\n  conf: {content: \"a ${TOKEN}\"}\n";
    let check = |more: &str, files: Value| check_with(top, more, json!({"files": files}));
    let refuses =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Refused, field, part);
    check(
        "secrets: [token, {source: env, target: t, uid: '5', gid: 6, mode: 0400}]",
        json!([
            {"path": "/run/secrets/token", "content": "secret\n", "secret": true},
            {"path": "/run/secrets/t", "content": "t0", "mode": "0400", "uid": 5, "gid": 6, "secret": true},
        ]),
    );
    check(
        "configs: [conf, {source: conf, target: /etc/c, mode: '0o440'}], secrets: [{source: env, target: /x}]",
        json!([
            {"path": "/x", "content": "t0", "secret": true},
            {"path": "/conf", "content": "a t0"},
            {"path": "/etc/c", "content": "a t0", "mode": "0440"},
        ]),
    );
    refuses(
        "secrets: [ext]",
        "secrets.ext.external",
        "file, environment or content",
    );
    refuses(
        "secrets: [none]",
        "secrets.none.environment",
        "NOPE has no value",
    );
    refuses("secrets: [gone]", "secrets.gone.file", "cannot be read");
    refuses(
        "secrets: [nope]",
        "services.web.secrets[0]",
        "nothing named nope under secrets",
    );
    refuses(
        "secrets: [{source: token, mode: 440}]",
        "services.web.secrets[0].mode",
        "leading zero",
    );
    refuses(
        "configs: [conf, conf]",
        "services.web.configs",
        "each path once",
    );
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let source = super::super::Source {
        name: "f".to_owned(),
        folder: "/app".into(),
        text: "services: {a: {image: i, secrets: [s]}}\nsecrets: {s: {file: bin}}\n".to_owned(),
    };
    let reading = super::super::read(&[source], &Options::default(), &|path| match path
        .ends_with("bin")
    {
        true => Ok(vec![0xff, 0, 0xfe]),
        false => Err(std::io::ErrorKind::NotFound.into()),
    });
    assert_eq!(reading.wishes[0].body["files"][0]["base64"], "/wD+");
}

#[test]
fn resources_of_pods() {
    check(
        "deploy: {resources: {limits: {cpus: '0.5', memory: 512M, pids: 100}}}",
        json!({"resources": {"cpu": 0.5, "memory": 536_870_912, "pids": 100}}),
    );
    check(
        "mem_limit: 1g, cpus: 2, pids_limit: 50, shm_size: 64m, memswap_limit: 2g",
        json!({"resources": {"cpu": 2, "memory": 1_073_741_824, "memory_swap": 2_147_483_648_u64, "shm": 67_108_864, "pids": 50}}),
    );
    check(
        "mem_limit: 1g, deploy: {resources: {limits: {memory: 1024m}}}",
        json!({"resources": {"memory": 1_073_741_824}}),
    );
    check("cpus: 0.000, pids_limit: -1", json!({}));
    check(
        "ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5, core: -1}",
        json!({"ulimits": {"nofile": {"soft": 10, "hard": 20}, "nproc": {"soft": 5, "hard": 5}, "core": {"soft": -1, "hard": -1}}}),
    );
    refuses(
        "mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}",
        "services.web.mem_limit",
        "another amount",
    );
    refuses(
        "mem_limit: 1x",
        "services.web.mem_limit",
        "an amount such as",
    );
    refuses("mem_limit: 1m", "services.web.mem_limit", "6 MiB");
    refuses("cpus: 500m", "services.web.cpus", "a number of cores");
    refuses(
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "services.web.deploy.resources.reservations.devices",
        "not possible",
    );
    refuses(
        "deploy: {resources: {limit: {}}}",
        "services.web.deploy.resources.limit",
        "meant is perhaps limits",
    );
    refuses(
        "ulimits: {nofile: {soft: 10}}",
        "services.web.ulimits.nofile",
        "soft and hard",
    );
    warns(
        "deploy: {resources: {limits: {memory: 1g}, reservations: {memory: 512m}}}",
        "services.web.deploy.resources.reservations.memory",
        "the limit is reserved",
    );
    warns(
        "mem_reservation: 1g",
        "services.web.mem_reservation",
        "no effect here without a limit",
    );
    warns(
        "memswap_limit: -1",
        "services.web.memswap_limit",
        "the engine decides",
    );
}

#[test]
fn copies_restarts_and_places() {
    check("deploy: {replicas: 3}", json!({"replicas": 3}));
    check(
        "scale: 2, deploy: {replicas: 2, mode: replicated}",
        json!({"replicas": 2}),
    );
    check("restart: 'no'", json!({"restart": {"policy": "never"}}));
    check("restart: no", json!({"restart": {"policy": "never"}}));
    check("restart: unless-stopped", json!({}));
    check(
        "restart: on-failure:3",
        json!({"restart": {"policy": "on-failure", "max": 3}}),
    );
    check(
        "restart: on-failure",
        json!({"restart": {"policy": "on-failure"}}),
    );
    check(
        "restart: always, deploy: {restart_policy: {condition: none}}",
        json!({"restart": {"policy": "never"}}),
    );
    check(
        "deploy: {restart_policy: {max_attempts: 2, delay: 5s, window: 1m}}",
        json!({"restart": {"policy": "always", "max": 2}}),
    );
    check(
        "deploy: {placement: {constraints: ['node.labels.disk == ssd', node.hostname==n1]}}",
        json!({"placement": {"labels": {"disk": "ssd", "node": "n1"}}}),
    );
    refuses(
        "scale: 2, deploy: {replicas: 3}",
        "services.web.scale",
        "another number",
    );
    refuses(
        "deploy: {replicas: 0}",
        "services.web.deploy",
        "a whole number from 1",
    );
    refuses(
        "deploy: {mode: global}",
        "services.web.deploy.mode",
        "replicated",
    );
    refuses(
        "restart: sometimes",
        "services.web.restart",
        "unless-stopped",
    );
    refuses(
        "deploy: {placement: {constraints: [node.role == manager]}}",
        "services.web.deploy.placement.constraints[0]",
        "node.labels.KEY",
    );
    refuses(
        "deploy: {placement: {constraints: [node.labels.a != b]}}",
        "services.web.deploy.placement.constraints[0]",
        "node.labels.KEY",
    );
    refuses(
        "deploy: {placement: {constraints: [node.labels.a == b, node.labels.a == c]}}",
        "services.web.deploy.placement.constraints[1]",
        "b and c at once",
    );
    warns(
        "deploy: {labels: {a: b}, update_config: {parallelism: 2}}",
        "services.web.deploy.labels",
        "no effect",
    );
    warns(
        "deploy: {placement: {preferences: [{spread: node.labels.z}]}}",
        "services.web.deploy.placement.preferences",
        "strategy",
    );
    warns(
        "deploy: {restart_policy: {delay: 5s}}",
        "services.web.deploy.restart_policy.delay",
        "pauses grow",
    );
    let silent = read_with(
        &[("f", "services:\n  a: {image: i}\n")],
        &[],
        &Options::default(),
    );
    assert_eq!(silent.wishes[0].body["restart"], json!({"policy": "never"}));
    assert!(
        told(&silent)[0].contains("f:2: services.a: says no restart"),
        "{:?}",
        told(&silent)
    );
}

#[test]
fn health_checks() {
    let probe = |command: Value, times: Value| {
        let mut probe = json!({"exec": command, "start_period": "0s", "interval": "30s", "timeout": "30s", "failures": 3, "successes": 1});
        for (key, value) in times.as_object().unwrap() {
            probe[key] = value.clone();
        }
        json!({"health": {"liveness": probe, "readiness": probe, "engine": false}})
    };
    check(
        "healthcheck: {test: [CMD, a, b]}",
        probe(json!(["a", "b"]), json!({})),
    );
    check(
        "healthcheck: {test: [CMD-SHELL, a | b], interval: 5s, timeout: 500ms, retries: 7, start_period: 1m}",
        probe(
            json!(["/bin/sh", "-c", "a | b"]),
            json!({"interval": "5s", "timeout": "500ms", "failures": 7, "start_period": "60s"}),
        ),
    );
    check(
        "healthcheck: {test: 'a | b'}",
        probe(json!(["/bin/sh", "-c", "a | b"]), json!({})),
    );
    check(
        "healthcheck: {test: [NONE]}",
        json!({"health": {"engine": false}}),
    );
    check(
        "healthcheck: {disable: true}",
        json!({"health": {"engine": false}}),
    );
    refuses(
        "healthcheck: {interval: 5s}",
        "services.web.healthcheck",
        "without a test",
    );
    refuses(
        "healthcheck: {test: [a]}",
        "services.web.healthcheck.test",
        "[CMD, ...]",
    );
    refuses(
        "healthcheck: {test: a, interval: 1us}",
        "services.web.healthcheck",
        "at least 100ms",
    );
    refuses(
        "healthcheck: {tst: a, test: a}",
        "services.web.healthcheck.tst",
        "meant is perhaps test",
    );
    warns(
        "healthcheck: {test: a, start_interval: 1s}",
        "services.web.healthcheck.start_interval",
        "no effect",
    );
}

#[test]
fn walls_and_their_doors() {
    check(
        "cap_add: [NET_ADMIN], cap_drop: [ALL], read_only: true",
        json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "read_only": true}),
    );
    check(
        "privileged: true, ipc: private",
        json!({"privileged": true}),
    );
    check(
        "devices: ['/dev/fuse', '/dev/a:/dev/b:r', {source: /dev/c, target: /dev/d}]",
        json!({"devices": [{"host": "/dev/fuse"}, {"host": "/dev/a", "container": "/dev/b", "permissions": "r"}, {"host": "/dev/c", "container": "/dev/d"}]}),
    );
    refuses(
        "devices: [vendor.com/gpu=1]",
        "services.web.devices[0]",
        "CDI",
    );
    refuses("pid: host", "services.web.pid", "namespaces of its own");
    refuses(
        "security_opt: ['no-new-privileges:true']",
        "services.web.security_opt",
        "not possible",
    );
    refuses(
        "privileged: perhaps",
        "services.web.privileged",
        "true or false",
    );
}

#[test]
fn networks_and_names() {
    let top =
        "networks:\n  front:\n  back: {internal: true}\n  shared: {external: true, name: lan}\n";
    let warns =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Warning, field, part);
    let refuses =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Refused, field, part);
    check("network_mode: host", json!({"network": "host"}));
    check(
        "network_mode: none, dns: 1.1.1.1",
        json!({"network": "none", "dns": ["1.1.1.1"]}),
    );
    check("networks: [default]", json!({}));
    check(
        "dns: [1.1.1.1, '::1'], extra_hosts: ['a:1.2.3.4', 'b=[::1]', c=host-gateway]",
        json!({"dns": ["1.1.1.1", "::1"], "extra_hosts": {"a": "1.2.3.4", "b": "::1", "c": "host-gateway"}}),
    );
    check_with(top, "networks: [shared]", json!({"network": "lan"}));
    check_with(
        "networks: {default: {external: true, name: lan}}",
        "init: false",
        json!({"network": "lan"}),
    );
    check_with(top, "networks: {front: {aliases: [x]}}", json!({}));
    warns("networks: [front]", "networks.front", "not kept apart");
    warns(
        "networks: {front: {aliases: [x]}}",
        "services.web.networks.front.aliases",
        "no effect",
    );
    refuses(
        "networks: [back]",
        "services.web.networks",
        "open to the outside",
    );
    refuses(
        "networks: [front, shared]",
        "services.web.networks",
        "one network",
    );
    refuses(
        "networks: [gone]",
        "services.web.networks.gone",
        "no network gone",
    );
    refuses(
        "networks: {front: {ipv4_address: 10.0.0.1}}",
        "services.web.networks.front.ipv4_address",
        "cannot be chosen",
    );
    refuses(
        "network_mode: 'service:db'",
        "services.web.network_mode",
        "bridge, none and host",
    );
    refuses(
        "network_mode: host, networks: [front]",
        "services.web.network_mode",
        "exclude each other",
    );
    refuses(
        "extra_hosts: {a: nowhere}",
        "services.web.extra_hosts",
        "an IP address",
    );
    let reading = service("networks: [front, back]", top);
    assert_eq!(
        reading.level(),
        Some(Level::Warning),
        "{:?}",
        told(&reading)
    );
}

#[test]
fn names_become_dns_labels() {
    let text = "services:\n  my_app.Web: {image: i, restart: always}\n";
    let reading = read_with(&[("f", text)], &[], &Options::default());
    assert_eq!(reading.wishes[0].key.name, "my-app-web");
    assert_eq!(
        told(&reading),
        ["warning f:2: services.my_app.Web: is called my-app-web here: names are DNS labels"]
    );
    let text = "services:\n  a_b: {image: i, restart: always}\n  a-b: {image: i, restart: always}\n  _: {image: i}\n";
    let told = told(&read_with(&[("f", text)], &[], &Options::default()));
    assert!(
        told.iter()
            .any(|line| line.contains("f:3: services.a-b: would be named a-b, as a_b is")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.contains("f:4: services._: a service is named by")),
        "{told:?}"
    );
}

#[test]
fn parts_that_ask_for_nothing_are_not_told() {
    let reading = service(
        "tty: false, stdin_open: false, logging: {}, hostname: '', sysctls: [], gpus: ",
        "",
    );
    assert_eq!(told(&reading), Vec::<String>::new());
}

/// Every key of a service in the schema of the Compose Specification is translated or named.
#[test]
fn no_key_of_the_specification_is_dropped() {
    const KEYS: &str = "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent \
        command configs container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period \
        cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on deploy develop \
        device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment \
        expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc \
        isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness \
        memswap_limit models network_mode networks oom_kill_disable oom_score_adj pid pids_limit \
        platform ports post_start pre_stop privileged profiles provider pull_policy pull_refresh_after \
        read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period \
        stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes \
        volumes_from working_dir";
    for key in KEYS.split_whitespace() {
        // A value that no key allows: whoever reads the key has to say something about it, and
        // whatever is said must not be that there is no such key.
        let text = format!("services:\n  web: {{x-image: i, {key}: {{x: [{{}}]}}}}\n");
        let reading = read_with(&[("f", &text)], &[], &Options::default());
        let field = format!("services.web.{key}");
        let about: Vec<_> = reading
            .notes
            .iter()
            .filter(|note| note.field.starts_with(&field))
            .collect();
        assert!(!about.is_empty(), "{key}: {:?}", told(&reading));
        for note in about {
            let unknown = note.field == field && note.text.contains("no such key");
            assert!(!unknown, "{note}");
        }
    }
}

/// Reads the large file with all profiles, as JSON of all that comes of it.
fn large(text: &str) -> (Value, Reading) {
    let others = [
        ("/app/.env", "TAG=2026.11\nDB_PASSWORD='p$w'\n"),
        ("/app/common.env", "TZ=UTC\nLOG_LEVEL=warn\n"),
        ("/app/common.yaml", include_str!("large/common.yaml")),
        ("/app/secrets/db_password", "s3cret\n"),
        ("/app/secrets/cert.pem", "-----BEGIN-----\n"),
    ];
    let mut options = Options {
        profiles: vec!["*".to_owned()],
        ..Options::default()
    };
    options
        .environment
        .insert("SESSION_KEY".to_owned(), "k3y".to_owned());
    let reading = read_with(&[("compose.yaml", text)], &others, &options);
    let wish = |wish: &super::super::Wish| {
        let after = |after: &super::super::After| format!("{} {}", after.key.name, after.condition);
        let after: Vec<String> = wish.after.iter().map(after).collect();
        json!({"after": after, "body": wish.body})
    };
    let wishes: Vec<Value> = reading.wishes.iter().map(wish).collect();
    (json!({"wishes": wishes, "notes": told(&reading)}), reading)
}

#[test]
fn a_large_file_becomes_what_it_says() {
    let (read, _) = large(include_str!("large/compose.yaml"));
    let expected: Value = serde_json::from_str(include_str!("large/expected.json")).unwrap();
    let shown = serde_json::to_string_pretty(&read).unwrap();
    assert_eq!(read, expected, "{shown}");
}

/// The same file gives the same wishes in the same order, whatever order its keys have and
/// whether it is YAML or JSON.
#[test]
fn the_same_file_gives_the_same_wishes() {
    let text = include_str!("large/compose.yaml");
    let (first, reading) = large(text);
    for _ in 0..10 {
        assert_eq!(large(text).0, first);
    }
    let nodes = super::super::yaml::documents(&"f".into(), text).unwrap();
    // JSON's keys are sorted here.
    let (_, sorted) = large(&nodes[0].to_json().to_string());
    let mut bodies: Vec<&Value> = reading.wishes.iter().map(|wish| &wish.body).collect();
    let mut others: Vec<&Value> = sorted.wishes.iter().map(|wish| &wish.body).collect();
    bodies.sort_by_key(|body| body["name"].to_string());
    others.sort_by_key(|body| body["name"].to_string());
    assert_eq!(bodies, others);
    for reading in [&reading, &sorted] {
        for (index, wish) in reading.wishes.iter().enumerate() {
            for after in &wish.after {
                let before = reading
                    .wishes
                    .iter()
                    .position(|other| other.key == after.key);
                assert!(
                    before.is_some_and(|before| before < index),
                    "{} after {}",
                    wish.key,
                    after.key
                );
            }
        }
    }
}
