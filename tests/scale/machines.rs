//! Machines and the network between them, which can be cut.
//!
//! A machine is this one, or a network namespace of its own on a bridge that stands in one more. A cut lets packets
//! go to nobody: both sides take each other for a network card that does not exist, so that nothing is refused and
//! nobody is told, as when a cable is pulled. What programs run on a machine is for others. Namespaces are held by
//! processes and vanish with them.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, id},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use crate::{
    Outcome,
    programs::{Program, run, until},
};

/// A network for measurements (RFC 2544), which nobody else uses.
const NETWORK: &str = "198.18.77";
/// This machine's address in it.
const OWN: u8 = 254;
/// A network card that nobody has.
const NOBODY: &str = "02:00:00:00:00:fe";

/// Where programs run and under which address they are reached.
pub(crate) struct Machine {
    pub(crate) address: String,
    apart: Option<Namespace>,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            apart: None,
        }
    }

    /// A program to run there, as this user and group or as the present one.
    pub(crate) fn command(&self, program: &Path, account: Option<(u32, u32)>) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.apart {
            words.extend(namespace.enter());
        }
        // Whatever becomes of this process, nothing is left behind.
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(Into::into));
        if let Some((uid, gid)) = account {
            words.extend([format!("--reuid={uid}"), format!("--regid={gid}")]);
            words.push("--clear-groups".to_owned());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program).current_dir("/");
        command
    }

    /// A port that nobody listens on there, and that nobody was given before.
    pub(crate) fn free_port(&self) -> Outcome<u16> {
        // Below those that the system gives to clients.
        const FIRST: u16 = 10_000;
        const PORTS: u16 = 20_000;
        static GIVEN: AtomicU16 = AtomicU16::new(0);
        let beginning = u16::try_from(id() % u32::from(PORTS))?;
        let mut ports = (0..PORTS).map(|_| {
            let n = beginning.wrapping_add(GIVEN.fetch_add(1, Relaxed));
            FIRST + n % PORTS
        });
        // Nobody else is on a machine of its own.
        let is_free =
            |port: &u16| self.apart.is_some() || TcpListener::bind(("127.0.0.1", *port)).is_ok();
        Ok(ports.find(is_free).ok_or("there is no free port")?)
    }
}

/// A network namespace that lives as long as its process.
struct Namespace {
    holder: Program,
}

impl Namespace {
    async fn make(folder: &Path) -> Outcome<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net"]);
        command.args(["sleep", "infinity"]);
        let holder = Program::start(&mut command, &folder.join("namespaces.log"))?;
        let own = fs::read_link("/proc/self/ns/net")?;
        let namespace = Self { holder };
        let made = until("a network namespace is there", async || {
            let found = fs::read_link(namespace.path());
            found.is_ok_and(|found| found != own)
        });
        made.await.map_err(|_| {
            "a network namespace cannot be made here: run this as root, or leave out what cuts networks with --only"
        })?;
        Ok(namespace)
    }

    fn id(&self) -> String {
        self.holder.id().unwrap_or_default().to_string()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.id())
    }

    fn enter(&self) -> [String; 3] {
        let net = format!("--net={}", self.path());
        ["nsenter".to_owned(), net, "--".to_owned()]
    }

    /// Runs `ip` inside.
    fn ip(&self, words: &str) -> Outcome<()> {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg("ip").args(words.split(' '));
        run(&mut command).map(drop)
    }
}

/// Some machines on one network, which this machine reaches whatever is cut.
pub(crate) struct Network {
    pub(crate) machines: Vec<Machine>,
    _bridge: Namespace,
}

impl Network {
    /// As many machines. Needs root.
    pub(crate) async fn of(machines: u8, folder: &Path) -> Outcome<Self> {
        let bridge = Namespace::make(folder).await?;
        bridge.ip("link add br0 type bridge")?;
        bridge.ip("link set br0 up")?;
        let outside = format!("dw{}", id());
        let hub = bridge.id();
        ip(&format!(
            "link add {outside} type veth peer name outside netns {hub}"
        ))?;
        ip(&format!("address add {NETWORK}.{OWN}/24 dev {outside}"))?;
        ip(&format!("link set {outside} up"))?;
        bridge.ip("link set outside master br0 up")?;
        let mut all = Vec::new();
        for n in 1..=machines {
            let namespace = Namespace::make(folder).await?;
            let (own, address) = (namespace.id(), format!("{NETWORK}.{n}"));
            ip(&format!(
                "link add port{n} netns {hub} type veth peer name eth0 netns {own}"
            ))?;
            bridge.ip(&format!("link set port{n} master br0 up"))?;
            namespace.ip("link set lo up")?;
            namespace.ip(&format!("address add {address}/24 dev eth0"))?;
            namespace.ip("link set eth0 up")?;
            all.push(Machine {
                address,
                apart: Some(namespace),
            });
        }
        Ok(Self {
            machines: all,
            _bridge: bridge,
        })
    }

    /// Nothing gets from the first machine to the others any more, and nothing from them to it.
    pub(crate) fn cut_off_the_first(&self) -> Outcome<()> {
        self.between(|other| {
            format!("neigh replace {other} lladdr {NOBODY} dev eth0 nud permanent")
        })
    }

    /// Everything gets through again.
    pub(crate) fn heal(&self) -> Outcome<()> {
        self.between(|other| format!("neigh del {other} dev eth0"))
    }

    fn between(&self, words: impl Fn(&str) -> String) -> Outcome<()> {
        let (first, others) = self.machines.split_first().ok_or("no machines")?;
        for other in others {
            for (from, to) in [(first, other), (other, first)] {
                let namespace = from.apart.as_ref().ok_or("this machine is not cut off")?;
                namespace.ip(&words(&to.address))?;
            }
        }
        Ok(())
    }
}

fn ip(words: &str) -> Outcome<()> {
    run(Command::new("ip").args(words.split(' '))).map(drop)
}
