//! Fixture files in place of the kernel's, sound ones and broken ones.

use proptest::prelude::*;

use super::*;

const PSI_CPU: &str = "some avg10=12.34 avg60=5.60 avg300=1.00 total=21875169\n";
const PSI_MEMORY: &str = "some avg10=0.16 avg60=0.08 avg300=0.00 total=27787674
full avg10=0.10 avg60=0.02 avg300=0.00 total=17787674\n";
const MEMINFO: &str = "MemTotal:       1000 kB
MemFree:         100 kB
MemAvailable:    400 kB
HugePages_Total:   0\n";

/// `/proc/stat` of two cpus that were busy and idle for so many ticks.
fn stat(busy: u64, idle: u64) -> String {
    format!(
        "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\ncpu1 1 0 0 1 0 0 0 0 0 0\n\
         intr 99999999999999999999 1 2 3\nctxt 5\nbtime 1700000000\nprocesses 7\n"
    )
}

struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Proc {
        let proc = Proc(tempfile::tempdir().unwrap());
        std::fs::create_dir(proc.0.path().join("pressure")).unwrap();
        proc.write("pressure/cpu", PSI_CPU);
        proc.write("pressure/memory", PSI_MEMORY);
        proc.write("pressure/io", PSI_MEMORY);
        proc.write("meminfo", MEMINFO);
        proc.write("stat", stat(100, 100));
        proc
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(file), content).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.0.path().join(file)).unwrap();
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(self.0.path())
    }
}

#[test]
fn figures_are_read() {
    let proc = Proc::new();
    let mut sampler = proc.sampler();
    proc.write("stat", stat(125, 175));
    assert_eq!(
        sampler.sample(),
        Sample {
            pressure: Pressure {
                known: true,
                cpu_avg10: 12.34,
                cpu_avg60: 5.6,
                memory_avg10: 0.16,
                memory_avg60: 0.08,
                io_avg10: 0.16,
                io_avg60: 0.08,
            },
            cpu_used: 0.25,
            memory_used_bytes: 600 * 1024,
            memory_total_bytes: 1000 * 1024,
            cpus: 2,
        }
    );
}

#[test]
fn cpu_use_is_that_between_two_samples() {
    let proc = Proc::new();
    let mut sampler = proc.sampler();
    assert_eq!(sampler.sample().cpu_used, 0.0);
    proc.write("stat", stat(200, 100));
    assert_eq!(sampler.sample().cpu_used, 1.0);
    assert_eq!(sampler.sample().cpu_used, 1.0, "no tick passed");
    proc.write("stat", stat(200, 200));
    assert_eq!(sampler.sample().cpu_used, 0.0);
    proc.write("stat", stat(1, 1));
    assert_eq!(sampler.sample().cpu_used, 0.0, "the counters began anew");
    proc.write("stat", stat(2, 1));
    assert_eq!(sampler.sample().cpu_used, 0.0, "a few ticks say nothing");
    proc.write("stat", stat(51, 51));
    assert_eq!(sampler.sample().cpu_used, 0.5);
}

#[test]
fn a_kernel_without_pressure_is_told_apart_from_a_calm_one() {
    let proc = Proc::new();
    proc.remove("pressure/io");
    let sample = proc.sampler().sample();
    assert_eq!(sample.pressure, Pressure::default());
    assert_eq!(sample.memory_total_bytes, 1000 * 1024);
}

#[test]
fn an_empty_folder_still_gives_a_sample() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sampler::new(folder.path()).sample();
    assert_eq!((sample.memory_total_bytes, sample.cpu_used), (0, 0.0));
    assert!(sample.cpus >= 1);
}

#[test]
fn broken_files_count_as_unknown() {
    let proc = Proc::new();
    for broken in [
        &b""[..],
        b"\n",
        b" \n \n",
        b"some",
        b"some avg10=NaN",
        b"some avg10=nan avg60=inf avg300=-inf total=-1\n",
        b"some avg10= avg60= avg300= total=\n",
        b"\xff\xfe\0",
        "ä 5\n\u{e4}: 1 kB\n".as_bytes(),
        b"MemTotal: 18446744073709551615 kB\nMemFree: 1 kB\n",
        b"MemTotal: 1 GB\nMemFree: 1 GB\n",
        b"cpu \n",
        b"cpu 1 2 3\n",
        b"cpu 18446744073709551615 1 1 1\n",
    ] {
        for file in ["pressure/cpu", "pressure/memory", "stat", "meminfo"] {
            proc.write(file, broken);
        }
        let sample = proc.sampler().sample();
        assert_eq!(sample.pressure, Pressure::default(), "{broken:?}");
        assert_eq!(sample.memory_total_bytes, 0, "{broken:?}");
        assert_eq!(sample.cpu_used, 0.0, "{broken:?}");
    }
}

#[test]
fn this_machine_can_be_read() {
    let sample = Sampler::new(Path::new("/proc")).sample();
    assert!(sample.memory_used_bytes > 0);
    assert!(sample.memory_used_bytes < sample.memory_total_bytes);
    assert!(sample.cpus >= 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_cut_anywhere_do_no_harm(cut in 0usize..600, flip in 0usize..600, byte: u8) {
        let proc = Proc::new();
        for (file, whole) in [
            ("pressure/cpu", PSI_CPU.to_owned()),
            ("pressure/memory", PSI_MEMORY.to_owned()),
            ("stat", stat(7, 9)),
            ("meminfo", MEMINFO.to_owned()),
        ] {
            let mut bytes = whole.into_bytes();
            bytes.truncate(cut);
            if let Some(at) = bytes.get_mut(flip) {
                *at = byte;
            }
            proc.write(file, bytes);
        }
        let sample = proc.sampler().sample();
        prop_assert!((0.0..=1.0).contains(&sample.cpu_used));
        prop_assert!(sample.memory_used_bytes <= sample.memory_total_bytes);
        prop_assert!((0.0..=100.0).contains(&sample.pressure.cpu_avg10));
    }
}
