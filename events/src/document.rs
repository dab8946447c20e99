//! A STAC document on its way: inline while small, else by reference to the work bucket.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cause::ObjectRef;

/// The largest document that travels inside a message, in bytes.
///
/// An SQS message holds 1 MiB; this leaves room for the envelope and for a document that grows when its
/// hrefs are rewritten, and lets several messages share one batch request.
pub const INLINE_BYTES_MAX: usize = 192 * 1024;

/// A document as raw JSON text, so that numbers keep every digit and keys their order; or where it lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Document {
    /// The text itself.
    Inline(Box<RawValue>),
    /// The object in the work bucket that holds the text.
    Stored(Stored),
}

/// Where a document lies that did not fit a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stored {
    /// The object that holds the text.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// The text's length in bytes.
    pub size: u64,
    /// The text's SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(a), Self::Inline(b)) => a.get() == b.get(),
            (Self::Stored(a), Self::Stored(b)) => a == b,
            (Self::Inline(_), Self::Stored(_)) | (Self::Stored(_), Self::Inline(_)) => false,
        }
    }
}
