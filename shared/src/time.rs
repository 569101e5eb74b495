//! Instants and wall-clock times as numbers. Nothing here asks a clock.

use std::ops::{Add, Sub};

/// Milliseconds on a clock that never goes back and never jumps while the program runs: the boot-time clock in the
/// daemons, a counter in the simulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Add<u64> for Instant {
    type Output = Self;

    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Sub for Instant {
    /// Milliseconds.
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// RFC 3339 in UTC, to the millisecond: `2026-11-23T06:00:00.000Z`.
    pub fn to_rfc3339(self) -> String {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (seconds, ms) = (ms / 1_000, ms % 1_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }

    /// The inverse, also with another offset than `Z` and any number of decimals; none for times before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let end = time.find(['Z', 'z', '+', '-'])?;
        let (clock, offset) = time.split_at(end);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        let last_day = (year >= 1970).then(|| days_in(year, month)).flatten()?;
        let fits = (1..=last_day).contains(&day) && hour < 24 && minute < 60 && second <= 60;
        let decimal = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
        if !fits || !decimal {
            return None;
        }
        let ms: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        let (ahead, offset) = match offset {
            "Z" | "z" => (true, 0),
            _ => {
                let [hours, minutes] = numbers(offset.get(1..)?, ':', [2, 2])?;
                (
                    offset.starts_with('+'),
                    (hours < 24 && minutes < 60).then_some(hours * 3_600 + minutes * 60)?,
                )
            }
        };
        let seconds = if ahead { seconds.checked_sub(offset)? } else { seconds + offset };
        Some(Self(seconds * 1_000 + ms))
    }
}

/// Numbers of these many digits with `between` between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut read = [0; N];
    let mut parts = text.split(between);
    for (number, digits) in read.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(read)
}

fn days_in(year: u64, month: u64) -> Option<u64> {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    (1..=12)
        .contains(&month)
        .then(|| days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1))
}

/// The inverse of [`civil_from_days`], for years from 1 on; days before 1970 are 0.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

/// Year, month and day of a day since 1970-01-01, after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_are_written_as_rfc_3339() {
        assert_eq!(UnixMillis(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis(951_782_400_000).to_rfc3339(), "2000-02-29T00:00:00.000Z");
        assert_eq!(UnixMillis(1_795_413_843_007).to_rfc3339(), "2026-11-23T06:04:03.007Z");
    }

    #[test]
    fn what_was_written_is_read_and_nonsense_is_not() {
        for days in (0..60_000).step_by(17) {
            let at = UnixMillis(days * 86_400_000 + 43_200_123);
            assert_eq!(UnixMillis::parse_rfc3339(&at.to_rfc3339()), Some(at));
        }
        let same = ["2026-11-23T06:04:03Z", "2026-11-23t08:04:03+02:00", "2026-11-23 00:34:03.000000-05:30"];
        assert_eq!(same.map(UnixMillis::parse_rfc3339), [Some(UnixMillis(1_795_413_843_000)); 3]);
        let nonsense = [
            "",
            "2026-11-23",
            "2026-11-23T06:04:03",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-00-01T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T06:04:03.Z",
            "2026-11-23T06:04:03+1:00",
            "0000-01-01T00:00:00Z",
            "2026-11-23T06:04:03ZZ",
            "+026-11-23T06:04:03Z",
            "2026-11-23T06:04:03+24:00",
            "1970-01-01T00:00:00+01:00",
        ];
        for text in nonsense {
            assert_eq!(UnixMillis::parse_rfc3339(text), None, "{text}");
        }
    }
}
