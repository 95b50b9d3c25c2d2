//! Every error there is, as one table and one body (RFC 9457).
//!
//! [`Problem`] is what a client sees; the table from [`AuthError`] has no catch-all arm, so a new error
//! cannot be forgotten. Rendering needs the request's id and is done once, by the outermost layer.

use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    payload::{Json, Payload},
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::{Example, ToJSON, Type},
};
use serde::Serialize;

use crate::{
    clock::Span,
    error::{AuthError, FieldError},
    model::{quota::LimitName, session::CloseReason},
    store::StoreError,
};

/// Seconds after which a client may ask again when we could not answer.
const RETRY_AFTER: u32 = 1;

/// An error as a client sees it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.code)]
pub struct Problem(Box<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    /// The limit that was reached.
    limit: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the log says; never sent.
    cause: Option<String>,
}

impl Problem {
    /// A problem with a stable code, a short title and a sentence for people.
    #[must_use]
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self(Box::new(Facts {
            status,
            code,
            title,
            detail,
            errors: Vec::new(),
            limit: None,
            headers: Vec::new(),
            cause: None,
        }))
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "Bad request", detail)
    }

    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    pub(super) fn with_detail(mut self, detail: &str) -> Self {
        detail.clone_into(&mut self.0.detail);
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The stable name.
    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The stable name and the sentence of what is wrong first: a field, where one is.
    pub(super) fn first_fault(&self) -> (&'static str, &str) {
        match self.0.errors.first() {
            Some(field) => (field.code, &field.detail),
            None => (self.0.code, &self.0.detail),
        }
    }

    /// Whether somebody is not logged in, or not any more.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.0.status == StatusCode::UNAUTHORIZED
    }

    /// Whether something was asked for too often.
    pub(super) fn is_limited(&self) -> bool {
        self.0.limit.is_some()
    }

    /// Whether the fault is not the client's.
    pub(super) fn is_server_error(&self) -> bool {
        self.0.status.is_server_error()
    }

    /// How the documents refer to the body of a problem.
    pub(super) fn schema_ref() -> MetaSchemaRef {
        ProblemBody::schema_ref()
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The database, or this node, cannot answer now.
    pub(super) fn unavailable(code: &'static str, title: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))
    }

    /// More is being worked on than this node takes; not logged as a failure, or the log would fill up.
    pub(super) fn overloaded() -> Self {
        let detail = "Too much is asked for at once; try again in a moment.";
        Self::unavailable("overloaded", "Overloaded", detail)
    }

    /// The request has had its time.
    pub(super) fn too_late() -> Self {
        let detail =
            "This took too long and was given up; whether it was done in part is not known.";
        Self::unavailable("too_late", "Too late", detail).because("http.request_timeout is over")
    }

    /// Asked for too often (RFC 6585 §4); says which limit and, in whole seconds, when to ask again.
    fn limited(limit: LimitName, after: Span) -> Self {
        let secs = (after.as_millis().max(1) + 999) / 1000;
        let detail = format!("Too often; try again in {}.", Span::secs(secs));
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut problem = Self::new(status, "rate_limited", "Too many requests", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(secs));
        problem.0.limit = Some(limit.as_str());
        problem
    }

    pub(super) fn internal(cause: impl Into<String>) -> Self {
        let detail = "The server failed; the request id helps its operator to find out why.";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            detail,
        )
        .because(cause)
    }

    /// 401 as RFC 6750 §3 wants it: without credentials the challenge names no error.
    fn unauthorized(code: &'static str, title: &'static str, detail: &str) -> Self {
        let challenge = match code {
            "unauthenticated" | "bad_credentials" => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, title, detail).with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    }

    /// The answer, with everything a client may know.
    #[must_use]
    pub fn render(&self, request_id: &str) -> Response {
        let body = ProblemBody {
            r#type: "about:blank".to_owned(),
            title: self.0.title.to_owned(),
            status: self.0.status.as_u16(),
            detail: self.0.detail.clone(),
            code: self.0.code.to_owned(),
            request_id: request_id.to_string(),
            limit: self.0.limit.map(str::to_owned),
            errors: (!self.0.errors.is_empty())
                .then(|| self.0.errors.iter().map(ProblemField::from).collect()),
        };
        let mut response = Json(body).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        self.apply_to(&mut response);
        response
    }

    /// Gives an answer with a body of its own the status and the headers of this problem.
    pub(super) fn apply_to(&self, response: &mut Response) {
        response.set_status(self.0.status);
        for (name, value) in &self.0.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }

    /// Logs the problem once, with its cause where there is one: ours as errors, the client's quietly.
    pub(super) fn log(&self) {
        let (status, code) = (self.0.status.as_u16(), self.0.code);
        match &self.0.cause {
            Some(cause) if self.0.status.is_server_error() => {
                tracing::error!(status, code, cause, "request failed");
            }
            Some(cause) => tracing::info!(status, code, cause, "request refused"),
            None => tracing::debug!(status, code, "request refused"),
        }
    }
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.0.status
    }

    /// For an app that lets it through to poem; every layer of ours renders it with the request's id.
    fn as_response(&self) -> Response {
        self.log();
        self.render("-")
    }
}

impl From<AuthError> for Problem {
    #[expect(clippy::too_many_lines, reason = "one table, one place")]
    fn from(error: AuthError) -> Self {
        use AuthError as E;
        use StatusCode as S;
        let text = error.to_string();
        match error {
            E::BadCredentials => Self::unauthorized(
                "bad_credentials",
                "Login failed",
                "The name or the password is wrong.",
            ),
            E::WrongPassword => Self::new(
                S::FORBIDDEN,
                "wrong_password",
                "Wrong password",
                "The current password is wrong.",
            ),
            E::AccountDeactivated => Self::new(
                S::FORBIDDEN,
                "account_deactivated",
                "Account deactivated",
                "This account is deactivated; ask an administrator to activate it.",
            ),
            E::EmailUnverified => Self::new(
                S::FORBIDDEN,
                "email_unverified",
                "Address not verified",
                "Verify the e-mail address first, by the letter that was sent to it, or by the one for a new password.",
            ),
            E::CodeRefused => Self::bad_request(
                "code_invalid",
                "The code is wrong, used, past its time or was tried too often; use the link of the letter, or ask for a new one.",
            ),
            E::MailOff => Self::new(
                S::CONFLICT,
                "mail_off",
                "No mail",
                "This server sends no mail; its operator can choose a `mail.transport`.",
            ),
            E::LetterSettled(why) => Self::new(
                S::CONFLICT,
                "letter_settled",
                "Nothing to change",
                format!("The letter {why}."),
            ),
            E::SessionLimit { open } => {
                let detail = format!(
                    "{open} sessions are open and no more are allowed; log out elsewhere first."
                );
                Self::new(S::CONFLICT, "session_limit", "Too many sessions", detail)
            }
            E::EmailTaken => Self::new(
                S::CONFLICT,
                "email_taken",
                "Address taken",
                "Another account has this e-mail address.",
            ),
            E::UsernameTaken => Self::new(
                S::CONFLICT,
                "username_taken",
                "User name taken",
                "Another account has this user name.",
            ),
            E::Invalid(errors) => {
                let detail = "Some fields break a rule; `errors` names each of them.";
                Self::new(
                    S::UNPROCESSABLE_ENTITY,
                    "invalid_input",
                    "Invalid input",
                    detail,
                )
                .with_errors(errors)
            }
            E::NoCredentials => Self::unauthorized(
                "unauthenticated",
                "Not logged in",
                "This request needs `Authorization: Bearer` with an access token, or a session cookie.",
            ),
            E::TokenInvalid(_) => {
                let detail = "The token is not one of this server; log in again.";
                Self::unauthorized("token_invalid", "Invalid token", detail).because(text)
            }
            E::TokenExpired => Self::unauthorized(
                "token_expired",
                "Token expired",
                "The access token is past its time; refresh it, or log in again.",
            ),
            E::SessionEnded(reason) => session_ended(reason),
            E::SessionUnknown => Self::unauthorized(
                "session_unknown",
                "Session unknown",
                "The session of this token does not exist any more; log in again.",
            ),
            E::CookieSuperseded => Self::unauthorized(
                "cookie_superseded",
                "Cookie superseded",
                "This session has a newer cookie since its user gave the password again; send the request again with that one.",
            ),
            E::RoleRequired(role) => Self::new(
                S::FORBIDDEN,
                "role_required",
                "Not allowed",
                format!("This needs the role `{role}`."),
            ),
            E::PermissionRequired(permission) => Self::new(
                S::FORBIDDEN,
                "permission_required",
                "Not allowed",
                format!("This needs a role that grants the permission `{permission}`."),
            ),
            E::Outranked => Self::new(
                S::FORBIDDEN,
                "outranked",
                "Not allowed",
                "This user has a permission that you lack; ask somebody who has it, or an administrator.",
            ),
            E::ReauthRequired => Self::new(
                S::FORBIDDEN,
                "reauth_required",
                "Fresh login required",
                "Your last login is too old for this: give your password again with `POST /v1/auth/reauthenticate`, then repeat the request.",
            ),
            E::RoleFixed(by) => Self::new(
                S::CONFLICT,
                "role_fixed",
                "Role fixed",
                format!(
                    "This role is fixed by the {by} and cannot be changed here; choose another name."
                ),
            ),
            E::NotFound(what) => Self::new(
                S::NOT_FOUND,
                "not_found",
                "Not found",
                format!("There is no such {what}."),
            ),
            E::LastAdmin => {
                let detail = "An active user whose role grants `roles:grant` must remain; make another one first.";
                Self::new(S::CONFLICT, "last_admin", "Last administrator", detail)
            }
            E::LinkRefused => Self::bad_request(
                "link_invalid",
                "The link is unknown, used or past its time; ask for a new one.",
            ),
            E::RateLimited { limit, after } => Self::limited(limit, after),
            E::Overloaded(_) => Self::unavailable(
                "overloaded",
                "Overloaded",
                "Too much is waiting; try again in a moment.",
            )
            .because(text),
            E::Store(StoreError::Unavailable(_)) => {
                let detail = "The database cannot answer now; nothing is known about this request. Try again in a moment.";
                Self::unavailable("database_unavailable", "Database unavailable", detail)
                    .because(text)
            }
            E::Store(StoreError::Corrupt { .. } | StoreError::Driver(_)) | E::Internal(_) => {
                Self::internal(text)
            }
        }
    }
}

/// What each dead session answers.
fn session_ended(reason: CloseReason) -> Problem {
    let (code, title, detail) = match reason {
        CloseReason::LoggedOut => (
            "logged_out",
            "Logged out",
            "This session was ended by its user.",
        ),
        CloseReason::Revoked | CloseReason::LimitLowered => (
            "session_revoked",
            "Session revoked",
            "This session was revoked.",
        ),
        CloseReason::Replaced => (
            "session_replaced",
            "Session replaced",
            "A newer login has taken this session's place.",
        ),
        CloseReason::PasswordChanged => (
            "password_changed",
            "Password changed",
            "The password was changed; log in with the new one.",
        ),
        CloseReason::AccountDeactivated => (
            "account_deactivated",
            "Account deactivated",
            "This account is deactivated.",
        ),
        CloseReason::Expired => (
            "session_expired",
            "Session expired",
            "This session has reached its end; log in again.",
        ),
        CloseReason::Idle => (
            "session_idle",
            "Session idle",
            "This session was not used for too long; log in again.",
        ),
        CloseReason::RefreshReused => (
            "refresh_reused",
            "Refresh token reused",
            "A refresh token was used again after its successor was; somebody may have a copy. Log in again.",
        ),
    };
    Problem::unauthorized(code, title, detail)
}

const CONTENT_TYPE: &str = "application/problem+json";

/// An error (RFC 9457). `code` is the stable name to program against.
#[derive(Debug, Object)]
#[oai(rename = "Problem", example)]
struct ProblemBody {
    /// Always `about:blank`; `code` tells problems apart.
    r#type: String,
    /// A short name of the problem.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what to do, for people.
    detail: String,
    /// The stable name of the problem.
    code: String,
    /// Names this request in the server's log.
    request_id: String,
    /// Which limit was reached, with `rate_limited`.
    #[oai(skip_serializing_if_is_none)]
    limit: Option<String>,
    /// Each field that breaks a rule.
    #[oai(skip_serializing_if_is_none)]
    errors: Option<Vec<ProblemField>>,
}

impl Example for ProblemBody {
    fn example() -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: "Logged out".to_owned(),
            status: 401,
            detail: "This session was ended by its user.".to_owned(),
            code: "logged_out".to_owned(),
            request_id: "01a1fd04-daa0-7fc6-825b-c441f21891f1".to_owned(),
            limit: None,
            errors: None,
        }
    }
}

/// A field that breaks a rule.
#[derive(Debug, Object)]
struct ProblemField {
    /// The field's name as the client wrote it.
    field: String,
    /// The stable name of the rule.
    code: String,
    /// The rule, for people; never repeats the value.
    detail: String,
}

impl From<&FieldError> for ProblemField {
    fn from(error: &FieldError) -> Self {
        Self {
            field: error.field.clone(),
            code: error.code.to_owned(),
            detail: error.detail.clone(),
        }
    }
}

/// 401: not logged in, or not any more.
pub(super) const UNAUTHORIZED: u32 = 1 << 1;
/// 403: logged in, but not allowed.
pub(super) const FORBIDDEN: u32 = 1 << 2;
/// 404: no such thing.
pub(super) const NOT_FOUND: u32 = 1 << 3;
/// 409: contradicts what is there.
pub(super) const CONFLICT: u32 = 1 << 4;
/// 415: the body is not of the content type that is asked for.
pub(super) const BODY: u32 = 1 << 5;
/// 422: a field breaks a rule.
pub(super) const INVALID: u32 = 1 << 6;
/// What any operation can answer: 400, 408 and 413, because the edge looks at queries and bodies before
/// anybody else does; 500 and 503, when we failed or the database is away.
pub(super) const ANY: u32 = 1 << 7;
/// 429: asked for too often.
pub(super) const LIMITED: u32 = 1 << 8;
/// What any protected operation can answer.
pub(super) const GUARDED: u32 = UNAUTHORIZED | LIMITED | ANY;
/// What any administrator's operation can answer.
pub(super) const ADMIN: u32 = GUARDED | FORBIDDEN;

/// Which problems an operation can answer, for its documentation; carries the one that it does.
#[derive(Debug)]
pub(super) struct Fails<const SET: u32>(Problem);

impl<const SET: u32, E: Into<Problem>> From<E> for Fails<SET> {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl<const SET: u32> From<Fails<SET>> for poem::Error {
    fn from(Fails(problem): Fails<SET>) -> Self {
        problem.into()
    }
}

impl<const SET: u32> ApiResponse for Fails<SET> {
    fn meta() -> MetaResponses {
        let documented = [
            (ANY, 400, "The request is not well formed."),
            (
                UNAUTHORIZED,
                401,
                "Not logged in, or not any more; `code` says why.",
            ),
            (FORBIDDEN, 403, "Not allowed."),
            (
                NOT_FOUND,
                404,
                "There is no such thing, or it is not the caller's.",
            ),
            (CONFLICT, 409, "Contradicts what is there."),
            (ANY, 408, "The body did not arrive in time."),
            (ANY, 413, "The body is too large."),
            (
                BODY,
                415,
                "The body is not of the content type that is asked for.",
            ),
            (INVALID, 422, "A field breaks a rule; `errors` names each."),
            (
                LIMITED,
                429,
                "Asked for too often; `limit` says what, and `Retry-After` when to ask again.",
            ),
            (ANY, 500, "The server failed."),
            (
                ANY,
                503,
                "The database is away, too much is asked for at once, or it took too long; `Retry-After` says when to ask again.",
            ),
        ];
        let responses = documented.into_iter().filter(|(bit, _, _)| SET & bit != 0);
        MetaResponses {
            responses: responses
                .map(|(_, status, description)| MetaResponse {
                    description,
                    status: Some(status),
                    status_range: None,
                    content: vec![MetaMediaType {
                        content_type: CONTENT_TYPE,
                        schema: ProblemBody::schema_ref(),
                    }],
                    headers: documented_headers(status),
                })
                .collect(),
        }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

pub(super) fn documented_headers(status: u16) -> Vec<MetaHeader> {
    let (name, description) = match status {
        401 => (
            "WWW-Authenticate",
            "The challenge (RFC 9110 §11.6.1, RFC 6750 §3).",
        ),
        429 | 503 => ("Retry-After", "Seconds after which to ask again."),
        _ => return vec![],
    };
    vec![MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema: String::schema_ref(),
    }]
}

/// A JSON answer with its status.
#[derive(Debug)]
pub(super) struct Answer<const STATUS: u16, T>(pub(super) T);

impl<const STATUS: u16, T: ToJSON> IntoResponse for Answer<STATUS, T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.0).into_response();
        response.set_status(StatusCode::from_u16(STATUS).unwrap_or_default());
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        response
    }
}

impl<const STATUS: u16, T: ToJSON> ApiResponse for Answer<STATUS, T> {
    fn meta() -> MetaResponses {
        let description = match STATUS {
            201 => "Made.",
            202 => "Accepted; whether there is anything to do is not told.",
            _ => "Done; the answer is here.",
        };
        let content = vec![MetaMediaType {
            content_type: "application/json",
            schema: T::schema_ref(),
        }];
        let response = MetaResponse {
            description,
            status: Some(STATUS),
            status_range: None,
            content,
            headers: vec![],
        };
        MetaResponses {
            responses: vec![response],
        }
    }

    fn register(registry: &mut Registry) {
        <Json<T> as Payload>::register(registry);
    }
}

/// As [`Answer`], written straight from its fields: for what is asked most.
#[derive(Debug)]
pub(super) struct Written<const STATUS: u16, T>(pub(super) T);

/// Headers of an answer at the most, so that their map is allocated once.
const MOST_HEADERS: usize = 14;

impl<const STATUS: u16, T: Serialize + Send> IntoResponse for Written<STATUS, T> {
    fn into_response(self) -> Response {
        let Ok(body) = serde_json::to_vec(&self.0) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into();
        };
        let mut response = Response::from(StatusCode::from_u16(STATUS).unwrap_or_default());
        let headers = response.headers_mut();
        *headers = HeaderMap::with_capacity(MOST_HEADERS);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        response.set_body(body);
        response
    }
}

impl<const STATUS: u16, T: Serialize + ToJSON> ApiResponse for Written<STATUS, T> {
    fn meta() -> MetaResponses {
        Answer::<STATUS, T>::meta()
    }

    fn register(registry: &mut Registry) {
        Answer::<STATUS, T>::register(registry);
    }
}

/// One of two answers of an operation.
#[derive(Debug)]
pub(super) enum Either<A, B> {
    First(A),
    Second(B),
}

impl<A: IntoResponse, B: IntoResponse> IntoResponse for Either<A, B> {
    fn into_response(self) -> Response {
        match self {
            Self::First(answer) => answer.into_response(),
            Self::Second(answer) => answer.into_response(),
        }
    }
}

impl<A: ApiResponse, B: ApiResponse> ApiResponse for Either<A, B> {
    fn meta() -> MetaResponses {
        let mut responses = A::meta().responses;
        responses.extend(B::meta().responses);
        MetaResponses { responses }
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
        B::register(registry);
    }
}

/// An answer with headers of its own.
#[derive(Debug)]
pub(super) struct With<T>(pub(super) T, pub(super) Vec<(HeaderName, HeaderValue)>);

impl<T: IntoResponse> IntoResponse for With<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        for (name, value) in self.1 {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl<T: ApiResponse> ApiResponse for With<T> {
    fn meta() -> MetaResponses {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 204: done, and there is nothing to say.
#[derive(Debug)]
pub(super) struct Done;

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into()
    }
}

impl ApiResponse for Done {
    fn meta() -> MetaResponses {
        let response = MetaResponse {
            description: "Done.",
            status: Some(204),
            status_range: None,
            content: vec![],
            headers: vec![],
        };
        MetaResponses {
            responses: vec![response],
        }
    }

    fn register(_: &mut Registry) {}
}
