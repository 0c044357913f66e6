//! Names: what a service, a namespace, a node and a pod may be called.
//!
//! Names become parts of Redis keys and of container names, so the rules leave no room for
//! separators, pattern characters or control characters.

/// Longest name of a service or namespace: a DNS label, RFC 1123.
pub const NAME_MAX: usize = 63;
/// Longest name of a node: a DNS name, RFC 1123.
pub const NODE_NAME_MAX: usize = 253;
/// Longest id of a pod.
pub const POD_ID_MAX: usize = 80;

/// What [`is_name`] allows, for messages.
pub const NAME_RULE: &str =
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
/// What [`is_node_name`] allows, for messages.
pub const NODE_NAME_RULE: &str =
    "1 to 253 of letters, digits, '-', '_' and '.', beginning with a letter or digit";
/// What [`is_pod_id`] allows, for messages.
pub const POD_ID_RULE: &str =
    "1 to 80 of letters, digits, '-' and '_', beginning with a letter or digit";

/// True for a name of a service or namespace: a DNS label.
pub fn is_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    bytes.len() <= NAME_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// True for a name of a node: what host names look like.
pub fn is_node_name(name: &str) -> bool {
    is_word(name, NODE_NAME_MAX, b"-_.")
}

/// True for the id of a pod, ours or one given by hand.
pub fn is_pod_id(id: &str) -> bool {
    is_word(id, POD_ID_MAX, b"-_")
}

fn is_word(word: &str, length_max: usize, others: &[u8]) -> bool {
    let bytes = word.as_bytes();
    bytes.len() <= length_max
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || others.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_no_room_for_separators() {
        for good in ["a", "web", "web-1", "0", &"a".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "", "-a", "a-", "A", "a b", "a/b", "a:b", "a*", "ä", "a\n", "..", "--all", &long,
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn node_names_and_pod_ids_are_words() {
        assert!(is_node_name("ip-10-0-0-1.eu_west.internal"));
        assert!(is_pod_id("djkfghsdjkfhjksdghfjksdjkfhsd"));
        for bad in ["", ".a", "a b", "../x", "a/b", "a:b", "a\0"] {
            assert!(!is_node_name(bad), "{bad}");
            assert!(!is_pod_id(bad), "{bad}");
        }
        assert!(!is_pod_id("a.b"));
    }
}
