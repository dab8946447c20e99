//! The rules of core STAC, compiled when they are first needed and shared by all threads.
//!
//! They are written for this project, from the specification; a fuzz target and the tests hold them against the
//! published schemas.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::representation::Dom;

/// A version of STAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V100,
    V110,
}

impl Version {
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            "1.0.0" => Some(Self::V100),
            "1.1.0" => Some(Self::V110),
            _ => None,
        }
    }
}

/// A kind of STAC document that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Definition {
    Item,
    Collection,
    Catalog,
}

impl Definition {
    pub(crate) fn of(kind: &str) -> Option<Self> {
        match kind {
            "Feature" => Some(Self::Item),
            "Collection" => Some(Self::Collection),
            "Catalog" => Some(Self::Catalog),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Collection => "collection",
            Self::Catalog => "catalog",
        }
    }
}

/// Where the rules of a kind of document are published.
pub(crate) fn published(version: Version, definition: Definition) -> &'static str {
    match (version, definition) {
        (Version::V100, Definition::Item) => "https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/item.json",
        (Version::V100, Definition::Collection) => {
            "https://schemas.stacspec.org/v1.0.0/collection-spec/json-schema/collection.json"
        }
        (Version::V100, Definition::Catalog) => {
            "https://schemas.stacspec.org/v1.0.0/catalog-spec/json-schema/catalog.json"
        }
        (Version::V110, Definition::Item) => "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json",
        (Version::V110, Definition::Collection) => {
            "https://schemas.stacspec.org/v1.1.0/collection-spec/json-schema/collection.json"
        }
        (Version::V110, Definition::Catalog) => {
            "https://schemas.stacspec.org/v1.1.0/catalog-spec/json-schema/catalog.json"
        }
    }
}

/// The schema by which core STAC is judged, as plain JSON Schema (draft 7), for a `stac_version` and a `type`.
/// Coordinates are checked in code, and are not in it.
#[must_use]
pub fn core_schema(version: &str, kind: &str) -> Option<Value> {
    Some(schema(Version::read(version)?, Definition::of(kind)?))
}

/// The schema of a kind of document, whole.
fn schema(version: Version, definition: Definition) -> Value {
    let source = match version {
        Version::V100 => include_str!("../schemas/stac-1.0.0.json"),
        Version::V110 => include_str!("../schemas/stac-1.1.0.json"),
    };
    let mut schema: Value = serde_json::from_str(source).expect("the schema is JSON, and a test compiles it");
    schema["allOf"] = json!([{"$ref": format!("#/definitions/{}", definition.name())}]);
    schema
}

/// The compiled rules of a kind of document.
pub(crate) fn validator(version: Version, definition: Definition) -> &'static Validator<Dom> {
    static VALIDATORS: [[OnceLock<Validator<Dom>>; 3]; 2] = [const { [const { OnceLock::new() }; 3] }; 2];
    VALIDATORS[version as usize][definition as usize].get_or_init(|| {
        let schema = schema(version, definition);
        crate::schemas::options().build(&schema).expect("the schema is valid, and a test compiles it")
    })
}
