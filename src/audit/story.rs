//! "Why was I logged out?": what the trail tells of one session, from its login to its end.
//!
//! Decides which records make the story and how it is told. A session whose records are too old, or that was
//! opened while the trail was off, is told as far as its row goes; nothing is guessed.

use std::fmt;

use super::{Trail, reading::ShownRecord};
use crate::{
    clock::Timestamp,
    error::AuthResult,
    ids::{SessionId, UserId},
    model::{
        audit::{AuditFilter, Details, EventKind},
        session::{AuthMethod, CloseReason, Session},
    },
    paging::LONGEST_PAGE,
};

/// Whether a session can still be used, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has not ended.
    Open,
    /// It has ended.
    Ended,
    /// Nothing is known of it: its records are too old, or it never was.
    Unknown,
}

impl Fate {
    /// As answers name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The session that it opened.
    pub session: SessionId,
    /// When.
    pub at: Timestamp,
    /// How (RFC 8176 names).
    pub auth_methods: Vec<String>,
    /// From where; none where that is not known, or not any more.
    pub details: Option<Details>,
}

/// What happened to a session while it was open, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Again {
    /// How often.
    pub times: u64,
    /// When last.
    pub last: Option<Timestamp>,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Why: a [`CloseReason`], or `account_erased`, `account_removed` where it went with its user.
    pub reason: String,
    /// What kind of agent did it.
    pub actor: String,
    /// The user who did it.
    pub actor_id: Option<UserId>,
    /// The session they did it in.
    pub actor_session: Option<SessionId>,
    /// From where.
    pub details: Option<Details>,
    /// The login that took its place.
    pub replaced_by: Option<Opening>,
}

/// What is known of a session. Its [`Display`](fmt::Display) is one paragraph for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub user: Option<UserId>,
    /// Whether it can still be used.
    pub fate: Fate,
    /// Its login.
    pub opened: Option<Opening>,
    /// When its user proved again who they are.
    pub reauthenticated: Again,
    /// When a refresh token that had been used was answered once more.
    pub repeated: Again,
    /// Its end; none while it is open, and where nothing was recorded of it.
    pub ended: Option<Ending>,
}

impl Trail {
    /// What is known of a session.
    ///
    /// # Errors
    /// [`AuthError::Store`](crate::error::AuthError::Store).
    pub async fn story(&self, session: SessionId) -> AuthResult<Story> {
        let login = self.last_of(session, EventKind::Login).await?.0;
        let (end, _) = self.last_of(session, EventKind::SessionEnded).await?;
        let (_, reauthenticated) = self.last_of(session, EventKind::Reauthentication).await?;
        let (_, repeated) = self.last_of(session, EventKind::RefreshRepeated).await?;
        let recorded = login.as_ref().or(end.as_ref());
        let user = match recorded.and_then(|told| told.record.subject) {
            None => self.0.store.owner_of_session(session).await?,
            known => known,
        };
        let mut story = Story {
            session,
            user,
            fate: Fate::Unknown,
            opened: login.as_ref().map(|login| opening(session, login)),
            reauthenticated,
            repeated,
            ended: None,
        };
        if let Some(end) = &end {
            story.fate = Fate::Ended;
            story.ended = Some(self.ending(end).await?);
        } else if let Some(user) = user {
            self.look_at_row(user, &mut story).await?;
        }
        Ok(story)
    }

    /// The end of a session of which no record tells: it is still open, past its time, or went with its user.
    async fn look_at_row(&self, user: UserId, story: &mut Story) -> AuthResult<()> {
        let open = self.0.store.open_sessions_of(user).await?;
        if let Some(row) = open.iter().find(|row| row.id == story.session) {
            story.opened.get_or_insert_with(|| Opening::of_row(row));
            if row.expires_at > self.0.clock.now() {
                story.fate = Fate::Open;
                return Ok(());
            }
            story.fate = Fate::Ended;
            story.ended = Some(Ending::expired(row.expires_at));
            return Ok(());
        }
        story.fate = Fate::Ended;
        for kind in [EventKind::AccountErased, EventKind::AccountRemoved] {
            if story.ended.is_none() {
                let gone = self.end_of_user(user, kind).await?;
                story.ended = gone.map(|gone| Ending::new(&gone, kind.as_str()));
            }
        }
        Ok(())
    }

    /// Who ended a session, and what took its place.
    async fn ending(&self, end: &ShownRecord) -> AuthResult<Ending> {
        let record = &end.record;
        let mut ending = Ending::new(end, record.reason.as_deref().unwrap_or_default());
        match (CloseReason::parse(&ending.reason), record.actor_session) {
            (Some(CloseReason::Replaced), Some(newer)) => {
                let login = self.last_of(newer, EventKind::Login).await?.0;
                ending.replaced_by = login.map(|login| opening(newer, &login));
            }
            // Erasing a person ends their sessions first, in the same step.
            (Some(CloseReason::Revoked), _) => {
                let erased = match record.subject {
                    Some(user) => self.end_of_user(user, EventKind::AccountErased).await?,
                    None => None,
                };
                if erased.is_some_and(|erased| erased.record.at == record.at) {
                    EventKind::AccountErased
                        .as_str()
                        .clone_into(&mut ending.reason);
                }
            }
            _ => {}
        }
        Ok(ending)
    }

    async fn end_of_user(&self, user: UserId, kind: EventKind) -> AuthResult<Option<ShownRecord>> {
        let filter = AuditFilter {
            subject: Some(user),
            event: Some(kind),
            limit: 1,
            ..AuditFilter::default()
        };
        Ok(self.list(filter).await?.0.pop())
    }

    /// The newest event of a kind that was done to a session, and how many there are. What was refused does not
    /// count, nor what a user did to other sessions in this one.
    async fn last_of(
        &self,
        session: SessionId,
        kind: EventKind,
    ) -> AuthResult<(Option<ShownRecord>, Again)> {
        let mut filter = AuditFilter {
            session: Some(session),
            event: Some(kind),
            outcome: Some(crate::model::audit::Outcome::Done),
            limit: LONGEST_PAGE,
            ..AuditFilter::default()
        };
        let (mut last, mut times) = (None, 0);
        loop {
            let (records, next) = self.list(filter.clone()).await?;
            let of_it = |shown: &ShownRecord| shown.record.session == Some(session);
            for record in records.into_iter().filter(of_it) {
                times += 1;
                last.get_or_insert(record);
            }
            if next.is_none() {
                let at = last.as_ref().map(|last| last.record.at);
                return Ok((last, Again { times, last: at }));
            }
            filter.before = next;
        }
    }
}

fn opening(session: SessionId, login: &ShownRecord) -> Opening {
    let facts = login.facts().unwrap_or_default();
    let methods = facts
        .get("auth_methods")
        .and_then(|methods| methods.as_array());
    let methods = methods.into_iter().flatten().filter_map(|m| m.as_str());
    Opening {
        session,
        at: login.record.at,
        auth_methods: methods.map(str::to_owned).collect(),
        details: login.details.open().cloned(),
    }
}

impl Opening {
    fn of_row(row: &Session) -> Self {
        let methods = row.auth_methods.iter().copied().map(AuthMethod::as_str);
        let details = Details {
            address: row.device.address,
            user_agent: row.device.user_agent.clone(),
        };
        Self {
            session: row.id,
            at: row.created_at,
            auth_methods: methods.map(str::to_owned).collect(),
            details: (!details.is_empty()).then_some(details),
        }
    }
}

impl Ending {
    fn new(end: &ShownRecord, reason: &str) -> Self {
        Self {
            at: end.record.at,
            reason: reason.to_owned(),
            actor: end.record.actor.clone(),
            actor_id: end.record.actor_id,
            actor_session: end.record.actor_session,
            details: end.details.open().cloned(),
            replaced_by: None,
        }
    }

    /// Of one that is past its time and was not used since.
    fn expired(at: Timestamp) -> Self {
        Self {
            at,
            reason: CloseReason::Expired.as_str().to_owned(),
            actor: "system".to_owned(),
            actor_id: None,
            actor_session: None,
            details: None,
            replaced_by: None,
        }
    }

    /// Who did it, in words.
    fn who(&self, user: Option<UserId>) -> String {
        match (self.actor.as_str(), self.actor_id) {
            (_, Some(actor)) if user == Some(actor) => "its user".to_owned(),
            (_, Some(actor)) => format!("administrator {actor}"),
            ("operator", None) => "an operator, on the command line".to_owned(),
            ("client", None) => "a service, by a token of it".to_owned(),
            ("system", None) => "Doorward itself".to_owned(),
            _ => "somebody who was not logged in".to_owned(),
        }
    }

    /// Why, in words.
    fn why(&self, user: Option<UserId>) -> String {
        let who = self.who(user);
        let by_link = self.actor == "nobody";
        match (self.reason.as_str(), CloseReason::parse(&self.reason)) {
            (_, Some(CloseReason::LoggedOut)) => "its user logged out".to_owned(),
            (_, Some(CloseReason::Revoked)) if self.actor_id.is_some() && self.actor_id == user => {
                "its user ended it from another session".to_owned()
            }
            (_, Some(CloseReason::Revoked)) if by_link => {
                "somebody used the link in a notice to say that a change was not theirs".to_owned()
            }
            (_, Some(CloseReason::Revoked)) => format!("it was revoked by {who}"),
            (_, Some(CloseReason::Replaced)) => "a newer login took its place".to_owned(),
            (_, Some(CloseReason::LimitLowered)) => {
                format!("the limit of its user's sessions was lowered by {who}")
            }
            (_, Some(CloseReason::PasswordChanged)) if by_link => {
                "the password was reset by a link or a code from a letter".to_owned()
            }
            (_, Some(CloseReason::PasswordChanged)) => {
                format!("the password was changed by {who}")
            }
            (_, Some(CloseReason::AccountDeactivated)) => {
                format!("the account was deactivated by {who}")
            }
            (_, Some(CloseReason::Expired)) => "it had reached the end of its lifetime".to_owned(),
            (_, Some(CloseReason::Idle)) => "it had not been used for too long".to_owned(),
            (_, Some(CloseReason::RefreshReused)) => {
                "a refresh token that had been used before was used again; somebody may have a copy"
                    .to_owned()
            }
            ("account_erased", None) => format!("the account was erased by {who}"),
            ("account_removed", None) => {
                "the account was removed, since its address was never verified".to_owned()
            }
            (other, None) => format!("the reason recorded is `{}`", plain(other)),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.session;
        if self.fate == Fate::Unknown {
            return write!(
                f,
                "Nothing is known of session {id}: its records are too old, or it never was."
            );
        }
        match self.user {
            Some(user) => write!(f, "Session {id} of user {user}")?,
            None => write!(f, "Session {id}")?,
        }
        match &self.opened {
            Some(opened) => write!(f, " was opened {}.", InWords(opened))?,
            None => f.write_str(" was opened at a time that is not recorded.")?,
        }
        if let Some(last) = self.reauthenticated.last {
            let times = times(self.reauthenticated.times);
            write!(
                f,
                " Its user proved again who they are {times}, last at {last}."
            )?;
        }
        if let Some(last) = self.repeated.last {
            let times = times(self.repeated.times);
            write!(
                f,
                " The answer to a refresh was lost and given again {times}, last at {last}."
            )?;
        }
        match (&self.ended, self.fate) {
            (Some(ended), _) => {
                write!(f, " It ended at {}: {}", ended.at, ended.why(self.user))?;
                if let Some(newer) = &ended.replaced_by {
                    write!(f, ", session {}, opened {}", newer.session, InWords(newer))?;
                } else if let Some(details) = &ended.details {
                    write!(f, "{}", FromWhere(details))?;
                }
                f.write_str(".")
            }
            (None, Fate::Open) => f.write_str(" It is still open."),
            (None, _) => f.write_str(" It has ended; how was not recorded."),
        }
    }
}

fn times(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

/// What a client said about itself must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

struct InWords<'a>(&'a Opening);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.0.at)?;
        let known = |method: &String| match AuthMethod::parse(method) {
            Some(AuthMethod::Password) => "password".to_owned(),
            None => plain(method),
        };
        let methods: Vec<_> = self.0.auth_methods.iter().map(known).collect();
        if !methods.is_empty() {
            write!(f, " by {}", methods.join(" and "))?;
        }
        self.0
            .details
            .as_ref()
            .map_or(Ok(()), |details| FromWhere(details).fmt(f))
    }
}

struct FromWhere<'a>(&'a Details);

impl fmt::Display for FromWhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.0.address {
            write!(f, ", from {address}")?;
        }
        match &self.0.user_agent {
            Some(agent) => write!(f, " ({})", plain(agent)),
            None => Ok(()),
        }
    }
}
