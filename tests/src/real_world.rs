//! A Landfall on real parts for one test: its own PostgreSQL, ministack, stack and workers in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use landfall::deployment::{self, Connected, Deployment, LOCAL_CREDENTIAL, LOCAL_REGION, Place};
use landfall::local::process::Started;
use landfall::local::stack::{self, Access, BUCKETS, STACK};
use landfall::local::{Layout, Ports, postgres, supervisor};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

/// Short delays, so that a test sees a retry and its end.
const CONFIG: &str = "[retry]\nreceives_max = 3\ndelay_min_ms = 300\ndelay_max_ms = 3000\nwait_max_s = 120\n";

/// How the stages run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As long-polling processes.
    Pollers,
    /// As functions in ministack, each under its own role.
    Lambdas,
    /// The same, deployed as docs/operating.md says: by `infra/deploy.sh`.
    Deployed,
    /// Not at all: whoever wants them starts them.
    Parts,
}

/// Buckets outside of the stack that a deployed one may use: a landing, and two destinations.
const MORE_BUCKETS: [(&str, &str); 2] = [
    ("MoreLandingBucketArns", "arn:aws:s3:::landing-two"),
    ("MoreArchiveBucketArns", "arn:aws:s3:::archive-two,arn:aws:s3:::archive-three"),
];

/// Only a database with pgSTAC and the ledger, for tests of the catalogue alone.
pub struct Database {
    folder: tempfile::TempDir,
    cluster: postgres::Cluster,
    postgres: Child,
    /// A connection of the test's own.
    pub client: tokio_postgres::Client,
    /// Where it is.
    pub url: String,
}

impl Database {
    /// Starts it.
    ///
    /// # Errors
    /// Where a part is missing (`make setup` installs it) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let (folder, layout) = fresh()?;
        let ports = Ports::choose(&layout)?;
        let cluster = postgres::Cluster::prepare(&layout, ports.postgres).await?;
        let postgres = cluster.start().await?;
        cluster.migrate(&layout).await?;
        let url = cluster.database_url();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { folder, cluster, postgres, client, url })
    }

    /// A connection of one's own.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The CPU that all its processes have used so far, in seconds, those included that have ended.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let parent = self.postgres.id().context("it runs")?;
        let mut ticks = 0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            // The name in brackets may hold anything; what follows it are numbers. <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
            let Some((pid, rest)) = stat.split_once(' ').and_then(|(pid, rest)| Some((pid, rest.rsplit_once(") ")?.1)))
            else {
                continue;
            };
            let fields: Vec<i64> = rest.split(' ').skip(1).filter_map(|field| field.parse().ok()).collect();
            if pid.parse() == Ok(parent) {
                ticks += fields[10..14].iter().sum::<i64>();
            } else if fields.first() == Some(&i64::from(parent)) {
                ticks += fields[10..12].iter().sum::<i64>();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "hundredths of a second")]
        Ok(ticks as f64 / 100.0)
    }

    /// Restarts it as a crash does: connections are cut, and it recovers from its log.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn restart_at_once(&mut self) -> anyhow::Result<()> {
        restart_at_once(&mut self.postgres, &self.cluster).await?;
        self.client = self.connect().await?;
        Ok(())
    }

    /// A command line of `landfall` for this database.
    #[must_use]
    pub fn landfall(&self, arguments: &[&str]) -> Command {
        let mut command = program("landfall");
        command.args(arguments).arg("--state").arg(self.scratch("state")).env("LANDFALL_DATABASE_URL", &self.url);
        command
    }

    /// A place for a test's files.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        stop_at_once(&self.postgres);
    }
}

/// Only an AWS endpoint, for tests of queues and topics alone.
pub struct Aws {
    _folder: tempfile::TempDir,
    _ministack: Child,
    /// How to reach it.
    pub sdk: aws_config::SdkConfig,
}

impl Aws {
    /// Starts it; it ends with this.
    ///
    /// # Errors
    /// Where it is missing (`make setup` installs it) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let (folder, layout) = fresh()?;
        let port = Ports::choose(&layout)?.aws;
        let ministack = stack::start_ministack(&layout, port, Access::Open).await?;
        let sdk = deployment::local_sdk(&format!("http://127.0.0.1:{port}")).await;
        Ok(Self { _folder: folder, _ministack: ministack, sdk })
    }
}

async fn restart_at_once(postgres: &mut Child, cluster: &postgres::Cluster) -> anyhow::Result<()> {
    if let Some(started) = postgres.id().and_then(|pid| Started::of("postgres", pid)) {
        started.signal(Signal::SIGQUIT);
    }
    postgres.wait().await?;
    *postgres = cluster.start().await?;
    Ok(())
}

/// A command line of one of our own programs, without input.
#[must_use]
pub fn program(name: &str) -> Command {
    let worker = landfall::local::worker("validate").unwrap_or_else(|path| path);
    let mut command = Command::new(worker.with_file_name(name));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Where the Python environments are.
#[must_use]
pub fn tools() -> PathBuf {
    std::env::var_os("LANDFALL_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.landfall/tools"), PathBuf::from)
}

/// The most memory that a program has had, in KiB, looked at until it ends.
///
/// # Panics
/// Where it is waited for already.
pub async fn peak(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id().expect("it runs"));
    let mut most = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(most);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

/// The most memory that a running process has had, in KiB.
///
/// # Errors
/// Where it does not run.
pub fn memory_max(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("it has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A folder for one test's parts.
fn fresh() -> anyhow::Result<(tempfile::TempDir, Layout)> {
    // PostgreSQL's own user must be able to get there.
    let folder = tempfile::Builder::new().prefix("landfall-test-").tempdir()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open)?;
    let mut layout = Layout::new(folder.path())?;
    layout.tools = tools();
    Ok((folder, layout))
}

/// Stops PostgreSQL by an immediate shutdown: its data is thrown away, and SIGKILL would leave its children behind.
#[allow(clippy::disallowed_methods, reason = "a drop cannot await")]
fn stop_at_once(postgres: &Child) {
    let Some(started) = postgres.id().and_then(|pid| Started::of("postgres", pid)) else { return };
    started.signal(Signal::SIGQUIT);
    while started.is_running() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The running parts.
pub struct Real {
    parameters: Vec<(String, String)>,
    collector: String,
    folder: tempfile::TempDir,
    layout: Layout,
    cluster: postgres::Cluster,
    postgres: Child,
    ministack: Child,
    workers: BTreeMap<&'static str, Child>,
    follower: Option<Child>,
    /// Where everything is.
    pub deployment: Deployment,
}

impl Real {
    /// Starts everything.
    ///
    /// # Errors
    /// Where a part is missing (`make setup` installs it) or does not start.
    pub async fn start(form: Form) -> anyhow::Result<Self> {
        Self::start_with(form, "").await
    }

    /// The same, whose workers send their traces to a collector at this address, where one is given.
    ///
    /// # Errors
    /// Where a part is missing (`make setup` installs it) or does not start.
    pub async fn start_with(form: Form, collector: &str) -> anyhow::Result<Self> {
        let (folder, layout) = fresh()?;
        layout.check()?;
        let ports = Ports::choose(&layout)?;
        let cluster = postgres::Cluster::prepare(&layout, ports.postgres).await?;
        let postgres = cluster.start().await?;
        cluster.migrate(&layout).await?;
        let are_functions = matches!(form, Form::Lambdas | Form::Deployed);
        let access = if are_functions { Access::ByRole } else { Access::Open };
        let ministack = stack::start_ministack(&layout, ports.aws, access).await?;

        let endpoint = format!("http://127.0.0.1:{}", ports.aws);
        let sdk = deployment::local_sdk(&endpoint).await;
        let s3 = landfall_shared::aws::s3(&sdk);
        let database_url = cluster.database_url();
        let mut parameters = BUCKETS.to_vec();
        if form == Form::Lambdas {
            supervisor::upload_zips(&s3).await?;
            parameters.extend([("Workers", "lambda"), ("CodeBucket", supervisor::CODE_BUCKET)]);
        }
        if are_functions {
            parameters.extend([
                ("OtlpEndpoint", collector),
                ("DatabaseUrl", database_url.as_str()),
                ("FunctionTimeout", "10"),
                ("VisibilityTimeout", "60"),
            ]);
        }
        if form == Form::Deployed {
            parameters.extend(MORE_BUCKETS);
            s3.create_bucket().bucket(supervisor::CODE_BUCKET).send().await?;
            deploy_as_documented(&layout, &endpoint, &parameters).await?;
        } else {
            stack::deploy(&sdk, &parameters).await?;
        }
        let parameters: Vec<(String, String)> =
            parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let outputs = deployment::outputs(&sdk, STACK).await?;
        let deployment = Deployment { endpoint: Some(endpoint), database_url: Some(database_url), outputs };
        if form != Form::Deployed {
            stack::seed(&s3, deployment.output("WorkBucket")?, Some(CONFIG)).await?;
        }
        deployment.write(&layout.state)?;
        let (workers, follower) = (BTreeMap::new(), None);
        let collector = collector.to_owned();
        let mut real =
            Self { parameters, collector, folder, layout, cluster, postgres, ministack, workers, follower, deployment };
        if form == Form::Pollers {
            real.start_workers()?;
        }
        real.follow().await?;
        Ok(real)
    }

    /// Starts the workers that do not run.
    ///
    /// # Errors
    /// Where one cannot be started.
    pub fn start_workers(&mut self) -> anyhow::Result<()> {
        // Spans are sent within a second, and not only after five.
        let more = [("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "1000")];
        for stage in landfall::stages() {
            self.workers.insert(stage, supervisor::start_worker(&self.layout, &self.deployment, stage, &more)?);
        }
        Ok(())
    }

    /// Kills all workers where they stand, as `kill -9` does.
    ///
    /// # Errors
    /// Where one cannot be killed.
    pub async fn kill_workers(&mut self) -> anyhow::Result<()> {
        for worker in self.workers.values_mut() {
            worker.kill().await?;
        }
        self.workers.clear();
        Ok(())
    }

    /// Puts another configuration in force: the usual one with this after it; workers read it when they start.
    ///
    /// # Errors
    /// Where it cannot be written, or a worker not be started.
    pub async fn reconfigure(&mut self, more: &str) -> anyhow::Result<()> {
        self.put_work("config/landfall.toml", &format!("{CONFIG}{more}")).await?;
        self.kill_workers().await?;
        self.start_workers()
    }

    /// Updates the stack: its parameters as they were, but for these.
    ///
    /// # Errors
    /// Where it does not become complete.
    pub async fn update(&self, changed: &[(&str, &str)]) -> anyhow::Result<()> {
        let kept = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let kept = kept.filter(|(name, _)| changed.iter().all(|(changed, _)| changed != name));
        let parameters: Vec<_> = kept.chain(changed.iter().copied()).collect();
        stack::deploy(&self.connected().await?.sdk, &parameters).await
    }

    /// Writes an object into the work bucket.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn put_work(&self, key: &str, text: &str) -> anyhow::Result<()> {
        let s3 = self.connected().await?.s3();
        let work = self.deployment.output("WorkBucket")?;
        s3.put_object().bucket(work).key(key).body(text.as_bytes().to_vec().into()).send().await?;
        Ok(())
    }

    /// The most memory that a stage's worker has had, in KiB.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn memory_max(&self, stage: &str) -> anyhow::Result<u64> {
        memory_max(self.workers.get(stage).and_then(Child::id).context("the worker does not run")?)
    }

    /// Starts a stage's worker as a function on this runtime interface.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_function(&self, stage: &str, api: &str) -> anyhow::Result<Child> {
        let function = [
            ("AWS_LAMBDA_RUNTIME_API", api),
            ("AWS_LAMBDA_FUNCTION_NAME", stage),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ];
        supervisor::start_worker(&self.layout, &self.deployment, stage, &function)
    }

    /// Stops PostgreSQL at once; connections are cut.
    pub async fn stop_postgres(&mut self) {
        if let Some(started) = self.postgres.id().and_then(|pid| Started::of("postgres", pid)) {
            started.signal(Signal::SIGINT);
        }
        self.postgres.wait().await.ok();
    }

    /// Starts it again.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn start_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres = self.cluster.start().await?;
        Ok(())
    }

    /// Restarts it as a crash does, while everything else goes on.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn restart_postgres_at_once(&mut self) -> anyhow::Result<()> {
        restart_at_once(&mut self.postgres, &self.cluster).await
    }

    /// A command line of `landfall` for this deployment.
    ///
    /// # Panics
    /// Where the test program has no folder.
    #[must_use]
    pub fn landfall(&self, arguments: &[&str]) -> Command {
        let mut command = program("landfall");
        command.args(arguments).arg("--state").arg(&self.layout.state);
        command
    }

    /// Runs `landfall` and gives its output.
    ///
    /// # Errors
    /// Where it ends with exit code 2, which no test wants.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.landfall(arguments).output().await?;
        if output.status.code() == Some(2) {
            bail!("landfall {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output)
    }

    /// `landfall status --wait`, as JSON.
    ///
    /// # Errors
    /// Where it cannot be run or read.
    pub async fn settled(&self, seconds: u32) -> anyhow::Result<Value> {
        let output = self.run(&["status", "--wait", &seconds.to_string(), "--format", "json"]).await?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until `landfall status` counts exactly so; a file's members are known to nobody before they are recorded.
    ///
    /// # Errors
    /// Where that does not come; with the last count.
    pub async fn settled_as(&self, summary: &Value, seconds: u64) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
        loop {
            let answer = self.settled(10).await?;
            if answer["summary"] == *summary {
                return Ok(());
            }
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "{}, and not {summary}", answer["summary"]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn follow(&mut self) -> anyhow::Result<()> {
        let (out, log) = (std::fs::File::create(self.notices_file())?, self.layout.state.join("notices.log"));
        let mut command = self.landfall(&["notices", "--follow", "--format", "json"]);
        self.follower = Some(command.stdout(out).stderr(std::fs::File::create(log)?).spawn()?);
        // Both subscriptions are there before anything lands.
        let sns = aws_sdk_sns::Client::new(&self.connected().await?.sdk);
        for _ in 0..200 {
            if sns.list_subscriptions().send().await?.subscriptions().len() >= 2 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the notices are not followed")
    }

    fn notices_file(&self) -> PathBuf {
        self.layout.state.join("notices.json")
    }

    /// The notices received so far, by id. They come a moment after the ledger knows of them: this waits for `count`.
    ///
    /// # Errors
    /// Where one id has two contents, or so many do not come.
    pub async fn notices(&self, count: usize) -> anyhow::Result<BTreeMap<String, Value>> {
        let mut notices = BTreeMap::new();
        for _ in 0..100 {
            notices.clear();
            for line in std::fs::read_to_string(self.notices_file())?.lines() {
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                let id = line["notice"]["id"].as_str().context("a notice has an id")?.to_owned();
                if let Some(before) = notices.insert(id.clone(), line["notice"].clone())
                    && before != line["notice"]
                {
                    bail!("{id} has two contents");
                }
            }
            if notices.len() >= count {
                return Ok(notices);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("{} notices have come, and not {count}", notices.len())
    }

    /// What a stage's worker tells Prometheus.
    ///
    /// # Errors
    /// Where it does not run, or does not answer.
    pub async fn scrape(&self, stage: &str) -> anyhow::Result<String> {
        let url = std::fs::read_to_string(supervisor::metrics_file(&self.layout, stage))?;
        let script =
            "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())";
        let output = self.python().args(["-c", script, url.trim()]).output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What a stage's worker has logged.
    ///
    /// # Errors
    /// Where it has not been started.
    pub fn worker_log(&self, stage: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.layout.state.join(format!("{stage}.log")))?)
    }

    /// Clients for it.
    ///
    /// # Errors
    /// Where the deployment is not readable.
    pub async fn connected(&self) -> anyhow::Result<Connected> {
        Place { state: self.layout.state.clone(), stack: None }.connect().await
    }

    /// What the AWS SDK and its tools read from the environment for this deployment.
    #[must_use]
    pub fn aws_environment(&self) -> [(&'static str, String); 5] {
        aws_environment(self.deployment.endpoint.as_deref().unwrap_or_default())
    }

    /// The AWS CLI for this deployment.
    #[must_use]
    pub fn aws(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.layout.tools.join("aws/bin/aws"));
        command.args(arguments).envs(self.aws_environment()).kill_on_drop(true);
        command
    }

    /// A command line of `landfall` as it is on AWS: the stack is named, and the database in the environment.
    #[must_use]
    pub fn landfall_of_stack(&self, arguments: &[&str]) -> Command {
        let mut command = program("landfall");
        command.args(arguments).args(["--stack", STACK]).envs(self.aws_environment());
        command.env("LANDFALL_DATABASE_URL", self.deployment.database_url.as_deref().unwrap_or_default());
        command.current_dir(self.folder.path());
        command
    }

    /// The folder with the deployment's state.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.layout.state
    }

    /// A folder for a test's files.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The Python of the STAC tools, for plain boto3.
    #[must_use]
    pub fn python(&self) -> Command {
        Command::new(self.layout.tools.join("stac/bin/python"))
    }
}

fn aws_environment(endpoint: &str) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL.to_owned()),
        ("AWS_REGION", LOCAL_REGION.to_owned()),
        ("AWS_DEFAULT_REGION", LOCAL_REGION.to_owned()),
    ]
}

/// Deploys as docs/operating.md says, but for two things of the local endpoint: it has no TLS, and polls nothing where a
/// limit is a parameter.
async fn deploy_as_documented(layout: &Layout, endpoint: &str, parameters: &[(&str, &str)]) -> anyhow::Result<()> {
    let (package, template) = (layout.state.join("package"), layout.state.join("landfall.yaml"));
    std::fs::create_dir_all(&package)?;
    for (name, zip) in supervisor::zips()? {
        std::fs::write(package.join(name), zip)?;
    }
    std::fs::write(&template, stack::template())?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([layout.tools.join("aws/bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/deploy.sh"));
    command.args([STACK, supervisor::CODE_BUCKET, "RequireTls=false"]);
    command.args(parameters.iter().map(|(name, value)| format!("{name}={value}")));
    command.env("PATH", path).env("PACKAGE", package).env("TEMPLATE", template).envs(aws_environment(endpoint));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    anyhow::ensure!(
        output.status.success(),
        "infra/deploy.sh: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Drop for Real {
    /// Stops everything that was started here, whatever became of the test.
    fn drop(&mut self) {
        let children = self.workers.values_mut().chain(self.follower.iter_mut()).chain([&mut self.ministack]);
        for child in children {
            child.start_kill().ok();
        }
        stop_at_once(&self.postgres);
    }
}
