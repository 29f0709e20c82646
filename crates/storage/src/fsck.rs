//! Checks a log that nobody has open, byte for byte, and the index on disk beside it, and changes nothing. Every byte that was written and is still needed
//! is covered: headers and payloads by their checksums, padding by being zero, fragments by the sum over their extents,
//! numbers and positions by being unique.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use base::Disk;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::datadir::INDEX_FILE;
use crate::frame::{HEADER, Header, Kind};
use crate::index::Entry;
use crate::index_db::IndexDb;
use crate::lane_records::unpack_arrival;
use crate::payload::take_records;
use crate::records::ShardId;
use crate::recover::{Found, find_segments, gather_control, proven_ends};
use crate::scan::Depth;
use crate::state::Place;
use crate::{Error, IndexHome, StreamId};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The tail of an unfinished write. The next open cuts it; nobody had been told that it was durable.
    TornTail,
    /// The index on disk does not say what the log says. The log is the truth: without the file the next start builds it
    /// again.
    Index,
    /// Durable data that is not what was written.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file.
    pub file: String,
    /// Segment id.
    pub segment: u64,
    /// Where in the file.
    pub offset: u64,
    /// The stream it belongs to, where that is known.
    pub stream: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// Segments read.
    pub segments: u64,
    /// Frames read.
    pub frames: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Fragments that can be read.
    pub fragments: u64,
    /// Records that can be read.
    pub records: u64,
    /// Rows of the fragment index on disk that were held against the log.
    pub index_rows: u64,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl FsckReport {
    /// True if durable data is damaged.
    pub fn has_damage(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Damage)
    }
}

impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} segments, {} frames, {} bytes; {} fragments and {} records can be read",
            self.segments, self.frames, self.bytes, self.fragments, self.records
        )?;
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::TornTail => "torn tail",
                Severity::Index => "INDEX",
                Severity::Damage => "DAMAGE",
            };
            write!(
                f,
                "{word}: {} (segment {}) at {}",
                finding.file, finding.segment, finding.offset
            )?;
            if let Some(stream) = finding.stream {
                write!(f, ", stream {stream}")?;
            }
            writeln!(f, ": {}", finding.what)?;
        }
        if self.findings.is_empty() {
            writeln!(f, "no damage")?;
        }
        Ok(())
    }
}

/// Checks the log on `disk`. An error means that it could not be read at all; what is wrong with it is in the report.
pub fn fsck(disk: &Arc<dyn Disk>) -> Result<FsckReport, Error> {
    fsck_with_index(disk, &IndexHome::memory())
}

/// As [`fsck`], and holds the index on disk against the log.
pub fn fsck_with_index(disk: &Arc<dyn Disk>, index: &IndexHome) -> Result<FsckReport, Error> {
    let (found, _) = find_segments(disk, Depth::Everything)?;
    let proven = proven_ends(&found);
    let control = gather_control(&found);
    let mut check = Check {
        live: live_extents(&found, &control),
        report: FsckReport {
            segments: found.len() as u64,
            ..FsckReport::default()
        },
        control,
        frames: HashMap::new(),
        numbers: HashSet::new(),
        positions: HashSet::new(),
        records: BTreeMap::new(),
    };
    for f in &found {
        let proven = proven.get(&f.scan.id).copied().unwrap_or(0);
        check.segment(f, proven).map_err(|e| Error::io("read", &f.name, e))?;
    }
    for f in &found {
        check.commits(f);
    }
    check.overlaps();
    check.index(&found, index);
    check
        .report
        .findings
        .sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    check.report.findings.dedup();
    Ok(check.report)
}

type Extents = BTreeSet<(u64, u32)>;

/// Places of the extents that fragments need.
fn live_extents(found: &[Found], control: &Control) -> Extents {
    let commits = found
        .iter()
        .flat_map(|f| &f.scan.frames)
        .filter_map(|f| Some((f.header.stream, f.commit.as_deref()?)));
    let live = commits.filter(|(stream, entry)| is_live(control, StreamId(*stream), entry));
    live.flat_map(|(_, entry)| entry.place.extents.iter().map(|e| (e.segment, e.offset)))
        .collect()
}

fn is_live(control: &Control, stream: StreamId, entry: &Entry<Place>) -> bool {
    let gone = |s: &crate::control::StreamControl| s.gone.contains(entry.info.position);
    !control.deleted.contains(&stream) && !control.streams.get(&stream).is_some_and(gone)
}

/// End of a frame of records, exclusive, and where it lies: file, segment, offset. Keyed by its first index.
type RecordFrame = (u64, String, u64, u64);

struct Check {
    control: Control,
    live: Extents,
    report: FsckReport,
    /// Headers of all extents.
    frames: HashMap<(u64, u32), Header>,
    numbers: HashSet<(u64, u64)>,
    positions: HashSet<(u64, u64)>,
    records: BTreeMap<(StreamId, ShardId, u64), RecordFrame>,
}

impl Check {
    fn find(&mut self, severity: Severity, f: &Found, offset: u64, stream: Option<u64>, what: impl Into<String>) {
        self.report.findings.push(Finding {
            severity,
            file: f.name.clone(),
            segment: f.scan.id,
            offset,
            stream,
            what: what.into(),
        });
    }

    /// Everything that can be said of a segment by itself.
    fn segment(&mut self, f: &Found, proven: u64) -> io::Result<()> {
        let severity = |offset| {
            if offset < proven {
                Severity::Damage
            } else {
                Severity::TornTail
            }
        };
        for gap in &f.scan.gaps {
            let what = format!("{} bytes are no frames", gap.to - gap.from);
            self.find(severity(gap.from), f, gap.from, None, what);
        }
        if f.scan.end < proven {
            let what = format!("no frames up to {proven}, where the durable part ends");
            self.find(Severity::Damage, f, f.scan.end, None, what);
        } else if self.has_unreadable_tail(f)? {
            self.find(
                Severity::TornTail,
                f,
                f.scan.end,
                None,
                "what follows the last frame is no frame",
            );
        }
        if f.scan.start.is_none() {
            self.find(severity(0), f, 0, None, "the frame that opens the segment is damaged");
        }
        for frame in &f.scan.frames {
            let header = &frame.header;
            self.report.frames += 1;
            self.report.bytes += u64::from(header.stride);
            if header.kind == Kind::Extent {
                let offset = u32::try_from(header.offset).unwrap_or(u32::MAX);
                self.frames.insert((header.segment, offset), *header);
            }
            let needed = self.is_needed(header);
            let at = severity(header.offset);
            if !frame.sound && needed {
                let what = format!("the payload of a {:?} frame fails its checksum", header.kind);
                self.find(at, f, header.offset, Some(header.stream), what);
            }
            if header.proven > header.offset {
                self.find(
                    at,
                    f,
                    header.offset,
                    Some(header.stream),
                    "states as durable what lies behind it",
                );
            }
            if needed && !padding_is_zero(f, header)? {
                self.find(
                    at,
                    f,
                    header.offset,
                    Some(header.stream),
                    "bytes in the padding of a frame",
                );
            }
            if header.kind == Kind::Records && frame.sound && needed {
                self.records(f, header)?;
            }
        }
        Ok(())
    }

    /// Payloads of dead extents may be punched out, those of trimmed records may rot.
    fn is_needed(&self, header: &Header) -> bool {
        match header.kind {
            Kind::Extent => {
                let offset = u32::try_from(header.offset).unwrap_or(u32::MAX);
                self.live.contains(&(header.segment, offset))
            }
            Kind::Records => {
                let last = header.subject.a + unpack_arrival(header.subject.b).1;
                let shard = self.control.shard(StreamId(header.stream), ShardId(header.subject.c));
                shard.is_some_and(|s| last > s.gone_below)
            }
            _ => true,
        }
    }

    /// True if bytes behind the last frame are neither zero nor a frame of another segment (of the file's earlier use).
    fn has_unreadable_tail(&self, f: &Found) -> io::Result<bool> {
        let sealed = f.scan.frames.last().is_some_and(|f| f.header.kind == Kind::Seal);
        let mut head = [0; HEADER];
        let got = f.file.read_at(&mut head, f.scan.end)?;
        let head = head.get(..got).unwrap_or_default();
        Ok(!sealed && head.iter().any(|b| *b != 0) && Header::decode(head).is_none())
    }

    fn records(&mut self, f: &Found, header: &Header) -> io::Result<()> {
        let mut payload = vec![0; header.payload_len as usize];
        f.file.read_at(&mut payload, header.offset + HEADER as u64)?;
        let (_, count) = unpack_arrival(header.subject.b);
        if take_records(&Bytes::from(payload), usize::try_from(count).unwrap_or(0)).is_none() {
            self.find(
                Severity::Damage,
                f,
                header.offset,
                Some(header.stream),
                "records that cannot be decoded",
            );
            return Ok(());
        }
        self.report.records += count;
        let key = (StreamId(header.stream), ShardId(header.subject.c), header.subject.a);
        let value = (header.subject.a + count, f.name.clone(), header.segment, header.offset);
        if self.records.insert(key, value).is_some() {
            self.find(
                Severity::Damage,
                f,
                header.offset,
                Some(header.stream),
                "an index is used twice",
            );
        }
        Ok(())
    }

    /// Every fragment: its extents are there, fit together, and its number and position are its own.
    fn commits(&mut self, f: &Found) {
        for frame in &f.scan.frames {
            let Some(entry) = frame.commit.as_deref() else { continue };
            let (stream, at) = (frame.header.stream, frame.header.offset);
            let (sequence, position) = (entry.info.number.sequence(), entry.info.position);
            if !self.numbers.insert((stream, sequence)) {
                self.find(
                    Severity::Damage,
                    f,
                    at,
                    Some(stream),
                    format!("number {} is used twice", entry.info.number),
                );
            }
            if !self.positions.insert((stream, position)) {
                self.find(
                    Severity::Damage,
                    f,
                    at,
                    Some(stream),
                    format!("position {position} is used twice"),
                );
            }
            if !is_live(&self.control, StreamId(stream), entry) {
                continue;
            }
            let reserved = self
                .control
                .streams
                .get(&StreamId(stream))
                .map_or(0, |s| s.numbers_through);
            if sequence > reserved {
                self.find(
                    Severity::Damage,
                    f,
                    at,
                    Some(stream),
                    format!("number {sequence} was never reserved"),
                );
            }
            match self.fragment_fault(stream, entry) {
                Some(what) => self.find(Severity::Damage, f, at, Some(stream), what),
                None => self.report.fragments += 1,
            }
        }
    }

    fn fragment_fault(&self, stream: u64, entry: &Entry<Place>) -> Option<String> {
        let (mut checksum, mut size) = (0, 0u64);
        for extent in &entry.place.extents {
            let header = self.frames.get(&(extent.segment, extent.offset));
            let number = entry.info.number;
            let fits = |h: &&Header| {
                h.payload_len == extent.len
                    && h.stream == stream
                    && (h.subject.a, h.subject.b, h.subject.c)
                        == (number.sequence(), number.server_millis(), number.random())
            };
            let Some(header) = header.filter(fits) else {
                return Some(format!("the extent at {}/{} is missing", extent.segment, extent.offset));
            };
            checksum = crc32c::crc32c_combine(checksum, header.payload_crc, extent.len as usize);
            size += u64::from(extent.len);
        }
        if size != u64::from(entry.info.size) || checksum != entry.place.checksum {
            return Some(format!("the extents of {} do not add up to it", entry.info.number));
        }
        None
    }

    /// Invariant 2: every row is a fragment of the log, and settled segments have a row for each of theirs. Rows of what is
    /// gone may be left; nobody is shown them.
    fn index(&mut self, found: &[Found], home: &IndexHome) {
        let db = match IndexDb::peek(home) {
            Ok(Some(db)) => db,
            Ok(None) => return,
            Err(error) => return self.find_index(None, format!("it cannot be read: {error}")),
        };
        let mut live: HashMap<(u64, u64), (&Entry<Place>, bool)> = HashMap::new();
        for frame in found.iter().flat_map(|f| &f.scan.frames) {
            if let Some(entry) = frame.commit.as_deref()
                && is_live(&self.control, StreamId(frame.header.stream), entry)
            {
                live.insert((frame.header.stream, entry.info.number.sequence()), (entry, false));
            }
        }
        let (mut rows, mut strange) = (0, Vec::new());
        let control = &self.control;
        let read = db.every(&mut |stream, row| {
            rows += 1;
            match live.get_mut(&(stream.0, row.info.number.sequence())) {
                Some((entry, seen)) if **entry == row => *seen = true,
                None if !is_live(control, stream, &row) => {}
                Some(_) | None => strange.push((stream, row.info.number)),
            }
        });
        let settled: HashSet<u64> = match read.and_then(|()| db.segments()) {
            Ok(segments) => segments
                .iter()
                .filter(|(_, s)| s.seat.is_some())
                .map(|(id, _)| *id)
                .collect(),
            Err(error) => return self.find_index(None, format!("it cannot be read: {error}")),
        };
        let missing = live
            .iter()
            .filter(|(_, (entry, seen))| !seen && settled.contains(&entry.place.commit.segment));
        let missing: Vec<_> = missing
            .map(|((stream, _), (entry, _))| (*stream, entry.info.number))
            .collect();
        self.report.index_rows = rows;
        for (stream, number) in strange {
            self.find_index(Some(stream.0), format!("a row of {number} is not what the log says"));
        }
        for (stream, number) in missing {
            self.find_index(Some(stream), format!("there is no row of {number}"));
        }
    }

    fn find_index(&mut self, stream: Option<u64>, what: String) {
        self.report.findings.push(Finding {
            severity: Severity::Index,
            file: INDEX_FILE.to_owned(),
            segment: 0,
            offset: 0,
            stream,
            what,
        });
    }

    /// No index of a shard lies in two frames.
    fn overlaps(&mut self) {
        let mut before: Option<(StreamId, ShardId, u64)> = None;
        let mut found = Vec::new();
        for ((stream, shard, first), (end, file, segment, offset)) in &self.records {
            if before.is_some_and(|(s, h, e)| (s, h) == (*stream, *shard) && *first < e) {
                found.push(Finding {
                    severity: Severity::Damage,
                    file: file.clone(),
                    segment: *segment,
                    offset: *offset,
                    stream: Some(stream.0),
                    what: format!("index {first} of shard {} is used twice", shard.0),
                });
            }
            before = Some((*stream, *shard, *end));
        }
        self.report.findings.extend(found);
    }
}

fn padding_is_zero(f: &Found, header: &Header) -> io::Result<bool> {
    let used = HEADER as u64 + u64::from(header.payload_len);
    let mut padding = vec![0; usize::try_from(u64::from(header.stride).saturating_sub(used)).unwrap_or(0)];
    f.file.read_at(&mut padding, header.offset + used)?;
    Ok(padding.iter().all(|b| *b == 0))
}
