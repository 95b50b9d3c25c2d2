//! Certificates and keys in PEM files (RFC 7468), and TLS with servers that are asked.
//!
//! Decides what such a file has to hold and in what words one is refused, and that a server's certificate and
//! name are verified always (ASVS 12.3.2). Which file is for what, and who is spoken to, is for whoever names it.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Who we are to a server that asks: certificates, our own first, and the key that belongs to it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both; one file may hold them.
    ///
    /// # Errors
    /// A sentence's end that names the file and its fault.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mongodb", feature = "mail")),
        expect(dead_code, reason = "without them nobody is shown a certificate")
    )]
    pub(crate) fn read(certificates: &str, key: &str) -> Result<Self, String> {
        let chain = read_certificates(certificates)?;
        let read = PrivateKeyDer::from_pem_file(key);
        let key =
            read.map_err(|_| format!("{key} has no key that can be read without a passphrase"))?;
        Ok(Self { chain, key })
    }
}

/// The authorities in a file.
///
/// # Errors
/// A sentence's end that names the file and its fault.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, String> {
    let mut trusted = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        trusted
            .add(certificate)
            .map_err(|_| format!("{path} has a certificate that cannot be used"))?;
    }
    Ok(trusted)
}

/// How a server is spoken to whose certificate comes from one of these authorities, by default the public ones.
///
/// # Errors
/// A sentence's end.
pub(crate) fn client(
    trusted: Option<RootCertStore>,
    identity: Option<Identity>,
) -> Result<ClientConfig, String> {
    let public = || webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let trusted = trusted.unwrap_or_else(public);
    // No default of the process is needed.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "this build has no TLS".to_owned())?
        .with_root_certificates(trusted);
    match identity {
        None => Ok(config.with_no_client_auth()),
        Some(own) => config
            .with_client_auth_cert(own.chain, own.key)
            .map_err(|_| "the certificate and the key do not belong together".to_owned()),
    }
}

fn read_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found =
        CertificateDer::pem_file_iter(path).map_err(|_| format!("{path} cannot be read"))?;
    let read: Result<Vec<_>, _> = found.collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(format!("{path} has no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(format!("{path} is not a PEM file of certificates")),
    }
}
