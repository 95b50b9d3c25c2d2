//! Networks that break: the primary and one node are cut off from everybody else.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    Options, Outcome,
    machines::{Machine, Network},
    mongodb::Set,
    postgres::Pair,
    probes::Recovery,
    report::{Report, Time},
    rolling::open_to_all,
    takeovers::{Play, SYNCHRONOUS},
};

/// How long the network stays cut: longer than MongoDB's election, and than its old primary takes to notice.
const CUT: Duration = Duration::from_secs(25);
/// Before whoever watches over PostgreSQL has fenced the old primary.
const UNNOTICED: Duration = Duration::from_secs(8);
/// The node beside the old primary, and the others.
const INSIDE: usize = 0;
pub(crate) const OUTSIDE: [usize; 2] = [1, 2];

/// Three machines with a node on each.
pub(crate) async fn network(folder: &Path) -> Outcome<Network> {
    open_to_all(folder)?;
    Network::of(3, folder).await
}

pub(crate) fn three(network: &Network) -> [&Machine; 3] {
    let all = &network.machines;
    [&all[0], &all[1], &all[2]]
}

/// The old primary cannot acknowledge anything; it is fenced, the standby promoted, and the network healed.
pub(crate) async fn postgres(options: &Options, report: &mut Report) -> Outcome<()> {
    eprintln!("PostgreSQL: the primary cut off");
    let folder = tempfile::tempdir()?;
    let network = network(folder.path()).await?;
    let machines = three(&network);
    let mut pair = Pair::start((machines[0], machines[1]), folder.path(), true).await?;
    let play = Play::begin(options, &machines, &pair.variables(), folder.path()).await?;

    network.cut_off_the_first()?;
    sleep(UNNOTICED).await;
    pair.primary.kill();
    let promoting = Instant::now();
    pair.promote().await?;
    sleep(CUT).await;
    let outside = play.probes.recovery(OUTSIDE, promoting);
    let healing = Instant::now();
    network.heal()?;
    play.recovered(options, healing).await;
    let inside = play.probes.recovery_of(INSIDE, healing);
    let names = (
        "primary and a node cut off, standby promoted after 8 s, network healed after 33 s",
        SYNCHRONOUS,
    );
    let times = cut_times("promotion", outside, inside);
    play.end(report, names, times, true).await
}

/// The old primary takes itself for the primary until it notices, and others have elected another one.
pub(crate) async fn mongodb(options: &Options, report: &mut Report) -> Outcome<()> {
    eprintln!("MongoDB: the primary cut off");
    let names = (
        "primary and a node cut off, another primary elected at once, healed after 25 s",
        "MongoDB, three members, `linearizable`",
    );
    cut_mongodb(options, report, true, names).await
}

pub(crate) async fn cut_mongodb(
    options: &Options,
    report: &mut Report,
    linearizable: bool,
    names: (&str, &str),
) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let network = network(folder.path()).await?;
    let machines = three(&network);
    let set = Set::start(&machines, folder.path()).await?;
    let variables = set.variables(linearizable);
    let play = Play::begin(options, &machines, &variables, folder.path()).await?;

    let cutting = Instant::now();
    network.cut_off_the_first()?;
    // An election by itself takes as long as the old primary takes to notice; this is the worse case.
    set.step_up().await?;
    sleep(CUT).await;
    let outside = play.probes.recovery(OUTSIDE, cutting);
    let healing = Instant::now();
    network.heal()?;
    play.recovered(options, healing).await;
    let inside = play.probes.recovery_of(INSIDE, healing);
    set.is_whole().await?;
    let times = cut_times("cut", outside, inside);
    play.end(report, names, times, linearizable).await
}

fn cut_times(since: &str, outside: Recovery, inside: Recovery) -> Vec<Time> {
    vec![
        Time::new(&format!("{since} to reads"), outside.reads),
        Time::new(&format!("{since} to writes"), outside.writes),
        Time::new("healed to reads of the node inside", inside.reads),
        Time::new("to its writes", inside.writes),
    ]
}
