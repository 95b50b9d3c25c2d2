//! Rows and how they become what the model knows; a row that should be impossible is named.

use std::str::FromStr;

use diesel::prelude::*;

use super::{
    schema::{mail_outbox, one_time_secrets, pending_registrations, roles, sessions, users},
    types::{DbId, DbJson, DbNames, DbTime},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        account::{NewRegistration, WaitingRegistration},
        mail::{Letter, LetterKind, LetterState, NewLetter},
        role::{RoleDefinition, StoredRole},
        session::{
            AuthMethod, CloseReason, Device, NewSession, RefreshState, Session, SessionState,
            SessionView,
        },
        token::{NewOneTimeSecret, Purpose, SecretHash},
        user::{
            Attributes, NewUser, OnLimit, Roles, SessionLimitOverride, User, UserCredentials,
            UserStatus,
        },
    },
    store::{StoreError, StoreResult},
    username::Username,
};

const ACTIVE: &str = "active";
const DEACTIVATED: &str = "deactivated";

/// A status as stored.
pub(super) fn status_text(active: bool) -> &'static str {
    if active { ACTIVE } else { DEACTIVATED }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub(super) struct UserRow {
    pub(super) id: DbId,
    email: String,
    email_verified_at: Option<DbTime>,
    username: Option<String>,
    attributes: DbJson,
    roles: DbNames,
    status: String,
    deactivated_at: Option<DbTime>,
    max_sessions: Option<i32>,
    on_session_limit: Option<String>,
    created_at: DbTime,
    updated_at: DbTime,
}

impl UserRow {
    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "users",
            column,
            row: self.id.0.to_string(),
        }
    }

    pub(super) fn parse(self) -> StoreResult<User> {
        let status = match (self.status.as_str(), self.deactivated_at) {
            (ACTIVE, None) => UserStatus::Active,
            (DEACTIVATED, Some(at)) => UserStatus::Deactivated { at: at.0 },
            (ACTIVE | DEACTIVATED, _) => return Err(self.corrupt("deactivated_at")),
            _ => return Err(self.corrupt("status")),
        };
        let on_limit = match self.on_session_limit.as_deref().map(OnLimit::parse) {
            None => None,
            Some(Some(rule)) => Some(rule),
            Some(None) => return Err(self.corrupt("on_session_limit")),
        };
        let max = self.max_sessions.map(u32::try_from).transpose();
        let username = self.username.as_deref().map(Username::parse).transpose();
        Ok(User {
            email: EmailAddress::parse(&self.email).map_err(|_| self.corrupt("email"))?,
            username: username.map_err(|_| self.corrupt("username"))?,
            attributes: self
                .attributes
                .object()
                .map(Attributes::stored)
                .ok_or_else(|| self.corrupt("attributes"))?,
            roles: self.roles.roles().ok_or_else(|| self.corrupt("roles"))?,
            session_limit: SessionLimitOverride {
                max: max.map_err(|_| self.corrupt("max_sessions"))?,
                on_limit,
            },
            id: self.id.0.into(),
            email_verified_at: self.email_verified_at.map(|at| at.0),
            status,
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub(super) struct CredentialsRow {
    password_hash: Option<String>,
    pub(super) credential_version: i64,
    #[diesel(embed)]
    pub(super) user: UserRow,
}

impl CredentialsRow {
    pub(super) fn parse(self) -> StoreResult<UserCredentials> {
        Ok(UserCredentials {
            user: self.user.parse()?,
            password_hash: self.password_hash.map(Into::into),
            credential_version: self.credential_version,
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = users)]
pub(super) struct NewUserRow {
    id: DbId,
    email: String,
    email_canonical: String,
    email_verified_at: Option<DbTime>,
    username: Option<String>,
    username_canonical: Option<String>,
    password_hash: Option<String>,
    credential_version: i64,
    attributes: DbJson,
    roles: DbNames,
    status: &'static str,
    deactivated_at: Option<DbTime>,
    max_sessions: Option<i32>,
    on_session_limit: Option<&'static str>,
    created_at: DbTime,
    updated_at: DbTime,
    provisional_until: Option<DbTime>,
}

impl From<&NewUser> for NewUserRow {
    fn from(new: &NewUser) -> Self {
        let user = &new.user;
        let deactivated_at = match user.status {
            UserStatus::Active => None,
            UserStatus::Deactivated { at } => Some(DbTime(at)),
        };
        Self {
            id: DbId(user.id.as_uuid()),
            email: user.email.as_str().to_owned(),
            email_canonical: user.email.canonical().to_owned(),
            email_verified_at: user.email_verified_at.map(DbTime),
            username: user.username.as_ref().map(|name| name.as_str().to_owned()),
            username_canonical: user
                .username
                .as_ref()
                .map(|name| name.canonical().to_owned()),
            password_hash: new.password_hash.as_ref().map(|hash| hash.expose().clone()),
            credential_version: 0,
            attributes: DbJson::from(&user.attributes),
            roles: DbNames::from(&user.roles),
            status: status_text(user.is_active()),
            deactivated_at,
            max_sessions: limit_column(user.session_limit.max),
            on_session_limit: user.session_limit.on_limit.map(OnLimit::as_str),
            created_at: DbTime(user.created_at),
            updated_at: DbTime(user.updated_at),
            provisional_until: new.provisional_until.map(DbTime),
        }
    }
}

/// A user's own session limit as it is stored.
pub(super) fn limit_column(max: Option<u32>) -> Option<i32> {
    max.map(|max| i32::try_from(max).unwrap_or(i32::MAX))
}

/// A session without what only its owner's list shows.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
pub(super) struct SessionCoreRow {
    pub(super) id: DbId,
    pub(super) user_id: DbId,
    pub(super) authenticated_at: DbTime,
    pub(super) last_seen_at: DbTime,
    pub(super) expires_at: DbTime,
    closed_at: Option<DbTime>,
    close_reason: Option<String>,
    generation_used: i64,
}

impl SessionCoreRow {
    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "sessions",
            column,
            row: self.id.0.to_string(),
        }
    }

    fn state(&self) -> StoreResult<SessionState> {
        match (self.closed_at, self.close_reason.as_deref()) {
            (None, None) => Ok(SessionState::Open),
            (Some(at), Some(reason)) => {
                let reason =
                    CloseReason::parse(reason).ok_or_else(|| self.corrupt("close_reason"))?;
                Ok(SessionState::Closed { at: at.0, reason })
            }
            _ => Err(self.corrupt("closed_at")),
        }
    }

    pub(super) fn view(self, user: UserRow) -> StoreResult<SessionView> {
        Ok(SessionView {
            state: self.state()?,
            session_id: self.id.0.into(),
            user: user.parse()?,
            authenticated_at: self.authenticated_at.0,
            last_seen_at: self.last_seen_at.0,
            expires_at: self.expires_at.0,
            generation_used: self.generation_used,
        })
    }
}

/// What only refreshing needs of a session.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
pub(super) struct RefreshRow {
    generation: i64,
    refresh_hash: Option<Vec<u8>>,
    refresh_previous: Option<Vec<u8>>,
    rotated_at: Option<DbTime>,
}

impl RefreshRow {
    pub(super) fn state(self, session: SessionCoreRow, user: UserRow) -> StoreResult<RefreshState> {
        let hash = |bytes: Option<Vec<u8>>, column| match bytes.map(|b| SecretHash::stored(&b)) {
            None => Ok(None),
            Some(None) => Err(session.corrupt(column)),
            Some(hash) => Ok(hash),
        };
        Ok(RefreshState {
            generation: self.generation,
            current: hash(self.refresh_hash, "refresh_hash")?,
            previous: hash(self.refresh_previous, "refresh_previous")?,
            rotated_at: self.rotated_at.map(|at| at.0),
            view: session.view(user)?,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
pub(super) struct SessionRow {
    #[diesel(embed)]
    pub(super) core: SessionCoreRow,
    pub(super) slot: i32,
    pub(super) created_at: DbTime,
    auth_methods: String,
    device_name: Option<String>,
    user_agent: Option<String>,
    address: Option<String>,
}

impl SessionRow {
    pub(super) fn parse(self) -> StoreResult<Session> {
        let methods: Option<Vec<_>> = self
            .auth_methods
            .split(' ')
            .map(AuthMethod::parse)
            .collect();
        let address = self.address.as_deref().map(FromStr::from_str).transpose();
        Ok(Session {
            state: self.core.state()?,
            auth_methods: methods.ok_or_else(|| self.core.corrupt("auth_methods"))?,
            device: Device {
                name: self.device_name,
                user_agent: self.user_agent,
                address: address.map_err(|_| self.core.corrupt("address"))?,
            },
            id: self.core.id.0.into(),
            user_id: self.core.user_id.0.into(),
            created_at: self.created_at.0,
            authenticated_at: self.core.authenticated_at.0,
            last_seen_at: self.core.last_seen_at.0,
            expires_at: self.core.expires_at.0,
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = sessions)]
pub(super) struct NewSessionRow {
    id: DbId,
    user_id: DbId,
    slot: i32,
    created_at: DbTime,
    authenticated_at: DbTime,
    last_seen_at: DbTime,
    expires_at: DbTime,
    auth_methods: String,
    device_name: Option<String>,
    user_agent: Option<String>,
    address: Option<String>,
    refresh_hash: Option<Vec<u8>>,
}

impl NewSessionRow {
    pub(super) fn new(session: &NewSession, slot: i32, now: Timestamp) -> Self {
        let methods: Vec<_> = session
            .auth_methods
            .iter()
            .map(|method| method.as_str())
            .collect();
        Self {
            id: DbId(session.id.as_uuid()),
            user_id: DbId(session.user_id.as_uuid()),
            slot,
            created_at: DbTime(now),
            authenticated_at: DbTime(now),
            last_seen_at: DbTime(now),
            expires_at: DbTime(session.expires_at),
            auth_methods: methods.join(" "),
            device_name: session.device.name.clone(),
            user_agent: session.device.user_agent.clone(),
            address: session.device.address.map(|address| address.to_string()),
            refresh_hash: session.refresh.map(|hash| hash.as_bytes().to_vec()),
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = one_time_secrets)]
pub(super) struct NewSecretRow {
    id: DbId,
    user_id: DbId,
    purpose: &'static str,
    secret_hash: Vec<u8>,
    created_at: DbTime,
    expires_at: DbTime,
    address: Option<String>,
    code_hash: Option<Vec<u8>>,
    code_expires_at: Option<DbTime>,
    tries: i32,
    tries_since: Option<DbTime>,
}

impl NewSecretRow {
    pub(super) fn new(secret: &NewOneTimeSecret, now: Timestamp) -> Self {
        Self {
            id: DbId(secret.id.as_uuid()),
            user_id: DbId(secret.user_id.as_uuid()),
            purpose: secret.purpose.as_str(),
            secret_hash: secret.hash.as_bytes().to_vec(),
            created_at: DbTime(now),
            expires_at: DbTime(secret.expires_at),
            address: None,
            code_hash: None,
            code_expires_at: None,
            tries: 0,
            tries_since: None,
        }
    }

    /// The secret of a letter, good from now on.
    pub(super) fn mailed(
        letter: &NewLetter,
        purpose: Purpose,
        owner: UserId,
        link: SecretHash,
        to: &EmailAddress,
        now: Timestamp,
    ) -> Self {
        Self {
            id: DbId(letter.id.as_uuid()),
            user_id: DbId(owner.as_uuid()),
            purpose: purpose.as_str(),
            secret_hash: link.as_bytes().to_vec(),
            created_at: DbTime(letter.created_at),
            expires_at: DbTime(purpose.link_expires_at(letter.created_at, now)),
            address: Some(to.as_str().to_owned()),
            code_hash: None,
            code_expires_at: None,
            tries: 0,
            tries_since: None,
        }
    }

    pub(super) fn with_code(
        mut self,
        code: Option<SecretHash>,
        expires_at: Timestamp,
        tries: i32,
        tries_since: Option<DbTime>,
    ) -> Self {
        self.code_hash = code.map(|hash| hash.as_bytes().to_vec());
        self.code_expires_at = code.map(|_| DbTime(expires_at));
        self.tries = tries;
        self.tries_since = tries_since;
        self
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = one_time_secrets)]
pub(super) struct SecretRow {
    pub(super) id: DbId,
    pub(super) user_id: DbId,
    purpose: String,
    pub(super) created_at: DbTime,
    pub(super) expires_at: DbTime,
    pub(super) used_at: Option<DbTime>,
    address: Option<String>,
    code_hash: Option<Vec<u8>>,
    pub(super) code_expires_at: Option<DbTime>,
    pub(super) tries: i32,
    pub(super) tries_since: Option<DbTime>,
}

impl SecretRow {
    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "one_time_secrets",
            column,
            row: self.id.0.to_string(),
        }
    }

    pub(super) fn address(&self) -> StoreResult<Option<EmailAddress>> {
        let address = self.address.as_deref().map(EmailAddress::parse);
        address.transpose().map_err(|_| self.corrupt("address"))
    }

    pub(super) fn code(&self) -> StoreResult<Option<SecretHash>> {
        stored_hash(self.code_hash.as_deref()).map_err(|()| self.corrupt("code_hash"))
    }

    /// Whether it is good only as long as its user has the address that it was sent to.
    pub(super) fn is_bound_to_address(&self) -> StoreResult<bool> {
        let purpose = Purpose::parse(&self.purpose).ok_or_else(|| self.corrupt("purpose"))?;
        Ok(self.address.is_some() && purpose.is_for_own_address())
    }
}

fn stored_hash(bytes: Option<&[u8]>) -> Result<Option<SecretHash>, ()> {
    match bytes.map(SecretHash::stored) {
        None => Ok(None),
        Some(Some(hash)) => Ok(Some(hash)),
        Some(None) => Err(()),
    }
}

#[derive(Insertable)]
#[diesel(table_name = pending_registrations)]
pub(super) struct NewRegistrationRow {
    id: DbId,
    email: String,
    email_canonical: String,
    username: Option<String>,
    attributes: DbJson,
    password_hash: String,
    created_at: DbTime,
    expires_at: DbTime,
    tries: i32,
}

impl From<&NewRegistration> for NewRegistrationRow {
    fn from(new: &NewRegistration) -> Self {
        Self {
            id: DbId(new.id.as_uuid()),
            email: new.email.as_str().to_owned(),
            email_canonical: new.email.canonical().to_owned(),
            username: new.username.as_ref().map(|name| name.as_str().to_owned()),
            attributes: DbJson::from(&new.attributes),
            password_hash: new.password_hash.expose().clone(),
            created_at: DbTime(new.created_at),
            expires_at: DbTime(new.expires_at),
            tries: 0,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = pending_registrations)]
pub(super) struct RegistrationRow {
    pub(super) id: DbId,
    email: String,
    username: Option<String>,
    attributes: DbJson,
    password_hash: String,
    pub(super) expires_at: DbTime,
    code_hash: Option<Vec<u8>>,
    pub(super) code_expires_at: Option<DbTime>,
    pub(super) tries: i32,
    pub(super) tries_since: Option<DbTime>,
}

impl RegistrationRow {
    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "pending_registrations",
            column,
            row: self.id.0.to_string(),
        }
    }

    pub(super) fn code(&self) -> StoreResult<Option<SecretHash>> {
        stored_hash(self.code_hash.as_deref()).map_err(|()| self.corrupt("code_hash"))
    }

    pub(super) fn address(&self) -> StoreResult<EmailAddress> {
        EmailAddress::parse(&self.email).map_err(|_| self.corrupt("email"))
    }

    pub(super) fn waiting(&self) -> WaitingRegistration {
        WaitingRegistration {
            id: self.id.0.into(),
            password_hash: self.password_hash.clone().into(),
        }
    }

    /// The account that it becomes.
    pub(super) fn account(self, id: UserId, now: Timestamp) -> StoreResult<NewUser> {
        let username = self.username.as_deref().map(Username::parse).transpose();
        let user = User {
            id,
            email: self.address()?,
            email_verified_at: Some(now),
            username: username.map_err(|_| self.corrupt("username"))?,
            attributes: self
                .attributes
                .object()
                .map(Attributes::stored)
                .ok_or_else(|| StoreError::Corrupt {
                    table: "pending_registrations",
                    column: "attributes",
                    row: self.id.0.to_string(),
                })?,
            roles: Roles::default(),
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: now,
            updated_at: now,
        };
        Ok(NewUser {
            user,
            password_hash: Some(self.password_hash.into()),
            provisional_until: None,
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = mail_outbox)]
pub(super) struct NewLetterRow {
    id: DbId,
    kind: &'static str,
    user_id: Option<DbId>,
    registration_id: Option<DbId>,
    recipient: Option<String>,
    recipient_canonical: Option<String>,
    language: Option<String>,
    details: String,
    credential_version: Option<i64>,
    created_at: DbTime,
    state: &'static str,
    attempts: i32,
    due_at: DbTime,
    fence: i64,
}

impl TryFrom<&NewLetter> for NewLetterRow {
    type Error = StoreError;

    fn try_from(letter: &NewLetter) -> StoreResult<Self> {
        let details = serde_json::to_string(&letter.details);
        let to = letter.to.as_ref();
        Ok(Self {
            id: DbId(letter.id.as_uuid()),
            kind: letter.kind.as_str(),
            user_id: letter.user_id.map(|id| DbId(id.as_uuid())),
            registration_id: letter.registration_id.map(|id| DbId(id.as_uuid())),
            recipient: to.map(|to| to.as_str().to_owned()),
            recipient_canonical: to.map(|to| to.canonical().to_owned()),
            language: letter.language.clone(),
            details: details.map_err(|e| StoreError::Driver(e.to_string()))?,
            credential_version: letter.credential_version,
            created_at: DbTime(letter.created_at),
            state: LetterState::Waiting.as_str(),
            attempts: 0,
            due_at: DbTime(letter.created_at),
            fence: 0,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = mail_outbox)]
pub(super) struct LetterRow {
    id: DbId,
    kind: String,
    user_id: Option<DbId>,
    registration_id: Option<DbId>,
    recipient: Option<String>,
    language: Option<String>,
    details: String,
    credential_version: Option<i64>,
    created_at: DbTime,
    state: String,
    attempts: i32,
    due_at: DbTime,
    fence: i64,
    last_error: Option<String>,
    settled_at: Option<DbTime>,
}

impl LetterRow {
    pub(super) fn parse(self) -> StoreResult<Letter> {
        let corrupt = |column| StoreError::Corrupt {
            table: "mail_outbox",
            column,
            row: self.id.0.to_string(),
        };
        let to = self.recipient.as_deref().map(EmailAddress::parse);
        Ok(Letter {
            new: NewLetter {
                id: self.id.0.into(),
                kind: LetterKind::parse(&self.kind).ok_or_else(|| corrupt("kind"))?,
                user_id: self.user_id.map(|id| id.0.into()),
                registration_id: self.registration_id.map(|id| id.0.into()),
                to: to.transpose().map_err(|_| corrupt("recipient"))?,
                language: self.language.clone(),
                details: serde_json::from_str(&self.details).map_err(|_| corrupt("details"))?,
                credential_version: self.credential_version,
                created_at: self.created_at.0,
            },
            state: LetterState::parse(&self.state).ok_or_else(|| corrupt("state"))?,
            attempts: u32::try_from(self.attempts).map_err(|_| corrupt("attempts"))?,
            due_at: self.due_at.0,
            fence: self.fence,
            settled_at: self.settled_at.map(|at| at.0),
            last_error: self.last_error,
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = roles)]
pub(super) struct RoleRow {
    name: String,
    permissions: DbNames,
    updated_at: DbTime,
}

impl RoleRow {
    pub(super) fn new(role: &RoleDefinition, updated_at: Timestamp) -> Self {
        Self {
            name: role.name.clone(),
            permissions: DbNames::from(&role.permissions),
            updated_at: DbTime(updated_at),
        }
    }

    pub(super) fn parse(self) -> StoreResult<StoredRole> {
        let corrupt = |column| StoreError::Corrupt {
            table: "roles",
            column,
            row: self.name.clone(),
        };
        if !Roles::is_name(&self.name) {
            return Err(corrupt("name"));
        }
        let permissions = self.permissions.permissions();
        Ok(StoredRole {
            role: RoleDefinition {
                permissions: permissions.ok_or_else(|| corrupt("permissions"))?,
                name: self.name,
            },
            updated_at: self.updated_at.0,
        })
    }
}
