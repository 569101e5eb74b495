//! `[secrets.rotation]`: which commands may make new values.

use std::time::Duration;

use super::settings::Settings;
use crate::rotation::{CHECK_EVERY, Commands};

/// What rotation may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationSettings {
    pub commands: Commands,
    /// From one look to the next.
    pub check_every: Duration,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self { commands: Commands::new(), check_every: CHECK_EVERY }
    }
}

/// Each command is a program and its arguments with spaces between; no shell reads them.
pub(super) fn read(settings: &mut Settings) -> RotationSettings {
    const PREFIX: &str = "secrets.rotation.commands.";
    let mut commands = Commands::new();
    for key in settings.below(PREFIX) {
        let Some(line) = settings.text(&key) else { continue };
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !words.first().is_some_and(|program| program.starts_with('/')) {
            settings.problem(&key, "must begin with the whole path of a program".to_owned());
        }
        commands.insert(key[PREFIX.len()..].to_owned(), words);
    }
    let check_every = settings.number("secrets.rotation.check_seconds", 1..=3_600);
    RotationSettings { commands, check_every: check_every.map_or(CHECK_EVERY, Duration::from_secs) }
}
