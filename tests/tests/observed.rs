//! What those see who watch a running Landfall: metrics by Prometheus, health files, traces in a collector.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use landfall_shared::metrics;
use landfall_tests::collector::{Collector, attribute};
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real, tools};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

const STAGES: [&str; 4] = ["validate", "route", "load", "notify"];

/// Items without assets, and the collection.
fn dataset(folder: &Path, items: usize) {
    let root = folder.join("sbn/C/metadata");
    std::fs::create_dir_all(root.join("items")).unwrap();
    std::fs::write(root.join("collection.json"), collection("C")).unwrap();
    for number in 0..items {
        let id = format!("i{number:04}");
        let mut item: serde_json::Value = serde_json::from_str(&item(&id, "C", "t")).unwrap();
        item["assets"] = json!({});
        std::fs::write(root.join(format!("items/{id}.json")), item.to_string()).unwrap();
    }
}

/// The steps of the trace in which an item became known, once notify's is there.
async fn trace_of(collector: &Collector, key: &str) -> Vec<(String, Span)> {
    for _ in 0..300 {
        let spans = collector.spans();
        let of_item = |span: &Span| attribute(span, "object.key") == Some(key);
        let notified = spans.iter().find(|(service, span)| service == "landfall-notify" && of_item(span));
        if let Some((_, notified)) = notified {
            let id = notified.trace_id.clone();
            let steps: Vec<_> = spans.iter().filter(|(_, span)| span.trace_id == id).cloned().collect();
            if steps.len() >= STAGES.len() {
                return steps;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no trace of {key} was sent");
}

/// Each step is the child of the one before it, and the first has none.
#[track_caller]
fn check_chain(steps: &[(String, Span)]) {
    let of_stage: BTreeMap<&str, &Span> = steps.iter().map(|(_, span)| (span.name.as_str(), span)).collect();
    assert_eq!(of_stage.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(STAGES), "{steps:?}");
    assert!(of_stage["validate"].parent_span_id.is_empty());
    for [before, after] in [["validate", "route"], ["route", "load"], ["load", "notify"]] {
        assert_eq!(of_stage[after].parent_span_id, of_stage[before].span_id, "{after} follows on {before}");
        assert!(of_stage[after].start_time_unix_nano >= of_stage[before].start_time_unix_nano);
    }
    for (service, span) in steps {
        assert_eq!(*service, format!("landfall-{}", span.name));
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
}

/// Every batch names the steps of its events.
#[track_caller]
fn check_batches(collector: &Collector, steps: &[(String, Span)]) {
    let spans = collector.spans();
    for (_, step) in steps {
        let of_step = |span: &&Span| span.links.iter().any(|link| link.span_id == step.span_id);
        let batches: Vec<_> = spans.iter().map(|(_, span)| span).filter(of_step).collect();
        assert!(batches.iter().any(|batch| batch.name == format!("{} batch", step.name)), "{step:?} {batches:?}");
    }
}

#[tokio::test]
async fn a_thousand_objects_pass_through_the_functions_and_the_trace_of_one_through_all_stages() {
    let collector = Collector::start().await.unwrap();
    let real = Real::start_with(Form::Lambdas, &collector.endpoint).await.unwrap();
    let folder = real.scratch("dataset");
    dataset(&folder, 999);

    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();
    real.settled_as(&json!({"completed": 1000}), 300).await.unwrap();

    assert_eq!(real.notices(1000).await.unwrap().len(), 1000);
    let steps = trace_of(&collector, "sbn/C/metadata/items/i0500.json").await;
    check_chain(&steps);
    check_batches(&collector, &steps);
}

#[tokio::test]
async fn pollers_are_scraped_say_that_they_live_and_trace_too() {
    let collector = Collector::start().await.unwrap();
    let mut real = Real::start_with(Form::Pollers, &collector.endpoint).await.unwrap();
    let folder = real.scratch("dataset");
    dataset(&folder, 20);
    std::fs::write(folder.join("sbn/C/metadata/items/broken.json"), "{").unwrap();
    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();
    real.settled_as(&json!({"completed": 21, "refused": 1}), 60).await.unwrap();

    let known: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    for stage in STAGES {
        let text = real.scrape(stage).await.unwrap();
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let families: BTreeSet<&str> = families.collect();
        assert!(families.is_subset(&known) && families.len() >= 10, "{stage}: {families:?}");
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for sample in samples {
            assert!(sample.contains(&format!("stage=\"{stage}\"")), "{sample}");
        }
        promtool(&text);
        let health = std::fs::read_to_string(real.state().join(format!("{stage}.health"))).unwrap();
        assert_eq!(health, format!(r#"{{"stage":"{stage}","dependency_up":true}}"#));
    }
    let validate = real.scrape("validate").await.unwrap();
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    for line in [
        r#"landfall_events_received_total{stage="validate"} 22"#,
        r#"landfall_events_done_total{stage="validate"} 21"#,
        r#"landfall_events_refused_total{stage="validate",code="stac.unparseable"} 1"#,
        r#"landfall_events_in_flight{stage="validate"} 0"#,
        r#"landfall_dependency_up{stage="validate"} 1"#,
    ] {
        assert!(has(&validate, line), "{line}\n{validate}");
    }

    // While the database is down, those that need it say so, and live.
    real.stop_postgres().await;
    let down = r#"landfall_dependency_up{stage="load"} 0"#;
    for attempt in 0.. {
        if has(&real.scrape("load").await.unwrap(), down) {
            break;
        }
        assert!(attempt < 60, "an outage is not told");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(has(&real.scrape("route").await.unwrap(), r#"landfall_dependency_up{stage="route"} 1"#));
    let program = landfall::local::worker("load").unwrap();
    let healthy = async |file: &Path| {
        let mut command = tokio::process::Command::new(&program);
        command.arg("healthy").env("LANDFALL_HEALTH_FILE", file).output().await.unwrap()
    };
    let told = healthy(&real.state().join("load.health")).await;
    assert_eq!(String::from_utf8_lossy(&told.stdout), "load lives; what it depends on does not answer\n");
    assert!(told.status.success());
    assert!(!healthy(&real.state().join("nothing.health")).await.status.success());

    let steps = trace_of(&collector, "sbn/C/metadata/items/i0007.json").await;
    check_chain(&steps);
    check_batches(&collector, &steps);
}

/// Lets Prometheus' own tool look at what was scraped.
fn promtool(text: &str) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let program = tools().join("promtool");
    let mut command = Command::new(&program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}; run `make setup`", program.display()));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
