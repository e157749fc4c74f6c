//! `siteward check`: the same validation as `run`, and nothing else.

use std::path::Path;

use super::{Failure, print};
use crate::config::{self, Files};

pub(super) fn check(file: &Path, without_files: bool) -> Result<(), Failure> {
    let files = if without_files { Files::NotChecked } else { Files::Checked };
    let settings = config::load_with(file, files)?;
    let feeds = match settings.feeds.len() {
        0 => "no feed yet".to_owned(),
        1 => "1 feed".to_owned(),
        n => format!("{n} feeds"),
    };
    print(&format!("{}: good; gateway {} at {}, {feeds}\n", file.display(), settings.gateway.id, settings.gateway.site))
}
