//! Whole tables by the database's own catalog: what a backup reads, and a restore fills.
//!
//! No table is named here but those that say which database this is, so that a table which is added later is in every
//! backup from then on. Cells are whole numbers, texts or bytes on both databases; a column of another kind is refused.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::newer::Newer;
use llm_config_shared::store::JournalError;
pub use llm_config_shared::store::fleet::Cell;
use llm_config_shared::time::UnixMillis;

use super::Database;
use super::dialect::{Answer, Cells, Column, Dialect, Sql, Transact};
use super::failure::{corrupt, unavailable};

const COLUMNS: Sql = Sql {
    sqlite: "SELECT t.name, c.name, c.type FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name <> '_sqlx_migrations'
             ORDER BY t.name, c.cid",
    postgres: "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL)
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind = 'r'
                 AND c.relname <> '_sqlx_migrations' AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY c.relname::text COLLATE \"C\", a.attnum",
};
const REFERENCES: Sql = Sql {
    sqlite: "SELECT t.name, f.\"table\" FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) f
             WHERE t.type = 'table'",
    postgres: "SELECT c.relname::text, r.relname::text FROM pg_constraint k
               JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
               WHERE k.contype = 'f' AND c.relnamespace = current_schema()::text::regnamespace",
};
const STEP: Sql = Sql::same("SELECT max(version) FROM _sqlx_migrations WHERE success");
const MARK: Sql = Sql::same(
    "INSERT INTO restored (n, shard, epoch, cut, restored_at, newer)
     SELECT 1 + (SELECT count(*) FROM restored), shard, epoch, seq, $1, $2 FROM shard_head WHERE local = 1",
);
/// In the place of what becomes of newer writes, where the database is to be another region's.
pub(super) const REGION: &str = "region";
/// The step that says what becomes of newer writes: tables are brought up to it before a backup of before is put into them.
const STEP_OF_RESTORED: i64 = 7;
/// Rows, and about how many bytes of them, that go into the database at once.
const ROWS_MAX: usize = 1_000;
const BYTES_MAX: usize = 4 << 20;

/// What the cells of a column are, where they are not null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    Int,
    Text,
    Blob,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    pub name: String,
    pub kind: CellKind,
}

/// A table as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<TableColumn>,
}

/// One thing that a reader of all tables is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dumped {
    /// Rows of it follow.
    Table(Table),
    Row(Vec<Cell>),
}

impl Table {
    fn select(&self) -> String {
        format!("SELECT {} FROM \"{}\"", self.list(), self.name)
    }

    fn select_any(&self) -> String {
        format!("SELECT 1 FROM \"{}\" LIMIT 1", self.name)
    }

    pub(super) fn insert(&self) -> String {
        format!("INSERT INTO \"{}\" ({})", self.name, self.list())
    }

    /// Sets the numbers that PostgreSQL gives out in a column above the highest there.
    pub(super) fn renumber(&self, column: &str) -> Answer<String> {
        let (table, column) = (&self.name, plain_name(column)?);
        Ok(format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), COALESCE(max(\"{column}\"), 1),
                           max(\"{column}\") IS NOT NULL) FROM \"{table}\""
        ))
    }

    fn list(&self) -> String {
        let quoted: Vec<String> = self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        quoted.join(", ")
    }

    fn cells(&self, row: &impl Cells) -> Answer<Vec<Cell>> {
        let cell = |(at, column): (usize, &TableColumn)| {
            let cell = match column.kind {
                CellKind::Int => row.int_or_null(at)?.map(|number| Cell::Int(number.cast_signed())),
                CellKind::Text => row.text_or_null(at)?.map(|text| Cell::Text(text.to_owned())),
                CellKind::Blob => row.blob_or_null(at)?.map(|bytes| Cell::Blob(bytes.to_vec())),
            };
            Ok(cell.unwrap_or(Cell::Null))
        };
        self.columns.iter().enumerate().map(cell).collect()
    }

    /// Rows of this table by columns.
    fn columns_of<'a>(&self, rows: &'a [Vec<Cell>]) -> Answer<Vec<Column<'a>>> {
        let wrong = || corrupt(format!("a row that does not fit its table {}", self.name));
        if rows.iter().any(|row| row.len() != self.columns.len()) {
            return Err(wrong());
        }
        let column = |(at, column): (usize, &TableColumn)| {
            let cells = rows.iter().map(|row| &row[at]);
            Ok(match column.kind {
                CellKind::Int => {
                    Column::Ints(cells.map(|cell| int(cell).ok_or_else(wrong)).collect::<Result<_, _>>()?)
                }
                CellKind::Text => {
                    Column::Texts(cells.map(|cell| text(cell).ok_or_else(wrong)).collect::<Result<_, _>>()?)
                }
                CellKind::Blob => Column::blobs_or_null(
                    cells.map(|cell| blob(cell).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?,
                ),
            })
        };
        self.columns.iter().enumerate().map(column).collect()
    }
}

fn int(cell: &Cell) -> Option<Option<i64>> {
    match cell {
        Cell::Null => Some(None),
        Cell::Int(number) => Some(Some(*number)),
        Cell::Text(_) | Cell::Blob(_) => None,
    }
}

fn text(cell: &Cell) -> Option<Option<&str>> {
    match cell {
        Cell::Null => Some(None),
        Cell::Text(text) => Some(Some(text)),
        Cell::Int(_) | Cell::Blob(_) => None,
    }
}

fn blob(cell: &Cell) -> Option<Option<&[u8]>> {
    match cell {
        Cell::Null => Some(None),
        Cell::Blob(bytes) => Some(Some(bytes)),
        Cell::Int(_) | Cell::Text(_) => None,
    }
}

fn size(row: &[Cell]) -> usize {
    let cell = |cell: &Cell| match cell {
        Cell::Null | Cell::Int(_) => 8,
        Cell::Text(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
    };
    row.iter().map(cell).sum()
}

/// A name that can be put between quotes as it is.
fn plain_name(name: &str) -> Answer<String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain && !name.is_empty() { Ok(name.to_owned()) } else { Err(corrupt("a table of another program")) }
}

/// All tables, each after those that it refers to.
async fn tables<T: Transact>(tx: &mut T) -> Answer<Vec<Table>> {
    let mut found: BTreeMap<String, Vec<TableColumn>> = BTreeMap::new();
    for row in tx.fetch(COLUMNS, vec![]).await? {
        let (table, column) = (plain_name(row.text(0)?)?, plain_name(row.text(1)?)?);
        let kind = match row.text(2)? {
            "INTEGER" | "bigint" => CellKind::Int,
            "TEXT" | "text" => CellKind::Text,
            "BLOB" | "bytea" => CellKind::Blob,
            other => return Err(corrupt(format!("column {column} of table {table} is a {other}"))),
        };
        found.entry(table).or_default().push(TableColumn { name: column, kind });
    }
    let mut refers: BTreeSet<(String, String)> = BTreeSet::new();
    for row in tx.fetch(REFERENCES, vec![]).await? {
        refers.insert((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    }
    let mut ordered = Vec::with_capacity(found.len());
    while !found.is_empty() {
        let waits = |table: &String| {
            refers.iter().any(|(from, to)| from == table && to != table && found.contains_key(to))
        };
        let Some(next) = found.keys().find(|table| !waits(table)).cloned() else {
            return Err(corrupt("tables that refer to one another in a circle"));
        };
        let columns = found.remove(&next).unwrap_or_default();
        ordered.push(Table { name: next, columns });
    }
    Ok(ordered)
}

/// The newest step that the tables have taken; 0 where there are none.
async fn step<T: Transact>(tx: &mut T) -> Answer<i64> {
    let found = tx.fetch(STEP, vec![]).await?;
    found.first().map_or(Ok(0), |row| Ok(row.int_or_null(0)?.map_or(0, u64::cast_signed)))
}

async fn is_empty<T: Transact>(tx: &mut T, tables: &[Table]) -> Answer<bool> {
    let mut rows = 0;
    for table in tables {
        let count = |_: &T::Row| {
            rows += 1;
            Ok::<_, JournalError>(())
        };
        tx.each_row(table.select_any(), count).await?;
    }
    Ok(rows == 0)
}

/// All tables, read in one snapshot.
pub struct Snapshot<T> {
    tx: T,
    step: i64,
    tables: Vec<Table>,
}

impl<T: Transact> Snapshot<T> {
    /// How far the tables had been brought.
    pub fn step(&self) -> i64 {
        self.step
    }

    /// Gives every table and every row to `take`.
    ///
    /// # Errors
    /// What `take` says, or the database.
    pub async fn read<E: From<JournalError> + Send>(
        mut self,
        mut take: impl FnMut(Dumped) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        for table in &self.tables {
            take(Dumped::Table(table.clone()))?;
            self.tx.each_row(table.select(), |row| take(Dumped::Row(table.cells(row)?))).await?;
        }
        Ok(self.tx.commit().await?)
    }
}

/// What a database is once it was filled from a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilledAs {
    /// The hub of the backup. So it is chosen what becomes of writes that edges have and the backup lacks.
    Itself(Newer),
    /// The hub of another region, from the next [`Database::migrate`] on: tables of an older step have no place for that.
    Region,
}

impl FilledAs {
    fn as_str(self) -> &'static str {
        match self {
            Self::Itself(newer) => newer.as_str(),
            Self::Region => REGION,
        }
    }
}

/// Empty tables that are being filled; dropped before the end, they are as empty as before.
pub struct Filling<T> {
    tx: T,
    tables: Vec<Table>,
    current: Option<Table>,
    rows: Vec<Vec<Cell>>,
    bytes: usize,
}

impl<T: Transact> Filling<T> {
    /// Takes what [`Snapshot::read`] gave, in the same order.
    ///
    /// # Errors
    /// When it does not fit these tables, or the database refuses.
    pub async fn take(&mut self, dumped: Dumped) -> Answer<()> {
        match dumped {
            Dumped::Table(table) => {
                self.flush().await?;
                let known = self.tables.iter().find(|known| known.name == table.name);
                let fits = |known: &&Table| table.columns.iter().all(|column| known.columns.contains(column));
                if known.filter(fits).is_none() {
                    return Err(corrupt(format!(
                        "table {}, which this program does not know so",
                        table.name
                    )));
                }
                self.current = Some(table);
                Ok(())
            }
            Dumped::Row(row) => {
                self.bytes += size(&row);
                self.rows.push(row);
                if self.rows.len() >= ROWS_MAX || self.bytes >= BYTES_MAX {
                    self.flush().await
                } else {
                    Ok(())
                }
            }
        }
    }

    async fn flush(&mut self) -> Answer<()> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let Some(table) = self.current.as_ref().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let filled = self.tx.fill(table, table.columns_of(&rows)?).await?;
        if filled == rows.len() as u64 { Ok(()) } else { Err(corrupt("rows that were not taken")) }
    }

    /// Marks what the database is from now on: the hub of the backup, to which is lost what was written later, or another's
    /// beginning. Gives what [`Filled::commit`] makes durable.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn finish(mut self, now: UnixMillis, filled_as: FilledAs) -> Answer<Filled<T>> {
        self.flush().await?;
        for table in &self.tables {
            self.tx.renumber(table).await?;
        }
        self.tx.execute(MARK, vec![now.0.into(), filled_as.as_str().into()]).await?;
        Ok(Filled { tx: self.tx })
    }
}

/// Tables that have been filled, but for the last word.
pub struct Filled<T> {
    tx: T,
}

impl<T: Transact> Filled<T> {
    /// Durable when it returns.
    ///
    /// # Errors
    /// When the database refuses: then the tables are as empty as before.
    pub async fn commit(self) -> Answer<()> {
        self.tx.commit().await
    }
}

impl<D: Dialect> Database<D> {
    /// All tables as they are now, however much is written meanwhile.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn snapshot(&self) -> Answer<Snapshot<D::Transaction>> {
        let mut tx = self.dialect().begin_read().await?;
        let (step, tables) = (step(&mut tx).await?, tables(&mut tx).await?);
        Ok(Snapshot { tx, step, tables })
    }

    /// Whether there is nothing in it, be it that it has no tables yet.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn is_unused(&self) -> Answer<bool> {
        let mut tx = self.dialect().begin_read().await?;
        let tables = tables(&mut tx).await?;
        is_empty(&mut tx, &tables).await
    }

    /// Makes empty tables as they were at `step`, to be filled.
    ///
    /// # Errors
    /// When the database is in use, or the step is of a newer program.
    pub async fn begin_filling(&self, at_step: i64) -> Answer<Filling<D::Transaction>> {
        self.dialect().migrate_to(at_step.max(STEP_OF_RESTORED)).await?;
        let mut tx = self.dialect().begin_write().await?;
        if step(&mut tx).await? < at_step {
            return Err(unavailable(format!(
                "the backup is of a newer program (step {at_step}): restore it with that"
            )));
        }
        let tables = tables(&mut tx).await?;
        if !is_empty(&mut tx, &tables).await? {
            return Err(unavailable("it is in use"));
        }
        Ok(Filling { tx, tables, current: None, rows: Vec::new(), bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, kind| TableColumn { name: name.into(), kind };
        let columns = vec![column("n", CellKind::Int), column("name", CellKind::Text)];
        Table { name: "change".into(), columns }
    }

    #[test]
    fn names_that_are_not_plain_never_get_into_a_statement() {
        assert_eq!(table().select(), "SELECT \"n\", \"name\" FROM \"change\"");
        assert_eq!(table().insert(), "INSERT INTO \"change\" (\"n\", \"name\")");
        for name in ["", "a\"b", "A", "a b", "a'"] {
            assert!(plain_name(name).is_err() && table().renumber(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_row_of_another_form_is_refused() {
        let good = vec![vec![Cell::Int(1), Cell::Text("a".into())], vec![Cell::Null, Cell::Null]];
        assert_eq!(table().columns_of(&good).unwrap().len(), 2);
        for bad in [vec![Cell::Int(1)], vec![Cell::Text("a".into()), Cell::Text("a".into())]] {
            assert!(table().columns_of(&[bad]).is_err());
        }
    }
}
