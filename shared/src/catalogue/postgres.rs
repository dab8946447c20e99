//! The catalogue in PostgreSQL: pgSTAC's functions and the `landfall` schema, in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts, Transaction};
use jiff::Timestamp;
use landfall_events::report::Effect;
use landfall_events::{Cause, Change, Envelope, Event, EventId, ObjectRef, Position, Report, Routed, Sequencer};
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, Row as SqlRow};

use super::plan::subject_of;
use super::{Applied, Catalogue, CatalogueError, Load, Row, Standing, State, Subject, View, plan};

/// pgSTAC with the ledger, over a pool of connections.
#[derive(Clone)]
pub struct PostgresCatalogue {
    pool: Pool,
}

/// Settings of every session: pgSTAC's names are found, and no statement, lock or forgotten transaction
/// holds the others up for long.
const SESSION: &str = "-c search_path=pgstac,public -c pgstac.use_queue=true -c lock_timeout=10s \
    -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s -c application_name=landfall";

impl PostgresCatalogue {
    /// Prepares a pool of at most `connections_max`; connects when it is first used.
    ///
    /// # Errors
    /// [`CatalogueError::Unusable`] where the URL cannot be understood.
    pub fn new(url: &str, connections_max: usize) -> Result<Self, CatalogueError> {
        let unusable = |error: &dyn std::error::Error| CatalogueError::Unusable(error.to_string());
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| unusable(&error))?;
        config
            .options(SESSION)
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(20))
            .keepalives_idle(Duration::from_secs(30));
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, NoTls, manager))
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(Duration::from_secs(30)),
                create: Some(Duration::from_secs(10)),
                recycle: None,
            })
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(Self { pool })
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, CatalogueError> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => Fault::of(&error).into(),
            other @ (deadpool_postgres::PoolError::Timeout(_)
            | deadpool_postgres::PoolError::Closed
            | deadpool_postgres::PoolError::NoRuntimeSpecified
            | deadpool_postgres::PoolError::PostCreateHook(_)) => CatalogueError::Unavailable(other.to_string()),
        })
    }

    async fn apply_once(&self, loads: &[Load], park_until: Timestamp) -> Result<Vec<Applied>, Fault> {
        let mut client = self.client().await.map_err(Fault::Passed)?;
        let transaction = client.transaction().await?;
        lock(&transaction, loads).await?;
        let mut view = View::default();
        let causes = loads.iter().map(|load| load.envelope.event.cause());
        fetch_rows(&transaction, &mut view, causes.clone()).await?;
        lock_removed(&transaction, &view, loads).await?;
        fetch_rivals(&transaction, &mut view, loads).await?;
        fetch_newest(&transaction, &mut view, causes).await?;
        fetch_collections(&transaction, &mut view, loads).await?;
        fetch_items(&transaction, &mut view, loads).await?;

        let mut applied = plan(&mut view, loads, park_until);

        write_rows(&transaction, &view).await?;
        write_collections(&transaction, &view).await?;
        write_items(&transaction, &view).await?;
        mark_releases(&transaction, loads, &mut applied).await?;
        transaction.commit().await?;
        Ok(applied)
    }

    async fn record_once(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Standing>, Fault> {
        let mut client = self.client().await.map_err(Fault::Passed)?;
        let transaction = client.transaction().await?;
        let causes = reports.iter().map(|report| report.event.cause());
        let keys: BTreeSet<_> =
            causes.clone().map(|cause| (lock_of("key", &[&cause.object.bucket, &cause.object.key]), true)).collect();
        take_locks(&transaction, keys).await?;
        let mut view = View::default();
        fetch_rows(&transaction, &mut view, causes.clone()).await?;
        fetch_subjects(&transaction, &mut view, reports).await?;
        fetch_newest(&transaction, &mut view, causes).await?;
        let standings = super::plan::record(&mut view, reports, released_by);
        write_rows(&transaction, &view).await?;
        transaction.commit().await?;
        Ok(standings)
    }

    /// Reads ledger rows for `landfall status`, newest first, at most `most` of them.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn rows(&self, filter: &RowFilter, most: i64) -> Result<Vec<LedgerRow>, CatalogueError> {
        let client = self.client().await?;
        let sql = "select l.*, exists (select from landfall.ledger n where n.bucket = l.bucket and n.key = l.key
                and coalesce(n.sequencer > l.sequencer, n.event_time > l.event_time)) as outdated
            from landfall.ledger l
            where ($1::text is null or l.bucket = $1) and ($2::text is null or starts_with(l.key, $2))
              and ($3::text is null or l.collection = $3) and ($4::timestamptz is null or l.updated >= $4)
              and ($5::text is null or l.provider = $5)
            order by l.updated desc, l.bucket, l.key, l.subject limit $6";
        let since = filter.since;
        let rows = client
            .query(sql, &[&filter.bucket, &filter.prefix, &filter.collection, &since, &filter.provider, &most])
            .await
            .map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        let read = |sql: &SqlRow| {
            let row = read_row(sql)?;
            Some(LedgerRow { row, updated: sql.get("updated"), outdated: sql.get("outdated") })
        };
        Ok(rows.iter().filter_map(read).collect())
    }
}

impl PostgresCatalogue {
    /// Of the keys of a bucket, those that the ledger knows, each with the etags that it knows of it.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn known(&self, bucket: &str, keys: &[&str]) -> Result<BTreeSet<(String, String)>, CatalogueError> {
        let client = self.client().await?;
        let sql = "select distinct key, coalesce(etag, '') from landfall.ledger where bucket = $1 and key = any($2)";
        let rows =
            client.query(sql, &[&bucket, &keys]).await.map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
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
}

#[async_trait]
impl Catalogue for PostgresCatalogue {
    async fn apply(&self, loads: &[Load], park_until: Timestamp) -> Result<Vec<Applied>, CatalogueError> {
        let again = (|| self.apply_once(loads, park_until)).retry(backoff()).when(Fault::is_race);
        Ok(again.await?)
    }

    async fn releasable(
        &self,
        id: &EventId,
        collection: &str,
        most: usize,
    ) -> Result<Vec<Envelope<Routed>>, CatalogueError> {
        let client = self.client().await?;
        let query = async {
            let mine = "select parked from landfall.ledger where released_by = $1 and parked is not null order by bucket, key, subject";
            let rows = client.query(mine, &[&id.0]).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            let ready =
                "select parked from landfall.ledger where collection = $1 and state = 'ready' and parked is not null
                order by bucket, key, subject limit $2";
            client.query(ready, &[&collection, &i64::try_from(most).unwrap_or(i64::MAX)]).await
        };
        let rows = query.await.map_err(|error: tokio_postgres::Error| CatalogueError::from(Fault::of(&error)))?;
        let read = |row: &SqlRow| Envelope::from_json(row.get(0));
        let envelopes: Result<Vec<_>, _> = rows.iter().map(read).collect();
        envelopes.map_err(|error| CatalogueError::Unusable(format!("a parked event is not readable: {error}")))
    }

    async fn record(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Standing>, CatalogueError> {
        let again = (|| self.record_once(reports, released_by)).retry(backoff()).when(Fault::is_race);
        Ok(again.await?)
    }

    async fn announced(&self, events: &[EventId]) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        let ids: Vec<&str> = events.iter().map(|id| id.0.as_str()).collect();
        let sql = "update landfall.ledger set announced = coalesce(announced, now()), parked = null, updated = now()
            where event = any($1) and (announced is null or parked is not null)";
        client.execute(sql, &[&ids]).await.map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        Ok(())
    }

    async fn clearing(&self, events: &[EventId]) -> Result<Vec<EventId>, CatalogueError> {
        let client = self.client().await?;
        let ids: Vec<&str> = events.iter().map(|id| id.0.as_str()).collect();
        let sql = "update landfall.ledger set cleared = coalesce(cleared, now())
            where event = any($1) and state in ('loaded', 'routed') and announced is not null returning event";
        let rows = client.query(sql, &[&ids]).await.map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        Ok(rows.iter().map(|row| EventId(row.get(0))).collect())
    }

    async fn not_cleared(&self, event: &EventId) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        let sql = "update landfall.ledger set cleared = null where event = $1";
        client.execute(sql, &[&event.0]).await.map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        Ok(())
    }

    async fn ready(&self) -> Result<(), CatalogueError> {
        let client = self.client().await?;
        client.simple_query("select 1").await.map_err(|error| CatalogueError::from(Fault::of(&error)))?;
        Ok(())
    }
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .with_max_times(8)
        .with_jitter()
}

/// What a ledger of an earlier release lacks.
const SINCE: &str = "alter table landfall.ledger add column if not exists cleared timestamptz";

/// Brings the ledger's schema up to date, once, whoever asks first. pgSTAC must be there already.
///
/// # Errors
/// [`CatalogueError`].
pub async fn migrate(url: &str) -> Result<(), CatalogueError> {
    let catalogue = PostgresCatalogue::new(url, 1)?;
    let mut client = catalogue.client().await?;
    let run = async {
        let transaction = client.transaction().await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&lock_of("migrate", &[])]).await?;
        let there: bool = transaction.query_one("select to_regclass('landfall.ledger') is not null", &[]).await?.get(0);
        if !there {
            transaction.batch_execute(include_str!("schema.sql")).await?;
        }
        transaction.batch_execute(SINCE).await?;
        transaction.commit().await
    };
    run.await.map_err(|error: tokio_postgres::Error| Fault::of(&error).into())
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

/// Takes the locks of a batch: on its collections (shared by items, exclusive for their creation), then on every
/// landed key and item, always in one order.
async fn lock(transaction: &Transaction<'_>, loads: &[Load]) -> Result<(), Fault> {
    let mut collections = BTreeMap::new();
    let mut rest = BTreeSet::new();
    for load in loads {
        let cause = load.envelope.event.cause();
        rest.insert((lock_of("key", &[&cause.object.bucket, &cause.object.key]), true));
        match &load.envelope.event {
            Routed::Item(routed) => {
                collections.entry(lock_of("collection", &[&routed.collection])).or_insert(false);
                rest.insert((lock_of("item", &[&routed.collection, &routed.item]), true));
            }
            Routed::Collection(routed) => {
                collections.insert(lock_of("collection", &[&routed.collection]), true);
            }
            Routed::Removed(_) | Routed::Released(_) => {}
        }
    }
    take_locks(transaction, collections).await?;
    take_locks(transaction, rest).await
}

/// A removal names its key only: the items that it may take along are known when the key's rows are.
async fn lock_removed(transaction: &Transaction<'_>, view: &View, loads: &[Load]) -> Result<(), Fault> {
    let is_removed = |object: &ObjectRef| {
        loads
            .iter()
            .any(|load| matches!(&load.envelope.event, Routed::Removed(removed) if removed.cause.object == *object))
    };
    let subjects = view.rows.keys().filter(|(object, _)| is_removed(object)).map(|(_, subject)| subject);
    let lock = |subject: &Subject| Some((lock_of("item", &[subject.collection()?, subject.item()?]), true));
    take_locks(transaction, subjects.filter_map(lock).collect::<BTreeSet<_>>()).await
}

async fn take_locks(transaction: &Transaction<'_>, locks: impl IntoIterator<Item = (i64, bool)>) -> Result<(), Fault> {
    let (keys, exclusive): (Vec<_>, Vec<_>) = locks.into_iter().unzip();
    let sql = "select count(case when exclusive then pg_advisory_xact_lock(key)::text
            else pg_advisory_xact_lock_shared(key)::text end)
        from unnest($1::bigint[], $2::boolean[]) as lock(key, exclusive)";
    transaction.query_one(sql, &[&keys, &exclusive]).await?;
    Ok(())
}

/// The database holds no U+0000; a key that has one is kept with a sign in its place.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn member_number(member: Option<u32>) -> i32 {
    member.map_or(0, |member| i32::try_from(member).unwrap_or(i32::MAX))
}

/// Fetches what is known of the landed members of a batch, and of whole objects that are removed.
async fn fetch_rows<'a>(
    transaction: &Transaction<'_>,
    view: &mut View,
    causes: impl Iterator<Item = &'a Cause>,
) -> Result<(), Fault> {
    let (mut buckets, mut keys, mut members) = (vec![], vec![], vec![]);
    for cause in causes {
        buckets.push(storable(&cause.object.bucket));
        keys.push(storable(&cause.object.key));
        members.push(if cause.change == Change::Removed { -1 } else { member_number(cause.member) });
    }
    let sql = "select distinct l.* from landfall.ledger l
        join unnest($1::text[], $2::text[], $3::int[]) as c(bucket, key, member)
          on l.bucket = c.bucket and l.key = c.key
            and (c.member = -1 or l.member = c.member or (l.member = 0 and l.kind = 'object'))";
    keep_rows(view, &transaction.query(sql, &[&buckets, &keys, &members]).await?);
    Ok(())
}

/// Fetches what other keys say about the items and collections of a batch, and about the items of removed objects.
async fn fetch_rivals(transaction: &Transaction<'_>, view: &mut View, loads: &[Load]) -> Result<(), Fault> {
    let mut pairs = BTreeSet::new();
    for load in loads {
        match &load.envelope.event {
            Routed::Item(routed) => pairs.insert((storable(&routed.collection), storable(&routed.item))),
            Routed::Collection(routed) => pairs.insert((storable(&routed.collection), String::new())),
            Routed::Removed(_) | Routed::Released(_) => false,
        };
    }
    for (_, subject) in view.rows.keys() {
        if let Some(collection) = subject.collection() {
            pairs.insert((collection.to_owned(), subject.item().unwrap_or_default().to_owned()));
        }
    }
    let (collections, items): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let sql = "select l.* from landfall.ledger l join unnest($1::text[], $2::text[]) as s(collection, item)
          on l.collection = s.collection and l.item = s.item where l.kind <> 'object'";
    keep_rows(view, &transaction.query(sql, &[&collections, &items]).await?);
    Ok(())
}

/// Fetches the rows that reports name by their subject: of an item that is another member now, for example.
async fn fetch_subjects(
    transaction: &Transaction<'_>,
    view: &mut View,
    reports: &[Envelope<Report>],
) -> Result<(), Fault> {
    let (mut buckets, mut keys, mut subjects) = (vec![], vec![], vec![]);
    for report in reports {
        let object = &report.event.cause().object;
        buckets.push(storable(&object.bucket));
        keys.push(storable(&object.key));
        subjects.push(storable(&subject_of(&report.event).to_string()));
    }
    let sql = "select l.* from landfall.ledger l
        join unnest($1::text[], $2::text[], $3::text[]) as s(bucket, key, subject)
          on l.bucket = s.bucket and l.key = s.key and l.subject = s.subject";
    keep_rows(view, &transaction.query(sql, &[&buckets, &keys, &subjects]).await?);
    Ok(())
}

async fn fetch_newest<'a>(
    transaction: &Transaction<'_>,
    view: &mut View,
    causes: impl Iterator<Item = &'a Cause>,
) -> Result<(), Fault> {
    let objects: BTreeSet<_> = causes.map(|cause| &cause.object).collect();
    let (buckets, keys): (Vec<_>, Vec<_>) =
        objects.into_iter().map(|object| (storable(&object.bucket), storable(&object.key))).unzip();
    let sql = "select o.bucket, o.key, l.sequencer, l.event_time, l.redrive
        from unnest($1::text[], $2::text[]) as o(bucket, key)
        cross join lateral (select * from landfall.ledger l where l.bucket = o.bucket and l.key = o.key
            order by l.sequencer desc nulls last, l.event_time desc, l.redrive desc limit 1) l";
    for row in transaction.query(sql, &[&buckets, &keys]).await? {
        let object = ObjectRef::new(row.get::<_, String>(0), row.get::<_, String>(1));
        view.newest.insert(object, position(&row));
    }
    Ok(())
}

fn position(row: &SqlRow) -> Position {
    let sequencer: Option<String> = row.get("sequencer");
    Position {
        sequencer: sequencer.and_then(|text| Sequencer::try_from(text).ok()),
        event_time: row.get("event_time"),
        redrive: number(row.get("redrive")),
    }
}

fn number(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

async fn fetch_collections(transaction: &Transaction<'_>, view: &mut View, loads: &[Load]) -> Result<(), Fault> {
    let ids: BTreeSet<_> = loads
        .iter()
        .filter_map(|load| match &load.envelope.event {
            Routed::Item(routed) => Some(storable(&routed.collection)),
            Routed::Collection(routed) => Some(storable(&routed.collection)),
            Routed::Removed(_) | Routed::Released(_) => None,
        })
        .collect();
    let sql = "select c.id, o.provider from pgstac.collections c
        left join landfall.collections o on o.collection = c.id where c.id = any($1)";
    let rows = transaction.query(sql, &[&ids.into_iter().collect::<Vec<_>>()]).await?;
    view.collections = rows.iter().map(|row| (row.get(0), row.get(1))).collect::<HashMap<_, _>>();
    Ok(())
}

async fn fetch_items(transaction: &Transaction<'_>, view: &mut View, loads: &[Load]) -> Result<(), Fault> {
    let named = loads.iter().filter_map(|load| match &load.envelope.event {
        Routed::Item(routed) => Some((storable(&routed.collection), storable(&routed.item))),
        Routed::Collection(_) | Routed::Removed(_) | Routed::Released(_) => None,
    });
    let (collections, ids): (Vec<_>, Vec<_>) = named.unzip();
    let sql = "select i.collection, i.id from pgstac.items i
        join unnest($1::text[], $2::text[]) as s(collection, id) on i.collection = s.collection and i.id = s.id";
    let rows = transaction.query(sql, &[&collections, &ids]).await?;
    view.items = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(())
}

fn keep_rows(view: &mut View, rows: &[SqlRow]) {
    for row in rows.iter().filter_map(read_row) {
        view.rows.insert((row.cause.object.clone(), row.subject.clone()), row);
    }
}

/// Reads a row; `None` where a newer release has written words that this one does not know.
fn read_row(sql: &SqlRow) -> Option<Row> {
    let member = Some(number(sql.get("member"))).filter(|member| *member > 0);
    let (collection, item): (String, String) = (sql.get("collection"), sql.get("item"));
    let subject = match sql.get::<_, &str>("kind") {
        "item" => Subject::Item { collection, item },
        "collection" => Subject::Collection { collection },
        _ => Subject::Object { member },
    };
    let change = if sql.get::<_, &str>("change") == "removed" { Change::Removed } else { Change::Created };
    let effect = sql.get::<_, Option<&str>>("effect").and_then(|word| {
        [Effect::Created, Effect::Replaced, Effect::Deleted].into_iter().find(|effect| effect.as_str() == word)
    });
    let json = |column: &str| sql.get::<_, Option<serde_json::Value>>(column).unwrap_or_default();
    let position = position(sql);
    Some(Row {
        cause: Cause {
            object: ObjectRef::new(sql.get::<_, String>("bucket"), sql.get::<_, String>("key")),
            change,
            version_id: sql.get("version_id"),
            etag: sql.get("etag"),
            size: sql.get::<_, Option<i64>>("size").and_then(|size| u64::try_from(size).ok()),
            sequencer: position.sequencer,
            event_time: position.event_time,
            member,
        },
        subject,
        provider: sql.get("provider"),
        redrive: position.redrive,
        state: State::read(sql.get("state"))?,
        effect,
        event: EventId(sql.get("event")),
        announced: sql.get("announced"),
        stage: sql.get("stage"),
        code: sql.get("code"),
        reason: sql.get("reason"),
        problems: serde_json::from_value(json("problems")).unwrap_or_default(),
        waits_for: serde_json::from_value(json("waits_for")).unwrap_or_default(),
        until: sql.get("until"),
        destination: sql.get("destination"),
        parked: sql.get("parked"),
        released_by: sql.get::<_, Option<String>>("released_by").map(EventId),
        cleared: sql.get("cleared"),
    })
}

/// The columns that a row sets, in the order of the insert.
const COLUMNS: &str = "bucket, key, subject, kind, collection, item, member, change, version_id, etag, size, \
    sequencer, event_time, provider, redrive, state, effect, event, announced, stage, code, reason, problems, \
    waits_for, until, destination, parked, released_by, updated, cleared";

async fn write_rows(transaction: &Transaction<'_>, view: &View) -> Result<(), Fault> {
    for (object, subject) in &view.dropped {
        let sql = "delete from landfall.ledger where bucket = $1 and key = $2 and subject = $3";
        let key = [storable(&object.bucket), storable(&object.key), storable(&subject.to_string())];
        transaction.execute(sql, &[&key[0], &key[1], &key[2]]).await?;
    }
    if view.dirty.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let rows: Vec<_> = view.dirty.iter().filter_map(|key| view.rows.get(key)).map(|row| row_json(row, now)).collect();
    let excluded = COLUMNS.split(", ").map(|column| format!("excluded.{column}")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "insert into landfall.ledger ({COLUMNS})
         select {COLUMNS} from jsonb_populate_recordset(null::landfall.ledger, $1)
         on conflict (bucket, key, subject) do update set ({COLUMNS}) = ({excluded})"
    );
    transaction.execute(&sql, &[&serde_json::Value::Array(rows)]).await?;
    Ok(())
}

fn row_json(row: &Row, now: Timestamp) -> serde_json::Value {
    let kind = match &row.subject {
        Subject::Item { .. } => "item",
        Subject::Collection { .. } => "collection",
        Subject::Object { .. } => "object",
    };
    let clean = |text: &Option<String>| text.as_deref().map(storable);
    serde_json::json!({
        "bucket": storable(&row.cause.object.bucket),
        "key": storable(&row.cause.object.key),
        "subject": storable(&row.subject.to_string()),
        "kind": kind,
        "collection": storable(row.subject.collection().unwrap_or_default()),
        "item": storable(row.subject.item().unwrap_or_default()),
        "member": member_number(row.cause.member),
        "change": if row.cause.change == Change::Removed { "removed" } else { "created" },
        "version_id": row.cause.version_id,
        "etag": row.cause.etag,
        "size": row.cause.size,
        "sequencer": row.cause.sequencer.as_ref().map(Sequencer::padded),
        "event_time": row.cause.event_time,
        "provider": storable(&row.provider),
        "redrive": row.redrive,
        "state": row.state.as_str(),
        "effect": row.effect.map(Effect::as_str),
        "event": row.event.0,
        "cleared": row.cleared,
        "announced": row.announced,
        "stage": row.stage,
        "code": clean(&row.code),
        "reason": clean(&row.reason),
        "problems": problems_json(row),
        "waits_for": row.waits_for.iter().map(|text| storable(text)).collect::<Vec<_>>(),
        "until": row.until,
        "destination": clean(&row.destination),
        "parked": row.parked,
        "released_by": row.released_by.as_ref().map(|id| &id.0),
        "updated": now,
    })
}

fn problems_json(row: &Row) -> serde_json::Value {
    let text = serde_json::to_string(&row.problems).unwrap_or_default();
    // In JSON text the character is escaped.
    serde_json::from_str(&text.replace("\\u0000", "\u{FFFD}")).unwrap_or_default()
}

async fn write_collections(transaction: &Transaction<'_>, view: &View) -> Result<(), Fault> {
    for (collection, document) in &view.collection_writes {
        transaction.execute("select pgstac.upsert_collection($1::text::jsonb)", &[document]).await?;
        let owner = view.collections.get(collection).cloned().flatten().unwrap_or_default();
        let sql = "insert into landfall.collections (collection, provider) values ($1, $2)
            on conflict (collection) do update set provider = excluded.provider";
        transaction.execute(sql, &[collection, &owner]).await?;
        let sql =
            "update landfall.ledger set state = 'ready', updated = now() where collection = $1 and state = 'parked'";
        transaction.execute(sql, &[collection]).await?;
    }
    Ok(())
}

async fn write_items(transaction: &Transaction<'_>, view: &View) -> Result<(), Fault> {
    let mut documents = Vec::new();
    let (mut collections, mut ids) = (vec![], vec![]);
    for ((collection, id), document) in &view.item_writes {
        match document {
            Some(document) => documents.push(document.as_str()),
            None => {
                collections.push(collection.as_str());
                ids.push(id.as_str());
            }
        }
    }
    if !ids.is_empty() {
        let sql = "delete from pgstac.items i using unnest($1::text[], $2::text[]) as s(collection, id)
            where i.collection = s.collection and i.id = s.id";
        transaction.execute(sql, &[&collections, &ids]).await?;
    }
    if !documents.is_empty() {
        // The documents go as text: numbers keep every digit on their way into jsonb.
        let array = format!("[{}]", documents.join(","));
        transaction.execute("select pgstac.upsert_items($1::text::jsonb)", &[&array]).await?;
        let named = view.item_writes.iter().filter(|(_, document)| document.is_some()).map(|(key, _)| key);
        let (collections, ids): (Vec<&str>, Vec<&str>) =
            named.map(|(collection, id)| (collection.as_str(), id.as_str())).unzip();
        let sql = "select count(*) from pgstac.items i join unnest($1::text[], $2::text[]) as s(collection, id)
            on i.collection = s.collection and i.id = s.id";
        let found: i64 = transaction.query_one(sql, &[&collections, &ids]).await?.get(0);
        if usize::try_from(found).ok() != Some(documents.len()) {
            let expected = documents.len();
            let said = format!("pgSTAC took {expected} items and holds {found} of them");
            return Err(Fault::Passed(CatalogueError::Unusable(said)));
        }
    }
    Ok(())
}

/// Says of each loaded collection whether items wait to be released.
async fn mark_releases(transaction: &Transaction<'_>, loads: &[Load], applied: &mut [Applied]) -> Result<(), Fault> {
    for (load, one) in loads.iter().zip(applied) {
        if let (Routed::Collection(routed), Applied::Loaded { release, .. }) = (&load.envelope.event, one) {
            let sql = "select exists (select from landfall.ledger where collection = $1 and state = 'ready')";
            *release = transaction.query_one(sql, &[&routed.collection]).await?.get(0);
        }
    }
    Ok(())
}

/// What PostgreSQL met, sorted by SQLSTATE.
/// <https://www.postgresql.org/docs/15/errcodes-appendix.html>
#[derive(Debug)]
enum Fault {
    /// Somebody else was faster: the same transaction can be tried again at once.
    Race(String),
    /// Sorted already.
    Passed(CatalogueError),
}

impl Fault {
    fn is_race(&self) -> bool {
        matches!(self, Self::Race(_))
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Passed(CatalogueError::Unavailable(crate::stage::chain_of(error)));
        };
        let (state, message) = (db.code(), db.message().to_owned());
        let code = state.code();
        let partition_check = db.constraint().is_some_and(|name| name.starts_with("_items_"));
        let partition_missing = *state == SqlState::UNDEFINED_TABLE && message.contains("_items_");
        let sqlstate = code.to_owned();
        let lock_not_available = *state == SqlState::LOCK_NOT_AVAILABLE || *state == SqlState::OBJECT_IN_USE;
        match &code[..2] {
            "40" => Self::Race(message),
            _ if lock_not_available || partition_missing => Self::Race(message),
            "23" if code == "23514" && partition_check => Self::Race(message),
            // A collection that vanished between our look and the write.
            "23" if code == "23514" || code == "23503" => Self::Race(message),
            "22" | "21" | "23" | "54" | "P0" => Self::Passed(CatalogueError::Refused { sqlstate, message }),
            "XX" if code == "XX000" => Self::Passed(CatalogueError::Refused { sqlstate, message }),
            "08" | "53" | "55" | "57" | "25" | "58" | "XX" => Self::Passed(CatalogueError::Unavailable(message)),
            _ => Self::Passed(CatalogueError::Unusable(format!("{message} (SQLSTATE {code})"))),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of(&error)
    }
}

impl From<Fault> for CatalogueError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Race(message) => Self::Unavailable(message),
            Fault::Passed(error) => error,
        }
    }
}
