//! The feed's `strict` edits: which messages an interface was agreed to carry. Off by default; a list that is empty is not looked at.

use super::fault::Fault;
use crate::config::settings::{StrictSettings, StrictType};
use crate::source::msh::Header;

/// The first edit that the header fails, in the order type, event, version, processing id.
pub(super) fn fault_of(header: &Header<'_>, strict: &StrictSettings) -> Option<Fault> {
    let value = |field, component| header.component(field, component).trim_ascii();
    let (code, trigger) = (value(9, 1), value(9, 2));
    if !strict.types.is_empty() {
        let mut same_code = strict.types.iter().filter(|t| t.code.as_bytes() == code).peekable();
        if same_code.peek().is_none() {
            return Some(Fault::UnsupportedType);
        }
        let is_taken = |t: &StrictType| t.trigger.as_ref().is_none_or(|wanted| wanted.as_bytes() == trigger);
        if !same_code.any(is_taken) {
            return Some(Fault::UnsupportedEvent);
        }
    }
    let lists = |list: &[String], value: &[u8]| list.is_empty() || list.iter().any(|taken| taken.as_bytes() == value);
    if !lists(&strict.versions, value(12, 1)) {
        return Some(Fault::UnsupportedVersion);
    }
    (!lists(&strict.processing_ids, value(11, 1))).then_some(Fault::UnsupportedProcessingId)
}
