//! The first event: an object landed or was removed, as S3, SNS, EventBridge or a re-send say it.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cause::{Cause, Change, ObjectRef, Sequencer};
use crate::envelope::{self, Envelope, Event, Received, Unread, Unreadable};

/// An object was written to a landing bucket or removed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Landed {
    /// The change.
    pub cause: Cause,
}

/// The type of a re-sent landing event; S3's own notifications have none.
pub const KIND: &str = "landfall.object.landed.v1";

impl Event for Landed {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn cause(&self) -> &Cause {
        &self.cause
    }

    fn data(&self) -> Box<RawValue> {
        envelope::raw(self)
    }

    fn from_data(kind: &str, data: &str) -> Result<Self, Unreadable> {
        if kind == KIND { envelope::unraw(data) } else { Err(Unreadable::Kind { kind: kind.to_owned() }) }
    }

    /// Reads every record of an S3 notification, whether plain, wrapped by SNS, or sent by `EventBridge`;
    /// or one of our own envelopes. A test event holds no records.
    fn read(body: &str, provider_of: &dyn Fn(&ObjectRef) -> String) -> Vec<Result<Received<Self>, Unread>> {
        let unread = |why: Unreadable, body: &str| Err(Unread { why, body: body.to_owned() });
        let shape: Shape<'_> = match serde_json::from_str(body) {
            Ok(shape) => shape,
            Err(source) => return vec![unread(Unreadable::Json { source }, body)],
        };
        let one = |cause: Result<Option<Cause>, Unreadable>, body: String| match cause {
            Ok(cause) => cause.map(|cause| {
                let provider = provider_of(&cause.object);
                Ok(Received { envelope: Envelope::new(Self { cause }, provider, 0), body })
            }),
            Err(why) => Some(unread(why, &body)),
        };
        if shape.specversion.is_some() {
            return vec![Received::from_envelope(body)];
        }
        if let Some(records) = shape.records {
            let alone = |raw: &RawValue| format!(r#"{{"Records":[{}]}}"#, raw.get());
            return records.into_iter().filter_map(|raw| one(s3_record(raw.get()), alone(raw))).collect();
        }
        if let (Some("Notification"), Some(message)) = (shape.kind.as_deref(), &shape.message) {
            // SNS wraps once; a message inside a message is not followed further.
            let twice = serde_json::from_str::<Shape<'_>>(message).is_ok_and(|inner| inner.message.is_some());
            if twice {
                return vec![unread(unusable("an SNS message inside an SNS message"), body)];
            }
            return Self::read(message, provider_of);
        }
        if let Some(detail) = &shape.detail {
            return one(event_bridge(&shape, detail), body.to_owned()).into_iter().collect();
        }
        match shape.event.as_deref() {
            Some("s3:TestEvent") => Vec::new(),
            _ => vec![unread(
                unusable("neither S3 records, an SNS or EventBridge wrapping of them, nor a Landfall event"),
                body,
            )],
        }
    }
}

/// The fields that tell the shapes apart.
#[derive(Deserialize)]
struct Shape<'a> {
    specversion: Option<String>,
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    time: Option<Timestamp>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Name,
    object: BridgeObject,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct BridgeObject {
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    #[serde(rename = "version-id")]
    version_id: Option<String>,
    sequencer: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_version: Option<String>,
    event_time: Timestamp,
    event_name: String,
    s3: S3,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Name,
    object: S3Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Object {
    key: String,
    size: Option<u64>,
    e_tag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

/// Reads one record; `None` for an event that neither writes nor removes an object (a restore, a tagging).
fn s3_record(text: &str) -> Result<Option<Cause>, Unreadable> {
    let record: Record = serde_json::from_str(text).map_err(|source| Unreadable::Json { source })?;
    // Since 2.4 all S3 events share one version; a minor version only adds fields.
    if !record.event_version.as_deref().unwrap_or("2").starts_with("2") {
        return Err(unusable("its event version is not 2.x"));
    }
    let name = record.event_name.trim_start_matches("s3:");
    let change = if name.starts_with("ObjectCreated:") {
        Change::Created
    } else if name.starts_with("ObjectRemoved:") || name.starts_with("LifecycleExpiration:") {
        Change::Removed
    } else {
        return Ok(None);
    };
    let object = record.s3.object;
    Ok(Some(Cause {
        object: ObjectRef::new(record.s3.bucket.name, decode_key(&object.key)?),
        change,
        version_id: object.version_id.filter(|id| !id.is_empty() && id != "null"),
        etag: object.e_tag.map(unquoted).filter(|etag| !etag.is_empty()),
        size: object.size,
        sequencer: object.sequencer.and_then(|text| Sequencer::try_from(text).ok()),
        event_time: microseconds(record.event_time),
        member: None,
        members: None,
    }))
}

/// Reads an `EventBridge` event of S3, whose keys are not encoded.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
fn event_bridge(shape: &Shape<'_>, detail: &Detail) -> Result<Option<Cause>, Unreadable> {
    let change = match shape.detail_type.as_deref() {
        Some("Object Created") => Change::Created,
        Some("Object Deleted") => Change::Removed,
        _ => return Ok(None),
    };
    let Some(event_time) = shape.time else { return Err(unusable("it has no time")) };
    Ok(Some(Cause {
        object: ObjectRef::new(&detail.bucket.name, &detail.object.key),
        change,
        version_id: detail.object.version_id.clone(),
        etag: detail.object.etag.clone().map(unquoted),
        size: detail.object.size,
        sequencer: detail.object.sequencer.clone().and_then(|text| Sequencer::try_from(text).ok()),
        event_time: microseconds(event_time),
        member: None,
        members: None,
    }))
}

/// Cuts a time to what a database keeps, so that it is the same wherever it is read.
fn microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Turns a key as S3 notifications write it into the key itself.
///
/// S3 writes a space in a key as `+` and a plus as `%2B`, so `+` is turned first.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
fn decode_key(encoded: &str) -> Result<String, Unreadable> {
    let spaced = encoded.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| unusable("its key is not UTF-8"))
}

fn unquoted(etag: String) -> String {
    etag.trim_matches('"').to_owned()
}

fn unusable(why: &str) -> Unreadable {
    Unreadable::Notification { why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"eventVersion":"2.6","eventSource":"aws:s3","eventTime":"2024-05-17T10:15:00.123Z",
        "eventName":"ObjectCreated:Put","novelty":{"x":1},
        "s3":{"bucket":{"name":"landing"},"object":{"key":"KEY","size":7,"eTag":"abc","sequencer":"0055AED6"}}}"#;

    fn keys(body: &str) -> Vec<String> {
        let received = Landed::read(body, &|object| object.key.split('/').next().unwrap_or_default().to_owned());
        received.into_iter().map(|one| one.unwrap().envelope.event.cause.object.key).collect()
    }

    #[track_caller]
    fn check_key(encoded: &str, expected: &str) {
        let body = format!(r#"{{"Records":[{}]}}"#, RECORD.replace("KEY", encoded));
        assert_eq!(keys(&body), [expected]);
    }

    #[test]
    fn keys_are_decoded_plus_first() {
        check_key("a+b", "a b");
        check_key("a%2Bb", "a+b");
        check_key("a%252Bb", "a%2Bb");
        check_key("100%25/%C3%BC/%F0%9F%9B%B0.json", "100%/ü/🛰.json");
    }

    #[test]
    fn a_key_that_is_not_utf8_is_unreadable() {
        let body = format!(r#"{{"Records":[{}]}}"#, RECORD.replace("KEY", "%FF"));
        assert!(Landed::read(&body, &|_| String::new()).remove(0).is_err());
    }

    #[test]
    fn every_record_is_read_and_can_be_sent_again_alone() {
        let body = format!(r#"{{"Records":[{},{}]}}"#, RECORD.replace("KEY", "p/1"), RECORD.replace("KEY", "p/2"));
        let received = Landed::read(&body, &|_| "p".into());
        assert_eq!(received.len(), 2);
        for (one, key) in received.into_iter().zip(["p/1", "p/2"]) {
            let one = one.unwrap();
            assert_eq!(keys(&one.body), [key]);
            assert_eq!(one.envelope.provider, "p");
        }
    }

    #[test]
    fn the_same_event_has_one_id_in_every_wrapping() {
        let plain = format!(r#"{{"Records":[{}]}}"#, RECORD.replace("KEY", "p/a+b"));
        let wrapped = serde_json::json!({"Type": "Notification", "MessageId": "x", "Message": plain}).to_string();
        let bridge = r#"{"version":"0","source":"aws.s3","detail-type":"Object Created","time":"2024-05-17T10:15:00Z",
            "detail":{"bucket":{"name":"landing"},"object":{"key":"p/a b","size":7,"etag":"abc","sequencer":"0055AED6"}}}"#;
        let id = |body: &str| Landed::read(body, &|_| "p".into()).remove(0).unwrap().envelope.id;
        assert_eq!(id(&plain), id(&wrapped));
        assert_eq!(id(&plain), id(bridge));
        let resent = Landed::read(&plain, &|_| "p".into()).remove(0).unwrap().envelope.to_json();
        assert_eq!(id(&plain), id(&resent));
    }

    #[test]
    fn test_events_and_uninteresting_events_hold_no_records() {
        let none: [String; 0] = [];
        assert_eq!(keys(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"landing"}"#), none);
        assert_eq!(
            keys(&format!(r#"{{"Records":[{}]}}"#, RECORD.replace("ObjectCreated:Put", "ObjectTagging:Put"))),
            none
        );
        assert_eq!(keys(r#"{"Records":[]}"#), none);
    }

    #[test]
    fn what_is_no_notification_is_unreadable() {
        let v3 = format!(r#"{{"Records":[{}]}}"#, RECORD.replace("\"2.6\"", "\"3.0\""));
        for body in ["", "hello", "[]", "{}", r#"{"Records":[{}]}"#, r#"{"Type":"Notification","Message":"x"}"#, &v3] {
            assert!(Landed::read(body, &|_| String::new()).remove(0).is_err(), "{body}");
        }
    }

    #[test]
    fn one_unreadable_record_does_not_take_the_others_along() {
        let body = format!(r#"{{"Records":[{{}},{}]}}"#, RECORD.replace("KEY", "p/1"));
        let received = Landed::read(&body, &|_| "p".into());
        assert_eq!(received[0].as_ref().unwrap_err().body, r#"{"Records":[{}]}"#);
        assert_eq!(received[1].as_ref().unwrap().envelope.event.cause.object.key, "p/1");
    }
}
