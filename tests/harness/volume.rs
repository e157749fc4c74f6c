//! Small volumes for tests about full and read-only disks: a tmpfs of its own, where the test may mount one (root), else nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

impl Volume {
    /// Mounts one of `mib` MiB at `path`. `None` where mounting is not permitted; say so and skip.
    pub fn mount(path: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a mount point");
        let size = format!("size={mib}m");
        let mounted = quiet("mount", &["-t", "tmpfs", "-o", &size, "siteward-test", &path.to_string_lossy()]);
        mounted.then(|| Self { path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn make_read_only(&self) {
        assert!(quiet("mount", &["-o", "remount,ro", &self.path.to_string_lossy()]), "the volume can be made read-only");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // lazily: whoever still holds a file of it is about to end
        quiet("umount", &["-l", &self.path.to_string_lossy()]);
    }
}

fn quiet(program: &str, arguments: &[&str]) -> bool {
    let run = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|s| s.success())
}
