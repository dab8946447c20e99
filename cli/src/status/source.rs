//! Who is asked: the ledger, or what is written for a provider in the work bucket; the landing bucket by both.

use std::collections::HashMap;

use anyhow::Context;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::Object;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use landfall_events::status::{Outcome, Passed, Status as Line};
use landfall_events::{Cause, Change, ObjectRef};
use landfall_shared::aws::{self, S3Objects};
use landfall_shared::catalogue::{LedgerRow, PostgresCatalogue, RowFilter, State, Told};
use landfall_shared::config::Landings;
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::statuses::BYTES_MAX;

use super::{Answer, Status};
use crate::deployment::Place;
use crate::map;

/// Keys that the ledger is asked about at a time.
const KEYS: usize = 1000;

/// Objects that are read at a time.
const CONCURRENCY: usize = 32;

/// Who is asked.
pub(super) struct Source {
    s3: aws_sdk_s3::Client,
    of: Of,
}

enum Of {
    Operator { catalogue: PostgresCatalogue, landings: Landings },
    Provider { name: String, landing: String, work: String, read: Read },
}

/// What was read before, by key, with the etag that it had: a look that is repeated reads what is new.
type Read = HashMap<String, (String, Option<Line>)>;

impl Source {
    /// Finds who is to be asked.
    ///
    /// # Errors
    /// Where the deployment is not known.
    pub(super) async fn of(status: &Status, place: &Place) -> anyhow::Result<Self> {
        if let (Some(name), Some(landing), Some(work)) =
            (&status.as_provider, &status.landing_bucket, &status.work_bucket)
        {
            let (name, landing, work) = (name.clone(), landing.clone(), work.clone());
            let of = Of::Provider { name, landing, work, read: Read::new() };
            return Ok(Self { s3: aws::s3(&aws::sdk_config().await), of });
        }
        let connected = place.connect().await?;
        let landing = connected.deployment.output("LandingBucket")?.to_owned();
        let of = match &status.as_provider {
            Some(name) => {
                let work = connected.deployment.output("WorkBucket")?.to_owned();
                Of::Provider { name: name.clone(), landing, work, read: Read::new() }
            }
            None => Of::Operator {
                catalogue: connected.catalogue()?,
                landings: Landings::new(&map::config(&connected).await?, &landing)?,
            },
        };
        Ok(Self { s3: connected.s3(), of })
    }

    /// Asks. Where files land is looked at first: what is learned meanwhile is in the answer, and nothing falls
    /// between the two.
    ///
    /// # Errors
    /// Where the ledger or a bucket cannot be asked.
    pub(super) async fn ask(&mut self, status: &Status) -> anyhow::Result<Answer> {
        match &mut self.of {
            Of::Operator { catalogue, landings } => ask_ledger(status, &self.s3, catalogue, landings).await,
            Of::Provider { name, landing, work, read } => {
                let landing = Landing { s3: &self.s3, bucket: landing };
                ask_statuses(status, &landing, name, work, read).await
            }
        }
    }
}

async fn ask_ledger(
    status: &Status,
    s3: &aws_sdk_s3::Client,
    catalogue: &PostgresCatalogue,
    landings: &Landings,
) -> anyhow::Result<Answer> {
    let filter = RowFilter {
        bucket: None,
        prefix: status.prefix().map(str::to_owned),
        collection: status.collection.clone(),
        item: status.item.clone(),
        event: status.event.clone(),
        since: status.since,
        provider: status.provider.clone(),
    };
    let mut flying = Vec::new();
    let places = landings.places(status.provider.as_deref(), status.prefix().unwrap_or_default());
    for (bucket, prefix) in places.iter().filter(|_| !status.is_of_settled()) {
        let landing = Landing { s3, bucket };
        let mut pages = landing.listed(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("s3://{bucket} could not be listed"))?;
            let lines = page.contents().iter().filter_map(|object| landing.in_flight(object));
            let lines = lines.map(|line| {
                let provider = landings.site(&line.cause.object).map(|site| site.provider.to_owned());
                Line { provider: provider.unwrap_or_default(), ..line }
            });
            let is_meant = |line: &Line| {
                status.since.is_none_or(|since| line.since >= since)
                    && status.provider.as_ref().is_none_or(|provider| *provider == line.provider)
            };
            flying.extend(in_flight(catalogue, lines.filter(is_meant).collect()).await?);
        }
    }
    // Again, and before the ledger's rows: what comes to its end meanwhile is told twice in one answer, and never not at all.
    let flying = in_flight(catalogue, flying).await?;
    let rows = if status.delivery.is_some() { Vec::new() } else { catalogue.rows(&filter, status.most).await? };
    let is_whole = status.delivery.is_none() && i64::try_from(rows.len()).is_ok_and(|rows| rows < status.most);
    let counts = if is_whole { Vec::new() } else { catalogue.counts(&filter).await? };
    if is_whole {
        return Ok(Answer::of_lines(rows.iter().map(line).chain(flying).collect()));
    }
    let in_flight = (!flying.is_empty()).then_some((Outcome::InFlight, None, flying.len() as u64));
    let counts = counts.into_iter().map(|one| (one.outcome, one.code, one.rows)).chain(in_flight);
    let answer = Answer::of(counts);
    if status.delivery.is_some() {
        return Ok(answer);
    }
    Ok(answer.with(rows.iter().map(line).chain(flying).collect()))
}

/// The same from S3 alone: a landed object of whose content nothing is written is in flight.
async fn ask_statuses(
    status: &Status,
    landing: &Landing<'_>,
    provider: &str,
    work: &str,
    read_before: &mut Read,
) -> anyhow::Result<Answer> {
    let mut flying: HashMap<String, Line> = HashMap::new();
    if !status.is_of_settled() {
        let own = if status.own_bucket { String::new() } else { format!("{provider}/") };
        let mut pages = landing.listed(status.prefix().unwrap_or(&own)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page?;
            let lines = page.contents().iter().filter_map(|object| landing.in_flight(object));
            let lines = lines.map(|line| Line { provider: provider.to_owned(), ..line });
            flying.extend(lines.map(|line| (line.cause.object.key.clone(), line)));
        }
    }
    let objects = S3Objects::new(landing.s3.clone());
    let (prefix, bucket) = (status.prefix().unwrap_or_default(), landing.bucket);
    let roots = [
        format!("{}{prefix}", Line::objects_of(provider, bucket)),
        format!("{}{prefix}", Line::members_of(provider, bucket)),
        Line::long_of(provider, bucket),
    ];
    let mut read_now = Read::new();
    for root in roots {
        let mut pages = landing.s3.list_objects_v2().bucket(work).prefix(root).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page?;
            let mut reads = Vec::new();
            for object in page.contents() {
                let (Some(key), Some(etag)) = (object.key(), object.e_tag()) else { continue };
                match read_before.remove(key) {
                    Some(before) if before.0 == etag => {
                        read_now.insert(key.to_owned(), before);
                    }
                    _ => reads.push((key, etag)),
                }
            }
            let reads = reads.into_iter().map(async |(key, etag)| {
                let line = read(&objects, ObjectRef::new(work, key)).await?;
                anyhow::Ok((key.to_owned(), (etag.to_owned(), line)))
            });
            let read: Vec<_> = futures::stream::iter(reads).buffer_unordered(CONCURRENCY).try_collect().await?;
            read_now.extend(read);
        }
    }
    *read_before = read_now;
    let lines: Vec<&Line> = read_before.values().filter_map(|(_, line)| line.as_ref()).collect();
    let newest = Newest::of(&lines);
    let flying = flying.into_values().filter_map(|line| newest.still_in_flight(line));
    let flying: Vec<Line> = flying.filter(|line| is_meant(line, status)).collect();
    let lines = lines.into_iter().filter(|line| is_meant(line, status)).map(|line| (newest.outcome(line), line));
    let mut lines: Vec<(Outcome, &Line)> = lines.collect();
    let counts = lines.iter().map(|(outcome, line)| (*outcome, line.code.clone(), 1));
    let answer = Answer::of(counts.chain(flying.iter().map(|line| (line.outcome, None, 1))));
    if status.delivery.is_some() {
        return Ok(answer);
    }
    lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.since));
    lines.truncate(usize::try_from(status.most).unwrap_or(usize::MAX));
    let told = lines.into_iter().map(|(outcome, line)| Line { outcome, ..line.clone() });
    Ok(answer.with(told.chain(flying).collect()))
}

/// The newest change that is told of each key: what is told of an older one is over.
struct Newest<'l> {
    of_key: HashMap<&'l str, &'l Line>,
    /// How many members of each content have their end, and of how many.
    members: HashMap<Content<'l>, Told>,
    /// Those members.
    of_content: HashMap<Content<'l>, Vec<&'l Line>>,
}

/// A key, and the etag of what it held.
type Content<'l> = (&'l str, Option<&'l str>);

fn content(line: &Line) -> Content<'_> {
    (&line.cause.object.key, line.cause.etag.as_deref())
}

impl<'l> Newest<'l> {
    fn of(lines: &[&'l Line]) -> Self {
        let mut of_key: HashMap<&str, &Line> = HashMap::new();
        let mut members: HashMap<_, Told> = HashMap::new();
        let mut of_content: HashMap<_, Vec<&Line>> = HashMap::new();
        for line in lines {
            let newest = of_key.entry(&*line.cause.object.key).or_insert(line);
            if order(line, newest).is_gt() {
                *newest = line;
            }
            let told = members.entry(content(line)).or_default();
            told.members = told.members.max(line.cause.members);
            if line.cause.member.is_some() {
                told.settled += 1;
                of_content.entry(content(line)).or_default().push(line);
            }
        }
        for line in lines.iter().filter(|line| is_over(line)) {
            if order(line, of_key[&*line.cause.object.key]).is_eq() {
                members.entry(content(line)).or_default().is_over = true;
            }
        }
        Self { of_key, members, of_content }
    }

    /// Whether a line is of a file that was refused as a whole, was sent again since, and all its members are told of.
    fn is_its_members(&self, line: &Line) -> bool {
        let Some(members) = self.of_content.get(&content(line)) else { return false };
        let of_change = members.iter().filter(|member| order(member, line).is_eq());
        let later: Vec<_> = of_change.filter(|member| member.redrive > line.redrive).collect();
        let all = later.iter().filter_map(|member| member.cause.members).max();
        is_over(line) && all.is_some_and(|all| later.len() >= all as usize)
    }

    /// What has become of what a line tells.
    fn outcome(&self, line: &Line) -> Outcome {
        let newest = self.of_key[&*line.cause.object.key];
        match (order(line, newest).is_lt(), newest.cause.change) {
            (true, Change::Removed) => Outcome::Removed,
            (true, Change::Created) => Outcome::Superseded,
            (false, _) if self.is_its_members(line) => Outcome::Superseded,
            (false, _) => line.outcome,
        }
    }

    /// The line of what lies in landing, where its end is not told.
    fn still_in_flight(&self, line: Line) -> Option<Line> {
        let told = self.members.get(&content(&line)).copied();
        in_part(told.as_ref(), line)
    }
}

/// Whether a line says of a whole file that nothing more will come of it.
fn is_over(line: &Line) -> bool {
    line.cause.member.is_none() && matches!(line.outcome, Outcome::Refused | Outcome::Ignored)
}

fn order(one: &Line, other: &Line) -> std::cmp::Ordering {
    one.cause.position(0).cmp_change(&other.cause.position(0))
}

/// A landed object as it is told where nothing of it is known, or not of all its members.
fn in_part(told: Option<&Told>, mut line: Line) -> Option<Line> {
    match told {
        Some(told) if !told.is_in_part() => return None,
        Some(Told { members: Some(members), settled, .. }) => {
            line.reason = Some(format!("{settled} of its {members} members are told of"));
        }
        _ => {}
    }
    Some(line)
}

/// A bucket in which files land.
struct Landing<'s> {
    s3: &'s aws_sdk_s3::Client,
    bucket: &'s str,
}

impl Landing<'_> {
    /// The listing of what starts so.
    fn listed(&self, prefix: &str) -> ListObjectsV2FluentBuilder {
        self.s3.list_objects_v2().bucket(self.bucket).prefix(prefix)
    }

    /// A landed object as it is told as long as nothing else is known of it.
    fn in_flight(&self, object: &Object) -> Option<Line> {
        let modified = object.last_modified()?;
        let cause = Cause {
            object: ObjectRef::new(self.bucket, object.key()?),
            change: Change::Created,
            version_id: None,
            etag: Some(object.e_tag().unwrap_or_default().trim_matches('"').to_owned()),
            size: object.size().and_then(|size| u64::try_from(size).ok()),
            sequencer: None,
            event_time: Timestamp::from_second(modified.secs()).unwrap_or_default(),
            member: None,
            members: None,
        };
        Some(Line::new(cause, "", Outcome::InFlight))
    }
}

/// Of landed objects, those of whose content the ledger does not have all.
async fn in_flight(catalogue: &PostgresCatalogue, lines: Vec<Line>) -> anyhow::Result<Vec<Line>> {
    let mut left = Vec::with_capacity(lines.len());
    let mut lines = lines.into_iter().peekable();
    while let Some(first) = lines.peek() {
        let bucket = first.cause.object.bucket.clone();
        let of_bucket = std::iter::from_fn(|| lines.next_if(|line| line.cause.object.bucket == bucket));
        let some: Vec<Line> = of_bucket.take(KEYS).collect();
        let keys: Vec<&str> = some.iter().map(|line| line.cause.object.key.as_str()).collect();
        let known = catalogue.known(&bucket, &keys).await?;
        let place = |line: &Line| (line.cause.object.key.clone(), line.cause.etag.clone().unwrap_or_default());
        left.extend(some.into_iter().filter_map(|line| in_part(known.get(&place(&line)), line)));
    }
    Ok(left)
}

async fn read(objects: &S3Objects, object: ObjectRef) -> anyhow::Result<Option<Line>> {
    match objects.get(&object, None, BYTES_MAX).await {
        Ok((body, _)) => Ok(serde_json::from_slice(&body)
            .inspect_err(|error| eprintln!("landfall: {object} is no status that this release can read: {error}"))
            .ok()),
        // It was removed meanwhile.
        Err(ObjectsError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_meant(line: &Line, status: &Status) -> bool {
    let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    is(&status.collection, &line.collection)
        && is(&status.item, &line.item)
        && is(&status.event, &line.event)
        && status.since.is_none_or(|since| line.since >= since)
        && line.cause.object.key.starts_with(status.prefix().unwrap_or_default())
}

/// What the ledger has, as it is told.
fn line(ledger: &LedgerRow) -> Line {
    let row = &ledger.row;
    let outcome = if ledger.outdated { Outcome::Superseded } else { row.outcome(ledger.goes_on) };
    let mut line = row.status(outcome, ledger.updated);
    let passed = |stage: &str, at: Timestamp| Passed { stage: stage.to_owned(), at };
    if matches!(row.state, State::Loaded | State::Parked | State::Removed) {
        line.passed.push(passed("load", ledger.updated));
    }
    line.passed.extend(row.announced.map(|at| passed("notify", at)));
    line
}
