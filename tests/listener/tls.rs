//! TLS on the listener: what is spoken, whom it believes, and files that change under it.

use std::{fs, net::SocketAddr, sync::Arc};

use doorward::{
    clock::{Clock, Span, SystemClock},
    http::{ClientAuth, HttpSettings, TlsSettings},
    server::tls::Tls,
};
use poem::{Route, get, handler};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use reqwest::{Certificate, Client, Error, Identity, Response, Version, tls::TlsInfo};
use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use super::{Wire, listen};
use crate::{
    harness::until,
    program::{KEY, Place},
};

#[handler]
fn hello() -> &'static str {
    "hello"
}

/// A CA and what it signs.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        Pair {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    fn server(&self) -> Pair {
        self.sign(|_| {})
    }

    fn client(&self) -> Identity {
        let pair = self.sign(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        Identity::from_pem(format!("{}{}", pair.key, pair.certificate).as_bytes()).expect("a pair")
    }
}

/// A server with TLS, its files and its CA.
struct Served {
    place: Place,
    ca: Ca,
    tls: Arc<Tls>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn put(place: &Place, pair: &Pair) {
    place.write("key.pem", &pair.key);
    place.write("cert.pem", &pair.certificate);
}

fn settings(place: &Place) -> TlsSettings {
    let file = |name| place.path(name).display().to_string();
    TlsSettings {
        cert_file: file("cert.pem"),
        key_file: file("key.pem"),
        reload_every: Span::millis(100),
        ..TlsSettings::default()
    }
}

fn opened(settings: &TlsSettings) -> Result<Arc<Tls>, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    match Tls::open(settings, clock) {
        Ok(tls) => Ok(tls.expect("TLS is on")),
        Err(bad) => Err(bad.to_string()),
    }
}

impl Served {
    async fn start(client_auth: ClientAuth) -> Self {
        // An error means that there is a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (place, ca) = (Place::new(), Ca::new());
        put(&place, &ca.server());
        let mut settings = settings(&place);
        settings.client_auth = client_auth;
        if client_auth != ClientAuth::Off {
            place.write("ca.pem", &ca.pem);
            settings.client_ca_file = place.path("ca.pem").display().to_string();
        }
        let tls = opened(&settings).expect("a pair");
        let routes = Route::new().at("/", get(hello));
        let http = HttpSettings::default();
        let (address, serving) = listen(routes, &http, Some(Arc::clone(&tls))).await;
        Self {
            place,
            ca,
            tls,
            address,
            serving,
        }
    }

    /// A client that keeps its connections, shows this and believes the server's CA.
    fn client(&self, identity: Option<Identity>) -> Client {
        let ca = Certificate::from_pem(self.ca.pem.as_bytes()).expect("a certificate");
        let builder = Client::builder().tls_certs_only([ca]).tls_info(true);
        let builder = match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        builder.build().expect("a client")
    }

    async fn ask(&self, client: &Client) -> Result<Response, Error> {
        let url = format!("https://localhost:{}/", self.address.port());
        client.get(url).send().await
    }

    /// The certificate that a connection of this client shows.
    async fn shown_to(&self, client: &Client) -> Vec<u8> {
        let answer = self.ask(client).await.expect("an answer");
        let info = answer.extensions().get::<TlsInfo>().expect("TLS");
        info.peer_certificate().expect("a certificate").to_vec()
    }
}

/// ASVS 12.1.1, 12.2.1.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_where_it_is_asked_for_and_plain_text_is_not() {
    let served = Served::start(ClientAuth::Off).await;
    let answer = served.ask(&served.client(None)).await.expect("an answer");
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(answer.text().await.expect("text"), "hello");
    let ca = Certificate::from_pem(served.ca.pem.as_bytes()).expect("a certificate");
    let older = Client::builder().tls_certs_only([ca]).http1_only().build();
    let answer = served.ask(&older.expect("a client")).await;
    assert_eq!(answer.expect("an answer").version(), Version::HTTP_11);

    let mut plain = Wire::open(&served.address.to_string());
    plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut said = Vec::new();
    // What comes is an alert of TLS, or nothing.
    let _ = std::io::Read::read_to_end(&mut plain.0, &mut said);
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("HTTP") && !said.contains("hello"), "{said}");
}

/// Old connections go on with what they began with.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_restart_and_a_bad_one_never() {
    let served = Served::start(ClientAuth::Off).await;
    let hang_up = signal(SignalKind::hangup()).expect("received");
    let following = tokio::spawn(Arc::clone(&served.tls).follow(hang_up));
    let old = served.client(None);
    let first = served.shown_to(&old).await;
    put(&served.place, &served.ca.server());
    until("the new one is shown", async || {
        served.shown_to(&served.client(None)).await != first
    })
    .await;
    assert_eq!(served.shown_to(&old).await, first, "a connection of before");
    following.abort();

    let second = served.shown_to(&served.client(None)).await;
    let other = served.ca.server();
    let expired = served.ca.sign(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let future = served.ca.sign(|params| {
        params.not_before = date_time_ymd(2999, 1, 1);
        params.not_after = date_time_ymd(3000, 1, 1);
    });
    let mixed = Pair {
        certificate: other.certificate.clone(),
        key: expired.key.clone(),
    };
    let cut = Pair {
        certificate: other.certificate[..200].to_owned(),
        key: other.key.clone(),
    };
    let keyless = Pair {
        certificate: other.certificate.clone(),
        key: String::new(),
    };
    for (pair, key, why) in [
        (
            &expired,
            "http.tls.cert_file",
            "expired at 2021-01-01T00:00:00.000Z",
        ),
        (
            &future,
            "http.tls.cert_file",
            "is not valid before 2999-01-01",
        ),
        (
            &mixed,
            "http.tls.key_file",
            "does not fit http.tls.cert_file",
        ),
        (&cut, "http.tls.cert_file", "holds no certificate in PEM"),
        (&keyless, "http.tls.key_file", "holds no private key in PEM"),
    ] {
        put(&served.place, pair);
        let refused = served.tls.reload().expect_err(why).to_string();
        assert!(
            refused.starts_with(key) && refused.contains(why),
            "{refused}"
        );
        assert_eq!(opened(&settings(&served.place)).err(), Some(refused));
        assert_eq!(served.shown_to(&served.client(None)).await, second, "{why}");
    }
    put(&served.place, &other);
    crate::program::set_mode(&served.place.path("key.pem"), 0o644);
    let exposed = served.tls.reload().expect_err("others can read it");
    assert_eq!(exposed.key, "http.tls.key_file");
}

/// ASVS 12.1.3, 12.3.5.
#[tokio::test(flavor = "multi_thread")]
async fn clients_show_certificates_where_that_is_asked() {
    for asked in [ClientAuth::Optional, ClientAuth::Required] {
        let served = Served::start(asked).await;
        let known = served.client(Some(served.ca.client()));
        assert!(served.ask(&known).await.is_ok(), "{asked:?}");
        let stranger = served.client(Some(Ca::new().client()));
        assert!(served.ask(&stranger).await.is_err(), "{asked:?}");
        let nobody = served.ask(&served.client(None)).await;
        assert_eq!(nobody.is_ok(), asked == ClientAuth::Optional);
    }
}

/// ASVS 12.2.1: production on a public address without a proxy; its health check, and SIGHUP.
#[test]
fn production_serves_tls_by_itself() {
    let (place, ca) = (Place::new(), Ca::new());
    put(&place, &ca.server());
    place.write("ca.pem", &ca.pem);
    let production = [
        ("DOORWARD__ENVIRONMENT", "production"),
        ("DOORWARD__PUBLIC_URL", "https://localhost"),
        ("DOORWARD__TOKENS__KEY", KEY),
        ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
        ("DOORWARD__HTTP__TLS__CERT_FILE", "cert.pem"),
        ("DOORWARD__HTTP__TLS__KEY_FILE", "key.pem"),
        ("DOORWARD__HTTP__TLS__RELOAD_EVERY", "0s"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&production[..], more].concat();
    let check = |more| place.run(&["config", "check"], &with(more));
    check(&[("DOORWARD__HTTP__LISTEN", "0.0.0.0:8443")]).answer();
    let plain = [("DOORWARD__PUBLIC_URL", "http://localhost")];
    assert_eq!(
        check(&plain).refusal(),
        "public_url: is plain text, and http.tls is on; write it with https://"
    );
    assert_eq!(
        check(&[("DOORWARD__HTTP__TLS__CLIENT_AUTH", "required")]).refusal(),
        "http.tls.client_ca_file: is missing, and client_auth is set; name the CA of the clients' certificates"
    );

    let server = place.serve(&production);
    let mut asked = production.to_vec();
    asked.push(("DOORWARD__HTTP__LISTEN", &server.address));
    assert_eq!(place.run(&["healthcheck"], &asked).answer(), "ready\n");
    asked.push(("DOORWARD__HTTP__TLS__CLIENT_AUTH", "required"));
    asked.push(("DOORWARD__HTTP__TLS__CLIENT_CA_FILE", "ca.pem"));
    let closed = place.run(&["healthcheck"], &asked).refusal();
    assert!(
        closed.starts_with("http.admin_listen: the server answers nobody"),
        "{closed}"
    );

    fs::write(place.path("cert.pem"), "not a certificate").expect("written");
    server.signal(Signal::HUP);
    let said = server.logs("was not taken");
    assert!(said.contains("holds no certificate in PEM"), "{said}");
    asked.truncate(production.len() + 1);
    assert_eq!(place.run(&["healthcheck"], &asked).answer(), "ready\n");
    put(&place, &ca.server());
    server.signal(Signal::HUP);
    server.logs("the certificate was read again");
}
