//! The port to objects in buckets.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use landfall_events::ObjectRef;

use crate::stage::Class;

/// What is known about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its user metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
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
pub trait Objects: Send + Sync {
    /// Reads a whole object of at most `bytes_max` bytes; with an `etag`, only that content.
    async fn get(
        &self,
        object: &ObjectRef,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectsError>;
    /// Looks an object up; `None` where there is none.
    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectInfo>, ObjectsError>;
    /// Writes a whole object, if what is there is as `over` says; else it is [`ObjectsError::Changed`].
    async fn put(
        &self,
        object: &ObjectRef,
        body: Bytes,
        content_type: &str,
        metadata: &BTreeMap<String, String>,
        over: Over<'_>,
    ) -> Result<ObjectInfo, ObjectsError>;
    /// Copies `from`, as long as it has this `etag`, to `to` without bringing the bytes here.
    /// Content type and user metadata go along; `metadata` is added to it. Gives the source's size and the copy.
    async fn copy(
        &self,
        from: &ObjectRef,
        etag: &str,
        to: &ObjectRef,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(u64, ObjectInfo), ObjectsError>;
    /// Asks whether the bucket answers.
    async fn ready(&self, bucket: &str) -> Result<(), ObjectsError>;
}
