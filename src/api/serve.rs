//! Connections: accepting, serving and draining them, each step bounded.
//!
//! In place of `axum::serve`, which neither bounds connections nor the time a header may take.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Most connections at once; more wait in the kernel's backlog. Far below the usual limit of
/// 1,024 open files with the Redis pool beside them.
const CONNECTIONS_MAX: usize = 800;
/// Longest time for a request's header, and for an idle connection between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for requests in flight after the shutdown; SIGTERM has to end within 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a peer is asked for a sign of life, and how often before it counts as lost.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;
/// How long as many connections as there may be stand in the way of others, before those that ask
/// for nothing are closed: whoever opens many and keeps silent must not shut others out.
const CROWDED_TIME: Duration = Duration::from_millis(500);
/// Pause after a failed accept: the process is out of files, which connections that end give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then drains.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut crowd = shutdown.child_token();
    loop {
        let full = connections.len() >= CONNECTIONS_MAX;
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Ended connections are taken out as they end, so the set holds only living ones.
            Some(_) = connections.join_next() => {}
            () = tokio::time::sleep(CROWDED_TIME), if full => {
                tracing::warn!("{CONNECTIONS_MAX} connections are open: those without a request are closed");
                crowd.cancel();
                crowd = shutdown.child_token();
            }
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, router.clone(), crowd.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // From here on connecting is refused, so a balancer goes elsewhere at once.
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("API ends with requests in flight after {DRAIN_TIMEOUT:?}");
    }
}

/// Serves a connection; once `farewell` is said it ends after the request in flight, if there is one.
async fn serve_one(stream: TcpStream, router: Router, farewell: CancellationToken) {
    // Answers are small and whole; an error only means that the peer is gone already.
    let _ = stream.set_nodelay(true);
    notice_lost_peers(&stream);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = farewell.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // The peer went away or spoke no HTTP: its own matter.
        tracing::debug!(%error, "connection ended");
    }
}

/// A peer that is lost without a word, with its machine or its network, is noticed although nothing
/// is to be sent to it: whoever follows logs may wait for long.
fn notice_lost_peers(stream: &TcpStream) {
    // Where a socket does not take it, the peer is noticed when something is sent.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 3);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
