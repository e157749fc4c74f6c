//! Any text cut into its parts: the parts laid side by side are the text, each begins with its name, and a text put together from parts is cut
//! into exactly these.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::batch::{self, Kind, Tally};

const NAMES: [(Kind, &[u8]); 5] = [
    (Kind::Message, b"MSH|^~\\&|"),
    (Kind::FileHeader, b"FHS|^~\\&|"),
    (Kind::BatchHeader, b"BHS|^~\\&|"),
    (Kind::BatchTrailer, b"BTS|"),
    (Kind::FileTrailer, b"FTS|"),
];

fn name_of(kind: Kind) -> Option<&'static [u8]> {
    NAMES.iter().find(|(k, _)| *k == kind).map(|(_, name)| &name[..3])
}

fn any_text(text: &[u8]) {
    let pieces: Vec<batch::Piece<'_>> = batch::pieces(text).collect();
    let whole: Vec<u8> = pieces.iter().flat_map(|p| p.bytes).copied().collect();
    let before = text.strip_suffix(&whole[..]).expect("the parts side by side are the end of the text");
    assert!(before.iter().all(|b| b"\0\t\n\r \xEF\xBB\xBF".contains(b)), "only blanks are left out");
    let mut tally = Tally::default();
    for (n, piece) in pieces.iter().enumerate() {
        assert!(!piece.bytes.is_empty());
        match name_of(piece.kind) {
            Some(name) => assert!(piece.bytes.starts_with(name)),
            None => assert_eq!(n, 0, "only the first part can be without a name"),
        }
        tally.take(piece);
    }
    let count = |kind| pieces.iter().filter(|p| p.kind == kind).count();
    let messages = count(Kind::Message);
    assert_eq!(tally.messages(), messages as u64);
    let several = match pieces.first().map(|p| p.kind) {
        Some(Kind::FileHeader | Kind::BatchHeader) => true,
        Some(Kind::Message) => messages > 1,
        _ => false,
    };
    assert_eq!(batch::is_several(text), several);
    // panics would be found here; what it says is the unit tests' business
    let _ = (tally.finish(), format!("{pieces:?}"));
}

/// The input as a list of parts: a byte for the name, then content up to the next 0xFF, with line ends made harmless.
fn from_parts(input: &[u8]) {
    let parts: Vec<(Kind, Vec<u8>)> = input
        .split(|b| *b == 0xFF)
        .filter_map(|part| part.split_first())
        .map(|(choice, content)| {
            let (kind, name) = NAMES[usize::from(*choice) % NAMES.len()];
            let harmless = |b: &u8| if matches!(*b, b'\r' | b'\n') { b'~' } else { *b };
            let lines: &[u8] = if *choice & 0x80 == 0 { b"\r" } else { b"\rPID|1|MSH|\rOBX|1|MSH\r\0\r" };
            (kind, [name, &content.iter().map(harmless).collect::<Vec<u8>>(), lines].concat())
        })
        .collect();
    let text: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let cut: Vec<(Kind, Vec<u8>)> = batch::pieces(&text).map(|p| (p.kind, p.bytes.to_vec())).collect();
    assert!(cut == parts, "put together and cut again");
}

fuzz_target!(|input: &[u8]| {
    any_text(input);
    from_parts(input);
});
