//! How the schema engine reads a [`dom::Value`](crate::dom::Value): without copying it, not even into errors.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde_json::Number;

use crate::dom::{self, Value};

/// The borrowed representation.
pub(crate) struct Dom;

impl Json for Dom {
    type Node<'a> = &'a Value<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    const KEYS_PER_LOOKUP: usize = 4;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut (), string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Value::String(Cow::Borrowed(string)))
    }
}

impl<'a> Node<'a, Dom> for &'a Value<'a> {
    type Object = &'a [(Cow<'a, str>, Value<'a>)];
    type Array = &'a [Value<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        Value::as_object(self)
    }

    fn as_array(&self) -> Option<Self::Array> {
        Value::as_array(self)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        Value::as_str(self).map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<&'a Number> {
        match self {
            Value::Number(number) => Some(number),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn is_null(&self) -> bool {
        Value::is_null(self)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &serde_json::Value) -> bool {
        equal_to_value(self, expected)
    }

    /// An error owns the value that it is about, once for each alternative that it failed: a polygon with one bad
    /// vertex would take a gigabyte. Ours are looked up by their place when they are told, so that containers can
    /// be empty here. Only errors read this: equality and uniqueness have their own code.
    fn to_value(&self) -> Cow<'a, serde_json::Value> {
        Cow::Owned(match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::String(_) => serde_json::Value::String(String::new()),
            Value::Array(_) => serde_json::Value::Array(Vec::new()),
            Value::Object(_) => serde_json::Value::Object(serde_json::Map::new()),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Value<'a>>(self) as usize))
    }
}

impl<'a> Object<'a, Dom> for &'a [(Cow<'a, str>, Value<'a>)] {
    type Node = &'a Value<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Value<'a>> {
        dom::place(self, key).map(|place| &self[place].1)
    }

    fn members(&self) -> Members<'a> {
        Members(self.iter())
    }
}

/// The members of an object, in order.
pub(crate) struct Members<'a>(std::slice::Iter<'a, (Cow<'a, str>, Value<'a>)>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<'a> Array<'a, Dom> for &'a [Value<'a>] {
    type Node = &'a Value<'a>;
    type ElementsIter = std::slice::Iter<'a, Value<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn elements(&self) -> std::slice::Iter<'a, Value<'a>> {
        self.iter()
    }

    fn is_unique(&self) -> bool {
        let mut seen = HashSet::with_capacity(<[_]>::len(self));
        self.iter().all(|value| seen.insert(Same(value)))
    }
}

/// What equal numbers share and others do not: a whole number's value, whether it is written as a float or not, else
/// the float's bits. Large integers that one float stands for must differ: strangers choose them.
fn whole(number: &Number) -> (i128, u64) {
    /// From here on, a float is no exact integer of the range that integers are read in.
    const EXACT: f64 = 18_446_744_073_709_551_616.0;
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), ..) => (number.into(), 0),
        (None, Some(number), _) => (number.into(), 0),
        #[allow(clippy::cast_possible_truncation, reason = "it is a whole number within the range")]
        (None, None, Some(float)) if float.fract() == 0.0 && float.abs() < EXACT => (float as i128, 0),
        (None, None, float) => (0, float.unwrap_or_default().to_bits()),
    }
}

/// Seeds the hashes of objects' members, so that nobody can choose members that collide.
static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A value under JSON equality: numbers by their value, objects whatever the order of their members.
struct Same<'a>(&'a Value<'a>);

impl PartialEq for Same<'_> {
    fn eq(&self, other: &Self) -> bool {
        equal(self.0, other.0)
    }
}

impl Eq for Same<'_> {}

impl Hash for Same<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self.0).hash(state);
        match self.0 {
            Value::Null => {}
            Value::Bool(value) => value.hash(state),
            Value::Number(number) => whole(number).hash(state),
            Value::String(text) => text.hash(state),
            Value::Array(values) => {
                values.len().hash(state);
                values.iter().for_each(|value| Same(value).hash(state));
            }
            // The order does not count, so the members are summed up.
            Value::Object(members) => {
                let hash = |(name, value): &(Cow<'_, str>, Value<'_>)| {
                    let mut state = SEEDED.build_hasher();
                    name.hash(&mut state);
                    Same(value).hash(&mut state);
                    state.finish()
                };
                members.iter().map(hash).fold(0, u64::wrapping_add).hash(state);
            }
        }
    }
}

fn equal(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => cmp::equal_numbers(&one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(members), Value::Object(others)) => {
            members.len() == others.len() && {
                let sorted = |members: &'_ [(Cow<'_, str>, Value<'_>)]| {
                    let mut order: Vec<usize> = (0..members.len()).collect();
                    order.sort_by(|&one, &other| members[one].0.cmp(&members[other].0));
                    order
                };
                sorted(members)
                    .into_iter()
                    .zip(sorted(others))
                    .all(|(one, other)| members[one].0 == others[other].0 && equal(&members[one].1, &others[other].1))
            }
        }
        _ => one == other,
    }
}

fn equal_to_value(one: &Value<'_>, other: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (one, other) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(one), Json::Bool(other)) => one == other,
        (Value::Number(one), Json::Number(other)) => cmp::equal_numbers(&one, other),
        (Value::String(one), Json::String(other)) => one == other,
        (Value::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal_to_value(one, other))
        }
        (Value::Object(members), Json::Object(others)) => {
            let equals = |(name, value): &(Cow<'_, str>, Value<'_>)| {
                others.get(name.as_ref()).is_some_and(|other| equal_to_value(value, other))
            };
            members.len() == others.len() && members.iter().all(equals)
        }
        _ => false,
    }
}
