//! Ports: taken, told, and handed over from one listener to the next.

use super::*;

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let rig = Rig::new(settings());
    let feed = FeedId::new("g").unwrap();
    let board = Board::new([feed.clone()]);
    let taken = MllpSettings { listen: rig.address, ..settings() };
    let bind = |settings| bind_to(Store::Fake(FakeStore::new()), feed.clone(), settings, &board);
    let error = bind(taken).unwrap_err();
    let expected = format!("feed `g`: cannot listen on {}; another program or feed has this port: `ss -ltnp` shows which", rig.address);
    assert_eq!(error.to_string(), expected);
    error.tell(&board, &feed, "; tried again");
    assert!(board.conditions()[0].code == "listener_down" && board.conditions()[0].text.ends_with("); tried again"));
    let (stop, stopped) = watch::channel(true);
    bind(settings()).unwrap().run(stopped).await;
    assert!(board.conditions().is_empty());
    drop(stop);
}

/// Another listener goes on with the socket: whoever connects in between is served, by the new one; the old one answers what it has begun.
#[tokio::test]
async fn a_listener_follows_another_on_the_same_port() {
    let feed = FeedId::new("f").unwrap();
    let board = Board::new([feed.clone()]);
    let (old, new) = (FakeStore::new(), FakeStore::new());
    let port = Port::open(&crate::systemd::sockets::SocketStore::default(), &feed, settings().listen).unwrap();
    let make = |store: &FakeStore| {
        MllpListener::on_to(&port, Store::Fake(store.clone()), feed.clone(), settings(), LIMIT, &LargeFrameSlots::new(), &board).unwrap()
    };
    let mut first = make(&old);
    let (address, ended) = (first.local_addr().unwrap(), first.accepted_no_more());
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(first.run(stopped));
    let mut peer = Peer { stream: TcpStream::connect(address).await.unwrap() };
    peer.send(&message("1")).await;
    assert_eq!(peer.answer().await, "AA 1");
    assert!(board.feed(&feed).last_peer_at().is_some());
    stop.send_replace(true);
    timeout(PATIENCE, ended).await.expect("it lets go at once").unwrap_err();
    let mut between = Peer { stream: TcpStream::connect(address).await.expect("nobody accepts, nobody is refused") };
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(make(&new).run(stopped));
    between.send(&message("2")).await;
    assert_eq!(between.answer().await, "AA 2");
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!((FakeStore::lock(&old.bodies).len(), FakeStore::lock(&new.bodies).len()), (1, 1));
}
