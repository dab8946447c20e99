//! The validate stage: what landed, and is it valid STAC.
//!
//! It reads an object that may be a document, judges it, and passes on what it is. It refuses to guess: what lies
//! under a metadata path and is not valid STAC is refused, never passed on as data.

pub mod profiles;
pub mod refusals;

use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use landfall_events::report::{Ignored, Report};
use landfall_events::validated::{CollectionValidated, ItemValidated, ObjectAccepted, ObjectRemoved};
use landfall_events::{Cause, Change, Envelope, Landed, Problem, Refusal, Validated, codes};
use landfall_shared::config::{Environment, Landings, OnRemoval, Sited};
use landfall_shared::documents::{DOCUMENT_BYTES_MAX, Documents};
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::watched::{Watched, WatchedError};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Refused, Stage};
use landfall_stac::schemas::BUNDLE_BYTES_MAX;
use landfall_stac::{Bundle, FileJudgement, Judge, Judgement, Kind, Place, Schemas};
use tracing::info;

use profiles::Profiles;
use refusals::{Outlook, outlook};

/// Documents that are read and judged at a time.
const CONCURRENCY: usize = 16;

/// Names of files that may hold a document wherever they lie.
pub const DOCUMENT_SUFFIXES: [&str; 4] = [".json", ".geojson", ".ndjson", ".jsonl"];

/// The schema bundle that is used where none is named and it lies beside the program, as in a Lambda's zip.
const BUNDLE_BESIDE: &str = "schemas.bundle";

/// The stage.
pub struct Validate {
    objects: Arc<dyn Objects>,
    documents: Documents,
    landings: Landings,
    profiles: Profiles,
    schemas: Option<Watched<Schemas>>,
    ready_bucket: String,
}

/// Why it could not decide.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The landed object could not be read.
    #[error("could not read what landed")]
    Read(#[source] ObjectsError),
    /// The document is too large for a message and could not be kept.
    #[error("could not keep the document")]
    Keep(#[source] ObjectsError),
    /// There is no schema bundle to judge by.
    #[error("there are no schemas")]
    Schemas(#[source] WatchedError),
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            // The port knows.
            Self::Read(source) | Self::Keep(source) => source.class(),
            // An operator mends the bundle; nothing that landed is at fault.
            Self::Schemas(_) => Class::Transient,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Read(source) | Self::Keep(source) => Refusal::new(codes::STAC_TOO_LARGE, source.to_string()),
            Self::Schemas(_) => Refusal::new(codes::GAVE_UP, landfall_shared::stage::chain_of(self)),
        }
    }
}

impl Stage for Validate {
    type Input = Landed;
    type Output = Validated;
    type Error = Error;

    const NAME: &'static str = "validate";

    async fn handle(&self, batch: &[Envelope<Landed>], now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let each: Vec<_> = batch.iter().map(|envelope| self.one(envelope, now)).collect();
        futures::stream::iter(each).buffered(CONCURRENCY).collect().await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.objects.ready(&self.ready_bucket).await.map_err(Error::Read)?;
        self.schemas().await.map(drop)
    }
}

/// Where one object stands.
struct Spot<'s> {
    sited: Sited<'s>,
    judge: Judge<'s>,
    is_metadata: bool,
}

impl Validate {
    /// Builds the stage on what surrounds it. `LANDFALL_SCHEMAS` names the schema bundle (a path or `s3://…`; else it
    /// may lie beside the program), `LANDFALL_PROFILES` a folder or an `s3://bucket/prefix/` with profiles of one's own.
    ///
    /// # Errors
    /// Where a profile that a landing asks for is not there or wrong. A bundle that is wrong is told, and nothing is
    /// judged until it is mended.
    pub async fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let mut environment = Environment::default();
        let bundle = environment.or("LANDFALL_SCHEMAS", String::new());
        let place = environment.or("LANDFALL_PROFILES", String::new());
        environment.finish()?;
        let objects = surroundings.objects.clone();
        let profiles = Profiles::read(&*objects, &place, &surroundings.landings.profiles()).await?;
        let bundle = if bundle.is_empty() { beside() } else { Some(bundle) };
        let schemas = bundle.map(|place| watched_schemas(objects.clone(), &place));
        let stage = Self {
            objects,
            documents: surroundings.documents.clone(),
            landings: surroundings.landings.clone(),
            profiles,
            schemas,
            ready_bucket: surroundings.work_bucket.clone(),
        };
        let schemas = match stage.schemas().await {
            Ok(schemas) => schemas,
            Err(error) => {
                tracing::error!(
                    reason = landfall_shared::stage::chain_of(&error),
                    "nothing is judged until this is mended"
                );
                return Ok(stage);
            }
        };
        match schemas.as_deref().unwrap_or(Schemas::none()).len() {
            0 => tracing::warn!(
                "there is no schema bundle: documents that declare extensions are refused as stac.schema-unusable"
            ),
            schemas => tracing::info!(schemas, "extensions can be judged"),
        }
        Ok(stage)
    }

    /// Builds the stage on ports, with shipped profiles and the bundle at `schemas` (a path or `s3://…`).
    ///
    /// # Panics
    /// Where a landing asks for a profile that is not shipped.
    pub fn with(objects: Arc<dyn Objects>, landings: Landings, work_bucket: &str, schemas: Option<&str>) -> Self {
        let documents = Documents::new(objects.clone(), work_bucket);
        let profiles = Profiles::shipped(&landings.profiles()).expect("only shipped profiles are asked for");
        let schemas = schemas.map(|place| watched_schemas(objects.clone(), place));
        Self { objects, documents, landings, profiles, schemas, ready_bucket: work_bucket.to_owned() }
    }

    /// The schemas in force. A bundle that is not there yet is none: it is looked for again.
    async fn schemas(&self) -> Result<Option<Arc<Schemas>>, Error> {
        let Some(schemas) = &self.schemas else { return Ok(None) };
        match schemas.current().await {
            Ok(schemas) => Ok(Some(schemas)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(Error::Schemas(error)),
        }
    }

    async fn one(&self, envelope: &Envelope<Landed>, now: Timestamp) -> Result<Outcome<Self>, Error> {
        let cause = &envelope.event.cause;
        let Some(sited) = self.landings.site(&cause.object) else {
            let reason = format!("no landing is configured for {}, or its key names no provider", cause.object);
            return Ok(Outcome::refused(Refusal::new(codes::LANDING_UNCONFIGURED, reason)));
        };
        match cause.change {
            // Nothing is recorded: in the ledger, the key would have a newer change than what is loaded.
            Change::Removed if sited.on_removal == OnRemoval::Ignore => {
                info!(object = %cause.object, "removed from landing, which this landing ignores");
                return Ok(Outcome::Done(Done::default()));
            }
            Change::Removed => return self.removed(envelope).await,
            Change::Created if cause.object.key.ends_with('/') => return Ok(ignored(envelope, "folder-marker")),
            Change::Created => {}
        }
        let profile = self.profiles.get(sited.profile);
        let is_metadata = sited.is_metadata.unwrap_or_else(|| profile.is_metadata(sited.path));
        if profile.is_ignored(sited.path) || !(is_metadata || may_be_document(cause)) {
            return Ok(data(envelope));
        }
        let schemas = self.schemas().await?;
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let judge = Judge { schemas: schemas.as_deref().unwrap_or(Schemas::none()), profile, today };
        self.document(envelope, &Spot { sited, judge, is_metadata }).await
    }

    /// A removal counts when the bucket agrees: it may be late, and the object there again.
    async fn removed(&self, envelope: &Envelope<Landed>) -> Result<Outcome<Self>, Error> {
        let cause = envelope.event.cause.clone();
        match self.objects.head(&cause.object).await.map_err(Error::Read)? {
            Some(_) => Ok(ignored(envelope, "there-again")),
            None => Ok(Outcome::next(envelope.followed_by(ObjectRemoved { cause }.into()))),
        }
    }

    async fn document(&self, envelope: &Envelope<Landed>, spot: &Spot<'_>) -> Result<Outcome<Self>, Error> {
        let cause = &envelope.event.cause;
        let read = self.objects.get(&cause.object, cause.etag.as_deref(), DOCUMENT_BYTES_MAX).await;
        let body = match read {
            Ok((body, _)) => body,
            // What is gone or overwritten when its event arrives has another event under way.
            Err(ObjectsError::Missing(_)) => return Ok(ignored(envelope, "gone")),
            Err(ObjectsError::Changed(_)) => return Ok(ignored(envelope, "overwritten")),
            Err(ObjectsError::TooLarge { .. }) if !spot.is_metadata => return Ok(data(envelope)),
            Err(error) => return Err(Error::Read(error)),
        };
        let place = Place { path: Some(spot.sited.path), ..Place::default() };
        // A redriven member comes alone.
        match spot.judge.judge_file(cause.object.file_name(), &body, place, cause.member) {
            FileJudgement::One(judgement) => match outlook(judgement) {
                Outlook::Document(kind, judgement) => {
                    let text = std::str::from_utf8(&body).expect("a valid document is UTF-8");
                    let event = self.validated(cause, kind, judgement, text).await?;
                    Ok(Outcome::next(envelope.followed_by(event)))
                }
                Outlook::NoDocument(_) if !spot.is_metadata => Ok(data(envelope)),
                Outlook::NoDocument(refusal) | Outlook::Refused(refusal) => Ok(Outcome::refused(refusal)),
            },
            FileJudgement::Several(_, members) => {
                let members =
                    members.into_iter().map(|(member, judgement)| (member.number, member.bytes, outlook(judgement)));
                self.members(envelope, spot, members.collect()).await
            }
        }
    }

    /// One bad member does not sink the rest. Outside of metadata paths, a file of which no member is STAC is data.
    async fn members(
        &self,
        envelope: &Envelope<Landed>,
        spot: &Spot<'_>,
        mut members: Vec<(u32, &[u8], Outlook)>,
    ) -> Result<Outcome<Self>, Error> {
        let is_stac = members.iter().any(|(.., outlook)| !matches!(outlook, Outlook::NoDocument(_)));
        // A member that is redriven alone was refused as a part of its file, and is never data.
        if !spot.is_metadata && !is_stac && envelope.event.cause.member.is_none() {
            return Ok(data(envelope));
        }
        if members.is_empty() {
            return Ok(ignored(envelope, "empty"));
        }
        refusals::told_apart(&mut members);
        let mut done = Done::default();
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        for (number, bytes, outlook) in members {
            let cause = envelope.event.cause.of_member(number, count);
            match outlook {
                Outlook::Document(kind, judgement) => {
                    let text = std::str::from_utf8(bytes).expect("a valid document is UTF-8");
                    let event = self.validated(&cause, kind, judgement, text).await?;
                    done.next.push(envelope.followed_by(event));
                }
                Outlook::NoDocument(refusal) | Outlook::Refused(refusal) => {
                    done.refused.push(Refused { member: Some(envelope.followed_by(Landed { cause })), refusal });
                }
            }
        }
        Ok(Outcome::Done(done))
    }

    async fn validated(&self, cause: &Cause, kind: Kind, judgement: Judgement, text: &str) -> Result<Validated, Error> {
        let cause = cause.clone();
        let warnings: Vec<Problem> = judgement.warnings;
        let text = judgement.patched.unwrap_or_else(|| text.to_owned());
        Ok(match kind {
            Kind::Item { collection, id } => {
                let document = self.documents.pack(text).await.map_err(Error::Keep)?;
                let collection = collection.unwrap_or_default();
                ItemValidated { cause, collection, item: id, document, warnings }.into()
            }
            Kind::Collection { id } => {
                let document = self.documents.pack(text).await.map_err(Error::Keep)?;
                CollectionValidated { cause, collection: id, document, warnings }.into()
            }
            // pgSTAC holds no catalogs: a valid one is archived as it is.
            Kind::Catalog { .. } => ObjectAccepted { cause }.into(),
        })
    }
}

/// The bundle beside the program, where there is one.
fn beside() -> Option<String> {
    let path = std::env::current_exe().ok()?.with_file_name(BUNDLE_BESIDE);
    path.is_file().then(|| path.display().to_string())
}

/// Schemas that are read again when the bundle changes.
fn watched_schemas(objects: Arc<dyn Objects>, place: &str) -> Watched<Schemas> {
    Watched::new("schema bundle", objects, place, BUNDLE_BYTES_MAX, |bytes| Ok(Schemas::new(Bundle::read(bytes)?)))
}

fn may_be_document(cause: &Cause) -> bool {
    let name = cause.object.file_name().to_ascii_lowercase();
    DOCUMENT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn data(envelope: &Envelope<Landed>) -> Outcome<Validate> {
    let cause = envelope.event.cause.clone();
    Outcome::next(envelope.followed_by(ObjectAccepted { cause }.into()))
}

fn ignored(envelope: &Envelope<Landed>, rule: &str) -> Outcome<Validate> {
    let ignored = Ignored { cause: envelope.event.cause.clone(), rule: rule.to_owned() };
    Outcome::report(envelope.followed_by(Report::from(ignored)))
}

#[cfg(test)]
mod tests {
    use landfall_events::ObjectRef;
    use landfall_shared::config::Config;
    use landfall_shared::memory::MemoryObjects;

    use super::*;

    const ITEM: &str = r#"{"type":"Feature","stac_version":"1.0.0","id":"i","collection":"c","geometry":null,
        "properties":{"datetime":"2024-05-17T10:15:00Z","n":1.10},"links":[],"assets":{}}"#;

    async fn outcome(key: &str, body: &str) -> Done<Landed, Validated> {
        let objects = MemoryObjects::new(Arc::default());
        let cause = objects.land(&ObjectRef::new("landing", key), body.to_owned());
        let landings = Landings::new(&Config::default(), "landing").unwrap();
        let stage = Validate::with(Arc::new(objects), landings, "work", None);
        let envelope = Envelope::new(Landed { cause }, "p", 0);
        match stage.handle(&[envelope], Timestamp::UNIX_EPOCH).await.remove(0).unwrap() {
            Outcome::Done(done) => done,
            Outcome::Wait(_) => panic!("validate never waits"),
        }
    }

    async fn check_kind(key: &str, body: &str, expected: &str) {
        use landfall_events::Event;
        let done = outcome(key, body).await;
        let kinds: Vec<_> = done.next.iter().map(|next| next.event.kind()).collect();
        assert_eq!(kinds, [expected], "{key}");
        assert!(done.refused.is_empty() && done.reports.is_empty());
    }

    async fn check_refused(key: &str, body: &str, expected: landfall_events::Code) {
        let done = outcome(key, body).await;
        assert_eq!(done.refused.iter().map(|one| one.refusal.code.clone()).collect::<Vec<_>>(), [expected], "{key}");
        assert!(done.next.is_empty());
    }

    #[tokio::test]
    async fn path_comes_before_content() {
        check_kind("p/metadata/i.json", ITEM, "landfall.item.validated.v1").await;
        check_kind("p/any/i.json", ITEM, "landfall.item.validated.v1").await;
        check_kind("p/any/table.json", "[1]", "landfall.object.accepted.v1").await;
        check_kind("p/any/broken.json", "{", "landfall.object.accepted.v1").await;
        check_kind("p/data/a.tif", "II*", "landfall.object.accepted.v1").await;
        check_refused("p/metadata/table.json", "[1]", codes::STAC_NOT_STAC).await;
        check_refused("p/metadata/broken.json", "{", codes::STAC_UNPARSEABLE).await;
        check_refused("p/metadata/thumb.png", "\u{89}PNG", codes::STAC_UNPARSEABLE).await;
    }

    #[tokio::test]
    async fn a_document_of_another_version_is_refused_wherever_it_lies() {
        check_refused("p/any/i.json", &ITEM.replace("1.0.0", "0.9.0"), codes::STAC_VERSION).await;
    }

    #[tokio::test]
    async fn an_object_without_a_landing_is_refused() {
        check_refused("no-provider.tif", "x", codes::LANDING_UNCONFIGURED).await;
    }

    #[tokio::test]
    async fn a_document_goes_on_byte_for_byte_unless_it_is_mended() {
        let linked = ITEM.replace("[]", r#"[{"rel":"collection","href":"../c.json"}]"#);
        for (text, expected) in [
            (linked.as_str(), linked.as_str()),
            (ITEM, &ITEM.replace("[]", r#"[{"rel":"collection","href":"../../c","type":"application/json"}]"#)),
        ] {
            let done = outcome("p/metadata/i.json", text).await;
            let Validated::Item(item) = &done.next[0].event else { panic!("no item") };
            let landfall_events::Document::Inline(raw) = &item.document else { panic!("not inline") };
            // The order of the new link's members is not ours to choose.
            let (found, expected) = (
                raw.get().replace(r#""href":"../../c","rel":"collection""#, r#""rel":"collection","href":"../../c""#),
                expected,
            );
            assert_eq!(found, *expected);
            assert_eq!(item.warnings.iter().filter(|warning| warning.patched).count(), usize::from(text == ITEM));
        }
    }

    #[tokio::test]
    async fn one_bad_line_does_not_sink_the_rest() {
        let line = ITEM.replace('\n', " ");
        let done = outcome("p/metadata/items.ndjson", &format!("{line}\nnot json\n{line}\n")).await;
        assert_eq!(done.next.len(), 2);
        let member = done.refused[0].member.as_ref().unwrap();
        assert_eq!((member.event.cause.member, member.event.cause.members), (Some(2), Some(3)));
        assert_ne!(done.next[0].id, done.next[1].id);
    }

    #[tokio::test]
    async fn refused_members_with_one_id_are_known_by_their_lines() {
        let bad =
            |id: &str| ITEM.replace('\n', " ").replace("\"id\":\"i\"", &format!("\"id\":\"{id}\"")).replace("{}", "[]");
        let done = outcome("p/metadata/items.ndjson", &format!("{}\n{}\n{}\n", bad("a"), bad("b"), bad("a"))).await;
        let named: Vec<_> = done.refused.iter().map(|one| one.refusal.item.as_deref()).collect();
        assert_eq!(named, [None, Some("b"), None]);
    }

    #[tokio::test]
    async fn a_broken_line_that_is_redriven_alone_is_refused_again() {
        let line = ITEM.replace('\n', " ");
        let objects = MemoryObjects::new(Arc::default());
        let body = format!("{line}\nnot json\n");
        let cause = objects.land(&ObjectRef::new("landing", "p/any/items.ndjson"), body).of_member(2, 3);
        let landings = Landings::new(&Config::default(), "landing").unwrap();
        let stage = Validate::with(Arc::new(objects), landings, "work", None);
        let envelope = Envelope::new(Landed { cause }, "p", 1);

        let outcome = stage.handle(&[envelope], Timestamp::UNIX_EPOCH).await.remove(0).unwrap();

        let Outcome::Done(done) = outcome else { panic!("validate never waits") };
        assert_eq!((done.refused.len(), done.next.len()), (1, 0));
    }

    #[tokio::test]
    async fn nothing_is_refused_for_a_bundle_that_is_wrong_from_the_start() {
        let objects = MemoryObjects::new(Arc::default());
        let cause = objects.land(&ObjectRef::new("landing", "p/metadata/i.json"), ITEM.to_owned());
        objects.land(&ObjectRef::new("work", "schemas.bundle"), "no bundle".to_owned());
        let landings = Landings::new(&Config::default(), "landing").unwrap();
        let stage = Validate::with(Arc::new(objects), landings, "work", Some("s3://work/schemas.bundle"));
        let envelope = Envelope::new(Landed { cause }, "p", 0);

        let error = stage.handle(&[envelope], Timestamp::UNIX_EPOCH).await.remove(0).err().unwrap();

        assert_eq!(error.class(), Class::Transient);
        assert!(stage.ready().await.is_err(), "a poller receives nothing until it is mended");
    }

    #[tokio::test]
    async fn plain_geojson_and_lines_are_data_outside_of_metadata() {
        let features =
            r#"{"type":"FeatureCollection","features":[{"type":"Feature","properties":{},"geometry":null}]}"#;
        check_kind("p/data/footprints.geojson", features, "landfall.object.accepted.v1").await;
        check_kind("p/data/measured.jsonl", "{\"t\":1}\n{\"t\":2}\n", "landfall.object.accepted.v1").await;
        check_kind("p/data/empty.ndjson", "", "landfall.object.accepted.v1").await;
        let empty = outcome("p/metadata/empty.ndjson", "").await;
        assert!(matches!(&empty.reports[0].event, Report::Ignored(ignored) if ignored.rule == "empty"));
    }

    #[tokio::test]
    async fn too_many_members_and_too_long_ids_are_refused() {
        check_refused(
            "p/metadata/many.ndjson",
            &format!("{}\n", ITEM.replace('\n', " ")).repeat(landfall_stac::MEMBERS_MAX + 1),
            codes::STAC_TOO_MANY,
        )
        .await;
        let long = ITEM.replace("\"id\":\"i\"", &format!("\"id\":\"{}\"", "i".repeat(refusals::ID_BYTES_MAX + 1)));
        check_refused("p/metadata/long.json", &long, codes::STAC_SCHEMA).await;
    }

    #[tokio::test]
    async fn an_empty_folder_marker_is_ignored_by_name() {
        let done = outcome("p/folder/", "").await;
        assert!(matches!(&done.reports[0].event, Report::Ignored(ignored) if ignored.rule == "folder-marker"));
    }

    #[tokio::test]
    async fn a_removal_is_passed_on_or_ignored_as_the_landing_says() {
        let config = "[[landing]]\n[[landing]]\nprefix = 'kept/'\non_removal = 'ignore'";
        let landings = Landings::new(&Config::parse(config).unwrap(), "landing").unwrap();
        let objects = MemoryObjects::new(Arc::default());
        let stage = Validate::with(Arc::new(objects.clone()), landings, "work", None);
        let mut outcomes = Vec::new();
        for key in ["p/metadata/i.json", "kept/p/metadata/i.json"] {
            let object = ObjectRef::new("landing", key);
            objects.land(&object, ITEM.to_owned());
            let cause = objects.remove(&object);
            let envelope = Envelope::new(Landed { cause }, "p", 0);
            match stage.handle(&[envelope], Timestamp::UNIX_EPOCH).await.remove(0).unwrap() {
                Outcome::Done(done) => outcomes.push((done.next.len(), done.reports.len())),
                Outcome::Wait(_) => panic!("validate never waits"),
            }
        }
        assert_eq!(outcomes, [(1, 0), (0, 0)]);
    }
}
