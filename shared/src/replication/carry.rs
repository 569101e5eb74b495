//! Files in the place of a stream, at the hub: what goes into one for an edge, and how one that an edge made is taken in.
//!
//! The hub holds the session with itself. The state machine of streams is told what the edge is taken to hold, and what it sends
//! is kept instead of sent; what an edge carried here is heard by it as if it had come up a stream. So a file holds the very
//! bytes of the stream, and nothing that the stream would not bring.

mod acknowledged;
mod back;
mod mark;
mod there;

pub use acknowledged::{held, place};
pub use back::{Admission, Back};
pub(crate) use mark::mark;
pub use there::{Making, There, draft_parts};
