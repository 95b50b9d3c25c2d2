//! The reckoning: whether everything that was acknowledged is there, and whether all histories are as they must be.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::task::JoinSet;

use crate::{
    Outcome,
    history::Fault,
    http::request,
    load::Calm,
    persons::{Actor, PASSWORD},
    world::{Login, Verdict, Ways, World},
};

/// Those who ask for sessions that have ended.
const ASKERS: usize = 24;

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) calm: Calm,
    pub(crate) judged: u64,
    pub(crate) unavailable: u64,
    pub(crate) retried: u64,
    pub(crate) failed: u64,
    /// Acts that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Sessions whose end was acknowledged.
    pub(crate) ended: u64,
    /// Those of them that were accepted afterwards.
    pub(crate) accepted_after: u64,
    /// How long after the acknowledgement the last one was, in nanoseconds.
    pub(crate) longest_after: u64,
    /// Sessions that were refused although nobody had asked for their end, or that came back.
    pub(crate) wrongly_refused: u64,
    /// Acknowledged accounts, logins and refreshes that are not there.
    pub(crate) lost: u64,
    /// What else must not happen, and some of it in words.
    pub(crate) odd: usize,
    pub(crate) told: Vec<String>,
}

impl Settled {
    /// Asks for everything, while nobody else does anything.
    pub(crate) async fn of(world: Arc<World>, actors: Vec<Actor>, calm: Calm) -> Outcome<Self> {
        let mut asking = JoinSet::new();
        for actor in actors {
            asking.spawn(keeps_what_it_has(actor));
        }
        let all = Arc::new(world.all());
        for n in 0..ASKERS {
            asking.spawn(stays_ended(Arc::clone(&world), Arc::clone(&all), n));
        }
        while let Some(asked) = asking.join_next().await {
            asked??;
        }
        let mut settled = Self {
            calm,
            judged: world.judged(),
            unavailable: world.tally.unavailable.load(Relaxed),
            retried: world.tally.retried.load(Relaxed),
            failed: world.tally.failed.load(Relaxed),
            acknowledged: world.tally.acknowledged.load(Relaxed),
            lost: world.tally.lost.load(Relaxed),
            ..Self::default()
        };
        for login in all.iter() {
            settled.judge(login);
        }
        (settled.odd, settled.told) = world.oddities();
        Ok(settled)
    }

    fn judge(&mut self, login: &Login) {
        self.ended += u64::from(login.history.has_ended());
        match login.history.fault() {
            Some(Fault::AcceptedAfterItsEnd(after)) => {
                self.accepted_after += 1;
                self.longest_after = self.longest_after.max(after);
            }
            Some(Fault::RefusedBeforeItsEnd | Fault::AcceptedAgain) => self.wrongly_refused += 1,
            None => {}
        }
    }

    /// Whether every promise was kept.
    pub(crate) fn is_right(&self) -> bool {
        let wrong = [
            self.accepted_after,
            self.wrongly_refused,
            self.lost,
            self.failed,
        ];
        wrong.iter().all(|count| *count == 0) && self.odd == 0
    }
}

/// Sessions that nobody ended are accepted, refresh tokens are good, and accounts can be logged in to.
async fn keeps_what_it_has(mut actor: Actor) -> Outcome<()> {
    let world = Arc::clone(&actor.world);
    let ways = &mut actor.ways;
    for person in &actor.persons {
        if person.login.history.is_to_live() {
            for way in &mut ways.connections {
                let verdict = until_judged(&world, way, &person.login).await;
                if verdict != Verdict::Accepted {
                    world.is_lost("a session");
                }
            }
            let body = format!(r#"{{"refresh_token":"{}"}}"#, person.refresh);
            let asked = request("POST", "/v1/auth/refresh", None, &body);
            is_there(&world, ways, &asked).await?;
        }
        log_in(&world, ways, &person.email).await?;
    }
    for email in &actor.registered {
        log_in(&world, ways, email).await?;
    }
    Ok(())
}

async fn log_in(world: &World, ways: &mut Ways, email: &str) -> Outcome<()> {
    let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
    let asked = request("POST", "/v1/auth/login", None, &body);
    is_there(world, ways, &asked).await
}

async fn is_there(world: &World, ways: &mut Ways, asked: &[u8]) -> Outcome<()> {
    let (status, way, _) = world.ask(ways, asked).await?;
    if status != 200 {
        world.is_lost(way.body());
    }
    Ok(())
}

/// Every session whose end was acknowledged is refused by every node.
async fn stays_ended(world: Arc<World>, all: Arc<Vec<Arc<Login>>>, n: usize) -> Outcome<()> {
    let mut ways = Ways::to(&world.nodes, 0);
    let mine = all.iter().skip(n).step_by(ASKERS);
    for login in mine.filter(|login| login.history.has_ended()) {
        for way in &mut ways.connections {
            until_judged(&world, way, login).await;
        }
    }
    Ok(())
}

async fn until_judged(world: &World, way: &mut crate::http::Connection, login: &Login) -> Verdict {
    for _ in 0..100 {
        let verdict = world.show(way, login, false).await;
        if verdict != Verdict::Unavailable {
            return verdict;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Verdict::Unavailable
}
