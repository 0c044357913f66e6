//! Processes of a cluster, each on its host, and what starts them again as a supervisor would.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;

/// How a process is started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name among the cluster's processes.
    pub(crate) name: String,
    /// The namespace of its host.
    pub(crate) namespace: String,
    /// Path of the program, and its arguments.
    pub(crate) command: Vec<String>,
    /// Its variables; it gets no others.
    pub(crate) variables: Vec<(String, String)>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Pause before it is started again.
    pub(crate) pause: Duration,
}

/// A process that is kept running until it is held.
#[derive(Clone)]
pub(crate) struct Process {
    shared: Arc<Shared>,
}

struct Shared {
    program: Program,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    held: bool,
    gone: bool,
    once: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    command: Option<Vec<String>>,
    armed: bool,
    deaths: Vec<String>,
    ordered: bool,
}

impl Process {
    /// Starts it, and again whenever it ends.
    pub(crate) fn start(program: Program) -> Process {
        let process = Process {
            shared: Arc::new(Shared {
                program,
                state: Mutex::default(),
                changed: Notify::new(),
            }),
        };
        tokio::spawn(keep(process.shared.clone()));
        process
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.shared.program.name
    }

    /// Its log.
    pub(crate) fn log(&self) -> &std::path::Path {
        &self.shared.program.log
    }

    /// Sends it a signal; if that ends it, it is started again.
    pub(crate) fn signal(&self, signal: Signal) {
        let mut state = self.shared.state();
        if signal == Signal::KILL || signal == Signal::TERM {
            state.ordered = true;
        }
        if let Some(pid) = state.pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it, and it stays down until [`Process::release`].
    pub(crate) fn hold(&self, signal: Signal) {
        self.shared.state().held = true;
        self.signal(signal);
    }

    /// It may run again, and does.
    pub(crate) fn release(&self) {
        {
            let mut state = self.shared.state();
            state.held = false;
            if let Some(pid) = state.pid {
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    /// Starts it anew with more variables, of that one start alone.
    pub(crate) fn again_with(&self, variables: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        {
            let mut state = self.shared.state();
            state.once = variables.iter().map(owned).collect();
            state.armed = true;
        }
        self.signal(Signal::KILL);
    }

    /// Starts it anew if it was started with variables of one start and has not ended since.
    pub(crate) fn disarm(&self) {
        let armed = {
            let mut state = self.shared.state();
            state.once.clear();
            std::mem::take(&mut state.armed)
        };
        if armed {
            self.signal(Signal::KILL);
        }
    }

    /// Changes what every later start has beyond the program's own variables.
    pub(crate) fn variables(&self, variables: Vec<(String, String)>) {
        self.shared.state().variables = variables;
    }

    /// Another program from the next start on, or its own again; says whether that is a change.
    pub(crate) fn command(&self, command: Option<Vec<String>>) -> bool {
        let mut state = self.shared.state();
        let changes = state.command != command;
        state.command = command;
        changes
    }

    /// Ends it for good.
    pub(crate) fn end(&self) {
        self.shared.state().gone = true;
        self.hold(Signal::KILL);
        self.shared.changed.notify_waiters();
    }

    /// How it died when nobody had told it to, since last asked.
    pub(crate) fn deaths(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().deaths)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, how: &str) {
        let mut state = self.state();
        state.pid = None;
        if !std::mem::take(&mut state.ordered) && !state.held {
            let text = format!("{} ended by itself: {how}", self.program.name);
            state.deaths.push(text);
        }
    }
}

/// Starts it whenever it may run and does not.
async fn keep(shared: Arc<Shared>) {
    loop {
        let changed = shared.changed.notified();
        let (held, gone) = {
            let state = shared.state();
            (state.held, state.gone)
        };
        if gone {
            return;
        }
        if held {
            changed.await;
            continue;
        }
        let how = run_once(&shared).await;
        shared.ended(&how);
        tokio::time::sleep(shared.program.pause).await;
    }
}

/// Runs it to its end, and says how it ended.
async fn run_once(shared: &Shared) -> String {
    let program = &shared.program;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&program.log);
    let (log, errors) = match log.and_then(|log| Ok((log.try_clone()?, log))) {
        Ok(both) => both,
        Err(error) => return format!("no log: {error}"),
    };
    let mut command = tokio::process::Command::new("setpriv");
    // Nothing outlives the suite, however it ends.
    command
        .args(["--pdeathsig", "KILL", "nsenter"])
        .arg(format!("--net=/run/netns/{}", program.namespace));
    {
        let mut state = shared.state();
        let words = state.command.as_ref().unwrap_or(&program.command);
        command.args(words);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(program.variables.iter().map(|(name, value)| (name, value)));
        command.envs(state.variables.iter().map(|(name, value)| (name, value)));
        let once = std::mem::take(&mut state.once);
        state.armed = !once.is_empty();
        command.envs(once);
        state.ordered = false;
    }
    command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return format!("cannot start: {error}"),
    };
    {
        let mut state = shared.state();
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        state.pid = pid.and_then(Pid::from_raw);
        if let (true, Some(pid)) = (state.held, state.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
