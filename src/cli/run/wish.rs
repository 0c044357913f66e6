//! The body of the request that `leet run` makes of its arguments.

use serde_json::{Map, Value, json};

use super::RunArgs;
use crate::model::name::NAME_MAX;

/// The body of the request; what was not said is left to the API's defaults.
pub(super) fn wish(args: RunArgs) -> Value {
    let name = args.name.unwrap_or_else(|| name_of(&args.image));
    let mut wish = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !empty {
            wish.insert(key.to_owned(), value);
        }
    };
    let mut command = args.command.into_iter();
    let mut resources = Map::new();
    resources.extend(args.cpu.map(|cpu| ("cpu".to_owned(), cpu.into())));
    resources.extend(
        args.memory
            .map(|memory| ("memory".to_owned(), memory.into())),
    );
    resources.extend(args.disk.map(|disk| ("disk".to_owned(), disk.into())));
    let devices: Map<String, Value> = args.devices.into_iter().collect();
    if !devices.is_empty() {
        resources.insert("devices".to_owned(), devices.into());
    }
    let from_files = args.env_file.into_iter().flat_map(|EnvFile(pairs)| pairs);
    let env = from_files.chain(args.env).collect();
    let mounts: Vec<Value> = args.volume.into_iter().chain(args.tmpfs).collect();
    let object = |pairs: Vec<(String, String)>| -> Value {
        let pairs = pairs.into_iter().map(|(name, value)| (name, value.into()));
        Value::Object(pairs.collect())
    };
    set("name", name.into());
    set("image", args.image.into());
    set("replicas", args.replicas.into());
    set("namespace", json!(args.namespace));
    set("env", object(env));
    set("labels", object(args.label));
    set("ports", json!(args.port));
    set("resources", resources.into());
    set("priority", json!(args.priority));
    set("mounts", mounts.into());
    set("read_only", args.read_only.then_some(true).into());
    set("user", json!(args.user));
    set("working_dir", json!(args.workdir));
    set("network", json!(args.network));
    set("restart", args.restart.into());
    set("pull", json!(args.pull));
    set("command", command.next().into_iter().collect());
    set("args", command.collect());
    Value::Object(wish)
}

/// `NAME=VALUE`
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is needed".to_owned()),
    }
}

/// Devices of `KIND=COUNT`
pub(super) fn devices(text: &str) -> Result<(String, Value), String> {
    let (kind, count) = pair(text).map_err(|_| "KIND=COUNT is needed".to_owned())?;
    match count.parse::<u32>() {
        Ok(count) => Ok((kind, count.into())),
        Err(_) => Err("KIND=COUNT is needed, such as gpu=1".to_owned()),
    }
}

/// The variables of a file.
#[derive(Debug, Clone)]
pub(super) struct EnvFile(Vec<(String, String)>);

/// Reads a file of `NAME=VALUE` lines; empty ones and those that begin with `#` say nothing.
pub(super) fn env_file(path: &str) -> Result<EnvFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let pair = pair(line).map_err(|error| format!("line {}: {error}", number + 1));
            let (name, value) = pair?;
            pairs.push((name.trim_end().to_owned(), value));
        }
    }
    Ok(EnvFile(pairs))
}

/// A mount of `SOURCE:TARGET[:ro]`; a source that is a path is one of the node.
pub(super) fn volume(text: &str) -> Result<Value, String> {
    let (text, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let Some((source, target)) = text.split_once(':') else {
        return Err("SOURCE:TARGET is needed, with :ro for reading only".to_owned());
    };
    let kind = if source.starts_with('/') {
        "bind"
    } else {
        "volume"
    };
    let mut mount = json!({"type": kind, "source": source, "target": target});
    if read_only {
        mount["read_only"] = true.into();
    }
    Ok(mount)
}

/// A mount of `TARGET[:SIZE]`.
#[expect(clippy::unnecessary_wraps, reason = "the form that clap asks for")]
pub(super) fn tmpfs(text: &str) -> Result<Value, String> {
    Ok(match text.split_once(':') {
        Some((target, size)) => json!({"type": "tmpfs", "target": target, "size": size}),
        None => json!({"type": "tmpfs", "target": text}),
    })
}

/// A restart rule of `POLICY[:MAX]`.
pub(super) fn restart(text: &str) -> Result<Value, String> {
    let wrong = || "always, never, on-failure or on-failure:MAX is needed".to_owned();
    match text.split_once(':') {
        None if ["always", "never", "on-failure"].contains(&text) => Ok(json!({"policy": text})),
        Some(("on-failure", max)) => {
            let max: u32 = max.parse().map_err(|_| wrong())?;
            Ok(json!({"policy": "on-failure", "max": max}))
        }
        _ => Err(wrong()),
    }
}

/// The last part of the image's path, made into a name.
fn name_of(image: &str) -> String {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = last.split(':').next().unwrap_or_default();
    let name: String = last
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_MAX)
        .collect();
    let name = name.trim_matches('-');
    // An image that has no such part is refused by the API for what it is.
    if name.is_empty() { "service" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Whole {
        #[command(flatten)]
        args: RunArgs,
    }

    #[test]
    fn names_are_made_from_images() {
        let long = "a".repeat(80);
        for (image, name) in [
            ("nginx", "nginx"),
            ("spaster/alpine-sleep", "alpine-sleep"),
            ("host:5000/team/My_App.web:1.2@sha256:00", "my-app-web"),
            ("_x_", "x"),
            ("::", "service"),
            (long.as_str(), &long[..63]),
        ] {
            assert_eq!(name_of(image), name);
        }
    }

    #[test]
    fn the_body_holds_what_was_said_and_nothing_else() {
        let least = Whole::parse_from(["run", "nginx"]);
        let expected = json!({"name": "nginx", "image": "nginx", "replicas": 1});
        assert_eq!(wish(least.args), expected);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# said\n\nF = G \nK=less\n").unwrap();
        let all = Whole::parse_from([
            "run",
            "b/c:1",
            "--name",
            "n",
            "--replicas",
            "3",
            "--namespace",
            "s",
            "--env",
            "K=V=W",
            "--label",
            "l=",
            "--port",
            "80",
            "--port",
            "1:2/udp",
            "--cpu",
            "500m",
            "--memory",
            "64Mi",
            "--disk",
            "1g",
            "--devices",
            "gpu=2",
            "--priority",
            "low",
            "--env-file",
            &file.path().display().to_string(),
            "--volume",
            "db:/data",
            "--volume",
            "/srv:/srv:ro",
            "--tmpfs",
            "/tmp:16Mi",
            "--read-only",
            "--user",
            "1:2",
            "--workdir",
            "/w",
            "--network",
            "none",
            "--restart",
            "on-failure:3",
            "--pull",
            "always",
            "--",
            "sleep",
            "-x",
            "1",
        ]);
        let expected = json!({
            "name": "n", "image": "b/c:1", "replicas": 3, "namespace": "s", "env": {"K": "V=W", "F": " G"},
            "labels": {"l": ""}, "ports": ["80", "1:2/udp"], "priority": "low",
            "resources": {"cpu": "500m", "memory": "64Mi", "disk": "1g", "devices": {"gpu": 2}}, "command": ["sleep"], "args": ["-x", "1"],
            "mounts": [
                {"type": "volume", "source": "db", "target": "/data"},
                {"type": "bind", "source": "/srv", "target": "/srv", "read_only": true},
                {"type": "tmpfs", "target": "/tmp", "size": "16Mi"},
            ],
            "read_only": true, "user": "1:2", "working_dir": "/w", "network": "none",
            "restart": {"policy": "on-failure", "max": 3}, "pull": "always",
        });
        assert_eq!(wish(all.args), expected);
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_use() {
        for (flag, value) in [
            ("--volume", "/data"),
            ("--restart", "sometimes"),
            ("--restart", "always:3"),
            ("--restart", "on-failure:x"),
            ("--pull", "often"),
            ("--env-file", "/no/such/file"),
            ("--env", "=x"),
            ("--devices", "gpu"),
            ("--devices", "gpu=x"),
        ] {
            assert!(
                Whole::try_parse_from(["run", "a", flag, value]).is_err(),
                "{flag} {value}"
            );
        }
    }
}
