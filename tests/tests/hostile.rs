//! Documents from strangers make nobody fetch, open or resolve anything: `landfall check`, which judges as the validate
//! stage does, is watched by strace in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// URLs that must never be followed, and paths that must never be opened.
const EXTENSIONS: [&str; 22] = [
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://127.0.0.1/internal",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://localhost:8080/",
    "http://[::1]/",
    "http://[::ffff:169.254.169.254]/",
    "https://user:password@schemas.example/x",
    "gopher://127.0.0.1:70/1",
    "file:///etc/passwd",
    "/etc/passwd",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "jar:file:///etc/passwd!/x",
    "javascript:alert(1)",
    "https://stac-extensions.github.io/../../etc/passwd",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json?x=http://127.0.0.1/",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json#/definitions/fields",
    "https://stac-extensions.github.io.evil.example/eo/v1.1.0/schema.json",
    "https://x.example/\r\nHost: 127.0.0.1",
    "",
];

fn item(extensions: &Value) -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "i", "collection": "C", "geometry": null,
        "properties": {"datetime": "2024-05-17T10:15:00Z"}, "assets": {"a": {"href": "file:///etc/shadow"}},
        "links": [{"rel": "collection", "href": "http://127.0.0.1/c"}, {"rel": "self", "href": "http://169.254.169.254/"}],
        "stac_extensions": extensions
    })
}

/// Hostile documents of our own, and those of the corpus where it lies beside the project.
fn documents(folder: &Path) -> usize {
    let mut count = 0;
    let mut write = |name: &str, text: &[u8]| {
        std::fs::write(folder.join(name), text).unwrap();
        count += 1;
    };
    for (number, url) in EXTENSIONS.iter().enumerate() {
        write(&format!("url-{number}.json"), item(&json!([url])).to_string().as_bytes());
    }
    let flood: Vec<String> = (0..1000).map(|number| format!("http://127.0.0.1:{number}/x")).collect();
    write("flood.json", item(&json!(flood)).to_string().as_bytes());
    let mut reference = item(&json!([]));
    reference["$ref"] = "http://127.0.0.1/schema".into();
    reference["$schema"] = "file:///etc/passwd".into();
    write("reference.json", reference.to_string().as_bytes());
    write("deep.json", "[".repeat(1_000_000).as_bytes());
    write("nul.json", b"\0\0\0\0");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/stac");
    for set in ["policy-ssrf", "robust"] {
        let Ok(entries) = std::fs::read_dir(corpus.join(set)) else {
            eprintln!("SKIPPED: the set {set} is not beside the project");
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            write(&format!("{set}-{}", path.file_name().unwrap().to_string_lossy()), &std::fs::read(&path).unwrap());
        }
    }
    count
}

/// Where the command itself must read: its libraries, what the machine has, and what it was told to read.
fn is_its_own(path: &str, told: &[PathBuf]) -> bool {
    let system = [
        "/lib",
        "/usr/lib",
        "/etc/ld.so",
        "/proc/",
        "/sys/fs/cgroup",
        "/sys/devices/system",
        "/dev/",
        "/etc/localtime",
        "/usr/share/zoneinfo",
        "/usr/local/lib",
    ];
    system.iter().any(|start| path.starts_with(start)) || told.iter().any(|told| Path::new(path).starts_with(told))
}

#[test]
fn nothing_that_a_document_names_is_fetched_or_opened() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (set, state) = (folder.join("set"), folder.join("state"));
    std::fs::create_dir_all(&set).unwrap();
    let count = documents(&set);
    let mirror = folder.join("mirror/schemas.landfall.example");
    std::fs::create_dir_all(&mirror).unwrap();
    std::fs::write(mirror.join("x.json"), "{}").unwrap();
    let trace = folder.join("trace");
    let landfall = landfall::local::worker("validate").unwrap().with_file_name("landfall");

    let traced = |network_of_its_own: bool| {
        let mut command = if network_of_its_own { Command::new("unshare") } else { Command::new("strace") };
        if network_of_its_own {
            command.args(["--map-root-user", "--net", "strace"]);
        }
        command.args(["-f", "-qq", "-e", "trace=%network,open,openat,openat2,execve", "-o"]).arg(&trace).arg(&landfall);
        command.args(["check", "--profile", "strict", "--format", "json", "--schemas"]).arg(folder.join("mirror"));
        command.arg("--state").arg(&state).arg(&set).current_dir(&folder).env_remove("LANDFALL_SCHEMAS");
        command.stdin(Stdio::null()).output()
    };
    // Some sandboxes allow no namespaces, and some no tracing.
    let ran = |output: &std::io::Result<std::process::Output>| {
        output.as_ref().is_ok_and(|output| output.status.code() == Some(1) && !output.stdout.is_empty())
    };
    let mut output = traced(true);
    if !ran(&output) {
        eprintln!("no network namespace here: traced in the one that there is");
        output = traced(false);
    }
    if !ran(&output) {
        eprintln!("SKIPPED: strace cannot trace here: {output:?}");
        return;
    }

    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(told.lines().count(), count, "every file has a line");
    let trace = std::fs::read_to_string(trace).unwrap();
    let own = [set, folder.join("mirror"), state, landfall.parent().unwrap().to_owned()];
    let mut opened = 0;
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let network = ["socket(", "connect(", "sendto(", "sendmsg(", "bind(", "listen("];
        assert!(!network.iter().any(|start| call.starts_with(start)), "{line}");
        if call.starts_with("open") && !line.contains(" = -1 ") {
            let path = line.split('"').nth(1).unwrap_or_default();
            assert!(is_its_own(path, &own), "{line}");
            opened += usize::from(Path::new(path).starts_with(&own[0]));
        }
    }
    assert!(opened >= count, "the trace shows the files that were judged: {opened} of {count}");
    for url in EXTENSIONS.iter().filter(|url| url.starts_with('/')) {
        assert!(!trace.contains(&format!("\"{url}\"")), "{url}");
    }
}
