//! The devices of a node: those that its settings declare, and NVIDIA's, which are found.
//!
//! Redis says which of them a pod is given, by name; what that is on this machine, paths and
//! variables, is said here alone. So a device that nobody declared or found is given to nobody,
//! whatever stands in Redis.

use std::collections::BTreeMap;
use std::path::Path;

use crate::container::GivenDevices;
use crate::model::amounts::{GPU, NODE_DEVICES_MAX};
use crate::settings::{AgentSettings, DeviceSettings};

/// How the variable of a kind begins: `KUBELEET_DEVICES_GPU=0,1`.
const VARIABLE: &str = "KUBELEET_DEVICES_";
/// What NVIDIA's own libraries and runtime read.
const NVIDIA_VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// How NVIDIA's devices are called, before their number.
const NVIDIA_DEVICE: &str = "nvidia";
/// What all programs that use one of them need; some drivers have fewer.
const NVIDIA_SHARED: [&str; 4] = [
    "nvidiactl",
    "nvidia-uvm",
    "nvidia-uvm-tools",
    "nvidia-modeset",
];

/// The devices of a node, in the order in which they are given.
#[derive(Debug, Clone, Default)]
pub(super) struct Devices(Vec<DeviceSettings>);

impl Devices {
    /// Those that the settings declare; and if they declare no `gpu`, NVIDIA's that are found.
    pub(super) fn of(settings: &AgentSettings, dev_dir: &Path, proc_dir: &Path) -> Devices {
        let mut devices = settings.devices.clone();
        if devices.iter().all(|device| device.kind != GPU) {
            devices.extend(found(dev_dir, proc_dir));
            devices.truncate(NODE_DEVICES_MAX);
        }
        Devices(devices)
    }

    /// Their names, such as `gpu/0`.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(DeviceSettings::name).collect()
    }

    /// What a container gets that is given these, of which it asks so many of each kind. The error
    /// says why it cannot have them here.
    pub(super) fn given(
        &self,
        names: &[String],
        asked: &BTreeMap<String, u32>,
        node: &str,
    ) -> Result<GivenDevices, String> {
        let mut given = GivenDevices {
            names: names.to_vec(),
            ..GivenDevices::default()
        };
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for name in names {
            let Some(device) = self.0.iter().find(|device| device.name() == *name) else {
                return Err(format!(
                    "node {node} has no device {name} any more: declare it in agent.devices there, or give the service again"
                ));
            };
            *counts.entry(&device.kind).or_default() += 1;
            for path in &device.paths {
                if !given.paths.contains(path) {
                    given.paths.push(path.clone());
                }
            }
            let own = (variable(&device.kind), device.id.clone());
            for (key, value) in device.env.clone().into_iter().chain([own]) {
                let values = given.env.entry(key).or_default();
                if !values.is_empty() {
                    values.push(',');
                }
                values.push_str(&value);
            }
        }
        let matches = asked.len() == counts.len()
            && asked
                .iter()
                .all(|(kind, count)| counts.get(kind.as_str()) == Some(count));
        if !matches {
            return Err(format!(
                "its record names the devices {names:?} of node {node}, which is not what it asks for"
            ));
        }
        Ok(given)
    }
}

fn variable(kind: &str) -> String {
    format!("{VARIABLE}{}", kind.to_ascii_uppercase().replace('-', "_"))
}

/// NVIDIA's devices of this machine by number, if its driver is loaded.
fn found(dev_dir: &Path, proc_dir: &Path) -> Vec<DeviceSettings> {
    if !proc_dir.join("driver").join(NVIDIA_DEVICE).is_dir() {
        return Vec::new();
    }
    let entries = std::fs::read_dir(dev_dir).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(NVIDIA_DEVICE)?.parse::<u32>().ok()
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    let path = |name: &str| dev_dir.join(name).display().to_string();
    let shared = NVIDIA_SHARED
        .into_iter()
        .filter(|name| dev_dir.join(name).exists());
    let shared: Vec<String> = shared.map(path).collect();
    let device = |number: &u32| DeviceSettings {
        kind: GPU.to_owned(),
        id: number.to_string(),
        paths: std::iter::once(path(&format!("{NVIDIA_DEVICE}{number}")))
            .chain(shared.iter().cloned())
            .collect(),
        env: BTreeMap::from([(NVIDIA_VARIABLE.to_owned(), number.to_string())]),
    };
    numbers.iter().map(device).collect()
}

#[cfg(test)]
mod tests;
