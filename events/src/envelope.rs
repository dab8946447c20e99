//! The envelope around every event, in the shape of a `CloudEvents` 1.0 JSON message.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::cause::{Cause, ObjectRef};
use crate::status::Passed;

/// What one stage tells the next.
pub trait Event: Clone + fmt::Debug + Send + Sync + 'static {
    /// The type's name with its version, `landfall.item.routed.v1`.
    fn kind(&self) -> &'static str;
    /// What it follows from.
    fn cause(&self) -> &Cause;
    /// The `data` of the envelope.
    ///
    /// # Panics
    /// Never: every payload is a tree of strings, numbers and raw JSON.
    fn data(&self) -> Box<RawValue>;
    /// Reads the `data` of an envelope of this `kind`.
    ///
    /// # Errors
    /// [`Unreadable`] where the kind is none of this stage's or the data does not fit it.
    fn from_data(kind: &str, data: &str) -> Result<Self, Unreadable>;

    /// Reads the events of one queue body: one envelope. The first stage reads S3's notifications instead.
    fn read(body: &str, _provider_of: &dyn Fn(&ObjectRef) -> String) -> Vec<Result<Received<Self>, Unread>> {
        vec![Received::from_envelope(body)]
    }
}

/// One event of a delivery with the body that would carry it alone.
#[derive(Debug, Clone)]
pub struct Received<E> {
    /// The event.
    pub envelope: Envelope<E>,
    /// What a dead letter holds, so that a redrive is a plain re-send.
    pub body: String,
}

impl<E: Event> Received<E> {
    /// Reads a body that is one envelope.
    ///
    /// # Errors
    /// [`Unread`] where it is none, or none of an event that `E` knows.
    pub fn from_envelope(body: &str) -> Result<Self, Unread> {
        match Envelope::from_json(body) {
            Ok(envelope) => Ok(Self { envelope, body: body.to_owned() }),
            Err(why) => Err(Unread { why, body: body.to_owned() }),
        }
    }
}

/// One part of a delivery that could not be read, with the body that would carry it alone.
#[derive(Debug)]
pub struct Unread {
    /// Why.
    pub why: Unreadable,
    /// What a dead letter holds.
    pub body: String,
}

/// An event that recognises its own repetitions: a hash of its cause, its type and the redrive generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventId(pub String);

impl EventId {
    /// Derives the id of the event of this `kind` that follows from `cause` in the given redrive generation.
    #[must_use]
    pub fn of(cause: &Cause, kind: &str, redrive: u32) -> Self {
        let version = cause.version_id.as_deref().or(cause.etag.as_deref()).unwrap_or_default();
        let sequencer = cause.sequencer.as_ref().map(ToString::to_string).unwrap_or_default();
        let change = format!("{:?} {:?} {redrive}", cause.change, cause.member);
        // A change without sequencer and version is told apart by its time.
        let time = if sequencer.is_empty() { cause.event_time.to_string() } else { String::new() };
        Self::hash(&[&cause.object.bucket, &cause.object.key, version, &sequencer, &time, &change, kind])
    }

    /// Derives the id of something that has no cause that could be read: from its bytes.
    #[must_use]
    pub fn of_bytes(body: &str, kind: &str, redrive: u32) -> Self {
        Self::hash(&[body, kind, &redrive.to_string()])
    }

    fn hash(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(hex::encode(&hasher.finalize()[..16]))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event with what a queue needs to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<E> {
    /// The same for every repetition of this event.
    pub id: EventId,
    /// When the cause happened: not when this message was made, so that repetitions carry the same bytes.
    pub time: Timestamp,
    /// Whose object it is; empty where no landing is configured for it.
    pub provider: String,
    /// How often an operator has re-sent it.
    pub redrive: u32,
    /// Until when it may wait; set when it is first delayed.
    pub deadline: Option<Timestamp>,
    /// How often it was re-sent with a delay.
    pub attempt: u32,
    /// The stages that it has passed; beside the body, see [`Passed`].
    pub passed: Vec<Passed>,
    /// The event.
    pub event: E,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    specversion: &'a str,
    id: EventId,
    source: &'a str,
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    time: Timestamp,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    redrive: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(default)]
    attempt: u32,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Every message between stages names this as its `CloudEvents` source.
pub const SOURCE: &str = "/landfall";

impl<E: Event> Envelope<E> {
    /// Puts a first envelope around `event`.
    pub fn new(event: E, provider: impl Into<String>, redrive: u32) -> Self {
        let id = EventId::of(event.cause(), event.kind(), redrive);
        let time = event.cause().event_time;
        Self { id, time, provider: provider.into(), redrive, deadline: None, attempt: 0, passed: Vec::new(), event }
    }

    /// Puts `event`, which follows from this one, in an envelope for the next stage.
    pub fn followed_by<N: Event>(&self, event: N) -> Envelope<N> {
        let passed = self.passed.clone();
        Envelope { passed, ..Envelope::new(event, self.provider.clone(), self.redrive) }
    }

    /// The same event in a later redrive generation: a new id, and deadline and attempts start afresh.
    #[must_use]
    pub fn redriven(self, redrive: u32) -> Self {
        let provider = self.provider;
        Self::new(self.event, provider, redrive)
    }

    /// Writes the message body.
    ///
    /// # Panics
    /// Never: an envelope is a tree of strings, numbers and raw JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let data = self.event.data();
        let wire = Wire {
            specversion: "1.0",
            id: self.id.clone(),
            source: SOURCE,
            kind: self.event.kind().into(),
            time: self.time,
            provider: self.provider.clone(),
            redrive: self.redrive,
            deadline: self.deadline,
            attempt: self.attempt,
            data: &data,
        };
        serde_json::to_string(&wire).expect("an envelope has string keys and finite numbers only")
    }

    /// Reads a message body.
    ///
    /// # Errors
    /// [`Unreadable`] where it is no envelope or none of an event that `E` knows.
    pub fn from_json(body: &str) -> Result<Self, Unreadable> {
        let wire: Wire<'_> = serde_json::from_str(body).map_err(|source| Unreadable::Json { source })?;
        let event = E::from_data(&wire.kind, wire.data.get())?;
        Ok(Self {
            id: wire.id,
            time: wire.time,
            provider: wire.provider,
            redrive: wire.redrive,
            deadline: wire.deadline,
            attempt: wire.attempt,
            passed: Vec::new(),
            event,
        })
    }
}

/// Why a message body could not be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The body is not the JSON that was expected.
    #[error("the message is not a readable event")]
    Json {
        /// What the parser met.
        source: serde_json::Error,
    },
    /// The body is an envelope of a type that this queue does not carry.
    #[error("the message is an event of type {kind:?}, which this queue does not carry")]
    Kind {
        /// The envelope's type.
        kind: String,
    },
    /// The body is a notification that does not say what is needed.
    #[error("the notification is not usable: {why}")]
    Notification {
        /// What is missing or wrong.
        why: String,
    },
}

/// Writes a payload as raw JSON.
pub(crate) fn raw<T: Serialize>(payload: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(payload).expect("a payload has string keys and finite numbers only")
}

/// Reads a payload from raw JSON.
pub(crate) fn unraw<T: DeserializeOwned>(data: &str) -> Result<T, Unreadable> {
    serde_json::from_str(data).map_err(|source| Unreadable::Json { source })
}

/// No event: the output of the last stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Never {}

impl Event for Never {
    fn kind(&self) -> &'static str {
        match *self {}
    }
    fn cause(&self) -> &Cause {
        match *self {}
    }
    fn data(&self) -> Box<RawValue> {
        match *self {}
    }
    fn from_data(kind: &str, _data: &str) -> Result<Self, Unreadable> {
        Err(Unreadable::Kind { kind: kind.to_owned() })
    }
}

/// Declares the events of one queue: an enum whose variants each hold one payload with a `cause` field.
macro_rules! events {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($payload:ty) = $kind:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant($payload),)+ }

        impl $name {
            /// The type names of all its events.
            pub const KINDS: &[&str] = &[$($kind),+];
        }

        $(impl From<$payload> for $name {
            fn from(payload: $payload) -> Self { Self::$variant(payload) }
        })+

        impl $crate::envelope::Event for $name {
            fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind,)+ }
            }
            fn cause(&self) -> &$crate::cause::Cause {
                match self { $(Self::$variant(payload) => &payload.cause,)+ }
            }
            fn data(&self) -> Box<serde_json::value::RawValue> {
                match self { $(Self::$variant(payload) => $crate::envelope::raw(payload),)+ }
            }
            fn from_data(kind: &str, data: &str) -> Result<Self, $crate::envelope::Unreadable> {
                match kind {
                    $($kind => Ok(Self::$variant($crate::envelope::unraw(data)?)),)+
                    other => Err($crate::envelope::Unreadable::Kind { kind: other.to_owned() }),
                }
            }
        }
    };
}
pub(crate) use events;
