//! The limit on all requests of one user: counted on each node, fed from the database in blocks.
//!
//! Decides when a node may go on by itself: with a few requests that are free in every window, and with
//! permits that it took before. Only then the database is asked, for a whole block; its refusal is kept
//! until its time. So a user who asks for little never causes a write, and one who asks for much causes one
//! for each block. On all nodes together more than the limit can pass by what is free on each, and by what
//! is left of a block that was taken before.

use std::sync::{Arc, Mutex};

use super::guard::{Forgetful, locked};
use crate::{
    clock::{Span, Timestamp},
    ids::UserId,
    model::quota::{Quota, Refusal},
    store::{StoreResult, Take},
};

/// Maps, so that requests of different users seldom wait for each other.
const SHARDS: usize = 16;
/// Users that are remembered for certain, in each.
const MOST: usize = 1 << 12;

type Shard = Mutex<Forgetful<UserId, Arc<Account>>>;

/// What a node knows of its users' requests.
pub(super) struct Requests {
    shards: [Shard; SHARDS],
    quota: Quota,
    free: u32,
    block: u32,
}

/// One user's.
struct Account {
    state: Mutex<State>,
    /// Held by whoever asks the database, so that of many requests one asks.
    asking: tokio::sync::Mutex<()>,
}

struct State {
    window: Timestamp,
    free: u32,
    permits: u32,
    refused_until: Timestamp,
}

/// What a node can say by itself.
enum Answer {
    Pass,
    Refused(Span),
    Ask,
}

impl Requests {
    pub(super) fn new(quota: Quota, free: u32, block: u32) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Forgetful::new(MOST))),
            quota,
            free,
            block: block.clamp(1, quota.burst()),
        }
    }

    pub(super) const fn quota(&self) -> Quota {
        self.quota
    }

    /// Admits one request of a user; `lease` takes so many permits from the database.
    ///
    /// # Errors
    /// Whatever `lease` fails with. The inner error is how long to wait.
    pub(super) async fn admit<L>(
        &self,
        user: UserId,
        now: Timestamp,
        lease: impl FnOnce(u32) -> L + Send,
    ) -> StoreResult<Result<(), Span>>
    where
        L: Future<Output = StoreResult<Take>> + Send,
    {
        let account = self.account(user, now);
        match self.ask_node(&account, now) {
            Answer::Pass => return Ok(Ok(())),
            Answer::Refused(after) => return Ok(Err(after)),
            Answer::Ask => {}
        }
        let _asking = account.asking.lock().await;
        match self.ask_node(&account, now) {
            Answer::Pass => return Ok(Ok(())),
            Answer::Refused(after) => return Ok(Err(after)),
            Answer::Ask => {}
        }
        let taken = lease(self.block).await?;
        let mut state = locked(&account.state);
        Ok(match taken {
            Take::Admitted => {
                state.permits = state.permits.saturating_add(self.block - 1);
                Ok(())
            }
            Take::Refused(Refusal { after, .. }) => {
                state.refused_until = now.plus(after);
                Err(after)
            }
        })
    }

    fn account(&self, user: UserId, now: Timestamp) -> Arc<Account> {
        let last = user.as_uuid().as_bytes()[15];
        let mut shard = locked(&self.shards[usize::from(last) % SHARDS]);
        Arc::clone(shard.entry(user, || Arc::new(Account::new(now))))
    }

    fn ask_node(&self, account: &Account, now: Timestamp) -> Answer {
        let mut state = locked(&account.state);
        let window = self.quota.window();
        // Also when the clock went back by as much.
        if now >= state.window.plus(window) || now.plus(window) <= state.window {
            state.window = now;
            state.free = 0;
        }
        if state.permits > 0 {
            state.permits -= 1;
            return Answer::Pass;
        }
        if state.free < self.free {
            state.free += 1;
            return Answer::Pass;
        }
        let until = state.refused_until;
        if until > now && until <= self.quota.latest(now) {
            return Answer::Refused(Span::millis(until.as_millis() - now.as_millis()));
        }
        Answer::Ask
    }
}

impl Account {
    fn new(now: Timestamp) -> Self {
        Self {
            state: Mutex::new(State {
                window: now,
                free: 0,
                permits: 0,
                refused_until: Timestamp::EPOCH,
            }),
            asking: tokio::sync::Mutex::new(()),
        }
    }
}
