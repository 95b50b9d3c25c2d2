//! A wire that is listened to: what clients send passes through here on its way to a server.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

/// The content types of TLS records (RFC 8446 §5.1).
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
/// An alert of two bytes, its type and the seal: all that is said in secret to a server that is not who it should be.
const SEALED_ALERT: usize = 2 + 1 + 16;

/// Passes on what it hears until it is dropped.
pub struct Relay {
    pub port: u16,
    heard: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// To a port of this machine.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().expect("whole");
                    all.push(Some(Vec::new()));
                    all.len() - 1
                };
                tokio::spawn(pass_on(client, server, Arc::clone(&all), number));
            }
        });
        Self {
            port,
            heard,
            listening,
        }
    }

    /// What clients have said so far, each connection for itself. These are listened to no more.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = self.heard.lock().expect("whole");
        let said = heard.iter_mut().filter_map(Option::take);
        said.filter(|said| !said.is_empty()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass_on(
    client: TcpStream,
    server: u16,
    heard: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    number: usize,
) {
    let server = TcpStream::connect(("127.0.0.1", server)).await;
    let (mut from_client, mut to_client) = client.into_split();
    let Ok((mut from_server, mut to_server)) = server.map(TcpStream::into_split) else {
        return;
    };
    let back = tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
        if let Some(said) = &mut heard.lock().expect("whole")[number] {
            said.extend_from_slice(&buffer[..n]);
        }
        if to_server.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    back.abort();
}

/// Whether nothing was said but that TLS is wanted, and at the most that it failed.
pub fn says_nothing(mut said: &[u8]) -> bool {
    let mut greeted = false;
    while let [kind, _, _, high, low, rest @ ..] = said {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if rest.len() < length || (*kind == APPLICATION_DATA && length > SEALED_ALERT) {
            return false;
        }
        greeted |= *kind == HANDSHAKE;
        said = &rest[length..];
    }
    greeted && said.is_empty()
}
