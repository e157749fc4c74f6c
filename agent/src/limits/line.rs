//! Bounds of the way to the broker through a proxy, and of `preflight`; part of `limits`.

use std::time::Duration;

use super::{ACK_STALL, CONNECT_TIMEOUT, KIB, SECRET_BYTES_MAX};

/// A proxy's answer to CONNECT, up to the empty line behind its header.
pub const PROXY_ANSWER_BYTES_MAX: usize = 8 * KIB as usize;
/// Authentication schemes of it that are told.
pub const PROXY_SCHEMES_TOLD: usize = 4;
/// `user:password` for a proxy.
pub const PROXY_CREDENTIAL_BYTES_MAX: usize = 512;
/// Preflight: each answer of the broker (CONNACK, SUBACK, PUBACK).
pub const PREFLIGHT_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Preflight beside a running agent: a broker that does not take our certificate says so within this, after a handshake that looked good.
pub const PREFLIGHT_VERDICT_WAIT: Duration = Duration::from_secs(2);
/// Unacknowledged publishes that the broker may send to preflight, which acknowledges none, and packets it is asked to read past.
pub const PREFLIGHT_RECEIVE_MAX: u16 = 1;
pub const PREFLIGHT_PACKETS_MAX: usize = 64;
/// Addresses of a host that are told, and characters of a certificate's name.
pub const PREFLIGHT_ADDRESSES_TOLD: usize = 8;
pub const PREFLIGHT_NAME_CHARS_MAX: usize = 160;

const _: () = {
    assert!(PROXY_CREDENTIAL_BYTES_MAX <= SECRET_BYTES_MAX);
    assert!(PREFLIGHT_VERDICT_WAIT.as_secs() < PREFLIGHT_ANSWER_TIMEOUT.as_secs());
    assert!(PREFLIGHT_ANSWER_TIMEOUT.as_secs() < ACK_STALL.as_secs() && PREFLIGHT_ANSWER_TIMEOUT.as_secs() < CONNECT_TIMEOUT.as_secs());
};
