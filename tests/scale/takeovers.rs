//! Primaries that die or step down, while all nodes go on.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    Options, Outcome,
    load::Load,
    machines::Machine,
    mongodb::Set,
    nodes::{Nodes, Variables},
    postgres::Pair,
    probes::{Probes, Recovery},
    report::{Report, Row, Time},
    rolling::open_to_all,
};

/// Nodes that are loaded and watched.
pub(crate) struct Play {
    pub(crate) nodes: Nodes,
    pub(crate) load: Load,
    pub(crate) probes: Probes,
}

impl Play {
    /// Starts a node on each machine, and the load, and waits for as long as the calm lasts.
    pub(crate) async fn begin(
        options: &Options,
        machines: &[&Machine],
        variables: &Variables,
        folder: &Path,
    ) -> Outcome<Self> {
        let nodes = Nodes::start(options, machines, variables, folder).await?;
        let addresses = nodes.addresses();
        let probes = Probes::start(&addresses).await?;
        let mut load = Load::start(options, &addresses, &nodes.token, false).await?;
        load.calm(options).await;
        Ok(Self {
            nodes,
            load,
            probes,
        })
    }

    /// Lets the nodes find their way, and answers how long all of them needed since the failure.
    pub(crate) async fn recovered(&self, options: &Options, since: Instant) -> Recovery {
        sleep(options.recovering()).await;
        self.probes.recovery(0..self.nodes.all.len(), since)
    }

    /// Ends it.
    pub(crate) async fn end(
        self,
        report: &mut Report,
        (what, setting): (&str, &str),
        times: Vec<Time>,
        kept: bool,
    ) -> Outcome<()> {
        self.probes.stop().await;
        report.add(Row {
            what: what.to_owned(),
            setting: setting.to_owned(),
            kept,
            times,
            settled: self.load.settle().await?,
        });
        Ok(())
    }
}

/// The primary is killed and stays fenced, the standby is promoted.
pub(crate) async fn postgres(options: &Options, report: &mut Report) -> Outcome<()> {
    eprintln!("PostgreSQL: the primary killed");
    let (folder, here) = (tempfile::tempdir()?, Machine::here());
    open_to_all(folder.path())?;
    let mut pair = Pair::start((&here, &here), folder.path(), true).await?;
    let machines = [&here, &here, &here];
    let play = Play::begin(options, &machines, &pair.variables(), folder.path()).await?;

    let failure = Instant::now();
    pair.primary.kill();
    // What watches over real servers takes longer to be sure.
    sleep(Duration::from_secs(2)).await;
    let promoting = Instant::now();
    pair.promote().await?;
    let promoted = failure.elapsed();
    let recovery = play.recovered(options, promoting).await;
    let times = vec![
        Time::new("killed to promoted", promoted),
        Time::new("promotion to reads", recovery.reads),
        Time::new("promotion to writes", recovery.writes),
    ];
    let names = ("primary killed, standby promoted", SYNCHRONOUS);
    play.end(report, names, times, true).await
}

pub(crate) const SYNCHRONOUS: &str = "PostgreSQL, `synchronous_standby_names`, old primary fenced";

/// The primary steps down; then the next one is killed, and comes back.
pub(crate) async fn mongodb(options: &Options, report: &mut Report) -> Outcome<()> {
    for killed in [false, true] {
        let what = if killed {
            "primary killed"
        } else {
            "primary stepped down"
        };
        eprintln!("MongoDB: {what}");
        let (folder, here) = (tempfile::tempdir()?, Machine::here());
        let machines = [&here, &here, &here];
        let mut set = Set::start(&machines, folder.path()).await?;
        let variables = set.variables(false);
        let play = Play::begin(options, &machines, &variables, folder.path()).await?;

        let failure = Instant::now();
        let primary = set.primary().await?;
        if killed {
            set.kill(primary);
        } else {
            set.step_down().await?;
        }
        let recovery = play.recovered(options, failure).await;
        if killed {
            set.start_again(primary)?;
        }
        set.is_whole().await?;
        let times = vec![
            Time::new("to reads", recovery.reads),
            Time::new("to writes", recovery.writes),
        ];
        play.end(report, (what, "MongoDB, three members"), times, true)
            .await?;
    }
    Ok(())
}
