//! The documentation, held against the behaviour.

use std::collections::BTreeSet;

use doorward::clock::{Clock, Span, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_sound, start, start_today};
use crate::harness::app::{App, Client, PASSWORD, Reply, fresh_email};

pub(super) fn document() -> Value {
    let text = doorward::http::openapi_document("https://auth.example.org");
    serde_json::from_str(&text).expect("the document is JSON")
}

/// One documented operation.
pub(super) struct Operation {
    method: Method,
    pub(super) path: String,
    about: Value,
}

impl Operation {
    pub(super) fn all(document: &Value) -> Vec<Self> {
        let mut all = Vec::new();
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, about) in operations.as_object().expect("operations") {
                all.push(Self {
                    method: method.to_uppercase().parse().expect("a method"),
                    path: path.clone(),
                    about: about.clone(),
                });
            }
        }
        assert!(all.len() > 20, "{}", all.len());
        all
    }

    pub(super) fn name(&self) -> &str {
        self.about["operationId"].as_str().expect("an operationId")
    }

    pub(super) fn is_protected(&self) -> bool {
        self.about["security"]
            .as_array()
            .is_some_and(|ways| !ways.is_empty())
    }

    /// Whether it answers with the bodies of OAuth's RFCs, to clients instead of users.
    fn is_oauth(&self) -> bool {
        self.path.starts_with("/v1/oauth/")
    }

    fn documents(&self, status: u16) -> bool {
        !self.about["responses"][status.to_string()].is_null()
    }

    fn json_schema<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let content = &self.about["requestBody"]["content"]["application/json"];
        let name = content["schema"]["$ref"].as_str()?;
        let name = name.strip_prefix("#/components/schemas/").expect("a name");
        Some(&document["components"]["schemas"][name])
    }

    pub(super) fn example(&self, document: &Value) -> Option<Value> {
        self.json_schema(document)
            .map(|schema| schema["example"].clone())
    }

    pub(super) async fn call(&self, client: &Client, id: &str, body: Option<Value>) -> Reply {
        let path = self.path.replace("{id}", id).replace("{name}", "clerk");
        client.send(self.method.clone(), &path, body).await
    }
}

#[test]
fn every_operation_is_described_whole() {
    let document = document();
    assert!(
        document["openapi"]
            .as_str()
            .expect("a version")
            .starts_with("3.0")
    );
    assert_eq!(document["servers"][0]["url"], "https://auth.example.org");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| {
            assert!(tag["description"].is_string(), "{tag}");
            tag["name"].as_str().expect("a name")
        })
        .collect();
    let mut names = BTreeSet::new();
    for operation in Operation::all(&document) {
        let name = operation.name();
        assert!(names.insert(name.to_owned()), "{name} stands twice");
        let about = &operation.about;
        assert!(
            about["summary"].as_str().is_some_and(|s| !s.is_empty()),
            "{name}"
        );
        let own = about["tags"].as_array().expect("tags");
        assert!(!own.is_empty(), "{name}");
        for tag in own {
            assert!(tags.contains(tag.as_str().expect("a tag")), "{name}: {tag}");
        }
        let responses = about["responses"].as_object().expect("responses");
        assert!(
            responses.keys().any(|s| s.starts_with('2')),
            "{name}: success"
        );
        for (status, response) in responses {
            let what = format!("{name}: {status}");
            assert!(
                response["description"]
                    .as_str()
                    .is_some_and(|d| !d.is_empty()),
                "{what}"
            );
            let content = response["content"].as_object();
            let kinds: Vec<&str> = content
                .map(|kinds| kinds.keys().map(String::as_str).collect())
                .unwrap_or_default();
            for kind in &kinds {
                let schema = &response["content"][kind]["schema"];
                let name = schema["$ref"].as_str().expect("a named schema");
                let name = name.strip_prefix("#/components/schemas/").expect("local");
                let example = &document["components"]["schemas"][name]["example"];
                assert!(example.is_object(), "{what}: {name} has an example");
            }
            if operation.is_oauth() && ["400", "401", "429"].contains(&status.as_str()) {
                let schema = &response["content"]["application/json"]["schema"];
                assert_eq!(schema["$ref"], "#/components/schemas/OAuthError", "{what}");
                continue;
            }
            match status.as_str() {
                "200" | "302" if name == "check" => assert!(kinds.is_empty(), "{what}"),
                "204" => assert!(kinds.is_empty(), "{what}"),
                "200" if name == "export_audit" => {
                    assert_eq!(kinds, ["application/x-ndjson"], "{what}");
                }
                s if s.starts_with('2') => assert_eq!(kinds, ["application/json"], "{what}"),
                _ => {
                    assert_eq!(kinds, ["application/problem+json"], "{what}");
                    let schema = &response["content"]["application/problem+json"]["schema"];
                    assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{what}");
                }
            }
        }
        for any in [400, 408, 413, 500, 503] {
            assert!(operation.documents(any), "{name}: {any}");
        }
        assert_eq!(
            operation.documents(401) && !["login", "refresh"].contains(&name),
            operation.is_protected(),
            "{name}"
        );
        let has_body = !about["requestBody"].is_null();
        assert_eq!(operation.documents(415), has_body, "{name}");
        for parameter in about["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["schema"].is_null(), "{name}: {parameter}");
        }
    }
}

/// Every reference leads somewhere, and every field says what it is.
///
/// ASVS 2.1.1.
#[test]
fn every_schema_is_there_and_explained() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    if key == "$ref" {
                        found.insert(value.as_str().expect("a reference"));
                    }
                    references(value, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let referred: BTreeSet<&str> = found
        .into_iter()
        .map(|reference| {
            reference
                .strip_prefix("#/components/schemas/")
                .expect("local")
        })
        .collect();
    let defined: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
    assert_eq!(referred, defined);
    for (name, schema) in schemas {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let explained = !property["$ref"].is_null()
                || !property["allOf"].is_null()
                || property["description"].is_string();
            assert!(explained, "{name}.{field}");
        }
    }
}

/// The Authorize button of the documents works only with a whole flow (OpenAPI 3.0.3, OAuth Flow).
#[test]
fn the_ways_to_log_in_are_declared() {
    let document = document();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"]["type"], "http");
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    let flow = &schemes["password"]["flows"]["password"];
    assert_eq!(schemes["password"]["type"], "oauth2");
    assert_eq!(flow["tokenUrl"], "/v1/auth/login");
    assert!(flow["scopes"].is_object(), "{flow}");
    for operation in Operation::all(&document) {
        for way in operation.about["security"].as_array().into_iter().flatten() {
            for name in way.as_object().expect("a requirement").keys() {
                assert!(!schemes[name].is_null(), "{}: {name}", operation.name());
            }
        }
    }
}

/// What the documents call open is open, and what they call protected is not.
///
/// ASVS 7.2.1.
#[tokio::test(flavor = "multi_thread")]
async fn security_is_declared_where_it_is() {
    let app = start().await;
    let document = document();
    let id = super::http_hygiene::SOME_ID;
    for operation in Operation::all(&document) {
        let name = operation.name();
        let example = operation.example(&document);
        let reply = operation.call(&app.anonymous(), id, example).await;
        if operation.is_oauth() {
            let for_clients = name != "oauth_token";
            assert_eq!(operation.is_protected(), for_clients, "{name}");
            let body = "token=x&grant_type=refresh_token&refresh_token=x";
            let request =
                app.anonymous()
                    .http
                    .post(format!("{}{}", app.anonymous().url, operation.path));
            let request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
            let reply = Reply::of(request.send().await.expect("an answer")).await;
            let refused = reply.json()["error"] == "invalid_client";
            assert_eq!(
                (refused, reply.status == 401),
                (for_clients, for_clients),
                "{name}: {}",
                reply.text
            );
            continue;
        }
        let refused = reply.problem_if_any() == Some((401, "unauthenticated".to_owned()));
        assert_eq!(refused, operation.is_protected(), "{name}: {}", reply.text);
        assert!(
            operation.documents(reply.status),
            "{name}: {}",
            reply.status
        );
        let junk = operation
            .call(&app.anonymous().with_token("x"), id, None)
            .await;
        let refused = junk.problem_if_any() == Some((401, "token_invalid".to_owned()));
        assert_eq!(refused, operation.is_protected(), "{name}: {}", junk.text);
    }
}

/// Answers that say that a body has not the documented shape.
const SHAPE: [&str; 6] = [
    "malformed_json",
    "malformed_body",
    "missing_field",
    "unknown_field",
    "wrong_type",
    "wrong_value",
];

/// Whoever copies an example gets an answer about the matter, not about the form.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_can_be_sent() {
    let app = start().await;
    let document = document();
    let registration = json!({"email": "ann@example.org", "password": PASSWORD});
    app.anonymous()
        .post("/v1/auth/register", registration)
        .await
        .expect(201);
    let mut tried = 0;
    for operation in Operation::all(&document) {
        let name = operation.name().to_owned();
        let Some(schema) = operation.json_schema(&document) else {
            continue;
        };
        let example = schema["example"].as_object().expect("an example").clone();
        for required in schema["required"].as_array().into_iter().flatten() {
            let field = required.as_str().expect("a name");
            assert!(example.contains_key(field), "{name}: {field}");
        }
        // Each with somebody of its own: some examples end the session that sends them.
        let caller = app.admin(&fresh_email()).await;
        let whom = caller.me().await.expect(200)["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let reply = operation
            .call(&caller, &whom, Some(Value::Object(example)))
            .await;
        let code = reply
            .problem_if_any()
            .map(|(_, code)| code)
            .unwrap_or_default();
        assert!(!SHAPE.contains(&code.as_str()), "{name}: {}", reply.text);
        assert!(
            ![415, 422, 500, 503].contains(&reply.status),
            "{name}: {}",
            reply.text
        );
        assert!(
            operation.documents(reply.status),
            "{name}: {}",
            reply.status
        );
        tried += 1;
    }
    assert!(tried >= 9, "{tried}");
}

/// Every status that can be provoked stands in the documents.
#[tokio::test(flavor = "multi_thread")]
async fn provoked_statuses_are_documented() {
    let app = start_today().await;
    let document = document();
    let nobody = super::http_hygiene::SOME_ID;
    let mut seen = BTreeSet::new();
    for operation in Operation::all(&document) {
        let name = operation.name().to_owned();
        // However long it takes: a node whose clock is behind the database's is not ready.
        let behind = SystemClock::new().now().as_millis() - app.clock.now().as_millis();
        app.clock.advance(Span::millis(behind));
        let user = app.user(&fresh_email()).await;
        let mut replies = vec![];
        if !name.contains("logout") {
            replies.push(
                operation
                    .call(&user, nobody, operation.example(&document))
                    .await,
            );
        }
        let root = app.admin(&fresh_email()).await;
        for id in [nobody, "x"] {
            replies.push(operation.call(&root, id, Some(json!({}))).await);
            replies.push(operation.call(&root, id, Some(json!({"x": 1}))).await);
        }
        replies.extend(with_odd_bodies(&operation, &app).await);
        for reply in replies {
            assert_sound(&name, &reply);
            assert!(reply.status < 500, "{name}: {}", reply.text);
            assert!(
                operation.documents(reply.status),
                "{name}: {} {}",
                reply.status,
                reply.text
            );
            seen.insert(reply.status);
        }
    }
    for status in [400, 401, 403, 404, 413, 415] {
        assert!(seen.contains(&status), "{status} was never provoked");
    }
}

pub(super) async fn with_odd_bodies(operation: &Operation, app: &App) -> Vec<Reply> {
    let mut replies = Vec::new();
    if operation.about["requestBody"].is_null() {
        return replies;
    }
    let root = app.admin(&fresh_email()).await;
    let id = super::http_hygiene::SOME_ID;
    let url = format!(
        "{}{}",
        root.url,
        operation
            .path
            .replace("{id}", id)
            .replace("{name}", "clerk")
    );
    for (kind, body) in [
        ("text/plain", "x".to_owned()),
        ("application/json", "{".to_owned()),
        ("application/json", "x".repeat(70_000)),
    ] {
        let request = root
            .http
            .request(operation.method.clone(), &url)
            .bearer_auth(root.token())
            .header("content-type", kind)
            .body(body);
        replies.push(Reply::of(request.send().await.expect("an answer")).await);
    }
    replies
}

/// ASVS 14.2.3: reading the documents tells nobody else that they are read.
#[tokio::test(flavor = "multi_thread")]
async fn the_documents_are_served_whole_and_load_nothing_foreign() {
    let app = start().await;
    let served = app.anonymous().get("/openapi.json").await;
    assert_sound("openapi.json", &served);
    assert_eq!(served.header("content-type"), Some("application/json"));
    let (mut served, mut written) = (served.expect(200), document());
    assert_eq!(served["servers"][0]["url"], "http://localhost:8080");
    served["servers"] = json!(null);
    written["servers"] = json!(null);
    assert_eq!(served, written);

    // Scalar's script has the addresses of letters in it, which it is told not to use.
    let scalar = app.anonymous().get("/scalar").await;
    assert!(scalar.text.contains("\"withDefaultFonts\":false"));
    for path in ["/docs", "/redoc", "/scalar"] {
        let page = app.anonymous().get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_sound(path, &page);
        let kind = page.header("content-type").expect("a content type");
        assert_eq!(kind, "text/html; charset=utf-8", "{path}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        for foreign in ["http:", "https:", "//", "*", "ws:", "wss:"] {
            assert!(!policy.contains(foreign), "{path}: {foreign}");
        }
        let (markup, styles) = without_scripts(&page.text);
        assert!(markup.contains("<script"), "{path}: its scripts are in it");
        for loading in ["src=", "href=", "srcset=", "data=", "action="] {
            for (at, _) in markup.match_indices(loading) {
                let value: String = markup[at + loading.len()..].chars().take(40).collect();
                let value = value.trim_start_matches(['"', '\'']);
                let foreign = value.starts_with("http") || value.starts_with("//");
                assert!(!foreign, "{path}: {loading}{value}");
            }
        }
        for foreign in ["url(http", "url(\"http", "url('http", "url(//", "@import"] {
            assert!(!styles.contains(foreign), "{path}: {foreign}");
        }
    }
}

/// The page without what stands between script tags, and what stands between style tags.
fn without_scripts(page: &str) -> (String, String) {
    let (mut markup, mut styles) = (String::new(), String::new());
    let mut rest = page;
    while let Some(start) = rest.find("<script") {
        markup.push_str(&rest[..start]);
        let open = rest[start..].find('>').expect("a whole tag") + start + 1;
        markup.push_str(&rest[start..open]);
        let end = rest[open..].find("</script>").expect("an end tag") + open;
        rest = &rest[end..];
    }
    markup.push_str(rest);
    let mut rest = markup.as_str();
    while let Some(start) = rest.find("<style") {
        let end = rest[start..]
            .find("</style>")
            .map_or(rest.len(), |end| end + start);
        styles.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    (markup, styles)
}
