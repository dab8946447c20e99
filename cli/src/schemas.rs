//! `landfall schemas`: the published schemas of extensions, fetched once, locked by checksum, kept in one bundle.

mod fetch;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use landfall_stac::schemas::sha256;
use landfall_stac::{Bundle, Lock, Locked, Schemas, Status, bundle_files};
use serde_json::json;

use crate::deployment::Place;
use crate::output::{self, End, Format, SetUp};

pub use fetch::{FetchError, Fetcher, Host, PublicHosts};

/// What is done with schemas.
#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Gets every locked schema into one bundle file; what is there already and unchanged is kept
    #[command(
        after_help = "Example:\n  landfall schemas fetch\n  landfall schemas fetch --from mirror/ --output schemas.bundle"
    )]
    Fetch(Fetch),
    /// Lists what is locked, and what the bundle holds
    #[command(after_help = "Example:\n  landfall schemas ls\n  landfall schemas ls --format json")]
    Ls(Where),
    /// Adds a schema to a lock file of one's own; `fetch` takes it from then on
    #[command(
        after_help = "Example:\n  landfall schemas add https://stac-extensions.github.io/eo/v3.0.0/schema.json --licence Apache-2.0"
    )]
    Add(Add),
    /// Compiles every schema of the bundle and holds it against the lock file
    #[command(after_help = "Example:\n  landfall schemas verify\n  landfall schemas verify --bundle schemas.bundle")]
    Verify(Where),
    /// Puts a bundle in force; validate takes it within seconds
    #[command(after_help = "Example:\n  landfall schemas set .landfall/schemas.bundle")]
    Set {
        /// The bundle; the one that was fetched where none is named
        bundle: Option<PathBuf>,
    },
}

/// Which files are meant.
#[derive(Debug, Args)]
pub struct Where {
    /// The lock file; `schemas.lock` here, else the one that ships
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// The bundle, or a folder that mirrors URLs; the one that was fetched where none is named
    #[arg(long, env = "LANDFALL_SCHEMAS", value_name = "BUNDLE|DIR")]
    bundle: Option<PathBuf>,
}

/// How schemas are got.
#[derive(Debug, Args)]
pub struct Fetch {
    /// The lock file; `schemas.lock` here, else the one that ships
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Read from a folder that mirrors URLs as host/path, and not from the network
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where the bundle is written; in the state folder where it is not said
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A host beside those of the shipped lock file
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

/// What is added.
#[derive(Debug, Args)]
pub struct Add {
    /// The URL by which documents name it
    url: String,
    /// The lock file that is changed, or made of the one that ships
    #[arg(long, default_value = "schemas.lock", value_name = "FILE")]
    lock: PathBuf,
    /// Its licence, as an SPDX expression
    #[arg(long, default_value = "LicenseRef-unknown")]
    licence: String,
    /// Another schema's URL, which answers for this one: nothing is read
    #[arg(long, value_name = "URL")]
    of: Option<String>,
    /// Read from a folder that mirrors URLs as host/path, and not from the network
    #[arg(long, value_name = "DIR", conflicts_with = "of")]
    from: Option<PathBuf>,
    /// A host beside those of the shipped lock file
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

/// The most schemas that could not be had that are told one by one to people.
const SHOWN_MAX: usize = 3;

/// Where `fetch` puts the bundle when it is not told otherwise.
#[must_use]
pub fn fetched(state: &Path) -> PathBuf {
    state.join("schemas.bundle")
}

/// The bundle of this machine: the one that `LANDFALL_SCHEMAS` names, or that was fetched.
#[must_use]
pub fn local(state: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("LANDFALL_SCHEMAS").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(fetched(state))).filter(|path| path.exists())
}

/// Runs a sub-command.
///
/// # Errors
/// [`SetUp`] where a file cannot be read or written, or a URL cannot be taken.
pub async fn run(command: &SchemasCommand, place: &Place, format: Format) -> anyhow::Result<End> {
    match command {
        SchemasCommand::Fetch(fetch) => get(fetch, place, format).await,
        SchemasCommand::Ls(files) => list(files, place, format),
        SchemasCommand::Add(new) => add(new, format).await,
        SchemasCommand::Verify(files) => verify(files, place, format),
        SchemasCommand::Set { bundle } => set(bundle.as_deref(), place, format).await,
    }
}

fn read_lock(named: Option<&Path>) -> anyhow::Result<Lock> {
    let here = Path::new("schemas.lock");
    let path = match named {
        Some(path) => path,
        None if here.is_file() => here,
        None => return Ok(Lock::shipped().clone()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| SetUp(format!("{}: {error}", path.display())))?;
    let lock = Lock::parse(&text).map_err(|error| SetUp(landfall_shared::stage::chain_of(&error)))?;
    Ok(lock)
}

fn read_bundle(path: &Path) -> anyhow::Result<Bundle> {
    Ok(bundle_files::read(path).map_err(|error| SetUp(landfall_shared::stage::chain_of(&error)))?)
}

/// Hosts that schemas may be read from: those of the shipped lock file, and those that the operator names.
fn hosts(more: &[String]) -> Vec<String> {
    let host = |locked: &Locked| fetch::host_of(&locked.url);
    let mut hosts: Vec<String> = Lock::shipped().schemas.iter().filter_map(host).collect();
    hosts.extend(more.iter().cloned());
    hosts.sort();
    hosts.dedup();
    hosts
}

async fn get(fetch: &Fetch, place: &Place, format: Format) -> anyhow::Result<End> {
    let lock = read_lock(fetch.lock.as_deref())?;
    let output = fetch.output.clone().unwrap_or_else(|| fetched(&place.state));
    // What was fetched before and is still what is locked needs no fetching.
    let before = if output.is_file() { bundle_files::read(&output).unwrap_or_default() } else { Bundle::default() };
    let mirror = fetch.from.as_deref().map(read_bundle).transpose()?;
    let got = match &mirror {
        Some(mirror) => fetch::from_bundle(&lock, mirror),
        None => Fetcher::new(hosts(&fetch.allow_host), PublicHosts)?.all(&lock, &before).await,
    };
    let mut bundle = Bundle::default();
    let mut failed = Vec::new();
    for (locked, text) in got {
        let url = locked.url.clone();
        match text {
            Ok(text) => match bundle.insert(locked, text) {
                Ok(()) => {}
                Err(error) => failed.push((url, error.to_string())),
            },
            Err(error) => failed.push((url, landfall_shared::stage::chain_of(&error))),
        }
    }
    let kept = bundle.entries().filter(|(locked, text)| text.is_some() || locked.of.is_some()).count();
    if kept > 0 {
        if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| SetUp(format!("{}: {error}", folder.display())))?;
        }
        // A worker that reads the file meanwhile sees the old one or the new one.
        let beside = output.with_extension("bundle.new");
        let written = std::fs::write(&beside, bundle.write()).and_then(|()| std::fs::rename(&beside, &output));
        written.map_err(|error| SetUp(format!("{}: {error}", output.display())))?;
    }
    match format {
        Format::Json => {
            let failed: Vec<_> = failed.iter().map(|(url, error)| json!({"url": url, "error": error})).collect();
            output::json(&json!({"bundle": output, "schemas": kept, "locked": lock.schemas.len(), "failed": failed}))?;
        }
        Format::Human => {
            for (url, error) in failed.iter().take(SHOWN_MAX) {
                // The last cause says it; what is around it repeats the URL.
                let cause = error.rsplit(": ").next().unwrap_or(error);
                output::line(&format!("not had: {url}: {}", output::visible(cause)))?;
            }
            if failed.len() > SHOWN_MAX {
                output::line(&format!("… and {} more", failed.len() - SHOWN_MAX))?;
            }
            if kept == 0 && fetch.from.is_none() {
                output::line("is there a network? `--from DIR` reads a folder that mirrors the URLs as host/path")?;
            }
            let place = if kept > 0 { format!("in {}", output.display()) } else { "nothing is written".into() };
            output::line(&format!("{kept} of {} locked schemas had, {place}", lock.schemas.len()))?;
        }
    }
    Ok(if failed.is_empty() { End::Good } else { End::Problems })
}

/// The bundle that is meant; `None` where none is named and none was fetched.
fn meant(files: &Where, place: &Place) -> anyhow::Result<Option<Bundle>> {
    let fetched = fetched(&place.state);
    match &files.bundle {
        Some(path) => Ok(Some(read_bundle(path)?)),
        None if fetched.is_file() => Ok(Some(read_bundle(&fetched)?)),
        None => Ok(None),
    }
}

fn list(files: &Where, place: &Place, format: Format) -> anyhow::Result<End> {
    let lock = read_lock(files.lock.as_deref())?;
    let bundle = meant(files, place)?.unwrap_or_default();
    let held =
        |url: &str| bundle.entries().any(|(locked, text)| locked.url == url && (text.is_some() || locked.of.is_some()));
    let others = bundle.entries().map(|(locked, _)| locked).filter(|locked| lock.get(&locked.url).is_none());
    let mut table = output::table(&["URL", "STATUS", "LICENCE", "BUNDLE", "NOTE"]);
    for locked in lock.schemas.iter().chain(others) {
        let (is_held, is_locked) = (held(&locked.url), lock.get(&locked.url).is_some());
        match format {
            Format::Json => {
                let mut line = serde_json::to_value(locked)?;
                line["held"] = is_held.into();
                line["locked"] = is_locked.into();
                output::json(&line)?;
            }
            Format::Human => {
                let status = serde_json::to_value(locked.status)?;
                let status = if is_locked { status.as_str().unwrap_or_default() } else { "not locked" };
                let note = locked.of.as_ref().map(|of| format!("= {of}")).or_else(|| locked.note.clone());
                table.add_row([
                    locked.url.as_str(),
                    status,
                    &locked.licence,
                    if is_held { "yes" } else { "no" },
                    note.as_deref().unwrap_or_default(),
                ]);
            }
        }
    }
    if format == Format::Human {
        output::line(&table.trim_fmt())?;
    }
    Ok(End::Good)
}

fn verify(files: &Where, place: &Place, format: Format) -> anyhow::Result<End> {
    let lock = read_lock(files.lock.as_deref())?;
    let bundle = meant(files, place)?
        .ok_or_else(|| SetUp("there is no bundle: `landfall schemas fetch` gets one, or name it by --bundle".into()))?;
    let schemas = Schemas::new(bundle.clone());
    let unusable = schemas.verify();
    let mut wrong = 0;
    let mut say = |url: &str, state: &str, reason: &str| -> anyhow::Result<()> {
        wrong += usize::from(state == "wrong" || state == "missing");
        match format {
            Format::Json => output::json(&json!({"url": url, "state": state, "reason": reason})),
            Format::Human => output::line(&format!("{state:<8} {url}: {}", output::visible(reason))),
        }
    };
    for (locked, text) in bundle.entries() {
        let expected = lock.get(&locked.url);
        let found = text.map(|text| sha256(text.as_bytes()));
        let is_known_broken = expected.is_some_and(|expected| expected.status == Status::Broken);
        match (unusable.get(&locked.url), expected) {
            (_, Some(expected)) if expected.sha256.is_some() && found.is_some() && expected.sha256 != found => {
                say(&locked.url, "wrong", "its bytes are not those that are locked")?;
            }
            (Some(reason), _) if is_known_broken => say(&locked.url, "broken", &format!("{reason} (known)"))?,
            (Some(reason), _) => say(&locked.url, "wrong", reason)?,
            (None, _) => {}
        }
    }
    for locked in &lock.schemas {
        if !bundle.entries().any(|(held, text)| held.url == locked.url && (text.is_some() || held.of.is_some())) {
            say(&locked.url, "missing", "it is locked, and the bundle does not hold it")?;
        }
    }
    if format == Format::Human {
        let usable = schemas.len() - unusable.len();
        output::line(&format!("{usable} of {} schemas of the bundle can be used", schemas.len()))?;
    }
    Ok(if wrong == 0 { End::Good } else { End::Problems })
}

async fn add(add: &Add, format: Format) -> anyhow::Result<End> {
    let mut lock = if add.lock.is_file() { read_lock(Some(&add.lock))? } else { Lock::shipped().clone() };
    let mut new = Locked {
        url: add.url.clone(),
        sha256: None,
        licence: add.licence.clone(),
        status: Status::Good,
        of: add.of.clone(),
        note: None,
    };
    if add.of.is_some() {
        new.status = Status::Alias;
    } else {
        let text = match &add.from {
            Some(folder) => {
                let mirror = read_bundle(folder)?;
                let found = mirror.entries().find(|(locked, _)| locked.url == add.url).and_then(|(_, text)| text);
                found.ok_or_else(|| SetUp(format!("{} does not hold {}", folder.display(), add.url)))?.to_owned()
            }
            None => {
                let fetcher = Fetcher::new(hosts(&add.allow_host), PublicHosts)?;
                let text = fetcher.one(&add.url).await;
                text.map_err(|error| SetUp(landfall_shared::stage::chain_of(&error)))?
            }
        };
        new.sha256 = Some(sha256(text.as_bytes()));
        // It must compile by itself: what it refers to may be added later, but nonsense is not locked.
        let mut bundle = Bundle::default();
        bundle.insert(new.clone(), Some(text))?;
        let unusable = Schemas::new(bundle).verify();
        new.note = unusable.get(&new.url).filter(|reason| reason.contains("refers to")).cloned();
        if let (Some(reason), None) = (unusable.get(&new.url), &new.note) {
            return Err(SetUp(format!("{}: {reason}", add.url)).into());
        }
    }
    lock.schemas.retain(|locked| locked.url != new.url);
    let at = lock.schemas.partition_point(|locked| locked.url < new.url);
    lock.schemas.insert(at, new.clone());
    let text = toml::to_string(&lock).context("the lock file could not be written")?;
    std::fs::write(&add.lock, text).map_err(|error| SetUp(format!("{}: {error}", add.lock.display())))?;
    match format {
        Format::Json => output::json(&new)?,
        Format::Human => output::line(&format!(
            "locked in {}; `landfall schemas fetch` takes it into the bundle",
            add.lock.display()
        ))?,
    }
    Ok(End::Good)
}

async fn set(bundle: Option<&Path>, place: &Place, format: Format) -> anyhow::Result<End> {
    let path = bundle.map(Path::to_owned).or_else(|| local(&place.state)).unwrap_or_else(|| fetched(&place.state));
    let bundle = read_bundle(&path)?;
    let connected = place.connect().await?;
    let work = connected.deployment.output("WorkBucket")?;
    let request = connected.s3().put_object().bucket(work).key(BUNDLE_KEY).body(bundle.write().into_bytes().into());
    request.send().await.context("could not write the bundle")?;
    let url = format!("s3://{work}/{BUNDLE_KEY}");
    match format {
        Format::Json => output::json(&json!({"bundle": url, "schemas": bundle.len()}))?,
        Format::Human => output::line(&format!("in force: {url} with {} schemas", bundle.len()))?,
    }
    Ok(End::Good)
}

/// Where the bundle in force lies in the work bucket.
pub const BUNDLE_KEY: &str = "config/schemas.bundle";
