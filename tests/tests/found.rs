//! A notice can be trusted: at the moment that it arrives, its item is found and its asset fetched, by a subscriber of one
//! area who gets all of that area and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use aws_sdk_sqs::types::QueueAttributeName;
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real, tools};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const ITEMS: usize = 500;

/// West of an item's box, and south of it; each is half a degree wide.
fn corner(number: usize) -> (f64, f64) {
    #[allow(clippy::cast_precision_loss, reason = "these are small")]
    ((number % 50) as f64 - 20.0, (number / 50 * 5) as f64)
}

/// 0 to 10 degrees east, 10 to 20 north: whatever touches it.
const AREA: &str = r#"{"bbox.ll_lon": [{"numeric": ["<=", 10]}], "bbox.ur_lon": [{"numeric": [">=", 0]}],
    "bbox.ll_lat": [{"numeric": ["<=", 20]}], "bbox.ur_lat": [{"numeric": [">=", 10]}]}"#;

fn touches(number: usize) -> bool {
    let (west, south) = corner(number);
    west <= 10.0 && west + 0.5 >= 0.0 && south <= 20.0 && south + 0.5 >= 10.0
}

#[tokio::test]
async fn a_subscriber_of_an_area_finds_and_fetches_what_every_notice_says() {
    let real = Real::start(Form::Pollers).await.unwrap();
    let connected = real.connected().await.unwrap();
    let (sns, sqs) = (aws_sdk_sns::Client::new(&connected.sdk), aws_sdk_sqs::Client::new(&connected.sdk));
    let queue = sqs.create_queue().queue_name("subscriber").send().await.unwrap().queue_url.unwrap();
    let asked = sqs.get_queue_attributes().queue_url(&queue).attribute_names(QueueAttributeName::QueueArn);
    let arn = asked.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
    let subscribe = sns.subscribe().topic_arn(real.deployment.output("CompletedTopic").unwrap());
    let subscribe = subscribe.protocol("sqs").endpoint(arn).attributes("RawMessageDelivery", "true");
    subscribe.attributes("FilterPolicy", AREA).send().await.unwrap();

    let folder = real.scratch("dataset");
    let root = folder.join("sbn/C");
    std::fs::create_dir_all(root.join("metadata/items")).unwrap();
    std::fs::create_dir_all(root.join("data")).unwrap();
    std::fs::write(root.join("metadata/collection.json"), collection("C")).unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..ITEMS {
        let id = format!("i{number:03}");
        let (x, y) = corner(number);
        let mut document: Value = serde_json::from_str(&item(&id, "C", "t")).unwrap();
        let ring = json!([[x, y], [x + 0.5, y], [x + 0.5, y + 0.5], [x, y + 0.5], [x, y]]);
        document["geometry"] = json!({"type": "Polygon", "coordinates": [ring]});
        document["bbox"] = json!([x, y, x + 0.5, y + 0.5]);
        std::fs::write(root.join(format!("metadata/items/{id}.json")), document.to_string()).unwrap();
        std::fs::write(root.join(format!("data/{id}.tif")), format!("II*{id}")).unwrap();
        if touches(number) {
            expected.insert(id);
        }
    }
    assert!(expected.len() > 10 && expected.len() < ITEMS / 4, "{}", expected.len());

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/subscriber.py");
    let mut subscriber = Command::new(tools().join("stac/bin/python"));
    subscriber.arg(script).args([
        real.deployment.database_url.as_deref().unwrap(),
        real.deployment.endpoint.as_deref().unwrap(),
        &queue,
        &expected.len().to_string(),
    ]);
    let mut subscriber = subscriber.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));

    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();

    let mut received = BTreeSet::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        received.insert(line);
    }
    assert!(subscriber.wait().await.unwrap().success(), "{received:?}");
    assert_eq!(received, expected);
    real.settled_as(&json!({"completed": 2 * ITEMS + 1}), 120).await.unwrap();
}
