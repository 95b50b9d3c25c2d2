//! Promise 7: whatever is asked to be logged, it names nobody and gives nothing away (ASVS 16.2.5).

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    for_each_store,
    harness::{
        app::{Client, PASSWORD},
        backend::Database,
        browser::{Browser, form_body},
    },
    program::{KEY, Place, borrowed, serving},
};

for_each_store! {
    nothing_secret_and_nobody_is_logged,
}

const EMAIL: &str = "canary.ann@example.org";
/// The secret of a client, and what the configuration holds of it.
const CLIENT: (&str, &str) = (
    "dwc_canary",
    "canary:jPgJRXlB058Hn013honVWuhJCH-Bt34TjvQUilMHel0",
);
const WRONG: &str = "canary wrong password";
/// Light hashing, and a database of its own in the folder.
const LIGHT: [(&str, &str); 5] = [
    ("DOORWARD__ENVIRONMENT", "test"),
    ("DOORWARD__TOKENS__KEY", KEY),
    ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
    ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4"),
    ("DOORWARD__PASSWORDS__SCRYPT_P", "1"),
];
/// The client's, as a proxy tells it.
const ADDRESS: &str = "203.0.113.77";

/// ASVS 14.2.1, 16.2.2, 16.2.4, 16.2.5, 16.3.4.
async fn nothing_secret_and_nobody_is_logged(database: Database) {
    let place = Place::new();
    let mut variables = serving(&database);
    for (name, value) in [
        ("DOORWARD__HTTP__TRUSTED_PROXIES", "127.0.0.0/8"),
        ("DOORWARD__LOG__FORMAT", "json"),
        ("DOORWARD__LOG__LEVEL", "trace"),
        ("DOORWARD__CLIENTS", CLIENT.1),
        ("DOORWARD__SESSIONS__MAX_PER_USER", "2"),
        ("RUST_LOG", "poem=trace,tokio_postgres=trace,log=trace"),
    ] {
        variables.push((name, value.to_owned()));
    }
    let mut server = place.serve(&borrowed(&variables));
    let mut anonymous = Client::anonymous(&format!("http://{}", server.address));
    let browser = Browser::at_url(&anonymous.url);
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("x-forwarded-for", ADDRESS.parse().expect("a header"));
    let http = reqwest::Client::builder().default_headers(headers);
    anonymous.http = http.build().expect("a client");

    let account = json!({"email": EMAIL, "username": "canary_name", "password": PASSWORD});
    let registered = anonymous.post("/v1/auth/register", account).await;
    let id = registered.expect(201)["id"].clone();
    let ann = anonymous.log_in(EMAIL, PASSWORD).await;
    let me = ann.me().await;
    let request_id = me.header("x-request-id").expect("an id").to_owned();
    me.expect(200);
    anonymous.try_log_in(EMAIL, WRONG).await.expect(401);
    let sessions = ann
        .get("/v1/auth/sessions?q=canary_query")
        .await
        .expect(200);
    assert_eq!(sessions["items"][0]["address"], ADDRESS);
    anonymous.get("/canary_path").await.expect(404);
    let change = json!({"current_password": PASSWORD, "new_password": "canary new password"});
    let changed = ann.post("/v1/auth/me/password", change).await;
    assert_eq!(changed.status, 204, "{changed:?}");
    let refreshed = ann.refreshed().await;
    let first = ann.refresh_token().to_owned();
    let browser = as_a_client_and_a_browser(browser, refreshed.token()).await;
    // A row that makes no sense is an error, and errors are logged with their cause.
    let id: uuid::Uuid = id.as_str().expect("an id").parse().expect("a UUID");
    database.corrupt_user_row(id.into()).await;
    assert_eq!(ann.me().await.status, 500);
    // An open connection is one that the server could say something about.
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));

    let log: Vec<String> = server.log.iter().collect();
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let answered = || lines.iter().filter(|line| line["message"] == "answered");
    assert_eq!(answered().count(), 13, "{log:#?}");
    let of_me = answered()
        .find(|line| line["span"]["id"] == request_id.as_str())
        .expect("the line of the request");
    assert_eq!(
        (&of_me["status"], &of_me["route"]),
        (&json!(200), &json!("/v1/auth/me"))
    );
    // Reading is told at `debug`; what changes something or fails, always.
    for line in answered() {
        let (status, method) = (&line["status"], &line["span"]["method"]);
        let is_quiet = method == "GET" && status.as_u64() < Some(400);
        let level = if is_quiet { "DEBUG" } else { "INFO" };
        assert_eq!(line["level"], level, "{line}");
    }
    let failed = lines.iter().any(|line| line["level"] == "ERROR");
    assert!(failed, "the 500 has its cause in the log");

    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    let tokens = [ann.token(), refreshed.token(), browser.value()].map(signature);
    // As drivers write texts that they do not take for texts.
    let as_numbers: Vec<String> = EMAIL.bytes().map(|byte| byte.to_string()).collect();
    let as_numbers = as_numbers.join(", ");
    for line in &log {
        for secret in [
            "canary",
            PASSWORD,
            KEY,
            &tokens[0],
            &tokens[1],
            &tokens[2],
            &first,
            refreshed.refresh_token(),
            CLIENT.0,
            "scrypt",
            ADDRESS,
            &as_numbers,
        ] {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["remote_addr"], Value::Null, "{line}");
        let at = line["timestamp"].as_str().expect("a time");
        assert!(at.ends_with('Z'), "UTC: {line}");
    }
}

/// ASVS 16.4.1: whatever is sent, and however the log is written.
#[test]
fn nobody_writes_lines_of_their_own() {
    const FORGED: &str = "x\n{\"level\":\"INFO\",\"message\":\"forged\"}\n";
    for format in ["json", "pretty"] {
        let mut variables = LIGHT.to_vec();
        variables.extend([
            ("DOORWARD__HTTP__TRUSTED_PROXIES", "127.0.0.0/8"),
            ("DOORWARD__LOG__FORMAT", format),
            ("DOORWARD__LOG__LEVEL", "trace"),
        ]);
        let place = Place::new();
        let mut server = place.serve(&variables);
        let bodies = [
            json!({"email": FORGED, "password": FORGED}),
            json!({"email": EMAIL, "password": FORGED, "device_name": FORGED}),
            json!({FORGED: FORGED}),
        ];
        for body in bodies {
            for path in ["login", "register", "x%0a%7b%22message%22:%22forged%22%7d"] {
                let body = body.to_string();
                let request = format!(
                    "POST /v1/auth/{path}?q=%0aforged HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                     X-Request-Id: x%0aforged\r\nUser-Agent: {{\"message\":\"forged\"}}\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let answer = sent(&server.address, &request);
                assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            }
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
        let log: Vec<String> = server.log.iter().collect();
        assert!(log.len() >= 9, "{log:#?}");
        for line in log {
            assert!(!line.contains("forged"), "{line}");
            let parsed: Result<Value, _> = serde_json::from_str(&line);
            assert_eq!(parsed.is_ok(), format == "json", "{line}");
        }
    }
}

fn sent(address: &str, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("accepted");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// Asks about a token as a client does, and comes and goes as a browser does; gives the cookie it had.
async fn as_a_client_and_a_browser(browser: Browser, token: &str) -> Browser {
    let about = [
        ("token", token),
        ("client_id", "canary"),
        ("client_secret", CLIENT.0),
    ];
    let asked = browser.request(Method::POST, "/v1/oauth/introspect");
    let asked = asked.header("content-type", "application/x-www-form-urlencoded");
    let asked = browser.send(asked.body(form_body(&about))).await;
    assert_eq!(asked.expect(200)["active"], true);
    let browser = browser.log_in_with(EMAIL, "canary new password").await;
    let check = "/v1/auth/check?redirect=/canary_target";
    browser.get(check).await.expect(200);
    browser.call("/v1/auth/logout").await.expect(204);
    browser
}
