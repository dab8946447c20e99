//! What is wrong or odd in a bucket map, each with its place.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};
use landfall_events::{Code, Severity, codes};
use serde::Serialize;

use super::format::{Bucket, File, Node, Rule};
use super::key::Key;
use super::lookup::{is_glob, trimmed};
use super::{Generation, Place};

/// One thing that is wrong (an error: the map is not taken) or odd (a warning).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is, for `landfall explain`.
    pub code: Code,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What is there.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl Finding {
    pub(super) fn new(severity: Severity, code: Code, place: Place, message: impl Into<String>) -> Self {
        let hint = codes::explain(code.as_str()).map_or("", |explanation| explanation.hint);
        Self { severity, code, place, message: message.into(), hint }
    }

    fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, place, message)
    }

    fn warning(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, place, message)
    }
}

/// Looks through a whole map. Nothing may be routed to the `forbidden` buckets: what they receive is ingested.
pub(super) fn lint(file: &File, forbidden: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut providers: BTreeMap<String, Place> = BTreeMap::new();
    for node in &file.nodes {
        let (name, place) = (&node.provider.value, Place::of(&node.provider));
        if name.is_empty() || name.contains('/') {
            let message = format!("{name:?} is no provider: it is one segment of a key");
            findings.push(Finding::error(codes::MAP_UNREADABLE, place, message));
        }
        if let Some(first) = providers.insert(name.to_lowercase(), place) {
            let message = format!("the provider {name} stands in line {} already; case does not count", first.line);
            findings.push(Finding::error(codes::MAP_DUPLICATE, place, message));
        }
        if let Some(place) = node.second_default {
            let message = "a default stands beside `buckets`, whose staging is one";
            findings.push(Finding::error(codes::MAP_DUPLICATE, place, message));
        }
        for rule in &node.rules {
            if rule.prefix.is_none() && rule.collection.is_none() {
                let message = "a rule without a prefix and a collection takes every path";
                findings.push(Finding::error(codes::MAP_EMPTY_PREFIX, rule.place, message));
            }
            check_rule(rule, file.generation, forbidden, &mut findings);
        }
        if let Some(default) = &node.default {
            check_rule(default, file.generation, forbidden, &mut findings);
        }
        if let Some(archive) = &node.archive {
            check_bucket(archive, forbidden, &mut findings);
        }
        match file.generation {
            Generation::A => check_prefixes(node, &mut findings),
            Generation::B | Generation::C => check_order(node, &mut findings),
        }
    }
    check_shared(file, &mut findings);
    findings.sort_by_key(|finding| finding.place);
    findings
}

fn check_rule(rule: &Rule, generation: Generation, forbidden: &[&str], findings: &mut Vec<Finding>) {
    check_bucket(&rule.bucket, forbidden, findings);
    if let Some(prefix) = &rule.prefix {
        let place = Place::of(prefix);
        let text = prefix.value.as_str();
        if text.is_empty() {
            let message = format!("an empty prefix takes every path to {}", rule.bucket.name.0.value);
            findings.push(Finding::error(codes::MAP_EMPTY_PREFIX, place, message));
        } else if let Some(odd) = odd_prefix(text, generation) {
            findings.push(Finding::warning(codes::MAP_GLOB, place, format!("{text:?} {odd}")));
        } else if generation != Generation::A && !is_glob(text) && !text.ends_with('/') {
            let message = format!("{text:?} also takes paths that only start with these letters, as {text}2/…");
            findings.push(Finding::warning(codes::MAP_BOUNDARY, place, message));
        }
    }
    if let Some(collection) = rule.collection.as_ref().filter(|collection| collection.value.is_empty()) {
        findings.push(Finding::error(
            codes::MAP_EMPTY_PREFIX,
            Place::of(collection),
            "an empty collection hits nothing",
        ));
    }
    if let Some(key) = &rule.key {
        match Key::read(&key.value) {
            Err(bad) => findings.push(Finding::error(codes::MAP_TEMPLATE, Place::of(key), bad.to_string())),
            Ok(read) if read.has("item") && !read.has("path") && !read.has("collection") && !rule.is_of_one() => {
                let message = "two files can get the same key: ids of items are unique only within a collection";
                findings.push(Finding::error(codes::MAP_TEMPLATE, Place::of(key), message));
            }
            Ok(_) => {}
        }
    }
    for (name, value) in &rule.tags {
        // <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
        if name.is_empty() || name.chars().count() > 128 || value.chars().count() > 256 {
            let message = format!("the tag {name:?} is too long: 1 to 128 characters, its value up to 256");
            findings.push(Finding::error(codes::MAP_UNREADABLE, rule.place, message));
        }
    }
    if rule.tags.len() > 10 {
        findings.push(Finding::error(codes::MAP_UNREADABLE, rule.place, "an object has at most ten tags"));
    }
}

/// What looks like a slip in a prefix.
fn odd_prefix(prefix: &str, generation: Generation) -> Option<&'static str> {
    let tail = prefix.trim_end_matches(['*', '/']);
    Some(match generation {
        _ if prefix.trim() != prefix => "has a space at its end",
        _ if prefix.starts_with('/') => "starts with '/', and no path does",
        Generation::A if is_glob(prefix) => "is taken letter by letter: this generation of the map has no globs",
        Generation::A => return None,
        _ if prefix.contains('\\') || prefix.contains('{') => "has a backslash or a brace, which means itself here",
        _ if prefix.contains("**") => "has two asterisks, which mean the same as one: it crosses '/' anyway",
        _ if prefix.contains('[') && !prefix.contains(']') => "has a bracket that nothing closes, which means itself",
        _ if is_glob(prefix) && prefix.ends_with('/') => "ends with '/' and must match the whole path: no file does",
        _ if prefix.ends_with('*') && !prefix.ends_with("/*") && !is_glob(tail) => {
            "also takes paths that only start so: the '*' follows no '/'"
        }
        Generation::B | Generation::C => return None,
    })
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
fn check_bucket(bucket: &Bucket, forbidden: &[&str], findings: &mut Vec<Finding>) {
    let (name, place) = (bucket.name.0.value.as_str(), Place::of(&bucket.name.0));
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
    let ends = |edge: Option<u8>| edge.is_some_and(|b| b.is_ascii_alphanumeric());
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    let reserved = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|start| name.starts_with(start))
        || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|end| name.ends_with(end));
    let shape = (3..=63).contains(&name.len()) && plain && ends(name.bytes().next()) && ends(name.bytes().last());
    if !shape || name.contains("..") || is_address || reserved {
        let message = format!("{name:?} is no bucket name");
        findings.push(Finding::error(codes::MAP_BUCKET_NAME, place, message));
    }
    if forbidden.contains(&name) {
        let message = format!("{name} is the landing or the work bucket: what is routed there would land again");
        findings.push(Finding::error(codes::MAP_LOOP, place, message));
    }
}

/// Generation A: prefixes that are the same.
fn check_prefixes(node: &Node, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for prefix in node.rules.iter().filter_map(|rule| rule.prefix.as_ref()) {
        if let Some(first) = seen.insert(trimmed(&prefix.value), Place::of(prefix)) {
            let message = format!("{:?} is the same prefix as in line {}", prefix.value, first.line);
            findings.push(Finding::error(codes::MAP_DUPLICATE, Place::of(prefix), message));
        }
    }
}

/// Generations B and C: rules that an earlier one hides.
fn check_order(node: &Node, findings: &mut Vec<Finding>) {
    let collections: BTreeSet<Option<&str>> = node.rules.iter().map(Rule::of).collect();
    for collection in collections {
        // What hides a rule is for the same collection, or for all.
        let stands = |rule: &&Rule| rule.of() == collection || rule.of().is_none();
        let rules: Vec<&Rule> = node.rules.iter().filter(stands).collect();
        let covers: Vec<_> =
            rules.iter().enumerate().filter_map(|(index, rule)| Some((index, covers(rule)?))).collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .start_kind(StartKind::Anchored)
            .build(covers.iter().map(|(_, cover)| cover))
            .expect("a bucket map is far smaller than the limits of an automaton");
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.of() == collection) {
            let head = head(rule.prefix.as_ref().map_or("", |prefix| prefix.value.as_str()));
            let hidden = automaton.find(Input::new(head).anchored(Anchored::Yes));
            let by = hidden.map(|found| covers[found.pattern().as_usize()].0).filter(|by| *by < index);
            if let Some(by) = by {
                let message =
                    format!("no path reaches this rule: the one in line {} takes them all", rules[by].place.line);
                findings.push(Finding::warning(codes::MAP_UNREACHABLE, rule.place, message));
            }
        }
    }
}

/// The start of paths of which a rule takes every one; `None` where it takes only some.
fn covers(rule: &Rule) -> Option<&str> {
    let prefix = rule.prefix.as_ref().map_or("", |prefix| prefix.value.as_str());
    match prefix.strip_suffix('*').map(|head| head.trim_end_matches('*')) {
        Some(start) if !is_glob(start) => Some(start),
        Some(_) | None => Some(prefix),
    }
}

/// The letters that every path starts with which a pattern takes.
fn head(pattern: &str) -> &str {
    pattern.split(['*', '?', '[']).next().unwrap_or_default()
}

/// A key without the provider in a bucket that another provider has too.
fn check_shared(file: &File, findings: &mut Vec<Finding>) {
    let mut users: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for node in &file.nodes {
        for rule in node.rules.iter().chain(&node.default) {
            users.entry(&rule.bucket.name.0.value).or_default().insert(node.provider.value.to_lowercase());
        }
    }
    for rule in file.nodes.iter().flat_map(|node| node.rules.iter().chain(&node.default)) {
        let Some(key) = &rule.key else { continue };
        let shared = users.get(rule.bucket.name.0.value.as_str()).is_some_and(|users| users.len() > 1);
        if shared && Key::read(&key.value).is_ok_and(|read| !read.has("provider")) {
            let message = format!(
                "files of two providers can get the same key: {} takes several, and the key has no {{provider}}",
                rule.bucket.name.0.value
            );
            findings.push(Finding::error(codes::MAP_TEMPLATE, Place::of(key), message));
        }
    }
}

impl Rule {
    fn of(&self) -> Option<&str> {
        self.collection.as_ref().map(|collection| collection.value.as_str())
    }

    /// Whether it is for exactly one collection.
    fn is_of_one(&self) -> bool {
        self.of().is_some_and(|collection| !is_glob(collection))
    }
}
