//! Judges STAC documents offline: core rules of STAC 1.0.0 and 1.1.0, geometry and datetimes by hand.
//!
//! This crate refuses to do any I/O: nothing that a document names is fetched, opened or resolved.

mod geometry;
mod members;

use std::sync::OnceLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use landfall_events::{Code, Problem, Severity, codes};
use serde_json::Value;

pub use members::{Members, split};

/// How strictly findings are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As the specification is written.
    Strict,
    /// As ingest needs it: a missing collection link and odd IRIs are warnings, a missing collection is an error.
    Ingest,
}

impl Profile {
    /// Finds a profile by its name in the configuration.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "strict" => Some(Self::Strict),
            "ingest" => Some(Self::Ingest),
            _ => None,
        }
    }
}

/// What kind of document it is, with the ids that everything after needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An item.
    Item {
        /// Its collection; under [`Profile::Ingest`] there is one.
        collection: Option<String>,
        /// Its id.
        id: String,
    },
    /// A collection.
    Collection {
        /// Its id.
        id: String,
    },
    /// A catalog.
    Catalog {
        /// Its id.
        id: String,
    },
}

/// What a document is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Valid {
        /// What it is.
        kind: Kind,
        /// What the profile warns about.
        warnings: Vec<Problem>,
    },
    /// It breaks rules; at least one problem, at most [`landfall_events::refusal::PROBLEMS_MAX`].
    Invalid {
        /// What is wrong.
        problems: Vec<Problem>,
        /// The collection and id that it names, where it does.
        ids: (Option<String>, Option<String>),
    },
    /// It is JSON, but no STAC document.
    NotStac,
    /// It is STAC of another version.
    UnsupportedVersion(String),
    /// It is not JSON.
    Unparseable {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser met.
        message: String,
    },
}

const PROBLEMS_MAX: usize = landfall_events::refusal::PROBLEMS_MAX;

/// Judges the text of one document.
#[must_use]
pub fn judge(text: &str, profile: Profile) -> Verdict {
    match serde_json::from_str(text) {
        Ok(value) => judge_value(&value, profile),
        Err(error) => Verdict::Unparseable { line: error.line(), column: error.column(), message: error.to_string() },
    }
}

/// Judges one parsed document.
#[must_use]
pub fn judge_value(value: &Value, profile: Profile) -> Verdict {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let (Some(kind), Some(version)) = (text("type"), value.get("stac_version")) else { return Verdict::NotStac };
    let Some(definition) = Definition::of(kind) else { return Verdict::NotStac };
    let Some(version) = version.as_str().and_then(Version::read) else {
        return Verdict::UnsupportedVersion(masked(&version.to_string()));
    };
    let ids = || (text("collection").map(str::to_owned), text("id").map(str::to_owned));

    let mut problems = Vec::new();
    nul(value, &mut String::new(), &mut problems);
    let vetted = match definition {
        Definition::Item => vet_item(value, profile, &mut problems),
        Definition::Collection | Definition::Catalog => None,
    };
    let judged = vetted.as_ref().unwrap_or(value);
    let validator = validator(version, definition);
    // The error path is slow and hungry: it is taken only when there is an error, on geometry that was vetted.
    if !validator.is_valid(judged) {
        let found = validator.iter_errors(judged).flat_map(|error| problems_of(&error, version, profile));
        problems.extend(found.take(4 * PROBLEMS_MAX));
    }
    let (errors, mut warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    if !errors.is_empty() {
        let mut problems = errors;
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        return Verdict::Invalid { problems, ids: ids() };
    }
    warnings.truncate(PROBLEMS_MAX);
    let (collection, id) = ids();
    let id = id.unwrap_or_default();
    let kind = match definition {
        Definition::Item => Kind::Item { collection, id },
        Definition::Collection => Kind::Collection { id },
        Definition::Catalog => Kind::Catalog { id },
    };
    Verdict::Valid { kind, warnings }
}

#[derive(Clone, Copy)]
enum Version {
    V100,
    V110,
}

impl Version {
    fn read(text: &str) -> Option<Self> {
        match text {
            "1.0.0" => Some(Self::V100),
            "1.1.0" => Some(Self::V110),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }
}

#[derive(Clone, Copy)]
enum Definition {
    Item,
    Collection,
    Catalog,
}

impl Definition {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "Feature" => Some(Self::Item),
            "Collection" => Some(Self::Collection),
            "Catalog" => Some(Self::Catalog),
            _ => None,
        }
    }
}

/// The compiled rules, made when they are first needed and shared by all threads.
fn validator(version: Version, definition: Definition) -> &'static Validator {
    static VALIDATORS: [[OnceLock<Validator>; 3]; 2] = [const { [const { OnceLock::new() }; 3] }; 2];
    VALIDATORS[version as usize][definition as usize].get_or_init(|| {
        let source = match version {
            Version::V100 => include_str!("../schemas/stac-1.0.0.json"),
            Version::V110 => include_str!("../schemas/stac-1.1.0.json"),
        };
        let mut schema: Value = serde_json::from_str(source).expect("the schema is JSON, and a test compiles it");
        let name = match definition {
            Definition::Item => "item",
            Definition::Collection => "collection",
            Definition::Catalog => "catalog",
        };
        schema["allOf"] = serde_json::json!([{"$ref": format!("#/definitions/{name}")}]);
        let options = jsonschema::options().with_draft(jsonschema::Draft::Draft7).should_validate_formats(true);
        options.offline().build(&schema).expect("the schema is valid, and a test compiles it")
    })
}

/// Looks at what the schemas do not say or say too dearly. Returns a copy to judge by the schema in the item's
/// place, where its geometry is broken or the profile takes no offence at something.
fn vet_item(item: &Value, profile: Profile, problems: &mut Vec<Problem>) -> Option<Value> {
    let before = problems.len();
    if let Some(geometry) = item.get("geometry").filter(|geometry| !geometry.is_null()) {
        geometry::vet(geometry, problems);
    }
    if let Some(bbox) = item.get("bbox") {
        geometry::vet_bbox(bbox, problems);
    }
    let broken = problems[before..].iter().any(|problem| problem.severity == Severity::Error);
    vet_range(item, problems);
    let linked = item
        .get("links")
        .and_then(Value::as_array)
        .is_some_and(|links| links.iter().any(|link| link.get("rel").and_then(Value::as_str) == Some("collection")));
    let names_collection = item.get("collection").is_some_and(Value::is_string);
    let unlinked = profile == Profile::Ingest && names_collection && !linked;
    if profile == Profile::Ingest && item.get("collection").is_none_or(Value::is_null) {
        let mut problem = problem(codes::STAC_COLLECTION_MISSING, "/collection", "the item names no collection");
        problem.hint = Some("set `collection` to the id of the item's collection".into());
        problems.push(problem);
    }
    if unlinked {
        let mut problem = problem(codes::STAC_SCHEMA, "/links", "there is no link with rel=collection");
        problem.severity = Severity::Warning;
        problem.hint = Some("add a link with rel=collection to the item's collection".into());
        problems.push(problem);
    }
    if !broken && !unlinked {
        return None;
    }
    let mut copy = item.clone();
    if broken && let Some(geometry) = copy.get_mut("geometry").and_then(Value::as_object_mut) {
        geometry.insert("type".into(), "Point".into());
        geometry.insert("coordinates".into(), serde_json::json!([0, 0]));
        copy["bbox"] = serde_json::json!([0, 0, 0, 0]);
    }
    if unlinked {
        copy.as_object_mut().map(|item| item.remove("collection"));
    }
    Some(copy)
}

/// Warns about a range that ends before it starts.
fn vet_range(item: &Value, problems: &mut Vec<Problem>) {
    let at = |name: &str| item.pointer(&format!("/properties/{name}")).and_then(Value::as_str);
    let (Some(start), Some(end)) = (at("start_datetime"), at("end_datetime")) else { return };
    let (Ok(from), Ok(to)) = (start.parse::<jiff::Timestamp>(), end.parse::<jiff::Timestamp>()) else { return };
    if from > to {
        let mut problem =
            problem(codes::STAC_DATETIME, "/properties/start_datetime", "the range ends before it starts");
        problem.value = Some(masked(&format!("{start} to {end}")));
        // No schema says so, and the verdict is the published schemas': the catalogue will refuse it.
        problem.severity = Severity::Warning;
        problems.push(problem);
    }
}

/// Finds characters that PostgreSQL cannot hold. <https://www.postgresql.org/docs/15/datatype-json.html>
fn nul(value: &Value, pointer: &mut String, problems: &mut Vec<Problem>) {
    let length = pointer.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            problems.push(problem(codes::STAC_NUL, pointer, "the text contains the character U+0000"));
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate().filter(|(_, value)| !value.is_number()) {
                pointer.push_str(&format!("/{index}"));
                nul(value, pointer, problems);
                pointer.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                if name.contains('\0') {
                    problems.push(problem(codes::STAC_NUL, pointer, "a member's name contains the character U+0000"));
                }
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                nul(value, pointer, problems);
                pointer.truncate(length);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn problem(code: Code, pointer: &str, message: impl Into<String>) -> Problem {
    Problem {
        code,
        severity: Severity::Error,
        pointer: pointer.to_owned(),
        message: message.into(),
        hint: None,
        rule: None,
        keyword: None,
        value: None,
    }
}

/// Says an error of the schema engine in our words; of alternatives, the one that came closest.
fn problems_of(error: &ValidationError<'_>, version: Version, profile: Profile) -> Vec<Problem> {
    if let ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } = error.kind() {
        let is_type = |error: &ValidationError<'_>| matches!(error.kind(), ValidationErrorKind::Type { .. });
        let meant = context.iter().filter(|branch| !branch.iter().any(is_type)).min_by_key(|branch| branch.len());
        if let Some(branch) = meant {
            return branch.iter().flat_map(|error| problems_of(error, version, profile)).collect();
        }
    }
    let pointer = error.instance_path().to_string();
    let keyword = error.schema_path().to_string().rsplit('/').next().unwrap_or_default().to_owned();
    let in_time = pointer.contains("datetime") || pointer.starts_with("/extent/temporal");
    let code = if in_time { codes::STAC_DATETIME } else { codes::STAC_SCHEMA };
    let mut problem = problem(code, &pointer, error.masked().to_string());
    problem.hint = hint(error);
    problem.rule = Some(format!("STAC {}", version.text()));
    problem.keyword = Some(keyword);
    if !error.instance().is_object() && !error.instance().is_array() {
        problem.value = Some(masked(&error.instance().to_string()));
    }
    let is_iri = matches!(error.kind(), ValidationErrorKind::Format { format } if format.starts_with("iri"));
    if is_iri && profile == Profile::Ingest {
        problem.severity = Severity::Warning;
    }
    vec![problem]
}

#[allow(clippy::wildcard_enum_match_arm, reason = "most kinds of the schema engine need no hint")]
fn hint(error: &ValidationError<'_>) -> Option<String> {
    Some(match error.kind() {
        ValidationErrorKind::Required { property } => format!("add {property}"),
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => format!("make it a JSON {kind}"),
        ValidationErrorKind::Enum { options } => format!("use one of {}", masked(&options.to_string())),
        ValidationErrorKind::Constant { expected_value } => {
            format!("set it to {}", masked(&expected_value.to_string()))
        }
        ValidationErrorKind::Format { format } if format == "date-time" => "write it as 2024-05-17T10:15:00Z".into(),
        ValidationErrorKind::Pattern { .. } if error.instance_path().to_string().contains("datetime") => {
            "write it in UTC, as 2024-05-17T10:15:00Z".into()
        }
        ValidationErrorKind::FalseSchema => "remove it, or add what it belongs to".into(),
        _ => return None,
    })
}

/// The longest excerpt of a stranger's value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 80;

fn masked(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if visible.len() <= VALUE_BYTES_MAX {
        return visible;
    }
    let end = (0..=VALUE_BYTES_MAX - '…'.len_utf8()).rev().find(|&end| visible.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &visible[..end])
}

#[cfg(test)]
mod tests;
