//! `landfall dlq`: what was refused or given up, why, and how to send it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use jiff::Timestamp;
use landfall_events as events;
use landfall_events::letter::{Letter, REDRIVE, TRACEPARENT, redrive_of};
use landfall_events::{Cause, Document, Envelope, Event, EventId, Landed, ObjectRef, Passed, Problem};
use landfall_shared::aws::S3Objects;
use landfall_shared::catalogue::RowFilter;
use landfall_shared::letters::{self, Archive, Walk, refusal_id};
use landfall_shared::objects::Objects;
use landfall_shared::queue::{BATCH_MAX, Outgoing, Queue};
use landfall_shared::runner::group;
use landfall_shared::statuses::Statuses;
use serde::Serialize;

use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format, SetUp};

/// Archived letters that are read at a time.
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
    /// Whether it is in the work bucket, because SQS would have forgotten it.
    pub archived: bool,
    /// The original body.
    pub body: String,
    /// How often it had been redriven; also where nothing else is known about it.
    pub redrive: u32,
    /// The changes that it is about; of S3's notification there may be several.
    #[serde(skip)]
    causes: Vec<Cause>,
    #[serde(skip)]
    at: At,
}

/// Where a letter is.
#[derive(Debug, Clone)]
enum At {
    Queue { receipt: String },
    Archive(ObjectRef),
}

impl Found {
    /// Whether it is a report that tells of no end: its id may be that of another stage's refusal of the same object.
    fn is_of_silent(&self) -> bool {
        let report = || Envelope::<events::Report>::from_json(&self.body).ok();
        self.stage == "notify" && report().is_some_and(|report| letters::is_silent(report.event.kind()))
    }

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
    archived: usize,
    /// How many of them were redriven before, and have failed again.
    redriven: usize,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    example: Option<String>,
    reason: Option<String>,
}

async fn ls(select: &Select, connected: &Connected, format: Format) -> anyhow::Result<End> {
    tell_held(select, connected).await?;
    let found = look(select, connected, Bodies::Leave).await?;
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
            archived: 0,
            redriven: 0,
            oldest: None,
            newest: None,
            example: letter.and_then(|letter| letter.object.clone()),
            reason: letter.map(|letter| letter.reason.clone()),
        });
        group.letters += 1;
        group.superseded += usize::from(one.superseded);
        group.archived += usize::from(one.archived);
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
            let columns = [
                "STAGE",
                "CODE",
                "PROVIDER",
                "LETTERS",
                "SUPERSEDED",
                "ARCHIVED",
                "REDRIVEN",
                "OLDEST",
                "EXAMPLE",
                "REASON",
            ];
            let mut table = output::table(&columns);
            for group in &groups {
                table.add_row([
                    group.stage.clone(),
                    group.code.clone(),
                    output::visible(&group.provider),
                    group.letters.to_string(),
                    group.superseded.to_string(),
                    group.archived.to_string(),
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

/// Says of which letters nothing can be said now: a queue hides what another look or a redrive has in its hands.
async fn tell_held(select: &Select, connected: &Connected) -> anyhow::Result<()> {
    for stage in stages(select) {
        let held = connected.held(connected.deployment.dead_queue_url(stage)?).await?;
        if held > 0 {
            eprintln!(
                "landfall: about {held} dead letters of {stage} are in other hands at the moment, and are not counted; look again in {} s",
                letters::LOOK.as_secs()
            );
        }
    }
    Ok(())
}

/// A letter with what is known beside it.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    found: Found,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// When each stage was done with it, up to its refusal.
    history: Vec<Passed>,
    problems: Vec<Problem>,
    /// The document or file that was refused, where it can be had and is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_document: Option<String>,
}

async fn show(select: &Select, connected: &Connected, format: Format) -> anyhow::Result<End> {
    tell_held(select, connected).await?;
    let found = look(select, connected, Bodies::Keep).await?;
    let is_empty = found.is_empty();
    for found in found {
        let whole = whole(found, connected).await?;
        match format {
            Format::Json => output::json(&whole)?,
            Format::Human => print(&whole)?,
        }
    }
    if is_empty && format == Format::Human {
        output::line("no dead letters match")?;
    }
    Ok(if is_empty { End::Problems } else { End::Good })
}

async fn whole(found: Found, connected: &Connected) -> anyhow::Result<Whole> {
    let letter = found.letter.as_ref();
    let hint = letter.and_then(|letter| landfall_events::codes::explain(letter.code.as_str())).map(|code| code.hint);
    let (mut history, mut problems) = (Vec::new(), Vec::new());
    if let (Some(event), Ok(catalogue)) = (letter.and_then(|letter| letter.event.as_ref()), connected.catalogue()) {
        let filter = RowFilter { event: Some(event.0.clone()), ..RowFilter::default() };
        for row in catalogue.rows(&filter, 1).await? {
            (history, problems) = (row.row.passed, row.row.problems);
        }
    }
    let (document, no_document) = match document(&found, connected).await {
        Ok(text) => (Some(text), None),
        Err(why) => (None, Some(why)),
    };
    Ok(Whole { found, hint, history, problems, document, no_document })
}

/// What a letter's body says of its document.
#[derive(Default, serde::Deserialize)]
struct Data {
    document: Option<Document>,
    cause: Option<Cause>,
}

fn body_of(body: &str) -> Data {
    #[derive(serde::Deserialize)]
    struct Body {
        data: Data,
    }
    serde_json::from_str::<Body>(body).map(|body| body.data).unwrap_or_default()
}

/// The changes that a letter is about: an event's, or those of S3's notification.
fn causes_of(body: &str) -> Vec<Cause> {
    let landed = || Landed::read(body, &|_| String::new()).into_iter().flatten();
    match body_of(body).cause {
        Some(cause) => vec![cause],
        None => landed().map(|landed| landed.envelope.event.cause).collect(),
    }
}

/// The most bytes of a document that are shown.
const DOCUMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The document that a letter is about: from its body, from the work bucket, or from landing, if it is still the same.
async fn document(found: &Found, connected: &Connected) -> Result<String, String> {
    let (object, etag) = match body_of(&found.body) {
        Data { document: Some(Document::Inline(text)), .. } => return Ok(text.get().to_owned()),
        Data { document: Some(Document::Stored(stored)), .. } => (stored.object, None),
        Data { document: None, .. } => {
            let cause = found.causes.first().ok_or("its body names no object")?;
            (cause.object.clone(), cause.etag.clone())
        }
    };
    let objects = S3Objects::new(connected.s3());
    let read = objects.get(&object, etag.as_deref(), DOCUMENT_BYTES_MAX).await.map_err(|error| error.to_string())?;
    String::from_utf8(read.0.to_vec()).map_err(|_| format!("{object} is no text"))
}

fn print(whole: &Whole) -> anyhow::Result<()> {
    let one = &whole.found;
    let place = if one.archived { "archived in the work bucket" } else { "in the queue" };
    output::line(&format!("message     {}", one.message))?;
    output::line(&format!("queue       {} dead letters, {place}", one.stage))?;
    if let Some(letter) = &one.letter {
        for (name, value) in &letter.attributes() {
            output::line(&format!("{name:<11} {}", output::visible(value)))?;
        }
    }
    if let Some(hint) = whole.hint {
        output::line(&format!("hint        {hint}"))?;
    }
    for passed in &whole.history {
        output::line(&format!("passed      {} at {:.3}", output::visible(&passed.stage), passed.at))?;
    }
    for problem in &whole.problems {
        let place = if problem.pointer.is_empty() { "the whole document" } else { &problem.pointer };
        let text = format!("{place}: {} ({})", problem.message, problem.code);
        output::line(&format!("problem     {}", output::visible(&text)))?;
        if let Some(hint) = &problem.hint {
            output::line(&format!("            {}", output::visible(hint)))?;
        }
    }
    let superseded = if one.superseded { "yes: something newer has happened to its object" } else { "no" };
    output::line(&format!("superseded  {superseded}"))?;
    output::line(&format!("body        {}", output::visible(&one.body)))?;
    match (&whole.document, &whole.no_document) {
        (Some(text), _) => {
            output::line("document")?;
            for line in text.lines() {
                output::line(&format!("  {}", output::visible(line)))?;
            }
        }
        (None, why) => {
            output::line(&format!("document    not shown: {}", output::visible(why.as_deref().unwrap_or_default())))?;
        }
    }
    output::line("")
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
        let archive = archive(connected)?;
        each(connected, stage, &settle.select, async |mut letters: Vec<Found>| {
            if settle.select.superseded {
                mark_superseded(&mut letters, connected).await?;
            }
            // What has failed again meanwhile is a letter of its own, for another time.
            let is_new =
                |one: &Found| one.letter.as_ref().and_then(|letter| letter.time).is_some_and(|time| time > since);
            let is_meant = |one: &Found| !is_new(one) && (one.superseded || !settle.select.superseded);
            let (letters, others): (Vec<_>, Vec<_>) = letters.into_iter().partition(is_meant);
            let mut back = others;
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
                back.extend(letters);
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
            if how == How::Drop {
                // First: what is dropped and still there is dropped by the next run, and what is gone is known to be.
                forget(connected, &sent).await?;
            }
            // A letter that could not be deleted is sent again by the next redrive, which changes nothing.
            let deleted = delete(&*dead, &archive, &sent).await;
            report.done += deleted.len();
            report.failed += sent.len() - deleted.len() + unsent.len();
            progress.set_message(format!("{} {}", report.done, how.done()));
            progress.tick();
            if let Some(rate) = settle.rate {
                tokio::time::sleep_until(begun + Duration::from_secs_f64(report.done as f64 / f64::from(rate))).await;
            }
            back.extend(unsent);
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
    let generation = one.redrive + 1;
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

/// Whether the bodies of letters are wanted: each may have a megabyte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Keep,
    Leave,
}

/// Looks at all letters that are meant and gives them back at once.
///
/// # Errors
/// Where a queue or the ledger cannot be asked.
async fn look(select: &Select, connected: &Connected, bodies: Bodies) -> anyhow::Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    // A crash between two calls may have written one letter twice: it is one refusal.
    let mut seen = BTreeSet::new();
    for stage in stages(select) {
        each(connected, stage, select, async |letters: Vec<Found>| {
            let is_new = |one: &&Found| {
                let event = one.letter.as_ref().and_then(|letter| letter.event.as_ref());
                event.is_none_or(|event| seen.insert(EventId::of_bytes(&one.body, stage, one.redrive).0 + &event.0))
            };
            let kept = letters.iter().filter(is_new).map(|one| match bodies {
                Bodies::Keep => one.clone(),
                Bodies::Leave => Found { body: String::new(), ..one.clone() },
            });
            all.extend(kept);
            Ok(letters)
        })
        .await?;
    }
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
        each(connected, stage, &select, async |letters: Vec<Found>| {
            let telling = letters.iter().filter(|one| !one.is_of_silent());
            events.extend(telling.filter_map(|one| Some(one.letter.as_ref()?.event.as_ref()?.0.clone())));
            Ok(letters)
        })
        .await?;
    }
    Ok(events)
}

/// Looks at every letter of a stage once, those in its queue and then those in the archive, and hands those that are
/// meant to `act`, a few at a time. What `act` does not settle it returns; that and all others are given back at the end.
async fn each(
    connected: &Connected,
    stage: &str,
    select: &Select,
    mut act: impl AsyncFnMut(Vec<Found>) -> anyhow::Result<Vec<Found>>,
) -> anyhow::Result<()> {
    let (dead, _) = queues(connected, stage)?;
    let mut walk = Walk::over(&*dead);
    let ended = async {
        while let Some(found) = walk.next().await? {
            let found = found.into_iter().map(|delivery| {
                let at = At::Queue { receipt: delivery.receipt };
                read(stage, delivery.id, delivery.body, &delivery.attributes, at)
            });
            let (meant, others): (Vec<_>, Vec<_>) = found.partition(|one| is_meant(one, select));
            walk.give_back(receipts(&others));
            if !meant.is_empty() {
                walk.give_back(receipts(&act(meant).await?));
            }
        }
        Ok(())
    }
    .await;
    walk.end().await;
    ended.and(each_archived(connected, stage, select, act).await)
}

async fn each_archived(
    connected: &Connected,
    stage: &str,
    select: &Select,
    mut act: impl AsyncFnMut(Vec<Found>) -> anyhow::Result<Vec<Found>>,
) -> anyhow::Result<()> {
    let archive = archive(connected)?;
    let work = connected.deployment.output("WorkBucket")?;
    let mut pages =
        connected.s3().list_objects_v2().bucket(work).prefix(letters::folder(stage)).into_paginator().send();
    while let Some(page) = pages.next().await {
        let keys: Vec<String> = page?.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect();
        for some in keys.chunks(BATCH_MAX) {
            let objects: Vec<ObjectRef> = some.iter().map(|key| ObjectRef::new(work, key)).collect();
            let reads: Vec<_> = objects.iter().map(|object| archive.read(object)).collect();
            let read_all: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENCY).try_collect().await?;
            let found = objects.iter().zip(read_all).filter_map(|(object, one)| {
                let one = one?;
                Some(read(stage, one.message, one.body, &one.attributes, At::Archive(object.clone())))
            });
            let meant: Vec<_> = found.filter(|one| is_meant(one, select)).collect();
            if !meant.is_empty() {
                act(meant).await?;
            }
        }
    }
    Ok(())
}

fn archive(connected: &Connected) -> anyhow::Result<Archive> {
    let objects = std::sync::Arc::new(S3Objects::new(connected.s3()));
    Ok(Archive::new(objects, connected.deployment.output("WorkBucket")?))
}

fn receipts(letters: &[Found]) -> Vec<String> {
    let receipt = |one: &Found| match &one.at {
        At::Queue { receipt } => Some(receipt.clone()),
        At::Archive(_) => None,
    };
    letters.iter().filter_map(receipt).collect()
}

/// Deletes letters, and gives those of which that worked.
async fn delete<'f>(dead: &dyn Queue, archive: &Archive, letters: &'f [Found]) -> Vec<&'f Found> {
    let (in_queue, archived): (Vec<&Found>, Vec<&Found>) = letters.iter().partition(|one| !one.archived);
    let own: Vec<String> = receipts(letters);
    let mut deleted: Vec<&Found> = in_queue
        .into_iter()
        .zip(dead.delete(&own).await)
        .filter(|(_, done)| done.is_ok())
        .map(|(one, _)| one)
        .collect();
    for one in archived {
        if let At::Archive(object) = &one.at
            && archive.remove(object).await.is_ok()
        {
            deleted.push(one);
        }
    }
    deleted
}

/// Tells the ledger that what was refused is over, and its provider: nobody shall look for its letter.
async fn forget(connected: &Connected, letters: &[Found]) -> anyhow::Result<()> {
    let Ok(catalogue) = connected.catalogue() else { return Ok(()) };
    let mut events = Vec::new();
    for one in letters.iter().filter(|one| !one.is_of_silent()) {
        events.extend(one.letter.as_ref().and_then(|letter| letter.event.clone()));
        events.extend(one.causes.iter().map(|cause| refusal_id(cause, one.redrive)));
        // What notify could not announce stands in the ledger under its own id.
        events.extend(Envelope::<events::Report>::from_json(&one.body).ok().map(|report| report.id));
    }
    let objects = std::sync::Arc::new(S3Objects::new(connected.s3()));
    let statuses = Statuses::new(objects, connected.deployment.output("WorkBucket")?);
    for row in catalogue.dropped(&events).await?.into_iter().filter(|row| !row.provider.is_empty()) {
        statuses.write(&row.status(row.outcome(false), Timestamp::now())).await?;
    }
    Ok(())
}

fn read(stage: &str, message: String, body: String, attributes: &BTreeMap<String, String>, at: At) -> Found {
    let (letter, archived) = (Letter::from_attributes(attributes), matches!(at, At::Archive(_)));
    let (redrive, causes) = (redrive_of(attributes), causes_of(&body));
    Found { stage: stage.to_owned(), message, letter, superseded: false, archived, body, redrive, causes, at }
}

fn is_meant(one: &Found, select: &Select) -> bool {
    let letter = one.letter.as_ref();
    let event = letter.and_then(|letter| letter.event.as_ref()).map(|event| event.0.as_str());
    let by_id = select.ids.is_empty() || select.ids.iter().any(|id| *id == one.message || Some(id.as_str()) == event);
    let by_code = select.code.as_deref().is_none_or(|code| code == one.code());
    let provider = letter.map(|letter| letter.provider.as_str());
    by_id && by_code && select.provider.as_deref().is_none_or(|wanted| Some(wanted) == provider)
}

/// Letters that the ledger is asked about at a time.
const ASKED: usize = 1000;

/// Asks the ledger whether each letter still tells the newest of its object.
async fn mark_superseded(letters: &mut [Found], connected: &Connected) -> anyhow::Result<()> {
    let Ok(catalogue) = connected.catalogue() else { return Ok(()) };
    for some in letters.chunks_mut(ASKED) {
        let about = |one: &Found| Some((one.letter.as_ref()?.event.clone()?, one.causes.first()?.clone(), one.redrive));
        let asked: Vec<_> = some.iter().map(about).collect();
        let refused: Vec<_> = asked.iter().flatten().map(|(event, cause, redrive)| (event, cause, *redrive)).collect();
        let mut answers = catalogue.overtaken(&refused).await?.into_iter();
        for (one, asked) in some.iter_mut().zip(&asked) {
            one.superseded = asked.is_some() && answers.next().unwrap_or(false);
        }
    }
    Ok(())
}
