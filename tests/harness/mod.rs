//! What the tests stand on: databases, decorated stores, races.

pub mod app;
mod audit_edits;
pub mod authority;
pub mod backend;
pub mod breaches;
pub mod browser;
pub mod canaries;
pub mod collector;
pub mod edits;
pub mod mailbox;
pub mod mongodb;
pub mod occasions;
pub mod pooler;
mod postgres;
mod processes;
pub mod relay;
pub mod servers;
pub mod smtp;
pub mod sqlite;
pub mod urls;
pub mod watched;

use std::{
    net::TcpListener,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Barrier;

/// How long anything may take that a test waits for; only a failure ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the racers at once, each in a task of its own, and gives their answers in order.
pub async fn race<T, R>(racers: impl IntoIterator<Item = R>) -> Vec<T>
where
    R: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let racers: Vec<R> = racers.into_iter().collect();
    let start = Arc::new(Barrier::new(racers.len()));
    let running: Vec<_> = racers
        .into_iter()
        .map(|racer| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                racer.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in running {
        answers.push(task.await.expect("a racer panicked"));
    }
    answers
}

/// A port that nobody listens on, which no other test is given and which the system gives to nobody by itself: it
/// picks higher ones.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let beginning = process::id().wrapping_mul(997);
    let mut ports = (0..PORTS).map(|_| {
        let n = beginning.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + n % PORTS).expect("below 30000")
    });
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a free port")
}

/// How many rounds of a loop to run: a twentieth of them unless `./tests/run --long` asks for all.
pub fn rounds(all: usize) -> usize {
    let long = std::env::var_os("DOORWARD_TEST_LONG").is_some_and(|value| value == "1");
    if long { all } else { all.div_ceil(20) }
}

/// Asks again until the answer is yes; fails the test when that takes too long.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// One test per backend and case, each with a migrated, empty database of its own:
/// `for_each_store! { case_a, case_b }` makes `sqlite::case_a`, `postgres::case_a` and so on.
#[macro_export]
macro_rules! for_each_store {
    ($($case:ident),+ $(,)?) => {
        $crate::for_each_store!(@ sqlite Sqlite $($case)+);
        $crate::for_each_store!(@ postgres Postgres $($case)+);
        $crate::for_each_store!(@ mongodb Mongodb $($case)+);
    };
    (@ $module:ident $backend:ident $($case:ident)+) => {
        mod $module {
            use $crate::harness::backend::{Backend, Database};

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(Database::fresh(Backend::$backend).await).await;
            })+
        }
    };
}
