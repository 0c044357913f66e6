//! The engine's images. Every image can be pulled, unless a fault says otherwise.

use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Answer, json_answer, parameter, refused, streamed};
use super::faults::Kind;
use super::machine::Machine;

/// Bytes of each image.
const SIZE: u64 = 4 << 20;
/// Pieces in which a pull comes.
const STEPS: u64 = 4;
/// Most milliseconds between two of them.
const STEP_MS: u64 = 50;

/// The name under which an image is shown: with its tag, without what goes without saying.
pub(super) fn full_name(image: &str) -> String {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let image = image.strip_prefix("library/").unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || last.contains(':') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// An image's id, which its name makes: FNV's hash, four times.
pub(super) fn id_of(name: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("sha256:{}", format!("{hash:016x}").repeat(4))
}

fn digest_name(name: &str) -> String {
    let colon = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    format!("{}@{}", &name[..colon.unwrap_or(name.len())], id_of(name))
}

fn described(name: &str) -> Value {
    json!({
        "Id": id_of(name), "ParentId": "", "RepoTags": [name], "RepoDigests": [digest_name(name)],
        "Created": 0, "Size": SIZE, "SharedSize": 0, "Labels": {}, "Containers": -1,
    })
}

/// All images.
pub(super) fn list(machine: &Machine) -> Answer {
    let inner = machine.inner();
    let images: Vec<Value> = inner.images.iter().map(|image| described(image)).collect();
    json_answer(200, &Value::Array(images))
}

/// One image.
pub(super) fn inspect(machine: &Machine, wanted: &str) -> Answer {
    let name = full_name(wanted);
    if !machine.inner().images.contains(&name) {
        return refused(404, format!("No such image: {name}"));
    }
    let mut described = described(&name);
    described["Created"] = json!("2024-01-01T00:00:00Z");
    json_answer(200, &described)
}

/// Removes an image that no container is made from.
pub(super) fn remove(machine: &Machine, wanted: &str) -> anyhow::Result<Answer> {
    let mut inner = machine.inner();
    let known = inner
        .images
        .iter()
        .find(|name| **name == full_name(wanted) || id_of(name) == wanted);
    let Some(name) = known.cloned() else {
        return Ok(refused(404, format!("No such image: {wanted}")));
    };
    if let Some(user) = inner
        .containers
        .values()
        .find(|made| full_name(&made.image()) == name)
    {
        let id = &user.id[..12];
        let words = format!("conflict: unable to delete {name}: container {id} is using it");
        return Ok(refused(409, words));
    }
    inner.drop_image(&name)?;
    Ok(json_answer(
        200,
        &json!([{"Untagged": name}, {"Deleted": id_of(&name)}]),
    ))
}

/// Pulls an image, step by step.
pub(super) fn pull(machine: &Arc<Machine>, query: &str) -> Answer {
    let repository = parameter(query, "fromImage").unwrap_or_default();
    let tag = parameter(query, "tag").unwrap_or_else(|| "latest".to_owned());
    let by = if tag.contains(':') { "@" } else { ":" };
    let name = full_name(&format!("{repository}{by}{tag}"));
    let inner = machine.inner();
    if inner.faults.has(Kind::Pull404) {
        let words =
            "pull access denied for {}, repository does not exist or may require 'docker login'";
        return refused(404, words.replace("{}", &repository));
    }
    if inner.faults.has(Kind::Pull429) {
        return refused(
            429,
            "toomanyrequests: You have reached your pull rate limit.",
        );
    }
    let hangs_until = inner.faults.until(Kind::PullHang);
    drop(inner);
    let (out, pieces) = mpsc::unbounded_channel();
    let machine = machine.clone();
    tokio::spawn(async move {
        let say = |line: Value| {
            // Nobody may be listening any more; the engine goes on all the same.
            let _ = out.send(Bytes::from(format!("{line}\r\n")));
        };
        say(json!({"status": format!("Pulling from {repository}"), "id": tag}));
        for step in 0..STEPS {
            machine.dawdle(STEP_MS).await;
            if let Some(until) = hangs_until {
                tokio::time::sleep_until(until).await;
                say(
                    json!({"error": "unexpected EOF", "errorDetail": {"message": "unexpected EOF"}}),
                );
                return;
            }
            let detail = json!({"current": SIZE * (step + 1) / STEPS, "total": SIZE});
            say(json!({"status": "Downloading", "id": "layer", "progressDetail": detail}));
        }
        if machine.inner().add_image(&name).is_err() {
            say(
                json!({"error": "the disk is full", "errorDetail": {"message": "the disk is full"}}),
            );
            return;
        }
        say(json!({"status": "Pull complete", "id": "layer", "progressDetail": {}}));
        say(json!({"status": format!("Digest: {}", id_of(&name))}));
        say(json!({"status": format!("Status: Downloaded newer image for {name}")}));
    });
    streamed("application/json", pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_one_name() {
        for image in ["a", "a:latest", "docker.io/a", "docker.io/library/a:latest"] {
            assert_eq!(full_name(image), "a:latest");
        }
        assert_eq!(full_name("h:5000/b"), "h:5000/b:latest");
        assert!(digest_name("h:5000/b:1").starts_with("h:5000/b@sha256:"));
        assert_eq!(id_of("a").len(), "sha256:".len() + 64);
    }
}
