//! `doorward healthcheck`: asks the server on this machine whether it is ready, as a container's health check does.
//!
//! Decides which of its listeners is asked, and that its certificate does not matter: it is made for the name that
//! clients know, not for this machine's address, and nothing secret is said.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Failure, Say};
use crate::{
    config::Settings,
    http::{ClientAuth, HttpSettings},
    server,
};

/// How long a server may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks `GET /health/ready`.
pub(super) async fn check(settings: &Settings, say: Say) -> Result<(), Failure> {
    settings.http.check()?;
    let (key, listening, tls) = asked(&settings.http)?;
    let address = server::reachable(listening);
    if address.ends_with(":0") {
        return Err(Failure(format!(
            "{key}: port 0 does not say where the server is; set a port"
        )));
    }
    let name = host_of(&settings.public_url);
    let asked = async {
        let stream = TcpStream::connect(&address).await?;
        if !tls {
            return ask(stream, &address).await;
        }
        let connector = TlsConnector::from(Arc::new(anybody()?));
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        ask(connector.connect(name, stream).await?, &address).await
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let scheme = if tls { "https" } else { "http" };
    let failed = |why: String| Err(Failure(format!("{scheme}://{address} is not ready: {why}")));
    match answer {
        Ok(Ok(status)) if status.ends_with(b" 200") => say.text("ready", json!({ "ready": true })),
        Ok(Ok(status)) => failed(format!(
            "it answered {}",
            String::from_utf8_lossy(&status[9..])
        )),
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The listener that answers whoever asks: its key, its address and whether it speaks TLS.
fn asked(http: &HttpSettings) -> Result<(&'static str, &str, bool), Failure> {
    if http.tls.client_auth != ClientAuth::Required {
        return Ok(("http.listen", &http.listen, http.tls.is_on()));
    }
    if http.admin_listen.is_empty() || http.admin_tls() {
        return Err(Failure(
            "http.admin_listen: the server answers nobody without a certificate (http.tls.client_auth); set it to an address of this machine, e.g. 127.0.0.1:9080".into(),
        ));
    }
    Ok(("http.admin_listen", &http.admin_listen, false))
}

fn host_of(url: &str) -> String {
    let uri: poem::http::Uri = url.parse().unwrap_or_default();
    uri.host().unwrap_or("localhost").to_owned()
}

/// The beginning of the answer: its version and status.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> io::Result<[u8; 12]> {
    let request =
        format!("GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn anybody() -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(io::Error::other)?;
    let verifier = Arc::new(Anybody(provider));
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(config.with_no_client_auth())
}

/// Takes any certificate whose key the server has.
struct Anybody(Arc<CryptoProvider>);

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
