//! The list of gateways that there should be: a table (CSV) with the columns `site` and `gateway`, others are passed over. Pure.
//!
//! The same table that documents are rendered from will do. Quotes are as in RFC 4180; a field may hold separators and line ends in them.

use std::io::Read as _;
use std::path::Path;

use super::Id;
use crate::limits::{FLEET_EXPECTED_BYTES_MAX, FLEET_GATEWAYS_MAX};
use crate::record::Name;

/// Reads a list from a file.
pub fn open(path: &Path) -> Result<Vec<Id>, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| told(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    file.take(FLEET_EXPECTED_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| told(format!("cannot be read: {error}")))?;
    if text.len() as u64 > FLEET_EXPECTED_BYTES_MAX {
        return Err(told(format!("has more than {FLEET_EXPECTED_BYTES_MAX} bytes")));
    }
    read(&text).map_err(told)
}

/// Reads a list.
pub fn read(text: &str) -> Result<Vec<Id>, String> {
    let mut rows = rows(text.trim_start_matches('\u{feff}'))?.into_iter();
    let head = rows.next().ok_or("is empty; it needs a first row with the columns site and gateway")?.1;
    let column = |name: &str| head.iter().position(|cell| cell.trim() == name).ok_or(format!("has no column {name:?} in its first row"));
    let (site, gateway) = (column("site")?, column("gateway")?);
    let mut ids: Vec<Id> = Vec::new();
    for (line, row) in rows {
        let name = |at: usize, what: &str| {
            let cell = row.get(at).map_or("", |cell| cell.trim());
            Name::new(cell).map_err(|_| format!("line {line}: {what} is no name: lower-case letters, digits and -, 1 to 63 of them"))
        };
        ids.push(Id { site: name(site, "site")?, gateway: name(gateway, "gateway")? });
        if ids.len() > FLEET_GATEWAYS_MAX {
            return Err(format!("lists more than {FLEET_GATEWAYS_MAX} gateways"));
        }
    }
    Ok(ids)
}

/// Rows with the line each begins at; empty lines are none.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begins, mut quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push((begins, std::mem::take(&mut row)));
                begins = line + 1;
            }
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            c => cell.push(c),
        }
        line += usize::from(c == '\n');
    }
    if quoted {
        return Err(format!("line {begins}: a quote is not closed"));
    }
    row.push(cell);
    rows.push((begins, row));
    rows.retain(|(_, row)| row.iter().any(|cell| !cell.trim().is_empty()));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_its_column_names() {
        let ids = read("\u{feff}note,gateway,site\r\n\"a, \"\"b\"\"\nc\",gw1,st-marys\r\n\r\n,gw2,st-lukes").unwrap();
        let shown: Vec<String> = ids.iter().map(|id| format!("{}/{}", id.site, id.gateway)).collect();
        assert_eq!(shown, ["st-marys/gw1", "st-lukes/gw2"]);
    }

    #[test]
    fn a_table_that_names_no_gateway_is_refused_with_its_line() {
        for (text, why) in [
            ("", "is empty"),
            ("site,id\na,b", "no column \"gateway\""),
            ("site,gateway\na,b\nA,b", "line 3: site is no name"),
            ("site,gateway\na", "line 2: gateway is no name"),
            ("site,gateway\n\"a,b", "line 2: a quote is not closed"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
