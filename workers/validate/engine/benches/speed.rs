//! What judging costs, beside what a plain parse of the same bytes costs, in one run: `make bench`.
//!
//! One thread. Of each document the best of several passes counts, so that a busy machine does not; then the means of
//! the set, and the median of the documents' ratios. Memory is measured in processes of their own.
//! Sets of real documents and the published schemas lie beside the project; without them, what is generated is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landfall_stac::{Judge, Place, Profile, Schemas, Verdict, bundle_files};
use serde_json::{Map, Value, json};

const PASSES: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| arguments.iter().position(|other| other == name).and_then(|at| arguments.get(at + 1));
    if let Some(case) = argument("--alone") {
        return alone(case);
    }
    let read = Instant::now();
    let schemas = schemas();
    println!("{} schemas are read in {:.0} ms", schemas.len(), millis(read.elapsed()));
    let profile = Profile::shipped("ingest").unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };

    println!(
        "\n{:<16} {:>6} {:>8} {:>10} {:>10} {:>7} {:>7}",
        "set", "items", "bytes", "parse µs", "judge µs", "ratio", "median"
    );
    let (mut measured, mut used) = (Map::new(), Vec::new());
    let sets = [
        ("generated", Some(generated())),
        ("mixed-1000", real("items-mixed-1000")),
        ("cdse-351", real("items-cdse-351")),
    ];
    for (name, set) in sets {
        match set {
            Some(set) => {
                measured.insert(name.to_owned(), json!(run(name, &set, &judge, true)));
                if let Some(folder) = argument("--dump") {
                    std::fs::write(Path::new(folder).join(format!("{name}.ndjson")), set.join(&b'\n')).unwrap();
                }
                used.extend(set);
            }
            None => println!("{name:<16} SKIPPED: it is not beside the project"),
        }
    }
    println!("\nhostile: beside a plain parse of the same bytes");
    for (name, text) in hostile() {
        run(name, &[text], &judge, false);
    }
    if let Some(folder) = argument("--dump") {
        std::fs::write(Path::new(folder).join("measured.json"), Value::Object(measured).to_string()).unwrap();
    }

    println!("\nmemory, in a process of its own: more than before, at most");
    let declared: BTreeSet<String> = used.iter().flat_map(|text| extensions(text)).collect();
    let declared = declared.into_iter().collect::<Vec<_>>().join("\n").into_bytes();
    for (case, input) in
        [("schemas", declared), ("polygon-20k", bad_polygon(20_000)), ("polygon-1mb", bad_polygon(26_000))]
    {
        print!("{case:<16} {}", in_a_process_of_its_own(case, &input));
    }
    let started = Instant::now();
    let first = in_a_process_of_its_own("first", &[]);
    println!(
        "\nfrom the start of a process to its first verdict: {:.0} ms, {}",
        millis(started.elapsed()),
        first.trim()
    );
}

fn in_a_process_of_its_own(case: &str, input: &[u8]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--alone", case]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn beside() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures")
}

/// The schemas that `LANDFALL_SCHEMAS` names or that lie beside the project; else none.
fn schemas() -> Schemas {
    let named = std::env::var_os("LANDFALL_SCHEMAS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| beside().join("schemas"));
    let bundle = if path.exists() { bundle_files::read(&path).unwrap() } else { Default::default() };
    Schemas::new(bundle)
}

fn run(name: &str, set: &[Vec<u8>], judge: &Judge<'_>, all_valid: bool) -> f64 {
    for text in set.iter().filter(|_| all_valid) {
        let judgement = judge.judge(text, Place::default());
        assert!(matches!(judgement.verdict, Verdict::Valid(_)), "{name}: {:?}", judgement.findings);
    }
    let (mut parse, mut judged) = (vec![Duration::MAX; set.len()], vec![Duration::MAX; set.len()]);
    for _ in 0..PASSES {
        for (index, text) in set.iter().enumerate() {
            best(&mut parse[index], || drop(black_box(serde_json::from_slice::<Value>(text).unwrap())));
            best(&mut judged[index], || drop(black_box(judge.judge(text, Place::default()))));
        }
    }
    let mean = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
    let ratio = |(one, other): (&Duration, &Duration)| one.as_secs_f64() / other.as_secs_f64();
    let mut ratios: Vec<f64> = judged.iter().zip(&parse).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let bytes: usize = set.iter().map(Vec::len).sum::<usize>() / set.len();
    let (parse, judged) = (mean(&parse), mean(&judged));
    println!(
        "{name:<16} {:>6} {bytes:>8} {parse:>10.1} {judged:>10.1} {:>6.2}x {:>6.2}x",
        set.len(),
        judged / parse,
        ratios[ratios.len() / 2]
    );
    judged
}

fn best(best: &mut Duration, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    *best = start.elapsed().min(*best);
}

fn real(name: &str) -> Option<Vec<Vec<u8>>> {
    let file = std::fs::File::open(beside().join(format!("bench/{name}.ndjson.gz"))).ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(text.lines().map(|line| line.as_bytes().to_vec()).collect())
}

/// Items as satellites' processors write them: a footprint, some bands, links.
fn generated() -> Vec<Vec<u8>> {
    (0..500).map(|number| generated_item(number, 24).to_string().into_bytes()).collect()
}

fn generated_item(number: usize, corners: i32) -> Value {
    let corner = |k: i32| {
        let angle = f64::from(k % corners) * std::f64::consts::TAU / f64::from(corners);
        json!([13.25 + angle.cos(), 48.5 + angle.sin()])
    };
    let ring: Vec<_> = (0..=corners).map(corner).collect();
    let asset = |band: usize| {
        json!({
            "href": format!("https://data.landfall.example/{number}/B{band:02}.tif"), "title": format!("Band {band}"),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data", "reflectance"], "gsd": 10
        })
    };
    let assets: Map<_, _> = (0..14).map(|band| (format!("B{band:02}"), asset(band))).collect();
    let link = |rel: &str| json!({"rel": rel, "href": format!("https://api.landfall.example/{rel}/{number}"), "type": "application/json"});
    let links = ["self", "root", "parent", "collection"].map(link);
    let properties = json!({
        "datetime": "2024-05-17T10:15:00Z", "created": "2024-05-18T00:00:00Z", "platform": "landfall-1",
        "instruments": ["camera"], "constellation": "landfall", "gsd": 10
    });
    json!({
        "type": "Feature", "stac_version": if number.is_multiple_of(2) { "1.0.0" } else { "1.1.0" },
        "id": format!("SCENE_{number:06}"), "collection": "SCENES", "properties": properties, "assets": assets,
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [12.25, 47.5, 14.25, 49.5],
        "links": links
    })
}

fn bad_polygon(corners: i32) -> Vec<u8> {
    let mut item = generated_item(0, corners);
    let ring = item.pointer_mut("/geometry/coordinates/0").and_then(Value::as_array_mut).unwrap();
    *ring.last_mut().unwrap() = json!(["x", "y"]);
    item.to_string().into_bytes()
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let mut flood = generated_item(0, 24);
    flood["stac_extensions"] = (0..1000).map(|n| format!("https://unknown.example/{n}/schema.json")).collect();
    let mut links = generated_item(0, 24);
    links["links"] = (0..5000).map(|n| json!({"rel": n})).collect();
    vec![
        ("1000 extensions", flood.to_string().into_bytes()),
        ("5000 bad links", links.to_string().into_bytes()),
        ("20k corners", bad_polygon(20_000)),
        ("1 MB polygon", bad_polygon(26_000)),
    ]
}

/// Measures one thing in this process, which has done nothing else.
fn alone(case: &str) {
    let profile = Profile::shipped("ingest").unwrap();
    let before = status("VmRSS");
    let schemas = schemas();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    match case {
        "first" => {
            let judgement = judge.judge(&generated()[0], Place::default());
            println!("{} with {} schemas", judgement.verdict.word(), schemas.len());
        }
        "schemas" => {
            let read = megabytes(status("VmRSS") - before);
            let urls: Vec<String> = std::io::stdin().lines().map(Result::unwrap).collect();
            for url in &urls {
                let mut item = generated_item(0, 24);
                item["stac_extensions"] = json!([url]);
                drop(judge.judge(item.to_string().as_bytes(), Place::default()));
            }
            let used = megabytes(status("VmRSS") - before);
            println!(
                "{used:>7.1} MB with the {} compiled that the sets use; {read:.1} MB before, with {} read",
                urls.len(),
                schemas.len()
            );
        }
        _ => {
            let mut polygon = Vec::new();
            std::io::stdin().read_to_end(&mut polygon).unwrap();
            drop(judge.judge(&generated()[0], Place::default()));
            // Forgets the peak so far. <https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html>
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = status("VmRSS");
            let judgement = judge.judge(&polygon, Place::default());
            let after = status("VmHWM");
            assert_eq!(judgement.findings.len(), 1);
            println!(
                "{:>7.1} MB for {:.1} MB of text, at {}",
                megabytes(after.saturating_sub(before)),
                polygon.len() as f64 / 1e6,
                judgement.findings[0].pointer
            );
        }
    }
}

fn extensions(text: &[u8]) -> Vec<String> {
    let item: Value = serde_json::from_slice(text).unwrap();
    let urls = item["stac_extensions"].as_array().into_iter().flatten();
    urls.map(|url| url.as_str().unwrap().to_owned()).collect()
}

fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// A line of `/proc/self/status`, in kilobytes. <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
