//! Runs of bytes between frames, and what their first bytes tell about who sends them. Pure, part of the framer.

use super::{Foreign, JunkClass};
use crate::limits::JUNK_PREFIX_BYTES;

/// Bytes that real senders put between frames and that mean nothing.
pub(super) fn is_skipped(byte: u8) -> bool {
    matches!(byte, 0x00 | b'\n' | b'\r' | b' ')
}

/// Junk between two frames, and what its first bytes tell.
pub(super) struct JunkRun {
    pub(super) bytes: u64,
    pub(super) class: JunkClass,
    prefix: [u8; JUNK_PREFIX_BYTES],
    len: usize,
    /// Its first bytes told what they could.
    pub(super) decided: bool,
}

impl Default for JunkRun {
    fn default() -> Self {
        Self { bytes: 0, class: JunkClass::Other, prefix: [0; JUNK_PREFIX_BYTES], len: 0, decided: false }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Told {
    Foreign(Foreign),
    Unframed,
}

/// How a run that is more than junk begins. None is longer than `JUNK_PREFIX_BYTES`.
const SIGNATURES: &[(&[u8], Told)] = &[
    (b"\x16\x03", Told::Foreign(Foreign::TlsHello)),
    (b"GET ", Told::Foreign(Foreign::HttpRequest)),
    (b"POST ", Told::Foreign(Foreign::HttpRequest)),
    (b"PUT ", Told::Foreign(Foreign::HttpRequest)),
    (b"HEAD ", Told::Foreign(Foreign::HttpRequest)),
    (b"PATCH ", Told::Foreign(Foreign::HttpRequest)),
    (b"TRACE ", Told::Foreign(Foreign::HttpRequest)),
    (b"DELETE ", Told::Foreign(Foreign::HttpRequest)),
    (b"OPTIONS ", Told::Foreign(Foreign::HttpRequest)),
    (b"CONNECT ", Told::Foreign(Foreign::HttpRequest)),
    (b"PRI * ", Told::Foreign(Foreign::HttpRequest)),
    (b"HTTP", Told::Foreign(Foreign::HttpRequest)),
    (b"MSH", Told::Unframed),
    (b"FHS", Told::Unframed),
    (b"BHS", Told::Unframed),
];

impl JunkRun {
    /// Its first bytes, at most `JUNK_PREFIX_BYTES`.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix[..self.len]
    }

    /// Takes one byte; says something at most once a run. `fresh`: the run is the first thing on its connection.
    pub(super) fn push(&mut self, byte: u8, fresh: bool) -> Option<Told> {
        if is_skipped(byte) {
            if self.bytes == 0 {
                return None;
            }
        } else {
            self.bytes += 1;
        }
        if self.decided {
            return None;
        }
        self.prefix[self.len] = byte;
        self.len += 1;
        let seen = &self.prefix[..self.len];
        let mut candidates = SIGNATURES.iter().filter(|(_, told)| fresh || matches!(told, Told::Unframed));
        let Some((signature, told)) = candidates.find(|(signature, _)| signature.starts_with(seen)) else {
            self.decided = true;
            return None;
        };
        if signature.len() > seen.len() {
            return None;
        }
        self.decided = true;
        if let Told::Unframed = told {
            self.class = JunkClass::UnframedMessage;
        }
        Some(*told)
    }
}

const _: () = {
    let mut i = 0;
    while i < SIGNATURES.len() {
        assert!(SIGNATURES[i].0.len() <= JUNK_PREFIX_BYTES);
        i += 1;
    }
};
