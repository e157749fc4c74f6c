//! The hub side: what central IT runs to receive, verify and account for what the gateways send.
//!
//! ```text
//!   broker ─► receive ─► desk ─► ledger   (what is new, duplicate, conflicting; what is whole, what is missing)
//!                          │ ───► index    (chain value of every seq: exact answers for any age)
//!                          └────► output   (JSON lines, one fdatasync per batch)
//!             receive ◄──── acknowledgements to the broker, receipts to the gateways: only after the sync
//! ```
//!
//! - [`progress`]: one incarnation of one feed: mark and runs; `stretch`: what else is known of it. Pure.
//! - [`account`]: one feed: its incarnations and how they follow each other; forks, losses, receipts. Pure.
//! - [`ledger`]: all accounts. Pure.
//! - [`index`]: 32 bytes on disk per record.
//! - [`line`]: a line of the output; [`output`]: the file; [`snapshot`]: the ledger beside it.
//! - [`intake`]: the verdict on a publish; [`desk`]: takes arrivals in batches through all of these; rebuilds the account from the output.
//! - [`gateways`]: what the gateways say of themselves, for the log.
//! - [`keys`]: keys that sign documents; [`config`]: documents looked at, signed, published; [`command`]: commands signed, sent, answered;
//!   [`certs`]: certificates of gateways; [`enrolment`]: new boxes, replaced and retired ones, and whom the broker admits.
//! - [`fleet`]: all gateways as they tell of themselves: table, changes, metrics, alarms; [`find`]: one message in the output.
//! - [`reports`]: what all gateways report, as the broker keeps it; [`waves`]: documents for many gateways, in waves that stop by themselves.
//! - [`connection`], [`receive`]: MQTT and the loop.
//!
//! The output is the truth. Index and ledger can be deleted and are rebuilt from it.

pub mod account;
#[cfg(test)]
mod account_tests;
pub mod certs;
pub mod command;
pub mod config;
pub mod connection;
#[cfg(test)]
mod connection_tests;
pub mod desk;
pub mod differences;
pub mod ends;
pub mod enrolment;
pub mod find;
pub mod fleet;
pub mod gateways;
pub mod index;
pub mod intake;
pub mod keys;
pub mod ledger;
pub mod line;
#[cfg(test)]
mod model;
#[cfg(test)]
mod news_tests;
pub mod output;
pub mod overview;
pub mod progress;
pub mod receive;
#[cfg(test)]
mod receive_tests;
pub mod reports;
pub mod rotation;
pub mod secrets;
pub mod snapshot;
mod stretch;
pub mod template;
pub mod trail;
pub mod waves;
