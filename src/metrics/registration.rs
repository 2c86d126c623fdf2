//! Creates and registers metrics.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::AcceptErrors;

/// The version in `sluice_build_info`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes metrics under `sluice_` and registers them.
pub(super) struct Registration<'r>(pub(super) &'r Registry);

impl Registration<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> prometheus::Result<IntCounterVec> {
        self.counters_by(name, help, &[label])
    }

    pub(super) fn counters_by(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    pub(super) fn fraction(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(opts(name, help))?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(name, help), &[label])?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    pub(super) fn accept_errors(&self) -> prometheus::Result<AcceptErrors> {
        let opts = opts("accept_errors_total", "Failed accepts on any port, by error.");
        let errors = self.register(IntCounterVec::new(opts, &["error"])?)?;
        Ok(AcceptErrors {
            emfile: errors.with_label_values(&["emfile"]),
            enfile: errors.with_label_values(&["enfile"]),
            client: errors.with_label_values(&["client"]),
            other: errors.with_label_values(&["other"]),
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("sluice")
}

pub(super) fn register_build_info(registry: &Registry) -> prometheus::Result<()> {
    let opts = opts("build_info", "Always 1; the label has the version that is running.");
    let info = Registration(registry).register(IntGaugeVec::new(opts, &["version"])?)?;
    info.with_label_values(&[VERSION]).set(1);
    Ok(())
}
