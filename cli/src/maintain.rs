//! `landfall maintain`: finds what crashes have left behind.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use landfall_route::{BucketMap, Sweep, Swept};
use landfall_shared::aws::{self, S3Objects};
use landfall_shared::objects::OpenUpload;

use crate::deployment::Place;
use crate::map;
use crate::output::{self, End, Format, SetUp};

/// What is put right: copies in parts that nobody goes on with are aborted, because S3 charges for their parts.
#[derive(Debug, Clone, clap::Args)]
pub struct Maintain {
    /// Leave alone what is younger
    #[arg(long, value_name = "TIME", default_value = "24h")]
    older_than: SignedDuration,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// Where a bucket cannot be looked into.
pub async fn run(maintain: &Maintain, place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    let config = map::config(&connected).await?;
    let text = map::text_in_force(&connected).await?;
    let map = BucketMap::parse(&text, &[]).map_err(|bad| SetUp(bad.to_string()))?;
    let elsewhere = aws::elsewhere(&connected.sdk, &config.destinations).await;
    let objects = Arc::new(S3Objects::new(connected.s3()).with(elsewhere));
    let buckets: Vec<String> = map.buckets().iter().cloned().collect();
    let how = if maintain.dry_run { Sweep::Look } else { Sweep::Abort };
    let work = connected.deployment.output("WorkBucket")?;
    let swept = landfall_route::sweep(objects, work, &buckets, maintain.older_than, Timestamp::now(), how).await?;
    tell(&swept, how, format)?;
    Ok(End::Good)
}

fn tell(swept: &Swept, how: Sweep, format: Format) -> anyhow::Result<()> {
    let one = |upload: &OpenUpload| {
        serde_json::json!({"bucket": upload.object.bucket, "key": upload.object.key, "upload": upload.upload,
            "begun": upload.begun})
    };
    let aborted = how == Sweep::Abort;
    if format == Format::Json {
        let (open, stale): (Vec<_>, Vec<_>) =
            (swept.open.iter().map(one).collect(), swept.stale.iter().map(one).collect());
        return output::json(&serde_json::json!({"open": open, "stale": stale, "aborted": aborted}));
    }
    for upload in &swept.stale {
        let begun = upload.begun.map_or_else(|| "an unknown time".to_owned(), |begun| begun.to_string());
        let word = if aborted { "aborted" } else { "stale" };
        output::line(&format!("{word}  {}  begun at {begun}", output::visible(&upload.object.to_string())))?;
    }
    let word = if aborted { "aborted" } else { "would be aborted" };
    output::line(&format!("copies in parts: {} under way, {} stale {word}", swept.open.len(), swept.stale.len()))
}
