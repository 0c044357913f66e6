//! What is declared and what is found, and what a container gets of it.

use super::*;

fn declared(kind: &str, id: &str, path: &str) -> DeviceSettings {
    DeviceSettings {
        kind: kind.to_owned(),
        id: id.to_owned(),
        paths: vec![path.to_owned()],
        env: BTreeMap::new(),
    }
}

fn settings(devices: Vec<DeviceSettings>) -> AgentSettings {
    AgentSettings {
        devices,
        ..AgentSettings::default()
    }
}

/// A machine with these files in its /dev, and NVIDIA's driver or not.
fn machine(files: &[&str], driver: bool) -> (tempfile::TempDir, tempfile::TempDir) {
    let (dev, proc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for file in files {
        std::fs::write(dev.path().join(file), "").unwrap();
    }
    if driver {
        std::fs::create_dir_all(proc.path().join("driver/nvidia/gpus")).unwrap();
    }
    (dev, proc)
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn nvidia_devices_are_found_by_number_where_the_driver_is() {
    let files = [
        "nvidia10",
        "nvidia2",
        "nvidiactl",
        "nvidia-uvm",
        "nvidia",
        "null",
    ];
    let (dev, proc) = machine(&files, true);
    let devices = Devices::of(&settings(vec![]), dev.path(), proc.path());
    assert_eq!(devices.names(), ["gpu/2", "gpu/10"]);
    let asked = BTreeMap::from([("gpu".to_owned(), 2)]);
    let given = devices
        .given(&names(&["gpu/2", "gpu/10"]), &asked, "n")
        .unwrap();
    let path = |name: &str| dev.path().join(name).display().to_string();
    assert_eq!(
        given.paths,
        ["nvidia2", "nvidiactl", "nvidia-uvm", "nvidia10"].map(path)
    );
    assert_eq!(given.env["NVIDIA_VISIBLE_DEVICES"], "2,10");
    assert_eq!(given.env["KUBELEET_DEVICES_GPU"], "2,10");
    let (dev, proc) = machine(&files, false);
    let none = Devices::of(&settings(vec![]), dev.path(), proc.path());
    assert_eq!(none.names(), [""; 0]);
}

#[test]
fn declared_ones_stand_for_those_that_would_be_found() {
    let (dev, proc) = machine(&["nvidia0"], true);
    let fpga = declared("fpga", "a", "/dev/fpga0");
    let both = Devices::of(&settings(vec![fpga.clone()]), dev.path(), proc.path());
    assert_eq!(both.names(), ["fpga/a", "gpu/0"]);
    let gpu = declared("gpu", "x", "/dev/x");
    let declared = Devices::of(&settings(vec![fpga, gpu]), dev.path(), proc.path());
    assert_eq!(declared.names(), ["fpga/a", "gpu/x"]);
}

#[test]
fn what_is_not_here_or_not_asked_for_is_given_to_nobody() {
    let mut slot = declared("tpu-v5", "1", "/dev/one");
    slot.env.insert("TPU".to_owned(), "one".to_owned());
    let devices = Devices(vec![slot, declared("tpu-v5", "2", "/dev/two")]);
    let of = |given: &[&str], count: u32| {
        let asked = (count > 0).then(|| ("tpu-v5".to_owned(), count));
        devices.given(&names(given), &asked.into_iter().collect(), "n")
    };
    let given = of(&["tpu-v5/1"], 1).unwrap();
    let env = [("KUBELEET_DEVICES_TPU_V5", "1"), ("TPU", "one")];
    let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(given.env, BTreeMap::from(env));
    assert_eq!(of(&[], 0), Ok(GivenDevices::default()));
    let gone = of(&["tpu-v5/3"], 1).unwrap_err();
    assert!(
        gone.starts_with("node n has no device tpu-v5/3 any more"),
        "{gone}"
    );
    for (given, count) in [(&[][..], 1), (&["tpu-v5/1"], 2), (&["tpu-v5/1"], 0)] {
        let other = of(given, count).unwrap_err();
        assert!(other.contains("not what it asks for"), "{other}");
    }
}
