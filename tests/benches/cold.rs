//! What a cold start costs: from the start of each worker's process to its answer to the first record, beside a function
//! that does nothing, on the same runtime in the same run; and the most memory that each has had.
//!
//! Every record is a real one: an object that landed, carried from stage to stage by the real queues.

#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::path::PathBuf;
use std::time::Duration;

use landfall_shared::queue::Delivery;
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::{Form, Real, memory_max};
use landfall_tests::runtime_api::RuntimeApi;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How often each is started.
const STARTS: usize = 15;

/// What is handled by one process, to see what memory it comes to.
const ITEMS: usize = 2_000;

/// Items of one file.
const LINES: usize = 20_000;

/// Records of a batch, as the template has them.
const BATCH: usize = 10;
const LOAD_BATCH: usize = 100;

/// One cold start: milliseconds until it asks for an event, and until it has answered the first; KiB at most.
struct Start {
    init: f64,
    first: f64,
    memory: u64,
}

#[tokio::main]
async fn main() {
    let real = Real::start(Form::Parts).await.unwrap();
    let stages = landfall::stages();
    land(&real, "collection", &collection("C")).await;
    for stage in &stages {
        let mut worker = Worker::start(&real, stage).await;
        worker.handle(receive(&real, stage, 1).await).await;
        // What the ledger is told beside it.
        drain(&real, stage, &mut worker).await;
    }

    let mut starts: Vec<(&str, Vec<Start>)> = Vec::new();
    for number in 0..STARTS {
        eprint!("\rcold: start {} of {STARTS}", number + 1);
        let id = format!("cold{number:03}");
        land(&real, &id, &lone(&id)).await;
        for stage in &stages {
            let records = receive(&real, stage, 1).await;
            let empty = cold(start_empty, records.clone()).await;
            let worker = cold(|api| Process(real.start_function(stage, api).unwrap()), records.clone()).await;
            delete(&real, stage, records).await;
            for (name, start) in [("empty", empty), (*stage, worker)] {
                match starts.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, all)) => all.push(start),
                    None => starts.push((name, vec![start])),
                }
            }
        }
    }
    eprintln!();

    println!(
        "Medians of {STARTS} cold starts (the empty function: of {}); times as ratios to the empty function's",
        STARTS * stages.len()
    );
    println!("first answer in the same run, which took {:.1} ms here:", median(&starts[0].1, |start| start.first));
    let empty = median(&starts[0].1, |start| start.first);
    println!("{:<10} {:>8} {:>14} {:>10}", "", "init", "first record", "memory");
    for (name, all) in &starts {
        let (init, first) = (median(all, |start| start.init), median(all, |start| start.first));
        let memory = median(all, |start| start.memory as f64) / 1024.0;
        println!("{name:<10} {:>7.1}× {:>13.1}× {memory:>7.0} MiB", init / empty, first / empty);
    }

    println!("The most memory of one process after {ITEMS} items, in batches of {BATCH} (load: {LOAD_BATCH}):");
    for number in 0..ITEMS {
        let id = format!("warm{number:05}");
        land(&real, &id, &lone(&id)).await;
    }
    for stage in &stages {
        let mut worker = Worker::start(&real, stage).await;
        drain(&real, stage, &mut worker).await;
        println!("{stage:<10} {:>4} MiB", worker.process.memory_max() / 1024);
    }

    let lines: Vec<String> = (0..LINES).map(|number| lone(&format!("line{number:05}"))).collect();
    let text = lines.join("\n");
    let size = text.len() as f64 / 1e6;
    land_as(&real, "sbn/C/metadata/lines.ndjson", &text).await;
    let mut worker = Worker::start(&real, "validate").await;
    drain(&real, "validate", &mut worker).await;
    let memory = worker.process.memory_max() / 1024;
    println!("{:<10} {memory:>4} MiB  with one file of {LINES} items, {size:.0} MB", "validate");
}

fn lone(id: &str) -> String {
    let mut item: serde_json::Value = serde_json::from_str(&item(id, "C", "t")).unwrap();
    item["assets"] = json!({});
    item.to_string()
}

async fn land(real: &Real, name: &str, text: &str) {
    land_as(real, &format!("sbn/C/metadata/{name}.json"), text).await;
}

async fn land_as(real: &Real, key: &str, text: &str) {
    let s3 = real.connected().await.unwrap().s3();
    let bucket = real.deployment.output("LandingBucket").unwrap();
    s3.put_object().bucket(bucket).key(key).body(text.as_bytes().to_vec().into()).send().await.unwrap();
}

/// Starts a process without anything warm, and lets it handle these records.
async fn cold(start: impl FnOnce(&str) -> Process, records: Vec<Delivery>) -> Start {
    let mut api = RuntimeApi::start().await.unwrap();
    let event = event(&records);
    let begun = Instant::now();
    let process = start(&api.address);
    let ready = api.ready().await.unwrap();
    let (answered, answer) = api.invoke(event).await.unwrap();
    check(&answer);
    let since = |at: Instant| at.duration_since(begun).as_secs_f64() * 1000.0;
    Start { init: since(ready), first: since(answered), memory: process.memory_max() }
}

fn check(answer: &str) {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["batchItemFailures"], json!([]), "every record was settled");
}

fn start_empty(api: &str) -> Process {
    let program: PathBuf = landfall::local::worker("validate").unwrap();
    let mut command = Command::new(program.with_file_name("examples").join("empty"));
    command.env("AWS_LAMBDA_RUNTIME_API", api).env("AWS_LAMBDA_FUNCTION_NAME", "empty");
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    Process(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap())
}

/// A process; it ends with this.
struct Process(Child);

impl Process {
    fn memory_max(&self) -> u64 {
        memory_max(self.0.id().unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.start_kill().ok();
    }
}

/// A worker as a function.
struct Worker {
    process: Process,
    api: RuntimeApi,
}

impl Worker {
    async fn start(real: &Real, stage: &str) -> Self {
        let mut api = RuntimeApi::start().await.unwrap();
        let process = Process(real.start_function(stage, &api.address).unwrap());
        api.ready().await.unwrap();
        Self { process, api }
    }

    async fn handle(&mut self, records: Vec<Delivery>) {
        let (_, answer) = self.api.invoke(event(&records)).await.unwrap();
        check(&answer);
    }
}

/// Lets a worker handle what its queue still has.
async fn drain(real: &Real, stage: &str, worker: &mut Worker) {
    let batch = if stage == "load" { LOAD_BATCH } else { BATCH };
    loop {
        let records = receive_at_most(real, stage, batch).await;
        if records.is_empty() {
            return;
        }
        worker.handle(records.clone()).await;
        delete(real, stage, records).await;
    }
}

async fn receive(real: &Real, stage: &str, count: usize) -> Vec<Delivery> {
    let records = receive_at_most(real, stage, count).await;
    assert_eq!(records.len(), count, "{stage}");
    records
}

async fn receive_at_most(real: &Real, stage: &str, most: usize) -> Vec<Delivery> {
    let connected = real.connected().await.unwrap();
    let queue = connected.queue(connected.deployment.queue_url(stage).unwrap());
    let mut records = Vec::new();
    while records.len() < most {
        let wanted = (most - records.len()).min(10);
        let some = queue.receive(wanted, Duration::from_secs(600), Duration::from_secs(1)).await.unwrap();
        if some.is_empty() {
            break;
        }
        records.extend(some);
    }
    records
}

async fn delete(real: &Real, stage: &str, records: Vec<Delivery>) {
    let connected = real.connected().await.unwrap();
    let queue = connected.queue(connected.deployment.queue_url(stage).unwrap());
    let receipts: Vec<_> = records.into_iter().map(|record| record.receipt).collect();
    for some in receipts.chunks(10) {
        for deleted in queue.delete(some).await {
            deleted.unwrap();
        }
    }
}

/// The records as Lambda gives them. <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>
fn event(records: &[Delivery]) -> String {
    let record = |record: &Delivery| {
        let attributes: serde_json::Map<_, _> = record
            .attributes
            .iter()
            .map(|(name, value)| {
                let value =
                    json!({"stringValue": value, "dataType": "String", "stringListValues": [], "binaryListValues": []});
                (name.clone(), value)
            })
            .collect();
        json!({
            "messageId": record.id, "receiptHandle": record.receipt, "body": record.body,
            "attributes": {"ApproximateReceiveCount": record.receives.to_string()},
            "messageAttributes": attributes, "md5OfBody": "", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:q", "awsRegion": "us-east-1",
        })
    };
    json!({"Records": records.iter().map(record).collect::<Vec<_>>()}).to_string()
}

fn median(all: &[Start], of: impl Fn(&Start) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
