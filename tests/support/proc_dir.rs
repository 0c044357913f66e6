//! A `proc` folder whose figures a test chooses, in place of the machine's own.

use std::path::Path;

/// What presses a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressed {
    Memory,
    Io,
    /// With the cpu in real use.
    Cpu,
    /// With the cpu hardly used: something is throttled by its own limit.
    IdleCpu,
}

/// The folder; deleted on drop.
pub struct ProcDir(tempfile::TempDir);

impl ProcDir {
    /// A machine that does nothing.
    pub fn calm() -> ProcDir {
        let folder = ProcDir(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.path().join("pressure")).expect("a folder");
        for kind in ["cpu", "memory", "io"] {
            folder.write_pressure(kind, 0);
        }
        folder.write_ticks(100, 100);
        folder.write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB\n");
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the machine under pressure: `percent` of the time something waits.
    pub fn press(&self, pressed: Pressed, percent: u32) {
        match pressed {
            Pressed::Memory => self.write_pressure("memory", percent),
            Pressed::Io => self.write_pressure("io", percent),
            Pressed::Cpu => {
                // All ticks since the start were busy ones.
                self.write_ticks(1_000_000, 100);
                self.write_pressure("cpu", percent);
            }
            Pressed::IdleCpu => self.write_pressure("cpu", percent),
        }
    }

    fn write_pressure(&self, kind: &str, percent: u32) {
        let line =
            |share| format!("{share} avg10={percent}.00 avg60={percent}.00 avg300=0.00 total=1\n");
        self.write(&format!("pressure/{kind}"), &(line("some") + &line("full")));
    }

    fn write_ticks(&self, busy: u64, idle: u64) {
        let cpu = |name| format!("{name} {busy} 0 0 {idle} 0 0 0 0 0 0\n");
        let rest = "intr 1 1\nctxt 5\nbtime 1700000000\nprocesses 7\n";
        self.write("stat", &(cpu("cpu ") + &cpu("cpu0") + rest));
    }

    fn write(&self, file: &str, text: &str) {
        // In one step: the agent reads at any moment.
        let next = self.path().join("next");
        std::fs::write(&next, text).expect("a fixture is written");
        std::fs::rename(next, self.path().join(file)).expect("a fixture is put in place");
    }
}
