//! Reads typed values out of spanned TOML tables and remembers where each stood.
//!
//! A [`Section`] is one table. Every key it is asked for becomes a known key; [`Section::finish`] refuses all others and names the nearest known
//! one. What cannot be read becomes [`Field::Bad`], which later stages pass over silently: its fault is told once, here.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{FaultList, Place};
use crate::limits::{GIB, KIB, MIB};

/// A value and where it stood.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// A key as written.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    Absent,
    /// Given, but not readable; already in the fault list.
    Bad,
    Given(At<T>),
}

impl<T> Field<T> {
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
    /// The value, where one was given and could be read.
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'t, 'i> {
    /// `None`: not written, or not a table.
    table: Option<&'t DeTable<'i>>,
    /// Not a table; already in the fault list, so nothing in it is reported as missing.
    broken: bool,
    pub place: Place,
    known: Vec<&'static str>,
}

/// Longest unknown key that is repeated in a fault or compared with the known ones.
const UNKNOWN_KEY_CHARS: usize = 64;

impl<'t, 'i> Section<'t, 'i> {
    pub fn root(table: &'t DeTable<'i>) -> Self {
        Self { table: Some(table), broken: false, place: Place { offset: 0, path: String::new() }, known: Vec::new() }
    }

    fn find(&mut self, key: &'static str) -> Option<(&'t Spanned<DeValue<'i>>, Place)> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (name, value) = self.table?.get_key_value(key)?;
        Some((value, self.place.key(key, name.span().start)))
    }

    /// Reads a key with one of the functions below.
    pub fn read<T>(
        &mut self,
        faults: &mut FaultList,
        key: &'static str,
        interpret: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let found = self.find(key);
        if self.broken {
            return Field::Bad;
        }
        let Some((value, place)) = found else { return Field::Absent };
        match interpret(value.get_ref()) {
            Ok(value) => Field::Given(At { value, place }),
            Err(text) => {
                faults.add(&place, text);
                Field::Bad
            }
        }
    }

    /// A table inside this one. One that is not written reads as empty.
    pub fn section(&mut self, faults: &mut FaultList, key: &'static str) -> Section<'t, 'i> {
        let found = self.find(key);
        let mut inner = Section { table: None, broken: self.broken, place: self.place.missing(key), known: Vec::new() };
        let Some((value, place)) = found else { return inner };
        inner.place = place;
        match value.get_ref() {
            DeValue::Table(table) => inner.table = Some(table),
            other => {
                faults.add(&inner.place, format!("must be a section, {}", is_a(other)));
                inner.broken = true;
            }
        }
        inner
    }

    /// Tables that may come any number of times: `[[key]]`.
    pub fn sections(&mut self, faults: &mut FaultList, key: &'static str) -> Vec<Section<'t, 'i>> {
        let Some((value, place)) = self.find(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            faults.add(&place, format!("must be written as [[{}]], once for each", place.path));
            return Vec::new();
        };
        let mut inner = Vec::with_capacity(array.len());
        for (index, element) in array.iter().enumerate() {
            let place = Place { offset: element.span().start, path: format!("{}[{index}]", place.path) };
            match element.get_ref() {
                DeValue::Table(table) => inner.push(Section { table: Some(table), broken: false, place, known: Vec::new() }),
                other => faults.add(&place, format!("must be a section, {}", is_a(other))),
            }
        }
        inner
    }

    /// Whether the key is there at all; used for sections of which one has to be chosen.
    pub fn has(&mut self, key: &'static str) -> Option<Place> {
        self.find(key).map(|(_, place)| place)
    }

    /// Refuses every key that was not asked for.
    pub fn finish(self, faults: &mut FaultList) {
        let Some(table) = self.table else { return };
        for (name, _) in table {
            let key: &str = name.get_ref();
            if self.known.contains(&key) {
                continue;
            }
            let shown: String = key.chars().take(UNKNOWN_KEY_CHARS).flat_map(char::escape_debug).collect();
            let advice = match nearest(key, self.known.iter().copied()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            faults.add(&self.place.key(&shown, name.span().start), format!("unknown key; {advice}"));
        }
    }
}

/// The known word that was most likely meant.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > UNKNOWN_KEY_CHARS {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let distance = |k: &str| strsim::damerau_levenshtein(&word, &k.to_ascii_lowercase().replace('-', "_"));
    let (found, best) = known.map(|k| (k, distance(k))).min_by_key(|(_, d)| *d)?;
    (best <= (word.chars().count() / 3).max(1)).then_some(found)
}

fn is_a(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "is text",
        DeValue::Integer(_) => "is a whole number",
        DeValue::Float(_) => "is a number with a fraction",
        DeValue::Boolean(_) => "is true or false",
        DeValue::Datetime(_) => "is a date or time",
        DeValue::Array(_) => "is a list",
        DeValue::Table(_) => "is a section",
    }
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("must be text in quotes, {}", is_a(value)))?;
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(
            "holds a line break or another control character; give plain text (a key or certificate is given as the path of its file)"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// PEM blocks: text with line breaks.
pub(super) fn pem(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("must be PEM text in triple quotes, {}", is_a(value)))?;
    Ok(text.to_owned())
}

/// A list of PEM texts.
pub(super) fn pems(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let array = value.as_array().ok_or_else(|| format!("must be a list of PEM texts in brackets, {}", is_a(value)))?;
    let read =
        |(index, element): (usize, &Spanned<DeValue<'_>>)| pem(element.get_ref()).map_err(|why| format!("entry {}: {why}", index + 1));
    array.iter().enumerate().map(read).collect()
}

pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let array = value.as_array().ok_or_else(|| format!("must be a list of texts in brackets, {}", is_a(value)))?;
    let read =
        |(index, element): (usize, &Spanned<DeValue<'_>>)| text(element.get_ref()).map_err(|why| format!("entry {}: {why}", index + 1));
    array.iter().enumerate().map(read).collect()
}

pub(super) fn wholes(value: &DeValue<'_>) -> Result<Vec<u64>, String> {
    let array = value.as_array().ok_or_else(|| format!("must be a list of whole numbers in brackets, {}", is_a(value)))?;
    let read =
        |(index, element): (usize, &Spanned<DeValue<'_>>)| whole(element.get_ref()).map_err(|why| format!("entry {}: {why}", index + 1));
    array.iter().enumerate().map(read).collect()
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false without quotes, {}", is_a(value)))
}

pub(super) fn whole(value: &DeValue<'_>) -> Result<u64, String> {
    let integer = value.as_integer().ok_or_else(|| format!("must be a whole number without quotes, {}", is_a(value)))?;
    u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| "must be a whole number that is not negative".to_owned())
}

/// One of a closed list of words.
pub(super) fn choice<T: Copy>(words: &[(&'static str, T)]) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("must be {}", list.join(" or "))
        })
    }
}

/// `20GiB`, `512 MiB`, or a plain number of bytes.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    const WRONG: &str = "is not a size; write bytes as a number, or text like \"512MiB\" or \"20GiB\"";
    let Some(text) = value.as_str() else { return whole(value).map_err(|_| WRONG.to_owned()) };
    let (number, unit) = number_and_unit(text).ok_or(WRONG)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => 1024 * GIB,
        _ => return Err(WRONG.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| WRONG.to_owned())
}

/// `500ms`, `30s`, `5m`, `2h`, `7d`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    const WRONG: &str = "is not a duration; write text like \"30s\", \"5m\" or \"2h\"";
    value.as_str().and_then(duration_of).ok_or_else(|| WRONG.to_owned())
}

/// The same for text from elsewhere.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(toml: &str, interpret: impl FnOnce(&DeValue<'_>) -> Result<T, String>) -> Result<T, String> {
        interpret(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn sizes_are_numbers_or_text_with_a_binary_unit() {
        for (written, bytes) in
            [("7", 7), ("0x10", 16), ("'20GiB'", 20 * GIB), ("'512 MiB'", 512 * MIB), ("'64KiB'", 64 * KIB), ("'9B'", 9)]
        {
            assert_eq!(read(written, size), Ok(bytes), "{written}");
        }
        for bad in ["'20GB'", "'GiB'", "'-1GiB'", "-1", "1.5", "'20'", "true", "'99999999999999999999B'", "'18446744073709551615KiB'"] {
            assert!(read(bad, size).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_text_with_a_unit() {
        for (written, seconds) in [("'30s'", 30), ("'5m'", 300), ("'2 h'", 7200), ("'1d'", 86400)] {
            assert_eq!(read(written, duration), Ok(Duration::from_secs(seconds)), "{written}");
        }
        assert_eq!(read("'250ms'", duration), Ok(Duration::from_millis(250)));
        for bad in ["30", "'30'", "'s'", "'1 week'", "'18446744073709551615d'", "true"] {
            assert!(read(bad, duration).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_known_word_is_found_but_never_a_far_one() {
        let known = ["endpoints", "in_flight", "confirm", "ca", "cert"];
        for (typed, meant) in
            [("endpoint", "endpoints"), ("in-flight", "in_flight"), ("Confirm", "confirm"), ("ecrt", "cert"), ("cs", "ca")]
        {
            assert_eq!(nearest(typed, known.into_iter()), Some(meant), "{typed}");
        }
        assert_eq!(nearest("password", known.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(1000), known.into_iter()), None);
    }
}
