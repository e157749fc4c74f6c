//! As much of DER as certificates and requests for them need: elements with a tag and a length, read and written. Pure.
//!
//! Reading takes what strangers sent: it never fails, it ends. Writing is for structures of our own, a few hundred bytes at most.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0C;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const BMP_STRING: u8 = 0x1E;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// 2.5.4.3
pub(crate) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Elements one after the other.
pub(crate) struct Der<'d>(pub &'d [u8]);

impl<'d> Iterator for Der<'d> {
    type Item = (u8, &'d [u8]);

    /// Tag and content; `None` at the end and at what is not DER.
    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            short @ 0..=0x7F => (usize::from(short), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// The content of the next element, if it has this tag.
pub(crate) fn take<'d>(der: &mut Der<'d>, tag: u8) -> Option<&'d [u8]> {
    der.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// An element of these parts.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7F) => bytes.push(short),
        Ok(long) => bytes.extend([0x81, long]),
        Err(_) => {
            let length = u16::try_from(length).expect("what is written here is a few hundred bytes");
            bytes.push(0x82);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(parts.iter().copied().flatten());
    bytes
}

/// A bit string of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for length in [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x1234] {
            let content = vec![7; length];
            let both = [element(OCTET_STRING, &[&content]), bits(&content)].concat();
            let mut der = Der(&both);
            assert_eq!(take(&mut der, OCTET_STRING), Some(&content[..]));
            assert_eq!(take(&mut der, BIT_STRING).map(|bits| bits[0]), Some(0));
            assert_eq!(der.next(), None);
        }
        assert_eq!(take(&mut Der(&element(SET, &[])), SEQUENCE), None);
    }
}
