//! What is not promised, played all the same: so it is known what it would cost, and that faults are found.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Options, Outcome,
    partitions::{OUTSIDE, cut_mongodb, network, three},
    postgres::Pair,
    report::{Report, Time},
    takeovers::Play,
};

/// How long two primaries take writes side by side, or one whose standby hears nothing.
const ASTRAY: Duration = Duration::from_secs(8);

pub(crate) async fn play(options: &Options, report: &mut Report) -> Outcome<()> {
    eprintln!("not promised: MongoDB without linearizable lookups");
    let names = (
        "primary and a node cut off, another primary elected at once, healed after 25 s",
        "MongoDB, three members, without `linearizable`",
    );
    cut_mongodb(options, report, false, names).await?;
    for fenced in [true, false] {
        astray(options, report, fenced).await?;
    }
    Ok(())
}

/// A standby that is not synchronous is promoted, and the old primary fenced or not.
async fn astray(options: &Options, report: &mut Report, fenced: bool) -> Outcome<()> {
    let setting = if fenced {
        "PostgreSQL, asynchronous standby, old primary fenced"
    } else {
        "PostgreSQL, asynchronous standby, old primary not fenced"
    };
    eprintln!("not promised: {setting}");
    let folder = tempfile::tempdir()?;
    let network = network(folder.path()).await?;
    let machines = three(&network);
    let mut pair = Pair::start((machines[0], machines[1]), folder.path(), false).await?;
    let play = Play::begin(options, &machines, &pair.variables(), folder.path()).await?;

    network.cut_off_the_first()?;
    sleep(ASTRAY).await;
    if fenced {
        pair.primary.kill();
    }
    let promoting = Instant::now();
    pair.promote().await?;
    sleep(ASTRAY).await;
    pair.primary.kill();
    network.heal()?;
    play.recovered(options, Instant::now()).await;
    let outside = play.probes.recovery(OUTSIDE, promoting);
    let times = vec![
        Time::new("promotion to reads", outside.reads),
        Time::new("to writes", outside.writes),
    ];
    let names = (
        "primary and a node cut off, standby promoted after 8 s",
        setting,
    );
    play.end(report, names, times, false).await
}
