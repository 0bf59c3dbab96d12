//! Whether the kernel killed somebody here for memory.

use std::fs;

/// Control group version 1, then 2, as they appear inside the container.
const COUNTERS: [&str; 3] = [
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.events",
];

/// Kills for memory in this container so far.
pub(crate) fn kills() -> u64 {
    COUNTERS.iter().find_map(|path| parse(&fs::read_to_string(path).ok()?)).unwrap_or(0)
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_versions_of_the_file_are_understood() {
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse("low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse(""), None);
    }
}
