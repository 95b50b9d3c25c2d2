//! The API under a tool that sends whatever the OpenAPI document allows, and what it forbids: no server
//! error, no status and no body that is not documented.

use super::{command, installed, repository, run};
use crate::{
    harness::rounds,
    program::{KEY, Place},
};

const EMAIL: &str = "fuzz@example.org";
/// Not that of the document's examples: with those it would deactivate itself.
const PASSWORD: &str = "tortoise gravel umbrella 47";

const SETTINGS: [(&str, &str); 19] = [
    ("DOORWARD__ENVIRONMENT", "test"),
    ("DOORWARD__TOKENS__KEY", KEY),
    ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
    ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4"),
    ("DOORWARD__PASSWORDS__SCRYPT_P", "1"),
    ("DOORWARD__SESSIONS__MAX_PER_USER", "0"),
    ("DOORWARD__MAIL__TRANSPORT", "memory"),
    ("DOORWARD__HTTP__PASSWORD_GRANT", "true"),
    // It asks more than any limit allows.
    ("DOORWARD__LIMITS__LOGIN_ACCOUNT", "off"),
    ("DOORWARD__LIMITS__LOGIN_ADDRESS", "off"),
    ("DOORWARD__LIMITS__REGISTER_ADDRESS", "off"),
    ("DOORWARD__LIMITS__FORGOT_ADDRESS", "off"),
    ("DOORWARD__LIMITS__FORGOT_TARGET", "off"),
    ("DOORWARD__LIMITS__RESEND_ADDRESS", "off"),
    ("DOORWARD__LIMITS__RESEND_TARGET", "off"),
    ("DOORWARD__LIMITS__CODE_ADDRESS", "off"),
    ("DOORWARD__LIMITS__PASSWORD_CHECK", "off"),
    ("DOORWARD__LIMITS__REQUESTS", "off"),
    ("DOORWARD__LIMITS__NODE_ADDRESS", "off"),
];

/// ASVS 2.2.1, 2.2.2, 16.5.1.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_undocumented_happens_to_nobody() {
    fuzz(None).await;
}

/// ASVS 2.2.1, 2.2.2.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_undocumented_happens_to_a_user() {
    fuzz(Some("user")).await;
}

/// ASVS 2.2.1, 2.2.2.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_undocumented_happens_to_an_administrator() {
    fuzz(Some("admin")).await;
}

/// ASVS 2.2.1, 16.5.1.
async fn fuzz(who: Option<&str>) {
    let place = Place::new();
    let server = place.serve(&SETTINGS);
    let url = format!("http://{}", server.address);
    let mut variables = vec![("DOORWARD_URL", url.as_str())];
    if let Some(kind) = who {
        let args = [kind, "create", "--email", EMAIL, "--password-stdin"];
        let made = place.run_with_input(&args, &SETTINGS, PASSWORD);
        assert_eq!(made.code, 0, "{}", made.err);
        variables.extend([("DOORWARD_EMAIL", EMAIL), ("DOORWARD_PASSWORD", PASSWORD)]);
    }
    let own = repository("tests/neighbours/fuzzed");
    let own = own.to_str().expect("a plain path");
    variables.extend([
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("SCHEMATHESIS_HOOKS", "hooks"),
    ]);
    let mut fuzzer = command(installed("DOORWARD_TEST_PYTHON"), &variables);
    fuzzer
        .args(["-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); from schemathesis.cli import schemathesis; schemathesis()", own])
        .args(["--config-file", &format!("{own}/schemathesis.toml"), "--no-color", "run"])
        .args(["--checks", "all", "--seed", "1", "--no-shrink", "--continue-on-failure", "--warnings", "off"])
        .args(["--max-examples", &rounds(150).to_string()])
        .arg(format!("{url}/openapi.json"))
        .current_dir(place.path("."));
    let out = run(fuzzer).await;
    let cases = out
        .lines()
        .find_map(|line| line.trim().split_once(" generated"));
    let cases: usize = cases
        .and_then(|(n, _)| n.replace(',', "").parse().ok())
        .expect("a count");
    assert!(cases > rounds(10_000), "{out}");
    println!("{cases} cases");
}
