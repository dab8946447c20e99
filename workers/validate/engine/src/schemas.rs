//! The published schemas of extensions: one bundle of texts, verified, registered by the URL that documents name,
//! compiled when first asked for, shared by all threads.
//!
//! It refuses to fetch: what the bundle does not hold is not known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::{LazyLock, OnceLock};

use jsonschema::{Draft, Registry, Retrieve, Uri, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::closed_prefix;
use crate::representation::Dom;

/// The largest bundle that is read, in bytes. All published schemas together take two megabytes.
pub const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The largest single schema that is taken, in bytes.
pub const SCHEMA_BYTES_MAX: u64 = 1024 * 1024;

/// What the lock file says about one schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The URL by which documents name it.
    pub url: String,
    /// Of the published bytes, in lower-case hexadecimal; absent for an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The licence under which it is published, as an SPDX expression where there is one.
    pub licence: String,
    /// Whether it can be used.
    #[serde(default)]
    pub status: Status,
    /// For an alias, the URL of the schema that answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What one should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether a published schema can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It can.
    #[default]
    Good,
    /// As published it does not compile, or no document can satisfy it.
    Broken,
    /// Another schema answers for it.
    Alias,
}

/// The lock file: what the schemas must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The schemas, sorted by URL.
    #[serde(default, rename = "schema")]
    pub schemas: Vec<Locked>,
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// [`BundleError::Lock`].
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        Ok(toml::from_str(text)?)
    }

    /// The lock file that ships with the project.
    #[must_use]
    pub fn shipped() -> &'static Self {
        static LOCK: LazyLock<Lock> = LazyLock::new(|| {
            Lock::parse(include_str!("../../../../schemas.lock")).expect("a test reads the shipped lock file")
        });
        &LOCK
    }

    /// Finds what it says about a URL.
    #[must_use]
    pub fn get(&self, url: &str) -> Option<&Locked> {
        self.schemas.iter().find(|locked| locked.url == url)
    }
}

/// Schema texts by URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    entries: BTreeMap<String, Entry>,
}

/// One schema of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    locked: Locked,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// The first line of a bundle file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    landfall_schemas: u32,
    schemas: usize,
}

/// Why a lock file or a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The lock file is not the TOML that is expected.
    #[error("the lock file is not readable")]
    Lock(#[from] toml::de::Error),
    /// It is no bundle, or one of another version.
    #[error("this is not a schema bundle of version 1")]
    Unknown,
    /// It ends too early or holds too much.
    #[error("the bundle should hold {expected} schemas and holds {found}")]
    Incomplete {
        /// What its first line says.
        expected: usize,
        /// What follows.
        found: usize,
    },
    /// One of its lines cannot be understood.
    #[error("line {line} of the bundle cannot be understood")]
    Line {
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A schema's bytes are not those that were locked.
    #[error("the schema {url} has the sha256 {found}, and {expected} is expected")]
    Altered {
        /// Its URL.
        url: String,
        /// What is locked.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl Bundle {
    /// Takes one schema in; its bytes must be those that `locked` says.
    ///
    /// # Errors
    /// [`BundleError::Altered`].
    pub fn insert(&mut self, locked: Locked, text: Option<String>) -> Result<(), BundleError> {
        if let (Some(expected), Some(text)) = (&locked.sha256, &text) {
            let found = sha256(text.as_bytes());
            if found != *expected {
                return Err(BundleError::Altered { url: locked.url, expected: expected.clone(), found });
            }
        }
        self.entries.insert(locked.url.clone(), Entry { locked, text });
        Ok(())
    }

    /// Reads a bundle file's bytes and verifies each schema.
    ///
    /// # Errors
    /// [`BundleError`] where the file is not whole.
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let text = std::str::from_utf8(bytes).map_err(|_| BundleError::Unknown)?;
        let mut lines = text.lines();
        let head: Head = lines
            .next()
            .and_then(|line| serde_json::from_str(line).ok())
            .filter(|head: &Head| head.landfall_schemas == 1)
            .ok_or(BundleError::Unknown)?;
        let mut bundle = Self::default();
        for (line, number) in lines.zip(2..) {
            let entry: Entry =
                serde_json::from_str(line).map_err(|source| BundleError::Line { line: number, source })?;
            bundle.insert(entry.locked, entry.text)?;
        }
        if bundle.len() != head.schemas {
            return Err(BundleError::Incomplete { expected: head.schemas, found: bundle.len() });
        }
        Ok(bundle)
    }

    /// Writes the bundle file.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = json(&Head { landfall_schemas: 1, schemas: self.len() });
        for entry in self.entries.values() {
            write!(text, "\n{}", json(entry)).expect("writing to a string never fails");
        }
        text.push('\n');
        text
    }

    /// How many schemas it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it holds, by URL; whether with a text.
    pub fn entries(&self) -> impl Iterator<Item = (&Locked, Option<&str>)> {
        self.entries.values().map(|entry| (&entry.locked, entry.text.as_deref()))
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a bundle's parts are plain data")
}

/// The sha256 of some bytes, in lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The schemas of a bundle, ready to be asked. Texts are kept; what a schema needs to be compiled is read when it is
/// first asked for, and forgotten once it is compiled: a tenth of what all of them registered would take.
pub struct Schemas {
    slots: HashMap<String, Slot>,
}

enum Slot {
    Text(String, OnceLock<Result<Validator<Dom>, String>>),
    Missing,
    Alias(String),
}

/// What is known about an extension's URL.
pub(crate) enum Found<'s> {
    /// Its schema.
    Schema(&'s Validator<Dom>),
    /// It is published and should be here, and cannot be used: why. An operator's trouble, not the document's.
    Unusable(String),
    /// Nothing.
    Unknown,
}

impl Schemas {
    /// No extension's schema at all: core STAC works all the same.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: LazyLock<Schemas> = LazyLock::new(|| Schemas::new(Bundle::default()));
        &NONE
    }

    /// Takes the schemas of a bundle.
    #[must_use]
    pub fn new(bundle: Bundle) -> Self {
        let slot = |entry: Entry| match (entry.locked.of, entry.text) {
            (Some(of), _) => Slot::Alias(of),
            (None, Some(text)) => Slot::Text(text, OnceLock::new()),
            (None, None) => Slot::Missing,
        };
        Self { slots: bundle.entries.into_iter().map(|(url, entry)| (url, slot(entry))).collect() }
    }

    /// How many schemas there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Compiles every schema and keeps none. Returns the URLs of those that cannot be used, with the reason.
    #[must_use]
    pub fn verify(&self) -> BTreeMap<String, String> {
        let unusable = |(url, slot): (&String, &Slot)| {
            let reason = match slot {
                Slot::Text(..) => self.compile(url).err(),
                Slot::Missing | Slot::Alias(_) => match self.find(url) {
                    Found::Unusable(reason) => Some(reason),
                    Found::Schema(_) | Found::Unknown => None,
                },
            };
            reason.map(|reason| (url.clone(), reason))
        };
        self.slots.iter().filter_map(unusable).collect()
    }

    /// Looks an extension up by the exact string, a trailing empty fragment aside.
    pub(crate) fn find(&self, url: &str) -> Found<'_> {
        let url = url.strip_suffix('#').unwrap_or(url);
        match self.slots.get(url) {
            Some(Slot::Text(_, compiled)) => match compiled.get_or_init(|| self.compile(url)) {
                Ok(validator) => Found::Schema(validator),
                Err(reason) => Found::Unusable(reason.clone()),
            },
            Some(Slot::Missing) => Found::Unusable("the schema bundle does not hold its text".into()),
            // An alias of an alias is not followed.
            Some(Slot::Alias(of)) => match self.slots.get(of) {
                Some(Slot::Text(..)) => self.find(of),
                Some(Slot::Missing | Slot::Alias(_)) | None => {
                    Found::Unusable(format!("it stands for {of}, which cannot be used"))
                }
            },
            None if Lock::shipped().get(url).is_some() => Found::Unusable("the schema bundle does not hold it".into()),
            None => Found::Unknown,
        }
    }

    /// Compiles a schema with everything that it refers to, all registered by the URLs that they are asked for by.
    fn compile(&self, url: &str) -> Result<Validator<Dom>, String> {
        let mut registry = Registry::new().draft(Draft::Draft7).retriever(Nowhere);
        let (mut own, mut open, mut seen) = (Value::Null, vec![url.to_owned()], BTreeSet::from([url.to_owned()]));
        while let Some(next) = open.pop() {
            let schema = self.schema(&next)?;
            open.extend(references(&next, &schema).into_iter().filter(|other| seen.insert(other.clone())));
            if next == url {
                own.clone_from(&schema);
            }
            // Others may refer back to it.
            registry = registry.add(&next, schema).map_err(|error| error.to_string())?;
        }
        let registry = registry.prepare().map_err(|error| error.to_string())?;
        let options = options().with_registry(&registry).with_base_uri(url);
        options.build(&own).map_err(|error| format!("it does not compile: {error}"))
    }

    /// Reads the text of a schema.
    fn schema(&self, url: &str) -> Result<Value, String> {
        let Some(Slot::Text(text, _)) = self.slots.get(url) else {
            return Err(format!("it refers to {url}, which is not there"));
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(mut schema)) => {
                // Published schemas carry wrong ids; the URL that they were asked for by is the one that counts.
                schema.insert("$id".into(), url.into());
                let mut schema = Value::Object(schema);
                closed_prefix::rewrite(&mut schema);
                Ok(schema)
            }
            Ok(_) => Err(format!("{url} is not a JSON object")),
            Err(error) => Err(format!("{url} is not JSON: {error}")),
        }
    }
}

/// How every schema is compiled: as draft 7, formats asserted, with nothing from outside.
pub(crate) fn options<'i>() -> jsonschema::ValidationOptions<'i, std::sync::Arc<dyn Retrieve>, Dom> {
    let options = jsonschema::options_for::<Dom>().with_draft(Draft::Draft7).should_validate_formats(true);
    options.with_keyword(closed_prefix::KEYWORD, closed_prefix::compile).offline()
}

/// Answers no URL: what is not in the registry is not there.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is not in the bundle").into())
    }
}

/// The other documents that a schema refers to, as absolute URLs without fragments.
fn references(url: &str, schema: &Value) -> BTreeSet<String> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|value| collect(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(schema, &mut found);
    let Ok(base) = jsonschema::uri::from_str(url) else { return BTreeSet::new() };
    let absolute = |reference: &String| {
        let absolute = jsonschema::uri::resolve_against(&base.borrow(), reference).ok()?;
        let text = absolute.as_str();
        let end = text.find('#').unwrap_or(text.len());
        // Its own draft is known to the engine.
        let is_other = text[..end] != *url && !text[..end].ends_with("://json-schema.org/draft-07/schema");
        is_other.then(|| text[..end].to_owned())
    };
    found.iter().filter_map(absolute).collect()
}
