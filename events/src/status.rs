//! What became of a landed object or member, as its provider and operators are told.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cause::{Cause, ObjectRef};
use crate::codes;
use crate::refusal::Problem;
use crate::report::Effect;

/// When a stage was done with what leads here. Travels beside a message's body, so that repetitions carry the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Passed {
    /// The stage.
    pub stage: String,
    /// When.
    pub at: Timestamp,
}

/// The message attribute that says which stages an event has passed.
pub const PASSED: &str = "passed";

/// The most stages that are told; of more, the last.
const PASSED_MAX: usize = 8;

impl Passed {
    /// Writes them as one text: `validate=2024-05-17T10:15:00Z;route=2024-05-17T10:15:01Z`.
    #[must_use]
    pub fn write(all: &[Self]) -> String {
        let mut text = String::new();
        for Self { stage, at } in &all[all.len().saturating_sub(PASSED_MAX)..] {
            let end = if text.is_empty() { "" } else { ";" };
            write!(text, "{end}{stage}={at:.3}").expect("a text takes what is written to it");
        }
        text
    }

    /// Reads that text; what cannot be read of it is left out.
    #[must_use]
    pub fn read(text: &str) -> Vec<Self> {
        let one = |part: &str| {
            let (stage, at) = part.split_once('=')?;
            Some(Self { stage: stage.to_owned(), at: at.parse().ok()? })
        };
        text.split(';').take(PASSED_MAX).filter_map(one).collect()
    }
}

/// What became of something that landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Outcome {
    /// Found, fetched and announced.
    Completed,
    /// Refused, with a code.
    Refused,
    /// Waits for something that has not landed.
    Waiting,
    /// Under way.
    InFlight,
    /// Needs nothing done.
    Ignored,
    /// Removed from landing.
    Removed,
    /// Something newer has taken its place.
    Superseded,
}

impl Outcome {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
            Self::InFlight => "in flight",
            Self::Ignored => "ignored",
            Self::Removed => "removed",
            Self::Superseded => "superseded",
        }
    }

    /// How final it is among what is said of one change in one redrive generation.
    fn finality(self) -> u8 {
        match self {
            Self::InFlight => 0,
            Self::Waiting => 1,
            Self::Refused | Self::Ignored => 2,
            Self::Completed | Self::Removed | Self::Superseded => 3,
        }
    }
}

/// What became of one landed object or member: a line of `landfall status`, and an object that notify writes for the
/// provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// The landed object or member, and which change of it is meant.
    #[serde(flatten)]
    pub cause: Cause,
    /// Whose it is.
    #[serde(default)]
    pub provider: String,
    /// How often an operator has re-sent it.
    #[serde(default)]
    pub redrive: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Its collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The item's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What the load did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// The stage that refused it or in which it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The code of a refusal, or the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What is wrong, in detail; of what is completed, what was mended or warned about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Where it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The event that announced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// When each stage was done with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
    /// When it was last touched; of what is in flight, when it landed.
    pub since: Timestamp,
}

/// The folder of the work bucket with what providers may read, a folder for each.
pub const FOLDER: &str = "status";

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
const KEY_BYTES_MAX: usize = 1024;

impl Status {
    /// A status of which nothing is known but its cause and outcome.
    #[must_use]
    pub fn new(cause: Cause, provider: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            since: cause.event_time,
            cause,
            provider: provider.into(),
            redrive: 0,
            outcome,
            collection: None,
            item: None,
            effect: None,
            stage: None,
            code: None,
            reason: None,
            hint: None,
            problems: Vec::new(),
            waits_for: Vec::new(),
            until: None,
            destination: None,
            event: None,
            passed: Vec::new(),
        }
    }

    /// The hint of the code, where it is one of ours.
    #[must_use]
    pub fn with_hint(mut self) -> Self {
        self.hint = self.code.as_deref().and_then(codes::explain).map(|code| code.hint.to_owned());
        self
    }

    /// Whether this may take the place of what was said before of the same object or member.
    #[must_use]
    pub fn replaces(&self, before: &Self) -> bool {
        let order = self.cause.position(self.redrive).cmp_in_key(&before.cause.position(before.redrive));
        order.then(self.outcome.finality().cmp(&before.outcome.finality())).is_ge()
    }

    /// Where it is kept in the work bucket. A member's number is the last segment, so that no two share a key.
    #[must_use]
    pub fn kept_at(&self) -> String {
        let ObjectRef { bucket, key } = &self.cause.object;
        let kept = match self.cause.member {
            None => format!("{}{key}", Self::objects_of(&self.provider, bucket)),
            Some(member) => format!("{}{key}/{member}", Self::members_of(&self.provider, bucket)),
        };
        if kept.len() <= KEY_BYTES_MAX {
            return kept;
        }
        format!("{}{}", Self::long_of(&self.provider, bucket), hex::encode(Sha256::digest(kept)))
    }

    /// How the keys start of a provider's objects of a bucket; the landed key follows.
    #[must_use]
    pub fn objects_of(provider: &str, bucket: &str) -> String {
        format!("{FOLDER}/{provider}/objects/{bucket}/")
    }

    /// How the keys start of members; the landed key and the member's number follow.
    #[must_use]
    pub fn members_of(provider: &str, bucket: &str) -> String {
        format!("{FOLDER}/{provider}/members/{bucket}/")
    }

    /// How the keys start where the landed key is too long to be part of one; a hash follows.
    #[must_use]
    pub fn long_of(provider: &str, bucket: &str) -> String {
        format!("{FOLDER}/{provider}/long/{bucket}/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Change, Sequencer};

    fn status(key: &str, sequencer: &str, outcome: Outcome) -> Status {
        let cause = Cause {
            object: ObjectRef::new("landing", key),
            change: Change::Created,
            version_id: None,
            etag: None,
            size: None,
            sequencer: Some(Sequencer::try_from(sequencer.to_owned()).unwrap()),
            event_time: Timestamp::UNIX_EPOCH,
            member: None,
            members: None,
        };
        Status::new(cause, "sbn", outcome)
    }

    #[test]
    fn what_is_newer_or_more_final_replaces_what_was_said() {
        let waiting = status("k", "1", Outcome::Waiting);
        let completed = status("k", "1", Outcome::Completed);
        assert!(completed.replaces(&waiting));
        assert!(!waiting.replaces(&completed), "a wait that is told late");
        assert!(completed.replaces(&completed));
        assert!(status("k", "2", Outcome::Waiting).replaces(&completed));
        assert!(!status("k", "1", Outcome::Completed).replaces(&status("k", "2", Outcome::Refused)));
        let again = Status { redrive: 1, ..status("k", "1", Outcome::Refused) };
        assert!(again.replaces(&completed));
    }

    #[test]
    fn no_two_share_a_key_and_none_is_too_long() {
        let of = |key: &str, member| {
            let mut one = status(key, "1", Outcome::Completed);
            one.cause.member = member;
            one.kept_at()
        };
        let long = "x".repeat(1024);
        let all = [of("a", None), of("a", Some(1)), of("a/1", None), of("a/1", Some(1)), of("a#1", None)];
        let all = all.into_iter().chain([of(&long, None), of(&long, Some(1))]);
        let all: std::collections::BTreeSet<_> = all.collect();
        assert_eq!(all.len(), 7, "{all:?}");
        assert!(all.iter().all(|key| key.len() <= KEY_BYTES_MAX && key.starts_with("status/sbn/")));
    }

    #[test]
    fn passed_stages_survive_their_text() {
        let at: Timestamp = "2024-05-17T10:15:00.125Z".parse().unwrap();
        let all = ["validate", "route"].map(|stage| Passed { stage: stage.into(), at });
        assert_eq!(Passed::write(&all), "validate=2024-05-17T10:15:00.125Z;route=2024-05-17T10:15:00.125Z");
        assert_eq!(Passed::read(&Passed::write(&all)), all);
        assert_eq!(Passed::read("x;=;y=z;;"), []);
    }
}
