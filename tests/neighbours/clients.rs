//! The examples in other languages walk what they promise.

use std::path::Path;

use serde_json::{Value, json};

use super::{Running, command, installed, repository, run, until_listening};
use crate::{
    harness::{
        app::{Client, PASSWORD},
        free_port,
    },
    program::{Place, Serving},
};

const EMAIL: &str = "ann@example.org";

/// A server as the README starts it, with one client and one user.
struct Started {
    place: Place,
    server: Serving,
    secret: String,
}

impl Started {
    async fn new() -> Self {
        let place = Place::new();
        let client: Value = place.run(&["key", "client", "notes", "--json"], &[]).json();
        let text = |name: &str| client[name].as_str().expect(name).to_owned();
        let entry = text("entry");
        let server = place.serve(&[
            ("DOORWARD__CLIENTS", &entry),
            ("DOORWARD__HTTP__TRUSTED_PROXIES", "127.0.0.1/32"),
        ]);
        let started = Self {
            place,
            server,
            secret: text("secret"),
        };
        let account = json!({"email": EMAIL, "password": PASSWORD});
        let registered = started.client().post("/v1/auth/register", account).await;
        registered.expect(201);
        started
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    fn client(&self) -> Client {
        Client::anonymous(&self.url())
    }

    /// What every walk is told.
    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DOORWARD_URL", self.url()),
            ("DOORWARD_EMAIL", EMAIL.to_owned()),
            ("DOORWARD_PASSWORD", PASSWORD.to_owned()),
        ]
    }
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    crate::program::borrowed(variables)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_walks() {
    let started = Started::new().await;
    let walk = command(
        repository("examples/clients/walk.sh"),
        &borrowed(&started.variables()),
    );
    let out = run(walk).await;
    assert!(out.lines().count() >= 4, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_walks_behind_introspection() {
    python_walks("introspection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_walks_behind_the_check() {
    python_walks("check").await;
}

async fn python_walks(ask: &str) {
    let started = Started::new().await;
    let python = installed("DOORWARD_TEST_PYTHON");
    let folder = repository("examples/clients/python");
    let port = free_port();
    let mut variables = started.variables();
    variables.extend([
        ("DOORWARD_CLIENT_ID", "notes".to_owned()),
        ("DOORWARD_CLIENT_SECRET", started.secret.clone()),
        ("DOORWARD_ASK", ask.to_owned()),
        ("APP_URL", format!("http://127.0.0.1:{port}")),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]);
    let variables = borrowed(&variables);
    let mut app = command(&python, &variables);
    let port_text = port.to_string();
    app.args([
        "-m",
        "uvicorn",
        "app:app",
        "--log-level",
        "warning",
        "--port",
        &port_text,
    ]);
    let app = Running::start(app.current_dir(&folder));
    until_listening("the application listens", port).await;
    let mut walk = command(&python, &variables);
    walk.arg("walk.py").current_dir(&folder);
    let out = run(walk).await;
    assert!(out.lines().count() >= 5, "{out}");

    // Revoked in between: refused at the next request. Away: nobody is told to log in again.
    let ann = started.client().log_in(EMAIL, PASSWORD).await;
    let notes = Client {
        url: format!("http://127.0.0.1:{port}"),
        ..ann.clone()
    };
    notes.get("/notes").await.expect(200);
    let refused = notes.get("/admin/notes").await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    ann.call("/v1/auth/logout").await.expect(204);
    let refused = notes.get("/notes").await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert!(refused.header("www-authenticate").is_some());
    let again = Client {
        url: notes.url.clone(),
        ..started.client().log_in(EMAIL, PASSWORD).await
    };
    again.get("/notes").await.expect(200);
    drop(started);
    let away = again.get("/notes").await;
    assert_eq!(away.status, 503, "{}", away.text);
    assert!(away.header("retry-after").is_some());
    drop(app);
}

/// Compiles below a folder of its own; the sources stay as they are.
pub(super) fn tsc(modules: &Path, project: &Path, out: &Path) -> std::process::Command {
    let mut tsc = command(modules.join(".bin/tsc"), &[]);
    let types = modules.join("@types");
    tsc.arg("--project").arg(project).arg("--outDir").arg(out);
    tsc.arg("--typeRoots").arg(types);
    tsc
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_walks() {
    let started = Started::new().await;
    let modules = installed("DOORWARD_TEST_NPM").join("typescript/node_modules");
    let built = started.place.path("typescript");
    let project = repository("examples/clients/typescript");
    run(tsc(&modules, &project, &built)).await;
    let mut walk = command("node", &borrowed(&started.variables()));
    walk.arg(built.join("walk.js"));
    let out = run(walk).await;
    assert!(out.lines().count() >= 4, "{out}");
}
