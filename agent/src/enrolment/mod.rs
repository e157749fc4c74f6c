//! Enrolment: how a box that nobody knows becomes a gateway with a certificate, without an editor and without a service but the broker.
//!
//! ```text
//!   desk: siteward-hub enroll ─► bundle: signed; who the box is to be, brokers, anchors, a secret, a client certificate for enrolment only
//!                                   │ carried by a person
//!   box:  siteward enroll FILE ─► fingerprint compared ─► key made here ─► enrol/request/{key}: CSR, proven by the secret
//!   desk: siteward-hub enroll serve ─► once, in time, for this name ─► enrol/answer/{key}: certificate, proven by the secret
//!   box:  fits key, name and authority? ─► files ─► siteward.toml, by one rename
//! ```
//!
//! 1. **A box without a certificate** reaches the broker by one that the desk's own authority issued for this bundle alone. Its name is admitted
//!    by the broker to `enrol/request` and `enrol/answer` of this gateway and to nothing else, and it ends with the bundle. So there is no port
//!    beside the broker's, no password, and no service that anybody on the network could ask for a certificate.
//! 2. **A bundle is a bearer's right**: whoever has it first gets the certificate. It counts once: the desk binds it to the first key that proves
//!    the secret. The same box may ask again as often as it likes and is given the same; another is refused with the reason, and both sides see it.
//! 3. **Trust on first use, confirmed**: the keys that sign documents come in the bundle, so the bundle verifies by itself. What makes it ours is
//!    that somebody compared the fingerprint of the key that signed it with what central IT told him another way. Every later document
//!    is verified by those anchors.
//! 4. **The name is given by the desk** and unique to the enrolment (`subject`): renewals keep it, a replaced box loses it. What the broker
//!    admits by name it can therefore refuse by name, whatever authority issued the certificate.
//! 5. **Killed at any moment**, `siteward enroll` is started again with the same bundle and ends the same: its files lie in a directory of the
//!    bundle's own (`place`), the key is made once, and the configuration that names them is put in place last, by one rename.
//!
//! [`bundle`] and [`proof`] are what both ends share; [`install`] is the box, `hub::enrolment` the desk.

pub mod bundle;
mod chain;
pub mod install;
pub(crate) mod place;
pub mod proof;

#[cfg(all(test, feature = "hub"))]
pub(crate) use chain::check as check_chain;
