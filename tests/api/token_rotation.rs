//! Changing the keys of access tokens without logging anybody out, and showing the public ones.

use std::sync::Arc;

use doorward::{
    clock::{ManualClock, Span, Timestamp},
    entropy::SystemEntropy,
    ids::LetterId,
    model::token::SecretHash,
    tokens::{KeyAlgorithm, KeyRing, Tokens, keys::KeyFile},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::Jwk};
use serde_json::Value;
use uuid::Uuid;

use super::{
    assert_refused, start_with,
    token_forge::{ALGORITHMS, decoded, one_key, with_keys},
};
use crate::harness::app::{App, Client};

fn kid_of(client: &Client) -> String {
    let header = client.token().split('.').next().expect("a header");
    let kid = decoded(header)["kid"].clone();
    kid.as_str().expect("a kid").to_owned()
}

async fn log_in_on(app: &App, node: usize) -> Client {
    let client = app.anonymous_on(node);
    client
        .log_in("ann@example.org", crate::harness::app::PASSWORD)
        .await
}

/// ASVS 9.1.3: announce, overlap, retire; every step with sessions that live through it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_change_without_logging_anybody_out() {
    for (old_alg, new_alg) in [
        (KeyAlgorithm::Hs256, KeyAlgorithm::EdDsa),
        (KeyAlgorithm::EdDsa, KeyAlgorithm::Es256),
        (KeyAlgorithm::Es256, KeyAlgorithm::Hs256),
    ] {
        let mut file = one_key(old_alg);
        let old = file.keys[0].kid.clone();
        let mut app = start_with(with_keys(&file)).await;
        app.register("ann@example.org").await;
        let before = log_in_on(&app, 0).await;
        assert_eq!(kid_of(&before), old);

        let in_an_hour = app.now().plus(Span::minutes(60));
        let new = file
            .add(new_alg, app.now(), in_an_hour, &SystemEntropy)
            .expect("a fresh key");
        let overlap = app.add_node(&with_keys(&file)).await;
        let announced = log_in_on(&app, overlap).await;
        assert_eq!(kid_of(&announced), old, "the new key does not sign yet");
        announced.me().await.expect(200);

        app.clock.advance(Span::minutes(60));
        let after = log_in_on(&app, overlap).await;
        assert_eq!(kid_of(&after), new, "now it does");
        for client in [&before, &announced, &after] {
            client.at(&app.nodes[overlap]).me().await.expect(200);
        }
        // A node that was not told of the new key cannot know its tokens.
        let unknown = after.at(&app.nodes[0]).me().await;
        assert_refused("unknown key", &unknown, 401, "token_invalid");

        assert!(file.retire(&old));
        let retired = app.add_node(&with_keys(&file)).await;
        for client in [&before, &announced] {
            let reply = client.at(&app.nodes[retired]).me().await;
            assert_refused("retired key", &reply, 401, "token_invalid");
        }
        after.at(&app.nodes[retired]).me().await.expect(200);
    }
}

/// A ring of one key of each algorithm, of which `newest` signs.
fn ring_of_all(newest: KeyAlgorithm) -> KeyFile {
    let mut file = KeyFile::default();
    for alg in ALGORITHMS {
        let sign_from = Timestamp::from_millis(if alg == newest { 1000 } else { 0 });
        file.add(alg, sign_from, sign_from, &SystemEntropy)
            .expect("a fresh key");
    }
    file
}

/// RFC 7517: what is shown is public, whole and enough to check a token with.
///
/// ASVS 11.6.1, 14.3.3.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_set_holds_public_keys_that_verify() {
    for newest in ALGORITHMS {
        let file = ring_of_all(newest);
        let app = start_with(with_keys(&file)).await;
        let ann = app.user("ann@example.org").await;
        let reply = app.anonymous().get("/.well-known/jwks.json").await;
        super::assert_sound("jwks", &reply);
        for stored in serde_json::from_str::<Value>(file.to_text().expose()).expect("JSON")["keys"]
            .as_array()
            .expect("keys")
        {
            let secret = stored["key"].as_str().expect("a key");
            assert!(!reply.text.contains(secret));
        }
        let set = reply.expect(200);
        let keys = set["keys"].as_array().expect("keys");
        let mut shown: Vec<&str> = keys.iter().filter_map(|k| k["alg"].as_str()).collect();
        shown.sort_unstable();
        assert_eq!(shown, ["ES256", "EdDSA"], "HS256 has no public half");
        for key in keys {
            let mut members: Vec<_> = key.as_object().expect("an object").keys().collect();
            members.sort();
            let expected: &[&str] = if key["kty"] == "EC" {
                &["alg", "crv", "kid", "kty", "use", "x", "y"]
            } else {
                &["alg", "crv", "kid", "kty", "use", "x"]
            };
            assert_eq!(members, expected);
        }

        let kid = kid_of(&ann);
        let Some(key) = keys.iter().find(|key| key["kid"] == kid.as_str()) else {
            assert_eq!(newest, KeyAlgorithm::Hs256);
            continue;
        };
        let jwk: Jwk = serde_json::from_value(key.clone()).expect("a JWK");
        let algorithm = match newest {
            KeyAlgorithm::EdDsa => Algorithm::EdDSA,
            _ => Algorithm::ES256,
        };
        let mut validation = Validation::new(algorithm);
        // The clock of the test stands elsewhere than that of the library.
        validation.validate_exp = false;
        validation.set_audience(&["doorward"]);
        validation.set_issuer(&["doorward"]);
        let decoding = DecodingKey::from_jwk(&jwk).expect("a public key");
        let token = jsonwebtoken::decode::<Value>(ann.token(), &decoding, &validation)
            .expect("a token that anybody can check");
        let mut claims: Vec<_> = token
            .claims
            .as_object()
            .expect("an object")
            .keys()
            .collect();
        claims.sort();
        assert_eq!(
            claims,
            [
                "aud", "exp", "gen", "iat", "iss", "jti", "nbf", "sid", "sub"
            ],
            "nothing about the person (ASVS 14.2.6)"
        );
    }
}

/// While only shared secrets are in use there is nothing to show.
#[tokio::test(flavor = "multi_thread")]
async fn a_symmetric_ring_shows_an_empty_key_set() {
    let app = start_with(with_keys(&one_key(KeyAlgorithm::Hs256))).await;
    let set = app.anonymous().get("/.well-known/jwks.json").await;
    assert_eq!(set.expect(200), serde_json::json!({"keys": []}));
}

/// A letter may wait for days, and its key be retired meanwhile: it is sent all the same, with what every node
/// makes of it.
#[test]
fn a_letter_outlives_the_key_of_its_time() {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let mut file = KeyFile::default();
    for at in [now, now.plus(Span::days(1))] {
        file.add(KeyAlgorithm::Hs256, now, at, &SystemEntropy)
            .expect("added");
    }
    let old = file.keys[0].kid.clone();
    let secrets = |file: &KeyFile| {
        let ring = KeyRing::from_file(file).expect("a ring");
        let clock = Arc::new(ManualClock::at(now));
        let tokens = Tokens::new(ring, "i", "a", clock, Arc::new(SystemEntropy));
        let letter = LetterId::from(Uuid::from_u128(7));
        let secrets = tokens.mailed_secrets(letter, now, None).expect("made");
        secrets.link.hash()
    };
    let before = secrets(&file);
    assert!(file.retire(&old));
    let after = secrets(&file);
    assert_ne!(before, after);
    assert_eq!(after, secrets(&file), "the same at every attempt");
}

/// Under which key a counter is filed, with this ring.
fn counted_with(keys: &KeyFile) -> SecretHash {
    let ring = KeyRing::from_file(keys).expect("a ring");
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
    let tokens = Tokens::new(ring, "doorward", "doorward", clock, Arc::new(SystemEntropy));
    tokens.counted("login", b"ann").expect("a key")
}

#[test]
fn a_new_key_forgets_no_failed_login_as_long_as_the_oldest_stays() {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let mut keys = KeyFile::default();
    let mut add = |after| {
        let added = keys.add(KeyAlgorithm::Hs256, now, now.plus(after), &SystemEntropy);
        added.expect("added");
        keys.clone()
    };
    let (old, both) = (add(Span::secs(0)), add(Span::minutes(10)));
    assert_eq!(counted_with(&old), counted_with(&both));
    let mut retired = both;
    retired.keys.remove(0);
    assert_ne!(counted_with(&old), counted_with(&retired));
}
