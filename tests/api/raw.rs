//! HTTP/1.1 by hand, for what no client library would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::harness::{PATIENCE, app::Reply};

/// Sends these bytes and reads until the server hangs up, so they have to ask for that with
/// `Connection: close`. The body is what came over the wire, to the last byte.
pub(super) fn exchange(url: &str, request: &[u8]) -> Reply {
    let address = url.strip_prefix("http://").expect("a plain URL");
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    Reply {
        status: status.and_then(|s| s.parse().ok()).expect("a status"),
        headers,
        text: body.to_owned(),
    }
}
