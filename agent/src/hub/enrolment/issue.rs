//! A bundle is made: checked as the box will check it, recorded, signed.
//!
//! Order: the record of the new bundle, then those it takes the place of, then the file. A crash in between leaves a bundle that nobody has: making
//! it again withdraws it.

use std::path::Path;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::authority::{self, Authority, Wanted};
use super::state::{Held, Record, Retired, operator};
use crate::clock;
use crate::config;
use crate::config::envelope;
use crate::config::trust::Anchor;
use crate::enrolment::bundle::{self, BUNDLE_TYPE, Bundle, SCHEMA, Trust, hex};
use crate::enrolment::place;
use crate::enrolment::proof::Verifier;
use crate::hub::keys::Signer;
use crate::limits::{BUNDLE_BYTES_MAX, SUBJECT_CHARS_MAX};
use crate::record::Name;
use crate::uplink::csr;

/// What a bundle is to say.
#[derive(Clone, Debug)]
pub struct Wish {
    pub site: Name,
    pub gateway: Name,
    pub timezone: String,
    pub groups: Vec<Name>,
    pub endpoints: Vec<String>,
    /// The site's way out, `http://host:port`, and the name of the secret for it.
    pub proxy: Option<String>,
    pub proxy_credential: Option<String>,
    /// Who issued the broker's certificate.
    pub ca_pem: String,
    pub trust: Trust,
    pub days: u32,
    /// Takes the place of a box that has this name.
    pub replace: bool,
    /// Another authority issues the gateway's certificate; its own certificate, where it is known.
    pub outside: Option<Option<String>>,
}

/// A bundle, and what it changed.
#[derive(Debug)]
pub struct Made {
    pub record: Record,
    pub envelope: String,
    /// Boxes that are retired by it.
    pub replaced: Vec<Record>,
    /// Bundles that nobody had used.
    pub withdrawn: Vec<Record>,
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(bytes)
}

/// The name of a gateway's certificates: readable, and unique by the id of the bundle.
fn subject(site: &Name, gateway: &Name, id: &str) -> String {
    let readable: String = format!("{site}.{gateway}").chars().take(SUBJECT_CHARS_MAX - 9).collect();
    format!("{readable}.{}", &id[..8])
}

/// Makes a bundle and records it; writing the file is the caller's.
pub fn make(held: &Held<'_>, authority: &Authority, wish: &Wish, signers: &[Signer]) -> Result<Made, String> {
    let now = clock::now();
    if now.suspect {
        return Err("the clock of this machine cannot be right; set it first, since a bundle has an end".to_owned());
    }
    let now = now.unix_ms / 1000;
    are_enough(signers, &wish.trust)?;
    let records = held.state().records()?;
    if let Some(other) = records.iter().find(|r| r.is_admitted() && r.gateway == wish.gateway && r.site != wish.site) {
        return Err(format!(
            "gateway {} is at site {} already; ids of gateways are unique, choose another or retire that one first",
            wish.gateway, other.site
        ));
    }
    let (used, unused): (Vec<_>, Vec<_>) =
        records.into_iter().filter(|r| r.is_admitted() && r.gateway == wish.gateway).partition(|r| r.used.is_some());
    if let (false, Some(other)) = (wish.replace, used.last()) {
        return Err(format!(
            "gateway {} at {} is enrolled (certificate {}); say --replace if another box takes its place",
            wish.gateway, wish.site, other.subject
        ));
    }
    let (bundle, mut record) = draft(authority, held, wish, now)?;
    record.replaces = used.last().map(|old| old.bundle.clone());
    let bundle = Bundle { replaces: record.replaces.clone(), ..bundle };
    is_usable(&bundle)?;
    let envelope = sign(&bundle, signers)?;
    held.save(&record)?;
    let why = |old: &Record| {
        let what = if old.used.is_some() { "replaced by" } else { "made anew as" };
        Retired { at: now, by: operator(), why: format!("{what} {}", record.subject) }
    };
    let retire = |mut old: Record| {
        old.retired = Some(why(&old));
        held.save(&old).map(|()| old)
    };
    let replaced = used.into_iter().map(retire).collect::<Result<_, _>>()?;
    let withdrawn = unused.into_iter().map(retire).collect::<Result<_, _>>()?;
    Ok(Made { record, envelope, replaced, withdrawn })
}

/// The keys that sign are among those the bundle lists, and enough of them.
fn are_enough(signers: &[Signer], trust: &Trust) -> Result<(), String> {
    let read = |pem: &String| Anchor::from_pem(pem.as_bytes()).map_err(|why| format!("a key of --trust {why}"));
    let anchors: Vec<Anchor> = trust.keys.iter().map(read).collect::<Result<_, _>>()?;
    for signer in signers {
        if !anchors.iter().any(|anchor| anchor.id() == signer.id()) {
            return Err(format!("key {} signs and is not among those of --trust; the box would not believe it", signer.id()));
        }
    }
    let mut ids: Vec<&str> = signers.iter().map(Signer::id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < trust.threshold.max(1) {
        return Err(format!("{} of the keys have to sign, and {} do; give --sign-with for each", trust.threshold, ids.len()));
    }
    Ok(())
}

fn draft(authority: &Authority, held: &Held<'_>, wish: &Wish, now: i64) -> Result<(Bundle, Record), String> {
    let (id, secret) = (hex(&random::<16>()?), random::<32>()?);
    let not_after = now + i64::from(wish.days) * 24 * 3600;
    let (subject, enrolment_subject) = (subject(&wish.site, &wish.gateway, &id), format!("enrol.{}", &id[..16]));
    let key = csr::key().map_err(|error| error.to_string())?;
    let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "a key was made that cannot be read; please report this")?;
    let public_key = csr::public_key(parsed.secret_der()).map_err(|error| error.to_string())?;
    let wanted = Wanted { subject: &enrolment_subject, public_key: &public_key, until: not_after };
    let (enrolment_cert_pem, enrolment) = authority.issue(wanted)?;
    let issuer_pem = match &wish.outside {
        Some(issuer) => issuer.clone(),
        None => Some(authority::certificate(held.state())?),
    };
    let record = Record {
        schema: 1,
        bundle: id.clone(),
        site: wish.site.clone(),
        gateway: wish.gateway.clone(),
        subject: subject.clone(),
        enrolment_subject,
        enrolment_serial: enrolment.serial.unwrap_or_default(),
        verifier: Verifier::of(&secret),
        issued_at: now,
        not_after,
        by: operator(),
        outside: wish.outside.is_some(),
        replaces: None,
        used: None,
        csr: None,
        certificates: Vec::new(),
        retired: None,
    };
    let bundle = Bundle {
        schema: SCHEMA,
        bundle: id,
        site: wish.site.clone(),
        gateway: wish.gateway.clone(),
        timezone: wish.timezone.clone(),
        groups: wish.groups.clone(),
        endpoints: wish.endpoints.clone(),
        proxy: wish.proxy.clone(),
        proxy_credential: wish.proxy_credential.clone(),
        ca_pem: wish.ca_pem.clone(),
        trust: wish.trust.clone(),
        subject,
        issuer_pem,
        secret: hex(&secret),
        enrolment_cert_pem,
        enrolment_key_pem: key.to_string(),
        issued_at: now,
        not_after,
        replaces: None,
    };
    Ok((bundle, record))
}

/// As the box will see it: what it would write is validated here, where somebody can mend it.
fn is_usable(bundle: &Bundle) -> Result<(), String> {
    bundle.check().map_err(|why| format!("the bundle could not be used: {why}"))?;
    let authorities = config::files::authorities_of(bundle.ca_pem.as_bytes());
    authorities.map_err(|why| format!("--ca {why}"))?;
    let (directory, spool) = (Path::new("/etc/siteward/enrolled"), Path::new("/var/lib/siteward"));
    let text = place::configuration(bundle, "", directory, spool, place::Way::of(bundle).as_ref(), None);
    let faults = config::parse_text(Path::new("siteward.toml"), &text).err();
    faults.map_or(Ok(()), |faults| Err(format!("the gateway could not use what the bundle says:\n{faults}")))
}

fn sign(bundle: &Bundle, signers: &[Signer]) -> Result<String, String> {
    let payload = serde_json::to_vec(bundle).expect("plain values");
    let message = envelope::pae(BUNDLE_TYPE, &payload);
    let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(&message)).collect();
    let text = envelope::write(BUNDLE_TYPE, &payload, &signatures);
    if text.len() > BUNDLE_BYTES_MAX {
        return Err(format!("the bundle has more than {BUNDLE_BYTES_MAX} bytes; give fewer keys or a smaller --ca"));
    }
    bundle::open(text.as_bytes()).map_err(|why| format!("the bundle {why}"))?;
    Ok(text)
}

/// Retires every box and bundle of a gateway: the broker's files, made anew, admit them no more.
pub fn retire(held: &Held<'_>, site: &Name, gateway: &Name, why: &str) -> Result<Vec<Record>, String> {
    let now = clock::now().unix_ms / 1000;
    let mut retired = Vec::new();
    for mut record in held.state().records()? {
        if record.is_admitted() && (&record.site, &record.gateway) == (site, gateway) {
            record.retired = Some(Retired { at: now, by: operator(), why: why.to_owned() });
            held.save(&record)?;
            retired.push(record);
        }
    }
    if retired.is_empty() {
        return Err(format!("no gateway {gateway} at {site} is enrolled here; see `siteward-hub enroll list`"));
    }
    Ok(retired)
}
