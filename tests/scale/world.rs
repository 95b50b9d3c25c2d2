//! What all who load the nodes share: the sessions, what was counted, and when to stop.
//!
//! Decides what an answer means: accepted, refused, or not available, which is 503 with `Retry-After` or no answer at
//! all, and that anything else is a fault. Who does what with which session is for `persons` and `load`.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    history::History,
    http::{Connection, request},
    random::SplitMix,
};

/// Sessions that have ended are shown for as long as no more ended after them.
const REMEMBERED: usize = 400;
/// Between two attempts where a node could not answer.
const PAUSE: Duration = Duration::from_millis(25);
/// No failure that is played lasts so long.
const PATIENCE: Duration = Duration::from_secs(90);
/// Faults that are told in words.
const TOLD: usize = 8;

/// A session and the requests that show its token.
pub(crate) struct Login {
    pub(crate) token: String,
    me: Vec<u8>,
    check: Vec<u8>,
    pub(crate) history: History,
}

impl Login {
    fn new(token: String) -> Self {
        let get = |path| request("GET", path, Some(&token), "");
        Self {
            me: get("/v1/auth/me"),
            check: get("/v1/auth/check"),
            token,
            history: History::new(),
        }
    }
}

/// What was counted.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Answered 503 with `Retry-After`, or not at all.
    pub(crate) unavailable: AtomicU64,
    /// Where a retry is to help: that it was needed.
    pub(crate) retried: AtomicU64,
    /// And that it did not help.
    pub(crate) failed: AtomicU64,
    /// Acts that were acknowledged: logins, ends, refreshes, registrations.
    pub(crate) acknowledged: AtomicU64,
    /// What was acknowledged once and is not there.
    pub(crate) lost: AtomicU64,
}

/// What a node made of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
    Unavailable,
}

/// Shared by everybody who loads the nodes.
pub(crate) struct World {
    pub(crate) nodes: Vec<String>,
    pub(crate) tally: Tally,
    /// Whether what fails is tried once more at once, and has to succeed then.
    retries: bool,
    /// The newest session of each person.
    newest: Vec<Mutex<Option<Arc<Login>>>>,
    ended: Mutex<VecDeque<Arc<Login>>>,
    all: Mutex<Vec<Arc<Login>>>,
    odd: Mutex<Vec<String>>,
    stopped: AtomicBool,
    beginning: Instant,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(nodes: Vec<String>, persons: usize, retries: bool) -> Self {
        Self {
            nodes,
            tally: Tally::default(),
            retries,
            newest: (0..persons).map(|_| Mutex::default()).collect(),
            ended: Mutex::default(),
            all: Mutex::default(),
            odd: Mutex::default(),
            stopped: AtomicBool::new(false),
            beginning: Instant::now(),
        }
    }

    /// Nanoseconds of the one clock that everything is judged by; never 0.
    pub(crate) fn now(&self) -> u64 {
        let passed = self.beginning.elapsed().as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX).max(1)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stopped.load(Relaxed)
    }

    /// Requests that were judged by a session.
    pub(crate) fn judged(&self) -> u64 {
        self.tally.accepted.load(Relaxed) + self.tally.refused.load(Relaxed)
    }

    /// A session that a person was just given.
    pub(crate) fn opened(&self, person: usize, token: String) -> Arc<Login> {
        let login = Arc::new(Login::new(token));
        held(&self.all).push(Arc::clone(&login));
        *held(&self.newest[person]) = Some(Arc::clone(&login));
        login
    }

    /// The end of a session was acknowledged by an answer that arrived at this moment.
    pub(crate) fn ended(&self, login: &Arc<Login>, at: u64) {
        login.history.end_is_acknowledged(at);
        let mut ended = held(&self.ended);
        ended.push_back(Arc::clone(login));
        if ended.len() > REMEMBERED {
            ended.pop_front();
        }
    }

    /// Somebody's session: three times of four the newest one of a person, else one that has ended.
    pub(crate) fn any(&self, random: &mut SplitMix) -> Option<Arc<Login>> {
        if random.below(4) == 0 {
            let ended = held(&self.ended);
            if !ended.is_empty() {
                return ended.get(random.below(ended.len())).cloned();
            }
        }
        held(&self.newest[random.below(self.newest.len())]).clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Login>> {
        held(&self.all).clone()
    }

    /// Shows a session to a node and notes what that makes of it.
    pub(crate) async fn show(&self, way: &mut Connection, login: &Login, check: bool) -> Verdict {
        let request = if check { &login.check } else { &login.me };
        for attempt in 0.. {
            let began = self.now();
            match way.ask(request).await {
                Ok(200) => {
                    login.history.is_accepted(began);
                    self.tally.accepted.fetch_add(1, Relaxed);
                    return Verdict::Accepted;
                }
                Ok(401) => {
                    login.history.is_refused(self.now());
                    self.tally.refused.fetch_add(1, Relaxed);
                    return Verdict::Refused;
                }
                other => self.missed(&other, way, attempt),
            }
            if !self.retries || attempt > 0 {
                break;
            }
        }
        Verdict::Unavailable
    }

    /// Asks some node or other until one has an answer. Gives it, and whether something was asked before of which nobody
    /// knows whether it was done.
    pub(crate) async fn ask<'a>(
        &self,
        ways: &'a mut Ways,
        request: &[u8],
    ) -> Outcome<(u16, &'a Connection, bool)> {
        let beginning = Instant::now();
        for attempt in 0.. {
            let chosen = ways.random.below(ways.connections.len());
            let way = &mut ways.connections[chosen];
            match way.ask(request).await {
                Ok(status) if status != 503 && status != 502 && status != 504 => {
                    return Ok((status, &ways.connections[chosen], attempt > 0));
                }
                other => self.missed(&other, way, attempt),
            }
            if beginning.elapsed() > PATIENCE {
                break;
            }
            if !self.retries || attempt > 0 {
                sleep(PAUSE).await;
            }
        }
        Err("no node would do what was asked".into())
    }

    /// Counts an answer that is none.
    fn missed(&self, answer: &io::Result<u16>, way: &Connection, attempt: u32) {
        if self.retries {
            let kind = [&self.tally.retried, &self.tally.failed];
            kind[usize::from(attempt > 0)].fetch_add(1, Relaxed);
        } else {
            self.tally.unavailable.fetch_add(1, Relaxed);
        }
        let is_right = match answer {
            Ok(503) => way.header("retry-after").is_some(),
            // A proxy that was let down.
            Ok(502 | 504) => self.retries,
            Ok(_) => false,
            Err(_) => true,
        };
        if !is_right {
            self.is_odd(format!("{answer:?}: {}", way.body()));
        }
    }

    /// Notes something that must not happen.
    pub(crate) fn is_odd(&self, what: String) {
        held(&self.odd).push(what);
    }

    /// Notes that something is not there which was acknowledged.
    pub(crate) fn is_lost(&self, answer: &str) {
        self.tally.lost.fetch_add(1, Relaxed);
        self.is_odd(format!("lost: {answer}"));
    }

    /// What must not happen and did: how often, and some of it in words.
    pub(crate) fn oddities(&self) -> (usize, Vec<String>) {
        let odd = held(&self.odd);
        (odd.len(), odd.iter().take(TOLD).cloned().collect())
    }
}

/// Connections to all nodes, of somebody who asks now this one and now that one.
pub(crate) struct Ways {
    pub(crate) connections: Vec<Connection>,
    pub(crate) random: SplitMix,
}

impl Ways {
    pub(crate) fn to(nodes: &[String], seed: u64) -> Self {
        let connections = nodes.iter().map(|node| Connection::to(node));
        Self {
            connections: connections.collect(),
            random: SplitMix(seed),
        }
    }
}
