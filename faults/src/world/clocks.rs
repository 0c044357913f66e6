//! Wall clocks that can be moved, one a host.
//!
//! There is no namespace for the wall clock, so a small library is compiled and preloaded, which adds
//! what stands in a file.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The library's source.
const SOURCE: &str = include_str!("clock.c");

/// The clocks of a cluster.
pub(crate) struct Clocks {
    library: PathBuf,
    files: BTreeMap<String, PathBuf>,
}

impl Clocks {
    /// Compiles the library into `dir`, and sets the clocks of these hosts right.
    pub(crate) fn make<'a>(dir: &Path, hosts: impl Iterator<Item = &'a str>) -> Result<Clocks> {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .output()
            .context("cannot run cc, which compiles the movable clock")?;
        if !compiled.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&compiled.stderr));
        }
        let mut files = BTreeMap::new();
        for host in hosts {
            let file = dir.join(format!("clock-{host}"));
            std::fs::write(&file, 0_i64.to_ne_bytes())?;
            files.insert(host.to_owned(), file);
        }
        Ok(Clocks { library, files })
    }

    /// The variables by which a process of a host reads its clock.
    pub(crate) fn variables(&self, host: &str) -> Vec<(String, String)> {
        let Some(file) = self.files.get(host) else {
            return Vec::new();
        };
        vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("FAULTS_CLOCK".to_owned(), file.display().to_string()),
        ]
    }

    /// Moves a host's wall clock to so many seconds from the true time.
    pub(crate) fn set(&self, host: &str, seconds: i64) -> Result<()> {
        let file = self
            .files
            .get(host)
            .with_context(|| format!("{host} has no clock"))?;
        // In place: whoever maps a file that is cut short is killed.
        std::fs::OpenOptions::new()
            .write(true)
            .open(file)?
            .write_all_at(&seconds.to_ne_bytes(), 0)?;
        Ok(())
    }
}
