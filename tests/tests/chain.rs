//! The whole chain in memory: scenarios, and the fault sweep over each of them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use landfall_events::notice::Topic;
use landfall_shared::memory::Strike;
use landfall_tests::memory_world::{Snapshot, World, collection, item};

/// Lets a scenario happen in a fresh world with one strike, and gives what can be seen afterwards.
async fn happen(scenario: Scenario, strike: Strike) -> (Snapshot, bool) {
    let world = scenario.world();
    world.arm(strike);
    scenario.run(&world).await;
    let struck = !world.faults.is_armed();
    let receives = world.queues.values().map(|queues| queues.own.receives_max()).max();
    assert_eq!(receives, Some(0), "the queues are empty");
    (world.snapshot(), struck)
}

#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// Item, assets, collection, data and two refusals, the item before its collection.
    Everything,
    /// A key is overwritten, and events come late and twice.
    Overwritten,
    /// A refused item is mended; an unmapped file is redriven after its map was mended.
    Mended,
    /// An ndjson with a bad line, and an item that is removed.
    Members,
    /// Items that wait for one collection: of its owner, of somebody else, poison, and one id under two keys.
    Contested,
    /// What is completed is deleted from landing, and S3 says so; events come again afterwards.
    Cleared,
    /// What is loaded is found only after a while.
    Lagging,
    /// What is loaded is not found until the deadline; its letter is redriven later.
    NeverFound,
    /// The bucket map places files by the item that names them; they land before it, and one is of no item.
    Placed,
}

/// Keys by collection and item.
const PLACED: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      default: {bucket: {name: archive}}
      paths:
        - {collection: C, prefix: D/, bucket: {name: archive}, key: '{collection}/{year}/{item}/{filename}'}
";

impl Scenario {
    fn world(self) -> World {
        match self {
            Self::Cleared => World::with("[[landing]]\nafter_route = 'delete'\n", landfall_tests::memory_world::MAP),
            Self::Placed => World::with("", PLACED),
            Self::Everything
            | Self::Overwritten
            | Self::Mended
            | Self::Members
            | Self::Contested
            | Self::Lagging
            | Self::NeverFound => World::new(),
        }
    }

    async fn run(self, world: &World) {
        match self {
            Self::Everything => {
                world.land("sbn/C/metadata/items/i.json", &item("i", "C", "one"));
                world.settle_until_waiting().await;
                world.land("sbn/C/data/i.tif", "II*");
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.land("sbn/C/readme 100%+ü🛰.txt", "hello");
                world.land("sbn/C/metadata/broken.json", "{");
                world.land("xyz/a.txt", "of nobody");
                world.settle().await;
            }
            Self::Overwritten => {
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.land("sbn/C/data/i.tif", "II*");
                let first = world.land("sbn/C/metadata/items/i.json", &item("i", "C", "old"));
                world.settle().await;
                let second = world.land("sbn/C/metadata/items/i.json", &item("i", "C", "new"));
                world.notify_of(&first);
                world.settle().await;
                world.notify_of(&first);
                world.notify_of(&second);
                world.settle().await;
            }
            Self::Mended => {
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.land("sbn/C/data/i.tif", "II*");
                world.land("sbn/C/metadata/items/i.json", &item("", "C", "broken"));
                world.land("xyz/a.txt", "of nobody");
                world.settle().await;
                world.land("sbn/C/metadata/items/i.json", &item("i", "C", "mended"));
                let map = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}}}, XYZ: {default: {bucket: {name: archive}}}}}";
                world.objects.land(&landfall_events::ObjectRef::new("work", "config/bucket-map.yaml"), map);
                tokio::time::sleep(std::time::Duration::from_secs(3)).await;
                world.redrive("route");
                world.settle().await;
            }
            Self::Members => {
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.land("sbn/C/metadata/data/a.tif", "II*");
                world.land("sbn/C/data/b.tif", "II*");
                let lines = format!("{}\nnot json\n{}\n", item("a", "C", "a"), item("b", "C", "b"));
                world.land("sbn/C/metadata/items.ndjson", &lines);
                world.land("sbn/C/data/i.tif", "II*");
                world.land("sbn/C/metadata/items/i.json", &item("i", "C", "soon gone"));
                world.settle().await;
                world.remove("sbn/C/metadata/items/i.json");
                world.settle().await;
            }
            Self::Contested => {
                let free = |id: &str, title: &str| {
                    item(id, "C", title).replace(&format!("data/{id}.tif"), "https://example.com/x")
                };
                world.land("sbn/C/metadata/items/i.json", &free("i", "of the owner"));
                world.land("sbn/C/metadata/items/two-a.json", &free("two", "older key"));
                world.land("sbn/C/metadata/items/two-b.json", &free("two", "newer key"));
                world.land("sbn/C/metadata/items/bad.json", &free("bad", "poison"));
                world.land("abc/C/metadata/items/i.json", &free("i", "of somebody else"));
                world.settle().await;
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.settle().await;
            }
            Self::Cleared => {
                let asset = world.land("sbn/C/data/i.tif", "II*");
                world.settle().await;
                let first = world.land("sbn/C/metadata/items/i.json", &item("i", "C", "one"));
                world.land("sbn/C/metadata/collection.json", &collection("C"));
                world.land("sbn/C/metadata/broken.json", "{");
                world.settle().await;
                for key in ["sbn/C/data/i.tif", "sbn/C/metadata/items/i.json", "sbn/C/metadata/collection.json"] {
                    world.remove(key);
                }
                world.notify_of(&asset);
                world.notify_of(&first);
                world.settle().await;
            }
            Self::Lagging => {
                world.catalogue.lag(true);
                land_one(world);
                world.settle_until_waiting().await;
                check_silent(world);
                world.catalogue.lag(false);
                world.settle().await;
            }
            Self::NeverFound => {
                world.catalogue.lag(true);
                land_one(world);
                world.settle().await;
                check_silent(world);
                world.catalogue.lag(false);
                world.redrive("notify");
                world.settle().await;
            }
            Self::Placed => {
                world.land("sbn/D/data/i.tif", "II*");
                world.land("sbn/D/data/nobodys.tif", "II*");
                world.settle_until_waiting().await;
                world.land("sbn/D/metadata/items/i.json", &item("i", "C", "one"));
                world.land("sbn/D/metadata/collection.json", &collection("C"));
                world.settle().await;
            }
        }
    }
}

/// An item with its asset and its collection.
fn land_one(world: &World) {
    world.land("sbn/C/data/i.tif", "II*");
    world.land("sbn/C/metadata/collection.json", &collection("C"));
    world.land("sbn/C/metadata/items/i.json", &item("i", "C", "one"));
}

/// Asserts that nothing is said of what cannot be found.
#[track_caller]
fn check_silent(world: &World) {
    let published = world.topics.published();
    let said = published.iter().find(|notice| notice.topic == Topic::Completed && notice.body.contains("stac"));
    assert!(said.is_none(), "{said:?}");
}

/// Compares part by part, so that a difference can be read.
#[track_caller]
fn check_same(seen: &Snapshot, expected: &Snapshot, what: &str) {
    assert_eq!(seen.ledger, expected.ledger, "{what}");
    assert_eq!(seen.letters, expected.letters, "{what}");
    assert_eq!(seen.items, expected.items, "{what}");
    assert_eq!(seen.statuses, expected.statuses, "{what}");
    assert_eq!(seen.notices.keys().collect::<Vec<_>>(), expected.notices.keys().collect::<Vec<_>>(), "{what}");
    assert_eq!(seen, expected, "{what}");
}

/// For n = 1, 2, 3 …: the n-th port call fails, or the process is gone right after it, until no strike strikes.
/// Each time the world comes to the same end.
async fn sweep(scenario: Scenario) {
    let (expected, _) = happen(scenario, Strike::Never).await;
    assert!(!expected.notices.is_empty());
    let mut strikes = 0;
    for strike in [Strike::Fail as fn(u64) -> Strike, Strike::CrashAfter] {
        for call in 1.. {
            let (seen, struck) = happen(scenario, strike(call)).await;
            if !struck {
                break;
            }
            check_same(&seen, &expected, &format!("{scenario:?} with {:?}", strike(call)));
            strikes += 1;
        }
    }
    assert!(strikes > 50, "only {strikes} strikes: is anything struck at all?");
    eprintln!("{scenario:?}: {strikes} strikes, one end");
}

#[tokio::test(start_paused = true)]
async fn everything_ends_the_same_whatever_call_fails() {
    sweep(Scenario::Everything).await;
}

#[tokio::test(start_paused = true)]
async fn an_overwritten_key_ends_the_same_whatever_call_fails() {
    sweep(Scenario::Overwritten).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_mended_ends_the_same_whatever_call_fails() {
    sweep(Scenario::Mended).await;
}

#[tokio::test(start_paused = true)]
async fn members_and_removals_end_the_same_whatever_call_fails() {
    sweep(Scenario::Members).await;
}

#[tokio::test(start_paused = true)]
async fn contested_items_end_the_same_whatever_call_fails() {
    sweep(Scenario::Contested).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_found_late_ends_the_same_whatever_call_fails() {
    sweep(Scenario::Lagging).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_never_found_ends_the_same_whatever_call_fails() {
    sweep(Scenario::NeverFound).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_announced_before_it_is_found_and_what_never_is_becomes_a_letter() {
    let (late, _) = happen(Scenario::Lagging, Strike::Never).await;
    // The asset, the collection and the item.
    assert_eq!((topics(&late), late.letters.len()), ((3, 0), 0));

    let world = World::new();
    world.catalogue.lag(true);
    land_one(&world);
    world.settle().await;
    let never = world.snapshot();
    let codes: Vec<_> = never.letters.iter().map(|(stage, code, _)| format!("{stage} {code}")).collect();
    assert_eq!(codes, ["notify notify.not-found"; 2]);
    assert_eq!(topics(&never), (1, 2));
    let told: Vec<_> = never.statuses.values().filter(|told| told.contains("notify.not-found")).collect();
    assert_eq!(told.len(), 2, "{:?}", never.statuses);

    world.catalogue.lag(false);
    world.redrive("notify");
    world.settle().await;
    let redriven = world.snapshot();
    assert_eq!(topics(&redriven), (3, 2));
    let ids = |of: &Snapshot, topic| {
        let of_topic = of.notices.iter().filter(|(_, (one, _))| *one == topic);
        of_topic.map(|(id, _)| id.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&redriven, Topic::Completed), ids(&late, Topic::Completed), "a redriven notice keeps its id");
    assert!(redriven.statuses.values().all(|told| told.starts_with("completed")), "{:?}", redriven.statuses);
}

#[tokio::test(start_paused = true)]
async fn of_contested_items_the_owners_newest_is_loaded_and_the_rest_is_accounted_for() {
    let (seen, _) = happen(Scenario::Contested, Strike::Never).await;
    let titles: Vec<_> =
        ["of the owner", "newer key"].map(|title| seen.items.values().any(|item| item.contains(title))).into();
    assert_eq!((titles, seen.items.len()), (vec![true, true], 2), "{:?}", seen.items);
    let codes: Vec<_> = seen.letters.iter().map(|(stage, code, _)| format!("{stage} {code}")).collect();
    assert_eq!(codes, ["load load.collection-owned", "load load.refused"]);
    // The collection and two items; the foreign one and the poison.
    assert_eq!(topics(&seen), (3, 2));
    assert_eq!(seen.ledger.len(), 6);
    assert_eq!(seen.ledger.iter().filter(|row| row.contains(" superseded ")).count(), 1);
}

fn topics(snapshot: &Snapshot) -> (usize, usize) {
    let of = |wanted: Topic| snapshot.notices.values().filter(|(topic, _)| *topic == wanted).count();
    (of(Topic::Completed), of(Topic::Rejected))
}

#[tokio::test(start_paused = true)]
async fn everything_that_lands_is_loaded_archived_announced_or_refused() {
    let (seen, _) = happen(Scenario::Everything, Strike::Never).await;

    // The item's asset, the item, the collection, the text; the broken document and the file of nobody.
    assert_eq!(topics(&seen), (4, 2));
    assert_eq!(seen.items.keys().collect::<Vec<_>>(), [&("C".to_owned(), "i".to_owned())]);
    assert!(seen.items.values().all(|item| item.contains("s3://archive/sbn/C/data/i.tif")));
    assert_eq!(seen.archived.len(), 4);
    let codes: Vec<_> = seen.letters.iter().map(|(stage, code, _)| format!("{stage} {code}")).collect();
    assert_eq!(codes, ["route route.unmapped", "validate stac.unparseable"]);
    // Six landed, six rows, each in one state.
    assert_eq!(seen.ledger.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_late_older_event_changes_nothing_and_is_not_announced() {
    let (seen, _) = happen(Scenario::Overwritten, Strike::Never).await;
    assert!(seen.items.values().all(|item| item.contains("\"new\"")), "{:?}", seen.items);
    // Collection, asset, the item created and the item replaced.
    assert_eq!(topics(&seen), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_mended_completes_and_its_refusal_stays_said() {
    let (seen, _) = happen(Scenario::Mended, Strike::Never).await;
    // The item, its asset, its collection and the file of nobody, which is somebody's now.
    assert_eq!(topics(&seen), (4, 2));
    assert!(seen.ledger.iter().filter(|row| row.contains("refused")).count() <= 1, "{:?}", seen.ledger);
}

#[tokio::test(start_paused = true)]
async fn a_removed_item_is_gone_and_a_bad_line_is_refused_alone() {
    let (seen, _) = happen(Scenario::Members, Strike::Never).await;
    assert_eq!(seen.items.keys().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(seen.notices.values().any(|(_, body)| body.contains("org.ogc.api.collection.item.delete")));
    assert!(
        seen.letters.iter().any(|(_, code, object)| code == "stac.unparseable" && object.ends_with("items.ndjson#2"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_asset_never_lands_is_refused_at_its_deadline() {
    let world = World::new();
    world.land("sbn/C/metadata/items/i.json", &item("i", "C", "alone"));
    world.settle().await;
    let seen = world.snapshot();
    let codes: Vec<_> = seen.letters.iter().map(|(stage, code, _)| format!("{stage} {code}")).collect();
    assert_eq!(codes, ["route route.asset-missing"]);
    assert_eq!(topics(&seen), (0, 1));
}

/// An item with assets of these names.
fn item_of(id: &str, assets: &[&str]) -> String {
    let mut document: serde_json::Value = serde_json::from_str(&item(id, "C", "of some assets")).unwrap();
    let hrefs = assets.iter().map(|name| ((*name).to_owned(), serde_json::json!({"href": format!("data/{name}")})));
    document["assets"] = serde_json::Value::Object(hrefs.collect());
    document.to_string()
}

#[tokio::test(start_paused = true)]
async fn assets_may_land_before_after_and_between_their_items() {
    let world = World::new();
    world.land("sbn/C/metadata/collection.json", &collection("C"));
    world.land("sbn/C/data/before.tif", "II*");
    world.settle().await;
    world.land("sbn/C/metadata/items/one.json", &item_of("one", &["before.tif", "between.tif", "after.tif"]));
    world.settle_until_waiting().await;
    world.land("sbn/C/data/between.tif", "II*");
    world.land("sbn/C/metadata/items/two.json", &item_of("two", &["between.tif", "after.tif"]));
    world.settle_until_waiting().await;
    let waiting = world.catalogue.kept().rows.into_values().flat_map(|row| row.waits_for);
    let words = "s3://landing/sbn/C/data/after.tif or s3://landing/sbn/C/metadata/items/data/after.tif";
    assert_eq!(waiting.collect::<Vec<_>>(), [words; 2]);

    let start = tokio::time::Instant::now();
    world.land("sbn/C/data/after.tif", "II*");
    // They are woken at once: without that, they would come again after minutes.
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), world.settle()).await);
    assert_eq!(world.snapshot().items.len(), 2, "after {:?}", start.elapsed());
    world.settle().await;

    let seen = world.snapshot();
    assert_eq!((seen.items.len(), seen.letters.len()), (2, 0), "{seen:#?}");
    assert_eq!(world.receives_max.load(std::sync::atomic::Ordering::Relaxed), 1, "waiting costs no receive count");
    assert_eq!(world.objects.copied().len(), 3, "each asset is copied once: {:?}", world.objects.copied());
}

#[tokio::test(start_paused = true)]
async fn an_asset_that_never_lands_is_named_in_the_refusal_and_costs_no_receive_count() {
    let world = World::new();
    world.land("sbn/C/data/there.tif", "II*");
    world.land("sbn/C/metadata/items/i.json", &item_of("i", &["there.tif", "never.tif"]));
    world.settle().await;
    let seen = world.snapshot();
    assert_eq!(seen.letters.iter().map(|(_, code, _)| code.as_str()).collect::<Vec<_>>(), ["route.asset-missing"]);
    let rejected = seen.notices.values().find(|(topic, _)| *topic == Topic::Rejected).unwrap();
    assert!(rejected.1.contains("s3://landing/sbn/C/data/never.tif") && !rejected.1.contains("there.tif"));
    assert_eq!(world.receives_max.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn cleared_objects_end_the_same_whatever_call_fails() {
    sweep(Scenario::Cleared).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_cleared_from_landing_stays_in_the_archive() {
    let world = Scenario::Cleared.world();
    Scenario::Cleared.run(&world).await;
    let seen = world.snapshot();
    let left: Vec<_> = world.objects.all().into_keys().filter(|object| object.bucket == "landing").collect();
    assert_eq!(left.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["sbn/C/metadata/broken.json"]);
    assert_eq!((seen.items.len(), seen.archived.len()), (1, 3));
    assert!(!seen.notices.values().any(|(_, body)| body.contains("item.delete")), "{:?}", seen.notices);
    assert_eq!(topics(&seen), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_lands_where_something_was_cleared_is_the_providers_to_remove() {
    let world = Scenario::Cleared.world();
    let free = |id: &str| item(id, "C", id).replace(&format!("data/{id}.tif"), "https://example.com/x");
    world.land("sbn/C/metadata/collection.json", &collection("C"));
    world.land("sbn/C/metadata/k.json", &free("one"));
    world.settle().await;
    world.remove("sbn/C/metadata/k.json");
    world.settle().await;
    assert_eq!(world.snapshot().items.len(), 1, "our own removal changes nothing");

    // Another item under the same key, which waits, is removed by its provider before its asset lands.
    world.land("sbn/C/metadata/k.json", &item("two", "C", "two"));
    world.settle_until_waiting().await;
    world.remove("sbn/C/metadata/k.json");
    world.settle_until_waiting().await;
    world.land("sbn/C/data/two.tif", "II*");
    world.settle().await;

    let items: Vec<_> = world.snapshot().items.into_keys().map(|(_, id)| id).collect();
    assert_eq!(items, ["one"], "what was cleared stays, what was removed does not come");
}

#[tokio::test(start_paused = true)]
async fn placed_files_end_the_same_whatever_call_fails() {
    sweep(Scenario::Placed).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_placed_by_the_item_that_names_it_however_early_it_lands() {
    let world = Scenario::Placed.world();
    Scenario::Placed.run(&world).await;
    let seen = world.snapshot();
    let keys: Vec<_> = seen.archived.keys().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["C/2024/i/i.json", "C/2024/i/i.tif", "sbn/D/metadata/collection.json"]);
    assert!(seen.items.values().all(|item| item.contains("s3://archive/C/2024/i/i.tif")));
    let codes: Vec<_> = seen.letters.iter().map(|(stage, code, _)| format!("{stage} {code}")).collect();
    assert_eq!(codes, ["route route.unclaimed"]);
    // Copied once, although the item and its own event both wanted it there.
    let copied = world.objects.copied();
    assert_eq!(copied.iter().filter(|object| object.key == "C/2024/i/i.tif").count(), 1, "{copied:?}");
}

/// A list of collections, as `GET /collections` has it, and an ndjson of collections and items together.
#[tokio::test(start_paused = true)]
async fn collections_may_come_several_in_a_file() {
    let world = World::new();

    let lone = |id: &str, of: &str| {
        let mut item: serde_json::Value = serde_json::from_str(&item(id, of, "lone")).unwrap();
        item["assets"] = serde_json::json!({});
        item.to_string()
    };
    world.land(
        "sbn/metadata/collections.json",
        &format!(r#"{{"collections":[{},{}]}}"#, collection("C"), collection("D")),
    );
    world.land("sbn/metadata/all.ndjson", &format!("{}\n{}\n{}\n", collection("E"), lone("i", "E"), lone("j", "D")));
    world.settle().await;

    let snapshot = world.snapshot();
    assert_eq!(snapshot.items.len(), 2, "{snapshot:#?}");
    assert!(snapshot.letters.is_empty(), "{snapshot:#?}");
}
