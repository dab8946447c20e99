//! What route tells load, and load tells itself.

use serde::{Deserialize, Serialize};

use crate::cause::{Cause, ObjectRef};
use crate::document::Document;
use crate::refusal::Problem;

pub use crate::validated::ObjectRemoved;

crate::envelope::events! {
    /// A document whose bytes are where they belong.
    Routed {
        /// An item with its assets in place.
        Item(ItemRouted) = "landfall.item.routed.v1",
        /// A collection.
        Collection(CollectionRouted) = "landfall.collection.routed.v1",
        /// An object that is gone from landing.
        Removed(ObjectRemoved) = "landfall.object.removed.v1",
        /// A collection is there: the items that waited for it go on, batch by batch.
        Released(CollectionReleased) = "landfall.collection.released.v1",
    }
}

/// One object at its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoutedObject {
    /// Where it is.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag there, without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The storage class that it was given there; the bucket's default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<StorageClass>,
}

/// S3's storage classes that a bucket map can name.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names are S3's")]
pub enum StorageClass {
    Standard,
    StandardIa,
    OnezoneIa,
    IntelligentTiering,
    Glacier,
    GlacierIr,
    DeepArchive,
}

impl StorageClass {
    /// The word that S3 uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "STANDARD",
            Self::StandardIa => "STANDARD_IA",
            Self::OnezoneIa => "ONEZONE_IA",
            Self::IntelligentTiering => "INTELLIGENT_TIERING",
            Self::Glacier => "GLACIER",
            Self::GlacierIr => "GLACIER_IR",
            Self::DeepArchive => "DEEP_ARCHIVE",
        }
    }
}

/// An item whose assets are at their destination and whose hrefs say so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemRouted {
    /// The landed object or member.
    pub cause: Cause,
    /// The item's collection.
    pub collection: String,
    /// The item's id.
    pub item: String,
    /// The item with its hrefs rewritten.
    pub document: Document,
    /// Where that document is stored.
    pub stored: RoutedObject,
    /// The assets that were routed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assets: Vec<RoutedObject>,
    /// What the profile warned about or has mended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// A collection whose document is at its destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionRouted {
    /// The landed object.
    pub cause: Cause,
    /// The collection's id.
    pub collection: String,
    /// The collection with its hrefs rewritten.
    pub document: Document,
    /// Where that document is stored.
    pub stored: RoutedObject,
    /// What the profile warned about or has mended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// One step of letting parked items go on, after their collection was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionReleased {
    /// What created the collection.
    pub cause: Cause,
    /// The collection's id.
    pub collection: String,
    /// The number of this batch, from 0: part of the event's id, so that a repetition finds what it had claimed.
    pub batch: u32,
}
