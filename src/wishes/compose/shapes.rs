//! Parts that can be written in several ways, brought to one: a mapping. Merging needs it, and so
//! does translating. What has another shape is left as it is, for the translation to refuse.

use super::super::node::{Content, Entry, Node};

/// `[A=1, B]` as `{A: "1", B: null}`.
pub(super) fn pairs(node: &Node) -> Node {
    mapping(node, |text, item| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Node::text(value, &item.place)),
        None => (text.to_owned(), Node::null(&item.place)),
    })
}

/// `[host=1.2.3.4, "host:::1"]` as `{host: 1.2.3.4, ...}`.
pub(super) fn hosts(node: &Node) -> Node {
    mapping(node, |text, item| {
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let (host, address) = parts.unwrap_or((text, ""));
        (host.to_owned(), Node::text(address, &item.place))
    })
}

/// `[a, b]` as `{a: null, b: null}`.
pub(super) fn names(node: &Node) -> Node {
    mapping(node, |text, item| {
        (text.to_owned(), Node::null(&item.place))
    })
}

/// A single value as a list of one.
pub(super) fn list(node: &Node) -> Node {
    match &node.content {
        Content::Scalar { .. } if !node.is_null() => {
            Node::of(Content::List(vec![node.clone()]), &node.place)
        }
        _ => node.clone(),
    }
}

/// A list of texts as a mapping; of equal keys the last counts.
fn mapping(node: &Node, entry: impl Fn(&str, &Node) -> (String, Node)) -> Node {
    let Content::List(items) = &node.content else {
        return node.clone();
    };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Content::Scalar { text, .. } = &item.content else {
            return node.clone();
        };
        let (key, mut value) = entry(text, item);
        value.merge = item.merge;
        entries.retain(|earlier| earlier.key != key);
        let place = item.place.clone();
        entries.push(Entry { key, place, value });
    }
    let mut mapping = Node::of(Content::Map(entries), &node.place);
    mapping.merge = node.merge;
    mapping
}
