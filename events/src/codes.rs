//! Every code that a refusal, a warning or a dead letter can carry, with its cause and what to do.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable, dotted name for one kind of trouble.
///
/// It is text on the wire, so that an older reader passes a newer code on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Code(Cow<'static, str>);

impl Code {
    /// Takes a code that was read from outside.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(Cow::Owned(text.to_owned()))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A code with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// When it is given.
    pub cause: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

/// Finds what a code means.
#[must_use]
pub fn explain(code: &str) -> Option<Explanation> {
    ALL.iter().find(|(name, ..)| name.as_str() == code).map(|(code, cause, hint)| Explanation {
        code: code.clone(),
        cause,
        hint,
    })
}

/// Lists every code with its explanation.
pub fn all() -> impl Iterator<Item = Explanation> {
    ALL.iter().map(|(code, cause, hint)| Explanation { code: code.clone(), cause, hint })
}

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $hint:literal;)+) => {
        $(#[doc = $cause] pub const $name: Code = Code(Cow::Borrowed($code));)+
        const ALL: &[(Code, &str, &str)] = &[$(($name, $cause, $hint)),+];
    };
}

codes! {
    DELIVERY_UNREADABLE = "delivery.unreadable",
        "A queue message is neither an S3 notification nor an event that this stage knows.",
        "Look at the letter with `landfall dlq show`; whoever sends to this queue by hand must send S3 notifications or Landfall events.";
    DELIVERY_VERSION = "delivery.version",
        "An S3 notification has an event version other than 2.x.",
        "Upgrade Landfall to a release that knows this version, then redrive.";
    DELIVERY_UNSENDABLE = "delivery.unsendable",
        "What a stage has to say next was refused by the queue, for its size for example.",
        "This is a defect of Landfall or of a queue's settings: compare the queue's MaximumMessageSize with 1 MiB, then redrive.";
    GAVE_UP = "gave-up",
        "A step kept failing for a passing reason until its deadline.",
        "The reason names the dependency and its last error: mend it, then redrive.";
    LANDING_UNCONFIGURED = "landing.unconfigured",
        "An event names a bucket or a prefix that no landing is configured for, or a key that names no provider.",
        "Add the bucket and prefix to `landings` in the configuration, or drop the file under `<provider>/…`, then redrive.";
    STAC_UNPARSEABLE = "stac.unparseable",
        "A file that is metadata by its path is not JSON. NaN, Infinity, numbers beyond 1e308 and lone surrogates are not JSON.",
        "Open the file at the line and column named, mend it and drop it again.";
    STAC_ENCODING = "stac.encoding",
        "A file that is metadata by its path is not plain UTF-8: it is UTF-16, holds other bytes, or starts with a byte order mark.",
        "Save the file as UTF-8 without a byte order mark and drop it again.";
    STAC_TOO_DEEP = "stac.too-deep",
        "The document nests arrays and objects deeper than 127 levels.",
        "Flatten the document: no STAC member needs such a depth.";
    STAC_TOO_MANY = "stac.too-many",
        "The document holds more than a million values, or the file more members than are taken at once.",
        "Simplify the geometry or move bulk data into an asset; split a file of many members into several.";
    STAC_NOT_STAC = "stac.not-stac",
        "A file that is metadata by its path is JSON but not a STAC item, collection, catalog or item collection.",
        "Set `type` and `stac_version` as the STAC specification has them, or move the file out of the metadata folder.";
    STAC_VERSION = "stac.version",
        "The document has a `stac_version` other than 1.0.0 and 1.1.0.",
        "Migrate the document to STAC 1.0.0 or 1.1.0 (`pystac.migrate` can do it) and drop it again.";
    STAC_SCHEMA = "stac.schema",
        "The document breaks a rule of the STAC specification.",
        "Each problem names the place by JSON Pointer and what was expected there: mend them and drop the file again.";
    STAC_EXTENSION_UNKNOWN = "stac.extension-unknown",
        "The document declares an extension whose schema is neither published among those that are locked nor added by the operator.",
        "Correct the URL in `stac_extensions`, or ask the operator to add the schema with `landfall schemas add URL`.";
    STAC_SCHEMA_UNUSABLE = "stac.schema-unusable",
        "The document declares an extension that is known, and its schema is not in the bundle or cannot be used. The document may be right.",
        "An operator's matter: run `landfall schemas fetch` (`landfall schemas verify` says what is wrong), give the workers the bundle, then redrive.";
    STAC_NAME_REPEATED = "stac.name-repeated",
        "A member's name stands more than once in its object. The last one counts, here and in PostgreSQL.",
        "Remove the repetitions: readers disagree about which one counts.";
    STAC_COLLECTION_LINK = "stac.collection-link",
        "The item names a collection and has no link with rel=collection, which the specification asks for.",
        "Add a link with rel=collection to the item's collection.";
    STAC_GEOMETRY = "stac.geometry",
        "The geometry or bbox is not usable: unclosed, out of range, not finite or of an unknown type.",
        "Mend the coordinates at the place named: longitude and latitude in degrees, rings closed, and drop the file again.";
    STAC_DATETIME = "stac.datetime",
        "A datetime is not RFC 3339 in UTC, or a range ends before it starts.",
        "Write it as 2024-05-17T10:15:00Z; start_datetime must not be after end_datetime.";
    STAC_COLLECTION_MISSING = "stac.collection-missing",
        "The item names no collection, and pgSTAC holds an item only in a collection.",
        "Set `collection` to the id of its collection and add the link with rel=collection.";
    STAC_NUL = "stac.nul",
        "The document contains the character \\u0000, which PostgreSQL cannot hold.",
        "Remove the character at the place named and drop the file again.";
    STAC_TOO_LARGE = "stac.too-large",
        "A metadata file is larger than the limit for one document.",
        "Split an item collection into ndjson or single items; move bulk data into assets.";
    MAP_UNREADABLE = "map.unreadable",
        "The bucket map is not the YAML that is expected: a name is unknown, something is missing, or its form is another.",
        "Mend the place named. The JSON Schema workers/route/schemas/bucket-map.schema.json says what can stand there.";
    MAP_DUPLICATE = "map.duplicate",
        "The bucket map has a name twice. Readers of YAML differ about which one counts; case does not count in providers.",
        "Join the two, or remove one.";
    MAP_EMPTY_PREFIX = "map.empty-prefix",
        "A rule of the bucket map takes every path and hides all that follow it.",
        "Name the bucket as the default (`buckets: staging:`, or `default:`) instead.";
    MAP_BUCKET_NAME = "map.bucket-name",
        "The bucket map names what cannot be a bucket.",
        "A bucket's name has 3 to 63 of a-z, 0-9, '.' and '-', starts and ends with a letter or digit, and is no address.";
    MAP_BUCKET_MISSING = "map.bucket-missing",
        "The bucket map routes to a bucket that is not there.",
        "Name your own bucket, or make it; where it is in another store, say so in [[destination]] of the configuration.";
    MAP_BUCKET_DENIED = "map.bucket-denied",
        "The bucket map routes to a bucket that the stack's functions may not write to.",
        "Deploy the stack with the bucket's ARN in MoreArchiveBucketArns, or name another bucket.";
    MAP_LOOP = "map.loop",
        "The bucket map routes to a bucket whose objects are ingested, or to Landfall's own work bucket.",
        "Name another bucket as the destination.";
    MAP_TEMPLATE = "map.template",
        "A key's template cannot be read, could give two files one key, or could lead out of its place.",
        "Use {path}, or {collection}, {item} and {filename} together; add {provider} where providers share a bucket.";
    MAP_UNREACHABLE = "map.unreachable",
        "A rule of the bucket map is never reached: the first rule that hits wins, and an earlier one takes all its paths.",
        "Move the rule before the one named, or remove it.";
    MAP_BOUNDARY = "map.boundary",
        "A prefix of the bucket map does not end with '/', so that it takes paths too that merely start with its letters.",
        "End it with '/' where a folder is meant.";
    MAP_GLOB = "map.glob",
        "A prefix of the bucket map looks like a slip, or is a pattern that nothing matches.",
        "Try it: `landfall map explain --map FILE --provider NAME PATH`.";
    ROUTE_UNMAPPED = "route.unmapped",
        "The bucket map has no rule and no default for this provider and path.",
        "Add a rule to the bucket map, then redrive with `landfall dlq redrive --code route.unmapped`.";
    ROUTE_ESCAPE = "route.escape",
        "An href, a key or an id leads out of its place: to another provider's files, to another bucket of ours, or by '..'.",
        "Use hrefs relative to the item or to the dataset's root, and names without '..' or '/', and drop the file again.";
    ROUTE_AMBIGUOUS = "route.ambiguous",
        "An asset's href fits two different landed objects.",
        "Write the href so that it fits one: relative to the item's own folder or to the dataset's root.";
    ROUTE_ASSET_MISSING = "route.asset-missing",
        "An asset that the item names had not landed when the item's waiting time was over.",
        "Drop the missing files named, then redrive or drop the item again.";
    ROUTE_ASSET_UNEQUAL = "route.asset-unequal",
        "An asset is not what its item says: `file:size` or `file:checksum` differs from what landed.",
        "Drop the right file, or mend the item, and drop the item again.";
    ROUTE_COLLISION = "route.collision",
        "Two files would get the same key at the destination.",
        "Rename one of them; or, as the operator, let the bucket map's template tell them apart, then redrive.";
    ROUTE_UNCLAIMED = "route.unclaimed",
        "The bucket map places the file by the STAC item that names it, and none had named it when its waiting time was over.",
        "Drop an item that has the file as an asset, then redrive; or, as the operator, add a rule for files of no item.";
    ROUTE_REFUSED = "route.refused",
        "The object store does not take the copy: its key or its metadata is too long, or it is too large to copy.",
        "The reason holds the store's words: shorten the key or the metadata, and drop the file again.";
    LOAD_COLLECTION_OWNED = "load.collection-owned",
        "The collection belongs to another provider.",
        "Use a collection id of your own, or ask the operator to change the owner.";
    LOAD_COLLECTION_MISSING = "load.collection-missing",
        "The item's collection had not landed when the item's waiting time was over.",
        "Drop the collection, then redrive the item.";
    LOAD_REPEATED = "load.repeated",
        "The same item id stands twice in one file.",
        "Give each item an id of its own, or remove the repetition, and drop the file again.";
    LOAD_JSON = "load.json",
        "The item is no JSON that PostgreSQL can hold: it is cut off, nests too deeply, or has half of a surrogate pair.",
        "Write the item anew with a JSON library, and drop the file again.";
    LOAD_ID = "load.id",
        "The item's or its collection's id is missing, empty, no string, or too long to be indexed.",
        "Give it a short text as its id, and drop the file again.";
    LOAD_NUL = "load.nul",
        "The item holds the character \\u0000, which PostgreSQL cannot hold.",
        "Remove the character, and drop the file again.";
    LOAD_NUMBER = "load.number",
        "The item holds a number that the catalogue or its readers cannot hold.",
        "Write numbers within the range of a double, about 1e-300 to 1e300; leave out what is not known.";
    LOAD_GEOMETRY = "load.geometry",
        "The item has no geometry, or one that the catalogue must not hold: an open ring, text or infinity for a number, no position.",
        "Mend the coordinates: numbers only, rings of at least four positions that end where they start.";
    LOAD_DATETIME = "load.datetime",
        "The item has no datetime that the catalogue can hold, or a range that ends before it starts.",
        "Write `datetime`, or both `start_datetime` and `end_datetime`, as 2024-05-17T10:15:00Z.";
    LOAD_NULL = "load.null",
        "The catalogue found nothing where it needs a value.",
        "The reason names the column: give the item that value, and drop the file again.";
    LOAD_DUPLICATE = "load.duplicate",
        "The catalogue holds a row that this document would repeat.",
        "The reason names the rule that was broken: give the document an id of its own, and drop the file again.";
    LOAD_TOO_LARGE = "load.too-large",
        "Something of the document is larger than the catalogue can hold: most often ids and a key that are long together.",
        "Shorten the item's id or the file's path, and drop the file again.";
    LOAD_REFUSED = "load.refused",
        "The catalogue refused the document for a reason of its own.",
        "The reason holds the database's words; mend the document and drop it again.";
    NOTIFY_NOT_FOUND = "notify.not-found",
        "What was loaded could not be found in the catalogue by the deadline.",
        "Check the catalogue with `landfall status`, then redrive.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_named_once_and_explained() {
        let codes: Vec<_> = all().collect();
        for one in &codes {
            assert_eq!(codes.iter().filter(|other| other.code == one.code).count(), 1, "{}", one.code);
            assert!(one.cause.ends_with('.') && one.hint.ends_with('.'), "{}", one.code);
            assert_eq!(explain(one.code.as_str()).as_ref(), Some(one));
        }
        assert_eq!(explain("no.such-code"), None);
    }
}
