//! Commands from the desk: signed for what a gateway reported last, sent, and their answer waited for.
//!
//! 1. [`standing`] reads the gateway's retained reported state: the challenge a command must quote, the counter it must exceed, and what is allowed
//!    there. Without a broker both are given by hand, from the same report.
//! 2. [`sign`] puts the command into an envelope. The verb and its arguments are read as the gateway reads them, so that nothing it would refuse for
//!    its form is signed.
//! 3. [`send`] publishes it, never retained, again every few seconds, until the result for its counter comes or the time is over. The gateway carries
//!    it out at most once however often it comes; a repetition is answered from its memory.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::config::Push;
use super::connection::converse;
use super::keys::Signer;
use super::receive::RuntimeDirectory;
use crate::config::envelope;
use crate::contract::topic::Topics;
use crate::limits::{COMMAND_TEXT_BYTES_MAX, CONNECT_TIMEOUT, DOCUMENT_BYTES_MAX};
use crate::record::Name;
use crate::rollout::command::{Answer, COMMAND_TYPE, Verb, VerbName};

/// What a gateway reports for whoever signs a command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Standing {
    pub challenge: String,
    pub highest_counter: u64,
    #[serde(default)]
    pub allowed: Vec<VerbName>,
}

#[derive(Deserialize)]
struct Reported {
    commands: Standing,
}

/// What to command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub verb: VerbName,
    pub args: Map<String, Value>,
    pub author: String,
    pub reason: String,
}

impl Wish {
    /// Reads a verb and `name=value` pairs; numbers are numbers. The error is a sentence.
    pub fn read(verb: &str, args: &[String], author: &str, reason: &str) -> Result<Self, String> {
        let verb = VerbName::read(verb).ok_or_else(|| format!("{verb:?} is no command; known are {}", VerbName::list()))?;
        let mut map = Map::new();
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or_else(|| format!("{arg:?} is not name=value"))?;
            let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
            // A feed may be called 42.
            let value = if name == "feed" { json!(arg.split_once('=').map_or("", |(_, text)| text)) } else { value };
            if map.insert(name.to_owned(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Verb::read(verb, map.clone()).map_err(|why| format!("{verb}: {why}"))?;
        for (name, text) in [("author", author), ("reason", reason)] {
            if text.trim().is_empty() || text.len() > COMMAND_TEXT_BYTES_MAX {
                return Err(format!("the {name} must have 1 to {COMMAND_TEXT_BYTES_MAX} bytes; say who wants this and why"));
            }
        }
        Ok(Self { verb, args: map, author: author.to_owned(), reason: reason.to_owned() })
    }
}

/// The envelope of a command for a gateway that stands like this.
pub fn sign(wish: &Wish, gateway: &Name, standing: &Standing, signers: &[Signer]) -> Result<String, String> {
    let counter = standing.highest_counter.checked_add(1).ok_or("the gateway's counter is used up")?;
    let payload = json!({
        "gateway": gateway, "counter": counter, "challenge": standing.challenge, "verb": wish.verb, "args": wish.args,
        "author": wish.author, "reason": wish.reason,
    });
    let payload = payload.to_string();
    let message = envelope::pae(COMMAND_TYPE, payload.as_bytes());
    let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(&message)).collect();
    Ok(envelope::write(COMMAND_TYPE, payload.as_bytes(), &signatures))
}

fn runtime_directory() -> Result<RuntimeDirectory, String> {
    let socket = std::env::temp_dir().join(format!("siteward-command-{}", std::process::id()));
    RuntimeDirectory::new(&socket).map_err(|error| error.to_string())
}

/// What the gateway reported last.
pub async fn standing(to: &Push) -> Result<Standing, String> {
    let directory = runtime_directory()?;
    let topic = Topics::new(&to.site, &to.gateway).reported();
    let deadline = Instant::now() + 2 * CONNECT_TIMEOUT;
    let read = |payload: &[u8]| serde_json::from_slice::<Reported>(payload).ok().map(|reported| reported.commands);
    let found = converse(&to.broker, to.tls.as_ref(), (&to.client_id, directory.path()), (&topic, None), deadline, read).await;
    found.map_err(|why| format!("{why}; has the gateway reported, and does it take commands ([trust] keys)?"))
}

/// Publishes the command in a file and waits for its result, at most so long.
pub async fn send(to: &Push, file: &Path, wait: Duration) -> Result<Answer, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("{}: is larger than a command may be", file.display()));
    }
    send_bytes(to, bytes, wait).await.map_err(|why| format!("{}: {why}", file.display()))
}

/// As [`send`], for an envelope that is at hand.
pub async fn send_bytes(to: &Push, bytes: Vec<u8>, wait: Duration) -> Result<Answer, String> {
    let envelope = envelope::read(&bytes).map_err(|refusal| refusal.to_string())?;
    if envelope.payload_type != COMMAND_TYPE {
        return Err("holds no command; documents are sent with `siteward-hub config push`".to_owned());
    }
    let command: Value = serde_json::from_slice(&envelope.payload).map_err(|_| "what is in the envelope is no command".to_owned())?;
    if command["gateway"] != json!(to.gateway) {
        return Err(format!("is for another gateway than {}", to.gateway));
    }
    let counter = command["counter"].as_u64();
    let topics = Topics::new(&to.site, &to.gateway);
    let directory = runtime_directory()?;
    let say = Some((topics.command(), bytes));
    let topic = topics.command_result();
    let mut unnamed = None;
    let read = |payload: &[u8]| {
        let answer: Answer = serde_json::from_slice(payload).ok()?;
        if answer.counter.is_none() {
            unnamed = Some(answer.text.clone()); // it may be the answer to somebody else
        }
        (answer.counter == counter && !["running", "busy"].contains(&answer.code.as_str())).then_some(answer)
    };
    let deadline = Instant::now() + wait;
    converse(&to.broker, to.tls.as_ref(), (&to.client_id, directory.path()), (&topic, say), deadline, read).await.map_err(|why| {
        match unnamed {
            Some(text) => format!("{why}; the gateway refused a command without saying whose, perhaps this one: {text}"),
            None => format!("{why}; whether it was carried out is not known: send it again, it is carried out at most once"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_the_gateway_would() {
        let args = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
        let read = |verb: &str, of: &[&str]| Wish::read(verb, &args(of), "kim", "CHG-1");
        let wish = read("release_quarantine", &["feed=42", "first=7", "last=9"]).unwrap();
        assert_eq!(Value::Object(wish.args), json!({ "feed": "42", "first": 7, "last": 9 }));
        assert!(read("log_level", &["level=debug", "for_s=60"]).is_ok() && read("checkpoint", &[]).is_ok());
        assert!(read("shell", &[]).unwrap_err().contains("known are pause_feed"));
        assert!(read("pause_feed", &[]).unwrap_err().contains("must hold feed"));
        assert!(read("pause_feed", &["feed"]).unwrap_err().contains("name=value"));
        assert!(read("pause_feed", &["feed=a", "feed=b"]).unwrap_err().contains("twice"));
        assert!(Wish::read("checkpoint", &[], "kim", " ").unwrap_err().contains("reason"));
    }
}
