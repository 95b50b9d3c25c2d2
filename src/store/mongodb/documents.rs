//! What a user looks like in MongoDB, and how one is read back.
//!
//! Decides the fields of `users`, of the sessions embedded in them and of `login_names`. Reading goes
//! field by field over raw documents: a value that should be impossible is `Corrupt`, named by
//! collection, field and id, and spoils nobody else's document. Absent and `null` mean the same.

use mongodb::bson::{
    Binary, Bson, DateTime, Document, RawArray, RawBsonRef, RawDocument, doc, spec::BinarySubtype,
};
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{SessionId, UserId},
    model::{
        session::{
            AuthMethod, CloseReason, Device, NewSession, Session, SessionState, SessionView,
        },
        token::{NewOneTimeSecret, SecretHash},
        user::{
            Attributes, NewUser, OnLimit, Roles, SessionLimitOverride, User, UserCredentials,
            UserStatus,
        },
    },
    secret::SecretString,
    store::{LoginName, StoreError, StoreResult},
    username::Username,
};

/// One document per user, sessions embedded.
pub(super) const USERS: &str = "users";
/// Who holds a canonical name: `_id` is the name, so that the name is unique even in a sharded
/// cluster.
pub(super) const LOGIN_NAMES: &str = "login_names";
/// One-time secrets; `_id` is the hash.
pub(super) const ONE_TIME_SECRETS: &str = "one_time_secrets";
/// Documents that are written only to make transactions conflict.
pub(super) const GUARDS: &str = "guards";

/// As Corrupt errors name the embedded sessions.
const SESSIONS: &str = "users.sessions";

/// `credential_version` of a new user.
const FIRST_CREDENTIAL_VERSION: i64 = 0;

/// An id as BSON: a binary of subtype 4, which sorts as UUIDv7 does.
pub(super) fn id_bson(id: Uuid) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.as_bytes().to_vec(),
    })
}

/// A user's id as BSON.
pub(super) fn user_key(id: UserId) -> Bson {
    id_bson(id.as_uuid())
}

/// A session's id as BSON.
pub(super) fn session_key(id: SessionId) -> Bson {
    id_bson(id.as_uuid())
}

/// A point in time as BSON.
pub(super) fn time_bson(at: Timestamp) -> Bson {
    Bson::DateTime(DateTime::from_millis(at.as_millis()))
}

/// The hash of a one-time secret as BSON.
pub(super) fn hash_bson(hash: &SecretHash) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: hash.as_bytes().to_vec(),
    })
}

/// The key of an e-mail address in `login_names`.
pub(super) fn email_key(email: &EmailAddress) -> String {
    format!("email:{}", email.canonical())
}

/// The key of a user name in `login_names`.
pub(super) fn username_key(username: &Username) -> String {
    format!("username:{}", username.canonical())
}

/// The key of a name somebody logs in by.
pub(super) fn login_key(name: &LoginName) -> String {
    match name {
        LoginName::Email(email) => email_key(email),
        LoginName::Username(username) => username_key(username),
    }
}

/// A document of `login_names`.
pub(super) fn login_name_document(key: String, user: UserId) -> Document {
    doc! { "_id": key, "user_id": user_key(user) }
}

/// A new document of `users`.
pub(super) fn user_document(new: &NewUser) -> Document {
    let user = &new.user;
    let username = user.username.as_ref();
    let deactivated_at = match user.status {
        UserStatus::Active => Bson::Null,
        UserStatus::Deactivated { at } => time_bson(at),
    };
    let limit = user.session_limit;
    doc! {
        "_id": user_key(user.id),
        "email": user.email.as_str(),
        "email_canonical": user.email.canonical(),
        "email_verified_at": user.email_verified_at.map(time_bson),
        "username": username.map(Username::as_str),
        "username_canonical": username.map(Username::canonical),
        "attributes": attributes_bson(&user.attributes),
        "roles": user.roles.to_vec(),
        "deactivated_at": deactivated_at,
        "max_sessions": limit.max.map(i64::from),
        "on_session_limit": limit.on_limit.map(OnLimit::as_str),
        "password_hash": new.password_hash.as_ref().map(|hash| hash.expose().as_str()),
        "credential_version": FIRST_CREDENTIAL_VERSION,
        "created_at": time_bson(user.created_at),
        "updated_at": time_bson(user.updated_at),
        "sessions": [],
    }
}

/// A new document of `one_time_secrets`.
pub(super) fn secret_document(new: &NewOneTimeSecret, now: Timestamp) -> Document {
    doc! {
        "_id": hash_bson(&new.hash),
        "id": id_bson(new.id.as_uuid()),
        "user_id": user_key(new.user_id),
        "purpose": new.purpose.as_str(),
        "created_at": time_bson(now),
        "expires_at": time_bson(new.expires_at),
        "used_at": null,
    }
}

/// The session that is opened by `new` at `now`.
pub(super) fn opened_session(new: &NewSession, now: Timestamp) -> Session {
    Session {
        id: new.id,
        user_id: new.user_id,
        created_at: now,
        authenticated_at: now,
        last_seen_at: now,
        expires_at: new.expires_at,
        auth_methods: new.auth_methods.clone(),
        device: new.device.clone(),
        state: SessionState::Open,
    }
}

/// An open session as embedded in its user.
pub(super) fn session_document(session: &Session) -> Document {
    let methods: Vec<_> = session.auth_methods.iter().map(|m| m.as_str()).collect();
    let device = &session.device;
    doc! {
        "id": session_key(session.id),
        "created_at": time_bson(session.created_at),
        "authenticated_at": time_bson(session.authenticated_at),
        "last_seen_at": time_bson(session.last_seen_at),
        "expires_at": time_bson(session.expires_at),
        "auth_methods": methods,
        "device_name": device.name.as_deref(),
        "user_agent": device.user_agent.as_deref(),
        "address": device.address.map(|address| address.to_string()),
        "closed_at": null,
        "close_reason": null,
    }
}

/// Attributes as a native sub-document.
pub(super) fn attributes_bson(attributes: &Attributes) -> Bson {
    object_bson(attributes.as_map())
}

fn object_bson(object: &Map<String, Value>) -> Bson {
    let fields = object
        .iter()
        .map(|(key, value)| (key.clone(), json_bson(value)));
    Bson::Document(fields.collect())
}

fn json_bson(value: &Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::String(text) => Bson::String(text.clone()),
        // Whole numbers and fractions stay apart, or `1` would come back as `1.0`.
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Bson::Int64(whole),
            (None, Some(fraction)) => Bson::Double(fraction),
            (None, None) => Bson::Null,
        },
        Value::Array(items) => Bson::Array(items.iter().map(json_bson).collect()),
        Value::Object(object) => object_bson(object),
    }
}

fn json_object(document: &RawDocument) -> Option<Map<String, Value>> {
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
        email: row.required("email", |v| EmailAddress::parse(text(v)?).ok())?,
        email_verified_at: row.optional("email_verified_at", time)?,
        username: row.optional("username", |v| Username::parse(text(v)?).ok())?,
        attributes: Attributes::stored(
            row.required("attributes", |v| json_object(v.as_document()?))?,
        ),
        roles: row.required("roles", |v| {
            Roles::parse(list(|name| text(name).map(str::to_owned))(v)?).ok()
        })?,
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
    let row = Row::of(SESSIONS, document, id.as_uuid());
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
        device: Device {
            name: row.optional("device_name", |v| text(v).map(str::to_owned))?,
            user_agent: row.optional("user_agent", |v| text(v).map(str::to_owned))?,
            address: row.optional("address", |v| text(v)?.parse().ok())?,
        },
        state: read_state(&row)?,
    })
}

/// Reads an embedded session together with its user.
pub(super) fn read_view(
    user: &RawDocument,
    user_id: UserId,
    session: &RawDocument,
    session_id: SessionId,
) -> StoreResult<SessionView> {
    let row = Row::of(SESSIONS, session, session_id.as_uuid());
    Ok(SessionView {
        session_id,
        user: read_user(user, user_id)?,
        state: read_state(&row)?,
        authenticated_at: row.required("authenticated_at", time)?,
        last_seen_at: row.required("last_seen_at", time)?,
        expires_at: row.required("expires_at", time)?,
    })
}
