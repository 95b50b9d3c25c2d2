//! The connection below a conversation that begins in plain text and goes on in TLS.
//!
//! Decides that nothing said in plain text is ever taken for something said in TLS: whoever stands in
//! between could send answers along with the one to STARTTLS, and they would wait in a buffer until the
//! questions come (RFC 3207 §4.2).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// How a TLS record of a handshake begins (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// Hands over a byte at a time until TLS begins, so that no reader can hold more than the line it
/// waits for; what follows that line goes to TLS, which does not take it.
#[derive(Debug)]
pub(super) struct NoReadAhead {
    stream: TcpStream,
    encrypted: bool,
}

/// Connects to the first address of a host that answers in time.
pub(super) async fn connect(place: (&str, u16), limit: Duration) -> io::Result<NoReadAhead> {
    let mut failed = io::Error::from(io::ErrorKind::HostUnreachable);
    for address in lookup_host(place).await? {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                return Ok(NoReadAhead {
                    stream,
                    encrypted: false,
                });
            }
            Ok(Err(e)) => failed = e,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

impl AsyncRead for NoReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.encrypted || out.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut one))?;
        out.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NoReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // No line of ours begins so.
        self.encrypted |= bytes.first() == Some(&HANDSHAKE);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for NoReadAhead {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}
