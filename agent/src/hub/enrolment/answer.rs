//! Boxes are answered over the broker: each request is judged, what follows from it is made durable, then it is answered.
//!
//! [`Answering::hear`] does one; [`serve`] visits the broker and does all that come, once or until stopped. Two desks at once do no harm: each
//! request is judged under the lock of the state, and the second finds what the first gave.

use std::time::Duration;

use tokio::sync::watch;

use super::authority::{Authority, Wanted};
use super::judge::{Came, Verdict, judge};
use super::state::{Record, State, Used};
use crate::clock;
use crate::config::settings::Endpoint;
use crate::enrolment::proof::{self, About, Answer, Outcome, Request};
use crate::limits::{DESK_QUIET, ENROLMENT_BYTES_MAX, GATEWAY_CERTIFICATE_DAYS, VISIT_RETRY};
use crate::uplink::csr::Asked;
use crate::uplink::tls::TlsFiles;
use crate::uplink::visit::{self, Ended, Failed, Next, Said, Step, Terms, Visitor};

/// See the module.
#[derive(Debug)]
pub struct Answering {
    pub state: State,
    /// Opened once, for as long as boxes are answered.
    pub authority: Authority,
}

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Reach {
    pub broker: Endpoint,
    pub tls: Option<TlsFiles>,
    pub client_id: String,
}

impl Answering {
    /// What is said to a request; `say` tells the desk.
    pub fn hear(&self, topic: &str, payload: &[u8], say: &mut dyn FnMut(&str)) -> Option<Said> {
        if payload.is_empty() {
            return None; // a box that has its certificate clears its request
        }
        let told =
            |what: &str| format!("{}: a request {what}", proof::read_topic(topic).map_or("?".into(), |(s, g, _)| format!("{g} at {s}")));
        let (site, gateway, key) = proof::read_topic(topic)?;
        let read = (payload.len() <= ENROLMENT_BYTES_MAX).then(|| serde_json::from_slice::<Request>(payload).ok()).flatten();
        let Some(request) = read else {
            say(&told("cannot be read; it is not answered"));
            return None;
        };
        match self.judged(Came { site: &site, gateway: &gateway, key }, &request, say) {
            Ok(said) => said,
            Err(why) => {
                say(&told(&format!("could not be dealt with: {why}")));
                None
            }
        }
    }

    fn judged(&self, came: Came<'_>, request: &Request, say: &mut dyn FnMut(&str)) -> Result<Option<Said>, String> {
        let held = self.state.hold("answers a box")?;
        let now = clock::now().unix_ms / 1000;
        let Some(mut record) = self.state.record(&request.bundle)? else {
            say(&format!("{} at {}: a request names a bundle that this desk did not make; it is not answered", came.gateway, came.site));
            return Ok(None);
        };
        let whom = format!("{} at {}", record.gateway, record.site);
        let (key, outcome) = match judge(Some(&record), came, request, now) {
            Verdict::Ignore(why) => {
                say(&format!("{whom}: a request {why}; it is not answered"));
                return Ok(None);
            }
            Verdict::Refuse { key, code, why } => {
                say(&format!("{whom}: refused, {code}: key {} was told: {why}", proof::short(&key)));
                (key, Outcome::Refused { code: code.to_owned(), why })
            }
            Verdict::Again { key, chain } => {
                say(&format!("{whom}: key {} is given its certificate again", proof::short(&key)));
                (key, Outcome::Issued { chain })
            }
            Verdict::Waiting { key } => (key, Outcome::Waiting {}),
            Verdict::Issue { key, asked } => {
                let outcome = self.grant(&mut record, &key, &asked, request, now)?;
                held.save(&record)?;
                let what =
                    if record.outside { "waits for its certificate: siteward-hub certs export-csr" } else { "is given a certificate" };
                say(&format!("{whom}: key {} {what}, in the name {}", proof::short(&key), record.subject));
                (key, outcome)
            }
        };
        let about = About { bundle: &record.bundle, site: &record.site, gateway: &record.gateway };
        let answer = Answer::new(&record.verifier, about, &key, outcome);
        let payload = serde_json::to_vec(&answer).expect("plain values");
        Ok(Some(Said { topic: proof::answer_topic(&record.site, &record.gateway, &key), payload, retain: true }))
    }

    /// The bundle is used from here on.
    fn grant(&self, record: &mut Record, key: &str, asked: &Asked, request: &Request, now: i64) -> Result<Outcome, String> {
        let mut used = Used { at: now, key: key.to_owned(), chain: None };
        let outcome = if record.outside {
            record.csr = Some(request.csr.clone());
            Outcome::Waiting {}
        } else {
            let until = now + (GATEWAY_CERTIFICATE_DAYS * 24 * 3600).cast_signed();
            let wanted = Wanted { subject: &record.subject, public_key: &asked.public_key, until };
            let (chain, issued) = self.authority.issue(wanted)?;
            record.certificates.push(issued);
            used.chain = Some(chain.clone());
            Outcome::Issued { chain }
        };
        record.used = Some(used);
        Ok(outcome)
    }
}

/// Answers what waits at the broker; with `until_stopped` also what comes, over lost connections, until `stop`.
pub async fn serve(
    reach: &Reach,
    answering: &Answering,
    until_stopped: bool,
    mut stop: watch::Receiver<bool>,
    mut say: impl FnMut(&str),
) -> Result<(), String> {
    loop {
        let visitor = Visitor { endpoint: &reach.broker, proxy: None, tls: reach.tls.as_ref(), client_id: &reach.client_id };
        let quiet = (!until_stopped).then_some(DESK_QUIET);
        let terms = Terms { filter: proof::requests_filter(), quiet, deadline: None };
        let each = |step: Step<'_>| match step {
            Step::Stands => {
                say(&format!("{}: listening for boxes", reach.broker));
                Next::Stay(Vec::new())
            }
            Step::Came(topic, payload) => {
                let said = tokio::task::block_in_place(|| answering.hear(topic, payload, &mut say));
                Next::Stay(said.into_iter().collect())
            }
        };
        let why = match visit::visit(&visitor, terms, &mut stop, each).await {
            Ok(Ended::Stopped | Ended::Quiet | Ended::Left) => return Ok(()),
            Err(Failed::NoAnswer) => format!("{}: the visit ended without an answer; please report this", reach.broker),
            Err(Failed::Line { why, .. }) => why,
        };
        if !until_stopped {
            return Err(why);
        }
        say(&format!("{why}; trying on"));
        if pause(&mut stop, VISIT_RETRY).await {
            return Ok(());
        }
    }
}

/// True: asked to stop meanwhile.
async fn pause(stop: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::select! {
        _stop = stop.wait_for(|stop| *stop) => true,
        () = tokio::time::sleep(time) => false,
    }
}
