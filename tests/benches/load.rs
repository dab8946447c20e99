//! What loading costs, beside pypgstac, `upsert_items`, and the floor: COPY of the same JSON into a plain table. One
//! run, one private server: `make bench-load`. Machines are noisy: each row is the median of three, taken in turns, and
//! ratios are what is to be quoted. The parts `batches`, `divided`, `bulk`, `growing`, `memory` and `ledger` can be named;
//! `--quick` is a tenth of everything.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::SinkExt;
use jiff::Timestamp;
use landfall_events::routed::ItemRouted;
use landfall_events::{Change, Envelope, Event, ObjectRef, Routed};
use landfall_load::bulk::Bulk;
use landfall_shared::catalogue::{Catalogue, Content, Load, PostgresCatalogue, RowFilter};
use landfall_shared::pgstac::Item;
use landfall_tests::load_world::{cause, inline, stored};
use landfall_tests::real_world::{Database, peak, tools};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use tokio_postgres::Client;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// 1.3 KB, two assets.
    Small,
    /// 13 KB, seventeen assets, most of what they say in the collection's item_assets too.
    Large,
}

#[derive(Clone, Copy, PartialEq)]
enum Months {
    /// One partition.
    Null,
    /// Monthly partitions, in the order of time, as events come.
    Ordered,
    /// Monthly partitions, twelve months at random.
    Random,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Small => "1.3 KB",
            Self::Large => "13 KB",
        }
    }

    fn assets(self) -> usize {
        if self == Self::Small { 2 } else { 17 }
    }

    fn item_assets(self) -> Value {
        let one = |n: usize| {
            let bands = json!([{"name": format!("b{n:02}"), "common_name": "rededge", "center_wavelength": 0.7 + n as f64, "full_width_half_max": 0.018}]);
            let raster = json!([{"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "spatial_resolution": 10, "scale": 0.0001, "offset": -0.1}]);
            (
                format!("asset{n:02}"),
                json!({"type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "title": format!("Band {n} of the instrument, as a cloud-optimized GeoTIFF"), "roles": ["data", "reflectance"],
                "eo:bands": bands, "raster:bands": raster}),
            )
        };
        (0..self.assets()).map(one).collect()
    }

    fn document(self, collection: &str, id: &str, datetime: &str, number: usize) -> String {
        let mut assets = self.item_assets();
        if self == Self::Small {
            for asset in assets.as_object_mut().unwrap().values_mut() {
                *asset = json!({"type": asset["type"]});
            }
        }
        for (name, asset) in assets.as_object_mut().unwrap() {
            asset["href"] = json!(format!("s3://archive-of-the-mission/{collection}/2024/{id}/{name}.tif"));
            if self == Self::Large {
                asset["file:size"] = json!(104_857_600 + number);
                asset["file:checksum"] = json!(format!("1220{:064x}", number * 7919 + name.len()));
                asset["proj:shape"] = json!([10980, 10980]);
                asset["proj:transform"] = json!([10, 0, 600_000 + number, 0, -10, 5_300_040]);
            }
        }
        let (x, y) = ((number % 3600) as f64 / 10.0 - 180.0, (number / 3600 % 1700) as f64 / 10.0 - 85.0);
        let ring = json!([[x, y], [x + 0.9, y], [x + 0.9, y + 0.9], [x, y + 0.9], [x, y]]);
        let mut properties = json!({"datetime": datetime, "platform": "sentinel-2a", "instruments": ["msi"],
            "eo:cloud_cover": number as f64 % 100.0 + 0.123_456, "created": "2024-05-18T03:12:45.123Z", "updated": "2024-05-18T03:12:45.123Z"});
        if self == Self::Large {
            for n in 0..20 {
                properties[format!("s2:percentage_of_kind_{n:02}")] = json!(number as f64 * 0.001 + f64::from(n));
            }
        }
        json!({"type": "Feature", "stac_version": "1.0.0", "id": id, "collection": collection,
            "stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json", "https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [x, y, x + 0.9, y + 0.9], "properties": properties,
            "links": [{"rel": "collection", "href": "https://stac.example.org/collections/c", "type": "application/json"}], "assets": assets}).to_string()
    }
}

/// The bench's server with what it needs to make collections.
struct Bench {
    database: Database,
    collections: usize,
    scale: usize,
}

/// What a way of loading took.
struct Cost {
    items: usize,
    wall: Duration,
    server: f64,
    client: f64,
    retried: u64,
}

impl Cost {
    fn rate(&self) -> f64 {
        self.items as f64 / self.wall.as_secs_f64()
    }
}

/// Rows that are measured in turns, three times each, so that a slow moment of the machine hits all alike.
#[derive(Default)]
struct Table {
    rows: Vec<(String, Vec<Cost>)>,
}

const TURNS: usize = 3;

/// How long `upsert_items` begins another batch.
const UPSERTING_MAX: Duration = Duration::from_secs(2);

impl Table {
    fn add(&mut self, row: impl Into<String>, cost: Cost) {
        let row = row.into();
        match self.rows.iter_mut().find(|(name, _)| *name == row) {
            Some((_, costs)) => costs.push(cost),
            None => self.rows.push((row, vec![cost])),
        }
    }

    /// Prints the median of each row, and its ratio to that of the first.
    fn print(self) {
        let mut base = None;
        for (row, mut costs) in self.rows {
            let retried: u64 = costs.iter().map(|cost| cost.retried).sum();
            costs.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
            let cost = &costs[costs.len() / 2];
            let rate = cost.rate();
            let base = *base.get_or_insert(rate);
            let millis = |seconds: f64| 1e3 * seconds / cost.items as f64;
            let mut line = format!(
                "  {row:<46} {rate:>8.0}/s {:>6.2}x   server {:>6.3} ms   client {:>6.3} ms",
                rate / base,
                millis(cost.server),
                millis(cost.client)
            );
            if retried > 0 {
                write!(line, "   {retried} errors").unwrap();
            }
            println!("{line}");
        }
    }
}

fn own_cpu(who: UsageWho) -> f64 {
    let usage = getrusage(who).unwrap();
    [usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum()
}

impl Bench {
    async fn collection(&mut self, kind: Kind, months: Months) -> String {
        self.collections += 1;
        let id = format!("bench-{}", self.collections);
        let document = json!({"type": "Collection", "stac_version": "1.0.0", "id": id, "description": "d", "license": "CC0-1.0",
            "links": [], "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2020-01-01T00:00:00Z", null]]}},
            "item_assets": kind.item_assets()}).to_string();
        self.database.client.execute("select pgstac.create_collection($1::text::jsonb)", &[&document]).await.unwrap();
        if months != Months::Null {
            let sql = "update pgstac.collections set partition_trunc = 'month' where id = $1";
            self.database.client.execute(sql, &[&id]).await.unwrap();
        }
        id
    }

    /// Texts of items of a collection that is new and alone: `upsert_items` pays for each partition that there is.
    async fn fresh(&mut self, kind: Kind, months: Months, count: usize) -> Vec<String> {
        self.database.client.batch_execute("delete from pgstac.collections; truncate landfall.ledger").await.unwrap();
        let id = self.collection(kind, months).await;
        self.database.client.batch_execute("checkpoint").await.unwrap();
        self.texts(kind, months, &id, 0, count)
    }

    /// Texts of so many items, numbered on from `from`.
    fn texts(&self, kind: Kind, months: Months, collection: &str, from: usize, count: usize) -> Vec<String> {
        (from..from + count)
            .map(|n| {
                let month = match months {
                    Months::Null => 5,
                    Months::Ordered => 1 + 12 * (n - from) / count.max(1) % 12,
                    Months::Random => 1 + n * 7919 % 12,
                };
                let datetime = format!("2024-{month:02}-{:02}T{:02}:{:02}:41.024Z", 1 + n / 97 % 28, n % 24, n % 60);
                kind.document(collection, &format!("item-{n:09}"), &datetime, n)
            })
            .collect()
    }

    /// Runs something, and what it cost.
    async fn measure(&self, items: usize, run: impl Future<Output = u64>) -> Cost {
        let (server, client, begun) = (self.database.cpu().unwrap(), own_cpu(UsageWho::RUSAGE_SELF), Instant::now());
        let retried = run.await;
        let wall = begun.elapsed();
        let client = own_cpu(UsageWho::RUSAGE_SELF) - client;
        Cost { items, wall, server: self.database.cpu().unwrap() - server, client, retried }
    }

    /// Batches over connections, each connection, told by its number, with its part.
    async fn spread<F: Future<Output = u64> + Send>(
        &self,
        texts: &[String],
        connections: usize,
        batch: usize,
        load: impl Fn(usize, Vec<String>) -> F + Sync,
    ) -> Cost {
        let part = texts.len().div_ceil(connections);
        let each = texts.chunks(part).enumerate().map(|(connection, part)| {
            let load = &load;
            async move {
                let mut retried = 0;
                for batch in part.chunks(batch) {
                    retried += load(connection, batch.to_vec()).await;
                }
                retried
            }
        });
        let all: Vec<_> = each.collect();
        self.measure(texts.len(), async { futures::future::join_all(all).await.into_iter().sum() }).await
    }

    /// A catalogue that is connected.
    async fn catalogue(&self, connections: usize) -> PostgresCatalogue {
        let catalogue = PostgresCatalogue::new(&self.database.url, connections).unwrap();
        catalogue.ready().await.unwrap();
        catalogue
    }

    /// Landfall's item path: from text to committed.
    async fn items(&self, texts: &[String], connections: usize, batch: usize) -> Cost {
        let catalogue = &self.catalogue(connections).await;
        let load = |_, batch: Vec<String>| async move {
            let items: Vec<Item> = batch.into_iter().map(|text| Item::read(text).unwrap()).collect();
            catalogue.load(&items.iter().collect::<Vec<_>>()).await.unwrap();
            0
        };
        self.spread(texts, connections, batch, load).await
    }

    /// The same with the ledger, as events are loaded. What a worker gets from its queue is there before.
    async fn events(&self, texts: &[String], connections: usize, batch: usize) -> Cost {
        let catalogue = &self.catalogue(connections).await;
        let envelopes: Vec<Envelope<Routed>> = texts.iter().map(|text| routed(text)).collect();
        let envelopes = &envelopes
            .iter()
            .map(|envelope| (envelope.event.cause().object.key.as_str(), envelope))
            .collect::<HashMap<_, _>>();
        let load = |_, batch: Vec<String>| async move {
            let load = |text: String| {
                let item = Item::read(text).unwrap();
                let envelope = envelopes[key(&item).as_str()].clone();
                Load { envelope, content: Content::Item(Arc::new(item)), released_by: None }
            };
            let loads: Vec<Load> = batch.into_iter().map(load).collect();
            catalogue.apply(&loads.iter().collect::<Vec<_>>(), Timestamp::MAX).await.unwrap();
            0
        };
        self.spread(texts, connections, batch, load).await
    }

    /// Each connection's own client.
    async fn clients(&self, connections: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let client = self.database.connect().await.unwrap();
            client.batch_execute("set search_path = pgstac, public").await.unwrap();
            clients.push(client);
        }
        clients
    }

    /// pgSTAC's own function, at its best: the partitions are there, and as wide as they need to be, so that none of its
    /// batches pays for a constraint.
    async fn upsert_items(&self, texts: &[String], connections: usize, batch: usize) -> Cost {
        let items: Vec<Item> = texts.iter().map(|text| Item::read(text.as_str()).unwrap()).collect();
        self.catalogue(1).await.load(&items.iter().step_by(7).collect::<Vec<_>>()).await.unwrap();
        let sql = "select partition from pgstac.partition_sys_meta where collection = $1";
        for partition in self.database.client.query(sql, &[&items[0].collection]).await.unwrap() {
            let name: &str = partition.get(0);
            let sql = format!("delete from pgstac.\"{name}\"");
            self.database.client.batch_execute(&sql).await.unwrap();
            self.database.client.batch_execute(&format!("vacuum pgstac.\"{name}\"")).await.unwrap();
        }
        self.database.client.batch_execute("checkpoint").await.unwrap();
        let clients = &self.clients(connections).await;
        let (begun, done) = (Instant::now(), &AtomicUsize::new(0));
        let load = |connection: usize, batch: Vec<String>| async move {
            let (array, mut errors) = (format!("[{}]", batch.join(",")), 0);
            // It is slow, and a rate is known after a while.
            if begun.elapsed() > UPSERTING_MAX {
                return 0;
            }
            // As a loader does: a lost race is tried again.
            while clients[connection].execute("select upsert_items($1::text::jsonb)", &[&array]).await.is_err() {
                errors += 1;
            }
            done.fetch_add(batch.len(), Ordering::Relaxed);
            errors
        };
        let cost = self.spread(texts, connections, batch, load).await;
        Cost { items: done.load(Ordering::Relaxed), ..cost }
    }

    /// The floor: COPY into a plain, logged table with one column.
    async fn floor(&self, texts: &[String], connections: usize, batch: usize) -> Cost {
        let anew = "drop table if exists public.floor; create table public.floor (content jsonb)";
        self.database.client.batch_execute(anew).await.unwrap();
        let clients = &self.clients(connections).await;
        let load = |connection: usize, batch: Vec<String>| async move {
            let mut text = String::new();
            for document in batch {
                text.push_str(&document.replace('\\', "\\\\"));
                text.push('\n');
            }
            let sink = clients[connection].copy_in("copy public.floor from stdin").await.unwrap();
            futures::pin_mut!(sink);
            sink.send(bytes::Bytes::from(text)).await.unwrap();
            sink.close().await.unwrap();
            0
        };
        self.spread(texts, connections, batch, load).await
    }

    /// `landfall load`, in this process: reading of files apart.
    async fn bulk(&self, texts: &[String], connections: usize) -> Cost {
        let catalogue = self.catalogue(connections).await;
        let run = async {
            let mut bulk = Bulk::begin(catalogue, connections, 0);
            for text in texts {
                bulk.item(text.clone()).await.unwrap();
            }
            bulk.finish().await.unwrap().rejected.len() as u64
        };
        self.measure(texts.len(), run).await
    }

    /// `pypgstac load items --method upsert`, as a program of its own.
    async fn pypgstac(&self, texts: &[String], processes: usize) -> Cost {
        let part = texts.len().div_ceil(processes);
        let files: Vec<_> = (0..processes).map(|n| self.database.scratch(&format!("pypgstac-{n}.ndjson"))).collect();
        for (file, part) in files.iter().zip(texts.chunks(part)) {
            std::fs::write(file, part.join("\n")).unwrap();
        }
        let (server, client, begun) =
            (self.database.cpu().unwrap(), own_cpu(UsageWho::RUSAGE_CHILDREN), Instant::now());
        let children: Vec<_> = files
            .iter()
            .map(|file| {
                tokio::process::Command::new(tools().join("bench/bin/pypgstac"))
                    .args(["load", "items"])
                    .arg(file)
                    .args(["--dsn", &self.database.url, "--method", "upsert"])
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().await.unwrap().success());
        }
        let wall = begun.elapsed();
        let client = own_cpu(UsageWho::RUSAGE_CHILDREN) - client;
        Cost { items: texts.len(), wall, server: self.database.cpu().unwrap() - server, client, retried: 0 }
    }
}

fn key(item: &Item) -> String {
    format!("p/{}/metadata/items/{}.json", item.collection, item.id)
}

fn routed(text: &str) -> Envelope<Routed> {
    let item = Item::read(text).unwrap();
    let key = key(&item);
    let routed = ItemRouted {
        cause: cause(&key, Change::Created, 1),
        collection: item.collection,
        item: item.id,
        document: inline("{}"),
        stored: stored(&ObjectRef::new("archive", &key)),
        assets: vec![],
        warnings: vec![],
    };
    Envelope::new(routed.into(), "p", 0)
}

fn event(text: &str) -> Load {
    let item = Arc::new(Item::read(text).unwrap());
    Load { envelope: routed(text), content: Content::Item(item), released_by: None }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (quick, parts): (Vec<String>, Vec<String>) = arguments.into_iter().partition(|argument| argument == "--quick");
    let has = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let scale = if quick.is_empty() { 1 } else { 10 };
    let mut bench = Bench { database: Database::start().await.unwrap(), collections: 0, scale };
    let version: String = bench.database.client.query_one("select version()", &[]).await.unwrap().get(0);
    println!("{} cores; {}", std::thread::available_parallelism().unwrap(), version.split(" on ").next().unwrap());
    for kind in [Kind::Small, Kind::Large] {
        for connections in [1, 4] {
            if has("batches") {
                batches(&mut bench, kind, connections).await;
            }
            if has("divided") {
                divided(&mut bench, kind, connections).await;
            }
        }
        if has("bulk") {
            bulks(&mut bench, kind).await;
        }
    }
    if has("growing") {
        growing(&mut bench).await;
    }
    if has("memory") {
        memory(&mut bench).await;
    }
    if has("ledger") {
        ledger(&mut bench).await;
    }
}

/// How many items a row takes, so that it lasts a second or some.
fn count(bench: &Bench, kind: Kind, batch: usize) -> usize {
    let items = match (kind, batch) {
        (_, 1) => 1_000,
        (Kind::Small, 10) => 5_000,
        (Kind::Small, _) => 20_000,
        (Kind::Large, _) => 4_000,
    };
    items / bench.scale
}

async fn batches(bench: &mut Bench, kind: Kind, connections: usize) {
    for batch in [1, 10, 100, 1000] {
        println!("\n{} items, one partition, {connections} connections, batches of {batch}:", kind.name());
        let (mut table, count) = (Table::default(), count(bench, kind, batch));
        for _ in 0..TURNS {
            let texts = bench.fresh(kind, Months::Null, count).await;
            table.add("floor: COPY into a plain table", bench.floor(&texts, connections, batch).await);
            table.add("landfall, items alone", bench.items(&texts, connections, batch).await);
            let texts = bench.fresh(kind, Months::Null, count).await;
            table.add("landfall, with the ledger", bench.events(&texts, connections, batch).await);
            let texts = bench.fresh(kind, Months::Null, count / 20).await;
            table.add("upsert_items", bench.upsert_items(&texts, connections, batch).await);
        }
        table.print();
    }
}

async fn divided(bench: &mut Bench, kind: Kind, connections: usize) {
    for (months, name) in [(Months::Ordered, "in order of time"), (Months::Random, "random months")] {
        println!("\n{} items, monthly partitions, {name}, {connections} connections, batches of 100:", kind.name());
        let (mut table, count) = (Table::default(), count(bench, kind, 100));
        for _ in 0..TURNS {
            let texts = bench.fresh(kind, months, count / 20).await;
            table.add("upsert_items", bench.upsert_items(&texts, connections, 100).await);
            let texts = bench.fresh(kind, months, count).await;
            table.add("landfall, items alone", bench.items(&texts, connections, 100).await);
            let texts = bench.fresh(kind, months, count).await;
            table.add("landfall, with the ledger", bench.events(&texts, connections, 100).await);
        }
        table.print();
    }
}

async fn bulks(bench: &mut Bench, kind: Kind) {
    let count = (if kind == Kind::Small { 100_000 } else { 20_000 }) / bench.scale;
    for (months, name) in [(Months::Null, "one partition"), (Months::Random, "random months")] {
        println!("\n{} items in bulk, {name}:", kind.name());
        let mut table = Table::default();
        for _ in 0..TURNS {
            for processes in [1, 4] {
                let texts = bench.fresh(kind, months, count).await;
                table.add(format!("pypgstac load, {processes} processes"), bench.pypgstac(&texts, processes).await);
            }
            for connections in [1, 4] {
                let texts = bench.fresh(kind, months, count).await;
                table.add(format!("landfall load, {connections} connections"), bench.bulk(&texts, connections).await);
            }
        }
        table.print();
    }
}

/// The cost of an item as its collection grows.
async fn growing(bench: &mut Bench) {
    println!("\n1.3 KB items, batches of 100, one connection, as the collection grows:");
    let kind = Kind::Small;
    let id = bench.collection(kind, Months::Null).await;
    let (mut held, mut table) = (0, Table::default());
    for size in [10_000, 100_000, 1_000_000].map(|size| size / bench.scale) {
        while held < size {
            let step = (size - held).min(100_000);
            let texts = bench.texts(kind, Months::Null, &id, held, step);
            bench.bulk(&texts, 4).await;
            held += step;
        }
        bench.database.client.batch_execute("checkpoint").await.unwrap();
        for _ in 0..TURNS {
            let count = 10_000 / bench.scale;
            let texts = bench.texts(kind, Months::Null, &id, held, count);
            held += count;
            table.add(format!("{size} items are there"), bench.items(&texts, 1, 100).await);
        }
    }
    table.print();
}

/// The most memory that the command has while it loads a hundred thousand items.
async fn memory(bench: &mut Bench) {
    println!("\nlandfall load, {} items, 4 connections:", 100_000 / bench.scale);
    for kind in [Kind::Small, Kind::Large] {
        let texts = bench.fresh(kind, Months::Random, 100_000 / bench.scale).await;
        let file = bench.database.scratch("memory.ndjson");
        std::fs::write(&file, texts.join("\n")).unwrap();
        drop(texts);
        let mut command = bench.database.landfall(&["load"]);
        let mut child = command.arg(&file).stdout(std::process::Stdio::null()).spawn().unwrap();
        let most = peak(&mut child).await;
        assert!(child.wait().await.unwrap().success());
        println!("  {} items: {} MB at most", kind.name(), most / 1024);
    }
}

/// The ledger with few and with ten million rows: a batch of events, and the questions of `landfall status`.
async fn ledger(bench: &mut Bench) {
    let catalogue = bench.catalogue(1).await;
    let (mut held, mut first): (usize, Option<Vec<Duration>>) = (0, None);
    for size in [10_000, 10_000_000].map(|size| size / bench.scale) {
        let fill = format!(
            "insert into landfall.ledger (bucket, key, subject, kind, collection, item, change, etag, size, sequencer, event_time, provider, state, effect, event, announced, destination, updated)
            select 'landing', format('provider-%s/c%s/metadata/items/item-%s.json', n % 50, n % 200, n), format('item:5:c%s/item-%s', n % 200, n), 'item', 'c' || n % 200, 'item-' || n,
                'created', md5(n::text), 1300, lpad(to_hex(n), 64, '0'), timestamptz '2024-01-01' + n * interval '1 second', 'provider-' || n % 50, 'loaded', 'created', md5('e' || n),
                now(), 's3://archive/' || n, timestamptz '2024-01-01' + n * interval '1 second'
            from generate_series({held}, {}) n", size - 1);
        let begun = Instant::now();
        bench.database.client.batch_execute(&fill).await.unwrap();
        bench.database.client.batch_execute("vacuum analyze landfall.ledger").await.unwrap();
        bench.database.client.batch_execute("checkpoint").await.unwrap();
        held = size;
        let bytes: i64 = bench
            .database
            .client
            .query_one("select pg_total_relation_size('landfall.ledger')", &[])
            .await
            .unwrap()
            .get(0);
        println!(
            "\n{size} rows ({:.0} bytes each with all indexes; filled in {:.0} s), medians:",
            bytes as f64 / size as f64,
            begun.elapsed().as_secs_f64()
        );
        let mut times = Vec::new();
        let id = bench.collection(Kind::Small, Months::Null).await;
        let texts = bench.texts(Kind::Small, Months::Null, &id, 0, 3_000);
        let mut loads = texts.chunks(100).map(|batch| batch.iter().map(|text| event(text)).collect::<Vec<_>>());
        times.push((
            "a batch of 100 events",
            median(async || {
                catalogue.apply(&loads.next().unwrap().iter().collect::<Vec<_>>(), Timestamp::MAX).await.unwrap();
            })
            .await,
        ));
        let middle = size / 2;
        let key = format!("provider-{}/c{}/metadata/items/item-{middle}.json", middle % 50, middle % 200);
        let asked = [
            ("by key", RowFilter { prefix: Some(key), ..RowFilter::default() }),
            ("by prefix, 100 newest", RowFilter { prefix: Some("provider-7/c7/".into()), ..RowFilter::default() }),
            (
                "by item",
                RowFilter {
                    collection: Some(format!("c{}", middle % 200)),
                    item: Some(format!("item-{middle}")),
                    ..RowFilter::default()
                },
            ),
            ("by collection, 100 newest", RowFilter { collection: Some("c3".into()), ..RowFilter::default() }),
            ("by provider, 100 newest", RowFilter { provider: Some("provider-9".into()), ..RowFilter::default() }),
            ("by time", RowFilter { since: Some(Timestamp::now()), ..RowFilter::default() }),
        ];
        for (name, filter) in asked {
            times.push((
                name,
                median(async || {
                    catalogue.rows(&filter, 100).await.unwrap();
                })
                .await,
            ));
        }
        for (index, (name, time)) in times.iter().enumerate() {
            let ratio = first
                .as_ref()
                .map(|first| format!("  {:.2}x", time.as_secs_f64() / first[index].as_secs_f64()))
                .unwrap_or_default();
            println!("  {name:<28} {:>9.2} ms{ratio}", time.as_secs_f64() * 1e3);
        }
        first.get_or_insert(times.into_iter().map(|(_, time)| time).collect());
    }
}

async fn median(mut run: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        run().await;
        times.push(begun.elapsed());
    }
    times.sort();
    times[10]
}
