//! What operators and their tools ask: is it alive, is it ready, what is it.

use poem::{
    IntoResponse, Response,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    registry::{MetaResponses, Registry},
    types::Example,
};
use serde_json::Value;

use super::{
    Tag, dev_mailbox,
    problem::{ANY, Answer, Fails, Problem},
};
use crate::{auth::Auth, clock::Span};

/// A node further than this from the database's time judges sessions wrongly.
const LARGEST_SKEW: Span = Span::secs(2);

pub(super) struct SystemApi {
    pub(super) auth: Auth,
    /// Whether the documents are served beside the API.
    pub(super) docs: bool,
    /// Whether letters are shown.
    pub(super) mailbox: bool,
}

/// What this is and where to go on.
#[derive(Object)]
#[oai(example)]
struct Welcome {
    /// Always `doorward`.
    name: String,
    /// The interactive documents, where they are served.
    #[oai(nullable)]
    docs: Option<String>,
    /// The machine-readable document, where it is served.
    #[oai(nullable)]
    openapi: Option<String>,
    /// Whether this node is ready.
    health: String,
    /// The letters, where a server in development shows them.
    #[oai(skip_serializing_if_is_none)]
    mailbox: Option<String>,
}

impl Welcome {
    fn new(docs: bool, mailbox: bool) -> Self {
        Self {
            name: "doorward".to_owned(),
            docs: docs.then(|| "/docs".to_owned()),
            openapi: docs.then(|| "/openapi.json".to_owned()),
            health: "/health".to_owned(),
            mailbox: mailbox.then(|| dev_mailbox::PATH.to_owned()),
        }
    }
}

impl Example for Welcome {
    fn example() -> Self {
        Self::new(true, true)
    }
}

/// How this node is.
#[derive(Object)]
#[oai(example)]
struct Health {
    /// `alive` or `ready`.
    status: String,
}

impl Example for Health {
    fn example() -> Self {
        Self {
            status: "ready".to_owned(),
        }
    }
}

#[OpenApi(tag = "Tag::System")]
impl SystemApi {
    /// What this is
    #[oai(path = "/", method = "get", operation_id = "welcome")]
    async fn welcome(&self) -> Result<Answer<200, Welcome>, Fails<ANY>> {
        Ok(Answer(Welcome::new(self.docs, self.mailbox)))
    }

    /// Is it alive
    ///
    /// Asks nobody: as long as the process answers, it is.
    #[oai(path = "/health", method = "get", operation_id = "health")]
    async fn health(&self) -> Result<Answer<200, Health>, Fails<ANY>> {
        Ok(Answer(Health {
            status: "alive".to_owned(),
        }))
    }

    /// Is it alive
    ///
    /// The same as `/health`, for probes that want it here.
    #[oai(path = "/health/live", method = "get", operation_id = "health_live")]
    async fn live(&self) -> Result<Answer<200, Health>, Fails<ANY>> {
        self.health().await
    }

    /// Is it ready
    ///
    /// Asks the database for its time, and refuses when it cannot answer, when this node's clock is more than
    /// two seconds away from it, or when this node is about to stop.
    #[oai(path = "/health/ready", method = "get", operation_id = "health_ready")]
    async fn ready(&self) -> Result<Answer<200, Health>, Fails<ANY>> {
        if self.auth.is_leaving() {
            let detail = "This node is about to stop; ask another one.";
            return Err(Problem::unavailable("stopping", "Stopping", detail).into());
        }
        let before = self.auth.now();
        let database = self
            .auth
            .database_time()
            .await
            .map_err(crate::error::AuthError::from)?;
        let after = self.auth.now();
        let earliest = before.minus(LARGEST_SKEW);
        let latest = after.plus(LARGEST_SKEW);
        if !(earliest..=latest).contains(&database) {
            let detail = "This node's clock is more than two seconds away from the database's.";
            return Err(Problem::unavailable("clock_skew", "Clocks differ", detail).into());
        }
        Ok(Answer(Health {
            status: "ready".to_owned(),
        }))
    }

    /// Public keys
    ///
    /// The keys that access tokens can be checked with (RFC 7517). Empty while only HS256 keys are in
    /// use. A token that checks is genuine; whether its session lives, only this server can say.
    #[oai(path = "/.well-known/jwks.json", method = "get", operation_id = "jwks")]
    async fn jwks(&self) -> Result<PublicKeys, Fails<ANY>> {
        Ok(PublicKeys(self.auth.jwks().clone()))
    }
}

/// A JWK set; unlike everything else it may be kept for a while.
struct PublicKeys(Value);

impl IntoResponse for PublicKeys {
    fn into_response(self) -> Response {
        let mut response = Answer::<200, Value>(self.0).into_response();
        let a_while = HeaderValue::from_static("public, max-age=300");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, a_while);
        response
    }
}

impl ApiResponse for PublicKeys {
    fn meta() -> MetaResponses {
        Answer::<200, JwkSet>::meta()
    }

    fn register(registry: &mut Registry) {
        Answer::<200, JwkSet>::register(registry);
    }
}

/// A set of public keys (RFC 7517 §5).
#[derive(Object)]
#[oai(example)]
struct JwkSet {
    /// Every key that checks tokens and has a public half.
    keys: Vec<Jwk>,
}

/// A public key (RFC 7517 §4, RFC 7518 §6.2, RFC 8037 §2).
#[derive(Object)]
struct Jwk {
    /// `OKP` or `EC`.
    kty: String,
    /// `Ed25519` or `P-256`.
    crv: String,
    /// `EdDSA` or `ES256`.
    alg: String,
    /// As in the header of the tokens that it signs.
    kid: String,
    /// Always `sig`.
    #[oai(rename = "use")]
    purpose: String,
    /// The key, or its first coordinate.
    x: String,
    /// The second coordinate, for `EC`.
    #[oai(skip_serializing_if_is_none)]
    y: Option<String>,
}

impl Example for JwkSet {
    fn example() -> Self {
        Self {
            keys: vec![Jwk {
                kty: "OKP".to_owned(),
                crv: "Ed25519".to_owned(),
                alg: "EdDSA".to_owned(),
                kid: "3k0r6V3m".to_owned(),
                purpose: "sig".to_owned(),
                x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned(),
                y: None,
            }],
        }
    }
}

pub(super) struct VersionApi;

/// What runs here.
#[derive(Object)]
#[oai(example)]
struct Version {
    /// Always `doorward`.
    name: String,
    /// The version of the program.
    version: String,
}

impl Example for Version {
    fn example() -> Self {
        Self {
            name: "doorward".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[OpenApi(tag = "Tag::System")]
impl VersionApi {
    /// Which version runs
    #[oai(path = "/version", method = "get", operation_id = "version")]
    async fn version(&self) -> Result<Answer<200, Version>, Fails<ANY>> {
        Ok(Answer(Version::example()))
    }
}

/// What a node that is not there answers.
pub(super) fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "Not found",
        "There is nothing at this path.",
    )
}
