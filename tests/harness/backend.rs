//! A database of its own for each test, on each backend.
//!
//! A server that is not there fails the test with a sentence; nothing is skipped.

use std::{
    env, process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use doorward::store::settings::Backend;
use doorward::{
    clock::Span,
    store::{
        Store,
        open::{Opened, open},
        settings::{DatabaseSettings, Synchronous},
    },
};
use tempfile::TempDir;

use super::{
    canaries::{self, Canaries},
    mongodb, postgres, sqlite,
};

/// One test's database; gone when this is dropped.
pub struct Database {
    settings: DatabaseSettings,
    place: Place,
    /// The secrets that must not be found in it when the test is over.
    pub canaries: Canaries,
}

/// Where a test's database is, and how to be rid of it.
enum Place {
    Sqlite(#[expect(dead_code, reason = "dropping it removes the folder")] TempDir),
    Postgres { server: String, name: String },
    Mongodb { name: String },
}

impl Database {
    /// A migrated database without a single user.
    pub async fn fresh(backend: Backend) -> Self {
        if backend == Backend::Postgres {
            let server = server_url("DOORWARD_TEST_POSTGRES_URL");
            let name = fresh_name();
            postgres::create_from_template(&server, &name).await;
            return Self::on_postgres(server, name);
        }
        let database = Self::empty(backend).await;
        let opened = database.open_whole().await;
        opened.migrations.apply().await.expect("migrated");
        opened.store.close().await;
        database
    }

    /// A database without tables.
    pub async fn empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let mut settings = settings(backend);
                settings.sqlite.path = folder.path().join("doorward.db");
                Self {
                    canaries: Canaries::default(),
                    settings,
                    place: Place::Sqlite(folder),
                }
            }
            Backend::Postgres => {
                let server = server_url("DOORWARD_TEST_POSTGRES_URL");
                let name = fresh_name();
                postgres::create(&server, &name).await;
                Self::on_postgres(server, name)
            }
            Backend::Mongodb => {
                let server = server_url("DOORWARD_TEST_MONGODB_URL");
                mongodb::ensure_replica_set(&server).await;
                let name = fresh_name();
                let mut settings = settings(backend);
                settings.mongodb.url = server.as_str().into();
                settings.mongodb.database.clone_from(&name);
                Self {
                    canaries: Canaries::default(),
                    settings,
                    place: Place::Mongodb { name },
                }
            }
        }
    }

    fn on_postgres(server: String, name: String) -> Self {
        let mut settings = settings(Backend::Postgres);
        settings.postgres.url = postgres::with_database(&server, &name).into();
        Self {
            canaries: Canaries::default(),
            settings,
            place: Place::Postgres { server, name },
        }
    }

    pub fn backend(&self) -> Backend {
        self.settings.backend
    }

    /// As `[database]` would name it.
    pub fn settings(&self) -> &DatabaseSettings {
        &self.settings
    }

    /// A store on this database; each call gives an independent one, as on another node.
    pub async fn open(&self) -> Arc<dyn Store> {
        self.open_whole().await.store
    }

    /// The store together with its migrations.
    pub async fn open_whole(&self) -> Opened {
        open(self.settings())
            .await
            .unwrap_or_else(|e| panic!("the test database cannot be opened: {e}"))
    }

    /// Runs SQL by hand, past all of Doorward's code.
    pub async fn sql(&self, statement: &str) {
        match self.backend() {
            Backend::Sqlite => sqlite::execute(&self.settings.sqlite.path, statement),
            Backend::Postgres => {
                postgres::execute(self.settings.postgres.url.expose(), statement).await;
            }
            Backend::Mongodb => panic!("MongoDB does not speak SQL"),
        }
    }

    /// As [`Self::sql`]; the database's refusal is answered.
    pub async fn try_sql(&self, statement: &str) -> Result<(), String> {
        match self.backend() {
            Backend::Sqlite => sqlite::try_execute(&self.settings.sqlite.path, statement),
            Backend::Postgres => {
                postgres::try_execute(self.settings.postgres.url.expose(), statement).await
            }
            Backend::Mongodb => panic!("MongoDB does not speak SQL"),
        }
    }

    /// Everything that is stored, as somebody who steals a backup has it: bytes of PostgreSQL stand in
    /// it in hexadecimal.
    pub async fn dump(&self) -> Vec<u8> {
        match self.backend() {
            Backend::Sqlite => sqlite::dump(&self.settings.sqlite.path),
            Backend::Postgres => postgres::dump(self.settings.postgres.url.expose()),
            Backend::Mongodb => mongodb::dump(&self.mongo().await).await,
        }
    }

    /// The database itself, past all of Doorward's code.
    pub async fn mongo(&self) -> ::mongodb::Database {
        let client = mongodb::client(self.settings.mongodb.url.expose()).await;
        client.database(&self.settings.mongodb.database)
    }
}

impl Database {
    /// Fails the test if a secret of its own stands in the database, or any in the log.
    fn search(&self) {
        if std::thread::panicking() || self.canaries.is_empty() {
            return;
        }
        let searched = std::thread::scope(|scope| {
            let dumping = scope.spawn(|| {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().expect("a runtime");
                runtime.block_on(self.dump())
            });
            dumping.join()
        });
        let stored = searched.expect("the database can be dumped");
        let found = self.canaries.found_in(&stored);
        assert_eq!(found, None, "a secret is stored as it is");
        canaries::assert_nothing_logged();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.search();
        match &self.place {
            Place::Sqlite(_) => {}
            Place::Postgres { server, name } => {
                let (server, name) = (server.clone(), name.clone());
                in_a_runtime_of_its_own(
                    async move { postgres::drop_database(&server, &name).await },
                );
            }
            Place::Mongodb { name } => {
                let (url, name) = (self.settings.mongodb.url.clone(), name.clone());
                in_a_runtime_of_its_own(async move {
                    mongodb::drop_database(url.expose(), &name).await;
                });
            }
        }
    }
}

/// A drop cannot wait for a future on the test's own runtime.
fn in_a_runtime_of_its_own(work: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(work);
    });
    let dropped = thread.join().is_ok();
    assert!(
        dropped || std::thread::panicking(),
        "the test database could not be dropped"
    );
}

/// The defaults with long patience: a test machine may be busy with other things. SQLite's is fixed, so it does not
/// wait for the disk at each commit here; what a killed process leaves is the same.
fn settings(backend: Backend) -> DatabaseSettings {
    let mut settings = DatabaseSettings {
        backend,
        ..DatabaseSettings::default()
    };
    settings.sqlite.synchronous = Synchronous::Normal;
    settings.postgres.acquire_timeout = Span::minutes(1);
    settings.postgres.statement_timeout = Span::minutes(1);
    settings.mongodb.acquire_timeout = Span::minutes(1);
    settings.mongodb.statement_timeout = Span::minutes(1);
    settings
}

fn server_url(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("this test needs a real server: set {variable} or run ./tests/run")
    })
}

/// A database name that no other test, process or past run has.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let chance = u32::from_be_bytes(doorward::entropy::random_bytes(
        &doorward::entropy::SystemEntropy,
    ));
    format!("doorward_test_{}_{n}_{chance:08x}", process::id())
}
