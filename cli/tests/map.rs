//! `landfall map` as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn landfall(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    // No deployment, no endpoint, no credentials: none of this needs one.
    let nowhere = std::env::temp_dir().join("landfall-no-such-state");
    command.args(arguments).env_clear().env("LANDFALL_STATE", nowhere);
    command.output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bucket-maps")
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A map in a file of its own.
fn map(yaml: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.yaml");
    std::fs::write(&file, yaml).unwrap();
    let name = path(&file).to_owned();
    (folder, name)
}

#[test]
fn the_examples_do_what_their_table_says() {
    let output = landfall(&["map", "test", path(&examples().join("cases.tsv"))]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "15 rows, 0 of them otherwise than expected\n");
    assert_eq!(output.status.code(), Some(0));
    let maps: Vec<_> = ["a.yaml", "b.yaml", "c.yaml", "landfall.yaml"].map(|name| examples().join(name)).into();
    let output = landfall(&[&["map", "lint"], &maps.iter().map(|map| path(map)).collect::<Vec<_>>()[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_table_that_does_not_hold_is_told_by_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("cases.tsv");
    std::fs::write(&table, "provider\tpath\texpected\nsbn\tx\tsbn-rest\nsbn\tx\tother\nxyz\tx\tsbn-rest\n").unwrap();
    let map = examples().join("a.yaml");
    let output = landfall(&["map", "test", path(&table), "--map", path(&map), "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let rows = lines(&output);
    assert_eq!(rows.iter().map(|row| row["ok"].as_bool().unwrap()).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(rows[1]["found"], "s3://sbn-rest/sbn/x");
    assert_eq!((&rows[2]["found"], &rows[2]["row"]), (&"ERROR route.unmapped".into(), &4.into()));
}

#[test]
fn an_explanation_names_the_place_the_rule_and_what_was_tried() {
    let map = examples().join("c.yaml");
    let arguments =
        ["map", "explain", "--map", path(&map), "--provider", "SBN", "x/browse/a.png", "x/a", "--format", "json"];
    let output = landfall(&arguments);
    assert_eq!(output.status.code(), Some(0));
    let told = lines(&output);
    assert_eq!(
        told[0],
        serde_json::json!({"provider": "SBN", "path": "x/browse/a.png", "bucket": "sbn-browse",
        "key": "sbn/x/browse/a.png", "rule": {"line": 11, "column": 11, "prefix": "*/browse/*.png"},
        "tried": [{"line": 9, "column": 11, "prefix": "manifests/*"}]})
    );
    assert_eq!((&told[1]["bucket"], &told[1]["rule"]["line"]), (&"sbn-staging".into(), &6.into()));

    let map = examples().join("landfall.yaml");
    let rule = ["--collection", "EO.XXX.DAT.HEAT", "--item", "i", "--date", "2024-05-07", "destine/D/data/a.tif"];
    let output = landfall(&[&["map", "explain", "--map", path(&map)], &rule[..]].concat());
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r"
    destine/D/data/a.tif
      to      s3://heat-maps/EO.XXX.DAT.HEAT/2024/05/07/i/a.tif  (STANDARD_IA)
      by      collection EO.XXX.DAT.HEAT (line 10)
    ");
}

#[test]
fn an_explanation_of_nothing_has_its_code_and_exit_code() {
    let map = examples().join("a.yaml");
    let output = landfall(&["map", "explain", "--map", path(&map), "xyz/a", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let told = lines(&output).remove(0);
    assert_eq!(
        (&told["provider"], &told["path"], &told["error"]),
        (&"xyz".into(), &"a".into(), &"route.unmapped".into())
    );
    assert_eq!(landfall(&["map", "explain", "--map", path(&map), "no-provider"]).status.code(), Some(2));
    assert_eq!(landfall(&["map", "explain", "--map", "no-such-map.yaml", "sbn/a"]).status.code(), Some(2));
    assert_eq!(landfall(&["map", "explain", "sbn/a"]).status.code(), Some(2), "no map, no deployment");
}

#[test]
fn lint_tells_errors_and_warnings_with_their_places() {
    let (_folder, name) = map("MAP:\n  NODES:\n    SBN:\n      default: land\n      'a*': Not_A_Bucket\n");
    let output = landfall(&["map", "lint", &name, "--landing", "land", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let told = lines(&output).remove(0);
    assert_eq!((&told["errors"], &told["warnings"], &told["generation"]), (&2.into(), &1.into(), &"A".into()));
    let place = |finding: &Value| (finding["code"].as_str().unwrap().to_owned(), finding["line"].as_u64().unwrap());
    let found: Vec<_> = told["findings"].as_array().unwrap().iter().map(place).collect();
    let expected =
        [("map.loop", 4), ("map.glob", 5), ("map.bucket-name", 5)].map(|(code, line)| (code.to_owned(), line));
    assert_eq!(found, expected);

    let text = String::from_utf8(landfall(&["map", "lint", &name]).stdout).unwrap();
    insta::assert_snapshot!(text.replace(&name, "map.yaml"), @r#"
    map.yaml:5:7: warning: map.glob: "a*" is taken letter by letter: this generation of the map has no globs
        Try it: `landfall map explain --map FILE --provider NAME PATH`.
    map.yaml:5:13: error: map.bucket-name: "Not_A_Bucket" is no bucket name
        A bucket's name has 3 to 63 of a-z, 0-9, '.' and '-', starts and ends with a letter or digit, and is no address.
    map.yaml: 1 errors, 1 warnings
    "#);
}

/// Every row of the field's samples, through `landfall map explain` and `landfall map lint`.
#[test]
fn the_samples_of_the_field_give_what_is_expected() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/bucket-maps");
    let Ok(table) = std::fs::read_to_string(samples.join("cases.tsv")) else {
        eprintln!("SKIPPED: the samples are not beside the project");
        return;
    };
    let mut rows = 0;
    for row in table.lines().skip(1) {
        let [name, provider, key, expected, why] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let map = samples.join(name);
        rows += 1;
        if expected == "ERROR map" {
            let told = lines(&landfall(&["map", "lint", path(&map), "--format", "json"])).remove(0);
            let lines: Vec<u64> =
                told["findings"].as_array().unwrap().iter().filter_map(|one| one["line"].as_u64()).collect();
            let (_, number) = why.rsplit_once("line ").unwrap();
            let fits = |line: &u64| number.split(" or ").any(|one| one == line.to_string());
            assert!(lines.len() == 1 && lines.iter().all(fits), "{row}: {told}");
            continue;
        }
        let arguments = ["map", "explain", "--map", path(&map), "--provider", provider, key, "--format", "json"];
        let told = lines(&landfall(&arguments)).remove(0);
        match expected.strip_prefix("ERROR ") {
            Some(code) => assert_eq!(told["error"], code, "{row}"),
            None => assert_eq!(told["bucket"], expected, "{row}"),
        }
    }
    assert!(rows >= 31, "{rows}");
}
