//! The load: `wrk`, with a token of another user in each request, and whatever it says.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

use crate::{Outcome, output_of};

/// Requests made beforehand, so that the load costs little beside what is measured: they share the cores.
const SCRIPT: &str = r#"
local requests, at = {}, 0
function init(args)
  for token in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format("GET", args[1], { Authorization = "Bearer " .. token })
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"#;

/// What one measurement found.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50_micros: f64,
    /// `pgbench` does not tell.
    pub(crate) p99_micros: Option<f64>,
}

/// Asks for `path` on so many connections, each time with the next line of `tokens`.
pub(crate) fn run(
    address: &str,
    path: &str,
    tokens: &Path,
    connections: usize,
    seconds: u64,
) -> Outcome<Load> {
    let script = tokens.with_extension("lua");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--timeout", "10s"]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{seconds}s")]);
    command.arg("--script").arg(&script);
    command.arg(format!("http://{address}{path}"));
    command.arg("--").arg(path).arg(tokens);
    let said = output_of(&mut command)?;
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return Err(format!("{path}: not every answer was good:\n{said}").into());
    }
    let figure = |label: &str| -> Outcome<String> {
        let mut lines = said.lines().map(str::trim_start);
        let found = lines.find_map(|line| line.strip_prefix(label));
        Ok(found.ok_or("wrk says something new")?.trim().to_owned())
    };
    Ok(Load {
        per_second: figure("Requests/sec:")?.parse()?,
        p50_micros: micros(&figure("50%")?)?,
        p99_micros: Some(micros(&figure("99%")?)?),
    })
}

/// A time as `wrk` writes it, e.g. `1.05ms`.
fn micros(text: &str) -> Outcome<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    Err(format!("{text} is no time").into())
}
