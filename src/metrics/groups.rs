//! Metrics that belong together: of requests, of the database, of its connections, of the canary.

use std::time::Duration;

use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounter, IntCounterVec};

use super::parts::{Family, Gauge, Level, Maker};

const REQUEST_SECONDS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const VISIBLE_SECONDS: [f64; 12] = [
    0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0,
];

/// Why a round of the canary can fail.
const FAILURES: [&str; 8] = [
    "account",
    "database",
    "interrupted",
    "no_answer",
    "not_accepted",
    "not_refused",
    "token",
    "unreachable",
];

/// Requests and their answers; the labels are found by [`crate::http`].
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    /// By route, method and status.
    pub(crate) requests: IntCounterVec,
    /// How long they took, by route and method.
    pub(crate) seconds: HistogramVec,
    /// Those that are being answered.
    pub(crate) in_flight: Level,
}

/// What is asked of the database every so often.
#[derive(Debug)]
pub struct DatabaseGauges {
    /// 1 if it answered last time.
    pub up: Gauge,
    /// When it last answered, in seconds since the epoch.
    pub observed_at: Gauge,
    /// How far its clock is ahead of this node's.
    pub clock_offset: Gauge,
    /// Sessions that are open and neither expired nor idle.
    pub live_sessions: Gauge,
    /// Letters that wait to be sent.
    pub waiting_letters: Gauge,
    /// How long the oldest of them has waited.
    pub oldest_letter: Gauge,
    /// Audit records that are not sealed yet.
    pub unsealed_records: Gauge,
}

/// How the connections to a database are used at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Which pool.
    pub name: &'static str,
    /// Connections that somebody has.
    pub in_use: u32,
    /// Connections that wait for somebody.
    pub idle: u32,
    /// Most connections that there can be.
    pub most: u32,
    /// How often somebody had to wait for one since the start.
    pub waits: u64,
    /// How often in vain.
    pub timeouts: u64,
    /// How long all of them waited together.
    pub waited: Duration,
}

/// What has become of the circuit before a database so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitUse {
    /// Whether calls are refused at this moment.
    pub is_open: bool,
    /// How often it opened: the database was found to be away.
    pub opened: u64,
    /// Calls that were refused because it was open.
    pub rejected: u64,
}

/// What has become of the circuit.
#[derive(Debug)]
pub(super) struct CircuitMetrics {
    open: Gauge,
    opened: IntCounter,
    rejected: IntCounter,
}

/// How connections are used.
#[derive(Debug)]
pub(super) struct Pools {
    connections: GaugeVec,
    most: GaugeVec,
    waits: IntCounterVec,
    timeouts: IntCounterVec,
    wait_seconds: CounterVec,
}

/// What others were told of this process, by what it was: `spans` or `errors`.
#[derive(Debug, Clone)]
pub struct Reported {
    /// What they took.
    pub sent: Family,
    /// What found no room, or was not taken.
    pub dropped: Family,
}

impl Default for Reported {
    fn default() -> Self {
        let family = |name, help| Family::new((name, "what"), help, &["errors", "spans"]);
        Self {
            sent: family(
                "doorward_reports_sent_total",
                "Spans and errors that their receivers took.",
            ),
            dropped: family(
                "doorward_reports_dropped_total",
                "Spans and errors that found no room in the queue, or that their receivers did not take.",
            ),
        }
    }
}

/// What the canary found; `peer` is `self` or an address of the configuration.
#[derive(Debug)]
pub struct CanaryMetrics {
    visible: HistogramVec,
    accepted: IntCounterVec,
    failures: IntCounterVec,
}

impl CanaryMetrics {
    /// Notes how long after its revocation was acknowledged a session was refused by this node.
    pub fn refused_after(&self, peer: &str, time: Duration) {
        let visible = self.visible.with_label_values(&[peer]);
        visible.observe(time.as_secs_f64());
    }

    /// Notes that this node accepted a session in a request that started after its revocation was
    /// acknowledged. It must never be called.
    pub fn accepted_after(&self, peer: &str) {
        self.accepted.with_label_values(&[peer]).inc();
    }

    /// Notes that a round did not come to its end.
    pub fn failed(&self, peer: &str, reason: &'static str) {
        self.failures.with_label_values(&[peer, reason]).inc();
    }

    /// Makes the counters of these nodes be there from the beginning.
    pub(crate) fn know<'a>(&self, peers: impl Iterator<Item = &'a str>) {
        for peer in peers {
            self.visible.with_label_values(&[peer]);
            self.accepted.with_label_values(&[peer]);
            for reason in FAILURES {
                self.failures.with_label_values(&[peer, reason]);
            }
        }
    }
}

impl HttpMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            requests: make.counters(
                "doorward_http_requests_total",
                "Requests answered, by route as it stands in the router, method and status.",
                &["route", "method", "status"],
            ),
            seconds: make.distributions(
                (
                    "doorward_http_request_duration_seconds",
                    &["route", "method"],
                ),
                "How long requests took until their answer was ready.",
                &REQUEST_SECONDS,
            ),
            in_flight: make.level(
                "doorward_http_requests_in_flight",
                "Requests that are being answered.",
            ),
        }
    }
}

impl DatabaseGauges {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            up: make.gauge(
                "doorward_database_up",
                "1 if the database answered when it was last asked, every metrics.every.",
            ),
            observed_at: make.gauge(
                "doorward_database_observed_timestamp_seconds",
                "When the database last told what only it knows, in seconds since the Unix epoch.",
            ),
            clock_offset: make.gauge(
                "doorward_clock_offset_seconds",
                "How far the database's clock is ahead of this node's.",
            ),
            live_sessions: make.gauge(
                "doorward_sessions_live",
                "Sessions that are open and have not expired, in the whole database.",
            ),
            waiting_letters: make.gauge(
                "doorward_outbox_waiting_letters",
                "Letters that wait to be sent, in the whole database.",
            ),
            oldest_letter: make.gauge(
                "doorward_outbox_oldest_letter_age_seconds",
                "How long the oldest letter that waits has waited; 0 if there is none.",
            ),
            unsealed_records: make.gauge(
                "doorward_audit_unsealed_records",
                "Audit records that are not sealed yet, in the whole database.",
            ),
        }
    }
}

impl Pools {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            connections: make.gauges(
                "doorward_pool_connections",
                "Connections to the database, by pool and whether somebody uses them.",
                &["pool", "state"],
            ),
            most: make.gauges(
                "doorward_pool_connections_max",
                "Most connections that a pool can have.",
                &["pool"],
            ),
            waits: make.counters(
                "doorward_pool_waits_total",
                "How often somebody had to wait for a connection.",
                &["pool"],
            ),
            timeouts: make.counters(
                "doorward_pool_timeouts_total",
                "How often somebody waited for a connection in vain.",
                &["pool"],
            ),
            wait_seconds: make.float_counters(
                "doorward_pool_wait_seconds_total",
                "How long all who waited for a connection waited together.",
                &["pool"],
            ),
        }
    }

    /// Notes how one is used now.
    pub(super) fn note(&self, pool: &PoolUse) {
        let name = [pool.name];
        let [in_use, idle] =
            ["in_use", "idle"].map(|state| self.connections.with_label_values(&[pool.name, state]));
        in_use.set(pool.in_use.into());
        idle.set(pool.idle.into());
        self.most.with_label_values(&name).set(pool.most.into());
        raise(&self.waits.with_label_values(&name), pool.waits);
        raise(&self.timeouts.with_label_values(&name), pool.timeouts);
        let waited = self.wait_seconds.with_label_values(&name);
        waited.inc_by((pool.waited.as_secs_f64() - waited.get()).max(0.0));
    }
}

impl CircuitMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            open: make.gauge(
                "doorward_circuit_open",
                "1 while calls of the database are refused at once because it is away.",
            ),
            opened: make
                .counter(
                    "doorward_circuit_opened_total",
                    "How often the database was found to be away.",
                )
                .0,
            rejected: make
                .counter(
                    "doorward_circuit_rejected_total",
                    "Calls of the database that were refused at once because it was away.",
                )
                .0,
        }
    }

    /// Notes how it is now.
    pub(super) fn note(&self, circuit: CircuitUse) {
        self.open.set(f64::from(u8::from(circuit.is_open)));
        raise(&self.opened, circuit.opened);
        raise(&self.rejected, circuit.rejected);
    }
}

/// Makes a counter show what somebody else has counted.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

impl CanaryMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let canary = Self {
            visible: make.distributions(
                ("doorward_revocation_visible_seconds", &["peer"]),
                "From the acknowledgement of a revocation to the first answer of a node that refused the session.",
                &VISIBLE_SECONDS,
            ),
            accepted: make.counters(
                "doorward_revocation_canary_accepted_total",
                "Requests that a node accepted although they started after the revocation was acknowledged; must stay 0.",
                &["peer"],
            ),
            failures: make.counters(
                "doorward_revocation_canary_failures_total",
                "Rounds of the canary that could not be finished, by node and reason.",
                &["peer", "reason"],
            ),
        };
        canary.know(["self"].into_iter());
        canary
    }
}
