//! GeoJSON geometry as PostGIS holds it: checked, then written as EWKB.
//!
//! It refuses what PostGIS takes and must not hold: open rings, on which every spatial search that meets them fails,
//! coordinates that are no finite numbers, and shapes without positions.

use geojson::{Geometry, GeometryValue, Position};
use geozero::wkb::{WkbDialect, WkbWriter};
use geozero::{CoordDimensions, GeomProcessor};

/// The reference system of all GeoJSON. <https://www.rfc-editor.org/rfc/rfc7946#section-4>
const WGS84: i32 = 4326;

/// A geometry ready for the database, and the box around it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    /// Extended well-known binary, with its reference system.
    /// <https://postgis.net/docs/using_postgis_dbmanagement.html#EWKB_EWKT>
    pub(super) ewkb: Vec<u8>,
    /// West, south, east, north, in degrees.
    pub(super) bbox: [f64; 4],
}

/// Why a geometry cannot be held, in a few words.
#[derive(Debug)]
struct Unusable(String);

impl From<geozero::error::GeozeroError> for Unusable {
    fn from(error: geozero::error::GeozeroError) -> Self {
        Self(error.to_string())
    }
}

/// Reads a GeoJSON geometry; says in a few words why it cannot be held.
pub(super) fn read(text: &str) -> Result<Shape, String> {
    let geometry: Geometry = text.parse().map_err(|error: geojson::Error| error.to_string())?;
    let has_height = has_height(&geometry.value);
    let dimensions = if has_height { CoordDimensions::xyz() } else { CoordDimensions::xy() };
    let mut ewkb = Vec::new();
    let writer = WkbWriter::with_opts(&mut ewkb, WkbDialect::Ewkb, dimensions, Some(WGS84), Vec::new());
    let mut walk = Walk { writer, has_height, bbox: [f64::MAX, f64::MAX, f64::MIN, f64::MIN] };
    walk.geometry(&geometry.value, 0).map_err(|Unusable(why)| why)?;
    let bbox = walk.bbox;
    if bbox[0] > bbox[2] {
        return Err("it has no position".into());
    }
    Ok(Shape { ewkb, bbox })
}

/// Whether any position has a third number; the others then have the height 0, as PostGIS has it.
fn has_height(value: &GeometryValue) -> bool {
    let any = |positions: &[Position]| positions.iter().any(|position| position.as_slice().len() > 2);
    match value {
        GeometryValue::Point { coordinates } => coordinates.as_slice().len() > 2,
        GeometryValue::MultiPoint { coordinates } | GeometryValue::LineString { coordinates } => any(coordinates),
        GeometryValue::MultiLineString { coordinates } | GeometryValue::Polygon { coordinates } => {
            coordinates.iter().any(|positions| any(positions))
        }
        GeometryValue::MultiPolygon { coordinates } => coordinates.iter().flatten().any(|positions| any(positions)),
        GeometryValue::GeometryCollection { geometries } => geometries.iter().any(|part| has_height(&part.value)),
    }
}

/// Checks and writes in one pass.
struct Walk<'w> {
    writer: WkbWriter<&'w mut Vec<u8>>,
    has_height: bool,
    bbox: [f64; 4],
}

impl Walk<'_> {
    fn geometry(&mut self, value: &GeometryValue, index: usize) -> Result<(), Unusable> {
        match value {
            GeometryValue::Point { coordinates } => {
                self.writer.point_begin(index)?;
                self.position(coordinates, 0)?;
                self.writer.point_end(index)?;
            }
            GeometryValue::MultiPoint { coordinates } => {
                self.writer.multipoint_begin(coordinates.len(), index)?;
                self.positions(coordinates)?;
                self.writer.multipoint_end(index)?;
            }
            GeometryValue::LineString { coordinates } => self.line(coordinates, true, index)?,
            GeometryValue::MultiLineString { coordinates } => {
                self.writer.multilinestring_begin(coordinates.len(), index)?;
                for (index, line) in coordinates.iter().enumerate() {
                    self.line(line, false, index)?;
                }
                self.writer.multilinestring_end(index)?;
            }
            GeometryValue::Polygon { coordinates } => self.polygon(coordinates, true, index)?,
            GeometryValue::MultiPolygon { coordinates } => {
                self.writer.multipolygon_begin(coordinates.len(), index)?;
                for (index, polygon) in coordinates.iter().enumerate() {
                    self.polygon(polygon, false, index)?;
                }
                self.writer.multipolygon_end(index)?;
            }
            GeometryValue::GeometryCollection { geometries } => {
                self.writer.geometrycollection_begin(geometries.len(), index)?;
                for (index, part) in geometries.iter().enumerate() {
                    self.geometry(&part.value, index)?;
                }
                self.writer.geometrycollection_end(index)?;
            }
        }
        Ok(())
    }

    fn polygon(&mut self, rings: &[Vec<Position>], tagged: bool, index: usize) -> Result<(), Unusable> {
        self.writer.polygon_begin(tagged, rings.len(), index)?;
        for (ring_index, ring) in rings.iter().enumerate() {
            if ring.len() < 4 {
                return Err(Unusable(format!("ring {ring_index} has fewer than four positions")));
            }
            if ring.first() != ring.last() {
                let why = format!("ring {ring_index} is not closed: its last position is not its first");
                return Err(Unusable(why));
            }
            self.writer.linestring_begin(false, ring.len(), ring_index)?;
            self.positions(ring)?;
            self.writer.linestring_end(false, ring_index)?;
        }
        Ok(self.writer.polygon_end(tagged, index)?)
    }

    fn line(&mut self, line: &[Position], tagged: bool, index: usize) -> Result<(), Unusable> {
        if line.len() < 2 {
            return Err(Unusable("a line has at least two positions".into()));
        }
        self.writer.linestring_begin(tagged, line.len(), index)?;
        self.positions(line)?;
        Ok(self.writer.linestring_end(tagged, index)?)
    }

    fn positions(&mut self, positions: &[Position]) -> Result<(), Unusable> {
        positions.iter().enumerate().try_for_each(|(index, position)| self.position(position, index))
    }

    fn position(&mut self, position: &Position, index: usize) -> Result<(), Unusable> {
        let numbers = position.as_slice();
        let &[x, y, ..] = numbers else {
            return Err(Unusable("a position has at least longitude and latitude".into()));
        };
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Unusable("a coordinate is not a finite number".into()));
        }
        self.bbox = [self.bbox[0].min(x), self.bbox[1].min(y), self.bbox[2].max(x), self.bbox[3].max(y)];
        if self.has_height {
            let z = Some(numbers.get(2).copied().unwrap_or(0.0));
            self.writer.coordinate(x, y, z, None, None, None, index)?;
        } else {
            self.writer.xy(x, y, index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: &str, coordinates: &str, expected: Result<&str, &str>) {
        let read = read(&format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#));
        match (read, expected) {
            (Ok(shape), Ok(hex)) => assert_eq!(hex::encode_upper(shape.ewkb), hex, "{kind} {coordinates}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{kind} {coordinates}: {why:?}"),
            (read, _) => panic!("{kind} {coordinates}: {read:?}"),
        }
    }

    #[test]
    fn a_geometry_is_written_as_postgis_writes_it() {
        // As `select encode(st_asewkb(st_geomfromgeojson(…)), 'hex')` has it.
        check("Point", "[1,2]", Ok("0101000020E6100000000000000000F03F0000000000000040"));
        check("Point", "[1,2,3]", Ok("01010000A0E6100000000000000000F03F00000000000000400000000000000840"));
        check(
            "LineString",
            "[[0,0],[1,2,3]]",
            Ok("01020000A0E610000002000000000000000000000000000000000000000000000000000000\
                000000000000F03F00000000000000400000000000000840"),
        );
    }

    #[test]
    fn what_no_search_could_use_is_refused() {
        check("Polygon", "[[[0,0],[1,0],[1,1],[0,1]]]", Err("not closed"));
        check("Polygon", "[[[0,0],[1,0],[0,0]]]", Err("fewer than four"));
        check("Polygon", "[]", Err("no position"));
        check("LineString", "[[0,0]]", Err("two positions"));
        check("Point", r#"["0","0"]"#, Err(""));
        check("Point", "[]", Err(""));
        check("Point", "[1]", Err(""));
        check("Point", "[1e400,0]", Err(""));
        check("Circle", "[0,0]", Err(""));
    }

    #[test]
    fn the_box_is_of_all_parts() {
        let text = r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[9,-3]},
            {"type":"MultiPoint","coordinates":[[-5,1],[2,7]]}]}"#;
        assert_eq!(read(text).unwrap().bbox, [-5.0, -3.0, 9.0, 7.0]);
    }
}
