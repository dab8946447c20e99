//! The route stage: every object to the bucket where it belongs, and documents that say so.
//!
//! It copies under the source's etag, verifies what it copied, and lets an older object never take a newer one's
//! place. It refuses to guess where an href leads.

mod assets;
mod bucket_map;
mod checksums;
mod copying;
mod maintenance;
mod provenance;
mod rewriting;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use landfall_events::report::{Ignored, ObjectRouted, Report};
use landfall_events::routed::{CollectionRouted, ItemRouted, RoutedObject};
use landfall_events::{Cause, Document, Envelope, Event, ObjectRef, Problem, Refusal, Routed, Validated, codes};
use landfall_shared::config::{Config, Environment, Landings};
use landfall_shared::documents::{DOCUMENT_BYTES_MAX, Documents};
use landfall_shared::objects::{ObjectInfo, Objects, ObjectsError, Over, Properties};
use landfall_shared::watched::{Watched, WatchedError};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Stage, Wait};
use serde::Serialize;
use tokio::time::Instant;

pub use bucket_map::{BadMap, BucketMap, Explanation, Facts, Finding, Generation, Lint, Place, Rule, Target, Unmapped};
pub use maintenance::{Sweep, Swept, sweep};

use assets::{Asset, Parts};
use checksums::Held;
use copying::{Copied, Copier, CopyError, Order};
use provenance::{Provenance, Standing};
use rewriting::Rewriting;
use work::{Awaited, Work};

/// Events that are routed at a time.
const CONCURRENCY: usize = 16;

/// Assets of one document that are looked up or copied at a time.
const ASSET_CONCURRENCY: usize = 8;

/// The stage.
pub struct Route {
    objects: Arc<dyn Objects>,
    documents: Documents,
    landings: Landings,
    map: Watched<BucketMap>,
    copier: Copier,
    work: Work,
    rewriting: Rewriting,
    copy_time_max: Duration,
    read_bytes_max: u64,
}

/// Why it could not decide, or does not take it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be read or written.
    #[error("could not move an object")]
    Move(#[from] ObjectsError),
    /// An object could not be copied.
    #[error(transparent)]
    Copy(#[from] NotCopied),
    /// There is no bucket map to look into.
    #[error("there is no bucket map")]
    Map(#[source] WatchedError),
    /// The map does not say where the object belongs.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// No landing is configured for it any more.
    #[error("no landing is configured for {0}")]
    Unconfigured(ObjectRef),
    /// An href leads out of the provider's part of landing.
    #[error("the asset {asset:?} has an href that leads out of its provider's files: {href}")]
    Escape {
        /// The asset's name.
        asset: String,
        /// Its href.
        href: String,
    },
    /// An href fits two landed objects.
    #[error("the asset {asset:?} fits two landed objects: {first} and {second}")]
    Ambiguous {
        /// The asset's name.
        asset: String,
        /// One object.
        first: ObjectRef,
        /// The other.
        second: ObjectRef,
    },
    /// Assets are not what their item says.
    #[error("{} assets are not as the document says; {}", .0.len(), .0.first().map_or("", |problem| &problem.message))]
    Unequal(Vec<Problem>),
    /// Two files of one document would get the same key.
    #[error("{} and {} would both become {}", .0.first, .0.second, .0.to)]
    Collision(Box<Collision>),
    /// The document cannot be taken apart.
    #[error("the document's assets cannot be read")]
    Parts(#[source] serde_json::Error),
}

/// Two files that would get the same key.
#[derive(Debug)]
pub struct Collision {
    /// One file.
    pub first: ObjectRef,
    /// The other.
    pub second: ObjectRef,
    /// The destination.
    pub to: ObjectRef,
}

/// Why an object could not be copied.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotCopied(#[from] CopyError);

impl From<CopyError> for Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Move(error) => Self::Move(error),
            error @ (CopyError::Unequal { .. } | CopyError::Taken { .. } | CopyError::Restless(_)) => {
                Self::Copy(NotCopied(error))
            }
        }
    }
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            // The port knows.
            Self::Move(source) => source.class(),
            Self::Copy(NotCopied(error)) => match error {
                CopyError::Move(source) => source.class(),
                // A copy that broke on its way, or was overtaken each time, is copied again.
                CopyError::Unequal { .. } | CopyError::Restless(_) => Class::Transient,
                CopyError::Taken { .. } => Class::Permanent,
            },
            // An operator mends the map; nothing that landed is at fault.
            Self::Map(_) => Class::Transient,
            Self::Unmapped(_)
            | Self::Unconfigured(_)
            | Self::Escape { .. }
            | Self::Ambiguous { .. }
            | Self::Unequal(_)
            | Self::Collision(_)
            | Self::Parts(_) => Class::Permanent,
        }
    }

    fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Unmapped(Unmapped::Escape { .. }) => codes::ROUTE_ESCAPE,
            Self::Unmapped(Unmapped::Provider { .. } | Unmapped::Path { .. }) => codes::ROUTE_UNMAPPED,
            Self::Unmapped(Unmapped::NeedsItem { .. }) => codes::ROUTE_UNCLAIMED,
            Self::Unconfigured(_) => codes::LANDING_UNCONFIGURED,
            Self::Escape { .. } => codes::ROUTE_ESCAPE,
            Self::Ambiguous { .. } => codes::ROUTE_AMBIGUOUS,
            Self::Unequal(_) => codes::ROUTE_ASSET_UNEQUAL,
            Self::Collision(_) | Self::Copy(NotCopied(CopyError::Taken { .. })) => codes::ROUTE_COLLISION,
            Self::Parts(_) => codes::STAC_SCHEMA,
            Self::Move(_) => codes::ROUTE_REFUSED,
            Self::Map(_) | Self::Copy(_) => codes::GAVE_UP,
        };
        let mut refusal = Refusal::new(code, landfall_shared::stage::chain_of(self));
        if let Self::Unequal(problems) = self {
            refusal.problems = problems.iter().take(landfall_events::refusal::PROBLEMS_MAX).cloned().collect();
        }
        refusal
    }
}

impl Stage for Route {
    type Input = Validated;
    type Output = Routed;
    type Error = Error;

    const NAME: &'static str = "route";

    async fn handle(&self, batch: &[Envelope<Validated>], _now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let until = Instant::now() + self.copy_time_max;
        let each: Vec<_> = batch.iter().map(|envelope| self.one(envelope, until)).collect();
        futures::stream::iter(each).buffered(CONCURRENCY).collect().await
    }

    async fn ready(&self) -> Result<(), Error> {
        Ok(self.objects.ready(self.work.bucket()).await?)
    }
}

/// The bucket map in force; nothing may be routed to the `forbidden` buckets.
fn watched_map(objects: Arc<dyn Objects>, place: &str, forbidden: &[&str]) -> Watched<BucketMap> {
    let forbidden: Vec<String> = forbidden.iter().map(|&bucket| bucket.to_owned()).collect();
    Watched::new("bucket map", objects, place, DOCUMENT_BYTES_MAX, move |bytes| {
        let forbidden: Vec<&str> = forbidden.iter().map(String::as_str).collect();
        Ok(BucketMap::parse(std::str::from_utf8(bytes)?, &forbidden)?)
    })
}

/// How an asset of a document stands.
enum Found {
    /// It leads elsewhere.
    Foreign,
    /// It has not landed; the places where it may.
    Missing(Vec<ObjectRef>),
    /// It has landed.
    There(Box<There>),
}

/// A landed object.
struct There {
    /// Where it landed.
    source: ObjectRef,
    /// Where it is: there still, or at its destination, because it was routed and then removed.
    at: ObjectRef,
    info: ObjectInfo,
}

/// One asset that has a place.
struct AssetOrder<'a> {
    asset: &'a Asset,
    there: &'a There,
    target: &'a Target,
}

/// What became of one asset.
enum Moved {
    /// It is at its destination, perhaps with a warning.
    To(RoutedObject, Option<Problem>),
    /// It is not what its document says.
    Unequal(Problem),
    /// The rest of it follows with the next message.
    Unfinished,
}

/// What routing a document came to.
enum Placed {
    Done(Done<Validated, Routed>),
    Waits(Vec<Vec<ObjectRef>>),
    /// Copies in parts go on with the next message.
    Unfinished,
}

/// A document on its way.
struct Placing<'a> {
    envelope: &'a Envelope<Validated>,
    cause: &'a Cause,
    document: &'a Document,
    collection: &'a str,
    item: Option<&'a str>,
    warnings: &'a [Problem],
    until: Instant,
}

impl Placing<'_> {
    /// The document's name among all: what is placed by it is a part of it.
    fn name(&self) -> String {
        self.item.map_or_else(|| self.collection.to_owned(), |item| format!("{}/{item}", self.collection))
    }

    fn routed(
        &self,
        document: Document,
        stored: RoutedObject,
        assets: Vec<RoutedObject>,
        warnings: Vec<Problem>,
    ) -> Routed {
        let (cause, collection) = (self.cause.clone(), self.collection.to_owned());
        match self.item {
            Some(item) => {
                ItemRouted { cause, collection, item: item.to_owned(), document, stored, assets, warnings }.into()
            }
            None => CollectionRouted { cause, collection, document, stored, warnings }.into(),
        }
    }
}

/// What became of an asset's href, for the archive's books.
#[derive(Debug, Serialize)]
struct Placement<'a> {
    name: &'a str,
    href: &'a str,
    source: &'a ObjectRef,
    source_etag: &'a str,
    destination: &'a RoutedObject,
}

impl Route {
    /// Builds the stage on what surrounds it; `LANDFALL_BUCKET_MAP` names the map.
    ///
    /// # Errors
    /// Where the variable is missing, there is no good map to start with, or a template of the configuration is wrong.
    pub async fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let mut environment = Environment::default();
        let place = environment.required("LANDFALL_BUCKET_MAP");
        environment.finish()?;
        let Surroundings { objects, landings, config, work_bucket, .. } = surroundings;
        let stage = Self::with(objects.clone(), landings.clone(), config, &place, work_bucket)?;
        stage.map.current().await?;
        Ok(stage)
    }

    /// Builds the stage on ports, with the map at `map` (a path or `s3://…`).
    ///
    /// # Errors
    /// Where a template of the configuration is wrong.
    pub fn with(
        objects: Arc<dyn Objects>,
        landings: Landings,
        config: &Config,
        map: &str,
        work_bucket: &str,
    ) -> anyhow::Result<Self> {
        let forbidden: Vec<&str> = landings.buckets().into_iter().chain([work_bucket]).collect();
        let map = watched_map(objects.clone(), map, &forbidden);
        let rewriting = Rewriting::new(&config.route, &config.destinations)?;
        let work = Work::new(objects.clone(), work_bucket);
        let settings = config.route.copy.clone();
        let copy_time_max = Duration::from_secs(settings.time_max_s);
        let read_bytes_max = settings.read_mib_max.saturating_mul(1024 * 1024);
        let copier = Copier::new(objects.clone(), work.clone(), settings);
        let documents = Documents::new(objects.clone(), work_bucket);
        Ok(Self { objects, documents, landings, map, copier, work, rewriting, copy_time_max, read_bytes_max })
    }

    async fn one(&self, envelope: &Envelope<Validated>, until: Instant) -> Result<Outcome<Self>, Error> {
        let mut outcome = match &envelope.event {
            Validated::Item(item) => {
                let (cause, document, warnings) = (&item.cause, &item.document, &item.warnings[..]);
                let (collection, item) = (item.collection.as_str(), Some(item.item.as_str()));
                let placing = Placing { envelope, cause, document, collection, item, warnings, until };
                self.outcome(&placing, self.place(&placing).await)?
            }
            Validated::Collection(collection) => {
                let (cause, document, warnings) = (&collection.cause, &collection.document, &collection.warnings[..]);
                let collection = collection.collection.as_str();
                let placing = Placing { envelope, cause, document, collection, item: None, warnings, until };
                self.outcome(&placing, self.place(&placing).await)?
            }
            Validated::Object(accepted) => self.data(envelope, &accepted.cause, until).await?,
            Validated::Removed(removed) => return Ok(Outcome::next(envelope.followed_by(removed.clone().into()))),
        };
        // Whatever landed may be what an item waits for.
        let cause = envelope.event.cause();
        if let Outcome::Done(done) = &mut outcome
            && cause.member.is_none()
        {
            done.again.extend(self.work.wake(Awaited::Asset(&cause.object)).await?);
        }
        Ok(outcome)
    }

    /// What follows from a document that was placed, or was not.
    fn outcome(&self, placing: &Placing<'_>, placed: Result<Placed, Error>) -> Result<Outcome<Self>, Error> {
        let of = |refusal: Refusal| match placing.item {
            Some(item) => refusal.of_item(placing.collection, item),
            None => refusal,
        };
        match placed {
            Ok(Placed::Done(done)) => Ok(Outcome::Done(done)),
            Ok(Placed::Waits(missing)) => {
                let names: Vec<_> = missing.iter().take(WAITS_NAMED_MAX).map(|places| in_words(places)).collect();
                let reason = format!("{} assets have not landed: {}", missing.len(), names.join(", "));
                let refusal = of(Refusal::new(codes::ROUTE_ASSET_MISSING, reason));
                Ok(Outcome::Wait(Wait { waits_for: names, refusal }))
            }
            Ok(Placed::Unfinished) => Ok(unfinished(placing.envelope)),
            Err(error) if error.class() == Class::Permanent => Ok(Outcome::refused(of(error.refusal()))),
            Err(error) => Err(error),
        }
    }

    /// Routes plain data and tells notify; there is nothing to load.
    async fn data(
        &self,
        envelope: &Envelope<Validated>,
        cause: &Cause,
        until: Instant,
    ) -> Result<Outcome<Self>, Error> {
        let object = &cause.object;
        let sited = self.sited(object)?;
        let map = self.map.current().await.map_err(Error::Map)?;
        let mut item = None;
        let target = match map.target(sited.provider, sited.path, None) {
            Ok(target) => target,
            Err(unmapped @ Unmapped::NeedsItem { .. }) => {
                let Some(info) = self.objects.head(object).await? else { return Ok(ignored(envelope, cause, "gone")) };
                let Some(claim) = self.claimed(envelope, object, &info.etag).await? else {
                    let waits_for = vec![format!("an item that names {object} as its asset")];
                    return Ok(Outcome::Wait(Wait { waits_for, refusal: Error::from(unmapped).refusal() }));
                };
                item = Some(claim.item.clone());
                claim.target()
            }
            Err(unmapped) => return Err(unmapped.into()),
        };
        let (provider, item, about) = (sited.provider, item.as_deref(), Some(cause));
        let order = Order { from: object, to: &target, provider, cause: about, item, checked: None, until };
        match self.copier.copy(order).await? {
            // Another event is under way for what is there now.
            Copied::At(_, etag) if cause.etag.as_ref().is_some_and(|ours| *ours != etag) => {
                Ok(ignored(envelope, cause, "overwritten"))
            }
            Copied::At(destination, _) => {
                let routed = ObjectRouted { cause: cause.clone(), destination };
                Ok(Outcome::report(envelope.followed_by(Report::from(routed))))
            }
            Copied::Superseded(_) => Ok(ignored(envelope, cause, "superseded")),
            Copied::Gone => Ok(ignored(envelope, cause, "gone")),
            Copied::Unfinished => Ok(unfinished(envelope)),
        }
    }

    /// Where an item has placed an object; where none has, its event is marked to be woken by the one that does.
    async fn claimed(
        &self,
        envelope: &Envelope<Validated>,
        object: &ObjectRef,
        etag: &str,
    ) -> Result<Option<work::Claim>, Error> {
        if let Some(claim) = self.work.claimed(object, etag).await? {
            return Ok(Some(claim));
        }
        self.work.mark(envelope, &[Awaited::Claim(object)], &[]).await?;
        // The item may have come between the look and the mark.
        Ok(self.work.claimed(object, etag).await?)
    }

    /// Copies a document's assets, writes their new places into it, and stores it at its own.
    async fn place(&self, placing: &Placing<'_>) -> Result<Placed, Error> {
        let text = self.documents.read(placing.document).await?;
        let mut parts = Parts::read(&text).map_err(Error::Parts)?;
        let map = self.map.current().await.map_err(Error::Map)?;
        let (collection, item) = (Some(placing.collection), placing.item);
        let facts = Facts { collection, item, date: item.and_then(|_| parts.date()) };
        let assets: Vec<Asset> = parts.assets().collect();

        let mut found = self.find(placing, &map, &facts, &assets).await?;
        let missing = missing(&found);
        if !missing.is_empty() {
            let awaited: Vec<_> = missing.iter().flatten().map(Awaited::Asset).collect();
            self.work.mark(placing.envelope, &awaited, &missing).await?;
            // What landed between the look and the mark has found no mark to wake us by.
            found = self.find(placing, &map, &facts, &assets).await?;
            let missing = self::missing(&found);
            if !missing.is_empty() {
                return Ok(Placed::Waits(missing));
            }
        }

        let stored_at = self.own_place(placing, &map, &facts)?;
        let targets = self.targets(placing, &map, &facts, &found, &stored_at)?;
        let orders = orders(&assets, &found, &targets);
        let mut warnings = placing.warnings.to_vec();
        let Some(routed) = self.move_assets(placing, &orders, &mut warnings).await? else {
            return Ok(Placed::Unfinished);
        };

        let own = ObjectRef::new(&stored_at.bucket, &stored_at.key);
        let mut places: HashMap<&ObjectRef, &ObjectRef> = HashMap::from([(&placing.cause.object, &own)]);
        places.extend(orders.iter().map(|order| &order.there.source).zip(routed.iter().map(|routed| &routed.object)));
        for (asset, found) in assets.iter().zip(&found) {
            if let Found::There(there) = found
                && let Some(place) = places.get(&there.source)
            {
                parts.set_href(&asset.name, &self.rewriting.href(place), self.rewriting.keeps_original);
            }
        }
        parts.set_links(&self.rewriting.links(placing.collection, placing.item));
        let text = parts.write();
        let stored = self.store(placing, &stored_at, &text, &placements(&orders, &routed)).await?;
        let document = self.documents.pack(text).await?;
        let event = placing.routed(document, stored, once_each(routed), warnings);
        let mut done = Done { next: vec![placing.envelope.followed_by(event)], ..Done::default() };
        // What landed alone has waited to be told its place.
        for order in orders.iter().filter(|order| order.target.by_document) {
            done.again.extend(self.work.wake(Awaited::Claim(&order.there.source)).await?);
        }
        Ok(Placed::Done(done))
    }

    /// Holds all assets against what is said of them, and copies them; `None` where some of it follows with the next
    /// message.
    async fn move_assets(
        &self,
        placing: &Placing<'_>,
        orders: &[AssetOrder<'_>],
        warnings: &mut Vec<Problem>,
    ) -> Result<Option<Vec<RoutedObject>>, Error> {
        let name = placing.name();
        let moves: Vec<_> = orders.iter().map(|order| self.move_asset(placing, &name, order)).collect();
        let moved: Vec<Moved> = futures::stream::iter(moves).buffered(ASSET_CONCURRENCY).try_collect().await?;
        let (mut routed, mut wrong, mut is_whole) = (Vec::new(), Vec::new(), true);
        for moved in moved {
            match moved {
                Moved::To(object, warning) => {
                    routed.push(object);
                    warnings.extend(warning);
                }
                Moved::Unequal(problem) => wrong.push(problem),
                Moved::Unfinished => is_whole = false,
            }
        }
        if wrong.is_empty() { Ok(is_whole.then_some(routed)) } else { Err(Error::Unequal(wrong)) }
    }

    /// Finds the landed objects that assets mean.
    async fn find(
        &self,
        placing: &Placing<'_>,
        map: &BucketMap,
        facts: &Facts<'_>,
        assets: &[Asset],
    ) -> Result<Vec<Found>, Error> {
        let each: Vec<_> = assets.iter().map(|asset| self.find_one(placing, map, facts, asset)).collect();
        futures::stream::iter(each).buffered(ASSET_CONCURRENCY).try_collect().await
    }

    async fn find_one(
        &self,
        placing: &Placing<'_>,
        map: &BucketMap,
        facts: &Facts<'_>,
        asset: &Asset,
    ) -> Result<Found, Error> {
        let object = &placing.cause.object;
        let sited = self.sited(object)?;
        let is_ours = |bucket: &str| {
            self.landings.has_bucket(bucket) || map.buckets().contains(bucket) || bucket == self.work.bucket()
        };
        let candidates = match assets::target(&asset.href, object, sited.root, is_ours) {
            assets::Target::Foreign => return Ok(Found::Foreign),
            assets::Target::Escape => {
                let (asset, href) = (asset.name.clone(), asset.href.chars().take(200).collect());
                return Err(Error::Escape { asset, href });
            }
            assets::Target::Landed(candidates) => candidates,
        };
        let mut there: Option<(ObjectRef, ObjectInfo)> = None;
        for candidate in &candidates {
            let Some(info) = self.objects.head(candidate).await? else { continue };
            if let Some((first, _)) = there {
                return Err(Error::Ambiguous { asset: asset.name.clone(), first, second: candidate.clone() });
            }
            there = Some((candidate.clone(), info));
        }
        if let Some((source, info)) = there {
            return Ok(Found::There(Box::new(There { at: source.clone(), source, info })));
        }
        // It may have been routed and then removed from landing.
        for candidate in &candidates {
            let sited = self.sited(candidate)?;
            let Ok(target) = map.target(sited.provider, sited.path, Some(facts)) else { continue };
            let at = ObjectRef::new(target.bucket, target.key);
            let info = self.objects.head(&at).await?;
            if let Some(info) = info.filter(|info| provenance::is_of(info, candidate)) {
                return Ok(Found::There(Box::new(There { source: candidate.clone(), at, info })));
            }
        }
        Ok(Found::Missing(candidates))
    }

    /// Where a document belongs; a member of a file gets a file of its own beside it.
    fn own_place(&self, placing: &Placing<'_>, map: &BucketMap, facts: &Facts<'_>) -> Result<Target, Error> {
        let sited = self.sited(&placing.cause.object)?;
        let mut target = map.target(sited.provider, sited.path, Some(facts))?;
        if let Some(member) = placing.cause.member {
            target.key = format!("{}.members/{member}.json", target.key);
        }
        Ok(target)
    }

    /// Where the assets belong; two files of one document never get one key.
    fn targets(
        &self,
        placing: &Placing<'_>,
        map: &BucketMap,
        facts: &Facts<'_>,
        found: &[Found],
        stored_at: &Target,
    ) -> Result<Vec<Option<Target>>, Error> {
        let own = &placing.cause.object;
        let mut taken = BTreeMap::from([(ObjectRef::new(&stored_at.bucket, &stored_at.key), own)]);
        let mut targets = Vec::with_capacity(found.len());
        for found in found {
            let Found::There(there) = found else {
                targets.push(None);
                continue;
            };
            let object = &there.source;
            let sited = self.sited(object)?;
            let target = map.target(sited.provider, sited.path, Some(facts))?;
            let to = ObjectRef::new(&target.bucket, &target.key);
            match taken.insert(to.clone(), object) {
                Some(first) if first != object => {
                    let (first, second) = (first.clone(), object.clone());
                    return Err(Error::Collision(Box::new(Collision { first, second, to })));
                }
                // A document that has itself as an asset is stored as the document; a file of several is a file too.
                Some(_) | None => {
                    targets.push(Some(target).filter(|_| object != own || placing.cause.member.is_some()))
                }
            }
        }
        Ok(targets)
    }

    /// Holds one asset against what is said of it, and copies it.
    async fn move_asset(&self, placing: &Placing<'_>, name: &str, order: &AssetOrder<'_>) -> Result<Moved, Error> {
        let AssetOrder { asset, there, target } = *order;
        let There { source, at, info } = there;
        if let Held::Unequal(problem) = checksums::size(asset, source, info) {
            return Ok(Moved::Unequal(*problem));
        }
        let target = match target.by_document {
            true if at == source => &self.work.claim(source, &info.etag, target, name).await?,
            _ => target,
        };
        let to = ObjectRef::new(&target.bucket, &target.key);
        let mut warning = None;
        if asset.checksum.is_some() && !self.was_checked(asset, there, &to).await? {
            if Instant::now() >= placing.until {
                return Ok(Moved::Unfinished);
            }
            let _permit = self.copier.permit().await;
            match checksums::checksum(&*self.objects, asset, at, info, self.read_bytes_max).await? {
                Held::Equal => {}
                Held::Unequal(problem) => return Ok(Moved::Unequal(*problem)),
                Held::Untold(problem) => warning = Some(*problem),
            }
        }
        if at != source {
            let (size, etag, storage_class) = (info.size, Some(info.etag.clone()), target.storage_class);
            return Ok(Moved::To(RoutedObject { object: at.clone(), size, etag, storage_class }, None));
        }
        let checked = asset.checksum.as_deref().filter(|_| warning.is_none());
        let checked = checked.map(|checksum| (info.etag.as_str(), checksum));
        let (provider, item, until) = (self.sited(source)?.provider, Some(name), placing.until);
        let order = Order { from: source, to: target, provider, cause: None, item, checked, until };
        Ok(match self.copier.copy(order).await? {
            Copied::At(routed, _) | Copied::Superseded(routed) => Moved::To(routed, warning),
            Copied::Unfinished => Moved::Unfinished,
            // It was there a moment ago: another look says what has become of it.
            Copied::Gone => return Err(ObjectsError::Missing(source.clone()).into()),
        })
    }

    /// Whether a copy of this content says that it was held against this checksum. What a provider says of what landed
    /// counts for nothing.
    async fn was_checked(&self, asset: &Asset, there: &There, to: &ObjectRef) -> Result<bool, Error> {
        let copy = match there.at == there.source {
            true => self.objects.head(to).await?,
            false => Some(there.info.clone()),
        };
        let is_of = |copy: &ObjectInfo| {
            provenance::is_of(copy, &there.source)
                && (there.at != there.source || provenance::is_of_content(copy, &there.info.etag))
        };
        Ok(copy.filter(is_of).is_some_and(|copy| provenance::checked(&copy) == asset.checksum.as_deref()))
    }

    fn sited<'a>(&'a self, object: &'a ObjectRef) -> Result<landfall_shared::config::Sited<'a>, Error> {
        self.landings.site(object).ok_or_else(|| Error::Unconfigured(object.clone()))
    }

    /// Stores the rewritten document, unless a newer one is there.
    async fn store(
        &self,
        placing: &Placing<'_>,
        target: &Target,
        text: &str,
        placements: &[Placement<'_>],
    ) -> Result<RoutedObject, Error> {
        let (cause, to) = (placing.cause, ObjectRef::new(&target.bucket, &target.key));
        let ours = Provenance::of_document(cause, self.sited(&cause.object)?.provider, &placing.name(), text);
        let there = self.objects.head(&to).await?;
        let storage_class = target.storage_class;
        let stored = |size, etag| Ok(RoutedObject { object: to.clone(), size, etag: Some(etag), storage_class });
        match (ours.standing(there.as_ref()), &there) {
            // Load will find an older one superseded.
            (Standing::Same | Standing::Newer, Some(there)) => return stored(there.size, there.etag.clone()),
            (Standing::Taken(by), _) => return Err(CopyError::Taken { to, by }.into()),
            (Standing::Older | Standing::Same | Standing::Newer, _) => {}
        }
        let mut properties =
            Properties::of_type(if placing.item.is_some() { "application/geo+json" } else { "application/json" });
        properties.metadata = ours.metadata(&BTreeMap::new());
        properties.storage_class = storage_class;
        properties.tags = Some(target.tags.clone()).filter(|tags| !tags.is_empty());
        if !placements.is_empty() {
            self.keep_hrefs(placing, &to, placements).await?;
        }
        // Whoever writes between the look and this wins, and we look again.
        let over = there.as_ref().map_or(Over::Nothing, |there| Over::This(&there.etag));
        let etag = self.objects.put(&to, Bytes::from(text.to_owned()), &properties, over).await?;
        stored(text.len() as u64, etag)
    }

    /// Keeps what hrefs were, and where each has led to.
    async fn keep_hrefs(
        &self,
        placing: &Placing<'_>,
        to: &ObjectRef,
        placements: &[Placement<'_>],
    ) -> Result<(), Error> {
        let Placing { cause, collection, item, envelope, .. } = placing;
        let hrefs = serde_json::json!({"cause": cause, "collection": collection, "item": item, "event": envelope.id,
            "document": to, "assets": placements});
        Ok(self.work.keep_hrefs(to, &hrefs).await?)
    }
}

/// What is to be copied. What is named twice is copied once; what is said of it is held against it each time.
fn orders<'a>(assets: &'a [Asset], found: &'a [Found], targets: &'a [Option<Target>]) -> Vec<AssetOrder<'a>> {
    let mut seen = HashSet::new();
    let mut orders = Vec::new();
    for ((asset, found), target) in assets.iter().zip(found).zip(targets) {
        let (Found::There(there), Some(target)) = (found, target) else { continue };
        if seen.insert(&there.source) || asset.size.is_some() || asset.checksum.is_some() {
            orders.push(AssetOrder { asset, there, target });
        }
    }
    orders
}

fn placements<'a>(orders: &[AssetOrder<'a>], routed: &'a [RoutedObject]) -> Vec<Placement<'a>> {
    let one = |(order, destination): (&AssetOrder<'a>, &'a RoutedObject)| Placement {
        name: &order.asset.name,
        href: &order.asset.href,
        source: &order.there.source,
        source_etag: &order.there.info.etag,
        destination,
    };
    orders.iter().zip(routed).map(one).collect()
}

fn once_each(mut routed: Vec<RoutedObject>) -> Vec<RoutedObject> {
    let mut seen = HashSet::new();
    routed.retain(|one| seen.insert(one.object.clone()));
    routed
}

/// Missing assets that are named in a wait.
const WAITS_NAMED_MAX: usize = 20;

fn missing(found: &[Found]) -> Vec<Vec<ObjectRef>> {
    let missing =
        found.iter().filter_map(|found| if let Found::Missing(places) = found { Some(places.clone()) } else { None });
    missing.collect()
}

/// Where something may land, the dataset's root first.
fn in_words(places: &[ObjectRef]) -> String {
    places.iter().rev().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// The same event again, at once: it goes on where this one stopped.
fn unfinished(envelope: &Envelope<Validated>) -> Outcome<Route> {
    Outcome::Done(Done { again: vec![envelope.clone()], ..Done::default() })
}

fn ignored(envelope: &Envelope<Validated>, cause: &Cause, rule: &str) -> Outcome<Route> {
    let ignored = Ignored { cause: cause.clone(), rule: rule.to_owned() };
    Outcome::report(envelope.followed_by(Report::from(ignored)))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod schedules;
