//! All connections of one listener: how many there may be, and which have had their time.
//!
//! Decides whether one more is taken, of one address and in all, and passes the verdicts of
//! [`Link::judge`] on. What an order means is for `connection`.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::Notify;

use super::link::{Link, Order, Times, Verdict};
use crate::{
    clock::{Span, Stopwatch},
    http::HttpSettings,
};

/// How precisely times are kept: a part of the shortest of them.
const PARTS: u64 = 10;
const FINEST: u64 = 10;
const COARSEST: u64 = 1000;

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Register {
    times: Times,
    /// Most connections, and most of one address; 0 for any number.
    most: usize,
    most_of_one: usize,
    /// Who may have more than others: they speak for many.
    trusted: Vec<IpNet>,
    watch: Stopwatch,
    /// What the watch showed at the last look, in milliseconds from 1 on: requests ask for nothing finer.
    now: AtomicU64,
    open: Mutex<Open>,
    /// Rung when the last connection is gone.
    empty: Notify,
}

#[derive(Debug, Default)]
struct Open {
    links: HashMap<u64, Arc<Link>>,
    next: u64,
    of_address: HashMap<IpAddr, usize>,
    /// What newcomers are told: nothing, until the listener ends.
    stopping: bool,
}

impl Register {
    pub(super) fn new(settings: &HttpSettings) -> Arc<Self> {
        let millis = |span: Span| u64::try_from(span.as_millis()).unwrap_or(0);
        Arc::new(Self {
            times: Times {
                head: millis(settings.header_timeout),
                idle: millis(settings.idle_timeout),
                request: millis(settings.request_timeout),
                write: millis(settings.write_timeout),
            },
            most: settings.max_connections,
            most_of_one: settings.max_connections_per_address,
            trusted: settings.trusted_proxies.clone(),
            watch: Stopwatch::start(),
            now: AtomicU64::new(1),
            open: Mutex::default(),
            empty: Notify::new(),
        })
    }

    /// How often to look.
    pub(super) fn pace(&self) -> Duration {
        let Times {
            head,
            idle,
            request,
            write,
        } = self.times;
        let shortest = head.min(idle).min(request).min(write);
        Duration::from_millis((shortest / PARTS).clamp(FINEST, COARSEST))
    }

    /// A place for one more connection; `None` where there are too many.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Entry> {
        let address = self.counted(peer.ip());
        let mut open = self.open();
        if open.links.len() >= self.most {
            return None;
        }
        if let Some(address) = address {
            let held = open.of_address.entry(address).or_default();
            if *held >= self.most_of_one {
                return None;
            }
            *held += 1;
        }
        let order = if open.stopping {
            Order::Finish
        } else {
            Order::GoOn
        };
        let link = Arc::new(Link::new(self.now(), order));
        let id = open.next;
        open.next += 1;
        open.links.insert(id, Arc::clone(&link));
        drop(open);
        Some(Entry {
            register: Arc::clone(self),
            link,
            id,
            address,
        })
    }

    /// What a connection counts towards: its address, or the network that one customer gets of IPv6; nothing
    /// for a trusted proxy, or where nobody counts.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.most_of_one == 0 || self.trusted.iter().any(|net| net.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }

    /// Looks through all connections.
    pub(super) fn look(&self) {
        let shown = u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = shown.saturating_add(1);
        self.now.store(now, Relaxed);
        for link in self.open().links.values() {
            match link.judge(now, &self.times) {
                Verdict::Fine => {}
                Verdict::Late => link.wake(),
                Verdict::Ends(order) => link.give(order),
            }
        }
    }

    /// Gives all connections an order, and those that still come the order to finish.
    pub(super) fn stop(&self, order: Order) {
        let mut open = self.open();
        open.stopping = true;
        for link in open.links.values() {
            link.give(order);
        }
    }

    /// Waits until there is no connection left.
    pub(super) async fn until_empty(&self) {
        loop {
            let rung = self.empty.notified();
            if self.open().links.is_empty() {
                return;
            }
            rung.await;
        }
    }

    fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    register: Arc<Register>,
    link: Arc<Link>,
    id: u64,
    address: Option<IpAddr>,
}

impl Entry {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The listener's time.
    pub(super) fn now(&self) -> u64 {
        self.register.now()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.register.open();
        open.links.remove(&self.id);
        if let Some(address) = self.address
            && let Some(held) = open.of_address.get_mut(&address)
        {
            *held -= 1;
            if *held == 0 {
                open.of_address.remove(&address);
            }
        }
        if open.links.is_empty() {
            self.register.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(settings: HttpSettings) -> Arc<Register> {
        Register::new(&HttpSettings {
            max_connections: 3,
            ..settings
        })
    }

    fn peer(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), 4242)
    }

    #[test]
    fn a_place_that_is_given_back_can_be_had_again() {
        let register = register(HttpSettings::default());
        let held: Vec<_> = (0..3).map(|_| register.enter(peer("127.0.0.1"))).collect();
        assert!(held.iter().all(Option::is_some) && register.enter(peer("127.0.0.1")).is_none());
        drop(held);
        assert!(register.enter(peer("127.0.0.1")).is_some());
    }

    #[test]
    fn one_address_has_its_share_and_a_trusted_proxy_as_many_as_it_needs() {
        let register = register(HttpSettings {
            max_connections_per_address: 1,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..HttpSettings::default()
        });
        let first = register.enter(peer("2001:db8::1")).expect("a place");
        let neighbour = "2001:db8::ffff:1";
        assert!(register.enter(peer(neighbour)).is_none(), "the same /64");
        let proxied = [(); 2].map(|()| register.enter(peer("::ffff:10.0.0.1")));
        assert!(proxied.iter().all(Option::is_some));
        drop(first);
        assert!(register.enter(peer(neighbour)).is_some());
    }
}
