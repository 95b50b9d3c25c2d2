//! One connection, from its handshake to its end.
//!
//! Decides which protocol is spoken, HTTP/2 where a client asks for it in the TLS handshake and HTTP/1.1
//! otherwise, and tells the connection's [`Link`] what moves on it. When it has had its time is judged there,
//! and what is answered by the routes alone: no answer is made here.

use std::{
    convert::Infallible,
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use poem::{
    Endpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::interval,
};
use tokio_rustls::TlsAcceptor;

use super::{
    link::{Link, Order},
    register::Entry,
    tls::Tls,
};

/// Longest head of a request, in bytes; a longer one is answered 431.
const LONGEST_HEAD: u16 = 32 << 10;
/// Requests at once on a connection of HTTP/2.
const MOST_STREAMS: u32 = 100;
/// Requests that a client may take back before they were looked at (CVE-2023-44487), and that it may spoil.
const MOST_RESETS: usize = 20;
/// What a client may send ahead: one body of the usual size on each stream, and some of them at once.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What is kept of the answers on one stream until the client takes it, in bytes.
const SEND_BUFFER: usize = 64 << 10;
/// What a client has to take of what waits for it, in bytes, each time that `http.write_timeout` passes.
const LEAST_TAKEN: usize = 16 << 10;
/// How often a request of HTTP/2 looks at the clock; those of HTTP/1.1 are told by the listener.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the connections of one listener have in common.
pub(super) struct Service<E> {
    pub(super) routes: E,
    pub(super) local: LocalAddr,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Serves one connection until it ends.
pub(super) async fn serve<E: Endpoint + 'static>(
    service: Arc<Service<E>>,
    stream: TcpStream,
    peer: SocketAddr,
    entry: Entry,
) {
    let entry = Arc::new(entry);
    let Some(tls) = &service.tls else {
        let asked = Asked::new(service, peer, Scheme::HTTP, &entry);
        return http1(asked, stream, &entry).await;
    };
    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
    // A client that fails the handshake finds out why from its own side; who it is stands in no log.
    let Some(Ok(stream)) = driven(entry.link(), pin!(accepting), None).await else {
        return;
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let asked = Asked::new(service, peer, Scheme::HTTPS, &entry);
    if is_http2 {
        http2(asked, stream, &entry).await;
    } else {
        http1(asked, stream, &entry).await;
    }
}

async fn http1<E: Endpoint + 'static, S: Stream>(asked: Asked<E>, stream: S, entry: &Arc<Entry>) {
    let asked = Arc::new(asked);
    let answers = service_fn(move |request| {
        let asked = Arc::clone(&asked);
        async move { asked.answer(request).await }
    });
    let connection = http1::Builder::new()
        .max_header_size(LONGEST_HEAD.into())
        // Answers are small: one piece is written faster than two are gathered.
        .writev(false)
        .serve_connection(Watched::new(stream, entry), answers);
    let finish = http1::Connection::graceful_shutdown;
    // How a connection ends is its client's business.
    let _ = driven(entry.link(), pin!(connection), Some(finish)).await;
}

async fn http2<E: Endpoint + 'static, S: Stream>(asked: Asked<E>, stream: S, entry: &Arc<Entry>) {
    entry.link().is_multiplexed();
    let asked = Arc::new(asked);
    let answers = service_fn(move |request| {
        let asked = Arc::clone(&asked);
        async move { roused(asked.answer(request)).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_RESETS)
        .max_header_list_size(LONGEST_HEAD.into())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(Watched::new(stream, entry), answers);
    let finish = http2::Connection::graceful_shutdown;
    let _ = driven(entry.link(), pin!(connection), Some(finish)).await;
}

/// Works on a connection as its link is ordered to; nothing if it was cut. What cannot `finish` is cut instead.
async fn driven<W: Future>(
    link: &Link,
    mut work: Pin<&mut W>,
    finish: Option<fn(Pin<&mut W>)>,
) -> Option<W::Output> {
    let mut finishing = false;
    poll_fn(move |cx| {
        link.is_served_by(cx.waker());
        match (link.order(), finish) {
            (Order::Finish, Some(finish)) if !finishing => {
                finishing = true;
                finish(work.as_mut());
            }
            (Order::GoOn, _) | (Order::Finish, Some(_)) => {}
            (Order::Cut, _) | (Order::Finish, None) => return Poll::Ready(None),
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Polls a request every second at the least, so that it can find out that it is late.
async fn roused<W: Future>(work: W) -> W::Output {
    let mut looks = interval(LOOK_EVERY);
    let mut work = pin!(work);
    poll_fn(move |cx| {
        while looks.poll_tick(cx).is_ready() {}
        work.as_mut().poll(cx)
    })
    .await
}

/// What a request is asked on.
struct Asked<E> {
    service: Arc<Service<E>>,
    peer: RemoteAddr,
    scheme: Scheme,
    entry: Arc<Entry>,
}

impl<E: Endpoint> Asked<E> {
    fn new(service: Arc<Service<E>>, peer: SocketAddr, scheme: Scheme, entry: &Arc<Entry>) -> Self {
        Self {
            service,
            peer: RemoteAddr(peer.into()),
            scheme,
            entry: Arc::clone(entry),
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<
        Response<Answer<impl Body<Data: Send, Error = io::Error> + Unpin + use<E>>>,
        Infallible,
    > {
        let mut running = Running::begin(&self.entry);
        let (local, peer) = (self.service.local.clone(), self.peer.clone());
        let request = (request, local, peer, self.scheme.clone()).into();
        let response: Response<_> = self.service.routes.get_response(request).await.into();
        running.answer();
        Ok(response.map(|body| Answer { body, running }))
    }
}

/// A request, from its head to the end of its answer's body.
struct Running {
    entry: Arc<Entry>,
    answered: bool,
}

impl Running {
    fn begin(entry: &Arc<Entry>) -> Self {
        entry.link().begin(entry.now());
        Self {
            entry: Arc::clone(entry),
            answered: false,
        }
    }

    fn answer(&mut self) {
        self.answered = true;
        self.entry.link().answer(self.entry.now());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.entry.link().end(self.entry.now(), self.answered);
    }
}

/// The body of an answer; when it is dropped, all of it has been handed over.
struct Answer<B> {
    body: B,
    running: Running,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let entry = &self.running.entry;
        entry.link().answer_on(entry.now());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What requests come in on.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A stream that tells its link what moves.
struct Watched<S> {
    stream: S,
    entry: Arc<Entry>,
    /// What the client has taken since it took too little, if it does.
    taken: Option<usize>,
}

impl<S: Stream> Watched<S> {
    fn new(stream: S, entry: &Arc<Entry>) -> TokioIo<Self> {
        TokioIo::new(Self {
            stream,
            entry: Arc::clone(entry),
            taken: None,
        })
    }

    /// Notes how a write went: a client has to take [`LEAST_TAKEN`] of what waits for it, or all, in its time.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match (&written, &mut self.taken) {
            (Poll::Pending, None) => self.blocked(),
            (Poll::Ready(Ok(n)), Some(taken)) => {
                *taken = taken.saturating_add(*n);
                if *taken >= LEAST_TAKEN {
                    self.blocked();
                }
            }
            _ => {}
        }
        written
    }

    fn blocked(&mut self) {
        self.taken = Some(0);
        self.entry.link().block(self.entry.now());
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.entry.link().read(self.entry.now());
        }
        read
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        match (&flushed, self.taken) {
            (Poll::Pending, None) => self.blocked(),
            (Poll::Ready(_), Some(_)) => {
                self.taken = None;
                self.entry.link().unblock();
            }
            _ => {}
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        if ended.is_pending() && self.taken.is_none() {
            self.blocked();
        }
        ended
    }
}
