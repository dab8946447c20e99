//! The load stage: documents into pgSTAC, in the order in which they landed, each once in effect.
//!
//! It writes batches; what is new, replaced, superseded or waiting is the catalogue's to say. It refuses to lose a
//! batch for one document: what the database refuses is searched for by halves.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use landfall_events::report::{CollectionLoaded, Effect, Ignored, ItemLoaded, Report};
use landfall_events::routed::{CollectionReleased, CollectionRouted, ItemRouted};
use landfall_events::{Cause, Envelope, Event, Refusal, Routed, codes, report};
use landfall_shared::catalogue::{Applied, Catalogue, CatalogueError, Gone, Load as Change};
use landfall_shared::documents::Documents;
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Refused, Stage};

/// Items that one release step lets go on.
const RELEASE_MAX: usize = 100;

/// Large documents that are read at a time.
const CONCURRENCY: usize = 8;

/// The stage.
pub struct Load {
    catalogue: Arc<dyn Catalogue>,
    documents: Documents,
    park_max: Duration,
}

/// Why it could not decide.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A document that did not fit its message could not be read.
    #[error("could not read the document")]
    Read(#[source] ObjectsError),
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
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Read(source) => Refusal::new(codes::LOAD_REFUSED, source.to_string()),
            Self::Catalogue(source) => Refusal::new(codes::LOAD_REFUSED, source.to_string()),
        }
    }
}

impl Stage for Load {
    type Input = Routed;
    type Output = Report;
    type Error = Error;

    const NAME: &'static str = "load";

    async fn handle(&self, batch: &[Envelope<Routed>], now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let each: Vec<_> = batch.iter().map(|envelope| self.change(envelope, None)).collect();
        let changes: Vec<_> = futures::stream::iter(each).buffered(CONCURRENCY).collect().await;
        let readable: Vec<Change> = changes.iter().filter_map(|change| change.as_ref().ok()).cloned().collect();
        let releases = |change: &Change| matches!(change.envelope.event, Routed::Released(_));
        let loads: Vec<Change> = readable.into_iter().filter(|change| !releases(change)).collect();
        let mut applied = self.apply(&loads, self.park_until(now)).await.into_iter();

        let mut outcomes = Vec::with_capacity(batch.len());
        for (envelope, change) in batch.iter().zip(changes) {
            outcomes.push(match (&envelope.event, change) {
                (_, Err(error)) => Err(error),
                (Routed::Released(released), Ok(_)) => self.release(envelope, released, now).await,
                (Routed::Item(_) | Routed::Collection(_) | Routed::Removed(_), Ok(_)) => {
                    let applied = applied.next().expect("there is one result for each change");
                    applied.map(|applied| Outcome::Done(outcome(envelope, applied)))
                }
            });
        }
        outcomes
    }

    async fn ready(&self) -> Result<(), Error> {
        self.catalogue.ready().await.map_err(Error::Catalogue)
    }
}

impl Load {
    /// Builds the stage on what surrounds it.
    ///
    /// # Errors
    /// Where the catalogue is not configured.
    pub fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let park_max = surroundings.config.policy().wait_max;
        Ok(Self { catalogue: surroundings.catalogue()?, documents: surroundings.documents.clone(), park_max })
    }

    /// Builds the stage on ports.
    pub fn with(
        catalogue: Arc<dyn Catalogue>,
        objects: Arc<dyn Objects>,
        work_bucket: &str,
        park_max: Duration,
    ) -> Self {
        Self { catalogue, documents: Documents::new(objects, work_bucket), park_max }
    }

    fn park_until(&self, now: Timestamp) -> Timestamp {
        let park_max = SignedDuration::try_from(self.park_max).unwrap_or(SignedDuration::MAX);
        now.checked_add(park_max).unwrap_or(Timestamp::MAX)
    }

    async fn change(&self, envelope: &Envelope<Routed>, release: Option<&Envelope<Routed>>) -> Result<Change, Error> {
        let document = match &envelope.event {
            Routed::Item(ItemRouted { document, .. }) | Routed::Collection(CollectionRouted { document, .. }) => {
                self.documents.read(document).await.map_err(Error::Read)?
            }
            Routed::Removed(_) | Routed::Released(_) => String::new(),
        };
        Ok(Change { envelope: envelope.clone(), document, released_by: release.map(|release| release.id.clone()) })
    }

    /// Applies changes together, and by halves where the database refuses them together.
    fn apply<'a>(&'a self, changes: &'a [Change], park_until: Timestamp) -> BoxFuture<'a, Vec<Result<Applied, Error>>> {
        async move {
            if changes.is_empty() {
                return Vec::new();
            }
            match self.catalogue.apply(changes, park_until).await {
                Ok(applied) => applied.into_iter().map(Ok).collect(),
                Err(CatalogueError::Refused { .. }) if changes.len() > 1 => {
                    let (first, second) = changes.split_at(changes.len() / 2);
                    let mut results = self.apply(first, park_until).await;
                    results.extend(self.apply(second, park_until).await);
                    results
                }
                Err(error) => changes.iter().map(|_| Err(Error::Catalogue(error.clone()))).collect(),
            }
        }
        .boxed()
    }

    /// Lets one batch of parked items go on, and says when to look for the next.
    async fn release(
        &self,
        envelope: &Envelope<Routed>,
        released: &CollectionReleased,
        now: Timestamp,
    ) -> Result<Outcome<Self>, Error> {
        let found = self.catalogue.releasable(&envelope.id, &released.collection, RELEASE_MAX).await;
        let found = found.map_err(Error::Catalogue)?;
        let mut done = Done::default();
        if found.is_empty() {
            return Ok(Outcome::Done(done));
        }
        let mut changes = Vec::with_capacity(found.len());
        let mut refusals = Vec::new();
        for parked in &found {
            match self.change(parked, Some(envelope)).await {
                Ok(change) => changes.push(change),
                // One document that is gone or too large must not hold the others up.
                Err(error @ Error::Read(ObjectsError::Missing(_) | ObjectsError::TooLarge { .. })) => {
                    refusals.push((parked.clone(), error.refusal()));
                }
                Err(error) => return Err(error),
            }
        }
        let applied = self.apply(&changes, self.park_until(now)).await;
        for (change, applied) in changes.iter().zip(applied) {
            let mut one = match applied {
                Ok(applied) => outcome(&change.envelope, applied),
                Err(error) if error.class() == Class::Permanent => refused(error.refusal()),
                Err(error) => return Err(error),
            };
            refusals.extend(one.refused.drain(..).map(|refused| (change.envelope.clone(), refused.refusal)));
            done.next.append(&mut one.next);
        }
        for (parked, refusal) in refusals {
            let refusal = of_item(refusal, &parked);
            // A refused item must not be found ready again, and must be found again by a repetition of this release.
            let (cause, stage) = (parked.event.cause().clone(), Self::NAME.to_owned());
            let report = parked.followed_by(Report::from(report::Refused { cause, stage, refusal: refusal.clone() }));
            self.catalogue.record(&[report], Some(&envelope.id)).await.map_err(Error::Catalogue)?;
            done.refused.push(Refused { member: Some(parked), refusal });
        }
        done.again.push(again(envelope, released, released.batch + 1));
        Ok(Outcome::Done(done))
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

/// What follows from what the catalogue did.
fn outcome(envelope: &Envelope<Routed>, applied: Applied) -> Done<Routed, Report> {
    let mut done = Done::default();
    match (&envelope.event, applied) {
        (Routed::Item(routed), Applied::Loaded { effect, .. }) => {
            let loaded = ItemLoaded {
                cause: routed.cause.clone(),
                collection: routed.collection.clone(),
                item: routed.item.clone(),
                effect,
                document: Some(routed.document.clone()),
                assets: routed.assets.clone(),
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
        (_, Applied::Removed(gone)) => {
            for one in gone {
                let cause = envelope.event.cause();
                let id = one.event(cause, envelope.redrive);
                let Gone { collection, item, member } = one;
                let (cause, effect) = (Cause { member, ..cause.clone() }, Effect::Deleted);
                let loaded = ItemLoaded { cause, collection, item, effect, document: None, assets: Vec::new() };
                done.next.push(Envelope { id, ..envelope.followed_by(loaded.into()) });
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
        (_, Applied::Ignored(rule)) => {
            let ignored = Ignored { cause: envelope.event.cause().clone(), rule: rule.to_owned() };
            done.next.push(envelope.followed_by(ignored.into()));
        }
        // The ledger has it, and says so to those who ask.
        (_, Applied::Superseded | Applied::Parked { .. } | Applied::Loaded { .. } | Applied::Cleared) => {}
    }
    done
}

#[cfg(test)]
mod tests {
    use landfall_events::routed::RoutedObject;
    use landfall_events::{Document, ObjectRef};
    use landfall_shared::memory::{MemoryCatalogue, MemoryObjects};

    use super::*;

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

        fn item(&self, id: &str, text: &str) -> Envelope<Routed> {
            let document = Document::Inline(serde_json::value::RawValue::from_string(text.into()).unwrap());
            let stored =
                RoutedObject { object: ObjectRef::new("archive", id), size: 1, etag: None, storage_class: None };
            let cause = self.land(id);
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
            let outcomes = self.stage.handle(batch, Timestamp::UNIX_EPOCH).await;
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
        let items: Vec<_> = (0..RELEASE_MAX + 5).map(|n| world.item(&format!("i{n:03}"), "{}")).collect();
        assert!(world.handle(&items).await.iter().all(|done| done.next.is_empty()));

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
            (0..8).map(|n| world.item(&format!("i{n}"), if n == 5 { r#"{"x":"poison"}"# } else { "{}" })).collect();

        let outcomes = world.handle(&batch).await;

        let refusals: Vec<_> = outcomes.iter().map(|done| done.refused.len()).collect();
        assert_eq!(refusals, [0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(world.catalogue.kept().items.len(), 7);
    }

    #[tokio::test]
    async fn a_poison_item_that_was_parked_is_refused_again_by_a_repetition_and_by_nobody_else() {
        let world = world();
        world.handle(&[world.item("bad", r#"{"x":"poison"}"#), world.item("good", "{}")]).await;
        let release = world.handle(&[world.collection()]).await.remove(0).again.remove(0);

        let first = world.handle(std::slice::from_ref(&release)).await.remove(0);
        let repeated = world.handle(std::slice::from_ref(&release)).await.remove(0);
        let next = world.handle(&first.again).await.remove(0);

        assert_eq!((first.next.len(), first.refused.len()), (1, 1));
        assert_eq!((repeated.next.len(), repeated.refused.len()), (1, 1));
        assert_eq!((next.next.len(), next.refused.len(), next.again.len()), (0, 0, 0));
    }
}
