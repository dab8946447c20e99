//! Whether the catalogue's users find what notices say: by pgSTAC's own search, as an API asks it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use landfall_events::Place;
use serde_json::json;

use super::super::Claim;
use super::PostgresCatalogue;
use super::fault::Fault;
use deadpool_postgres::Transaction;

/// Claims that one search is about.
const SEARCHED_MAX: usize = 100;

/// By how much a box is widened for a search, in degrees: of a point, it has no inside that anything could lie in.
const MARGIN: f64 = 1e-6;

/// Collection and id.
type Name = (String, String);

/// What is looked for by where and when it is.
struct Placed<'c> {
    name: (&'c str, &'c str),
    bbox: [f64; 4],
    span: (Timestamp, Timestamp),
}

impl PostgresCatalogue {
    pub(super) async fn prove_once(&self, claims: &[Claim]) -> Result<Vec<bool>, Fault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        // Searches would be counted, in rows that all of them write.
        transaction.batch_execute("set local pgstac.readonly = 'true'").await?;
        let (mut placed, mut named, mut collections) = (Vec::new(), Vec::new(), Vec::new());
        for claim in claims {
            match claim {
                Claim::Item { collection, item, place: Some(Place { bbox, .. }) } if span(claim).is_some() => {
                    let span = span(claim).expect("there is one");
                    placed.push(Placed { name: (collection, item), bbox: *bbox, span });
                }
                Claim::Item { collection, item, .. } | Claim::NoItem { collection, item } => {
                    named.push((collection.as_str(), item.as_str()));
                }
                Claim::Collection { collection } => collections.push(collection.as_str()),
            }
        }
        let (mut found_there, mut found) = (BTreeSet::new(), BTreeSet::new());
        for some in placed.chunks(SEARCHED_MAX) {
            let there = search(&transaction, &some.iter().map(|one| one.name).collect::<Vec<_>>(), Some(some)).await?;
            let where_they_are = at_their_place(&transaction, some).await?;
            found_there.extend(there.intersection(&where_they_are).cloned());
        }
        for some in named.chunks(SEARCHED_MAX) {
            found.extend(search(&transaction, some, None).await?);
        }
        let collections = existing(&transaction, &collections).await?;
        let name = |collection: &String, item: &String| (collection.clone(), item.clone());
        let holds = |claim: &Claim| match claim {
            Claim::Item { collection, item, .. } if span(claim).is_some() => {
                found_there.contains(&name(collection, item))
            }
            Claim::Item { collection, item, .. } => found.contains(&name(collection, item)),
            Claim::NoItem { collection, item } => !found.contains(&name(collection, item)),
            Claim::Collection { collection } => collections.contains(collection),
        };
        Ok(claims.iter().map(holds).collect())
    }
}

fn span(claim: &Claim) -> Option<(Timestamp, Timestamp)> {
    match claim {
        Claim::Item { place: Some(place), .. } => place.span(),
        Claim::Item { .. } | Claim::NoItem { .. } | Claim::Collection { .. } => None,
    }
}

/// What pgSTAC's search finds of these: one search for all, in the box and the time that hold them all.
async fn search(
    transaction: &Transaction<'_>,
    names: &[(&str, &str)],
    placed: Option<&[Placed<'_>]>,
) -> Result<BTreeSet<Name>, Fault> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (collections, ids): (BTreeSet<&str>, BTreeSet<&str>) = names.iter().copied().unzip();
    // Another collection may have items of the same ids.
    let limit = (collections.len() * ids.len()).min(10_000);
    let mut query = json!({"ids": ids, "collections": collections, "limit": limit, "conf": {"nohydrate": true, "context": "off"},
        "fields": {"include": ["id", "collection"]}});
    if let Some([first, rest @ ..]) = placed {
        let (mut bbox, mut span) = (first.bbox, first.span);
        for one in rest {
            bbox = [
                bbox[0].min(one.bbox[0]),
                bbox[1].min(one.bbox[1]),
                bbox[2].max(one.bbox[2]),
                bbox[3].max(one.bbox[3]),
            ];
            span = (span.0.min(one.span.0), span.1.max(one.span.1));
        }
        query["bbox"] = json!([bbox[0] - MARGIN, bbox[1] - MARGIN, bbox[2] + MARGIN, bbox[3] + MARGIN]);
        query["datetime"] = json!(format!("{}/{}", span.0, span.1));
    }
    let sql = "select f->>'collection', f->>'id'
        from jsonb_array_elements(pgstac.search($1::text::jsonb)->'features') as f";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&query.to_string()]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Which of these lie in their own box, at their own time.
async fn at_their_place(transaction: &Transaction<'_>, placed: &[Placed<'_>]) -> Result<BTreeSet<Name>, Fault> {
    let (collections, ids): (Vec<&str>, Vec<&str>) = placed.iter().map(|one| one.name).unzip();
    let side = |side: usize| placed.iter().map(|one| one.bbox[side]).collect::<Vec<f64>>();
    let (from, to): (Vec<Timestamp>, Vec<Timestamp>) = placed.iter().map(|one| one.span).unzip();
    let sql = "select n.collection, n.id from unnest($1::text[], $2::text[], $3::float8[], $4::float8[], $5::float8[],
            $6::float8[], $7::timestamptz[], $8::timestamptz[]) as n(collection, id, w, s, e, n, since, until)
        cross join lateral (select from pgstac.items i where i.collection = n.collection and i.id = n.id
            and i.geometry && st_makeenvelope(n.w, n.s, n.e, n.n, 4326)
            and i.datetime <= n.until and i.end_datetime >= n.since offset 0) i";
    let statement = transaction.prepare_cached(sql).await?;
    let (west, south, east, north) = (side(0), side(1), side(2), side(3));
    let rows = transaction.query(&statement, &[&collections, &ids, &west, &south, &east, &north, &from, &to]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn existing(transaction: &Transaction<'_>, collections: &[&str]) -> Result<BTreeSet<String>, Fault> {
    if collections.is_empty() {
        return Ok(BTreeSet::new());
    }
    let statement = transaction.prepare_cached("select id from pgstac.collections where id = any($1)").await?;
    Ok(transaction.query(&statement, &[&collections]).await?.iter().map(|row| row.get(0)).collect())
}
