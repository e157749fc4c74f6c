//! A watch over the control socket: one JSON line per message as it happens.
//!
//! ```text
//! ◄─ {"watching":"or-usage"}                 attached: every message from here on is seen
//! ◄─ {"message":{…}}                         one per message, `tap::Observed`
//! ◄─ {"ended":"count","messages":3,"dropped":0}      or "time"
//! ```
//!
//! It ends when enough came, when its time is over, or when the client hangs up, whichever is first. A client that does not read loses
//! messages (counted) and after [`CONTROL_TIMEOUT`] its watch.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::CONTROL_TIMEOUT;
use crate::source::tap::{Observed, Watch};

/// A line to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Line {
    Watching { watching: String },
    Message { message: Box<Observed> },
    Ended { ended: Ended, messages: u64, dropped: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Count,
    Time,
}

/// A watch that is to be served.
#[derive(Debug)]
pub struct Watching {
    pub feed: String,
    pub watch: Watch,
    pub count: u64,
    pub time: Duration,
}

impl Watching {
    /// Serves it to its end.
    pub async fn serve(mut self, stream: &mut UnixStream) -> io::Result<()> {
        let end = Instant::now() + self.time;
        let mut messages = 0;
        write(stream, &Line::Watching { watching: self.feed.clone() }).await?;
        let mut unread = [0u8; 64];
        let ended = loop {
            if messages >= self.count {
                break Ended::Count;
            }
            tokio::select! {
                biased;
                () = sleep_until(end) => break Ended::Time,
                // Nothing is expected and nothing is made of it, but the client may have gone.
                read = stream.read(&mut unread) => if read? == 0 { return Ok(()) },
                observed = self.watch.next() => {
                    let Some(observed) = observed else { break Ended::Time };
                    messages += 1;
                    write(stream, &Line::Message { message: Box::new(observed) }).await?;
                }
            }
        };
        write(stream, &Line::Ended { ended, messages, dropped: self.watch.dropped() }).await?;
        stream.shutdown().await
    }
}

async fn write(stream: &mut UnixStream, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    timeout(CONTROL_TIMEOUT, stream.write_all(&bytes)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
