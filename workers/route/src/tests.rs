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
    let objects = MemoryObjects::new(Arc::default());
    objects.land(&ObjectRef::new("work", "config/bucket-map.yaml"), MAP);
    let landings = Landings::new(&Config::default(), "landing").unwrap();
    let place = "s3://work/config/bucket-map.yaml";
    let stage = Route::with(Arc::new(objects.clone()), landings, &Config::default(), place, "work").unwrap();
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
    assert_eq!(wait.waits_for, ["s3://landing/sbn/C/data/x.tif"]);
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
    for (href, code) in [("s3://landing/img/x", codes::ROUTE_ESCAPE), ("x.tif", codes::ROUTE_AMBIGUOUS)] {
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
