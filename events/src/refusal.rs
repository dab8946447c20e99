//! Why something was refused, in a form that a provider can act on.

use serde::{Deserialize, Serialize};

use crate::codes::Code;

/// How grave a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Severity {
    /// The document is refused for it.
    Error,
    /// The document goes on.
    Warning,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// What kind of problem.
    pub code: Code,
    /// How grave.
    pub severity: Severity,
    /// Where in the document, as a JSON Pointer; empty for the whole document.
    pub pointer: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The schema or profile rule that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The schema keyword that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
    /// What was expected there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was found there, masked to 80 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether the document was mended for it and goes on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub patched: bool,
}

impl Problem {
    /// An error at a place, of which nothing more is known.
    pub fn new(code: Code, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            pointer: pointer.into(),
            message: message.into(),
            hint: None,
            rule: None,
            keyword: None,
            expected: None,
            value: None,
            patched: false,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The most problems that a refusal names.
pub const PROBLEMS_MAX: usize = 16;

/// Why a stage does not take something, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One plain sentence.
    pub reason: String,
    /// The problems found, at most [`PROBLEMS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The collection of the refused item, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The id of the refused item, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

impl Refusal {
    /// Refuses with a code and a sentence.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), problems: Vec::new(), collection: None, item: None }
    }

    /// Names the item that is refused.
    #[must_use]
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.problems = problems;
        self
    }

    /// Says which item it is about.
    #[must_use]
    pub fn of_item(mut self, collection: impl Into<String>, item: impl Into<String>) -> Self {
        self.collection = Some(collection.into());
        self.item = Some(item.into());
        self
    }
}
