//! Drains: pods leave nodes that users closed for good.
//!
//! A pod without an owner is told to stop where it is, and waits again once its container is gone:
//! it never runs twice. Of the others only their service is told; its controller makes another
//! first. Any number of schedulers do this; each step may be repeated.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::store::{EvictOutcome, Store, StoreError};

/// Pods that one call looks at.
const STEP: usize = 500;
/// How often services with pods on a draining node are told again: should word have been lost, or
/// a replacement have been impossible at first.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// The drains that are known, each with when its services were told last.
#[derive(Debug, Default)]
pub(super) struct Drains(HashMap<String, Instant>);

impl Drains {
    /// One round over all nodes that drain.
    ///
    /// # Errors
    /// Redis failed; the next round goes on.
    pub(super) async fn go_on(&mut self, store: &Store) -> Result<(), StoreError> {
        let draining = store.nodes().draining().await?;
        self.0.retain(|node, _| draining.contains(node));
        for node in draining {
            let told = self.0.get(&node);
            let tell = told.is_none_or(|at| at.elapsed() >= TELL_INTERVAL);
            evict(store, &node, tell).await?;
            if tell {
                self.0.insert(node, Instant::now());
            }
        }
        Ok(())
    }
}

async fn evict(store: &Store, node: &str, tell: bool) -> Result<(), StoreError> {
    let mut next = 0;
    loop {
        let outcome = store.nodes().evict(node, next, STEP, tell).await?;
        let EvictOutcome::Moving { pods, cursor } = outcome else {
            return Ok(());
        };
        if pods > 0 {
            tracing::info!(node.id = node, pods, "pods leave a draining node");
        }
        if cursor == 0 {
            return Ok(());
        }
        next = cursor;
    }
}
