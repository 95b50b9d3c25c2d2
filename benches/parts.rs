//! The parts of a checked request and of a login that need no database: checking a token, judging a session,
//! hashing a password, the refresh ratchet. `cargo bench --bench parts`.

use std::{hint::black_box, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use criterion::{Criterion, criterion_group, criterion_main};
use doorward::{
    clock::{ManualClock, Span, Timestamp},
    email::EmailAddress,
    entropy::{SystemEntropy, random_bytes},
    ids::{SessionId, UserId},
    model::{
        session::{IdleRule, SessionState, SessionView, Verdict},
        user::{Attributes, Roles, SessionLimitOverride, User, UserStatus},
    },
    passwords::PasswordPolicy,
    tokens::{KeyAlgorithm, KeyRing, Subject, TokenKind, Tokens, keys::KeyFile},
};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn tokens(ring: KeyRing) -> Tokens {
    let clock = Arc::new(ManualClock::at(NOW));
    Tokens::new(ring, "doorward", "doorward", clock, Arc::new(SystemEntropy))
}

fn ring_of(algorithm: KeyAlgorithm) -> KeyRing {
    let mut file = KeyFile::default();
    let made = file.add(algorithm, NOW, NOW, &SystemEntropy);
    made.expect("a key is made");
    KeyRing::from_file(&file).expect("a ring of one key")
}

fn ids() -> (UserId, SessionId) {
    (
        UserId::fresh(NOW, &SystemEntropy),
        SessionId::fresh(NOW, &SystemEntropy),
    )
}

fn token_check(c: &mut Criterion) {
    let mut group = c.benchmark_group("token check");
    let (user, session) = ids();
    for algorithm in [
        KeyAlgorithm::Hs256,
        KeyAlgorithm::EdDsa,
        KeyAlgorithm::Es256,
    ] {
        let tokens = tokens(ring_of(algorithm));
        let subject = Subject {
            user,
            session,
            generation: 0,
        };
        let until = NOW.plus(Span::minutes(15));
        let token = tokens.mint(TokenKind::Access, subject, until);
        let token = token.expect("a token").token;
        group.bench_function(format!("{algorithm:?}"), |b| {
            b.iter(|| {
                let claims = tokens.verify(TokenKind::Access, black_box(token.expose()));
                claims.expect("a good token")
            });
        });
    }
}

fn view() -> SessionView {
    let (user, session) = ids();
    SessionView {
        session_id: session,
        user: User {
            id: user,
            email: EmailAddress::parse("ann@example.org").expect("an address"),
            email_verified_at: Some(NOW),
            username: None,
            attributes: Attributes::default(),
            roles: Roles::default(),
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: NOW,
            updated_at: NOW,
        },
        state: SessionState::Open,
        authenticated_at: NOW,
        last_seen_at: NOW,
        expires_at: NOW.plus(Span::days(30)),
        generation_used: 0,
    }
}

fn judge(c: &mut Criterion) {
    let idle = IdleRule {
        idle_ttl: Span::days(7),
        flush: Span::secs(30),
    };
    let view = view();
    assert_eq!(view.judge(NOW, idle), Verdict::Live);
    c.bench_function("judge", |b| {
        b.iter(|| black_box(&view).judge(black_box(NOW), idle));
    });
}

fn scrypt(c: &mut Criterion) {
    let policy = PasswordPolicy::default();
    let mut group = c.benchmark_group("scrypt");
    group.sample_size(10);
    for (log_n, p) in [(policy.scrypt_log_n, policy.scrypt_p), (17, 1)] {
        let parameters = scrypt::Params::new(log_n, policy.scrypt_r, p).expect("valid");
        let salt: [u8; 16] = random_bytes(&SystemEntropy);
        group.bench_function(format!("N=2^{log_n} r={} p={p}", policy.scrypt_r), |b| {
            b.iter(|| {
                let mut out = [0; 32];
                let password = black_box(b"correct horse battery staple");
                scrypt::scrypt(password, &salt, &parameters, &mut out).expect("a good length");
                out
            });
        });
    }
}

fn ratchet(c: &mut Criterion) {
    let key = STANDARD.encode(random_bytes::<32>(&SystemEntropy)).into();
    let tokens = tokens(KeyRing::single(&key).expect("a key"));
    let (user, session) = ids();
    let first = tokens.first_refresh(user, session).expect("a token");
    let text = first.expose().to_owned();
    c.bench_function("ratchet: read, successor, hash", |b| {
        b.iter(|| {
            let presented = tokens.read_refresh(black_box(&text)).expect("a good token");
            tokens.successor(&presented).expect("a key").hash()
        });
    });
}

criterion_group!(parts, token_check, judge, scrypt, ratchet);
criterion_main!(parts);
