//! The status page of a running agent: what a plain client gets, and what a person sees in a real browser, through an outage, a restart, without
//! scripts, on a phone and in the dark. Screenshots are left in `target/screenshots`.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use harness::browser::{Browser, Look, Tab};
use harness::http::{self, Answer};
use harness::link::Weather;
use harness::message::{self, CANARIES};
use harness::mosquitto;
use harness::net;
use harness::process::Process;
use harness::scene::{Directory, Scene};
use harness::sender::{Crew, Plan};
use harness::site::{Configuration, Feed, Site};
use harness::wait;

fn section(port: u16) -> String {
    format!("\n[status]\nlisten = \"127.0.0.1:{port}\"\n")
}

fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = http::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    Answer::read(&mut stream).ok()
}

fn answered(address: SocketAddr, path: &str) -> Answer {
    wait::wait_for(&format!("an answer to {path}"), wait::SOON, || get(address, path))
}

/// A site whose page is at a port of its own; three feeds, the last of which cannot listen.
fn scene(port: u16) -> (Scene, TcpListener) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("its address").port();
    let scene = Scene::new(mosquitto::Options::default(), |configuration| {
        configuration.feeds.push(Feed::new("cabinet-transactions-3-west", "normal"));
        let lab = format!(
            "\n[[feed]]\nid = \"lab\"\nlane = \"bulk\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{taken_port}\"\n"
        );
        configuration.sections = vec![lab, section(port)];
    });
    (scene, taken)
}

/// I7: what a plain client gets, while messages of patients pass; and 200 connections that say nothing hurt neither the page nor a sender.
#[test]
fn the_page_tells_the_status_and_no_content_whatever_hangs_on_its_port() {
    let port = net::free_port();
    let address = net::loopback(port);
    let (mut scene, _taken) = scene(port);
    scene.start();
    Crew::start(&Plan::new(scene.site.addr(), 4, 50)).finish();
    scene.link.set(Weather::Down);
    Crew::start(&Plan { first_connection: 4, ..Plan::new(scene.site.addr(), 2, 10) }).finish();
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    let page = answered(address, "/");
    for part in
        ["st-marys-gw1", "at <b>st-marys</b>", "or-usage", "cabinet-transactions-3-west", "uplink_down", "listener_down", "/runbook/"]
    {
        assert!(page.body.contains(part), "{part} is not in {}", page.body);
    }
    let json: serde_json::Value = serde_json::from_str(&answered(address, "/status.json").body).expect("JSON");
    assert_eq!((json["gateway"].as_str(), json["uplink"]["state"].as_str()), (Some("st-marys-gw1"), Some("down")));
    let asked = scene.site.status();
    let keys = |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), keys(&asked), "the same as `siteward status --json`");
    let health = answered(address, "/healthz");
    assert!(health.status == 503 && health.body.contains("listener_down"), "{}", health.body);
    for path in ["/", "/status.json", "/healthz", "/runbook/uplink_down"] {
        let answer = answered(address, path);
        for canary in CANARIES {
            assert!(!answer.body.contains(canary) && !answer.head.contains(canary), "{path} shows {canary}");
        }
        let ids = (0..6).flat_map(|connection| (0..10).map(move |number| message::control_id(connection, number)));
        let shown: Vec<String> = ids.filter(|id| answer.body.contains(id.as_str())).collect();
        assert!(shown.is_empty(), "{path} shows control ids: {shown:?}");
    }
    let idle: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(address).ok()).collect();
    assert_eq!(idle.len(), 200);
    assert_eq!(answered(address, "/").status, 200);
    let sent = Crew::start(&Plan { first_connection: 6, ..Plan::new(scene.site.addr(), 2, 50) }).finish();
    assert!(sent.iter().all(|told| told.acknowledged.len() == 50), "senders are answered as ever");
    println!("page of {} bytes, answered beside {} idle connections", page.body.len(), idle.len());
    drop(idle);
    scene.site.stop();
}

/// The port follows the file at SIGHUP; one that is taken is a condition, never the reason not to run.
#[test]
fn the_page_follows_the_file_and_a_port_that_is_taken_stops_nothing() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_at = taken.local_addr().expect("its address");
    let mut configuration = Configuration::new(directory.path());
    configuration.sections = vec![section(taken_at.port())];
    let mut site = Site::new(directory.path(), configuration);
    site.start();
    site.condition("status_page_down", wait::EVENTUALLY);
    drop(taken);
    wait::wait_until("the page where the port is free again", wait::EVENTUALLY, || get(taken_at, "/healthz").is_some());
    assert!(!site.conditions().contains(&"status_page_down".to_owned()));
    let next = net::free_port();
    site.configuration.sections = vec![section(next)];
    site.reload();
    wait::wait_until("the page at its new port", wait::EVENTUALLY, || get(net::loopback(next), "/healthz").is_some());
    wait::wait_until("nothing at the old one", wait::EVENTUALLY, || TcpStream::connect(taken_at).is_err());
    site.configuration.sections.clear();
    site.reload();
    let socket = site.configuration.spool.join("status.sock");
    wait::wait_until("the socket of the default", wait::EVENTUALLY, || socket.exists());
    wait::wait_until("no port any more", wait::EVENTUALLY, || TcpStream::connect(net::loopback(next)).is_err());
    site.stop();
    assert!(!socket.exists());
    println!("a taken port, three places by SIGHUP, and the socket gone at the stop");
}

/// `status --watch` in a pipe: one table after the other, over a restart of the agent, without colour, until it is told to end.
#[test]
fn a_watch_outlives_the_agent_and_says_so() {
    let directory = Directory::new();
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    site.start();
    site.status();
    let log = directory.path().join("watch.log");
    let mut command = Command::new(harness::program("siteward"));
    command.args(["status", "--watch", "1", "--config"]).arg(site.config_file());
    let mut watch = Process::start("siteward status --watch", &mut command, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::wait_until("three tables", wait::EVENTUALLY, || said().matches("gateway  st-marys-gw1").count() >= 3);
    site.stop();
    wait::wait_until("that nobody answers", wait::EVENTUALLY, || said().contains("no agent is running here"));
    site.start();
    wait::wait_until("the restart", wait::EVENTUALLY, || said().contains("the agent was restarted"));
    watch.terminate();
    assert!(watch.ended(wait::SOON).success());
    let said = said();
    assert!(!said.contains('\u{1b}'), "colour is for terminals");
    assert_eq!(said.matches("no agent is running here").count(), 1, "said once");
    println!("{} tables over a restart", said.matches("gateway  st-marys-gw1").count());
    site.stop();
}

fn shots() -> PathBuf {
    harness::repository().join("target/screenshots")
}

/// What people see, without what assistive technology alone reads.
fn text(browser: &mut Browser, tab: &Tab, selector: &str) -> String {
    let expression = format!("(document.querySelector({selector:?}) || {{}}).innerText || ''");
    browser.eval(tab, &expression).as_str().unwrap_or_default().to_owned()
}

fn see(browser: &mut Browser, tab: &Tab, selector: &str, what: &str) {
    let mut last = String::new();
    let seen = wait::try_until(wait::EVENTUALLY, || {
        last = text(browser, tab, selector);
        last.contains(what)
    });
    assert!(seen, "{selector} does not come to show {what:?}: {last}");
}

fn fits(browser: &mut Browser, tab: &Tab) {
    let over = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)).slice(0, 5)";
    let wide = browser.eval(tab, "document.scrollingElement.scrollWidth - document.documentElement.clientWidth");
    assert!(wide.as_i64().is_some_and(|over| over <= 0), "{wide} px too wide: {}", browser.eval(tab, over));
}

#[test]
fn a_browser_shows_it_updates_it_and_says_when_nobody_answers() {
    let port = net::free_port();
    let url = format!("http://127.0.0.1:{port}/");
    let (mut scene, _taken) = scene(port);
    let Some(mut browser) = Browser::start(&scene.directory.path().join("browser")) else {
        println!("skipped: chromium is not installed");
        return;
    };
    scene.start();
    Crew::start(&Plan::new(scene.site.addr(), 2, 20)).finish();
    let tab = browser.tab(Look::default());
    browser.go(&tab, &url);
    see(&mut browser, &tab, "#facts", "connected");
    browser.eval(&tab, "window.isSamePage = true");
    see(&mut browser, &tab, "#feeds", "or-usage");
    assert!(text(&mut browser, &tab, "#verdict").contains("error"), "a feed cannot listen");
    see(&mut browser, &tab, "#conditions", "listener_down");
    assert_eq!(browser.errors(&tab), Vec::<String>::new(), "no error in the console");
    browser.screenshot(&tab, &shots().join("page-wide-light.png"));

    scene.link.set(Weather::Down);
    see(&mut browser, &tab, "#facts", "down");
    see(&mut browser, &tab, "#uplink", "lasts");
    see(&mut browser, &tab, "#conditions", "uplink_down");
    Crew::start(&Plan { first_connection: 2, ..Plan::new(scene.site.addr(), 2, 20) }).finish();
    see(&mut browser, &tab, "#feeds", "80");
    assert_eq!(browser.eval(&tab, "window.isSamePage"), true, "without loading it again");
    assert_eq!(browser.eval(&tab, "document.querySelectorAll('svg .down').length"), 2, "in both timelines");
    browser.screenshot(&tab, &shots().join("page-outage.png"));
    assert_eq!(browser.errors(&tab), Vec::<String>::new(), "no error in the console");
    let elsewhere: Vec<String> = browser.requests(&tab).into_iter().filter(|asked| !asked.starts_with(&url)).collect();
    assert!(elsewhere.is_empty(), "nothing comes from elsewhere: {elsewhere:?}");

    scene.site.stop();
    see(&mut browser, &tab, "#stale", "The agent does not answer since");
    assert!(text(&mut browser, &tab, "#feeds").contains("or-usage"), "what was there is still shown");
    browser.screenshot(&tab, &shots().join("page-stale.png"));
    scene.link.set(Weather::Fair);
    scene.site.start();
    wait::wait_until("the page is fresh again", wait::EVENTUALLY, || text(&mut browser, &tab, "#stale").is_empty());
    see(&mut browser, &tab, "#facts", "connected");
    assert_eq!(browser.eval(&tab, "window.isSamePage"), true);
    assert_eq!(
        browser.eval(&tab, "document.querySelectorAll('svg .down').length"),
        2,
        "the outage from before the restart, in both timelines"
    );
    assert!(text(&mut browser, &tab, "#uplink").contains("Outages, the newest first"));
    browser.screenshot(&tab, &shots().join("page-after-restart.png"));

    let link = browser.eval(&tab, "document.querySelector('#conditions a').href");
    browser.go(&tab, link.as_str().expect("a link"));
    see(&mut browser, &tab, "main", "You see.");
    println!("connected, outage, restart and runbook seen in one tab; screenshots in {}", shots().display());
}

#[test]
fn it_is_legible_without_scripts_on_a_phone_and_in_the_dark() {
    let port = net::free_port();
    let url = format!("http://127.0.0.1:{port}/");
    let (mut scene, _taken) = scene(port);
    let Some(mut browser) = Browser::start(&scene.directory.path().join("browser")) else {
        println!("skipped: chromium is not installed");
        return;
    };
    scene.start();
    Crew::start(&Plan::new(scene.site.addr(), 2, 20)).finish();
    scene.link.set(Weather::Down);
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    let bare = browser.tab(Look { scripts: false, ..Look::default() });
    browser.go(&bare, &url);
    for (selector, what) in [("#facts", "down"), ("#feeds", "or-usage"), ("#conditions", "uplink_down"), ("footer", "Without JavaScript")] {
        see(&mut browser, &bare, selector, what);
    }
    let mut grounds = Vec::new();
    for (width, dark, file) in [
        (360, false, "page-phone-light.png"),
        (360, true, "page-phone-dark.png"),
        (768, true, "page-tablet-dark.png"),
        (1280, true, "page-wide-dark.png"),
    ] {
        let tab = browser.tab(Look { width, height: 780, dark, ..Look::default() });
        browser.go(&tab, &url);
        fits(&mut browser, &tab);
        grounds.push(browser.eval(&tab, "getComputedStyle(document.body).backgroundColor").to_string());
        browser.screenshot(&tab, &shots().join(file));
        for page in ["runbook", "runbook/the-first-five-minutes", "runbook/ports"] {
            browser.go(&tab, &format!("{url}{page}"));
            fits(&mut browser, &tab);
        }
        browser.screenshot(&tab, &shots().join(file.replace("page", "runbook")));
        assert_eq!(browser.errors(&tab), Vec::<String>::new());
    }
    assert!(grounds[0] != grounds[1] && grounds[1] == grounds[2], "{grounds:?}");
    let structure = "JSON.stringify([document.querySelectorAll('h1').length, document.querySelectorAll('section[aria-labelledby] > h2').length, \
         document.querySelectorAll('table:not(:has(caption))').length, document.querySelectorAll('[role=status]').length, \
         document.querySelectorAll('svg:not([role=img]):not([aria-hidden])').length, document.documentElement.lang])";
    browser.go(&bare, &url);
    assert_eq!(browser.eval(&bare, structure), r#"[1,6,0,1,0,"en"]"#);
    println!("without scripts, at 360, 768 and 1280 px, light and dark: all fits, no console errors");
}
