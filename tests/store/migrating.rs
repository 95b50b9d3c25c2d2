//! Schema changes: named while pending, applied once whoever races, taken back with their data.

use std::{fs, path::Path};

use aws_lc_rs::digest::{SHA256, digest};

use doorward::{
    model::{mail::LetterKind, token::Proof},
    store::Redeem,
};

use super::{
    mailing::{all_letters, by_link, mail_new_address, mail_to, register, registration},
    sample::{NOW, add_invited, add_user, hash, user},
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{
        backend::{Backend, Database},
        race,
    },
};

for_each_store! {
    a_migrated_database_has_nothing_pending,
    an_empty_database_names_everything_as_pending_in_order,
    racing_processes_apply_each_change_once,
    changes_are_taken_back_newest_first,
    applying_again_keeps_the_data,
    mail_can_be_taken_back_and_had_again,
}

async fn a_migrated_database_has_nothing_pending(database: Database) {
    let opened = database.open_whole().await;
    assert!(
        opened
            .migrations
            .pending()
            .await
            .expect("an answer")
            .is_empty()
    );
    assert!(
        opened
            .migrations
            .apply()
            .await
            .expect("an answer")
            .is_empty()
    );
}

async fn an_empty_database_names_everything_as_pending_in_order(database: Database) {
    let empty = Database::empty(database.backend()).await;
    let opened = empty.open_whole().await;
    let pending = opened.migrations.pending().await.expect("an answer");
    assert!(pending.is_sorted(), "{pending:?}");
    assert!(pending[0].starts_with("0001_"), "{pending:?}");
    assert_eq!(opened.migrations.apply().await.expect("an answer"), pending);
    assert!(
        opened
            .migrations
            .pending()
            .await
            .expect("an answer")
            .is_empty()
    );
}

async fn racing_processes_apply_each_change_once(database: Database) {
    let empty = Database::empty(database.backend()).await;
    let pending = empty
        .open_whole()
        .await
        .migrations
        .pending()
        .await
        .expect("an answer");
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(empty.open_whole().await);
    }
    let racers = nodes
        .clone()
        .into_iter()
        .map(|node| async move { node.migrations.apply().await });
    let mut applied: Vec<String> = race(racers)
        .await
        .into_iter()
        .flat_map(|names| names.expect("applied"))
        .collect();
    applied.sort();
    assert_eq!(applied, pending);
    add_user(&*nodes[0].store, "ann@example.org").await;
}

async fn changes_are_taken_back_newest_first(database: Database) {
    let opened = database.open_whole().await;
    let empty = Database::empty(database.backend()).await;
    let all = empty
        .open_whole()
        .await
        .migrations
        .pending()
        .await
        .expect("an answer");
    let newest = all.last().expect("at least one").clone();
    assert_eq!(
        opened.migrations.revert(1).await.expect("reverted"),
        [newest.as_str()]
    );
    assert_eq!(
        opened.migrations.pending().await.expect("an answer"),
        [newest]
    );
    let rest = opened.migrations.revert(1000).await.expect("reverted");
    assert_eq!(rest.len(), all.len() - 1);
    assert_eq!(opened.migrations.apply().await.expect("an answer"), all);
    add_user(&*database.open().await, "ann@example.org").await;
}

async fn applying_again_keeps_the_data(database: Database) {
    let opened = database.open_whole().await;
    let ann = add_user(&*opened.store, "ann@example.org").await;
    opened.migrations.apply().await.expect("an answer");
    assert_eq!(user(&*opened.store, ann).await.id, ann);
}

/// What older versions know stays as it is.
async fn mail_can_be_taken_back_and_had_again(database: Database) {
    let opened = database.open_whole().await;
    let store = &*opened.store;
    let ann = add_user(store, "ann@example.org").await;
    let (bob, link_of_bob) = add_invited(store, "bob@example.org").await;
    let reset = mail_to(store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
    mail_new_address(store, ann, "new@example.org", NOW).await;
    register(store, &registration("cyd@example.org", NOW)).await;
    let empty = Database::empty(database.backend()).await;
    let migrations = empty.open_whole().await.migrations;
    let all = migrations.pending().await.expect("an answer");
    let since_mail = all.iter().skip_while(|name| !name.starts_with("0003_"));
    let reverted = opened.migrations.revert(since_mail.count()).await;
    assert_eq!(
        reverted.expect("reverted").last(),
        Some(&"0003_mail".into())
    );
    opened.migrations.apply().await.expect("applied");

    let reopened = database.open().await;
    let store = &*reopened;
    assert_eq!(user(store, ann).await.email.as_str(), "ann@example.org");
    assert_eq!(all_letters(store).await, []);
    let redeem = async |proof| {
        let outcome = store
            .redeem_set_password(&proof, &hash("x"), None, &by(NOW))
            .await;
        outcome.expect("an answer")
    };
    assert_eq!(redeem(by_link(reset)).await, Redeem::Refused);
    let outcome = redeem(Proof::Link(link_of_bob)).await;
    assert_eq!(outcome, Redeem::Redeemed(bob));
    let again = mail_to(store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
    assert_eq!(redeem(by_link(again)).await, Redeem::Redeemed(ann));
}

/// Same numbers and names, so that one version of Doorward says one thing of its schema.
#[tokio::test(flavor = "multi_thread")]
async fn every_database_has_the_same_changes() {
    let mut names = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres, Backend::Mongodb] {
        let empty = Database::empty(backend).await;
        let opened = empty.open_whole().await;
        names.push(opened.migrations.pending().await.expect("an answer"));
    }
    assert_eq!(names[0], names[1]);
    assert_eq!(names[0], names[2]);
}

/// What somebody has applied cannot be changed any more: a change of the schema is a file of its own.
#[test]
fn changes_stay_as_they_are() {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read(&path).expect("readable");
            let hash = digest(&SHA256, &text);
            let name = path
                .strip_prefix(env!("CARGO_MANIFEST_DIR"))
                .expect("inside");
            let first = hash.as_ref()[..8].try_into().expect("eight bytes");
            let first = u64::from_be_bytes(first);
            files.push(format!("{first:016x} {}", name.display()));
        }
    }
    files.sort_by_key(|line| line[17..].to_owned());
    assert_eq!(
        files,
        [
            "10d5b9388284dcde migrations/mongodb/0001_users_and_sessions.json",
            "9ea1d7f434963da4 migrations/mongodb/0002_refresh_tokens.json",
            "514b9d142a92a6af migrations/mongodb/0003_mail.json",
            "aa6ac63f883ea1c0 migrations/mongodb/0004_limits.json",
            "35b42cb8c56f6b6e migrations/mongodb/0005_roles.json",
            "3df2119ef3116b9d migrations/mongodb/0006_sweeping.json",
            "72cd55ed948b63b2 migrations/mongodb/0007_audit.json",
            "5bc139e7bd328c34 migrations/postgres/0001_users_and_sessions/down.sql",
            "a6001a21e311ab8f migrations/postgres/0001_users_and_sessions/up.sql",
            "0cc82f6e93e289aa migrations/postgres/0002_refresh_tokens/down.sql",
            "aa5b272ba0cee519 migrations/postgres/0002_refresh_tokens/up.sql",
            "81df66b010029284 migrations/postgres/0003_mail/down.sql",
            "733889829efb0bae migrations/postgres/0003_mail/up.sql",
            "76f7a0ae5cfdfb96 migrations/postgres/0004_limits/down.sql",
            "6e08e93943e4afec migrations/postgres/0004_limits/up.sql",
            "c7de294014f7077b migrations/postgres/0005_roles/down.sql",
            "c8e72a29aad572fa migrations/postgres/0005_roles/up.sql",
            "ddb8676324628bdd migrations/postgres/0006_sweeping/down.sql",
            "1e3fa015b8a969a2 migrations/postgres/0006_sweeping/up.sql",
            "a002ea3b4e407a94 migrations/postgres/0007_audit/down.sql",
            "e3cc6583dcede269 migrations/postgres/0007_audit/up.sql",
            "5bc139e7bd328c34 migrations/sqlite/0001_users_and_sessions/down.sql",
            "a96355fc4ce6bacd migrations/sqlite/0001_users_and_sessions/up.sql",
            "681635c0f17f20ff migrations/sqlite/0002_refresh_tokens/down.sql",
            "6517792c917753d8 migrations/sqlite/0002_refresh_tokens/up.sql",
            "efcace522f4467d7 migrations/sqlite/0003_mail/down.sql",
            "3cdd29f744852d49 migrations/sqlite/0003_mail/up.sql",
            "76f7a0ae5cfdfb96 migrations/sqlite/0004_limits/down.sql",
            "6fe186daa730d53d migrations/sqlite/0004_limits/up.sql",
            "c7de294014f7077b migrations/sqlite/0005_roles/down.sql",
            "7b83446f1a936676 migrations/sqlite/0005_roles/up.sql",
            "ddb8676324628bdd migrations/sqlite/0006_sweeping/down.sql",
            "dd4fb59472f487a5 migrations/sqlite/0006_sweeping/up.sql",
            "c5f14b6872e56833 migrations/sqlite/0007_audit/down.sql",
            "5f70cc800bdb2412 migrations/sqlite/0007_audit/up.sql",
        ]
    );
}
