//! The template of a destination's key.

use std::collections::HashMap;

use jiff::civil::Date;
use leon::{Item, Template};

/// The names that a template may use.
const NAMES: [&str; 8] = ["provider", "path", "collection", "item", "year", "month", "day", "filename"];

/// The names that only an item gives.
const OF_AN_ITEM: [&str; 4] = ["item", "year", "month", "day"];

/// The names that have always the same width.
const OF_A_DAY: [&str; 3] = ["year", "month", "day"];

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

/// What a key is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) provider: &'a str,
    pub(super) path: &'a str,
    pub(super) collection: Option<&'a str>,
    pub(super) item: Option<&'a str>,
    pub(super) date: Option<Date>,
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadKey {
    #[error("the template cannot be read: {0}")]
    Unreadable(String),
    #[error("{{{0}}} is no name of a template; there are {{{names}}}", names = NAMES.join("}, {"))]
    Unknown(String),
    #[error(
        "the template starts with '/', or has an empty segment, '.' or '..': its keys would not stay in their place"
    )]
    Escapes,
    #[error("two files can get the same key: {0}")]
    Collides(&'static str),
}

/// Why a key cannot be made of these parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("{name} {value:?} cannot stand in a key: it is empty, '.' or '..', or holds a '/'")]
    Value { name: &'static str, value: String },
    #[error("{0:?} has a '.' or '..' segment, which would lead out of its place where keys become paths")]
    Path(String),
}

impl Key {
    pub(super) fn read(text: &str) -> Result<Self, BadKey> {
        let template = Template::parse(text).map_err(|error| BadKey::Unreadable(error.to_string()))?;
        if let Some(name) = template.keys().find(|name| !NAMES.contains(name)) {
            return Err(BadKey::Unknown((*name).to_owned()));
        }
        // Names in the place of values, which are held to be whole segments when a key is made.
        let written: String =
            template.items.iter().map(|item| if let Item::Text(text) = item { text } else { "x" }).collect();
        if written.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadKey::Escapes);
        }
        let key = Self(text.to_owned());
        key.collides().map_or(Ok(key), |why| Err(BadKey::Collides(why)))
    }

    fn template(&self) -> Template<'_> {
        Template::parse(&self.0).expect("it was read before")
    }

    /// Whether the template has a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.template().has_key(name)
    }

    /// Whether the key cannot be made without knowing the STAC document that names the object.
    pub(super) fn needs_document(&self) -> bool {
        self.has("collection") || self.needs_item()
    }

    fn needs_item(&self) -> bool {
        self.template().has_any_of_keys(&OF_AN_ITEM)
    }

    /// How two files of one provider and collection can get the same key.
    fn collides(&self) -> Option<&'static str> {
        // Days have one width; of two others beside each other nobody could say where one ends.
        let of_any_width = |segment: &&str| {
            NAMES
                .iter()
                .filter(|name| !OF_A_DAY.contains(name))
                .filter(|name| segment.contains(&format!("{{{name}}}")))
                .count()
                > 1
        };
        if self.0.split('/').any(|segment| of_any_width(&segment)) {
            Some("two names stand in one segment; put a '/' between them")
        } else if self.has("path") {
            None
        } else if !self.has("filename") {
            Some("it needs {path}, or {filename} with {item}")
        } else if !self.has("item") {
            Some("files of the same name in two folders; it needs {path}, or {item} beside {filename}")
        } else {
            None
        }
    }

    /// Makes the key; `None` where a document lacks what the template asks for, as a collection has no date.
    pub(super) fn make(&self, parts: &Parts<'_>) -> Result<Option<String>, Unfit> {
        let filename = parts.path.rsplit('/').next().unwrap_or(parts.path);
        let number = |number: i16, width: usize| format!("{number:0width$}");
        let date = parts
            .date
            .map(|date| [number(date.year(), 4), number(date.month().into(), 2), number(date.day().into(), 2)]);
        let [year, month, day] = date.map_or([None, None, None], |date| date.map(Some));
        let values: [(&'static str, Option<&str>); 8] = [
            ("provider", Some(parts.provider)),
            ("path", Some(parts.path)),
            ("collection", parts.collection),
            ("item", parts.item),
            ("year", year.as_deref()),
            ("month", month.as_deref()),
            ("day", day.as_deref()),
            ("filename", Some(filename)),
        ];
        let mut known = HashMap::new();
        for (name, value) in values {
            if !self.has(name) {
                continue;
            }
            let Some(value) = value else { return Ok(None) };
            if name != "path" && (matches!(value, "" | "." | "..") || value.contains('/')) {
                return Err(Unfit::Value { name, value: value.to_owned() });
            }
            known.insert(name, value);
        }
        Ok(Some(self.template().render(&known).expect("every name has a value")))
    }
}

/// Holds a key to be one that stays in its place where keys become paths.
pub(super) fn check(key: &str) -> Result<(), Unfit> {
    let climbs = key.split('/').any(|segment| matches!(segment, "." | ".."));
    if climbs { Err(Unfit::Path(key.to_owned())) } else { Ok(()) }
}
