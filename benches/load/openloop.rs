//! A load at a fixed rate, whatever the server does with it: each request has its time, and what it takes is
//! counted from then on, so that a server that stands still is not spared the requests that it keeps waiting.

use std::{sync::Arc, time::Duration};

use doorward::clock::Stopwatch;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{Outcome, client::Connection, count};

/// What one run found.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Steady {
    pub(crate) rate: usize,
    pub(crate) answers: usize,
    /// Answers other than 200.
    pub(crate) refused: usize,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) longest_micros: f64,
}

/// Sends the requests in turn, `rate` a second, on so many connections.
pub(crate) async fn run(
    address: &str,
    requests: Arc<[Vec<u8>]>,
    connections: usize,
    rate: usize,
    time: Duration,
) -> Outcome<Steady> {
    let watch = Stopwatch::start();
    let (due, queue) = mpsc::channel::<Duration>(rate * 60);
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let mut workers = JoinSet::new();
    for n in 0..connections {
        let (queue, requests) = (Arc::clone(&queue), Arc::clone(&requests));
        let mut connection = Connection::open(address).await?;
        workers.spawn(async move {
            let (mut took, mut refused, mut at) = (Vec::new(), 0, n);
            loop {
                let next = queue.lock().await.recv().await;
                let Some(due) = next else {
                    return Outcome::Ok((took, refused));
                };
                at = (at + connections) % requests.len();
                let status = connection.ask(&requests[at]).await?;
                refused += usize::from(status != 200);
                took.push(watch.elapsed().saturating_sub(due));
            }
        });
    }
    let step = Duration::from_secs_f64(1.0 / count(rate));
    let mut next = watch.elapsed();
    let end = next + time;
    while next < end {
        let now = watch.elapsed();
        if now < next {
            tokio::time::sleep(next.saturating_sub(now)).await;
        }
        // Every request that has become due meanwhile, each with its own time.
        while next <= watch.elapsed() && next < end {
            due.try_send(next)
                .map_err(|_| "a minute of requests waits")?;
            next += step;
        }
    }
    drop(due);
    let (mut took, mut refused) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (times, no) = worker??;
        took.extend(times);
        refused += no;
    }
    took.sort_unstable();
    let at = |percent: usize| -> Outcome<f64> {
        let n = (took.len().saturating_sub(1)) * percent / 100;
        Ok(took.get(n).ok_or("not one answer")?.as_secs_f64() * 1e6)
    };
    Ok(Steady {
        rate,
        answers: took.len(),
        refused,
        p50_micros: at(50)?,
        p99_micros: at(99)?,
        longest_micros: at(100)?,
    })
}
