//! Templates with whatever a table may hold.

use proptest::prelude::*;

use super::*;

const TEMPLATE: &str = r#"
[document]
schema_version = 1
revision = "{{ revision | int }}"
gateway = "{{ gateway }}"
author = "kim"
reason = "for {{ site }}: {{ why }}"
ticket = "{{ ticket | optional }}"

[[feed]]
id = "lab"
owner = "{{ owner }}"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:{{ port }}"
peers = "{{ peers | list }}"
unframed = "{{ unframed | bool }}"
"#;

const HEAD: &str = "site,gateway,revision,why,ticket,owner,port,peers,unframed";

fn rendered(rows: &str) -> Result<Vec<Rendered>, Vec<String>> {
    let sheet = Sheet::read("sites.csv".as_ref(), &format!("{HEAD}\n{rows}\n"))?;
    render(("t.toml".as_ref(), TEMPLATE), ("sites.csv".as_ref(), &sheet))
}

fn refused(rows: &str) -> String {
    rendered(rows).expect_err("it is refused").join("\n")
}

#[test]
fn a_row_becomes_a_document_with_its_values_typed_and_the_same_bytes_each_time() {
    let rows = "st-marys,gw1,43,new lab,CHG-1,ext. 4711,2575,10.0.0.0/8 192.0.2.7,false\nst-lukes,gw2,43,new lab,,\"Kim \"\"K\"\" Lee\",2576,10.1.0.0/16,true";
    let all = rendered(rows).unwrap();
    let tree: Table = toml::from_str(&all[1].text).unwrap();
    assert_eq!(tree["document"]["revision"].as_integer(), Some(43));
    assert_eq!(tree["document"].get("ticket"), None, "optional and empty: left out");
    assert_eq!(tree["feed"][0]["owner"].as_str(), Some("Kim \"K\" Lee"));
    assert_eq!(tree["feed"][0]["mllp"]["unframed"].as_bool(), Some(true));
    let first: Table = toml::from_str(&all[0].text).unwrap();
    assert_eq!(first["feed"][0]["mllp"]["peers"].as_array().map(Vec::len), Some(2));
    assert_eq!((all[0].site.as_str(), all[0].gateway.as_str(), all[0].linted.document.header.revision), ("st-marys", "gw1", 43));
    let texts = |all: Vec<Rendered>| all.into_iter().map(|one| one.text).collect::<Vec<_>>();
    assert_eq!(texts(all), texts(rendered(rows).unwrap()));
}

#[test]
fn what_may_be_a_mistake_is_refused_with_row_and_column() {
    let good = |from: &str, to: &str| {
        let row = "st-marys,gw1,43,new lab,,desk,2575,10.0.0.0/8,false";
        assert!(row.contains(from));
        row.replacen(from, to, 1)
    };
    for (row, parts) in [
        (good("new lab", ""), ["sites.csv:2:", "column why: is empty"]),
        (good("desk", "\"two\nlines\""), ["sites.csv:2:", "column owner: holds a line break"]),
        (good("43", "many"), ["sites.csv:2:", "column revision: is not a whole number"]),
        (good("false", "perhaps"), ["sites.csv:2:", "column unframed: is neither"]),
        (good("gw1", "GW 1"), ["sites.csv:2:", "column gateway: is not a name"]),
        (good("gw1", "../../etc"), ["sites.csv:2:", "column gateway: is not a name"]),
        (good("2575", "99999"), ["gw1.toml:", "feed[0].mllp.listen"]),
        (good("desk", &"x".repeat(5000)), ["sites.csv:2:", "column owner: is longer than"]),
        (good(",false", ""), ["sites.csv:2:", "has 8 values, the header has 9"]),
        (good("desk", "\"desk"), ["sites.csv:2:", "a quote is not closed"]),
        (good("desk", "\"desk\"x"), ["sites.csv:2:", "something stands behind it"]),
        (format!("{0}\n{0}", good("desk", "desk")), ["sites.csv:3:", "column gateway: comes twice"]),
    ] {
        let told = refused(&row);
        assert!(parts.iter().all(|part| told.contains(part)), "{row}: {told}");
        assert!(!told.contains("two\nlines"), "values are not repeated");
    }
    let sheet = |text: &str| Sheet::read("sites.csv".as_ref(), text);
    let against = |template: &str, table: &str| {
        let sheet = sheet(table).unwrap();
        render(("t.toml".as_ref(), template), ("sites.csv".as_ref(), &sheet)).unwrap_err().join("\n")
    };
    assert!(against("x = '{{ port }}'", "site,gateway\ns,g\n").contains("t.toml: x: asks for port"));
    assert!(against("x = '1'", "site,gateway,prot\ns,g,1\n").contains("column prot: is used nowhere"));
    assert!(against("x = '{{ site'", "site,gateway\ns,g\n").contains("x: has {{ without }}"));
    assert!(against("'{{ site }}' = '1'", "site,gateway\ns,g\n").contains("in the name of a key"));
    assert!(against("x = 'a {{ site | int }}'", "site,gateway\ns,g\n").contains("has to be the whole value"));
    assert!(against("x = '{{ site }}'", "site,gateway\ns,g\n").contains("document.gateway does not come out"));
    assert!(against("x = {{ site }}", "site,gateway\ns,g\n").contains("t.toml:1: is not TOML"));
    assert!(sheet("gateway\ng\n").unwrap_err()[0].contains("column site is missing"));
    assert!(sheet("site,gateway,site\n").unwrap_err()[0].contains("twice"));
    assert!(sheet("").unwrap_err()[0].contains("is empty"));
    assert_eq!(sheet("\u{feff}site;gateway\r\n\r\ns;g\r\n").unwrap().rows, [Row { line: 3, values: vec!["s".into(), "g".into()] }]);
}

proptest! {
    /// I6: whatever a cell holds, it stays one value: no other key of any document changes by it, or the row is refused.
    #[test]
    fn a_hostile_value_stays_one_value(value in prop_oneof![
        ".{0,60}",
        "[\"'\\]\\[{}=#\\\\ a-z]{0,40}",
        Just("x\"\nid = \"evil".to_owned()),
        Just("]]\n[[feed]]\nid = \"evil\"".to_owned()),
        Just("{{ gateway }}".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("'''".to_owned()),
        Just("\\u0022".to_owned()),
    ]) {
        let cell = format!("\"{}\"", value.replace('"', "\"\""));
        let row = format!("st-marys,gw1,43,new lab,,{cell},2575,10.0.0.0/8,false");
        if let Ok(all) = rendered(&row) {
            prop_assert_eq!(all.len(), 1);
            let mut tree: Table = toml::from_str(&all[0].text).unwrap();
            let plain = rendered("st-marys,gw1,43,new lab,,desk,2575,10.0.0.0/8,false").unwrap();
            let feeds = tree["feed"].as_array_mut().unwrap();
            let owner = feeds[0].as_table_mut().unwrap().insert("owner".to_owned(), Value::String("desk".to_owned()));
            prop_assert_eq!(owner, Some(Value::String(value)));
            prop_assert_eq!(tree, toml::from_str::<Table>(&plain[0].text).unwrap());
        }
    }
}
