//! What metrics are made of: counters, levels and distributions that cost an atomic or two to move.
//!
//! Decides that a label is a `&'static str` or comes from the configuration or the router, so that nothing a
//! client sends can become one. What is measured is said in [`super`].

use std::time::Duration;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, core::Collector,
};

/// Makes metrics and makes them known.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    fn known<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("names and labels are constants of the right form");
        let registered = self.0.register(Box::new(made.clone()));
        registered.expect("each name is registered once for each registry");
        made
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Counter {
        Counter(self.known(IntCounter::new(name, help)))
    }

    /// Counters that differ in one label; those of `values` are there from the beginning.
    pub(super) fn family(
        &self,
        (name, label): (&str, &str),
        help: &str,
        values: &[&'static str],
    ) -> Family {
        let family = Family::new((name, label), help, values);
        self.include(&family);
        family
    }

    /// Makes counters known that were made elsewhere.
    pub(super) fn include(&self, family: &Family) {
        self.known(Ok(family.0.clone()));
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.known(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.known(CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn level(&self, name: &str, help: &str) -> Level {
        Level(self.known(IntGauge::new(name, help)))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        Gauge(self.known(prometheus::Gauge::new(name, help)))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::GaugeVec {
        self.known(prometheus::GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn distribution(&self, name: &str, help: &str, buckets: &[f64]) -> Distribution {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Distribution(self.known(Histogram::with_opts(options)))
    }

    pub(super) fn distributions(
        &self,
        (name, labels): (&str, &[&str]),
        help: &str,
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.known(HistogramVec::new(options, labels))
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(pub(super) IntCounter);

impl Counter {
    /// Adds one.
    pub fn bump(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counters that differ in one label, whose values the program fixes.
#[derive(Debug, Clone)]
pub struct Family(IntCounterVec);

impl Family {
    /// Counters that nobody is shown yet; those of `values` are there from the beginning.
    pub(super) fn new((name, label): (&str, &str), help: &str, values: &[&'static str]) -> Self {
        let made = IntCounterVec::new(Opts::new(name, help), &[label]);
        let made = made.expect("names and labels are constants of the right form");
        for value in values {
            made.with_label_values(&[value]);
        }
        Self(made)
    }

    /// Adds one to the counter of this value.
    pub fn bump(&self, value: &'static str) {
        self.0.with_label_values(&[value]).inc();
    }

    /// The counter of this value, for whoever bumps it often.
    #[must_use]
    pub fn of(&self, value: &'static str) -> Counter {
        Counter(self.0.with_label_values(&[value]))
    }

    /// The count of this value so far.
    #[must_use]
    pub fn get(&self, value: &'static str) -> u64 {
        self.0.with_label_values(&[value]).get()
    }
}

/// A whole number that rises and falls.
#[derive(Debug, Clone)]
pub struct Level(IntGauge);

impl Level {
    /// One more, until what is answered is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.0.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// One of a [`Level`].
#[derive(Debug)]
pub struct Held(IntGauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What was last read of something.
#[derive(Debug, Clone)]
pub struct Gauge(prometheus::Gauge);

impl Gauge {
    /// Notes what was read, in base units.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// What was read last; 0 before.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// How often which values occur.
#[derive(Debug, Clone)]
pub struct Distribution(pub(super) Histogram);

impl Distribution {
    /// Notes how long something took.
    pub fn took(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }

    /// Notes how many there were.
    pub fn had(&self, n: usize) {
        self.0
            .observe(f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
    }

    /// How many values were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}
