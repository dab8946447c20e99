//! What the rules of a profile can check, over and above the published schemas.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use landfall_events::{Problem, Severity};
use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use crate::dataset::{Dataset, Subject};
use crate::dom::{Value, token};
use crate::findings::{explain, masked, problem};
use crate::patch::Append;
use crate::profile::{Action, Level, Rule};
use crate::representation::Dom;

/// What a rule checks, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum Check {
    /// A JSON Schema (draft 7) that the document, or each asset, must satisfy.
    Schema(serde_json::Value),
    /// The same, from a file beside the profile.
    SchemaFile(String),
    /// Members that must be there and not null.
    Present(Vec<String>),
    /// A regular expression that the whole id must match.
    Id(String),
    /// A keyword that must be there, in this spelling. It can be added.
    Keyword(String),
    /// A file of keywords, one a line, that keywords should come from.
    Vocabulary(String),
    /// No two keywords that differ only in case, spaces, dashes or underscores.
    KeywordsDistinct(Yes),
    /// What holds for the providers of one role. A missing one can be added.
    Role(RoleCheck),
    /// A licence that is no SPDX identifier has a link to its text.
    LicenceLink(Yes),
    /// The file is named by the item's id and `.json`.
    FileNameIsId(Yes),
    /// The folder that holds `metadata/` is named by the collection's id.
    FolderIsCollection(Yes),
    /// A date in the path of an item's assets (`…/2024/05/17/…`) is the item's.
    FolderDateIsItemDate(Yes),
    /// Every extension that is declared is used.
    ExtensionsUsed(Yes),
    /// Every member with an extension's prefix has its extension declared.
    ExtensionsDeclared(Yes),
    /// An item's id, without its version and last part, is its collection's, as PDS4 identifiers are built.
    LidUnderCollection(Yes),
    /// The last part of each asset's href matches this regular expression.
    AssetName(String),
    /// In a whole dataset: no two documents of one collection share an id.
    IdsUnique(Yes),
    /// In a whole dataset: an item's collection is one of its collections.
    CollectionKnown(Yes),
    /// In a whole dataset: an item lies within its collection's extent, in space and time.
    WithinExtent(Yes),
    /// In a whole dataset: how files and folders may be named.
    Names(NamesCheck),
}

/// `true`, and nothing else: a rule that is not wanted is given the action `ignore`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "bool")]
pub(crate) struct Yes;

impl TryFrom<bool> for Yes {
    type Error = &'static str;

    fn try_from(yes: bool) -> Result<Self, Self::Error> {
        yes.then_some(Self).ok_or("only `true` is taken; give the rule the action `ignore` instead")
    }
}

/// What holds for the providers of one role: one of `max`, `names` and `last`, else that there is one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleCheck {
    role: String,
    /// At most so many.
    #[serde(default)]
    max: Option<usize>,
    /// One of them at least has one of these names, if there are any.
    #[serde(default)]
    names: Vec<String>,
    /// They stand at the end of the list.
    #[serde(default)]
    last: bool,
    /// What is added where there is none.
    #[serde(default)]
    add: Option<serde_json::Value>,
}

/// How files and folders may be named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NamesCheck {
    /// What a file's name must match.
    #[serde(default)]
    files: Option<String>,
    /// What a folder's name must match.
    #[serde(default)]
    folders: Option<String>,
    /// Names that are not allowed, in any case, with or without an extension that is not asked for.
    #[serde(default)]
    reserved: Vec<String>,
    /// The longest name, in characters.
    #[serde(default)]
    length_max: Option<usize>,
    /// No two names in one folder that differ only in case.
    #[serde(default)]
    distinct_without_case: bool,
}

impl RoleCheck {
    /// Each of them is a rule of its own: together, all but one would do nothing.
    fn is_one_rule(&self) -> bool {
        let asked = [self.max.is_some(), !self.names.is_empty(), self.last, self.add.is_some()];
        asked.iter().filter(|asked| **asked).count() <= 1
    }
}

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Its code is not a dotted lower-case name, or is one of Landfall's own.
    #[error(
        "its code must be a dotted name of lower-case letters, digits and dashes that Landfall does not use itself"
    )]
    Code,
    /// It checks nothing.
    #[error("it has no `check`, and no rule of this code is inherited")]
    NoCheck,
    /// It should mend what it cannot.
    #[error("what it checks cannot be patched; `keyword` and `role` with `add` can")]
    NoPatch,
    /// Its check is not for its level.
    #[error("what it checks is for {0}")]
    Level(&'static str),
    /// It asks for several things at once.
    #[error("`role` takes one of `max`, `names`, `last` and `add`; write a rule for each")]
    Role,
    /// It stands twice in one file.
    #[error("it stands twice in one file")]
    Twice,
    /// A regular expression is wrong.
    #[error("its regular expression is wrong")]
    Regex(#[from] regex::Error),
    /// Its schema does not compile.
    #[error("its schema does not compile: {0}")]
    Schema(String),
    /// A file that it names cannot be read.
    #[error("its file {file:?} cannot be read: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// A check, ready to be run.
#[derive(Clone)]
pub(crate) struct Compiled(Arc<Kind>);

enum Kind {
    Schema(Validator<Dom>, String),
    Present(Vec<String>),
    Id(Regex),
    Keyword(String),
    Vocabulary(BTreeMap<String, String>),
    KeywordsDistinct,
    Role(RoleCheck),
    LicenceLink,
    FileNameIsId,
    FolderIsCollection,
    FolderDateIsItemDate,
    ExtensionsUsed,
    ExtensionsDeclared,
    LidUnderCollection,
    AssetName(Regex),
    IdsUnique,
    CollectionKnown,
    WithinExtent,
    Names(NamesCheck, Option<Regex>, Option<Regex>),
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiled")
    }
}

/// One place where a rule is broken.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) problem: Problem,
    /// What would mend it.
    pub(crate) patch: Option<Append>,
}

impl Check {
    pub(crate) fn compile(
        self,
        code: &str,
        file: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Compiled, RuleError> {
        let read = |name: String| file(&name).map_err(|reason| RuleError::File { file: name.clone(), reason });
        let whole = |pattern: &str| Regex::new(&format!("^(?:{pattern})$"));
        Ok(Compiled(Arc::new(match self {
            Self::Schema(schema) => schema_of(schema, code)?,
            Self::SchemaFile(name) => {
                let text = read(name)?;
                let schema = serde_json::from_str(&text).map_err(|error| RuleError::Schema(error.to_string()))?;
                schema_of(schema, code)?
            }
            Self::Present(members) => Kind::Present(members),
            Self::Id(pattern) => Kind::Id(whole(&pattern)?),
            Self::Keyword(keyword) => Kind::Keyword(keyword),
            Self::Vocabulary(name) => {
                let text = read(name)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                Kind::Vocabulary(lines.map(|line| (normal(line), line.to_owned())).collect())
            }
            Self::KeywordsDistinct(Yes) => Kind::KeywordsDistinct,
            Self::Role(role) if !role.is_one_rule() => return Err(RuleError::Role),
            Self::Role(role) => Kind::Role(role),
            Self::LicenceLink(Yes) => Kind::LicenceLink,
            Self::FileNameIsId(Yes) => Kind::FileNameIsId,
            Self::FolderIsCollection(Yes) => Kind::FolderIsCollection,
            Self::FolderDateIsItemDate(Yes) => Kind::FolderDateIsItemDate,
            Self::ExtensionsUsed(Yes) => Kind::ExtensionsUsed,
            Self::ExtensionsDeclared(Yes) => Kind::ExtensionsDeclared,
            Self::LidUnderCollection(Yes) => Kind::LidUnderCollection,
            Self::AssetName(pattern) => Kind::AssetName(whole(&pattern)?),
            Self::IdsUnique(Yes) => Kind::IdsUnique,
            Self::CollectionKnown(Yes) => Kind::CollectionKnown,
            Self::WithinExtent(Yes) => Kind::WithinExtent,
            Self::Names(names) => {
                let (files, folders) = (names.files.as_deref().map(whole), names.folders.as_deref().map(whole));
                Kind::Names(names, files.transpose()?, folders.transpose()?)
            }
        })))
    }
}

/// Compiles a rule's schema under an id of our own; it can refer to nothing outside itself.
fn schema_of(mut schema: serde_json::Value, code: &str) -> Result<Kind, RuleError> {
    let id = format!("urn:landfall:profile:{code}");
    let draft = schema.get("$schema").and_then(serde_json::Value::as_str);
    if let Some(draft) = draft.filter(|draft| !draft.contains("draft-07")) {
        return Err(RuleError::Schema(format!("it is written for {draft}; draft 7 is read")));
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$id".into(), id.clone().into());
    }
    let validator = crate::schemas::options().build(&schema).map_err(|error| RuleError::Schema(error.to_string()))?;
    Ok(Kind::Schema(validator, id))
}

/// Keywords are the same whatever their case and whatever separates their words, as EODAG compares them.
/// <https://github.com/CS-SI/eodag/blob/develop/eodag/api/core.py>
fn normal(keyword: &str) -> String {
    keyword.to_lowercase().replace(['_', '-'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Compiled {
    /// Whether it is about names, which are judged where a folder is walked.
    pub(crate) fn is_names(&self) -> bool {
        matches!(&*self.0, Kind::Names(..))
    }

    pub(crate) fn patches(&self) -> bool {
        matches!(&*self.0, Kind::Keyword(_)) || matches!(&*self.0, Kind::Role(role) if role.add.is_some())
    }

    /// Whether the check makes sense at a level.
    pub(crate) fn fits(&self, level: Level) -> Result<(), RuleError> {
        let (fits, levels) = match &*self.0 {
            Kind::Schema(..) | Kind::Present(_) => (level != Level::Tree, "items, collections and assets"),
            Kind::AssetName(_) => (level == Level::Asset, "assets"),
            Kind::IdsUnique | Kind::CollectionKnown | Kind::WithinExtent | Kind::Names(..) => {
                (level == Level::Tree, "a whole dataset (tree)")
            }
            Kind::FileNameIsId | Kind::FolderDateIsItemDate | Kind::LidUnderCollection => {
                (level == Level::Item, "items")
            }
            Kind::Keyword(_) | Kind::Vocabulary(_) | Kind::KeywordsDistinct | Kind::Role(_) | Kind::LicenceLink => {
                (level == Level::Collection, "collections")
            }
            Kind::Id(_) | Kind::FolderIsCollection | Kind::ExtensionsUsed | Kind::ExtensionsDeclared => {
                (matches!(level, Level::Item | Level::Collection), "items and collections")
            }
        };
        if fits { Ok(()) } else { Err(RuleError::Level(levels)) }
    }
}

impl Rule {
    /// Runs the rule on a document; on each of its assets where it is for assets.
    pub(crate) fn run(&self, subject: &Subject<'_>, dataset: Option<&Dataset>) -> Vec<Breach> {
        let mut breaches = match self.level {
            Level::Asset => {
                let assets = subject.document.get("assets").and_then(Value::as_object).unwrap_or_default();
                let each = assets.iter().flat_map(|(key, asset)| {
                    let place = format!("/assets{}", token(key));
                    self.check.on_asset(asset).into_iter().map(move |mut breach| {
                        breach.problem.pointer.insert_str(0, &place);
                        breach
                    })
                });
                each.take(landfall_events::refusal::PROBLEMS_MAX).collect()
            }
            Level::Tree => dataset.map(|dataset| self.check.in_dataset(subject, dataset)).unwrap_or_default(),
            Level::Item | Level::Collection => self.check.on_document(subject),
        };
        for breach in &mut breaches {
            self.word(&mut breach.problem);
        }
        breaches
    }

    /// Gives a problem the rule's own words.
    fn word(&self, problem: &mut Problem) {
        problem.code = self.code.clone();
        problem.rule = Some(self.code.to_string());
        if let Some(message) = &self.message {
            problem.message.clone_from(message);
        }
        if let Some(hint) = &self.hint {
            // A check's own hint says which value is meant, the rule's what is wanted in general. A schema's own
            // hint knows less than the rule's.
            problem.hint = Some(match (&problem.hint, &*self.check.0) {
                (None, _) | (_, Kind::Schema(..)) => hint.clone(),
                (Some(own), _) => format!("{own}; {hint}"),
            });
        }
    }

    /// Runs a rule for names on one path; `None` where the rule is for something else or the path is fine.
    pub(crate) fn on_path(&self, path: &str, folds_with: Option<&str>) -> Option<Problem> {
        let Kind::Names(check, files, folders) = &*self.check.0 else { return None };
        let severity = match self.action {
            Action::Ignore => return None,
            Action::Reject => Severity::Error,
            Action::Warn | Action::Patch => Severity::Warning,
        };
        let mut problem = check.breach(path, files.as_ref(), folders.as_ref(), folds_with)?;
        self.word(&mut problem);
        problem.severity = severity;
        Some(problem)
    }
}

fn breach(pointer: &str, message: impl Into<String>) -> Breach {
    // The code is the rule's, and is set where the rule is run.
    Breach { problem: problem(landfall_events::codes::STAC_SCHEMA, pointer, message), patch: None }
}

impl Breach {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    fn value(mut self, value: &Value<'_>) -> Self {
        self.problem.value = Some(masked(value));
        self
    }

    fn text(self, text: &str) -> Self {
        self.value(&Value::String(text.into()))
    }

    fn expected(mut self, expected: impl Into<String>) -> Self {
        self.problem.expected = Some(expected.into());
        self
    }
}

impl Compiled {
    #[allow(clippy::wildcard_enum_match_arm, reason = "`fits` keeps checks of other levels away")]
    fn on_asset(&self, asset: &Value<'_>) -> Vec<Breach> {
        match &*self.0 {
            Kind::AssetName(pattern) => {
                let Some(href) = asset.get("href").and_then(Value::as_str) else { return vec![] };
                let path = href.split(['?', '#']).next().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
                if pattern.is_match(&name) {
                    vec![]
                } else {
                    vec![breach("/href", "the file's name is not of the form that is asked for").text(&name)]
                }
            }
            Kind::Schema(..) | Kind::Present(_) => self.on_value(asset),
            _ => vec![],
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "`fits` keeps checks of other levels away")]
    fn on_value(&self, value: &Value<'_>) -> Vec<Breach> {
        match &*self.0 {
            Kind::Schema(validator, _) if validator.is_valid(value) => vec![],
            Kind::Schema(validator, id) => {
                explain(value, validator, id).into_iter().map(|(problem, _)| Breach { problem, patch: None }).collect()
            }
            Kind::Present(members) => {
                let missing = members.iter().filter(|name| value.get(name).is_none_or(Value::is_null));
                missing
                    .map(|name| {
                        breach(&token(name), format!("{name:?} is missing or null")).hint(format!("add {name:?}"))
                    })
                    .collect()
            }
            _ => vec![],
        }
    }

    #[allow(clippy::too_many_lines, reason = "one short arm for each check")]
    fn on_document(&self, subject: &Subject<'_>) -> Vec<Breach> {
        let document = subject.document;
        let id = subject.id.unwrap_or_default();
        match &*self.0 {
            Kind::Schema(..) | Kind::Present(_) => self.on_value(document),
            Kind::Id(pattern) if pattern.is_match(id) => vec![],
            Kind::Id(pattern) => {
                vec![
                    breach("/id", "the id is not of the form that is asked for")
                        .text(id)
                        .expected(format!("text that matches {pattern}")),
                ]
            }
            Kind::Keyword(wanted) => keyword(document, wanted),
            Kind::Vocabulary(known) => vocabulary(document, known),
            Kind::KeywordsDistinct => {
                let mut seen: BTreeMap<String, &str> = BTreeMap::new();
                let twice =
                    keywords(document).filter_map(|(index, keyword)| match seen.insert(normal(keyword), keyword) {
                        Some(other) => {
                            let message =
                                format!("this keyword stands here already as {:?}", crate::findings::short(other, 80));
                            Some(
                                breach(&format!("/keywords/{index}"), message)
                                    .text(keyword)
                                    .hint("remove one of the two"),
                            )
                        }
                        None => None,
                    });
                twice.take(landfall_events::refusal::PROBLEMS_MAX).collect()
            }
            Kind::Role(check) => check.run(document),
            Kind::LicenceLink => {
                let licence = document.get("license").and_then(Value::as_str).unwrap_or_default();
                let linked = links(document).any(|link| link.get("rel").and_then(Value::as_str) == Some("license"));
                let is_own = matches!(licence, "proprietary" | "various" | "other");
                if !is_own || linked {
                    return vec![];
                }
                let message = "the licence is none that SPDX knows, and no link with rel=license leads to its text";
                vec![breach("/links", message).text(licence).hint("add a link with rel=license")]
            }
            Kind::FileNameIsId => match subject.file_name() {
                // A member of a larger file has no file of its own.
                Some(name) if !subject.is_member && name.strip_suffix(".json") != Some(id) => {
                    let hint = format!("name the file {:?}", crate::findings::short(&format!("{id}.json"), 80));
                    vec![breach("/id", "the file is not named by the item's id").text(name).hint(hint)]
                }
                _ => vec![],
            },
            Kind::FolderIsCollection => {
                let (Some(folder), Some(collection)) = (subject.dataset_folder(), subject.collection) else {
                    return vec![];
                };
                if folder == collection {
                    return vec![];
                }
                let pointer = if document.get("collection").is_some() { "/collection" } else { "/id" };
                vec![
                    breach(pointer, "the folder that holds `metadata/` is not named by the collection's id")
                        .text(collection)
                        .expected(folder),
                ]
            }
            Kind::FolderDateIsItemDate => folder_dates(subject),
            Kind::ExtensionsUsed => crate::extensions::unused(document)
                .take(landfall_events::refusal::PROBLEMS_MAX)
                .map(|(index, url, prefixes)| {
                    let message = format!("the extension is declared, and nothing with {prefixes} is there");
                    breach(&format!("/stac_extensions/{index}"), message)
                        .text(url)
                        .hint("remove the declaration, or add the extension's members")
                })
                .collect(),
            Kind::ExtensionsDeclared => crate::extensions::undeclared(document)
                .into_iter()
                .map(|(pointer, extension)| {
                    let message = format!("this is a member of the extension `{extension}`, which is not declared");
                    breach(&pointer, message).hint("add the extension's URL to `stac_extensions`")
                })
                .collect(),
            Kind::LidUnderCollection => {
                let lid = |id: &str| id.split("::").next().unwrap_or_default().to_owned();
                let Some(collection) = subject.collection else { return vec![] };
                let (own, parent) = (lid(id), lid(collection));
                let urns = own.starts_with("urn:") && parent.starts_with("urn:");
                if !urns || own.rsplit_once(':').is_some_and(|(under, _)| under == parent) {
                    return vec![];
                }
                vec![
                    breach("/collection", "the item's identifier does not lie under its collection's")
                        .text(collection)
                        .expected(own.rsplit_once(':').map(|(under, _)| under.to_owned()).unwrap_or_default()),
                ]
            }
            Kind::AssetName(_) | Kind::IdsUnique | Kind::CollectionKnown | Kind::WithinExtent | Kind::Names(..) => {
                vec![]
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "`fits` keeps checks of other levels away")]
    fn in_dataset(&self, subject: &Subject<'_>, dataset: &Dataset) -> Vec<Breach> {
        match &*self.0 {
            Kind::IdsUnique => match dataset.elsewhere(subject) {
                Some(other) => {
                    let message = format!("the same id stands in {}", crate::findings::short(other, 160));
                    vec![
                        breach("/id", message)
                            .text(subject.id.unwrap_or_default())
                            .hint("give each document an id of its own"),
                    ]
                }
                None => vec![],
            },
            Kind::CollectionKnown => match subject.collection {
                Some(collection)
                    if subject.is_item && dataset.has_collections() && dataset.extent(collection).is_none() =>
                {
                    vec![breach("/collection", "no collection of this dataset has this id").text(collection)]
                }
                _ => vec![],
            },
            Kind::WithinExtent => subject
                .collection
                .filter(|_| subject.is_item)
                .and_then(|collection| dataset.extent(collection))
                .map(|extent| {
                    extent
                        .outside(subject.document)
                        .into_iter()
                        .map(|(pointer, message)| breach(pointer, message))
                        .collect()
                })
                .unwrap_or_default(),
            _ => vec![],
        }
    }
}

fn links<'d>(document: &'d Value<'d>) -> impl Iterator<Item = &'d Value<'d>> {
    document.get("links").and_then(Value::as_array).unwrap_or_default().iter()
}

/// The keywords that are looked at: no collection has so many, or such long ones, by right.
const KEYWORDS_MAX: usize = 1_000;
const KEYWORD_BYTES_MAX: usize = 200;

fn keywords<'d>(document: &'d Value<'d>) -> impl Iterator<Item = (usize, &'d str)> {
    let keywords = document.get("keywords").and_then(Value::as_array).unwrap_or_default();
    keywords.iter().take(KEYWORDS_MAX).enumerate().filter_map(|(index, keyword)| Some((index, keyword.as_str()?)))
}

fn keyword(document: &Value<'_>, wanted: &str) -> Vec<Breach> {
    if keywords(document).any(|(_, keyword)| keyword == wanted) {
        return vec![];
    }
    let near = keywords(document).find(|(_, keyword)| normal(keyword) == normal(wanted));
    let found = match near {
        Some((index, keyword)) => {
            breach(&format!("/keywords/{index}"), format!("the keyword is spelled {wanted:?}")).text(keyword)
        }
        None => breach("/keywords", format!("the keyword {wanted:?} is missing")),
    };
    let mut found = found.expected(format!("{wanted:?}")).hint(format!("add the keyword {wanted:?}"));
    found.patch = Some(Append::to_member("keywords", json!(wanted)));
    vec![found]
}

/// The least likeness of two words at which one is offered for the other.
const LIKENESS_MIN: f64 = 0.85;

/// Keywords that are near to a known one are told one by one, the others together: they may be many.
fn vocabulary(document: &Value<'_>, known: &BTreeMap<String, String>) -> Vec<Breach> {
    let (mut near, mut others) = (Vec::new(), Vec::new());
    // A keyword with commas is several: EODAG splits it, and other rules tell of the commas.
    let parts =
        keywords(document).flat_map(|(index, keyword)| keyword.split(',').map(move |part| (index, part.trim())));
    for (index, keyword) in parts.take(KEYWORDS_MAX) {
        let pointer = format!("/keywords/{index}");
        let own = normal(keyword);
        match known.get(&own) {
            Some(known) if known == keyword => {}
            Some(known) => {
                let message = format!("this keyword is written {known:?} elsewhere");
                near.push(breach(&pointer, message).text(keyword).hint(format!("write it {known:?}")));
            }
            None => match nearest(&own, known) {
                Some(nearest) => {
                    let found = breach(&pointer, "this keyword is not one of the vocabulary").text(keyword);
                    near.push(found.hint(format!("did you mean {nearest:?}?")));
                }
                None => others.push(keyword),
            },
        }
    }
    near.truncate(NEAR_MAX);
    if let Some(first) = others.first() {
        let message = format!("{} keywords are not of the vocabulary", others.len());
        near.push(breach("/keywords", message).text(&if others.len() == 1 {
            (*first).to_owned()
        } else {
            others.join(", ")
        }));
    }
    near
}

/// The most keywords that are told one by one.
const NEAR_MAX: usize = 8;

fn nearest<'k>(own: &str, known: &'k BTreeMap<String, String>) -> Option<&'k str> {
    if own.len() > KEYWORD_BYTES_MAX {
        return None;
    }
    let likeness = |(normal, known): (&String, &'k String)| (strsim::jaro_winkler(own, normal), known.as_str());
    let best = known.iter().map(likeness).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN).map(|(_, known)| known)
}

impl RoleCheck {
    fn run(&self, document: &Value<'_>) -> Vec<Breach> {
        let role = &self.role;
        let providers = document.get("providers").and_then(Value::as_array).unwrap_or_default();
        let has = |provider: &Value<'_>| {
            let roles = provider.get("roles").and_then(Value::as_array).unwrap_or_default();
            roles.iter().any(|other| other.as_str() == Some(role))
        };
        let name = |provider: &Value<'_>| provider.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let holders: Vec<usize> = (0..providers.len()).filter(|&index| has(&providers[index])).collect();
        if let Some(max) = self.max {
            let Some(&first) = holders.get(max) else { return vec![] };
            let message = format!("{} providers have the role {role:?}; at most {max} may", holders.len());
            return vec![breach(&format!("/providers/{first}"), message).text(&name(&providers[first]))];
        }
        if !self.names.is_empty() {
            let is_named = |index: &usize| self.names.contains(&name(&providers[*index]));
            let Some(&first) = holders.first() else { return vec![] };
            if holders.iter().any(is_named) {
                return vec![];
            }
            let expected = self.names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
            let message = format!("the provider with the role {role:?} is another than asked for");
            return vec![
                breach(&format!("/providers/{first}/name"), message).text(&name(&providers[first])).expected(expected),
            ];
        }
        if self.last {
            let first_out = holders.iter().copied().find(|index| index + holders.len() < providers.len());
            let message = format!("providers with the role {role:?} stand last in the list");
            return first_out
                .map(|index| breach(&format!("/providers/{index}"), message).text(&name(&providers[index])))
                .into_iter()
                .collect();
        }
        if !holders.is_empty() {
            return vec![];
        }
        let mut found = breach("/providers", format!("no provider has the role {role:?}"))
            .expected(format!("a provider with the role {role:?}"));
        found.patch = self.add.clone().map(|element| Append::to_member("providers", element));
        vec![found]
    }
}

/// Dates in the paths of an item's assets, written as folders `YYYY/MM/DD`, against the item's own.
fn folder_dates(subject: &Subject<'_>) -> Vec<Breach> {
    let Some((start, end)) = crate::dataset::days(subject.document) else { return vec![] };
    let assets = subject.document.get("assets").and_then(Value::as_object).unwrap_or_default();
    let wrong = assets.iter().filter_map(|(key, asset)| {
        let href = asset.get("href").and_then(Value::as_str)?;
        let day = folder_day(href)?;
        let message = || format!("the file lies under {day}, and the item is of {start}");
        let pointer = format!("/assets{}/href", token(key));
        (day < start || day > end)
            .then(|| breach(&pointer, message()).text(href).hint("move the file, or correct the item's datetime"))
    });
    wrong.take(landfall_events::refusal::PROBLEMS_MAX).collect()
}

fn folder_day(path: &str) -> Option<jiff::civil::Date> {
    let steps: Vec<&str> = path.split('/').collect();
    steps.windows(3).find_map(|steps| {
        let number = |text: &str, digits: usize| (text.len() == digits).then(|| text.parse::<i16>().ok()).flatten();
        let (year, month, day) = (number(steps[0], 4)?, number(steps[1], 2)?, number(steps[2], 2)?);
        jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
    })
}

impl NamesCheck {
    fn breach(
        &self,
        path: &str,
        files: Option<&Regex>,
        folders: Option<&Regex>,
        folds_with: Option<&str>,
    ) -> Option<Problem> {
        let say = |message: String, name: &str| Some(breach("", message).text(name).problem);
        let steps: Vec<&str> = path.split('/').collect();
        let (file, parents) = steps.split_last()?;
        for (folder, is_root) in parents.iter().zip(std::iter::once(true).chain(std::iter::repeat(false))) {
            // The first folder is the bundle's own, which may be named as its identifier is.
            if !is_root && folders.is_some_and(|pattern| !pattern.is_match(folder)) {
                return say("the folder's name is not of the form that is asked for".into(), folder);
            }
        }
        if files.is_some_and(|pattern| !pattern.is_match(file)) {
            return say("the file's name is not of the form that is asked for".into(), file);
        }
        if let Some(reserved) =
            steps.iter().find(|step| self.reserved.iter().any(|name| name.eq_ignore_ascii_case(step)))
        {
            return say("the name is reserved".into(), reserved);
        }
        if let Some(longest) = self.length_max
            && let Some(long) = steps.iter().find(|step| step.chars().count() > longest)
        {
            return say(format!("the name is longer than {longest} characters"), long);
        }
        match folds_with {
            Some(other) if self.distinct_without_case => {
                say(format!("the name differs from {:?} only in case", crate::findings::short(other, 160)), path)
            }
            _ => None,
        }
    }
}
