//! The domain and the replication core: what must be true, and nothing about how the world is reached.
//!
//! No sockets, files, clock, randomness or async runtime. Time, random bytes and the results of I/O arrive as
//! arguments; what has to be done leaves as plain data. The daemons and the simulator drive this same code.

pub mod access;
pub mod codec;
pub mod digest;
pub mod entry;
pub mod exposure;
pub mod feed;
pub mod held;
pub mod in_use;
pub mod limits;
pub mod name;
pub mod newer;
pub mod offline;
pub mod parcel;
pub mod patch;
pub mod policy;
pub mod removal;
pub mod replication;
pub mod resolve;
pub mod rotation;
pub mod seal;
pub mod secret;
pub mod segment;
pub mod settled;
pub mod signed;
pub mod stamp;
pub mod store;
pub mod time;
pub mod value;
pub mod vector;
pub mod write;
