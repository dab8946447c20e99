//! The cause of every event: one change of one object in a landing bucket, and how changes are ordered.

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one object: a bucket and a decoded key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectRef {
    /// The bucket's name.
    pub bucket: String,
    /// The key, decoded: what `GetObject` takes.
    pub key: String,
}

impl ObjectRef {
    /// Makes a reference from a bucket and a decoded key.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into() }
    }

    /// Reads `s3://bucket/key`; `None` where the text is of another form or a part is empty.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (bucket, key) = url.strip_prefix("s3://")?.split_once('/')?;
        (!bucket.is_empty() && !key.is_empty()).then(|| Self::new(bucket, key))
    }

    /// The key's last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// S3's order of the changes of one key: a hexadecimal number, compared after padding to equal length.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct Sequencer(String);

impl Sequencer {
    /// The most hexadecimal digits that are taken; S3 writes 16 to 18.
    pub const DIGITS_MAX: usize = 64;

    /// Pads to [`Self::DIGITS_MAX`] digits, so that texts compare as the numbers do (a database's index, for example).
    #[must_use]
    pub fn padded(&self) -> String {
        format!("{:0>width$}", self.0, width = Self::DIGITS_MAX)
    }
}

impl TryFrom<String> for Sequencer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = !text.is_empty() && text.len() <= Self::DIGITS_MAX && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !fits {
            return Err("a sequencer is 1 to 64 hexadecimal digits".into());
        }
        let digits = text.trim_start_matches('0');
        Ok(Self(if digits.is_empty() { "0".into() } else { digits.to_ascii_uppercase() }))
    }
}

impl From<Sequencer> for String {
    fn from(sequencer: Sequencer) -> Self {
        sequencer.0
    }
}

impl PartialOrd for Sequencer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sequencer {
    fn cmp(&self, other: &Self) -> Ordering {
        // Leading zeros are gone, so that the longer one is the larger.
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happened to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Change {
    /// It was written: a new object, an overwrite or a copy.
    Created,
    /// It was deleted, or hidden by a delete marker.
    Removed,
}

/// One change of one landed object, or of one member of it; carried by every event that follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// The landed object.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// Whether it was written or removed.
    pub change: Change,
    /// S3's version id, where the bucket has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The object's entity tag, without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The object's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// S3's order among the changes of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequencer: Option<Sequencer>,
    /// When S3 says that it happened.
    pub event_time: Timestamp,
    /// Which member of an ndjson file or an item collection is meant, from 1; absent for the object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    /// How many members the file has; absent for the object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
}

impl Cause {
    /// The same change, narrowed to one member (line or feature, from 1) of so many. Of a member that comes alone, as a
    /// redriven one does, it stays as many as they were.
    #[must_use]
    pub fn of_member(&self, member: u32, members: u32) -> Self {
        Self { member: Some(member), members: self.members.or(Some(members)), ..self.clone() }
    }

    /// The same change of the whole object.
    #[must_use]
    pub fn of_object(&self) -> Self {
        Self { member: None, members: None, ..self.clone() }
    }

    /// Where this change stands in the order of its key.
    #[must_use]
    pub fn position(&self, redrive: u32) -> Position {
        Position { sequencer: self.sequencer.clone(), event_time: self.event_time, redrive }
    }
}

/// Where a change stands: by S3's sequencer between changes of one key, by time between keys,
/// by redrive generation between repetitions of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// S3's order for one key.
    pub sequencer: Option<Sequencer>,
    /// The event's time: the order between keys, and for one key where a sequencer is missing.
    pub event_time: Timestamp,
    /// How often an operator has re-sent it.
    pub redrive: u32,
}

impl Position {
    /// Compares two changes of one key.
    #[must_use]
    pub fn cmp_in_key(&self, other: &Self) -> Ordering {
        self.cmp_change(other).then(self.redrive.cmp(&other.redrive))
    }

    /// Compares two changes of one key and counts every redrive of one change as equal.
    #[must_use]
    pub fn cmp_change(&self, other: &Self) -> Ordering {
        match (&self.sequencer, &other.sequencer) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => self.event_time.cmp(&other.event_time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_order(a: &str, b: &str, expected: Ordering) {
        let read = |text: &str| Sequencer::try_from(text.to_owned()).unwrap();
        assert_eq!(read(a).cmp(&read(b)), expected, "{a} against {b}");
        assert_eq!(read(a).padded().cmp(&read(b).padded()), expected, "padded {a} against {b}");
    }

    #[test]
    fn sequencers_compare_as_numbers_whatever_their_length() {
        check_order("0055AED6DCD90281E5", "0055AED6DCD90281E6", Ordering::Less);
        check_order("FF", "100", Ordering::Less);
        check_order("00ff", "FF", Ordering::Equal);
        check_order("0", "00", Ordering::Equal);
    }

    #[test]
    fn a_sequencer_that_is_not_hexadecimal_is_no_sequencer() {
        for text in ["", "xyz", "0x12", &"F".repeat(65)] {
            assert!(Sequencer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_object_reference_needs_a_bucket_and_a_key() {
        assert_eq!(ObjectRef::parse("s3://a/b/c"), Some(ObjectRef::new("a", "b/c")));
        for url in ["s3://a", "s3:///b", "s3://a/", "http://a/b", "a/b"] {
            assert_eq!(ObjectRef::parse(url), None, "{url}");
        }
    }
}
