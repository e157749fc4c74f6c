//! Two independent parsers' words on every file, held against the agent's answers. Where they differ, a rule of HL7.md must say why; a
//! difference without a rule fails the test.

use std::collections::BTreeMap;

use crate::facts::{Facts, Msh};

/// One line of oracle.tsv.
#[derive(Clone, Debug)]
pub struct Opinion {
    pub python: String,
    pub python_id: String,
    pub hapi: String,
    pub hapi_id: String,
    /// HAPI's acknowledgement with `~` for segment ends, or its error.
    pub hapi_reply: String,
}

/// Where an opinion differs from what the agent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    PythonDoesNotParse,
    PythonId,
    HapiDoesNotParse,
    HapiId,
    HapiCode,
    HapiMessageType,
    HapiAddress,
    HapiProcessingId,
    HapiVersion,
    HapiDelimiters,
}

use Difference as D;

/// What a rule may look at.
pub struct Case<'a> {
    pub facts: &'a Facts,
    pub message: &'a Msh,
    pub opinion: &'a Opinion,
    /// The agent's reply, split: MSH of it, MSA-1.
    pub reply: Option<&'a Reply>,
}

pub struct Reply {
    pub msh: Msh,
    pub code: String,
    pub id: Vec<u8>,
}

pub struct Rule {
    pub section: &'static str,
    pub why: &'static str,
    pub differences: &'static [Difference],
    pub holds: fn(&Case<'_>) -> bool,
}

/// Whether HAPI's field `n` of the reply is ours up to the first component, repetition or subcomponent delimiter.
fn cut_by_hapi(case: &Case<'_>, n: usize) -> bool {
    let (Some(theirs), Some(reply)) = (HapiReply::read(&case.opinion.hapi_reply), case.reply) else { return false };
    let delimiters = reply.msh.get(2);
    let first = reply.msh.get(n).split(|b| delimiters.contains(b)).next().unwrap_or_default();
    theirs.field(n) == shown(first)
}

/// The rules, most specific first; each names the section that decides.
pub const RULES: &[Rule] = &[
    Rule {
        section: "2b",
        why: "a batch, or several messages in a frame: the others parse one message only, the agent answers each",
        differences: &[
            D::PythonDoesNotParse,
            D::PythonId,
            D::HapiDoesNotParse,
            D::HapiId,
            D::HapiCode,
            D::HapiMessageType,
            D::HapiAddress,
            D::HapiProcessingId,
            D::HapiVersion,
            D::HapiDelimiters,
        ],
        holds: |c| c.facts.several,
    },
    Rule {
        section: "2 (safe default)",
        why: "what has MSH is stored and acknowledged even if its content is not understood; the others judge the content",
        differences: &[D::PythonDoesNotParse, D::HapiDoesNotParse],
        holds: |c| c.facts.has_header(),
    },
    Rule {
        section: "2",
        why: "MSH-15 and MSH-16 decide whether and how there is a reply; HAPI's generated acknowledgement ignores them",
        differences: &[D::HapiCode],
        holds: |c| !c.message.get(15).is_empty() || !c.message.get(16).is_empty(),
    },
    Rule {
        section: "2a, MSH-3 to MSH-6",
        why: "whole fields change places; HAPI copies the first component only",
        differences: &[D::HapiAddress],
        holds: |c| (3..=6).all(|n| cut_by_hapi(c, n)),
    },
    Rule {
        section: "2a, MSH-11",
        why: "copied whole; HAPI copies the first component only",
        differences: &[D::HapiProcessingId],
        holds: |c| cut_by_hapi(c, 11),
    },
    Rule {
        section: "2a, MSH-9",
        why: "ACK before 2.3.1, ACK and the trigger up to 2.4; HAPI writes the structure in every version",
        differences: &[D::HapiMessageType],
        holds: |c| matches!(&shown(c.message.get(12))[..], "2.1" | "2.2" | "2.3" | "2.3.1" | "2.4"),
    },
    Rule {
        section: "2a, MSH-9",
        why: "no trigger in the message, none in the reply; HAPI writes the structure behind an empty one",
        differences: &[D::HapiMessageType],
        holds: |c| c.message.component(9, 2).is_empty(),
    },
    Rule {
        section: "4 and 2a, MSH-1/2",
        why: "MSH-2 holds letters, digits, control characters or bytes beyond ASCII; HAPI cuts and escapes its own reply by them, the agent does not",
        differences: &[D::HapiMessageType, D::HapiAddress, D::HapiVersion],
        holds: |c| c.message.get(2).iter().any(|b| !b.is_ascii_punctuation()),
    },
];

/// Decoded as the tables were written: UTF-8 where it is, else 8859/1; and without blanks around it.
fn shown(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|b| char::from(*b)).collect(), str::to_owned);
    text.trim().to_owned()
}

/// Everything in which the opinions differ from what the agent did with one message.
pub fn differences(case: &Case<'_>) -> Vec<Difference> {
    let (message, opinion) = (case.message, case.opinion);
    let mut found = Vec::new();
    let mut differ = |is_so: bool, difference| found.extend(is_so.then_some(difference));
    differ(opinion.python != "ok", D::PythonDoesNotParse);
    let id = shown(message.get(10));
    differ(opinion.python == "ok" && opinion.python_id.trim() != id, D::PythonId);
    differ(opinion.hapi != "ok", D::HapiDoesNotParse);
    let hapi_id = if opinion.hapi_id == "null" { "" } else { opinion.hapi_id.trim() };
    differ(opinion.hapi == "ok" && hapi_id != id, D::HapiId);
    if opinion.hapi == "ok" {
        compare_replies(case, &mut differ);
    }
    found
}

fn compare_replies(case: &Case<'_>, differ: &mut impl FnMut(bool, Difference)) {
    let Some(theirs) = HapiReply::read(&case.opinion.hapi_reply) else {
        differ(true, D::HapiCode);
        return;
    };
    let Some(reply) = case.reply else {
        differ(true, D::HapiCode);
        return;
    };
    differ(theirs.code != reply.code, D::HapiCode);
    differ(theirs.separator.as_bytes() != reply.msh.separator, D::HapiDelimiters);
    let ours = |n: usize| shown(reply.msh.get(n));
    differ(theirs.field(9) != ours(9), D::HapiMessageType);
    differ((3..=6).any(|n| theirs.field(n) != ours(n)), D::HapiAddress);
    differ(theirs.field(11) != ours(11), D::HapiProcessingId);
    differ(theirs.field(12) != ours(12), D::HapiVersion);
}

/// HAPI's reply as the table has it.
struct HapiReply {
    separator: String,
    fields: Vec<String>,
    code: String,
}

impl HapiReply {
    fn read(text: &str) -> Option<Self> {
        let separator = text.strip_prefix("MSH")?.chars().next()?.to_string();
        let msa = text.rfind(&format!("~MSA{separator}"))?;
        let mut fields = vec![String::new(), separator.clone()];
        fields.extend(text[3 + separator.len()..msa].split(separator.as_str()).map(str::to_owned));
        let code = text[msa + 4 + separator.len()..].split(['~', separator.chars().next()?]).next()?.to_owned();
        Some(Self { separator, fields, code })
    }

    fn field(&self, n: usize) -> String {
        self.fields.get(n).map_or(String::new(), |field| field.trim().to_owned())
    }
}

/// How often which rule explained what; and what none did.
#[derive(Debug, Default)]
pub struct Tally {
    pub explained: BTreeMap<(&'static str, &'static str, Difference), u64>,
    pub unexplained: Vec<(String, Difference)>,
}

impl Tally {
    pub fn judge(&mut self, case: &Case<'_>) {
        for difference in differences(case) {
            match RULES.iter().find(|rule| rule.differences.contains(&difference) && (rule.holds)(case)) {
                Some(rule) => *self.explained.entry((rule.section, rule.why, difference)).or_default() += 1,
                None => self.unexplained.push((case.facts.file.clone(), difference)),
            }
        }
    }
}
