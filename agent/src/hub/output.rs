//! The output: an append-only file of lines, synced once per batch.
//!
//! 1. `open` takes a lock that a second receiver cannot get, and cuts what stands after the last line end: a line that was not written whole
//!    was never acknowledged, so it comes again.
//! 2. `append` writes a batch at the durable length, then `fdatasync`s. Only then does the length move; only then may anything be answered.
//! 3. A batch that failed (full disk, write error) is cut off again and written whole at the next attempt, so no page of it is left from the
//!    failed one.
//! 4. `replay` reads lines back, in constant memory. What is not a line of ours is skipped and counted, never a reason to stop.
//!
//! The file holds message content: it is made with mode 0600.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::line::Line;
use crate::limits::HUB_LINE_BYTES_MAX;
use crate::spool::disk::DiskFile;

/// Why an output could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("cannot open the output {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("another receiver writes to {path}: stop it, or give this one another output")]
    Locked { path: PathBuf },
    #[error("cannot read the output {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// See the module.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    /// Everything before is synced and ends with a line end.
    durable: u64,
}

/// What `replay` met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub lines: u64,
    /// Lines that could not be read, and where the first one begins.
    pub unreadable: u64,
    pub first_unreadable_at: Option<u64>,
}

impl Output {
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Open { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OutputError::Locked { path: path.to_owned() }),
            Err(errno) => return Err(failed(errno.into())),
        }
        sync_parent(path).map_err(failed)?;
        let read = |source| OutputError::Read { path: path.to_owned(), source };
        let durable = after_last_line_end(&file).map_err(read)?;
        if durable != DiskFile::len(&file).map_err(read)? {
            tracing::info!(output = %path.display(), durable, "cut a line that was not written whole");
            file.set_len(durable).map_err(failed)?;
        }
        // What an earlier process wrote and did not sync is counted from here on.
        file.sync_all().map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, durable })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Writes and syncs. On an error nothing of `bytes` counts, and the same can be tried again.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(bytes, self.durable).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if let Err(cut) = self.file.set_len(self.durable) {
                tracing::warn!(output = %self.path.display(), %cut, "a failed batch could not be cut off; it is overwritten by the next attempt");
            }
            return Err(error);
        }
        self.durable += bytes.len() as u64;
        Ok(())
    }

    /// A fingerprint of the bytes before `offset`: whether a ledger belongs to this output. `None` where the output is shorter.
    pub fn fingerprint(&self, offset: u64) -> io::Result<Option<u32>> {
        if offset > self.durable {
            return Ok(None);
        }
        let length = offset.min(4096);
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, offset - length)?;
        Ok(Some(crc32c::crc32c(&bytes)))
    }

    /// Reads every line from `offset` on.
    pub fn replay<E>(&self, offset: u64, mut each: impl FnMut(&Line) -> Result<(), E>) -> Result<Replayed, E>
    where
        E: From<OutputError>,
    {
        let failed = |source| E::from(OutputError::Read { path: self.path.clone(), source });
        let mut file = self.file.try_clone().map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut reader = BufReader::with_capacity(1 << 16, file.take(self.durable.saturating_sub(offset)));
        let (mut done, mut at, mut text) = (Replayed::default(), offset, Vec::new());
        loop {
            text.clear();
            let mut taken = reader.by_ref().take(HUB_LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(failed)? as u64;
            if taken == 0 {
                return Ok(done);
            }
            let whole = text.last() == Some(&b'\n');
            if !whole {
                taken += reader.skip_until(b'\n').map_err(failed)? as u64;
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) if whole => {
                    each(&line)?;
                    done.lines += 1;
                }
                _ => {
                    done.unreadable += 1;
                    done.first_unreadable_at.get_or_insert(at);
                }
            }
            at += taken;
        }
    }
}

/// Makes the directory entry of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn after_last_line_end(file: &File) -> io::Result<u64> {
    let mut end = DiskFile::len(file)?;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::line::{LineKind, write_line};
    use super::*;

    fn lines(output: &Output, from: u64) -> (Vec<Option<u64>>, Replayed) {
        let mut seqs = Vec::new();
        let replayed = output
            .replay(from, |line| {
                seqs.push(line.seq);
                Ok::<(), OutputError>(())
            })
            .unwrap();
        (seqs, replayed)
    }

    fn line(seq: u64) -> Vec<u8> {
        let (mut line, mut bytes) = (Line::new(LineKind::Event, None), Vec::new());
        line.seq = Some(seq);
        write_line(&line, &mut bytes);
        bytes
    }

    #[test]
    fn a_second_receiver_on_the_same_output_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let first = Output::open(&path).unwrap();
        let error = Output::open(&path).unwrap_err();
        assert!(matches!(error, OutputError::Locked { .. }));
        assert!(error.to_string().contains("another receiver writes to"), "{error}");
        drop(first);
        Output::open(&path).unwrap();
    }

    /// I1: a half line is cut, at whatever byte the power went; whole lines stay.
    #[test]
    fn cut_at_any_byte_the_whole_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let (one, two) = (line(1), line(2));
        for cut in 0..=two.len() {
            std::fs::write(&path, [&one[..], &two[..cut]].concat()).unwrap();
            let mut output = Output::open(&path).unwrap();
            let kept = if cut == two.len() { vec![Some(1), Some(2)] } else { vec![Some(1)] };
            assert_eq!(lines(&output, 0).0, kept);
            output.append(&line(3)).unwrap();
            assert_eq!(lines(&output, output.durable() - line(3).len() as u64).0, [Some(3)]);
        }
    }

    #[test]
    fn what_is_not_a_line_is_skipped_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, [&line(1)[..], b"\0\0\0 damaged\n", &line(2)[..]].concat()).unwrap();
        let (seqs, replayed) = lines(&Output::open(&path).unwrap(), 0);
        assert_eq!(seqs, [Some(1), Some(2)]);
        assert_eq!(replayed, Replayed { lines: 2, unreadable: 1, first_unreadable_at: Some(line(1).len() as u64) });
    }

    #[test]
    fn a_batch_that_does_not_fit_leaves_nothing_and_is_written_whole_later() {
        // /dev/full fails every write with ENOSPC.
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(&dir.path().join("out.jsonl")).unwrap();
        output.append(&line(1)).unwrap();
        let good = std::mem::replace(&mut output.file, full);
        assert_eq!(output.append(&line(2)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        output.file = good;
        assert_eq!(lines(&output, 0).0, [Some(1)]);
        output.append(&line(2)).unwrap();
        assert_eq!(lines(&output, 0).0, [Some(1), Some(2)]);
    }
}
