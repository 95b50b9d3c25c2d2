//! `/v1/oauth`: the endpoints that OAuth libraries know, with the bodies of their RFCs.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use poem::{
    IntoResponse, Request, RequestBody, Response,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, Object, OpenApi,
    payload::Json,
    registry::{
        MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSecurityScheme, Registry,
    },
    types::{Example, ToJSON, Type},
};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Tag,
    auth_api::{TokenAnswer, login_name},
    body::FormBody,
    dto::EXAMPLE_ID,
    guard::{Peer, authorization},
    problem::{ANY, Answer, BODY, Fails, Problem, documented_headers},
    surface::Surface,
};
use crate::{
    auth::Auth,
    error::AuthError,
    secret::SecretString,
    sessions::{IntrospectedToken, Introspection, TokenPair},
    throttle::DeviceProof,
    username::Username,
};

pub(super) struct OAuthApi {
    pub(super) auth: Auth,
    pub(super) surface: Arc<Surface>,
}

/// A request for tokens (RFC 6749 §4.3.2, §6).
#[derive(Object, Deserialize)]
#[oai(example, skip_serializing_if_is_none)]
struct TokenForm {
    /// `refresh_token`, or `password` where `http.password_grant` is on.
    grant_type: String,
    /// The refresh token.
    refresh_token: Option<String>,
    /// The e-mail address or the user name.
    username: Option<String>,
    /// The password.
    password: Option<String>,
}

impl Example for TokenForm {
    fn example() -> Self {
        Self {
            grant_type: "refresh_token".to_owned(),
            refresh_token: Some("dwr_AVN2…".to_owned()),
            username: None,
            password: None,
        }
    }
}

/// A token that a client asks about or has revoked (RFC 7662 §2.1, RFC 7009 §2.1).
#[derive(Object, Deserialize)]
#[oai(example, skip_serializing_if_is_none)]
struct AboutToken {
    /// The access or refresh token.
    token: String,
    /// `access_token` or `refresh_token`; a wrong one does no harm.
    token_type_hint: Option<String>,
    /// The client's id, unless it stands in `Authorization: Basic`.
    client_id: Option<String>,
    /// The client's secret, unless it stands in `Authorization: Basic`.
    client_secret: Option<String>,
}

impl Example for AboutToken {
    fn example() -> Self {
        Self {
            token: "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIs…".to_owned(),
            token_type_hint: Some("access_token".to_owned()),
            client_id: None,
            client_secret: None,
        }
    }
}

/// What a token is worth now (RFC 7662 §2.2). Only `active` is there when it is worth nothing.
#[derive(Object, Default)]
#[oai(example, skip_serializing_if_is_none)]
struct IntrospectionAnswer {
    /// Whether the token opens the door at this moment.
    active: bool,
    /// `Bearer` for an access token, `refresh_token` for a refresh token.
    token_type: Option<String>,
    /// The user's id.
    sub: Option<Uuid>,
    /// The session's id.
    sid: Option<Uuid>,
    /// The user name, or the e-mail address where there is none.
    username: Option<String>,
    /// The e-mail address.
    email: Option<String>,
    /// Whether the address was shown to be the user's.
    email_verified: Option<bool>,
    /// What the user may do, as it is now.
    roles: Option<Vec<String>>,
    /// When the token expires, in seconds since 1970.
    exp: Option<i64>,
    /// When the token was issued, in seconds since 1970.
    iat: Option<i64>,
    /// From when the token is honoured, in seconds since 1970.
    nbf: Option<i64>,
    /// When the user last proved who they are, in seconds since 1970.
    auth_time: Option<i64>,
    /// Who issued the token.
    iss: Option<String>,
    /// For whom the token is.
    aud: Option<String>,
    /// The token's own id.
    jti: Option<String>,
}

impl From<Introspection> for IntrospectionAnswer {
    fn from(Introspection { caller, token }: Introspection) -> Self {
        let user = &caller.user;
        let name = user.username.as_ref().map(Username::as_str);
        let about = Self {
            active: true,
            sub: Some(user.id.as_uuid()),
            sid: Some(caller.session_id.as_uuid()),
            username: Some(name.unwrap_or(user.email.as_str()).to_owned()),
            email: Some(user.email.as_str().to_owned()),
            email_verified: Some(user.email_verified_at.is_some()),
            roles: Some(user.roles.to_vec()),
            auth_time: Some(caller.authenticated_at.as_secs()),
            ..Self::default()
        };
        match token {
            IntrospectedToken::Access(claims) => Self {
                token_type: Some("Bearer".to_owned()),
                exp: Some(claims.exp),
                iat: Some(claims.iat),
                nbf: Some(claims.nbf),
                iss: Some(claims.iss),
                aud: Some(claims.aud),
                jti: Some(claims.jti.to_string()),
                ..about
            },
            IntrospectedToken::Refresh => Self {
                token_type: Some("refresh_token".to_owned()),
                exp: Some(caller.expires_at.as_secs()),
                ..about
            },
        }
    }
}

impl Example for IntrospectionAnswer {
    fn example() -> Self {
        Self {
            active: true,
            token_type: Some("Bearer".to_owned()),
            sub: Some(EXAMPLE_ID),
            sid: Some(EXAMPLE_ID),
            username: Some("ann".to_owned()),
            email: Some("ann@example.org".to_owned()),
            email_verified: Some(false),
            roles: Some(vec!["editor".to_owned()]),
            exp: Some(1_795_000_900),
            iat: Some(1_795_000_000),
            nbf: Some(1_795_000_000),
            auth_time: Some(1_795_000_000),
            iss: Some("https://auth.example.org".to_owned()),
            aud: Some("doorward".to_owned()),
            jti: Some(EXAMPLE_ID.to_string()),
        }
    }
}

/// Nothing but that it worked.
#[derive(Object)]
#[oai(rename = "RevocationAnswer", example)]
struct Revoked {}

impl Example for Revoked {
    fn example() -> Self {
        Self {}
    }
}

/// What OAuth libraries need to know of this server (RFC 8414 §2).
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
struct Metadata {
    /// The `iss` of its tokens.
    issuer: String,
    /// Where tokens are refreshed.
    token_endpoint: String,
    /// Its public keys.
    jwks_uri: String,
    /// Always empty: there is no authorization endpoint.
    response_types_supported: Vec<String>,
    /// What the token endpoint takes.
    grant_types_supported: Vec<String>,
    /// Always `none`: refreshing takes no client credentials.
    token_endpoint_auth_methods_supported: Vec<String>,
    /// Where tokens are asked about; only if clients are declared.
    introspection_endpoint: Option<String>,
    /// How clients prove who they are there.
    introspection_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Where tokens are revoked; only if clients are declared.
    revocation_endpoint: Option<String>,
    /// How clients prove who they are there.
    revocation_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// The documents for people, where they are served.
    service_documentation: Option<String>,
}

impl Metadata {
    fn new(issuer: &str, surface: &Surface) -> Self {
        let options = &surface.options;
        let at = |path: &str| format!("{}{path}", options.public_url);
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let grants: &[&str] = if options.password_grant {
            &["refresh_token", "password"]
        } else {
            &["refresh_token"]
        };
        let of_clients = |path| (!options.clients.is_empty()).then(|| at(path));
        let methods = (!options.clients.is_empty())
            .then(|| texts(&["client_secret_basic", "client_secret_post"]));
        Self {
            issuer: issuer.to_owned(),
            token_endpoint: at("/v1/oauth/token"),
            jwks_uri: at("/.well-known/jwks.json"),
            response_types_supported: Vec::new(),
            grant_types_supported: texts(grants),
            token_endpoint_auth_methods_supported: texts(&["none"]),
            introspection_endpoint: of_clients("/v1/oauth/introspect"),
            introspection_endpoint_auth_methods_supported: methods.clone(),
            revocation_endpoint: of_clients("/v1/oauth/revoke"),
            revocation_endpoint_auth_methods_supported: methods,
            service_documentation: options.docs.then(|| at("/docs")),
        }
    }
}

impl Example for Metadata {
    fn example() -> Self {
        let options = super::ApiOptions {
            public_url: "https://auth.example.org".to_owned(),
            ..super::ApiOptions::default()
        };
        Self::new("https://auth.example.org", &Surface::new(&options))
    }
}

/// An error of OAuth (RFC 6749 §5.2).
#[derive(Object, Debug)]
#[oai(rename = "OAuthError", example)]
struct ErrorBody {
    /// The error's name in the RFC.
    error: String,
    /// What is wrong, for people.
    error_description: String,
    /// The stable name of the problem, as everywhere in this API.
    code: String,
}

impl Example for ErrorBody {
    fn example() -> Self {
        Self {
            error: "invalid_grant".to_owned(),
            error_description: "This session was ended by its user.".to_owned(),
            code: "logged_out".to_owned(),
        }
    }
}

/// What an OAuth endpoint answers: what was asked for, or an error of the RFC. `CLIENTS` says whether
/// only confidential clients may ask.
#[derive(Debug)]
enum OAuth<T, const CLIENTS: bool = true> {
    Done(T),
    Refused {
        status: StatusCode,
        error: &'static str,
        code: &'static str,
        description: String,
        /// What the answer says in its headers besides.
        limited: Option<Problem>,
    },
}

impl<T, const CLIENTS: bool> OAuth<T, CLIENTS> {
    fn invalid_request(description: &str) -> Self {
        Self::Refused {
            status: StatusCode::BAD_REQUEST,
            error: "invalid_request",
            code: "invalid_request",
            description: description.to_owned(),
            limited: None,
        }
    }

    fn invalid_client() -> Self {
        let description = "The client's id or secret is wrong or missing; `clients` in the configuration lists who may \
            ask.";
        Self::Refused {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            code: "invalid_client",
            description: description.to_owned(),
            limited: None,
        }
    }

    /// A login or a refresh that was refused; failures of ours stay problems.
    fn invalid_grant(error: AuthError) -> Result<Self, Problem> {
        let problem = Problem::from(error);
        if problem.is_server_error() {
            return Err(problem);
        }
        problem.log();
        // `invalid_grant` would make clients throw away what is good.
        let (status, error) = if problem.is_limited() {
            (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable")
        } else {
            (StatusCode::BAD_REQUEST, "invalid_grant")
        };
        Ok(Self::Refused {
            status,
            error,
            code: problem.code(),
            description: problem.detail().to_owned(),
            limited: Some(problem).filter(Problem::is_limited),
        })
    }
}

impl<T: ToJSON + Send, const CLIENTS: bool> IntoResponse for OAuth<T, CLIENTS> {
    fn into_response(self) -> Response {
        let (status, error, code, description, limited) = match self {
            Self::Done(answer) => return Answer::<200, T>(answer).into_response(),
            Self::Refused {
                status,
                error,
                code,
                description,
                limited,
            } => (status, error, code, description, limited),
        };
        let body = ErrorBody {
            error: error.to_owned(),
            error_description: description,
            code: code.to_owned(),
        };
        let mut response = Answer::<200, ErrorBody>(body).into_response();
        response.set_status(status);
        if let Some(problem) = limited {
            problem.apply_to(&mut response);
        }
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"doorward\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

/// The errors of the RFC, as the documents show them beside the problems of the same status.
fn documented_error(status: u16, description: &'static str) -> MetaResponse {
    let mut content = vec![("application/json", ErrorBody::schema_ref())];
    // Before the endpoint sees a request, it can be refused as at any other.
    if status == 400 {
        content.push(("application/problem+json", Problem::schema_ref()));
    }
    let content = content
        .into_iter()
        .map(|(content_type, schema)| MetaMediaType {
            content_type,
            schema,
        });
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: content.collect(),
        headers: documented_headers(status),
    }
}

impl<T: ToJSON + Send, const CLIENTS: bool> ApiResponse for OAuth<T, CLIENTS> {
    fn meta() -> MetaResponses {
        let mut meta = Answer::<200, T>::meta();
        let others = Fails::<{ BODY | ANY }>::meta().responses;
        let others = others.into_iter().filter(|r| r.status != Some(400));
        meta.responses.push(documented_error(
            400,
            "The request is not well formed, or what it presents is worth nothing.",
        ));
        if CLIENTS {
            let description = "The client's id or secret is wrong or missing.";
            meta.responses.push(documented_error(401, description));
        } else {
            let description = "Asked for too often; `Retry-After` says when to ask again.";
            meta.responses.push(documented_error(429, description));
        }
        meta.responses.extend(others);
        meta
    }

    fn register(registry: &mut Registry) {
        Answer::<200, T>::register(registry);
        <Json<ErrorBody> as poem_openapi::payload::Payload>::register(registry);
        Fails::<{ BODY | ANY }>::register(registry);
    }
}

/// A form whose faults are for the endpoint to answer, in the words of its RFC.
struct OAuthForm<T>(Result<T, Problem>);

impl<'a, T: Type + DeserializeOwned + Send> ApiExtractor<'a> for OAuthForm<T> {
    const TYPES: &'static [ApiExtractorType] = FormBody::<T>::TYPES;

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <FormBody<T> as ApiExtractor>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        FormBody::<T>::request_meta()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let read = <FormBody<T> as ApiExtractor>::from_request(request, body, options).await;
        match read {
            Ok(form) => Ok(Self(Ok(form.0))),
            Err(error) => match error.downcast_ref::<Problem>() {
                Some(problem) if problem.code() == "malformed_form" => {
                    Ok(Self(Err(problem.clone())))
                }
                _ => Err(error),
            },
        }
    }
}

/// A client's id and secret from `Authorization: Basic` (RFC 6749 §2.3.1), not yet compared.
struct BasicClient(Option<(String, SecretString)>);

impl<'a> ApiExtractor<'a> for BasicClient {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = MetaSecurityScheme {
            ty: "http",
            description: Some("Id and secret of a client, made by `doorward key client`."),
            name: None,
            key_in: None,
            scheme: Some("basic"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme("client", scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["client"]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let Some(basic) = authorization(request, "basic")? else {
            return Ok(Self(None));
        };
        // What cannot be read is a client that nobody knows.
        Ok(Self(Some(read_basic(basic).unwrap_or_default())))
    }
}

/// Both parts are form-encoded before they are joined.
fn read_basic(text: &str) -> Option<(String, SecretString)> {
    let bytes = STANDARD.decode(text).ok()?;
    let text = SecretString::new(String::from_utf8(bytes).ok()?);
    let (id, secret) = text.expose().split_once(':')?;
    let decoded = |part: &str| {
        let query = format!("x={part}");
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.next().map(|(_, value)| value.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?.into()))
}

#[OpenApi(tag = "Tag::OAuth")]
impl OAuthApi {
    /// Refresh by OAuth
    ///
    /// Trades a refresh token for the next one with a fresh access token (RFC 6749 §6), or, where
    /// `http.password_grant` is on, logs in by name and password (§4.3).
    #[oai(
        path = "/v1/oauth/token",
        method = "post",
        operation_id = "oauth_token"
    )]
    async fn token(
        &self,
        peer: Peer,
        form: OAuthForm<TokenForm>,
    ) -> poem::Result<OAuth<TokenAnswer, false>> {
        let form = match form.0 {
            Ok(form) => form,
            Err(malformed) => return Ok(OAuth::invalid_request(malformed.detail())),
        };
        let granted = match (form.grant_type.as_str(), &form.refresh_token) {
            ("refresh_token", Some(token)) => self.auth.sessions().refresh(token).await,
            ("refresh_token", None) => {
                return Ok(OAuth::invalid_request("`refresh_token` is missing."));
            }
            ("password", _) if self.surface.options.password_grant => {
                let (Some(name), Some(password)) = (form.username, form.password) else {
                    return Ok(OAuth::invalid_request(
                        "`username` or `password` is missing.",
                    ));
                };
                self.log_in(&name, password.into(), peer).await
            }
            _ => {
                return Ok(OAuth::Refused {
                    status: StatusCode::BAD_REQUEST,
                    error: "unsupported_grant_type",
                    code: "unsupported_grant_type",
                    description: if self.surface.options.password_grant {
                        "`grant_type` is `refresh_token` or `password` here.".to_owned()
                    } else {
                        "`grant_type` is `refresh_token` here.".to_owned()
                    },
                    limited: None,
                });
            }
        };
        match granted {
            Ok(pair) => Ok(OAuth::Done((&pair).into())),
            Err(refused) => Ok(OAuth::invalid_grant(refused)?),
        }
    }

    /// What is a token worth
    ///
    /// For confidential clients: whether an access or refresh token opens the door at this moment, and
    /// whose it is (RFC 7662). An unknown, expired or revoked token is `{"active": false}`.
    #[oai(
        path = "/v1/oauth/introspect",
        method = "post",
        operation_id = "oauth_introspect"
    )]
    async fn introspect(
        &self,
        client: BasicClient,
        form: OAuthForm<AboutToken>,
    ) -> poem::Result<OAuth<IntrospectionAnswer>> {
        let token = match self.token_of_client(client, form.0) {
            Ok(token) => token,
            Err(refused) => return Ok(refused),
        };
        let found = self.auth.sessions().introspect(token.expose()).await;
        let found = found.map_err(Problem::from)?;
        Ok(OAuth::Done(
            found.map(IntrospectionAnswer::from).unwrap_or_default(),
        ))
    }

    /// Revoke a token
    ///
    /// For confidential clients: ends the session of an access or refresh token, and with it every
    /// token of the session (RFC 7009). A token that is unknown has nothing to end, which is no error.
    #[oai(
        path = "/v1/oauth/revoke",
        method = "post",
        operation_id = "oauth_revoke"
    )]
    async fn revoke(
        &self,
        client: BasicClient,
        form: OAuthForm<AboutToken>,
    ) -> poem::Result<OAuth<Revoked>> {
        let token = match self.token_of_client(client, form.0) {
            Ok(token) => token,
            Err(refused) => return Ok(refused),
        };
        let revoked = self.auth.sessions().revoke_by_token(token.expose()).await;
        revoked.map_err(Problem::from)?;
        Ok(OAuth::Done(Revoked {}))
    }

    /// What this server can do
    ///
    /// For OAuth libraries that find their way by it (RFC 8414).
    #[oai(
        path = "/.well-known/oauth-authorization-server",
        method = "get",
        operation_id = "oauth_metadata"
    )]
    async fn metadata(&self) -> Result<Answer<200, Metadata>, Fails<ANY>> {
        Ok(Answer(Metadata::new(self.auth.issuer(), &self.surface)))
    }
}

impl OAuthApi {
    async fn log_in(
        &self,
        name: &str,
        password: SecretString,
        peer: Peer,
    ) -> Result<TokenPair, AuthError> {
        let device = peer.device(None)?;
        let name = login_name(name);
        let sessions = self.auth.sessions();
        let grant = sessions
            .login(&name, &password, device, DeviceProof::Unwanted)
            .await?;
        Ok(grant.carries)
    }

    /// The token that a client asks about, once it has proved who it is, in one way (RFC 6749 §2.3).
    fn token_of_client<T>(
        &self,
        client: BasicClient,
        form: Result<AboutToken, Problem>,
    ) -> Result<SecretString, OAuth<T>> {
        let form = form.map_err(|malformed| OAuth::invalid_request(malformed.detail()))?;
        let in_body = form.client_id.is_some() || form.client_secret.is_some();
        let (id, secret) = match client.0 {
            Some(_) if in_body => {
                return Err(OAuth::invalid_request(
                    "The client's id and secret stand in the header and in the body.",
                ));
            }
            Some(given) => given,
            None => (
                form.client_id.unwrap_or_default(),
                form.client_secret.unwrap_or_default().into(),
            ),
        };
        if !self.surface.options.clients.knows(&id, &secret) {
            return Err(OAuth::invalid_client());
        }
        Ok(form.token.into())
    }
}
