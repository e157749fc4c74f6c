//! A directory feed as written: what it becomes, and what is refused with which words.

use super::*;
use toml::de::DeTable;

/// The settings, or the first fault.
fn read_feed(lines: &str) -> Result<DirectorySettings, String> {
    let document = DeTable::parse(lines).unwrap();
    let mut f = FaultList::default();
    let written = read(Section::root(document.get_ref()), &mut f);
    let merged = merge(written, &mut f);
    let settings = validate(&merged, Some(Stage::Live), &mut f);
    if f.is_empty() { Ok(settings.expect("without faults there are settings")) } else { Err(format!("{f:?}")) }
}

#[test]
fn the_shortest_feed_has_sound_defaults() {
    let feed = read_feed("path = '/srv/feeds/cabinet'\nsplit = 'csv'").unwrap();
    assert_eq!(feed.complete, Completion::Settled);
    assert_eq!((feed.settle, feed.scan), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!(feed.done, DoneRule::Move(Retention { days: 30, bytes: limits::GIB }));
    assert_eq!(feed.require_mount.as_deref(), Some(Path::new("/srv/feeds")), "a share by habit");
    assert!(!feed.name_in_events && !feed.subfolders && feed.order == Order::Name && feed.patterns[0].matches("A.B"));
    assert!(matches!(feed.split, SplitSettings::Csv(_)));
}

#[test]
fn everything_that_is_written_is_used() {
    let feed = read_feed(
        "path = '/data/in'\npatterns = ['*.txt', 'x*']\nsubfolders = true\norder = 'number'\ncomplete = 'marker'\nmarker = '.fin'\n\
         settle = '5s'\nscan = '1m'\nsplit = 'csv'\ndone = 'leave'\nrequire_mount = true\nname_in_events = true\n\
         [csv]\ndelimiter = 'tab'\nquote = 'none'\nheader = false\nencoding = '8859/1'\n",
    )
    .unwrap();
    assert_eq!((feed.path.as_path(), feed.patterns.len(), feed.order), (Path::new("/data/in"), 2, Order::Number));
    assert_eq!(
        (feed.complete, feed.settle, feed.scan),
        (Completion::Marker(".fin".into()), Duration::from_secs(5), Duration::from_secs(60))
    );
    assert_eq!((feed.done, feed.require_mount.as_deref()), (DoneRule::Leave, Some(Path::new("/"))));
    assert!(feed.subfolders && feed.name_in_events && feed.stage == Stage::Live);
    let SplitSettings::Csv(csv) = feed.split else { panic!("not csv") };
    assert_eq!((csv.delimiter, csv.quote, csv.header), (b'\t', None, false));
    assert_ne!(csv.encoding, Charset::UTF_8);
    let kept = read_feed("path = '/d'\nsplit = 'whole'\nretention_days = 7\nretention_bytes = '10MiB'").unwrap();
    assert_eq!(kept.done, DoneRule::Move(Retention { days: 7, bytes: 10 * limits::MIB }));
    assert_eq!(kept.require_mount, None);
    let fixed = read_feed("path = '/d'\nsplit = 'fixed'\n[fixed]\nwidths = [3, 5]\nrecord_len = 10\ntrimmed_ends = true").unwrap();
    let SplitSettings::Fixed(fixed) = fixed.split else { panic!("not fixed") };
    assert_eq!((fixed.width(), fixed.record_len, fixed.trimmed_ends), (8, Some(10), true));
    let x12 = read_feed("path = '/d'\nsplit = 'x12'\ncomplete = 'trailer'\n[x12]\nlevel = 'group'").unwrap();
    assert_eq!(x12.split, SplitSettings::X12 { level: X12Level::Group });
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    for (lines, words) in [
        ("split = 'csv'", "name the directory"),
        ("path = 'relative'\nsplit = 'csv'", "absolute path"),
        ("path = '/a/../b'\nsplit = 'csv'", "absolute path"),
        ("path = '/d'", "say how a file becomes records"),
        ("path = '/d'\nsplit = 'xml'", "XML"),
        ("path = '/d'\nsplit = 'csvv'", "no way to split"),
        ("path = '/d'\nsplit = 'csv'\npatterns = ['a/b']", "subfolders"),
        ("path = '/d'\nsplit = 'csv'\npatterns = []", "1 to 64 patterns"),
        ("path = '/d'\nsplit = 'csv'\nmarker = '.x'", "complete = "),
        ("path = '/d'\nsplit = 'csv'\ncomplete = 'trailer'", "has no trailer"),
        ("path = '/d'\nsplit = 'csv'\nsettle = '0s'", "out of range"),
        ("path = '/d'\nsplit = 'csv'\nscan = '2h'", "out of range"),
        ("path = '/d'\nsplit = 'csv'\n[csv]\ndelimiter = ';;'", "one character"),
        ("path = '/d'\nsplit = 'csv'\n[csv]\ndelimiter = 'x'", "single character"),
        ("path = '/d'\nsplit = 'lines'\n[csv]\nheader = true", "means something only with split"),
        ("path = '/d'\nsplit = 'csv'\n[csv]\nencoding = 'klingon'", "not a character set"),
        ("path = '/d'\nsplit = 'fixed'\n[fixed]\nwidths = []", "1 to"),
        ("path = '/d'\nsplit = 'csv'\npattern = ['*']", "patterns"),
        ("path = '/d'\nsplit = 'csv'\nretention_days = 99999", "out of range"),
    ] {
        let fault = read_feed(lines).expect_err(lines);
        assert!(fault.contains(words), "{lines}: {fault}");
    }
}
