//! Settings: layers, refusals, secrets. Each refusal is one sentence that names the key, what is wrong
//! and what to do, and ends the program with exit code 1.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    sync::{Arc, Barrier},
    thread,
};

use doorward::{
    admin::AdminPolicy,
    clock::Timestamp,
    config::{DEFAULTS, Settings, Sources, variable},
    entropy::SystemEntropy,
    http::HttpSettings,
    passwords::PasswordPolicy,
    roles::RoleSettings,
    sessions::SessionPolicy,
    store::settings::DatabaseSettings,
    tokens::keys::KeyFile,
};
use serde::Serialize;
use serde_json::Value;

use crate::program::{KEY, Place, set_mode};

/// Settings with which production starts.
const PRODUCTION: [(&str, &str); 3] = [
    ("DOORWARD__ENVIRONMENT", "production"),
    ("DOORWARD__PUBLIC_URL", "https://auth.example.org"),
    ("DOORWARD__TOKENS__KEY", KEY),
];

fn with<'a>(base: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [base, more].concat()
}

#[track_caller]
fn refused(variables: &[(&str, &str)]) -> String {
    Place::new().run(&["config", "check"], variables).refusal()
}

#[track_caller]
fn refused_file(text: &str) -> String {
    let place = Place::new();
    place.write("my.toml", text);
    place
        .run(&["config", "check", "--config", "my.toml"], &[])
        .refusal()
}

fn in_process(variables: &[(&str, &str)]) -> Sources {
    let variables = variables
        .iter()
        .map(|(n, v)| (OsString::from(n), OsString::from(v)));
    Sources {
        folder: "nowhere".into(),
        file: None,
        variables: variables.collect(),
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    assert_eq!(
        refused_file("[sessions]\nacces_ttl = \"15m\""),
        "sessions.acces_ttl: is not a known key (my.toml); did you mean sessions.access_ttl?"
    );
    assert_eq!(
        refused_file("[sesions]\naccess_ttl = \"15m\""),
        "sesions.access_ttl: is not a known key (my.toml); did you mean sessions.access_ttl?"
    );
    assert_eq!(
        refused_file("[weather]\nforecast = true"),
        "weather.forecast: is not a known key (my.toml); `doorward config print` shows all keys"
    );
    assert_eq!(
        refused_file("\"sessions.access_ttl\" = \"1m\""),
        "\"sessions.access_ttl\": is not a known key (my.toml); did you mean sessions.access_ttl?"
    );
    assert_eq!(
        refused_file("sessions = 5"),
        "sessions: is a section, not a value (my.toml); write [sessions] and its keys below"
    );
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    assert_eq!(
        refused(&[("DOORWARD__SESSIONS__ACCES_TTL", "15m")]),
        "DOORWARD__SESSIONS__ACCES_TTL: is not a known environment variable; did you mean DOORWARD__SESSIONS__ACCESS_TTL?"
    );
    // One underscore too few would be ignored in silence.
    assert_eq!(
        refused(&[("DOORWARD_HTTP_LISTEN", "127.0.0.1:1")]),
        "DOORWARD_HTTP_LISTEN: is not a known environment variable; did you mean DOORWARD__HTTP__LISTEN?"
    );
    // What Kubernetes sets for a service called doorward is not ours.
    let kubernetes = [
        ("DOORWARD_SERVICE_HOST", "10.0.0.1"),
        ("DOORWARD_PORT", "tcp://10.0.0.1:80"),
    ];
    Place::new().run(&["config", "check"], &kubernetes).answer();
}

#[test]
fn a_wrong_type_names_key_expectation_and_source() {
    assert_eq!(
        refused_file("[sessions]\nmax_per_user = \"three\""),
        "sessions.max_per_user: must be a whole number (my.toml); correct it there"
    );
    assert_eq!(
        refused_file("[http]\nbehind_proxy = 1"),
        "http.behind_proxy: must be true or false (my.toml); correct it there"
    );
    assert_eq!(
        refused_file("[http]\ntrusted_proxies = \"10.0.0.0/8\""),
        "http.trusted_proxies: must be a list of texts, e.g. [\"a\", \"b\"] (my.toml); correct it there"
    );
    assert_eq!(
        refused_file("[database]\nbackend = true"),
        "database.backend: must be a text in quotes (my.toml); correct it there"
    );
    assert_eq!(
        refused(&[("DOORWARD__SESSIONS__MAX_PER_USER", "three")]),
        "sessions.max_per_user: must be a whole number (environment variable DOORWARD__SESSIONS__MAX_PER_USER); correct it there"
    );
    let negative = refused(&[("DOORWARD__SESSIONS__MAX_PER_USER", "-1")]);
    assert!(
        negative.starts_with("sessions.max_per_user: "),
        "{negative}"
    );
}

#[test]
fn a_value_that_means_nothing_names_what_there_is() {
    assert_eq!(
        refused(&[("DOORWARD__DATABASE__BACKEND", "mysql")]),
        "database.backend: `mysql` is unknown (environment variable DOORWARD__DATABASE__BACKEND); what it takes: sqlite, postgres (also spelled postgresql) or mongodb"
    );
    assert_eq!(
        refused_file("[sessions]\naccess_ttl = \"fifteen\""),
        "sessions.access_ttl: `fifteen` is not a length of time such as `15m`, `7d` or `1h 30m` (my.toml); what it takes: How long an access token is honoured"
    );
    assert_eq!(
        refused(&[("DOORWARD__ENVIRONMENT", "staging")]),
        "environment: `staging` is unknown (the environment); set it to development, test or production"
    );
    let network = refused(&[("DOORWARD__HTTP__TRUSTED_PROXIES", "10.0.0.0/8, home")]);
    assert!(
        network.starts_with("http.trusted_proxies[1]: "),
        "{network}"
    );
    assert!(
        network.ends_with(
            "whose X-Forwarded-*, X-Original-Method and X-Request-Id headers are believed, e.g. [\"10.0.0.0/8\"]"
        ),
        "{network}"
    );
    // A URL in the wrong place is not repeated: it may have a password in it.
    for name in [
        "DOORWARD__DATABASE__BACKEND",
        "DOORWARD__DATABASE__POSTGRES__ACQUIRE_TIMEOUT",
        "DOORWARD__HTTP__LISTEN",
        "DOORWARD__HTTP__TRUSTED_PROXIES",
        "DOORWARD__LOG__LEVEL",
        "DOORWARD__PUBLIC_URL",
        "DOORWARD__SESSIONS__ACCESS_TTL",
        "DOORWARD__TOKENS__KEY",
    ] {
        let sentence = refused(&[(name, "postgres://ann:hunter2@db/doorward")]);
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
    for name in ["DOORWARD__DATABASE__BACKEND", "DOORWARD__ENVIRONMENT"] {
        let sentence = refused(&[(name, "postgres://ann:hunter2@db/doorward")]);
        assert!(
            sentence.contains("is unknown (") && !sentence.contains("hunter2"),
            "{sentence}"
        );
    }
    let mongodb = [
        ("DOORWARD__DATABASE__BACKEND", "mongodb"),
        ("DOORWARD__DATABASE__MONGODB__URL", "mongodb://localhost"),
        ("DOORWARD__DATABASE__MONGODB__DATABASE", "a/b"),
    ];
    assert_eq!(
        refused(&mongodb),
        "database.mongodb.database: `a/b` cannot be the name of a database of Doorward's; use up to 63 letters, digits, _ and -, e.g. doorward"
    );
    let listen = refused(&[("DOORWARD__HTTP__LISTEN", "here")]);
    assert!(listen.starts_with("http.listen: "), "{listen}");
}

/// ASVS 2.2.3.
#[test]
fn what_contradicts_itself_is_refused() {
    let ttl = |access, idle, absolute| {
        refused(&[
            ("DOORWARD__SESSIONS__ACCESS_TTL", access),
            ("DOORWARD__SESSIONS__IDLE_TTL", idle),
            ("DOORWARD__SESSIONS__ABSOLUTE_TTL", absolute),
        ])
    };
    assert_eq!(
        ttl("7d", "7d", "30d"),
        "sessions.access_ttl: 7days is not shorter than sessions.idle_ttl (7days); lower it or raise sessions.idle_ttl"
    );
    assert_eq!(
        ttl("15m", "31d", "30d"),
        "sessions.idle_ttl: 1month 13h 26m 24s is longer than sessions.absolute_ttl (30days); lower it or raise sessions.absolute_ttl"
    );
    assert_eq!(
        refused(&[
            ("DOORWARD__TOKENS__KEY", KEY),
            ("DOORWARD__TOKENS__KEY_FILE", "keys.json")
        ]),
        "tokens.key: is set together with tokens.key_file; set only one of the two"
    );
    assert_eq!(
        refused(&[
            ("DOORWARD__DATABASE__POSTGRES__URL", "postgres://a"),
            ("DOORWARD__DATABASE__POSTGRES__URL_FILE", "url")
        ]),
        "database.postgres.url: is set together with database.postgres.url_file; set only one of the two"
    );
    assert_eq!(
        refused(&[("DOORWARD__DATABASE__BACKEND", "postgres")])
            .split(';')
            .next(),
        Some("database.postgres.url: is empty")
    );
}

/// What browsers would do otherwise than was meant, or not at all.
#[test]
fn settings_about_browsers_and_clients_are_judged() {
    for (name, value, sentence) in [
        (
            "DOORWARD__HTTP__ALLOWED_ORIGINS",
            "https://app.example.org, *",
            "http.allowed_origins: `*` is not an origin; write scheme, host and port as browsers do, e.g. https://app.example.org",
        ),
        (
            "DOORWARD__HTTP__REDIRECT_ORIGINS",
            "https://app.example.org/notes",
            "http.redirect_origins: `https://app.example.org/notes` is not an origin; write scheme, host and port as browsers do, e.g. https://app.example.org",
        ),
        (
            "DOORWARD__HTTP__COOKIE_DOMAIN",
            "localhost",
            "http.cookie_domain: `localhost` is not a domain; write e.g. example.org, or leave it empty",
        ),
        (
            "DOORWARD__HTTP__COOKIE_DOMAIN",
            "example.org",
            "http.cookie_domain: `example.org` is not a domain of localhost; browsers would not take the cookie; correct it, or leave it empty",
        ),
        (
            "DOORWARD__HTTP__LOGIN_PAGE",
            "/sign-in",
            "http.login_page: `/sign-in` is not an address; write e.g. https://app.example.org/login, or leave it empty",
        ),
        (
            "DOORWARD__HTTP__COMPAT_PREFIX",
            "/balance_hub/",
            "http.compat_prefix: `/balance_hub/` is not a path without a slash at the end; write e.g. /balance_hub, or leave it empty",
        ),
        (
            "DOORWARD__HTTP__COMPAT_PREFIX",
            "/v1",
            "http.compat_prefix: `/v1` begins with a path of ours; write e.g. /balance_hub, or leave it empty",
        ),
        (
            "DOORWARD__SESSIONS__REFRESH_GRACE",
            "6m",
            "sessions.refresh_grace: 6m is longer than 5m; set it to 10s; all that time a stolen refresh token that was used is not noticed",
        ),
        (
            "DOORWARD__CLIENTS",
            "notes",
            "clients: entry 1 has no hash; make it with `doorward key client ID`",
        ),
    ] {
        assert_eq!(refused(&[(name, value)]), sentence);
    }
    for prefix in [
        "balance_hub",
        "/",
        "//a",
        "/..",
        "/a/./b",
        "/:id",
        "/a b",
        "/a*",
        "/dev",
    ] {
        let said = refused(&[("DOORWARD__HTTP__COMPAT_PREFIX", prefix)]);
        assert!(said.starts_with("http.compat_prefix: "), "{prefix}: {said}");
    }
    let compat = [
        ("DOORWARD__HTTP__COMPAT", "true"),
        ("DOORWARD__HTTP__COMPAT_PREFIX", "/apps/balance_hub"),
    ];
    let check = ["config", "check"];
    let allowed = Place::new().run(&check, &with(&PRODUCTION, &compat));
    allowed.answer();
    let within = [
        ("DOORWARD__PUBLIC_URL", "https://auth.example.org"),
        ("DOORWARD__HTTP__COOKIE_DOMAIN", "example.org"),
        ("DOORWARD__HTTP__ALLOWED_ORIGINS", "http://app.example.org"),
    ];
    Place::new().run(&["config", "check"], &within).answer();
    let plain = refused(&with(&PRODUCTION, &within[2..]));
    assert_eq!(
        plain,
        "http.allowed_origins: `http://app.example.org` is plain text; use https:// in production"
    );
    let page = |address| {
        refused(&with(
            &PRODUCTION,
            &[("DOORWARD__HTTP__LOGIN_PAGE", address)],
        ))
    };
    assert_eq!(
        page("http://app.example.org/login"),
        "http.login_page: `http://app.example.org/login` is plain text; use https:// in production"
    );
    let with_password = page("https://ann:hunter2@app.example.org/login");
    assert!(!with_password.contains("hunter2"), "{with_password}");
}

#[test]
fn settings_of_the_listener_are_judged() {
    for (name, value, sentence) in [
        (
            "DOORWARD__HTTP__HEADER_TIMEOUT",
            "0s",
            "http.header_timeout: 0s is outside 100ms to 1h; set it to 10s",
        ),
        (
            "DOORWARD__HTTP__MAX_IN_FLIGHT",
            "0",
            "http.max_in_flight: 0 is outside 1 to 1000000; set it to 4096",
        ),
        (
            "DOORWARD__HTTP__TLS__CERT_FILE",
            "cert.pem",
            "http.tls.key_file: is missing, and cert_file is set; name the certificate's key",
        ),
        (
            "DOORWARD__HTTP__TLS__CLIENT_AUTH",
            "required",
            "http.tls.client_auth: asks for certificates without TLS; set http.tls.cert_file and http.tls.key_file",
        ),
    ] {
        assert_eq!(refused(&[(name, value)]), sentence);
    }
}

/// ASVS 12.3.1: who is told something is told over TLS.
#[test]
fn settings_about_who_is_told_are_judged() {
    for (name, value, sentence) in [
        (
            "DOORWARD__TRACING__OTLP__ENDPOINT",
            "collector:4318",
            "tracing.otlp.endpoint: is not the address of a collector; write it as http://127.0.0.1:4318 or https://otlp.example.org, or leave it empty",
        ),
        (
            "DOORWARD__TRACING__OTLP__ENDPOINT",
            "http://collector.example.org:4318",
            "tracing.otlp.endpoint: is plain text; use https://, or a collector on this machine",
        ),
        (
            "DOORWARD__TRACING__OTLP__HEADERS",
            "authorization: Bearer hunter2",
            "tracing.otlp.headers: are not headers; write them as name=value, with commas between them, as they are sent",
        ),
        (
            "DOORWARD__TRACING__OTLP__SAMPLE",
            "1.5",
            "tracing.otlp.sample: 1.5 is not from 0 to 1; set it to 1 for all, or e.g. to 0.1 for every tenth",
        ),
        (
            "DOORWARD__TRACING__OTLP__SAMPLE",
            "some",
            "tracing.otlp.sample: must be a number from 0 to 1, e.g. 0.1 (environment variable DOORWARD__TRACING__OTLP__SAMPLE); correct it there",
        ),
        (
            "DOORWARD__TRACING__OTLP__SERVICE_NAME",
            "",
            "tracing.otlp.service_name: is empty; name this service, e.g. doorward",
        ),
        (
            "DOORWARD__SENTRY__DSN",
            "https://hunter2.example.org/7",
            "sentry.dsn: is not a DSN; copy it from the project's settings: https://KEY@HOST/PROJECT",
        ),
        (
            "DOORWARD__SENTRY__DSN",
            "http://hunter2@sentry.example.org/7",
            "sentry.dsn: is plain text; use https://, or a collector on this machine",
        ),
        (
            "DOORWARD__SENTRY__SAMPLE",
            "NaN",
            "sentry.sample: NaN is not from 0 to 1; set it to 1 for all, or e.g. to 0.1 for every tenth",
        ),
    ] {
        assert_eq!(refused(&[(name, value)]), sentence);
    }
    let place = Place::new();
    place.write(
        "my.toml",
        "[tracing.otlp]\nsample = 1\n[sentry]\nsample = 0.25",
    );
    let print = ["config", "print", "--json", "--config", "my.toml"];
    let printed = place.run(&print, &[]).json();
    assert_eq!(
        (
            &printed["tracing"]["otlp"]["sample"],
            &printed["sentry"]["sample"]
        ),
        (&1.0.into(), &0.25.into())
    );
}

/// ASVS 6.3.2, 11.2.3, 13.2.3, 13.3.1.
#[test]
fn production_refuses_missing_and_guessable_secrets() {
    Place::new().run(&["config", "check"], &PRODUCTION).answer();
    assert_eq!(
        refused(&PRODUCTION[..2]),
        "tokens.key: is missing, and so is tokens.key_file; run `doorward key new --file token-keys.json` and set tokens.key_file to that file"
    );
    let key = |key| refused(&with(&PRODUCTION[..2], &[("DOORWARD__TOKENS__KEY", key)]));
    for (guessable, why) in [
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "its bytes follow a pattern",
        ),
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "its bytes follow a pattern",
        ),
        (
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "it is text, not random bytes",
        ),
        (
            "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=",
            "its bytes repeat",
        ),
    ] {
        let sentence = key(guessable);
        assert!(sentence.starts_with("tokens.key: key `"), "{sentence}");
        assert!(
            sentence.contains(&format!("can be guessed: {why};")),
            "{sentence}"
        );
        assert!(!sentence.contains(guessable), "{sentence}");
    }
    let database = |url| {
        let variables = [
            ("DOORWARD__DATABASE__BACKEND", "postgres"),
            ("DOORWARD__DATABASE__POSTGRES__URL", url),
        ];
        Place::new().run(&["config", "check"], &with(&PRODUCTION, &variables))
    };
    assert_eq!(
        database("postgres://doorward:secret@db.example.org/doorward").refusal(),
        "database.postgres.url: has a password that stands in examples; give the database's user another one, e.g. from `openssl rand -hex 24`"
    );
    database("postgres://doorward:1f0c2b@db.example.org/doorward").answer();
    assert!(key("c2hvcnQ=").starts_with("tokens.key: is 5 bytes long instead of 32; "));
    assert!(key("not base64!").starts_with("tokens.key: is not base64; "));
}

#[test]
fn production_refuses_plain_text_and_weak_choices() {
    let production = |name, value| refused(&with(&PRODUCTION, &[(name, value)]));
    assert_eq!(
        production("DOORWARD__HTTP__LISTEN", "0.0.0.0:8080"),
        "http.listen: 0.0.0.0:8080 takes plain text from other machines; listen on 127.0.0.1, set http.tls.cert_file, or put a TLS proxy in front and set http.behind_proxy = true"
    );
    let operators = production("DOORWARD__HTTP__ADMIN_LISTEN", "[::]:9090");
    assert!(
        operators.starts_with("http.admin_listen: [::]:9090 takes plain text"),
        "{operators}"
    );
    for own in ["127.0.0.1:80", "[::1]:80", "localhost:80"] {
        let variables = with(&PRODUCTION, &[("DOORWARD__HTTP__LISTEN", own)]);
        Place::new().run(&["config", "check"], &variables).answer();
    }
    let proxy = [
        ("DOORWARD__HTTP__LISTEN", "0.0.0.0:8080"),
        ("DOORWARD__HTTP__BEHIND_PROXY", "true"),
    ];
    Place::new()
        .run(&["config", "check"], &with(&PRODUCTION, &proxy))
        .answer();

    for everybody in ["0.0.0.0/0", "10.0.0.0/8, ::/0"] {
        let sentence = production("DOORWARD__HTTP__TRUSTED_PROXIES", everybody);
        assert!(
            sentence.starts_with("http.trusted_proxies: ")
                && sentence.ends_with(
                    "everybody's word about who they are; name the networks of your proxies"
                ),
            "{sentence}"
        );
    }
    assert_eq!(
        production("DOORWARD__DATABASE__SQLITE__SYNCHRONOUS", "normal"),
        "database.sqlite.synchronous: may lose acknowledged changes in a power cut; set it to full in production"
    );
    assert!(
        production("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "14")
            .starts_with("passwords.scrypt_log_n: N=2^14, r=8, p=3 is too weak; ")
    );
}

/// ASVS 11.4.2.
#[test]
fn weak_scrypt_is_for_tests_only() {
    let weak = [("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4")];
    assert!(refused(&weak).starts_with("passwords.scrypt_log_n: N=2^4, r=8, p=3 is too weak; "));
    let test = [
        ("DOORWARD__ENVIRONMENT", "test"),
        ("DOORWARD__TOKENS__KEY", KEY),
    ];
    Place::new()
        .run(&["config", "check"], &with(&test, &weak))
        .answer();
}

#[test]
fn the_public_url_is_a_url() {
    for bad in [
        "auth.example.org",
        "ftp://example.org",
        "https://",
        "https://example.org/",
        "",
        "https://u:p@example.org",
        "https://example.org?a=b",
        "https://example.org#top",
        "https://example.org/auth",
        "http:// x",
    ] {
        let sentence = refused(&[("DOORWARD__PUBLIC_URL", bad)]);
        assert!(sentence.starts_with("public_url: "), "{bad:?}: {sentence}");
    }
    let production = |url| with(&PRODUCTION, &[("DOORWARD__PUBLIC_URL", url)]);
    assert_eq!(
        refused(&production("http://auth.example.org")),
        "public_url: `http://auth.example.org` is plain text; use https:// in production"
    );
    let password = refused(&[("DOORWARD__PUBLIC_URL", "https://ann:hunter2@example.org")]);
    assert_eq!(
        password,
        "public_url: it has a user name, a query or a fragment; write it as https://auth.example.org"
    );
    for good in ["http://localhost:8080", "http://[::1]:8080"] {
        Place::new()
            .run(&["config", "check"], &production(good))
            .answer();
    }
}

/// Roles are named by whoever sets them, in files and in variables.
#[test]
fn roles_are_read_and_judged() {
    let place = Place::new();
    let file = "[roles]\nsupport = [\"users:read\", \"billing:write\"]\nhelp-desk = []\n";
    place.write("my.toml", file);
    let variable = [("DOORWARD__ROLES__CLERK", "outbox:manage, users:read")];
    let print = ["config", "print", "--json", "--config", "my.toml"];
    let printed = place.run(&print, &variable).json();
    let wanted = serde_json::json!({
        "clerk": ["outbox:manage", "users:read"],
        "help-desk": [],
        "support": ["users:read", "billing:write"],
    });
    assert_eq!(printed["roles"], wanted);
    let check = ["config", "check", "--config", "my.toml"];
    place.run(&check, &variable).answer();

    assert_eq!(
        refused(&[("DOORWARD__ROLES__SUPPORT", "users:read,users:reed")]),
        "roles.support: `users:reed` is none of Doorward's permissions; did you mean users:read? Names of your own \
         begin otherwise; correct it, e.g. [\"users:read\"]"
    );
    assert_eq!(
        refused(&[("DOORWARD__ROLES__ADMIN", "users:read")]),
        "roles.admin: is the built-in role, which cannot be changed; choose another name"
    );
    assert!(
        refused(&[("DOORWARD__ROLES__1ST", "users:read")])
            .starts_with("roles.1st: `1st` is not the name of a role; ")
    );
    assert!(refused(&[("DOORWARD__ROLES__A__B", "x")]).starts_with("DOORWARD__ROLES__A__B: "));
    assert!(
        refused_file("[roles]\nsupport = \"users:read\"")
            .starts_with("roles.support: must be a list of texts")
    );
    assert!(refused_file("roles = [\"admin\"]").starts_with("roles: is a section"));
    assert!(refused_file("[roles.a]\nb = []").starts_with("roles.a.b: is not a known key"));
    assert!(
        refused(&[("DOORWARD__ADMIN__STEP_UP", "5s")])
            .starts_with("admin.step_up: 5s is neither 0s nor 1m to 365d; ")
    );
}

#[test]
fn later_layers_win() {
    let place = Place::new();
    let audience = |variables: &[(&str, &str)], args: &[&str]| {
        let args = [&["config", "print", "--json"], args].concat();
        let printed = place.run(&args, variables).json();
        (
            printed["tokens"]["audience"].clone(),
            printed["passwords"]["min_length"].clone(),
        )
    };
    assert_eq!(
        audience(&[], &[]),
        ("doorward".into(), 8.into()),
        "built in, for development"
    );
    place.write(
        "config/default.toml",
        "[tokens]\naudience = \"a\"\n[passwords]\nmin_length = 20",
    );
    assert_eq!(
        audience(&[], &[]),
        ("a".into(), 8.into()),
        "the overlay wins over default.toml"
    );
    place.write("config/development.toml", "[tokens]\naudience = \"b\"");
    assert_eq!(audience(&[], &[]), ("b".into(), 8.into()));
    place.write(
        "my.toml",
        "[tokens]\naudience = \"c\"\n[passwords]\nmin_length = 30",
    );
    let mine = ["--config", "my.toml"];
    assert_eq!(audience(&[], &mine), ("c".into(), 30.into()));
    let variables = [("DOORWARD__TOKENS__AUDIENCE", "d")];
    assert_eq!(audience(&variables, &mine), ("d".into(), 30.into()));
}

#[test]
fn the_environment_is_chosen_before_its_overlay_is_read() {
    let place = Place::new();
    let minimum = |variables: &[(&str, &str)], args: &[&str]| {
        let args = [&["config", "print", "--json"], args].concat();
        place.run(&args, variables).json()["passwords"]["min_length"].clone()
    };
    place.write("config/production.toml", "[passwords]\nmin_length = 20");
    place.write("config/test.toml", "[passwords]\nmin_length = 10");
    assert_eq!(minimum(&[], &[]), 8);
    place.write("config/default.toml", "environment = \"production\"");
    assert_eq!(minimum(&[], &[]), 20);
    place.write("my.toml", "environment = \"test\"");
    assert_eq!(minimum(&[], &["--config", "my.toml"]), 10);
    let development = [("DOORWARD__ENVIRONMENT", "development")];
    assert_eq!(minimum(&development, &["--config", "my.toml"]), 8);
    place.write("config/development.toml", "environment = \"test\"");
    assert_eq!(
        place.run(&["config", "check"], &development).refusal(),
        "environment: cannot be set in config/development.toml, which is read because of it; take the line out"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let place = Place::new();
    let missing = place
        .run(&["config", "check", "--config", "none.toml"], &[])
        .refusal();
    assert!(
        missing.starts_with("none.toml: cannot be read: "),
        "{missing}"
    );
    let broken = refused_file("[tokens]\nkey = \"hunter2");
    assert!(broken.starts_with("my.toml: is not TOML ("), "{broken}");
    assert!(
        broken.contains("line 2") && !broken.contains("hunter2"),
        "{broken}"
    );
}

/// ASVS 13.3.1, 16.2.5.
#[test]
fn secrets_are_never_printed() {
    let place = Place::new();
    place.write("url", "mongodb://ann:hunter2@db.example.org/\n");
    let variables = [
        ("DOORWARD__TOKENS__KEY", KEY),
        (
            "DOORWARD__DATABASE__POSTGRES__URL",
            "postgres://ann:hunter2@db.example.org/doorward",
        ),
        ("DOORWARD__DATABASE__MONGODB__URL_FILE", "url"),
        ("DOORWARD__TRACING__OTLP__HEADERS", "x-key=hunter2"),
        (
            "DOORWARD__SENTRY__DSN",
            "https://hunter2@sentry.example.org/7",
        ),
    ];
    for args in [&["config", "print"][..], &["config", "print", "--json"]] {
        let printed = place.run(args, &variables).answer();
        assert_eq!(printed.matches("***").count(), 5, "{printed}");
        assert!(
            !printed.contains("hunter2") && !printed.contains(KEY),
            "{printed}"
        );
    }
}

#[test]
fn what_config_print_prints_can_be_read_again() {
    let place = Place::new();
    let variables = [
        ("DOORWARD__TOKENS__AUDIENCE", "a \"quoted\" \\ name\u{7f}\n"),
        (
            "DOORWARD__HTTP__TRUSTED_PROXIES",
            "10.0.0.0/8,192.168.1.7/32",
        ),
    ];
    let printed = place.run(&["config", "print"], &variables).answer();
    place.write("my.toml", &printed);
    let again = place
        .run(&["config", "print", "--config", "my.toml"], &[])
        .answer();
    assert_eq!(again, printed);
}

#[test]
fn both_spellings_of_postgres_are_accepted() {
    for spelling in ["postgres", "postgresql"] {
        let printed = Place::new()
            .run(
                &["config", "print", "--json"],
                &[("DOORWARD__DATABASE__BACKEND", spelling)],
            )
            .json();
        assert_eq!(printed["database"]["backend"], "postgres");
    }
}

/// The default file is the documentation of the settings, so it may neither lack a key nor name one
/// that is gone.
#[test]
fn every_setting_is_documented_in_the_default_file() {
    let settings = Settings::load(&in_process(&[])).expect("the defaults hold");
    let mut in_code = BTreeMap::new();
    flatten(
        "",
        &serde_json::to_value(&settings).expect("plain values"),
        &mut in_code,
    );

    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut documented = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ") {
            let key = format!("{section}{name}");
            assert_eq!(
                comment.pop(),
                Some(variable(&key).as_str()),
                "the line above {key}"
            );
            assert!(!comment.is_empty(), "{key} says nothing about itself");
            documented.push(key);
        }
        comment.clear();
    }
    documented.sort();
    let in_code: Vec<String> = in_code.into_keys().collect();
    assert_eq!(documented, in_code);
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&key, value, into);
            }
        }
        plain => drop(into.insert(prefix.to_owned(), plain.clone())),
    }
}

/// What an embedder gets without a file is what the server gets from its default file.
#[test]
fn the_default_file_says_what_the_modules_say() {
    let test = [("DOORWARD__ENVIRONMENT", "test")];
    let settings = Settings::load(&in_process(&test)).expect("the defaults hold");
    same(&settings.http, &HttpSettings::default());
    same(&settings.database, &DatabaseSettings::default());
    same(&settings.sessions, &SessionPolicy::default());
    same(&settings.passwords, &PasswordPolicy::default());
    same(&settings.roles, &RoleSettings::default());
    same(&settings.admin, &AdminPolicy::default());
}

#[track_caller]
fn same<T: Serialize>(file: &T, code: &T) {
    assert_eq!(
        serde_json::to_value(file).ok(),
        serde_json::to_value(code).ok()
    );
}

/// ASVS 13.3.1, 13.3.2.
#[test]
fn files_of_secrets_are_read_only_when_well_kept() {
    let place = Place::new();
    let check = |file| {
        let key = [("DOORWARD__TOKENS__KEY_FILE", file)];
        place.run(&["config", "check"], &key)
    };
    let missing = check("keys.json").refusal();
    assert!(
        missing.starts_with("tokens.key_file: keys.json cannot be read: "),
        "{missing}"
    );
    assert!(
        missing.ends_with("; check its name and permissions"),
        "{missing}"
    );

    place
        .run(&["key", "new", "--file", "keys.json"], &[])
        .answer();
    assert_eq!(check("keys.json").answer(), "ok\n");
    for mode in [0o604, 0o620, 0o666] {
        set_mode(&place.path("keys.json"), mode);
        assert_eq!(
            check("keys.json").refusal(),
            format!(
                "tokens.key_file: keys.json can be read or changed by others (mode 0{mode:o}); run `chmod 600` on it"
            )
        );
    }
    set_mode(&place.path("keys.json"), 0o440);
    assert_eq!(check("keys.json").answer(), "ok\n", "a group may read");

    place.write("broken.json", "{\"keys\": [{\"kid\": \"hunter2\"}]}");
    let broken = check("broken.json").refusal();
    assert!(
        broken.starts_with("tokens.key_file: is not a key file (line 1, "),
        "{broken}"
    );
    assert!(!broken.contains("hunter2"), "{broken}");
    fs::create_dir(place.path("folder")).expect("made");
    assert_eq!(
        check("folder").refusal(),
        "tokens.key_file: folder is not a file; name a file"
    );

    let url = [
        ("DOORWARD__DATABASE__BACKEND", "postgres"),
        ("DOORWARD__DATABASE__POSTGRES__URL_FILE", "url"),
        ("DOORWARD__TOKENS__KEY", KEY),
    ];
    let missing = place.run(&["config", "check"], &url).refusal();
    assert!(
        missing.starts_with("database.postgres.url_file: url cannot be read: "),
        "{missing}"
    );
    place.write("url", "postgres://ann:hunter2@db.example.org/doorward\n");
    place.run(&["config", "check"], &url).answer();
}

#[test]
fn the_schema_of_attributes_is_read_at_the_start() {
    let place = Place::new();
    let check = || {
        let schema = [("DOORWARD__ACCOUNTS__ATTRIBUTES_SCHEMA", "schema.json")];
        place.run(&["config", "check"], &schema)
    };
    let missing = check().refusal();
    assert!(
        missing.starts_with("accounts.attributes_schema: schema.json cannot be read: "),
        "{missing}"
    );
    place.write("schema.json", "{\"type\": 5}");
    let broken = check().refusal();
    assert!(
        broken.starts_with("accounts.attributes_schema: is not a JSON Schema: "),
        "{broken}"
    );
    place.write("schema.json", "{\"type\": \"object\"}");
    check().answer();
}

/// Of several processes that start at once in development, one makes the key and all use it.
#[test]
fn the_development_key_is_made_once() {
    let place = Place::new();
    let path = place.path("new/folder/doorward.db");
    let path = path.to_str().expect("UTF-8");
    let sources = in_process(&[("DOORWARD__DATABASE__SQLITE__PATH", path)]);
    let start = Arc::new(Barrier::new(8));
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let (start, sources) = (Arc::clone(&start), sources.clone());
            thread::spawn(move || {
                let settings = Settings::load(&sources).expect("valid");
                start.wait();
                settings
                    .make_missing_key(Timestamp::EPOCH, &SystemEntropy)
                    .expect("made");
                let file = settings.key_file().expect("beside the database");
                fs::read_to_string(file).expect("whole")
            })
        })
        .collect();
    let texts: Vec<String> = racers
        .into_iter()
        .map(|r| r.join().expect("no panic"))
        .collect();
    assert!(
        texts.iter().all(|text| *text == texts[0]),
        "all see one key"
    );
    assert_eq!(KeyFile::parse(&texts[0]).expect("a key file").keys.len(), 1);
    let left: Vec<_> = fs::read_dir(place.path("new/folder"))
        .expect("there")
        .collect();
    assert_eq!(left.len(), 1, "no draft is left: {left:?}");
}

/// The files for containers would set a variable that is not there in silence only until the start.
#[test]
fn the_files_for_containers_set_variables_that_exist() {
    let settings = Settings::load(&in_process(&[])).expect("the defaults hold");
    let mut known = BTreeMap::new();
    flatten(
        "",
        &serde_json::to_value(&settings).expect("plain values"),
        &mut known,
    );
    let known: Vec<String> = known.keys().map(|key| variable(key)).collect();
    let mut named = 0;
    for text in [
        include_str!("../Dockerfile"),
        include_str!("../compose.yaml"),
    ] {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("DOORWARD_") {
                named += 1;
                assert!(known.iter().any(|k| k == word), "{word}");
            }
        }
    }
    assert!(named > 10, "only {named} found");
}

#[test]
fn an_unmigrated_database_stops_the_start() {
    let place = Place::new();
    let variables = with(&PRODUCTION, &[("DOORWARD__HTTP__LISTEN", "127.0.0.1:0")]);
    assert_eq!(
        place.run(&["serve"], &variables).refusal(),
        "database.auto_migrate: is false and the database lacks 0001_users_and_sessions, 0002_refresh_tokens, 0003_mail, 0004_limits, 0005_roles, 0006_sweeping, 0007_audit; run `doorward migrate`, or set it to true"
    );
    assert_eq!(
        place.run(&["migrate"], &variables).answer(),
        "applied 0001_users_and_sessions\napplied 0002_refresh_tokens\napplied 0003_mail\napplied 0004_limits\napplied 0005_roles\napplied 0006_sweeping\napplied 0007_audit\n"
    );
    drop(place.serve(&variables));

    let fresh = Place::new();
    drop(fresh.serve(&with(
        &variables,
        &[("DOORWARD__DATABASE__AUTO_MIGRATE", "true")],
    )));
}

#[test]
fn an_unreachable_database_stops_the_start() {
    let place = Place::new();
    let serve = |more: &[(&str, &str)]| {
        place
            .run(&["serve"], &with(&[("DOORWARD__TOKENS__KEY", KEY)], more))
            .refusal()
    };
    // Nothing listens on port 1.
    for (backend, key, url) in [
        (
            "postgres",
            "DOORWARD__DATABASE__POSTGRES__URL",
            "postgres://ann:hunter2@127.0.0.1:1/x",
        ),
        (
            "mongodb",
            "DOORWARD__DATABASE__MONGODB__URL",
            "mongodb://ann:hunter2@127.0.0.1:1/",
        ),
    ] {
        let sentence = serve(&[("DOORWARD__DATABASE__BACKEND", backend), (key, url)]);
        let named = format!("database.{backend}.url: ");
        assert!(
            sentence.starts_with(&named) && sentence.contains("; "),
            "{sentence}"
        );
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
    place.write("file", "");
    let sentence = serve(&[("DOORWARD__DATABASE__SQLITE__PATH", "file/doorward.db")]);
    assert!(
        sentence.starts_with("database.sqlite.path: the database cannot be used: "),
        "{sentence}"
    );
}
