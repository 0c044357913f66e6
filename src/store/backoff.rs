//! backoff
/// b
#[derive(Debug)]
pub struct Backoff;
impl Backoff {
    /// n
    pub fn new() -> Backoff {
        Backoff
    }
    /// r
    pub fn reset(&mut self) {}
    /// w
    pub async fn wait(&mut self, _s: &tokio_util::sync::CancellationToken) {}
}
