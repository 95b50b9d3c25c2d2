//! The load: a small HTTP/1.1 client on connections that stay open, in a process and thread of its own.
//!
//! Every request is made beforehand, one for each token; which one is next is left to chance. Any
//! answer but 200 ends the run.

use std::{env, fs, path::Path, process::Command, sync::Arc, time::Duration};

use doorward::clock::Stopwatch;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{Outcome, output_of, per_second};

/// The first argument of a process that is a client.
pub(crate) const ROLE: &str = "client";
const WARM_UP: Duration = Duration::from_secs(1);

/// What one measurement found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50_micros: f64,
    /// `pgbench` does not tell.
    pub(crate) p99_micros: Option<f64>,
}

/// Runs a client process against `address`.
pub(crate) fn spawn(
    address: &str,
    tokens: &Path,
    connections: usize,
    seconds: u64,
) -> Outcome<Load> {
    let mut command = Command::new(env::current_exe()?);
    command.args([ROLE, address]).arg(tokens);
    command.args([connections.to_string(), seconds.to_string()]);
    Ok(serde_json::from_str(&output_of(&mut command)?)?)
}

/// The client process: address, file of tokens, connections, seconds.
pub(crate) fn run(arguments: &[String]) -> Outcome<()> {
    let [address, tokens, connections, seconds] = arguments else {
        return Err("a client takes address, tokens, connections and seconds".into());
    };
    let requests: Arc<[Vec<u8>]> = fs::read_to_string(tokens)?.lines().map(get_me).collect();
    let time = Duration::from_secs(seconds.parse()?);
    let connections: u64 = connections.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut micros = runtime.block_on(async {
        let watch = Stopwatch::start();
        let mut running = JoinSet::new();
        for seed in 1..=connections {
            let connection = Connection::open(address).await?;
            running.spawn(hammer(connection, Arc::clone(&requests), seed, watch, time));
        }
        let mut micros = Vec::new();
        while let Some(ended) = running.join_next().await {
            micros.append(&mut ended??);
        }
        Outcome::Ok(micros)
    })?;
    micros.sort_unstable();
    let load = Load {
        per_second: per_second(micros.len(), time),
        p50_micros: percentile(&micros, 50)?,
        p99_micros: Some(percentile(&micros, 99)?),
    };
    println!("{}", serde_json::to_string(&load)?);
    Ok(())
}

fn get_me(token: &str) -> Vec<u8> {
    format!("GET /v1/auth/me HTTP/1.1\r\nHost: doorward\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into_bytes()
}

fn percentile(sorted: &[u32], percent: usize) -> Outcome<f64> {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    let value = sorted.get(at).ok_or("not a single answer in time")?;
    Ok(f64::from(*value))
}

/// Sends requests one after the other; gives the microseconds that each took, but for the warm-up.
async fn hammer(
    mut connection: Connection,
    requests: Arc<[Vec<u8>]>,
    seed: u64,
    watch: Stopwatch,
    time: Duration,
) -> Outcome<Vec<u32>> {
    let mut micros = Vec::with_capacity(1 << 18);
    let mut random = SplitMix(seed << 32);
    loop {
        let sent = Stopwatch::start();
        let status = connection
            .ask(&requests[random.below(requests.len())])
            .await?;
        if status != 200 {
            return Err(format!("{status} instead of 200: {}", connection.answer()).into());
        }
        let now = watch.elapsed();
        if now >= WARM_UP + time {
            return Ok(micros);
        }
        if now >= WARM_UP {
            micros.push(u32::try_from(sent.elapsed().as_micros())?);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): good enough to pick, and the same in every run.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let scaled = (u128::from(z) * n as u128) >> 64;
        usize::try_from(scaled).expect("smaller than n, which is a usize")
    }
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
