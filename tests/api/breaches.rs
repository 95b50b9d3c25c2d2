//! The breach service, seen from where it stands: what it is told, and what happens without it.

use doorward::{clock::Span, passwords::breach::BreachSettings};
use rustix::process::Signal;
use serde_json::json;

use super::{sqlite, start_with};
use crate::{
    harness::{
        app::{App, Client, PASSWORD, Setup, fresh_email},
        breaches::{BreachService, Mood, sha1_of},
    },
    program::{Place, borrowed, serving},
};

const KNOWN: &str = "purple elephants dance at noon";

async fn asking(service: &BreachService, timeout: Span) -> App {
    let mut passwords = service.policy();
    passwords.breach = BreachSettings {
        timeout,
        ..passwords.breach
    };
    start_with(Setup {
        passwords,
        ..Setup::default()
    })
    .await
}

async fn register(client: &Client, password: &str) -> (u16, String) {
    let body = json!({"email": fresh_email(), "password": password});
    let reply = client.post("/v1/auth/register", body).await;
    let code = reply.json()["errors"][0]["code"].clone();
    (reply.status, code.as_str().unwrap_or_default().to_owned())
}

/// ASVS 14.2.3: five digits of a hash, and nothing about the server or its user.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_sees_a_prefix_and_nothing_else() {
    let service = BreachService::knowing(&[KNOWN]).await;
    let app = asking(&service, Span::secs(10)).await;
    for (password, expected) in [(KNOWN, (422, "breached")), (PASSWORD, (201, ""))] {
        let (status, code) = register(&app.anonymous(), password).await;
        assert_eq!((status, code.as_str()), expected);
        let asked = service.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let asked = &asked[0];
        assert_eq!(asked.target, format!("/range/{}", &sha1_of(password)[..5]));
        assert_eq!((asked.method.as_str(), asked.body), ("GET", 0));
        for (name, value) in &asked.headers {
            let is_fine = match name.as_str() {
                "host" => service.url.contains(value.as_str()),
                "accept" => value == "*/*",
                "add-padding" => value == "true",
                _ => false,
            };
            assert!(is_fine, "{name}: {value}");
        }
        assert!(asked.headers.iter().any(|(name, _)| name == "add-padding"));
    }
}

/// The composed form of a password is asked about, as it is the one that is stored.
#[tokio::test(flavor = "multi_thread")]
async fn composed_and_decomposed_letters_are_one() {
    let service = BreachService::knowing(&["caf\u{e9} on the corner"]).await;
    let app = asking(&service, Span::secs(10)).await;
    let answer = register(&app.anonymous(), "cafe\u{301} on the corner").await;
    assert_eq!(answer, (422, "breached".to_owned()));
}

/// ASVS 1.3.6, 15.3.2: no redirect is followed.
/// ASVS 16.5.2: while the service is away, the built-in list has to do, and it does.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_service_does_the_list_goes_on() {
    let service = BreachService::knowing(&[KNOWN]).await;
    let app = asking(&service, Span::millis(500)).await;
    let guest = app.anonymous();
    for mood in [
        Mood::Status(302),
        Mood::Status(307),
        Mood::Status(404),
        Mood::Status(429),
        Mood::Status(503),
        Mood::Status(204),
        Mood::Junk,
        Mood::Flood,
        Mood::Silent,
    ] {
        service.is_now(mood);
        assert_eq!(register(&guest, KNOWN).await.0, 201, "{mood:?}");
        let asked = service.asked();
        assert_eq!(asked.len(), 1, "{mood:?}: {asked:?}");
        assert!(
            asked[0].target.starts_with("/range/"),
            "{mood:?}: {asked:?}"
        );
        let listed = register(&guest, "PasswordPassword").await;
        assert_eq!(listed, (422, "common".to_owned()), "{mood:?}");
        assert!(service.asked().is_empty());
    }
    service.is_now(Mood::Well);
    assert_eq!(register(&guest, KNOWN).await, (422, "breached".to_owned()));
}

/// ASVS 6.2.12: operators ask the same service.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_too() {
    let service = BreachService::knowing(&[KNOWN]).await;
    let database = sqlite().await;
    let place = Place::new();
    let mut variables = serving(&database);
    let url = ("DOORWARD__PASSWORDS__BREACH__BASE_URL", service.url.clone());
    variables.extend([
        url,
        ("DOORWARD__PASSWORDS__BREACH__TIMEOUT", "10s".to_owned()),
    ]);
    let create = [
        "user",
        "create",
        "--email",
        "ann@example.org",
        "--password-stdin",
    ];
    let done = place.run_with_input(&create, &borrowed(&variables), KNOWN);
    let refusal = done.refusal();
    assert!(
        refusal.starts_with("password: is known from a breach"),
        "{refusal}"
    );
    assert_eq!(service.asked().len(), 1);
    place
        .run_with_input(&create, &borrowed(&variables), PASSWORD)
        .answer();
}

/// ASVS 16.5.2, 16.2.5: an outage is logged when it begins, and names nothing that was asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_logged_once_without_what_was_asked() {
    let database = sqlite().await;
    let place = Place::new();
    let mut variables = serving(&database);
    for (name, value) in [
        (
            "DOORWARD__PASSWORDS__BREACH__BASE_URL",
            "http://127.0.0.1:9/canary-range/",
        ),
        ("DOORWARD__PASSWORDS__BREACH__TIMEOUT", "2s"),
        ("DOORWARD__LOG__LEVEL", "trace"),
    ] {
        variables.push((name, value.to_owned()));
    }
    let mut server = place.serve(&borrowed(&variables));
    let guest = Client::anonymous(&format!("http://{}", server.address));
    for password in [KNOWN, PASSWORD, "a third phrase of some length"] {
        assert_eq!(register(&guest, password).await.0, 201);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let log: Vec<String> = server.log.iter().collect();
    let said = log.iter().filter(|line| line.contains("breach service"));
    assert_eq!(said.count(), 1, "{log:#?}");
    for line in &log {
        let prefix = format!("canary-range/{}", &sha1_of(KNOWN)[..5]);
        assert!(
            !line.contains(&prefix) && !line.contains(&sha1_of(KNOWN)[..5]),
            "{line}"
        );
    }
}
