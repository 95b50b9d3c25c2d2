//! Sealing: gives every new record its place in the chain, and writes down, signed, where the chain ends.
//!
//! One node at a time does it, by a lease; that two could never fork the chain is for the store, which moves the
//! head on the condition that it is the known one. The new head is logged: kept elsewhere, that line shows that
//! records were cut away together with the head that told of them. Nothing is sealed onto an end that is not as it
//! was left. What the chain is worth is for `verifying`.

use std::time::Duration;

use super::{
    Trail,
    verifying::{Break, Flaw},
};
use crate::{
    clock::Span,
    ids::AuditId,
    model::audit::{
        AuditRecord,
        seal::{Mark, MarkName, Sealed},
    },
    store::StoreResult,
};

/// Under which name the nodes agree on who seals.
pub(super) const LEASE_NAME: &str = "audit";
/// How long a node that dies while it seals keeps the others from it.
const LEASE: Span = Span::minutes(1);
/// Records that one step seals.
const BATCH: u32 = 500;
/// How often somebody else may come first, with their lease over, before they are left to it.
const TRIES: u32 = 20;

/// How a run of sealing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealing {
    /// Everything that had been recorded when it began is sealed, unless somebody else took the rest over.
    Done {
        /// How many records this run sealed.
        sealed: u64,
        /// The chain's end; none while nothing has ever been sealed.
        head: Option<Mark>,
    },
    /// Somebody else is sealing.
    Busy,
    /// The end of the chain is not as it was left, or made with another key: nothing was sealed onto it.
    Refused(Break),
}

impl Trail {
    /// How often to seal; never, if it is none. It is done with the trail off as well: of what was recorded
    /// before.
    #[must_use]
    pub fn seal_every(&self) -> Option<Duration> {
        let every = self.0.policy.seal_every;
        (every > Span::ZERO).then(|| every.to_duration())
    }

    /// Seals what is not sealed yet, and logs the new head (ASVS 16.4.2). Done by itself every so often.
    ///
    /// Races with itself on any node: each record is sealed once, and the chain has one end.
    ///
    /// # Errors
    /// As [`Store::seal_audit`](crate::store::Store::seal_audit); what was sealed until then stays sealed.
    pub async fn seal(&self) -> StoreResult<Sealing> {
        let nothing_new = self.0.store.unsealed_audit(1).await?.is_empty();
        let done = if nothing_new {
            let end = self.sound_end().await?;
            end.map_or_else(Sealing::Refused, |head| Sealing::Done { sealed: 0, head })
        } else if self.0.lease.hold(LEASE).await? {
            let done = self.seal_the_rest().await;
            self.0.lease.let_go().await?;
            done?
        } else {
            Sealing::Busy
        };
        match &done {
            Sealing::Done {
                sealed,
                head: Some(head),
            } if *sealed > 0 => {
                tracing::info!(head = %head.to_text(), sealed, "audit trail sealed");
            }
            Sealing::Refused(found) => {
                tracing::error!(%found, "the audit trail is broken at its end; nothing is sealed onto it");
            }
            Sealing::Done { .. } | Sealing::Busy => {}
        }
        Ok(done)
    }

    async fn seal_the_rest(&self) -> StoreResult<Sealing> {
        let (mut sealed, mut in_vain) = (0, 0);
        let mut head = match self.sound_end().await? {
            Ok(head) => head,
            Err(found) => return Ok(Sealing::Refused(found)),
        };
        loop {
            let batch = self.0.store.unsealed_audit(BATCH).await?;
            let (places, end) = self.chain(head.as_ref(), &batch);
            let Some(end) = end else { break };
            let moved = self
                .0
                .store
                .seal_audit(&places, head.as_ref(), &end)
                .await?;
            if moved {
                sealed += places.len() as u64;
                head = Some(end);
                // What was recorded meanwhile can wait, or this might never end.
                if places.len() < BATCH as usize {
                    break;
                }
            } else {
                in_vain += 1;
                head = match self.sound_end().await? {
                    Ok(head) => head,
                    Err(found) => return Ok(Sealing::Refused(found)),
                };
            }
            if in_vain > TRIES || !self.0.lease.hold(LEASE).await? {
                break;
            }
        }
        Ok(Sealing::Done { sealed, head })
    }

    /// The places and seals of these records after this head, and the head behind them; none for no records.
    fn chain(
        &self,
        head: Option<&Mark>,
        records: &[AuditRecord],
    ) -> (Vec<(AuditId, Sealed)>, Option<Mark>) {
        let (mut seq, mut seal) = head.map_or((0, Vec::new()), |h| (h.seq, h.seal.clone()));
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            seq += 1;
            seal = self.0.seal_key.seal(&seal, seq, record);
            let seal = seal.clone();
            places.push((record.id, Sealed { seq, seal }));
        }
        let now = self.0.clock.now();
        let last = places.last();
        let end = last.map(|(_, last)| self.0.seal_key.mark(MarkName::Head, now, last));
        (places, end)
    }

    /// The head, if it is ours and nothing is sealed behind it.
    async fn sound_end(&self) -> StoreResult<Result<Option<Mark>, Break>> {
        loop {
            let head = self.0.store.audit_mark(MarkName::Head).await?;
            let Some(found) = self.flaw_of(head.as_ref()).await? else {
                return Ok(Ok(head));
            };
            // Whoever seals at this moment moves the end between the two looks at it.
            if self.0.store.audit_mark(MarkName::Head).await? == head {
                return Ok(Err(found));
            }
        }
    }

    async fn flaw_of(&self, head: Option<&Mark>) -> StoreResult<Option<Break>> {
        let end = head.map_or(i64::MIN, |head| head.seq);
        if head.is_some_and(|head| !self.0.seal_key.signed(head)) {
            return Ok(Some(Break::at(end, Flaw::HeadForged)));
        }
        let behind = self.0.store.sealed_audit(end, 1).await?.into_iter().next();
        if head.is_some() {
            return Ok(behind.as_ref().map(|r| Break::of(r, Flaw::BeyondHead)));
        }
        if let Some(record) = &behind {
            return Ok(Some(Break::of(record, Flaw::HeadMissing)));
        }
        let checkpoint = self.0.store.audit_mark(MarkName::Checkpoint).await?;
        Ok(checkpoint.map(|cut| Break::at(cut.seq, Flaw::HeadMissing)))
    }
}
