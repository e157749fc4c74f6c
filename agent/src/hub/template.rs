//! One document for many gateways: a template in TOML, a table with a row for each gateway, and out come documents. Pure.
//!
//! ```text
//!   template ─ parsed ─► TOML values ──┐
//!   table ─ parsed ─► rows ────────────┴─► values put in ─► written ─► read again as a document, and held against what was meant
//! ```
//!
//! 1. `{{ name }}` stands inside text values only. It is replaced in the parsed value, never in the file's text: whatever a table holds, quotes and
//!    brackets included, stays the one value it is. What was written is parsed again and must be the tree that was meant.
//! 2. A value that is a placeholder alone may be made a number, `{{ port | int }}`, a truth, `{{ on | bool }}`, or a list of texts separated by blanks,
//!    `{{ peers | list }}`. `{{ x | optional }}` may be empty: alone, its key is left out.
//! 3. Everything is refused that could be a mistake: a placeholder without a column, a column without a placeholder, an empty value, a control
//!    character, a value that is too long, a gateway that comes twice. Each is told with row and column; values are not repeated.
//! 4. The columns `site` and `gateway` say whose row it is. `document.gateway` must come out as that gateway.
//! 5. The same template and table give the same bytes: keys in alphabetical order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::config::{Linted, lint_text};
use crate::limits::{TABLE_COLUMNS_MAX, TABLE_FAULTS_MAX, TABLE_ROWS_MAX, TABLE_VALUE_BYTES_MAX};
use crate::record::Name;

/// A table as read: names of columns, and rows of as many values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// One row, and the line of the file on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub line: usize,
    pub values: Vec<String>,
}

/// A document that came out.
#[derive(Debug)]
pub struct Rendered {
    pub site: Name,
    pub gateway: Name,
    pub text: String,
    pub linted: Linted,
}

const WHO: [&str; 2] = ["site", "gateway"];

// ---- the table ----

impl Sheet {
    /// CSV with a header: commas, or semicolons where the header has those only; values may be quoted. The errors are sentences.
    pub fn read(file: &Path, text: &str) -> Result<Self, Vec<String>> {
        let told = |line: usize, what: String| format!("{}:{line}: {what}", file.display());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let head = text.lines().next().unwrap_or_default();
        let separator = if !head.contains(',') && head.contains(';') { ';' } else { ',' };
        let mut records =
            records(text, separator).map_err(|line| vec![told(line, "a quote is not closed, or something stands behind it".to_owned())])?;
        if records.is_empty() {
            return Err(vec![told(1, "is empty; write a header with the columns site and gateway, and a row for each gateway".to_owned())]);
        }
        let Row { values: columns, .. } = records.remove(0);
        let columns: Vec<String> = columns.iter().map(|column| column.trim().to_owned()).collect();
        let mut faults = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            if !is_name(column) {
                faults.push(told(1, format!("column {} has no usable name; use letters, digits and _", index + 1)));
            } else if columns[..index].contains(column) {
                faults.push(told(1, format!("column {column} is there twice")));
            }
        }
        for who in WHO.iter().filter(|who| !columns.iter().any(|column| column == *who)) {
            faults.push(told(1, format!("the column {who} is missing")));
        }
        if columns.len() > TABLE_COLUMNS_MAX || records.len() > TABLE_ROWS_MAX {
            faults.push(told(1, format!("has more than {TABLE_COLUMNS_MAX} columns or {TABLE_ROWS_MAX} rows")));
        }
        if records.is_empty() {
            faults.push(told(1, "has no row".to_owned()));
        }
        for row in records.iter().filter(|row| row.values.len() != columns.len()) {
            faults.push(told(row.line, format!("has {} values, the header has {}", row.values.len(), columns.len())));
        }
        if faults.is_empty() { Ok(Self { columns, rows: records }) } else { Err(bounded(faults)) }
    }
}

fn bounded(mut faults: Vec<String>) -> Vec<String> {
    let all = faults.len();
    faults.truncate(TABLE_FAULTS_MAX);
    if all > TABLE_FAULTS_MAX {
        faults.push(format!("and {} more", all - TABLE_FAULTS_MAX));
    }
    faults
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// RFC 4180. The error is the line of a quote that is not in order. Empty lines are passed over.
fn records(text: &str, separator: char) -> Result<Vec<Row>, usize> {
    let (mut rows, mut values, mut value) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began) = (1, 1);
    let mut was_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if value.is_empty() && !was_quoted => {
                was_quoted = true;
                let opened = line;
                loop {
                    match chars.next() {
                        Some('"') if chars.peek() == Some(&'"') => value.extend(chars.next()),
                        Some('"') => break,
                        Some(c) => {
                            line += usize::from(c == '\n');
                            value.push(c);
                        }
                        None => return Err(opened),
                    }
                }
                let next = chars.peek().copied();
                if !next.is_none_or(|c| c == separator || c == '\n' || c == '\r') {
                    return Err(line);
                }
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                end_row(&mut rows, &mut values, &mut value, was_quoted, began);
                line += 1;
                (began, was_quoted) = (line, false);
            }
            c if c == separator => {
                values.push(std::mem::take(&mut value));
                was_quoted = false;
            }
            c => value.push(c),
        }
    }
    end_row(&mut rows, &mut values, &mut value, was_quoted, began);
    Ok(rows)
}

fn end_row(rows: &mut Vec<Row>, values: &mut Vec<String>, value: &mut String, was_quoted: bool, line: usize) {
    if !values.is_empty() || !value.is_empty() || was_quoted {
        values.push(std::mem::take(value));
        rows.push(Row { line, values: std::mem::take(values) });
    }
}

// ---- placeholders ----

/// What stands in a text: plain text, or a name and how it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Name { name: String, kind: Kind, optional: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Bool,
    List,
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        if open > 0 {
            parts.push(Part::Plain(rest[..open].to_owned()));
        }
        let inner = &rest[open + 2..];
        let close = inner.find("}}").ok_or("has {{ without }}")?;
        parts.push(placeholder(&inner[..close])?);
        rest = &inner[close + 2..];
    }
    if rest.contains("}}") {
        return Err("has }} without {{".to_owned());
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest.to_owned()));
    }
    let is_alone = parts.len() == 1;
    let typed = |part: &Part| matches!(part, Part::Name { kind: Kind::Int | Kind::Bool | Kind::List, .. });
    if !is_alone && parts.iter().any(typed) {
        return Err("has a placeholder with | int, | bool or | list beside other text; it has to be the whole value".to_owned());
    }
    Ok(parts)
}

fn placeholder(inner: &str) -> Result<Part, String> {
    let mut words = inner.split('|').map(str::trim);
    let name = words.next().unwrap_or_default();
    if !is_name(name) {
        return Err("has a placeholder whose name is not letters, digits and _".to_owned());
    }
    let (mut kind, mut optional) = (Kind::Text, false);
    for word in words {
        match word {
            "int" => kind = Kind::Int,
            "bool" => kind = Kind::Bool,
            "list" => kind = Kind::List,
            "optional" => optional = true,
            _ => return Err(format!("has a placeholder of {name} with a word that is not int, bool, list or optional")),
        }
    }
    Ok(Part::Name { name: name.to_owned(), kind, optional })
}

/// Every name in a value, with the path at which it stands; faults of the template itself.
fn names(value: &Value, path: &str, into: &mut BTreeMap<String, String>, faults: &mut Vec<String>) {
    match value {
        Value::String(text) => match parts(text) {
            Ok(parts) => {
                for part in parts {
                    if let Part::Name { name, .. } = part {
                        into.entry(name).or_insert_with(|| path.to_owned());
                    }
                }
            }
            Err(why) => faults.push(format!("{path}: {why}")),
        },
        Value::Array(array) => array.iter().enumerate().for_each(|(index, value)| names(value, &format!("{path}[{index}]"), into, faults)),
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if key.contains("{{") {
                    faults.push(format!("{path}: a placeholder stands in the name of a key; only values may have some"));
                }
                names(value, &path, into, faults);
            }
        }
        _ => {}
    }
}

/// What a row says, by column.
type Values<'r> = BTreeMap<&'r str, &'r str>;

/// Puts the values in. `None`: the key is left out.
fn filled(value: &Value, values: &Values<'_>) -> Result<Option<Value>, String> {
    Ok(Some(match value {
        Value::String(text) => return put_in(text, values),
        Value::Array(array) => {
            let all: Vec<Option<Value>> = array.iter().map(|value| filled(value, values)).collect::<Result<_, _>>()?;
            Value::Array(all.into_iter().flatten().collect())
        }
        Value::Table(table) => Value::Table(filled_table(table, values)?),
        other => other.clone(),
    }))
}

fn filled_table(table: &Table, values: &Values<'_>) -> Result<Table, String> {
    let mut out = Table::new();
    for (key, value) in table {
        if let Some(value) = filled(value, values)? {
            out.insert(key.clone(), value);
        }
    }
    Ok(out)
}

/// The error names the column, never the value.
fn put_in(text: &str, values: &Values<'_>) -> Result<Option<Value>, String> {
    let parts = parts(text)?;
    let value = |name: &str, optional: bool| -> Result<String, String> {
        let value = values.get(name).copied().unwrap_or_default();
        if value.is_empty() && !optional {
            return Err(format!("column {name}: is empty; fill it in, or write {{{{ {name} | optional }}}} in the template"));
        }
        Ok(value.to_owned())
    };
    if let [Part::Name { name, kind, optional }] = parts.as_slice() {
        let value = value(name, *optional)?;
        if value.is_empty() {
            return Ok(None);
        }
        return typed(name, *kind, &value).map(Some);
    }
    let mut out = String::new();
    for part in &parts {
        match part {
            Part::Plain(text) => out.push_str(text),
            Part::Name { name, optional, .. } => out.push_str(&value(name, *optional)?),
        }
    }
    Ok(Some(Value::String(out)))
}

fn typed(name: &str, kind: Kind, value: &str) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(Value::String(value.to_owned())),
        Kind::Int => value.parse().map(Value::Integer).map_err(|_| format!("column {name}: is not a whole number")),
        Kind::Bool => value.parse().map(Value::Boolean).map_err(|_| format!("column {name}: is neither true nor false")),
        Kind::List => Ok(Value::Array(value.split_ascii_whitespace().map(|text| Value::String(text.to_owned())).collect())),
    }
}

// ---- documents ----

/// Every document, in the order of the rows; or every fault, with file and line.
pub fn render(template: (&Path, &str), table: (&Path, &Sheet)) -> Result<Vec<Rendered>, Vec<String>> {
    let (file, sheet) = table;
    let tree: Table = toml::from_str(template.1).map_err(|error| {
        let line = error.span().map_or(1, |span| template.1[..span.start].matches('\n').count() + 1);
        vec![format!("{}:{line}: is not TOML: {}", template.0.display(), error.message())]
    })?;
    let (mut wanted, mut faults) = (BTreeMap::new(), Vec::new());
    names(&Value::Table(tree.clone()), "", &mut wanted, &mut faults);
    let mut faults: Vec<String> = faults.into_iter().map(|why| format!("{}: {why}", template.0.display())).collect();
    for (name, path) in wanted.iter().filter(|(name, _)| !sheet.columns.contains(name)) {
        faults.push(format!("{}: {path}: asks for {name}, and {} has no such column", template.0.display(), file.display()));
    }
    for column in sheet.columns.iter().filter(|column| !wanted.contains_key(*column) && !WHO.contains(&column.as_str())) {
        faults.push(format!("{}:1: column {column}: is used nowhere in {}; remove it, or use it", file.display(), template.0.display()));
    }
    if !faults.is_empty() {
        return Err(bounded(faults));
    }
    let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
    for row in &sheet.rows {
        match document(template.0, &tree, sheet, row) {
            Ok(rendered) if !seen.insert(rendered.gateway.clone()) => {
                faults.push(format!(
                    "{}:{}: column gateway: comes twice; documents name gateways, so names must differ",
                    file.display(),
                    row.line
                ));
            }
            Ok(rendered) => out.push(rendered),
            Err(why) => faults.push(format!("{}:{}: {why}", file.display(), row.line)),
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(bounded(faults)) }
}

fn document(template: &Path, tree: &Table, sheet: &Sheet, row: &Row) -> Result<Rendered, String> {
    let values: Values<'_> = sheet.columns.iter().zip(&row.values).map(|(column, value)| (column.as_str(), value.as_str())).collect();
    for (column, value) in &values {
        if value.len() > TABLE_VALUE_BYTES_MAX {
            return Err(format!("column {column}: is longer than {TABLE_VALUE_BYTES_MAX} bytes"));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("column {column}: holds a line break or another control character"));
        }
    }
    let who = |column: &str| {
        let value = values.get(column).copied().unwrap_or_default();
        Name::new(value).map_err(|_| format!("column {column}: is not a name; use 1 to 63 of a-z, 0-9 and -"))
    };
    let (site, gateway) = (who("site")?, who("gateway")?);
    let meant = filled_table(tree, &values)?;
    let body = toml::to_string(&meant).map_err(|_| "the document cannot be written".to_owned())?;
    let read: Table = toml::from_str(&body).map_err(|_| "a value does not stay what it is when it is written".to_owned())?;
    if read != meant {
        return Err("a value does not stay what it is when it is written".to_owned());
    }
    let named = meant.get("document").and_then(|document| document.get("gateway")).and_then(Value::as_str);
    if named != Some(gateway.as_str()) {
        return Err("document.gateway does not come out as the row's gateway; write gateway = \"{{ gateway }}\" in the template".to_owned());
    }
    let name = template.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "?");
    let text = format!("# Rendered from {name} for {site}/{gateway}: change the template or the table, not this file.\n{body}");
    let linted = lint_text(&PathBuf::from(format!("{gateway}.toml")), text.clone().into_bytes(), None)?;
    Ok(Rendered { site, gateway, text, linted })
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
