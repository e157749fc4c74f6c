//! What a rollout does, case by case, driven by hand.

use super::entry::{Entry, Verdict};
use super::heard::{Presence, Reported, Running, Tried};
use super::plan::{Plan, Target, Threshold, Window};
use super::{Action, Event, Phase, State, Waves};
use crate::limits::PUSHES_MAX;
use crate::record::{DocumentDigest, Name};

pub(super) const GRACE_MS: i64 = 60_000;
pub(super) const TRIAL_MS: i64 = 600_000;
pub(super) const SOAK_MS: i64 = 3_600_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn plan(gateways: usize, waves: Vec<usize>, threshold: Threshold) -> Plan {
    let target = |i: usize| Target {
        site: name("s"),
        gateway: name(&format!("g{i}")),
        revision: 7,
        digest: DocumentDigest([7; 32]),
        envelope: DocumentDigest([8; 32]),
        trial_s: 600,
        zone: Some("UTC".to_owned()),
    };
    let targets = (0..gateways).map(target).collect();
    Plan { id: "r".to_owned(), targets, waves, soak_s: vec![3600], window: None, threshold, grace_s: 60 }
}

pub(super) fn reported(running: u64, tried: Option<(&str, u64)>) -> Box<Reported> {
    let digest = |revision: u64| (revision > 0).then(|| DocumentDigest([u8::try_from(revision).unwrap(); 32]));
    Box::new(Reported {
        gateway: name("g0"),
        version: "0.1.0".to_owned(),
        running: Running { revision: running, digest: digest(running), since: String::new() },
        tried: tried.map(|(state, revision)| Tried {
            revision: Some(revision),
            digest: digest(revision),
            state: state.to_owned(),
            code: (state == "rolled_back").then(|| "listeners_not_bound".to_owned()),
            reason: Some("feed `a`: port 2575 is in use".to_owned()),
            at: String::new(),
        }),
        timezone: None,
        groups: Vec::new(),
        document_schema: None,
        trust: None,
        time: String::new(),
    })
}

pub(super) fn online(online: bool) -> Presence {
    Presence { online, ..Presence::default() }
}

/// A rollout with its journal, driven by hand.
struct Rig {
    waves: Waves,
    journal: Vec<Entry>,
    now: i64,
    pushed: Vec<usize>,
    withdrawn: Vec<usize>,
}

impl Rig {
    fn new(plan: Plan) -> Self {
        Self { waves: Waves::new(plan), journal: Vec::new(), now: 1_800_000_000_000, pushed: Vec::new(), withdrawn: Vec::new() }
    }

    fn online(gateways: usize, waves: &[usize], threshold: Threshold) -> Self {
        let mut rig = Self::new(plan(gateways, waves.to_vec(), threshold));
        (0..gateways).for_each(|i| rig.give(Event::Presence(i, online(true))));
        rig.give(Event::Informed(true));
        rig
    }

    fn give(&mut self, event: Event) {
        let actions = self.waves.step(self.now, event);
        assert!(actions.is_sorted_by_key(|action| !matches!(action, Action::Note(_))), "lines first, then what rests on them: {actions:?}");
        let mut sent = Vec::new();
        for action in actions {
            match action {
                Action::Note(entry) => self.journal.push(entry),
                Action::Push(target) => {
                    self.pushed.push(target);
                    sent.push(target);
                }
                Action::Withdraw(target) => self.withdrawn.push(target),
            }
        }
        for target in sent {
            self.give(Event::Sent(target));
        }
    }

    fn after(&mut self, ms: i64) {
        self.now += ms;
        self.give(Event::Tick);
    }

    fn says(&mut self, target: usize, running: u64, tried: Option<(&str, u64)>) {
        self.give(Event::Reported(target, reported(running, tried)));
    }

    fn restart(&mut self) {
        self.waves = Waves::restore(self.waves.plan().clone(), &self.journal);
    }

    fn why(&self) -> String {
        match self.waves.phase() {
            Phase::Stopped { why, .. } => why.clone(),
            other => panic!("not stopped: {other:?}"),
        }
    }
}

#[test]
fn a_wave_waits_for_the_one_before_and_its_rest() {
    let mut rig = Rig::online(4, &[1, 2, 4], Threshold::Count(0));
    assert_eq!(rig.pushed, [0]);
    rig.says(0, 6, Some(("trial", 7)));
    assert_eq!(rig.waves.state(0), State::Trying);
    rig.after(SOAK_MS);
    assert_eq!(rig.pushed, [0], "a trial that goes on is not done");
    rig.says(0, 7, Some(("committed", 7)));
    rig.after(SOAK_MS - 1);
    assert_eq!(rig.pushed, [0]);
    rig.restart();
    (0..4).for_each(|i| rig.give(Event::Presence(i, online(true))));
    rig.give(Event::Informed(true));
    assert_eq!(rig.pushed, [0], "the rest goes on over a restart");
    rig.after(1);
    assert_eq!(rig.pushed, [0, 1]);
    rig.says(1, 7, None);
    rig.after(SOAK_MS);
    assert_eq!(rig.pushed, [0, 1, 2, 3]);
    rig.says(2, 7, None);
    rig.says(3, 7, None);
    assert_eq!(*rig.waves.phase(), Phase::Finished);
}

#[test]
fn the_first_failure_over_the_threshold_stops_it_and_spares_the_others() {
    let mut rig = Rig::online(4, &[3, 4], Threshold::Count(1));
    rig.says(0, 6, Some(("rolled_back", 7)));
    assert_eq!(*rig.waves.phase(), Phase::Pushing(0), "one may fail");
    rig.says(1, 6, Some(("trial", 7)));
    rig.says(2, 6, Some(("refused", 7)));
    assert!(rig.why().contains("2 failed, 1 may; the last is s/g2"), "{}", rig.why());
    assert!(rig.why().contains("port 2575 is in use"));
    assert_eq!(rig.withdrawn, [0, 2], "who is trying goes on");
    rig.says(1, 7, Some(("committed", 7)));
    assert_eq!(rig.waves.state(1), State::Confirmed, "what becomes of it is still written down");
    rig.after(10 * SOAK_MS);
    assert_eq!(rig.pushed, [0, 1, 2]);
    // Somebody decides to go on.
    rig.journal.push(Entry::Resumed { who: "kim".into(), why: "both are being replaced".into(), accepts: true, at_ms: rig.now });
    rig.restart();
    (0..4).for_each(|i| rig.give(Event::Presence(i, online(true))));
    rig.give(Event::Informed(true));
    rig.after(SOAK_MS);
    assert_eq!(rig.pushed, [0, 1, 2, 3]);
}

#[test]
fn who_is_offline_is_pending_and_does_not_hold_up_the_others() {
    let mut rig = Rig::online(3, &[1, 3], Threshold::Count(0));
    rig.give(Event::Presence(2, online(false)));
    rig.says(0, 7, None);
    rig.after(SOAK_MS);
    rig.says(1, 7, None);
    assert_eq!((rig.waves.state(2), rig.waves.phase()), (State::Pending, &Phase::Finished));
    rig.after(30 * SOAK_MS);
    assert_eq!(rig.waves.state(2), State::Pending, "however long");
    rig.give(Event::Presence(2, online(true)));
    rig.says(2, 7, Some(("committed", 7)));
    assert_eq!(rig.waves.state(2), State::Confirmed);
    let seen = rig.journal.iter().any(|entry| matches!(entry, Entry::Seen { target: 2, .. }));
    assert!(seen, "when it came back is written down");
}

#[test]
fn failures_of_those_who_come_back_late_spare_who_is_still_away() {
    let mut rig = Rig::online(4, &[1, 4], Threshold::Count(0));
    (2..4).for_each(|i| rig.give(Event::Presence(i, online(false))));
    rig.says(0, 7, None);
    rig.after(SOAK_MS);
    rig.says(1, 7, None);
    assert_eq!(*rig.waves.phase(), Phase::Finished);
    rig.give(Event::Presence(2, online(true)));
    rig.says(2, 6, Some(("rolled_back", 7)));
    assert!(rig.why().contains("the last is s/g2"), "{}", rig.why());
    assert_eq!(rig.withdrawn, [2, 3]);
}

#[test]
fn nobody_there_in_the_first_wave_proves_nothing() {
    let mut rig = Rig::new(plan(2, vec![1, 2], Threshold::Count(0)));
    rig.give(Event::Presence(1, online(true)));
    rig.give(Event::Informed(true));
    rig.after(10 * SOAK_MS);
    assert_eq!((rig.pushed.clone(), rig.waves.state(0)), (vec![0], State::Pending));
}

#[test]
fn who_goes_away_with_the_document_is_not_pending() {
    let mut rig = Rig::online(2, &[1, 2], Threshold::Count(0));
    rig.says(0, 6, Some(("trial", 7)));
    rig.give(Event::Presence(0, online(false)));
    assert_eq!(rig.waves.state(0), State::Gone);
    rig.restart();
    rig.give(Event::Presence(0, online(false)));
    rig.give(Event::Informed(true));
    rig.after(TRIAL_MS + GRACE_MS - 1);
    assert_eq!((rig.waves.state(0), rig.waves.phase()), (State::Gone, &Phase::Pushing(0)), "also after a restart");
    rig.after(1);
    assert!(rig.why().contains("gone: it was there when the document came"), "{}", rig.why());
    rig.give(Event::Presence(0, online(true)));
    rig.says(0, 6, Some(("rolled_back", 7)));
    assert!(matches!(rig.waves.verdict(0).0, Verdict::Failed { code, .. } if code == "listeners_not_bound"), "what it was is told");
}

#[test]
fn a_broker_that_lost_the_document_gets_the_same_again_and_silence_ends() {
    let mut rig = Rig::online(1, &[1], Threshold::Count(0));
    rig.after(GRACE_MS);
    assert_eq!(rig.pushed, [0, 0]);
    for _ in 0..PUSHES_MAX {
        rig.after(GRACE_MS);
    }
    assert_eq!(rig.pushed.len(), PUSHES_MAX as usize);
    assert_eq!(rig.waves.state(0), State::Unknown);
    assert!(rig.why().contains("says nothing of the document"));
    rig.says(0, 7, None);
    assert_eq!(rig.waves.state(0), State::Confirmed, "late is not never");
}

#[test]
fn a_suspect_document_stops_it_unless_it_was_suspect_before() {
    let suspect =
        |since: &str| Presence { online: true, suspects: [(format!("suspect lab {since}"), "much in quarantine".to_owned())].into() };
    let mut rig = Rig::new(plan(2, vec![1, 2], Threshold::Count(1)));
    rig.give(Event::Presence(0, suspect("yesterday")));
    rig.give(Event::Informed(true));
    rig.says(0, 7, Some(("committed", 7)));
    assert!(matches!(rig.waves.phase(), Phase::Soaking { .. }), "that was another document");
    rig.give(Event::Presence(0, suspect("today")));
    assert!(rig.why().contains("document_suspect"), "{}", rig.why());
    assert_eq!(rig.pushed, [0]);
}

#[test]
fn a_refusal_that_names_nothing_counts_once_it_is_new() {
    let refused = |at: &str| {
        let mut report = reported(6, Some(("refused", 7)));
        report.tried =
            report.tried.map(|tried| Tried { revision: None, digest: None, code: Some("unknown_key".into()), at: at.into(), ..tried });
        Event::Reported(0, report)
    };
    let mut rig = Rig::new(plan(1, vec![1], Threshold::Count(0)));
    rig.give(Event::Presence(0, online(true)));
    rig.give(refused("yesterday"));
    rig.give(Event::Informed(true));
    assert_eq!(rig.waves.state(0), State::Pushed, "that was another document");
    rig.give(refused("today"));
    assert!(rig.why().contains("unknown_key"), "{}", rig.why());
}

#[test]
fn outside_of_its_hours_a_gateway_is_left_alone() {
    let mut plan = plan(2, vec![2], Threshold::Count(0));
    plan.targets[1].zone = Some("America/New_York".to_owned());
    plan.window = Some(Window::parse("01:00-05:00").unwrap());
    let mut rig = Rig::new(plan);
    rig.now = "2026-11-23T02:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    rig.give(Event::Informed(true));
    assert_eq!(rig.pushed, [0]);
    rig.after(4 * SOAK_MS);
    assert_eq!(rig.pushed, [0, 1], "at one in the morning over there");
}

#[test]
fn the_operator_and_the_broker_stop_it_at_once() {
    let mut rig = Rig::online(3, &[2, 3], Threshold::Count(0));
    rig.says(0, 7, None);
    rig.give(Event::Stop { who: "kim".into(), why: "wrong window".into() });
    assert_eq!((rig.why().as_str(), &rig.withdrawn[..]), ("kim stopped it: wrong window", &[1][..]));
    assert_eq!(rig.waves.state(1), State::Waiting);
    let mut rig = Rig::online(1, &[1], Threshold::Count(0));
    rig.give(Event::Refused(0, "the broker refuses the publish (NotAuthorized)".into()));
    assert!(rig.why().contains("NotAuthorized"));
}

/// Nobody is given anything, and nobody given up, on the strength of what was heard before the connection was lost.
#[test]
fn while_the_broker_is_not_heard_nothing_is_decided() {
    let mut rig = Rig::online(2, &[1, 2], Threshold::Count(0));
    rig.says(0, 7, None);
    let written = rig.journal.len();
    rig.give(Event::Informed(false));
    rig.give(Event::Presence(1, online(false)));
    rig.after(10 * SOAK_MS);
    assert_eq!((rig.journal.len(), &rig.pushed[..]), (written, &[0][..]));
    rig.restart();
    rig.give(Event::Presence(1, online(true)));
    rig.after(10 * SOAK_MS);
    assert_eq!((rig.journal.len(), &rig.pushed[..]), (written, &[0][..]), "nor after a restart");
    rig.give(Event::Informed(true));
    assert_eq!(rig.pushed, [0, 1]);
}

/// I6: two at work on the same gateways: the first stops, and neither takes away nor writes over what is not its own.
#[test]
fn somebody_else_who_publishes_meanwhile_stops_it_and_is_left_alone() {
    let mut rig = Rig::online(3, &[2, 3], Threshold::Count(0));
    assert_eq!(rig.pushed, [0, 1]);
    (0..2).for_each(|target| rig.give(Event::Sent(target)));
    rig.give(Event::Overwritten(1, "revision 8".to_owned()));
    let Phase::Stopped { why, .. } = rig.waves.phase() else { panic!("it goes on: {:?}", rig.waves.phase()) };
    assert!(why.contains("s/g1: somebody else published revision 8"), "{why}");
    assert_eq!(rig.withdrawn, [0], "only what is ours");
    let mut again = Waves::restore(rig.waves.plan().clone(), &rig.journal);
    let actions = again.step(rig.now, Event::Informed(true));
    assert!(actions.contains(&Action::Withdraw(0)) && !actions.contains(&Action::Withdraw(1)), "{actions:?}");
    assert!(!again.needs_acceptance(), "whoever agreed resumes");
}
