//! An item as the catalogue needs it, and what it must not hold.
//!
//! It refuses before the database what the database would refuse, and what it would take and must not: pgSTAC takes
//! open rings, `POINT(0 0)` from text, numbers that no reader can hold, empty ids and `yesterday`.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use landfall_events::Place;
use landfall_events::codes::{self, Code};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::base::NOT_HERE;
use super::geometry::{self, Shape};

/// The deepest nesting that is taken: what `serde_json`, which reads the documents elsewhere, takes.
const DEPTH_MAX: usize = 127;

/// The longest id in bytes: it must fit an index page, beside a collection's.
/// <https://www.postgresql.org/docs/15/btree-implementation.html>
const ID_BYTES_MAX: usize = 1024;

/// An item that can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// Its collection's id.
    pub collection: String,
    /// When it begins: `start_datetime` where both ends of a range are given, else `datetime`.
    pub datetime: Timestamp,
    /// When it ends.
    pub end_datetime: Timestamp,
    /// The whole document, as it came.
    pub text: String,
    pub(super) shape: Shape,
}

/// Why an item cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unfit {
    /// The code of the refusal.
    pub code: Code,
    /// Where, as a JSON Pointer; empty for the document.
    pub pointer: &'static str,
    /// What is wrong, in a few words.
    pub reason: String,
    /// The item's id, where that much is known.
    pub id: Option<String>,
}

impl Item {
    /// Reads an item from its JSON text.
    ///
    /// # Errors
    /// [`Unfit`], with the first thing that is wrong.
    pub fn read(text: impl Into<String>) -> Result<Self, Unfit> {
        let text = text.into();
        vet(&text)?;
        let mut parts = Parts::default();
        let not_json = |error: sonic_rs::Error| unfit(codes::LOAD_JSON, "", first_line(&error));
        if !text.trim_ascii_start().starts_with('{') {
            return Err(unfit(codes::LOAD_JSON, "", "the item is not a JSON object".into()));
        }
        for member in sonic_rs::to_object_iter(&text) {
            let (name, value) = member.map_err(not_json)?;
            let part = match name.as_ref() {
                "id" => &mut parts.id,
                "collection" => &mut parts.collection,
                "geometry" => &mut parts.geometry,
                "properties" => &mut parts.properties,
                _ => continue,
            };
            *part = Some(value.as_raw_cow());
        }
        let id = name(parts.id.as_deref(), codes::LOAD_ID, "/id")?;
        let rest = || {
            let collection = name(parts.collection.as_deref(), codes::LOAD_ID, "/collection")?;
            let times = times(parts.properties.as_deref().unwrap_or("{}"))?;
            let shape = match parts.geometry.as_deref() {
                None | Some("null") => Err("the item has no geometry, and pgSTAC holds none without".to_owned()),
                Some(geometry) => geometry::read(geometry),
            };
            Ok((collection, times, shape.map_err(|why| unfit(codes::LOAD_GEOMETRY, "/geometry", why))?))
        };
        match rest() {
            Ok((collection, (datetime, end_datetime), shape)) => {
                Ok(Self { id, collection, datetime, end_datetime, text, shape })
            }
            Err(unfit) => Err(Unfit { id: Some(id), ..unfit }),
        }
    }

    /// West, south, east, north of its geometry, in degrees.
    #[must_use]
    pub fn bbox(&self) -> [f64; 4] {
        self.shape.bbox
    }

    /// Where and when it is, in the document's own words.
    #[must_use]
    pub fn place(&self) -> Place {
        let properties = sonic_rs::get(self.text.as_str(), ["properties"]).ok();
        let times: Times = properties.and_then(|raw| sonic_rs::from_str(raw.as_raw_str()).ok()).unwrap_or_default();
        let Times { datetime, start_datetime, end_datetime } = times;
        Place { bbox: self.bbox(), datetime, start_datetime, end_datetime }
    }
}

/// The members that are looked at, as they are written.
#[derive(Default)]
struct Parts<'t> {
    id: Option<Cow<'t, str>>,
    collection: Option<Cow<'t, str>>,
    geometry: Option<Cow<'t, str>>,
    properties: Option<Cow<'t, str>>,
}

fn unfit(code: Code, pointer: &'static str, reason: String) -> Unfit {
    Unfit { code, pointer, reason, id: None }
}

fn first_line(error: &sonic_rs::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// An id: a string that is not empty.
fn name(raw: Option<&str>, code: Code, pointer: &'static str) -> Result<String, Unfit> {
    let id = raw.and_then(|raw| sonic_rs::from_str::<String>(raw).ok());
    let id = id.ok_or_else(|| unfit(code.clone(), pointer, "this is not a string".into()))?;
    if id.is_empty() {
        return Err(unfit(code, pointer, "this is empty".into()));
    }
    if id.len() > ID_BYTES_MAX {
        return Err(unfit(code, pointer, format!("this has {} bytes, and at most {ID_BYTES_MAX} are taken", id.len())));
    }
    Ok(id)
}

/// The last moment at which an item may begin: its partition must have an end that times can name.
const BEGIN_MAX: Timestamp = Timestamp::constant(253_370_764_800, 0); // 9999-01-01T00:00:00Z

const TOO_LATE: &str = "nothing can begin in the year 9999";

#[derive(Deserialize, Default)]
struct Times {
    datetime: Option<String>,
    start_datetime: Option<String>,
    end_datetime: Option<String>,
}

/// When the item begins and ends, as pgSTAC decides it.
fn times(properties: &str) -> Result<(Timestamp, Timestamp), Unfit> {
    let wrong = |pointer, why: String| unfit(codes::LOAD_DATETIME, pointer, why);
    let times: Times = sonic_rs::from_str(properties)
        .map_err(|_| wrong("/properties", "a datetime is not a string, or there are no properties".into()))?;
    let read = |pointer, text: &str| {
        rfc3339(text).ok_or_else(|| wrong(pointer, format!("{:?} is not an RFC 3339 datetime", short(text))))
    };
    let datetime = times.datetime.as_deref().map(|text| read("/properties/datetime", text)).transpose()?;
    let start = times.start_datetime.as_deref().map(|text| read("/properties/start_datetime", text)).transpose()?;
    let end = times.end_datetime.as_deref().map(|text| read("/properties/end_datetime", text)).transpose()?;
    match (datetime, start, end) {
        (_, Some(start), Some(end)) if start > end => {
            Err(wrong("/properties/end_datetime", "the range ends before it starts".into()))
        }
        (_, Some(start), Some(_)) if start > BEGIN_MAX => Err(wrong("/properties/start_datetime", TOO_LATE.into())),
        (Some(datetime), ..) if datetime > BEGIN_MAX && start.and(end).is_none() => {
            Err(wrong("/properties/datetime", TOO_LATE.into()))
        }
        (_, Some(start), Some(end)) => Ok((start, end)),
        (Some(datetime), ..) => Ok((datetime, datetime)),
        (None, ..) => Err(wrong(
            "/properties/datetime",
            "there is neither a datetime nor both start_datetime and end_datetime".into(),
        )),
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Reads `2024-05-17T10:15:00.5Z` or the same with an offset, and nothing looser: PostgreSQL would take `yesterday`.
/// <https://www.rfc-editor.org/rfc/rfc3339#section-5.6>
fn rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let is = |at: usize, what: &[u8]| bytes.get(at).is_some_and(|byte| what.contains(byte));
    let date = digits(0, 4) && is(4, b"-") && digits(5, 7) && is(7, b"-") && digits(8, 10) && is(10, b"Tt");
    let time = digits(11, 13) && is(13, b":") && digits(14, 16) && is(16, b":") && digits(17, 19);
    let zone = match bytes.last()? {
        b'Z' | b'z' => true,
        _ => bytes.len() > 24 && is(bytes.len() - 6, b"+-") && is(bytes.len() - 3, b":"),
    };
    if !(date && time && zone && text.is_ascii()) {
        return None;
    }
    match text.to_ascii_uppercase().parse::<Timestamp>() {
        // PostgreSQL counts in microseconds: what is finer lies in the one before it, also at the end of a month.
        Ok(time) => i64::try_from(time.as_nanosecond().div_euclid(1000)).ok().map(Timestamp::from_microsecond)?.ok(),
        // The library's time ends a day before the year 9999 does, which many write for "without an end".
        Err(_) if text.starts_with("9999-12-3") => Some(Timestamp::constant(253_402_207_200, 0)),
        Err(_) => None,
    }
}

/// Looks through a whole document for what the database cannot hold, or its readers cannot.
fn vet(text: &str) -> Result<(), Unfit> {
    let mut source = sonic_rs::Deserializer::from_str(text);
    let mut vet = Vet { depth: 0, found: None };
    let read = (&mut vet).deserialize(&mut source);
    match (vet.found, read.and_then(|()| source.end())) {
        (Some((code, reason)), _) => Err(unfit(code, "", reason.into())),
        (None, Err(error)) if error.to_string().contains("finite") => {
            Err(unfit(codes::LOAD_NUMBER, "", "a number is larger than a double can be".into()))
        }
        (None, Err(error)) => Err(unfit(codes::LOAD_JSON, "", first_line(&error))),
        (None, Ok(())) => Ok(()),
    }
}

struct Vet {
    depth: usize,
    found: Option<(Code, &'static str)>,
}

impl Vet {
    fn stop<E: serde::de::Error>(&mut self, code: Code, reason: &'static str) -> E {
        self.found = Some((code, reason));
        E::custom(reason)
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if text.as_bytes().contains(&0) {
            return Err(self.stop(codes::LOAD_NUL, "a text holds the character \\u0000"));
        }
        if text == NOT_HERE {
            return Err(self.stop(codes::LOAD_JSON, "a text is pgSTAC's own mark for what is not there"));
        }
        Ok(())
    }

    fn deeper<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.stop(codes::LOAD_JSON, "the document nests too deeply"));
        }
        Ok(())
    }
}

impl<'t> DeserializeSeed<'t> for &mut Vet {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for &mut Vet {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if value.is_finite() { Ok(()) } else { Err(self.stop(codes::LOAD_NUMBER, "a number is not finite")) }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut source: A) -> Result<(), A::Error> {
        self.deeper()?;
        while source.next_element_seed(&mut *self)?.is_some() {}
        self.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'t>>(self, mut source: A) -> Result<(), A::Error> {
        self.deeper()?;
        while source.next_key_seed(&mut *self)?.is_some() {
            source.next_value_seed(&mut *self)?;
        }
        self.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, geometry: &str, properties: &str) -> String {
        format!(
            r#"{{"type":"Feature","id":{id},"collection":"c","geometry":{geometry},"properties":{properties},"assets":{{}}}}"#
        )
    }

    const POINT: &str = r#"{"type":"Point","coordinates":[1,2]}"#;
    const TIME: &str = r#"{"datetime":"2024-05-17T10:15:00Z"}"#;

    #[track_caller]
    fn check(text: &str, expected: Code) {
        assert_eq!(Item::read(text).unwrap_err().code, expected, "{text}");
    }

    #[test]
    fn times_are_whole_microseconds_and_may_have_no_end() {
        let of = |start: &str, end: &str| {
            let range = format!(r#"{{"datetime":null,"start_datetime":"{start}","end_datetime":"{end}"}}"#);
            Item::read(document("\"i\"", POINT, &range))
        };
        // The end of a month as some write it, and a moment before the epoch.
        let item = of("1969-12-31T23:59:59.9999999Z", "2024-01-31T23:59:59.9999999Z").unwrap();
        assert_eq!(item.datetime, "1969-12-31T23:59:59.999999Z".parse().unwrap());
        assert_eq!(item.end_datetime, "2024-01-31T23:59:59.999999Z".parse().unwrap());
        assert!(of("2024-01-01T00:00:00Z", "9999-12-31T23:59:59Z").unwrap().end_datetime > item.end_datetime);
        let late = of("9999-06-01T00:00:00Z", "9999-12-31T23:59:59Z").unwrap_err();
        assert_eq!((late.code, late.pointer), (codes::LOAD_DATETIME, "/properties/start_datetime"));
        check(&document("\"i\"", POINT, r#"{"datetime":"9999-12-31T23:59:59Z"}"#), codes::LOAD_DATETIME);
    }

    #[test]
    fn an_item_is_read_with_its_times_in_utc() {
        let range = r#"{"datetime":null,"start_datetime":"2024-01-31T23:30:00-02:00","end_datetime":"2024-02-02T00:00:00.123456z"}"#;
        let item = Item::read(document("\"i\"", POINT, range)).unwrap();
        assert_eq!(item.datetime, "2024-02-01T01:30:00Z".parse().unwrap());
        assert_eq!(item.end_datetime, "2024-02-02T00:00:00.123456Z".parse().unwrap());
        let item = Item::read(document(
            "\"i\"",
            POINT,
            r#"{"datetime":"2024-05-17T10:15:00Z","start_datetime":"2024-01-01T00:00:00Z"}"#,
        ))
        .unwrap();
        assert_eq!(item.datetime, item.end_datetime);
    }

    #[test]
    fn ids_are_strings_that_say_something() {
        for id in ["\"\"", "7", "null", "[]"] {
            check(&document(id, POINT, TIME), codes::LOAD_ID);
        }
        check(&document(&format!("\"{}\"", "x".repeat(2000)), POINT, TIME), codes::LOAD_ID);
        for id in ["'", "%", "\\\\", "/", "\\t", "🛰", " a b "] {
            Item::read(document(&format!("\"{id}\""), POINT, TIME)).unwrap();
        }
    }

    #[test]
    fn datetimes_are_rfc_3339() {
        for text in [
            "yesterday",
            "now",
            "2024-05-17",
            "2024-05-17T10:15:00",
            "2024-05-17 10:15:00Z",
            "2024-13-01T00:00:00Z",
            "2024-05-17T10:15Z",
            "20240517T101500Z",
            "2024-05-17T10:15:00+0200",
            "2024-02-30T00:00:00Z",
            "",
        ] {
            check(&document("\"i\"", POINT, &format!(r#"{{"datetime":"{text}"}}"#)), codes::LOAD_DATETIME);
        }
        check(
            &document("\"i\"", POINT, r#"{"datetime":null,"start_datetime":"2024-05-17T10:15:00Z"}"#),
            codes::LOAD_DATETIME,
        );
        check(
            &document(
                "\"i\"",
                POINT,
                r#"{"start_datetime":"2024-05-17T10:15:00Z","end_datetime":"2024-05-17T10:14:00Z"}"#,
            ),
            codes::LOAD_DATETIME,
        );
        check(&document("\"i\"", POINT, "null"), codes::LOAD_DATETIME);
        check(&document("\"i\"", POINT, r#"{"datetime":5}"#), codes::LOAD_DATETIME);
    }

    #[test]
    fn what_the_database_or_its_readers_cannot_hold_is_refused() {
        let with = |more: &str| document("\"i\"", POINT, &format!(r#"{{"datetime":"2024-05-17T10:15:00Z",{more}}}"#));
        check(&with(r#""x":1e400"#), codes::LOAD_NUMBER);
        check(&with(r#""x":"a\u0000""#), codes::LOAD_NUL);
        check(&with(r#""\u0000":1"#), codes::LOAD_NUL);
        check(&with(r#""x":"\ud800""#), codes::LOAD_JSON);
        check(&with(r#""x":"𒍟※""#), codes::LOAD_JSON);
        check(&with(&format!(r#""x":{}1{}"#, "[".repeat(200), "]".repeat(200))), codes::LOAD_JSON);
        check("[]", codes::LOAD_JSON);
        check("{", codes::LOAD_JSON);
        check(&document("\"i\"", "null", TIME), codes::LOAD_GEOMETRY);
        check(&document("\"i\"", r#"{"type":"Point","coordinates":["a","b"]}"#, TIME), codes::LOAD_GEOMETRY);
    }
}
