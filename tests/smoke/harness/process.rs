//! The real binaries as child processes, which end with the test.

use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use crate::support::{eventually, signal, spawn};

pub(crate) const LEET: &str = env!("CARGO_BIN_EXE_leet");
pub(crate) const API: &str = env!("CARGO_BIN_EXE_kubeleet-api");
pub(crate) const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_kubeleet");

/// A running program; killed on drop.
pub(crate) struct Process {
    program: String,
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    /// Starts a program with these arguments and variables.
    pub(crate) fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("said").display().to_string();
        let variables = variables
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let variables: Vec<String> = variables.collect();
        // Each of these takes the place of the one before: the child is the program itself.
        let mut words = vec!["-c", "exec \"$@\" >\"$0.out\" 2>\"$0.err\"", &place];
        words.push("/usr/bin/env");
        // An agent's watchdog ends with it.
        let run_dir = format!("KUBELEET_NODE__RUN_DIR={}", folder.path().display());
        words.push(&run_dir);
        words.extend(variables.iter().map(String::as_str));
        words.push(program);
        words.extend(arguments);
        let child = spawn(Path::new("/bin/sh"), &words).expect("a shell starts");
        Process {
            program: program.rsplit('/').next().unwrap_or(program).to_owned(),
            child,
            folder,
        }
    }

    /// Runs a program to its end.
    pub(crate) async fn run(
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Ended {
        let mut process = Process::start(program, arguments, variables);
        let status = process.ended(super::END_LIMIT).await;
        Ended {
            code: status.code(),
            out: process.out(),
            err: process.err(),
        }
    }

    /// What it has written to standard output.
    pub(crate) fn out(&self) -> String {
        self.said("said.out")
    }

    /// What it has written to standard error: daemons log there.
    pub(crate) fn err(&self) -> String {
        self.said("said.err")
    }

    fn said(&self, file: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        // Killing one that is gone already is no mistake.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, which must be in order and in time.
    pub(crate) async fn end_by(&mut self, name: &str) {
        self.signal(name);
        let status = self.ended(super::END_LIMIT).await;
        assert_eq!(status.code(), Some(0), "{self}");
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.program);
        eventually(limit, &what, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; it said:\n{}{}", self.out(), self.err())),
        })
        .await
    }

    /// Waits until it has logged `words`.
    pub(crate) async fn logged(&self, words: &str) {
        let what = format!("{} says {words:?}", self.program);
        eventually(super::SOON, &what, async || {
            if self.err().contains(words) {
                Ok(())
            } else {
                Err(format!("{self}"))
            }
        })
        .await;
    }
}

/// What it said, for the message of a failed test.
impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (out, err) = (self.out(), self.err());
        write!(f, "{} said:\n{out}\n{err}", self.program)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            super::show(format_args!("{self}"));
        }
    }
}

/// What a program that ended has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}
