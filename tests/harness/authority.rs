//! An authority of a test's own, and what it certifies.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Certificate {
    pub certificate: String,
    pub key: String,
}

/// Somebody to trust, or not.
pub struct Authority {
    /// As PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        // No two have a name in common.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(Vec::new()).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(
            DnType::CommonName,
            format!("authority {number} of a test's own"),
        );
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        Self {
            certificate: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, the first of which is also its common name.
    pub fn certify(&self, names: &[&str]) -> Certificate {
        self.sign(&Self::params(names))
    }

    /// One that is good for two seconds more: no server takes one that has expired.
    pub fn certify_briefly(&self, names: &[&str]) -> Certificate {
        let mut params = Self::params(names);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = now.expect("after 1970") + Duration::from_secs(2);
        params.not_after = date_time_ymd(1970, 1, 1) + end;
        self.sign(&params)
    }

    fn params(names: &[&str]) -> CertificateParams {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all).expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        Certificate {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        }
    }
}
