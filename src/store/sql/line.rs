//! A pool of connections, and those who wait for one.
//!
//! Decides who gets a connection at all: nobody while the circuit is open, and no more wait than the queue has
//! places. How long they wait is for the pool.

use std::time::Duration;

use diesel_async::pooled_connection::bb8::{Pool, PooledConnection};

use super::{Conn, faults::from_pool};
use crate::store::{
    StoreResult,
    circuit::{Circuit, away},
    queue::Queue,
};

/// A pool; clones share its connections and its places.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) pool: Pool<Conn>,
    waiting: Queue,
    circuit: Circuit,
}

impl Line {
    pub(super) fn new(pool: Pool<Conn>, circuit: &Circuit) -> Self {
        Self {
            pool,
            waiting: Queue::default(),
            circuit: circuit.clone(),
        }
    }

    /// A connection, as soon as one is free.
    pub(super) async fn get(&self) -> StoreResult<PooledConnection<'_, Conn>> {
        self.circuit.enter()?;
        let _place = self.waiting.enter()?;
        let free = async { self.pool.get().await.map_err(from_pool) };
        // The pool has a deadline of its own.
        let got = self.circuit.within(Duration::MAX, free).await;
        got.unwrap_or_else(|| Err(away()))
    }
}
