//! The catalogue in PostgreSQL and the one in memory decide the same: they share the plan, and this holds that what
//! PostgreSQL fetches for it is enough. Random histories, each from its seed; `LANDFALL_SEEDS=n` runs more of them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;

use jiff::Timestamp;
use landfall_events::report::{Ignored, Report};
use landfall_events::routed::{CollectionReleased, CollectionRouted, ItemRouted, ObjectRemoved, RoutedObject};
use landfall_events::status::Outcome;
use landfall_events::{Cause, Change, Document, Envelope, Event, ObjectRef, Refusal, Routed, Sequencer, codes, report};
use landfall_shared::catalogue::{Catalogue, Content, Load, PostgresCatalogue, Row, RowFilter};
use landfall_shared::memory::MemoryCatalogue;
use landfall_shared::pgstac::Item;
use landfall_tests::memory_world::{collection, item};
use landfall_tests::real_world::Database;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a history is made of: few keys, items and providers, so that they meet.
struct Dice(StdRng);

impl Dice {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.0.random_range(0..choices.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn cause(&mut self, key: &str) -> Cause {
        let number: u32 = self.0.random_range(1..40);
        Cause {
            object: ObjectRef::new("landing", key),
            change: Change::Created,
            version_id: None,
            etag: Some(format!("e{number}")),
            size: Some(1),
            sequencer: Sequencer::try_from(format!("{number:X}")).ok(),
            event_time: Timestamp::from_second(1_700_000_000 + i64::from(number)).expect("it is in range"),
            member: None,
            members: None,
        }
    }

    fn envelope<E: Event>(&mut self, event: E, provider: &str) -> Envelope<E> {
        let redrive = if self.chance(15) { 1 } else { 0 };
        Envelope::new(event, provider, redrive)
    }

    fn load(&mut self) -> Load {
        let provider = if self.chance(15) { "q" } else { "p" };
        let collection_id = self.one_of(&["C", "D"]).to_owned();
        let stored = RoutedObject { object: ObjectRef::new("archive", "x"), size: 1, etag: None, storage_class: None };
        let pack =
            |text: &str| Document::Inline(serde_json::value::RawValue::from_string(text.into()).expect("it is JSON"));
        let (event, content): (Routed, Content) = match self.0.random_range(0..10) {
            0 => {
                let cause = self.cause(&format!("{provider}/{collection_id}.json"));
                let text = collection(&collection_id);
                let document = pack(&text);
                let routed = CollectionRouted { cause, collection: collection_id, document, stored, warnings: vec![] };
                (routed.into(), Content::Collection(text.into()))
            }
            1 | 2 => {
                let key = self.one_of(&["k1", "k2", "k3"]).to_owned();
                let cause = Cause { change: Change::Removed, etag: None, size: None, ..self.cause(&key) };
                (ObjectRemoved { cause }.into(), Content::Nothing)
            }
            _ => {
                let id = self.one_of(&["a", "b", "c"]).to_owned();
                let key = self.one_of(&["k1", "k2", "k3"]).to_owned();
                let mut cause = self.cause(&key);
                cause.member = self.chance(30).then(|| self.0.random_range(1..3));
                let text = item(&id, &collection_id, &format!("{key} {cause:?}"));
                let document = pack(&text);
                (
                    ItemRouted {
                        cause,
                        collection: collection_id,
                        item: id,
                        document,
                        stored,
                        assets: vec![],
                        warnings: vec![],
                    }
                    .into(),
                    read(&text),
                )
            }
        };
        Load { envelope: self.envelope(event, provider), content, released_by: None }
    }

    fn report(&mut self) -> Envelope<Report> {
        let key = self.one_of(&["k1", "k2", "k3"]).to_owned();
        let mut cause = self.cause(&key);
        cause.member = self.chance(30).then(|| self.0.random_range(1..3));
        let report: Report = if self.chance(50) {
            let refusal = Refusal::new(codes::STAC_SCHEMA, "no\u{0}good");
            let refusal = if self.chance(50) { refusal.of_item("C", self.one_of(&["a", "b"])) } else { refusal };
            report::Refused { cause, stage: "validate".into(), refusal }.into()
        } else {
            Ignored { cause, rule: "overwritten".into() }.into()
        };
        self.envelope(report, "p")
    }
}

fn read(text: &str) -> Content {
    Content::Item(std::sync::Arc::new(Item::read(text).unwrap()))
}

/// What two rows must agree in.
fn essence(row: &Row) -> String {
    let waits =
        (&row.waits_for, row.until, &row.code, &row.reason.as_deref().map(|text| text.replace('\u{0}', "\u{FFFD}")));
    let parked = (row.parked.is_some(), &row.released_by, row.announced.is_some());
    let what = (row.state, row.effect, &row.event, row.redrive, &row.provider, &row.destination);
    format!("{:?} {} {what:?} {waits:?} {parked:?}", row.cause, row.subject)
}

async fn history(seed: u64, postgres: &PostgresCatalogue, database: &Database) {
    database
        .client
        .batch_execute("truncate landfall.ledger, landfall.collections; delete from pgstac.collections")
        .await
        .unwrap();
    let memory = MemoryCatalogue::new(std::sync::Arc::default());
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let until = "2030-01-01T00:00:00Z".parse().unwrap();
    let mut before: Vec<Load> = Vec::new();
    for step in 0..25 {
        let what = format!("seed {seed}, step {step}");
        match dice.0.random_range(0..8) {
            0 => {
                let reports: Vec<_> = (0..dice.0.random_range(1..4)).map(|_| dice.report()).collect();
                let said =
                    (postgres.record(&reports, None).await.unwrap(), memory.record(&reports, None).await.unwrap());
                assert_eq!(said.0, said.1, "{what}: {reports:?}");
            }
            1 => {
                let ids: Vec<_> =
                    memory.kept().rows.values().filter(|_| dice.chance(50)).map(|row| row.event.clone()).collect();
                postgres.announced(&ids).await.unwrap();
                memory.announced(&ids).await.unwrap();
            }
            2 => {
                let cause = dice.cause("p/C.json");
                let release = CollectionReleased { cause, collection: "C".into(), batch: dice.0.random_range(0..2) };
                let id = Envelope::new(Routed::from(release), "p", 0).id;
                let now = if dice.chance(50) { until } else { Timestamp::UNIX_EPOCH };
                let found = postgres.releasable(&id, "C", 10, now).await.unwrap();
                assert_eq!(found, memory.releasable(&id, "C", 10, now).await.unwrap(), "{what}");
                let load = |envelope: Envelope<Routed>| {
                    let Routed::Item(routed) = &envelope.event else { panic!("only items are parked") };
                    let Document::Inline(raw) = &routed.document else { panic!("it is inline") };
                    Load { content: read(raw.get()), released_by: Some(id.clone()), envelope }
                };
                let ready = found.into_iter().filter(|waiter| waiter.refusal.is_none());
                let loads: Vec<_> = ready.map(|waiter| load(waiter.envelope)).collect();
                let all: Vec<_> = loads.iter().collect();
                let did = (postgres.apply(&all, until).await.unwrap(), memory.apply(&all, until).await.unwrap());
                assert_eq!(did.0, did.1, "{what}: release");
            }
            _ => {
                let mut loads: Vec<_> = (0..dice.0.random_range(1..5)).map(|_| dice.load()).collect();
                if let Some(again) = before.first().filter(|_| dice.chance(40)) {
                    loads.push(again.clone());
                }
                let all: Vec<_> = loads.iter().collect();
                let did = (postgres.apply(&all, until).await.unwrap(), memory.apply(&all, until).await.unwrap());
                assert_eq!(did.0, did.1, "{what}: {loads:?}");
                before.splice(0..0, loads);
            }
        }
        let rows = postgres.rows(&RowFilter::default(), 10_000).await.unwrap();
        let rows: BTreeSet<_> = rows.iter().map(|row| essence(&row.row)).collect();
        let kept = memory.kept();
        assert_eq!(rows, kept.rows.values().map(essence).collect::<BTreeSet<_>>(), "{what}");
        let sql = "select collection, id, content->'properties'->>'title' from pgstac.items order by 1, 2";
        let items = database.client.query(sql, &[]).await.unwrap();
        let titles: Vec<_> = items.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let title = |text: &str| {
            serde_json::from_str::<serde_json::Value>(text).unwrap()["properties"]["title"].as_str().unwrap().to_owned()
        };
        let expected: Vec<(String, String, String)> =
            kept.items.iter().map(|((collection, id), text)| (collection.clone(), id.clone(), title(text))).collect();
        assert_eq!(titles, expected, "{what}");
    }
}

#[tokio::test]
async fn postgres_and_memory_decide_the_same() {
    let database = Database::start().await.unwrap();
    let postgres = PostgresCatalogue::new(&database.url, 2).unwrap();
    let seeds = std::env::var("LANDFALL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        history(seed, &postgres, &database).await;
    }
}

/// A change of the key `k`, by its number.
fn change(number: u32) -> Cause {
    let object = ObjectRef::new("landing", "k");
    let sequencer = Sequencer::try_from(format!("{number:X}")).ok();
    let event_time = Timestamp::from_second(Timestamp::now().as_second() + i64::from(number)).unwrap();
    Cause {
        object,
        sequencer,
        event_time,
        etag: Some(format!("e{number}")),
        ..Dice(StdRng::seed_from_u64(1)).cause("k")
    }
}

fn refused(cause: Cause) -> Envelope<Report> {
    let refusal = Refusal::new(codes::STAC_SCHEMA, "no good");
    Envelope::new(report::Refused { cause, stage: "validate".into(), refusal }.into(), "p", 0)
}

#[tokio::test]
async fn a_file_is_told_of_when_all_its_members_are() {
    let database = Database::start().await.unwrap();
    let postgres = PostgresCatalogue::new(&database.url, 2).unwrap();
    let (file, name) = (change(1), ("k".to_owned(), "e1".to_owned()));
    for (member, in_part) in [(1, true), (3, true), (3, true), (2, false)] {
        postgres.record(&[refused(file.of_member(member, 3))], None).await.unwrap();
        let known = postgres.known("landing", &["k", "other"]).await.unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[&name].is_in_part(), in_part, "{known:?}");
    }
    // What some members have come to is forgotten after a time: the others stand for all.
    let long_ago = "update landfall.ledger set event_time = event_time - interval '100 days' where member <> 2;
        delete from landfall.ledger where member = 2";
    database.client.batch_execute(long_ago).await.unwrap();
    assert!(!postgres.known("landing", &["k"]).await.unwrap()[&name].is_in_part());
    // A document that is no file of members is told of by its one row.
    postgres.record(&[refused(change(2))], None).await.unwrap();
    let known = postgres.known("landing", &["k"]).await.unwrap();
    assert!(!known[&("k".to_owned(), "e2".to_owned())].is_in_part(), "{known:?}");
    // Two members with one id, and a file that is given up as a whole with some of its members, until it is sent again.
    let of_item = |member, members| {
        let mut report = refused(change(4).of_member(member, members));
        if let Report::Refused(refused) = &mut report.event {
            refused.refusal = refused.refusal.clone().of_item("c", "i");
        }
        report
    };
    let name_then = ("k".to_owned(), "e4".to_owned());
    let is_in_part = async || postgres.known("landing", &["k"]).await.unwrap()[&name_then].is_in_part();
    postgres.record(&[of_item(1, 2)], None).await.unwrap();
    assert!(is_in_part().await);
    postgres.record(&[of_item(2, 2)], None).await.unwrap();
    assert!(!is_in_part().await);
    postgres.record(&[of_item(1, 3)], None).await.unwrap();
    assert!(is_in_part().await);
    let whole = refused(change(4));
    postgres.record(std::slice::from_ref(&whole), None).await.unwrap();
    assert!(!is_in_part().await);
    let overtaken = async || postgres.overtaken(&[(&whole.id, whole.event.cause(), 0)]).await.unwrap();
    assert_eq!(overtaken().await, [false]);
    let stands = async || {
        let filter = RowFilter { prefix: Some("k".into()), ..RowFilter::default() };
        let rows = postgres.rows(&filter, 10).await.unwrap();
        rows.iter().any(|row| row.row.event == whole.id && !row.outdated)
    };
    for (member, of_file) in [(3, true), (1, true), (2, false)] {
        postgres.record(&[of_item(member, 3).redriven(1)], None).await.unwrap();
        assert_eq!(stands().await, of_file, "the file was sent again, and {member} is told of");
        assert_eq!(overtaken().await, [!of_file]);
    }
}

#[tokio::test]
async fn a_row_is_outdated_by_what_landed_later_with_a_sequencer_or_without() {
    let database = Database::start().await.unwrap();
    let postgres = PostgresCatalogue::new(&database.url, 2).unwrap();
    let rows = async || {
        let filter = RowFilter { prefix: Some("k".into()), ..RowFilter::default() };
        let rows = postgres.rows(&filter, 10).await.unwrap();
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row.row.cause.etag.unwrap(), row.outdated)).collect();
        rows.sort_unstable();
        rows
    };
    let listed = |number: u32| Cause { sequencer: None, ..change(number) };
    let mut expected: Vec<(String, bool)> = Vec::new();
    // Each is another member, whose row stays beside the others'.
    for (member, number, has_sequencer) in [(1, 1, true), (2, 2, false), (3, 3, false), (4, 4, true), (5, 5, true)] {
        let cause = if has_sequencer { change(number) } else { listed(number) };
        postgres.record(&[refused(cause.of_member(member, 9))], None).await.unwrap();
        expected.iter_mut().for_each(|row| row.1 = true);
        expected.push((format!("e{number}"), false));
        assert_eq!(rows().await, expected);
    }
    assert_eq!(postgres.counts(&RowFilter::default()).await.unwrap().iter().map(|count| count.rows).sum::<u64>(), 5);
}

#[tokio::test]
async fn a_refusal_is_overtaken_by_a_later_change_or_a_later_end_and_by_nothing_else() {
    let database = Database::start().await.unwrap();
    let postgres = PostgresCatalogue::new(&database.url, 2).unwrap();
    let letters = [refused(change(2)), refused(change(2).of_member(1, 2)), refused(change(2).of_member(2, 2))];
    let overtaken = async || {
        let asked: Vec<_> = letters.iter().map(|report| (&report.id, report.event.cause(), 0)).collect();
        postgres.overtaken(&asked).await.unwrap()
    };
    assert_eq!(overtaken().await, [false, false, false], "notify has not come to them");
    postgres.record(&letters[..2], None).await.unwrap();
    assert_eq!(overtaken().await, [false, false, false]);
    // An older change that is told late, and another member's end.
    postgres.record(&[refused(change(1))], None).await.unwrap();
    assert_eq!(overtaken().await, [false, false, false]);
    let again = letters[1].clone().redriven(1);
    postgres.record(&[again], None).await.unwrap();
    assert_eq!(overtaken().await, [false, true, false], "it was redriven, and refused again");
    postgres.record(&[refused(change(3))], None).await.unwrap();
    assert_eq!(overtaken().await, [true, true, true]);
    // What holds a quote or nothing at all is asked about like the rest.
    let object = ObjectRef::new("landing", "it's \u{0} %_");
    let odd = refused(Cause { object, sequencer: None, ..change(1) });
    assert_eq!(postgres.overtaken(&[(&odd.id, odd.event.cause(), 7)]).await.unwrap(), [false]);
    assert_eq!(postgres.overtaken(&[]).await.unwrap(), Vec::<bool>::new());
}

#[tokio::test]
async fn what_is_dropped_is_over_and_what_the_catalogue_holds_stays_there() {
    let database = Database::start().await.unwrap();
    let postgres = PostgresCatalogue::new(&database.url, 2).unwrap();
    let other = Cause { object: ObjectRef::new("landing", "data"), ..change(1) };
    let stored = RoutedObject { object: ObjectRef::new("archive", "x"), size: 1, etag: None, storage_class: None };
    let routed = report::ObjectRouted { cause: other.clone(), destination: stored };
    let routed: Envelope<Report> = Envelope::new(routed.into(), "p", 0);
    let refusal = refused(change(1));
    postgres.record(&[refusal.clone(), routed.clone()], None).await.unwrap();
    assert_eq!(postgres.dropped(std::slice::from_ref(&routed.id)).await.unwrap(), [], "it was not given up");
    // Notify has not found it in time.
    let not_found = Refusal::new(codes::NOTIFY_NOT_FOUND, "not there");
    let not_found = report::Refused { cause: other, stage: "notify".into(), refusal: not_found };
    postgres.record(&[Envelope::new(not_found.into(), "p", 0)], None).await.unwrap();

    let dropped = postgres.dropped(&[refusal.id.clone(), routed.id.clone()]).await.unwrap();

    let mut told: Vec<_> = dropped.iter().map(|row| (row.state.as_str(), row.outcome(false))).collect();
    told.sort();
    assert_eq!(told, [("ignored", Outcome::Ignored), ("routed", Outcome::Ignored)]);
    let reason = "an operator has dropped it; it was refused: notify.not-found: not there";
    assert!(dropped.iter().any(|row| row.reason.as_deref() == Some(reason)), "{dropped:?}");
    let counts = postgres.counts(&RowFilter::default()).await.unwrap();
    assert_eq!(
        counts.iter().map(|one| (one.outcome, one.rows)).collect::<BTreeSet<_>>(),
        [(Outcome::Ignored, 1)].into()
    );
    assert_eq!(postgres.dropped(&[refusal.id, routed.id]).await.unwrap(), [], "once");
}
