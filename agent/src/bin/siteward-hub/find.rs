//! `siteward-hub find`: one message in what the receiver wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use siteward::hub::find::around::Beside;
use siteward::hub::find::{self, Query, Wanted, text};
use siteward::hub::ledger::AccountKey;
use siteward::limits::{FIND_BYTES_DEFAULT, FIND_SHOWN_MAX};
use siteward::record::Name;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("wanted").required(true).args(["control_id", "seq", "event_id"]))]
pub struct Find {
    /// What `receive --out` writes; ledger and index are looked for beside it.
    #[arg(long, value_name = "FILE")]
    account: PathBuf,
    /// MSH-10 of the message, or the idempotency key of a post.
    #[arg(long, value_name = "ID")]
    control_id: Option<String>,
    #[arg(long, requires = "seq")]
    feed: Option<Name>,
    #[arg(long, value_name = "N", requires = "feed")]
    seq: Option<u64>,
    /// gateway/feed/incarnation/seq/item, as the event has it.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    #[arg(long)]
    site: Option<Name>,
    #[arg(long)]
    gateway: Option<Name>,
    /// Bytes of the file that are read at most, the newest.
    #[arg(long, value_name = "BYTES", default_value_t = FIND_BYTES_DEFAULT)]
    budget: u64,
    /// Begin here instead.
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    #[arg(long)]
    json: bool,
}

/// 0: found; 3: not in what was read; 1: could not be done.
pub fn carry_out(args: Find) -> ExitCode {
    match found(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(why) => crate::told(Err(why)),
    }
}

fn found(args: Find) -> Result<bool, String> {
    let Find { account, control_id, feed, seq, event_id, site, mut gateway, budget, from, json } = args;
    let wanted = match (control_id, feed.zip(seq), event_id) {
        (Some(id), _, _) => Wanted::ControlId(id),
        (_, Some((feed, seq)), _) => Wanted::Seq { feed, seq, incarnation: None },
        (_, _, Some(id)) => {
            let (of, wanted) = find::parse_event_id(&id).map_err(|why| format!("--event-id {why}"))?;
            gateway = Some(of);
            wanted
        }
        _ => return Err("give --control-id ID, --feed F with --seq N, or --event-id ID".into()),
    };
    let query = Query { out: account, wanted, site, gateway, budget, from };
    let found = find::search(&query)?;
    let beside = Beside::open(&query.out);
    let mut records = text::records(&found);
    // Asked for by name: what is known of the feed is said also where the message is not found.
    if let (true, Wanted::Seq { feed, seq, .. }, Some(site), Some(gateway)) =
        (records.is_empty(), &query.wanted, &query.site, &query.gateway)
    {
        records.push((AccountKey { site: site.clone(), gateway: gateway.clone(), feed: feed.clone() }, *seq));
    }
    let around: Vec<_> = records.iter().take(FIND_SHOWN_MAX).map(|(key, seq)| beside.around(key, *seq, found.file_bytes)).collect();
    if json {
        let page = serde_json::json!({ "schema": 1, "whole": found.is_whole(), "found": found, "around": around });
        println!("{page:#}");
    } else {
        print!("{}", text::text(&query.wanted, &found, &around));
    }
    Ok(!found.findings.is_empty())
}
