//! Files of all kinds, read together.

use std::io::{Error, ErrorKind};

use serde_json::json;

use super::*;

/// Files by path.
pub(super) type Files<'a> = &'a [(&'a str, &'a str)];

/// Reads the sources as if they lay in `/app`, beside the other files.
pub(super) fn read_with(sources: Files, others: Files, options: &Options) -> Reading {
    let source = |(name, text): &(&str, &str)| Source {
        name: (*name).to_owned(),
        folder: PathBuf::from("/app"),
        text: (*text).to_owned(),
    };
    let sources: Vec<Source> = sources.iter().map(source).collect();
    let reader = |path: &Path| {
        let found = others.iter().find(|(name, _)| Path::new(name) == path);
        let found = found.map(|(_, text)| text.as_bytes().to_vec());
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "it is not there"))
    };
    read(&sources, options, &reader)
}

/// What the notes say, a line each.
pub(super) fn told(reading: &Reading) -> Vec<String> {
    let told = |note: &Note| {
        let level = match note.level {
            Level::Warning => "warning",
            Level::Refused => "refused",
            Level::Unreadable => "unreadable",
        };
        format!("{level} {note}")
    };
    reading.notes.iter().map(told).collect()
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

fn names(reading: &Reading) -> Vec<String> {
    reading
        .wishes
        .iter()
        .map(|wish| wish.key.to_string())
        .collect()
}

#[test]
fn a_service_file_is_the_body_of_a_request() {
    let text = "name: web\nimage: nginx\nreplicas: 2\nports: [80, '8080:81']\nenv: {A: b}\n---\n{\"name\": \"db\", \"namespace\": \"shop\", \"image\": \"redis\"}\n";
    let reading = read_with(&[("a.yaml", text)], &[], &Options::default());
    assert_eq!(told(&reading), Vec::<String>::new());
    assert_eq!(names(&reading), ["default/web", "shop/db"]);
    assert_eq!(
        reading.wishes[0].body,
        json!({"name": "web", "image": "nginx", "replicas": 2, "ports": [80, "8080:81"], "env": {"A": "b"}})
    );
    assert_eq!(reading.wishes[1].place.to_string(), "a.yaml:7");
    assert_eq!(reading.project, None);
}

#[test]
fn every_wrong_field_of_every_document_is_told_with_its_line() {
    let one = "name: web\nimage: nginx\nreplcas: 2\nports:\n  - 80\n  - 99999\nenv:\n  A: 1\nhealth:\n  liveness:\n    exec: [true]\n";
    let two = "name: Web\nimage: no image\n---\nimage: x\n---\n- list\n";
    let reading = read_with(
        &[("1.yaml", one), ("2.yaml", two)],
        &[],
        &Options::default(),
    );
    let told = told(&reading);
    let lines: Vec<&str> = told
        .iter()
        .map(|line| line.split(" is given").next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "refused 1.yaml:3: replcas: \"replcas\"",
            "refused 1.yaml:6: ports[1]: \"99999\"",
            "refused 1.yaml:8: env.A: \"1\"",
            "refused 1.yaml:11: health.liveness.exec[0]: \"true\"",
            "refused 2.yaml:1: name: \"Web\"",
            "refused 2.yaml:2: image: \"no image\"",
            "refused 2.yaml:4: name: \"nothing\"",
            "refused 2.yaml:6: a mapping is needed: a service file has name and image, a compose file has services (document 3)",
        ]
    );
    assert!(told[6].ends_with("(document 2)"), "{}", told[6]);
}

#[test]
fn namespace_and_project_are_added_to_service_files() {
    let both = options(|options| {
        options.namespace = Some("shop".to_owned());
        options.project = Some("p".to_owned());
    });
    let text = "name: a\nimage: i\n---\nname: b\nimage: i\nnamespace: shop\nlabels: {x: y, project: p}\n---\nname: c\nimage: i\nnamespace: other\nlabels:\n  project: q\n";
    let reading = read_with(&[("f", text)], &[], &both);
    assert_eq!(names(&reading), ["shop/a", "shop/b", "other/c"]);
    assert_eq!(reading.wishes[0].body["labels"], json!({"project": "p"}));
    assert_eq!(
        reading.wishes[1].body["labels"],
        json!({"project": "p", "x": "y"})
    );
    assert_eq!(
        told(&reading),
        [
            "refused f:11: namespace: \"other\" is given, --namespace says \"shop\": leave one out (document 3)",
            "refused f:13: labels.project: \"q\" is given, --project says \"p\": leave one out (document 3)",
        ]
    );
}

#[test]
fn a_service_stands_once() {
    let files = [
        ("1", "name: a\nimage: i\n"),
        ("2", "services:\n  a: {image: i, restart: always}\n"),
    ];
    let reading = read_with(&files, &[], &Options::default());
    assert_eq!(
        told(&reading),
        ["refused 2:2: the service default/a stands at 1:1 too"]
    );
}

#[test]
fn compose_files_are_one_project_and_later_ones_override() {
    let base = "services:\n  web: {image: nginx, restart: always, environment: [A=1]}\n";
    let over = "name: shop\nservices:\n  web:\n    image: nginx:2\n    environment: {B: 2}\n";
    let reading = read_with(&[("1", base), ("2", over)], &[], &Options::default());
    assert_eq!(told(&reading), Vec::<String>::new());
    assert_eq!(
        reading.wishes[0].body,
        json!({
            "name": "web", "namespace": "default", "image": "nginx:2",
            "env": {"A": "1", "B": "2"}, "labels": {"project": "shop"},
        })
    );
    assert_eq!(reading.project.as_deref(), Some("shop"));
}

#[test]
fn the_project_is_named_by_the_nearest_word() {
    let file = "name: infile\nservices: {}\n";
    let variable = Some(("COMPOSE_PROJECT_NAME".to_owned(), "invar".to_owned()));
    for (project, variable, text, expected) in [
        (Some("said"), variable.clone(), file, "said"),
        (None, variable, file, "invar"),
        (None, None, file, "infile"),
        (None, None, "services: {}\n", "app"),
        (None, None, "name: ${N:-by}-hand\nservices: {}\n", "by-hand"),
    ] {
        let options = options(|options| {
            options.project = project.map(ToOwned::to_owned);
            options.environment = variable.into_iter().collect();
        });
        let reading = read_with(&[("f", text)], &[], &options);
        assert_eq!(
            reading.project.as_deref(),
            Some(expected),
            "{:?}",
            told(&reading)
        );
    }
    let reading = read_with(
        &[("f", "name: Not OK\nservices: {}\n")],
        &[],
        &Options::default(),
    );
    assert_eq!(
        reading.level(),
        Some(Level::Unreadable),
        "{:?}",
        told(&reading)
    );
}

#[test]
fn variables_come_from_the_process_and_then_from_dotenv() {
    let text = "services:\n  web:\n    image: ${IMAGE}:${TAG:-latest}\n    restart: always\n    user: \"${NOBODY}\"\n    command: echo $$HOME\n    environment:\n      FROM_ENV:\n      FROM_FILE:\n      UNSET:\n";
    let dotenv = "IMAGE=file\nTAG=1.2\nFROM_FILE=f\nFROM_ENV=f\n";
    let with = options(|options| {
        options.environment = [
            ("IMAGE".to_owned(), "env".to_owned()),
            ("FROM_ENV".to_owned(), "e".to_owned()),
        ]
        .into();
    });
    let reading = read_with(&[("f", text)], &[("/app/.env", dotenv)], &with);
    let body = &reading.wishes[0].body;
    assert_eq!(body["image"], "env:1.2");
    assert_eq!(body["env"], json!({"FROM_ENV": "e", "FROM_FILE": "f"}));
    assert_eq!(body["args"], json!(["echo", "$HOME"]));
    assert_eq!(body["user"], json!(null));
    assert_eq!(
        told(&reading),
        [
            "warning f:5: services.web.user: the variable NOBODY has no value, nothing takes its place"
        ]
    );
    let other = options(|options| options.env_files = vec!["/o/1.env".into(), "/o/2.env".into()]);
    let others = [
        ("/app/.env", dotenv),
        ("/o/1.env", "IMAGE=one\nTAG=1"),
        ("/o/2.env", "IMAGE=two$TAG"),
    ];
    let reading = read_with(&[("f", text)], &others, &other);
    assert_eq!(reading.wishes[0].body["image"], "two1:1");
    let missing = options(|options| options.env_files = vec!["/o/3.env".into()]);
    let reading = read_with(&[("f", text)], &others, &missing);
    assert!(
        told(&reading)[0].contains("cannot be read: it is not there"),
        "{:?}",
        told(&reading)
    );
}

#[test]
fn services_of_profiles_are_left_out_until_theirs_is_on() {
    let text = "services:\n  a: {image: i, restart: always}\n  b: {image: i, restart: always, profiles: [debug, test]}\n  c: {image: i, restart: always, profiles: [other], depends_on: [b]}\n";
    let with = |profiles: &[&str], variable: &str| {
        let options = options(|options| {
            options.profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
            options.environment = [("COMPOSE_PROFILES".to_owned(), variable.to_owned())].into();
        });
        read_with(&[("f", text)], &[], &options)
    };
    assert_eq!(names(&with(&[], "")), ["default/a"]);
    let off = with(&[], "").off;
    assert_eq!(
        off.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(),
        ["b", "c"]
    );
    assert_eq!(names(&with(&["test"], "")), ["default/a", "default/b"]);
    assert_eq!(names(&with(&[], "x, debug")), ["default/a", "default/b"]);
    assert_eq!(
        names(&with(&["*"], "")),
        ["default/a", "default/b", "default/c"]
    );
    let told = told(&with(&["other"], ""));
    assert!(
        told.iter().any(|line| line.contains(
            "f:4: services.c.depends_on.b: there is no service b, or its profile is off"
        )),
        "{told:?}"
    );
}

#[test]
fn services_stand_after_those_they_wait_for() {
    let text = "services:\n  web: {image: i, restart: always, depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}, cache: {condition: service_started, required: false}, gone: {condition: service_started, required: false}}}\n  cache: {image: i, restart: always}\n  init: {image: i, restart: 'no', depends_on: [db]}\n  db: {image: i, restart: always}\n  side: {image: i, restart: always, links: ['web:w']}\n";
    let reading = read_with(&[("f", text)], &[], &Options::default());
    assert_eq!(
        names(&reading),
        [
            "default/cache",
            "default/db",
            "default/init",
            "default/web",
            "default/side"
        ]
    );
    let after: Vec<(String, Condition, bool)> = reading.wishes[3]
        .after
        .iter()
        .map(|after| (after.key.name.clone(), after.condition, after.required))
        .collect();
    assert_eq!(
        after,
        [
            ("db".to_owned(), Condition::Healthy, true),
            ("init".to_owned(), Condition::Completed, true),
            ("cache".to_owned(), Condition::Started, false),
        ]
    );
    assert_eq!(reading.wishes[4].after[0].key.name, "web");
    let circle = "services:\n  a: {image: i, restart: always, depends_on: [b]}\n  b: {image: i, restart: always, depends_on: [c]}\n  c: {image: i, restart: always, depends_on: [b]}\n";
    let reading = read_with(&[("f", circle)], &[], &Options::default());
    assert!(
        told(&reading)
            .iter()
            .any(|line| line.contains("services: b, c wait for one another in a circle")),
        "{:?}",
        told(&reading)
    );
}

#[test]
fn services_extend_others_of_this_file_and_of_another() {
    let main = "services:\n  web:\n    extends: {file: common/base.yaml, service: app}\n    environment: {B: main}\n  worker:\n    extends: web\n    command: work\n";
    let base = "services:\n  app:\n    extends: root\n    image: app:${TAG:-1}\n    env_file: app.env\n    volumes: ['./data:/data']\n  root:\n    restart: always\n    environment: {A: root, B: root}\n";
    let others = [
        ("/app/common/base.yaml", base),
        ("/app/common/app.env", "A=file\nC=file\n"),
    ];
    let reading = read_with(&[("f", main)], &others, &Options::default());
    let refused: Vec<String> = told(&reading)
        .into_iter()
        .filter(|line| line.starts_with("refused"))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
    let worker = &reading.wishes[1].body;
    assert_eq!(worker["image"], "app:1");
    assert_eq!(
        worker["env"],
        json!({"A": "root", "B": "main", "C": "file"})
    );
    assert_eq!(worker["args"], json!(["work"]));
    assert_eq!(worker["mounts"][0]["source"], "/app/common/data");
    for (extends, part) in [
        ("b", "extend one another in a circle"),
        ("nobody", "there is no service nobody in this file"),
        ("{file: x.yaml, service: b}", "x.yaml cannot be read"),
        ("{file: x.yaml}", "the key service is needed"),
    ] {
        let text =
            format!("services:\n  a: {{image: i, extends: {extends}}}\n  b: {{extends: a}}\n");
        let told = told(&read_with(&[("f", &text)], &[], &Options::default()));
        assert!(
            told.iter()
                .any(|line| line.contains("f:2: services.a.extends") && line.contains(part)),
            "{extends}: {told:?}"
        );
    }
}

#[test]
fn what_stands_at_the_top_and_is_not_known_is_told() {
    let text = "version: '3'\nx-more: ${UNSET}\nservces: {}\ninclude: [other.yaml]\nservices:\n  a: {image: i, restart: always, x-own: 1}\n";
    let reading = read_with(&[("f", text)], &[], &Options::default());
    assert_eq!(
        told(&reading),
        [
            "warning f:1: version: has no meaning any more: it can be left out",
            "refused f:3: servces: there is no such key, meant is perhaps services",
            "refused f:4: include: is not followed here: name the other file with -f of its own",
        ]
    );
}

#[test]
fn what_is_no_yaml_leaves_the_other_files_readable() {
    let files = [("1", "a: [\n"), ("2", "name: a\nimage: i\n")];
    let reading = read_with(&files, &[], &Options::default());
    assert_eq!(reading.level(), Some(Level::Unreadable));
    assert_eq!(names(&reading), ["default/a"]);
}

#[test]
fn the_example_can_be_applied() {
    let text = include_str!("../../examples/shop/compose.yaml");
    let dotenv = include_str!("../../examples/shop/.env");
    let reading = read_with(
        &[("shop", text)],
        &[("/app/.env", dotenv)],
        &Options::default(),
    );
    assert_eq!(
        names(&reading),
        ["default/redis", "default/worker", "default/web"]
    );
    let told = told(&reading);
    assert!(
        told.iter().all(|line| line.starts_with("warning")),
        "{told:?}"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Whatever a file holds, reading it ends, and says so where something is wrong.
    #[test]
    fn no_file_makes_reading_fail(at in 0.0..1.0, length in 0_usize..40, more in "[-:{}\\[\\]$&*!|>'\"#%@`,?a-z0-9 \\t\\n]{0,20}") {
        let text = include_str!("compose/large/compose.yaml");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "within the text")]
        let at = (at * text.len() as f64) as usize;
        let end = (at + length).min(text.len());
        let text = format!("{}{more}{}", &text[..at], &text[end..]);
        let reading = read_with(&[("f", &text)], &[("/app/.env", &text)], &Options::default());
        for wish in reading.wishes {
            assert!(wish.body.is_object(), "{wish:?}");
        }
    }
}

const SERVICE_FILE: &str = "name: web\nimage: nginx\nreplicas: 2\nports: [80, '8080:81']\nenv: {A: b}\n---\n{\"name\": \"db\", \"image\": \"redis\"}\n";
const COMPOSE_FILE: &str = "name: shop\nx-base: &base\n  image: nginx:${TAG:-1}\n  restart: always\nservices:\n  web:\n    <<: *base\n    ports: ['8080:80', '53:53/udp']\n    environment:\n      - A=b\n      - C=${D:?needed}\n    env_file: [a.env]\n    depends_on: {db: {condition: service_healthy}}\n    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64m}}}\n    healthcheck: {test: [CMD, 'true'], interval: 10s}\n    volumes: ['data:/data', './x:/x:ro', {type: tmpfs, target: /t, tmpfs: {size: 1m}}]\n  db:\n    extends: web\n    command: redis-server --port 1\n    ulimits: {nofile: {soft: 1, hard: 2}}\nvolumes: {data: {}}\n";
const ENV_FILE: &str = "# comment\nA=b\nexport B='c d'\nC=\"${A}\\n$$x\"\nD=${A:-x}${B:+y}\nE\n";

/// What a file made, as far as it can be applied, is a sound wish.
fn are_sound(reading: &Reading) {
    if reading.level().is_some_and(|level| level > Level::Warning) {
        return;
    }
    for wish in &reading.wishes {
        let spec: crate::model::ServiceSpec = serde_json::from_value(wish.body.clone())
            .unwrap_or_else(|error| panic!("{error}: {}", wish.body));
        if spec.violations(u32::MAX).is_empty() {
            crate::fuzz::targets::reads_back(&spec);
        }
    }
}

fn quickly(read: impl FnOnce()) {
    let began = std::time::Instant::now();
    read();
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

#[test]
fn fuzz_files() {
    let env = [("/app/a.env", ENV_FILE)];
    crate::fuzz::text("files", &[SERVICE_FILE, COMPOSE_FILE], |text| {
        quickly(|| {
            are_sound(&read_with(
                &[("compose.yaml", text)],
                &env,
                &Options::default(),
            ))
        });
    });
}

#[test]
fn fuzz_env_files() {
    let none = Variables::new();
    crate::fuzz::text("env files", &[ENV_FILE], |text| {
        let file: Arc<str> = "a.env".into();
        for lines in [
            dotenv::parse(&file, text, &none),
            dotenv::parse_raw(&file, text),
        ] {
            for (name, _) in lines.unwrap_or_default() {
                assert!(
                    !name.is_empty() && !name.contains(['=', '\n', '\0']),
                    "{name:?}"
                );
            }
        }
    });
}

#[test]
fn fuzz_variables() {
    let known: Variables = [("A", "b"), ("B", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let seeds = ["${A:-x}$$ $A", "${B:+${A}}", "${C?needed}", "a$"];
    crate::fuzz::text("variables", &seeds, |text| {
        if let Ok(filled) = variables::fill(text, &known)
            && !text.contains('$')
        {
            assert_eq!(filled.text, text);
        }
    });
}
