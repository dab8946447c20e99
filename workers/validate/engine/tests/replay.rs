//! Replays the fuzz targets' corpus, and inputs from a fixed generator, on the stable toolchain.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, missing_docs, unreachable_pub)]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 50, "the corpus of {target} has {replayed} inputs");
    // A few thousand more that nobody chose: a linear congruential generator with Knuth's constants.
    let mut state = 1u64;
    for _ in 0..2000 {
        let mut input = Vec::new();
        for _ in 0..64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            input.push((state >> 33) as u8);
        }
        run(&input);
    }
}

#[test]
fn strict_agrees_with_the_plain_schema_engine() {
    replay("differential", bodies::differential);
}

#[test]
fn arbitrary_bytes_are_judged_within_bounds() {
    replay("bytes", bodies::bytes);
}
