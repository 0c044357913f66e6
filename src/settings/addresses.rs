//! What an address and a key prefix look like.
//!
//! Only `store` knows the Redis library, so the forms are checked here by hand, before it sees them.

/// No pattern characters, which would make `redis-cli --scan` and ACL patterns mean other keys.
pub(super) fn is_key_prefix(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    let tag = match (prefix.split_once('{'), prefix.contains('}')) {
        (None, closed) => !closed,
        (Some((_, rest)), _) => rest
            .split_once('}')
            .is_some_and(|(tag, rest)| !tag.is_empty() && !rest.contains(['{', '}'])),
    };
    prefix.len() <= 100
        && tag
        && prefix
            .bytes()
            .all(|byte| plain(byte) || b"{}".contains(&byte))
}

/// What redis-rs can connect to; by Sentinels it is only asked for user, password and TLS.
pub(super) fn is_redis_url(url: &str, by_sentinel: bool) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    match scheme {
        "redis" | "rediss" => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            is_host(host, false) && (db.is_empty() || db.parse::<u16>().is_ok())
        }
        "unix" | "redis+unix" => !by_sentinel && rest.starts_with('/') && rest.len() > 1,
        _ => false,
    }
}

/// `host:port`, or the same as a `redis://` or `rediss://` URL.
pub(super) fn is_sentinel(address: &str) -> bool {
    match address.split_once("://") {
        Some(("redis" | "rediss", _)) => {
            let host = address.rsplit(['@', '/']).next().unwrap_or_default();
            is_host(host, true)
        }
        Some(_) => false,
        None => is_host(address, true),
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn is_host(text: &str, with_port: bool) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = match port {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port > 0),
        None => !with_port,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_fits = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    };
    port_fits && host_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_server_or_a_socket() {
        for good in [
            "redis://localhost",
            "redis://:pw@10.0.0.1:6379/3",
            "rediss://u:p%40@[::1]:6380",
            "unix:///run/redis.sock?db=1",
            "redis+unix:///run/redis.sock",
            "redis://user:pass:word@redis_1:6379/?protocol=resp3",
        ] {
            assert!(is_redis_url(good, false), "{good}");
        }
        for bad in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://host:0",
            "redis://host:99999",
            "redis://host/x",
            "unix://",
            "unix://relative",
            "redis://a b",
        ] {
            assert!(!is_redis_url(bad, false), "{bad}");
        }
        assert!(!is_redis_url("unix:///run/redis.sock", true));
    }

    #[test]
    fn sentinels_have_a_port() {
        for good in [
            "s1:26379",
            "[::1]:26379",
            "redis://u:p@s1:26379",
            "rediss://s1:26379",
        ] {
            assert!(is_sentinel(good), "{good}");
        }
        for bad in [
            "",
            "s1",
            "s1:",
            ":26379",
            "s1:x",
            "http://s1:1",
            "unix:///s",
        ] {
            assert!(!is_sentinel(bad), "{bad}");
        }
    }

    #[test]
    fn prefixes_hold_no_patterns() {
        for good in ["", "a:", "{a}:", "x:{a-1}:"] {
            assert!(is_key_prefix(good), "{good}");
        }
        for bad in [
            "*",
            "a b",
            "{}",
            "{a",
            "a}",
            "{a}{b}",
            "[a]",
            &"a".repeat(101),
        ] {
            assert!(!is_key_prefix(bad), "{bad}");
        }
    }
}
