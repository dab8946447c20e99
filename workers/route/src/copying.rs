//! One object to its destination: copied under conditions, in parts where it is large, compared, and never older than
//! what is there.
//!
//! A copy is of what the source holds now, whichever event asked for it: it looks at both, writes if it must, and looks
//! again until the two agree. So it does not matter how often, in what order or by how many workers it is asked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use landfall_events::routed::RoutedObject;
use landfall_events::{Cause, ObjectRef};
use landfall_shared::config::Copying;
use landfall_shared::objects::{
    COPY_BYTES_MAX, ObjectInfo, Objects, ObjectsError, Over, PART_BYTES_MIN, PARTS_MAX, Part, Properties, Source,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::bucket_map::Target;
use crate::provenance::{self, Provenance, Standing, equal};
use crate::work::{OpenCopy, Work};

/// Looks at source and destination until they agree; each further one means that somebody wrote in between.
const ROUNDS_MAX: u32 = 8;

/// Bytes that are read of each side at a time to compare them.
const COMPARED_BYTES: u64 = 4 * MIB;

const MIB: u64 = 1024 * 1024;

/// Copies objects.
pub(crate) struct Copier {
    objects: Arc<dyn Objects>,
    work: Work,
    settings: Copying,
    parts: Semaphore,
}

/// What shall be copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) from: &'a ObjectRef,
    pub(crate) to: &'a Target,
    pub(crate) provider: &'a str,
    /// The event that is about the source itself, where there is one.
    pub(crate) cause: Option<&'a Cause>,
    /// The item that places it, as `<collection>/<item>`.
    pub(crate) item: Option<&'a str>,
    /// The checksum that the source was held against when it had this entity tag, as its item writes it.
    pub(crate) checked: Option<(&'a str, &'a str)>,
    /// When to leave the rest to the next message.
    pub(crate) until: Instant,
}

/// What a copy came to.
#[derive(Debug)]
pub(crate) enum Copied {
    /// The destination holds what the source holds; with the source's entity tag.
    At(RoutedObject, String),
    /// The destination holds something newer.
    Superseded(RoutedObject),
    /// The source is gone.
    Gone,
    /// Some parts are there; the rest follows with the next message.
    Unfinished,
}

/// Why an object could not be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("could not move an object")]
    Move(#[from] ObjectsError),
    #[error("the copy {to} is not equal to {from}: {expected} bytes became {found}")]
    Unequal { from: ObjectRef, to: ObjectRef, expected: u64, found: u64 },
    #[error("{to} is taken by {by}, which has nothing to do with it")]
    Taken { to: ObjectRef, by: String },
    #[error("{0} changed each time that it was copied")]
    Restless(ObjectRef),
}

/// How bytes get to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The store copies them.
    Copy,
    /// They are read here and written there.
    Stream,
}

/// How far a transfer came.
enum Progress {
    Whole,
    Part,
}

impl Copier {
    pub(crate) fn new(objects: Arc<dyn Objects>, work: Work, settings: Copying) -> Self {
        let parts = Semaphore::new(settings.parallel.max(1));
        Self { objects, work, settings, parts }
    }

    /// Brings the destination to what the source holds.
    pub(crate) async fn copy(&self, order: Order<'_>) -> Result<Copied, CopyError> {
        let to = ObjectRef::new(&order.to.bucket, &order.to.key);
        let mut unequal = None;
        for _ in 0..ROUNDS_MAX {
            let Some(source) = self.objects.head(order.from).await? else { return Ok(Copied::Gone) };
            // What was held against another content says nothing about this one.
            let checked = match order.checked {
                Some((etag, _)) if etag != source.etag => return Err(ObjectsError::Changed(order.from.clone()).into()),
                checked => checked.map(|(_, checksum)| checksum),
            };
            let there = self.objects.head(&to).await?;
            let landing = Provenance::of_copy(order.from, &source, order.provider, order.cause, order.item, checked);
            match landing.standing(there.as_ref()) {
                Standing::Newer => return Ok(Copied::Superseded(routed(&to, there, order.to))),
                Standing::Taken(by) => return Err(CopyError::Taken { to, by }),
                Standing::Same if self.agree(order, &source, &to, there.as_ref()).await? => {
                    return Ok(Copied::At(routed(&to, there, order.to), source.etag));
                }
                Standing::Same => unequal = there.as_ref().map(|there| (source.size, there.size)),
                Standing::Older => {}
            }
            let over = there.as_ref().map_or(Over::Nothing, |there| Over::This(&there.etag));
            match self.transfer(order, &source, &to, &landing, over).await {
                Ok(Progress::Whole) => {}
                Ok(Progress::Part) => return Ok(Copied::Unfinished),
                // Somebody wrote the source or the destination in between: look again.
                Err(CopyError::Move(ObjectsError::Changed(_) | ObjectsError::Missing(_))) => {}
                Err(error) => return Err(error),
            }
        }
        let from = order.from.clone();
        Err(match unequal {
            Some((expected, found)) => CopyError::Unequal { from, to, expected, found },
            None => CopyError::Restless(from),
        })
    }

    /// Whether a copy that says that it is of this source holds what the source holds.
    async fn agree(
        &self,
        order: Order<'_>,
        source: &ObjectInfo,
        to: &ObjectRef,
        there: Option<&ObjectInfo>,
    ) -> Result<bool, CopyError> {
        let Some(there) = there else { return Ok(false) };
        if let Some(equal) = equal(source, there) {
            return Ok(equal);
        }
        if source.size > self.settings.read_mib_max.saturating_mul(MIB) {
            info!(object.key = to.key, "too large to be read: compared by size and by the store's word");
            return Ok(true);
        }
        let _permit = self.permit().await;
        let from = Source { object: order.from, etag: &source.etag };
        let copy = Source { object: to, etag: &there.etag };
        for bytes in ranges(source.size, COMPARED_BYTES) {
            let both = futures::try_join!(self.objects.range(from, bytes.clone()), self.objects.range(copy, bytes));
            match both {
                Ok((one, other)) if one == other => {}
                Ok(_) => return Ok(false),
                // A cold storage class cannot be read; its size is right.
                Err(ObjectsError::Denied { object, reason }) if object == *to => {
                    warn!(object.key = to.key, reason, "cannot be read to be compared");
                    return Ok(true);
                }
                // Another look decides.
                Err(ObjectsError::Changed(_) | ObjectsError::Missing(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn transfer(
        &self,
        order: Order<'_>,
        source: &ObjectInfo,
        to: &ObjectRef,
        provenance: &Provenance,
        over: Over<'_>,
    ) -> Result<Progress, CopyError> {
        let way = if self.objects.copies(&order.from.bucket, &to.bucket) { Way::Copy } else { Way::Stream };
        let at_once = match way {
            Way::Copy => self.settings.threshold_mib.saturating_mul(MIB).min(COPY_BYTES_MAX),
            Way::Stream => self.settings.stream_part_mib.saturating_mul(MIB),
        };
        let from = Source { object: order.from, etag: &source.etag };
        let is_small = source.size <= at_once;
        let mut properties = Properties {
            headers: source.headers.clone(),
            metadata: source.metadata.clone(),
            tags: None,
            storage_class: order.to.storage_class,
            checksum: source.checksum.as_ref().map(|checksum| checksum.algorithm.clone()),
        };
        // What a provider says in our name counts for nothing.
        properties.metadata.retain(|name, _| !name.starts_with(provenance::OURS));
        let provenance = provenance.metadata(&properties.metadata);
        properties.metadata.extend(provenance);
        // A copy at once has its source's tags by itself.
        if !is_small || way == Way::Stream || !order.to.tags.is_empty() {
            let mut tags = self.objects.tags(order.from).await?;
            tags.extend(order.to.tags.clone());
            properties.tags = Some(tags);
        }
        match way {
            _ if !is_small => return self.in_parts(way, from, source, to, &properties, over, order.until).await,
            Way::Copy => self.objects.copy(from, to, &properties, over).await?,
            Way::Stream => {
                let _permit = self.permit().await;
                let body = self.read(from, 0..source.size).await?;
                self.objects.put(to, body, &properties, over).await?;
            }
        }
        Ok(Progress::Whole)
    }

    /// Copies part by part; what an earlier try has copied of the same source is not copied again.
    #[allow(clippy::too_many_arguments, reason = "it is one step of `transfer`")]
    async fn in_parts(
        &self,
        way: Way,
        from: Source<'_>,
        source: &ObjectInfo,
        to: &ObjectRef,
        properties: &Properties,
        over: Over<'_>,
        until: Instant,
    ) -> Result<Progress, CopyError> {
        let open = self.open(way, from, source, to, properties).await?;
        let Some(there) = self.objects.parts(to, &open.upload).await? else {
            // Completed or aborted by somebody else: another look decides.
            self.work.forget(&open).await?;
            return Err(ObjectsError::Changed(to.clone()).into());
        };
        let there: BTreeMap<u32, Part> = there.into_iter().map(|part| (part.number, part)).collect();
        let wanted = (1..).zip(ranges(source.size, open.part_bytes));
        let one = async |(number, bytes): (u32, Range<u64>)| {
            if let Some(part) = there.get(&number).filter(|part| part.size == bytes.end - bytes.start) {
                return Ok(Some(part.clone()));
            }
            let _permit = self.permit().await;
            if Instant::now() >= until {
                return Ok(None);
            }
            Ok(Some(match way {
                Way::Copy => self.objects.copy_part(from, bytes, to, &open.upload, number).await?,
                Way::Stream => {
                    let body = self.read(from, bytes).await?;
                    self.objects.put_part(to, &open.upload, number, body).await?
                }
            }))
        };
        let parts = futures::stream::iter(wanted).map(one).buffered(self.settings.parallel.max(1));
        let parts: Result<Vec<Option<Part>>, ObjectsError> = parts.try_collect().await;
        let parts = match parts {
            Ok(parts) => parts.into_iter().collect::<Option<Vec<_>>>(),
            // What may pass is gone on with by the next try; anything else is of no use any more.
            Err(error @ (ObjectsError::Unavailable { .. } | ObjectsError::Denied { .. })) => return Err(error.into()),
            Err(error) => {
                self.drop_open(&open).await?;
                return Err(error.into());
            }
        };
        let Some(parts) = parts else {
            info!(object.key = to.key, "the rest of the copy follows with the next message");
            return Ok(Progress::Part);
        };
        match self.objects.complete(to, &open.upload, &parts, over).await {
            Ok(()) => self.work.forget(&open).await?,
            Err(error @ ObjectsError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                self.drop_open(&open).await?;
                return Err(error.into());
            }
        }
        Ok(Progress::Whole)
    }

    /// The upload that an earlier try began for the same source, or a new one.
    async fn open(
        &self,
        way: Way,
        from: Source<'_>,
        source: &ObjectInfo,
        to: &ObjectRef,
        properties: &Properties,
    ) -> Result<OpenCopy, CopyError> {
        if let Some(open) = self.work.open_copy(to).await? {
            if open.from == *from.object && open.etag == from.etag {
                return Ok(open);
            }
            self.drop_open(&open).await?;
        }
        let wanted = match way {
            Way::Copy => self.settings.part_mib,
            Way::Stream => self.settings.stream_part_mib,
        };
        let part_bytes = part_bytes(source.size, wanted.saturating_mul(MIB));
        let upload = self.objects.begin(to, properties).await?;
        let (from, etag, to) = (from.object.clone(), from.etag.to_owned(), to.clone());
        let open = OpenCopy { from, etag, to, upload, part_bytes, begun: Timestamp::now() };
        match self.work.remember(&open).await {
            Ok(()) => Ok(open),
            Err(error) => {
                // Somebody else has begun meanwhile, or nobody would know of it: it is not left open.
                self.objects.abort(&open.to, &open.upload).await?;
                Err(error.into())
            }
        }
    }

    async fn drop_open(&self, open: &OpenCopy) -> Result<(), ObjectsError> {
        self.objects.abort(&open.to, &open.upload).await?;
        self.work.forget(open).await
    }

    async fn read(&self, from: Source<'_>, bytes: Range<u64>) -> Result<Bytes, ObjectsError> {
        if bytes.is_empty() { Ok(Bytes::new()) } else { self.objects.range(from, bytes).await }
    }

    /// Leave to hold some MiB in memory.
    pub(crate) async fn permit(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.parts.acquire().await.expect("it is never closed")
    }
}

fn routed(to: &ObjectRef, there: Option<ObjectInfo>, target: &Target) -> RoutedObject {
    let there = there.unwrap_or_default();
    RoutedObject { object: to.clone(), size: there.size, etag: Some(there.etag), storage_class: target.storage_class }
}

/// The size of parts: as wanted, but within what S3 takes.
fn part_bytes(size: u64, wanted: u64) -> u64 {
    let enough = size.div_ceil(PARTS_MAX).next_multiple_of(MIB);
    wanted.max(enough).clamp(PART_BYTES_MIN, COPY_BYTES_MAX)
}

/// Cuts `0..size` into ranges of `step` bytes; the last may be shorter.
pub(crate) fn ranges(size: u64, step: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(step)).map(move |number| number * step..((number + 1) * step).min(size))
}
