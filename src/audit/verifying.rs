//! Verification: walks the whole chain and tells where it is not as it was sealed.
//!
//! Decides what is a break and what is not: records that are sealed, or removed for their age, while it walks are
//! none. It cannot see what was done to records before they were sealed, and an older state of the whole
//! database only by a head that was kept elsewhere. What to do about a break is the operator's.

use std::fmt;

use super::Trail;
use crate::{
    ids::AuditId,
    model::audit::{
        AuditRecord,
        seal::{Mark, MarkName, Sealed},
    },
    store::StoreResult,
};

/// Records that are read at once.
const BATCH: u32 = 500;
/// Breaks that are told one by one.
const TOLD: usize = 100;

/// What is wrong with a place of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The records from this place up to that one are gone.
    Missing {
        /// The last of them.
        until: i64,
    },
    /// The record was changed, put here from another place, or added.
    WrongSeal,
    /// The record has a place behind the chain's end.
    BeyondHead,
    /// The record has a place before the first there is.
    BeforeBeginning,
    /// The end is not written down although there are sealed records.
    HeadMissing,
    /// The end that is written down was not signed with our key.
    HeadForged,
    /// The end that is written down has another seal than the record there.
    HeadDiffers,
    /// The end that is written down lies before records that were removed for their age.
    HeadBehindCheckpoint,
    /// The beginning that is written down was not signed with our key.
    CheckpointForged,
    /// The head that the caller knows is not in the chain.
    KnownHeadGone,
    /// The head that the caller knows was removed for its age: it proves nothing any more.
    KnownHeadTooOld,
}

impl Flaw {
    /// Its name, for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::WrongSeal => "wrong_seal",
            Self::BeyondHead => "beyond_head",
            Self::BeforeBeginning => "before_beginning",
            Self::HeadMissing => "head_missing",
            Self::HeadForged => "head_forged",
            Self::HeadDiffers => "head_differs",
            Self::HeadBehindCheckpoint => "head_behind_checkpoint",
            Self::CheckpointForged => "checkpoint_forged",
            Self::KnownHeadGone => "known_head_gone",
            Self::KnownHeadTooOld => "known_head_too_old",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Missing { .. } => "records are missing",
            Self::WrongSeal => "the seal is wrong: the record was changed, moved or added",
            Self::BeyondHead => "the record stands behind the end of the chain",
            Self::BeforeBeginning => "the record stands before the beginning of the chain",
            Self::HeadMissing => "the end of the chain is not written down any more",
            Self::HeadForged => {
                "the end that is written down is forged, or signed with another audit key"
            }
            Self::HeadDiffers => "the end that is written down is not this record's",
            Self::HeadBehindCheckpoint => {
                "the end that is written down lies before records that were removed for their age"
            }
            Self::CheckpointForged => {
                "the beginning that is written down is forged, or signed with another audit key"
            }
            Self::KnownHeadGone => {
                "the given head is not in the chain: an older state was restored, or the end was cut off"
            }
            Self::KnownHeadTooOld => {
                "the given head was removed for its age and proves nothing any more; give a newer one"
            }
        }
    }
}

/// A place where the chain is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The place.
    pub place: i64,
    /// The record that stands there.
    pub record: Option<AuditId>,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl Break {
    pub(super) const fn at(place: i64, flaw: Flaw) -> Self {
        Self {
            place,
            record: None,
            flaw,
        }
    }

    pub(super) fn of(record: &AuditRecord, flaw: Flaw) -> Self {
        Self {
            place: record.sealed.as_ref().map_or(0, |sealed| sealed.seq),
            record: Some(record.id),
            flaw,
        }
    }
}

/// As a line for people.
impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "place {}", self.place)?;
        if let Flaw::Missing { until } = self.flaw {
            write!(f, " to {until}")?;
        }
        if let Some(id) = self.record {
            write!(f, ", record {id}")?;
        }
        write!(f, ": {}", self.flaw.in_words())
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Sealed records that were looked at, whole or not.
    pub records: u64,
    /// The place of the first of them.
    pub first: Option<i64>,
    /// The place of the last of them.
    pub last: Option<i64>,
    /// Where the chain begins since old records were removed, if that is signed.
    pub checkpoint: Option<Mark>,
    /// Where the chain ended when this began, if that is signed.
    pub head: Option<Mark>,
    /// Records that are not sealed yet: nothing is known of these.
    pub unsealed: u64,
    /// Records before the checkpoint that the sweeper has not come to yet: these are not looked at.
    pub expired: u64,
    /// Where the chain is not as it was sealed, at most a hundred of them.
    pub breaks: Vec<Break>,
    /// How many more there are.
    pub more_breaks: u64,
}

impl Verified {
    /// Whether all is as it was sealed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.breaks.is_empty()
    }
}

impl Trail {
    /// Walks the chain up to where it ends now, and compares it with a head that was kept elsewhere, if one is
    /// given (ASVS 16.4.2). Reads in batches. What is sealed or removed for its age meanwhile is no break.
    ///
    /// # Errors
    /// As [`Store::sealed_audit`](crate::store::Store::sealed_audit).
    pub async fn verify(&self, known: Option<Sealed>) -> StoreResult<Verified> {
        let mut walk = Walk::begin(self, known).await?;
        while walk.go_on().await? {}
        walk.end().await
    }
}

/// Where a verification is.
struct Walk<'a> {
    trail: &'a Trail,
    /// The place that comes next; none where the chain begins is not known.
    next: Option<i64>,
    /// The seal that the next record's must follow, or two where it is not clear which was changed; none where
    /// it is gone.
    before: Vec<Vec<u8>>,
    /// The last place that was read.
    read: i64,
    /// A head that the caller knows, until it is found.
    known: Option<Sealed>,
    report: Verified,
}

impl<'a> Walk<'a> {
    /// Reads the head first: what is sealed from then on is not judged.
    async fn begin(trail: &'a Trail, known: Option<Sealed>) -> StoreResult<Self> {
        let store = &trail.0.store;
        let (head, checkpoint, is_empty) = loop {
            let head = store.audit_mark(MarkName::Head).await?;
            let checkpoint = store.audit_mark(MarkName::Checkpoint).await?;
            let is_empty = store.sealed_audit(i64::MIN, 1).await?.is_empty();
            if store.audit_mark(MarkName::Head).await? == head {
                break (head, checkpoint, is_empty);
            }
        };
        let mut walk = Self {
            trail,
            next: Some(1),
            before: vec![Vec::new()],
            read: i64::MIN,
            known,
            report: Verified::default(),
        };
        match checkpoint {
            Some(cut) if trail.0.seal_key.signed(&cut) => walk.begin_after(cut),
            Some(cut) => {
                walk.tell(Break::at(cut.seq, Flaw::CheckpointForged));
                (walk.next, walk.before) = (None, Vec::new());
            }
            None => {}
        }
        match head {
            Some(head) if trail.0.seal_key.signed(&head) => {
                if walk.checkpoint_place().is_some_and(|cut| cut > head.seq) {
                    walk.tell(Break::at(head.seq, Flaw::HeadBehindCheckpoint));
                }
                walk.report.head = Some(head);
            }
            Some(head) => walk.tell(Break::at(head.seq, Flaw::HeadForged)),
            None if is_empty && walk.checkpoint_place().is_none() => {}
            None => walk.tell(Break::at(0, Flaw::HeadMissing)),
        }
        Ok(walk)
    }

    fn begin_after(&mut self, checkpoint: Mark) {
        self.next = Some(checkpoint.seq + 1);
        self.before = vec![checkpoint.seal.clone()];
        self.report.checkpoint = Some(checkpoint);
    }

    fn checkpoint_place(&self) -> Option<i64> {
        self.report.checkpoint.as_ref().map(|cut| cut.seq)
    }

    /// Up to where records are judged: to the very last, where the end is not known.
    fn limit(&self) -> i64 {
        self.report.head.as_ref().map_or(i64::MAX, |head| head.seq)
    }

    fn tell(&mut self, found: Break) {
        if self.report.breaks.len() < TOLD {
            self.report.breaks.push(found);
        } else {
            self.report.more_breaks += 1;
        }
    }

    /// Judges a batch; whether there may be more.
    async fn go_on(&mut self) -> StoreResult<bool> {
        let store = &self.trail.0.store;
        let records = store.sealed_audit(self.read, BATCH).await?;
        for record in &records {
            let Some(sealed) = &record.sealed else {
                continue;
            };
            if sealed.seq > self.limit() {
                return Ok(false);
            }
            self.read = sealed.seq;
            if self.next.is_some_and(|next| sealed.seq > next) {
                self.cross_gap(sealed.seq - 1).await?;
            }
            self.judge(record, sealed);
        }
        Ok(!records.is_empty())
    }

    /// The places from the next one up to this are empty: taken away by the sweeper meanwhile, or by somebody
    /// else.
    async fn cross_gap(&mut self, until: i64) -> StoreResult<()> {
        let store = &self.trail.0.store;
        let checkpoint = store.audit_mark(MarkName::Checkpoint).await?;
        let checkpoint = checkpoint.filter(|cut| self.trail.0.seal_key.signed(cut));
        let known = self.checkpoint_place().unwrap_or(0);
        if let Some(cut) = checkpoint.filter(|cut| cut.seq > known) {
            self.begin_after(cut);
        }
        if let Some(next) = self.next.filter(|next| *next <= until) {
            self.tell(Break::at(next, Flaw::Missing { until }));
            self.before.clear();
        }
        Ok(())
    }

    fn judge(&mut self, record: &AuditRecord, sealed: &Sealed) {
        if self.checkpoint_place().is_some_and(|cut| sealed.seq <= cut) {
            self.report.expired += 1;
            return;
        }
        self.report.records += 1;
        self.report.first.get_or_insert(sealed.seq);
        self.report.last = Some(sealed.seq);
        if sealed.seq < 1 {
            self.tell(Break::of(record, Flaw::BeforeBeginning));
            return;
        }
        let key = &self.trail.0.seal_key;
        let fits = |before: &Vec<u8>| key.fits(before, record, sealed);
        let is_whole = self.before.is_empty() || self.before.iter().any(fits);
        // Whoever changed the record left its seal, and whoever changed the seal left the record: the next one
        // follows one of the two. So one change is one break.
        let told = self.before.first().filter(|_| !is_whole);
        let told = told.map(|before| key.seal(before, sealed.seq, record));
        self.before = [Some(sealed.seal.clone()), told]
            .into_iter()
            .flatten()
            .collect();
        self.next = Some(sealed.seq + 1);
        if !is_whole {
            self.tell(Break::of(record, Flaw::WrongSeal));
        }
        let head = self.report.head.as_ref();
        let is_other = head.is_some_and(|h| h.seq == sealed.seq && h.seal != sealed.seal);
        if is_other && is_whole {
            self.tell(Break::of(record, Flaw::HeadDiffers));
        }
        if self.known.as_ref() == Some(sealed) {
            self.known = None;
        }
    }

    /// What can be said once every record was looked at.
    async fn end(mut self) -> StoreResult<Verified> {
        let end = self.report.head.as_ref().map(|head| head.seq);
        if let Some(end) = end.filter(|end| self.next.is_some_and(|next| next <= *end)) {
            self.cross_gap(end).await?;
        }
        if let Some(known) = self.known.take() {
            self.judge_known(&known);
        }
        if end.is_some() {
            self.find_beyond().await?;
        }
        self.report.unsealed = self.trail.0.store.count_unsealed_audit().await?;
        Ok(self.report)
    }

    /// The head that the caller knows was not among the records.
    fn judge_known(&mut self, known: &Sealed) {
        let checkpoint = self.report.checkpoint.as_ref();
        if checkpoint.is_some_and(|cut| cut.seq == known.seq && cut.seal == known.seal) {
            return;
        }
        let is_old = checkpoint.is_some_and(|cut| known.seq < cut.seq);
        let flaw = if is_old {
            Flaw::KnownHeadTooOld
        } else {
            Flaw::KnownHeadGone
        };
        self.tell(Break::at(known.seq, flaw));
    }

    /// Records behind the end as it is by now.
    async fn find_beyond(&mut self) -> StoreResult<()> {
        let store = &self.trail.0.store;
        loop {
            let head = store.audit_mark(MarkName::Head).await?;
            let ours = head.as_ref().filter(|h| self.trail.0.seal_key.signed(h));
            let mut end = ours.map_or(self.limit(), |head| head.seq);
            let mut beyond = store.sealed_audit(end, BATCH).await?;
            if store.audit_mark(MarkName::Head).await? != head {
                continue;
            }
            while let Some(last) = beyond.last() {
                end = last.sealed.as_ref().map_or(i64::MAX, |sealed| sealed.seq);
                for record in &beyond {
                    self.tell(Break::of(record, Flaw::BeyondHead));
                }
                beyond = store.sealed_audit(end, BATCH).await?;
            }
            return Ok(());
        }
    }
}
