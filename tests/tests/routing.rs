//! Routing on real parts: large objects, DestinE's layout, other stores, clean-up, and bucket maps that change.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real};
use serde_json::Value;

const MIB: usize = 1024 * 1024;
const ARCHIVE: &str = "landfall-archive";

/// Drops one file.
async fn put(real: &Real, key: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let s3 = real.connected().await?.s3();
    let landing = real.deployment.output("LandingBucket")?;
    s3.put_object().bucket(landing).key(key).body(body.into()).send().await?;
    Ok(())
}

async fn body(real: &Real, bucket: &str, key: &str) -> anyhow::Result<Vec<u8>> {
    let s3 = real.connected().await?.s3();
    Ok(s3.get_object().bucket(bucket).key(key).send().await?.body.collect().await?.to_vec())
}

async fn keys(real: &Real, bucket: &str, prefix: &str) -> anyhow::Result<Vec<String>> {
    let s3 = real.connected().await?.s3();
    let listed = s3.list_objects_v2().bucket(bucket).prefix(prefix).send().await?;
    Ok(listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect())
}

async fn open_uploads(real: &Real) -> anyhow::Result<usize> {
    let s3 = real.connected().await?.s3();
    Ok(s3.list_multipart_uploads().bucket(ARCHIVE).send().await?.uploads().len())
}

/// 64 MiB that are nowhere alike.
fn large() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(word).take(64 * MIB / 8).flatten().collect()
}

#[tokio::test]
async fn a_large_object_goes_in_parts_through_a_kill_in_flat_memory() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Pollers).await?;
    real.reconfigure("[route.copy]\nthreshold_mib = 16\npart_mib = 5\nparallel = 1\n").await?;
    let content = large();

    put(&real, "sbn/large.bin", content.clone()).await?;
    // In the middle: an upload is open, and is written down.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while open_uploads(&real).await? == 0 || keys(&real, "landfall-work", "uploads/").await?.is_empty() {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "no copy in parts was begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    real.kill_workers().await?;
    assert_eq!(open_uploads(&real).await?, 1, "the kill came in the middle");
    assert!(keys(&real, ARCHIVE, "sbn/").await?.is_empty(), "nothing is there before all of it is");
    real.start_workers()?;
    put(&real, "sbn/small.bin", b"small".to_vec()).await?;
    let idle = loop {
        if !keys(&real, ARCHIVE, "sbn/small.bin").await?.is_empty() {
            break real.memory_max("route")?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let answer = real.settled(180).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": 2}), "{answer}");
    assert!(body(&real, ARCHIVE, "sbn/large.bin").await? == content, "the bytes are the same");
    let s3 = real.connected().await?.s3();
    let head = s3.head_object().bucket(ARCHIVE).key("sbn/large.bin").send().await?;
    assert!(head.e_tag().is_some_and(|etag| etag.contains("-13")), "thirteen parts: {:?}", head.e_tag());
    assert_eq!(open_uploads(&real).await?, 0);
    assert_eq!(keys(&real, "landfall-work", "uploads/").await?, Vec::<String>::new());
    let grown = real.memory_max("route")?.saturating_sub(idle);
    assert!(grown < 32 * 1024, "64 MiB were copied with {grown} KiB more than a small object takes");
    Ok(())
}

#[tokio::test]
async fn overwritten_keys_end_with_the_newest_in_another_store_too() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Pollers).await?;
    let s3 = real.connected().await?.s3();
    s3.create_bucket().bucket("far-away").send().await?;
    // The same store under a second name: for Landfall it is another one, and the bytes go through the worker.
    let endpoint = real.deployment.endpoint.clone().unwrap_or_default();
    real.put_work(
        "config/bucket-map.yaml",
        "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: landfall-archive}}, paths: [\
         {prefix: far/, bucket: {name: far-away, storage_class: GLACIER_IR}, tags: {project: far}}]}}}",
    )
    .await?;
    let far =
        format!("[[destination]]\nbucket = 'far-away'\nendpoint = '{endpoint}'\n[route.copy]\nstream_part_mib = 5\n");
    real.reconfigure(&far).await?;

    let landing = real.deployment.output("LandingBucket")?.to_owned();
    for content in ["one", "two", "one"] {
        for key in ["sbn/near.txt", "sbn/far/far.txt"] {
            let request = s3.put_object().bucket(&landing).key(key).content_type("text/plain").metadata("mine", "yes");
            request.tagging("own=1").body(content.as_bytes().to_vec().into()).send().await?;
        }
        real.settled(60).await?;
    }
    let content = large()[..11 * MIB].to_vec();
    put(&real, "sbn/far/large.bin", content.clone()).await?;
    let answer = real.settled(60).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": 3}), "{answer}");
    assert_eq!(body(&real, ARCHIVE, "sbn/near.txt").await?, b"one");
    assert_eq!(body(&real, "far-away", "sbn/far/far.txt").await?, b"one");
    assert!(body(&real, "far-away", "sbn/far/large.bin").await? == content);
    for (bucket, key, tags) in
        [(ARCHIVE, "sbn/near.txt", vec!["own"]), ("far-away", "sbn/far/far.txt", vec!["own", "project"])]
    {
        let head = s3.head_object().bucket(bucket).key(key).send().await?;
        let metadata = head.metadata().cloned().unwrap_or_default();
        assert_eq!((head.content_type(), metadata.get("mine").map(String::as_str)), (Some("text/plain"), Some("yes")));
        assert_eq!(metadata["landfall-source"], format!("s3://{landing}/{key}"));
        let tagged = s3.get_object_tagging().bucket(bucket).key(key).send().await?;
        let mut names: Vec<_> = tagged.tag_set().iter().map(|tag| tag.key()).collect();
        names.sort_unstable();
        assert_eq!(names, tags);
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_map_under_traffic_changes_nothing_and_completed_objects_are_cleared() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Pollers).await?;
    real.reconfigure("[[landing]]\nprofile = 'ingest'\nafter_route = 'delete'\n").await?;
    put(&real, "sbn/before.txt", b"x".to_vec()).await?;
    real.settled(60).await?;

    real.put_work("config/bucket-map.yaml", "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: Not_A_Bucket}}}}}")
        .await?;
    // Longer than a map is looked at anew.
    for number in 0..8 {
        put(&real, &format!("sbn/during-{number}.txt"), b"x".to_vec()).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    put(&real, "sbn/C/metadata/items/i.json", item("i", "C", "cleared").into_bytes()).await?;
    put(&real, "sbn/C/data/i.tif", b"II*".to_vec()).await?;
    put(&real, "sbn/C/metadata/collection.json", collection("C").into_bytes()).await?;
    put(&real, "sbn/C/metadata/broken.json", b"{".to_vec()).await?;
    let notices = real.notices(1 + 8 + 3 + 1).await?;
    let landing = real.deployment.output("LandingBucket")?.to_owned();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while keys(&real, &landing, "").await? != ["sbn/C/metadata/broken.json"] {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{:?}", keys(&real, &landing, "").await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The events of our own removals have come through.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = real.settled(60).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": 12, "refused": 1}), "{answer}");
    assert!(!notices.values().any(|notice| notice["type"].as_str().is_some_and(|kind| kind.ends_with(".delete"))));
    assert_eq!(real.notices(13).await?.len(), 13, "no removal of our own is announced");
    let log = real.worker_log("route")?;
    assert_eq!(log.matches("the new bucket map is refused; the last good one stays in force").count(), 1, "{log}");
    assert!(log.contains("map.bucket-name"), "the log names what is wrong");
    Ok(())
}

fn template() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/dedl/usergenerated-template");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: DestinE's template is not beside the project");
    None
}

#[tokio::test]
async fn destines_layout_goes_through_with_hrefs_to_objects_that_exist() -> anyhow::Result<()> {
    let Some(template) = template() else { return Ok(()) };
    let mut real = Real::start(Form::Pollers).await?;
    real.reconfigure("[[landing]]\nprovider = 'destine'\nprofile = 'dedl-user-generated'\n").await?;
    let (mirror, bundle) = (template.join("../../schemas"), real.scratch("schemas.bundle"));
    let (mirror, bundle) = (mirror.to_str().unwrap(), bundle.to_str().unwrap());
    real.run(&["schemas", "fetch", "--from", mirror, "--output", bundle]).await?;
    real.run(&["schemas", "set", bundle]).await?;
    let folder = real.scratch("submission/EO.XXX.YYY.ZZZ");
    let tree = std::fs::read_to_string(template.join("TREE.txt"))?;
    let mut files = 0;
    for path in tree.lines().filter_map(|line| line.strip_prefix("./")) {
        std::fs::create_dir_all(folder.join(path).parent().unwrap())?;
        // The documents are the template's own; the assets that it leaves out are made.
        let own = template.join(path);
        let content = if own.is_file() { std::fs::read_to_string(own)? } else { path.to_owned() };
        // The template leaves this one for its user to fill in.
        std::fs::write(folder.join(path), content.replace("URL_TO_DATASET_IMAGE", "https://example.com/dataset.png"))?;
        files += 1;
    }

    // Items first: they wait for their assets and for their collection.
    let root = folder.to_str().unwrap();
    for part in ["metadata/items", "data", "metadata"] {
        real.run(&["put", &format!("{root}/{part}"), "--prefix", &format!("EO.XXX.YYY.ZZZ/{part}")]).await?;
    }
    let answer = real.settled(120).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": files}), "{answer:#}");
    let url = real.deployment.database_url.clone().unwrap_or_default();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("set search_path to pgstac, public").await?;
    let found = client.query_one("select search('{\"limit\": 100}')", &[]).await?.get::<_, Value>(0);
    let items = found["features"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    let s3 = real.connected().await?.s3();
    let mut assets = 0;
    for asset in items.iter().flat_map(|item| item["assets"].as_object().unwrap().values()) {
        let href = asset["href"].as_str().unwrap();
        let (bucket, key) = href.strip_prefix("s3://").unwrap_or_default().split_once('/').unwrap_or_default();
        assert!(key.starts_with("destine/EO.XXX.YYY.ZZZ/data/2024/11/"), "{href}");
        s3.head_object().bucket(bucket).key(key).send().await?;
        assets += 1;
    }
    assert!(assets >= 16, "{assets}");
    Ok(())
}
