//! Mends a document: in memory, so that it is judged as it will be, and in its text, of which all else stays
//! byte for byte.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::dom::Value;

/// An element that is added to the end of one of the document's arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    array: Vec<Step>,
    element: Element,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(&'static str),
    Index(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    New(serde_json::Value),
    /// The array's own first element once more.
    First,
}

impl Append {
    /// Adds an element to an array that is a member of the document; the array is made where there is none.
    pub(crate) fn to_member(member: &'static str, element: serde_json::Value) -> Self {
        Self { array: vec![Step::Member(member)], element: Element::New(element) }
    }

    /// Closes a ring of the geometry, which is at these indexes within its coordinates.
    pub(crate) fn closing(ring: &[usize]) -> Self {
        let coordinates = [Step::Member("geometry"), Step::Member("coordinates")];
        let array = coordinates.into_iter().chain(ring.iter().map(|index| Step::Index(*index))).collect();
        Self { array, element: Element::First }
    }

    /// Mends the document in memory. Does nothing, and says so, where something other than an array is there.
    pub(crate) fn apply(&self, document: &mut Value<'_>) -> bool {
        if let ([Step::Member(member)], Element::New(element), Value::Object(_)) =
            (self.array.as_slice(), &self.element, &*document)
            && document.get(member).is_none()
        {
            document.set(member, Value::Array(vec![owned(element)]));
            return true;
        }
        let array = self.array.iter().try_fold(document, |value, step| match step {
            Step::Member(member) => value.get_mut(member),
            Step::Index(index) => value.element_mut(*index),
        });
        let Some(Value::Array(elements)) = array else { return false };
        let element = match &self.element {
            Element::New(element) => Some(owned(element)),
            Element::First => elements.first().cloned(),
        };
        element.map(|element| elements.push(element)).is_some()
    }

    /// Mends the text of a document on which [`Self::apply`] worked.
    ///
    /// # Panics
    /// Where it did not.
    pub(crate) fn write(&self, text: &str) -> String {
        let mut found = Some(text.trim_start());
        for step in &self.array {
            found = found.and_then(|part| part_of(part, step));
        }
        let (place, new) = match found {
            Some(array) => {
                // The part is a piece of the text: where it starts is where it stands.
                let end = array.as_ptr() as usize - text.as_ptr() as usize + array.len() - 1;
                let is_empty = array[1..array.len() - 1].trim().is_empty();
                let element = match &self.element {
                    Element::New(element) => element.to_string(),
                    Element::First => part_of(array, &Step::Index(0)).unwrap_or_default().to_owned(),
                };
                (end, format!("{}{element}", if is_empty { "" } else { "," }))
            }
            None => {
                let ([Step::Member(member)], Element::New(element)) = (self.array.as_slice(), &self.element) else {
                    return text.to_owned();
                };
                let end = text.rfind('}').expect("an object ends in a brace");
                let is_empty = text[..end].trim_end().ends_with('{');
                (end, format!("{}{member:?}:[{element}]", if is_empty { "" } else { "," }))
            }
        };
        format!("{}{new}{}", &text[..place], &text[place..])
    }
}

/// The text of a part of an object or array, as a piece of its text.
fn part_of<'t>(text: &'t str, step: &Step) -> Option<&'t str> {
    match step {
        Step::Member(member) => {
            let members: IndexMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
            members.get(*member).map(|raw| raw.get())
        }
        Step::Index(index) => serde_json::from_str::<Vec<&RawValue>>(text).ok()?.get(*index).map(|raw| raw.get()),
    }
}

fn owned(value: &serde_json::Value) -> Value<'static> {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => Value::Number(number.clone()),
        serde_json::Value::String(text) => Value::String(Cow::Owned(text.clone())),
        serde_json::Value::Array(values) => Value::Array(values.iter().map(owned).collect()),
        serde_json::Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (Cow::Owned(name.clone()), owned(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dom::Document;

    #[track_caller]
    fn check(text: &str, element: serde_json::Value, expected: &str) {
        let append = Append::to_member("keywords", element);
        let mut document = Document::read(text.as_bytes()).unwrap().root;

        assert!(append.apply(&mut document));
        let written = append.write(text);

        assert_eq!(written, expected);
        assert_eq!(Document::read(written.as_bytes()).unwrap().root, document);
    }

    #[test]
    fn an_element_is_added_and_nothing_else_changes() {
        check(
            r#"{ "n": 1.10, "keywords": [ "a" ],"z":1}"#,
            json!("b"),
            r#"{ "n": 1.10, "keywords": [ "a" ,"b"],"z":1}"#,
        );
        check(r#"{"keywords":[ ]}"#, json!({"a": "ü\""}), r#"{"keywords":[ {"a":"ü\""}]}"#);
        check(r#"{"n":1.10 } "#, json!("b"), r#"{"n":1.10 ,"keywords":["b"]} "#);
        check("{}", json!("b"), r#"{"keywords":["b"]}"#);
        check(r#"{"keywords":["x"],"keywords":["a"]}"#, json!("b"), r#"{"keywords":["x"],"keywords":["a","b"]}"#);
    }

    #[test]
    fn a_ring_is_closed_with_every_digit_of_its_first_position() {
        let text = r#"{"geometry": {"type":"Polygon", "coordinates":[[],[[1.10, 2],[3,4],[5,6] ]]}}"#;
        let append = Append::closing(&[1]);
        let mut document = Document::read(text.as_bytes()).unwrap().root;

        assert!(append.apply(&mut document));
        let written = append.write(text);

        assert_eq!(written, text.replace("[5,6] ]", "[5,6] ,[1.10, 2]]"));
        assert_eq!(Document::read(written.as_bytes()).unwrap().root, document);
    }

    #[test]
    fn what_is_no_array_is_left_alone() {
        let mut document = Document::read(br#"{"keywords":"a"}"#).unwrap().root;
        assert!(!Append::to_member("keywords", json!("b")).apply(&mut document));
        assert_eq!(document.to_string(), r#"{"keywords":"a"}"#);
    }
}
