//! Any bytes read as a header: no panic, every field a part of the message and free of separators, and a cut head never says anything that
//! the whole message does not say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::msh::{self, Header, Kind};

/// The fields by the shortest way that could read them: split at the separator, count from it.
fn plain_field<'a>(message: &'a [u8], header: &Header<'_>, n: usize) -> Option<&'a [u8]> {
    let separator = header.delimiters.separator;
    let &[separator] = separator else { return None };
    let start = message.windows(3).position(|name| name == b"MSH")?;
    let terminator = if message.contains(&b'\r') { b'\r' } else { b'\n' };
    let line = message[start..].split(|b| *b == terminator).next()?;
    // beside CRs a line feed may end the header or be data: left to the rules of the scanner
    if line.contains(&b'\n') {
        return None;
    }
    Some(line.split(|b| *b == separator).nth(n - 1).unwrap_or_default())
}

fn lies_within(message: &[u8], part: &[u8]) -> bool {
    let (message, part) = (message.as_ptr_range(), part.as_ptr_range());
    part.is_empty() || (message.start <= part.start && part.end <= message.end)
}

fn check(message: &[u8], header: &Header<'_>) {
    let separator = header.delimiters.separator;
    // the usual delimiters are constants
    assert!(!separator.is_empty() && separator.len() <= 4 && (separator == b"|" || lies_within(message, separator)));
    for n in 0..25 {
        let field = header.field(n);
        assert!(lies_within(message, field), "MSH-{n} is copied from somewhere else");
        assert!(!field.windows(separator.len()).any(|w| w == separator), "MSH-{n} holds a separator");
        if let Some(component) = header.delimiters.component {
            for c in 1..5 {
                let part = header.component(n, c);
                assert!(lies_within(message, part) && !part.windows(component.len()).any(|w| w == component));
            }
        }
    }
    assert!(header.version().is_none_or(|v| v.0 == 2));
}

fuzz_target!(|message: &[u8]| {
    let whole = msh::scan(message);
    if let Some(header) = &whole {
        check(message, header);
        assert!(!format!("{header:?}").contains('|'), "I7: a header shows no content");
        if header.kind == Kind::Message {
            for n in 3..=18 {
                if let Some(plain) = plain_field(message, header, n) {
                    assert_eq!(header.field(n), plain, "MSH-{n}");
                }
            }
        }
        let acknowledgement = header.is_acknowledgement();
        assert!(!acknowledgement || message.windows(3).any(|w| w == b"MSA"));
    }
    // a head that may be cut anywhere
    let cut = message.first().map_or(0, |b| usize::from(*b) % (message.len() + 1));
    let head = &message[..cut];
    if let Some(header) = msh::scan_head(head) {
        check(head, &header);
        let uncut = msh::scan(head).expect("what is a header when it may be cut is one when it is not");
        for n in 3..=18 {
            let field = header.field(n);
            assert!(field.is_empty() || field == uncut.field(n), "MSH-{n} of a head is whole or absent");
        }
    }
});
