//! The crate graph is the architecture: `events ◄ shared ◄ workers/* ◄ cli, tests`, and nothing sideways.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

const WORKERS: [&str; 4] = ["landfall-validate", "landfall-route", "landfall-load", "landfall-notify"];

fn metadata() -> Metadata {
    // Only this platform's crates are on this machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), platform];
    MetadataCommand::new().other_options(options).exec().expect("cargo can read the workspace")
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    metadata.packages.iter().find(|package| package.name.as_str() == name).expect("it is in the workspace")
}

fn direct(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str()).collect()
}

/// Everything that is built for a package, not counting its tests.
fn tree(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("the graph is resolved");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<&PackageId, &str> = metadata.packages.iter().map(|one| (&one.id, one.name.as_str())).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package(metadata, name).id];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let built = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if built && seen.insert(names[&dependency.pkg].to_owned()) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen
}

#[test]
fn no_worker_depends_on_a_cloud_a_database_or_another_worker() {
    let metadata = metadata();
    for worker in WORKERS {
        for dependency in direct(package(&metadata, worker)) {
            let forbidden =
                dependency.starts_with("aws") || dependency.contains("postgres") || dependency.contains("lambda");
            assert!(!forbidden, "{worker} depends on {dependency}: that is shared's to know");
            assert!(!WORKERS.contains(&dependency), "{worker} depends on {dependency}: nothing goes sideways");
        }
    }
}

#[test]
fn events_and_shared_know_nobody_above_them() {
    let metadata = metadata();
    let ours = |name: &&str| name.starts_with("landfall");
    assert_eq!(direct(package(&metadata, "landfall-events")).into_iter().find(ours), None);
    let of_shared: Vec<_> =
        direct(package(&metadata, "landfall-shared")).into_iter().filter(|name| ours(name)).collect();
    assert_eq!(of_shared, ["landfall-events"]);
}

#[test]
fn the_validation_engine_has_no_network_code() {
    let tree = tree(&metadata(), "landfall-stac");
    assert!(tree.contains("jsonschema"), "the tree is read: {tree:?}");
    let network =
        ["tokio", "hyper", "reqwest", "ureq", "rustls", "native-tls", "openssl", "curl", "socket2", "mio", "h2"];
    for name in network {
        assert!(!tree.contains(name), "the engine's tree holds {name}");
    }
    assert!(!tree.iter().any(|name| name.starts_with("aws") || name.contains("postgres")));
}

#[test]
fn no_worker_can_fetch_a_url() {
    let metadata = metadata();
    for worker in WORKERS {
        let tree = tree(&metadata, worker);
        assert!(!tree.contains("reqwest") && !tree.contains("ureq"), "{worker} could fetch what a document names");
    }
}

#[test]
fn events_are_plain_data() {
    let tree = tree(&metadata(), "landfall-events");
    for name in ["tokio", "hyper", "rustls", "socket2", "tracing"] {
        assert!(!tree.contains(name), "the events' tree holds {name}");
    }
}
