//! The runbook, as it was when this version was built: a page for each condition and each procedure, for a technician without internet.

use super::html::Html;
use super::{markdown, render};

const RUNBOOK: &str = include_str!("../../../../systemd/RUNBOOK.md");

/// One page: its name in the address, its title, its text.
struct Section {
    title: &'static str,
    /// A section of its own below "Conditions".
    is_condition: bool,
    text: &'static str,
}

impl Section {
    /// The code of a condition; of a procedure its title in lower case with dashes.
    fn name(&self) -> String {
        if self.is_condition {
            return self.title.to_owned();
        }
        let words = self.title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
    }
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut begin, mut is_code) = (0, false);
    let mut offset = 0;
    let mut head: Option<(&'static str, bool)> = None;
    let mut close = |head: Option<(&'static str, bool)>, text: &'static str| {
        if let Some((title, is_condition)) = head {
            sections.push(Section { title, is_condition, text: text.trim() });
        }
    };
    for line in RUNBOOK.split_inclusive('\n') {
        is_code ^= line.trim_start().starts_with("```");
        let title = line.strip_prefix("## ").map(|title| (title, true)).or_else(|| line.strip_prefix("# ").map(|title| (title, false)));
        if let Some((title, is_condition)) = title.filter(|_| !is_code) {
            close(head, &RUNBOOK[begin..offset]);
            head = Some((title.trim(), is_condition));
            begin = offset + line.len();
        }
        offset += line.len();
    }
    close(head, &RUNBOOK[begin..]);
    sections
}

fn frame(title: &str, content: impl FnOnce(&mut Html)) -> String {
    let mut html = Html::default();
    render::head(&mut html, title, false);
    html.raw("<body><nav><a href=\"/\">← Status</a> · <a href=\"/runbook\">Runbook</a></nav>\n<main class=\"text\"><h1>")
        .text(title)
        .raw("</h1>\n");
    content(&mut html);
    html.raw("</main></body></html>\n");
    html.into_string()
}

/// All pages.
pub(super) fn index() -> String {
    let sections = sections();
    let list = |html: &mut Html, of_conditions: bool| {
        html.raw("<ul class=\"index\">");
        for section in sections.iter().filter(|section| section.is_condition == of_conditions && !section.text.is_empty()) {
            html.raw("<li><a href=\"/runbook/").text(section.name()).raw("\">").text(section.title).raw("</a></li>");
        }
        html.raw("</ul>");
    };
    frame("Runbook", |html| {
        html.raw("<h2>Procedures</h2>");
        list(html, false);
        html.raw("<h2>Conditions</h2>");
        list(html, true);
    })
}

/// The page of a condition or procedure.
pub(super) fn section(name: &str) -> Option<String> {
    let section = sections().into_iter().find(|section| section.name() == name)?;
    Some(frame(section.title, |html| {
        html.piece(markdown::render(section.text));
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::condition::Code;

    #[test]
    fn every_condition_has_its_page_and_every_link_of_the_index_leads_to_one() {
        for code in Code::ALL {
            let page = section(code.as_str()).unwrap_or_else(|| panic!("{}", code.as_str()));
            for part in ["<strong>You see.</strong>", "<strong>Do.</strong>", "<strong>Never.</strong>"] {
                assert!(page.contains(part), "{} lacks {part}", code.as_str());
            }
        }
        let index = index();
        let links: Vec<&str> = index.split("href=\"/runbook/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > Code::ALL.len(), "{links:?}");
        assert!(links.contains(&"the-first-five-minutes"));
        for link in links {
            assert!(section(link).is_some(), "{link}");
        }
        assert!(section("no_such_code").is_none() && section("").is_none() && section("../etc").is_none());
    }

    #[test]
    fn no_mark_of_the_text_is_left_over() {
        for found in sections() {
            let page = section(&found.name()).unwrap();
            assert!(!page.contains("**") && !page.contains('`'), "{}: {page}", found.title);
        }
    }
}
