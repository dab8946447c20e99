//! What an item says of its assets, held against what landed: `file:size` and `file:checksum`.
//! <https://github.com/stac-extensions/file>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use digest::DynDigest;
use landfall_events::{ObjectRef, Problem, codes};
use landfall_shared::objects::{Checksum, ObjectInfo, Objects, ObjectsError, Source};
use multihash::Multihash;

use crate::assets::Asset;
use crate::copying::ranges;

/// Bytes that are read at a time to be hashed.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// What came of holding an asset against what landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// It is as the item says, or the item says nothing.
    Equal,
    /// It is not.
    Unequal(Box<Problem>),
    /// That cannot be told.
    Untold(Box<Problem>),
}

/// Compares sizes; one that is no whole number cannot be right.
pub(crate) fn size(asset: &Asset, object: &ObjectRef, info: &ObjectInfo) -> Held {
    let Some(said) = &asset.size else { return Held::Equal };
    // 7.0 is a whole number too. <https://json-schema.org/draft-07/json-schema-validation#rfc.section.6.1.1>
    let is_equal = said.parse() == Ok(info.size)
        || said.parse::<f64>().is_ok_and(|said| said.fract() == 0.0 && format!("{said:.0}") == info.size.to_string());
    if is_equal { Held::Equal } else { unequal(asset, object, "file:size", said, &info.size.to_string()) }
}

/// Compares checksums of what is at `object`: with the store's own where it has one of that kind, else by reading up to
/// `read_bytes_max`.
pub(crate) async fn checksum(
    objects: &dyn Objects,
    asset: &Asset,
    object: &ObjectRef,
    info: &ObjectInfo,
    read_bytes_max: u64,
) -> Result<Held, ObjectsError> {
    let Some(expected) = &asset.checksum else { return Ok(Held::Equal) };
    let bytes = hex::decode(expected).ok();
    let Some(hash) = bytes.as_deref().and_then(|bytes| Multihash::<64>::from_bytes(bytes).ok()) else {
        return Ok(untold(asset, "is no multihash, so that it cannot be held against what landed"));
    };
    // <https://github.com/multiformats/multicodec/blob/master/table.csv>
    let (name, mut hasher): (&str, Box<dyn DynDigest + Send>) = match hash.code() {
        0xd5 => ("MD5", Box::new(md5::Md5::default())),
        0x11 => ("SHA1", Box::new(sha1::Sha1::default())),
        0x12 => ("SHA256", Box::new(sha2::Sha256::default())),
        0x13 => ("SHA512", Box::new(sha2::Sha512::default())),
        _ => return Ok(untold(asset, "is of a kind that Landfall does not compute (MD5, SHA-1, SHA-256, SHA-512)")),
    };
    let known = info.checksum.as_ref().filter(|checksum| checksum.algorithm == name);
    let known = known.and_then(bytes_of);
    let is_md5 = name == "MD5" && info.etag == hex::encode(hash.digest());
    if is_md5 || known.as_deref() == Some(hash.digest()) {
        return Ok(Held::Equal);
    }
    let found = match known {
        Some(known) => known,
        None if info.size > read_bytes_max => {
            return Ok(untold(asset, "belongs to an object that is too large to be read for it"));
        }
        None => {
            for bytes in ranges(info.size, READ_BYTES) {
                hasher.update(&objects.range(Source { object, etag: &info.etag }, bytes).await?);
            }
            hasher.finalize().to_vec()
        }
    };
    if found == hash.digest() {
        return Ok(Held::Equal);
    }
    let found = Multihash::<64>::wrap(hash.code(), &found).map(|found| hex::encode(found.to_bytes()));
    Ok(unequal(asset, object, "file:checksum", expected, &found.unwrap_or_default()))
}

/// The bytes of a store's checksum.
pub(crate) fn bytes_of(checksum: &Checksum) -> Option<Vec<u8>> {
    STANDARD.decode(&checksum.value).ok()
}

fn pointer(asset: &Asset, member: &str) -> String {
    let name = asset.name.replace('~', "~0").replace('/', "~1");
    format!("/assets/{name}/{member}")
}

fn unequal(asset: &Asset, object: &ObjectRef, member: &str, expected: &str, found: &str) -> Held {
    let message = format!("{member} says {expected}, and {object} has {found}");
    let mut problem = Problem::new(codes::ROUTE_ASSET_UNEQUAL, pointer(asset, member), message);
    problem.expected = Some(expected.chars().take(200).collect());
    problem.value = Some(found.to_owned());
    Held::Unequal(Box::new(problem))
}

fn untold(asset: &Asset, why: &str) -> Held {
    let message = format!("file:checksum {why}");
    let mut problem = Problem::new(codes::ROUTE_ASSET_UNEQUAL, pointer(asset, "file:checksum"), message);
    problem.severity = landfall_events::Severity::Warning;
    Held::Untold(Box::new(problem))
}
