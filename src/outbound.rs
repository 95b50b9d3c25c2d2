//! HTTP clients for the few services that this server asks.
//!
//! Decides how any of them is spoken to: over TLS with a verified certificate, without following redirects
//! (ASVS 15.3.2), without a proxy where the service is on this machine. What is asked is the asker's business.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use url::Url;

use crate::setting::{BadSetting, is_loopback};

/// A client for the service at `root`, which the setting `key` names. Deadlines are for the caller to set.
pub(crate) fn client(key: &str, root: &Url) -> Result<ClientBuilder, BadSetting> {
    let builder = Client::builder()
        .redirect(Policy::none())
        .tls_backend_preconfigured(tls(key)?);
    Ok(if is_loopback(root) {
        builder.no_proxy()
    } else {
        builder
    })
}

/// The public authorities, as for the database: no default of the process is needed.
fn tls(key: &str) -> Result<ClientConfig, BadSetting> {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| BadSetting::new(key, "has no TLS", "build it with TLS 1.2 or 1.3"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
