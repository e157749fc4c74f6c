//! Several messages in one piece: FHS, BHS, MSH, BTS and FTS, split and counted. Pure; no opinion about what is done with the parts.
//!
//! ```text
//! [FHS] { [BHS] { MSH … } [BTS] } [FTS]        every one of the four optional, no message at all is legal
//! ```
//!
//! 1. [`pieces`] cuts a complete text into its parts. A part begins at a line that starts with one of the five names and ends where the next
//!    one begins, so the parts laid side by side are the text (a test holds this); nothing is trimmed, decoded or copied. Bytes before the
//!    first name are [`Kind::Stray`].
//! 2. [`Tally`] is fed the parts one after the other and holds what BTS-1 and FTS-1 claim against what came. It keeps four numbers, so a
//!    source that reads a large file part by part can use it too.
//!
//! Lines end as in `msh`: with CR where there is any, else with LF; a bare LF beside CRs is data (a line `MSH|` inside an OBX-5 does not begin
//! a message), unless the very first segment shows that the sender uses both. Line ends, NULs, byte order marks and MLLP's own bytes
//! in front of a name are skipped. Each MSH may bring its own delimiters.
//!
//! Counts are read as people write them: leading zeros and blanks are fine, an empty count claims nothing, fields behind it are ignored.

use super::msh::{self, LineEnds};

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    FileHeader,
    BatchHeader,
    Message,
    BatchTrailer,
    FileTrailer,
    /// Bytes before the first name.
    Stray,
}

/// One part, as received. `Debug` shows its length (I7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub kind: Kind,
    pub bytes: &'a [u8],
}

impl std::fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}[{} bytes]", self.kind, self.bytes.len())
    }
}

/// The parts of a text in order.
#[derive(Clone)]
pub struct Pieces<'a> {
    rest: &'a [u8],
    ends: LineEnds,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pieces[{} bytes]", self.rest.len())
    }
}

/// Cuts a complete text; what stands before its first character that means anything is left out.
pub fn pieces(text: &[u8]) -> Pieces<'_> {
    let rest = msh::skip_blank(text);
    Pieces { rest, ends: LineEnds::of(rest) }
}

/// Whether a text is more than one message: it begins with FHS or BHS, or holds a second MSH.
pub fn is_several(text: &[u8]) -> bool {
    let mut pieces = pieces(text);
    // nearly every text: one header and no other anywhere
    if pieces.rest.starts_with(b"MSH") && memchr::memmem::find(&pieces.rest[3..], b"MSH").is_none() {
        return false;
    }
    match pieces.next().map(|piece| piece.kind) {
        Some(Kind::FileHeader | Kind::BatchHeader) => true,
        Some(Kind::Message) => pieces.any(|piece| piece.kind == Kind::Message),
        _ => false,
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let kind = kind_of(self.rest).unwrap_or(Kind::Stray);
        let mut at = 0;
        let end = loop {
            let Some(offset) = self.ends.find(&self.rest[at..]) else { break self.rest.len() };
            at += offset + 1;
            at += self.rest[at..].len() - skip_marks(&self.rest[at..]).len();
            if kind_of(&self.rest[at..]).is_some() {
                break at;
            }
        };
        let (bytes, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Piece { kind, bytes })
    }
}

/// What a line begins, if it begins anything.
pub(super) fn kind_of(line: &[u8]) -> Option<Kind> {
    let name = line.get(..3)?;
    let kind = match name {
        b"MSH" => Kind::Message,
        b"FHS" => Kind::FileHeader,
        b"BHS" => Kind::BatchHeader,
        b"BTS" => Kind::BatchTrailer,
        b"FTS" => Kind::FileTrailer,
        _ => return None,
    };
    let rest = &line[3..];
    let bare = matches!(kind, Kind::BatchTrailer | Kind::FileTrailer) && matches!(rest.first(), None | Some(b'\r' | b'\n'));
    (bare || msh::delimiter(rest).is_some()).then_some(kind)
}

/// What may stand between a line end and a name: further line ends, NULs, MLLP's bytes, a byte order mark of a file that was appended.
pub(super) fn skip_marks(mut bytes: &[u8]) -> &[u8] {
    loop {
        if let Some(rest) = bytes.strip_prefix(b"\xEF\xBB\xBF") {
            bytes = rest;
        } else if let Some((0 | b'\n' | b'\r' | 0x0B | 0x1C, rest)) = bytes.split_first() {
            bytes = rest;
        } else {
            return bytes;
        }
    }
}

/// What a trailer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Nothing,
    Count(u64),
    Unreadable,
}

/// BTS-1 or FTS-1.
pub(super) fn claim(trailer: &[u8]) -> Claim {
    let line = trailer.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let rest = line.get(3..).unwrap_or_default();
    let Some(separator) = msh::delimiter(rest) else { return Claim::Nothing };
    let field = msh::split_once(&rest[separator.len()..], separator).0.trim_ascii();
    if field.is_empty() || field == b"\"\"" {
        return Claim::Nothing;
    }
    let digits = std::str::from_utf8(field).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).map_or(Claim::Unreadable, Claim::Count)
}

/// What does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// BTS-1 against the messages of its batch.
    Messages { claimed: u64, found: u64 },
    /// FTS-1 against the batches of the file.
    Batches { claimed: u64, found: u64 },
    /// BTS-1 or FTS-1 is not a number.
    UnreadableCount,
    /// BHS without its BTS.
    NoBatchTrailer,
    /// FHS without its FTS.
    NoFileTrailer,
}

impl Mismatch {
    /// Less came than was claimed, or the end is missing: the sender may have been cut off.
    pub fn is_short(self) -> bool {
        match self {
            Self::Messages { claimed, found } | Self::Batches { claimed, found } => found < claimed,
            Self::NoBatchTrailer | Self::NoFileTrailer => true,
            Self::UnreadableCount => false,
        }
    }
}

/// Counts parts as they come.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    messages: u64,
    batches: u64,
    in_this_batch: u64,
    batch_open: bool,
    file_open: bool,
    /// The first that matters most: one that says the text is short goes before one that does not.
    mismatch: Option<Mismatch>,
}

impl Tally {
    pub fn take(&mut self, piece: &Piece<'_>) {
        match piece.kind {
            Kind::Stray => {}
            Kind::Message => {
                self.messages += 1;
                self.in_this_batch += 1;
            }
            Kind::FileHeader => {
                self.end_file();
                self.file_open = true;
                self.batches = 0;
            }
            Kind::BatchHeader => {
                self.end_batch();
                self.batch_open = true;
                self.batches += 1;
                self.in_this_batch = 0;
            }
            Kind::BatchTrailer => {
                match claim(piece.bytes) {
                    Claim::Count(claimed) if claimed != self.in_this_batch => {
                        self.note(Mismatch::Messages { claimed, found: self.in_this_batch });
                    }
                    Claim::Unreadable => self.note(Mismatch::UnreadableCount),
                    Claim::Count(_) | Claim::Nothing => {}
                }
                self.batches += u64::from(!self.batch_open); // a batch whose BHS was left out
                self.batch_open = false;
                self.in_this_batch = 0;
            }
            Kind::FileTrailer => {
                self.end_batch();
                match claim(piece.bytes) {
                    // messages without any BHS are no batch or one, as the sender sees it
                    Claim::Count(1) if self.batches == 0 => {}
                    Claim::Count(claimed) if claimed != self.batches => self.note(Mismatch::Batches { claimed, found: self.batches }),
                    Claim::Unreadable => self.note(Mismatch::UnreadableCount),
                    Claim::Count(_) | Claim::Nothing => {}
                }
                self.file_open = false;
                self.batches = 0;
            }
        }
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// After the last part: what does not add up, if anything.
    pub fn finish(mut self) -> Option<Mismatch> {
        self.end_file();
        self.mismatch
    }

    fn end_batch(&mut self) {
        if std::mem::take(&mut self.batch_open) {
            self.note(Mismatch::NoBatchTrailer);
        }
    }

    fn end_file(&mut self) {
        self.end_batch();
        if std::mem::take(&mut self.file_open) {
            self.note(Mismatch::NoFileTrailer);
        }
    }

    fn note(&mut self, mismatch: Mismatch) {
        if self.mismatch.is_none_or(|known| mismatch.is_short() && !known.is_short()) {
            self.mismatch = Some(mismatch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::{BatchHeader, BatchTrailer, FileHeader, FileTrailer, Message};
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &[u8]) -> Vec<(Kind, usize)> {
        pieces(text).map(|p| (p.kind, p.bytes.len())).collect()
    }

    fn counted(text: &str) -> (u64, Option<Mismatch>) {
        let mut tally = Tally::default();
        pieces(text.as_bytes()).for_each(|piece| tally.take(&piece));
        (tally.messages(), tally.finish())
    }

    const M: &str = "MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.3\rPID|1\r";

    #[test]
    fn a_batch_is_cut_at_its_five_names_and_nowhere_else() {
        let text = format!("FHS|^~\\&\rBHS|^~\\&\r{M}{M}BTS|2\rFTS|1\r");
        let expected = [(FileHeader, 9), (BatchHeader, 9), (Message, M.len()), (Message, M.len()), (BatchTrailer, 6), (FileTrailer, 6)];
        assert_eq!(kinds(text.as_bytes()), expected);
        assert_eq!(kinds(text.replace('\r', "\n").as_bytes()), expected);
        assert_eq!(kinds(format!("\u{feff}\r\n {text}").as_bytes()), expected);
        assert_eq!(kinds(text.replace('\r', "\r\n").as_bytes()).iter().map(|k| k.0).collect::<Vec<_>>(), expected.map(|k| k.0));
    }

    #[test]
    fn a_message_like_line_inside_data_does_not_begin_a_message() {
        let inside = "MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.3\rOBX|1|FT|||text\nMSH|^~\\&|X|Y|\nmore\r";
        assert!(!is_several(inside.as_bytes()), "a bare LF beside CRs is data");
        assert!(!is_several(b"MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.3\rNTE|1|MSH|x\rMSHA|1\rMSH\r"));
        assert!(is_several(b"MSH|^~\\&|A\nPID|1\nMSH|^~\\&|B\n\r"), "a header that ended with LF: the sender mixes both");
    }

    #[test]
    fn two_messages_in_one_text_are_several_also_with_other_delimiters() {
        assert!(is_several(format!("{M}\n{}", M.replace('|', "$")).as_bytes()));
        assert!(is_several(format!("{M}\u{b}{M}").as_bytes()));
        assert!(is_several(b"BHS|^~\\&|A\r"));
        assert!(!is_several(M.as_bytes()));
        assert!(!is_several(format!("{M}BTS|1\r").as_bytes()), "one message stays one");
        assert!(!is_several(b"") && !is_several(b"PID|1\rMSH|^~\\&|A\rMSH|^~\\&|A\r"));
    }

    #[test]
    fn counts_are_compared_as_people_write_them() {
        assert_eq!(counted(&format!("BHS|^~\\&\r{M}{M}BTS|2\r")), (2, None));
        assert_eq!(counted(&format!("BHS|^~\\&\r{M}BTS|0000000001|B000001|0~0000187\rFTS|1|F~0\r")), (1, None));
        assert_eq!(counted(&format!("BHS|^~\\&\r{M}BTS| 1 \r")), (1, None));
        assert_eq!(counted(&format!("BHS|^~\\&\r{M}BTS\r")), (1, None));
        assert_eq!(counted("FHS|^~\\&\rBHS|^~\\&\rBTS|0\rFTS|1\r"), (0, None), "no message is legal");
        assert_eq!(counted(&format!("{M}{M}BTS|2\r")), (2, None), "BHS left out");
        assert_eq!(counted(&format!("FHS|^~\\&\r{M}{M}FTS|1\r")), (2, None));
        assert_eq!(counted(&format!("FHS|^~\\&\r{M}FTS|0\r")), (1, None));
        let two = format!("FHS|^~\\&\rBHS|^~\\&\r{M}BTS|1\rBHS|^~\\&\r{M}{M}BTS|2\rFTS|2\r");
        assert_eq!(counted(&two), (3, None));
        assert_eq!(counted(&format!("{two}{two}")), (6, None), "two files in one");
    }

    #[test]
    fn what_does_not_add_up_is_told_and_a_missing_end_first() {
        let found = |text: String| counted(&text).1;
        assert_eq!(found(format!("BHS|^~\\&\r{M}BTS|96\r")), Some(Mismatch::Messages { claimed: 96, found: 1 }));
        assert_eq!(found(format!("BHS|^~\\&\r{M}{M}BTS|1\r")), Some(Mismatch::Messages { claimed: 1, found: 2 }));
        assert_eq!(found(format!("BHS|^~\\&\r{M}")), Some(Mismatch::NoBatchTrailer));
        assert_eq!(found(format!("BHS|^~\\&\r{M}BHS|^~\\&\r{M}BTS|1\r")), Some(Mismatch::NoBatchTrailer));
        assert_eq!(found(format!("FHS|^~\\&\r{M}")), Some(Mismatch::NoFileTrailer));
        assert_eq!(found(format!("FHS|^~\\&\rBHS|^~\\&\r{M}BTS|1\rFTS|3\r")), Some(Mismatch::Batches { claimed: 3, found: 1 }));
        assert_eq!(found(format!("BHS|^~\\&\r{M}BTS|many\r")), Some(Mismatch::UnreadableCount));
        assert_eq!(found(format!("FHS|^~\\&\rBHS|^~\\&\r{M}{M}BTS|1\r")), Some(Mismatch::NoFileTrailer), "the short one counts");
        assert!(Mismatch::NoFileTrailer.is_short() && !Mismatch::UnreadableCount.is_short());
        assert!(Mismatch::Messages { claimed: 96, found: 31 }.is_short() && !Mismatch::Messages { claimed: 1, found: 2 }.is_short());
    }

    fn line() -> impl Strategy<Value = &'static [u8]> {
        prop::sample::select(vec![
            &b"FHS|^~\\&|x"[..],
            b"BHS|^~\\&",
            b"MSH|^~\\&|A|B",
            b"MSH$%~\\&$",
            b"BTS|1",
            b"BTS",
            b"FTS|",
            b"FTS|x",
            b"PID|1",
            b"MSH",
            b"",
            b"\xEF\xBB\xBF",
            b"\0\x0B\x1C",
            b"BTS|99999999999999999999999",
        ])
    }

    proptest! {
        /// Nothing is lost between the parts, whatever the text, and each part but the first begins with its name.
        #[test]
        fn the_parts_side_by_side_are_the_text(
            lines in prop::collection::vec((line(), prop::sample::select(vec!["\r", "\n", "\r\n", ""])), 0..20),
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut text: Vec<u8> = lines.iter().flat_map(|(line, end)| [line, end.as_bytes()].concat()).collect();
            text.extend_from_slice(&noise);
            let all: Vec<Piece<'_>> = pieces(&text).collect();
            prop_assert_eq!(all.iter().flat_map(|p| p.bytes.to_vec()).collect::<Vec<_>>(), msh::skip_blank(&text));
            for (index, piece) in all.iter().enumerate() {
                prop_assert_eq!(kind_of(piece.bytes).unwrap_or(Kind::Stray), piece.kind);
                prop_assert!(index == 0 || piece.kind != Kind::Stray);
            }
            let mut tally = Tally::default();
            for piece in &all {
                tally.take(piece);
            }
            prop_assert_eq!(tally.messages(), all.iter().filter(|p| p.kind == Kind::Message).count() as u64);
            let _ = tally.finish();
        }
    }
}
