//! A station on a thread and a tokio runtime of its own: it can be killed and frozen as a process can.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Longest time an orderly end may take.
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// A running station; killed on drop.
pub struct Station<T> {
    handle: tokio::runtime::Handle,
    shutdown: CancellationToken,
    kill: CancellationToken,
    ended: oneshot::Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

/// A frozen station; it goes on when this is dropped.
pub struct Frozen(mpsc::Sender<()>);

impl<T: Send + 'static> Station<T> {
    /// Starts `run`, which is given the token that asks it to end.
    pub fn start<R, F>(run: R) -> Station<T>
    where
        R: FnOnce(CancellationToken) -> F + Send + 'static,
        F: Future<Output = T>,
    {
        let shutdown = CancellationToken::new();
        let kill = CancellationToken::new();
        let (tell, ended) = oneshot::channel();
        let (started, handle) = mpsc::channel();
        let (asked, killed) = (shutdown.clone(), kill.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let _ = started.send(runtime.handle().clone());
            runtime.block_on(async {
                tokio::select! {
                    result = run(asked) => {
                        let _ = tell.send(result);
                    }
                    () = killed.cancelled() => {}
                }
            });
            // Everything it spawned ends here and now, wherever it was.
            runtime.shutdown_background();
        });
        Station {
            handle: handle.recv().expect("the thread starts"),
            shutdown,
            kill,
            ended,
            thread: Some(thread),
        }
    }

    /// Ends it where it stands: nothing of it runs after this returns.
    pub fn kill(self) {
        drop(self);
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Asks it to end and gives what it answered.
    pub async fn stop(self) -> T {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> T {
        let ended = tokio::time::timeout(END_LIMIT, &mut self.ended).await;
        ended
            .expect("the station ends in time")
            .expect("the station ends without a panic")
    }

    /// Freezes it, as SIGSTOP would: its connections stay open and nothing of it moves.
    pub async fn freeze(&self) -> Frozen {
        let (release, released) = mpsc::channel::<()>();
        let (tell, frozen) = oneshot::channel();
        self.handle.spawn(async move {
            let _ = tell.send(());
            // Blocks the station's only thread.
            let _ = released.recv();
        });
        frozen.await.expect("the station runs");
        Frozen(release)
    }
}

impl<T> Drop for Station<T> {
    fn drop(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            // A station that panicked has told so on stderr.
            let _ = thread.join();
        }
    }
}
