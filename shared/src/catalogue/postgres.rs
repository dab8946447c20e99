//! The catalogue in PostgreSQL: pgSTAC and the `landfall` schema, in one transaction.

mod fault;
mod ledger;
mod maintenance;
mod proof;
mod reconciliation;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::Transaction;
use jiff::{SignedDuration, Timestamp};
use landfall_events::status::Outcome;
use landfall_events::{Envelope, Event, EventId, Report, Routed};
use sha2::{Digest, Sha256};
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;
use tracing::debug;

use super::{
    Applied, Catalogue, CatalogueError, Claim, Content, Load, Recorded, Row, Settled, State, View, Waiter, in_order,
    parts, plan,
};
use crate::locked;
use crate::pgstac::{Item, Pgstac, Prepared};
use fault::Fault;
use ledger::read_row;

pub use fault::Reaction;
pub use maintenance::{Due, Extents, Health, Maintained};
pub use reconciliation::{AssetHref, Told};
use session::Sessions;
pub use session::{Access, Password};

/// pgSTAC with the ledger, over a pool of connections.
#[derive(Clone)]
pub struct PostgresCatalogue {
    sessions: Sessions,
    pgstac: Arc<Pgstac>,
    /// Since when, and why, only an operator can help.
    stopped: Arc<Mutex<Option<(Instant, CatalogueError)>>>,
}

/// How long the ledger keeps what is settled and not in the catalogue.
pub const KEEP: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How long nothing is tried where only an operator can help.
const STOP: Duration = Duration::from_secs(15);

impl PostgresCatalogue {
    /// Prepares a pool of at most `connections_max`; connects when it is first used.
    ///
    /// # Errors
    /// [`CatalogueError::Unusable`] where the URL cannot be understood.
    pub fn new(url: &str, connections_max: usize) -> Result<Self, CatalogueError> {
        Self::open(Access::new(url)?, connections_max)
    }

    /// The same, with a password from elsewhere, or other authorities for TLS.
    ///
    /// # Errors
    /// [`CatalogueError::Unusable`].
    pub fn open(access: Access, connections_max: usize) -> Result<Self, CatalogueError> {
        let sessions = Sessions::new(access, connections_max)?;
        Ok(Self { sessions, pgstac: Arc::default(), stopped: Arc::default() })
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, CatalogueError> {
        self.sessions.client().await
    }

    /// Which database it is: the same for every way to it, and another for one that was made anew.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn identity(&self) -> Result<String, CatalogueError> {
        let client = self.client().await?;
        let sql = "select d.oid::bigint, d.datname::text, coalesce(inet_server_addr()::text, ''), inet_server_port()
            from pg_database d where d.datname = current_database()";
        let row = client.query_one(sql, &[]).await?;
        let (oid, name, host, port): (i64, String, String, Option<i32>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        Ok(format!("{host}:{} {name} {oid}", port.unwrap_or_default()))
    }

    async fn apply_once(&self, loads: &[&Load], park_until: Timestamp) -> Result<Vec<Settled>, Fault> {
        let mut client = self.client().await?;
        let prepared = self.pgstac.prepare(&mut client, items(loads)).await?;
        let transaction = client.transaction().await?;
        let mut view = fetch(&transaction, &prepared, loads).await?;

        let mut settled = plan(&mut view, loads, park_until);

        write_collections(&transaction, &view).await?;
        ledger::write_rows(&transaction, &view).await?;
        write_items(&transaction, &prepared, &view).await?;
        mark_releases(&transaction, loads, &mut settled).await?;
        transaction.commit().await?;
        Ok(settled)
    }

    /// Loads items as they are, without the ledger: for what did not land.
    ///
    /// # Errors
    /// [`CatalogueError`]; [`CatalogueError::Missing`] where a collection is not there.
    pub async fn load(&self, items: &[&Item]) -> Result<(), CatalogueError> {
        let again = (|| self.guarded(self.load_once(items))).retry(backoff()).when(Fault::is_passing);
        Ok(again.await?)
    }

    async fn load_once(&self, items: &[&Item]) -> Result<(), Fault> {
        let mut client = self.client().await?;
        let prepared = self.pgstac.prepare(&mut client, items.iter().copied()).await?;
        let missing = prepared.missing(&client, items).await?;
        if let Some(collection) = missing {
            return Err(CatalogueError::Missing(collection).into());
        }
        // Of one id, the last counts; the ids in order, so that nobody waits for us who holds what we want.
        let newest: BTreeMap<(&str, &str), &Item> =
            items.iter().map(|item| ((item.collection.as_str(), item.id.as_str()), *item)).collect();
        let transaction = client.transaction().await?;
        // Where an id has one possible place, the unique index serialises writers.
        let movable: Vec<(&str, &str)> =
            newest.keys().copied().filter(|(collection, _)| prepared.is_divided(collection)).collect();
        let held = if movable.is_empty() {
            Default::default()
        } else {
            lock_items(&transaction, movable.into_iter()).await?;
            prepared.held(&transaction, &newest.keys().copied().collect()).await?
        };
        let written: Vec<&Item> = newest.into_values().collect();
        prepared.write(&transaction, &written, &held).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes a collection as it is, without the ledger.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn load_collection(&self, document: &str) -> Result<(), CatalogueError> {
        let once = async || {
            let client = self.client().await?;
            client.execute("select pgstac.upsert_collection($1::text::jsonb)", &[&document]).await?;
            self.pgstac.forget();
            Ok(())
        };
        let again = (|| self.guarded(once())).retry(backoff()).when(Fault::is_passing);
        Ok(again.await?)
    }

    /// Runs one try, and draws the conclusions from how it ended.
    async fn guarded<T>(&self, once: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let result = once.await;
        match &result {
            Err(Fault::Stale(why)) => {
                debug!(why, "what is known of pgSTAC is read again");
                self.pgstac.forget();
                self.sessions.forget_statements();
            }
            Err(Fault::Passed(error @ CatalogueError::Unusable(_))) => {
                // Another version may be there when it is mended.
                self.pgstac.forget();
                *locked(&self.stopped) = Some((Instant::now(), error.clone()));
            }
            _ => {}
        }
        result
    }

    async fn record_once(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Recorded>, Fault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        let causes = reports.iter().map(|report| report.event.cause());
        let key = |cause: &landfall_events::Cause| lock_of("key", &[&cause.object.bucket, &cause.object.key]);
        let keys: BTreeMap<i64, bool> = causes.clone().map(|cause| (key(cause), true)).collect();
        take_locks(&transaction, keys).await?;
        let named = ledger::named_by_reports(reports);
        lock_items(&transaction, named.iter().map(borrowed)).await?;
        let mut view = View::default();
        ledger::keep_rows(&mut view, &ledger::fetch_rivals(&transaction, &named).await?);
        ledger::keep_rows(&mut view, &ledger::fetch_rows(&transaction, causes.clone()).await?);
        ledger::fetch_subjects(&transaction, &mut view, reports).await?;
        view.newest = ledger::fetch_newest(&transaction, causes).await?;
        let standings = super::plan::record(&mut view, reports, released_by);
        ledger::write_rows(&transaction, &view).await?;
        transaction.commit().await?;
        Ok(standings)
    }

    /// Reads ledger rows for `landfall status`, newest first, at most `most` of them.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn rows(&self, filter: &RowFilter, most: i64) -> Result<Vec<LedgerRow>, CatalogueError> {
        let rows = self
            .asked(
                filter,
                &format!("l.*, {} as outdated, {GOES_ON} as goes_on", *OUTDATED),
                &format!("order by l.updated desc, l.bucket, l.key, l.subject limit {most}"),
            )
            .await?;
        let read = |sql: &SqlRow| {
            let (row, updated) = (read_row(sql)?, sql.get("updated"));
            Some(LedgerRow { row, updated, outdated: sql.get("outdated"), goes_on: sql.get("goes_on") })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Counts ledger rows by what is told of them, of refusals and what is ignored by their code too.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn counts(&self, filter: &RowFilter) -> Result<Vec<Count>, CatalogueError> {
        let what = format!(
            "l.state, l.announced is not null as announced, {} as outdated, {GOES_ON} as goes_on,
            case when l.state in ('refused', 'ignored') or l.announced is null then l.code end as code,
            count(*) as rows",
            *OUTDATED
        );
        let rows = self.asked(filter, &what, "group by 1, 2, 3, 4, 5").await?;
        let read = |sql: &SqlRow| {
            let state = State::read(sql.get("state"))?;
            let outcome = if sql.get("outdated") {
                Outcome::Superseded
            } else {
                state.outcome(sql.get("announced"), sql.get("goes_on"), sql.get("code"))
            };
            let rows = u64::try_from(sql.get::<_, i64>("rows")).unwrap_or_default();
            Some(Count { outcome, code: sql.get("code"), rows })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn asked(&self, filter: &RowFilter, what: &str, rest: &str) -> Result<Vec<SqlRow>, CatalogueError> {
        let mut client = self.client().await?;
        // Only what is asked for stands in the statement: each has its index.
        let end = filter.prefix.as_deref().and_then(after_prefix);
        let mut conditions: Vec<String> = Vec::new();
        let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
        let asked = [
            ("l.bucket =", filter.bucket.as_ref().map(|value| value as &(dyn ToSql + Sync))),
            ("l.key >=", filter.prefix.as_ref().map(|value| value as _)),
            ("l.key <", end.as_ref().map(|value| value as _)),
            ("l.kind <> 'object' and l.collection =", filter.collection.as_ref().map(|value| value as _)),
            ("l.item =", filter.item.as_ref().map(|value| value as _)),
            ("l.event =", filter.event.as_ref().map(|value| value as _)),
            ("l.provider =", filter.provider.as_ref().map(|value| value as _)),
            ("l.updated >=", filter.since.as_ref().map(|value| value as _)),
        ];
        for (condition, value) in asked.into_iter().filter_map(|(condition, value)| Some((condition, value?))) {
            values.push(value);
            conditions.push(format!("{condition} ${}", values.len()));
        }
        if filter.prefix.is_some() && filter.bucket.is_none() {
            conditions.push(OF_EVERY_BUCKET.into());
        }
        let conditions = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" and ") };
        let sql = format!("select {what} from landfall.ledger l where {conditions} {rest}");
        let transaction = client.transaction().await?;
        // Which index is best depends on what is asked for.
        transaction.batch_execute("set local plan_cache_mode = force_custom_plan").await?;
        Ok(transaction.query(&sql, &values).await?)
    }
}

/// Whether a row is outdated: something newer landed under the same key; or it is of a file that was refused as a whole,
/// was sent again since, and all its members are told of.
static OUTDATED: LazyLock<String> = LazyLock::new(|| format!("({} or {OVER_AS_MEMBERS})", newer_than("l")));

/// Whether something newer landed under the key of `of`, a row or what has its columns: by their sequencers, else by time.
/// Each part asks the index for one row of the key: a file may have ten thousand.
fn newer_than(of: &str) -> String {
    let of_key = format!("select from landfall.ledger n where n.bucket = {of}.bucket and n.key = {of}.key");
    format!(
        "(exists ({of_key} and n.sequencer > {of}.sequencer)
            or exists ({of_key} and n.sequencer is null and n.event_time > {of}.event_time)
            or {of}.sequencer is null and exists ({of_key} and n.event_time > {of}.event_time))"
    )
}

/// Of a file's own row.
const OVER_AS_MEMBERS: &str = "l.member = 0 and l.state in ('refused', 'ignored') and exists (
    select from landfall.ledger n
    where n.bucket = l.bucket and n.key = l.key and n.member > 0 and n.redrive > l.redrive
        and coalesce(n.sequencer = l.sequencer, n.event_time = l.event_time)
    having count(distinct n.member) >= max(n.members))";

/// Whether what a row waits for is there.
const GOES_ON: &str = "(l.state = 'parked' and exists (select from pgstac.collections c where c.id = l.collection))";

/// True of every row. There are few buckets, found one after the other: each key has its place in the index by them.
const OF_EVERY_BUCKET: &str = "l.bucket = any(array(
    with recursive b(bucket) as (
        select min(bucket) from landfall.ledger
        union all select (select min(bucket) from landfall.ledger where bucket > b.bucket) from b where bucket is not null)
    select bucket from b where bucket is not null))";

/// The first text after all that start so, by their bytes; `None` where there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// Which ledger rows are meant; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct RowFilter {
    /// The bucket of the landed object.
    pub bucket: Option<String>,
    /// How its key starts.
    pub prefix: Option<String>,
    /// The collection.
    pub collection: Option<String>,
    /// The item's id.
    pub item: Option<String>,
    /// The id of the event that announces it.
    pub event: Option<String>,
    /// What changed at or after this time.
    pub since: Option<Timestamp>,
    /// Whose it is.
    pub provider: Option<String>,
}

/// A ledger row with what only the ledger knows.
#[derive(Debug, Clone)]
pub struct LedgerRow {
    /// The row.
    pub row: Row,
    /// When it was last written.
    pub updated: Timestamp,
    /// Whether something newer landed under the same key.
    pub outdated: bool,
    /// Whether it is parked, and what it waits for is there.
    pub goes_on: bool,
}

/// How many rows there are of which the same is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// What is told of them.
    pub outcome: Outcome,
    /// Their code, or the rule by which they are ignored.
    pub code: Option<String>,
    /// How many.
    pub rows: u64,
}

#[async_trait]
impl Catalogue for PostgresCatalogue {
    async fn apply(&self, loads: &[&Load], park_until: Timestamp) -> Result<Vec<Settled>, CatalogueError> {
        // A collection's partition can be made when the collection is there for all.
        let mut settled = Vec::with_capacity(loads.len());
        for indices in parts(loads).into_iter().filter(|indices| !indices.is_empty()) {
            let part: Vec<&Load> = indices.iter().map(|&index| loads[index]).collect();
            let once = || self.guarded(self.apply_once(&part, park_until));
            settled.extend(indices.into_iter().zip(once.retry(backoff()).when(Fault::is_passing).await?));
        }
        Ok(in_order(settled))
    }

    async fn releasable(
        &self,
        id: &EventId,
        collection: &str,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<Waiter>, CatalogueError> {
        let client = self.client().await?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let query = async {
            let mine = "select * from landfall.ledger where released_by = $1 and parked is not null
                order by bucket, key, subject";
            let rows = client.query(mine, &[&id.0]).await?;
            if !rows.is_empty() {
                return Ok((rows, Waiter::again as fn(&Row) -> Option<Waiter>));
            }
            let there = client.query_opt("select from pgstac.collections where id = $1", &[&collection]).await?;
            let parked = "select * from landfall.ledger where collection = $1 and state = 'parked'
                    and parked is not null and ($3::timestamptz is null or until <= $3)
                order by until, bucket, key, subject limit $2";
            let (due, waiter): (_, fn(&Row) -> _) = match there {
                Some(_) => (None, Waiter::ready),
                None => (Some(now), Waiter::expired),
            };
            Ok((client.query(parked, &[&collection, &most, &due]).await?, waiter))
        };
        let (rows, waiter) = query.await.map_err(|error: tokio_postgres::Error| CatalogueError::from(error))?;
        let read = |row: &SqlRow| {
            waiter(&read_row(row)?).or_else(|| {
                tracing::error!(key = row.get::<_, &str>("key"), "a parked event is not readable, and is left");
                None
            })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn record(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Recorded>, CatalogueError> {
        let again = (|| self.guarded(self.record_once(reports, released_by))).retry(backoff()).when(Fault::is_passing);
        Ok(again.await?)
    }

    async fn prove(&self, claims: &[Claim]) -> Result<Vec<bool>, CatalogueError> {
        let again = (|| self.guarded(self.prove_once(claims))).retry(backoff()).when(Fault::is_passing);
        Ok(again.await?)
    }

    async fn announced(&self, events: &[EventId]) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        let ids: Vec<&str> = events.iter().map(|id| id.0.as_str()).collect();
        // `updated` stays: it is indexed, and nothing has become of the document since.
        let sql = "update landfall.ledger set announced = coalesce(announced, now()), parked = null
            where event = any($1) and (announced is null or parked is not null)";
        client.execute(sql, &[&ids]).await?;
        Ok(())
    }

    async fn clearing(&self, events: &[EventId]) -> Result<Vec<EventId>, CatalogueError> {
        let client = self.client().await?;
        let ids: Vec<&str> = events.iter().map(|id| id.0.as_str()).collect();
        let sql = "update landfall.ledger set cleared = coalesce(cleared, now())
            where event = any($1) and state in ('loaded', 'routed') and announced is not null returning event";
        let rows = client.query(sql, &[&ids]).await?;
        Ok(rows.iter().map(|row| EventId(row.get(0))).collect())
    }

    async fn not_cleared(&self, event: &EventId) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        let sql = "update landfall.ledger set cleared = null where event = $1";
        client.execute(sql, &[&event.0]).await?;
        Ok(())
    }

    async fn tend(&self, now: Timestamp) -> Result<Vec<Envelope<Routed>>, CatalogueError> {
        Ok(self.maintain(now, KEEP).await?.map(|done| done.releases).unwrap_or_default())
    }

    async fn ready(&self) -> Result<(), CatalogueError> {
        let stopped = locked(&self.stopped).clone();
        if let Some((_, why)) = stopped.filter(|(since, _)| since.elapsed() < STOP) {
            return Err(why);
        }
        let client = self.client().await?;
        let sql = "select current_setting('transaction_read_only') = 'on'";
        let row = client.query_one(sql, &[]).await?;
        if row.get(0) {
            return Err(CatalogueError::Unavailable("the database takes no writes: it is a standby".into()));
        }
        Ok(())
    }
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .with_max_times(10)
        .with_jitter()
}

/// A lock's number: the first eight bytes of a hash, so that unlike things seldom share one (and then only wait).
fn lock_of(what: &str, parts: &[&str]) -> i64 {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&what).chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    i64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

/// Takes the first locks of a batch: on its collections (shared by items, exclusive for their creation), then on every
/// landed key. Those on items follow, when it is known which they are; so that all take all in one order.
async fn lock_keys(transaction: &Transaction<'_>, loads: &[&Load]) -> Result<(), Fault> {
    let (mut collections, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for load in loads {
        let cause = load.envelope.event.cause();
        // Members of one file go side by side; the file as a whole, alone.
        let key = lock_of("key", &[&cause.object.bucket, &cause.object.key]);
        *keys.entry(key).or_insert(false) |= cause.member.is_none();
        match &load.envelope.event {
            Routed::Item(routed) => {
                collections.entry(lock_of("collection", &[&routed.collection])).or_insert(false);
            }
            Routed::Collection(routed) => {
                collections.insert(lock_of("collection", &[&routed.collection]), true);
            }
            Routed::Removed(_) | Routed::Released(_) => {}
        }
    }
    take_locks(transaction, collections.into_iter().chain(keys)).await
}

/// The most items that are locked one by one: PostgreSQL's table of locks is small, and shared by all.
/// <https://www.postgresql.org/docs/15/runtime-config-locks.html>
const ITEM_LOCKS_MAX: usize = 1000;

/// Takes locks on items, by collection and id: each its own, beside one that all share; or that one alone, where there
/// are too many, a file of thousands that is removed for example.
async fn lock_items<'n>(
    transaction: &Transaction<'_>,
    named: impl Iterator<Item = (&'n str, &'n str)>,
) -> Result<(), Fault> {
    let each: BTreeMap<i64, bool> = named
        .filter(|(_, item)| !item.is_empty())
        .map(|(collection, item)| (lock_of("item", &[collection, item]), true))
        .collect();
    if each.is_empty() {
        return Ok(());
    }
    let all = lock_of("items", &[]);
    if each.len() > ITEM_LOCKS_MAX {
        return take_locks(transaction, [(all, true)]).await;
    }
    take_locks(transaction, [(all, false)].into_iter().chain(each)).await
}

/// Names as they are borrowed.
fn borrowed((collection, item): &(String, String)) -> (&str, &str) {
    (collection, item)
}

/// Fetches what a batch's plan looks at, under locks that nobody else's plan can change it.
async fn fetch(transaction: &Transaction<'_>, prepared: &Prepared, loads: &[&Load]) -> Result<View, Fault> {
    lock_keys(transaction, loads).await?;
    let causes = loads.iter().map(|load| load.envelope.event.cause());
    let mut view = View::default();
    ledger::keep_rows(&mut view, &ledger::fetch_rows(transaction, causes.clone()).await?);
    // What a batch's keys have provided before may go with it.
    let mut named = ledger::named(loads);
    named.extend(ledger::named_by_rows(&view));
    lock_items(transaction, named.iter().map(borrowed)).await?;
    let ids: BTreeSet<(&str, &str)> = items(loads).map(|item| (item.collection.as_str(), item.id.as_str())).collect();
    // All are under way at once.
    let (rivals, newest, collections, held) = futures::try_join!(
        ledger::fetch_rivals(transaction, &named),
        ledger::fetch_newest(transaction, causes),
        ledger::fetch_collections(transaction, &named),
        prepared.held(transaction, &ids),
    )?;
    ledger::keep_rows(&mut view, &rivals);
    (view.newest, view.collections) = (newest, collections);
    view.items = held.keys().cloned().collect();
    view.held = held;
    Ok(view)
}

fn items<'l>(loads: &[&'l Load]) -> impl Iterator<Item = &'l Item> {
    loads.iter().filter_map(|load| match &load.content {
        Content::Item(item) => Some(item.as_ref()),
        Content::Collection(_) | Content::Nothing => None,
    })
}

async fn take_locks(transaction: &Transaction<'_>, locks: impl IntoIterator<Item = (i64, bool)>) -> Result<(), Fault> {
    let (keys, exclusive): (Vec<_>, Vec<_>) = locks.into_iter().unzip();
    let sql = "select count(case when exclusive then pg_advisory_xact_lock(key)::text
            else pg_advisory_xact_lock_shared(key)::text end)
        from unnest($1::bigint[], $2::boolean[]) as lock(key, exclusive)";
    if keys.is_empty() {
        return Ok(());
    }
    let statement = transaction.prepare_cached(sql).await?;
    transaction.query_one(&statement, &[&keys, &exclusive]).await?;
    Ok(())
}

async fn write_items(transaction: &Transaction<'_>, prepared: &Prepared, view: &View) -> Result<(), Fault> {
    let deleted = view.item_writes.iter().filter(|(_, item)| item.is_none()).map(|(key, _)| key);
    let (collections, ids): (Vec<&str>, Vec<&str>) =
        deleted.map(|(collection, id)| (collection.as_str(), id.as_str())).unzip();
    if !ids.is_empty() {
        let sql = "delete from pgstac.items i using unnest($1::text[], $2::text[]) as s(collection, id)
            where i.collection = s.collection and i.id = s.id";
        transaction.execute(sql, &[&collections, &ids]).await?;
    }
    let written: Vec<&Item> = view.item_writes.values().flatten().map(Arc::as_ref).collect();
    if !written.is_empty() {
        prepared.write(transaction, &written, &view.held).await?;
    }
    Ok(())
}

/// Writes collections. That their row in `landfall.collections` is there says that what waits for them may go on:
/// however much that is, nothing of it is touched in this transaction.
async fn write_collections(transaction: &Transaction<'_>, view: &View) -> Result<(), Fault> {
    for (collection, document) in &view.collection_writes {
        transaction.execute("select pgstac.upsert_collection($1::text::jsonb)", &[&&**document]).await?;
        let owner = view.collections.get(collection).cloned().flatten().unwrap_or_default();
        let sql = "insert into landfall.collections (collection, provider) values ($1, $2)
            on conflict (collection) do update set provider = excluded.provider";
        transaction.execute(sql, &[collection, &owner]).await?;
    }
    Ok(())
}

/// Says of each loaded collection whether items wait to be released.
async fn mark_releases(transaction: &Transaction<'_>, loads: &[&Load], settled: &mut [Settled]) -> Result<(), Fault> {
    for (load, one) in loads.iter().zip(settled) {
        if let (Routed::Collection(routed), Applied::Loaded { release, .. }) = (&load.envelope.event, &mut one.applied)
        {
            let sql = "select exists (select from landfall.ledger where collection = $1 and state = 'parked')";
            *release = transaction.query_one(sql, &[&routed.collection]).await?.get(0);
        }
    }
    Ok(())
}
