//! Refused tokens per address: a bucket that drains with each one and fills again over a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at once. Beyond it the full buckets are forgotten, then all of them.
const ADDRESSES_MAX: usize = 10_000;

/// How much an address has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Seconds until another attempt is possible; 0 when it is now.
    pub(super) retry_after: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Who failed how often lately.
#[derive(Debug)]
pub(super) struct Failures {
    per_minute: u32,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Failures {
    /// As many failures as `per_minute` at once, and that many per minute.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: Mutex::new(HashMap::new()) }
    }

    /// What the address has left.
    pub(super) fn allowance(&self, address: IpAddr, now: Instant) -> Allowance {
        let buckets = self.buckets.lock().expect("nothing panics while it holds this lock");
        let tokens = buckets
            .get(&prefix(address))
            .map_or_else(|| f64::from(self.per_minute), |b| self.filled(*b, now));
        self.answer(tokens)
    }

    /// Notes a failure; what is left after it.
    pub(super) fn record(&self, address: IpAddr, now: Instant) -> Allowance {
        let mut buckets = self.buckets.lock().expect("nothing panics while it holds this lock");
        if buckets.len() >= ADDRESSES_MAX {
            let full = f64::from(self.per_minute);
            buckets.retain(|_, bucket| self.filled(*bucket, now) < full);
            if buckets.len() >= ADDRESSES_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets
            .entry(prefix(address))
            .or_insert_with(|| Bucket { tokens: f64::from(self.per_minute), at: now });
        let tokens = (self.filled(*bucket, now) - 1.0).max(0.0);
        *bucket = Bucket { tokens, at: now };
        self.answer(tokens)
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64() / WINDOW.as_secs_f64();
        (bucket.tokens + passed * f64::from(self.per_minute)).min(f64::from(self.per_minute))
    }

    fn answer(&self, tokens: f64) -> Allowance {
        let missing = (1.0 - tokens).max(0.0) / f64::from(self.per_minute);
        let wait = WINDOW.mul_f64(missing);
        Allowance {
            limit: self.per_minute,
            remaining: tokens as u32,
            retry_after: if tokens >= 1.0 { 0 } else { wait.as_secs_f64().ceil().max(1.0) as u64 },
        }
    }
}

/// A host with IPv6 owns at least a /64, so that is what counts.
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_its_failures_and_others_do_not() {
        let failures = Failures::new(3);
        let start = Instant::now();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for left in [2, 1, 0] {
            assert_eq!(failures.record(a, start).remaining, left);
        }
        assert_eq!(failures.allowance(a, start), Allowance { limit: 3, remaining: 0, retry_after: 20 });
        assert_eq!(failures.allowance(b, start).remaining, 3);
        assert_eq!(failures.allowance(a, start + Duration::from_secs(20)).remaining, 1);
        assert_eq!(failures.allowance(a, start + Duration::from_secs(600)).remaining, 3);
    }

    #[test]
    fn addresses_of_one_v6_network_count_together() {
        let failures = Failures::new(1);
        let now = Instant::now();
        failures.record("2001:db8::1".parse().unwrap(), now);
        assert_eq!(failures.allowance("2001:db8::2".parse().unwrap(), now).remaining, 0);
        assert_eq!(failures.allowance("2001:db8:0:1::2".parse().unwrap(), now).remaining, 1);
        failures.record("::ffff:10.0.0.1".parse().unwrap(), now);
        assert_eq!(failures.allowance("10.0.0.1".parse().unwrap(), now).remaining, 0);
    }
}
