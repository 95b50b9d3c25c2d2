//! A small HTTP/1.1 client on connections that stay open, which costs little beside what is tested.

use std::{
    io::{Error, ErrorKind, Result},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a client waits for an answer; a node gives one sooner, whatever happens to its database.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it tries to reach a node.
const CONNECTING: Duration = Duration::from_secs(2);

/// A request without a body, or with one of JSON, and with or without a token.
pub(crate) fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let kind = match body {
        "" => "",
        _ => "Content-Type: application/json\r\n",
    };
    let length = match method {
        "GET" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let bearer = bearer.unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: doorward\r\n{bearer}{kind}{length}\r\n");
    (head + body).into_bytes()
}

/// A way to one server, and its last answer.
pub(crate) struct Connection {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Nothing is opened before the first request.
    pub(crate) fn to(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
            buffer: vec![0; 1 << 14],
            filled: 0,
        }
    }

    /// Sends a request and gives the status of its answer. After an error the next request comes on a new connection.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        let asked = timeout(PATIENCE, self.ask_on_it(request)).await;
        let answered = asked.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        let closes = answered.is_ok() && self.header("connection") == Some("close");
        if answered.is_err() || closes {
            self.stream = None;
        }
        answered
    }

    async fn ask_on_it(&mut self, request: &[u8]) -> Result<u16> {
        if self.stream.is_none() {
            let connected = timeout(CONNECTING, TcpStream::connect(&self.address)).await;
            let stream = connected.map_err(|_| Error::from(ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().ok_or(ErrorKind::NotConnected)?;
        stream.write_all(request).await?;
        self.filled = 0;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            let read = stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
            if let Some(status) = whole(&self.buffer[..self.filled])? {
                return Ok(status);
            }
        }
    }

    /// The last answer as text.
    pub(crate) fn answer(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.filled]).unwrap_or_default()
    }

    /// The last answer's body, which says what went wrong.
    pub(crate) fn body(&self) -> &str {
        let answer = self.answer();
        answer
            .split_once("\r\n\r\n")
            .map_or(answer, |(_, body)| body)
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (head, _) = self.answer().split_once("\r\n\r\n")?;
        let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
        fields
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// A text among the fields of the last answer's JSON; a session's id is `session.id`.
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let json: serde_json::Value = serde_json::from_str(self.body()).ok()?;
        let found = path
            .split('.')
            .try_fold(&json, |value, name| value.get(name));
        found?.as_str().map(ToOwned::to_owned)
    }
}

/// The status of an answer of which nothing is missing.
fn whole(answer: &[u8]) -> Result<Option<u16>> {
    const LENGTH: &[u8] = b"content-length: ";
    let odd = || Error::from(ErrorKind::InvalidData);
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = answer[..end].split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12));
    let status = std::str::from_utf8(status.ok_or_else(odd)?).map_err(|_| odd())?;
    let status: u16 = status.parse().map_err(|_| odd())?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then_some(value)
    });
    let length = match length {
        Some(length) => std::str::from_utf8(length).map_err(|_| odd())?.trim(),
        None if status == 204 => "0",
        None => return Err(odd()),
    };
    let length: usize = length.parse().map_err(|_| odd())?;
    Ok((answer.len() >= end + 4 + length).then_some(status))
}
