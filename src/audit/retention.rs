//! Retention: removes sealed records once they are old, from the beginning of the chain on.
//!
//! What is removed is checked first: a record whose time was changed, so that it looks old, is not removed for it,
//! and neither is what follows it. Where the chain begins from then on is signed and written down in the step that
//! removes, so that nobody else can take records away in the name of their age. When to do it is for the sweeper.

use super::Trail;
use crate::{
    clock::Timestamp,
    model::audit::{
        AuditRecord,
        seal::{Mark, MarkName, Sealed},
    },
    store::StoreResult,
};

impl Trail {
    /// Removes at most `most` sealed records that are older than `audit.keep`, oldest place first; says how
    /// many. Fewer than `most` means that there are no more, or that what follows does not fit into the chain:
    /// then that is logged, and it stays. Nothing is removed while a mark of the chain is not signed by us.
    ///
    /// One node at a time may do it; what another left half removed is finished.
    ///
    /// # Errors
    /// As [`Store::cut_audit`](crate::store::Store::cut_audit).
    pub async fn cut(&self, most: u32) -> StoreResult<u32> {
        let store = &self.0.store;
        let Some(head) = store.audit_mark(MarkName::Head).await? else {
            return Ok(0);
        };
        let known = store.audit_mark(MarkName::Checkpoint).await?;
        let key = &self.0.seal_key;
        if !key.signed(&head) || known.as_ref().is_some_and(|known| !key.signed(known)) {
            tracing::error!("the marks of the audit trail are not ours; no old record is removed");
            return Ok(0);
        }
        let after = known.as_ref().map_or(0, |known| known.seq);
        let records = store.sealed_audit(after, most).await?;
        let now = self.0.clock.now();
        let limit = now.minus(self.0.policy.keep);
        let further = self.last_before(limit, known.as_ref(), &head, &records);
        let further = further.map(|last| key.mark(MarkName::Checkpoint, now, last));
        match further.or(known) {
            Some(checkpoint) => store.cut_audit(&checkpoint, most).await,
            None => Ok(0),
        }
    }

    /// The last of the records that follow the checkpoint one by one, are older than this and no further than
    /// the head.
    fn last_before<'a>(
        &self,
        limit: Timestamp,
        checkpoint: Option<&Mark>,
        head: &Mark,
        records: &'a [AuditRecord],
    ) -> Option<&'a Sealed> {
        let (mut seq, mut seal) = checkpoint.map_or((0, &[][..]), |cut| (cut.seq, &cut.seal));
        let mut last = None;
        for record in records.iter().take_while(|record| record.at < limit) {
            let sealed = record.sealed.as_ref()?;
            if sealed.seq != seq + 1
                || sealed.seq > head.seq
                || !self.0.seal_key.fits(seal, record, sealed)
            {
                let id = record.id;
                tracing::error!(record.id = %id, "an audit record does not fit; it is not removed");
                break;
            }
            (seq, seal) = (sealed.seq, &sealed.seal);
            last = Some(sealed);
        }
        last
    }
}
