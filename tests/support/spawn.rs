//! Starts processes that end with the test process, and sends them signals.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

type Job = (Command, Sender<std::io::Result<Child>>);

/// Starts `program`; the kernel kills it when the test process ends in whatever way.
pub fn spawn(program: &Path, arguments: &[&str]) -> std::io::Result<Child> {
    let mut command = dying_with_us(program);
    command.args(arguments).stderr(Stdio::null());
    start(command)
}

/// The same, with variables, and with what it says on stderr in a file.
pub fn spawn_logged(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, String)],
    log: File,
) -> std::io::Result<Child> {
    let mut command = dying_with_us(program);
    let variables = variables.iter().map(|(key, value)| (*key, value));
    command.args(arguments).envs(variables).stderr(log);
    start(command)
}

fn dying_with_us(program: &Path) -> Command {
    let mut command = match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The kernel's signal comes when the *thread* that started the child ends, and a test's thread ends
/// with the test: so one thread that never ends starts them all.
fn start(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, waiting) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, started) in waiting {
                // Whoever asked is gone only if its test failed; the child dies with the process.
                let _ = started.send(command.spawn());
            }
        });
        jobs
    });
    let (started, result) = channel();
    spawner.send((command, started)).expect("the spawner runs");
    result.recv().expect("the spawner answers")
}

/// The first of the folders in PATH that holds `program`.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Sends a signal, such as `STOP`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success(), "kill -{name}");
}

/// Runs a program to its end; the test fails with what it said if it fails.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
