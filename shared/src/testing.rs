//! A stage that does what the key of its event says, and queues around it: for tests of what runs stages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use landfall_events::validated::ObjectAccepted;
use landfall_events::{Envelope, Landed, Refusal, Validated, codes};

use crate::memory::{Faults, MemoryQueue};
use crate::queue::Queue;
use crate::runner::{Outlets, Policy, Runner};
use crate::stage::{Class, Failure, Outcome, Stage, Wait};

/// A stage that looks at the word after the last slash of the key: `pass`, `wait`, `fail`, `refuse`, `panic`, `hang`.
/// While it is down, it fails whatever comes.
#[derive(Clone, Default)]
pub struct Scripted {
    down: Arc<AtomicBool>,
}

impl Scripted {
    /// Lets its dependency go down or come back.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

/// What the stage fails with.
#[derive(Debug, thiserror::Error)]
pub enum ScriptedError {
    /// It may pass.
    #[error("the dependency is down")]
    Down,
    /// It will not.
    #[error("the key says so")]
    Bad,
}

impl Failure for ScriptedError {
    fn class(&self) -> Class {
        match self {
            Self::Down => Class::Transient,
            Self::Bad => Class::Permanent,
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal::new(codes::STAC_SCHEMA, self.to_string())
    }
}

impl Stage for Scripted {
    type Input = Landed;
    type Output = Validated;
    type Error = ScriptedError;

    const NAME: &'static str = "scripted";

    async fn handle(&self, batch: &[Envelope<Landed>], _now: Timestamp) -> Vec<Result<Outcome<Self>, ScriptedError>> {
        let mut outcomes = Vec::new();
        for envelope in batch {
            let cause = envelope.event.cause.clone();
            let word = cause.object.file_name().to_owned();
            outcomes.push(match word.as_str() {
                _ if self.down.load(Ordering::SeqCst) => Err(ScriptedError::Down),
                "wait" => Ok(Outcome::Wait(Wait {
                    waits_for: vec!["something".into()],
                    refusal: Refusal::new(codes::ROUTE_ASSET_MISSING, "it did not come"),
                })),
                "fail" => Err(ScriptedError::Down),
                "refuse" => Err(ScriptedError::Bad),
                "panic" => panic!("as the key says"),
                "hang" => std::future::pending().await,
                _ => Ok(Outcome::next(envelope.followed_by(ObjectAccepted { cause }.into()))),
            });
        }
        outcomes
    }

    async fn ready(&self) -> Result<(), ScriptedError> {
        if self.down.load(Ordering::SeqCst) { Err(ScriptedError::Down) } else { Ok(()) }
    }
}

/// A runner over the scripted stage with all its queues.
pub struct Bench {
    /// The stage.
    pub stage: Scripted,
    /// What fails when.
    pub faults: Arc<Faults>,
    /// The stage's own queue.
    pub own: MemoryQueue,
    /// The next stage's.
    pub next: MemoryQueue,
    /// Notify's.
    pub notify: MemoryQueue,
    /// The dead letters.
    pub dead: MemoryQueue,
    /// The runner.
    pub runner: Arc<Runner<Scripted>>,
}

impl Bench {
    /// Builds it with a policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let faults = Arc::new(Faults::default());
        let queue = || MemoryQueue::new(faults.clone());
        let (own, next, notify, dead) = (queue(), queue(), queue(), queue());
        let port = |queue: &MemoryQueue| -> Arc<dyn Queue> { Arc::new(queue.clone()) };
        let outlets = Outlets { own: port(&own), next: Some(port(&next)), notify: port(&notify), dead: port(&dead) };
        let stage = Scripted::default();
        let runner = Runner::new(stage.clone(), outlets, policy, Arc::new(|_| "sbn".to_owned()));
        Self { stage, faults, own, next, notify, dead, runner: Arc::new(runner) }
    }

    /// The body of a notification for a key.
    #[must_use]
    pub fn body(key: &str) -> String {
        Self::bodies(&[key])
    }

    /// The body of one notification with a record for each key.
    #[must_use]
    pub fn bodies(keys: &[&str]) -> String {
        let record = |key: &&str| {
            serde_json::json!({
                "eventVersion": "2.6", "eventTime": "2024-05-17T10:15:00Z", "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "landing"}, "object": {"key": key, "size": 1, "eTag": "e", "sequencer": "1"}},
            })
        };
        serde_json::json!({"Records": keys.iter().map(record).collect::<Vec<_>>()}).to_string()
    }

    /// Sends a notification for a key.
    pub fn land(&self, key: &str) {
        self.own.push(&Self::body(key), BTreeMap::new());
    }

    /// Receives everything that is visible.
    ///
    /// # Panics
    /// Where a strike hits the receive.
    pub async fn receive(&self) -> Vec<crate::queue::Delivery> {
        self.own.receive(10, Duration::from_secs(30), Duration::ZERO).await.expect("nothing strikes here")
    }
}
