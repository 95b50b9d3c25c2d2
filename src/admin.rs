//! What administrators do to users, sessions and roles.
//!
//! Which permission each of it needs is decided at the edge, by type. Here stand what it takes besides: whom
//! somebody may act on (`roles` tells), and for what a login has to be fresh. Whether an administrator would
//! be left is decided by the store, in the same step as the change.

mod persons;
mod policy;
mod roles;

use std::sync::Arc;

use crate::{
    audit::Trail,
    clock::Clock,
    email::EmailAddress,
    entropy::Entropy,
    error::{AuthError, AuthResult, FieldError},
    ids::{SessionId, UserId},
    model::{
        account::{AttributeRules, NewAccount, ProfileChange},
        mail::{LetterKind, NewLetter},
        role::{FixedRoles, ROLES_GRANT},
        session::{CloseReason, IdleRule, Session},
        token::PasswordLink,
        user::{
            MOST_SESSIONS, NewUser, OnLimit, Roles, SessionLimit, SessionLimitOverride, User,
            UserStatus,
        },
    },
    outbox::{Cause, Outbox},
    paging::Page,
    roles::{Actor, RoleBook},
    store::{ChangeStanding, CloseSession, CreateUser, LoginName, Store, UpdateUser, UserFilter},
    throttle::Throttle,
};

pub use self::{persons::PersonData, policy::AdminPolicy};
pub use crate::paging::LONGEST_PAGE;

/// A user as an administrator makes one.
#[derive(Debug, Clone)]
pub struct AdminNewUser {
    /// Address, name and attributes.
    pub account: NewAccount,
    /// Roles, unparsed.
    pub roles: Vec<String>,
    /// Whether the address counts as verified.
    pub email_verified: bool,
    /// The user's own session limit.
    pub session_limit: SessionLimitOverride,
    /// Whether the link for setting a password is mailed to the user instead of being answered.
    pub invite: bool,
}

/// What an administrator may change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AdminUserChange {
    /// Name and attributes.
    pub profile: ProfileChange,
    /// A new address, unparsed.
    pub email: Option<String>,
    /// Whether the address counts as verified.
    pub email_verified: Option<bool>,
    /// How many sessions, `Some(None)` for the policy's number.
    pub max_sessions: Option<Option<u32>>,
    /// What happens beyond, `Some(None)` for the policy's rule.
    pub on_session_limit: Option<Option<OnLimit>>,
}

/// The administrator's use cases.
#[derive(Clone)]
pub struct Admin {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outbox: Outbox,
    pub(crate) throttle: Throttle,
    pub(crate) trail: Trail,
    pub(crate) rules: AttributeRules,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) limit: SessionLimit,
    pub(crate) idle: IdleRule,
    pub(crate) roles: RoleBook,
    pub(crate) fixed_roles: Arc<FixedRoles>,
    pub(crate) policy: AdminPolicy,
}

impl Admin {
    /// Refuses to act on somebody who may do more; a user who does not exist may do nothing.
    async fn require_rank(&self, by: Actor<'_>, id: UserId) -> AuthResult<()> {
        if self.roles.is_above_all(by) {
            return Ok(());
        }
        match self.store.user(id).await? {
            Some(target) => self.roles.require_rank(by, &target).await,
            None => Ok(()),
        }
    }

    /// Makes a user without a password, and a one-time link for setting one (ASVS 6.4.1, 6.4.6): answered
    /// to be handed over, or mailed to the user. With roles it is as grave as giving them.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::EmailTaken`], [`AuthError::UsernameTaken`];
    /// [`AuthError::MailOff`] for an invitation where no mail is sent; with roles
    /// [`AuthError::PermissionRequired`] and [`AuthError::ReauthRequired`].
    pub async fn create_user(
        &self,
        by: Actor<'_>,
        new: AdminNewUser,
    ) -> AuthResult<(User, Option<PasswordLink>)> {
        if let (Actor::User { user, .. }, false) = (by, new.roles.is_empty()) {
            self.roles.require(user, ROLES_GRANT).await?;
            self.require_fresh(by)?;
        }
        self.store_user(by, new).await
    }

    async fn store_user(
        &self,
        by: Actor<'_>,
        new: AdminNewUser,
    ) -> AuthResult<(User, Option<PasswordLink>)> {
        let invitation = if new.invite {
            let cause = Cause::default();
            Some(self.outbox.needed(LetterKind::Invitation, &cause)?)
        } else {
            None
        };
        let mut errors = Vec::new();
        let account = new.account.parse(&self.rules, &mut errors);
        let roles = parse_roles(new.roles).map_err(|e| errors.push(e)).ok();
        check_limit(new.session_limit.max, &mut errors);
        let (Some((email, username, attributes)), Some(roles), true) =
            (account, roles, errors.is_empty())
        else {
            return Err(AuthError::Invalid(errors));
        };
        let now = self.clock.now();
        let user = User {
            id: UserId::fresh(now, &*self.entropy),
            email,
            email_verified_at: new.email_verified.then_some(now),
            username,
            attributes,
            roles,
            status: UserStatus::Active,
            session_limit: new.session_limit,
            created_at: now,
            updated_at: now,
        };
        let invitation = invitation.map(|letter| letter.about(user.id).to(&user.email));
        let link = invitation
            .is_none()
            .then(|| PasswordLink::fresh(user.id, now, &*self.entropy));
        let stored = NewUser {
            user: user.clone(),
            password_hash: None,
            provisional_until: None,
        };
        let secret = link.as_ref().map(|link| &link.stored);
        let by = self.trail.by(by.agent());
        let created = self
            .store
            .create_user(&stored, secret, invitation.as_ref(), &by);
        match created.await? {
            CreateUser::Created => {
                self.outbox.ring();
                Ok((user, link))
            }
            CreateUser::EmailTaken => Err(AuthError::EmailTaken),
            CreateUser::UsernameTaken => Err(AuthError::UsernameTaken),
        }
    }

    /// One user.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn user(&self, id: UserId) -> AuthResult<User> {
        self.store
            .user(id)
            .await?
            .ok_or(AuthError::NotFound("user"))
    }

    /// The user who logs in by this name.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn user_by_login(&self, name: &LoginName) -> AuthResult<User> {
        let found = self.store.user_by_login(name).await?;
        found
            .map(|credentials| credentials.user)
            .ok_or(AuthError::NotFound("user"))
    }

    /// A page of users, newest first, and the cursor of the next page.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for a limit outside 1 to 200, a text longer than 254 characters or a role
    /// that is no name.
    pub async fn list(&self, mut filter: UserFilter) -> AuthResult<(Vec<User>, Option<UserId>)> {
        let page = Page::with_one_more(&mut filter.limit)?;
        if let Some(role) = &filter.role
            && Roles::parse([role.clone()]).is_err()
        {
            let detail = "must be the name of a role, e.g. admin";
            return Err(FieldError::new("role", "invalid", detail).into());
        }
        if filter
            .text
            .as_ref()
            .is_some_and(|text| text.chars().count() > 254 || text.contains('\0'))
        {
            return Err(FieldError::new(
                "q",
                "invalid",
                "must be at most 254 characters without NUL",
            )
            .into());
        }
        let users = self.store.list_users(&filter).await?;
        Ok(page.cut(users, |user| user.id))
    }

    /// Changes a user; a lower session limit ends the oldest surplus sessions in the same step. An address,
    /// and whether it is verified, take a fresh login: whoever has the address can have the account.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::EmailTaken`], [`AuthError::UsernameTaken`],
    /// [`AuthError::NotFound`], [`AuthError::Outranked`], [`AuthError::ReauthRequired`].
    pub async fn update_user(
        &self,
        by: Actor<'_>,
        id: UserId,
        change: AdminUserChange,
    ) -> AuthResult<User> {
        if change.email.is_some() || change.email_verified.is_some() {
            self.require_fresh(by)?;
        }
        self.require_rank(by, id).await?;
        let mut errors = Vec::new();
        let mut patch = change.profile.parse(&self.rules, &mut errors);
        patch.email = change.email.and_then(|text| {
            EmailAddress::parse(&text)
                .map_err(|e| errors.push(FieldError::new("email", "invalid", e.to_string())))
                .ok()
        });
        patch.email_verified = change.email_verified;
        check_limit(change.max_sessions.flatten(), &mut errors);
        if !errors.is_empty() {
            return Err(AuthError::Invalid(errors));
        }
        patch.max_sessions = change.max_sessions;
        patch.on_session_limit = change.on_session_limit;
        if patch.is_empty() {
            return self.user(id).await;
        }
        let cause = Cause::default();
        // An administrator's word is not undone by a link.
        let notice = self.outbox.letter(LetterKind::EmailChanged, &cause);
        let notice = notice.map(NewLetter::only_telling);
        let by = self.trail.by(by.agent());
        match self
            .store
            .update_user(id, &patch, notice.as_ref(), self.limit, self.idle, &by)
            .await?
        {
            UpdateUser::Updated(user) => {
                self.outbox.ring();
                Ok(*user)
            }
            UpdateUser::EmailTaken => Err(AuthError::EmailTaken),
            UpdateUser::UsernameTaken => Err(AuthError::UsernameTaken),
            UpdateUser::Gone => Err(AuthError::NotFound("user")),
        }
    }

    /// Sends a user a letter for setting a new password; the old one stays until then (ASVS 6.4.6).
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::MailOff`], [`AuthError::Outranked`],
    /// [`AuthError::ReauthRequired`].
    pub async fn start_reset(&self, by: Actor<'_>, id: UserId) -> AuthResult<()> {
        self.require_fresh(by)?;
        self.require_rank(by, id).await?;
        let cause = Cause::default();
        let letter = self.outbox.needed(LetterKind::ResetPassword, &cause)?;
        let user = self.user(id).await?;
        let letter = letter.about(id).to(&user.email);
        self.outbox.add(&letter, &self.trail.by(by.agent())).await
    }

    /// Deactivates a user and ends all their sessions in the same step.
    ///
    /// # Errors
    /// [`AuthError::LastAdmin`], [`AuthError::NotFound`], [`AuthError::Outranked`],
    /// [`AuthError::ReauthRequired`].
    pub async fn deactivate(&self, by: Actor<'_>, id: UserId) -> AuthResult<User> {
        self.require_fresh(by)?;
        self.require_rank(by, id).await?;
        let (fixed, by) = (&self.fixed_roles, self.trail.by(by.agent()));
        let user = standing(self.store.deactivate_user(id, None, fixed, &by).await?)?;
        self.throttle.forget_devices(id).await;
        Ok(user)
    }

    /// Lets a user log in again whom failed logins keep out: all that was counted for the account is
    /// forgotten.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Outranked`].
    pub async fn unlock(&self, by: Actor<'_>, id: UserId) -> AuthResult<()> {
        self.require_rank(by, id).await?;
        let user = self.user(id).await?;
        let by = self.trail.by(by.agent());
        self.throttle.pardon(&user, &by).await
    }

    /// Lets a user log in again; ended sessions stay ended.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Outranked`].
    pub async fn activate(&self, by: Actor<'_>, id: UserId) -> AuthResult<User> {
        self.require_rank(by, id).await?;
        let by = self.trail.by(by.agent());
        standing(self.store.activate_user(id, &by).await?)
    }

    /// Replaces a user's roles; effective on the user's next request.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::LastAdmin`], [`AuthError::NotFound`],
    /// [`AuthError::ReauthRequired`].
    pub async fn set_roles(
        &self,
        by: Actor<'_>,
        id: UserId,
        roles: Vec<String>,
    ) -> AuthResult<User> {
        self.require_fresh(by)?;
        let roles = parse_roles(roles)?;
        let (fixed, by) = (&self.fixed_roles, self.trail.by(by.agent()));
        standing(self.store.set_roles(id, &roles, fixed, &by).await?)
    }

    /// A user's sessions that are not closed, newest first.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn sessions(&self, id: UserId) -> AuthResult<Vec<Session>> {
        self.user(id).await?;
        Ok(self.store.open_sessions_of(id).await?)
    }

    /// Ends all sessions of a user and says how many there were (ASVS 7.4.5).
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Outranked`].
    pub async fn revoke_all(&self, by: Actor<'_>, id: UserId) -> AuthResult<u64> {
        self.require_rank(by, id).await?;
        let by = self.trail.by(by.agent());
        let closed = self
            .store
            .close_sessions(id, None, CloseReason::Revoked, &by)
            .await?;
        closed.ok_or(AuthError::NotFound("user"))
    }

    /// Ends one session, whosesoever it is; ending one twice is no error.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Outranked`].
    pub async fn revoke_session(&self, by: Actor<'_>, id: SessionId) -> AuthResult<()> {
        if !self.roles.is_above_all(by)
            && let Some(owner) = self.store.owner_of_session(id).await?
        {
            self.require_rank(by, owner).await?;
        }
        let by = self.trail.by(by.agent());
        match self
            .store
            .close_session_by_id(id, CloseReason::Revoked, &by)
            .await?
        {
            CloseSession::Closed | CloseSession::AlreadyClosed => Ok(()),
            CloseSession::Unknown => Err(AuthError::NotFound("session")),
        }
    }
}

fn standing(outcome: ChangeStanding) -> AuthResult<User> {
    match outcome {
        ChangeStanding::Changed(user) => Ok(*user),
        ChangeStanding::LastAdmin => Err(AuthError::LastAdmin),
        ChangeStanding::CredentialsChanged => Err(AuthError::Internal(
            "credentials were compared that nobody gave".into(),
        )),
        ChangeStanding::Gone => Err(AuthError::NotFound("user")),
    }
}

fn parse_roles(names: Vec<String>) -> Result<Roles, FieldError> {
    Roles::parse(names).map_err(|e| FieldError::new("roles", "invalid", e.to_string()))
}

fn check_limit(max: Option<u32>, errors: &mut Vec<FieldError>) {
    if max.is_some_and(|max| max > MOST_SESSIONS) {
        errors.push(FieldError::new(
            "max_sessions",
            "out_of_range",
            format!("must be at most {MOST_SESSIONS}; 0 means that many"),
        ));
    }
}
