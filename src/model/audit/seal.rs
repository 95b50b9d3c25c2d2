//! Seals: a chain over all records, made with a key that the database does not have.
//!
//! A record's seal covers what it says, its place and the seal before it, so that a record that is changed,
//! removed, added or moved makes its seal, or the one that follows, a wrong one. Where the chain ends is written down
//! signed ([`Mark`]), so that its last records cannot be taken away unnoticed; where it begins after old records
//! were removed, as well (ASVS 16.4.2).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::AuditRecord;
use crate::clock::Timestamp;

/// How long a seal is.
pub const SEAL: usize = 32;

/// A record's place in the chain, and its seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its place; the first record ever has 1.
    pub seq: i64,
    /// HMAC-SHA-256 over the seal before it, its place and all it says.
    pub seal: Vec<u8>,
}

/// Which place of the chain is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkName {
    /// The last sealed record.
    Head,
    /// The last record that was removed for its age.
    Checkpoint,
}

impl MarkName {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// A place of the chain, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which.
    pub name: MarkName,
    /// The record's place.
    pub seq: i64,
    /// Its seal.
    pub seal: Vec<u8>,
    /// When this was written down.
    pub at: Timestamp,
    /// HMAC-SHA-256 over all of it.
    pub signature: Vec<u8>,
}

impl Mark {
    /// Its place and its seal, for the log and for `doorward audit verify --head`.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}:{}", self.seq, URL_SAFE_NO_PAD.encode(&self.seal))
    }

    /// The reverse of [`Self::to_text`].
    #[must_use]
    pub fn parse_text(text: &str) -> Option<Sealed> {
        let (seq, seal) = text.trim().split_once(':')?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        (seal.len() == SEAL).then_some(Sealed { seq, seal })
    }
}

/// What seals and signs.
#[derive(Clone)]
pub struct SealKey(hmac::Key);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(***)")
    }
}

impl SealKey {
    pub(super) const fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The seal of a record at a place, after the one that has this seal; the first of all comes after an empty
    /// one.
    #[must_use]
    pub fn seal(&self, before: &[u8], seq: i64, record: &AuditRecord) -> Vec<u8> {
        let mut context = Fields::with(&self.0, b"doorward audit record 1");
        context.add(before);
        context.add(&seq.to_be_bytes());
        context.add(record.id.as_uuid().as_bytes());
        context.add(&record.at.as_millis().to_be_bytes());
        context.add(record.event.as_bytes());
        context.add(record.outcome.as_bytes());
        context.add_if(record.reason.as_deref().map(str::as_bytes));
        context.add(record.actor.as_bytes());
        let uuids = [
            record.actor_id.map(crate::ids::UserId::as_uuid),
            record.actor_session.map(crate::ids::SessionId::as_uuid),
            record.subject.map(crate::ids::UserId::as_uuid),
            record.session.map(crate::ids::SessionId::as_uuid),
            record.person.map(crate::ids::UserId::as_uuid),
        ];
        for uuid in uuids {
            context.add_if(uuid.as_ref().map(|uuid| &uuid.as_bytes()[..]));
        }
        context.add_if(record.request_id.as_deref().map(str::as_bytes));
        context.add_if(record.details.as_deref());
        context.add_if(record.facts.as_deref().map(str::as_bytes));
        context.sign()
    }

    /// Whether a record's seal is the one that its place and the seal before it give.
    #[must_use]
    pub fn fits(&self, before: &[u8], record: &AuditRecord, sealed: &Sealed) -> bool {
        same(&self.seal(before, sealed.seq, record), &sealed.seal)
    }

    /// Signs a place of the chain.
    #[must_use]
    pub fn mark(&self, name: MarkName, at: Timestamp, sealed: &Sealed) -> Mark {
        Mark {
            name,
            seq: sealed.seq,
            seal: sealed.seal.clone(),
            at,
            signature: self.signature(name, sealed.seq, &sealed.seal, at),
        }
    }

    /// Whether a mark was signed with this key, as it is.
    #[must_use]
    pub fn signed(&self, mark: &Mark) -> bool {
        let signature = self.signature(mark.name, mark.seq, &mark.seal, mark.at);
        same(&signature, &mark.signature)
    }

    fn signature(&self, name: MarkName, seq: i64, seal: &[u8], at: Timestamp) -> Vec<u8> {
        let mut context = Fields::with(&self.0, b"doorward audit mark 1");
        context.add(name.as_str().as_bytes());
        context.add(&seq.to_be_bytes());
        context.add(seal);
        context.add(&at.as_millis().to_be_bytes());
        context.sign()
    }
}

fn same(one: &[u8], other: &[u8]) -> bool {
    use subtle::ConstantTimeEq;
    one.ct_eq(other).into()
}

/// Signs a row of fields, each with its length before it, so that none can run into the next.
struct Fields(hmac::Context);

impl Fields {
    fn with(key: &hmac::Key, what: &[u8]) -> Self {
        let mut fields = Self(hmac::Context::with_key(key));
        fields.add(what);
        fields
    }

    fn add(&mut self, field: &[u8]) {
        let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(field);
    }

    /// A field that is absent is not the same as an empty one.
    fn add_if(&mut self, field: Option<&[u8]>) {
        match field {
            Some(field) => self.add(field),
            None => self.0.update(&u64::MAX.to_be_bytes()),
        }
    }

    fn sign(self) -> Vec<u8> {
        self.0.sign().as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entropy::SystemEntropy,
        ids::{AuditId, SessionId, UserId},
    };

    fn key(secret: u8) -> SealKey {
        SealKey::new(hmac::Key::new(hmac::HMAC_SHA256, &[secret; 32]))
    }

    fn record() -> AuditRecord {
        let at = Timestamp::from_millis(1_800_000_000_000);
        AuditRecord {
            id: AuditId::fresh(at, &SystemEntropy),
            at,
            event: "login".to_owned(),
            outcome: "done".to_owned(),
            reason: None,
            actor: "user".to_owned(),
            actor_id: Some(UserId::fresh(at, &SystemEntropy)),
            actor_session: None,
            subject: Some(UserId::fresh(at, &SystemEntropy)),
            session: None,
            request_id: Some("r1".to_owned()),
            person: None,
            details: Some(vec![1, 2, 3]),
            facts: None,
            sealed: None,
        }
    }

    /// ASVS 16.4.2.
    #[test]
    fn a_seal_covers_everything_a_record_says() {
        let (key, record) = (key(1), record());
        let sealed = Sealed {
            seq: 5,
            seal: key.seal(b"before", 5, &record),
        };
        assert!(key.fits(b"before", &record, &sealed));
        let at = record.at;
        let edits: [fn(&mut AuditRecord); 14] = [
            |r| r.id = AuditId::fresh(r.at, &SystemEntropy),
            |r| r.at = r.at.plus(crate::clock::Span::millis(1)),
            |r| r.event.push('x'),
            |r| r.outcome = "refused".to_owned(),
            |r| r.reason = Some(String::new()),
            |r| r.actor = "operator".to_owned(),
            |r| r.actor_id = None,
            |r| r.actor_session = Some(SessionId::fresh(r.at, &SystemEntropy)),
            |r| std::mem::swap(&mut r.subject, &mut r.actor_id),
            |r| r.session = Some(SessionId::fresh(r.at, &SystemEntropy)),
            |r| r.person = r.subject,
            |r| r.request_id = None,
            |r| r.details = None,
            |r| r.facts = Some("{}".to_owned()),
        ];
        for (index, edit) in edits.into_iter().enumerate() {
            let mut edited = record.clone();
            edit(&mut edited);
            assert!(!key.fits(b"before", &edited, &sealed), "edit {index}");
        }
        assert!(!key.fits(b"other", &record, &sealed));
        assert!(!super::tests::key(2).fits(b"before", &record, &sealed));
        let moved = Sealed {
            seq: 6,
            ..sealed.clone()
        };
        assert!(!key.fits(b"before", &record, &moved));
        let mark = key.mark(MarkName::Head, at, &sealed);
        assert!(key.signed(&mark));
        assert!(!key.signed(&Mark {
            seq: 4,
            ..mark.clone()
        }));
        assert!(!key.signed(&Mark {
            name: MarkName::Checkpoint,
            ..mark.clone()
        }));
        assert_eq!(Mark::parse_text(&mark.to_text()), Some(sealed));
    }
}
