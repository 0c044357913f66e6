//! What the programs of the fault suite share: the words of their logs.
//!
//! Three programs, each with one job, which meet only in files of one folder, the *run*:
//! `faults` builds a cluster of network namespaces, breaks it and writes `timeline.jsonl` and
//! `history.jsonl`; `engine` plays the container engines and writes what containers did; `checker`
//! reads all of them, and Redis, and says which promise was broken first.
//!
//! Must never depend on kubeleet's own library: what judges the code must not go through it.

pub mod checker;
pub mod engine;
pub mod logs;
