//! What the fuzz targets do; the tests replay the corpus through the same.
//!
//! `LANDFALL_SCHEMAS` names a bundle or a mirror of published schemas; without it, an extension of our own is used
//! and core STAC is held against our own schemas.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::{Draft, Registry, Validator};
use landfall_stac::{Bundle, Judge, Locked, Place, Profile, Schemas, Status, bundle_files, core_schema};
use serde_json::{Value, json};

/// An extension of our own, built as published ones are.
const ORBIT: &str = "https://schemas.landfall.example/orbit/v1.0.0/schema.json";

fn orbit() -> Value {
    json!({
        "oneOf": [
            {"allOf": [
                {"required": ["type", "properties", "assets"], "properties": {
                    "type": {"const": "Feature"},
                    "properties": {"allOf": [{"required": ["orbit:number"]}, {"$ref": "#/definitions/fields"}]},
                    "assets": {"additionalProperties": {"$ref": "#/definitions/fields"}}
                }},
                {"$ref": "#/definitions/declared"}
            ]},
            {"allOf": [{"properties": {"type": {"const": "Collection"}}}, {"$ref": "#/definitions/declared"}]}
        ],
        "definitions": {
            "declared": {"required": ["stac_extensions"], "properties": {"stac_extensions": {"contains": {"const": ORBIT}}}},
            "fields": {
                "properties": {
                    "orbit:number": {"type": "integer", "minimum": 1},
                    "orbit:seen": {"type": "string", "format": "date-time"},
                    "orbit:planets": {"type": "array", "uniqueItems": true, "items": {"enum": ["Mars", 1, {"a": [1.0, null]}]}}
                },
                "patternProperties": {"^(?!orbit:)": {}},
                "additionalProperties": false
            }
        }
    })
}

struct World {
    schemas: Schemas,
    /// The same schemas under the plain engine, as they are published.
    plain: BTreeMap<String, Validator>,
    core: BTreeMap<(String, String), Validator>,
    /// Whether core STAC is judged as it is published. Our own schemas leave coordinates to code.
    published: bool,
    /// Documents that mutations start from.
    seeds: Vec<Value>,
    /// Names and values that the schemas speak of.
    words: Vec<Value>,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fn plain(registry: &Registry<'_>, url: &str, schema: &Value) -> Option<Validator> {
    let options = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true);
    options.with_registry(registry).with_base_uri(url).offline().build(schema).ok()
}

impl World {
    fn new() -> Self {
        let mut bundle = match std::env::var("LANDFALL_SCHEMAS") {
            Ok(path) => bundle_files::read(Path::new(&path)).expect("LANDFALL_SCHEMAS names a bundle or a mirror"),
            Err(_) => Bundle::default(),
        };
        let locked = Locked {
            url: ORBIT.into(),
            sha256: None,
            licence: String::new(),
            status: Status::Good,
            of: None,
            note: None,
        };
        bundle.insert(locked, Some(orbit().to_string())).expect("nothing is locked");
        let schemas = Schemas::new(bundle.clone());
        let unusable = schemas.verify();
        let texts: BTreeMap<String, Value> = bundle
            .entries()
            .filter(|(locked, _)| !unusable.contains_key(&locked.url))
            .filter_map(|(locked, text)| {
                let mut schema: Value = serde_json::from_str(text?).ok()?;
                schema["$id"] = locked.url.as_str().into();
                Some((locked.url.clone(), schema))
            })
            .collect();
        let mut registry = Registry::new().draft(Draft::Draft7);
        for (url, schema) in &texts {
            registry = registry.add(url, schema.clone()).expect("a usable schema has a usable URL");
        }
        let registry = registry.prepare().expect("usable schemas can be registered");
        let plain_all =
            texts.iter().filter_map(|(url, schema)| Some((url.clone(), plain(&registry, url, schema)?))).collect();
        let (mut core, mut all_published) = (BTreeMap::new(), true);
        for version in ["1.0.0", "1.1.0"] {
            for (kind, name) in [("Feature", "item"), ("Collection", "collection"), ("Catalog", "catalog")] {
                let url = format!("https://schemas.stacspec.org/v{version}/{name}-spec/json-schema/{name}.json");
                let own = core_schema(version, kind).expect("both versions have all kinds");
                let published = texts.get(&url).and_then(|schema| plain(&registry, &url, schema));
                all_published &= published.is_some();
                let validator = published.or_else(|| plain(&registry, "urn:own", &own)).expect("core schemas compile");
                core.insert((version.to_owned(), kind.to_owned()), validator);
            }
        }
        let extensions: Vec<String> = texts
            .keys()
            .filter(|url| !url.contains("schemas.stacspec.org") && !url.contains("geojson.org"))
            .cloned()
            .collect();
        let mut words: Vec<Value> = vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(1e300),
            json!(""),
            json!("x"),
            json!([]),
            json!({}),
            json!("2024-05-17T10:15:00Z"),
            json!("2024-05-17 10:15:00Z"),
            json!("2024-02-30T00:00:00Z"),
            json!("2024-05-17T10:15:00+02:00"),
            json!("2024-05-17t10:15:00z"),
            json!("https://a.example/x"),
            json!("../x"),
            json!("a b{c}\\"),
            json!([0, 0]),
            json!([[0, 0], [1, 1]]),
            json!([[[0, 0], [1, 0], [1, 1], [0, 0]]]),
            json!([0, 0, 1, 1]),
            json!([0, 0, 0, 1, 1, 1]),
            json!({"a": 1}),
            json!([1, 1.0]),
            json!(["producer"]),
        ];
        words.extend(extensions.iter().map(|url| json!(url)));
        texts.values().for_each(|schema| collect(schema, &mut words));
        for version in ["1.0.0", "1.1.0"] {
            for kind in ["Feature", "Collection", "Catalog"] {
                collect(&core_schema(version, kind).expect("both versions have all kinds"), &mut words);
            }
        }
        words.sort_by_key(Value::to_string);
        words.dedup();
        Self { schemas, plain: plain_all, core, published: all_published, seeds: seeds(), words }
    }
}

/// Names and values that a schema speaks of.
fn collect(schema: &Value, words: &mut Vec<Value>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("const", value) => words.push(value.clone()),
                    ("enum", Value::Array(values)) => words.extend(values.iter().cloned()),
                    ("properties", Value::Object(properties)) => {
                        words.extend(properties.keys().map(|name| json!(name)))
                    }
                    _ => {}
                }
                collect(value, words);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, words)),
        _ => {}
    }
}

fn seeds() -> Vec<Value> {
    let item = |version: &str| {
        json!({
            "type": "Feature", "stac_version": version, "id": "i", "collection": "c",
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}, "bbox": [0, 0, 1, 1],
            "properties": {"datetime": "2024-05-17T10:15:00Z", "providers": [{"name": "p", "roles": ["host"]}], "orbit:number": 1, "gsd": 10},
            "links": [{"rel": "collection", "href": "https://a.example/c"}, {"rel": "self", "href": "https://a.example/i", "type": "application/json"}],
            "assets": {"data": {"href": "data/a.tif", "roles": ["data"], "orbit:planets": ["Mars", 1]}},
            "stac_extensions": [ORBIT]
        })
    };
    let collection = |version: &str| {
        json!({
            "type": "Collection", "stac_version": version, "id": "c", "title": "t", "description": "d", "license": "CC-BY-4.0", "keywords": ["k"],
            "providers": [{"name": "p", "roles": ["host"], "url": "https://a.example"}],
            "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", null]]}},
            "summaries": {"gsd": {"minimum": 1, "maximum": 2}, "platform": ["a"]}, "assets": {"t": {"href": "t.png"}},
            "links": [{"rel": "self", "href": "https://a.example/c"}], "stac_extensions": [ORBIT]
        })
    };
    let catalog =
        |version: &str| json!({"type": "Catalog", "stac_version": version, "id": "k", "description": "d", "links": []});
    let mut seeds = Vec::new();
    for version in ["1.0.0", "1.1.0"] {
        seeds.extend([item(version), collection(version), catalog(version)]);
    }
    seeds
}

/// The input, read as choices.
struct Choices<'d>(&'d [u8]);

impl Choices<'_> {
    fn next(&mut self) -> Option<usize> {
        let (bytes, rest) = self.0.split_at_checked(2)?;
        self.0 = rest;
        Some(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let choice = self.next()?;
        list.get(choice % list.len().max(1))
    }
}

/// Makes a document: a seed, and up to twelve mutations.
fn made(data: &[u8]) -> Option<Value> {
    let mut choices = Choices(data);
    let mut document = choices.pick(&WORLD.seeds)?.clone();
    for _ in 0..12 {
        let Some(()) = mutate(&mut document, &mut choices) else { break };
    }
    Some(document)
}

fn mutate(document: &mut Value, choices: &mut Choices<'_>) -> Option<()> {
    let mut places = Vec::new();
    pointers(document, &mut String::new(), &mut places);
    let place = choices.pick(&places)?.clone();
    let kind = choices.next()? % 6;
    let word = choices.pick(&WORLD.words)?.clone();
    let target = document.pointer_mut(&place)?;
    match (kind, target) {
        (0, target) => *target = word,
        (1, Value::Object(members)) => {
            let value = choices.pick(&WORLD.words)?.clone();
            members.insert(word.as_str().unwrap_or("x").to_owned(), value);
        }
        (1, Value::Array(values)) => values.push(word),
        (2, Value::Object(members)) => {
            let names: Vec<String> = members.keys().cloned().collect();
            members.remove(choices.pick(&names)?);
        }
        (2, Value::Array(values)) if !values.is_empty() => {
            let index = choices.next()? % values.len();
            values.remove(index);
        }
        (3, Value::Array(values)) if !values.is_empty() => {
            let value = values[choices.next()? % values.len()].clone();
            values.push(value);
        }
        (4, Value::Object(members)) => {
            let names: Vec<String> = members.keys().cloned().collect();
            let value = members.remove(choices.pick(&names)?)?;
            members.insert(word.as_str().unwrap_or("x").to_owned(), value);
        }
        // An extension, declared.
        (5, _) => {
            let urls: Vec<&String> = WORLD.plain.keys().collect();
            let url = (*choices.pick(&urls)?).clone();
            if let Some(declared) = document.get_mut("stac_extensions").and_then(Value::as_array_mut) {
                declared.push(url.into());
            }
        }
        _ => {}
    }
    Some(())
}

fn pointers(value: &Value, pointer: &mut String, places: &mut Vec<String>) {
    places.push(pointer.clone());
    let length = pointer.len();
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(values) => values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => return,
    };
    for (step, value) in children {
        pointer.push('/');
        pointer.push_str(&step);
        pointers(value, pointer, places);
        pointer.truncate(length);
    }
}

/// The verdict of the plain schema engine; `None` where it is not for it to say.
fn plain_verdict(document: &Value) -> Option<bool> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let core = WORLD.core.get(&(text("stac_version")?, text("type")?))?;
    let mut valid = core.is_valid(document);
    for url in document.get("stac_extensions").and_then(Value::as_array).into_iter().flatten() {
        let Some(url) = url.as_str() else { continue };
        // What is not known is no schema's matter, and what ends in `#` is looked up without it.
        valid &= WORLD.plain.get(url)?.is_valid(document);
    }
    Some(valid)
}

/// Holds the verdict under `strict` against that of the plain schema engine: of a document made from `data`, and of
/// `data` itself where it is a JSON document.
///
/// # Panics
/// Where they differ.
pub fn differential(data: &[u8]) {
    let documents = [made(data), serde_json::from_slice(data).ok()];
    for document in documents.into_iter().flatten() {
        let text = document.to_string();
        // PostgreSQL's limit, not a schema's.
        if text.contains("\\u0000") {
            continue;
        }
        let Some(expected) = plain_verdict(&document) else { continue };
        let judgement = judge("strict").judge(text.as_bytes(), Place::default());
        let by_hand = judgement.findings.iter().any(|finding| finding.code.as_str() == "stac.geometry");
        if by_hand && !WORLD.published {
            continue;
        }
        assert_eq!(judgement.verdict.word() == "valid", expected, "{text}\n{judgement:#?}");
    }
}

fn judge(profile: &str) -> Judge<'static> {
    static PROFILES: LazyLock<BTreeMap<String, std::sync::Arc<Profile>>> = LazyLock::new(|| {
        let names = Profile::shipped_names().into_iter();
        names.map(|name| (name.to_owned(), Profile::shipped(name).expect("it ships"))).collect()
    });
    Judge { schemas: &WORLD.schemas, profile: &PROFILES[profile], today: jiff::civil::date(2026, 1, 1) }
}

/// Judges arbitrary bytes as a file, under every profile: nothing panics, findings stay within their bounds, and what
/// was mended is valid and needs no more mending.
///
/// # Panics
/// Where one of these does not hold.
pub fn bytes(data: &[u8]) {
    let made = made(data).map(|document| document.to_string().into_bytes());
    for bytes in [Some(data.to_vec()), made].into_iter().flatten() {
        for profile in Profile::shipped_names() {
            for name in ["x.json", "x.ndjson"] {
                let judge = judge(profile);
                let place = Place { path: Some("c/metadata/items/x.json"), ..Place::default() };
                let judged = judge.judge_file(name, &bytes, place, None);
                for (number, judgement) in judged.judgements() {
                    check(&judge, judgement, number.is_some());
                }
            }
        }
    }
    let reads = serde_json::from_slice::<Value>(data).is_ok();
    assert_eq!(reads, landfall_stac::Document::read(data).is_ok(), "readers of JSON agree: {data:?}");
}

fn check(judge: &Judge<'_>, judgement: &landfall_stac::Judgement, is_member: bool) {
    for list in [&judgement.findings, &judgement.warnings] {
        let bytes = serde_json::to_string(list).expect("problems are plain data").len();
        assert!(list.len() <= 16 && bytes <= 8 * 1024 + 64, "{} in {bytes} bytes", list.len());
    }
    assert_eq!(judgement.verdict.word() == "valid", judgement.findings.is_empty());
    if let Some(patched) = &judgement.patched {
        let place = Place { path: Some("c/metadata/items/x.json"), is_member, ..Place::default() };
        let again = judge.judge(patched.as_bytes(), place);
        assert_eq!(again.verdict, judgement.verdict, "{patched}");
        assert_eq!(again.patched, None, "{patched}");
    }
}
