//! A plan from what was asked for: which gateways, which document for each, and everything that speaks against it before anything is published. Pure.
//!
//! Sites come from the name (`site/gateway`), from `--site`, from what gateways report, or from a list of those that there should be; groups from the
//! reports. What is not reported is not guessed: a gateway of which nothing is known can be named by site, or stand in the list, and is then pending
//! until it shows itself. Of those in the list only such count as members of a group as a document names: of which groups they are nobody has said.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::heard::About;
use super::plan::{Plan, Target, Threshold, Window, waves, zone};
use crate::clock;
use crate::config::document::{self, Document};
use crate::config::envelope::{self, DOCUMENT_TYPE};
use crate::config::header::{SCHEMA_VERSION, Selector, Version};
use crate::hub::reports::{GatewayKey, Known, Reports};
use crate::limits::ROLLOUT_GATEWAYS_MAX;
use crate::record::{DocumentDigest, Name};

/// A signed document from a file.
#[derive(Clone, Debug)]
pub struct Signed {
    pub file: String,
    pub bytes: Vec<u8>,
    pub document: Document,
    /// Ids of the keys that signed.
    pub signers: Vec<String>,
}

impl Signed {
    /// Reads an envelope. Signatures are not verified here: whose count is for the gateway to say.
    pub fn read(file: &str, bytes: Vec<u8>) -> Result<Self, String> {
        let told = |refusal: crate::config::refusal::Refusal| format!("{file}: {refusal}");
        let read = envelope::read(&bytes).map_err(told)?;
        if read.payload_type != DOCUMENT_TYPE {
            return Err(format!("{file}: holds no configuration document; sign one with `siteward-hub config sign`"));
        }
        let signers = read.signatures.iter().map(|signature| signature.key_id.clone()).collect();
        let document = document::read_unsigned(read.payload).map_err(told)?;
        Ok(Self { file: file.to_owned(), bytes, document, signers })
    }

    fn digest(&self) -> DocumentDigest {
        DocumentDigest(self.document.digest)
    }

    /// The one gateway that it is for, where it names one.
    fn names(&self) -> Option<&Name> {
        match &self.document.header.selector {
            Selector::Gateway(gateway) => Some(gateway),
            Selector::Groups(_) => None,
        }
    }
}

/// Who is to get a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// `gateway` or `site/gateway`.
    Gateways(Vec<String>),
    /// Every gateway that reports this label.
    Group(Name),
    /// Every gateway that a document names.
    Named,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub whom: Whom,
    /// Of gateways that are named without one.
    pub site: Option<Name>,
    /// Gateways that there should be: those of which the broker has nothing are meant too, where a document names them.
    pub expected: Vec<GatewayKey>,
    pub waves: String,
    pub soak_s: Vec<u64>,
    pub window: Option<Window>,
    pub threshold: Threshold,
    pub grace_s: u64,
}

/// A plan, and the document of each target.
#[derive(Debug)]
pub struct Planned<'d> {
    pub plan: Plan,
    pub documents: Vec<&'d Signed>,
}

/// Makes the plan. The errors are sentences, all of them.
pub fn plan<'d>(
    wish: &Wish,
    signed: &'d [Signed],
    reports: &Reports,
    contents: &BTreeMap<(GatewayKey, u64), DocumentDigest>,
    now_ms: i64,
) -> Result<Planned<'d>, Vec<String>> {
    let mut faults = Vec::new();
    let keys = chosen(wish, signed, reports, &mut faults);
    let mut found: Vec<(Target, &Signed)> = Vec::new();
    let nothing = Known::default();
    for key in keys {
        let known = reports.get(&key).unwrap_or(&nothing);
        let Some(document) = document_for(wish, &key, signed, known, &mut faults) else { continue };
        let name = format!("{}/{}", key.0, key.1);
        let against = objections(wish, document, known, now_ms).into_iter().map(|why| format!("{name}: {why}"));
        let before = faults.len();
        faults.extend(against);
        let header = &document.document.header;
        if contents.get(&(key.clone(), header.revision)).is_some_and(|digest| *digest != document.digest()) {
            faults.push(format!(
                "{name}: revision {} was planned from here before with another content; give the document a higher revision",
                header.revision
            ));
        }
        if faults.len() == before {
            let zone = known.reported.as_ref().and_then(|reported| reported.timezone.clone());
            let envelope = DocumentDigest::of(&document.bytes);
            let (trial_s, revision, digest) = (header.trial.as_secs(), header.revision, document.digest());
            found.push((Target { site: key.0, gateway: key.1, revision, digest, envelope, trial_s, zone }, document));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let is_online = |target: &Target| {
        let known = reports.get(&(target.site.clone(), target.gateway.clone()));
        known.and_then(|known| known.presence.as_ref()).is_some_and(|presence| presence.online)
    };
    found.sort_by_key(|(target, _)| !is_online(target)); // stable
    let ends = waves(&wish.waves, found.len()).map_err(|why| vec![why])?;
    let (targets, documents): (Vec<Target>, Vec<&Signed>) = found.into_iter().unzip();
    let id = clock::rfc3339(now_ms).replace([':', '-'], "").replace('.', "-").trim_end_matches('Z').to_owned();
    let Wish { soak_s, window, threshold, grace_s, .. } = wish.clone();
    Ok(Planned { plan: Plan { id, targets, waves: ends, soak_s, window, threshold, grace_s }, documents })
}

/// The gateways that are meant, each once, in the order in which they were named.
pub fn chosen(wish: &Wish, signed: &[Signed], reports: &Reports, faults: &mut Vec<String>) -> Vec<GatewayKey> {
    let mut keys: Vec<GatewayKey> = Vec::new();
    match &wish.whom {
        Whom::Group(group) => {
            let has = |known: &Known| known.reported.as_ref().is_some_and(|reported| reported.groups.contains(group));
            keys.extend(reports.iter().filter(|(_, known)| has(known)).map(|(key, _)| key.clone()));
            keys.extend(silent(wish, signed, reports).cloned());
            if keys.is_empty() {
                faults.push(format!("no gateway reports the group {group}; is it in [gateway] groups of their local files, and has each reported to this broker?"));
            }
        }
        Whom::Gateways(names) => keys.extend(names.iter().filter_map(|name| key_of(name, wish, reports, faults))),
        Whom::Named => {
            let names: BTreeSet<&Name> = signed.iter().filter_map(Signed::names).collect();
            if names.is_empty() {
                faults.push("the documents name groups and no gateway; say --group or --gateways".to_owned());
            }
            keys.extend(names.iter().filter_map(|name| key_of(name.as_str(), wish, reports, faults)));
        }
    }
    let mut once = BTreeSet::new();
    keys.retain(|key| once.insert(key.clone()));
    if keys.len() > ROLLOUT_GATEWAYS_MAX {
        faults.push(format!("{} gateways are more than {ROLLOUT_GATEWAYS_MAX}; make several rollouts", keys.len()));
        keys.clear();
    }
    keys
}

/// Gateways of the list that have not reported, and that a document names.
fn silent<'w>(wish: &'w Wish, signed: &[Signed], reports: &Reports) -> impl Iterator<Item = &'w GatewayKey> {
    let named: BTreeSet<Name> = signed.iter().filter_map(|signed| signed.names().cloned()).collect();
    let has_reported = |key: &GatewayKey| reports.get(key).is_some_and(|known| known.reported.is_some());
    wish.expected.iter().filter(move |key| !has_reported(key) && named.contains(&key.1)).collect::<Vec<_>>().into_iter()
}

/// `gateway`, `site/gateway`.
fn key_of(text: &str, wish: &Wish, reports: &Reports, faults: &mut Vec<String>) -> Option<GatewayKey> {
    let (given, gateway) = match text.split_once('/') {
        Some((site, gateway)) => (Some(site), gateway),
        None => (None, text),
    };
    let Ok(gateway) = Name::new(gateway) else {
        faults.push(format!("{text:?} is not the name of a gateway; write GATEWAY or SITE/GATEWAY"));
        return None;
    };
    match given.map(Name::new) {
        Some(Ok(site)) => return Some((site, gateway)),
        Some(Err(_)) => {
            faults.push(format!("{text:?} does not begin with the name of a site"));
            return None;
        }
        None => {}
    }
    if let Some(site) = &wish.site {
        return Some((site.clone(), gateway));
    }
    let all = reports.keys().chain(&wish.expected);
    let sites: BTreeSet<&Name> = all.filter(|(_, name)| *name == gateway).map(|(site, _)| site).collect();
    match sites.into_iter().collect::<Vec<_>>().as_slice() {
        [site] => return Some(((*site).clone(), gateway)),
        [] => faults
            .push(format!("{gateway}: the broker has nothing of a gateway of this name, so its site is not known; write SITE/{gateway}, or give a list with --expect")),
        _ => faults.push(format!("{gateway}: gateways of this name report from several sites; write SITE/{gateway}")),
    }
    None
}

/// The one document that is for a gateway: by its name first, then by its groups.
fn document_for<'d>(wish: &Wish, key: &GatewayKey, signed: &'d [Signed], known: &Known, faults: &mut Vec<String>) -> Option<&'d Signed> {
    let groups = known.reported.as_ref().map(|reported| reported.groups.as_slice()).unwrap_or_default();
    let is_in = |group: &Name| groups.contains(group) || wish.whom == Whom::Group(group.clone());
    let by_name = signed.iter().filter(|s| matches!(&s.document.header.selector, Selector::Gateway(gateway) if *gateway == key.1));
    let by_group = signed.iter().filter(|s| matches!(&s.document.header.selector, Selector::Groups(names) if names.iter().any(is_in)));
    let found: Vec<&Signed> = by_name.collect();
    let found: Vec<&Signed> = if found.is_empty() { by_group.collect() } else { found };
    let name = format!("{}/{}", key.0, key.1);
    match found.as_slice() {
        [one] => return Some(one),
        [] if known.reported.is_none() => {
            faults.push(format!("{name}: no document names it, and of which groups it is has not been reported"));
        }
        [] => faults.push(format!("{name}: no document is for it; it reports the groups {}", list(groups))),
        several => {
            let files: Vec<&str> = several.iter().map(|s| s.file.as_str()).collect();
            faults.push(format!("{name}: several documents are for it: {}; leave one", files.join(", ")));
        }
    }
    None
}

fn list(names: &[Name]) -> String {
    if names.is_empty() { "(none)".to_owned() } else { names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ") }
}

/// Why the gateway would refuse it, as far as its own report says.
pub fn refusals(document: &Document, signers: Option<&[String]>, known: &Known, now_ms: i64) -> Vec<String> {
    let header = &document.header;
    let mut faults = Vec::new();
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    if let Some(expires) = header.expires.filter(|at| now >= *at) {
        faults.push(format!("document.expires: was {expires}"));
    }
    if let Some(not_before) = header.not_before.filter(|at| now < *at) {
        faults.push(format!("document.not_before: is {not_before}, which is still to come"));
    }
    let Some(reported) = &known.reported else { return faults };
    let digest = DocumentDigest(document.digest);
    if let Some((need, have)) = header.min_agent_version.zip(Version::parse(&reported.version)).filter(|(need, have)| need > have) {
        faults.push(format!("document.min_agent_version: asks for {need}, the gateway reports {have}; update it first"));
    }
    if reported.document_schema.is_some_and(|schema| schema < SCHEMA_VERSION) {
        faults.push(format!("document.schema_version: the gateway reads an older one than {SCHEMA_VERSION}; update it first"));
    }
    if let Selector::Groups(groups) = &header.selector
        && !groups.iter().any(|group| reported.groups.contains(group))
    {
        faults.push(format!("document.groups: the gateway reports the groups {}", list(&reported.groups)));
    }
    let running = &reported.running;
    if running.revision > header.revision {
        faults.push(format!("document.revision: is {}, the gateway runs {}; give it a higher one", header.revision, running.revision));
    } else if running.revision == header.revision && running.digest != Some(digest) {
        faults.push(format!("document.revision: the gateway runs another document of revision {}; give it a higher one", header.revision));
    }
    if let About::Not { code, reason } = reported.about(header.revision, digest) {
        faults.push(format!("revision {} was tried there and not kept ({code}: {reason}); give it a higher revision", header.revision));
    }
    if let (Some(trust), Some(signers)) = (&reported.trust, signers) {
        let by = |keys: &[String]| keys.iter().filter(|key| signers.contains(key)).count();
        if by(&trust.keys) < trust.threshold && by(&trust.recovery_keys) == 0 {
            let (have, need) = (by(&trust.keys), trust.threshold);
            faults.push(format!("{have} of the {need} signatures it asks for are by keys that it reports to trust; sign with those"));
        }
    }
    faults
}

fn objections(wish: &Wish, signed: &Signed, known: &Known, now_ms: i64) -> Vec<String> {
    let mut faults = refusals(&signed.document, Some(&signed.signers), known, now_ms);
    let timezone = known.reported.as_ref().and_then(|reported| reported.timezone.as_deref());
    if wish.window.is_some() && timezone.and_then(zone).is_none() {
        faults.push("its time zone has not been reported, so --window means nothing there; leave the gateway out, or --window".to_owned());
    }
    faults
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
