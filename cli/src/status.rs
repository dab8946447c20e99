//! `landfall status`: where each landed object is, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use landfall_events::{ObjectRef, Problem};
use landfall_shared::catalogue::{LedgerRow, RowFilter, State};
use serde::Serialize;

use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format};

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Status {
    /// A key, or the start of keys, in the landing bucket
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Only this collection
    #[arg(long, value_name = "ID")]
    collection: Option<String>,
    /// Only this item
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// Only what this event announces
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only what changed since then: a time, or how long ago (10m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Wait until nothing is in flight any more, at most so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
    wait: Option<u64>,
    /// The most rows to show
    #[arg(long, default_value_t = 10_000)]
    most: i64,
    /// Only the summary
    #[arg(long)]
    summary: bool,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: SignedDuration =
        text.parse().map_err(|_| "write a time as 2024-05-17T10:15:00Z, or 10m, 2h".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// How long `--wait` sleeps between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What became of something that landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Found, fetched and announced.
    Completed,
    /// Refused, with a code.
    Refused,
    /// Waits for something that has not landed.
    Waiting,
    /// Under way.
    InFlight,
    /// Needs nothing done.
    Ignored,
    /// Removed from landing.
    Removed,
    /// Something newer has taken its place.
    Superseded,
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The landed key.
    pub key: String,
    /// The member of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    /// What became of it.
    pub outcome: Outcome,
    /// The collection and item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The item's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// created, replaced, deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'static str>,
    /// The stage that refused it or in which it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The code of a refusal, or the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is wrong, in detail; of what is completed, what was mended or warned about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Where it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The event that announced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// When it was last touched; of what is in flight, when it landed.
    pub since: Timestamp,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// How many of each outcome.
    pub summary: BTreeMap<Outcome, usize>,
    /// One for each landed object or member, newest first.
    pub objects: Vec<Line>,
}

/// Asks, and waits where that is wanted.
///
/// # Errors
/// Where the ledger or the landing bucket cannot be asked.
pub async fn run(status: &Status, place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    let answer = match status.wait {
        Some(seconds) => wait(status, &connected, Duration::from_secs(seconds), format).await?,
        None => ask(status, &connected).await?,
    };
    match format {
        Format::Json => output::json(&answer)?,
        // What was shown as it happened is not shown again.
        Format::Human => print(&answer, status.summary || status.wait.is_some())?,
    }
    let problems = [Outcome::Refused, Outcome::InFlight].iter().any(|outcome| answer.summary.contains_key(outcome));
    let waited_in_vain = status.wait.is_some() && problems;
    Ok(if answer.summary.contains_key(&Outcome::Refused) || waited_in_vain { End::Problems } else { End::Good })
}

/// Asks until nothing is in flight, and shows people each change as it happens.
async fn wait(status: &Status, connected: &Connected, limit: Duration, format: Format) -> anyhow::Result<Answer> {
    let started = tokio::time::Instant::now();
    let mut shown: BTreeMap<(String, Option<u32>), Outcome> = BTreeMap::new();
    let spinner = ProgressBar::new_spinner();
    loop {
        let answer = ask(status, connected).await?;
        for line in &answer.objects {
            let before = shown.insert((line.key.clone(), line.member), line.outcome);
            if format == Format::Human && !status.summary && before != Some(line.outcome) {
                let what = if line.outcome == Outcome::InFlight { String::new() } else { what(line) };
                let (after, word) = (started.elapsed().as_secs_f32(), word(line.outcome));
                let text =
                    format!("{after:5.1} s  {word:<10} {}  {}", output::visible(&line.key), output::visible(&what));
                spinner.suspend(|| output::line(text.trim_end()))?;
            }
        }
        if !answer.summary.contains_key(&Outcome::InFlight) || started.elapsed() >= limit {
            spinner.finish_and_clear();
            return Ok(answer);
        }
        spinner.set_message(sentence(&answer.summary));
        spinner.tick();
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks the ledger, and the landing bucket for what the ledger does not have yet.
///
/// # Errors
/// Where one of them cannot be asked.
pub async fn ask(status: &Status, connected: &Connected) -> anyhow::Result<Answer> {
    let bucket = connected.deployment.output("LandingBucket")?.to_owned();
    let filter = RowFilter {
        bucket: None,
        prefix: status.key.clone(),
        collection: status.collection.clone(),
        item: status.item.clone(),
        event: status.event.clone(),
        since: status.since,
        provider: status.provider.clone(),
    };
    // What the ledger has not got has no collection that it could be asked for. The bucket is looked at first: what
    // the ledger learns meanwhile is in its answer, and nothing falls between the two.
    let of_ledger = status.collection.is_some() || status.item.is_some() || status.event.is_some();
    let flying = if !of_ledger { in_flight(status, connected, &bucket).await? } else { Vec::new() };
    let rows = connected.catalogue()?.rows(&filter, status.most).await?;
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    let learned = |(etag, flying): &(String, Line)| {
        rows.iter().any(|row| row.row.cause.object.key == flying.key && row.row.cause.etag.as_ref() == Some(etag))
    };
    lines.extend(flying.into_iter().filter(|flying| !learned(flying)).map(|(_, line)| line));
    lines.sort_by(|a, b| (&a.key, a.member).cmp(&(&b.key, b.member)));
    let mut summary = BTreeMap::new();
    for line in &lines {
        *summary.entry(line.outcome).or_insert(0) += 1;
    }
    Ok(Answer { summary, objects: lines })
}

/// Landed objects of which the ledger has nothing, or nothing of their newest content; with their etags.
async fn in_flight(status: &Status, connected: &Connected, bucket: &str) -> anyhow::Result<Vec<(String, Line)>> {
    let catalogue = connected.catalogue()?;
    let mut lines = Vec::new();
    let provider = status.provider.as_ref().map(|provider| format!("{provider}/"));
    let prefix = status.key.clone().or(provider);
    let mut pages = connected.s3().list_objects_v2().bucket(bucket).set_prefix(prefix).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page?;
        let keys: Vec<&str> = page.contents().iter().filter_map(|object| object.key()).collect();
        let known = catalogue.known(bucket, &keys).await?;
        for object in page.contents() {
            let (Some(key), Some(modified)) = (object.key(), object.last_modified()) else { continue };
            let landed = Timestamp::from_second(modified.secs()).unwrap_or_default();
            let etag = object.e_tag().unwrap_or_default().trim_matches('"');
            let settled = known.contains(&(key.to_owned(), etag.to_owned()));
            if !settled && status.since.is_none_or(|since| landed >= since) {
                lines.push((etag.to_owned(), Line { since: landed, ..empty(key, Outcome::InFlight) }));
            }
        }
    }
    Ok(lines)
}

fn empty(key: &str, outcome: Outcome) -> Line {
    Line {
        key: key.to_owned(),
        member: None,
        outcome,
        collection: None,
        item: None,
        effect: None,
        stage: None,
        code: None,
        reason: None,
        problems: Vec::new(),
        waits_for: Vec::new(),
        until: None,
        destination: None,
        event: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

fn line(ledger: &LedgerRow) -> Line {
    let row = &ledger.row;
    let outcome = match row.state {
        _ if ledger.outdated => Outcome::Superseded,
        State::Superseded => Outcome::Superseded,
        State::Parked if ledger.goes_on => Outcome::InFlight,
        State::Waiting | State::Parked => Outcome::Waiting,
        State::Loaded | State::Routed if row.announced.is_some() => Outcome::Completed,
        State::Refused if row.announced.is_some() => Outcome::Refused,
        State::Ready | State::Loaded | State::Routed | State::Refused => Outcome::InFlight,
        State::Removed => Outcome::Removed,
        State::Ignored => Outcome::Ignored,
    };
    Line {
        member: row.cause.member,
        collection: row.subject.collection().map(str::to_owned),
        item: row.subject.item().map(str::to_owned),
        effect: row.effect.map(landfall_events::report::Effect::as_str),
        stage: row.stage.clone(),
        code: row.code.clone(),
        reason: row.reason.clone(),
        problems: row.problems.clone(),
        waits_for: row.waits_for.clone(),
        until: row.until,
        destination: row.destination.clone(),
        event: Some(row.event.0.clone()),
        since: ledger.updated,
        ..empty(&row.cause.object.key, outcome)
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Refused => "refused",
        Outcome::Waiting => "waiting",
        Outcome::InFlight => "in flight",
        Outcome::Ignored => "ignored",
        Outcome::Removed => "removed",
        Outcome::Superseded => "superseded",
    }
}

fn sentence(summary: &BTreeMap<Outcome, usize>) -> String {
    let parts: Vec<_> = summary.iter().map(|(outcome, count)| format!("{count} {}", word(*outcome))).collect();
    if parts.is_empty() { "nothing has landed".into() } else { parts.join(" · ") }
}

fn print(answer: &Answer, summary_only: bool) -> anyhow::Result<()> {
    if !summary_only && !answer.objects.is_empty() {
        let mut table = output::table(&["OUTCOME", "KEY", "WHAT"]);
        for line in &answer.objects {
            let member = line.member.map(|member| format!("#{member}")).unwrap_or_default();
            let key = format!("{}{member}", output::visible(&line.key));
            table.add_row([word(line.outcome).to_owned(), key, output::visible(&what(line))]);
        }
        output::line(&table.trim_fmt())?;
        output::line("")?;
    }
    let total: usize = answer.summary.values().sum();
    output::line(&format!("{total} landed: {}", sentence(&answer.summary)))
}

fn what(line: &Line) -> String {
    let mut parts = Vec::new();
    parts.extend(line.code.as_ref().map(|code| format!("{code}: {}", line.reason.as_deref().unwrap_or("by rule"))));
    if !line.waits_for.is_empty() && line.outcome == Outcome::Waiting {
        let until = line.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
        parts.push(format!("waits for {}{until}", line.waits_for.join(", ")));
    }
    if let Some(effect) = line.effect {
        let item = line.item.as_ref().map(|item| format!("/{item}")).unwrap_or_default();
        parts.push(format!("{effect} {}{item}", line.collection.as_deref().unwrap_or_default()));
    } else if line.outcome == Outcome::Completed {
        let bucket = line.destination.as_deref().and_then(ObjectRef::parse).map(|object| object.bucket);
        parts.extend(bucket.map(|bucket| format!("now in s3://{bucket}")));
    }
    if line.outcome == Outcome::Completed && !line.problems.is_empty() {
        let patched = line.problems.iter().filter(|problem| problem.patched).count();
        let warned = line.problems.len() - patched;
        let counts = [(patched, "mended"), (warned, "warned about")];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        parts.push(counts.collect::<Vec<_>>().join(", "));
    }
    if line.outcome == Outcome::InFlight {
        let age = Timestamp::now().duration_since(line.since).as_secs();
        parts.push(format!("for {age} s"));
    }
    parts.join("; ")
}
