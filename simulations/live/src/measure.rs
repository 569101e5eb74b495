//! Measuring: percentiles, sizes after gzip, what a process holds in memory.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Samples of one thing, in order of size.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// At least one sample is needed for the percentiles to mean anything.
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    /// The sample below which `share` of all lie; zero when there is none.
    pub fn at(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Bytes of one gzip stream of `plain`.
pub fn gzip_bytes(plain: &[u8], level: u32) -> u64 {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(level));
    gzip.write_all(plain).and_then(|()| gzip.finish()).expect("a Vec takes everything").len() as u64
}

/// Resident memory of a process in bytes, as the kernel tells it; none when it is gone.
pub fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

/// A duration in milliseconds as people read it.
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => format!("{ms:.2} ms"),
        ..1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_sorted_samples() {
        let samples = Samples::new([5, 1, 4, 2, 3].map(Duration::from_millis).to_vec());
        assert_eq!(samples.at(0.0), Duration::from_millis(1));
        assert_eq!(samples.at(0.5), Duration::from_millis(3));
        assert_eq!(samples.at(1.0), Duration::from_millis(5));
        assert_eq!(Samples::new(Vec::new()).at(0.5), Duration::ZERO);
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(812), "812 B");
        assert_eq!(size(20_452), "20.5 kB");
        assert_eq!(size(1_426_016), "1.43 MB");
        assert_eq!(milliseconds(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(milliseconds(Duration::from_millis(1_500)), "1.50 s");
    }

    #[test]
    fn the_own_process_has_a_size() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
