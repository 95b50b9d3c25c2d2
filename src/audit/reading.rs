//! Reading the trail: records with their details opened, and what users see of their own.
//!
//! Decides whose details are shown to whom: all that can be opened to whoever may read the trail, to a user only
//! what tells of themselves. Whether a record was changed since it was written is for the seals; who may read at
//! all is decided at the edge.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::{Map, Value, json};

use super::Trail;
use crate::{
    clock::Timestamp,
    error::{AuthResult, FieldError},
    ids::{AuditId, SessionId, UserId},
    model::audit::{
        Agent, AuditFilter, AuditRecord, Details, Event, EventKind, Recorder, WrappedKey,
    },
    paging::{LONGEST_PAGE, Page},
};

/// What is left of a record's details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownDetails {
    /// There never were any.
    None,
    /// As they were written.
    Open(Details),
    /// Their person's key is gone: the person was erased.
    Erased,
    /// There is a key, and they do not open with it: they were changed, or made with another audit key.
    Unreadable,
}

impl ShownDetails {
    /// The details, if they can be read.
    #[must_use]
    pub fn open(&self) -> Option<&Details> {
        match self {
            Self::Open(details) => Some(details),
            Self::None | Self::Erased | Self::Unreadable => None,
        }
    }

    /// As answers name it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open(_) => "shown",
            Self::Erased => "erased",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A record with its details opened.
#[derive(Debug, Clone)]
pub struct ShownRecord {
    /// The record as it is stored.
    pub record: AuditRecord,
    /// Its details.
    pub details: ShownDetails,
}

impl ShownRecord {
    /// What else is to be said of it; none where that is no JSON object, which only an edited record's is not.
    #[must_use]
    pub fn facts(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.record.facts.as_deref()?).ok()
    }
}

/// Something that happened to a user or was done by them, as they may see it: without ids of others and without
/// where others were.
#[derive(Debug, Clone)]
pub struct OwnEvent {
    /// Its id.
    pub id: AuditId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: String,
    /// How it ended.
    pub outcome: String,
    /// Why, in a word.
    pub reason: Option<String>,
    /// Who did it: `you`, `administrator`, or another kind of agent.
    pub actor: String,
    /// Whether it was done to the user; else they did it to somebody or something else.
    pub about_you: bool,
    /// The user's session that it was done to.
    pub session: Option<SessionId>,
    /// From where, if it was they or somebody who had not shown who they are.
    pub details: Option<Details>,
    /// What else is to be said of it.
    pub facts: Option<Map<String, Value>>,
}

impl OwnEvent {
    fn new(shown: &ShownRecord, me: UserId) -> Self {
        let record = &shown.record;
        let about_you = record.subject == Some(me);
        let actor = match (record.actor.as_str(), record.actor_id) {
            (_, Some(actor)) if actor == me => "you",
            (_, Some(_)) | ("user", None) => "administrator",
            (other, None) => other,
        };
        let is_mine = record.person.is_none_or(|person| person == me);
        Self {
            id: record.id,
            at: record.at,
            event: record.event.clone(),
            outcome: record.outcome.clone(),
            reason: record.reason.clone(),
            actor: actor.to_owned(),
            about_you,
            session: record.session.filter(|_| about_you),
            details: shown.details.open().filter(|_| is_mine).cloned(),
            facts: shown.facts(),
        }
    }
}

/// What happens to letters on their way tells a user nothing that the letters do not.
const NOT_FOR_USERS: [EventKind; 2] = [EventKind::LetterRetried, EventKind::LetterDropped];

impl Trail {
    /// A page of records by descending id (newest first) and the cursor of the next page.
    ///
    /// # Errors
    /// [`AuthError::Invalid`](crate::error::AuthError::Invalid) for a limit outside 1 to 200, and for times of which
    /// the second is before the first (ASVS 2.2.3).
    pub async fn list(
        &self,
        mut filter: AuditFilter,
    ) -> AuthResult<(Vec<ShownRecord>, Option<AuditId>)> {
        check_times(&filter)?;
        let page = Page::with_one_more(&mut filter.limit)?;
        let records = self.0.store.list_audit(&filter).await?;
        let (records, next) = page.cut(records, |record| record.id);
        Ok((self.opened(records).await?, next))
    }

    /// All records that a filter picks, newest first, in batches; that they are given out is recorded before. Of
    /// what is written meanwhile nothing is among them. Two batches are in memory at the most.
    ///
    /// # Errors
    /// As [`Self::list`]; [`AuthError::Store`](crate::error::AuthError::Store), now or where the stream breaks off.
    pub async fn export(
        &self,
        filter: AuditFilter,
        by: Agent,
    ) -> AuthResult<BoxStream<'static, AuthResult<Vec<ShownRecord>>>> {
        check_times(&filter)?;
        self.note(exported(&filter), by).await?;
        let filter = AuditFilter {
            limit: LONGEST_PAGE,
            ..filter
        };
        let first = self.list(filter.clone()).await?;
        let trail = self.clone();
        let batches = stream::try_unfold(Some(first), move |batch| {
            let (trail, filter) = (trail.clone(), filter.clone());
            async move {
                let Some((records, next)) = batch else {
                    return Ok(None);
                };
                let following = match next {
                    None => None,
                    before => Some(trail.list(AuditFilter { before, ..filter }).await?),
                };
                Ok(Some((records, following)))
            }
        });
        Ok(batches.boxed())
    }

    /// A page of what happened to a user and of what they did, newest first, and the cursor of the next page. What
    /// is not for them is left out, so that a page may be shorter than it could be.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn events_of(
        &self,
        user: UserId,
        before: Option<AuditId>,
        limit: u32,
    ) -> AuthResult<(Vec<OwnEvent>, Option<AuditId>)> {
        let filter = AuditFilter {
            user: Some(user),
            before,
            limit,
            ..AuditFilter::default()
        };
        let (records, next) = self.list(filter).await?;
        let hidden = |record: &ShownRecord| {
            let event = &record.record.event;
            NOT_FOR_USERS.iter().any(|kind| kind.as_str() == event)
        };
        let records = records.iter().filter(|record| !hidden(record));
        let events = records.map(|record| OwnEvent::new(record, user));
        Ok((events.collect(), next))
    }

    /// All of a user's events, as [`Self::events_of`]; in memory, since they are one person's.
    ///
    /// # Errors
    /// [`AuthError::Store`](crate::error::AuthError::Store).
    pub async fn all_events_of(&self, user: UserId) -> AuthResult<Vec<OwnEvent>> {
        let (mut all, mut next) = self.events_of(user, None, LONGEST_PAGE).await?;
        while next.is_some() {
            let (more, following) = self.events_of(user, next, LONGEST_PAGE).await?;
            all.extend(more);
            next = following;
        }
        Ok(all)
    }

    /// Opens the details of records, with one look for all their keys.
    async fn opened(&self, records: Vec<AuditRecord>) -> AuthResult<Vec<ShownRecord>> {
        let told = records.iter().filter(|record| record.details.is_some());
        let persons: BTreeSet<UserId> = told.filter_map(|record| record.person).collect();
        let persons: Vec<UserId> = persons.into_iter().collect();
        let keys = if persons.is_empty() {
            Vec::new()
        } else {
            self.0.store.audit_keys(&persons).await?
        };
        let keys: BTreeMap<UserId, WrappedKey> = keys.into_iter().collect();
        let open = |record: AuditRecord| ShownRecord {
            details: open(&self.0.reader, &record, &keys),
            record,
        };
        Ok(records.into_iter().map(open).collect())
    }
}

fn check_times(filter: &AuditFilter) -> Result<(), FieldError> {
    match (filter.from, filter.until) {
        (Some(from), Some(until)) if until < from => {
            let detail = "must not be before `from`";
            Err(FieldError::new("until", "out_of_range", detail))
        }
        _ => Ok(()),
    }
}

fn open(
    reader: &Recorder,
    record: &AuditRecord,
    keys: &BTreeMap<UserId, WrappedKey>,
) -> ShownDetails {
    let Some(details) = &record.details else {
        return ShownDetails::None;
    };
    let key = record.person.map(|person| (person, keys.get(&person)));
    let opened = match key {
        Some((_, None)) => return ShownDetails::Erased,
        Some((person, Some(key))) => reader.reveal(record.id, Some((person, key)), details),
        None => reader.reveal(record.id, None, details),
    };
    opened.map_or(ShownDetails::Unreadable, ShownDetails::Open)
}

/// That records were given out, and which.
fn exported(filter: &AuditFilter) -> Event {
    let picked = [
        ("user", filter.user.map(|id| json!(id))),
        ("subject", filter.subject.map(|id| json!(id))),
        ("session", filter.session.map(|id| json!(id))),
        ("event", filter.event.map(|kind| kind.as_str().into())),
        ("outcome", filter.outcome.map(|how| how.as_str().into())),
        ("from", filter.from.map(|at| at.to_string().into())),
        ("until", filter.until.map(|at| at.to_string().into())),
        ("before", filter.before.map(|id| json!(id))),
    ];
    let event = Event::done(EventKind::AuditExported);
    let picked = picked
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    picked.fold(event, |event, (name, value)| event.with(name, value))
}
