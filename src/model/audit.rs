//! The audit trail: what happened, when, by whom and from where, and how it is sealed.
//!
//! An [`Event`] says what happened; the [`Occasion`] under which a store changes something says the rest, and
//! makes the [`AuditRecord`] that is stored with the change. Records hold ids; where a request came from is
//! kept encrypted with a key of the person it tells of ([`keys`]), so that it is forgotten when that key is
//! dropped. What seals are made of stands in [`seal`].

mod event;
pub mod keys;
pub mod seal;

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{
    event::{Event, EventKind, Outcome},
    keys::{Recorder, WrappedKey},
};
use crate::{
    clock::Timestamp,
    ids::{AuditId, SessionId, UserId},
};

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// Somebody who has not shown who they are.
    Nobody,
    /// Doorward itself: what is over is closed and removed.
    System,
    /// Whoever holds the database and the command line.
    Operator,
    /// A registered client of the OAuth endpoints.
    Client,
    /// A user who is logged in.
    User {
        /// The user.
        id: UserId,
        /// The session they act in.
        session: Option<SessionId>,
    },
}

impl Agent {
    /// A user who acts in a session of theirs.
    #[must_use]
    pub const fn in_session(id: UserId, session: SessionId) -> Self {
        Self::User {
            id,
            session: Some(session),
        }
    }

    /// As records name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::System => "system",
            Self::Operator => "operator",
            Self::Client => "client",
            Self::User { .. } => "user",
        }
    }

    /// The user, if it is one.
    #[must_use]
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The session that a user acts in.
    #[must_use]
    pub const fn session(self) -> Option<SessionId> {
        match self {
            Self::User { session, .. } => session,
            _ => None,
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its id, as in the answer and the log.
    pub request_id: Option<String>,
    /// What is personal about it.
    pub details: Details,
}

/// What a record tells of a person; only ever stored encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Details {
    /// The client's address, as far as it can be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What the client says that it is, cut to size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Details {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When, by whom and from where something is done.
///
/// A store writes the records of a change in the same step as the change. Without a [`Recorder`] it writes
/// none: the trail is off.
#[derive(Clone)]
pub struct Occasion {
    /// The caller's time.
    pub at: Timestamp,
    /// By whom.
    pub agent: Agent,
    /// From where; none for what no request caused.
    pub origin: Option<Arc<Origin>>,
    /// What makes records.
    pub recorder: Option<Arc<Recorder>>,
}

impl Occasion {
    /// The person whose data the details of a record are: whoever acted, or else whom it is about.
    #[must_use]
    pub fn person(&self, event: &Event) -> Option<UserId> {
        self.agent.user().or(event.subject)
    }

    /// What is personal about where it comes from, if there is anything to tell.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        let details = self.origin.as_deref().map(|origin| &origin.details);
        details.filter(|details| !details.is_empty())
    }

    /// The same occasion, of somebody who has not shown who they are after all.
    #[must_use]
    pub fn by_nobody(&self) -> Self {
        Self {
            agent: Agent::Nobody,
            ..self.clone()
        }
    }

    /// The record of an event. `key` is that of its [person](Self::person), if there is one and they have one;
    /// details of nobody in particular are encrypted with a key that all records of that kind share.
    #[must_use]
    pub fn record(&self, event: &Event, key: Option<&WrappedKey>) -> Option<AuditRecord> {
        let recorder = self.recorder.as_deref()?;
        let id = recorder.fresh_id(self.at);
        let person = self.person(event);
        let details = self.details().and_then(|details| match (person, key) {
            (Some(person), Some(key)) => recorder.conceal(id, person, key, details),
            (Some(_), None) => None,
            (None, _) => recorder.conceal_of_nobody(id, details),
        });
        Some(AuditRecord {
            id,
            at: self.at,
            event: event.kind.as_str().to_owned(),
            outcome: event.outcome.as_str().to_owned(),
            reason: event.reason.clone().map(std::borrow::Cow::into_owned),
            actor: self.agent.as_str().to_owned(),
            actor_id: self.agent.user(),
            actor_session: self.agent.session(),
            subject: event.subject,
            session: event.session,
            request_id: self.origin.as_deref().and_then(|o| o.request_id.clone()),
            person,
            details,
            facts: event.facts_text(),
            sealed: None,
        })
    }
}

/// A record as it is stored. Texts are as they stand in the database, so that an edited one can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its id; sorts by time.
    pub id: AuditId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened: an [`EventKind`].
    pub event: String,
    /// How it ended: an [`Outcome`].
    pub outcome: String,
    /// Why, in a word.
    pub reason: Option<String>,
    /// What kind of [`Agent`] did it.
    pub actor: String,
    /// The user who did it.
    pub actor_id: Option<UserId>,
    /// The session that user did it in.
    pub actor_session: Option<SessionId>,
    /// The user it was done to.
    pub subject: Option<UserId>,
    /// The session it was done to.
    pub session: Option<SessionId>,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// Whose data [`Self::details`] are; they are encrypted with that user's key.
    pub person: Option<UserId>,
    /// [`Details`], encrypted.
    pub details: Option<Vec<u8>>,
    /// What else is to be said of it: a JSON object, without personal details.
    pub facts: Option<String>,
    /// Its place in the chain; none until it is sealed.
    pub sealed: Option<seal::Sealed>,
}

/// Which records to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only records about this user or by them.
    pub user: Option<UserId>,
    /// Only records about this user.
    pub subject: Option<UserId>,
    /// Only records about this session or by a user in it.
    pub session: Option<SessionId>,
    /// Only events of this kind.
    pub event: Option<EventKind>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only what happened then or later.
    pub from: Option<Timestamp>,
    /// Only what happened before then.
    pub until: Option<Timestamp>,
    /// Only records whose id is smaller than this: the last one of the page before.
    pub before: Option<AuditId>,
    /// At most this many.
    pub limit: u32,
}
