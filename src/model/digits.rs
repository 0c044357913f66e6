//! Numbers as users may write them: plain digits.

/// A number in plain digits; `None` for what the language would read as well, such as `+1`.
pub(crate) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}
