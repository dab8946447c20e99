use jiff::civil::date;

use super::*;

const A: &str = "
MAP:
  NODES:
    GEO:
      mro: geo-mro
      mro/hirise/: geo-hirise
      default: geo-rest
    IMG: {cassini: img-cassini}
";

const B: &str = "
MAP:
  NODES:
    ATM:
      default: {bucket: {name: atm-default}}
      paths:
        - {prefix: juno/level3, bucket: {name: atm-juno-l3, storage_class: GLACIER_IR}}
        - {prefix: juno, bucket: {name: atm-juno}}
";

const C: &str = "
BUCKET_MAP:
  NODES:
    SBN:
      buckets: {staging: {name: sbn-staging}, archive: {name: sbn-archive, storage_class: GLACIER}}
      paths:
        - {prefix: 'manifests/*', bucket: {name: sbn-manifests}}
        - {prefix: neo, bucket: {name: sbn-neo}}
        - {prefix: '*/browse/*.png', bucket: {name: sbn-browse}}
        - {prefix: 'run[0-9]/', bucket: {name: sbn-runs}}
";

const OURS: &str = "
BUCKET_MAP:
  NODES:
    DESTINE:
      default: {bucket: {name: pool}}
      paths:
        - collection: EO.X
          bucket: {name: pool-x, storage_class: STANDARD_IA}
          key: '{collection}/{year}/{month}/{day}/{item}/{filename}'
          tags: {project: x}
        - {collection: 'EO.Y.*', prefix: y/, bucket: {name: pool-y}}
        - {prefix: y/, bucket: {name: pool-y-rest}}
";

#[track_caller]
fn check(yaml: &str, provider: &str, path: &str, expected: &str) {
    let map = BucketMap::parse(yaml, &["landing"]).unwrap();
    let found = map.target(provider, path, None).map_or_else(|why| why.to_string(), |target| target.bucket);
    assert_eq!(found, expected, "{provider} {path}");
}

#[test]
fn the_longest_prefix_wins_at_a_boundary_in_generation_a() {
    check(A, "geo", "mro/ctx/a.img", "geo-mro");
    check(A, "GEO", "mro/hirise/a.img", "geo-hirise");
    check(A, "Geo", "mro", "geo-mro");
    check(A, "geo", "mrox/a.img", "geo-rest");
    check(A, "img", "cassini/a.img", "img-cassini");
    check(
        A,
        "img",
        "voyager/a",
        "the bucket map has no rule for \"voyager/a\" of \"img\" and no default for it; it has cassini",
    );
    check(A, "ppi", "x", "the bucket map has no provider \"ppi\"; it has geo, img");
}

#[test]
fn the_first_hit_in_file_order_wins_in_generations_b_and_c() {
    check(B, "atm", "juno/level3/x", "atm-juno-l3");
    check(B, "atm", "junoesque/x", "atm-juno");
    check(B, "atm", "galileo/x", "atm-default");
    check(C, "sbn", "manifests/m", "sbn-manifests");
    check(C, "sbn", "manifests", "sbn-staging");
    check(C, "sbn", "Manifests/m", "sbn-staging");
    check(C, "sbn", "m/browse/a/b.png", "sbn-browse");
    check(C, "sbn", "neo/browse/b.png", "sbn-neo");
    check(C, "sbn", "run7/", "sbn-runs");
    check(C, "sbn", "run7/f", "sbn-staging");
    check(C, "sbn", "run[0-9]/f", "sbn-runs");
}

#[test]
fn a_key_is_the_provider_and_the_path_unless_a_template_says_otherwise() {
    let map = BucketMap::parse(C, &[]).unwrap();
    assert_eq!(map.target("SBN", "a/b c+ü", None).unwrap().key, "sbn/a/b c+ü");

    let map = BucketMap::parse(OURS, &[]).unwrap();
    let facts = Facts { collection: Some("EO.X"), item: Some("i"), date: Some(date(2024, 5, 7)) };
    let target = map.target("destine", "d/data/a.tif", Some(&facts)).unwrap();
    assert_eq!((target.bucket.as_str(), target.key.as_str()), ("pool-x", "EO.X/2024/05/07/i/a.tif"));
    assert_eq!((target.storage_class, target.tags["project"].as_str()), (Some(StorageClass::StandardIa), "x"));
    // A collection has no item and no date.
    let of_collection = Facts { collection: Some("EO.X"), ..Facts::default() };
    let target = map.target("destine", "d/metadata/collection.json", Some(&of_collection)).unwrap();
    assert_eq!((target.bucket.as_str(), target.key.as_str()), ("pool-x", "destine/d/metadata/collection.json"));
}

#[test]
fn what_a_rule_for_a_collection_may_take_alone_waits_for_its_item() {
    let map = BucketMap::parse(OURS, &[]).unwrap();
    let of = |collection| Facts { collection: Some(collection), ..Facts::default() };
    let bucket = |path: &str, facts: Option<&Facts<'_>>| map.target("destine", path, facts).map(|target| target.bucket);
    assert_eq!(bucket("y/a", Some(&of("EO.Y.2"))).as_deref(), Ok("pool-y"));
    assert_eq!(bucket("y/a", Some(&of("EO.Z"))).as_deref(), Ok("pool-y-rest"));
    assert_eq!(bucket("z/a", Some(&of("EO.Y.2"))).as_deref(), Ok("pool"));
    assert!(matches!(bucket("y/a", None), Err(Unmapped::NeedsItem { line: 7, .. })));
}

#[test]
fn a_key_never_leads_out_of_its_place() {
    let map = BucketMap::parse(OURS, &[]).unwrap();
    let check = |collection, item, path: &str| {
        let facts = Facts { collection: Some(collection), item: Some(item), date: Some(date(2024, 5, 7)) };
        let target = map.target("destine", path, Some(&facts));
        assert!(matches!(target, Err(Unmapped::Escape { .. })), "{target:?}");
    };
    check("EO.X", "../x", "a.tif");
    check("EO.X", "..", "a.tif");
    check("EO.X", "i", "a/..");
    check("EO.Z", "i", "../x");
    check("EO.Z", "i", "a/./x");
}

#[test]
fn an_explanation_names_what_was_tried() {
    let map = BucketMap::parse(C, &[]).unwrap();
    let explained = map.explain("sbn", "x/browse/a.png", None);
    assert_eq!(explained.rule.map(|rule| rule.place.line), Some(9));
    let tried: Vec<_> = explained.tried.iter().map(|rule| rule.to_string()).collect();
    assert_eq!(tried, ["manifests/*", "neo"]);
    assert_eq!(map.explain("sbn", "x", None).tried.len(), 4);

    let map = BucketMap::parse(A, &[]).unwrap();
    let explained = map.explain("geo", "mro/ctx", None);
    assert_eq!(explained.tried.iter().map(|rule| rule.to_string()).collect::<Vec<_>>(), ["mro/hirise/"]);
}

/// Expects findings as `severity code line`.
#[track_caller]
fn check_lint(yaml: &str, expected: &[&str]) {
    let lint = BucketMap::lint(yaml, &["landing"]);
    let word = |finding: &Finding| {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        format!("{severity} {} {}", finding.code, finding.place.line)
    };
    assert_eq!(lint.findings.iter().map(word).collect::<Vec<_>>(), expected, "{lint:#?}");
    assert!(lint.findings.iter().all(|finding| !finding.hint.is_empty() && finding.place.column > 0));
}

/// A map of ours with one provider whose rules are these.
fn ours(rules: &str) -> String {
    format!("BUCKET_MAP:\n  NODES:\n    A:\n      paths:\n{rules}")
}

#[test]
fn a_map_that_cannot_be_read_says_where() {
    check_lint("BUCKET_MAP: [", &["error map.unreadable 1"]);
    check_lint("", &["error map.unreadable 1"]);
    check_lint("OTHER: {}", &["error map.unreadable 1"]);
    check_lint("MAP:\n  NODES:\n    A:\n      default: x\n    A:\n      default: y\n", &["error map.duplicate 5"]);
    check_lint("MAP:\n  NODES:\n    A:\n      - prefix: a\n      default: y\n", &["error map.unreadable 5"]);
    check_lint(&ours("        - {prefix: a/, bukket: {name: abc}}\n"), &["error map.unreadable 5"]);
    check_lint(
        &ours("        - {prefix: a/, bucket: {name: abc, storage_class: FROZEN}}\n"),
        &["error map.unreadable 5"],
    );
    let staging_only = "BUCKET_MAP:\n  NODES:\n    A:\n      buckets:\n        staging:\n          name: abc\n";
    check_lint(staging_only, &["error map.unreadable 5"]);
}

#[test]
fn errors_are_told_all_at_once() {
    check_lint(
        "MAP:\n  NODES:\n    sbn:\n      default: Not_A_Bucket\n    SBN:\n      default: landing\n      a: 1.2.3.4\n      a/: abc\n",
        &[
            "error map.bucket-name 4",
            "error map.duplicate 5",
            "error map.loop 6",
            "error map.bucket-name 7",
            "error map.duplicate 8",
        ],
    );
    check_lint(&ours("        - {prefix: '', bucket: {name: abc}}\n"), &["error map.empty-prefix 5"]);
    check_lint(&ours("        - {bucket: {name: abc}}\n"), &["error map.empty-prefix 5"]);
    check_lint(
        "BUCKET_MAP:\n  NODES:\n    A:\n      buckets: {staging: {name: abc}, archive: {name: landing}}\n      default: {bucket: {name: abc}}\n",
        &["error map.loop 4", "error map.duplicate 5"],
    );
}

#[test]
fn a_template_that_can_collide_or_escape_is_an_error() {
    let check = |key: &str, expected: Option<&str>| {
        let rule = format!("        - {{prefix: a/, bucket: {{name: abc}}, key: '{key}'}}\n");
        let expected: Vec<_> = expected.into_iter().collect();
        let lint = BucketMap::lint(&ours(&rule), &[]);
        let told: Vec<_> = lint.findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(told, expected, "{key}: {lint:#?}");
    };
    check("x/{path}", None);
    check("{collection}/{item}/{filename}", None);
    check("{provider}/{year}/{month}/{day}/{path}", None);
    for bad in [
        "{item}/{filename}",
        "{collection}/{item}",
        "{collection}/{filename}",
        "{year}/{filename}",
        "all",
        "../{path}",
        "/{path}",
        "a//{path}",
        "{path}/",
        "{collection}-{item}-{filename}",
        "{collection}{path}",
        "{item}{filename}/{collection}",
        "{pth}",
        "{path",
        "./{path}",
    ] {
        check(bad, Some("map.template"));
    }
    let shared = "BUCKET_MAP:\n  NODES:\n    A:\n      default: {bucket: {name: abc}, key: '{path}'}\n    B:\n      default: {bucket: {name: abc}}\n";
    check_lint(shared, &["error map.template 4"]);
    check_lint(&shared.replace("'{path}'", "'{provider}/x/{path}'"), &[]);
}

#[test]
fn odd_rules_are_warned_about() {
    check_lint(
        &ours(
            "        - {prefix: neo, bucket: {name: abc}}
        - {prefix: neo/survey/, bucket: {name: abc}}
        - {prefix: 'neo/*.fits', bucket: {name: abc}}
        - {prefix: 'run[0-9]/', bucket: {name: abc}}
        - {prefix: 'a**/*', bucket: {name: abc}}
        - {prefix: '/x/', bucket: {name: abc}}
        - {prefix: 'img*', bucket: {name: abc}}
        - {prefix: 'img1/', bucket: {name: abc}}
        - {prefix: 'z/', collection: C, bucket: {name: abc}}
        - {prefix: 'z/', bucket: {name: abc}}
        - {prefix: 'z/z/', collection: C, bucket: {name: abc}}
",
        ),
        &[
            "warning map.boundary 5",
            "warning map.unreachable 6",
            "warning map.unreachable 7",
            "warning map.glob 8",
            "warning map.glob 9",
            "warning map.glob 10",
            "warning map.glob 11",
            "warning map.unreachable 12",
            "warning map.unreachable 15",
        ],
    );
    check_lint("MAP:\n  NODES:\n    A:\n      'a/*': abc\n", &["warning map.glob 4"]);
}

#[test]
fn the_schema_that_ships_is_that_of_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/bucket-map.schema.json");
    let text = serde_json::to_string_pretty(&BucketMap::schema()).unwrap() + "\n";
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "LANDFALL_BLESS=1 writes it");
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let schema = jsonschema::validator_for(&BucketMap::schema()).unwrap();
    let is_valid = |yaml: &str| schema.is_valid(&serde_saphyr::from_str(yaml).unwrap());
    for good in [A, B, C, OURS] {
        assert!(is_valid(good) && BucketMap::lint(good, &[]).errors().next().is_none(), "{good}");
    }
    for bad in [
        C.replace("storage_class: GLACIER", "storage_class: FROZEN"),
        C.replace(", archive: {name: sbn-archive, storage_class: GLACIER}", ""),
        C.replace("bucket: {name: sbn-neo}", "bukket: {name: sbn-neo}"),
        A.replace("geo-mro", "Geo_Mro"),
        B.replace("prefix: juno,", ""),
    ] {
        assert!(!is_valid(&bad) && BucketMap::lint(&bad, &[]).errors().next().is_some(), "{bad}");
    }
}

#[test]
fn globs_that_are_too_many_to_be_compiled_are_an_error_and_no_panic() {
    let long = "?".repeat(1_000);
    let rules: String =
        (0..2_000).map(|number| format!("        - {{prefix: 'p{number}/{long}', bucket: {{name: abc}}}}\n")).collect();
    check_lint(&ours(&rules), &["error map.glob 3"]);
}

#[test]
fn what_the_field_writes_is_taken() {
    check_lint(
        "BUCKET_MAP:\n  NODES:\n    A:\n      buckets: {staging: {name: abc}, archive: {name: def}}\n      paths:\n",
        &[],
    );
    check_lint(&ours("        - {prefix: '[a9-0]x/*', bucket: {name: abc}}\n"), &[]);
}
