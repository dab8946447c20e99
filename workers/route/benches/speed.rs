//! What looking a path up and routing an item cost, beside a plain baseline of the same run; and, where an endpoint is
//! named (`--endpoint URL --from BUCKET --to BUCKET`), how long copying what is in a bucket takes: `make bench`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_events::validated::{ItemValidated, ObjectAccepted};
use landfall_events::{Cause, Change, Document, Envelope, ObjectRef, Validated};
use landfall_route::{BucketMap, Route};
use landfall_shared::config::{Config, Landings};
use landfall_shared::memory::MemoryObjects;
use landfall_shared::objects::Objects;
use landfall_shared::{Outcome, Stage};

const PASSES: usize = 7;
const RULES: usize = 10_000;
const ITEMS: usize = 2_000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| arguments.iter().position(|other| other == name).and_then(|at| arguments.get(at + 1));
    if let (Some(endpoint), Some(from), Some(to)) = (argument("--endpoint"), argument("--from"), argument("--to")) {
        return copy(endpoint, from, to).await;
    }
    look_up();
    route().await;
}

/// The median of some passes.
fn median(mut pass: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..PASSES).map(|_| pass()).collect();
    times.sort();
    times[PASSES / 2]
}

/// The compiled map beside a loop over its rules, for rules of which one in twenty is a glob.
fn look_up() {
    let prefix = |number: usize| match number % 20 {
        0 => format!("mission-{number}/*/browse/*.png"),
        _ => format!("mission-{number}/level-{}/", number % 7),
    };
    let rules: String = (0..RULES)
        .map(|number| format!("        - {{prefix: '{}', bucket: {{name: bucket-{number}}}}}\n", prefix(number)))
        .collect();
    let yaml =
        format!("BUCKET_MAP:\n  NODES:\n    SBN:\n      default: {{bucket: {{name: rest}}}}\n      paths:\n{rules}");
    let start = Instant::now();
    let map = BucketMap::parse(&yaml, &[]).unwrap();
    let compiled = start.elapsed();

    let globs = (0..RULES).map(|number| {
        let pattern = prefix(number);
        let regex = regex::escape(&pattern).replace(r"\*", ".*");
        (pattern.contains('*').then(|| regex::Regex::new(&format!("^{regex}$")).unwrap()), pattern)
    });
    let plain: Vec<_> = globs.collect();
    let in_a_loop = |path: &str| {
        let hits = |(glob, prefix): &(Option<regex::Regex>, String)| {
            path.starts_with(prefix.as_str()) || glob.as_ref().is_some_and(|glob| glob.is_match(path))
        };
        plain.iter().position(hits)
    };
    let paths: Vec<String> = (0..1_000)
        .map(|number| match number * 37 % RULES {
            at if number % 10 == 9 => format!("nowhere-{at}/x"),
            at if at % 20 == 0 => format!("mission-{at}/x/browse/y/z.png"),
            at => format!("mission-{at}/level-{}/{number}.fits", at % 7),
        })
        .collect();
    for path in &paths {
        let expected = in_a_loop(path).map_or_else(|| "rest".to_owned(), |rule| format!("bucket-{rule}"));
        assert_eq!(map.target("sbn", path, None).unwrap().bucket, expected, "{path}");
    }
    let ours = median(|| timed(|| paths.iter().for_each(|path| drop(black_box(map.target("sbn", path, None))))));
    let baseline = median(|| {
        timed(|| paths.iter().for_each(|path| assert!(black_box(in_a_loop(path)).is_none_or(|rule| rule < RULES))))
    });
    let rate = |time: Duration| paths.len() as f64 / time.as_secs_f64();
    println!(
        "look-up, {RULES} rules: {:.0}/s compiled, {:.0}/s in a loop over the rules: {:.0} times (compiled in {} ms)",
        rate(ours),
        rate(baseline),
        baseline.as_secs_f64() / ours.as_secs_f64(),
        compiled.as_millis()
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Route's own work for an item with three assets, on ports in memory, beside reading and writing its JSON.
async fn route() {
    let text = |number: usize| {
        let asset = |name: &str| {
            (name.to_owned(), serde_json::json!({"href": format!("data/{number}/{name}.tif"), "roles": ["data"]}))
        };
        serde_json::json!({"type": "Feature", "stac_version": "1.0.0", "id": format!("i{number}"), "collection": "C",
            "geometry": {"type": "Polygon", "coordinates": [(0..40).map(|at| [f64::from(at) * 0.1, 47.9]).collect::<Vec<_>>()]},
            "properties": {"datetime": "2024-05-17T10:15:00Z", "title": "an item to be routed"},
            "links": [{"rel": "collection", "href": "../collection.json"}],
            "assets": serde_json::Map::from_iter(["red", "green", "blue"].map(asset))})
        .to_string()
    };
    let mut times = Vec::new();
    for _ in 0..PASSES {
        let objects = MemoryObjects::new(Arc::default());
        let map = ObjectRef::new("work", "map.yaml");
        objects.land(&map, "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}}}}}");
        let mut events = Vec::new();
        for number in 0..ITEMS {
            for name in ["red", "green", "blue"] {
                objects.land(&ObjectRef::new("landing", format!("sbn/C/data/{number}/{name}.tif")), name);
            }
            let document = text(number);
            let key = format!("sbn/C/metadata/items/i{number}.json");
            let cause = objects.land(&ObjectRef::new("landing", key), document.clone());
            let document = Document::Inline(serde_json::value::RawValue::from_string(document).unwrap());
            let (collection, item) = ("C".into(), format!("i{number}"));
            let validated = ItemValidated { cause, collection, item, document, warnings: vec![] };
            events.push(Envelope::new(Validated::from(validated), "sbn", 0));
        }
        let stage = stage(Arc::new(objects), &map.to_string());
        let start = Instant::now();
        for batch in events.chunks(100) {
            for outcome in stage.handle(batch, jiff::Timestamp::UNIX_EPOCH).await {
                assert!(matches!(outcome, Ok(Outcome::Done(done)) if done.next.len() == 1));
            }
        }
        times.push(start.elapsed());
    }
    times.sort();
    let ours = times[PASSES / 2];
    let baseline = median(|| {
        let texts: Vec<_> = (0..ITEMS).map(text).collect();
        timed(|| {
            for text in &texts {
                let value: serde_json::Value = serde_json::from_str(text).unwrap();
                drop(black_box(serde_json::to_string(&value)));
            }
        })
    });
    println!(
        "item with three assets: {:.0} µs of route's own, ports in memory; {:.1} times reading and writing its JSON",
        ours.as_secs_f64() * 1e6 / ITEMS as f64,
        ours.as_secs_f64() / baseline.as_secs_f64()
    );
}

fn stage(objects: Arc<dyn Objects>, map: &str) -> Route {
    stage_with(objects, map, "landing", &Config::default())
}

fn stage_with(objects: Arc<dyn Objects>, map: &str, landing: &str, config: &Config) -> Route {
    Route::with(objects, Landings::new(config, landing).unwrap(), config, map, "landfall-work").unwrap()
}

/// Routes everything that lies in a bucket to another, as events tell of it, and prints the seconds.
async fn copy(endpoint: &str, from: &str, to: &str) {
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .http_client(landfall_shared::aws::http_client())
        .endpoint_url(endpoint)
        .load()
        .await;
    let s3 = landfall_shared::aws::s3(&sdk);
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map.yaml");
    std::fs::write(&map, format!("BUCKET_MAP: {{NODES: {{SBN: {{default: {{bucket: {{name: {to}}}}}}}}}}}")).unwrap();
    let config = Config::parse("[route.copy]\nthreshold_mib = 16\npart_mib = 16\n").unwrap();
    let objects = landfall_shared::aws::S3Objects::new(s3.clone());
    let stage = stage_with(Arc::new(objects), map.to_str().unwrap(), from, &config);

    let mut events = Vec::new();
    let mut pages = s3.list_objects_v2().bucket(from).into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page.unwrap().contents() {
            let cause = Cause {
                object: ObjectRef::new(from, object.key().unwrap()),
                change: Change::Created,
                version_id: None,
                etag: object.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
                size: object.size().and_then(|size| u64::try_from(size).ok()),
                sequencer: None,
                event_time: jiff::Timestamp::now(),
                member: None,
                members: None,
            };
            events.push(Envelope::new(Validated::from(ObjectAccepted { cause }), "sbn", 0));
        }
    }
    let start = Instant::now();
    for batch in events.chunks(100) {
        for outcome in stage.handle(batch, jiff::Timestamp::now()).await {
            assert!(matches!(outcome, Ok(Outcome::Done(done)) if done.reports.len() == 1));
        }
    }
    println!("{:.3}", start.elapsed().as_secs_f64());
}
