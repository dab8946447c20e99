//! Whatever comes in whatever order, however often, to workers that are killed over a database that crashes: in the end
//! pgSTAC holds what the causes make of it, applied in their order. `LANDFALL_SCHEDULES=n` runs more of them, from
//! `LANDFALL_SEED`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_events::routed::{CollectionRouted, ItemRouted};
use landfall_events::{Change, Envelope, Event, ObjectRef, Routed};
use landfall_shared::catalogue::{PostgresCatalogue, RowFilter};
use landfall_tests::load_world::{Around, Schedule, cause, document, empty, held, inline, stored};
use landfall_tests::real_world::Database;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// One schedule over four workers, with kills, and with a crash of the server for one in twenty.
async fn happen(seed: u64, database: &mut Database) {
    let mut dice = StdRng::seed_from_u64(seed);
    let schedule = Schedule::random(&mut dice);
    empty(&database.client).await.unwrap();
    let around = Around::default();
    for (object, text) in &schedule.archived {
        around.objects.land(object, text.clone());
    }
    let sizes: Vec<usize> = (0..4).map(|_| dice.random_range(1..12)).collect();
    let start = |index: usize| around.worker(&database.url, sizes[index], 2);
    let mut workers: Vec<_> = (0..4).map(start).collect();
    for delivery in &schedule.deliveries {
        around.push(delivery);
        match dice.random_range(0..40) {
            0 | 1 => {
                let index = dice.random_range(0..4);
                workers[index].abort();
                workers[index] = start(index);
            }
            2..10 => tokio::time::sleep(Duration::from_millis(dice.random_range(0..8))).await,
            _ => {}
        }
    }
    if seed.is_multiple_of(20) {
        for worker in &workers {
            worker.abort();
        }
        database.restart_at_once().await.unwrap();
        workers = (0..4).map(|index| around.worker(&database.url, sizes[index], 2)).collect();
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..50))).await;
        // And once more while they are at it.
        database.restart_at_once().await.unwrap();
    }

    around.at_rest().await;

    workers.iter().for_each(tokio::task::JoinHandle::abort);
    let letters = around.dead.messages();
    assert!(letters.is_empty(), "seed {seed}: {letters:?}");
    // One id has one content, whatever was repeated.
    drop(around.reports());
    let held = held(&database.client).await.unwrap();
    if held != schedule.expected {
        let line = |delivery: &Envelope<Routed>| {
            let cause = delivery.event.cause();
            let item = if let Routed::Item(routed) = &delivery.event {
                format!("{} {}", routed.collection, routed.item)
            } else {
                String::new()
            };
            format!("{} {:?} {:?} {item}", cause.object, cause.change, cause.sequencer)
        };
        let history = schedule.deliveries.iter().map(line).collect::<Vec<_>>().join("\n");
        let rows = PostgresCatalogue::new(&database.url, 1).unwrap().rows(&RowFilter::default(), 1000).await.unwrap();
        let rows = rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {:?} {:?}",
                    row.row.cause.object, row.row.subject, row.row.cause.sequencer, row.row.state
                )
            })
            .collect::<Vec<_>>()
            .join("\n");
        println!("{history}\n{rows}");
    }
    assert_eq!(held, schedule.expected, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_end_the_catalogue_holds_what_the_causes_make_of_it() {
    let mut database = Database::start().await.unwrap();
    let first = number("LANDFALL_SEED", 0);
    for seed in first..first + number("LANDFALL_SCHEDULES", 50) {
        happen(seed, &mut database).await;
    }
}

fn item(key: &str, id: &str, text: &str, second: i64) -> Envelope<Routed> {
    let routed = ItemRouted {
        cause: cause(key, Change::Created, second),
        collection: "C".into(),
        item: id.into(),
        document: inline(text),
        stored: stored(&ObjectRef::new("archive", key)),
        assets: vec![],
        warnings: vec![],
    };
    Envelope::new(routed.into(), "p", 0)
}

fn collection(id: &str) -> Envelope<Routed> {
    let routed = CollectionRouted {
        cause: cause(&format!("{}.json", &id[..1]), Change::Created, 1),
        collection: id.into(),
        document: inline(&format!(r#"{{"type":"Collection","id":"{id}","extent":{{}}}}"#)),
        stored: stored(&ObjectRef::new("archive", "C.json")),
        warnings: vec![],
    };
    Envelope::new(routed.into(), "p", 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_thousand_items_seven_are_poison_and_all_others_are_loaded() {
    let database = Database::start().await.unwrap();
    let around = Around::default();
    around.push(&collection("C"));
    let worker = around.worker(&database.url, 100, 4);
    around.at_rest().await;
    let mut dice = StdRng::seed_from_u64(7);
    let good = |id: &str| document("C", id, "2024-05-17T10:15:00Z", "good");
    let mut noise =
        |length: usize| -> String { (0..length).map(|_| char::from(dice.random_range(b'!'..b'~'))).collect() };
    let (long_key, long_id) = (noise(1000), noise(1000).replace(['\\', '"'], "x"));
    let long_collection = noise(800).replace(['\\', '"'], "x");
    let with = |from: &str, to: &str| good("bad").replace(from, to);
    // Five that are refused before the database, and two that only it can refuse.
    let poison = [
        ("load.geometry", "a", "bad", with("[16.5,47.9],\"type\":\"Point\"", "[\"a\",\"b\"],\"type\":\"Point\"")),
        ("load.datetime", "b", "bad", with("2024-05-17T10:15:00Z", "yesterday")),
        ("load.nul", "c", "bad", with("good", "\\u0000")),
        ("load.json", "d", "bad", with("good", "\\ud800")),
        ("load.id", "e", "bad", with("\"bad\"", "\"\"")),
        ("load.number", "f", "bad", with("\"title\"", "\"x\":1e-200000,\"title\"")),
        (
            "load.too-large",
            long_key.as_str(),
            long_id.as_str(),
            good(&long_id).replace("\"C\"", &format!("\"{long_collection}\"")),
        ),
    ];
    around.push(&collection(&long_collection));
    for (kind, (code, key, id, text)) in (0i64..).zip(&poison) {
        assert!(*text != good("bad"), "{code}");
        let mut poisoned = item(key, id, text, 10_000 + kind);
        if let (Routed::Item(routed), "load.too-large") = (&mut poisoned.event, *code) {
            routed.collection.clone_from(&long_collection);
        }
        around.push(&poisoned);
    }
    for n in 0..4993 {
        around.push(&item(&format!("k{n}"), &format!("i{n}"), &good(&format!("i{n}")), n));
    }
    let before = around.attempts.load(Ordering::Relaxed);

    around.at_rest().await;

    worker.abort();
    let count: i64 = database.client.query_one("select count(*) from pgstac.items", &[]).await.unwrap().get(0);
    assert_eq!(count, 4993);
    let mut codes: Vec<_> = around.dead.messages().iter().map(|letter| letter.attributes["code"].clone()).collect();
    codes.sort();
    let mut expected: Vec<_> = poison.iter().map(|(code, ..)| (*code).to_owned()).collect();
    expected.sort();
    assert_eq!(codes, expected);
    // A batch of a hundred is four transactions, one for each connection.
    let (attempts, batches) = (around.attempts.load(Ordering::Relaxed) - before, 4 * 5000_usize.div_ceil(100));
    println!("{attempts} attempts for {batches} transactions");
    assert!(attempts <= batches + 7 * 7, "{attempts}");
}

/// Nothing that waits is touched by the transaction that creates its collection, and what goes on goes in batches: for
/// `LANDFALL_PARKED=100000` as for the few of every run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_goes_on_in_batches_however_much_it_is() {
    let database = Database::start().await.unwrap();
    let around = Around::default();
    let parked = usize::try_from(number("LANDFALL_PARKED", 2_000)).unwrap();
    for n in 0..parked {
        let id = format!("i{n}");
        let text = document("C", &id, "2024-05-17T10:15:00Z", "waited");
        let key = format!("k{n}");
        around.objects.land(&ObjectRef::new("archive", &key), text.clone());
        around.push(&item(&key, &id, &text, i64::try_from(n).unwrap()));
    }
    let workers: Vec<_> = (0..2).map(|_| around.worker(&database.url, 100, 2)).collect();
    around.at_rest().await;
    let states =
        "select count(*) filter (where state = 'parked'), count(*) filter (where state = 'loaded' and kind = 'item')
        from landfall.ledger";
    let row = database.client.query_one(states, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (parked as i64, 0));

    around.push(&collection("C"));
    around.at_rest().await;

    workers.iter().for_each(tokio::task::JoinHandle::abort);
    let row = database.client.query_one(states, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, parked as i64));
    assert!(around.dead.messages().is_empty());
    let transactions = "select count(*), max(rows) from (select count(*) as rows from landfall.ledger
        group by xmin::text union all select count(*) from pgstac.items group by xmin::text) as t";
    let row = database.client.query_one(transactions, &[]).await.unwrap();
    let (count, most): (i64, i64) = (row.get(0), row.get(1));
    println!("{count} transactions of at most {most} rows");
    assert!(most <= 100, "{most} rows were written by one transaction");
}
