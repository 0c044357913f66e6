//! What Redis has had to do so far, for measures.

use super::call::command;
use super::{Store, StoreError};

/// Sums since the server's start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreLoad {
    /// Commands, those within functions too.
    pub commands: u64,
    /// Bytes it was sent.
    pub bytes_in: u64,
    /// Bytes it has sent.
    pub bytes_out: u64,
    /// Seconds of cpu time.
    pub cpu_s: f64,
}

impl Store {
    /// What Redis has had to do so far.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn load(&self) -> Result<StoreLoad, StoreError> {
        let mut info = command("INFO");
        info.arg("stats").arg("cpu");
        let mut pipeline = redis::pipe();
        pipeline.add_command(info);
        let (info,): (String,) = self.read("INFO", &pipeline).await?;
        let text = |field: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        };
        let count = |field: &str| text(field).and_then(|text| text.parse().ok());
        let seconds = |field: &str| text(field).and_then(|text| text.parse::<f64>().ok());
        Ok(StoreLoad {
            commands: count("total_commands_processed").unwrap_or(0),
            bytes_in: count("total_net_input_bytes").unwrap_or(0),
            bytes_out: count("total_net_output_bytes").unwrap_or(0),
            cpu_s: seconds("used_cpu_sys").unwrap_or(0.0) + seconds("used_cpu_user").unwrap_or(0.0),
        })
    }
}
