//! Everything needed to forge access tokens: the server's keys, a genuine token, other people's keys.

use std::sync::Arc;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use doorward::{
    clock::{Span, Timestamp},
    entropy::SystemEntropy,
    sessions::SessionPolicy,
    tokens::{KeyAlgorithm, KeyRing, keys::KeyFile},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::{Value, json};

use super::{assert_refused, start_with};
use crate::harness::app::{App, Client, Setup};

pub(super) const ALGORITHMS: [KeyAlgorithm; 3] = [
    KeyAlgorithm::Hs256,
    KeyAlgorithm::EdDsa,
    KeyAlgorithm::Es256,
];

/// Setup whose nodes hold this ring and whose users may hold several sessions.
pub(super) fn with_keys(file: &KeyFile) -> Setup {
    let file = file.clone();
    Setup {
        keys: Arc::new(move || KeyRing::from_file(&file).expect("a ring")),
        sessions: SessionPolicy {
            max_per_user: 10,
            access_ttl: Span::minutes(180),
            ..SessionPolicy::default()
        },
        ..Setup::default()
    }
}

/// A file of one fresh key that signs at once.
pub(super) fn one_key(alg: KeyAlgorithm) -> KeyFile {
    let mut file = KeyFile::default();
    let long_ago = Timestamp::from_millis(0);
    file.add(alg, long_ago, long_ago, &SystemEntropy)
        .expect("a fresh key");
    file
}

/// The secret bytes of the first key of a file.
pub(super) fn secret_of(file: &KeyFile) -> Vec<u8> {
    let text: Value = serde_json::from_str(file.to_text().expose()).expect("JSON");
    let key = text["keys"][0]["key"].as_str().expect("a key");
    STANDARD.decode(key).expect("base64")
}

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The JSON of a segment of a token.
pub(super) fn decoded(segment: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(segment).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A key that signs tokens, whoever has it.
pub(super) struct Signer {
    key: EncodingKey,
    alg: Algorithm,
}

impl Signer {
    pub(super) fn of(file: &KeyFile) -> Self {
        let secret = secret_of(file);
        match file.keys[0].alg {
            KeyAlgorithm::Hs256 => Self::hmac(&secret),
            KeyAlgorithm::EdDsa => Self {
                key: EncodingKey::from_ed_der(&secret),
                alg: Algorithm::EdDSA,
            },
            KeyAlgorithm::Es256 => Self {
                key: EncodingKey::from_ec_der(&secret),
                alg: Algorithm::ES256,
            },
        }
    }

    pub(super) fn hmac(secret: &[u8]) -> Self {
        Self {
            key: EncodingKey::from_secret(secret),
            alg: Algorithm::HS256,
        }
    }

    /// `header` and `payload` are segments already.
    pub(super) fn sign(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = sign(message.as_bytes(), &self.key, self.alg).expect("signed");
        format!("{message}.{signature}")
    }
}

/// A server whose keys the test knows, and a user of it.
pub(super) struct Forge {
    pub(super) app: App,
    pub(super) alg: KeyAlgorithm,
    pub(super) ann: Client,
    /// The server's own key.
    pub(super) signer: Signer,
    /// The three segments of a genuine token.
    pub(super) header: String,
    pub(super) payload: String,
    pub(super) signature: String,
}

impl Forge {
    pub(super) async fn new(alg: KeyAlgorithm) -> Self {
        let file = one_key(alg);
        let app = start_with(with_keys(&file)).await;
        let ann = app.user("ann@example.org").await;
        let parts: Vec<String> = ann.token().split('.').map(str::to_owned).collect();
        let [header, payload, signature] = parts.try_into().expect("three segments");
        let forge = Self {
            app,
            alg,
            ann,
            signer: Signer::of(&file),
            header,
            payload,
            signature,
        };
        // Without this, all refusals below would prove nothing.
        let resigned = forge.signer.sign(&forge.header, &forge.payload);
        forge.ann.with_token(&resigned).me().await.expect(200);
        forge
    }

    pub(super) fn header_json(&self) -> Value {
        decoded(&self.header)
    }

    pub(super) fn claims(&self) -> Value {
        decoded(&self.payload)
    }

    /// A token with this header, signed by the server's key.
    pub(super) fn with_header(&self, header: &Value) -> String {
        self.signer
            .sign(&base64url(header.to_string()), &self.payload)
    }

    /// A token with this payload, signed by the server's key under its own header.
    pub(super) fn with_payload(&self, payload: impl AsRef<[u8]>) -> String {
        self.signer.sign(&self.header, &base64url(payload))
    }

    /// As [`Self::with_payload`], with one claim set.
    pub(super) fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        self.with_payload(claims.to_string())
    }

    /// As [`Self::with_payload`], with one claim left out.
    pub(super) fn without_claim(&self, name: &str) -> String {
        let mut claims = self.claims();
        claims.as_object_mut().expect("an object").remove(name);
        self.with_payload(claims.to_string())
    }

    /// Fails unless the token opens nothing and ends nothing.
    pub(super) async fn refuses(&self, what: &str, token: &str) {
        let what = format!("{:?}, {what}", self.alg);
        let client = self.ann.with_token(token);
        assert_refused(&what, &client.me().await, 401, "token_invalid");
        let logout = client.call("/v1/auth/logout").await;
        assert_refused(&what, &logout, 401, "token_invalid");
    }

    /// Fails unless the token says what it should and its session is not there.
    pub(super) async fn finds_no_session(&self, what: &str, token: &str) {
        let reply = self.ann.with_token(token).me().await;
        assert_refused(
            &format!("{:?}, {what}", self.alg),
            &reply,
            401,
            "session_unknown",
        );
    }

    /// The genuine token still works: no forgery ended its session.
    pub(super) async fn is_unharmed(&self) {
        self.ann.me().await.expect(200);
    }

    /// The server's public key as the world sees it; null for HS256.
    pub(super) async fn public_key(&self) -> Value {
        let set = self.app.anonymous().get("/.well-known/jwks.json").await;
        set.expect(200)["keys"]
            .get(0)
            .cloned()
            .unwrap_or(json!(null))
    }

    pub(super) fn now_secs(&self) -> i64 {
        self.app.now().as_secs()
    }
}
