//! Each way in which landing, destinations, pgSTAC and ledger can differ, planted in a running Landfall.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real};
use serde_json::{Value, json};

/// Items with an asset each, files that are data, and one document that is broken.
fn dataset(folder: &Path, collection_id: &str, items: usize) {
    let root = folder.join("sbn").join(collection_id);
    std::fs::create_dir_all(root.join("metadata/items")).unwrap();
    std::fs::create_dir_all(root.join("data")).unwrap();
    std::fs::write(root.join("metadata/collection.json"), collection(collection_id)).unwrap();
    for number in 0..items {
        let id = format!("i{number:03}");
        std::fs::write(root.join(format!("metadata/items/{id}.json")), item(&id, collection_id, "t")).unwrap();
        std::fs::write(root.join(format!("data/{id}.tif")), format!("II*{number}")).unwrap();
        std::fs::write(root.join(format!("data/plain-{number}.txt")), format!("{number}")).unwrap();
    }
    std::fs::write(root.join("metadata/items/broken.json"), "{").unwrap();
}

/// How many of each kind differ.
async fn reconcile(real: &Real, arguments: &[&str]) -> BTreeMap<String, u64> {
    let output = real.run(&[&["reconcile", "--format", "json"], arguments].concat()).await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let differences = answer["differences"].as_object().unwrap();
    println!("{answer:#}");
    assert!(arguments.contains(&"--fix") || answer["sent_again"] == 0, "it only looks");
    assert_eq!(output.status.code(), Some(i32::from(!differences.is_empty())));
    differences.iter().map(|(kind, difference)| (kind.clone(), difference["count"].as_u64().unwrap())).collect()
}

/// An item without assets.
fn lone(id: &str) -> Value {
    let mut lone: Value = serde_json::from_str(&item(id, "C", "t")).unwrap();
    lone["assets"] = json!({});
    lone
}

/// Waits until something is so, for a minute at most.
async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it did not come to be");
}

/// Kills the workers, and waits until nothing is given any more to what they were waiting for: what comes meanwhile
/// would be invisible for a while and come again.
async fn stop_workers(real: &mut Real) {
    real.kill_workers().await.unwrap();
    tokio::time::sleep(Duration::from_secs(21)).await;
}

/// Loses what S3 has said of what landed while no worker runs.
async fn lose_events(real: &Real) {
    let connected = real.connected().await.unwrap();
    let queue = connected.queue(connected.deployment.queue_url("validate").unwrap());
    let mut lost_all = 0;
    while lost_all < 3 {
        let lost = queue.receive(10, Duration::from_secs(60), Duration::from_secs(1)).await.unwrap();
        if lost.is_empty() {
            lost_all += 1;
            continue;
        }
        lost_all = 0;
        for deleted in queue.delete(&lost.into_iter().map(|one| one.receipt).collect::<Vec<_>>()).await {
            deleted.unwrap();
        }
    }
}

/// What is younger is left alone.
const GRACE: &str = "6s";

#[tokio::test]
async fn every_planted_difference_is_found_and_nothing_else_while_traffic_flows() {
    let mut real = Real::start(Form::Pollers).await.unwrap();
    let folder = real.scratch("dataset");
    dataset(&folder, "C", 8);
    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();
    real.settled_as(&json!({"completed": 8 * 3 + 1, "refused": 1}), 60).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(reconcile(&real, &["--grace", GRACE]).await, BTreeMap::new());

    let connected = real.connected().await.unwrap();
    let s3 = connected.s3();
    let (client, connection) =
        tokio_postgres::connect(real.deployment.database_url.as_ref().unwrap(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let (landing, archive) = ("landfall-landing", "landfall-archive");
    let put = async |bucket: &str, key: &str, body: &str| {
        s3.put_object().bucket(bucket).key(key).body(body.as_bytes().to_vec().into()).send().await.unwrap();
    };
    // Two landings whose events are lost, one of them after it was routed.
    stop_workers(&mut real).await;
    put(landing, "sbn/C/data/unseen.txt", "unseen").await;
    put(landing, "sbn/C/metadata/items/late.json", &item("i000", "C", "late").replace("i000", "late")).await;
    put(landing, "sbn/C/data/late.tif", "II*late").await;
    put(archive, "sbn/C/metadata/items/late.json", "{}").await;
    lose_events(&real).await;
    real.start_workers().unwrap();
    let dead = connected.queue(connected.deployment.dead_queue_url("validate").unwrap());
    let letters = dead.receive(10, Duration::from_secs(30), Duration::ZERO).await.unwrap();
    assert_eq!(letters.len(), 1);
    dead.delete(&[letters[0].receipt.clone()]).await.pop().unwrap().unwrap();
    for gone in ["sbn/C/data/plain-1.txt", "sbn/C/data/i002.tif"] {
        s3.delete_object().bucket(archive).key(gone).send().await.unwrap();
    }
    client.execute("delete from pgstac.items where id = 'i003'", &[]).await.unwrap();
    client.execute("update landfall.ledger set announced = null where item = 'i004'", &[]).await.unwrap();
    // A deletion that nobody was told of, and a file of which one member's event was lost.
    s3.delete_object().bucket(landing).key("sbn/C/metadata/items/i005.json").send().await.unwrap();
    let deleted = "update landfall.ledger set announced = null, updated = now() - interval '1 h'
        where item = 'i005' and state = 'removed' and announced is not null";
    until(async || client.execute(deleted, &[]).await.unwrap() == 1).await;
    let lines: Vec<_> = ["m1", "m2", "m3"].map(|id| lone(id).to_string()).into();
    put(landing, "sbn/C/metadata/lines.ndjson", &lines.join("\n")).await;
    let counted = "select count(*) from landfall.ledger where item like 'm_' and announced is not null";
    until(async || client.query_one(counted, &[]).await.unwrap().get::<_, i64>(0) == 3).await;
    client.execute("delete from landfall.ledger where item = 'm2'", &[]).await.unwrap();
    client.execute("delete from pgstac.items where id = 'm2'", &[]).await.unwrap();
    let loaded = real.scratch("loaded.json");
    std::fs::write(&loaded, lone("from-a-file").to_string()).unwrap();
    let url = real.deployment.database_url.clone().unwrap();
    real.run(&["load", loaded.to_str().unwrap(), "--database", &url]).await.unwrap();

    // Others go on landing meanwhile, from before the grace on until after the comparison.
    let (more, last) = (real.scratch("more"), real.scratch("last"));
    dataset(&more, "D", 20);
    dataset(&last, "E", 10);
    let mut traffic = real.landfall(&["put", more.to_str().unwrap()]).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut later = real.landfall(&["put", last.to_str().unwrap()]).spawn().unwrap();
    let found = reconcile(&real, &["--grace", GRACE, "--fix"]).await;
    traffic.wait().await.unwrap();
    later.wait().await.unwrap();
    let expected = [
        // The unseen file, the late item's asset, and the file with the lost member.
        ("never-seen", 3),
        ("routed-not-loaded", 1),
        ("no-letter", 1),
        // The file, and the asset as the plain data that it is too.
        ("data-gone", 2),
        ("asset-gone", 1),
        ("not-in-catalogue", 1),
        ("not-in-ledger", 1),
        // The item, and the deletion.
        ("never-announced", 2),
    ];
    assert_eq!(found, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    let few = reconcile(&real, &["--grace", GRACE, "--collection", "D"]).await;
    assert_eq!(few, BTreeMap::new());

    real.settled_as(&json!({"completed": 8 * 3 + 1 + 3 + 30 * 3 + 2 - 1 + 3, "removed": 1, "refused": 3}), 120)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    // What was loaded past the pipeline; the refusals have their letters.
    let left = BTreeMap::from([("not-in-ledger".to_owned(), 1)]);
    assert_eq!(reconcile(&real, &["--grace", GRACE]).await, left);
    // What is dropped on purpose does not differ.
    real.run(&["dlq", "drop", "--all"]).await.unwrap();
    assert_eq!(reconcile(&real, &["--grace", "0s"]).await, left);
}

#[tokio::test]
async fn what_lies_in_a_bucket_is_fed_in_once() {
    let mut real = Real::start(Form::Pollers).await.unwrap();
    let s3 = real.connected().await.unwrap().s3();
    s3.create_bucket().bucket("elsewhere").send().await.unwrap();
    real.reconfigure("[[landing]]\n[[landing]]\nbucket = 'elsewhere'\nprovider = 'other'\n").await.unwrap();
    let folder = real.scratch("dataset");
    dataset(&folder, "C", 8);
    stop_workers(&mut real).await;
    real.run(&["put", folder.to_str().unwrap()]).await.unwrap();
    lose_events(&real).await;
    real.start_workers().unwrap();
    let files = 8 * 3 + 2;
    let backfill = async |arguments: &[&str]| -> Value {
        let arguments = [&["backfill", "s3://landfall-landing/sbn/", "--format", "json"], arguments].concat();
        serde_json::from_slice(&real.run(&arguments).await.unwrap().stdout).unwrap()
    };
    let planned = backfill(&["--dry-run"]).await;
    assert_eq!((&planned["sent"], &planned["dry_run"]), (&json!(files), &json!(true)));

    let sent = backfill(&["--rate", "20"]).await;

    assert_eq!((&sent["listed"], &sent["known"], &sent["sent"]), (&json!(files), &json!(0), &json!(files)));
    real.settled_as(&json!({"completed": files - 1, "refused": 1}), 60).await.unwrap();
    let again = backfill(&[]).await;
    assert_eq!((&again["known"], &again["sent"]), (&json!(files), &json!(0)));
    // Where else files land, they are seen too.
    s3.put_object().bucket("elsewhere").key("n/f.txt").body(b"1".to_vec().into()).send().await.unwrap();
    let summary = async |arguments: &[&str]| -> Value {
        let output = real.run(&[&["status", "--format", "json"], arguments].concat()).await.unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["summary"].clone()
    };
    assert_eq!(summary(&["n/"]).await, json!({"in-flight": 1}));
    assert_eq!(summary(&["--provider", "other"]).await, json!({"in-flight": 1}));
    assert_eq!(summary(&["--provider", "sbn"]).await, json!({"completed": files - 1, "refused": 1}));
    real.run(&["backfill", "s3://elsewhere"]).await.unwrap();
    let ended = summary(&["n/", "--wait", "60"]).await;
    assert!(ended == json!({"completed": 1}) || ended == json!({"refused": 1}), "{ended}");
    let output = real.landfall(&["backfill", "s3://landfall-archive/sbn/"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2), "nobody lands there");
}
