//! An answer as the difference to the answer before it: consecutive answers to one sender differ in a time and two ids.
//!
//! ```text
//!   len, [equal, changed, bytes of the change]…      as varints of postcard; what follows the last change is equal
//! ```
//!
//! Positions are compared one by one, without looking for shifts: answers of one length are what there is.

/// A change ends where so many bytes are equal again.
const EQUAL_BYTES_MIN: usize = 3;

fn put(out: &mut Vec<u8>, number: usize) {
    let mut buffer = [0; 10];
    let used = postcard::to_slice(&(number as u64), &mut buffer).expect("ten bytes hold every number");
    out.extend_from_slice(used);
}

fn take(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = postcard::take_from_bytes::<u64>(bytes).ok()?;
    *bytes = rest;
    usize::try_from(number).ok()
}

/// How `this` differs from `before`.
pub fn encode(before: &[u8], this: &[u8]) -> Vec<u8> {
    let same = |at: usize| before.get(at).is_some_and(|byte| *byte == this[at]);
    let mut out = Vec::with_capacity(32);
    put(&mut out, this.len());
    let (mut at, mut told) = (0, 0);
    while at < this.len() {
        if same(at) {
            at += 1;
            continue;
        }
        let begin = at;
        let mut end = at + 1;
        at = end;
        while at < this.len() && at - end < EQUAL_BYTES_MIN {
            at += 1;
            if !same(at - 1) {
                end = at;
            }
        }
        put(&mut out, begin - told);
        put(&mut out, end - begin);
        out.extend_from_slice(&this[begin..end]);
        told = end;
    }
    out
}

/// The inverse of [`encode`]; `None` for anything it does not make.
pub fn decode(before: &[u8], mut delta: &[u8], len_max: usize) -> Option<Vec<u8>> {
    let len = take(&mut delta).filter(|len| *len <= len_max)?;
    let mut out = Vec::with_capacity(len);
    while !delta.is_empty() {
        let (equal, changed) = (take(&mut delta)?, take(&mut delta)?);
        out.extend_from_slice(before.get(out.len()..out.len().checked_add(equal)?)?);
        out.extend_from_slice(delta.get(..changed)?);
        delta = &delta[changed..];
        if out.len() > len {
            return None;
        }
    }
    if out.len() < len {
        out.extend_from_slice(before.get(out.len()..len)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 4096;

    #[test]
    fn answers_to_one_sender_shrink_to_what_differs() {
        let first =
            b"\x0bMSH|^~\\&|HUB|SITE|EHR|MAIN|20260101120000+0000||ACK^P03^ACK|00000000010000000001|P|2.5\rMSA|AA|MSG000001\r\x1c\r";
        let second =
            b"\x0bMSH|^~\\&|HUB|SITE|EHR|MAIN|20260101120001+0000||ACK^P03^ACK|00000000010000000002|P|2.5\rMSA|AA|MSG000002\r\x1c\r";
        let delta = encode(first, second);
        assert!(delta.len() <= 12, "{}", delta.len());
        assert_eq!(decode(first, &delta, MAX).unwrap(), second);
    }

    #[test]
    fn a_foreign_difference_is_refused() {
        for delta in [&b"\x05\x09\x01x"[..], b"\x01\x00\x05ab", b"\xff\xff\xff\x7f", b"\x02\x00", b""] {
            assert_eq!(decode(b"abc", delta, MAX), None, "{delta:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_comes_back(before in prop::collection::vec(0u8..4, 0..40), this in prop::collection::vec(0u8..4, 0..40)) {
            prop_assert_eq!(decode(&before, &encode(&before, &this), MAX), Some(this));
        }

        #[test]
        fn rubbish_never_panics(before in prop::collection::vec(any::<u8>(), 0..20), delta in prop::collection::vec(any::<u8>(), 0..20)) {
            let found = decode(&before, &delta, 64);
            prop_assert!(found.is_none_or(|bytes| bytes.len() <= 64));
        }
    }
}
