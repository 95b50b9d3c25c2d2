//! Bodies that are too large, of the wrong kind, malformed, ambiguous or hostile.

use doorward::passwords::PasswordPolicy;
use serde_json::{Value, json};

use super::{assert_refused, assert_sound, raw::exchange, start};
use crate::harness::app::{App, Client, PASSWORD, Reply};

/// The most bytes of a body, by default.
const LIMIT: usize = 65_536;

/// Sends text as a body, as it is.
async fn send_text(
    client: &Client,
    path: &str,
    kind: Option<&str>,
    body: impl Into<Vec<u8>>,
) -> Reply {
    let mut request = client
        .http
        .post(format!("{}{path}", client.url))
        .body(body.into());
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    if let Some(token) = &client.token {
        request = request.bearer_auth(token);
    }
    Reply::of(request.send().await.expect("an answer")).await
}

async fn send_json(client: &Client, path: &str, body: impl Into<Vec<u8>>) -> Reply {
    send_text(client, path, Some("application/json"), body).await
}

fn registration_of_length(length: usize) -> String {
    let start = format!("{{\"email\":\"ann@example.org\",\"password\":\"{PASSWORD}\"");
    let padding = " ".repeat(length - start.len() - 1);
    format!("{start}{padding}}}")
}

/// ASVS 1.5.2.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_however_they_come() {
    let app = start().await;
    let anonymous = app.anonymous();
    let register = "/v1/auth/register";
    let largest = registration_of_length(LIMIT);
    send_json(&anonymous, register, largest).await.expect(201);
    let larger = registration_of_length(LIMIT + 1);
    for path in [register, "/v1/auth/login", "/v1/auth/password/reset"] {
        let reply = send_json(&anonymous, path, larger.clone()).await;
        assert_refused(path, &reply, 413, "body_too_large");
    }
    let form = format!("username=ann&password={}", "x".repeat(LIMIT));
    let kind = Some("application/x-www-form-urlencoded");
    let reply = send_text(&anonymous, "/v1/auth/login", kind, form).await;
    assert_refused("form", &reply, 413, "body_too_large");

    // One chunk after the other, with no length told beforehand.
    let head = "POST /v1/auth/register HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let chunked = format!("{head}{}1\r\n{{\r\n0\r\n\r\n", chunk.repeat(16));
    let reply = exchange(&anonymous.url, chunked.as_bytes());
    assert_refused("chunked", &reply, 413, "body_too_large");
    let whole = registration_of_length(LIMIT - 16).replace("ann@", "ben@");
    let chunked = format!("{head}{:x}\r\n{whole}\r\n0\r\n\r\n", whole.len());
    let reply = exchange(&anonymous.url, chunked.as_bytes());
    assert_eq!(reply.status, 201, "{}", reply.text);
}

/// ASVS 4.1.1: only what is declared as JSON is read as JSON.
#[tokio::test(flavor = "multi_thread")]
async fn content_types_are_taken_at_their_word() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let login = json!({"email": "ann@example.org", "password": PASSWORD}).to_string();
    for kind in [
        None,
        Some("text/plain"),
        Some("application/xml"),
        Some("application/json-patch+json"),
        Some("application/jsonx"),
        Some("multipart/form-data; boundary=x"),
        Some("application/x-www-form-urlencoded2"),
        Some("*/*"),
        Some(""),
        Some(";"),
    ] {
        for path in [
            "/v1/auth/register",
            "/v1/auth/login",
            "/v1/auth/reauthenticate",
            "/v1/auth/password/reset",
        ] {
            let reply = send_text(&ann, path, kind, login.clone()).await;
            let what = format!("{kind:?} to {path}");
            assert_refused(&what, &reply, 415, "unsupported_media_type");
        }
    }
    // A form is read at the login only.
    let kind = Some("application/x-www-form-urlencoded");
    let form = format!("password={PASSWORD}");
    let reply = send_text(&ann, "/v1/auth/reauthenticate", kind, form).await;
    assert_refused("form", &reply, 415, "unsupported_media_type");
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;charset=UTF-8",
    ] {
        let reply = send_text(
            &app.anonymous(),
            "/v1/auth/login",
            Some(kind),
            login.clone(),
        )
        .await;
        assert_eq!(reply.status, 200, "{kind}: {}", reply.text);
    }
}

/// ASVS 1.5.2, 1.5.3.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_is_refused_by_every_operation() {
    let app = start().await;
    let ann = app.admin("ann@example.org").await;
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"attributes\":{}{}}}",
            open.repeat(1000),
            close.repeat(1000)
        )
    };
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"{".to_vec(),
        b"{}}".to_vec(),
        b"{} {}".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"[{}]".to_vec(),
        b"\"text\"".to_vec(),
        b"1".to_vec(),
        b"{'email':'a'}".to_vec(),
        b"{email:1}".to_vec(),
        b"{\"email\":NaN}".to_vec(),
        b"{\"email\":1e999}".to_vec(),
        b"{\"email\":\"a\",}".to_vec(),
        b"{\"email\":\"\\ud800\"}".to_vec(),
        b"{\"email\":\"\xff\"}".to_vec(),
        b"{\"email\":\"a\nb\"}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"/**/{}".to_vec(),
        b"{\"email\":\"a\",\"email\":\"a\"}".to_vec(),
        b"{\"email\":\"a\",\"\\u0065mail\":\"a\"}".to_vec(),
        b"{\"attributes\":{\"a\":1,\"a\":2}}".to_vec(),
        b"{\"attributes\":{\"a\":[{\"b\":1,\"b\":1}]}}".to_vec(),
        deep("[", "]").into(),
        deep("{\"a\":", "}").replace(":}", ":1}").into(),
        "[".repeat(LIMIT).into(),
    ];
    for body in &bodies {
        for path in [
            "/v1/auth/register",
            "/v1/auth/login",
            "/v1/auth/reauthenticate",
            "/v1/auth/password/reset",
            "/v1/auth/me/password",
            "/v1/auth/me/deactivate",
            "/v1/admin/users",
        ] {
            let reply = send_json(&ann, path, body.clone()).await;
            let shown: String = String::from_utf8_lossy(body).chars().take(40).collect();
            assert_refused(&format!("{path}: {shown}"), &reply, 400, "malformed_json");
        }
    }
}

/// ASVS 1.5.2, 15.3.5: a field that is not of its type is refused, and what was in it is not said.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_a_wrong_type_is_not_repeated() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let wrong = [
        json!(918_273_645_546_372_i64),
        json!(918_273_645.25),
        json!(["s3cret-in-a-list"]),
        json!({"s3cret-key": "s3cret-value"}),
        json!({"$ne": null}),
        json!({"$gt": ""}),
        json!(true),
        json!(null),
    ];
    for value in wrong {
        for (path, field, mut body) in [
            (
                "/v1/auth/register",
                "password",
                json!({"email": "a@example.org"}),
            ),
            (
                "/v1/auth/login",
                "password",
                json!({"email": "ann@example.org"}),
            ),
            ("/v1/auth/login", "email", json!({"password": PASSWORD})),
            ("/v1/auth/login", "username", json!({"password": PASSWORD})),
            ("/v1/auth/reauthenticate", "password", json!({})),
            ("/v1/auth/me/deactivate", "password", json!({})),
            (
                "/v1/auth/me/password",
                "new_password",
                json!({"current_password": PASSWORD}),
            ),
            (
                "/v1/auth/me/password",
                "current_password",
                json!({"new_password": PASSWORD}),
            ),
            (
                "/v1/auth/password/reset",
                "token",
                json!({"password": PASSWORD}),
            ),
            (
                "/v1/auth/password/reset",
                "password",
                json!({"token": "dwl_x"}),
            ),
        ] {
            body[field] = value.clone();
            let what = format!("{path} with {field} = {value}");
            let reply = ann.post(path, body).await;
            if value.is_null() && ["email", "username", "token"].contains(&field) {
                // An optional field that is null is one that is not given.
                assert_refused(&what, &reply, 422, "invalid_input");
                continue;
            }
            assert_refused(&what, &reply, 400, "wrong_type");
            assert_eq!(reply.json()["errors"][0]["field"], field, "{what}");
            for secret in ["918273645", "s3cret", "$ne", "$gt"] {
                assert!(!reply.text.contains(secret), "{what}: {}", reply.text);
            }
        }
    }
    ann.me().await.expect(200);
}

/// ASVS 15.3.3: exactly the documented fields.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_unknown_or_missing_are_named() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    for (path, required) in [
        ("/v1/auth/register", vec!["email", "password"]),
        ("/v1/auth/login", vec!["password"]),
        ("/v1/auth/reauthenticate", vec!["password"]),
        (
            "/v1/auth/me/password",
            vec!["current_password", "new_password"],
        ),
        ("/v1/auth/me/deactivate", vec!["password"]),
        ("/v1/auth/password/reset", vec!["password"]),
        ("/v1/admin/users", vec!["email"]),
    ] {
        let reply = root.post(path, json!({})).await;
        assert_refused(path, &reply, 400, "missing_field");
        let body = reply.json();
        let mut named: Vec<&str> = body["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| error["field"].as_str().expect("a field"))
            .collect();
        named.sort_unstable();
        assert_eq!(named, required, "{path}");

        for extra in ["id", "role", "is_admin", "Password", "__proto__", "$where"] {
            let mut body = json!({});
            for field in &required {
                body[field] = json!("text");
            }
            body[extra] = json!("x");
            let reply = root.post(path, body).await;
            assert_refused(&format!("{path}: {extra}"), &reply, 400, "unknown_field");
            assert_eq!(reply.json()["errors"][0]["field"], extra);
        }
    }
    let reply = app
        .anonymous()
        .post(
            "/v1/auth/register",
            json!({"email": "eve@example.org", "password": PASSWORD, "roles": ["admin"]}),
        )
        .await;
    assert_refused("roles", &reply, 400, "unknown_field");
}

const INJECTIONS: [&str; 10] = [
    "' OR 1=1--",
    "' OR '1'='1",
    "\"; DROP TABLE users; --",
    "{\"$ne\":null}",
    "{\"$gt\":\"\"}",
    "$where: 1",
    "%",
    "_%@%",
    "a\u{0}b",
    "ann@example.org' --",
];

/// ASVS 1.2.4: texts are texts, in whichever database.
#[tokio::test(flavor = "multi_thread")]
async fn injected_texts_are_only_texts() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let root = app.admin("root@example.org").await;
    let anonymous = app.anonymous();
    for text in INJECTIONS {
        for (what, body) in [
            ("e-mail", json!({"email": text, "password": PASSWORD})),
            ("user name", json!({"username": text, "password": PASSWORD})),
            (
                "password",
                json!({"email": "ann@example.org", "password": text}),
            ),
        ] {
            let reply = anonymous.post("/v1/auth/login", body).await;
            let what = format!("login, {what} {text}");
            assert_refused(&what, &reply, 401, "bad_credentials");
        }
        for (what, body) in [
            ("e-mail", json!({"email": text, "password": PASSWORD})),
            (
                "user name",
                json!({"email": "eve@example.org", "username": text, "password": PASSWORD}),
            ),
            (
                "password",
                json!({"email": "eve@example.org", "password": text}),
            ),
        ] {
            // What is long enough is a fine password, whatever it spells.
            if what == "password" && text.chars().count() >= PasswordPolicy::light().min_length {
                continue;
            }
            let reply = anonymous.post("/v1/auth/register", body).await;
            let what = format!("register, {what} {text}");
            assert_refused(&what, &reply, 422, "invalid_input");
        }
        let reset = json!({"token": text, "password": PASSWORD});
        let reply = anonymous.post("/v1/auth/password/reset", reset).await;
        assert_refused(text, &reply, 400, "link_invalid");
        for parameter in ["q", "role"] {
            let url = format!("{}/v1/admin/users", root.url);
            let url = reqwest::Url::parse_with_params(&url, [(parameter, text)]).expect("a URL");
            let request = root.http.get(url).bearer_auth(root.token());
            let found = Reply::of(request.send().await.expect("an answer")).await;
            let what = format!("{parameter}={text}");
            // No role has such a name, and no database could hold NUL.
            if parameter == "role" || text.contains('\0') {
                assert_refused(&what, &found, 422, "invalid_input");
                continue;
            }
            assert_eq!(found.status, 200, "{what}: {}", found.text);
            assert_eq!(found.json()["items"], json!([]), "{what}");
        }
    }
    ann.me().await.expect(200);
}

/// ASVS 1.2.4: objects never reach a query.
#[tokio::test(flavor = "multi_thread")]
async fn injected_objects_are_refused() {
    let app = start().await;
    app.register("ann@example.org").await;
    let root = app.admin("root@example.org").await;
    for object in [
        json!({"$ne": null}),
        json!({"$gt": ""}),
        json!(["ann@example.org"]),
    ] {
        for (path, body) in [
            (
                "/v1/auth/login",
                json!({"email": object, "password": PASSWORD}),
            ),
            (
                "/v1/auth/login",
                json!({"username": object, "password": PASSWORD}),
            ),
            (
                "/v1/auth/login",
                json!({"email": "ann@example.org", "password": object}),
            ),
            (
                "/v1/auth/login",
                json!({"email": "ann@example.org", "password": PASSWORD, "device_name": object}),
            ),
            (
                "/v1/auth/register",
                json!({"email": object, "password": PASSWORD}),
            ),
            (
                "/v1/auth/register",
                json!({"email": "eve@example.org", "password": PASSWORD, "username": object}),
            ),
            ("/v1/admin/users", json!({"email": object})),
            (
                "/v1/admin/users",
                json!({"email": "eve@example.org", "roles": object.as_object()}),
            ),
        ] {
            if body["roles"].is_null() && path == "/v1/admin/users" && body["email"].is_string() {
                continue;
            }
            let reply = root.post(path, body.clone()).await;
            assert_refused(&format!("{path} {body}"), &reply, 400, "wrong_type");
        }
    }
}

/// ASVS 1.2.1, 1.2.3: a line end in a field stays in the field.
#[tokio::test(flavor = "multi_thread")]
async fn line_ends_add_no_header() {
    const EVIL: &str = "x\r\nX-Evil: 1\r\n\r\n<p>";
    let app = start().await;
    let root = app.admin("root@example.org").await;
    let login = |name: &str, value: &str| {
        let mut body = json!({"email": "root@example.org", "password": PASSWORD});
        body[name] = json!(value);
        body
    };
    let cases: Vec<(&str, Value, u16)> = vec![
        ("/v1/auth/login", login("email", EVIL), 401),
        ("/v1/auth/login", login("password", EVIL), 401),
        ("/v1/auth/login", login("device_name", EVIL), 422),
        ("/v1/auth/login", login(EVIL, "x"), 400),
        ("/v1/auth/register", login("email", EVIL), 422),
        ("/v1/auth/register", login("username", EVIL), 422),
        (
            "/v1/auth/password/reset",
            json!({"token": EVIL, "password": PASSWORD}),
            400,
        ),
        (
            "/v1/admin/users",
            json!({"email": "eve@example.org", "roles": [EVIL]}),
            422,
        ),
    ];
    for (path, body, status) in cases {
        let what = format!("{path} {body}");
        let reply = root.post(path, body).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
        assert_refused(&what, &reply, status, &reply.problem().1);
    }
    // As data of an application it is kept as it is.
    let change = json!({"attributes": {"note": EVIL}});
    let reply = root.patch("/v1/auth/me", change).await;
    assert_sound("attributes", &reply);
    assert_eq!(reply.expect(200)["attributes"]["note"], EVIL);
}

async fn form(app: &App, body: &str) -> Reply {
    let kind = Some("application/x-www-form-urlencoded");
    send_text(&app.anonymous(), "/v1/auth/login", kind, body).await
}

/// ASVS 15.3.7: each field of the form once.
#[tokio::test(flavor = "multi_thread")]
async fn forms_are_as_strict_as_json() {
    let app = start().await;
    app.register("ann@example.org").await;
    for body in [
        "",
        "username=ann%40example.org",
        "password=x",
        "username=ann&username=ben&password=x",
        "username=ann&password=s3cret1&password=s3cret2",
        "username[]=ann&password=s3cret",
        "{\"username\":\"ann\",\"password\":\"s3cret\"}",
        "=&=&=",
    ] {
        let reply = form(&app, body).await;
        assert_refused(body, &reply, 400, "malformed_form");
        assert!(!reply.text.contains("s3cret"), "{}", reply.text);
    }
    for body in [
        "username=ann%40example.org&password[$ne]=x&password=wrong",
        "username=ann%40example.org'--&password=x",
        "username=%00&password=%00",
        "username=%ff%fe&password=%ff%fe",
    ] {
        assert_refused(body, &form(&app, body).await, 401, "bad_credentials");
    }
    let right = "username=ann%40example.org&password=correct+horse+battery+staple";
    form(&app, right).await.expect(200);
    let reply = form(&app, &format!("grant_type=password&{right}")).await;
    assert_sound("form", &reply);
    reply.expect(200);
}
