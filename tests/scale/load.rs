//! Those who show sessions to the nodes all the time, and those who open and end them.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Options, Outcome,
    http::Connection,
    persons::Actor,
    random::SplitMix,
    settling::Settled,
    world::{Verdict, World},
};

/// Actors, each with as many of the persons as any other.
const ACTORS: usize = 12;
/// After an answer that was none.
const PAUSE: Duration = Duration::from_millis(20);

/// A load that runs.
pub(crate) struct Load {
    pub(crate) world: Arc<World>,
    actors: JoinSet<Outcome<Actor>>,
    checkers: JoinSet<()>,
    /// What the calm before the failure was like.
    pub(crate) calm: Calm,
}

/// How quickly requests were answered.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Calm {
    pub(crate) per_second: f64,
    pub(crate) acts_per_second: f64,
}

impl Load {
    /// Makes the accounts and begins. `token` is an administrator's; with `retries`, what fails is tried once more.
    pub(crate) async fn start(
        options: &Options,
        nodes: &[String],
        token: &str,
        retries: bool,
    ) -> Outcome<Self> {
        let persons = usize::try_from(options.persons)?;
        let world = Arc::new(World::new(nodes.to_vec(), persons, retries));
        let mut welcoming = JoinSet::new();
        for n in 0..ACTORS {
            let mut actor = Actor::new(&world, n, token);
            welcoming.spawn(async move {
                for number in (n..persons).step_by(ACTORS) {
                    actor.welcome(number).await?;
                }
                Outcome::Ok(actor)
            });
        }
        let mut actors = JoinSet::new();
        while let Some(actor) = welcoming.join_next().await {
            actors.spawn(actor??.act());
        }
        let mut checkers = JoinSet::new();
        for (n, node) in world.nodes.iter().enumerate() {
            for m in 0..options.connections {
                let seed = u64::from(m) << 32 | u64::try_from(n)?;
                checkers.spawn(check(Arc::clone(&world), node.clone(), seed));
            }
        }
        Ok(Self {
            world,
            actors,
            checkers,
            calm: Calm::default(),
        })
    }

    /// Lets it run, and remembers how quickly that went.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) async fn calm(&mut self, options: &Options) {
        let counts = || {
            let acts = self.world.tally.acknowledged.load(Relaxed);
            (self.world.judged() as f64, acts as f64)
        };
        let (before, beginning) = (counts(), Instant::now());
        sleep(options.calm()).await;
        let (after, passed) = (counts(), beginning.elapsed().as_secs_f64());
        self.calm = Calm {
            per_second: (after.0 - before.0) / passed,
            acts_per_second: (after.1 - before.1) / passed,
        };
    }

    /// Ends it, once the nodes can answer again, and asks for all that was promised.
    pub(crate) async fn settle(mut self) -> Outcome<Settled> {
        self.world.stop();
        let mut actors = Vec::new();
        while let Some(actor) = self.actors.join_next().await {
            match actor? {
                Ok(actor) => actors.push(actor),
                Err(error) => self.world.is_odd(error.to_string()),
            }
        }
        while let Some(checker) = self.checkers.join_next().await {
            checker?;
        }
        Settled::of(self.world, actors, self.calm).await
    }
}

/// Shows one session after the other to a node.
async fn check(world: Arc<World>, node: String, seed: u64) {
    let (mut way, mut random) = (Connection::to(&node), SplitMix(seed));
    while world.goes_on() {
        let Some(login) = world.any(&mut random) else {
            return;
        };
        let verdict = world.show(&mut way, &login, random.below(2) == 0).await;
        if verdict == Verdict::Unavailable {
            sleep(PAUSE).await;
        }
    }
}
