//! Which code a reply carries: for counting and showing, never for deciding. Pure.
//!
//! Replies are read back rather than their code carried along, because a duplicate is answered with the bytes stored with its first copy.

use serde::{Deserialize, Serialize};

/// MSA-1 of a reply of ours; `None` where nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AckCode {
    #[serde(rename = "AA")]
    Aa,
    #[serde(rename = "AE")]
    Ae,
    #[serde(rename = "AR")]
    Ar,
    #[serde(rename = "CA")]
    Ca,
    #[serde(rename = "CE")]
    Ce,
    #[serde(rename = "CR")]
    Cr,
    #[serde(rename = "none")]
    None,
}

impl AckCode {
    pub const ALL: [Self; 7] = [Self::Aa, Self::Ae, Self::Ar, Self::Ca, Self::Ce, Self::Cr, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aa => "AA",
            Self::Ae => "AE",
            Self::Ar => "AR",
            Self::Ca => "CA",
            Self::Ce => "CE",
            Self::Cr => "CR",
            Self::None => "none",
        }
    }

    pub fn is_positive(self) -> bool {
        matches!(self, Self::Aa | Self::Ca)
    }

    /// Reads a reply that we made: the first MSA decides. Field separators are one to four bytes.
    pub fn of_reply(reply: &[u8]) -> Self {
        let Some(at) = reply.windows(4).position(|window| window == b"\rMSA") else { return Self::None };
        let rest = &reply[at + 4..];
        let code_at = |skip: usize| {
            let two = rest.get(skip..skip + 2)?;
            Self::ALL[..6].iter().find(|code| code.as_str().as_bytes() == two).copied()
        };
        (1..=4).find_map(code_at).unwrap_or(Self::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_reply_is_read_whatever_its_separator() {
        assert_eq!(AckCode::of_reply(b"\x0bMSH|^~\\&|A\rMSA|AA|AE\r\x1c\r"), AckCode::Aa);
        assert_eq!(AckCode::of_reply("\x0bMSH§^~\\&§A\rMSA§CR§1\r\x1c\r".as_bytes()), AckCode::Cr);
        assert_eq!(AckCode::of_reply(b""), AckCode::None);
        for code in AckCode::ALL {
            let reply = format!("MSH|\rMSA|{}|x\r", code.as_str());
            assert_eq!(AckCode::of_reply(reply.as_bytes()), code);
        }
    }
}
