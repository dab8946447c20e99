//! The same promises on real parts: PostgreSQL with pgSTAC, ministack, the deployed template, the worker programs.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use landfall::deployment::Connected;
use landfall_events::validated::ObjectAccepted;
use landfall_events::{Change, Envelope, Validated};
use landfall_shared::runner::message;
use landfall_tests::load_world::{self, Schedule};
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real, tools};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const ITEMS: usize = 96;
const DATA: usize = 100;
/// Ninety-six items with as many assets, four more files, three broken documents and a collection.
const FILES: usize = ITEMS + DATA + 3 + 1;

/// Writes a dataset of two hundred files in the usual layout.
fn dataset(folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("sbn/C");
    std::fs::create_dir_all(root.join("metadata/items"))?;
    std::fs::create_dir_all(root.join("data"))?;
    std::fs::write(root.join("metadata/collection.json"), collection("C"))?;
    for number in 0..ITEMS {
        let id = format!("i{number:03}");
        std::fs::write(root.join(format!("metadata/items/{id}.json")), item(&id, "C", "of two hundred"))?;
    }
    for number in 0..DATA {
        std::fs::write(root.join(format!("data/i{number:03}.tif")), format!("II*{number}"))?;
    }
    std::fs::write(root.join("metadata/items/broken-1.json"), "{")?;
    std::fs::write(root.join("metadata/items/broken-2.json"), item("", "C", "without an id"))?;
    std::fs::write(root.join("metadata/items/broken-3.json"), "[1, 2, 3]")?;
    Ok(())
}

/// What became of each key, without times and ids of events.
fn outcomes(answer: &Value) -> BTreeMap<String, String> {
    let objects = answer["objects"].as_array().expect("there are objects");
    let outcome = |object: &Value| {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        (text("key"), format!("{} {} {}", text("outcome"), text("code"), text("destination")))
    };
    objects.iter().map(outcome).collect()
}

/// Every file is in exactly one state, and every state is the expected one.
#[track_caller]
fn check_two_hundred(answer: &Value) {
    let objects = answer["objects"].as_array().expect("there are objects");
    let keys: BTreeSet<_> = objects.iter().map(|object| object["key"].as_str()).collect();
    assert_eq!((objects.len(), keys.len()), (FILES, FILES), "{}", answer["summary"]);
    assert_eq!(answer["summary"], serde_json::json!({"completed": FILES - 3, "refused": 3}));
}

async fn put(real: &Real) -> anyhow::Result<()> {
    let folder = real.scratch("dataset");
    dataset(&folder)?;
    let output = real.run(&["put", folder.to_str().expect("a temporary path is UTF-8"), "--format", "json"]).await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Dead letters as (stage, code), repetitions counted once.
async fn letters(real: &Real) -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let output = real.run(&["dlq", "ls", "--format", "json"]).await?;
    let groups: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let text = |group: &Value, name: &str| group[name].as_str().unwrap_or_default().to_owned();
    let pair = |group: &Value| ((text(group, "stage"), text(group, "code")), group["letters"].as_u64().unwrap_or(0));
    Ok(groups.iter().map(pair).collect())
}

fn expected_letters() -> BTreeMap<(String, String), u64> {
    let of = |code: &str, count| (("validate".to_owned(), code.to_owned()), count);
    [of("stac.not-stac", 1), of("stac.schema", 1), of("stac.unparseable", 1)].into()
}

async fn count_items(real: &Real) -> anyhow::Result<i64> {
    let url = real.deployment.database_url.clone().unwrap_or_default();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client.query_one("select count(*) from pgstac.items", &[]).await?.get(0))
}

#[tokio::test]
async fn two_hundred_files_at_once_are_all_accounted_for() -> anyhow::Result<()> {
    let real = Real::start(Form::Pollers).await?;

    put(&real).await?;
    let answer = real.settled(120).await?;

    check_two_hundred(&answer);
    assert_eq!(letters(&real).await?, expected_letters());
    assert_eq!(count_items(&real).await?, ITEMS as i64);
    assert_eq!(real.notices(FILES).await?.len(), FILES);

    // The provider is told the same, who has rights on S3 and no deployment or database.
    let outputs = &real.deployment.outputs;
    let buckets = ["--landing-bucket", &outputs["LandingBucket"], "--work-bucket", &outputs["WorkBucket"]];
    let asked = async |arguments: &[&str]| {
        let mut command = real.landfall(&["status", "--as-provider", "sbn", "--format", "json", "--wait", "60"]);
        command.args(buckets).args(arguments).env("LANDFALL_STATE", "nowhere").envs(real.aws_environment());
        let output = command.output().await.unwrap();
        let told = || String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", told()))
    };
    let provider = asked(&[]).await;
    assert_eq!(outcomes(&provider), outcomes(&answer));
    let stages = |object: &Value| -> Vec<String> {
        let passed = object["passed"].as_array().unwrap().iter();
        passed.map(|passed| passed["stage"].as_str().unwrap().to_owned()).collect()
    };
    let of_key = |answer: &Value, key: &str| {
        answer["objects"].as_array().unwrap().iter().find(|object| object["key"] == key).unwrap().clone()
    };
    for answer in [&provider, &answer] {
        let item = of_key(answer, "sbn/C/metadata/items/i007.json");
        assert_eq!(stages(&item), ["validate", "route", "load", "notify"], "{item:#}");
        let broken = of_key(answer, "sbn/C/metadata/items/broken-2.json");
        assert_eq!(stages(&broken), ["validate", "notify"], "{broken:#}");
        assert_eq!(broken["problems"][0]["pointer"], "/id");
        assert!(broken["hint"].is_string());
    }

    let summary = serde_json::json!({"completed": ITEMS, "refused": 3});
    let codes = serde_json::json!({"stac.not-stac": 1, "stac.schema": 1, "stac.unparseable": 1});
    let delivery = ["status", "--delivery", "sbn/C/metadata/items/", "--wait", "60", "--format", "json"];
    let by_operator: Value = serde_json::from_slice(&real.run(&delivery).await?.stdout)?;
    for told in [by_operator, asked(&["--delivery", "sbn/C/metadata/items/"]).await] {
        assert_eq!((&told["summary"], &told["refused"]), (&summary, &codes));
    }
    Ok(())
}

#[tokio::test]
async fn killed_workers_that_are_started_again_come_to_the_same_end() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Pollers).await?;

    put(&real).await?;
    // In the middle: something is done, and not everything.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        real.kill_workers().await?;
        real.start_workers()?;
    }
    let answer = real.settled(180).await?;

    check_two_hundred(&answer);
    assert_eq!(letters(&real).await?, expected_letters());
    assert_eq!(count_items(&real).await?, ITEMS as i64);
    // Each at least once; `notices` fails where one id has two contents.
    assert_eq!(real.notices(FILES).await?.len(), FILES);
    assert_eq!(outcomes(&answer).len(), FILES);
    Ok(())
}

#[tokio::test]
async fn an_outage_of_the_database_dead_letters_nothing() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Pollers).await?;

    put(&real).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    real.stop_postgres().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    real.start_postgres().await?;
    let answer = real.settled(180).await?;

    check_two_hundred(&answer);
    assert_eq!(letters(&real).await?, expected_letters());
    assert_eq!(count_items(&real).await?, ITEMS as i64);
    Ok(())
}

/// What a key can hold that something on the way may trip over.
const STRANGE: &str = "a b+c%20d%ü🛰.txt";

#[tokio::test]
async fn a_strange_key_goes_all_the_way_by_put_and_by_boto3() -> anyhow::Result<()> {
    let real = Real::start(Form::Pollers).await?;
    let file = real.scratch(STRANGE);
    std::fs::write(&file, "strange")?;

    real.run(&["put", file.to_str().expect("it is UTF-8"), "--provider", "sbn", "--prefix", "by put"]).await?;
    let script = "import boto3, sys\ns3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', \
        aws_access_key_id='landfall', aws_secret_access_key='landfall')\n\
        s3.upload_file(sys.argv[2], sys.argv[3], sys.argv[4])";
    let endpoint = real.deployment.endpoint.clone().unwrap_or_default();
    let mut boto = real.python();
    boto.args(["-c", script, &endpoint]).arg(&file).arg(real.deployment.output("LandingBucket")?);
    let done = boto.arg(format!("sbn/by boto/{STRANGE}")).output().await?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answer = real.settled(60).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": 2}), "{answer}");
    let s3 = real.connected().await?.s3();
    for folder in ["by put", "by boto"] {
        let key = format!("sbn/{folder}/{STRANGE}");
        let stored = s3.get_object().bucket("landfall-archive").key(&key).send().await?;
        assert_eq!(stored.body.collect().await?.into_bytes().as_ref(), b"strange", "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn a_redriven_letter_completes_and_a_mended_item_supersedes_its_letter() -> anyhow::Result<()> {
    let real = Real::start(Form::Pollers).await?;
    let folder = real.scratch("two");
    std::fs::create_dir_all(folder.join("sbn/C/metadata"))?;
    std::fs::create_dir_all(folder.join("img"))?;
    std::fs::write(folder.join("img/a.dat"), "of a provider that the map does not know")?;
    std::fs::write(folder.join("sbn/C/metadata/collection.json"), collection("C").replace("CC-BY-4.0", ""))?;
    let path = folder.to_str().expect("it is UTF-8");
    real.run(&["put", path]).await?;
    let answer = real.settled(60).await?;
    assert_eq!(answer["summary"], serde_json::json!({"refused": 2}), "{answer}");

    std::fs::write(folder.join("sbn/C/metadata/collection.json"), collection("C"))?;
    std::fs::remove_file(folder.join("img/a.dat"))?;
    real.run(&["put", path]).await?;
    let map = real.scratch("map.yaml");
    std::fs::write(
        &map,
        "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: landfall-archive}}}, IMG: {default: {bucket: {name: landfall-archive}}}}}",
    )?;
    real.run(&["map", "set", map.to_str().expect("it is UTF-8")]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let dry = real.run(&["dlq", "redrive", "--code", "route.unmapped", "--dry-run", "--format", "json"]).await?;
    assert_eq!(serde_json::from_slice::<Value>(&dry.stdout)?["redriven"], 0);
    let redriven = real.run(&["dlq", "redrive", "--code", "route.unmapped", "--format", "json"]).await?;
    assert_eq!(serde_json::from_slice::<Value>(&redriven.stdout)?["redriven"], 1);
    // Two refusals, two completions.
    real.notices(4).await?;
    let answer = real.settled(60).await?;

    assert_eq!(answer["summary"], serde_json::json!({"completed": 2}), "{answer}");
    let output = real.run(&["dlq", "ls", "--format", "json"]).await?;
    let groups: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert_eq!((&groups[0]["letters"], &groups[0]["superseded"]), (&1.into(), &1.into()));
    Ok(())
}

/// More items than one release lets go on at a time.
const PARKED: usize = 230;

#[tokio::test]
async fn members_parked_large_and_removed_documents_end_as_they_should() -> anyhow::Result<()> {
    let real = Real::start(Form::Pollers).await?;
    let folder = real.scratch("members");
    std::fs::create_dir_all(folder.join("sbn/C/metadata"))?;
    let without_assets = |id: &str, title: &str| {
        let mut item: Value = serde_json::from_str(&item(id, "C", title)).expect("it is JSON");
        item["assets"] = serde_json::json!({});
        item
    };
    let lines: Vec<_> =
        (0..PARKED).map(|number| without_assets(&format!("m{number:03}"), "a line").to_string()).collect();
    std::fs::write(folder.join("sbn/C/metadata/items.ndjson"), format!("{}\nnot json\n", lines.join("\n")))?;
    // Larger than what a message carries.
    let large = without_assets("large", &"x".repeat(300_000));
    std::fs::write(folder.join("sbn/C/metadata/large.json"), large.to_string())?;
    std::fs::write(folder.join("sbn/C/metadata/soon-gone.json"), without_assets("gone", "soon gone").to_string())?;
    let path = folder.to_str().expect("it is UTF-8").to_owned();
    real.run(&["put", &path]).await?;
    real.settled_as(&serde_json::json!({"waiting": PARKED + 2, "refused": 1}), 60).await?;

    std::fs::write(folder.join("sbn/C/metadata/collection.json"), collection("C"))?;
    let one = folder.join("sbn/C/metadata/collection.json");
    real.run(&["put", one.to_str().expect("it is UTF-8"), "--prefix", "sbn/C/metadata"]).await?;
    real.notices(PARKED + 4).await?;
    real.settled_as(&serde_json::json!({"completed": PARKED + 3, "refused": 1}), 60).await?;
    assert_eq!(count_items(&real).await?, PARKED as i64 + 2);

    let s3 = real.connected().await?.s3();
    let bucket = real.deployment.output("LandingBucket")?;
    s3.delete_object().bucket(bucket).key("sbn/C/metadata/soon-gone.json").send().await?;
    let notices = real.notices(PARKED + 5).await?;
    let deleted = notices.values().filter(|notice| notice["type"] == "org.ogc.api.collection.item.delete");
    let deleted: Vec<_> = deleted.map(|notice| notice["subject"].as_str()).collect();
    assert_eq!(deleted, [Some("/collections/C/items/gone")]);
    assert_eq!(count_items(&real).await?, PARKED as i64 + 1);
    real.settled_as(&serde_json::json!({"completed": PARKED + 2, "refused": 1, "removed": 1}), 30).await?;

    let told = async |expected: Value| {
        let mut asked = Value::Null;
        for _ in 0..150 {
            let output = real.run(&["status", "--as-provider", "sbn", "--format", "json", "--summary"]).await.unwrap();
            asked = serde_json::from_slice::<Value>(&output.stdout).unwrap()["summary"].take();
            if asked == expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        panic!("{asked} is told, and {expected} was to be");
    };
    told(serde_json::json!({"completed": PARKED + 2, "refused": 1, "removed": 1})).await;
    // A letter that is dropped is over for its provider too.
    let dropped: Value =
        serde_json::from_slice(&real.run(&["dlq", "drop", "--all", "--format", "json"]).await?.stdout)?;
    assert_eq!(dropped["dropped"], 1);
    told(serde_json::json!({"completed": PARKED + 2, "ignored": 1, "removed": 1})).await;
    // Of a file that lands again with fewer lines, what the first had more is over.
    let file = folder.join("sbn/C/metadata/items.ndjson");
    std::fs::write(&file, format!("{}\n{}\n", lines[0], lines[1]))?;
    real.run(&["put", file.to_str().expect("it is UTF-8"), "--prefix", "sbn/C/metadata"]).await?;
    told(serde_json::json!({"completed": 4, "superseded": PARKED - 2 + 1, "removed": 1})).await;
    // As a whole it goes with all that it ever had.
    s3.delete_object().bucket(bucket).key("sbn/C/metadata/items.ndjson").send().await?;
    told(serde_json::json!({"completed": 2, "removed": PARKED + 1 + 1 + 1})).await;
    assert_eq!(count_items(&real).await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_same_programs_as_functions_under_their_roles_outlive_an_outage() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Lambdas).await?;

    put(&real).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    real.stop_postgres().await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    real.start_postgres().await?;
    let answer = real.settled(240).await?;

    check_two_hundred(&answer);
    assert_eq!(letters(&real).await?, expected_letters());
    assert_eq!(count_items(&real).await?, ITEMS as i64);
    assert_eq!(real.notices(FILES).await?.len(), FILES);

    // Maintenance too is a function under a role of its own.
    let dead = real.connected().await?.queue(real.deployment.dead_queue_url("route")?);
    let cause = load_world::cause("sbn/crashed.txt", Change::Created, 1);
    let crashed = message(&Envelope::new(Validated::from(ObjectAccepted { cause }), "sbn", 0), "sbn");
    dead.send(vec![crashed]).await.remove(0)?;
    let invoke = "import boto3, sys\nanswer = boto3.client('lambda').invoke(FunctionName=sys.argv[1])\n\
        sys.exit(answer['Payload'].read().decode() if 'FunctionError' in answer else 0)";
    let function = &real.deployment.outputs["MaintainFunction"];
    let invoked = real.python().args(["-c", invoke, function]).envs(real.aws_environment()).output().await?;
    assert!(invoked.status.success(), "{}", String::from_utf8_lossy(&invoked.stderr));
    assert_eq!(letters(&real).await?.get(&("route".to_owned(), "gave-up".to_owned())), Some(&1));
    Ok(())
}

/// Waits until nothing is in a stage's queue, seen or unseen.
async fn at_rest(connected: &Connected, stage: &str) -> anyhow::Result<()> {
    use aws_sdk_sqs::types::QueueAttributeName as Name;
    let counts = [
        Name::ApproximateNumberOfMessages,
        Name::ApproximateNumberOfMessagesNotVisible,
        Name::ApproximateNumberOfMessagesDelayed,
    ];
    let sqs = aws_sdk_sqs::Client::new(&connected.sdk);
    let url = connected.deployment.queue_url(stage)?;
    let mut quiet = 0;
    for _ in 0..1200 {
        let asked = sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(counts.to_vec()));
        let answer = asked.send().await?;
        let is_empty = answer.attributes().is_some_and(|counts| counts.values().all(|count| count == "0"));
        quiet = if is_empty { quiet + 1 } else { 0 };
        if quiet == 5 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{stage} does not come to rest")
}

/// What `order` has for workers in memory, for the functions: load's own, with connections and settings of its own.
#[tokio::test]
async fn a_few_schedules_through_the_functions_end_as_their_causes_say() -> anyhow::Result<()> {
    let mut real = Real::start(Form::Lambdas).await?;
    let connected = real.connected().await?;
    let (s3, queue) = (connected.s3(), connected.queue(connected.deployment.queue_url("load")?));
    let url = real.deployment.database_url.clone().expect("a local deployment has one");
    for seed in 0..4 {
        let mut dice = StdRng::seed_from_u64(seed);
        let schedule = Schedule::random(&mut dice);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        load_world::empty(&client).await?;
        for (object, text) in &schedule.archived {
            let body = text.clone().into_bytes().into();
            s3.put_object().bucket(&object.bucket).key(&object.key).body(body).send().await?;
        }
        for (number, some) in schedule.deliveries.chunks(7).enumerate() {
            if seed % 2 == 1 && number == 2 {
                real.restart_postgres_at_once().await?;
            }
            for sent in queue.send(some.iter().map(|delivery| message(delivery, "load")).collect()).await {
                sent?;
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..300))).await;
        }

        at_rest(&connected, "load").await?;

        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        assert_eq!(load_world::held(&client).await?, schedule.expected, "seed {seed}");
        assert!(letters(&real).await?.is_empty());
    }
    Ok(())
}

/// Runs `landfall` on a state folder and gives what it printed.
async fn landfall(state: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let program = landfall::local::worker("validate").expect("the workers are built").with_file_name("landfall");
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).arg("--state").arg(state).stdin(std::process::Stdio::null());
    command.env("LANDFALL_TOOLS", tools());
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.code() != Some(2), "landfall {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_stopped_and_a_killed_landfall_go_on_where_they_were() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("landfall-test-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let state = folder.path().join("state");
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "one")?;
    let put = ["put", file.to_str().expect("it is UTF-8"), "--provider", "sbn"];
    let completed = serde_json::json!({"completed": 1});

    landfall(&state, &["up", "--detach"]).await?;
    landfall(&state, &put).await?;
    let first: Value = serde_json::from_str(&landfall(&state, &["status", "--wait", "30", "--format", "json"]).await?)?;
    assert_eq!(first["summary"], completed);
    landfall(&state, &["down"]).await?;
    let running = |state: &Path| landfall::local::supervisor::Running::parts(state);
    assert_eq!(running(&state), [], "nothing is left running");

    landfall(&state, &["up", "--detach"]).await?;
    let text = std::fs::read_to_string(state.join("running.json"))?;
    let supervisor = serde_json::from_str::<Value>(&text)?["supervisor"]["pid"].as_i64().expect("it has a number");
    let supervisor = nix::unistd::Pid::from_raw(i32::try_from(supervisor)?);
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL)?;
    // Everything that it left is found, stopped and started again.
    landfall(&state, &["up", "--detach"]).await?;
    std::fs::write(&file, "two")?;
    landfall(&state, &put).await?;
    let second: Value =
        serde_json::from_str(&landfall(&state, &["status", "--wait", "30", "--format", "json"]).await?)?;
    assert_eq!(second["summary"], completed, "{second}");
    assert_ne!(second["objects"][0]["event"], first["objects"][0]["event"]);
    landfall(&state, &["down"]).await?;
    assert_eq!(running(&state), [], "nothing is left running");
    Ok(())
}

/// Problems as (code, place), of a notice's data or of an object of `landfall status`.
fn problems(of: &Value) -> BTreeSet<(String, String)> {
    let text = |problem: &Value, name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let list = of["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|problem| (text(problem, "code"), text(problem, "pointer"))).collect()
}

fn rejected(notices: &BTreeMap<String, Value>) -> Vec<&Value> {
    notices.values().filter(|notice| notice["type"] == "landfall.object.rejected.v1").collect()
}

/// An item that needs nothing beside it.
fn lone_item(id: &str) -> Value {
    let mut item: Value = serde_json::from_str(&item(id, "C", "alone")).expect("it is JSON");
    item["assets"] = serde_json::json!({});
    item
}

#[tokio::test]
async fn a_provider_is_told_every_fault_and_one_bad_document_holds_up_no_other() -> anyhow::Result<()> {
    const LINES: usize = 5_000;
    let real = Real::start(Form::Pollers).await?;
    let metadata = real.scratch("dataset").join("sbn/C/metadata");
    std::fs::create_dir_all(metadata.join("items"))?;
    std::fs::write(metadata.join("collection.json"), collection("C"))?;

    // A batch of ten, one of which has three faults; a file of lines, seven of which are bad.
    for number in 0..9 {
        let mut good = lone_item(&format!("good-{number}"));
        if number == 0 {
            // The link to its collection is added.
            good["links"] = serde_json::json!([]);
        }
        std::fs::write(metadata.join(format!("items/good-{number}.json")), good.to_string())?;
    }
    let mut faulty = lone_item("faulty");
    faulty["properties"]["datetime"] = "17.5.2024".into();
    faulty["properties"]["gsd"] = 0.into();
    faulty["links"][0]["href"] = 7.into();
    std::fs::write(metadata.join("items/faulty.json"), faulty.to_string())?;
    let bad: BTreeSet<usize> = [1, 2, 77, 2_500, 2_501, 4_999, 5_000].into();
    let line = |number: usize| match (bad.contains(&number), number % 2) {
        (false, _) => lone_item(&format!("line-{number}")).to_string(),
        (true, 0) => "{\"type\":\"Feature\",".to_owned(),
        (true, _) => lone_item("").to_string(),
    };
    let lines: Vec<String> = (1..=LINES).map(line).collect();
    std::fs::write(metadata.join("lines.ndjson"), lines.join("\n"))?;

    let folder = real.scratch("dataset");
    real.run(&["put", folder.to_str().expect("a temporary path is UTF-8")]).await?;
    let completed = 1 + 9 + LINES - bad.len();
    let summary = serde_json::json!({"completed": completed, "refused": 1 + bad.len()});
    real.settled_as(&summary, 120).await?;

    // The same three faults in the notice and in the status.
    let expected: BTreeSet<_> = [
        ("stac.datetime", "/properties/datetime"),
        ("stac.schema", "/links/0/href"),
        ("stac.schema", "/properties/gsd"),
    ]
    .map(|(code, pointer)| (code.to_owned(), pointer.to_owned()))
    .into();
    let notices = real.notices(completed + 1 + bad.len()).await?;
    let of_faulty: Vec<_> = rejected(&notices)
        .into_iter()
        .filter(|notice| notice["data"]["object"]["key"] == "sbn/C/metadata/items/faulty.json")
        .collect();
    assert_eq!(of_faulty.len(), 1, "{of_faulty:#?}");
    assert_eq!(problems(&of_faulty[0]["data"]), expected, "{:#}", of_faulty[0]);
    let status = real.run(&["status", "sbn/C/metadata/items/faulty.json", "--format", "json"]).await?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    assert_eq!(problems(&status["objects"][0]), expected, "{status:#}");

    // `landfall check` says the same of the bucket.
    let landing = format!("s3://{}/sbn/C/metadata/items", real.deployment.output("LandingBucket")?);
    let checked = real.run(&["check", &landing, "--format", "json"]).await?;
    let checked = String::from_utf8(checked.stdout)?;
    let checked: Vec<Value> =
        checked.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let faulty: Vec<_> = checked.iter().filter(|file| file["refused"] == true).collect();
    assert_eq!((checked.len(), faulty.len()), (10, 1), "{checked:#?}");
    assert_eq!(problems(&serde_json::json!({"problems": faulty[0]["findings"]})), expected);

    // What was mended says so.
    let mended = real.run(&["status", "sbn/C/metadata/items/good-0.json", "--format", "json"]).await?;
    let mended: Value = serde_json::from_slice(&mended.stdout)?;
    assert_eq!(mended["objects"][0]["problems"][0]["patched"], true, "{mended:#}");

    // Each bad line is refused by its number.
    let of_lines = rejected(&notices)
        .into_iter()
        .filter(|notice| notice["data"]["object"]["key"] == "sbn/C/metadata/lines.ndjson");
    let numbers: BTreeSet<usize> = of_lines
        .filter_map(|notice| notice["data"]["object"]["member"].as_u64())
        .map(|number| number as usize)
        .collect();
    assert_eq!(numbers, bad);
    assert_eq!(count_items(&real).await?, (9 + LINES - bad.len()) as i64);
    Ok(())
}

/// An extension of our own, as published ones are built.
const EXTENSION: &str = "https://schemas.landfall.example/orbit/v1.0.0/schema.json";

#[tokio::test]
async fn a_bundle_is_swapped_while_running_and_a_corrupt_one_is_refused() -> anyhow::Result<()> {
    let real = Real::start(Form::Pollers).await?;
    let folder = real.scratch("dataset").join("sbn/C/metadata");
    std::fs::create_dir_all(&folder)?;
    let put = async |id: &str| -> anyhow::Result<String> {
        let mut item = lone_item(id);
        item["stac_extensions"] = serde_json::json!([EXTENSION]);
        item["properties"]["orbit:number"] = serde_json::json!(if id.starts_with("wrong") { 0 } else { 1 });
        let file = folder.join(format!("{id}.json"));
        std::fs::write(&file, item.to_string())?;
        let prefix = "sbn/C/metadata";
        real.run(&["put", file.to_str().expect("a temporary path is UTF-8"), "--prefix", prefix]).await?;
        let answer = real.run(&["status", &format!("{prefix}/{id}.json"), "--wait", "30", "--format", "json"]).await?;
        let answer: Value = serde_json::from_slice(&answer.stdout)?;
        let object = &answer["objects"][0];
        Ok(format!(
            "{} {}",
            object["outcome"].as_str().unwrap_or_default(),
            object["code"].as_str().unwrap_or_default()
        ))
    };
    std::fs::write(folder.join("collection.json"), collection("C"))?;
    real.run(&["put", folder.join("collection.json").to_str().expect("UTF-8"), "--prefix", "sbn/C/metadata"]).await?;
    assert_eq!(put("before").await?, "refused stac.extension-unknown");

    // A bundle is made from a mirror and put in force.
    let mirror = real.scratch("mirror");
    let schema = mirror.join("schemas.landfall.example/orbit/v1.0.0/schema.json");
    std::fs::create_dir_all(schema.parent().expect("it has one"))?;
    let text = serde_json::json!({"properties": {"properties": {"properties": {"orbit:number": {"minimum": 1}}}}});
    std::fs::write(&schema, text.to_string())?;
    let path = |name: &str| real.scratch(name).to_str().expect("a temporary path is UTF-8").to_owned();
    let (lock, bundle, mirror) = (path("own.lock"), path("own.bundle"), path("mirror"));
    std::fs::write(&lock, "")?;
    real.run(&["schemas", "add", EXTENSION, "--lock", &lock, "--from", &mirror, "--licence", "CC0-1.0"]).await?;
    real.run(&["schemas", "fetch", "--lock", &lock, "--from", &mirror, "--output", &bundle]).await?;
    real.run(&["schemas", "set", &bundle]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(put("after").await?, "completed ");
    assert_eq!(put("wrong").await?, "refused stac.schema");

    // A corrupt one is refused loudly, and the last good one stays.
    let connected = real.connected().await?;
    let work = connected.deployment.output("WorkBucket")?;
    let corrupt = std::fs::read_to_string(&bundle)?.replace("minimum", "maximum");
    let body = corrupt.into_bytes().into();
    connected.s3().put_object().bucket(work).key("config/schemas.bundle").body(body).send().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(put("wrong-again").await?, "refused stac.schema");
    assert_eq!(put("after-all").await?, "completed ");
    let log = real.worker_log("validate")?;
    assert!(log.contains("the new schema bundle is refused; the last good one stays in force"), "{log}");
    Ok(())
}
