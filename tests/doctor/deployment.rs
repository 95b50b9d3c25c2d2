//! Settings, secrets, the network, and others that are asked.

use doorward::mail::settings::SmtpTls;

use super::{SECRET, doctor, refused, starts_without};
use crate::{
    harness::{
        authority::Authority,
        breaches::{BreachService, Mood},
        free_port,
        smtp::{Options, SmtpSink},
    },
    program::{Place, set_mode},
};

const PRODUCTION: [(&str, &str); 3] = [
    ("DOORWARD__ENVIRONMENT", "production"),
    ("DOORWARD__PUBLIC_URL", "https://auth.example.org"),
    (
        "DOORWARD__AUDIT__KEY",
        "q0Xc0sVn1S4v2pYkQ7b0rj3m5u8x9wzAaBbCcDdEeFc=",
    ),
];

#[track_caller]
fn in_production(more: &[(&'static str, &'static str)]) -> super::Report {
    doctor(&Place::new(), &[&PRODUCTION[..], more].concat())
}

#[test]
fn a_sound_deployment_is_green_but_for_what_is_missing() {
    let report = in_production(&[]);
    assert_eq!(report.faults(), ["database.reachable", "mail.transport"]);
    assert_eq!(
        (&report.value["red"], &report.value["yellow"], report.code),
        (&0.into(), &2.into(), 0)
    );
    let place = Place::new();
    let words = place.run(&["doctor"], &super::BASE).answer();
    assert!(words.contains("green   settings "), "{words}");
    assert!(
        words
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("0 red, ")),
        "{words}"
    );
}

#[test]
fn networks_that_are_not_the_proxies_own_are_named() {
    let trusting = |network| [("DOORWARD__HTTP__TRUSTED_PROXIES", network)];
    let name = "network.trusted_proxies";
    let wide = in_production(&trusting("10.0.0.0/8,128.0.0.0/2"));
    wide.says(name, "red", "128.0.0.0/2");
    assert_eq!(wide.code, 1);
    in_production(&trusting("104.16.0.0/13")).says(name, "yellow", "public and wide");
    in_production(&trusting("10.0.0.0/8,203.0.113.7/32")).says(name, "green", "");
    let forgotten = [
        ("DOORWARD__HTTP__BEHIND_PROXY", "true"),
        ("DOORWARD__HTTP__LISTEN", "0.0.0.0:8080"),
    ];
    in_production(&forgotten).says(name, "yellow", "share one limit");

    let place = Place::new();
    let wide = [&PRODUCTION[..], &trusting("128.0.0.0/2")].concat();
    let sentence = refused(&place, &wide);
    assert!(
        sentence.starts_with("network.trusted_proxies: "),
        "{sentence}"
    );
    starts_without(name, &place, &wide);
}

/// ASVS 13.3.1: what is weak is named, and never repeated.
#[test]
fn weak_secrets_are_named_and_not_repeated() {
    let text = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ=";
    let guessable = [("DOORWARD__TOKENS__KEY", text)];
    let place = Place::new();
    let report = doctor(&place, &guessable);
    report.says("secrets.token_key", "yellow", "can be guessed");
    assert!(!report.value.to_string().contains(text));
    let report = in_production(&guessable);
    report.says("secrets.token_key", "red", "can be guessed");

    place.write("keys.json", "{\"keys\": []}");
    set_mode(&place.path("keys.json"), 0o644);
    let exposed = [
        ("DOORWARD__TOKENS__KEY", ""),
        ("DOORWARD__TOKENS__KEY_FILE", "keys.json"),
    ];
    doctor(&place, &exposed).says(
        "secrets.token_key",
        "red",
        "can be read or changed by others",
    );

    let sample = [
        ("DOORWARD__DATABASE__BACKEND", "postgres"),
        (
            "DOORWARD__DATABASE__POSTGRES__URL",
            "postgres://doorward:changeme@127.0.0.1:1/x",
        ),
    ];
    let report = doctor(&place, &sample);
    report.says("secrets.database_password", "yellow", "stands in examples");
    report.says("database.reachable", "red", "cannot be used");
    assert!(!report.value.to_string().contains("changeme"));
    let report = in_production(&sample);
    report.says("secrets.database_password", "red", "stands in examples");
    report.says("settings", "red", "stands in examples");
    let light = [
        ("DOORWARD__ENVIRONMENT", "test"),
        ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4"),
    ];
    doctor(&place, &light).says("secrets.scrypt", "yellow", "passwords.scrypt");
}

#[test]
fn listeners_in_plain_text_and_open_to_all_are_named() {
    let open = [("DOORWARD__HTTP__LISTEN", "0.0.0.0:8080")];
    doctor(&Place::new(), &open).says("network.plain_text", "yellow", "http.listen = 0.0.0.0:8080");
    in_production(&open).says("network.plain_text", "red", "put a TLS proxy in front");
    let plain = [("DOORWARD__PUBLIC_URL", "http://auth.example.org")];
    doctor(&Place::new(), &plain).says("network.public_url", "yellow", "use https://");
    let everywhere = [
        ("DOORWARD__HTTP__BEHIND_PROXY", "true"),
        ("DOORWARD__METRICS__LISTEN", "0.0.0.0:9100"),
    ];
    in_production(&everywhere).says(
        "network.operators",
        "yellow",
        "metrics.listen = 0.0.0.0:9100",
    );
    let many = [("DOORWARD__HTTP__MAX_CONNECTIONS", "1000000")];
    let files = doctor(&Place::new(), &many);
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let expected = if allowed.is_some_and(|most| most < 1_000_128) {
        "yellow"
    } else {
        "green"
    };
    assert_eq!(files.level("system.files"), expected);
}

#[test]
fn a_mail_server_that_lets_nobody_in_is_named() {
    let sink = SmtpSink::start(Options {
        tls: SmtpTls::Starttls,
        auth: Some(("ann", SECRET)),
        ..Options::default()
    });
    let place = Place::new();
    let (port, ca) = (sink.port().to_string(), sink.ca_file());
    let closed = free_port().to_string();
    let with = |port, ca, password| {
        doctor(
            &place,
            &[
                ("DOORWARD__MAIL__TRANSPORT", "smtp"),
                ("DOORWARD__MAIL__FROM", "no-reply@example.org"),
                ("DOORWARD__MAIL__SMTP__HOST", "localhost"),
                ("DOORWARD__MAIL__SMTP__PORT", port),
                ("DOORWARD__MAIL__SMTP__CA_FILE", ca),
                ("DOORWARD__MAIL__SMTP__USERNAME", "ann"),
                ("DOORWARD__MAIL__SMTP__PASSWORD", password),
            ],
        )
    };
    let name = "mail.login";
    let report = with(&port, &ca, SECRET);
    report.says(name, "green", "localhost would take letters");
    assert_eq!(report.level("mail.transport"), "green");
    let report = with(&port, &ca, "wrong");
    report.says(name, "red", "535 at AUTH");
    assert_eq!(report.code, 1);
    with(&port, "", SECRET).says(name, "red", "certificate not trusted at STARTTLS");
    with(&closed, &ca, SECRET).says(name, "red", "connection refused at the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_service_that_is_away_is_named() {
    let service = BreachService::knowing(&["some password or other"]).await;
    let url = service.url.clone();
    let asked = [("DOORWARD__PASSWORDS__BREACH__BASE_URL", url.as_str())];
    let place = Place::new();
    assert_eq!(doctor(&place, &asked).level("passwords.breach"), "green");
    service.is_now(Mood::Status(500));
    doctor(&place, &asked).says("passwords.breach", "yellow", "another status than 200");
}

#[test]
fn a_node_that_the_canary_cannot_ask_is_named() {
    let place = Place::new();
    let server = place.serve(&super::BASE);
    let closed = free_port();
    let peers = |peers: &str| doctor(&place, &[("DOORWARD__CANARY__PEERS", peers)]);
    let there = format!("http://{}", server.address);
    assert_eq!(peers(&there).level("canary.peers"), "green");
    let away = format!("http://127.0.0.1:{closed}");
    let report = peers(&format!("{there},{away}"));
    report.says(
        "canary.peers",
        "yellow",
        &format!("by {away} (unreachable);"),
    );
}

/// ASVS 12.3.2.
#[test]
fn nodes_that_the_canary_asks_may_have_an_authority_of_their_own() {
    let (place, authority) = (Place::new(), Authority::new());
    let own = authority.certify(&["127.0.0.1"]);
    place.write("ca.pem", &authority.certificate);
    place.write("cert.pem", &own.certificate);
    place.write("key.pem", &own.key);
    let tls = [
        ("DOORWARD__PUBLIC_URL", "https://localhost"),
        ("DOORWARD__HTTP__TLS__CERT_FILE", "cert.pem"),
        ("DOORWARD__HTTP__TLS__KEY_FILE", "key.pem"),
    ];
    let server = place.serve(&[&super::BASE[..], &tls].concat());
    let there = format!("https://{}", server.address);
    let peers = |ca_file: &str| {
        let asked = [
            ("DOORWARD__CANARY__PEERS", there.as_str()),
            ("DOORWARD__CANARY__CA_FILE", ca_file),
        ];
        doctor(&place, &asked)
    };
    assert_eq!(peers("ca.pem").level("canary.peers"), "green");
    peers("").says("canary.peers", "yellow", "(unreachable);");
    let refusal = place
        .run(
            &["serve"],
            &[
                &super::BASE[..],
                &[
                    ("DOORWARD__CANARY__PEERS", there.as_str()),
                    ("DOORWARD__CANARY__CA_FILE", "key.pem"),
                ],
            ]
            .concat(),
        )
        .refusal();
    assert!(
        refusal.contains("canary.ca_file: key.pem has no certificate"),
        "{refusal}"
    );
}

#[test]
fn a_certificate_is_looked_at_before_it_expires() {
    let (place, authority) = (Place::new(), Authority::new());
    let own = authority.certify(&["localhost"]);
    place.write("cert.pem", &own.certificate);
    place.write("key.pem", &own.key);
    let tls = [
        ("DOORWARD__PUBLIC_URL", "https://localhost"),
        ("DOORWARD__HTTP__TLS__CERT_FILE", "cert.pem"),
        ("DOORWARD__HTTP__TLS__KEY_FILE", "key.pem"),
    ];
    assert_eq!(doctor(&place, &tls).level("tls.certificate"), "green");
    let other = Authority::new().certify(&["localhost"]);
    place.write("key.pem", &other.key);
    doctor(&place, &tls).says("tls.certificate", "red", "does not fit");
}
