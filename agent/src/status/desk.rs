//! The desk: answers what is asked over the control socket, from the board, the spool's monitor and the recent outcomes.
//!
//! [`Desk::answer`] looks at memory only and says how the answer is to be had: now, from a thread that may block (journal, database,
//! directories), or as a watch. It decides nothing and changes nothing but what an [`Order`] names.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::access::{Act, Door, act, became, feed_of, needed};
use super::board::{Board, UplinkState};
use super::condition::Code;
use super::control::Answer;
use super::diagnosis::{
    DuplicateView, DuplicatesView, FeedView, FeedsView, MessageState, MessageView, MessagesView, QuarantineView, control_id_text,
};
use super::on_site::{OnSite, Peer};
use super::pace::Pace;
use super::question::{MessagesQuestion, Order, Question, Request, WatchQuestion};
use super::snapshot::{Files, Reporter};
use super::watching::Watching;
use crate::audit::Book;
use crate::clock;
use crate::config::nearest;
use crate::config::settings::{FeedSettings, SourceSettings};
use crate::forward::Feeds;
use crate::limits::{
    ACCEPT_RESEND_MAX, CANDIDATE_TRIAL_RANGE, CASES_MAX, CONNECTIONS_SHOWN_MAX, CONTROL_ID_BYTES_MAX, FIND_LIMIT_DEFAULT, FIND_LIMIT_MAX,
    HISTORY_NAME_BYTES_MAX, QUARANTINE_CHOSEN_MAX, QUARANTINE_LISTED_MAX, UNSEAL_BYTES_MAX, WATCH_MESSAGES_MAX, WATCH_TIME_MAX,
};
use crate::record::FeedId;
use crate::renewal;
use crate::rollout;
use crate::rollout::command::Verb;
use crate::rollout::executor::{self, Given};
use crate::spool::Monitor;
use crate::spool::kept::{Choice, Kept};
use crate::spool::recent::{Duplicate, Outcome, Recent};
use crate::spool::resends::Resends;
use crate::spool::search::{Header, Wanted};

/// See the module's documentation.
#[derive(Debug)]
pub struct Desk {
    pub reporter: Arc<Reporter>,
    pub board: Arc<Board>,
    pub monitor: Monitor,
    pub recent: Arc<Recent>,
    pub resends: Arc<Resends>,
    /// The owner of the ledger; `None` where no document can come.
    pub rollout: Option<rollout::Handle>,
    /// The owner of the uplink's certificate.
    pub renewal: Option<renewal::Handle>,
    /// The audit log.
    pub book: Book,
    /// Of those who give orders by the doors of the groups.
    pub pace: Mutex<Pace>,
    /// What lies in quarantine.
    pub kept: Kept,
    /// Secrets and overrides.
    pub on_site: Arc<OnSite>,
    /// Those that are configured now.
    pub feeds: watch::Receiver<Feeds>,
}

/// What the client is told instead of an answer.
type Refusal = String;

fn document(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("answers have text keys only")
}

fn refusal(why: &str) -> String {
    json!({ "error": why }).to_string()
}

/// What somebody wrote of himself, as far as it is kept.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(HISTORY_NAME_BYTES_MAX).collect()
}

impl Desk {
    /// Whoever came by this door may not ask for everything; what changes something is recorded before it is done.
    pub fn answer(self: &Arc<Self>, request: Request, peer: Peer) -> Answer {
        let need = needed(&request);
        if !peer.door.lets(need) {
            tracing::warn!(uid = peer.uid, "somebody asked for what needs the group {}", need.name());
            return Answer::Now(refusal(&need.refusal()));
        }
        match request {
            Request::Get(question) => self.tell(question),
            Request::Do(order) => {
                let desk = Arc::clone(self);
                Answer::Later(Box::new(move || desk.recorded(order, peer)))
            }
        }
    }

    /// Carries an order out between its intent and its outcome in the audit log.
    fn recorded(self: &Arc<Self>, order: Order, peer: Peer) -> String {
        let act = act(&order);
        if let Err(why) = self.fits(&order, &act, peer) {
            return refusal(&why);
        }
        let who = format!("{} on site", peer.name(act.claim.as_deref()));
        let intent = if act.breaks_glass {
            self.book.begin_anyway(&who, act.what, &act.subject, &act.reason)
        } else {
            match self.book.begin(&who, act.what, &act.subject, &act.reason) {
                Ok(intent) => intent,
                Err(why) => return refusal(&why),
            }
        };
        let text = match self.carry_out(order, who) {
            Answer::Now(text) => text,
            Answer::Later(make) => make(),
            Answer::Watch(_) => refusal("this is not an order"),
        };
        let (is_done, told) = became(&text);
        self.book.end(intent, is_done, &told);
        text
    }

    /// What cannot be recorded as it is, cannot come to anything, or comes too often, is refused before a record of it is written.
    fn fits(&self, order: &Order, act: &Act, peer: Peer) -> Result<(), Refusal> {
        if let Some(feed) = feed_of(order) {
            self.known(feed)?;
        }
        if let Some(why) = act.is_too_long() {
            return Err(why);
        }
        if peer.door == Door::Owner || peer.uid == Some(0) {
            return Ok(());
        }
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.take(peer.uid, act.breaks_glass, Instant::now()).map_err(|wait| {
            tracing::debug!(uid = peer.uid, "a user gives more orders than are taken from one");
            format!("nothing was done: this user gave too many orders; again in {} s, or as root (sudo)", wait.as_secs() + 1)
        })
    }

    fn tell(self: &Arc<Self>, question: Question) -> Answer {
        let answer = match question {
            Question::Status {} => Ok(Answer::Now(document(&self.reporter.snapshot()))),
            Question::Feeds { feed } => self.feeds(feed.as_deref()).map(|view| Answer::Now(document(&view))),
            Question::Messages(question) => self.known(&question.feed).map(|feed| {
                let desk = Arc::clone(self);
                Answer::Later(Box::new(move || desk.messages(&feed, &question).map_or_else(|why| refusal(&why), |view| document(&view))))
            }),
            Question::Duplicates { feed, control_id, limit } => self.known(&feed).map(|feed| {
                let desk = Arc::clone(self);
                Answer::Later(Box::new(move || document(&desk.duplicates(&feed, control_id.as_deref(), limit))))
            }),
            Question::Quarantine { feed } => feed.map(|feed| self.known(&feed)).transpose().map(|feed| {
                let desk = Arc::clone(self);
                Answer::Later(Box::new(move || desk.quarantine(feed.as_ref())))
            }),
            Question::Watch(question) => self.watch(question).map(Answer::Watch),
            Question::Config {} => Ok(Answer::Now(json!({ "text": self.config_text() }).to_string())),
            Question::ConfigHistory {} => self.rollout(rollout::handle::Request::History),
            Question::ConfigTexts {} => self.rollout(rollout::handle::Request::Texts),
            Question::Secrets {} => Ok(self.on_site.secrets()),
            Question::SecretKey {} => Ok(self.on_site.secret_key()),
            Question::Overrides {} => Ok(self.on_site.overrides()),
            Question::Maintenance {} => Ok(self.on_site.maintenance()),
            Question::Certificates {} => self.renewal(renewal::handle::Request::Show),
            Question::Audit { first } => {
                let book = self.book.clone();
                Ok(Answer::Later(Box::new(move || book.page(first).map_or_else(|why| refusal(&why), |page| audit_page(&book, &page)))))
            }
            Question::AuditVerify {} => {
                let book = self.book.clone();
                Ok(Answer::Later(Box::new(move || book.verify().map_or_else(|why| refusal(&why), |verdict| document(&verdict)))))
            }
            Question::Log {} => Ok(Answer::Now(json!({ "lines": crate::log::last_lines() }).to_string())),
        };
        answer.unwrap_or_else(|why| Answer::Now(refusal(&why)))
    }

    fn carry_out(self: &Arc<Self>, order: Order, who: String) -> Answer {
        let answer = match order {
            order @ (Order::SecretSet { .. }
            | Order::SecretRemove { .. }
            | Order::OverrideSet { .. }
            | Order::OverrideClear { .. }
            | Order::MaintenanceStart { .. }
            | Order::MaintenanceEnd { .. }
            | Order::AuditExport { .. }
            | Order::Retire { .. }) => Ok(self.on_site.order(order, who)),
            Order::ConfigApply { envelope, .. } => {
                tracing::warn!(bytes = envelope.len(), "a document was handed over on site");
                self.rollout(rollout::handle::Request::Apply { envelope })
            }
            Order::ConfigRollback { why, .. } => self.config_rollback(&who, &why),
            Order::PauseFeed { feed, why, .. } => self.on_feed(&feed, &who, &why, |feed| Verb::PauseFeed { feed }),
            Order::ResumeFeed { feed, why, .. } => self.on_feed(&feed, &who, &why, |feed| Verb::ResumeFeed { feed }),
            Order::ReleaseQuarantine { feed, first, last, why, .. } => {
                self.on_feed(&feed, &who, &why, |feed| Verb::ReleaseQuarantine { feed, first, last })
            }
            Order::DropQuarantine { feed, first, last, why, .. } => {
                self.on_feed(&feed, &who, &why, |feed| Verb::DropQuarantine { feed, first, last })
            }
            Order::DropEntries { entries, .. } if entries.is_empty() || entries.len() > QUARANTINE_CHOSEN_MAX => {
                Err(format!("name 1 to {QUARANTINE_CHOSEN_MAX} entries; `siteward quarantine list` shows their ids"))
            }
            Order::DropEntries { entries, why, .. } => self.order(executor::Order::DropEntries(entries), &who, &why),
            Order::CertificateRenew { trial_s, .. } => {
                let trial = Duration::from_secs(trial_s).clamp(CANDIDATE_TRIAL_RANGE.0, CANDIDATE_TRIAL_RANGE.1);
                self.renewal(renewal::handle::Request::Renew { by: who, trial })
            }
            Order::CertificateInstall { chain, .. } => self.renewal(renewal::handle::Request::Install { by: who, chain }),
            Order::CertificateCancel { .. } => self.renewal(renewal::handle::Request::Cancel { by: who }),
            Order::AcceptResend { feed, for_s, .. } => self.accept_resend(&feed, for_s).map(Answer::Now),
            Order::Unseal { entry, offset, why, .. } => self.unseal(&entry, offset, &why),
        };
        answer.unwrap_or_else(|why| Answer::Now(refusal(&why)))
    }

    /// A feed of this gateway, configured or still draining.
    fn known(&self, name: &str) -> Result<FeedId, Refusal> {
        let draining = self.monitor.view().feeds;
        let configured = self.configured_now();
        let all: Vec<&FeedId> = configured.iter().map(|feed| &feed.id).chain(draining.iter().map(|feed| &feed.id)).collect();
        if let Some(feed) = all.iter().find(|feed| feed.as_str() == name) {
            return Ok((*feed).clone());
        }
        let names: std::collections::BTreeSet<&str> = all.iter().map(|feed| feed.as_str()).collect();
        let advice = match nearest(name, names.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("its feeds are: {}", names.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        Err(format!("this gateway has no feed `{name}`; {advice}"))
    }

    fn configured_now(&self) -> Feeds {
        self.feeds.borrow().clone()
    }

    fn configured(&self, name: &str) -> Result<FeedSettings, Refusal> {
        let id = self.known(name)?;
        let found = self.configured_now().iter().find(|feed| feed.id == id).cloned();
        found.ok_or_else(|| format!("feed `{id}` is no longer configured; it only drains"))
    }

    // ---- feeds ----

    fn feeds(&self, only: Option<&str>) -> Result<FeedsView, Refusal> {
        let only = only.map(|name| self.configured(name).map(|feed| feed.id)).transpose()?;
        let conditions = self.board.conditions();
        let mut room = CONNECTIONS_SHOWN_MAX;
        let mut view = |settings: &FeedSettings| {
            let counters = self.board.feed(&settings.id);
            let connections = counters.registry.view(room);
            room -= connections.open.len();
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let last = counters.last_message_ms.load(Ordering::Relaxed);
            let listen = match &settings.source {
                SourceSettings::Mllp(mllp) => mllp.listen.to_string(),
                SourceSettings::Directory(directory) => directory.path.display().to_string(),
                SourceSettings::Http(http) => http.url(&settings.id),
            };
            let about = conditions.iter().filter(|condition| condition.subject == settings.id.as_str());
            FeedView {
                id: settings.id.clone(),
                stage: settings.stage,
                listen,
                captured: count(&counters.captured),
                duplicates: count(&counters.duplicates),
                refused: count(&counters.refused),
                quarantined: count(&counters.quarantined),
                last_message: (last != 0).then(|| clock::rfc3339(last)),
                connections_open: count(&counters.connections),
                connections_refused: count(&counters.connections_refused),
                connections: connections.open,
                connections_ended: connections.ended_total,
                ended: connections.ended,
                conditions: about.map(|condition| condition.code.to_owned()).collect(),
                files: counters.files().map(Files::from),
                expected: counters.expected(),
            }
        };
        let feeds = self.configured_now();
        Ok(FeedsView { feeds: feeds.iter().filter(|feed| only.as_ref().is_none_or(|only| feed.id == *only)).map(&mut view).collect() })
    }

    // ---- messages ----

    fn messages(&self, feed: &FeedId, question: &MessagesQuestion) -> Result<MessagesView, Refusal> {
        let wanted = match (&question.control_id, question.seq, question.since_ms) {
            (Some(id), None, None) => Wanted::ControlId(id.as_bytes().iter().take(CONTROL_ID_BYTES_MAX).copied().collect()),
            (None, Some(seq), None) => Wanted::Seq(seq),
            (None, None, Some(since)) => Wanted::Since(since),
            (None, None, None) => Wanted::All,
            _ => return Err("ask by control_id, by seq or by since_ms, not by several at once".to_owned()),
        };
        let most = limit(question.limit);
        let before = question.before.unwrap_or(u64::MAX);
        let searched = self.monitor.search(feed, &wanted, before, most);
        let head = searched.head.unwrap_or(0);
        let recent = self.recent.find(feed, &wanted, before.min(head + 1), most);
        let mut known: BTreeMap<u64, (Option<Header>, Outcome)> =
            recent.outcomes.into_iter().map(|(seq, outcome)| (seq, (None, outcome))).collect();
        for header in searched.found {
            let entry = known.entry(header.seq).or_default();
            entry.0 = Some(header);
        }
        // What the search has not reached yet is left to the next question, so that nothing is told twice or passed over.
        let mut more_below = searched.more_below;
        if let Some(border) = more_below {
            known.retain(|seq, _| *seq >= border);
        }
        while known.len() > most {
            known.pop_first();
            more_below = known.first_key_value().map(|(seq, _)| *seq);
        }
        let repeated = self.recent.duplicates(feed, usize::MAX, |duplicate| known.contains_key(&duplicate.seq)).unwrap_or_default();
        let messages =
            known.into_iter().rev().map(|(seq, (header, outcome))| self.message(seq, header, outcome, searched.settled, &repeated));
        Ok(MessagesView {
            feed: feed.clone(),
            messages: messages.collect(),
            searched: searched.records,
            searched_down_to: searched.down_to,
            more_below,
            recent_available: recent.is_available,
            notes_dropped: self.recent.dropped(),
        })
    }

    fn message(&self, seq: u64, header: Option<Header>, outcome: Outcome, settled: u64, repeated: &[Duplicate]) -> MessageView {
        let uplink = self.board.uplink();
        let on_this_connection = |at: i64| uplink.state == UplinkState::Connected && at >= uplink.since_ms;
        let state = match &outcome {
            Outcome { quarantined_at_ms: Some(_), .. } => MessageState::Quarantined,
            _ if seq <= settled => MessageState::Settled,
            Outcome { acked_at_ms: Some(_), .. } => MessageState::WaitingForReceipt,
            Outcome { published_at_ms: Some(at), .. } if on_this_connection(*at) => MessageState::InFlight,
            _ => MessageState::Queued,
        };
        let time = |at: Option<i64>| at.map(clock::rfc3339);
        // The journal knows for certain; a note may be missing.
        let resend_of = header.as_ref().map_or(outcome.resend_of, |header| header.resend_of);
        let (received, peer, control_id) = match header {
            Some(header) => (Some(header.received_at_ms), header.peer, header.control_id),
            None => (outcome.received_at_ms, outcome.peer, outcome.control_id),
        };
        MessageView {
            seq,
            state,
            control_id: control_id_text(&control_id),
            peer,
            received_at: time(received),
            ack: outcome.ack,
            ack_at: time(outcome.ack_at_ms),
            published_at: time(outcome.published_at_ms),
            puback_at: time(outcome.acked_at_ms),
            settled_at: time(outcome.settled_at_ms),
            quarantined_at: time(outcome.quarantined_at_ms),
            resend_of,
            duplicates: repeated.iter().filter(|duplicate| duplicate.seq == seq).map(DuplicateView::of).collect(),
        }
    }

    fn duplicates(&self, feed: &FeedId, control_id: Option<&str>, most: Option<u64>) -> DuplicatesView {
        let fits = |duplicate: &Duplicate| control_id.is_none_or(|id| id.as_bytes() == duplicate.control_id);
        let found = self.recent.duplicates(feed, limit(most), fits);
        DuplicatesView {
            feed: feed.clone(),
            recent_available: found.is_some(),
            duplicates: found.unwrap_or_default().iter().map(DuplicateView::of).collect(),
            notes_dropped: self.recent.dropped(),
        }
    }

    // ---- the rest ----

    fn quarantine(&self, feed: Option<&FeedId>) -> String {
        match self.monitor.quarantined(feed, QUARANTINE_LISTED_MAX) {
            Ok((entries, total)) => document(&QuarantineView { entries, total }),
            Err(error) => refusal(&format!("the quarantine directory cannot be read: {error}; check the disk")),
        }
    }

    /// A part of what is in an entry, as base64. The only answer that holds content.
    fn unseal(&self, entry: &str, offset: u64, why: &str) -> Result<Answer, Refusal> {
        if why.trim().is_empty() {
            return Err("say why; it is audited".to_owned());
        }
        let (kept, entry) = (self.kept.clone(), entry.to_owned());
        Ok(Answer::Later(Box::new(move || unsealed(&kept, &entry, offset).unwrap_or_else(|why| refusal(&why)))))
    }

    /// The settings that hold, and what lies over them for a while.
    fn config_text(&self) -> String {
        let active = self.board.conditions().into_iter().filter(|condition| condition.code == Code::OverrideActive.as_str());
        let notes = active.map(|condition| format!("\n# overridden: feed {}: {}\n", condition.subject, condition.text));
        [self.board.config().text.to_string()].into_iter().chain(notes).collect::<Vec<_>>().concat()
    }

    fn rollout(&self, request: rollout::handle::Request) -> Result<Answer, Refusal> {
        let handle = self.rollout.clone().ok_or("this agent has no rollout")?;
        Ok(Answer::Later(Box::new(move || handle.ask(request).map_or_else(|why| refusal(&why), |response| document(&response)))))
    }

    fn renewal(&self, request: renewal::handle::Request) -> Result<Answer, Refusal> {
        let handle = self.renewal.clone().ok_or("this agent keeps no certificates")?;
        Ok(Answer::Later(Box::new(move || handle.ask(request).map_or_else(|why| refusal(&why), |view| document(&view)))))
    }

    fn on_feed(&self, feed: &str, by: &str, why: &str, verb: impl FnOnce(FeedId) -> Verb) -> Result<Answer, Refusal> {
        let feed = self.known(feed)?;
        self.order(executor::Order::Verb(verb(feed)), by, why)
    }

    /// An order that a signed command may give too.
    fn order(&self, order: executor::Order, by: &str, why: &str) -> Result<Answer, Refusal> {
        let (who, why) = named(by, why, "it is audited and reported")?;
        self.rollout(rollout::handle::Request::Order(Given { order, who, why }))
    }

    fn config_rollback(&self, by: &str, why: &str) -> Result<Answer, Refusal> {
        let (who, why) = named(by, why, "it is kept in the history and reported")?;
        tracing::warn!(who, "somebody asked for the configuration from before");
        self.rollout(rollout::handle::Request::Rollback { who, why })
    }

    fn watch(&self, question: WatchQuestion) -> Result<Watching, Refusal> {
        let WatchQuestion { feed, count, time_s, expect } = question;
        let settings = self.configured(&feed)?;
        if !matches!(settings.source, SourceSettings::Mllp(_)) {
            return Err(format!("feed {feed} has no HL7 listener to watch; `siteward messages find --feed {feed}` shows what it captured"));
        }
        if expect.len() > CASES_MAX {
            return Err(format!("at most {CASES_MAX} control ids can be expected at once"));
        }
        let watch = self.board.feed(&settings.id).tap.attach(expect);
        let watch = watch.ok_or("as many watch this feed already as may; end one of `siteward sniff` or `siteward feeds record`")?;
        let time = Duration::from_secs(time_s).min(WATCH_TIME_MAX);
        Ok(Watching { feed, watch, count: count.min(WATCH_MESSAGES_MAX), time })
    }

    fn accept_resend(&self, feed: &str, for_s: u64) -> Result<String, Refusal> {
        let settings = self.configured(feed)?;
        let time = Duration::from_secs(for_s);
        if time.is_zero() || time > ACCEPT_RESEND_MAX {
            return Err(format!("resends can be accepted for a second up to {} hours", ACCEPT_RESEND_MAX.as_secs() / 3600));
        }
        let until = self.resends.open(&settings.id, time, Instant::now(), &self.board);
        tracing::info!(feed = %settings.id, for_s, "messages seen before are stored again for a while, as somebody asked for it");
        Ok(json!({ "feed": settings.id, "until": until }).to_string())
    }
}

fn audit_page(book: &Book, page: &[(u64, String)]) -> String {
    let (last, sent) = book.standing();
    let records: Vec<serde_json::Value> = page.iter().filter_map(|(_, line)| serde_json::from_str(line).ok()).collect();
    json!({ "records": records, "last": last, "sent": sent }).to_string()
}

fn unsealed(kept: &Kept, entry: &str, offset: u64) -> Result<String, Refusal> {
    let none = || format!("no entry {} is in quarantine; see `siteward quarantine list`", short(entry).escape_debug());
    let chosen = kept.choose(&Choice::Entries(vec![entry.to_owned()])).map_err(|error| format!("quarantine cannot be read: {error}"))?;
    let listed = chosen.0.first().ok_or_else(none)?;
    let bytes = kept.bytes(listed).map_err(|error| error.to_string())?;
    let whole = bytes.expose();
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
    let part = &whole[from..whole.len().min(from.saturating_add(UNSEAL_BYTES_MAX))];
    let done = format!("{} of {} bytes were shown", part.len(), whole.len());
    Ok(json!({ "done": done, "bytes": whole.len(), "content": STANDARD.encode(part) }).to_string())
}

/// Who asks and why, as they are kept.
fn named(by: &str, why: &str, kept: &str) -> Result<(String, String), Refusal> {
    if why.trim().is_empty() || by.trim().is_empty() {
        return Err(format!("say who asks and why; {kept}"));
    }
    Ok((short(by), short(why)))
}

fn limit(asked: Option<u64>) -> usize {
    usize::try_from(asked.unwrap_or(FIND_LIMIT_DEFAULT).clamp(1, FIND_LIMIT_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
