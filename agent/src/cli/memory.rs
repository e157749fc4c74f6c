//! Makes the C library give memory back.
//!
//! glibc keeps a heap for every few threads and raises, at the first large buffer that is freed, the size from which buffers are mapped on their own.
//! With a journal, TLS and sled at work that costs some ten megabytes (measured: 43 instead of 32 MB while a backlog is captured). It reads its
//! settings from the environment when a process begins, so the process begins once more with them: same process id, same descriptors, same
//! arguments. Whoever set one of them already is right. Other C libraries ignore them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const SETTINGS: [(&str, &str); 3] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Returns where the settings are in place, or, with the error, where they cannot be put there. Called before anything else is, the log included.
pub fn settle() -> Option<io::Error> {
    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return None;
    }
    // By its path, so that `ps` and `pgrep` show its name; where that file is gone, as it is.
    if let Ok(path) = std::env::current_exe() {
        begin_again(path.as_os_str());
    }
    // It returns only where it failed; then more memory is used, and nothing else is different.
    Some(begin_again(OsStr::new("/proc/self/exe")))
}

fn begin_again(program: &OsStr) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    Command::new(program).args(arguments).envs(SETTINGS).arg0(name.as_deref().unwrap_or(OsStr::new("siteward"))).exec()
}
