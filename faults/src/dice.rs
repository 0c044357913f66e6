//! Dice that fall the same way for the same seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Dice of a seed.
pub(crate) struct Dice(StdRng);

impl Dice {
    /// Dice of a seed, for one who throws them.
    pub(crate) fn new(seed: u64, who: u64) -> Dice {
        Dice(StdRng::seed_from_u64(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(who),
        ))
    }

    /// A number from 0 to below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }

    /// True in so many of a hundred throws.
    pub(crate) fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    /// One of some.
    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        // Callers give lists that are written out.
        *of.choose(&mut self.0).unwrap_or(&of[0])
    }

    /// Some different ones, in any order.
    pub(crate) fn some<T: Copy>(&mut self, of: &[T], count: usize) -> Vec<T> {
        of.sample(&mut self.0, count).copied().collect()
    }

    /// A time between two numbers of milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..=to))
    }
}
