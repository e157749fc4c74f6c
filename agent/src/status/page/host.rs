//! Whether a `Host` can mean this gateway. Pure.
//!
//! A page elsewhere can have a name of its own point at this address (DNS rebinding); the browser then lets it read what is answered, but it sends
//! that name as the `Host`. An address in its place cannot be bent, so every address is taken: which ones a box is reached by, through a tunnel or a
//! translation of addresses, it does not know.

use std::net::IpAddr;

/// `names` in lower case.
pub(super) fn admits(host: &str, names: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = bare {
        return matches!(address.parse(), Ok(IpAddr::V6(_)));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    matches!(name.parse(), Ok(IpAddr::V4(_))) || name == "localhost" || names.contains(&name)
}

/// `None`: what stands behind the colon is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    match host[end..].split_once(':') {
        None => Some(host),
        Some((name, port)) => port.bytes().all(|b| b.is_ascii_digit()).then(|| &host[..end + name.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_taken_and_nothing_else() {
        let names = ["gw1.st-marys.example".to_owned()];
        for host in [
            "localhost",
            "localhost:8090",
            "LOCALHOST.",
            "127.0.0.1:9000",
            "10.1.2.3",
            "[::1]:8090",
            "[::1]",
            "GW1.st-marys.example:8090",
            "gw1.st-marys.example.",
        ] {
            assert!(admits(host, &names), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:8090@evil",
            "gw1",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "[]",
            "0x7f000001",
            "2130706433",
            "localhost:80:80",
            "]localhost",
            "é]:",
        ] {
            assert!(!admits(host, &names), "{host}");
        }
    }
}
