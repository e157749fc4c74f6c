//! What rumqttc's errors and the broker's codes mean to us. Pure, and beside `mqtt` and `probe` the only file that names rumqttc.
//!
//! rumqttc's own error texts are not shown where they could carry a packet (I7). Where the line knows better than rumqttc why it ended (TLS),
//! the line's word counts.

use rumqttc::v5::mqttbytes::Error as CodecError;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{ConnectionError, StateError};

use super::AckReason;
use super::backoff::Pace;
use super::bridge::End;
use super::fault::{Fault, Kind, foreign};
use crate::config::settings::Endpoint;

/// A refusal of one publish that is known only from how the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Culprit {
    /// Answers come in order, and rumqttc could not read this one: it was for the oldest.
    Oldest(AckReason),
    /// Some packet was too large, so the largest was.
    Largest,
}

pub(super) fn ack(reason: PubAckReason) -> AckReason {
    match reason {
        PubAckReason::Success => AckReason::Success,
        PubAckReason::NoMatchingSubscribers => AckReason::NoMatchingSubscribers,
        PubAckReason::NotAuthorized => AckReason::NotAuthorized,
        PubAckReason::QuotaExceeded => AckReason::QuotaExceeded,
        PubAckReason::TopicNameInvalid => AckReason::TopicNameInvalid,
        PubAckReason::PayloadFormatInvalid => AckReason::PayloadFormatInvalid,
        PubAckReason::UnspecifiedError => AckReason::Other(0x80),
        PubAckReason::ImplementationSpecificError => AckReason::Other(0x83),
        PubAckReason::PacketIdentifierInUse => AckReason::Other(0x91),
    }
}

/// Which publish, if any, ended the connection.
pub(super) fn culprit(error: &ConnectionError, end: Option<&End>) -> Option<Culprit> {
    if matches!(end, Some(End::Disconnected(code)) if *code == DisconnectReasonCode::PacketTooLarge as u8) {
        return Some(Culprit::Largest);
    }
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code: DisconnectReasonCode::PacketTooLarge, .. }) => {
            Some(Culprit::Largest)
        }
        // The codec's name for an answer code it does not know.
        ConnectionError::MqttState(StateError::Deserialization(CodecError::InvalidConnectReturnCode(code))) => {
            Some(Culprit::Oldest(if *code == 0x95 { AckReason::PacketTooLarge } else { AckReason::Other(*code) }))
        }
        _ => None,
    }
}

pub(super) fn subscription(endpoint: &Endpoint, filter: &str, code: SubscribeReasonCode) -> Option<Fault> {
    match code {
        SubscribeReasonCode::Success(_) => None,
        refusal => Some(Fault::refused(format!(
            "{endpoint}: the broker refuses our subscription to {filter} ({refusal:?}); allow this gateway's client to read that topic"
        ))),
    }
}

/// Why a connection could not be made (`up` false) or ended.
pub(super) fn fault(endpoint: &Endpoint, error: &ConnectionError, end: Option<End>, up: bool) -> Fault {
    match (error, end) {
        (ConnectionError::ConnectionRefused(code), _) => refused(endpoint, *code),
        (ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }), _) => {
            disconnected(endpoint, *reason_code, reason_string.as_deref())
        }
        (_, Some(End::Disconnected(code))) => match DisconnectReasonCode::try_from(code) {
            Ok(code) => disconnected(endpoint, code, None),
            Err(_) => Fault::passing(format!("{endpoint}: the broker disconnected us (reason {code:#04x})")),
        },
        (_, Some(End::Tls(error))) => Fault::dial(&error),
        (ConnectionError::NotConnAck(_), _) => {
            Fault::passing(format!("{endpoint}: the answer to CONNECT is not a CONNACK; check that the port speaks MQTT 5"))
        }
        (ConnectionError::MqttState(StateError::AwaitPingResp), _) => {
            Fault::passing(format!("{endpoint}: the broker no longer answers; check the WAN and the broker"))
        }
        (_, Some(End::Lost(error))) => Fault::passing(format!("{endpoint}: the connection broke ({error}); check the WAN")),
        (error, Some(End::Closed)) if closed(error) && up => Fault {
            unexplained: true,
            ..Fault::passing(format!("{endpoint}: the broker closed the connection without a reason; its log may tell more"))
        },
        (error, Some(End::Closed)) if closed(error) => Fault::passing(format!(
            "{endpoint}: the broker closed the connection before accepting it; check that the port speaks MQTT 5, its log may tell more"
        )),
        (error, _) => Fault::passing(format!("{endpoint}: the connection cannot go on ({}); the broker's log may tell more", plain(error))),
    }
}

/// Errors that say no more than that the other side closed.
fn closed(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Io(_) => true,
        ConnectionError::MqttState(error) => matches!(
            error,
            // A DISCONNECT without a body is `PayloadRequired` to the codec.
            StateError::Io(_)
                | StateError::ConnectionAborted
                | StateError::Deserialization(CodecError::Io(_) | CodecError::PayloadRequired)
        ),
        _ => false,
    }
}

/// rumqttc's words, where they cannot carry a packet.
fn plain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::MqttState(error) => foreign(&error.to_string()),
        ConnectionError::Io(error) => foreign(&error.to_string()),
        ConnectionError::Timeout(_) => "no answer in time".into(),
        ConnectionError::NotConnAck(_) | ConnectionError::ConnectionRefused(_) | ConnectionError::RequestsDone => "protocol error".into(),
    }
}

pub(super) fn refused(endpoint: &Endpoint, code: ConnectReturnCode) -> Fault {
    use ConnectReturnCode as Code;
    match code {
        Code::ServerBusy | Code::QuotaExceeded | Code::ConnectionRateExceeded | Code::ServerUnavailable | Code::ServiceUnavailable => {
            Fault {
                pace: Pace::Busy,
                kind: Kind::Down,
                unexplained: false,
                text: format!("{endpoint}: the broker is busy ({code:?}); nothing to do here, it is tried again"),
            }
        }
        Code::UnspecifiedError | Code::ImplementationSpecificError => {
            Fault::passing(format!("{endpoint}: the broker refuses the connection ({code:?}); its log may tell more"))
        }
        Code::UseAnotherServer | Code::ServerMoved => {
            Fault::refused(format!("{endpoint}: the broker sends us elsewhere ({code:?}); correct `endpoints` under [uplink]"))
        }
        Code::BadUserNamePassword
        | Code::NotAuthorized
        | Code::Banned
        | Code::BadAuthenticationMethod
        | Code::BadClientId
        | Code::ClientIdentifierNotValid => Fault::refused(format!(
            "{endpoint}: the broker does not let this gateway in ({code:?}); register its client id and certificate at the broker"
        )),
        other => Fault::refused(format!(
            "{endpoint}: the broker does not take our CONNECT ({other:?}); it must allow MQTT 5, QoS 1 and a retained will"
        )),
    }
}

pub(super) fn disconnected(endpoint: &Endpoint, code: DisconnectReasonCode, said: Option<&str>) -> Fault {
    use DisconnectReasonCode as Code;
    let said = said.map(|said| format!(": {}", foreign(said))).unwrap_or_default();
    match code {
        Code::SessionTakenOver => Fault {
            pace: Pace::Contested,
            kind: Kind::IdInUse,
            unexplained: false,
            text: format!(
                "{endpoint}: another client took over our session; make sure that no copy of this gateway runs and that its id is used once"
            ),
        },
        Code::ServerBusy | Code::QuotaExceeded | Code::MessageRateTooHigh | Code::ConnectionRateExceeded => Fault {
            pace: Pace::Busy,
            kind: Kind::Down,
            unexplained: false,
            text: format!("{endpoint}: the broker is busy and disconnected us ({code:?}{said}); nothing to do here, it is tried again"),
        },
        Code::NotAuthorized | Code::QoSNotSupported | Code::RetainNotSupported | Code::TopicFilterInvalid => Fault::refused(format!(
            "{endpoint}: the broker disconnected us ({code:?}{said}); allow this gateway's client to use its topics, with QoS 1 and retain"
        )),
        _ => Fault::passing(format!("{endpoint}: the broker disconnected us ({code:?}{said})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("hub.example.org", 8883, true)
    }

    fn server_disconnect(reason_code: DisconnectReasonCode) -> ConnectionError {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string: Some("see\nlog".into()) })
    }

    #[test]
    fn what_will_not_mend_is_told_apart() {
        let cases = [
            (ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized), Pace::Slow, Kind::Refused),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::Banned), Pace::Slow, Kind::Refused),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::ServerBusy), Pace::Busy, Kind::Down),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::QuotaExceeded), Pace::Busy, Kind::Down),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::UnspecifiedError), Pace::Normal, Kind::Down),
            (server_disconnect(DisconnectReasonCode::SessionTakenOver), Pace::Contested, Kind::IdInUse),
            (server_disconnect(DisconnectReasonCode::ServerShuttingDown), Pace::Normal, Kind::Down),
            (server_disconnect(DisconnectReasonCode::NotAuthorized), Pace::Slow, Kind::Refused),
        ];
        for (error, pace, kind) in cases {
            let fault = fault(&endpoint(), &error, Some(End::Closed), true);
            assert_eq!((fault.pace, fault.kind), (pace, kind), "{}", fault.text);
            assert!(fault.text.starts_with("mqtts://hub.example.org:8883: "), "{}", fault.text);
        }
    }

    #[test]
    fn what_the_broker_wrote_is_shown_on_one_line() {
        let text = fault(&endpoint(), &server_disconnect(DisconnectReasonCode::ServerShuttingDown), None, true).text;
        assert!(text.contains("ServerShuttingDown: seelog"), "{text}");
    }

    /// I7: an unexpected packet is not printed.
    #[test]
    fn a_packet_never_gets_into_an_error() {
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
        let packet = Packet::Publish(Publish::new("CANARY", QoS::AtMostOnce, "CANARY", None));
        let fault = fault(&endpoint(), &ConnectionError::NotConnAck(Box::new(packet)), None, false);
        assert!(!fault.text.contains("CANARY"));
    }
}
