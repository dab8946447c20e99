//! The four stages on in-memory ports, driven until nothing moves any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use landfall_events::notice::Topic;
use landfall_events::{Cause, Change, ObjectRef, Status, letter};
use landfall_load::Load;
use landfall_notify::Notify;
use landfall_route::Route;
use landfall_shared::config::{Config, Landings, Notices};
use landfall_shared::memory::{Faults, MemoryCatalogue, MemoryObjects, MemoryQueue, MemoryTopics, Strike};
use landfall_shared::queue::Queue;
use landfall_shared::runner::{Outlets, Policy, Runner};
use landfall_shared::stage::Stage;
use landfall_validate::Validate;
use tokio::time::Instant;

/// One stage's queues.
#[derive(Clone)]
pub struct Queues {
    /// What it receives from.
    pub own: MemoryQueue,
    /// Its dead letters.
    pub dead: MemoryQueue,
}

/// A whole Landfall in memory.
pub struct World {
    /// What fails when.
    pub faults: Arc<Faults>,
    /// The buckets.
    pub objects: MemoryObjects,
    /// The catalogue with the ledger.
    pub catalogue: MemoryCatalogue,
    /// The topics.
    pub topics: MemoryTopics,
    /// The queues by stage.
    pub queues: BTreeMap<&'static str, Queues>,
    /// How often a message was received at most.
    pub receives_max: std::sync::atomic::AtomicU32,
    config: Config,
}

/// A bucket map that routes everything of two providers to one bucket.
pub const MAP: &str = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}}}, \
    ABC: {default: {bucket: {name: archive}}}}}";

/// Everything that outsiders can see when all is done, without times and repetitions.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Objects outside of landing and work: bytes by place.
    pub archived: BTreeMap<ObjectRef, String>,
    /// Items by (collection, id).
    pub items: BTreeMap<(String, String), String>,
    /// Collections by id.
    pub collections: BTreeMap<String, String>,
    /// Ledger rows: where each landed document is.
    pub ledger: BTreeSet<String>,
    /// Dead letters: stage, code, object.
    pub letters: BTreeSet<(String, String, String)>,
    /// What providers are told: outcome and code by where it is kept.
    pub statuses: BTreeMap<String, String>,
    /// Notices: topic and body, by id.
    pub notices: BTreeMap<String, (Topic, String)>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world with a bucket map.
    #[must_use]
    pub fn new() -> Self {
        Self::with("", MAP)
    }

    /// An empty world with this configuration and this bucket map.
    ///
    /// # Panics
    /// Where the configuration cannot be read.
    #[must_use]
    pub fn with(config: &str, map: &str) -> Self {
        let config = Config::parse(config).expect("a test's configuration is good");
        let faults = Arc::new(Faults::default());
        let objects = MemoryObjects::new(faults.clone());
        objects.land(&ObjectRef::new("work", "config/bucket-map.yaml"), map.to_owned());
        let queues = landfall::stages().into_iter().map(|stage| {
            (stage, Queues { own: MemoryQueue::new(faults.clone()), dead: MemoryQueue::new(faults.clone()) })
        });
        Self {
            queues: queues.collect(),
            catalogue: MemoryCatalogue::new(faults.clone()),
            topics: MemoryTopics::new(faults.clone()),
            objects,
            faults,
            config,
            receives_max: 0.into(),
        }
    }

    /// Drops a file as a provider does; S3's notification goes to the first queue.
    pub fn land(&self, key: &str, body: &str) -> Cause {
        let cause = self.objects.land(&ObjectRef::new("landing", key), body.to_owned());
        self.notify_of(&cause);
        cause
    }

    /// Removes a file as a provider does.
    pub fn remove(&self, key: &str) -> Cause {
        let cause = self.objects.remove(&ObjectRef::new("landing", key));
        self.notify_of(&cause);
        cause
    }

    /// Sends S3's notification of a change, once more or late.
    pub fn notify_of(&self, cause: &Cause) {
        let name = match cause.change {
            Change::Created => "ObjectCreated:Put",
            Change::Removed => "ObjectRemoved:Delete",
        };
        let record = serde_json::json!({
            "eventVersion": "2.6", "eventSource": "aws:s3", "eventTime": cause.event_time, "eventName": name,
            "s3": {"bucket": {"name": cause.object.bucket}, "object": {
                "key": encoded(&cause.object.key), "size": cause.size, "eTag": cause.etag, "sequencer": cause.sequencer,
            }},
        });
        self.queues["validate"].own.push(&serde_json::json!({"Records": [record]}).to_string(), BTreeMap::new());
    }

    /// Sends every dead letter of a stage to it again, as `landfall dlq redrive` does.
    pub fn redrive(&self, stage: &str) {
        for letter in self.queues[stage].dead.drain() {
            let generation: u32 = letter.attributes[letter::REDRIVE].parse().expect("a generation is a number");
            let mut attributes = BTreeMap::from([(letter::REDRIVE.to_owned(), (generation + 1).to_string())]);
            if stage == "notify" {
                attributes.clear();
            }
            self.queues[stage].own.push(&letter.body, attributes);
        }
    }

    fn outlets(&self, stage: &str) -> Outlets {
        let port = |queue: &MemoryQueue| -> Arc<dyn Queue> { Arc::new(queue.clone()) };
        let stages = landfall::stages();
        let next = stages.iter().skip_while(|name| **name != stage).nth(1);
        Outlets {
            own: port(&self.queues[stage].own),
            next: next.map(|next| port(&self.queues[next].own)),
            notify: port(&self.queues["notify"].own),
            dead: port(&self.queues[stage].dead),
        }
    }

    /// Works until all queues are empty. A crash ends the stage that it strikes; its messages come again.
    ///
    /// # Panics
    /// Where it does not come to rest.
    pub async fn settle(&self) {
        let landings = Landings::new(&self.config, "landing").expect("a test's configuration is good");
        let policy = Policy { wait_max: Duration::from_secs(3600), ..Policy::default() };
        let objects = Arc::new(self.objects.clone());
        let catalogue = Arc::new(self.catalogue.clone());
        let provider_of = landings.provider_of();
        macro_rules! runner {
            ($stage:expr) => {
                Runner::new($stage, self.outlets(name_of(&$stage)), policy.clone(), provider_of.clone()).with_clock(now)
            };
        }
        let map = "s3://work/config/bucket-map.yaml";
        let validate = runner!(Validate::with(objects.clone(), landings.clone(), "work", None));
        let route = runner!(
            Route::with(objects.clone(), landings.clone(), &self.config, map, "work").expect("it has no templates")
        );
        let load = runner!(Load::with(catalogue.clone(), objects.clone(), "work", policy.wait_max));
        let notify = {
            let (topics, notices) = (Arc::new(self.topics.clone()), Notices::default());
            runner!(Notify::with(
                catalogue.clone(),
                topics.clone(),
                objects.clone(),
                "work",
                landings.clone(),
                &notices
            ))
        };
        for _ in 0..10_000 {
            let mut moved = false;
            moved |= self.step(&validate).await;
            moved |= self.step(&route).await;
            moved |= self.step(&load).await;
            moved |= self.step(&notify).await;
            if !moved {
                let Some(next) = self.queues.values().filter_map(|queues| queues.own.next_visible()).min() else {
                    return;
                };
                tokio::time::sleep_until(next).await;
            }
        }
        panic!("the world does not come to rest");
    }

    /// One receive of one stage; whether there was anything.
    async fn step<S: Stage>(&self, runner: &Runner<S>) -> bool {
        let work = async {
            let received = runner.queue().receive(10, Duration::from_secs(30), Duration::ZERO).await;
            let Ok(deliveries) = received else { return true };
            let receives = deliveries.iter().map(|delivery| delivery.receives).max().unwrap_or(0);
            self.receives_max.fetch_max(receives, std::sync::atomic::Ordering::Relaxed);
            crate::settle(runner, &deliveries).await;
            !deliveries.is_empty()
        };
        tokio::select! {
            biased;
            () = self.faults.crashed() => true,
            moved = work => moved,
        }
    }

    /// What outsiders see.
    ///
    /// # Panics
    /// Where one event id was announced with two contents.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let kept = self.catalogue.kept();
        let mut notices = BTreeMap::new();
        for notice in self.topics.published() {
            let content = (notice.topic, notice.body.clone());
            let before = notices.insert(notice.id.0.clone(), content.clone());
            assert!(before.is_none_or(|before| before == content), "{} has two contents", notice.id);
        }
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        let letters = self.queues.iter().flat_map(|(stage, queues)| {
            let of = move |attributes: &BTreeMap<String, String>, name: &str| {
                attributes.get(name).cloned().unwrap_or_default()
            };
            queues.dead.messages().into_iter().map(move |letter| {
                ((*stage).to_owned(), of(&letter.attributes, "code"), of(&letter.attributes, "object"))
            })
        });
        let ledger = kept.rows.values().map(|row| {
            let announced = if row.announced.is_some() { "announced" } else { "silent" };
            let (effect, code) = (row.effect.map(landfall_events::report::Effect::as_str), row.code.as_deref());
            format!(
                "{} {} {} {announced} {effect:?} {code:?} {}",
                row.cause.object,
                row.subject,
                row.state.as_str(),
                row.event
            )
        });
        let archived = self.objects.all().into_iter().filter(|(object, _)| object.bucket == "archive");
        Snapshot {
            archived: archived.map(|(object, stored)| (object, text(&stored.body))).collect(),
            items: kept.items.clone(),
            collections: kept.collections.clone(),
            ledger: ledger.collect(),
            letters: letters.collect(),
            statuses: self.objects.all().into_iter().filter_map(status).collect(),
            notices,
        }
    }

    /// Arms a strike.
    pub fn arm(&self, strike: Strike) {
        self.faults.arm(strike);
    }
}

/// What a provider is told, without times.
fn status((object, stored): (ObjectRef, landfall_shared::memory::MemoryObject)) -> Option<(String, String)> {
    if object.bucket != "work" || !object.key.starts_with("status/") {
        return None;
    }
    let status: Status = serde_json::from_slice(&stored.body).expect("what is written is a status");
    let (outcome, code) = (status.outcome.as_str(), status.code.unwrap_or_default());
    Some((object.key, format!("{outcome} {code} {:?}", status.event)))
}

/// The time of day by tokio's clock, which these tests pause and which then runs as fast as nothing happens.
fn now() -> Timestamp {
    static START: OnceLock<Instant> = OnceLock::new();
    let passed = Instant::now().saturating_duration_since(*START.get_or_init(Instant::now));
    let passed = SignedDuration::try_from(passed).expect("a test is short");
    Timestamp::UNIX_EPOCH.checked_add(passed).expect("a test is short")
}

fn name_of<S: Stage>(_: &S) -> &'static str {
    S::NAME
}

/// A key as S3 writes it into a notification.
fn encoded(key: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    key.bytes().map(byte).collect()
}

/// A valid item with one asset below the dataset's root.
#[must_use]
pub fn item(id: &str, collection: &str, title: &str) -> String {
    serde_json::json!({
        "type": "Feature", "stac_version": "1.0.0", "id": id, "collection": collection,
        "geometry": {"type": "Point", "coordinates": [16.5, 47.9]}, "bbox": [16.5, 47.9, 16.5, 47.9],
        "properties": {"datetime": "2024-05-17T10:15:00Z", "title": title},
        "links": [{"rel": "collection", "href": "../collection.json"}],
        "assets": {"data": {"href": format!("data/{id}.tif")}},
    })
    .to_string()
}

/// A valid collection.
#[must_use]
pub fn collection(id: &str) -> String {
    serde_json::json!({
        "type": "Collection", "stac_version": "1.0.0", "id": id, "description": "A collection for tests.",
        "license": "CC-BY-4.0", "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", null]]}},
    })
    .to_string()
}

impl World {
    /// Works for a minute of the world's time: what waits then, waits.
    pub async fn settle_until_waiting(&self) {
        // The deadline of a wait is an hour; a minute is enough for everything else.
        drop(tokio::time::timeout(Duration::from_secs(60), self.settle()).await);
    }
}
