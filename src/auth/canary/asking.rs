//! How another node is asked what a token is worth: as any client asks, over HTTP.
//!
//! Decides which answers count. A node that cannot be reached or cannot tell has neither accepted nor refused.

use std::time::Duration;

use url::Url;

#[cfg(any(feature = "mail", feature = "breach"))]
use crate::outbound::{self, Trusted};
use crate::setting::{BadSetting, service_url, shown_address};

const PEERS: &str = "canary.peers";
/// A node is asked about the session behind the token, as any client may.
const PATH: &str = "/v1/auth/me";
/// Longer than a node takes to say that its database is away.
const LIMIT: Duration = Duration::from_secs(5);

/// What a node says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Accepted,
    Refused,
    /// Neither, for this reason.
    Unclear(&'static str),
}

/// Another node.
pub(super) struct Peer {
    /// As metrics name it: its address as configured.
    pub(super) name: String,
    #[cfg(any(feature = "mail", feature = "breach"))]
    http: reqwest::Client,
}

/// Whether these can be addresses of nodes.
pub(super) fn check(peers: &[String]) -> Result<(), BadSetting> {
    peers.iter().try_for_each(|peer| parsed(peer).map(drop))
}

fn parsed(peer: &str) -> Result<Url, BadSetting> {
    let bad = || {
        BadSetting::new(
            PEERS,
            format!("{} is not the address of a node", shown_address(peer)),
            "write e.g. http://10.0.0.2:8080, without a path",
        )
    };
    let url = service_url(peer).filter(|url| url.path() == "/" && !peer.ends_with('/'));
    url.ok_or_else(bad)
}

#[cfg(any(feature = "mail", feature = "breach"))]
impl Peer {
    /// `ca_file` names the authorities that its certificate may come from, if it is not empty.
    pub(super) fn new(root: &str, ca_file: &str) -> Result<Self, BadSetting> {
        let trusted = Trusted::File {
            key: "canary.ca_file",
            path: ca_file,
        };
        let client = outbound::client(PEERS, &parsed(root)?, trusted)?;
        let http = client.timeout(LIMIT).build();
        Ok(Self {
            name: root.to_owned(),
            http: http.map_err(|_| BadSetting::new(PEERS, "cannot be used", "correct it"))?,
        })
    }

    /// Shows it a token; the answer is read to its end.
    pub(super) async fn ask(&self, token: &str) -> Word {
        let request = self.http.get(format!("{}{PATH}", self.name));
        let Ok(answer) = request.bearer_auth(token).send().await else {
            return Word::Unclear("unreachable");
        };
        let status = answer.status().as_u16();
        if answer.bytes().await.is_err() {
            return Word::Unclear("unreachable");
        }
        match status {
            200 => Word::Accepted,
            401 => Word::Refused,
            _ => Word::Unclear("no_answer"),
        }
    }
}

#[cfg(not(any(feature = "mail", feature = "breach")))]
impl Peer {
    pub(super) fn new(_: &str, _: &str) -> Result<Self, BadSetting> {
        let _ = (PATH, LIMIT);
        let problem = "this build contains no HTTP client";
        Err(BadSetting::new(
            PEERS,
            problem,
            "build it with the feature `breach`",
        ))
    }

    #[expect(clippy::unused_async, reason = "as with a client")]
    pub(super) async fn ask(&self, _: &str) -> Word {
        Word::Unclear("unreachable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_node() {
        for good in ["http://10.0.0.2:8080", "https://node2.example.org"] {
            assert!(check(&[good.to_owned()]).is_ok(), "{good}");
        }
        for bad in [
            "10.0.0.2:8080",
            "ftp://node2",
            "http://node2/",
            "http://node2/v1",
            "http://ann:secret@node2",
            "http://node2?x=1",
        ] {
            let refused = check(&[bad.to_owned()]).expect_err(bad).to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
