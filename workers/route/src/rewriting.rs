//! What hrefs and links of a routed document become, as the configuration says.

use std::collections::{BTreeMap, HashMap};

use landfall_events::ObjectRef;
use landfall_shared::config::{Destination, LinkRule, Links, Routing};
use leon::Template;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in a segment of a URL's path. <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same, with the slashes between segments.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// The configuration of rewriting, held to be readable.
#[derive(Debug, Clone)]
pub(crate) struct Rewriting {
    hrefs: BTreeMap<String, String>,
    links: Links,
    pub(crate) keeps_original: bool,
}

/// What becomes of one kind of link of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<'a> {
    pub(crate) rel: &'a str,
    pub(crate) rule: LinkRule,
    pub(crate) media_type: &'a str,
}

/// Why the configuration of rewriting cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the template {template:?} of {of} cannot be used: {why}")]
pub(crate) struct BadTemplate {
    of: String,
    template: String,
    why: String,
}

impl Rewriting {
    /// Takes it from the configuration.
    pub(crate) fn new(routing: &Routing, destinations: &[Destination]) -> Result<Self, BadTemplate> {
        let mut hrefs = BTreeMap::new();
        for destination in destinations {
            let Some(template) = &destination.href else { continue };
            check(&format!("the destination {}", destination.bucket), template, &["key", "bucket"], Some("key"))?;
            hrefs.insert(destination.bucket.clone(), template.clone());
        }
        let Links { itself, collection, parent, root } = &routing.links;
        for (rel, rule) in [("self", itself), ("collection", collection), ("parent", parent), ("root", root)] {
            if let LinkRule::Set(template) = rule {
                check(&format!("the link {rel}"), template, &["collection", "item"], None)?;
            }
        }
        Ok(Self { hrefs, links: routing.links.clone(), keeps_original: routing.alternate_hrefs })
    }

    /// The href of an object at its destination.
    pub(crate) fn href(&self, object: &ObjectRef) -> String {
        match self.hrefs.get(&object.bucket) {
            Some(template) => {
                let key = utf8_percent_encode(&object.key, PATH).to_string();
                render(template, &[("key", &key), ("bucket", &object.bucket)]).expect("the template was looked through")
            }
            None => object.to_string(),
        }
    }

    /// What becomes of the links of a collection's document, or of an item's.
    pub(crate) fn links(&self, collection: &str, item: Option<&str>) -> [Setting<'static>; 4] {
        let (json, geojson) = ("application/json", "application/geo+json");
        let Links { itself, collection: of_collection, parent, root } = &self.links;
        let set = |rule: &LinkRule| match rule {
            LinkRule::Set(template) => {
                let encode = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
                let collection = encode(collection);
                let item = item.map(encode);
                let mut values = vec![("collection", collection.as_str())];
                values.extend(item.as_deref().map(|item| ("item", item)));
                // A collection has no item to name.
                render(template, &values).map_or(LinkRule::Remove, LinkRule::Set)
            }
            LinkRule::Keep => LinkRule::Keep,
            LinkRule::Remove => LinkRule::Remove,
        };
        // A collection's own place is what its items call `collection`.
        let (own, of, media_type) = match item {
            Some(_) => (itself, of_collection, geojson),
            None if matches!(of_collection, LinkRule::Set(_)) => (of_collection, &LinkRule::Keep, json),
            None => (itself, &LinkRule::Keep, json),
        };
        [
            Setting { rel: "self", rule: set(own), media_type },
            Setting { rel: "collection", rule: set(of), media_type: json },
            Setting { rel: "parent", rule: set(parent), media_type: json },
            Setting { rel: "root", rule: set(root), media_type: json },
        ]
    }
}

fn check(of: &str, template: &str, names: &[&str], needed: Option<&str>) -> Result<(), BadTemplate> {
    let bad = |why: String| BadTemplate { of: of.to_owned(), template: template.to_owned(), why };
    let read = Template::parse(template).map_err(|error| bad(error.to_string()))?;
    if let Some(name) = read.keys().find(|name| !names.contains(name)) {
        return Err(bad(format!("{{{name}}} is none of {}", names.join(", "))));
    }
    match needed.filter(|needed| !read.has_key(needed)) {
        Some(needed) => Err(bad(format!("it has no {{{needed}}}: all objects would have one href"))),
        None => Ok(()),
    }
}

fn render(template: &str, values: &[(&str, &str)]) -> Option<String> {
    let values: HashMap<&str, &str> = values.iter().copied().collect();
    Template::parse(template).ok()?.render(&values).ok()
}
