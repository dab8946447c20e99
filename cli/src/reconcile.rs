//! `landfall reconcile`: holds the landing bucket, the destinations, pgSTAC and the ledger against each other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use landfall_events::report::Effect;
use landfall_events::status::Outcome;
use landfall_events::{Cause, Change, Envelope, Landed, ObjectRef};
use landfall_route::BucketMap;
use landfall_shared::aws::{self, S3Objects};
use landfall_shared::catalogue::{DROPPED, KEEP, LedgerRow, PostgresCatalogue, RowFilter, State, Subject, Told};
use landfall_shared::config::Landings;
use landfall_shared::letters::{self, refusal_id};
use landfall_shared::objects::Objects;
use landfall_shared::queue::{BATCH_MAX, Outgoing};
use landfall_shared::runner::message;
use serde::Serialize;

use crate::backfill::landed;
use crate::deployment::{Connected, Place};
use crate::output::{self, End, Format, SetUp};
use crate::{dlq, map};

/// What is compared.
#[derive(Debug, Clone, clap::Args)]
pub struct Reconcile {
    /// Only this collection
    #[arg(long, value_name = "ID")]
    collection: Option<String>,
    /// Only landed keys that start so
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Leave alone what is younger: it may be under way
    #[arg(long, value_name = "TIME", default_value = "15m")]
    grace: SignedDuration,
    /// Send again what is missing
    #[arg(long)]
    fix: bool,
    /// The most examples of each kind
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,
}

/// How two of them can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It lies in landing, and nobody knows of it.
    NeverSeen,
    /// It is at its destination, and the ledger knows nothing of it.
    RoutedNotLoaded,
    /// The ledger says that it is refused, and there is no dead letter.
    NoLetter,
    /// The ledger says where it is, and there it is not.
    DataGone,
    /// An item is loaded, and one of its assets is gone.
    AssetGone,
    /// The ledger says that it is loaded, and pgSTAC does not have it.
    NotInCatalogue,
    /// pgSTAC has an item that no row of the ledger says to be loaded.
    NotInLedger,
    /// It is settled, and was never announced.
    NeverAnnounced,
}

impl Kind {
    fn sentence(self) -> &'static str {
        match self {
            Self::NeverSeen => "landed, and never seen",
            Self::RoutedNotLoaded => "routed, and not loaded",
            Self::NoLetter => "refused, and there is no dead letter",
            Self::DataGone => "routed, and gone from its destination",
            Self::AssetGone => "loaded, and an asset is gone",
            Self::NotInCatalogue => "in the ledger, and not in pgSTAC",
            Self::NotInLedger => "in pgSTAC, and not in the ledger",
            Self::NeverAnnounced => "settled, and never announced",
        }
    }
}

/// Objects that are looked at a time.
const CONCURRENCY: usize = 64;

/// Rows of a page.
const PAGE: i64 = 1000;

#[derive(Debug, Default, Serialize)]
struct Difference {
    count: u64,
    examples: Vec<String>,
}

struct Run<'r> {
    command: &'r Reconcile,
    connected: &'r Connected,
    catalogue: PostgresCatalogue,
    objects: S3Objects,
    landings: Landings,
    map: BucketMap,
    bar: ProgressBar,
    /// What is older than this is compared.
    before: Timestamp,
    /// What was settled earlier may be forgotten.
    remembered: Timestamp,
    checked: u64,
    found: BTreeMap<Kind, Difference>,
    again: Vec<Outgoing>,
    /// Removals that are sent again.
    removals: BTreeSet<(ObjectRef, u32)>,
    sent: u64,
}

/// Runs the command.
///
/// # Errors
/// Where a bucket, a queue or the database cannot be asked.
pub async fn run(command: &Reconcile, place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    let config = map::config(&connected).await?;
    let text = map::text_in_force(&connected).await?;
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} compared  {msg}")?);
    let mut run = Run {
        command,
        connected: &connected,
        catalogue: connected.catalogue()?,
        objects: S3Objects::new(connected.s3()).with(aws::elsewhere(&connected.sdk, &config.destinations).await),
        landings: Landings::new(&config, connected.deployment.output("LandingBucket")?)?,
        map: BucketMap::parse(&text, &[]).map_err(|bad| SetUp(bad.to_string()))?,
        bar,
        before: Timestamp::now().saturating_sub(command.grace)?,
        remembered: Timestamp::now().saturating_sub(KEEP)?,
        checked: 0,
        found: BTreeMap::new(),
        again: Vec::new(),
        removals: BTreeSet::new(),
        sent: 0,
    };
    if command.collection.is_none() {
        run.landing().await?;
    }
    run.ledger().await?;
    if command.prefix.is_none() {
        run.pgstac().await?;
    }
    run.send().await?;
    run.bar.finish_and_clear();
    run.tell(format)
}

impl Run<'_> {
    fn differs(&mut self, kind: Kind, example: impl Into<String>) {
        let difference = self.found.entry(kind).or_default();
        difference.count += 1;
        if difference.examples.len() < self.command.examples {
            difference.examples.push(example.into());
        }
        let count: u64 = self.found.values().map(|difference| difference.count).sum();
        self.bar.set_message(format!("{count} differ"));
    }

    fn compared(&mut self, count: usize) {
        self.checked += count as u64;
        self.bar.set_position(self.checked);
    }

    /// Everything that lies in landing and that the ledger does not have as it is.
    async fn landing(&mut self) -> anyhow::Result<()> {
        let buckets: Vec<String> = self.landings.buckets().into_iter().map(str::to_owned).collect();
        for bucket in buckets {
            let request = self.connected.s3().list_objects_v2().bucket(&bucket).set_prefix(self.command.prefix.clone());
            let mut pages = request.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.with_context(|| format!("s3://{bucket} could not be listed"))?;
                let keys: Vec<&str> = page.contents().iter().filter_map(|object| object.key()).collect();
                let known = self.catalogue.known(&bucket, &keys).await?;
                for object in page.contents() {
                    // A folder's marker is ignored, and what belongs to no landing is refused by the ledger's word.
                    let Some(envelope) = landed(&bucket, object, &self.landings) else { continue };
                    let cause = &envelope.event.cause;
                    let name = (cause.object.key.clone(), cause.etag.clone().unwrap_or_default());
                    let is_told = |told: Option<&Told>| told.is_some_and(|told| !told.is_in_part());
                    if is_told(known.get(&name)) || cause.event_time > self.before {
                        continue;
                    }
                    // It may have been settled or removed since it was listed.
                    let again = self.catalogue.known(&bucket, &[&name.0]).await?;
                    let told = again.get(&name);
                    if is_told(told) || self.objects.head(&cause.object).await?.is_none() {
                        continue;
                    }
                    if told.is_some() {
                        let Some(envelope) = self.of_members(cause).await? else { continue };
                        self.differs(Kind::NeverSeen, format!("{}, of some members", cause.object));
                        self.send_again(&envelope).await?;
                        continue;
                    }
                    let kind = if !self.is_routed(&cause.object, &envelope.provider).await? {
                        Kind::NeverSeen
                    } else if cause.event_time < self.remembered {
                        // It was settled, and the ledger has forgotten it since.
                        continue;
                    } else {
                        Kind::RoutedNotLoaded
                    };
                    self.differs(kind, cause.object.to_string());
                    self.send_again(&envelope).await?;
                }
                self.compared(page.contents().len());
            }
        }
        Ok(())
    }

    /// The whole file as its members name it: in the order of its key, what is sent again is no older than they are.
    /// `None` where one of them was touched a moment ago.
    async fn of_members(&self, cause: &Cause) -> anyhow::Result<Option<Envelope<Landed>>> {
        // In the order of keys: the key itself is the first of those that start so.
        let filter = RowFilter { prefix: Some(cause.object.key.clone()), ..RowFilter::default() };
        let rows = self.catalogue.page(&filter, None, PAGE).await?;
        let of_file = |row: &&LedgerRow| row.row.cause.object == cause.object && row.row.cause.etag == cause.etag;
        let newest = rows.iter().filter(of_file).max_by_key(|row| row.updated).filter(|row| row.updated <= self.before);
        Ok(newest.map(|row| {
            let landed = Landed { cause: row.row.cause.of_object() };
            Envelope::new(landed, row.row.provider.clone(), 0)
        }))
    }

    /// Whether something lies where the map places an object by its path.
    async fn is_routed(&self, object: &ObjectRef, provider: &str) -> anyhow::Result<bool> {
        let Some(sited) = self.landings.site(object) else { return Ok(false) };
        let Ok(target) = self.map.target(provider, sited.path, None) else { return Ok(false) };
        Ok(self.objects.head(&ObjectRef::new(target.bucket, target.key)).await?.is_some())
    }

    /// Everything that the ledger says.
    async fn ledger(&mut self) -> anyhow::Result<()> {
        let Reconcile { collection, prefix, .. } = self.command.clone();
        let filter = RowFilter { prefix, collection, ..RowFilter::default() };
        let (mut letters, mut is_second) = (dlq::events(self.connected).await?, false);
        let mut last: Option<LedgerRow> = None;
        loop {
            let rows = self.catalogue.page(&filter, last.as_ref(), PAGE).await?;
            let settled: Vec<&LedgerRow> =
                rows.iter().filter(|row| row.updated <= self.before && !row.outdated).collect();
            let mut suspects = self.suspects(&settled, &letters).await?;
            if !is_second && suspects.iter().any(|(_, kind, _)| *kind == Kind::NoLetter) {
                // Others may have looked at the letters: what they held can be seen again after that.
                tokio::time::sleep(letters::LOOK).await;
                letters.extend(dlq::events(self.connected).await?);
                is_second = true;
                suspects.retain(|(row, kind, _)| *kind != Kind::NoLetter || !letters.contains(&row.row.event.0));
            }
            for (row, kind, example) in suspects {
                if self.stands(row).await? {
                    self.differs(kind, example);
                    let same = kind == Kind::NeverAnnounced;
                    let redrive = row.row.redrive + u32::from(!same);
                    // What is removed is removed as a whole.
                    let is_whole = row.row.cause.change == Change::Removed;
                    let cause = if is_whole { row.row.cause.of_object() } else { row.row.cause.clone() };
                    // One removal tells of all that went with it.
                    if is_whole && !self.removals.insert((cause.object.clone(), redrive)) {
                        continue;
                    }
                    let landed = Landed { cause };
                    self.send_again(&Envelope::new(landed, row.row.provider.clone(), redrive)).await?;
                }
            }
            self.compared(rows.len());
            last = match rows.into_iter().next_back() {
                Some(row) => Some(row),
                None => return Ok(()),
            };
        }
    }

    /// What seems to differ on a page, once for each row.
    async fn suspects<'p>(
        &self,
        rows: &[&'p LedgerRow],
        letters: &BTreeSet<String>,
    ) -> anyhow::Result<Vec<(&'p LedgerRow, Kind, String)>> {
        let mut suspects = Vec::new();
        let of = |row: &LedgerRow| row.row.cause.object.to_string();
        let (mut items, mut collections, mut routed) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut deleted: Vec<((&str, &str), &LedgerRow)> = Vec::new();
        for &row in rows {
            match (row.row.state, &row.row.subject) {
                // What notify could not find in time is refused, and its letter is notify's.
                // A decision is not to be undone.
                (State::Loaded | State::Routed | State::Removed, _)
                    if row.row.announced.is_none() && row.row.code.as_deref() == Some(DROPPED) => {}
                (State::Loaded | State::Routed, _) if row.row.outcome(false) == Outcome::Refused => {
                    let refusal = refusal_id(&row.row.cause, row.row.redrive);
                    if !letters.contains(&refusal.0) {
                        suspects.push((row, Kind::NeverAnnounced, of(row)));
                    }
                }
                (State::Removed, Subject::Item { collection, item })
                    if row.row.effect == Some(Effect::Deleted) && row.row.announced.is_none() =>
                {
                    let refusal = refusal_id(&row.row.cause, row.row.redrive);
                    if row.row.code.is_none() || !letters.contains(&refusal.0) {
                        deleted.push(((collection.as_str(), item.as_str()), row));
                    }
                }
                (State::Loaded | State::Routed | State::Refused, _) if row.row.announced.is_none() => {
                    suspects.push((row, Kind::NeverAnnounced, of(row)));
                }
                (State::Refused, _) if !letters.contains(&row.row.event.0) => {
                    suspects.push((row, Kind::NoLetter, of(row)));
                }
                (State::Loaded, Subject::Item { collection, item }) => {
                    items.insert((collection.as_str(), item.as_str()), row);
                }
                (State::Loaded, Subject::Collection { collection }) => {
                    collections.insert(collection.as_str(), row);
                }
                (State::Routed, _) => {
                    let destination = row.row.destination.as_deref().and_then(ObjectRef::parse);
                    routed.extend(destination.map(|destination| (row, destination)));
                }
                _ => {}
            }
        }
        // What another key has brought back since is announced by its own event.
        let back = self.catalogue.holding(&deleted.iter().map(|(name, _)| *name).collect::<Vec<_>>()).await?;
        let gone = deleted
            .into_iter()
            .filter(|((collection, item), _)| !back.contains(&((*collection).to_owned(), (*item).to_owned())));
        suspects.extend(gone.map(|(_, row)| (row, Kind::NeverAnnounced, of(row))));
        let there = self.catalogue.holding(&items.keys().copied().collect::<Vec<_>>()).await?;
        let missing = items
            .iter()
            .filter(|((collection, item), _)| !there.contains(&((*collection).to_owned(), (*item).to_owned())));
        suspects.extend(
            missing.map(|((collection, item), row)| (*row, Kind::NotInCatalogue, format!("{collection}/{item}"))),
        );
        let held = self.catalogue.collections(Some(&collections.keys().copied().collect::<Vec<_>>())).await?;
        let missing = collections.iter().filter(|(collection, _)| !held.contains(**collection));
        suspects.extend(missing.map(|(collection, row)| (*row, Kind::NotInCatalogue, (*collection).to_owned())));

        let hrefs = self.catalogue.hrefs(&items.keys().copied().collect::<Vec<_>>()).await?;
        let mut looks: Vec<(&LedgerRow, Kind, String, ObjectRef)> = Vec::new();
        for (row, destination) in routed {
            looks.push((row, Kind::DataGone, destination.to_string(), destination));
        }
        for asset in &hrefs {
            // Only what lies in our own destinations is looked at.
            let Some(object) = ObjectRef::parse(&asset.href) else { continue };
            if let Some(row) = items.get(&(asset.collection.as_str(), asset.item.as_str()))
                && self.map.buckets().contains(&object.bucket)
            {
                let example = format!("{}/{}: {object}", asset.collection, asset.item);
                looks.push((row, Kind::AssetGone, example, object));
            }
        }
        let mut looking = Vec::with_capacity(looks.len());
        for (row, kind, example, object) in looks {
            looking.push(async move {
                let is_gone = self.objects.head(&object).await?.is_none();
                anyhow::Ok(is_gone.then_some((row, kind, example)))
            });
        }
        let gone: Vec<_> = futures::stream::iter(looking).buffered(CONCURRENCY).try_collect().await?;
        let mut seen = BTreeSet::new();
        let gone = gone.into_iter().flatten();
        suspects.extend(gone.filter(|(row, kind, _)| seen.insert((*kind, row.row.event.0.clone()))));
        Ok(suspects)
    }

    /// Whether a row is still what it was: what was settled anew meanwhile does not differ for it.
    async fn stands(&self, row: &LedgerRow) -> anyhow::Result<bool> {
        let object = &row.row.cause.object;
        let filter = RowFilter { event: Some(row.row.event.0.clone()), ..RowFilter::default() };
        let now = self.catalogue.rows(&filter, 100).await?;
        Ok(now.iter().any(|now| {
            now.row.cause.object == *object
                && now.row.subject == row.row.subject
                && now.row.state == row.row.state
                && now.row.announced == row.row.announced
                && !now.outdated
        }))
    }

    /// Everything that pgSTAC holds and the ledger does not say to be loaded.
    async fn pgstac(&mut self) -> anyhow::Result<()> {
        let named: Option<Vec<&str>> = self.command.collection.as_deref().map(|one| vec![one]);
        for collection in self.catalogue.collections(named.as_deref()).await? {
            let mut after = String::new();
            loop {
                let ids = self.catalogue.unknown(&collection, &after, PAGE).await?;
                for id in &ids {
                    self.differs(Kind::NotInLedger, format!("{collection}/{id}"));
                }
                match ids.into_iter().next_back() {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn send_again(&mut self, envelope: &Envelope<Landed>) -> anyhow::Result<()> {
        if self.command.fix {
            self.again.push(message(envelope, "validate"));
            if self.again.len() >= BATCH_MAX {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let messages = std::mem::take(&mut self.again);
        self.sent += messages.len() as u64;
        let queue = self.connected.queue(self.connected.deployment.queue_url("validate")?);
        for sent in queue.send(messages).await {
            sent.map_err(|error| anyhow::anyhow!("could not send to validate: {error}"))?;
        }
        Ok(())
    }

    fn tell(&self, format: Format) -> anyhow::Result<End> {
        match format {
            Format::Json => {
                output::json(
                    &serde_json::json!({"compared": self.checked, "differences": self.found, "sent_again": self.sent}),
                )?;
            }
            Format::Human => {
                for (kind, difference) in &self.found {
                    output::line(&format!("{:>8}  {}", difference.count, kind.sentence()))?;
                    for example in &difference.examples {
                        output::line(&format!("          {}", output::visible(example)))?;
                    }
                }
                let sent = if self.sent > 0 { format!(", {} sent again", self.sent) } else { String::new() };
                let word = if self.found.is_empty() { "nothing differs" } else { "they differ" };
                output::line(&format!("{} compared: {word}{sent}", self.checked))?;
            }
        }
        Ok(if self.found.is_empty() { End::Good } else { End::Problems })
    }
}
