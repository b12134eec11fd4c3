//! CPU time and memory of a process, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of CPU times in `/proc`: Linux reports hundredths of a second to programs.
const TICK: Duration = Duration::from_millis(10);

/// Returns the CPU time that a process has used so far, in user mode and in the kernel.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks =
        ticks(&stat).with_context(|| format!("/proc/{pid}/stat has an unknown format: {stat}"))?;
    Ok(TICK * ticks)
}

/// Returns the CPU time of a PostgreSQL server so far, of which this is one backend: the time of all
/// its processes, including those that have ended.
pub fn server_time(backend: u32) -> Result<Duration> {
    let format = || format!("/proc/{backend}/stat has an unknown format");
    let server = parent(&read(backend, "stat")?).with_context(format)?;
    let ended = || ended_children_ticks(&read(server, "stat")?).with_context(format);
    loop {
        let (ended_before, running) = (ended()?, running_time(server)?);
        // A child that ended between the two readings would be missing in both.
        if ended()? == ended_before {
            return Ok(TICK * ended_before + running);
        }
    }
}

/// Returns the CPU time of a process and of its running children.
fn running_time(server: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The process may have ended meanwhile.
        let Ok(stat) = read(pid, "stat") else { continue };
        if pid == server || parent(&stat) == Some(server) {
            total += TICK
                * ticks(&stat)
                    .with_context(|| format!("/proc/{pid}/stat has an unknown format"))?;
        }
    }
    Ok(total)
}

/// CPU time so far, and anonymous resident memory in megabytes.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub resident: f64,
}

/// Returns the usage of a process and of all its running descendants.
pub fn tree_usage(root: u32) -> Result<Usage> {
    let mut usage = Usage { cpu: processor_time(root)?, resident: resident(root)? };
    for pid in descendants(root, &parents()?) {
        // The process may have ended meanwhile.
        if let (Ok(cpu), Ok(resident)) = (processor_time(pid), resident(pid)) {
            usage.cpu += cpu;
            usage.resident += resident;
        }
    }
    Ok(usage)
}

/// Returns all processes, each with its parent.
fn parents() -> Result<Vec<(u32, u32)>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = read(pid, "stat").ok().and_then(|stat| parent(&stat)) {
            parents.push((pid, parent));
        }
    }
    Ok(parents)
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == ancestor).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

/// Returns the anonymous resident memory of a process, which excludes its code, in megabytes.
pub fn resident(pid: u32) -> Result<f64> {
    let status = read(pid, "status")?;
    let kilobytes = kilobytes(&status)
        .with_context(|| format!("/proc/{pid}/status has an unknown format: {status}"))?;
    Ok(f64::from(kilobytes) / 1024.0)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let file = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&file)
        .with_context(|| format!("failed to read {file}, which only Linux has"))
}

/// Returns the sum of the fields 14 (`utime`) and 15 (`stime`).
fn ticks(stat: &str) -> Option<u32> {
    sum_of_fields(stat, 14)
}

/// Returns the sum of the fields 16 (`cutime`) and 17 (`cstime`).
fn ended_children_ticks(stat: &str) -> Option<u32> {
    sum_of_fields(stat, 16)
}

/// Returns field 4 (`ppid`).
fn parent(stat: &str) -> Option<u32> {
    fields_from(stat, 4)?.next()?.parse().ok()
}

fn sum_of_fields(stat: &str, first: usize) -> Option<u32> {
    let mut fields = fields_from(stat, first)?;
    let (user, system) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
    Some(user + system)
}

/// Returns the fields of `/proc/PID/stat` from this number on, which is at least 3. Field 2 is the
/// program's name in parentheses, which may contain spaces and parentheses.
fn fields_from(stat: &str, first: usize) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().skip(first - 3))
}

fn kilobytes(status: &str) -> Option<u32> {
    let size = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    size.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_name_with_parentheses_does_not_shift_fields() {
        let stat = "7 (a ) 9 (b) S 1 7 7 0 -1 4194560 1083 0 0 0 250 50 0 0 20 0 5 0 12345";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(parent(stat), Some(1));
        assert_eq!(
            ended_children_ticks("7 (a) S 1 7 7 0 -1 4194560 1083 0 0 0 250 50 3 4"),
            Some(7)
        );
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(kilobytes("VmRSS:\t  9000 kB\nRssAnon:\t    2048 kB\n"), Some(2048));
    }

    #[test]
    fn children_of_children_are_descendants() {
        let parents = [(2, 1), (5, 4), (4, 2), (3, 1), (9, 8)];
        assert_eq!(descendants(2, &parents), [4, 5]);
        assert_eq!(descendants(3, &parents), [0_u32; 0]);
    }

    #[test]
    fn usage_of_this_process_is_read() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 0.1);
        assert!(processor_time(pid).unwrap() < Duration::from_hours(1));
    }
}
