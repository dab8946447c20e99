use std::path::Path;

use serde_json::json;

use super::*;

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

#[track_caller]
fn check_problems(item: &Value, profile: Profile, expected: &[(&str, &str)]) {
    let found = match judge_value(item, profile) {
        Verdict::Valid { .. } => vec![],
        Verdict::Invalid { problems, .. } => problems,
        other @ (Verdict::NotStac | Verdict::UnsupportedVersion(_) | Verdict::Unparseable { .. }) => {
            panic!("{other:?}")
        }
    };
    let found: Vec<_> = found.iter().map(|problem| (problem.code.as_str(), problem.pointer.as_str())).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn check_changed(pointer: &str, value: Value, expected: &[(&str, &str)]) {
    let mut changed = item();
    *changed.pointer_mut(pointer).unwrap() = value;
    check_problems(&changed, Profile::Ingest, expected);
}

#[test]
fn a_good_item_is_valid_with_its_ids() {
    let kind = Kind::Item { collection: Some("c".into()), id: "i".into() };
    assert_eq!(judge_value(&item(), Profile::Strict), Verdict::Valid { kind, warnings: vec![] });
}

#[test]
fn each_problem_names_its_place() {
    check_changed("/id", json!(""), &[("stac.schema", "/id")]);
    check_changed("/properties/datetime", json!("yesterday"), &[("stac.datetime", "/properties/datetime"); 2]);
    check_changed("/assets/data/href", json!(7), &[("stac.schema", "/assets/data/href")]);
    check_changed("/bbox", json!([0, 0, 1]), &[("stac.schema", "/bbox")]);
    check_changed("/id", json!("a\u{0}b"), &[("stac.nul", "/id")]);
}

#[test]
fn geometry_is_checked_by_hand() {
    let place = "/geometry/coordinates";
    check_changed(place, json!([[[0, 0], [1, 0], [1, 1], [0, 2]]]), &[("stac.geometry", "/geometry/coordinates/0")]);
    check_changed(
        place,
        json!([[[0, 0], [1, 0], [1, 1], ["x", 0]]]),
        &[("stac.geometry", "/geometry/coordinates/0/3")],
    );
    check_changed("/geometry/type", json!("Blob"), &[("stac.schema", "/geometry/type")]);
}

#[track_caller]
fn check_warning(item: &Value, expected: (&str, &str)) {
    let Verdict::Valid { warnings, .. } = judge_value(item, Profile::Strict) else { panic!("not valid") };
    let found: Vec<_> = warnings.iter().map(|problem| (problem.code.as_str(), problem.pointer.as_str())).collect();
    assert_eq!(found, [expected]);
}

#[test]
fn what_no_schema_says_is_a_warning() {
    let mut changed = item();
    changed["properties"] =
        json!({"datetime": null, "start_datetime": "2024-05-17T00:00:00Z", "end_datetime": "2024-05-16T00:00:00Z"});
    check_warning(&changed, ("stac.datetime", "/properties/start_datetime"));
    let mut changed = item();
    changed["bbox"] = json!([0, 2, 1, 1]);
    check_warning(&changed, ("stac.geometry", "/bbox"));
}

#[test]
fn ingest_tolerates_a_missing_collection_link_but_no_missing_collection() {
    let mut unlinked = item();
    unlinked["links"] = json!([]);
    check_problems(&unlinked, Profile::Strict, &[("stac.schema", "/collection")]);
    assert!(matches!(judge_value(&unlinked, Profile::Ingest), Verdict::Valid { warnings, .. } if warnings.len() == 1));
    let mut free = unlinked;
    free.as_object_mut().unwrap().remove("collection");
    check_problems(&free, Profile::Strict, &[]);
    check_problems(&free, Profile::Ingest, &[("stac.collection-missing", "/collection")]);
}

#[test]
fn what_is_no_document_is_told_apart() {
    assert!(matches!(judge("{\n x", Profile::Strict), Verdict::Unparseable { line: 2, .. }));
    assert_eq!(judge("[]", Profile::Strict), Verdict::NotStac);
    assert_eq!(judge(r#"{"type":"Feature"}"#, Profile::Strict), Verdict::NotStac);
    assert_eq!(
        judge(r#"{"type":"Feature","stac_version":"0.9.0"}"#, Profile::Strict),
        Verdict::UnsupportedVersion("\"0.9.0\"".into())
    );
}

#[test]
fn every_schema_compiles() {
    for version in [Version::V100, Version::V110] {
        for definition in [Definition::Item, Definition::Collection, Definition::Catalog] {
            validator(version, definition);
        }
    }
}

#[test]
fn a_file_is_taken_apart_into_its_members() {
    let features = r#"{"type":"FeatureCollection","features":[{"a":1.50},{"b":2}]}"#;
    assert!(matches!(split("x.json", features), Members::Features(all) if all[0].get() == r#"{"a":1.50}"#));
    assert!(
        matches!(split("x.ndjson", "{}\n\nnot json\n"), Members::Lines(all) if all == [(1, "{}"), (3, "not json")])
    );
    assert!(matches!(split("x.json", "{}"), Members::One));
}

/// Documents with published verdicts, where they are at hand: those that declare no extension.
#[test]
fn verdicts_agree_with_the_published_schemas() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures/stac");
    let Ok(manifest) = std::fs::read_to_string(corpus.join("manifest.tsv")) else {
        eprintln!("SKIPPED: no corpus of documents with verdicts at {}", corpus.display());
        return;
    };
    let mut differ = Vec::new();
    let mut judged = 0;
    for line in manifest.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let (path, expected, extensions) = (columns[0], columns[1], columns[5]);
        let disputed = line.contains("DISPUTED");
        if extensions != "0"
            || disputed
            || !["valid", "invalid", "invalid-format"].contains(&expected)
            || path.starts_with("itemcollection")
        {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(corpus.join(path)) else { continue };
        let valid = matches!(judge(&text, Profile::Strict), Verdict::Valid { .. });
        judged += 1;
        if valid != (expected == "valid") {
            differ.push(format!("{path}: expected {expected}, note: {}", columns.last().unwrap_or(&"")));
        }
    }
    assert!(judged > 100, "only {judged} documents were judged");
    assert_eq!(differ, [""; 0], "of {judged}");
}
