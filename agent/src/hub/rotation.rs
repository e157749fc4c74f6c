//! Other signing keys for the desk: the `[bootstrap]` section that puts them in place of the old ones, checked so that nobody locks himself out. Pure but
//! for the files of public keys.
//!
//! ```text
//!   1  recovery keys sign a document with the old keys and the new one   ──► rollout ──► every gateway reports both ids
//!   2  the new key signs a document with that section word for word      ──► rollout ──► it is proven that it can
//!   3  recovery keys sign a document without the old key                 ──► rollout ──► every gateway reports the new ids only
//! ```
//!
//! Anchors change by a document of the recovery keys only (`config/bootstrap.rs`), so a new key never comes in on the word of a single old one. What the
//! section already said of endpoints is taken along: a document says all of what holds.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::config::lint_text;
use super::waves::start::Signed;
use crate::config::trust::Anchor;
use crate::limits::{TLS_FILE_BYTES_MAX, TRUST_KEYS_MAX};

/// What is to change.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Public keys that gateways trust now; those of `document` where that has some.
    pub old: Vec<PathBuf>,
    pub add: Vec<PathBuf>,
    pub remove: Vec<PathBuf>,
    pub threshold: Option<usize>,
    /// Public keys for recovery, which must stay apart.
    pub recovery: Vec<PathBuf>,
    /// The document that runs, whose `[bootstrap]` is taken along.
    pub document: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// `[bootstrap]`, to be put into the next document.
    pub section: String,
    pub old: Vec<String>,
    pub new: Vec<String>,
    pub threshold: usize,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Public {
    id: String,
    pem: String,
}

fn public(pem: &str, what: &str) -> Result<Public, String> {
    let anchor = Anchor::from_pem(pem.as_bytes()).map_err(|why| format!("{what}: {why}"))?;
    Ok(Public { id: anchor.id().to_owned(), pem: format!("{}\n", pem.trim()) })
}

fn load(files: &[PathBuf]) -> Result<Vec<Public>, String> {
    let mut keys: Vec<Public> = Vec::with_capacity(files.len());
    for file in files {
        let told = |error: std::io::Error| format!("{}: cannot be read: {error}", file.display());
        if std::fs::metadata(file).map_err(told)?.len() > TLS_FILE_BYTES_MAX {
            return Err(format!("{}: is no public key", file.display()));
        }
        let key = public(&std::fs::read_to_string(file).map_err(told)?, &file.display().to_string())?;
        if keys.iter().any(|known| known.id == key.id) {
            return Err(format!("{}: is given twice", file.display()));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// `[bootstrap]` of a document, signed or not.
fn bootstrap_of(file: &Path) -> Result<Table, String> {
    let bytes = super::config::read(file)?;
    let text = if bytes.first() == Some(&b'{') {
        Signed::read(&file.display().to_string(), bytes)?.document.text
    } else {
        String::from_utf8(bytes).map_err(|_| format!("{}: is not UTF-8 text", file.display()))?
    };
    let tree: Table =
        toml::from_str(&text).map_err(|_| format!("{}: is not TOML; look at it with `siteward-hub config lint`", file.display()))?;
    Ok(tree.get("bootstrap").and_then(Value::as_table).cloned().unwrap_or_default())
}

/// See the module. The error is a sentence.
pub fn rotate(wish: &Rotation) -> Result<Rotated, String> {
    let mut section = wish.document.as_deref().map(bootstrap_of).transpose()?.unwrap_or_default();
    let carried: Vec<&str> = section.get("keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let old = match (carried.is_empty(), wish.old.is_empty()) {
        (true, true) => {
            return Err(
                "which keys gateways trust now is not said; give each with --old, or the document that runs with --document".to_owned()
            );
        }
        (true, false) => load(&wish.old)?,
        (false, true) => carried.iter().map(|pem| public(pem, "[bootstrap] keys of the document")).collect::<Result<_, _>>()?,
        (false, false) => return Err("the document says which keys gateways trust now; leave --old out".to_owned()),
    };
    let (add, remove, recovery) = (load(&wish.add)?, load(&wish.remove)?, load(&wish.recovery)?);
    let is_in = |keys: &[Public], id: &str| keys.iter().any(|key| key.id == id);
    if let Some(twice) = add.iter().find(|key| is_in(&old, &key.id)) {
        return Err(format!("--add: {} is trusted already", twice.id));
    }
    if let Some(stranger) = remove.iter().find(|key| !is_in(&old, &key.id)) {
        return Err(format!("--remove: {} is not among those that are trusted now", stranger.id));
    }
    if add.is_empty() && remove.is_empty() && wish.threshold.is_none() {
        return Err("nothing changes; give --add, --remove or --threshold".to_owned());
    }
    let new: Vec<Public> = old.iter().filter(|key| !is_in(&remove, &key.id)).chain(&add).cloned().collect();
    if let Some(shared) = new.iter().find(|key| is_in(&recovery, &key.id)) {
        return Err(format!("{} is a recovery key; keep them apart from daily work", shared.id));
    }
    let before = section.get("threshold").and_then(Value::as_integer).and_then(|n| usize::try_from(n).ok());
    let threshold = wish.threshold.or(before).unwrap_or(1);
    if new.is_empty() || new.len() > TRUST_KEYS_MAX {
        return Err(format!("{} keys would be left; a gateway trusts 1 to {TRUST_KEYS_MAX}", new.len()));
    }
    if threshold == 0 || threshold > new.len() {
        return Err(format!(
            "{threshold} signatures of {} keys can never be had: no document would be taken any more; add a key, or change --threshold",
            new.len()
        ));
    }
    section.insert("keys".to_owned(), Value::Array(new.iter().map(|key| Value::String(key.pem.clone())).collect()));
    section.insert("threshold".to_owned(), Value::Integer(i64::try_from(threshold).expect("at most 16")));
    let text = toml::to_string_pretty(&[("bootstrap".to_owned(), Value::Table(section))].into_iter().collect::<Table>())
        .map_err(|error| error.to_string())?;
    // What a gateway would say of it.
    let head = "[document]\nschema_version = 1\nrevision = 1\ngateway = \"any\"\nauthor = \"a\"\nreason = \"r\"\n";
    lint_text("bootstrap.toml".as_ref(), format!("{head}{text}").into_bytes(), None)?;
    let ids = |keys: &[Public]| keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
    Ok(Rotated { section: text, old: ids(&old), new: ids(&new), threshold, warnings: warnings(&old, &new, &add, &remove, threshold) })
}

fn warnings(old: &[Public], new: &[Public], add: &[Public], remove: &[Public], threshold: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if !add.is_empty() && !remove.is_empty() {
        warnings.push(
            "a key is added and one is removed in one step: should the new one not sign, only the recovery keys can mend it; add first, remove later".to_owned(),
        );
    }
    if old.iter().all(|key| !new.iter().any(|other| other.id == key.id)) {
        warnings.push("none of the old keys stays; documents signed by them are refused as soon as this one is proven".to_owned());
    }
    if threshold == new.len() && threshold > 1 {
        warnings
            .push(format!("all {threshold} keys have to sign: one that is lost stops every change until the recovery keys are fetched"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::trust::to_pem;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn keys(directory: &Path, count: u8) -> Vec<PathBuf> {
        (0..count)
            .map(|n| {
                let pair = Ed25519KeyPair::from_seed_unchecked(&[n + 1; 32]).unwrap();
                let file = directory.join(format!("{n}.pub"));
                std::fs::write(&file, to_pem(&pair.public_key().as_ref().try_into().unwrap())).unwrap();
                file
            })
            .collect()
    }

    #[test]
    fn a_key_is_added_then_the_old_one_removed_and_endpoints_are_taken_along() {
        let directory = tempfile::tempdir().unwrap();
        let k = keys(directory.path(), 3);
        let first =
            rotate(&Rotation { old: vec![k[0].clone()], add: vec![k[1].clone()], recovery: vec![k[2].clone()], ..Rotation::default() })
                .unwrap();
        assert_eq!((first.old.len(), first.new.len(), first.threshold), (1, 2, 1));
        assert_eq!((first.new[0].clone(), first.warnings.len()), (first.old[0].clone(), 0));
        let document = directory.path().join("running.toml");
        let section = first.section.replace("[bootstrap]", "[bootstrap]\nendpoints = [\"mqtts://hub2.example.org\"]");
        std::fs::write(&document, format!("[document]\nrevision = 7\n{section}")).unwrap();
        let second = rotate(&Rotation { remove: vec![k[0].clone()], document: Some(document), ..Rotation::default() }).unwrap();
        assert_eq!((second.old.clone(), second.new.clone()), (first.new.clone(), vec![first.new[1].clone()]));
        assert!(second.section.contains("hub2.example.org"), "{}", second.section);
    }

    #[test]
    fn nobody_locks_himself_out() {
        let directory = tempfile::tempdir().unwrap();
        let k = keys(directory.path(), 3);
        let wish = || Rotation { old: vec![k[0].clone(), k[1].clone()], ..Rotation::default() };
        let refused = |wish: Rotation| rotate(&wish).unwrap_err();
        assert!(refused(wish()).contains("nothing changes"));
        assert!(refused(Rotation { threshold: Some(3), ..wish() }).contains("can never be had"));
        assert!(refused(Rotation { remove: vec![k[0].clone()], threshold: Some(2), ..wish() }).contains("can never be had"));
        assert!(refused(Rotation { remove: vec![k[0].clone(), k[1].clone()], ..wish() }).contains("0 keys would be left"));
        assert!(refused(Rotation { add: vec![k[0].clone()], ..wish() }).contains("trusted already"));
        assert!(refused(Rotation { remove: vec![k[2].clone()], ..wish() }).contains("not among those"));
        assert!(refused(Rotation { add: vec![k[2].clone()], recovery: vec![k[2].clone()], ..wish() }).contains("recovery key"));
        assert!(refused(Rotation { old: vec![k[0].clone(), k[0].clone()], ..wish() }).contains("given twice"));
        let swapped =
            rotate(&Rotation { old: vec![k[0].clone()], add: vec![k[1].clone()], remove: vec![k[0].clone()], ..Rotation::default() })
                .unwrap();
        assert!(swapped.warnings.len() == 2 && swapped.warnings[0].contains("add first"), "{:?}", swapped.warnings);
        let all = rotate(&Rotation { threshold: Some(2), ..wish() }).unwrap();
        assert!(all.warnings[0].contains("all 2 keys have to sign"));
    }
}
