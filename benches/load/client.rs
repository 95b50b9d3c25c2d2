//! A small HTTP/1.1 client on a connection that stays open, which costs little beside what is measured.

use std::time::Duration;

use doorward::clock::Stopwatch;
use tokio::net::TcpStream;

use crate::Outcome;

/// Waits until a server answers 200 at a path.
pub(crate) async fn wait_for(address: &str, path: &str) -> Outcome<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: doorward\r\n\r\n");
    let watch = Stopwatch::start();
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && connection.ask(request.as_bytes()).await? == 200
        {
            return Ok(());
        }
        if watch.elapsed() > Duration::from_secs(30) {
            return Err(format!("{address} does not answer").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A request by whoever has this token.
pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: doorward\r\n");
    format!("{head}Authorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// A request with a body of JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: doorward\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An open connection and the last answer on it.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 1 << 14],
            filled: 0,
        })
    }

    /// Sends a request, waits for the whole answer and gives its status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Outcome<u16> {
        let mut rest = request;
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.filled = 0;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            }
            if let Some(status) = whole(&self.buffer[..self.filled])? {
                return Ok(status);
            }
        }
    }

    /// The last answer as text.
    pub(crate) fn answer(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned()
    }
}

/// The status of an answer of which nothing is missing.
fn whole(answer: &[u8]) -> Outcome<Option<u16>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &answer[..end];
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12));
    let status = std::str::from_utf8(status.ok_or("not an HTTP answer")?)?.parse()?;
    let length = lines.find(|line| {
        line.get(..LENGTH.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(LENGTH))
    });
    let length = length.ok_or("an answer without Content-Length")?;
    let length: usize = std::str::from_utf8(&length[LENGTH.len()..])?
        .trim()
        .parse()?;
    Ok((answer.len() >= end + 4 + length).then_some(status))
}
