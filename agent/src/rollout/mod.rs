//! Remote configuration and remote commands.

pub mod command;
