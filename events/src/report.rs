//! What every stage tells notify: the end of a document, or what it waits for.

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::document::Document;
use crate::refusal::Refusal;
use crate::routed::RoutedObject;

crate::envelope::events! {
    /// What became of a document or an object.
    Report {
        /// An item was loaded or deleted.
        Item(ItemLoaded) = "landfall.item.loaded.v1",
        /// A collection was loaded.
        Collection(CollectionLoaded) = "landfall.collection.loaded.v1",
        /// Plain data is at its destination.
        Object(ObjectRouted) = "landfall.object.routed.v1",
        /// Something was refused.
        Refused(Refused) = "landfall.object.refused.v1",
        /// Something waits for what has not landed yet.
        Waiting(Waiting) = "landfall.object.waiting.v1",
        /// An event needs nothing done, by a named rule.
        Ignored(Ignored) = "landfall.object.ignored.v1",
    }
}

/// What a load did to the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Effect {
    /// It was not there before.
    Created,
    /// It was there and is now this.
    Replaced,
    /// It was there and is gone.
    Deleted,
}

impl Effect {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
        }
    }
}

/// An item that the catalogue now holds, or no longer holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemLoaded {
    /// The landed object or member.
    pub cause: Cause,
    /// The item's collection.
    pub collection: String,
    /// The item's id.
    pub item: String,
    /// What the load did.
    pub effect: Effect,
    /// The item as it was loaded; absent for a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// The assets that were routed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assets: Vec<RoutedObject>,
    /// Where and when it is; absent for a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// Where and when an item is: what it can be found by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Place {
    /// West, south, east, north of its geometry, in degrees: -180 and 180 where that crosses the antimeridian.
    pub bbox: [f64; 4],
    /// Its `datetime`, as the document has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datetime: Option<String>,
    /// Its `start_datetime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_datetime: Option<String>,
    /// Its `end_datetime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_datetime: Option<String>,
}

impl Place {
    /// The span of time that the catalogue finds it by: the range where there is one, else the moment.
    #[must_use]
    pub fn span(&self) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        // In whole microseconds, as PostgreSQL keeps them.
        let read = |text: &Option<String>| {
            let time: jiff::Timestamp = text.as_deref()?.to_ascii_uppercase().parse().ok()?;
            jiff::Timestamp::from_microsecond(i64::try_from(time.as_nanosecond().div_euclid(1000)).ok()?).ok()
        };
        match (read(&self.start_datetime), read(&self.end_datetime)) {
            (Some(start), Some(end)) => Some((start, end)),
            _ => read(&self.datetime).map(|moment| (moment, moment)),
        }
    }
}

/// A collection that the catalogue now holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionLoaded {
    /// The landed object.
    pub cause: Cause,
    /// The collection's id.
    pub collection: String,
    /// What the load did.
    pub effect: Effect,
    /// The collection as it was loaded.
    pub document: Document,
}

/// Plain data that is where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectRouted {
    /// The landed object.
    pub cause: Cause,
    /// Where it is now.
    pub destination: RoutedObject,
}

/// A refusal, to be announced and recorded; its dead letter is in the stage's queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// The landed object or member.
    pub cause: Cause,
    /// The stage that refused it.
    pub stage: String,
    /// Why.
    pub refusal: Refusal,
}

/// A wait, to be recorded so that its provider can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    /// The landed object or member.
    pub cause: Cause,
    /// The stage in which it waits.
    pub stage: String,
    /// What it waits for, in words: keys of assets, the id of a collection.
    pub waits_for: Vec<String>,
    /// When it is refused if that has not come.
    pub until: jiff::Timestamp,
    /// The collection of the waiting item, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The id of the waiting item, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

/// The rule of a document whose item a newer document under another key has; load has recorded it.
pub const OUTDONE: &str = "outdone";

/// The rule of a removal; load has recorded it.
pub const REMOVED: &str = "removed";

/// An event that needs nothing done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ignored {
    /// The landed object or member.
    pub cause: Cause,
    /// The rule's name, `superseded` or `folder-marker` for example.
    pub rule: String,
}
