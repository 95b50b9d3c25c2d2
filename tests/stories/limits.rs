//! Abuse, told over HTTP: floods are cut off on all nodes together, owners get in meanwhile, and a refusal
//! tells nothing of an account.

use std::collections::BTreeSet;

use doorward::{
    clock::Span, http::ApiOptions, model::quota::Limit, passwords::PasswordPolicy,
    throttle::settings::LimitSettings,
};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, Node, PASSWORD, Reply, Setup},
        backend::Database,
        browser::form_body,
        mailbox::Mailbox,
        race, until,
    },
};

for_each_store! {
    of_two_hundred_wrong_logins_at_once_few_are_hashed_and_the_owner_gets_in,
    forged_addresses_change_no_bucket,
    behind_two_proxies_the_right_hop_counts,
    an_ipv6_client_is_its_64,
    after_a_hundred_failures_only_known_devices_get_in_until_somebody_unlocks,
    a_reset_lets_in_again_and_forgets_devices,
    unknown_accounts_are_refused_like_known_ones_at_every_step,
    a_refusal_names_its_limit_and_when_to_come_back,
    a_limiter_that_fails_refuses,
    requests_of_one_user_are_counted_on_all_nodes_and_seldom_written,
    a_session_tries_the_current_password_only_so_often,
    asking_for_letters_is_limited_alike_for_everybody,
    codes_are_tried_from_one_address_only_so_often,
    a_device_is_known_again_by_its_cookie,
    devices_are_forgotten_where_one_may_be_a_thiefs,
    refreshes_of_one_session_are_limited,
    a_login_that_finds_no_place_is_no_failure,
}

const WRONG: &str = "a wrong password altogether";
/// Addresses that the nodes of these tests believe the proxies on this machine.
const PROXIES: [&str; 2] = ["127.0.0.0/8", "10.0.0.0/8"];

/// Nodes behind proxies, so that a test can come from any address.
fn behind_proxies(limits: LimitSettings) -> Setup {
    let trusted_proxies = PROXIES.map(|net| net.parse().expect("a network"));
    Setup {
        nodes: 2,
        limits,
        api: ApiOptions {
            trusted_proxies: trusted_proxies.to_vec(),
            ..ApiOptions::default()
        },
        ..Setup::default()
    }
}

async fn send(client: &Client, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
    let mut request = client.http.post(format!("{}{path}", client.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.json(&body).send().await.expect("an answer")).await
}

async fn log_in_from(client: &Client, address: &str, body: Value) -> Reply {
    let headers = [("x-forwarded-for", address)];
    send(client, "/v1/auth/login", &headers, body).await
}

fn wrong(email: &str) -> Value {
    json!({"email": email, "password": WRONG})
}

fn right(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD})
}

fn on_device(email: &str, device: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "device_token": device})
}

/// The limit that an answer names.
#[track_caller]
fn limit_of(reply: &Reply) -> String {
    assert_eq!(
        reply.problem(),
        (429, "rate_limited".to_owned()),
        "{}",
        reply.text
    );
    reply.json()["limit"].as_str().expect("a limit").to_owned()
}

fn scrypt_runs(nodes: &[Node]) -> u64 {
    let runs = nodes
        .iter()
        .map(|node| node.auth.metrics().scrypt_runs.get());
    runs.sum()
}

/// Logs in and answers what the device is known by.
async fn device_of(client: &Client, email: &str) -> String {
    let answer = log_in_from(client, "198.51.100.1", right(email)).await;
    let answer = answer.expect(200);
    answer["device_token"].as_str().expect("a token").to_owned()
}

/// ASVS 6.3.1, 2.4.1, 2.3.2: whatever comes at once, on whatever nodes, from however many addresses.
async fn of_two_hundred_wrong_logins_at_once_few_are_hashed_and_the_owner_gets_in(
    database: Database,
) {
    let setup = behind_proxies(LimitSettings::default());
    let mut app = App::with(database, setup.clone()).await;
    app.register("ann@example.org").await;
    let device = device_of(&app.anonymous(), "ann@example.org").await;

    let before = scrypt_runs(&app.nodes);
    let answers = race((0..200).map(|n| {
        let stranger = app.anonymous_on(n % 2);
        async move {
            let address = format!("203.0.113.{n}");
            log_in_from(&stranger, &address, wrong("ann@example.org")).await
        }
    }))
    .await;
    let hashed = scrypt_runs(&app.nodes) - before;
    let judged = answers.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(hashed, 5, "the sixth failure in a row has to wait");
    assert_eq!(judged, 5);
    for refused in answers.iter().filter(|reply| reply.status != 401) {
        assert_eq!(limit_of(refused), "login_failures");
    }

    // The owner gets in where they were before, and nobody gets in elsewhere.
    let owner = app.anonymous_on(1);
    let known = on_device("ann@example.org", &device);
    let greeted = log_in_from(&owner, "192.0.2.7", known).await.expect(200);
    assert_eq!(greeted["device_token"], Value::Null, "it has one");
    let elsewhere = log_in_from(&owner, "192.0.2.8", right("ann@example.org")).await;
    assert_eq!(limit_of(&elsewhere), "login_failures");

    // A restart forgets nothing.
    let restarted = app.add_node(&setup).await;
    let still = app.anonymous_on(restarted);
    let still = log_in_from(&still, "192.0.2.9", right("ann@example.org")).await;
    assert_eq!(limit_of(&still), "login_failures");

    app.clock.advance(Span::minutes(15));
    let over = log_in_from(&owner, "192.0.2.8", right("ann@example.org")).await;
    over.expect(200);
}

fn three_an_address() -> LimitSettings {
    LimitSettings {
        login_address: Limit::of(3, Span::minutes(15)),
        ..LimitSettings::default()
    }
}

/// ASVS 4.1.3, 15.3.4.
async fn forged_addresses_change_no_bucket(database: Database) {
    let mut setup = behind_proxies(three_an_address());
    setup.api.trusted_proxies.clear();
    let app = App::with(database, setup).await;
    let forged = [
        ("x-forwarded-for", "6.6.6.1"),
        ("forwarded", "for=6.6.6.2"),
        ("x-real-ip", "6.6.6.3"),
    ];
    for (n, forged) in forged.iter().enumerate() {
        let body = wrong(&format!("user{n}@example.org"));
        let tried = send(&app.anonymous_on(n % 2), "/v1/auth/login", &[*forged], body).await;
        assert_problem!(tried, 401, "bad_credentials");
    }
    for (node, forged) in forged.iter().enumerate().map(|(n, forged)| (n % 2, forged)) {
        let body = wrong("another@example.org");
        let refused = send(&app.anonymous_on(node), "/v1/auth/login", &[*forged], body).await;
        assert_eq!(limit_of(&refused), "login_address");
    }
}

/// ASVS 4.1.3, 15.3.4.
async fn behind_two_proxies_the_right_hop_counts(database: Database) {
    let app = App::with(database, behind_proxies(three_an_address())).await;
    let stranger = app.anonymous();
    let forged = |n: usize, hop: &str| {
        vec![
            ("x-forwarded-for", format!("6.6.6.{n}, {hop}, 10.0.0.1")),
            ("forwarded", format!("for=6.6.7.{n}")),
            ("x-real-ip", format!("6.6.8.{n}")),
        ]
    };
    let log_in = async |n: usize, hop: &str| {
        let headers = forged(n, hop);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, v)| (*name, v.as_str()))
            .collect();
        let body = wrong(&format!("user{n}@example.org"));
        send(&stranger, "/v1/auth/login", &headers, body).await
    };
    for n in 0..3 {
        assert_problem!(log_in(n, "203.0.113.9").await, 401, "bad_credentials");
    }
    assert_eq!(limit_of(&log_in(3, "203.0.113.9").await), "login_address");
    let neighbour = log_in(4, "203.0.113.10").await;
    assert_problem!(neighbour, 401, "bad_credentials");
}

async fn an_ipv6_client_is_its_64(database: Database) {
    let app = App::with(database, behind_proxies(three_an_address())).await;
    let stranger = app.anonymous();
    for n in 1..=3 {
        let address = format!("2001:db8:1:2::{n}");
        let body = wrong(&format!("user{n}@example.org"));
        let tried = log_in_from(&stranger, &address, body).await;
        assert_problem!(tried, 401, "bad_credentials");
    }
    let same = log_in_from(&stranger, "2001:db8:1:2:ffff::4", wrong("x@example.org")).await;
    assert_eq!(limit_of(&same), "login_address");
    let next = log_in_from(&stranger, "2001:db8:1:3::1", wrong("x@example.org")).await;
    assert_problem!(next, 401, "bad_credentials");
}

/// ASVS 6.3.1: a stranger cannot keep the owner out of where they were before.
async fn after_a_hundred_failures_only_known_devices_get_in_until_somebody_unlocks(
    database: Database,
) {
    let app = App::with(database, behind_proxies(LimitSettings::default())).await;
    app.register("ann@example.org").await;
    let root = app.admin("root@example.org").await;
    let device = device_of(&app.anonymous(), "ann@example.org").await;
    for n in 0..100 {
        let stranger = app.anonymous_on(n % 2);
        let tried = log_in_from(&stranger, "203.0.113.9", wrong("ann@example.org")).await;
        assert_problem!(tried, 401, "bad_credentials");
        app.clock.advance(Span::minutes(15));
    }
    app.clock.advance(Span::days(1));
    let anonymous = app.anonymous();
    let stopped = log_in_from(&anonymous, "192.0.2.7", right("ann@example.org")).await;
    assert_eq!(limit_of(&stopped), "login_failures");
    let wait: i64 = stopped
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert_eq!(wait, Span::days(29).as_secs() - Span::minutes(15).as_secs());

    let known = on_device("ann@example.org", &device);
    let ann = log_in_from(&anonymous, "192.0.2.7", known)
        .await
        .expect(200);
    let id = anonymous.with_pair(&ann).me().await.expect(200)["id"].clone();
    let id = id.as_str().expect("an id");
    // Another user's device is as unknown as none.
    let foreign = on_device("root@example.org", &device);
    let foreign = log_in_from(&anonymous, "192.0.2.7", foreign)
        .await
        .expect(200);
    assert!(foreign["device_token"].is_string());
    let strangers = device_of(&anonymous, "root@example.org").await;
    let posing = on_device("ann@example.org", &strangers);
    let posing = log_in_from(&anonymous, "192.0.2.7", posing).await;
    assert_eq!(limit_of(&posing), "login_failures");

    let root = root.log_in("root@example.org", PASSWORD).await;
    let unlocked = root.call(&format!("/v1/admin/users/{id}/unlock")).await;
    assert_eq!(unlocked.status, 204, "{}", unlocked.text);
    let free = log_in_from(&anonymous, "192.0.2.7", right("ann@example.org")).await;
    free.expect(200);
    let nobody = "/v1/admin/users/01a1fd04-daa0-7fc6-825b-c441f21891f1/unlock";
    let root = root.log_in("root@example.org", PASSWORD).await;
    assert_problem!(root.call(nobody).await, 404, "not_found");
}

/// ASVS 6.3.1.
async fn a_reset_lets_in_again_and_forgets_devices(database: Database) {
    let limits = LimitSettings {
        failures_stop: 5,
        ..LimitSettings::default()
    };
    let (mailbox, setup) = Mailbox::in_memory(behind_proxies(limits));
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    let anonymous = app.anonymous();
    let device = device_of(&anonymous, "ann@example.org").await;
    for _ in 0..5 {
        let tried = log_in_from(&anonymous, "203.0.113.9", wrong("ann@example.org")).await;
        assert_problem!(tried, 401, "bad_credentials");
    }
    let stopped = log_in_from(&anonymous, "192.0.2.7", right("ann@example.org")).await;
    assert_eq!(limit_of(&stopped), "login_failures");

    let asked = json!({"email": "ann@example.org"});
    let asked = anonymous.post("/v1/auth/password/forgot", asked).await;
    asked.expect(202);
    let token = mailbox.newest(&app, "ann@example.org").await.token();
    let reset = json!({"token": token, "password": PASSWORD});
    let reset = anonymous.post("/v1/auth/password/reset", reset).await;
    assert_eq!(reset.status, 204, "{}", reset.text);
    let known = on_device("ann@example.org", &device);
    let back = log_in_from(&anonymous, "192.0.2.7", known)
        .await
        .expect(200);
    assert!(back["device_token"].is_string(), "the old one is forgotten");
}

/// ASVS 6.3.8: name by name, whether it leads to an account or not.
async fn unknown_accounts_are_refused_like_known_ones_at_every_step(database: Database) {
    let limits = LimitSettings {
        failures_stop: 9,
        login_account: Limit::of(8, Span::minutes(15)),
        ..LimitSettings::default()
    };
    let app = App::with(database, behind_proxies(limits)).await;
    let body = json!({"email": "ann@example.org", "username": "ann", "password": PASSWORD});
    app.anonymous()
        .post("/v1/auth/register", body)
        .await
        .expect(201);
    let people = [
        json!({"email": "ann@example.org"}),
        json!({"email": "nobody@example.org"}),
        json!({"username": "ann"}),
        json!({"username": "nobody"}),
    ];
    let mut seen = vec![Vec::new(); people.len()];
    let mut limits = BTreeSet::new();
    for step in 0..40 {
        for (n, who) in people.iter().enumerate() {
            let node = &app.nodes[step % 2];
            let before = (
                node.auth.metrics().scrypt_runs.get(),
                node.store.by_method(),
            );
            let mut login = who.clone();
            login["password"] = json!(WRONG);
            let address = format!("203.0.113.{step}");
            let reply = log_in_from(&app.anonymous_on(step % 2), &address, login).await;
            let mut calls = node.store.by_method();
            for (method, count) in before.1 {
                calls.entry(method).and_modify(|after| *after -= count);
            }
            let runs = node.auth.metrics().scrypt_runs.get() - before.0;
            let mut body = reply.json();
            body["request_id"] = Value::Null;
            limits.extend(body["limit"].as_str().map(str::to_owned));
            let wait = reply.header("retry-after").map(str::to_owned);
            calls.retain(|method, count| *count > 0 && !method.contains("letter"));
            seen[n].push((reply.status, body, wait, runs, calls));
        }
        app.clock
            .advance(Span::secs(if step < 20 { 1 } else { 100 }));
    }
    for (who, answers) in people.iter().zip(&seen) {
        assert_eq!(answers, &seen[0], "{who}");
    }
    let limits: Vec<_> = limits.into_iter().collect();
    assert_eq!(limits, ["login_account", "login_failures"]);
}

/// ASVS 2.4.1: 429 with `Retry-After` and the name of the limit, in the form of each surface.
async fn a_refusal_names_its_limit_and_when_to_come_back(database: Database) {
    let limits = LimitSettings {
        login_address: Limit::of(1, Span::secs(100)),
        register_address: Limit::of(1, Span::secs(100)),
        ..LimitSettings::default()
    };
    let mut setup = behind_proxies(limits);
    setup.api.password_grant = true;
    setup.api.compat = Some(String::new());
    let app = App::with(database, setup).await;
    let anonymous = app.anonymous();
    let register = |n: u8| json!({"email": format!("user{n}@example.org"), "password": PASSWORD});
    anonymous
        .post("/v1/auth/register", register(1))
        .await
        .expect(201);
    let twice = anonymous.post("/v1/auth/register", register(2)).await;
    assert_eq!(limit_of(&twice), "register_address");
    let runs = scrypt_runs(&app.nodes);
    assert_problem!(
        anonymous.try_log_in("user1@example.org", WRONG).await,
        401,
        "bad_credentials"
    );
    app.clock.advance(Span::millis(500));
    let refused = anonymous.try_log_in("user1@example.org", PASSWORD).await;
    assert_eq!(refused.header("retry-after"), Some("100"), "rounded up");
    let mut body = refused.json();
    body["request_id"] = Value::Null;
    let expected = json!({
        "type": "about:blank",
        "title": "Too many requests",
        "status": 429,
        "detail": "Too often; try again in 1m 40s.",
        "code": "rate_limited",
        "request_id": null,
        "limit": "login_address",
    });
    assert_eq!(body, expected);

    let form = |path: &str| {
        let fields = [
            ("grant_type", "password"),
            ("username", "user1@example.org"),
            ("password", PASSWORD),
        ];
        let request = anonymous.http.post(format!("{}{path}", anonymous.url));
        let request = request.header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(form_body(&fields)).send()
    };
    let oauth = Reply::of(form("/v1/oauth/token").await.expect("an answer")).await;
    assert_eq!(oauth.status, 429);
    assert_eq!(oauth.header("retry-after"), Some("100"));
    assert_eq!(oauth.json()["error"], "temporarily_unavailable");
    let page = Reply::of(form("/login").await.expect("an answer")).await;
    assert_eq!(
        (page.status, page.header("retry-after")),
        (429, Some("100"))
    );
    assert!(
        page.text.contains("Too often; try again in 1m 40s."),
        "{}",
        page.text
    );
    let compat = anonymous
        .post("/auth/login", right("user1@example.org"))
        .await;
    assert_eq!(limit_of(&compat), "login_address");
    assert_eq!(scrypt_runs(&app.nodes) - runs, 1, "only the first");
    // Whoever is refused for their address has touched nobody's account.
    assert_eq!(app.nodes[0].store.calls_of("user_by_login"), 1);
    // What the database has refused is not asked of it again before its time.
    let asked = app.nodes[0].store.calls_of("take");
    let again = anonymous.try_log_in("user1@example.org", PASSWORD).await;
    assert_eq!(limit_of(&again), "login_address");
    assert_eq!(app.nodes[0].store.calls_of("take"), asked);
}

/// ASVS 16.5.3: what cannot be counted is not let through.
async fn a_limiter_that_fails_refuses(database: Database) {
    let limits = LimitSettings {
        requests_free: 2,
        ..LimitSettings::default()
    };
    let (_, setup) = Mailbox::in_memory(behind_proxies(limits));
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    let node = &app.nodes[0];
    node.store.fail_at("take");
    let runs = scrypt_runs(&app.nodes);
    let anonymous = app.anonymous();
    let code = json!({"email": "ann@example.org", "code": "000000"});
    let reset = json!({"email": "ann@example.org", "code": "000000", "password": PASSWORD});
    for (path, body) in [
        ("/v1/auth/login", right("ann@example.org")),
        ("/v1/auth/register", right("new@example.org")),
        (
            "/v1/auth/password/forgot",
            json!({"email": "ann@example.org"}),
        ),
        ("/v1/auth/email/resend", json!({"email": "ann@example.org"})),
        ("/v1/auth/email/verify", code),
        ("/v1/auth/password/reset", reset),
        (
            "/v1/auth/refresh",
            json!({"refresh_token": ann.refresh_token()}),
        ),
    ] {
        let refused = anonymous.post(path, body).await;
        assert!(refused.header("retry-after").is_some(), "{path}");
        assert_problem!(refused, 503, "database_unavailable");
    }
    // What a node admits by itself it still does; beyond that it asks.
    for _ in 0..2 {
        ann.me().await.expect(200);
    }
    assert_problem!(ann.me().await, 503, "database_unavailable");
    assert_eq!(scrypt_runs(&app.nodes), runs);
}

/// ASVS 2.4.1: as much as the limit, and no more than each node's free share and one block besides.
async fn requests_of_one_user_are_counted_on_all_nodes_and_seldom_written(database: Database) {
    let limits = LimitSettings {
        requests: Limit::of(100, Span::secs(100)),
        requests_free: 5,
        requests_block: 10,
        ..LimitSettings::default()
    };
    let app = App::with(database, behind_proxies(limits)).await;
    let ann = app.user("ann@example.org").await;
    let bob = app.user("bob@example.org").await;
    let takes = || -> usize {
        let nodes = app.nodes.iter();
        nodes.map(|node| node.store.calls_of("take")).sum()
    };
    // Whoever asks for little writes nothing.
    let before = takes();
    for node in &app.nodes {
        for _ in 0..5 {
            bob.at(node).me().await.expect(200);
        }
    }
    assert_eq!(takes() - before, 0);

    let answers = race((0..300).map(|n| {
        let ann = ann.at(&app.nodes[n % 2]);
        async move { ann.me().await }
    }))
    .await;
    let passed = answers.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(
        passed,
        100 + 2 * 5,
        "the limit, and what is free on each node"
    );
    for refused in answers.iter().filter(|reply| reply.status != 200) {
        assert_eq!(limit_of(refused), "requests");
    }
    let asked = takes() - before;
    assert!((10..=12).contains(&asked), "{asked} for 300 requests");
    let checked = ann.get("/v1/auth/check").await;
    assert_eq!(limit_of(&checked), "requests");
    assert_eq!(takes() - before, asked, "a refusal is not asked for twice");
    bob.me().await.expect(200);

    app.clock.advance(Span::secs(100));
    ann.me().await.expect(200);
}

/// ASVS 6.2.3: a session that somebody found open is no way to the password.
async fn a_session_tries_the_current_password_only_so_often(database: Database) {
    let (_, setup) = Mailbox::in_memory(behind_proxies(LimitSettings::default()));
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    let proofs = [
        ("/v1/auth/reauthenticate", json!({"password": WRONG})),
        (
            "/v1/auth/me/password",
            json!({"current_password": WRONG, "new_password": "another horse entirely"}),
        ),
        (
            "/v1/auth/me/email",
            json!({"email": "ann@example.com", "password": WRONG}),
        ),
        ("/v1/auth/me/deactivate", json!({"password": WRONG})),
    ];
    for (path, body) in proofs.iter().chain(&proofs[..1]) {
        let tried = ann.post(path, body.clone()).await;
        assert_problem!(tried, 403, "wrong_password");
    }
    for (path, body) in &proofs {
        let refused = ann.post(path, body.clone()).await;
        assert_eq!(limit_of(&refused), "password_check");
    }
    // It is this session that has to wait, not its user.
    app.log_in("ann@example.org").await;
}

/// ASVS 2.4.2, 6.3.8.
async fn asking_for_letters_is_limited_alike_for_everybody(database: Database) {
    let limits = LimitSettings {
        forgot_target: Limit::of(2, Span::minutes(60)),
        resend_target: Limit::of(2, Span::minutes(60)),
        forgot_address: Limit::of(5, Span::minutes(60)),
        resend_address: Limit::of(5, Span::minutes(60)),
        ..LimitSettings::default()
    };
    let (_, setup) = Mailbox::in_memory(behind_proxies(limits));
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    for (path, name) in [
        ("/v1/auth/password/forgot", "forgot"),
        ("/v1/auth/email/resend", "resend"),
    ] {
        let ask = async |from: &str, email: &str| {
            let headers = [("x-forwarded-for", from)];
            send(&app.anonymous(), path, &headers, json!({"email": email})).await
        };
        for email in ["ann@example.org", "nobody@example.org"] {
            ask("203.0.113.1", email).await.expect(202);
            ask("203.0.113.2", &email.to_uppercase()).await.expect(202);
            let refused = ask("203.0.113.3", email).await;
            assert_eq!(limit_of(&refused), format!("{name}_target"));
        }
        for n in 0..5 {
            let other = format!("user{n}@example.org");
            ask("203.0.113.4", &other).await.expect(202);
        }
        let refused = ask("203.0.113.4", "last@example.org").await;
        assert_eq!(limit_of(&refused), format!("{name}_address"));
    }
}

/// ASVS 6.6.3.
async fn codes_are_tried_from_one_address_only_so_often(database: Database) {
    let limits = LimitSettings {
        code_address: Limit::of(3, Span::minutes(60)),
        ..LimitSettings::default()
    };
    let (_, setup) = Mailbox::in_memory(behind_proxies(limits));
    let app = App::with(database, setup).await;
    let guess = async |from: &str, path: &str, n: usize| {
        let email = format!("user{n}@example.org");
        let mut body = json!({"email": email, "code": "000000"});
        if !path.ends_with("verify") {
            body["password"] = json!(PASSWORD);
        }
        send(&app.anonymous(), path, &[("x-forwarded-for", from)], body).await
    };
    let paths = [
        "/v1/auth/email/verify",
        "/v1/auth/password/reset",
        "/v1/auth/register/confirm",
    ];
    for (n, path) in paths.iter().enumerate() {
        let tried = guess("203.0.113.1", path, n).await;
        assert_problem!(tried, 400, "code_invalid");
    }
    let runs = scrypt_runs(&app.nodes);
    for (n, path) in paths.iter().enumerate() {
        let refused = guess("203.0.113.1", path, n).await;
        assert_eq!(limit_of(&refused), "code_address");
    }
    assert_eq!(scrypt_runs(&app.nodes), runs);
    let other = guess("203.0.113.2", paths[0], 0).await;
    assert_problem!(other, 400, "code_invalid");
}

/// ASVS 3.3.1, 3.3.4: a cookie of its own, that no script sees and a logout leaves.
async fn a_device_is_known_again_by_its_cookie(database: Database) {
    let limits = LimitSettings {
        failures_stop: 5,
        ..LimitSettings::default()
    };
    let app = App::with(database, behind_proxies(limits)).await;
    app.register("ann@example.org").await;
    let anonymous = app.anonymous();
    let mut login = right("ann@example.org");
    login["transport"] = json!("cookie");
    let own_site = ("sec-fetch-site", "same-origin");
    let first = send(&anonymous, "/v1/auth/login", &[own_site], login.clone()).await;
    let cookie = device_cookie(&first).expect("a cookie");
    assert_eq!(first.expect(200)["device_token"], Value::Null);
    let (pair, attributes) = cookie.split_once(';').expect("attributes");
    assert!(pair.starts_with("doorward_device=dwd_"), "{pair}");
    assert_eq!(
        attributes,
        " Max-Age=34560000; Path=/; HttpOnly; SameSite=Lax"
    );
    for _ in 0..5 {
        let tried = log_in_from(&anonymous, "203.0.113.9", wrong("ann@example.org")).await;
        assert_problem!(tried, 401, "bad_credentials");
    }
    let without = send(&anonymous, "/v1/auth/login", &[own_site], login.clone()).await;
    assert_eq!(limit_of(&without), "login_failures");
    let headers = [own_site, ("cookie", pair)];
    let again = send(&anonymous, "/v1/auth/login", &headers, login).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(device_cookie(&again).as_deref(), Some(cookie.as_str()));

    let form = [("username", "ann@example.org"), ("password", PASSWORD)];
    let page = anonymous.http.post(format!("{}/login", anonymous.url));
    let page = page
        .header("sec-fetch-site", "same-origin")
        .header("cookie", pair);
    let page = page.header("content-type", "application/x-www-form-urlencoded");
    let page = page.body(form_body(&form)).send().await;
    let page = Reply::of(page.expect("an answer")).await;
    assert_eq!(page.status, 303, "{}", page.text);
    assert_eq!(device_cookie(&page), Some(cookie));
}

/// ASVS 6.3.1: what somebody got hold of with the password is worth no more than that.
async fn devices_are_forgotten_where_one_may_be_a_thiefs(database: Database) {
    let app = App::with(database, behind_proxies(LimitSettings::default())).await;
    app.register("ann@example.org").await;
    let root = app.admin("root@example.org").await;
    let anonymous = app.anonymous();
    let mut device = device_of(&anonymous, "ann@example.org").await;
    let known = on_device("ann@example.org", &device);
    let answer = log_in_from(&anonymous, "192.0.2.7", known)
        .await
        .expect(200);
    assert_eq!(answer["device_token"], Value::Null);
    let ann = anonymous.with_pair(&answer);
    let id = ann.me().await.expect(200)["id"].clone();
    let id = id.as_str().expect("an id");
    // A logout is no reason.
    assert_eq!(ann.call("/v1/auth/logout").await.status, 204);
    let known = on_device("ann@example.org", &device);
    let answer = log_in_from(&anonymous, "192.0.2.7", known)
        .await
        .expect(200);
    assert_eq!(answer["device_token"], Value::Null);

    let ann = anonymous.with_pair(&answer);
    let same = json!({"current_password": PASSWORD, "new_password": PASSWORD});
    let changed = ann.post("/v1/auth/me/password", same).await;
    assert_eq!(changed.status, 204, "{}", changed.text);
    for round in 0..2 {
        let known = on_device("ann@example.org", &device);
        let answer = log_in_from(&anonymous, "192.0.2.7", known)
            .await
            .expect(200);
        let fresh = answer["device_token"].as_str().expect("another one");
        assert_ne!(fresh, device, "{round}");
        fresh.clone_into(&mut device);
        for path in ["deactivate", "activate"] {
            let done = root.call(&format!("/v1/admin/users/{id}/{path}")).await;
            done.expect(200);
        }
    }
}

fn device_cookie(reply: &Reply) -> Option<String> {
    let cookies = reply.headers.get_all("set-cookie").iter();
    let mut cookies = cookies.map(|value| value.to_str().expect("text").to_owned());
    cookies.find(|cookie| cookie.starts_with("doorward_device="))
}

/// ASVS 2.4.1.
async fn refreshes_of_one_session_are_limited(database: Database) {
    let limits = LimitSettings {
        refresh_session: Limit::of(3, Span::minutes(5)),
        ..LimitSettings::default()
    };
    let app = App::with(database, behind_proxies(limits)).await;
    let mut ann = app.user("ann@example.org").await;
    let bob = app.user("bob@example.org").await;
    for _ in 0..3 {
        ann = ann.refreshed().await;
    }
    assert_eq!(limit_of(&ann.try_refresh().await), "refresh_session");
    bob.refreshed().await;
    // The token is as good as before.
    app.clock.advance(Span::secs(100));
    ann.refreshed().await;
}

/// ASVS 15.2.2: who is turned away because others are being served has not guessed wrong, and takes nothing away from
/// them.
async fn a_login_that_finds_no_place_is_no_failure(database: Database) {
    let passwords = PasswordPolicy {
        scrypt_log_n: 15,
        threads: 1,
        queue: 1,
        ..PasswordPolicy::light()
    };
    let setup = Setup {
        passwords,
        limits: LimitSettings::default(),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    let store = &app.nodes[0].store;
    let asked = || store.calls_of("user_by_login");
    let asked_before = asked();
    let log_in = |email: &str| {
        let (client, body) = (app.anonymous(), right(email));
        async move { client.post("/v1/auth/login", body).await }
    };
    let busy: Vec<_> = (0..4)
        .map(|n| tokio::spawn(log_in(&format!("user{n}@example.org"))))
        .collect();
    let refused = || app.nodes[0].auth.metrics().scrypt_refused.get();
    until("the queue is full", async || refused() > 0).await;
    let (mut turned_away, mut judged) = (0, 0);
    for _ in 0..20 {
        let reply = log_in("ann@example.org").await;
        if reply.status == 200 {
            judged += 1;
            break;
        }
        assert_problem!(reply, 503, "overloaded");
        turned_away += 1;
    }
    assert!(turned_away > 0, "the queue was never full");
    for login in busy {
        let status = login.await.expect("no panic").status;
        assert!([401, 503].contains(&status), "{status}");
        judged += usize::from(status == 401);
    }
    assert_eq!(asked() - asked_before, judged, "the database was asked");
    log_in("ann@example.org").await.expect(200);
}
