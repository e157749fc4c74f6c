//! The shape of a message without what it says: for a technician who must see what a sender sends and may not see whom it is about.
//!
//! Names of segments, lengths of fields, delimiters, line ends, and the six codes of MSH that say how the message wants to be treated. No
//! value leaves (I7): a code is shown only where it has the shape its field prescribes, anything else becomes its length; what stands where
//! a segment's name should be is shown only as a name followed by the field separator. Pure; computed only while somebody watches.

use serde::{Deserialize, Serialize};

use super::msh::Header;
use crate::limits::{STRUCTURE_FIELDS_MAX, STRUCTURE_SEGMENTS_MAX};

/// The shape of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    pub bytes: u64,
    /// MSH-1 and MSH-2, where they are punctuation.
    pub delimiters: String,
    pub line_ends: LineEnds,
    pub segments: Vec<Segment>,
    /// Segments beyond those listed.
    pub segments_left_out: u64,
}

/// How many segments end how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineEnds {
    pub cr: u64,
    pub lf: u64,
    pub crlf: u64,
    /// The last segment has none.
    pub unterminated: bool,
}

/// One line of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name; `?` for a line that does not begin like a segment.
    pub name: String,
    /// Bytes of every field, the first being field 1 (in MSH: the separator).
    pub fields: Vec<u64>,
    pub fields_left_out: u64,
}

/// Codes of MSH; empty where a field is, `unusual (n bytes)` where it holds something else than a code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codes {
    /// MSH-9.
    pub message_type: String,
    /// MSH-11.1.
    pub processing: String,
    /// MSH-12.1.
    pub version: String,
    /// MSH-15 and MSH-16.
    pub accept_ack: String,
    pub application_ack: String,
    /// MSH-18.
    pub character_set: String,
}

impl Structure {
    /// `header` is what `msh` found in `message`, if anything.
    pub fn of(message: &[u8], header: Option<&Header<'_>>) -> Self {
        let separator = header.map_or(&b"|"[..], |header| header.delimiters.separator);
        let mut shape = Self {
            bytes: message.len() as u64,
            delimiters: delimiters(header),
            line_ends: LineEnds::default(),
            segments: Vec::new(),
            segments_left_out: 0,
        };
        let mut rest = message;
        while !rest.is_empty() {
            let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
            let line = &rest[..end.unwrap_or(rest.len())];
            let ends = &mut shape.line_ends;
            let (counter, width) = match end.map(|at| &rest[at..]) {
                None => {
                    ends.unterminated = true;
                    (None, 0)
                }
                Some([b'\r', b'\n', ..]) => (Some(&mut ends.crlf), 2),
                Some([b'\r', ..]) => (Some(&mut ends.cr), 1),
                Some(_) => (Some(&mut ends.lf), 1),
            };
            if let Some(counter) = counter {
                *counter += 1;
            }
            rest = &rest[line.len() + width..];
            if shape.segments.len() < STRUCTURE_SEGMENTS_MAX {
                shape.segments.push(Segment::of(line, separator));
            } else {
                shape.segments_left_out += 1;
            }
        }
        shape
    }
}

impl Segment {
    fn of(line: &[u8], separator: &[u8]) -> Self {
        let is_name = |name: &[u8]| name[0].is_ascii_uppercase() && name[1..].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let Some((name, rest)) = line.split_at_checked(3).filter(|(name, rest)| is_name(name) && rest.starts_with(separator)) else {
            return Self { name: "?".to_owned(), fields: vec![line.len() as u64], fields_left_out: 0 };
        };
        let mut lengths: Vec<u64> = Vec::new();
        if matches!(name, b"MSH" | b"FHS" | b"BHS") {
            lengths.push(separator.len() as u64);
        }
        let mut left_out = 0;
        let mut rest = Some(&rest[separator.len()..]);
        while let Some(field) = rest {
            let end = field.windows(separator.len()).position(|window| window == separator);
            if lengths.len() < STRUCTURE_FIELDS_MAX {
                lengths.push(end.unwrap_or(field.len()) as u64);
            } else {
                left_out += 1;
            }
            rest = end.map(|at| &field[at + separator.len()..]);
        }
        Self { name: String::from_utf8_lossy(name).into_owned(), fields: lengths, fields_left_out: left_out }
    }
}

fn delimiters(header: Option<&Header<'_>>) -> String {
    let Some(header) = header else { return String::new() };
    let (separator, encoding) = (header.delimiters.separator, header.delimiters.encoding);
    let is_usual = separator.len() == 1 && encoding.len() <= 5;
    if is_usual && separator.iter().chain(encoding).all(u8::is_ascii_punctuation) {
        return String::from_utf8_lossy(&[separator, encoding].concat()).into_owned();
    }
    format!("unusual ({} bytes)", separator.len() + encoding.len())
}

impl Codes {
    pub fn of(header: Option<&Header<'_>>) -> Self {
        let Some(header) = header else { return Self::default() };
        Self {
            message_type: message_type(header),
            processing: shown(header.component(11, 1), |code| matches!(code, [c] if c.is_ascii_uppercase())),
            version: shown(header.component(12, 1), |code| code.len() <= 8 && code.iter().all(|b| b.is_ascii_digit() || *b == b'.')),
            accept_ack: shown(header.field(15), is_condition),
            application_ack: shown(header.field(16), is_condition),
            character_set: shown(header.field(18), is_character_set),
        }
    }
}

fn shown(field: &[u8], is_code: impl Fn(&[u8]) -> bool) -> String {
    let text = field.trim_ascii();
    match std::str::from_utf8(text) {
        Ok(code) if text.is_empty() || is_code(text) => code.to_owned(),
        _ => format!("unusual ({} bytes)", field.len()),
    }
}

/// MSH-9, written with `^` whatever the sender's delimiters are.
fn message_type(header: &Header<'_>) -> String {
    if !is_message_type(header) {
        return shown(header.field(9), |_| false);
    }
    let parts = [1, 2, 3].map(|n| String::from_utf8_lossy(header.component(9, n)));
    parts.join("^").trim_end_matches('^').to_owned()
}

/// `DFT`, `DFT^P03`, `DFT^P03^DFT_P03`: three characters each, a structure of up to seven.
fn is_message_type(header: &Header<'_>) -> bool {
    let is_word = |part: &[u8], len: usize| {
        part.len() == len && part[0].is_ascii_uppercase() && part[1..].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    let (kind, trigger, structure) = (header.component(9, 1), header.component(9, 2), header.component(9, 3));
    let is_structure = match structure.iter().position(|b| *b == b'_') {
        Some(at) => is_word(&structure[..at], 3) && is_word(&structure[at + 1..], 3),
        None => structure.is_empty() || is_word(structure, 3),
    };
    let delimiter = header.delimiters.component.map_or(0, <[u8]>::len);
    let whole = kind.len() + [trigger, structure].iter().filter(|part| !part.is_empty()).map(|part| part.len() + delimiter).sum::<usize>();
    is_word(kind, 3) && (trigger.is_empty() || is_word(trigger, 3)) && is_structure && whole == header.field(9).len()
}

/// HL7 table 0155.
fn is_condition(code: &[u8]) -> bool {
    matches!(code, b"AL" | b"NE" | b"ER" | b"SU")
}

/// The families of HL7 table 0211.
fn is_character_set(code: &[u8]) -> bool {
    const FAMILIES: [&[u8]; 8] = [b"ASCII", b"8859/", b"UNICODE", b"ISO IR", b"GB 18030", b"KS X 1001", b"CNS 11643", b"BIG-5"];
    let rest = FAMILIES.iter().find_map(|family| code.strip_prefix(*family));
    rest.is_some_and(|rest| rest.len() <= 8 && rest.iter().all(|b| b.is_ascii_digit() || b" UTF-".contains(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::msh;

    fn shape(message: &[u8]) -> (Structure, Codes) {
        let header = msh::scan(message);
        (Structure::of(message, header.as_ref()), Codes::of(header.as_ref()))
    }

    #[test]
    fn a_message_shows_its_shape() {
        let (shape, codes) =
            shape(b"MSH|^~\\&|A|BB|C||20260101||DFT^P03^DFT_P03|ID1|T|2.5.1|||AL|NE||UNICODE UTF-8\rPID|1||4711||DOE^JANE\r\nZZ1|x\nnote");
        assert_eq!(shape.delimiters, "|^~\\&");
        assert_eq!(shape.line_ends, LineEnds { cr: 1, lf: 1, crlf: 1, unterminated: true });
        let names: Vec<&str> = shape.segments.iter().map(|segment| segment.name.as_str()).collect();
        assert_eq!(names, ["MSH", "PID", "ZZ1", "?"]);
        assert_eq!(shape.segments[0].fields[..4], [1, 4, 1, 2]);
        assert_eq!(shape.segments[1].fields, [1, 0, 4, 0, 8]);
        assert_eq!(shape.segments[3].fields, [4]);
        let all = [codes.message_type, codes.processing, codes.version, codes.accept_ack, codes.application_ack, codes.character_set];
        assert_eq!(all, ["DFT^P03^DFT_P03", "T", "2.5.1", "AL", "NE", "UNICODE UTF-8"]);
    }

    /// I7: wherever a value is put, only its length is shown.
    #[test]
    fn no_value_is_shown_wherever_it_stands() {
        const SECRET: &str = "ZEBRA^FINCH";
        for field in 2..20 {
            let mut fields: Vec<&str> = "MSH|^~\\&|A|B|C|D|2026||ADT^A01|ID|P|2.5|||AL|NE||UNICODE".split('|').collect();
            fields.resize(20, "");
            fields[field - 1] = SECRET;
            let message = format!("{}\rPID|{SECRET}\r{SECRET}|x\rZEBRA\nFINCH^1\r", fields.join("|"));
            let (shape, codes) = shape(message.as_bytes());
            let told = serde_json::to_string(&(shape, codes)).unwrap();
            assert!(!told.contains("ZEBRA") && !told.contains("FINCH"), "MSH-{field}: {told}");
        }
    }

    #[test]
    fn what_is_listed_is_bounded() {
        let long = format!("MSH|^~\\&{}\r{}", "|x".repeat(1000), "NTE|1\r".repeat(1000));
        let (shape, _) = shape(long.as_bytes());
        assert_eq!((shape.segments.len(), shape.segments_left_out), (STRUCTURE_SEGMENTS_MAX, 1001 - STRUCTURE_SEGMENTS_MAX as u64));
        assert_eq!(
            (shape.segments[0].fields.len(), shape.segments[0].fields_left_out),
            (STRUCTURE_FIELDS_MAX, 1002 - STRUCTURE_FIELDS_MAX as u64)
        );
        assert_eq!(Structure::of(b"", None).segments, []);
    }
}
