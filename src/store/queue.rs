//! How many may wait for a connection.
//!
//! Decides that a wait which would not end well is not begun: beyond a number, whoever comes is told at once that the
//! database is unavailable, and what waits takes no more memory than that many (ASVS 13.1.2). How long one may
//! wait is for the backends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{StoreError, StoreResult};

/// Who may wait for one pool. With ten connections and a statement of ten milliseconds, the last of so many waits
/// for a second.
const LONGEST: usize = 1024;

/// Those who wait for the same thing; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue(Arc<AtomicUsize>);

impl Queue {
    /// A place, given back when it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when none is free.
    pub(crate) fn enter(&self) -> StoreResult<Place> {
        let place = Place(Arc::clone(&self.0));
        if self.0.fetch_add(1, Ordering::Relaxed) < LONGEST {
            return Ok(place);
        }
        Err(StoreError::Unavailable("too many wait for it".into()))
    }
}

/// A place among those who wait.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_nobody_until_somebody_leaves() {
        let queue = Queue::default();
        let mut waiting: Vec<_> = (0..LONGEST).map(|_| queue.enter().expect("free")).collect();
        for _ in 0..3 {
            queue.clone().enter().expect_err("full");
        }
        waiting.pop();
        let last = queue.enter().expect("one place");
        queue.enter().expect_err("full again");
        drop((waiting, last));
        assert_eq!(queue.0.load(Ordering::Relaxed), 0);
    }
}
