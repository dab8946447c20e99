//! ministack, and the template deployed to it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_config::SdkConfig;
use aws_sdk_cloudformation::types::{Capability, Parameter, StackStatus};
use aws_sdk_s3::primitives::ByteStream;
use landfall_stac::bundle_files;
use tokio::process::{Child, Command};

use super::{Layout, process};
use crate::deployment::{self, LOCAL_CREDENTIAL, LOCAL_REGION};
use crate::schemas::BUNDLE_KEY;

/// The template that is deployed locally and to AWS.
pub const TEMPLATE: &str = include_str!("../../../infra/landfall.yaml");
const CONFIG: &str = include_str!("../../../infra/landfall.toml");
const BUCKET_MAP: &str = include_str!("../../../infra/bucket-map.yaml");

/// The stack's name in a local deployment.
pub const STACK: &str = "landfall";

/// The buckets of a local deployment.
pub const BUCKETS: [(&str, &str); 3] = [
    ("LandingBucketName", "landfall-landing"),
    ("ArchiveBucketName", "landfall-archive"),
    ("WorkBucketName", "landfall-work"),
];

/// Who may do what on the local endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody everything.
    Open,
    /// A function only what its role allows.
    ByRole,
}

/// Starts ministack and waits until it answers.
///
/// # Errors
/// Where it does not; with the end of its log.
pub async fn start_ministack(layout: &Layout, port: u16, access: Access) -> anyhow::Result<Child> {
    let data = layout.state.join("ministack");
    std::fs::create_dir_all(&data)?;
    // It keeps the stack's parameters, the database's password among them.
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(layout.ministack());
    command
        .env_remove("AWS_CA_BUNDLE")
        .env_remove("AWS_PROFILE")
        .env("GATEWAY_PORT", port.to_string())
        // Its default is every interface.
        .env("BIND_HOST", "127.0.0.1")
        .env("MINISTACK_HOST", "127.0.0.1")
        .env("LOG_LEVEL", "WARNING")
        .env("PERSIST_STATE", "1")
        .env("S3_PERSIST", "1")
        .env("STATE_DIR", data.join("state"))
        .env("S3_DATA_DIR", data.join("s3"))
        // Functions call it back there.
        .env("AWS_ENDPOINT_URL", &endpoint)
        .env("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL)
        .env("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL)
        .env("AWS_DEFAULT_REGION", LOCAL_REGION);
    if access == Access::ByRole {
        command.env("AUTH", "true");
    }
    let log = layout.state.join("ministack.log");
    // Where this start is given up, nothing stays behind.
    command.kill_on_drop(true);
    let mut child = process::start(command, &log)?;
    let client = landfall_shared::aws::s3(&deployment::local_sdk(&endpoint).await);
    for _ in 0..600 {
        if let Some(status) = child.try_wait()? {
            bail!("ministack ended ({status}):\n{}", process::tail(&log));
        }
        if client.list_buckets().send().await.is_ok() {
            return Ok(child);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("ministack does not answer after a minute:\n{}", process::tail(&log))
}

/// Limits that stand in the template as numbers here: of a parameter's number the local endpoint makes a text there, and
/// then polls no queue.
const LIMITS: [(&str, &str); 4] = [
    ("!Ref ValidateConcurrency", "20"),
    ("!Ref RouteConcurrency", "20"),
    ("!Ref LoadConcurrency", "4"),
    ("!Ref NotifyConcurrency", "4"),
];

/// The template as the local endpoint understands it.
#[must_use]
pub fn template() -> String {
    LIMITS.iter().fold(TEMPLATE.to_owned(), |text, (of, number)| text.replace(of, number))
}

/// Deploys the template to the local endpoint, which has no TLS: creates the stack, or updates it where it is there.
///
/// # Errors
/// Where the stack does not become complete; with its reason.
pub async fn deploy(sdk: &SdkConfig, parameters: &[(&str, &str)]) -> anyhow::Result<()> {
    let client = aws_sdk_cloudformation::Client::new(sdk);
    let parameters: Vec<_> = parameters
        .iter()
        .chain(&[("RequireTls", "false")])
        .map(|(key, value)| Parameter::builder().parameter_key(*key).parameter_value(*value).build())
        .collect();
    let template = template();
    let known = client.describe_stacks().stack_name(STACK).send().await;
    if known.is_ok_and(|answer| !answer.stacks().is_empty()) {
        let update = client.update_stack().stack_name(STACK).template_body(&template);
        let sent = update.set_parameters(Some(parameters)).capabilities(Capability::CapabilityIam).send().await;
        // "No updates are to be performed" is what a restart meets.
        if let Err(error) = sent {
            let text = landfall_shared::stage::chain_of(&error.into_service_error());
            if !text.contains("No updates") {
                bail!("the stack could not be updated: {text}");
            }
        }
    } else {
        let create = client.create_stack().stack_name(STACK).template_body(&template);
        create
            .set_parameters(Some(parameters))
            .capabilities(Capability::CapabilityIam)
            .send()
            .await
            .context("the stack could not be created")?;
    }
    for _ in 0..600 {
        let answer = client.describe_stacks().stack_name(STACK).send().await?;
        let stack = answer.stacks().first().context("the stack is gone")?;
        match stack.stack_status() {
            Some(StackStatus::CreateComplete | StackStatus::UpdateComplete) => return Ok(()),
            Some(status) if status.as_str().ends_with("_IN_PROGRESS") => {}
            Some(status) => bail!("the stack is {}: {}", status.as_str(), stack.stack_status_reason().unwrap_or("")),
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the stack is not complete after a minute")
}

/// Puts the configuration and the bucket map into the work bucket; what is there stays, unless `config` replaces it.
///
/// # Errors
/// What S3 says.
pub async fn seed(s3: &aws_sdk_s3::Client, work_bucket: &str, config: Option<&str>) -> anyhow::Result<()> {
    let files = [
        ("config/landfall.toml", config.unwrap_or(CONFIG), config.is_some()),
        ("config/bucket-map.yaml", BUCKET_MAP, false),
    ];
    for (key, text, replace) in files {
        let there = s3.head_object().bucket(work_bucket).key(key).send().await.is_ok();
        if !there || replace {
            let body = ByteStream::from(text.as_bytes().to_vec());
            s3.put_object().bucket(work_bucket).key(key).body(body).send().await?;
        }
    }
    Ok(())
}

/// Puts a schema bundle of this machine in force.
///
/// # Errors
/// Where it cannot be read, or what S3 says.
pub async fn seed_bundle(s3: &aws_sdk_s3::Client, work_bucket: &str, bundle: &Path) -> anyhow::Result<()> {
    let text = bundle_files::read(bundle)?.write();
    s3.put_object().bucket(work_bucket).key(BUNDLE_KEY).body(ByteStream::from(text.into_bytes())).send().await?;
    Ok(())
}

/// Zips a worker as Lambda wants it: one program named `bootstrap`.
///
/// # Errors
/// Where the program cannot be read.
pub fn bootstrap_zip(program: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file("bootstrap", options)?;
    zip.write_all(&std::fs::read(program)?)?;
    Ok(zip.finish()?.into_inner())
}
