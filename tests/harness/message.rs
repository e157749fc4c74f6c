//! Synthetic HL7 v2 messages. Every byte follows from (connection, number, size), so that whoever receives one can be held to every byte, and
//! every message carries strings that must never be seen outside it (I7).

/// In every message, in a place where a patient's name would be.
pub const CANARIES: [&str; 2] = ["ZEBRAFINCH^CANARY", "MRN-4711-CANARY"];

/// MSH-10 of a sender's message: `C03S000123`.
pub fn control_id(connection: usize, number: u64) -> String {
    format!("C{connection:02}S{number:06}")
}

/// What [`control_id`] was made from.
pub fn parse_control_id(id: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(id).ok()?.strip_prefix('C')?;
    let (connection, number) = text.split_once('S')?;
    Some((connection.parse().ok()?, number.parse().ok()?))
}

/// A message of about `bytes` bytes (never fewer than its fixed segments need).
pub fn build(connection: usize, number: u64, bytes: usize) -> Vec<u8> {
    with_id(&control_id(connection, number), seed(connection, number), bytes)
}

/// The same with any control id.
pub fn with_id(id: &str, seed: u64, bytes: usize) -> Vec<u8> {
    let [name, mrn] = CANARIES;
    let mut message = format!(
        "MSH|^~\\&|CABINET|ST-MARYS|SITEWARD|HUB|20261122101500-0500||DFT^P03^DFT_P03|{id}|P|2.5.1\r\
         EVN|P03|20261122101500-0500\r\
         PID|1||{mrn}^^^SM^MR||{name}||19700101|F\r\
         FT1|1|{seed:016x}||20261122101459-0500||CG|0064-1234^GUIDEWIRE^LOCAL||-1|EA\r"
    )
    .into_bytes();
    message.reserve(bytes.saturating_sub(message.len()) + 128);
    let mut state = seed | 1;
    while message.len() + 8 < bytes {
        message.extend_from_slice(b"NTE|1|");
        let line = (bytes - message.len() - 1).min(90);
        for _ in 0..line.div_ceil(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            message.extend(state.to_le_bytes().map(|b| b'A' + b % 26));
        }
        message.push(b'\r');
    }
    message
}

fn seed(connection: usize, number: u64) -> u64 {
    (number ^ ((connection as u64) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Sizes as a hospital has them: mostly half a kilobyte, some 4 and 40 KB, now and then 5 MB (a scanned document).
pub fn mixed_size(connection: usize, number: u64) -> usize {
    let n = number * 16 + connection as u64;
    match n {
        n if n % 601 == 300 => 5_000_000,
        n if n % 10 == 7 => 40_000,
        n if n % 4 == 1 => 4_000,
        _ => 500,
    }
}

/// MSH-10 of a message whose field separator is its fourth byte.
pub fn msh10(message: &[u8]) -> Option<&[u8]> {
    let separator = *message.strip_prefix(b"MSH")?.first()?;
    let header = message.split(|&b| b == b'\r').next()?;
    header.split(|&b| b == separator).nth(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_follows_from_its_numbers_and_names_itself() {
        for size in [0, 500, 4_000, 40_000] {
            let message = build(3, 123, size);
            assert_eq!(message, build(3, 123, size));
            assert_ne!(message, build(3, 124, size));
            assert_eq!(msh10(&message), Some(&b"C03S000123"[..]));
            assert!(message.len() >= size.saturating_sub(16) && message.len() < size + 400, "{size}: {}", message.len());
            assert!(message.ends_with(b"\r") && !message.contains(&0x1C) && !message.contains(&0x0B));
        }
        assert_eq!(parse_control_id(b"C03S000123"), Some((3, 123)));
        assert_eq!(parse_control_id(b"other"), None);
    }
}
