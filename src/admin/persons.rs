//! Persons: giving out all that is kept of one, and erasing it.
//!
//! Decides whom somebody may do that to and that it takes a fresh login. What belongs to a person is known by the
//! store; how the records of the trail outlive them is decided there and in `audit`.

use super::Admin;
use crate::{
    audit::OwnEvent,
    error::{AuthError, AuthResult},
    ids::UserId,
    model::{
        audit::{Event, EventKind},
        session::Session,
        user::User,
    },
    roles::Actor,
    store::EraseUser,
};

/// What is kept of a person.
#[derive(Debug, Clone)]
pub struct PersonData {
    /// The account.
    pub user: User,
    /// Sessions that are not closed, newest first.
    pub sessions: Vec<Session>,
    /// What happened to the person and what they did, newest first, as far as the trail goes back.
    pub events: Vec<OwnEvent>,
}

impl Admin {
    /// Erases a person: the account with all that is theirs, in one step; their sessions are refused from the next
    /// request on, and their login name is free. Records of the trail keep their ids; where the person was cannot
    /// be read any more, in no copy (ASVS 14.2.7).
    ///
    /// # Errors
    /// [`AuthError::LastAdmin`], [`AuthError::NotFound`], [`AuthError::Outranked`],
    /// [`AuthError::ReauthRequired`].
    pub async fn erase_user(&self, by: Actor<'_>, id: UserId) -> AuthResult<()> {
        self.require_fresh(by)?;
        self.require_rank(by, id).await?;
        let by = self.trail.by(by.agent());
        match self.store.erase_user(id, &self.fixed_roles, &by).await? {
            EraseUser::Erased => Ok(()),
            EraseUser::LastAdmin => Err(AuthError::LastAdmin),
            EraseUser::Gone => Err(AuthError::NotFound("user")),
        }
    }

    /// Gives out all that is kept of a person, for that person: without what tells of others. That it was given
    /// out is recorded before.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Outranked`], [`AuthError::ReauthRequired`].
    pub async fn export_user(&self, by: Actor<'_>, id: UserId) -> AuthResult<PersonData> {
        self.require_fresh(by)?;
        self.require_rank(by, id).await?;
        let user = self.user(id).await?;
        let event = Event::done(EventKind::AccountExported).about(id);
        self.trail.note(event, by.agent()).await?;
        Ok(PersonData {
            user,
            sessions: self.store.open_sessions_of(id).await?,
            events: self.trail.all_events_of(id).await?,
        })
    }
}
