//! What forms are told about a password that somebody thinks of.

use doorward::passwords::PasswordPolicy;
use serde_json::{Value, json};

use super::{assert_refused, assert_sound, start, start_with};
use crate::harness::{
    app::{App, PASSWORD, Setup},
    breaches::BreachService,
};

async fn strength(app: &App, body: Value) -> Value {
    let reply = app
        .anonymous()
        .post("/v1/auth/password/strength", body)
        .await;
    assert_sound("strength", &reply);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_learns_how_strong_a_password_is_and_whether_it_will_do() {
    let app = start_with(Setup {
        passwords: PasswordPolicy {
            min_length: 15,
            ..PasswordPolicy::light()
        },
        ..Setup::default()
    })
    .await;
    let good = strength(&app, json!({"password": PASSWORD})).await;
    assert_eq!(
        (&good["score"], &good["accepted"], &good["errors"]),
        (&json!(4), &json!(true), &json!([]))
    );
    assert_eq!(good["crack_time"], "centuries");
    assert!(
        good["guesses_log10"].as_f64().is_some_and(|n| n > 12.0),
        "{good}"
    );
    assert_eq!(
        (&good["warning"], &good["suggestions"]),
        (&Value::Null, &json!([]))
    );

    let bad = strength(&app, json!({"password": "Password1"})).await;
    assert_eq!(bad["accepted"], false);
    assert!(
        bad["score"].as_u64().is_some_and(|score| score <= 1),
        "{bad}"
    );
    assert!(bad["warning"].is_string(), "{bad}");
    assert!(
        !bad["suggestions"].as_array().expect("a list").is_empty(),
        "{bad}"
    );
    let codes = |answer: &Value| -> Vec<String> {
        let errors = answer["errors"].as_array().expect("a list").iter();
        let codes = errors.map(|error| error["code"].as_str().expect("a code").to_owned());
        codes.collect()
    };
    assert_eq!(codes(&bad), ["too_short", "common"]);

    let own = json!({"password": "annika.berg.1987", "email": "annika.berg@example.org", "username": "bergfrau"});
    let own = strength(&app, own).await;
    assert_eq!(
        (codes(&own), &own["accepted"]),
        (vec!["context".to_owned()], &json!(false))
    );
    let others = strength(&app, json!({"password": "annika.berg.1987"})).await;
    assert_eq!(
        (codes(&others), &others["accepted"]),
        (vec![], &json!(true))
    );
}

/// What it says is what registering says, for any text.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_form_is_told_is_what_happens() {
    let app = start().await;
    for (n, password) in [
        "x",
        "",
        "iloveyou",
        "qwertyuiop",
        "doorward123",
        "user0user0",
        "  spaces around  ",
        "a fine phrase of many words",
        &"🦆".repeat(300),
        &"a1 ".repeat(15_000),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("user{n}@example.org");
        let body = json!({"email": email, "password": password});
        let told = strength(&app, body.clone()).await;
        let registered = app.anonymous().post("/v1/auth/register", body).await;
        assert_eq!(told["accepted"] == true, registered.status == 201, "{told}");
        if registered.status != 201 {
            let said = &registered.json()["errors"][0];
            assert_eq!(told["errors"][0]["code"], said["code"], "{told}");
            assert_eq!(told["errors"][0]["detail"], said["detail"], "{told}");
        }
    }
}

/// ASVS 14.2.3: a password that is only thought of goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn no_breach_service_is_asked() {
    let service = BreachService::knowing(&[PASSWORD]).await;
    let app = start_with(Setup {
        passwords: service.policy(),
        ..Setup::default()
    })
    .await;
    let told = strength(&app, json!({"password": PASSWORD})).await;
    assert_eq!(told["accepted"], true);
    assert!(service.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused() {
    let app = start().await;
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"password": 5}), "wrong_type"),
        (json!({"password": "x", "score": 4}), "unknown_field"),
    ] {
        let reply = app
            .anonymous()
            .post("/v1/auth/password/strength", body)
            .await;
        assert_refused("strength", &reply, 400, code);
    }
}
