//! The sending side of the demonstration: an operating room's system that speaks HL7 v2 over MLLP, one message at a time, and waits for each
//! answer. The messages are made up: no person, no hospital, no product is real.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const START: u8 = 0x0B;
const END: [u8; 2] = [0x1C, 0x0D];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4096;

/// A message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub control_id: String,
    pub kind: &'static str,
    pub what: &'static str,
    pub bytes: Vec<u8>,
}

const ITEMS: [(&str, &str, &str); 6] = [
    ("SUT-3-0", "Suture 3-0 absorbable", "12.40"),
    ("MESH-10", "Mesh 10x15 cm", "310.00"),
    ("GLV-7.5", "Gloves sterile 7.5", "0.92"),
    ("SCR-35", "Locking screw 3.5 x 20", "48.10"),
    ("CATH-16", "Catheter 16 Fr", "7.75"),
    ("DRP-LG", "Drape large", "5.30"),
];

/// The `n`th message (from 1): usage, cabinet movement and order in turn.
pub fn sample(n: usize) -> Sample {
    let (item, name, price) = ITEMS[n % ITEMS.len()];
    let control_id = format!("DEMO{n:05}");
    let quantity = n % 4 + 1;
    let case = 7000 + n / 3;
    let at = format!("20261122{:02}{:02}00", 8 + n / 60, n % 60);
    let (kind, what, body) = match n % 3 {
        1 => (
            "DFT^P03",
            "supply used in a case",
            format!(
                "EVN|P03|{at}\rPID|1||TEST-{case}^^^DEMO^MR||TEST^PATIENT\rPV1|1|I|OR-2^^^DEMO\r\
                 FT1|1|||{at}||CG|{item}^{name}^DEMO|||{quantity}|{price}||OR-2^^^DEMO\r"
            ),
        ),
        2 => ("ZPM^Z01", "taken from a cabinet", format!("ZPM|V|CAB-OR2|{at}|{item}|{name}|{quantity}|EA|DRAWER 4|TECH-DEMO\r")),
        _ => (
            "ORM^O01",
            "restock order",
            format!("ORC|NW|RQ-{n}|||||||{at}\rOBR|1|RQ-{n}||{item}^{name}^DEMO\rRQD|1|{item}|||{quantity}|EA\r"),
        ),
    };
    let bytes = format!("MSH|^~\\&|ORSYS|DEMO|SITEWARD|HUB|{at}||{kind}|{control_id}|T|2.5\r{body}").into_bytes();
    Sample { control_id, kind, what, bytes }
}

/// A connection to the gateway.
#[derive(Debug)]
pub struct Sender(TcpStream);

impl Sender {
    pub async fn connect(feed: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpStream::connect(feed).await?))
    }

    /// Sends one message and waits for its answer: the code in MSA-1, if MSA-2 names our message.
    pub async fn send(&mut self, sample: &Sample) -> io::Result<String> {
        let frame = [&[START][..], &sample.bytes, &END].concat();
        self.0.write_all(&frame).await?;
        let answer = timeout(ANSWER_TIMEOUT, self.answer()).await.map_err(|_| io::Error::other("no answer within 10 s"))??;
        let text = String::from_utf8_lossy(&answer);
        let msa = text.split('\r').find_map(|segment| segment.trim_start().strip_prefix("MSA|")).unwrap_or("");
        let mut fields = msa.split('|');
        match (fields.next(), fields.next()) {
            (Some(code), Some(id)) if id == sample.control_id => Ok(code.to_owned()),
            _ => Err(io::Error::other("the answer does not name our message")),
        }
    }

    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut block = [0; 512];
        while !answer.ends_with(&END) {
            let read = self.0.read(&mut block).await?;
            if read == 0 || answer.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("the gateway closed the connection without an answer"));
            }
            answer.extend_from_slice(&block[..read]);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_messages_with_their_own_control_ids() {
        for n in 1..=40 {
            let Sample { control_id, bytes, kind, .. } = sample(n);
            let text = String::from_utf8(bytes).unwrap();
            let msh: Vec<&str> = text.split('\r').next().unwrap().split('|').collect();
            assert_eq!((msh[8], msh[9], msh[10]), (kind, control_id.as_str(), "T"), "marked as a test");
            assert!(text.ends_with('\r') && !text.contains('\n'));
        }
    }
}
