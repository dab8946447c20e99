//! What is known of a document beside its own text: where it lies, and the dataset around it.
//!
//! It reads no folder: whoever walks one notes the documents here.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::civil::Date;

use crate::dom::Value;

/// A document that rules look at.
#[derive(Debug)]
pub(crate) struct Subject<'d> {
    pub(crate) document: &'d Value<'d>,
    /// Its path under the dataset's root or the landing, where it is known.
    pub(crate) path: Option<&'d str>,
    /// Whether it is one of several in its file.
    pub(crate) is_member: bool,
    pub(crate) is_item: bool,
    pub(crate) id: Option<&'d str>,
    /// The item's collection, or the collection itself.
    pub(crate) collection: Option<&'d str>,
}

impl<'d> Subject<'d> {
    pub(crate) fn of(document: &'d Value<'d>, path: Option<&'d str>, is_member: bool) -> Self {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let is_item = text("type") == Some("Feature");
        let collection = text(if is_item { "collection" } else { "id" });
        Self { document, path, is_member, is_item, id: text("id"), collection }
    }

    pub(crate) fn file_name(&self) -> Option<&'d str> {
        self.path?.rsplit('/').next()
    }

    /// The folder that holds `metadata/`, where the dataset does not lie at the root itself.
    pub(crate) fn dataset_folder(&self) -> Option<&'d str> {
        let steps: Vec<&str> = self.path?.split('/').collect();
        let metadata = steps.iter().position(|step| *step == "metadata")?;
        metadata.checked_sub(1).map(|folder| steps[folder])
    }
}

/// The documents of a dataset together.
#[derive(Debug, Default)]
pub struct Dataset {
    /// By collection and id, the first paths that hold it.
    ids: HashMap<(String, String), Vec<String>>,
    extents: BTreeMap<String, Extent>,
}

/// The most paths that are kept for one id.
const PATHS_MAX: usize = 2;

impl Dataset {
    /// Notes one document of the dataset; what is no item and no collection is not noted.
    pub fn note(&mut self, document: &Value<'_>, path: &str) {
        let subject = Subject::of(document, Some(path), false);
        let Some(id) = subject.id else { return };
        let is_collection = document.get("type").and_then(Value::as_str) == Some("Collection");
        if !subject.is_item && !is_collection {
            return;
        }
        if is_collection {
            self.extents.insert(id.to_owned(), Extent::of(document));
        }
        keep(self.ids.entry(key(&subject, id)).or_default(), path.to_owned());
    }

    /// Takes in what was noted elsewhere, so that folders can be walked by several threads.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        for (key, paths) in other.ids {
            let own = self.ids.entry(key).or_default();
            paths.into_iter().for_each(|path| keep(own, path));
        }
        self.extents.extend(other.extents);
        self
    }

    /// Another document of the same collection with the same id.
    pub(crate) fn elsewhere(&self, subject: &Subject<'_>) -> Option<&str> {
        let paths = self.ids.get(&key(subject, subject.id?))?;
        let own = paths.iter().position(|path| Some(path.as_str()) == subject.path);
        match (own, paths.as_slice()) {
            (Some(0) | None, [_, other, ..]) => Some(other),
            (Some(_), [first, ..]) if paths.len() > 1 => Some(first),
            _ => None,
        }
    }

    pub(crate) fn has_collections(&self) -> bool {
        !self.extents.is_empty()
    }

    pub(crate) fn extent(&self, collection: &str) -> Option<&Extent> {
        self.extents.get(collection)
    }
}

/// Keeps the first paths in order, whoever noted them.
fn keep(paths: &mut Vec<String>, path: String) {
    let place = paths.partition_point(|other| *other <= path);
    paths.insert(place, path);
    paths.truncate(PATHS_MAX);
}

fn key(subject: &Subject<'_>, id: &str) -> (String, String) {
    let collection = if subject.is_item { subject.collection.unwrap_or_default() } else { "" };
    (collection.to_owned(), id.to_owned())
}

/// A collection's extent in space and time.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    /// West, south, east, north.
    boxes: Vec<[f64; 4]>,
    intervals: Vec<(Option<Timestamp>, Option<Timestamp>)>,
}

impl Extent {
    fn of(collection: &Value<'_>) -> Self {
        let list = |pointer| collection.pointer(pointer).and_then(Value::as_array).unwrap_or_default();
        let time = |value: Option<&Value<'_>>| value.and_then(Value::as_str).and_then(|text| text.parse().ok());
        let boxes = list("/extent/spatial/bbox").iter().filter_map(flat).collect();
        let interval = |value: &Value<'_>| {
            let ends = value.as_array().unwrap_or_default();
            (time(ends.first()), time(ends.get(1)))
        };
        Self { boxes, intervals: list("/extent/temporal/interval").iter().map(interval).collect() }
    }

    /// Where an item lies outside: place and what is wrong. The first box and interval are those of the whole.
    /// <https://github.com/radiantearth/stac-spec/blob/v1.0.0/collection-spec/collection-spec.md#extent-object>
    pub(crate) fn outside(&self, item: &Value<'_>) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        if let (Some(whole), Some(own)) = (self.boxes.first(), item.get("bbox").and_then(flat))
            && !holds(whole, &own)
        {
            found.push(("/bbox", "the item lies outside its collection's spatial extent"));
        }
        if let (Some((start, end)), Some((from, to))) = (self.intervals.first(), times(item)) {
            let early = start.is_some_and(|start| from < start);
            let late = end.is_some_and(|end| to > end);
            if early || late {
                found.push(("/properties", "the item lies outside its collection's temporal extent"));
            }
        }
        found
    }
}

/// Boxes are compared with this much room, in degrees: they are often rounded.
const ROOM: f64 = 1e-6;

fn holds(whole: &[f64; 4], own: &[f64; 4]) -> bool {
    let latitudes = own[1] >= whole[1] - ROOM && own[3] <= whole[3] + ROOM;
    // A box that crosses the antimeridian is two: either may be meant, so only whole boxes that do not cross are judged.
    let crosses = whole[0] > whole[2] || own[0] > own[2];
    latitudes && (crosses || (own[0] >= whole[0] - ROOM && own[2] <= whole[2] + ROOM))
}

fn flat(bbox: &Value<'_>) -> Option<[f64; 4]> {
    let numbers: Vec<f64> = bbox.as_array()?.iter().filter_map(Value::as_f64).collect();
    match numbers.as_slice() {
        &[west, south, east, north] | &[west, south, _, east, north, _] => Some([west, south, east, north]),
        _ => None,
    }
}

/// The time that an item covers.
fn times(item: &Value<'_>) -> Option<(Timestamp, Timestamp)> {
    let at = |name: &str| item.get("properties")?.get(name)?.as_str()?.parse::<Timestamp>().ok();
    let single = at("datetime");
    Some((at("start_datetime").or(single)?, at("end_datetime").or(single)?))
}

/// The days in UTC that an item covers.
pub(crate) fn days(item: &Value<'_>) -> Option<(Date, Date)> {
    let day = |time: Timestamp| time.to_zoned(jiff::tz::TimeZone::UTC).date();
    times(item).map(|(from, to)| (day(from), day(to)))
}
