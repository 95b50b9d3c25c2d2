//! SendGrid, played by a small server that remembers what it was asked.

use std::sync::{Arc, Mutex};

use doorward::mail::{Mailer, sendgrid::SendGridMailer, settings::SendGridSettings};
use poem::{
    Endpoint, Request, Response, Server,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
};
use serde_json::{Value, json};

use super::{later, letter, refused, sent_by};

/// What was asked: path, `Authorization`, body.
type Asked = (String, String, Value);

/// Answers with the status it is given, and remembers what it was asked.
#[derive(Clone)]
struct Played {
    status: Arc<Mutex<u16>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint for Played {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let path = request.uri().path().to_owned();
        let key = request.header("authorization").unwrap_or_default();
        let key = key.to_owned();
        let body = request.take_body().into_json().await?;
        self.asked.lock().expect("whole").push((path, key, body));
        let status = *self.status.lock().expect("whole");
        let status = StatusCode::from_u16(status).expect("a status");
        Ok(Response::builder()
            .status(status)
            .header("location", "/elsewhere")
            .body("to ann@example.org"))
    }
}

impl Played {
    async fn start() -> (Self, SendGridMailer) {
        let played = Self {
            status: Arc::new(Mutex::new(202)),
            asked: Arc::default(),
        };
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await;
        let acceptor = acceptor.expect("a free port");
        let addresses = acceptor.local_addr();
        let address = addresses[0]
            .as_socket_addr()
            .expect("an address")
            .to_owned();
        let serving = Server::new_with_acceptor(acceptor).run(played.clone());
        tokio::spawn(serving);
        let mailer = SendGridMailer::new(&SendGridSettings {
            api_key: "SG.key".into(),
            base_url: format!("http://{address}/"),
            ..SendGridSettings::default()
        });
        (played, mailer.expect("settings that can be obeyed"))
    }
}

/// ASVS 1.3.6, 14.2.3.
#[tokio::test]
async fn sendgrid_gets_the_letter_and_follows_nobody() {
    let (played, mailer) = Played::start().await;
    let mut mail = letter(1, "ann@example.org");
    mail.subject = "Grüße\r\nvon der Tür".to_owned();
    assert_eq!(mailer.send(&mail).await, Ok(()));
    let asked = played.asked.lock().expect("whole").clone();
    let off = json!({ "enable": false });
    let body = json!({
        "personalizations": [{ "to": [{ "email": "ann@example.org" }] }],
        "from": { "email": "no-reply@example.org", "name": "Türsteher" },
        "subject": "Grüße  von der Tür",
        "content": [
            { "type": "text/plain", "value": mail.text },
            { "type": "text/html", "value": mail.html },
        ],
        "headers": {
            "Message-ID": mail.message_id(),
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
            "Content-Language": "de",
        },
        "tracking_settings": {
            "click_tracking": { "enable": false, "enable_text": false },
            "open_tracking": off,
            "subscription_tracking": off,
        },
    });
    let expected = ("/v3/mail/send".to_owned(), "Bearer SG.key".to_owned(), body);
    assert_eq!(asked, [expected]);
    assert!(!format!("{mailer:?}").contains("SG.key"));
}

#[tokio::test]
async fn sendgrids_answers_say_whether_later_is_worth_a_try() {
    let (played, mailer) = Played::start().await;
    let cases = [
        (200, Ok(())),
        (302, later("status 302")),
        (400, refused("status 400")),
        (401, later("status 401")),
        (403, later("status 403")),
        (413, refused("status 413")),
        (429, later("status 429")),
        (500, later("status 500")),
    ];
    for (status, outcome) in &cases {
        *played.status.lock().expect("whole") = *status;
        assert_eq!(&sent_by(&mailer).await, outcome);
    }
    let asked = played.asked.lock().expect("whole").len();
    assert_eq!(asked, cases.len(), "a redirect was followed");
    let nobody = SendGridMailer::new(&SendGridSettings {
        api_key: "SG.key".into(),
        base_url: "http://127.0.0.1:1".to_owned(),
        ..SendGridSettings::default()
    });
    let nobody = nobody.expect("settings that can be obeyed");
    assert_eq!(sent_by(&nobody).await, later("no connection"));
}
