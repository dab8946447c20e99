//! The long-polling form of a worker: receives, keeps what it holds invisible, carries verdicts out.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::locked;
use crate::metrics;
use crate::queue::{BATCH_MAX, Delivery, Queue, QueueError};
use crate::runner::{Runner, Settled, Verdict};
use crate::stage::{self, Stage, chain_of};

/// How much a poller takes on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most messages that it holds at a time.
    pub in_flight_max: usize,
    /// The most messages that are handled as one batch.
    pub batch_max: usize,
    /// The most bytes of one batch's bodies.
    pub batch_bytes_max: usize,
    /// How long the first message of a batch waits for others.
    pub batch_wait: Duration,
    /// How long a message stays invisible without a sign of life; extended at half of it.
    pub visibility: Duration,
    /// How long a message may be held in all: then it is let go and comes again.
    pub held_max: Duration,
    /// How long one receive waits for a message; SQS allows 20 s.
    pub receive_wait: Duration,
    /// How often the stage does what is due by time alone.
    pub tend_every: Duration,
    /// Where it says that it lives, and whether what it depends on answers; nowhere where there is none.
    pub health_file: Option<PathBuf>,
    /// How long it finishes what it holds when it is told to stop. Less than the 30 s that ECS and Kubernetes give.
    pub drain_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight_max: 100,
            batch_max: 10,
            batch_bytes_max: 4 * 1024 * 1024,
            batch_wait: Duration::from_millis(20),
            visibility: Duration::from_secs(30),
            held_max: Duration::from_secs(600),
            receive_wait: Duration::from_secs(20),
            tend_every: Duration::from_secs(60),
            health_file: None,
            drain_max: Duration::from_secs(20),
        }
    }
}

/// What a poller holds: receipts with the time since when, so that all of them are kept invisible.
#[derive(Default)]
struct Held(Mutex<HashMap<String, Instant>>);

impl Held {
    fn add(&self, deliveries: &[Delivery]) {
        let now = Instant::now();
        locked(&self.0).extend(deliveries.iter().map(|delivery| (delivery.receipt.clone(), now)));
    }

    fn release(&self, receipts: impl IntoIterator<Item = String>) {
        let mut held = locked(&self.0);
        for receipt in receipts {
            held.remove(&receipt);
        }
    }

    fn receipts(&self) -> Vec<String> {
        locked(&self.0).keys().cloned().collect()
    }

    /// Those to be kept; what was held too long is let go.
    fn kept(&self, held_max: Duration) -> Vec<String> {
        let mut held = locked(&self.0);
        held.retain(|_, since| since.elapsed() < held_max);
        held.keys().cloned().collect()
    }
}

/// Polls until `shutdown` is done, then finishes what it holds and gives the rest back at once.
pub async fn poll<S: Stage>(runner: Arc<Runner<S>>, settings: Settings, shutdown: impl Future<Output = ()>) {
    let held = Arc::new(Held::default());
    let permits = Arc::new(Semaphore::new(settings.in_flight_max));
    let outage = Arc::new(tokio::sync::watch::Sender::new(false));
    let mut tasks = JoinSet::new();
    let keeper = tokio::spawn(keep(runner.queue().clone(), held.clone(), settings.clone()));
    let tender = tokio::spawn(tend(runner.clone(), settings.tend_every));
    let watcher = tokio::spawn(watch(runner.clone(), settings.health_file.clone()));
    info!(stage = S::NAME, "polling");

    tokio::pin!(shutdown);
    loop {
        let batch = tokio::select! {
            () = &mut shutdown => break,
            batch = gather(&runner, &settings, &permits, &held, &outage) => batch,
        };
        let (runner, held, outage) = (runner.clone(), held.clone(), outage.clone());
        tasks.spawn(async move { settle(&runner, batch, &held, &outage).await });
        while tasks.try_join_next().is_some() {}
    }

    info!(stage = S::NAME, batches = tasks.len(), "stopping: finishing what is held");
    let finished = tokio::time::timeout(settings.drain_max, async { while tasks.join_next().await.is_some() {} });
    if finished.await.is_err() {
        warn!(stage = S::NAME, "some of it did not finish in time");
        tasks.abort_all();
    }
    keeper.abort();
    tender.abort();
    watcher.abort();
    let rest: Vec<_> = held.receipts().into_iter().map(|receipt| (receipt, Duration::ZERO)).collect();
    if !rest.is_empty() {
        info!(stage = S::NAME, messages = rest.len(), "given back");
        report_failures(S::NAME, "give back", runner.queue().set_visibility(&rest).await);
    }
}

/// A batch with the permits that its messages hold.
struct Batch {
    deliveries: Vec<Delivery>,
    permits: Vec<OwnedSemaphorePermit>,
}

/// Receives until a batch is full or its first message has waited long enough.
///
/// It may be dropped at any time: what it has received is held, and given back at the end.
async fn gather<S: Stage>(
    runner: &Runner<S>,
    settings: &Settings,
    permits: &Arc<Semaphore>,
    held: &Held,
    outage: &tokio::sync::watch::Sender<bool>,
) -> Batch {
    let mut batch = Batch { deliveries: Vec::new(), permits: Vec::new() };
    let mut bytes = 0;
    let mut full_at = None;
    let mut failures = backoff();
    loop {
        if *outage.borrow() {
            wait_for_dependencies(runner).await;
            outage.send_replace(false);
        }
        // A permit for each message comes before the message: nothing is received that cannot start. A batch that
        // holds permits does not wait for more, which might never come.
        let first = if batch.deliveries.is_empty() {
            permits.clone().acquire_owned().await.expect("the semaphore is never closed")
        } else {
            let Ok(permit) = permits.clone().try_acquire_owned() else { return batch };
            permit
        };
        let mut taken = vec![first];
        let room = (settings.batch_max - batch.deliveries.len()).min(BATCH_MAX);
        taken.extend((1..room).map_while(|_| permits.clone().try_acquire_owned().ok()));
        let wait = if batch.deliveries.is_empty() { settings.receive_wait } else { Duration::ZERO };
        match runner.queue().receive(taken.len(), settings.visibility, wait).await {
            Ok(received) => {
                failures = backoff();
                held.add(&received);
                taken.truncate(received.len());
                if full_at.is_none() && !received.is_empty() {
                    full_at = Some(Instant::now() + settings.batch_wait);
                }
                bytes += received.iter().map(|delivery| delivery.body.len()).sum::<usize>();
                let came = received.len();
                batch.deliveries.extend(received);
                batch.permits.extend(taken);
                let time_over = full_at.is_some_and(|at| Instant::now() >= at);
                let full = batch.deliveries.len() >= settings.batch_max || bytes >= settings.batch_bytes_max;
                if !batch.deliveries.is_empty() && (full || time_over || came == 0) {
                    return batch;
                }
            }
            Err(failure) => {
                warn!(stage = S::NAME, reason = %failure, "nothing can be received");
                if !batch.deliveries.is_empty() {
                    return batch;
                }
                tokio::time::sleep(failures.next().unwrap_or(Duration::from_secs(30))).await;
            }
        }
    }
}

async fn settle<S: Stage>(runner: &Runner<S>, batch: Batch, held: &Held, outage: &tokio::sync::watch::Sender<bool>) {
    let Settled { verdicts, is_in_doubt } = runner.settle_within(&batch.deliveries, Duration::MAX).await;
    let mut done = Vec::new();
    let mut later = Vec::new();
    for (delivery, verdict) in batch.deliveries.iter().zip(verdicts) {
        match verdict {
            Verdict::Ack => done.push(delivery.receipt.clone()),
            Verdict::Retry { after } => later.push((delivery.receipt.clone(), after)),
        }
    }
    // From here on nobody extends them: a delete or a delay stands.
    held.release(batch.deliveries.iter().map(|delivery| delivery.receipt.clone()));
    if !later.is_empty() {
        report_failures(S::NAME, "delay", runner.queue().set_visibility(&later).await);
    }
    if (is_in_doubt || !later.is_empty()) && !stage::answers(runner.stage()).await {
        outage.send_replace(true);
    }
    delete(S::NAME, &**runner.queue(), &done).await;
}

/// Deletes what is settled; what is not deleted is tried a second time.
pub(crate) async fn delete(stage: &str, queue: &dyn Queue, done: &[String]) {
    if done.is_empty() {
        return;
    }
    let results = queue.delete(done).await;
    let again: Vec<_> =
        done.iter().zip(&results).filter(|(_, result)| result.is_err()).map(|(r, _)| r.clone()).collect();
    if !again.is_empty() {
        report_failures(stage, "delete", queue.delete(&again).await);
    }
}

/// Receives nothing while a dependency is down, so that an outage spends no receive counts.
async fn wait_for_dependencies<S: Stage>(runner: &Runner<S>) {
    let mut pauses = backoff();
    let mut said = false;
    loop {
        let ready = tokio::time::timeout(stage::READY_TIME_MAX, runner.stage().ready()).await;
        let why = match ready {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(chain_of(&failure)),
            Err(_) => Some("it does not answer in time".to_owned()),
        };
        match why {
            None => {
                if said {
                    info!(stage = S::NAME, "the dependency answers again: receiving goes on");
                }
                return;
            }
            Some(reason) => {
                if !said {
                    error!(stage = S::NAME, reason, "a dependency is down: nothing is received until it answers");
                    said = true;
                }
                tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))).await;
            }
        }
    }
}

/// Lets the stage do what is due by time; not all workers of a stage at once.
async fn tend<S: Stage>(runner: Arc<Runner<S>>, every: Duration) {
    loop {
        tokio::time::sleep(rand::random_range(every / 2..=every)).await;
        runner.tend().await;
    }
}

/// Looks from time to time whether what the stage depends on answers, and says so: in a metric, and in the health file,
/// whose age says that the process lives. An outage is no reason to restart it.
async fn watch<S: Stage>(runner: Arc<Runner<S>>, health_file: Option<PathBuf>) {
    loop {
        let is_up = stage::answers(runner.stage()).await;
        metrics::dependency(is_up);
        if let Some(path) = &health_file {
            let health = Health { stage: S::NAME.to_owned(), dependency_up: is_up };
            let text = serde_json::to_vec(&health).expect("health has string keys only");
            if let Err(error) = tokio::fs::write(path, text).await {
                warn!(stage = S::NAME, path = %path.display(), reason = %error, "the health file cannot be written");
            }
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// What a health file says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Health {
    stage: String,
    dependency_up: bool,
}

/// Time between two looks.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// The age of a health file from which on its process is taken for dead.
const HEALTH_AGE_MAX: Duration = Duration::from_secs(60);

/// Whether the poller that writes this health file lives; in words, and why not. For a container's health check.
///
/// # Errors
/// Where there is no such file, it cannot be read, or it is too old.
pub fn health(path: &std::path::Path) -> Result<String, String> {
    let why = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let written = std::fs::metadata(path).and_then(|file| file.modified()).map_err(|error| why(&error))?;
    let age = written.elapsed().unwrap_or_default();
    if age > HEALTH_AGE_MAX {
        return Err(why(&format!("written {} s ago: its process does not live", age.as_secs())));
    }
    let text = std::fs::read(path).map_err(|error| why(&error))?;
    let Health { stage, dependency_up } = serde_json::from_slice(&text).map_err(|error| why(&error))?;
    let dependency = if dependency_up { "answers" } else { "does not answer" };
    Ok(format!("{stage} lives; what it depends on {dependency}"))
}

/// Keeps everything that is held invisible, at half of the visibility.
async fn keep(queue: Arc<dyn Queue>, held: Arc<Held>, settings: Settings) {
    loop {
        tokio::time::sleep(settings.visibility / 2).await;
        let receipts: Vec<_> =
            held.kept(settings.held_max).into_iter().map(|receipt| (receipt, settings.visibility)).collect();
        if receipts.is_empty() {
            continue;
        }
        let results = queue.set_visibility(&receipts).await;
        let lost = receipts.iter().zip(&results).filter(|(_, result)| matches!(result, Err(QueueError::Lost(_))));
        let lost: Vec<_> = lost.map(|((receipt, _), _)| receipt.clone()).collect();
        if !lost.is_empty() {
            debug!(messages = lost.len(), "no longer ours or settled meanwhile");
            held.release(lost);
        }
    }
}

fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}

/// What cannot be settled now comes again by itself: that is recovered, and said.
pub(crate) fn report_failures(stage: &str, what: &str, results: Vec<Result<(), QueueError>>) {
    for failure in results.into_iter().filter_map(Result::err) {
        warn!(stage, what, reason = %failure, "a message could not be settled; it comes again");
    }
}
