//! What the operating system says of this process, under the names that all Prometheus clients use.
//!
//! Read from `/proc` when somebody asks; where there is none, nothing is said.

use std::fs;

use prometheus::{Counter, Gauge, Opts, Registry};

/// The metrics of the process.
#[derive(Debug)]
pub(super) struct Process {
    cpu: Counter,
    memory: Gauge,
    open_files: Gauge,
    most_files: Gauge,
}

/// What `/proc/self/stat` tells (proc(5)).
struct Stat {
    cpu_seconds: f64,
    /// Since the machine was started.
    started_seconds: f64,
    resident_bytes: f64,
}

impl Process {
    /// Makes them known; `None` where there is no `/proc`.
    pub(super) fn new(registry: &Registry) -> Option<Self> {
        let stat = Stat::read()?;
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::with_opts(Opts::new(name, help)).ok()?;
            registry.register(Box::new(gauge.clone())).ok()?;
            Some(gauge)
        };
        let (name, help) = (
            "process_start_time_seconds",
            "When the process started, in seconds since the Unix epoch.",
        );
        gauge(name, help)?.set(booted_at()? + stat.started_seconds);
        let (name, help) = (
            "process_cpu_seconds_total",
            "CPU time that the process has used, in seconds.",
        );
        let cpu = Counter::with_opts(Opts::new(name, help)).ok()?;
        registry.register(Box::new(cpu.clone())).ok()?;
        Some(Self {
            cpu,
            memory: gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM, in bytes.",
            )?,
            open_files: gauge("process_open_fds", "Open file descriptors.")?,
            most_files: gauge("process_max_fds", "Most file descriptors that may be open.")?,
        })
    }

    /// Reads them anew.
    pub(super) fn read(&self) {
        if let Some(stat) = Stat::read() {
            self.cpu
                .inc_by((stat.cpu_seconds - self.cpu.get()).max(0.0));
            self.memory.set(stat.resident_bytes);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            self.open_files
                .set(as_float(open.count().saturating_sub(1) as u64));
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.most_files.set(most.map_or(f64::INFINITY, as_float));
    }
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name may hold anything, so what follows its last bracket is counted.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // `state` is the third field of the manual and the first here.
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let ticks = as_float(rustix::param::clock_ticks_per_second());
        let page = as_float(rustix::param::page_size() as u64);
        Some(Self {
            cpu_seconds: as_float(field(14)? + field(15)?) / ticks,
            started_seconds: as_float(field(22)?) / ticks,
            resident_bytes: as_float(field(24)?) * page,
        })
    }
}

/// When the machine was started, in seconds since the epoch.
fn booted_at() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody counts to 2^53 bytes or ticks"
)]
fn as_float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        let registry = Registry::new();
        let process = Process::new(&registry).expect("/proc is there");
        process.read();
        assert!(process.memory.get() > 1e6 && process.open_files.get() >= 3.0);
        assert!(process.most_files.get() > process.open_files.get());
        // Some time after the year 2020.
        let started = booted_at().expect("said") + Stat::read().expect("said").started_seconds;
        assert!(started > 1.58e9, "{started}");
    }
}
