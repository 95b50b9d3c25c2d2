//! Three nodes behind nginx as `examples/scale-out` sets it up, restarted one after the other.

use std::{fs, path::Path, time::Duration};

use tokio::time::sleep;

use crate::{
    Options, Outcome,
    http::{Connection, request},
    load::Load,
    machines::Machine,
    nodes::Nodes,
    postgres::Server,
    programs::{Program, installed, until},
    report::{Report, Row},
};

/// Between two nodes: nginx tries one that failed again after a second.
const BETWEEN: Duration = Duration::from_secs(2);

pub(crate) async fn play(options: &Options, report: &mut Report) -> Outcome<()> {
    eprintln!("rolling restarts behind nginx");
    let (folder, here) = (tempfile::tempdir()?, Machine::here());
    open_to_all(folder.path())?;
    let database = Server::alone(&here, &folder.path().join("postgres")).await?;
    let mut variables = database.variables();
    variables.push(("HTTP__DRAIN", "1s".to_owned()));
    let machines = [&here, &here, &here];
    let mut nodes = Nodes::start(options, &machines, &variables, folder.path()).await?;
    let (_nginx, address) = nginx(&here, &nodes.addresses(), folder.path()).await?;

    let mut load = Load::start(options, &[address], &nodes.token, true).await?;
    load.calm(options).await;
    for _ in 0..options.rounds() {
        for node in &mut nodes.all {
            node.restart().await?;
            sleep(BETWEEN).await;
        }
    }
    let settled = load.settle().await?;
    let restarts = options.rounds() * nodes.all.len();
    report.add(Row {
        what: format!("{restarts} rolling restarts of three nodes behind nginx"),
        setting: "PostgreSQL, `http.drain = \"1s\"`".to_owned(),
        kept: true,
        times: Vec::new(),
        settled,
    });
    Ok(())
}

/// PostgreSQL runs as somebody else and has to get to its folder.
pub(crate) fn open_to_all(folder: &Path) -> Outcome<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// nginx with the addresses of these nodes in the places of the example's.
async fn nginx(here: &Machine, nodes: &[String], folder: &Path) -> Outcome<(Program, String)> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scale-out/nginx.conf");
    let address = format!("{}:{}", here.address, here.free_port()?);
    let mut configuration = fs::read_to_string(example)?;
    configuration = configuration.replace("listen 80;", &format!("listen {address};"));
    for (n, node) in nodes.iter().enumerate() {
        let written = format!("10.0.0.{}:8080", n + 1);
        configuration = configuration.replace(&written, node);
    }
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = here.command(&installed("DOORWARD_TEST_NGINX")?, None);
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    command.args(["-g", "daemon off;"]);
    let nginx = Program::start(&mut command, &folder.join("nginx.log"))?;
    let asked = request("GET", "/health/live", None, "");
    until("nginx passes requests on", async || {
        matches!(Connection::to(&address).ask(&asked).await, Ok(200))
    })
    .await?;
    Ok((nginx, address))
}
