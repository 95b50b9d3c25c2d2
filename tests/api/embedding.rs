//! The API inside an app of somebody else's.

use doorward::{
    CurrentUser,
    clock::Span,
    http::{ApiOptions, Fresh, HasPermission, PermissionName, Secured},
    model::role::{FixedRoles, Permissions, RoleDefinition},
};
use poem::{Endpoint, EndpointExt, Request, Response, Route, get, handler, http::StatusCode};
use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};
use serde_json::{Value, json};

use super::{start, start_with};
use crate::harness::app::{App, PASSWORD, Setup};

#[handler]
async fn whoami(user: CurrentUser) -> String {
    user.user.email.as_str().to_owned()
}

#[handler]
async fn home() -> &'static str {
    "home"
}

struct NotesPurge;

impl PermissionName for NotesPurge {
    const NAME: &'static str = "notes:purge";
}

#[handler]
async fn purge(by: Fresh<HasPermission<NotesPurge>>) -> String {
    by.user.email.as_str().to_owned()
}

struct Notes;

#[OpenApi]
impl Notes {
    #[oai(path = "/notes/count", method = "get")]
    async fn count(&self, _by: Secured<HasPermission<NotesPurge>>) -> PlainText<&'static str> {
        PlainText("1")
    }
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    text: String,
}

impl Answer {
    fn code(&self) -> Value {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["code"].clone()
    }
}

async fn send(app: &impl Endpoint<Output = Response>, request: Request) -> Answer {
    let response = app.get_response(request).await;
    let location = response.header("location").map(str::to_owned);
    Answer {
        status: response.status(),
        location,
        text: response.into_body().into_string().await.expect("text"),
    }
}

fn asking(path: &str, token: Option<&str>) -> Request {
    let mut request = Request::builder().uri_str(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.header("accept", "text/html").finish()
}

/// The routes of an app of its own, with a user's token.
async fn with_user() -> (App, String) {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let token = ann.token().to_owned();
    (app, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_mounted_beside_the_apps_own_routes() {
    let (app, token) = with_user().await;
    let auth = &app.nodes[0].auth;
    for docs in [true, false] {
        let options = ApiOptions {
            docs,
            ..ApiOptions::default()
        };
        let own = Route::new().at("/", get(home)).at("/whoami", get(whoami));
        let whole = auth.mount(own, &options).with(auth.middleware(&options));
        let ask = async |path: &str| send(&whole, asking(path, Some(&token))).await;
        assert_eq!(ask("/").await.text, "home");
        assert_eq!(ask("/whoami").await.text, "ann@example.org");
        for path in [
            "/v1/auth/me",
            "/login",
            "/health/live",
            "/.well-known/jwks.json",
        ] {
            assert_eq!(ask(path).await.status, StatusCode::OK, "{path}");
        }
        for path in ["/docs", "/openapi.json", "/version"] {
            let found = ask(path).await.status == StatusCode::OK;
            assert_eq!(found, docs, "{path}");
        }
        assert_eq!(ask("/v1/nothing").await.code(), "not_found");
        assert_eq!(
            ask("/nothing").await.code(),
            Value::Null,
            "the app's own answer"
        );
        let refused = send(&whole, asking("/whoami", Some("x"))).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNAUTHORIZED, json!("token_invalid"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_nested_below_a_path() {
    let (app, token) = with_user().await;
    let auth = &app.nodes[0].auth;
    let options = ApiOptions {
        public_url: "https://app.example.org/auth".to_owned(),
        ..ApiOptions::default()
    };
    let whole = Route::new()
        .nest("/auth", auth.routes(&options))
        .map_to_response();
    let ask = async |path: &str, token| send(&whole, asking(path, token)).await;
    let me = ask("/auth/v1/auth/me", Some(&token)).await;
    assert_eq!(me.status, StatusCode::OK);
    let page = ask("/auth/login", None).await;
    // Relative, so that it is posted to where the page is.
    assert!(page.text.contains("action=\"login\""), "{}", page.text);
    let sent = ask("/auth/v1/auth/check?redirect=/notes", None).await;
    let login = "https://app.example.org/auth/login?redirect=%2Fnotes";
    assert_eq!(
        (sent.status, sent.location.as_deref()),
        (StatusCode::FOUND, Some(login))
    );
    let document: Value =
        serde_json::from_str(&ask("/auth/openapi.json", None).await.text).expect("JSON");
    let flow = &document["components"]["securitySchemes"]["password"]["flows"]["password"];
    assert_eq!(flow["tokenUrl"], "/auth/v1/auth/login");
    assert!(
        ask("/auth/docs", None)
            .await
            .text
            .contains("\"url\": \"/auth/\"")
    );
    let link = ask("/auth/set-password", None).await;
    assert!(link.text.contains("data-post=\"v1/auth/password/reset\""));
    let body = json!({"email": "ann@example.org", "password": PASSWORD}).to_string();
    let login = Request::builder().method(poem::http::Method::POST);
    let login = login
        .uri_str("/auth/v1/auth/login")
        .content_type("application/json");
    assert_eq!(send(&whole, login.body(body)).await.status, StatusCode::OK);
}

/// ASVS 8.3.1: a handler that was mounted without the middleware refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_outside_of_the_middleware_lets_nobody_in() {
    let (_app, token) = with_user().await;
    let bare = Route::new().at("/whoami", get(whoami)).map_to_response();
    let refused = send(&bare, asking("/whoami", Some(&token))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::INTERNAL_SERVER_ERROR, json!("internal"))
    );
    assert!(!refused.text.contains("middleware"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_a_login_page_of_its_own_keeps_it() {
    let (app, _) = with_user().await;
    let options = ApiOptions {
        login_page: "http://localhost:8080/login".to_owned(),
        ..ApiOptions::default()
    };
    options.check().expect("sound");
    let own = Route::new().at("/login", get(home));
    let whole = app.nodes[0].auth.mount(own, &options).map_to_response();
    assert_eq!(send(&whole, asking("/login", None)).await.text, "home");
}

#[test]
fn options_that_cannot_be_obeyed_are_named() {
    let refused = |options: ApiOptions| options.check().expect_err("refused").key;
    let default = ApiOptions::default;
    let slash = || vec!["https://app.example.org/".to_owned()];
    assert_eq!(
        refused(ApiOptions {
            public_url: "http://localhost/".to_owned(),
            ..default()
        }),
        "public_url"
    );
    assert_eq!(
        refused(ApiOptions {
            allowed_origins: slash(),
            ..default()
        }),
        "http.allowed_origins"
    );
    assert_eq!(
        refused(ApiOptions {
            redirect_origins: slash(),
            ..default()
        }),
        "http.redirect_origins"
    );
    assert_eq!(
        refused(ApiOptions {
            cookie_domain: "x; Path=/".to_owned(),
            ..default()
        }),
        "http.cookie_domain"
    );
    assert_eq!(
        refused(ApiOptions {
            login_page: "/login".to_owned(),
            ..default()
        }),
        "http.login_page"
    );
}

/// ASVS 7.5.3, 8.2.1: permissions of an app's own guard its handlers as Doorward's guard Doorward's.
#[tokio::test(flavor = "multi_thread")]
async fn an_apps_own_permissions_guard_its_own_handlers() {
    let editor = RoleDefinition {
        name: "editor".to_owned(),
        permissions: Permissions::parse(["notes:purge"]).expect("valid"),
    };
    let setup = Setup {
        roles: FixedRoles::with([editor]),
        ..Setup::default()
    };
    let app = start_with(setup).await;
    let (ann, root) = (
        app.holder("ann@example.org", &["editor"]).await,
        app.admin("root@example.org").await,
    );
    let (auth, options) = (&app.nodes[0].auth, ApiOptions::default());
    let service = OpenApiService::new(Notes, "Notes", "1");
    let document: Value = serde_json::from_str(&service.spec()).expect("JSON");
    let security = &document["paths"]["/notes/count"]["get"]["security"];
    assert_eq!(security, &json!([{"bearer": []}, {"password": []}]));
    let own = Route::new()
        .nest("/", service)
        .at("/notes/purge", get(purge));
    let whole = own.with(auth.middleware(&options));
    let ask = async |path: &str, token: &str| send(&whole, asking(path, Some(token))).await;
    assert_eq!(ask("/notes/count", ann.token()).await.text, "1");
    assert_eq!(
        ask("/notes/purge", ann.token()).await.text,
        "ann@example.org"
    );
    for path in ["/notes/count", "/notes/purge"] {
        let refused = ask(path, root.token()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_eq!(refused.code(), "permission_required");
    }
    app.clock.advance(Span::minutes(16));
    let ann = ann.refreshed().await;
    assert_eq!(ask("/notes/count", ann.token()).await.text, "1");
    assert_eq!(
        ask("/notes/purge", ann.token()).await.code(),
        "reauth_required"
    );
}
