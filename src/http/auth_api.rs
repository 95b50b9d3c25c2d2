//! `/v1/auth`: registering, logging in and out.

use poem_openapi::{
    ApiRequest, Enum, Object, OpenApi,
    param::Query,
    payload::Payload,
    types::{Example, Password},
};
use serde::Deserialize;

use super::{
    Tag,
    body::{FormBody, JsonBody, unsupported},
    dto::{AttributesDto, SessionDto, UserDto, example_attributes, to_map},
    guard::{Peer, PresentedToken},
    problem::{
        ANY, Answer, BODY, CONFLICT, Done, FORBIDDEN, Fails, INVALID, Problem, UNAUTHORIZED,
    },
};
use crate::{
    auth::Auth,
    email::EmailAddress,
    error::{AuthError, FieldError},
    model::account::NewAccount,
    secret::SecretString,
    sessions::{CurrentUser, Grant, LogoutScope},
    store::LoginName,
    username::Username,
};

pub(super) struct AuthApi(pub(super) Auth);

/// A new account.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct RegisterRequest {
    /// The e-mail address; unique without regard to case.
    email: String,
    /// The password: any characters, 15 at the least unless configured otherwise, 256 at the most.
    password: Password,
    /// A user name to log in by as well; unique without regard to case.
    username: Option<String>,
    /// The application's own fields.
    attributes: Option<AttributesDto>,
}

impl Example for RegisterRequest {
    fn example() -> Self {
        Self {
            email: "ann@example.org".to_owned(),
            password: Password("correct horse battery staple".to_owned()),
            username: Some("ann".to_owned()),
            attributes: Some(example_attributes()),
        }
    }
}

/// Who logs in: by `email` or by `username`, not both.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct LoginRequest {
    /// The e-mail address.
    email: Option<String>,
    /// The user name.
    username: Option<String>,
    /// The password.
    password: Password,
    /// A name to recognise the session by, e.g. `Ann's laptop`.
    device_name: Option<String>,
}

impl Example for LoginRequest {
    fn example() -> Self {
        Self {
            email: Some("ann@example.org".to_owned()),
            username: None,
            password: Password("correct horse battery staple".to_owned()),
            device_name: Some("Ann's laptop".to_owned()),
        }
    }
}

/// The form of the OAuth2 password flow, for the Authorize button of these documents.
#[derive(Object, Deserialize)]
#[oai(example)]
struct LoginForm {
    /// `password`, if it is given.
    grant_type: Option<String>,
    /// The e-mail address or the user name.
    username: String,
    /// The password.
    password: String,
}

impl Example for LoginForm {
    fn example() -> Self {
        Self {
            grant_type: Some("password".to_owned()),
            username: "ann@example.org".to_owned(),
            password: "correct horse battery staple".to_owned(),
        }
    }
}

#[derive(ApiRequest)]
enum LoginBody {
    /// As JSON.
    Json(JsonBody<LoginRequest>),
    /// As the OAuth2 password form.
    Form(FormBody<LoginForm>),
}

/// A login by name and password, of either form.
struct Login {
    name: LoginName,
    password: SecretString,
    device_name: Option<String>,
}

/// A text that is no possible name is looked up as a name that nobody has: it must cost and answer
/// the same as a wrong one (ASVS 6.3.8).
fn by_email(text: &str) -> LoginName {
    EmailAddress::parse(text).map_or_else(
        |_| LoginName::Username(Username::nobody()),
        LoginName::Email,
    )
}

fn by_username(text: &str) -> LoginName {
    LoginName::Username(Username::parse(text).unwrap_or_else(|_| Username::nobody()))
}

impl TryFrom<LoginBody> for Login {
    type Error = Problem;

    fn try_from(body: LoginBody) -> Result<Self, Problem> {
        match body {
            LoginBody::Form(FormBody(form))
                if form
                    .grant_type
                    .as_deref()
                    .is_some_and(|grant| grant != "password") =>
            {
                Err(Problem::bad_request(
                    "unsupported_grant_type",
                    "The only `grant_type` here is `password`.",
                ))
            }
            LoginBody::Form(FormBody(form)) => {
                let name = if form.username.contains('@') {
                    by_email(&form.username)
                } else {
                    by_username(&form.username)
                };
                Ok(Self {
                    name,
                    password: form.password.into(),
                    device_name: None,
                })
            }
            LoginBody::Json(JsonBody(login)) => {
                let name = match (&login.email, &login.username) {
                    (Some(email), None) => by_email(email),
                    (None, Some(username)) => by_username(username),
                    _ => {
                        let error =
                            FieldError::new("email", "one_of", "give either `email` or `username`");
                        return Err(AuthError::from(error).into());
                    }
                };
                Ok(Self {
                    name,
                    password: login.password.0.into(),
                    device_name: login.device_name,
                })
            }
        }
    }
}

/// An open session and the token to use it.
#[derive(Object)]
#[oai(example)]
struct LoginAnswer {
    /// The access token, for `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// The session that was opened.
    session: SessionDto,
}

impl From<Grant> for LoginAnswer {
    fn from(grant: Grant) -> Self {
        Self {
            access_token: grant.access.token.expose().clone(),
            token_type: "Bearer".to_owned(),
            expires_in: grant.access.expires_in,
            session: SessionDto::new(&grant.session, Some(grant.session.id)),
        }
    }
}

impl Example for LoginAnswer {
    fn example() -> Self {
        Self {
            access_token: "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIs…".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 900,
            session: SessionDto::example(),
        }
    }
}

/// The current password, once more.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
pub(super) struct PasswordProof {
    /// The current password.
    pub(super) password: Password,
}

impl Example for PasswordProof {
    fn example() -> Self {
        Self {
            password: Password("correct horse battery staple".to_owned()),
        }
    }
}

/// Which sessions a logout ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Enum)]
#[oai(rename = "LogoutScope", rename_all = "snake_case")]
enum ScopeDto {
    /// The one the token belongs to.
    #[default]
    This,
    /// All others of the user.
    Others,
    /// All of the user.
    All,
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Authentication")]
impl AuthApi {
    /// Register
    ///
    /// Makes an account. It holds no session yet: log in next.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        body: JsonBody<RegisterRequest>,
    ) -> Result<Answer<201, UserDto>, Fails<{ BODY | CONFLICT | INVALID | ANY }>> {
        let RegisterRequest {
            email,
            password,
            username,
            attributes,
        } = body.0;
        let account = NewAccount {
            email,
            username,
            attributes: attributes.map(to_map),
        };
        let user = self
            .0
            .accounts()
            .register(account, &password.0.into())
            .await?;
        Ok(Answer((&user).into()))
    }

    /// Log in
    ///
    /// Opens a session. Under the default policy a user holds one session, and a newer login ends the
    /// older one. An unknown name and a wrong password are answered alike.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        peer: Peer,
        body: LoginBody,
    ) -> Result<
        Answer<200, LoginAnswer>,
        Fails<{ BODY | UNAUTHORIZED | FORBIDDEN | CONFLICT | INVALID | ANY }>,
    > {
        let login = Login::try_from(body)?;
        let device = peer.device(login.device_name).map_err(AuthError::from)?;
        let grant = self
            .0
            .sessions()
            .login(&login.name, &login.password, device)
            .await?;
        Ok(Answer(grant.into()))
    }

    /// Log out
    ///
    /// Ends this session, the others, or all. Any genuine token ends its own session, even an expired
    /// one, even twice; to end others its session must be live.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        token: PresentedToken,
        scope: Query<Option<ScopeDto>>,
    ) -> Result<Done, Fails<{ UNAUTHORIZED | ANY }>> {
        let scope = match scope.0.unwrap_or_default() {
            ScopeDto::This => LogoutScope::This,
            ScopeDto::Others => LogoutScope::Others,
            ScopeDto::All => LogoutScope::All,
        };
        self.0.sessions().logout(token.0.expose(), scope).await?;
        Ok(Done)
    }

    /// Prove who you are, once more
    ///
    /// Renews `authenticated_at` of this session by the password, for operations that want a recent
    /// proof. No session is opened.
    #[oai(
        path = "/reauthenticate",
        method = "post",
        operation_id = "reauthenticate"
    )]
    async fn reauthenticate(
        &self,
        caller: CurrentUser,
        body: JsonBody<PasswordProof>,
    ) -> Result<Done, Fails<{ BODY | UNAUTHORIZED | FORBIDDEN | ANY }>> {
        self.0
            .sessions()
            .reauthenticate(&caller, &body.0.password.0.into())
            .await?;
        Ok(Done)
    }
}

/// What a body of neither content type is told.
pub(super) fn unsupported_login() -> Problem {
    unsupported(JsonBody::<LoginRequest>::CONTENT_TYPE)
}
