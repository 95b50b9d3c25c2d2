//! `doorward user import`: what it says of lines, and what it leaves alone.

use std::fs;

use serde_json::{Value, json};

use super::LIGHT;
use crate::program::{Done, Place};

const HASH: &str = "$2b$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K";

fn import(place: &Place, args: &[&str], export: &str) -> Done {
    place.run_with_input(&[&["user", "import", "-"], args].concat(), &LIGHT, export)
}

fn lines(all: &[Value]) -> String {
    let all: Vec<String> = all.iter().map(Value::to_string).collect();
    all.join("\n")
}

fn shown(place: &Place, user: &str) -> Value {
    place.run(&["user", "show", user, "--json"], &LIGHT).json()
}

/// ASVS 15.2.2, 16.2.5: no stored hash can take a node down, and nothing of one is repeated.
#[test]
fn bad_lines_are_named_and_the_others_imported() {
    let place = Place::new();
    let costly = HASH.replace("$04$", "$31$");
    let export = lines(&[
        json!({"email": "ann@example.org", "username": "ann", "password_hash": HASH}),
        json!({"email": "not an address", "password_hash": HASH}),
        json!({"email": "bob@example.org", "password_hash": "hunter2hunter2"}),
        json!({"email": "eve@example.org", "password_hash": costly}),
        json!({"email": "ANN@example.org", "password_hash": HASH}),
        json!({"email": "cyd@example.org", "username": "Ann"}),
        json!({"email": "dan@example.org", "password": "hunter2hunter2"}),
        json!({"email": "flo@example.org", "roles": ["No Role"], "created_at": "soon"}),
        json!({"email": "gil@example.org", "is_active": false, "roles": ["editor"], "attributes": {"plan": "pro"}}),
    ]);
    let done = import(&place, &[], &export);
    assert_eq!(done.code, 1);
    assert_eq!(
        done.out,
        "created  2\nskipped  0\nfailed   7\nSet passwords.imported = [\"bcrypt:4\"], so that no login tells by its time whose account was imported.\n"
    );
    let said: Vec<&str> = done.err.lines().collect();
    let beginnings = [
        "line 2: email: must be an e-mail address",
        "line 3: password_hash: is of a kind that cannot be checked here",
        "line 4: password_hash: would take more than cost 15 of bcrypt",
        "line 5: email: stands in an earlier line, too",
        "line 6: username: stands in an earlier line, too",
        "line 7: password: is not known; --attribute password keeps it, --ignore-unknown leaves it out",
        "line 8: created_at: must be a time",
        "doorward: 7 of 9 failed; the others are imported",
    ];
    assert_eq!(said.len(), beginnings.len(), "{said:#?}");
    for beginning in beginnings {
        assert!(
            said.iter().any(|line| line.starts_with(beginning)),
            "{beginning}: {said:#?}"
        );
    }
    for secret in [HASH, "5j.89", "hunter2"] {
        assert!(
            !done.err.contains(secret) && !done.out.contains(secret),
            "{secret}"
        );
    }
    let gil = shown(&place, "gil@example.org");
    assert_eq!(gil["status"], "deactivated");
    assert_eq!(
        (&gil["roles"], &gil["attributes"]),
        (&json!(["editor"]), &json!({"plan": "pro"}))
    );

    let again = import(&place, &["--on-conflict", "fail", "--json"], &export);
    let report: Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!(
        (&report["created"], &report["failed"]),
        (&json!(0), &json!(9))
    );
    let first = json!({"line": 1, "fault": "email: has an account already"});
    assert!(
        report["faults"]
            .as_array()
            .expect("faults")
            .contains(&first),
        "{report}"
    );
}

#[test]
fn what_is_there_already_stays_as_it_is() {
    let place = Place::new();
    let first = json!({"email": "ann@example.org", "username": "ann", "id": "0190c0de-0000-7000-8000-000000000001"});
    import(&place, &[], &first.to_string()).answer();
    let before = shown(&place, "ann");
    let others = lines(&[
        json!({"email": "Ann@example.org", "roles": ["admin"], "password_hash": HASH}),
        json!({"email": "bob@example.org", "username": "ANN"}),
        json!({"email": "cyd@example.org", "id": "0190c0de-0000-7000-8000-000000000001"}),
    ]);
    for more in [&["--dry-run"][..], &[]] {
        let done = import(&place, more, &others);
        assert_eq!(done.code, 1, "{}", done.out);
        assert!(
            done.out.contains("skipped  1\nfailed   2\n"),
            "{}",
            done.out
        );
        assert!(
            done.err.contains("line 2: the user name is taken\n"),
            "{}",
            done.err
        );
        assert!(
            done.err.contains("line 3: id: is the id of another user\n"),
            "{}",
            done.err
        );
        assert_eq!(shown(&place, "ann"), before);
    }
}

#[test]
fn fields_are_kept_left_out_and_roles_given_as_asked() {
    let place = Place::new();
    let export = "id,email,hashed_password,is_active,is_superuser,is_verified,plan,shoe_size\n\
                  17,ann@example.org,,t,t,f,pro,38\n";
    let asked = [
        "--format",
        "csv",
        "--from",
        "fastapi-users",
        "--attribute",
        "plan",
        "--attribute",
        "id",
        "--ignore-unknown",
        "--admins-role",
        "editor",
        "--verified",
    ];
    let refused = import(&place, &asked[..4], export);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("line 2: plan: is not known"),
        "{}",
        refused.err
    );
    import(&place, &asked, export).answer();
    let ann = shown(&place, "ann@example.org");
    assert_eq!(ann["attributes"], json!({"plan": "pro", "id": "17"}));
    assert_eq!(
        (&ann["roles"], &ann["email_verified"]),
        (&json!(["editor"]), &json!(true))
    );
}

#[test]
fn a_file_that_cannot_be_read_leaves_the_database_alone() {
    let place = Place::new();
    let refusal = place
        .run(&["user", "import", "users.csv"], &LIGHT)
        .refusal();
    assert!(refusal.starts_with("users.csv: "), "{refusal}");
    place.write("empty.csv", "email\n");
    let role = ["user", "import", "empty.csv", "--admins-role", "No Role"];
    let refusal = place.run(&role, &LIGHT).refusal();
    assert!(refusal.starts_with("--admins-role: must be"), "{refusal}");
    let left = fs::read_dir(place.path("")).expect("there").count();
    assert_eq!(left, 1, "only the file is there");
}
