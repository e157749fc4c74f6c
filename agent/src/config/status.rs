//! `[status]`: where the status page, the metrics and the health check are to be had. All three stages, since they are a few lines each.
//!
//! Without the section they are on a unix socket beside the control socket: an agent opens no port that its configuration does not name. The file
//! that is shipped names one, on loopback, for the browser on the box and for `ssh -L`. What is shown has no password, so an address that others
//! reach needs `peers`, which says who of them may look. A document cannot set any of it: it would open a port from afar.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::fault::FaultList;
use super::listener;
use super::merged::Feed;
use super::reader::{At, Field, Section, text, texts};
use super::settings::{FeedSettings, Network, SourceSettings};
use super::validate::{self, collide};
use crate::limits::{PAGE_NAMES_MAX, SOCKET_PATH_BYTES_MAX};

/// Validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSettings {
    pub listen: StatusListen,
    /// Who may look, where the address is not of this machine alone; empty: everybody who reaches it.
    pub peers: Vec<Network>,
    /// Names by which browsers may call this gateway, in lower case, beside `localhost` and addresses.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusListen {
    Off,
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for StatusListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As written; every key is truly optional, so this is also what is merged.
#[derive(Debug)]
pub(super) struct Written {
    listen: Field<String>,
    peers: Field<Vec<String>>,
    names: Field<Vec<String>>,
}

pub(super) fn read(mut s: Section<'_, '_>, f: &mut FaultList) -> Written {
    let written = Written { listen: s.read(f, "listen", text), peers: s.read(f, "peers", texts), names: s.read(f, "names", texts) };
    s.finish(f);
    written
}

/// `control_socket`: the default lies beside it. `feeds`: their ports are theirs.
pub(super) fn validate(
    m: &Written,
    control_socket: Option<&Path>,
    feeds: &[FeedSettings],
    base: &Path,
    f: &mut FaultList,
) -> Option<StatusSettings> {
    let listen = match &m.listen {
        Field::Given(at) => listen(at, feeds, base, f),
        Field::Bad => None,
        Field::Absent => control_socket.map(|path| StatusListen::Unix(path.with_file_name("status.sock"))),
    };
    let peers = listener::peers(m.peers.given(), f);
    let names = names(&m.names, f);
    let (listen, peers) = (listen?, peers?);
    match (&listen, m.listen.given(), m.peers.given()) {
        (StatusListen::Tcp(address), Some(at), None) if !address.ip().to_canonical().is_loopback() => {
            return f.refuse(
                &at.place,
                "is an address that others reach, and the page has no password: list who may look in status.peers, or use \"127.0.0.1:8090\"",
            );
        }
        (StatusListen::Off | StatusListen::Unix(_), _, Some(at)) => {
            return f.refuse(&at.place, "stands without an address to listen on; remove it (the mode of a unix socket says who may look)");
        }
        _ => {}
    }
    Some(StatusSettings { listen, peers, names: names? })
}

fn listen(at: &At<String>, feeds: &[FeedSettings], base: &Path, f: &mut FaultList) -> Option<StatusListen> {
    if at.value == "off" {
        return Some(StatusListen::Off);
    }
    if let Some(written) = at.value.strip_prefix("unix:") {
        let path = base.join(written);
        return match path.as_os_str().len() {
            _ if written.is_empty() || written.ends_with(['/', '.']) => f.refuse(&at.place, "needs the path of a socket after unix:"),
            bytes if bytes > SOCKET_PATH_BYTES_MAX => {
                f.refuse(&at.place, format!("is a path of {bytes} bytes, the system takes {SOCKET_PATH_BYTES_MAX}; give a shorter one"))
            }
            _ => Some(StatusListen::Unix(path)),
        };
    }
    let Ok(address) = at.value.parse::<SocketAddr>() else {
        return f.refuse(&at.place, "must be IP:PORT like \"127.0.0.1:8090\", \"unix:/path/of/status.sock\" or \"off\"");
    };
    if address.port() == 0 {
        return f.refuse(&at.place, "has port 0; give the port that browsers go to");
    }
    let taken = feeds.iter().find(|feed| match &feed.source {
        SourceSettings::Mllp(mllp) => collide(mllp.listen, address),
        SourceSettings::Http(http) => collide(http.listen, address),
        SourceSettings::Directory(_) => false,
    });
    match taken {
        Some(feed) => f.refuse(&at.place, format!("is the address that feed `{}` listens on; give the page its own port", feed.id)),
        None => Some(StatusListen::Tcp(address)),
    }
}

/// The page's port is the local file's to give; a document's feeds cannot have it. Looked at where a document comes in, not where one that was
/// proven runs again: that must not end for a page.
pub(super) fn keep_port(status: &StatusSettings, feeds: &[Feed], f: &mut FaultList) {
    let StatusListen::Tcp(page) = status.listen else { return };
    for (_, place) in feeds.iter().filter_map(validate::listen).filter(|(address, _)| collide(*address, page)) {
        f.add(
            place,
            format!("is an address of the gateway's status page ({page}, status.listen of its own file); give the feed another port"),
        );
    }
}

fn names(m: &Field<Vec<String>>, f: &mut FaultList) -> Option<Vec<String>> {
    let at = match m {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    if at.value.len() > PAGE_NAMES_MAX {
        return f.refuse(&at.place, format!("lists more than {PAGE_NAMES_MAX} names"));
    }
    let is_name = |name: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        !name.is_empty() && name.len() <= 253 && name.bytes().all(plain)
    };
    match at.value.iter().position(|name| !is_name(name)) {
        Some(index) => f.refuse(&at.place, format!("entry {} is not the name of a machine; write it without scheme and port", index + 1)),
        None => Some(at.value.iter().map(|name| name.to_ascii_lowercase()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_text;
    use crate::config::settings::Settings;

    fn load(section: &str) -> Result<Settings, String> {
        let text = format!(
            "[gateway]\nsite = \"s\"\nid = \"g\"\ntimezone = \"UTC\"\ncontrol_socket = \"/run/siteward/control.sock\"\n\
             [uplink]\nendpoints = [\"mqtt://h\"]\nallow_plaintext = true\n\
             [[feed]]\nid = \"a\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"0.0.0.0:2575\"\n{section}"
        );
        parse_text("/etc/siteward/siteward.toml".as_ref(), &text).map_err(|faults| faults.to_string())
    }

    #[test]
    fn no_port_is_open_that_is_not_named() {
        let status = load("").unwrap().status;
        assert_eq!(status.listen, StatusListen::Unix("/run/siteward/status.sock".into()));
        assert!(status.peers.is_empty() && status.names.is_empty());
        assert_eq!(load("[status]\nlisten = \"off\"").unwrap().status.listen, StatusListen::Off);
        let listen = load("[status]\nlisten = \"127.0.0.1:8090\"\nnames = [\"GW1.example.org\"]").unwrap().status;
        assert_eq!((listen.listen.to_string(), listen.names), ("127.0.0.1:8090".to_owned(), vec!["gw1.example.org".to_owned()]));
        assert_eq!(load("[status]\nlisten = \"unix:p.sock\"").unwrap().status.listen, StatusListen::Unix("/etc/siteward/p.sock".into()));
    }

    #[test]
    fn an_address_that_others_reach_needs_to_say_who_may_look() {
        let fault = load("[status]\nlisten = \"0.0.0.0:8090\"").unwrap_err();
        assert!(fault.contains("status.listen") && fault.contains("status.peers"), "{fault}");
        assert!(load("[status]\nlisten = \"[::1]:8090\"").is_ok(), "loopback");
        let status = load("[status]\nlisten = \"0.0.0.0:8090\"\npeers = [\"10.1.0.0/16\"]").unwrap().status;
        assert_eq!(status.peers.len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (section, word) in [
            ("listen = \"8090\"", "IP:PORT"),
            ("listen = \"127.0.0.1:0\"", "port 0"),
            ("listen = \"unix:\"", "needs the path"),
            ("listen = \"unix:/run/\"", "needs the path"),
            ("listen = \"127.0.0.1:2575\"", "feed `a`"),
            ("listen = \"off\"\npeers = [\"10.0.0.0/8\"]", "status.peers"),
            ("names = [\"http://gw\"]", "status.names"),
            ("port = 1", "status.port"),
        ] {
            let fault = load(&format!("[status]\n{section}")).unwrap_err();
            assert!(fault.contains(word), "{section}: {fault}");
        }
        let long = format!("listen = \"unix:/{}\"", "p".repeat(SOCKET_PATH_BYTES_MAX));
        assert!(load(&format!("[status]\n{long}")).unwrap_err().contains("shorter"));
    }
}
