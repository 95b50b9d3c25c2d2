//! Sessions: logging in, being checked at every request, being ended.
//!
//! Decides what opens a session and what a token or a cookie is worth at this moment. How many sessions a
//! user may hold is enforced by the store in the same step that opens one.

mod first_factor;
mod introspection;
mod refreshing;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    audit::Trail,
    clock::{Clock, Span, Timestamp},
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    lookup::Lookup,
    metrics::Metrics,
    model::{
        audit::{Agent, Event, Occasion},
        mail::{LetterKind, NewLetter},
        session::{
            AuthMethod, CloseReason, Device, IdleRule, NewSession, Session, SessionView, Transport,
            Verdict,
        },
        user::{MOST_SESSIONS, OnLimit, SessionLimit, User},
    },
    outbox::{Cause, Outbox},
    passwords::{self, Passwords},
    presence::Presence,
    roles::Actor,
    secret::SecretString,
    setting::BadSetting,
    store::{CloseSession, LoginName, OpenSession, OpenSessionRequest, Store},
    throttle::{DeviceProof, KeptDevice, Throttle},
    tokens::{Claims, RefreshToken, SignedToken, Subject, TokenKind, Tokens},
};

use self::first_factor::{Passed, outcome};
pub use self::introspection::{IntrospectedToken, Introspection};

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
    /// How long a refresh token that was just used is still believed, for clients that lost the reply
    /// or asked twice at once; while its successor was not used, it is in any case. Default 10s.
    pub refresh_grace: Span,
    /// Within which time "last seen" is written down. Default 30s.
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
            refresh_grace: Span::secs(10),
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
        if self.refresh_grace > Span::minutes(5) {
            return Err(BadSetting::new(
                "sessions.refresh_grace",
                format!("{} is longer than 5m", self.refresh_grace),
                "set it to 10s; all that time a stolen refresh token that was used is not noticed",
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

/// What a request presents to show which session it belongs to.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// An access token, from the `Authorization` header.
    Access(&'a str),
    /// The value of the session cookie.
    Cookie(&'a str),
}

impl<'a> Presented<'a> {
    fn kind(self) -> TokenKind {
        match self {
            Self::Access(_) => TokenKind::Access,
            Self::Cookie(_) => TokenKind::Cookie,
        }
    }

    fn text(self) -> &'a str {
        match self {
            Self::Access(text) | Self::Cookie(text) => text,
        }
    }
}

/// Prints which kind it is, and `***`.
impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(***)", self.kind())
    }
}

/// A plain text is an access token.
impl<'a> From<&'a str> for Presented<'a> {
    fn from(token: &'a str) -> Self {
        Self::Access(token)
    }
}

/// Who is asking: the user and the session behind an accepted token or cookie, as they are in the
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
    /// How the client carries the session.
    pub transport: Transport,
}

impl CurrentUser {
    fn new(view: SessionView, transport: Transport) -> Self {
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
            transport,
        }
    }

    /// Who acts, for the use cases that ask.
    #[must_use]
    pub fn actor(&self) -> Actor<'_> {
        Actor::User {
            user: &self.user,
            session: self.session_id,
            authenticated_at: self.authenticated_at,
        }
    }
}

/// An access token and the refresh token that renews it.
#[derive(Debug, Clone)]
pub struct TokenPair {
    /// The access token.
    pub access: SignedToken,
    /// The refresh token.
    pub refresh: RefreshToken,
}

/// What a login gives: `C` is what the client carries from then on.
#[derive(Debug, Clone)]
pub struct Grant<C> {
    /// The session that was opened.
    pub session: Session,
    /// What its client carries: a [`TokenPair`], or the value of a cookie.
    pub carries: C,
    /// The sessions that it replaced, oldest first.
    pub evicted: Vec<SessionId>,
    /// What its client keeps besides, to be known at the next login; none if it wants nothing.
    pub device: Option<KeptDevice>,
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
    outbox: Outbox,
    throttle: Throttle,
    trail: Trail,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    policy: Arc<SessionPolicy>,
    needs_verified_email: bool,
    metrics: Arc<Metrics>,
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
    /// The letters.
    pub outbox: Outbox,
    /// The limits.
    pub throttle: Throttle,
    /// The audit trail.
    pub trail: Trail,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The chance.
    pub entropy: Arc<dyn Entropy>,
    /// How many sessions, and how long they last.
    pub policy: Arc<SessionPolicy>,
    /// Whether a login needs a verified address.
    pub needs_verified_email: bool,
    /// What logins are counted in.
    pub metrics: Arc<Metrics>,
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
            outbox,
            throttle,
            trail,
            clock,
            entropy,
            policy,
            needs_verified_email,
            metrics,
        } = parts;
        Self {
            store,
            passwords,
            tokens,
            lookup,
            presence,
            outbox,
            throttle,
            trail,
            clock,
            entropy,
            policy,
            needs_verified_email,
            metrics,
        }
    }

    /// Logs in with a password and opens a session whose client carries tokens.
    ///
    /// An unknown name, a user without a password and a wrong password cost the same work and are
    /// answered the same (ASVS 6.3.8). A login that was hashing while the password changed opens
    /// nothing.
    ///
    /// # Errors
    /// [`AuthError::RateLimited`]; [`AuthError::BadCredentials`]; only after a right password
    /// [`AuthError::AccountDeactivated`], [`AuthError::EmailUnverified`] and
    /// [`AuthError::SessionLimit`];
    /// [`AuthError::Overloaded`]; [`AuthError::Store`].
    pub async fn login(
        &self,
        name: &LoginName,
        password: &SecretString,
        device: Device,
        proof: DeviceProof<'_>,
    ) -> AuthResult<Grant<TokenPair>> {
        let carrying = |session: &mut NewSession, _| {
            let refresh = self.tokens.first_refresh(session.user_id, session.id)?;
            session.refresh = Some(refresh.hash());
            self.pair(refresh, session.expires_at)
        };
        self.log_in(name, password, (device, proof), carrying).await
    }

    /// As [`Self::login`], for a client that carries a cookie.
    ///
    /// # Errors
    /// As [`Self::login`].
    pub async fn login_for_cookie(
        &self,
        name: &LoginName,
        password: &SecretString,
        device: Device,
        proof: DeviceProof<'_>,
    ) -> AuthResult<Grant<SignedToken>> {
        let carrying = |session: &mut NewSession, now| {
            let (user, id) = (session.user_id, session.id);
            self.cookie(user, id, now, session.expires_at)
        };
        self.log_in(name, password, (device, proof), carrying).await
    }

    async fn log_in<C>(
        &self,
        name: &LoginName,
        password: &SecretString,
        (device, proof): (Device, DeviceProof<'_>),
        carrying: impl FnOnce(&mut NewSession, Timestamp) -> AuthResult<C>,
    ) -> AuthResult<Grant<C>> {
        let opened = match self.first_factor(name, password, &device, proof).await {
            Ok(passed) => self.open(passed, password, (device, proof), carrying).await,
            Err(refused) => Err(refused),
        };
        self.metrics.logins.bump(outcome(&opened));
        opened
    }

    async fn open<C>(
        &self,
        passed: Passed,
        password: &SecretString,
        (device, proof): (Device, DeviceProof<'_>),
        carrying: impl FnOnce(&mut NewSession, Timestamp) -> AuthResult<C>,
    ) -> AuthResult<Grant<C>> {
        let Passed {
            credentials,
            outdated,
            known,
        } = passed;
        let id = credentials.user.id;
        if !credentials.user.is_active() {
            self.refused_login(Some(id), "account_deactivated").await?;
            return Err(AuthError::AccountDeactivated);
        }
        if self.needs_verified_email && credentials.user.email_verified_at.is_none() {
            self.refused_login(Some(id), "email_unverified").await?;
            return Err(AuthError::EmailUnverified);
        }
        let letter = self.news_of(&credentials.user, &device).await?;
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
        let mut session = NewSession {
            id: SessionId::fresh(now, &*self.entropy),
            user_id: credentials.user.id,
            expires_at: now.plus(self.policy.absolute_ttl),
            auth_methods: vec![AuthMethod::Password],
            device,
            refresh: None,
        };
        // Before the session exists, so that no session is opened without a token to use it.
        let carries = carrying(&mut session, now)?;
        let request = OpenSessionRequest {
            session,
            credential_version: credentials.credential_version,
            limit: self.policy.limit(),
            idle: self.policy.idle(),
            rehash,
            letter,
        };
        let by = Occasion {
            at: now,
            ..self.trail.by_user(id, request.session.id)
        };
        match self.store.open_session(&request, &by).await? {
            OpenSession::Opened { session, evicted } => {
                self.outbox.ring();
                let device = match proof {
                    DeviceProof::Unwanted => None,
                    _ => self.throttle.keep_device(session.user_id, known).await,
                };
                Ok(Grant {
                    session,
                    carries,
                    evicted,
                    device,
                })
            }
            OpenSession::Refused { open } => Err(AuthError::SessionLimit { open }),
            OpenSession::NotActive => Err(AuthError::AccountDeactivated),
            OpenSession::Gone | OpenSession::CredentialsChanged => Err(AuthError::BadCredentials),
        }
    }

    /// Records a login that was refused; the user is none where nobody has the name.
    async fn refused_login(&self, user: Option<UserId>, reason: &'static str) -> AuthResult<()> {
        let event = Event::login_refused(user, reason);
        self.trail.note(event, Agent::Nobody).await
    }

    /// The letter that tells of a login from a device that none of the user's last sessions came from; none
    /// for the first session of all (ASVS 6.3.5).
    async fn news_of(&self, user: &User, device: &Device) -> AuthResult<Option<NewLetter>> {
        if !self.outbox.tells_new_devices() {
            return Ok(None);
        }
        let seen = self.store.recent_devices(user.id).await?;
        if seen.is_empty() || seen.iter().any(|seen| seen.resembles(device)) {
            return Ok(None);
        }
        let cause = Cause {
            accept_language: None,
            device: device.clone(),
        };
        let letter = self.outbox.letter(LetterKind::NewDevice, &cause);
        Ok(letter.map(|letter| letter.about(user.id).to(&user.email)))
    }

    /// Decides what an access token or a cookie is worth now: checks it without I/O, then looks its
    /// session and user up in the database. Nothing is cached.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`], [`AuthError::TokenExpired`], [`AuthError::SessionEnded`],
    /// [`AuthError::SessionUnknown`], [`AuthError::CookieSuperseded`]; [`AuthError::Overloaded`] and
    /// [`AuthError::Store`] when it cannot be decided.
    pub async fn authenticate(
        &self,
        presented: impl Into<Presented<'_>> + Send,
    ) -> AuthResult<CurrentUser> {
        let presented = presented.into();
        let claims = self.tokens.verify(presented.kind(), presented.text())?;
        self.judge_claims(presented.kind(), &claims).await
    }

    /// As [`Self::authenticate`], of a token that was checked already.
    async fn judge_claims(&self, kind: TokenKind, claims: &Claims) -> AuthResult<CurrentUser> {
        // A cookie ends with its session, so its own time has nothing to add.
        if kind == TokenKind::Access && claims.is_expired(self.clock.now()) {
            return Err(AuthError::TokenExpired);
        }
        let view = self.live(kind, claims).await?;
        let transport = match kind {
            TokenKind::Access => {
                if claims.generation > view.generation_used {
                    self.store
                        .note_generation(claims.sub, claims.sid, claims.generation)
                        .await?;
                }
                Transport::Bearer
            }
            TokenKind::Cookie => Transport::Cookie,
        };
        self.presence.note(claims.sub, claims.sid, self.clock.now());
        Ok(CurrentUser::new(view, transport))
    }

    /// Ends sessions of the token's user.
    ///
    /// Any genuine token or cookie ends its own session, even an expired one, even twice. To end
    /// others the session behind it must be live.
    ///
    /// # Errors
    /// As [`Self::authenticate`], without [`AuthError::TokenExpired`].
    pub async fn logout(
        &self,
        presented: impl Into<Presented<'_>> + Send,
        scope: LogoutScope,
    ) -> AuthResult<()> {
        let presented = presented.into();
        let claims = self.tokens.verify(presented.kind(), presented.text())?;
        let by = self.trail.by_user(claims.sub, claims.sid);
        let keep = match scope {
            LogoutScope::This => {
                self.store
                    .close_session(claims.sub, claims.sid, CloseReason::LoggedOut, None, &by)
                    .await?;
                return Ok(());
            }
            LogoutScope::Others => Some(self.live(presented.kind(), &claims).await?.session_id),
            LogoutScope::All => self.live(presented.kind(), &claims).await.map(|_| None)?,
        };
        self.store
            .close_sessions(claims.sub, keep, CloseReason::LoggedOut, &by)
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
        let by = self.trail.by(caller.actor().agent());
        match self
            .store
            .close_session(caller.user.id, session, reason, None, &by)
            .await?
        {
            CloseSession::Closed | CloseSession::AlreadyClosed => Ok(()),
            CloseSession::Unknown => Err(AuthError::NotFound("session")),
        }
    }

    /// Renews `authenticated_at` of the caller's session by the password, without opening a session.
    /// A caller with a cookie gets another one, which supersedes the old one (ASVS 7.2.4).
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::RateLimited`]; [`AuthError::SessionEnded`] when it ended
    /// meanwhile.
    pub async fn reauthenticate(
        &self,
        caller: &CurrentUser,
        password: &SecretString,
    ) -> AuthResult<Option<SignedToken>> {
        let credentials = self
            .store
            .user_credentials(caller.user.id)
            .await?
            .ok_or(AuthError::SessionUnknown)?;
        let (user, session) = (caller.user.id, caller.session_id);
        let place = self.passwords.place()?;
        let attempt = self.throttle.password_check(user, session).await?;
        let verdict = self
            .passwords
            .verify_in(place, password, credentials.password_hash.as_ref())
            .await?;
        if verdict == passwords::Verdict::Mismatch {
            self.trail.note_wrong_password(user, session).await?;
            return Err(AuthError::WrongPassword);
        }
        self.throttle.succeeded(attempt).await;
        // Of several at once one is noted, so that all their cookies are the same age.
        let known = caller.authenticated_at;
        let by = self.trail.by(caller.actor().agent());
        let noted = self.store.renew_authentication(user, session, known, &by);
        if let Some(authenticated_at) = noted.await? {
            return self.renewed_cookie(caller, authenticated_at);
        }
        match self
            .lookup
            .find(user, session)
            .await?
            .map(|view| self.judge(&view))
        {
            Some(Verdict::Ended(reason) | Verdict::Overdue(reason)) => {
                Err(AuthError::SessionEnded(reason))
            }
            Some(Verdict::Live) | None => Err(AuthError::SessionUnknown),
        }
    }

    /// The cookie that takes the place of the caller's, if that is what the caller has, once its user
    /// has proved who they are at `authenticated_at`.
    ///
    /// # Errors
    /// As [`Tokens::mint`].
    pub(crate) fn renewed_cookie(
        &self,
        caller: &CurrentUser,
        authenticated_at: Timestamp,
    ) -> AuthResult<Option<SignedToken>> {
        if caller.transport != Transport::Cookie {
            return Ok(None);
        }
        let (user, session) = (caller.user.id, caller.session_id);
        self.cookie(user, session, authenticated_at, caller.expires_at)
            .map(Some)
    }

    /// The session behind a genuine token, if it is live; of cookies only the newest one counts.
    async fn live(&self, kind: TokenKind, claims: &Claims) -> AuthResult<SessionView> {
        // At most twice: an idle session that was used meanwhile is judged once more.
        for _ in 0..2 {
            let view = self
                .lookup
                .find(claims.sub, claims.sid)
                .await?
                .ok_or(AuthError::SessionUnknown)?;
            let reason = match self.judge(&view) {
                Verdict::Live
                    if kind == TokenKind::Cookie && claims.generation != newest(&view) =>
                {
                    return Err(AuthError::CookieSuperseded);
                }
                Verdict::Live => return Ok(view),
                Verdict::Ended(reason) => return Err(AuthError::SessionEnded(reason)),
                Verdict::Overdue(reason) => reason,
            };
            if self.close_overdue(&view, reason).await? {
                return Err(AuthError::SessionEnded(reason));
            }
        }
        Err(AuthError::SessionUnknown)
    }

    /// Closes a session whose time is over; an idle one only if it is still as it was seen. False if
    /// it was left as it is.
    async fn close_overdue(&self, view: &SessionView, reason: CloseReason) -> AuthResult<bool> {
        let by = self.trail.by_itself();
        let unseen_since = (reason == CloseReason::Idle).then_some(view.last_seen_at);
        let closed = self
            .store
            .close_session(view.user.id, view.session_id, reason, unseen_since, &by)
            .await?;
        Ok(closed == CloseSession::Closed)
    }

    fn judge(&self, view: &SessionView) -> Verdict {
        view.judge(self.clock.now(), self.policy.idle())
    }

    /// A refresh token with an access token of its generation.
    fn pair(&self, refresh: RefreshToken, session_end: Timestamp) -> AuthResult<TokenPair> {
        let subject = Subject {
            user: refresh.user(),
            session: refresh.session(),
            generation: refresh.generation(),
        };
        let until = self.clock.now().plus(self.policy.access_ttl);
        let access = self
            .tokens
            .mint(TokenKind::Access, subject, until.min(session_end))?;
        Ok(TokenPair { access, refresh })
    }

    fn cookie(
        &self,
        user: UserId,
        session: SessionId,
        authenticated_at: Timestamp,
        session_end: Timestamp,
    ) -> AuthResult<SignedToken> {
        let subject = Subject {
            user,
            session,
            generation: authenticated_at.as_millis(),
        };
        self.tokens.mint(TokenKind::Cookie, subject, session_end)
    }
}

/// The generation of a session's newest cookie: each is made for one proof of who its user is.
fn newest(view: &SessionView) -> i64 {
    view.authenticated_at.as_millis()
}
