//! An uplink without a broker, for the tests of its users: what comes up is pushed, what was published is taken. The window is the real one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::gate::{Gate, Live, Outlet};
use super::queue::{self, Sender};
use super::window::Window;
use super::{AckReason, Outgoing, Uplink, UplinkEvent};
use crate::config::settings::{Confirm, Endpoint, OnNoSubscriber, UplinkSettings};
use crate::limits::UPLINK_BYTES_MAX;

/// The broker's end. Dropping it leaves the uplink without events.
#[derive(Debug)]
pub(crate) struct ScriptedUplink {
    gate: Arc<Gate>,
    events: Sender,
    taken: Option<mpsc::Receiver<Outgoing>>,
    /// Tokens in flight, in order; packet ids go up with them.
    in_flight: Vec<(u64, u16)>,
    next_packet: u16,
    packets: u16,
    _stop: watch::Receiver<bool>,
    /// What the uplink was told to go on with.
    pub(crate) settings: watch::Receiver<Arc<UplinkSettings>>,
}

/// Settings of nothing in particular.
pub(crate) fn some_settings() -> UplinkSettings {
    UplinkSettings {
        endpoints: vec![Endpoint::new("scripted", 1883, false)],
        ca: None,
        cert: None,
        key: None,
        proxy: None,
        in_flight: 10,
        confirm: Confirm::Receipt,
        receipt_timeout: crate::limits::RECEIPT_TIMEOUT_DEFAULT,
        on_no_subscriber: OnNoSubscriber::Hold,
    }
}

impl Uplink {
    /// Must be called inside a runtime. Nothing is taken before [`ScriptedUplink::up`].
    pub(crate) fn scripted() -> (Self, ScriptedUplink) {
        let gate = Arc::<Gate>::default();
        let (sender, events) = queue::queue();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async {});
        let (settings, replaced) = watch::channel(Arc::new(some_settings()));
        let script = ScriptedUplink {
            gate: gate.clone(),
            events: sender,
            taken: None,
            in_flight: Vec::new(),
            next_packet: 1,
            packets: 1,
            _stop: stopped,
            settings: replaced,
        };
        (Self { gate, events, stop, settings, task }, script)
    }
}

impl ScriptedUplink {
    /// A connection with this window.
    pub(crate) async fn up(&mut self, window: usize, packet_bytes_max: Option<u32>) {
        let packets = 2 * window + 16;
        let (outlet, taken) = mpsc::channel(window);
        self.taken = Some(taken);
        self.in_flight.clear();
        self.next_packet = 1;
        self.packets = u16::try_from(packets).unwrap();
        self.gate.open(Live {
            window: Window::new(window, packets, UPLINK_BYTES_MAX),
            outlet: Outlet::Scripted(outlet),
            packet_bytes_max,
            leaving: false,
            owing_since: Instant::now(),
        });
        let endpoint = Endpoint::new("scripted", 1883, false);
        self.push(UplinkEvent::Up { endpoint, window, packet_bytes_max, session_present: false }).await;
    }

    /// The next publish; waits for it.
    pub(crate) async fn take(&mut self) -> Outgoing {
        let outgoing = self.taken.as_mut().expect("up").recv().await.expect("the uplink still stands");
        self.sent(outgoing)
    }

    /// The next publish, if there is one.
    pub(crate) fn try_take(&mut self) -> Option<Outgoing> {
        let outgoing = self.taken.as_mut()?.try_recv().ok()?;
        Some(self.sent(outgoing))
    }

    fn sent(&mut self, outgoing: Outgoing) -> Outgoing {
        let packet = self.next_packet;
        self.next_packet = if packet == self.packets { 1 } else { packet + 1 };
        self.in_flight.push((outgoing.token, packet));
        self.gate.with(|live| live.window.sent(packet));
        outgoing
    }

    /// Answers a publish that was taken.
    pub(crate) async fn ack(&mut self, token: u64, reason: AckReason) {
        let position = self.in_flight.iter().position(|(known, _)| *known == token).expect("a token that was taken");
        let (_, packet) = self.in_flight.remove(position);
        assert_eq!(self.gate.with(|live| live.window.answered(packet)).flatten(), Some(token));
        self.push(UplinkEvent::Acked { token, reason }).await;
    }

    pub(crate) async fn message(&mut self, topic: &str, payload: impl Into<Bytes>) {
        self.push(UplinkEvent::Message { topic: topic.to_owned(), payload: payload.into(), retained: false }).await;
    }

    /// The connection ends; publishes not answered are lost.
    pub(crate) async fn down(&mut self, error: &str) {
        self.gate.close();
        self.taken = None;
        self.push(UplinkEvent::Down { error: error.to_owned() }).await;
    }

    async fn push(&mut self, event: UplinkEvent) {
        self.events.send(event).await.expect("the uplink still stands");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::NotTaken;

    fn outgoing(token: u64) -> Outgoing {
        Outgoing { token, topic: "t".into(), payload: Bytes::new(), content_type: None, properties: Vec::new(), retain: false }
    }

    #[tokio::test]
    async fn the_script_behaves_as_the_uplink_does() {
        let (mut uplink, mut script) = Uplink::scripted();
        assert_eq!(uplink.try_publish(outgoing(1)).unwrap_err().0, NotTaken::NoConnection);
        script.up(2, Some(100)).await;
        assert!(matches!(uplink.event().await, UplinkEvent::Up { window: 2, .. }));
        uplink.try_publish(outgoing(1)).unwrap();
        uplink.try_publish(outgoing(2)).unwrap();
        assert_eq!(uplink.try_publish(outgoing(3)).unwrap_err().0, NotTaken::WindowFull);
        assert_eq!(script.take().await.token, 1);
        assert_eq!(script.try_take().unwrap().token, 2);
        assert!(script.try_take().is_none());
        script.ack(2, AckReason::Success).await;
        assert!(matches!(uplink.event().await, UplinkEvent::Acked { token: 2, reason: AckReason::Success }));
        script.message("t", "x").await;
        assert!(matches!(uplink.event().await, UplinkEvent::Message { .. }));
        let other = UplinkSettings { in_flight: 20, ..some_settings() };
        uplink.replace(other.clone());
        assert_eq!(**script.settings.borrow(), other);
        assert_eq!(uplink.try_publish(outgoing(4)).unwrap_err().0, NotTaken::NoConnection, "nothing more on the old connection");
        script.down("gone").await;
        assert!(matches!(uplink.event().await, UplinkEvent::Down { .. }));
        assert_eq!(uplink.try_publish(outgoing(3)).unwrap_err().0, NotTaken::NoConnection);
    }
}
