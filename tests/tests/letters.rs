//! Four thousand dead letters on a real queue: what an operator sees of them, and does about some.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use landfall_events::letter::Letter;
use landfall_events::validated::ObjectAccepted;
use landfall_events::{Change, Envelope, EventId, Landed, Validated, codes};
use landfall_shared::queue::{Outgoing, Queue};
use landfall_shared::runner::message;
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

/// Receives what is in a queue until SQS itself has given all of it up.
async fn crash_until_given_up(queue: &dyn Queue, dead: &dyn Queue, count: usize) {
    let mut moved = BTreeSet::new();
    // What the killed worker's last long poll was given comes again after its time.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while tokio::time::Instant::now() < deadline {
        queue.receive(10, Duration::ZERO, Duration::ZERO).await.unwrap();
        let found = dead.receive(10, Duration::ZERO, Duration::ZERO).await.unwrap();
        moved.extend(found.into_iter().map(|delivery| delivery.id));
        if moved.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} of {count} were given up", moved.len());
}

#[tokio::test]
async fn what_sqs_gave_up_is_announced_archived_and_redriven_like_the_rest() {
    let mut real = Real::start(Form::Pollers).await.unwrap();
    real.kill_workers().await.unwrap();
    let connected = real.connected().await.unwrap();
    let deployment = &connected.deployment;
    let queue = |stage: &str| connected.queue(deployment.queue_url(stage).unwrap());
    let (route, notify) = (queue("route"), queue("notify"));
    let dead = connected.queue(deployment.dead_queue_url("route").unwrap());
    let landing = deployment.output("LandingBucket").unwrap();
    let put = connected.s3().put_object().bucket(landing).key("sbn/0.txt").body(b"hello".to_vec().into());
    let etag = put.send().await.unwrap().e_tag().unwrap().trim_matches('"').to_owned();
    let accepted = |number: i64| {
        let mut cause = cause(&format!("sbn/{number}.txt"), Change::Created, number + 1);
        cause.object.bucket = landing.to_owned();
        cause.etag = Some(etag.clone());
        message(&Envelope::new(Validated::from(ObjectAccepted { cause }), "sbn", 0), "sbn")
    };
    let sent: Vec<Outgoing> = (0..3).map(accepted).collect();
    for sent in route.send(sent.clone()).await {
        sent.unwrap();
    }
    crash_until_given_up(&*route, &*dead, 3).await;
    let listed = async || -> Value {
        serde_json::from_slice(&real.run(&["dlq", "ls", "--format", "json"]).await.unwrap().stdout).unwrap()
    };
    assert_eq!(listed().await[0]["code"], "no reason");

    let maintained = async |arguments: &[&str]| -> Value {
        let output = real.run(&[&["maintain", "--format", "json"], arguments].concat()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["letters"]["route"].clone()
    };
    let kept = |adopted, archived| serde_json::json!({"adopted": adopted, "archived": archived, "failed": 0});
    assert_eq!(maintained(&["--dry-run"]).await, kept(3, 0));
    assert_eq!(maintained(&[]).await, kept(3, 0));
    let group = listed().await[0].clone();
    let told = ["code", "provider", "letters", "archived"].map(|name| group[name].clone());
    assert_eq!(Value::from(told.to_vec()), serde_json::json!(["gave-up", "sbn", 3, 0]), "{group}");
    // What the killed worker's last long poll was given comes again after its time.
    let mut reports = BTreeSet::new();
    for _ in 0..60 {
        reports.append(&mut bodies(&*notify).await);
        if reports.len() >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(reports.iter().filter(|body| body.contains("\"gave-up\"")).count(), 3, "{reports:?}");

    assert_eq!(maintained(&["--archive-after", "0s"]).await, kept(0, 3));
    assert!(dead.receive(10, Duration::ZERO, Duration::ZERO).await.unwrap().is_empty());
    let group = listed().await[0].clone();
    assert_eq!((group["letters"].as_u64(), group["archived"].as_u64()), (Some(3), Some(3)), "{group}");
    let shown = real.run(&["dlq", "show", "--code", "gave-up", "--format", "json"]).await.unwrap();
    let shown: Vec<Value> =
        String::from_utf8(shown.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let documents: Vec<&Value> = shown.iter().map(|letter| &letter["document"]).collect();
    assert_eq!(documents.iter().filter(|document| **document == "hello").count(), 1, "{shown:#?}");
    assert!(shown.iter().all(|letter| letter["archived"] == true && letter["hint"].is_string()), "{shown:#?}");

    let output = real.run(&["dlq", "redrive", "--code", "gave-up", "--format", "json"]).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let again = bodies(&*route).await;
    assert_eq!(again, sent.into_iter().map(|one| one.body).collect());
    assert_eq!(listed().await, serde_json::json!([]));
}
