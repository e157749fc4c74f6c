//! The desk's side of enrolment: an authority of its own, bundles, answers to boxes, and what the broker may admit.
//!
//! ```text
//!   --state DIR   authority.json, ca.pem, ca.key (sealed)      `enroll init`
//!                 bundles/<id>.json                            a record per bundle: made, used by which key, certificates, retired
//!                 identities/<name>.json                       clients that are no gateways: receiver, desk
//!                 lists.json                                   revocation lists of other authorities, as the broker got them: when they end
//!                 lock                                         one operation at a time, whoever runs it
//! ```
//!
//! - [`state`]: these files; [`authority`]: the keys that sign certificates and the list of revoked ones; [`judge`]: what becomes of a request (pure).
//! - [`issue`]: a bundle is made; [`answer`]: boxes are answered over the broker; [`outside`]: certificates of another authority;
//!   [`identity`]: clients that are no gateways.
//! - [`mosquitto`]: access list and revocation list for the broker (pure but for the list's signature); [`seen`]: what the receiver has of a
//!   gateway, for the record of one that is replaced.
//!
//! A record is durable before anybody hears of what it says: a bundle's before the bundle is written, a certificate's before it is sent. What a
//! crash leaves is asked for again, and given the same.

pub mod answer;
pub mod authority;
pub mod identity;
pub mod issue;
mod judge;
pub mod mosquitto;
pub mod outside;
pub mod seen;
pub mod state;
#[cfg(test)]
mod tests;
