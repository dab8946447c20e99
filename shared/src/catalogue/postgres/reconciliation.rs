//! What the ledger and pgSTAC hold, page by page, for those who compare it with the buckets.

use std::collections::BTreeSet;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;

use super::super::CatalogueError;
use super::ledger::read_row;
use super::{LedgerRow, PostgresCatalogue, RowFilter};

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
        let sql = "select l.*, exists (select from landfall.ledger n where n.bucket = l.bucket and n.key = l.key
                    and coalesce(n.sequencer > l.sequencer, n.event_time > l.event_time)) as outdated,
                l.state = 'parked' and exists (select from pgstac.collections c where c.id = l.collection) as goes_on
            from landfall.ledger l where (l.bucket, l.key, l.subject) > ($1, $2, $3)
                and ($4::text is null or l.key >= $4) and ($5::text is null or l.key < $5)
                and ($6::text is null or l.collection = $6) and ($7::text is null or l.provider = $7)
            order by l.bucket, l.key, l.subject limit $8";
        let values: [&(dyn ToSql + Sync); 8] =
            [&bucket, &key, &subject, &filter.prefix, &end, &filter.collection, &filter.provider, &most];
        let rows = client.query(sql, &values).await?;
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
