//! Doorward as its users see it: nodes that listen on real sockets, and typed clients.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward::{
    Auth,
    accounts::AccountPolicy,
    admin::AdminPolicy,
    audit::AuditPolicy,
    auth::canary::CanaryPolicy,
    clock::{Clock, ManualClock, Span, Timestamp},
    http::{ApiOptions, HttpSettings},
    model::{
        account::{AttributeRules, NewAccount},
        quota::Limit,
        role::FixedRoles,
        user::Roles,
    },
    outbox::Post,
    passwords::PasswordPolicy,
    secret::SecretString,
    server::listener::Listener,
    sessions::SessionPolicy,
    store::Store,
    throttle::settings::LimitSettings,
    tokens::KeyRing,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    backend::Database,
    canaries::{self, Canaries},
    watched::WatchedStore,
};

/// The HS256 key of all test nodes.
pub const TEST_KEY: &str = "ZG9vcndhcmQtdGVzdC1rZXktb2YtMzItYnl0ZXMuLi4=";
/// What every test user has, unless a test says otherwise.
pub const PASSWORD: &str = "correct horse battery staple";

/// An address that no other user of this test run has.
pub fn fresh_email() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("user{}@example.org", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How the nodes of a test are set up.
#[derive(Clone)]
pub struct Setup {
    pub nodes: usize,
    /// When the clock of the test starts.
    pub start: Timestamp,
    pub sessions: SessionPolicy,
    pub passwords: PasswordPolicy,
    pub rules: AttributeRules,
    pub accounts: AccountPolicy,
    pub roles: FixedRoles,
    pub admin: AdminPolicy,
    /// Records are sealed when a test says so.
    pub audit: AuditPolicy,
    /// Limits that nobody reaches, unless a test is about them.
    pub limits: LimitSettings,
    /// What carries letters; nothing, unless a test is about them.
    pub post: Option<Post>,
    pub keys: Arc<dyn Fn() -> KeyRing + Send + Sync>,
    pub api: ApiOptions,
    /// What the listener obeys; of this only what is the listener's own.
    pub http: HttpSettings,
    /// Which nodes the canary asks; it is released by the test alone.
    pub canary: CanaryPolicy,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 1,
            start: Timestamp::from_millis(1_800_000_000_000),
            sessions: SessionPolicy::default(),
            passwords: PasswordPolicy::light(),
            rules: AttributeRules::default(),
            accounts: AccountPolicy::default(),
            roles: FixedRoles::default(),
            admin: AdminPolicy::default(),
            audit: AuditPolicy {
                seal_every: Span::ZERO,
                ..AuditPolicy::default()
            },
            limits: generous(),
            post: None,
            keys: Arc::new(|| KeyRing::single(&SecretString::from(TEST_KEY)).expect("a valid key")),
            api: ApiOptions::default(),
            http: HttpSettings::default(),
            canary: CanaryPolicy::off(),
        }
    }
}

/// Limits that count and refuse nobody.
fn generous() -> LimitSettings {
    let much = Limit::of(100_000, Span::minutes(10));
    LimitSettings {
        login_account: much,
        login_address: much,
        register_address: much,
        forgot_address: much,
        forgot_target: much,
        resend_address: much,
        resend_target: much,
        code_address: much,
        refresh_session: much,
        password_check: much,
        requests: much,
        requests_free: u32::MAX,
        node_address: much,
        failures_before_delay: 100_000,
        failures_stop: 100_000,
        ..LimitSettings::default()
    }
}

/// One server on a database of its own choosing, as one of several nodes.
pub struct Node {
    pub auth: Auth,
    pub store: Arc<WatchedStore>,
    pub url: String,
    server: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Some nodes on one database, with a clock that only the test moves.
pub struct App {
    pub database: Database,
    pub nodes: Vec<Node>,
    pub clock: Arc<ManualClock>,
    http: reqwest::Client,
}

impl App {
    /// One node with the defaults.
    pub async fn start(database: Database) -> Self {
        Self::with(database, Setup::default()).await
    }

    /// Two nodes with the defaults.
    pub async fn two_nodes(database: Database) -> Self {
        Self::with(
            database,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await
    }

    pub fn with(database: Database, setup: Setup) -> Pin<Box<dyn Future<Output = Self> + Send>> {
        // The settings are large, and would be a part of every test's future, several times.
        Box::pin(async move {
            let clock = Arc::new(ManualClock::at(setup.start));
            let mut nodes = Vec::new();
            for _ in 0..setup.nodes {
                nodes.push(start_node(&database, &setup, Arc::clone(&clock)).await);
            }
            Self {
                database,
                nodes,
                clock,
                http: http_client(),
            }
        })
    }

    /// Another node with other settings on the same database.
    pub async fn add_node(&mut self, setup: &Setup) -> usize {
        self.nodes
            .push(start_node(&self.database, setup, Arc::clone(&self.clock)).await);
        self.nodes.len() - 1
    }

    /// A client without credentials, of the first node.
    pub fn anonymous(&self) -> Client {
        self.anonymous_on(0)
    }

    /// A client without credentials, of any node.
    pub fn anonymous_on(&self, node: usize) -> Client {
        Client {
            http: self.http.clone(),
            url: self.nodes[node].url.clone(),
            token: None,
            refresh: None,
            canaries: self.database.canaries.clone(),
        }
    }

    /// Registers a user with [`PASSWORD`].
    pub async fn register(&self, email: &str) -> Value {
        let body = json!({"email": email, "password": PASSWORD});
        self.anonymous()
            .post("/v1/auth/register", body)
            .await
            .expect(201)
    }

    /// Registers a user and logs in.
    pub async fn user(&self, email: &str) -> Client {
        self.register(email).await;
        self.log_in(email).await
    }

    /// Makes an administrator, as an operator would, and logs in.
    pub async fn admin(&self, email: &str) -> Client {
        self.holder(email, &["admin"]).await
    }

    /// Makes a user with these roles, as an operator would, and logs in.
    pub async fn holder(&self, email: &str, roles: &[&str]) -> Client {
        let account = NewAccount {
            email: email.into(),
            username: None,
            attributes: None,
        };
        let roles = Roles::parse(roles.iter().map(|name| (*name).to_owned()));
        let accounts = self.nodes[0].auth.accounts();
        accounts
            .create(account, &PASSWORD.into(), roles.expect("valid roles"))
            .await
            .expect("the user is made");
        self.log_in(email).await
    }

    /// Logs in with [`PASSWORD`].
    pub async fn log_in(&self, email: &str) -> Client {
        self.anonymous().log_in(email, PASSWORD).await
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

async fn start_node(database: &Database, setup: &Setup, clock: Arc<ManualClock>) -> Node {
    serve(database.open().await, setup, clock).await
}

/// A node on any store.
pub async fn serve(store: Arc<dyn Store>, setup: &Setup, clock: Arc<ManualClock>) -> Node {
    canaries::watch_logs();
    let store = Arc::new(WatchedStore::new(store));
    let builder = Auth::builder(Arc::clone(&store) as _, (setup.keys)())
        .sessions(setup.sessions.clone())
        .passwords(setup.passwords.clone())
        .attribute_rules(setup.rules.clone())
        .accounts(setup.accounts.clone())
        .roles(setup.roles.clone())
        .admin(setup.admin.clone())
        .audit(setup.audit.clone())
        .limits(setup.limits.clone())
        .canary(setup.canary.clone())
        .clock(clock);
    let builder = match &setup.post {
        Some(post) => builder.mail(post.clone()),
        None => builder,
    };
    let auth = builder.build().expect("valid policies");
    let listener = Listener::bind(("", "127.0.0.1:0"), &setup.http, None).await;
    let listener = listener.expect("a free port");
    let address = listener.address();
    let routes = auth.routes(&setup.api);
    let server = tokio::spawn(listener.serve(routes, pending(), Duration::ZERO));
    Node {
        auth,
        store,
        url: format!("http://{address}"),
        server,
    }
}

/// A client that follows no redirects and keeps connections open.
pub fn http_client() -> reqwest::Client {
    // An error means that there is a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
}

/// A user of the HTTP API.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub token: Option<String>,
    /// The refresh token of the last login or refresh.
    pub refresh: Option<String>,
    /// Where the secrets are noted that it sends and gets.
    pub canaries: Canaries,
}

impl Client {
    pub fn anonymous(url: &str) -> Self {
        Self {
            http: http_client(),
            url: url.to_owned(),
            token: None,
            refresh: None,
            canaries: Canaries::default(),
        }
    }

    /// The same user at another node.
    pub fn at(&self, node: &Node) -> Self {
        Self {
            url: node.url.clone(),
            ..self.clone()
        }
    }

    /// The same node with this access token.
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The access token that it carries; without one the test fails.
    #[track_caller]
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("logged in")
    }

    /// Logs in and carries the access token from then on.
    pub async fn log_in(&self, email: &str, password: &str) -> Self {
        let answer = self.try_log_in(email, password).await.expect(200);
        self.with_pair(&answer)
    }

    /// The same user with the tokens of this answer.
    pub fn with_pair(&self, answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().expect(name).to_owned();
        Self {
            token: Some(text("access_token")),
            refresh: Some(text("refresh_token")),
            ..self.clone()
        }
    }

    /// The refresh token that it carries; without one the test fails.
    #[track_caller]
    pub fn refresh_token(&self) -> &str {
        self.refresh.as_deref().expect("logged in")
    }

    /// Refreshes and carries the new tokens from then on.
    pub async fn refreshed(&self) -> Self {
        self.with_pair(&self.try_refresh().await.expect(200))
    }

    /// Sends the refresh token that it carries.
    pub async fn try_refresh(&self) -> Reply {
        let anonymous = Self {
            token: None,
            ..self.clone()
        };
        let body = json!({"refresh_token": self.refresh_token()});
        anonymous.post("/v1/auth/refresh", body).await
    }

    pub async fn try_log_in(&self, email: &str, password: &str) -> Reply {
        self.post(
            "/v1/auth/login",
            json!({"email": email, "password": password}),
        )
        .await
    }

    pub async fn me(&self) -> Reply {
        self.get("/v1/auth/me").await
    }

    /// The id of the session behind the token.
    pub async fn session_id(&self) -> String {
        let sessions = self.get("/v1/auth/sessions").await.expect(200);
        let items = sessions["items"].as_array().expect("items");
        let current = items
            .iter()
            .find(|s| s["current"] == true)
            .expect("the current session");
        current["id"].as_str().expect("an id").to_owned()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    /// POST without a body.
    pub async fn call(&self, path: &str) -> Reply {
        self.send(Method::POST, path, None).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let body = body.unwrap_or_default();
        let reply = Reply::of(request.send().await.expect("an answer")).await;
        canaries::assert_not_echoed(&body, reply.status, &reply.text);
        // What is refused as a password, or only asked about, may be somebody's name and stand where names do.
        let is_used = reply.status < 400 || reply.status == 401;
        if is_used && !path.ends_with("/password/strength") {
            self.canaries.note(&body);
        }
        if reply.status < 400
            && let Ok(answer) = serde_json::from_str(&reply.text)
        {
            self.canaries.note(&answer);
        }
        reply
    }
}

/// An answer, to be looked at.
#[must_use]
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self {
            status,
            headers,
            text: response.text().await.expect("a whole answer"),
        }
    }

    /// The body of an answer with this status; anything else fails the test.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// The status and the problem's code, e.g. `(401, "logged_out")`.
    pub fn problem(&self) -> (u16, String) {
        let code = self.json()["code"].as_str().unwrap_or_default().to_owned();
        (self.status, code)
    }

    /// As [`Self::problem`]; nothing if the answer is none.
    pub fn problem_if_any(&self) -> Option<(u16, String)> {
        (self.header("content-type") == Some("application/problem+json")).then(|| self.problem())
    }

    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.text).expect("JSON")
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }
}

/// Fails unless the answer is this status with this problem code.
#[macro_export]
macro_rules! assert_problem {
    ($reply:expr, $status:expr, $code:expr) => {
        let reply = $reply;
        assert_eq!(
            reply.problem(),
            ($status, $code.to_owned()),
            "{}",
            reply.text
        );
    };
}
