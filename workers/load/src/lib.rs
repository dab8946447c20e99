//! The load stage: documents into pgSTAC, in the order in which they landed, each once in effect.
//!
//! It writes batches; what is new, replaced, superseded or waiting is the catalogue's to say. It refuses to lose a
//! batch for one document: what the database refuses is searched for by halves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use landfall_events::report::{CollectionLoaded, Effect, Ignored, ItemLoaded, Report, Waiting};
use landfall_events::routed::{CollectionReleased, CollectionRouted, ItemRouted, RoutedObject};
use landfall_events::{Cause, Document, Envelope, Event, Problem, Refusal, Routed, codes, report};
use landfall_shared::catalogue::{
    Applied, Back, Catalogue, CatalogueError, Content, Gone, Load as Change, Settled, Standing, in_order, parts,
};
use landfall_shared::documents::Documents;
use landfall_shared::metrics;
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::pgstac::{Item, Unfit};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Refused, Stage};
use tokio::sync::Mutex;
use tracing::{error, info};

use bisection::{Attempt, by_halves};

mod bisection;
pub mod bulk;

/// Items that one release step lets go on.
const RELEASE_MAX: usize = 100;

/// Large documents that are read at a time.
const CONCURRENCY: usize = 8;

/// The most bytes of documents that are held at a time; a single one may be larger.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The stage.
pub struct Load {
    catalogue: Arc<dyn Catalogue>,
    documents: Documents,
    park_max: Duration,
    /// One for each connection: an item's changes always take the same, so that none waits for another of its own
    /// process within a transaction.
    shards: Vec<Mutex<()>>,
}

/// Why it could not decide.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A document that did not fit its message could not be read.
    #[error("could not read the document")]
    Read(#[source] ObjectsError),
    /// The document is none that the catalogue may hold.
    #[error("the catalogue must not hold this item")]
    Unfit(#[source] Unfit),
    /// The document is another item than its event says.
    #[error("the document is the item {item:?} of {collection:?}, and its event names another")]
    Other {
        /// The document's collection.
        collection: String,
        /// The document's id.
        item: String,
    },
    /// The catalogue did not do as asked.
    #[error("could not load")]
    Catalogue(#[source] CatalogueError),
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            // The ports know.
            Self::Read(source) => source.class(),
            Self::Catalogue(source) => source.class(),
            // The bytes will not change.
            Self::Unfit(_) | Self::Other { .. } => Class::Permanent,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Read(source) => Refusal::new(codes::LOAD_REFUSED, source.to_string()),
            Self::Unfit(unfit) => {
                let problem = Problem::new(unfit.code.clone(), unfit.pointer, unfit.reason.clone());
                Refusal::new(unfit.code.clone(), unfit.reason.clone()).with_problems(vec![problem])
            }
            Self::Other { .. } => Refusal::new(codes::LOAD_ID, self.to_string()),
            Self::Catalogue(source) => {
                let code = if let CatalogueError::Refused { code, .. } = source { code } else { &codes::LOAD_REFUSED };
                Refusal::new(code.clone(), source.to_string())
            }
        }
    }
}

impl Stage for Load {
    type Input = Routed;
    type Output = Report;
    type Error = Error;

    const NAME: &'static str = "load";

    async fn handle(&self, batch: &[Envelope<Routed>], now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for group in groups(batch) {
            outcomes.extend(self.handle_group(group, now).await);
        }
        outcomes
    }

    async fn ready(&self) -> Result<(), Error> {
        self.catalogue.ready().await.map_err(Error::Catalogue)
    }

    async fn tend(&self, now: Timestamp) -> Result<Vec<Envelope<Routed>>, Error> {
        self.catalogue.tend(now).await.map_err(Error::Catalogue)
    }
}

/// Which of so many shards something belongs to: of one thing, always the same.
fn shard(of: &impl Hash, count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    usize::try_from(hasher.finish() % count as u64).expect("it is less than their number")
}

/// The bytes of an event's document.
fn size(envelope: &Envelope<Routed>) -> u64 {
    match &envelope.event {
        Routed::Item(ItemRouted { document, .. }) | Routed::Collection(CollectionRouted { document, .. }) => {
            match document {
                Document::Inline(raw) => raw.get().len() as u64,
                Document::Stored(stored) => stored.size,
            }
        }
        Routed::Removed(_) | Routed::Released(_) => 0,
    }
}

/// Cuts a batch so that the documents of one group are not held in memory together with those of the next.
fn groups(batch: &[Envelope<Routed>]) -> Vec<&[Envelope<Routed>]> {
    let (mut groups, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, envelope) in batch.iter().enumerate() {
        let size = size(envelope);
        if index > start && bytes + size > BYTES_MAX {
            groups.push(&batch[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    groups.push(&batch[start..]);
    groups
}

impl Load {
    /// Builds the stage on what surrounds it.
    ///
    /// # Errors
    /// Where the catalogue is not configured.
    pub fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let park_max = surroundings.config.policy().wait_max;
        let (catalogue, connections) = surroundings.catalogue_with_connections()?;
        Ok(Self::on(Arc::new(catalogue), surroundings.documents.clone(), park_max, connections))
    }

    /// Builds the stage on ports.
    pub fn with(
        catalogue: Arc<dyn Catalogue>,
        objects: Arc<dyn Objects>,
        work_bucket: &str,
        park_max: Duration,
    ) -> Self {
        Self::on(catalogue, Documents::new(objects, work_bucket), park_max, 1)
    }

    /// The same, applying up to `connections` parts of a batch at a time.
    pub fn on(catalogue: Arc<dyn Catalogue>, documents: Documents, park_max: Duration, connections: usize) -> Self {
        let shards = (0..connections.max(1)).map(|_| Mutex::default()).collect();
        Self { catalogue, documents, park_max, shards }
    }

    fn park_until(&self, now: Timestamp) -> Timestamp {
        let park_max = SignedDuration::try_from(self.park_max).unwrap_or(SignedDuration::MAX);
        let until = now.checked_add(park_max).unwrap_or(Timestamp::MAX);
        // In whole microseconds, as the ledger keeps it: a repetition says the same.
        Timestamp::from_microsecond(until.as_microsecond()).unwrap_or(until)
    }

    async fn handle_group(&self, batch: &[Envelope<Routed>], now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let each: Vec<_> = batch.iter().map(|envelope| self.change(envelope, None)).collect();
        let changes: Vec<_> = futures::stream::iter(each).buffered(CONCURRENCY).collect().await;
        let is_applied = |change: &&Change| !matches!(change.envelope.event, Routed::Released(_));
        let loads: Vec<&Change> = changes.iter().filter_map(|change| change.as_ref().ok()).filter(is_applied).collect();
        let mut settled = self.apply(&loads, self.park_until(now)).await.into_iter();

        let mut outcomes = Vec::with_capacity(batch.len());
        for (envelope, change) in batch.iter().zip(&changes) {
            let outcome = match (&envelope.event, change) {
                (_, Err(error)) => Err(error.clone()),
                (Routed::Released(released), Ok(_)) => self.release(envelope, released, now).await.map(Outcome::Done),
                (Routed::Item(_) | Routed::Collection(_) | Routed::Removed(_), Ok(change)) => {
                    match settled.next().expect("there is one result for each change") {
                        Ok(settled) => self.outcome(change, settled).await.map(Outcome::Done),
                        Err(error) => Err(error),
                    }
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn change(&self, envelope: &Envelope<Routed>, release: Option<&Envelope<Routed>>) -> Result<Change, Error> {
        let content = match &envelope.event {
            Routed::Item(ItemRouted { document, collection, item, .. }) => {
                let text = self.documents.read(document).await.map_err(Error::Read)?;
                let read = Item::read(text).map_err(Error::Unfit)?;
                if read.id != *item || read.collection != *collection {
                    return Err(Error::Other { collection: read.collection, item: read.id });
                }
                Content::Item(Arc::new(read))
            }
            Routed::Collection(CollectionRouted { document, .. }) => {
                Content::Collection(self.documents.read(document).await.map_err(Error::Read)?.into())
            }
            Routed::Removed(_) | Routed::Released(_) => Content::Nothing,
        };
        Ok(Change { envelope: envelope.clone(), content, released_by: release.map(|release| release.id.clone()) })
    }

    /// Applies changes: collections before what may wait for them, then the rest in as many parts as there are
    /// connections; what the database refuses is searched for by halves.
    async fn apply(&self, changes: &[&Change], park_until: Timestamp) -> Vec<Result<Settled, Error>> {
        let [collections, others] = parts(changes);
        let mut shards = vec![Vec::new(); self.shards.len()];
        for index in others {
            shards[self.shard(changes[index])].push(index);
        }
        let mut results = self.apply_part(0, collections, changes, park_until).await;
        let shards = shards.into_iter().enumerate();
        let rest = shards.map(|(shard, part)| self.apply_part(shard, part, changes, park_until));
        results.extend(futures::future::join_all(rest).await.into_iter().flatten());
        in_order(results)
    }

    async fn apply_part(
        &self,
        shard: usize,
        part: Vec<usize>,
        changes: &[&Change],
        park_until: Timestamp,
    ) -> Vec<(usize, Result<Settled, Error>)> {
        if part.is_empty() {
            return Vec::new();
        }
        let _turn = self.shards[shard].lock().await;
        let attempt = |indices: Vec<usize>| async move {
            let some: Vec<&Change> = indices.into_iter().map(|index| changes[index]).collect();
            Attempt::of(self.catalogue.apply(&some, park_until).await)
        };
        let results = by_halves(part, attempt).await;
        results.into_iter().map(|(index, result)| (index, result.map_err(Error::Catalogue))).collect()
    }

    /// The connection's turn that a change takes: of an item, always the same.
    fn shard(&self, change: &Change) -> usize {
        match &change.envelope.event {
            Routed::Item(routed) => shard(&(&routed.collection, &routed.item), self.shards.len()),
            Routed::Collection(_) | Routed::Removed(_) | Routed::Released(_) => {
                shard(&change.envelope.event.cause().object, self.shards.len())
            }
        }
    }

    /// Lets one batch of parked items go on, and says when to look for the next.
    async fn release(
        &self,
        envelope: &Envelope<Routed>,
        released: &CollectionReleased,
        now: Timestamp,
    ) -> Result<Done<Routed, Report>, Error> {
        let found = self.catalogue.releasable(&envelope.id, &released.collection, RELEASE_MAX, now).await;
        let found = found.map_err(Error::Catalogue)?;
        let mut done = Done::default();
        if found.is_empty() {
            return Ok(done);
        }
        let mut changes = Vec::with_capacity(found.len());
        let (mut refusals, mut bytes) = (Vec::new(), 0);
        for waiter in found {
            if let Some(refusal) = waiter.refusal {
                refusals.push((waiter.envelope, refusal));
                continue;
            }
            // The next batch takes what would be too much at once.
            bytes += size(&waiter.envelope);
            if bytes > BYTES_MAX && !changes.is_empty() {
                break;
            }
            match self.change(&waiter.envelope, Some(envelope)).await {
                Ok(change) => changes.push(change),
                // One document that is gone or too large must not hold the others up.
                Err(error)
                    if error.class() == Class::Permanent || matches!(error, Error::Read(ObjectsError::Missing(_))) =>
                {
                    refusals.push((waiter.envelope, error.refusal()));
                }
                Err(error) => return Err(error),
            }
        }
        let settled = self.apply(&changes.iter().collect::<Vec<_>>(), self.park_until(now)).await;
        for (change, settled) in changes.iter().zip(settled) {
            let mut one = match settled {
                Ok(settled) => self.outcome(change, settled).await?,
                Err(error) if error.class() == Class::Permanent => refused(error.refusal()),
                Err(error) => return Err(error),
            };
            refusals.extend(one.refused.drain(..).map(|refused| (change.envelope.clone(), refused.refusal)));
            done.next.append(&mut one.next);
            done.again.append(&mut one.again);
        }
        for (parked, refusal) in refusals {
            let refusal = of_item(refusal, &parked);
            // A refused item must not be found parked again, and must be found again by a repetition of this release.
            let (cause, stage) = (parked.event.cause().clone(), Self::NAME.to_owned());
            let report = parked.followed_by(Report::from(report::Refused { cause, stage, refusal: refusal.clone() }));
            let recorded = self.catalogue.record(&[report], Some(&envelope.id)).await.map_err(Error::Catalogue)?;
            // What something newer has made needless is not refused.
            if recorded.iter().all(|recorded| recorded.standing != Standing::Superseded) {
                done.refused.push(Refused { member: Some(parked), refusal });
            }
        }
        done.again.push(again(envelope, released, released.batch + 1));
        Ok(done)
    }

    /// What follows from what the catalogue did.
    async fn outcome(&self, change: &Change, settled: Settled) -> Result<Done<Routed, Report>, Error> {
        let mut done = outcome(change, settled.applied);
        done.next.extend(settled.gone.into_iter().map(|gone| deleted(&change.envelope, gone)));
        for back in settled.back {
            done.again.extend(self.back(back).await?);
        }
        Ok(done)
    }

    /// The event that loads a document again from where it is archived; of a generation of its own, so that its
    /// announcement is a new one.
    async fn back(&self, back: Back) -> Result<Option<Envelope<Routed>>, Error> {
        let text = match self.documents.read_at(&back.destination).await {
            Ok(text) => text,
            Err(ObjectsError::Missing(object)) => {
                error!(%object, collection = back.collection, item = back.item, "the item's other document is gone from its archive: the catalogue keeps the one that was removed");
                return Ok(None);
            }
            Err(error) => return Err(Error::Read(error)),
        };
        // What landed at its key since is on its way to us, and settles it.
        if Item::read(text.as_str())
            .map_or(true, |read| (read.collection, read.id) != (back.collection.clone(), back.item.clone()))
        {
            info!(object = %back.destination, "the item's other document has been replaced meanwhile");
            return Ok(None);
        }
        let size = text.len() as u64;
        let document = self.documents.pack(text).await.map_err(Error::Read)?;
        let stored = RoutedObject { object: back.destination, size, etag: None, storage_class: None };
        let (cause, collection, item, warnings) = (back.cause, back.collection, back.item, back.warnings);
        let routed = ItemRouted { cause, collection, item, document, stored, assets: Vec::new(), warnings };
        Ok(Some(Envelope::new(routed.into(), back.provider, back.redrive + 1)))
    }
}

fn again(envelope: &Envelope<Routed>, released: &CollectionReleased, batch: u32) -> Envelope<Routed> {
    let mut next = envelope.followed_by(Routed::from(CollectionReleased { batch, ..released.clone() }));
    // The batch's number makes the id of each step its own, and the same in every repetition.
    next.id = landfall_events::EventId::of(&released.cause, &format!("{} {batch}", next.event.kind()), next.redrive);
    next
}

fn refused(refusal: Refusal) -> Done<Routed, Report> {
    Done { refused: vec![Refused { member: None, refusal }], ..Done::default() }
}

fn of_item(refusal: Refusal, envelope: &Envelope<Routed>) -> Refusal {
    match &envelope.event {
        Routed::Item(routed) => refusal.of_item(&routed.collection, &routed.item),
        Routed::Collection(_) | Routed::Removed(_) | Routed::Released(_) => refusal,
    }
}

/// The report that an item went.
fn deleted(envelope: &Envelope<Routed>, gone: Gone) -> Envelope<Report> {
    let cause = envelope.event.cause();
    let id = gone.event(cause, envelope.redrive);
    let Gone { collection, item, member } = gone;
    let (cause, effect) = (Cause { member, ..cause.clone() }, Effect::Deleted);
    let loaded = ItemLoaded { cause, collection, item, effect, document: None, assets: Vec::new(), place: None };
    Envelope { id, ..envelope.followed_by(loaded.into()) }
}

/// The report that a change needs nothing done.
fn ignored(envelope: &Envelope<Routed>, rule: &str) -> Envelope<Report> {
    let ignored = Ignored { cause: envelope.event.cause().clone(), rule: rule.to_owned() };
    envelope.followed_by(ignored.into())
}

/// What follows for the change itself.
fn outcome(change: &Change, applied: Applied) -> Done<Routed, Report> {
    let (mut done, envelope) = (Done::default(), &change.envelope);
    match (&envelope.event, applied) {
        (Routed::Item(routed), Applied::Loaded { effect, .. }) => {
            let loaded = ItemLoaded {
                cause: routed.cause.clone(),
                collection: routed.collection.clone(),
                item: routed.item.clone(),
                effect,
                document: Some(routed.document.clone()),
                assets: routed.assets.clone(),
                place: if let Content::Item(item) = &change.content { Some(item.place()) } else { None },
            };
            done.next.push(envelope.followed_by(loaded.into()));
        }
        (Routed::Collection(routed), Applied::Loaded { effect, release }) => {
            let loaded = CollectionLoaded {
                cause: routed.cause.clone(),
                collection: routed.collection.clone(),
                effect,
                document: routed.document.clone(),
            };
            done.next.push(envelope.followed_by(loaded.into()));
            if release {
                let (cause, collection) = (routed.cause.clone(), routed.collection.clone());
                let released = CollectionReleased { cause, collection, batch: 0 };
                done.again.push(again(envelope, &released, 0));
            }
        }
        (_, Applied::Owned { by }) => {
            let refusal = Refusal::new(codes::LOAD_COLLECTION_OWNED, format!("the collection belongs to {by:?}"));
            return refused(of_item(refusal, envelope));
        }
        (_, Applied::Repeated { member }) => {
            let line = member.map(|member| format!(" as member {member}")).unwrap_or_default();
            let reason = format!("the same id stands in this file already{line}");
            return refused(of_item(Refusal::new(codes::LOAD_REPEATED, reason), envelope));
        }
        (_, Applied::Ignored(rule)) => done.next.push(ignored(envelope, rule)),
        (_, Applied::Parked { until, collection }) => {
            let (cause, stage) = (envelope.event.cause().clone(), Load::NAME.to_owned());
            let waits_for = vec![format!("the collection {collection}")];
            let (collection, item) = match &envelope.event {
                Routed::Item(routed) => (Some(routed.collection.clone()), Some(routed.item.clone())),
                Routed::Collection(_) | Routed::Removed(_) | Routed::Released(_) => (None, None),
            };
            let waiting = Waiting { cause, stage, waits_for, until, collection, item };
            done.next.push(envelope.followed_by(waiting.into()));
        }
        // The ledger has it; its provider is told.
        (Routed::Item(_) | Routed::Collection(_), Applied::Superseded) => {
            metrics::superseded();
            done.next.push(ignored(envelope, report::OUTDONE))
        }
        (_, Applied::Removed) => done.next.push(ignored(envelope, report::REMOVED)),
        (_, Applied::Superseded | Applied::Loaded { .. } | Applied::Cleared) => {}
    }
    done
}

#[cfg(test)]
mod tests {
    use landfall_events::ObjectRef;
    use landfall_shared::memory::{MemoryCatalogue, MemoryObjects};

    use super::*;

    fn document(id: &str, title: &str) -> Document {
        let text = serde_json::json!({
            "id": id, "collection": "c", "geometry": {"type": "Point", "coordinates": [1, 2]},
            "properties": {"datetime": "2024-01-01T00:00:00Z", "title": title},
        });
        Document::Inline(serde_json::value::RawValue::from_string(text.to_string()).unwrap())
    }

    struct World {
        stage: Load,
        catalogue: MemoryCatalogue,
        objects: MemoryObjects,
    }

    fn world() -> World {
        let (catalogue, objects) = (MemoryCatalogue::new(Arc::default()), MemoryObjects::new(Arc::default()));
        let stage = Load::with(Arc::new(catalogue.clone()), Arc::new(objects.clone()), "work", Duration::from_secs(60));
        World { stage, catalogue, objects }
    }

    impl World {
        fn land(&self, key: &str) -> Cause {
            self.objects.land(&ObjectRef::new("landing", key), key.to_owned())
        }

        fn item(&self, id: &str, title: &str) -> Envelope<Routed> {
            self.item_at(id, id, title)
        }

        fn item_at(&self, key: &str, id: &str, title: &str) -> Envelope<Routed> {
            let document = document(id, title);
            let stored = ObjectRef::new("archive", key);
            let Document::Inline(text) = &document else { panic!("it is small") };
            self.objects.land(&stored, text.get().to_owned());
            let stored = RoutedObject { object: stored, size: 1, etag: None, storage_class: None };
            let cause = self.land(key);
            let routed = ItemRouted {
                cause,
                collection: "c".into(),
                item: id.into(),
                document,
                stored,
                assets: vec![],
                warnings: vec![],
            };
            Envelope::new(routed.into(), "p", 0)
        }

        fn collection(&self) -> Envelope<Routed> {
            let document = Document::Inline(serde_json::value::RawValue::from_string("{}".into()).unwrap());
            let stored =
                RoutedObject { object: ObjectRef::new("archive", "c"), size: 1, etag: None, storage_class: None };
            let routed =
                CollectionRouted { cause: self.land("c"), collection: "c".into(), document, stored, warnings: vec![] };
            Envelope::new(routed.into(), "p", 0)
        }

        async fn handle(&self, batch: &[Envelope<Routed>]) -> Vec<Done<Routed, Report>> {
            self.handle_at(batch, Timestamp::UNIX_EPOCH).await
        }

        async fn handle_at(&self, batch: &[Envelope<Routed>], now: Timestamp) -> Vec<Done<Routed, Report>> {
            let outcomes = self.stage.handle(batch, now).await;
            let done = |outcome: Result<Outcome<Load>, Error>| match outcome {
                Ok(Outcome::Done(done)) => done,
                Ok(Outcome::Wait(_)) => panic!("load parks and never waits"),
                Err(error) if error.class() == Class::Permanent => refused(error.refusal()),
                Err(error) => panic!("{error}"),
            };
            outcomes.into_iter().map(done).collect()
        }
    }

    #[tokio::test]
    async fn parked_items_are_released_batch_by_batch_and_a_repetition_releases_the_same() {
        let world = world();
        let items: Vec<_> = (0..RELEASE_MAX + 5).map(|n| world.item(&format!("i{n:03}"), "good")).collect();
        let is_waiting =
            |done: &Done<Routed, Report>| matches!(&*done.next, [one] if matches!(&one.event, Report::Waiting(_)));
        assert!(world.handle(&items).await.iter().all(is_waiting));

        let mut release = world.handle(&[world.collection()]).await.remove(0).again.remove(0);
        let mut sizes = Vec::new();
        loop {
            let first = world.handle(std::slice::from_ref(&release)).await.remove(0);
            let second = world.handle(std::slice::from_ref(&release)).await.remove(0);
            assert_eq!(first.next, second.next);
            sizes.push(first.next.len());
            let Some(next) = first.again.into_iter().next() else { break };
            release = next;
        }

        assert_eq!(sizes, [RELEASE_MAX, 5, 0]);
        assert_eq!(world.catalogue.kept().items.len(), RELEASE_MAX + 5);
    }

    #[tokio::test]
    async fn a_poison_item_is_refused_alone() {
        let world = world();
        world.handle(&[world.collection()]).await;
        let batch: Vec<_> =
            (0..8).map(|n| world.item(&format!("i{n}"), if n == 5 { "poison" } else { "good" })).collect();

        let outcomes = world.handle(&batch).await;

        let refusals: Vec<_> = outcomes.iter().map(|done| done.refused.len()).collect();
        assert_eq!(refusals, [0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(world.catalogue.kept().items.len(), 7);
    }

    #[tokio::test]
    async fn a_poison_item_that_was_parked_is_refused_again_by_a_repetition_and_by_nobody_else() {
        let world = world();
        world.handle(&[world.item("bad", "poison"), world.item("good", "good")]).await;
        let release = world.handle(&[world.collection()]).await.remove(0).again.remove(0);

        let first = world.handle(std::slice::from_ref(&release)).await.remove(0);
        let repeated = world.handle(std::slice::from_ref(&release)).await.remove(0);
        let next = world.handle(&first.again).await.remove(0);

        assert_eq!((first.next.len(), first.refused.len()), (1, 1));
        assert_eq!((repeated.next.len(), repeated.refused.len()), (1, 1));
        assert_eq!((next.next.len(), next.refused.len(), next.again.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_waits_too_long_is_refused_and_a_repetition_refuses_the_same() {
        let world = world();
        world.handle(&[world.item("late", "good")]).await;
        let released = CollectionReleased { cause: world.land("x"), collection: "c".into(), batch: 0 };
        let release = Envelope::new(Routed::from(released), "p", 0);
        let at = |seconds| Timestamp::from_second(seconds).unwrap();

        let early = world.handle_at(std::slice::from_ref(&release), at(59)).await.remove(0);
        let first = world.handle_at(std::slice::from_ref(&release), at(60)).await.remove(0);
        world.handle(&[world.collection()]).await;
        let repeated = world.handle_at(std::slice::from_ref(&release), at(61)).await.remove(0);

        assert!(early.refused.is_empty() && early.next.is_empty() && early.again.is_empty());
        assert_eq!(first.refused[0].refusal.code, codes::LOAD_COLLECTION_MISSING);
        assert_eq!(first.refused[0].refusal, repeated.refused[0].refusal);
        assert_eq!(first.refused[0].member, repeated.refused[0].member);
        assert!(world.catalogue.kept().items.is_empty());
    }

    #[tokio::test]
    async fn when_the_newer_of_two_files_goes_the_older_ones_document_comes_back() {
        let world = world();
        world.handle(&[world.collection()]).await;
        let (older, newer) = (world.item_at("a.json", "i", "older"), world.item_at("b.json", "i", "newer"));
        world.handle(&[older, newer]).await;
        let removed = world.objects.remove(&ObjectRef::new("landing", "b.json"));
        let removed = Envelope::new(Routed::from(landfall_events::validated::ObjectRemoved { cause: removed }), "p", 0);

        let done = world.handle(std::slice::from_ref(&removed)).await.remove(0);
        let repeated = world.handle(std::slice::from_ref(&removed)).await.remove(0);
        let back = world.handle(&done.again).await.remove(0);
        let late = world.handle(std::slice::from_ref(&removed)).await.remove(0);

        assert!(
            matches!(&*done.next, [one] if matches!(&one.event, Report::Ignored(ignored) if ignored.rule == report::REMOVED))
        );
        assert_eq!(done.again.len(), 1);
        assert_eq!(done.again, repeated.again);
        assert!(matches!(&back.next[0].event, Report::Item(loaded) if loaded.effect == Effect::Replaced));
        assert!(late.again.is_empty());
        let kept = world.catalogue.kept().items;
        assert!(kept[&("c".to_owned(), "i".to_owned())].contains("older"), "{kept:?}");
    }

    #[tokio::test]
    async fn what_the_catalogue_must_not_hold_is_refused_before_it() {
        let world = world();
        let mut bad = world.item("bad", "good");
        let Routed::Item(routed) = &mut bad.event else { panic!("it is an item") };
        let text = r#"{"id":"bad","collection":"c","geometry":null,"properties":{"datetime":"2024-01-01T00:00:00Z"}}"#;
        routed.document = Document::Inline(serde_json::value::RawValue::from_string(text.into()).unwrap());

        let done = world.handle(&[bad]).await.remove(0);

        let refusal = &done.refused[0].refusal;
        assert_eq!((refusal.code.as_str(), refusal.problems[0].pointer.as_str()), ("load.geometry", "/geometry"));
    }

    #[test]
    fn a_batch_is_cut_where_its_documents_grow_too_large() {
        let world = world();
        let mut batch: Vec<_> = (0..5).map(|n| world.item(&format!("{n}"), "good")).collect();
        for large in [1, 2] {
            let Routed::Item(routed) = &mut batch[large].event else { panic!("it is an item") };
            let stored = landfall_events::document::Stored {
                object: ObjectRef::new("work", "x"),
                size: BYTES_MAX,
                sha256: String::new(),
            };
            routed.document = Document::Stored(stored);
        }
        assert_eq!(groups(&batch).iter().map(|group| group.len()).collect::<Vec<_>>(), [1, 1, 1, 2]);
    }
}
