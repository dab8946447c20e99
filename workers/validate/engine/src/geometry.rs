//! Geometry and bounding boxes, checked in one pass: precise places, no allocation on the good path.
//!
//! The rules are those of GeoJSON (<https://www.rfc-editor.org/rfc/rfc7946#section-3.1>), and what pgSTAC would
//! take but must not hold: rings that are not closed.

use landfall_events::{Problem, Severity, codes};
use serde_json::Value;

use crate::problem;

/// Appends what is wrong with a geometry, one problem for the first broken place.
pub(crate) fn vet(geometry: &Value, problems: &mut Vec<Problem>) {
    let kind = geometry.get("type").and_then(Value::as_str);
    let Some(coordinates) = geometry.get("coordinates") else { return };
    let depth = match kind {
        Some("Point") => 0,
        Some("MultiPoint" | "LineString") => 1,
        Some("Polygon" | "MultiLineString") => 2,
        Some("MultiPolygon") => 3,
        // The schema says which types there are.
        _ => return,
    };
    let shape = match kind {
        Some("LineString" | "MultiLineString") => Shape::Line,
        Some("Polygon" | "MultiPolygon") => Shape::Ring,
        _ => Shape::Points,
    };
    let mut path = Vec::new();
    if let Err(why) = nested(coordinates, depth, shape, &mut path) {
        let place: String = path.iter().map(|index| format!("/{index}")).collect();
        problems.push(problem(codes::STAC_GEOMETRY, &format!("/geometry/coordinates{place}"), why));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Points,
    Line,
    Ring,
}

fn nested(value: &Value, depth: usize, shape: Shape, path: &mut Vec<usize>) -> Result<(), &'static str> {
    if depth == 0 {
        return position(value);
    }
    let Some(values) = value.as_array() else { return Err("this is not an array of coordinates") };
    for (index, value) in values.iter().enumerate() {
        path.push(index);
        nested(value, depth - 1, shape, path)?;
        path.pop();
    }
    if depth == 1 {
        match shape {
            Shape::Points => {}
            Shape::Line if values.len() < 2 => return Err("a line has at least two positions"),
            Shape::Line => {}
            Shape::Ring if values.len() < 4 => return Err("a ring has at least four positions"),
            Shape::Ring if values.first() != values.last() => {
                return Err("the ring is not closed: its last position is not its first");
            }
            Shape::Ring => {}
        }
    }
    Ok(())
}

fn position(value: &Value) -> Result<(), &'static str> {
    let Some(numbers) = value.as_array() else { return Err("this is not a position") };
    if numbers.len() < 2 {
        return Err("a position has at least longitude and latitude");
    }
    if numbers.iter().any(|number| !number.as_f64().is_some_and(f64::is_finite)) {
        return Err("a position holds finite numbers only");
    }
    Ok(())
}

/// Warns about a bounding box whose shape is right, which the schema checks, and whose edges are not.
pub(crate) fn vet_bbox(bbox: &Value, problems: &mut Vec<Problem>) {
    let Some(values) = bbox.as_array() else { return };
    let numbers: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
    let half = numbers.len() / 2;
    let whole = numbers.len() == values.len() && (numbers.len() == 4 || numbers.len() == 6);
    // West may be greater than east: the box then crosses the antimeridian.
    if whole && numbers[1] > numbers[half + 1] {
        let mut problem =
            problem(codes::STAC_GEOMETRY, "/bbox", "the box's southern edge is north of its northern edge");
        problem.severity = Severity::Warning;
        problems.push(problem);
    }
}
