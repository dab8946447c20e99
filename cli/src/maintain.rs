//! `landfall maintain`: finds what crashes have left behind, and does for the catalogue what is due by time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use landfall_events::{Envelope, Routed};
use landfall_load::Load;
use landfall_notify::Notify;
use landfall_route::{Route, Sweep, Swept};
use landfall_shared::aws::{self, S3Objects};
use landfall_shared::catalogue::{Due, Maintained};
use landfall_shared::config::{Config, Landings};
use landfall_shared::lambda;
use landfall_shared::letters::{Archive, Kept, Letters};
use landfall_shared::objects::OpenUpload;
use landfall_shared::runner::message;
use landfall_shared::stage::Stage;
use landfall_validate::Validate;

use crate::deployment::{Connected, Place};
use crate::map;
use crate::output::{self, End, Format};

/// What is put right and done: copies in parts that nobody goes on with are aborted, because S3 charges for their
/// parts; partitions are made ahead of time, pgSTAC's queue is run, extents and summaries are widened, what waits for a
/// collection goes on or is refused, and the ledger forgets what was settled long ago. Dead letters that SQS moved by
/// itself get a reason and are announced; old ones are archived in the work bucket, before SQS forgets them.
#[derive(Debug, Clone, clap::Args)]
pub struct Maintain {
    /// Leave alone what is younger
    #[arg(long, value_name = "TIME", default_value = "24h")]
    older_than: SignedDuration,
    /// Forget what is settled and not in the catalogue, where nothing has become of it for so long
    #[arg(long, value_name = "TIME", default_value = "2160h")]
    keep: SignedDuration,
    /// Archive dead letters that are older; SQS forgets them after the queue's retention, at most 14 days
    #[arg(long, value_name = "TIME", default_value = "192h")]
    archive_after: SignedDuration,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Default for Maintain {
    fn default() -> Self {
        Self {
            older_than: SignedDuration::from_hours(24),
            keep: landfall_shared::catalogue::KEEP,
            archive_after: landfall_shared::letters::ARCHIVE_AFTER,
            dry_run: false,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Where a bucket cannot be looked into.
pub async fn run(maintain: &Maintain, place: &Place, format: Format) -> anyhow::Result<End> {
    all(maintain, &place.connect().await?, format).await
}

/// Does the same for each invocation of a function, until the runtime ends the process.
///
/// # Errors
/// Where the environment is not that of the function, or the runtime's interface cannot be reached.
pub async fn serve() -> anyhow::Result<()> {
    let connected = Arc::new(Connected::from_environment().await?);
    let task = move || {
        let connected = connected.clone();
        async move {
            match all(&Maintain::default(), &connected, Format::Json).await? {
                End::Good => Ok(()),
                End::Problems => anyhow::bail!("not all dead letters could be kept"),
            }
        }
    };
    lambda::serve_task(task).await.map_err(|error| anyhow::anyhow!("the Lambda runtime's interface failed: {error}"))
}

/// Does everything; what fails in one part keeps no other from being done.
async fn all(maintain: &Maintain, connected: &Connected, format: Format) -> anyhow::Result<End> {
    let config = map::config(connected).await?;
    let now = Timestamp::now();
    let how = if maintain.dry_run { Sweep::Look } else { Sweep::Abort };
    let kept = keep_letters(maintain, connected, &config, now).await;
    let tended = tend(maintain, connected, now).await;
    let swept = sweep(maintain, connected, &config, how, now).await;
    let (swept, tended, kept) = (swept?, tended?, kept?);
    tell(&swept, how, &tended, &kept, format)?;
    let failed = kept.values().any(|kept| kept.failed > 0);
    Ok(if failed { End::Problems } else { End::Good })
}

async fn sweep(
    maintain: &Maintain,
    connected: &Connected,
    config: &Config,
    how: Sweep,
    now: Timestamp,
) -> anyhow::Result<Swept> {
    let elsewhere = aws::elsewhere(&connected.sdk, &config.destinations).await;
    let objects = Arc::new(S3Objects::new(connected.s3()).with(elsewhere));
    // Buckets outside of the stack are others' too: there only what is written down as ours is aborted.
    let own = [connected.deployment.output("ArchiveBucket")?.to_owned()];
    let work = connected.deployment.output("WorkBucket")?;
    Ok(landfall_route::sweep(objects, work, &own, maintain.older_than, now, how).await?)
}

async fn tend(maintain: &Maintain, connected: &Connected, now: Timestamp) -> anyhow::Result<Tended> {
    let catalogue = connected.catalogue()?;
    if maintain.dry_run {
        return Ok(Tended::Due(catalogue.due(now, maintain.keep).await?));
    }
    Ok(match catalogue.maintain(now, maintain.keep).await? {
        None => Tended::ByAnother,
        Some(done) => {
            send(connected, &done.releases).await?;
            Tended::Done(done)
        }
    })
}

/// What was done about each stage's dead letters.
type KeptLetters = BTreeMap<&'static str, Kept>;

async fn keep_letters(
    maintain: &Maintain,
    connected: &Connected,
    config: &Config,
    now: Timestamp,
) -> anyhow::Result<KeptLetters> {
    let deployment = &connected.deployment;
    let archive = Archive::new(Arc::new(S3Objects::new(connected.s3())), deployment.output("WorkBucket")?);
    let provider_of = Landings::new(config, deployment.output("LandingBucket")?)?.provider_of();
    let notify = connected.queue(deployment.queue_url(Notify::NAME)?);
    let mut kept = KeptLetters::new();
    macro_rules! keep {
        ($($stage:ty),+) => {
            $(let dead = connected.queue(deployment.dead_queue_url(<$stage>::NAME)?);
            let letters = Letters {
                stage: <$stage>::NAME,
                dead: &*dead,
                notify: &*notify,
                archive: &archive,
                provider_of: &provider_of,
                older_than: maintain.archive_after,
                dry_run: maintain.dry_run,
            };
            kept.insert(<$stage>::NAME, letters.keep::<<$stage as Stage>::Input>(now).await?);)+
        };
    }
    keep!(Validate, Route, Load, Notify);
    Ok(kept)
}

/// What became of the catalogue.
enum Tended {
    Done(Maintained),
    Due(Due),
    /// Another process is at it.
    ByAnother,
}

/// Sends releases to load, which lets what waits go on.
async fn send(connected: &Connected, releases: &[Envelope<Routed>]) -> anyhow::Result<()> {
    let queue = connected.queue(connected.deployment.queue_url("load")?);
    for sent in queue.send(releases.iter().map(|release| message(release, "load")).collect()).await {
        sent.map_err(|error| anyhow::anyhow!("a release could not be sent to load: {error}"))?;
    }
    Ok(())
}

fn tell(swept: &Swept, how: Sweep, tended: &Tended, kept: &KeptLetters, format: Format) -> anyhow::Result<()> {
    let one = |upload: &OpenUpload| {
        serde_json::json!({"bucket": upload.object.bucket, "key": upload.object.key, "upload": upload.upload,
            "begun": upload.begun})
    };
    let aborted = how == Sweep::Abort;
    if format == Format::Json {
        let (open, stale): (Vec<_>, Vec<_>) =
            (swept.open.iter().map(one).collect(), swept.stale.iter().map(one).collect());
        let catalogue = match tended {
            Tended::Done(done) => serde_json::json!({"partitions": done.partitions, "queued": done.queued,
                "extents": done.extents, "forgotten": done.forgotten, "releases": done.releases.len()}),
            Tended::Due(due) => serde_json::json!({"queued": due.queued, "forgotten": due.forgotten,
                "releases": due.releases, "dry_run": true}),
            Tended::ByAnother => serde_json::json!({"by_another": true}),
        };
        return output::json(
            &serde_json::json!({"open": open, "stale": stale, "aborted": aborted, "catalogue": catalogue, "letters": kept}),
        );
    }
    for upload in &swept.stale {
        let begun = upload.begun.map_or_else(|| "an unknown time".to_owned(), |begun| begun.to_string());
        let word = if aborted { "aborted" } else { "stale" };
        output::line(&format!("{word}  {}  begun at {begun}", output::visible(&upload.object.to_string())))?;
    }
    let word = if aborted { "aborted" } else { "would be aborted" };
    output::line(&format!("copies in parts: {} under way, {} stale {word}", swept.open.len(), swept.stale.len()))?;
    let sum = |of: fn(&Kept) -> usize| kept.values().map(of).sum::<usize>();
    let would = if aborted { "" } else { " would be" };
    output::line(&format!(
        "dead letters:{would} {} given a reason, {} archived, {} failed",
        sum(|kept| kept.adopted),
        sum(|kept| kept.archived),
        sum(|kept| kept.failed)
    ))?;
    output::line(&match tended {
        Tended::Done(Maintained { partitions, queued, extents, forgotten, releases }) => {
            let queued = queued.map_or_else(|| "none (not permitted)".to_owned(), |queued| queued.to_string());
            format!(
                "catalogue: {partitions} partitions made, {queued} of pgSTAC's queued statements run, {extents} \
                 collections widened, {} releases sent, {forgotten} rows of the ledger forgotten",
                releases.len()
            )
        }
        Tended::Due(Due { queued, forgotten, releases }) => format!(
            "catalogue: {queued} of pgSTAC's statements are queued, {releases} releases would be sent, {forgotten} rows \
             of the ledger forgotten"
        ),
        Tended::ByAnother => "catalogue: another process is at it".to_owned(),
    })
}
