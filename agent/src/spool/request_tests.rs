//! Messages of HTTP requests at the committer: in order or not at all, and another request under a key changes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::disk::{DiskFile, RealDisk, Space};
use super::tests::{Bench, drain, message};
use super::*;
use crate::record::{HttpOrigin, Message, Origin};

/// A real disk of which one sync fails when told to.
#[derive(Debug, Default)]
struct Failing(Arc<AtomicBool>);

#[derive(Debug)]
struct FailingFile(Box<dyn DiskFile>, Arc<AtomicBool>);

impl Failing {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile(file, Arc::clone(&self.0)))
    }
}

impl Disk for Failing {
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path, len).map(|file| self.wrap(file))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path).map(|file| self.wrap(file))
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
}

impl DiskFile for FailingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.1.swap(false, Ordering::Relaxed) { Err(io::Error::other("told to fail")) } else { self.0.sync_data() }
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// A request of these bodies under the key `k`.
fn request(name: u8, bodies: &[String]) -> Vec<Message> {
    let parts = bodies.iter().enumerate().map(|(at, body)| {
        let key = if at == 0 { "k".to_owned() } else { format!("k#{}", at + 1) };
        let origin = Origin::Http(HttpOrigin { peer: String::new(), media_type: "x/y".into(), request: [name; 32] });
        Message { origin, reply: Payload::new(Bytes::new()), ..message("a", &key, body) }
    });
    parts.collect()
}

fn bodies(name: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{name}{n}")).collect()
}

/// I8: a key stands for one request, whatever another one under it holds more.
#[test]
fn nothing_of_another_request_under_a_key_is_stored() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit(request(1, &bodies("one", 1)))[0].is_ok());
    let answers = parts.committer.commit(request(2, &bodies("other", 3)));
    assert_eq!(answers[0].as_ref().err(), Some(&AppendError::IdentityReused));
    assert!(answers[1..].iter().all(Result::is_err), "{answers:?}");
    // Both in one batch, in which it is not known yet what becomes of the first; and another one beside them.
    let mut batch = [request(1, &bodies("one", 1)), request(2, &bodies("other", 3))].concat();
    batch.extend(request(3, &bodies("more", 4)).split_off(3).into_iter().map(|message| Message { identity: None, ..message }));
    let answers = parts.committer.commit(batch);
    assert!(answers[0].as_ref().is_ok_and(Durable::is_duplicate) && answers[1..4].iter().all(Result::is_err), "{answers:?}");
    assert!(answers[4].is_ok(), "{answers:?}");
    assert_eq!(drain(&mut parts.reader, "a"), [(1, "one1".to_owned()), (2, "more4".to_owned())]);
}

/// I3: a request whose beginning failed on the disk has no end in front of it when it is repeated.
#[test]
fn behind_parts_that_failed_no_part_of_their_request_is_stored() {
    let bench = Bench::new();
    let fails = Failing::default();
    let told = Arc::clone(&fails.0);
    let board = Board::new([super::tests::feed("a"), super::tests::feed("b")]);
    let mut parts = open_with(bench.options(), Arc::new(fails), StateChoice::Sled, &board).unwrap();
    // Two of them fill a segment, of which the sync fails; the third finds room in its successor. A repetition came at the same time.
    let large: Vec<String> = (1..=3).map(|n| n.to_string().repeat(480 * limits::KIB as usize)).collect();
    let batch = [request(1, &large), request(1, &large)].concat();
    assert!(parts.committer.commit(vec![message("a", "0", "first")])[0].is_ok());
    told.store(true, Ordering::Relaxed);
    let answers = parts.committer.commit(batch);
    assert!(!told.load(Ordering::Relaxed), "a sync failed");
    assert!(answers.iter().all(Result::is_err), "{:?}", answers.iter().map(Result::is_ok).collect::<Vec<_>>());
    let answers = parts.committer.commit(request(1, &large));
    let seqs: Vec<u64> = answers.iter().map(|answer| answer.as_ref().unwrap().seq()).collect();
    assert_eq!(seqs, [2, 3, 4]);
    let stored: Vec<char> = drain(&mut parts.reader, "a").iter().map(|(_, body)| body.chars().next().unwrap()).collect();
    assert_eq!(stored, ['f', '1', '2', '3']);
}
