use landfall_events::validated::{ItemValidated, ObjectAccepted};
use landfall_shared::config::Config;
use landfall_shared::memory::MemoryObjects;

use super::*;

const MAP: &str = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}}}}}";

struct World {
    stage: Route,
    objects: MemoryObjects,
}

fn world() -> World {
    world_with("", MAP)
}

fn world_with(config: &str, map: &str) -> World {
    let config = Config::parse(config).unwrap();
    let objects = MemoryObjects::new(Arc::default());
    objects.land(&ObjectRef::new("work", "config/bucket-map.yaml"), map.to_owned());
    let landings = Landings::new(&config, "landing").unwrap();
    let place = "s3://work/config/bucket-map.yaml";
    let stage = Route::with(Arc::new(objects.clone()), landings, &config, place, "work").unwrap();
    World { stage, objects }
}

fn landed(key: &str) -> ObjectRef {
    ObjectRef::new("landing", key)
}

fn archived(key: &str) -> ObjectRef {
    ObjectRef::new("archive", key)
}

fn data(cause: &Cause) -> Envelope<Validated> {
    Envelope::new(ObjectAccepted { cause: cause.clone() }.into(), "sbn", 0)
}

fn item(cause: &Cause, href: &str) -> Envelope<Validated> {
    let text = format!(r#"{{"id":"i","assets":{{"data":{{"href":"{href}"}}}}}}"#);
    let document = Document::Inline(serde_json::value::RawValue::from_string(text).unwrap());
    let (collection, item) = ("c".into(), "i".into());
    let validated = ItemValidated { cause: cause.clone(), collection, item, document, warnings: vec![] };
    Envelope::new(validated.into(), "sbn", 0)
}

impl World {
    async fn route(&self, envelope: Envelope<Validated>) -> Result<Outcome<Route>, Error> {
        self.stage.handle(&[envelope], Timestamp::UNIX_EPOCH).await.remove(0)
    }

    async fn reports(&self, envelope: Envelope<Validated>) -> Vec<Report> {
        match self.route(envelope).await.unwrap() {
            Outcome::Done(done) => done.reports.into_iter().map(|report| report.event).collect(),
            Outcome::Wait(wait) => panic!("{wait:?}"),
        }
    }

    fn body(&self, object: &ObjectRef) -> Option<String> {
        self.objects.all().get(object).map(|object| String::from_utf8_lossy(&object.body).into_owned())
    }
}

#[tokio::test]
async fn data_is_copied_once_however_often_it_is_asked() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/a b+ü.fits"), "bytes");
    let first = world.reports(data(&cause)).await;
    let second = world.reports(data(&cause)).await;
    assert_eq!(first, second);
    assert!(matches!(&first[..], [Report::Object(routed)] if routed.destination.object == archived("sbn/a b+ü.fits")));
    assert_eq!(world.body(&archived("sbn/a b+ü.fits")).as_deref(), Some("bytes"));
}

#[tokio::test]
async fn a_late_event_never_puts_old_bytes_in_place() {
    let world = world();
    let old = world.objects.land(&landed("sbn/a"), "old");
    let new = world.objects.land(&landed("sbn/a"), "new");
    world.reports(data(&new)).await;
    let late = world.reports(data(&old)).await;
    assert!(matches!(&late[..], [Report::Ignored(ignored)] if ignored.rule == "overwritten"), "{late:?}");
    assert_eq!(world.body(&archived("sbn/a")).as_deref(), Some("new"));
}

#[tokio::test]
async fn an_item_is_rewritten_to_where_its_asset_is() {
    let world = world();
    world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let Ok(Outcome::Done(done)) = world.route(item(&cause, "data/x.tif")).await else { panic!("not done") };
    let Routed::Item(routed) = &done.next[0].event else { panic!("no item") };
    let expected = r#"{"id":"i","assets":{"data":{"href":"s3://archive/sbn/C/data/x.tif"}}}"#;
    assert!(matches!(&routed.document, Document::Inline(raw) if raw.get() == expected));
    assert_eq!(routed.assets[0].object, archived("sbn/C/data/x.tif"));
    assert_eq!(world.body(&archived("sbn/C/metadata/items/i.json")).as_deref(), Some(expected));
}

#[tokio::test]
async fn an_item_waits_for_an_asset_and_names_it() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let Ok(Outcome::Wait(wait)) = world.route(item(&cause, "data/x.tif")).await else { panic!("does not wait") };
    let expected = "s3://landing/sbn/C/data/x.tif or s3://landing/sbn/C/metadata/items/data/x.tif";
    assert_eq!(wait.waits_for, [expected]);
    assert_eq!(wait.refusal.code, codes::ROUTE_ASSET_MISSING);
    world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    assert!(matches!(world.route(item(&cause, "data/x.tif")).await, Ok(Outcome::Done(_))));
}

#[tokio::test]
async fn an_href_that_leads_out_or_fits_twice_is_refused() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    world.objects.land(&landed("sbn/C/x.tif"), "1");
    world.objects.land(&landed("sbn/C/metadata/items/x.tif"), "2");
    for (href, code) in [
        ("s3://landing/img/x", codes::ROUTE_ESCAPE),
        ("s3://work/config/landfall.toml", codes::ROUTE_ESCAPE),
        ("s3://archive/sbn/x.tif", codes::ROUTE_ESCAPE),
        ("../../../D/x.tif", codes::ROUTE_ESCAPE),
        ("x.tif", codes::ROUTE_AMBIGUOUS),
    ] {
        let Ok(Outcome::Done(done)) = world.route(item(&cause, href)).await else { panic!("not done") };
        assert_eq!(done.refused[0].refusal.code, code);
        assert_eq!(done.refused[0].refusal.item.as_deref(), Some("i"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mended_map_is_taken_and_a_broken_one_is_not() {
    let world = world();
    let cause = world.objects.land(&landed("img/a"), "x");
    let mut envelope = data(&cause);
    envelope.provider = "img".into();
    let Err(refused) = world.route(envelope.clone()).await else { panic!("not refused") };
    assert_eq!(refused.refusal().code, codes::ROUTE_UNMAPPED);

    let place = ObjectRef::new("work", "config/bucket-map.yaml");
    world.objects.land(&place, MAP.replace("SBN", "IMG"));
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.reports(envelope.clone()).await.len(), 1);

    world.objects.land(&place, "BUCKET_MAP: [");
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.reports(envelope).await.len(), 1);
}

const GIB: u64 = 1024 * 1024 * 1024;

impl World {
    /// Routes an event, and again what it sends itself, until it is settled; with the number of messages.
    async fn route_through(&self, envelope: Envelope<Validated>) -> (Outcome<Route>, u32) {
        let (mut envelope, mut messages) = (envelope, 1);
        loop {
            match self.route(envelope).await.unwrap() {
                Outcome::Done(mut done) if done.again.len() == 1 && done.reports.is_empty() && done.next.is_empty() => {
                    envelope = done.again.remove(0);
                    messages += 1;
                }
                outcome @ (Outcome::Done(_) | Outcome::Wait(_)) => return (outcome, messages),
            }
        }
    }

    fn is_clean(&self) -> bool {
        let in_work = |object: &&ObjectRef| object.bucket == "work" && !object.key.starts_with("config/");
        self.objects.open_uploads() == 0 && !self.objects.all().keys().any(|object| in_work(&object))
    }
}

#[tokio::test]
async fn what_is_beyond_one_copy_goes_in_parts_and_is_compared() {
    let world = world_with("[route.copy]\nthreshold_mib = 1024\npart_mib = 512\n", MAP);
    let size = 20 * GIB + 1;
    let cause = world.objects.land_hollow(&landed("sbn/big"), 7, size);
    let reports = world.reports(data(&cause)).await;
    assert!(matches!(&reports[..], [Report::Object(routed)] if routed.destination.size == size), "{reports:?}");
    let (source, copy) =
        (&world.objects.all()[&landed("sbn/big")].info, &world.objects.all()[&archived("sbn/big")].info);
    assert_eq!(source.checksum, copy.checksum);
    assert_eq!(world.objects.copied().len(), 41, "parts of 512 MiB");
    assert!(world.is_clean());
    // Asked again, nothing is copied.
    assert_eq!(world.reports(data(&cause)).await, reports);
    assert_eq!(world.objects.copied().len(), 41);
}

#[tokio::test]
async fn the_largest_object_fits_ten_thousand_parts() {
    let world = world_with("[route.copy]\npart_mib = 128\n", MAP);
    // 50 TB. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UploadingObjects.html>
    let size = 50_000_000_000_000;
    let cause = world.objects.land_hollow(&landed("sbn/big"), 7, size);
    let reports = world.reports(data(&cause)).await;
    assert!(matches!(&reports[..], [Report::Object(routed)] if routed.destination.size == size), "{reports:?}");
}

#[tokio::test]
async fn a_copy_that_takes_too_long_goes_on_with_the_next_message() {
    // No time at all: each message copies nothing, and none of them may be lost.
    let world = world_with("[route.copy]\nthreshold_mib = 1\npart_mib = 512\ntime_max_s = 0\n", MAP);
    let cause = world.objects.land_hollow(&landed("sbn/big"), 7, 4 * GIB);
    for _ in 0..2 {
        let Ok(Outcome::Done(done)) = world.route(data(&cause)).await else { panic!("not done") };
        assert_eq!((done.again.len(), done.reports.len()), (1, 0));
        assert_eq!(done.again[0].to_json(), data(&cause).to_json(), "the same event, as it was");
        assert_eq!(world.objects.open_uploads(), 1, "gone on with, and not begun anew");
    }
    // Another worker has the time.
    let landings = Landings::new(&Config::default(), "landing").unwrap();
    let config = Config::parse("[route.copy]\nthreshold_mib = 1\npart_mib = 512\n").unwrap();
    let place = "s3://work/config/bucket-map.yaml";
    let stage = Route::with(Arc::new(world.objects.clone()), landings, &config, place, "work").unwrap();
    let world = World { stage, ..world };
    let (outcome, messages) = world.route_through(data(&cause)).await;
    assert!(matches!(outcome, Outcome::Done(done) if done.reports.len() == 1) && messages == 1);
    assert!(world.is_clean());
}

#[tokio::test]
async fn a_copy_whose_worker_is_gone_is_gone_on_with_after_any_call() {
    use landfall_shared::memory::{Faults, Strike};
    let mut strikes = 0;
    for strike in [Strike::CrashAfter as fn(u64) -> Strike, Strike::Fail] {
        for call in 1.. {
            let faults = Arc::new(Faults::default());
            let objects = MemoryObjects::new(faults.clone());
            objects.land(&ObjectRef::new("work", "config/bucket-map.yaml"), MAP);
            let cause = objects.land_hollow(&landed("sbn/big"), 7, 4 * GIB);
            let landings = Landings::new(&Config::default(), "landing").unwrap();
            let config = Config::parse("[route.copy]\nthreshold_mib = 1\npart_mib = 1024\n").unwrap();
            let place = "s3://work/config/bucket-map.yaml";
            let stage = Route::with(Arc::new(objects.clone()), landings, &config, place, "work").unwrap();
            let world = World { stage, objects };
            faults.arm(strike(call));
            let first = tokio::select! {
                biased;
                () = faults.crashed() => None,
                outcome = world.route(data(&cause)) => Some(outcome),
            };
            if faults.is_armed() {
                break;
            }
            strikes += 1;
            if !matches!(first, Some(Ok(_))) {
                assert_eq!(world.reports(data(&cause)).await.len(), 1);
            }
            let copy = &world.objects.all()[&archived("sbn/big")];
            assert_eq!(copy.info.size, 4 * GIB);
            // Only an upload that a crash has kept from being written down is left, for the maintenance to find.
            let left = world.objects.open_uploads();
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let (buckets, age) = ([String::from("archive")], jiff::SignedDuration::from_hours(24));
            let port: Arc<dyn Objects> = Arc::new(world.objects.clone());
            let swept = sweep(port, "work", &buckets, age, now, Sweep::Abort).await.unwrap();
            assert!(left <= 1 && swept.stale.len() >= left, "{left} {swept:?}");
            assert!(world.is_clean(), "{:?}", world.objects.all().keys());
        }
    }
    assert!(strikes > 20, "{strikes}");
}

#[tokio::test]
async fn a_young_upload_is_left_alone_by_the_maintenance() {
    let world = world_with("[route.copy]\nthreshold_mib = 1\ntime_max_s = 0\n", MAP);
    let cause = world.objects.land_hollow(&landed("sbn/big"), 7, 4 * GIB);
    world.route(data(&cause)).await.unwrap();
    let port: Arc<dyn Objects> = Arc::new(world.objects.clone());
    let (buckets, age) = ([String::from("archive")], jiff::SignedDuration::from_hours(24));
    let swept = sweep(port.clone(), "work", &buckets, age, Timestamp::now(), Sweep::Abort).await.unwrap();
    assert_eq!((swept.open.len(), swept.stale.len(), world.objects.open_uploads()), (1, 0, 1));
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(25);
    let seen = sweep(port.clone(), "work", &buckets, age, later, Sweep::Look).await.unwrap();
    assert_eq!((seen.stale.len(), world.objects.open_uploads()), (1, 1));
    sweep(port, "work", &buckets, age, later, Sweep::Abort).await.unwrap();
    assert!(world.is_clean());
}

#[tokio::test]
async fn an_overwritten_source_is_not_put_together_of_two() {
    let world = world_with("[route.copy]\nthreshold_mib = 1\ntime_max_s = 0\n", MAP);
    let first = world.objects.land_hollow(&landed("sbn/big"), 1, 4 * GIB);
    world.route(data(&first)).await.unwrap();
    let second = world.objects.land_hollow(&landed("sbn/big"), 2, 4 * GIB);
    world.route(data(&second)).await.unwrap();
    assert_eq!(world.objects.open_uploads(), 1, "the upload of the first is aborted");
}

#[tokio::test]
async fn another_store_gets_the_bytes_through_us() {
    for (size, copies) in [(0, 0), (1024, 0), (11 * 1024 * 1024, 3)] {
        let world = world_with("[route.copy]\nstream_part_mib = 5\n", MAP);
        world.objects.set_apart("archive");
        let body: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        let cause = world.objects.land(&landed("sbn/a"), body.clone());
        assert_eq!(world.reports(data(&cause)).await.len(), 1);
        assert_eq!(world.objects.all()[&archived("sbn/a")].body, body);
        assert_eq!(world.objects.copied().len(), copies, "parts of 5 MiB");
        assert!(world.is_clean());
    }
}

#[tokio::test]
async fn what_goes_with_the_bytes_goes_along() {
    const RULES: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      default: {bucket: {name: archive, storage_class: GLACIER_IR}, tags: {project: x}}
";
    for (threshold, is_apart) in [(1024, false), (0, false), (1024, true)] {
        let world = world_with(&format!("[route.copy]\nthreshold_mib = {threshold}\n"), RULES);
        if is_apart {
            world.objects.set_apart("archive");
        }
        let cause = world.objects.land(&landed("sbn/a"), "bytes");
        world.objects.set_tags(&landed("sbn/a"), &[("own".to_owned(), "1".to_owned())].into()).await.unwrap();
        world.reports(data(&cause)).await;
        let copy = world.objects.all()[&archived("sbn/a")].clone();
        assert_eq!(copy.properties.headers.content_type.as_deref(), Some("application/octet-stream"));
        assert_eq!(
            copy.properties.storage_class.map(landfall_events::routed::StorageClass::as_str),
            Some("GLACIER_IR")
        );
        let tags: Vec<_> = copy.properties.tags.unwrap().into_keys().collect();
        assert_eq!(tags, ["own", "project"]);
        let said = |name: &str| copy.info.metadata.get(name).map(String::as_str);
        assert_eq!(said("landfall-source"), Some("s3://landing/sbn/a"));
        assert_eq!(said("landfall-etag"), cause.etag.as_deref());
        assert!(said("landfall-sequencer").is_some() && said("landfall-version").is_some());
    }
}

#[tokio::test]
async fn ten_events_in_any_order_and_any_number_leave_the_newest() {
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let world = world();
        let mut events = Vec::new();
        for _ in 0..10 {
            // Some contents come back.
            let cause = world.objects.land(&landed("sbn/a"), format!("content {}", random.random_range(0..4)));
            events.push(cause);
            if random.random() {
                let late = events[random.random_range(0..events.len())].clone();
                world.reports(data(&late)).await;
            }
        }
        events.extend(events.clone());
        events.shuffle(&mut random);
        for cause in &events {
            world.reports(data(cause)).await;
        }
        assert_eq!(world.body(&archived("sbn/a")), world.body(&landed("sbn/a")), "seed {seed}");
    }
}

#[tokio::test]
async fn the_same_event_ten_times_copies_once() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/a"), "bytes");
    for _ in 0..10 {
        assert_eq!(world.reports(data(&cause)).await.len(), 1);
    }
    assert_eq!(world.objects.copied(), [archived("sbn/a")]);
}

#[tokio::test]
async fn what_is_there_with_the_same_content_is_not_copied() {
    let world = world();
    world.objects.land(&archived("sbn/a"), "bytes");
    let cause = world.objects.land(&landed("sbn/a"), "bytes");
    assert!(matches!(&world.reports(data(&cause)).await[..], [Report::Object(_)]));
    assert!(world.objects.copied().is_empty());
}

#[tokio::test]
async fn what_somebody_put_there_later_is_not_replaced_and_what_was_there_before_is() {
    let world = world();
    world.objects.land(&archived("sbn/a"), "an older copy of another tool");
    let cause = world.objects.land(&landed("sbn/a"), "bytes");
    world.objects.land(&archived("sbn/b"), "");
    assert!(matches!(&world.reports(data(&cause)).await[..], [Report::Object(_)]));
    assert_eq!(world.body(&archived("sbn/a")).as_deref(), Some("bytes"));

    let cause = world.objects.land(&landed("sbn/b"), "bytes");
    world.objects.land(&archived("sbn/b"), "mended by hand");
    let reports = world.reports(data(&cause)).await;
    assert!(matches!(&reports[..], [Report::Ignored(ignored)] if ignored.rule == "superseded"), "{reports:?}");
    assert_eq!(world.body(&archived("sbn/b")).as_deref(), Some("mended by hand"));
}

#[tokio::test]
async fn a_copy_that_is_not_equal_is_made_again() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/a"), "bytes");
    world.reports(data(&cause)).await;
    // Somebody damages it and leaves what it says of itself.
    let there = world.objects.all()[&archived("sbn/a")].clone();
    let damaged = Bytes::from_static(b"byt");
    world.objects.put(&archived("sbn/a"), damaged, &there.properties, Over::Anything).await.unwrap();
    world.reports(data(&cause)).await;
    assert_eq!(world.body(&archived("sbn/a")).as_deref(), Some("bytes"));
}

/// Ours may put several sources to one key: by a template without the path.
const BY_NAME: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      default: {bucket: {name: archive}}
      paths:
        - {collection: c, bucket: {name: archive}, key: '{item}/{filename}'}
";

#[tokio::test]
async fn of_two_landings_for_one_key_the_newer_stays() {
    let world = world_with("", BY_NAME);
    world.objects.land(&landed("sbn/1/data/x.tif"), "old");
    let old = world.objects.land(&landed("sbn/1/metadata/items/i.json"), "…");
    world.objects.land(&landed("sbn/2/data/x.tif"), "new");
    let new = world.objects.land(&landed("sbn/2/metadata/items/i.json"), "…");
    for (cause, expected) in [(&new, "new"), (&old, "new"), (&new, "new")] {
        assert!(matches!(world.route(item(cause, "data/x.tif")).await, Ok(Outcome::Done(_))));
        assert_eq!(world.body(&archived("i/x.tif")).as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn two_files_of_one_item_never_get_one_key() {
    let world = world_with("", BY_NAME);
    world.objects.land(&landed("sbn/C/a/x.tif"), "1");
    world.objects.land(&landed("sbn/C/b/x.tif"), "2");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = r#"{"id":"i","assets":{"a":{"href":"a/x.tif"},"b":{"href":"b/x.tif"}}}"#;
    let done = world.route_text(&cause, text).await;
    assert_eq!(done.refused[0].refusal.code, codes::ROUTE_COLLISION);
}

#[tokio::test]
async fn another_providers_object_is_never_replaced() {
    let map = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}, key: 'all/{provider}/{path}'}}, \
               GEO: {default: {bucket: {name: archive}}}}}";
    let world = world_with("", map);
    let theirs = world.objects.land(&landed("sbn/a"), "theirs");
    world.reports(data(&theirs)).await;
    let there = world.objects.all()[&archived("all/sbn/a")].clone();
    // A map that was changed since gives another provider the same place.
    world.objects.put(&archived("geo/a"), there.body, &there.properties, Over::Anything).await.unwrap();
    let cause = world.objects.land(&landed("geo/a"), "ours");
    let Err(error) = world.route(data(&cause)).await else { panic!("not refused") };
    assert_eq!((error.class(), error.refusal().code), (Class::Permanent, codes::ROUTE_COLLISION));
    assert_eq!(world.body(&archived("geo/a")).as_deref(), Some("theirs"));
}

impl World {
    async fn route_text(&self, cause: &Cause, text: &str) -> Done<Validated, Routed> {
        let document = Document::Inline(serde_json::value::RawValue::from_string(text.to_owned()).unwrap());
        let (collection, item) = ("c".into(), "i".into());
        let validated = ItemValidated { cause: cause.clone(), collection, item, document, warnings: vec![] };
        match self.route(Envelope::new(validated.into(), "sbn", 0)).await.unwrap() {
            Outcome::Done(done) => done,
            Outcome::Wait(wait) => panic!("{wait:?}"),
        }
    }
}

#[tokio::test]
async fn an_asset_is_held_against_what_its_item_says() {
    // Multihashes of "tif".
    let sha256 = "1220ed08dcb1a6a3a2dcb6e5a0a9bb3c8c0f8a1d8b3e50a1c6bd35a1f5d2d2f5aaaa";
    let right = |code: &str, digest: String| format!("{code}{digest}");
    let hash = |bytes: &[u8]| hex::encode(bytes);
    use digest::Digest;
    let good = [
        right("1220", hash(&sha2::Sha256::digest("tif"))),
        right("1114", hash(&sha1::Sha1::digest("tif"))),
        right("1340", hash(&sha2::Sha512::digest("tif"))),
        right("d50110", hash(&md5::Md5::digest("tif"))),
    ];
    let world = world();
    world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = |member: &str| format!(r#"{{"assets":{{"a/b":{{"href":"data/x.tif",{member}}}}}}}"#);
    for checksum in &good {
        let done = world.route_text(&cause, &text(&format!(r#""file:size":3,"file:checksum":"{checksum}""#))).await;
        assert!(done.refused.is_empty(), "{checksum} {:?}", done.refused);
    }
    for (member, pointer, expected, value) in [
        (r#""file:size":4"#.to_owned(), "/assets/a~1b/file:size", "4", "3"),
        (format!(r#""file:checksum":"{sha256}""#), "/assets/a~1b/file:checksum", sha256, good[0].as_str()),
    ] {
        let done = world.route_text(&cause, &text(&member)).await;
        let refusal = &done.refused[0].refusal;
        assert_eq!(refusal.code, codes::ROUTE_ASSET_UNEQUAL);
        let problem = &refusal.problems[0];
        assert_eq!(
            (problem.pointer.as_str(), problem.expected.as_deref(), problem.value.as_deref()),
            (pointer, Some(expected), Some(value))
        );
    }
    // What cannot be told is a warning.
    let done = world.route_text(&cause, &text(r#""file:checksum":"no multihash""#)).await;
    let Routed::Item(routed) = &done.next[0].event else { panic!("no item") };
    assert_eq!(routed.warnings.len(), 1);
}

#[tokio::test]
async fn an_asset_that_lands_wakes_the_item_that_waits_for_it_last() {
    let world = world();
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = r#"{"assets":{"a":{"href":"data/a.tif"},"b":{"href":"data/b.tif"},"c":{"href":"data/c.tif"}}}"#;
    let document = Document::Inline(serde_json::value::RawValue::from_string(text.to_owned()).unwrap());
    let validated = ItemValidated { cause, collection: "c".into(), item: "i".into(), document, warnings: vec![] };
    let event: Envelope<Validated> = Envelope::new(validated.into(), "sbn", 0);
    world.objects.land(&landed("sbn/C/data/c.tif"), "c");
    let Ok(Outcome::Wait(wait)) = world.route(event.clone()).await else { panic!("does not wait") };
    let names: Vec<_> = wait.waits_for.iter().filter_map(|words| words.split(' ').next()).collect();
    assert_eq!(names, ["s3://landing/sbn/C/data/a.tif", "s3://landing/sbn/C/data/b.tif"]);

    let first = world.objects.land(&landed("sbn/C/data/a.tif"), "a");
    let Ok(Outcome::Done(done)) = world.route(data(&first)).await else { panic!("not done") };
    assert!(done.again.is_empty(), "the other is not there");
    // It may as well land beside the item.
    let last = world.objects.land(&landed("sbn/C/metadata/items/data/b.tif"), "b");
    let Ok(Outcome::Done(done)) = world.route(data(&last)).await else { panic!("not done") };
    assert_eq!(done.again.iter().map(Envelope::to_json).collect::<Vec<_>>(), [event.to_json()]);
    assert!(matches!(world.route(done.again[0].clone()).await, Ok(Outcome::Done(done)) if done.next.len() == 1));
    // A mark for the place where it did not land expires with the others.
    let left = world.objects.all().into_keys().filter(|object| object.key.starts_with("waits/")).count();
    assert_eq!(left, 2);
}

#[tokio::test]
async fn hrefs_and_links_become_what_the_configuration_says() {
    let config = "
[[destination]]
bucket = 'archive'
href = 'https://data.example.org/{key}'
[route]
alternate_hrefs = true
[route.links]
self = 'https://stac.example.org/collections/{collection}/items/{item}'
collection = 'https://stac.example.org/collections/{collection}'
";
    let world = world_with(config, MAP);
    world.objects.land(&landed("sbn/C/data/x 1.tif"), "tif");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = r#"{"assets":{"a":{"href":"data/x 1.tif"},"b":{"href":"https://example.com/y"}},
        "links":[{"rel":"self","href":"i.json"},{"rel":"parent","href":"../c.json"},{"rel":"license","href":"l"}]}"#;
    let done = world.route_text(&cause, text).await;
    let Routed::Item(routed) = &done.next[0].event else { panic!("no item") };
    let Document::Inline(raw) = &routed.document else { panic!("not inline") };
    let document: serde_json::Value = serde_json::from_str(raw.get()).unwrap();
    assert_eq!(document["assets"]["a"]["href"], "https://data.example.org/sbn/C/data/x%201.tif");
    assert_eq!(document["assets"]["a"]["alternate"]["origin"]["href"], "data/x 1.tif");
    assert_eq!(document["assets"]["b"], serde_json::json!({"href": "https://example.com/y"}));
    let links: Vec<_> =
        document["links"].as_array().unwrap().iter().map(|link| link["href"].as_str().unwrap()).collect();
    let expected = ["https://stac.example.org/collections/c/items/i", "l", "https://stac.example.org/collections/c"];
    assert_eq!(links, expected);
    // What the hrefs were is kept beside.
    let kept = world.body(&ObjectRef::new("work", "provenance/archive/sbn/C/metadata/items/i.json.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["assets"][0]["href"], "data/x 1.tif");
    assert_eq!(kept["assets"][0]["source"]["key"], "sbn/C/data/x 1.tif");
    assert_eq!(kept["assets"][0]["destination"]["key"], "sbn/C/data/x 1.tif");
}

#[test]
fn a_template_of_the_configuration_that_cannot_work_is_told_at_the_start() {
    for config in [
        "[[destination]]\nbucket = 'archive'\nhref = 'https://data.example.org/'\n",
        "[[destination]]\nbucket = 'archive'\nhref = 'https://data.example.org/{kee}'\n",
        "[route.links]\nself = 'https://x/{item'\n",
        "[route.links]\nself = 'https://x/{id}'\n",
    ] {
        let config = Config::parse(config).unwrap();
        let landings = Landings::new(&config, "landing").unwrap();
        let objects = Arc::new(MemoryObjects::new(Arc::default()));
        assert!(Route::with(objects, landings, &config, "map", "work").is_err());
    }
}

#[tokio::test]
async fn an_asset_that_was_routed_and_removed_is_found_at_its_destination() {
    let world = world();
    let asset = world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    world.reports(data(&asset)).await;
    world.objects.remove(&landed("sbn/C/data/x.tif"));
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let Ok(Outcome::Done(done)) = world.route(item(&cause, "data/x.tif")).await else { panic!("not done") };
    let Routed::Item(routed) = &done.next[0].event else { panic!("no item") };
    assert_eq!(routed.assets[0].object, archived("sbn/C/data/x.tif"));
}

#[tokio::test]
async fn what_is_named_twice_is_copied_once_and_an_item_may_name_itself() {
    let world = world();
    world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = r#"{"assets":{"a":{"href":"data/x.tif"},"b":{"href":"./data/x.tif"},"c":{"href":"i.json"}}}"#;
    let done = world.route_text(&cause, text).await;
    let Routed::Item(routed) = &done.next[0].event else { panic!("no item") };
    let Document::Inline(raw) = &routed.document else { panic!("not inline") };
    let expected = r#"{"assets":{"a":{"href":"s3://archive/sbn/C/data/x.tif"},"b":{"href":"s3://archive/sbn/C/data/x.tif"},"c":{"href":"s3://archive/sbn/C/metadata/items/i.json"}}}"#;
    assert_eq!(raw.get(), expected);
    assert_eq!((routed.assets.len(), world.objects.copied().len()), (1, 1));
}

#[tokio::test]
async fn what_a_provider_says_in_our_name_counts_for_nothing() {
    let world = world();
    let wrong = format!("1220{}", "00".repeat(32));
    let mut properties = Properties::of_type("image/tiff");
    properties.metadata.insert("landfall-checked".into(), wrong.clone());
    properties.metadata.insert("landfall-provider".into(), "geo".into());
    world
        .objects
        .put(&landed("sbn/C/data/x.tif"), Bytes::from_static(b"tif"), &properties, Over::Anything)
        .await
        .unwrap();
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    let text = |hash: &str| format!(r#"{{"assets":{{"a":{{"href":"data/x.tif","file:checksum":"{hash}"}}}}}}"#);
    let done = world.route_text(&cause, &text(&wrong)).await;
    assert_eq!(done.refused[0].refusal.code, codes::ROUTE_ASSET_UNEQUAL);
    use digest::Digest;
    let right = format!("1220{}", hex::encode(sha2::Sha256::digest("tif")));
    assert!(world.route_text(&cause, &text(&right)).await.refused.is_empty());
    let copy = &world.objects.all()[&archived("sbn/C/data/x.tif")].info.metadata;
    assert_eq!((copy["landfall-checked"].as_str(), copy["landfall-provider"].as_str()), (right.as_str(), "sbn"));
    // What was held against it once is not read again, and is found when landing is cleared.
    world.objects.remove(&landed("sbn/C/data/x.tif"));
    assert!(world.route_text(&cause, &text(&right)).await.refused.is_empty());
    let done = world.route_text(&cause, &text(&wrong)).await;
    assert_eq!(done.refused[0].refusal.code, codes::ROUTE_ASSET_UNEQUAL);
}

#[tokio::test]
async fn two_rules_that_give_two_files_one_key_lose_neither() {
    let map = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: archive}}, paths: [\
               {prefix: m/, bucket: {name: archive}, key: 'sbn/n/{path}'}]}}}";
    let world = world_with("", map);
    let first = world.objects.land(&landed("sbn/m/x"), "first");
    let second = world.objects.land(&landed("sbn/n/m/x"), "second");
    assert_eq!(world.reports(data(&first)).await.len(), 1);
    let Err(error) = world.route(data(&second)).await else { panic!("not refused") };
    assert_eq!((error.class(), error.refusal().code), (Class::Permanent, codes::ROUTE_COLLISION));
    assert_eq!(world.body(&archived("sbn/n/m/x")).as_deref(), Some("first"));
}

#[tokio::test]
async fn a_size_that_is_no_whole_number_is_not_passed_over() {
    let world = world();
    world.objects.land(&landed("sbn/C/data/x.tif"), "tif");
    let cause = world.objects.land(&landed("sbn/C/metadata/items/i.json"), "…");
    for (size, is_good) in [("3", true), ("3.0", true), ("3.5", false), ("\"3\"", false), ("-3", false), ("4", false)] {
        let text = format!(r#"{{"assets":{{"a":{{"href":"data/x.tif","file:size":{size}}}}}}}"#);
        assert_eq!(world.route_text(&cause, &text).await.refused.is_empty(), is_good, "{size}");
    }
}
