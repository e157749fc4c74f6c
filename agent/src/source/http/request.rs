//! One request from its head to its answer.
//!
//! ```text
//!   peer ─► token ─► feed ─► room ─► method ─► media type ─► key      (nothing of the body is read before all of them said yes)
//!        ─► body ─► look through ─► store ─► answer
//! ```
//!
//! 1. Which feeds there are is told only to those who have proven who they are.
//! 2. Every refusal is counted, raised as a condition where somebody should act, and logged once in a while; a body that could not be used has
//!    its beginning kept in quarantine.
//! 3. Whatever ends a request without an answer leaves it with its client, who sends it again; under a key nothing is stored twice.
//!
//! Every wait has a deadline but the append itself, which ends when the disk answers: giving up earlier would free the slot while its bytes still
//! wait for the journal (I4).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::answer::{self, Refusal, Stored};
use super::body::{self, Failed};
use super::media::{self, Kind, MediaType};
use super::path::{self, Target};
use super::port::Port;
use super::store::{self, Posted};
use super::{Shared, parts, tokens};
use crate::clock;
use crate::limits::{HTTP_KEYED_RECORDS_MAX, SPLIT_BAD_BYTES_MAX};
use crate::record::{FeedId, Payload};
use crate::source::mllp::registry::Registration;
use crate::source::oddity::Oddity;
use crate::source::peers;
use crate::source::split::SplitLimits;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An answer's body: one piece.
#[derive(Debug)]
pub(super) struct Answer(Option<Bytes>);

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What a connection is to the feeds it posts to.
#[derive(Debug)]
pub(super) struct Client {
    port: Arc<Port>,
    peer: SocketAddr,
    /// Out of its certificate.
    name: Option<String>,
    /// It came above the limit: told to come again.
    crowded: bool,
    places: Mutex<BTreeMap<FeedId, Place>>,
}

/// The connection as a feed shows it.
#[derive(Debug)]
struct Place {
    feed: Arc<Shared>,
    registration: Registration,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.feed.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    pub(super) fn new(port: Arc<Port>, peer: SocketAddr, name: Option<String>, crowded: bool) -> Self {
        Self { port, peer, name, crowded, places: Mutex::default() }
    }

    /// The connection has ended.
    pub(super) fn ends(&self, error: Option<&hyper::Error>, stopping: bool) {
        let why = match error {
            _ if stopping => "the agent or the feed stopped",
            None => "the client closed it",
            Some(error) if error.is_timeout() => "closed for being idle, or its head did not end in time",
            Some(error) if error.is_parse() => "closed: what came is no HTTP/1.1",
            Some(_) => "the client was gone",
        };
        for place in self.places.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            place.registration.ends(why);
        }
    }

    fn at<T>(&self, feed: &Arc<Shared>, tell: impl FnOnce(&Registration) -> T) -> T {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(feed.feed.clone()).or_insert_with(|| {
            feed.counters.connections.fetch_add(1, Ordering::Relaxed);
            Place { feed: Arc::clone(feed), registration: feed.counters.registry.register(&self.peer.to_string()) }
        });
        tell(&place.registration)
    }
}

/// Who posts.
struct Proven {
    /// Token's owner, or the certificate's name; empty where nobody asked.
    name: String,
    /// For people.
    peer: String,
}

pub(super) async fn serve(request: Request<Incoming>, client: Arc<Client>) -> Response<Answer> {
    let (head, mut body) = request.into_parts();
    let target = path::target(head.uri.path());
    let feed = target.and_then(|target| client.port.feed(target.feed));
    let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let accepts = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let is_fhir = [media_type, accepts].into_iter().flatten().any(|text| text.to_ascii_lowercase().contains("fhir"));
    let proven = prove(&client, feed.as_ref(), &head.headers);
    let outcome = match (proven, feed.as_ref().zip(target)) {
        (Err(refusal), _) => Err(refusal),
        (Ok(_), None) => Err(Refusal::UnknownFeed),
        (Ok(proven), Some((feed, target))) => {
            if !proven.name.is_empty() {
                client.at(feed, |registration| registration.is_known_as(&proven.name));
            }
            match feed.enter() {
                None => Err(Refusal::Stopping),
                Some(visit) => {
                    let outcome = take(feed, &client, &proven, target, &head.method, &head.headers, &mut body).await;
                    drop(visit);
                    outcome
                }
            }
        }
    };
    if let Some(feed) = &feed {
        tell(feed, &client, &outcome);
    }
    let waits = head.headers.get(header::EXPECT).is_some();
    let ended = body.is_end_stream();
    if outcome.is_err() && !ended && !waits {
        tokio::spawn(body::linger(body));
    }
    response(is_fhir, &outcome, client.crowded || (outcome.is_err() && !ended))
}

/// Who posts; says nothing about feeds to those who cannot tell.
fn prove(client: &Client, feed: Option<&Arc<Shared>>, headers: &HeaderMap) -> Result<Proven, Refusal> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(tokens::bearer);
    let owner = |feed: &Shared| feed.tokens.as_ref().zip(shown).and_then(|(tokens, shown)| tokens.owner(shown));
    if let Some(feed) = feed
        && !peers::admits(&feed.settings.peers, client.peer.ip())
    {
        return Err(Refusal::PeerRefused);
    }
    let all = client.port.feeds();
    let asked = match feed {
        Some(feed) => feed.tokens.is_some(),
        None => !client.port.asks_for_certificates() && all.iter().any(|feed| feed.tokens.is_some()),
    };
    let name = match feed.and_then(|feed| owner(feed)) {
        Some(name) => Some(name.to_string()),
        None if !asked => client.name.clone(),
        None => {
            let elsewhere = all.iter().any(|feed| owner(feed).is_some());
            return match (elsewhere, feed) {
                (false, _) => Err(Refusal::NotAuthorized),
                (true, Some(_)) => Err(Refusal::NotYours),
                (true, None) => Err(Refusal::UnknownFeed),
            };
        }
    };
    let name = name.unwrap_or_default();
    let peer = if name.is_empty() { client.peer.to_string() } else { format!("{} {name}", client.peer) };
    Ok(Proven { name, peer })
}

/// Everything behind the question of who.
async fn take(
    feed: &Arc<Shared>,
    client: &Client,
    proven: &Proven,
    target: Target<'_>,
    method: &Method,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Stored, Refusal> {
    if client.crowded {
        return Err(Refusal::Busy);
    }
    if method != Method::POST {
        return Err(Refusal::Method);
    }
    let settings = &feed.settings;
    let media_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let (kind, media_type) = media::kind(media_type, settings.split, &settings.accept).map_err(Refusal::MediaType)?;
    // Some FHIR clients call it JSON; their path says what it is.
    let kind = if kind == Kind::Json && target.resource.is_some() { Kind::Resource } else { kind };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::Encoding);
    }
    let key = key(headers)?;
    let limit = if kind.is_many() { settings.body_bytes_max } else { feed.message_bytes_max };
    let held = body::read(body, limit, settings.body_timeout, &feed.slots).await.map_err(|failed| match failed {
        Failed::TooLarge => Refusal::TooLarge { limit },
        Failed::Busy => Refusal::Busy,
        Failed::Timeout => Refusal::Timeout,
        Failed::Lost => Refusal::Lost,
    })?;
    let at_ms = clock::now().unix_ms;
    client.at(feed, |registration| {
        registration.read(held.bytes.len());
        registration.message(at_ms);
    });
    let stored = whole(feed, proven, target, (kind, &media_type), key, &held.bytes).await;
    drop(held); // the slot is given back when nothing of the body waits for the journal any more
    stored
}

/// A body that is there whole.
async fn whole(
    feed: &Shared,
    proven: &Proven,
    target: Target<'_>,
    (kind, media_type): (Kind, &MediaType),
    key: Option<&str>,
    body: &Bytes,
) -> Result<Stored, Refusal> {
    let look = parts::look(kind, body, target.resource, SplitLimits::new(feed.message_bytes_max));
    let usable = look.and_then(|look| match key {
        Some(_) if look.records > HTTP_KEYED_RECORDS_MAX => Err(parts::Unusable::TooManyForKey),
        _ => Ok(()),
    });
    if let Err(unusable) = usable {
        if !body.is_empty() {
            // A copy, so that the queue does not keep the whole body alive.
            let head = Payload::new(Bytes::copy_from_slice(&body[..body.len().min(SPLIT_BAD_BYTES_MAX)]));
            feed.appender.quarantine_frame(&feed.feed, &proven.peer, Oddity::BodyUnusable.name(), head).await;
        }
        return Err(Refusal::Unusable(unusable));
    }
    let posted = Posted { kind, media_type, body, key, client: &proven.name, peer: &proven.peer };
    store::store(feed, &posted).await
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => path::key(value.as_bytes()).map(Some).ok_or(Refusal::Key),
        (Some(_), Some(_)) => Err(Refusal::Key),
    }
}

/// Counts, and tells what somebody should know.
fn tell(feed: &Arc<Shared>, client: &Client, outcome: &Result<Stored, Refusal>) {
    let (status, oddity) = match outcome {
        Ok(stored) => (ACCEPTED.as_u16(), (stored.quarantined > 0).then_some(Oddity::PartsUnusable)),
        Err(refusal) => (refusal.status(), oddity(refusal)),
    };
    // Whoever has proven nothing has no line among the connections.
    let is_stranger = matches!(outcome, Err(Refusal::NotAuthorized | Refusal::NotYours | Refusal::PeerRefused));
    if !is_stranger {
        client.at(feed, |registration| {
            registration.status(status);
            if let Some(oddity) = oddity {
                registration.odd(oddity);
            }
        });
    }
    let peer = client.peer.to_string();
    match (is_stranger, oddity) {
        (true, Some(oddity)) => feed.refusals.tell(&feed.told(), oddity, &peer, ""),
        (false, Some(oddity)) => feed.refusals.note(&feed.told(), oddity, &peer, ""),
        (_, None) => {}
    }
    if outcome.is_err() && !is_stranger {
        feed.counters.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn oddity(refusal: &Refusal) -> Option<Oddity> {
    match refusal {
        Refusal::NotAuthorized | Refusal::NotYours => Some(Oddity::TokenRefused),
        Refusal::PeerRefused => Some(Oddity::PeerRefused),
        Refusal::MediaType(_) | Refusal::Encoding => Some(Oddity::MediaTypeRefused),
        Refusal::Unusable(parts::Unusable::TooManyRecords | parts::Unusable::TooManyForKey) | Refusal::TooLarge { .. } => {
            Some(Oddity::BodyOverLimit)
        }
        Refusal::Unusable(_) | Refusal::Key | Refusal::Method => Some(Oddity::BodyUnusable),
        Refusal::KeyReused { .. } => Some(Oddity::KeyReused),
        Refusal::Timeout => Some(Oddity::BodyTimeout),
        Refusal::Busy => Some(Oddity::TooBusy),
        Refusal::StoreFailed { .. } | Refusal::QuarantineFull { .. } => Some(Oddity::StoreRefused),
        Refusal::UnknownFeed | Refusal::Lost | Refusal::Stopping => None,
    }
}

/// Stored for forwarding, not yet where it goes.
const ACCEPTED: StatusCode = StatusCode::ACCEPTED;

fn response(is_fhir: bool, outcome: &Result<Stored, Refusal>, closes: bool) -> Response<Answer> {
    let mut response = Response::new(Answer(Some(answer::body(is_fhir, outcome).into())));
    let status = outcome.as_ref().map_or_else(Refusal::status, |_| ACCEPTED.as_u16());
    *response.status_mut() = StatusCode::from_u16(status).expect("all of them are ordinary ones");
    let headers = response.headers_mut();
    let media_type = if is_fhir { "application/fhir+json; charset=utf-8" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let Err(refusal) = outcome else { return response };
    if let Some(after) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, after.as_secs().into());
    }
    match refusal {
        Refusal::NotAuthorized => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"siteward\""))),
        Refusal::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("POST"))),
        _ => {}
    }
    response
}
