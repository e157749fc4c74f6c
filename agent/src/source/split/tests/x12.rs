//! X12.

use super::*;

fn isa(number: u32) -> String {
    format!("ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1200*^*00501*{number:09}*0*P*:~")
}

const GS: &str = "GS*PO*A*B*20260102*1200*7*X*005010~";
const ST: &str = "ST*850*0001~BEG*00*SA*1**20260102~SE*3*0001~";

fn one() -> String {
    format!("{}{GS}{ST}GE*1*7~IEA*1*000000001~", isa(1))
}

fn at(level: X12Level, text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    split(&SplitSettings::X12 { level }, text)
}

fn sets(text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    at(X12Level::Transaction, text)
}

fn found(verdict: &Verdict) -> Vec<&'static str> {
    verdict.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn records_carry_the_headers_they_need() {
    let text = format!("{}{GS}{ST}{}GE*2*7~IEA*1*000000001~\r\n", isa(1), ST.replace("0001", "0002"));
    let (pieces, verdict) = sets(&text);
    assert_eq!(shown(&pieces), [format!("{}{GS}{ST}", isa(1)), format!("{}{GS}{}", isa(1), ST.replace("0001", "0002"))]);
    assert_eq!(&text[pieces[0].range.start as usize..pieces[0].range.end as usize], ST);
    assert_eq!((verdict.records, verdict.claimed, verdict.state), (2, Some(2), State::Complete));
    let (pieces, verdict) = at(X12Level::Group, &text);
    assert!(shown(&pieces)[0].starts_with(&format!("{}{GS}ST*", isa(1))) && shown(&pieces)[0].ends_with("GE*2*7~"));
    assert_eq!((verdict.records, verdict.claimed, verdict.state), (1, Some(1), State::Complete));
    let (pieces, verdict) = at(X12Level::Interchange, &text);
    assert_eq!((shown(&pieces), verdict.records, verdict.claimed), (vec![text.trim_end().to_owned()], 1, None));
}

#[test]
fn each_interchange_has_its_own_separators() {
    let other = one().replace('~', "\n").replace('*', "|").replace(':', ">");
    let third = one().replace('~', "'\r\n").replace('*', "\x1D");
    let (pieces, verdict) = at(X12Level::Interchange, format!("{}\r\n{other}\n{third}", one()));
    assert_eq!((verdict.records, verdict.bad, verdict.state), (3, 0, State::Complete));
    assert_eq!(shown(&pieces)[1], other, "a terminator that is a line end stays");
    assert_eq!(shown(&pieces)[2], third.trim_end());
    assert_eq!(found(&verdict), [codes::X12_ISA_REPEATED; 2], "told, and no more than that");
}

#[test]
fn an_isa_that_is_not_padded_is_read_by_counting() {
    for head in ["ISA*00**00**ZZ*S*ZZ*R*260102*1200*U*00401*1*0*P*:~", "ISA*00**00**ZZ*S*ZZ*R*260102*1200*U*00401*000000001*0*P*~"] {
        let (pieces, verdict) = sets(one().replace(&isa(1), head));
        assert_eq!((verdict.records, verdict.state, found(&verdict)), (1, State::Complete, vec![codes::X12_ISA_UNPADDED]), "{head}");
        assert!(shown(&pieces)[0].starts_with(&format!("{head}GS*")));
    }
    let (pieces, verdict) = sets(format!("ISA*00*broken~{}", one()));
    assert_eq!((shown(&pieces)[0].as_str(), verdict.records, verdict.bad), ("!x12_stray", 1, 1));
}

#[test]
fn a_set_that_does_not_add_up_costs_only_itself() {
    for (bad, code) in [
        (ST.replace("SE*3", "SE*4"), codes::X12_SE_COUNT),
        (ST.replace("SE*3", "SE*x"), codes::X12_SE_COUNT),
        (ST.replace("SE*3*0001", "SE*3*0009"), codes::X12_SE_NUMBER),
        (ST.replace("SE*3*0001~", ""), codes::X12_SE_MISSING),
    ] {
        let good = ST.replace("0001", "0002");
        let (pieces, verdict) = sets(format!("{}{GS}{bad}{good}GE*2*7~IEA*1*1~", isa(1)));
        assert_eq!(shown(&pieces)[0], format!("!{code}"));
        assert_eq!((verdict.records, verdict.bad, verdict.state, found(&verdict)), (1, 1, State::Complete, vec![code]));
    }
}

#[test]
fn what_the_trailers_claim_decides_whether_the_file_is_whole() {
    let state = |from: &str, to: &str| sets(one().replace(from, to)).1.state;
    assert_eq!(state("GE*1", "GE*2"), State::Truncated { code: codes::X12_GE_COUNT });
    assert_eq!(state("GE*1", "GE*0"), State::CountMismatch { code: codes::X12_GE_COUNT, claimed: 0, found: 1 });
    assert_eq!(state("IEA*1", "IEA*3"), State::Truncated { code: codes::X12_IEA_COUNT });
    assert_eq!(state("GE*1*7", "GE*1*8"), State::Flagged { code: codes::X12_GE_NUMBER });
    assert_eq!(state("IEA*1*000000001~", "IEA*1*2"), State::Flagged { code: codes::X12_IEA_NUMBER });
    assert_eq!(state("GE*1*7~", ""), State::Truncated { code: codes::X12_GE_MISSING });
    assert_eq!(state("IEA*1*000000001~", "IEA*1*1"), State::Complete, "leading zeros and a missing last terminator are nothing");
}

#[test]
fn a_file_that_ends_early_is_truncated_wherever_it_ends() {
    let text = one();
    let whole = text.len() - "IEA*1*000000001~".len();
    for end in 1..=whole {
        for level in [X12Level::Transaction, X12Level::Group, X12Level::Interchange] {
            let (_, verdict) = split_with(&SplitSettings::X12 { level }, SplitLimits::new(MIB), &text.as_bytes()[..end], 11);
            assert!(verdict.state.holds_file(), "{level:?} cut at {end}: {:?}", verdict.state);
        }
    }
    let (pieces, verdict) = sets(format!("{}{}", &text[..whole], one()));
    assert_eq!(verdict.state, State::Truncated { code: codes::X12_IEA_MISSING }, "a new interchange inside one that did not end");
    assert_eq!(pieces.len(), 2);
}

#[test]
fn binary_data_may_hold_anything() {
    let data = "ab~SE*9*1~ISA*~*\n";
    let with = |length: &str| format!("{}{GS}ST*102*0001~BDS*ASC*{length}*{data}~BIN*{length}*{data}~SE*4*0001~GE*1*7~IEA*1*1~", isa(1));
    let (pieces, verdict) = sets(with(&data.len().to_string()));
    assert_eq!((verdict.records, verdict.bad, verdict.state), (1, 0, State::Complete));
    assert!(shown(&pieces)[0].contains(data));
    for (length, text) in [("11a", "BIN*11a*DATA~"), ("9", "BIN*9*DATA~"), ("2", "BIN*2*DATA~"), ("", "BIN*9999999*DATA~")] {
        let (pieces, verdict) = sets(format!("{}{GS}ST*102*0001~{text}SE*3*0001~{ST}GE*2*7~IEA*1*1~", isa(1)));
        assert_eq!(shown(&pieces)[0], "!x12_binary_length", "{length}");
        assert_eq!((verdict.records, verdict.bad, verdict.state), (1, 1, State::Complete), "{text}");
    }
}

#[test]
fn what_has_no_place_is_told() {
    let (pieces, verdict) = sets(format!("hello {}\r\n\x1A", one().replace("GE*1", "NTE*x~REF*y~GE*1")));
    assert_eq!((shown(&pieces)[0].as_str(), shown(&pieces)[2].as_str()), ("!x12_stray", "!x12_stray_segment"));
    assert_eq!((verdict.records, verdict.bad, verdict.state), (1, 2, State::Complete));
    let (pieces, verdict) = sets("item,qty\n1,2\n");
    assert_eq!(shown(&pieces), ["!x12_stray"]);
    assert_eq!(verdict.state, State::Unusable { code: codes::X12_NO_INTERCHANGE });
    let acknowledged = one().replace(GS, &format!("TA1*000000001*260102*1200*A*000~{GS}"));
    let (pieces, verdict) = sets(&acknowledged);
    assert_eq!(shown(&pieces)[0], format!("{}TA1*000000001*260102*1200*A*000~", isa(1)));
    assert_eq!((verdict.records, verdict.state), (2, State::Complete));
    assert_eq!(at(X12Level::Interchange, &acknowledged).1.records, 1);
}

#[test]
fn a_set_over_the_limit_costs_only_itself() {
    let big = ST.replace("~SE*3", &format!("~N1*{}~SE*4", "x".repeat(30_000)));
    let text = format!("{}{GS}{big}{}GE*2*7~IEA*1*1~", isa(1), ST.replace("0001", "0002"));
    for step in [7, 1000, 40_000] {
        let (pieces, verdict) = split_with(&SplitSettings::X12 { level: X12Level::Transaction }, limits(512), text.as_bytes(), step);
        assert_eq!(shown(&pieces)[0], "!record_over_limit", "fed {step} at a time");
        assert_eq!((verdict.records, verdict.bad, verdict.state), (1, 1, State::Complete));
    }
    let (pieces, verdict) = sets(&text);
    assert_eq!((pieces.len(), verdict.records), (2, 2), "a long segment is no trouble by itself");
}

/// Found by fuzzing.
#[test]
fn binary_segments_that_end_early_are_read_like_any_other() {
    let text = format!("{}{GS}ST*102*0001~BDS*~1*5*x~SE*4*0001~GE*1*7~IEA*1*1~", isa(1));
    assert_eq!(shown(&sets(&text).0), ["!x12_binary_length"], "its terminator comes before its length");
    for end in ["BIN", "BDS", "BIN*", "BIN*5"] {
        let (pieces, verdict) = sets(format!("{}{GS}ST*102*0001~{end}", isa(1)));
        assert!(verdict.state.holds_file() && pieces.len() == 1, "{end}");
    }
}
