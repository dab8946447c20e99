//! Child processes: started in groups of their own, told apart from strangers that got their number later, stopped.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// A process that was started, recognisable after its starter is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What it is, for people.
    pub name: String,
    /// Its number.
    pub pid: i32,
    /// When the kernel started it, in ticks since boot: another process with the same number has another.
    pub ticks: u64,
}

impl Started {
    /// Describes a running process; `None` where it is gone already.
    #[must_use]
    pub fn of(name: &str, pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { name: name.to_owned(), pid, ticks: ticks(pid)? })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        ticks(self.pid) == Some(self.ticks)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end between the look and the signal; then there is nothing to stop.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Stops it: with `first`, and after `patience` by force.
    pub async fn stop(&self, first: Signal, patience: Duration) {
        self.signal(first);
        let deadline = tokio::time::Instant::now() + patience;
        while self.is_running() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.signal(Signal::SIGKILL);
        while self.is_running() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The start time of a process that is not a zombie.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Starts a program with its output appended to a log file, in a process group of its own, so that Ctrl-C in a
/// terminal reaches its parent alone.
///
/// # Errors
/// Where it cannot be started.
pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Child> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    command.spawn().map_err(|error| anyhow::anyhow!("could not start {:?}: {error}", command.as_std().get_program()))
}

/// The last lines of a log, for an error message.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
