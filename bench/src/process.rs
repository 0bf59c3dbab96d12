//! What a process takes: memory and processor time, read from `/proc`.

use std::path::Path;

/// Ticks of a second in `/proc/<pid>/stat`; fixed at 100 for programs on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Resident memory of a process in KiB.
pub(crate) fn resident_kb(pid: u32) -> crate::Result<f64> {
    field(pid, "VmRSS:")
}

fn field(pid: u32, name: &str) -> crate::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The most resident memory that a process has had, in KiB.
pub(crate) fn peak_kb(pid: u32) -> crate::Result<f64> {
    field(pid, "VmHWM:")
}

/// Processor time of a process so far, in seconds, without its children.
pub(crate) fn cpu_seconds(pid: u32) -> crate::Result<f64> {
    Ok(stat(&Path::new("/proc").join(pid.to_string())).ok_or("the process is gone")?.seconds)
}

/// The same of all its living descendants.
pub(crate) fn cpu_seconds_of_children(pid: u32) -> f64 {
    let all: Vec<Stat> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| stat(&entry.path()))
        .collect();
    let mut family = vec![pid];
    let mut seconds = 0.0;
    while let Some(parent) = family.pop() {
        for child in all.iter().filter(|s| s.parent == parent) {
            family.push(child.pid);
            seconds += child.seconds;
        }
    }
    seconds
}

struct Stat {
    pid: u32,
    parent: u32,
    seconds: f64,
}

fn stat(folder: &Path) -> Option<Stat> {
    parse(&std::fs::read_to_string(folder.join("stat")).ok()?)
}

/// `proc(5)`: pid (name) state parent …, with user and system time as fields 14 and 15. The name may hold anything.
fn parse(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let fields: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<f64>().ok();
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        seconds: (number(11)? + number(12)?) / TICKS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read_right() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 9 9 20 0 1 0 5 1 1";
        let stat = parse(text).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.seconds), (42, 7, 2.0));
        assert!(resident_kb(std::process::id()).unwrap() > 100.0);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
