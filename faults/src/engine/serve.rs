//! A node's socket: there while its engine is, and away with all its connections while it is not.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};

use super::machine::Machine;
use super::{containers, docker};

/// Serves a node for ever.
pub(super) async fn play(machine: Arc<Machine>) {
    let alive: Vec<_> = {
        let inner = machine.inner();
        inner
            .containers
            .values()
            .filter(|made| made.lives())
            .cloned()
            .collect()
    };
    for made in alive {
        containers::lives(&machine, &made);
    }
    let place = machine.options.dir.join(format!("{}.sock", machine.node));
    let mut away = machine.away.subscribe();
    loop {
        // The senders live as long as the machine, which is ours.
        let _ = away.wait_for(|away| !away).await;
        let Ok(listener) = bind(&place) else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        loop {
            tokio::select! {
                taken = listener.accept() => if let Ok((stream, _)) = taken {
                    tokio::spawn(connection(machine.clone(), stream));
                },
                _ = away.wait_for(|away| *away) => break,
            }
        }
        drop(listener);
        let _ = std::fs::remove_file(&place);
    }
}

/// Listens at a path, whatever a killed process has left there.
pub(super) fn bind(place: &Path) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(place);
    UnixListener::bind(place)
}

async fn connection(machine: Arc<Machine>, stream: UnixStream) {
    let mut away = machine.away.subscribe();
    let calls = service_fn(|request: Request<Incoming>| {
        let machine = machine.clone();
        async move { Ok::<_, Infallible>(docker::answer(&machine, request).await) }
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), calls);
    tokio::select! {
        // A client that broke off is no concern of the engine's.
        _ = served => {}
        _ = away.wait_for(|away| *away) => {}
    }
}
