//! The client's address: the peer's, unless the peer is a proxy that we trust.
//!
//! `X-Forwarded-For` is read from the right, past trusted proxies only; what a client wrote into it
//! itself stands further left and counts for nothing (ASVS 4.1.3, 15.3.4).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use poem::{Addr, Request, http::HeaderMap};

/// The address a request comes from, as far as it can be believed.
#[must_use]
pub(super) fn client_ip(request: &Request, trusted: &[IpNet]) -> Option<IpAddr> {
    let Addr::SocketAddr(peer) = request.remote_addr().0 else {
        return None;
    };
    Some(behind_proxies(peer.ip(), request.headers(), trusted))
}

/// Whether the peer itself is a proxy that we trust.
#[must_use]
pub(super) fn peer_is_trusted(request: &Request, trusted: &[IpNet]) -> bool {
    matches!(request.remote_addr().0, Addr::SocketAddr(peer) if is_trusted(peer.ip(), trusted))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted
        .iter()
        .any(|net| net.contains(&address.to_canonical()))
}

fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    // Every line counts, whatever bytes are in it: one that was passed over would shift the walk to
    // what the client wrote itself.
    let lines = headers.get_all("x-forwarded-for").iter();
    let lines: Vec<_> = lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.split(',').rev());
    while is_trusted(address, trusted) {
        // What a trusted proxy wrote and we cannot read stops the walk at that proxy.
        match hops.next().and_then(hop_address) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// One hop; some proxies write the port as well.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let with_port = || hop.parse::<SocketAddr>().map(|socket| socket.ip());
    let bracketed = || hop.trim_matches(['[', ']']).parse::<IpAddr>();
    hop.parse()
        .or_else(|_| with_port())
        .or_else(|_| bracketed())
        .ok()
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let forwarded: Vec<&[u8]> = forwarded.iter().map(|line| line.as_bytes()).collect();
        seen_bytes(peer, &forwarded, trusted)
    }

    fn seen_bytes(peer: &str, forwarded: &[&[u8]], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(
                "x-forwarded-for",
                HeaderValue::from_bytes(line).expect("a value"),
            );
        }
        let trusted: Vec<IpNet> = trusted
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect();
        behind_proxies(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    /// ASVS 4.1.3, 15.3.4.
    #[test]
    fn a_stranger_cannot_choose_its_address() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], &[]), "203.0.113.9");
        assert_eq!(
            seen("203.0.113.9", &["198.51.100.1"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn the_walk_goes_past_every_trusted_hop() {
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9, 10.0.0.2"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9", "10.0.0.2"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &["10.0.0.0/8"]),
            "10.0.0.3",
            "all trusted: the first"
        );
        assert_eq!(seen("::1", &["2001:db8::7"], &["::1/128"]), "2001:db8::7");
        assert_eq!(
            seen("::ffff:10.0.0.1", &["203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9",
            "IPv4 in IPv6"
        );
    }

    #[test]
    fn junk_stops_the_walk_at_the_proxy_that_sent_it() {
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9, unknown"], &["10.0.0.0/8"]),
            "10.0.0.1"
        );
        assert_eq!(seen("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[""], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn bytes_that_are_no_text_hide_no_hop() {
        let lines: [&[u8]; 2] = [b"6.6.6.6", b"\xff, 203.0.113.9"];
        assert_eq!(
            seen_bytes("10.0.0.1", &lines, &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen_bytes("10.0.0.1", &lines[1..], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn a_port_beside_the_address_is_left_out() {
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9:5555"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["[2001:db8::7]:443"], &["10.0.0.0/8"]),
            "2001:db8::7"
        );
        assert_eq!(
            seen("10.0.0.1", &["[2001:db8::7]"], &["10.0.0.0/8"]),
            "2001:db8::7"
        );
    }
}
