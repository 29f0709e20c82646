//! The live tail of one stream: media as it arrives, before its fragment ends, handed to readers that follow.
//!
//! Ingest never waits here. What arrives stands once, for all readers, until the last of them has taken it, and no more than a
//! budget of bytes stands: beyond it the oldest goes, and a reader that had not come to it is dropped behind. It skips to the
//! next fragment that starts, and reads what it missed from storage. Without readers the cost of publishing is one atomic
//! load. A reader that subscribes in the middle of a fragment does not get that fragment from here. What arrives together is
//! published together: a reader is woken once for it, since waking costs more than the rest. Knows nothing of Matroska and
//! nothing of storage.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use parking_lot::Mutex;
use storage::FragmentNumber;
use tokio::sync::watch;

use crate::limits::{CROWD_READERS, LIVE_QUEUE_BYTES, LIVE_QUEUE_MESSAGES};

/// What became of a fragment that readers followed live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored (and, where the stream has retention, durable) under this commit position.
    Stored {
        /// Its place in the stream's dense order of commits.
        position: u64,
    },
    /// It was refused, cut off, or could not be stored; it is never listed.
    Rejected,
}

/// A fragment that is arriving.
#[derive(Debug)]
pub struct LiveFragment {
    /// Its number.
    pub number: FragmentNumber,
    /// When its first byte arrived.
    pub server_timestamp: Timestamp,
    /// When it was made, as the producer says.
    pub producer_timestamp: Timestamp,
    /// The cluster's timecode as sent, in units of the timecode scale.
    pub timecode: u64,
    /// What stands before the cluster in the fragment's document.
    pub header: Bytes,
    outcome: watch::Sender<Option<Outcome>>,
}

impl LiveFragment {
    /// Waits until it is known what became of the fragment.
    pub async fn outcome(&self) -> Outcome {
        let mut known = self.outcome.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        match known.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(Outcome::Rejected),
            Err(_) => Outcome::Rejected,
        }
    }

    /// What became of it, when that is known.
    pub fn outcome_now(&self) -> Option<Outcome> {
        *self.outcome.borrow()
    }
}

/// What a reader finds in its queue.
#[derive(Clone, Debug)]
pub enum Message {
    /// A fragment starts. Fragments of several connections may overlap.
    Start(Arc<LiveFragment>),
    /// The next bytes of a fragment, verbatim, beginning with its cluster.
    Media {
        /// Whose bytes.
        number: FragmentNumber,
        /// The bytes.
        bytes: Bytes,
        /// When they arrived, by [`base::Clock::monotonic`].
        arrived: Duration,
    },
    /// No more bytes follow for this fragment: it is whole, or it was cut off. [`LiveFragment::outcome`] says which.
    End(FragmentNumber),
}

/// What [`Subscription::next`] yields.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Message(Message),
    /// The queue overflowed; messages were lost. What was lost is in storage, or will be.
    Lagged,
    /// The stream was deleted; nothing follows.
    Closed,
}

/// The hub of one stream.
#[derive(Debug, Default)]
pub struct Hub {
    tail: Mutex<Tail>,
    count: AtomicUsize,
    closed: watch::Sender<bool>,
}

/// What readers have not all taken yet. Messages are numbered by the order in which they were published.
#[derive(Debug, Default)]
struct Tail {
    messages: VecDeque<Standing>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
    readers: usize,
    /// Number of the next reader; none is used twice.
    next_reader: u64,
    waiting: Vec<(u64, Waker)>,
    closed: bool,
}

#[derive(Debug)]
struct Standing {
    message: Message,
    /// Readers that have not taken it.
    unread: usize,
}

impl Message {
    fn media_len(&self) -> usize {
        match self {
            Message::Media { bytes, .. } => bytes.len(),
            Message::Start(_) | Message::End(_) => 0,
        }
    }
}

impl Tail {
    /// Number of the next message.
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn push(&mut self, message: &Message) {
        if self.readers == 0 {
            return;
        }
        let len = message.media_len();
        while self.messages.len() >= LIVE_QUEUE_MESSAGES || self.bytes + len > LIVE_QUEUE_BYTES {
            if !self.drop_first() {
                break;
            }
        }
        if len > LIVE_QUEUE_BYTES {
            // It does not fit at all: every reader is behind now.
            self.first += 1;
            return;
        }
        self.bytes += len;
        self.messages.push_back(Standing {
            message: message.clone(),
            unread: self.readers,
        });
    }

    fn drop_first(&mut self) -> bool {
        let Some(dropped) = self.messages.pop_front() else {
            return false;
        };
        self.first += 1;
        self.bytes -= dropped.message.media_len();
        true
    }

    fn standing(&mut self, number: u64) -> Option<&mut Standing> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.messages.get_mut(index)
    }

    /// The next message for a reader that stands at `at`.
    fn take(&mut self, at: &mut u64) -> Option<Next> {
        if self.closed {
            return Some(Next::Closed);
        }
        if *at < self.first {
            // On with the next fragment that starts; the rest of the others is lost to this reader.
            let starts = |standing: &Standing| matches!(standing.message, Message::Start(_));
            let skipped = self.messages.iter().position(starts).unwrap_or(self.messages.len());
            let to = self.first + skipped as u64;
            *at = self.first;
            self.pass(at, to);
            return Some(Next::Lagged);
        }
        let standing = self.standing(*at)?;
        let message = standing.message.clone();
        let next = *at + 1;
        self.pass(at, next);
        Some(Next::Message(message))
    }

    /// Moves a reader on; what nobody has to take any more goes.
    fn pass(&mut self, at: &mut u64, to: u64) {
        for number in (*at).max(self.first)..to {
            if let Some(standing) = self.standing(number) {
                standing.unread -= 1;
            }
        }
        *at = to;
        while self.messages.front().is_some_and(|standing| standing.unread == 0) {
            self.drop_first();
        }
    }
}

impl Hub {
    /// An empty hub.
    pub fn new() -> Arc<Self> {
        Arc::new(Hub::default())
    }

    /// True when somebody follows: what need not be made for nobody can be left out.
    pub fn is_followed(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// True when so many follow that frames are handed on in pairs.
    pub fn is_crowded(&self) -> bool {
        self.count.load(Ordering::Acquire) > CROWD_READERS
    }

    /// Starts to follow; everything published after this call is seen.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        let mut tail = self.tail.lock();
        tail.readers += 1;
        tail.next_reader += 1;
        self.count.store(tail.readers, Ordering::Release);
        Subscription {
            hub: self.clone(),
            reader: tail.next_reader,
            at: tail.end(),
            waits: None,
        }
    }

    /// Tells every reader, now and later, that the stream was deleted.
    pub fn close(&self) {
        self.closed.send_replace(true);
        let waiting = {
            let mut tail = self.tail.lock();
            tail.closed = true;
            std::mem::take(&mut tail.waiting)
        };
        wake(waiting);
    }

    /// True after [`Hub::close`].
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for [`Hub::close`].
    pub async fn closed(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn publish(&self, messages: &[Message]) {
        let waiting = {
            let mut tail = self.tail.lock();
            for message in messages {
                tail.push(message);
            }
            std::mem::take(&mut tail.waiting)
        };
        wake(waiting);
    }

    /// Announces a fragment. The publisher that comes back must be finished; dropping it rejects the fragment.
    pub fn start(self: &Arc<Self>, fragment: NewFragment) -> Publisher {
        let fragment = Arc::new(LiveFragment {
            number: fragment.number,
            server_timestamp: fragment.server_timestamp,
            producer_timestamp: fragment.producer_timestamp,
            timecode: fragment.timecode,
            header: fragment.header,
            outcome: watch::Sender::new(None),
        });
        let mut publisher = Publisher {
            hub: self.clone(),
            fragment,
            waiting: Vec::new(),
            ended: false,
        };
        publisher.put(|fragment| Message::Start(fragment.clone()));
        publisher
    }
}

fn wake(waiting: Vec<(u64, Waker)>) {
    for (_, waker) in waiting {
        waker.wake();
    }
}

/// What is known of a fragment when its cluster starts; the members are those of [`LiveFragment`].
#[derive(Debug)]
pub struct NewFragment {
    /// See [`LiveFragment::number`].
    pub number: FragmentNumber,
    /// See [`LiveFragment::server_timestamp`].
    pub server_timestamp: Timestamp,
    /// See [`LiveFragment::producer_timestamp`].
    pub producer_timestamp: Timestamp,
    /// See [`LiveFragment::timecode`].
    pub timecode: u64,
    /// See [`LiveFragment::header`].
    pub header: Bytes,
}

/// The ingest side of one live fragment. Readers see what it was given at the next [`Publisher::flush`] or at its end.
#[derive(Debug)]
pub struct Publisher {
    hub: Arc<Hub>,
    fragment: Arc<LiveFragment>,
    waiting: Vec<Message>,
    ended: bool,
}

impl Publisher {
    /// The next bytes of the fragment. Free of cost while nobody follows.
    pub fn media(&mut self, bytes: &Bytes, arrived: Duration) {
        self.put(|fragment| Message::Media {
            number: fragment.number,
            bytes: bytes.clone(),
            arrived,
        });
    }

    /// No more bytes follow; the outcome does.
    pub fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.put(|fragment| Message::End(fragment.number));
            self.flush();
        }
    }

    /// Hands on what readers have not seen yet.
    pub fn flush(&mut self) {
        if !self.waiting.is_empty() {
            self.hub.publish(&self.waiting);
            self.waiting.clear();
        }
    }

    fn put(&mut self, message: impl FnOnce(&Arc<LiveFragment>) -> Message) {
        // What waits already may be flushed to a reader that comes now, so that it must not have a hole.
        if self.hub.is_followed() || !self.waiting.is_empty() {
            self.waiting.push(message(&self.fragment));
        }
    }

    /// The fragment is stored.
    pub fn stored(mut self, position: u64) {
        self.finish(Outcome::Stored { position });
    }

    /// The fragment was refused.
    pub fn rejected(mut self) {
        self.finish(Outcome::Rejected);
    }

    fn finish(&mut self, outcome: Outcome) {
        // The outcome before the message: a reader that sees the end of a refused fragment finds the outcome known.
        self.fragment.outcome.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(outcome);
            first
        });
        self.end();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.finish(Outcome::Rejected);
    }
}

/// One reader's place in the live tail.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    reader: u64,
    /// Number of the next message.
    at: u64,
    /// The waker that was left with the hub when `at` was the end; still there as long as it is.
    waits: Option<(u64, Waker)>,
}

impl Subscription {
    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same as a poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut tail = self.hub.tail.lock();
        if let Some(next) = tail.take(&mut self.at) {
            return Poll::Ready(next);
        }
        let left = matches!(&self.waits, Some((at, waker)) if *at == self.at && waker.will_wake(cx.waker()));
        if !left {
            // Once in the list at most.
            if self.waits.as_ref().is_some_and(|(at, _)| *at == self.at) {
                tail.waiting.retain(|(reader, _)| *reader != self.reader);
            }
            tail.waiting.push((self.reader, cx.waker().clone()));
            match &mut self.waits {
                Some((at, waker)) => {
                    *at = self.at;
                    waker.clone_from(cx.waker());
                }
                none => *none = Some((self.at, cx.waker().clone())),
            }
        }
        Poll::Pending
    }

    /// The next message if one waits.
    pub fn try_next(&mut self) -> Option<Next> {
        self.hub.tail.lock().take(&mut self.at)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut tail = self.hub.tail.lock();
        let end = tail.end();
        tail.pass(&mut self.at, end);
        tail.waiting.retain(|(reader, _)| *reader != self.reader);
        tail.readers -= 1;
        self.hub.count.store(tail.readers, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(number: u64) -> NewFragment {
        NewFragment {
            number: crate::testing::number(number),
            server_timestamp: Timestamp::from_millis(1),
            producer_timestamp: Timestamp::from_millis(2),
            timecode: 3,
            header: Bytes::from_static(b"header"),
        }
    }

    fn name(next: Option<Next>) -> String {
        match next {
            None => "none".into(),
            Some(Next::Lagged) => "lagged".into(),
            Some(Next::Closed) => "closed".into(),
            Some(Next::Message(Message::Start(f))) => format!("start {}", f.number),
            Some(Next::Message(Message::Media { bytes, .. })) => format!("media {}", bytes.len()),
            Some(Next::Message(Message::End(n))) => format!("end {n}"),
        }
    }

    #[tokio::test]
    async fn a_reader_sees_the_fragment_as_it_arrives_and_what_became_of_it() {
        let hub = Hub::new();
        let mut reader = hub.subscribe();
        let mut publisher = hub.start(fragment(7));
        publisher.media(&Bytes::from_static(b"abc"), Duration::ZERO);
        assert_eq!(name(reader.try_next()), "none", "before it is handed on");
        publisher.flush();
        let Some(Next::Message(Message::Start(live))) = reader.try_next() else {
            panic!("no start")
        };
        assert_eq!(live.outcome_now(), None);
        assert_eq!(name(reader.try_next()), "media 3");
        publisher.stored(9);
        assert_eq!(live.outcome().await, Outcome::Stored { position: 9 });
        assert_eq!(name(reader.try_next()), format!("end {}", live.number));
        assert_eq!(name(reader.try_next()), "none");
    }

    #[test]
    fn a_dropped_publisher_rejects_the_fragment() {
        let hub = Hub::new();
        let mut reader = hub.subscribe();
        let mut publisher = hub.start(fragment(7));
        publisher.end();
        drop(publisher);
        let Some(Next::Message(Message::Start(live))) = reader.try_next() else {
            panic!("no start")
        };
        assert_eq!(live.outcome_now(), Some(Outcome::Rejected));
        assert_eq!(name(reader.try_next()), format!("end {}", live.number));
        assert_eq!(name(reader.try_next()), "none", "the end is told once");
    }

    #[test]
    fn a_slow_reader_is_dropped_behind_and_goes_on_with_the_next_fragment() {
        let hub = Hub::new();
        let mut slow = hub.subscribe();
        let mut first = hub.start(fragment(1));
        let chunk = Bytes::from(vec![0; 300_000]);
        for _ in 0..4 {
            first.media(&chunk, Duration::ZERO);
            first.flush();
        }
        first.stored(1);
        let mut second = hub.start(fragment(2));
        second.flush();
        assert_eq!(name(slow.try_next()), "lagged");
        assert!(name(slow.try_next()).starts_with("start"));
        assert_eq!(name(slow.try_next()), "none");
        drop(second);
    }

    #[test]
    fn what_all_have_taken_goes_and_a_slow_reader_takes_nothing_from_a_fast_one() {
        let hub = Hub::new();
        let (mut fast, slow) = (hub.subscribe(), hub.subscribe());
        let mut publisher = hub.start(fragment(1));
        let standing = || {
            let tail = hub.tail.lock();
            (tail.messages.len(), tail.bytes)
        };
        let chunk = Bytes::from(vec![0; 100_000]);
        for round in 0..50 {
            publisher.media(&chunk, Duration::ZERO);
            publisher.flush();
            if round == 0 {
                assert!(name(fast.try_next()).starts_with("start"));
            }
            assert_eq!(name(fast.try_next()), "media 100000");
            assert_eq!(name(fast.try_next()), "none");
            assert!(standing().1 <= LIVE_QUEUE_BYTES);
        }
        assert_eq!(standing(), (10, 1_000_000), "for the slow one");
        drop(slow);
        assert_eq!(standing(), (0, 0));
        publisher.media(&chunk, Duration::ZERO);
        publisher.flush();
        assert_eq!(standing(), (1, 100_000));
        assert_eq!(name(fast.try_next()), "media 100000");
        assert_eq!(standing(), (0, 0));
    }

    #[test]
    fn bytes_beyond_the_budget_leave_every_reader_behind() {
        let hub = Hub::new();
        let mut reader = hub.subscribe();
        let mut publisher = hub.start(fragment(1));
        publisher.media(&Bytes::from(vec![0; LIVE_QUEUE_BYTES + 1]), Duration::ZERO);
        publisher.flush();
        assert_eq!(name(reader.try_next()), "lagged");
        publisher.media(&Bytes::from_static(b"abc"), Duration::ZERO);
        publisher.flush();
        assert_eq!(name(reader.try_next()), "media 3");
    }

    #[test]
    fn readers_that_wait_and_leave_where_nothing_arrives_leave_nothing() {
        let hub = Hub::new();
        let mut stays = hub.subscribe();
        let mut cx = Context::from_waker(Waker::noop());
        let other = Waker::from(Arc::new(Nothing));
        for _ in 0..100 {
            let mut leaves = hub.subscribe();
            assert!(leaves.poll_next(&mut cx).is_pending());
            assert!(stays.poll_next(&mut cx).is_pending());
            assert!(stays.poll_next(&mut Context::from_waker(&other)).is_pending());
            assert_eq!(hub.tail.lock().waiting.len(), 2);
        }
        assert_eq!(hub.tail.lock().waiting.len(), 1);
    }

    struct Nothing;

    impl std::task::Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_reader_that_comes_while_a_start_waits_misses_nothing_of_the_fragment() {
        let hub = Hub::new();
        let early = hub.subscribe();
        let mut publisher = hub.start(fragment(7));
        drop(early);
        publisher.media(&Bytes::from_static(b"abc"), Duration::ZERO);
        let mut late = hub.subscribe();
        publisher.media(&Bytes::from_static(b"de"), Duration::ZERO);
        publisher.flush();
        assert!(name(late.try_next()).starts_with("start"));
        assert_eq!(name(late.try_next()), "media 3");
        assert_eq!(name(late.try_next()), "media 2");
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_once_for_what_arrived_together() {
        let hub = Hub::new();
        let mut reader = hub.subscribe();
        let task = tokio::spawn(async move {
            let first = name(Some(reader.next().await));
            (first, name(reader.try_next()), name(reader.try_next()))
        });
        tokio::task::yield_now().await;
        let mut publisher = hub.start(fragment(7));
        publisher.media(&Bytes::from_static(b"abc"), Duration::ZERO);
        publisher.flush();
        let (first, second, third) = task.await.unwrap();
        assert!(first.starts_with("start"));
        assert_eq!((second.as_str(), third.as_str()), ("media 3", "none"));
    }

    #[test]
    fn deleting_the_stream_ends_every_reader_and_nobody_costs_nothing() {
        let hub = Hub::new();
        assert!(!hub.is_followed());
        let mut early = hub.subscribe();
        assert!(hub.is_followed());
        hub.close();
        assert_eq!(name(early.try_next()), "closed");
        assert_eq!(name(hub.subscribe().try_next()), "closed");
        drop(early);
        assert!(!hub.is_followed());
    }
}
