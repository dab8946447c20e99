//! What is counted and measured, under one set of names: for Prometheus where a worker polls, as CloudWatch's embedded
//! metric format in the log where it is a function.
//!
//! The stage is a label of each. No label has values that a provider chooses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use landfall_events::codes::{self, Code};
use metrics::{Unit, counter, gauge, histogram};
use metrics_cloudwatch_embedded::Collector;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing::info;

/// How a metric is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// It is how often values were how large.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, for Prometheus and for CloudWatch.
    pub name: &'static str,
    /// How it is measured.
    pub kind: Kind,
    /// Its label beside the stage.
    pub label: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, label: Option<&'static str>, help: &'static str) -> Metric {
    Metric { name, kind, label, help }
}

const RECEIVED: &str = "landfall_events_received_total";
const DONE: &str = "landfall_events_done_total";
const REFUSED: &str = "landfall_events_refused_total";
const RETRIED: &str = "landfall_events_retried_total";
const PARKED: &str = "landfall_events_parked_total";
const SUPERSEDED: &str = "landfall_events_superseded_total";
const IN_FLIGHT: &str = "landfall_events_in_flight";
const AGE: &str = "landfall_oldest_event_age_seconds";
const DURATION: &str = "landfall_batch_duration_seconds";
const BATCH: &str = "landfall_batch_events";
const UP: &str = "landfall_dependency_up";
pub(crate) const FILE_REFUSED: &str = "landfall_file_versions_refused_total";

/// All of them.
pub const ALL: [Metric; 12] = [
    metric(RECEIVED, Kind::Counter, None, "Events that were received, repetitions included"),
    metric(DONE, Kind::Counter, None, "Events that a stage was done with and that were not refused as a whole"),
    metric(REFUSED, Kind::Counter, Some("code"), "Refusals: each has a dead letter"),
    metric(RETRIED, Kind::Counter, None, "Events that come again because of a failure that may pass"),
    metric(PARKED, Kind::Counter, None, "Events that began or went on to wait for what has not landed"),
    metric(SUPERSEDED, Kind::Counter, None, "Events that something newer had overtaken"),
    metric(IN_FLIGHT, Kind::Gauge, None, "Events that are being handled"),
    metric(AGE, Kind::Histogram, None, "Time from the landing of a batch's oldest event to its start"),
    metric(DURATION, Kind::Histogram, None, "Time that a batch took, with what was sent on"),
    metric(BATCH, Kind::Histogram, None, "Events of a batch"),
    metric(UP, Kind::Gauge, None, "Whether what the stage depends on answers: 1 or 0"),
    metric(FILE_REFUSED, Kind::Counter, Some("file"), "New versions of a bundle or bucket map that could not be used"),
];

/// Where metrics go.
#[derive(Clone, Copy)]
pub(crate) enum Metrics {
    /// Nowhere, or to who scrapes them.
    Scraped,
    /// Into the log, at the end of each invocation.
    Logged(&'static Collector),
}

impl Metrics {
    /// Serves them to Prometheus at this address, under any path, where one is given. Within a Tokio runtime.
    ///
    /// # Errors
    /// Where nothing can listen there.
    pub(crate) fn scraped(stage: &'static str, listen: Option<SocketAddr>) -> anyhow::Result<Self> {
        if let Some(address) = listen {
            let seconds = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3600.0, 86_400.0];
            let events = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0];
            PrometheusBuilder::new()
                .with_http_listener(address)
                .add_global_label("stage", stage)
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
                .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(BATCH.into()), &events))
                .and_then(PrometheusBuilder::install)
                .with_context(|| format!("metrics cannot be served at {address}"))?;
            info!(stage, %address, "metrics can be scraped");
        }
        begin();
        Ok(Self::Scraped)
    }

    /// Writes them into the log.
    ///
    /// # Errors
    /// Where others are measured already.
    pub(crate) fn logged(stage: &'static str) -> anyhow::Result<Self> {
        let builder = metrics_cloudwatch_embedded::Builder::new().cloudwatch_namespace("Landfall");
        let collector = builder.with_dimension("stage", stage).init().map_err(|error| anyhow::anyhow!("{error}"))?;
        begin();
        Ok(Self::Logged(collector))
    }

    /// Writes what was measured since the last time, where it goes into the log.
    pub(crate) fn flush(self) {
        if let Self::Logged(collector) = self
            && let Err(error) = collector.flush(std::io::stdout().lock())
        {
            tracing::warn!(reason = %error, "metrics could not be written");
        }
    }
}

/// Says what each is, and begins to count at nothing: what never happened is seen not to have happened.
fn begin() {
    for Metric { name, kind, label, help } in ALL {
        let unit = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        match kind {
            Kind::Counter => {
                metrics::describe_counter!(name, unit, help);
                if label.is_none() {
                    counter!(name).absolute(0);
                }
            }
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}

/// A batch began: so many events, the oldest of which landed so long ago.
/// They are in flight until what this gives is dropped, however the batch ends.
pub(crate) fn received(events: usize, oldest: Option<Duration>) -> InFlight {
    counter!(RECEIVED).increment(events as u64);
    gauge!(IN_FLIGHT).increment(events as f64);
    histogram!(BATCH).record(events as f64);
    if let Some(age) = oldest {
        histogram!(AGE).record(age.as_secs_f64());
    }
    InFlight { events, begun: tokio::time::Instant::now() }
}

/// A batch that is being handled.
pub(crate) struct InFlight {
    events: usize,
    begun: tokio::time::Instant,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(self.events as f64);
        histogram!(DURATION).record(self.begun.elapsed().as_secs_f64());
    }
}

/// A stage is done with an event.
pub(crate) fn done() {
    counter!(DONE).increment(1);
}

/// Something was refused. Only codes that are documented are labels.
pub(crate) fn refused(code: &Code) {
    let is_known = codes::explain(code.as_str()).is_some();
    let code = if is_known { code.to_string() } else { "other".to_owned() };
    counter!(REFUSED, "code" => code).increment(1);
}

/// An event comes again.
pub(crate) fn retried() {
    counter!(RETRIED).increment(1);
}

/// An event waits.
pub(crate) fn parked() {
    counter!(PARKED).increment(1);
}

/// Something newer has overtaken an event.
pub fn superseded() {
    counter!(SUPERSEDED).increment(1);
}

/// What the stage depends on answers, or does not.
pub(crate) fn dependency(is_up: bool) {
    gauge!(UP).set(f64::from(u8::from(is_up)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use landfall_events::codes;

    use super::*;

    /// Everything that can be told, once.
    fn tell_all() {
        begin();
        drop(received(3, Some(Duration::from_secs(2))));
        done();
        refused(&codes::STAC_SCHEMA);
        refused(&codes::Code::read("somebody's own"));
        retried();
        parked();
        superseded();
        dependency(true);
        counter!(FILE_REFUSED, "file" => "bucket map").increment(1);
    }

    #[test]
    fn prometheus_and_cloudwatch_are_told_the_same_under_the_same_names() {
        let all: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        let recorder = PrometheusBuilder::new().add_global_label("stage", "load").build_recorder();
        let scraped = recorder.handle();
        ::metrics::with_local_recorder(&recorder, tell_all);
        let scraped = scraped.render();
        let families = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        assert_eq!(families.collect::<BTreeSet<_>>(), all, "{scraped}");
        assert!(scraped.contains(r#"{stage="load",code="stac.schema"} 1"#), "{scraped}");
        assert!(scraped.contains(r#"{stage="load",code="other"} 1"#), "{scraped}");

        let Metrics::Logged(collector) = Metrics::logged("load").unwrap() else { panic!("it is logged") };
        tell_all();
        let mut written = Vec::new();
        collector.flush(&mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        let mut names = BTreeSet::new();
        for line in written.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["stage"], "load");
            let of_namespace = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(of_namespace["Namespace"], "Landfall");
            for metric in of_namespace["Metrics"].as_array().unwrap() {
                assert!(line[metric["Name"].as_str().unwrap()] != serde_json::Value::Null, "{line}");
                names.insert(metric["Name"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>(), all, "{written}");
    }

    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../docs/operating.md");
        for Metric { name, kind, label, help } in ALL {
            let label = label.map(|label| format!("`{label}`")).unwrap_or_default();
            let line = format!("| `{name}` | {} | {label} | {help} |", format!("{kind:?}").to_lowercase());
            assert!(page.lines().any(|found| found == line), "docs/operating.md lacks {line}");
        }
    }
}
