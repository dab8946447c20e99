//! A document's hrefs: where they point, and the document with others in their place.
//!
//! The document is taken apart only as far as its hrefs; everything else stays the text that it was.

use indexmap::IndexMap;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use landfall_events::ObjectRef;
use landfall_shared::config::LinkRule;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::rewriting::Setting;

/// A JSON object whose members stay raw text, in their order.
type RawObject = IndexMap<String, Box<RawValue>>;

/// A document taken apart.
#[derive(Debug)]
pub(crate) struct Parts {
    document: RawObject,
    assets: IndexMap<String, RawObject>,
    links: Vec<RawObject>,
}

/// What a document says of one asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) name: String,
    pub(crate) href: String,
    /// `file:size`, in bytes, as it is written.
    pub(crate) size: Option<String>,
    /// `file:checksum`, a multihash in hexadecimal.
    pub(crate) checksum: Option<String>,
}

/// What an asset's href means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// It leads elsewhere and stays as it is.
    Foreign,
    /// It means one of these landed objects, whichever is there.
    Landed(Vec<ObjectRef>),
    /// It leads out of the provider's part of landing, or out of the dataset.
    Escape,
}

/// The extension under which a document keeps more than one href of an asset.
const ALTERNATE_ASSETS: &str = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json";

/// The name of the href that an asset had when it landed, as the DestinE Data Lake has it.
const ORIGIN: &str = "origin";

impl Parts {
    /// Takes a document apart.
    ///
    /// # Errors
    /// Where it is not a JSON object, its assets are not objects of objects, or its links are not a list of them.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        let document: RawObject = serde_json::from_str(text)?;
        let assets = document.get("assets").map(|assets| serde_json::from_str(assets.get())).transpose()?;
        let links = document.get("links").map(|links| serde_json::from_str(links.get())).transpose()?;
        Ok(Self { document, assets: assets.unwrap_or_default(), links: links.unwrap_or_default() })
    }

    /// What it says of its assets; one without an href is none.
    pub(crate) fn assets(&self) -> impl Iterator<Item = Asset> {
        self.assets.iter().filter_map(|(name, asset)| {
            let text = |member: &str| serde_json::from_str(asset.get(member)?.get()).ok();
            Some(Asset {
                name: name.clone(),
                href: text("href")?,
                size: asset.get("file:size").map(|size| size.get().to_owned()),
                checksum: text("file:checksum"),
            })
        })
    }

    /// The day of an item in UTC: of its `datetime`, or of its `start_datetime`.
    pub(crate) fn date(&self) -> Option<Date> {
        #[derive(Deserialize)]
        struct Properties {
            #[serde(default)]
            datetime: Option<jiff::Timestamp>,
            #[serde(default)]
            start_datetime: Option<jiff::Timestamp>,
        }
        let properties: Properties = serde_json::from_str(self.document.get("properties")?.get()).ok()?;
        let time = properties.datetime.or(properties.start_datetime)?;
        Some(time.to_zoned(TimeZone::UTC).date())
    }

    /// Puts another href in an asset's place; the one that it had stays as an alternate where that is asked for.
    pub(crate) fn set_href(&mut self, asset: &str, href: &str, keep_original: bool) {
        let Some(asset) = self.assets.get_mut(asset) else { return };
        let before = asset.insert("href".into(), raw(&href));
        let Some(before) = before.filter(|_| keep_original) else { return };
        let alternates = asset.get("alternate").and_then(|kept| serde_json::from_str::<RawObject>(kept.get()).ok());
        let mut alternates = alternates.unwrap_or_default();
        alternates.insert(ORIGIN.into(), raw(&RawObject::from([("href".to_owned(), before)])));
        asset.insert("alternate".into(), raw(&alternates));
        let extensions = self.document.get("stac_extensions");
        let mut extensions: Vec<String> =
            extensions.and_then(|extensions| serde_json::from_str(extensions.get()).ok()).unwrap_or_default();
        if !extensions.iter().any(|extension| extension.contains("/alternate-assets/")) {
            extensions.push(ALTERNATE_ASSETS.to_owned());
            self.document.insert("stac_extensions".into(), raw(&extensions));
        }
    }

    /// Sets, removes or keeps the links that say where the document stands.
    pub(crate) fn set_links(&mut self, settings: &[Setting<'_>]) {
        for Setting { rel, rule, media_type } in settings {
            let is_of = |link: &RawObject| {
                link.get("rel")
                    .is_some_and(|name| serde_json::from_str::<String>(name.get()).is_ok_and(|name| name == *rel))
            };
            match rule {
                LinkRule::Keep => {}
                LinkRule::Remove => self.links.retain(|link| !is_of(link)),
                LinkRule::Set(href) => match self.links.iter_mut().find(|link| is_of(link)) {
                    Some(link) => drop(link.insert("href".into(), raw(href))),
                    None => self.links.push(RawObject::from([
                        ("rel".to_owned(), raw(rel)),
                        ("href".to_owned(), raw(href)),
                        ("type".to_owned(), raw(media_type)),
                    ])),
                },
            }
        }
    }

    /// Puts the document together again.
    #[must_use]
    pub(crate) fn write(mut self) -> String {
        // What was not there is not written either.
        if !self.assets.is_empty() {
            self.document.insert("assets".into(), raw(&self.assets));
        }
        if !self.links.is_empty() || self.document.contains_key("links") {
            self.document.insert("links".into(), raw(&self.links));
        }
        raw(&self.document).get().to_owned()
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("text and raw JSON stay JSON")
}

/// Finds what an href of the document `of` means. `root` is the start of the provider's keys; `is_ours` knows the
/// buckets that no document may name.
///
/// A relative href starts at the document's own folder, or at the dataset's root: the folder that holds `metadata/`.
#[must_use]
pub(crate) fn target(href: &str, of: &ObjectRef, root: &str, is_ours: impl Fn(&str) -> bool) -> Target {
    // <https://www.rfc-editor.org/rfc/rfc3986#section-3.1>: a scheme's case does not count.
    if let Some(rest) = href.get(..5).filter(|start| start.eq_ignore_ascii_case("s3://")).map(|_| &href[5..]) {
        let Some(object) = ObjectRef::parse(&format!("s3://{rest}")) else { return Target::Escape };
        return match object.bucket == of.bucket {
            true if is_within(&object.key, root) => Target::Landed(vec![object]),
            true => Target::Escape,
            false if is_ours(&object.bucket) => Target::Escape,
            false => Target::Foreign,
        };
    }
    // <https://www.rfc-editor.org/rfc/rfc3986#section-3.1>: a scheme is letters, digits, `+`, `-`, `.` before a colon.
    let scheme = href.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    });
    if scheme || href.starts_with('/') {
        return Target::Foreign;
    }
    let folder = of.key.rsplit_once('/').map_or("", |(folder, _)| folder);
    let dataset = format!("/{folder}/").split_once("/metadata/").map(|(dataset, _)| dataset.len().saturating_sub(1));
    let dataset = dataset.map(|length| &folder[..length]);
    // Nothing leads out of the dataset, or of the provider's files where there is none.
    let bound = dataset.map_or_else(|| root.to_owned(), |dataset| format!("{dataset}/"));
    let bound = if bound.len() > root.len() { bound.as_str() } else { root };
    let decoded = percent_decode_str(href).decode_utf8().ok();
    let mut candidates = Vec::new();
    for base in std::iter::once(folder).chain(dataset) {
        for path in std::iter::once(href).chain(decoded.as_deref()) {
            // What climbs out of the dataset from its root may still be meant from the document's own folder.
            let Some(key) = joined(base, path).filter(|key| is_within(key, bound)) else {
                if base == folder {
                    return Target::Escape;
                }
                continue;
            };
            let object = ObjectRef::new(&of.bucket, key);
            if !candidates.contains(&object) {
                candidates.push(object);
            }
        }
    }
    Target::Landed(candidates)
}

/// Whether a key lies below a root and does not climb out of it by its name.
fn is_within(key: &str, root: &str) -> bool {
    key.starts_with(root) && key.len() > root.len() && !key.split('/').any(|segment| segment == "..")
}

/// Joins a folder and a relative path; `None` where it climbs above the bucket.
fn joined(folder: &str, path: &str) -> Option<String> {
    // Two slashes are two in a key.
    let mut segments: Vec<&str> = if folder.is_empty() { Vec::new() } else { folder.split('/').collect() };
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => {
                segments.pop()?;
            }
            name => segments.push(name),
        }
    }
    Some(segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = "sbn/C/metadata/items/i.json";

    #[track_caller]
    fn check(href: &str, expected: &[&str]) {
        let keys = match target(href, &ObjectRef::new("landing", ITEM), "sbn/", |bucket| bucket == "archive") {
            Target::Landed(objects) => objects.into_iter().map(|object| object.key).collect(),
            Target::Foreign => vec!["foreign".to_owned()],
            Target::Escape => vec!["escape".to_owned()],
        };
        assert_eq!(keys, expected, "{href}");
    }

    #[test]
    fn a_relative_href_starts_at_the_item_or_at_the_dataset() {
        check("data/a.tif", &["sbn/C/metadata/items/data/a.tif", "sbn/C/data/a.tif"]);
        check("./a.tif", &["sbn/C/metadata/items/a.tif", "sbn/C/a.tif"]);
        check(
            "a%20b.tif",
            &["sbn/C/metadata/items/a%20b.tif", "sbn/C/metadata/items/a b.tif", "sbn/C/a%20b.tif", "sbn/C/a b.tif"],
        );
    }

    #[test]
    fn what_leads_elsewhere_is_foreign() {
        check("https://example.com/a.tif", &["foreign"]);
        check("s3://other/a.tif", &["foreign"]);
        check("file:///etc/passwd", &["foreign"]);
        check("/etc/passwd", &["foreign"]);
        check("s3://landing/sbn/x.tif", &["sbn/x.tif"]);
    }

    #[test]
    fn a_climb_stays_within_the_dataset() {
        check("../../data/x.tif", &["sbn/C/data/x.tif"]);
        check("../../../D/data/x.tif", &["escape"]);
        check("../../../../sbn/C/x.tif", &["sbn/C/x.tif"]);
    }

    #[test]
    fn nothing_leads_out_of_the_providers_part() {
        check("../../../../x", &["escape"]);
        check("../../../img/x", &["escape"]);
        check("s3://landing/img/x", &["escape"]);
        check("s3://landing/sbn/../img/x", &["escape"]);
        check("%2e%2e/%2e%2e/%2e%2e/img/x", &["escape"]);
        check("s3://archive/sbn/x", &["escape"]);
        check("S3://landing/img/x", &["escape"]);
        check("s3:///x", &["escape"]);
    }

    #[test]
    fn a_key_is_what_its_bytes_are() {
        check("caf%E9.tif", &["sbn/C/metadata/items/caf%E9.tif", "sbn/C/caf%E9.tif"]);
        check("a//b.tif", &["sbn/C/metadata/items/a//b.tif", "sbn/C/a//b.tif"]);
    }

    #[test]
    fn a_rewritten_document_keeps_every_digit_and_the_order_of_its_keys() {
        let text = r#"{"z":1.10,"assets":{"b":{"title":"B","href":"b.tif","x":1e2},"a":{"href":"a"}},"n":12345678901234567890.5}"#;
        let mut parts = Parts::read(text).unwrap();
        parts.set_href("b", "s3://archive/b.tif", false);
        assert_eq!(parts.write(), text.replace("\"b.tif\"", "\"s3://archive/b.tif\""));
    }
    #[test]
    fn an_original_href_is_kept_where_that_is_asked_for() {
        let mut parts =
            Parts::read(r#"{"assets":{"a":{"href":"a","alternate":{"x":{"href":"y"}}}},"links":[]}"#).unwrap();
        parts.set_href("a", "s3://archive/a", true);
        let expected = r#"{"assets":{"a":{"href":"s3://archive/a","alternate":{"x":{"href":"y"},"origin":{"href":"a"}}}},"links":[],"stac_extensions":["https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"]}"#;
        assert_eq!(parts.write(), expected);
    }

    #[test]
    fn links_are_kept_removed_and_set() {
        let text = r#"{"links":[{"rel":"self","href":"i.json"},{"rel":"root","href":"r"},{"rel":"license","href":"l","n":1.0}]}"#;
        let mut parts = Parts::read(text).unwrap();
        let set = LinkRule::Set("https://x/i".into());
        parts.set_links(&[
            Setting { rel: "self", rule: set.clone(), media_type: "application/geo+json" },
            Setting { rel: "root", rule: LinkRule::Remove, media_type: "application/json" },
            Setting { rel: "parent", rule: set, media_type: "application/json" },
            Setting { rel: "license", rule: LinkRule::Keep, media_type: "application/json" },
        ]);
        let expected = r#"{"links":[{"rel":"self","href":"https://x/i"},{"rel":"license","href":"l","n":1.0},{"rel":"parent","href":"https://x/i","type":"application/json"}]}"#;
        assert_eq!(parts.write(), expected);
    }

    #[test]
    fn an_items_day_is_that_of_utc() {
        let day = |properties: &str| Parts::read(&format!(r#"{{"properties":{properties}}}"#)).unwrap().date();
        assert_eq!(day(r#"{"datetime":"2024-05-17T23:15:00-02:00"}"#), Some(jiff::civil::date(2024, 5, 18)));
        assert_eq!(
            day(r#"{"datetime":null,"start_datetime":"2024-01-01T00:00:00Z"}"#),
            Some(jiff::civil::date(2024, 1, 1))
        );
        assert_eq!(day("{}"), None);
    }
}
