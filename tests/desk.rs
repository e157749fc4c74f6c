//! Central IT's desk for many gateways: rollouts in waves over a real broker to running agents, templates, and what is said of them.
//!
//! Trials last ten seconds here, the shortest there may be. `SITEWARD_LONG=1` kills the tool more often.

#[path = "desk/east.rs"]
mod east;
#[path = "desk/kills.rs"]
mod kills;
#[path = "desk/lists.rs"]
mod lists;
#[path = "desk/table.rs"]
mod table;
#[path = "desk/waves.rs"]
mod waves;
