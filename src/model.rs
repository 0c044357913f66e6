//! Nouns and rules: what a service, a pod and a node are, and who may move a pod.
//!
//! Used by every station. Must never do I/O, read a clock or name a library that does.

pub mod amounts;
pub mod decision;
pub(crate) mod digits;
pub mod event;
pub mod exec;
pub mod explain;
pub mod image;
pub mod log;
pub mod name;
pub mod node;
pub mod phase;
pub mod placement;
pub mod pod;
pub mod port;
pub mod request;
pub mod resources;
pub mod service;
pub mod span;
pub mod stats;
pub mod violation;

pub use amounts::Amounts;
pub use decision::Decision;
pub use event::{EntryId, Event, EventFilter, Position, Subject};
pub use exec::{ExecFrame, ExecWish, TerminalSize};
pub use image::ImageReference;
pub use log::{LINE_BYTES_MAX, LogItem, LogLine, LogStream};
pub use node::{Capacity, EngineState, Node, NodeState, Pressure};
pub use phase::{Desired, Phase};
pub use placement::{Placement, Strategy};
pub use pod::{Owner, Pod, PodId, RawPod, Token};
pub use port::{Port, Protocol};
pub use request::{LogWish, NodeRequest, Since};
pub use resources::Resources;
pub use service::{Priority, Service, ServiceKey, ServiceSpec};
pub use span::Span;
pub use stats::{PodStats, StatsAnswer, Usage};
pub use violation::Violation;
