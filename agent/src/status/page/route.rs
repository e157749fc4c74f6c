//! One request: who may ask, what there is. Pure but for the status that is shown.
//!
//! | path | what |
//! |---|---|
//! | `/` | the page |
//! | `/status.json` | the status, as `siteward status --json` |
//! | `/metrics` | metrics |
//! | `/healthz` | 200 while nothing stands that somebody must act on, else 503 with the codes |
//! | `/runbook`, `/runbook/CODE` | the runbook, as compiled in |
//! | `/style.css`, `/page.js`, `/icon.svg` | what the page is made of |

use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::body::Whole;
use super::times::Now;
use super::{Source, host, render, runbook};
use crate::clock;
use crate::metrics;
use crate::metrics::text::Format;
use crate::status::condition::Severity;
use crate::status::snapshot::Snapshot;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Nothing from elsewhere, nothing inline, no frames, no forms; and nothing is kept.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn ok(content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into() }
    }
}

/// `names`: of this gateway, for browsers.
pub(super) fn answer<B>(request: &Request<B>, names: &[String], source: &Source) -> Response<Whole> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = match meant_for_us(request, names) {
        Err(refused) => refused,
        Ok(()) if !is_get => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "this page only shows; GET or HEAD\n"),
        Ok(()) => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            found(request.uri().path(), Format::asked(accept), source)
        }
    };
    let mut response = Response::new(Whole::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    set(headers, "content-type", answer.content_type);
    for (name, value) in HEADERS {
        set(headers, name, value);
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        set(headers, "allow", "GET, HEAD");
    }
    response
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
}

fn meant_for_us<B>(request: &Request<B>, names: &[String]) -> Result<(), Answer> {
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Answer::text(StatusCode::BAD_REQUEST, "a request names its host, once\n"));
    };
    let admitted = |host: &str| host::admits(host, names);
    let authority = request.uri().authority().is_none_or(|authority| admitted(authority.as_str()));
    if authority && host.to_str().is_ok_and(admitted) {
        return Ok(());
    }
    let why = "this gateway is not known by that name: use its address, or add the name to status.names of its configuration\n";
    Err(Answer::text(StatusCode::MISDIRECTED_REQUEST, why))
}

fn found(path: &str, format: Format, source: &Source) -> Answer {
    match path {
        "/" => {
            let (snapshot, history) = (source.snapshot(), source.history());
            let now = Now { wall: clock::now(), zone: &source.zone, zone_name: &source.zone_name };
            Answer::ok(HTML, render::page(&snapshot, &history, &now))
        }
        "/status.json" => match serde_json::to_string_pretty(&*source.snapshot()) {
            Ok(text) => Answer::ok("application/json", text + "\n"),
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("the status cannot be written as JSON: {error}\n")),
        },
        "/metrics" => Answer::ok(format.content_type(), metrics::render(&source.snapshot(), format)),
        "/healthz" => health(&source.snapshot()),
        "/runbook" => Answer::ok(HTML, runbook::index()),
        "/style.css" => Answer::ok("text/css; charset=utf-8", include_str!("style.css")),
        "/page.js" => Answer::ok("text/javascript; charset=utf-8", include_str!("page.js")),
        "/icon.svg" => Answer::ok("image/svg+xml", include_str!("icon.svg")),
        _ => match path.strip_prefix("/runbook/").and_then(runbook::section) {
            Some(page) => Answer::ok(HTML, page),
            None => Answer::text(StatusCode::NOT_FOUND, "there is / here, /status.json, /metrics, /healthz and /runbook\n"),
        },
    }
}

fn health(snapshot: &Snapshot) -> Answer {
    let errors: Vec<&str> =
        snapshot.conditions.iter().filter(|shown| shown.severity == Severity::Error).map(|shown| shown.code.as_str()).collect();
    if errors.is_empty() {
        return Answer::text(StatusCode::OK, "ok\n");
    }
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", errors.join("\n")))
}
