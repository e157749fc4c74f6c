//! A feed's directory as a capability: everything is opened from its descriptor, one component at a time, and no symbolic link is ever followed
//! below it. Nobody who may write to the share can make the agent read, move or delete anything outside.
//!
//! The directory itself may be reached through links: it is named by the configuration. It is opened anew for every scan, so that a share that
//! was mounted again is the new one, and whether it is mounted at all is looked up in `/proc/self/mountinfo` *after* opening (an automounter
//! mounts on access).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};

use super::settle::Seen;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link, device, pipe or socket.
    Other,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub seen: Seen,
    /// When name or owner changed; seconds and nanoseconds.
    pub changed: (i64, u32),
}

/// What is in a directory.
#[derive(Debug)]
pub struct Listed {
    pub names: Vec<(OsString, Stat)>,
    /// There are no others.
    pub is_whole: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Share {
    root: OwnedFd,
    /// Device and inode of the directory itself.
    pub identity: (u64, u64),
}

#[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, clippy::unnecessary_cast, reason = "the kernel's types differ by machine")]
fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    };
    let seen = Seen { size: stat.st_size as u64, modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32), inode: stat.st_ino as u64 };
    Stat { kind, seen, changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32) }
}

/// Of an open file.
pub fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(stat_of(&rustix::fs::fstat(file)?))
}

fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl Share {
    #[allow(clippy::unnecessary_cast, reason = "the kernel's types differ by machine")]
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        let stat = rustix::fs::fstat(&root)?;
        Ok(Self { root, identity: (stat.st_dev as u64, stat.st_ino as u64) })
    }

    /// Opens a directory below; `relative` may be empty.
    fn directory(&self, relative: &Path) -> io::Result<OwnedFd> {
        let mut at = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for component in relative.components() {
            let Component::Normal(name) = component else { return Err(refused("not a plain path below the feed's directory")) };
            at = rustix::fs::openat(&at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }

    fn place<'p>(&self, relative: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = relative.file_name().ok_or_else(|| refused("a path without a name"))?;
        Ok((self.directory(relative.parent().unwrap_or(Path::new("")))?, name))
    }

    /// The file for reading. Refused if it is not a plain file.
    pub fn open_file(&self, relative: &Path) -> io::Result<File> {
        let (directory, name) = self.place(relative)?;
        // A pipe must not make us wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
        if stat_file(&file)?.kind == Kind::File { Ok(file) } else { Err(refused("not a plain file")) }
    }

    pub fn stat(&self, relative: &Path) -> io::Result<Stat> {
        let (directory, name) = self.place(relative)?;
        Ok(stat_of(&rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Names in a directory below with what they are, at most `max`.
    pub fn list(&self, relative: &Path, max: usize) -> io::Result<Listed> {
        let mut names = Vec::new();
        let is_whole = self.visit(relative, max, |name, stat| {
            names.push((name.to_owned(), stat));
            true
        })?;
        Ok(Listed { names, is_whole })
    }

    /// Shows the names in a directory below with what they are, at most `max` and as long as `visitor` says true; what vanishes meanwhile is left
    /// out. False: there are more.
    pub fn visit(&self, relative: &Path, max: usize, mut visitor: impl FnMut(&OsStr, Stat) -> bool) -> io::Result<bool> {
        let directory = self.directory(relative)?;
        let mut seen = 0;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if seen == max {
                return Ok(false);
            }
            match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    if !visitor(name, stat_of(&stat)) {
                        return Ok(false);
                    }
                }
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
            seen += 1;
        }
        Ok(true)
    }

    /// Makes a directory at the top, unless it is there.
    pub fn make_directory(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o770)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.directory(Path::new(name)).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a file to a name that must not exist.
    pub fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_directory, from_name), (to_directory, to_name)) = (self.place(from)?, self.place(to)?);
        match rustix::fs::renameat_with(&from_directory, from_name, &to_directory, to_name, RenameFlags::NOREPLACE) {
            // Shares over the network do not know it; there the look before has to do, and nobody else writes to done/.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                match rustix::fs::statat(&to_directory, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(rustix::io::Errno::NOENT) => Ok(rustix::fs::renameat(&from_directory, from_name, &to_directory, to_name)?),
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) => Err(error.into()),
                }
            }
            other => Ok(other?),
        }
    }

    /// Writes a small new file.
    pub fn write_new(&self, relative: &Path, bytes: &[u8]) -> io::Result<()> {
        let (directory, name) = self.place(relative)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o660))?);
        file.write_all(bytes)
    }

    pub fn remove(&self, relative: &Path) -> io::Result<()> {
        let (directory, name) = self.place(relative)?;
        Ok(rustix::fs::unlinkat(&directory, name, AtFlags::empty())?)
    }

    /// Makes names in a directory below durable, as far as the share can.
    pub fn sync(&self, relative: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.directory(relative)?.as_fd())?)
    }
}

/// Whether something other than the root is mounted at `path` or above it, and not above `below`.
pub fn is_mounted(path: &Path, below: &Path) -> io::Result<bool> {
    let path = path.canonicalize()?;
    let below = below.canonicalize().unwrap_or_else(|_| below.to_owned());
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&table).any(|mount| mount != Path::new("/") && path.starts_with(&mount) && mount.starts_with(&below)))
}

fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|b| *b == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        let is_trap = *fields.get(separator + 1)? == b"autofs";
        let point = unescape(fields.get(4)?);
        (!is_trap).then(|| PathBuf::from(OsStr::from_bytes(&point)))
    })
}

/// Blanks and the like stand as `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            out.push(byte);
            at += 4;
        } else {
            out.push(field[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_share() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), inside.join("file")).unwrap();
        let share = Share::open(&inside).unwrap();
        for path in ["../out/secret", "link/secret", "file", "sub/../../out/secret", "/etc/passwd"] {
            assert!(share.open_file(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(share.stat(Path::new("file")).unwrap().kind, Kind::Other);
        assert!(share.rename_new(Path::new("file"), Path::new("link/moved")).is_err());
        assert!(share.remove(Path::new("link/secret")).is_err());
        assert!(outside.join("secret").exists());
    }

    #[test]
    fn a_pipe_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let share = Share::open(directory.path()).unwrap();
        assert_eq!(share.open_file(Path::new("pipe")).unwrap_err().to_string(), "not a plain file");
    }

    #[test]
    fn mount_points_are_read_with_blanks_and_without_traps() {
        let table = b"36 35 98:0 / / rw - ext4 /dev/sda1 rw\n37 36 0:40 / /srv/my\\040share rw shared:1 - cifs //nas/x rw\n\
                      38 36 0:41 / /mnt/auto rw - autofs systemd-1 rw\nrubbish\n";
        let found: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(found, ["/", "/srv/my share"].map(PathBuf::from));
    }

    #[test]
    fn nothing_is_replaced_by_a_move() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "a").unwrap();
        std::fs::write(directory.path().join("b"), "b").unwrap();
        let share = Share::open(directory.path()).unwrap();
        assert_eq!(share.rename_new(Path::new("a"), Path::new("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(directory.path().join("b")).unwrap(), b"b");
    }
}
