//! `proxy` and `proxy_credential` of `[uplink]`.

use super::settings::Proxy;
use super::{parse_text, show};

fn with(lines: &str) -> String {
    format!(
        "[gateway]\nsite = \"s\"\nid = \"g\"\ntimezone = \"UTC\"\n[spool]\npath = \"/var/lib/siteward\"\n\
         [uplink]\nendpoints = [\"mqtts://hub.example.org:443\"]\nca = \"ca.pem\"\ncert = \"gw.pem\"\nkey = \"gw.key\"\n{lines}\n"
    )
}

fn faults(lines: &str) -> String {
    parse_text("/etc/siteward/siteward.toml".as_ref(), &with(lines)).unwrap_err().to_string()
}

#[test]
fn a_proxy_and_the_name_of_its_password_are_read_and_shown() {
    let none = parse_text("/etc/siteward/siteward.toml".as_ref(), &with("")).unwrap();
    assert_eq!(none.uplink.proxy, None);
    let text = with("proxy = \"http://proxy.example.org:3128\"\nproxy_credential = \"uplink-proxy\"");
    let settings = parse_text("/etc/siteward/siteward.toml".as_ref(), &text).unwrap();
    let proxy = Proxy { host: "proxy.example.org".into(), port: 3128, credential: Some("uplink-proxy".into()) };
    assert_eq!(settings.uplink.proxy, Some(proxy));
    let shown = show::render(&settings);
    for line in ["proxy = \"http://proxy.example.org:3128\"", "proxy_credential = \"uplink-proxy\" # credential:uplink-proxy"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
}

/// I7: a password that was written into the address is not repeated.
#[test]
fn what_is_no_proxy_is_refused_with_its_line() {
    for (lines, said) in [
        ("proxy = \"https://proxy:3128\"", "the proxy itself is spoken to in clear"),
        ("proxy = \"http://proxy\"", "has no port"),
        ("proxy_credential = \"uplink-proxy\"", "stands without proxy"),
        ("proxy = \"http://proxy:3128\"\nproxy_credential = \"kim:s3cret\"", "is not the name of a secret"),
        ("proxy = \"http://kim:s3cret@proxy:3128\"", "set them as a secret"),
    ] {
        let told = faults(lines);
        assert!(told.contains(said) && !told.contains("s3cret"), "{told}");
    }
}
