//! What metrics tell of the database as a whole: asked every so often, never on a request's path.
//!
//! Decides what is asked and how what comes back is put. A gauge keeps its last value while the database is
//! away; when it was read is one of them.

use std::{sync::Weak, time::Duration};

use super::Inner;
use crate::{
    clock::{Span, Timestamp},
    store::StoreResult,
};

/// How many times as long as it took to count the sessions they are left alone: the database reads all of them, while
/// requests wait.
const REST: i64 = 200;

/// Asks every so often, for as long as the service exists, beginning now; sessions are counted less often where that
/// takes long.
pub(super) async fn go_on(auth: Weak<Inner>, every: Duration) {
    let mut due = Timestamp::EPOCH;
    loop {
        let Some(auth) = auth.upgrade() else { return };
        let mut observed = ask(&auth).await;
        let before = auth.clock.now();
        if before >= due {
            observed = observed.and(count(&auth).await);
            let after = auth.clock.now();
            let took = after.as_millis().saturating_sub(before.as_millis());
            due = after.plus(Span::millis(took.saturating_mul(REST)));
        }
        // Whoever reads the metrics sees it, and the store has counted it.
        if let Err(error) = observed {
            tracing::debug!(%error, "the database could not be observed");
        }
        drop(auth);
        tokio::time::sleep(every).await;
    }
}

/// Asks for everything once.
pub(super) async fn observe(auth: &Inner) -> StoreResult<()> {
    ask(auth).await?;
    count(auth).await
}

/// Asks for what the database knows at once, and so whether it is there.
async fn ask(auth: &Inner) -> StoreResult<()> {
    let observed = read(auth).await;
    let is_up = if observed.is_ok() { 1.0 } else { 0.0 };
    auth.metrics.database.up.set(is_up);
    observed
}

async fn count(auth: &Inner) -> StoreResult<()> {
    let live = auth.store.count_live_sessions(auth.clock.now()).await?;
    auth.metrics.database.live_sessions.set(float(live));
    Ok(())
}

async fn read(auth: &Inner) -> StoreResult<()> {
    let (store, gauges) = (&auth.store, &auth.metrics.database);
    let before = auth.clock.now();
    let database = store.time().await?;
    let now = auth.clock.now();
    let middle = Timestamp::from_millis(i64::midpoint(before.as_millis(), now.as_millis()));
    gauges.clock_offset.set(seconds(middle, database));
    let (waiting, oldest) = store.waiting_letters().await?;
    gauges.waiting_letters.set(float(waiting));
    let age = oldest.map_or(0.0, |oldest| seconds(oldest, now));
    gauges.oldest_letter.set(age.max(0.0));
    let unsealed = store.count_unsealed_audit().await?;
    gauges.unsealed_records.set(float(unsealed));
    gauges.observed_at.set(seconds(Timestamp::EPOCH, now));
    Ok(())
}

/// From one time to another.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    let span = Span::millis(to.as_millis() - from.as_millis());
    let back = Span::millis(from.as_millis() - to.as_millis());
    // One of the two is no time at all: a duration has no sign.
    span.to_duration().as_secs_f64() - back.to_duration().as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no database has 2^53 sessions or letters"
)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_is_negative() {
        let (one, two) = (Timestamp::from_millis(1000), Timestamp::from_millis(3500));
        assert!((seconds(one, two) - 2.5).abs() < 1e-9);
        assert!((seconds(two, one) + 2.5).abs() < 1e-9);
    }
}
