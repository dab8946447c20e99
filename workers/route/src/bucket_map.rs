//! The bucket map: which bucket a provider's path belongs to.
//!
//! The file is the one that operators of the PDS Data Upload Manager have, in its latest form: by provider, rules in
//! file order, first hit wins; the staging bucket where none hits.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A bucket map that was read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketMap {
    #[serde(rename = "BUCKET_MAP")]
    map: Map,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    #[serde(rename = "NODES")]
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    #[serde(default)]
    buckets: Option<Buckets>,
    #[serde(default)]
    paths: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Buckets {
    staging: Bucket,
    #[serde(default)]
    archive: Option<Bucket>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    prefix: String,
    bucket: Bucket,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    name: String,
}

/// Where a path belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The bucket.
    pub bucket: String,
    /// The key there: the provider in lower case, and the path.
    pub key: String,
}

/// Why a bucket map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file is not the YAML that is expected.
    #[error("the bucket map is not readable: {0}")]
    Yaml(String),
    /// A bucket's name is not one.
    #[error("the bucket map names {0:?}, which is no bucket name (3 to 63 of a-z, 0-9, '.' and '-')")]
    BucketName(String),
    /// A rule has an empty prefix and would hide all after it.
    #[error("the bucket map has a rule with an empty prefix for {0:?}: name the bucket as `buckets: staging:` instead")]
    EmptyPrefix(String),
    /// Two providers differ only in case, which does not count.
    #[error("the bucket map has the provider {0:?} twice")]
    Twice(String),
    /// What lands there would land again.
    #[error("the bucket map sends to {0:?}, which is the landing or the work bucket: what lands would land again")]
    Loop(String),
}

/// No rule and no default.
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
    /// No rule hits, and there is no staging bucket.
    #[error("the bucket map has no rule for {path:?} of {provider:?} and no staging bucket for it")]
    Path {
        /// Whose path.
        provider: String,
        /// The path.
        path: String,
    },
}

impl BucketMap {
    /// Reads the YAML text and checks what it names; `forbidden` are buckets that nothing may be routed to.
    ///
    /// # Errors
    /// [`MapError`] with the first thing that is wrong.
    pub fn parse(yaml: &str, forbidden: &[&str]) -> Result<Self, MapError> {
        let mut map: Self = serde_saphyr::from_str(yaml).map_err(|error| MapError::Yaml(error.to_string()))?;
        let mut nodes = BTreeMap::new();
        for (provider, node) in std::mem::take(&mut map.map.nodes) {
            if let Some(rule) = node.paths.iter().find(|rule| rule.prefix.is_empty()) {
                return Err(MapError::EmptyPrefix(rule.bucket.name.clone()));
            }
            let staging =
                node.buckets.iter().flat_map(|buckets| std::iter::once(&buckets.staging).chain(&buckets.archive));
            for bucket in staging.chain(node.paths.iter().map(|rule| &rule.bucket)) {
                check_bucket(bucket, forbidden)?;
            }
            if nodes.insert(provider.to_lowercase(), node).is_some() {
                return Err(MapError::Twice(provider));
            }
        }
        map.map.nodes = nodes;
        Ok(map)
    }

    /// Looks a provider's path up.
    ///
    /// # Errors
    /// [`Unmapped`].
    pub fn target(&self, provider: &str, path: &str) -> Result<Target, Unmapped> {
        let lower = provider.to_lowercase();
        let Some(node) = self.map.nodes.get(&lower) else {
            let known = self.map.nodes.keys().cloned().collect();
            return Err(Unmapped::Provider { provider: provider.to_owned(), known });
        };
        let rule = node.paths.iter().find(|rule| path.starts_with(&rule.prefix)).map(|rule| &rule.bucket);
        let bucket = rule.or(node.buckets.as_ref().map(|buckets| &buckets.staging));
        let Some(bucket) = bucket else {
            return Err(Unmapped::Path { provider: provider.to_owned(), path: path.to_owned() });
        };
        Ok(Target { bucket: bucket.name.clone(), key: format!("{lower}/{path}") })
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
fn check_bucket(bucket: &Bucket, forbidden: &[&str]) -> Result<(), MapError> {
    let name = &bucket.name;
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
    let ends = |edge: Option<u8>| edge.is_some_and(|b| b.is_ascii_alphanumeric());
    if !(3..=63).contains(&name.len()) || !plain || !ends(name.bytes().next()) || !ends(name.bytes().last()) {
        return Err(MapError::BucketName(name.clone()));
    }
    if forbidden.contains(&name.as_str()) {
        return Err(MapError::Loop(name.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      buckets:
        staging: {name: sbn-staging}
      paths:
        - prefix: images/
          bucket: {name: sbn-images}
    ATM:
      paths:
        - prefix: juno
          bucket: {name: atm-juno}
";

    #[track_caller]
    fn check(provider: &str, path: &str, expected: Option<(&str, &str)>) {
        let target = BucketMap::parse(MAP, &[]).unwrap().target(provider, path).ok();
        assert_eq!(target.as_ref().map(|target| (target.bucket.as_str(), target.key.as_str())), expected);
    }

    #[test]
    fn the_first_rule_that_hits_wins_and_the_default_takes_the_rest() {
        check("sbn", "images/a.fits", Some(("sbn-images", "sbn/images/a.fits")));
        check("SBN", "other/a.fits", Some(("sbn-staging", "sbn/other/a.fits")));
        check("atm", "juno/x", Some(("atm-juno", "atm/juno/x")));
        check("atm", "galileo/x", None);
        check("geo", "x", None);
    }

    #[track_caller]
    fn check_bad(yaml: &str, expected: &str) {
        let error = BucketMap::parse(yaml, &["landing"]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_bad_map_is_refused_with_its_fault() {
        check_bad("BUCKET_MAP: [", "not readable");
        check_bad("BUCKET_MAP: {NODES: {A: {buckets: {staging: {name: Bad_Name}}}}}", "no bucket name");
        check_bad("BUCKET_MAP: {NODES: {A: {buckets: {staging: {name: landing}}}}}", "land again");
        check_bad("BUCKET_MAP: {NODES: {A: {paths: [{prefix: '', bucket: {name: abc}}]}}}", "empty prefix");
        check_bad("BUCKET_MAP: {NODES: {A: {}, a: {}}}", "twice");
        check_bad("BUCKET_MAP: {NODES: {A: {pahts: []}}}", "pahts");
    }
}
