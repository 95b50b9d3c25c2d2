//! How documents are read back.
//!
//! Reading goes field by field over raw documents: a value that should be impossible is `Corrupt`,
//! named by collection, field and id, and spoils nobody else's document. Absent and `null` mean the
//! same.

use mongodb::bson::{RawArray, RawBsonRef, RawDocument, spec::BinarySubtype};
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::documents::USERS;
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{SessionId, UserId},
    model::{
        session::{
            AuthMethod, CloseReason, Device, RefreshState, Session, SessionState, SessionView,
        },
        token::SecretHash,
        user::{
            Attributes, OnLimit, Roles, SessionLimitOverride, User, UserCredentials, UserStatus,
        },
    },
    secret::SecretString,
    store::{StoreError, StoreResult},
    username::Username,
};

/// As Corrupt errors name the embedded sessions.
const SESSIONS: &str = "users.sessions";

/// A document being read, and how errors about it name it.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    document: &'a RawDocument,
    table: &'static str,
    id: Uuid,
}

impl<'a> Row<'a> {
    /// A document of `users`, or a part of one.
    pub(super) fn user(document: &'a RawDocument, id: UserId) -> Self {
        Self {
            document,
            table: USERS,
            id: id.as_uuid(),
        }
    }

    /// An embedded session.
    pub(super) fn session(document: &'a RawDocument, id: SessionId) -> Self {
        Self::of(SESSIONS, document, id.as_uuid())
    }

    /// A document of any collection whose errors are to name `id`.
    pub(super) fn of(table: &'static str, document: &'a RawDocument, id: Uuid) -> Self {
        Self {
            document,
            table,
            id,
        }
    }

    /// The error for a field that holds what it cannot.
    pub(super) fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
            row: self.id.to_string(),
        }
    }

    /// A field that may be absent; `read` answers `None` for a value that cannot be.
    pub(super) fn optional<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
    ) -> StoreResult<Option<T>> {
        match self.document.get(column) {
            Ok(None | Some(RawBsonRef::Null)) => Ok(None),
            Ok(Some(value)) => read(value).map(Some).ok_or_else(|| self.corrupt(column)),
            Err(_) => Err(self.corrupt(column)),
        }
    }

    /// A field that is always there.
    pub(super) fn required<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
    ) -> StoreResult<T> {
        self.optional(column, read)?
            .ok_or_else(|| self.corrupt(column))
    }
}

/// Reads a text.
pub(super) fn text(value: RawBsonRef<'_>) -> Option<&str> {
    value.as_str()
}

/// Reads a text to keep.
pub(super) fn owned_text(value: RawBsonRef<'_>) -> Option<String> {
    text(value).map(str::to_owned)
}

/// Reads an e-mail address.
pub(super) fn email(value: RawBsonRef<'_>) -> Option<EmailAddress> {
    EmailAddress::parse(text(value)?).ok()
}

/// Reads a point in time.
pub(super) fn time(value: RawBsonRef<'_>) -> Option<Timestamp> {
    let millis = value.as_datetime()?.timestamp_millis();
    Some(Timestamp::from_millis(millis))
}

/// Reads a whole number; a shell may have written it as a double.
pub(super) fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(n) => Some(i64::from(n)),
        RawBsonRef::Int64(n) => Some(n),
        RawBsonRef::Double(n) => Number::from_f64(n)
            .filter(|_| n.fract() == 0.0)
            .and_then(|_| format!("{n}").parse().ok()),
        _ => None,
    }
}

/// Reads a number of things.
pub(super) fn count(value: RawBsonRef<'_>) -> Option<u32> {
    whole(value)?.try_into().ok()
}

/// Reads an id.
pub(super) fn id(value: RawBsonRef<'_>) -> Option<Uuid> {
    let binary = value.as_binary()?;
    (binary.subtype == BinarySubtype::Uuid)
        .then(|| Uuid::from_slice(binary.bytes).ok())
        .flatten()
}

/// Reads the hash of a random secret.
pub(super) fn hash(value: RawBsonRef<'_>) -> Option<SecretHash> {
    let binary = value.as_binary()?;
    (binary.subtype == BinarySubtype::Generic)
        .then(|| SecretHash::stored(binary.bytes))
        .flatten()
}

/// Reads bytes.
pub(super) fn bytes(value: RawBsonRef<'_>) -> Option<Vec<u8>> {
    Some(value.as_binary()?.bytes.to_vec())
}

/// A field as if it were absent where it holds what it cannot.
pub(super) fn lenient<'a, T>(
    document: &'a RawDocument,
    column: &str,
    read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
) -> Option<T> {
    read(document.get(column).ok()??)
}

/// Reads a user's roles.
pub(super) fn roles(value: RawBsonRef<'_>) -> Option<Roles> {
    Roles::parse(list(owned_text)(value)?).ok()
}

/// Reads each element of a list.
pub(super) fn elements<'a, T>(
    list: &'a RawArray,
    read: impl Fn(RawBsonRef<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    list.into_iter()
        .map(|item| item.ok().and_then(&read))
        .collect()
}

/// Reads a list.
pub(super) fn list<'a, T>(
    read: impl Fn(RawBsonRef<'a>) -> Option<T>,
) -> impl FnOnce(RawBsonRef<'a>) -> Option<Vec<T>> {
    move |value| elements(value.as_array()?, read)
}

/// Reads a user.
pub(super) fn read_user(document: &RawDocument, id: UserId) -> StoreResult<User> {
    let row = Row::user(document, id);
    let status = match row.optional("deactivated_at", time)? {
        None => UserStatus::Active,
        Some(at) => UserStatus::Deactivated { at },
    };
    Ok(User {
        id,
        email: row.required("email", email)?,
        email_verified_at: row.optional("email_verified_at", time)?,
        username: row.optional("username", |v| Username::parse(text(v)?).ok())?,
        attributes: Attributes::stored(
            row.required("attributes", |v| json_object(v.as_document()?))?,
        ),
        roles: row.required("roles", roles)?,
        status,
        session_limit: SessionLimitOverride {
            max: row.optional("max_sessions", count)?,
            on_limit: row.optional("on_session_limit", |v| OnLimit::parse(text(v)?))?,
        },
        created_at: row.required("created_at", time)?,
        updated_at: row.required("updated_at", time)?,
    })
}

/// Reads the id of a document of `users`.
pub(super) fn read_user_id(document: &RawDocument) -> StoreResult<UserId> {
    let row = Row::of(USERS, document, Uuid::nil());
    row.required("_id", id).map(UserId::from)
}

/// Reads what a login needs.
pub(super) fn read_credentials(document: &RawDocument, id: UserId) -> StoreResult<UserCredentials> {
    let row = Row::user(document, id);
    Ok(UserCredentials {
        user: read_user(document, id)?,
        password_hash: row.optional("password_hash", |v| text(v).map(SecretString::from))?,
        credential_version: row.required("credential_version", whole)?,
    })
}

fn with_id(item: RawBsonRef<'_>) -> Option<(SessionId, &RawDocument)> {
    let session = item.as_document()?;
    let id = id(session.get("id").ok()??)?;
    Some((id.into(), session))
}

/// Reads the embedded sessions that a projection left in a document, as raw documents with ids.
pub(super) fn read_sessions(
    document: &RawDocument,
    user: UserId,
) -> StoreResult<Vec<(SessionId, &RawDocument)>> {
    Row::user(document, user).required("sessions", |value| {
        let list = value.as_array()?;
        list.into_iter()
            .map(|item| with_id(item.ok()?))
            .collect::<Option<Vec<_>>>()
    })
}

/// A session that an update ends, and why.
pub(super) type Ended = (SessionId, CloseReason);

/// Reads a session that an update ends.
pub(super) fn ended(item: RawBsonRef<'_>) -> Option<Ended> {
    let one = item.as_document()?;
    let session = id(one.get("id").ok()??)?;
    let reason = CloseReason::parse(text(one.get("reason").ok()??)?)?;
    Some((session.into(), reason))
}

/// Reads which sessions an update ends, if a projection of the document before it has `ended`.
pub(super) fn read_ended(document: &RawDocument, user: UserId) -> StoreResult<Vec<Ended>> {
    let ended = Row::user(document, user).optional("ended", list(ended))?;
    Ok(ended.unwrap_or_default())
}

fn read_state(row: &Row<'_>) -> StoreResult<SessionState> {
    let closed_at = row.optional("closed_at", time)?;
    let reason = row.optional("close_reason", |v| CloseReason::parse(text(v)?))?;
    match (closed_at, reason) {
        (None, None) => Ok(SessionState::Open),
        (Some(at), Some(reason)) => Ok(SessionState::Closed { at, reason }),
        (Some(_), None) => Err(row.corrupt("close_reason")),
        (None, Some(_)) => Err(row.corrupt("closed_at")),
    }
}

/// Reads an embedded session.
pub(super) fn read_session(
    document: &RawDocument,
    user_id: UserId,
    id: SessionId,
) -> StoreResult<Session> {
    let row = Row::session(document, id);
    Ok(Session {
        id,
        user_id,
        created_at: row.required("created_at", time)?,
        authenticated_at: row.required("authenticated_at", time)?,
        last_seen_at: row.required("last_seen_at", time)?,
        expires_at: row.required("expires_at", time)?,
        auth_methods: row.required(
            "auth_methods",
            list(|method| AuthMethod::parse(text(method)?)),
        )?,
        device: read_device(document, id)?,
        state: read_state(&row)?,
    })
}

/// Reads what the client of an embedded session said about itself.
pub(super) fn read_device(document: &RawDocument, id: SessionId) -> StoreResult<Device> {
    let row = Row::session(document, id);
    Ok(Device {
        name: row.optional("device_name", owned_text)?,
        user_agent: row.optional("user_agent", owned_text)?,
        address: row.optional("address", |v| text(v)?.parse().ok())?,
    })
}

/// Reads an embedded session together with its user.
pub(super) fn read_view(
    user: &RawDocument,
    user_id: UserId,
    session: &RawDocument,
    session_id: SessionId,
) -> StoreResult<SessionView> {
    let row = Row::session(session, session_id);
    Ok(SessionView {
        session_id,
        user: read_user(user, user_id)?,
        state: read_state(&row)?,
        authenticated_at: row.required("authenticated_at", time)?,
        last_seen_at: row.required("last_seen_at", time)?,
        expires_at: row.required("expires_at", time)?,
        generation_used: row.optional("generation_used", whole)?.unwrap_or(0),
    })
}

/// Reads what refreshing a session needs. A session from before there were refresh tokens has none of
/// these fields.
pub(super) fn read_refresh_state(
    user: &RawDocument,
    user_id: UserId,
    session: &RawDocument,
    session_id: SessionId,
) -> StoreResult<RefreshState> {
    let row = Row::session(session, session_id);
    Ok(RefreshState {
        view: read_view(user, user_id, session, session_id)?,
        generation: row.optional("generation", whole)?.unwrap_or(0),
        current: row.optional("refresh_hash", hash)?,
        previous: row.optional("refresh_previous", hash)?,
        rotated_at: row.optional("rotated_at", time)?,
    })
}

/// Reads a JSON object.
pub(super) fn json_object(document: &RawDocument) -> Option<Map<String, Value>> {
    document
        .iter()
        .map(|field| {
            let (key, value) = field.ok()?;
            Some((key.as_str().to_owned(), json_value(value)?))
        })
        .collect()
}

fn json_value(value: RawBsonRef<'_>) -> Option<Value> {
    Some(match value {
        RawBsonRef::Null => Value::Null,
        RawBsonRef::Boolean(flag) => Value::Bool(flag),
        RawBsonRef::String(text) => Value::String(text.to_owned()),
        RawBsonRef::Int32(whole) => Value::from(whole),
        RawBsonRef::Int64(whole) => Value::from(whole),
        RawBsonRef::Double(fraction) => Value::Number(Number::from_f64(fraction)?),
        RawBsonRef::Array(items) => Value::Array(elements(items, json_value)?),
        RawBsonRef::Document(document) => Value::Object(json_object(document)?),
        _ => return None,
    })
}
