//! What route keeps in the work bucket: open copies, markers of what waits, claims, and what became of hrefs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use landfall_events::routed::StorageClass;
use landfall_events::{Envelope, ObjectRef, Validated};
use landfall_shared::documents::DOCUMENT_BYTES_MAX;
use landfall_shared::objects::{Objects, ObjectsError, Over, Properties};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::bucket_map::Target;

/// Waiting events that one landed object wakes at a time, and objects that an event to be woken waits for.
const WOKEN_MAX: usize = 100;

/// Markers that are read at a time.
const CONCURRENCY: usize = 8;

/// The work bucket.
#[derive(Clone)]
pub(crate) struct Work {
    objects: Arc<dyn Objects>,
    bucket: String,
}

/// A copy in parts that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenCopy {
    pub(crate) from: ObjectRef,
    pub(crate) etag: String,
    pub(crate) to: ObjectRef,
    pub(crate) upload: String,
    pub(crate) part_bytes: u64,
    pub(crate) begun: Timestamp,
}

/// What an event waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited<'a> {
    /// A landed object.
    Asset(&'a ObjectRef),
    /// The item that has the object as an asset.
    Claim(&'a ObjectRef),
}

/// An event that waits, and everything that it waits for: of each, the places where it may land.
#[derive(Serialize, Deserialize)]
struct Marker {
    event: Box<RawValue>,
    missing: Vec<Vec<ObjectRef>>,
}

/// Where an item has placed an asset: fixed for all who ask later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    bucket: String,
    key: String,
    #[serde(default)]
    storage_class: Option<StorageClass>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// The item, as `<collection>/<item>`.
    pub(crate) item: String,
}

impl Claim {
    fn new(target: &Target, item: &str) -> Self {
        let Target { bucket, key, storage_class, tags, .. } = target.clone();
        Self { bucket, key, storage_class, tags, item: item.to_owned() }
    }

    /// The place.
    pub(crate) fn target(self) -> Target {
        let Self { bucket, key, storage_class, tags, .. } = self;
        Target { bucket, key, storage_class, tags, by_document: true }
    }
}

impl Work {
    pub(crate) fn new(objects: Arc<dyn Objects>, bucket: impl Into<String>) -> Self {
        Self { objects, bucket: bucket.into() }
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The open copy to a destination.
    pub(crate) async fn open_copy(&self, to: &ObjectRef) -> Result<Option<OpenCopy>, ObjectsError> {
        self.read(&self.open_copy_at(to)).await
    }

    /// Writes an open copy down; [`ObjectsError::Changed`] where there is another.
    pub(crate) async fn remember(&self, open: &OpenCopy) -> Result<(), ObjectsError> {
        self.write(&self.open_copy_at(&open.to), open, Over::Nothing).await
    }

    /// Forgets an open copy.
    pub(crate) async fn forget(&self, open: &OpenCopy) -> Result<(), ObjectsError> {
        self.objects.delete(&self.open_copy_at(&open.to), None).await
    }

    fn open_copy_at(&self, to: &ObjectRef) -> ObjectRef {
        self.at(format!("uploads/{}.json", hash(&to.to_string())))
    }

    /// All open copies, at most a thousand.
    pub(crate) async fn open_copies(&self) -> Result<Vec<OpenCopy>, ObjectsError> {
        let mut open = Vec::new();
        for at in self.objects.list(&self.bucket, "uploads/", 1000).await? {
            open.extend(self.read(&at).await?);
        }
        Ok(open)
    }

    /// Marks that an event waits for each of these; `missing` are all landed objects that it waits for.
    pub(crate) async fn mark(
        &self,
        event: &Envelope<Validated>,
        awaited: &[Awaited<'_>],
        missing: &[Vec<ObjectRef>],
    ) -> Result<(), ObjectsError> {
        // An event with so much to wait for comes again by itself only: nobody could look for all of it each time.
        if missing.len() > WOKEN_MAX {
            return Ok(());
        }
        let json = RawValue::from_string(event.to_json()).expect("an envelope is JSON");
        let marker = Marker { event: json, missing: missing.to_vec() };
        let each = awaited.iter().map(|awaited| {
            let at = self.at(format!("{}{}.json", waits(*awaited), event.id));
            let marker = &marker;
            async move { self.write(&at, marker, Over::Anything).await }
        });
        let each: Vec<_> = each.collect();
        let mut written = futures::stream::iter(each).buffer_unordered(CONCURRENCY);
        while let Some(one) = written.next().await {
            one?;
        }
        Ok(())
    }

    /// The events that waited for this and for nothing else any more. They are awake now: their marks are gone.
    pub(crate) async fn wake(&self, awaited: Awaited<'_>) -> Result<Vec<Envelope<Validated>>, ObjectsError> {
        let mut woken = Vec::new();
        for at in self.objects.list(&self.bucket, &waits(awaited), WOKEN_MAX).await? {
            let Some(marker) = self.read::<Marker>(&at).await? else { continue };
            let mut all_there = true;
            for places in &marker.missing {
                all_there = all_there && self.is_any_there(places).await?;
            }
            // An event that still waits is woken by the last that it waits for; and it comes by itself in any case.
            self.objects.delete(&at, None).await?;
            match Envelope::from_json(marker.event.get()) {
                Ok(event) if all_there => woken.push(event),
                Ok(_) => {}
                Err(error) => warn!(marker = at.key, reason = %error, "a mark that cannot be read is dropped"),
            }
        }
        Ok(woken)
    }

    async fn is_any_there(&self, places: &[ObjectRef]) -> Result<bool, ObjectsError> {
        for place in places {
            if self.objects.head(place).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Places an object for good; where it has been placed already, that holds.
    pub(crate) async fn claim(
        &self,
        object: &ObjectRef,
        etag: &str,
        target: &Target,
        item: &str,
    ) -> Result<Target, ObjectsError> {
        let at = self.claim_at(object, etag);
        match self.write(&at, &Claim::new(target, item), Over::Nothing).await {
            Ok(()) => Ok(target.clone()),
            Err(ObjectsError::Changed(_)) => {
                let claimed = self.read::<Claim>(&at).await?;
                Ok(claimed.map_or_else(|| target.clone(), Claim::target))
            }
            Err(error) => Err(error),
        }
    }

    /// Where an object has been placed, and by which item.
    pub(crate) async fn claimed(&self, object: &ObjectRef, etag: &str) -> Result<Option<Claim>, ObjectsError> {
        self.read::<Claim>(&self.claim_at(object, etag)).await
    }

    fn claim_at(&self, object: &ObjectRef, etag: &str) -> ObjectRef {
        self.at(format!("claims/{}.json", hash(&format!("{object} {etag}"))))
    }

    /// Keeps what became of a document's hrefs, beside the key that the document has at its destination.
    pub(crate) async fn keep_hrefs(&self, document: &ObjectRef, hrefs: &impl Serialize) -> Result<(), ObjectsError> {
        let mut at = self.at(format!("provenance/{}/{}.json", document.bucket, document.key));
        // <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
        if at.key.len() > 1024 {
            at = self.at(format!("provenance/{}.json", hash(&document.to_string())));
        }
        self.write(&at, hrefs, Over::Anything).await
    }

    fn at(&self, key: String) -> ObjectRef {
        ObjectRef::new(&self.bucket, key)
    }

    async fn read<T: DeserializeOwned>(&self, at: &ObjectRef) -> Result<Option<T>, ObjectsError> {
        match self.objects.get(at, None, DOCUMENT_BYTES_MAX).await {
            Ok((body, _)) => Ok(serde_json::from_slice(&body)
                .inspect_err(|error| warn!(object.key = at.key, reason = %error, "cannot be read"))
                .ok()),
            Err(ObjectsError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, at: &ObjectRef, value: &impl Serialize, over: Over<'_>) -> Result<(), ObjectsError> {
        let body = Bytes::from(serde_json::to_vec(value).expect("it is plain data"));
        self.objects.put(at, body, &Properties::of_type("application/json"), over).await.map(|_| ())
    }
}

fn waits(awaited: Awaited<'_>) -> String {
    match awaited {
        Awaited::Asset(object) => format!("waits/{}/", hash(&object.to_string())),
        Awaited::Claim(object) => format!("waits/{}/", hash(&format!("claim {object}"))),
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}
