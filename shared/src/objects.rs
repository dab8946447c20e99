//! The ports to objects in buckets, and to uploads in parts.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use landfall_events::ObjectRef;
use landfall_events::routed::StorageClass;

use crate::stage::Class;

/// What is known about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectInfo {
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its version, where the bucket has versions.
    pub version_id: Option<String>,
    /// When it was written.
    pub modified: Option<Timestamp>,
    /// What the store holds as its checksum.
    pub checksum: Option<Checksum>,
    /// Content type and the like.
    pub headers: Headers,
    /// Its user metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
}

/// A checksum that the store computed, of the whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The algorithm's name, as S3 has it: `CRC64NVME`, `SHA256` …
    pub algorithm: String,
    /// The value in Base64.
    pub value: String,
}

/// The headers that are stored with an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
}

/// What an object is written with, beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Content type and the like.
    pub headers: Headers,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// Tags; without any named, a copy has its source's.
    pub tags: Option<BTreeMap<String, String>>,
    /// The storage class; the bucket's default where there is none.
    pub storage_class: Option<StorageClass>,
    /// The algorithm of the checksum that the store shall hold; its own choice where none is named.
    pub checksum: Option<String>,
}

impl Properties {
    /// Only a content type.
    #[must_use]
    pub fn of_type(content_type: &str) -> Self {
        let headers = Headers { content_type: Some(content_type.to_owned()), ..Headers::default() };
        Self { headers, ..Self::default() }
    }
}

/// What a write may write over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over<'a> {
    /// Whatever is there.
    Anything,
    /// Nothing: the object must not be there yet.
    Nothing,
    /// The content with this entity tag.
    This(&'a str),
}

/// An object that is meant as it was when it had this entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// The object.
    pub object: &'a ObjectRef,
    /// The entity tag, without quotes.
    pub etag: &'a str,
}

/// Why an object could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("{0} does not exist")]
    Missing(ObjectRef),
    /// The object is not the one that was asked for: its entity tag is another.
    #[error("{0} has changed meanwhile")]
    Changed(ObjectRef),
    /// The object is larger than the limit for reading it into memory.
    #[error("{object} is larger than {bytes_max} bytes")]
    TooLarge {
        /// The object.
        object: ObjectRef,
        /// The limit.
        bytes_max: u64,
    },
    /// We have no right to it. A right can be given, so this may pass.
    #[error("access to {object} is denied: {reason}")]
    Denied {
        /// The object.
        object: ObjectRef,
        /// What the store says.
        reason: String,
    },
    /// The store does not take the request: a key or metadata that is too long, for example.
    #[error("the object store refuses {object}: {reason}")]
    Refused {
        /// The object.
        object: ObjectRef,
        /// What the store says.
        reason: String,
    },
    /// The store cannot be reached or is busy.
    #[error("the object store is not available for {object}: {reason}")]
    Unavailable {
        /// The object.
        object: ObjectRef,
        /// What was met.
        reason: String,
    },
}

impl ObjectsError {
    /// Whether trying again may help.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Denied { .. } | Self::Unavailable { .. } | Self::Missing(_) | Self::Changed(_) => Class::Transient,
            Self::TooLarge { .. } | Self::Refused { .. } => Class::Permanent,
        }
    }
}

/// A store of objects, as S3 has them.
#[async_trait]
pub trait Objects: Uploads + Send + Sync {
    /// Reads a whole object of at most `bytes_max` bytes; with an `etag`, only that content.
    async fn get(
        &self,
        object: &ObjectRef,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectsError>;
    /// Reads some bytes of an object, which must have this content; a range at least, and within the object.
    async fn range(&self, source: Source<'_>, bytes: Range<u64>) -> Result<Bytes, ObjectsError>;
    /// Looks an object up; `None` where there is none.
    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectInfo>, ObjectsError>;
    /// The keys in a bucket that start with `prefix`, in order, at most `most` (up to 1,000).
    async fn list(&self, bucket: &str, prefix: &str, most: usize) -> Result<Vec<ObjectRef>, ObjectsError>;
    /// Writes a whole object, if what is there is as `over` says; else it is [`ObjectsError::Changed`]. Gives its tag.
    async fn put(
        &self,
        object: &ObjectRef,
        body: Bytes,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<String, ObjectsError>;
    /// Copies an object of up to [`COPY_BYTES_MAX`] without bringing the bytes here, if what is there is as `over`
    /// says. Nothing of the source's properties goes along, but its tags where `properties` names none.
    async fn copy(
        &self,
        from: Source<'_>,
        to: &ObjectRef,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<(), ObjectsError>;
    /// Whether one bucket's bytes can be copied to another without bringing them here.
    fn copies(&self, from_bucket: &str, to_bucket: &str) -> bool;
    /// An object's tags.
    async fn tags(&self, object: &ObjectRef) -> Result<BTreeMap<String, String>, ObjectsError>;
    /// Gives an object these tags and no others.
    async fn set_tags(&self, object: &ObjectRef, tags: &BTreeMap<String, String>) -> Result<(), ObjectsError>;
    /// Deletes an object, with an `etag` only that content; what is not there is deleted already.
    async fn delete(&self, object: &ObjectRef, etag: Option<&str>) -> Result<(), ObjectsError>;
    /// Asks whether the bucket answers.
    async fn ready(&self, bucket: &str) -> Result<(), ObjectsError>;
}

/// The largest object that one call copies, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
pub const COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The most parts of an upload. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
pub const PARTS_MAX: u64 = 10_000;

/// The smallest part but the last, in bytes.
pub const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;

/// A part of an upload that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its entity tag.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
}

/// An upload that was begun and is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The object that it will be.
    pub object: ObjectRef,
    /// The upload's id.
    pub upload: String,
    /// When it was begun.
    pub begun: Option<Timestamp>,
}

/// Uploads in parts, as S3 has them.
#[async_trait]
pub trait Uploads {
    /// Begins an upload and gives its id.
    async fn begin(&self, to: &ObjectRef, properties: &Properties) -> Result<String, ObjectsError>;
    /// Copies a range of bytes as a part, without bringing them here.
    async fn copy_part(
        &self,
        from: Source<'_>,
        bytes: Range<u64>,
        to: &ObjectRef,
        upload: &str,
        number: u32,
    ) -> Result<Part, ObjectsError>;
    /// Writes bytes as a part.
    async fn put_part(&self, to: &ObjectRef, upload: &str, number: u32, body: Bytes) -> Result<Part, ObjectsError>;
    /// The parts that are there, in order; `None` where there is no such upload.
    async fn parts(&self, to: &ObjectRef, upload: &str) -> Result<Option<Vec<Part>>, ObjectsError>;
    /// Makes the object of its parts, if what is there is as `over` says, else it is [`ObjectsError::Changed`];
    /// [`ObjectsError::Missing`] where there is no such upload.
    async fn complete(&self, to: &ObjectRef, upload: &str, parts: &[Part], over: Over<'_>) -> Result<(), ObjectsError>;
    /// Throws an upload away; what is not there is thrown away already.
    async fn abort(&self, to: &ObjectRef, upload: &str) -> Result<(), ObjectsError>;
    /// The open uploads of a bucket, at most 1,000.
    async fn uploads(&self, bucket: &str) -> Result<Vec<OpenUpload>, ObjectsError>;
}
