//! api
use crate::{settings::Settings, store::Store};
/// x
pub async fn run(
    _l: tokio::net::TcpListener,
    _s: Store,
    _t: &Settings,
    shutdown: tokio_util::sync::CancellationToken,
) -> Result<(), std::io::Error> {
    shutdown.cancelled().await;
    Ok(())
}
