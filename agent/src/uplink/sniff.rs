//! Listens in for one packet: the broker's DISCONNECT, and why. Pure.
//!
//! The standard lets a broker leave the property length out of a DISCONNECT, and mosquitto does. rumqttc's codec takes such a packet for an
//! incomplete one, waits for the rest and sees only the end of the connection. So the bridge looks at the packets that come by (their type
//! and length, nothing else) and remembers the reason code of a DISCONNECT. The bytes pass unchanged.

/// First byte of a DISCONNECT.
const DISCONNECT: u8 = 0xE0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Type,
    /// In the length of a packet of this type: the part read so far and the shift of the next byte.
    Length {
        kind: u8,
        length: u32,
        shift: u32,
    },
    /// The reason code comes next.
    Reason,
    /// This many bytes to the next packet.
    Body(u32),
    /// Not MQTT; rumqttc will say so.
    Lost,
}

/// Follows the packets of a stream however it is cut into reads.
#[derive(Debug)]
pub(super) struct Sniffer(At);

impl Sniffer {
    pub(super) fn new() -> Self {
        Self(At::Type)
    }

    /// The reason code, when a DISCONNECT is among these bytes. Nothing follows one.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<u8> {
        while let Some((&first, rest)) = bytes.split_first() {
            let mut skip = 1;
            self.0 = match self.0 {
                At::Type => At::Length { kind: first, length: 0, shift: 0 },
                At::Length { kind, length, shift } => {
                    let length = length | (u32::from(first & 0x7F) << shift);
                    match (first & 0x80 != 0, shift) {
                        (true, 21) => At::Lost,
                        (true, _) => At::Length { kind, length, shift: shift + 7 },
                        (false, _) if kind == DISCONNECT && length == 0 => return Some(0),
                        (false, _) if kind == DISCONNECT => At::Reason,
                        (false, _) if length == 0 => At::Type,
                        (false, _) => At::Body(length),
                    }
                }
                At::Reason => return Some(first),
                At::Body(left) => {
                    skip = bytes.len().min(left as usize);
                    if skip == left as usize { At::Type } else { At::Body(left - skip as u32) }
                }
                At::Lost => return None,
            };
            bytes = if skip == 1 { rest } else { &bytes[skip..] };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PUBACK, a PINGRESP, a publish of 200 bytes, then this.
    fn stream(end: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x40, 2, 0, 1, 0xD0, 0, 0x32, 0xC8, 0x01];
        bytes.extend([0xE0; 200]);
        bytes.extend(end);
        bytes
    }

    #[test]
    fn the_reason_is_found_however_the_stream_is_cut() {
        for (end, reason) in [(&[0xE0, 1, 0x8E][..], 0x8E), (&[0xE0, 2, 0x95, 0], 0x95), (&[0xE0, 0], 0)] {
            let bytes = stream(end);
            for cut in 1..bytes.len() {
                let mut sniffer = Sniffer::new();
                let found: Vec<u8> = bytes.chunks(cut).filter_map(|chunk| sniffer.feed(chunk)).collect();
                assert_eq!(found.first(), Some(&reason), "cut at {cut}");
            }
        }
    }

    #[test]
    fn other_packets_and_nonsense_have_no_reason() {
        assert_eq!(Sniffer::new().feed(&stream(&[])), None);
        assert_eq!(Sniffer::new().feed(&[0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0x8E]), None);
        assert_eq!(Sniffer::new().feed(b"HTTP/1.1 400 Bad Request\r\n"), None);
    }
}
