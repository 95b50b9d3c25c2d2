//! A notes app with Doorward inside: one process, one database, the app's own routes beside the API.
//!
//! ```sh
//! cargo run --example embed
//! ```
//!
//! Then open <http://localhost:3000/> and log in as ann@example.org with `correct horse battery staple`.
//! Plain poem handlers take a [`CurrentUser`], or a [`HasRole`] where only some may come; operations of
//! poem-openapi take the same in [`Secured`]. Every request is checked against the database, so whoever
//! logs out in one tab is logged out in all of them.

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use doorward::{
    Auth, CurrentUser,
    clock::{Clock, SystemClock},
    entropy::SystemEntropy,
    http::{ApiOptions, HasRole, RoleName, Secured},
    ids::UserId,
    model::{account::NewAccount, user::Roles},
    sessions::SessionPolicy,
    store::{
        open::{Opened, open},
        settings::DatabaseSettings,
    },
    tokens::{KeyAlgorithm, KeyRing, keys::KeyFile},
};
use poem::{
    Endpoint, EndpointExt, Response, Route, Server, get, handler,
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Html, Json},
};
use poem_openapi::{OpenApi, OpenApiService, payload};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everybody's notes; a real app would keep them in a table beside Doorward's.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<UserId, Vec<String>>>>);

impl Notes {
    fn of(&self, user: UserId) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&user).cloned().unwrap_or_default()
    }

    fn add(&self, user: UserId, text: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(user).or_default().push(text);
    }

    fn count(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().map(Vec::len).sum()
    }
}

#[handler]
async fn list(user: CurrentUser, notes: Data<&Notes>) -> Json<Vec<String>> {
    Json(notes.of(user.user.id))
}

#[handler]
async fn add(
    user: CurrentUser,
    notes: Data<&Notes>,
    Json(text): Json<String>,
) -> Json<Vec<String>> {
    notes.add(user.user.id, text);
    Json(notes.of(user.user.id))
}

/// A role is a type: a route that asks for it cannot be reached without it.
struct Editor;

impl RoleName for Editor {
    const NAME: &'static str = "editor";
}

#[handler]
async fn count(_editor: HasRole<Editor>, notes: Data<&Notes>) -> Json<usize> {
    Json(notes.count())
}

/// The same with poem-openapi.
struct NotesApi(Notes);

#[OpenApi]
impl NotesApi {
    /// My notes
    #[oai(path = "/notes", method = "get")]
    async fn list(&self, user: Secured<CurrentUser>) -> payload::Json<Vec<String>> {
        payload::Json(self.0.of(user.user.id))
    }

    /// How many notes there are
    #[oai(path = "/notes/count", method = "get")]
    async fn count(&self, _editor: Secured<HasRole<Editor>>) -> payload::Json<usize> {
        payload::Json(self.0.count())
    }
}

#[handler]
fn home() -> Html<&'static str> {
    Html(include_str!("embed.html"))
}

/// The app: its own routes, and Doorward's beside them.
fn app(auth: &Auth, options: &ApiOptions) -> impl Endpoint<Output = Response> + use<> {
    let notes = Notes::default();
    let api = OpenApiService::new(NotesApi(notes.clone()), "Notes", "1.0");
    let own = Route::new()
        .at("/", get(home))
        .at("/notes", get(list).post(add))
        .at("/notes/count", get(count))
        .nest("/api", api);
    auth.mount(own, options)
        .with(auth.middleware(options))
        .data(notes)
}

/// Where browsers reach the app: the tokens' issuer, and the origin that may use the cookie.
const PUBLIC_URL: &str = "http://localhost:3000";

fn options() -> ApiOptions {
    ApiOptions {
        public_url: PUBLIC_URL.to_owned(),
        ..ApiOptions::default()
    }
}

/// Doorward on an SQLite file in `folder`, with signing keys beside it.
async fn open_auth(folder: PathBuf) -> Result<Auth, Failure> {
    let mut database = DatabaseSettings::default();
    database.sqlite.path = folder.join("notes.db");
    let Opened {
        store, migrations, ..
    } = open(&database).await?;
    migrations.apply().await?;
    // Made anew at each start, which logs everybody out; a real app keeps its keys.
    let mut keys = KeyFile::default();
    let now = SystemClock::new().now();
    keys.add(KeyAlgorithm::Hs256, now, now, &SystemEntropy)?;
    let policy = SessionPolicy {
        max_per_user: 5,
        ..SessionPolicy::default()
    };
    let auth = Auth::builder(store, KeyRing::from_file(&keys)?)
        .issuer(PUBLIC_URL, "notes")
        .sessions(policy)
        .build()?;
    let ann = NewAccount {
        email: "ann@example.org".to_owned(),
        username: None,
        attributes: None,
    };
    let password = "correct horse battery staple".into();
    let roles = Roles::parse(vec![Editor::NAME.to_owned()])?;
    // From the second start on she is there already.
    match auth.accounts().create(ann, &password, roles).await {
        Ok(_) | Err(doorward::error::AuthError::EmailTaken) => Ok(auth),
        Err(error) => Err(error.into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "./data".to_owned());
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let auth = open_auth(folder.into()).await?;
    options().check()?;
    let acceptor = TcpListener::bind(address).into_acceptor().await?;
    for address in acceptor.local_addr() {
        println!("listening on {address}");
    }
    let app = app(&auth, &options());
    Server::new_with_acceptor(acceptor).run(app).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use poem::{Request, RequestBuilder, http::StatusCode};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    /// The app on a database of its own.
    async fn start() -> (TempDir, impl Endpoint<Output = Response>) {
        let folder = tempfile::tempdir().expect("a folder");
        let auth = open_auth(folder.path().to_owned()).await.expect("open");
        (folder, app(&auth, &options()))
    }

    async fn send(app: &impl Endpoint<Output = Response>, request: Request) -> (StatusCode, Value) {
        let response = app.get_response(request).await;
        let status = response.status();
        let body = response.into_body().into_vec().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn get(path: &str, token: &str) -> Request {
        let request = Request::builder().uri_str(path);
        request
            .header("authorization", format!("Bearer {token}"))
            .finish()
    }

    fn post(path: &str) -> RequestBuilder {
        let request = Request::builder().method(poem::http::Method::POST);
        request.uri_str(path).content_type("application/json")
    }

    fn login(transport: &str) -> Request {
        let body = json!({
            "email": "ann@example.org",
            "password": "correct horse battery staple",
            "transport": transport,
        });
        let request = post("/v1/auth/login").header("sec-fetch-site", "same-origin");
        request.body(body.to_string())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_apps_own_routes_know_who_is_calling() {
        let (_folder, app) = start().await;
        let (status, answer) = send(&app, login("bearer")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let token = answer["access_token"].as_str().expect("a token");

        let note = post("/notes").header("authorization", format!("Bearer {token}"));
        let (status, notes) = send(&app, note.body("\"Buy milk\"")).await;
        assert_eq!((status, notes), (StatusCode::OK, json!(["Buy milk"])));
        // Plain poem and poem-openapi alike; ann is an editor.
        for (path, answer) in [
            ("/notes", json!(["Buy milk"])),
            ("/notes/count", json!(1)),
            ("/api/notes", json!(["Buy milk"])),
            ("/api/notes/count", json!(1)),
        ] {
            let found = send(&app, get(path, token)).await;
            assert_eq!(found, (StatusCode::OK, answer), "{path}");
        }

        let logout = post("/v1/auth/logout").header("authorization", format!("Bearer {token}"));
        assert_eq!(send(&app, logout.finish()).await.0, StatusCode::NO_CONTENT);
        for path in ["/notes", "/notes/count", "/api/notes", "/api/notes/count"] {
            let (status, problem) = send(&app, get(path, token)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(problem["code"], "logged_out", "{path}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_role_that_is_missing_is_refused() {
        let (_folder, app) = start().await;
        let bob = json!({"email": "bob@example.org", "password": "correct horse battery staple"});
        let register = post("/v1/auth/register").body(bob.to_string());
        assert_eq!(send(&app, register).await.0, StatusCode::CREATED);
        let login = post("/v1/auth/login").body(bob.to_string());
        let (_, answer) = send(&app, login).await;
        let token = answer["access_token"].as_str().expect("a token");
        assert_eq!(send(&app, get("/notes", token)).await.0, StatusCode::OK);
        for path in ["/notes/count", "/api/notes/count"] {
            let (status, problem) = send(&app, get(path, token)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
            assert_eq!(problem["code"], "role_required", "{path}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cookie_works_for_pages_of_this_site_only() {
        let (_folder, app) = start().await;
        let response = app.get_response(login("cookie")).await;
        let cookie = response.header("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        let note = |site: &str| {
            let request = post("/notes").header("cookie", &cookie);
            request.header("sec-fetch-site", site).body("\"Buy milk\"")
        };
        let (status, problem) = send(&app, note("cross-site")).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(problem["code"], "cross_site");
        let (status, notes) = send(&app, note("same-origin")).await;
        assert_eq!((status, notes), (StatusCode::OK, json!(["Buy milk"])));
        let (status, problem) = send(&app, Request::builder().uri_str("/notes").finish()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(problem["code"], "unauthenticated");
    }
}
