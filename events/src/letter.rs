//! The dead letter: a refused message with its reason in the message attributes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::codes::Code;
use crate::envelope::EventId;

/// What is known about a dead letter beside its body, as it stands in the message attributes.
///
/// SQS takes at most 10 attributes, and SNS's raw delivery no more than that; these are 10.
/// The body is the original one, so that a redrive is a plain re-send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The stage that refused it.
    pub stage: String,
    /// Why, as a stable code.
    pub code: Code,
    /// Why, as a sentence.
    pub reason: String,
    /// The id of the refused event; problems too large for an attribute lie under it in the work bucket.
    pub event: Option<EventId>,
    /// The landed object, `s3://bucket/key`.
    pub object: Option<String>,
    /// Whose object it is.
    pub provider: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was refused.
    pub time: Option<Timestamp>,
    /// How often it had been redriven.
    pub redrive: u32,
    /// The trace that it belongs to, in W3C form.
    pub traceparent: Option<String>,
}

/// The longest reason that goes into an attribute, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// The attribute that counts redrives, on a dead letter and on what is re-sent from it.
pub const REDRIVE: &str = "redrive";

/// The attribute that carries W3C trace context. <https://www.w3.org/TR/trace-context/>
pub const TRACEPARENT: &str = "traceparent";

/// How often what has these attributes was redriven.
#[must_use]
pub fn redrive_of(attributes: &BTreeMap<String, String>) -> u32 {
    attributes.get(REDRIVE).and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Letter {
    /// Writes the attributes; empty ones are left out, because SQS refuses an empty value.
    #[must_use]
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mut reason = visible(&self.reason);
        let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end));
        reason.truncate(end.unwrap_or_default());
        let object = self.object.as_deref().map(visible).unwrap_or_default();
        let pairs = [
            ("stage", self.stage.clone()),
            ("code", self.code.to_string()),
            ("reason", reason),
            ("event", self.event.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("object", object),
            ("provider", visible(&self.provider)),
            ("attempts", self.attempts.to_string()),
            ("time", self.time.map(|time| time.to_string()).unwrap_or_default()),
            (REDRIVE, self.redrive.to_string()),
            (TRACEPARENT, self.traceparent.clone().unwrap_or_default()),
        ];
        pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Reads the attributes of a dead letter; `None` where SQS moved it by itself and there is no reason.
    #[must_use]
    pub fn from_attributes(attributes: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| attributes.get(name).cloned();
        let number = |name: &str| attributes.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
        Some(Self {
            stage: text("stage")?,
            code: Code::read(&text("code")?),
            reason: text("reason").unwrap_or_default(),
            event: text("event").map(EventId),
            object: text("object"),
            provider: text("provider").unwrap_or_default(),
            attempts: number("attempts"),
            time: text("time").and_then(|value| value.parse().ok()),
            redrive: redrive_of(attributes),
            traceparent: text(TRACEPARENT),
        })
    }
}

/// SQS refuses control characters in attributes, and a terminal should not obey them.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(reason: &str) -> Letter {
        Letter {
            stage: "validate".into(),
            code: crate::codes::STAC_SCHEMA,
            reason: reason.into(),
            event: Some(EventId("ab".into())),
            object: Some("s3://landing/p/a b ü.json".into()),
            provider: "p".into(),
            attempts: 2,
            time: Some("2024-05-17T10:15:00Z".parse().unwrap()),
            redrive: 1,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    #[test]
    fn a_letter_survives_its_attributes_and_has_no_more_than_ten() {
        let letter = letter("it is not so");
        assert!(letter.attributes().len() <= 10);
        assert_eq!(Letter::from_attributes(&letter.attributes()), Some(letter));
    }

    #[test]
    fn a_reason_is_bounded_and_holds_no_control_characters() {
        let long = letter(&"ü\u{0}".repeat(2000)).attributes();
        assert!(long["reason"].len() <= REASON_BYTES_MAX);
        assert!(!long["reason"].contains('\u{0}'));
        assert!(long["reason"].starts_with("ü\u{FFFD}"));
    }

    #[test]
    fn what_sqs_moved_by_itself_is_no_letter() {
        assert_eq!(Letter::from_attributes(&BTreeMap::new()), None);
    }
}
