//! HTTP clients for the few services that this server asks.
//!
//! Decides how any of them is spoken to: over TLS with a verified certificate, without following redirects
//! (ASVS 15.3.2), without a proxy where the service is on this machine. What is asked is the asker's business.

use reqwest::{Client, ClientBuilder, redirect::Policy};
use url::Url;

use crate::{
    certificates::{self, authorities},
    setting::{BadSetting, is_loopback},
};

/// The authorities that a service's certificate may come from.
#[derive(Clone, Copy)]
pub(crate) enum Trusted<'a> {
    Public,
    /// Those in a file, in PEM, or the public ones where its name is empty.
    File {
        /// The setting that names it.
        key: &'static str,
        path: &'a str,
    },
}

/// A client for the service at `root`, which the setting `key` names. Deadlines are for the caller to set.
pub(crate) fn client(
    key: &str,
    root: &Url,
    trusted: Trusted<'_>,
) -> Result<ClientBuilder, BadSetting> {
    let trusted = match trusted {
        Trusted::Public | Trusted::File { path: "", .. } => None,
        Trusted::File { key, path } => Some(authorities(path).map_err(|why| bad_ca(key, why))?),
    };
    let no_tls = |_| BadSetting::new(key, "has no TLS", "build it with TLS 1.2 or 1.3");
    let builder = Client::builder()
        .redirect(Policy::none())
        .tls_backend_preconfigured(certificates::client(trusted, None).map_err(no_tls)?);
    Ok(if is_loopback(root) {
        builder.no_proxy()
    } else {
        builder
    })
}

/// What is said of a file of authorities that cannot be used.
pub(crate) fn bad_ca(key: &str, problem: String) -> BadSetting {
    BadSetting::new(
        key,
        problem,
        "name a PEM file of the authorities that the server's certificate comes from",
    )
}
