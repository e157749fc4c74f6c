//! Sources: what captures messages and answers their senders.
//!
//! ```text
//! mllp ──► mllp/connection ──► frame (bytes → frames) ──► ack (frame → verdict, reply) ──► spool::Appender
//!                                                          ├─ msh (header fields from raw bytes)
//!                                                          └─ batch (several messages in one frame: split, counted)
//! http ──► http/port ──► http/request ──► split ──► spool::Appender
//! split (a file or a posted body ──► records, with a verdict on the whole)
//! charset (a decoding view of bytes, for whoever reads them later)
//! ```
//!
//! `frame`, `msh`, `batch`, `split`, `charset` and `ack` are pure; `mllp` is the I/O around them. A source holds an `Appender` and nothing
//! else of the spool: it can add, never read, settle or remove. It answers positively only with what `ack::accept` makes of a `Durable` (I1).

pub mod ack;
pub mod answer;
pub mod batch;
pub mod charset;
pub mod files;
pub mod frame;
pub mod http;
pub mod mllp;
pub mod msh;
pub mod oddity;
pub mod peers;
pub mod port;
pub mod slots;
pub mod split;
pub mod structure;
pub mod tap;
pub mod tls;
