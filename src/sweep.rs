//! The sweeper: removes what is over and only takes up room, in small batches, on one node at a time.
//!
//! Decides what is kept for how long after its end. Nothing depends on it: what is over is refused when it
//! is presented, whether it still stands in the database or not.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    audit::Trail,
    clock::{Clock, Span, Timestamp},
    entropy::Entropy,
    lease::Lease,
    setting::BadSetting,
    store::{Leftover, Store, StoreResult},
};

/// Under which name the nodes agree on who sweeps.
const LEASE_NAME: &str = "sweep";
/// How long a node that dies while it sweeps keeps the others from it.
const LEASE: Span = Span::minutes(5);
/// How long secrets and registrations are kept after their end: longer than their wrong tries are
/// remembered.
const GRACE: Span = Span::days(1);
/// What other writers get between two batches.
const PAUSE: Duration = Duration::from_millis(20);

/// `[sweep]`: how often, how much at once, and what is kept how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepPolicy {
    /// How often a node looks for what is over; `0s` for never. Default 10m.
    pub every: Span,
    /// Rows that one statement removes, 1 to 10000. Default 200.
    pub batch: u32,
    /// How long sessions are kept after the time at which they would have ended by themselves.
    /// Default 30d.
    pub keep_sessions: Span,
    /// How long letters are kept after they were sent, dropped or given up. Default 30d.
    pub keep_letters: Span,
}

impl Default for SweepPolicy {
    fn default() -> Self {
        Self {
            every: Span::minutes(10),
            batch: 200,
            keep_sessions: Span::days(30),
            keep_letters: Span::days(30),
        }
    }
}

impl SweepPolicy {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let never = self.every == Span::ZERO;
        if !never && (self.every < Span::secs(1) || self.every > Span::days(1)) {
            return Err(BadSetting::new(
                "sweep.every",
                format!("{} is not between 1s and 1d", self.every),
                "set it to 10m, or to 0s for never",
            ));
        }
        if !(1..=10_000).contains(&self.batch) {
            return Err(BadSetting::new(
                "sweep.batch",
                format!("{} is outside 1 to 10000", self.batch),
                "set it to 200",
            ));
        }
        for (key, kept) in [
            ("sweep.keep_sessions", self.keep_sessions),
            ("sweep.keep_letters", self.keep_letters),
        ] {
            if kept < Span::secs(1) || kept > Span::days(3650) {
                return Err(BadSetting::new(
                    key,
                    format!("{kept} is not between 1s and ten years"),
                    "set it to 30d",
                ));
            }
        }
        Ok(())
    }
}

/// How much was removed of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Sessions; on MongoDB the users whose sessions they were.
    pub sessions: u64,
    /// Letters.
    pub letters: u64,
    /// One-time secrets.
    pub one_time_secrets: u64,
    /// Registrations that nobody confirmed.
    pub registrations: u64,
    /// Addresses that were kept for the accounts that left them.
    pub kept_addresses: u64,
    /// Accounts whose address nobody verified.
    pub accounts: u64,
    /// Counters of limits.
    pub counters: u64,
    /// Known devices.
    pub devices: u64,
    /// Records of the audit trail; how long they are kept is said by `audit.keep`.
    pub audit_records: u64,
}

impl Swept {
    /// Whether there was nothing to remove.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn of(&mut self, what: Leftover) -> &mut u64 {
        match what {
            Leftover::Sessions => &mut self.sessions,
            Leftover::Letters => &mut self.letters,
            Leftover::OneTimeSecrets => &mut self.one_time_secrets,
            Leftover::Registrations => &mut self.registrations,
            Leftover::KeptAddresses => &mut self.kept_addresses,
            Leftover::Accounts => &mut self.accounts,
            Leftover::Counters => &mut self.counters,
            Leftover::Devices => &mut self.devices,
        }
    }
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sessions,
            letters,
            one_time_secrets,
            registrations,
            kept_addresses,
            accounts,
            counters,
            devices,
            audit_records,
        } = self;
        write!(
            f,
            "sessions {sessions}, letters {letters}, one-time secrets {one_time_secrets}, \
             registrations {registrations}, kept addresses {kept_addresses}, accounts {accounts}, \
             counters {counters}, devices {devices}, audit records {audit_records}"
        )
    }
}

/// Removes what is over; clones are one and the same holder of the lease.
#[derive(Clone)]
pub struct Sweeper {
    store: Arc<dyn Store>,
    trail: Trail,
    clock: Arc<dyn Clock>,
    policy: SweepPolicy,
    lease: Lease,
}

impl Sweeper {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        trail: Trail,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        policy: SweepPolicy,
    ) -> Self {
        let lease = Lease::new(Arc::clone(&store), Arc::clone(&clock), entropy, LEASE_NAME);
        Self {
            store,
            trail,
            clock,
            policy,
            lease,
        }
    }

    /// How often to sweep; never, if it is none.
    pub(crate) fn every(&self) -> Option<Duration> {
        (self.policy.every > Span::ZERO).then(|| self.policy.every.to_duration())
    }

    /// Removes everything that is over and says how much it was; `None` while another node does so.
    ///
    /// # Errors
    /// As [`Store::sweep`] and [`Trail::cut`]; what was removed until then stays removed.
    pub async fn sweep(&self) -> StoreResult<Option<Swept>> {
        let mut swept = Swept::default();
        if !self.lease.hold(LEASE).await? {
            return Ok(None);
        }
        for what in Leftover::ALL {
            while self.sweep_some(what, &mut swept).await? {
                if !self.may_go_on().await? {
                    return Ok(Some(swept));
                }
            }
        }
        while self.cut_some(&mut swept).await? {
            if !self.may_go_on().await? {
                return Ok(Some(swept));
            }
        }
        self.lease.let_go().await?;
        Ok(Some(swept))
    }

    /// Removes a batch; whether there may be more.
    async fn sweep_some(&self, what: Leftover, swept: &mut Swept) -> StoreResult<bool> {
        let before = self.over_before(what);
        let (most, by) = (self.policy.batch, self.trail.by_itself());
        let removed = self.store.sweep(what, before, most, &by).await?;
        *swept.of(what) += u64::from(removed);
        Ok(removed >= most)
    }

    /// As [`Self::sweep_some`], of the audit trail.
    async fn cut_some(&self, swept: &mut Swept) -> StoreResult<bool> {
        let removed = self.trail.cut(self.policy.batch).await?;
        swept.audit_records += u64::from(removed);
        Ok(removed >= self.policy.batch)
    }

    /// Lets others write for a moment; whether the lease is still ours then.
    async fn may_go_on(&self) -> StoreResult<bool> {
        tokio::time::sleep(PAUSE).await;
        self.lease.hold(LEASE).await
    }

    /// What ended before this time goes.
    fn over_before(&self, what: Leftover) -> Timestamp {
        let now = self.clock.now();
        match what {
            Leftover::Sessions => now.minus(self.policy.keep_sessions),
            Leftover::Letters => now.minus(self.policy.keep_letters),
            Leftover::OneTimeSecrets | Leftover::Registrations => now.minus(GRACE),
            Leftover::KeptAddresses
            | Leftover::Accounts
            | Leftover::Counters
            | Leftover::Devices => now,
        }
    }
}
