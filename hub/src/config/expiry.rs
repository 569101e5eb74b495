//! `[secrets.expiry]`: when the hub warns of secrets that expire.

use std::time::Duration;

use super::settings::Settings;
use crate::expiry::CHECK_EVERY;

/// Most numbers of days.
const WARNINGS_MAX: usize = 16;
const DAYS_MAX: u64 = 3_650;

/// When warnings are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// So many days before.
    pub warn_days: Vec<u64>,
    /// From one look to the next.
    pub check_every: Duration,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { warn_days: vec![30, 7, 1], check_every: CHECK_EVERY }
    }
}

/// `warn_days` are numbers with commas between them.
pub(super) fn read(settings: &mut Settings) -> Expiry {
    let default = Expiry::default();
    let warn_days = settings.text("secrets.expiry.warn_days").map(|text| {
        let days: Option<Vec<u64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
        days.filter(|days| {
            days.len() <= WARNINGS_MAX && days.iter().all(|days| (1..=DAYS_MAX).contains(days))
        })
    });
    let warn_days = match warn_days {
        None => default.warn_days,
        Some(Some(days)) => days,
        Some(None) => {
            let what = format!(
                "must be numbers of days like \"30, 7, 1\": at most {WARNINGS_MAX}, each from 1 to {DAYS_MAX}"
            );
            settings.problem("secrets.expiry.warn_days", what);
            default.warn_days
        }
    };
    let check_every = settings.number("secrets.expiry.check_seconds", 1..=86_400);
    Expiry { warn_days, check_every: check_every.map_or(default.check_every, Duration::from_secs) }
}
