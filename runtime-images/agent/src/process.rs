//! Starting, stopping and reaping processes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use davit_link::Stream;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out_of_memory: bool,
}

/// The processes of this container, as far as anyone cares about them one by one.
pub(crate) struct Processes {
    /// The one whose end is the function's end.
    main: Cell<Option<Pid>>,
    /// Open since before the agent made itself unreadable; the kernel checks rights at opening.
    oom_score: RefCell<Option<File>>,
    oom_kills_seen: Cell<u64>,
}

impl Processes {
    /// To be called before [`hide`].
    pub(crate) fn new() -> Self {
        Self {
            main: Cell::new(None),
            oom_score: RefCell::new(OpenOptions::new().write(true).open("/proc/self/oom_score_adj").ok()),
            oom_kills_seen: Cell::new(crate::oom::kills()),
        }
    }

    /// Starts the main process and gives its output.
    pub(crate) fn start(
        &self,
        command: &[String],
        env: &BTreeMap<String, String>,
        folder: &str,
    ) -> io::Result<[(Stream, OwnedFd); 2]> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(env).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Children inherit the score, so the kernel takes them first; coming back down is allowed
        // because only a privileged process would have moved the floor.
        self.set_oom_score(b"1000");
        let child = command.spawn();
        self.set_oom_score(b"0");
        let mut child = child?;
        self.main.set(Some(Pid::from_child(&child)));
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        Ok([(Stream::Stdout, out.into()), (Stream::Stderr, err.into())])
    }

    /// From now on nobody's end matters, until the next start.
    pub(crate) fn forget_main(&self) {
        self.main.set(None);
    }

    /// Whether there is a main process.
    pub(crate) fn has_main(&self) -> bool {
        self.main.get().is_some()
    }

    /// Reaps everybody who has ended; how the main process ended, if it did.
    pub(crate) fn reap(&self) -> Option<Ended> {
        let mut main_ended = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == self.main.get() && (status.exited() || status.signaled()) {
                self.main.set(None);
                main_ended = Some(self.ended(status));
            }
        }
        main_ended
    }

    fn ended(&self, status: WaitStatus) -> Ended {
        // A runtime whose worker was killed may end politely; the count tells the truth.
        let kills = crate::oom::kills();
        let out_of_memory = kills > self.oom_kills_seen.replace(kills);
        Ended { code: status.exit_status(), signal: status.terminating_signal(), out_of_memory }
    }

    fn set_oom_score(&self, score: &[u8]) {
        if let Some(file) = &*self.oom_score.borrow() {
            let _ = file.write_at(score, 0);
        }
    }
}

/// Keeps the function's processes, which have our user, from reading or tracing the agent.
pub(crate) fn hide() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Signals every process of the container except the agent.
pub(crate) fn signal_all(signal: Signal) {
    // Outside a PID namespace of our own this would be every process of the machine.
    if rustix::process::getpid().is_init() {
        // "The group of process 1" is how the system call spells "everybody".
        let _ = rustix::process::kill_process_group(Pid::INIT, signal);
    }
}
