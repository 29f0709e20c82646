//! One slot for a worker process that decodes video of one account: it starts the process when a session is there, moves
//! messages both ways, and replaces a process that died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base::{AccountId, Clock};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{HEALTHY_AFTER, MAX_BACKOFF, MIN_BACKOFF, OUTCOME_QUEUE, STALL_TIMEOUT};
use crate::meters::Meters;
use crate::process::{Failure, Inbox, Launch, Outbox, Process};
use crate::protocol::{FromWorker, ToWorker};
use crate::schedule::Schedule;
use crate::types::{Frame, FrameOutcome, Mode, SessionClosed, SessionConfig};

const KIND: [&str; 1] = ["video"];

pub(crate) struct VideoHost {
    pub(crate) account: AccountId,
    launch: Arc<Launch>,
    meters: Arc<Meters>,
    clock: Arc<dyn Clock>,
    idle_retire: Duration,
    sessions: Mutex<BTreeMap<u32, Arc<Session>>>,
    closing: Mutex<Vec<u32>>,
    next_number: AtomicU32,
    /// The pool is gone: nobody can open another session.
    orphaned: AtomicBool,
    wake: Notify,
}

/// A session as sender, receiver and host share it.
pub(crate) struct Session {
    host: Arc<VideoHost>,
    number: u32,
    schedule: Mutex<Schedule>,
    outcome_ready: Notify,
    room: Notify,
}

/// Why a process is no longer driven.
enum Stop {
    Idle,
    Lost(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Lost(failure)
    }
}

impl VideoHost {
    pub(crate) fn new(
        account: AccountId,
        launch: Arc<Launch>,
        meters: Arc<Meters>,
        clock: Arc<dyn Clock>,
        idle_retire: Duration,
    ) -> Arc<VideoHost> {
        Arc::new(VideoHost {
            account,
            launch,
            meters,
            clock,
            idle_retire,
            sessions: Mutex::default(),
            closing: Mutex::default(),
            next_number: AtomicU32::new(1),
            orphaned: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    pub(crate) fn is_background(&self) -> bool {
        self.launch.background
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.lock().len()
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn orphan(&self) {
        self.orphaned.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn open(self: &Arc<Self>, config: SessionConfig) -> Arc<Session> {
        let session = Arc::new(Session {
            host: self.clone(),
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            schedule: Mutex::new(Schedule::new(config)),
            outcome_ready: Notify::new(),
            room: Notify::new(),
        });
        self.sessions.lock().insert(session.number, session.clone());
        self.wake();
        session
    }

    /// Runs until `may_retire` agrees that it is not needed any more.
    pub(crate) async fn run(self: Arc<Self>, may_retire: impl Fn(&VideoHost) -> bool) {
        let mut backoff = MIN_BACKOFF;
        loop {
            if self.session_count() == 0 {
                if may_retire(&self) {
                    return;
                }
                let _ = tokio::time::timeout(self.idle_retire, self.wake.notified()).await;
                continue;
            }
            let started = self.clock.monotonic();
            let stop = match Process::start(&self.launch, self.launch.video_abilities).await {
                Ok(process) => self.drive(process).await,
                Err(failure) => Stop::Lost(failure),
            };
            let Stop::Lost(failure) = stop else { continue };
            self.meters.deaths.with_label_values(&KIND).inc();
            tracing::warn!(account = %self.account, error = %failure, "vision worker lost");
            for session in self.all() {
                session.schedule.lock().on_worker_lost();
                session.tell();
            }
            if self.clock.monotonic().saturating_sub(started) >= HEALTHY_AFTER {
                backoff = MIN_BACKOFF;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    async fn drive(&self, mut process: Process) -> Stop {
        let running = self.meters.workers.with_label_values(&KIND);
        running.inc();
        self.closing.lock().clear();
        let stop = tokio::select! {
            stop = self.write(&mut process.outbox) => stop,
            stop = self.read(&mut process.inbox) => stop,
        };
        running.dec();
        process.kill().await;
        stop
    }

    async fn write(&self, outbox: &mut Outbox) -> Stop {
        loop {
            while let Some(message) = self.take_closing() {
                if let Err(failure) = outbox.send(&message).await {
                    return failure.into();
                }
            }
            let mut said = false;
            for session in self.all() {
                // One message for each in turn, so that a session that catches up does not hold up the others.
                let message = session
                    .schedule
                    .lock()
                    .next_message(session.number, self.clock.monotonic());
                if let Some(message) = message {
                    said = true;
                    session.room.notify_one();
                    if let Err(failure) = outbox.send(&message).await {
                        return failure.into();
                    }
                }
            }
            if said {
                continue;
            }
            let woken = tokio::time::timeout(self.idle_retire, self.wake.notified()).await;
            let unwanted = woken.is_err() || self.orphaned.load(Ordering::Acquire);
            if unwanted && self.session_count() == 0 {
                return Stop::Idle;
            }
        }
    }

    fn take_closing(&self) -> Option<ToWorker> {
        self.closing.lock().pop().map(|session| ToWorker::Close { session })
    }

    async fn read(&self, inbox: &mut Inbox) -> Stop {
        let mut waiting = false;
        loop {
            match tokio::time::timeout(STALL_TIMEOUT / 2, inbox.next()).await {
                Ok(Ok(message)) => {
                    waiting = false;
                    if let Err(failure) = self.receive(message) {
                        return failure.into();
                    }
                }
                Ok(Err(failure)) => return failure.into(),
                Err(_) => {
                    let now = self.all().iter().any(|s| s.schedule.lock().is_waiting_for_worker());
                    if now && waiting {
                        return Failure::Silent.into();
                    }
                    waiting = now;
                }
            }
        }
    }

    fn receive(&self, message: FromWorker) -> Result<(), Failure> {
        let number = match &message {
            FromWorker::Taken { session, .. }
            | FromWorker::Analysed { session, .. }
            | FromWorker::Skipped { session, .. }
            | FromWorker::Drained { session } => *session,
            FromWorker::Ready { .. }
            | FromWorker::Image { .. }
            | FromWorker::Labels { .. }
            | FromWorker::Still { .. }
            | FromWorker::Objects { .. }
            | FromWorker::StillsDone { .. }
            | FromWorker::FilmWants { .. }
            | FromWorker::FilmOpened(_)
            | FromWorker::FilmFrame(_)
            | FromWorker::FilmEnd(_) => return Err(Failure::OutOfTurn),
        };
        // Messages of a session that was closed meanwhile are out of date.
        let Some(session) = self.sessions.lock().get(&number).cloned() else {
            return Ok(());
        };
        let mut schedule = session.schedule.lock();
        match message {
            FromWorker::Taken { id, .. } => {
                schedule.on_taken(id)?;
                self.wake();
                return Ok(());
            }
            FromWorker::Analysed {
                id, time_ms, picture, ..
            } => {
                let sent = schedule.on_analysed(id, time_ms, picture)?;
                let took = self.clock.monotonic().saturating_sub(sent);
                self.meters
                    .frame_seconds
                    .with_label_values(&[] as &[&str])
                    .observe(took.as_secs_f64());
            }
            FromWorker::Skipped { id, reason, .. } => schedule.on_skipped(id, reason)?,
            FromWorker::Drained { .. } => {
                schedule.on_drained()?;
                self.sessions.lock().remove(&number);
            }
            FromWorker::Ready { .. }
            | FromWorker::Image { .. }
            | FromWorker::Labels { .. }
            | FromWorker::Still { .. }
            | FromWorker::Objects { .. }
            | FromWorker::StillsDone { .. }
            | FromWorker::FilmWants { .. }
            | FromWorker::FilmOpened(_)
            | FromWorker::FilmFrame(_)
            | FromWorker::FilmEnd(_) => {}
        }
        drop(schedule);
        session.tell();
        Ok(())
    }
}

impl Session {
    /// Something may have changed for sender and receiver.
    fn tell(&self) {
        self.outcome_ready.notify_one();
        self.room.notify_one();
    }

    /// Takes a frame; waits for room where the mode says so. Returns how many wait and how many were skipped here.
    pub(crate) async fn send(&self, frame: Frame) -> Result<(usize, u64), SessionClosed> {
        loop {
            {
                let mut schedule = self.schedule.lock();
                if schedule.is_drained() {
                    return Err(SessionClosed);
                }
                if schedule.is_abandoned() {
                    drop(schedule);
                    tracing::warn!(account = %self.host.account, "a vision session's outcomes are not fetched: closed");
                    self.close();
                    return Err(SessionClosed);
                }
                if schedule.has_room() {
                    let skipped_before = schedule.skipped_here();
                    schedule.push(frame);
                    let report = (schedule.queued(), schedule.skipped_here());
                    drop(schedule);
                    if report.1 != skipped_before {
                        self.outcome_ready.notify_one();
                    }
                    self.host.wake();
                    return Ok(report);
                }
            }
            self.room.notified().await;
        }
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.schedule.lock().set_mode(mode);
        self.room.notify_one();
        self.host.wake();
    }

    pub(crate) fn mark_gap(&self) {
        self.schedule.lock().mark_gap();
    }

    pub(crate) fn end(&self) {
        self.schedule.lock().end();
        self.host.wake();
    }

    /// The receiver is gone, or will never come.
    pub(crate) fn close(&self) {
        self.schedule.lock().close();
        if self.host.sessions.lock().remove(&self.number).is_some() {
            self.host.closing.lock().push(self.number);
        }
        self.tell();
        self.host.wake();
    }

    pub(crate) async fn next_outcome(&self) -> Option<FrameOutcome> {
        loop {
            {
                let mut schedule = self.schedule.lock();
                let was_full = schedule.unread() >= OUTCOME_QUEUE;
                if let Some(outcome) = schedule.next_outcome() {
                    drop(schedule);
                    if was_full {
                        self.room.notify_one();
                        self.host.wake();
                    }
                    self.host.meters.count(&outcome);
                    return Some(outcome);
                }
                if schedule.is_drained() {
                    return None;
                }
            }
            self.outcome_ready.notified().await;
        }
    }
}
