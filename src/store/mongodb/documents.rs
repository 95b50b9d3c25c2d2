//! What a user looks like in MongoDB.
//!
//! Decides the fields of `users`, of the sessions embedded in them, of `login_names` and of
//! `one_time_secrets`; `rows` reads them back. What mail adds stands in `secrets`, `registrations` and
//! `outbox`.

use mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{SessionId, UserId},
    model::{
        session::{NewSession, Session, SessionState},
        token::{NewOneTimeSecret, SecretHash},
        user::{Attributes, NewUser, OnLimit, UserStatus},
    },
    store::LoginName,
    username::Username,
};

/// One document per user, sessions embedded.
pub(super) const USERS: &str = "users";
/// Who holds a canonical name: `_id` is the name, so that the name is unique even in a sharded
/// cluster. With `kept_until` nobody has it, but only that user can take it before then.
pub(super) const LOGIN_NAMES: &str = "login_names";
/// One-time secrets; `_id` is the hash.
pub(super) const ONE_TIME_SECRETS: &str = "one_time_secrets";
/// Roles that administrators make; `_id` is the name.
pub(super) const ROLES: &str = "roles";
/// Documents that are written only to make transactions conflict.
pub(super) const GUARDS: &str = "guards";

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

/// The hash of a random secret as BSON.
pub(super) fn hash_bson(hash: &SecretHash) -> Bson {
    bytes_bson(hash.as_bytes())
}

/// Bytes as BSON.
pub(super) fn bytes_bson(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
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

/// A new document of `users`.
pub(super) fn user_document(new: &NewUser) -> Document {
    let user = &new.user;
    let username = user.username.as_ref();
    let deactivated_at = match user.status {
        UserStatus::Active => Bson::Null,
        UserStatus::Deactivated { at } => time_bson(at),
    };
    let limit = user.session_limit;
    let mut document = doc! {
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
    };
    if let Some(until) = new.provisional_until {
        document.insert("provisional_until", time_bson(until));
    }
    document
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

/// An open session as embedded in its user, with the hash of its first refresh token.
pub(super) fn session_document(session: &Session, refresh: Option<SecretHash>) -> Document {
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
        "generation": 0_i64,
        "generation_used": 0_i64,
        "refresh_hash": refresh.as_ref().map(hash_bson),
        "refresh_previous": null,
        "rotated_at": null,
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
