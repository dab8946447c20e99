//! What becomes of a delivery, case by case.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use landfall_events::letter::{Letter, REDRIVE, TRACEPARENT};
use landfall_events::{Envelope, Landed, Report, codes};
use landfall_shared::memory::Strike;
use landfall_shared::testing::Bench;
use landfall_shared::{Policy, Verdict};

/// Settles the notifications of these keys as one batch.
async fn settle(bench: &Bench, keys: &[&str]) -> Vec<Verdict> {
    for key in keys {
        bench.land(key);
    }
    let deliveries = bench.receive().await;
    bench.runner.settle(&deliveries).await
}

fn counts(bench: &Bench) -> (usize, usize, usize) {
    (bench.next.messages().len(), bench.notify.messages().len(), bench.dead.messages().len())
}

fn is_retry(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Retry { .. })
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_forwarded_and_acknowledged() {
    let bench = Bench::new(Policy::default());
    assert_eq!(settle(&bench, &["sbn/pass", "sbn/also"]).await, [Verdict::Ack, Verdict::Ack]);
    assert_eq!(counts(&bench), (2, 0, 0));
    let message = bench.next.messages().remove(0);
    assert_eq!(message.group, "sbn");
    assert!(message.attributes.contains_key(TRACEPARENT));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_dead_lettered_with_its_reason_and_told_to_notify() {
    let bench = Bench::new(Policy::default());
    assert_eq!(settle(&bench, &["sbn/refuse"]).await, [Verdict::Ack]);
    assert_eq!(counts(&bench), (0, 1, 1));
    let letter = bench.dead.messages().remove(0);
    let attributes = Letter::from_attributes(&letter.attributes).unwrap();
    assert_eq!((attributes.code, attributes.reason.as_str()), (codes::STAC_SCHEMA, "the key says so"));
    assert_eq!(attributes.object.as_deref(), Some("s3://landing/sbn/refuse"));
    // The body is the original one: a redrive is a plain re-send.
    assert_eq!(letter.body, Bench::body("sbn/refuse"));
    let report = Envelope::<Report>::from_json(&bench.notify.messages()[0].body).unwrap();
    assert_eq!(Some(report.id), attributes.event);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_again_is_counted_once() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let counted = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let bench = Bench::new(Policy::default());
    bench.own.push(&Bench::bodies(&["sbn/pass", "sbn/refuse", "sbn/wait"]), BTreeMap::new());
    let deliveries = bench.receive().await;
    // The letter is sent, and the report of it is not.
    bench.faults.arm(Strike::Fail(4));
    assert!(is_retry(&bench.runner.settle(&deliveries).await[0]));
    assert!(!bench.faults.is_armed());
    assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);

    let mut counts = BTreeMap::new();
    for (key, _, _, value) in counted.snapshot().into_vec() {
        if let metrics_util::debugging::DebugValue::Counter(count) = value {
            counts.insert(key.key().name().to_owned(), count);
        }
    }
    for (name, count) in
        [("landfall_events_done_total", 1), ("landfall_events_refused_total", 1), ("landfall_events_parked_total", 1)]
    {
        assert_eq!(counts.get(name), Some(&count), "{name}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_leaves_its_neighbours_alone() {
    let bench = Bench::new(Policy::default());
    bench.own.push(&Bench::bodies(&["sbn/pass", "sbn/refuse"]), BTreeMap::new());
    let deliveries = bench.receive().await;
    assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);
    assert_eq!(counts(&bench), (1, 1, 1));
    assert_eq!(bench.dead.messages()[0].body, Bench::body("sbn/refuse"));
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_retried_by_visibility_and_then_re_sent_with_a_delay() {
    let bench = Bench::new(Policy { receives_max: 2, ..Policy::default() });
    bench.land("sbn/fail");
    let first = bench.receive().await;
    assert!(is_retry(&bench.runner.settle(&first).await[0]));
    assert_eq!(bench.own.messages().len(), 1);

    tokio::time::advance(Duration::from_secs(30)).await;
    let second = bench.receive().await;
    assert_eq!(bench.runner.settle(&second).await, [Verdict::Ack]);

    let resent = bench.own.messages().pop().unwrap();
    let envelope = Envelope::<Landed>::from_json(&resent.body).unwrap();
    assert_eq!(envelope.attempt, 1);
    assert!(resent.delay >= Duration::from_secs(2));
    assert_eq!(counts(&bench), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_too_long_is_given_up_with_its_last_error() {
    let bench = Bench::new(Policy { receives_max: 1, resends_max: 3, ..Policy::default() });
    bench.land("sbn/fail");
    while !bench.own.messages().is_empty() {
        tokio::time::advance(Duration::from_secs(900)).await;
        let deliveries = bench.receive().await;
        assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);
        landfall_shared::queue::Queue::delete(&bench.own, &[deliveries[0].receipt.clone()]).await.remove(0).unwrap();
    }
    let letter = bench.dead.messages().remove(0);
    let attributes = Letter::from_attributes(&letter.attributes).unwrap();
    assert_eq!(attributes.code, codes::GAVE_UP);
    assert!(attributes.reason.contains("the dependency is down"));
    // Redriven, it starts afresh.
    assert_eq!(Envelope::<Landed>::from_json(&letter.body).unwrap().attempt, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_re_sent_with_a_deadline_and_reported() {
    let bench = Bench::new(Policy::default());
    assert_eq!(settle(&bench, &["sbn/wait"]).await, [Verdict::Ack]);
    let resent = bench.own.messages().pop().unwrap();
    let envelope = Envelope::<Landed>::from_json(&resent.body).unwrap();
    assert!(envelope.deadline.is_some());
    let report = Envelope::<Report>::from_json(&bench.notify.messages()[0].body).unwrap();
    assert!(matches!(report.event, Report::Waiting(waiting) if waiting.until == envelope.deadline.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_takes_nobody_else_along_and_comes_again() {
    let bench = Bench::new(Policy::default());
    let verdicts = settle(&bench, &["sbn/pass", "sbn/panic", "sbn/also"]).await;
    assert_eq!(verdicts.iter().map(is_retry).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(counts(&bench), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_hangs_is_cut_off() {
    let bench = Bench::new(Policy::default());
    assert!(is_retry(&settle(&bench, &["sbn/hang"]).await[0]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_on_is_not_acknowledged() {
    let bench = Bench::new(Policy::default());
    bench.land("sbn/pass");
    let deliveries = bench.receive().await;
    bench.faults.arm(Strike::Fail(1));
    assert!(is_retry(&bench.runner.settle(&deliveries).await[0]));
    assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);
    assert_eq!(counts(&bench), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_told_before_its_letter_is_written() {
    let bench = Bench::new(Policy::default());
    bench.land("sbn/refuse");
    let deliveries = bench.receive().await;
    bench.faults.arm(Strike::Fail(1));
    assert!(is_retry(&bench.runner.settle(&deliveries).await[0]));
    assert_eq!(counts(&bench), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_read_is_dead_lettered_and_announced() {
    let bench = Bench::new(Policy::default());
    bench.own.push("hello", BTreeMap::new());
    let deliveries = bench.receive().await;
    assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);
    assert_eq!(counts(&bench), (0, 1, 1));
    let letter = bench.dead.messages().remove(0);
    assert_eq!(letter.body, "hello");
    assert_eq!(Letter::from_attributes(&letter.attributes).unwrap().code, codes::DELIVERY_UNREADABLE);
}

#[tokio::test(start_paused = true)]
async fn a_test_event_is_acknowledged_and_nothing_follows() {
    let bench = Bench::new(Policy::default());
    bench.own.push(r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#, BTreeMap::new());
    let deliveries = bench.receive().await;
    assert_eq!(bench.runner.settle(&deliveries).await, [Verdict::Ack]);
    assert_eq!(counts(&bench), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_redrive_is_a_new_generation_with_a_new_id() {
    let bench = Bench::new(Policy::default());
    settle(&bench, &["sbn/pass"]).await;
    bench.own.push(&Bench::body("sbn/pass"), BTreeMap::from([(REDRIVE.to_owned(), "2".to_owned())]));
    let deliveries = bench.receive().await;
    bench.runner.settle(&deliveries).await;
    let read =
        |index: usize| Envelope::<landfall_events::Validated>::from_json(&bench.next.messages()[index].body).unwrap();
    assert_eq!((read(0).redrive, read(1).redrive), (0, 2));
    assert_ne!(read(0).id, read(1).id);
}
