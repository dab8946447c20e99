use landfall_events::Problem;
use serde_json::{Value, json};

use super::*;

/// An extension of our own, built as published ones are: one branch for items, one for collections.
pub(crate) const ORBIT: &str = "https://schemas.landfall.example/orbit/v1.0.0/schema.json";

pub(crate) fn orbit() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://somewhere.else.example/orbit.json",
        "oneOf": [
            {"allOf": [
                {"required": ["type", "properties"],
                 "properties": {"type": {"const": "Feature"}, "properties": {"$ref": "#/definitions/fields"}}},
                {"$ref": "#/definitions/declared"}
            ]},
            {"allOf": [
                {"required": ["type", "orbit:planet"], "properties": {"type": {"const": "Collection"}}},
                {"$ref": "#/definitions/declared"}
            ]}
        ],
        "definitions": {
            "declared": {"required": ["stac_extensions"], "properties": {"stac_extensions": {"type": "array", "contains": {"const": ORBIT}}}},
            "fields": {
                "properties": {"orbit:number": {"type": "integer", "minimum": 1}, "orbit:seen": {"type": "string", "format": "date-time"}},
                "patternProperties": {"^(?!orbit:)": {}},
                "additionalProperties": false
            }
        }
    })
}

fn bundle(texts: &[(&str, String)]) -> Bundle {
    let mut bundle = Bundle::default();
    for (url, text) in texts {
        let locked = Locked {
            url: (*url).into(),
            sha256: Some(schemas::sha256(text.as_bytes())),
            licence: "CC0-1.0".into(),
            status: Status::Good,
            of: None,
            note: None,
        };
        bundle.insert(locked, Some(text.clone())).unwrap();
    }
    bundle
}

fn item() -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "i", "collection": "c",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
        "bbox": [0, 0, 1, 1],
        "properties": {"datetime": "2024-05-17T10:15:00Z"},
        "links": [{"rel": "collection", "href": "../collection.json"}],
        "assets": {"data": {"href": "data/a.tif"}}
    })
}

fn judged(item: &Value, profile: &str) -> Judgement {
    judged_by(&Schemas::new(bundle(&[(ORBIT, orbit().to_string())])), item, profile)
}

fn judged_by(schemas: &Schemas, item: &Value, profile: &str) -> Judgement {
    let profile = Profile::shipped(profile).unwrap();
    let judge = Judge { schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    judge.judge(item.to_string().as_bytes(), Place::default())
}

fn places(problems: &[Problem]) -> Vec<(&str, &str)> {
    problems.iter().map(|problem| (problem.code.as_str(), problem.pointer.as_str())).collect()
}

#[track_caller]
fn check(item: &Value, profile: &str, word: &str, findings: &[(&str, &str)], warnings: &[(&str, &str)]) {
    let judgement = judged(item, profile);
    assert_eq!(judgement.verdict.word(), word, "{judgement:?}");
    assert_eq!(places(&judgement.findings), findings);
    assert_eq!(places(&judgement.warnings), warnings);
}

#[track_caller]
fn check_changed(pointer: &str, value: Value, findings: &[(&str, &str)]) {
    let mut changed = item();
    *changed.pointer_mut(pointer).unwrap() = value;
    check(&changed, "ingest", if findings.is_empty() { "valid" } else { "invalid" }, findings, &[]);
}

#[test]
fn a_good_item_is_valid_with_its_ids() {
    let judgement = judged(&item(), "strict");
    assert_eq!(judgement.verdict, Verdict::Valid(Kind::Item { collection: Some("c".into()), id: "i".into() }));
    assert_eq!((judgement.findings.len(), judgement.warnings.len(), judgement.patched), (0, 0, None));
}

#[test]
fn each_problem_names_its_place() {
    check_changed("/id", json!(""), &[("stac.schema", "/id")]);
    check_changed("/properties/datetime", json!("yesterday"), &[("stac.datetime", "/properties/datetime")]);
    check_changed("/assets/data/href", json!(7), &[("stac.schema", "/assets/data/href")]);
    check_changed("/bbox", json!([0, 0, 1]), &[("stac.schema", "/bbox")]);
    check_changed("/id", json!("a\u{0}b"), &[("stac.nul", "/id")]);
}

#[test]
fn a_finding_says_what_was_expected_what_was_found_and_what_to_do() {
    let mut changed = item();
    changed["properties"]["orbit:number"] = json!("first");
    changed["stac_extensions"] = json!([ORBIT]);
    let judgement = judged(&changed, "strict");
    assert_eq!(judgement.findings.len(), 1, "{judgement:?}");
    let Problem { pointer, message, hint, rule, keyword, expected, value, .. } = &judgement.findings[0];
    assert_eq!(pointer, "/properties/orbit:number");
    assert_eq!(message, "this is a string, not an integer");
    assert_eq!(expected.as_deref(), Some("an integer"));
    assert_eq!(value.as_deref(), Some("\"first\""));
    assert_eq!((rule.as_deref(), keyword.as_deref()), (Some(ORBIT), Some("type")));
    assert_eq!(hint.as_deref(), Some("make it an integer"));
}

#[test]
fn the_branch_that_was_meant_is_told() {
    let mut changed = item();
    changed["stac_extensions"] = json!([ORBIT]);
    check(&changed, "strict", "valid", &[], &[]);
    changed["properties"]["orbit:planet"] = json!("Mars");
    check(&changed, "strict", "invalid", &[("stac.schema", "/properties")], &[]);
    assert!(judged(&changed, "strict").findings[0].message.contains("orbit:planet"));
    check(&changed, "core", "valid", &[], &[]);
    changed["properties"] =
        json!({"datetime": "2024-05-17T10:15:00Z", "orbit:number": 0, "orbit:seen": "2024-05-17 10:15:00Z"});
    check(
        &changed,
        "strict",
        "invalid",
        &[("stac.schema", "/properties/orbit:number"), ("stac.schema", "/properties/orbit:seen")],
        &[],
    );
    changed["properties"]["orbit:number"] = json!(1);
    check(&changed, "ingest", "valid", &[], &[("stac.schema", "/properties/orbit:seen")]);
}

#[test]
fn geometry_is_checked_by_hand() {
    let place = "/geometry/coordinates";
    check_changed(
        place,
        json!([[[0, 0], [1, 0], [1, 1], ["x", 0]]]),
        &[("stac.geometry", "/geometry/coordinates/0/3")],
    );
    check_changed("/geometry/type", json!("Blob"), &[("stac.schema", "/geometry/type")]);
    let mut open = item();
    open["geometry"]["coordinates"] = json!([[[0.5, 0], [1, 0], [1, 1], [0, 2]]]);
    check(&open, "strict", "valid", &[], &[("stac.geometry", "/geometry/coordinates/0")]);
    let judgement = judged(&open, "ingest");
    let patched: Value = serde_json::from_str(judgement.patched.as_deref().unwrap()).unwrap();
    assert!(judgement.warnings[0].patched);
    open["geometry"]["coordinates"] = json!([[[0.5, 0], [1, 0], [1, 1], [0, 2], [0.5, 0]]]);
    assert_eq!(patched, open);
}

#[test]
fn what_no_schema_says_is_a_warning() {
    let mut changed = item();
    changed["properties"] =
        json!({"datetime": null, "start_datetime": "2024-05-17T00:00:00Z", "end_datetime": "2024-05-16T00:00:00Z"});
    check(&changed, "strict", "valid", &[], &[("stac.datetime", "/properties/start_datetime")]);
    let mut changed = item();
    changed["bbox"] = json!([0, 2, 1, 1]);
    check(&changed, "strict", "valid", &[], &[("stac.geometry", "/bbox")]);
}

#[test]
fn ingest_adds_a_missing_collection_link() {
    let mut unlinked = item();
    unlinked["collection"] = json!("c/d e");
    unlinked["links"] = json!([]);
    check(&unlinked, "strict", "invalid", &[("stac.collection-link", "/links")], &[]);
    let judgement = judged(&unlinked, "ingest");
    assert!(judgement.warnings[0].patched);
    let patched: Value = serde_json::from_str(judgement.patched.as_deref().unwrap()).unwrap();
    assert_eq!(patched["links"], json!([{"rel": "collection", "href": "../../c%2Fd%20e", "type": "application/json"}]));
    let mut free = unlinked;
    free.as_object_mut().unwrap().remove("collection");
    check(&free, "strict", "valid", &[], &[]);
    check(&free, "ingest", "valid", &[], &[("stac.collection-missing", "/collection")]);
}

#[test]
fn trouble_with_a_schema_is_never_the_documents() {
    let mut changed = item();
    let locked = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";
    changed["stac_extensions"] = json!([locked]);
    check(&changed, "strict", "unusable", &[("stac.schema-unusable", "/stac_extensions/0")], &[]);
    changed["stac_extensions"] = json!([locked, "https://x.example/"]);
    assert_eq!(judged(&changed, "strict").verdict, Verdict::ExtensionUnknown);
    let broken = [
        (ORBIT, r#"{"properties":"none"}"#.to_owned()),
        ("https://a.example/1", "[]".to_owned()),
        ("https://a.example/2", "{".to_owned()),
        ("https://a.example/3", r##"{"$ref":"#/definitions/none"}"##.to_owned()),
        ("https://a.example/4", r#"{"$ref":"https://a.example/none"}"#.to_owned()),
        ("https://a.example/5", r#"{"$ref":"https://a.example/4"}"#.to_owned()),
        ("https://a.example/6", r#"{"$ref":"file:///etc/passwd"}"#.to_owned()),
        ("https://a.example/7", r#"{"pattern":"("}"#.to_owned()),
        ("https://a.example/8", r#"{"required":["id"]}"#.to_owned()),
    ];
    let schemas = Schemas::new(bundle(&broken));
    assert_eq!(schemas.verify().len(), broken.len() - 1, "{:?}", schemas.verify());
    for (url, _) in &broken[..broken.len() - 1] {
        changed["stac_extensions"] = json!([url]);
        let judgement = judged_by(&schemas, &changed, "strict");
        assert_eq!(judgement.verdict, Verdict::Unusable, "{url}");
    }
    changed["stac_extensions"] = json!(["https://a.example/8"]);
    assert_eq!(judged_by(&schemas, &changed, "strict").verdict.word(), "valid");
}

#[test]
fn an_extension_is_looked_up_by_its_exact_url() {
    let mut changed = item();
    changed["stac_extensions"] = json!([format!("{ORBIT}#")]);
    check(&changed, "ingest", "valid", &[], &[("stac.schema", "/stac_extensions/0")]);
    check(&changed, "strict", "invalid", &[("stac.schema", "/stac_extensions")], &[]);
    for other in [
        ORBIT.replace("https", "http"),
        ORBIT.replace("landfall", "LANDFALL"),
        format!("{ORBIT}?x"),
        format!("{ORBIT}#/definitions/fields"),
        format!("{ORBIT}/"),
        ORBIT.replace("/orbit", "/./orbit"),
        format!(" {ORBIT}"),
        "file:///etc/passwd".into(),
        "http://169.254.169.254/latest/meta-data/".into(),
    ] {
        changed["stac_extensions"] = json!([other]);
        let judgement = judged(&changed, "ingest");
        assert_eq!(judgement.verdict, Verdict::ExtensionUnknown, "{other}");
    }
}

#[test]
fn an_alias_answers_for_another() {
    let mut bundle = bundle(&[(ORBIT, json!({"required": ["id"]}).to_string())]);
    let alias = |url: &str, of: &str| Locked {
        url: url.into(),
        sha256: None,
        licence: "CC0-1.0".into(),
        status: Status::Alias,
        of: Some(of.into()),
        note: None,
    };
    bundle.insert(alias("https://a.example/old", ORBIT), None).unwrap();
    bundle.insert(alias("https://a.example/lost", "https://a.example/none"), None).unwrap();
    let schemas = Schemas::new(Bundle::read(bundle.write().as_bytes()).unwrap());
    let mut changed = item();
    changed["stac_extensions"] = json!(["https://a.example/old"]);
    assert_eq!(judged_by(&schemas, &changed, "strict").verdict.word(), "valid");
    changed["stac_extensions"] = json!(["https://a.example/lost"]);
    assert_eq!(judged_by(&schemas, &changed, "strict").verdict, Verdict::Unusable);
}

#[test]
fn a_bundle_is_read_whole_or_not_at_all() {
    let whole = bundle(&[(ORBIT, orbit().to_string()), ("https://a.example/1", "{}".into())]);
    let text = whole.write();
    assert_eq!(Bundle::read(text.as_bytes()).unwrap(), whole);
    let cut = &text[..text.trim_end().rfind('\n').unwrap()];
    assert!(matches!(Bundle::read(cut.as_bytes()), Err(BundleError::Incomplete { expected: 2, found: 1 })));
    assert!(matches!(
        Bundle::read(&text.as_bytes()[..text.len() / 2]),
        Err(BundleError::Line { .. } | BundleError::Incomplete { .. })
    ));
    let altered = text.replace("integer", "number ");
    assert!(matches!(Bundle::read(altered.as_bytes()), Err(BundleError::Altered { url, .. }) if url == ORBIT));
    for other in ["", "{}", "\u{0}", "{\"landfall_schemas\":2,\"schemas\":0}"] {
        assert!(matches!(Bundle::read(other.as_bytes()), Err(BundleError::Unknown)), "{other}");
    }
}

#[test]
fn findings_stay_within_their_bounds_whatever_a_stranger_writes() {
    let mut changed = item();
    let long = "x".repeat(100_000);
    changed["stac_extensions"] = (0..1000).map(|n| format!("https://{n}.example/{long}")).take(40).collect();
    changed["links"] = (0..5000).map(|n| json!({"rel": n})).collect();
    changed["assets"][&long] = json!({"href": 7});
    let judgement = judged(&changed, "strict");
    assert_eq!(judgement.id.as_deref(), Some("i"), "it was read");
    let bytes = serde_json::to_string(&judgement.findings).unwrap().len();
    assert!(
        judgement.findings.len() <= 16 && bytes <= PROBLEMS_BYTES_MAX + 64,
        "{} in {bytes}",
        judgement.findings.len()
    );
    assert!(judgement.left_out > 0);
    assert!(judgement.findings.iter().all(|problem| problem.value.as_ref().is_none_or(|value| value.len() <= 80)));
}

#[test]
fn what_is_no_document_is_told_apart() {
    let word = |text: &str| {
        let profile = Profile::shipped("strict").unwrap();
        let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
        let judgement = judge.judge(text.as_bytes(), Place::default());
        (judgement.verdict.word(), judgement.findings[0].code.to_string())
    };
    let told = |word: &'static str, code: &str| (word, code.to_owned());
    assert_eq!(word("{\n x"), told("unparseable", "stac.unparseable"));
    assert_eq!(word("\u{feff}{}"), told("unparseable", "stac.encoding"));
    assert_eq!(word(&"[".repeat(200)), told("unparseable", "stac.too-deep"));
    assert_eq!(word("[]"), told("invalid", "stac.not-stac"));
    assert_eq!(word(r#"{"type":"Feature"}"#), told("invalid", "stac.not-stac"));
    assert_eq!(word(r#"{"type":"FeatureCollection"}"#), told("invalid", "stac.not-stac"));
    assert_eq!(word(r#"{"stac_version":"1.0.0"}"#), told("invalid", "stac.schema"));
    assert_eq!(word(r#"{"type":"Feature","stac_version":1}"#), told("invalid", "stac.schema"));
    assert_eq!(word(r#"{"type":"Feature","stac_version":"0.9.0"}"#), told("unsupported", "stac.version"));
    assert_eq!(word(r#"{"a":1}"#), told("not-stac", "stac.not-stac"));
}

#[test]
fn a_name_that_stands_twice_is_told_and_the_last_counts() {
    let text = item().to_string().replace(r#""id":"i""#, r#""id":7,"id":"i""#);
    let profile = Profile::shipped("strict").unwrap();
    let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let judgement = judge.judge(text.as_bytes(), Place::default());
    assert_eq!(judgement.id.as_deref(), Some("i"));
    assert_eq!(places(&judgement.warnings), [("stac.name-repeated", "/id")]);
}

#[test]
fn every_member_of_a_file_is_judged_by_itself() {
    let profile = Profile::shipped("strict").unwrap();
    let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let words = |name: &str, text: &str, only| {
        let judged = judge.judge_file(name, text.as_bytes(), Place::default(), only);
        let each: Vec<_> = judged.judgements().map(|(number, judgement)| (number, judgement.verdict.word())).collect();
        (judged.word(), each)
    };
    let (good, bad) = (item().to_string(), json!({"type": "Feature", "stac_version": "1.0.0"}).to_string());
    let lines = format!("{good}\n\nnot json\n{bad}\n");
    let each = vec![(Some(1), "valid"), (Some(3), "unparseable"), (Some(4), "invalid")];
    assert_eq!(words("x.ndjson", &lines, None), ("invalid", each));
    assert_eq!(words("x.JSONL", &lines, Some(1)), ("valid", vec![(Some(1), "valid")]));
    let features = format!(r#"{{"type":"FeatureCollection","features":[{good},{bad}]}}"#);
    assert_eq!(words("x.json", &features, None), ("invalid", vec![(Some(1), "valid"), (Some(2), "invalid")]));
    let collection = json!({
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "d", "license": "CC0-1.0", "links": [],
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", null]]}}
    });
    let collections = format!(r#"{{"collections":[{collection},{good}],"links":[]}}"#);
    assert_eq!(words("x.json", &collections, None), ("invalid", vec![(Some(1), "valid"), (Some(2), "invalid")]));
    assert_eq!(words("x.json", &good, None), ("valid", vec![(None, "valid")]));
    assert_eq!(words("x.json", r#"{"type":"FeatureCollection","features":[]}"#, None), ("valid", vec![]));
    let many = format!("{good}\n").repeat(MEMBERS_MAX + 1);
    assert_eq!(words("x.ndjson", &many, None), ("invalid", vec![(None, "invalid")]));
    assert_eq!(words("x.ndjson", &"{}\n".repeat(MEMBERS_MAX + 1), None), ("not-stac", vec![(None, "not-stac")]));
}

#[test]
fn numbers_that_share_a_float_do_not_make_uniqueness_slow() {
    let near =
        (0..20_000u64).map(|n| json!([9_223_372_036_854_775_000 + n % 512, 9_223_372_036_854_775_000 + n / 512]));
    let mut changed = item();
    changed["stac_extensions"] = near.collect();
    let started = std::time::Instant::now();
    assert_eq!(judged(&changed, "strict").verdict, Verdict::Invalid);
    // A quadratic search takes minutes; this is no measure of speed.
    assert!(started.elapsed().as_secs() < 20);
    let unique = |values: Value| {
        let mut changed = item();
        changed["stac_extensions"] = values;
        !judged(&changed, "strict").findings.iter().any(|finding| finding.keyword.as_deref() == Some("uniqueItems"))
    };
    assert!(unique(
        json!([1, 2, -1, 1.5, "1", [1], {"a": 1}, {"a": 2}, null, true, 9_223_372_036_854_775_807u64, 9_223_372_036_854_775_806u64])
    ));
    for twice in
        [json!([1, 1.0]), json!([0, -0.0]), json!([{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]), json!([1e300, 1e300])]
    {
        assert!(!unique(twice.clone()), "{twice}");
    }
}

#[test]
fn a_ring_is_closed_by_its_numbers() {
    let mut closed = item();
    closed["geometry"]["coordinates"] = json!([[[0, 0], [1, 0], [1, 1], [0.0, -0.0]]]);
    check(&closed, "ingest", "valid", &[], &[]);
}

#[test]
fn a_nul_in_a_member_that_is_repeated_is_found_and_a_written_backslash_is_none() {
    let profile = Profile::shipped("ingest").unwrap();
    let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let codes = |title: &str| {
        let text = item().to_string().replace(r#""id":"i""#, &format!(r#""id":"i",{title}"#));
        places(&judge.judge(text.as_bytes(), Place::default()).findings)
            .iter()
            .map(|(code, _)| (*code).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(r#""title":"\u0000","title":"ok""#), ["stac.nul"]);
    assert_eq!(codes(r#""title":"\\u0000""#), [""; 0]);
}

#[test]
fn one_line_that_is_no_text_does_not_sink_the_file_and_the_last_features_count() {
    let profile = Profile::shipped("strict").unwrap();
    let judge = Judge { schemas: Schemas::none(), profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let good = item().to_string().into_bytes();
    let lines = [good.as_slice(), b"\n{\"a\":\"\xE4\"}\n", good.as_slice()].concat();
    let judged = judge.judge_file("x.ndjson", &lines, Place::default(), None);
    let words: Vec<_> = judged.judgements().map(|(_, judgement)| judgement.verdict.word()).collect();
    assert_eq!(words, ["valid", "unparseable", "valid"]);
    let twice = format!(r#"{{"type":"FeatureCollection","features":7,"features":[{}],"collections":5}}"#, item());
    assert!(
        matches!(judge.judge_file("x.json", twice.as_bytes(), Place::default(), None), FileJudgement::Several(Envelope::Features, members) if members.len() == 1)
    );
}

#[test]
fn a_flood_of_one_kind_of_finding_is_counted_and_not_kept() {
    let mut changed = item();
    changed["properties"]["nul"] = (0..50_000).map(|_| "\u{0}").collect();
    let judgement = judged(&changed, "strict");
    assert!(judgement.findings.len() <= 16 && judgement.left_out > 40_000, "{}", judgement.left_out);
    let mut long = item();
    long["assets"] = json!({"x".repeat(1_000_000): {"href": 7, "\u{1b}[31m": 1}});
    let judgement = judged(&long, "strict");
    assert!(serde_json::to_string(&judgement.findings).unwrap().len() < PROBLEMS_BYTES_MAX);
}

#[test]
fn what_ships_can_be_read() {
    for name in Profile::shipped_names() {
        assert_eq!(Profile::shipped(name).unwrap().name(), name);
    }
    let lock = Lock::shipped();
    assert!(lock.schemas.len() > 240);
    assert!(lock.schemas.is_sorted_by(|one, other| one.url < other.url));
    assert!(lock.schemas.iter().all(|locked| locked.sha256.as_ref().is_some_and(|sha256| sha256.len() == 64)));
}
