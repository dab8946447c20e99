//! Four thousand dead letters on a real queue: what an operator sees of them, and does about some.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use landfall_events::letter::Letter;
use landfall_events::{Change, Envelope, EventId, Landed, codes};
use landfall_shared::queue::{Outgoing, Queue};
use landfall_tests::load_world::cause;
use landfall_tests::real_world::{Form, Real};
use serde_json::Value;

const LETTERS: usize = 4_000;
const PROVIDERS: [&str; 4] = ["esa", "img", "sbn", "usgs"];

/// The stage and the code of a letter.
fn problem(number: usize) -> (&'static str, codes::Code) {
    match number % 3 {
        0 => ("validate", codes::STAC_SCHEMA),
        1 => ("route", codes::ROUTE_UNMAPPED),
        _ => ("load", codes::LOAD_GEOMETRY),
    }
}

fn letter(number: usize) -> Outgoing {
    let (stage, code) = problem(number);
    let provider = PROVIDERS[number / 3 % PROVIDERS.len()];
    let key = format!("{provider}/metadata/items/{number}.json");
    let cause = cause(&key, Change::Created, i64::try_from(number).unwrap() + 1);
    let object = cause.object.to_string();
    let envelope = Envelope::new(Landed { cause }, provider, 0);
    let letter = Letter {
        stage: stage.into(),
        code,
        reason: "as it is".into(),
        event: Some(EventId(format!("{number:032x}"))),
        object: Some(object),
        provider: provider.into(),
        attempts: 1,
        time: Some("2024-05-17T10:15:00Z".parse().unwrap()),
        redrive: 0,
        traceparent: None,
    };
    let attributes = letter.attributes();
    Outgoing { body: envelope.to_json(), attributes, group: provider.into(), delay: Duration::ZERO }
}

/// How many letters there are of each code and provider.
async fn listed(real: &Real) -> BTreeMap<(String, String), u64> {
    let output = real.run(&["dlq", "ls", "--format", "json"]).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "there are letters");
    let groups: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |group: &Value, name: &str| group[name].as_str().unwrap().to_owned();
    let count = |group: &Value| ((text(group, "code"), text(group, "provider")), group["letters"].as_u64().unwrap());
    groups.iter().map(count).collect()
}

/// The keys of what is in a queue.
async fn bodies(queue: &dyn Queue) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    loop {
        let some = queue.receive(10, Duration::from_secs(300), Duration::ZERO).await.unwrap();
        if some.is_empty() {
            return bodies;
        }
        bodies.extend(some.into_iter().map(|delivery| delivery.body));
    }
}

#[tokio::test]
async fn four_thousand_letters_are_twelve_groups_and_one_of_them_is_redriven() {
    let mut real = Real::start(Form::Pollers).await.unwrap();
    real.kill_workers().await.unwrap();
    let connected = real.connected().await.unwrap();
    let queue = |url: &str| connected.queue(url);
    let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut by_stage: BTreeMap<&str, Vec<Outgoing>> = BTreeMap::new();
    for number in 0..LETTERS {
        let (stage, code) = problem(number);
        let outgoing = letter(number);
        *expected.entry((code.to_string(), outgoing.attributes["provider"].clone())).or_default() += 1;
        by_stage.entry(stage).or_default().push(outgoing);
    }
    let mut redriven = BTreeSet::new();
    for (stage, letters) in by_stage {
        let meant = letters.iter().filter(|one| stage == "route" && one.attributes["provider"] == "sbn");
        redriven.extend(meant.map(|one| one.body.clone()));
        for sent in queue(connected.deployment.dead_queue_url(stage).unwrap()).send(letters).await {
            sent.unwrap();
        }
    }

    assert_eq!(listed(&real).await, expected);
    assert_eq!(listed(&real).await, expected, "the first listing gives all back");

    let which = ["dlq", "redrive", "--code", "route.unmapped", "--provider", "sbn"];
    let mut first = real.landfall(&which).args(["--rate", "100"]).spawn().unwrap();
    let route = queue(connected.deployment.queue_url("route").unwrap());
    let mut after_first = BTreeSet::new();
    while after_first.is_empty() {
        assert!(first.try_wait().unwrap().is_none(), "it was done before it could be killed");
        after_first = bodies(&*route).await;
    }
    first.kill().await.unwrap();
    after_first.extend(bodies(&*route).await);
    assert!(!after_first.is_empty() && after_first.len() < redriven.len(), "{}", after_first.len());
    // What the killed one held is visible again after its time.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let output = real.run(&[&which[..], &["--format", "json"]].concat()).await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed"], 0, "{report}");

    // Each at least once, and what came twice is the same event.
    let all: BTreeSet<String> = after_first.union(&bodies(&*route).await).cloned().collect();
    assert_eq!(all, redriven);
    expected.remove(&("route.unmapped".to_owned(), "sbn".to_owned()));
    assert_eq!(listed(&real).await, expected);

    let dropped = real.run(&["dlq", "drop", "--provider", "img", "--format", "json"]).await.unwrap();
    let report: Value = serde_json::from_slice(&dropped.stdout).unwrap();
    let of_img: u64 = expected.iter().filter(|((_, provider), _)| provider == "img").map(|(_, count)| count).sum();
    assert_eq!(report["dropped"], of_img, "{report}");
    expected.retain(|(_, provider), _| provider != "img");
    assert_eq!(listed(&real).await, expected);
    // Without a selection nothing is touched.
    let output = real.landfall(&["dlq", "drop"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}
