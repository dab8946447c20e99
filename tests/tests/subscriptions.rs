//! The filter policies that the documentation gives, with real subscriptions.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use landfall_events::notice::{ATTRIBUTES_MAX, Style};
use landfall_events::report::{Effect, ItemLoaded, Place, Refused};
use landfall_events::{Change, Envelope, Notice, Refusal, Report, codes};
use landfall_shared::aws::{SnsTopics, SqsQueue};
use landfall_shared::queue::Queue;
use landfall_shared::topic::Topics;
use landfall_tests::load_world::{cause, document, inline};
use landfall_tests::real_world::Aws;
use serde_json::json;

/// The JSON blocks of the page, in their order.
fn policies() -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/notices.md")).unwrap();
    page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap().trim().to_owned()).collect()
}

struct Item {
    id: &'static str,
    collection: &'static str,
    datetime: &'static str,
    bbox: [f64; 4],
    effect: Effect,
}

fn loaded(second: i64, item: &Item) -> Envelope<Report> {
    let is_there = item.effect != Effect::Deleted;
    // One has every attribute that there is.
    let range = (item.id == "edge").then(|| item.datetime.to_owned());
    let place = Place {
        bbox: item.bbox,
        datetime: Some(item.datetime.into()),
        start_datetime: range.clone(),
        end_datetime: range,
    };
    let loaded = ItemLoaded {
        cause: cause(item.id, Change::Created, second),
        collection: item.collection.into(),
        item: item.id.into(),
        effect: item.effect,
        document: is_there.then(|| inline(&document(item.collection, item.id, item.datetime, "t"))),
        assets: vec![],
        place: is_there.then_some(place),
    };
    Envelope::new(loaded.into(), "esa", 0)
}

fn refused(second: i64, key: &str, provider: &str) -> Envelope<Report> {
    let refusal = Refusal::new(codes::STAC_SCHEMA, "it is not".to_owned()).of_item("X", key);
    let refused = Refused { cause: cause(key, Change::Created, second), stage: "validate".into(), refusal };
    Envelope::new(refused.into(), provider, 0)
}

#[tokio::test]
async fn each_filter_policy_of_the_documentation_brings_what_it_says() {
    let aws = Aws::start().await.unwrap();
    let (sns, sqs) = (aws_sdk_sns::Client::new(&aws.sdk), aws_sdk_sqs::Client::new(&aws.sdk));
    let mut topics = Vec::new();
    for name in ["completed", "rejected"] {
        topics.push(sns.create_topic().name(name).send().await.unwrap().topic_arn.unwrap());
    }
    let mut queues = Vec::new();
    let policies = policies();
    assert_eq!(policies.len(), 5);
    // The last is about the rejected topic; and one for all that is completed, without a policy.
    let subscriptions = policies.iter().map(|policy| Some(policy.as_str())).chain([None]);
    for (number, policy) in subscriptions.enumerate() {
        let url = sqs.create_queue().queue_name(format!("q{number}")).send().await.unwrap().queue_url.unwrap();
        let asked = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let arn = asked.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        let topic = &topics[usize::from(number == 4)];
        let mut subscribe = sns.subscribe().topic_arn(topic).protocol("sqs").endpoint(arn);
        subscribe = subscribe.attributes("RawMessageDelivery", "true");
        if let Some(policy) = policy {
            subscribe = subscribe.attributes("FilterPolicy", policy);
        }
        subscribe.send().await.unwrap();
        queues.push(url);
    }
    let at = |west: f64, south: f64| [west, south, west + 1.0, south + 1.0];
    let (created, may, june) = (Effect::Created, "2024-05-17T10:15:00Z", "2024-06-01T00:00:00Z");
    let items = [
        Item { id: "s2", collection: "SENTINEL-2.L2A", datetime: june, bbox: at(-70.0, -30.0), effect: created },
        Item { id: "inside", collection: "X", datetime: june, bbox: at(12.0, 45.0), effect: created },
        Item { id: "edge", collection: "X", datetime: june, bbox: at(9.0, 49.999_99), effect: Effect::Replaced },
        Item { id: "beyond", collection: "X", datetime: june, bbox: at(20.000_1, 45.0), effect: created },
        Item { id: "pacific", collection: "X", datetime: june, bbox: [-180.0, 41.0, 180.0, 42.0], effect: created },
        Item { id: "may", collection: "X", datetime: may, bbox: at(-70.0, -30.0), effect: created },
        Item { id: "gone", collection: "X", datetime: june, bbox: at(12.0, 45.0), effect: Effect::Deleted },
    ];
    let mut reports: Vec<_> = (1..).zip(&items).map(|(second, item)| loaded(second, item)).collect();
    reports.extend([refused(20, "theirs", "img"), refused(21, "ours", "sbn")]);
    let notices: Vec<_> = reports.iter().filter_map(|report| Notice::of(report, &Style::default())).collect();
    let counts: BTreeSet<usize> = notices.iter().map(|notice| notice.attributes.len()).collect();
    // Deletions, refusals, items of a moment, items of a range.
    assert_eq!(counts, [3, 4, 8, ATTRIBUTES_MAX].into());
    let sent: BTreeMap<&str, BTreeMap<String, String>> = notices
        .iter()
        .map(|notice| {
            let all = notice.attributes.iter().map(|(name, value)| (name.clone(), value.as_str().to_owned()));
            (notice.id.0.as_str(), all.collect())
        })
        .collect();

    for result in SnsTopics::new(sns, &topics[0], &topics[1]).publish(&notices).await {
        result.unwrap();
    }

    let all: Vec<&str> = items.iter().map(|item| item.id).collect();
    let expected: [&[&str]; 6] = [&["s2"], &["inside", "edge", "pacific"], &["may"], &["gone"], &["ours"], &all];
    for ((url, expected), policy) in queues.iter().zip(expected).zip(policies.iter().map(Some).chain([None])) {
        let queue = SqsQueue::new(sqs.clone(), url);
        let mut received = BTreeSet::new();
        while received.len() < expected.len() {
            let some = queue.receive(10, Duration::from_secs(60), Duration::from_secs(5)).await.unwrap();
            assert!(!some.is_empty(), "{policy:?} brought only {received:?}");
            for delivery in some {
                let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
                // Raw delivery brings the body as it is, with its attributes.
                assert_eq!(body["specversion"], json!("1.0"));
                assert_eq!(delivery.attributes, sent[body["id"].as_str().unwrap()]);
                received.insert(body["subject"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
            }
        }
        assert_eq!(received, expected.iter().map(|id| (*id).to_owned()).collect(), "{policy:?}");
        let more = queue.receive(10, Duration::from_secs(60), Duration::from_millis(300)).await.unwrap();
        assert!(more.is_empty(), "{policy:?} brought more: {more:?}");
    }
}
