//! The broker of the demonstration: in this process, on loopback, without TLS. It has no stop; it ends with the process.

use std::collections::HashMap;
use std::net::SocketAddr;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::limits::{HUB_PACKET_BYTES_MAX, MIB};

const CONNECTIONS_MAX: usize = 32;
/// What the broker keeps in memory, per subscription.
const SEGMENT_BYTES: usize = 16 * MIB as usize;
const SEGMENTS: usize = 4;
const IN_FLIGHT: usize = 100;

/// Starts a broker that listens on `listen` soon.
pub fn start(listen: SocketAddr) -> std::io::Result<()> {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: HUB_PACKET_BYTES_MAX as usize,
        max_inflight_count: IN_FLIGHT,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "demo".into(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: IN_FLIGHT as u64,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let config = Config { router, v5: Some(HashMap::from([("demo".to_owned(), server)])), ..Config::default() };
    std::thread::Builder::new().name("broker".into()).spawn(move || {
        if let Err(error) = Broker::new(config).start() {
            tracing::error!(%error, "the broker ended");
        }
    })?;
    Ok(())
}
