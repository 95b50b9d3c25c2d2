//! The storage contract: atomic decisions, not rows.
//!
//! Each method of [`Store`] is one step that either happens whole or not at all, named for what it
//! decides, with an outcome for everything that can be found. Who may race and who wins is said with
//! each. `tests/store` runs one list of cases against every implementation.
//!
//! Rules for all methods:
//! - `now` is the caller's time; an implementation never asks for its own.
//! - A change that returned is durable and visible to every later read on every node.
//! - A stored time never goes back: writers store `max(old, now)`.
//! - A method that writes in several statements finishes even if its caller goes away.

pub mod error;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod open;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod settings;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use async_trait::async_trait;

pub use self::error::StoreError;
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, IdleRule, NewSession, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    username::Username,
};

/// What a store method answers.
pub type StoreResult<T> = Result<T, StoreError>;

/// The name somebody logs in by.
#[derive(Debug, Clone)]
pub enum LoginName {
    /// By e-mail address, compared in canonical form.
    Email(EmailAddress),
    /// By user name, compared in canonical form.
    Username(Username),
}

/// Outcome of [`Store::create_user`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateUser {
    /// Stored.
    Created,
    /// Another user has the address.
    EmailTaken,
    /// Another user has the user name.
    UsernameTaken,
}

/// Outcome of [`Store::update_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateUser {
    /// Changed; the user as it is now.
    Updated(Box<User>),
    /// Another user has the new address.
    EmailTaken,
    /// Another user has the new user name.
    UsernameTaken,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::set_roles`], [`Store::deactivate_user`] and [`Store::activate_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeStanding {
    /// Changed, or already so; the user as it is now.
    Changed(Box<User>),
    /// Refused: no active administrator would be left.
    LastAdmin,
    /// Refused: the credentials are not the expected ones any more.
    CredentialsChanged,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::set_password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetPassword {
    /// Stored.
    Changed {
        /// How many sessions were closed by it.
        closed: u64,
        /// When the user of the session that was kept last proved who they are; none if there is no
        /// such open session.
        authenticated_at: Option<Timestamp>,
    },
    /// The password changed since `credential_version` was read; nothing was written.
    CredentialsChanged,
    /// The user is not active; nothing was written.
    NotActive,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::redeem_set_password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeem {
    /// Spent, and the password is set.
    Redeemed(UserId),
    /// Unknown, spent, expired or void; nothing was written.
    Refused,
}

/// Outcome of [`Store::open_session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenSession {
    /// Opened.
    Opened {
        /// The session as stored.
        session: Session,
        /// The sessions that it replaced, oldest first.
        evicted: Vec<SessionId>,
    },
    /// The limit is reached and the policy is to refuse.
    Refused {
        /// How many sessions are open.
        open: u32,
    },
    /// The user is not active; nothing was written.
    NotActive,
    /// There is no such user.
    Gone,
    /// The password changed since `credential_version` was read; nothing was written.
    CredentialsChanged,
}

/// What [`Store::open_session`] is to do.
#[derive(Debug, Clone)]
pub struct OpenSessionRequest {
    /// The session.
    pub session: NewSession,
    /// As read together with the password hash.
    pub credential_version: i64,
    /// The policy; the user's own override is applied to it in the same step.
    pub limit: SessionLimit,
    /// Which open sessions have become idle.
    pub idle: IdleRule,
    /// A hash with newer parameters of the same password, stored in the same step; it does not
    /// change the `credential_version`.
    pub rehash: Option<PasswordHash>,
}

/// Outcome of [`Store::close_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseSession {
    /// Closed now.
    Closed,
    /// It had ended before; its reason stays.
    AlreadyClosed,
    /// There is no such session of that user.
    Unknown,
}

/// What [`Store::rotate_refresh`] is to do.
#[derive(Debug, Clone, Copy)]
pub struct RotateRefresh {
    /// Whose session.
    pub user: UserId,
    /// Which session.
    pub session: SessionId,
    /// The stored form of the token that is presented.
    pub presented: SecretHash,
    /// The stored form of the one that takes its place.
    pub successor: SecretHash,
    /// The successor's generation.
    pub generation: i64,
    /// Which open sessions have become idle.
    pub idle: IdleRule,
}

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Part of the e-mail address or user name, literally, without regard to case.
    pub text: Option<String>,
    /// Only active or only deactivated ones.
    pub active: Option<bool>,
    /// Only holders of this role.
    pub role: Option<String>,
    /// Only users whose id is smaller than this: the last one of the page before.
    pub before: Option<UserId>,
    /// At most this many.
    pub limit: u32,
}

/// A session that was used, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whose session.
    pub user_id: UserId,
    /// Which session.
    pub session_id: SessionId,
    /// When it was last used.
    pub at: Timestamp,
}

/// The database behind Doorward.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Asks the database for its time: proof that it can answer, and what clocks follow.
    async fn time(&self) -> StoreResult<Timestamp>;

    /// Closes what the store holds open; calls after it may fail.
    async fn close(&self);

    /// Stores a user, and with it the one-time secret for setting a first password if one is given.
    ///
    /// Of any number of concurrent calls with one canonical address or user name exactly one is
    /// `Created`.
    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
    ) -> StoreResult<CreateUser>;

    /// The user with this id.
    async fn user(&self, id: UserId) -> StoreResult<Option<User>>;

    /// The user who logs in by this name, with what a login needs.
    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>>;

    /// What a login needs, by id.
    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>>;

    /// Users by descending id (newest first).
    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>>;

    /// Changes fields of a user. A new session limit closes the oldest surplus sessions
    /// (`limit_lowered`) in the same step, measured with `limit` as the policy that it overrides;
    /// sessions that have expired or are idle do not count and are closed as such.
    ///
    /// Concurrent calls are applied one after the other; uniqueness as in [`Self::create_user`].
    async fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        limit: SessionLimit,
        idle: IdleRule,
        now: Timestamp,
    ) -> StoreResult<UpdateUser>;

    /// Replaces a user's roles. Sessions stay open: rights are read from the user at each request.
    ///
    /// Concurrent calls of this and [`Self::deactivate_user`] never leave the system without an
    /// active administrator where there was one.
    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding>;

    /// Deactivates a user and closes all their sessions (`account_deactivated`) in the same step.
    /// Deactivating twice keeps the first time. With a `credential_version` nothing changes unless
    /// the user still has it: the proof that was given belongs to it.
    ///
    /// Races with [`Self::open_session`]: whichever comes first, no session is open afterwards.
    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding>;

    /// Lets a user log in again; closed sessions stay closed.
    async fn activate_user(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding>;

    /// Replaces the password if it is still the one `credential_version` was read with, and closes
    /// all sessions (`password_changed`) but `keep` in the same step. Open one-time secrets for
    /// setting a password become void, `credential_version` grows by one and `keep` counts as
    /// authenticated at `now`.
    ///
    /// Of concurrent calls with one `credential_version` exactly one is `Changed`.
    async fn set_password(
        &self,
        id: UserId,
        hash: &PasswordHash,
        credential_version: i64,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> StoreResult<SetPassword>;

    /// Spends a one-time secret for setting a password, sets it and closes all sessions of its user
    /// (`password_changed`), in one step.
    ///
    /// Of concurrent calls with one secret exactly one is `Redeemed`. A deactivated user's secret is
    /// refused and not spent.
    async fn redeem_set_password(
        &self,
        secret: &SecretHash,
        hash: &PasswordHash,
        now: Timestamp,
    ) -> StoreResult<Redeem>;

    /// Opens a session, in one step with everything that belongs to it: sessions of the user that
    /// have expired (`expired`) or become idle (`idle`) are closed first; if as many as the limit or
    /// more are still open, the oldest surplus is closed (`replaced`) or the login refused.
    ///
    /// Whatever number of calls race for one user, on whatever nodes, there are never more open
    /// sessions than the limit; the database enforces it. A call whose `credential_version` is not
    /// the user's any more writes nothing.
    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession>;

    /// The sessions asked for with their users, in the order asked; `None` for one that does not
    /// exist or is not that user's. Each as it is in a snapshot taken after the call began.
    ///
    /// Errors are per row, so a corrupt row fails one caller; the outer error means that nothing
    /// could be read.
    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>>;

    /// A user's sessions that are not closed, newest first.
    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>>;

    /// Closes one session. With `unseen_since`, only if it was not seen after that time (idle sessions
    /// are closed only while still unused); otherwise it is left open and `AlreadyClosed` is answered.
    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<CloseSession>;

    /// Closes the session with this id, whosesoever it is.
    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<CloseSession>;

    /// Closes all open sessions of a user but `keep`, and says how many. `None`: no such user.
    ///
    /// Every session that was open when the call began is closed when it returns.
    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<Option<u64>>;

    /// Notes that the user of an open session has just proved who they are, unless that was noted
    /// after `known`: of concurrent calls with one `known` the first is noted, and all are answered
    /// with what stands there then. `None` if the session is not open.
    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>>;

    /// Puts the successor in the place of a session's refresh token and answers when the session ends.
    /// `None`, and nothing is written, unless the presented one is its current one, the session is open
    /// and neither expired nor idle, and its user is active.
    ///
    /// Of any number of concurrent calls with one `presented` exactly one is answered with a time.
    async fn rotate_refresh(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>>;

    /// What refreshing a session needs to know; `None` if it does not exist or is not that user's.
    async fn refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>>;

    /// Notes that an access token of this generation was seen, so that the refresh token of the
    /// generation before has done its duty. Never backwards, and never beyond the generation that there
    /// is.
    async fn note_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()>;

    /// Notes when sessions were last used: open ones only, never backwards.
    ///
    /// Two nodes' flushes, or a flush and a login, never wait for each other in a circle.
    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()>;
}

/// The schema changes of a database, applied in order of their numbers.
#[async_trait]
pub trait Migrations: Send + Sync + 'static {
    /// Names of the changes not applied yet, in order.
    async fn pending(&self) -> StoreResult<Vec<String>>;

    /// Applies what is pending and says what it was. Safe to call from several processes at once:
    /// each change is applied once.
    async fn apply(&self) -> StoreResult<Vec<String>>;

    /// Takes the last `n` changes back, newest first, and says which. Their data is lost.
    async fn revert(&self, n: usize) -> StoreResult<Vec<String>>;
}
