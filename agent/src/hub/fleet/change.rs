//! What is new between two looks at one gateway, a line each. Pure.

use serde::Serialize;

use super::row::{Row, Shown, State};
use super::table;
use crate::record::Name;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// By our clock, RFC 3339.
    pub time: String,
    pub site: Name,
    pub gateway: Name,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    State {
        state: State,
        before: Option<State>,
    },
    Version {
        version: Option<String>,
        before: Option<String>,
    },
    Config {
        config: String,
    },
    Raised(Shown),
    Over {
        code: String,
        subject: String,
    },
    /// Something about it cannot be known, or can again.
    Notes {
        notes: Vec<String>,
    },
}

/// What is new; `before` is none for a gateway that was not known.
pub fn changes(before: Option<&Row>, now: &Row, time: &str) -> Vec<Change> {
    let mut found = Vec::new();
    let mut say = |what| found.push(Change { time: time.to_owned(), site: now.site.clone(), gateway: now.gateway.clone(), what });
    if before.is_none_or(|before| before.state != now.state) {
        say(What::State { state: now.state, before: before.map(|before| before.state) });
    }
    if before.is_some_and(|before| before.version != now.version) {
        say(What::Version { version: now.version.clone(), before: before.and_then(|before| before.version.clone()) });
    }
    let config = table::config(now);
    if now.revision.is_some() && before.is_none_or(|before| table::config(before) != config) {
        say(What::Config { config });
    }
    let none = Vec::new();
    let (old, new) = (before.and_then(|before| before.conditions.as_ref()).unwrap_or(&none), now.conditions.as_ref().unwrap_or(&none));
    let same = |a: &Shown, b: &Shown| (&a.code, &a.subject) == (&b.code, &b.subject);
    for raised in new.iter().filter(|new| !old.iter().any(|old| same(old, new))) {
        say(What::Raised(raised.clone()));
    }
    for over in old.iter().filter(|old| !new.iter().any(|new| same(old, new))) {
        say(What::Over { code: over.code.clone(), subject: over.subject.clone() });
    }
    if before.map_or(!now.notes.is_empty(), |before| before.notes != now.notes) {
        say(What::Notes { notes: now.notes.clone() });
    }
    found
}

impl Change {
    /// One line for people.
    pub fn line(&self) -> String {
        let about = |subject: &str| if subject.is_empty() { String::new() } else { format!(" ({subject})") };
        let what = match &self.what {
            What::State { state, .. } => state.as_str().replace('_', " "),
            What::Version { version, .. } => format!("version {}", version.as_deref().unwrap_or("?")),
            What::Config { config } => format!("configuration {config}"),
            What::Raised(shown) => format!("{} {}{}: {}", shown.severity.as_str(), shown.code, about(&shown.subject), shown.text),
            What::Over { code, subject } => format!("over: {code}{}", about(subject)),
            What::Notes { notes } if notes.is_empty() => "all is known again".into(),
            What::Notes { notes } => format!("note: {}", notes.join("; ")),
        };
        format!("{}  {}/{}  {what}", self.time, self.site, self.gateway)
    }
}
