//! Users: the things that log in.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp, email::EmailAddress, ids::UserId, secret::SecretString, username::Username,
};

/// The built-in role, which holds all of Doorward's own permissions.
pub const ADMIN: &str = "admin";

/// A user, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Immutable and never reused; the `sub` of access tokens.
    pub id: UserId,
    /// Unique in canonical form.
    pub email: EmailAddress,
    /// When the address was shown to be the user's; `None` while it was not.
    pub email_verified_at: Option<Timestamp>,
    /// Unique in canonical form, where there is one.
    pub username: Option<Username>,
    /// The application's own fields.
    pub attributes: Attributes,
    /// What the user may do, by name; one that is defined nowhere is the application's and grants nothing here.
    pub roles: Roles,
    /// Whether the user may log in.
    pub status: UserStatus,
    /// How many sessions the user may hold, where it differs from the policy.
    pub session_limit: SessionLimitOverride,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When the account last changed.
    pub updated_at: Timestamp,
}

impl User {
    /// Whether the user may hold sessions.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == UserStatus::Active
    }
}

/// Whether a user may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    /// May log in.
    Active,
    /// Keeps its data, holds no session and cannot log in.
    Deactivated {
        /// Since when.
        at: Timestamp,
    },
}

/// What a login needs of a user.
#[derive(Debug, Clone)]
pub struct UserCredentials {
    /// The user.
    pub user: User,
    /// `None` for a user that has not set a password yet.
    pub password_hash: Option<PasswordHash>,
    /// Changes with every password; what was decided on an older one is void.
    pub credential_version: i64,
}

/// A password hash: a PHC string of scrypt, or another system's until its user logs in. Prints `***`.
pub type PasswordHash = SecretString;

/// A user about to be stored.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The user; `updated_at` is now, and `created_at` earlier where the account comes from elsewhere.
    pub user: User,
    /// `None` where the password is set later by a one-time link.
    pub password_hash: Option<PasswordHash>,
    /// Until when the account may wait for its address to be verified before it is removed; it stays once
    /// it is, and `None` is an account that stays in any case.
    pub provisional_until: Option<Timestamp>,
}

/// Which fields of a user change; `None` leaves one as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPatch {
    /// A new user name, or none any more.
    pub username: Option<Option<Username>>,
    /// New attributes, replacing all of the old ones.
    pub attributes: Option<Attributes>,
    /// A new address; it counts as not verified unless `email_verified` says so.
    pub email: Option<EmailAddress>,
    /// Whether the address counts as verified.
    pub email_verified: Option<bool>,
    /// A new session limit of the user's own, or the policy's; lowering it closes the surplus in the
    /// same step.
    pub max_sessions: Option<Option<u32>>,
    /// What becomes of logins beyond the limit, or the policy's rule.
    pub on_session_limit: Option<Option<OnLimit>>,
}

impl UserPatch {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The names of the fields that change, as the API calls them.
    #[must_use]
    pub fn field_names(&self) -> Vec<&'static str> {
        let fields = [
            ("username", self.username.is_some()),
            ("attributes", self.attributes.is_some()),
            ("email", self.email.is_some()),
            ("email_verified", self.email_verified.is_some()),
            ("max_sessions", self.max_sessions.is_some()),
            ("on_session_limit", self.on_session_limit.is_some()),
        ];
        let changed = fields.into_iter().filter(|(_, changes)| *changes);
        changed.map(|(name, _)| name).collect()
    }

    /// What becomes of `email_verified_at`; `None` leaves it as it is. A new address counts as not
    /// verified unless it is said to be.
    #[must_use]
    pub fn verified_at(&self, before: &User, now: Timestamp) -> Option<Option<Timestamp>> {
        match (self.email_verified, &self.email) {
            (Some(true), None) => Some(before.email_verified_at.or(Some(now))),
            (Some(true), Some(_)) => Some(Some(now)),
            (Some(false), _) | (None, Some(_)) => Some(None),
            (None, None) => None,
        }
    }
}

/// A user's own session limit; `None` follows the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimitOverride {
    /// As `sessions.max_per_user`.
    pub max: Option<u32>,
    /// As `sessions.on_limit`.
    pub on_limit: Option<OnLimit>,
}

/// What happens to a login that would exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The oldest sessions end.
    EvictOldest,
    /// The login is refused.
    Reject,
}

impl OnLimit {
    /// As stored and configured.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EvictOldest => "evict_oldest",
            Self::Reject => "reject",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::EvictOldest, Self::Reject]
            .into_iter()
            .find(|v| v.as_str() == text)
    }
}

/// Most sessions a user can hold, whatever the policy says.
pub const MOST_SESSIONS: u32 = 1000;

/// How many sessions one user may hold and what happens beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimit {
    /// At least 1, at most [`MOST_SESSIONS`].
    pub max: u32,
    /// What happens to the login that would exceed it.
    pub on_limit: OnLimit,
}

impl SessionLimit {
    /// A limit as configured: 0 means as many as [`MOST_SESSIONS`].
    #[must_use]
    pub fn new(max: u32, on_limit: OnLimit) -> Self {
        let max = if max == 0 {
            MOST_SESSIONS
        } else {
            max.min(MOST_SESSIONS)
        };
        Self { max, on_limit }
    }

    /// The limit of a user with this override.
    #[must_use]
    pub fn with(self, own: SessionLimitOverride) -> Self {
        Self::new(
            own.max.unwrap_or(self.max),
            own.on_limit.unwrap_or(self.on_limit),
        )
    }
}

/// A sorted set of role names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles(BTreeSet<String>);

/// Most roles a user can hold.
pub const MOST_ROLES: usize = 32;

/// Why a list of role names is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be at most 32 names of lower-case letters, digits, `_` and `-`, beginning with a letter, at most 32 characters each"
)]
pub struct InvalidRoles;

impl Roles {
    /// A set of role names, each once.
    ///
    /// # Errors
    /// [`InvalidRoles`] when a name is not of the accepted form or there are too many.
    pub fn parse(names: impl IntoIterator<Item = String>) -> Result<Self, InvalidRoles> {
        let set: BTreeSet<String> = names.into_iter().collect();
        if set.len() <= MOST_ROLES && set.iter().all(|name| Self::is_name(name)) {
            Ok(Self(set))
        } else {
            Err(InvalidRoles)
        }
    }

    /// Whether a text can be the name of a role.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the administrator's role.
    #[must_use]
    pub fn admin() -> Self {
        Self(BTreeSet::from([ADMIN.to_owned()]))
    }

    /// Whether the role is held.
    #[must_use]
    pub fn contains(&self, role: &str) -> bool {
        self.0.contains(role)
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The names in order, as a list.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// As [`Self::to_vec`], of a set that nobody needs any more.
    #[must_use]
    pub fn into_vec(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

/// The application's own fields of a user: a JSON object all three databases keep unchanged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Map<String, Value>);

/// Most bytes of attributes, written as JSON.
pub const MOST_ATTRIBUTE_BYTES: usize = 4096;

/// Deepest nesting of attributes.
pub const MOST_ATTRIBUTE_DEPTH: usize = 16;

/// Largest integer that every JSON reader keeps: 2⁵³.
const LARGEST_INTEGER: u64 = 1 << 53;

/// Why attributes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttributes {
    /// Longer than [`MOST_ATTRIBUTE_BYTES`].
    #[error("must be at most 4096 bytes as JSON")]
    TooLong,
    /// Deeper than [`MOST_ATTRIBUTE_DEPTH`].
    #[error("must be nested at most 16 deep")]
    TooDeep,
    /// A key that not every database can store.
    #[error("key `{0}` must be of letters, digits and `_`, not beginning with a digit")]
    Key(String),
    /// A text with a NUL character.
    #[error("must not contain NUL characters")]
    Nul,
    /// A number that not every database keeps unchanged.
    #[error("number {0} must be between -2^53 and 2^53")]
    Number(String),
}

impl Attributes {
    /// Attributes from a JSON object.
    ///
    /// # Errors
    /// [`InvalidAttributes`] when a value could not be kept unchanged by every database.
    pub fn parse(object: Map<String, Value>) -> Result<Self, InvalidAttributes> {
        check_object(&object, 1)?;
        let attributes = Self(object);
        if attributes.to_json().len() > MOST_ATTRIBUTE_BYTES {
            return Err(InvalidAttributes::TooLong);
        }
        Ok(attributes)
    }

    /// Attributes as they were stored, unchecked: what was accepted once stays readable.
    #[must_use]
    pub fn stored(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// The JSON object.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The JSON object, to keep.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

/// Attributes may be personal: a log sees only that there are some.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({} fields)", self.0.len())
    }
}

fn check_object(object: &Map<String, Value>, depth: usize) -> Result<(), InvalidAttributes> {
    for (key, value) in object {
        let first_ok = key
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first_ok || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(InvalidAttributes::Key(key.chars().take(64).collect()));
        }
        check_value(value, depth)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize) -> Result<(), InvalidAttributes> {
    if depth > MOST_ATTRIBUTE_DEPTH {
        return Err(InvalidAttributes::TooDeep);
    }
    match value {
        Value::String(text) if text.contains('\0') => Err(InvalidAttributes::Nul),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let whole = number
                .as_i64()
                .map(i64::unsigned_abs)
                .or_else(|| number.as_u64());
            // Beyond 2^53 a database may give a float back as an integer.
            let small = || {
                number
                    .as_f64()
                    .is_some_and(|n| n.abs() <= 9_007_199_254_740_992.0)
            };
            let fits = whole.map_or_else(small, |n| n <= LARGEST_INTEGER);
            if fits {
                Ok(())
            } else {
                Err(InvalidAttributes::Number(number.to_string()))
            }
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(item, depth + 1)),
        Value::Object(object) => check_object(object, depth + 1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Attributes, InvalidAttributes> {
        let Value::Object(object) = value else {
            panic!("not an object")
        };
        Attributes::parse(object)
    }

    #[test]
    fn attributes_hold_what_every_database_keeps() {
        assert!(
            parse(json!({"plan": "pro", "seats": 5, "ratio": 0.5, "tags": ["a", {"b": null}]}))
                .is_ok()
        );
        assert_eq!(
            parse(json!({"$set": 1})),
            Err(InvalidAttributes::Key("$set".into()))
        );
        assert_eq!(
            parse(json!({"a": {"b.c": 1}})),
            Err(InvalidAttributes::Key("b.c".into()))
        );
        assert_eq!(parse(json!({"a": ["x\0y"]})), Err(InvalidAttributes::Nul));
        assert_eq!(
            parse(json!({"n": 9_007_199_254_740_993_u64})),
            Err(InvalidAttributes::Number("9007199254740993".into()))
        );
        assert_eq!(
            parse(json!({"a": "x".repeat(5000)})),
            Err(InvalidAttributes::TooLong)
        );
        let deep = (0..20).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(parse(json!({"a": deep})), Err(InvalidAttributes::TooDeep));
    }

    #[test]
    fn roles_are_a_set_of_plain_names() {
        let roles = Roles::parse(["writer".to_owned(), "admin".to_owned(), "writer".to_owned()])
            .expect("valid");
        assert_eq!(roles.to_vec(), ["admin", "writer"]);
        for name in ["", "Admin", "a b", "a,b", "1st", "a\r\nX: y"] {
            assert_eq!(
                Roles::parse([name.to_owned()]),
                Err(InvalidRoles),
                "{name:?}"
            );
        }
    }

    #[test]
    fn zero_means_as_many_as_a_thousand() {
        let policy = SessionLimit::new(0, OnLimit::EvictOldest);
        assert_eq!(policy.max, MOST_SESSIONS);
        let own = SessionLimitOverride {
            max: Some(3),
            on_limit: Some(OnLimit::Reject),
        };
        assert_eq!(
            policy.with(own),
            SessionLimit {
                max: 3,
                on_limit: OnLimit::Reject
            }
        );
    }
}
