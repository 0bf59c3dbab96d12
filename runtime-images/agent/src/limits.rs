//! What this container may use, as the kernel holds it to now: it may have been given more or less while it waits.

use std::fs;

use davit_link::Limits;

/// Where control groups appear inside the container.
const GROUPS: &str = "/sys/fs/cgroup";

/// The limits; `None` where there are none, or the kernel does not show them.
pub(crate) fn now() -> Option<Limits> {
    limits(|path| fs::read_to_string(format!("{GROUPS}/{path}")).ok())
}

/// Control groups of version 2, or else 1.
fn limits(read: impl Fn(&str) -> Option<String>) -> Option<Limits> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (memory_bytes, quota, period) = match read("memory.max") {
        Some(memory) => {
            let cpu = read("cpu.max")?;
            let (quota, period) = cpu.trim().split_once(' ')?;
            (number(&memory)?, number(quota)?, number(period)?)
        }
        None => {
            let of = |path: &str| number(&read(path)?);
            (of("memory/memory.limit_in_bytes")?, of("cpu/cpu.cfs_quota_us")?, of("cpu/cpu.cfs_period_us")?)
        }
    };
    let cpu_millis = quota.checked_mul(1_000)?.checked_div(period)?;
    Some(Limits { memory_bytes, cpu_millis: u32::try_from(cpu_millis).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Option<Limits> {
        let find = |path: &str| files.iter().find(|(name, _)| *name == path);
        limits(|path| find(path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn both_versions_say_it_and_no_limit_is_none() {
        let wanted = Some(Limits { memory_bytes: 512 << 20, cpu_millis: 1_500 });
        assert_eq!(of(&[("memory.max", "536870912\n"), ("cpu.max", "150000 100000\n")]), wanted);
        let first = |quota: &'static str| {
            of(&[
                ("memory/memory.limit_in_bytes", "536870912\n"),
                ("cpu/cpu.cfs_quota_us", quota),
                ("cpu/cpu.cfs_period_us", "100000\n"),
            ])
        };
        assert_eq!((first("150000\n"), first("-1\n")), (wanted, None));
        assert_eq!(of(&[("memory.max", "max\n"), ("cpu.max", "max 100000\n")]), None);
        assert_eq!(of(&[]), None);
    }
}
