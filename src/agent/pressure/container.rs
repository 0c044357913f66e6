//! How hard one container is pressed, where the kernel tells it: by version 2 of its control groups.
//!
//! Where there is nothing to read, or it cannot be read, nothing is told.

use std::path::{Path, PathBuf};

use super::{pressure_of, read_some};
use crate::model::Pressure;

/// Where the second version of the control groups is, below the folder of all: alone, or beside the
/// first, which knows no pressure.
const ROOTS: [&str; 2] = ["", "unified"];

/// Reads the pressure of containers.
#[derive(Debug)]
pub(in crate::agent) struct ContainerPressure(PathBuf);

impl ContainerPressure {
    pub(in crate::agent) fn new(cgroup_dir: &Path) -> ContainerPressure {
        ContainerPressure(cgroup_dir.to_owned())
    }

    /// The pressure of the container with the engine's id `id`. A few small reads from the kernel's
    /// memory, so it may be called from async code.
    pub(in crate::agent) fn read(&self, id: &str) -> Option<Pressure> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        // As the engine names it with systemd, and without.
        let names = [
            format!("system.slice/docker-{id}.scope"),
            format!("docker/{id}"),
        ];
        let groups = ROOTS.iter().flat_map(|root| {
            let root = self.0.join(root);
            names.iter().map(move |name| root.join(name))
        });
        groups.into_iter().find_map(|group| {
            let some = |file: &str| {
                let text = std::fs::read_to_string(group.join(file)).ok()?;
                read_some(&text).ok()
            };
            let (cpu, memory, io) = (
                some("cpu.pressure")?,
                some("memory.pressure")?,
                some("io.pressure")?,
            );
            Some(pressure_of(&cpu, &memory, &io))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn write(group: &Path, kinds: &[(&str, f64)]) {
        std::fs::create_dir_all(group).unwrap();
        for (kind, percent) in kinds {
            let line = |word| format!("{word} avg10={percent} avg60=1.50 avg300=0.00 total=7\n");
            let text = line("some") + &line("full");
            std::fs::write(group.join(format!("{kind}.pressure")), text).unwrap();
        }
    }

    #[test]
    fn it_is_read_wherever_the_engine_put_the_container() {
        let places = [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("unified/docker/{ID}"),
        ];
        for place in places {
            let dir = tempfile::tempdir().unwrap();
            let pressure = ContainerPressure::new(dir.path());
            assert_eq!(pressure.read(ID), None);
            let all = [("cpu", 12.34), ("memory", 0.0), ("io", 99.0)];
            write(&dir.path().join(&place), &all);
            let read = pressure.read(ID).unwrap();
            assert_eq!(
                (
                    read.cpu_avg10,
                    read.memory_avg10,
                    read.io_avg10,
                    read.io_avg60
                ),
                (12.34, 0.0, 99.0, 1.5),
                "{place}"
            );
            assert!(read.known);
        }
    }

    #[test]
    fn what_is_not_whole_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("docker").join(ID);
        write(&group, &[("cpu", 5.0), ("memory", 5.0)]);
        let pressure = ContainerPressure::new(dir.path());
        assert_eq!(pressure.read(ID), None);
        std::fs::write(group.join("io.pressure"), "").unwrap();
        assert_eq!(pressure.read(ID), None);
        assert_eq!(pressure.read("../docker"), None);
        assert_eq!(pressure.read(""), None);
    }
}
