//! Which members belong to which extension, for the rules about declared and used extensions.

use std::collections::HashSet;

use crate::dom::{Value, token};

/// Extensions by the name in their URL, with the starts of their members' names.
/// A name without a colon is a whole member's name. <https://stac-extensions.github.io/>
const MEMBERS: &[(&str, &[&str])] = &[
    ("accuracy", &["accuracy:"]),
    ("alternate-assets", &["alternate", "alternate:"]),
    ("altimetry", &["altm:"]),
    ("authentication", &["auth:"]),
    ("ceos-ard", &["ceosard:"]),
    ("classification", &["classification:"]),
    ("datacube", &["cube:"]),
    ("eo", &["eo:"]),
    ("file", &["file:"]),
    ("forecast", &["forecast:"]),
    ("goes", &["goes:"]),
    ("grid", &["grid:"]),
    ("item-assets", &["item_assets"]),
    ("label", &["label:"]),
    ("landsat", &["landsat:"]),
    ("mgrs", &["mgrs:"]),
    ("mlm", &["mlm:"]),
    ("noaa-mrms-qpe", &["noaa_mrms_qpe:"]),
    ("order", &["order:"]),
    ("pointcloud", &["pc:"]),
    ("processing", &["processing:"]),
    ("product", &["product:"]),
    ("projection", &["proj:"]),
    ("raster", &["raster:"]),
    ("render", &["renders"]),
    ("sar", &["sar:"]),
    ("sat", &["sat:"]),
    ("scientific", &["sci:"]),
    ("sentinel-1", &["s1:"]),
    ("sentinel-2", &["s2:"]),
    ("ssys", &["ssys:"]),
    ("stats", &["stats:"]),
    ("storage", &["storage:"]),
    ("table", &["table:"]),
    ("tiled-assets", &["tiles:"]),
    ("timestamps", &["published", "expires", "unpublished"]),
    ("version", &["version", "deprecated", "experimental"]),
    ("view", &["view:"]),
    ("virtual-assets", &["vrt:"]),
    ("xarray-assets", &["xarray:"]),
];

/// The extension's name in a published URL: `…/NAME/vVERSION/schema.json`.
fn name_of(url: &str) -> Option<&str> {
    let path = url.strip_prefix("https://stac-extensions.github.io/")?;
    path.split('/').next()
}

fn declared<'d>(document: &'d Value<'d>) -> impl Iterator<Item = (usize, &'d str)> {
    let urls = document.get("stac_extensions").and_then(Value::as_array).unwrap_or_default();
    urls.iter().enumerate().filter_map(|(index, url)| Some((index, url.as_str()?)))
}

fn belongs(member: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| if start.ends_with(':') { member.starts_with(start) } else { member == *start })
}

/// Extensions that a document uses, by name; one walk for all rules.
fn used(document: &Value<'_>) -> HashSet<&'static str> {
    let mut used = HashSet::new();
    walk(document, &mut String::new(), &mut |_, member| used.extend(owners(member)));
    used
}

fn owners(member: &str) -> impl Iterator<Item = &'static str> {
    MEMBERS.iter().filter(move |(_, starts)| belongs(member, starts)).map(|(name, _)| *name)
}

/// Declared extensions of which no member is there: index, URL and what was looked for.
pub(crate) fn unused<'d>(document: &'d Value<'d>) -> impl Iterator<Item = (usize, &'d str, String)> {
    let used = used(document);
    declared(document).filter_map(move |(index, url)| {
        let (name, starts) = MEMBERS.iter().find(|(name, _)| Some(*name) == name_of(url))?;
        (!used.contains(name)).then(|| (index, url, starts.join(" or ")))
    })
}

/// Members with an extension's prefix whose extension is not declared, one for each extension: place and extension.
pub(crate) fn undeclared(document: &Value<'_>) -> Vec<(String, &'static str)> {
    let declared: HashSet<&str> = declared(document).filter_map(|(_, url)| name_of(url)).collect();
    let mut found: Vec<(String, &'static str)> = Vec::new();
    walk(document, &mut String::new(), &mut |pointer, member| {
        // Only prefixes are sure signs: `version` is a word that anyone may use.
        let Some((prefix, _)) = member.split_once(':') else { return };
        let owner =
            MEMBERS.iter().find(|(_, starts)| starts.iter().any(|start| start.strip_suffix(':') == Some(prefix)));
        if let Some((owner, _)) = owner
            && !declared.contains(owner)
            && !found.iter().any(|(_, other)| other == owner)
        {
            found.push((format!("{pointer}{}", token(member)), owner));
        }
    });
    found
}

fn walk(value: &Value<'_>, pointer: &mut String, seen: &mut dyn FnMut(&str, &str)) {
    let length = pointer.len();
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                seen(pointer, name);
                pointer.push_str(&token(name));
                walk(value, pointer, seen);
                pointer.truncate(length);
            }
        }
        Value::Array(values) => {
            for (index, value) in
                values.iter().enumerate().filter(|(_, value)| matches!(value, Value::Object(_) | Value::Array(_)))
            {
                pointer.push_str(&format!("/{index}"));
                walk(value, pointer, seen);
                pointer.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dom::Document;

    const EO: &str = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";

    fn found(text: &str) -> (Vec<usize>, Vec<(String, &'static str)>) {
        let document = Document::read(text.as_bytes()).unwrap().root;
        (unused(&document).map(|(index, ..)| index).collect(), undeclared(&document))
    }

    #[test]
    fn what_is_declared_is_used_and_what_is_used_is_declared() {
        let used = format!(r#"{{"stac_extensions":["{EO}"],"assets":{{"a/b":{{"eo:bands":[]}}}}}}"#);
        assert_eq!(found(&used), (vec![], vec![]));
        let unused = format!(r#"{{"stac_extensions":["https://x.example/eo","{EO}"],"a":"eo:bands"}}"#);
        assert_eq!(found(&unused), (vec![1], vec![]));
        let undeclared = r#"{"assets":{"a/b":{"eo:bands":[],"eo:x":1,"dedl:x":1,"version":"1"}}}"#;
        assert_eq!(found(undeclared), (vec![], vec![("/assets/a~1b/eo:bands".into(), "eo")]));
    }
}
