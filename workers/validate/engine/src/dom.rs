//! A parsed document that borrows its text: a fraction of the cost of an owned one, and bounded.
//!
//! It refuses what would exhaust memory or stack, and notes what parsers disagree about.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// The deepest nesting that is taken: what `serde_json`, which reads the documents after us, takes.
pub const DEPTH_MAX: usize = 127;

/// The most values that one document may hold, keys not counted. A megabyte of coordinates holds a quarter of it.
pub const VALUES_MAX: usize = 1_000_000;

/// The most repeated member names that are noted.
const REPEATED_MAX: usize = 16;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(Cow<'t, str>),
    /// An array.
    Array(Vec<Value<'t>>),
    /// An object: of members with one name, the last. Many members are sorted by name, few are in order.
    Object(Vec<(Cow<'t, str>, Value<'t>)>),
}

/// A document and what was seen while it was read.
#[derive(Debug)]
pub struct Document<'t> {
    /// The document itself.
    pub root: Value<'t>,
    /// JSON Pointers of members whose name stands more than once in its object, some of them.
    pub repeated: Vec<String>,
}

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not UTF-8: what it looks like instead.
    Encoding(&'static str),
    /// It is not JSON.
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser met.
        message: String,
    },
    /// It nests deeper than [`DEPTH_MAX`].
    TooDeep,
    /// It holds more than [`VALUES_MAX`] values.
    TooMany,
}

impl<'t> Document<'t> {
    /// Reads a document from its bytes.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(bytes: &'t [u8]) -> Result<Self, Unreadable> {
        let text = text(bytes)?;
        let limits = Limits::default();
        let mut source = sonic_rs::Deserializer::from_str(text);
        let read = Seed { limits: &limits, depth: 0 }.deserialize(&mut source);
        match (limits.broken.get(), read.and_then(|root| source.end().map(|()| root))) {
            (None, Ok(root)) => Ok(Self { root, repeated: limits.repeated.into_inner() }),
            (Some(Limit::Depth), _) => Err(Unreadable::TooDeep),
            (Some(Limit::Values), _) => Err(Unreadable::TooMany),
            (None, Err(error)) => Err(syntax(text, &error)),
        }
    }
}

/// What a text holds that is no UTF-16 and has no mark, and is not UTF-8 either.
pub(crate) const NOT_UTF8: &str = "bytes that are not UTF-8";

/// Takes bytes for what they are: UTF-8 without a mark. RFC 8259 allows nothing else between systems, and lets a
/// reader refuse a byte order mark. <https://www.rfc-editor.org/rfc/rfc8259#section-8.1>
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    match bytes {
        [0xEF, 0xBB, 0xBF, ..] => Err(Unreadable::Encoding("UTF-8 with a byte order mark")),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..] => Err(Unreadable::Encoding("UTF-16 or UTF-32")),
        _ => std::str::from_utf8(bytes).map_err(|_| Unreadable::Encoding(NOT_UTF8)),
    }
}

/// Says a syntax error in the words of `serde_json`, which are plainer, where it finds one too.
fn syntax(text: &str, error: &sonic_rs::Error) -> Unreadable {
    let limits = Limits::default();
    let mut source = serde_json::Deserializer::from_str(text);
    let again = Seed { limits: &limits, depth: 0 }.deserialize(&mut source).and_then(|_| source.end());
    let (line, column, message) = match &again {
        Err(error) => (error.line(), error.column(), error.to_string()),
        Ok(()) => (error.line(), error.column(), error.to_string()),
    };
    let message = message.lines().next().unwrap_or_default();
    let message = message.find(" at line ").map_or(message, |end| &message[..end]).to_owned();
    Unreadable::Syntax { line, column, message }
}

#[derive(Clone, Copy)]
enum Limit {
    Depth,
    Values,
}

#[derive(Default)]
struct Limits {
    values: Cell<usize>,
    broken: Cell<Option<Limit>>,
    repeated: RefCell<Vec<String>>,
}

impl Limits {
    fn broke<E: serde::de::Error>(&self, limit: Limit) -> E {
        self.broken.set(Some(limit));
        E::custom("a limit is broken")
    }

    fn repeats(&self) -> usize {
        self.repeated.borrow().len()
    }

    fn note(&self, name: &str) {
        let mut repeated = self.repeated.borrow_mut();
        if repeated.len() < REPEATED_MAX {
            repeated.push(step(name));
        }
    }

    /// Puts a step in front of the places that were noted within it.
    fn within(&self, from: usize, step: impl FnOnce() -> String) {
        if from < self.repeats() {
            let step = step();
            for place in &mut self.repeated.borrow_mut()[from..] {
                place.insert_str(0, &step);
            }
        }
    }
}

/// A step of a noted place: a stranger's name may be megabytes long.
fn step(name: &str) -> String {
    token(&crate::findings::short(name, 200))
}

/// One step of a JSON Pointer. <https://www.rfc-editor.org/rfc/rfc6901#section-3>
pub(crate) fn token(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    limits: &'s Limits,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.limits.broke(Limit::Depth));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'t> DeserializeSeed<'t> for Seed<'_> {
    type Value = Value<'t>;

    fn deserialize<D: Deserializer<'t>>(self, source: D) -> Result<Value<'t>, D::Error> {
        self.limits.values.set(self.limits.values.get() + 1);
        if self.limits.values.get() > VALUES_MAX {
            return Err(self.limits.broke(Limit::Values));
        }
        source.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Seed<'_> {
    type Value = Value<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'t>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'t>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value<'t>, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<Value<'t>, E> {
        Ok(Value::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'t>, E> {
        Ok(Value::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut source: A) -> Result<Value<'t>, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        loop {
            let before = self.limits.repeats();
            let Some(value) = source.next_element_seed(seed)? else { break };
            self.limits.within(before, || format!("/{}", values.len()));
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'t>>(self, mut source: A) -> Result<Value<'t>, A::Error> {
        let seed = self.deeper()?;
        let mut members = Members::default();
        while let Some(name) = source.next_key_seed(Name)? {
            let before = self.limits.repeats();
            let value = source.next_value_seed(seed)?;
            self.limits.within(before, || step(&name));
            members.push(name, value, self.limits);
        }
        Ok(Value::Object(members.finish(self.limits)))
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name;

impl<'t> DeserializeSeed<'t> for Name {
    type Value = Cow<'t, str>;

    fn deserialize<D: Deserializer<'t>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Name {
    type Value = Cow<'t, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'t str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// An object with more members than this has them sorted by name, so that each is found by halving.
const SORTED_FROM: usize = 64;

/// The members of an object that is being read. Most objects pay one bit test a name to find repetitions.
#[derive(Default)]
struct Members<'t> {
    list: Vec<(Cow<'t, str>, Value<'t>)>,
    seen: u64,
}

impl<'t> Members<'t> {
    fn push(&mut self, name: Cow<'t, str>, value: Value<'t>, limits: &Limits) {
        if self.list.len() < SORTED_FROM {
            let bytes = name.as_bytes();
            let ends = bytes.first().zip(bytes.last()).map_or(0, |(first, last)| first.wrapping_mul(31) ^ last);
            let bit = 1u64 << ((usize::from(ends) ^ (bytes.len() << 2)) & 63);
            let perhaps = self.seen & bit != 0;
            self.seen |= bit;
            if perhaps && let Some(place) = self.list.iter().position(|(other, _)| *other == name) {
                limits.note(&name);
                self.list[place].1 = value;
                return;
            }
        }
        self.list.push((name, value));
    }

    fn finish(mut self, limits: &Limits) -> Vec<(Cow<'t, str>, Value<'t>)> {
        if self.list.len() > SORTED_FROM {
            self.list.sort_by(|one, other| one.0.cmp(&other.0));
            // The sort keeps the order of equals: the later one is moved into the place of the earlier.
            self.list.dedup_by(|later, earlier| {
                let repeated = later.0 == earlier.0;
                if repeated {
                    limits.note(&later.0);
                    std::mem::swap(&mut later.1, &mut earlier.1);
                }
                repeated
            });
        }
        self.list
    }
}

pub(crate) fn place(members: &[(Cow<'_, str>, Value<'_>)], name: &str) -> Option<usize> {
    if members.len() > SORTED_FROM {
        return members.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok();
    }
    members.iter().position(|(other, _)| other == name)
}

impl<'t> Value<'t> {
    /// A member of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let members = self.as_object()?;
        place(members, name).map(|place| &members[place].1)
    }

    /// A member of an object, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => place(members, name).map(|place| &mut members[place].1),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// An element of an array, to change it.
    pub(crate) fn element_mut(&mut self, index: usize) -> Option<&mut Self> {
        match self {
            Self::Array(elements) => elements.get_mut(index),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Object(_) => None,
        }
    }

    /// Sets a member of an object; anything else is left alone.
    pub fn set(&mut self, name: &'t str, value: Self) {
        let Self::Object(members) = self else { return };
        match place(members, name) {
            Some(place) => members[place].1 = value,
            None => {
                members.push((Cow::Borrowed(name), value));
                if members.len() > SORTED_FROM {
                    members.sort_by(|one, other| one.0.cmp(&other.0));
                }
            }
        }
    }

    /// What a JSON Pointer leads to.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        let Some(steps) = pointer.strip_prefix('/') else { return pointer.is_empty().then_some(self) };
        steps.split('/').try_fold(self, |value, step| match value {
            Self::Array(values) => values.get(step.parse::<usize>().ok()?),
            Self::Object(_) => value.get(&step.replace("~1", "/").replace("~0", "~")),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => None,
        })
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The values of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Object(_) => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&[(Cow<'t, str>, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// The number as a float; integers beyond its precision are rounded.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            Self::Null | Self::Bool(_) | Self::String(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// Writes compact JSON, as `serde_json` would.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(&quoted(text)),
            Self::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{}:{value}", if index == 0 { "" } else { "," }, quoted(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document<'_>, Unreadable> {
        Document::read(text.as_bytes())
    }

    #[test]
    fn of_members_with_one_name_the_last_counts_and_the_place_is_noted() {
        let document = read(r#"{"a":1,"b":[{"c":{"d/e":1,"d/e":2}}],"a":3}"#).unwrap();

        assert_eq!(document.root.get("a"), Some(&Value::Number(3.into())));
        assert_eq!(document.root.pointer("/b/0/c/d~1e"), Some(&Value::Number(2.into())));
        assert_eq!(document.repeated, ["/b/0/c/d~1e", "/a"]);
    }

    #[test]
    fn a_repeated_name_is_found_among_many() {
        let members: Vec<String> = (0..1000).chain([0, 63, 64, 999]).map(|n| format!(r#""k{n}":{n}"#)).collect();
        let text = format!("{{{}}}", members.join(","));

        assert_eq!(read(&text).unwrap().repeated, ["/k0", "/k63", "/k64", "/k999"]);
        assert_eq!(read(&text).unwrap().root.as_object().unwrap().len(), 1000);
    }

    #[test]
    fn depth_and_count_are_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)).unwrap_err(), Unreadable::TooDeep);
        assert_eq!(read(&nested(1_000_000)).unwrap_err(), Unreadable::TooDeep);
        let many = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(read(&many(VALUES_MAX - 1)).is_ok());
        assert_eq!(read(&many(VALUES_MAX)).unwrap_err(), Unreadable::TooMany);
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_goes_wrong() {
        let check = |text: &str, line: usize, column: usize, message: &str| {
            assert_eq!(read(text).unwrap_err(), Unreadable::Syntax { line, column, message: message.into() }, "{text}");
        };
        check("{\n \"a\": NaN}", 2, 7, "expected value");
        check("[1e400]", 1, 6, "number out of range");
        check(r#"["\ud800"]"#, 1, 9, "unexpected end of hex escape");
        check("{} {}", 1, 4, "trailing characters");
        check("", 1, 0, "EOF while parsing a value");
        for text in ["[1,]", "{\"a\":1,}", "[01]", "['a']", "[\"\u{1}\"]", "{a:1}", "[1 2]", "[.5]", "[+1]", "//\n[]"] {
            assert!(matches!(read(text), Err(Unreadable::Syntax { .. })), "{text}");
        }
    }

    #[test]
    fn only_utf8_without_a_mark_is_taken() {
        let check = |bytes: &[u8], found| assert_eq!(Document::read(bytes).unwrap_err(), Unreadable::Encoding(found));
        check(b"\xEF\xBB\xBF{}", "UTF-8 with a byte order mark");
        check(b"\xFF\xFE{\0}\0", "UTF-16 or UTF-32");
        check(b"{\0}\0", "UTF-16 or UTF-32");
        check(b"\0{\0}", "UTF-16 or UTF-32");
        check(b"{\"a\":\"\xE4\"}", "bytes that are not UTF-8");
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let text = r#"{"a":[1,-2,1.5,true,null,"ü\"\u0001"],"b":{}}"#;
        assert_eq!(read(text).unwrap().root.to_string(), text);
    }
}
