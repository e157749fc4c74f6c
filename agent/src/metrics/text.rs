//! The one writer of metrics, for the gateway and for the desk. Pure.
//!
//! A family is a name, what it is, and a sentence; [`families!`](crate::metrics::text::families) makes a closed list of them, so that nothing is written
//! that is not listed. [`Page`] writes them as Prometheus text (0.0.4) or as OpenMetrics 1.0: the same samples; counters are named without
//! `_total` in their heads there, units are told, and the end is marked. What comes without a sample is left out whole: absent is not zero.
//!
//! Labels' values are escaped here and nowhere else. Who writes decides how many there can be; a page is as large as its families times that.

use std::fmt::Write as _;

/// Which dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// By what a scraper accepts.
    pub fn asked(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A name without `_total`, what it is, and a sentence.
pub type Family = (&'static str, Kind, &'static str);

/// A closed list of families, `ALL` of them.
macro_rules! families {
    ($($constant:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(pub const $constant: $crate::metrics::text::Family = ($name, $crate::metrics::text::Kind::$kind, $help);)*

        /// All of them.
        pub const ALL: &[$crate::metrics::text::Family] = &[$($constant,)*];
    };
}
pub(crate) use families;

/// `feed="or-usage",lane="critical"`, what is foreign in it escaped.
pub fn labels<const N: usize>(pairs: [(&str, &str); N]) -> String {
    let mut text = String::new();
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(text, "{}{name}=\"{value}\"", if at == 0 { "" } else { "," }).expect("a String takes everything");
    }
    text
}

/// A page being written.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

impl Page {
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }

    fn head(&mut self, (name, kind, help): Family) {
        let is_open = self.format == Format::OpenMetrics;
        let (word, total) = match kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Histogram => ("histogram", ""),
        };
        let head = if is_open { name.to_owned() } else { format!("{name}{total}") };
        self.line(format_args!("# HELP {head} {help}\n# TYPE {head} {word}"));
        if let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| is_open && name.ends_with(unit)) {
            self.line(format_args!("# UNIT {head} {unit}"));
        }
    }

    /// Samples by their labels; none: nothing is written.
    pub fn family(&mut self, family: Family, samples: impl IntoIterator<Item = (String, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.head(family);
        let total = if family.1 == Kind::Counter { "_total" } else { "" };
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            self.line(format_args!("{}{total}{labels} {value}", family.0));
        }
    }

    pub fn one(&mut self, family: Family, value: f64) {
        self.family(family, [(String::new(), value)]);
    }

    /// Where it is known.
    pub fn some(&mut self, family: Family, value: Option<f64>) {
        self.family(family, value.map(|value| (String::new(), value)));
    }

    /// `counts`: how many were within each bound and above the one before; one more than `bounds`, for what is above them all.
    pub fn histogram(&mut self, family: Family, bounds: &[f64], counts: &[u64], sum: f64) {
        self.head(family);
        let mut so_far = 0;
        let ends = bounds.iter().map(ToString::to_string).chain(std::iter::once("+Inf".to_owned()));
        for (count, end) in counts.iter().zip(ends) {
            so_far += count;
            // OpenMetrics writes whole bounds with their point.
            let end = if end.contains(['.', 'I']) { end } else { format!("{end}.0") };
            self.line(format_args!("{}_bucket{{le=\"{end}\"}} {so_far}", family.0));
        }
        self.line(format_args!("{0}_sum {sum}\n{0}_count {so_far}", family.0));
    }

    /// The text with its end.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_in_both_dialects() {
        let made: Family = ("s_made", Kind::Counter, "What was made.");
        let size: Family = ("s_size_bytes", Kind::Gauge, "How large it is.");
        let took: Family = ("s_took_seconds", Kind::Histogram, "How long it took.");
        let written = |format| {
            let mut page = Page::new(format);
            page.family(made, [(labels([("feed", "a")]), 7.0), (labels([("feed", "b")]), 0.0)]);
            page.one(size, 1_048_576.0);
            page.some(size, None);
            page.histogram(took, &[0.001, 1.0], &[2, 1, 4], 9.5);
            page.finish()
        };
        let open = "# HELP s_made What was made.\n# TYPE s_made counter\ns_made_total{feed=\"a\"} 7\ns_made_total{feed=\"b\"} 0\n\
            # HELP s_size_bytes How large it is.\n# TYPE s_size_bytes gauge\n# UNIT s_size_bytes bytes\ns_size_bytes 1048576\n\
            # HELP s_took_seconds How long it took.\n# TYPE s_took_seconds histogram\n# UNIT s_took_seconds seconds\n\
            s_took_seconds_bucket{le=\"0.001\"} 2\ns_took_seconds_bucket{le=\"1.0\"} 3\ns_took_seconds_bucket{le=\"+Inf\"} 7\n\
            s_took_seconds_sum 9.5\ns_took_seconds_count 7\n# EOF\n";
        assert_eq!(written(Format::OpenMetrics), open);
        let plain = open.replace(" s_made What", " s_made_total What").replace("TYPE s_made ", "TYPE s_made_total ");
        let plain: Vec<&str> = plain.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF").collect();
        assert_eq!(written(Format::Prometheus), plain.join("\n") + "\n");
    }

    #[test]
    fn no_label_can_end_its_line() {
        assert_eq!(labels([("a", "x\"} 1\n\\")]), "a=\"x\\\"} 1\\n\\\\\"");
    }
}
