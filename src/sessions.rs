//! Sessions: logging in, being checked at every request, being ended.
//!
//! Decides what opens a session and what an access token is worth at this moment. How many sessions a
//! user may hold is enforced by the store in the same step that opens one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    clock::{Clock, Span, Timestamp},
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    lookup::Lookup,
    model::{
        session::{
            AuthMethod, CloseReason, Device, IdleRule, NewSession, Session, SessionView, Verdict,
        },
        user::{MOST_SESSIONS, OnLimit, SessionLimit, User},
    },
    passwords::{self, Passwords},
    presence::Presence,
    secret::SecretString,
    setting::BadSetting,
    store::{CloseSession, LoginName, OpenSession, OpenSessionRequest, Store},
    tokens::{AccessToken, Claims, Tokens},
};

/// `[sessions]`: how many, and how long they last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionPolicy {
    /// How many sessions one user may hold; 0 means as many as 1000. Default 1: single login.
    pub max_per_user: u32,
    /// What happens to a login beyond that: `evict_oldest` (default) or `reject`.
    pub on_limit: OnLimit,
    /// How long an access token is honoured. Default 15m.
    pub access_ttl: Span,
    /// How long an unused session stays open. Default 7d.
    pub idle_ttl: Span,
    /// How long any session stays open. Default 30d.
    pub absolute_ttl: Span,
    /// How often "last seen" is written down. Default 30s.
    pub last_seen_flush: Span,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            max_per_user: 1,
            on_limit: OnLimit::EvictOldest,
            access_ttl: Span::minutes(15),
            idle_ttl: Span::days(7),
            absolute_ttl: Span::days(30),
            last_seen_flush: Span::secs(30),
        }
    }
}

impl SessionPolicy {
    /// Checks the settings, each and together (ASVS 2.2.3).
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        if self.max_per_user > MOST_SESSIONS {
            let problem = format!("{} is more than {MOST_SESSIONS}", self.max_per_user);
            return Err(BadSetting::new(
                "sessions.max_per_user",
                problem,
                "set 0 for as many as 1000",
            ));
        }
        if self.access_ttl < Span::secs(1) {
            return Err(BadSetting::new(
                "sessions.access_ttl",
                format!("{} is too short", self.access_ttl),
                "set it to 15m",
            ));
        }
        if self.access_ttl >= self.idle_ttl {
            let problem = format!(
                "{} is not shorter than sessions.idle_ttl ({})",
                self.access_ttl, self.idle_ttl
            );
            return Err(BadSetting::new(
                "sessions.access_ttl",
                problem,
                "lower it or raise sessions.idle_ttl",
            ));
        }
        if self.idle_ttl > self.absolute_ttl {
            let problem = format!(
                "{} is longer than sessions.absolute_ttl ({})",
                self.idle_ttl, self.absolute_ttl
            );
            return Err(BadSetting::new(
                "sessions.idle_ttl",
                problem,
                "lower it or raise sessions.absolute_ttl",
            ));
        }
        if self.absolute_ttl > Span::days(3650) {
            let problem = format!("{} is longer than ten years", self.absolute_ttl);
            return Err(BadSetting::new(
                "sessions.absolute_ttl",
                problem,
                "lower it; 30d is what NIST SP 800-63B-4 allows",
            ));
        }
        if self.last_seen_flush < Span::secs(1) || self.last_seen_flush > self.idle_ttl {
            let problem = format!(
                "{} is not between 1s and sessions.idle_ttl",
                self.last_seen_flush
            );
            return Err(BadSetting::new(
                "sessions.last_seen_flush",
                problem,
                "set it to 30s",
            ));
        }
        Ok(())
    }

    /// How many sessions a user without an override may hold.
    #[must_use]
    pub fn limit(&self) -> SessionLimit {
        SessionLimit::new(self.max_per_user, self.on_limit)
    }

    pub(crate) fn idle(&self) -> IdleRule {
        IdleRule {
            idle_ttl: self.idle_ttl,
            flush: self.last_seen_flush,
        }
    }
}

/// Who is asking: the user and the session behind an accepted access token, as they are in the
/// database now.
#[derive(Debug, Clone)]
pub struct CurrentUser {
    /// The user, roles included.
    pub user: User,
    /// The session.
    pub session_id: SessionId,
    /// When the user last proved who they are.
    pub authenticated_at: Timestamp,
    /// When the session ends, used or not.
    pub expires_at: Timestamp,
}

impl From<SessionView> for CurrentUser {
    fn from(view: SessionView) -> Self {
        let SessionView {
            session_id,
            user,
            authenticated_at,
            expires_at,
            ..
        } = view;
        Self {
            user,
            session_id,
            authenticated_at,
            expires_at,
        }
    }
}

/// What a login gives.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The session that was opened.
    pub session: Session,
    /// Its first access token.
    pub access: AccessToken,
    /// The sessions that it replaced, oldest first.
    pub evicted: Vec<SessionId>,
}

/// Which sessions a logout ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogoutScope {
    /// The one the token belongs to.
    #[default]
    This,
    /// All others of the user.
    Others,
    /// All of the user.
    All,
}

/// The session use cases.
#[derive(Clone)]
pub struct Sessions {
    store: Arc<dyn Store>,
    passwords: Passwords,
    tokens: Tokens,
    lookup: Lookup,
    presence: Presence,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    policy: Arc<SessionPolicy>,
}

/// What [`Sessions`] is made of.
pub struct SessionParts {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The password service.
    pub passwords: Passwords,
    /// The token service.
    pub tokens: Tokens,
    /// The joining reader.
    pub lookup: Lookup,
    /// Last seen.
    pub presence: Presence,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The chance.
    pub entropy: Arc<dyn Entropy>,
    /// How many sessions, and how long they last.
    pub policy: Arc<SessionPolicy>,
}

impl Sessions {
    /// Puts the use cases together.
    #[must_use]
    pub fn new(parts: SessionParts) -> Self {
        let SessionParts {
            store,
            passwords,
            tokens,
            lookup,
            presence,
            clock,
            entropy,
            policy,
        } = parts;
        Self {
            store,
            passwords,
            tokens,
            lookup,
            presence,
            clock,
            entropy,
            policy,
        }
    }

    /// Logs in with a password and opens a session.
    ///
    /// An unknown name, a user without a password and a wrong password cost the same work and are
    /// answered the same (ASVS 6.3.8). A login that was hashing while the password changed opens
    /// nothing.
    ///
    /// # Errors
    /// [`AuthError::BadCredentials`]; only after a right password
    /// [`AuthError::AccountDeactivated`] and [`AuthError::SessionLimit`];
    /// [`AuthError::Overloaded`]; [`AuthError::Store`].
    pub async fn login(
        &self,
        name: &LoginName,
        password: &SecretString,
        device: Device,
    ) -> AuthResult<Grant> {
        let found = self.store.user_by_login(name).await?;
        let hash = found
            .as_ref()
            .and_then(|credentials| credentials.password_hash.as_ref());
        let verdict = self.passwords.verify(password, hash).await?;
        let (Some(credentials), passwords::Verdict::Match { outdated }) = (found, verdict) else {
            return Err(AuthError::BadCredentials);
        };
        if !credentials.user.is_active() {
            return Err(AuthError::AccountDeactivated);
        }
        // A full queue puts the rehash off to the next login; it must not fail this one.
        let rehash = if outdated {
            self.passwords
                .hash(&self.passwords.verified(password))
                .await
                .ok()
        } else {
            None
        };
        let now = self.clock.now();
        let session = NewSession {
            id: SessionId::fresh(now, &*self.entropy),
            user_id: credentials.user.id,
            expires_at: now.plus(self.policy.absolute_ttl),
            auth_methods: vec![AuthMethod::Password],
            device,
        };
        // Before the session exists, so that no session is opened without a token to use it.
        let access = self.tokens.mint(
            session.user_id,
            session.id,
            self.access_until(now, session.expires_at),
        )?;
        let request = OpenSessionRequest {
            session,
            credential_version: credentials.credential_version,
            limit: self.policy.limit(),
            idle: self.policy.idle(),
            rehash,
        };
        match self.store.open_session(&request, now).await? {
            OpenSession::Opened { session, evicted } => Ok(Grant {
                session,
                access,
                evicted,
            }),
            OpenSession::Refused { open } => Err(AuthError::SessionLimit { open }),
            OpenSession::NotActive => Err(AuthError::AccountDeactivated),
            OpenSession::Gone | OpenSession::CredentialsChanged => Err(AuthError::BadCredentials),
        }
    }

    /// Decides what an access token is worth now: checks it without I/O, then looks its session and
    /// user up in the database. Nothing is cached.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`], [`AuthError::TokenExpired`], [`AuthError::SessionEnded`],
    /// [`AuthError::SessionUnknown`]; [`AuthError::Overloaded`] and [`AuthError::Store`] when it
    /// cannot be decided.
    pub async fn authenticate(&self, token: &str) -> AuthResult<CurrentUser> {
        let claims = self.tokens.verify(token)?;
        if claims.is_expired(self.clock.now()) {
            return Err(AuthError::TokenExpired);
        }
        let current = self.live(&claims).await?;
        self.presence
            .note(current.user.id, current.session_id, self.clock.now());
        Ok(current)
    }

    /// Ends sessions of the token's user.
    ///
    /// Any genuine token ends its own session, even an expired one, even twice. To end others the
    /// session behind the token must be live.
    ///
    /// # Errors
    /// As [`Self::authenticate`], without [`AuthError::TokenExpired`].
    pub async fn logout(&self, token: &str, scope: LogoutScope) -> AuthResult<()> {
        let claims = self.tokens.verify(token)?;
        let keep = match scope {
            LogoutScope::This => {
                self.store
                    .close_session(
                        claims.sub,
                        claims.sid,
                        CloseReason::LoggedOut,
                        None,
                        self.clock.now(),
                    )
                    .await?;
                return Ok(());
            }
            LogoutScope::Others => Some(self.live(&claims).await?.session_id),
            LogoutScope::All => self.live(&claims).await.map(|_| None)?,
        };
        self.store
            .close_sessions(claims.sub, keep, CloseReason::LoggedOut, self.clock.now())
            .await?;
        Ok(())
    }

    /// A user's live sessions, newest first.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn list(&self, user: UserId) -> AuthResult<Vec<Session>> {
        let (now, idle) = (self.clock.now(), self.policy.idle());
        let mut live = self.store.open_sessions_of(user).await?;
        live.retain(|s| idle.overdue(s.expires_at, s.last_seen_at, now).is_none());
        Ok(live)
    }

    /// Ends one of the caller's own sessions; ending one twice is no error.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] when it is not the caller's.
    pub async fn end(&self, caller: &CurrentUser, session: SessionId) -> AuthResult<()> {
        let reason = if session == caller.session_id {
            CloseReason::LoggedOut
        } else {
            CloseReason::Revoked
        };
        match self
            .store
            .close_session(caller.user.id, session, reason, None, self.clock.now())
            .await?
        {
            CloseSession::Closed | CloseSession::AlreadyClosed => Ok(()),
            CloseSession::Unknown => Err(AuthError::NotFound("session")),
        }
    }

    /// Renews `authenticated_at` of the caller's session by the password, without opening a session.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`]; [`AuthError::SessionEnded`] when it ended meanwhile.
    pub async fn reauthenticate(
        &self,
        caller: &CurrentUser,
        password: &SecretString,
    ) -> AuthResult<()> {
        let credentials = self
            .store
            .user_credentials(caller.user.id)
            .await?
            .ok_or(AuthError::SessionUnknown)?;
        let verdict = self
            .passwords
            .verify(password, credentials.password_hash.as_ref())
            .await?;
        if verdict == passwords::Verdict::Mismatch {
            return Err(AuthError::WrongPassword);
        }
        if self
            .store
            .renew_authentication(caller.user.id, caller.session_id, self.clock.now())
            .await?
        {
            return Ok(());
        }
        match self
            .lookup
            .find(caller.user.id, caller.session_id)
            .await?
            .map(|view| self.judge(&view))
        {
            Some(Verdict::Ended(reason) | Verdict::Overdue(reason)) => {
                Err(AuthError::SessionEnded(reason))
            }
            Some(Verdict::Live) | None => Err(AuthError::SessionUnknown),
        }
    }

    /// The session behind a genuine token, if it is live.
    async fn live(&self, claims: &Claims) -> AuthResult<CurrentUser> {
        // At most twice: an idle session that was used meanwhile is judged once more.
        for _ in 0..2 {
            let view = self
                .lookup
                .find(claims.sub, claims.sid)
                .await?
                .ok_or(AuthError::SessionUnknown)?;
            let reason = match self.judge(&view) {
                Verdict::Live => return Ok(view.into()),
                Verdict::Ended(reason) => return Err(AuthError::SessionEnded(reason)),
                Verdict::Overdue(reason) => reason,
            };
            let now = self.clock.now();
            let unseen_since = (reason == CloseReason::Idle).then_some(view.last_seen_at);
            let closed = self
                .store
                .close_session(claims.sub, claims.sid, reason, unseen_since, now)
                .await?;
            if closed == CloseSession::Closed {
                return Err(AuthError::SessionEnded(reason));
            }
        }
        Err(AuthError::SessionUnknown)
    }

    fn judge(&self, view: &SessionView) -> Verdict {
        view.judge(self.clock.now(), self.policy.idle())
    }

    fn access_until(&self, now: Timestamp, session_end: Timestamp) -> Timestamp {
        now.plus(self.policy.access_ttl).min(session_end)
    }
}
