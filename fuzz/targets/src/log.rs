//! Recovery of the segment log from files of any content.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use base::metrics::Metrics;
use base::{Disk, DiskFile, ManualClock, Timestamp};
use bytes::Bytes;
use storage::{
    Error, FragmentInfo, FragmentQuery, FragmentRange, FragmentSummary, LogOptions, LogStore, NewRecord, Position,
    ShardId, StreamId,
};

use crate::NOW_MS;

const CAMERA: StreamId = StreamId(7);
const RESULTS: StreamId = StreamId(8);
const HEADER: usize = 96;

/// Files in memory; whatever is written is there.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
}

#[derive(Debug, Default)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryDisk {
    /// A disk with one segment file of each content.
    #[must_use]
    pub fn with_segments(contents: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let disk = MemoryDisk::default();
        for (n, content) in contents.into_iter().enumerate() {
            let file = Arc::new(MemoryFile(Mutex::new(content)));
            disk.lock().insert(format!("segment-{:06}.log", n + 1), file);
        }
        disk
    }

    /// The contents of all segment files.
    #[must_use]
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let files = self.lock();
        let segments = files.iter().filter(|(name, _)| name.starts_with("segment-"));
        segments.map(|(_, file)| file.bytes().clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.files.lock().expect("no panic while it is held")
    }
}

impl MemoryFile {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.lock().get(name).cloned();
        file.map(|file| file as Arc<dyn DiskFile>)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock()
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 30)
    }
}

/// A sparse file of a liar could be told to grow without end; a disk of this size says no.
const FILE_BYTES_MAX: u64 = 64 << 20;

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes().resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let from = bytes
            .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = at.saturating_add(total);
        if end as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.bytes();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        for piece in pieces {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let (from, to) = (clamp(offset), clamp(offset.saturating_add(len)));
        bytes[from..to].fill(0);
        Ok(())
    }
}

fn open(disk: &MemoryDisk) -> Result<LogStore, Error> {
    let options = LogOptions {
        media_lanes: 1,
        record_lanes: 1,
        media_segment_bytes: 256 << 10,
        record_segment_bytes: 256 << 10,
        extent_bytes: 16 << 10,
        buffer_bytes: 4 << 20,
        spare_segments: 1,
        reserve_bytes: 0,
        punch_delay_ms: 0,
        seed: 1,
        on_fatal: Arc::new(|error| panic!("a disk that never fails was blamed: {error}")),
        ..LogOptions::default()
    };
    let clock = ManualClock::at(Timestamp::from_millis(NOW_MS));
    LogStore::open(Arc::new(disk.clone()), clock, options, &Metrics::new())
}

/// Appends `fragments` and a few records: what a seed is made of.
pub fn fill(disk: &MemoryDisk, fragments: u32) {
    let log = open(disk).expect("an empty disk");
    block_on(async {
        for n in 0..fragments {
            store(
                &log,
                &vec![b'a' + u8::try_from(n % 26).unwrap_or(0); 300 + 5000 * n as usize],
            )
            .await
            .expect("a stored fragment");
        }
        let records = log.records();
        records
            .create_shard(RESULTS, ShardId(0), Timestamp::from_millis(NOW_MS))
            .await
            .expect("a shard");
        let record = |n: u8| NewRecord {
            stream: RESULTS,
            shard: ShardId(0),
            partition_key: format!("key-{n}"),
            sealed: n.is_multiple_of(2),
            explicit_hash_key: None,
            data: Bytes::from(vec![n; 100]),
            arrival: Timestamp::from_millis(NOW_MS),
        };
        records
            .append((0..5).map(record).collect())
            .await
            .expect("appended records");
    });
    log.close();
}

async fn store(log: &LogStore, payload: &[u8]) -> Result<FragmentInfo, Error> {
    let media = log.media();
    let number = media.allocate_number(CAMERA, Timestamp::from_millis(NOW_MS)).await?;
    let mut sink = media.begin(CAMERA, number).await?;
    sink.write(Bytes::copy_from_slice(payload)).await?;
    sink.commit(FragmentSummary {
        server_timestamp: Timestamp::from_millis(NOW_MS),
        producer_timestamp: Timestamp::from_millis(NOW_MS),
        length_ms: 1000,
        header_len: 10,
        tracks_hash: 0,
        frames: Vec::new(),
    })
    .await
}

/// The first byte says whether checksums are made to fit again, so that lies get past them; the rest are segment files,
/// each behind its length in four bytes. Promises: recovery ends, and reads give the bytes or an error. Where the checksums
/// were not touched, also: no number is handed out again, and what is acknowledged from now on is there after a restart.
/// (A log that lies under good checksums may say that everything is deleted.)
pub fn log_recovery(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else {
        return;
    };
    let mut segments = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) as usize).min(after.len());
        let (segment, next) = after.split_at(length);
        let mut segment = segment.to_vec();
        if first % 2 == 1 {
            seal(&mut segment);
        }
        segments.push(segment);
        rest = next;
    }
    let disk = MemoryDisk::with_segments(segments);
    let Ok(log) = open(&disk) else { return };
    let highest = block_on(read_everything(&log));
    let stored = block_on(store(&log, b"after recovery"));
    if first % 2 == 1 {
        log.close();
        return;
    }
    if let (Ok(info), Some(highest)) = (&stored, highest) {
        assert!(info.number > highest, "{} was handed out after {highest}", info.number);
    }
    log.close();
    drop(log);
    // What was acknowledged is there after another restart.
    if let Ok(info) = stored {
        let log = open(&disk).expect("a log that was closed in good order");
        let read = block_on(async { log.media().read(CAMERA, info.number, 0..u32::MAX).await });
        assert_eq!(
            read.as_deref().ok(),
            Some(&b"after recovery"[..]),
            "an acknowledged fragment was lost"
        );
        log.close();
    }
}

async fn read_everything(log: &LogStore) -> Option<storage::FragmentNumber> {
    let (media, records) = (log.media(), log.records());
    let query = FragmentQuery::first(FragmentRange::All, 1000);
    let mut highest = None;
    for info in media.list(CAMERA, &query).await.unwrap_or_default() {
        highest = highest.max(Some(info.number));
        if let Ok(bytes) = media.read(CAMERA, info.number, 0..u32::MAX).await {
            assert_eq!(
                bytes.len() as u64,
                u64::from(info.size),
                "a fragment is not as long as it says"
            );
        }
        let _ = media.frames(CAMERA, info.number).await;
    }
    for shard in [ShardId(0), ShardId(1)] {
        let mut from = Position::Trim;
        while let Ok(batch) = records.read(RESULTS, shard, from, 100, 1 << 20).await {
            if batch.at_tip || batch.next == from {
                break;
            }
            from = batch.next;
        }
    }
    highest
}

/// Makes the checksums of every frame fit its bytes again (layout: docs/design/log.md).
fn seal(segment: &mut [u8]) {
    for at in (0..segment.len().saturating_sub(HEADER)).step_by(64) {
        if segment.get(at..at + 6) != Some(b"SGLASS") {
            continue;
        }
        let length = segment
            .get(at + 20..at + 24)
            .and_then(|four| four.try_into().ok())
            .map_or(0, u32::from_le_bytes);
        let payload = (at + HEADER)
            .checked_add(length as usize)
            .and_then(|end| segment.get(at + HEADER..end));
        if let Some(crc) = payload.map(crc32c::crc32c) {
            segment[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&segment[at..at + HEADER - 4]);
        segment[at + HEADER - 4..at + HEADER].copy_from_slice(&crc.to_le_bytes());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
