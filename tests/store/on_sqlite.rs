//! What only SQLite can do wrong.

use std::fs;

use diesel::{Connection, QueryableByName, RunQueryDsl, sql_types::Text, sqlite::SqliteConnection};
use doorward::{ids::SessionId, presence::Presence};
use uuid::Uuid;

use super::sample::{add_user, at, open_one, view};
use crate::harness::backend::{Backend, Database};

/// With "memory management" the pages of connections at rest push out those of one that works.
#[test]
fn each_connection_keeps_its_own_pages() {
    #[derive(QueryableByName)]
    struct Said {
        #[diesel(sql_type = Text)]
        compile_options: String,
    }
    let mut conn = SqliteConnection::establish(":memory:").expect("opened");
    let said: Vec<Said> = diesel::sql_query("PRAGMA compile_options")
        .load(&mut conn)
        .expect("an answer");
    let said: Vec<_> = said.into_iter().map(|one| one.compile_options).collect();
    assert!(said.len() > 5, "{said:?}");
    assert!(
        !said.contains(&"ENABLE_MEMORY_MANAGEMENT".to_owned()),
        "{said:?}: is LIBSQLITE3_FLAGS of .cargo/config.toml used?"
    );
}

/// Thousands of sessions lie on hundreds of pages, each of which is to be written once, whoever was seen first.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_is_written_page_by_page() {
    const SESSIONS: u128 = 3000;
    const FRAME: u64 = 24 + 4096;
    let database = Database::fresh(Backend::Sqlite).await;
    let store = database.open().await;
    let user = add_user(&*store, "ann@example.org").await;
    let one = open_one(&*store, user, at(0)).await;
    database
        .sql(&format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {SESSIONS}) \
             INSERT INTO sessions SELECT unhex(format('%032x', n)), user_id, n + 1000, created_at, \
             authenticated_at, last_seen_at, expires_at, closed_at, close_reason, auth_methods, device_name, \
             user_agent, address, generation, generation_used, refresh_hash, refresh_previous, rotated_at \
             FROM n, sessions WHERE id = x'{}'",
            one.as_uuid().simple()
        ))
        .await;
    let presence = Presence::new(store.clone());
    let ids = (1..=SESSIONS).map(|n| SessionId::from(Uuid::from_u128(n)));
    ids.clone().for_each(|id| presence.note(user, id, at(60)));
    database.sql("PRAGMA wal_checkpoint(TRUNCATE)").await;
    presence.flush().await.expect("written");
    let log = database.settings().sqlite.path.with_extension("db-wal");
    let frames = fs::metadata(log).expect("there is one").len() / FRAME;
    assert!((100..900).contains(&frames), "{frames} pages were written");
    for id in ids.step_by(500) {
        let seen = view(&*store, user, id).await;
        assert_eq!(seen.expect("there").last_seen_at, at(60));
    }
    store.close().await;
}
