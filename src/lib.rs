//! kubeleet: containers on many machines, with one Redis as the whole control plane.
//!
//! The modules stand in the order of the flow: a user's wish enters at the top, a container runs
//! at the bottom. `api`, `scheduler`, `controller` and `agent` never import one another: they meet
//! in Redis, through [`store`]. `ARCHITECTURE.md` walks through the life of a pod.

// What everything speaks of.
pub mod model; // nouns and rules: service, pod, node, resources, who may move a pod
pub mod settings; // defaults, file, environment: read once, checked as a whole
pub mod signing; // who may have a container started: keys and signatures
pub mod telemetry; // logs

// The stations of the flow.
pub mod api; // HTTP in: a service becomes pods in the queue
pub mod store; // the only door to Redis
pub mod controller; // wishes that need more than one call are carried on
pub mod scheduler; // waiting pods get a node
pub mod agent; // a node's pods become containers
pub mod container; // the engine: Docker, or simulated

// The faces; they know only the HTTP API.
pub mod cli;
pub mod client;
pub mod wishes; // files become wishes: service files and compose files

// Everything wired together.
pub mod dev; // a whole cluster in one process
pub mod bench; // what `leet bench` measures
pub mod replay; // recorded decisions, planned again for `leet replay` and `leet explain`
pub mod process; // signals, start and failpoints of the binaries
pub mod remedies; // what tests of development builds may leave out

#[cfg(test)]
mod fuzz; // hostile input for parsers
