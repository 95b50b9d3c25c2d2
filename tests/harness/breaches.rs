//! A breach service, played by a small server that remembers what it was asked.

use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use doorward::{
    clock::Span,
    passwords::{PasswordPolicy, breach::BreachSettings},
};
use poem::{
    Endpoint, Request, Response, Server,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// With another status, and a body that would be a hit.
    Status(u16),
    /// With something else.
    Junk,
    /// With more than anybody wants to read.
    Flood,
    /// Never.
    Silent,
}

/// What one question was: its path with the query, its method and its headers as text.
#[derive(Debug, Clone)]
pub struct Asked {
    pub target: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub body: usize,
}

/// A service that knows some passwords.
#[derive(Clone)]
pub struct BreachService {
    known: Arc<Vec<String>>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub url: String,
}

/// The SHA-1 of a password in upper-case hexadecimal, as such services have it.
pub fn sha1_of(password: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    hash.as_ref()
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"))
}

impl BreachService {
    pub async fn knowing(passwords: &[&str]) -> Self {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await;
        let acceptor = acceptor.expect("a free port");
        let addresses = acceptor.local_addr();
        let address = addresses[0]
            .as_socket_addr()
            .expect("an address")
            .to_owned();
        let service = Self {
            known: Arc::new(passwords.iter().map(|password| sha1_of(password)).collect()),
            mood: Arc::new(Mutex::new(Mood::Well)),
            asked: Arc::default(),
            url: format!("http://{address}/range/"),
        };
        tokio::spawn(Server::new_with_acceptor(acceptor).run(service.clone()));
        service
    }

    /// The policy of tests, with this service.
    pub fn policy(&self) -> PasswordPolicy {
        PasswordPolicy {
            breach: BreachSettings {
                base_url: self.url.clone(),
                timeout: Span::secs(10),
            },
            ..PasswordPolicy::light()
        }
    }

    pub fn is_now(&self, mood: Mood) {
        *self.mood.lock().expect("whole") = mood;
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("whole"))
    }

    /// The hashes in a range, those of others and padding among them.
    fn range(&self, prefix: &str) -> String {
        let others = ["0", "7", "A"].map(|digit| format!("{}:12", digit.repeat(35)));
        let known = self
            .known
            .iter()
            .filter_map(|hash| hash.strip_prefix(prefix));
        let known = known.map(|rest| format!("{rest}:3"));
        let padding = [format!("{}:0", "F".repeat(35))];
        let lines = others.into_iter().chain(known).chain(padding);
        lines.collect::<Vec<_>>().join("\r\n")
    }
}

impl Endpoint for BreachService {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let target = request.uri().path_and_query().map(ToString::to_string);
        let target = target.unwrap_or_default();
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            (name.as_str().to_owned(), value.to_owned())
        });
        let headers = headers.collect();
        let method = request.method().to_string();
        let body = request.take_body().into_vec().await?.len();
        let prefix = target.rsplit('/').next().unwrap_or_default().to_owned();
        self.asked.lock().expect("whole").push(Asked {
            target,
            method,
            headers,
            body,
        });
        let range = self.range(&prefix);
        let mood = *self.mood.lock().expect("whole");
        let answer = Response::builder();
        Ok(match mood {
            Mood::Well => answer.body(range),
            Mood::Status(status) => answer
                .status(StatusCode::from_u16(status).expect("a status"))
                .header("location", format!("/elsewhere/{prefix}"))
                .body(range),
            Mood::Junk => answer.body(format!("<html>{range}</html>")),
            Mood::Flood => answer.body(format!("{range}\r\n").repeat(10_000)),
            Mood::Silent => std::future::pending().await,
        })
    }
}
