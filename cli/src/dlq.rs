//! `landfall dlq`: what was refused or given up, why, and how to send it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;
use indicatif::ProgressBar;
use landfall_events::ObjectRef;
use landfall_events::letter::{Letter, REDRIVE, TRACEPARENT};
use landfall_shared::catalogue::RowFilter;
use landfall_shared::queue::{BATCH_MAX, Delivery, Outgoing, Queue};
use landfall_shared::runner::group;
use serde::Serialize;

use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format, SetUp};

/// How long a letter that is looked at stays invisible for others; it is given back before that.
const LOOK: Duration = Duration::from_secs(120);

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Counts dead letters by stage and code
    #[command(after_help = "Example:\n  landfall dlq ls --stage validate")]
    Ls(Select),
    /// Shows dead letters whole: reason, attributes and body
    #[command(after_help = "Example:\n  landfall dlq show --code route.unmapped\n  landfall dlq show 4f1c…")]
    Show(Select),
    /// Sends dead letters to their stage again
    #[command(after_help = "Example:\n  landfall dlq redrive --code route.unmapped --dry-run")]
    Redrive(Redrive),
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
}

/// What is redriven, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Redrive {
    #[command(flatten)]
    select: Select,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Everything, where nothing else is selected
    #[arg(long)]
    all: bool,
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
        Dlq::Redrive(redrive) => self::redrive(redrive, &connected, format).await,
    }
}

#[derive(Debug, Serialize)]
struct Group {
    stage: String,
    code: String,
    letters: usize,
    superseded: usize,
    example: Option<String>,
    reason: Option<String>,
}

async fn ls(select: &Select, connected: &Connected, format: Format) -> anyhow::Result<End> {
    let found = look(select, connected).await?;
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for one in &found {
        let key = (one.stage.clone(), one.code().to_owned());
        let letter = one.letter.as_ref();
        let group = groups.entry(key).or_insert_with(|| Group {
            stage: one.stage.clone(),
            code: one.code().to_owned(),
            letters: 0,
            superseded: 0,
            example: letter.and_then(|letter| letter.object.clone()),
            reason: letter.map(|letter| letter.reason.clone()),
        });
        group.letters += 1;
        group.superseded += usize::from(one.superseded);
    }
    let groups: Vec<_> = groups.into_values().collect();
    match format {
        Format::Json => output::json(&groups)?,
        Format::Human if groups.is_empty() => output::line("no dead letters")?,
        Format::Human => {
            let mut table = output::table(&["STAGE", "CODE", "LETTERS", "SUPERSEDED", "EXAMPLE", "REASON"]);
            for group in &groups {
                table.add_row([
                    group.stage.clone(),
                    group.code.clone(),
                    group.letters.to_string(),
                    group.superseded.to_string(),
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

#[derive(Debug, Serialize)]
struct Report {
    selected: usize,
    redriven: usize,
    failed: usize,
    dry_run: bool,
}

/// Sends each letter to its stage, and only then deletes it: interrupted at any point, nothing is lost, and what is
/// sent twice is recognised by its id.
async fn redrive(redrive: &Redrive, connected: &Connected, format: Format) -> anyhow::Result<End> {
    let select = &redrive.select;
    let nothing = select.ids.is_empty() && select.stage.is_none() && select.code.is_none() && select.provider.is_none();
    if nothing && !redrive.all {
        anyhow::bail!(SetUp("say which: an id, --stage, --code, --provider, or --all".into()));
    }
    let mut report = Report { selected: 0, redriven: 0, failed: 0, dry_run: redrive.dry_run };
    let progress = ProgressBar::new_spinner();
    for stage in stages(select) {
        let (dead, own) = queues(connected, stage)?;
        let letters = take(&*dead, stage, select).await?;
        report.selected += letters.len();
        if redrive.dry_run {
            if format == Format::Human {
                for one in &letters {
                    let object = one.letter.as_ref().and_then(|letter| letter.object.as_deref()).unwrap_or("-");
                    output::line(&format!("would redrive  {stage}  {}  {}", one.code(), output::visible(object)))?;
                }
            }
            give_back(&*dead, letters.iter().map(|one| one.receipt.clone())).await;
            continue;
        }
        for chunk in letters.chunks(BATCH_MAX) {
            let sent = own.send(chunk.iter().map(again).collect()).await;
            let done = chunk.iter().zip(&sent).filter(|(_, sent)| sent.is_ok());
            let receipts: Vec<_> = done.map(|(one, _)| one.receipt.clone()).collect();
            // A letter that could not be deleted is sent again by the next redrive, which changes nothing.
            let deleted = dead.delete(&receipts).await.iter().filter(|deleted| deleted.is_ok()).count();
            report.redriven += deleted;
            report.failed += receipts.len() - deleted;
            let failed: Vec<_> =
                chunk.iter().zip(&sent).filter(|(_, sent)| sent.is_err()).map(|(one, _)| one.receipt.clone()).collect();
            report.failed += failed.len();
            give_back(&*dead, failed).await;
            progress.set_message(format!("{} redriven", report.redriven));
            progress.tick();
        }
    }
    progress.finish_and_clear();
    match format {
        Format::Json => output::json(&report)?,
        Format::Human if redrive.dry_run => output::line(&format!("{} would be redriven", report.selected))?,
        Format::Human => output::line(&format!("{} of {} redriven", report.redriven, report.selected))?,
    }
    Ok(if report.failed == 0 { End::Good } else { End::Problems })
}

/// The message that a redrive sends: the original body, one generation later.
fn again(one: &Found) -> Outgoing {
    let generation = one.letter.as_ref().map_or(0, |letter| letter.redrive) + 1;
    let mut attributes = BTreeMap::from([(REDRIVE.to_owned(), generation.to_string())]);
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
    let mut all = Vec::new();
    for stage in stages(select) {
        let (dead, _) = queues(connected, stage)?;
        let found = take(&*dead, stage, select).await?;
        give_back(&*dead, found.iter().map(|one| one.receipt.clone())).await;
        all.extend(found);
    }
    // A crash between two calls may have written one letter twice: it is one refusal.
    let mut seen = BTreeSet::new();
    all.retain(|one| {
        let event = one.letter.as_ref().and_then(|letter| letter.event.clone());
        event.is_none_or(|event| seen.insert((one.stage.clone(), event)))
    });
    mark_superseded(&mut all, connected).await?;
    Ok(all)
}

/// Receives all letters of a queue and keeps those that are meant; the others are given back.
async fn take(dead: &dyn Queue, stage: &str, select: &Select) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut others = Vec::new();
    let mut empty = 0;
    // What comes a second time has become visible again: the whole queue was seen.
    let mut seen = BTreeSet::new();
    let started = std::time::Instant::now();
    // A receive asks only some of SQS's servers: one empty answer does not mean an empty queue.
    while empty < 2 && started.elapsed() < LOOK / 2 {
        let received = dead.receive(BATCH_MAX, LOOK, Duration::from_secs(u64::from(empty > 0))).await?;
        empty = if received.is_empty() { empty + 1 } else { 0 };
        for delivery in received {
            if !seen.insert(delivery.id.clone()) {
                empty = 2;
                others.push(delivery.receipt);
                continue;
            }
            let one = read(stage, delivery);
            if is_meant(&one, select) { found.push(one) } else { others.push(one.receipt) }
        }
    }
    if empty < 2 {
        eprintln!(
            "{stage} has more dead letters than could be read: {} were looked at; run again for the rest",
            seen.len()
        );
    }
    give_back(dead, others).await;
    Ok(found)
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
    if !receipts.is_empty() {
        // What cannot be given back now comes back by itself.
        drop(dead.set_visibility(&receipts).await);
    }
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
