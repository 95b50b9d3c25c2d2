//! What only PostgreSQL can do wrong.

use std::{
    io,
    sync::{Arc, Mutex},
};

use doorward::{
    clock::{ManualClock, Span},
    model::{
        quota::{Draw, Quota},
        token::SecretHash,
    },
    store::{Seen, StoreError, Take, open::open},
};
use serde_json::json;
use tokio::time::timeout;

use super::sample::{NOW, add_user, at, attributes, open_one, user, view};
use crate::harness::{
    PATIENCE,
    app::{Client, PASSWORD, Setup, serve},
    backend::{Backend, Database},
    servers::PrivateServer,
    until,
};

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

/// A flush takes what is free at once and waits for the rest, holding nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_only_for_the_session_that_is_held() {
    let database = Database::fresh(Backend::Postgres).await;
    let store = database.open().await;
    let mut seen = Vec::new();
    for name in ["ann", "bob", "cas"] {
        let user_id = add_user(&*store, &format!("{name}@example.org")).await;
        seen.push(Seen {
            user_id,
            session_id: open_one(&*store, user_id, NOW).await,
            at: at(5),
        });
    }
    let last_seen = async |one: &Seen| {
        let found = view(&*store, one.user_id, one.session_id).await;
        found.expect("a session").last_seen_at
    };
    let url = database.settings().postgres.url.expose();
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    let by_hand = format!(
        "BEGIN; SELECT 1 FROM sessions WHERE id = '{}' FOR UPDATE",
        seen[1].session_id
    );
    holder.batch_execute(&by_hand).await.expect("held");
    let flush = tokio::spawn({
        let (store, seen) = (std::sync::Arc::clone(&store), seen.clone());
        async move { store.note_seen(&seen).await }
    });
    until("the free ones are noted", async || {
        last_seen(&seen[0]).await == at(5) && last_seen(&seen[2]).await == at(5)
    })
    .await;
    assert_eq!(last_seen(&seen[1]).await, NOW);
    assert!(!flush.is_finished());
    holder.batch_execute("COMMIT").await.expect("let go");
    flush.await.expect("no panic").expect("noted");
    assert_eq!(last_seen(&seen[1]).await, at(5));
}

/// ASVS 15.4.4: a sure refusal waits for no lock, and a storm on one counter keeps nothing else waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_on_one_counter_has_connections_of_its_own() {
    let database = Database::fresh(Backend::Postgres).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let draw = |key| Draw {
        key: SecretHash::of(key),
        account: None,
        quota: Some(Quota::new(2, Span::minutes(15))),
        permits: 1,
        failures: None,
    };
    for key in ["full", "full", "open"] {
        let taken = store.take(&draw(key), NOW).await.expect("an answer");
        assert_eq!(taken, Take::Admitted);
    }
    let url = database.settings().postgres.url.expose();
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    let by_hand = "BEGIN; SELECT 1 FROM rate_limits FOR UPDATE";
    holder.batch_execute(by_hand).await.expect("held");

    let refused = timeout(PATIENCE, store.take(&draw("full"), NOW)).await;
    let refused = refused.expect("no waiting").expect("an answer");
    assert!(matches!(refused, Take::Refused(_)), "{refused:?}");
    let draws: Vec<_> = (0..200)
        .map(|_| {
            let (store, draw) = (std::sync::Arc::clone(&store), draw("open"));
            tokio::spawn(async move { store.take(&draw, NOW).await.expect("an answer") })
        })
        .collect();
    for _ in 0..20 {
        let found = timeout(PATIENCE, store.user(ann)).await;
        found.expect("no waiting").expect("an answer");
        let opened = timeout(PATIENCE, open_one(&*store, ann, NOW)).await;
        opened.expect("no waiting");
    }
    assert!(draws.iter().all(|one| !one.is_finished()));
    holder.batch_execute("COMMIT").await.expect("let go");
    let mut admitted = 0;
    for one in draws {
        admitted += usize::from(one.await.expect("no panic") == Take::Admitted);
    }
    assert_eq!(admitted, 1);
}

/// ASVS 13.2.2: only `migrate` changes the schema, so a server needs no right to.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_without_the_right_to_change_the_schema() {
    let database = Database::fresh(Backend::Postgres).await;
    let url = database.settings().postgres.url.expose();
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let place = rest.split_once('@').map_or(rest, |(_, place)| place);
    let name = place.rsplit('/').next().and_then(|n| n.split('?').next());
    let role = format!("{}_server", name.expect("a name"));
    let grants = format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'x'; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    );
    database.sql(&grants).await;
    let mut settings = database.settings().clone();
    let own = format!("{scheme}://{role}:x@{place}");
    settings.postgres.url = own.clone().into();
    let opened = open(&settings).await.expect("opened");
    let pending = opened.migrations.pending().await.expect("an answer");
    assert_eq!(pending, Vec::<String>::new());
    let clock = Arc::new(ManualClock::at(NOW));
    let node = serve(opened.store, &Setup::default(), clock).await;
    let guest = Client::anonymous(&node.url);
    let body = json!({"email": "ann@example.org", "password": PASSWORD});
    guest.post("/v1/auth/register", body).await.expect(201);
    let ann = guest.log_in("ann@example.org", PASSWORD).await;
    ann.refreshed().await.me().await.expect(200);
    ann.call("/v1/auth/logout").await.expect(204);

    let (by_hand, connection) = tokio_postgres::connect(&own, tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    for change in ["DROP TABLE sessions", "CREATE TABLE x (y int)"] {
        by_hand.batch_execute(change).await.expect_err(change);
    }
    let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    database.sql(&gone).await;
}

/// The lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn taken(&self) -> String {
        let lines = std::mem::take(&mut *self.0.lock().expect("whole"));
        String::from_utf8(lines).expect("text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command may be over before the last connection that it asked for is there.
#[tokio::test]
async fn nobody_misses_the_connections_of_a_store_that_was_let_go() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _logged_here = tracing::subscriber::set_default(subscriber.finish());
    let database = Database::fresh(Backend::Postgres).await;
    let mut settings = database.settings().clone();
    settings.postgres.acquire_timeout = Span::millis(200);
    let store = open(&settings).await.expect("open").store;

    let refuse = "UPDATE pg_database SET datallowconn = false WHERE datname = current_database(); \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.sql(refuse).await;
    until("somebody misses one", async || {
        let away = store.time().await;
        assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
        lines.taken().contains("no connection to PostgreSQL")
    })
    .await;
    store.close().await;
    // What was said until then.
    lines.taken();
    let away = store.time().await;
    assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
    assert_eq!(lines.taken(), "");
}

/// Building an index may take longer than any deadline, but not without a server: its kernel still takes what is sent,
/// so that no connection breaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_given_up_when_the_server_stops_answering() {
    let server = PrivateServer::start(Backend::Postgres).await;
    let mut settings = server.settings();
    settings.postgres.acquire_timeout = Span::millis(500);
    let opened = open(&settings).await.expect("opened");
    let url = settings.postgres.url.expose();
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    let by_hand = "BEGIN; LOCK TABLE __diesel_schema_migrations";
    holder.batch_execute(by_hand).await.expect("held");
    let applying = tokio::spawn({
        let migrations = std::sync::Arc::clone(&opened.migrations);
        async move { migrations.apply().await }
    });
    until("it waits for the table", async || {
        let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL";
        !holder.query(waiting, &[]).await.expect("rows").is_empty()
    })
    .await;

    server.freeze().await;
    let given_up = timeout(PATIENCE, applying).await.expect("no waiting");
    let given_up = given_up.expect("no panic");
    assert!(
        matches!(given_up, Err(StoreError::Unavailable(_))),
        "{given_up:?}"
    );
    server.thaw();
    holder.batch_execute("COMMIT").await.expect("let go");
    let nothing_left = opened.migrations.apply().await.expect("an answer");
    assert_eq!(nothing_left, Vec::<String>::new());
}
