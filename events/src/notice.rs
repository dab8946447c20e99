//! The public message: one `CloudEvents` notice per change, with attributes that subscriptions can filter on.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cause::Cause;
use crate::document::Document;
use crate::envelope::{self, Envelope, EventId};
use crate::letter;
use crate::refusal::Refusal;
use crate::report::{CollectionLoaded, Effect, ItemLoaded, ObjectRouted, Refused, Report};
use crate::routed::RoutedObject;

/// The topic that a notice goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// What can now be found, or is gone.
    Completed,
    /// What was refused.
    Rejected,
}

/// A notice ready to be published: the same bytes for every repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The id of the event that it announces.
    pub id: EventId,
    /// Where it goes.
    pub topic: Topic,
    /// The message body.
    pub body: String,
    /// String attributes for filter policies.
    pub attributes: BTreeMap<String, String>,
}

/// The largest notice, in bytes: SNS takes 256 KiB with attributes.
/// <https://docs.aws.amazon.com/general/latest/gr/sns.html>
pub const BYTES_MAX: usize = 240 * 1024;

#[derive(Serialize)]
struct Body<'a, D> {
    specversion: &'static str,
    id: &'a EventId,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: jiff::Timestamp,
    datacontenttype: &'static str,
    provider: &'a str,
    data: D,
}

#[derive(Serialize)]
struct ItemData<'a> {
    collection: &'a str,
    item: &'a str,
    effect: Effect,
    object: &'a Cause,
    assets: &'a [RoutedObject],
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct CollectionData<'a> {
    collection: &'a str,
    effect: Effect,
    object: &'a Cause,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ObjectData<'a> {
    object: &'a Cause,
    destination: &'a RoutedObject,
}

#[derive(Serialize)]
struct RejectedData<'a> {
    object: &'a Cause,
    stage: &'a str,
    #[serde(flatten)]
    refusal: &'a Refusal,
}

/// The type of every notice on the rejected topic.
pub const REJECTED: &str = "landfall.object.rejected.v1";

/// The type of a notice of routed data.
pub const OBJECT: &str = "landfall.object.completed.v1";

impl Notice {
    /// Says publicly what a report says; `None` where it is of no concern to subscribers (a wait, an ignored event).
    #[must_use]
    pub fn of(report: &Envelope<Report>) -> Option<Self> {
        match &report.event {
            Report::Item(loaded) => Some(item(report, loaded)),
            Report::Collection(loaded) => Some(collection(report, loaded)),
            Report::Object(routed) => Some(object(report, routed)),
            Report::Refused(refused) => Some(rejected(report, refused)),
            Report::Waiting(_) | Report::Ignored(_) => None,
        }
    }
}

fn item(report: &Envelope<Report>, loaded: &ItemLoaded) -> Notice {
    let source = format!("/collections/{}", loaded.collection);
    // The names of the OGC API - Publish/Subscribe draft. <https://docs.ogc.org/DRAFTS/25-030.html>
    let kind = match loaded.effect {
        Effect::Created => "org.ogc.api.collection.item.create",
        Effect::Replaced => "org.ogc.api.collection.item.replace",
        Effect::Deleted => "org.ogc.api.collection.item.delete",
    };
    let data = |fit| ItemData {
        collection: &loaded.collection,
        item: &loaded.item,
        effect: loaded.effect,
        object: &loaded.cause,
        assets: if fit == Fit::Bare { &[] } else { &loaded.assets },
        document: inline(loaded.document.as_ref(), fit),
    };
    let attributes = [("collection", loaded.collection.as_str()), ("status", loaded.effect.as_str())];
    notice(report, Topic::Completed, kind, source, &loaded.item, &attributes, data)
}

fn collection(report: &Envelope<Report>, loaded: &CollectionLoaded) -> Notice {
    let kind = match loaded.effect {
        Effect::Created => "org.ogc.api.collection.create",
        Effect::Replaced => "org.ogc.api.collection.replace",
        Effect::Deleted => "org.ogc.api.collection.delete",
    };
    let data = |fit| CollectionData {
        collection: &loaded.collection,
        effect: loaded.effect,
        object: &loaded.cause,
        document: inline(Some(&loaded.document), fit),
    };
    let attributes = [("collection", loaded.collection.as_str()), ("status", loaded.effect.as_str())];
    let source = "/collections".to_owned();
    notice(report, Topic::Completed, kind, source, &loaded.collection, &attributes, data)
}

fn object(report: &Envelope<Report>, routed: &ObjectRouted) -> Notice {
    let source = format!("s3://{}", routed.destination.object.bucket);
    let data = |_| ObjectData { object: &routed.cause, destination: &routed.destination };
    let subject = &routed.destination.object.key;
    notice(report, Topic::Completed, OBJECT, source, subject, &[("status", "routed")], data)
}

fn rejected(report: &Envelope<Report>, refused: &Refused) -> Notice {
    let data = |_| RejectedData { object: &refused.cause, stage: &refused.stage, refusal: &refused.refusal };
    let source = format!("s3://{}", refused.cause.object.bucket);
    let code = refused.refusal.code.as_str();
    let mut attributes = vec![("code", code), ("stage", refused.stage.as_str()), ("status", "rejected")];
    attributes.extend(refused.refusal.collection.as_deref().map(|collection| ("collection", collection)));
    notice(report, Topic::Rejected, REJECTED, source, &refused.cause.object.key, &attributes, data)
}

/// How much of what a notice could say fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Everything.
    Whole,
    /// Without the document.
    Slim,
    /// Without the list of assets too.
    Bare,
}

/// Builds a notice; a document that would make it too large is left out, and its place is in `data.object`.
#[allow(clippy::too_many_arguments, reason = "each is one field of the notice")]
fn notice<'a, D: Serialize>(
    report: &'a Envelope<Report>,
    topic: Topic,
    kind: &'a str,
    source: String,
    subject: &'a str,
    attributes: &[(&str, &str)],
    data: impl Fn(Fit) -> D,
) -> Notice {
    let build = |fit| {
        let body = Body {
            specversion: "1.0",
            id: &report.id,
            source: source.clone(),
            kind,
            subject,
            time: report.time,
            datacontenttype: "application/json",
            provider: &report.provider,
            data: data(fit),
        };
        envelope::raw(&body).get().to_owned()
    };
    let bodies = [Fit::Whole, Fit::Slim, Fit::Bare].into_iter().map(build);
    let mut last = String::new();
    let body = bodies.inspect(|body| last.clone_from(body)).find(|body| body.len() <= BYTES_MAX).unwrap_or(last);
    let own = [("type", kind), ("provider", report.provider.as_str())];
    let pairs = own.iter().chain(attributes).filter(|(_, value)| !value.is_empty());
    let attributes = pairs.map(|(name, value)| ((*name).to_owned(), letter::visible(value))).collect();
    Notice { id: report.id.clone(), topic, body, attributes }
}

fn inline(document: Option<&Document>, fit: Fit) -> Option<&RawValue> {
    match document? {
        Document::Inline(raw) if fit == Fit::Whole => Some(raw),
        Document::Inline(_) | Document::Stored(_) => None,
    }
}
