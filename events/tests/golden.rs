//! The wire forms are held by files: examples that are never edited once released, and schemas that follow the code.
//!
//! `LANDFALL_BLESS=1 cargo test -p landfall-events --test golden` writes what is missing or has changed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_events::notice::{ATTRIBUTES_MAX, Attribute, BYTES_MAX, Body, Style, Topic};
use landfall_events::report::{CollectionLoaded, Effect, Ignored, ItemLoaded, ObjectRouted, Place, Refused, Waiting};
use landfall_events::routed::{CollectionReleased, CollectionRouted, ItemRouted, RoutedObject};
use landfall_events::status::{Outcome, Passed};
use landfall_events::validated::{CollectionValidated, ItemValidated, ObjectAccepted, ObjectRemoved};
use landfall_events::{
    Cause, Change, Document, Envelope, Event, Landed, Notice, ObjectRef, Problem, Refusal, Report, Routed, Sequencer,
    Severity, Status, Validated, codes,
};
use serde_json::Value;
use serde_json::value::RawValue;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares with a file, or writes it where that is asked for.
#[track_caller]
fn check_file(path: &Path, text: &str) {
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let held = std::fs::read_to_string(path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    assert_eq!(held.trim_end(), text.trim_end(), "{} differs from the code", path.display());
}

fn cause(key: &str) -> Cause {
    Cause {
        object: ObjectRef::new("landing", key),
        change: Change::Created,
        version_id: Some("3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY".into()),
        etag: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
        size: Some(1234),
        sequencer: Some(Sequencer::try_from("0055AED6DCD90281E5".to_owned()).unwrap()),
        event_time: "2024-05-17T10:15:00.123Z".parse().unwrap(),
        member: None,
        members: None,
    }
}

fn removed() -> ObjectRemoved {
    let cause = cause("sbn/C/metadata/items/i.json");
    ObjectRemoved { cause: Cause { change: Change::Removed, etag: None, size: None, ..cause } }
}

fn document(text: &str) -> Document {
    Document::Inline(RawValue::from_string(text.into()).unwrap())
}

fn routed(key: &str) -> RoutedObject {
    RoutedObject {
        object: ObjectRef::new("archive", key),
        size: 1234,
        etag: Some("0cc175b9c0f1b6a831c399e269772661".into()),
        storage_class: None,
    }
}

fn refusal() -> Refusal {
    let problem = Problem {
        code: codes::STAC_DATETIME,
        severity: Severity::Error,
        pointer: "/properties/datetime".into(),
        message: "value is not a \"date-time\"".into(),
        hint: Some("write it as 2024-05-17T10:15:00Z".into()),
        rule: Some("STAC 1.1.0".into()),
        keyword: Some("format".into()),
        value: Some("\"yesterday\"".into()),
        expected: None,
        patched: false,
    };
    let mut refusal =
        Refusal::new(codes::STAC_DATETIME, "1 problem; /properties/datetime: value is not a \"date-time\"");
    refusal.problems = vec![problem];
    refusal.of_item("C", "i")
}

const ITEM: &str = r#"{"type":"Feature","id":"i","collection":"C","properties":{"gsd":10.0}}"#;
const COLLECTION: &str = r#"{"type":"Collection","id":"C"}"#;

fn validated() -> Vec<Validated> {
    let cause = cause("sbn/C/metadata/items/i.json");
    let (collection, item) = ("C".to_owned(), "i".to_owned());
    vec![
        ItemValidated {
            cause: cause.clone(),
            collection: collection.clone(),
            item,
            document: document(ITEM),
            warnings: vec![],
        }
        .into(),
        CollectionValidated { cause: cause.clone(), collection, document: document(COLLECTION), warnings: vec![] }
            .into(),
        ObjectAccepted { cause: cause.clone() }.into(),
        removed().into(),
    ]
}

fn routed_events() -> Vec<Routed> {
    let cause = cause("sbn/C/metadata/items/i.json");
    let (collection, item) = ("C".to_owned(), "i".to_owned());
    let stored = routed("sbn/C/metadata/items/i.json");
    let assets = vec![routed("sbn/C/data/i.tif")];
    vec![
        ItemRouted {
            cause: cause.clone(),
            collection: collection.clone(),
            item,
            document: document(ITEM),
            stored: stored.clone(),
            assets,
            warnings: vec![],
        }
        .into(),
        CollectionRouted {
            cause: cause.clone(),
            collection: collection.clone(),
            document: document(COLLECTION),
            stored,
            warnings: vec![],
        }
        .into(),
        removed().into(),
        CollectionReleased { cause, collection, batch: 2 }.into(),
    ]
}

fn place(bbox: [f64; 4]) -> Place {
    let datetime = Some("2024-05-17T10:15:00.024Z".into());
    Place { bbox, datetime, start_datetime: None, end_datetime: None }
}

/// An item with everything that attributes can be made of.
fn loaded(effect: Effect, document: Option<Document>, place: Option<Place>) -> Envelope<Report> {
    let cause = cause("sbn/C/metadata/items/i.json");
    let (collection, item, assets) = ("C".to_owned(), "i".to_owned(), vec![routed("sbn/C/data/i.tif")]);
    Envelope::new(ItemLoaded { cause, collection, item, effect, document, assets, place }.into(), "sbn", 0)
}

fn style() -> Style {
    Style { api: "https://stac.example.org".into(), body: Body::CloudEvents }
}

fn reports() -> Vec<Report> {
    let cause = cause("sbn/C/metadata/items/i.json");
    let (collection, item) = ("C".to_owned(), "i".to_owned());
    let until = "2024-05-18T10:15:00Z".parse().unwrap();
    let assets = vec![routed("sbn/C/data/i.tif")];
    vec![
        ItemLoaded {
            cause: cause.clone(),
            collection: collection.clone(),
            item: item.clone(),
            effect: Effect::Created,
            document: Some(document(ITEM)),
            assets,
            place: Some(place([16.3, 47.8, 16.7, 48.0])),
        }
        .into(),
        CollectionLoaded {
            cause: cause.clone(),
            collection: collection.clone(),
            effect: Effect::Replaced,
            document: document(COLLECTION),
        }
        .into(),
        ObjectRouted { cause: cause.clone(), destination: routed("sbn/C/data/i.tif") }.into(),
        Refused { cause: Cause { member: Some(7), ..cause.clone() }, stage: "validate".into(), refusal: refusal() }
            .into(),
        Waiting {
            cause: cause.clone(),
            stage: "route".into(),
            waits_for: vec!["s3://landing/sbn/C/data/i.tif".into()],
            until,
            collection: Some(collection),
            item: Some(item),
        }
        .into(),
        Ignored { cause, rule: "overwritten".into() }.into(),
    ]
}

/// One example a type: what was written then is read now, and is written the same.
fn check_examples<E: Event + PartialEq>(events: Vec<E>) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    for event in events {
        let kind = event.kind();
        kinds.insert(kind);
        let envelope = Envelope::new(event, "sbn", 1);
        let text = pretty(&envelope.to_json());
        let path = folder("examples").join(format!("{kind}.json"));
        check_file(&path, &text);
        let held = std::fs::read_to_string(&path).unwrap();
        assert_eq!(Envelope::<E>::from_json(&held).unwrap().event.kind(), kind);
        assert_eq!(Envelope::<E>::from_json(&envelope.to_json()).unwrap(), envelope);
        // A newer writer may add fields.
        let mut newer: Value = serde_json::from_str(&held).unwrap();
        newer["novelty"] = 1.into();
        newer["data"]["novelty"] = serde_json::json!({"x": [1]});
        assert!(Envelope::<E>::from_json(&newer.to_string()).is_ok(), "{kind}");
    }
    kinds
}

fn pretty(json: &str) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(json).unwrap()).unwrap() + "\n"
}

#[test]
fn every_event_has_an_example_that_still_reads() {
    let landed = vec![Landed { cause: cause("sbn/a b+ü.txt") }];
    assert_eq!(check_examples(landed), [landfall_events::landed::KIND].into());
    assert_eq!(check_examples(validated()), Validated::KINDS.iter().copied().collect());
    assert_eq!(check_examples(routed_events()), Routed::KINDS.iter().copied().collect());
    assert_eq!(check_examples(reports()), Report::KINDS.iter().copied().collect());
}

/// Asserts that a notice is as its topic's schema says, and can be sent.
#[track_caller]
fn check_notice(notice: &Notice) {
    let name = if notice.topic == Topic::Completed { "notice.completed.json" } else { "notice.rejected.json" };
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(folder("schemas").join(name)).unwrap()).unwrap();
    let body: Value = serde_json::from_str(&notice.body).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> = validator.iter_errors(&body).map(|problem| problem.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?} in {body:#}");

    // https://docs.aws.amazon.com/sns/latest/dg/sns-message-attributes.html
    assert!(notice.attributes.len() <= ATTRIBUTES_MAX, "{:?}", notice.attributes);
    let mut bytes = notice.body.len();
    for (name, value) in &notice.attributes {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        assert!(name.chars().all(is_plain) && !name.starts_with("AWS") && !name.starts_with('.'), "{name}");
        assert!(!value.as_str().is_empty(), "{name} has no value");
        if let Attribute::Number(number) = value {
            assert!(number.parse::<f64>().unwrap().abs() <= 1e9, "{name} is {number}");
            let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            assert!(decimals <= 5 && !number.contains('e'), "{name} is {number}");
        }
        bytes += name.len() + "Number".len() + value.as_str().len();
    }
    assert!(bytes <= 256 * 1024, "{bytes} bytes");
}

#[test]
fn every_notice_has_an_example_and_is_as_its_schema_says() {
    let mut names = BTreeSet::new();
    let reports = reports().into_iter().map(|report| Envelope::new(report, "sbn", 0));
    for report in reports.chain([loaded(Effect::Deleted, None, None)]) {
        let Some(notice) = Notice::of(&report, &style()) else { continue };
        check_notice(&notice);
        let body: Value = serde_json::from_str(&notice.body).unwrap();
        let name = format!("notice.{}.json", body["type"].as_str().unwrap());
        check_file(&folder("examples").join(&name), &pretty(&notice.body));
        assert!(names.insert(name));
    }
    assert_eq!(names.len(), 5);
}

fn attributes(report: &Envelope<Report>) -> Vec<(String, String)> {
    let notice = Notice::of(report, &style()).unwrap();
    check_notice(&notice);
    notice.attributes.into_iter().map(|(name, value)| (name, value.as_str().to_owned())).collect()
}

#[test]
fn items_have_the_attributes_of_earth_search() {
    let place = Place {
        start_datetime: Some("2024-05-17T10:00:00Z".into()),
        end_datetime: Some("2024-05-17T11:00:00Z".into()),
        ..place([-16.123_456_7, 1e-9, -0.000_001, 90.0])
    };
    let found = attributes(&loaded(Effect::Replaced, Some(document(ITEM)), Some(place)));
    let expected = [
        ("bbox.ll_lat", "0"),
        ("bbox.ll_lon", "-16.12346"),
        ("bbox.ur_lat", "90"),
        ("bbox.ur_lon", "0"),
        ("collection", "C"),
        ("datetime", "2024-05-17T10:15:00.024Z"),
        ("end_datetime", "2024-05-17T11:00:00Z"),
        ("provider", "sbn"),
        ("start_datetime", "2024-05-17T10:00:00Z"),
        ("status", "updated"),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // A geometry in metres by mistake.
    attributes(&loaded(Effect::Created, Some(document(ITEM)), Some(self::place([-1e300, -1e12, 590_111.5, 1e308]))));
}

#[test]
fn other_notices_have_few_attributes() {
    let names =
        |report: &Envelope<Report>| -> Vec<String> { attributes(report).into_iter().map(|(name, _)| name).collect() };
    assert_eq!(names(&loaded(Effect::Deleted, None, None)), ["collection", "provider", "status"]);
    let refused = Refused { cause: cause("sbn/x"), stage: "route".into(), refusal: refusal().of_item("C", "i") };
    let refused = Envelope::new(Report::from(refused), "sbn", 0);
    assert_eq!(names(&refused), ["code", "collection", "provider", "stage"]);
}

#[test]
fn a_document_that_does_not_fit_is_linked_to() {
    let text = format!(r#"{{"x":"{}"}}"#, "y".repeat(BYTES_MAX));
    let report = loaded(Effect::Created, Some(document(&text)), Some(place([16.3, 47.8, 16.7, 48.0])));
    let notice = Notice::of(&report, &style()).unwrap();
    check_notice(&notice);
    let body: Value = serde_json::from_str(&notice.body).unwrap();
    assert_eq!(body["data"]["href"], "https://stac.example.org/collections/C/items/i");
}

#[test]
fn a_subscriber_may_have_the_bare_document() {
    let style = Style { body: Body::Item, ..style() };
    let report = loaded(Effect::Created, Some(document(ITEM)), None);
    assert_eq!(Notice::of(&report, &style).unwrap().body, ITEM);
    let gone = Notice::of(&loaded(Effect::Deleted, None, None), &style).unwrap().body;
    assert_eq!(gone, r#"{"id":"i","collection":"C"}"#);
}

/// What a provider reads in the work bucket.
#[test]
fn a_status_has_an_example_that_still_reads() {
    let passed = |stage: &str, at: &str| Passed { stage: stage.into(), at: at.parse().unwrap() };
    let refusal = refusal();
    let status = Status {
        stage: Some("validate".into()),
        code: Some(refusal.code.to_string()),
        reason: Some(refusal.reason),
        problems: refusal.problems,
        event: Some("63a2c4cf9dbc5e9a2fd3ff3d5b5a6ffb".into()),
        passed: vec![passed("validate", "2024-05-17T10:15:01Z"), passed("notify", "2024-05-17T10:15:02Z")],
        since: "2024-05-17T10:15:02Z".parse().unwrap(),
        ..Status::new(cause("sbn/C/metadata/items/i.json"), "sbn", Outcome::Refused)
    };
    let status = status.with_hint();
    let path = folder("examples").join("status.json");
    check_file(&path, &pretty(&serde_json::to_string(&status).unwrap()));
    assert_eq!(serde_json::from_str::<Status>(&std::fs::read_to_string(&path).unwrap()).unwrap(), status);
}

/// The schemas of the payloads, generated from the types.
#[test]
fn the_schemas_follow_the_types() {
    macro_rules! check {
        ($($kind:literal: $payload:ty),+ $(,)?) => {
            $(let schema = serde_json::to_string_pretty(&schemars::schema_for!($payload)).unwrap() + "\n";
            check_file(&folder("schemas").join(concat!($kind, ".json")), &schema);)+
        };
    }
    check! {
        "landfall.object.landed.v1": Landed,
        "landfall.item.validated.v1": ItemValidated,
        "landfall.collection.validated.v1": CollectionValidated,
        "landfall.object.accepted.v1": ObjectAccepted,
        "landfall.object.removed.v1": ObjectRemoved,
        "landfall.item.routed.v1": ItemRouted,
        "landfall.collection.routed.v1": CollectionRouted,
        "landfall.collection.released.v1": CollectionReleased,
        "landfall.item.loaded.v1": ItemLoaded,
        "landfall.collection.loaded.v1": CollectionLoaded,
        "landfall.object.routed.v1": ObjectRouted,
        "landfall.object.refused.v1": Refused,
        "landfall.object.waiting.v1": Waiting,
        "landfall.object.ignored.v1": Ignored,
        "status": Status,
    }
}
