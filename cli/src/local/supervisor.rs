//! `landfall up` and `landfall down`: starts everything, keeps the workers running, stops everything.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::process::{self, Started};
use super::stack::{Access, BUCKETS, STACK};
use super::{Layout, Ports, beside, postgres, stack, worker};
use crate::deployment::{self, Deployment, LOCAL_CREDENTIAL, LOCAL_REGION};
use crate::output::{self, End, Format};
use crate::schemas::{self, BUNDLE_KEY};

/// What runs for a local deployment; written while it does.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Running {
    supervisor: Option<Started>,
    parts: Vec<Started>,
    ready: bool,
}

const RUNNING: &str = "running.json";

impl Running {
    fn read(layout: &Layout) -> Self {
        let text = std::fs::read_to_string(layout.state.join(RUNNING)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        super::write_private(&layout.state.join(RUNNING), &serde_json::to_string_pretty(self)?)
    }

    fn is_up(&self) -> bool {
        self.supervisor.as_ref().is_some_and(Started::is_running)
    }

    /// The names and process ids of the parts that run.
    #[must_use]
    pub fn parts(state: &Path) -> Vec<(String, i32)> {
        let Ok(layout) = Layout::new(state) else { return Vec::new() };
        let parts = Self::read(&layout).parts.into_iter();
        parts.filter(Started::is_running).map(|part| (part.name, part.pid)).collect()
    }
}

/// How `up` runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A configuration file in place of the one that is kept.
    pub config: Option<std::path::PathBuf>,
    /// Run the stages as functions in ministack, under the roles of the template.
    pub lambda: bool,
}

/// The children of `up`, in the order in which they were started.
#[derive(Default)]
struct Children {
    postgres: Option<Child>,
    ministack: Option<Child>,
    workers: Vec<Worker>,
}

struct Worker {
    stage: &'static str,
    child: Child,
    restarts: u32,
    started: Instant,
}

/// Starts everything and keeps it running until it is told to stop.
///
/// # Errors
/// [`output::SetUp`] where something is missing; else what went wrong.
pub async fn up(state: &Path, options: &Options, format: Format) -> anyhow::Result<End> {
    let layout = Layout::new(state)?;
    layout.check()?;
    let before = Running::read(&layout);
    if before.is_up() {
        announce(&layout, &Deployment::read(&layout.state)?, format, "is already running")?;
        return Ok(End::Good);
    }
    stop_parts(&before).await;

    let mut running = Running { supervisor: Started::of("supervisor", std::process::id()), ..Running::default() };
    running.write(&layout)?;
    // The children outlive whatever happens to their start: they are stopped in order, and not by being dropped.
    let mut children = Children::default();
    let work = async {
        let deployment = start(&layout, options, &mut running, &mut children).await?;
        running.ready = true;
        running.write(&layout)?;
        announce(&layout, &deployment, format, "is ready")?;
        keep(&layout, &mut running, &mut children, &deployment).await
    };
    let result = tokio::select! {
        ended = work => ended,
        () = landfall_shared::worker::told_to_stop() => Ok(()),
    };
    if format == Format::Human {
        eprintln!("stopping …");
    }
    stop_parts(&Running::read(&layout)).await;
    std::fs::remove_file(layout.state.join(RUNNING)).ok();
    result.map(|()| End::Good)
}

async fn start(
    layout: &Layout,
    options: &Options,
    running: &mut Running,
    children: &mut Children,
) -> anyhow::Result<Deployment> {
    let steps = ProgressBar::new(5)
        .with_style(ProgressStyle::with_template("[{pos}/{len}] {msg}").unwrap_or(ProgressStyle::default_bar()));
    let step = |text: &'static str| {
        steps.inc(1);
        steps.set_message(text);
        if steps.is_hidden() {
            eprintln!("[{}/5] {text}", steps.position());
        }
    };
    let ports = Ports::choose(layout)?;

    step("PostgreSQL");
    let cluster = postgres::Cluster::prepare(layout, ports.postgres).await?;
    note(layout, running, "postgres", children.postgres.insert(cluster.start().await?))?;
    step("pgSTAC and the ledger");
    cluster.migrate(layout).await?;

    step("ministack");
    let access = if options.lambda { Access::ByRole } else { Access::Open };
    let ministack = stack::start_ministack(layout, ports.aws, access).await?;
    note(layout, running, "ministack", children.ministack.insert(ministack))?;

    step("the CloudFormation stack");
    let endpoint = format!("http://127.0.0.1:{}", ports.aws);
    let sdk = deployment::local_sdk(&endpoint).await;
    let s3 = landfall_shared::aws::s3(&sdk);
    let database_url = cluster.database_url();
    let mut parameters = BUCKETS.to_vec();
    if options.lambda {
        upload_zips(&s3).await?;
        parameters.extend([("Workers", "lambda"), ("CodeBucket", CODE_BUCKET), ("DatabaseUrl", &database_url)]);
    }
    let config = options
        .config
        .as_deref()
        .map(std::fs::read_to_string)
        .transpose()
        .context("could not read the configuration")?;
    // The work bucket comes first, and functions read their configuration when they start.
    stack::deploy(&sdk, &parameters).await?;
    let outputs = deployment::outputs(&sdk, STACK).await?;
    let deployment = Deployment { endpoint: Some(endpoint), database_url: Some(database_url), outputs };
    let work_bucket = deployment.output("WorkBucket")?;
    stack::seed(&s3, work_bucket, config.as_deref()).await?;
    if let Some(bundle) = schemas::local(&layout.state) {
        stack::seed_bundle(&s3, work_bucket, &bundle).await?;
    }
    deployment.write(&layout.state)?;

    step("the workers");
    if !options.lambda {
        for stage in crate::stages() {
            let child = start_worker(layout, &deployment, stage, &[])?;
            note(layout, running, stage, &child)?;
            children.workers.push(Worker { stage, child, restarts: 0, started: Instant::now() });
        }
    }
    steps.finish_and_clear();
    Ok(deployment)
}

/// The bucket of the zips in a local deployment.
pub const CODE_BUCKET: &str = "landfall-code";

/// Uploads the workers' zips for the Lambda form.
///
/// # Errors
/// Where a program is missing, or what S3 says.
pub async fn upload_zips(s3: &aws_sdk_s3::Client) -> anyhow::Result<()> {
    s3.create_bucket().bucket(CODE_BUCKET).send().await.context("could not make the bucket for the zips")?;
    for (name, zip) in zips()? {
        s3.put_object().bucket(CODE_BUCKET).key(name).body(zip.into()).send().await?;
    }
    Ok(())
}

/// The zips of the functions, with their names.
///
/// # Errors
/// Where a program is missing.
pub fn zips() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let programs = crate::stages().into_iter().map(|stage| (stage, worker(stage)));
    let programs = programs.chain([("maintain", beside("landfall-maintain"))]);
    let zip = |(name, program): (&str, Result<std::path::PathBuf, std::path::PathBuf>)| {
        let program = program.map_err(|path| output::SetUp(format!("{} is missing", path.display())))?;
        Ok((format!("{name}.zip"), stack::bootstrap_zip(&program)?))
    };
    programs.map(zip).collect()
}

/// Writes down what was started, so that it is found again when this process is gone.
fn note(layout: &Layout, running: &mut Running, name: &str, child: &Child) -> anyhow::Result<()> {
    running.parts.retain(|part| part.name != name);
    running.parts.extend(child.id().and_then(|pid| Started::of(name, pid)));
    running.write(layout)
}

/// The file with the URL at which a stage's worker serves its metrics.
#[must_use]
pub fn metrics_file(layout: &Layout, stage: &str) -> std::path::PathBuf {
    layout.state.join(format!("{stage}.metrics"))
}

/// Starts a stage's worker as a poller, with what else it shall find in its environment.
///
/// # Errors
/// Where its program is missing or the deployment has no queues for it.
pub fn start_worker(
    layout: &Layout,
    deployment: &Deployment,
    stage: &str,
    more: &[(&str, &str)],
) -> anyhow::Result<Child> {
    let program = worker(stage).map_err(|path| output::SetUp(format!("{} is missing", path.display())))?;
    let stages = crate::stages();
    let next = stages.iter().skip_while(|name| **name != stage).nth(1);
    let work_bucket = deployment.output("WorkBucket")?;
    let metrics = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    std::fs::write(metrics_file(layout, stage), format!("http://{metrics}/metrics\n"))?;
    let mut command = Command::new(program);
    command
        .env("LANDFALL_METRICS_LISTEN", metrics)
        .env("LANDFALL_HEALTH_FILE", layout.state.join(format!("{stage}.health")))
        .env("AWS_ENDPOINT_URL", deployment.endpoint.as_deref().unwrap_or_default())
        .env("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL)
        .env("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL)
        .env("AWS_REGION", LOCAL_REGION)
        .env("LANDFALL_QUEUE", deployment.queue_url(stage)?)
        .env("LANDFALL_QUEUE_NEXT", next.map(|next| deployment.queue_url(next)).transpose()?.unwrap_or_default())
        .env("LANDFALL_QUEUE_NOTIFY", deployment.queue_url("notify")?)
        .env("LANDFALL_QUEUE_DEAD", deployment.dead_queue_url(stage)?)
        .env("LANDFALL_LANDING_BUCKET", deployment.output("LandingBucket")?)
        .env("LANDFALL_WORK_BUCKET", work_bucket)
        .env("LANDFALL_CONFIG", format!("s3://{work_bucket}/config/landfall.toml"))
        .env("LANDFALL_SCHEMAS", format!("s3://{work_bucket}/{BUNDLE_KEY}"))
        .env("LANDFALL_PROFILES", format!("s3://{work_bucket}/config/profiles/"))
        .env("LANDFALL_BUCKET_MAP", format!("s3://{work_bucket}/config/bucket-map.yaml"))
        .env("LANDFALL_DATABASE_URL", deployment.database_url.as_deref().unwrap_or_default())
        .env("LANDFALL_TOPIC_COMPLETED", deployment.output("CompletedTopic")?)
        .env("LANDFALL_TOPIC_REJECTED", deployment.output("RejectedTopic")?)
        .env_remove("AWS_LAMBDA_RUNTIME_API")
        .env_remove("AWS_PROFILE")
        .envs(more.iter().copied());
    process::start(command, &layout.state.join(format!("{stage}.log")))
}

/// Starts a worker again when it ends. PostgreSQL or ministack ending by itself is said and left to a person:
/// an operator may have stopped it on purpose, and the workers wait for it.
async fn keep(
    layout: &Layout,
    running: &mut Running,
    children: &mut Children,
    deployment: &Deployment,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (name, part) in [("postgres", &mut children.postgres), ("ministack", &mut children.ministack)] {
            let ended = part.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                *part = None;
                eprintln!("{name} has ended ({status}); see {}", layout.state.join(format!("{name}.log")).display());
            }
        }
        for worker in &mut children.workers {
            let Some(status) = worker.child.try_wait()? else { continue };
            if worker.started.elapsed() > Duration::from_secs(60) {
                worker.restarts = 0;
            }
            let pause = Duration::from_millis(200).saturating_mul(1 << worker.restarts.min(7));
            if worker.started.elapsed() < pause {
                continue;
            }
            eprintln!("the {} worker has ended ({status}) and is started again", worker.stage);
            worker.child = start_worker(layout, deployment, worker.stage, &[])?;
            worker.started = Instant::now();
            worker.restarts += 1;
            note(layout, running, worker.stage, &worker.child)?;
        }
    }
}

/// Stops what was started: workers first, so that they drain; then ministack, which keeps its state; then PostgreSQL.
async fn stop_parts(running: &Running) {
    let part = |name: &str| running.parts.iter().find(|part| part.name == name);
    let workers = running.parts.iter().filter(|part| part.name != "ministack" && part.name != "postgres");
    futures::future::join_all(workers.map(|part| part.stop(Signal::SIGTERM, Duration::from_secs(25)))).await;
    if let Some(ministack) = part("ministack") {
        ministack.stop(Signal::SIGTERM, Duration::from_secs(20)).await;
    }
    if let Some(postgres) = part("postgres") {
        // SIGINT is PostgreSQL's fast shutdown. <https://www.postgresql.org/docs/15/server-shutdown.html>
        postgres.stop(Signal::SIGINT, Duration::from_secs(30)).await;
    }
}

/// Starts `up` in the background and returns when it is ready.
///
/// # Errors
/// Where it ends before that; with what it said.
pub async fn up_detached(state: &Path, options: &Options, format: Format) -> anyhow::Result<End> {
    let layout = Layout::new(state)?;
    layout.check()?;
    if Running::read(&layout).is_up() {
        announce(&layout, &Deployment::read(&layout.state)?, format, "is already running")?;
        return Ok(End::Good);
    }
    let log = layout.state.join("up.log");
    std::fs::remove_file(&log).ok();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--state").arg(&layout.state).env("LANDFALL_TOOLS", &layout.tools);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    if options.lambda {
        command.arg("--lambda");
    }
    let mut child = process::start(command, &log)?;
    // From here on it is on its own.
    let spinner = ProgressBar::new_spinner().with_message("starting");
    loop {
        spinner.tick();
        if let Some(status) = child.try_wait()? {
            bail!("it did not start ({status}):\n{}", process::tail(&log));
        }
        let running = Running::read(&layout);
        if running.ready
            && running
                .supervisor
                .as_ref()
                .is_some_and(|started| Some(started.pid) == child.id().and_then(|pid| pid.try_into().ok()))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    spinner.finish_and_clear();
    announce(&layout, &Deployment::read(&layout.state)?, format, "is ready")?;
    Ok(End::Good)
}

/// Stops a local deployment; its data stays.
///
/// # Errors
/// Where the state cannot be read.
pub async fn down(state: &Path, format: Format) -> anyhow::Result<End> {
    if !state.exists() {
        bail!(output::SetUp(format!("there is no local deployment in {}", state.display())));
    }
    let layout = Layout::new(state)?;
    let running = Running::read(&layout);
    let was_up = running.is_up();
    if let Some(supervisor) = &running.supervisor {
        supervisor.stop(Signal::SIGTERM, Duration::from_secs(90)).await;
    }
    // What a killed supervisor left behind.
    stop_parts(&Running::read(&layout)).await;
    std::fs::remove_file(layout.state.join(RUNNING)).ok();
    match format {
        Format::Human if was_up => output::line("Landfall is stopped; its data stays, `landfall up` goes on with it.")?,
        Format::Human => output::line("Landfall was not running.")?,
        Format::Json => output::json(&serde_json::json!({"was_running": was_up}))?,
    }
    Ok(End::Good)
}

fn announce(layout: &Layout, deployment: &Deployment, format: Format, what: &str) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&deployment.redacted());
    }
    let state = layout.state.display();
    let output = |name: &str| deployment.outputs.get(name).cloned().unwrap_or_default();
    output::line(&format!("  AWS endpoint   {}", deployment.endpoint.as_deref().unwrap_or_default()))?;
    output::line(&format!("  landing        s3://{}/<provider>/…", output("LandingBucket")))?;
    output::line(&format!("  archive        s3://{}", output("ArchiveBucket")))?;
    output::line(&format!("  configuration  s3://{}/config/", output("WorkBucket")))?;
    output::line(&format!("  catalogue      the database URL is in {state}/deployment.json"))?;
    output::line(&format!("  logs           {state}/*.log"))?;
    output::line("  drop files     landfall put PATH --provider NAME")?;
    output::line("  stop           landfall down   (or Ctrl-C where it runs in the foreground)")?;
    output::line(&format!("Landfall {what}."))
}
