//! Directory feeds of a scene: their directories, their sections of the configuration, the ways real programs write files, and what the hub got.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use crate::mosquitto;
use crate::scene::Scene;
use crate::wait;

/// One directory feed.
#[derive(Clone, Debug)]
pub struct Folder {
    pub id: String,
    pub path: PathBuf,
}

impl Folder {
    /// Makes the directory.
    pub fn new(parent: &Path, id: &str) -> Self {
        let path = parent.join(id);
        fs::create_dir_all(&path).expect("a directory for the feed");
        Self { id: id.to_owned(), path }
    }

    /// Its `[[feed]]`; `lines` are further ones of `[feed.directory]`.
    pub fn section(&self, lines: &[&str]) -> String {
        format!(
            "\n[[feed]]\nid = {:?}\nlane = \"normal\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
             [feed.directory]\npath = \"{}\"\nscan = \"1s\"\n{}\n",
            self.id,
            self.path.display(),
            lines.join("\n")
        )
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// At once, as a program that writes elsewhere and renames.
    pub fn put(&self, name: &str, content: &[u8]) {
        let temporary = self.file(&format!(".{name}.Xq71"));
        fs::write(&temporary, content).expect("the temporary file is written");
        fs::rename(&temporary, self.file(name)).expect("it is renamed");
    }

    /// Slowly, under its own name, as `cp` from a slow disk.
    pub fn copy_slowly(&self, name: &str, content: &[u8], chunks: usize, pause: Duration) {
        let mut file = fs::File::create(self.file(name)).expect("the file is made");
        for chunk in content.chunks(content.len().div_ceil(chunks).max(1)) {
            file.write_all(chunk).expect("a part is written");
            std::thread::sleep(pause);
        }
    }

    /// Names in a directory below, sorted.
    pub fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path.join(below)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn is_done(&self, name: &str) -> bool {
        self.path.join("done").join(name).exists()
    }
}

/// An event of a file feed.
#[derive(Clone, Debug)]
pub struct FileEvent {
    pub seq: u64,
    pub body: Vec<u8>,
    pub attributes: BTreeMap<String, String>,
    pub content_type: String,
}

impl FileEvent {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The body as text, without what comes before its last line: of a CSV record the row.
    pub fn row(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.lines().last().unwrap_or_default().to_owned()
    }
}

/// The events of one feed by seq, and the kinds of all lines that are neither events nor harmless.
pub fn read_events(out: &Path, feed: &str) -> (Vec<FileEvent>, Vec<String>) {
    let (mut events, mut complaints) = (Vec::new(), Vec::new());
    let Ok(file) = fs::File::open(out) else { return (events, complaints) };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        match value["kind"].as_str() {
            Some("event") if value["feed"] == feed => events.push(event(&value)),
            Some("event" | "start" | "open" | "reported" | "certificate_request" | "command_result" | "audit") => {}
            other => complaints.push(format!("{other:?}")),
        }
    }
    events.sort_by_key(|event| event.seq);
    (events, complaints)
}

/// A scene with directory feeds, running; each comes with its further lines.
pub fn scene(feeds: &[(&str, &[&str])]) -> (Scene, Vec<Folder>) {
    let mut folders = Vec::new();
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        for (id, lines) in feeds {
            let folder = Folder::new(&parent, id);
            configuration.sections.push(folder.section(lines));
            folders.push(folder);
        }
    });
    scene.start();
    (scene, folders)
}

/// The events of a feed once there are so many; the hub has nothing to complain of.
pub fn events(scene: &Scene, feed: &str, enough: usize) -> Vec<FileEvent> {
    let out = scene.hub.out();
    let found = wait::try_until(wait::EVENTUALLY, || {
        std::thread::sleep(Duration::from_millis(200)); // reading a long file is work that the machine has better uses for
        read_events(&out, feed).0.len() >= enough
    });
    let (events, complaints) = read_events(&out, feed);
    assert!(found, "{} of {enough} events of {feed}; the agent's log ends with:\n{}", events.len(), scene.site.log_tail());
    assert_eq!(complaints, Vec::<String>::new());
    events
}

fn event(value: &Value) -> FileEvent {
    let attributes = value["attributes"].as_object().expect("attributes").iter();
    let attributes: BTreeMap<String, String> =
        attributes.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let data = value["data_base64"].as_str().expect("a payload");
    FileEvent {
        seq: attributes["sequence"].parse().expect("a number"),
        body: base64::engine::general_purpose::STANDARD.decode(data).expect("base64"),
        content_type: value["content_type"].as_str().or(value["datacontenttype"].as_str()).unwrap_or_default().to_owned(),
        attributes,
    }
}

/// A cabinet export with rows `from..=to` and a quoted field with a line break here and there.
pub fn csv(from: u64, to: u64) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::from("id,item,quantity,note\r\n");
    for row in from..=to {
        write!(text, "R{row:06},ITEM-{},{},\"used, in OR {}\"\r\n", row % 97, row % 7, row % 12).expect("writing to a string");
    }
    text.into_bytes()
}

/// The ids of rows `from..=to`.
pub fn ids(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|row| format!("R{row:06}")).collect()
}

/// The ids in the events.
pub fn ids_of(events: &[FileEvent]) -> Vec<String> {
    events.iter().map(|event| event.row().chars().take(7).collect()).collect()
}
