//! What judging costs, beside what a plain parse of the same bytes costs, in one run: `make bench`.
//!
//! One thread; of each document the best of several passes, so that a busy machine does not count; then the sums
//! and the medians of the set. `--json FILE` names sets as ndjson, else a set is generated.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landfall_stac::{Judge, Place, Profile, Schemas, Verdict, bundle_files};

const PASSES: usize = 9;

fn main() {
    let started = Instant::now();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures");
    let schemas = shared.join("schemas");
    let schemas = if schemas.is_dir() {
        Schemas::new(&bundle_files::read(&schemas).unwrap()).unwrap()
    } else {
        Schemas::new(&Default::default()).unwrap()
    };
    println!("{} schemas registered after {:.0} ms", schemas.len(), started.elapsed().as_secs_f64() * 1e3);
    let profile = Profile::shipped("ingest").unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };

    println!(
        "{:<14} {:>6} {:>9} {:>12} {:>12} {:>7} {:>7}",
        "set", "items", "bytes", "parse µs", "judge µs", "ratio", "median"
    );
    run("generated", &generated(), &judge);
    for (name, file) in [("mixed-1000", "items-mixed-1000"), ("cdse-351", "items-cdse-351")] {
        match lines(&shared.join(format!("bench/{file}.ndjson.gz"))) {
            Some(set) => {
                run(name, &set, &judge);
                parts(&set, &judge)
            }
            None => println!("{name:<14} SKIPPED: not beside the project"),
        }
    }
}

fn run(name: &str, set: &[Vec<u8>], judge: &Judge<'_>) {
    let valid =
        set.iter().filter(|text| matches!(judge.judge(text, Place::default()).verdict, Verdict::Valid(_))).count();
    assert_eq!(valid, set.len(), "{name}: every document is valid");
    let (mut parse, mut judged) = (vec![Duration::MAX; set.len()], vec![Duration::MAX; set.len()]);
    for _ in 0..PASSES {
        for (index, text) in set.iter().enumerate() {
            best(&mut parse[index], || drop(black_box(serde_json::from_slice::<serde_json::Value>(text).unwrap())));
            best(&mut judged[index], || drop(black_box(judge.judge(text, Place::default()))));
        }
    }
    let mean = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
    let mut ratios: Vec<f64> =
        judged.iter().zip(&parse).map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let bytes: usize = set.iter().map(Vec::len).sum::<usize>() / set.len();
    println!(
        "{name:<14} {:>6} {bytes:>9} {:>12.1} {:>12.1} {:>6.2}x {:>6.2}x",
        set.len(),
        mean(&parse),
        mean(&judged),
        mean(&judged) / mean(&parse),
        ratios[ratios.len() / 2]
    );
}

#[allow(dead_code)]
fn parts(set: &[Vec<u8>], judge: &Judge<'_>) {
    let core = Profile::shipped("core").unwrap();
    let core = Judge { profile: &core, ..*judge };
    let (mut dom, mut c) = (vec![Duration::MAX; set.len()], vec![Duration::MAX; set.len()]);
    for _ in 0..PASSES {
        for (index, text) in set.iter().enumerate() {
            best(&mut dom[index], || drop(black_box(landfall_stac::Document::read(text).unwrap())));
            best(&mut c[index], || drop(black_box(core.judge(text, Place::default()))));
        }
    }
    let mean = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
    println!("    dom {:.1} core {:.1}", mean(&dom), mean(&c));
}

fn best(best: &mut Duration, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    *best = start.elapsed().min(*best);
}

fn lines(path: &PathBuf) -> Option<Vec<Vec<u8>>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).ok()?).read_to_string(&mut text).unwrap();
    Some(text.lines().map(|line| line.as_bytes().to_vec()).collect())
}

/// Items as satellites' processors write them: a footprint, some bands, links.
fn generated() -> Vec<Vec<u8>> {
    let item = |n: usize| {
        let ring: Vec<_> = (0..=24)
            .map(|k| {
                let angle = f64::from(k % 24) * std::f64::consts::TAU / 24.0;
                serde_json::json!([13.25 + angle.cos(), 48.5 + angle.sin()])
            })
            .collect();
        let assets: serde_json::Map<_, _> = (0..14).map(|band| (format!("B{band:02}"), serde_json::json!({
            "href": format!("https://data.landfall.example/{n}/B{band:02}.tif"), "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": format!("Band {band}"), "roles": ["data", "reflectance"], "gsd": 10
        }))).collect();
        let links: Vec<_> = ["self", "root", "parent", "collection"].map(|rel| serde_json::json!({"rel": rel, "href": format!("https://api.landfall.example/{rel}/{n}"), "type": "application/json"})).to_vec();
        serde_json::json!({
            "type": "Feature", "stac_version": if n.is_multiple_of(2) { "1.0.0" } else { "1.1.0" }, "id": format!("SCENE_{n:06}"), "collection": "SCENES",
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [12.25, 47.5, 14.25, 49.5],
            "properties": {"datetime": "2024-05-17T10:15:00Z", "created": "2024-05-18T00:00:00Z", "platform": "landfall-1", "instruments": ["camera"], "constellation": "landfall", "gsd": 10},
            "links": links, "assets": assets
        }).to_string().into_bytes()
    };
    (0..500).map(item).collect()
}
