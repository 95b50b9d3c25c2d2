//! Sessions: live logins, and how they end.

use std::net::IpAddr;

use crate::{
    clock::{Span, Timestamp},
    ids::{SessionId, UserId},
    model::{mail::LetterDetails, token::SecretHash, user::User},
};

/// A session as its owner or an administrator sees it; there is no token material in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, the `sid` of access tokens.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When its user last proved who they are.
    pub authenticated_at: Timestamp,
    /// When it was last used, as of the last flush of [`crate::presence`].
    pub last_seen_at: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// How its user proved who they are.
    pub auth_methods: Vec<AuthMethod>,
    /// From where it was opened.
    pub device: Device,
    /// Open, or how it ended.
    pub state: SessionState,
}

/// What a client said about itself when it logged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// A name the user gave, e.g. `Ann's phone`.
    pub name: Option<String>,
    /// The `User-Agent` header, cut to 256 characters.
    pub user_agent: Option<String>,
    /// The client's address.
    pub address: Option<IpAddr>,
}

impl Device {
    /// Whether it says the same of itself, whatever the version: an update of a browser is no new device.
    #[must_use]
    pub fn resembles(&self, other: &Self) -> bool {
        let bare = |device: &Self| -> Option<String> {
            let agent = device.user_agent.as_ref()?;
            Some(agent.chars().filter(|c| !c.is_ascii_digit()).collect())
        };
        bare(self) == bare(other)
    }

    /// What a letter says of it: its name and what the client said that it is.
    #[must_use]
    pub fn told(&self) -> LetterDetails {
        LetterDetails {
            device: self.name.clone().or_else(|| self.user_agent.clone()),
            address: self.address.map(|address| address.to_string()),
            only_tells: false,
        }
    }
}

/// How a client carries its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// An access token in the `Authorization` header, renewed by a refresh token.
    #[default]
    Bearer,
    /// One cookie that lives as long as the session.
    Cookie,
}

/// How a user proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// By password (`pwd`, RFC 8176 §2).
    Password,
}

impl AuthMethod {
    /// As stored, and as RFC 8176 names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "pwd",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Password].into_iter().find(|v| v.as_str() == text)
    }
}

/// Open, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Not ended; it may still have expired.
    Open,
    /// Ended for good.
    Closed {
        /// When.
        at: Timestamp,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its user logged out.
    LoggedOut,
    /// Somebody else ended it, or its user did so from another session.
    Revoked,
    /// A newer login took its place.
    Replaced,
    /// The limit of its user was lowered.
    LimitLowered,
    /// The password changed.
    PasswordChanged,
    /// The account was deactivated.
    AccountDeactivated,
    /// It reached its absolute lifetime.
    Expired,
    /// It was not used for too long.
    Idle,
    /// A refresh token that had been used before was used again: somebody has a copy of it.
    RefreshReused,
}

impl CloseReason {
    const ALL: [Self; 9] = [
        Self::LoggedOut,
        Self::Revoked,
        Self::Replaced,
        Self::LimitLowered,
        Self::PasswordChanged,
        Self::AccountDeactivated,
        Self::Expired,
        Self::Idle,
        Self::RefreshReused,
    ];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Revoked => "revoked",
            Self::Replaced => "replaced",
            Self::LimitLowered => "limit_lowered",
            Self::PasswordChanged => "password_changed",
            Self::AccountDeactivated => "account_deactivated",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::RefreshReused => "refresh_reused",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// A session about to be opened.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// How its user proved who they are.
    pub auth_methods: Vec<AuthMethod>,
    /// From where it is opened.
    pub device: Device,
    /// The stored form of its first refresh token; none for a session in a cookie.
    pub refresh: Option<SecretHash>,
}

/// What an authenticated request needs to know: one session and its user, as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session's id.
    pub session_id: SessionId,
    /// Its user, roles and status included.
    pub user: User,
    /// Open, or how it ended.
    pub state: SessionState,
    /// When the user last proved who they are.
    pub authenticated_at: Timestamp,
    /// When the session was last used, as of the last flush.
    pub last_seen_at: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// The newest generation of access tokens that was seen.
    pub generation_used: i64,
}

/// What refreshing a session needs to know, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshState {
    /// The session and its user.
    pub view: SessionView,
    /// How many refresh tokens came before the current one.
    pub generation: i64,
    /// The stored form of the current refresh token; none for a session in a cookie.
    pub current: Option<SecretHash>,
    /// The stored form of the one before.
    pub previous: Option<SecretHash>,
    /// When the current one took its place.
    pub rotated_at: Option<Timestamp>,
}

/// What a genuine refresh token is worth at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshVerdict {
    /// It is the current one.
    Current,
    /// It is the one before, and its client may not have got the current one, which has this stored
    /// form.
    LostReply(SecretHash),
    /// It was used, and its successor arrived: whoever presents it is not the only one who has it.
    Reused,
    /// Its session is not live.
    Dead(Verdict),
}

impl RefreshState {
    /// Judges a refresh token by its stored form.
    ///
    /// A client that repeats the previous token may have lost the reply that held the current one: for
    /// `grace` after the rotation it is believed, and longer as long as no access token of the current
    /// generation was seen (a deviation from ASVS 10.4.5, which knows no grace).
    #[must_use]
    pub fn judge(
        &self,
        presented: SecretHash,
        grace: Span,
        idle: IdleRule,
        now: Timestamp,
    ) -> RefreshVerdict {
        let verdict = self.view.judge(now, idle);
        if verdict != Verdict::Live {
            return RefreshVerdict::Dead(verdict);
        }
        let in_time = self.rotated_at.is_some_and(|at| now < at.plus(grace));
        match self.current {
            Some(current) if current == presented => RefreshVerdict::Current,
            Some(current)
                if self.previous == Some(presented)
                    && (in_time || self.view.generation_used < self.generation) =>
            {
                RefreshVerdict::LostReply(current)
            }
            _ => RefreshVerdict::Reused,
        }
    }
}

/// How long an unused session is still open.
///
/// Last seen is flushed in batches, so a session counts as idle only one flush interval later: a
/// node that has seen it may not have said so yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleRule {
    /// `sessions.idle_ttl`.
    pub idle_ttl: Span,
    /// `sessions.last_seen_flush`.
    pub flush: Span,
}

impl IdleRule {
    /// Sessions last seen before this time are idle at `now`.
    #[must_use]
    pub fn seen_before(self, now: Timestamp) -> Timestamp {
        now.minus(self.idle_ttl.plus(self.flush))
    }

    /// Why the time of an open session is over at `now`, if it is.
    #[must_use]
    pub fn overdue(
        self,
        expires_at: Timestamp,
        last_seen_at: Timestamp,
        now: Timestamp,
    ) -> Option<CloseReason> {
        if expires_at <= now {
            Some(CloseReason::Expired)
        } else if last_seen_at < self.seen_before(now) {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }
}

/// What a session is worth at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It opens the door.
    Live,
    /// It has ended.
    Ended(CloseReason),
    /// It is open in the database but its time is over; to be closed for this reason.
    Overdue(CloseReason),
}

impl SessionView {
    /// Judges the session at `now`.
    ///
    /// The account comes first: even a row changed by hand never lets a deactivated user in.
    #[must_use]
    pub fn judge(&self, now: Timestamp, idle: IdleRule) -> Verdict {
        match self.state {
            SessionState::Closed { reason, .. } => Verdict::Ended(reason),
            SessionState::Open if !self.user.is_active() => {
                Verdict::Ended(CloseReason::AccountDeactivated)
            }
            SessionState::Open => idle
                .overdue(self.expires_at, self.last_seen_at, now)
                .map_or(Verdict::Live, Verdict::Overdue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        email::EmailAddress,
        model::user::{Attributes, Roles, SessionLimitOverride, UserStatus},
    };

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const IDLE: IdleRule = IdleRule {
        idle_ttl: Span::days(7),
        flush: Span::secs(30),
    };

    fn view(state: SessionState) -> SessionView {
        let user = User {
            id: uuid::Uuid::nil().into(),
            email: EmailAddress::parse("ann@example.org").expect("valid"),
            email_verified_at: None,
            username: None,
            attributes: Attributes::default(),
            roles: Roles::default(),
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: NOW,
            updated_at: NOW,
        };
        SessionView {
            session_id: uuid::Uuid::nil().into(),
            user,
            state,
            authenticated_at: NOW,
            last_seen_at: NOW,
            expires_at: NOW.plus(Span::days(30)),
            generation_used: 0,
        }
    }

    /// Rotated once, at `NOW`.
    fn rotated() -> RefreshState {
        RefreshState {
            view: view(SessionState::Open),
            generation: 1,
            current: Some(SecretHash::of("second")),
            previous: Some(SecretHash::of("first")),
            rotated_at: Some(NOW),
        }
    }

    /// ASVS 10.4.5, with the grace that design and README name.
    #[test]
    fn the_previous_token_is_believed_until_its_successor_was_seen_and_the_grace_is_over() {
        let judge = |state: &RefreshState, token: &str, after: i64| {
            let now = NOW.plus(Span::secs(after));
            state.judge(SecretHash::of(token), Span::secs(10), IDLE, now)
        };
        let again = RefreshVerdict::LostReply(SecretHash::of("second"));
        let mut state = rotated();
        assert_eq!(judge(&state, "second", 0), RefreshVerdict::Current);
        assert_eq!(judge(&state, "first", 9), again, "within the grace");
        assert_eq!(
            judge(&state, "first", 3600),
            again,
            "its successor was not seen"
        );
        assert_eq!(judge(&state, "other", 0), RefreshVerdict::Reused);
        state.view.generation_used = 1;
        assert_eq!(judge(&state, "first", 9), again, "within the grace");
        assert_eq!(judge(&state, "first", 10), RefreshVerdict::Reused);
        state.current = None;
        assert_eq!(judge(&state, "first", 0), RefreshVerdict::Reused);
    }

    #[test]
    fn no_refresh_token_outlives_its_session() {
        let mut state = rotated();
        let judge = |state: &RefreshState, now| {
            state.judge(SecretHash::of("second"), Span::secs(10), IDLE, now)
        };
        let end = state.view.expires_at;
        let expired = Verdict::Overdue(CloseReason::Expired);
        assert_eq!(judge(&state, end), RefreshVerdict::Dead(expired));
        state.view.user.status = UserStatus::Deactivated { at: NOW };
        let deactivated = Verdict::Ended(CloseReason::AccountDeactivated);
        assert_eq!(judge(&state, NOW), RefreshVerdict::Dead(deactivated));
    }

    #[test]
    fn a_session_lives_until_its_first_limit() {
        let session = view(SessionState::Open);
        assert_eq!(session.judge(NOW, IDLE), Verdict::Live);
        let edge = NOW.plus(Span::days(7)).plus(Span::secs(30));
        assert_eq!(
            session.judge(edge, IDLE),
            Verdict::Live,
            "one flush interval of grace"
        );
        assert_eq!(
            session.judge(edge.plus(Span::millis(1)), IDLE),
            Verdict::Overdue(CloseReason::Idle)
        );
        assert_eq!(
            session.judge(session.expires_at, IDLE),
            Verdict::Overdue(CloseReason::Expired)
        );
    }

    #[test]
    fn a_deactivated_user_is_refused_even_with_an_open_row() {
        let mut session = view(SessionState::Open);
        session.user.status = UserStatus::Deactivated { at: NOW };
        assert_eq!(
            session.judge(NOW, IDLE),
            Verdict::Ended(CloseReason::AccountDeactivated)
        );
    }

    #[test]
    fn every_reason_is_stored_under_its_own_name() {
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(CloseReason::parse("banana"), None);
    }
}
