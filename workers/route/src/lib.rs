//! The route stage: every object to the bucket where it belongs, and documents that say so.
//!
//! It copies under the source's etag, verifies what it copied, and lets an older object never take a newer one's
//! place. It refuses to guess where an href leads.

mod assets;
mod bucket_map;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use landfall_events::report::{Ignored, ObjectRouted, Report};
use landfall_events::routed::{CollectionRouted, ItemRouted, RoutedObject};
use landfall_events::{Cause, Document, Envelope, ObjectRef, Refusal, Routed, Sequencer, Validated, codes};
use landfall_shared::config::{Environment, Landings};
use landfall_shared::documents::{DOCUMENT_BYTES_MAX, Documents};
use landfall_shared::objects::{ObjectInfo, Objects, ObjectsError, Over};
use landfall_shared::watched::{Watched, WatchedError};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Stage, Wait};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

pub use bucket_map::{BucketMap, MapError, Target, Unmapped};

use assets::Parts;

/// Events that are routed at a time.
const CONCURRENCY: usize = 16;

/// The stage.
pub struct Route {
    objects: Arc<dyn Objects>,
    documents: Documents,
    landings: Landings,
    map: Watched<BucketMap>,
    work_bucket: String,
}

/// Why it could not decide, or does not take it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be read, copied or written.
    #[error("could not move an object")]
    Move(#[source] ObjectsError),
    /// There is no bucket map to look into.
    #[error("there is no bucket map")]
    Map(#[source] WatchedError),
    /// The map does not say where the object belongs.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// No landing is configured for it any more.
    #[error("no landing is configured for {0}")]
    Unconfigured(ObjectRef),
    /// What was copied is not what was there.
    #[error("the copy {to} is not equal to {from}: {expected} bytes became {found}")]
    Unequal {
        /// The source.
        from: ObjectRef,
        /// The copy.
        to: ObjectRef,
        /// The source's size in bytes.
        expected: u64,
        /// The copy's size in bytes.
        found: u64,
    },
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
    /// The document cannot be taken apart.
    #[error("the document's assets cannot be read")]
    Parts(#[source] serde_json::Error),
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            // The port knows.
            Self::Move(source) => source.class(),
            // An operator mends the map; nothing that landed is at fault.
            Self::Map(_) => Class::Transient,
            // A copy that broke on its way is copied again.
            Self::Unequal { .. } => Class::Transient,
            Self::Unmapped(_)
            | Self::Unconfigured(_)
            | Self::Escape { .. }
            | Self::Ambiguous { .. }
            | Self::Parts(_) => Class::Permanent,
        }
    }

    fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Unmapped(_) => codes::ROUTE_UNMAPPED,
            Self::Unconfigured(_) => codes::LANDING_UNCONFIGURED,
            Self::Escape { .. } => codes::ROUTE_ESCAPE,
            Self::Ambiguous { .. } => codes::ROUTE_AMBIGUOUS,
            Self::Parts(_) => codes::STAC_SCHEMA,
            Self::Move(_) => codes::ROUTE_REFUSED,
            Self::Map(_) | Self::Unequal { .. } => codes::GAVE_UP,
        };
        Refusal::new(code, landfall_shared::stage::chain_of(self))
    }
}

impl Stage for Route {
    type Input = Validated;
    type Output = Routed;
    type Error = Error;

    const NAME: &'static str = "route";

    async fn handle(&self, batch: &[Envelope<Validated>], _now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let each: Vec<_> = batch.iter().map(|envelope| self.one(envelope)).collect();
        futures::stream::iter(each).buffered(CONCURRENCY).collect().await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.objects.ready(&self.work_bucket).await.map_err(Error::Move)
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
    Foreign,
    Missing(ObjectRef),
    At(ObjectRef, ObjectInfo),
}

/// What routing a document came to.
enum Placed {
    Done { document: Document, stored: RoutedObject, assets: Vec<RoutedObject> },
    Waits(Vec<ObjectRef>),
}

impl Route {
    /// Builds the stage on what surrounds it; `LANDFALL_BUCKET_MAP` names the map.
    ///
    /// # Errors
    /// Where the variable is missing, or there is no good map to start with.
    pub async fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let mut environment = Environment::default();
        let place = environment.required("LANDFALL_BUCKET_MAP");
        environment.finish()?;
        let forbidden = [surroundings.landing_bucket.as_str(), surroundings.work_bucket.as_str()];
        let map = watched_map(surroundings.objects.clone(), &place, &forbidden);
        map.current().await?;
        Ok(Self {
            objects: surroundings.objects.clone(),
            documents: surroundings.documents.clone(),
            landings: surroundings.landings.clone(),
            map,
            work_bucket: surroundings.work_bucket.clone(),
        })
    }

    /// Builds the stage on ports, with the map at `map` (a path or `s3://…`).
    pub fn with(objects: Arc<dyn Objects>, landings: Landings, map: &str, work_bucket: &str) -> Self {
        let documents = Documents::new(objects.clone(), work_bucket);
        let map = watched_map(objects.clone(), map, &[work_bucket]);
        Self { objects, documents, landings, map, work_bucket: work_bucket.to_owned() }
    }

    async fn one(&self, envelope: &Envelope<Validated>) -> Result<Outcome<Self>, Error> {
        match &envelope.event {
            Validated::Item(item) => {
                let placed = self.place(&item.cause, &item.document).await;
                let warnings = &item.warnings;
                match placed.map_err(|error| (error, &item.collection, &item.item)) {
                    Ok(Placed::Done { document, stored, assets }) => {
                        let (cause, collection, item) =
                            (item.cause.clone(), item.collection.clone(), item.item.clone());
                        let warnings = warnings.to_vec();
                        let routed = ItemRouted { cause, collection, item, document, stored, assets, warnings };
                        Ok(Outcome::next(envelope.followed_by(routed.into())))
                    }
                    Ok(Placed::Waits(missing)) => Ok(waits(missing, Some((&item.collection, &item.item)))),
                    Err((error, collection, id)) if error.class() == Class::Permanent => {
                        Ok(Outcome::refused(error.refusal().of_item(collection, id)))
                    }
                    Err((error, ..)) => Err(error),
                }
            }
            Validated::Collection(collection) => match self.place(&collection.cause, &collection.document).await? {
                Placed::Done { document, stored, .. } => {
                    let (cause, id) = (collection.cause.clone(), collection.collection.clone());
                    let warnings = collection.warnings.clone();
                    let routed = CollectionRouted { cause, collection: id, document, stored, warnings };
                    Ok(Outcome::next(envelope.followed_by(routed.into())))
                }
                Placed::Waits(missing) => Ok(waits(missing, None)),
            },
            Validated::Object(accepted) => self.data(envelope, &accepted.cause).await,
            Validated::Removed(removed) => Ok(Outcome::next(envelope.followed_by(removed.clone().into()))),
        }
    }

    /// Routes plain data and tells notify; there is nothing to load.
    async fn data(&self, envelope: &Envelope<Validated>, cause: &Cause) -> Result<Outcome<Self>, Error> {
        let to = self.destination(&cause.object, cause.member).await?;
        let etag = match &cause.etag {
            Some(etag) => etag.clone(),
            None => match self.objects.head(&cause.object).await.map_err(Error::Move)? {
                Some(info) => info.etag,
                None => return Ok(ignored(envelope, cause, "gone")),
            },
        };
        match self.copy(&cause.object, &etag, &to, cause.sequencer.as_ref()).await {
            Ok(Some(destination)) => {
                let routed = ObjectRouted { cause: cause.clone(), destination };
                Ok(Outcome::Done(Done { reports: vec![envelope.followed_by(Report::from(routed))], ..Done::default() }))
            }
            Ok(None) => Ok(ignored(envelope, cause, "superseded")),
            // Another event is under way for what is there now.
            Err(Error::Move(ObjectsError::Changed(object))) if object == cause.object => {
                Ok(ignored(envelope, cause, "overwritten"))
            }
            Err(Error::Move(ObjectsError::Missing(object))) if object == cause.object => {
                Ok(ignored(envelope, cause, "gone"))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies a document's assets, writes their new places into it, and stores it at its own.
    async fn place(&self, cause: &Cause, document: &Document) -> Result<Placed, Error> {
        let text = self.documents.read(document).await.map_err(Error::Move)?;
        let mut parts = Parts::read(&text).map_err(Error::Parts)?;
        let hrefs: Vec<_> = parts.hrefs().map(|(name, href)| (name.to_owned(), href)).collect();
        let mut found = Vec::with_capacity(hrefs.len());
        for (name, href) in hrefs {
            let asset = self.find(cause, &name, &href).await?;
            found.push((name, asset));
        }
        let missing: Vec<_> = found
            .iter()
            .filter_map(|(_, asset)| if let Found::Missing(object) = asset { Some(object.clone()) } else { None })
            .collect();
        if !missing.is_empty() {
            return Ok(Placed::Waits(missing));
        }
        let stored_at = self.destination(&cause.object, cause.member).await?;
        let mut assets = Vec::new();
        for (name, asset) in found {
            let Found::At(object, info) = asset else { continue };
            let to = self.destination(&object, None).await?;
            let routed = match self.copy(&object, &info.etag, &to, None).await? {
                Some(routed) => routed,
                None => RoutedObject { object: to, size: info.size, etag: None },
            };
            parts.set_href(&name, &routed.object.to_string());
            assets.push(routed);
        }
        let text = parts.write();
        let stored = self.store(cause, &stored_at, &text).await?;
        let document = self.documents.pack(text).await.map_err(Error::Move)?;
        Ok(Placed::Done { document, stored, assets })
    }

    /// Finds the landed object that an asset means.
    async fn find(&self, cause: &Cause, asset: &str, href: &str) -> Result<Found, Error> {
        let root = self.sited(&cause.object)?.root.to_owned();
        let candidates = match assets::target(href, &cause.object, &root) {
            assets::Target::Foreign => return Ok(Found::Foreign),
            assets::Target::Escape => {
                let (asset, href) = (asset.to_owned(), href.chars().take(200).collect());
                return Err(Error::Escape { asset, href });
            }
            assets::Target::Landed(candidates) => candidates,
        };
        let mut there: Option<(ObjectRef, ObjectInfo)> = None;
        for candidate in &candidates {
            let Some(info) = self.objects.head(candidate).await.map_err(Error::Move)? else { continue };
            if let Some((first, _)) = there {
                return Err(Error::Ambiguous { asset: asset.to_owned(), first, second: candidate.clone() });
            }
            there = Some((candidate.clone(), info));
        }
        let last = candidates.into_iter().last();
        Ok(match (there, last) {
            (Some((object, info)), _) => Found::At(object, info),
            // The dataset's root is where files are expected that are nowhere yet.
            (None, Some(expected)) => Found::Missing(expected),
            (None, None) => Found::Foreign,
        })
    }

    fn sited<'a>(&'a self, object: &'a ObjectRef) -> Result<landfall_shared::config::Sited<'a>, Error> {
        self.landings.site(object).ok_or_else(|| Error::Unconfigured(object.clone()))
    }

    /// Where an object belongs; a member of a file gets a file of its own beside it.
    async fn destination(&self, object: &ObjectRef, member: Option<u32>) -> Result<ObjectRef, Error> {
        let map = self.map.current().await.map_err(Error::Map)?;
        let sited = self.sited(object)?;
        let target = map.target(sited.provider, sited.path)?;
        let key = match member {
            Some(member) => format!("{}.members/{member}.json", target.key),
            None => target.key,
        };
        Ok(ObjectRef::new(target.bucket, key))
    }

    /// Copies what has this etag and looks at the copy. `None` where the destination holds something newer.
    async fn copy(
        &self,
        from: &ObjectRef,
        etag: &str,
        to: &ObjectRef,
        sequencer: Option<&Sequencer>,
    ) -> Result<Option<RoutedObject>, Error> {
        let source = source_of(from);
        if let Some(there) = self.objects.head(to).await.map_err(Error::Move)? {
            if is_same(&there, &source, etag) {
                return Ok(Some(RoutedObject { object: to.clone(), size: there.size, etag: Some(there.etag) }));
            }
            if is_newer(&there, &source, sequencer) {
                return Ok(None);
            }
        }
        let copied = self.objects.copy(from, etag, to, &provenance(source, etag, sequencer)).await;
        let (expected, copied) = copied.map_err(Error::Move)?;
        if copied.size != expected {
            let (from, to) = (from.clone(), to.clone());
            return Err(Error::Unequal { from, to, expected, found: copied.size });
        }
        Ok(Some(RoutedObject { object: to.clone(), size: copied.size, etag: Some(copied.etag) }))
    }

    /// Stores the rewritten document, unless a newer one is there.
    async fn store(&self, cause: &Cause, to: &ObjectRef, text: &str) -> Result<RoutedObject, Error> {
        let source = source_of(&cause.object);
        let size = text.len() as u64;
        let there = self.objects.head(to).await.map_err(Error::Move)?;
        if let Some(there) = &there
            && is_newer(there, &source, cause.sequencer.as_ref())
        {
            // Load will find this one superseded.
            return Ok(RoutedObject { object: to.clone(), size: there.size, etag: Some(there.etag.clone()) });
        }
        let etag = cause.etag.as_deref().unwrap_or_default();
        let metadata = provenance(source, etag, cause.sequencer.as_ref());
        let body = Bytes::from(text.to_owned());
        // Whoever writes between the look and this wins, and we look again.
        let over = there.as_ref().map_or(Over::Nothing, |there| Over::This(&there.etag));
        let written = self.objects.put(to, body, "application/json", &metadata, over).await.map_err(Error::Move)?;
        Ok(RoutedObject { object: to.clone(), size, etag: Some(written.etag) })
    }
}

const SOURCE: &str = "landfall-source";
const ETAG: &str = "landfall-etag";
const SEQUENCER: &str = "landfall-sequencer";

/// The longest source that is written out: all user metadata together may have 2 KB.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const SOURCE_BYTES_MAX: usize = 1024;

/// User metadata takes ASCII only, so that the source is written as a URL; a very long one as its hash.
fn source_of(object: &ObjectRef) -> String {
    let encode = |part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
    let key: Vec<_> = object.key.split('/').map(encode).collect();
    let url = format!("s3://{}/{}", object.bucket, key.join("/"));
    if url.len() <= SOURCE_BYTES_MAX {
        return url;
    }
    format!("sha256:{}", hex::encode(Sha256::digest(url)))
}

fn provenance(source: String, etag: &str, sequencer: Option<&Sequencer>) -> BTreeMap<String, String> {
    let sequencer = sequencer.map(ToString::to_string).unwrap_or_default();
    let pairs = [(SOURCE, source), (ETAG, etag.to_owned()), (SEQUENCER, sequencer)];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn is_same(there: &ObjectInfo, source: &str, etag: &str) -> bool {
    let says = |name: &str, value: &str| there.metadata.get(name).is_some_and(|there| there == value);
    says(SOURCE, source) && says(ETAG, etag)
}

fn is_newer(there: &ObjectInfo, source: &str, sequencer: Option<&Sequencer>) -> bool {
    let theirs = there.metadata.get(SEQUENCER).cloned().and_then(|text| Sequencer::try_from(text).ok());
    let of_same = there.metadata.get(SOURCE).is_some_and(|there| there == source);
    of_same && theirs.zip(sequencer).is_some_and(|(theirs, ours)| theirs > *ours)
}

fn waits(missing: Vec<ObjectRef>, item: Option<(&String, &String)>) -> Outcome<Route> {
    let waits_for: Vec<_> = missing.iter().take(20).map(ToString::to_string).collect();
    let reason = format!("{} assets have not landed: {}", missing.len(), waits_for.join(", "));
    let mut refusal = Refusal::new(codes::ROUTE_ASSET_MISSING, reason);
    if let Some((collection, item)) = item {
        refusal = refusal.of_item(collection, item);
    }
    Outcome::Wait(Wait { waits_for, refusal })
}

fn ignored(envelope: &Envelope<Validated>, cause: &Cause, rule: &str) -> Outcome<Route> {
    let ignored = Ignored { cause: cause.clone(), rule: rule.to_owned() };
    Outcome::report(envelope.followed_by(Report::from(ignored)))
}

#[cfg(test)]
mod tests;
