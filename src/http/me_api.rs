//! `/v1/auth/me` and `/v1/auth/sessions`: what users see and change about themselves.

use std::sync::Arc;

use poem_openapi::{
    Object, OpenApi,
    param::Path,
    types::{Example, MaybeUndefined, Password},
};
use uuid::Uuid;

use super::{
    Tag,
    auth_api::PasswordProof,
    body::JsonBody,
    dto::{AttributesDto, SessionList, UserDto, example_attributes, to_map},
    guard::{Caused, Secured},
    problem::{
        Answer, BODY, CONFLICT, Done, FORBIDDEN, Fails, GUARDED, INVALID, NOT_FOUND, With, Written,
    },
    surface::Surface,
    verification_api::Accepted,
};
use crate::{auth::Auth, model::account::ProfileChange, sessions::CurrentUser};

pub(super) struct MeApi {
    pub(super) auth: Auth,
    pub(super) surface: Arc<Surface>,
}

/// What to change; a field that is not given stays as it is.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct ProfileRequest {
    /// A new user name; null removes it.
    #[oai(nullable)]
    username: MaybeUndefined<String>,
    /// New attributes in place of all the old ones; null removes them all.
    #[oai(nullable)]
    attributes: MaybeUndefined<AttributesDto>,
}

impl Example for ProfileRequest {
    fn example() -> Self {
        Self {
            username: MaybeUndefined::Value("ann".to_owned()),
            attributes: MaybeUndefined::Value(example_attributes()),
        }
    }
}

/// `Some(None)` is an explicit null.
pub(super) fn given<T>(field: MaybeUndefined<T>) -> Option<Option<T>> {
    match field {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

pub(super) fn profile_change(
    username: MaybeUndefined<String>,
    attributes: MaybeUndefined<AttributesDto>,
) -> ProfileChange {
    let attributes = given(attributes).map(|given| to_map(given.unwrap_or_default()));
    ProfileChange {
        username: given(username),
        attributes,
    }
}

/// What somebody may do.
#[derive(Object)]
#[oai(example)]
struct PermissionList {
    /// The names, in order.
    permissions: Vec<String>,
}

impl Example for PermissionList {
    fn example() -> Self {
        Self {
            permissions: vec!["users:read".to_owned()],
        }
    }
}

/// The current password and a new one.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct ChangePasswordRequest {
    /// The current password.
    current_password: Password,
    /// The new one; the same rules as at registration.
    new_password: Password,
}

impl Example for ChangePasswordRequest {
    fn example() -> Self {
        Self {
            current_password: Password("correct horse battery staple".to_owned()),
            new_password: Password("another horse entirely".to_owned()),
        }
    }
}

/// A new address, and the current password.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct ChangeEmailRequest {
    /// The new address.
    email: String,
    /// The current password.
    password: Password,
}

impl Example for ChangeEmailRequest {
    fn example() -> Self {
        Self {
            email: "ann@example.com".to_owned(),
            password: Password("correct horse battery staple".to_owned()),
        }
    }
}

/// The code of a letter.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct CodeRequest {
    /// The six digits.
    code: String,
}

impl Example for CodeRequest {
    fn example() -> Self {
        Self {
            code: "204816".to_owned(),
        }
    }
}

/// The answer to the question that is asked most.
pub(super) type Me = Written<200, UserDto>;

/// What a caller is told of themselves.
pub(super) fn me(caller: CurrentUser) -> Me {
    Written(caller.user.into())
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Me")]
impl MeApi {
    /// Who am I
    ///
    /// The user as it is in the database at this moment.
    #[oai(path = "/me", method = "get", operation_id = "get_me")]
    async fn me(&self, caller: Secured<CurrentUser>) -> Result<Me, Fails<GUARDED>> {
        Ok(me(caller.0))
    }

    /// What may I do
    ///
    /// What the caller's roles grant at this moment, Doorward's own permissions and the application's.
    #[oai(
        path = "/me/permissions",
        method = "get",
        operation_id = "get_my_permissions"
    )]
    async fn permissions(
        &self,
        caller: Secured<CurrentUser>,
    ) -> Result<Answer<200, PermissionList>, Fails<GUARDED>> {
        let granted = self.auth.roles().permissions_of(&caller.user).await?;
        Ok(Answer(PermissionList {
            permissions: granted.to_vec(),
        }))
    }

    /// Change my name or attributes
    #[oai(path = "/me", method = "patch", operation_id = "update_me")]
    async fn update(
        &self,
        caller: Secured<CurrentUser>,
        body: JsonBody<ProfileRequest>,
    ) -> Result<Answer<200, UserDto>, Fails<{ GUARDED | BODY | FORBIDDEN | CONFLICT | INVALID }>>
    {
        let change = profile_change(body.0.username, body.0.attributes);
        let user = self
            .auth
            .accounts()
            .update_profile(&caller.user, caller.session_id, change)
            .await?;
        Ok(Answer((&user).into()))
    }

    /// Change my password
    ///
    /// All other sessions end; this one stays, and gets a new cookie if it is in one.
    #[oai(
        path = "/me/password",
        method = "post",
        operation_id = "change_password"
    )]
    async fn change_password(
        &self,
        caller: Secured<CurrentUser>,
        caused: Caused,
        body: JsonBody<ChangePasswordRequest>,
    ) -> Result<With<Done>, Fails<{ GUARDED | BODY | FORBIDDEN | INVALID }>> {
        let (current, new) = (
            body.0.current_password.0.into(),
            body.0.new_password.0.into(),
        );
        let accounts = self.auth.accounts();
        let at = accounts
            .change_password(caller.user.id, caller.session_id, &current, &new, &caused.0)
            .await?;
        let renewed = self.auth.sessions().renewed_cookie(&caller, at)?;
        let cookie = self.surface.renew_cookie(&self.auth, &caller, renewed)?;
        Ok(With(Done, cookie))
    }

    /// Change my address
    ///
    /// Sends a letter to the new address; the account has it once that is confirmed, by the link or by the
    /// code. An address that another account has is not told: its owner gets a letter instead.
    #[oai(path = "/me/email", method = "post", operation_id = "change_email")]
    async fn change_email(
        &self,
        caller: Secured<CurrentUser>,
        caused: Caused,
        body: JsonBody<ChangeEmailRequest>,
    ) -> Result<Answer<202, Accepted>, Fails<{ GUARDED | BODY | FORBIDDEN | CONFLICT | INVALID }>>
    {
        let ChangeEmailRequest { email, password } = body.0;
        let verification = self.auth.verification();
        verification
            .begin_change(
                caller.user.id,
                caller.session_id,
                &email,
                &password.0.into(),
                &caused.0,
            )
            .await?;
        Ok(Answer(Accepted::default()))
    }

    /// Confirm my new address by a code
    ///
    /// The code stands in the letter that was sent to the new address, and can be tried five times.
    #[oai(
        path = "/me/email/confirm",
        method = "post",
        operation_id = "confirm_my_email"
    )]
    async fn confirm_email(
        &self,
        caller: Secured<CurrentUser>,
        caused: Caused,
        body: JsonBody<CodeRequest>,
    ) -> Result<Answer<200, UserDto>, Fails<{ GUARDED | BODY | FORBIDDEN | CONFLICT }>> {
        let verification = self.auth.verification();
        let user = verification
            .confirm_change_by_code(caller.user.id, caller.session_id, &body.0.code, &caused.0)
            .await?;
        Ok(Answer((&user).into()))
    }

    /// Deactivate my account
    ///
    /// The account keeps its data, all its sessions end and it cannot log in any more. The last active
    /// administrator cannot do this.
    #[oai(
        path = "/me/deactivate",
        method = "post",
        operation_id = "deactivate_me"
    )]
    async fn deactivate(
        &self,
        caller: Secured<CurrentUser>,
        body: JsonBody<PasswordProof>,
    ) -> Result<Done, Fails<{ GUARDED | BODY | FORBIDDEN | CONFLICT }>> {
        self.auth
            .accounts()
            .deactivate_self(caller.user.id, caller.session_id, &body.0.password.0.into())
            .await?;
        Ok(Done)
    }

    /// My sessions
    ///
    /// Live ones, newest first.
    #[oai(path = "/sessions", method = "get", operation_id = "list_my_sessions")]
    async fn sessions(
        &self,
        caller: Secured<CurrentUser>,
    ) -> Result<Answer<200, SessionList>, Fails<GUARDED>> {
        let sessions = self.auth.sessions().list(caller.user.id).await?;
        Ok(Answer(SessionList::new(&sessions, Some(caller.session_id))))
    }

    /// End one of my sessions
    ///
    /// Ending one that has ended is no error.
    #[oai(
        path = "/sessions/:id",
        method = "delete",
        operation_id = "end_my_session"
    )]
    async fn end_session(
        &self,
        caller: Secured<CurrentUser>,
        id: Path<Uuid>,
    ) -> Result<Done, Fails<{ GUARDED | FORBIDDEN | NOT_FOUND }>> {
        self.auth.sessions().end(&caller, id.0.into()).await?;
        Ok(Done)
    }
}
