//! Geometry and bounding boxes, checked in one pass: precise places, no allocation on the good path.
//!
//! The rules are those of GeoJSON (<https://www.rfc-editor.org/rfc/rfc7946#section-3.1>), and what PostGIS takes
//! and must not hold: rings that are not closed, on which every spatial search that meets them fails.

use landfall_events::{Problem, codes};

use crate::dom::Value;
use crate::findings::problem;

/// The most open rings of one geometry that are told.
pub(crate) const OPEN_RINGS_MAX: usize = 16;

/// What is wrong with a geometry.
#[derive(Debug, Default)]
pub(crate) struct Vetted {
    /// The first place that breaks the schema, after which nothing is looked at.
    pub(crate) broken: Option<Problem>,
    /// Rings that do not end where they start, by their indexes within the coordinates.
    pub(crate) open: Vec<(Vec<usize>, Problem)>,
}

/// Looks through a geometry.
pub(crate) fn vet(geometry: &Value<'_>) -> Vetted {
    let kind = geometry.get("type").and_then(Value::as_str);
    let Some(coordinates) = geometry.get("coordinates") else { return Vetted::default() };
    let depth = match kind {
        Some("Point") => 0,
        Some("MultiPoint" | "LineString") => 1,
        Some("Polygon" | "MultiLineString") => 2,
        Some("MultiPolygon") => 3,
        // The schema says which types there are.
        _ => return Vetted::default(),
    };
    let shape = match kind {
        Some("LineString" | "MultiLineString") => Shape::Line,
        Some("Polygon" | "MultiPolygon") => Shape::Ring,
        _ => Shape::Points,
    };
    let mut walk = Walk { path: Vec::new(), open: Vec::new() };
    let broken = walk.nested(coordinates, depth, shape).err();
    let place = |path: &[usize]| {
        path.iter().fold("/geometry/coordinates".to_owned(), |place, index| format!("{place}/{index}"))
    };
    let broken = broken.map(|why| problem(codes::STAC_GEOMETRY, &place(&walk.path), why));
    let told = |ring: Vec<usize>| {
        let why = "the ring is not closed: its last position is not its first";
        let mut problem = problem(codes::STAC_GEOMETRY, &place(&ring), why);
        problem.hint = Some("repeat the first position at the end".into());
        (ring, problem)
    };
    Vetted { broken, open: walk.open.into_iter().map(told).collect() }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Points,
    Line,
    Ring,
}

struct Walk {
    path: Vec<usize>,
    open: Vec<Vec<usize>>,
}

impl Walk {
    fn nested(&mut self, value: &Value<'_>, depth: usize, shape: Shape) -> Result<(), &'static str> {
        if depth == 0 {
            return position(value);
        }
        let Some(values) = value.as_array() else { return Err("this is not an array of coordinates") };
        for (index, value) in values.iter().enumerate() {
            self.path.push(index);
            self.nested(value, depth - 1, shape)?;
            self.path.pop();
        }
        match shape {
            _ if depth > 1 => {}
            Shape::Points => {}
            Shape::Line if values.len() < 2 => return Err("a line has at least two positions"),
            Shape::Line => {}
            Shape::Ring if values.len() < 4 => return Err("a ring has at least four positions"),
            Shape::Ring if !is_closed(values) && self.open.len() < OPEN_RINGS_MAX => {
                self.open.push(self.path.clone());
            }
            Shape::Ring => {}
        }
        Ok(())
    }
}

/// Whether a ring ends where it starts, by the numbers and not by how they are written.
fn is_closed(ring: &[Value<'_>]) -> bool {
    let ends = ring.first().zip(ring.last()).and_then(|(first, last)| first.as_array().zip(last.as_array()));
    ends.is_some_and(|(first, last)| {
        first.len() == last.len() && first.iter().zip(last).all(|(one, other)| one.as_f64() == other.as_f64())
    })
}

fn position(value: &Value<'_>) -> Result<(), &'static str> {
    let Some(numbers) = value.as_array() else { return Err("this is not a position") };
    if numbers.len() < 2 {
        return Err("a position has at least longitude and latitude");
    }
    if numbers.iter().any(|number| number.as_f64().is_none()) {
        return Err("a position holds numbers only");
    }
    Ok(())
}

/// Finds a bounding box whose shape is right, which the schema checks, and whose edges are not.
pub(crate) fn swapped(bbox: &Value<'_>) -> Option<Problem> {
    let values = bbox.as_array()?;
    let numbers: Vec<f64> = values.iter().take(7).filter_map(Value::as_f64).collect();
    let half = numbers.len() / 2;
    let whole = numbers.len() == values.len() && (numbers.len() == 4 || numbers.len() == 6);
    // West may be greater than east: the box then crosses the antimeridian.
    (whole && numbers[1] > numbers[half + 1])
        .then(|| problem(codes::STAC_GEOMETRY, "/bbox", "the box's southern edge is north of its northern edge"))
}
