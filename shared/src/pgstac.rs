//! How pgSTAC holds items, and how they get there without its staging tables.
//!
//! Of a version whose layout is known, items are dehydrated here and written to their leaf partitions; of any other,
//! `upsert_items` does it. It never writes a layout that it does not know. Partitions are made ahead of the batch, in
//! a transaction of their own, with bounds as wide as the partition: a batch that lies outside of pgSTAC's tight
//! bounds would have the whole partition validated under an exclusive lock.

mod base;
mod geometry;
mod item;
mod sql;

pub use item::{Item, Unfit};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Transaction};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;
use tracing::warn;

use crate::locked;
use base::BaseItem;
pub(crate) use sql::quoted;
use sql::{Binary, RawJson};

/// How long what is known of a collection is not read again. In pgSTAC 0.10 an old base item does no harm: items say
/// which one they were dehydrated with.
const FRESH: Duration = Duration::from_secs(60);

/// The most statements that a session keeps prepared; there is one for each leaf partition.
const STATEMENTS_MAX: usize = 256;

/// How the pgSTAC that is connected to holds items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// As 0.10.0 does: dehydrated, in leaf partitions, tagged with their base item. Whether `format_item_cache` is in
    /// use, which then must forget what is written.
    Known {
        /// Whether the setting `format_cache` is on.
        format_cache: bool,
    },
    /// Some other way: only its functions are called.
    Other {
        /// Which version says so.
        version: String,
    },
}

impl Layout {
    /// What is known of a version. 0.9 is not written directly: its items do not say which base item they were
    /// dehydrated with, so that an edit of the collection between our look and our write would change them.
    fn of(version: &str, format_cache: bool) -> Self {
        match version {
            "0.10.0" => Self::Known { format_cache },
            other => Self::Other { version: other.to_owned() },
        }
    }
}

/// Whether items of this version are written straight to its partitions.
pub(crate) fn is_known(version: &str) -> bool {
    matches!(Layout::of(version, false), Layout::Known { .. })
}

/// What is known of a pgSTAC, shared by all connections of a process.
#[derive(Debug, Default)]
pub struct Pgstac {
    layout: Mutex<Option<(Instant, Layout)>>,
    collections: Mutex<HashMap<String, Arc<Collection>>>,
}

#[derive(Debug)]
struct Collection {
    key: i64,
    truncation: Option<Truncation>,
    base: BaseItem,
    read_at: Instant,
    leaves: Mutex<Vec<Leaf>>,
}

/// How a collection's items are divided in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truncation {
    Year,
    Month,
}

/// One partition, and what its constraints let in.
#[derive(Debug, Clone)]
struct Leaf {
    name: Arc<str>,
    datetime: Span,
    end_datetime: Span,
}

/// A span of time with both ends; what has no end reaches as far as time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: Timestamp,
    to: Timestamp,
}

impl Span {
    fn read(from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        Self { from: from.unwrap_or(Timestamp::MIN), to: to.unwrap_or(Timestamp::MAX) }
    }

    fn has(&self, time: Timestamp) -> bool {
        self.from <= time && time <= self.to
    }
}

/// What a batch is written by: the layout, and its collections as they were when it was prepared. Whatever others read
/// or forget meanwhile, one batch sees one state.
#[derive(Debug)]
pub(crate) struct Prepared {
    layout: Layout,
    collections: HashMap<String, Arc<Collection>>,
}

/// An item of the catalogue: in which leaf partition it is.
pub(crate) type Held = BTreeMap<(String, String), Arc<str>>;

impl Pgstac {
    /// The layout, looked up every minute; said loudly where it is not known.
    ///
    /// # Errors
    /// PostgreSQL's, where there is no pgSTAC for example.
    pub(crate) async fn layout(&self, client: &Client) -> Result<Layout, Error> {
        let known = locked(&self.layout).clone();
        if let Some((_, layout)) = known.clone().filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(layout);
        }
        let sql = "select pgstac.get_version(), pgstac.get_setting_bool('format_cache')";
        let row = client.query_one(sql, &[]).await?;
        let layout = Layout::of(row.get(0), row.get::<_, Option<bool>>(1).unwrap_or(false));
        if let Layout::Other { version } = &layout
            && known.is_none_or(|(_, known)| known != layout)
        {
            warn!(
                version,
                "the layout of this pgSTAC is not known: items go through upsert_items, which is 10 to 40 times slower"
            );
        }
        *locked(&self.layout) = Some((Instant::now(), layout.clone()));
        Ok(layout)
    }

    /// Forgets all that was read, because the database has said that it is not so any more.
    pub(crate) fn forget(&self) {
        *locked(&self.layout) = None;
        locked(&self.collections).clear();
    }

    /// Makes sure that there is a partition for each item whose collection is there. Not to be called within a
    /// transaction.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(crate) async fn prepare<'i>(
        &self,
        client: &mut Client,
        items: impl Iterator<Item = &'i Item>,
    ) -> Result<Prepared, Error> {
        let layout = self.layout(client).await?;
        let mut prepared = Prepared { layout, collections: HashMap::new() };
        if !matches!(prepared.layout, Layout::Known { .. }) {
            return Ok(prepared);
        }
        if client.statement_cache.size() > STATEMENTS_MAX {
            client.statement_cache.clear();
        }
        let mut by_collection: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
        for item in items {
            by_collection.entry(&item.collection).or_default().push(item);
        }
        for (id, items) in by_collection {
            let Some(collection) = self.collection(client, id).await? else { continue };
            let period = |item: &Item| collection.truncation.map(|by| by.start(item.datetime));
            while let Some(first) = items.iter().find(|item| collection.leaf(item).is_none()) {
                let of_period = items.iter().filter(|item| period(item) == period(first));
                let (mut from, mut to, mut end) = (first.datetime, first.datetime, first.end_datetime);
                for item in of_period {
                    (from, to, end) = (from.min(item.datetime), to.max(item.datetime), end.max(item.end_datetime));
                }
                collection.ensure(client, id, first.datetime, Span { from, to }, end).await?;
                if collection.leaf(first).is_none() {
                    // Somebody has narrowed it meanwhile: the write finds that out, and all starts anew.
                    break;
                }
            }
            prepared.collections.insert(id.to_owned(), collection);
        }
        Ok(prepared)
    }

    /// Makes the partitions of the period that `time` lies in and of the next, where there are none; nothing where the
    /// collection is not there or not divided in time.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(crate) async fn prepare_periods(&self, client: &mut Client, id: &str, time: Timestamp) -> Result<(), Error> {
        if !matches!(self.layout(client).await?, Layout::Known { .. }) {
            return Ok(());
        }
        let Some(collection) = self.collection(client, id).await? else { return Ok(()) };
        let Some(truncation) = collection.truncation else { return Ok(()) };
        for time in [time, truncation.next(time)] {
            collection.ensure(client, id, time, Span { from: time, to: time }, time).await?;
        }
        Ok(())
    }

    async fn collection(&self, client: &Client, id: &str) -> Result<Option<Arc<Collection>>, Error> {
        let known = locked(&self.collections).get(id).cloned();
        if let Some(known) = known.filter(|known| known.read_at.elapsed() < FRESH) {
            return Ok(Some(known));
        }
        let sql = "select c.key, c.partition_trunc, b.base_item::text, b.base_item_id
            from pgstac.collections c, pgstac.current_base_item(c.id) b where c.id = $1";
        let statement = client.prepare_cached(sql).await?;
        let Some(row) = client.query_opt(&statement, &[&id]).await? else {
            locked(&self.collections).remove(id);
            return Ok(None);
        };
        let truncation = match row.get::<_, Option<&str>>(1) {
            Some("year") => Some(Truncation::Year),
            Some("month") => Some(Truncation::Month),
            _ => None,
        };
        let base = BaseItem::read(row.get(2), row.get(3)).expect("PostgreSQL writes JSON");
        let key = row.get(0);
        let before = locked(&self.collections).get(id).cloned();
        let before = before.filter(|before| before.key == key && before.truncation == truncation);
        let leaves = before.map(|before| locked(&before.leaves).clone()).unwrap_or_default();
        let collection =
            Arc::new(Collection { key, truncation, base, read_at: Instant::now(), leaves: Mutex::new(leaves) });
        locked(&self.collections).insert(id.to_owned(), collection.clone());
        Ok(Some(collection))
    }
}

impl Prepared {
    /// The first collection of these items' that is not there.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(crate) async fn missing(&self, client: &Client, items: &[&Item]) -> Result<Option<String>, Error> {
        let named: BTreeSet<&str> = items.iter().map(|item| item.collection.as_str()).collect();
        if matches!(self.layout, Layout::Known { .. }) {
            return Ok(named.into_iter().find(|id| !self.collections.contains_key(*id)).map(str::to_owned));
        }
        let sql = "select n.id from unnest($1::text[]) as n(id)
            where not exists (select from pgstac.collections c where c.id = n.id) limit 1";
        let row = client.query_opt(sql, &[&named.into_iter().collect::<Vec<_>>()]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Whether an item of this collection can move from one partition to another.
    pub(crate) fn is_divided(&self, collection: &str) -> bool {
        self.collections.get(collection).is_none_or(|known| known.truncation.is_some())
    }

    /// Finds which of these items the catalogue holds.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(crate) async fn held(
        &self,
        transaction: &Transaction<'_>,
        items: &BTreeSet<(&str, &str)>,
    ) -> Result<Held, Error> {
        let mut by_collection: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (collection, id) in items {
            by_collection.entry(collection).or_default().push(id);
        }
        let mut held = Held::new();
        for (collection, ids) in by_collection {
            let known = self.collections.get(collection);
            // The collection's own partition: planning does not look at those of other collections.
            let table = match (&self.layout, known.filter(|known| !locked(&known.leaves).is_empty())) {
                (Layout::Known { .. }, Some(known)) => format!("pgstac.{}", quoted(&known.root())),
                (Layout::Known { .. }, None) => continue,
                _ => "pgstac.items".to_owned(),
            };
            // One by one: a plan that was made for an empty partition would read all of a full one.
            let sql = format!(
                "select i.id, i.leaf from unnest($2::text[]) as n(id) cross join lateral (
                    select id, tableoid::regclass::text as leaf from {table} i where i.collection = $1 and i.id = n.id
                    offset 0) i"
            );
            let statement = transaction.prepare_cached(&sql).await?;
            for row in transaction.query(&statement, &[&collection, &ids]).await? {
                held.insert((collection.to_owned(), row.get(0)), row.get::<_, &str>(1).into());
            }
        }
        Ok(held)
    }

    /// Writes items, the newest state of each, and looks whether they are there. `held` is what [`Self::held`] found;
    /// an item whose partition is another one now leaves the one where it was.
    ///
    /// # Errors
    /// PostgreSQL's; [`WriteError::Unprepared`] where [`Pgstac::prepare`] must be called again.
    pub(crate) async fn write(
        &self,
        transaction: &Transaction<'_>,
        items: &[&Item],
        held: &Held,
    ) -> Result<(), WriteError> {
        let Layout::Known { format_cache } = self.layout else {
            return upsert(transaction, items).await;
        };
        let mut by_leaf: BTreeMap<Arc<str>, Vec<(&Item, String)>> = BTreeMap::new();
        let mut moved: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for &item in items {
            let collection = self.collections.get(&item.collection);
            let leaf = collection.and_then(|collection| collection.leaf(item));
            let (Some(collection), Some(leaf)) = (collection, leaf) else { return Err(WriteError::Unprepared) };
            let content = collection.base.content(&item.text).expect("an item has been read as JSON before");
            if let Some(at) = held.get(&(item.collection.clone(), item.id.clone()))
                && **at != *leaf
            {
                moved.entry(at).or_default().push(&item.id);
            }
            by_leaf.entry(leaf).or_default().push((item, content));
        }
        for (leaf, ids) in moved {
            let sql = format!("delete from pgstac.{} where id = any($1)", quoted(leaf));
            let statement = transaction.prepare_cached(&sql).await?;
            transaction.execute(&statement, &[&ids]).await?;
        }
        for (leaf, mut items) in by_leaf {
            items.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
            write_leaf(transaction, &leaf, &items).await?;
        }
        if format_cache {
            let (collections, ids): (Vec<_>, Vec<_>) =
                items.iter().map(|item| (item.collection.as_str(), item.id.as_str())).unzip();
            let sql = "delete from pgstac.format_item_cache c using unnest($1::text[], $2::text[]) as n(collection, id)
                where c.collection = n.collection and c.id = n.id";
            transaction.execute(sql, &[&collections, &ids]).await?;
        }
        Ok(())
    }
}

/// Why items were not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// PostgreSQL's reason.
    Database(Error),
    /// A partition is not known any more.
    Unprepared,
    /// After the write, fewer items are there than were written.
    Short {
        /// So many were written.
        written: usize,
        /// So many are there.
        found: i64,
    },
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// Writes one partition's items, in the order of their ids, and counts them.
async fn write_leaf(transaction: &Transaction<'_>, leaf: &str, items: &[(&Item, String)]) -> Result<(), WriteError> {
    let leaf = quoted(leaf);
    let ids: Vec<&str> = items.iter().map(|(item, _)| item.id.as_str()).collect();
    let collections: Vec<&str> = items.iter().map(|(item, _)| item.collection.as_str()).collect();
    let datetimes: Vec<Timestamp> = items.iter().map(|(item, _)| item.datetime).collect();
    let end_datetimes: Vec<Timestamp> = items.iter().map(|(item, _)| item.end_datetime).collect();
    let geometries: Vec<Binary<'_>> = items.iter().map(|(item, _)| Binary(&item.shape.ewkb)).collect();
    let contents: Vec<RawJson<'_>> = items.iter().map(|(_, content)| RawJson(content)).collect();
    let insert = format!(
        "insert into pgstac.{leaf} as t (id, collection, datetime, end_datetime, geometry, content)
        select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::geometry[], $6::jsonb[])
        on conflict (id) do update set datetime = excluded.datetime, end_datetime = excluded.end_datetime,
            geometry = excluded.geometry, content = excluded.content
        where (t.datetime, t.end_datetime, t.content) is distinct from
                (excluded.datetime, excluded.end_datetime, excluded.content)
            or t.geometry::bytea <> excluded.geometry::bytea"
    );
    let insert = transaction.prepare_cached(&insert).await?;
    let rows: [&(dyn ToSql + Sync); 6] = [&ids, &collections, &datetimes, &end_datetimes, &geometries, &contents];
    if transaction.execute(&insert, &rows).await? == items.len() as u64 {
        return Ok(());
    }
    // Some were there as they are, or went missing on their way.
    let count = format!(
        "select count(*) from unnest($1::text[]) as n(id)
        cross join lateral (select from pgstac.{leaf} t where t.id = n.id offset 0) t"
    );
    let count = transaction.prepare_cached(&count).await?;
    all_there(items.len(), transaction.query_one(&count, &[&ids]).await?.get(0))
}

/// Lets pgSTAC do it.
async fn upsert(transaction: &Transaction<'_>, items: &[&Item]) -> Result<(), WriteError> {
    let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
    // The documents go as text: numbers keep every digit on their way into jsonb.
    let array = format!("[{}]", texts.join(","));
    transaction.execute("select pgstac.upsert_items($1::text::jsonb)", &[&array]).await?;
    let (collections, ids): (Vec<&str>, Vec<&str>) =
        items.iter().map(|item| (item.collection.as_str(), item.id.as_str())).unzip();
    let sql = "select count(*) from pgstac.items i join unnest($1::text[], $2::text[]) as n(collection, id)
        on i.collection = n.collection and i.id = n.id";
    all_there(items.len(), transaction.query_one(sql, &[&collections, &ids]).await?.get(0))
}

fn all_there(written: usize, found: i64) -> Result<(), WriteError> {
    if usize::try_from(found).ok() == Some(written) { Ok(()) } else { Err(WriteError::Short { written, found }) }
}

impl Collection {
    /// The partition that all its items are in.
    fn root(&self) -> String {
        format!("_items_{}", self.key)
    }

    /// The leaf that an item belongs to, where one is known whose constraints let it in.
    fn leaf(&self, item: &Item) -> Option<Arc<str>> {
        let leaves = locked(&self.leaves);
        let mut fitting =
            leaves.iter().filter(|leaf| leaf.datetime.has(item.datetime) && leaf.end_datetime.has(item.end_datetime));
        fitting.next().map(|leaf| leaf.name.clone())
    }

    /// Makes the partition for items of one period, or widens its constraints to the whole of it.
    async fn ensure(
        &self,
        client: &mut Client,
        id: &str,
        time: Timestamp,
        datetimes: Span,
        end: Timestamp,
    ) -> Result<(), Error> {
        let transaction = client.transaction().await?;
        let lock = "select pg_advisory_xact_lock(hashtextextended('landfall partition ' || $1, 0))";
        transaction.execute(lock, &[&id]).await?;
        let sql = "select partition_name, nullif(lower(partition_range), '-infinity'),
                nullif(upper(partition_range), 'infinity'),
                coalesce((select reltuples <> 0 and relpages > 0 from pg_class
                    where oid = to_regclass('pgstac.' || quote_ident(partition_name))), false)
            from pgstac.partition_name($1, $2)";
        let row = transaction.query_one(sql, &[&id, &time]).await?;
        let name: String = row.get(0);
        let (from, to): (Option<Timestamp>, Option<Timestamp>) = (row.get(1), row.get(2));
        let (datetime, end_datetime) = bounds(self.truncation, datetimes, end, from, to);
        // Of a partition that holds rows already, the constraint is made anew off-peak, by `run_queued_queries`.
        let holds_rows: bool = row.get(3);
        let queue = format!("set local pgstac.use_queue = {holds_rows}");
        transaction.batch_execute(&queue).await?;
        let sql = "select pgstac.check_partition($1, tstzrange($2, $3, '[]'), tstzrange($4, $5, '[]'))";
        let spans = [&datetime.from, &datetime.to, &end_datetime.from, &end_datetime.to];
        transaction.query_one(sql, &[&id, spans[0], spans[1], spans[2], spans[3]]).await?;
        let sql = "select nullif(lower(partition_dtrange), '-infinity'), nullif(upper(partition_dtrange), 'infinity'),
                nullif(lower(constraint_dtrange), '-infinity'), nullif(upper(constraint_dtrange), 'infinity'),
                nullif(lower(constraint_edtrange), '-infinity'), nullif(upper(constraint_edtrange), 'infinity')
            from pgstac.partition_catalog_meta($1)";
        let row = transaction.query_one(sql, &[&name]).await?;
        let own = Span::read(row.get(0), row.get::<_, Option<Timestamp>>(1).map(before));
        let allowed = Span::read(row.get(2), row.get(3));
        let leaf = Leaf {
            name: name.as_str().into(),
            datetime: Span { from: own.from.max(allowed.from), to: own.to.min(allowed.to) },
            end_datetime: Span::read(row.get(4), row.get(5)),
        };
        transaction.commit().await?;
        let mut leaves = locked(&self.leaves);
        leaves.retain(|known| *known.name != *name);
        leaves.push(leaf);
        Ok(())
    }
}

/// The last moment before this one, as far as PostgreSQL tells moments apart.
fn before(time: Timestamp) -> Timestamp {
    time.saturating_sub(1.microsecond()).expect("microseconds can be subtracted from a timestamp")
}

/// The bounds that a partition's constraints get: for times, the whole partition; for ends, to the end of the period
/// in which the last one lies. What is not divided in time gets three centuries, and more where an item asks for it.
fn bounds(
    truncation: Option<Truncation>,
    datetimes: Span,
    end: Timestamp,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> (Span, Span) {
    match (truncation, from, to) {
        (Some(by), Some(from), Some(to)) => {
            (Span { from, to: before(to) }, Span { from, to: before(to.max(by.next(end))) })
        }
        _ => {
            let century = |time: Timestamp, by: i16| {
                let year = time.to_zoned(TimeZone::UTC).year().saturating_add(by).clamp(-4700, 9998);
                at_midnight(Date::new(year, 1, 1).expect("the year is in range"))
            };
            let (early, late) = (at_midnight(Date::constant(1900, 1, 1)), at_midnight(Date::constant(2200, 1, 1)));
            let from = if datetimes.from < early { century(datetimes.from, -100) } else { early };
            let last = datetimes.to.max(end);
            let to = if last > late { century(last, 100).max(last) } else { late };
            (Span { from, to }, Span { from, to })
        }
    }
}

/// The last moment that can be named, for what is later.
fn at_midnight(date: Date) -> Timestamp {
    date.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |midnight| midnight.timestamp())
}

impl Truncation {
    /// When the period begins that a time lies in, in UTC.
    fn start(self, time: Timestamp) -> Timestamp {
        let date = time.to_zoned(TimeZone::UTC).date();
        at_midnight(match self {
            Self::Year => date.first_of_year(),
            Self::Month => date.first_of_month(),
        })
    }

    /// When the next one begins.
    fn next(self, time: Timestamp) -> Timestamp {
        let start: DateTime = self.start(time).to_zoned(TimeZone::UTC).datetime();
        let next = match self {
            Self::Year => start.saturating_add(1.year()),
            Self::Month => start.saturating_add(1.month()),
        };
        at_midnight(next.date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_partition_lets_in_its_whole_period_and_ends_to_the_end_of_theirs() {
        let (from, to) = (time("2024-02-01T00:00:00Z"), time("2024-03-01T00:00:00Z"));
        let datetimes = Span { from: time("2024-02-10T00:00:00Z"), to: time("2024-02-11T00:00:00Z") };
        let of = |end: &str| bounds(Some(Truncation::Month), datetimes, time(end), Some(from), Some(to));
        let (whole, ends) = of("2024-02-11T00:00:00Z");
        assert_eq!(whole, Span { from, to: time("2024-02-29T23:59:59.999999Z") });
        assert_eq!(ends, whole);
        assert_eq!(of("2024-12-15T00:00:00Z").1.to, time("2024-12-31T23:59:59.999999Z"));
    }

    #[test]
    fn what_is_not_divided_lets_in_centuries() {
        let one = |text: &str| Span { from: time(text), to: time(text) };
        let of = |text: &str| bounds(None, one(text), time(text), None, None).0;
        assert_eq!(
            of("2024-01-01T00:00:00Z"),
            Span { from: time("1900-01-01T00:00:00Z"), to: time("2200-01-01T00:00:00Z") }
        );
        assert!(of("0050-01-01T00:00:00Z").has(time("0001-01-01T00:00:00Z")));
        assert!(of("9999-01-01T00:00:00Z").has(time("9999-01-01T00:00:00Z")));
    }

    #[test]
    fn periods_begin_in_utc() {
        let late = time("2024-01-31T23:30:00-02:00");
        assert_eq!(Truncation::Month.start(late), time("2024-02-01T00:00:00Z"));
        assert_eq!(Truncation::Year.start(late), time("2024-01-01T00:00:00Z"));
        assert_eq!(Truncation::Month.next(time("2024-12-31T00:00:00Z")), time("2025-01-01T00:00:00Z"));
    }

    #[test]
    fn only_a_layout_that_is_known_is_written() {
        assert_eq!(Layout::of("0.10.0", false), Layout::Known { format_cache: false });
        for version in ["0.9.12", "0.10.1", "0.11.0", "unreleased", "0.10.0-dev"] {
            assert_eq!(Layout::of(version, false), Layout::Other { version: version.into() });
        }
    }
}
