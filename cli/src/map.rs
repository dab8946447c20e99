//! `landfall map`: looks through bucket maps, explains them, tests them, and puts one in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use jiff::civil::Date;
use landfall_events::{ObjectRef, Severity, codes};
use landfall_route::{BadMap, BucketMap, Explanation, Facts, Lint, Unmapped};
use landfall_shared::config::{Config, Landings};
use serde::{Deserialize, Serialize};

use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format, SetUp};

/// What is done with the bucket map.
#[derive(Debug, Subcommand)]
pub enum Map {
    /// Checks a bucket map and puts it in force where its buckets are there; route takes it within seconds
    #[command(after_help = "Example:\n  landfall map set bucket-map.yaml")]
    Set {
        /// The YAML file
        file: PathBuf,
    },
    /// Says what is wrong or odd in bucket maps, with lines and columns
    #[command(after_help = "Example:\n  landfall map lint bucket-map.yaml --landing my-landing-bucket")]
    Lint {
        /// YAML files, or s3://bucket/key; the map in force where none is given
        #[arg(value_name = "MAP")]
        maps: Vec<String>,
        /// A bucket in which providers land: nothing may be routed there
        #[arg(long, value_name = "BUCKET")]
        landing: Vec<String>,
    },
    /// Says where paths belong, by which rule, and which rules were tried before it
    #[command(
        after_help = "Example:\n  landfall map explain --map bucket-map.yaml --provider sbn neo/survey/a.fits\n  landfall map explain sbn/neo/survey/a.fits"
    )]
    Explain(Explain),
    /// Holds a bucket map against a table of what is expected of it
    #[command(
        after_help = "Example:\n  landfall map test cases.tsv --map bucket-map.yaml\n\nThe table has tabs between its columns, and a first line with their names: provider, path, expected; map, where\nthe rows are about several files beside the table; collection and item, where a rule asks for them. Expected is a\nbucket, s3://bucket/key, or `ERROR code`."
    )]
    Test {
        /// The table
        table: PathBuf,
        /// The YAML file, or s3://bucket/key; the map in force where none is given
        #[arg(long)]
        map: Option<String>,
    },
}

/// What is explained.
#[derive(Debug, Clone, clap::Args)]
pub struct Explain {
    /// Paths below the provider; without --provider, keys that start with it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// The YAML file, or s3://bucket/key; the map in force where none is given
    #[arg(long)]
    map: Option<String>,
    /// The provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The STAC collection of the document, or of the item that has the file as an asset
    #[arg(long, value_name = "ID")]
    collection: Option<String>,
    /// The STAC item
    #[arg(long, value_name = "ID", requires = "collection")]
    item: Option<String>,
    /// The item's day, as 2024-05-17
    #[arg(long, value_name = "DAY", requires = "item")]
    date: Option<Date>,
}

/// What is known of a path.
#[derive(Debug, Serialize)]
struct Told<'a> {
    provider: &'a str,
    path: &'a str,
    #[serde(flatten)]
    answer: BTreeMap<&'static str, serde_json::Value>,
}

/// Runs a sub-command.
///
/// # Errors
/// [`SetUp`] where a file cannot be read, or is no bucket map where one is needed.
pub async fn run(map: &Map, place: &Place, format: Format) -> anyhow::Result<End> {
    match map {
        Map::Set { file } => set(file, place, format).await,
        Map::Lint { maps, landing } => lint(maps, landing, place, format).await,
        Map::Explain(explain) => explain_paths(explain, place, format).await,
        Map::Test { table, map } => test(table, map.as_deref(), place, format).await,
    }
}

/// The map in force.
fn in_force(connected: &Connected) -> anyhow::Result<ObjectRef> {
    Ok(ObjectRef::new(connected.deployment.output("WorkBucket")?, "config/bucket-map.yaml"))
}

/// The buckets that nothing may be routed to: what they receive is ingested, or is Landfall's own.
fn forbidden(connected: &Connected, config: &Config) -> anyhow::Result<Vec<String>> {
    let (landing, work) = (connected.deployment.output("LandingBucket")?, connected.deployment.output("WorkBucket")?);
    let landings = Landings::new(config, landing)?;
    Ok(landings.buckets().into_iter().chain([landing, work]).map(str::to_owned).collect())
}

/// The configuration in force; the default where there is none.
pub(crate) async fn config(connected: &Connected) -> anyhow::Result<Config> {
    let at = ObjectRef::new(connected.deployment.output("WorkBucket")?, "config/landfall.toml");
    match connected.s3().head_object().bucket(&at.bucket).key(&at.key).send().await {
        Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(Config::default()),
        _ => Ok(Config::parse(&object(&connected.s3(), &at).await?)?),
    }
}

/// Whether a bucket can be routed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum There {
    Yes,
    No,
    /// The stack's functions have no right to it.
    Denied,
    /// It could not be asked; why.
    Unknown(String),
}

/// Asks for the buckets that a map routes to. Of another region they are not asked, and what has credentials of its own
/// is left out.
pub(crate) async fn destinations(connected: &Connected, config: &Config, map: &BucketMap) -> Vec<(String, There)> {
    let granted = connected.deployment.outputs.get("Archives");
    let is_denied = |bucket: &str| {
        granted
            .is_some_and(|all| all.split(',').all(|arn| arn.rsplit_once(":::").is_none_or(|(_, name)| name != bucket)))
    };
    let mut asked = Vec::new();
    for bucket in map.destinations() {
        let told = config.destinations.iter().find(|one| one.bucket == *bucket);
        if told.is_some_and(|told| told.endpoint.is_some() || told.profile.is_some()) {
            continue;
        }
        if is_denied(bucket) {
            asked.push((bucket.clone(), There::Denied));
            continue;
        }
        if told.is_some_and(|told| told.region.is_some()) {
            continue;
        }
        let there = match connected.s3().head_bucket().bucket(bucket).send().await {
            Ok(_) => There::Yes,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => There::No,
            Err(error) => There::Unknown(landfall_shared::stage::chain_of(&error)),
        };
        asked.push((bucket.clone(), there));
    }
    asked
}

/// The text of the map in force.
pub(crate) async fn text_in_force(connected: &Connected) -> anyhow::Result<String> {
    object(&connected.s3(), &in_force(connected)?).await
}

async fn object(s3: &aws_sdk_s3::Client, at: &ObjectRef) -> anyhow::Result<String> {
    let unread = |why: String| SetUp(format!("{at}: {why}"));
    let answer = s3.get_object().bucket(&at.bucket).key(&at.key).send().await;
    let answer = answer.map_err(|error| unread(landfall_shared::stage::chain_of(&error)))?;
    let body = answer.body.collect().await.context("the map could not be read")?;
    Ok(String::from_utf8(body.to_vec()).map_err(|error| unread(error.to_string()))?)
}

/// Reads a map: a file, an object, or the one in force. Only the last two need an endpoint.
async fn read(map: Option<&str>, place: &Place) -> anyhow::Result<(String, String)> {
    match map {
        None => {
            let connected = place.connect().await?;
            let at = in_force(&connected)?;
            Ok((at.to_string(), object(&connected.s3(), &at).await?))
        }
        Some(name) => match ObjectRef::parse(name) {
            Some(at) => Ok((name.to_owned(), object(&place.connect_or_default().await?, &at).await?)),
            None => {
                let text = std::fs::read_to_string(name).map_err(|error| SetUp(format!("{name}: {error}")))?;
                Ok((name.to_owned(), text))
            }
        },
    }
}

async fn set(file: &Path, place: &Place, format: Format) -> anyhow::Result<End> {
    let text = std::fs::read_to_string(file).map_err(|error| SetUp(format!("{}: {error}", file.display())))?;
    let name = file.display().to_string();
    let connected = place.connect().await?;
    let config = config(&connected).await?;
    let forbidden = forbidden(&connected, &config)?;
    let forbidden: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    let (map, lint) = match BucketMap::read(&text, &forbidden) {
        Ok(read) => read,
        Err(BadMap(lint)) => {
            tell(&name, &lint, format)?;
            return Ok(End::Problems);
        }
    };
    if format == Format::Human {
        tell(&name, &lint, format)?;
    }
    let asked = destinations(&connected, &config, &map).await;
    for (bucket, there) in &asked {
        if let There::Unknown(why) = there {
            eprintln!("landfall: could not ask for the bucket {bucket}: {}", output::visible(why));
        }
    }
    let unusable = asked.iter().filter_map(|(bucket, there)| match there {
        There::Yes | There::Unknown(_) => None,
        There::No => Some((bucket.as_str(), codes::MAP_BUCKET_MISSING)),
        There::Denied => Some((bucket.as_str(), codes::MAP_BUCKET_DENIED)),
    });
    let unusable: Vec<_> = unusable.collect();
    if !unusable.is_empty() {
        tell_unusable(&name, &unusable, format)?;
        return Ok(End::Problems);
    }
    let at = in_force(&connected)?;
    let request = connected.s3().put_object().bucket(&at.bucket).key(&at.key).body(text.into_bytes().into());
    request.send().await.context("could not write the bucket map")?;
    match format {
        Format::Json => output::json(&serde_json::json!({"map": at.to_string()}))?,
        Format::Human => output::line(&format!("in force: {at}"))?,
    }
    Ok(End::Good)
}

async fn lint(maps: &[String], landing: &[String], place: &Place, format: Format) -> anyhow::Result<End> {
    let mut forbidden_buckets = landing.to_vec();
    // A file is looked through without any deployment; with one, its buckets count too.
    if maps.is_empty() || place.stack.is_some() {
        let connected = place.connect().await?;
        forbidden_buckets.extend(forbidden(&connected, &config(&connected).await?)?);
    }
    let forbidden: Vec<&str> = forbidden_buckets.iter().map(String::as_str).collect();
    let mut end = End::Good;
    let names: Vec<Option<&str>> =
        if maps.is_empty() { vec![None] } else { maps.iter().map(|map| Some(map.as_str())).collect() };
    for map in names {
        let (name, text) = read(map, place).await?;
        let lint = BucketMap::lint(&text, &forbidden);
        tell(&name, &lint, format)?;
        if lint.errors().next().is_some() {
            end = End::Problems;
        }
    }
    Ok(end)
}

/// Prints what a look through a map has found.
fn tell(name: &str, lint: &Lint, format: Format) -> anyhow::Result<()> {
    let errors = lint.errors().count();
    let warnings = lint.findings.len() - errors;
    if format == Format::Json {
        return output::json(&serde_json::json!({"map": name, "generation": lint.generation, "errors": errors,
            "warnings": warnings, "findings": lint.findings}));
    }
    for finding in &lint.findings {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        let (line, column) = (finding.place.line, finding.place.column);
        let message = output::visible(&finding.message);
        output::line(&format!("{name}:{line}:{column}: {word}: {}: {message}\n    {}", finding.code, finding.hint))?;
    }
    output::line(&format!("{name}: {errors} errors, {warnings} warnings"))
}

/// Prints which of a map's buckets cannot be routed to.
fn tell_unusable(name: &str, unusable: &[(&str, landfall_events::Code)], format: Format) -> anyhow::Result<()> {
    let hint = |code: &landfall_events::Code| codes::explain(code.as_str()).map_or("", |explanation| explanation.hint);
    if format == Format::Json {
        let finding = |(bucket, code): &(&str, landfall_events::Code)| serde_json::json!({"severity": "error", "code": code, "bucket": bucket, "hint": hint(code)});
        let findings: Vec<_> = unusable.iter().map(finding).collect();
        return output::json(&serde_json::json!({"map": name, "errors": findings.len(), "findings": findings}));
    }
    for (bucket, code) in unusable {
        output::line(&format!("{name}: error: {code}: {bucket}\n    {}", hint(code)))?;
    }
    output::line(&format!("{name} is not in force: the map of before stays"))
}

/// Reads and compiles a map that a command cannot do without.
async fn compiled(map: Option<&str>, place: &Place) -> anyhow::Result<BucketMap> {
    let (name, text) = read(map, place).await?;
    Ok(BucketMap::parse(&text, &[]).map_err(|bad: BadMap| SetUp(format!("{name}: {bad}; see `landfall map lint`")))?)
}

/// Splits a key into its provider and the path.
fn split<'a>(provider: Option<&'a str>, path: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    match provider {
        Some(provider) => Ok((provider, path)),
        None => Ok(path.split_once('/').ok_or_else(|| {
            SetUp(format!("{path:?} has no provider: write <provider>/<path>, or name it with --provider"))
        })?),
    }
}

fn code_of(unmapped: &Unmapped) -> landfall_events::Code {
    match unmapped {
        Unmapped::Provider { .. } | Unmapped::Path { .. } => codes::ROUTE_UNMAPPED,
        Unmapped::NeedsItem { .. } => codes::ROUTE_UNCLAIMED,
        Unmapped::Escape { .. } => codes::ROUTE_ESCAPE,
    }
}

async fn explain_paths(explain: &Explain, place: &Place, format: Format) -> anyhow::Result<End> {
    let map = compiled(explain.map.as_deref(), place).await?;
    let Explain { collection, item, date, .. } = explain;
    let facts = collection.as_deref().map(|collection| Facts {
        collection: Some(collection),
        item: item.as_deref(),
        date: *date,
    });
    let mut end = End::Good;
    for path in &explain.paths {
        let (provider, path) = split(explain.provider.as_deref(), path)?;
        let explanation = map.explain(provider, path, facts.as_ref());
        if explanation.target.is_err() {
            end = End::Problems;
        }
        match format {
            Format::Json => output::json(&told(provider, path, &explanation))?,
            Format::Human => tell_path(provider, path, &explanation)?,
        }
    }
    Ok(end)
}

fn told<'a>(provider: &'a str, path: &'a str, explanation: &Explanation<'_>) -> Told<'a> {
    let mut answer = BTreeMap::new();
    match &explanation.target {
        Ok(target) => {
            answer.insert("bucket", target.bucket.clone().into());
            answer.insert("key", target.key.clone().into());
            if let Some(class) = target.storage_class {
                answer.insert("storage_class", class.as_str().into());
            }
            if !target.tags.is_empty() {
                answer.insert("tags", serde_json::json!(target.tags));
            }
        }
        Err(unmapped) => {
            answer.insert("error", code_of(unmapped).as_str().into());
            answer.insert("reason", unmapped.to_string().into());
        }
    }
    if let Some(rule) = explanation.rule {
        answer.insert("rule", serde_json::json!(rule));
    }
    if !explanation.tried.is_empty() {
        answer.insert("tried", serde_json::json!(explanation.tried));
    }
    Told { provider, path, answer }
}

/// Rules that are named as tried for people.
const TRIED_MAX: usize = 10;

fn tell_path(provider: &str, path: &str, explanation: &Explanation<'_>) -> anyhow::Result<()> {
    output::line(&format!("{provider}/{path}"))?;
    match &explanation.target {
        Ok(target) => {
            let class = target.storage_class.map(|class| format!("  ({})", class.as_str())).unwrap_or_default();
            output::line(&format!("  to      s3://{}/{}{class}", target.bucket, target.key))?;
        }
        Err(unmapped) => output::line(&format!("  refused {}: {unmapped}", code_of(unmapped)))?,
    }
    if let Some(rule) = explanation.rule {
        output::line(&format!("  by      {rule} (line {})", rule.place.line))?;
    }
    let tried = explanation.tried.iter().take(TRIED_MAX).map(|rule| format!("{rule} (line {})", rule.place.line));
    let tried: Vec<_> = tried.collect();
    if !tried.is_empty() {
        let more = explanation.tried.len() - tried.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        output::line(&format!("  not by  {}{more}", tried.join(", ")))?;
    }
    Ok(())
}

/// A row of a table.
#[derive(Debug, Deserialize)]
struct Case {
    #[serde(default)]
    map: Option<String>,
    provider: String,
    path: String,
    expected: String,
    #[serde(default)]
    collection: Option<String>,
    #[serde(default)]
    item: Option<String>,
}

async fn test(table: &Path, map: Option<&str>, place: &Place, format: Format) -> anyhow::Result<End> {
    let unread = |error: csv::Error| SetUp(format!("{}: {error}", table.display()));
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').quoting(false).from_path(table).map_err(unread)?;
    let mut maps: BTreeMap<Option<String>, Result<BucketMap, BadMap>> = BTreeMap::new();
    let (mut rows, mut wrong) = (0, 0);
    for (index, case) in reader.deserialize::<Case>().enumerate() {
        let case = case.map_err(unread)?;
        // Files are named as they lie beside the table.
        let beside = |name: &String| table.with_file_name(name).display().to_string();
        let name = map.map(str::to_owned).or_else(|| case.map.as_ref().map(beside));
        if !maps.contains_key(&name) {
            let (_, text) = read(name.as_deref(), place).await?;
            maps.insert(name.clone(), BucketMap::parse(&text, &[]));
        }
        let found = found(maps[&name].as_ref().ok(), &case);
        rows += 1;
        let is_right = is_right(&case.expected, &found);
        if !is_right {
            wrong += 1;
        }
        let Case { provider, path, expected, .. } = &case;
        match format {
            Format::Json => output::json(&serde_json::json!({"row": index + 2, "map": name, "provider": provider,
                "path": path, "expected": expected, "found": found, "ok": is_right}))?,
            Format::Human if !is_right => {
                output::line(&format!("row {}: {provider} {path}: expected {expected}, found {found}", index + 2))?;
            }
            Format::Human => {}
        }
    }
    if format == Format::Human {
        output::line(&format!("{rows} rows, {wrong} of them otherwise than expected"))?;
    }
    Ok(if wrong == 0 { End::Good } else { End::Problems })
}

/// What a map says about a row: a URL, or `ERROR code`, `ERROR map` where it cannot be used at all.
fn found(map: Option<&BucketMap>, case: &Case) -> String {
    let Some(map) = map else { return "ERROR map".to_owned() };
    let facts = case.collection.as_deref().filter(|collection| !collection.is_empty());
    let item = case.item.as_deref().filter(|item| !item.is_empty());
    let facts = facts.map(|collection| Facts { collection: Some(collection), item, date: None });
    match map.target(&case.provider, &case.path, facts.as_ref()) {
        Ok(target) => format!("s3://{}/{}", target.bucket, target.key),
        Err(unmapped) => format!("ERROR {}", code_of(&unmapped)),
    }
}

/// Whether what was found is the URL or the error that is expected, or lies in the bucket that is.
fn is_right(expected: &str, found: &str) -> bool {
    let bucket = found.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
    expected == found || bucket == Some(expected)
}
