//! What pods ask for beside cpu and memory, and nodes offer: disk, pids, and devices by their kinds.
//!
//! Stored as one text, `disk=1073741824,gpu=2,pids=100`, which the Lua library reads and writes too:
//! `disk` and `pids` are amounts of which any part can be taken, every other word is a kind of which
//! a node has single devices, each of them one pod's at a time. A device is named `gpu/0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digits::digits;

/// The word for bytes of disk.
pub const DISK: &str = "disk";
/// The word for processes and threads.
pub const PIDS: &str = "pids";
/// The kind of the devices that an agent finds by itself: NVIDIA's.
pub const GPU: &str = "gpu";
/// Most devices of one node: the library looks at all of them for each pod that asks for one.
pub const NODE_DEVICES_MAX: usize = 256;
/// Most kinds of devices that one pod asks for.
pub const KINDS_MAX: usize = 16;
/// Most of any amount that a node offers: the library counts in doubles.
pub const OFFER_MAX: u64 = 1 << 52;

/// What [`is_device_kind`] allows, for messages.
pub const DEVICE_KIND_RULE: &str = "a kind of device: 1 to 32 of a-z, 0-9 and '-', beginning with a letter; cpu, memory, disk, pids and pods are none";
/// What [`is_device_id`] allows, for messages.
pub const DEVICE_ID_RULE: &str = "1 to 63 of letters, digits, '-', '_' and '.'";

/// Whether a kind of devices may have this name.
pub fn is_device_kind(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(word)
        && !["cpu", "memory", DISK, PIDS, "pods"].contains(&text)
}

/// Whether a device may have this id among those of its kind.
pub fn is_device_id(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(word)
}

/// Amounts by word, none of them zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Amounts(BTreeMap<String, u64>);

impl Amounts {
    /// Amounts from their stored text; what is none is left out.
    pub fn parse(text: &str) -> Amounts {
        let mut amounts = Amounts::default();
        for (word, amount) in text.split(',').filter_map(|pair| pair.split_once('=')) {
            amounts.add(word, digits(amount).unwrap_or(0));
        }
        amounts
    }

    /// How much of a word there is.
    pub fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// Adds to a word.
    pub fn add(&mut self, word: &str, amount: u64) {
        if amount > 0 {
            let sum = self.0.entry(word.to_owned()).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// What is left of it without all of these.
    pub fn less<'a>(&self, others: impl Iterator<Item = &'a Amounts> + Clone) -> Amounts {
        let mut left = Amounts::default();
        for (word, amount) in self.iter() {
            let gone: u64 = others.clone().map(|other| other.of(word)).sum();
            left.add(word, amount.saturating_sub(gone));
        }
        left
    }

    /// The words and their amounts, in the words' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, amount)| (word.as_str(), *amount))
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Amounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (word, amount)) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(f, "{comma}{word}={amount}")?;
        }
        Ok(())
    }
}

/// The names in a stored list of devices: `gpu/0,gpu/1`, or `,gpu/0,gpu/1,`.
pub fn device_names(text: &str) -> Vec<String> {
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// How many devices of each kind are in a stored list.
pub fn count_devices(text: &str) -> Amounts {
    let mut amounts = Amounts::default();
    for (kind, _) in text.split(',').filter_map(|name| name.split_once('/')) {
        amounts.add(kind, 1);
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_stored_and_read_back() {
        let text = "disk=1073741824,gpu=2,pids=100";
        let amounts = Amounts::parse(text);
        assert_eq!((amounts.of(DISK), amounts.of("gpu")), (1 << 30, 2));
        assert_eq!(
            (amounts.of("fpga"), amounts.to_string().as_str()),
            (0, text)
        );
        let others = [Amounts::parse("gpu=1,disk=1"), Amounts::parse("pids=200")];
        let left = amounts.less(others.iter());
        assert_eq!(left.to_string(), "disk=1073741823,gpu=1");
        for nothing in ["", "gpu", "gpu=0", "gpu=-1", "gpu=x", ",,", "="] {
            assert!(Amounts::parse(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn devices_are_counted_by_kind() {
        assert_eq!(device_names(",gpu/0,gpu/1,"), ["gpu/0", "gpu/1"]);
        assert_eq!(device_names(""), [""; 0]);
        let counted = count_devices(",gpu/0,fpga/a,gpu/1,rubbish,");
        assert_eq!(counted.to_string(), "fpga=1,gpu=2");
    }

    #[test]
    fn kinds_and_ids_are_words() {
        for kind in ["gpu", "nvidia-a100", "x2"] {
            assert!(is_device_kind(kind), "{kind}");
        }
        for kind in ["", "GPU", "2x", "a_b", "a/b", "a=b", "disk", "pids", "cpu"] {
            assert!(!is_device_kind(kind), "{kind}");
        }
        assert!(is_device_id("0") && is_device_id("GPU-1a.2_b"));
        assert!(!is_device_id("") && !is_device_id("a/b") && !is_device_id("a,b"));
    }
}
