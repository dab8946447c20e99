//! A deployment: where its buckets, queues, topics and database are, and clients for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::types::QueueAttributeName;
use landfall_shared::aws::{self, SqsQueue};
use landfall_shared::catalogue::{Access, PostgresCatalogue};
use landfall_shared::queue::Queue;
use serde::{Deserialize, Serialize};

use crate::output::SetUp;

/// What a command needs to know of a deployment; `landfall up` writes it, a stack's outputs give it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Deployment {
    /// The endpoint of a local AWS; AWS itself where there is none.
    pub endpoint: Option<String>,
    /// The catalogue.
    pub database_url: Option<String>,
    /// The stack's outputs: `LandingBucket`, `ValidateQueue` and so on.
    pub outputs: BTreeMap<String, String>,
}

impl Deployment {
    /// The same without what is secret in it, to be printed.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { database_url: self.database_url.as_deref().map(redacted), ..self.clone() }
    }
}

impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, database_url, outputs } = self.redacted();
        f.debug_struct("Deployment")
            .field("endpoint", &endpoint)
            .field("database_url", &database_url)
            .field("outputs", &outputs)
            .finish()
    }
}

/// A database's URL without its password and its parameters, which may hold one too.
fn redacted(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    let Some((scheme, (user, place))) = parts else { return "…".into() };
    let (user, has_password) = user.split_once(':').map_or((user, false), |(user, _)| (user, true));
    let place = place.split('?').next().unwrap_or_default();
    format!("{scheme}://{user}{}@{place}", if has_password { ":…" } else { "" })
}

/// Where commands look for a deployment.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The folder with the state of a local deployment
    #[arg(long, global = true, env = "LANDFALL_STATE", default_value = ".landfall", value_name = "DIR")]
    pub state: PathBuf,
    /// A CloudFormation stack on AWS instead of the local deployment; the database is LANDFALL_DATABASE_URL's
    #[arg(long, global = true, env = "LANDFALL_STACK", value_name = "NAME")]
    pub stack: Option<String>,
}

/// A deployment with its clients.
pub struct Connected {
    /// What is known of it.
    pub deployment: Deployment,
    /// The SDK's configuration for it.
    pub sdk: SdkConfig,
    /// The catalogue, once it has been asked for.
    catalogue: OnceLock<PostgresCatalogue>,
}

/// The credentials of a local deployment: it knows no others.
pub const LOCAL_CREDENTIAL: &str = "landfall";
/// The region of a local deployment.
pub const LOCAL_REGION: &str = "us-east-1";

impl Place {
    /// Finds the deployment and prepares clients.
    ///
    /// # Errors
    /// [`SetUp`] where there is none.
    pub async fn connect(&self) -> anyhow::Result<Connected> {
        if let Some(stack) = &self.stack {
            let sdk = aws::sdk_config().await;
            let outputs = outputs(&sdk, stack).await.with_context(|| format!("could not read the stack {stack}"))?;
            let database_url = std::env::var("LANDFALL_DATABASE_URL").ok();
            let deployment = Deployment { endpoint: None, database_url, outputs };
            return Ok(Connected { deployment, sdk, catalogue: OnceLock::new() });
        }
        let deployment = Deployment::read(&self.state)?;
        let sdk = local_sdk(deployment.endpoint.as_deref().unwrap_or_default()).await;
        Ok(Connected { deployment, sdk, catalogue: OnceLock::new() })
    }
}

impl Place {
    /// An S3 client for the deployment, where there is one; else for what the environment names.
    ///
    /// # Errors
    /// Where a stack that is named cannot be asked.
    pub async fn connect_or_default(&self) -> anyhow::Result<aws_sdk_s3::Client> {
        if self.stack.is_none() && Deployment::read(&self.state).is_err() {
            return Ok(aws::s3(&aws::sdk_config().await));
        }
        Ok(self.connect().await?.s3())
    }
}

/// A database, with or without a deployment around it.
#[derive(Debug, Clone, clap::Args)]
pub struct Database {
    /// The catalogue's database; else LANDFALL_DATABASE_URL, else that of the deployment. A password in it counts before
    /// those of the environment
    #[arg(long = "database", value_name = "URL", env = "LANDFALL_DATABASE_URL", hide_env_values = true)]
    url: Option<String>,
}

impl Database {
    /// Its catalogue, over at most so many connections.
    ///
    /// # Errors
    /// [`SetUp`] where there is neither a URL nor a deployment, or it cannot be understood.
    pub async fn catalogue(&self, place: &Place, connections: usize) -> anyhow::Result<PostgresCatalogue> {
        let (url, sdk) = match &self.url {
            Some(url) => (url.clone(), aws::sdk_config().await),
            None => {
                let connected = place.connect().await?;
                (connected.database_url()?.to_owned(), connected.sdk)
            }
        };
        let set_up = |error: &dyn std::fmt::Display| SetUp(error.to_string());
        let mut access = Access::new(&url).map_err(|error| set_up(&error))?;
        // Who names a URL with a password means that one, whatever the environment has for the workers' role.
        if self.url.is_none() || !access.has_password() {
            access = access.with_password(landfall_shared::worker::password(&sdk).map_err(|error| set_up(&error))?);
        }
        Ok(PostgresCatalogue::open(access, connections)?)
    }
}

/// The SDK's configuration for a local endpoint.
pub async fn local_sdk(endpoint: &str) -> SdkConfig {
    let key = aws_credential_types::Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "local");
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws::http_client())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(key)
        .load()
        .await
}

/// Reads a stack's outputs.
///
/// # Errors
/// Where there is no such stack or it cannot be asked.
pub async fn outputs(sdk: &SdkConfig, stack: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let client = aws_sdk_cloudformation::Client::new(sdk);
    let answer = client.describe_stacks().stack_name(stack).send().await?;
    let stack = answer.stacks().first().context("there is no such stack")?;
    let pair = |output: &aws_sdk_cloudformation::types::Output| {
        Some((output.output_key()?.to_owned(), output.output_value()?.to_owned()))
    };
    Ok(stack.outputs().iter().filter_map(pair).collect())
}

impl Deployment {
    const FILE: &'static str = "deployment.json";

    /// Reads what `landfall up` wrote.
    ///
    /// # Errors
    /// [`SetUp`] where there is nothing.
    pub fn read(state: &Path) -> anyhow::Result<Self> {
        let file = state.join(Self::FILE);
        let text = std::fs::read_to_string(&file).map_err(|_| {
            SetUp(format!(
                "no local deployment in {}: start one with `landfall up`, or name a --stack",
                state.display()
            ))
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is not readable", file.display()))
    }

    /// Writes it, readable for its owner only: it holds the database's password.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, state: &Path) -> anyhow::Result<()> {
        crate::local::write_private(&state.join(Self::FILE), &serde_json::to_string_pretty(self)?)
    }

    /// One of the stack's outputs.
    ///
    /// # Errors
    /// [`SetUp`] where the stack has none of this name.
    pub fn output(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.outputs.get(name).map(String::as_str);
        Ok(value.ok_or_else(|| SetUp(format!("the deployment has no output {name}: is it a Landfall stack?")))?)
    }

    /// The URL of a stage's queue.
    ///
    /// # Errors
    /// [`SetUp`].
    pub fn queue_url(&self, stage: &str) -> anyhow::Result<&str> {
        self.output(&format!("{}Queue", capitalised(stage)))
    }

    /// The URL of a stage's dead-letter queue.
    ///
    /// # Errors
    /// [`SetUp`].
    pub fn dead_queue_url(&self, stage: &str) -> anyhow::Result<&str> {
        self.output(&format!("{}DeadQueue", capitalised(stage)))
    }
}

impl Connected {
    /// The deployment that the environment of a function describes: the stack's outputs as one JSON object in
    /// `LANDFALL_DEPLOYMENT`, the database in `LANDFALL_DATABASE_URL`.
    ///
    /// # Errors
    /// [`SetUp`] where it is not there or cannot be read.
    pub async fn from_environment() -> anyhow::Result<Self> {
        let unread = |why: String| SetUp(format!("LANDFALL_DEPLOYMENT: {why}"));
        let text = std::env::var("LANDFALL_DEPLOYMENT").map_err(|error| unread(error.to_string()))?;
        let outputs = serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?;
        let database_url = std::env::var("LANDFALL_DATABASE_URL").ok();
        let deployment = Deployment { endpoint: None, database_url, outputs };
        Ok(Self { deployment, sdk: aws::sdk_config().await, catalogue: OnceLock::new() })
    }

    /// An S3 client.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        aws::s3(&self.sdk)
    }

    /// A queue by its URL.
    #[must_use]
    pub fn queue(&self, url: &str) -> Arc<dyn Queue> {
        Arc::new(SqsQueue::new(aws_sdk_sqs::Client::new(&self.sdk), url))
    }

    /// About how many messages of a queue somebody has received and not settled.
    ///
    /// # Errors
    /// Where the queue cannot be asked.
    pub async fn held(&self, url: &str) -> anyhow::Result<u64> {
        let name = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        let request = aws_sdk_sqs::Client::new(&self.sdk).get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(name.clone()).send().await?;
        Ok(answer.attributes().and_then(|all| all.get(&name)?.parse().ok()).unwrap_or(0))
    }

    fn database_url(&self) -> Result<&str, SetUp> {
        let url = self.deployment.database_url.as_deref();
        url.ok_or_else(|| SetUp("no database is known: set LANDFALL_DATABASE_URL".into()))
    }

    /// The catalogue.
    ///
    /// # Errors
    /// [`SetUp`] where no database is known.
    pub fn catalogue(&self) -> anyhow::Result<PostgresCatalogue> {
        if let Some(catalogue) = self.catalogue.get() {
            return Ok(catalogue.clone());
        }
        let url = self.database_url()?;
        let catalogue = PostgresCatalogue::open(landfall_shared::worker::access(url, &self.sdk)?, 2)?;
        Ok(self.catalogue.get_or_init(|| catalogue).clone())
    }
}

/// `validate` → `Validate`, as the template names things.
#[must_use]
pub fn capitalised(stage: &str) -> String {
    let mut letters = stage.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let deployment = Deployment { database_url: Some(url.to_owned()), ..Deployment::default() };
        assert_eq!(deployment.redacted().database_url.as_deref(), Some(expected));
        assert!(!format!("{deployment:?}").contains("secret"), "{deployment:?}");
    }

    #[test]
    fn what_is_printed_names_no_password() {
        check("postgresql://me:secret@db:5432/c?sslmode=require", "postgresql://me:…@db:5432/c");
        check("postgresql://me:sec@secret@db/c", "postgresql://me:…@db/c");
        check("postgresql://me@db/c?password=secret", "postgresql://me@db/c");
        check("host=db password=secret", "…");
        check("postgresql://db/c?password=secret", "…");
    }
}
