//! `landfall status`: where each landed object is, and what is wrong with it.
//!
//! Operators are answered from the ledger; providers, with the same words, from what notify writes for them in the work
//! bucket. What landed and is in neither is in flight.

mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use landfall_events::status::{Outcome, Status as Line};
use landfall_events::{ObjectRef, Severity};
use serde::Serialize;

use crate::deployment::Place;
use crate::output::{self, End, Format};
use source::Source;

/// What is asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Status {
    /// A key, or the start of keys, wherever files land
    #[arg(value_name = "KEY", conflicts_with = "delivery")]
    key: Option<String>,
    /// One line for all that starts with this: so many completed, refused by code, waiting, in flight
    #[arg(long, value_name = "PREFIX")]
    delivery: Option<String>,
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
    /// Ask as this provider: only S3 is read, the landing bucket and what is written for the provider
    #[arg(long, value_name = "NAME", conflicts_with = "provider")]
    as_provider: Option<String>,
    /// With --as-provider: the landing bucket, where no deployment is known
    #[arg(long, value_name = "BUCKET", env = "LANDFALL_LANDING_BUCKET")]
    landing_bucket: Option<String>,
    /// With --as-provider: the work bucket, where no deployment is known
    #[arg(long, value_name = "BUCKET", env = "LANDFALL_WORK_BUCKET")]
    work_bucket: Option<String>,
    /// The landing bucket is the provider's alone: its keys need not start with the provider's name
    #[arg(long)]
    own_bucket: bool,
    /// Only what changed since then: a time, or how long ago (10m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Wait until nothing is in flight any more, of a delivery until nothing waits either; at most so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
    wait: Option<u64>,
    /// The most rows to show
    #[arg(long, default_value_t = 10_000)]
    most: i64,
    /// Only the summary
    #[arg(long)]
    summary: bool,
    /// Everything of each: the times of the stages, every problem with its place and hint
    #[arg(long)]
    details: bool,
}

impl Status {
    /// How the keys start that are asked for.
    fn prefix(&self) -> Option<&str> {
        self.delivery.as_deref().or(self.key.as_deref())
    }

    /// Whether something is asked for that only settled objects have: nothing in flight can be meant.
    fn is_of_settled(&self) -> bool {
        self.collection.is_some() || self.item.is_some() || self.event.is_some()
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: SignedDuration =
        text.parse().map_err(|_| "write a time as 2024-05-17T10:15:00Z, or 10m, 2h".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// The shortest sleep of `--wait` between two looks; it sleeps as long as a look took, where that is longer.
const LOOK: Duration = Duration::from_millis(200);

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// How many of each outcome.
    pub summary: BTreeMap<Outcome, u64>,
    /// How many refusals of each code.
    pub refused: BTreeMap<String, u64>,
    /// One for each landed object or member, in the order of keys; none of a delivery.
    pub objects: Vec<Line>,
}

impl Answer {
    fn of(counts: impl IntoIterator<Item = (Outcome, Option<String>, u64)>) -> Self {
        let mut answer = Self { summary: BTreeMap::new(), refused: BTreeMap::new(), objects: Vec::new() };
        for (outcome, code, count) in counts {
            *answer.summary.entry(outcome).or_insert(0) += count;
            if let (Outcome::Refused, Some(code)) = (outcome, code) {
                *answer.refused.entry(code).or_insert(0) += count;
            }
        }
        answer
    }

    fn of_lines(objects: Vec<Line>) -> Self {
        Self::of(objects.iter().map(|line| (line.outcome, line.code.clone(), 1))).with(objects)
    }

    fn with(mut self, mut objects: Vec<Line>) -> Self {
        objects.sort_by(|a, b| {
            let place = |line: &Line| (line.cause.object.key.clone(), line.cause.member);
            place(a).cmp(&place(b))
        });
        self.objects = objects;
        self
    }

    fn has(&self, outcome: Outcome) -> bool {
        self.summary.contains_key(&outcome)
    }
}

/// Asks, and waits where that is wanted.
///
/// # Errors
/// Where the ledger or a bucket cannot be asked.
pub async fn run(status: &Status, place: &Place, format: Format) -> anyhow::Result<End> {
    let mut source = Source::of(status, place).await?;
    let answer = match status.wait {
        Some(seconds) => wait(status, &mut source, Duration::from_secs(seconds), format).await?,
        None => source.ask(status).await?,
    };
    match format {
        Format::Json => output::json(&answer)?,
        Format::Human => print(&answer, status)?,
    }
    let waited_in_vain = status.wait.is_some() && !is_settled(status, &answer);
    Ok(if answer.has(Outcome::Refused) || waited_in_vain { End::Problems } else { End::Good })
}

/// Whether there is nothing to wait for. Where something is named, it has to land first.
fn is_settled(status: &Status, answer: &Answer) -> bool {
    let has_landed = !answer.summary.is_empty() || !(status.prefix().is_some() || status.is_of_settled());
    has_landed && !answer.has(Outcome::InFlight) && (status.delivery.is_none() || !answer.has(Outcome::Waiting))
}

/// Asks until all is settled, and shows people each change as it happens.
async fn wait(status: &Status, source: &mut Source, limit: Duration, format: Format) -> anyhow::Result<Answer> {
    let started = tokio::time::Instant::now();
    let mut shown: BTreeMap<(ObjectRef, Option<u32>), Outcome> = BTreeMap::new();
    let spinner = ProgressBar::new_spinner();
    loop {
        let asked = tokio::time::Instant::now();
        let answer = source.ask(status).await?;
        for line in &answer.objects {
            let place = (line.cause.object.clone(), line.cause.member);
            let before = shown.insert(place, line.outcome);
            if format == Format::Human && !status.summary && before != Some(line.outcome) {
                let what = if line.outcome == Outcome::InFlight { String::new() } else { what(line) };
                let (after, word) = (started.elapsed().as_secs_f32(), line.outcome.as_str());
                let (key, what) = (output::visible(&line.cause.object.key), output::visible(&what));
                let text = format!("{after:5.1} s  {word:<10} {key}  {what}");
                spinner.suspend(|| output::line(text.trim_end()))?;
            }
        }
        if is_settled(status, &answer) || started.elapsed() >= limit {
            spinner.finish_and_clear();
            return Ok(answer);
        }
        spinner.set_message(sentence(&answer));
        spinner.tick();
        tokio::time::sleep(asked.elapsed().max(LOOK)).await;
    }
}

/// `3 completed · 2 refused (1 route.unmapped, 1 stac.schema)`.
fn sentence(answer: &Answer) -> String {
    let part = |(outcome, count): (&Outcome, &u64)| {
        let codes: Vec<_> = answer.refused.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let is_refused = *outcome == Outcome::Refused && !codes.is_empty();
        let codes = if is_refused { format!(" ({})", codes.join(", ")) } else { String::new() };
        format!("{count} {}{codes}", outcome.as_str())
    };
    let parts: Vec<_> = answer.summary.iter().map(part).collect();
    if parts.is_empty() { "nothing has landed".into() } else { parts.join(" · ") }
}

fn print(answer: &Answer, status: &Status) -> anyhow::Result<()> {
    if let Some(delivery) = &status.delivery {
        return output::line(&format!("{}: {}", output::visible(delivery), output::visible(&sentence(answer))));
    }
    // What was shown as it happened is not shown again.
    if status.details || (answer.objects.len() == 1 && !status.summary && status.wait.is_none()) {
        for line in &answer.objects {
            details(line)?;
        }
    } else if !(status.summary || status.wait.is_some() || answer.objects.is_empty()) {
        let mut table = output::table(&["OUTCOME", "KEY", "WHAT"]);
        for line in &answer.objects {
            table.add_row([line.outcome.as_str().to_owned(), named(line), output::visible(&what(line))]);
        }
        output::line(&table.trim_fmt())?;
        output::line("")?;
    }
    let (total, shown): (u64, u64) = (answer.summary.values().sum(), answer.objects.len() as u64);
    if shown < total && !status.summary {
        output::line(&format!("of {total} only the newest {shown} are shown: --most, or ask for fewer"))?;
    }
    output::line(&format!("{total} landed: {}", output::visible(&sentence(answer))))
}

/// The key, with the member.
fn named(line: &Line) -> String {
    let member = line.cause.member.map(|member| format!("#{member}")).unwrap_or_default();
    format!("{}{member}", output::visible(&line.cause.object.key))
}

/// Everything that is known of one.
fn details(line: &Line) -> anyhow::Result<()> {
    let field = |name: &str, value: Option<&str>| match value {
        Some(value) if !value.is_empty() => output::line(&format!("  {name:<12} {}", output::visible(value))),
        _ => Ok(()),
    };
    output::line(&format!("{}  {}", line.outcome.as_str(), named(line)))?;
    field("provider", Some(&line.provider))?;
    field("collection", line.collection.as_deref())?;
    field("item", line.item.as_deref())?;
    field("effect", line.effect.map(landfall_events::report::Effect::as_str))?;
    field("landed", Some(&format!("{:.3}", line.cause.event_time)))?;
    for passed in &line.passed {
        let after = passed.at.duration_since(line.cause.event_time).as_secs_f64();
        field(&passed.stage, Some(&format!("{:.3}  (after {after:.1} s)", passed.at)))?;
    }
    if line.outcome == Outcome::InFlight {
        field("age", Some(&format!("{} s", Timestamp::now().duration_since(line.since).as_secs())))?;
    }
    if line.redrive > 0 {
        field("redriven", Some(&format!("{} times", line.redrive)))?;
    }
    field("stage", line.stage.as_deref())?;
    field("code", line.code.as_deref())?;
    field("reason", line.reason.as_deref())?;
    field("hint", line.hint.as_deref())?;
    for problem in &line.problems {
        let severity = match problem.severity {
            _ if problem.patched => "mended",
            Severity::Error => "problem",
            Severity::Warning => "warning",
        };
        let place = if problem.pointer.is_empty() { "the whole document" } else { &problem.pointer };
        field(severity, Some(&format!("{place}: {} ({})", problem.message, problem.code)))?;
        field("", problem.hint.as_deref())?;
    }
    for waits in &line.waits_for {
        field("waits for", Some(waits))?;
    }
    field("until", line.until.map(|until| format!("{until:.0}")).as_deref())?;
    field("now at", line.destination.as_deref())?;
    field("event", line.event.as_deref())?;
    output::line("")
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
        parts.push(format!("{} {}{item}", effect.as_str(), line.collection.as_deref().unwrap_or_default()));
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
        parts.extend(line.reason.clone());
    }
    parts.join("; ")
}
