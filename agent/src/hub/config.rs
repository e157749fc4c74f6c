//! Documents at the desk: looked at, signed, published for a gateway.
//!
//! 1. [`lint`] is what the gateway will do, without keys: the same reading, the same validation against the gateway's own local file where it is at
//!    hand, else against one that allows everything a document may rely on.
//! 2. [`sign`] lints first: what a gateway would refuse is not worth a signature.
//! 3. [`push`] publishes an envelope retained on `config/desired` and waits for the broker's acknowledgement. It cannot know what the gateway makes
//!    of it; that is on `config/reported`.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::connection::publish;
use super::keys::Signer;
use super::receive::RuntimeDirectory;
use crate::config::Files;
use crate::config::document::{self, BootstrapText, Document, Identity};
use crate::config::envelope::{self, DOCUMENT_TYPE};
use crate::config::header::Selector;
use crate::config::refusal::Refusal;
use crate::config::settings::Endpoint;
use crate::contract::topic::Topics;
use crate::limits::{CONNECT_TIMEOUT, DOCUMENT_BYTES_MAX};
use crate::record::Name;
use crate::uplink::tls::TlsFiles;

/// A document that a gateway would take, as far as can be said at a desk.
#[derive(Debug)]
pub struct Linted {
    pub document: Document,
    /// What is permitted and rarely meant.
    pub warnings: Vec<String>,
}

/// Reads and validates a document that is not signed yet.
pub fn lint(file: &Path, bootstrap: Option<&Path>) -> Result<Linted, String> {
    lint_text(file, read(file)?, bootstrap)
}

/// The same for a document that is at hand; `file` names it in faults.
pub fn lint_text(file: &Path, payload: Vec<u8>, bootstrap: Option<&Path>) -> Result<Linted, String> {
    let document = document::read_unsigned(payload).map_err(|refusal| told(file, refusal))?;
    let mut warnings = Vec::new();
    let local = match bootstrap {
        Some(local) => BootstrapText::read(local).map_err(|faults| faults.to_string())?,
        None => any_gateway(),
    };
    let settings = document::effective(&local, Some(&document), Files::NotChecked, None).map_err(|refusal| match refusal {
        Refusal::Invalid(faults) if faults.file == local.file => faults.to_string(), // of the gateway's own file
        other => told(file, other),
    })?;
    if bootstrap.is_some() {
        document::judge(&document, &Identity::of(&settings.gateway), 0, None).map_err(|refusal| told(file, refusal))?;
        if settings.trust.keys.is_empty() {
            warnings.push(format!("{}: trust.keys: is missing, so this gateway takes no document", local.file.display()));
        }
    }
    if let Some(moved) = &settings.moved {
        let text = "other than those a gateway has already it takes with the signature of its recovery keys only";
        warnings.push(format!("{}: [bootstrap] changes {}: {text}", file.display(), moved.what()));
    }
    if settings.feeds.is_empty() {
        warnings.push(format!("{}: lists no feed; every feed of the gateway would stop", file.display()));
    }
    Ok(Linted { document, warnings })
}

/// A local file that forbids nothing a document may do.
pub fn any_gateway() -> BootstrapText {
    let text = "[gateway]\nsite = \"any\"\nid = \"any\"\ntimezone = \"UTC\"\n[uplink]\nendpoints = [\"mqtts://hub.invalid\"]\n\
                allow_plaintext = true\nca = \"/ca\"\ncert = \"/cert\"\nkey = \"/key\"\n";
    BootstrapText { file: PathBuf::from("/etc/siteward/siteward.toml"), text: text.to_owned(), moved: None }
}

/// The JSON Schema of documents, for editors.
pub const SCHEMA: &str = include_str!("../../contract/schemas/document.json");

/// A document to begin with.
pub fn skeleton(gateway: Option<&Name>, group: Option<&Name>, revision: u64, author: &str) -> Result<String, String> {
    if author.is_empty() || author.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err("--author: must be plain text without quotes".to_owned());
    }
    let selector = match (gateway, group) {
        (Some(gateway), _) => format!("gateway = \"{gateway}\""),
        (None, Some(group)) => format!("groups = [\"{group}\"]"),
        (None, None) => "gateway = \"st-marys-gw1\"          # or groups = [\"us-east\"]".to_owned(),
    };
    let text = include_str!("skeleton.toml").replace("@REVISION@", &revision.to_string());
    Ok(text.replace("@SELECTOR@", &selector).replace("@AUTHOR@", author))
}

/// Writes a file whole or not at all.
pub fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), String> {
    use std::io::Write as _;
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".fresh");
    let fresh = PathBuf::from(fresh);
    let written = std::fs::File::create(&fresh).and_then(|mut open| {
        open.write_all(bytes)?;
        open.sync_all()
    });
    written.and_then(|()| std::fs::rename(&fresh, file)).map_err(|error| format!("{}: cannot be written: {error}", file.display()))
}

/// The bytes of a document or envelope, within bounds.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let most = DOCUMENT_BYTES_MAX as u64 + 1;
    open.take(most).read_to_end(&mut bytes).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("{}: {}", file.display(), Refusal::TooLarge { bytes: bytes.len() }));
    }
    Ok(bytes)
}

/// As the desk tells it.
fn told(file: &Path, refusal: Refusal) -> String {
    refusal.in_file(file).to_string()
}

/// The envelope of a document that passed [`lint`].
pub fn sign(linted: &Linted, signers: &[Signer]) -> Result<String, String> {
    if let Some((index, twice)) = signers.iter().enumerate().find(|(index, s)| signers[..*index].iter().any(|other| other.id() == s.id())) {
        return Err(format!("key {} ({}) is given twice; every signature needs a key of its own", index + 1, twice.id()));
    }
    let payload = linted.document.text.as_bytes();
    let message = envelope::pae(DOCUMENT_TYPE, payload);
    let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(&message)).collect();
    let envelope = envelope::write(DOCUMENT_TYPE, payload, &signatures);
    if envelope.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("signed, {}", Refusal::TooLarge { bytes: envelope.len() }));
    }
    Ok(envelope)
}

/// Where to publish, and for whom.
#[derive(Clone, Debug)]
pub struct Push {
    pub broker: Endpoint,
    pub tls: Option<TlsFiles>,
    pub client_id: String,
    pub site: Name,
    pub gateway: Name,
}

/// Publishes the envelope in a file.
pub async fn push(push: &Push, file: &Path) -> Result<(), String> {
    let bytes = read(file)?;
    let envelope = envelope::read(&bytes).map_err(|refusal| told(file, refusal))?;
    if envelope.payload_type != DOCUMENT_TYPE {
        return Err(told(file, Refusal::WrongPayloadType { need: DOCUMENT_TYPE }));
    }
    let document = document::read_unsigned(envelope.payload).map_err(|refusal| told(file, refusal))?;
    if let Selector::Gateway(gateway) = &document.header.selector
        && *gateway != push.gateway
    {
        return Err(format!("{}: is for gateway {gateway}, not for {}", file.display(), push.gateway));
    }
    let socket = std::env::temp_dir().join(format!("siteward-push-{}", std::process::id()));
    let directory = RuntimeDirectory::new(&socket).map_err(|error| error.to_string())?;
    let topic = Topics::new(&push.site, &push.gateway).desired();
    let deadline = Instant::now() + 2 * CONNECT_TIMEOUT;
    publish(&push.broker, push.tls.as_ref(), (&push.client_id, directory.path()), (topic, bytes), deadline).await
}
