//! What a session sends to its worker next, what it skips, and what it sends again after the worker's death: a state
//! machine without I/O. Calls tell it what happened; [`Schedule::next_message`] and [`Schedule::next_outcome`] say what
//! follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits::{
    CATCH_UP_FRAMES, CREDIT_FRAMES, LAG_MS, MAX_FRAME_BYTES, OUTCOME_QUEUE, QUEUE_BYTES, QUEUE_FRAMES, REPLAY_BYTES,
    REPLAY_FRAMES, UNREAD_OUTCOMES,
};
use crate::protocol::{OpenSession, Packet, ToWorker};
use crate::types::{Frame, FrameOutcome, ImageAnalysis, Mode, SessionConfig, SkipReason};

/// The worker said something that cannot be true; it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker spoke of frame {0}, which it does not have")]
pub(crate) struct UnknownFrame(pub u64);

/// Frames in order, and their size.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.data.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.data.len();
        Some(frame)
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}

#[derive(Debug)]
pub(crate) struct Schedule {
    config: SessionConfig,
    live: bool,
    /// Not yet sent.
    queue: Queue,
    /// To be sent again before the queue.
    replay: VecDeque<Frame>,
    /// Sent since the last key frame before the oldest frame without outcome: what must be decoded again after the
    /// worker's death. Begins with a key frame; empty when it grew too large.
    group: Queue,
    /// The key frames in `group`.
    group_keys: VecDeque<u64>,
    /// Sent and without outcome, with the monotonic time of sending.
    pending: BTreeMap<u64, Duration>,
    /// Sent to this worker and not yet taken.
    in_flight: u32,
    awaiting_key: bool,
    last_taken: Option<u64>,
    suspect: Option<(u64, u32)>,
    opened: bool,
    live_told: bool,
    ended: bool,
    end_told: bool,
    drained: bool,
    skipped_here: u64,
    outcomes: VecDeque<FrameOutcome>,
}

impl Schedule {
    pub(crate) fn new(config: SessionConfig) -> Schedule {
        let live = config.mode == Mode::Live;
        Schedule {
            config,
            live,
            queue: Queue::default(),
            replay: VecDeque::new(),
            group: Queue::default(),
            group_keys: VecDeque::new(),
            pending: BTreeMap::new(),
            in_flight: 0,
            awaiting_key: true,
            last_taken: None,
            suspect: None,
            opened: false,
            live_told: live,
            ended: false,
            end_told: false,
            drained: false,
            skipped_here: 0,
            outcomes: VecDeque::new(),
        }
    }

    /// Whether a sender that catches up may push now.
    pub(crate) fn has_room(&self) -> bool {
        self.live
            || (self.queue.frames.len() < CATCH_UP_FRAMES
                && self.queue.bytes < QUEUE_BYTES
                && self.outcomes.len() < OUTCOME_QUEUE)
    }

    /// Nobody fetches the outcomes: the session must be closed before they take all memory.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.outcomes.len() >= UNREAD_OUTCOMES
    }

    /// Outcomes that wait for the receiver.
    pub(crate) fn unread(&self) -> usize {
        self.outcomes.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.frames.len() + self.replay.len()
    }

    pub(crate) fn skipped_here(&self) -> u64 {
        self.skipped_here
    }

    /// A worker holds frames that it has not begun with.
    pub(crate) fn is_waiting_for_worker(&self) -> bool {
        self.in_flight > 0 || (self.end_told && !self.drained)
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.live = mode == Mode::Live;
    }

    /// Frames are missing before the next one.
    pub(crate) fn mark_gap(&mut self) {
        self.awaiting_key = true;
    }

    /// The caller has no more frames.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// A frame from the caller.
    pub(crate) fn push(&mut self, frame: Frame) {
        if frame.data.len() > MAX_FRAME_BYTES {
            self.awaiting_key = true;
            return self.skip_here(frame.id, SkipReason::TooLarge);
        }
        if frame.key {
            self.awaiting_key = false;
        } else if self.awaiting_key {
            return self.skip_here(frame.id, SkipReason::AwaitingKey);
        } else if self.config.key_frames_only {
            return self.skip_here(frame.id, SkipReason::NotKey);
        }
        self.queue.push(frame);
        if self.live {
            self.catch_up_with_the_camera();
        }
    }

    /// Goes on at the newest key frame that waits, when too much waits; without one, at the next that comes.
    fn catch_up_with_the_camera(&mut self) {
        let times = (self.queue.frames.front(), self.queue.frames.back());
        let lag_ms = match times {
            (Some(oldest), Some(newest)) => newest.time_ms.saturating_sub(oldest.time_ms),
            _ => 0,
        };
        let full = self.queue.frames.len() > QUEUE_FRAMES || self.queue.bytes > QUEUE_BYTES;
        if !full && lag_ms <= LAG_MS {
            return;
        }
        let newest_key = self.queue.frames.iter().rposition(|frame| frame.key);
        match newest_key.filter(|at| *at > 0) {
            Some(at) => self.drop_queued(at, SkipReason::Lagging),
            None if full => {
                self.drop_queued(self.queue.frames.len(), SkipReason::Lagging);
                self.awaiting_key = true;
            }
            None => {}
        }
    }

    fn drop_queued(&mut self, count: usize, reason: SkipReason) {
        for _ in 0..count {
            if let Some(frame) = self.queue.pop() {
                self.skip_here(frame.id, reason);
            }
        }
    }

    fn skip_here(&mut self, id: u64, reason: SkipReason) {
        self.skipped_here += 1;
        self.outcomes.push_back(FrameOutcome::Skipped { id, reason });
    }

    /// What to send now, to the session numbered `session` at the worker. `now` is monotonic.
    pub(crate) fn next_message(&mut self, session: u32, now: Duration) -> Option<ToWorker> {
        if self.drained {
            return None;
        }
        if !self.opened {
            self.opened = true;
            self.live_told = self.live;
            return Some(ToWorker::Open(OpenSession {
                session,
                codec: self.config.codec,
                live: self.live,
                key_frames_only: self.config.key_frames_only,
                track_faces: self.config.track_faces,
                detector_side: self.config.detector_side,
                orientation: self.config.orientation,
                attributes: self.config.attributes,
                max_rate: self.config.max_rate.filter(|rate| *rate > 0.0).unwrap_or(f32::INFINITY),
                codec_private: self.config.codec_private.clone(),
            }));
        }
        if self.live_told != self.live {
            self.live_told = self.live;
            let live = self.live;
            return Some(ToWorker::SetLive { session, live });
        }
        if self.in_flight >= CREDIT_FRAMES || self.outcomes.len() >= OUTCOME_QUEUE {
            return None;
        }
        if let Some(frame) = self.replay.pop_front() {
            let silent = !self.pending.contains_key(&frame.id);
            return Some(self.send(session, frame, silent));
        }
        if let Some(frame) = self.queue.pop() {
            self.pending.insert(frame.id, now);
            return Some(self.send(session, frame, false));
        }
        if self.ended && !self.end_told {
            self.end_told = true;
            return Some(ToWorker::EndOfInput { session });
        }
        None
    }

    fn send(&mut self, session: u32, frame: Frame, silent: bool) -> ToWorker {
        self.in_flight += 1;
        if self.group.frames.len() >= REPLAY_FRAMES || self.group.bytes + frame.data.len() > REPLAY_BYTES {
            self.clear_group();
        }
        if frame.key {
            self.group_keys.push_back(frame.id);
        }
        if !self.group_keys.is_empty() {
            self.group.push(frame.clone());
        }
        self.trim_group();
        ToWorker::Packet(Packet {
            session,
            id: frame.id,
            time_ms: frame.time_ms,
            key: frame.key,
            silent,
            data: frame.data,
        })
    }

    fn clear_group(&mut self) {
        self.group.clear();
        self.group_keys.clear();
    }

    /// Forgets the frames before the last key frame that a replay would begin with.
    fn trim_group(&mut self) {
        let oldest = self.pending.first_key_value().map_or(u64::MAX, |(id, _)| *id);
        while let Some(second) = self.group_keys.get(1).copied().filter(|key| *key <= oldest) {
            self.group_keys.pop_front();
            while self.group.frames.front().is_some_and(|frame| frame.id < second) {
                self.group.pop();
            }
        }
    }

    /// The worker begins with a frame.
    pub(crate) fn on_taken(&mut self, id: u64) -> Result<(), UnknownFrame> {
        self.in_flight = self.in_flight.checked_sub(1).ok_or(UnknownFrame(id))?;
        self.last_taken = Some(id);
        Ok(())
    }

    /// The worker analysed a frame. Returns when it was sent.
    pub(crate) fn on_analysed(
        &mut self,
        id: u64,
        time_ms: i64,
        picture: ImageAnalysis,
    ) -> Result<Duration, UnknownFrame> {
        let sent = self.pending.remove(&id).ok_or(UnknownFrame(id))?;
        self.trim_group();
        self.outcomes.push_back(FrameOutcome::Analysed {
            id,
            time_ms,
            width: picture.width,
            height: picture.height,
            faces: picture.faces,
        });
        Ok(sent)
    }

    /// The worker skipped a frame.
    pub(crate) fn on_skipped(&mut self, id: u64, reason: SkipReason) -> Result<(), UnknownFrame> {
        self.pending.remove(&id).ok_or(UnknownFrame(id))?;
        self.trim_group();
        self.outcomes.push_back(FrameOutcome::Skipped { id, reason });
        Ok(())
    }

    /// The worker has nothing left of this session.
    pub(crate) fn on_drained(&mut self) -> Result<(), UnknownFrame> {
        if !self.end_told {
            return Err(UnknownFrame(0));
        }
        self.give_up_pending(SkipReason::Damaged);
        self.drained = true;
        Ok(())
    }

    /// The worker is dead. What it had is sent again from the last key frame, for decoding alone where it has had its
    /// outcome; but a frame that killed two workers is given up, and all up to the next key frame with it.
    pub(crate) fn on_worker_lost(&mut self) {
        if self.drained {
            return;
        }
        let was_open = std::mem::take(&mut self.opened);
        let was_busy = self.in_flight > 0 || !self.replay.is_empty();
        self.in_flight = 0;
        self.end_told = false;
        if was_open {
            self.outcomes.push_back(FrameOutcome::WorkerRestarted);
        }
        let working_on = self
            .last_taken
            .take()
            .filter(|id| was_busy || self.pending.contains_key(id));
        self.suspect = working_on.map(|id| match self.suspect {
            Some((suspect, deaths)) if suspect == id => (id, deaths + 1),
            _ => (id, 1),
        });
        let killer = self.suspect.filter(|(_, deaths)| *deaths >= 2).map(|(id, _)| id);
        if killer.is_none() && !(self.group.frames.is_empty() && self.replay.is_empty()) {
            let mut replay = std::mem::take(&mut self.group.frames);
            replay.append(&mut self.replay);
            self.replay = replay;
            self.clear_group();
            self.give_up_unreplayed();
            return;
        }
        if killer.is_some() {
            self.suspect = None;
        }
        if let Some(id) = killer
            && self.pending.remove(&id).is_some()
        {
            self.outcomes.push_back(FrameOutcome::Skipped {
                id,
                reason: SkipReason::KilledWorker,
            });
        }
        self.go_on_at_next_key();
    }

    /// Frames of an earlier group, still in the dead worker's decoder.
    fn give_up_unreplayed(&mut self) {
        let first = self.replay.front().map_or(u64::MAX, |frame| frame.id);
        let lost: Vec<u64> = self.pending.range(..first).map(|(id, _)| *id).collect();
        for id in lost {
            self.pending.remove(&id);
            let reason = SkipReason::AwaitingKey;
            self.outcomes.push_back(FrameOutcome::Skipped { id, reason });
        }
    }

    fn go_on_at_next_key(&mut self) {
        self.clear_group();
        self.replay.clear();
        self.give_up_pending(SkipReason::AwaitingKey);
        let until_key = self.queue.frames.iter().position(|frame| frame.key);
        self.awaiting_key |= until_key.is_none();
        self.drop_queued(until_key.unwrap_or(self.queue.frames.len()), SkipReason::AwaitingKey);
    }

    fn give_up_pending(&mut self, reason: SkipReason) {
        for (id, _) in std::mem::take(&mut self.pending) {
            self.outcomes.push_back(FrameOutcome::Skipped { id, reason });
        }
    }

    /// Nothing more is done: every frame that waits is skipped.
    pub(crate) fn close(&mut self) {
        self.give_up_pending(SkipReason::Closed);
        self.replay.clear();
        self.drop_queued(self.queue.frames.len(), SkipReason::Closed);
        self.drained = true;
    }

    pub(crate) fn next_outcome(&mut self) -> Option<FrameOutcome> {
        self.outcomes.pop_front()
    }

    /// Every frame has had its outcome and no more will come.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }
}

#[cfg(test)]
mod tests {
    use base::AccountId;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::Codec;

    fn schedule(mode: Mode) -> Schedule {
        let mut config = SessionConfig::new(AccountId::DEFAULT, Codec::H264, Bytes::new());
        config.mode = mode;
        Schedule::new(config)
    }

    fn frame(id: u64, key: bool) -> Frame {
        Frame {
            id,
            time_ms: id as i64 * 33,
            key,
            data: Bytes::from(vec![0; 10]),
        }
    }

    /// Everything that may be sent now: the ids, negative where only decoded.
    fn sent(schedule: &mut Schedule) -> Vec<i64> {
        let mut ids = Vec::new();
        while let Some(message) = schedule.next_message(7, Duration::ZERO) {
            if let ToWorker::Packet(packet) = message {
                ids.push(if packet.silent {
                    -(packet.id as i64)
                } else {
                    packet.id as i64
                });
            }
        }
        ids
    }

    fn outcomes(schedule: &mut Schedule) -> Vec<(u64, &'static str)> {
        std::iter::from_fn(|| schedule.next_outcome())
            .map(|outcome| match outcome {
                FrameOutcome::Analysed { id, .. } => (id, "analysed"),
                FrameOutcome::Skipped { id, reason } => (id, reason.as_str()),
                FrameOutcome::WorkerRestarted => (0, "restarted"),
            })
            .collect()
    }

    fn analyse(schedule: &mut Schedule, id: u64) {
        schedule.on_taken(id).unwrap();
        schedule.on_analysed(id, 0, ImageAnalysis::default()).unwrap();
    }

    #[test]
    fn nothing_is_sent_before_a_key_frame_and_no_more_than_the_credit() {
        let mut schedule = schedule(Mode::Live);
        schedule.push(frame(1, false));
        for id in 2..40 {
            schedule.push(frame(id, id == 2));
        }
        assert_eq!(outcomes(&mut schedule), [(1, "awaiting_key")]);
        assert_eq!(sent(&mut schedule), (2..18).collect::<Vec<i64>>());
        schedule.on_taken(2).unwrap();
        assert_eq!(sent(&mut schedule), [18]);
    }

    #[test]
    fn a_live_session_that_lags_goes_on_at_the_newest_key_frame() {
        let mut schedule = schedule(Mode::Live);
        for id in 1..=70 {
            schedule.push(frame(id, id == 1 || id == 30 || id == 60));
        }
        // 62 frames after the first, two seconds wait; key frame 60 is the newest.
        let skipped = outcomes(&mut schedule);
        assert_eq!(skipped.len(), 59);
        assert!(skipped.iter().all(|(id, reason)| *id < 60 && *reason == "lagging"));
        assert_eq!(sent(&mut schedule), (60..=70).collect::<Vec<i64>>());
        assert_eq!(schedule.skipped_here(), 59);
    }

    #[test]
    fn a_live_session_without_a_later_key_frame_keeps_its_bound() {
        let mut schedule = schedule(Mode::Live);
        for id in 1..=10_000 {
            schedule.push(frame(id, id == 1));
            assert!(schedule.queued() <= QUEUE_FRAMES);
        }
        let reasons = outcomes(&mut schedule);
        assert_eq!(reasons.len(), 10_000);
        assert_eq!(reasons.last(), Some(&(10_000, "awaiting_key")));
    }

    #[test]
    fn catching_up_waits_instead_of_dropping() {
        let mut schedule = schedule(Mode::CatchUp);
        let mut id = 0;
        while schedule.has_room() {
            id += 1;
            schedule.push(frame(id, id == 1));
        }
        assert_eq!(id, CATCH_UP_FRAMES as u64);
        assert_eq!(sent(&mut schedule).len(), CREDIT_FRAMES as usize);
        assert!(schedule.has_room());
        assert!(outcomes(&mut schedule).is_empty());
        schedule.set_mode(Mode::Live);
        schedule.on_taken(1).unwrap();
        let message = schedule.next_message(7, Duration::ZERO);
        assert_eq!(message, Some(ToWorker::SetLive { session: 7, live: true }));
    }

    #[test]
    fn after_a_death_the_group_is_decoded_again_and_each_frame_has_one_outcome() {
        let mut schedule = schedule(Mode::Live);
        for id in 1..=6 {
            schedule.push(frame(id, id == 1 || id == 3));
        }
        assert_eq!(sent(&mut schedule), [1, 2, 3, 4, 5, 6]);
        for id in [1, 3, 4] {
            analyse(&mut schedule, id);
        }
        outcomes(&mut schedule);
        schedule.on_worker_lost();
        assert_eq!(outcomes(&mut schedule), [(0, "restarted")]);
        // Frame 2 has had no outcome, so its group comes again too.
        assert_eq!(sent(&mut schedule), [-1, 2, -3, -4, 5, 6]);
        schedule.on_taken(1).unwrap();
        analyse(&mut schedule, 2);
        schedule.on_taken(3).unwrap();
        schedule.on_worker_lost();
        outcomes(&mut schedule);
        assert_eq!(sent(&mut schedule), [-3, -4, 5, 6]);
        for id in [3, 4] {
            schedule.on_taken(id).unwrap();
        }
        analyse(&mut schedule, 5);
        analyse(&mut schedule, 6);
        assert_eq!(outcomes(&mut schedule), [(5, "analysed"), (6, "analysed")]);
    }

    #[test]
    fn a_frame_that_kills_two_workers_is_given_up_with_the_rest_of_its_group() {
        let mut schedule = schedule(Mode::Live);
        for id in 1..=5 {
            schedule.push(frame(id, id == 1 || id == 5));
        }
        for _ in 0..2 {
            assert_eq!(sent(&mut schedule), [1, 2, 3, 4, 5]);
            schedule.on_taken(1).unwrap();
            schedule.on_taken(2).unwrap();
            schedule.on_worker_lost();
        }
        let told = outcomes(&mut schedule);
        assert_eq!(told[..3], [(0, "restarted"), (0, "restarted"), (2, "killed_worker")]);
        schedule.push(frame(6, false));
        schedule.push(frame(7, true));
        assert_eq!(outcomes(&mut schedule), [(6, "awaiting_key")]);
        assert_eq!(sent(&mut schedule), [7]);
    }

    #[test]
    fn an_idle_worker_killed_over_and_over_accuses_no_frame() {
        let mut schedule = schedule(Mode::Live);
        schedule.push(frame(1, true));
        sent(&mut schedule);
        analyse(&mut schedule, 1);
        for _ in 0..5 {
            schedule.on_worker_lost();
            assert_eq!(sent(&mut schedule), [-1]);
            schedule.on_taken(1).unwrap();
        }
        assert!(outcomes(&mut schedule).iter().all(|(_, what)| *what != "killed_worker"));
        schedule.push(frame(2, false));
        assert_eq!(sent(&mut schedule), [2]);
    }

    #[test]
    fn a_group_too_large_to_keep_is_not_replayed() {
        let mut schedule = schedule(Mode::CatchUp);
        for id in 1..=REPLAY_FRAMES as u64 + 2 {
            schedule.push(frame(id, id == 1));
            sent(&mut schedule);
            analyse(&mut schedule, id);
            outcomes(&mut schedule);
        }
        schedule.on_worker_lost();
        assert_eq!(sent(&mut schedule), Vec::<i64>::new());
        schedule.push(frame(1_000_000, false));
        assert_eq!(outcomes(&mut schedule), [(0, "restarted"), (1_000_000, "awaiting_key")]);
    }

    #[test]
    fn a_worker_that_speaks_of_frames_it_does_not_have_is_found_out() {
        let mut schedule = schedule(Mode::Live);
        assert_eq!(schedule.on_taken(1), Err(UnknownFrame(1)));
        assert!(schedule.on_analysed(1, 0, ImageAnalysis::default()).is_err());
        assert!(schedule.on_drained().is_err());
        schedule.push(frame(1, true));
        sent(&mut schedule);
        analyse(&mut schedule, 1);
        assert_eq!(schedule.on_skipped(1, SkipReason::Rate), Err(UnknownFrame(1)));
    }

    #[test]
    fn a_receiver_that_stalls_stops_the_frames_and_at_last_the_session() {
        let mut schedule = schedule(Mode::CatchUp);
        let mut id = 0;
        while schedule.has_room() {
            id += 1;
            schedule.push(frame(id, id == 1));
            for id in sent(&mut schedule) {
                analyse(&mut schedule, id as u64);
            }
        }
        assert!(id as usize <= OUTCOME_QUEUE + CATCH_UP_FRAMES);
        schedule.set_mode(Mode::Live);
        while !schedule.is_abandoned() {
            id += 1;
            schedule.push(frame(id, false));
        }
        assert!(id as usize <= UNREAD_OUTCOMES + QUEUE_FRAMES + CATCH_UP_FRAMES);
    }

    proptest! {
        /// Whatever happens and in whatever order, each frame has exactly one outcome in the end.
        #[test]
        fn every_frame_has_exactly_one_outcome(steps in proptest::collection::vec(0u8..12, 1..400), live: bool) {
            let mut schedule = schedule(if live { Mode::Live } else { Mode::CatchUp });
            let (mut next, mut told) = (0u64, Vec::new());
            let mut at_worker: VecDeque<Packet> = VecDeque::new();
            let mut taken: VecDeque<Packet> = VecDeque::new();
            for step in steps.into_iter().chain([255]) {
                match step {
                    0..=3 if schedule.has_room() => {
                        next += 1;
                        schedule.push(frame(next, next % 7 == 1));
                    }
                    4..=6 => {
                        if let Some(ToWorker::Packet(packet)) = schedule.next_message(1, Duration::ZERO) {
                            at_worker.push_back(packet);
                        }
                    }
                    7..=8 => {
                        if let Some(packet) = at_worker.pop_front() {
                            schedule.on_taken(packet.id).unwrap();
                            taken.push_back(packet);
                        }
                    }
                    9..=10 => {
                        if let Some(packet) = taken.pop_front() && !packet.silent {
                            schedule.on_analysed(packet.id, packet.time_ms, ImageAnalysis::default()).unwrap();
                        }
                    }
                    11 => {
                        schedule.on_worker_lost();
                        at_worker.clear();
                        taken.clear();
                    }
                    255 => schedule.close(),
                    _ => {}
                }
            }
            while let Some(outcome) = schedule.next_outcome() {
                match outcome {
                    FrameOutcome::Analysed { id, .. } | FrameOutcome::Skipped { id, .. } => told.push(id),
                    FrameOutcome::WorkerRestarted => {}
                }
            }
            told.sort_unstable();
            prop_assert_eq!(told, (1..=next).collect::<Vec<u64>>());
        }
    }
}
