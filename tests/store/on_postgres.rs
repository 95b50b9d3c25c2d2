//! What only PostgreSQL can do wrong.

use doorward::store::StoreError;
use serde_json::json;

use super::sample::{NOW, add_user, attributes, open_one, user};
use crate::harness::backend::{Backend, Database};

/// `jsonb` takes numbers and depths that no JSON parser of ours does.
#[tokio::test(flavor = "multi_thread")]
async fn odd_attributes_fail_for_their_user_alone() {
    let database = Database::fresh(Backend::Postgres).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let wanted = [
        (ann, open_one(&*store, ann, NOW).await),
        (bob, open_one(&*store, bob, NOW).await),
    ];
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#"{"n": 1e400}"#, &format!(r#"{{"n": {deep}}}"#)] {
        let by_hand = format!("UPDATE users SET attributes = '{odd}' WHERE id = '{ann}'");
        database.sql(&by_hand).await;
        let found = store.live_sessions(&wanted).await.expect("an answer");
        let attributes = "attributes";
        assert!(
            matches!(&found[0], Err(StoreError::Corrupt { column, .. }) if *column == attributes),
            "{found:?}"
        );
        assert!(matches!(found[1], Ok(Some(_))), "{found:?}");
    }
}

/// Whatever the connection string or the role says, what is acknowledged is on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_never_acknowledged_before_it_is_written() {
    let database = Database::fresh(Backend::Postgres).await;
    let off = "ALTER DATABASE %I SET synchronous_commit = off";
    let off = format!("DO $$ BEGIN EXECUTE format('{off}', current_database()); END $$");
    database.sql(&off).await;
    let store = database.open().await;
    // Whoever makes a user says how it is committed.
    let says = "CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         NEW.attributes := jsonb_build_object('commit', current_setting('synchronous_commit')); \
         RETURN NEW; END $$; \
         CREATE TRIGGER says BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION says()";
    database.sql(says).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let says = user(&*store, ann).await.attributes;
    assert_eq!(says, attributes(json!({"commit": "on"})));
}
