//! The hrefs of a document's assets: where they point, and the document with other hrefs in their place.
//!
//! The document is taken apart only as far as its hrefs; everything else stays the text that it was.

use indexmap::IndexMap;
use landfall_events::ObjectRef;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

/// A JSON object whose members stay raw text, in their order.
type RawObject = IndexMap<String, Box<RawValue>>;

/// A document taken apart.
#[derive(Debug)]
pub(crate) struct Parts {
    document: RawObject,
    assets: IndexMap<String, RawObject>,
}

/// What an asset's href means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// It leads elsewhere and stays as it is.
    Foreign,
    /// It means one of these landed objects, whichever is there.
    Landed(Vec<ObjectRef>),
    /// It leads out of the provider's part of landing.
    Escape,
}

impl Parts {
    /// Takes a document apart.
    ///
    /// # Errors
    /// Where it is not a JSON object, or its assets are not objects of objects.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        let document: RawObject = serde_json::from_str(text)?;
        let assets = match document.get("assets") {
            Some(assets) => serde_json::from_str(assets.get())?,
            None => IndexMap::new(),
        };
        Ok(Self { document, assets })
    }

    /// The assets' names with their hrefs.
    pub(crate) fn hrefs(&self) -> impl Iterator<Item = (&str, String)> {
        self.assets.iter().filter_map(|(name, asset)| {
            let href = serde_json::from_str(asset.get("href")?.get()).ok()?;
            Some((name.as_str(), href))
        })
    }

    /// Puts another href in an asset's place.
    ///
    /// # Panics
    /// Never: a string is valid JSON.
    pub(crate) fn set_href(&mut self, asset: &str, href: &str) {
        if let Some(asset) = self.assets.get_mut(asset) {
            asset.insert("href".into(), serde_json::value::to_raw_value(href).expect("a string is valid JSON"));
        }
    }

    /// Puts the document together again.
    ///
    /// # Panics
    /// Never: it was JSON and still is.
    #[must_use]
    pub(crate) fn write(mut self) -> String {
        if !self.assets.is_empty() {
            let assets = serde_json::value::to_raw_value(&self.assets).expect("raw members stay JSON");
            self.document.insert("assets".into(), assets);
        }
        serde_json::to_string(&self.document).expect("raw members stay JSON")
    }
}

/// Finds what an href of the document `of` means. `root` is the start of the provider's keys.
///
/// A relative href starts at the document's own folder, or at the dataset's root: the folder that holds `metadata/`.
#[must_use]
pub(crate) fn target(href: &str, of: &ObjectRef, root: &str) -> Target {
    if let Some(object) = ObjectRef::parse(href) {
        let outside = object.bucket == of.bucket && !is_within(&object.key, root);
        return match object.bucket == of.bucket {
            _ if outside => Target::Escape,
            true => Target::Landed(vec![object]),
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
    let mut bases = vec![folder];
    if let Some((dataset, _)) = format!("/{folder}/").split_once("/metadata/") {
        let length = dataset.len().saturating_sub(1);
        bases.push(&folder[..length]);
    }
    let decoded = percent_decode_str(href).decode_utf8().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let mut candidates = Vec::new();
    for base in bases {
        for path in [href, decoded.as_str()] {
            let Some(key) = joined(base, path) else { return Target::Escape };
            if !is_within(&key, root) {
                return Target::Escape;
            }
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
    let mut segments: Vec<&str> = folder.split('/').filter(|segment| !segment.is_empty()).collect();
    for segment in path.split('/') {
        match segment {
            "." | "" => {}
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
        let keys = match target(href, &ObjectRef::new("landing", ITEM), "sbn/") {
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
    fn nothing_leads_out_of_the_providers_part() {
        check("../../../../x", &["escape"]);
        check("../../../img/x", &["escape"]);
        check("s3://landing/img/x", &["escape"]);
        check("s3://landing/sbn/../img/x", &["escape"]);
        check("%2e%2e/%2e%2e/%2e%2e/img/x", &["escape"]);
    }

    #[test]
    fn a_rewritten_document_keeps_every_digit_and_the_order_of_its_keys() {
        let text = r#"{"z":1.10,"assets":{"b":{"title":"B","href":"b.tif","x":1e2},"a":{"href":"a"}},"n":12345678901234567890.5}"#;
        let mut parts = Parts::read(text).unwrap();
        parts.set_href("b", "s3://archive/b.tif");
        assert_eq!(parts.write(), text.replace("\"b.tif\"", "\"s3://archive/b.tif\""));
    }
}
