//! Who can listen in, who can pretend to be whom, and who reads what only operators should.
//!
//! Decides which networks of proxies are too wide. What production refuses by itself is said here where other
//! environments let it pass.

use std::net::IpAddr;

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};

use super::{grave, in_earnest};
use crate::{
    config::Settings,
    finding::{Check, Finding, Level},
    setting::is_own_machine,
};

/// Prefixes of IPv4 and IPv6 from which on a public network is nobody's own.
const ANYBODY: (u8, u8) = (8, 16);
/// And up to which it is one place's.
const ONE_PLACE: (u8, u8) = (24, 48);
/// Files besides those of connections: database, logs, sockets that listen.
const OTHER_FILES: u64 = 128;

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let mut found = vec![
        public_url(settings),
        plain_text(settings),
        proxies(settings),
        files(settings),
    ];
    found.extend(operators(settings));
    found
}

fn public_url(settings: &Settings) -> Finding {
    let name = Check::PublicUrl;
    let uri: poem::http::Uri = settings.public_url.parse().unwrap_or_default();
    let here = uri.host().is_some_and(is_own_machine);
    match uri.scheme_str() {
        Some("https") => Finding::green(name, "clients reach this server over https"),
        Some("http") if here && !in_earnest(settings) => {
            Finding::green(name, "clients are on this machine")
        }
        Some("http") if here => Finding::yellow(
            name,
            "public_url is this machine's own address, which stands in links and tokens; set it to the address that clients \
             know",
        ),
        _ => Finding::new(
            name,
            grave(settings),
            "public_url is plain text: cookies and tokens can be read on the way; use https://",
        ),
    }
}

fn listeners(settings: &Settings) -> [(&'static str, &str, bool); 3] {
    let http = &settings.http;
    [
        ("http.listen", http.listen.as_str(), http.tls.is_on()),
        ("http.admin_listen", &http.admin_listen, http.admin_tls()),
        ("metrics.listen", &settings.metrics.listen, false),
    ]
}

fn is_public(address: &str) -> bool {
    let host = address.rsplit_once(':').map(|(host, _)| host);
    host.is_some_and(|host| !is_own_machine(host))
}

fn plain_text(settings: &Settings) -> Finding {
    let name = Check::PlainText;
    let open = |(_, address, tls): &(_, &str, bool)| is_public(address) && !tls;
    match listeners(settings).into_iter().find(open) {
        Some((key, address, _)) if !settings.http.behind_proxy => Finding::new(
            name,
            grave(settings),
            format!(
                "{key} = {address} takes plain text from other machines; listen on 127.0.0.1, set http.tls.cert_file, or put a \
                 TLS proxy in front and set http.behind_proxy = true"
            ),
        ),
        Some(_) => Finding::green(name, "a proxy speaks TLS, as http.behind_proxy says"),
        None => Finding::green(name, "other machines are spoken to over TLS"),
    }
}

/// Whoever is in a trusted network says who they are, past limits by address and the audit trail's record.
fn proxies(settings: &Settings) -> Finding {
    let name = Check::TrustedProxies;
    let trusted = &settings.http.trusted_proxies;
    if trusted.is_empty() && settings.http.behind_proxy {
        let says = "http.behind_proxy is true and http.trusted_proxies is empty: all clients have the proxy's address, and share \
             one limit; name the proxy's network";
        return Finding::yellow(name, says);
    }
    let worst = trusted.iter().map(|network| (width(network), network));
    match worst.max_by_key(|(level, _)| *level) {
        Some((Level::Red, network)) => Finding::new(
            name,
            grave(settings),
            format!(
                "http.trusted_proxies has {network}: nearly everybody is believed about who they are; name the networks of your \
                 proxies"
            ),
        ),
        Some((Level::Yellow, network)) => Finding::yellow(
            name,
            format!(
                "http.trusted_proxies has {network}, which is public and wide: whoever is in it is believed about who they are; \
                 name the proxies' own addresses"
            ),
        ),
        _ => Finding::green(name, "nobody but the named proxies is believed"),
    }
}

fn width(network: &IpNet) -> Level {
    let (anybody, one_place) = match network {
        IpNet::V4(_) => (ANYBODY.0, ONE_PLACE.0),
        IpNet::V6(_) => (ANYBODY.1, ONE_PLACE.1),
    };
    let prefix = network.prefix_len();
    if is_private(network) || prefix >= one_place {
        Level::Green
    } else if prefix < anybody {
        Level::Red
    } else {
        Level::Yellow
    }
}

/// Whether all of a network is nobody's on the Internet (RFC 1918, RFC 4193, RFC 6598, loopback and link-local).
fn is_private(network: &IpNet) -> bool {
    const PRIVATE: [(IpAddr, u8); 9] = {
        use std::net::{Ipv4Addr as V4, Ipv6Addr as V6};
        [
            (IpAddr::V4(V4::new(10, 0, 0, 0)), 8),
            (IpAddr::V4(V4::new(172, 16, 0, 0)), 12),
            (IpAddr::V4(V4::new(192, 168, 0, 0)), 16),
            (IpAddr::V4(V4::new(100, 64, 0, 0)), 10),
            (IpAddr::V4(V4::new(127, 0, 0, 0)), 8),
            (IpAddr::V4(V4::new(169, 254, 0, 0)), 16),
            (IpAddr::V6(V6::LOCALHOST), 128),
            (IpAddr::V6(V6::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
            (IpAddr::V6(V6::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
        ]
    };
    let mut known = PRIVATE
        .iter()
        .filter_map(|(address, prefix)| IpNet::new(*address, *prefix).ok());
    known.any(|private| private.contains(network))
}

/// In production, where documents and metrics have listeners of their own.
fn operators(settings: &Settings) -> Option<Finding> {
    let name = Check::Operators;
    let everywhere = |address: &str| {
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        ["0.0.0.0", "[::]"].contains(&host)
    };
    let own = listeners(settings).into_iter().skip(1);
    let mut own = own.filter(|(_, address, _)| !address.is_empty()).peekable();
    if !in_earnest(settings) {
        return None;
    }
    own.peek()?;
    Some(match own.find(|(_, address, _)| everywhere(address)) {
        Some((key, address, _)) => Finding::yellow(
            name,
            format!(
                "{key} = {address} listens on every interface: documents or metrics are read by whoever reaches it; name an \
                 address that only operators reach"
            ),
        ),
        None => Finding::green(name, "documents and metrics have an address of their own"),
    })
}

fn files(settings: &Settings) -> Finding {
    let name = Check::Files;
    let connections = u64::try_from(settings.http.max_connections).unwrap_or(u64::MAX);
    let listening = listeners(settings).into_iter();
    let listening = listening.filter(|(_, address, _)| !address.is_empty());
    let count = u64::try_from(listening.count()).unwrap_or(1);
    let wanted = connections
        .saturating_mul(count)
        .saturating_add(OTHER_FILES);
    // The server raises its own limit as far as it may.
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < wanted => Finding::yellow(
            name,
            format!(
                "the system lets this process open {files} files, fewer than the {wanted} of http.max_connections; raise the \
                 limit (LimitNOFILE, ulimit -n), or lower http.max_connections"
            ),
        ),
        _ => Finding::green(name, "the process may open a file for each connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_everybody_are_told_from_those_of_proxies() {
        for (network, level) in [
            ("0.0.0.0/0", Level::Red),
            ("::/0", Level::Red),
            ("0.0.0.0/1", Level::Red),
            ("2000::/3", Level::Red),
            ("8.0.0.0/7", Level::Red),
            ("104.16.0.0/13", Level::Yellow),
            ("2606:4700::/32", Level::Yellow),
            // Wider than what is private.
            ("10.0.0.0/7", Level::Red),
            ("172.16.0.0/11", Level::Yellow),
            ("10.0.0.0/8", Level::Green),
            ("172.16.0.0/12", Level::Green),
            ("fd00::/8", Level::Green),
            ("203.0.113.7/32", Level::Green),
            ("2001:db8:1:2::/64", Level::Green),
        ] {
            let parsed = network.parse().expect(network);
            assert_eq!(width(&parsed), level, "{network}");
        }
    }
}
