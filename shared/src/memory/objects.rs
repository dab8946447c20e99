//! Buckets in memory, with S3's conditions on sources and destinations, versions, and uploads in parts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use landfall_events::{Cause, Change, ObjectRef, Sequencer};
use sha2::{Digest, Sha256};

use super::Faults;
use crate::locked;
use crate::objects::{
    COPY_BYTES_MAX, Checksum, ObjectInfo, Objects, ObjectsError, OpenUpload, Over, PART_BYTES_MIN, PARTS_MAX, Part,
    Properties, Source, Uploads,
};

/// One object in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryObject {
    /// The bytes; of a hollow object there are none.
    pub body: Bytes,
    /// What it is known by.
    pub info: ObjectInfo,
    /// What it was written with.
    pub properties: Properties,
    /// The pieces of a hollow object, which stands for more bytes than a test wants to hold.
    hollow: Vec<Piece>,
}

/// Some bytes of an endless text that has this number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    text: u64,
    bytes: Range<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// What has happened from outside; it is the time of this world.
    landings: u64,
    writes: u64,
    objects: BTreeMap<ObjectRef, MemoryObject>,
    uploads: BTreeMap<String, Open>,
    apart: BTreeSet<String>,
    copied: Vec<ObjectRef>,
}

#[derive(Debug)]
struct Open {
    to: ObjectRef,
    properties: Properties,
    begun: Timestamp,
    parts: BTreeMap<u32, (Bytes, Vec<Piece>)>,
}

/// Buckets in memory.
#[derive(Clone, Default)]
pub struct MemoryObjects {
    faults: Arc<Faults>,
    state: Arc<Mutex<State>>,
}

impl MemoryObjects {
    /// Empty buckets of a world.
    #[must_use]
    pub fn new(faults: Arc<Faults>) -> Self {
        Self { faults, state: Arc::default() }
    }

    /// Writes an object as a provider does, and gives the event that S3 would send.
    pub fn land(&self, object: &ObjectRef, body: impl Into<Bytes>) -> Cause {
        self.land_whole(object, body.into(), Vec::new())
    }

    /// The same for an object of any size, whose bytes are nowhere; two with the same number start alike.
    pub fn land_hollow(&self, object: &ObjectRef, text: u64, size: u64) -> Cause {
        self.land_whole(object, Bytes::new(), vec![Piece { text, bytes: 0..size }])
    }

    fn land_whole(&self, object: &ObjectRef, body: Bytes, hollow: Vec<Piece>) -> Cause {
        let mut state = locked(&self.state);
        state.landings += 1;
        let properties = Properties::of_type("application/octet-stream");
        let info = state.write(object, body, hollow, &properties, None);
        cause_of(object, Change::Created, state.landings, Some(&info))
    }

    /// Removes an object as a provider does, and gives the event that S3 would send.
    pub fn remove(&self, object: &ObjectRef) -> Cause {
        let mut state = locked(&self.state);
        state.landings += 1;
        state.objects.remove(object);
        cause_of(object, Change::Removed, state.landings, None)
    }

    /// Puts a bucket where its bytes can be copied from no other.
    pub fn set_apart(&self, bucket: &str) {
        locked(&self.state).apart.insert(bucket.to_owned());
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectRef, MemoryObject> {
        locked(&self.state).objects.clone()
    }

    /// The destinations of all copies so far, of parts and of bytes that were streamed too, in order.
    #[must_use]
    pub fn copied(&self) -> Vec<ObjectRef> {
        locked(&self.state).copied.clone()
    }

    /// How many uploads are open.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        locked(&self.state).uploads.len()
    }
}

impl State {
    fn write(
        &mut self,
        object: &ObjectRef,
        body: Bytes,
        hollow: Vec<Piece>,
        properties: &Properties,
        parts: Option<usize>,
    ) -> ObjectInfo {
        self.writes += 1;
        let hollow = joined(hollow);
        let text: String = hollow.iter().map(|piece| format!("{} {:?} ", piece.text, piece.bytes)).collect();
        let hash = hex::encode(&Sha256::new().chain_update(&body).chain_update(text).finalize()[..16]);
        let size = body.len() as u64 + hollow.iter().map(|piece| piece.bytes.end - piece.bytes.start).sum::<u64>();
        let info = ObjectInfo {
            size,
            // As S3 does: what came in parts has a tag of another form.
            etag: parts.map_or_else(|| hash.clone(), |parts| format!("{hash}-{parts}")),
            version_id: Some(format!("v{}", self.writes)),
            modified: Some(time_of(self.landings)),
            checksum: Some(Checksum { algorithm: "CRC64NVME".into(), value: hash }),
            headers: properties.headers.clone(),
            metadata: properties.metadata.clone(),
        };
        let stored = MemoryObject { body, info: info.clone(), properties: properties.clone(), hollow };
        self.objects.insert(object.clone(), stored);
        info
    }

    fn source(&self, from: Source<'_>) -> Result<&MemoryObject, ObjectsError> {
        let found = self.objects.get(from.object).ok_or_else(|| ObjectsError::Missing(from.object.clone()))?;
        if from.etag == found.info.etag { Ok(found) } else { Err(ObjectsError::Changed(from.object.clone())) }
    }

    fn check(&self, to: &ObjectRef, over: Over<'_>) -> Result<(), ObjectsError> {
        let there = self.objects.get(to).map(|there| there.info.etag.as_str());
        let fits = match over {
            Over::Anything => true,
            Over::Nothing => there.is_none(),
            Over::This(etag) => there == Some(etag),
        };
        if fits { Ok(()) } else { Err(ObjectsError::Changed(to.clone())) }
    }

    fn open(&mut self, to: &ObjectRef, upload: &str) -> Result<&mut Open, ObjectsError> {
        let open = self.uploads.get_mut(upload).filter(|open| open.to == *to);
        open.ok_or_else(|| ObjectsError::Missing(to.clone()))
    }
}

/// Pieces with those that follow on each other made one.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut whole: Vec<Piece> = Vec::new();
    for piece in pieces {
        match whole.last_mut() {
            Some(last) if last.text == piece.text && last.bytes.end == piece.bytes.start => {
                last.bytes.end = piece.bytes.end
            }
            _ => whole.push(piece),
        }
    }
    whole
}

fn time_of(number: u64) -> Timestamp {
    let second = i64::try_from(number).unwrap_or(i64::MAX);
    Timestamp::from_second(1_700_000_000 + second).unwrap_or(Timestamp::MAX)
}

fn cause_of(object: &ObjectRef, change: Change, number: u64, info: Option<&ObjectInfo>) -> Cause {
    Cause {
        object: object.clone(),
        change,
        version_id: None,
        etag: info.map(|info| info.etag.clone()),
        size: info.map(|info| info.size),
        sequencer: Sequencer::try_from(format!("{number:X}")).ok(),
        event_time: time_of(number),
        member: None,
        members: None,
    }
}

fn gone(object: &ObjectRef) -> ObjectsError {
    ObjectsError::Unavailable { object: object.clone(), reason: "struck".into() }
}

fn refused(object: &ObjectRef, reason: &str) -> ObjectsError {
    ObjectsError::Refused { object: object.clone(), reason: reason.into() }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn get(
        &self,
        object: &ObjectRef,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectsError> {
        let effect = || {
            let state = locked(&self.state);
            let found = state.objects.get(object).ok_or_else(|| ObjectsError::Missing(object.clone()))?;
            if etag.is_some_and(|etag| etag != found.info.etag) {
                return Err(ObjectsError::Changed(object.clone()));
            }
            if found.info.size > bytes_max {
                return Err(ObjectsError::TooLarge { object: object.clone(), bytes_max });
            }
            Ok((found.body.clone(), found.info.clone()))
        };
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn range(&self, source: Source<'_>, bytes: Range<u64>) -> Result<Bytes, ObjectsError> {
        let effect = || {
            let state = locked(&self.state);
            let found = state.source(source)?;
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(found.body.len());
            Ok(found.body.slice(index(bytes.start)..index(bytes.end)))
        };
        self.faults.call(effect, || Err(gone(source.object))).await
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectInfo>, ObjectsError> {
        let effect = || Ok(locked(&self.state).objects.get(object).map(|found| found.info.clone()));
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn list(&self, bucket: &str, prefix: &str, most: usize) -> Result<Vec<ObjectRef>, ObjectsError> {
        let effect = || {
            let state = locked(&self.state);
            let from = state.objects.range(ObjectRef::new(bucket, prefix)..).map(|(object, _)| object);
            let starts = |object: &&ObjectRef| object.bucket == bucket && object.key.starts_with(prefix);
            Ok(from.take_while(starts).take(most).cloned().collect())
        };
        self.faults.call(effect, || Err(gone(&ObjectRef::new(bucket, prefix)))).await
    }

    async fn put(
        &self,
        object: &ObjectRef,
        body: Bytes,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<String, ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            state.check(object, over)?;
            Ok(state.write(object, body, Vec::new(), properties, None).etag)
        };
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn copy(
        &self,
        from: Source<'_>,
        to: &ObjectRef,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<(), ObjectsError> {
        // S3 looks at the source first and at the destination last, and others may write between.
        let (body, hollow, properties) = {
            let state = locked(&self.state);
            let found = state.source(from)?;
            if found.info.size > COPY_BYTES_MAX {
                return Err(refused(from.object, "InvalidRequest: larger than one copy takes"));
            }
            let tags = properties.tags.clone().or_else(|| found.properties.tags.clone());
            (found.body.clone(), found.hollow.clone(), Properties { tags, ..properties.clone() })
        };
        tokio::task::yield_now().await;
        let effect = || {
            let mut state = locked(&self.state);
            state.check(to, over)?;
            state.write(to, body, hollow, &properties, None);
            state.copied.push(to.clone());
            Ok(())
        };
        self.faults.call(effect, || Err(gone(from.object))).await
    }

    fn copies(&self, from_bucket: &str, to_bucket: &str) -> bool {
        let state = locked(&self.state);
        !state.apart.contains(from_bucket) && !state.apart.contains(to_bucket)
    }

    async fn tags(&self, object: &ObjectRef) -> Result<BTreeMap<String, String>, ObjectsError> {
        let effect = || {
            let state = locked(&self.state);
            let found = state.objects.get(object).ok_or_else(|| ObjectsError::Missing(object.clone()))?;
            Ok(found.properties.tags.clone().unwrap_or_default())
        };
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn set_tags(&self, object: &ObjectRef, tags: &BTreeMap<String, String>) -> Result<(), ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            let found = state.objects.get_mut(object).ok_or_else(|| ObjectsError::Missing(object.clone()))?;
            found.properties.tags = Some(tags.clone());
            Ok(())
        };
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn delete(&self, object: &ObjectRef, etag: Option<&str>) -> Result<(), ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            let there = state.objects.get(object);
            if there.is_some_and(|there| etag.is_some_and(|etag| etag != there.info.etag)) {
                return Err(ObjectsError::Changed(object.clone()));
            }
            state.objects.remove(object);
            Ok(())
        };
        self.faults.call(effect, || Err(gone(object))).await
    }

    async fn ready(&self, bucket: &str) -> Result<(), ObjectsError> {
        self.faults.call(|| Ok(()), || Err(gone(&ObjectRef::new(bucket, "")))).await
    }
}

#[async_trait]
impl Uploads for MemoryObjects {
    async fn begin(&self, to: &ObjectRef, properties: &Properties) -> Result<String, ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            state.writes += 1;
            let upload = format!("upload-{}", state.writes);
            let (to, properties, begun) = (to.clone(), properties.clone(), time_of(state.landings));
            state.uploads.insert(upload.clone(), Open { to, properties, begun, parts: BTreeMap::new() });
            Ok(upload)
        };
        self.faults.call(effect, || Err(gone(to))).await
    }

    async fn copy_part(
        &self,
        from: Source<'_>,
        bytes: Range<u64>,
        to: &ObjectRef,
        upload: &str,
        number: u32,
    ) -> Result<Part, ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            let found = state.source(from)?;
            if bytes.end > found.info.size || bytes.end - bytes.start > COPY_BYTES_MAX {
                return Err(refused(from.object, "InvalidRange"));
            }
            let part = if found.hollow.is_empty() {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                (found.body.slice(index(bytes.start)..index(bytes.end)), Vec::new())
            } else {
                let text = found.hollow[0].text;
                (Bytes::new(), vec![Piece { text, bytes: bytes.clone() }])
            };
            state.open(to, upload)?.parts.insert(number, part);
            state.copied.push(to.clone());
            Ok(Part { number, etag: format!("part-{number}"), size: bytes.end - bytes.start })
        };
        self.faults.call(effect, || Err(gone(from.object))).await
    }

    async fn put_part(&self, to: &ObjectRef, upload: &str, number: u32, body: Bytes) -> Result<Part, ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            let size = body.len() as u64;
            state.open(to, upload)?.parts.insert(number, (body, Vec::new()));
            state.copied.push(to.clone());
            Ok(Part { number, etag: format!("part-{number}"), size })
        };
        self.faults.call(effect, || Err(gone(to))).await
    }

    async fn parts(&self, to: &ObjectRef, upload: &str) -> Result<Option<Vec<Part>>, ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            let Ok(open) = state.open(to, upload) else { return Ok(None) };
            let size = |(body, hollow): &(Bytes, Vec<Piece>)| {
                body.len() as u64 + hollow.iter().map(|piece| piece.bytes.end - piece.bytes.start).sum::<u64>()
            };
            let part =
                |(number, part): (&u32, _)| Part { number: *number, etag: format!("part-{number}"), size: size(part) };
            Ok(Some(open.parts.iter().map(part).collect()))
        };
        self.faults.call(effect, || Err(gone(to))).await
    }

    async fn complete(&self, to: &ObjectRef, upload: &str, parts: &[Part], over: Over<'_>) -> Result<(), ObjectsError> {
        let effect = || {
            let mut state = locked(&self.state);
            state.open(to, upload)?;
            state.check(to, over)?;
            let small = parts.iter().rev().skip(1).any(|part| part.size < PART_BYTES_MIN);
            if parts.len() as u64 > PARTS_MAX || small {
                return Err(refused(to, "EntityTooSmall, or too many parts"));
            }
            let Some(mut open) = state.uploads.remove(upload) else { return Err(ObjectsError::Missing(to.clone())) };
            let whole: Option<Vec<_>> = parts.iter().map(|part| open.parts.remove(&part.number)).collect();
            let (bodies, hollow): (Vec<_>, Vec<_>) =
                whole.ok_or_else(|| refused(to, "InvalidPart"))?.into_iter().unzip();
            let count = bodies.len();
            state.write(to, Bytes::from(bodies.concat()), hollow.concat(), &open.properties, Some(count));
            Ok(())
        };
        self.faults.call(effect, || Err(gone(to))).await
    }

    async fn abort(&self, to: &ObjectRef, upload: &str) -> Result<(), ObjectsError> {
        let effect = || {
            locked(&self.state).uploads.remove(upload);
            Ok(())
        };
        self.faults.call(effect, || Err(gone(to))).await
    }

    async fn uploads(&self, bucket: &str) -> Result<Vec<OpenUpload>, ObjectsError> {
        let effect = || {
            let state = locked(&self.state);
            let open = |(upload, open): (&String, &Open)| OpenUpload {
                object: open.to.clone(),
                upload: upload.clone(),
                begun: Some(open.begun),
            };
            Ok(state.uploads.iter().filter(|(_, open)| open.to.bucket == bucket).map(open).collect())
        };
        self.faults.call(effect, || Err(gone(&ObjectRef::new(bucket, "")))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (MemoryObjects, ObjectRef, ObjectRef) {
        (MemoryObjects::new(Arc::default()), ObjectRef::new("a", "x"), ObjectRef::new("b", "x"))
    }

    #[tokio::test]
    async fn a_copy_wants_the_source_it_was_told_of() {
        let (objects, from, to) = world();
        let old = objects.land(&from, "old").etag.unwrap();
        objects.land(&from, "new");
        let source = Source { object: &from, etag: &old };
        let copied = objects.copy(source, &to, &Properties::default(), Over::Anything).await;
        assert!(matches!(copied, Err(ObjectsError::Changed(changed)) if changed == from));
        assert!(objects.head(&to).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_write_wants_what_it_was_told_is_there() {
        let (objects, from, to) = world();
        let cause = objects.land(&from, "new");
        let there = objects.land(&to, "there").etag.unwrap();
        let source = Source { object: &from, etag: cause.etag.as_deref().unwrap() };
        for (over, fits) in [(Over::Nothing, false), (Over::This("other"), false), (Over::This(&there), true)] {
            let copied = objects.copy(source, &to, &Properties::default(), over).await;
            assert_eq!(copied.is_ok(), fits, "{over:?}");
            assert!(fits || matches!(copied, Err(ObjectsError::Changed(changed)) if changed == to));
        }
    }

    #[tokio::test]
    async fn parts_make_the_object_that_they_were_taken_from() {
        let (objects, from, to) = world();
        let size = 20 * 1024 * 1024 * 1024;
        let cause = objects.land_hollow(&from, 7, size);
        let source = Source { object: &from, etag: cause.etag.as_deref().unwrap() };
        assert!(objects.copy(source, &to, &Properties::default(), Over::Nothing).await.is_err(), "too large for one");
        let upload = objects.begin(&to, &Properties::default()).await.unwrap();
        for (number, bytes) in [(2, size / 2..size), (1, 0..size / 2)] {
            let too_much = objects.copy_part(source, bytes.clone(), &to, &upload, number).await;
            assert!(too_much.is_err(), "more than 5 GiB");
        }
        let step = size / 4;
        for number in [3, 1, 4, 2] {
            let start = u64::from(number - 1) * step;
            objects.copy_part(source, start..start + step, &to, &upload, number).await.unwrap();
        }
        let parts = objects.parts(&to, &upload).await.unwrap().unwrap();
        objects.complete(&to, &upload, &parts, Over::Nothing).await.unwrap();
        let (source, copy) = (objects.head(&from).await.unwrap().unwrap(), objects.head(&to).await.unwrap().unwrap());
        assert_eq!((source.size, source.checksum), (copy.size, copy.checksum));
        assert_eq!((objects.open_uploads(), objects.parts(&to, &upload).await.unwrap()), (0, None));
    }
}
