//! A whole Landfall on one machine: ministack, PostgreSQL with pgSTAC, the deployed template and the four workers.
//!
//! Real parts on loopback, started as child processes and stopped with their parent. It refuses to install anything:
//! what is missing is named.

pub mod postgres;
pub mod process;
pub mod stack;
pub mod supervisor;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::output::SetUp;

/// The version of ministack that everything here was measured against.
pub const MINISTACK: &str = "1.5.33";

/// The files and folders of a local deployment.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The state folder, absolute.
    pub state: PathBuf,
    /// The folder with the Python environments.
    pub tools: PathBuf,
}

impl Layout {
    /// The layout for a state folder; `LANDFALL_TOOLS` names the Python environments' folder, else they lie
    /// in `.landfall/tools`.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn new(state: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state).with_context(|| format!("could not make {}", state.display()))?;
        let state = state.canonicalize()?;
        let tools = std::env::var_os("LANDFALL_TOOLS").map_or_else(|| PathBuf::from(".landfall/tools"), PathBuf::from);
        let tools = std::path::absolute(tools)?;
        Ok(Self { state, tools })
    }

    /// The Python environment of ministack.
    #[must_use]
    pub fn ministack(&self) -> PathBuf {
        self.tools.join("ministack/bin/ministack")
    }

    /// The SQL that makes a pgSTAC 0.10.0 of an empty database.
    #[must_use]
    pub fn pgstac_sql(&self) -> Option<PathBuf> {
        let lib = std::fs::read_dir(self.tools.join("stac/lib")).ok()?;
        let path = |python: PathBuf| python.join("site-packages/pypgstac/migrations/pgstac.0.10.0.sql");
        lib.flatten().map(|entry| path(entry.path())).find(|file| file.exists())
    }

    /// Names everything that is missing, all at once.
    ///
    /// # Errors
    /// [`SetUp`].
    pub fn check(&self) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        if !self.ministack().exists() {
            missing.push(format!("ministack {MINISTACK} in {}", self.tools.join("ministack").display()));
        }
        if self.pgstac_sql().is_none() {
            missing.push(format!("pypgstac 0.10.0 in {}", self.tools.join("stac").display()));
        }
        match postgres::binaries() {
            None => missing.push("PostgreSQL's server programs (Debian: postgresql-15)".into()),
            Some(bin) if !postgres::has_postgis(&bin) => {
                missing.push("PostGIS (Debian: postgresql-15-postgis-3)".into())
            }
            Some(_) => {}
        }
        for stage in crate::stages() {
            if let Err(path) = worker(stage) {
                missing.push(format!("the {stage} worker at {}: run `cargo build`", path.display()));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(SetUp(format!("missing, `make setup` installs it:\n  {}", missing.join("\n  "))).into())
    }
}

/// The program of a stage's worker, beside this one; or where it was looked for.
///
/// # Errors
/// The path, where nothing is there.
pub fn worker(stage: &str) -> Result<PathBuf, PathBuf> {
    beside(&format!("landfall-{stage}"))
}

/// A program beside this one.
///
/// # Errors
/// Where it should be, where it is not there.
pub fn beside(name: &str) -> Result<PathBuf, PathBuf> {
    let mut folder =
        std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)).unwrap_or_default();
    // Test programs lie one folder deeper than the workers.
    if folder.file_name().is_some_and(|name| name == "deps") {
        folder.pop();
    }
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(path) }
}

/// The ports of a local deployment: kept over restarts, so that what people wrote down stays right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// ministack's.
    pub aws: u16,
    /// PostgreSQL's.
    pub postgres: u16,
}

impl Ports {
    /// The ports used last where they are free, else any that are.
    ///
    /// # Errors
    /// Where no port is free, or the choice cannot be written down.
    pub fn choose(layout: &Layout) -> anyhow::Result<Self> {
        let file = layout.state.join("ports.json");
        let last = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if let Some(last) = last.filter(|last| free(last.aws) && free(last.postgres)) {
            return Ok(last);
        }
        // Both are held until both are known, so that they differ.
        let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let ports = Self { aws: first.local_addr()?.port(), postgres: second.local_addr()?.port() };
        std::fs::write(file, serde_json::to_string(&ports)?)?;
        Ok(ports)
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// Where it cannot be written.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, path)?;
    Ok(())
}
