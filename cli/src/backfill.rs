//! `landfall backfill`: what is in a bucket already goes through the pipeline as if it had just landed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_s3::types::Object;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use landfall_events::{Cause, Change, Envelope, Landed, ObjectRef};
use landfall_shared::config::Landings;
use landfall_shared::runner::message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::deployment::{Connected, Place};
use crate::map;
use crate::output::{self, End, Format, SetUp};

/// What is fed into the pipeline.
#[derive(Debug, Clone, clap::Args)]
pub struct Backfill {
    /// A bucket in which providers land, or the start of keys there: s3://bucket/prefix
    #[arg(value_name = "URL")]
    place: String,
    /// The most objects a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Begin anew, where an earlier run over the same place was interrupted
    #[arg(long)]
    anew: bool,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Objects that were listed.
    listed: u64,
    /// Of them, those that the ledger has as they are.
    known: u64,
    /// Of them, those that no landing is configured for.
    unconfigured: u64,
    /// Of them, those that were sent, or would be.
    sent: u64,
    dry_run: bool,
}

/// How far a backfill is: it goes on after this key.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    after: Option<String>,
}

/// Runs the command. What was sent twice is one event; what the ledger has as it is, is not sent; what the ledger has
/// forgotten, is.
///
/// # Errors
/// [`SetUp`] where no provider lands in the bucket; else where it cannot be listed or the queue not be sent to.
pub async fn run(backfill: &Backfill, place: &Place, format: Format) -> anyhow::Result<End> {
    let rest = backfill.place.strip_prefix("s3://").filter(|rest| !rest.is_empty());
    let rest = rest.ok_or_else(|| SetUp(format!("{:?} is not s3://bucket/prefix", backfill.place)))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let connected = place.connect().await?;
    let landings = Landings::new(&map::config(&connected).await?, connected.deployment.output("LandingBucket")?)?;
    if !landings.has_bucket(bucket) {
        return Err(SetUp(format!("no provider lands in {bucket}: add a [[landing]] to landfall.toml")).into());
    }
    let journal = journal(place, &backfill.place);
    let known: Known = if backfill.anew || backfill.dry_run {
        Known::default()
    } else {
        std::fs::read(&journal).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    };
    if let Some(after) = &known.after {
        eprintln!("landfall: going on after {} (--anew begins anew)", output::visible(after));
    }
    let report = feed(backfill, &connected, &landings, (bucket, prefix), known, &journal).await?;
    if journal.exists() && !backfill.dry_run {
        std::fs::remove_file(&journal)?;
    }
    match format {
        Format::Json => output::json(&report)?,
        Format::Human => {
            let word = if report.dry_run { "would be sent" } else { "sent" };
            let Report { listed, known, unconfigured, sent, .. } = report;
            output::line(&format!(
                "{sent} of {listed} objects {word}; {known} are known, {unconfigured} belong to no landing"
            ))?;
        }
    }
    Ok(End::Good)
}

async fn feed(
    backfill: &Backfill,
    connected: &Connected,
    landings: &Landings,
    (bucket, prefix): (&str, &str),
    known: Known,
    journal: &PathBuf,
) -> anyhow::Result<Report> {
    let queue = connected.queue(connected.deployment.queue_url("validate")?);
    let catalogue = connected.catalogue()?;
    let mut report = Report { dry_run: backfill.dry_run, ..Report::default() };
    let style = ProgressStyle::with_template("{spinner} {msg} {per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let begun = tokio::time::Instant::now();
    let request = connected.s3().list_objects_v2().bucket(bucket).prefix(prefix).set_start_after(known.after);
    let mut pages = request.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.with_context(|| format!("s3://{bucket} could not be listed"))?;
        let keys: Vec<&str> = page.contents().iter().filter_map(|object| object.key()).collect();
        let settled = catalogue.known(bucket, &keys).await?;
        let mut messages = Vec::new();
        for object in page.contents() {
            report.listed += 1;
            let Some(envelope) = landed(bucket, object, landings) else {
                report.unconfigured += 1;
                continue;
            };
            let cause = &envelope.event.cause;
            if settled.contains_key(&(cause.object.key.clone(), cause.etag.clone().unwrap_or_default())) {
                report.known += 1;
            } else {
                messages.push(message(&envelope, "validate"));
            }
        }
        for some in messages.chunks(landfall_shared::queue::BATCH_MAX) {
            report.sent += some.len() as u64;
            if backfill.dry_run {
                continue;
            }
            for sent in queue.send(some.to_vec()).await {
                sent.map_err(|error| anyhow::anyhow!("could not send to validate: {error}"))?;
            }
            bar.set_position(report.sent);
            bar.set_message(format!("{} sent of {} listed", report.sent, report.listed));
            if let Some(rate) = backfill.rate {
                #[allow(clippy::cast_precision_loss, reason = "a pause")]
                let due = begun + Duration::from_secs_f64(report.sent as f64 / f64::from(rate));
                tokio::time::sleep_until(due).await;
            }
        }
        if let Some(last) = keys.last().filter(|_| !backfill.dry_run) {
            std::fs::create_dir_all(journal.parent().unwrap_or(journal))?;
            std::fs::write(journal, serde_json::to_vec(&Known { after: Some((*last).to_owned()) })?)?;
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// What S3 would have said of an object when it landed; `None` where it belongs to no landing.
pub(crate) fn landed(bucket: &str, object: &Object, landings: &Landings) -> Option<Envelope<Landed>> {
    let cause = Cause {
        object: ObjectRef::new(bucket, object.key()?),
        change: Change::Created,
        version_id: None,
        etag: Some(object.e_tag()?.trim_matches('"').to_owned()),
        size: object.size().and_then(|size| u64::try_from(size).ok()),
        sequencer: None,
        event_time: within(object.last_modified()?.secs())?,
        member: None,
        members: None,
    };
    let provider = landings.site(&cause.object)?.provider.to_owned();
    Some(Envelope::new(Landed { cause }, provider, 0))
}

/// When something was written of which only the second is known: after all else that was written in the same second,
/// once that is long over. Before, something else may still come.
fn within(second: i64) -> Option<Timestamp> {
    let is_over = Timestamp::now().as_second() > second.saturating_add(SECOND_OVER_AFTER);
    Timestamp::new(second, if is_over { 999_000_000 } else { 0 }).ok()
}

/// Seconds until nothing that was listed can have been written over in the second in which it was written.
const SECOND_OVER_AFTER: i64 = 60;

/// Where it is written down how far a backfill of a place is.
fn journal(place: &Place, of: &str) -> PathBuf {
    let name = hex::encode(Sha256::digest(of));
    place.state.join("backfills").join(format!("{}.json", &name[..32]))
}
