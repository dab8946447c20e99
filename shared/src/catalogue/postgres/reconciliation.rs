//! What the ledger and pgSTAC hold, page by page, for those who compare it with the buckets.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use landfall_events::{Cause, EventId, Sequencer};
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;

use super::super::{CatalogueError, DROPPED, Row};
use super::ledger::{member_number, read_row, storable};
use super::{GOES_ON, KEEP, LedgerRow, OUTDATED, OVER_AS_MEMBERS, PostgresCatalogue, RowFilter, newer_than};

/// Collection and id.
type Name = (String, String);

/// An item's asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetHref {
    /// The item's collection.
    pub collection: String,
    /// Its id.
    pub item: String,
    /// The asset's href.
    pub href: String,
}

impl PostgresCatalogue {
    /// Ledger rows in the order of bucket, key and subject, at most `most`, after a row that was read before. Of the
    /// filter, the prefix, the collection and the provider count.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn page(
        &self,
        filter: &RowFilter,
        after: Option<&LedgerRow>,
        most: i64,
    ) -> Result<Vec<LedgerRow>, CatalogueError> {
        let client = self.client().await?;
        let (bucket, key, subject) = after.map_or_else(Default::default, |after| {
            let object = &after.row.cause.object;
            (object.bucket.clone(), object.key.clone(), after.row.subject.to_string())
        });
        let end = filter.prefix.as_deref().and_then(super::after_prefix);
        let sql = format!(
            "select l.*, {} as outdated, {GOES_ON} as goes_on
            from landfall.ledger l where (l.bucket, l.key, l.subject) > ($1, $2, $3)
                and ($4::text is null or l.key >= $4) and ($5::text is null or l.key < $5)
                and ($6::text is null or l.collection = $6) and ($7::text is null or l.provider = $7)
            order by l.bucket, l.key, l.subject limit $8",
            *OUTDATED
        );
        let values: [&(dyn ToSql + Sync); 8] =
            [&bucket, &key, &subject, &filter.prefix, &end, &filter.collection, &filter.provider, &most];
        let rows = client.query(&sql, &values).await?;
        let read = |sql: &SqlRow| {
            let (row, updated) = (read_row(sql)?, sql.get("updated"));
            Some(LedgerRow { row, updated, outdated: sql.get("outdated"), goes_on: sql.get("goes_on") })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Which of these items pgSTAC holds.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn holding(&self, items: &[(&str, &str)]) -> Result<BTreeSet<Name>, CatalogueError> {
        let client = self.client().await?;
        let (collections, ids): (Vec<&str>, Vec<&str>) = items.iter().copied().unzip();
        let sql = "select n.collection, n.id from unnest($1::text[], $2::text[]) as n(collection, id)
            cross join lateral (select from pgstac.items i where i.collection = n.collection and i.id = n.id offset 0) i";
        let rows = client.query(sql, &[&collections, &ids]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Which of these collections pgSTAC holds; of all that it holds, where none are named.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn collections(&self, named: Option<&[&str]>) -> Result<BTreeSet<String>, CatalogueError> {
        let client = self.client().await?;
        let sql = "select id from pgstac.collections where $1::text[] is null or id = any($1)";
        Ok(client.query(sql, &[&named]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// The hrefs of these items' assets.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn hrefs(&self, items: &[(&str, &str)]) -> Result<Vec<AssetHref>, CatalogueError> {
        let client = self.client().await?;
        let (collections, ids): (Vec<&str>, Vec<&str>) = items.iter().copied().unzip();
        let sql = "select n.collection, n.id, a.href from unnest($1::text[], $2::text[]) as n(collection, id)
            cross join lateral (select i.content from pgstac.items i
                where i.collection = n.collection and i.id = n.id offset 0) i
            cross join lateral (select value->>'href' as href from jsonb_each(
                case jsonb_typeof(i.content->'assets') when 'object' then i.content->'assets' else '{}' end)) a
            where a.href is not null";
        let rows = client.query(sql, &[&collections, &ids]).await?;
        let read = |row: &SqlRow| AssetHref { collection: row.get(0), item: row.get(1), href: row.get(2) };
        Ok(rows.iter().map(read).collect())
    }

    /// Items of a collection that no row of the ledger says to be loaded, in the order of their ids, after an id.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn unknown(&self, collection: &str, after: &str, most: i64) -> Result<Vec<String>, CatalogueError> {
        let client = self.client().await?;
        let sql = "select i.id from pgstac.items i where i.collection = $1 and i.id > $2 and not exists (
                select from landfall.ledger l where l.collection = i.collection and l.item = i.id
                    and l.kind <> 'object' and l.state in ('loaded', 'ready'))
            order by i.id limit $3";
        Ok(client.query(sql, &[&collection, &after, &most]).await?.iter().map(|row| row.get(0)).collect())
    }
}

impl PostgresCatalogue {
    /// What the ledger knows of the content of these keys of a bucket, by key and etag.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn known(&self, bucket: &str, keys: &[&str]) -> Result<BTreeMap<(String, String), Told>, CatalogueError> {
        let client = self.client().await?;
        // What an overwritten file has left says nothing of the file. What members have come to is forgotten after a time:
        // then those that are known stand for all.
        let sql = "select key, coalesce(etag, ''), case when max(event_time) > $3 then max(members) end,
                count(distinct member) filter (where member > 0), bool_or(member = 0 and state in ('refused', 'ignored'))
            from landfall.ledger where bucket = $1 and key = any($2) and not (state = 'removed' and change = 'created')
            group by 1, 2";
        let remembered = Timestamp::now().saturating_sub(KEEP).unwrap_or(Timestamp::MIN);
        let rows = client.query(sql, &[&bucket, &keys, &remembered]).await?;
        let read = |row: &SqlRow| {
            let members = row.get::<_, Option<i32>>(2).map(|members| u32::try_from(members).unwrap_or(0));
            let settled = u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX);
            let told = Told { members, settled, is_over: row.get(4) };
            ((row.get(0), row.get(1)), told)
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Says of each change that was refused whether something newer has made its refusal needless since: a later change
    /// of its key, or a later end of the same one. `event` is the refusal's id.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn overtaken(&self, refused: &[(&EventId, &Cause, u32)]) -> Result<Vec<bool>, CatalogueError> {
        let client = self.client().await?;
        let causes: Vec<&Cause> = refused.iter().map(|(_, cause, _)| *cause).collect();
        let events: Vec<&str> = refused.iter().map(|(event, ..)| event.0.as_str()).collect();
        let buckets: Vec<_> = causes.iter().map(|cause| storable(&cause.object.bucket)).collect();
        let keys: Vec<_> = causes.iter().map(|cause| storable(&cause.object.key)).collect();
        let members: Vec<i32> = causes.iter().map(|cause| member_number(cause.member)).collect();
        let sequencers: Vec<_> = causes.iter().map(|cause| cause.sequencer.as_ref().map(Sequencer::padded)).collect();
        let times: Vec<Timestamp> = causes.iter().map(|cause| cause.event_time).collect();
        let redrives: Vec<i32> =
            refused.iter().map(|(.., redrive)| i32::try_from(*redrive).unwrap_or(i32::MAX)).collect();
        // Where its own row is gone, what came after it has written it over; or notify has not come to it.
        let sql = format!(
            "select {}
                or not exists (select from landfall.ledger m where m.event = r.event)
                and exists (select from landfall.ledger m where m.bucket = r.bucket and m.key = r.key
                    and m.member = r.member and coalesce(m.sequencer = r.sequencer, m.event_time = r.event_time)
                    and (m.redrive > r.redrive or m.redrive = r.redrive
                        and m.state in ('loaded', 'routed') and m.announced is not null))
                or exists (select from landfall.ledger l where l.event = r.event and {OVER_AS_MEMBERS})
            from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::timestamptz[], $7::int[])
                with ordinality as r(event, bucket, key, member, sequencer, event_time, redrive, place) order by r.place",
            newer_than("r")
        );
        let values: [&(dyn ToSql + Sync); 7] = [&events, &buckets, &keys, &members, &sequencers, &times, &redrives];
        Ok(client.query(&sql, &values).await?.iter().map(|row| row.get(0)).collect())
    }
}

/// What is known of the content of a landed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// How many members it has; of an object that is one document or none, nothing.
    pub members: Option<u32>,
    /// Of how many of them it is known what has become.
    pub settled: u32,
    /// Whether it was refused or left as a whole: what is not told of its members will not be.
    pub is_over: bool,
}

impl Told {
    /// Whether something of it is still on its way.
    #[must_use]
    pub fn is_in_part(&self) -> bool {
        !self.is_over && self.members.is_some_and(|members| self.settled < members)
    }
}

impl PostgresCatalogue {
    /// Records that the letters of these refusals were dropped: they are over, by an operator's decision. Gives the rows
    /// as they are now. What the catalogue holds, and could not be announced, it still holds.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub async fn dropped(&self, events: &[EventId]) -> Result<Vec<Row>, CatalogueError> {
        let client = self.client().await?;
        let ids: Vec<&str> = events.iter().map(|id| id.0.as_str()).collect();
        let sql = format!(
            "update landfall.ledger set state = case state when 'refused' then 'ignored' else state end,
                code = '{DROPPED}', updated = now(),
                reason = 'an operator has dropped it; it was refused: ' || code || ': ' || coalesce(reason, '')
            where event = any($1) and (state = 'refused'
                or state in ('loaded', 'routed', 'removed') and announced is null and code is not null
                    and code <> '{DROPPED}')
            returning *"
        );
        Ok(client.query(&sql, &[&ids]).await?.iter().filter_map(read_row).collect())
    }
}
