//! Where documents are read from: files and folders, standard input, a bucket.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use landfall_events::ObjectRef;
use landfall_stac::DOCUMENT_BYTES_MAX;
use landfall_validate::DOCUMENT_SUFFIXES;

use crate::deployment::Place;
use crate::output::SetUp;

/// One path of the command line, looked at.
pub(super) enum Source {
    /// Files of this machine, in order.
    Local {
        files: Vec<Origin>,
        /// Whether a folder was named, and not a file.
        is_folder: bool,
    },
    /// Standard input.
    Input(Vec<u8>),
    /// Objects of a bucket.
    Bucket { client: aws_sdk_s3::Client, objects: Vec<Landed> },
}

/// A file, by its name.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) file: PathBuf,
    /// How it is told of.
    pub(super) shown: String,
    /// Its path under the folder that was named, with `/`.
    pub(super) path: String,
    pub(super) is_document: bool,
}

/// An object of a bucket.
#[derive(Debug)]
pub(super) struct Landed {
    bucket: String,
    key: String,
    pub(super) url: String,
    /// Its key without the prefix that was named.
    pub(super) path: String,
}

impl Source {
    /// Looks at a path of the command line.
    pub(super) async fn find(path: &str, place: &Place) -> anyhow::Result<Self> {
        if path == "-" {
            return Ok(Self::Input(read(io::stdin().lock()).context("could not read standard input")?));
        }
        if let Some(rest) = path.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let client = place.connect_or_default().await?;
            let objects = list(&client, bucket, prefix).await?;
            if objects.is_empty() {
                return Err(SetUp(format!("there are no documents under {path}")).into());
            }
            return Ok(Self::Bucket { client, objects });
        }
        let found = std::fs::metadata(path).map_err(|error| SetUp(format!("{path}: {error}")))?;
        if found.is_dir() {
            let files = walk(Path::new(path))?;
            if !files.iter().any(|file| file.is_document) {
                return Err(SetUp(format!("there are no documents in {path}")).into());
            }
            return Ok(Self::Local { files, is_folder: true });
        }
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = Origin { file: path.into(), shown: path.to_owned(), path: name, is_document: true };
        Ok(Self::Local { files: vec![file], is_folder: false })
    }
}

/// All files under a folder, in the order of their names. Links to folders are not followed: they may lead in circles.
fn walk(folder: &Path) -> anyhow::Result<Vec<Origin>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|error| SetUp(error.to_string()))?;
        let is_file = entry.file_type().is_file() || (entry.path_is_symlink() && entry.path().is_file());
        if !is_file {
            continue;
        }
        let under = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let path = under.iter().map(|step| step.to_string_lossy()).collect::<Vec<_>>().join("/");
        let is_document = is_document(&path);
        files.push(Origin {
            file: entry.path().to_owned(),
            shown: entry.path().display().to_string(),
            path,
            is_document,
        });
    }
    Ok(files)
}

fn is_document(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    DOCUMENT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Reads a file, one byte beyond the limit for documents at most.
pub(super) fn file(path: &Path) -> io::Result<Vec<u8>> {
    read(std::fs::File::open(path)?)
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a text without a name is ndjson: it is not one document, and one of its first lines is, as an object.
pub(super) fn is_lines(bytes: &[u8]) -> bool {
    let is_object = |line: &[u8]| matches!(landfall_stac::Document::read(line), Ok(document) if document.root.as_object().is_some());
    let lines = || bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines().nth(1).is_some() && !is_object(bytes) && lines().take(10).any(is_object)
}

async fn list(client: &aws_sdk_s3::Client, bucket: &str, prefix: &str) -> anyhow::Result<Vec<Landed>> {
    let failed = || format!("could not list s3://{bucket}/{prefix}");
    let mut pages = client.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    let mut objects = Vec::new();
    while let Some(page) = pages.next().await {
        for object in page.with_context(failed)?.contents() {
            let Some(key) = object.key().filter(|key| is_document(key)) else { continue };
            let under = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/');
            let path = if under.is_empty() { key.rsplit('/').next().unwrap_or(key) } else { under };
            objects.push(Landed {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                url: ObjectRef::new(bucket, key).to_string(),
                path: path.to_owned(),
            });
        }
    }
    Ok(objects)
}

/// Reads an object, one byte beyond the limit for documents at most.
pub(super) async fn object(client: &aws_sdk_s3::Client, object: &Landed) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("could not read {}", object.url);
    let range = format!("bytes=0-{DOCUMENT_BYTES_MAX}");
    let sent = client.get_object().bucket(&object.bucket).key(&object.key).range(range).send().await;
    match sent {
        Ok(answer) => Ok(answer.body.collect().await.with_context(failed)?.to_vec()),
        // An empty object has no range.
        Err(error) if error.raw_response().is_some_and(|answer| answer.status().as_u16() == 416) => Ok(Vec::new()),
        Err(error) => Err(anyhow::Error::new(error).context(failed())),
    }
}
