//! Whose certificates a PostgreSQL server may show (ASVS 12.3.1, 12.3.2).

use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{StoreError, StoreResult};

/// Takes out of a connection string what libpq knows and the driver does not: `sslrootcert`, a PEM
/// file of the authorities to trust instead of the public ones, and `sslmode=verify-ca` and
/// `verify-full`. TLS always verifies certificate and host name here, so both mean `require`.
pub(super) fn taken_from(url: &str) -> StoreResult<(String, MakeRustlsConnect)> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut authorities = None;
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslrootcert", path)) => {
                authorities = Some(percent_decode_str(path).decode_utf8_lossy());
            }
            Some(("sslmode", "verify-ca" | "verify-full")) => rest.push("sslmode=require"),
            _ => rest.push(pair),
        }
    }
    let tls = match authorities.as_deref() {
        None | Some("system") => MakeRustlsConnect::with_webpki_roots(),
        Some(path) => MakeRustlsConnect::new(
            ClientConfig::builder()
                .with_root_certificates(read(path)?)
                .with_no_client_auth(),
        ),
    };
    Ok((format!("{address}?{}", rest.join("&")), tls))
}

fn read(path: &str) -> StoreResult<RootCertStore> {
    let bad = |why: &str| StoreError::Driver(format!("sslrootcert: {path} {why}"));
    let mut trusted = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|_| bad("cannot be read"))?;
    for certificate in found {
        let certificate = certificate.map_err(|_| bad("is not a PEM file of certificates"))?;
        trusted
            .add(certificate)
            .map_err(|_| bad("has a certificate that cannot be used"))?;
    }
    if trusted.is_empty() {
        return Err(bad("has no certificate"));
    }
    Ok(trusted)
}
