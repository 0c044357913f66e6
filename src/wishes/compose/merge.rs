//! One compose file over another, and a service over the one it extends. Pure.
//!
//! By the Compose Specification: mappings are merged key by key, lists are appended, all else is
//! replaced. Commands and the health check's test are replaced as a whole; volumes and devices are
//! one by their target, secrets and configs too, and equal items stand once. `!reset` takes a value
//! away, `!override` puts a whole one in its place.

use super::super::node::{Content, MergeTag, Node};
use super::shapes;

/// A compose file over an earlier one.
pub(super) fn file(base: Node, over: Node) -> Node {
    mappings(base, over, |key, base, over| match key {
        "services" => mappings(base, over, |_, base, over| service(base, over)),
        _ => value(base, over),
    })
}

/// A service over the one it extends or overrides.
pub(super) fn service(base: Node, over: Node) -> Node {
    mappings(base, over, |key, base, over| match key {
        "command" | "entrypoint" => over,
        "healthcheck" => mappings(base, over, |key, base, over| match key {
            "test" => over,
            _ => value(base, over),
        }),
        "environment" | "labels" | "annotations" | "sysctls" => {
            value(shapes::pairs(&base), shapes::pairs(&over))
        }
        "extra_hosts" => value(shapes::hosts(&base), shapes::hosts(&over)),
        "depends_on" | "networks" => value(shapes::names(&base), shapes::names(&over)),
        "env_file" | "label_file" | "dns" | "dns_search" | "tmpfs" => {
            value(shapes::list(&base), shapes::list(&over))
        }
        "volumes" | "devices" => lists(base, over, target_of),
        "secrets" | "configs" => lists(base, over, file_of),
        _ => value(base, over),
    })
}

/// Takes out what `!reset` marks.
pub(super) fn strip(node: &mut Node) {
    match &mut node.content {
        Content::Scalar { .. } => {}
        Content::List(items) => {
            items.retain(|item| item.merge != MergeTag::Reset);
            items.iter_mut().for_each(strip);
        }
        Content::Map(entries) => {
            entries.retain(|entry| entry.value.merge != MergeTag::Reset);
            for entry in entries {
                strip(&mut entry.value);
            }
        }
    }
}

/// The rules for a value without rules of its own.
fn value(base: Node, over: Node) -> Node {
    match (&base.content, &over.content) {
        (Content::Map(_), Content::Map(_)) => {
            mappings(base, over, |_, base, over| value(base, over))
        }
        (Content::List(_), Content::List(_)) => lists(base, over, |_| None),
        // A key without a value overrides nothing.
        _ if over.is_null() => base,
        _ => over,
    }
}

fn mappings(base: Node, over: Node, merge: impl Fn(&str, Node, Node) -> Node) -> Node {
    let place = base.place.clone();
    let (mut entries, others) = match (base.content, over.content) {
        (Content::Map(entries), Content::Map(others)) => (entries, others),
        // A key without a value overrides nothing.
        (content, Content::Scalar { text, plain: true }) if text.is_empty() => {
            return Node::of(content, &place);
        }
        (_, content) => return Node::of(content, &over.place),
    };
    for other in others {
        let Some(at) = entries.iter().position(|entry| entry.key == other.key) else {
            entries.push(other);
            continue;
        };
        match other.value.merge {
            MergeTag::Reset => {
                entries.remove(at);
            }
            MergeTag::Override => entries[at] = other,
            MergeTag::Merge => {
                let nothing = Node::null(&other.place);
                let earlier = std::mem::replace(&mut entries[at].value, nothing);
                // A note points to the file that has the last word.
                if matches!(earlier.content, Content::Scalar { .. }) {
                    entries[at].place = other.place;
                }
                entries[at].value = merge(&other.key, earlier, other.value);
            }
        }
    }
    Node::of(Content::Map(entries), &place)
}

/// The later list after the earlier one. An item takes the place of one with the same key, or of
/// an equal one.
fn lists(base: Node, over: Node, key: impl Fn(&Node) -> Option<String>) -> Node {
    let place = base.place.clone();
    let (mut items, others) = match (base.content, over.content) {
        (Content::List(items), Content::List(others)) => (items, others),
        (content, Content::Scalar { text, plain: true }) if text.is_empty() => {
            return Node::of(content, &place);
        }
        (_, content) => return Node::of(content, &over.place),
    };
    for other in others {
        let same = |item: &Node| match (key(item), key(&other)) {
            (Some(one), Some(another)) => one == another,
            _ => item.to_json() == other.to_json(),
        };
        match items.iter().position(same) {
            Some(at) => items[at] = value(items[at].clone(), other),
            None => items.push(other),
        }
    }
    Node::of(Content::List(items), &place)
}

/// Where in the container a volume or a device is.
fn target_of(item: &Node) -> Option<String> {
    match &item.content {
        Content::Scalar { text, .. } => {
            let mut parts = text.split(':');
            let first = parts.next()?;
            Some(parts.next().unwrap_or(first).to_owned())
        }
        _ => text_of(item, "target"),
    }
}

/// Where in the container a secret or a config is.
fn file_of(item: &Node) -> Option<String> {
    match &item.content {
        Content::Scalar { text, .. } => Some(text.clone()),
        _ => text_of(item, "target").or_else(|| text_of(item, "source")),
    }
}

fn text_of(item: &Node, key: &str) -> Option<String> {
    match &item.get(key)?.value.content {
        Content::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::yaml::documents;
    use super::*;

    fn one(text: &str) -> Node {
        documents(&"f".into(), text).unwrap().remove(0)
    }

    /// Merges services, and tells what is left.
    fn check(base: &str, over: &str, expected: &str) {
        let mut merged = service(one(base), one(over));
        strip(&mut merged);
        assert_eq!(
            merged.to_json(),
            one(expected).to_json(),
            "{base} under {over}"
        );
    }

    #[test]
    fn mappings_are_merged_and_lists_appended() {
        check(
            "{image: a, user: u}",
            "{image: b, init: true}",
            "{image: b, user: u, init: true}",
        );
        check(
            "{dns: 1.1.1.1}",
            "{dns: [8.8.8.8]}",
            "{dns: [1.1.1.1, 8.8.8.8]}",
        );
        check(
            "{cap_add: [A, B]}",
            "{cap_add: [B, C]}",
            "{cap_add: [A, B, C]}",
        );
        check(
            "{ports: ['80:80']}",
            "{ports: ['80:80', '81:81']}",
            "{ports: ['80:80', '81:81']}",
        );
        check("{image: a, user: u}", "{image: }", "{image: a, user: u}");
        check(
            "{deploy: {replicas: 1, resources: {limits: {cpus: '1', memory: 1g}}}}",
            "{deploy: {resources: {limits: {cpus: '2'}}}}",
            "{deploy: {replicas: 1, resources: {limits: {cpus: '2', memory: 1g}}}}",
        );
    }

    #[test]
    fn lists_of_pairs_are_mappings() {
        check(
            "{environment: [A=1, B=2]}",
            "{environment: {B: 3, C: 4}}",
            "{environment: {A: '1', B: 3, C: 4}}",
        );
        check(
            "{labels: {a: b}}",
            "{labels: [a=c, d]}",
            "{labels: {a: c, d: }}",
        );
        check(
            "{extra_hosts: ['a:1.1.1.1']}",
            "{extra_hosts: [a=2.2.2.2, 'b:::1']}",
            "{extra_hosts: {a: '2.2.2.2', b: '::1'}}",
        );
        check(
            "{depends_on: [a, b]}",
            "{depends_on: {b: {condition: service_healthy}}}",
            "{depends_on: {a: , b: {condition: service_healthy}}}",
        );
    }

    #[test]
    fn some_parts_are_replaced_or_have_a_key() {
        check(
            "{command: [a, b], entrypoint: x}",
            "{command: c, entrypoint: [y]}",
            "{command: c, entrypoint: [y]}",
        );
        check(
            "{healthcheck: {test: [CMD, a], retries: 3}}",
            "{healthcheck: {test: [CMD, b]}}",
            "{healthcheck: {test: [CMD, b], retries: 3}}",
        );
        check(
            "{volumes: ['a:/x', 'b:/y']}",
            "{volumes: ['c:/x:ro', {type: tmpfs, target: /z}]}",
            "{volumes: ['c:/x:ro', 'b:/y', {type: tmpfs, target: /z}]}",
        );
        check(
            "{secrets: [a, b]}",
            "{secrets: [{source: a, mode: 0400}]}",
            "{secrets: [{source: a, mode: 0400}, b]}",
        );
    }

    #[test]
    fn tags_take_away_and_replace() {
        check(
            "{image: a, ports: ['1:1'], environment: {A: b, C: d}}",
            "{ports: !reset [], environment: {A: !reset null}}",
            "{image: a, environment: {C: d}}",
        );
        check(
            "{ports: ['1:1'], user: u}",
            "{ports: !override ['2:2']}",
            "{ports: ['2:2'], user: u}",
        );
        check("{image: a}", "{user: !reset null}", "{image: a}");
        check(
            "{dns: [1.1.1.1, 2.2.2.2]}",
            "{dns: [!reset 3.3.3.3]}",
            "{dns: [1.1.1.1, 2.2.2.2]}",
        );
    }

    #[test]
    fn files_merge_their_services_by_name() {
        let base = "{name: p, services: {a: {image: x}, b: {image: y}}, volumes: {v: }}";
        let over = "{services: {b: {user: u}, c: {image: z}}, volumes: {v: {external: true}}}";
        let merged = "{name: p, services: {a: {image: x}, b: {image: y, user: u}, c: {image: z}}, volumes: {v: {external: true}}}";
        assert_eq!(file(one(base), one(over)).to_json(), one(merged).to_json());
    }
}
