//! One camera's video inside the worker: decode every packet, choose pictures, analyse them, give each frame its outcome.

use std::collections::{BTreeMap, VecDeque};

use vision::limits::MAX_VIDEO_PIXELS;
use vision::protocol::{FromWorker, OpenSession, Packet};
use vision::{Codec, ImageAnalysis, SkipReason};

use crate::analyse::{Analyser, Wanted};
use crate::codec::{CodecError, Decoder, Format, Picture, Scaler};
use crate::engine::EngineError;
use crate::track::Tracker;

/// Frames that a decoder may hold back for reordering; what is older will not come out. H.264 and H.265 hold 16 at most.
const PENDING_MAX: usize = 64;

/// A session's decoder, queue and tracker.
pub struct Session {
    session: u32,
    decoder: Option<Decoder>,
    key_frames_only: bool,
    live: bool,
    detector_side: usize,
    /// EXIF's, 1 for pictures that are as they are to be seen.
    orientation: u8,
    attributes: bool,
    interval_ms: f32,
    due_ms: Option<f64>,
    tracker: Option<Tracker>,
    queue: VecDeque<Packet>,
    pending: BTreeMap<u64, Pending>,
    /// The frame at which something was lost, 0 at the start: nothing from there on can be trusted before a key frame.
    tainted: Option<u64>,
    newest: Option<Chosen>,
    ended: bool,
    drained: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    time_ms: i64,
    key: bool,
    silent: bool,
}

struct Chosen {
    id: u64,
    time_ms: i64,
    picture: Picture,
}

impl Session {
    /// Opens the decoder. Where FFmpeg refuses the CodecPrivate, every frame is skipped as damaged.
    pub fn open(open: &OpenSession) -> Session {
        let format = match open.codec {
            Codec::H264 => Format::H264,
            Codec::H265 => Format::H265,
        };
        Session {
            session: open.session,
            decoder: Decoder::open(format, &open.codec_private, MAX_VIDEO_PIXELS).ok(),
            key_frames_only: open.key_frames_only,
            live: open.live,
            detector_side: usize::from(open.detector_side),
            orientation: open.orientation,
            attributes: open.attributes,
            interval_ms: 1000.0 / open.max_rate,
            due_ms: None,
            tracker: open.track_faces.then(Tracker::default),
            queue: VecDeque::new(),
            pending: BTreeMap::new(),
            tainted: Some(0),
            newest: None,
            ended: false,
            drained: false,
        }
    }

    /// Takes a frame; the server keeps to its credit.
    pub fn push(&mut self, packet: Packet) {
        self.queue.push_back(packet);
    }

    /// Live or catching up.
    pub fn set_live(&mut self, live: bool) {
        self.live = live;
    }

    /// No more frames.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Everything was said.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether [`Session::turn`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.newest.is_some() || (self.ended && !self.drained)
    }

    /// Does one turn: live, decodes all that is queued and analyses the newest picture; catching up, decodes one frame
    /// and analyses what comes out. `say` sends at once.
    pub fn turn(&mut self, analyser: &mut Analyser, say: &mut impl FnMut(&FromWorker)) -> Result<(), EngineError> {
        while let Some(packet) = self.queue.pop_front() {
            self.decode(&packet, analyser, say)?;
            if !self.live {
                break;
            }
        }
        if self.queue.is_empty() && self.ended && !self.drained {
            self.drain(analyser, say)?;
        }
        self.analyse_newest(analyser, say)
    }

    fn decode(
        &mut self,
        packet: &Packet,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        say(&FromWorker::Taken {
            session: self.session,
            id: packet.id,
        });
        let pending = Pending {
            time_ms: packet.time_ms,
            key: packet.key,
            silent: packet.silent,
        };
        self.pending.insert(packet.id, pending);
        let sent = match &mut self.decoder {
            Some(decoder) => decoder.send(&packet.data, packet.id.cast_signed(), packet.key),
            None => {
                self.skip(packet.id, SkipReason::Damaged, say);
                return Ok(());
            }
        };
        if sent != Ok(true) {
            self.tainted = Some(packet.id);
        }
        if sent.is_err() {
            self.skip(packet.id, SkipReason::Damaged, say);
        }
        if self.key_frames_only
            && let Some(decoder) = &mut self.decoder
        {
            decoder.finish();
        }
        self.receive(packet.id, analyser, say)?;
        if self.key_frames_only {
            if let Some(decoder) = &mut self.decoder {
                decoder.reset();
            }
            self.skip_pending(u64::MAX, say);
        }
        while self.pending.len() > PENDING_MAX
            && let Some((oldest, _)) = self.pending.first_key_value()
        {
            let oldest = *oldest;
            self.skip(oldest, SkipReason::Damaged, say);
        }
        Ok(())
    }

    /// Takes the pictures that the decoder has ready after the packet `last`.
    fn receive(
        &mut self,
        last: u64,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        loop {
            let received = match &mut self.decoder {
                Some(decoder) => decoder.receive(),
                None => return Ok(()),
            };
            match received {
                Ok(None) => return Ok(()),
                // The decoder found the packet damaged only now; the next call goes on.
                Err(CodecError { .. }) => {
                    self.tainted = Some(last);
                    return Ok(());
                }
                Ok(Some(picture)) => self.choose(picture, analyser, say)?,
            }
        }
    }

    /// Decides what becomes of a decoded picture.
    fn choose(
        &mut self,
        picture: Picture,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        let id = picture.id().cast_unsigned();
        let Some(pending) = self.pending.get(&id).copied() else {
            return Ok(());
        };
        if picture.damaged() {
            self.tainted = Some(self.tainted.map_or(id, |at| at.max(id)));
        } else if pending.key && self.tainted.is_some_and(|at| at <= id) {
            self.tainted = None;
        }
        if self.tainted.is_some() {
            self.skip(id, SkipReason::Damaged, say);
            return Ok(());
        }
        if pending.silent {
            self.pending.remove(&id);
            return Ok(());
        }
        if !self.is_due(pending.time_ms) {
            self.skip(id, SkipReason::Rate, say);
            return Ok(());
        }
        self.pending.remove(&id);
        if let Some(overtaken) = self.newest.take() {
            say(&FromWorker::Skipped {
                session: self.session,
                id: overtaken.id,
                reason: SkipReason::Overtaken,
            });
        }
        self.newest = Some(Chosen {
            id,
            time_ms: pending.time_ms,
            picture,
        });
        if self.live {
            Ok(())
        } else {
            self.analyse_newest(analyser, say)
        }
    }

    /// Spaces pictures evenly over video time; a jump of the time begins anew.
    fn is_due(&mut self, time_ms: i64) -> bool {
        if self.interval_ms <= 0.0 || !self.interval_ms.is_finite() {
            return true;
        }
        let (time, interval) = (time_ms as f64, f64::from(self.interval_ms));
        let due = self.due_ms.unwrap_or(time);
        // Frame times are rounded to milliseconds.
        if time + 1.0 < due && due - time <= 2.0 * interval {
            return false;
        }
        let on_time = (time - due).abs() < interval;
        self.due_ms = Some(if on_time { due + interval } else { time + interval });
        true
    }

    fn analyse_newest(
        &mut self,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        let Some(chosen) = self.newest.take() else {
            return Ok(());
        };
        let (id, time_ms, session) = (chosen.id, chosen.time_ms, self.session);
        let converted;
        let view = match chosen.picture.view().filter(|_| self.orientation == 1) {
            Some(view) => Some(view),
            None => {
                let planar = chosen.picture.to_planar(&mut Scaler::new()).ok();
                converted = planar.map(|planar| planar.oriented(self.orientation));
                converted.as_ref().and_then(|planar| planar.view())
            }
        };
        let Some(view) = view else {
            say(&FromWorker::Skipped {
                session,
                id,
                reason: SkipReason::Damaged,
            });
            return Ok(());
        };
        let (width, height) = (view.width() as u32, view.height() as u32);
        let wanted = Wanted {
            embed: true,
            attributes: self.attributes,
        };
        let faces = analyser.video(&view, self.detector_side, time_ms, self.tracker.as_mut(), wanted)?;
        let picture = ImageAnalysis { width, height, faces };
        say(&FromWorker::Analysed {
            session,
            id,
            time_ms,
            picture,
        });
        Ok(())
    }

    fn drain(&mut self, analyser: &mut Analyser, say: &mut impl FnMut(&FromWorker)) -> Result<(), EngineError> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish();
        }
        // Nothing overtakes at the end.
        self.live = false;
        self.analyse_newest(analyser, say)?;
        self.receive(u64::MAX, analyser, say)?;
        self.skip_pending(u64::MAX, say);
        self.drained = true;
        say(&FromWorker::Drained { session: self.session });
        Ok(())
    }

    fn skip_pending(&mut self, below: u64, say: &mut impl FnMut(&FromWorker)) {
        let left: Vec<u64> = self.pending.range(..below).map(|(id, _)| *id).collect();
        for id in left {
            self.skip(id, SkipReason::Damaged, say);
        }
    }

    fn skip(&mut self, id: u64, reason: SkipReason, say: &mut impl FnMut(&FromWorker)) {
        if let Some(pending) = self.pending.remove(&id)
            && !pending.silent
        {
            say(&FromWorker::Skipped {
                session: self.session,
                id,
                reason,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn session(max_rate: f32) -> Session {
        Session::open(&OpenSession {
            session: 1,
            codec: Codec::H264,
            live: false,
            key_frames_only: false,
            track_faces: false,
            detector_side: 640,
            orientation: 1,
            attributes: false,
            max_rate,
            codec_private: Bytes::new(),
        })
    }

    fn due_of(rate: f32, times: impl Iterator<Item = i64>) -> usize {
        let mut session = session(rate);
        times.filter(|time| session.is_due(*time)).count()
    }

    #[test]
    fn the_rate_is_kept_over_video_time() {
        let thirty = || (0..300).map(|n| n * 1000 / 30);
        assert_eq!(due_of(f32::INFINITY, thirty()), 300);
        assert_eq!(due_of(30.0, thirty()), 300);
        assert_eq!(due_of(5.0, thirty()), 50);
        assert_eq!(due_of(1.0, thirty()), 10);
        assert_eq!(due_of(20.0, thirty()), 200);
    }

    #[test]
    fn a_jump_of_the_time_does_not_stop_the_analysis() {
        let jumping = (0..10).map(|n| if n < 5 { 1_000_000 + n * 33 } else { n * 33 });
        assert_eq!(due_of(1.0, jumping), 2);
        assert_eq!(due_of(1.0, [0, 1_000_000, 1_000_033].into_iter()), 2);
    }
}
