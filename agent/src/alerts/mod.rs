//! Who is alerted of what, and when: conditions become alerts, alerts become syslog lines, maintenance windows keep some of them quiet.
//!
//! ```text
//!   board.conditions() ─┐                                            ┌─► board: `alerting`, `silenced`, windows ─► snapshot, metrics, page
//!   senders (peers) ────┼─► keeper, one task, every half second ─────┤
//!   critical lane ──────┘     │ machine: hold-down, told or not      └─► outbox (bounded) ─► sender, one task ─► UDP, TCP, /dev/log
//!   `siteward maintenance` ──►│ windows: silence peer, cadence, uplink
//!                             └─► <spool>/alerts: starts, windows, what is held and told, whose senders keep their connection
//! ```
//!
//! 1. A condition is on every surface at once; an alert is what somebody is woken for. Between the two lies a hold-down (`machine`): five minutes for
//!    the uplink, fifteen for a sender that has gone; other codes alert at once. It runs by the monotonic clock (I10) and goes on over restarts, so a box
//!    that starts again every few minutes does not stay silent for ever.
//! 2. A maintenance window (`windows`) silences alerts, never conditions, and never those of loss: which code may be silenced at all is a closed match
//!    (`Code::silencing`). What is still so when the window ends is alerted then.
//! 3. One line for each alert raised and each that is over (`line`, RFC 5424). What waits is bounded; what is dropped is counted, and the next line says
//!    so. An alert counts as told when its line was handed over, so a kill in between tells it again rather than never.
//! 4. Nothing here holds up the agent: the keeper's disk and the sender's network each have a deadline and a task of their own, and nobody waits for
//!    either but who asked for a window.

pub mod handle;
pub mod keeper;
pub mod line;
pub mod machine;
pub mod outbox;
pub mod senders;
pub mod store;
pub mod syslog;
pub mod view;
pub mod windows;
