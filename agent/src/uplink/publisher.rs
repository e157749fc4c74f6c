//! The way into one connection: a publish handed to rumqttc, and its size on the wire, known before it is handed over (rule 5 of `mqtt`).

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ClientError, Request};

use super::Outgoing;

/// Largest packet MQTT can frame.
const PACKET_BYTES_MAX: u32 = 268_435_455;

/// The way into one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    pub client: AsyncClient,
    pub retain_available: bool,
}

impl Publisher {
    /// Hands a publish over, or gives it back if the connection is gone.
    pub(super) fn publish(&self, outgoing: Outgoing) -> Result<(), Outgoing> {
        let Outgoing { token, topic, payload, content_type, properties, retain } = outgoing;
        let properties = PublishProperties { content_type, user_properties: properties, ..PublishProperties::default() };
        let kept = retain && self.retain_available;
        match self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, kept, payload, properties) {
            Ok(()) => Ok(()),
            Err(ClientError::Request(Request::Publish(back)) | ClientError::TryRequest(Request::Publish(back))) => {
                let Publish { topic, payload, properties, .. } = back;
                let PublishProperties { content_type, user_properties: properties, .. } = properties.unwrap_or_default();
                let topic = String::from_utf8_lossy(&topic).into_owned();
                Err(Outgoing { token, topic, payload, content_type, properties, retain })
            }
            Err(_) => unreachable!("a publish comes back as a publish"),
        }
    }
}

/// Size of a publish on the wire, or the limit it breaks.
pub(super) fn packet_bytes(outgoing: &Outgoing, max: Option<u32>) -> Result<usize, u32> {
    let varint = |value: usize| match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    };
    let texts = outgoing.properties.iter().flat_map(|(name, value)| [name, value]).chain(&outgoing.content_type);
    let mut longest = outgoing.topic.len();
    let mut properties = outgoing.content_type.as_ref().map_or(0, |_| 1) + outgoing.properties.len();
    for text in texts {
        longest = longest.max(text.len());
        properties += 2 + text.len();
    }
    if longest > usize::from(u16::MAX) {
        return Err(u32::from(u16::MAX));
    }
    let rest = 2 + outgoing.topic.len() + 2 + varint(properties) + properties + outgoing.payload.len();
    let bytes = 1 + varint(rest) + rest;
    let max = max.unwrap_or(PACKET_BYTES_MAX).min(PACKET_BYTES_MAX);
    if bytes > max as usize { Err(max) } else { Ok(bytes) }
}
