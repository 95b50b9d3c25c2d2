//! Sessions: live logins, and how they end.

use std::net::IpAddr;

use crate::{
    clock::{Span, Timestamp},
    ids::{SessionId, UserId},
    model::user::User,
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
}

impl CloseReason {
    const ALL: [Self; 8] = [
        Self::LoggedOut,
        Self::Revoked,
        Self::Replaced,
        Self::LimitLowered,
        Self::PasswordChanged,
        Self::AccountDeactivated,
        Self::Expired,
        Self::Idle,
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
        }
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
