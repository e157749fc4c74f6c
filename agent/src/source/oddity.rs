//! What can be odd about a peer: a closed list, each with the sentence that tells somebody what to do.
//!
//! The first of each kind on a connection is logged; later ones are counted and summed up when the connection ends. Those somebody should
//! act upon also raise a condition of the feed, which ends by itself when nothing of the kind came for `ODDITY_HOLD`. No content anywhere
//! (I7).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::limits::{ODDITY_CHECK_INTERVAL, ODDITY_HOLD};
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;

macro_rules! oddities {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $condition:expr, $text:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Oddity { $($(#[$doc])* $name,)* }

        impl Oddity {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its name in logs and quarantine.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
            /// What happened and what to do.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            fn condition(self) -> Option<Code> {
                match self { $(Self::$name => $condition,)* }
            }
        }
    };
}

oddities! {
    Junk = "junk_between_frames", Some(Code::FrameUnusable),
        "peer sends bytes between frames; they were skipped. Have the sender send nothing between 0x1C 0x0D and the next 0x0B";
    Unframed = "unframed_message", Some(Code::FrameUnusable),
        "peer sends HL7 without MLLP framing; nothing of it was taken or answered. Turn MLLP framing (0x0B … 0x1C 0x0D) on in the sender";
    TlsHello = "tls_on_plain_port", Some(Code::FrameUnusable),
        "peer starts TLS on a port without TLS; connection closed. Turn TLS off in the sender's connection to this port";
    HttpRequest = "http_on_mllp_port", Some(Code::FrameUnusable),
        "peer sends HTTP to an MLLP port; connection closed. Point the client (or the port scanner) elsewhere";
    JunkBudget = "too_much_junk", Some(Code::FrameUnusable),
        "peer sent too many bytes that are no frame; connection closed. Check that the sender speaks MLLP";
    Restarted = "frame_restarted", Some(Code::FrameUnusable),
        "peer began a frame inside a frame; the first part went to quarantine unanswered. Look for restarts of the sender at this time";
    OverLimit = "over_limit", Some(Code::FrameOverLimit),
        "peer sent a frame above message_bytes_max; it is discarded and refused. Raise spool.message_bytes_max or have the sender \
         send less at once";
    DiscardBudget = "over_limit_without_end", Some(Code::FrameOverLimit),
        "peer sent a frame far above message_bytes_max that does not end; connection closed. Check what the sender sends";
    FrameTimeout = "frame_timeout", Some(Code::FrameUnusable),
        "peer began a frame and did not end it in time; connection closed, the part received is in quarantine, nothing was answered. \
         Check the network to the sender, or raise the feed's frame_timeout";
    CutOff = "connection_lost_in_frame", None,
        "connection ended inside a frame; the part received is in quarantine, nothing was answered. The sender should send it again";
    NoHeader = "no_header", Some(Code::FrameUnusable),
        "peer sent a frame that does not begin with MSH, FHS or BHS; rejected, its bytes are in quarantine. Check the sender's \
         message template";
    NoControlId = "no_control_id", Some(Code::FrameUnusable),
        "peer sent a message without MSH-10; refused, its bytes are in quarantine. Have the sender fill MSH-10, or \
         allow_missing_control_id on this feed";
    ControlIdUnusable = "control_id_unusable", Some(Code::FrameUnusable),
        "peer sent an MSH-10 that no acknowledgement can hold; refused, its bytes are in quarantine. Check the sender's MSH-10";
    UnknownManner = "unknown_acknowledgement_mode", None,
        "peer sets MSH-15 or MSH-16 to a value outside HL7 table 0155; it is read as empty. Nothing is lost; correct it in the sender";
    Acknowledgement = "acknowledgement_received", None,
        "peer sends an acknowledgement to a listener; it is neither stored nor answered. Check the direction of the sender's connection";
    CommitBlock = "commit_block_received", None,
        "peer sends commit blocks of MLLP release 2; they are ignored. Set the sender to MLLP release 1";
    Batch = "batch_in_a_frame", None,
        "peer sends several messages in one frame (FHS, BHS or more than one MSH); they are stored as one record and each is answered, \
         see batch_ack";
    BatchMismatch = "batch_count_mismatch", Some(Code::BatchCountMismatch),
        "peer sent a batch whose trailer (BTS-1, FTS-1) does not fit its messages, or is missing; it is stored whole and flagged. Ask the \
         sender's people whether messages are missing, and have them send those again";
    MixedTests = "test_and_production_in_one_frame", None,
        "peer sends messages for test (MSH-11 T or D) and for production in one frame; the whole frame is taken as test. Have the sender \
         keep them apart";
    NotAccepted = "header_not_accepted", Some(Code::FrameUnusable),
        "peer sent a message that the feed's strict edits do not take (type, version or processing id); refused, its bytes are in \
         quarantine. Correct the sender's routing, or the lists in [feed.mllp.strict]";
    UnknownCharset = "unknown_character_set", None,
        "peer names a character set in MSH-18 that is not known or cannot be carried; bytes are kept as they are. Set the feed's charset to \
         what the sender really sends";
    LargeFrameWait = "no_room_for_large_frame", None,
        "too many large frames at once; connection closed without an answer. The sender should send again; if it repeats, lower the \
         number of connections";
    StoreFailed = "store_failed", None,
        "message could not be stored and was refused (on_store_failure = \"nak\"); many senders then give it up. See the spool's \
         condition and free it";
    ReplyNotTaken = "reply_not_taken", None,
        "peer does not read its acknowledgement; connection closed. The message is safe; if the sender repeats it, it is recognised \
         as a duplicate";
    UnframedRest = "unframed_rest", Some(Code::FrameUnusable),
        "peer without framing went on with a message after the silence that had ended it: only its first part was taken and answered. \
         The rest is in quarantine, the connection closed. Have the sender send a message at once, better turn MLLP framing on";
    PlainOnTlsPort = "plain_on_tls_port", Some(Code::TlsRefused),
        "peer sends bytes without TLS to a port with TLS; connection closed. Turn TLS on in the sender's connection to this port";
    HandshakeTimeout = "tls_handshake_timeout", Some(Code::TlsRefused),
        "peer connected and did not finish its TLS handshake in time; connection closed. Check that TLS is on in the sender, and the \
         network to it";
    TlsVersions = "tls_versions", Some(Code::TlsRefused),
        "peer and gateway have no TLS version or cipher in common; connection closed. Let the sender use TLS 1.2 or 1.3";
    OurCertificateRefused = "certificate_refused_by_peer", Some(Code::TlsRefused),
        "peer does not accept this gateway's certificate; connection closed. Give the sender the authority that issued the feed's `cert`, \
         and check its names and dates";
    NoClientCertificate = "no_client_certificate", Some(Code::TlsRefused),
        "peer shows no certificate, but this feed asks for one (client_ca); connection closed. Configure a client certificate in the sender";
    ClientCaUnknown = "client_ca_unknown", Some(Code::TlsRefused),
        "peer's certificate was not issued by an authority in the feed's client_ca; connection closed. Issue one for the sender, or add \
         its authority to client_ca";
    ClientCertificateDates = "client_certificate_dates", Some(Code::TlsRefused),
        "peer's certificate has expired or is not valid yet; connection closed. Renew the sender's certificate, check both clocks";
    ClientCertificateUnusable = "client_certificate_unusable", Some(Code::TlsRefused),
        "peer's certificate cannot be used to prove a client; connection closed. Issue one with the extended key usage clientAuth";
    ClientSubjectUnknown = "client_subject_unknown", Some(Code::TlsRefused),
        "peer's certificate is good, but none of its names is in the feed's client_subjects; connection closed. Add its name there if \
         this sender may connect";
    TlsFailed = "tls_failed", Some(Code::TlsRefused),
        "TLS handshake with peer failed; connection closed. Check the TLS settings of the sender";
    PeerRefused = "peer_refused", Some(Code::PeerRefused),
        "connection from an address outside the feed's `peers`; closed at once. Add the address if this sender may connect, otherwise find \
         out who tries";
    TokenRefused = "token_refused", Some(Code::TlsRefused),
        "client shows no token of the feed's tokens_file, or one of another feed; answered with 401 or 403. Give the client a token of this \
         feed, or add the token's hash";
    MediaTypeRefused = "media_type_refused", Some(Code::FrameUnusable),
        "client posts a media type that this feed does not take; answered with 415. Have the client post JSON, or add the type to `accept`";
    BodyUnusable = "body_unusable", Some(Code::FrameUnusable),
        "client posted a body that is not what its media type says, or a request that cannot be; answered with 400, a body's beginning is in \
         quarantine. Check what the client sends";
    BodyOverLimit = "body_over_limit", Some(Code::FrameOverLimit),
        "client posted a body above spool.message_bytes_max (of many records: body_bytes_max), or too many records; answered with 413. Have \
         the client send less at once, or raise the limit";
    BodyTimeout = "body_timeout", Some(Code::FrameUnusable),
        "client began a body and did not end it in time; answered with 408. Check the network to the client, or raise body_timeout";
    KeyReused = "idempotency_key_reused", Some(Code::FrameUnusable),
        "client used an Idempotency-Key again for another request; answered with 422, nothing was stored. The client must make a new key for \
         each request and keep it for repetitions only";
    PartsUnusable = "parts_unusable", None,
        "some lines, elements or entries of a body are not what they should be; they are in quarantine, the others were taken";
    TooBusy = "too_busy", None,
        "too many connections or large bodies at once; answered with 429. Clients try again; if it repeats, raise connections_max or have \
         them send one after the other";
    StoreRefused = "store_refused", None,
        "a request could not be stored and was answered with 503; the client must send it again. See the spool's condition";
}

/// What one connection has shown so far.
#[derive(Debug)]
pub struct Seen {
    counts: [u64; Oddity::ALL.len()],
}

impl Default for Seen {
    fn default() -> Self {
        Self { counts: [0; Oddity::ALL.len()] }
    }
}

impl Seen {
    /// Counts; true for the first of its kind.
    pub fn note(&mut self, oddity: Oddity) -> bool {
        let count = &mut self.counts[oddity as usize];
        *count += 1;
        *count == 1
    }

    /// Those that were counted without a line of their own.
    pub fn repeated(&self) -> Option<Repeated<'_>> {
        self.counts.iter().any(|count| *count > 1).then_some(Repeated(self))
    }
}

/// `junk_between_frames 12, frame_restarted 3`.
#[derive(Debug)]
pub struct Repeated<'a>(&'a Seen);

impl fmt::Display for Repeated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (oddity, count) in Oddity::ALL.iter().zip(self.0.counts).filter(|(_, count)| *count > 1) {
            write!(f, "{between}{} {count}", oddity.name())?;
            between = ", ";
        }
        Ok(())
    }
}

/// The conditions of a feed's peers, raised by its connections and ended by its listener.
#[derive(Debug)]
pub struct PeerConditions {
    board: Arc<Board>,
    feed: FeedId,
    started: Instant,
    /// In the order of `HELD`.
    raised: [Raised; HELD.len()],
}

/// Conditions that peers cause; each ends `ODDITY_HOLD` after its cause came last.
const HELD: [Code; 5] = [Code::FrameUnusable, Code::FrameOverLimit, Code::BatchCountMismatch, Code::TlsRefused, Code::PeerRefused];

/// Milliseconds since `started`, plus one; 0 for not raised.
#[derive(Debug, Default)]
struct Raised {
    last: AtomicU64,
}

impl PeerConditions {
    pub fn new(board: Arc<Board>, feed: FeedId) -> Self {
        Self { board, feed, started: Instant::now(), raised: Default::default() }
    }

    /// Raises or renews the condition of this oddity, if it has one. Cheap enough for a peer that sends nothing else.
    pub fn raise(&self, oddity: Oddity, peer: &str, now: Instant) {
        let Some(code) = oddity.condition() else { return };
        let Some(index) = HELD.iter().position(|held| *held == code) else { return };
        let at = self.since_start(now);
        let last = self.raised[index].last.swap(at, Ordering::Relaxed);
        if last == 0 || at.saturating_sub(last) > ODDITY_CHECK_INTERVAL.as_millis() as u64 {
            self.board.raise(code, self.feed.as_str(), format!("{peer}: {}", oddity.text()));
        }
    }

    /// Ends conditions whose cause did not come back.
    pub fn expire(&self, now: Instant) {
        for (code, Raised { last }) in HELD.into_iter().zip(&self.raised) {
            let at = last.load(Ordering::Relaxed);
            let over = at != 0 && self.since_start(now).saturating_sub(at) >= ODDITY_HOLD.as_millis() as u64;
            if over && last.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.board.clear(code, self.feed.as_str());
            }
        }
    }

    /// Ends those it raised; the listener has stopped. A successor may have raised others since.
    pub fn clear(&self) {
        for (code, Raised { last }) in HELD.into_iter().zip(&self.raised) {
            if last.swap(0, Ordering::Relaxed) != 0 {
                self.board.clear(code, self.feed.as_str());
            }
        }
    }

    fn since_start(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_of_a_kind_is_told_and_the_rest_is_summed_up() {
        let mut seen = Seen::default();
        assert!(seen.note(Oddity::Junk) && seen.note(Oddity::Restarted) && seen.note(Oddity::Batch));
        assert!(seen.repeated().is_none());
        assert!(!seen.note(Oddity::Junk) && !seen.note(Oddity::Junk) && !seen.note(Oddity::Restarted));
        assert_eq!(seen.repeated().unwrap().to_string(), "junk_between_frames 3, frame_restarted 2");
    }

    #[test]
    fn every_condition_of_an_oddity_can_be_held() {
        assert!(Oddity::ALL.iter().filter_map(|oddity| oddity.condition()).all(|code| HELD.contains(&code)));
    }

    #[test]
    fn a_condition_of_a_peer_ends_when_its_cause_does_not_come_back() {
        let feed = FeedId::new("f").unwrap();
        let board = Board::new([feed.clone()]);
        let conditions = PeerConditions::new(Arc::clone(&board), feed);
        let start = Instant::now();
        let codes = || board.conditions().iter().map(|c| c.code).collect::<Vec<_>>();
        conditions.raise(Oddity::Batch, "p", start);
        assert!(codes().is_empty());
        conditions.raise(Oddity::Junk, "p", start);
        conditions.raise(Oddity::OverLimit, "p", start + Duration::from_mins(30));
        assert_eq!(codes(), ["frame_over_limit", "frame_unusable"]);
        conditions.expire(start + ODDITY_HOLD + Duration::from_secs(1));
        assert_eq!(codes(), ["frame_over_limit"]);
        conditions.raise(Oddity::Junk, "p", start + ODDITY_HOLD * 2);
        conditions.expire(start + ODDITY_HOLD * 2);
        assert_eq!(codes(), ["frame_unusable"]);
    }
}
