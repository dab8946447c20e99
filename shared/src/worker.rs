//! What every worker's `main` does: read the environment, open the ports, and poll or serve.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use landfall_events::ObjectRef;
use tracing::info;

use crate::aws::{self, DatabasePassword, S3Objects, SnsTopics, SqsQueue};
use crate::catalogue::{Access, Password, PostgresCatalogue};
use crate::config::{Config, Environment, Landings};
use crate::documents::{DOCUMENT_BYTES_MAX, Documents};
use crate::letters::Archive;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::poller::{self, Settings};
use crate::queue::Queue;
use crate::runner::{Outlets, Runner};
use crate::stage::Stage;
use crate::topic::Topics;
use crate::{lambda, telemetry};

/// Everything outside that a stage can be built on.
pub struct Surroundings {
    /// Buckets.
    pub objects: Arc<dyn Objects>,
    /// Documents by value or by reference.
    pub documents: Documents,
    /// Who lands where.
    pub landings: Landings,
    /// The configuration.
    pub config: Config,
    /// The bucket for what does not fit a message.
    pub work_bucket: String,
    sdk: aws_config::SdkConfig,
}

impl Surroundings {
    /// The catalogue that `LANDFALL_DATABASE_URL` names; see [`access`] for where its password comes from.
    ///
    /// # Errors
    /// Where a variable is missing or cannot be understood.
    pub fn catalogue(&self) -> anyhow::Result<PostgresCatalogue> {
        Ok(self.catalogue_with_connections()?.0)
    }

    /// The same, with the number of its connections, `LANDFALL_DATABASE_CONNECTIONS`.
    ///
    /// # Errors
    /// Where a variable is missing or cannot be understood.
    pub fn catalogue_with_connections(&self) -> anyhow::Result<(PostgresCatalogue, usize)> {
        let mut environment = Environment::default();
        let url = environment.required("LANDFALL_DATABASE_URL");
        let connections = environment.or("LANDFALL_DATABASE_CONNECTIONS", 4).max(1);
        environment.finish()?;
        Ok((PostgresCatalogue::open(access(&url, &self.sdk)?, connections)?, connections))
    }

    /// The topics that `LANDFALL_TOPIC_COMPLETED` and `LANDFALL_TOPIC_REJECTED` name.
    ///
    /// # Errors
    /// Where a variable is missing.
    pub fn topics(&self) -> anyhow::Result<Arc<dyn Topics>> {
        let mut environment = Environment::default();
        let (completed, rejected) =
            (environment.required("LANDFALL_TOPIC_COMPLETED"), environment.required("LANDFALL_TOPIC_REJECTED"));
        environment.finish()?;
        Ok(Arc::new(SnsTopics::new(aws_sdk_sns::Client::new(&self.sdk), completed, rejected)))
    }
}

/// How to reach a database: its URL, and the password that the environment names.
///
/// # Errors
/// Where the URL cannot be understood, or those of [`password`].
pub fn access(url: &str, sdk: &aws_config::SdkConfig) -> anyhow::Result<Access> {
    Ok(Access::new(url)?.with_password(password(sdk)?))
}

/// Where a database's password comes from: `LANDFALL_DATABASE_PASSWORD_FILE`, the secret that `LANDFALL_DATABASE_SECRET`
/// names in Secrets Manager, with `LANDFALL_DATABASE_IAM=true` a token of the role at hand, else its URL.
///
/// # Errors
/// Where more than one source is given.
pub fn password(sdk: &aws_config::SdkConfig) -> anyhow::Result<Password> {
    let mut environment = Environment::default();
    let file = environment.or("LANDFALL_DATABASE_PASSWORD_FILE", String::new());
    let secret = environment.or("LANDFALL_DATABASE_SECRET", String::new());
    let iam = environment.or("LANDFALL_DATABASE_IAM", false);
    environment.finish()?;
    Ok(match (file.as_str(), secret.as_str(), iam) {
        ("", "", false) => Password::InUrl,
        (file, "", false) => Password::File(file.into()),
        ("", secret, false) => Password::Aws(Arc::new(DatabasePassword::secret(sdk, secret))),
        ("", "", true) => Password::Aws(Arc::new(DatabasePassword::token(sdk))),
        _ => anyhow::bail!(
            "LANDFALL_DATABASE_PASSWORD_FILE, LANDFALL_DATABASE_SECRET and LANDFALL_DATABASE_IAM exclude each other"
        ),
    })
}

/// Runs a worker to its end: as a Lambda where the runtime's interface is there, else as a poller. As `worker healthy` it
/// only says whether the poller lives that writes `LANDFALL_HEALTH_FILE`.
///
/// # Errors
/// Where the environment, the configuration or the first look at a dependency is wrong.
pub async fn run<S: Stage>(
    settings: Settings,
    build: impl AsyncFnOnce(&Surroundings) -> anyhow::Result<S>,
) -> anyhow::Result<()> {
    let mut environment = Environment::default();
    let health_file: Option<PathBuf> = environment.optional("LANDFALL_HEALTH_FILE");
    if std::env::args().nth(1).as_deref() == Some("healthy") {
        let path = health_file.context("LANDFALL_HEALTH_FILE names no file")?;
        println!("{}", poller::health(&path).map_err(anyhow::Error::msg)?);
        return Ok(());
    }
    telemetry::start();
    telemetry::start_traces(S::NAME);
    let sdk = aws::sdk_config().await;
    let own = environment.required("LANDFALL_QUEUE");
    let next = environment.or("LANDFALL_QUEUE_NEXT", String::new());
    let notify = environment.required("LANDFALL_QUEUE_NOTIFY");
    let dead = environment.required("LANDFALL_QUEUE_DEAD");
    let landing_bucket = environment.required("LANDFALL_LANDING_BUCKET");
    let work_bucket = environment.required("LANDFALL_WORK_BUCKET");
    let config = environment.or("LANDFALL_CONFIG", String::new());
    let settings = Settings { health_file, ..from_environment(settings, &mut environment) };
    let listen = environment.optional("LANDFALL_METRICS_LISTEN");
    environment.finish()?;

    let objects = S3Objects::new(aws::s3(&sdk));
    let config = read_config(&objects, &config).await?;
    let objects: Arc<dyn Objects> = Arc::new(objects.with(aws::elsewhere(&sdk, &config.destinations).await));
    let landings = Landings::new(&config, &landing_bucket)?;
    let documents = Documents::new(objects.clone(), &work_bucket);
    let surroundings = Surroundings { objects, documents, landings: landings.clone(), config, work_bucket, sdk };
    let stage = build(&surroundings).await?;

    let client = aws_sdk_sqs::Client::new(&surroundings.sdk);
    let queue = |url: &str| -> Arc<dyn Queue> { Arc::new(SqsQueue::new(client.clone(), url)) };
    let outlets = Outlets {
        own: queue(&own),
        next: (!next.is_empty()).then(|| queue(&next)),
        notify: queue(&notify),
        dead: queue(&dead),
    };
    let policy = surroundings.config.policy();
    let archive = Archive::new(surroundings.objects.clone(), &surroundings.work_bucket);
    let runner = Arc::new(Runner::new(stage, outlets, policy, landings.provider_of()).with_archive(archive));
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        lambda::serve(runner)
            .await
            .map_err(|error| anyhow::anyhow!("the Lambda runtime's interface failed: {error}"))?;
    } else {
        // Who scrapes them reads them; nothing is to be flushed.
        Metrics::scraped(S::NAME, listen)?;
        poller::poll(runner, settings, terminated()).await;
        telemetry::flush_traces().await;
        info!(stage = S::NAME, "stopped");
    }
    Ok(())
}

fn from_environment(settings: Settings, environment: &mut Environment) -> Settings {
    let visibility = environment.or("LANDFALL_VISIBILITY_S", settings.visibility.as_secs());
    Settings {
        in_flight_max: environment.or("LANDFALL_IN_FLIGHT_MAX", settings.in_flight_max).max(1),
        batch_max: environment.or("LANDFALL_BATCH_MAX", settings.batch_max).max(1),
        batch_bytes_max: environment.or("LANDFALL_BATCH_BYTES_MAX", settings.batch_bytes_max).max(1),
        batch_wait: Duration::from_millis(
            environment
                .or("LANDFALL_BATCH_WAIT_MS", u64::try_from(settings.batch_wait.as_millis()).unwrap_or(u64::MAX)),
        ),
        visibility: Duration::from_secs(visibility.max(2)),
        ..settings
    }
}

/// Reads the configuration from a file or `s3://bucket/key`; empty where none is named.
async fn read_config(objects: &dyn Objects, place: &str) -> anyhow::Result<Config> {
    if place.is_empty() {
        return Ok(Config::default());
    }
    let text = match ObjectRef::parse(place) {
        Some(object) => {
            let (body, _) = objects.get(&object, None, DOCUMENT_BYTES_MAX).await?;
            String::from_utf8(body.to_vec()).with_context(|| format!("{place} is not UTF-8"))?
        }
        None => std::fs::read_to_string(place).with_context(|| format!("could not read {place}"))?,
    };
    Config::parse(&text).with_context(|| format!("in {place}"))
}

/// Returns at SIGTERM or SIGINT.
pub async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Returns at the first signal; a second one ends the process at once.
async fn terminated() {
    told_to_stop().await;
    tokio::spawn(async {
        told_to_stop().await;
        std::process::exit(130);
    });
}
