//! The one writer of metrics, for the gateway and for the desk: what `prometheus-client` writes, in two dialects. Pure.
//!
//! A family is a name, what it is, and a sentence; [`families!`](crate::metrics::text::families) makes a closed list of them, so that nothing is written
//! that is not listed. [`Page`] gathers samples and hands them to the library as one collector: nothing is registered and nothing is counted here.
//! The library writes OpenMetrics 1.0. Prometheus text (0.0.4), which node_exporter's textfile collector and `promtool` read, is the same lines, but
//! that heads of counters have the name with `_total`, and units and end are not told. What comes without a sample is left out whole: absent is
//! not zero.
//!
//! Who writes decides how many labels there can be; a page is as large as its families times that.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

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

/// Names and values; what is foreign in a value is escaped by the library.
pub type Labels = Vec<(&'static str, String)>;

pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

#[derive(Debug)]
enum Samples {
    One(f64),
    Each(Vec<(Labels, f64)>),
    Histogram { buckets: Vec<(f64, u64)>, sum: f64 },
}

/// A page being gathered.
#[derive(Debug)]
pub struct Page {
    format: Format,
    gathered: Gathered,
}

impl Page {
    pub fn new(format: Format) -> Self {
        Self { format, gathered: Gathered(Vec::new()) }
    }

    /// Samples by their labels; none: nothing is written.
    pub fn family(&mut self, family: Family, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let samples: Vec<_> = samples.into_iter().collect();
        if !samples.is_empty() {
            self.gathered.0.push((family, Samples::Each(samples)));
        }
    }

    pub fn one(&mut self, family: Family, value: f64) {
        self.gathered.0.push((family, Samples::One(value)));
    }

    /// Where it is known.
    pub fn some(&mut self, family: Family, value: Option<f64>) {
        if let Some(value) = value {
            self.one(family, value);
        }
    }

    /// `counts`: how many were within each bound and above the one before; one more than `bounds`, for what is above them all.
    pub fn histogram(&mut self, family: Family, bounds: &[f64], counts: &[u64], sum: f64) {
        let ends = bounds.iter().copied().chain(std::iter::once(f64::INFINITY));
        self.gathered.0.push((family, Samples::Histogram { buckets: ends.zip(counts.iter().copied()).collect(), sum }));
    }

    /// The text with its end.
    pub fn finish(self) -> String {
        let counters: Vec<&str> =
            self.gathered.0.iter().filter(|((_, kind, _), _)| *kind == Kind::Counter).map(|((name, _, _), _)| *name).collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.gathered));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a String takes everything");
        if self.format == Format::OpenMetrics { text } else { plain(&text, &counters) }
    }
}

/// OpenMetrics as Prometheus text.
fn plain(open: &str, counters: &[&str]) -> String {
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let head = ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?.split_once(' ')?)));
        match head {
            Some((word, (name, rest))) if counters.contains(&name) => text.extend([word, name, "_total ", rest]),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// What the library reads a page from.
#[derive(Debug)]
struct Gathered(Vec<(Family, Samples)>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for ((name, kind, help), samples) in &self.0 {
            // The library writes the unit behind the name.
            let unit = [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")]
                .into_iter()
                .find_map(|(unit, end)| Some((unit, name.strip_suffix(end)?)));
            let (unit, name) = unit.map_or((None, *name), |(unit, name)| (Some(unit), name));
            let kind = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            match samples {
                Samples::One(value) => single(kind, *value, metric)?,
                Samples::Each(samples) => {
                    for (labels, value) in samples {
                        single(kind, *value, metric.encode_family(labels)?)?;
                    }
                }
                Samples::Histogram { buckets, sum } => {
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

/// Whole numbers are written as such.
#[expect(clippy::cast_sign_loss, reason = "looked at first")]
fn single(kind: MetricType, value: f64, encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
    let whole = (value >= 0.0 && value.fract() == 0.0 && value < 1e15).then_some(value as u64);
    match (kind, whole) {
        (MetricType::Counter, Some(whole)) => ConstCounter::new(whole).encode(encoder),
        (MetricType::Counter, None) => ConstCounter::new(value).encode(encoder),
        (_, Some(whole)) => ConstGauge::new(whole).encode(encoder),
        (_, None) => ConstGauge::new(value).encode(encoder),
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
            s_took_seconds_sum 9.5\ns_took_seconds_count 7\n\
            s_took_seconds_bucket{le=\"0.001\"} 2\ns_took_seconds_bucket{le=\"1.0\"} 3\ns_took_seconds_bucket{le=\"+Inf\"} 7\n# EOF\n";
        assert_eq!(written(Format::OpenMetrics), open);
        let plain = open.replace(" s_made What", " s_made_total What").replace("TYPE s_made ", "TYPE s_made_total ");
        let plain: Vec<&str> = plain.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF").collect();
        assert_eq!(written(Format::Prometheus), plain.join("\n") + "\n");
    }

    #[test]
    fn no_label_can_end_its_line() {
        let mut page = Page::new(Format::Prometheus);
        page.family(("s_made", Kind::Gauge, "What was made."), [(labels([("a", "x\"} 1\n\\")]), 7.0)]);
        assert!(page.finish().ends_with("\ns_made{a=\"x\\\"} 1\\n\\\\\"} 7\n"));
    }
}
