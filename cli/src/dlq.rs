//! `landfall dlq`: what was refused or given up, why, and how to send it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;
use futures::StreamExt;
use indicatif::ProgressBar;
use jiff::Timestamp;
use landfall_events::ObjectRef;
use landfall_events::letter::{Letter, REDRIVE, TRACEPARENT};
use landfall_shared::catalogue::RowFilter;
use landfall_shared::queue::{BATCH_MAX, Delivery, Outgoing, Queue};
use landfall_shared::runner::group;
use serde::Serialize;

use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format, SetUp};

/// How long a letter that is looked at stays invisible for others; it is given back before that.
const LOOK: Duration = Duration::from_secs(60);

/// Requests at a time that give letters back.
const CONCURRENCY: usize = 16;

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Counts dead letters by stage, code and provider
    #[command(after_help = "Example:\n  landfall dlq ls --stage validate")]
    Ls(Select),
    /// Shows dead letters whole: reason, attributes and body
    #[command(after_help = "Example:\n  landfall dlq show --code route.unmapped\n  landfall dlq show 4f1c…")]
    Show(Select),
    /// Sends dead letters to their stage again
    #[command(after_help = "Example:\n  landfall dlq redrive --code route.unmapped --dry-run")]
    Redrive(Settle),
    /// Deletes dead letters for good
    #[command(
        after_help = "Example:\n  landfall dlq drop --superseded\n  landfall dlq drop --code stac.schema --provider img --dry-run"
    )]
    Drop(Settle),
}

/// Which letters are meant; everything that is given must hold.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Select {
    /// Ids: the event's, or the queue message's
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only this stage
    #[arg(long, value_parser = ["validate", "route", "load", "notify"])]
    stage: Option<String>,
    /// Only this code
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only what something newer has made needless
    #[arg(long)]
    superseded: bool,
}

impl Select {
    fn is_everything(&self) -> bool {
        let Self { ids, stage, code, provider, superseded } = self;
        ids.is_empty() && stage.is_none() && code.is_none() && provider.is_none() && !superseded
    }
}

/// What is redriven or dropped, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Settle {
    #[command(flatten)]
    select: Select,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Everything, where nothing else is selected
    #[arg(long)]
    all: bool,
    /// The most letters a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// A dead letter as it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The queue it is in, by stage.
    pub stage: String,
    /// The queue message's id.
    pub message: String,
    /// What is known about it; nothing where SQS moved it by itself.
    pub letter: Option<Letter>,
    /// Whether something newer has happened to its object since.
    pub superseded: bool,
    /// The original body.
    pub body: String,
    #[serde(skip)]
    receipt: String,
}

impl Found {
    fn code(&self) -> &str {
        self.letter.as_ref().map_or("no reason", |letter| letter.code.as_str())
    }
}

/// Runs a sub-command.
///
/// # Errors
/// Where a queue cannot be asked.
pub async fn run(dlq: &Dlq, place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    match dlq {
        Dlq::Ls(select) => ls(select, &connected, format).await,
        Dlq::Show(select) => show(select, &connected, format).await,
        Dlq::Redrive(settle) => self::settle(settle, How::Redrive, &connected, format).await,
        Dlq::Drop(settle) => self::settle(settle, How::Drop, &connected, format).await,
    }
}

#[derive(Debug, Serialize)]
struct Group {
    stage: String,
    code: String,
    provider: String,
    letters: usize,
    superseded: usize,
    /// How many of them were redriven before, and have failed again.
    redriven: usize,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    example: Option<String>,
    reason: Option<String>,
}

async fn ls(select: &Select, connected: &Connected, format: Format) -> anyhow::Result<End> {
    let found = look(select, connected).await?;
    let mut groups: BTreeMap<(String, String, String), Group> = BTreeMap::new();
    for one in &found {
        let letter = one.letter.as_ref();
        let provider = letter.map(|letter| letter.provider.clone()).unwrap_or_default();
        let key = (one.stage.clone(), one.code().to_owned(), provider.clone());
        let group = groups.entry(key).or_insert_with(|| Group {
            stage: one.stage.clone(),
            code: one.code().to_owned(),
            provider,
            letters: 0,
            superseded: 0,
            redriven: 0,
            oldest: None,
            newest: None,
            example: letter.and_then(|letter| letter.object.clone()),
            reason: letter.map(|letter| letter.reason.clone()),
        });
        group.letters += 1;
        group.superseded += usize::from(one.superseded);
        group.redriven += usize::from(letter.is_some_and(|letter| letter.redrive > 0));
        let time = letter.and_then(|letter| letter.time);
        group.oldest = [group.oldest, time].into_iter().flatten().min();
        group.newest = [group.newest, time].into_iter().flatten().max();
    }
    let groups: Vec<_> = groups.into_values().collect();
    match format {
        Format::Json => output::json(&groups)?,
        Format::Human if groups.is_empty() => output::line("no dead letters")?,
        Format::Human => {
            let columns =
                ["STAGE", "CODE", "PROVIDER", "LETTERS", "SUPERSEDED", "REDRIVEN", "OLDEST", "EXAMPLE", "REASON"];
            let mut table = output::table(&columns);
            for group in &groups {
                table.add_row([
                    group.stage.clone(),
                    group.code.clone(),
                    output::visible(&group.provider),
                    group.letters.to_string(),
                    group.superseded.to_string(),
                    group.redriven.to_string(),
                    group.oldest.map_or_else(|| "-".to_owned(), age),
                    output::visible(group.example.as_deref().unwrap_or("-")),
                    output::visible(group.reason.as_deref().unwrap_or("-")),
                ]);
            }
            output::line(&table.trim_fmt())?;
        }
    }
    let open = groups.iter().any(|group| group.letters > group.superseded);
    Ok(if open { End::Problems } else { End::Good })
}

async fn show(select: &Select, connected: &Connected, format: Format) -> anyhow::Result<End> {
    let found = look(select, connected).await?;
    for one in &found {
        if format == Format::Json {
            output::json(one)?;
            continue;
        }
        output::line(&format!("message     {}", one.message))?;
        output::line(&format!("queue       {} dead letters", one.stage))?;
        if let Some(letter) = &one.letter {
            let pairs = letter.attributes();
            for (name, value) in &pairs {
                output::line(&format!("{name:<11} {}", output::visible(value)))?;
            }
            if let Some(explanation) = landfall_events::codes::explain(letter.code.as_str()) {
                output::line(&format!("hint        {}", explanation.hint))?;
            }
        }
        output::line(&format!(
            "superseded  {}",
            if one.superseded { "yes: something newer has happened to its object" } else { "no" }
        ))?;
        output::line(&format!("body        {}\n", output::visible(&one.body)))?;
    }
    if found.is_empty() && format == Format::Human {
        output::line("no dead letters match")?;
    }
    Ok(if found.is_empty() { End::Problems } else { End::Good })
}

/// How old something is, in one unit.
fn age(time: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(time).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// What becomes of the letters that are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Redrive,
    Drop,
}

impl How {
    fn done(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Drop => "dropped",
        }
    }
}

#[derive(Debug, Default)]
struct Report {
    selected: usize,
    done: usize,
    failed: usize,
}

/// Sends each letter to its stage, and only then deletes it; or only deletes it. They are taken as they come, so that an
/// interruption loses nothing and the same command goes on; what is sent twice is recognised by its id.
async fn settle(settle: &Settle, how: How, connected: &Connected, format: Format) -> anyhow::Result<End> {
    if settle.select.is_everything() && !settle.all {
        anyhow::bail!(SetUp("say which: an id, --stage, --code, --provider, --superseded, or --all".into()));
    }
    let mut report = Report::default();
    let progress = ProgressBar::new_spinner();
    let (begun, since) = (tokio::time::Instant::now(), Timestamp::now());
    for stage in stages(&settle.select) {
        let (dead, own) = queues(connected, stage)?;
        each(&*dead, stage, &settle.select, async |mut letters: Vec<Found>| {
            if settle.select.superseded {
                mark_superseded(&mut letters, connected).await?;
            }
            // What has failed again meanwhile is a letter of its own, for another time.
            let is_new =
                |one: &Found| one.letter.as_ref().and_then(|letter| letter.time).is_some_and(|time| time > since);
            let is_meant = |one: &Found| !is_new(one) && (one.superseded || !settle.select.superseded);
            let (letters, others): (Vec<_>, Vec<_>) = letters.into_iter().partition(is_meant);
            let mut back: Vec<String> = others.into_iter().map(|one| one.receipt).collect();
            report.selected += letters.len();
            if settle.dry_run {
                if format == Format::Human {
                    for one in &letters {
                        let object = one.letter.as_ref().and_then(|letter| letter.object.as_deref()).unwrap_or("-");
                        let line =
                            format!("would be {}  {stage}  {}  {}", how.done(), one.code(), output::visible(object));
                        output::line(&line)?;
                    }
                }
                back.extend(letters.into_iter().map(|one| one.receipt));
                return Ok(back);
            }
            let (sent, unsent): (Vec<Found>, Vec<Found>) = match how {
                How::Drop => (letters, Vec::new()),
                How::Redrive => {
                    let sent = own.send(letters.iter().map(again).collect()).await;
                    let (sent, unsent): (Vec<_>, Vec<_>) =
                        letters.into_iter().zip(sent).partition(|(_, sent)| sent.is_ok());
                    let letter = |pair: Vec<(Found, _)>| pair.into_iter().map(|(one, _)| one).collect();
                    (letter(sent), letter(unsent))
                }
            };
            // A letter that could not be deleted is sent again by the next redrive, which changes nothing.
            let receipts: Vec<_> = sent.into_iter().map(|one| one.receipt).collect();
            let deleted = dead.delete(&receipts).await.iter().filter(|deleted| deleted.is_ok()).count();
            report.done += deleted;
            report.failed += receipts.len() - deleted + unsent.len();
            progress.set_message(format!("{} {}", report.done, how.done()));
            progress.tick();
            if let Some(rate) = settle.rate {
                tokio::time::sleep_until(begun + Duration::from_secs_f64(report.done as f64 / f64::from(rate))).await;
            }
            back.extend(unsent.into_iter().map(|one| one.receipt));
            Ok(back)
        })
        .await?;
    }
    progress.finish_and_clear();
    match format {
        Format::Json => output::json(&serde_json::json!({"selected": report.selected, how.done(): report.done,
            "failed": report.failed, "dry_run": settle.dry_run}))?,
        Format::Human if settle.dry_run => output::line(&format!("{} would be {}", report.selected, how.done()))?,
        Format::Human => output::line(&format!("{} of {} {}", report.done, report.selected, how.done()))?,
    }
    Ok(if report.failed == 0 { End::Good } else { End::Problems })
}

/// The message that a redrive sends: the original body, one generation later, but for a notice.
fn again(one: &Found) -> Outgoing {
    let generation = one.letter.as_ref().map_or(0, |letter| letter.redrive) + 1;
    let mut attributes = BTreeMap::new();
    // A notice keeps its id: what load has recorded is what is announced.
    if one.stage != "notify" {
        attributes.insert(REDRIVE.to_owned(), generation.to_string());
    }
    let trace = one.letter.as_ref().and_then(|letter| letter.traceparent.clone());
    attributes.extend(trace.map(|trace| (TRACEPARENT.to_owned(), trace)));
    let provider = one.letter.as_ref().map(|letter| letter.provider.clone()).unwrap_or_default();
    let group = group(&provider, "redrive");
    Outgoing { body: one.body.clone(), attributes, group, delay: Duration::ZERO }
}

fn stages(select: &Select) -> Vec<&'static str> {
    let wanted = |stage: &&str| select.stage.as_deref().is_none_or(|wanted| wanted == *stage);
    crate::stages().into_iter().filter(wanted).collect()
}

type Queues = (std::sync::Arc<dyn Queue>, std::sync::Arc<dyn Queue>);

fn queues(connected: &Connected, stage: &str) -> anyhow::Result<Queues> {
    let deployment = &connected.deployment;
    Ok((connected.queue(deployment.dead_queue_url(stage)?), connected.queue(deployment.queue_url(stage)?)))
}

/// Looks at all letters that are meant and gives them back at once.
///
/// # Errors
/// Where a queue or the ledger cannot be asked.
pub async fn look(select: &Select, connected: &Connected) -> anyhow::Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for stage in stages(select) {
        let (dead, _) = queues(connected, stage)?;
        each(&*dead, stage, select, async |letters: Vec<Found>| {
            let receipts = letters.iter().map(|one| one.receipt.clone()).collect();
            all.extend(letters);
            Ok(receipts)
        })
        .await?;
    }
    // A crash between two calls may have written one letter twice: it is one refusal.
    let mut seen = BTreeSet::new();
    all.retain(|one| {
        let event = one.letter.as_ref().and_then(|letter| letter.event.clone());
        event.is_none_or(|event| seen.insert((one.stage.clone(), event)))
    });
    mark_superseded(&mut all, connected).await?;
    all.retain(|one| one.superseded || !select.superseded);
    Ok(all)
}

/// The ids of the events that there are letters of.
///
/// # Errors
/// Where a queue cannot be asked.
pub async fn events(connected: &Connected) -> anyhow::Result<BTreeSet<String>> {
    let mut events = BTreeSet::new();
    let select = Select::default();
    for stage in stages(&select) {
        let (dead, _) = queues(connected, stage)?;
        each(&*dead, stage, &select, async |letters: Vec<Found>| {
            events.extend(letters.iter().filter_map(|one| Some(one.letter.as_ref()?.event.as_ref()?.0.clone())));
            Ok(letters.into_iter().map(|one| one.receipt).collect())
        })
        .await?;
    }
    Ok(events)
}

/// Receives every letter of a queue once and hands those that are meant to `act`, a few at a time. What `act` does not
/// settle it returns the receipts of; they and all others are given back at the end.
async fn each(
    dead: &dyn Queue,
    stage: &str,
    select: &Select,
    mut act: impl AsyncFnMut(Vec<Found>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let mut back = Vec::new();
    let ended = async {
        let (mut seen, mut empty, mut repeated) = (BTreeSet::new(), 0, 0);
        // A receive asks only some of SQS's servers: one empty answer does not mean an empty queue. What was held for
        // long has become visible and comes a second time, which does not mean so either, before all has come again.
        while empty < 2 && (repeated == 0 || repeated <= seen.len()) {
            let received = dead.receive(BATCH_MAX, LOOK, Duration::from_secs(u64::from(empty > 0))).await?;
            empty = if received.is_empty() { empty + 1 } else { 0 };
            let mut meant = Vec::new();
            for delivery in received {
                let is_new = seen.insert(delivery.id.clone());
                repeated = if is_new { 0 } else { repeated + 1 };
                let one = read(stage, delivery);
                if is_new && is_meant(&one, select) { meant.push(one) } else { back.push(one.receipt) }
            }
            if !meant.is_empty() {
                back.extend(act(meant).await?);
            }
        }
        Ok(())
    }
    .await;
    give_back(dead, back).await;
    ended
}

fn read(stage: &str, delivery: Delivery) -> Found {
    Found {
        stage: stage.to_owned(),
        message: delivery.id,
        letter: Letter::from_attributes(&delivery.attributes),
        superseded: false,
        body: delivery.body,
        receipt: delivery.receipt,
    }
}

fn is_meant(one: &Found, select: &Select) -> bool {
    let letter = one.letter.as_ref();
    let event = letter.and_then(|letter| letter.event.as_ref()).map(|event| event.0.as_str());
    let by_id = select.ids.is_empty() || select.ids.iter().any(|id| *id == one.message || Some(id.as_str()) == event);
    let by_code = select.code.as_deref().is_none_or(|code| code == one.code());
    let provider = letter.map(|letter| letter.provider.as_str());
    by_id && by_code && select.provider.as_deref().is_none_or(|wanted| Some(wanted) == provider)
}

async fn give_back(dead: &dyn Queue, receipts: impl IntoIterator<Item = String>) {
    let receipts: Vec<_> = receipts.into_iter().map(|receipt| (receipt, Duration::ZERO)).collect();
    // What cannot be given back now comes back by itself.
    let each = receipts.chunks(BATCH_MAX).map(|some| dead.set_visibility(some));
    futures::stream::iter(each).buffer_unordered(CONCURRENCY).for_each(|_| async {}).await;
}

/// Asks the ledger whether each letter still tells the newest of its object.
async fn mark_superseded(letters: &mut [Found], connected: &Connected) -> anyhow::Result<()> {
    let Ok(catalogue) = connected.catalogue() else { return Ok(()) };
    for one in letters {
        let Some(letter) = &one.letter else { continue };
        let Some(object) = letter.object.as_deref().and_then(object_of) else { continue };
        let filter =
            RowFilter { bucket: Some(object.bucket.clone()), prefix: Some(object.key.clone()), ..RowFilter::default() };
        let rows = catalogue.rows(&filter, 1000).await?;
        let of_object: Vec<_> = rows.iter().filter(|row| row.row.cause.object == object).collect();
        let mine = of_object.iter().find(|row| Some(&row.row.event) == letter.event.as_ref());
        one.superseded = match mine {
            Some(row) => row.outdated,
            // Its row was written over by what came after it; where there is no row at all, notify has not come to it.
            None => of_object.iter().any(|row| {
                let same_member = row.row.cause.member == member_of(letter.object.as_deref());
                same_member && letter.time.is_some_and(|time| row.updated > time)
            }),
        };
    }
    Ok(())
}

/// The member that an attribute names.
fn member_of(text: Option<&str>) -> Option<u32> {
    text?.rsplit_once('#')?.1.parse().ok()
}

/// The object that an attribute names, without its member.
fn object_of(text: &str) -> Option<ObjectRef> {
    let whole = ObjectRef::parse(text)?;
    let member = whole
        .key
        .rsplit_once('#')
        .filter(|(_, member)| member.bytes().all(|b| b.is_ascii_digit()) && !member.is_empty());
    Some(match member {
        Some((key, _)) => ObjectRef::new(whole.bucket.clone(), key),
        None => whole,
    })
}
