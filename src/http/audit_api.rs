//! `/v1/admin/audit`: the audit trail, for those who may read it; and why a session ended.
//!
//! Translates. What a record shows of a person, and how a story is told, is for `audit`; users' own events stand
//! at `/v1/auth/me/events`.

use std::borrow::Cow;

use futures_util::stream::{BoxStream, StreamExt};
use poem::{
    Body, IntoResponse, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::{Example, ParseError, ParseFromParameter, ParseResult, ToJSON, Type},
};
use uuid::Uuid;

use super::{
    Tag,
    dto::{AttributesDto, EXAMPLE_ID, Time, example_time},
    permission::{AuditRead, Declared, HasPermission},
    problem::{ADMIN, Answer, Fails, INVALID, NOT_FOUND},
    story_dto::{DetailsDto, StoryDto},
};
use crate::{
    audit::ShownRecord,
    auth::Auth,
    error::AuthResult,
    ids::{AuditId, SessionId, UserId},
    model::audit::{AuditFilter, EventKind, Outcome},
};

pub(super) struct AuditApi(pub(super) Auth);

/// The name of an event, as a parameter.
#[derive(Debug, Clone, Copy)]
struct EventName(EventKind);

impl Type for EventName {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "AuditEvent".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let names = EventKind::ALL.iter().map(|kind| kind.as_str().into());
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            enum_items: names.collect(),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromParameter for EventName {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        let kind = EventKind::parse(text).map(Self);
        kind.ok_or_else(|| ParseError::custom("no event has this name"))
    }
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "AuditOutcome", rename_all = "snake_case")]
enum OutcomeDto {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

impl From<OutcomeDto> for Outcome {
    fn from(outcome: OutcomeDto) -> Self {
        match outcome {
            OutcomeDto::Done => Self::Done,
            OutcomeDto::Refused => Self::Refused,
        }
    }
}

/// A record of the audit trail; texts are as they stand in the database.
#[derive(Object)]
#[oai(rename = "AuditRecord", example)]
struct RecordDto {
    /// Its id; sorts by time.
    id: Uuid,
    /// When it happened.
    at: Time,
    /// What happened, e.g. `login` or `session_ended`.
    event: String,
    /// How it ended: `done` or `refused`.
    outcome: String,
    /// Why, in a word.
    #[oai(nullable)]
    reason: Option<String>,
    /// What kind of agent did it: `user`, `operator`, `client`, `system` or `nobody`.
    actor: String,
    /// The user who did it.
    #[oai(nullable)]
    actor_id: Option<Uuid>,
    /// The session that user did it in.
    #[oai(nullable)]
    actor_session: Option<Uuid>,
    /// The user it was done to.
    #[oai(nullable)]
    subject_id: Option<Uuid>,
    /// The session it was done to.
    #[oai(nullable)]
    session_id: Option<Uuid>,
    /// The request that caused it.
    #[oai(nullable)]
    request_id: Option<String>,
    /// From where, if that can be read.
    #[oai(nullable)]
    details: Option<DetailsDto>,
    /// `shown`; `none` where there never were any; `erased` with the person they told of; `unreadable` if they were
    /// changed or made with another audit key.
    details_state: String,
    /// What else is to be said of it.
    #[oai(nullable)]
    facts: Option<AttributesDto>,
    /// Its place in the chain; null until it is sealed.
    #[oai(nullable)]
    seq: Option<i64>,
}

impl From<&ShownRecord> for RecordDto {
    fn from(shown: &ShownRecord) -> Self {
        let record = &shown.record;
        Self {
            id: record.id.as_uuid(),
            at: record.at.into(),
            event: record.event.clone(),
            outcome: record.outcome.clone(),
            reason: record.reason.clone(),
            actor: record.actor.clone(),
            actor_id: record.actor_id.map(UserId::as_uuid),
            actor_session: record.actor_session.map(SessionId::as_uuid),
            subject_id: record.subject.map(UserId::as_uuid),
            session_id: record.session.map(SessionId::as_uuid),
            request_id: record.request_id.clone(),
            details: shown.details.open().map(Into::into),
            details_state: shown.details.as_str().to_owned(),
            facts: shown.facts().map(|facts| facts.into_iter().collect()),
            seq: record.sealed.as_ref().map(|sealed| sealed.seq),
        }
    }
}

impl Example for RecordDto {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            at: example_time(),
            event: "login".to_owned(),
            outcome: "done".to_owned(),
            reason: None,
            actor: "user".to_owned(),
            actor_id: Some(EXAMPLE_ID),
            actor_session: Some(EXAMPLE_ID),
            subject_id: Some(EXAMPLE_ID),
            session_id: Some(EXAMPLE_ID),
            request_id: Some(EXAMPLE_ID.to_string()),
            details: Some(DetailsDto::example()),
            details_state: "shown".to_owned(),
            facts: Some([("auth_methods".to_owned(), serde_json::json!(["pwd"]))].into()),
            seq: Some(42),
        }
    }
}

/// A page of records, newest first.
#[derive(Object)]
#[oai(rename = "AuditPage", example)]
struct RecordPage {
    /// The records.
    items: Vec<RecordDto>,
    /// Give it as `cursor` to get the next page; null on the last one.
    #[oai(nullable)]
    next_cursor: Option<Uuid>,
}

impl Example for RecordPage {
    fn example() -> Self {
        Self {
            items: vec![RecordDto::example()],
            next_cursor: None,
        }
    }
}

/// Records as JSON Lines: one object a line, as they come out of the database.
struct Lines(BoxStream<'static, AuthResult<Vec<ShownRecord>>>);

const JSON_LINES: &str = "application/x-ndjson";

impl IntoResponse for Lines {
    /// Where the database fails on the way, the connection breaks off, so that what came is not taken for all.
    fn into_response(self) -> Response {
        let chunks = self.0.map(|batch| match batch {
            Ok(records) => Ok(records.iter().map(line).collect::<String>()),
            Err(error) => {
                tracing::error!(%error, "an export of the audit trail broke off");
                Err(std::io::Error::other("the export broke off"))
            }
        });
        let mut response = Body::from_bytes_stream(chunks).into_response();
        let kind = HeaderValue::from_static(JSON_LINES);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn line(record: &ShownRecord) -> String {
    let mut line = RecordDto::from(record).to_json_string();
    line.push('\n');
    line
}

impl ApiResponse for Lines {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType {
            content_type: JSON_LINES,
            schema: RecordDto::schema_ref(),
        }];
        let response = MetaResponse {
            description: "JSON Lines: one record a line, newest first.",
            status: Some(200),
            status_range: None,
            content,
            headers: vec![],
        };
        MetaResponses {
            responses: vec![response],
        }
    }

    fn register(registry: &mut Registry) {
        RecordDto::register(registry);
    }
}

#[OpenApi(prefix_path = "/v1/admin", tag = "Tag::Administration")]
impl AuditApi {
    /// List audit records
    ///
    /// Newest first.
    #[oai(path = "/audit", method = "get", operation_id = "list_audit")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query"
    )]
    async fn list(
        &self,
        _by: Declared<HasPermission<AuditRead>>,
        /// Only records about this user or by them.
        user: Query<Option<Uuid>>,
        /// Only records about this user.
        subject: Query<Option<Uuid>>,
        /// Only records about this session or by a user in it.
        session: Query<Option<Uuid>>,
        /// Only events of this kind.
        event: Query<Option<EventName>>,
        /// Only what ended so.
        outcome: Query<Option<OutcomeDto>>,
        /// Only what happened then or later.
        from: Query<Option<Time>>,
        /// Only what happened before then.
        until: Query<Option<Time>>,
        #[oai(default = "super::admin_api::default_page")] limit: Query<u32>,
        cursor: Query<Option<Uuid>>,
    ) -> Result<Answer<200, RecordPage>, Fails<{ ADMIN | INVALID }>> {
        let filter = AuditFilter {
            user: user.0.map(Into::into),
            subject: subject.0.map(Into::into),
            session: session.0.map(Into::into),
            event: event.0.map(|name| name.0),
            outcome: outcome.0.map(Into::into),
            from: from.0.map(Into::into),
            until: until.0.map(Into::into),
            before: cursor.0.map(Into::into),
            limit: limit.0,
        };
        let (records, next) = self.0.audit().list(filter).await?;
        Ok(Answer(RecordPage {
            items: records.iter().map(Into::into).collect(),
            next_cursor: next.map(AuditId::as_uuid),
        }))
    }

    /// Export audit records
    ///
    /// All that the filters pick as JSON Lines, newest first. That it was exported is recorded before, and may be among
    /// them. An answer that breaks off is not the whole.
    #[oai(path = "/audit/export", method = "get", operation_id = "export_audit")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query"
    )]
    async fn export(
        &self,
        by: Declared<HasPermission<AuditRead>>,
        /// Only records about this user or by them.
        user: Query<Option<Uuid>>,
        /// Only records about this user.
        subject: Query<Option<Uuid>>,
        /// Only records about this session or by a user in it.
        session: Query<Option<Uuid>>,
        /// Only events of this kind.
        event: Query<Option<EventName>>,
        /// Only what ended so.
        outcome: Query<Option<OutcomeDto>>,
        /// Only what happened then or later.
        from: Query<Option<Time>>,
        /// Only what happened before then.
        until: Query<Option<Time>>,
    ) -> Result<Lines, Fails<{ ADMIN | INVALID }>> {
        let filter = AuditFilter {
            user: user.0.map(Into::into),
            subject: subject.0.map(Into::into),
            session: session.0.map(Into::into),
            event: event.0.map(|name| name.0),
            outcome: outcome.0.map(Into::into),
            from: from.0.map(Into::into),
            until: until.0.map(Into::into),
            ..AuditFilter::default()
        };
        let exported = self.0.audit().export(filter, by.actor().agent());
        Ok(Lines(exported.await?))
    }

    /// Why a session ended
    ///
    /// What the trail tells of it, from its login to its end. One that nothing is known of is `unknown`, since its
    /// records may only be too old.
    #[oai(
        path = "/sessions/:id/why",
        method = "get",
        operation_id = "explain_session"
    )]
    async fn why(
        &self,
        _by: Declared<HasPermission<AuditRead>>,
        id: Path<Uuid>,
    ) -> Result<Answer<200, StoryDto>, Fails<{ ADMIN | NOT_FOUND }>> {
        let story = self.0.audit().story(id.0.into()).await?;
        Ok(Answer((&story).into()))
    }
}
