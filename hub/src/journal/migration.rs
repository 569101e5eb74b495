//! Which steps of the tables' history are still to be taken.

use sqlx::migrate::Migrator;

/// Names of the steps that are not among the applied ones.
pub(super) fn pending(all: &Migrator, applied: &[i64]) -> Vec<String> {
    let missing = all.iter().filter(|step| !applied.contains(&step.version));
    missing.map(|step| format!("{:04} {}", step.version, step.description)).collect()
}
