//! Takes connections and serves them until it is told to stop.
//!
//! Decides what becomes of a connection beyond the bounds, and in which order a listener ends: it is closed,
//! then those who are idle are, then those whose requests are answered, and last whoever is left. How one
//! connection is served is for `connection`, and when it has had its time for `link`.

use std::{io, net::SocketAddr, ops::Deref, pin::pin, sync::Arc, time::Duration};

use poem::{Endpoint, web::LocalAddr};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    connection::{Service, serve},
    link::Order,
    register::{Entry, Register},
    tls::Tls,
};
use crate::{clock::Stopwatch, http::HttpSettings, setting::BadSetting};

/// How long to wait before the next connection where none could be taken.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log says that connections are refused.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// How long connections that are cut may take to be gone.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Files that the process opens besides its connections: the database's, logs, itself.
const OTHER_FILES: u64 = 256;

/// A socket that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    register: Arc<Register>,
    most: usize,
}

impl Listener {
    /// Listens on `address`, which the setting `key` names; over TLS where there is one.
    ///
    /// # Errors
    /// [`BadSetting`] when it cannot be listened on.
    pub async fn bind(
        (key, address): (&str, &str),
        settings: &HttpSettings,
        tls: Option<Arc<Tls>>,
    ) -> Result<Self, BadSetting> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = bound.await.map_err(|e: io::Error| {
            let problem = format!("{address} cannot be listened on: {e}");
            BadSetting::new(key, problem, "end what uses it, or choose another address")
        })?;
        Ok(Self {
            socket,
            address,
            tls,
            register: Register::new(settings),
            most: settings.max_connections,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its addresses begin with: `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Serves `routes` until `stop` is over; then what is idle is closed at once, and requests that run may
    /// finish for as long as `grace`. Dropped before, it cuts all connections.
    pub async fn serve(
        self,
        routes: impl Endpoint + 'static,
        stop: impl Future<Output = ()> + Send,
        grace: Duration,
    ) {
        let Self {
            socket, register, ..
        } = self;
        make_room(self.most);
        let register = Held(register);
        let service = Arc::new(Service {
            routes,
            local: LocalAddr(self.address.into()),
            tls: self.tls,
        });
        let mut looks = interval(register.pace());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stop, mut refused) = (pin!(stop), Refused::default());
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = looks.tick() => register.look(),
                taken = socket.accept() => match taken {
                    Ok((stream, peer)) => match register.enter(peer) {
                        Some(entry) => start(&service, stream, peer, entry),
                        None => refused.one_more(),
                    },
                    // Out of file descriptors, most likely: asking again at once would only spin.
                    Err(_) => sleep(PAUSE).await,
                },
            }
        }
        drop(socket);
        end(&register, looks, grace).await;
    }
}

/// A register whose connections end with it: nobody else would look after them.
struct Held(Arc<Register>);

impl Deref for Held {
    type Target = Arc<Register>;

    fn deref(&self) -> &Arc<Register> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.stop(Order::Cut);
    }
}

fn start<E: Endpoint + 'static>(
    service: &Arc<Service<E>>,
    stream: TcpStream,
    peer: SocketAddr,
    entry: Entry,
) {
    // Small answers are sent at once; a socket that cannot be told so is gone already.
    if stream.set_nodelay(true).is_ok() {
        tokio::spawn(serve(Arc::clone(service), stream, peer, entry));
    }
}

/// Lets all connections finish, and cuts those that have not after `grace`.
async fn end(register: &Register, mut looks: Interval, grace: Duration) {
    register.stop(Order::Finish);
    let mut gone = pin!(register.until_empty());
    let all_gone = async {
        loop {
            tokio::select! {
                () = &mut gone => break,
                _ = looks.tick() => register.look(),
            }
        }
    };
    if timeout(grace, all_gone).await.is_err() {
        register.stop(Order::Cut);
        // What is cut is dropped; a request that has not come to a point where it can be is not waited for.
        let _ = timeout(LAST_MOMENT, register.until_empty()).await;
    }
}

/// Lets the process open as many files as it may, and says so where that is too few.
fn make_room(connections: usize) {
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    // Where it cannot be raised, what is said below says so.
    let _ = setrlimit(Resource::Nofile, raised);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX);
    let wanted = wanted.saturating_add(OTHER_FILES);
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < wanted
    {
        tracing::warn!(
            files,
            wanted,
            "the system lets this process open fewer files than http.max_connections takes"
        );
    }
}

/// Connections beyond the bounds: the log is told of them now and then, and of no address.
#[derive(Debug, Default)]
struct Refused {
    untold: u64,
    told: Option<Stopwatch>,
}

impl Refused {
    fn one_more(&mut self) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= SAY_EVERY) {
            tracing::warn!(connections = self.untold, "refused: too many are open");
            self.untold = 0;
            self.told = Some(Stopwatch::start());
        }
    }
}
