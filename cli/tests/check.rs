//! `landfall check` as its users run it: what it prints, and how it ends.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const ORBIT: &str = "https://schemas.landfall.example/orbit/v1.0.0/schema.json";

fn item(id: &str) -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": id, "collection": "C", "geometry": null,
        "properties": {"datetime": "2024-05-17T10:15:00Z"}, "assets": {},
        "links": [{"rel": "collection", "href": "../collection.json"}]
    })
}

/// A dataset with one of each: good, faulty, unknown, not JSON, lines, data.
fn dataset(folder: &Path) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("metadata/items/good.json", item("good").to_string());
    let mut faulty = item("faulty");
    faulty["properties"]["datetime"] = "17.5.2024".into();
    faulty["links"][0]["href"] = 7.into();
    write("metadata/items/faulty.json", faulty.to_string());
    let mut unknown = item("unknown");
    unknown["stac_extensions"] = json!(["http://169.254.169.254/latest/meta-data/"]);
    write("metadata/items/unknown.json", unknown.to_string());
    write("metadata/items/broken.JSON", "{\n \"a\": }".into());
    write(
        "metadata/lines.ndjson",
        format!("{}\n\nnot json\n{}\n", item("one"), json!({"type": "Feature", "stac_version": "1.0.0"})),
    );
    let mut unlinked = item("unlinked");
    unlinked["links"] = json!([]);
    write(
        "metadata/list.geojson",
        json!({"type": "FeatureCollection", "features": [unlinked, {"type": "Feature"}]}).to_string(),
    );
    write("data/settings.json", json!({"a": 1}).to_string());
    write("data/measured.jsonl", "{\"t\":1}\n{\"t\":2}\n".into());
    write("data/image.tif", "II*".into());
}

fn check(folder: &Path, arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env_remove("LANDFALL_SCHEMAS")
        .env_remove("LANDFALL_STATE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_is_told_of_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());

    let json = check(folder.path(), &[".", "--format", "json"], None);

    assert_eq!(json.status.code(), Some(1));
    let verdicts: BTreeMap<String, String> = lines(&json)
        .iter()
        .map(|line| (line["path"].as_str().unwrap().to_owned(), line["verdict"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("./data/measured.jsonl", "not-stac"),
        ("./data/settings.json", "not-stac"),
        ("./metadata/items/broken.JSON", "unparseable"),
        ("./metadata/items/faulty.json", "invalid"),
        ("./metadata/items/good.json", "valid"),
        ("./metadata/items/unknown.json", "invalid"),
        ("./metadata/lines.ndjson", "invalid"),
        ("./metadata/list.geojson", "invalid"),
    ];
    assert_eq!(verdicts, expected.map(|(path, word)| (path.to_owned(), word.to_owned())).into());
    insta::assert_snapshot!("json", text(&json));
    for form in ["human", "junit", "sarif"] {
        let output = check(folder.path(), &[".", "--format", form], None);
        assert_eq!(output.status.code(), Some(1), "{form}");
        insta::assert_snapshot!(form, text(&output));
    }
}

#[test]
fn the_exit_code_says_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let code = |arguments: &[&str]| check(folder.path(), arguments, None).status.code();

    assert_eq!(code(&["metadata/items/good.json"]), Some(0));
    assert_eq!(code(&["data"]), Some(0), "data is no problem");
    assert_eq!(code(&["data/settings.json"]), Some(1), "what is named is meant");
    assert_eq!(code(&["metadata"]), Some(1));
    let mut long = item(&"i".repeat(600));
    std::fs::write(folder.path().join("long.json"), long.to_string()).unwrap();
    assert_eq!(code(&["long.json"]), Some(1), "the pipeline would refuse it");
    long["id"] = "free".into();
    long["links"] = json!([]);
    long.as_object_mut().unwrap().remove("collection");
    std::fs::write(folder.path().join("free.json"), long.to_string()).unwrap();
    assert_eq!(code(&["free.json"]), Some(1), "the pipeline would refuse it");
    assert_eq!(code(&["free.json", "--profile", "strict"]), Some(0), "it is STAC");
    assert_eq!(code(&["nowhere"]), Some(2));
    assert_eq!(code(&["metadata", "--profile", "nobody"]), Some(2));
    assert_eq!(code(&["metadata", "--profile", "nowhere.yaml"]), Some(2));
    assert_eq!(code(&["metadata", "--schemas", "nowhere"]), Some(2));
    assert_eq!(code(&["metadata", "--format", "xml"]), Some(2));
    assert_eq!(code(&[]), Some(2));
    let mut known = item("known");
    known["stac_extensions"] = json!(["https://stac-extensions.github.io/eo/v1.1.0/schema.json"]);
    std::fs::write(folder.path().join("known.json"), known.to_string()).unwrap();
    assert_eq!(code(&["known.json"]), Some(2), "without its schema nobody can say");
}

#[test]
fn standard_input_is_one_document_or_lines() {
    let folder = tempfile::tempdir().unwrap();
    let run = |input: &str| check(folder.path(), &["-", "--format", "json"], Some(input));
    let (good, pretty) = (item("i").to_string(), serde_json::to_string_pretty(&item("i")).unwrap());

    assert_eq!(lines(&run(&good))[0]["verdict"], "valid");
    assert_eq!(lines(&run(&pretty))[0]["verdict"], "valid");
    let several = run(&format!("{good}\n{good}\nnot json\n"));
    assert_eq!(lines(&several)[0]["members"], json!({"valid": 2, "unparseable": 1}));
    assert_eq!(lines(&several)[0]["findings"][0]["line"], 3);
    assert_eq!(lines(&run(""))[0]["verdict"], "unparseable");
}

#[test]
fn a_profile_and_schemas_of_ones_own_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let mirror = folder.path().join("mirror/schemas.landfall.example/orbit/v1.0.0");
    std::fs::create_dir_all(&mirror).unwrap();
    let schema = json!({"properties": {"properties": {"required": ["orbit:number"]}}});
    std::fs::write(mirror.join("schema.json"), schema.to_string()).unwrap();
    let own = "inherits: strict\nrules:\n  - {code: own.id, level: item, action: warn, check: {id: '[A-Z]+'}, hint: in capitals}\n";
    std::fs::write(folder.path().join("own.yaml"), own).unwrap();
    let mut orbit = item("orbit");
    orbit["stac_extensions"] = json!([ORBIT]);
    std::fs::write(folder.path().join("orbit.json"), orbit.to_string()).unwrap();

    let output =
        check(folder.path(), &["orbit.json", "--profile", "own.yaml", "--schemas", "mirror", "--format", "json"], None);

    let line = &lines(&output)[0];
    assert_eq!(
        (line["findings"][0]["rule"].as_str(), line["findings"][0]["pointer"].as_str()),
        (Some(ORBIT), Some("/properties"))
    );
    assert_eq!(
        (line["warnings"][0]["code"].as_str(), line["warnings"][0]["hint"].as_str()),
        (Some("own.id"), Some("in capitals"))
    );
}

#[test]
fn a_dataset_is_judged_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("bundle/data x")).unwrap();
    std::fs::create_dir_all(folder.path().join("bundle/metadata")).unwrap();
    let urn = |id: &str| {
        let mut item = item(id);
        item["collection"] = json!("urn:nasa:pds:bundle:data::1.0");
        item["properties"]["ssys:targets"] = json!(["Mars"]);
        item.to_string()
    };
    let id = "urn:nasa:pds:bundle:data:product::1.0";
    std::fs::write(folder.path().join("bundle/metadata/a.json"), urn(id)).unwrap();
    std::fs::write(folder.path().join("bundle/metadata/b.json"), urn(id)).unwrap();
    std::fs::write(folder.path().join("bundle/data x/image.img"), "x").unwrap();

    let output = check(folder.path(), &[".", "--profile", "pds", "--format", "json"], None);

    let found: Vec<_> = lines(&output)
        .iter()
        .map(|line| format!("{} {}", line["path"].as_str().unwrap(), line["findings"][0]["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            "./bundle/data x/image.img pds.names",
            "./bundle/metadata/a.json pds.id-repeated",
            "./bundle/metadata/b.json pds.id-repeated"
        ]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn schemas_are_added_fetched_listed_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command
            .arg("schemas")
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("LANDFALL_SCHEMAS")
            .env_remove("LANDFALL_STATE");
        command.output().unwrap()
    };
    let schema = folder.path().join("mirror/schemas.landfall.example/orbit/v1.0.0/schema.json");
    std::fs::create_dir_all(schema.parent().unwrap()).unwrap();
    std::fs::write(&schema, "{}").unwrap();
    std::fs::write(folder.path().join("schemas.lock"), "").unwrap();

    let added = run(&["add", ORBIT, "--from", "mirror", "--licence", "CC0-1.0"]);
    assert_eq!(added.status.code(), Some(0), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(run(&["add", "https://schemas.landfall.example/orbit/old.json", "--of", ORBIT]).status.code(), Some(0));
    assert_eq!(run(&["add", "https://schemas.landfall.example/none", "--from", "mirror"]).status.code(), Some(2));
    assert_eq!(run(&["add", "http://schemas.landfall.example/none"]).status.code(), Some(2));
    assert_eq!(run(&["verify"]).status.code(), Some(2), "there is no bundle yet");
    assert_eq!(run(&["fetch", "--from", "mirror"]).status.code(), Some(0));
    assert_eq!(run(&["verify"]).status.code(), Some(0));
    let listed = lines(&run(&["ls", "--format", "json"]));
    assert_eq!(listed.iter().filter(|line| line["held"] == true && line["locked"] == true).count(), 2, "{listed:?}");

    // Other bytes than those that were locked are not taken; what was fetched before stays.
    std::fs::write(&schema, "{\"type\":\"object\"}").unwrap();
    std::fs::remove_file(folder.path().join(".landfall/schemas.bundle")).unwrap();
    let altered = run(&["fetch", "--from", "mirror"]);
    assert_eq!(altered.status.code(), Some(1));
    assert!(text(&altered).contains("is locked"), "{}", text(&altered));
}
