//! What is done once, or from time to time, by one process at a time: the schema, rights, partitions ahead of time,
//! extents, what waits too long, what is settled long ago.

use std::collections::BTreeMap;

use backon::Retryable;
use deadpool_postgres::{Object, Transaction};
use jiff::{SignedDuration, Timestamp};
use landfall_events::{Envelope, Routed};
use tokio_postgres::Client;
use tracing::{info, warn};

use super::fault::Fault;
use super::ledger::read_row;
use super::{PostgresCatalogue, lock_of};
use crate::catalogue::{CatalogueError, due_release};
use crate::pgstac::Item;

/// The steps of the schema, from the first: applied in order, each once.
const MIGRATIONS: &[(i32, &str)] = &[
    (2, include_str!("../migration-2.sql")),
    (3, include_str!("../migration-3.sql")),
    (4, include_str!("../migration-4.sql")),
];

/// The newest step, which `schema.sql` has from the start.
const NEWEST: i32 = 4;

/// How far before the last look changes are looked for again: a transaction's time is taken before it commits.
const OVERLAP: SignedDuration = SignedDuration::from_secs(300);

/// The most values of a summary that is a set.
const SUMMARY_VALUES_MAX: i64 = 1000;

/// Begins a transaction that changes the schema, while nobody else does.
async fn alone(client: &mut Object) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local statement_timeout = 0; set local lock_timeout = 0").await?;
    transaction.execute("select pg_advisory_xact_lock($1)", &[&lock_of("migrate", &[])]).await?;
    Ok(transaction)
}

async fn has(client: &Client, table: &str) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_one("select to_regclass($1) is not null", &[&table]).await?.get(0))
}

/// The version of the schema; 1 is the one that did not write it down.
async fn version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    if !has(client, "landfall.migrations").await? {
        return Ok(1);
    }
    Ok(client.query_one("select coalesce(max(version), 1) from landfall.migrations", &[]).await?.get(0))
}

/// How the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// PostgreSQL's version.
    pub postgres: String,
    /// The most connections that roles without privileges may have together.
    pub connections_max: u32,
    /// pgSTAC's version.
    pub pgstac: String,
    /// Whether items are written straight to its partitions; else through its functions, which is slower.
    pub is_known: bool,
    /// What the role that we are lacks.
    pub missing_rights: Vec<String>,
    /// The server's time.
    pub now: Timestamp,
}

impl PostgresCatalogue {
    /// Whether pgSTAC is there.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn has_pgstac(&self) -> Result<bool, CatalogueError> {
        Ok(has(&*self.client().await?, "pgstac.migrations").await?)
    }

    /// Says what [`Self::migrate`] would do, a line for each step; nothing where all is up to date.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn plan_of_migration(&self) -> Result<Vec<String>, CatalogueError> {
        let client = self.client().await?;
        if !has(&client, "landfall.ledger").await? {
            return Ok(vec![format!("create the schema landfall (version {NEWEST})")]);
        }
        let version = version(&client).await?;
        let step = |(step, sql): &(i32, &str)| {
            let title = sql.lines().next().unwrap_or_default().trim_start_matches("-- ");
            format!("bring the schema landfall from version {} to {step}: {title}", step - 1)
        };
        Ok(MIGRATIONS.iter().filter(|(step, _)| *step > version).map(step).collect())
    }

    /// Brings the ledger's schema up to date, once, whoever asks first. pgSTAC must be there already.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn migrate(&self) -> Result<(), CatalogueError> {
        let mut client = self.client().await?;
        let transaction = alone(&mut client).await?;
        let done = if has(transaction.client(), "landfall.ledger").await? {
            let before = version(transaction.client()).await?;
            let due: Vec<_> = MIGRATIONS.iter().filter(|(step, _)| *step > before).collect();
            for (_, sql) in &due {
                transaction.batch_execute(sql).await?;
            }
            due.into_iter().map(|(step, _)| *step).collect()
        } else {
            transaction.batch_execute(include_str!("../schema.sql")).await?;
            vec![NEWEST]
        };
        let sql = "insert into landfall.migrations (version) select unnest($1::int[])";
        transaction.execute(sql, &[&done]).await?;
        Ok(transaction.commit().await?)
    }

    /// Installs pgSTAC from its SQL where it is not there, and says whether it did.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn install_pgstac(&self, sql: &str) -> Result<bool, CatalogueError> {
        let mut client = self.client().await?;
        let transaction = alone(&mut client).await?;
        if has(transaction.client(), "pgstac.migrations").await? {
            return Ok(false);
        }
        transaction.batch_execute(sql).await?;
        transaction.commit().await?;
        // pgSTAC's SQL leaves the session in a role and with a search path of its own.
        drop(Object::take(client));
        Ok(true)
    }

    /// Gives a role what a worker needs and no more: pgSTAC's ingest role, and the ledger. The role must be there.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn grant(&self, role: &str) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        let role = crate::pgstac::quoted(role);
        let sql = format!(
            "grant pgstac_ingest to {role};
            grant usage on schema landfall to {role};
            grant select, insert, update, delete on landfall.ledger, landfall.collections, landfall.watermarks to {role};
            grant select on landfall.migrations to {role}"
        );
        Ok(client.batch_execute(&sql).await?)
    }

    /// Looks how the database is, without changing anything; [`Self::plan_of_migration`] first: the tables must be there.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn health(&self) -> Result<Health, CatalogueError> {
        let client = self.client().await?;
        // `reserved_connections` came with PostgreSQL 16.
        let general = "select pgstac.get_version(), clock_timestamp(), current_setting('server_version'),
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0)";
        let row = client.query_one(general, &[]).await?;
        let rights = "select format('%s on landfall.%s', privilege, name)
            from unnest(array['ledger', 'collections', 'watermarks']) name,
                unnest(array['select', 'insert', 'update', 'delete']) privilege
            where not has_table_privilege(format('landfall.%I', name), privilege)
            union all select 'the role pgstac_ingest' where not pg_has_role('pgstac_ingest', 'member')";
        let missing_rights = client.query(rights, &[]).await?.iter().map(|row| row.get(0)).collect();
        let pgstac: String = row.get(0);
        let is_known = crate::pgstac::is_known(&pgstac);
        let connections_max = u32::try_from(row.get::<_, i32>(3)).unwrap_or_default();
        Ok(Health { postgres: row.get(2), connections_max, pgstac, is_known, missing_rights, now: row.get(1) })
    }

    /// Does what is due, where no other process is at it; `None` where one is.
    /// Rows that are settled and announced longer than `keep` are forgotten, except what the catalogue holds.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn maintain(&self, now: Timestamp, keep: SignedDuration) -> Result<Option<Maintained>, CatalogueError> {
        let mut client = self.client().await?;
        let lock = lock_of("maintenance", &[]);
        let run = async {
            let leads: bool = client.query_one("select pg_try_advisory_lock($1)", &[&lock]).await?.get(0);
            if !leads {
                return Ok(None);
            }
            let done = self.maintain_alone(&mut client, now, keep).await;
            client.batch_execute("set statement_timeout = '60s'; set plan_cache_mode = force_generic_plan").await?;
            client.execute("select pg_advisory_unlock($1)", &[&lock]).await?;
            done.map(Some)
        };
        let result = run.await.map_err(CatalogueError::from);
        if result.is_err() {
            // The session may still lead: it is closed, so that another can.
            drop(Object::take(client));
        }
        result
    }

    async fn maintain_alone(
        &self,
        client: &mut Object,
        now: Timestamp,
        keep: SignedDuration,
    ) -> Result<Maintained, Fault> {
        // What is looked for here is few rows of many: the plan must know how few.
        client.batch_execute("set statement_timeout = 0; set plan_cache_mode = force_custom_plan").await?;
        let partitions = self.prepare_periods(client, now).await?;
        let queued = run_queued(client).await?;
        let extents = grow_extents(client, now).await?;
        let releases = due_releases(client, now).await?;
        let forgotten = forget_settled(client, now, keep).await?;
        Ok(Maintained { partitions, queued, extents, forgotten, releases })
    }

    /// Says what [`Self::maintain`] would do.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn due(&self, now: Timestamp, keep: SignedDuration) -> Result<Due, CatalogueError> {
        let client = self.client().await?;
        let queued = queue_length(&client).await?;
        let releases = due_releases(&client, now).await?.len();
        let sql = format!("select count(*) from landfall.ledger where {SETTLED}");
        let forgotten = client.query_one(&sql, &[&earlier(now, keep)]).await?.get(0);
        Ok(Due { queued, releases, forgotten })
    }

    /// Makes the partitions of this period and the next, of the collections that are being filled.
    async fn prepare_periods(&self, client: &mut Object, now: Timestamp) -> Result<usize, Fault> {
        let sql = "select c.id from pgstac.collections c where c.partition_trunc is not null and exists (
            select from pgstac.partition_stats s where s.collection = c.id
            and upper(s.partition_dtrange) > $1::timestamptz - ('1 ' || c.partition_trunc)::interval)";
        let count = "select count(*) from pgstac.partition_stats";
        let before: i64 = client.query_one(count, &[]).await?.get(0);
        // How a collection is divided may have changed.
        self.pgstac.forget();
        for row in client.query(sql, &[&now]).await? {
            self.pgstac.prepare_periods(client, row.get(0), now).await?;
        }
        let after: i64 = client.query_one(count, &[]).await?.get(0);
        Ok(usize::try_from(after - before).unwrap_or(0))
    }

    /// Widens a collection's extent to what was loaded without the ledger.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn widen(&self, extents: &Extents) -> Result<usize, CatalogueError> {
        let once = async || {
            let client = self.client().await?;
            let mut grown = 0;
            for (collection, extent) in &extents.0 {
                grown += usize::from(grow(&client, collection, extent).await?);
            }
            Ok(grown)
        };
        let again = (|| self.guarded(once())).retry(super::backoff()).when(Fault::is_passing);
        Ok(again.await?)
    }
}

/// What maintenance would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Statements in pgSTAC's queue.
    pub queued: i64,
    /// Collections whose waiters may go on, or have waited too long.
    pub releases: usize,
    /// Rows of the ledger that were settled long ago.
    pub forgotten: i64,
}

/// What maintenance has done.
#[derive(Debug, Clone, Default)]
pub struct Maintained {
    /// Partitions that were made ahead of their time.
    pub partitions: usize,
    /// Statements of pgSTAC's queue that were run; `None` where we have no right to.
    pub queued: Option<usize>,
    /// Collections whose extent or summaries have grown.
    pub extents: usize,
    /// Rows of the ledger that were settled long ago, and are forgotten.
    pub forgotten: u64,
    /// To be sent to load: for collections that are there, or whose waiters' time is over.
    pub releases: Vec<Envelope<Routed>>,
}

/// The number of statements that pgSTAC has put off.
async fn queue_length(client: &Client) -> Result<i64, tokio_postgres::Error> {
    Ok(client.query_one("select count(*) from pgstac.query_queue", &[]).await?.get(0))
}

/// Runs what pgSTAC has put off, constraints for example.
async fn run_queued(client: &Client) -> Result<Option<usize>, Fault> {
    let waiting = queue_length(client).await?;
    let may = "select pg_has_role(current_user, 'pgstac_admin', 'member')";
    if !client.query_one(may, &[]).await?.get::<_, bool>(0) {
        if waiting > 0 {
            warn!(
                waiting,
                "statements wait in pgSTAC's queue, and this role may not run them: grant it pgstac_admin, or let pg_cron run `CALL pgstac.run_queued_queries()`"
            );
        }
        return Ok(None);
    }
    client.batch_execute("call pgstac.run_queued_queries()").await?;
    Ok(Some(usize::try_from(waiting).unwrap_or(0)))
}

/// The space and time that items cover, by collection.
#[derive(Debug, Clone, Default)]
pub struct Extents(BTreeMap<String, Extent>);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent {
    bbox: [f64; 4],
    from: Timestamp,
    to: Timestamp,
}

impl Extents {
    /// Takes an item in.
    pub fn add(&mut self, item: &Item) {
        let new = Extent { bbox: item.bbox(), from: item.datetime, to: item.end_datetime };
        match self.0.get_mut(&item.collection) {
            None => {
                self.0.insert(item.collection.clone(), new);
            }
            Some(known) => *known = known.with(&new),
        }
    }

    /// Takes others in.
    pub fn extend(&mut self, others: &Self) {
        for (collection, extent) in &others.0 {
            self.0.entry(collection.clone()).and_modify(|known| *known = known.with(extent)).or_insert(*extent);
        }
    }
}

impl Extent {
    fn with(&self, other: &Self) -> Self {
        let (a, b) = (self.bbox, other.bbox);
        Self {
            bbox: [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])],
            from: self.from.min(other.from),
            to: self.to.max(other.to),
        }
    }
}

/// Widens extents and summaries to the items that have changed since the last time. They never shrink: what a
/// provider states is kept.
async fn grow_extents(client: &mut Object, now: Timestamp) -> Result<usize, Fault> {
    let sql = "select at from landfall.watermarks where name = 'extents'";
    let since: Option<Timestamp> = client.query_opt(sql, &[]).await?.map(|row| row.get(0));
    let since = since.map_or(Timestamp::UNIX_EPOCH, |since| earlier(since, OVERLAP));
    // A collection that was written anew has lost what it had grown: all its items are looked at.
    let sql = "create temp table if not exists landfall_changed (collection text, item text);
        truncate landfall_changed";
    client.batch_execute(sql).await?;
    let sql = "with anew as (select collection from landfall.ledger
            where updated > $1 and kind = 'collection' and state = 'loaded')
        insert into landfall_changed
        select collection, item from landfall.ledger l where kind = 'item' and state = 'loaded' and updated > $1
            and not exists (select from anew where anew.collection = l.collection)
        union all select collection, id from pgstac.items i
            where exists (select from anew where anew.collection = i.collection)";
    client.execute(sql, &[&since]).await?;
    client.batch_execute("analyze landfall_changed").await?;
    let sql = "select i.collection, st_xmin(st_extent(i.geometry)), st_ymin(st_extent(i.geometry)),
            st_xmax(st_extent(i.geometry)), st_ymax(st_extent(i.geometry)), min(i.datetime), max(i.end_datetime)
        from landfall_changed c join pgstac.items i on i.collection = c.collection and i.id = c.item
        group by i.collection";
    let mut grown = 0;
    for row in client.query(sql, &[]).await? {
        let bbox = [row.get(1), row.get(2), row.get(3), row.get(4)];
        let extent = Extent { bbox, from: row.get(5), to: row.get(6) };
        let collection: &str = row.get(0);
        let wider = grow(client, collection, &extent).await?;
        grown += usize::from(grow_summaries(client, collection).await? || wider);
    }
    let sql = "insert into landfall.watermarks (name, at) values ('extents', $1)
        on conflict (name) do update set at = excluded.at";
    client.execute(sql, &[&now]).await?;
    client.batch_execute("truncate landfall_changed").await?;
    Ok(grown)
}

/// Widens one collection's extent, where it does not cover what its items do; says whether it did.
///
/// A box that crosses the antimeridian is left as it is; an open end of time stays open.
async fn grow(client: &Client, collection: &str, extent: &Extent) -> Result<bool, tokio_postgres::Error> {
    let sql = "with stated as (
            select id, content, content #> '{extent,spatial,bbox,0}' as box, content #> '{extent,temporal,interval,0}' as span
            from pgstac.collections where id = $1 for update),
        wide as (select id, content,
            case when jsonb_typeof(box) = 'array' and jsonb_array_length(box) in (4, 6)
                and (box->>0)::float8 <= (box->>(jsonb_array_length(box) / 2))::float8 then
                (select jsonb_agg(case
                    when n = 1 then to_jsonb(least((value #>> '{}')::float8, $2))
                    when n = 2 then to_jsonb(least((value #>> '{}')::float8, $3))
                    when n = half + 1 then to_jsonb(greatest((value #>> '{}')::float8, $4))
                    when n = half + 2 then to_jsonb(greatest((value #>> '{}')::float8, $5))
                    else value end order by n)
                from jsonb_array_elements(box) with ordinality e(value, n), lateral (select jsonb_array_length(box) / 2 as half) h)
            when box is null then jsonb_build_array($2, $3, $4, $5) else box end as box,
            case when jsonb_typeof(span) = 'array' and jsonb_array_length(span) = 2 then jsonb_build_array(
                case when span->>0 is null or (span->>0)::timestamptz <= $6 then span->0 else to_jsonb($8::text) end,
                case when span->>1 is null or (span->>1)::timestamptz >= $7 then span->1 else to_jsonb($9::text) end)
            when span is null then jsonb_build_array($8::text, $9::text) else span end as span
            from stated)
        update pgstac.collections c set content = wide.content || jsonb_build_object('extent',
                coalesce(wide.content->'extent', '{}') || jsonb_build_object(
                'spatial', jsonb_build_object('bbox', jsonb_build_array(wide.box)
                    || coalesce(wide.content #> '{extent,spatial,bbox}' #- '{0}', '[]')),
                'temporal', jsonb_build_object('interval', jsonb_build_array(wide.span)
                    || coalesce(wide.content #> '{extent,temporal,interval}' #- '{0}', '[]'))))
        from wide where c.id = wide.id
            and (wide.box is distinct from wide.content #> '{extent,spatial,bbox,0}'
                or wide.span is distinct from wide.content #> '{extent,temporal,interval,0}')";
    let [west, south, east, north] = extent.bbox;
    let (from, to) = (extent.from.to_string(), extent.to.to_string());
    let grown =
        client.execute(sql, &[&collection, &west, &south, &east, &north, &extent.from, &extent.to, &from, &to]).await?;
    if grown > 0 {
        info!(collection, "the collection's extent is widened to its items");
    }
    Ok(grown > 0)
}

/// Widens the summaries that a collection states, ranges and sets, to the changed items; says whether it did.
async fn grow_summaries(client: &Client, collection: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "with stated as (
            select s.key, s.value from pgstac.collections c, jsonb_each(
                case when jsonb_typeof(c.content->'summaries') = 'object' then c.content->'summaries' else '{}' end) s
            where c.id = $1 and (s.value ?& '{minimum,maximum}' or jsonb_typeof(s.value) = 'array')),
        seen as (
            select distinct s.key, e.value from landfall_changed n
            join pgstac.items i on i.collection = n.collection and i.id = n.item
            cross join stated s
            cross join lateral jsonb_array_elements(case jsonb_typeof(i.content->'properties'->s.key)
                when 'array' then i.content->'properties'->s.key
                else jsonb_build_array(i.content->'properties'->s.key) end) e
            where n.collection = $1 and i.content->'properties' ? s.key and e.value <> 'null'),
        wide as (select s.key, s.value as before, case jsonb_typeof(s.value)
            when 'object' then s.value || jsonb_build_object(
                'minimum', (select v.value from (select value from seen where seen.key = s.key
                    and jsonb_typeof(seen.value) = jsonb_typeof(s.value->'minimum') union all select s.value->'minimum') v
                    order by v.value limit 1),
                'maximum', (select v.value from (select value from seen where seen.key = s.key
                    and jsonb_typeof(seen.value) = jsonb_typeof(s.value->'maximum') union all select s.value->'maximum') v
                    order by v.value desc limit 1))
            else s.value || coalesce((select jsonb_agg(v.value) from (select seen.value from seen where seen.key = s.key
                and not s.value @> jsonb_build_array(seen.value) order by seen.value
                limit greatest(0, $2::int8 - jsonb_array_length(s.value))) v), '[]') end as after
            from stated s),
        grown as (select jsonb_object_agg(key, after) as summaries from wide where after <> before)
        update pgstac.collections c set content = jsonb_set(c.content, '{summaries}', c.content->'summaries' || grown.summaries)
        from grown where c.id = $1 and grown.summaries is not null";
    Ok(client.execute(sql, &[&collection, &SUMMARY_VALUES_MAX]).await? > 0)
}

/// Says of which collections the waiters may go on, or have waited too long.
async fn due_releases(client: &Client, now: Timestamp) -> Result<Vec<Envelope<Routed>>, Fault> {
    let sql = "select distinct on (l.collection) l.* from landfall.ledger l
        where l.state = 'parked' and (l.until <= $1 or exists (select from pgstac.collections c where c.id = l.collection))
        order by l.collection, l.until";
    let rows = client.query(sql, &[&now]).await?;
    Ok(rows.iter().filter_map(read_row).filter_map(|row| due_release(&row, now)).collect())
}

/// Forgets what is settled and announced for long: late events do not come after weeks. What the catalogue holds is
/// kept, and what waits, and what is refused and not announced.
async fn forget_settled(client: &Client, now: Timestamp, keep: SignedDuration) -> Result<u64, Fault> {
    let before = earlier(now, keep);
    let sql = format!(
        "delete from landfall.ledger where ctid = any(array(
            select ctid from landfall.ledger where {SETTLED} order by updated limit 5000))"
    );
    let mut forgotten = 0;
    loop {
        let deleted = client.execute(&sql, &[&before]).await?;
        forgotten += deleted;
        if deleted == 0 {
            return Ok(forgotten);
        }
    }
}

/// What the ledger may forget. What another key's document has outdone comes back when that one goes: it stays.
const SETTLED: &str =
    "updated < $1 and (state in ('removed', 'ignored') or state = 'superseded' and destination is null
    or state in ('refused', 'routed') and announced is not null)";

fn earlier(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}
