//! The WAN between gateway and broker: a TCP relay that can be switched off. Off: connections break and new ones are refused, as when a line
//! is down and its router knows it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The switch. Dropping it ends the relay.
#[derive(Debug)]
pub struct Wan {
    up: watch::Sender<bool>,
}

impl Wan {
    /// Relays from `listen` to `broker`; up at first.
    pub async fn start(listen: SocketAddr, broker: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (up, state) = watch::channel(true);
        tokio::spawn(relay(listen, listener, broker, state));
        Ok(Self { up })
    }

    pub fn set_up(&self, up: bool) {
        // Fails only when the relay has ended, and with it the demonstration.
        let _ = self.up.send(up);
    }
}

async fn relay(listen: SocketAddr, listener: TcpListener, broker: SocketAddr, mut up: watch::Receiver<bool>) {
    let mut listener = Some(listener);
    loop {
        let Some(open) = listener.take() else {
            if up.wait_for(|up| *up).await.is_err() {
                return;
            }
            match TcpListener::bind(listen).await {
                Ok(again) => listener = Some(again),
                Err(_) => tokio::time::sleep(super::TICK).await, // still being given back; the demonstration has its own deadline
            }
            continue;
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                down = up.wait_for(|up| !*up) => match down {
                    Ok(_) => break, // listener and connections end here
                    Err(_) => return,
                },
                Ok((gateway, _)) = open.accept() => {
                    connections.spawn(connection(gateway, broker));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(mut gateway: TcpStream, broker: SocketAddr) {
    if let Ok(mut broker) = TcpStream::connect(broker).await {
        // How it ended is for both ends to tell.
        let _ = copy_bidirectional(&mut gateway, &mut broker).await;
    }
}
