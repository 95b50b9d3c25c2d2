//! What each database tells of itself.

use ::mongodb::bson::doc;

use super::{Report, doctor, refused, starts_without};
use crate::{
    harness::{backend::Backend, mongodb, pooler::Pooler, servers::PrivateServer, until},
    program::{Place, set_mode},
};

/// The file of an SQLite database is as it should be at first, and then is not.
#[test]
fn a_file_that_others_can_change_stops_the_start() {
    let place = Place::new();
    let none: &[(&str, &str)] = &[];
    let before = doctor(&place, none);
    before.says(
        "database.reachable",
        "yellow",
        "there is no database file yet",
    );
    assert!(!place.path("data").exists(), "looking makes nothing");
    place.run(&["migrate"], none).answer();
    let report = doctor(&place, none);
    assert_eq!(
        report.faults(),
        ["database.administrator", "secrets.audit_key"]
    );
    assert_eq!(report.code, 0);
    for name in [
        "sqlite.disk",
        "sqlite.journal",
        "sqlite.synchronous",
        "database.clock",
    ] {
        assert_eq!(report.level(name), "green", "{name}");
    }

    set_mode(&place.path("data"), 0o755);
    let file = place.path("data/doorward.db");
    set_mode(&file, 0o644);
    doctor(&place, none).says("sqlite.permissions", "yellow", "chmod 600");
    set_mode(&file, 0o666);
    let report = doctor(&place, none);
    report.says(
        "sqlite.permissions",
        "red",
        "everybody on this machine can change",
    );
    assert_eq!(report.code, 1);
    let sentence = refused(&place, none);
    assert!(
        sentence.starts_with("sqlite.permissions: everybody")
            && sentence.ends_with("doctor.ignore = [\"sqlite.permissions\"] starts all the same"),
        "{sentence}"
    );
    starts_without("sqlite.permissions", &place, none);
    let ignoring = [("DOORWARD__DOCTOR__IGNORE", "sqlite.permissions")];
    let report = doctor(&place, &ignoring);
    assert_eq!(
        (report.code, report.level("sqlite.permissions")),
        (0, "red")
    );

    let lowered = [("DOORWARD__DATABASE__SQLITE__SYNCHRONOUS", "normal")];
    doctor(&place, &lowered).says("sqlite.synchronous", "yellow", "power cut");
    let memory = tempfile::tempdir_in("/dev/shm").expect("a file system in memory");
    let path = memory.path().join("doorward.db").display().to_string();
    let memory = [("DOORWARD__DATABASE__SQLITE__PATH", path.as_str())];
    place.run(&["migrate"], &memory).answer();
    doctor(&place, &memory).says("sqlite.disk", "yellow", "in memory (tmpfs)");
}

#[test]
fn a_schema_that_is_behind_and_a_missing_administrator_are_named() {
    let place = Place::new();
    let strict = [
        ("DOORWARD__ENVIRONMENT", "test"),
        ("DOORWARD__DATABASE__AUTO_MIGRATE", "false"),
    ];
    place.run(&["migrate"], &strict).answer();
    let admin = [
        "admin",
        "create",
        "--email",
        "root@example.org",
        "--password-stdin",
    ];
    let variables = [&super::BASE[..], &strict].concat();
    let named = |level| doctor(&place, &strict).level("database.administrator") == level;
    assert!(named("yellow"));
    let made = place.run_with_input(&admin, &variables, "correct horse battery staple");
    made.answer();
    assert!(named("green"));

    place.run(&["migrate", "--down", "1"], &strict).answer();
    let report = doctor(&place, &strict);
    report.says("database.migrations", "red", "run `doorward migrate`");
    assert_eq!(report.code, 1);
    let report = doctor(&place, &[]);
    report.says("database.migrations", "yellow", "`serve` applies");
    assert_eq!(report.code, 0);
}

const POSTGRES: (&str, &str) = ("DOORWARD__DATABASE__BACKEND", "postgres");
const POSTGRES_URL: &str = "DOORWARD__DATABASE__POSTGRES__URL";

fn url(servers: &[&PrivateServer]) -> String {
    let ports = servers
        .iter()
        .map(|one| format!("127.0.0.1:{}", one.port()));
    let places: Vec<String> = ports.collect();
    format!("postgres://doorward:hunter2@{}/postgres", places.join(","))
}

/// Waits until the server says so: reading its files again takes it a moment.
async fn until_it_says(place: &Place, url: &str, name: &str, level: &str) -> Report {
    let variables = [POSTGRES, (POSTGRES_URL, url)];
    until(name, async || {
        doctor(place, &variables).level(name) == level
    })
    .await;
    doctor(place, &variables)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_stops_the_start() {
    let server = PrivateServer::start(Backend::Postgres).await;
    let place = Place::new();
    let url = url(&[&server]);
    let variables = [POSTGRES, (POSTGRES_URL, url.as_str())];
    let report = doctor(&place, &variables);
    report.says("postgres.fsync", "red", "set fsync = on");
    assert_eq!(report.code, 1);
    assert_eq!(
        refused(&place, &variables),
        "postgres.fsync: fsync is off: a power cut may lose acknowledged changes, or the whole database; set fsync = on; \
         doctor.ignore = [\"postgres.fsync\"] starts all the same"
    );
    starts_without("postgres.fsync", &place, &variables);

    server.reload("fsync = on");
    let report = until_it_says(&place, &url, "postgres.fsync", "green").await;
    assert_eq!(
        report.faults(),
        ["database.administrator", "secrets.audit_key"]
    );
    assert_eq!(report.code, 0);
    drop(place.serve(&[&super::BASE[..], &variables].concat()));

    server.reload("full_page_writes = off\nsynchronous_commit = off");
    let report = until_it_says(&place, &url, "postgres.full_page_writes", "red").await;
    report.says(
        "postgres.synchronous_commit",
        "yellow",
        "Doorward sets it to on",
    );
    let narrow = [
        &variables[..],
        &[("DOORWARD__DATABASE__POSTGRES__MAX_CONNECTIONS", "200")],
    ]
    .concat();
    doctor(&place, &narrow).says("postgres.connections", "yellow", "208 connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_replica_is_told_from_its_primary() {
    let primary = PrivateServer::start(Backend::Postgres).await;
    primary.reload("fsync = on");
    let standby = primary.standby().await;
    let place = Place::new();
    let alone = url(&[&primary]);
    let report = until_it_says(&place, &alone, "postgres.standbys", "yellow").await;
    report.says("postgres.standbys", "yellow", "synchronous_standby_names");
    assert_eq!(report.level("postgres.replica"), "green");
    let both = url(&[&standby, &primary]);
    assert_eq!(
        until_it_says(&place, &both, "postgres.replica", "green")
            .await
            .code,
        0,
        "one of the two takes writes"
    );

    let lagging = url(&[&standby]);
    let lagging = [POSTGRES, (POSTGRES_URL, lagging.as_str())];
    let report = doctor(&place, &lagging);
    report.says("postgres.replica", "red", "read replica");
    assert_eq!(
        (report.code, report.level("database.reachable")),
        (1, "red")
    );
    let sentence = refused(&place, &lagging);
    assert!(
        sentence.starts_with("postgres.replica: the URL leads to a read replica"),
        "{sentence}"
    );
    let ignoring = [
        &lagging[..],
        &[("DOORWARD__DOCTOR__IGNORE", "postgres.replica")],
    ]
    .concat();
    let sentence = refused(&place, &ignoring);
    assert!(
        sentence.starts_with("doctor.ignore: `postgres.replica` cannot be ignored"),
        "{sentence}"
    );

    primary.reload("synchronous_standby_names = '*'\nsynchronous_commit = local");
    let report = until_it_says(&place, &alone, "postgres.standbys", "green").await;
    report.says(
        "postgres.synchronous_commit",
        "yellow",
        "synchronous_commit is local",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_gives_connections_away_is_found_out() {
    let server = PrivateServer::start(Backend::Postgres).await;
    server.reload("fsync = on");
    let place = Place::new();
    let pooler = Pooler::before(&server, "transaction").await;
    let transaction = pooler.url();
    let variables = [POSTGRES, (POSTGRES_URL, transaction.as_str())];
    for _ in 0..3 {
        let report = doctor(&place, &variables);
        report.says("postgres.pooler", "red", "pool_mode = session");
        assert_eq!(report.code, 1);
    }
    let sentence = refused(&place, &variables);
    assert!(
        sentence.starts_with("postgres.pooler: a pooler gives"),
        "{sentence}"
    );
    drop(pooler);

    let pooler = Pooler::before(&server, "session").await;
    let session = pooler.url();
    let report = until_it_says(&place, &session, "postgres.fsync", "green").await;
    assert_eq!(report.level("postgres.pooler"), "green");
    assert_eq!(report.code, 0);
}

const MONGODB: (&str, &str) = ("DOORWARD__DATABASE__BACKEND", "mongodb");
const MONGODB_URL: &str = "DOORWARD__DATABASE__MONGODB__URL";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_that_counts_without_journals_stops_the_start() {
    let server = PrivateServer::start(Backend::Mongodb).await;
    let place = Place::new();
    let url = server.settings().mongodb.url.expose().clone();
    let variables = [MONGODB, (MONGODB_URL, url.as_str())];
    let report = doctor(&place, &variables);
    assert_eq!(
        report.faults(),
        [
            "database.administrator",
            "mongodb.members",
            "secrets.audit_key"
        ]
    );
    report.says("mongodb.members", "yellow", "one member");
    assert_eq!(report.code, 0);
    let weak = format!("{url}&w=1&readPreference=nearest");
    let report = doctor(&place, &[MONGODB, (MONGODB_URL, weak.as_str())]);
    report.says(
        "mongodb.concerns",
        "yellow",
        "a write concern below majority, reads from other members",
    );

    let client = mongodb::client(&url).await;
    let admin = client.database("admin");
    let config = admin.run_command(doc! { "replSetGetConfig": 1 }).await;
    let mut config = config
        .expect("a set")
        .get_document("config")
        .expect("one")
        .clone();
    let version = config.get_i32("version").expect("a number");
    config.insert("version", version + 1);
    config.insert("writeConcernMajorityJournalDefault", false);
    let changed = admin.run_command(doc! { "replSetReconfig": config }).await;
    changed.expect("changed");
    client.shutdown().await;
    doctor(&place, &variables).says("mongodb.journal", "red", "rs.reconfig()");
    let sentence = refused(&place, &variables);
    assert!(sentence.starts_with("mongodb.journal: "), "{sentence}");
    starts_without("mongodb.journal", &place, &variables);
}

#[test]
fn a_standalone_mongodb_server_is_told_how_to_become_a_replica_set() {
    let server = PrivateServer::standalone_mongod();
    let place = Place::new();
    let url = format!("mongodb://127.0.0.1:{}/", server.port());
    let variables = [MONGODB, (MONGODB_URL, url.as_str())];
    let report = doctor(&place, &variables);
    report.says("mongodb.standalone", "red", "rs.initiate()");
    assert_eq!(report.code, 1);
    let sentence = refused(&place, &variables);
    assert!(sentence.starts_with("mongodb.standalone: "), "{sentence}");
}
