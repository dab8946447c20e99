//! The bucket map: which bucket, and there which key, a provider's path belongs to.
//!
//! It reads the files of all generations of the PDS Data Upload Manager, told apart by their shape, and ours, which is
//! the last of them with more. It takes no file that has an error, and never guesses.

mod format;
mod key;
mod lint;
mod lookup;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use landfall_events::routed::StorageClass;
use landfall_events::{Severity, codes};
use serde::Serialize;
use serde_saphyr::Spanned;

pub use lint::Finding;

use key::{Key, Parts};
use lookup::{Condition, Lookup, Of};

/// A place in the file; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl Place {
    fn of<T>(spanned: &Spanned<T>) -> Self {
        Self::at(spanned.referenced)
    }

    fn at(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// The form of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Generation {
    /// `MAP`, a name for each prefix: up to 2.1.2 of the Data Upload Manager.
    A,
    /// `MAP` with `paths`: its 2.2.
    B,
    /// `BUCKET_MAP` with `buckets`, from 2.3; and Landfall's own, which has more of it.
    C,
}

/// What a look through a file finds.
#[derive(Debug, Clone, Serialize)]
pub struct Lint {
    /// The form of the file, where it could be read.
    pub generation: Option<Generation>,
    /// What is wrong or odd, in the file's order.
    pub findings: Vec<Finding>,
}

impl Lint {
    /// What keeps the map from being used.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }
}

/// A bucket map that was read, without an error, and compiled.
#[derive(Debug)]
pub struct BucketMap {
    nodes: BTreeMap<String, Node>,
    destinations: BTreeSet<String>,
    buckets: BTreeSet<String>,
}

#[derive(Debug)]
struct Node {
    rules: Vec<Rule>,
    default: Option<Rule>,
    lookup: Lookup,
    generation: Generation,
}

/// One rule of a map, or a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// The prefix or glob; a default has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The collection, or glob over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    #[serde(skip)]
    bucket: String,
    #[serde(skip)]
    storage_class: Option<StorageClass>,
    #[serde(skip)]
    key: Option<Key>,
    #[serde(skip)]
    tags: BTreeMap<String, String>,
}

/// Where a path belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The bucket.
    pub bucket: String,
    /// The key there: the provider in lower case and the path, or what the rule's template gives.
    pub key: String,
    /// The storage class; the bucket's own default where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<StorageClass>,
    /// Tags of the rule.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether it depends on the STAC document, so that the object alone would belong elsewhere or nowhere.
    #[serde(skip)]
    pub by_document: bool,
}

/// What is known of the STAC document that an object is, or that names it as an asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The collection.
    pub collection: Option<&'a str>,
    /// The item; a collection's document has none.
    pub item: Option<&'a str>,
    /// The date of the item.
    pub date: Option<Date>,
}

/// How a path was looked up.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// Where it belongs.
    pub target: Result<Target, Unmapped>,
    /// The rule that hit.
    pub rule: Option<&'a Rule>,
    /// The rules that were before it and did not hit, in their order.
    pub tried: Vec<&'a Rule>,
}

/// Why a bucket map cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the bucket map has {} errors; {}", .0.errors().count(), .0.errors().map(told).collect::<Vec<_>>().join("; "))]
pub struct BadMap(pub Lint);

fn told(finding: &Finding) -> String {
    let Place { line, column } = finding.place;
    format!("line {line} column {column}: {}: {}", finding.code, finding.message)
}

/// Why the map does not say where an object belongs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// The map does not know the provider.
    #[error("the bucket map has no provider {provider:?}; it has {}", known.join(", "))]
    Provider {
        /// Who was asked for.
        provider: String,
        /// Who is there.
        known: Vec<String>,
    },
    /// No rule hits, and there is no default.
    #[error("the bucket map has no rule for {path:?} of {provider:?} and no default for it; it has {}", known.join(", "))]
    Path {
        /// Whose path.
        provider: String,
        /// The path.
        path: String,
        /// The rules that are there, up to twenty.
        known: Vec<String>,
    },
    /// The rule wants to know the STAC document that names the object, and nothing is known of one.
    #[error("the bucket map's rule in line {line} wants the STAC item that names {path:?}")]
    NeedsItem {
        /// The path.
        path: String,
        /// The rule's line.
        line: u64,
    },
    /// The key would not stay in its place.
    #[error("{path:?} gives no key: {why}")]
    Escape {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
}

/// Rules that are named in an answer.
const KNOWN_MAX: usize = 20;

impl BucketMap {
    /// Looks through a file; nothing may be routed to the `forbidden` buckets.
    #[must_use]
    pub fn lint(yaml: &str, forbidden: &[&str]) -> Lint {
        Self::read(yaml, forbidden).map_or_else(|BadMap(lint)| lint, |(_, lint)| lint)
    }

    /// Reads a file and compiles it; nothing may be routed to the `forbidden` buckets.
    ///
    /// # Errors
    /// [`BadMap`] with everything that is wrong.
    pub fn parse(yaml: &str, forbidden: &[&str]) -> Result<Self, BadMap> {
        Self::read(yaml, forbidden).map(|(map, _)| map)
    }

    /// The same, with what is odd about it.
    ///
    /// # Errors
    /// [`BadMap`] where something is wrong with it.
    pub fn read(yaml: &str, forbidden: &[&str]) -> Result<(Self, Lint), BadMap> {
        let file = format::read(yaml)
            .map_err(|error| BadMap(Lint { generation: None, findings: vec![unreadable(&error)] }))?;
        let generation = file.generation;
        let mut lint = Lint { generation: Some(generation), findings: lint::lint(&file, forbidden) };
        if lint.errors().next().is_some() {
            return Err(BadMap(lint));
        }
        let (mut nodes, mut buckets) = (BTreeMap::new(), BTreeSet::new());
        for node in file.nodes {
            let place = Place::of(&node.provider);
            buckets.extend(node.archive.iter().map(|archive| archive.name.0.value.clone()));
            match Node::compile(node, generation) {
                Ok((provider, node)) => drop(nodes.insert(provider, node)),
                Err(error) => {
                    let message = format!("the globs of this provider are too many to be compiled: {error}");
                    lint.findings.push(Finding::new(Severity::Error, codes::MAP_GLOB, place, message));
                    return Err(BadMap(lint));
                }
            }
        }
        let rules = nodes.values().flat_map(|node| node.rules.iter().chain(&node.default));
        let destinations: BTreeSet<String> = rules.map(|rule| rule.bucket.clone()).collect();
        buckets.extend(destinations.iter().cloned());
        Ok((Self { nodes, destinations, buckets }, lint))
    }

    /// The JSON Schema of the file.
    #[cfg(feature = "schema")]
    #[must_use]
    pub fn schema() -> serde_json::Value {
        format::schema()
    }

    /// The buckets that the map names: those that it routes to, and archives.
    #[must_use]
    pub fn buckets(&self) -> &BTreeSet<String> {
        &self.buckets
    }

    /// The buckets that the map routes to.
    #[must_use]
    pub fn destinations(&self) -> &BTreeSet<String> {
        &self.destinations
    }

    /// Looks a provider's path up. Without `facts` the object stands alone: no STAC document is known that it is or
    /// belongs to.
    ///
    /// # Errors
    /// [`Unmapped`].
    pub fn target(&self, provider: &str, path: &str, facts: Option<&Facts<'_>>) -> Result<Target, Unmapped> {
        let lower = provider.to_lowercase();
        let (node, hit) = self.hit(&lower, path, facts)?;
        let rule = hit.map(|hit| &node.rules[hit]).or(node.default.as_ref());
        node.target(&lower, path, facts, rule)
    }

    /// The same, with how it came to that.
    #[must_use]
    pub fn explain(&self, provider: &str, path: &str, facts: Option<&Facts<'_>>) -> Explanation<'_> {
        let lower = provider.to_lowercase();
        let (node, hit) = match self.hit(&lower, path, facts) {
            Ok(found) => found,
            Err(unmapped) => return Explanation { target: Err(unmapped), rule: None, tried: Vec::new() },
        };
        let rule = hit.map(|hit| &node.rules[hit]).or(node.default.as_ref());
        let target = node.target(&lower, path, facts, rule);
        Explanation { target, rule, tried: node.before(hit) }
    }

    fn hit(&self, provider: &str, path: &str, facts: Option<&Facts<'_>>) -> Result<(&Node, Option<usize>), Unmapped> {
        let Some(node) = self.nodes.get(provider) else {
            let known = self.nodes.keys().cloned().collect();
            return Err(Unmapped::Provider { provider: provider.to_owned(), known });
        };
        let hit = match facts {
            Some(Facts { collection: Some(collection), .. }) => node.lookup.hit(path, Of::Collection(collection)),
            Some(_) => node.lookup.hit(path, Of::None),
            // What a rule for a collection would take is not for another rule to take.
            None => node.lookup.hit(path, Of::Whichever),
        };
        Ok((node, hit))
    }
}

impl Node {
    fn compile(node: format::Node, generation: Generation) -> Result<(String, Self), regex::Error> {
        let rules: Vec<_> = node.rules.into_iter().map(Rule::compile).collect();
        let lookup = match generation {
            Generation::A => Lookup::longest(rules.iter().map(|rule| rule.prefix.as_deref().unwrap_or_default())),
            Generation::B | Generation::C => Lookup::first(rules.iter().map(Rule::condition))?,
        };
        let default = node.default.map(Rule::compile);
        Ok((node.provider.value.to_lowercase(), Self { rules, default, lookup, generation }))
    }

    fn target(
        &self,
        provider: &str,
        path: &str,
        facts: Option<&Facts<'_>>,
        rule: Option<&Rule>,
    ) -> Result<Target, Unmapped> {
        let Some(rule) = rule else {
            let known = self.rules.iter().take(KNOWN_MAX).map(Rule::to_string).collect();
            return Err(Unmapped::Path { provider: provider.to_owned(), path: path.to_owned(), known });
        };
        let by_document = self.lookup.minds_collections(path) || rule.key.as_ref().is_some_and(Key::needs_document);
        if facts.is_none() && by_document {
            return Err(Unmapped::NeedsItem { path: path.to_owned(), line: rule.place.line });
        }
        let escape = |why: key::Unfit| Unmapped::Escape { path: path.to_owned(), why: why.to_string() };
        let facts = facts.copied().unwrap_or_default();
        let parts = Parts { provider, path, collection: facts.collection, item: facts.item, date: facts.date };
        let made = rule.key.as_ref().map(|key| key.make(&parts)).transpose().map_err(escape)?.flatten();
        // A collection's document has no item and no date: it keeps the key that needs none.
        let key = made.unwrap_or_else(|| format!("{provider}/{path}"));
        key::check(&key).map_err(escape)?;
        let (bucket, tags) = (rule.bucket.clone(), rule.tags.clone());
        Ok(Target { bucket, key, storage_class: rule.storage_class, tags, by_document })
    }

    /// The rules that are looked at before the one that hits.
    fn before(&self, hit: Option<usize>) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.iter().enumerate().collect();
        if self.generation == Generation::A {
            rules.sort_by_key(|(_, rule)| std::cmp::Reverse(rule.prefix.as_ref().map_or(0, String::len)));
        }
        rules.into_iter().take_while(|(number, _)| Some(*number) != hit).map(|(_, rule)| rule).collect()
    }
}

impl Rule {
    fn compile(rule: format::Rule) -> Self {
        Self {
            place: rule.place,
            prefix: rule.prefix.map(|prefix| prefix.value),
            collection: rule.collection.map(|collection| collection.value),
            bucket: rule.bucket.name.0.value,
            storage_class: rule.bucket.storage_class,
            key: rule.key.map(|key| Key::read(&key.value).expect("the template was looked through")),
            tags: rule.tags,
        }
    }
}

impl Rule {
    fn condition(&self) -> Condition<'_> {
        Condition { prefix: self.prefix.as_deref(), collection: self.collection.as_deref() }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.prefix, &self.collection) {
            (Some(prefix), None) => write!(f, "{prefix}"),
            (None, Some(collection)) => write!(f, "collection {collection}"),
            (Some(prefix), Some(collection)) => write!(f, "{prefix} of collection {collection}"),
            (None, None) => f.write_str("default"),
        }
    }
}

/// What the YAML reader says, with its place.
fn unreadable(error: &serde_saphyr::Error) -> Finding {
    let place = error.location().map_or(Place { line: 1, column: 1 }, Place::at);
    let plain = error.without_snippet();
    #[allow(clippy::wildcard_enum_match_arm, reason = "the reader has some fifty kinds of errors")]
    let (code, message) = match plain {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let name = key.as_deref().unwrap_or("a key");
            (codes::MAP_DUPLICATE, format!("{name} stands twice in the same mapping"))
        }
        _ => (codes::MAP_UNREADABLE, plain.to_string()),
    };
    // The place is said apart.
    let message = message.split(" at line ").next().unwrap_or_default();
    Finding::new(Severity::Error, code, place, message)
}

#[cfg(test)]
mod tests;
