//! What the API asks of a node's agent: the text of a session's request.

use serde::{Deserialize, Serialize};

use super::{ExecWish, PodId};

/// Most pods asked about by one request.
pub const STATS_PODS_MAX: usize = 1000;

/// A request to the agent of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum NodeRequest {
    /// Lines of a container's log.
    Logs {
        /// The pod.
        pod: PodId,
        /// Which lines.
        wish: LogWish,
        /// Most batches that may wait in Redis until they are read; the usual bound where none is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unread_max: Option<usize>,
    },
    /// Run a command in a container.
    Exec {
        /// The pod.
        pod: PodId,
        /// What to run.
        wish: ExecWish,
    },
    /// What containers use.
    Stats {
        /// The pods; all of the node where none is named.
        pods: Vec<PodId>,
    },
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogWish {
    /// Go on with what is written from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Only the last ones, this many; all where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Only those that are no older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// Where in a log to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// So many milliseconds ago, by the clock of the node that wrote it.
    AgoMs(u64),
    /// Behind this time, as a line has it: RFC 3339 in UTC with nine digits.
    After(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TerminalSize;

    #[test]
    fn requests_read_back() {
        let pod = PodId::parse("abc-1").unwrap();
        let wish = LogWish {
            follow: true,
            tail: Some(5),
            since: Some(Since::AgoMs(1000)),
        };
        let exec = ExecWish {
            command: vec!["sh".to_owned()],
            tty: true,
            stdin: true,
            size: Some(TerminalSize {
                columns: 80,
                rows: 24,
            }),
        };
        for request in [
            NodeRequest::Logs {
                pod: pod.clone(),
                wish,
                unread_max: Some(2),
            },
            NodeRequest::Exec {
                pod: pod.clone(),
                wish: exec,
            },
            NodeRequest::Stats { pods: vec![pod] },
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(
                serde_json::from_str::<NodeRequest>(&text).unwrap(),
                request,
                "{text}"
            );
        }
    }
}
