//! What validate tells route.

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::document::Document;
use crate::refusal::Problem;

crate::envelope::events! {
    /// What landed, once it is known what it is.
    Validated {
        /// A valid STAC item.
        Item(ItemValidated) = "landfall.item.validated.v1",
        /// A valid STAC collection.
        Collection(CollectionValidated) = "landfall.collection.validated.v1",
        /// Plain data.
        Object(ObjectAccepted) = "landfall.object.accepted.v1",
        /// An object that is gone from landing.
        Removed(ObjectRemoved) = "landfall.object.removed.v1",
    }
}

/// A STAC item that satisfies its profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemValidated {
    /// The landed object or member.
    pub cause: Cause,
    /// The item's collection.
    pub collection: String,
    /// The item's id.
    pub item: String,
    /// The item, patches applied.
    pub document: Document,
    /// What the profile warns about or has mended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// A STAC collection that satisfies its profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionValidated {
    /// The landed object.
    pub cause: Cause,
    /// The collection's id.
    pub collection: String,
    /// The collection, patches applied.
    pub document: Document,
    /// What the profile warns about or has mended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// Plain data: not STAC, or a STAC catalog, which pgSTAC does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectAccepted {
    /// The landed object.
    pub cause: Cause,
}

/// An object that the bucket no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectRemoved {
    /// The removal.
    pub cause: Cause,
}
