//! The load stage over a real database: its queues and buckets in memory, its workers killed as a process is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use landfall_events::routed::{CollectionRouted, ItemRouted, ObjectRemoved, RoutedObject};
use landfall_events::{Cause, Change, Document, Envelope, EventId, ObjectRef, Report, Routed, Sequencer};
use landfall_load::Load;
use landfall_shared::catalogue::{
    Catalogue, CatalogueError, Claim, Load as Changed, PostgresCatalogue, Recorded, Settled, Waiter,
};
use landfall_shared::documents::Documents;
use landfall_shared::memory::{MemoryObjects, MemoryQueue};
use landfall_shared::queue::Queue;
use landfall_shared::runner::{Outlets, Policy, Runner};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::task::JoinHandle;

/// How long a received message stays invisible: what a killed worker held comes again after it.
const VISIBILITY: Duration = Duration::from_millis(400);

/// Where route has put the documents of a schedule: the local deployment's archive.
const ARCHIVE: &str = "landfall-archive";

/// A catalogue whose attempts are counted.
struct Counted {
    inner: PostgresCatalogue,
    attempts: Arc<AtomicUsize>,
}

#[async_trait]
impl Catalogue for Counted {
    async fn apply(&self, loads: &[&Changed], park_until: Timestamp) -> Result<Vec<Settled>, CatalogueError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.inner.apply(loads, park_until).await
    }

    async fn releasable(
        &self,
        id: &EventId,
        collection: &str,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<Waiter>, CatalogueError> {
        self.inner.releasable(id, collection, most, now).await
    }

    async fn record(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Recorded>, CatalogueError> {
        self.inner.record(reports, released_by).await
    }

    async fn prove(&self, claims: &[Claim]) -> Result<Vec<bool>, CatalogueError> {
        self.inner.prove(claims).await
    }

    async fn announced(&self, events: &[EventId]) -> Result<(), CatalogueError> {
        self.inner.announced(events).await
    }

    async fn clearing(&self, events: &[EventId]) -> Result<Vec<EventId>, CatalogueError> {
        self.inner.clearing(events).await
    }

    async fn not_cleared(&self, event: &EventId) -> Result<(), CatalogueError> {
        self.inner.not_cleared(event).await
    }

    async fn tend(&self, now: Timestamp) -> Result<Vec<Envelope<Routed>>, CatalogueError> {
        self.inner.tend(now).await
    }

    async fn ready(&self) -> Result<(), CatalogueError> {
        self.inner.ready().await
    }
}

/// Queues and buckets around load.
#[derive(Clone, Default)]
pub struct Around {
    /// Load's own queue.
    pub own: MemoryQueue,
    /// What notify is told.
    pub notify: MemoryQueue,
    /// Load's dead letters.
    pub dead: MemoryQueue,
    /// The buckets.
    pub objects: MemoryObjects,
    /// How often the catalogue was asked to apply something.
    pub attempts: Arc<AtomicUsize>,
}

impl Around {
    /// Sends an event to load.
    pub fn push(&self, envelope: &Envelope<Routed>) {
        self.own.push(&envelope.to_json(), BTreeMap::new());
    }

    /// Starts a worker, with connections of its own; aborting it is its kill.
    ///
    /// # Panics
    /// Where the URL cannot be understood.
    #[must_use]
    pub fn worker(&self, url: &str, batch_max: usize, connections: usize) -> JoinHandle<()> {
        let inner = PostgresCatalogue::new(url, connections).expect("the URL is good");
        let catalogue = Arc::new(Counted { inner, attempts: self.attempts.clone() });
        let documents = Documents::new(Arc::new(self.objects.clone()), "work");
        let stage = Load::on(catalogue, documents, Duration::from_secs(3600), connections);
        let port = |queue: &MemoryQueue| -> Arc<dyn Queue> { Arc::new(queue.clone()) };
        let outlets = Outlets {
            own: port(&self.own),
            next: Some(port(&self.notify)),
            notify: port(&self.notify),
            dead: port(&self.dead),
        };
        let policy = Policy {
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_millis(200),
            receives_max: 5,
            ..Policy::default()
        };
        let runner = Runner::new(stage, outlets, policy, Arc::new(|_| "p".to_owned()));
        tokio::spawn(async move {
            loop {
                let mut deliveries = Vec::new();
                while deliveries.len() < batch_max {
                    let most = (batch_max - deliveries.len()).min(10);
                    let received = runner.queue().receive(most, VISIBILITY, Duration::ZERO).await.unwrap_or_default();
                    if received.is_empty() {
                        break;
                    }
                    deliveries.extend(received);
                }
                if deliveries.is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                crate::settle(&runner, &deliveries).await;
            }
        })
    }

    /// Waits until load's queue is empty.
    ///
    /// # Panics
    /// Where nothing has been tried for a minute.
    pub async fn at_rest(&self) {
        let (mut tried, mut idle) = (0, 0);
        while self.own.next_visible().is_some() {
            let attempts = self.attempts.load(Ordering::Relaxed);
            idle = if attempts == tried { idle + 1 } else { 0 };
            tried = attempts;
            assert!(idle < 12_000, "load does not come to rest: {} messages", self.own.messages().len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The reports by id; one id has one content, however often it was said.
    ///
    /// # Panics
    /// Where it has two.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<String, String> {
        let mut reports = BTreeMap::new();
        for message in self.notify.messages() {
            let report: Envelope<Report> = Envelope::from_json(&message.body).expect("load writes reports");
            let before = reports.insert(report.id.0.clone(), message.body.clone());
            let same = before.as_ref().is_none_or(|before| *before == message.body);
            assert!(same, "{} has two contents: {before:?} and {}", report.id, message.body);
        }
        reports
    }
}

/// An item's document with a title by which it is known again.
#[must_use]
pub fn document(collection: &str, id: &str, datetime: &str, title: &str) -> String {
    serde_json::json!({
        "type": "Feature", "stac_version": "1.0.0", "id": id, "collection": collection,
        "geometry": {"type": "Point", "coordinates": [16.5, 47.9]}, "bbox": [16.5, 47.9, 16.5, 47.9],
        "properties": {"datetime": datetime, "title": title}, "links": [], "assets": {},
    })
    .to_string()
}

/// What has happened in landing, and what must come of it.
pub struct Schedule {
    /// The events, in the order in which they are delivered, some of them more than once.
    pub deliveries: Vec<Envelope<Routed>>,
    /// The newest document of each key, where route has put it.
    pub archived: BTreeMap<ObjectRef, String>,
    /// Title and month by (collection, id).
    pub expected: BTreeMap<(String, String), (String, String)>,
}

struct Landed {
    second: i64,
    item: Option<(&'static str, &'static str, &'static str)>,
}

impl Schedule {
    /// Makes one up: creates, updates, deletes, moves in time, of few items under few keys, so that they meet; items
    /// of collections that land late or never; then everything late, twice, in any order.
    ///
    /// # Panics
    /// Where a sequencer is not hexadecimal, which it is.
    pub fn random(dice: &mut StdRng) -> Self {
        let collections: Vec<&'static str> = ["C", "M", "N"].into_iter().filter(|_| dice.random_bool(0.9)).collect();
        let mut landed: BTreeMap<&'static str, Landed> = BTreeMap::new();
        let (mut deliveries, mut archived) = (Vec::new(), BTreeMap::new());
        for (index, collection) in collections.iter().enumerate() {
            let cause = cause(&format!("{collection}.json"), Change::Created, 1000 + index as i64);
            let text = serde_json::json!({
                "type": "Collection", "id": collection, "extent": {}, "item_assets": {"a": {"type": "x"}},
            });
            let routed = CollectionRouted {
                cause,
                collection: (*collection).into(),
                document: inline(&text.to_string()),
                stored: stored(&ObjectRef::new(ARCHIVE, format!("{collection}.json"))),
                warnings: vec![],
            };
            deliveries.push(Envelope::new(routed.into(), "p", 0));
        }
        for second in 1..=dice.random_range(8..30) {
            let key = pick(dice, &["k1", "k2", "k3", "k4", "k5"]);
            let place = ObjectRef::new(ARCHIVE, key);
            if dice.random_bool(0.2) {
                let removed = ObjectRemoved { cause: cause(key, Change::Removed, second) };
                deliveries.push(Envelope::new(removed.into(), "p", 0));
                landed.insert(key, Landed { second, item: None });
                continue;
            }
            let collection = pick(dice, &["C", "M", "M", "N"]);
            let (id, month) = (pick(dice, &["a", "b", "c"]), pick(dice, &["2024-01", "2024-02", "2023-12"]));
            let text = document(collection, id, &format!("{month}-15T00:00:00Z"), &format!("{key} at {second}"));
            let routed = ItemRouted {
                cause: cause(key, Change::Created, second),
                collection: collection.into(),
                item: id.into(),
                document: inline(&text),
                stored: stored(&place),
                assets: vec![],
                warnings: vec![],
            };
            deliveries.push(Envelope::new(routed.into(), "p", 0));
            archived.insert(place, text);
            landed.insert(key, Landed { second, item: Some((collection, id, month)) });
        }
        let mut expected: BTreeMap<(String, String), (i64, String, String)> = BTreeMap::new();
        for (key, landed) in &landed {
            let Some((collection, id, month)) = landed.item else { continue };
            if !collections.contains(&collection) {
                continue;
            }
            let new = (landed.second, format!("{key} at {}", landed.second), month.to_owned());
            let known = expected.entry((collection.into(), id.into())).or_insert_with(|| new.clone());
            if known.0 < new.0 {
                *known = new;
            }
        }
        let again: Vec<_> = deliveries.iter().filter(|_| dice.random_bool(0.2)).cloned().collect();
        deliveries.extend(again);
        deliveries.shuffle(dice);
        let expected = expected.into_iter().map(|(key, (_, title, month))| (key, (title, month))).collect();
        Self { deliveries, archived, expected }
    }
}

fn pick(dice: &mut StdRng, choices: &[&'static str]) -> &'static str {
    choices[dice.random_range(0..choices.len())]
}

/// A change in landing, at a second of its own.
///
/// # Panics
/// Where a number is no sequencer, which it is.
#[must_use]
pub fn cause(key: &str, change: Change, second: i64) -> Cause {
    Cause {
        object: ObjectRef::new("landing", key),
        change,
        version_id: None,
        etag: Some(format!("e{second}")),
        size: Some(1),
        sequencer: Sequencer::try_from(format!("{second:X}")).ok(),
        event_time: Timestamp::from_second(1_700_000_000 + second).expect("it is in range"),
        member: None,
        members: None,
    }
}

/// A document that travels with its event.
///
/// # Panics
/// Where it is no JSON.
#[must_use]
pub fn inline(text: &str) -> Document {
    Document::Inline(serde_json::value::RawValue::from_string(text.to_owned()).expect("it is JSON"))
}

/// An object at its destination.
#[must_use]
pub fn stored(object: &ObjectRef) -> RoutedObject {
    RoutedObject { object: object.clone(), size: 1, etag: None, storage_class: None }
}

/// Empties the catalogue, and has collections divided by month whose id is M, by year whose id is N.
///
/// # Errors
/// PostgreSQL's.
pub async fn empty(client: &tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(
            "truncate landfall.ledger, landfall.collections; delete from pgstac.collections;
            create or replace function landfall.divide() returns trigger language plpgsql as $$ begin
                new.partition_trunc = case new.content->>'id' when 'M' then 'month' when 'N' then 'year' end;
                return new; end $$;
            create or replace trigger divide before insert on pgstac.collections
                for each row execute function landfall.divide()",
        )
        .await
}

/// Title and month of all that the catalogue holds, by (collection, id).
///
/// # Errors
/// PostgreSQL's, and where one id is there twice.
pub async fn held(client: &tokio_postgres::Client) -> anyhow::Result<BTreeMap<(String, String), (String, String)>> {
    let sql = "select collection, id, content->'properties'->>'title', to_char(datetime at time zone 'UTC', 'YYYY-MM')
        from pgstac.items";
    let mut held = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for row in client.query(sql, &[]).await? {
        let key: (String, String) = (row.get(0), row.get(1));
        if held.insert(key.clone(), (row.get(2), row.get(3))).is_some() {
            twice.insert(key);
        }
    }
    anyhow::ensure!(twice.is_empty(), "{twice:?} are there twice");
    Ok(held)
}
