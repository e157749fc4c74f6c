//! Where enrolment puts its files, and how: each by temporary file, sync, rename, sync of the directory, so that a kill leaves the old or the new.
//!
//! ```text
//!   /etc/siteward/enrolled/<bundle>/   gateway.key (made once), enrolment.pem + .key (until the end), gateway.pem, ca.pem, trust-*.pub
//!   /etc/siteward/siteward.toml        names them; put in place last: until then whatever ran before runs on
//!   /etc/siteward/siteward.toml.before what was there
//! ```
//!
//! Files are root's and readable by the group of the configuration directory, which the service runs as; where that is root's, by the group
//! `siteward` if the machine has one (a program installed by hand). A user who is not root keeps them to himself. Private ones are not open to
//! anybody else. A repeated enrolment puts the rights of what is there already in order too.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::bundle::Bundle;
use crate::config::{self, Files};
use crate::limits::{CONFIG_BYTES_MAX, TLS_FILE_BYTES_MAX};
use crate::status::access;
use crate::status::table::put;

/// Digits of a bundle's id in the name of its directory.
const ID_DIGITS: usize = 16;
pub(super) const GATEWAY_KEY: &str = "gateway.key";
pub(super) const GATEWAY_CERT: &str = "gateway.pem";
pub(super) const ENROLMENT_KEY: &str = "enrolment.key";
pub(super) const ENROLMENT_CERT: &str = "enrolment.pem";
pub(super) const CA: &str = "ca.pem";

/// The directory of one enrolment.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    config: PathBuf,
}

fn told(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: cannot be written or read: {error}; run this as root, and check that the disk is not full")
}

impl Place {
    /// Makes the directory, with those above it that are missing.
    pub(super) fn open(config: &Path, bundle: &Bundle) -> Result<Self, String> {
        let config = std::path::absolute(config).map_err(told(config))?;
        let base = config.parent().ok_or_else(|| format!("{}: is no place for a configuration file", config.display()))?.to_owned();
        let enrolled = base.join("enrolled");
        let directory = enrolled.join(&bundle.bundle[..ID_DIGITS]);
        let place = Self { directory, config };
        std::fs::create_dir_all(&base).map_err(told(&base))?;
        for one in [&enrolled, &place.directory] {
            if let Err(error) = DirBuilder::new().mode(0o750).create(one)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(told(one)(error));
            }
            place.give(one, 0o750).and_then(|()| sync_parent(one)).map_err(told(one))?;
        }
        place.give_again().map_err(told(&place.directory))?;
        Ok(place)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `None`: not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&path)(error)),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
        file.take(TLS_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(told(&path))?;
        Ok(Some(bytes))
    }

    /// Private where `mode` says so; the group that reads it is given with it.
    pub(super) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
        let path = self.path(name);
        self.put(&path, bytes, mode).map_err(told(&path))
    }

    fn put(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let fresh = fresh(path);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        self.give(&fresh, mode)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        sync_parent(path)
    }

    /// What an interrupted enrolment left, with the modes it has; there are as many files as this module has names.
    fn give_again(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            self.give(&entry.path(), entry.metadata()?.mode() & 0o777)?;
        }
        Ok(())
    }

    /// To the group that the service runs as, where we may; else its owner alone.
    fn give(&self, path: &Path, mode: u32) -> io::Result<()> {
        let base = self.config.parent().map(std::fs::metadata).transpose()?.map_or(0, |base| base.gid());
        let group = if base == 0 { group_of_service() } else { base };
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        let mode = if is_root || mode & 0o004 != 0 { mode } else { mode & 0o700 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// What served its purpose; one that is gone already is no fault.
    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Ok(()) => sync_parent(&path).map_err(told(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(told(&path)(error)),
        }
    }

    /// Puts the configuration in place, once it was found good; what was there is kept beside it.
    pub(super) fn commit(&self, text: &str) -> Result<(), String> {
        let (config, fresh) = (&self.config, fresh(&self.config));
        self.put(&fresh, text.as_bytes(), 0o640).map_err(told(&fresh))?;
        config::load_with(&fresh, Files::OnSite)
            .map_err(|faults| format!("the configuration that would be written is not good; tell central IT:\n{faults}"))?;
        match std::fs::read(config) {
            Ok(before) if before != text.as_bytes() => {
                let kept = PathBuf::from(format!("{}.before", config.display()));
                self.put(&kept, &before, 0o640).map_err(told(&kept))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(told(config)(error)),
        }
        std::fs::rename(&fresh, config).and_then(|()| sync_parent(config)).map_err(told(config))
    }
}

/// The group `siteward` of this machine; root's where it has none.
fn group_of_service() -> u32 {
    std::fs::read_to_string("/etc/group").ok().and_then(|groups| access::gid_of(&groups, "siteward")).unwrap_or(0)
}

fn fresh(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.fresh", path.display()))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// What stands in the way of a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing, or one that never had a certificate (as shipped).
    Free,
    /// Of this very bundle.
    Ours,
    /// Of this gateway, by another bundle or by hand; its text.
    SameGateway(String),
}

/// Looks at what is configured. An error is the reason not to go on.
pub(super) fn before(config: &Path, place: &Path, bundle: &Bundle) -> Result<Before, String> {
    let mut text = String::new();
    match File::open(config) {
        Ok(file) => file.take(CONFIG_BYTES_MAX).read_to_string(&mut text).map_err(told(config))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Before::Free),
        Err(error) => return Err(told(config)(error)),
    };
    let settings = config::load_bootstrap_unchecked(config).map_err(|faults| {
        format!(
            "{}: is there and cannot be understood, so nobody can say whose it is; move it away if it is not needed:\n{faults}",
            config.display()
        )
    })?;
    let cert = settings.uplink.cert.as_deref();
    if cert.is_some_and(|cert| cert == place.join(GATEWAY_CERT)) {
        return Ok(Before::Ours);
    }
    if cert.is_none_or(|cert| !cert.exists()) && !settings.spool.path.join("heads.a").exists() {
        return Ok(Before::Free); // it never reached a hub, and never ran
    }
    let (site, gateway) = (&settings.gateway.site, &settings.gateway.id);
    if (site, gateway) != (&bundle.site, &bundle.gateway) {
        return Err(format!(
            "the bundle is for gateway {} at {}, and this box is gateway {gateway} at {site}; check that you stand at the right box. To make \
             another gateway of it, retire it first: siteward retire",
            bundle.gateway, bundle.site
        ));
    }
    Ok(Before::SameGateway(text))
}

/// The way out of a site where nothing leaves except through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// `http://host:port`.
    pub proxy: String,
    /// The name of the secret for it.
    pub credential: Option<String>,
}

impl Way {
    pub fn of(bundle: &Bundle) -> Option<Self> {
        bundle.proxy.clone().map(|proxy| Self { proxy, credential: bundle.proxy_credential.clone() })
    }
}

/// The configuration of a gateway that everything else reaches as documents. `kept`: of an earlier file, what is not about who it is.
pub(crate) fn configuration(bundle: &Bundle, signer: &str, place: &Path, spool: &Path, way: Option<&Way>, kept: Option<&str>) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |name: &str| quoted(&place.join(name).display().to_string());
    let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
    let files = |kind: &str, count: usize| list((1..=count).map(|number| path(&trust_file(kind, number))).collect());
    let trust = &bundle.trust;
    let groups = bundle.groups.iter().map(|group| quoted(group.as_str())).collect();
    let mut text = format!(
        "# Written by `siteward enroll` from bundle {id}, signed by {signer}.\n# Feeds come as documents of central IT.\n\n\
         [gateway]\nsite = {site}\nid = {gateway}\ntimezone = {timezone}\n{groups}\n\
         [uplink]\nendpoints = {endpoints}\nca = {ca}\ncert = {cert}\nkey = {key}\n{way}\n\
         [trust]\nkeys = {keys}\nthreshold = {threshold}\n",
        id = bundle.bundle,
        site = quoted(bundle.site.as_str()),
        gateway = quoted(bundle.gateway.as_str()),
        timezone = quoted(&bundle.timezone),
        groups = if bundle.groups.is_empty() { String::new() } else { format!("groups = {}\n", list(groups)) },
        endpoints = list(bundle.endpoints.iter().map(|url| quoted(url)).collect()),
        ca = path(CA),
        cert = path(GATEWAY_CERT),
        key = path(GATEWAY_KEY),
        way = [("proxy", way.map(|way| &way.proxy)), ("proxy_credential", way.and_then(|way| way.credential.as_ref()))]
            .into_iter()
            .filter_map(|(name, value)| Some([name, " = ", &quoted(value?), "\n"].concat()))
            .collect::<String>(),
        keys = files("desk", trust.keys.len()),
        threshold = trust.threshold,
    );
    if !trust.recovery_keys.is_empty() {
        let keys = files("recovery", trust.recovery_keys.len());
        put(&mut text, format_args!("recovery_keys = {keys}\nrecovery_threshold = {}\n", trust.recovery_threshold));
    }
    if !trust.command_keys.is_empty() {
        let keys = files("command", trust.command_keys.len());
        put(&mut text, format_args!("command_keys = {keys}\ncommand_threshold = {}\n", trust.command_threshold));
    }
    if let Some(kept) = kept {
        put(&mut text, format_args!("\n{kept}"));
    } else {
        put(&mut text, format_args!("\n[spool]\npath = {}\nkey = \"auto\"\n", quoted(&spool.display().to_string())));
        // As in the file that is shipped.
        text.push_str("\n[status]\nlisten = \"127.0.0.1:8090\"\n");
    }
    text
}

pub(super) fn trust_file(kind: &str, number: usize) -> String {
    format!("trust-{kind}-{number}.pub")
}

/// The sections of an earlier file that are not about who the gateway is. Whether nothing went astray is for the caller to compare.
pub(super) fn others(text: &str) -> String {
    const REPLACED: [&str; 3] = ["gateway", "uplink", "trust"];
    let (mut keep, mut kept) = (false, String::new());
    for line in text.lines() {
        let header = line.trim_start();
        if header.starts_with('[') {
            let name = header.trim_start_matches('[').split([']', '.']).next().unwrap_or_default().trim();
            keep = !REPLACED.contains(&name);
        }
        if keep {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::bundle::tests::{bundle, key};
    use super::*;

    #[test]
    fn the_configuration_of_a_bundle_is_a_good_one_and_what_the_site_added_is_carried_over() {
        let bundle = bundle(&key());
        let (place, spool) = (Path::new("/etc/siteward/enrolled/0123456789abcdef"), Path::new("/var/lib/a \"b\""));
        let text = configuration(&bundle, "signer", place, spool, None, None);
        let settings = config::parse_text(Path::new("/etc/siteward/siteward.toml"), &text).unwrap();
        assert_eq!(settings.gateway.id, bundle.gateway);
        assert_eq!(settings.gateway.groups.len(), 1);
        assert_eq!(settings.spool.path, spool);
        assert_eq!(settings.uplink.cert.as_deref(), Some(place.join(GATEWAY_CERT).as_path()));
        let added = format!("{text}\n[[feed]]\nid = \"a\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:1\"\n");
        let again = configuration(&bundle, "signer", place, Path::new("/elsewhere"), None, Some(&others(&added)));
        let settings = config::parse_text(Path::new("/etc/siteward/siteward.toml"), &again).unwrap();
        assert_eq!((settings.feeds.len(), settings.spool.path.as_path()), (1, spool));
    }

    #[test]
    fn the_way_out_of_a_bundle_is_that_of_the_configuration() {
        let bundle = Bundle { proxy: Some("http://proxy:3128".into()), proxy_credential: Some("uplink-proxy".into()), ..bundle(&key()) };
        let text = configuration(&bundle, "", Path::new("/etc"), Path::new("/var/lib/siteward"), Way::of(&bundle).as_ref(), None);
        let settings = config::parse_text(Path::new("/etc/siteward/siteward.toml"), &text).unwrap();
        let proxy = settings.uplink.proxy.unwrap();
        assert_eq!((proxy.to_string().as_str(), proxy.credential.unwrap().name()), ("http://proxy:3128", "uplink-proxy"));
        let hostile = Way { proxy: "http://p:1\"\n[trust]\nkeys = []\n#".into(), credential: None };
        let text = configuration(&bundle, "", Path::new("/etc"), Path::new("/var/lib/siteward"), Some(&hostile), None);
        assert!(config::parse_text(Path::new("/etc/siteward/siteward.toml"), &text).is_err(), "a value stays a value");
    }

    #[test]
    fn a_file_is_written_whole_private_and_never_half() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("siteward.toml");
        let place = Place::open(&config, &bundle(&key())).unwrap();
        place.write(GATEWAY_KEY, b"secret", 0o640).unwrap();
        place.write(GATEWAY_KEY, b"other", 0o640).unwrap();
        assert_eq!(place.read(GATEWAY_KEY).unwrap().unwrap().as_slice(), b"other");
        let mode = std::fs::metadata(place.path(GATEWAY_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{mode:o}");
        assert_eq!(place.read(CA).unwrap(), None);
        place.remove(CA).unwrap();
        let bundle = bundle(&key());
        assert_eq!(before(&config, &place.path(""), &bundle), Ok(Before::Free));
        assert!(place.commit("[gateway]\n").is_err(), "what is not good is not put in place");
        assert!(!config.exists());
        std::fs::write(&config, "nonsense").unwrap();
        assert!(before(&config, &place.path(""), &bundle).unwrap_err().contains("cannot be understood"));
    }
}
