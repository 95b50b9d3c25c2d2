//! Requirements that only the source itself can show: what it holds none of, and what it is built with.

use std::{collections::BTreeSet, fs, path::Path};

use super::{README, has_part};

/// The source files with their texts.
fn source() -> Vec<(String, String)> {
    fn read(folder: &Path, all: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                all.push((path.display().to_string(), text));
            }
        }
    }
    let mut all = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 50);
    all
}

/// Where one of these stands in the source, comments aside.
fn places(source: &[(String, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in source {
        for line in text.lines().filter(|line| !line.trim().starts_with("//")) {
            let word = words.iter().find(|word| line.contains(**word));
            found.extend(word.map(|word| format!("{path}: {word}")));
        }
    }
    found
}

fn manifest() -> toml::Table {
    include_str!("../../Cargo.toml").parse().expect("TOML")
}

/// ASVS 1.4.1, 1.4.3: memory is Rust's to keep and to give back, and nothing is kept back on purpose.
#[test]
fn memory_is_left_to_the_compiler() {
    assert_eq!(
        manifest()["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
    let kept = ["mem::forget", "::leak(", "ManuallyDrop", "unsafe {"];
    assert_eq!(places(&source(), &kept), Vec::<String>::new());
}

/// ASVS 1.4.2.
#[test]
fn numbers_do_not_wrap_in_silence() {
    let profiles = &manifest()["profile"];
    assert_eq!(profiles["release"]["overflow-checks"].as_bool(), Some(true));
    let dist = &profiles["dist"];
    assert_eq!(dist["inherits"].as_str(), Some("release"));
    assert!(dist.get("overflow-checks").is_none());
}

/// ASVS 1.3.2: no database is handed a program. What runs no commands is for `architecture`.
#[test]
fn databases_are_asked_and_not_programmed() {
    let programs = [
        "\"$where\"",
        "\"$function\"",
        "\"$accumulator\"",
        "mapReduce",
        "EXECUTE '",
        "load_extension(",
    ];
    assert_eq!(places(&source(), &programs), Vec::<String>::new());
}

/// What encrypts the personal part of audit records.
const CIPHER: &str = "src/model/audit/keys.rs";

/// What checks hashes of passwords that other systems made.
const FOREIGN: [&str; 2] = ["src/passwords/foreign.rs", "src/passwords/work.rs"];

/// ASVS 11.3.1, 11.3.2, 11.3.3, 11.4.1, 11.4.3: one authenticated cipher in one place, and hashes are SHA-256; SHA-1
/// only where a breach service asks for it, and inside the PBKDF2 of imported passwords.
#[test]
fn there_is_one_cipher_and_no_weak_hash() {
    let excepted = ["src/passwords/breach/service.rs", CIPHER];
    let (elsewhere, here): (Vec<_>, Vec<_>) = source()
        .into_iter()
        .partition(|(path, _)| !path.ends_with(CIPHER));
    let algorithms = ["AES_", "CHACHA", "ChaCha", "XCHACHA"];
    for (_, text) in &here {
        let named = algorithms.iter().flat_map(|name| text.matches(name));
        assert_eq!(named.count(), text.matches("AES_256_GCM").count());
    }
    assert!(!places(&here, &["AES_256_GCM"]).is_empty());
    let source: Vec<(String, String)> = elsewhere
        .into_iter()
        .filter(|(path, _)| !excepted.iter().any(|file| path.ends_with(file)))
        .collect();
    let weak = [
        "aead::",
        "cipher::",
        "Aes",
        "AES",
        "Rc4",
        "RC4",
        "Des::",
        "ChaCha",
        "Md5",
        "MD5",
        "md5::",
        "SHA1",
        "Sha1",
        "sha1::",
        "Pkcs1",
        "PKCS1",
        "RSA_",
        "RS256",
        "HMAC_SHA1",
    ];
    let mut found = places(&source, &weak);
    found.retain(|place| {
        let in_file = |file: &str| place.contains(&format!("{file}: "));
        let is_sha1 = place.ends_with("SHA1") || place.ends_with("Sha1");
        !(is_sha1 && FOREIGN.iter().any(|file| in_file(file)))
    });
    assert_eq!(found, Vec::<String>::new());
    assert!(
        !places(&source, &["HMAC_SHA256"]).is_empty(),
        "it is looked for where it would be"
    );
}

/// Libraries that cryptography could come from.
const CRYPTOGRAPHY: &[&str] = &[
    "aes",
    "aes-gcm",
    "argon2",
    "aws-lc-rs",
    "bcrypt",
    "blake2",
    "blake3",
    "chacha20poly1305",
    "ed25519-dalek",
    "hkdf",
    "hmac",
    "josekit",
    "jsonwebtoken",
    "jwt-simple",
    "k256",
    "md-5",
    "md5",
    "native-tls",
    "openssl",
    "orion",
    "p256",
    "pbkdf2",
    "ring",
    "rsa",
    "rustls",
    "scrypt",
    "sha1",
    "sha2",
    "sha3",
    "sodiumoxide",
    "subtle",
    "tokio-postgres-rustls",
];

/// ASVS 11.1.2, 11.2.1: the inventory is whole, and none of it is home-made.
#[test]
fn cryptography_comes_from_the_libraries_that_the_readme_names() {
    let manifest = manifest();
    let used = manifest["dependencies"].as_table().expect("a table").keys();
    let used: BTreeSet<&str> = used
        .map(String::as_str)
        .filter(|name| CRYPTOGRAPHY.contains(name))
        .collect();
    assert!(has_part(README, "Cryptography"));
    let (_, inventory) = README.split_once("**Cryptography.**").expect("there");
    let inventory = inventory.split("\n\n").next().expect("a paragraph");
    let named = inventory.split('`').skip(1).step_by(2);
    let named: BTreeSet<&str> = named.filter(|name| CRYPTOGRAPHY.contains(name)).collect();
    assert_eq!(named, used);
}
