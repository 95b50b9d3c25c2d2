//! Hashes as the systems themselves made them: pwdlib 0.3.0, argon2-cffi 25.1.0, passlib 1.7.4, bcrypt 4.0.1 and
//! 5.0.0 for Python, Werkzeug 3.1.9, Django 5.2.19 and Better Auth 1.7.25, with their defaults where nothing else
//! is said.

use super::*;

const PASSWORD: &str = "correct horse battery staple";

const MADE: &[(&str, &str)] = &[
    (
        "pwdlib argon2",
        "$argon2id$v=19$m=65536,t=3,p=4$QN4VCOOC25hZVsKkT31EOA$u1kjwPOyztue16PLNRAmyFsXFYgcIVGODQFHwMDheKI",
    ),
    (
        "argon2-cffi i",
        "$argon2i$v=19$m=8192,t=2,p=2$eULNV+GLKJlxRrj+BvvbNw$JBHiJSRltT5JYerJ0mKoPu/fOlUaKMkQahX7NNI5fgs",
    ),
    (
        "pwdlib bcrypt",
        "$2b$10$kfUKcNYYSzd.NGincdiWDODLAiEryQBz9QBWPb8kv0wfaARnRD1yO",
    ),
    (
        "django pbkdf2_sha256",
        "pbkdf2_sha256$1000000$BnBikkwdMASn5crpEZdLD1$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=",
    ),
    (
        "django pbkdf2_sha1",
        "pbkdf2_sha1$1000000$54HhVVppspWsbLf2Kl21pw$XbaUT2M4I8/fugcT/ZHfrLLRxLI=",
    ),
    (
        "django scrypt",
        "scrypt$16384$nNJ0lIZi0DRvD0dUS4UT7x$8$5$2eFRExjg8tfeS+FRfrb2hiSh+DDoG8y9NO6njsbGdKFv7KGcVUElHmoyTT7i4bkanrvG9Ec0YyQE2ngC2OjN7Q==",
    ),
    (
        "django argon2",
        "argon2$argon2id$v=19$m=102400,t=2,p=8$cEIySEpoZ0IzMFFPdmtSTWY2MU1neA$3aFQFy3V2OwoOLO+F1GJjMpK7tdfEsnx7q/WuG/zkGg",
    ),
    (
        "django bcrypt_sha256",
        "bcrypt_sha256$$2b$12$m6jUn.NsOlpr/oNjJAcyiu75QvNOm9CkOHj1X7AMbhvGK3FAXOt32",
    ),
    (
        "django bcrypt",
        "bcrypt$$2b$12$9y7rF3MRuBY/PNbW6BMrc.XdcCQlMvtNZ5J9xpR.khUZ.yl1cKBvu",
    ),
    (
        "passlib pbkdf2_sha256",
        "$pbkdf2-sha256$29000$mHOOsbb2XguhdI6xVsr5Hw$/xpRQcekPoOM2D4/Ve8ujJ1YdJvY3QXBjaQEJcUOJkY",
    ),
    (
        "passlib pbkdf2_sha512",
        "$pbkdf2-sha512$25000$wljrXYuRkhICYKyVco6xFg$KCTbRrz9EONmOcj721ZFcpYpKgvi7B.wLZc9G8nKW4u8wbEqXLB0k1bBDQSPN7tBISscSN/JQYmCohP5seuf2w",
    ),
    (
        "passlib pbkdf2_sha1",
        "$pbkdf2$131000$QIhRqpXynhPinLOWsnaO8Q$pkaPZFDAQMTbNpavyLqfdSZtVv4",
    ),
    (
        "werkzeug scrypt",
        "scrypt:32768:8:1$Mf6Zzol953XSs8WZ$c1ed5e74cc6ffc1da7d6dc753f267e898c5dd7fb225a2b6e0a9f48601327bd88d96c0317c79677c2350a53343c28096aaa0cd0223a86963621bf4f9b80e3fb2e",
    ),
    (
        "werkzeug pbkdf2",
        "pbkdf2:sha256:1000$lkDjGE7j8mmsvLdk$52949b884a8490ed633de7b5d22b05ee80d01f2e2772b11e0bd44c5a0cd78a74",
    ),
    (
        "better-auth",
        "523c52d270bd4ea63b3a6bbe44ae9a8e:0c1481bc8d38e58b12681b167470042e906e2422075ee1708e48dcb030eb599fbf64aa80ff69820c49b0b815dbc0427cf67ed52547623069d2cb234f38fdd73c",
    ),
];

fn is_of(hash: &str, password: &str) -> bool {
    let hash = Foreign::parse(hash).expect("a known spelling");
    hash.is_of(&password.into()).expect("it can be computed")
}

/// ASVS 11.4.2.
#[test]
fn what_each_system_made_is_checked_as_it_does() {
    for (system, hash) in MADE {
        assert!(is_of(hash, PASSWORD), "{system}");
        assert!(!is_of(hash, "correct horse battery stable"), "{system}");
    }
}

/// Made of 80 letters x by passlib and by bcrypt 4, which read 72 bytes; and of 40 times é, which are 80 bytes.
#[test]
fn bcrypt_reads_as_much_of_a_password_as_the_system_did() {
    for hash in [
        "$2b$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K",
        "$2b$04$fbThLmHpPnUywny/L7G.4e0O6ULwAhht5l4gFEwyU9ljSV.OWyJqW",
    ] {
        assert!(is_of(hash, &"x".repeat(80)));
        assert!(is_of(hash, &"x".repeat(72)));
        assert!(!is_of(hash, &"x".repeat(71)));
    }
    let accents = "$2y$04$AJQLM6rtQXHpGkCyw/xnW.C/yjYMp3rlciZY931.zoky9XA02dQHC";
    assert!(is_of(accents, &"é".repeat(40)));
    assert!(!is_of(accents, &"é".repeat(35)));
}

/// bcrypt 4 for Python read on after a NUL.
#[test]
fn a_nul_does_not_end_a_password() {
    let hash = "$2b$04$QCT7CeYsDW1GHsnsq1gXF.mjQY33YP/h0bwqmtP5RuqzvGOxDRhqu";
    assert!(is_of(hash, "a\0b"));
    assert!(!is_of(hash, "a"));
    assert!(!is_of(hash, "a\0"));
}

#[test]
fn better_auth_folds_what_looks_alike() {
    let hash = "8944e75abdc504e1168c861a5bc59bca:bb2c305cb6fde1f4296b4d2adefd25d9f516c9e7896b18f4a7df03d679fdfcb933c7711e368d57d94fedd48e772c8f1ed2e1f64617f36893d17ff16dfd8f1c51";
    assert!(is_of(hash, "\u{fb01}ne \u{212b}"));
    assert!(is_of(hash, "fine A\u{30a}"));
    assert!(!is_of(hash, "fine A"));
}

fn refused(text: &str) -> UnusableHash {
    let parsed = Foreign::parse(text).map(|_| ());
    parsed.expect_err(&format!(
        "{} characters that begin {:.12}",
        text.len(),
        text
    ))
}

/// ASVS 15.2.2: no stored hash can be made to take a node down.
#[test]
fn what_would_take_too_much_is_refused() {
    let salted = "c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
    let hex = "00".repeat(64);
    for hash in [
        format!("$argon2id$v=19$m=262145,t=1,p=1${salted}"),
        format!("$argon2id$v=19$m=65536,t=17,p=1${salted}"),
        format!("$argon2id$v=19$m=4294967295,t=1,p=1${salted}"),
        "$2b$16$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K".to_owned(),
        "$2b$31$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K".to_owned(),
        "pbkdf2_sha256$5000001$salt$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=".to_owned(),
        format!("scrypt:524288:8:1$salt${hex}"),
        format!("scrypt:32768:8:17$salt${hex}"),
        format!("scrypt:1024:8:100000$salt${hex}"),
    ] {
        let why = refused(&hash);
        assert!(matches!(why, UnusableHash::TooCostly(_)), "{hash}: {why}");
    }
}

/// Promise 7: what is said about a hash repeats nothing of it.
#[test]
fn what_is_no_hash_is_refused() {
    use UnusableHash::{Damaged, Unknown};
    let long = "$argon2id$".repeat(60);
    for (text, why) in [
        ("", Unknown),
        ("hunter2", Unknown),
        ("5f4dcc3b5aa765d61d8327deb882cf99", Unknown),
        ("md5$salt$5f4dcc3b5aa765d61d8327deb882cf99", Unknown),
        (
            "sha1$salt$aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
            Unknown,
        ),
        ("$1$salt$hash", Unknown),
        (
            "$2x$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K",
            Unknown,
        ),
        (
            "$argon2id$v=19$m=64,t=1,p=1,keyid=AAAA$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            Unknown,
        ),
        ("pbkdf2:sha256$salt$00", Unknown),
        (long.as_str(), Unknown),
        ("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ", Damaged),
        (
            "$argon2id$v=18$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            Damaged,
        ),
        (
            "$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            Damaged,
        ),
        (
            "$argon2id$v=19$m=64,t=1,p=9$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            Damaged,
        ),
        (
            "$2b$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43",
            Damaged,
        ),
        ("$2b$04$short", Damaged),
        (
            "pbkdf2_sha256$0$salt$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=",
            Damaged,
        ),
        (
            "pbkdf2_sha256$1000$$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=",
            Damaged,
        ),
        ("pbkdf2_sha256$1000$salt$H6WoE/g=", Damaged),
        (
            "pbkdf2_sha1$1000$salt$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=",
            Damaged,
        ),
        (
            "scrypt$1000$salt$8$1$H6WoE/inYOTs30QtBKNIZrnoCopXDh3olHNZAERmQOg=",
            Damaged,
        ),
    ] {
        let said = refused(text);
        assert_eq!(said, why, "{text}");
        assert!(text.len() < 3 || !said.to_string().contains(text), "{said}");
    }
}
