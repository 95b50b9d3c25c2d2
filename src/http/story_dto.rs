//! What a session's story looks like on the wire, and where a request came from.

use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use super::dto::{EXAMPLE_ID, Time, example_time};
use crate::{
    audit::{Again, Ending, Opening, Story},
    ids::UserId,
    model::audit::Details,
};

/// Where a request came from.
#[derive(Debug, Clone, Object)]
#[oai(rename = "AuditDetails", example)]
pub(super) struct DetailsDto {
    /// The client's address.
    #[oai(nullable)]
    address: Option<String>,
    /// What the client says that it is.
    #[oai(nullable)]
    user_agent: Option<String>,
}

impl From<&Details> for DetailsDto {
    fn from(details: &Details) -> Self {
        Self {
            address: details.address.map(|address| address.to_string()),
            user_agent: details.user_agent.clone(),
        }
    }
}

impl Example for DetailsDto {
    fn example() -> Self {
        Self {
            address: Some("203.0.113.9".to_owned()),
            user_agent: Some("curl/8.5.0".to_owned()),
        }
    }
}

/// A login.
#[derive(Object)]
#[oai(rename = "SessionOpening", example)]
struct OpeningDto {
    /// The session that it opened.
    session_id: Uuid,
    /// When.
    at: Time,
    /// How (RFC 8176 names).
    auth_methods: Vec<String>,
    /// From where, if that is known.
    #[oai(nullable)]
    details: Option<DetailsDto>,
}

impl From<&Opening> for OpeningDto {
    fn from(opening: &Opening) -> Self {
        Self {
            session_id: opening.session.as_uuid(),
            at: opening.at.into(),
            auth_methods: opening.auth_methods.clone(),
            details: opening.details.as_ref().map(Into::into),
        }
    }
}

impl Example for OpeningDto {
    fn example() -> Self {
        Self {
            session_id: EXAMPLE_ID,
            at: example_time(),
            auth_methods: vec!["pwd".to_owned()],
            details: Some(DetailsDto::example()),
        }
    }
}

/// The end of a session.
#[derive(Object)]
#[oai(rename = "SessionEnding", example)]
struct EndingDto {
    /// When.
    at: Time,
    /// Why: as in the problem that its tokens are answered with, or `account_erased`, `account_removed`.
    reason: String,
    /// What kind of agent ended it.
    actor: String,
    /// The user who did.
    #[oai(nullable)]
    actor_id: Option<Uuid>,
    /// From where, if that can be read.
    #[oai(nullable)]
    details: Option<DetailsDto>,
    /// The login that took its place.
    #[oai(nullable)]
    replaced_by: Option<OpeningDto>,
}

impl From<&Ending> for EndingDto {
    fn from(ending: &Ending) -> Self {
        Self {
            at: ending.at.into(),
            reason: ending.reason.clone(),
            actor: ending.actor.clone(),
            actor_id: ending.actor_id.map(UserId::as_uuid),
            details: ending.details.as_ref().map(Into::into),
            replaced_by: ending.replaced_by.as_ref().map(Into::into),
        }
    }
}

impl Example for EndingDto {
    fn example() -> Self {
        Self {
            at: example_time(),
            reason: "replaced".to_owned(),
            actor: "user".to_owned(),
            actor_id: Some(EXAMPLE_ID),
            details: Some(DetailsDto::example()),
            replaced_by: Some(OpeningDto::example()),
        }
    }
}

/// How often something happened to a session.
#[derive(Object)]
#[oai(rename = "SessionRepetition", example)]
struct AgainDto {
    /// How often.
    times: u64,
    /// When last.
    #[oai(nullable)]
    last: Option<Time>,
}

impl From<Again> for AgainDto {
    fn from(again: Again) -> Self {
        Self {
            times: again.times,
            last: again.last.map(Into::into),
        }
    }
}

impl Example for AgainDto {
    fn example() -> Self {
        Self {
            times: 0,
            last: None,
        }
    }
}

/// What is known of a session.
#[derive(Object)]
#[oai(rename = "SessionStory", example)]
pub(super) struct StoryDto {
    /// The session.
    session_id: Uuid,
    /// Whose it is.
    #[oai(nullable)]
    user_id: Option<Uuid>,
    /// `open`, `ended`, or `unknown` where nothing is known of it.
    state: String,
    /// All of it in a paragraph for people.
    text: String,
    /// Its login.
    #[oai(nullable)]
    opened: Option<OpeningDto>,
    /// Its user proved again who they are.
    reauthenticated: AgainDto,
    /// A refresh token that had been used was answered once more.
    refresh_repeated: AgainDto,
    /// Its end, if it has ended and that was recorded.
    #[oai(nullable)]
    ended: Option<EndingDto>,
}

impl From<&Story> for StoryDto {
    fn from(story: &Story) -> Self {
        Self {
            session_id: story.session.as_uuid(),
            user_id: story.user.map(UserId::as_uuid),
            state: story.fate.as_str().to_owned(),
            text: story.to_string(),
            opened: story.opened.as_ref().map(Into::into),
            reauthenticated: story.reauthenticated.into(),
            refresh_repeated: story.repeated.into(),
            ended: story.ended.as_ref().map(Into::into),
        }
    }
}

impl Example for StoryDto {
    fn example() -> Self {
        Self {
            session_id: EXAMPLE_ID,
            user_id: Some(EXAMPLE_ID),
            state: "ended".to_owned(),
            text: "Session … was opened at … by password. It ended at …: a newer login took its place."
                .to_owned(),
            opened: Some(OpeningDto::example()),
            reauthenticated: AgainDto::example(),
            refresh_repeated: AgainDto::example(),
            ended: Some(EndingDto::example()),
        }
    }
}
