//! What HL7.md says about a file, read without any code of the agent: its messages, and what a sender of it must be told.

use std::path::Path;

/// One MSH: `fields[n]` is MSH-n, whole, as it stands.
#[derive(Clone, Debug)]
pub struct Msh {
    pub separator: Vec<u8>,
    pub fields: Vec<Vec<u8>>,
    acknowledgement: bool,
}

/// One file of the corpus.
#[derive(Clone, Debug)]
pub struct Facts {
    pub file: String,
    pub body: Vec<u8>,
    /// FHS, BHS, or more than one MSH.
    pub several: bool,
    pub messages: Vec<Msh>,
    /// FHS-11, else BHS-11, else MSH-10 of the first message.
    pub batch_id: Vec<u8>,
}

fn without_blanks(mut bytes: &[u8]) -> &[u8] {
    loop {
        match bytes {
            [0xEF, 0xBB, 0xBF, rest @ ..] | [0 | b'\t' | b'\n' | b'\r' | b' ', rest @ ..] => bytes = rest,
            _ => return bytes,
        }
    }
}

/// MSH-1 as a character: one byte, or a sequence of UTF-8.
fn separator(line: &[u8]) -> Option<Vec<u8>> {
    let rest = line.get(3..)?;
    let first = *rest.first()?;
    if first.is_ascii() {
        return (!first.is_ascii_alphanumeric() && !first.is_ascii_control()).then(|| vec![first]);
    }
    (2..=4).find_map(|n| rest.get(..n).filter(|c| std::str::from_utf8(c).is_ok())).map(<[u8]>::to_vec).or(Some(vec![first]))
}

fn split(bytes: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(separator.len()).position(|w| w == separator) {
        parts.push(rest[..at].to_vec());
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest.to_vec());
    parts
}

fn looks_like_segment(bytes: &[u8], separator: &[u8]) -> bool {
    let Some(name) = bytes.get(..3) else { return false };
    name[0].is_ascii_uppercase()
        && name[1..].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && bytes[3..].starts_with(separator)
}

/// Segments: CR ends them where there is one, else LF; a sender whose first segment ends with LF beside CRs uses both.
fn segments(text: &[u8]) -> Vec<&[u8]> {
    let cr = text.iter().position(|b| *b == b'\r');
    let first = cr.map_or(text, |at| &text[..at]);
    let lf = first.iter().position(|b| *b == b'\n');
    let mixed = cr.is_some()
        && lf.is_some_and(|at| separator(text).is_some_and(|separator| looks_like_segment(without_blanks(&first[at..]), &separator)));
    let ends = |b: &u8| if mixed { matches!(b, b'\r' | b'\n') } else { *b == if cr.is_some() { b'\r' } else { b'\n' } };
    let lines = text.split(ends).map(|line| {
        let blanks = line.iter().take_while(|b| **b == b'\n').count();
        &line[blanks..]
    });
    lines.collect()
}

fn fields_of(line: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let parts = split(&line[3 + separator.len()..], separator);
    let mut fields = vec![Vec::new(), separator.to_vec()];
    fields.extend(parts);
    fields
}

impl Facts {
    pub fn read(folder: &Path, file: &str) -> Self {
        let body = std::fs::read(folder.join(file)).expect("a file of the index");
        let text = without_blanks(&body);
        let lines = segments(text);
        let mut messages: Vec<Msh> = Vec::new();
        let mut batch_headers = Vec::new();
        let begins = |name: &[u8]| text.starts_with(name);
        for line in &lines {
            let Some(separator) = separator(line) else { continue };
            if line.starts_with(b"MSH") {
                messages.push(Msh { fields: fields_of(line, &separator), separator, acknowledgement: false });
            } else if line.starts_with(b"FHS") || line.starts_with(b"BHS") {
                batch_headers.push(fields_of(line, &separator));
            } else if line.starts_with(b"MSA")
                && let Some(last) = messages.last_mut()
            {
                last.acknowledgement |= separator == last.separator;
            }
        }
        let several = begins(b"FHS") || begins(b"BHS") || (begins(b"MSH") && messages.len() > 1);
        let given = |fields: &Vec<Vec<u8>>| fields.get(11).filter(|id| !id.is_empty()).cloned();
        let first = messages.first().map(|m| m.get(10).to_vec()).unwrap_or_default();
        let batch_id = batch_headers.iter().find_map(given).unwrap_or(first);
        Self { file: file.to_owned(), body, several, messages, batch_id }
    }

    /// HL7.md 2b: MSH at the front and at least 9 bytes.
    pub fn has_header(&self) -> bool {
        let text = without_blanks(&self.body);
        let named = [&b"MSH"[..], b"FHS", b"BHS"].iter().any(|name| text.starts_with(name));
        named && text.len() >= 9 && separator(text).is_some()
    }
}

impl Msh {
    /// Any segment of a reply; of MSH `fields[n]` is MSH-n, of others [`Self::msa`] counts.
    pub fn of_line(line: &[u8]) -> Self {
        let separator = separator(line).expect("a reply has a separator");
        Self { fields: fields_of(line, &separator), separator, acknowledgement: false }
    }

    /// Field `n` of a segment that is not a header: those have no field for the separator itself.
    pub fn msa(&self, n: usize) -> &[u8] {
        self.get(n + 1)
    }

    pub fn get(&self, n: usize) -> &[u8] {
        self.fields.get(n).map_or(&[], Vec::as_slice)
    }

    /// Component of a field by the sender's own delimiter.
    pub fn component(&self, n: usize, c: usize) -> Vec<u8> {
        let delimiter = self.get(2).first().filter(|b| !b.is_ascii_alphanumeric()).map(|b| vec![*b]);
        match delimiter {
            Some(delimiter) => split(self.get(n), &delimiter).get(c - 1).cloned().unwrap_or_default(),
            None if c == 1 => self.get(n).to_vec(),
            None => Vec::new(),
        }
    }

    /// HL7.md 2b: an acknowledgement is never acknowledged; ORR and RSP, which carry MSA too, are data.
    pub fn is_acknowledgement(&self) -> bool {
        self.acknowledgement && self.component(9, 1).trim_ascii() == b"ACK"
    }

    /// MSA-1 for a message that was stored (HL7.md 2, the first column), `None` for no reply.
    pub fn code(&self) -> Option<&'static str> {
        let wish = |n| {
            let value = String::from_utf8_lossy(self.component(n, 1).trim_ascii()).into_owned();
            ["AL", "NE", "ER", "SU"].into_iter().find(|known| *known == value).unwrap_or("")
        };
        match (wish(15), wish(16)) {
            ("" | "NE", "NE" | "ER") => None,
            ("" | "NE", _) => Some("AA"),
            ("AL" | "SU", _) => Some("CA"),
            _ => None,
        }
    }
}
