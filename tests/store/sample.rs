//! Users, logins and sessions as the cases need them.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    entropy::SystemEntropy,
    ids::{OneTimeSecretId, SessionId, UserId},
    model::{
        role::FixedRoles,
        session::{
            AuthMethod, CloseReason, Device, IdleRule, NewSession, Session, SessionState,
            SessionView,
        },
        token::{LinkSecret, NewOneTimeSecret, Purpose, SecretHash},
        user::{
            Attributes, NewUser, OnLimit, PasswordHash, Roles, SessionLimit, SessionLimitOverride,
            User, UserCredentials, UserStatus,
        },
    },
    store::{CreateUser, LoginName, OpenSession, OpenSessionRequest, Store},
    username::Username,
};
use serde_json::Value;

use crate::harness::backend::Database;
use crate::harness::occasions::by;

/// When the cases begin.
pub const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_123);
/// One session at a time, the newest wins.
pub const SINGLE: SessionLimit = limit(1);
/// A week, known half a minute late.
pub const IDLE: IdleRule = IdleRule {
    idle_ttl: Span::days(7),
    flush: Span::secs(30),
};

/// So many seconds after the beginning.
pub fn at(seconds: i64) -> Timestamp {
    NOW.plus(Span::secs(seconds))
}

/// At most `max`, the oldest make way.
pub const fn limit(max: u32) -> SessionLimit {
    SessionLimit {
        max,
        on_limit: OnLimit::EvictOldest,
    }
}

/// At most `max`, the newest is refused.
pub const fn reject(max: u32) -> SessionLimit {
    SessionLimit {
        max,
        on_limit: OnLimit::Reject,
    }
}

/// A user's own number of sessions.
pub const fn own_max(max: u32) -> SessionLimitOverride {
    SessionLimitOverride {
        max: Some(max),
        on_limit: None,
    }
}

/// Two independent stores on one database.
pub async fn two_nodes(database: &Database) -> [Arc<dyn Store>; 2] {
    [database.open().await, database.open().await]
}

pub fn address(email: &str) -> EmailAddress {
    EmailAddress::parse(email).expect("a valid address")
}

pub fn name(username: &str) -> Username {
    Username::parse(username).expect("a valid user name")
}

pub fn roles<const N: usize>(names: [&str; N]) -> Roles {
    Roles::parse(names.map(str::to_owned)).expect("valid roles")
}

pub fn attributes(value: Value) -> Attributes {
    let Value::Object(object) = value else {
        panic!("not an object")
    };
    Attributes::parse(object).expect("valid attributes")
}

pub fn hash(text: &str) -> PasswordHash {
    format!("$scrypt$ln=4,r=8,p=1$c2FsdA${text}").into()
}

pub fn fresh_user_id() -> UserId {
    UserId::fresh(NOW, &SystemEntropy)
}

pub fn fresh_session_id() -> SessionId {
    SessionId::fresh(NOW, &SystemEntropy)
}

/// A user with the password `first`, made at `NOW`.
pub fn new_user(email: &str) -> NewUser {
    new_user_at(email, NOW)
}

pub fn new_user_at(email: &str, now: Timestamp) -> NewUser {
    let user = User {
        id: UserId::fresh(now, &SystemEntropy),
        email: address(email),
        email_verified_at: None,
        username: None,
        attributes: Attributes::default(),
        roles: Roles::default(),
        status: UserStatus::Active,
        session_limit: SessionLimitOverride::default(),
        created_at: now,
        updated_at: now,
    };
    NewUser {
        user,
        password_hash: Some(hash("first")),
        provisional_until: None,
    }
}

pub fn named_user(email: &str, username: &str) -> NewUser {
    let mut new = new_user(email);
    new.user.username = Some(name(username));
    new
}

/// The roles that there are without any in the configuration.
pub fn built_in() -> FixedRoles {
    FixedRoles::default()
}

pub fn new_admin(email: &str) -> NewUser {
    let mut new = new_user(email);
    new.user.roles = Roles::admin();
    new
}

/// Stores a user that nothing is in the way of.
pub async fn add(store: &dyn Store, new: &NewUser) -> UserId {
    let outcome = store
        .create_user(new, None, None, &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(outcome, CreateUser::Created);
    new.user.id
}

/// Stores a user with this address.
pub async fn add_user(store: &dyn Store, email: &str) -> UserId {
    add(store, &new_user(email)).await
}

/// Stores a user without a password and a link for setting one, good for a day.
pub async fn add_invited(store: &dyn Store, email: &str) -> (UserId, SecretHash) {
    let mut new = new_user(email);
    new.password_hash = None;
    let link = new_link(new.user.id);
    let outcome = store.create_user(&new, Some(&link), None, &by(NOW)).await;
    assert_eq!(outcome.expect("an answer"), CreateUser::Created);
    (new.user.id, link.hash)
}

pub fn new_link(user_id: UserId) -> NewOneTimeSecret {
    NewOneTimeSecret {
        id: OneTimeSecretId::fresh(NOW, &SystemEntropy),
        user_id,
        purpose: Purpose::SetPassword,
        hash: LinkSecret::fresh(&SystemEntropy).hash(),
        expires_at: NOW.plus(Span::days(1)),
    }
}

/// A user that exists.
pub async fn user(store: &dyn Store, id: UserId) -> User {
    let found = store.user(id).await.expect("an answer");
    found.expect("the user exists")
}

pub async fn credentials(store: &dyn Store, id: UserId) -> UserCredentials {
    let found = store.user_credentials(id).await.expect("an answer");
    found.expect("the user exists")
}

/// The stored hash, to be compared.
pub async fn stored_hash(store: &dyn Store, id: UserId) -> Option<String> {
    let found = credentials(store, id).await.password_hash;
    found.map(|hash| hash.expose().clone())
}

pub fn by_email(email: &str) -> LoginName {
    LoginName::Email(address(email))
}

pub fn by_username(username: &str) -> LoginName {
    LoginName::Username(name(username))
}

/// Whom this name logs in.
pub async fn login_finds(store: &dyn Store, login: &LoginName) -> Option<UserId> {
    let found = store.user_by_login(login).await.expect("an answer");
    found.map(|found| found.user.id)
}

/// How one user logs in.
#[derive(Clone)]
pub struct Login {
    pub user: UserId,
    pub version: i64,
    pub limit: SessionLimit,
    pub rehash: Option<PasswordHash>,
}

impl Login {
    /// With the user's present password, one session at a time.
    pub async fn of(store: &dyn Store, user: UserId) -> Self {
        Self {
            user,
            version: credentials(store, user).await.credential_version,
            limit: SINGLE,
            rehash: None,
        }
    }

    pub fn under(self, limit: SessionLimit) -> Self {
        Self { limit, ..self }
    }

    /// A session that lasts thirty days.
    pub fn request(&self, now: Timestamp) -> OpenSessionRequest {
        let session = NewSession {
            id: SessionId::fresh(now, &SystemEntropy),
            user_id: self.user,
            expires_at: now.plus(Span::days(30)),
            auth_methods: vec![AuthMethod::Password],
            device: Device::default(),
            refresh: Some(SecretHash::of("first")),
        };
        OpenSessionRequest {
            session,
            credential_version: self.version,
            limit: self.limit,
            idle: IDLE,
            rehash: self.rehash.clone(),
            letter: None,
        }
    }

    pub async fn try_open(&self, store: &dyn Store, now: Timestamp) -> OpenSession {
        let outcome = store.open_session(&self.request(now), &by(now)).await;
        outcome.expect("an answer")
    }

    /// Opens a session that nothing is in the way of.
    pub async fn open(&self, store: &dyn Store, now: Timestamp) -> Session {
        match self.try_open(store, now).await {
            OpenSession::Opened { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }
}

/// Opens a session of a user who may have as many as a hundred.
pub async fn open_one(store: &dyn Store, user: UserId, now: Timestamp) -> SessionId {
    let login = Login::of(store, user).await.under(limit(100));
    login.open(store, now).await.id
}

/// One session as the hot read sees it.
pub async fn view(store: &dyn Store, user: UserId, session: SessionId) -> Option<SessionView> {
    let mut found = store
        .live_sessions(&[(user, session)])
        .await
        .expect("an answer");
    assert_eq!(found.len(), 1);
    found.remove(0).expect("a sound row")
}

/// The state of a session that exists.
pub async fn state(store: &dyn Store, user: UserId, session: SessionId) -> SessionState {
    let found = view(store, user, session).await;
    found.expect("the session exists").state
}

/// Ended for this reason at this time.
pub fn closed(reason: CloseReason, at: Timestamp) -> SessionState {
    SessionState::Closed { at, reason }
}

/// The ids of a user's open sessions, newest first.
pub async fn open_ids(store: &dyn Store, user: UserId) -> Vec<SessionId> {
    let open = store.open_sessions_of(user).await.expect("an answer");
    open.iter().map(|session| session.id).collect()
}
