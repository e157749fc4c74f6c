//! Renewal of the certificate by which this gateway proves itself to the hub: asked for, issued elsewhere, proven, and only then in use.
//!
//! ```text
//!   document: [uplink.renew] ─┐                          ┌─► certificate/request (retained) ─► central IT signs
//!   `siteward certs renew` ───┴─► key, made on the box ──┤
//!                                                        └─► `siteward certs csr --out FILE` ─► enterprise CA signs
//!   certificate/issued ───────┐
//!   `siteward certs install` ─┴─► fits the key? ─► candidate on trial ─► acknowledged publish over it ─► in use
//!                                      │                   └ not within the trial: the old one stays, the key waits for another
//!                                      └ no: refused, told
//! ```
//!
//! 1. **Asked once.** Each value of `request` asks once, whatever is redelivered, restarted or rolled back: answered values are remembered
//!    (`memory`) behind the key that was made for them. A crash between the two makes another key, of which nobody has heard yet.
//! 2. **Nothing is trusted that comes as a certificate.** It is no secret and not signed for us by anybody we know; whoever may publish on
//!    `certificate/issued` can send anything. It must fit the key that waits; everything else it says is judged by the broker, which alone
//!    decides by it. So it is not checked against `ca`, which is the broker's authority and often another one. A useless one costs a trial, in
//!    which the old certificate goes on (`uplink::credentials`, at most some short reconnects), and is not tried twice; the key stays, so that
//!    the right one can still come. Of those that fit one a minute is tried, the newest, and all within the time of the first.
//! 3. **Proof** is a publish that the broker acknowledged over a connection with the candidate (`trial`). Time counts only while the broker is
//!    reached with the certificate from before: an outage proves nothing against the candidate, and uses up none of its time.
//! 4. Everything is told: `certificate/request`, the conditions `certificate_pending` and `certificate_refused`, an audit letter.
//!
//! One task, [`keeper::Keeper`], owns it. Everything on disk goes through [`crate::uplink::credentials::Credentials`].

pub mod handle;
pub mod keeper;
mod memory;
mod trial;

#[cfg(test)]
mod tests;

pub use handle::Handle;
