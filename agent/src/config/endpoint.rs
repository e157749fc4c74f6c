//! Reads a broker's address: `mqtts://host[:port]`, or `mqtt://` without TLS. Pure. Never repeats the text: a password may stand in it (I7).

use super::settings::Endpoint;

pub(crate) fn parse(url: &str) -> Result<Endpoint, &'static str> {
    let (tls, rest) = match url.split_once("://") {
        Some(("mqtts", rest)) => (true, rest),
        Some(("mqtt", rest)) => (false, rest),
        _ => return Err("must begin with mqtts:// (or mqtt:// for a connection without TLS)"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("holds a user name or password; gateways prove themselves by certificate, remove it");
    }
    if rest.contains(['/', '?', '#']) {
        return Err("holds a path; give host and port only");
    }
    let (host, port) = split_port(rest)?;
    let port = match port {
        None => {
            if tls {
                8883
            } else {
                1883
            }
        }
        Some(text) => text.parse().ok().filter(|port| *port > 0).ok_or("has no usable port; give a number from 1 to 65535")?,
    };
    Ok(Endpoint::new(host, port, tls))
}

/// Host and port of an HTTP proxy: `http://host:port`.
pub(super) fn proxy(url: &str) -> Result<(String, u16), &'static str> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err("is https://; the proxy itself is spoken to in clear (the tunnel inside is TLS), write http://"),
        _ => return Err("must begin with http://, like http://proxy.example.org:3128"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(
            "holds a user name or password; take them out, set them as a secret (user:password) and name it: proxy_credential = \"its-name\"",
        );
    }
    if rest.contains(['/', '?', '#']) {
        return Err("holds a path; give host and port only");
    }
    let (host, port) = split_port(rest)?;
    let port = port.ok_or("has no port; write it, like http://proxy.example.org:3128")?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or("has no usable port; give a number from 1 to 65535")?;
    Ok((host, port))
}

pub(super) fn split_port(rest: &str) -> Result<(String, Option<&str>), &'static str> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or("has no ] after the IPv6 address")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "has no usable IPv6 address in brackets")?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err("has something after ] that is not a port"),
        };
        return Ok((host.to_owned(), port));
    }
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("looks like an IPv6 address; put it in brackets, like mqtts://[2001:db8::1]:8883");
    }
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.len() > 253 || !name.split('.').all(label) {
        return Err("has no usable host name");
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_port() {
        for (url, shown) in [
            ("mqtts://hub.example.org:8883", "mqtts://hub.example.org:8883"),
            ("mqtts://hub.example.org", "mqtts://hub.example.org:8883"),
            ("mqtt://127.0.0.1/", "mqtt://127.0.0.1:1883"),
            ("mqtts://[2001:db8::1]", "mqtts://[2001:db8::1]:8883"),
            ("mqtts://[::1]:1", "mqtts://[::1]:1"),
            ("mqtts://hub_1:8884", "mqtts://hub_1:8884"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), shown, "{url}");
        }
    }

    #[test]
    fn a_proxy_is_host_and_port_and_holds_no_password() {
        for (url, host, port) in [
            ("http://proxy.example.org:3128", "proxy.example.org", 3128),
            ("http://10.0.0.7:8080/", "10.0.0.7", 8080),
            ("http://[2001:db8::7]:1", "2001:db8::7", 1),
        ] {
            assert_eq!(proxy(url).unwrap(), (host.to_owned(), port), "{url}");
        }
        for url in
            ["proxy:3128", "https://proxy:3128", "http://proxy", "http://proxy:0", "http://a/b:1", "http://:1", "socks5://proxy:1080"]
        {
            assert!(proxy(url).is_err(), "{url}");
        }
        let refused = proxy("http://kim:s3cret@proxy:3128").unwrap_err();
        assert!(refused.contains("proxy_credential") && !refused.contains("s3cret"));
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for url in [
            "",
            "hub.example.org:8883",
            "tcp://hub",
            "MQTTS://hub",
            "mqtts://",
            "mqtts://:8883",
            "mqtts://hub:0",
            "mqtts://hub:65536",
            "mqtts://hub:",
            "mqtts://a..b",
            "mqtts://hub/topic",
            "mqtts://hub?x=1",
            "mqtts://2001:db8::1",
            "mqtts://[2001:db8::1",
            "mqtts://[2001:db8::1]8883",
            "mqtts://[hub]",
            "mqtts://hub name",
            "mqtts://user:secret@hub",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
