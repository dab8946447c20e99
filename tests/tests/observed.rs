//! What those see who watch a running Landfall: metrics by Prometheus, health files, traces in a collector.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use landfall_shared::metrics;
use landfall_tests::collector::{Collector, attribute};
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real, tools};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

const STAGES: [&str; 4] = ["validate", "route", "load", "notify"];

/// Most to the stack's archive, some to others.
const MAP: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      default: {bucket: {name: landfall-archive}}
      paths:
        - {prefix: C/metadata/items/i01, bucket: {name: archive-two}}
        - {prefix: C/metadata/items/i02, bucket: {name: archive-three}}
";

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

/// Puts the collection and then the rest: what waits for its collection is released in the collection's trace.
async fn put(real: &Real, folder: &Path) {
    let file = folder.join("sbn/C/metadata/collection.json");
    real.run(&["put", file.to_str().unwrap(), "--prefix", "sbn/C/metadata"]).await.unwrap();
    real.settled_as(&json!({"completed": 1}), 60).await.unwrap();
    std::fs::remove_file(file).unwrap();
    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();
}

/// The steps that led to an item's notice, from the first, once notify's is there.
async fn steps_of(collector: &Collector, key: &str) -> Vec<(String, Span)> {
    for _ in 0..300 {
        let spans = collector.spans();
        let of_item = |span: &Span| span.name == "notify" && attribute(span, "object.key") == Some(key);
        let mut steps: Vec<_> = spans.iter().find(|(_, span)| of_item(span)).cloned().into_iter().collect();
        while let Some((_, first)) = steps.first() {
            if first.parent_span_id.is_empty() {
                return steps;
            }
            let is_parent = |span: &Span| span.trace_id == first.trace_id && span.span_id == first.parent_span_id;
            // It is not sent yet.
            let Some(parent) = spans.iter().find(|(_, span)| is_parent(span)) else { break };
            steps.insert(0, parent.clone());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no trace of {key} was sent");
}

/// They are all stages in their order; one that was tried again stands there again.
#[track_caller]
fn check_chain(steps: &[(String, Span)], key: &str) {
    let mut stages: Vec<&str> = steps.iter().map(|(_, span)| span.name.as_str()).collect();
    stages.dedup();
    assert_eq!(stages, STAGES, "{steps:?}");
    for (service, span) in steps {
        assert_eq!(*service, format!("landfall-{}", span.name));
        assert_eq!(attribute(span, "object.key"), Some(key));
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    assert!(steps.is_sorted_by_key(|(_, span)| span.start_time_unix_nano), "{steps:?}");
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

/// Runs a command of docs/operating.md, which must succeed.
async fn documented(mut command: tokio::process::Command) -> String {
    let output = command.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

#[tokio::test]
async fn deployed_as_documented_a_thousand_objects_pass_and_the_trace_of_one_through_all_stages() {
    let collector = Collector::start().await.unwrap();
    let real = Real::start_with(Form::Deployed, &collector.endpoint).await.unwrap();
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra");
    let work = real.deployment.output("WorkBucket").unwrap();
    let to = format!("s3://{work}/config/landfall.toml");
    // Files land in a bucket outside of the stack too, and some go to others.
    let config = real.scratch("landfall.toml");
    let second = "[[landing]]\nbucket = \"landing-two\"\nprovider = \"sbn\"\n";
    std::fs::write(&config, std::fs::read_to_string(infra.join("landfall.toml")).unwrap() + second).unwrap();
    documented(real.aws(&["s3", "cp", config.to_str().unwrap(), &to])).await;
    let map = real.scratch("bucket-map.yaml");
    std::fs::write(&map, MAP).unwrap();
    let set = ["map", "set", map.to_str().unwrap()];
    let refused = real.landfall_of_stack(&set).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(said.matches("map.bucket-missing: archive-").count(), 2, "{said}");
    for bucket in ["landing-two", "archive-two", "archive-three"] {
        documented(real.aws(&["s3", "mb", &format!("s3://{bucket}")])).await;
    }
    let told = json!({"QueueConfigurations": [{"QueueArn": "arn:aws:sqs:us-east-1:000000000000:landfall-validate",
        "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]});
    let notify = ["s3api", "put-bucket-notification-configuration", "--bucket", "landing-two"];
    documented(real.aws(&[&notify[..], &["--notification-configuration", &told.to_string()]].concat())).await;
    documented(real.landfall_of_stack(&set)).await;
    let doctor = documented(real.landfall_of_stack(&["doctor"])).await;
    assert!(doctor.contains(" 0 failed, "), "{doctor}");
    let folder = real.scratch("dataset");
    dataset(&folder, 999);

    put(&real, &folder).await;
    real.settled_as(&json!({"completed": 1000}), 300).await.unwrap();

    let status = documented(real.landfall_of_stack(&["status", "--delivery", "sbn/", "--wait"])).await;
    assert_eq!(status, "sbn/: 1000 completed\n");
    assert_eq!(real.notices(1000).await.unwrap().len(), 1000);
    for (archive, count) in [("landfall-archive", 800), ("archive-two", 100), ("archive-three", 100)] {
        let list = documented(real.aws(&["s3", "ls", "--recursive", &format!("s3://{archive}")])).await;
        assert_eq!(list.lines().count(), count, "{archive}");
    }
    let file = real.scratch("i1000.json");
    let first = std::fs::read_to_string(folder.join("sbn/C/metadata/items/i0000.json")).unwrap();
    std::fs::write(&file, first.replace("i0000", "i1000")).unwrap();
    documented(real.aws(&["s3", "cp", file.to_str().unwrap(), "s3://landing-two/C/metadata/items/i1000.json"])).await;
    assert_eq!(real.notices(1001).await.unwrap().len(), 1001);
    let key = "sbn/C/metadata/items/i0500.json";
    let steps = steps_of(&collector, key).await;
    check_chain(&steps, key);
    check_batches(&collector, &steps);
}

#[tokio::test]
async fn pollers_are_scraped_say_that_they_live_and_trace_too() {
    let collector = Collector::start().await.unwrap();
    let mut real = Real::start_with(Form::Pollers, &collector.endpoint).await.unwrap();
    let folder = real.scratch("dataset");
    dataset(&folder, 20);
    std::fs::write(folder.join("sbn/C/metadata/items/broken.json"), "{").unwrap();
    put(&real, &folder).await;
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
    let (route, none) = (real.scrape("route").await.unwrap(), r#"{stage="route",file="bucket map"} 0"#);
    assert!(has(&route, &format!("landfall_file_versions_refused_total{none}")), "{route}");

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

    let key = "sbn/C/metadata/items/i0007.json";
    let steps = steps_of(&collector, key).await;
    check_chain(&steps, key);
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
