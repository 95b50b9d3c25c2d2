//! Schema changes: named while pending, applied once whoever races, taken back with their data.

use super::sample::{add_user, user};
use crate::{
    for_each_store,
    harness::{backend::Database, race},
};

for_each_store! {
    a_migrated_database_has_nothing_pending,
    an_empty_database_names_everything_as_pending_in_order,
    racing_processes_apply_each_change_once,
    changes_are_taken_back_newest_first,
    applying_again_keeps_the_data,
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
