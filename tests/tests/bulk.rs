//! `landfall load` and `landfall migrate` as their users run them: what is loaded, what is refused, what becomes of an
//! interruption, and what a STAC API makes of what is there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flate2::read::GzDecoder;
use landfall_tests::real_world::{Database, peak, tools};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command said, and its exit code.
async fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn collection(id: &str, assets: &Value) -> Value {
    json!({
        "type": "Collection", "stac_version": "1.0.0", "id": id, "description": "d", "license": "CC0-1.0", "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["1980-01-01T00:00:00Z", null]]}},
        "item_assets": assets,
    })
}

fn item(collection: &str, number: usize) -> Value {
    let (x, y) = (number % 300 / 2, number % 170 / 2);
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": format!("item-{number}"), "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [[[x, y], [x + 1, y], [x + 1, y + 1], [x, y]]]},
        "bbox": [x, y, x + 1, y + 1], "links": [],
        "properties": {"datetime": format!("2024-{:02}-15T10:15:00.5Z", 1 + number % 12), "eo:cloud_cover": number % 100},
        "assets": {"data": {"href": format!("s3://archive/{number}.tif"), "type": "image/tiff", "roles": ["data"]}},
    })
}

fn write(path: &Path, documents: impl IntoIterator<Item = Value>) -> PathBuf {
    let mut text = String::new();
    for document in documents {
        writeln!(text, "{document}").unwrap();
    }
    std::fs::write(path, text).unwrap();
    path.to_owned()
}

async fn count(database: &Database) -> i64 {
    database.client.query_one("select count(*) from pgstac.items", &[]).await.unwrap().get(0)
}

/// Loads items with their collections, and has a user of the archive look for each.
async fn loaded_and_found(database: &Database, name: &str, items: &[Value]) {
    let mut collections: BTreeMap<&str, Value> = BTreeMap::new();
    for item in items {
        // What the assets of a collection's first item say is what all say: it is not stored with each.
        let assets = collections.entry(item["collection"].as_str().unwrap());
        assets.or_insert_with(|| {
            let mut assets = item["assets"].clone();
            for asset in assets.as_object_mut().unwrap().values_mut() {
                asset.as_object_mut().unwrap().remove("href");
            }
            assets
        });
    }
    let documents = collections.iter().map(|(id, assets)| collection(id, assets));
    let collections = write(&database.scratch(&format!("{name}-collections.ndjson")), documents);
    let file = write(&database.scratch(&format!("{name}.ndjson")), items.iter().cloned());

    let mut load = database.landfall(&["load"]);
    let (code, said, error) = run(load.arg(&collections).arg(&file)).await;
    assert_eq!(code, 0, "{said}{error}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/found.py");
    let mut look = Command::new(tools().join("stac/bin/python"));
    let (code, said, error) = run(look.arg(script).arg(&database.url).arg(&file).stdin(Stdio::null())).await;
    println!("{name}: {said}");
    assert_eq!(code, 0, "{said}{error}");
}

#[tokio::test]
async fn what_is_loaded_is_found_through_a_stac_api_and_is_what_it_was() {
    let database = Database::start().await.unwrap();
    let mut own: Vec<Value> =
        (0..60).map(|number| item(if number % 2 == 0 { "even" } else { "odd" }, number)).collect();
    own[1]["properties"] = json!({"datetime": null, "start_datetime": "2020-02-28T23:00:00-02:00",
        "end_datetime": "2021-03-01T00:00:00Z", "title": "from the 29th of February on", "nothing": null});
    own[2]["geometry"] = json!({"type": "MultiPolygon", "coordinates": [
        [[[170.0, -10.0], [180.0, -10.0], [180.0, 10.0], [170.0, -10.0]]],
        [[[-180.0, -10.0], [-170.0, -10.0], [-180.0, 10.0], [-180.0, -10.0]]]]});
    own[2]["bbox"] = json!([170.0, -10.0, -170.0, 10.0]);
    own[3]["assets"]["data"] = json!({"href": "s3://archive/other.jp2", "type": "image/jp2", "roles": []});
    own[4]["properties"]["title"] = json!("日本 \"quoted\" \\ back, 𝄞 and a tab\t");
    own[5]["properties"]["measured"] = json!([0.1, 1e-9, 123_456_789.123_456_78, -0.0, 9_007_199_254_740_993_i64]);
    own[6]["assets"] = json!({"thumbnail": {"href": "s3://archive/t.png", "type": "image/png"}});
    loaded_and_found(&database, "own", &own).await;

    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/bench/items-mixed-1000.ndjson.gz");
    let Ok(packed) = std::fs::File::open(&real) else {
        eprintln!("SKIPPED: the thousand real items are not beside the project");
        return;
    };
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let mut seen = BTreeSet::new();
    let mut items: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for item in &mut items {
        if item["collection"].is_null() {
            item["collection"] = json!("has-none");
        }
    }
    // Of one id, the last counts.
    items.reverse();
    items.retain(|item| seen.insert((item["collection"].to_string(), item["id"].to_string())));
    database.client.batch_execute("delete from pgstac.collections").await.unwrap();
    loaded_and_found(&database, "real", &items).await;
}

#[tokio::test]
async fn an_interrupted_load_goes_on_where_it_was_and_forgets_no_refusal() {
    let database = Database::start().await.unwrap();
    let collections = write(&database.scratch("c.json"), [collection("c", &json!({"data": {"type": "image/tiff"}}))]);
    let mut documents: Vec<Value> = (0..20_000).map(|number| item("c", number)).collect();
    documents[10]["properties"]["datetime"] = json!("yesterday");
    documents[19_990]["collection"] = json!("nowhere");
    documents[19_995]["geometry"]["coordinates"][0][3] = json!([0.5, 0.5]);
    documents[19_999] = json!({"type": "Catalog", "id": "k"});
    let file = write(&database.scratch("items.ndjson"), documents);
    let load = |arguments: &[&str]| {
        let mut command = database.landfall(arguments);
        command.args(["--connections", "2"]).arg(&collections).arg(&file);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let journals = database.scratch("state/loads");
    let settled = || -> Option<u64> {
        let journal = std::fs::read_dir(&journals).ok().and_then(|mut all| all.next())?.ok()?.path();
        serde_json::from_slice::<Value>(&std::fs::read(journal).ok()?).ok()?["settled"].as_u64()
    };
    let mut killed = load(&["load"]).spawn().unwrap();
    while settled().is_none_or(|settled| settled < 100) {
        assert!(killed.try_wait().unwrap().is_none(), "it was faster than its journal");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    killed.kill().await.unwrap();
    let before = settled().unwrap();

    let mut second = load(&["load", "--format", "json"]).spawn().unwrap();
    let most = peak(&mut second).await;
    let output = second.wait_with_output().await.unwrap();

    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("going on after {before} documents")), "{error}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["loaded"], &answer["refused"]), (&json!(19_997), &json!(4)), "{answer}");
    let codes: Vec<&str> =
        answer["problems"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(BTreeSet::from_iter(codes), BTreeSet::from(["load.collection-missing", "load.geometry", "load.json"]));
    assert_eq!(count(&database).await, 19_996);
    println!("{most} KiB at most");
    assert!(most < 150 * 1024, "{most} KiB");
    assert!(settled().is_none(), "a load that is done leaves no journal");
    // And all of it once more makes no difference.
    let (code, said, _) = run(&mut load(&["load"])).await;
    assert_eq!((code, count(&database).await), (1, 19_996));
    let told = |code: &str| assert!(said.lines().any(|line| line.starts_with(code)), "{code}: {said}");
    told("load.datetime  document 12 item-10:");
    told("load.collection-missing  document 19992 item-19990:");
    told("load.geometry  document 19997 item-19995:");
    told("load.json  document 20001:");
    told("19997 loaded, 4 refused");
}

#[tokio::test]
async fn standard_input_is_loaded_and_a_wrong_set_up_ends_with_2() {
    let database = Database::start().await.unwrap();
    let mut child = database.landfall(&["load", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = format!("{}\n{}\n{}", collection("c", &json!({})), item("c", 1), item("c", 2));
    child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("3 loaded, 0 refused"));
    assert_eq!(count(&database).await, 2);

    let file = write(&database.scratch("i.json"), [item("c", 3)]);
    let good = file.to_str().unwrap();
    std::fs::write(database.scratch("broken.json"), "{\"type\": \n\"Feature\"").unwrap();
    let broken = database.scratch("broken.json");
    let nowhere = "postgresql://u:secret@127.0.0.1:9/stac";
    let wrong = database.url.replace("postgres:", "nobody:");
    for (arguments, why) in [
        (["load", "no-such-file", "--connections", "1"], "no-such-file"),
        (["load", broken.to_str().unwrap(), "--connections", "1"], "not JSON"),
        (["load", good, "--database", nowhere], "not available"),
        (["load", good, "--database", &wrong], "28P01"),
        (["load", good, "--database", "mysql://u:secret@h/d"], "cannot be understood"),
        (["migrate", "--plan", "--database", nowhere], "not available"),
    ] {
        let (code, said, error) = run(&mut database.landfall(&arguments)).await;
        assert_eq!(code, 2, "{arguments:?}: {said}{error}");
        assert!(error.contains(why) && !error.contains("secret"), "{arguments:?}: {error}");
    }
    assert_eq!(count(&database).await, 2);
}

#[tokio::test]
async fn migrate_says_what_it_would_do_does_it_and_grants_no_more_than_a_worker_needs() {
    let database = Database::start().await.unwrap();
    database.client.batch_execute("create database fresh").await.unwrap();
    database.client.batch_execute("create role loader login password 'loader'").await.unwrap();
    let fresh = database.url.replace("/landfall", "/fresh");
    let pgstac =
        landfall::local::Layout { tools: tools(), ..landfall::local::Layout::new(&database.scratch("s")).unwrap() };
    let pgstac = pgstac.pgstac_sql().unwrap();
    let migrate = |arguments: &[&str]| {
        let mut command = database.landfall(&["migrate"]);
        command.args(arguments).env("LANDFALL_DATABASE_URL", &fresh);
        command
    };
    let (code, said, _) = run(&mut migrate(&["--plan"])).await;
    assert_eq!(code, 1);
    assert!(said.contains("install pgSTAC first"), "{said}");
    assert_eq!(run(&mut migrate(&[])).await.0, 2);
    let with = ["--pgstac", pgstac.to_str().unwrap(), "--grant", "loader"];
    let (code, planned, _) = run(migrate(&with).arg("--plan")).await;
    assert_eq!(code, 1);
    let (code, done, error) = run(&mut migrate(&with)).await;
    assert_eq!((code, &done), (0, &planned.replace("planned:", "done:")), "{error}");
    let (code, said, _) = run(&mut migrate(&["--plan"])).await;
    assert_eq!((code, said.as_str()), (0, "the schema is up to date\n"));
    // Twice is once.
    assert_eq!(run(&mut migrate(&with)).await.0, 0);

    let url = fresh.replace(fresh.split_once('@').unwrap().0, "postgresql://loader:loader");
    let file = write(&database.scratch("c.ndjson"), [collection("c", &json!({})), item("c", 1)]);
    let (code, said, error) = run(database.landfall(&["load", "--database", &url]).arg(&file)).await;
    assert_eq!(code, 0, "{said}{error}");
}
