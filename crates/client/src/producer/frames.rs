//! Feeding a producer with an encoder's frames.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::writer::{self, StreamInfo};
use matroska::{Track, TrackKind};

use crate::limits::{FRAGMENT_TAGS_MAX, TAG_NAME_BYTES_MAX, TAG_VALUE_BYTES_MAX, TRACKS_MAX};
use crate::media::TimecodeType;
use crate::producer::event::Undelivered;
use crate::producer::outbox::Epoch;
use crate::producer::{Producer, ProducerError};

/// One frame of an encoder.
#[derive(Clone, Debug)]
pub struct EncodedFrame {
    /// Number of its track.
    pub track: u64,
    /// Its presentation time after the writer's start.
    pub time: Duration,
    /// Whether it can be decoded alone.
    pub key: bool,
    /// Its bytes, in the form that the track's codec wants: length-prefixed NAL units for H.264 and H.265 with an avcC or
    /// hvcC, raw AAC without ADTS.
    pub data: Bytes,
}

/// How frames become fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOptions {
    /// The time of time zero, e.g. the clock's now.
    pub started: Timestamp,
    /// A key frame begins a fragment only when the one before is as long as this, so that a codec of key frames alone does
    /// not make a fragment of each. Default one second: the service takes at most five a second.
    pub fragment_min: Duration,
    /// A fragment ends when it is as long as this, key frame or not. Default ten seconds: the service refuses more than 20,
    /// and did refuse more than 10.
    pub fragment_max: Duration,
}

impl FrameOptions {
    /// The defaults, from this start.
    pub fn new(started: Timestamp) -> Self {
        FrameOptions {
            started,
            fragment_min: Duration::from_secs(1),
            fragment_max: Duration::from_secs(10),
        }
    }
}

/// Writes frames of declared tracks. A fragment begins at a key frame of the first video track (of the first track where
/// there is none). Every frame goes out at once; nothing waits for its fragment's end.
pub struct FrameWriter<'a> {
    producer: &'a mut Producer,
    epoch: Arc<Epoch>,
    options: FrameOptions,
    tracks: Vec<(u64, bool)>,
    leader: u64,
    /// The open cluster: its sequence and timecode.
    cluster: Option<(u64, u64)>,
    last_timecode: Option<u64>,
    tags: Vec<(String, String)>,
}

impl Producer {
    /// A writer of frames. Dropping it leaves the last fragment open; [`Producer::flush`], [`Producer::finish`] or a pause
    /// end it.
    ///
    /// # Errors
    /// There is no track, or more than three.
    pub fn frames(&mut self, tracks: &[Track], options: FrameOptions) -> Result<FrameWriter<'_>, ProducerError> {
        if tracks.is_empty() || tracks.len() > TRACKS_MAX {
            let why = format!("{} tracks declared; the service takes 1 to {TRACKS_MAX}", tracks.len());
            return Err(ProducerError::Frame(why));
        }
        let has_video = tracks.iter().any(|track| track.kind == TrackKind::Video);
        let leads = |track: &Track| !has_video || track.kind == TrackKind::Video;
        let epoch = Epoch {
            header: writer::header(&StreamInfo::default(), tracks),
            timecodes: TimecodeType::Absolute,
            started: options.started,
            scale_ns: 1_000_000,
            ours: true,
        };
        Ok(FrameWriter {
            producer: self,
            epoch: Arc::new(epoch),
            options,
            leader: tracks.iter().find(|track| leads(track)).map_or(0, |track| track.number),
            tracks: tracks.iter().map(|track| (track.number, leads(track))).collect(),
            cluster: None,
            last_timecode: None,
            tags: Vec::new(),
        })
    }
}

impl FrameWriter<'_> {
    /// Sends a frame. Waits while the buffer is full, if the producer was told to.
    ///
    /// # Errors
    /// The frame's track was not declared, its fragment would not begin after the one before, the fragment is too large,
    /// or the producer has stopped.
    pub async fn send(&mut self, frame: EncodedFrame) -> Result<(), ProducerError> {
        let declared = self.tracks.iter().find(|(number, _)| *number == frame.track);
        let Some((_, leads)) = declared.copied() else {
            return Err(ProducerError::Frame(format!("track {} was not declared", frame.track)));
        };
        let millis = self
            .options
            .started
            .millis()
            .saturating_add(i64::try_from(frame.time.as_millis()).unwrap_or(i64::MAX));
        let time = u64::try_from(millis).map_err(|_| ProducerError::Frame("the time is before 1970".to_owned()))?;
        let mut head = BytesMut::with_capacity(32);
        let key = frame.key && leads;
        match self.relative_time(&frame, time) {
            Some(relative) => {
                writer::put_simple_block_head(&mut head, frame.track, relative, frame.key, frame.data.len());
                self.producer.append(head.freeze(), key).await?;
            }
            None => {
                if self.last_timecode.is_some_and(|last| time <= last) {
                    let why = format!("a fragment at {time} ms does not begin after the one before it");
                    return Err(ProducerError::Frame(why));
                }
                self.write_tags().await?;
                writer::put_cluster_head(&mut head, time);
                writer::put_simple_block_head(&mut head, frame.track, 0, frame.key, frame.data.len());
                let sequence = self.producer.begin(&self.epoch, time, head.freeze()).await?;
                self.cluster = Some((sequence, time));
                self.last_timecode = Some(time);
            }
        }
        self.producer.append(frame.data, key).await
    }

    /// The frame's time in the open cluster; `None` where it begins another.
    fn relative_time(&self, frame: &EncodedFrame, time: u64) -> Option<i16> {
        let (sequence, timecode) = self.cluster?;
        if self.producer.open_fragment() != Some(sequence) {
            return None;
        }
        let age = Duration::from_millis(time.saturating_sub(timecode));
        let leads = frame.track == self.leader;
        if leads && (age >= self.options.fragment_max || (frame.key && age >= self.options.fragment_min)) {
            return None;
        }
        i16::try_from(i128::from(time) - i128::from(timecode)).ok()
    }

    /// Sets a metadata tag on the fragment that is open; it is written at its end, as the service wants it.
    ///
    /// # Errors
    /// There are nine already, or the name or the value is too long.
    pub fn tag(&mut self, name: &str, value: &str) -> Result<(), ProducerError> {
        if self.tags.len() >= FRAGMENT_TAGS_MAX || name.len() > TAG_NAME_BYTES_MAX || value.len() > TAG_VALUE_BYTES_MAX
        {
            let why = format!(
                "a fragment takes {FRAGMENT_TAGS_MAX} tags of at most {TAG_NAME_BYTES_MAX} bytes of name and \
                 {TAG_VALUE_BYTES_MAX} of value"
            );
            return Err(ProducerError::Frame(why));
        }
        self.tags.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    async fn write_tags(&mut self) -> Result<(), ProducerError> {
        if self.cluster.is_none() || self.tags.is_empty() {
            return Ok(());
        }
        let tags = std::mem::take(&mut self.tags);
        let pairs: Vec<(&str, &str)> = tags
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.producer.append(writer::tags(&pairs), false).await
    }

    /// Ends the open fragment, so that the server stores it now. The next frame begins another.
    ///
    /// # Errors
    /// The producer has stopped.
    pub async fn end_fragment(&mut self) -> Result<(), ProducerError> {
        self.write_tags().await?;
        self.cluster = None;
        self.producer.end_open_with_tag();
        Ok(())
    }

    /// Ends the open fragment and waits until everything sent so far is confirmed.
    ///
    /// # Errors
    /// Something was given up, see [`Producer::flush`].
    pub async fn flush(&mut self) -> Result<(), Undelivered> {
        if let Err(error) = self.end_fragment().await {
            tracing::debug!(%error, "the last tags are not written");
        }
        self.producer.flush().await
    }
}
