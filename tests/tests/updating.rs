//! An update of the stack and its rollback while files land: nothing is drained, lost or doubled.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;

use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real};
use serde_json::{Value, json};

/// Items of a delivery of their own; one of them is broken.
fn delivery(folder: &Path, name: &str, items: usize) {
    let root = folder.join("sbn/C/metadata").join(name);
    std::fs::create_dir_all(&root).unwrap();
    for number in 0..items {
        let id = format!("{name}-{number:04}");
        let mut item: Value = serde_json::from_str(&item(&id, "C", "t")).unwrap();
        item["assets"] = json!({});
        std::fs::write(root.join(format!("{id}.json")), item.to_string()).unwrap();
    }
    std::fs::write(root.join("broken.json"), "{").unwrap();
}

/// Puts zips that differ from the first ones, as another release's do, under `v2/`.
const RELEASE: &str = r#"
import boto3, io, zipfile
s3 = boto3.client("s3")
for name in ["validate", "route", "load", "notify", "maintain"]:
    body = io.BytesIO(s3.get_object(Bucket="landfall-code", Key=f"{name}.zip")["Body"].read())
    with zipfile.ZipFile(body, "a") as release:
        release.comment = b"v2"
    s3.put_object(Bucket="landfall-code", Key=f"v2/{name}.zip", Body=body.getvalue())
"#;

/// The hashes of what the functions are.
const HASHES: &str = r#"
import boto3, json
functions = boto3.client("lambda").list_functions()["Functions"]
print(json.dumps({one["FunctionName"]: one["CodeSha256"] for one in functions}))
"#;

async fn python(real: &Real, script: &str) -> String {
    let output = real.python().args(["-c", script]).envs(real.aws_environment()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn hashes(real: &Real) -> serde_json::Map<String, Value> {
    serde_json::from_str(&python(real, HASHES).await).unwrap()
}

const ITEMS: usize = 150;

#[tokio::test]
async fn an_update_under_traffic_and_its_rollback_lose_and_double_nothing() {
    let real = Real::start(Form::Lambdas).await.unwrap();
    let first = hashes(&real).await;
    assert_eq!(first.len(), 5);
    python(&real, RELEASE).await;
    let root = real.scratch("dataset");
    let names = ["before", "update", "between", "rollback"];
    for name in names {
        delivery(&root.join(name), name, ITEMS);
    }
    std::fs::write(root.join("before/sbn/C/metadata/collection.json"), collection("C")).unwrap();

    // Each is begun while the one before is still on its way.
    for (name, prefix) in names.into_iter().zip([None, Some("v2/"), None, Some("")]) {
        let folder = root.join(name);
        let mut traffic = real.landfall(&["put", folder.to_str().unwrap()]).spawn().unwrap();
        if let Some(prefix) = prefix {
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            real.update(&[("CodePrefix", prefix)]).await.unwrap();
            let now = hashes(&real).await;
            let changed = now.iter().filter(|(function, hash)| first[*function] != **hash).count();
            assert_eq!(changed, if prefix.is_empty() { 0 } else { 5 }, "{now:?}");
        }
        assert!(traffic.wait().await.unwrap().success());
    }

    let files = names.len() * ITEMS + 1;
    real.settled_as(&json!({"completed": files, "refused": names.len()}), 300).await.unwrap();
    // By their ids: each at least once, and none that nothing has landed for.
    assert_eq!(real.notices(files + names.len()).await.unwrap().len(), files + names.len());
    let url = real.deployment.database_url.as_deref().unwrap();
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let items: i64 = client.query_one("select count(*) from pgstac.items", &[]).await.unwrap().get(0);
    assert_eq!(items, (names.len() * ITEMS) as i64);
    let listed = real.run(&["dlq", "ls", "--format", "json"]).await.unwrap();
    let groups: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let told: Vec<_> =
        groups.as_array().unwrap().iter().map(|one| (one["code"].as_str(), one["letters"].as_u64())).collect();
    assert_eq!(told, [(Some("stac.unparseable"), Some(names.len() as u64))], "{groups}");
}
