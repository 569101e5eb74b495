//! The edge's durable replica: encrypted records in whole, durable batches, recovered or set aside when damaged.

mod cipher;
mod codec;
mod compact;
mod mark;
mod recover;
mod sled;
mod waker;

pub use cipher::Owner;
pub use recover::{OpenError, Opened, Recovery, SetAside, StoreOptions, open};
pub use sled::SledStore;
