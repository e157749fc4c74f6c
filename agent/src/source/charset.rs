//! Character sets: a decoding view of message bytes. The bytes themselves are kept and forwarded as received; whoever needs text of them
//! (profiles, views) asks here, and is told how sure the answer is and how much of it could not be read.
//!
//! Which set, in this order: the feed's `charset` with `charset_force`; MSH-18, where it names a set that is known; the feed's `charset`;
//! UTF-8 where the bytes are valid UTF-8; windows-1252.
//!
//! - All of HL7 table 0211 that MLLP can carry, and names seen in the wild (`UTF8`, `iso-8859-1`, `latin1`, `windows-1252` …). UTF-16 and
//!   UTF-32 hold bytes that end a frame and cannot have arrived: they are [`Declared::NotTransportable`] and the next rule decides.
//! - 8859/1 is true ISO 8859-1 (bytes 80 to 9F are control characters), not the windows-1252 that browsers take it for; 8859/9 likewise.
//! - MSH-18 may repeat: the first is the message's own, the others are sets that escape sequences switch to. Japanese sets (ISO IR14, IR87,
//!   IR159) are switched by escape sequences of ISO 2022 inside the bytes, so where any repetition names one, the whole is read that way;
//!   the backslash stays a backslash there, because HL7 escapes with it.
//! - CNS 11643-1992 is read as Big5, which is what senders that name it send.
//!
//! What cannot be read becomes U+FFFD and is counted; a U+FFFD that the sender wrote is not. Pure; `Debug` shows no text (I7).

use encoding_rs::{DecoderResult, Encoding};
use std::borrow::Cow;
use std::fmt;

/// A set that can be decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    Ascii,
    /// ISO 8859-1 itself.
    Latin1,
    /// ISO 8859-9 itself.
    Latin5,
    /// JIS X 0201, 0208 and 0212, switched by ISO 2022 escape sequences.
    Japanese,
    Other(&'static Encoding),
}

impl Charset {
    pub const UTF_8: Self = Self::Other(encoding_rs::UTF_8);
    pub const WINDOWS_1252: Self = Self::Other(encoding_rs::WINDOWS_1252);

    /// The set a name stands for: of HL7 table 0211, or as senders and people write it.
    pub fn named(name: &str) -> Result<Self, Unnamed> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        Ok(match plain.as_str() {
            "ASCII" | "USASCII" | "ISOIR6" => Self::Ascii,
            "88591" | "ISO88591" | "LATIN1" => Self::Latin1,
            "88599" | "ISO88599" | "LATIN5" => Self::Latin5,
            "88592" | "ISO88592" | "LATIN2" => Self::Other(encoding_rs::ISO_8859_2),
            "88593" | "ISO88593" => Self::Other(encoding_rs::ISO_8859_3),
            "88594" | "ISO88594" => Self::Other(encoding_rs::ISO_8859_4),
            "88595" | "ISO88595" => Self::Other(encoding_rs::ISO_8859_5),
            "88596" | "ISO88596" => Self::Other(encoding_rs::ISO_8859_6),
            "88597" | "ISO88597" => Self::Other(encoding_rs::ISO_8859_7),
            "88598" | "ISO88598" => Self::Other(encoding_rs::ISO_8859_8),
            "885915" | "ISO885915" | "LATIN9" => Self::Other(encoding_rs::ISO_8859_15),
            "ISOIR13" | "ISOIR14" | "ISOIR87" | "ISOIR159" | "ISO2022JP" => Self::Japanese,
            "SHIFTJIS" | "SJIS" => Self::Other(encoding_rs::SHIFT_JIS),
            "EUCJP" => Self::Other(encoding_rs::EUC_JP),
            "GB180302000" | "GB18030" | "GBK" | "GB2312" => Self::Other(encoding_rs::GB18030),
            "KSX1001" | "EUCKR" => Self::Other(encoding_rs::EUC_KR),
            "CNS116431992" | "BIG5" => Self::Other(encoding_rs::BIG5),
            // plain UNICODE means a UTF, and only this one can come through a frame
            "UNICODE" | "UNICODEUTF8" | "UTF8" => Self::UTF_8,
            "WINDOWS1250" | "CP1250" => Self::Other(encoding_rs::WINDOWS_1250),
            "WINDOWS1251" | "CP1251" => Self::Other(encoding_rs::WINDOWS_1251),
            "WINDOWS1252" | "CP1252" | "ANSI" => Self::WINDOWS_1252,
            other if other.contains("UTF16") || other.contains("UTF32") || other.contains("UCS") => return Err(Unnamed::NotTransportable),
            _ => return Err(Unnamed::Unknown),
        })
    }

    /// One name for each, for attributes and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ascii => "us-ascii",
            Self::Latin1 => "iso-8859-1",
            Self::Latin5 => "iso-8859-9",
            Self::Japanese => "iso-2022-jp",
            Self::Other(encoding) => encoding.name(),
        }
    }

    /// The text that bytes stand for.
    pub fn decode(self, bytes: &[u8]) -> Decoded<'_> {
        if let Ok(text) = std::str::from_utf8(bytes)
            && (self == Self::UTF_8 || (bytes.is_ascii() && self != Self::Japanese))
        {
            return Decoded { text: Cow::Borrowed(text), undecodable: 0 };
        }
        match self {
            Self::Ascii => {
                let undecodable = bytes.iter().filter(|b| !b.is_ascii()).count();
                let text: String = bytes.iter().map(|b| if b.is_ascii() { char::from(*b) } else { char::REPLACEMENT_CHARACTER }).collect();
                Decoded { text: text.into(), undecodable }
            }
            Self::Latin1 => Decoded { text: encoding_rs::mem::decode_latin1(bytes), undecodable: 0 },
            Self::Latin5 => Decoded { text: bytes.iter().map(|b| latin5(*b)).collect::<String>().into(), undecodable: 0 },
            Self::Japanese => japanese(bytes),
            Self::Other(encoding) => decode_with(encoding, bytes),
        }
    }
}

impl fmt::Debug for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name stands for nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    Unknown,
    /// UTF-16, UTF-32: their bytes would end the frame.
    NotTransportable,
}

/// What the feed's configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub charset: Option<Charset>,
    /// It goes before MSH-18.
    pub force: bool,
}

/// What MSH-18 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    Nothing,
    Known(Charset),
    Unknown,
    NotTransportable,
}

impl Declared {
    /// Reads MSH-18; `repetition` is the sender's second encoding character.
    pub fn read(field: &[u8], repetition: &[u8]) -> Self {
        if field.is_empty() {
            return Self::Nothing;
        }
        let mut parts: Vec<&str> = Vec::new();
        let mut rest = Some(field);
        while let Some(bytes) = rest {
            let (part, next) = if repetition.is_empty() { (bytes, None) } else { super::msh::split_once(bytes, repetition) };
            parts.push(std::str::from_utf8(part).unwrap_or("?").trim());
            rest = next;
        }
        if parts.iter().any(|part| Charset::named(part) == Ok(Charset::Japanese)) {
            return Self::Known(Charset::Japanese);
        }
        match parts[0] {
            // an empty first repetition before others is the default: ASCII
            "" | "\"\"" if parts.len() == 1 => Self::Nothing,
            "" => Self::Known(Charset::Ascii),
            name => match Charset::named(name) {
                Ok(charset) => Self::Known(charset),
                Err(Unnamed::Unknown) => Self::Unknown,
                Err(Unnamed::NotTransportable) => Self::NotTransportable,
            },
        }
    }
}

/// Where a choice comes from, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Forced,
    Declared,
    /// The feed's `charset`, where MSH-18 does not help.
    Setting,
    /// The bytes are valid UTF-8 and not plain ASCII, or plain ASCII, of which every set makes the same.
    Detected,
    Assumed,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Declared => "declared",
            Self::Setting => "setting",
            Self::Detected => "detected",
            Self::Assumed => "assumed",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub charset: Charset,
    pub origin: Origin,
}

/// The set of a whole message.
pub fn choose(rule: Rule, declared: Declared, message: &[u8]) -> Choice {
    let choice = |charset, origin| Choice { charset, origin };
    match (rule, declared) {
        (Rule { charset: Some(charset), force: true }, _) => choice(charset, Origin::Forced),
        (_, Declared::Known(charset)) => choice(charset, Origin::Declared),
        (Rule { charset: Some(charset), .. }, _) => choice(charset, Origin::Setting),
        _ if std::str::from_utf8(message).is_ok() => choice(Charset::UTF_8, Origin::Detected),
        _ => choice(Charset::WINDOWS_1252, Origin::Assumed),
    }
}

/// The same, with MSH-18 read from the message itself; one without a header declares nothing.
pub fn of_message(rule: Rule, message: &[u8]) -> Choice {
    let header = super::msh::scan(message);
    let declared =
        header.map_or(Declared::Nothing, |header| Declared::read(header.field(18), header.delimiters.repetition.unwrap_or_default()));
    choose(rule, declared, message)
}

/// Text, and how much of it is U+FFFD in place of what could not be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    pub text: Cow<'a, str>,
    pub undecodable: usize,
}

impl fmt::Debug for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded[{} bytes, {} undecodable]", self.text.len(), self.undecodable)
    }
}

fn decode_with(encoding: &'static Encoding, bytes: &[u8]) -> Decoded<'static> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length(bytes.len()).unwrap_or(bytes.len() * 3 + 16);
    let mut text = String::with_capacity(room);
    let (mut undecodable, mut at) = (0, 0);
    loop {
        let (result, read) = decoder.decode_to_string_without_replacement(&bytes[at..], &mut text, true);
        at += read;
        match result {
            DecoderResult::InputEmpty => break,
            DecoderResult::OutputFull => text.reserve(bytes.len() - at + 16),
            DecoderResult::Malformed(..) => {
                undecodable += 1;
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
    Decoded { text: text.into(), undecodable }
}

/// ISO 8859-9 is 8859-1 with six letters changed.
fn latin5(byte: u8) -> char {
    match byte {
        0xD0 => 'Ğ',
        0xDD => 'İ',
        0xDE => 'Ş',
        0xF0 => 'ğ',
        0xFD => 'ı',
        0xFE => 'ş',
        other => char::from(other),
    }
}

/// Which set ISO 2022 has switched to.
#[derive(Clone, Copy)]
enum Shift {
    Roman,
    Katakana,
    Jis0208,
    Jis0212,
}

/// The escape sequences of the sets in table 0211, and what follows them.
const ESCAPES: &[(&[u8], Shift)] = &[
    (b"\x1B(B", Shift::Roman),
    (b"\x1B(J", Shift::Roman),
    (b"\x1B(I", Shift::Katakana),
    (b"\x1B$@", Shift::Jis0208),
    (b"\x1B$B", Shift::Jis0208),
    (b"\x1B$(D", Shift::Jis0212),
];

/// Rewritten as EUC-JP, which has all of these sets side by side, and decoded as that. A line end switches back to Roman, as ISO 2022 has it.
fn japanese(bytes: &[u8]) -> Decoded<'static> {
    let mut euc = Vec::with_capacity(bytes.len() * 2);
    let (mut shift, mut rest) = (Shift::Roman, bytes);
    while let [first, after @ ..] = rest {
        if let Some((escape, to)) = ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape)) {
            (shift, rest) = (*to, &rest[escape.len()..]);
            continue;
        }
        if matches!(first, b'\r' | b'\n') {
            shift = Shift::Roman;
        }
        let graphic = (0x21..=0x7E).contains(first);
        rest = match (shift, after) {
            (Shift::Katakana, _) if (0x21..=0x5F).contains(first) => {
                euc.extend_from_slice(&[0x8E, first | 0x80]);
                after
            }
            (Shift::Jis0208 | Shift::Jis0212, [second, behind @ ..]) if graphic && (0x21..=0x7E).contains(second) => {
                if matches!(shift, Shift::Jis0212) {
                    euc.push(0x8F);
                }
                euc.extend_from_slice(&[first | 0x80, second | 0x80]);
                behind
            }
            // half of a pair
            (Shift::Jis0208 | Shift::Jis0212, _) if graphic => {
                euc.push(0xFF);
                after
            }
            // eight-bit katakana of JIS X 0201
            (Shift::Roman, _) if (0xA1..=0xDF).contains(first) => {
                euc.extend_from_slice(&[0x8E, *first]);
                after
            }
            _ => {
                euc.push(if first.is_ascii() { *first } else { 0xFF });
                after
            }
        };
    }
    decode_with(encoding_rs::EUC_JP, &euc)
}

#[cfg(test)]
mod tests;
