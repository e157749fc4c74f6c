//! What Mosquitto has to know: who may say and hear what, and whose certificates count no more. Pure, from the desk's records.
//!
//! ```text
//!   acl              a user for each name that is admitted; whoever is not listed may connect and do nothing
//!   revoked          what is on it, for people, and to tell whether it changed
//!   crl.pem          certificates of our own authority that are refused in the TLS handshake
//!   siteward.conf    the lines that use both, for a listener with `use_identity_as_username`
//! ```
//!
//! A name stands for one enrolment of one box, through all its renewals. So a retired box loses its rights by its name, whoever issued its certificate, and
//! those that we issued do not even get a connection: with one, a dead box that comes back could push the new one off the broker by its client id.
//! For another authority's certificates that takes its own list (`--crl`).

use super::state::{Identity, Record, Role};
use crate::contract::topic::ROOT;
use crate::status::table::put;

/// Below `siteward/v1/{site}/{gateway}/`: what a gateway says and hears.
const SAYS: [&str; 10] = [
    "event/+",
    "block/+",
    "outcome/+",
    "checkpoint",
    "status",
    "config/reported",
    "certificate/request",
    "command/result",
    "audit",
    "preflight",
];
const HEARS: [&str; 4] = ["receipt", "config/desired", "command", "certificate/issued"];

/// The access list. `now`: seconds since 1970.
pub fn access(records: &[Record], identities: &[Identity], now: i64) -> String {
    let mut text = String::from("# Made by `siteward-hub broker mosquitto`; changes are lost when it is made again.\n");
    for identity in identities {
        put(&mut text, format_args!("\nuser {}\n", identity.name));
        let (says, hears): (&[&str], &[&str]) = match identity.role {
            Role::Receiver => (
                &["receipt"],
                &[
                    "event/+",
                    "block/+",
                    "outcome/+",
                    "checkpoint",
                    "status",
                    "config/reported",
                    "certificate/request",
                    "command/result",
                    "audit",
                ],
            ),
            Role::Desk => (
                &["config/desired", "command", "certificate/issued", "enrol/answer/+"],
                &["status", "config/reported", "config/desired", "certificate/request", "command/result", "audit", "enrol/request/+"],
            ),
        };
        lines(&mut text, &format!("{ROOT}/+/+"), says, hears);
    }
    for record in records.iter().filter(|record| record.is_admitted() && (record.used.is_some() || record.is_open(now))) {
        let below = format!("{ROOT}/{}/{}", record.site, record.gateway);
        put(&mut text, format_args!("\nuser {}\n", record.subject));
        lines(&mut text, &below, &SAYS, &HEARS);
        if record.is_open(now) {
            put(&mut text, format_args!("\nuser {}\n", record.enrolment_subject));
            lines(&mut text, &below, &["enrol/request/+"], &["enrol/answer/+"]);
        }
    }
    text
}

fn lines(text: &mut String, below: &str, says: &[&str], hears: &[&str]) {
    for (verb, topics) in [("write", says), ("read", hears)] {
        for topic in topics {
            put(text, format_args!("topic {verb} {below}/{topic}\n"));
        }
    }
}

/// Serial numbers of our own authority that count no more, and since when.
pub fn revoked(records: &[Record], identities: &[Identity]) -> Vec<(String, i64)> {
    let former = identities.iter().flat_map(|identity| &identity.former);
    let mut all: Vec<(String, i64)> = former.map(|former| (former.serial.clone(), former.since)).collect();
    for record in records {
        let Some(retired) = &record.retired else { continue };
        all.push((record.enrolment_serial.clone(), retired.at));
        all.extend(record.certificates.iter().filter_map(|c| Some((c.serial.clone()?, retired.at))));
    }
    all
}

/// What is on the lists of revoked certificates: our own by their numbers, those of other authorities by their lists as they are.
pub fn serials(revoked: &[(String, i64)], others: &[String]) -> String {
    let mut text = "# Serial numbers in crl.pem; not read by the broker.\n".to_owned();
    for (serial, _) in revoked {
        put(&mut text, format_args!("{serial}\n"));
    }
    text.extend(others.iter().map(String::as_str));
    text
}

/// Lines for the broker's configuration. `directory`: where the files will be on the broker's machine.
pub fn configuration(directory: &str) -> String {
    format!(
        "# Made by `siteward-hub broker mosquitto`. For the listener that gateways use, beside its own certfile and keyfile.\n\
         # After new files the program that made them says what is to be done: systemctl reload mosquitto where only the access list changed,\n\
         # else systemctl restart mosquitto, which costs gateways seconds and no message.\n\
         # Beside listeners: max_queued_messages 100000, or more than twice the number of gateways, and not 0: with 0 Mosquitto 2.0 closes the\n\
         # connection of everybody of whom it refuses a single publish.\n\
         cafile {directory}/clients-ca.pem\n\
         require_certificate true\n\
         use_identity_as_username true\n\
         allow_anonymous false\n\
         acl_file {directory}/acl\n\
         crlfile {directory}/crl.pem\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::record;
    use super::super::state::{Issued, Retired, Used};
    use super::*;

    #[test]
    fn each_name_has_its_own_topics_and_a_retired_one_none() {
        let open = record();
        let used = Record { used: Some(Used { at: 1, key: "k".into(), chain: None }), subject: "a.used.00000000".into(), ..record() };
        let retired = Some(Retired { at: 5, by: "kim".into(), why: "dead".into() });
        let serial = "41".repeat(16);
        let certificates = vec![Issued { at: 1, fingerprint: "f".into(), serial: Some(serial.clone()), not_after: None }];
        let gone =
            Record { retired, certificates, subject: "a.gone.00000000".into(), enrolment_subject: "enrol.gone".into(), ..used.clone() };
        let records = [open.clone(), used, gone];
        let text = access(&records, &[], open.not_after);
        let of = |user: &str| -> Vec<&str> {
            let start = text.lines().skip_while(|line| *line != format!("user {user}")).skip(1);
            start.take_while(|line| line.starts_with("topic")).collect()
        };
        assert_eq!(
            of("enrol.0123456789abcdef"),
            [
                "topic write siteward/v1/st-marys/st-marys-gw1/enrol/request/+",
                "topic read siteward/v1/st-marys/st-marys-gw1/enrol/answer/+"
            ]
        );
        assert_eq!(of(&open.subject).len(), SAYS.len() + HEARS.len());
        assert!(of(&open.subject).contains(&"topic read siteward/v1/st-marys/st-marys-gw1/receipt"));
        assert!(!text.contains("gone"));
        assert_eq!(revoked(&records, &[]), [("40".repeat(16), 5), (serial, 5)]);
        let later = access(&records, &[], open.not_after + 1);
        assert!(!later.contains("enrol.") && !later.contains(&open.subject) && later.contains("a.used."), "{later}");
    }
}
