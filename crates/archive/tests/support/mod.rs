//! A stream and a bucket in memory. The bucket can fail, or die, at any of its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use archive::store::{Kind, Put};
use archive::{Source, Store, StoreError};
use async_trait::async_trait;
use base::{Clock, ManualClock, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};
use client::reader::{
    Fragment, FragmentAssembler, FragmentError, FragmentInfo, FragmentNumber, FragmentParser, ReaderError,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use matroska::{Audio, Track, TrackKind, writer};
use parking_lot::Mutex;

/// Parameter sets of 64x48 as an avcC.
pub const AVCC: &[u8] = &[
    1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0,
    3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];
/// A-law, 8 kHz, one channel.
pub const ALAW: &[u8] = &[6, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x40, 0x1F, 0, 0, 1, 0, 8, 0, 0, 0];

pub fn track(number: u64, codec_id: &str, private: &[u8]) -> Track {
    let audio = codec_id.starts_with('A');
    Track {
        number,
        uid: number,
        kind: if audio { TrackKind::Audio } else { TrackKind::Video },
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::copy_from_slice(private),
        name: String::new(),
        language: "und".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: audio.then_some(Audio {
            sampling_hz: 8000.0,
            channels: 1,
            bit_depth: None,
        }),
    }
}

pub fn camera() -> Vec<Track> {
    vec![track(1, "V_MPEG4/ISO/AVC", AVCC), track(2, "A_MS/ACM", ALAW)]
}

/// What a stream holds of a fragment.
#[derive(Clone)]
pub struct Stored {
    pub info: FragmentInfo,
    pub document: Bytes,
    pub frames: Vec<Bytes>,
    /// It becomes visible at this time.
    pub visible: Timestamp,
}

/// A fragment of a second with two pictures of `size` bytes and, where there is a second track, a piece of sound.
pub fn stored(n: u64, server_ms: i64, producer_ms: i64, tracks: &[Track], size: usize) -> Stored {
    let number = format!("913438523331814323926820626{n:020}");
    let mut out = BytesMut::new();
    out.put_slice(&writer::header(&writer::StreamInfo::default(), tracks));
    let stamp = |ms: i64| u64::try_from(ms).unwrap();
    out.put_slice(&writer::fragment_tags(&number, stamp(producer_ms), stamp(server_ms)));
    writer::put_cluster_head(&mut out, 0);
    let picture = |fill: u8| {
        let mut unit = vec![0, 0, 0, 0, 0x65, fill];
        unit.resize(size.max(8), (n % 251) as u8);
        let len = (unit.len() - 4) as u32;
        unit[..4].copy_from_slice(&len.to_be_bytes());
        Bytes::from(unit)
    };
    let mut frames = vec![(1, 0, picture(1))];
    if tracks.len() > 1 {
        frames.push((2, 20, Bytes::from(vec![n as u8; 160])));
    }
    frames.push((1, 500, picture(2)));
    for (track, time, data) in &frames {
        writer::put_simple_block_head(&mut out, *track, *time, *time == 0, data.len());
        out.put_slice(data);
    }
    out.put_slice(&writer::continuation_tags(0, &number));
    Stored {
        info: FragmentInfo {
            number: FragmentNumber::new(&number).unwrap(),
            bytes: out.len() as u64,
            server_timestamp: Timestamp::from_millis(server_ms),
            producer_timestamp: Timestamp::from_millis(producer_ms),
            length: Duration::from_secs(1),
        },
        document: out.freeze(),
        frames: frames.into_iter().map(|(.., data)| data).collect(),
        visible: Timestamp::from_millis(server_ms + 1000),
    }
}

fn parse(document: &Bytes) -> Fragment {
    let mut parser = FragmentParser::default();
    let mut assembler = FragmentAssembler::default();
    parser.push(document.clone());
    while let Some(event) = parser.next().unwrap() {
        if let Some(fragment) = assembler.take(event) {
            return fragment.unwrap();
        }
    }
    panic!("no fragment");
}

/// A stream.
pub struct FakeSource {
    pub clock: Arc<ManualClock>,
    as_clock: Arc<dyn Clock>,
    pub stored: Mutex<Vec<Stored>>,
    pub archived: Mutex<Vec<Timestamp>>,
}

impl FakeSource {
    pub fn new(now_ms: i64, stored: Vec<Stored>) -> Arc<Self> {
        let clock = ManualClock::at(Timestamp::from_millis(now_ms));
        Arc::new(FakeSource {
            as_clock: clock.clone(),
            clock,
            stored: Mutex::new(stored),
            archived: Mutex::default(),
        })
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn begins(&self) -> Result<Timestamp, ReaderError> {
        Ok(Timestamp::from_millis(0))
    }

    async fn list(&self, from: Timestamp, until: Timestamp, max: usize) -> Result<Vec<FragmentInfo>, ReaderError> {
        let now = self.clock.now();
        let stored = self.stored.lock();
        let in_range = |info: &FragmentInfo| info.server_timestamp >= from && info.server_timestamp < until;
        let visible = stored.iter().filter(|stored| stored.visible <= now);
        let mut found: Vec<FragmentInfo> = visible.map(|stored| stored.info.clone()).filter(in_range).collect();
        if found.len() > max {
            return Err(ReaderError::TooManyFragments(max));
        }
        found.sort_by(|a, b| (a.server_timestamp, &a.number).cmp(&(b.server_timestamp, &b.number)));
        Ok(found)
    }

    async fn read(
        &self,
        fragments: &[FragmentInfo],
    ) -> Result<BoxStream<'static, Result<Fragment, ReaderError>>, ReaderError> {
        let stored = self.stored.lock();
        let read = fragments.iter().map(|info| {
            let found = stored.iter().find(|stored| stored.info.number == info.number);
            found.map(|stored| parse(&stored.document)).ok_or_else(|| {
                ReaderError::Fragment(FragmentError {
                    number: Some(info.number.clone()),
                    id: 4000,
                    code: "FRAGMENT_NOT_FOUND".to_owned(),
                })
            })
        });
        Ok(stream::iter(read.collect::<Vec<_>>()).boxed())
    }

    async fn archived(&self, until: Timestamp) -> Result<(), ReaderError> {
        self.archived.lock().push(until);
        Ok(())
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.as_clock
    }
}

/// What a bucket does at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the call is carried out: this and every later call fails for good.
    DiesBefore(usize),
    /// The process dies after it is carried out.
    DiesAfter(usize),
    /// The call fails and may be tried again.
    Fails(usize),
    /// The call is carried out, and its answer lost.
    AnswerLost(usize),
}

/// Parts of uploads by their names: the key, and the parts by number.
type Uploads = BTreeMap<String, (String, BTreeMap<usize, Bytes>)>;

/// A bucket.
#[derive(Default)]
pub struct FakeStore {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    pub uploads: Mutex<Uploads>,
    pub calls: AtomicUsize,
    pub fault: Mutex<Option<Fault>>,
    begun: AtomicUsize,
}

impl FakeStore {
    /// The same bucket as the next process finds it.
    pub fn after_crash(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(FakeStore {
            objects: Mutex::new(self.objects.lock().clone()),
            uploads: Mutex::new(self.uploads.lock().clone()),
            begun: AtomicUsize::new(self.begun.load(Ordering::SeqCst)),
            ..FakeStore::default()
        })
    }

    fn call<T>(&self, carry_out: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let dead = || Err(StoreError::Refused("the process is dead".to_owned()));
        let lost = || Err(StoreError::Failed("the connection broke".to_owned()));
        match *self.fault.lock() {
            Some(Fault::DiesBefore(at)) if call >= at => dead(),
            Some(Fault::DiesAfter(at)) if call > at => dead(),
            Some(Fault::DiesAfter(at)) if call == at => carry_out().and_then(|_| dead()),
            Some(Fault::Fails(at)) if call == at => lost(),
            Some(Fault::AnswerLost(at)) if call == at => carry_out().and_then(|_| lost()),
            _ => carry_out(),
        }
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.call(|| Ok(self.objects.lock().get(key).cloned()))
    }

    async fn read(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.call(|| {
            let found = self.objects.lock().get(key).cloned();
            let found = found.ok_or_else(|| StoreError::Refused("no such key".to_owned()))?;
            Ok(stream::iter([Ok(found)]).boxed())
        })
    }

    async fn put(&self, key: &str, _: &Kind, body: Bytes, only_new: bool) -> Result<Put, StoreError> {
        self.call(|| {
            let mut objects = self.objects.lock();
            if only_new && objects.contains_key(key) {
                return Ok(Put::Exists);
            }
            objects.insert(key.to_owned(), body);
            Ok(Put::Stored)
        })
    }

    async fn begin(&self, key: &str, _: &Kind) -> Result<String, StoreError> {
        self.call(|| {
            let upload = format!("upload-{}", self.begun.fetch_add(1, Ordering::SeqCst));
            self.uploads
                .lock()
                .insert(upload.clone(), (key.to_owned(), BTreeMap::new()));
            Ok(upload)
        })
    }

    async fn part(&self, key: &str, upload: &str, number: usize, body: Bytes) -> Result<String, StoreError> {
        self.call(|| {
            let mut uploads = self.uploads.lock();
            let upload = uploads.get_mut(upload).filter(|upload| upload.0 == key);
            let upload = upload.ok_or_else(|| StoreError::Refused("no such upload".to_owned()))?;
            upload.1.insert(number, body);
            Ok(number.to_string())
        })
    }

    async fn complete(&self, key: &str, upload: &str, parts: Vec<String>) -> Result<(), StoreError> {
        self.call(|| {
            let found = self.uploads.lock().remove(upload).filter(|found| found.0 == key);
            let found = found.ok_or_else(|| StoreError::Failed("no such upload".to_owned()))?;
            let told: Vec<String> = found.1.keys().map(ToString::to_string).collect();
            assert_eq!(told, parts, "every part is there, in order");
            let short = found.1.values().rev().skip(1).any(|part| part.len() < 5 << 20);
            assert!(!short, "only the last part may be small");
            let whole: Vec<u8> = found.1.into_values().flatten().collect();
            self.objects.lock().insert(key.to_owned(), whole.into());
            Ok(())
        })
    }

    async fn abort(&self, _: &str, upload: &str) -> Result<(), StoreError> {
        self.call(|| {
            self.uploads.lock().remove(upload);
            Ok(())
        })
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        self.call(|| {
            let objects = self.objects.lock();
            let keys = objects
                .keys()
                .filter(|key| key.starts_with(prefix) && key.as_str() > after);
            Ok(keys.take(limit).cloned().collect())
        })
    }
}
