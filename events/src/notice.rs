//! The public message: one `CloudEvents` notice per change, with attributes that subscriptions can filter on.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cause::Cause;
use crate::codes::Code;
use crate::document::Document;
use crate::envelope::{self, Envelope, EventId};
use crate::letter;
use crate::refusal::Refusal;
use crate::report::{CollectionLoaded, Effect, ItemLoaded, ObjectRouted, Place, Refused, Report};
use crate::routed::{RoutedObject, StorageClass};

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
    /// Attributes for filter policies; at most [`ATTRIBUTES_MAX`].
    pub attributes: BTreeMap<String, Attribute>,
}

/// A value that a filter policy can be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// Of the type String.
    Text(String),
    /// Of the type Number: within 10^9 of zero, with five decimals at most.
    /// <https://docs.aws.amazon.com/sns/latest/dg/string-value-matching.html>
    Number(String),
}

impl Attribute {
    /// The value as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

/// How notices are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Style {
    /// The URL of the STAC API, without a slash at its end; where it is empty, `source` and `subject` are paths.
    pub api: String,
    /// What the body of an item's or collection's notice is.
    pub body: Body,
}

/// What the body of an item's or collection's notice is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A `CloudEvents` envelope around it.
    #[default]
    CloudEvents,
    /// The STAC document alone, as subscribers of Earth Search have it.
    Item,
}

/// The largest notice, in bytes: SNS takes 256 KiB with attributes.
/// <https://docs.aws.amazon.com/general/latest/gr/sns.html>
pub const BYTES_MAX: usize = 240 * 1024;

/// The most attributes: raw delivery to SQS discards a message that has more.
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-large-payload-raw-message-delivery.html>
pub const ATTRIBUTES_MAX: usize = 10;

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a EventId,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: jiff::Timestamp,
    datacontenttype: &'static str,
    /// Whose it is; an extension attribute.
    provider: &'a str,
    /// The landed object; an extension attribute.
    landed: String,
    /// The storage class of assets that must be restored before they can be fetched; an extension attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    storageclass: Option<&'a str>,
    data: D,
}

/// What stands for a document that is gone.
#[derive(Serialize)]
struct Gone<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<&'a str>,
}

/// What stands for a document that would make the notice too large.
/// <https://docs.ogc.org/DRAFTS/25-030.html>
#[derive(Serialize)]
struct Link<'a> {
    rel: &'static str,
    #[serde(rename = "type")]
    media: &'static str,
    href: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Document(&'a RawValue),
    Link(Link<'a>),
    Gone(Gone<'a>),
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
    response: Response<'a>,
}

/// What consumers of NASA's Cloud Notification Mechanism read.
/// <https://github.com/podaac/cloud-notification-message-schema>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    status: &'static str,
    error_code: &'static str,
    error_message: &'a str,
}

/// The type of every notice on the rejected topic.
pub const REJECTED: &str = "landfall.object.rejected.v1";

/// The type of a notice of routed data.
pub const OBJECT: &str = "landfall.object.completed.v1";

impl Notice {
    /// Says publicly what a report says; `None` where it is of no concern to subscribers (a wait, an ignored event).
    #[must_use]
    pub fn of(report: &Envelope<Report>, style: &Style) -> Option<Self> {
        match &report.event {
            Report::Item(loaded) => Some(item(report, loaded, style)),
            Report::Collection(loaded) => Some(collection(report, loaded, style)),
            Report::Object(routed) => Some(object(report, routed)),
            Report::Refused(refused) => Some(rejected(report, refused)),
            Report::Waiting(_) | Report::Ignored(_) => None,
        }
    }
}

/// What is not escaped in a segment of a URL's path. <https://www.rfc-editor.org/rfc/rfc3986#section-3.3>
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn segment(id: &str) -> impl std::fmt::Display {
    utf8_percent_encode(id, SEGMENT)
}

fn item(report: &Envelope<Report>, loaded: &ItemLoaded, style: &Style) -> Notice {
    // The names of the OGC API - Publish/Subscribe draft. <https://docs.ogc.org/DRAFTS/25-030.html>
    let kind = match loaded.effect {
        Effect::Created => "org.ogc.api.collection.item.create",
        Effect::Replaced => "org.ogc.api.collection.item.replace",
        Effect::Deleted => "org.ogc.api.collection.item.delete",
    };
    let source = format!("{}/collections/{}", style.api, segment(&loaded.collection));
    let document = Published {
        kind,
        media: "application/geo+json",
        rel: "item",
        subject: format!("{source}/items/{}", segment(&loaded.item)),
        source,
        gone: Gone { id: &loaded.item, collection: Some(&loaded.collection) },
        document: loaded.document.as_ref(),
    };
    let mut attributes = vec![text("collection", &loaded.collection), text("status", status(loaded.effect))];
    attributes.extend(loaded.place.as_ref().into_iter().flat_map(place));
    document.notice(report, style, attributes)
}

fn collection(report: &Envelope<Report>, loaded: &CollectionLoaded, style: &Style) -> Notice {
    let kind = match loaded.effect {
        Effect::Created => "org.ogc.api.collection.create",
        Effect::Replaced => "org.ogc.api.collection.replace",
        Effect::Deleted => "org.ogc.api.collection.delete",
    };
    let source = format!("{}/collections", style.api);
    let document = Published {
        kind,
        media: "application/json",
        rel: "collection",
        subject: format!("{source}/{}", segment(&loaded.collection)),
        source,
        gone: Gone { id: &loaded.collection, collection: None },
        document: (loaded.effect != Effect::Deleted).then_some(&loaded.document),
    };
    let attributes = vec![text("collection", &loaded.collection), text("status", status(loaded.effect))];
    document.notice(report, style, attributes)
}

fn object(report: &Envelope<Report>, routed: &ObjectRouted) -> Notice {
    let source = format!("s3://{}", routed.destination.object.bucket);
    let data = ObjectData { object: &routed.cause, destination: &routed.destination };
    let subject = &routed.destination.object.key;
    let body = enveloped(report, OBJECT, &source, subject, "application/json", &data);
    notice(report, Topic::Completed, body, vec![text("status", status(Effect::Created))])
}

fn rejected(report: &Envelope<Report>, refused: &Refused) -> Notice {
    let refusal = &refused.refusal;
    let response =
        Response { status: "FAILURE", error_code: error_code(&refusal.code), error_message: &refusal.reason };
    let data = RejectedData { object: &refused.cause, stage: &refused.stage, refusal, response };
    let source = format!("s3://{}", refused.cause.object.bucket);
    let subject = &refused.cause.object.key;
    let body = enveloped(report, REJECTED, &source, subject, "application/json", &data);
    let mut attributes = vec![text("code", refusal.code.as_str()), text("stage", &refused.stage)];
    attributes.extend(refusal.collection.as_deref().map(|collection| text("collection", collection)));
    notice(report, Topic::Rejected, body, attributes)
}

/// The word of Earth Search's topic.
fn status(effect: Effect) -> &'static str {
    match effect {
        Effect::Created => "created",
        Effect::Replaced => "updated",
        Effect::Deleted => "deleted",
    }
}

/// What the Cloud Notification Mechanism calls a refusal: what could not be fetched or moved is one of transfer, what
/// is wrong with a file one of validation.
fn error_code(code: &Code) -> &'static str {
    match code.as_str() {
        "route.asset-unequal" => "VALIDATION_ERROR",
        "route.asset-missing" | "route.refused" => "TRANSFER_ERROR",
        other if other.starts_with("stac.") || other.starts_with("load.") => "VALIDATION_ERROR",
        _ => "PROCESSING_ERROR",
    }
}

/// A document of the catalogue that is spoken of.
struct Published<'a> {
    kind: &'static str,
    media: &'static str,
    rel: &'static str,
    source: String,
    subject: String,
    gone: Gone<'a>,
    document: Option<&'a Document>,
}

impl Published<'_> {
    fn notice(&self, report: &Envelope<Report>, style: &Style, attributes: Vec<(&'static str, Attribute)>) -> Notice {
        let link = || Data::Link(Link { rel: self.rel, media: self.media, href: &self.subject });
        let gone = || Data::Gone(Gone { id: self.gone.id, collection: self.gone.collection });
        let data = match self.document {
            Some(Document::Inline(raw)) => Data::Document(raw),
            Some(Document::Stored(_)) => link(),
            None => gone(),
        };
        let build = |data: &Data<'_>| match style.body {
            Body::CloudEvents => enveloped(report, self.kind, &self.source, &self.subject, self.media, data),
            Body::Item => envelope::raw(data).get().to_owned(),
        };
        let body = build(&data);
        // What does not fit is linked to.
        let body = if body.len() > BYTES_MAX { build(&link()) } else { body };
        notice(report, Topic::Completed, body, attributes)
    }
}

fn enveloped<D: Serialize>(
    report: &Envelope<Report>,
    kind: &str,
    source: &str,
    subject: &str,
    datacontenttype: &'static str,
    data: &D,
) -> String {
    let landed = crate::Event::cause(&report.event).object.to_string();
    let (id, time, provider, storageclass) = (&report.id, report.time, report.provider.as_str(), cold(&report.event));
    let specversion = "1.0";
    let body = CloudEvent {
        specversion,
        id,
        source,
        kind,
        subject,
        time,
        datacontenttype,
        provider,
        landed,
        storageclass,
        data,
    };
    envelope::raw(&body).get().to_owned()
}

/// The first storage class, among those of what was routed, whose objects must be restored before they are read.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html>
fn cold(report: &Report) -> Option<&'static str> {
    let routed = match report {
        Report::Item(loaded) => loaded.assets.as_slice(),
        Report::Object(routed) => std::slice::from_ref(&routed.destination),
        Report::Collection(_) | Report::Refused(_) | Report::Waiting(_) | Report::Ignored(_) => &[],
    };
    let mut classes = routed.iter().filter_map(|object| object.storage_class);
    classes.find(|class| matches!(class, StorageClass::Glacier | StorageClass::DeepArchive)).map(StorageClass::as_str)
}

fn text(name: &'static str, value: &str) -> (&'static str, Attribute) {
    (name, Attribute::Text(letter::visible(value)))
}

/// Earth Search's attributes, so that its subscribers' filter policies work unchanged.
/// <https://github.com/Element84/earth-search>
fn place(place: &Place) -> Vec<(&'static str, Attribute)> {
    let [west, south, east, north] = place.bbox;
    // Within what a filter policy takes, whatever the geometry says.
    let number = |value: f64| Attribute::Number((value / 1e5 + 0.0).clamp(-1e9, 1e9).to_string());
    let (down, up) = (|value: f64| number((value * 1e5).floor()), |value: f64| number((value * 1e5).ceil()));
    let mut attributes = vec![
        ("bbox.ll_lon", down(west)),
        ("bbox.ll_lat", down(south)),
        ("bbox.ur_lon", up(east)),
        ("bbox.ur_lat", up(north)),
    ];
    let times = [
        ("datetime", &place.datetime),
        ("start_datetime", &place.start_datetime),
        ("end_datetime", &place.end_datetime),
    ];
    attributes.extend(times.into_iter().filter_map(|(name, time)| Some(text(name, time.as_deref()?))));
    attributes
}

fn notice(report: &Envelope<Report>, topic: Topic, body: String, attributes: Vec<(&'static str, Attribute)>) -> Notice {
    let all = attributes.into_iter().chain([text("provider", &report.provider)]);
    let attributes = all.filter(|(_, value)| !value.as_str().is_empty()).map(|(name, value)| (name.to_owned(), value));
    Notice { id: report.id.clone(), topic, body, attributes: attributes.collect() }
}
