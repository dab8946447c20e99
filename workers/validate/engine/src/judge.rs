//! What becomes of one document: read, told what it is, vetted by hand, held against the schemas, then against the
//! profile's own rules.

use std::collections::BTreeSet;

use jiff::civil::Date;
use landfall_events::{Problem, Severity, codes};
use serde_json::json;

use crate::core_rules::{self, Definition, Version};
use crate::dataset::{Dataset, Subject};
use crate::dom::{Document, Unreadable, Value};
use crate::findings::{bounded, explain, masked, problem, short};
use crate::patch::Append;
use crate::profile::{Action, Aspect, Level, Profile};
use crate::schemas::{Found, Schemas};
use crate::{DOCUMENT_BYTES_MAX, geometry};

/// What kind of document it is, with the ids that everything after needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An item.
    Item {
        /// Its collection, where it names one.
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

/// What a document is found to be. Trouble with a schema is never the document's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Valid(Kind),
    /// It breaks rules: the findings say which.
    Invalid,
    /// It declares extensions that are not known, and breaks no other rule.
    ExtensionUnknown,
    /// The schema of an extension that it declares cannot be used, and it breaks no other rule: nobody can say.
    Unusable,
    /// It is STAC of another version.
    UnsupportedVersion,
    /// It is JSON, and nothing in it says that it should be STAC.
    NotStac,
    /// It is not JSON, or not JSON that can be read within the limits.
    Unparseable,
}

impl Verdict {
    /// The word for it in the output of `landfall check`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Invalid | Self::ExtensionUnknown => "invalid",
            Self::Unusable => "unusable",
            Self::UnsupportedVersion => "unsupported",
            Self::NotStac => "not-stac",
            Self::Unparseable => "unparseable",
        }
    }
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What the document is found to be.
    pub verdict: Verdict,
    /// Why it cannot go on: at most [`landfall_events::refusal::PROBLEMS_MAX`], and
    /// [`PROBLEMS_BYTES_MAX`](crate::PROBLEMS_BYTES_MAX) as JSON. Empty where it is valid.
    pub findings: Vec<Problem>,
    /// Findings that there was no room for.
    pub left_out: usize,
    /// What is told and does not keep it from going on, within the same limits; what was patched is among them.
    pub warnings: Vec<Problem>,
    /// The collection that it names.
    pub collection: Option<String>,
    /// The id that it has.
    pub id: Option<String>,
    /// Its text after patches; `None` where there are none.
    pub patched: Option<String>,
}

/// Where a document stands, beside its own text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place<'p> {
    /// Its path under the dataset's root or the landing.
    pub path: Option<&'p str>,
    /// Whether it is one of several in its file.
    pub is_member: bool,
    /// The dataset around it, where that is at hand.
    pub dataset: Option<&'p Dataset>,
}

/// Judges documents under one profile.
#[derive(Clone, Copy)]
pub struct Judge<'j> {
    /// The extensions' schemas.
    pub schemas: &'j Schemas,
    /// What a submission must satisfy.
    pub profile: &'j Profile,
    /// The day on which waivers are looked at.
    pub today: Date,
}

impl Judge<'_> {
    /// Judges the bytes of one document.
    #[must_use]
    pub fn judge(&self, bytes: &[u8], place: Place<'_>) -> Judgement {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let message = format!("the document is larger than {DOCUMENT_BYTES_MAX} bytes");
            return Judgement::because(Verdict::Invalid, problem(codes::STAC_TOO_LARGE, "", message));
        }
        match Document::read(bytes) {
            Ok(document) => {
                let text = std::str::from_utf8(bytes).expect("what is read as a document is UTF-8");
                self.judge_document(document, text, place)
            }
            Err(unreadable) => Judgement::because(Verdict::Unparseable, told(&unreadable)),
        }
    }

    fn judge_document(&self, mut document: Document<'_>, text: &str, place: Place<'_>) -> Judgement {
        let (definition, version) = match dispatch(&document.root) {
            Ok(found) => found,
            Err(judgement) => return *judgement,
        };
        let mut findings = Findings::new(self.profile);
        for pointer in &document.repeated {
            let message = "this name stands here more than once; the last one counts";
            findings.add(Aspect::NameRepeated, problem(codes::STAC_NAME_REPEATED, pointer, message));
        }
        if has_nul(text) {
            nul(&document.root, &mut String::new(), &mut findings);
            if !findings.rejected.contains(&Aspect::CharacterNul) {
                // Only the last of repeated members is here; PostgreSQL reads them all.
                let message = "a repeated member contains the character U+0000";
                findings.add(Aspect::CharacterNul, problem(codes::STAC_NUL, "", message));
            }
        }
        if definition == Definition::Item {
            vet_item(&mut document.root, &mut findings);
        }
        let extensions = self.profile.checks_extensions();
        if extensions {
            strip_fragments(&mut document.root, &mut findings);
        }
        let validator = core_rules::validator(version, definition);
        if !validator.is_valid(&document.root) {
            findings.extend(explain(&document.root, validator, core_rules::published(version, definition)));
        }
        if extensions {
            self.extensions(&document.root, &mut findings);
        }
        self.rules(&mut document.root, place, &mut findings);
        findings.judgement(&document.root, definition, text)
    }

    /// Holds the document against the schema of each extension that it declares, once.
    fn extensions(&self, root: &Value<'_>, findings: &mut Findings<'_>) {
        let declared = root.get("stac_extensions").and_then(Value::as_array).unwrap_or_default();
        let mut seen = std::collections::HashSet::new();
        let mut unknown = 0;
        for (index, url) in declared.iter().enumerate() {
            let Some(url) = url.as_str().filter(|url| seen.insert(*url)) else { continue };
            let pointer = format!("/stac_extensions/{index}");
            match self.schemas.find(url) {
                Found::Schema(validator) if validator.is_valid(root) => {}
                Found::Schema(validator) => findings.extend(explain(root, validator, url)),
                Found::Unusable(reason) => {
                    let mut unusable = problem(codes::STAC_SCHEMA_UNUSABLE, &pointer, "");
                    unusable.message = format!("the schema of this extension cannot be used: {}", short(&reason, 200));
                    unusable.hint = Some("an operator's matter: `landfall schemas verify` says more".into());
                    unusable.value = Some(masked(&declared[index]));
                    findings.add(Aspect::ExtensionUnusable, unusable);
                }
                Found::Unknown => {
                    unknown += 1;
                    // One more than are shown, so that it is seen that there are more.
                    if unknown > landfall_events::refusal::PROBLEMS_MAX + 1 {
                        continue;
                    }
                    let mut problem = problem(codes::STAC_EXTENSION_UNKNOWN, &pointer, "this extension is not known");
                    problem.expected = Some("the exact URL of a published extension's schema".into());
                    problem.hint = Some("correct the URL, or ask the operator to add its schema".into());
                    problem.value = Some(masked(&declared[index]));
                    findings.add(Aspect::ExtensionUnknown, problem);
                }
            }
        }
    }

    /// Runs the profile's own rules; what is patched is judged as it is then.
    fn rules(&self, root: &mut Value<'_>, place: Place<'_>, findings: &mut Findings<'_>) {
        for rule in &self.profile.rules {
            let mut patches = Vec::new();
            let subject = Subject::of(root, place.path, place.is_member);
            let is_collection = !subject.is_item && root.get("type").and_then(Value::as_str) == Some("Collection");
            let concerned = match rule.level {
                Level::Item => subject.is_item,
                Level::Collection => is_collection,
                Level::Asset | Level::Tree => subject.is_item || is_collection,
            };
            if !concerned || rule.action == Action::Ignore {
                continue;
            }
            let waiver = self.profile.waiver(&rule.code, subject.collection, self.today);
            for breach in rule.run(&subject, place.dataset) {
                let mut problem = breach.problem;
                if let Some(waiver) = waiver {
                    let (until, reason) = (waiver.until, short(&waiver.reason, 120));
                    problem.message = format!("{} (waived until {until}: {reason})", problem.message);
                    findings.push(Action::Warn, Aspect::Schema, problem);
                    continue;
                }
                match (rule.action, breach.patch) {
                    (Action::Patch, Some(patch)) => patches.push((patch, problem)),
                    (action, _) => findings.push(action, Aspect::Schema, problem),
                }
            }
            for (patch, problem) in patches {
                findings.patch(root, patch, problem);
            }
        }
    }
}

/// Tells what a document is, or why that cannot be said.
fn dispatch(root: &Value<'_>) -> Result<(Definition, Version), Box<Judgement>> {
    let invalid = |code, pointer: &str, message: &str, value: Option<&Value<'_>>| {
        let mut problem = problem(code, pointer, message);
        problem.value = value.map(masked);
        Box::new(Judgement::because(Verdict::Invalid, problem))
    };
    if root.as_object().is_none() {
        let message = "STAC documents are JSON objects; several in one file are written one a line, as ndjson";
        return Err(invalid(codes::STAC_NOT_STAC, "", message, Some(root)));
    }
    let (kind, version) = (root.get("type"), root.get("stac_version"));
    let definition = kind.and_then(Value::as_str).and_then(Definition::of);
    let is_envelope = kind.and_then(Value::as_str) == Some("FeatureCollection");
    if is_envelope {
        let message = "a FeatureCollection is taken as a file of its own, with its items in the array `features`";
        return Err(invalid(codes::STAC_NOT_STAC, "/features", message, root.get("features")));
    }
    match (definition, version) {
        (None, None) => Err(Box::new(Judgement::not_stac())),
        (Some(_), None) => {
            let mut judgement = invalid(codes::STAC_NOT_STAC, "", "the member \"stac_version\" is missing", None);
            judgement.findings[0].hint = Some("set `stac_version` to 1.0.0 or 1.1.0".into());
            Err(judgement)
        }
        (None, Some(_)) => {
            let message = "`type` is none of Feature, Collection and Catalog";
            Err(invalid(codes::STAC_SCHEMA, "/type", message, kind))
        }
        (Some(definition), Some(Value::String(text))) => match Version::read(text) {
            Some(version) => Ok((definition, version)),
            None => {
                let mut problem = problem(codes::STAC_VERSION, "/stac_version", "only STAC 1.0.0 and 1.1.0 are taken");
                problem.value = version.map(masked);
                Err(Box::new(Judgement::because(Verdict::UnsupportedVersion, problem)))
            }
        },
        (Some(_), Some(_)) => Err(invalid(codes::STAC_SCHEMA, "/stac_version", "this is not a string", version)),
    }
}

fn told(unreadable: &Unreadable) -> Problem {
    match unreadable {
        Unreadable::Encoding(found) => {
            let mut problem = problem(codes::STAC_ENCODING, "", format!("the file holds {found}"));
            problem.expected = Some("UTF-8 without a byte order mark".into());
            problem
        }
        Unreadable::Syntax { line, column, message } => {
            let message = format!("not JSON at line {line}, column {column}: {}", short(message, 200));
            problem(codes::STAC_UNPARSEABLE, "", message)
        }
        Unreadable::TooDeep => {
            let message = format!("the document nests deeper than {} levels", crate::dom::DEPTH_MAX);
            problem(codes::STAC_TOO_DEEP, "", message)
        }
        Unreadable::TooMany => {
            let message = format!("the document holds more than {} values", crate::dom::VALUES_MAX);
            problem(codes::STAC_TOO_MANY, "", message)
        }
    }
}

impl Judgement {
    /// A judgement for one reason, of a document of which nothing else is known.
    pub(crate) fn because(verdict: Verdict, problem: Problem) -> Self {
        let findings = vec![problem];
        Self { verdict, findings, left_out: 0, warnings: vec![], collection: None, id: None, patched: None }
    }
}

impl Judgement {
    pub(crate) fn not_stac() -> Self {
        Self::because(Verdict::NotStac, problem(codes::STAC_NOT_STAC, "", "nothing here says that this is STAC"))
    }
}

/// What is found on the way.
struct Findings<'f> {
    profile: &'f Profile,
    /// What keeps the document from going on: all kinds, and as many problems as can be told.
    rejected: BTreeSet<Aspect>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    left_out: usize,
    patches: Vec<Append>,
}

/// The most problems of one grade that are kept while a document is judged: more than can be told, so that there is
/// a choice, and a bound all the same.
const KEPT_MAX: usize = 4 * landfall_events::refusal::PROBLEMS_MAX;

impl<'f> Findings<'f> {
    fn new(profile: &'f Profile) -> Self {
        let (errors, warnings, patches) = (Vec::new(), Vec::new(), Vec::new());
        Self { profile, rejected: BTreeSet::new(), errors, warnings, left_out: 0, patches }
    }

    fn add(&mut self, aspect: Aspect, problem: Problem) {
        self.push(self.profile.action(aspect), aspect, problem);
    }

    fn extend(&mut self, found: Vec<(Problem, Aspect)>) {
        for (problem, aspect) in found {
            self.add(aspect, problem);
        }
    }

    fn push(&mut self, action: Action, aspect: Aspect, mut problem: Problem) {
        let list = match action {
            Action::Ignore => return,
            Action::Reject => {
                self.rejected.insert(aspect);
                problem.severity = Severity::Error;
                &mut self.errors
            }
            Action::Warn | Action::Patch => {
                problem.severity = Severity::Warning;
                &mut self.warnings
            }
        };
        if list.len() < KEPT_MAX {
            list.push(problem);
        } else if problem.patched {
            // What was mended must be told, whatever else there is to say.
            list.insert(0, problem);
        } else {
            self.left_out += usize::from(action == Action::Reject);
        }
    }

    /// Mends the document; what cannot be mended is refused.
    fn patch(&mut self, root: &mut Value<'_>, patch: Append, mut problem: Problem) {
        if patch.apply(root) {
            problem.patched = true;
            self.push(Action::Patch, Aspect::Schema, problem);
            self.patches.push(patch);
        } else {
            self.push(Action::Reject, Aspect::Schema, problem);
        }
    }

    fn judgement(self, root: &Value<'_>, definition: Definition, text: &str) -> Judgement {
        let member = |name: &str| root.get(name).and_then(Value::as_str).map(str::to_owned);
        let (id, collection) = (member("id"), member("collection"));
        let schemas_matter = [Aspect::ExtensionUnknown, Aspect::ExtensionUnusable];
        let verdict = if self.rejected.is_empty() {
            let id = id.clone().unwrap_or_default();
            Verdict::Valid(match definition {
                Definition::Item => Kind::Item { collection: collection.clone(), id },
                Definition::Collection => Kind::Collection { id },
                Definition::Catalog => Kind::Catalog { id },
            })
        } else if self.rejected.iter().all(|aspect| *aspect == Aspect::ExtensionUnusable) {
            Verdict::Unusable
        } else if self.rejected.iter().all(|aspect| schemas_matter.contains(aspect)) {
            Verdict::ExtensionUnknown
        } else {
            Verdict::Invalid
        };
        let valid = matches!(verdict, Verdict::Valid(_));
        let (findings, left_out) = if valid { (vec![], 0) } else { bounded(self.errors) };
        let left_out = left_out + self.left_out;
        let mut told = self.warnings;
        told.sort_by_key(|problem| !problem.patched);
        let warnings = if told.is_empty() { told } else { bounded(told).0 };
        let patched = (valid && !self.patches.is_empty())
            .then(|| self.patches.iter().fold(text.to_owned(), |text, patch| patch.write(&text)));
        Judgement { verdict, findings, left_out, warnings, collection, id, patched }
    }
}

/// Whether a text holds the escape of U+0000: `\u0000` after an even number of backslashes.
fn has_nul(text: &str) -> bool {
    text.match_indices("\\u0000").any(|(at, _)| {
        let before = text.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before.is_multiple_of(2)
    })
}

/// Looks at what the schemas do not say or say too dearly. Puts in order, in memory, what would make the schema
/// engine repeat at length what is found here.
fn vet_item(item: &mut Value<'_>, findings: &mut Findings<'_>) {
    let geometry = item.get("geometry").filter(|geometry| !geometry.is_null());
    let found = geometry.map(geometry::vet).unwrap_or_default();
    if let Some(problem) = item.get("bbox").and_then(geometry::swapped) {
        findings.add(Aspect::BboxSwapped, problem);
    }
    if found.broken.is_none() {
        let patches = findings.profile.action(Aspect::RingOpen) == Action::Patch;
        // Each patch reads the text once more, so that only some are made.
        let few = found.open.len() < geometry::OPEN_RINGS_MAX;
        for (ring, problem) in found.open {
            match patches {
                true if few => findings.patch(item, Append::closing(&ring), problem),
                true => findings.push(Action::Reject, Aspect::RingOpen, problem),
                false => findings.add(Aspect::RingOpen, problem),
            }
        }
    }
    if let Some(problem) = found.broken {
        findings.add(Aspect::Schema, problem);
        if let Some(geometry) = item.get_mut("geometry") {
            geometry.set("type", Value::String("Point".into()));
            geometry.set("coordinates", Value::Array(vec![Value::Number(0.into()), Value::Number(0.into())]));
        }
    }
    vet_range(item, findings);
    vet_collection(item, findings);
}

fn vet_collection(item: &mut Value<'_>, findings: &mut Findings<'_>) {
    let Some(collection) = item.get("collection").and_then(Value::as_str).map(str::to_owned) else {
        if item.get("collection").is_none_or(Value::is_null) {
            let message = "the item names no collection, and pgSTAC holds items in collections only";
            let mut problem = problem(codes::STAC_COLLECTION_MISSING, "/collection", message);
            problem.hint = Some("set `collection` to the id of the item's collection".into());
            findings.add(Aspect::CollectionMissing, problem);
        }
        return;
    };
    let Some(links) = item.get("links").and_then(Value::as_array) else { return };
    if links.iter().any(|link| link.get("rel").and_then(Value::as_str) == Some("collection")) {
        return;
    }
    let mut problem = problem(codes::STAC_COLLECTION_LINK, "/links", "there is no link with rel=collection");
    problem.hint = Some("add a link with rel=collection to the item's collection".into());
    let href = findings.profile.collection_link(&collection);
    let link = json!({"rel": "collection", "href": href, "type": "application/json"});
    let patch = Append::to_member("links", link);
    match findings.profile.action(Aspect::CollectionLink) {
        Action::Patch => findings.patch(item, patch, problem),
        Action::Reject | Action::Warn | Action::Ignore => {
            // The schema would say the same in other words.
            let added = patch.apply(item);
            debug_assert!(added, "the links are an array");
            findings.add(Aspect::CollectionLink, problem);
        }
    }
}

/// Warns about a range that ends before it starts.
fn vet_range(item: &Value<'_>, findings: &mut Findings<'_>) {
    let at = |name: &str| item.get("properties")?.get(name)?.as_str();
    let (Some(start), Some(end)) = (at("start_datetime"), at("end_datetime")) else { return };
    let (Ok(from), Ok(to)) = (start.parse::<jiff::Timestamp>(), end.parse::<jiff::Timestamp>()) else { return };
    if from > to {
        let message = "the range ends before it starts";
        let mut problem = problem(codes::STAC_DATETIME, "/properties/start_datetime", message);
        problem.value = Some(short(&format!("{start} to {end}"), 80));
        findings.add(Aspect::RangeReversed, problem);
    }
}

/// Takes the empty fragment off extensions' URLs, where the profile takes no offence: their schemas ask for the URL
/// without it.
fn strip_fragments(root: &mut Value<'_>, findings: &mut Findings<'_>) {
    if findings.profile.action(Aspect::ExtensionFragment) == Action::Reject {
        return;
    }
    let Some(Value::Array(urls)) = root.get_mut("stac_extensions") else { return };
    for (index, url) in urls.iter_mut().enumerate() {
        let Some(stripped) = url.as_str().and_then(|url| url.strip_suffix('#')).map(str::to_owned) else { continue };
        let pointer = format!("/stac_extensions/{index}");
        let mut problem = problem(codes::STAC_SCHEMA, &pointer, "the URL ends in an empty fragment");
        problem.value = Some(masked(url));
        problem.hint = Some("remove the `#` at its end".into());
        findings.add(Aspect::ExtensionFragment, problem);
        *url = Value::String(stripped.into());
    }
}

/// Finds characters that PostgreSQL cannot hold. <https://www.postgresql.org/docs/15/datatype-json.html>
fn nul(value: &Value<'_>, pointer: &mut String, findings: &mut Findings<'_>) {
    let length = pointer.len();
    let mut found = |pointer: &str, message: &str| {
        findings.add(Aspect::CharacterNul, problem(codes::STAC_NUL, pointer, message));
    };
    match value {
        Value::String(text) if text.contains('\0') => found(pointer, "the text contains the character U+0000"),
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate().filter(|(_, value)| !matches!(value, Value::Number(_))) {
                pointer.push_str(&format!("/{index}"));
                nul(value, pointer, findings);
                pointer.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                if name.contains('\0') {
                    let message = "a member's name contains the character U+0000";
                    findings.add(Aspect::CharacterNul, problem(codes::STAC_NUL, pointer, message));
                }
                pointer.push_str(&crate::dom::token(name));
                nul(value, pointer, findings);
                pointer.truncate(length);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
