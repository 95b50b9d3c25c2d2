//! The paths and bodies of auth services that people write by hand, for clients that know no others.
//!
//! Decides only what these look like: each leads to the use case of its counterpart under `/v1/auth`, and
//! errors are the same problems. Tokens go in the body and in `Authorization`, cookies are neither read nor
//! set. Fields that nobody asked for are passed over, as such services do. Switched on by
//! [`ApiOptions::compat`](super::ApiOptions::compat); none of it stands in the API document.

use poem::{
    Endpoint, FromRequest, IntoResponse, Request, RequestBody, Response, Route, RouteMethod, get,
    http::Method,
};
use serde_json::{Map, Value, json};

use super::{
    Context,
    auth_api::login_name,
    body::{is_type, read_object, unsupported},
    dto::UserDto,
    guard::{Caused, authorization},
    mail_pages::{Place, ShowPage, TakeForm},
    problem::{Answer, Problem},
    verification_api::evidence,
};
use crate::{
    auth::Auth,
    error::{AuthError, FieldError},
    letters::Page,
    model::account::{NewAccount, ProfileChange},
    outbox::Cause,
    sessions::{CurrentUser, LogoutScope, Presented, TokenPair},
    throttle::DeviceProof,
    tokens::Evidence,
};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const VERIFY: &str = "/auth/verify-email";

/// What anybody may ask for.
#[derive(Clone, Copy)]
enum Open {
    Register,
    LogIn,
    Refresh,
    Resend,
    Forgot,
    Reset,
}

/// What takes an access token.
#[derive(Clone, Copy)]
enum Own {
    LogOut,
    Update,
    Show,
}

const OPEN: [(&str, Open); 9] = [
    ("/auth/register", Open::Register),
    ("/auth/sign_up", Open::Register),
    ("/auth/login", Open::LogIn),
    ("/auth/refresh", Open::Refresh),
    ("/auth/resend-verification", Open::Resend),
    ("/auth/request-password-reset", Open::Forgot),
    ("/auth/password/forget", Open::Forgot),
    ("/auth/reset-password", Open::Reset),
    ("/auth/password/reset", Open::Reset),
];
const OWN: [(&str, &str, Own); 3] = [
    ("/auth/logout", "POST", Own::LogOut),
    ("/auth/update-user", "PUT", Own::Update),
    ("/protected", "GET", Own::Show),
];

/// Adds the paths below `prefix`.
pub(super) fn mount(route: Route, prefix: &str) -> Route {
    let at = |path: &str| format!("{prefix}{path}");
    let route = OPEN.into_iter().fold(route, |route, (path, open)| {
        route.at(at(path), RouteMethod::new().post(ForAnybody(open)))
    });
    let route = OWN.into_iter().fold(route, |route, (path, method, own)| {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        route.at(at(path), RouteMethod::new().method(method, ForOwner(own)))
    });
    let place = Place {
        page: Page::VerifyEmail,
        depth: at(VERIFY).matches('/').count() - 1,
    };
    route.at(at(VERIFY), get(ShowPage(place)).post(Verify(place)))
}

/// All paths below `prefix`, with what they take.
pub(super) fn paths(prefix: &str) -> impl Iterator<Item = (String, Vec<&'static str>)> {
    let open = OPEN.into_iter().map(|(path, _)| (path, vec!["POST"]));
    let own = OWN
        .into_iter()
        .map(|(path, method, _)| (path, vec![method]));
    let both = [(VERIFY, vec!["GET", "POST"])];
    let all = open.chain(own).chain(both);
    all.map(move |(path, methods)| (format!("{prefix}{path}"), methods))
}

struct ForAnybody(Open);

impl Endpoint for ForAnybody {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (request, mut body) = request.split();
        let auth = &Context::of(&request)?.auth;
        let Caused(cause) = Caused::from_request(&request, &mut body).await?;
        let takes_form = matches!(self.0, Open::LogIn);
        let fields = Fields::read(&request, &mut body, takes_form).await?;
        let answered = match self.0 {
            Open::Register => register(auth, &fields, &cause).await,
            Open::LogIn => log_in(auth, &fields, &cause).await,
            Open::Refresh => refresh(auth, &fields).await,
            Open::Resend => resend(auth, &fields, &cause).await,
            Open::Forgot => forgot(auth, &fields, &cause).await,
            Open::Reset => reset(auth, &fields, &cause).await,
        };
        Ok(answered?)
    }
}

struct ForOwner(Own);

impl Endpoint for ForOwner {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (request, mut body) = request.split();
        let auth = &Context::of(&request)?.auth;
        let token = authorization(&request, "Bearer")?;
        let token = token.ok_or_else(|| Problem::from(AuthError::NoCredentials))?;
        let token = Presented::Access(token);
        if matches!(self.0, Own::LogOut) {
            let ended = auth.sessions().logout(token, LogoutScope::This).await;
            ended.map_err(Problem::from)?;
            return Ok(said::<200>("Logged out."));
        }
        let caller = auth.authenticate(token).await.map_err(Problem::from)?;
        if matches!(self.0, Own::Show) {
            return Ok(user::<200>(&caller.user));
        }
        let fields = Fields::read(&request, &mut body, false).await?;
        Ok(update(auth, &caller, &fields).await?)
    }
}

/// The page's form sends a form and is answered with the page, everybody else sends JSON.
struct Verify(Place);

impl Endpoint for Verify {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (request, mut body) = request.split();
        if has_type(&request, FORM) {
            return TakeForm(self.0).answer(&request, &mut body).await;
        }
        let auth = &Context::of(&request)?.auth;
        let Caused(cause) = Caused::from_request(&request, &mut body).await?;
        let fields = Fields::read(&request, &mut body, false).await?;
        Ok(verify(auth, &fields, &cause).await?)
    }
}

async fn register(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    let account = NewAccount {
        email: fields.needed("email")?.to_owned(),
        username: fields.text("username")?.map(str::to_owned),
        attributes: fields.object("attributes")?.cloned(),
    };
    let password = fields.needed("password")?.into();
    if auth.conceals_existence() {
        let verification = auth.verification();
        let requested = verification.request_account(account, &password, cause);
        requested.await?;
        return Ok(said::<202>(
            "A letter for completing the registration is on its way.",
        ));
    }
    let made = auth.accounts().register(account, &password, cause).await?;
    Ok(user::<201>(&made))
}

async fn log_in(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    if fields.text("grant_type")?.unwrap_or("password") != "password" {
        let detail = "The only `grant_type` here is `password`.";
        return Err(Problem::bad_request("unsupported_grant_type", detail));
    }
    let name = match (fields.text("email")?, fields.text("username")?) {
        (Some(name), None) | (None, Some(name)) => login_name(name),
        _ => {
            let detail = "give either `email` or `username`";
            return Err(AuthError::from(FieldError::new("email", "one_of", detail)).into());
        }
    };
    let password = fields.needed("password")?.into();
    let login = auth.sessions().login(
        &name,
        &password,
        cause.device.clone(),
        DeviceProof::Unwanted,
    );
    Ok(tokens(&login.await?.carries))
}

async fn refresh(auth: &Auth, fields: &Fields) -> Result<Response, Problem> {
    let token = fields.needed("refresh_token")?;
    Ok(tokens(&auth.sessions().refresh(token).await?))
}

async fn verify(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    let evidence = fields.evidence()?;
    let verification = auth.verification();
    // Only where an account is not made before its address is verified, its password has to be shown.
    match fields.text("password")? {
        Some(password) if auth.conceals_existence() => {
            let password = password.into();
            let confirmed = verification.confirm_account(evidence, &password, cause);
            confirmed.await?
        }
        _ => verification.verify(evidence, cause).await?,
    };
    Ok(said::<200>("The e-mail address is verified."))
}

async fn resend(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    let email = fields.needed("email")?;
    auth.verification().resend(email, cause).await?;
    Ok(said::<202>(
        "If there is anything to verify, a letter is on its way.",
    ))
}

async fn forgot(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    let email = fields.needed("email")?;
    auth.recovery().forgot(email, cause).await?;
    Ok(said::<202>(
        "If the address has an account, a letter is on its way.",
    ))
}

async fn reset(auth: &Auth, fields: &Fields, cause: &Cause) -> Result<Response, Problem> {
    let evidence = fields.evidence()?;
    let password = match fields.text("password")? {
        Some(password) => password,
        None => fields.needed("new_password")?,
    };
    let (recovery, password) = (auth.recovery(), password.into());
    recovery.set_password(evidence, &password, cause).await?;
    Ok(said::<200>("The password is set."))
}

async fn update(auth: &Auth, caller: &CurrentUser, fields: &Fields) -> Result<Response, Problem> {
    let username = fields.text("username")?.map(str::to_owned);
    let attributes = fields.object("attributes")?.cloned();
    let change = ProfileChange {
        username: fields.has("username").then_some(username),
        attributes: fields
            .has("attributes")
            .then(|| attributes.unwrap_or_default()),
    };
    let accounts = auth.accounts();
    Ok(user::<200>(
        &accounts
            .update_profile(&caller.user, caller.session_id, change)
            .await?,
    ))
}

/// A body whose fields are asked for one by one.
struct Fields(Map<String, Value>);

impl Fields {
    async fn read(
        request: &Request,
        body: &mut RequestBody,
        takes_form: bool,
    ) -> poem::Result<Self> {
        let is_form = takes_form && has_type(request, FORM);
        if !is_form && !has_type(request, JSON) {
            return Err(unsupported(JSON).into());
        }
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let fields = if is_form {
            read_form(&bytes)
        } else {
            read_object(&bytes)
        };
        Ok(Self(fields?))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text; `None` if it is missing or null.
    fn text(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "wrong_type", "must be a string")),
        }
    }

    fn needed(&self, name: &'static str) -> Result<&str, Problem> {
        let text = self.text(name)?;
        text.ok_or_else(|| wrong(name, "missing_field", "is missing"))
    }

    fn object(&self, name: &'static str) -> Result<Option<&Map<String, Value>>, Problem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(wrong(name, "wrong_type", "must be an object")),
        }
    }

    /// What stands in a letter. Beside a token an address says nothing new.
    fn evidence(&self) -> Result<Evidence<'_>, Problem> {
        let token = self.text("token")?;
        let email = self.text("email")?.filter(|_| token.is_none());
        Ok(evidence(token, email, self.text("code")?)?)
    }
}

/// The form of the OAuth2 password flow.
fn read_form(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        let before = fields.insert(name.into_owned(), Value::String(value.into_owned()));
        if before.is_some() {
            let detail = "A field of the form stands there twice.";
            return Err(Problem::bad_request("malformed_form", detail));
        }
    }
    Ok(fields)
}

fn has_type(request: &Request, expected: &str) -> bool {
    request
        .content_type()
        .is_some_and(|is| is_type(is, expected))
}

fn wrong(name: &'static str, code: &'static str, detail: &str) -> Problem {
    let error = FieldError::new(name, code, detail);
    let detail = "The body does not have the expected shape; `errors` names each field.";
    Problem::bad_request(code, detail).with_errors(vec![error])
}

fn tokens(pair: &TokenPair) -> Response {
    let answer = json!({
        "access_token": pair.access.token.expose(),
        "refresh_token": pair.refresh.expose(),
        "token_type": "bearer",
        "expires_in": pair.access.expires_in,
    });
    Answer::<200, Value>(answer).into_response()
}

fn user<const STATUS: u16>(user: &crate::model::user::User) -> Response {
    Answer::<STATUS, UserDto>(user.into()).into_response()
}

/// Such clients read every answer as JSON, so there is no 204.
fn said<const STATUS: u16>(message: &str) -> Response {
    Answer::<STATUS, Value>(json!({ "message": message })).into_response()
}
