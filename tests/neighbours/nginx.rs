//! nginx in front of an application that knows nothing of logging in, as `examples/forward-auth` sets it
//! up.

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use doorward::{
    clock::{ManualClock, Span},
    http::ApiOptions,
    model::quota::Limit,
    store::{Store, open::open, settings::Backend},
    throttle::settings::LimitSettings,
};
use poem::{
    Request, Server, handler,
    listener::{Acceptor, Listener, TcpListener},
    web::Json,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{Running, command, installed, repository, until_listening};
use crate::harness::{
    app::{Client, Node, PASSWORD, Reply, Setup, serve},
    backend::Database,
    browser::{Browser, form_body, set_cookie},
    free_port,
    servers::PrivateServer,
};

/// What the application sees of a request.
#[handler]
async fn echo(request: &Request, body: String) -> poem::Result<Json<Value>> {
    if request.uri().path() == "/broken" {
        return Err(poem::Error::from_status(
            poem::http::StatusCode::INTERNAL_SERVER_ERROR,
        ));
    }
    let headers: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
        .collect();
    let method = request.method().as_str();
    Ok(Json(
        json!({"method": method, "headers": headers, "body": body}),
    ))
}

/// nginx, Doorward and the application behind it.
struct Site {
    url: String,
    node: Node,
    application: JoinHandle<()>,
    _nginx: Running,
    _folder: TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.application.abort();
    }
}

impl Site {
    async fn start(store: Arc<dyn Store>) -> Self {
        Self::limited(store, Setup::default().limits).await
    }

    async fn limited(store: Arc<dyn Store>, limits: LimitSettings) -> Self {
        let port = free_port();
        let url = format!("http://localhost:{port}");
        let mut setup = Setup {
            api: ApiOptions {
                public_url: url.clone(),
                trusted_proxies: vec!["127.0.0.1/32".parse().expect("a network")],
                ..ApiOptions::default()
            },
            limits,
            ..Setup::default()
        };
        setup.sessions.max_per_user = 5;
        let clock = Arc::new(ManualClock::at(setup.start));
        let node = serve(store, &setup, clock).await;

        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await;
        let acceptor = acceptor.expect("a free port");
        let address = acceptor.local_addr()[0].to_string();
        let address = address.rsplit('/').next().expect("an address").to_owned();
        let application = tokio::spawn(async move {
            let served = Server::new_with_acceptor(acceptor).run(echo).await;
            served.expect("it runs");
        });

        let folder = tempfile::tempdir().expect("a folder");
        let doorward = node.url.trim_start_matches("http://");
        let nginx = start_nginx(&folder, port, doorward, &address).await;
        Self {
            url,
            node,
            application,
            _nginx: nginx,
            _folder: folder,
        }
    }

    async fn on_sqlite() -> (Database, Self) {
        let database = Database::fresh(Backend::Sqlite).await;
        let site = Self::start(database.open().await).await;
        (database, site)
    }

    fn anonymous(&self) -> Client {
        Client::anonymous(&self.url)
    }

    async fn user(&self, email: &str) -> Client {
        let account = json!({"email": email, "password": PASSWORD});
        let registered = self.anonymous().post("/v1/auth/register", account).await;
        registered.expect(201);
        self.anonymous().log_in(email, PASSWORD).await
    }

    /// A request as nobody but nginx should see it.
    async fn send(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = client.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &client.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request.send().await.expect("an answer")).await
    }
}

/// nginx as the example sets it up, with these addresses.
async fn start_nginx(folder: &TempDir, port: u16, doorward: &str, application: &str) -> Running {
    let example = repository("examples/forward-auth/nginx.conf");
    let example = std::fs::read_to_string(example).expect("the example");
    let configuration = example
        .replace("127.0.0.1:8080", doorward)
        .replace("127.0.0.1:3000", application)
        .replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).expect("written");
    let mut nginx = command(installed("DOORWARD_TEST_NGINX"), &[]);
    nginx.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    // One process, so that it ends with the one that was started.
    nginx.args(["-g", "daemon off; master_process off;"]);
    let nginx = Running::start(nginx.stderr(Stdio::null()));
    until_listening("nginx listens", port).await;
    nginx
}

const FORGED: [(&str, &str); 10] = [
    ("x-auth-user", "forged"),
    ("x-auth-session", "forged"),
    ("x-auth-roles", "forged"),
    ("x-auth-email", "forged"),
    ("x_auth_user", "forged"),
    ("x_auth_roles", "forged"),
    ("x-forwarded-method", "GET"),
    ("x-original-method", "GET"),
    ("x-forwarded-for", "203.0.113.7"),
    ("connection", "close, x-auth-roles, x-auth-user"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_application_learns_who_is_there_and_nothing_that_is_forged() {
    let (_database, site) = Site::on_sqlite().await;
    let ann = site.user("ann@example.org").await;
    let id = ann.me().await.expect(200)["id"].clone();
    for headers in [&[][..], &FORGED] {
        let seen = site
            .send(&ann, Method::GET, "/notes?page=2", headers)
            .await
            .expect(200);
        let seen = &seen["headers"];
        assert_eq!(seen["x-auth-user"], id);
        assert_eq!(seen["x-auth-session"], json!(ann.session_id().await));
        // Empty values do not arrive at all.
        for absent in [
            "x-auth-roles",
            "x-auth-email",
            "x_auth_user",
            "x_auth_roles",
            "cookie",
        ] {
            assert_eq!(seen[absent], Value::Null, "{absent}: {seen}");
        }
        assert!(!seen.to_string().contains("forged"), "{seen}");
        assert!(!seen.to_string().contains("203.0.113.7"), "{seen}");
    }
    let posted = ann
        .post("/notes", json!({"text": "Buy milk"}))
        .await
        .expect(200);
    assert_eq!(posted["method"], "POST");
    assert_eq!(posted["body"], "{\"text\":\"Buy milk\"}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_pass_never_reaches_the_application() {
    let (_database, site) = Site::on_sqlite().await;
    for headers in [&[][..], &FORGED] {
        let refused = site
            .send(&site.anonymous(), Method::GET, "/notes", headers)
            .await;
        assert_eq!(refused.problem(), (401, "unauthenticated".to_owned()));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    let ann = site.user("ann@example.org").await;
    let refused = ann.get("/admin/users").await;
    assert_eq!(refused.problem(), (403, "role_required".to_owned()));
    let roles = doorward::model::user::Roles::admin();
    let account = doorward::model::account::NewAccount {
        email: "root@example.org".to_owned(),
        username: None,
        attributes: None,
    };
    let made = site
        .node
        .auth
        .accounts()
        .create(account, &PASSWORD.into(), roles)
        .await;
    made.expect("made");
    let root = site.anonymous().log_in("root@example.org", PASSWORD).await;
    let seen = root.get("/admin/users").await.expect(200);
    assert_eq!(seen["headers"]["x-auth-roles"], "admin");

    // Revoked in between: refused at the very next request.
    ann.get("/notes").await.expect(200);
    let id = ann.me().await.expect(200)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let direct = root.at(&site.node);
    direct
        .call(&format!("/v1/admin/users/{id}/revoke"))
        .await
        .expect(200);
    let refused = ann.get("/notes").await;
    assert_eq!(refused.problem(), (401, "session_revoked".to_owned()));
    let challenge = refused.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
    // Only the proxy asks the question.
    for path in [
        "/v1/auth/check",
        "/v1/auth/check/x",
        "/v1/auth/check/..%2flogin",
        "/v1/auth/check/%2e%2e%2fme",
        "/_check/user",
    ] {
        assert_eq!(root.get(path).await.status, 404, "{path}");
    }
    // What the application answers itself is left as it is.
    let broken = root.get("/broken").await;
    assert_eq!((broken.status, broken.header("retry-after")), (500, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_led_to_the_login_page_and_back() {
    let (_database, site) = Site::on_sqlite().await;
    site.user("ann@example.org").await;
    let html = [("accept", "text/html"), ("sec-fetch-site", "none")];
    let sent = site
        .send(&site.anonymous(), Method::GET, "/notes?q=a%26b\\c", &html)
        .await;
    assert_eq!(sent.status, 302);
    let page = sent.header("location").expect("a page").to_owned();
    assert!(
        page.starts_with(&format!("{}/login?redirect=", site.url)),
        "{page}"
    );
    let browser = Browser::at_url(&site.url);
    let page = browser.get(page.trim_start_matches(&site.url)).await;
    assert_eq!(page.status, 200);
    let back = format!("{}/notes?q=a%26b\\c", site.url);
    assert!(page.text.contains(&back), "{}", page.text);
    let form = [
        ("username", "ann@example.org"),
        ("password", PASSWORD),
        ("redirect", &back),
    ];
    let login = browser.request(Method::POST, "/login");
    let login = login.header("content-type", "application/x-www-form-urlencoded");
    let reply = browser.send(login.body(form_body(&form))).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, Some(back.as_str()))
    );
    let browser = browser.after(&reply);

    // The cookie opens the door and does not go through it.
    let cookie = browser.cookie.clone().expect("a cookie");
    let among = browser.with_cookie(&format!("theme=dark; {cookie}; lang=de"));
    let seen = among.get("/notes").await.expect(200);
    assert_eq!(seen["headers"]["cookie"], "theme=dark; lang=de");
    let seen = browser.get("/notes").await.expect(200);
    assert_eq!(seen["headers"]["cookie"], Value::Null);
    assert!(!seen.to_string().contains(browser.value()), "{seen}");

    browser.post("/notes", json!("Buy milk")).await.expect(200);
    let foreign: [&[(&str, &str)]; 3] = [
        &[
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ],
        &[("origin", "null")],
        &[("x-original-method", "GET"), ("x-forwarded-method", "GET")],
    ];
    for says in foreign {
        let page = browser.saying(says);
        let refused = page.post("/notes", json!("Send money")).await;
        assert_eq!(
            refused.problem(),
            (403, "cross_site".to_owned()),
            "{says:?}"
        );
        page.get("/notes").await.expect(200);
        let logout = page.call("/v1/auth/logout").await;
        assert_eq!(logout.status, 403, "{says:?}");
    }
    let reply = browser.call("/v1/auth/logout").await;
    assert_eq!(reply.status, 204);
    assert!(
        set_cookie(&reply.headers)
            .expect("a cookie")
            .contains("Max-Age=0")
    );
    let refused = browser.get("/notes").await;
    assert_eq!(refused.problem(), (401, "logged_out".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_decision_nobody_passes_and_nobody_is_logged_out() {
    let mut server = PrivateServer::start(Backend::Postgres).await;
    let store = open(&server.settings()).await.expect("open").store;
    let site = Site::start(store).await;
    let ann = site.user("ann@example.org").await;
    let html = [("accept", "text/html")];
    ann.get("/notes").await.expect(200);
    server.kill();
    for headers in [&[][..], &html] {
        let refused = site.send(&ann, Method::GET, "/notes", headers).await;
        assert_eq!(refused.problem(), (503, "database_unavailable".to_owned()));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    server.start_again().await;
    crate::harness::until("it answers", async || ann.get("/notes").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let database = Database::fresh(Backend::Sqlite).await;
    let limits = LimitSettings {
        requests: Limit::of(2, Span::secs(100)),
        requests_free: 1,
        requests_block: 1,
        ..Setup::default().limits
    };
    let site = Site::limited(database.open().await, limits).await;
    let ann = site.user("ann@example.org").await;
    for _ in 0..3 {
        ann.get("/notes").await.expect(200);
    }
    let refused = ann.get("/notes").await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("50"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_doorward_itself_is_away_nobody_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (port, nobody) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let _nginx = start_nginx(&folder, port, &nobody, &nobody).await;
    let anonymous = Client::anonymous(&format!("http://localhost:{port}"));
    for path in ["/notes", "/admin/users", "/login", "/v1/auth/me"] {
        let refused = anonymous.get(path).await;
        assert_eq!(refused.problem(), (503, "unavailable".to_owned()), "{path}");
        assert_eq!(refused.header("retry-after"), Some("1"), "{path}");
    }
}
