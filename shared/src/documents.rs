//! Documents by value or by reference: a stage reads and writes them and does not care which.

use std::sync::Arc;

use bytes::Bytes;
use landfall_events::document::{INLINE_BYTES_MAX, Stored};
use landfall_events::{Document, ObjectRef};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::objects::{Objects, ObjectsError, Over, Properties};

/// The largest document that is read into memory, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Reads documents and puts those that do not fit a message into the work bucket.
#[derive(Clone)]
pub struct Documents {
    objects: Arc<dyn Objects>,
    work_bucket: String,
}

impl Documents {
    /// Keeps large documents in `work_bucket`.
    pub fn new(objects: Arc<dyn Objects>, work_bucket: impl Into<String>) -> Self {
        Self { objects, work_bucket: work_bucket.into() }
    }

    /// Makes a document of JSON text, inline where it is small. Large ones are stored under their hash,
    /// so that a repetition writes the same object.
    ///
    /// # Errors
    /// The object store's, where the text had to be stored.
    ///
    /// # Panics
    /// Where `text` is not JSON.
    pub async fn pack(&self, text: String) -> Result<Document, ObjectsError> {
        if text.len() <= INLINE_BYTES_MAX {
            return Ok(Document::Inline(RawValue::from_string(text).expect("the caller has JSON text")));
        }
        let sha256 = hex::encode(Sha256::digest(&text));
        let object = ObjectRef::new(&self.work_bucket, format!("documents/{sha256}.json"));
        let size = text.len() as u64;
        let properties = Properties::of_type("application/json");
        self.objects.put(&object, Bytes::from(text), &properties, Over::Anything).await?;
        Ok(Document::Stored(Stored { object, size, sha256 }))
    }

    /// Reads the text of a document.
    ///
    /// # Errors
    /// The object store's; and [`ObjectsError::Changed`] where what is stored is not what was stored.
    pub async fn read(&self, document: &Document) -> Result<String, ObjectsError> {
        let stored = match document {
            Document::Inline(raw) => return Ok(raw.get().to_owned()),
            Document::Stored(stored) => stored,
        };
        let text = self.read_at(&stored.object).await?;
        if hex::encode(Sha256::digest(&text)) != stored.sha256 {
            return Err(ObjectsError::Changed(stored.object.clone()));
        }
        Ok(text)
    }

    /// Reads the text of a document where it is archived.
    ///
    /// # Errors
    /// The object store's; and [`ObjectsError::Changed`] where it is not text.
    pub async fn read_at(&self, object: &ObjectRef) -> Result<String, ObjectsError> {
        let (body, _) = self.objects.get(object, None, DOCUMENT_BYTES_MAX).await?;
        String::from_utf8(body.to_vec()).map_err(|_| ObjectsError::Changed(object.clone()))
    }
}
