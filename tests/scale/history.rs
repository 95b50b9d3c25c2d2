//! What one session lived through, and whether that keeps promise 1.
//!
//! Requests overlap, so only what is certain counts: a request that *began* after the acknowledgement of the
//! session's end *had arrived* must not be accepted, and one that was answered before anybody *had begun* to ask for
//! the end must not be refused. All moments are of one clock, in nanoseconds. Of any number of requests only the
//! extreme ones can be faults, so nothing else is kept, and no fault is missed by looking too early: it is judged once,
//! at the end. Who asks, and when, is for `persons` and `load`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Never, for what is the earliest of its kind.
const NEVER: u64 = u64::MAX;

/// One session; any number of tasks note what they see.
#[derive(Debug)]
pub(crate) struct History {
    /// When somebody first began to ask for its end.
    end_asked: AtomicU64,
    /// When it was first acknowledged that it has ended.
    end_acknowledged: AtomicU64,
    /// When the last request began that was accepted; 0 is none.
    last_accepted: AtomicU64,
    /// When the first answer arrived that refused it.
    first_refused: AtomicU64,
}

/// What must not happen to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A request was accepted that began so many nanoseconds after the acknowledgement of the session's end.
    AcceptedAfterItsEnd(u64),
    /// It was refused although nobody had asked for its end yet.
    RefusedBeforeItsEnd,
    /// A request was accepted that began after another one had been refused, and nobody was told of an end.
    AcceptedAgain,
}

impl History {
    /// A session that was just opened.
    pub(crate) const fn new() -> Self {
        Self {
            end_asked: AtomicU64::new(NEVER),
            end_acknowledged: AtomicU64::new(NEVER),
            last_accepted: AtomicU64::new(0),
            first_refused: AtomicU64::new(NEVER),
        }
    }

    /// Somebody begins to ask for its end, once more perhaps.
    pub(crate) fn end_is_asked(&self, at: u64) {
        self.end_asked.fetch_min(at, Relaxed);
    }

    /// The end was acknowledged by an answer that arrived at this moment.
    pub(crate) fn end_is_acknowledged(&self, at: u64) {
        self.end_acknowledged.fetch_min(at, Relaxed);
    }

    /// A request was accepted that began at this moment.
    pub(crate) fn is_accepted(&self, began: u64) {
        self.last_accepted.fetch_max(began, Relaxed);
    }

    /// An answer that arrived at this moment said that the session is over.
    pub(crate) fn is_refused(&self, arrived: u64) {
        self.first_refused.fetch_min(arrived, Relaxed);
    }

    /// Whether its end was acknowledged.
    pub(crate) fn has_ended(&self) -> bool {
        self.end_acknowledged.load(Relaxed) != NEVER
    }

    /// Whether nobody ever asked for its end.
    pub(crate) fn is_to_live(&self) -> bool {
        self.end_asked.load(Relaxed) == NEVER
    }

    /// What is wrong with it, the worst first; to be asked once all who note something are done.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let accepted = self.last_accepted.load(Relaxed);
        let acknowledged = self.end_acknowledged.load(Relaxed);
        let refused = self.first_refused.load(Relaxed);
        if accepted > acknowledged {
            return Some(Fault::AcceptedAfterItsEnd(accepted - acknowledged));
        }
        if refused < self.end_asked.load(Relaxed) {
            return Some(Fault::RefusedBeforeItsEnd);
        }
        (accepted > refused).then_some(Fault::AcceptedAgain)
    }
}
