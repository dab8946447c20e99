//! Every rule of the shipped profiles has a document that breaks only it.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::wildcard_enum_match_arm, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_stac::profile::Level;
use landfall_stac::{Action, Dataset, Document, Judge, Judgement, Place, Profile, Schemas, Verdict, bundle_files};
use serde_json::{Value, json};

const COLLECTION: &str = "EO.ABC.DAT.NAME";
const ITEM: &str = "EO.ABC.DAT.NAME_20240517T101500";

fn dedl_collection() -> Value {
    json!({
        "type": "Collection", "stac_version": "1.0.0", "id": COLLECTION, "title": "T", "description": "D",
        "dedl:short_description": "S", "license": "CC-BY-4.0", "keywords": ["Ocean", "User generated"], "stac_extensions": [],
        "extent": {"spatial": {"bbox": [[0, 40, 20, 60]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", "2024-12-31T23:59:59Z"]]}},
        "providers": [
            {"name": "P", "roles": ["producer", "processor", "licensor"], "url": "https://p.example"},
            {"name": "dedl", "roles": ["host"], "url": "https://destination-earth.eu/"}
        ],
        "summaries": {"platform": ["a"]}, "assets": {"thumbnail": {"href": "https://p.example/t.png", "type": "image/png"}},
        "links": [{"rel": "license", "href": "https://p.example/licence", "title": "Licence"}]
    })
}

fn dedl_item() -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": ITEM, "collection": COLLECTION, "stac_extensions": [],
        "geometry": {"type": "Point", "coordinates": [10, 50]}, "bbox": [10, 50, 10, 50],
        "properties": {"datetime": "2024-05-17T10:15:00Z"},
        "links": [{"rel": "collection", "href": "https://hda.example/c"}],
        "assets": {"data": {"href": format!("data/2024/05/17/{ITEM}/a.tif"), "type": "image/tiff"}}
    })
}

fn pds_collection() -> Value {
    json!({
        "type": "Collection", "stac_version": "1.0.0", "id": "urn:nasa:pds:bundle:data", "description": "D", "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", null]]}},
        "providers": [{"name": "PDS Geosciences Node", "roles": ["host"]}], "links": []
    })
}

fn pds_item() -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "urn:nasa:pds:bundle:data:product::1.0",
        "collection": "urn:nasa:pds:bundle:data::1.0", "geometry": null,
        "properties": {"datetime": "2024-05-17T10:15:00Z", "ssys:targets": ["Mars"]},
        "links": [{"rel": "collection", "href": "../collection.json"}], "assets": {"data": {"href": "data/a.img"}}
    })
}

/// What a rule is broken by.
struct Broken {
    profile: &'static str,
    code: &'static str,
    document: Value,
    path: &'static str,
    /// Other documents of the dataset.
    beside: Vec<(&'static str, Value)>,
}

fn with(mut document: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Object(members) if value == &json!("REMOVED") => drop(members.remove(name)),
            Value::Object(members) => drop(members.insert(name.to_owned(), value.clone())),
            Value::Array(values) => values[name.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}"),
        }
    }
    document
}

fn broken() -> Vec<Broken> {
    let host = json!({"name": "dedl", "roles": ["host"], "url": "https://destination-earth.eu/"});
    let others = |roles: Value| json!({"name": "P", "roles": roles, "url": "https://p.example"});
    let collection = |code, changes: &[(&str, Value)]| Broken {
        profile: "dedl-user-generated",
        code,
        document: with(dedl_collection(), changes),
        path: "EO.ABC.DAT.NAME/metadata/collection.json",
        beside: vec![],
    };
    let item = |code, changes: &[(&str, Value)]| Broken {
        profile: "dedl-user-generated",
        code,
        document: with(dedl_item(), changes),
        path: "EO.ABC.DAT.NAME/metadata/items/EO.ABC.DAT.NAME_20240517T101500.json",
        beside: vec![],
    };
    let pds = |code, document, changes: &[(&str, Value)]| Broken {
        profile: "pds",
        code,
        document: with(document, changes),
        path: "stac/i.json",
        beside: vec![],
    };
    let eo = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";
    vec![
        collection("dedl.mandatory", &[("/title", json!(null)), ("/title", json!("REMOVED"))]),
        collection("dedl.short-description", &[("/dedl:short_description", json!("REMOVED"))]),
        collection("dedl.summaries", &[("/summaries", json!("REMOVED"))]),
        collection("dedl.keyword-user-generated", &[("/keywords", json!(["Ocean"]))]),
        collection("dedl.keyword-vocabulary", &[("/keywords/0", json!("ocean"))]),
        collection("dedl.keyword-repeated", &[("/keywords", json!(["Ocean", "Ocean", "User generated"]))]),
        collection("dedl.keyword-junk", &[("/keywords", json!(["none", "User generated"]))]),
        collection("dedl.keyword-comma", &[("/keywords", json!(["Ocean, Global", "User generated"]))]),
        collection("dedl.provider-processor", &[("/providers/0", others(json!(["producer", "licensor"])))]),
        collection("dedl.provider-producer", &[("/providers/0", others(json!(["processor", "licensor"])))]),
        collection("dedl.provider-licensor", &[("/providers/0", others(json!(["producer", "processor"])))]),
        collection("dedl.host", &[("/providers", json!([others(json!(["producer", "processor", "licensor"]))]))]),
        collection("dedl.host-name", &[("/providers/1/name", json!("creodias"))]),
        collection(
            "dedl.host-single",
            &[(
                "/providers",
                json!([others(json!(["producer", "processor", "licensor"])), host, {"name": "x", "roles": ["host"]}]),
            )],
        ),
        collection(
            "dedl.host-last",
            &[("/providers", json!([host, others(json!(["producer", "processor", "licensor"]))]))],
        ),
        collection("dedl.licence-link", &[("/license", json!("proprietary")), ("/links", json!([]))]),
        collection("dedl.link-title", &[("/links/0/title", json!("REMOVED"))]),
        collection("dedl.bbox-range", &[("/extent/spatial/bbox/0", json!([590111.96, 5745470.43, 600000, 5750000]))]),
        collection("dedl.interval-open", &[("/extent/temporal/interval/0", json!([null, null]))]),
        collection(
            "dedl.asset-media-type",
            &[("/assets/thumbnail", json!({"href": "https://p.example/t.png", "media_type": "image/png"}))],
        ),
        collection("dedl.id", &[("/id", json!("EO.ABC.XYZ.NAME"))]).at("metadata/collection.json"),
        collection("dedl.id-new", &[("/id", json!("EO.ABC.DAT.NAME_2"))]).at("metadata/collection.json"),
        collection("dedl.folder-collection", &[]).at("ANOTHER/metadata/collection.json"),
        item("dedl.folder-item", &[]).at("ANOTHER/metadata/items/EO.ABC.DAT.NAME_20240517T101500.json"),
        item("dedl.item-file-name", &[]).at("EO.ABC.DAT.NAME/metadata/items/first.json"),
        item("dedl.item-date", &[("/assets/data/href", json!("data/2024/05/18/x/a.tif"))]),
        item("dedl.item-bbox-range", &[("/bbox", json!([10, 50, 10, 91]))]),
        collection("dedl.extension-unused", &[("/stac_extensions", json!([eo]))]),
        collection("dedl.extension-undeclared", &[("/summaries/eo:bands", json!([{}]))]),
        item("dedl.item-extension-unused", &[("/stac_extensions", json!([eo]))]),
        item("dedl.item-extension-undeclared", &[("/properties/eo:cloud_cover", json!(1))]),
        item("dedl.id-repeated", &[])
            .beside("EO.ABC.DAT.NAME/metadata/collection.json", dedl_collection())
            .beside("EO.ABC.DAT.NAME/metadata/items/other.json", dedl_item()),
        item("dedl.collection-unknown", &[]).beside(
            "EO.ABC.DAT.NAME/metadata/collection.json",
            with(dedl_collection(), &[("/id", json!("EO.ABC.DAT.OTHER"))]),
        ),
        item("dedl.extent", &[("/bbox", json!([10, 50, 21, 50]))])
            .beside("EO.ABC.DAT.NAME/metadata/collection.json", dedl_collection()),
        pds("pds.lid", pds_item(), &[("/id", json!("urn:nasa:pds:bundle:data:Product::1.0"))]),
        pds("pds.collection-lid", pds_collection(), &[("/id", json!("urn:nasa:pds:bundle"))]),
        pds("pds.lid-parent", pds_item(), &[("/collection", json!("urn:nasa:pds:bundle:calibrated::1.0"))]),
        pds("pds.lid-missing", pds_item(), &[("/id", json!("TC1W2B0_01_00123"))]),
        pds("pds.target", pds_item(), &[("/properties/ssys:targets", json!([]))]),
        pds(
            "pds.ssys-url",
            pds_item(),
            &[("/stac_extensions", json!(["https://stac-extensions.github.io/ssys/v1.0.0/schema.json"]))],
        ),
        pds("pds.earth-projection", pds_item(), &[("/properties/proj:code", json!("EPSG:4326"))]),
        pds("pds.licence", pds_collection(), &[("/license", json!("CC-BY-4.0"))]),
        pds("pds.node", pds_collection(), &[("/providers", json!([]))]),
        pds("pds.asset-name", pds_item(), &[("/assets/data/href", json!("data/a%20b.img?x#y"))]),
        pds("pds.id-repeated", pds_item(), &[]).beside("stac/j.json", pds_item()),
    ]
}

impl Broken {
    fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn beside(mut self, path: &'static str, document: Value) -> Self {
        self.beside.push((path, document));
        self
    }
}

fn judge(profile: &Profile, document: &Value, path: &str, beside: &[(&str, Value)]) -> Judgement {
    let texts: Vec<(&str, String)> = beside.iter().map(|(path, document)| (*path, document.to_string())).collect();
    let text = document.to_string();
    let mut dataset = Dataset::default();
    for (path, text) in texts.iter().map(|(path, text)| (*path, text)).chain([(path, &text)]) {
        dataset.note(&Document::read(text.as_bytes()).unwrap().root, path);
    }
    let judge = Judge { schemas: Schemas::none(), profile, today: jiff::civil::date(2026, 1, 1) };
    let dataset = (!beside.is_empty()).then_some(&dataset);
    judge.judge(text.as_bytes(), Place { path: Some(path), dataset, ..Place::default() })
}

/// The codes of the profile's own rules that a judgement names.
fn codes(judgement: &Judgement) -> BTreeSet<String> {
    let all = judgement.findings.iter().chain(&judgement.warnings);
    all.map(|problem| problem.code.to_string()).filter(|code| !code.starts_with("stac.")).collect()
}

#[test]
fn each_rule_has_a_document_that_breaks_only_it() {
    let mut wrong = Vec::new();
    for Broken { profile, code, document, path, beside } in broken() {
        let profile = Profile::shipped(profile).unwrap();
        let judgement = judge(&profile, &document, path, &beside);
        let expected = BTreeSet::from([code.to_owned()]);
        if codes(&judgement) != expected {
            wrong.push(format!(
                "{code}: {:?}",
                judgement.findings.iter().chain(&judgement.warnings).collect::<Vec<_>>()
            ));
            continue;
        }
        let rule = profile.rules.iter().find(|rule| rule.code.as_str() == code).unwrap();
        let is_refused = judgement.findings.iter().any(|finding| finding.code.as_str() == code);
        assert_eq!(is_refused, rule.action == Action::Reject, "{code}");
        assert_eq!(judgement.patched.is_some(), rule.action == Action::Patch, "{code}");
        assert!(rule.source.is_some(), "{code}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_among_them_and_the_good_documents_break_none() {
    let broken: BTreeSet<_> = broken().into_iter().map(|one| one.code.to_owned()).collect();
    for (name, documents) in [
        (
            "dedl-user-generated",
            [
                (dedl_collection(), "EO.ABC.DAT.NAME/metadata/collection.json"),
                (dedl_item(), "EO.ABC.DAT.NAME/metadata/items/EO.ABC.DAT.NAME_20240517T101500.json"),
            ],
        ),
        ("pds", [(pds_collection(), "stac/c.json"), (pds_item(), "stac/i.json")]),
    ] {
        let profile = Profile::shipped(name).unwrap();
        // Names are judged where a folder is walked: see below.
        let untested: Vec<_> = profile
            .rules
            .iter()
            .map(|rule| rule.code.to_string())
            .filter(|code| !broken.contains(code) && code != "pds.names")
            .collect();
        assert_eq!(untested, [""; 0], "{name}");
        for (document, path) in documents {
            let judgement = judge(&profile, &document, path, &[("metadata/collection.json", dedl_collection())]);
            let is_found = |code: &String| code != "dedl.id-repeated";
            assert_eq!(
                codes(&judgement).into_iter().filter(is_found).collect::<Vec<_>>(),
                [""; 0],
                "{path}: {judgement:?}"
            );
        }
    }
}

#[test]
fn names_of_files_and_folders_are_judged() {
    let profile = Profile::shipped("pds").unwrap();
    let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let check = |path: &str, folds_with: Option<&str>, expected: &[&str]| {
        let found = judge.judge_name(path, folds_with);
        assert_eq!(found.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>(), expected, "{path}");
    };
    check("gbo.ast.survey/data_raw/a-1.fits", None, &[]);
    check("core.vmac", None, &[]);
    check("bundle/data/a b.fits", None, &["pds.names"]);
    check("bundle/data/.DS_Store", None, &["pds.names"]);
    check("bundle/data.raw/a.fits", None, &["pds.names"]);
    check("bundle/NUL/a.fits", None, &["pds.names"]);
    check("bundle/data/a.OUT", None, &["pds.names"]);
    check(&format!("bundle/{}", "x".repeat(256)), None, &["pds.names"]);
    check("bundle/data/A.fits", Some("bundle/data/a.fits"), &["pds.names"]);
}

#[test]
fn a_waiver_holds_until_its_day() {
    let own = r#"
inherits: dedl-user-generated
rules:
  - {code: dedl.summaries, level: collection, action: reject}
waivers:
  - {code: dedl.summaries, collection: EO.ABC.DAT.NAME, until: 2026-06-30, reason: "ticket 42"}
"#;
    let files = |name: &str| if name == "own.yaml" { Ok(own.to_owned()) } else { Err("none".to_owned()) };
    let profile = Profile::read("own", &files).unwrap();
    let text = with(dedl_collection(), &[("/summaries", json!("REMOVED"))]).to_string();
    let verdict = |year, month, day| {
        let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(year, month, day) };
        let judgement = judge.judge(text.as_bytes(), Place::default());
        let told =
            judgement.warnings.iter().any(|warning| warning.message.contains("waived until 2026-06-30: ticket 42"));
        (matches!(judgement.verdict, Verdict::Valid(_)), told)
    };
    assert_eq!(verdict(2026, 6, 30), (true, true));
    assert_eq!(verdict(2026, 7, 1), (false, false));
}

#[test]
fn a_profile_that_cannot_be_used_says_why() {
    let check = |text: &str, expected: &str| {
        let files = |name: &str| match name {
            "own.yaml" => Ok(text.to_owned()),
            "loop.yaml" => Ok("inherits: own".to_owned()),
            _ => Err("it is not there".to_owned()),
        };
        let error = Profile::read("own", &files).unwrap_err();
        let mut said = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            said.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(said.contains(expected), "{text}: {said}");
    };
    let rule = |body: &str| format!("rules: [{{code: own.rule, level: collection, action: warn, {body}}}]");
    check("inherits: [", "cannot be understood");
    check("inherits: nobody", "no profile \"nobody\"");
    check("inherits: loop", "inherits from itself");
    check("findings: {iri: patch}", "cannot be patched");
    check("findings: {spelling: warn}", "spelling");
    check("metadata: ['a[']", "own");
    check("rules: [{code: stac.schema, level: item, action: warn, check: {id: x}}]", "Landfall does not use itself");
    check("rules: [{code: NoDots, level: item, action: warn, check: {id: x}}]", "dotted name");
    check("rules: [{code: own.rule, level: item, action: warn}]", "no `check`");
    check("rules: [{code: own.rule, level: item, action: patch, check: {id: x}}]", "cannot be patched");
    check(&rule("check: {file-name-is-id: true}"), "is for items");
    check(&rule("check: {role: {role: host, max: 1, names: [a]}}"), "takes one of");
    check(&rule("check: {schema: {$schema: 'https://json-schema.org/draft/2020-12/schema'}}"), "draft 7 is read");
    check("findings: {character-nul: warn}", "always rejected");
    let twice = "{code: own.rule, level: collection, action: warn, check: {present: [a]}}";
    check(&format!("rules: [{twice}, {twice}]"), "stands twice");
    check("inherits: pds\nwaivers: [{code: pds.names, collection: c, until: 2026-01-01, reason: x}]", "about names");
    check(&rule("check: {keywords-distinct: false}"), "only `true` is taken");
    check(&rule("check: {id: '('}"), "regular expression");
    check(&rule("check: {schema: {type: 7}}"), "does not compile");
    check(&rule("check: {schema: {$ref: 'https://a.example/x'}}"), "does not compile");
    check(&rule("check: {vocabulary: none.txt}"), "cannot be read");
    check(&rule("check: {vocabulary: ../../etc/passwd}"), "only plain file names");
    check(
        "inherits: dedl-user-generated\nwaivers: [{code: own.none, collection: c, until: 2026-01-01, reason: x}]",
        "none of its rules",
    );
}

/// Samples of the DestinE Data Lake lie beside the project and are not part of it.
fn samples() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures");
    if folder.join("dedl").is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: the samples of the DestinE Data Lake are not beside the project ({})", folder.display());
    None
}

#[test]
fn the_counts_over_live_collections_are_those_that_were_measured() {
    let Some(samples) = samples() else { return };
    let schemas = Schemas::new(bundle_files::read(&samples.join("schemas")).unwrap());
    let profile = Profile::shipped("dedl-user-generated").unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut documents = 0;
    for entry in std::fs::read_dir(samples.join("dedl/hda-collections")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let judgement = judge.judge(&bytes, Place::default());
        documents += 1;
        let mut found = codes(&judgement);
        let repeated = |problem: &landfall_events::Problem| {
            problem.pointer == "/stac_extensions" && problem.keyword.as_deref() == Some("uniqueItems")
        };
        found.extend(judgement.findings.iter().any(repeated).then(|| "an extension declared twice".to_owned()));
        found.into_iter().for_each(|code| *counts.entry(code).or_default() += 1);
    }
    assert_eq!(documents, 105);
    let expected = [
        ("dedl.keyword-user-generated", 105),
        ("dedl.id-new", 74),
        ("dedl.link-title", 72),
        ("dedl.short-description", 46),
        ("dedl.host-single", 54),
        ("dedl.host-name", 51),
        ("dedl.summaries", 50),
        ("dedl.host", 33),
        ("dedl.provider-licensor", 17),
        ("dedl.licence-link", 13),
        ("dedl.keyword-junk", 9),
        ("an extension declared twice", 7),
        ("dedl.asset-media-type", 5),
        ("dedl.keyword-repeated", 2),
        ("dedl.bbox-range", 1),
        ("dedl.interval-open", 1),
    ];
    for (code, expected) in expected {
        assert_eq!(counts.get(code).copied().unwrap_or_default(), expected, "{code} of {counts:?}");
    }
}

#[test]
fn the_template_of_users_passes_with_its_two_patches() {
    let Some(samples) = samples() else { return };
    let schemas = Schemas::new(bundle_files::read(&samples.join("schemas")).unwrap());
    let profile = Profile::shipped("dedl-user-generated").unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let template = samples.join("dedl/usergenerated-template");
    let bytes = std::fs::read(template.join("metadata/collection.json")).unwrap();
    let judgement = judge.judge(&bytes, Place { path: Some("metadata/collection.json"), ..Place::default() });
    assert!(matches!(judgement.verdict, Verdict::Valid(_)), "{judgement:?}");
    let patched: BTreeSet<_> =
        judgement.warnings.iter().filter(|warning| warning.patched).map(|warning| warning.code.to_string()).collect();
    assert_eq!(patched, BTreeSet::from(["dedl.host".to_owned(), "dedl.keyword-user-generated".to_owned()]));
    let after: Value = serde_json::from_str(judgement.patched.as_deref().unwrap()).unwrap();
    assert_eq!(after["keywords"].as_array().unwrap().last(), Some(&json!("User generated")));
    assert_eq!(after["providers"].as_array().unwrap().last().unwrap()["roles"], json!(["host"]));
    assert!(
        profile.is_ignored("metadata/collection_config.json")
            && profile.is_ignored("data/2024/11/17/x/item_config.json")
    );
    assert!(profile.rules.iter().any(|rule| rule.level == Level::Tree));
}
