//! The ledger's rows, to and from PostgreSQL.
//!
//! A statement's plan is kept with its session, and may have been made while the ledger was small. `lateral … offset 0`
//! makes each row be looked for by itself, which the indexes do however large it has become.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use landfall_events::report::Effect;
use landfall_events::{
    Cause, Change, Envelope, Event, EventId, ObjectRef, Passed, Position, Report, Routed, Sequencer,
};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row as SqlRow};

use super::super::plan::subject_of;
use super::super::{Collections, Load, Row, State, Subject, View};

/// The database holds no U+0000; a key that has one is kept with a sign in its place.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into() } else { text.into() }
}

fn owned(text: &str) -> String {
    storable(text).into_owned()
}

pub(super) fn member_number(member: Option<u32>) -> i32 {
    member.map_or(0, |member| i32::try_from(member).unwrap_or(i32::MAX))
}

/// Fetches what is known of the landed members of a batch, and of whole objects that are removed.
pub(super) async fn fetch_rows<'a>(
    transaction: &Transaction<'_>,
    causes: impl Iterator<Item = &'a Cause>,
) -> Result<Vec<SqlRow>, Error> {
    let (mut buckets, mut keys, mut members) = (vec![], vec![], vec![]);
    for cause in causes {
        buckets.push(storable(&cause.object.bucket));
        keys.push(storable(&cause.object.key));
        members.push(if cause.change == Change::Removed { -1 } else { member_number(cause.member) });
    }
    // A file may have a hundred thousand members: each finds its own rows by an index, and the file's own row.
    let sql = "select l.* from unnest($1::text[], $2::text[], $3::int[]) as c(bucket, key, member)
        cross join lateral (
            select * from landfall.ledger l where l.bucket = c.bucket and l.key = c.key
                and c.member <= 0 and (c.member = -1 or l.member = 0)
            union all select * from landfall.ledger l where l.bucket = c.bucket and l.key = c.key
                and l.member = c.member and l.member > 0
            union all select * from landfall.ledger l where l.bucket = c.bucket and l.key = c.key
                and l.subject = 'object' and c.member > 0
            offset 0) l";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.query(&statement, &[&buckets, &keys, &members]).await
}

/// The items and collections that a batch names, a collection with no item.
pub(super) fn named(loads: &[&Load]) -> BTreeSet<(String, String)> {
    let name = |load: &&Load| match &load.envelope.event {
        Routed::Item(routed) => Some((owned(&routed.collection), owned(&routed.item))),
        Routed::Collection(routed) => Some((owned(&routed.collection), String::new())),
        Routed::Removed(_) | Routed::Released(_) => None,
    };
    loads.iter().filter_map(name).collect()
}

/// The items that reports name.
pub(super) fn named_by_reports(reports: &[Envelope<Report>]) -> BTreeSet<(String, String)> {
    let name = |report: &Envelope<Report>| {
        let subject = subject_of(&report.event);
        Some((owned(subject.collection()?), owned(subject.item()?)))
    };
    reports.iter().filter_map(name).collect()
}

/// The same of the rows that are known.
pub(super) fn named_by_rows(view: &View) -> BTreeSet<(String, String)> {
    let name =
        |subject: &Subject| Some((subject.collection()?.to_owned(), subject.item().unwrap_or_default().to_owned()));
    view.rows.keys().filter_map(|(_, subject)| name(subject)).collect()
}

/// Fetches what all keys say about items and collections.
pub(super) async fn fetch_rivals(
    transaction: &Transaction<'_>,
    named: &BTreeSet<(String, String)>,
) -> Result<Vec<SqlRow>, Error> {
    let (collections, items): (Vec<&str>, Vec<&str>) =
        named.iter().map(|(collection, item)| (collection.as_str(), item.as_str())).unzip();
    let sql = "select l.* from unnest($1::text[], $2::text[]) as s(collection, item)
        cross join lateral (select * from landfall.ledger l
            where l.collection = s.collection and l.item = s.item and l.kind <> 'object' offset 0) l";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.query(&statement, &[&collections, &items]).await
}

/// Fetches the rows that reports name by their subject: of an item that is another member now, for example.
pub(super) async fn fetch_subjects(
    transaction: &Transaction<'_>,
    view: &mut View,
    reports: &[Envelope<Report>],
) -> Result<(), Error> {
    let (mut buckets, mut keys, mut subjects) = (vec![], vec![], vec![]);
    for report in reports {
        let object = &report.event.cause().object;
        buckets.push(storable(&object.bucket));
        keys.push(storable(&object.key));
        subjects.push(owned(&subject_of(&report.event).to_string()));
    }
    let sql = "select l.* from unnest($1::text[], $2::text[], $3::text[]) as s(bucket, key, subject)
        cross join lateral (select * from landfall.ledger l
            where l.bucket = s.bucket and l.key = s.key and l.subject = s.subject offset 0) l";
    let statement = transaction.prepare_cached(sql).await?;
    keep_rows(view, &transaction.query(&statement, &[&buckets, &keys, &subjects]).await?);
    Ok(())
}

/// Finds the newest change that is known of each landed object.
pub(super) async fn fetch_newest<'a>(
    transaction: &Transaction<'_>,
    causes: impl Iterator<Item = &'a Cause>,
) -> Result<HashMap<ObjectRef, Position>, Error> {
    let objects: BTreeSet<_> = causes.map(|cause| &cause.object).collect();
    let (buckets, keys): (Vec<_>, Vec<_>) =
        objects.into_iter().map(|object| (storable(&object.bucket), storable(&object.key))).unzip();
    let sql = "select o.bucket, o.key, l.sequencer, l.event_time, l.redrive
        from unnest($1::text[], $2::text[]) as o(bucket, key)
        cross join lateral (select * from landfall.ledger l where l.bucket = o.bucket and l.key = o.key
            order by l.sequencer desc nulls last, l.event_time desc, l.redrive desc limit 1) l";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&buckets, &keys]).await?;
    let read = |row: &SqlRow| (ObjectRef::new(row.get::<_, String>(0), row.get::<_, String>(1)), position(row));
    Ok(rows.iter().map(read).collect())
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

/// Finds which of the named collections are there, and whose they are.
pub(super) async fn fetch_collections(
    transaction: &Transaction<'_>,
    named: &BTreeSet<(String, String)>,
) -> Result<Collections, Error> {
    let ids: BTreeSet<&str> = named.iter().map(|(collection, _)| collection.as_str()).collect();
    let sql = "select c.id, o.provider from pgstac.collections c
        left join landfall.collections o on o.collection = c.id where c.id = any($1)";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&ids.into_iter().collect::<Vec<_>>()]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Adds rows to what is known.
pub(super) fn keep_rows(view: &mut View, rows: &[SqlRow]) {
    for row in rows.iter().filter_map(read_row) {
        view.rows.insert((row.cause.object.clone(), row.subject.clone()), row);
    }
}

/// Reads a row; `None` where a newer release has written words that this one does not know.
pub(super) fn read_row(sql: &SqlRow) -> Option<Row> {
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
            members: sql.get::<_, Option<i32>>("members").map(number),
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
        passed: sql.get::<_, Option<&str>>("passed").map(Passed::read).unwrap_or_default(),
    })
}

type Parameter<'r> = Box<dyn ToSql + Sync + Send + 'r>;

/// The columns that a row sets: name, type, values.
fn columns<'r>(rows: &[&'r Row], now: Timestamp) -> Vec<(&'static str, &'static str, Parameter<'r>)> {
    fn all<'r, T: ToSql + Sync + Send + 'r>(rows: &[&'r Row], of: impl Fn(&'r Row) -> T) -> Parameter<'r> {
        Box::new(rows.iter().map(|row| of(row)).collect::<Vec<_>>())
    }
    fn text<'r>(rows: &[&'r Row], of: impl Fn(&'r Row) -> Option<&'r str>) -> Parameter<'r> {
        all(rows, |row| of(row).map(storable))
    }
    let subjects = rows.iter().map(|row| owned(&row.subject.to_string())).collect::<Vec<_>>();
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    vec![
        ("bucket", "text", text(rows, |row| Some(&row.cause.object.bucket))),
        ("key", "text", text(rows, |row| Some(&row.cause.object.key))),
        ("subject", "text", Box::new(subjects)),
        ("kind", "text", text(rows, |row| Some(kind(&row.subject)))),
        ("collection", "text", text(rows, |row| Some(row.subject.collection().unwrap_or_default()))),
        ("item", "text", text(rows, |row| Some(row.subject.item().unwrap_or_default()))),
        ("member", "int4", all(rows, |row| member_number(row.cause.member))),
        ("members", "int4", all(rows, |row| row.cause.members.map(number))),
        ("change", "text", text(rows, |row| Some(change(row.cause.change)))),
        ("version_id", "text", text(rows, |row| row.cause.version_id.as_deref())),
        ("etag", "text", text(rows, |row| row.cause.etag.as_deref())),
        ("size", "int8", all(rows, |row| row.cause.size.and_then(|size| i64::try_from(size).ok()))),
        ("sequencer", "text", all(rows, |row| row.cause.sequencer.as_ref().map(Sequencer::padded))),
        ("event_time", "timestamptz", all(rows, |row| row.cause.event_time)),
        ("provider", "text", text(rows, |row| Some(&row.provider))),
        ("redrive", "int4", all(rows, |row| number(row.redrive))),
        ("state", "text", text(rows, |row| Some(row.state.as_str()))),
        ("effect", "text", text(rows, |row| row.effect.map(Effect::as_str))),
        ("event", "text", text(rows, |row| Some(&row.event.0))),
        ("announced", "timestamptz", all(rows, |row| row.announced)),
        ("stage", "text", text(rows, |row| row.stage.as_deref())),
        ("code", "text", text(rows, |row| row.code.as_deref())),
        ("reason", "text", text(rows, |row| row.reason.as_deref())),
        ("problems", "jsonb", all(rows, problems_json)),
        ("waits_for", "jsonb", all(rows, waits_json)),
        ("until", "timestamptz", all(rows, |row| row.until)),
        ("destination", "text", text(rows, |row| row.destination.as_deref())),
        ("parked", "text", text(rows, |row| row.parked.as_deref())),
        ("released_by", "text", text(rows, |row| row.released_by.as_ref().map(|id| id.0.as_str()))),
        ("cleared", "timestamptz", all(rows, |row| row.cleared)),
        ("passed", "text", all(rows, |row| (!row.passed.is_empty()).then(|| Passed::write(&row.passed)))),
        ("updated", "timestamptz", all(rows, |_| now)),
    ]
}

fn kind(subject: &Subject) -> &'static str {
    match subject {
        Subject::Item { .. } => "item",
        Subject::Collection { .. } => "collection",
        Subject::Object { .. } => "object",
    }
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Removed => "removed",
    }
}

/// Writes the rows of a view that were changed, and deletes those that were dropped.
pub(super) async fn write_rows(transaction: &Transaction<'_>, view: &View) -> Result<(), Error> {
    for (object, subject) in &view.dropped {
        let sql = "delete from landfall.ledger where bucket = $1 and key = $2 and subject = $3";
        let statement = transaction.prepare_cached(sql).await?;
        let subject = subject.to_string();
        let key = [storable(&object.bucket), storable(&object.key), storable(&subject)];
        transaction.execute(&statement, &[&key[0], &key[1], &key[2]]).await?;
    }
    // In place: who announces one of them meanwhile finds it by its event.
    for (object, from, to) in &view.moved {
        let (from, to) = (from.to_string(), to.to_string());
        let key = [&object.bucket, &object.key, &from, &to].map(|text| storable(text));
        let free = "delete from landfall.ledger where bucket = $1 and key = $2 and subject = $3";
        let free = transaction.prepare_cached(free).await?;
        transaction.execute(&free, &[&key[0], &key[1], &key[3]]).await?;
        let sql = "update landfall.ledger set subject = $4, kind = 'object', collection = '', item = ''
            where bucket = $1 and key = $2 and subject = $3";
        let statement = transaction.prepare_cached(sql).await?;
        transaction.execute(&statement, &[&key[0], &key[1], &key[2], &key[3]]).await?;
    }
    let rows: Vec<&Row> = view.dirty.iter().filter_map(|key| view.rows.get(key)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = columns(&rows, Timestamp::now());
    let join = |parts: Vec<String>| parts.join(", ");
    let names = join(columns.iter().map(|(name, ..)| (*name).to_owned()).collect());
    let arrays = join(columns.iter().enumerate().map(|(n, (_, kind, _))| format!("${}::{kind}[]", n + 1)).collect());
    let excluded = join(columns.iter().map(|(name, ..)| format!("excluded.{name}")).collect());
    let sql = format!(
        "insert into landfall.ledger ({names}) select * from unnest({arrays})
         on conflict (bucket, key, subject) do update set ({names}) = ({excluded})"
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let values: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|(.., values)| values.as_ref() as &(dyn ToSql + Sync)).collect();
    transaction.execute(&statement, &values).await?;
    Ok(())
}

fn problems_json(row: &Row) -> Option<serde_json::Value> {
    if row.problems.is_empty() {
        return None;
    }
    let text = serde_json::to_string(&row.problems).unwrap_or_default();
    // In JSON text the character is escaped.
    serde_json::from_str(&text.replace("\\u0000", "\u{FFFD}")).ok()
}

fn waits_json(row: &Row) -> Option<serde_json::Value> {
    (!row.waits_for.is_empty()).then(|| row.waits_for.iter().map(|text| storable(text)).collect())
}
