//! Loading as a whole: order of sources, refusals, and the example file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use super::*;

const NONE: [(&str, &str); 0] = [];

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The message for a file and variables that are wrong, without its first line.
fn problems<const N: usize>(text: &str, variables: [(&str, &str); N]) -> Vec<String> {
    let file = file(text);
    let errors = Settings::load_from(Some(file.path()), variables).unwrap_err();
    let path = file.path().display().to_string();
    let shown = errors.to_string().replace(&path, "FILE");
    shown
        .lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn nothing_given_is_the_defaults() {
    let settings = Settings::load_from(None, NONE).unwrap();
    let defaults = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(serde_json::to_value(settings).unwrap(), defaults);
}

#[test]
fn environment_goes_before_the_file_and_the_file_before_the_defaults() {
    let file = file("[redis]\npool_size = 3\nmaster = \"m\"\n[heartbeat]\nlease = \"1min\"");
    let variables = [
        ("KUBELEET_REDIS__POOL_SIZE", "4"),
        ("KUBELEET_REDIS__SENTINELS", "a:1, redis://u:p@b:2,c:3"),
        ("KUBELEET_NODE__NAME", "007"),
        ("KUBELEET_NODE__CPU", "1.5"),
        ("KUBELEET_SCHEDULER__WEIGHTS__PRESSURE_IO", "0"),
        ("KUBELEET_REDIS__DURABILITY", "one"),
        ("PATH", "/bin"),
        ("KUBELEETX", "not ours"),
    ];
    let settings = Settings::load_from(Some(file.path()), variables).unwrap();
    assert_eq!(settings.redis.pool_size, 4);
    assert_eq!(settings.redis.master, "m");
    assert_eq!(settings.heartbeat.lease, Duration::from_secs(60));
    assert_eq!(settings.node.name, "007");
    assert!((settings.node.cpu - 1.5).abs() < f64::EPSILON);
    assert!(settings.scheduler.weights.pressure_io.abs() < f64::EPSILON);
    assert_eq!(settings.redis.durability, Some(Durability::One));
    let sentinels = ["a:1", "redis://u:p@b:2", "c:3"].map(Secret::from);
    assert_eq!(settings.redis.sentinels, sentinels);
}

#[test]
fn devices_are_tables_or_texts_with_their_paths() {
    let text = "[[agent.devices]]\nkind = \"gpu\"\nid = \"0\"\npaths = [\"/dev/a\"]\nenv = { NAME = \"Value\" }";
    let settings = Settings::load_from(Some(file(text).path()), NONE).unwrap();
    let device = &settings.agent.devices[0];
    assert_eq!(
        (device.name().as_str(), &device.paths[..]),
        ("gpu/0", &["/dev/a".to_owned()][..])
    );
    assert_eq!(device.env["NAME"], "Value");
    let variable = ("KUBELEET_AGENT__DEVICES", "gpu/0:/dev/a:/dev/b, fpga/x");
    let settings = Settings::load_from(None, [variable]).unwrap();
    let names: Vec<String> = settings
        .agent
        .devices
        .iter()
        .map(DeviceSettings::name)
        .collect();
    assert_eq!(names, ["gpu/0", "fpga/x"]);
    assert_eq!(settings.agent.devices[0].paths, ["/dev/a", "/dev/b"]);
    for bad in [
        "gpu",
        "gpu/0:a",
        "GPU/0",
        "gpu/0:/a,gpu/0:/b",
        "disk/0",
        "gpu/a b",
    ] {
        let shown = problems("", [("KUBELEET_AGENT__DEVICES", bad)]);
        assert!(shown[0].starts_with("agent.devices: "), "{bad}: {shown:?}");
    }
    let shown = problems(
        "agent.overcommit.cpu = 0.0\nnode.disk = \"x\"\nnode.pids = 4194305",
        NONE,
    );
    assert_eq!(shown.len(), 3, "{shown:?}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_named() {
    let text = "key_prefx = \"\"\n[redis]\nurll = \"\"\n[redis.url]\nhost = \"h\"\n";
    assert_eq!(
        problems(
            "key_prefx = \"\"\n[redis]\nurll = \"\"\n[scheduler.weight]\npods = 1\n[lock]\na = 1",
            [
                ("KUBELEET_REDIS_URL", "redis://h"),
                ("KUBELEET_NODE__NAM", "x"),
                ("kubeleet_node__name", "x"),
            ]
        ),
        [
            "key_prefx: no such setting, the nearest is key_prefix (in FILE)",
            "lock: no such setting, the nearest is log (in FILE)",
            "redis.urll: no such setting, the nearest is redis.url (in FILE)",
            "scheduler.weight: no such setting, the nearest is scheduler.weights (in FILE)",
            "KUBELEET_NODE__NAM: no such setting, the nearest is KUBELEET_NODE__NAME (in the environment)",
            "KUBELEET_REDIS_URL: no such setting, the nearest is KUBELEET_REDIS__URL (in the environment)",
            "kubeleet_node__name: no such setting, the nearest is KUBELEET_NODE__NAME (in the environment)",
        ]
    );
    assert!(!problems(text, NONE).is_empty());
}

#[test]
fn all_bad_values_are_shown_with_what_is_allowed() {
    let shown = problems(
        r#"
        redis.url = "http://user:hidden@h"
        redis.pool_size = 1.7
        redis.durability = "two"
        heartbeat.interval = "10s"
        heartbeat.lease = "20s"
        scheduler.batch = 1001
        scheduler.claim_lease = 5
        scheduler.weights.cpu = -1
        node.name = "a b"
        node.memory = "1"
        api.listen = "localhost"
        simulated.failure_rate = nan
        agent = 5
        "#,
        [
            ("KUBELEET_API__REPLICAS_MAX", "on"),
            ("KUBELEET_REDIS__SENTINELS", "a:1,user:hidden@b"),
        ],
    );
    for part in [
        "agent: \"5\" is given, allowed is a table: [agent] (in FILE)",
        "redis.url: \"http://***@h\" is given, allowed is redis://",
        "redis.pool_size: \"1.7\" is given, allowed is a whole number, 1 to 1000 (in FILE)",
        "redis.durability: \"two\" is given, allowed is auto, none, one or all (in FILE)",
        "heartbeat.lease: \"20s\" is given, allowed is a duration such as `20s`, at most 1day, more than twice",
        "scheduler.batch: \"1001\" is given, allowed is a whole number, 1 to 1000",
        "scheduler.claim_lease: \"5\" is given, allowed is a duration such as `5s`",
        "scheduler.weights.cpu: \"-1\" is given",
        "node.name: \"a b\" is given",
        "node.memory: \"1\" is given",
        "api.listen: \"localhost\" is given",
        "simulated.failure_rate: \"NaN\" is given, allowed is a share, 0 to 1",
        "api.replicas_max: \"on\" is given, allowed is a whole number, 1 to 1000000 (in the environment, KUBELEET_API__REPLICAS_MAX)",
        "redis.sentinels: \"***@b\" is given",
    ] {
        assert!(
            shown.iter().any(|line| line.starts_with(part)),
            "{part}\n{shown:#?}"
        );
    }
    assert_eq!(shown.len(), 14, "{shown:#?}");
    assert!(!shown.concat().contains("hidden"), "{shown:#?}");
}

#[test]
fn a_missing_or_broken_file_is_told_with_its_path() {
    let errors = Settings::load_from(Some(Path::new("/nowhere/k.toml")), NONE).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("/nowhere/k.toml: cannot be read"),
        "{errors}"
    );
    assert!(problems("a = = 1", NONE)[0].starts_with("FILE: is not TOML"));
}

#[test]
fn example_file_shows_every_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubeleet.toml");
    let settings = Settings::load_from(Some(&path), NONE).unwrap();
    let defaults = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(serde_json::to_value(settings).unwrap(), defaults);

    let mut problems = Vec::new();
    let listed: BTreeMap<_, _> = sources::read(Some(&path), NONE, &mut problems);
    let listed: Vec<_> = listed.into_keys().collect();
    assert_eq!(listed, sources::defaults().into_keys().collect::<Vec<_>>());
}

#[test]
fn node_name_falls_back_to_the_host() {
    let mut settings = Settings::default();
    let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap();
    assert_eq!(settings.node_name().unwrap(), host.trim());
    settings.node.name = "worker1".to_owned();
    assert_eq!(settings.node_name().unwrap(), "worker1");
}

#[test]
fn rights_and_logins_are_read_from_the_file_and_from_variables() {
    let file = file(
        "[[agent.registries]]\nhost = \"r.example:5000\"\nusername = \"u\"\npassword = \"p@:\"\n\
         [agent.allow]\nprivileged = true\nbinds = [\"/srv\"]\ndevices = [\"/dev/fuse\"]",
    );
    let settings = Settings::load_from(Some(file.path()), NONE).unwrap();
    let login = |host: &str, username: &str, password: &str| RegistrySettings {
        host: host.to_owned(),
        username: username.to_owned(),
        password: Secret::from(password),
    };
    assert_eq!(
        settings.agent.registries,
        [login("r.example:5000", "u", "p@:")]
    );
    let allow = &settings.agent.allow;
    assert!(allow.privileged && !allow.host_network);
    assert_eq!(
        (allow.binds.as_slice(), allow.devices.as_slice()),
        (
            ["/srv".to_owned()].as_slice(),
            ["/dev/fuse".to_owned()].as_slice()
        )
    );

    let variables = [
        (
            "KUBELEET_AGENT__REGISTRIES",
            "u:a@b:c@docker.io, v:@localhost:1",
        ),
        ("KUBELEET_AGENT__ALLOW__PRIVILEGED", "false"),
        ("KUBELEET_AGENT__ALLOW__HOST_NETWORK", "true"),
        ("KUBELEET_AGENT__ALLOW__CAPABILITIES", "NET_ADMIN,SYS_TIME"),
    ];
    let settings = Settings::load_from(Some(file.path()), variables).unwrap();
    let expected = [
        login("docker.io", "u", "a@b:c"),
        login("localhost:1", "v", ""),
    ];
    assert_eq!(settings.agent.registries, expected);
    let allow = &settings.agent.allow;
    assert!(!allow.privileged && allow.host_network);
    assert_eq!(allow.capabilities, ["NET_ADMIN", "SYS_TIME"]);
}

#[test]
fn wrong_rights_and_logins_are_told_without_passwords() {
    let shown = problems(
        r#"
        agent.image_disk_low = 0.9
        agent.registries = [{ host = "h", username = "u", password = "hidden", port = 1 }]
        agent.allow.privileged = 1
        agent.allow.binds = ["/srv/../etc"]
        agent.allow.devices = ["fuse"]
        "#,
        [("KUBELEET_AGENT__ALLOW__HOST_NETWORK", "yes")],
    );
    for part in [
        "agent.image_disk_low: \"0.9\" is given, allowed is a share, 0 to 1, less than",
        "agent.registries: \"***\" is given, allowed is a list of { host",
        "agent.allow.privileged: \"1\" is given, allowed is true or false (in FILE)",
        "agent.allow.host_network: \"yes\" is given, allowed is true or false",
        "agent.allow.binds: \"/srv/../etc\" is given",
        "agent.allow.devices: \"fuse\" is given",
    ] {
        assert!(
            shown.iter().any(|line| line.starts_with(part)),
            "{part}\n{shown:#?}"
        );
    }
    assert_eq!(shown.len(), 6, "{shown:#?}");
    for (login, expected) in [
        (
            "u:hidden@UPPER CASE",
            "agent.registries: \"UPPER CASE\" is given",
        ),
        (
            "u:hidden@a:1,v:hidden@a:1",
            "agent.registries: \"a:1\" is given",
        ),
        ("hidden", "agent.registries: \"***\" is given"),
    ] {
        let shown = problems("", [("KUBELEET_AGENT__REGISTRIES", login)]);
        assert!(shown[0].starts_with(expected), "{shown:#?}");
        assert!(!shown.concat().contains("hidden"), "{shown:#?}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let mut settings = Settings::default();
    settings.agent.registries = vec![RegistrySettings {
        host: "h".to_owned(),
        username: "u".to_owned(),
        password: Secret::from("hidden"),
    }];
    settings.redis.url = Secret::from("redis://u:hidden@h");
    settings.redis.sentinels = vec![Secret::from("redis://u:hidden@h:1")];
    assert!(!format!("{settings:?}").contains("hidden"));
}

#[test]
fn the_command_lines_own_variable_is_no_setting() {
    let variables = [("KUBELEET_API", "http://127.0.0.1:8080")];
    assert!(Settings::load_from(None, variables).is_ok());
    // One letter more is a mistake.
    let mistaken = [("KUBELEET_APIS", "http://127.0.0.1:8080")];
    assert!(Settings::load_from(None, mistaken).is_err());
}

#[test]
fn fuzz_settings() {
    let example = include_str!("../../config/kubeleet.toml").replace("\n# ", "\n");
    let small = "redis.url = \"redis://h:1/0\"\nkey_prefix = \"a:\"\n[agent]\nimage_disk_low = 0.5\nregistries = [{ host = \"h\", username = \"u\", password = \"p\" }]\n[heartbeat]\ninterval = \"5s\"\n";
    crate::fuzz::text("settings", &[&example, small], |text| {
        let file = file(text);
        let word = text.lines().next().unwrap_or_default().replace('\0', "");
        let variable = [("KUBELEET_API__REPLICAS_MAX", word)];
        if let Err(errors) = Settings::load_from(Some(file.path()), variable) {
            assert!(!errors.problems().is_empty());
            assert!(!errors.to_string().is_empty());
        }
    });
}
