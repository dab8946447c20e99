//! Configuration: who lands where, how patient the stages are, and what a worker finds in its environment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use landfall_events::ObjectRef;
use landfall_events::notice::{Body, Style};
use serde::Deserialize;

pub use crate::environment::{Environment, VARIABLES, Variable};
use crate::runner::{Policy, ProviderOf};

/// The configuration file, `landfall.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who lands where; the longest matching prefix counts. With none, every key of the landing bucket
    /// belongs to the provider that its first segment names.
    #[serde(default, rename = "landing")]
    pub landings: Vec<Landing>,
    /// How patient the stages are.
    #[serde(default)]
    pub retry: Retry,
    /// How objects are copied and documents rewritten.
    #[serde(default)]
    pub route: Routing,
    /// Destination buckets about which there is something to say.
    #[serde(default, rename = "destination")]
    pub destinations: Vec<Destination>,
    /// How notices are written, and what is looked at before.
    #[serde(default)]
    pub notify: Notices,
}

/// How notices are written, and what is looked at before.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Notices {
    /// The URL of the STAC API that subscribers use: `source` and `subject` of a notice are URLs there. Paths, where it
    /// is not given.
    pub api: String,
    /// `cloudevents`, or `item` for the STAC document alone.
    pub body: Body,
    /// The most assets of an item that are looked at before it is announced, evenly chosen where it has more.
    pub assets_max: usize,
}

impl Default for Notices {
    fn default() -> Self {
        Self { api: String::new(), body: Body::default(), assets_max: 1000 }
    }
}

impl Notices {
    /// What a notice needs to know of it.
    #[must_use]
    pub fn style(&self) -> Style {
        Style { api: self.api.trim_end_matches('/').to_owned(), body: self.body }
    }
}

/// One (bucket, prefix) with its provider and profile.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Landing {
    /// The bucket; the deployment's landing bucket where it is not given.
    pub bucket: Option<String>,
    /// The start of the keys that are meant; all where it is empty.
    #[serde(default)]
    pub prefix: String,
    /// The provider of everything there; the first segment of the key where it is not given.
    pub provider: Option<String>,
    /// What a submission must satisfy.
    #[serde(default = "default_profile")]
    pub profile: String,
    /// Globs over the key, in the place of the profile's: what matches is metadata, and is refused when it is not
    /// valid STAC.
    pub metadata: Option<Vec<String>>,
    /// What becomes of a landed object once it is routed, loaded and announced.
    #[serde(default)]
    pub after_route: AfterRoute,
    /// What the removal of a landed object does.
    #[serde(default)]
    pub on_removal: OnRemoval,
}

/// What the removal of a landed object does to what was loaded from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnRemoval {
    /// The item goes out of the catalogue, and that is announced.
    #[default]
    Apply,
    /// Nothing: landing may be emptied, and the catalogue keeps what it has.
    Ignore,
}

/// What becomes of a landed object that is completed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AfterRoute {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted, as long as it is what was completed.
    Delete,
    /// It gets the tag `landfall=completed`, for a lifecycle rule of the bucket.
    Tag,
}

/// How objects are copied and documents rewritten.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Whether a rewritten document keeps its original hrefs too, under the alternate-assets extension.
    #[serde(default)]
    pub alternate_hrefs: bool,
    /// What becomes of links.
    #[serde(default)]
    pub links: Links,
    /// How objects are copied.
    #[serde(default)]
    pub copy: Copying,
}

/// What becomes of a link: `keep`, `remove`, or a URL to set, with `{collection}` and `{item}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub enum LinkRule {
    /// It stays as it is.
    Keep,
    /// It goes.
    Remove,
    /// It is set to what this gives.
    Set(String),
}

impl From<String> for LinkRule {
    fn from(text: String) -> Self {
        match text.as_str() {
            "keep" => Self::Keep,
            "remove" => Self::Remove,
            _ => Self::Set(text),
        }
    }
}

/// What becomes of the links that say where a document stands; all others are kept.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "lowercase")]
pub struct Links {
    /// `rel=self`. APIs make their own, and a provider's names its own tree.
    #[serde(rename = "self")]
    pub itself: LinkRule,
    /// `rel=collection`; of a collection's document, its own place.
    pub collection: LinkRule,
    /// `rel=parent`.
    pub parent: LinkRule,
    /// `rel=root`.
    pub root: LinkRule,
}

impl Default for Links {
    fn default() -> Self {
        let (itself, parent, root) = (LinkRule::Remove, LinkRule::Remove, LinkRule::Remove);
        Self { itself, collection: LinkRule::Keep, parent, root }
    }
}

/// How objects are copied. Sizes are in MiB.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Copying {
    /// What is larger is copied in parts. S3 takes at most 5120 at once.
    pub threshold_mib: u64,
    /// The size of a part that is copied from store to store; larger where 10,000 would not be enough.
    pub part_mib: u64,
    /// The size of a part that goes through us, because the stores cannot copy it; as many as `parallel` are in memory.
    pub stream_part_mib: u64,
    /// Parts of all objects that are copied at a time.
    pub parallel: usize,
    /// Seconds after which a copy in parts goes on with the next message. Less than the function's time.
    pub time_max_s: u64,
    /// What is larger is not read to be compared or to be hashed, where the stores have no checksums to compare.
    pub read_mib_max: u64,
}

impl Default for Copying {
    fn default() -> Self {
        Self { threshold_mib: 1024, part_mib: 128, stream_part_mib: 8, parallel: 8, time_max_s: 30, read_mib_max: 1024 }
    }
}

/// One destination bucket about which there is something to say.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The bucket.
    pub bucket: String,
    /// Its region, where it is another than that of the rest.
    pub region: Option<String>,
    /// The endpoint of its store, where it is another than that of the rest.
    pub endpoint: Option<String>,
    /// The profile with its credentials in the AWS configuration files.
    pub profile: Option<String>,
    /// What hrefs of objects there become, with `{key}`; `s3://bucket/key` where it is not given.
    pub href: Option<String>,
}

/// How patient the stages are.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Receives of a failing delivery before it is re-sent with a delay.
    pub receives_max: Option<u32>,
    /// The shortest delay, in milliseconds.
    pub delay_min_ms: Option<u64>,
    /// The longest delay, in milliseconds.
    pub delay_max_ms: Option<u64>,
    /// How long an event waits for what has not landed, in seconds.
    pub wait_max_s: Option<u64>,
}

fn default_profile() -> String {
    "ingest".into()
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not the TOML that is expected.
    #[error("the configuration is not readable")]
    Toml(#[from] toml::de::Error),
    /// A glob cannot be understood.
    #[error("the metadata glob {glob:?} cannot be understood")]
    Glob {
        /// The glob.
        glob: String,
        /// Why.
        source: globset::Error,
    },
    /// Values cannot be as they are; all of them are named at once.
    #[error("the configuration has wrong: {}", .0.join("; "))]
    Wrong(Vec<String>),
    /// Environment variables are missing or wrong; all of them are named at once.
    #[error("the environment lacks or has wrong: {}", .0.join(", "))]
    Environment(Vec<String>),
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`ConfigError::Toml`] with line and column, [`ConfigError::Wrong`] with all that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        let wrong = config.wrong();
        if wrong.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(wrong)) }
    }

    /// Everything that cannot be as it is.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        let mut places = BTreeSet::new();
        for Landing { bucket, prefix, provider, metadata, .. } in &self.landings {
            must(places.insert((bucket, prefix)), format!("landing: prefix {prefix:?} stands there twice"));
            let is_name = |name: &String| !name.is_empty() && !name.contains('/');
            must(provider.as_ref().is_none_or(is_name), "landing: a provider is a name without /".into());
            for glob in metadata.iter().flatten() {
                let read = Glob::new(glob);
                must(
                    read.is_ok(),
                    format!("landing: metadata: {}", read.err().map(|e| e.to_string()).unwrap_or_default()),
                );
            }
        }
        let Retry { receives_max, delay_min_ms, delay_max_ms, wait_max_s } = self.retry;
        must(receives_max != Some(0), "retry.receives_max is at least 1".into());
        must(delay_min_ms != Some(0), "retry.delay_min_ms is at least 1".into());
        let (policy, most) = (self.policy(), crate::queue::DELAY_MAX);
        must(policy.delay_max <= most, format!("retry.delay_max_ms is at most {}, as SQS has it", most.as_millis()));
        let are_in_order = policy.delay_min <= policy.delay_max || delay_max_ms == Some(0);
        must(are_in_order, "retry.delay_min_ms is at most delay_max_ms".into());
        must(wait_max_s != Some(0), "retry.wait_max_s is at least 1".into());
        let Copying { threshold_mib, part_mib, stream_part_mib, parallel, .. } = self.route.copy;
        must(threshold_mib <= 5120, "route.copy.threshold_mib is at most 5120, as S3 has it".into());
        must((1..=5120).contains(&part_mib), "route.copy.part_mib is from 1 to 5120".into());
        must((1..=5120).contains(&stream_part_mib), "route.copy.stream_part_mib is from 1 to 5120".into());
        must(parallel > 0, "route.copy.parallel is at least 1".into());
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        let mut buckets = BTreeSet::new();
        for Destination { bucket, endpoint, .. } in &self.destinations {
            must(buckets.insert(bucket), format!("destination: {bucket:?} stands there twice"));
            must(endpoint.as_deref().is_none_or(is_url), format!("destination {bucket:?}: endpoint is a URL"));
        }
        let api = &self.notify.api;
        must(api.is_empty() || is_url(api), "notify.api is a URL".into());
        wrong
    }

    /// The runner's policy with what the file sets.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        let millis = Duration::from_millis;
        policy.receives_max = self.retry.receives_max.unwrap_or(policy.receives_max);
        policy.delay_min = self.retry.delay_min_ms.map_or(policy.delay_min, millis);
        policy.delay_max = self.retry.delay_max_ms.map_or(policy.delay_max, millis);
        policy.wait_max = self.retry.wait_max_s.map_or(policy.wait_max, Duration::from_secs);
        policy
    }
}

/// Who lands where, ready to be asked.
#[derive(Debug, Clone)]
pub struct Landings {
    sites: Arc<Vec<Site>>,
    landing_bucket: Arc<str>,
}

#[derive(Debug)]
struct Site {
    bucket: String,
    prefix: String,
    provider: Option<String>,
    profile: String,
    metadata: Option<GlobSet>,
    after_route: AfterRoute,
    on_removal: OnRemoval,
}

/// What the configuration says about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sited<'a> {
    /// Whose object it is.
    pub provider: &'a str,
    /// The key without the landing's prefix and without the provider's segment.
    pub path: &'a str,
    /// The profile that it must satisfy.
    pub profile: &'a str,
    /// Whether its path says that it is metadata; `None` where that is the profile's to say.
    pub is_metadata: Option<bool>,
    /// The start of the provider's keys, within which an item's assets must lie.
    pub root: &'a str,
    /// What becomes of it once it is completed.
    pub after_route: AfterRoute,
    /// What its removal does.
    pub on_removal: OnRemoval,
}

impl Landings {
    /// Compiles the landings of a configuration for a deployment with this landing bucket.
    ///
    /// # Errors
    /// [`ConfigError::Glob`].
    pub fn new(config: &Config, landing_bucket: &str) -> Result<Self, ConfigError> {
        let everything = Landing {
            bucket: None,
            prefix: String::new(),
            provider: None,
            profile: default_profile(),
            metadata: None,
            after_route: AfterRoute::Keep,
            on_removal: OnRemoval::Apply,
        };
        let landings = if config.landings.is_empty() { std::slice::from_ref(&everything) } else { &config.landings };
        let site = |landing: &Landing| {
            let globs = |patterns: &Vec<String>| {
                let mut globs = GlobSetBuilder::new();
                for glob in patterns {
                    globs.add(Glob::new(glob).map_err(|source| ConfigError::Glob { glob: glob.clone(), source })?);
                }
                globs.build().map_err(|source| ConfigError::Glob { glob: String::new(), source })
            };
            Ok::<_, ConfigError>(Site {
                bucket: landing.bucket.clone().unwrap_or_else(|| landing_bucket.to_owned()),
                prefix: landing.prefix.clone(),
                provider: landing.provider.clone(),
                profile: landing.profile.clone(),
                metadata: landing.metadata.as_ref().map(globs).transpose()?,
                after_route: landing.after_route,
                on_removal: landing.on_removal,
            })
        };
        let mut sites = landings.iter().map(site).collect::<Result<Vec<_>, _>>()?;
        sites.sort_by_key(|site| std::cmp::Reverse(site.prefix.len()));
        Ok(Self { sites: Arc::new(sites), landing_bucket: landing_bucket.into() })
    }

    /// Looks an object up; `None` where no landing is configured for it or its key names no provider.
    #[must_use]
    pub fn site<'a>(&'a self, object: &'a ObjectRef) -> Option<Sited<'a>> {
        let site =
            self.sites.iter().find(|site| site.bucket == object.bucket && object.key.starts_with(&site.prefix))?;
        let rest = &object.key[site.prefix.len()..];
        let (provider, path) = match &site.provider {
            Some(provider) => (provider.as_str(), rest),
            None => rest.split_once('/').filter(|(first, _)| !first.is_empty())?,
        };
        let root = &object.key[..object.key.len() - path.len()];
        let is_metadata = site.metadata.as_ref().map(|globs| globs.is_match(&object.key));
        let (profile, after_route, on_removal) = (site.profile.as_str(), site.after_route, site.on_removal);
        (!path.is_empty()).then_some(Sited { provider, path, profile, is_metadata, root, after_route, on_removal })
    }

    /// Whether providers land in this bucket.
    #[must_use]
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets().contains(bucket)
    }

    /// The buckets in which providers land, each once; the deployment's own among them, whoever may use it.
    #[must_use]
    pub fn buckets(&self) -> BTreeSet<&str> {
        self.sites.iter().map(|site| site.bucket.as_str()).chain([&*self.landing_bucket]).collect()
    }

    /// Where what lands can be listed, as buckets and starts of keys of which none is part of another: of one provider
    /// where one is named, and only keys that start with `start`. Without a provider the deployment's own bucket is among
    /// them as a whole: what no landing is configured for is refused there.
    #[must_use]
    pub fn places(&self, provider: Option<&str>, start: &str) -> BTreeSet<(String, String)> {
        let of_site = |site: &Site| {
            let folder = match (&site.provider, provider) {
                (Some(own), Some(wanted)) if own != wanted => return None,
                (None, Some(wanted)) => format!("{wanted}/"),
                _ => String::new(),
            };
            Some((site.bucket.clone(), format!("{}{folder}", site.prefix)))
        };
        let own = provider.is_none().then(|| (self.landing_bucket.to_string(), String::new()));
        let within = |(bucket, prefix): (String, String)| match prefix.starts_with(start) {
            true => Some((bucket, prefix)),
            false => start.starts_with(&prefix).then(|| (bucket, start.to_owned())),
        };
        let all: BTreeSet<_> = self.sites.iter().filter_map(of_site).chain(own).filter_map(within).collect();
        let is_part = |one: &(String, String)| {
            all.iter().any(|other| other != one && other.0 == one.0 && one.1.starts_with(&other.1))
        };
        all.iter().filter(|one| !is_part(one)).cloned().collect()
    }

    /// The profiles that are asked for, each once.
    #[must_use]
    pub fn profiles(&self) -> BTreeSet<&str> {
        self.sites.iter().map(|site| site.profile.as_str()).collect()
    }

    /// The same as a function, for the runner.
    #[must_use]
    pub fn provider_of(&self) -> ProviderOf {
        let landings = self.clone();
        Arc::new(move |object| landings.site(object).map(|sited| sited.provider.to_owned()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn landings(toml: &str) -> Landings {
        Landings::new(&Config::parse(toml).unwrap(), "landing").unwrap()
    }

    #[track_caller]
    fn check(landings: &Landings, url: &str, expected: Option<(&str, &str, Option<bool>)>) {
        let object = ObjectRef::parse(url).unwrap();
        let sited = landings.site(&object);
        assert_eq!(sited.map(|sited| (sited.provider, sited.path, sited.is_metadata)), expected, "{url}");
    }

    #[test]
    fn the_first_segment_is_the_provider_unless_the_landing_says_otherwise() {
        let plain = landings("");
        check(&plain, "s3://landing/sbn/a/b.fits", Some(("sbn", "a/b.fits", None)));
        check(&plain, "s3://landing/sbn/C/metadata/items/i.json", Some(("sbn", "C/metadata/items/i.json", None)));
        check(&plain, "s3://landing/file", None);
        check(&plain, "s3://landing//file", None);
        check(&plain, "s3://landing/sbn/", None);
        check(&plain, "s3://other/sbn/a", None);
    }

    #[test]
    fn the_longest_prefix_counts() {
        let fixed = landings(
            "[[landing]]\n[[landing]]\nprefix='dedl/'\nprovider='destine'\nmetadata=['**/*.json']\n[[landing]]\nbucket='two'\nprovider='x'",
        );
        check(&fixed, "s3://landing/dedl/a/b.json", Some(("destine", "a/b.json", Some(true))));
        check(&fixed, "s3://landing/dedlx/a/b.json", Some(("dedlx", "a/b.json", None)));
        check(&fixed, "s3://two/a", Some(("x", "a", None)));
    }

    #[test]
    fn what_lands_is_listed_where_it_lands_and_once() {
        let many = landings(
            "[[landing]]\n[[landing]]\nprefix='dedl/'\nprovider='destine'\n[[landing]]\nbucket='two'\nprefix='in/'\nprovider='x'",
        );
        let places = |provider, start| {
            let places = many.places(provider, start);
            places.into_iter().map(|(bucket, prefix)| format!("{bucket} {prefix}")).collect::<Vec<_>>()
        };
        assert_eq!(places(None, ""), ["landing ", "two in/"]);
        assert_eq!(places(None, "dedl/a"), ["landing dedl/a"]);
        assert_eq!(places(None, "in/b"), ["landing in/b", "two in/b"]);
        assert_eq!(places(Some("destine"), ""), ["landing dedl/", "landing destine/"]);
        assert_eq!(places(Some("x"), "i"), ["two in/"]);
        assert_eq!(places(Some("sbn"), "sbn/C/"), ["landing sbn/C/"]);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error() {
        assert!(Config::parse("[[landing]]\nprefx='a'").is_err());
        assert!(Config::parse("[retry]\nwait_max_s=1").is_ok());
    }

    /// The page as the code has it.
    fn page() -> String {
        use std::fmt::Write as _;
        let mut page = String::from(
            "# Configuration\n\n\
            This page follows the code; a test holds it, and `LANDFALL_BLESS=1 cargo test -p landfall-shared page` writes it.\n\n\
            ## landfall.toml\n\n\
            One file for all workers, in the work bucket as `config/landfall.toml`; they read it when they start, and name\n\
            everything in it that cannot be at once. [infra/landfall.toml](../infra/landfall.toml) has every key with its\n\
            default and a comment. Keys that are not known are refused.\n",
        );
        let schema = schemars::schema_for!(Config).to_value();
        let described = |of: &serde_json::Value| of["description"].as_str().unwrap_or_default().replace('\n', " ");
        let named = |of: &serde_json::Value| {
            let reference =
                [&of["items"]["$ref"], &of["$ref"], &of["anyOf"][0]["$ref"]].into_iter().find_map(|r| r.as_str());
            reference.map(|reference| reference.trim_start_matches("#/$defs/").to_owned())
        };
        let mut tables = vec![(String::new(), schema.clone())];
        while let Some((path, table)) = tables.pop() {
            let mut rows = Vec::new();
            for (key, value) in table["properties"].as_object().into_iter().flatten() {
                let of = named(value).map(|name| schema["$defs"][&name].clone()).unwrap_or_default();
                let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if of["properties"].is_object() {
                    let is_list = value["items"].is_object();
                    tables.insert(0, (if is_list { format!("[{place}]") } else { place }, of));
                    continue;
                }
                let words = of["oneOf"].as_array().into_iter().flatten();
                let words =
                    words.map(|word| format!("`{}`: {}", word["const"].as_str().unwrap_or_default(), described(word)));
                let what = [described(value)].into_iter().chain(words).collect::<Vec<_>>().join(" ");
                rows.push(format!("| `{key}` | {} |", what.trim()));
            }
            if !rows.is_empty() {
                let title = described(&table);
                write!(page, "\n### [{path}]\n\n{title}\n\n| key | what |\n|---|---|\n{}\n", rows.join("\n")).unwrap();
            }
        }
        page.push_str(
            "\n## The environment\n\nWhat is missing or cannot be read is named all at once when a program starts.\n\n\
            | variable | who reads it | default | what |\n|---|---|---|---|\n",
        );
        for Variable { name, of, default, what } in VARIABLES {
            writeln!(page, "| `{name}` | {of} | {default} | {what} |").unwrap();
        }
        page
    }

    #[test]
    fn the_page_follows_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if std::env::var_os("LANDFALL_BLESS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page());
    }

    #[test]
    fn every_variable_that_is_read_is_on_the_page() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let known: BTreeSet<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
        let mut folders = vec![root.join("shared/src"), root.join("workers"), root.join("cli/src")];
        let mut found = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
                    let words = text.split(|c| !is_of_name(c)).filter(|word| word.starts_with("LANDFALL_"));
                    found.extend(words.map(str::to_owned));
                }
            }
        }
        // What tests read.
        for of_tests in ["LANDFALL_", "LANDFALL_BLESS", "LANDFALL_SEEDS"] {
            found.remove(of_tests);
        }
        let unknown: Vec<_> = found.iter().filter(|name| !known.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let unread = known.iter().filter(|name| name.starts_with("LANDFALL_") && !found.contains(**name));
        assert_eq!(unread.collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn the_sample_is_good() {
        Config::parse(include_str!("../../infra/landfall.toml")).unwrap();
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let wrong = Config::parse(
            "[[landing]]\nprovider='a/b'\nmetadata=['[']\n[[landing]]\n[retry]\nreceives_max=0\ndelay_min_ms=2000000\n
            [route.copy]\nparallel=0\nthreshold_mib=6000\n[[destination]]\nbucket='b'\nendpoint='y'\n[notify]\napi='z'",
        );
        let Err(ConfigError::Wrong(wrong)) = wrong else { panic!("{wrong:?}") };
        assert_eq!(wrong.len(), 9, "{wrong:#?}");
    }
}
