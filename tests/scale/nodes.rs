//! Nodes: the program itself, on some machines, with one database.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    Options, Outcome,
    http::{Connection, request},
    machines::Machine,
    persons::PASSWORD,
    programs::{Program, run, until},
};

/// 32 random bytes.
const KEY: &str = "fJ6rN3vUqk0m8Yt1sXe5bPzQwL7hGdC2oIxTnAaRyMk=";
const ROOT: &str = "root@example.org";

/// Light hashing, and no limits: the load comes from one address and knows no bounds.
const LIGHT: [(&str, &str); 17] = [
    ("ENVIRONMENT", "test"),
    ("TOKENS__KEY", KEY),
    ("PASSWORDS__SCRYPT_LOG_N", "4"),
    ("PASSWORDS__SCRYPT_P", "1"),
    ("HTTP__TRUSTED_PROXIES", "127.0.0.1/32"),
    ("LIMITS__LOGIN_ACCOUNT", "off"),
    ("LIMITS__LOGIN_ADDRESS", "off"),
    ("LIMITS__REGISTER_ADDRESS", "off"),
    ("LIMITS__REFRESH_SESSION", "off"),
    ("LIMITS__REQUESTS", "off"),
    ("LIMITS__NODE_ADDRESS", "off"),
    ("LIMITS__FORGOT_ADDRESS", "off"),
    ("LIMITS__FORGOT_TARGET", "off"),
    ("LIMITS__RESEND_ADDRESS", "off"),
    ("LIMITS__RESEND_TARGET", "off"),
    ("LIMITS__CODE_ADDRESS", "off"),
    ("LOG__FORMAT", "json"),
];

/// Settings of a node, by the names of their variables without `DOORWARD__`.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// A node that runs.
pub(crate) struct Node {
    pub(crate) address: String,
    command: Command,
    log: PathBuf,
    program: Program,
}

/// All nodes of one database.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    /// Of an administrator.
    pub(crate) token: String,
}

impl Nodes {
    /// Prepares the database and starts a node on each of these machines.
    pub(crate) async fn start(
        options: &Options,
        machines: &[&Machine],
        variables: &Variables,
        folder: &Path,
    ) -> Outcome<Self> {
        let first = machines.first().ok_or("no machines")?;
        run(command(options, first, variables)?.arg("migrate"))?;
        make_administrator(command(options, first, variables)?)?;
        let mut all = Vec::new();
        for (n, machine) in machines.iter().enumerate() {
            let address = format!("{}:{}", machine.address, machine.free_port()?);
            let mut command = command(options, machine, variables)?;
            command.arg("serve").env("DOORWARD__HTTP__LISTEN", &address);
            let log = folder.join(format!("node{n}.log"));
            let program = Program::start(&mut command, &log)?;
            all.push(Node {
                address,
                command,
                log,
                program,
            });
        }
        for node in &all {
            node.ready().await?;
        }
        let mut way = Connection::to(&all[0].address);
        let body = format!(r#"{{"email":"{ROOT}","password":"{PASSWORD}"}}"#);
        let asked = request("POST", "/v1/auth/login", None, &body);
        way.ask(&asked).await?;
        let token = way.field("access_token");
        let token = token.ok_or_else(|| format!("no administrator: {}", way.body()))?;
        Ok(Self { all, token })
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|node| node.address.clone()).collect()
    }
}

impl Node {
    /// Stops it as an operator does, and starts it again.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        self.program.tell(Signal::TERM)?;
        self.program.ended().await?;
        self.program = Program::start(&mut self.command, &self.log)?;
        self.ready().await
    }

    async fn ready(&self) -> Outcome<()> {
        let asked = request("GET", "/health/ready", None, "");
        let ready = until("a node is ready", async || {
            let mut way = Connection::to(&self.address);
            matches!(way.ask(&asked).await, Ok(200))
        });
        ready.await.map_err(|error| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            format!("{error}: {}", last.join("\n")).into()
        })
    }
}

fn command(options: &Options, machine: &Machine, variables: &Variables) -> Outcome<Command> {
    let program = options.program.canonicalize()?;
    let mut command = machine.command(&program, None);
    for (name, value) in LIGHT {
        command.env(format!("DOORWARD__{name}"), value);
    }
    for (name, value) in variables {
        command.env(format!("DOORWARD__{name}"), value);
    }
    Ok(command)
}

fn make_administrator(mut command: Command) -> Outcome<()> {
    command.args(["admin", "create", "--email", ROOT, "--password-stdin"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("piped")?;
    input.write_all(PASSWORD.as_bytes())?;
    drop(input);
    if !child.wait()?.success() {
        return Err("no administrator could be made".into());
    }
    Ok(())
}
