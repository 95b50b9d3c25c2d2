//! `/v1/admin/outbox`: letters, and what operators do about those that do not arrive.

use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Path, Query},
    types::Example,
};
use uuid::Uuid;

use super::{
    Tag,
    dto::{Time, example_time},
    permission::{Declared, HasPermission, OutboxManage},
    problem::{ADMIN, Answer, CONFLICT, Fails, INVALID, NOT_FOUND},
};
use crate::{
    auth::Auth,
    email::EmailAddress,
    ids::LetterId,
    model::mail::{Letter, LetterState},
    store::LetterFilter,
};

pub(super) struct OutboxApi(pub(super) Auth);

/// How far a letter got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "LetterState", rename_all = "snake_case")]
enum LetterStateDto {
    /// To be sent when it is due, or being sent.
    Waiting,
    /// Taken over by a mail server.
    Sent,
    /// Given up: refused for good, or not taken over for too long.
    Dead,
    /// Not to be sent any more.
    Dropped,
}

impl From<LetterState> for LetterStateDto {
    fn from(state: LetterState) -> Self {
        match state {
            LetterState::Waiting => Self::Waiting,
            LetterState::Sent => Self::Sent,
            LetterState::Dead => Self::Dead,
            LetterState::Dropped => Self::Dropped,
        }
    }
}

impl From<LetterStateDto> for LetterState {
    fn from(state: LetterStateDto) -> Self {
        match state {
            LetterStateDto::Waiting => Self::Waiting,
            LetterStateDto::Sent => Self::Sent,
            LetterStateDto::Dead => Self::Dead,
            LetterStateDto::Dropped => Self::Dropped,
        }
    }
}

/// A letter, without anything secret.
#[derive(Object)]
#[oai(example, rename = "Letter")]
struct LetterDto {
    /// Its id; its `Message-ID` begins with it.
    id: Uuid,
    /// What it is about, e.g. `verify_email` or `password_changed`.
    kind: String,
    /// How far it got.
    state: LetterStateDto,
    /// Whom it is about, where that is known.
    #[oai(nullable)]
    user_id: Option<Uuid>,
    /// Where it goes, with all but one letter hidden; null for the address that the user has when it is sent.
    #[oai(nullable)]
    to: Option<String>,
    /// How often it was tried.
    attempts: u32,
    /// Why the last attempt failed, or why it was dropped.
    #[oai(nullable)]
    last_error: Option<String>,
    /// When it was caused.
    created_at: Time,
    /// When it is tried next, if it waits.
    #[oai(nullable)]
    due_at: Option<Time>,
    /// When it was sent, given up or dropped.
    #[oai(nullable)]
    settled_at: Option<Time>,
}

impl From<&Letter> for LetterDto {
    fn from(letter: &Letter) -> Self {
        let new = &letter.new;
        let waits = letter.state == LetterState::Waiting;
        Self {
            id: new.id.as_uuid(),
            kind: new.kind.as_str().to_owned(),
            state: letter.state.into(),
            user_id: new.user_id.map(crate::ids::UserId::as_uuid),
            to: new.to.as_ref().map(EmailAddress::mask),
            attempts: letter.attempts,
            last_error: letter.last_error.clone(),
            created_at: new.created_at.into(),
            due_at: waits.then(|| letter.due_at.into()),
            settled_at: letter.settled_at.map(Into::into),
        }
    }
}

impl Example for LetterDto {
    fn example() -> Self {
        let caused = example_time();
        Self {
            id: Uuid::from_u128(0x01a1_fd23_b0ca_7417_a94c_f87a_fc9a_863a),
            kind: "verify_email".to_owned(),
            state: LetterStateDto::Waiting,
            user_id: Some(Uuid::from_u128(0x01a1_fd23_b6b9_700f_b2fa_0175_b4dd_a05d)),
            to: Some("a***@example.org".to_owned()),
            attempts: 1,
            last_error: Some("451 at RCPT".to_owned()),
            created_at: caused,
            due_at: Some(caused),
            settled_at: None,
        }
    }
}

/// A page of letters, newest first.
#[derive(Object)]
#[oai(example)]
struct LetterPage {
    /// The letters.
    items: Vec<LetterDto>,
    /// Give it as `cursor` to get the next page; null on the last one.
    #[oai(nullable)]
    next_cursor: Option<Uuid>,
}

impl Example for LetterPage {
    fn example() -> Self {
        Self {
            items: vec![LetterDto::example()],
            next_cursor: None,
        }
    }
}

type LetterAnswer = Answer<200, LetterDto>;

#[OpenApi(prefix_path = "/v1/admin/outbox", tag = "Tag::Administration")]
impl OutboxApi {
    /// List letters
    ///
    /// Newest first; `state` picks those that wait, were sent, given up or dropped.
    #[oai(path = "/", method = "get", operation_id = "list_letters")]
    async fn list(
        &self,
        _by: Declared<HasPermission<OutboxManage>>,
        state: Query<Option<LetterStateDto>>,
        #[oai(default = "super::admin_api::default_page")] limit: Query<u32>,
        cursor: Query<Option<Uuid>>,
    ) -> Result<Answer<200, LetterPage>, Fails<{ ADMIN | INVALID }>> {
        let filter = LetterFilter {
            state: state.0.map(Into::into),
            before: cursor.0.map(Into::into),
            limit: limit.0,
        };
        let (letters, next) = self.0.outbox().list(filter).await?;
        Ok(Answer(LetterPage {
            items: letters.iter().map(Into::into).collect(),
            next_cursor: next.map(LetterId::as_uuid),
        }))
    }

    /// Read a letter
    #[oai(path = "/:id", method = "get", operation_id = "get_letter")]
    async fn read(
        &self,
        _by: Declared<HasPermission<OutboxManage>>,
        id: Path<Uuid>,
    ) -> Result<LetterAnswer, Fails<{ ADMIN | NOT_FOUND }>> {
        Ok(Answer((&self.0.outbox().find(id.0.into()).await?).into()))
    }

    /// Try a letter again
    ///
    /// Now: one that waits or was given up. Not one that was sent or dropped.
    #[oai(path = "/:id/retry", method = "post", operation_id = "retry_letter")]
    async fn retry(
        &self,
        by: Declared<HasPermission<OutboxManage>>,
        id: Path<Uuid>,
    ) -> Result<LetterAnswer, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        let retried = self.0.outbox().retry(by.actor(), id.0.into());
        Ok(Answer((&retried.await?).into()))
    }

    /// Drop a letter
    ///
    /// It is not sent any more, for good; it stays in the list.
    #[oai(path = "/:id/drop", method = "post", operation_id = "drop_letter")]
    async fn drop_letter(
        &self,
        by: Declared<HasPermission<OutboxManage>>,
        id: Path<Uuid>,
    ) -> Result<LetterAnswer, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        let dropped = self.0.outbox().drop_letter(by.actor(), id.0.into());
        Ok(Answer((&dropped.await?).into()))
    }
}
