//! One service of a compose file becomes one wish, part by part.

use serde_json::{Value, json};

use super::super::node::At;
use super::super::note::Notes;
use super::super::{PROJECT_LABEL, Wish};
use super::{
    Context, deploy, files, health, isolation, mounts, network, not_here, order, ports, process,
    resources,
};
use crate::model::name::{NAME_RULE, is_name};
use crate::model::{ServiceKey, ServiceSpec, Violation, explain};

/// The wishes of all services whose profiles are on, each after those it depends on; and the
/// names of the others.
pub(super) fn all(
    context: &Context,
    profiles: &[String],
    notes: &mut Notes,
) -> (Vec<Wish>, Vec<ServiceKey>) {
    let Some(services) = context.root.get("services") else {
        return (Vec::new(), Vec::new());
    };
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let mut names: Vec<(String, &str)> = Vec::new();
    for at in services.map(notes) {
        let Some(name) = name_of(&at, notes) else {
            continue;
        };
        if let Some((_, other)) = names.iter().find(|(taken, _)| *taken == name) {
            at.refuse(notes, format!("would be named {name}, as {other} is"));
            continue;
        }
        names.push((name.clone(), at.key));
        if is_on(&at, profiles, notes) {
            on.push((at, name));
        } else {
            off.push(key_of(&name, context));
        }
    }
    if on.len() > 1 {
        services.warn(
            notes,
            "containers do not find one another by the names of services here: publish a port and give its address in environment",
        );
    }
    let wishes: Vec<Wish> = on
        .iter()
        .map(|(at, name)| wish(at, name, &on, context, notes))
        .collect();
    (order::sorted(wishes, notes), off)
}

/// Whether a service has no profiles, or one that is on.
fn is_on(at: &At, profiles: &[String], notes: &mut Notes) -> bool {
    let Some(wanted) = at.some("profiles") else {
        return true;
    };
    let wanted = wanted.one_or_more(notes);
    let wanted: Vec<&str> = wanted.iter().filter_map(|at| at.text(notes)).collect();
    wanted.is_empty()
        || profiles
            .iter()
            .any(|on| on == "*" || wanted.contains(&on.as_str()))
}

/// The service's name as a DNS label.
fn name_of(at: &At, notes: &mut Notes) -> Option<String> {
    let name: String = at.key.to_ascii_lowercase().replace(['_', '.'], "-");
    if !is_name(&name) {
        at.refuse(notes, format!("a service is named by {NAME_RULE}"));
        return None;
    }
    if name != at.key {
        at.warn(
            notes,
            format!("is called {name} here: names are DNS labels"),
        );
    }
    Some(name)
}

fn wish(at: &At, name: &str, on: &[(At, String)], context: &Context, notes: &mut Notes) -> Wish {
    let mut spec = ServiceSpec::new(name, "");
    context.namespace.clone_into(&mut spec.namespace);
    not_here::check(at, notes);
    image(&mut spec, at, notes);
    process::translate(&mut spec, at, context, notes);
    ports::translate(&mut spec, at, notes);
    network::translate(&mut spec, at, context, notes);
    mounts::translate(&mut spec, at, context, notes);
    files::translate(&mut spec, at, context, notes);
    resources::translate(&mut spec, at, notes);
    deploy::translate(&mut spec, at, notes);
    health::translate(&mut spec, at, notes);
    isolation::translate(&mut spec, at, notes);
    label(&mut spec, at, context, notes);
    ports::check_copies(&spec, at, notes);
    mounts::check_node(&spec, at, notes);
    let body = checked(&spec, at, notes);
    Wish {
        place: at.place.clone(),
        key: spec.key(),
        body,
        project: Some(context.project.to_owned()),
        after: order::after(at, on, context, notes),
    }
}

fn image(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    if let Some(image) = at.some("image") {
        if let Some(text) = image.text(notes) {
            text.clone_into(&mut spec.image);
        }
        if let Some(build) = at.some("build") {
            build.warn(
                notes,
                format!(
                    "nothing is built here: docker build -t {0} ..., then docker push {0}",
                    spec.image
                ),
            );
        }
        return;
    }
    match at.some("build") {
        Some(build) => build.refuse(
            notes,
            "nothing is built here: docker build -t REGISTRY/NAME:TAG ..., docker push it, and set image to that name",
        ),
        None => at.refuse(notes, "an image is needed"),
    }
}

/// The label by which the project's services are found.
fn label(spec: &mut ServiceSpec, at: &At, context: &Context, notes: &mut Notes) {
    let project = context.project.to_owned();
    if let Some(other) = spec.labels.insert(PROJECT_LABEL.to_owned(), project)
        && other != context.project
    {
        let text = format!(
            "the label {PROJECT_LABEL} is {:?} here, by it the services of a project are found: leave it out",
            context.project
        );
        at.get("labels").as_ref().unwrap_or(at).refuse(notes, text);
    }
}

/// The body; what the API would refuse is refused here, at the line it comes from.
fn checked(spec: &ServiceSpec, at: &At, notes: &mut Notes) -> Value {
    // A spec has string keys and finite numbers only.
    let mut body = serde_json::to_value(spec).unwrap_or_default();
    // Where the file says no number, that of a service that stands is kept.
    if deploy::says_replicas(at) {
        body["replicas"] = json!(spec.replicas);
    }
    if spec.image.is_empty() {
        // Told already.
        return body;
    }
    let read = serde_path_to_error::deserialize::<_, ServiceSpec>(&body);
    let broken = match read {
        Ok(spec) => spec.violations(u32::MAX),
        Err(error) => vec![explain::violation(&error, &body)],
    };
    for Violation {
        field,
        given,
        allowed,
    } in broken
    {
        // Both probes come from one check.
        let field = field.replace(".readiness", "").replace(".liveness", "");
        let key = match file_origin(&field, at) {
            Some(key) => at.some(key),
            None => origin(&field).iter().find_map(|key| at.some(key)),
        };
        let text = format!("{field} would be {given:?}, allowed is {allowed}");
        key.as_ref().unwrap_or(at).refuse(notes, text);
    }
    body
}

/// The key that `files[3]` comes from: secrets are translated before configs.
fn file_origin(field: &str, at: &At) -> Option<&'static str> {
    let index = field.strip_prefix("files[")?.split(']').next()?;
    let index: usize = index.parse().ok()?;
    let secrets = at.some("secrets").map_or(0, |at| at.count());
    Some(if index < secrets {
        "secrets"
    } else {
        "configs"
    })
}

/// Keys of a compose file that a field of a spec may come from.
fn origin(field: &str) -> &'static [&'static str] {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    match &field[..end] {
        "image" => &["image"],
        "replicas" => &["scale", "deploy"],
        "command" => &["entrypoint", "command"],
        "args" => &["command"],
        "env" => &["environment", "env_file"],
        "working_dir" => &["working_dir"],
        "user" => &["user"],
        "labels" => &["labels", "label_file"],
        "resources" => &[
            "deploy",
            "mem_limit",
            "memswap_limit",
            "cpus",
            "shm_size",
            "pids_limit",
        ],
        "ports" => &["ports"],
        "health" => &["healthcheck"],
        "stop" => &["stop_signal", "stop_grace_period"],
        "mounts" => &["volumes", "tmpfs"],
        "files" => &["configs", "secrets"],
        "ulimits" => &["ulimits"],
        "capabilities" => &["cap_add", "cap_drop"],
        "devices" => &["devices"],
        "network" => &["network_mode", "networks"],
        "dns" => &["dns"],
        "extra_hosts" => &["extra_hosts"],
        "placement" => &["deploy"],
        _ => &[],
    }
}

/// The key of a service by the name it has in the file.
pub(super) fn key_of(name: &str, context: &Context) -> ServiceKey {
    ServiceKey {
        namespace: context.namespace.to_owned(),
        name: name.to_owned(),
    }
}
