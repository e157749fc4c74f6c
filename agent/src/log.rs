//! Logs: sentences on stderr, made for journald, and free of message content (I7).
//!
//! - Under systemd (`JOURNAL_STREAM`) every line begins with its priority, `<3>` to `<7>`, and has neither time nor colour: journald adds the
//!   first, and the second would be noise. On a terminal both are there. Control characters in what is logged are shown escaped, so that one
//!   event is one line and nobody outside can write lines of their own.
//! - `SITEWARD_LOG` sets the level of this program's own modules: `debug`, or `info,siteward::spool=trace`. Libraries stay at `warn`, whatever
//!   is asked: at their finer levels some of them print what they carry.
//! - [`set`] changes that level for a while, and [`set`] without one goes back to what was asked at the start.
//! - A panic is told with its place and thread. Its message is told only if it is a literal of the source: a formatted one may hold data.

use std::collections::VecDeque;
use std::fmt;
use std::io::{IsTerminal, Write as _};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{self as lines, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

use crate::clock;
use crate::limits::{LOG_LINE_BYTES_KEPT, LOG_LINES_KEPT};

/// The environment variable that sets the level.
pub const VARIABLE: &str = "SITEWARD_LOG";
/// Of this program's own modules; libraries have `warn`.
const DEFAULT: LevelFilter = LevelFilter::INFO;

/// Puts another filter in the place of the one that holds; false where it cannot.
static RELOAD: OnceLock<Box<dyn Fn(Targets) -> bool + Send + Sync>> = OnceLock::new();

/// The last lines, for whoever asks on site; bounded by number and size.
static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// The last lines that were logged, the oldest first, each with its time.
pub fn last_lines() -> Vec<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Stderr, and the last lines.
struct Tee(std::io::Stderr);

impl std::io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// One event is one call.
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_LINE_BYTES_KEPT)]);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        while last.len() >= LOG_LINES_KEPT {
            last.pop_front();
        }
        let is_bare = std::env::var_os("JOURNAL_STREAM").is_some();
        let time = if is_bare { format!("{} ", clock::rfc3339(clock::now().unix_ms)) } else { String::new() };
        last.push_back(format!("{time}{}", text.trim_end()));
        drop(last);
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Sets the level of this program's own modules; `None`: as asked at the start. False where there is no log of ours.
pub fn set(level: Option<Level>) -> bool {
    let asked = level.map_or_else(|| std::env::var(VARIABLE).unwrap_or_default(), |level| level.to_string().to_ascii_lowercase());
    RELOAD.get().is_some_and(|reload| reload(filter(&asked).0))
}

/// Installs the subscriber and the panic hook. A second call does nothing.
pub fn init() {
    let style = Style::of_stderr();
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, refused) = filter(&asked);
    let (filter, handle) = reload::Layer::new(filter);
    if tracing::subscriber::set_global_default(subscriber(style, filter, || Tee(std::io::stderr()))).is_err() {
        return;
    }
    // The first one counts, as that of the subscriber does.
    let _ = RELOAD.set(Box::new(move |filter| handle.reload(filter).is_ok()));
    std::panic::set_hook(Box::new(move |info| {
        // Nothing can be done about a stderr that is closed.
        let _ = writeln!(std::io::stderr(), "{}{}", style.prefix(Level::ERROR), describe(info));
    }));
    if refused {
        tracing::warn!(
            "{VARIABLE} is not usable and was passed over; give a level, or siteward modules with levels: info,siteward::spool=debug"
        );
    }
}

/// Lines of this style to `writer`, of what passes `filter`.
fn subscriber<F, W>(style: Style, filter: F, writer: W) -> impl Subscriber + Send + Sync
where
    F: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = lines::layer().log_internal_errors(false).event_format(Line(style)).with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines)
}

/// The filter for what was asked, and whether that had to be passed over.
fn filter(asked: &str) -> (Targets, bool) {
    let default = || Targets::new().with_default(LevelFilter::WARN).with_target("siteward", DEFAULT);
    if asked.trim().is_empty() {
        return (default(), false);
    }
    let mut targets = default();
    for part in asked.split(',').map(str::trim) {
        let (target, level) = part.split_once('=').unwrap_or(("siteward", part));
        let module = target.strip_prefix("siteward").is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', ':']));
        let Some(level) = level.parse::<LevelFilter>().ok().filter(|_| module) else {
            return (default(), true);
        };
        targets = targets.with_target(target, level);
    }
    (targets, false)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Journal,
    Terminal,
    Plain,
}

impl Style {
    fn of_stderr() -> Self {
        if std::env::var_os("JOURNAL_STREAM").is_some() {
            Self::Journal
        } else if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            Self::Terminal
        } else {
            Self::Plain
        }
    }

    fn prefix(self, level: Level) -> String {
        let (priority, colour) = match level {
            Level::ERROR => (3, 31),
            Level::WARN => (4, 33),
            Level::INFO => (6, 32),
            Level::DEBUG | Level::TRACE => (7, 34),
        };
        match self {
            Self::Journal => format!("<{priority}>"),
            Self::Plain => format!("{} {level:<5} ", clock::rfc3339(clock::now().unix_ms)),
            Self::Terminal => format!("{} \u{1b}[{colour}m{level:<5}\u{1b}[0m ", clock::rfc3339(clock::now().unix_ms)),
        }
    }
}

struct Line(Style);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut body = String::new();
        context.format_fields(Writer::new(&mut body), event)?;
        writer.write_str(&self.0.prefix(*event.metadata().level()))?;
        if *event.metadata().level() >= Level::DEBUG {
            write!(writer, "{}: ", event.metadata().target())?;
        }
        one_line(&body, &mut writer)?;
        writer.write_char('\n')
    }
}

fn one_line(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(out, "{}", c.escape_default()) } else { out.write_char(c) })
}

/// What may be said of a panic.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let mut text = format!("panicked at {place} in thread {thread}: ");
    match info.payload().downcast_ref::<&'static str>() {
        Some(literal) => one_line(literal, &mut text).expect("a String takes everything"),
        None => text.push_str("message withheld, it may hold data"),
    }
    text.push_str("; please report this");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged with this style while `work` runs.
    fn logged(style: Style, asked: &str, work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        tracing::subscriber::with_default(subscriber(style, filter(asked).0, move || writer.clone()), work);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn under_systemd_a_line_has_its_priority_and_nothing_else_around_it() {
        let text = logged(Style::Journal, "", || {
            tracing::error!(feed = "or-usage", "the listener is down");
            tracing::warn!("odd");
            tracing::info!("listening");
            tracing::debug!("not shown");
        });
        assert_eq!(text, "<3>the listener is down feed=\"or-usage\"\n<4>odd\n<6>listening\n");
    }

    #[test]
    fn one_event_is_one_line_whatever_it_holds() {
        let text = logged(Style::Journal, "", || tracing::info!(peer = %"10.0.0.1\n<3>forged", "connected\r\nforged \u{1b}[2J"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains(['\u{1b}', '\r']), "{text}");
    }

    /// I7: libraries print what they carry at their finer levels, so these cannot be switched on.
    #[test]
    fn libraries_stay_at_warn_whatever_is_asked() {
        for asked in ["trace", "rumqttc=trace", "siteward=debug,rustls=trace", "sitewardx=trace", "siteward=loud"] {
            let text = logged(Style::Journal, asked, || {
                tracing::info!(target: "rumqttc", "CANARY");
                tracing::info!(target: "rustls::client", "CANARY");
            });
            assert_eq!(text, "", "{asked}");
        }
        assert!(filter("rumqttc=trace").1 && filter("siteward=loud").1 && !filter("debug,siteward::spool=trace").1);
        assert_eq!(logged(Style::Journal, "debug", || tracing::debug!("shown")), "<7>siteward::log::tests: shown\n");
    }

    /// I7: a formatted panic message may hold data, a literal cannot.
    #[test]
    fn a_panic_is_told_by_its_place_and_only_literals_of_it() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let earlier = std::panic::take_hook();
        let sink = Arc::clone(&told);
        std::panic::set_hook(Box::new(move |info| sink.lock().unwrap().push(describe(info))));
        let canary = "CANARY";
        let formatted = std::thread::Builder::new().name("formatted".into()).spawn(move || panic!("{canary}")).unwrap().join();
        let literal = std::thread::Builder::new().name("literal".into()).spawn(|| panic!("the window is never empty here")).unwrap().join();
        std::panic::set_hook(earlier);
        assert!(formatted.is_err() && literal.is_err());
        let told = told.lock().unwrap();
        let of = |thread: &str| told.iter().find(|text| text.contains(&format!("in thread {thread}:"))).unwrap().clone();
        assert!(of("formatted").contains("log.rs") && of("formatted").contains("message withheld") && !of("formatted").contains("CANARY"));
        assert!(of("literal").contains("the window is never empty here"));
    }
}
