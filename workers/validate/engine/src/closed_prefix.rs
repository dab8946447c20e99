//! A faster way to say what nearly every extension's schema says: no member with my prefix but those that I know.
//!
//! Published schemas write it as `patternProperties: {"^(?!eo:)": {}}` beside `additionalProperties: false`, which
//! runs a look-ahead over every member of every asset, once for each extension: half of all the time. It is replaced
//! by one keyword that means the same, and a fuzz target holds the result against the schemas as published.

use jsonschema::json::{Node, Object};
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use crate::representation::Dom;

/// The keyword, as it stands in rewritten schemas.
pub(crate) const KEYWORD: &str = "landfall:closedPrefix";

/// Rewrites a schema and everything in it.
pub(crate) fn rewrite(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(prefix) = closed(members) {
                members.remove("patternProperties");
                members.remove("additionalProperties");
                members.insert(KEYWORD.into(), prefix.into());
            }
            members.values_mut().for_each(rewrite);
        }
        Value::Array(values) => values.iter_mut().for_each(rewrite),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The prefix that a schema closes, where it does that and nothing else with these keywords.
fn closed(schema: &Map<String, Value>) -> Option<String> {
    let patterns = schema.get("patternProperties")?.as_object()?;
    let is_comment = |value: &Value| value.as_object().is_some_and(|value| value.keys().all(|name| name == "$comment"));
    let (pattern, taken) = patterns.iter().next().filter(|_| patterns.len() == 1)?;
    let prefix = pattern.strip_prefix("^(?!")?.strip_suffix(')')?;
    let is_plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':'));
    let closes = schema.get("additionalProperties") == Some(&Value::Bool(false));
    // Beside a reference, draft 7 reads nothing.
    let is_read = !schema.contains_key("$ref");
    (is_plain && !prefix.is_empty() && is_comment(taken) && closes && is_read).then(|| prefix.to_owned())
}

/// The keyword, compiled.
struct ClosedPrefix {
    prefix: String,
    known: Vec<String>,
}

/// Makes the keyword for the schema engine.
#[allow(clippy::unnecessary_wraps, reason = "the schema engine asks for a result")]
pub(crate) fn compile<'a>(
    schema: &'a Map<String, Value>,
    prefix: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i, Dom>>, ValidationError<'a>> {
    let known = schema.get("properties").and_then(Value::as_object);
    let known = known.into_iter().flat_map(|known| known.keys().cloned()).collect();
    Ok(Box::new(ClosedPrefix { prefix: prefix.as_str().unwrap_or_default().to_owned(), known }))
}

impl ClosedPrefix {
    fn unknown<'i>(&self, instance: &'i crate::dom::Value<'i>) -> impl Iterator<Item = &'i str> {
        let members = Node::<Dom>::as_object(&instance).map(|object| object.members());
        let is_unknown = |name: &&str| name.starts_with(&self.prefix) && !self.known.iter().any(|known| known == name);
        members.into_iter().flatten().map(|(name, _)| name).filter(is_unknown)
    }
}

impl<'i> Keyword<'i, Dom> for ClosedPrefix {
    fn validate(&self, instance: &'i crate::dom::Value<'i>) -> Result<(), ValidationError<'i>> {
        let unknown: Vec<&str> = self.unknown(instance).take(16).collect();
        if unknown.is_empty() { Ok(()) } else { Err(ValidationError::custom(unknown.join(", "))) }
    }

    fn is_valid(&self, instance: &'i crate::dom::Value<'i>) -> bool {
        self.unknown(instance).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut schema: Value, expected: Value) {
        rewrite(&mut schema);
        assert_eq!(schema, expected);
    }

    #[test]
    fn only_what_means_the_same_is_rewritten() {
        let closed = |pattern: &str, taken: Value, others: Value| json!({"a": [{"properties": {"x:a": {}}, "patternProperties": {pattern: taken}, "additionalProperties": others}]});
        let rewritten = json!({"a": [{"properties": {"x:a": {}}, KEYWORD: "x:"}]});
        check(closed("^(?!x:)", json!({}), json!(false)), rewritten.clone());
        check(closed("^(?!x:)", json!({"$comment": "…"}), json!(false)), rewritten);
        for (pattern, taken, others) in [
            ("^(?!x:)", json!({"type": "string"}), json!(false)),
            ("^(?!x:)", json!({}), json!({})),
            ("^(?!x|y)", json!({}), json!(false)),
            ("(?!x:)", json!({}), json!(false)),
            ("^(?!)", json!({}), json!(false)),
            ("^x:", json!({}), json!(false)),
        ] {
            let schema = closed(pattern, taken, others);
            check(schema.clone(), schema);
        }
        let beside = json!({"$ref": "#", "patternProperties": {"^(?!x:)": {}}, "additionalProperties": false});
        check(beside.clone(), beside);
    }
}
