//! What the two databases have in common: transactions, arguments and cells. Statements differ only where they must.

use std::borrow::Cow;
use std::future::Future;

use llm_config_shared::store::{Commit, JournalError};

use super::whole::Table;
use crate::processes::{Hold, News};

/// The answer of a database.
pub type Answer<T> = Result<T, JournalError>;

/// One statement, as each database wants it. Both count their arguments from `$1`.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl Sql {
    /// The same text for both.
    pub(super) const fn same(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// One argument of a statement.
#[derive(Clone, Debug)]
pub enum Arg<'a> {
    Int(Option<i64>),
    Text(Option<&'a str>),
    Blob(Option<Cow<'a, [u8]>>),
}

/// The same argument of many rows.
#[derive(Clone, Debug)]
pub enum Column<'a> {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Blobs(Vec<Option<Cow<'a, [u8]>>>),
}

/// Whole numbers are below 2^63 by the rules of the domain. One that is not comes back as it was, but sorts as negative.
pub(super) fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// For bounds that a caller makes up: the largest number where the database has none that large.
pub(super) fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Int(Some(int(number)))
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<u64>> for Arg<'_> {
    fn from(number: Option<u64>) -> Self {
        Self::Int(number.map(int))
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Arg<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(Some(Cow::Borrowed(bytes)))
    }
}

impl From<Vec<u8>> for Arg<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(Some(Cow::Owned(bytes)))
    }
}

impl<'a> Column<'a> {
    pub(super) fn ints(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self::Ints(numbers.into_iter().map(|number| Some(int(number))).collect())
    }

    pub(super) fn ids(numbers: impl IntoIterator<Item = i64>) -> Self {
        Self::Ints(numbers.into_iter().map(Some).collect())
    }

    pub(super) fn ints_or_null(numbers: impl IntoIterator<Item = Option<u64>>) -> Self {
        Self::Ints(numbers.into_iter().map(|number| number.map(int)).collect())
    }

    pub(super) fn texts(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Texts(texts.into_iter().map(Some).collect())
    }

    pub(super) fn texts_or_null(texts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        Self::Texts(texts.into_iter().collect())
    }

    pub(super) fn blobs<B: Into<Cow<'a, [u8]>>>(blobs: impl IntoIterator<Item = B>) -> Self {
        Self::Blobs(blobs.into_iter().map(|blob| Some(blob.into())).collect())
    }

    pub(super) fn blobs_or_null<B: Into<Cow<'a, [u8]>>>(blobs: impl IntoIterator<Item = Option<B>>) -> Self {
        Self::Blobs(blobs.into_iter().map(|blob| blob.map(Into::into)).collect())
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(rows) => rows.len(),
            Self::Texts(rows) => rows.len(),
            Self::Blobs(rows) => rows.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A row that was read; columns are counted from 0.
pub trait Cells: Send + Sync {
    /// # Errors
    /// [`JournalError::Corrupt`] when the column is missing or holds something else, as with all of these.
    fn int(&self, column: usize) -> Answer<u64>;
    fn id(&self, column: usize) -> Answer<i64>;
    fn int_or_null(&self, column: usize) -> Answer<Option<u64>>;
    fn text(&self, column: usize) -> Answer<&str>;
    fn text_or_null(&self, column: usize) -> Answer<Option<&str>>;
    fn blob(&self, column: usize) -> Answer<&[u8]>;
    fn blob_or_null(&self, column: usize) -> Answer<Option<&[u8]>>;
}

/// A transaction. Dropped without [`commit`](Self::commit), it leaves nothing behind.
pub trait Transact: Send {
    type Row: Cells;

    /// The rows of one statement.
    fn fetch(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> impl Future<Output = Answer<Vec<Self::Row>>> + Send;

    /// How many rows one statement changed.
    fn execute(&mut self, sql: Sql, args: Vec<Arg<'_>>) -> impl Future<Output = Answer<u64>> + Send;

    /// The rows of one statement for each row of arguments, in no certain order. PostgreSQL takes the columns as arrays
    /// in one statement; SQLite runs the statement once per row.
    fn fetch_each(
        &mut self,
        sql: Sql,
        columns: Vec<Column<'_>>,
    ) -> impl Future<Output = Answer<Vec<Self::Row>>> + Send;

    /// As [`fetch_each`](Self::fetch_each), but how many rows were changed; applied in the order of the rows.
    fn execute_each(
        &mut self,
        sql: Sql,
        columns: Vec<Column<'_>>,
    ) -> impl Future<Output = Answer<u64>> + Send;

    /// The rows of a statement made of names from the catalog, one by one, however many there are.
    fn each_row<E: From<JournalError> + Send>(
        &mut self,
        select: String,
        take: impl FnMut(&Self::Row) -> Result<(), E> + Send,
    ) -> impl Future<Output = Result<(), E>> + Send;

    /// Puts rows into a table as they are, given by its columns.
    fn fill(&mut self, table: &Table, columns: Vec<Column<'_>>) -> impl Future<Output = Answer<u64>> + Send;

    /// Numbers that the database gives out in this table go on above those that were put there.
    fn renumber(&mut self, table: &Table) -> impl Future<Output = Answer<()>> + Send;

    /// Other processes hear of it when it is committed.
    fn tell(&mut self, commit: &Commit) -> impl Future<Output = Answer<()>> + Send;

    /// Durable when it returns.
    fn commit(self) -> impl Future<Output = Answer<()>> + Send;
}

/// A kind of database.
pub trait Dialect: Send + Sync + 'static {
    type Transaction: Transact;

    /// Whether several processes may use it at a time.
    const SHARED: bool;

    /// A transaction that sees what was committed before each statement, and is the only writer of what it locks.
    fn begin_write(&self) -> impl Future<Output = Answer<Self::Transaction>> + Send;

    /// A transaction all of whose statements see the same snapshot.
    fn begin_read(&self) -> impl Future<Output = Answer<Self::Transaction>> + Send;

    /// Brings the tables up to date.
    fn migrate(&self) -> impl Future<Output = Answer<()>> + Send;

    /// The same up to a step and no further.
    fn migrate_to(&self, step: i64) -> impl Future<Output = Answer<()>> + Send;

    /// What [`migrate`](Self::migrate) would apply, without applying it.
    fn pending_migrations(&self) -> impl Future<Output = Answer<Vec<String>>> + Send;

    /// Takes the lock of whoever leads; none when another process has it.
    fn stand(&self) -> impl Future<Output = Answer<Option<Hold>>> + Send;

    /// Waits until some process has committed, and gives what it told.
    fn news(&self) -> impl Future<Output = Answer<Option<News>>> + Send;

    /// Waits until every connection is given back and closed.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Sends the methods of both traits to sqlx. The two drivers share a shape but no trait that would make this generic
/// without naming a dozen bounds.
macro_rules! cells {
    ($row:ty) => {
        impl Cells for $row {
            fn int(&self, column: usize) -> Answer<u64> {
                self.id(column).map(i64::cast_unsigned)
            }

            fn id(&self, column: usize) -> Answer<i64> {
                sqlx::Row::try_get(self, column).map_err(failure::of_cell)
            }

            fn int_or_null(&self, column: usize) -> Answer<Option<u64>> {
                let number: Option<i64> = sqlx::Row::try_get(self, column).map_err(failure::of_cell)?;
                Ok(number.map(i64::cast_unsigned))
            }

            fn text(&self, column: usize) -> Answer<&str> {
                sqlx::Row::try_get(self, column).map_err(failure::of_cell)
            }

            fn text_or_null(&self, column: usize) -> Answer<Option<&str>> {
                sqlx::Row::try_get(self, column).map_err(failure::of_cell)
            }

            fn blob(&self, column: usize) -> Answer<&[u8]> {
                sqlx::Row::try_get(self, column).map_err(failure::of_cell)
            }

            fn blob_or_null(&self, column: usize) -> Answer<Option<&[u8]>> {
                sqlx::Row::try_get(self, column).map_err(failure::of_cell)
            }
        }
    };
}

pub(super) use cells;
