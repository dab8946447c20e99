//! The poller on queues in memory and a paused clock.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use landfall_shared::Policy;
use landfall_shared::poller::{Settings, poll};
use landfall_shared::queue::Queue;
use landfall_shared::testing::Bench;
use tokio::sync::oneshot;

fn settings() -> Settings {
    Settings { in_flight_max: 20, drain_max: Duration::from_secs(5), ..Settings::default() }
}

/// Polls for so long, then stops.
async fn poll_for(bench: &Bench, settings: Settings, time: Duration) {
    let (stop, stopped) = oneshot::channel::<()>();
    let poller = tokio::spawn(poll(bench.runner.clone(), settings, async {
        stopped.await.ok();
    }));
    tokio::time::sleep(time).await;
    stop.send(()).unwrap();
    poller.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_is_received_settled_and_deleted() {
    let bench = Bench::new(Policy::default());
    for number in 0..57 {
        bench.land(&format!("sbn/{number}"));
    }
    poll_for(&bench, settings(), Duration::from_secs(10)).await;
    assert!(bench.own.messages().is_empty());
    assert_eq!(bench.next.messages().len(), 57);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stays_invisible_and_is_given_back_at_the_end() {
    let bench = Bench::new(Policy { batch_time_max: Duration::from_secs(500), ..Policy::default() });
    bench.land("sbn/hang");
    poll_for(&bench, settings(), Duration::from_secs(100)).await;
    // Held for a hundred seconds under a visibility of thirty: nobody else has received it.
    let again = bench.receive().await;
    assert_eq!(again.len(), 1, "it is visible at once");
    assert_eq!(again[0].receives, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_while_a_dependency_is_down() {
    let bench = Bench::new(Policy::default());
    bench.stage.set_down(true);
    for number in 0..100 {
        bench.land(&format!("sbn/{number}"));
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let poller = tokio::spawn(poll(bench.runner.clone(), settings(), async {
        stopped.await.ok();
    }));

    tokio::time::sleep(Duration::from_secs(3600)).await;
    // An hour of outage has spent few receives, and those that it has are not near any limit.
    assert!(bench.own.receives_max() <= 3, "{}", bench.own.receives_max());
    assert!(bench.dead.messages().is_empty());
    bench.stage.set_down(false);
    tokio::time::sleep(Duration::from_secs(2000)).await;

    stop.send(()).unwrap();
    poller.await.unwrap();
    assert_eq!(bench.next.messages().len(), 100);
    assert!(bench.own.messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fails_is_asked_again() {
    let bench = Bench::new(Policy::default());
    bench.faults.arm(landfall_shared::memory::Strike::Fail(1));
    bench.land("sbn/pass");
    poll_for(&bench, settings(), Duration::from_secs(30)).await;
    assert_eq!(bench.next.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_is_tried_again() {
    let bench = Bench::new(Policy::default());
    bench.land("sbn/pass");
    // The calls are: receive, receive again (nothing more), send, delete.
    bench.faults.arm(landfall_shared::memory::Strike::Fail(4));
    poll_for(&bench, settings(), Duration::from_secs(5)).await;
    assert_eq!(bench.next.messages().len(), 1);
    let left = bench.own.receive(10, Duration::from_secs(1), Duration::ZERO).await.unwrap();
    assert!(left.is_empty() && bench.own.messages().is_empty());
}
