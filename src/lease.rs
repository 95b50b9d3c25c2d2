//! Leases: what only one node does at a time.
//!
//! Decides who holds one as the database tells; what is done under it, and for how long, is for whoever takes it.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    clock::{Clock, Span},
    entropy::{Entropy, random_bytes},
    store::{Store, StoreResult},
};

/// A lease of this name; clones are one and the same holder.
#[derive(Clone)]
pub(crate) struct Lease {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    name: &'static str,
    holder: Uuid,
}

impl Lease {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        name: &'static str,
    ) -> Self {
        Self {
            store,
            clock,
            name,
            holder: Uuid::from_bytes(random_bytes::<16>(entropy)),
        }
    }

    /// Takes it, or renews it, for so long from now; false while somebody else holds it.
    ///
    /// # Errors
    /// As [`Store::take_lease`].
    pub(crate) async fn hold(&self, span: Span) -> StoreResult<bool> {
        let now = self.clock.now();
        let until = now.plus(span);
        self.store
            .take_lease(self.name, self.holder, until, now)
            .await
    }

    /// Lets go of it: nobody has to wait for the end of a lease whose work is done.
    ///
    /// # Errors
    /// As [`Store::take_lease`].
    pub(crate) async fn let_go(&self) -> StoreResult<()> {
        self.hold(Span::ZERO).await.map(drop)
    }
}
