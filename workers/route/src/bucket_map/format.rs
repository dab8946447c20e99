//! The bucket map as it is written: three generations of the PDS Data Upload Manager's file, and ours on top.
//!
//! It says where something stands wrong by line and column, and refuses what it does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use landfall_events::routed::StorageClass;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Generation, Place};

/// A file, taken apart into what all generations have in common.
#[derive(Debug)]
pub(super) struct File {
    pub(super) generation: Generation,
    pub(super) nodes: Vec<Node>,
}

/// What the map says about one provider.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) provider: Spanned<String>,
    pub(super) default: Option<Rule>,
    /// Read and checked; nothing is archived by the map yet.
    pub(super) archive: Option<Bucket>,
    pub(super) rules: Vec<Rule>,
    /// Where a second default stands beside `buckets`.
    pub(super) second_default: Option<Place>,
}

/// One rule, or a default, which has neither prefix nor collection.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) collection: Option<Spanned<String>>,
    pub(super) bucket: Bucket,
    pub(super) key: Option<Spanned<String>>,
    pub(super) tags: BTreeMap<String, String>,
}

/// A bucket, with the storage class that objects get there.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Bucket"))]
pub(super) struct Bucket {
    /// The bucket's name.
    pub(super) name: BucketName,
    /// The storage class of what is put there; the bucket's own default where it is not given.
    #[serde(default)]
    pub(super) storage_class: Option<StorageClass>,
}

/// A bucket's name, with its place.
#[derive(Debug, serde::Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transparent))]
pub(super) struct BucketName(
    #[cfg_attr(feature = "schema", schemars(with = "String", regex(pattern = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")))]
    pub(super) Spanned<String>,
);

/// Generation A: a name for each path prefix.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct FileA {
    #[serde(rename = "MAP")]
    map: Nodes<Entries<BucketName>>,
}

/// Generation B.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct FileB {
    #[serde(rename = "MAP")]
    map: Nodes<NodeB>,
}

/// Generation C, and ours.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct FileC {
    #[serde(rename = "BUCKET_MAP")]
    map: Nodes<NodeC>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Nodes<N> {
    /// What holds for each provider; case does not count in their names.
    #[serde(rename = "NODES")]
    nodes: Entries<N>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct NodeB {
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<DefaultB>"))]
    default: Option<Spanned<DefaultB>>,
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<RuleB>>"))]
    paths: Option<Vec<Spanned<RuleB>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DefaultB {
    bucket: Bucket,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RuleB {
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    prefix: Spanned<String>,
    bucket: Bucket,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct NodeC {
    /// The buckets of what no rule takes: `staging` is the target.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Buckets>"))]
    buckets: Option<Spanned<Buckets>>,
    /// Landfall's own: the target of what no rule takes, with a key, tags and no archive.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<DefaultC>"))]
    default: Option<Spanned<DefaultC>>,
    /// Rules in order: the first that hits wins.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<RuleC>>"))]
    paths: Option<Vec<Spanned<RuleC>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Buckets {
    staging: Bucket,
    archive: Bucket,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DefaultC {
    bucket: Bucket,
    /// Landfall's own: the key at the destination, `<provider>/<path>` where it is not given.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    key: Option<Spanned<String>>,
    /// Landfall's own: tags that objects get there.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RuleC {
    /// The start of a path, or a glob over the whole path in which `*` crosses `/`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    prefix: Option<Spanned<String>>,
    /// Landfall's own: the id of a STAC collection, or a glob over it. The rule takes its documents and their assets.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    collection: Option<Spanned<String>>,
    bucket: Bucket,
    /// Landfall's own: the key at the destination, of `{provider}`, `{path}`, `{collection}`, `{item}`, `{year}`,
    /// `{month}`, `{day}` and `{filename}`; `<provider>/<path>` where it is not given.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    key: Option<Spanned<String>>,
    /// Landfall's own: tags that objects get there.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// Reads a file of any generation.
pub(super) fn read(yaml: &str) -> Result<File, serde_saphyr::Error> {
    let shape: Shape = serde_saphyr::from_str(yaml)?;
    Ok(match shape.generation() {
        Generation::A => from_a(serde_saphyr::from_str(yaml)?),
        Generation::B => from_b(serde_saphyr::from_str(yaml)?),
        Generation::C => from_c(serde_saphyr::from_str(yaml)?),
    })
}

/// As much of a file as tells its generation.
#[derive(serde::Deserialize)]
struct Shape {
    #[serde(rename = "MAP", default)]
    map: Option<serde_json::Value>,
    #[serde(rename = "BUCKET_MAP", default)]
    bucket_map: Option<IgnoredAny>,
}

impl Shape {
    fn generation(&self) -> Generation {
        let nodes = self.map.iter().filter(|_| self.bucket_map.is_none());
        let nodes = nodes.filter_map(|map| map.get("NODES")?.as_object()).flat_map(|nodes| nodes.values());
        match self.map {
            Some(_) => {
                let structured = |node: &serde_json::Value| {
                    node.as_object()
                        .is_some_and(|node| node.values().any(|value| value.is_object() || value.is_array()))
                };
                if nodes.into_iter().any(structured) { Generation::B } else { Generation::A }
            }
            None => Generation::C,
        }
    }
}

fn from_a(file: FileA) -> File {
    let node = |(provider, entries): (Spanned<String>, Entries<BucketName>)| {
        let (mut default, mut rules) = (None, Vec::new());
        for (prefix, name) in entries.0 {
            let place = Place::of(&prefix);
            let bucket = Bucket { name, storage_class: None };
            let rule = |prefix| Rule { place, prefix, collection: None, bucket, key: None, tags: BTreeMap::new() };
            if prefix.value == "default" {
                default = Some(rule(None));
            } else {
                rules.push(rule(Some(prefix)));
            }
        }
        Node { provider, default, archive: None, rules, second_default: None }
    };
    File { generation: Generation::A, nodes: file.map.nodes.0.into_iter().map(node).collect() }
}

fn from_b(file: FileB) -> File {
    let rule = |rule: Spanned<RuleB>| {
        let place = Place::of(&rule);
        let RuleB { prefix, bucket } = rule.value;
        Rule { place, prefix: Some(prefix), collection: None, bucket, key: None, tags: BTreeMap::new() }
    };
    let node = |(provider, node): (Spanned<String>, NodeB)| {
        let default = node.default.map(|default| {
            let place = Place::of(&default);
            let bucket = default.value.bucket;
            Rule { place, prefix: None, collection: None, bucket, key: None, tags: BTreeMap::new() }
        });
        Node {
            provider,
            default,
            archive: None,
            rules: node.paths.into_iter().flatten().map(rule).collect(),
            second_default: None,
        }
    };
    File { generation: Generation::B, nodes: file.map.nodes.0.into_iter().map(node).collect() }
}

fn from_c(file: FileC) -> File {
    let rule = |rule: Spanned<RuleC>| {
        let place = Place::of(&rule);
        let RuleC { prefix, collection, bucket, key, tags } = rule.value;
        Rule { place, prefix, collection, bucket, key, tags }
    };
    let node = |(provider, node): (Spanned<String>, NodeC)| {
        let second_default = node.default.as_ref().filter(|_| node.buckets.is_some()).map(Place::of);
        let mut default = node.default.map(|default| {
            let place = Place::of(&default);
            let DefaultC { bucket, key, tags } = default.value;
            Rule { place, prefix: None, collection: None, bucket, key, tags }
        });
        let mut archive = None;
        if let Some(buckets) = node.buckets {
            let place = Place::of(&buckets.value.staging.name.0);
            archive = Some(buckets.value.archive);
            let staging = buckets.value.staging;
            default.get_or_insert_with(|| Rule {
                place,
                prefix: None,
                collection: None,
                bucket: staging,
                key: None,
                tags: BTreeMap::new(),
            });
        }
        Node { provider, default, archive, rules: node.paths.into_iter().flatten().map(rule).collect(), second_default }
    };
    File { generation: Generation::C, nodes: file.map.nodes.0.into_iter().map(node).collect() }
}

/// The entries of a mapping in their order, with the places of their keys.
#[derive(Debug)]
struct Entries<V>(Vec<(Spanned<String>, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gather<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Gather<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Gather(PhantomData))
    }
}

#[cfg(feature = "schema")]
impl<V: schemars::JsonSchema> schemars::JsonSchema for Entries<V> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <BTreeMap<String, V>>::json_schema(generator)
    }
}

/// The JSON Schema of a bucket map of any generation, from the types that read it.
#[cfg(feature = "schema")]
#[must_use]
pub(super) fn schema() -> serde_json::Value {
    /// A bucket map: which bucket, and there which key, a provider's path belongs to.
    #[derive(schemars::JsonSchema)]
    #[schemars(untagged, title = "Landfall bucket map")]
    #[allow(dead_code, reason = "only its schema is used")]
    enum AnyFile {
        C(FileC),
        B(FileB),
        A(FileA),
    }
    schemars::schema_for!(AnyFile).to_value()
}
