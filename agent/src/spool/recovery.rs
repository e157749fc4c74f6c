//! What the journal says after a stop, clean or not (I8, I9).
//!
//! ```text
//!   for each lane, oldest segment first
//!     footer whole ............ believed, nothing else is read
//!     no footer ............... scanned, past damage, to the end or to the place its successor's header names (what stands behind that was
//!                               never answered); the whole records are copied to a new file with a footer, which takes its place. What was
//!                               read may stand in the page cache only (the process was killed before its sync, or that sync failed):
//!                               records count when they are on disk, so they are written once more. And a cut must not be forgotten when
//!                               the successor that named it is gone.
//!   heads = the furthest of: heads file, spans of the segments, heads named in segment headers
//! ```
//!
//! Nothing is ever appended to an old segment and no whole record is discarded. A hole between what the heads know and what the segments hold
//! is found and named by the reader, as a gap.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenError;
use super::disk::{Disk, DiskFile};
use super::format::{self, DATA_START, FOOTER_RESERVE, FOOTER_TAIL, PredecessorV1, RECORD_MAGIC, SegmentHeaderV1};
use super::heads::HeadsV1;
use super::index::{Feed, Segment, Span, newest};
use super::scan::{Located, Scan, read_past_bad_sectors};
use super::segment::{footer_of, lane_directory};
use super::torn::{Met, Torn};
use crate::contract::Mark;
use crate::limits;
use crate::record::{FeedId, Lane, Link};
use crate::status::board::Board;
use crate::status::condition::Code;

/// Sectors of one file that may be unreadable while the device is still believed.
const BAD_SECTORS_MAX: u64 = 64;

/// Bytes copied at once.
const COPY_BYTES: usize = 256 * limits::KIB as usize;

/// A preallocated file of one segment, for the moment when the disk is full.
pub const SPARE: &str = "spare.seg";

/// Where damaged segments are kept.
pub const DAMAGED_DIRECTORY: &str = "damaged";

/// One lane after recovery.
#[derive(Debug, Default)]
pub struct LaneFound {
    pub segments: BTreeMap<u64, Segment>,
    headers: Vec<SegmentHeaderV1>,
    pub last: Option<PredecessorV1>,
    pub next_ordinal: u64,
}

/// A segment file whose header is known.
struct Candidate {
    header: SegmentHeaderV1,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Sectors that could not be read so far.
    bad: u64,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    |source| OpenError::Io { path: path.to_owned(), source }
}

fn read_header(file: &dyn DiskFile, bad: &mut u64) -> io::Result<Option<SegmentHeaderV1>> {
    let mut bytes = vec![0u8; format::SEGMENT_HEADER_COPY as usize];
    for copy in 0..2 {
        let n = read_past_bad_sectors(file, copy * format::SEGMENT_HEADER_COPY, &mut bytes, bad)?;
        if let Some(header) = format::decode_segment_header(&bytes[..n]) {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

fn read_footer(file: &dyn DiskFile, header: &SegmentHeaderV1, bad: &mut u64) -> io::Result<Option<format::FooterV1>> {
    let len = file.len()?;
    if len < DATA_START + FOOTER_TAIL as u64 {
        return Ok(None);
    }
    let mut tail = [0u8; FOOTER_TAIL];
    read_past_bad_sectors(file, len - FOOTER_TAIL as u64, &mut tail, bad)?;
    let Some(footer_len) = format::footer_len(&tail).filter(|n| len - DATA_START >= *n) else { return Ok(None) };
    let mut bytes = vec![0u8; footer_len as usize];
    read_past_bad_sectors(file, len - footer_len, &mut bytes, bad)?;
    let footer = format::decode_footer(&header.id, &bytes);
    Ok(footer.filter(|footer| footer.data_end == len - footer_len))
}

/// Whether anything in the file looks like a record.
fn holds_records(file: &dyn DiskFile, bad: &mut u64) -> io::Result<bool> {
    let (mut at, len) = (DATA_START, file.len()?);
    let mut bytes = vec![0u8; COPY_BYTES];
    while at < len {
        let n = read_past_bad_sectors(file, at, &mut bytes, bad)?;
        if n == 0 {
            break;
        }
        if bytes[..n].windows(RECORD_MAGIC.len()).any(|window| window == RECORD_MAGIC) {
            return Ok(true);
        }
        at += (n as u64).saturating_sub(RECORD_MAGIC.len() as u64 - 1).max(1);
    }
    Ok(false)
}

/// Moves a file that is of no use to the agent, and may be to an expert, out of the journal.
pub fn set_aside(disk: &dyn Disk, spool: &Path, file: &Path) -> io::Result<PathBuf> {
    let directory = spool.join(DAMAGED_DIRECTORY);
    let kept = disk.list(&directory)?;
    if kept.len() >= limits::DAMAGED_FILES_MAX
        && let Some(oldest) = kept.first()
    {
        disk.remove(&directory.join(oldest))?;
    }
    let lane = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let to = directory.join(format!("{name}.{lane}"));
    disk.rename(file, &to)?;
    disk.sync_dir(&directory)?;
    Ok(to)
}

/// Recovers one lane.
pub fn recover_lane(disk: &dyn Disk, spool: &Path, lane: Lane, board: &Board) -> Result<LaneFound, OpenError> {
    let directory = lane_directory(spool, lane);
    let mut found = LaneFound::default();
    let mut files: BTreeMap<u64, Candidate> = BTreeMap::new();
    for name in disk.list(&directory).map_err(failed(&directory))? {
        let path = directory.join(&name);
        let Some(ordinal) = name.strip_suffix(".seg").and_then(|stem| u64::from_str_radix(stem, 16).ok()) else {
            disk.remove(&path).map_err(failed(&path))?;
            continue;
        };
        found.next_ordinal = found.next_ordinal.max(ordinal + 1);
        let file: Arc<dyn DiskFile> = disk.open_read(&path).map_err(failed(&path))?.into();
        let mut bad = 0;
        match read_header(&*file, &mut bad).map_err(failed(&path))? {
            Some(header) if header.ordinal == ordinal => {
                files.insert(ordinal, Candidate { header, path, file, bad });
            }
            _ => unreadable(disk, spool, &path, &*file, bad, board)?,
        }
    }
    let cuts: BTreeMap<_, _> = files.values().filter_map(|known| known.header.predecessor).map(|p| (p.id, p.valid_len)).collect();
    for (ordinal, known) in files {
        let cut = cuts.get(&known.header.id).copied();
        if let Some(segment) = recover_segment(disk, spool, &known, cut, board)? {
            found.last = Some(PredecessorV1 { id: known.header.id, valid_len: segment.durable_end });
            found.segments.insert(ordinal, segment);
        }
        found.headers.push(known.header);
    }
    // What was removed must not come back without what cut it, nor the other way round.
    disk.sync_dir(&directory).map_err(failed(&directory))?;
    Ok(found)
}

/// More sectors than this that cannot be read are a device in trouble, not a bad place on it: nothing is touched, the start is tried again.
fn check_device(path: &Path, bad: u64) -> Result<(), OpenError> {
    if bad < BAD_SECTORS_MAX {
        return Ok(());
    }
    Err(OpenError::Io { path: path.to_owned(), source: io::Error::other(format!("{bad} sectors of it cannot be read")) })
}

fn unreadable(disk: &dyn Disk, spool: &Path, path: &Path, file: &dyn DiskFile, mut bad: u64, board: &Board) -> Result<(), OpenError> {
    let holds_records = holds_records(file, &mut bad).map_err(failed(path))?;
    check_device(path, bad)?;
    if holds_records || bad > 0 {
        return keep(disk, spool, path, "both headers of a segment are damaged", board);
    }
    // Its making was interrupted before anything could be written to it.
    disk.remove(path).map_err(failed(path))
}

fn keep(disk: &dyn Disk, spool: &Path, path: &Path, what: &str, board: &Board) -> Result<(), OpenError> {
    let kept = set_aside(disk, spool, path).map_err(failed(path))?;
    let text = format!("{what}; it is kept as {}; what had been acknowledged of it is reported as a gap", kept.display());
    board.raise(Code::SpoolDamaged, &path.display().to_string(), text);
    Ok(())
}

fn span_of(span: &format::SpanV1) -> Option<(FeedId, Span)> {
    let feed = FeedId::new(&span.feed).ok()?;
    Some((
        feed,
        Span {
            first: span.first,
            last: span.last,
            count: span.count,
            chain: span.chain,
            first_received_ms: span.first_received_ms,
            files: span.files,
        },
    ))
}

fn recover_segment(
    disk: &dyn Disk,
    spool: &Path,
    known: &Candidate,
    cut: Option<u64>,
    board: &Board,
) -> Result<Option<Segment>, OpenError> {
    let Candidate { header, path, file, bad } = known;
    let mut bad = *bad;
    let len = file.len().map_err(failed(path))?;
    let mut segment = Segment::new(header, path.clone(), len, DATA_START);
    let footer = read_footer(&**file, header, &mut bad).map_err(failed(path))?;
    if let Some(footer) = footer.filter(|footer| cut.is_none_or(|cut| footer.data_end <= cut)) {
        segment.durable_end = footer.data_end;
        segment.spans = footer.spans.iter().filter_map(span_of).collect();
        return Ok(Some(segment));
    }
    let scanned = scan(&mut segment, header, file, cut, bad).map_err(failed(path))?;
    check_device(path, scanned.bad_sectors)?;
    report(&scanned, &segment, cut, board);
    if segment.spans.is_empty() && cut.is_none_or(|cut| cut <= DATA_START) {
        if scanned.bad_sectors > 0 || (scanned.torn && cut.is_none()) {
            keep(disk, spool, path, "no record of a segment is whole", board)?;
        } else {
            // Made and never used. A successor may still name it; it has nothing that could be cut.
            disk.remove(path).map_err(failed(path))?;
        }
        return Ok(None);
    }
    if scanned.bad_sectors > 0 {
        // What cannot be read now may be readable another time: the file stays as it is.
        segment.damaged = true;
        disk.open(path).and_then(|file| wipe(&*file, &scanned.left_out).and_then(|()| file.sync_data())).map_err(failed(path))?;
    } else if !segment.spans.is_empty() {
        segment.file_bytes = settle_down(disk, spool, header, (&segment, &scanned.left_out), file, board)?;
    }
    Ok(Some(segment))
}

/// What a scan met.
struct Scanned {
    /// Bytes that are no record, before the end of the last whole one.
    damaged: u64,
    /// The furthest place a whole record says had been synced.
    synced_through: u64,
    /// Where damage was first met.
    damaged_at: Option<u64>,
    /// Something other than zeroes stands behind the last whole record.
    torn: bool,
    bad_sectors: u64,
    /// Where records start that do not count though they are whole (see `torn`).
    left_out: Vec<u64>,
}

fn scan(segment: &mut Segment, header: &SegmentHeaderV1, file: &Arc<dyn DiskFile>, cut: Option<u64>, bad: u64) -> io::Result<Scanned> {
    let len = file.len()?;
    let end = cut.unwrap_or(len).min(len);
    let mut scan = Scan::new(file.clone(), segment.id, DATA_START).tolerate();
    let mut met = Scanned { damaged: 0, synced_through: 0, damaged_at: None, torn: false, bad_sectors: bad, left_out: Vec::new() };
    let mut torn = Torn::new(&header.bases, cut.is_some());
    // Headers that are whole while their body is not: noted when a whole record follows, else they are the torn tail.
    let mut doubtful = Vec::new();
    while let Some(located) = scan.next(end)? {
        let whole = scan.body_is_whole(&located)?;
        let Ok(feed) = FeedId::new(&located.header.feed) else { continue };
        if located.skipped > 0 || !whole {
            met.damaged_at.get_or_insert(located.offset - located.skipped);
        }
        if located.skipped > 0 {
            torn.damage(located.offset);
        }
        let record = met_record(feed, &located, whole);
        doubtful.extend(torn.proven_by(&record));
        if whole {
            met.damaged += located.skipped;
            met.synced_through = met.synced_through.max(located.header.synced_through);
        }
        doubtful.extend(torn.take(record));
        if whole {
            for record in doubtful.drain(..) {
                segment.note(&record.feed, record.seq, 1, record.chain, record.received_at_ms, record.files);
                segment.durable_end = segment.durable_end.max(record.end);
            }
        }
    }
    met.left_out = torn.left_out();
    met.torn = !met.left_out.is_empty();
    met.left_out.retain(|start| *start < segment.durable_end);
    let mut rest = vec![0u8; (end.saturating_sub(segment.durable_end)).min(COPY_BYTES as u64) as usize];
    met.bad_sectors += scan.bad_sectors();
    let n = read_past_bad_sectors(&**file, segment.durable_end, &mut rest, &mut met.bad_sectors)?;
    met.torn |= rest[..n].iter().any(|b| *b != 0);
    Ok(met)
}

fn met_record(feed: FeedId, located: &Located, whole: bool) -> Met {
    let header = &located.header;
    Met {
        feed,
        seq: header.seq,
        chain: header.chain(),
        received_at_ms: header.received_at_ms,
        files: header.files(),
        start: located.offset,
        end: located.end(),
        synced_through: header.synced_through,
        whole,
    }
}

/// Makes what is left out unfindable.
fn wipe(file: &dyn DiskFile, left_out: &[u64]) -> io::Result<()> {
    left_out.iter().try_for_each(|start| file.write_at(*start, &[0; format::PREFIX_BYTES]))
}

fn report(met: &Scanned, segment: &Segment, cut: Option<u64>, board: &Board) {
    let subject = segment.path.display().to_string();
    let known_durable = cut.unwrap_or(0).max(met.synced_through);
    if met.damaged_at.is_some_and(|at| at < known_durable) || cut.is_some_and(|cut| segment.durable_end < cut) {
        let text = format!("acknowledged data before offset {known_durable} is damaged; the records concerned are reported as gaps");
        board.raise(Code::SpoolDamaged, &subject, text);
    } else if met.torn && cut.is_none() {
        let text = "the last stop was not clean: a record at the end is torn or damaged, which of the two cannot be known; if it was only being \
                    written, its sender was not answered and sends it again";
        board.raise(Code::SpoolTornTail, &subject, text);
    }
}

/// Copies the whole records of a segment without a footer to a new file with a footer, which takes its place; returns that file's length.
fn settle_down(
    disk: &dyn Disk,
    spool: &Path,
    header: &SegmentHeaderV1,
    (segment, left_out): (&Segment, &[u64]),
    file: &Arc<dyn DiskFile>,
    board: &Board,
) -> Result<u64, OpenError> {
    let copy = segment.path.with_extension("copy");
    let directory = segment.path.parent().expect("a segment lies in its lane's directory");
    let footer = format::encode_footer(&footer_of(segment));
    let len = segment.durable_end + footer.len() as u64;
    let target = match disk.create(&copy, len) {
        Ok(target) => Ok(target),
        Err(error) if super::lane::is_full(&error) => from_spare(disk, spool, &copy, len).map_err(|_| error),
        Err(error) => Err(error),
    };
    let target = match target {
        Ok(target) => target,
        Err(error) if super::lane::is_full(&error) => return sync_in_place(disk, segment, left_out, board),
        Err(source) => return Err(OpenError::Io { path: copy, source }),
    };
    let copied = (|| {
        // Both headers are written anew: one of them may be damaged.
        let header = format::encode_segment_header(header);
        target.write_at(0, &header)?;
        target.write_at(format::SEGMENT_HEADER_COPY, &header)?;
        let mut bytes = vec![0u8; COPY_BYTES];
        let mut at = DATA_START;
        while at < segment.durable_end {
            let want = bytes.len().min((segment.durable_end - at) as usize);
            let n = file.read_at(at, &mut bytes[..want])?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            target.write_at(at, &bytes[..n])?;
            at += n as u64;
        }
        wipe(&*target, left_out)?;
        target.write_at(at, &footer)?;
        target.set_len(len)?;
        target.sync_data()?;
        disk.rename(&copy, &segment.path)?;
        disk.sync_dir(directory)
    })();
    copied.map(|()| len).map_err(|source| OpenError::Io { path: copy, source })
}

/// Takes the spare file: its blocks are there even when the disk is full.
pub fn from_spare(disk: &dyn Disk, spool: &Path, copy: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
    let spare = spool.join(SPARE);
    if disk.open_read(&spare)?.len()? < len {
        return Err(io::ErrorKind::StorageFull.into());
    }
    disk.rename(&spare, copy)?;
    disk.open(copy)
}

/// The last resort on a full disk without a spare: the file as it is.
fn sync_in_place(disk: &dyn Disk, segment: &Segment, left_out: &[u64], board: &Board) -> Result<u64, OpenError> {
    let subject = segment.path.display().to_string();
    board.raise(Code::SpoolTornTail, &subject, "the disk is full, so the end of the journal was synced in place; make room on the volume");
    let synced = disk.open(&segment.path).and_then(|file| {
        wipe(&*file, left_out)?;
        // A cut must outlive the successor that names it.
        file.set_len(segment.durable_end)?;
        file.sync_data()?;
        file.len()
    });
    synced.map_err(failed(&segment.path))
}

/// Every feed's head, marks and lineage, from all that is known.
pub fn feeds(heads: Option<&HeadsV1>, lanes: &[LaneFound; 3]) -> BTreeMap<FeedId, Feed> {
    let mut feeds: BTreeMap<FeedId, Feed> = BTreeMap::new();
    for head in heads.iter().flat_map(|heads| &heads.feeds) {
        let (Ok(id), Some(lane)) = (FeedId::new(&head.feed), Lane::ALL.get(usize::from(head.lane))) else { continue };
        let feed = Feed {
            lane: *lane,
            configured: false,
            head: Mark { seq: head.head_seq, chain: head.head_chain },
            settled: Mark { seq: head.settled_seq, chain: head.settled_chain },
            lineage: head.lineage.clone(),
            files: head.files,
        };
        feeds.insert(id, feed);
    }
    for (lane, found) in Lane::ALL.into_iter().zip(lanes) {
        for (header, base) in found.headers.iter().flat_map(|header| header.bases.iter().map(move |base| (header, base))) {
            let Ok(id) = FeedId::new(&base.feed) else { continue };
            let has_records = found.segments.get(&header.ordinal).is_some_and(|segment| segment.spans.contains_key(&id));
            let feed = feeds.entry(id).or_insert_with(|| Feed::new(lane));
            if base.head_seq > feed.head.seq {
                feed.head = Mark { seq: base.head_seq, chain: base.head_chain };
            }
            feed.files = newest(feed.files, base.files);
            // An incarnation without records of this feed was followed by another from the same place.
            if has_records {
                add_link(feed, Link { incarnation: header.incarnation, follows: base.follows });
            }
        }
        for (id, span) in found.segments.values().flat_map(|segment| &segment.spans) {
            let feed = feeds.entry(id.clone()).or_insert_with(|| Feed::new(lane));
            if span.last > feed.head.seq {
                feed.head = Mark { seq: span.last, chain: span.chain };
            }
            feed.files = newest(feed.files, span.files);
        }
    }
    for feed in feeds.values_mut() {
        feed.lineage.sort_by_key(Link::base_seq);
        feed.prune();
    }
    feeds
}

fn add_link(feed: &mut Feed, link: Link) {
    if !feed.lineage.iter().any(|known| known.incarnation == link.incarnation) {
        feed.lineage.push(link);
    }
}

/// Makes the spare file if it is missing and there is room; without it the agent works all the same. Returns the bytes it takes.
pub fn prepare_spare(disk: &dyn Disk, spool: &Path, bytes: u64) -> u64 {
    let path = spool.join(SPARE);
    if let Ok(len) = disk.open_read(&path).and_then(|file| file.len()) {
        return len;
    }
    let made = disk.create(&path, bytes + FOOTER_RESERVE).and_then(|file| file.sync_data()).and_then(|()| disk.sync_dir(spool));
    match made {
        Ok(()) => bytes + FOOTER_RESERVE,
        Err(error) => {
            tracing::warn!(path = %path.display(), "no spare segment could be prepared: {error}");
            0
        }
    }
}
