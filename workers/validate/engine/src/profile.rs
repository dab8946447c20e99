//! Profiles: what becomes of each kind of finding, and an archive's own rules, as an operator writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::{Arc, LazyLock};

use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::civil::Date;
use landfall_events::{Code, codes};
use serde::Deserialize;

use crate::rules::{Check, Compiled, RuleError};

/// Kinds of findings of which a profile decides what becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// A rule of a published schema is broken.
    Schema,
    /// A link or identifier is not the IRI or URI that its schema asks for.
    Iri,
    /// A datetime has a space where RFC 3339 has a `T`.
    DatetimeSpace,
    /// A polygon's ring does not end where it starts. No schema can say so. PostGIS stores it, and every spatial
    /// search that meets it fails.
    RingOpen,
    /// A range ends before it starts.
    RangeReversed,
    /// A bounding box whose southern edge is north of its northern one.
    BboxSwapped,
    /// A member's name stands more than once in its object: the last counts.
    NameRepeated,
    /// A text contains U+0000, which PostgreSQL cannot hold.
    CharacterNul,
    /// An item names no collection.
    CollectionMissing,
    /// An item names a collection and has no link to it.
    CollectionLink,
    /// An extension's URL ends in an empty fragment, `#`.
    ExtensionFragment,
    /// An extension is not known.
    ExtensionUnknown,
    /// An extension's schema is known and cannot be used: the operator's trouble.
    ExtensionUnusable,
}

/// What becomes of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The document is refused.
    Reject,
    /// The document goes on, and the finding with it.
    Warn,
    /// The document is mended and goes on, and the finding with it.
    Patch,
    /// Nothing.
    Ignore,
}

/// What a document is, for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Each item.
    Item,
    /// Each collection.
    Collection,
    /// Each asset of an item or a collection.
    Asset,
    /// A whole dataset, where it is at hand.
    Tree,
}

/// One rule of a profile.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its stable code.
    pub code: Code,
    /// What it looks at.
    pub level: Level,
    /// What becomes of what it finds.
    pub action: Action,
    /// What is wrong, in plain words; the check's own words where there are none.
    pub message: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where the rule comes from.
    pub source: Option<String>,
    /// What it checks.
    pub(crate) check: Compiled,
}

/// A collection that a rule does not hold for, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The rule's code.
    pub code: String,
    /// The collection's id.
    pub collection: String,
    /// The last day on which it holds.
    pub until: Date,
    /// Why.
    pub reason: String,
}

/// What a submission must satisfy.
#[derive(Debug, Clone)]
pub struct Profile {
    name: String,
    actions: BTreeMap<Aspect, Action>,
    extensions: bool,
    link_template: String,
    metadata: Paths,
    ignored: Paths,
    /// Its rules, those that it inherits first.
    pub rules: Vec<Rule>,
    waivers: Vec<Waiver>,
}

#[derive(Debug, Clone, Default)]
struct Paths {
    patterns: Vec<String>,
    globs: Arc<GlobSet>,
}

/// The profiles that ship with the project, with the files that they name.
const SHIPPED: [(&str, &str); 6] = [
    ("strict.yaml", include_str!("../../../../profiles/strict.yaml")),
    ("ingest.yaml", include_str!("../../../../profiles/ingest.yaml")),
    ("core.yaml", include_str!("../../../../profiles/core.yaml")),
    ("dedl-user-generated.yaml", include_str!("../../../../profiles/dedl-user-generated.yaml")),
    ("dedl-keywords.txt", include_str!("../../../../profiles/dedl-keywords.txt")),
    ("pds.yaml", include_str!("../../../../profiles/pds.yaml")),
];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is none of this name.
    #[error("there is no profile {0:?}; shipped are {names}", names = Profile::shipped_names().join(", "))]
    Unknown(String),
    /// It is not the YAML that is expected.
    #[error("the profile {name} cannot be understood: {reason}")]
    Yaml {
        /// Which.
        name: String,
        /// Line, column and why.
        reason: String,
    },
    /// It inherits from itself, or through too many others.
    #[error("the profile {0} inherits from itself")]
    Loop(String),
    /// A file that it names cannot be read.
    #[error("the profile {name} names the file {file:?}, which cannot be read: {reason}")]
    File {
        /// Which profile.
        name: String,
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// One of its rules cannot be used.
    #[error("the profile {name}, rule {code}")]
    Rule {
        /// Which profile.
        name: String,
        /// Which rule.
        code: String,
        /// Why.
        source: RuleError,
    },
    /// Something else in it is wrong.
    #[error("the profile {name}: {reason}")]
    Wrong {
        /// Which profile.
        name: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    #[serde(default)]
    inherits: Option<String>,
    #[serde(default)]
    #[allow(dead_code, reason = "for those who read the file")]
    description: Option<String>,
    #[serde(default)]
    findings: BTreeMap<Aspect, Action>,
    #[serde(default)]
    extensions: Option<bool>,
    #[serde(default)]
    collection_link: Option<String>,
    #[serde(default)]
    metadata: Option<Vec<String>>,
    #[serde(default)]
    ignore: Option<Vec<String>>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
    #[serde(default)]
    waivers: Vec<Waiver>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    code: String,
    level: Level,
    action: Action,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    source: Option<String>,
    /// Left out where a rule that is inherited is only given another action or other words.
    #[serde(default)]
    check: Option<Check>,
}

/// Reads the files that a profile names: itself, the one it inherits from, vocabularies, schemas.
pub type Files<'f> = &'f dyn Fn(&str) -> Result<String, String>;

impl Profile {
    /// The names of the profiles that ship with the project.
    #[must_use]
    pub fn shipped_names() -> Vec<&'static str> {
        SHIPPED.iter().filter_map(|(file, _)| file.strip_suffix(".yaml")).collect()
    }

    /// A profile that ships with the project, by its name.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn shipped(name: &str) -> Result<Arc<Self>, ProfileError> {
        static PROFILES: LazyLock<BTreeMap<&str, Arc<Profile>>> = LazyLock::new(|| {
            let nothing = |_: &str| Err("only shipped files are read here".to_owned());
            let read = |&name: &&'static str| {
                let profile = Profile::read(name, &nothing).expect("a test reads every shipped profile");
                (name, Arc::new(profile))
            };
            Profile::shipped_names().iter().map(read).collect()
        });
        PROFILES.get(name).cloned().ok_or_else(|| ProfileError::Unknown(name.to_owned()))
    }

    /// Reads a profile and what it inherits from. `files` is asked for `NAME.yaml` and for the files that it names,
    /// all as plain file names; shipped ones answer for what `files` does not have.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn read(name: &str, files: Files<'_>) -> Result<Self, ProfileError> {
        Self::inherited(name, files, &mut Vec::new())
    }

    fn inherited(name: &str, files: Files<'_>, heirs: &mut Vec<String>) -> Result<Self, ProfileError> {
        if heirs.iter().any(|heir| heir == name) {
            return Err(ProfileError::Loop(name.to_owned()));
        }
        heirs.push(name.to_owned());
        let text = match file(&format!("{name}.yaml"), files) {
            Ok(text) => text,
            Err(_) if plain(name) => return Err(ProfileError::Unknown(name.to_owned())),
            Err(reason) => return Err(ProfileError::File { name: name.into(), file: format!("{name}.yaml"), reason }),
        };
        let written: Written = serde_saphyr::from_str(&text)
            .map_err(|error| ProfileError::Yaml { name: name.to_owned(), reason: error.to_string() })?;
        let mut profile = match &written.inherits {
            Some(parent) => Self::inherited(parent, files, heirs)?,
            None => Self {
                name: String::new(),
                actions: BTreeMap::new(),
                extensions: true,
                link_template: "../../{collection}".into(),
                metadata: Paths::default(),
                ignored: Paths::default(),
                rules: Vec::new(),
                waivers: Vec::new(),
            },
        };
        profile.name = name.to_owned();
        profile.write(written, files)?;
        Ok(profile)
    }

    fn write(&mut self, written: Written, files: Files<'_>) -> Result<(), ProfileError> {
        let name = self.name.clone();
        let wrong = |reason: String| ProfileError::Wrong { name: name.clone(), reason };
        for (aspect, action) in &written.findings {
            if *aspect == Aspect::CharacterNul && *action != Action::Reject {
                return Err(wrong("character-nul is always rejected: PostgreSQL cannot hold it".into()));
            }
            if *action == Action::Patch && !matches!(aspect, Aspect::CollectionLink | Aspect::RingOpen) {
                return Err(wrong(format!("{aspect:?} cannot be patched")));
            }
        }
        self.actions.extend(written.findings);
        self.extensions = written.extensions.unwrap_or(self.extensions);
        self.link_template = written.collection_link.unwrap_or_else(|| self.link_template.clone());
        if let Some(patterns) = written.metadata {
            self.metadata = Paths::new(patterns).map_err(&wrong)?;
        }
        if let Some(patterns) = written.ignore {
            self.ignored = Paths::new(patterns).map_err(&wrong)?;
        }
        let mut codes = BTreeSet::new();
        for rule in written.rules {
            if !codes.insert(rule.code.clone()) {
                return Err(ProfileError::Rule { name, code: rule.code, source: RuleError::Twice });
            }
            self.add(rule, files)?;
        }
        for waiver in &written.waivers {
            match self.rules.iter().find(|rule| rule.code.as_str() == waiver.code) {
                Some(rule) if rule.check.is_names() => {
                    return Err(wrong(format!(
                        "a waiver is for {:?}, which is about names and no collection",
                        waiver.code
                    )));
                }
                Some(_) => {}
                None => return Err(wrong(format!("a waiver is for {:?}, which is none of its rules", waiver.code))),
            }
        }
        self.waivers.extend(written.waivers);
        Ok(())
    }

    fn add(&mut self, written: WrittenRule, files: Files<'_>) -> Result<(), ProfileError> {
        let name = self.name.clone();
        let failed = |source: RuleError| ProfileError::Rule { name: name.clone(), code: written.code.clone(), source };
        if !well_formed(&written.code) || codes::explain(&written.code).is_some() {
            return Err(failed(RuleError::Code));
        }
        let inherited = self.rules.iter().position(|rule| rule.code.as_str() == written.code);
        let check = match (written.check, inherited) {
            (Some(check), _) => {
                let read = |file_name: &str| file(file_name, files);
                check.compile(&written.code, &read).map_err(&failed)?
            }
            (None, Some(place)) => self.rules[place].check.clone(),
            (None, None) => return Err(failed(RuleError::NoCheck)),
        };
        if written.action == Action::Patch && !check.patches() {
            return Err(failed(RuleError::NoPatch));
        }
        check.fits(written.level).map_err(&failed)?;
        let before = inherited.map(|place| self.rules.remove(place));
        let kept = |new: Option<String>, old: fn(&Rule) -> &Option<String>| {
            new.or_else(|| before.as_ref().and_then(|rule| old(rule).clone()))
        };
        let rule = Rule {
            code: Code::read(&written.code),
            level: written.level,
            action: written.action,
            message: kept(written.message, |rule| &rule.message),
            hint: kept(written.hint, |rule| &rule.hint),
            source: kept(written.source, |rule| &rule.source),
            check,
        };
        self.rules.insert(inherited.unwrap_or(self.rules.len()), rule);
        Ok(())
    }

    /// The name that it was read by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What becomes of a kind of finding.
    #[must_use]
    pub fn action(&self, aspect: Aspect) -> Action {
        self.actions.get(&aspect).copied().unwrap_or(Action::Reject)
    }

    /// Whether the schemas of extensions count.
    #[must_use]
    pub(crate) fn checks_extensions(&self) -> bool {
        self.extensions
    }

    /// The href of the link that an item without one is given: a relative reference as it holds in a STAC API,
    /// where items lie at `…/collections/ID/items/ID`.
    pub(crate) fn collection_link(&self, collection: &str) -> String {
        const KEPT: &percent_encoding::AsciiSet =
            &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let encoded = percent_encoding::utf8_percent_encode(collection, KEPT).to_string();
        self.link_template.replace("{collection}", &encoded)
    }

    /// Whether one of its rules needs the whole dataset.
    #[must_use]
    pub fn looks_at_trees(&self) -> bool {
        self.rules.iter().any(|rule| rule.level == Level::Tree && rule.action != Action::Ignore)
    }

    /// The globs of the paths that are metadata.
    #[must_use]
    pub fn metadata_globs(&self) -> &[String] {
        &self.metadata.patterns
    }

    /// Whether a path says that what lies there is metadata, and must be STAC.
    #[must_use]
    pub fn is_metadata(&self, path: &str) -> bool {
        self.metadata.globs.is_match(path) && !self.is_ignored(path)
    }

    /// Whether a path says that what lies there is never looked at as a document, only passed on as data.
    #[must_use]
    pub fn is_ignored(&self, path: &str) -> bool {
        self.ignored.globs.is_match(path)
    }

    /// The waiver of a rule for a collection, if it still holds on this day.
    pub(crate) fn waiver(&self, code: &Code, collection: Option<&str>, today: Date) -> Option<&Waiver> {
        self.waivers.iter().find(|waiver| {
            waiver.code == code.as_str() && Some(waiver.collection.as_str()) == collection && today <= waiver.until
        })
    }
}

impl Paths {
    fn new(patterns: Vec<String>) -> Result<Self, String> {
        let mut globs = GlobSetBuilder::new();
        for pattern in &patterns {
            globs.add(Glob::new(pattern).map_err(|error| error.to_string())?);
        }
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { patterns, globs: Arc::new(globs) })
    }
}

/// Reads a file of a profile; what is asked for must be a plain name, so that no profile reads outside its folder.
fn file(name: &str, files: Files<'_>) -> Result<String, String> {
    if !plain(name) {
        return Err("only plain file names are taken, of files beside the profile".into());
    }
    let shipped = || SHIPPED.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned());
    files(name).or_else(|reason| shipped().ok_or(reason))
}

fn plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) && !name.contains('\\')
}

/// Codes are dotted names of lower-case letters, digits and dashes.
fn well_formed(code: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    code.len() <= 80 && code.contains('.') && code.split('.').all(part)
}
