//! Tables: what is said of a service, and what becomes of it.

mod large;
mod network;
mod placing;
mod storage;

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
