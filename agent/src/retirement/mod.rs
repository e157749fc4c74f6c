//! Retirement: a gateway is taken out of service, provably. The other end of `enrolment`.
//!
//! ```text
//!   running agent ─► feeds paused ─► drained ─► audit record acknowledged ─► stopped by whoever stands there
//!        └ not running ──────────────────────────────────────────────────────► spool locked ─► counted ─► refused while anything is unsettled
//!   disposal record, begun ─► configuration set aside ─► keys overwritten and removed ─► spool removed ─► disposal record, done
//! ```
//!
//! 1. **Nothing is lost by accident**: what the hub has not confirmed, or lies in quarantine, is counted from the spool itself with the agent stopped;
//!    without `--lose` that ends it. A spool that cannot be read counts as unknown, never as empty.
//! 2. **From the record on there is no way back**, and a kill is finished by the same command: the record says `begun`, and what is to be erased.
//! 3. **Erasing is by keys**: bodies on disk are sealed, so they are gone when the spool's key is. On flash an overwritten file may still have
//!    copies that nobody reaches by name; a key in a TPM or on another medium has none on this disk. The record says what lay where.
//! 4. It never touches a spool whose agent runs: it holds the spool's lock throughout.

pub mod count;
pub mod disposal;
