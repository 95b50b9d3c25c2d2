//! The command line: what it answers, its exit codes, and how the server starts and ends.

mod import;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
};

use doorward::tokens::keys::{KeyFile, KeyRing};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    harness::sqlite,
    program::{Done, KEY, Place},
};

/// Light hashing, so that a command takes milliseconds.
const LIGHT: [(&str, &str); 5] = [
    ("DOORWARD__ENVIRONMENT", "test"),
    ("DOORWARD__TOKENS__KEY", KEY),
    ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
    ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4"),
    ("DOORWARD__PASSWORDS__SCRYPT_P", "1"),
];
const PASSWORD: &str = "correct horse battery staple";

fn create(place: &Place, args: &[&str]) -> Done {
    let args = [args, &["--password-stdin"]].concat();
    place.run_with_input(&args, &LIGHT, &format!("{PASSWORD}\n"))
}

/// ASVS 6.2.4, 6.2.11: operators choose passwords by the same rules.
#[test]
fn a_password_that_is_tried_first_is_refused_here_too() {
    let place = Place::new();
    for who in [&["user", "create"][..], &["admin", "create"]] {
        for (password, said) in [
            (
                "PasswordPassword",
                "password: is on a list of passwords that are tried first",
            ),
            (
                "Ann.Smith@localhost!",
                "password: is made of your name, your address",
            ),
            ("abcabcabcabcabc", "password: repeats a few characters"),
            ("too short", "password: must be at least 15 characters"),
        ] {
            let args = [
                who,
                &["--email", "ann.smith@example.org", "--password-stdin"],
            ]
            .concat();
            let done = place.run_with_input(&args, &LIGHT, password);
            let refusal = done.refusal();
            assert!(refusal.starts_with(said), "{refusal}");
            assert!(!refusal.contains(password), "{refusal}");
        }
    }
}

#[test]
fn exit_code_2_says_that_a_command_was_not_understood() {
    let place = Place::new();
    for args in [
        &[][..],
        &["dance"],
        &["migrate", "--down", "0"],
        &["migrate", "--check", "--down", "1"],
        &["user", "create", "--email", "ann@example.org"],
        &[
            "user",
            "create",
            "--email",
            "ann@example.org",
            "--password",
            "x",
        ],
        &["user", "import"],
        &["user", "import", "-", "--from", "elsewhere"],
        &["session", "revoke"],
        &["session", "revoke", "not-an-id"],
        &["key", "new", "--alg", "RS256"],
        &["key", "new", "--sign-after", "soon"],
        &["key", "retire"],
        &["audit", "verify", "--head", "12"],
        &["audit", "verify", "--head", "0:AAAA"],
        &["transfer", "--from", "sqlite:a.db"],
        &[
            "transfer",
            "--from",
            "sqlite:a.db",
            "--from-file",
            "a",
            "--to",
            "sqlite:b.db",
        ],
        &[
            "transfer",
            "--from",
            "sqlite:a.db",
            "--to",
            "sqlite:b.db",
            "--batch",
            "0",
        ],
    ] {
        let done = place.run(args, &[]);
        assert_eq!(
            (done.code, done.out.as_str()),
            (2, ""),
            "{args:?}: {}",
            done.err
        );
        assert!(done.err.contains("--help"), "{args:?}: {}", done.err);
    }
    for args in [&["--help"][..], &["key", "new", "--help"], &["--version"]] {
        place.run(args, &[]).answer();
    }
    let left: Vec<_> = fs::read_dir(place.path("")).expect("there").collect();
    assert!(left.is_empty(), "nothing was touched: {left:?}");
}

/// ASVS 13.3.1: no password on a command line, and none in what is said about one.
#[test]
fn a_transfer_says_what_it_needs_and_repeats_no_password() {
    let place = Place::new();
    place.write("url", "postgres://doorward:hunter2@127.0.0.1:1/doorward");
    let url = "postgres://doorward:hunter2@127.0.0.1:1/doorward";
    for (args, said) in [
        (
            ["--from", url, "--to", "sqlite:b.db"],
            "--from: every user of this machine",
        ),
        (
            ["--from-file", "url", "--to", "sqlite:b.db"],
            "database.postgres.url: ",
        ),
        (
            ["--from", "sqlite:a.db", "--to-file", "url"],
            "--from: there is no file a.db",
        ),
        (
            ["--from-file", "gone", "--to", "sqlite:b.db"],
            "--from-file: gone cannot be read",
        ),
        (
            ["--from", "mysql://h/d", "--to", "sqlite:b.db"],
            "--from: write sqlite:PATH",
        ),
    ] {
        let refusal = place
            .run(&[&["transfer"][..], &args].concat(), &[])
            .refusal();
        assert!(refusal.starts_with(said), "{args:?}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    assert!(!place.path("a.db").exists() && !place.path("b.db").exists());
}

/// Two files of settings name two databases; what is asked again moves nothing twice.
#[test]
fn a_transfer_takes_its_databases_from_files_of_settings() {
    let place = Place::new();
    let made = create(
        &place,
        &["user", "create", "--email", "ann@example.org", "--json"],
    )
    .json();
    let path = |name: &str| format!("[database.sqlite]\npath = \"{name}\"\n");
    place.write("old.toml", &path("data/doorward.db"));
    place.write("new.toml", &path("new.db"));
    let args = [
        "transfer",
        "--from-config",
        "old.toml",
        "--to-config",
        "new.toml",
    ];
    let run = |more: &[&str]| place.run(&[&args[..], more].concat(), &[]);

    let dry = run(&["--dry-run"]).answer();
    assert!(
        dry.contains("        1  users ") && dry.ends_with("nothing was written\n"),
        "{dry}"
    );
    assert!(!place.path("new.db").exists(), "nothing was written");
    let said = run(&[]).refusal();
    assert!(
        said.starts_with("something happened in the source within the last minute"),
        "{said}"
    );
    let done = run(&["--source-is-stopped", "--json"]).json();
    assert_eq!(
        (&done["verified"], &done["kinds"][1]["records"]),
        (&json!(true), &json!(1))
    );
    let show = [
        "user",
        "show",
        "ann@example.org",
        "--json",
        "--config",
        "new.toml",
    ];
    assert_eq!(place.run(&show, &LIGHT).json(), made);
    let again = run(&["--source-is-stopped", "--json"]).refusal();
    assert!(
        again.starts_with("the target is not empty: it has 1 users"),
        "{again}"
    );
}

#[test]
fn users_are_made_shown_deactivated_and_activated() {
    let place = Place::new();
    let run = |args: &[&str]| place.run(args, &LIGHT);
    let made = create(
        &place,
        &[
            "user",
            "create",
            "--email",
            "Ann@example.org",
            "--username",
            "ann",
            "--json",
        ],
    );
    let ann = made.json();
    assert_eq!(
        (
            &ann["email"],
            &ann["username"],
            &ann["roles"],
            &ann["status"]
        ),
        (
            &json!("Ann@example.org"),
            &json!("ann"),
            &json!([]),
            &json!("active")
        )
    );
    let id = ann["id"].as_str().expect("a text").to_owned();
    for name in [id.as_str(), "ann@EXAMPLE.org", "ANN"] {
        assert_eq!(run(&["user", "show", name, "--json"]).json(), ann, "{name}");
    }
    let words = run(&["user", "show", "ann"]).answer();
    assert!(
        words.contains("email     Ann@example.org (not verified)\n"),
        "{words}"
    );

    let off = run(&["user", "deactivate", "ann", "--json"]).json();
    assert_eq!(off["status"], "deactivated");
    let unlocked = run(&["user", "unlock", "ann", "--json"]).json();
    assert_eq!(unlocked["username"], "ann");
    let on = run(&["user", "activate", "ann", "--json"]).json();
    assert_eq!(
        (&on["status"], &on["deactivated_at"]),
        (&json!("active"), &Value::Null)
    );

    assert_eq!(
        create(&place, &["user", "create", "--email", "ANN@example.org"]).refusal(),
        "the e-mail address is taken"
    );
    assert_eq!(
        run(&["user", "show", "bob"]).refusal(),
        "there is no user `bob`"
    );
    assert!(
        run(&["user", "show", "bob@"])
            .refusal()
            .starts_with("`bob@`: must be an e-mail address")
    );
    let wrong = create(
        &place,
        &["user", "create", "--email", "nobody", "--username", "x"],
    )
    .refusal();
    assert!(
        wrong.contains("email: must be") && wrong.contains("username: must be"),
        "{wrong}"
    );
}

#[test]
fn a_password_is_one_line_of_standard_input() {
    let place = Place::new();
    let made = |email: &str, input: &str| {
        let args = ["user", "create", "--email", email, "--password-stdin"];
        place.run_with_input(&args, &LIGHT, input)
    };
    made("a@example.org", PASSWORD).answer();
    made("b@example.org", &format!("{PASSWORD}\r\n")).answer();
    for input in ["", "\n", "two lines are\nno password here\n"] {
        assert_eq!(
            made("c@example.org", input).refusal(),
            "--password-stdin: one line is expected on standard input"
        );
    }
    let short = made("c@example.org", "short\n").refusal();
    assert!(
        short.starts_with("password: must be at least 15 characters"),
        "{short}"
    );
    let server = place.serve(&LIGHT);
    for (email, password) in [("a@example.org", PASSWORD), ("b@example.org", PASSWORD)] {
        assert_eq!(
            login(&server.address, email, password).0,
            200,
            "only the line break is cut"
        );
    }
}

#[test]
fn the_first_administrator_is_made_and_others_granted() {
    let place = Place::new();
    let run = |args: &[&str]| place.run(args, &LIGHT);
    let root = create(
        &place,
        &["admin", "create", "--email", "root@example.org", "--json"],
    )
    .json();
    assert_eq!(root["roles"], json!(["admin"]));
    let again = create(&place, &["admin", "create", "--email", "root@example.org"]).refusal();
    assert!(
        again.starts_with("the e-mail address is taken; to make that user an administrator run `")
            && again.ends_with(" admin grant root@example.org`"),
        "{again}"
    );
    assert_eq!(
        run(&["user", "deactivate", "root@example.org"]).refusal(),
        "the last active administrator must stay one"
    );
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    let ann = run(&["admin", "grant", "ann@example.org", "--json"]).json();
    assert_eq!(ann["roles"], json!(["admin"]));
    run(&["user", "deactivate", "root@example.org"]).answer();
}

#[test]
fn sessions_are_listed_and_ended() {
    let place = Place::new();
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    let server = place.serve(&LIGHT);
    let list = || {
        place
            .run(&["session", "list", "ann@example.org", "--json"], &LIGHT)
            .json()
    };
    assert_eq!(list()["items"], json!([]));

    let token = token(&server.address);
    let session = list()["items"][0]["id"].as_str().expect("one").to_owned();
    assert_eq!(
        ask(&server.address, "GET", "/v1/auth/me", &token, "").0,
        200
    );
    place.run(&["session", "revoke", &session], &LIGHT).answer();
    let (status, body) = ask(&server.address, "GET", "/v1/auth/me", &token, "");
    assert_eq!(
        (status, body.contains("\"session_revoked\"")),
        (401, true),
        "{body}"
    );
    assert_eq!(list()["items"], json!([]));

    let token = self::token(&server.address);
    let ended = place.run(
        &["session", "revoke", "--user", "ann@example.org", "--json"],
        &LIGHT,
    );
    assert_eq!(ended.json(), json!({"ended": 1}));
    assert_eq!(
        ask(&server.address, "GET", "/v1/auth/me", &token, "").0,
        401
    );
    let unknown = "01a1fd08-c4b9-7c5d-8c09-c269bf8dc48f";
    assert_eq!(
        place.run(&["session", "revoke", unknown], &LIGHT).refusal(),
        "no such session"
    );
}

/// ASVS 11.2.2: changing keys makes no record unreadable.
#[test]
fn the_audit_trail_keeps_its_secret_when_keys_are_retired() {
    let place = Place::new();
    let file = ["--file", "keys.json"];
    let run = |args: &[&str]| place.run(&[args, &file].concat(), &[]);
    let stored = || -> Value {
        let text = fs::read_to_string(place.path("keys.json")).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    };
    let kid_of_first = || stored()["keys"][0]["kid"].as_str().map(str::to_owned);
    run(&["key", "new"]).answer();
    let secret = stored()["audit"].clone();
    assert_eq!(secret.as_str().map(str::len), Some(44));
    let first = kid_of_first().expect("a name");
    run(&["key", "new"]).answer();
    run(&["key", "retire", &first]).answer();
    assert_eq!(stored()["audit"], secret);

    // A file without one: what its oldest key gives is written down before that can go.
    let mut older = stored();
    older.as_object_mut().expect("an object").remove("audit");
    fs::write(place.path("keys.json"), older.to_string()).expect("written");
    let oldest = kid_of_first().expect("a name");
    run(&["key", "new"]).answer();
    let derived = stored()["audit"].clone();
    assert_eq!(derived.as_str().map(str::len), Some(44));
    assert_ne!(derived, secret);
    run(&["key", "retire", &oldest]).answer();
    assert_eq!(stored()["audit"], derived);
}

/// ASVS 11.1.1, 11.6.1, 13.3.2, 13.3.4.
#[test]
fn keys_are_made_listed_and_retired() {
    let place = Place::new();
    let file = ["--file", "keys.json"];
    let run = |args: &[&str]| place.run(&[args, &file].concat(), &[]);
    let first = run(&["key", "new", "--json"]).json();
    assert_eq!(
        (&first["alg"], &first["file"]),
        (&json!("HS256"), &json!("keys.json"))
    );
    let mode = fs::metadata(place.path("keys.json"))
        .expect("made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = first["kid"].as_str().expect("a name").to_owned();

    let last = run(&["key", "retire", &first]).refusal();
    assert_eq!(
        last,
        format!(
            "key `{first}` is the last one that may sign; make another with `doorward key new` first"
        )
    );
    let later = run(&[
        "key",
        "new",
        "--alg",
        "EdDSA",
        "--sign-after",
        "10m",
        "--json",
    ])
    .json();
    let later = later["kid"].as_str().expect("a name").to_owned();
    assert_eq!(
        states(&run(&["key", "list", "--json"]).json()),
        [
            (first.clone(), "HS256".to_owned(), "signs".to_owned()),
            (later.clone(), "EdDSA".to_owned(), "waits".to_owned()),
        ]
    );
    run(&["key", "retire", &first]).refusal();
    let now = run(&["key", "new", "--alg", "ES256", "--json"]).json();
    let now = now["kid"].as_str().expect("a name").to_owned();
    run(&["key", "retire", &first]).answer();
    assert_eq!(
        states(&run(&["key", "list", "--json"]).json()),
        [
            (later, "EdDSA".to_owned(), "waits".to_owned()),
            (now, "ES256".to_owned(), "signs".to_owned()),
        ]
    );
    assert_eq!(
        run(&["key", "retire", &first]).refusal(),
        format!("keys.json has no key `{first}`; `doorward key list` names them")
    );

    let keys = KeyFile::parse(&place.read("keys.json")).expect("a key file");
    let ring = KeyRing::from_file(&keys).expect("keys that work");
    assert_eq!(ring.jwks()["keys"].as_array().map(Vec::len), Some(2));
    let left: Vec<_> = fs::read_dir(place.path("")).expect("there").collect();
    assert_eq!(left.len(), 1, "no draft is left: {left:?}");
}

fn states(list: &Value) -> Vec<(String, String, String)> {
    let text = |key: &Value, name: &str| key[name].as_str().expect("a text").to_owned();
    let keys = list["keys"].as_array().expect("a list");
    keys.iter()
        .map(|key| (text(key, "kid"), text(key, "alg"), text(key, "state")))
        .collect()
}

/// ASVS 11.5.1: the configuration holds nothing that opens a door.
#[test]
fn a_client_gets_a_secret_that_the_configuration_does_not_hold() {
    let place = Place::new();
    let client = |id: &str| place.run(&["key", "client", id, "--json"], &[]).json();
    let (notes, again) = (client("notes"), client("notes"));
    let text = |value: &Value, name: &str| value[name].as_str().expect(name).to_owned();
    let (secret, entry) = (text(&notes, "secret"), text(&notes, "entry"));
    assert!(secret.starts_with("dwc_") && secret.len() == 47, "{secret}");
    assert_ne!(secret, text(&again, "secret"));
    assert!(
        entry.starts_with("notes:") && !entry.contains(&secret[4..]),
        "{entry}"
    );
    let taken = place.run(&["config", "check"], &[("DOORWARD__CLIENTS", &entry)]);
    taken.answer();
    let words = place.run(&["key", "client", "notes"], &[]).answer();
    assert!(words.contains("shown only now: dwc_"), "{words}");
    let odd = place.run(&["key", "client", "no tes"], &[]);
    assert_eq!(odd.code, 2, "{}", odd.err);
    let left = fs::read_dir(place.path("")).expect("there").count();
    assert_eq!(left, 0, "nothing is written down");
}

#[test]
fn built_in_letters_are_written_out_to_be_changed() {
    let place = Place::new();
    let write = |folder: &str, more: &[&str]| {
        place.run(&[&["mail", "templates", folder], more].concat(), &[])
    };
    let names = [
        "en.toml",
        "de.toml",
        "layout.html",
        "layout.txt",
        "page.html",
    ];
    let paths = names.map(|name| format!("texts/{name}"));
    let lines = paths.iter().map(|path| format!("wrote {path}\n"));
    let lines: String = lines.collect();
    assert_eq!(write("texts", &[]).answer(), lines);
    let there = fs::read_dir(place.path("texts")).expect("made").count();
    assert_eq!(there, names.len());
    assert_eq!(
        write("texts", &[]).refusal(),
        "texts is not empty; name a folder that is, so that nothing is overwritten"
    );
    fs::create_dir(place.path("empty")).expect("made");
    let written = names.map(|name| format!("empty/{name}"));
    assert_eq!(
        write("empty", &["--json"]).json(),
        json!({ "written": written })
    );
    place.write("file", "");
    let refusal = write("file", &[]).refusal();
    assert!(refusal.starts_with("file cannot be written: "), "{refusal}");

    // What was written out is what was built in, until somebody breaks it.
    let check = || {
        let folder = [("DOORWARD__MAIL__TEMPLATES", "texts")];
        place.run(&["config", "check"], &folder)
    };
    check().answer();
    let broken = place
        .read("texts/de.toml")
        .replace("{{ product }}", "{{ produkt }}");
    place.write("texts/de.toml", &broken);
    let said = check().refusal();
    assert!(said.starts_with("mail.templates: de.toml, line "), "{said}");
}

/// The first key has to be made while production would still refuse to start for want of one.
#[test]
fn a_key_can_be_made_before_there_is_one() {
    let place = Place::new();
    let production = [
        ("DOORWARD__ENVIRONMENT", "production"),
        ("DOORWARD__PUBLIC_URL", "https://auth.example.org"),
        ("DOORWARD__TOKENS__KEY_FILE", "keys.json"),
    ];
    let check = || place.run(&["config", "check"], &production);
    check().refusal();
    place.run(&["key", "new"], &production).answer();
    check().answer();

    let none = place.run(&["key", "new"], &production[..2]).refusal();
    assert_eq!(
        none,
        "tokens.key_file: is not set; set it, or name a file with --file"
    );
    // Even from the first moment some key may sign.
    place
        .run(
            &["key", "new", "--file", "other.json", "--sign-after", "1h"],
            &[],
        )
        .answer();
    let list = place
        .run(&["key", "list", "--file", "other.json", "--json"], &[])
        .json();
    assert_eq!(list["keys"][0]["state"], "signs");
    let nowhere = place
        .run(&["key", "new", "--file", "no/such/folder/keys.json"], &[])
        .refusal();
    assert!(
        nowhere.starts_with("no/such/folder/keys.json cannot be written: "),
        "{nowhere}"
    );
}

#[test]
fn migrations_are_listed_applied_and_taken_back() {
    let place = Place::new();
    let migrate = |args: &[&str]| {
        place.run(
            &[&["migrate", "--json"], args].concat(),
            &[("DOORWARD__TOKENS__KEY", KEY)],
        )
    };
    let all = json!([
        "0001_users_and_sessions",
        "0002_refresh_tokens",
        "0003_mail",
        "0004_limits",
        "0005_roles",
        "0006_sweeping",
        "0007_audit"
    ]);
    let newest_first = json!([
        "0007_audit",
        "0006_sweeping",
        "0005_roles",
        "0004_limits",
        "0003_mail",
        "0002_refresh_tokens",
        "0001_users_and_sessions"
    ]);
    let pending = migrate(&["--check"]);
    assert_eq!(
        (
            pending.code,
            pending.out.contains("0001_users_and_sessions")
        ),
        (1, true)
    );
    assert_eq!(
        pending.err,
        "doorward: the database is not up to date; run `doorward migrate`\n"
    );
    assert_eq!(migrate(&[]).json(), json!({"applied": all}));
    assert_eq!(migrate(&[]).json(), json!({"applied": []}));
    assert_eq!(migrate(&["--check"]).json(), json!({"pending": []}));
    let down = migrate(&["--down", "7"]).json();
    assert_eq!(down, json!({"reverted": newest_first}));
    assert_eq!(migrate(&["--check"]).code, 1);
}

/// One command after the other, as a timer starts them.
#[test]
fn what_is_over_is_removed_by_command_as_well() {
    let place = Place::new();
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    for _ in 0..2 {
        let swept = place.run(&["sweep", "--json"], &LIGHT).json();
        let kinds = swept.as_object().expect("an object");
        assert_eq!(kinds.len(), 9, "{swept}");
        assert!(kinds.values().all(|n| n == 0), "{swept}");
    }
    let words = place.run(&["sweep"], &LIGHT).answer();
    assert!(words.starts_with("sessions 0, letters 0"), "{words}");
}

/// ASVS 16.4.2.
#[test]
fn the_audit_trail_is_sealed_and_verified_by_command() {
    let place = Place::new();
    let settings = [&LIGHT[..], &[("DOORWARD__AUDIT__SEAL_EVERY", "0s")]].concat();
    let run = |args: &[&str]| place.run(args, &settings);
    let none = run(&["audit", "seal", "--json"]).json();
    assert_eq!(none, json!({"sealed": 0, "head": null}));
    assert_eq!(
        run(&["audit", "verify"]).answer(),
        "whole: no sealed record\n"
    );
    for name in ["ann", "ben", "cid"] {
        let email = format!("{name}@example.org");
        create(&place, &["user", "create", "--email", &email]).answer();
    }
    assert_eq!(run(&["audit", "verify", "--json"]).json()["unsealed"], 3);
    let sealed = run(&["audit", "seal", "--json"]).json();
    assert_eq!(sealed["sealed"], 3);
    let head = sealed["head"].as_str().expect("a head").to_owned();
    let again = run(&["audit", "seal"]).answer();
    assert_eq!(again, format!("sealed 0, head {head}\n"));
    let words = run(&["audit", "verify", "--head", &head]).answer();
    assert!(
        words.starts_with(&format!(
            "whole: 3 sealed records, places 1 to 3\nhead {head}, sealed 20"
        )),
        "{words}"
    );

    sqlite::execute(
        &place.path("data/doorward.db"),
        "DROP TRIGGER audit_events_keep; UPDATE audit_events SET outcome = 'refused' WHERE seq = 2",
    );
    let broken = run(&["audit", "verify"]);
    assert_eq!(broken.code, 1);
    assert!(broken.out.starts_with("BROKEN: 3 sealed"), "{}", broken.out);
    assert!(broken.out.contains("\nplace 2, record "), "{}", broken.out);
    assert_eq!(broken.err, "doorward: the audit trail is broken\n");
    let broken = run(&[
        "audit",
        "verify",
        "--json",
        "--head",
        &head.replace("3:", "4:"),
    ]);
    let told: Value = serde_json::from_str(&broken.out).expect("JSON");
    assert_eq!((broken.code, &told["whole"]), (1, &json!(false)));
    let flaws = [&told["breaks"][0]["flaw"], &told["breaks"][1]["flaw"]];
    assert_eq!(flaws, [&json!("wrong_seal"), &json!("known_head_gone")]);
}

/// The lines by which it is found that an older state of the database was put back.
///
/// ASVS 16.4.2.
#[test]
fn a_server_logs_the_head_of_its_audit_trail() {
    let place = Place::new();
    let every_second = [
        &LIGHT[..],
        &[
            ("DOORWARD__AUDIT__SEAL_EVERY", "1s"),
            ("DOORWARD__LOG__FORMAT", "json"),
        ],
    ]
    .concat();
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    let mut server = place.serve(&every_second);
    let line = server.logs("audit trail sealed");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let start = line.find("\"head\":\"").expect("a head") + 8;
    let head = line[start..].split('"').next().expect("a text");
    place
        .run(&["audit", "verify", "--head", head], &LIGHT)
        .answer();
}

#[test]
fn the_api_document_is_printed() {
    let url = [("DOORWARD__PUBLIC_URL", "https://auth.example.org")];
    let document = Place::new().run(&["openapi"], &url).json();
    assert_eq!(document["servers"][0]["url"], "https://auth.example.org");
    assert!(document["paths"]["/v1/auth/login"].is_object());
}

#[test]
fn development_starts_in_an_empty_folder_and_starts_again() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    let mut said = String::new();
    while let Ok(line) = server.lines.recv() {
        said += &(line + "\n");
        if said.contains("admin create") {
            break;
        }
    }
    assert!(
        said.contains(&format!("documentation: http://{}/docs\n", server.address)),
        "{said}"
    );
    for name in ["data/doorward.db", "data/token-keys.json"] {
        let mode = fs::metadata(place.path(name))
            .expect("made")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(
        said.contains(&format!("letters: http://{}/dev/mail\n", server.address)),
        "{said}"
    );
    assert_eq!(ask(&server.address, "GET", "/dev/mail", "", "").0, 200);
    let keys = place.read("data/token-keys.json");
    let body = json!({"email": "ann@example.org", "password": PASSWORD}).to_string();
    assert_eq!(
        ask(&server.address, "POST", "/v1/auth/register", "", &body).0,
        201
    );
    let token = token(&server.address);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));

    let mut server = place.serve(&[]);
    assert_eq!(place.read("data/token-keys.json"), keys);
    assert_eq!(
        ask(&server.address, "GET", "/v1/auth/me", &token, "").0,
        200,
        "the session lives on"
    );
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_stopping_server_finishes_what_runs() {
    let place = Place::new();
    let mut server = place.serve(&LIGHT);
    // A connection that waits for its next request must not hold the end up.
    let mut waiting = TcpStream::connect(&server.address).expect("accepted");
    waiting
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut status = [0; 12];
    waiting.read_exact(&mut status).expect("answered");

    let body = json!({"email": "ann@example.org", "password": PASSWORD}).to_string();
    let mut running = TcpStream::connect(&server.address).expect("accepted");
    let head = format!(
        "POST /v1/auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    running.write_all(head.as_bytes()).expect("sent");
    // The server asks for the body, so the request is running.
    let mut continues = [0; 25];
    running.read_exact(&mut continues).expect("answered");
    assert!(
        continues.starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&continues)
    );
    server.signal(Signal::TERM);
    server.logs("stopping: ");
    running.write_all(body.as_bytes()).expect("sent");
    let mut answer = String::new();
    running.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(server.wait(), Some(0));
    assert!(
        TcpStream::connect(&server.address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let mut server = place.serve(&LIGHT);
    let mut running = TcpStream::connect(&server.address).expect("accepted");
    let head = b"POST /v1/auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    running.write_all(head).expect("sent");
    let mut continues = [0; 25];
    running.read_exact(&mut continues).expect("answered");
    server.signal(Signal::TERM);
    server.logs("stopping: ");
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(1));
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let place = Place::new();
    let mut variables = LIGHT.to_vec();
    variables.push(("DOORWARD__HTTP__LISTEN", &address));
    let done = place.run(&["serve"], &variables);
    assert_eq!(done.code, 1);
    let sentence = done.err.lines().last().expect("a sentence");
    assert!(
        sentence.starts_with(&format!(
            "doorward: http.listen: {address} cannot be listened on: "
        )),
        "{sentence}"
    );
}

/// ASVS 13.4.2, 13.4.5, 16.2.2.
#[test]
fn production_shows_its_documents_to_operators_only() {
    let place = Place::new();
    let server = place.serve(&[
        ("DOORWARD__ENVIRONMENT", "production"),
        ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
        ("DOORWARD__TOKENS__KEY", KEY),
        ("DOORWARD__HTTP__ADMIN_LISTEN", "127.0.0.1:0"),
    ]);
    let line = server.lines.recv().expect("a second address");
    let operators = line
        .strip_prefix("for operators on http://")
        .expect("named")
        .to_owned();
    for (path, open, inside) in [
        ("/docs", 404, 200),
        ("/version", 404, 200),
        ("/metrics", 404, 200),
        ("/health/ready", 200, 200),
        // What the documents describe is there to be tried.
        ("/v1/auth/me", 401, 401),
    ] {
        assert_eq!(ask(&server.address, "GET", path, "", "").0, open, "{path}");
        assert_eq!(
            ask(&operators, "GET", path, "", "").0,
            inside,
            "{path} for operators"
        );
    }
    let log = server.logs("answered");
    let line: Value = serde_json::from_str(&log).expect("a JSON log line");
    assert!(
        line["timestamp"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z')),
        "UTC: {log}"
    );
}

/// ASVS 8.1.1, 8.1.2, 8.1.3, 8.1.4: which role may do what, for machines.
#[test]
fn the_matrix_of_roles_and_operations_is_printed() {
    let place = Place::new();
    let support = ("DOORWARD__ROLES__SUPPORT", "users:read,sessions:revoke");
    let printed = place.run(&["roles", "matrix", "--json"], &[support]).json();
    assert!(!place.path("data").exists(), "no database is opened for it");
    let sources: Vec<_> = printed["roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|role| (role["name"].as_str(), role["source"].as_str()))
        .collect();
    let wanted = [
        (Some("admin"), Some("built_in")),
        (Some("support"), Some("config")),
    ];
    assert_eq!(sources, wanted);
    let operations = printed["operations"].as_array().expect("operations");
    let answers = |name: &str| {
        let found = operations.iter().find(|one| one["operation"] == name);
        found.expect(name)["answers"].clone()
    };
    for (operation, nobody, no_role, support, admin) in [
        ("health", "allowed", "allowed", "allowed", "allowed"),
        ("get_me", "401", "allowed", "allowed", "allowed"),
        ("list_users", "401", "403", "allowed", "allowed"),
        ("revoke_user", "401", "403", "allowed", "allowed"),
        ("update_user", "401", "403", "403", "step_up_sometimes"),
        ("set_roles", "401", "403", "403", "step_up"),
        ("oauth_introspect", "401", "401", "401", "401"),
    ] {
        let wanted =
            json!({"(nobody)": nobody, "(no role)": no_role, "support": support, "admin": admin});
        assert_eq!(answers(operation), wanted, "{operation}");
    }
    let words = place.run(&["roles", "matrix"], &[support]).answer();
    assert_eq!(words.lines().count(), operations.len() + 1, "{words}");
    let row = words.lines().find(|line| line.starts_with("list_users "));
    let cells: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!(cells, ["list_users", "401", "403", "allowed", "allowed"]);

    let all = [&LIGHT[..], &[support]].concat();
    let printed = place
        .run(&["roles", "matrix", "--stored", "--json"], &all)
        .json();
    assert_eq!(printed["roles"].as_array().map(Vec::len), Some(2));
}

#[test]
fn healthcheck_asks_the_server_of_this_machine() {
    let place = Place::new();
    let server = place.serve(&LIGHT);
    let port = server.address.rsplit_once(':').expect("a port").1;
    let everywhere = format!("0.0.0.0:{port}");
    let healthy = |listen: &str| place.run(&["healthcheck"], &[("DOORWARD__HTTP__LISTEN", listen)]);
    assert_eq!(healthy(&server.address).answer(), "ready\n");
    assert_eq!(healthy(&everywhere).answer(), "ready\n");
    let gone = server.address.clone();
    drop(server);
    assert!(
        healthy(&gone)
            .refusal()
            .starts_with(&format!("http://{gone} is not ready: "))
    );
}

/// A request over plain HTTP: status and body.
fn ask(address: &str, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("accepted");
    let credentials = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{credentials}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

fn login(address: &str, email: &str, password: &str) -> (u16, String) {
    let body = json!({"email": email, "password": password}).to_string();
    ask(address, "POST", "/v1/auth/login", "", &body)
}

fn token(address: &str) -> String {
    let (status, body) = login(address, "ann@example.org", PASSWORD);
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}

/// ASVS 14.2.1: a token names a session and is not shown again.
#[test]
fn the_story_of_a_session_is_told_by_its_id_and_by_its_tokens() {
    let place = Place::new();
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    let server = place.serve(&LIGHT);
    let token = token(&server.address);
    let list = place.run(&["session", "list", "ann@example.org", "--json"], &LIGHT);
    let session = list.json()["items"][0]["id"]
        .as_str()
        .expect("one")
        .to_owned();
    place.run(&["session", "revoke", &session], &LIGHT).answer();

    let by_id = place
        .run(&["session", "why", &session, "--json"], &LIGHT)
        .json();
    assert_eq!(
        (&by_id["state"], &by_id["ended"]["actor"]),
        (&json!("ended"), &json!("operator"))
    );
    let by_token = place
        .run(&["session", "why", &token, "--json"], &LIGHT)
        .json();
    assert_eq!(by_token, by_id);
    let typed = place.run_with_input(&["session", "why", "-"], &LIGHT, &format!("{token}\n"));
    let words = typed.answer();
    assert!(
        words.contains("it was revoked by an operator, on the command line."),
        "{words}"
    );
    assert!(!words.contains(&token));

    // Of another server's making.
    let (message, _) = token.rsplit_once('.').expect("a token");
    let forged = format!("{message}.AAAA");
    for named in [forged.as_str(), "dwr_AAAA", "ann@example.org"] {
        let refusal = place.run(&["session", "why", named], &LIGHT).refusal();
        assert_eq!(
            refusal,
            "neither the id of a session nor a token that was made with these keys"
        );
    }
}

#[test]
fn persons_are_exported_and_erased() {
    let place = Place::new();
    create(&place, &["user", "create", "--email", "ann@example.org"]).answer();
    let data = place
        .run(&["user", "export", "ann@example.org"], &LIGHT)
        .json();
    assert_eq!(data["user"]["email"], "ann@example.org");
    assert_eq!(data["sessions"], json!([]));
    let actors = data["events"].as_array().expect("events").iter();
    let actors: Vec<_> = actors
        .map(|event| (&event["event"], &event["actor"]))
        .collect();
    assert_eq!(
        actors,
        [
            (&json!("account_exported"), &json!("operator")),
            (&json!("account_created"), &json!("operator"))
        ]
    );

    let unsure = place.run(&["user", "erase", "ann@example.org"], &LIGHT);
    assert_eq!(unsure.code, 2, "{}", unsure.err);
    place
        .run(&["user", "show", "ann@example.org"], &LIGHT)
        .answer();
    let erase = ["user", "erase", "ann@example.org", "--yes", "--json"];
    let erased = place.run(&erase, &LIGHT).json();
    assert_eq!(erased, json!({"erased": data["user"]["id"]}));
    let gone = place
        .run(&["user", "show", "ann@example.org"], &LIGHT)
        .refusal();
    assert_eq!(gone, "there is no user `ann@example.org`");
}
