//! The validate stage: what landed, and is it valid STAC.
//!
//! It reads an object that may be a document, judges it, and passes on what it is. It refuses to guess: what lies
//! under a metadata path and is not valid STAC is refused, never passed on as data.

use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use landfall_events::report::{Ignored, Report};
use landfall_events::validated::{CollectionValidated, ItemValidated, ObjectAccepted, ObjectRemoved};
use landfall_events::{Cause, Change, Code, Envelope, Landed, Problem, Refusal, Validated, codes};
use landfall_shared::config::{Landings, Sited};
use landfall_shared::documents::{DOCUMENT_BYTES_MAX, Documents};
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::worker::Surroundings;
use landfall_shared::{Class, Done, Failure, Outcome, Refused, Stage};
use landfall_stac::{Kind, Members, Profile, Verdict};

/// Documents that are read and judged at a time.
const CONCURRENCY: usize = 16;

/// Members of one file that are taken: each becomes messages, which are held in memory together.
const MEMBERS_MAX: usize = 10_000;

/// The longest ids that are taken, in bytes: they go into keys of the ledger's indexes, which hold 2,704 bytes in all.
/// <https://www.postgresql.org/docs/15/btree-implementation.html>
const ID_BYTES_MAX: usize = 512;

/// Names of files that may hold a document wherever they lie.
const DOCUMENT_SUFFIXES: [&str; 4] = [".json", ".geojson", ".ndjson", ".jsonl"];

/// The stage.
pub struct Validate {
    objects: Arc<dyn Objects>,
    documents: Documents,
    landings: Landings,
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
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            // The port knows.
            Self::Read(source) | Self::Keep(source) => source.class(),
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Read(source) | Self::Keep(source) => Refusal::new(codes::STAC_TOO_LARGE, source.to_string()),
        }
    }
}

impl Stage for Validate {
    type Input = Landed;
    type Output = Validated;
    type Error = Error;

    const NAME: &'static str = "validate";

    async fn handle(&self, batch: &[Envelope<Landed>], _now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        let each: Vec<_> = batch.iter().map(|envelope| self.one(envelope)).collect();
        futures::stream::iter(each).buffered(CONCURRENCY).collect().await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.objects.ready(&self.ready_bucket).await.map_err(Error::Read)
    }
}

impl Validate {
    /// Builds the stage on what surrounds it.
    #[must_use]
    pub fn new(surroundings: &Surroundings) -> Self {
        Self {
            objects: surroundings.objects.clone(),
            documents: surroundings.documents.clone(),
            landings: surroundings.landings.clone(),
            ready_bucket: surroundings.work_bucket.clone(),
        }
    }

    /// Builds the stage on ports.
    pub fn with(objects: Arc<dyn Objects>, landings: Landings, work_bucket: &str) -> Self {
        let documents = Documents::new(objects.clone(), work_bucket);
        Self { objects, documents, landings, ready_bucket: work_bucket.to_owned() }
    }

    async fn one(&self, envelope: &Envelope<Landed>) -> Result<Outcome<Self>, Error> {
        let cause = &envelope.event.cause;
        let Some(sited) = self.landings.site(&cause.object) else {
            let reason = format!("no landing is configured for {}, or its key names no provider", cause.object);
            return Ok(Outcome::refused(Refusal::new(codes::LANDING_UNCONFIGURED, reason)));
        };
        match cause.change {
            Change::Removed => self.removed(envelope).await,
            Change::Created if cause.object.key.ends_with('/') => Ok(ignored(envelope, "folder-marker")),
            Change::Created if may_be_document(cause, &sited) => self.document(envelope, &sited).await,
            Change::Created => Ok(data(envelope)),
        }
    }

    /// A removal counts when the bucket agrees: it may be late, and the object there again.
    async fn removed(&self, envelope: &Envelope<Landed>) -> Result<Outcome<Self>, Error> {
        let cause = envelope.event.cause.clone();
        match self.objects.head(&cause.object).await.map_err(Error::Read)? {
            Some(_) => Ok(ignored(envelope, "there-again")),
            None => Ok(Outcome::next(envelope.followed_by(ObjectRemoved { cause }.into()))),
        }
    }

    async fn document(&self, envelope: &Envelope<Landed>, sited: &Sited<'_>) -> Result<Outcome<Self>, Error> {
        let cause = &envelope.event.cause;
        let read = self.objects.get(&cause.object, cause.etag.as_deref(), DOCUMENT_BYTES_MAX).await;
        let body = match read {
            Ok((body, _)) => body,
            // What is gone or overwritten when its event arrives has another event under way.
            Err(ObjectsError::Missing(_)) => return Ok(ignored(envelope, "gone")),
            Err(ObjectsError::Changed(_)) => return Ok(ignored(envelope, "overwritten")),
            Err(ObjectsError::TooLarge { .. }) if !sited.is_metadata => return Ok(data(envelope)),
            Err(error) => return Err(Error::Read(error)),
        };
        let Ok(text) = std::str::from_utf8(&body) else {
            let reason = "the file is not encoded in UTF-8";
            return Ok(if sited.is_metadata { refuse(codes::STAC_UNPARSEABLE, reason) } else { data(envelope) });
        };
        let profile = Profile::named(sited.profile).unwrap_or(Profile::Ingest);
        match landfall_stac::split(cause.object.file_name(), text) {
            Members::One => self.single(envelope, sited, profile, text).await,
            Members::Features(features) => {
                let members = features.into_iter().zip(1..).map(|(feature, number)| (number, feature.get()));
                self.members(envelope, sited, profile, members.collect()).await
            }
            Members::Lines(lines) => self.members(envelope, sited, profile, lines).await,
        }
    }

    async fn single(
        &self,
        envelope: &Envelope<Landed>,
        sited: &Sited<'_>,
        profile: Profile,
        text: &str,
    ) -> Result<Outcome<Self>, Error> {
        match judged(landfall_stac::judge(text, profile)) {
            Judged::Document(kind, warnings) => {
                let event = self.validated(&envelope.event.cause, kind, warnings, text).await?;
                Ok(Outcome::next(envelope.followed_by(event)))
            }
            Judged::NoDocument(_) if !sited.is_metadata => Ok(data(envelope)),
            Judged::NoDocument(refusal) | Judged::Refused(refusal) => Ok(Outcome::refused(refusal)),
        }
    }

    /// Judges each member by itself: one bad member does not sink the rest. A redriven member comes alone.
    /// Outside of metadata paths, a file of which no member is STAC is data.
    async fn members(
        &self,
        envelope: &Envelope<Landed>,
        sited: &Sited<'_>,
        profile: Profile,
        members: Vec<(u32, &str)>,
    ) -> Result<Outcome<Self>, Error> {
        let mut done = Done::default();
        let whole = &envelope.event.cause;
        let is_stac = |text: &str| {
            matches!(judged(landfall_stac::judge(text, profile)), Judged::Document(..) | Judged::Refused(_))
        };
        if !sited.is_metadata && !members.iter().any(|(_, text)| is_stac(text)) {
            return Ok(data(envelope));
        }
        if members.is_empty() {
            return Ok(ignored(envelope, "empty"));
        }
        if members.len() > MEMBERS_MAX {
            let reason = format!("the file has {} members; {MEMBERS_MAX} are taken", members.len());
            return Ok(refuse(codes::STAC_TOO_LARGE, &reason));
        }
        for (number, text) in members {
            if whole.member.is_some_and(|only| only != number) {
                continue;
            }
            let cause = whole.of_member(number);
            match judged(landfall_stac::judge(text, profile)) {
                Judged::Document(kind @ Kind::Item { .. }, warnings) => {
                    let event = self.validated(&cause, kind, warnings, text).await?;
                    done.next.push(envelope.followed_by(event));
                }
                Judged::Document(Kind::Collection { .. } | Kind::Catalog { .. }, _) => {
                    let refusal = Refusal::new(codes::STAC_NOT_STAC, "a member of an item file is not an item");
                    done.refused.push(refused_member(envelope, cause, refusal));
                }
                Judged::NoDocument(refusal) | Judged::Refused(refusal) => {
                    done.refused.push(refused_member(envelope, cause, refusal));
                }
            }
        }
        Ok(Outcome::Done(done))
    }

    async fn validated(
        &self,
        cause: &Cause,
        kind: Kind,
        warnings: Vec<Problem>,
        text: &str,
    ) -> Result<Validated, Error> {
        let cause = cause.clone();
        Ok(match kind {
            Kind::Item { collection, id } => {
                let document = self.documents.pack(text.to_owned()).await.map_err(Error::Keep)?;
                let collection = collection.unwrap_or_default();
                ItemValidated { cause, collection, item: id, document, warnings }.into()
            }
            Kind::Collection { id } => {
                let document = self.documents.pack(text.to_owned()).await.map_err(Error::Keep)?;
                CollectionValidated { cause, collection: id, document, warnings }.into()
            }
            // pgSTAC holds no catalogs: a valid one is archived as it is.
            Kind::Catalog { .. } => ObjectAccepted { cause }.into(),
        })
    }
}

/// A verdict as this stage needs it.
enum Judged {
    Document(Kind, Vec<Problem>),
    /// Not STAC at all: data, unless its path says metadata.
    NoDocument(Refusal),
    Refused(Refusal),
}

fn judged(verdict: Verdict) -> Judged {
    match verdict {
        Verdict::Valid { kind: Kind::Item { collection: None, id }, .. } => {
            let mut refusal = Refusal::new(codes::STAC_COLLECTION_MISSING, "the item names no collection");
            refusal.item = Some(id);
            Judged::Refused(refusal)
        }
        Verdict::Valid { kind, warnings } => match too_long(&kind) {
            Some(refusal) => Judged::Refused(refusal),
            None => Judged::Document(kind, warnings),
        },
        Verdict::Invalid { problems, ids: (collection, item) } => {
            let short = |id: Option<String>| id.filter(|id| id.len() <= ID_BYTES_MAX);
            Judged::Refused(invalid(problems, short(collection), short(item)))
        }
        Verdict::NotStac => {
            Judged::NoDocument(Refusal::new(codes::STAC_NOT_STAC, "the file is JSON but no STAC document"))
        }
        Verdict::UnsupportedVersion(version) => {
            let reason = format!("stac_version is {version}; 1.0.0 and 1.1.0 are taken");
            Judged::Refused(Refusal::new(codes::STAC_VERSION, reason))
        }
        Verdict::Unparseable { line, column, message } => {
            let reason = format!("not JSON at line {line}, column {column}: {message}");
            Judged::NoDocument(Refusal::new(codes::STAC_UNPARSEABLE, reason))
        }
    }
}

fn too_long(kind: &Kind) -> Option<Refusal> {
    let ids = match kind {
        Kind::Item { collection, id } => [Some(id), collection.as_ref()],
        Kind::Collection { id } | Kind::Catalog { id } => [Some(id), None],
    };
    let longest = ids.into_iter().flatten().map(String::len).max()?;
    let reason = || format!("an id is {longest} bytes long; {ID_BYTES_MAX} are taken");
    (longest > ID_BYTES_MAX).then(|| Refusal::new(codes::STAC_SCHEMA, reason()))
}

/// Refuses with all problems; under their own code where they share one.
fn invalid(problems: Vec<Problem>, collection: Option<String>, item: Option<String>) -> Refusal {
    let shared = problems.first().map(|first| first.code.clone());
    let code = shared.filter(|code| problems.iter().all(|problem| problem.code == *code)).unwrap_or(codes::STAC_SCHEMA);
    let first = problems.first().map(|first| {
        let place = if first.pointer.is_empty() { "the document" } else { &first.pointer };
        format!("{place}: {}", first.message)
    });
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let reason = format!("{count}; {}", first.unwrap_or_default());
    Refusal { code, reason, problems, collection, item }
}

fn may_be_document(cause: &Cause, sited: &Sited<'_>) -> bool {
    let name = cause.object.file_name().to_ascii_lowercase();
    sited.is_metadata || DOCUMENT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn data(envelope: &Envelope<Landed>) -> Outcome<Validate> {
    let cause = envelope.event.cause.clone();
    Outcome::next(envelope.followed_by(ObjectAccepted { cause }.into()))
}

fn ignored(envelope: &Envelope<Landed>, rule: &str) -> Outcome<Validate> {
    let ignored = Ignored { cause: envelope.event.cause.clone(), rule: rule.to_owned() };
    Outcome::report(envelope.followed_by(Report::from(ignored)))
}

fn refuse(code: Code, reason: &str) -> Outcome<Validate> {
    Outcome::refused(Refusal::new(code, reason))
}

fn refused_member(envelope: &Envelope<Landed>, cause: Cause, refusal: Refusal) -> Refused<Landed> {
    Refused { member: Some(envelope.followed_by(Landed { cause })), refusal }
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
        let stage = Validate::with(Arc::new(objects), landings, "work");
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

    async fn check_refused(key: &str, body: &str, expected: Code) {
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
    async fn a_document_goes_on_byte_for_byte() {
        let done = outcome("p/metadata/i.json", ITEM).await;
        let Validated::Item(item) = &done.next[0].event else { panic!("no item") };
        assert!(matches!(&item.document, landfall_events::Document::Inline(raw) if raw.get() == ITEM));
    }

    #[tokio::test]
    async fn one_bad_line_does_not_sink_the_rest() {
        let line = ITEM.replace('\n', " ");
        let done = outcome("p/metadata/items.ndjson", &format!("{line}\nnot json\n{line}\n")).await;
        assert_eq!(done.next.len(), 2);
        let member = done.refused[0].member.as_ref().unwrap();
        assert_eq!(member.event.cause.member, Some(2));
        assert_ne!(done.next[0].id, done.next[1].id);
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
        check_refused("p/metadata/many.ndjson", &"x\n".repeat(MEMBERS_MAX + 1), codes::STAC_TOO_LARGE).await;
        let long = ITEM.replace("\"id\":\"i\"", &format!("\"id\":\"{}\"", "i".repeat(ID_BYTES_MAX + 1)));
        check_refused("p/metadata/long.json", &long, codes::STAC_SCHEMA).await;
    }

    #[tokio::test]
    async fn an_empty_folder_marker_is_ignored_by_name() {
        let done = outcome("p/folder/", "").await;
        assert!(matches!(&done.reports[0].event, Report::Ignored(ignored) if ignored.rule == "folder-marker"));
    }
}
