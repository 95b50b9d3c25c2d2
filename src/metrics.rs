//! Counters that anyone may bump; exporting them is left to others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What one process has done since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Runs of scrypt, for right, wrong and unknown accounts alike.
    pub scrypt_runs: Counter,
    /// Password operations refused because the queue was full.
    pub scrypt_refused: Counter,
    /// Sessions asked for by authenticated requests.
    pub lookups: Counter,
    /// Statements that answered them.
    pub lookup_batches: Counter,
    /// Of the database's circuit.
    pub circuit: CircuitCounters,
}

/// What became of a database's circuit; clones count together.
#[derive(Debug, Clone, Default)]
pub struct CircuitCounters {
    /// How often it opened: the database was found to be away.
    pub opened: Arc<Counter>,
    /// Calls that were refused because it was open.
    pub rejected: Arc<Counter>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
