//! TLS to the database: spoken with nobody but the server that was meant, and nothing is said to anybody else.

use doorward::store::{open::open, settings::DatabaseSettings};
use mongodb::bson::doc;

use crate::harness::{
    authority::Authority,
    backend::{Backend, Database},
    relay::{Relay, says_nothing},
    servers::{CERTIFIED, PrivateServer},
    until,
};

/// How a client of PostgreSQL asks for TLS, in plain text (PostgreSQL's documentation, "SSLRequest").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What stands at the start when this URL cannot be used.
async fn refusal(backend: Backend, url: &str) -> Result<(), String> {
    let mut settings = DatabaseSettings {
        backend,
        ..DatabaseSettings::default()
    };
    settings.postgres.url = url.into();
    settings.mongodb.url = url.into();
    let opened = open(&settings)
        .await
        .map_err(|refused| refused.to_string())?;
    opened.store.close().await;
    Ok(())
}

#[track_caller]
fn assert_says(refusal: Result<(), String>, words: &str) {
    let sentence = refusal.expect_err(words);
    assert!(sentence.contains(words), "not {words:?}: {sentence}");
    assert!(!sentence.contains("hunter2"), "{sentence}");
}

/// ASVS 12.3.1, 12.3.2, 12.3.5: a certificate that nobody vouches for, that is somebody else's or has expired is no
/// encryption.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_hears_nothing_before_it_has_proved_who_it_is() {
    let (ours, another) = (Authority::new(), Authority::new());
    let server = PrivateServer::start_with_tls(Backend::Postgres, &ours).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string().replace('/', "%2F")
    };
    let trusted = server.file("ca.pem");
    let stranger = file("another.pem", &another.certificate);
    let relay = Relay::to(server.port()).await;
    let ask = async |host: &str, options: &str| {
        let port = relay.port;
        let url = format!("postgres://doorward:hunter2@{host}:{port}/postgres?{options}");
        refusal(Backend::Postgres, &url).await
    };
    let nothing_was_said = || {
        let heard = relay.heard();
        assert!(!heard.is_empty());
        for said in heard {
            let rest = said.strip_prefix(&SSL_REQUEST).expect("TLS is asked for");
            assert!(says_nothing(rest), "{said:?}");
        }
    };
    for mode in [
        "sslmode=require&",
        "sslmode=verify-ca&",
        "sslmode=verify-full&",
        "",
    ] {
        let with = format!("{mode}sslrootcert={trusted}");
        assert_eq!(ask("127.0.0.1", &with).await, Ok(()), "{mode}");
        let said = relay.heard();
        assert!(
            !says_nothing(&said[0][SSL_REQUEST.len()..]),
            "the relay is deaf"
        );
        assert_says(ask("localhost", &with).await, "not valid for name");
        nothing_was_said();
        let unknown = format!("{mode}sslrootcert={stranger}");
        assert_says(ask("127.0.0.1", &unknown).await, "UnknownIssuer");
        nothing_was_said();
    }
    assert_says(ask("127.0.0.1", "sslmode=require").await, "UnknownIssuer");
    nothing_was_said();

    // By its certificate alone somebody is let in, and by nothing else.
    let admin = server.settings().postgres.url;
    let (admin, connection) = tokio_postgres::connect(admin.expose(), tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    let role = format!("CREATE ROLE {CERTIFIED} LOGIN");
    admin.batch_execute(&role).await.expect("made");
    let certified = async |options: &str| {
        let url = format!(
            "postgres://{CERTIFIED}@127.0.0.1:{}/postgres?sslrootcert={trusted}{options}",
            server.port()
        );
        refusal(Backend::Postgres, &url).await
    };
    let shown = |path: &str| format!("&sslcert={path}&sslkey={path}");
    assert_eq!(certified(&shown(&server.file("client.pem"))).await, Ok(()));
    assert_says(certified("").await, "certificate");
    let bob = ours.certify(&["bob"]);
    let bob = file("bob.pem", &(bob.certificate + &bob.key));
    assert_says(certified(&shown(&bob)).await, "authentication failed");
    let fake = another.certify(&[CERTIFIED]);
    let fake = file("fake.pem", &(fake.certificate + &fake.key));
    certified(&shown(&fake)).await.expect_err("not vouched for");
    let key = format!("&sslcert={bob}&sslkey={fake}");
    assert_says(certified(&key).await, "do not belong together");

    // Through the socket there is no network to protect.
    let socket = format!(
        "postgres://doorward@{}:{}/postgres",
        server.file(""),
        server.port()
    );
    assert_eq!(refusal(Backend::Postgres, &socket).await, Ok(()));

    relay.heard();
    server.show(&ours.certify_briefly(&["127.0.0.1"]));
    server.reload("");
    let with = format!("sslrootcert={trusted}");
    until("the certificate has expired", async || {
        ask("127.0.0.1", &with).await.is_err()
    })
    .await;
    relay.heard();
    assert_says(ask("127.0.0.1", &with).await, "expired");
    nothing_was_said();

    server.reload("ssl = off");
    until("there is no TLS", async || {
        relay.heard();
        ask("127.0.0.1", &with)
            .await
            .expect_err("no TLS")
            .contains("TLS")
            && relay.heard() == [SSL_REQUEST]
    })
    .await;
}

/// ASVS 12.3.1, 12.3.2, 12.3.5: as above.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_hears_nothing_before_it_has_proved_who_it_is() {
    let (ours, another) = (Authority::new(), Authority::new());
    let server = PrivateServer::start_with_tls(Backend::Mongodb, &ours).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stranger = folder.path().join("another.pem");
    std::fs::write(&stranger, &another.certificate).expect("written");
    let stranger = stranger.display().to_string().replace('/', "%2F");
    let (trusted, client) = (server.file("ca.pem"), server.file("client.pem"));
    let relay = Relay::to(server.port()).await;
    let ask = async |port: u16, host: &str, options: &str| {
        let url = format!("mongodb://ann:hunter2@{host}:{port}/?directConnection=true&{options}");
        refusal(Backend::Mongodb, &url).await
    };
    let nothing_was_said = || {
        let heard = relay.heard();
        assert!(!heard.is_empty());
        for said in heard {
            assert!(says_nothing(&said), "{said:?}");
        }
    };
    let with = |ca: &str| format!("tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={client}");
    let whole = server.settings().mongodb.url;
    assert_eq!(refusal(Backend::Mongodb, whole.expose()).await, Ok(()));
    // The user does not exist: the conversation got so far.
    assert_says(
        ask(relay.port, "127.0.0.1", &with(&trusted)).await,
        "user or password",
    );
    assert!(
        relay.heard().iter().any(|said| !says_nothing(said)),
        "the relay is deaf"
    );

    assert_says(
        ask(relay.port, "localhost", &with(&trusted)).await,
        "not for this host",
    );
    nothing_was_said();
    assert_says(
        ask(relay.port, "127.0.0.1", &with(&stranger)).await,
        "not trusted",
    );
    nothing_was_said();
    assert_says(
        ask(relay.port, "127.0.0.1", "tls=true").await,
        "not trusted",
    );
    nothing_was_said();
    let without = format!("tls=true&tlsCAFile={trusted}");
    assert_says(
        ask(server.port(), "127.0.0.1", &without).await,
        "tlsCertificateKeyFile",
    );

    server.show(&ours.certify_briefly(&["127.0.0.1"]));
    let by_hand = mongodb::Client::with_uri_str(whole.expose())
        .await
        .expect("a client");
    let rotate = doc! { "rotateCertificates": 1 };
    let rotated = by_hand.database("admin").run_command(rotate).await;
    rotated.expect("another certificate");
    let asked = async || ask(relay.port, "127.0.0.1", &with(&trusted)).await;
    until("the certificate has expired", async || {
        asked().await.is_err_and(|why| why.contains("expired"))
    })
    .await;
    relay.heard();
    assert_says(asked().await, "expired");
    nothing_was_said();

    let plain = Database::empty(Backend::Mongodb).await;
    let url = plain.settings().mongodb.url.expose().to_owned();
    let port = url
        .rsplit_once(':')
        .and_then(|(_, rest)| rest.split('/').next());
    let relay_to_plain = Relay::to(port.expect("a port").parse().expect("a number")).await;
    let with = format!("tls=true&tlsCAFile={trusted}");
    let asked = ask(relay_to_plain.port, "127.0.0.1", &with);
    assert_says(asked.await, "does not speak TLS");
    let heard = relay_to_plain.heard();
    assert!(
        !heard.is_empty() && heard.iter().all(|said| says_nothing(said)),
        "{heard:?}"
    );
}
