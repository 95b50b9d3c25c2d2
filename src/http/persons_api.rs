//! `/v1/auth/me/events` and what is given out of a person: their own events, as they may see them.
//!
//! Translates; what a user sees of the trail is for `audit`, whose data somebody may give out for `admin`.

use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
    types::Example,
};
use uuid::Uuid;

use super::{
    Tag,
    dto::{AdminUserDto, AttributesDto, EXAMPLE_ID, SessionDto, Time, example_time},
    guard::Secured,
    permission::{Declared, Fresh, HasPermission, UsersErase},
    problem::{ADMIN, Answer, Fails, GUARDED, INVALID, NOT_FOUND},
    story_dto::DetailsDto,
};
use crate::{
    admin::PersonData,
    audit::OwnEvent,
    auth::Auth,
    ids::{AuditId, SessionId},
    sessions::CurrentUser,
};

pub(super) struct EventsApi(pub(super) Auth);

pub(super) struct PersonsApi(pub(super) Auth);

/// Something that happened to the caller, or that they did.
#[derive(Object)]
#[oai(rename = "SecurityEvent", example)]
struct EventDto {
    /// Its id.
    id: Uuid,
    /// When it happened.
    at: Time,
    /// What happened, e.g. `login` or `password_changed`.
    event: String,
    /// How it ended: `done` or `refused`.
    outcome: String,
    /// Why, in a word.
    #[oai(nullable)]
    reason: Option<String>,
    /// Who did it: `you`, `administrator`, `operator`, `client`, `system`, or `nobody` for somebody who had not shown
    /// who they are.
    actor: String,
    /// Whether it was done to you.
    about_you: bool,
    /// Your session that it was done to.
    #[oai(nullable)]
    session_id: Option<Uuid>,
    /// From where, unless somebody else was there.
    #[oai(nullable)]
    details: Option<DetailsDto>,
    /// What else is to be said of it.
    #[oai(nullable)]
    facts: Option<AttributesDto>,
}

impl From<&OwnEvent> for EventDto {
    fn from(event: &OwnEvent) -> Self {
        let facts = event.facts.clone();
        Self {
            id: event.id.as_uuid(),
            at: event.at.into(),
            event: event.event.clone(),
            outcome: event.outcome.clone(),
            reason: event.reason.clone(),
            actor: event.actor.clone(),
            about_you: event.about_you,
            session_id: event.session.map(SessionId::as_uuid),
            details: event.details.as_ref().map(Into::into),
            facts: facts.map(|facts| facts.into_iter().collect()),
        }
    }
}

impl Example for EventDto {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            at: example_time(),
            event: "login".to_owned(),
            outcome: "refused".to_owned(),
            reason: Some("wrong_password".to_owned()),
            actor: "nobody".to_owned(),
            about_you: true,
            session_id: None,
            details: Some(DetailsDto::example()),
            facts: None,
        }
    }
}

/// A page of events, newest first.
#[derive(Object)]
#[oai(rename = "SecurityEventPage", example)]
struct EventPage {
    /// The events; a page may hold fewer than `limit` although another follows.
    items: Vec<EventDto>,
    /// Give it as `cursor` to get the next page; null on the last one.
    #[oai(nullable)]
    next_cursor: Option<Uuid>,
}

impl Example for EventPage {
    fn example() -> Self {
        Self {
            items: vec![EventDto::example()],
            next_cursor: None,
        }
    }
}

/// What is kept of a person.
#[derive(Object)]
#[oai(rename = "PersonData", example)]
struct PersonDto {
    /// The account.
    user: AdminUserDto,
    /// Sessions that are not closed, newest first.
    sessions: Vec<SessionDto>,
    /// What happened to the person and what they did, newest first.
    events: Vec<EventDto>,
}

impl From<&PersonData> for PersonDto {
    fn from(data: &PersonData) -> Self {
        let sessions = data.sessions.iter();
        Self {
            user: (&data.user).into(),
            sessions: sessions.map(|row| SessionDto::new(row, None)).collect(),
            events: data.events.iter().map(Into::into).collect(),
        }
    }
}

impl Example for PersonDto {
    fn example() -> Self {
        Self {
            user: AdminUserDto::example(),
            sessions: vec![SessionDto::example()],
            events: vec![EventDto::example()],
        }
    }
}

#[OpenApi(prefix_path = "/v1/auth/me", tag = "Tag::Me")]
impl EventsApi {
    /// My security events
    ///
    /// Logins, refused ones too, and whatever else was done to my account or by me, newest first.
    #[oai(path = "/events", method = "get", operation_id = "list_my_events")]
    async fn events(
        &self,
        caller: Secured<CurrentUser>,
        #[oai(default = "super::admin_api::default_page")] limit: Query<u32>,
        cursor: Query<Option<Uuid>>,
    ) -> Result<Answer<200, EventPage>, Fails<{ GUARDED | INVALID }>> {
        let before = cursor.0.map(Into::into);
        let trail = self.0.audit();
        let (events, next) = trail.events_of(caller.user.id, before, limit.0).await?;
        Ok(Answer(EventPage {
            items: events.iter().map(Into::into).collect(),
            next_cursor: next.map(AuditId::as_uuid),
        }))
    }
}

#[OpenApi(prefix_path = "/v1/admin/users", tag = "Tag::Administration")]
impl PersonsApi {
    /// Export a user
    ///
    /// All that is kept of a person, to be handed to that person: nothing in it tells of others.
    #[oai(path = "/:id/export", method = "get", operation_id = "export_user")]
    async fn export(
        &self,
        by: Declared<Fresh<HasPermission<UsersErase>>>,
        id: Path<Uuid>,
    ) -> Result<Answer<200, PersonDto>, Fails<{ ADMIN | NOT_FOUND }>> {
        let data = self.0.admin().export_user(by.actor(), id.0.into());
        Ok(Answer((&data.await?).into()))
    }
}
