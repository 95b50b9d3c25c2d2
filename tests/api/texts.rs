//! Texts on their way in: decoded once, and tamed before anybody has to look at them.

use serde_json::json;

use super::start;
use crate::{
    assert_problem,
    harness::{
        app::{App, PASSWORD, Reply},
        browser::form_body,
    },
};

const ANN: &str = "ann@example.org";

async fn sent(app: &App, kind: &str, body: String) -> Reply {
    let client = app.anonymous();
    let request = client.http.post(format!("{}/v1/auth/login", client.url));
    let request = request.header("content-type", kind).body(body);
    Reply::of(request.send().await.expect("an answer")).await
}

/// ASVS 1.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_encoded_twice_is_decoded_once() {
    let app = start().await;
    app.register(ANN).await;
    let root = app.admin("root@example.org").await;
    for (query, count) in [("ann%40example", 1), ("ann%2540example", 0)] {
        let found = root.get(&format!("/v1/admin/users?q={query}")).await;
        let items = found.expect(200)["items"].as_array().map(Vec::len);
        assert_eq!(items, Some(count), "{query}");
    }
    let form = form_body(&[("username", ANN), ("password", PASSWORD)]);
    let json = json!({"email": ANN, "password": PASSWORD}).to_string();
    for (kind, once, twice) in [
        (
            "application/x-www-form-urlencoded",
            form.clone(),
            form.replace("%40", "%2540"),
        ),
        (
            "application/json",
            json.replace('@', "\\u0040"),
            json.replace('@', "\\\\u0040"),
        ),
    ] {
        assert_ne!(once, twice);
        sent(&app, kind, once).await.expect(200);
        assert_problem!(sent(&app, kind, twice).await, 401, "bad_credentials");
    }
}

/// ASVS 1.3.3: what a device says of itself stands in lists and in letters.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_says_is_cut_or_refused() {
    let app = start().await;
    app.register(ANN).await;
    let client = app.anonymous();
    let login = async |device: &str, agent: &str| {
        let body = json!({"email": ANN, "password": PASSWORD, "device_name": device});
        let request = client.http.post(format!("{}/v1/auth/login", client.url));
        let request = request.header("user-agent", agent).json(&body);
        Reply::of(request.send().await.expect("an answer")).await
    };
    let long = "x".repeat(10_000);
    for device in [
        long.as_str(),
        "laptop\0",
        "laptop\r\nX-Evil: 1",
        "laptop\u{1b}[2J",
    ] {
        assert_problem!(login(device, "curl").await, 422, "invalid_input");
    }
    let kept = login("laptop", &long).await.expect(200);
    let agent = kept["session"]["user_agent"].as_str().map(str::len);
    assert_eq!(agent, Some(256));
    assert_eq!(kept["session"]["device_name"], "laptop");
}
