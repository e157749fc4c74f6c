//! The board: what the agent knows about itself, written by the modules that know, read by everyone who shows it.
//!
//! ```text
//! sources, committer, forwarder ──► board ──┐
//! spool monitor ────────────────────────────┼──► snapshot ──► control socket ──► siteward status (table, --json)
//! gauge (bytes over time) ──────────────────┘            ├──► status page, with what the board remembers (`history`)
//!                                                        └──► STATUS= of systemd
//! ```
//!
//! One snapshot feeds every surface (I7: it holds counts, times, names and codes, never content). Conditions are named states somebody should
//! know about; each is raised and cleared by one owner and names its runbook page.

pub mod access;
pub mod board;
pub mod cadence;
pub mod condition;
pub mod control;
pub mod desk;
pub mod diagnosis;
pub mod earlier;
pub mod facts;
pub mod gauge;
pub mod history;
pub mod inquiry;
pub mod on_site;
pub mod pace;
pub mod page;
pub mod question;
pub mod rate;
pub mod snapshot;
pub mod table;
pub mod watching;

#[cfg(test)]
mod tests {
    use super::condition::Code;

    const RUNBOOK: &str = include_str!("../../../systemd/RUNBOOK.md");

    #[test]
    fn every_condition_has_its_runbook_section() {
        let sections: Vec<(&str, &str)> =
            RUNBOOK.split("\n## ").skip(1).map(|section| section.split_once('\n').expect("a section has a body")).collect();
        // What only the desk sees is told by `siteward-hub fleet`, which not every build has.
        let desk = ["gateway_offline", "gateway_stale"];
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).chain(desk).collect();
        for code in &codes {
            let (_, body) = sections.iter().find(|(title, _)| title == code).unwrap_or_else(|| panic!("no section for {code}"));
            for part in ["**You see.**", "**It means.**", "**Do.**", "**Never.**"] {
                assert!(body.contains(part), "{code} lacks {part}");
            }
        }
        for (title, _) in sections {
            assert!(codes.contains(&title), "{title} is no condition");
        }
    }
}
