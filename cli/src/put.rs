//! `landfall put`: drops files into the landing bucket.

use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::deployment::Place;
use crate::output::{self, End, Format, SetUp};

/// Files that are uploaded at a time.
const CONCURRENCY: usize = 8;

/// What is put where.
#[derive(Debug, clap::Args)]
pub struct Put {
    /// Files or folders; a folder's files keep their paths below it
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The provider: the first segment of every key
    #[arg(long, short, value_name = "NAME")]
    provider: Option<String>,
    /// What keys start with, after the provider
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
}

/// One file on its way.
#[derive(Debug, Clone, Serialize)]
struct Upload {
    path: PathBuf,
    key: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Uploads everything and says what became of each file.
///
/// # Errors
/// [`SetUp`] where a path does not exist or there is nothing to put.
pub async fn run(put: &Put, place: &Place, format: Format) -> anyhow::Result<End> {
    let uploads = collect(put)?;
    let connected = place.connect().await?;
    let (client, bucket) = (connected.s3(), connected.deployment.output("LandingBucket")?.to_owned());
    let bytes = uploads.iter().map(|upload| upload.size).sum();
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
    let bar = ProgressBar::new(bytes).with_style(style);

    let each: Vec<_> = uploads.into_iter().map(|upload| one(&client, &bucket, upload, &bar)).collect();
    let done: Vec<Upload> = futures::stream::iter(each).buffered(CONCURRENCY).collect().await;
    bar.finish_and_clear();

    let failed = done.iter().filter(|upload| upload.error.is_some()).count();
    match format {
        Format::Json => {
            for upload in &done {
                output::json(upload)?;
            }
        }
        Format::Human => {
            for upload in &done {
                if let Some(error) = &upload.error {
                    output::line(&format!("failed  {}: {error}", output::visible(&upload.key)))?;
                }
            }
            output::line(&format!("{} of {} files put into s3://{bucket}", done.len() - failed, done.len()))?;
        }
    }
    Ok(if failed == 0 { End::Good } else { End::Problems })
}

async fn one(client: &aws_sdk_s3::Client, bucket: &str, mut upload: Upload, bar: &ProgressBar) -> Upload {
    bar.set_message(output::visible(&upload.key));
    let sent = async {
        // The SDK retries; SHA-256 is computed here and checked by the store.
        let body = ByteStream::from_path(&upload.path).await.context("could not be read")?;
        client
            .put_object()
            .bucket(bucket)
            .key(&upload.key)
            .set_content_type(content_type(&upload.path).map(str::to_owned))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .body(body)
            .send()
            .await
            .map_err(|error| anyhow::anyhow!(landfall_shared::stage::chain_of(&error.into_service_error())))
    };
    if let Err(error) = sent.await {
        upload.error = Some(format!("{error:#}"));
    }
    bar.inc(upload.size);
    upload
}

/// Finds the files and their keys: data first, so that documents seldom wait for what they name.
fn collect(put: &Put) -> anyhow::Result<Vec<Upload>> {
    let mut uploads = Vec::new();
    for path in &put.paths {
        if path.is_file() {
            let name = path.file_name().context("a file has a name")?;
            uploads.push(upload(put, path, Path::new(name))?);
        } else if path.is_dir() {
            for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
                let entry = entry?;
                if entry.file_type().is_file() {
                    uploads.push(upload(put, entry.path(), entry.path().strip_prefix(path)?)?);
                }
            }
        } else {
            anyhow::bail!(SetUp(format!("{} does not exist", path.display())));
        }
    }
    if uploads.is_empty() {
        anyhow::bail!(SetUp("there are no files in what was named".into()));
    }
    let is_document = |upload: &Upload| upload.path.extension().is_some_and(|extension| extension == "json");
    uploads.sort_by_key(|upload| (is_document(upload), upload.key.clone()));
    Ok(uploads)
}

fn upload(put: &Put, path: &Path, relative: &Path) -> anyhow::Result<Upload> {
    let relative = relative.to_str().ok_or_else(|| SetUp(format!("{} is not UTF-8", path.display())))?;
    let parts = [put.provider.as_deref().unwrap_or_default(), put.prefix.trim_matches('/'), relative];
    let key = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    Ok(Upload { path: path.to_owned(), key, size: path.metadata()?.len(), error: None })
}

fn content_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "json" => "application/json",
        "geojson" => "application/geo+json",
        "ndjson" | "jsonl" => "application/x-ndjson",
        "tif" | "tiff" => "image/tiff",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "csv" => "text/csv",
        "txt" => "text/plain",
        "xml" => "application/xml",
        _ => return None,
    })
}
