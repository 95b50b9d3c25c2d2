//! `/v1/auth`: registering, logging in and out.

use std::sync::Arc;

use poem::http::{HeaderName, HeaderValue};
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
    guard::{Caused, DeviceCookie, FromOwnSite, Peer, PresentedToken, Secured},
    problem::{
        ANY, Answer, BODY, CONFLICT, Done, Either, FORBIDDEN, Fails, GUARDED, INVALID, LIMITED,
        Problem, UNAUTHORIZED, With,
    },
    surface::Surface,
    verification_api::Accepted,
};
use crate::{
    auth::Auth,
    email::EmailAddress,
    error::{AuthError, FieldError},
    model::{
        account::NewAccount,
        session::{Session, Transport},
    },
    secret::SecretString,
    sessions::{CurrentUser, LogoutScope, TokenPair},
    store::LoginName,
    throttle::DeviceProof,
    username::Username,
};

pub(super) struct AuthApi {
    pub(super) auth: Auth,
    pub(super) surface: Arc<Surface>,
}

/// A new account.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct RegisterRequest {
    /// The e-mail address; unique without regard to case.
    email: String,
    /// The password: any characters, 15 at the least unless configured otherwise, 256 at the most, and none that
    /// is tried first (`/v1/auth/password/strength` tells).
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
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct LoginRequest {
    /// The e-mail address.
    email: Option<String>,
    /// The user name.
    username: Option<String>,
    /// The password.
    password: Password,
    /// A name to recognise the session by, e.g. `Ann's laptop`.
    device_name: Option<String>,
    /// How the session is carried; `bearer` unless it is given.
    transport: Option<TransportDto>,
    /// What an earlier login of this user answered as `device_token`, so that failed logins from elsewhere
    /// do not count against this one. With `transport: cookie` a cookie holds it instead.
    device_token: Option<Password>,
}

/// How a client carries its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "Transport", rename_all = "snake_case")]
enum TransportDto {
    /// By tokens, which the answer holds.
    Bearer,
    /// By a cookie that scripts cannot read; the answer holds no token.
    Cookie,
}

impl From<TransportDto> for Transport {
    fn from(transport: TransportDto) -> Self {
        match transport {
            TransportDto::Bearer => Self::Bearer,
            TransportDto::Cookie => Self::Cookie,
        }
    }
}

impl Example for LoginRequest {
    fn example() -> Self {
        Self {
            email: Some("ann@example.org".to_owned()),
            username: None,
            password: Password("correct horse battery staple".to_owned()),
            device_name: Some("Ann's laptop".to_owned()),
            transport: Some(TransportDto::Bearer),
            device_token: None,
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
    transport: Transport,
    /// What the client shows in the body.
    device: BodyDevice,
}

/// A device as a body names it.
enum BodyDevice {
    /// This form of body has no place for one.
    Unwanted,
    Given(Option<SecretString>),
}

impl BodyDevice {
    fn proof(&self) -> DeviceProof<'_> {
        match self {
            Self::Unwanted => DeviceProof::Unwanted,
            Self::Given(None) => DeviceProof::Missing,
            Self::Given(Some(token)) => DeviceProof::Shown(token.expose()),
        }
    }
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

/// The name of a form with one field for both.
pub(super) fn login_name(text: &str) -> LoginName {
    if text.contains('@') {
        by_email(text)
    } else {
        by_username(text)
    }
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
            LoginBody::Form(FormBody(form)) => Ok(Self {
                name: login_name(&form.username),
                password: form.password.into(),
                device_name: None,
                transport: Transport::Bearer,
                device: BodyDevice::Unwanted,
            }),
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
                    transport: login.transport.map(Into::into).unwrap_or_default(),
                    device: BodyDevice::Given(login.device_token.map(|token| token.0.into())),
                })
            }
        }
    }
}

/// An open session, and the tokens to use it unless a cookie carries it.
#[derive(Object)]
#[oai(example)]
struct LoginAnswer {
    /// The access token, for `Authorization: Bearer`.
    #[oai(skip_serializing_if_is_none)]
    access_token: Option<String>,
    /// `Bearer`.
    #[oai(skip_serializing_if_is_none)]
    token_type: Option<String>,
    /// Seconds until the access token expires.
    #[oai(skip_serializing_if_is_none)]
    expires_in: Option<i64>,
    /// The refresh token, good for one use.
    #[oai(skip_serializing_if_is_none)]
    refresh_token: Option<String>,
    /// The session that was opened.
    session: SessionDto,
    /// Shows at the next login that it comes from this device; keep it, also after a logout. Only when the
    /// login showed none of this user's.
    #[oai(skip_serializing_if_is_none)]
    device_token: Option<String>,
}

impl LoginAnswer {
    fn new(session: &Session, pair: Option<TokenAnswer>) -> Self {
        let mut answer = Self {
            access_token: None,
            token_type: None,
            expires_in: None,
            refresh_token: None,
            session: SessionDto::new(session, Some(session.id)),
            device_token: None,
        };
        if let Some(pair) = pair {
            answer.access_token = Some(pair.access_token);
            answer.token_type = Some(pair.token_type);
            answer.expires_in = Some(pair.expires_in);
            answer.refresh_token = Some(pair.refresh_token);
        }
        answer
    }
}

impl Example for LoginAnswer {
    fn example() -> Self {
        let pair = TokenAnswer::example();
        Self {
            access_token: Some(pair.access_token),
            token_type: Some(pair.token_type),
            expires_in: Some(pair.expires_in),
            refresh_token: Some(pair.refresh_token),
            session: SessionDto::example(),
            device_token: Some("dwd_7dq2…".to_owned()),
        }
    }
}

/// A refresh token to be traded.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct RefreshRequest {
    /// The refresh token of the login or of the refresh before.
    refresh_token: Password,
}

impl Example for RefreshRequest {
    fn example() -> Self {
        Self {
            refresh_token: Password("dwr_AVN2…".to_owned()),
        }
    }
}

/// An access token and the refresh token that renews it.
#[derive(Object)]
#[oai(example)]
pub(super) struct TokenAnswer {
    /// The access token, for `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// The refresh token, good for one use.
    refresh_token: String,
}

impl From<&TokenPair> for TokenAnswer {
    fn from(pair: &TokenPair) -> Self {
        Self {
            access_token: pair.access.token.expose().clone(),
            token_type: "Bearer".to_owned(),
            expires_in: pair.access.expires_in,
            refresh_token: pair.refresh.expose().to_owned(),
        }
    }
}

impl Example for TokenAnswer {
    fn example() -> Self {
        Self {
            access_token: "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIs…".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 900,
            refresh_token: "dwr_AVN2…".to_owned(),
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
    /// Makes an account. It holds no session yet: log in next. Where mail is sent, a letter for verifying the
    /// address goes out. With `accounts.conceal_existence` the answer is 202 whether the address has an
    /// account or not, and the account exists once the letter is answered (`/register/confirm`).
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        caused: Caused,
        body: JsonBody<RegisterRequest>,
    ) -> Result<
        Either<Answer<201, UserDto>, Answer<202, Accepted>>,
        Fails<{ BODY | CONFLICT | INVALID | LIMITED | ANY }>,
    > {
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
        let (password, cause) = (password.0.into(), caused.0);
        if self.auth.conceals_existence() {
            let verification = self.auth.verification();
            verification
                .request_account(account, &password, &cause)
                .await?;
            return Ok(Either::Second(Answer(Accepted::default())));
        }
        let accounts = self.auth.accounts();
        let user = accounts.register(account, &password, &cause).await?;
        Ok(Either::First(Answer((&user).into())))
    }

    /// Log in
    ///
    /// Opens a session. Under the default policy a user holds one session, and a newer login ends the
    /// older one. An unknown name and a wrong password are answered alike. With `transport: cookie` the
    /// session comes as a cookie; only pages of this site and of `http.allowed_origins` may ask for one.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        from_own_site: FromOwnSite,
        peer: Peer,
        device_cookie: DeviceCookie,
        body: LoginBody,
    ) -> Result<
        With<Answer<200, LoginAnswer>>,
        Fails<{ BODY | UNAUTHORIZED | FORBIDDEN | CONFLICT | INVALID | LIMITED | ANY }>,
    > {
        let login = Login::try_from(body)?;
        if login.transport == Transport::Cookie {
            from_own_site.0?;
        }
        let device = peer.device(login.device_name).map_err(AuthError::from)?;
        let sessions = self.auth.sessions();
        match login.transport {
            Transport::Bearer => {
                let proof = login.device.proof();
                let grant = sessions.login(&login.name, &login.password, device, proof);
                let grant = grant.await?;
                let pair = TokenAnswer::from(&grant.carries);
                let mut answer = LoginAnswer::new(&grant.session, Some(pair));
                let fresh = grant.device.filter(|device| device.is_new);
                answer.device_token = fresh.map(|device| device.secret.expose().to_owned());
                Ok(With(Answer(answer), vec![]))
            }
            Transport::Cookie => {
                let proof = device_cookie.proof()?;
                let grant = sessions
                    .login_for_cookie(&login.name, &login.password, device, proof)
                    .await?;
                let cookies = self.surface.give_cookies(&self.auth, &grant)?;
                let answer = LoginAnswer::new(&grant.session, None);
                Ok(With(Answer(answer), cookies))
            }
        }
    }

    /// Refresh
    ///
    /// Trades a refresh token for the next one with a fresh access token. Each is good for one use. A
    /// client that lost the answer sends the same token again and gets the same successor: within
    /// `sessions.refresh_grace`, and as long as the new access token was not used. A token that is used
    /// again later than that is a copy in somebody's hands, and ends the session.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        body: JsonBody<RefreshRequest>,
    ) -> Result<Answer<200, TokenAnswer>, Fails<{ BODY | UNAUTHORIZED | LIMITED | ANY }>> {
        let token: SecretString = body.0.refresh_token.0.into();
        let pair = self.auth.sessions().refresh(token.expose()).await?;
        Ok(Answer((&pair).into()))
    }

    /// Log out
    ///
    /// Ends this session, the others, or all. Any genuine token ends its own session, even an expired
    /// one, even twice; to end others its session must be live.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        token: Secured<PresentedToken>,
        scope: Query<Option<ScopeDto>>,
    ) -> Result<With<Done>, Fails<{ UNAUTHORIZED | FORBIDDEN | ANY }>> {
        let scope = match scope.0.unwrap_or_default() {
            ScopeDto::This => LogoutScope::This,
            ScopeDto::Others => LogoutScope::Others,
            ScopeDto::All => LogoutScope::All,
        };
        let sessions = self.auth.sessions();
        sessions.logout(token.presented(), scope).await?;
        let ends_here = token.is_cookie() && scope != LogoutScope::Others;
        let headers = if ends_here {
            vec![self.surface.cookie.clear()?, FORGET]
        } else {
            vec![]
        };
        Ok(With(Done, headers))
    }

    /// Prove who you are, once more
    ///
    /// Renews `authenticated_at` of this session by the password, for operations that want a recent
    /// proof. No session is opened; a session in a cookie gets a new cookie.
    #[oai(
        path = "/reauthenticate",
        method = "post",
        operation_id = "reauthenticate"
    )]
    async fn reauthenticate(
        &self,
        caller: Secured<CurrentUser>,
        body: JsonBody<PasswordProof>,
    ) -> Result<With<Done>, Fails<{ BODY | GUARDED | FORBIDDEN }>> {
        let renewed = self
            .auth
            .sessions()
            .reauthenticate(&caller, &body.0.password.0.into())
            .await?;
        let cookie = self.surface.renew_cookie(&self.auth, &caller, renewed)?;
        Ok(With(Done, cookie))
    }
}

/// Browsers drop what pages of this site have stored and what was kept of their answers (ASVS 14.3.1).
/// Not `"cookies"`: that would take those of every host of the domain.
const FORGET: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

/// What a body of neither content type is told.
pub(super) fn unsupported_login() -> Problem {
    unsupported(JsonBody::<LoginRequest>::CONTENT_TYPE)
}
