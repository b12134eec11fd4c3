//! What a process uses of the machine, as Linux tells it.

use std::time::Duration;

use anyhow::{Context, Result};

/// How long one unit of processor time is: Linux tells programs of hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The processor time it has used so far, its own and the system's on its behalf.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = ticks(&stat).with_context(|| format!("/proc/{pid}/stat reads {stat}"))?;
    Ok(TICK * ticks)
}

/// The memory it holds beside its own code, in megabytes.
pub fn resident(pid: u32) -> Result<f64> {
    let status = read(pid, "status")?;
    let kilobytes =
        kilobytes(&status).with_context(|| format!("/proc/{pid}/status reads {status}"))?;
    Ok(f64::from(kilobytes) / 1024.0)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let file = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {file}: this is measured on Linux alone"))
}

/// The fields `utime` and `stime`. What follows the name, which is in brackets and may hold
/// anything, begins with the third.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
    Some(user + system)
}

fn kilobytes(status: &str) -> Option<u32> {
    let held = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    held.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_name_is() {
        let stat = "7 (a ) 9 (b) S 1 7 7 0 -1 4194560 1083 0 0 0 250 50 0 0 20 0 5 0 12345";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(kilobytes("VmRSS:\t  9000 kB\nRssAnon:\t    2048 kB\n"), Some(2048));
    }

    #[test]
    fn a_process_of_ours_is_read() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 0.1);
        assert!(processor_time(pid).unwrap() < Duration::from_hours(1));
    }
}
