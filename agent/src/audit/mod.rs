//! The audit log: who did what, when and why, durable before it is done, chained, and told to the hub in order.
//!
//! ```text
//!   order on site ─┐                    ┌─► sender ─► `audit` on the broker, one at a time, again until it is acknowledged
//!   signed command ┼─► Book ─► Log ─► <spool>/audit/*.log
//!   what happened ─┘   intent │ fdatasync
//!                             └─► done ─► outcome
//! ```
//!
//! 1. [`Book::begin`] writes an intent and syncs it; only then the action is carried out; [`Book::end`] writes what became of it. A kill in between
//!    leaves an intent without outcome: the next start writes that it is in doubt. [`Book::note`] writes what the gateway did by itself.
//! 2. A disk that does not take the intent refuses the action with a sentence, and the condition `audit_write_failed` stands. Two go on without it,
//!    because refusing them would cost more than a record: break-glass (`override`), and what the gateway does by itself. They are written
//!    when the disk takes them, under the time they had; more than `AUDIT_OWED_MAX` of them are counted.
//! 3. Segments are preallocated, so a full disk still takes records, also of a log that is opened there. The log is bounded: what the broker has goes
//!    first; where it has nothing for so long that the oldest must go unsent, a record of all that was given up is written before it goes, and the
//!    condition `audit_incomplete` stands. Refusing instead would let a hub that does not listen take a site's controls away; the desk
//!    (`status::pace`) sees to it that nobody fills the log within hours by orders.
//! 4. The log of another gateway (this box had another id) is put aside whole, and named by the log that begins in its place.
//! 5. The chain (`chain`) begins with the gateway's name and the incarnation in which the log was begun, so that a log of another gateway, or a new one
//!    in its place, is another chain. `verify` says of any records, here and at the hub, whether they are whole.
//! 6. No record holds content of messages (I7): texts come from people and from names.
//!
//! `chain`, `walk`, `ranges` and `verify` are pure, `log`, `files` and `aside` are files, `book` the handle that all others hold, `sender` the task that publishes.

mod aside;
pub mod book;
pub mod chain;
mod files;
pub mod log;
mod ranges;
pub mod sender;
pub mod verify;
mod walk;

pub use book::{Book, Intent};
