//! TLS of the listener: certificate, key and the CA of client certificates, read from files and read again.
//!
//! Decides when files are looked at again and that a pair which does not hold is not taken: at the start it is a
//! reason not to start, later it is logged and the old one stays. TLS 1.2 and 1.3 with the suites of rustls and
//! aws-lc-rs, without early data; HTTP/2 where the client offers it (ALPN, RFC 7301).

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::{signal::unix::Signal, task::spawn_blocking, time::sleep};
use x509_cert::{Certificate, der::Decode};

use crate::{
    clock::{Clock, Span, Timestamp},
    config::read_secret,
    finding::{Check, Finding},
    http::{ClientAuth, TlsSettings},
    setting::BadSetting,
};

const CERT: &str = "http.tls.cert_file";
const KEY: &str = "http.tls.key_file";
const CLIENT_CA: &str = "http.tls.client_ca_file";

/// How long before its end a certificate is complained about.
const SOON: Span = Span::days(14);
/// How often, at the most.
const COMPLAIN_EVERY: Span = Span::days(1);

/// The certificate that is shown, and what is asked of clients; changes with its files.
pub struct Tls {
    settings: TlsSettings,
    clock: Arc<dyn Clock>,
    current: RwLock<Current>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

struct Current {
    config: Arc<ServerConfig>,
    expires: Timestamp,
    /// When its files were changed, before they were read.
    changed: Vec<Option<SystemTime>>,
}

impl Tls {
    /// Reads the files that the settings name; nothing where they name none.
    ///
    /// # Errors
    /// The first [`BadSetting`]: a file that cannot be read, a key that is not the certificate's, a
    /// certificate that is not valid now.
    pub fn open(
        settings: &TlsSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, BadSetting> {
        if !settings.is_on() {
            return Ok(None);
        }
        let current = RwLock::new(read(settings, clock.now())?);
        Ok(Some(Arc::new(Self {
            settings: settings.clone(),
            clock,
            current,
        })))
    }

    /// When the certificate that is shown expires.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.locked(|current| current.expires)
    }

    /// What is to be said of the certificate.
    pub(super) fn finding(&self) -> Finding {
        let (now, expires) = (self.clock.now(), self.expires_at());
        let name = Check::Certificate;
        if expires.minus(SOON) > now {
            return Finding::green(name, format!("the certificate is valid until {expires}"));
        }
        let says = format!(
            "the certificate expires at {expires}; replace the files, which needs no restart"
        );
        Finding::yellow(name, says)
    }

    /// What the next handshake goes by.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.locked(|current| Arc::clone(&current.config))
    }

    fn locked<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        look(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again. Connections that are open go on with what they began with.
    ///
    /// # Errors
    /// As [`Self::open`]; what was read before stays then.
    pub fn reload(&self) -> Result<(), BadSetting> {
        let read = read(&self.settings, self.clock.now())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = read;
        Ok(())
    }

    /// Reads the files again at each SIGHUP, and when they were changed, which is looked at every
    /// `http.tls.reload_every`; complains when the certificate is about to expire. Never ends.
    pub async fn follow(self: Arc<Self>, mut hang_up: Signal) {
        let every = match self.settings.reload_every.to_duration() {
            Duration::ZERO => COMPLAIN_EVERY.to_duration(),
            every => every,
        };
        let mut complained = None;
        // What could not be taken is complained of once, and tried again when it changes.
        let mut tried = self.locked(|current| current.changed.clone());
        loop {
            self.complain(&mut complained);
            let told = tokio::select! {
                _ = hang_up.recv() => true,
                () = sleep(every) => false,
            };
            let now = changed(&self.settings);
            let looked = self.settings.reload_every != Span::ZERO && now != tried;
            if !told && !looked {
                continue;
            }
            tried = now;
            let again = Arc::clone(&self);
            match spawn_blocking(move || again.reload()).await {
                Ok(Ok(())) => {
                    tracing::info!(expires = %self.expires_at(), "the certificate was read again");
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "the certificate on disk was not taken; the old one stays");
                }
                Err(_) => tracing::error!("reading the certificate panicked; the old one stays"),
            }
        }
    }

    fn complain(&self, complained: &mut Option<Timestamp>) {
        let (now, expires) = (self.clock.now(), self.expires_at());
        let lately = complained.is_some_and(|then| now < then.plus(COMPLAIN_EVERY));
        if expires.minus(SOON) <= now && !lately {
            tracing::warn!(%expires, "the certificate of http.tls.cert_file expires soon");
            *complained = Some(now);
        }
    }
}

/// When the files were changed, as far as the system tells.
fn changed(settings: &TlsSettings) -> Vec<Option<SystemTime>> {
    let files = [
        &settings.cert_file,
        &settings.key_file,
        &settings.client_ca_file,
    ];
    let named = files.into_iter().filter(|file| !file.is_empty());
    named
        .map(|file| fs::metadata(file).and_then(|about| about.modified()).ok())
        .collect()
}

fn read(settings: &TlsSettings, now: Timestamp) -> Result<Current, BadSetting> {
    // Before the files are read, so that a change in between is noticed.
    let changed = changed(settings);
    let chain = certificates(CERT, &settings.cert_file)?;
    let expires = valid_until(&chain, &settings.cert_file, now)?;
    let pem = read_secret(KEY, Path::new(&settings.key_file))?;
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| {
        let problem = format!("{} holds no private key in PEM", settings.key_file);
        BadSetting::new(
            KEY,
            problem,
            "name the key of the certificate, without a password",
        )
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = client_verifier(settings, &provider)?;
    let unusable = |error: rustls::Error| {
        let problem = format!("{} does not fit {CERT}: {error}", settings.key_file);
        BadSetting::new(
            KEY,
            problem,
            "name the key that the certificate was made for",
        )
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Current {
        config: Arc::new(config),
        expires,
        changed,
    })
}

/// Who may speak: anybody, or whoever has a certificate of the CA.
fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, BadSetting> {
    if settings.client_auth == ClientAuth::Off {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let file = &settings.client_ca_file;
    let bad =
        |problem: String| BadSetting::new(CLIENT_CA, problem, "name the CA's certificate in PEM");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, file)? {
        roots
            .add(certificate)
            .map_err(|e| bad(format!("{file} holds no CA: {e}")))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = match settings.client_auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Off | ClientAuth::Required => verifier,
    };
    verifier
        .build()
        .map_err(|e| bad(format!("{file} cannot be used: {e}")))
}

fn certificates(key: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, BadSetting> {
    let text = fs::read(file).map_err(|e| {
        let problem = format!("{file} cannot be read: {e}");
        BadSetting::new(key, problem, "check its name and permissions")
    })?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => {
            let problem = format!("{file} holds no certificate in PEM");
            Err(BadSetting::new(
                key,
                problem,
                "write the certificate first, then those above it",
            ))
        }
    }
}

/// When the first certificate of a chain expires (RFC 5280 §4.1.2.5); one that is not valid now is refused.
fn valid_until(
    chain: &[CertificateDer<'_>],
    file: &str,
    now: Timestamp,
) -> Result<Timestamp, BadSetting> {
    let bad =
        |problem: String, remedy: &str| BadSetting::new(CERT, format!("{file} {problem}"), remedy);
    let parsed = chain.first().map(|first| Certificate::from_der(first));
    let Some(Ok(parsed)) = parsed else {
        return Err(bad(
            "holds no X.509 certificate".to_owned(),
            "name the server's certificate",
        ));
    };
    let at = |time: x509_cert::time::Time| {
        Timestamp::from_millis(
            i64::try_from(time.to_unix_duration().as_millis()).unwrap_or(i64::MAX),
        )
    };
    let validity = parsed.tbs_certificate.validity;
    let (from, until) = (at(validity.not_before), at(validity.not_after));
    if until <= now {
        return Err(bad(format!("expired at {until}"), "renew the certificate"));
    }
    if now < from {
        return Err(bad(
            format!("is not valid before {from}"),
            "check the clock, or name another certificate",
        ));
    }
    Ok(until)
}
