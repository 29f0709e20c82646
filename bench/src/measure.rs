//! The system's own counters, and figures out of samples.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;

/// CPU seconds that a process has used, its threads included, those that have ended too: by the scheduler's clock, which
/// counts in nanoseconds where `/proc/PID/stat` counts in hundredths of a second.
#[allow(unsafe_code, reason = "clock_getcpuclockid(3) and clock_gettime(2)")]
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let pid = libc::pid_t::try_from(pid)?;
    // SAFETY: both calls write to the variables that they are given, which outlive them, and to nothing else.
    let failed = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if failed != 0 {
        return Err(std::io::Error::from_raw_os_error(failed).into());
    }
    // SAFETY: as above.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// The processes that a process has started and that run, the oldest first.
pub fn children(parent: u32) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        if number(1) == Some(u64::from(parent)) {
            found.extend(number(19).map(|start| (start, pid)));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, pid)| pid).collect())
}

/// A line of `/proc/PID/status` such as `VmRSS`, in bytes.
pub fn memory_bytes(pid: u32, key: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .ok_or_else(|| format!("no {key} in /proc/PID/status"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The value at a quantile of samples, by nearest rank; zero when there are none.
pub fn quantile(samples: &mut [Duration], quantile: f64) -> Duration {
    samples.sort_unstable();
    let rank = ((samples.len() as f64 * quantile).ceil() as usize).clamp(1, samples.len().max(1));
    samples.get(rank - 1).copied().unwrap_or_default()
}

/// The peer of the ingest figure: one thread that appends to one growing file, with one fdatasync every 50 ms. Gives
/// bytes a second over `time`, the last sync included, and the CPU seconds of a GB.
pub fn sequential_writer(folder: &Path, time: Duration, noise: &[u8]) -> Result<(f64, f64), Failure> {
    const SYNC_EVERY: Duration = Duration::from_millis(50);
    let path = folder.join("sequential-writer");
    let mut file = std::fs::File::create(&path)?;
    let cpu_before = cpu_seconds(std::process::id())?;
    let start = Instant::now();
    let (mut written, mut synced) = (0_u64, start);
    while start.elapsed() < time {
        file.write_all(noise)?;
        written += noise.len() as u64;
        if synced.elapsed() >= SYNC_EVERY {
            file.sync_data()?;
            synced = Instant::now();
        }
    }
    file.sync_data()?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(std::process::id())? - cpu_before;
    drop(file);
    std::fs::remove_file(&path)?;
    let gigabytes = written as f64 / 1e9;
    Ok((written as f64 / seconds, cpu / gigabytes))
}

/// Megabytes of bytes, for printing.
pub fn mb(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Mebibytes of bytes, for printing.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Milliseconds, for printing.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The middle one of some values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Gives the pages of every file below back to the system, so that what is read next comes from the disk.
#[allow(unsafe_code, reason = "posix_fadvise(2) has no safe form in std")]
pub fn evict(folder: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            evict(&path)?;
        } else if let Ok(file) = std::fs::File::open(&path) {
            // A page that is not written yet would stay.
            file.sync_data()?;
            // SAFETY: the descriptor is open for as long as the call.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
    }
    Ok(())
}

/// Bytes of a folder on the disk.
pub fn size_of(folder: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += match facts.is_dir() {
            true => size_of(&entry.path())?,
            false => facts.blocks() * 512,
        };
    }
    Ok(bytes)
}
