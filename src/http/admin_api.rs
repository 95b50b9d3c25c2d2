//! `/v1/admin`: what administrators do to users and sessions.

use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
    types::{Example, MaybeUndefined},
};
use uuid::Uuid;

use super::{
    Tag,
    body::JsonBody,
    dto::{
        AdminUserDto, AttributesDto, OnLimitDto, SessionList, StatusDto, Time, example_attributes,
        example_time, to_map,
    },
    me_api::{given, profile_change},
    permission::{
        Declared, Fresh, HasPermission, MayStepUp, RolesGrant, SessionsRevoke, UsersErase,
        UsersRead, UsersWrite,
    },
    problem::{ADMIN, Answer, BODY, CONFLICT, Done, Fails, INVALID, NOT_FOUND},
    verification_api::Accepted,
};
use crate::{
    admin::{AdminNewUser, AdminUserChange},
    auth::Auth,
    ids::UserId,
    letters::Page,
    model::{
        account::NewAccount,
        token::PasswordLink,
        user::{SessionLimitOverride, User},
    },
    store::UserFilter,
};

pub(super) struct AdminApi {
    pub(super) auth: Auth,
    pub(super) public_url: String,
}

/// A new user, without a password.
#[derive(Object)]
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct CreateUserRequest {
    /// The e-mail address.
    email: String,
    /// A user name to log in by as well.
    username: Option<String>,
    /// The application's own fields.
    attributes: Option<AttributesDto>,
    /// Names of roles; none by default. Takes `roles:grant` and a fresh login.
    roles: Option<Vec<String>>,
    /// Whether the address counts as verified; not by default.
    email_verified: Option<bool>,
    /// The user's own session limit; 0 for as many as 1000.
    max_sessions: Option<u32>,
    /// What happens beyond it.
    on_session_limit: Option<OnLimitDto>,
    /// Whether the link for setting a password is mailed to the user instead of being answered.
    invite: Option<bool>,
}

impl Example for CreateUserRequest {
    fn example() -> Self {
        Self {
            email: "ben@example.org".to_owned(),
            username: None,
            attributes: Some(example_attributes()),
            roles: Some(vec!["editor".to_owned()]),
            email_verified: Some(true),
            max_sessions: Some(3),
            on_session_limit: None,
            invite: None,
        }
    }
}

/// A one-time link for setting a password, shown only now.
#[derive(Object)]
#[oai(rename = "PasswordLink", example)]
struct PasswordLinkDto {
    /// The link to hand over; its secret is in the fragment, which browsers do not send.
    url: String,
    /// Until when it can be used.
    expires_at: Time,
}

impl Example for PasswordLinkDto {
    fn example() -> Self {
        let url = "https://auth.example.org/set-password#token=dwl_q83v…".to_owned();
        Self {
            url,
            expires_at: example_time(),
        }
    }
}

/// The user that was made, and the link for its password.
#[derive(Object)]
#[oai(example)]
struct CreatedUser {
    /// The user.
    user: AdminUserDto,
    /// The link to hand over to the user; not with `invite`, which mails it.
    #[oai(skip_serializing_if_is_none)]
    password_link: Option<PasswordLinkDto>,
}

impl CreatedUser {
    fn new(user: &User, link: Option<&PasswordLink>, public_url: &str) -> Self {
        let password_link = link.map(|link| PasswordLinkDto {
            url: format!(
                "{public_url}{}#token={}",
                Page::SetPassword.path(),
                link.secret.expose()
            ),
            expires_at: link.expires_at.into(),
        });
        Self {
            user: user.into(),
            password_link,
        }
    }
}

impl Example for CreatedUser {
    fn example() -> Self {
        Self {
            user: AdminUserDto::example(),
            password_link: Some(PasswordLinkDto::example()),
        }
    }
}

/// What to change; a field that is not given stays as it is.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct UpdateUserRequest {
    /// A new address; it counts as not verified unless `email_verified` says so.
    #[oai(skip_serializing_if_is_none)]
    email: Option<String>,
    /// Whether the address counts as verified.
    email_verified: Option<bool>,
    /// A new user name; null removes it.
    #[oai(nullable)]
    username: MaybeUndefined<String>,
    /// New attributes in place of all the old ones; null removes them all.
    #[oai(nullable)]
    attributes: MaybeUndefined<AttributesDto>,
    /// The user's own session limit; null follows the policy. A lower one ends the oldest surplus.
    #[oai(nullable)]
    max_sessions: MaybeUndefined<u32>,
    /// What happens beyond it; null follows the policy.
    #[oai(nullable)]
    on_session_limit: MaybeUndefined<OnLimitDto>,
}

impl Example for UpdateUserRequest {
    fn example() -> Self {
        Self {
            email: None,
            email_verified: Some(true),
            username: MaybeUndefined::Undefined,
            attributes: MaybeUndefined::Undefined,
            max_sessions: MaybeUndefined::Value(3),
            on_session_limit: MaybeUndefined::Null,
        }
    }
}

/// A user's roles, all of them.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct RolesRequest {
    /// The names; what each grants is in `/v1/admin/roles`. One that is not there is the application's.
    roles: Vec<String>,
}

impl Example for RolesRequest {
    fn example() -> Self {
        Self {
            roles: vec!["editor".to_owned()],
        }
    }
}

/// A page of users, newest first.
#[derive(Object)]
#[oai(example)]
struct UserPage {
    /// The users.
    items: Vec<AdminUserDto>,
    /// Give it as `cursor` to get the next page; null on the last one.
    #[oai(nullable)]
    next_cursor: Option<Uuid>,
}

impl Example for UserPage {
    fn example() -> Self {
        Self {
            items: vec![AdminUserDto::example()],
            next_cursor: None,
        }
    }
}

/// How many sessions were ended.
#[derive(Object)]
#[oai(example)]
struct Revoked {
    /// The number of sessions that were open.
    revoked: u64,
}

impl Example for Revoked {
    fn example() -> Self {
        Self { revoked: 1 }
    }
}

type UserAnswer = Answer<200, AdminUserDto>;

#[OpenApi(prefix_path = "/v1/admin", tag = "Tag::Administration")]
impl AdminApi {
    /// Make a user
    ///
    /// The user has no password; the answer holds a one-time link for setting one, to be handed over. With
    /// `invite` the link is mailed to the user instead. Giving roles takes `roles:grant` and a fresh login.
    #[oai(path = "/users", method = "post", operation_id = "create_user")]
    async fn create(
        &self,
        by: Declared<MayStepUp<HasPermission<UsersWrite>>>,
        body: JsonBody<CreateUserRequest>,
    ) -> Result<Answer<201, CreatedUser>, Fails<{ ADMIN | BODY | CONFLICT | INVALID }>> {
        let new = body.0;
        let account = NewAccount {
            email: new.email,
            username: new.username,
            attributes: new.attributes.map(to_map),
        };
        let session_limit = SessionLimitOverride {
            max: new.max_sessions,
            on_limit: new.on_session_limit.map(Into::into),
        };
        let roles = new.roles.unwrap_or_default();
        let new = AdminNewUser {
            account,
            roles,
            email_verified: new.email_verified.unwrap_or_default(),
            session_limit,
            invite: new.invite.unwrap_or_default(),
        };
        let (user, link) = self.auth.admin().create_user(by.actor(), new).await?;
        let link = link.as_ref();
        Ok(Answer(CreatedUser::new(&user, link, &self.public_url)))
    }

    /// List and search users
    ///
    /// Newest first. `q` is part of an e-mail address or user name, taken literally.
    #[oai(path = "/users", method = "get", operation_id = "list_users")]
    async fn list(
        &self,
        _by: Declared<HasPermission<UsersRead>>,
        q: Query<Option<String>>,
        status: Query<Option<StatusDto>>,
        role: Query<Option<String>>,
        #[oai(default = "default_page")] limit: Query<u32>,
        cursor: Query<Option<Uuid>>,
    ) -> Result<Answer<200, UserPage>, Fails<{ ADMIN | INVALID }>> {
        let active = status.0.map(|status| status == StatusDto::Active);
        let before = cursor.0.map(Into::into);
        let filter = UserFilter {
            text: q.0,
            active,
            role: role.0,
            before,
            limit: limit.0,
        };
        let (users, next) = self.auth.admin().list(filter).await?;
        Ok(Answer(UserPage {
            items: users.iter().map(Into::into).collect(),
            next_cursor: next.map(UserId::as_uuid),
        }))
    }

    /// Read a user
    #[oai(path = "/users/:id", method = "get", operation_id = "get_user")]
    async fn read(
        &self,
        _by: Declared<HasPermission<UsersRead>>,
        id: Path<Uuid>,
    ) -> Result<UserAnswer, Fails<{ ADMIN | NOT_FOUND }>> {
        Ok(Answer((&self.auth.admin().user(id.0.into()).await?).into()))
    }

    /// Change a user
    ///
    /// The address, and whether it is verified, take a fresh login. Refused (`outranked`) about somebody who
    /// holds a permission that the caller lacks, as are all changes of a user here.
    #[oai(path = "/users/:id", method = "patch", operation_id = "update_user")]
    async fn update(
        &self,
        by: Declared<MayStepUp<HasPermission<UsersWrite>>>,
        id: Path<Uuid>,
        body: JsonBody<UpdateUserRequest>,
    ) -> Result<UserAnswer, Fails<{ ADMIN | BODY | NOT_FOUND | CONFLICT | INVALID }>> {
        let change = body.0;
        let change = AdminUserChange {
            profile: profile_change(change.username, change.attributes),
            email: change.email,
            email_verified: change.email_verified,
            max_sessions: given(change.max_sessions),
            on_session_limit: given(change.on_session_limit).map(|rule| rule.map(Into::into)),
        };
        Ok(Answer(
            (&self
                .auth
                .admin()
                .update_user(by.actor(), id.0.into(), change)
                .await?)
                .into(),
        ))
    }

    /// Erase a user
    ///
    /// For good: the account, its sessions, letters and everything else that is kept of the person. Records of the
    /// audit trail keep their ids; from where the person came cannot be read any more. The last active
    /// administrator cannot be erased.
    #[oai(path = "/users/:id", method = "delete", operation_id = "erase_user")]
    async fn erase(
        &self,
        by: Declared<Fresh<HasPermission<UsersErase>>>,
        id: Path<Uuid>,
    ) -> Result<Done, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        let admin = self.auth.admin();
        admin.erase_user(by.actor(), id.0.into()).await?;
        Ok(Done)
    }

    /// Start a user's password reset
    ///
    /// Mails the user a link and a code for setting a new password; the old one stays until then.
    #[oai(
        path = "/users/:id/reset-password",
        method = "post",
        operation_id = "start_password_reset"
    )]
    async fn start_reset(
        &self,
        by: Declared<Fresh<HasPermission<UsersWrite>>>,
        id: Path<Uuid>,
    ) -> Result<Answer<202, Accepted>, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        self.auth
            .admin()
            .start_reset(by.actor(), id.0.into())
            .await?;
        Ok(Answer(Accepted::default()))
    }

    /// Deactivate a user
    ///
    /// All their sessions end at once and they cannot log in any more; their data stays. The last
    /// active administrator cannot be deactivated.
    #[oai(
        path = "/users/:id/deactivate",
        method = "post",
        operation_id = "deactivate_user"
    )]
    async fn deactivate(
        &self,
        by: Declared<Fresh<HasPermission<UsersWrite>>>,
        id: Path<Uuid>,
    ) -> Result<UserAnswer, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        Ok(Answer(
            (&self
                .auth
                .admin()
                .deactivate(by.actor(), id.0.into())
                .await?)
                .into(),
        ))
    }

    /// Activate a user
    ///
    /// They can log in again; sessions that ended stay ended.
    #[oai(
        path = "/users/:id/activate",
        method = "post",
        operation_id = "activate_user"
    )]
    async fn activate(
        &self,
        by: Declared<HasPermission<UsersWrite>>,
        id: Path<Uuid>,
    ) -> Result<UserAnswer, Fails<{ ADMIN | NOT_FOUND }>> {
        Ok(Answer(
            (&self.auth.admin().activate(by.actor(), id.0.into()).await?).into(),
        ))
    }

    /// Unlock a user
    ///
    /// Forgets failed logins and everything else that was counted for the account, so that its user need not
    /// wait. Doing so without need is no error.
    #[oai(
        path = "/users/:id/unlock",
        method = "post",
        operation_id = "unlock_user"
    )]
    async fn unlock(
        &self,
        by: Declared<HasPermission<UsersWrite>>,
        id: Path<Uuid>,
    ) -> Result<Done, Fails<{ ADMIN | NOT_FOUND }>> {
        self.auth.admin().unlock(by.actor(), id.0.into()).await?;
        Ok(Done)
    }

    /// Set a user's roles
    ///
    /// Effective on the user's next request. The last active administrator cannot be demoted.
    #[oai(path = "/users/:id/roles", method = "put", operation_id = "set_roles")]
    async fn set_roles(
        &self,
        by: Declared<Fresh<HasPermission<RolesGrant>>>,
        id: Path<Uuid>,
        body: JsonBody<RolesRequest>,
    ) -> Result<UserAnswer, Fails<{ ADMIN | BODY | NOT_FOUND | CONFLICT | INVALID }>> {
        Ok(Answer(
            (&self
                .auth
                .admin()
                .set_roles(by.actor(), id.0.into(), body.0.roles)
                .await?)
                .into(),
        ))
    }

    /// List a user's sessions
    ///
    /// Those that are not closed, newest first.
    #[oai(
        path = "/users/:id/sessions",
        method = "get",
        operation_id = "list_user_sessions"
    )]
    async fn sessions(
        &self,
        _by: Declared<HasPermission<UsersRead>>,
        id: Path<Uuid>,
    ) -> Result<Answer<200, SessionList>, Fails<{ ADMIN | NOT_FOUND }>> {
        Ok(Answer(SessionList::new(
            &self.auth.admin().sessions(id.0.into()).await?,
            None,
        )))
    }

    /// Revoke all sessions of a user
    ///
    /// Refused from the next request on, everywhere. The user can log in again.
    #[oai(
        path = "/users/:id/revoke",
        method = "post",
        operation_id = "revoke_user"
    )]
    async fn revoke(
        &self,
        by: Declared<HasPermission<SessionsRevoke>>,
        id: Path<Uuid>,
    ) -> Result<Answer<200, Revoked>, Fails<{ ADMIN | NOT_FOUND }>> {
        Ok(Answer(Revoked {
            revoked: self
                .auth
                .admin()
                .revoke_all(by.actor(), id.0.into())
                .await?,
        }))
    }

    /// Revoke one session
    ///
    /// Refused from the next request on, everywhere. Revoking one that has ended is no error.
    #[oai(
        path = "/sessions/:id/revoke",
        method = "post",
        operation_id = "revoke_session"
    )]
    async fn revoke_session(
        &self,
        by: Declared<HasPermission<SessionsRevoke>>,
        id: Path<Uuid>,
    ) -> Result<Done, Fails<{ ADMIN | NOT_FOUND }>> {
        self.auth
            .admin()
            .revoke_session(by.actor(), id.0.into())
            .await?;
        Ok(Done)
    }
}

pub(super) fn default_page() -> u32 {
    50
}
