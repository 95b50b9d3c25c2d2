//! What a node remembers by itself, so that a flood from one address stays a flood on the node and does not
//! become one on the database.
//!
//! Decides which requests are refused without asking anybody: those of an address that sends more than
//! one node takes, and those that the database has refused until later. Nothing here lets anything through
//! that the database would refuse. Memory is bounded: what was not asked for lately is forgotten.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock::{Span, Timestamp},
    model::{quota::Quota, token::SecretHash},
};

/// Keys that are remembered for certain; up to twice as many are.
const MOST: usize = 1 << 16;

/// A map that forgets: when it is full, what was not asked for since it was full last goes.
pub(super) struct Forgetful<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V> Forgetful<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }

    /// What is remembered, or `fresh`.
    pub(super) fn entry(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        let known = self.old.remove(&key);
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        let value = self.young.entry(key);
        value.or_insert_with(|| known.unwrap_or_else(fresh))
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }
}

/// Where a request comes from, as far as it is counted: an IPv4 address, or the /64 of an IPv6 one, all of
/// whose addresses one client can have (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network([u8; 9]);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        let mut bytes = [0; 9];
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                bytes[0] = 4;
                bytes[1..5].copy_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                bytes[0] = 6;
                bytes[1..].copy_from_slice(&v6.octets()[..8]);
            }
        }
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The memory of one node.
pub(super) struct Guard {
    addresses: Mutex<Forgetful<Network, Timestamp>>,
    refused: Mutex<Forgetful<SecretHash, Timestamp>>,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            addresses: Mutex::new(Forgetful::new(MOST)),
            refused: Mutex::new(Forgetful::new(MOST)),
        }
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn knock(&self, from: Network, quota: Quota, now: Timestamp) -> Result<(), Span> {
        let mut addresses = locked(&self.addresses);
        let tat = addresses.entry(from, || now);
        *tat = quota.take(*tat, 1, now)?;
        Ok(())
    }

    /// How long the database will still refuse this, if it is known to.
    pub(super) fn refused(&self, key: &SecretHash, quota: Quota, now: Timestamp) -> Option<Span> {
        let until = *locked(&self.refused).get(key)?;
        let is_ahead = until > now && until <= quota.latest(now);
        is_ahead.then(|| Span::millis(until.as_millis() - now.as_millis()))
    }

    /// Remembers that the database refuses this until then; only for what nobody can clear before.
    pub(super) fn remember(&self, key: SecretHash, until: Timestamp) {
        *locked(&self.refused).entry(key, || until) = until;
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn network(text: &str) -> Network {
        Network::of(text.parse().expect("an address"))
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn a_flood_from_one_address_is_cut_off_and_no_other() {
        let guard = Guard::new();
        let quota = Quota::new(50, Span::secs(1));
        let flooding = network("192.0.2.1");
        let passed = (0..1000).filter(|_| guard.knock(flooding, quota, NOW).is_ok());
        assert_eq!(passed.count(), 50);
        assert!(guard.knock(network("192.0.2.2"), quota, NOW).is_ok());
        let later = NOW.plus(Span::millis(20));
        assert!(guard.knock(flooding, quota, later).is_ok());
        assert_eq!(guard.knock(flooding, quota, later), Err(Span::millis(20)));
    }

    /// ASVS 15.3.4.
    #[test]
    fn memory_is_bounded() {
        let mut map = Forgetful::new(100);
        for n in 0..100_000 {
            *map.entry(n, || 0) += 1;
            *map.entry(-1, || 0) += 1;
        }
        assert!(map.young.len() + map.old.len() <= 200);
        // What is asked for again and again is not forgotten.
        assert_eq!(map.get(&-1), Some(&100_000));
    }

    #[test]
    fn a_refusal_is_remembered_as_long_as_it_lasts() {
        let guard = Guard::new();
        let (key, quota) = (SecretHash::of("key"), Quota::new(2, Span::secs(60)));
        assert_eq!(guard.refused(&key, quota, NOW), None);
        guard.remember(key, NOW.plus(Span::secs(30)));
        assert_eq!(guard.refused(&key, quota, NOW), Some(Span::secs(30)));
        let over = NOW.plus(Span::secs(30));
        assert_eq!(guard.refused(&key, quota, over), None);
        // A clock that was an hour fast refuses nobody for an hour.
        let earlier = NOW.minus(Span::minutes(60));
        assert_eq!(guard.refused(&key, quota, earlier), None);
    }
}
