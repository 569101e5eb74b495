//! What a database's error means for the hub: wait and try again, or stop because something is broken.

use llm_config_shared::store::JournalError;
use sqlx::error::DatabaseError;

/// An error of a statement, a connection or a pool.
#[expect(clippy::wildcard_enum_match_arm, reason = "sqlx adds to its errors; what is unknown is tried again")]
pub(super) fn of_sql(error: sqlx::Error) -> JournalError {
    match error {
        sqlx::Error::Database(error) => of_database(error.as_ref()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
            of_cell(error)
        }
        sqlx::Error::PoolTimedOut => {
            unavailable("it is overloaded or cannot be reached: no connection became free")
        }
        sqlx::Error::PoolClosed => unavailable("this process is shutting down"),
        sqlx::Error::Io(error) => unavailable(format!("the connection failed: {error}")),
        other => unavailable(other),
    }
}

/// A cell that is missing or of another type.
pub(super) fn of_cell(error: sqlx::Error) -> JournalError {
    JournalError::Corrupt(error.to_string())
}

/// An error of a migration.
#[expect(clippy::wildcard_enum_match_arm, reason = "sqlx adds to its errors; all say the same here")]
pub(super) fn of_migration(error: sqlx::migrate::MigrateError) -> JournalError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => of_sql(error),
        sqlx::migrate::MigrateError::VersionMissing(version) => unavailable(format!(
            "its tables are of a newer program (step {version}): start that version, or restore a backup"
        )),
        other => unavailable(format!("its tables could not be brought up to date: {other}")),
    }
}

/// Nothing is wrong with the data.
pub(super) fn unavailable(reason: impl ToString) -> JournalError {
    JournalError::Unavailable(reason.to_string())
}

/// An invariant is broken.
pub(super) fn corrupt(reason: impl Into<String>) -> JournalError {
    JournalError::Corrupt(reason.into())
}

fn of_database(error: &dyn DatabaseError) -> JournalError {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        of_sqlite(code.parse().unwrap_or(0), error.message())
    } else {
        of_postgres(&code, error.message())
    }
}

/// SQLite's result codes; the low byte is the kind (sqlite.org/rescode.html).
fn of_sqlite(code: u32, message: &str) -> JournalError {
    match code & 0xff {
        5 | 6 => unavailable("another process holds its lock"),
        8 => unavailable("its file is read-only"),
        10 => unavailable(format!("reading or writing its file failed: {message}")),
        13 => unavailable("the disk is full"),
        14 => unavailable("its file cannot be opened"),
        11 | 26 => corrupt(format!("its file is damaged: {message}")),
        19 => corrupt(format!("a rule of its tables was broken: {message}")),
        _ => unavailable(message),
    }
}

/// PostgreSQL's SQLSTATE; the first two characters are the class (Appendix A of its manual).
fn of_postgres(code: &str, message: &str) -> JournalError {
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "53100") => unavailable("the disk is full"),
        (_, "53300") => unavailable("it has no connection left"),
        (_, "25006") => unavailable("it is read-only: a standby, or set so by its administrator"),
        (_, "42P01") => unavailable("its tables are missing: run `llm-config-hub migrate`"),
        ("21" | "22" | "23", _) => corrupt(format!("a rule of its tables was broken: {message}")),
        ("XX", "XX001" | "XX002") => corrupt(format!("its files are damaged: {message}")),
        _ => unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_waits_and_a_broken_rule_stops() {
        assert!(matches!(of_sqlite(13, ""), JournalError::Unavailable(text) if text == "the disk is full"));
        assert!(
            matches!(of_postgres("53100", ""), JournalError::Unavailable(text) if text == "the disk is full")
        );
        assert!(matches!(of_sqlite(2067, "UNIQUE"), JournalError::Corrupt(_)));
        assert!(matches!(of_postgres("23505", "unique"), JournalError::Corrupt(_)));
        assert!(matches!(of_postgres("57P01", "terminating"), JournalError::Unavailable(_)));
        assert!(matches!(of_postgres("40001", "serialize"), JournalError::Unavailable(_)));
    }
}
