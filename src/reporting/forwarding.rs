//! A queue that nobody waits for, and what empties it into somebody's HTTP API.
//!
//! Decides what happens when the receiver is slow, away or refuses: a report is tried again a few times, what finds no
//! room meanwhile is dropped, and all of it is counted and said in the log when it begins and when it ends. What a
//! report is, and how it is written, is for its module.

use std::{fmt, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use reqwest::{
    Client, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use url::Url;

use crate::metrics::{Counter, Reported};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How often the same reports are sent at the most.
const ATTEMPTS: u32 = 4;
/// How long to wait before the second attempt, without a word of the receiver; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No receiver may ask for more patience.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What all who are told share.
pub(super) struct Outlet {
    pub(super) reported: Reported,
    /// Whether the process is about to end.
    pub(super) over: watch::Receiver<bool>,
}

/// Where reports go, and in which portions.
pub(super) struct Way {
    /// What they are, as metrics and the log call them.
    pub(super) what: &'static str,
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// How many may wait.
    pub(super) room: usize,
    /// How many are sent together at the most.
    pub(super) together: usize,
    /// How long the first of them waits for others.
    pub(super) linger: Duration,
    /// How long to rest after each portion.
    pub(super) rest: Duration,
}

/// The way in.
pub(super) struct Queue<T> {
    items: mpsc::Sender<T>,
    dropped: Counter,
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl<T> Queue<T> {
    /// Takes a report if there is room for it, at once; drops it otherwise.
    pub(super) fn offer(&self, item: T) {
        if self.items.try_send(item).is_err() {
            self.dropped.bump();
        }
    }
}

/// Why a portion was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It may be taken later, in that time if the receiver named one.
    Later(&'static str, Option<Duration>),
    /// It never will be.
    Never(&'static str),
}

impl Way {
    /// Begins to empty a queue, until the process ends; `pack` writes a portion down.
    pub(super) fn open<T, P>(self, outlet: Outlet, pack: P) -> (Queue<T>, JoinHandle<()>)
    where
        T: Send + 'static,
        P: Fn(Vec<T>) -> Vec<u8> + Send + 'static,
    {
        let (send, items) = mpsc::channel(self.room);
        let dropped = outlet.reported.dropped.of(self.what);
        let queue = Queue {
            items: send,
            dropped: dropped.clone(),
        };
        let mut worker = Worker {
            items,
            pack,
            sent: outlet.reported.sent.of(self.what),
            dropped,
            over: outlet.over,
            is_away: false,
            way: self,
        };
        let working = async move {
            // A panic loses the portion it came in; the worker goes on.
            while AssertUnwindSafe(worker.work())
                .catch_unwind()
                .await
                .is_err()
            {}
        };
        (queue, tokio::spawn(working))
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), Refusal> {
        let asked = self.client.post(self.url.clone());
        let asked = asked.headers(self.headers.clone()).timeout(ANSWER);
        let answer = asked.body(body).send().await;
        let answer = answer.map_err(|_| Refusal::Later("no answer", None))?;
        let retry_after = || {
            let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
            seconds.parse().ok().map(Duration::from_secs)
        };
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(Refusal::Later("too much for it", retry_after())),
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::Later("unavailable", retry_after())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Never("not allowed")),
            _ => Err(Refusal::Never("refused")),
        }
    }
}

struct Worker<T, P> {
    items: mpsc::Receiver<T>,
    pack: P,
    way: Way,
    sent: Counter,
    dropped: Counter,
    over: watch::Receiver<bool>,
    is_away: bool,
}

impl<T: Send, P: Fn(Vec<T>) -> Vec<u8> + Send> Worker<T, P> {
    async fn work(&mut self) {
        loop {
            let portion = self.portion().await;
            if portion.is_empty() {
                return;
            }
            self.deliver(portion).await;
            self.pause(self.way.rest).await;
        }
    }

    /// What is sent next; empty once there will be nothing any more.
    async fn portion(&mut self) -> Vec<T> {
        let (most, linger) = (self.way.together, self.way.linger);
        let mut portion = Vec::new();
        let items = &mut self.items;
        let gathering = async {
            items.recv_many(&mut portion, most).await;
            let others = async {
                while portion.len() < most {
                    let room = most - portion.len();
                    if items.recv_many(&mut portion, room).await == 0 {
                        return;
                    }
                }
            };
            // Most of the time there are none.
            let _ = timeout(linger, others).await;
        };
        tokio::select! {
            () = gathering => {}
            () = is_over(&mut self.over) => self.items.close(),
        }
        while portion.len() < most
            && let Ok(item) = self.items.try_recv()
        {
            portion.push(item);
        }
        portion
    }

    async fn deliver(&mut self, portion: Vec<T>) {
        let count = portion.len() as u64;
        let body = (self.pack)(portion);
        for attempt in 0..ATTEMPTS {
            let refusal = match self.way.post(body.clone()).await {
                Ok(()) => {
                    self.note(None);
                    self.sent.add(count);
                    return;
                }
                Err(refusal) => refusal,
            };
            let (Refusal::Later(why, _) | Refusal::Never(why)) = refusal;
            self.note(Some(why));
            let Refusal::Later(_, wanted) = refusal else {
                break;
            };
            if attempt + 1 < ATTEMPTS && !*self.over.borrow() {
                let pause = wanted.unwrap_or(FIRST_PAUSE * 2_u32.pow(attempt));
                self.pause(pause.min(LONGEST_PAUSE)).await;
            } else {
                break;
            }
        }
        self.dropped.add(count);
    }

    /// Waits, unless the process ends.
    async fn pause(&mut self, pause: Duration) {
        let _ = timeout(pause, is_over(&mut self.over)).await;
    }

    /// Logs that reports are not taken when it begins and when it ends; never as an error, which would be a report.
    fn note(&mut self, refused: Option<&'static str>) {
        let is_away = refused.is_some();
        if std::mem::replace(&mut self.is_away, is_away) == is_away {
            return;
        }
        let what = self.way.what;
        if let Some(why) = refused {
            tracing::warn!(what, why, "reports are not taken; some may be lost");
        } else {
            tracing::info!(what, "reports are taken again");
        }
    }
}

/// Ends when the process is about to.
async fn is_over(over: &mut watch::Receiver<bool>) {
    // Whoever could say so and is gone has said so.
    let _ = over.wait_for(|over| *over).await;
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn way() -> (Way, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let url: Url = format!("http://{address}/").parse().expect("a URL");
        let client =
            crate::outbound::client("test", &url, crate::outbound::Trusted::Public).expect("TLS");
        let way = Way {
            what: "spans",
            client: client.build().expect("a client"),
            url,
            headers: HeaderMap::new(),
            room: 2,
            together: 512,
            linger: Duration::ZERO,
            rest: Duration::ZERO,
        };
        (way, listener)
    }

    fn outlet() -> (Outlet, watch::Sender<bool>) {
        let over = watch::Sender::new(false);
        let outlet = Outlet {
            reported: Reported::default(),
            over: over.subscribe(),
        };
        (outlet, over)
    }

    fn joined(items: Vec<&str>) -> Vec<u8> {
        items.into_iter().flat_map(str::bytes).collect()
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let (way, _nobody_answers) = way().await;
        let (outlet, _over) = outlet();
        let reported = outlet.reported.clone();
        let (queue, _worker) = way.open(outlet, joined);
        (0..10).for_each(|_| queue.offer("x"));
        assert_eq!(reported.dropped.get("spans"), 8);
        // What is under way has left its room.
        while queue.items.capacity() < 2 {
            tokio::task::yield_now().await;
        }
        (0..3).for_each(|_| queue.offer("x"));
        assert_eq!(reported.dropped.get("spans"), 9);
    }

    #[tokio::test]
    async fn what_is_refused_for_now_is_sent_again_and_at_the_end_what_waits() {
        let (way, listener) = way().await;
        let (outlet, over) = outlet();
        let reported = outlet.reported.clone();
        let (queue, worker) = way.open(outlet, joined);
        queue.offer("a");
        let answers = [
            "503 Away\r\nRetry-After: 0",
            "200 OK",
            "400 Bad Request",
            "200 OK",
        ];
        let mut bodies = String::new();
        for (n, answer) in answers.into_iter().enumerate() {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut said = vec![0; 4096];
            let read = stream.read(&mut said).await.expect("a request");
            bodies.extend(said[..read].last().map(|byte| char::from(*byte)));
            match n {
                1 => queue.offer("b"),
                2 => {
                    queue.offer("c");
                    over.send_replace(true);
                }
                _ => {}
            }
            let answer =
                format!("HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("answered");
        }
        worker.await.expect("it ends when all is sent");
        assert_eq!(bodies, "aabc");
        let counts = [&reported.sent, &reported.dropped].map(|family| family.get("spans"));
        assert_eq!(counts, [2, 1]);
    }
}
