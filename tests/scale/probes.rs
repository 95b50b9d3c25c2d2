//! How long each node could not do its work: one session is shown to it again and again, and somebody logs in again and
//! again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Outcome,
    http::{Connection, request},
    persons::PASSWORD,
};

/// Between two questions of each kind.
const READING: Duration = Duration::from_millis(10);
const WRITING: Duration = Duration::from_millis(50);

/// A pause between two answers that is worth telling.
const PAUSE: Duration = Duration::from_millis(500);

/// What a node answered to one who asks again and again.
struct Answers {
    /// When it last did what was asked.
    last: Instant,
    /// When it did so again after a pause.
    again: Option<Instant>,
}

impl Answers {
    fn one_more(&mut self) {
        let now = Instant::now();
        if now - self.last > PAUSE {
            self.again = Some(now);
        }
        self.last = now;
    }

    /// How long after a moment there was the last pause; nothing if there was none.
    fn paused(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let pauses = now - self.last > PAUSE;
        let until = if pauses { Some(now) } else { self.again };
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(since)
        })
    }
}

type Shared = Arc<Mutex<Answers>>;

fn held(answers: &Shared) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long it took until a node paused no more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Recovery {
    pub(crate) reads: Duration,
    pub(crate) writes: Duration,
}

/// Probes of all nodes.
pub(crate) struct Probes {
    /// Of each node to those who read and to those who write.
    answers: Vec<[Shared; 2]>,
    stopped: Arc<AtomicBool>,
    asking: JoinSet<()>,
}

impl Probes {
    /// Makes the accounts and begins.
    pub(crate) async fn start(nodes: &[String]) -> Outcome<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (mut answers, mut asking) = (Vec::new(), JoinSet::new());
        for (n, node) in nodes.iter().enumerate() {
            let (reader, writer) = (format!("reader{n}"), format!("writer{n}"));
            let token = register(node, &reader).await?;
            register(node, &writer).await?;
            let shown = request("GET", "/v1/auth/me", Some(&token), "");
            let both = [(shown, READING), (log_in(&writer), WRITING)].map(|(asked, every)| {
                let answers = Arc::new(Mutex::new(Answers {
                    last: Instant::now(),
                    again: None,
                }));
                let (node, stopped) = (node.clone(), Arc::clone(&stopped));
                asking.spawn(ask(node, asked, every, Arc::clone(&answers), stopped));
                answers
            });
            answers.push(both);
        }
        Ok(Self {
            answers,
            stopped,
            asking,
        })
    }

    /// How long after a moment a node did its work again without a pause.
    pub(crate) fn recovery_of(&self, node: usize, since: Instant) -> Recovery {
        let [reads, writes] = &self.answers[node];
        Recovery {
            reads: held(reads).paused(since),
            writes: held(writes).paused(since),
        }
    }

    /// The slowest of these nodes.
    pub(crate) fn recovery(
        &self,
        nodes: impl IntoIterator<Item = usize>,
        since: Instant,
    ) -> Recovery {
        let each = nodes.into_iter().map(|node| self.recovery_of(node, since));
        each.fold(Recovery::default(), |slowest, one| Recovery {
            reads: slowest.reads.max(one.reads),
            writes: slowest.writes.max(one.writes),
        })
    }

    pub(crate) async fn stop(mut self) {
        self.stopped.store(true, Relaxed);
        while self.asking.join_next().await.is_some() {}
    }
}

async fn ask(
    node: String,
    asked: Vec<u8>,
    every: Duration,
    answers: Shared,
    stopped: Arc<AtomicBool>,
) {
    let mut way = Connection::to(&node);
    while !stopped.load(Relaxed) {
        if matches!(way.ask(&asked).await, Ok(200)) {
            held(&answers).one_more();
        }
        sleep(every).await;
    }
}

fn log_in(name: &str) -> Vec<u8> {
    let body = format!(r#"{{"email":"{name}@example.org","password":"{PASSWORD}"}}"#);
    request("POST", "/v1/auth/login", None, &body)
}

async fn register(node: &str, name: &str) -> Outcome<String> {
    let mut way = Connection::to(node);
    let body = format!(r#"{{"email":"{name}@example.org","password":"{PASSWORD}"}}"#);
    let asked = request("POST", "/v1/auth/register", None, &body);
    for (asked, right) in [(asked, 201), (log_in(name), 200)] {
        if way.ask(&asked).await? != right {
            return Err(format!("a probe got no account: {}", way.body()).into());
        }
    }
    Ok(way.field("access_token").ok_or("no token")?)
}
