//! Forged access tokens. The server wants its own header byte for byte, so forged claims are signed
//! under a genuine header: else they would be refused before anybody looks at them.

use base64::{Engine, engine::general_purpose::STANDARD};
use doorward::{clock::Span, tokens::KeyAlgorithm};
use serde_json::{Value, json};

use super::{
    assert_refused,
    token_forge::{ALGORITHMS, Forge, Signer, base64url, one_key},
};

/// ASVS 9.1.2, 11.6.1.
#[tokio::test(flavor = "multi_thread")]
async fn no_algorithm_but_the_keys_own_is_accepted() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let others = [
            "none", "None", "NONE", "nOnE", "", "HS256", "hs256", "HS384", "HS512", "EdDSA",
            "Ed25519", "ES256", "ES384", "RS256", "PS256",
        ];
        for other in others.into_iter().filter(|other| *other != alg.as_str()) {
            let mut header = forge.header_json();
            header["alg"] = json!(other);
            let signed = forge.with_header(&header);
            let (message, _) = signed.rsplit_once('.').expect("segments");
            forge.refuses(&format!("alg {other}"), &signed).await;
            forge
                .refuses(&format!("alg {other}, unsigned"), &format!("{message}."))
                .await;
            forge
                .refuses(
                    &format!("alg {other}, another's signature"),
                    &format!("{message}.{}", forge.signature),
                )
                .await;
        }
        for wrong in [json!(null), json!(0), json!(["HS256"]), json!({})] {
            let mut header = forge.header_json();
            header["alg"] = wrong.clone();
            forge
                .refuses(&format!("alg {wrong}"), &forge.with_header(&header))
                .await;
        }
        forge.is_unharmed().await;
    }
}

/// ASVS 9.1.2: the public key is known to all, so it must not serve as a shared secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_no_shared_secret() {
    for alg in [KeyAlgorithm::EdDsa, KeyAlgorithm::Es256] {
        let forge = Forge::new(alg).await;
        let jwk = forge.public_key().await;
        let member = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
        let bytes = |name: &str| {
            base64::Engine::decode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                member(name),
            )
            .expect("base64url")
        };
        let (prefix, point): (&[u8], Vec<u8>) = if alg == KeyAlgorithm::EdDsa {
            (ED25519_SPKI, bytes("x"))
        } else {
            let point = [vec![4], bytes("x"), bytes("y")].concat();
            (P256_SPKI, point)
        };
        let der = [prefix, &point].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----",
            STANDARD.encode(&der)
        );
        let secrets: [(&str, Vec<u8>); 10] = [
            ("raw", point.clone()),
            ("raw x", bytes("x")),
            ("x as written", member("x").into()),
            ("DER", der.clone()),
            ("DER in base64", STANDARD.encode(&der).into()),
            ("PEM", pem.clone().into()),
            ("PEM with a last line end", format!("{pem}\n").into()),
            ("JWK", jwk.to_string().into()),
            ("kid", member("kid").into()),
            ("nothing", vec![]),
        ];
        let mut confused = forge.header_json();
        confused["alg"] = json!("HS256");
        for (name, secret) in secrets {
            let signer = Signer::hmac(&secret);
            for (whose, header) in [
                ("HS256", base64url(confused.to_string())),
                ("genuine", forge.header.clone()),
            ] {
                forge
                    .refuses(
                        &format!("HMAC by {name} under a {whose} header"),
                        &signer.sign(&header, &forge.payload),
                    )
                    .await;
            }
        }
        forge.is_unharmed().await;
    }
}

/// SubjectPublicKeyInfo up to the key (RFC 8410 §4, RFC 5480 §2).
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const P256_SPKI: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\
    \x03\x01\x07\x03\x42\x00";

/// ASVS 7.2.1, 9.1.3.
#[tokio::test(flavor = "multi_thread")]
async fn other_keys_open_nothing() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        for theirs in ALGORITHMS {
            let file = one_key(theirs);
            let signer = Signer::of(&file);
            let mut foreign = forge.header_json();
            foreign["alg"] = json!(theirs.as_str());
            foreign["kid"] = json!(file.keys[0].kid);
            for (whose, header) in [
                ("their own", base64url(foreign.to_string())),
                ("a genuine", forge.header.clone()),
            ] {
                forge
                    .refuses(
                        &format!("a {theirs:?} key of theirs under {whose} header"),
                        &signer.sign(&header, &forge.payload),
                    )
                    .await;
            }
        }
        for secret in ["", "secret", "doorward", "changeme", "your-256-bit-secret"] {
            let token = Signer::hmac(secret.as_bytes()).sign(&forge.header, &forge.payload);
            forge.refuses(&format!("HMAC by `{secret}`"), &token).await;
        }
        forge.is_unharmed().await;
    }
}

/// ASVS 9.1.3, 1.2.4.
#[tokio::test(flavor = "multi_thread")]
async fn a_kid_is_a_name_and_nothing_else() {
    let kids = [
        json!(null),
        json!(""),
        json!(0),
        json!(true),
        json!(["a"]),
        json!({"$ne": null}),
        json!("unknown"),
        json!("../../etc/passwd"),
        json!("../../../../dev/null"),
        json!("/dev/null"),
        json!("file:///dev/null"),
        json!("http://127.0.0.1/key"),
        json!("' OR 1=1--"),
        json!("x' UNION SELECT 'a"),
        json!("a\0b"),
        json!("a\r\nX-Evil: 1"),
        json!("| id"),
        json!("k".repeat(2000)),
    ];
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        for kid in &kids {
            let mut header = forge.header_json();
            header["kid"] = kid.clone();
            forge
                .refuses(&format!("kid {kid}"), &forge.with_header(&header))
                .await;
            // As if the file of that name were empty, and so the secret.
            let token = Signer::hmac(b"").sign(&base64url(header.to_string()), &forge.payload);
            forge.refuses(&format!("kid {kid}, no key"), &token).await;
        }
        let mut header = forge.header_json();
        header.as_object_mut().expect("an object").remove("kid");
        forge.refuses("no kid", &forge.with_header(&header)).await;
        forge.is_unharmed().await;
    }
}

/// ASVS 1.3.6, 9.1.3, 13.2.5: keys come from the ring; nothing is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_brings_no_key_and_no_rule_of_its_own() {
    let bait = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    bait.set_nonblocking(true).expect("nonblocking");
    let url = format!("http://{}/keys.json", bait.local_addr().expect("bound"));
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let theirs = Forge::new(KeyAlgorithm::EdDsa).await;
        let jwk = theirs.public_key().await;
        let extras = [
            ("jwk", jwk.clone()),
            ("jwk", json!({"kty": "oct", "k": base64url("secret")})),
            ("jku", json!(url)),
            ("x5u", json!(url)),
            ("x5c", json!([STANDARD.encode("certificate")])),
            ("x5t", json!(base64url([0; 20]))),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("zip", json!("DEF")),
            ("b64", json!(false)),
            ("cty", json!("JWT")),
            ("enc", json!("A256GCM")),
        ];
        for (name, value) in extras {
            let mut header = forge.header_json();
            header[name] = value.clone();
            let what = format!("{name} {value}");
            forge.refuses(&what, &forge.with_header(&header)).await;
            // Under their algorithm, so that an obeyed key would have verified.
            header["alg"] = json!("EdDSA");
            let header = base64url(header.to_string());
            let token = theirs.signer.sign(&header, &forge.payload);
            forge.refuses(&format!("{what}, theirs"), &token).await;
        }
        forge.is_unharmed().await;
    }
    let visit = bait.accept().expect_err("somebody fetched a key");
    assert_eq!(visit.kind(), std::io::ErrorKind::WouldBlock);
}

/// ASVS 9.2.2.
#[tokio::test(flavor = "multi_thread")]
async fn only_access_tokens_are_access_tokens() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let kinds = [
            "JWT",
            "jwt",
            "",
            "AT+JWT",
            "at+JWT",
            "application/at+jwt",
            "dpop+jwt",
            "logout+jwt",
            "rt+jwt",
        ];
        for kind in kinds {
            let mut header = forge.header_json();
            header["typ"] = json!(kind);
            forge
                .refuses(&format!("typ {kind}"), &forge.with_header(&header))
                .await;
        }
        let mut header = forge.header_json();
        header.as_object_mut().expect("an object").remove("typ");
        forge.refuses("no typ", &forge.with_header(&header)).await;

        // The same header, written otherwise: two parsers might disagree about it (ASVS 1.5.3).
        let genuine = header_text(&forge);
        let twice = genuine.replacen('{', "{\"alg\":\"none\",", 1);
        for text in [format!(" {genuine}"), format!("{genuine}\n"), twice] {
            let token = forge.signer.sign(&base64url(&text), &forge.payload);
            forge.refuses(&text, &token).await;
        }
        forge.is_unharmed().await;
    }
}

fn header_text(forge: &Forge) -> String {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    String::from_utf8(engine.decode(&forge.header).expect("base64url")).expect("text")
}

/// ASVS 9.2.1.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_whole_possible_and_present() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let now = forge.now_secs();
        let soon = f64::from(u32::try_from(now + 600).expect("this century"));
        for name in ["exp", "iat", "nbf"] {
            let wrong = [
                json!(null),
                json!(soon + 0.5),
                json!(soon),
                json!(1e300),
                json!(i64::MAX),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(-1),
                json!((now + 600).to_string()),
                json!("tomorrow"),
                json!(true),
                json!([now + 600]),
                json!({"$gt": 0}),
            ];
            for value in wrong {
                forge
                    .refuses(
                        &format!("{name} {value}"),
                        &forge.with_claim(name, value.clone()),
                    )
                    .await;
            }
            forge
                .refuses(&format!("no {name}"), &forge.without_claim(name))
                .await;
        }
        forge
            .refuses("exp 0", &forge.with_claim("exp", json!(0)))
            .await;
        forge
            .refuses("exp before iat", &forge.with_claim("exp", json!(now - 1)))
            .await;
        let eleven_years = now + 11 * 366 * 24 * 3600;
        forge
            .refuses(
                "a life of eleven years",
                &forge.with_claim("exp", json!(eleven_years)),
            )
            .await;
        for name in ["iat", "nbf"] {
            forge
                .refuses(
                    &format!("{name} in a minute"),
                    &forge.with_claim(name, json!(now + 60)),
                )
                .await;
            let within_leeway = forge.with_claim(name, json!(now + 5));
            forge.ann.with_token(&within_leeway).me().await.expect(200);
        }
        let a_second = forge.with_claim("exp", json!(now + 1));
        forge.ann.with_token(&a_second).me().await.expect(200);
        forge.is_unharmed().await;
    }
}

/// ASVS 9.2.1: `token_expired` is for genuine tokens only.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_genuine_token_is_called_expired() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        forge.app.clock.advance(Span::minutes(180));
        forge.is_unharmed().await;
        forge.app.clock.advance(Span::secs(5));
        let expired = forge.ann.me().await;
        assert_refused("expired", &expired, 401, "token_expired");
        let forged = Signer::hmac(b"secret").sign(&forge.header, &forge.payload);
        forge.refuses("expired and forged", &forged).await;
        let stranger = forge.with_claim("aud", json!("another"));
        forge.refuses("expired and for another", &stranger).await;
    }
}

/// ASVS 9.2.3, 9.2.4.
#[tokio::test(flavor = "multi_thread")]
async fn issuer_and_audience_are_compared_exactly() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        for name in ["aud", "iss"] {
            let wrong = [
                json!(null),
                json!(""),
                json!("another"),
                json!("Doorward"),
                json!("doorward "),
                json!("doorward/"),
                json!("doorward\0"),
                json!("https://doorward"),
                json!(["doorward"]),
                json!(["doorward", "another"]),
                json!({"doorward": true}),
                json!(1),
            ];
            for value in wrong {
                forge
                    .refuses(
                        &format!("{name} {value}"),
                        &forge.with_claim(name, value.clone()),
                    )
                    .await;
            }
            forge
                .refuses(&format!("no {name}"), &forge.without_claim(name))
                .await;
        }
        forge.is_unharmed().await;
    }
}

/// A token names a session by user and id; both must fit.
#[tokio::test(flavor = "multi_thread")]
async fn user_and_session_are_uuids_that_belong_together() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        for name in ["sub", "sid", "jti"] {
            let wrong = [
                json!(null),
                json!(""),
                json!("ann@example.org"),
                json!("' OR 1=1--"),
                json!({"$ne": null}),
                json!(1),
                json!([]),
            ];
            for value in wrong {
                forge
                    .refuses(
                        &format!("{name} {value}"),
                        &forge.with_claim(name, value.clone()),
                    )
                    .await;
            }
            forge
                .refuses(&format!("no {name}"), &forge.without_claim(name))
                .await;
        }
        let ben = forge.app.user("ben@example.org").await;
        let segment = ben.token().split('.').nth(1).expect("a payload");
        let bens = super::token_forge::decoded(segment);
        let nil = json!("00000000-0000-0000-0000-000000000000");
        for (name, value) in [
            ("sid", bens["sid"].clone()),
            ("sub", bens["sub"].clone()),
            ("sub", nil.clone()),
            ("sid", nil),
        ] {
            let token = forge.with_claim(name, value.clone());
            forge
                .finds_no_session(&format!("{name} {value}"), &token)
                .await;
        }
        forge.is_unharmed().await;
        ben.me().await.expect(200);
    }
}

/// ASVS 1.5.3: a payload is one JSON object in UTF-8 in which no claim stands twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_one_plain_object() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let claims = forge.claims();
        let text = claims.to_string();
        let values: Vec<Value> = ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"]
            .iter()
            .map(|name| claims[*name].clone())
            .collect();
        let deep = "[".repeat(1000);
        let payloads: [(&str, Vec<u8>); 12] = [
            ("nothing", vec![]),
            ("null", b"null".to_vec()),
            ("a string", b"\"doorward\"".to_vec()),
            ("an empty object", b"{}".to_vec()),
            ("the claims as a list", json!(values).to_string().into()),
            ("a list of the claims", json!([claims]).to_string().into()),
            ("two objects", format!("{text}{text}").into()),
            ("half an object", text[..text.len() / 2].into()),
            (
                "a claim twice",
                text.replacen('{', "{\"aud\":\"doorward\",", 1).into(),
            ),
            (
                "invalid UTF-8",
                [&text.as_bytes()[..text.len() - 1], b",\"x\":\"\xff\xfe\"}"].concat(),
            ),
            (
                "UTF-16",
                text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            ),
            (
                "a deep claim",
                format!("{},\"x\":{deep}", &text[..text.len() - 1]).into(),
            ),
        ];
        for (what, payload) in payloads {
            forge.refuses(what, &forge.with_payload(payload)).await;
        }
        forge.is_unharmed().await;
    }
}

/// ASVS 1.5.3: three segments of unpadded base64url, nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_form_is_strict() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let (h, p, s) = (&forge.header, &forge.payload, &forge.signature);
        let general = json!({"payload": p, "signatures": [{"protected": h, "signature": s}]});
        let flat = json!({"protected": h, "payload": p, "signature": s});
        let shapes = [
            ("one segment", h.clone()),
            ("two segments", format!("{h}.{p}")),
            ("four segments", format!("{h}.{p}.{s}.{s}")),
            ("five segments", format!("{h}.{p}.{s}.{s}.{s}")),
            ("a dot in front", format!(".{h}.{p}.{s}")),
            ("a dot behind", format!("{h}.{p}.{s}.")),
            ("only dots", "..".to_owned()),
            ("one dot", ".".to_owned()),
            ("no header", format!(".{p}.{s}")),
            ("no payload", format!("{h}..{s}")),
            ("no signature", format!("{h}.{p}.")),
            ("padded header", format!("{h}=.{p}.{s}")),
            ("padded payload", format!("{h}.{p}=.{s}")),
            ("padded signature", format!("{h}.{p}.{s}=")),
            ("twice padded signature", format!("{h}.{p}.{s}==")),
            ("spaces", format!("{h}. {p}. {s}")),
            ("two tokens", format!("{h}.{p}.{s} {h}.{p}.{s}")),
            ("two tokens, a comma", format!("{h}.{p}.{s},{h}.{p}.{s}")),
            ("scheme twice", format!("Bearer {h}.{p}.{s}")),
            ("quotes", format!("\"{h}.{p}.{s}\"")),
            ("JSON, flat", flat.to_string()),
            ("JSON, general", general.to_string()),
            ("segments swapped", format!("{p}.{h}.{s}")),
            ("text", "null".to_owned()),
        ];
        for (what, token) in shapes {
            forge.refuses(what, &token).await;
        }
        // Padding that the signature covers.
        let padded = forge.signer.sign(h, &format!("{p}="));
        forge.refuses("signed padding", &padded).await;
        let loose = STANDARD.encode(format!("{}   ", forge.claims()));
        let token = forge.signer.sign(h, &loose);
        forge.refuses("signed plain base64", &token).await;
        forge.is_unharmed().await;
    }
}

/// ASVS 9.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn any_change_breaks_the_signature() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let token = forge.ann.token().to_owned();
        let last_of_segments: Vec<usize> = token
            .match_indices('.')
            .map(|(dot, _)| dot - 1)
            .chain([token.len() - 1])
            .collect();
        let places = (0..token.len())
            .step_by(7)
            .chain(last_of_segments)
            .filter(|at| token.as_bytes()[*at] != b'.');
        for at in places {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(bytes).expect("ASCII");
            forge.refuses(&format!("changed at {at}"), &tampered).await;
        }
        let message = format!("{}.{}", forge.header, forge.payload);
        let signatures = [
            ("zeros, 64", base64url([0; 64])),
            ("zeros, 32", base64url([0; 32])),
            ("ones, 64", base64url([0xff; 64])),
            ("r = s = n", {
                let order = P256_ORDER;
                base64url([order, order].concat())
            }),
            (
                "shorter",
                forge.signature[..forge.signature.len() - 4].to_owned(),
            ),
            ("longer", format!("{}AAAA", forge.signature)),
            ("twice", format!("{0}{0}", forge.signature)),
        ];
        for (what, signature) in signatures {
            forge.refuses(what, &format!("{message}.{signature}")).await;
        }
        let mut claims = forge.claims();
        claims["roles"] = json!(["admin"]);
        let widened = base64url(claims.to_string());
        forge
            .refuses(
                "another payload under this signature",
                &format!("{}.{widened}.{}", forge.header, forge.signature),
            )
            .await;
        forge.is_unharmed().await;
    }
}

/// The order of P-256's group (SEC 2 §2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// ASVS 4.2.5: a long token costs nothing, not even a signature check.
#[tokio::test(flavor = "multi_thread")]
async fn huge_tokens_are_refused_unread() {
    for alg in ALGORITHMS {
        let forge = Forge::new(alg).await;
        let mut claims = forge.claims();
        claims["x"] = json!("x".repeat(5_000));
        forge
            .refuses("5 kB, well signed", &forge.with_payload(claims.to_string()))
            .await;
        let (h, p, s) = (&forge.header, &forge.payload, &forge.signature);
        // As long as a head may be, or nearly so.
        for filler in ["A".repeat(30_000), "A.".repeat(15_000)] {
            forge
                .refuses("30 kB behind", &format!("{h}.{p}.{s}{filler}"))
                .await;
            forge.refuses("30 kB", &filler).await;
        }
        // More than the listener takes as headers, so the service itself is asked as well.
        let megabyte = "A".repeat(1 << 20);
        let refused = forge.app.nodes[0]
            .auth
            .authenticate(megabyte.as_str())
            .await;
        assert!(matches!(
            refused,
            Err(doorward::error::AuthError::TokenInvalid(_))
        ));
        let request = format!(
            "GET /v1/auth/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {megabyte}\r\n\r\n"
        );
        if let Some(status) = status_of(&forge.ann.url, request.as_bytes()) {
            assert!([401, 431].contains(&status), "{alg:?}: {status}");
        }
        forge.is_unharmed().await;
    }
}

/// The status, unless the server hangs up before it has read everything.
fn status_of(url: &str, request: &[u8]) -> Option<u16> {
    use std::io::{Read, Write};
    let address = url.strip_prefix("http://").expect("a plain URL");
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    let _ = stream.write_all(request);
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    String::from_utf8_lossy(&head[9..]).parse().ok()
}

/// ASVS 14.2.1: a token counts in one place only, and only as a bearer token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_elsewhere_is_not_looked_at() {
    let forge = Forge::new(KeyAlgorithm::Hs256).await;
    let token = forge.ann.token();
    let anonymous = forge.app.anonymous();
    let me = format!("{}/v1/auth/me", anonymous.url);
    for query in ["access_token", "token", "authorization", "bearer"] {
        let reply = anonymous.get(&format!("/v1/auth/me?{query}={token}")).await;
        assert_refused(query, &reply, 401, "unauthenticated");
    }
    for (name, value) in [
        ("cookie", format!("access_token={token}; session={token}")),
        ("x-access-token", token.to_owned()),
        ("proxy-authorization", format!("Bearer {token}")),
        ("x-forwarded-authorization", format!("Bearer {token}")),
        ("authorization", token.to_owned()),
        ("authorization", format!("Token {token}")),
        ("authorization", format!("Basic {token}")),
        ("authorization", format!("DPoP {token}")),
        ("authorization", format!("BearerX {token}")),
        ("authorization", "Bearer".to_owned()),
        ("authorization", "Bearer ".to_owned()),
        ("authorization", String::new()),
    ] {
        let request = anonymous.http.get(&me).header(name, &value);
        let reply = super::Reply::of(request.send().await.expect("an answer")).await;
        let what = format!("{name}: {value}");
        assert_refused(&what, &reply, 401, "unauthenticated");
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = anonymous
            .http
            .get(&me)
            .header("authorization", format!("{scheme} {token}"));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
}
