//! A `proc` folder of a machine that does nothing: the load of this one is not the test's.

/// The folder; deleted on drop.
pub(crate) struct CalmMachine {
    folder: tempfile::TempDir,
    path: String,
}

impl CalmMachine {
    pub(crate) fn new() -> CalmMachine {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = CalmMachine {
            path: folder.path().display().to_string(),
            folder,
        };
        let line = |share| format!("{share} avg10=0.00 avg60=0.00 avg300=0.00 total=1\n");
        for kind in ["cpu", "memory", "io"] {
            machine.write(&format!("pressure/{kind}"), &(line("some") + &line("full")));
        }
        machine.write(
            "stat",
            "cpu  1 0 0 100 0 0 0 0 0 0\ncpu0 1 0 0 100 0 0 0 0 0 0\nintr 1 1\nctxt 5\n\
             btime 1700000000\nprocesses 7\n",
        );
        machine.write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB\n");
        machine
    }

    /// The variable that has an agent read it.
    pub(crate) fn variable(&self) -> (&str, &str) {
        ("KUBELEET_NODE__PROC_DIR", &self.path)
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.folder.path().join(file);
        let folder = file.parent().expect("a folder above it");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(file, text).expect("a fixture");
    }
}
