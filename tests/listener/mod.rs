//! The listener as its clients meet it: by bytes on sockets, in time and out of time.

mod bounds;
mod stopping;
mod times;
mod tls;

use std::{
    future::pending,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use doorward::{
    clock::Span,
    http::HttpSettings,
    server::{listener::Listener, tls::Tls},
};
use poem::Endpoint;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;

use crate::harness::{
    PATIENCE,
    app::{App, Reply, Setup},
    backend::{Backend, Database},
};

/// What a client may take in these tests, where somebody waits for its end.
const SHORT: Span = Span::millis(300);
/// No time of [`SHORT`] is over before this.
const NOT_BEFORE: Duration = Duration::from_millis(250);

/// A node whose listener obeys this.
async fn start(http: HttpSettings) -> App {
    start_with(Setup {
        http,
        ..Setup::default()
    })
    .await
}

async fn start_with(setup: Setup) -> App {
    App::with(Database::fresh(Backend::Sqlite).await, setup).await
}

/// Serves anything, until the task is aborted.
async fn listen(
    routes: impl Endpoint + 'static,
    settings: &HttpSettings,
    tls: Option<Arc<Tls>>,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = Listener::bind(("", "127.0.0.1:0"), settings, tls).await;
    let listener = listener.expect("a free port");
    let address = listener.address();
    let serving = listener.serve(routes, pending(), Duration::ZERO);
    (address, tokio::spawn(serving))
}

/// A connection that is worked by hand.
struct Wire(TcpStream);

impl Wire {
    /// To the first node of a test.
    fn to(app: &App) -> Self {
        let url = &app.nodes[0].url;
        Self::open(url.strip_prefix("http://").expect("a plain URL"))
    }

    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self(stream)
    }

    fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).expect("sent");
    }

    /// Sends a request without a body and reads its answer.
    fn get(&mut self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.answer()
    }

    /// One answer whose length is told, and nothing that comes after it.
    fn answer(&mut self) -> Reply {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.trim_end().lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        let length = headers.get("content-length").map(|value| {
            let value = value.to_str().expect("text");
            value.parse::<usize>().expect("a length")
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).expect("a body");
        Reply {
            status: status.and_then(|s| s.parse().ok()).expect("a status"),
            headers,
            text: String::from_utf8(body).expect("text"),
        }
    }

    /// Whether the server hangs up without another word; waits for it.
    fn is_hung_up_on(&mut self) -> bool {
        match self.0.read(&mut [0; 64]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Sends a byte every so often, for as long as the server takes them.
    fn drip(&self) {
        let mut stream = self.0.try_clone().expect("cloned");
        std::thread::spawn(move || {
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
}
