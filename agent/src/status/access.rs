//! Who may do what over the control socket: which group each request needs, and what of it is an audit record. Pure; the runbook's table is made of
//! the same rows.
//!
//! ```text
//!   <spool>/control.sock            root and the service's user                         everything
//!   <access>/view.sock     0660     group siteward-view (and whoever may more)           what only looks, without content of messages
//!   <access>/operate.sock  0660     group siteward-operate                               and what changes something
//!   <access>/phi.sock      0660     group siteward-phi                                   what looks, and the content of messages
//! ```
//!
//! The kernel lets a process through a socket file by its own user and groups, wherever these come from: nothing is looked up, nobody's
//! process id is raced for, and it holds in the service's sandbox. What the door lets through is then this table. The match over all requests is
//! closed, so a new one cannot be forgotten.
//!
//! Each group may do what it says and look; `siteward-operate` does not see content, `siteward-phi` changes nothing. Who shall do both is in both.

use sha2::{Digest as _, Sha256};

use super::question::{Order, Question, Request};
use super::table::put;
use crate::limits::AUDIT_SUBJECT_BYTES_MAX;
use crate::record::Digest;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    View,
    Operate,
    Phi,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::View, Self::Operate, Self::Phi];

    /// Of the operating system.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "siteward-view",
            Self::Operate => "siteward-operate",
            Self::Phi => "siteward-phi",
        }
    }

    /// In the access directory.
    pub fn socket(self) -> &'static str {
        match self {
            Self::View => "view.sock",
            Self::Operate => "operate.sock",
            Self::Phi => "phi.sock",
        }
    }

    /// The doors that let this through, the narrowest first.
    pub fn doors(self) -> &'static [Self] {
        match self {
            Self::View => &[Self::View, Self::Operate, Self::Phi],
            Self::Operate => &[Self::Operate],
            Self::Phi => &[Self::Phi],
        }
    }

    /// For who has it not.
    pub fn refusal(self) -> String {
        let group = self.name();
        format!("this needs the group {group}, or root (sudo); somebody with root adds you: `adduser NAME {group}`, then log in again")
    }
}

/// The socket a client came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// The control socket: its file lets root and the service's user through.
    #[default]
    Owner,
    Of(Group),
}

impl Door {
    pub fn lets(self, need: Group) -> bool {
        match self {
            Self::Owner => true,
            Self::Of(group) => need.doors().contains(&group),
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    /// Commands as they are typed.
    pub commands: &'static [&'static str],
    /// `None`: the agent is not asked; the files decide.
    pub need: Option<Group>,
    /// What it does.
    pub what: &'static str,
    /// How it is told.
    pub told: &'static str,
}

const fn row(need: Group, commands: &'static [&'static str], what: &'static str, told: &'static str) -> Row {
    Row { commands, need: Some(need), what, told }
}

const BEFORE_AND_AFTER: &str = "audit: before, and what became of it";

const LOOK: Row = row(
    Group::View,
    &[
        "status",
        "feeds",
        "messages find",
        "messages duplicates",
        "sniff",
        "feeds record",
        "quarantine list",
        "quarantine show",
        "config show",
        "config history",
        "config diff",
        "certs show",
        "certs csr",
        "secret list",
        "secret key",
        "override list",
        "maintenance list",
        "audit list",
        "audit verify",
        "diagnose",
    ],
    "looks; no content of messages, no value of a secret",
    "nothing",
);
const EXPORT: Row = row(Group::View, &["audit export"], "takes the audit log out, as a file", BEFORE_AND_AFTER);
const PAUSE: Row = row(Group::Operate, &["feeds pause", "feeds resume"], "a feed takes nothing, or takes again", BEFORE_AND_AFTER);
const RESEND: Row = row(
    Group::Operate,
    &["feeds accept-resend"],
    "repeated messages are stored again",
    "audit: before, and what became of it; condition accept_resend_open, `resendof` on the events",
);
const KEPT: Row = row(Group::Operate, &["quarantine release", "quarantine drop"], "sends after all, or removes for good", BEFORE_AND_AFTER);
const OVERRIDE: Row = row(
    Group::Operate,
    &["override set", "override clear"],
    "a feed's port, peers or pause, for hours; also while the audit log cannot be written",
    "audit: before, what became of it, and its end; `overrides` of the reported state",
);
const MAINTENANCE: Row = row(
    Group::Operate,
    &["maintenance start", "maintenance end"],
    "who is alerted, for hours",
    "audit: before, what became of it, and its end",
);
const SECRET: Row = row(Group::Operate, &["secret set", "secret remove"], "a value the configuration names", BEFORE_AND_AFTER);
const CERTIFICATE: Row = row(
    Group::Operate,
    &["certs renew", "certs install", "certs cancel"],
    "the gateway's certificate",
    "audit: before, what became of it, and whether it was proven",
);
const CONFIG: Row = row(
    Group::Operate,
    &["config apply", "config rollback"],
    "what runs",
    "audit: before, what became of it, and each outcome of a revision; reported state and history",
);
const RETIRE: Row = row(Group::Operate, &["retire"], "the gateway's end; erasing it needs root", "audit, waited for; the disposal record");
const CONTENT: Row = row(
    Group::Phi,
    &["quarantine show --content"],
    "opens an entry of quarantine: **shows what is in a message**",
    "audit: before, and how much was shown; a reason has to be given",
);
const FILES: Row = Row {
    commands: &["check", "feeds try", "preflight", "run", "enroll", "version"],
    need: None,
    what: "does not ask the agent: needs the right to read (enroll: to write) the files it names",
    told: "nothing; enroll: the desk's records",
};

/// All of it, for the runbook.
pub const ROWS: [&Row; 13] =
    [&LOOK, &EXPORT, &PAUSE, &RESEND, &KEPT, &OVERRIDE, &MAINTENANCE, &SECRET, &CERTIFICATE, &CONFIG, &RETIRE, &CONTENT, &FILES];

/// The row of a request.
fn row_of(request: &Request) -> &'static Row {
    match request {
        Request::Get(
            Question::Status {}
            | Question::Feeds { .. }
            | Question::Messages(_)
            | Question::Duplicates { .. }
            | Question::Quarantine { .. }
            | Question::Watch(_)
            | Question::Config {}
            | Question::ConfigHistory {}
            | Question::ConfigTexts {}
            | Question::Certificates {}
            | Question::Secrets {}
            | Question::SecretKey {}
            | Question::Overrides {}
            | Question::Maintenance {}
            | Question::Audit { .. }
            | Question::AuditVerify {}
            | Question::Log {},
        ) => &LOOK,
        Request::Do(order) => match order {
            Order::PauseFeed { .. } | Order::ResumeFeed { .. } => &PAUSE,
            Order::AcceptResend { .. } => &RESEND,
            Order::ReleaseQuarantine { .. } | Order::DropQuarantine { .. } | Order::DropEntries { .. } => &KEPT,
            Order::OverrideSet { .. } | Order::OverrideClear { .. } => &OVERRIDE,
            Order::MaintenanceStart { .. } | Order::MaintenanceEnd { .. } => &MAINTENANCE,
            Order::SecretSet { .. } | Order::SecretRemove { .. } => &SECRET,
            Order::CertificateRenew { .. } | Order::CertificateInstall { .. } | Order::CertificateCancel { .. } => &CERTIFICATE,
            Order::ConfigApply { .. } | Order::ConfigRollback { .. } => &CONFIG,
            Order::Retire { .. } => &RETIRE,
            Order::AuditExport { .. } => &EXPORT,
            Order::Unseal { .. } => &CONTENT,
        },
    }
}

/// The group that a request needs.
pub fn needed(request: &Request) -> Group {
    row_of(request).need.expect("requests are for the agent")
}

/// The table of the runbook.
pub fn table() -> String {
    let mut out = "| command | group | what it does | told to the hub as |\n|---|---|---|---|\n".to_owned();
    for row in ROWS {
        let commands: Vec<String> = row.commands.iter().map(|command| format!("`siteward {command}`")).collect();
        let group = row.need.map_or_else(|| "none".to_owned(), |group| format!("`{}`", group.name()));
        put(&mut out, format_args!("| {} | {group} | {} | {} |\n", commands.join(", "), row.what, row.told));
    }
    out
}

/// An order as an audit record says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Act {
    pub what: &'static str,
    pub subject: String,
    pub reason: String,
    /// Whom the other end says it stands for.
    pub claim: Option<String>,
    /// Carried out also where no record can be written.
    pub breaks_glass: bool,
}

/// What is recorded of an order. Never a value, never content (I7).
pub fn act(order: &Order) -> Act {
    let act = |what, subject: String, reason: &str, claim: Option<&str>| Act {
        what,
        subject,
        reason: reason.to_owned(),
        claim: claim.map(str::to_owned),
        breaks_glass: false,
    };
    match order {
        Order::AcceptResend { feed, for_s, by, why } => {
            act("accept_resend", format!("{feed} {for_s} s"), why.as_deref().unwrap_or_default(), by.as_deref())
        }
        Order::PauseFeed { feed, by, why } => act("pause_feed", feed.clone(), why, Some(by)),
        Order::ResumeFeed { feed, by, why } => act("resume_feed", feed.clone(), why, Some(by)),
        Order::ReleaseQuarantine { feed, first, last, by, why } => {
            act("release_quarantine", format!("{feed} {first}-{last}"), why, Some(by))
        }
        Order::DropQuarantine { feed, first, last, by, why } => act("drop_quarantine", format!("{feed} {first}-{last}"), why, Some(by)),
        Order::DropEntries { entries, by, why } => act("drop_quarantine", entries.join(" "), why, Some(by)),
        Order::Unseal { entry, offset, by, why } => {
            let from = if *offset == 0 { String::new() } else { format!(" from byte {offset}") };
            act("unseal", format!("{entry}{from}"), why, Some(by))
        }
        Order::ConfigApply { envelope, by, why } => {
            let digest = Digest(Sha256::digest(envelope.as_bytes()).into());
            let subject = format!("SHA-256 {digest}, {} bytes", envelope.len());
            act("config_apply", subject, why.as_deref().unwrap_or_default(), by.as_deref())
        }
        Order::ConfigRollback { by, why } => act("config_rollback", String::new(), why, Some(by)),
        Order::CertificateRenew { by, .. } => act("certificate_requested", String::new(), "", Some(by)),
        Order::CertificateInstall { by, .. } => act("certificate_installed", String::new(), "", Some(by)),
        Order::CertificateCancel { by } => act("certificate_cancelled", String::new(), "", Some(by)),
        Order::SecretSet { name, by, .. } => act("secret_set", name.clone(), "", by.as_deref()),
        Order::SecretRemove { name, by } => act("secret_removed", name.clone(), "", by.as_deref()),
        Order::OverrideSet { feed, port, peers, for_s, reason, by, .. } => {
            let change = match (port, peers) {
                (Some(port), _) => format!("port {port}"),
                (_, Some(peers)) => format!("peers {}", peers.join(",")),
                _ => "pause".to_owned(),
            };
            Act { breaks_glass: true, ..act("override_set", format!("{feed} {change} {for_s} s"), reason, by.as_deref()) }
        }
        Order::OverrideClear { feed, kind, by } => {
            let kind = kind.map_or_else(String::new, |kind| format!(" {}", kind.as_str()));
            Act { breaks_glass: true, ..act("override_cleared", format!("{feed}{kind}"), "", by.as_deref()) }
        }
        Order::MaintenanceStart { feed, for_s, at, reason, by } => {
            let at = at.as_ref().map(|at| format!(" from {at}")).unwrap_or_default();
            act("maintenance_started", format!("{} {for_s} s{at}", feed.as_deref().unwrap_or("gateway")), reason, by.as_deref())
        }
        Order::MaintenanceEnd { id, by } => act("maintenance_cancelled", format!("window {id}"), "", by.as_deref()),
        Order::AuditExport { by } => act("audit_export", String::new(), "", by.as_deref()),
        Order::Retire { reason, lost, by } => act("retirement_announced", lost.clone(), reason, by.as_deref()),
    }
}

impl Act {
    /// Why it cannot be carried out: its record would not say all of what was done.
    pub fn is_too_long(&self) -> Option<String> {
        let is_one = matches!(self.what, "drop_quarantine" | "override_set");
        let fits = self.subject.len() <= AUDIT_SUBJECT_BYTES_MAX && !self.subject.contains(char::is_control);
        (is_one && !fits).then(|| {
            format!("nothing was done: this names more than its audit record holds ({AUDIT_SUBJECT_BYTES_MAX} bytes); name fewer at once")
        })
    }
}

/// The feed that has to be there; nothing is recorded of one that is not.
pub fn feed_of(order: &Order) -> Option<&str> {
    match order {
        Order::AcceptResend { feed, .. }
        | Order::PauseFeed { feed, .. }
        | Order::ResumeFeed { feed, .. }
        | Order::ReleaseQuarantine { feed, .. }
        | Order::DropQuarantine { feed, .. }
        | Order::OverrideSet { feed, .. } => Some(feed),
        Order::MaintenanceStart { feed, .. } => feed.as_deref(),
        _ => None,
    }
}

/// What an answer says became of an order; the content that an answer may carry is not looked at (I7).
pub fn became(answer: &str) -> (bool, String) {
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        done: Option<String>,
    }
    match serde_json::from_str::<Told>(answer) {
        Ok(Told { error: Some(why), .. }) => (false, why),
        Ok(Told { done, .. }) => (true, done.unwrap_or_default()),
        Err(_) => (false, "the answer could not be read".to_owned()),
    }
}

/// The number of a group in a file like `/etc/group`. The package's groups are local, so nothing else is asked.
pub fn gid_of(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The number of a group on this machine; `None` where the package did not make it.
pub fn gid_here(group: Group) -> Option<u32> {
    gid_of(&std::fs::read_to_string("/etc/group").ok()?, group.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause() -> Request {
        Request::Do(Order::PauseFeed { feed: "a".into(), by: "kim".into(), why: "x".into() })
    }

    fn unseal() -> Request {
        Request::Do(Order::Unseal { entry: "1".into(), offset: 0, by: "kim".into(), why: "x".into() })
    }

    #[test]
    fn each_group_may_look_and_do_its_own_and_nothing_else() {
        for (group, looks, operates, sees) in
            [(Group::View, true, false, false), (Group::Operate, true, true, false), (Group::Phi, true, false, true)]
        {
            let lets = |request: &Request| Door::Of(group).lets(needed(request));
            assert_eq!((lets(&Request::STATUS), lets(&pause()), lets(&unseal())), (looks, operates, sees), "{group:?}");
        }
        assert!([Request::STATUS, pause(), unseal()].iter().all(|request| Door::Owner.lets(needed(request))));
    }

    /// One of each order, as the socket takes them; what its record says it was, and who may give it.
    const ORDERS: [(&str, &str, Group); 19] = [
        (r#"{"do":"accept_resend","feed":"a","for_s":1}"#, "accept_resend", Group::Operate),
        (r#"{"do":"pause_feed","feed":"a","by":"k","why":"x"}"#, "pause_feed", Group::Operate),
        (r#"{"do":"resume_feed","feed":"a","by":"k","why":"x"}"#, "resume_feed", Group::Operate),
        (r#"{"do":"release_quarantine","feed":"a","first":1,"last":2,"by":"k","why":"x"}"#, "release_quarantine", Group::Operate),
        (r#"{"do":"drop_quarantine","feed":"a","first":1,"last":2,"by":"k","why":"x"}"#, "drop_quarantine", Group::Operate),
        (r#"{"do":"drop_entries","entries":["1"],"by":"k","why":"x"}"#, "drop_quarantine", Group::Operate),
        (r#"{"do":"unseal","entry":"1","offset":0,"by":"k","why":"x"}"#, "unseal", Group::Phi),
        (r#"{"do":"config_apply","envelope":"{}"}"#, "config_apply", Group::Operate),
        (r#"{"do":"config_rollback","by":"k","why":"x"}"#, "config_rollback", Group::Operate),
        (r#"{"do":"certificate_renew","by":"k","trial_s":900}"#, "certificate_requested", Group::Operate),
        (r#"{"do":"certificate_install","by":"k","chain":"x"}"#, "certificate_installed", Group::Operate),
        (r#"{"do":"certificate_cancel","by":"k"}"#, "certificate_cancelled", Group::Operate),
        (r#"{"do":"secret_set","name":"n","sealed":"x"}"#, "secret_set", Group::Operate),
        (r#"{"do":"secret_remove","name":"n"}"#, "secret_removed", Group::Operate),
        (r#"{"do":"override_set","feed":"a","pause":true,"for_s":1,"reason":"x"}"#, "override_set", Group::Operate),
        (r#"{"do":"override_clear","feed":"a"}"#, "override_cleared", Group::Operate),
        (r#"{"do":"maintenance_start","for_s":1,"reason":"x"}"#, "maintenance_started", Group::Operate),
        (r#"{"do":"maintenance_end","id":1}"#, "maintenance_cancelled", Group::Operate),
        (r#"{"do":"retire","reason":"x","lost":""}"#, "retirement_announced", Group::Operate),
    ];

    /// Every order there is: none by the door of those who only look, each by one other, and recorded as what it was. Taking the audit log out is
    /// looking at it, and is recorded all the same.
    #[test]
    fn every_order_needs_its_own_group_and_none_of_them_only_looks() {
        let known = serde_json::from_str::<Order>(r#"{"do":"nothing"}"#).unwrap_err().to_string();
        for name in known.split('`').skip(3).step_by(2) {
            let is_listed = ORDERS.iter().any(|(line, ..)| line.contains(&format!("\"do\":\"{name}\"")));
            assert!(is_listed || name == "audit_export", "{name} is not in the list");
        }
        let export = Order::AuditExport { by: None };
        assert_eq!((act(&export).what, needed(&Request::Do(export))), ("audit_export", Group::View));
        for (line, what, need) in ORDERS {
            let request: Request = serde_json::from_str(line).unwrap();
            assert_eq!(needed(&request), need, "{line}");
            let through: Vec<Group> = Group::ALL.into_iter().filter(|group| Door::Of(*group).lets(needed(&request))).collect();
            assert_eq!(through, [need], "{line}");
            let Request::Do(order) = request else { panic!("{line} is no order") };
            let act = act(&order);
            assert_eq!((act.what, act.breaks_glass), (what, what.starts_with("override_")), "{line}");
        }
    }

    /// I7: neither a value nor content comes into a record.
    #[test]
    fn a_record_names_the_thing_and_never_its_value() {
        let set = Order::SecretSet { name: "lab-key".into(), sealed: "CANARY".into(), by: Some("kim".into()) };
        assert!(!format!("{:?}", act(&set)).contains("CANARY"));
        let apply = Order::ConfigApply { envelope: "CANARY".into(), by: Some("kim".into()), why: Some("new port".into()) };
        assert!(!format!("{:?}", act(&apply)).contains("CANARY"));
        let of_it = "SHA-256 fe0344af3e43e190840444ba40c096f59418bf9247c6f3bdc8cd35e4b8f59d2e, 6 bytes";
        assert_eq!(
            (act(&apply).subject.as_str(), act(&apply).claim.as_deref(), act(&apply).reason.as_str()),
            (of_it, Some("kim"), "new port")
        );
        assert_eq!(became(r#"{"done":"17 bytes","content":"CANARY"}"#), (true, "17 bytes".into()));
        assert_eq!(became(r#"{"error":"no such entry"}"#), (false, "no such entry".into()));
        assert_eq!(became(r#"{"feed":"a","until":"x"}"#), (true, String::new()));
    }

    #[test]
    fn only_break_glass_goes_on_without_a_record() {
        let set = Order::OverrideSet {
            feed: "lab".into(),
            port: Some(2576),
            peers: None,
            pause: false,
            for_s: 60,
            reason: "moved".into(),
            by: None,
        };
        assert_eq!((act(&set).breaks_glass, act(&set).subject.as_str()), (true, "lab port 2576 60 s"));
        let Request::Do(pause) = pause() else { unreachable!() };
        assert!(!act(&pause).breaks_glass);
    }

    /// The one that matters is not the last of many.
    #[test]
    fn what_does_not_fit_into_its_record_is_refused() {
        let drop = |entries: usize| {
            let entries = (0..entries).map(|n| format!("{n:032x}")).collect();
            act(&Order::DropEntries { entries, by: "kim".into(), why: "x".into() }).is_too_long()
        };
        assert_eq!(drop(31), None);
        assert!(drop(32).unwrap().contains("name fewer"));
        let set = |peers: Vec<String>| {
            let (feed, reason) = ("lab".to_owned(), "x".to_owned());
            act(&Order::OverrideSet { feed, port: None, peers: Some(peers), pause: false, for_s: 60, reason, by: None }).is_too_long()
        };
        assert_eq!(set(vec!["192.168.100.0/24".to_owned(); 55]), None);
        let hidden = (0..120).map(|n| format!("10.0.{n}.0/24")).chain(["0.0.0.0/0".to_owned()]).collect();
        assert!(set(hidden).is_some());
        assert!(set(vec!["10.0.0.0/24\n".to_owned()]).is_some(), "a record is one line");
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nsiteward-viewer:x:7:\nsiteward-view:x:995:kim,lee\n";
        assert_eq!(gid_of(groups, "siteward-view"), Some(995));
        assert_eq!(gid_of(groups, "siteward-phi"), None);
        assert_eq!(gid_of("siteward-view:x\n", "siteward-view"), None);
    }
}
