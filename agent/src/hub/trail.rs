//! The audit trail as it comes in: whether each record continues the one before it. One small entry per gateway, from memory only: after a restart
//! of the receiver the next record is taken as it is, and `siteward-hub audit verify` says the rest from what was written.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::audit::chain::{Fault, read};
use crate::limits::TRAIL_GATEWAYS_MAX;
use crate::record::{Digest, Incarnation, Name};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Trail {
    newest: BTreeMap<(Name, Name), (Incarnation, u64, Digest)>,
}

impl Trail {
    /// What is wrong with a record, in words.
    pub fn follow(&mut self, site: &Name, gateway: &Name, record: &Value) -> Option<String> {
        let audit = match read(record) {
            Ok(audit) => audit,
            // Of a version without a chain.
            Err(Fault::NoRecord) if record.get("digest").is_none() => return None,
            Err(Fault::NoRecord) => return Some("it is no audit record of this contract".to_owned()),
            Err(Fault::Altered) => return Some("its digest is not that of what it says".to_owned()),
        };
        if audit.gateway != *gateway {
            return Some(format!("it is of gateway {}, and came as one of {gateway}", audit.gateway));
        }
        let key = (site.clone(), gateway.clone());
        let now = (audit.chain, audit.n, audit.digest);
        let known = self.newest.get(&key).copied();
        if known.is_some() || self.newest.len() < TRAIL_GATEWAYS_MAX {
            match known {
                Some((chain, n, _)) if chain == audit.chain && n > audit.n => {} // again, after a restart
                _ => drop(self.newest.insert(key, now)),
            }
        }
        let (chain, n, digest) = known?;
        match () {
            () if chain != audit.chain => Some(format!("a new log begins with record {}; the one before ended at {n}", audit.n)),
            () if audit.n == n && audit.digest != digest => Some(format!("there is another record {n} of this log")),
            () if audit.n == n + 1 && audit.prev != digest => Some(format!("it does not continue record {n}")),
            () if audit.n > n + 1 => Some(format!("records {} to {} before it have not come", n + 1, audit.n - 1)),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{Draft, genesis, seal};
    use crate::contract::AuditStage;

    #[test]
    fn each_record_is_held_against_the_one_before_it() {
        let (site, gateway) = (Name::new("s").unwrap(), Name::new("gw1").unwrap());
        let chain = Incarnation([7; 16]);
        let record = |n, prev, reason: &str| {
            let (line, digest) = seal(&gateway, chain, n, prev, Draft::new(AuditStage::Fact, "kim", "x", "", reason));
            (serde_json::from_str::<Value>(&line).unwrap(), digest)
        };
        let (one, first) = record(1, genesis(&gateway, chain), "a");
        let (two, second) = record(2, first, "b");
        let (four, _) = record(4, second, "d");
        let mut trail = Trail::default();
        let mut follow = |record: &Value| trail.follow(&site, &gateway, record);
        assert_eq!([&one, &two, &one, &two].map(&mut follow), [None, None, None, None]);
        assert!(follow(&record(2, first, "other").0).unwrap().contains("another record 2"));
        assert_eq!(follow(&two), Some("there is another record 2 of this log".into()), "the newest that came is what counts");
        assert!(follow(&record(3, first, "c").0).unwrap().contains("does not continue"));
        assert!(follow(&record(9, first, "c").0).unwrap().contains("4 to 8"));
        let mut changed = four;
        changed["who"] = "nobody".into();
        assert!(follow(&changed).unwrap().contains("digest"));
        assert_eq!(follow(&serde_json::json!({ "who": "kim" })), None);
    }
}
