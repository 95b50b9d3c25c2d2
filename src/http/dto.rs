//! What users and sessions look like on the wire; shared by the resources.

use std::{borrow::Cow, collections::BTreeMap};

use poem_openapi::{
    Enum, Object,
    registry::{MetaSchema, MetaSchemaRef},
    types::{Example, ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    ids::SessionId,
    model::{
        session::{AuthMethod, Session},
        user::{OnLimit, User},
    },
};

/// The application's own fields.
pub(super) type AttributesDto = BTreeMap<String, Value>;

pub(super) fn to_map(attributes: AttributesDto) -> Map<String, Value> {
    attributes.into_iter().collect()
}

/// Any UUID, for examples.
pub(super) const EXAMPLE_ID: Uuid = Uuid::from_u128(0x0196_f3a8_7c1d_7b3e_9a54_2f6d_1c8b_0e77);

/// A point in time as RFC 3339 writes it, in UTC and to the millisecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(Timestamp);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl Type for Time {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromJSON for Time {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let text = value
            .as_ref()
            .and_then(Value::as_str)
            .ok_or_else(ParseError::expected_input)?;
        Self::parse_from_parameter(text).map_err(ParseError::propagate)
    }
}

impl ParseFromParameter for Time {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        let at = chrono::DateTime::parse_from_rfc3339(text).map_err(ParseError::custom)?;
        Ok(Self(at.to_utc().into()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl ToJSON for Time {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.to_string()))
    }
}

pub(super) fn example_time() -> Time {
    Time(Timestamp::from_millis(1_795_000_000_000))
}

/// Whether a user may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename = "UserStatus", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(super) enum StatusDto {
    /// May log in.
    Active,
    /// Keeps its data and cannot log in.
    Deactivated,
}

/// What happens to a login beyond the session limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "OnSessionLimit", rename_all = "snake_case")]
pub(super) enum OnLimitDto {
    /// The oldest sessions end.
    EvictOldest,
    /// The login is refused.
    Reject,
}

impl From<OnLimitDto> for OnLimit {
    fn from(rule: OnLimitDto) -> Self {
        match rule {
            OnLimitDto::EvictOldest => Self::EvictOldest,
            OnLimitDto::Reject => Self::Reject,
        }
    }
}

impl From<OnLimit> for OnLimitDto {
    fn from(rule: OnLimit) -> Self {
        match rule {
            OnLimit::EvictOldest => Self::EvictOldest,
            OnLimit::Reject => Self::Reject,
        }
    }
}

/// A user.
#[derive(Debug, Clone, Object, Serialize)]
#[oai(rename = "User", example)]
pub(super) struct UserDto {
    /// Immutable and never reused; the `sub` of access tokens.
    id: Uuid,
    /// The e-mail address as its owner wrote it.
    email: String,
    /// Whether the address was shown to be the user's.
    email_verified: bool,
    /// The user name, if there is one.
    #[oai(nullable)]
    username: Option<String>,
    /// The application's own fields.
    attributes: AttributesDto,
    /// What the user may do.
    roles: Vec<String>,
    /// Whether the user may log in.
    status: StatusDto,
    /// When the account was made.
    created_at: Time,
    /// When the account last changed.
    updated_at: Time,
}

impl From<&User> for UserDto {
    fn from(user: &User) -> Self {
        user.clone().into()
    }
}

impl From<User> for UserDto {
    fn from(user: User) -> Self {
        Self {
            id: user.id.as_uuid(),
            email_verified: user.email_verified_at.is_some(),
            status: if user.is_active() {
                StatusDto::Active
            } else {
                StatusDto::Deactivated
            },
            email: user.email.into(),
            username: user.username.map(Into::into),
            attributes: user.attributes.into_map().into_iter().collect(),
            roles: user.roles.into_vec(),
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }
}

impl Example for UserDto {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            email: "ann@example.org".to_owned(),
            email_verified: false,
            username: Some("ann".to_owned()),
            attributes: example_attributes(),
            roles: vec![],
            status: StatusDto::Active,
            created_at: example_time(),
            updated_at: example_time(),
        }
    }
}

pub(super) fn example_attributes() -> AttributesDto {
    BTreeMap::from([("plan".to_owned(), json!("pro"))])
}

/// A user as administrators see one.
#[derive(Debug, Clone, Object)]
#[oai(rename = "AdminUser", example)]
pub(super) struct AdminUserDto {
    /// The user.
    #[oai(flatten)]
    user: UserDto,
    /// The user's own session limit; null follows the policy.
    #[oai(nullable)]
    max_sessions: Option<u32>,
    /// What happens beyond it; null follows the policy.
    #[oai(nullable)]
    on_session_limit: Option<OnLimitDto>,
    /// Since when the user is deactivated.
    #[oai(nullable)]
    deactivated_at: Option<Time>,
}

impl From<&User> for AdminUserDto {
    fn from(user: &User) -> Self {
        use crate::model::user::UserStatus;
        let deactivated_at = match user.status {
            UserStatus::Active => None,
            UserStatus::Deactivated { at } => Some(at.into()),
        };
        Self {
            user: user.into(),
            max_sessions: user.session_limit.max,
            on_session_limit: user.session_limit.on_limit.map(Into::into),
            deactivated_at,
        }
    }
}

impl Example for AdminUserDto {
    fn example() -> Self {
        Self {
            user: UserDto::example(),
            max_sessions: Some(3),
            on_session_limit: None,
            deactivated_at: None,
        }
    }
}

/// A session; there is no token material in it.
#[derive(Debug, Clone, Object)]
#[oai(rename = "Session", example)]
pub(super) struct SessionDto {
    /// Its id, the `sid` of access tokens.
    id: Uuid,
    /// The name given at login.
    #[oai(nullable)]
    device_name: Option<String>,
    /// The `User-Agent` at login.
    #[oai(nullable)]
    user_agent: Option<String>,
    /// The address at login.
    #[oai(nullable)]
    address: Option<String>,
    /// When it was opened.
    created_at: Time,
    /// When its user last proved who they are.
    authenticated_at: Time,
    /// When it was last used, give or take half a minute.
    last_seen_at: Time,
    /// When it ends, used or not.
    expires_at: Time,
    /// How its user proved who they are (RFC 8176 names).
    auth_methods: Vec<String>,
    /// Whether it is the one that asks.
    current: bool,
}

impl SessionDto {
    pub(super) fn new(session: &Session, current: Option<SessionId>) -> Self {
        Self {
            id: session.id.as_uuid(),
            device_name: session.device.name.clone(),
            user_agent: session.device.user_agent.clone(),
            address: session.device.address.map(|address| address.to_string()),
            created_at: session.created_at.into(),
            authenticated_at: session.authenticated_at.into(),
            last_seen_at: session.last_seen_at.into(),
            expires_at: session.expires_at.into(),
            auth_methods: session
                .auth_methods
                .iter()
                .copied()
                .map(AuthMethod::as_str)
                .map(str::to_owned)
                .collect(),
            current: current == Some(session.id),
        }
    }
}

impl Example for SessionDto {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            device_name: Some("Ann's laptop".to_owned()),
            user_agent: Some("curl/8.5.0".to_owned()),
            address: Some("203.0.113.9".to_owned()),
            created_at: example_time(),
            authenticated_at: example_time(),
            last_seen_at: example_time(),
            expires_at: example_time(),
            auth_methods: vec!["pwd".to_owned()],
            current: true,
        }
    }
}

/// Sessions, newest first.
#[derive(Debug, Clone, Object)]
#[oai(example)]
pub(super) struct SessionList {
    /// The sessions.
    items: Vec<SessionDto>,
}

impl SessionList {
    pub(super) fn new(sessions: &[Session], current: Option<SessionId>) -> Self {
        Self {
            items: sessions
                .iter()
                .map(|session| SessionDto::new(session, current))
                .collect(),
        }
    }
}

impl Example for SessionList {
    fn example() -> Self {
        Self {
            items: vec![SessionDto::example()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for `GET /v1/auth/me` is what its document says.
    #[test]
    fn a_user_is_written_the_same_either_way() {
        let user = UserDto::example();
        let written = serde_json::to_value(&user).expect("a user is JSON");
        assert_eq!(Some(written), user.to_json());
    }
}
