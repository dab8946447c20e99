//! What a collection's items have in common, and items without it: pgSTAC's dehydration, done here.
//!
//! pgSTAC 0.10 keeps an item without what stands in its collection's `item_assets` too, and puts it back when it is
//! read. Doing that in SQL is most of the cost of `upsert_items`; here it is a walk over two texts. Numbers are
//! compared and kept as they are written.
//! <https://stac-utils.github.io/pgstac/pgstac/#pgstac-base-items>

use std::collections::HashMap;

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

/// The value of a member that the collection has and the item has not.
pub(super) const NOT_HERE: &str = "𒍟※";

/// The members of an item that pgSTAC keeps in columns of their own, or makes itself.
const COLUMNS: [&str; 5] = ["id", "collection", "geometry", "type", "pgstac:base_item"];

/// What a collection's items have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BaseItem {
    members: HashMap<String, Base>,
    /// The text that says which of the collection's base items this is; none where it never changed.
    tag: Option<i32>,
}

#[derive(Debug, Clone, PartialEq)]
enum Base {
    /// `null`, `true`, a number: as it is written.
    Word(String),
    String(String),
    Array(Vec<Base>),
    Object(HashMap<String, Base>),
}

/// What became of a value.
#[derive(PartialEq)]
enum Kept {
    /// It is the collection's, and was not written.
    Nothing,
    /// It was written, or a part of it.
    Something,
}

impl BaseItem {
    /// Reads pgSTAC's base item; `tag` is its number.
    pub(super) fn read(text: &str, tag: Option<i32>) -> sonic_rs::Result<Self> {
        Ok(Self { members: members(text)?, tag })
    }

    /// The content that pgSTAC keeps of an item.
    ///
    /// `nulls` are kept, as pypgstac keeps them. An array that is nested in an array of the same length is kept
    /// whole.
    pub(super) fn content(&self, item: &str) -> sonic_rs::Result<String> {
        let mut out = String::with_capacity(item.len());
        out.push('{');
        let mut seen = Vec::with_capacity(self.members.len());
        for member in sonic_rs::to_object_iter(item) {
            let (name, value) = member?;
            if let Some(name) = self.members.get_key_value(name.as_ref()).map(|(name, _)| name.as_str()) {
                seen.push(name);
            }
            if !COLUMNS.contains(&name.as_ref()) {
                member_without(self.members.get(name.as_ref()), &name, &value, &mut out)?;
            }
        }
        missing(&self.members, &seen, &mut out);
        if let Some(tag) = self.tag {
            out.push_str(&format!("\"pgstac:base_item\":{tag},"));
        }
        close(&mut out, '}');
        Ok(out)
    }
}

fn members(text: &str) -> sonic_rs::Result<HashMap<String, Base>> {
    sonic_rs::to_object_iter(text)
        .map(|member| {
            let (name, value) = member?;
            Ok((name.into_owned(), base(&value)?))
        })
        .collect()
}

fn base(value: &LazyValue<'_>) -> sonic_rs::Result<Base> {
    let raw = value.as_raw_str();
    Ok(match value.get_type() {
        JsonType::Object => Base::Object(members(raw)?),
        JsonType::Array => {
            Base::Array(sonic_rs::to_array_iter(raw).map(|value| base(&value?)).collect::<sonic_rs::Result<_>>()?)
        }
        JsonType::String => Base::String(sonic_rs::from_str(raw)?),
        JsonType::Null | JsonType::Boolean | JsonType::Number => Base::Word(raw.to_owned()),
    })
}

/// Writes a member, or what of it is not the collection's.
fn member_without(base: Option<&Base>, name: &str, value: &LazyValue<'_>, out: &mut String) -> sonic_rs::Result<()> {
    let before = out.len();
    push_string(name, out);
    out.push(':');
    match base {
        None => out.push_str(value.as_raw_str()),
        Some(base) => {
            if without(base, value, out)? == Kept::Nothing {
                out.truncate(before);
                return Ok(());
            }
        }
    }
    out.push(',');
    Ok(())
}

/// Writes what of a value is not the collection's.
fn without(base: &Base, value: &LazyValue<'_>, out: &mut String) -> sonic_rs::Result<Kept> {
    let raw = value.as_raw_str();
    match (value.get_type(), base) {
        (JsonType::Object, Base::Object(members)) => object_without(members, raw, out),
        (JsonType::Array, Base::Array(values)) => array_without(values, raw, out),
        (JsonType::Null | JsonType::Boolean | JsonType::Number, Base::Word(word)) if word == raw => Ok(Kept::Nothing),
        (JsonType::String, Base::String(text)) if is_text(raw, text)? => Ok(Kept::Nothing),
        // What pgSTAC reads of a null is what the collection has; of this mark, nothing.
        (JsonType::Null, base) if *base != Base::Word("null".into()) => {
            push_string(NOT_HERE, out);
            Ok(Kept::Something)
        }
        _ => {
            out.push_str(raw);
            Ok(Kept::Something)
        }
    }
}

fn object_without(members: &HashMap<String, Base>, raw: &str, out: &mut String) -> sonic_rs::Result<Kept> {
    let start = out.len();
    out.push('{');
    let mut seen = Vec::with_capacity(members.len());
    for member in sonic_rs::to_object_iter(raw) {
        let (name, value) = member?;
        let known = members.get_key_value(name.as_ref());
        seen.extend(known.map(|(name, _)| name.as_str()));
        member_without(known.map(|(_, base)| base), &name, &value, out)?;
    }
    missing(members, &seen, out);
    if out.len() == start + 1 {
        out.truncate(start);
        return Ok(Kept::Nothing);
    }
    close(out, '}');
    Ok(Kept::Something)
}

/// Arrays of one length are merged place by place when they are read; others are the item's alone.
fn array_without(bases: &[Base], raw: &str, out: &mut String) -> sonic_rs::Result<Kept> {
    let values: Vec<LazyValue<'_>> = sonic_rs::to_array_iter(raw).collect::<sonic_rs::Result<_>>()?;
    if values.len() != bases.len() {
        out.push_str(raw);
        return Ok(Kept::Something);
    }
    let start = out.len();
    let mut is_equal = true;
    out.push('[');
    for (base, value) in bases.iter().zip(&values) {
        let before = out.len();
        let kept = match (value.get_type(), base) {
            // A mark has no place in an array, and a nested array is merged by some readers and not by others.
            (JsonType::Null, Base::Word(_)) | (JsonType::Array, Base::Array(_)) => {
                let kept = without(base, value, out)?;
                out.truncate(before);
                kept
            }
            (JsonType::Null, _) => Kept::Something,
            _ => without(base, value, out)?,
        };
        is_equal &= kept == Kept::Nothing;
        if out.len() == before {
            let object_that_is_merged = matches!(base, Base::Object(_)) && value.get_type() == JsonType::Object;
            out.push_str(if object_that_is_merged { "{}" } else { value.as_raw_str() });
        }
        out.push(',');
    }
    close(out, ']');
    if is_equal {
        out.truncate(start);
        return Ok(Kept::Nothing);
    }
    Ok(Kept::Something)
}

/// Marks what the collection has and the item has not.
fn missing(members: &HashMap<String, Base>, seen: &[&str], out: &mut String) {
    for name in members.keys().filter(|name| !seen.contains(&name.as_str()) && !COLUMNS.contains(&name.as_str())) {
        push_string(name, out);
        out.push(':');
        push_string(NOT_HERE, out);
        out.push(',');
    }
}

/// Whether a string as it is written means this text.
fn is_text(raw: &str, text: &str) -> sonic_rs::Result<bool> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains('\\') {
        return Ok(inner == text);
    }
    Ok(sonic_rs::from_str::<String>(raw)? == text)
}

fn push_string(text: &str, out: &mut String) {
    out.push_str(&sonic_rs::to_string(text).expect("a string can be written as JSON"));
}

/// Ends an array or object, in the place of the comma after its last value.
fn close(out: &mut String, bracket: char) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push(bracket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, item: &str, expected: &str) {
        let content = BaseItem::read(base, None).unwrap().content(item).unwrap();
        assert_eq!(content, expected, "{item} without {base}");
        serde_json::from_str::<serde_json::Value>(&content).unwrap();
    }

    #[test]
    fn what_the_collection_has_too_is_left_out() {
        let base =
            r#"{"type": "Feature", "assets": {"a": {"type": "x", "roles": ["data"], "n": 1.0}}, "collection": "c"}"#;
        check(base, r#"{"id":"i","collection":"c","assets":{"a":{"type":"x","roles":["data"],"n":1.0}}}"#, "{}");
        check(
            base,
            r#"{"assets":{"a":{"type":"x","roles":["data"],"n":1.0,"href":"h"}}}"#,
            r#"{"assets":{"a":{"href":"h"}}}"#,
        );
        // The digits are the item's.
        check(base, r#"{"assets":{"a":{"type":"x","roles":["data"],"n":1}}}"#, r#"{"assets":{"a":{"n":1}}}"#);
        check(
            base,
            r#"{"assets":{"a":{"type":"\u0078","roles":["other"],"n":1.0}}}"#,
            r#"{"assets":{"a":{"roles":["other"]}}}"#,
        );
    }

    #[test]
    fn what_the_item_lacks_is_marked() {
        let base = r#"{"assets": {"a": {"type": "x", "title": "t"}, "b": {}}, "stac_version": "1.0.0"}"#;
        check(
            base,
            r#"{"stac_version":"1.0.0","assets":{"a":{"type":null,"title":"t"},"b":{}}}"#,
            r#"{"assets":{"a":{"type":"𒍟※"}}}"#,
        );
        check(base, r#"{"assets":{"a":{"type":"x","title":"t"}},"stac_version":"1.0.0"}"#, r#"{"assets":{"b":"𒍟※"}}"#);
        check(r#"{"stac_version": "1.0.0"}"#, "{}", r#"{"stac_version":"𒍟※"}"#);
    }

    #[test]
    fn arrays_of_one_length_are_taken_apart_and_others_kept() {
        let base = r#"{"assets": {"a": {"bands": [{"name": "r", "nodata": 0}, {"name": "g"}], "list": [[1], [2]], "mixed": [1, null]}}}"#;
        let item = r#"{"assets":{"a":{"bands":[{"name":"r","nodata":null},{"name":"g"}],"list":[[1],[3]],"mixed":[null,null]}}}"#;
        let kept = r#"{"assets":{"a":{"bands":[{"nodata":"𒍟※"},{}],"list":[[1],[3]],"mixed":[null,null]}}}"#;
        check(base, item, kept);
        check(r#"{"assets": {"a": [1, 2]}}"#, r#"{"assets":{"a":[]}}"#, r#"{"assets":{"a":[]}}"#);
        check(r#"{"assets": {"a": [1, 2]}}"#, r#"{"assets":{"a":[1,2]}}"#, "{}");
        check(r#"{"assets": null}"#, r#"{"assets":{"a":{}}}"#, r#"{"assets":{"a":{}}}"#);
    }

    #[test]
    fn the_tag_says_which_base_item_it_was() {
        let base = BaseItem::read(r#"{"assets": null}"#, Some(7)).unwrap();
        assert_eq!(
            base.content(r#"{"assets":{},"pgstac:base_item":9}"#).unwrap(),
            r#"{"assets":{},"pgstac:base_item":7}"#
        );
    }
}
