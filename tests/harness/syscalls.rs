//! Which system calls threads of a process make, by `strace`.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;
use crate::process::state_dir;

/// Threads that are being watched. Needs root, and `scripts/setup-packages.sh strace`.
#[derive(Debug)]
pub struct SystemCalls {
    strace: Child,
    dir: tempfile::TempDir,
}

impl SystemCalls {
    /// Watches all threads of a process whose names begin so.
    pub async fn watch(process: Pid, names: &str) -> Self {
        let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
        let threads = fs::read_dir(&tasks).expect("the process runs").flatten().filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            name.starts_with(names).then(|| task.file_name().to_string_lossy().into_owned())
        });
        let threads: Vec<String> = threads.collect();
        assert!(!threads.is_empty(), "no thread of {process:?} is called {names}");
        let dir = state_dir();
        let log = fs::File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new("strace");
        command.args(["--summary-only", "--output"]).arg(dir.path().join("counts"));
        for thread in &threads {
            command.args(["--attach", thread]);
        }
        let strace = command.stdin(Stdio::null()).stderr(log).spawn();
        let strace = strace.expect("strace is there: scripts/setup-packages.sh strace");
        let watched = Self { strace, dir };
        eventually("strace to watch all threads", async || {
            let said = watched.said();
            if said.matches(" attached").count() >= threads.len() { Ok(()) } else { Err(said) }
        })
        .await;
        watched
    }

    /// Stops watching. How often each system call was made, by its name.
    pub fn stop(mut self) -> BTreeMap<String, usize> {
        kill_process(Pid::from_child(&self.strace), Signal::INT).expect("strace runs");
        self.strace.wait().expect("strace ends");
        let table = fs::read_to_string(self.dir.path().join("counts")).expect("its table");
        // % time, seconds, usecs/call, calls, errors if there were any, name.
        let rows = table.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.last().filter(|name| **name != "total")?;
            Some((name.to_owned(), fields.get(3)?.parse().ok()?))
        });
        let counts: BTreeMap<String, usize> = rows.collect();
        assert!(!counts.is_empty(), "strace counted nothing: {table}{}", self.said());
        counts
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for SystemCalls {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
