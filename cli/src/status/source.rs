//! Who is asked: the ledger, or what is written for a provider in the work bucket; the landing bucket by both.

use std::collections::HashMap;

use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::Object;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use landfall_events::status::{Outcome, Passed, Status as Line};
use landfall_events::{Cause, Change, ObjectRef};
use landfall_shared::aws::{self, S3Objects};
use landfall_shared::catalogue::{LedgerRow, PostgresCatalogue, RowFilter, State};
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::statuses::BYTES_MAX;

use super::{Answer, Status};
use crate::deployment::Place;

/// Keys that the ledger is asked about at a time.
const KEYS: usize = 1000;

/// Objects that are read at a time.
const CONCURRENCY: usize = 32;

/// Who is asked.
pub(super) struct Source {
    s3: aws_sdk_s3::Client,
    landing: String,
    of: Of,
}

enum Of {
    Operator(PostgresCatalogue),
    Provider { name: String, work: String },
}

impl Source {
    /// Finds who is to be asked.
    ///
    /// # Errors
    /// Where the deployment is not known.
    pub(super) async fn of(status: &Status, place: &Place) -> anyhow::Result<Self> {
        if let (Some(name), Some(landing), Some(work)) =
            (&status.as_provider, &status.landing_bucket, &status.work_bucket)
        {
            let of = Of::Provider { name: name.clone(), work: work.clone() };
            return Ok(Self { s3: aws::s3(&aws::sdk_config().await), landing: landing.clone(), of });
        }
        let connected = place.connect().await?;
        let landing = connected.deployment.output("LandingBucket")?.to_owned();
        let of = match &status.as_provider {
            Some(name) => {
                Of::Provider { name: name.clone(), work: connected.deployment.output("WorkBucket")?.to_owned() }
            }
            None => Of::Operator(connected.catalogue()?),
        };
        Ok(Self { s3: connected.s3(), landing, of })
    }

    /// Asks. The landing bucket is looked at first: what is learned meanwhile is in the answer, and nothing falls
    /// between the two.
    ///
    /// # Errors
    /// Where the ledger or a bucket cannot be asked.
    pub(super) async fn ask(&self, status: &Status) -> anyhow::Result<Answer> {
        match &self.of {
            Of::Operator(catalogue) => self.ask_ledger(status, catalogue).await,
            Of::Provider { name, work } => self.ask_statuses(status, name, work).await,
        }
    }

    async fn ask_ledger(&self, status: &Status, catalogue: &PostgresCatalogue) -> anyhow::Result<Answer> {
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
        if !status.is_of_settled() {
            let provider = status.provider.as_deref().unwrap_or_default();
            let mut pages = self.landed(status, provider).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page?;
                let lines = page.contents().iter().filter_map(|object| self.in_flight(object, provider));
                let lines = lines.filter(|line| status.since.is_none_or(|since| line.since >= since));
                flying.extend(unknown(catalogue, lines.collect()).await?);
            }
        }
        if status.delivery.is_some() {
            let counts = catalogue.counts(&filter).await?;
            let flying = unknown(catalogue, flying).await?.len() as u64;
            let flying = (flying > 0).then_some((Outcome::InFlight, None, flying));
            return Ok(Answer::of(counts.into_iter().map(|one| (one.outcome, one.code, one.rows)).chain(flying)));
        }
        let rows = catalogue.rows(&filter, status.most).await?;
        let flying = unknown(catalogue, flying).await?;
        Ok(Answer::of_lines(rows.iter().map(line).chain(flying).collect()))
    }

    /// The same from S3 alone: a landed object of whose content nothing is written is in flight.
    async fn ask_statuses(&self, status: &Status, provider: &str, work: &str) -> anyhow::Result<Answer> {
        let mut flying: HashMap<String, Line> = HashMap::new();
        if !status.is_of_settled() {
            let mut pages = self.landed(status, provider).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page?;
                let lines = page.contents().iter().filter_map(|object| self.in_flight(object, provider));
                flying.extend(lines.map(|line| (line.cause.object.key.clone(), line)));
            }
        }
        let objects = S3Objects::new(self.s3.clone());
        let (prefix, bucket) = (status.prefix().unwrap_or_default(), &self.landing);
        let roots = [
            format!("{}{prefix}", Line::objects_of(provider, bucket)),
            format!("{}{prefix}", Line::members_of(provider, bucket)),
            Line::long_of(provider, bucket),
        ];
        let (mut lines, mut counts) = (Vec::new(), Vec::new());
        let most = usize::try_from(status.most).unwrap_or(usize::MAX);
        for root in roots {
            let mut pages = self.s3.list_objects_v2().bucket(work).prefix(root).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page?;
                let keys = page.contents().iter().filter_map(|object| object.key());
                let reads: Vec<_> = keys.map(|key| read(&objects, ObjectRef::new(work, key))).collect();
                let read: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENCY).try_collect().await?;
                for line in read.into_iter().flatten() {
                    let (key, etag) = (&line.cause.object.key, &line.cause.etag);
                    if flying.get(key).is_some_and(|flying| flying.cause.etag == *etag) {
                        flying.remove(key);
                    }
                    if !is_meant(&line, status) {
                        continue;
                    }
                    if status.delivery.is_some() {
                        counts.push((line.outcome, line.code, 1));
                    } else if lines.len() < most {
                        lines.push(line);
                    }
                }
            }
        }
        let flying = flying.into_values().filter(|line| is_meant(line, status));
        if status.delivery.is_some() {
            return Ok(Answer::of(counts.into_iter().chain(flying.map(|line| (line.outcome, None, 1)))));
        }
        Ok(Answer::of_lines(lines.into_iter().chain(flying).collect()))
    }

    /// The listing of what is asked for in landing.
    fn landed(&self, status: &Status, provider: &str) -> ListObjectsV2FluentBuilder {
        let own = (!provider.is_empty()).then(|| format!("{provider}/"));
        let prefix = status.prefix().map(str::to_owned).or(own);
        self.s3.list_objects_v2().bucket(&self.landing).set_prefix(prefix)
    }

    /// A landed object as it is told as long as nothing else is known of it.
    fn in_flight(&self, object: &Object, provider: &str) -> Option<Line> {
        let modified = object.last_modified()?;
        let cause = Cause {
            object: ObjectRef::new(&self.landing, object.key()?),
            change: Change::Created,
            version_id: None,
            etag: Some(object.e_tag().unwrap_or_default().trim_matches('"').to_owned()),
            size: object.size().and_then(|size| u64::try_from(size).ok()),
            sequencer: None,
            event_time: Timestamp::from_second(modified.secs()).unwrap_or_default(),
            member: None,
        };
        Some(Line::new(cause, provider, Outcome::InFlight))
    }
}

/// Of landed objects, those of whose content the ledger has nothing.
async fn unknown(catalogue: &PostgresCatalogue, lines: Vec<Line>) -> anyhow::Result<Vec<Line>> {
    let mut left = Vec::with_capacity(lines.len());
    let mut lines = lines.into_iter().peekable();
    while let Some(first) = lines.peek() {
        let bucket = first.cause.object.bucket.clone();
        let some: Vec<Line> = lines.by_ref().take(KEYS).collect();
        let keys: Vec<&str> = some.iter().map(|line| line.cause.object.key.as_str()).collect();
        let known = catalogue.known(&bucket, &keys).await?;
        let place = |line: &Line| (line.cause.object.key.clone(), line.cause.etag.clone().unwrap_or_default());
        left.extend(some.into_iter().filter(|line| !known.contains(&place(line))));
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
