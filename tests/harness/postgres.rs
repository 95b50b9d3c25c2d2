//! PostgreSQL by hand: databases made and dropped, statements past Doorward's code.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use doorward::store::{
    open::open,
    settings::{Backend, DatabaseSettings},
};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Any number: one process at a time makes a template.
const TEMPLATE_LOCK: i64 = 0x7465_6d70;

/// Runs statements in the database that the URL names.
pub async fn execute(url: &str, statement: &str) {
    try_execute(url, statement)
        .await
        .unwrap_or_else(|e| panic!("{e}: {statement}"));
}

/// As [`execute`]; the database's refusal is answered.
pub async fn try_execute(url: &str, statement: &str) -> Result<(), String> {
    let client = connect(url).await;
    let done = client.batch_execute(statement).await;
    done.map_err(|refused| format!("{refused:?}"))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|e| panic!("PostgreSQL does not answer, run ./tests/run: {e}"));
    tokio::spawn(connection);
    client
}

/// The same server and user, another database.
pub fn with_database(server: &str, name: &str) -> String {
    let (address, options) = match server.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = address
        .split_once("://")
        .unwrap_or_else(|| panic!("DOORWARD_TEST_POSTGRES_URL must begin with postgres://"));
    let host = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{host}/{name}{options}")
}

/// A database without tables.
pub async fn create(server: &str, name: &str) {
    execute(server, &format!("CREATE DATABASE {name}")).await;
}

/// A migrated database, copied from one that is migrated once and kept for later runs.
pub async fn create_from_template(server: &str, name: &str) {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE.get_or_init(|| template(server)).await;
    execute(
        server,
        &format!("CREATE DATABASE {name} TEMPLATE {template}"),
    )
    .await;
}

pub async fn drop_database(server: &str, name: &str) {
    execute(
        server,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    )
    .await;
}

/// Names the template of the present migrations and makes it if it is not there yet.
async fn template(server: &str) -> String {
    let name = format!("doorward_template_{:016x}", migrations_hash());
    let client = connect(server).await;
    client
        .batch_execute(&format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})"))
        .await
        .expect("the lock is had");
    let found = client
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .await
        .expect("the catalogue answers");
    if found.is_none() {
        // Renamed once it is whole, so that an interrupted run leaves no half of it.
        let making = format!("{name}_making");
        drop_database(server, &making).await;
        create(server, &making).await;
        migrate(&with_database(server, &making)).await;
        execute(server, &format!("ALTER DATABASE {making} RENAME TO {name}")).await;
    }
    name
}

async fn migrate(url: &str) {
    let mut settings = DatabaseSettings {
        backend: Backend::Postgres,
        ..DatabaseSettings::default()
    };
    settings.postgres.url = url.into();
    let opened = open(&settings).await.expect("the template opens");
    opened.migrations.apply().await.expect("migrated");
    drop(opened);
    // Renaming needs a database that nobody is connected to; closing takes the server a moment.
    let (server, name) = url.rsplit_once('/').expect("a URL with a database");
    let others = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
        name.split('?').next().unwrap_or(name)
    );
    let client = connect(&with_database(&format!("{server}/"), "postgres")).await;
    super::until("nobody uses the template", || async {
        let row = client.query_one(&others, &[]).await.expect("an answer");
        row.get::<_, i64>(0) == 0
    })
    .await;
}

/// A number that changes with any migration.
fn migrations_hash() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("migrations/postgres")
        .map(|entry| entry.expect("an entry").path().join("up.sql"))
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).expect("up.sql").hash(&mut hasher);
    }
    hasher.finish()
}

/// What `pg_dump` writes down.
pub fn dump(url: &str) -> Vec<u8> {
    let folder = std::env::var("DOORWARD_TEST_PG_BIN").expect("run ./tests/run");
    let dumped = std::process::Command::new(format!("{folder}/pg_dump"))
        .arg(url)
        .output()
        .expect("pg_dump runs");
    let complaint = String::from_utf8_lossy(&dumped.stderr);
    assert!(dumped.status.success(), "{complaint}");
    dumped.stdout
}
