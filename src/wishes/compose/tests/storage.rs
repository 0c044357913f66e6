//! Volumes, binds, tmpfs, secrets and configs.

use serde_json::{Value, json};

use super::super::super::tests::told;
use super::super::super::{Level, Options, Source, read};
use super::{check_with, service, tells_with};

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
fn what_cannot_be_put_where_it_is_said_points_to_its_key() {
    let top = "secrets: {t: {environment: TOKEN}}\nconfigs: {c: {content: x}}\n";
    let refuses = |more: &str, field: &str| {
        tells_with(top, more, Level::Refused, field, "mounted over the files");
    };
    refuses(
        "secrets: [t], configs: [c], tmpfs: /run",
        "services.web.secrets",
    );
    refuses(
        "secrets: [t], configs: [{source: c, target: /tmp/c}], tmpfs: /tmp",
        "services.web.configs",
    );
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let source = Source {
        name: "f".to_owned(),
        folder: "/app".into(),
        text: "services: {a: {image: i, secrets: [s]}}\nsecrets: {s: {file: bin}}\n".to_owned(),
    };
    let reading = read(
        &[source],
        &Options::default(),
        &|path| match path.ends_with("bin") {
            true => Ok(vec![0xff, 0, 0xfe]),
            false => Err(std::io::ErrorKind::NotFound.into()),
        },
    );
    assert_eq!(reading.wishes[0].body["files"][0]["base64"], "/wD+");
}
