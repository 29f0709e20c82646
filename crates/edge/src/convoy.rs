//! Connections that send the same live media, driven by one task.
//!
//! Where one camera has hundreds of consumers, every frame makes hundreds of connections ready at once. As tasks of their own
//! each is scheduled by itself, spread over threads that take the cores from everybody else. A convoy is woken once and polls
//! its members one after the other. A member is a connection as it is, so that TLS, back-pressure and deadlines are its own: one
//! that waits for a slow peer is not polled, and holds up nobody. One that panics ends alone.
//!
//! An operation says that its answers belong together by [`base::Reply::crowd`]. A connection joins when it begins to send
//! such an answer and goes its own way again when the answer has ended. Knows nothing of HTTP.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use base::Crowd;
use parking_lot::Mutex;

use crate::aside::Bell;
use crate::lane::Driver;
use crate::limits::{CONVOY_MEMBERS_MAX, CONVOY_TURN};

/// Where a connection says to which crowd it belongs now.
#[derive(Debug, Default)]
pub(crate) struct Seat(AtomicU64);

/// No crowd; a crowd's number stands one higher.
const ALONE: u64 = 0;

impl Seat {
    /// Belongs to a crowd until what comes back is dropped.
    pub(crate) fn take(self: &Arc<Self>, crowd: Crowd) -> Seated {
        self.0.store(crowd.0.wrapping_add(1), Ordering::Relaxed);
        Seated(Arc::clone(self))
    }

    fn crowd(&self) -> Option<Crowd> {
        match self.0.load(Ordering::Relaxed) {
            ALONE => None,
            number => Some(Crowd(number.wrapping_sub(1))),
        }
    }
}

/// See [`Seat::take`].
pub(crate) struct Seated(Arc<Seat>);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.0.store(ALONE, Ordering::Relaxed);
    }
}

/// A connection that is driven: by a task of its own or by a convoy.
struct Driven {
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Rings for `run`, which is not looked at while its answer goes out by the lane.
    bell: Bell,
    lane: Driver,
    seat: Arc<Seat>,
}

impl Driven {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.bell.has_rung(cx)
                && let Poll::Ready(()) = self.run.as_mut().poll(&mut Context::from_waker(self.bell.waker()))
            {
                return Poll::Ready(());
            }
            match ready!(self.lane.poll(cx)) {
                // There is an answer to end.
                Ok(()) => self.bell.waker().wake_by_ref(),
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// The convoys of all crowds.
#[derive(Default)]
pub(crate) struct Convoys(Mutex<HashMap<Crowd, Vec<Arc<Convoy>>>>);

impl Convoys {
    /// Drives a connection to its end.
    pub(crate) fn drive(
        self: &Arc<Self>,
        seat: Arc<Seat>,
        lane: Driver,
        run: impl Future<Output = ()> + Send + 'static,
    ) {
        self.alone(Driven {
            run: Box::pin(run),
            bell: Bell::new(),
            lane,
            seat,
        });
    }

    fn alone(self: &Arc<Self>, mut driven: Driven) {
        let convoys = Arc::clone(self);
        tokio::spawn(async move {
            let crowd = poll_fn(|cx| match driven.poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => driven
                    .seat
                    .crowd()
                    .map_or(Poll::Pending, |crowd| Poll::Ready(Some(crowd))),
            });
            if let Some(crowd) = crowd.await {
                convoys.join(crowd, driven);
            }
        });
    }

    fn join(self: &Arc<Self>, crowd: Crowd, driven: Driven) {
        let mut all = self.0.lock();
        let of_crowd = all.entry(crowd).or_default();
        let mut left = Some(driven);
        for convoy in of_crowd.iter() {
            if let Some(driven) = left.take() {
                left = convoy.admit(driven);
            }
        }
        if let Some(driven) = left {
            let convoy = Arc::new(Convoy::default());
            convoy.admit(driven);
            of_crowd.push(Arc::clone(&convoy));
            let mut journey = Journey {
                convoys: Arc::clone(self),
                crowd,
                convoy,
                members: Vec::new(),
                free: Vec::new(),
                ready: Vec::new(),
            };
            // The budget of a task is meant for one connection; a convoy has a turn of its own.
            tokio::spawn(tokio::task::unconstrained(poll_fn(move |cx| journey.poll(cx))));
        }
    }

    /// Forgets a convoy that has nobody left; false when somebody has joined meanwhile.
    fn dissolve(&self, crowd: Crowd, convoy: &Arc<Convoy>) -> bool {
        let mut all = self.0.lock();
        if convoy.state.lock().count > 0 {
            return false;
        }
        if let Some(of_crowd) = all.get_mut(&crowd) {
            of_crowd.retain(|other| !Arc::ptr_eq(other, convoy));
            if of_crowd.is_empty() {
                all.remove(&crowd);
            }
        }
        true
    }
}

/// What others may do to a convoy.
#[derive(Default)]
struct Convoy {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Members, those that are joining too.
    count: usize,
    joining: Vec<Driven>,
    /// Places of members that are to be polled.
    ready: Vec<usize>,
    /// The convoy's task while it sleeps.
    asleep: Option<Waker>,
}

impl Convoy {
    /// Takes a connection in, or gives it back when there is no room.
    fn admit(&self, driven: Driven) -> Option<Driven> {
        let mut state = self.state.lock();
        if state.count >= CONVOY_MEMBERS_MAX {
            return Some(driven);
        }
        state.count += 1;
        state.joining.push(driven);
        let asleep = state.asleep.take();
        drop(state);
        if let Some(task) = asleep {
            task.wake();
        }
        None
    }
}

/// Wakes one member.
struct Call {
    convoy: Arc<Convoy>,
    place: usize,
    called: AtomicBool,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.called.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.convoy.state.lock();
        state.ready.push(self.place);
        let asleep = state.asleep.take();
        drop(state);
        if let Some(task) = asleep {
            task.wake();
        }
    }
}

struct Member {
    driven: Driven,
    call: Arc<Call>,
    /// Wakes `call`.
    waker: Waker,
}

/// The task's side of a convoy.
struct Journey {
    convoys: Arc<Convoys>,
    crowd: Crowd,
    convoy: Arc<Convoy>,
    members: Vec<Option<Member>>,
    /// Places without a member.
    free: Vec<usize>,
    /// Places to be polled, the next one last.
    ready: Vec<usize>,
}

impl Journey {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..CONVOY_TURN {
            let place = match self.ready.pop() {
                Some(place) => place,
                None if self.look_around(cx) => continue,
                None if self.members.len() > self.free.len() => return Poll::Pending,
                None if self.convoys.dissolve(self.crowd, &self.convoy) => return Poll::Ready(()),
                None => continue,
            };
            self.poll_member(place);
        }
        // Other tasks of this thread get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes over who is ready and who has joined; falls asleep when that is nobody.
    fn look_around(&mut self, cx: &Context<'_>) -> bool {
        let joining = {
            let mut state = self.convoy.state.lock();
            if state.ready.is_empty() && state.joining.is_empty() {
                state.asleep = Some(cx.waker().clone());
                return false;
            }
            std::mem::swap(&mut self.ready, &mut state.ready);
            std::mem::take(&mut state.joining)
        };
        // Those that became ready first are polled first.
        self.ready.reverse();
        for driven in joining {
            self.seat(driven);
        }
        true
    }

    /// Gives a place to a connection that has joined, and lets it be polled.
    fn seat(&mut self, driven: Driven) {
        let place = self.free.pop().unwrap_or(self.members.len());
        let call = Arc::new(Call {
            convoy: Arc::clone(&self.convoy),
            place,
            called: AtomicBool::new(true),
        });
        let member = Some(Member {
            driven,
            waker: Waker::from(Arc::clone(&call)),
            call,
        });
        match self.members.get_mut(place) {
            Some(empty) => *empty = member,
            None => self.members.push(member),
        }
        self.ready.push(place);
    }

    fn poll_member(&mut self, place: usize) {
        let Some(seat) = self.members.get_mut(place) else {
            return;
        };
        // The waker of one that has left may still call; its place is empty then, or another's.
        let Some(member) = seat else { return };
        member.call.called.store(false, Ordering::Release);
        let (driven, mut cx) = (&mut member.driven, Context::from_waker(&member.waker));
        let polled = catch_unwind(AssertUnwindSafe(|| driven.poll(&mut cx)));
        let stays = match polled {
            Ok(Poll::Pending) if member.driven.seat.crowd() == Some(self.crowd) => return,
            Ok(Poll::Pending) => true,
            Ok(Poll::Ready(())) => false,
            Err(_panic) => {
                tracing::error!("a connection panicked");
                false
            }
        };
        let left = seat.take();
        self.free.push(place);
        self.convoy.state.lock().count -= 1;
        match left {
            Some(member) if stays => self.convoys.alone(member.driven),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::metrics::Metrics;
    use futures_util::task::AtomicWaker;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::Id;

    use super::*;
    use crate::socket::Socket;

    /// A connection that writes down which task polls it.
    #[derive(Default)]
    struct Probe {
        polls: Mutex<Vec<Id>>,
        waker: AtomicWaker,
        ends: AtomicBool,
        panics: AtomicBool,
    }

    impl Probe {
        fn start(convoys: &Arc<Convoys>, socket: &Socket, crowd: u64) -> (Arc<Probe>, Seated) {
            let (probe, seat) = (Arc::new(Probe::default()), Arc::new(Seat::default()));
            let (of_run, seated) = (probe.clone(), seat.take(Crowd(crowd)));
            convoys.drive(
                seat,
                Driver::new(socket.second_out()),
                poll_fn(move |cx| {
                    of_run.polls.lock().push(tokio::task::id());
                    of_run.waker.register(cx.waker());
                    assert!(!of_run.panics.load(Ordering::Relaxed), "as the test wants it");
                    match of_run.ends.load(Ordering::Relaxed) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                }),
            );
            (probe, seated)
        }

        fn polls(&self) -> usize {
            self.polls.lock().len()
        }

        fn task(&self) -> Id {
            *self.polls.lock().last().unwrap()
        }

        /// Wakes it and waits until it was polled.
        async fn poll(&self) {
            let before = self.polls();
            self.waker.wake();
            until(|| self.polls() > before).await;
        }
    }

    /// A socket that nobody writes to.
    async fn socket() -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let bytes = Metrics::new().counter("bytes", "Bytes.", &["way"]).unwrap();
        let (bytes_in, bytes_out) = (bytes.with_label_values(&["in"]), bytes.with_label_values(&["out"]));
        Socket::new(stream, bytes_in, bytes_out, Duration::from_secs(60))
    }

    async fn until(reached: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if reached() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never came");
    }

    /// Waits until these are in their convoys: each was polled once by its own task and once there.
    async fn joined(probes: impl Iterator<Item = &Arc<Probe>> + Clone) {
        until(|| probes.clone().all(|probe| probe.polls() == 1)).await;
        for probe in probes {
            probe.poll().await;
        }
    }

    fn convoys_of(convoys: &Convoys, crowd: u64) -> usize {
        convoys.0.lock().get(&Crowd(crowd)).map_or(0, Vec::len)
    }

    #[tokio::test]
    async fn one_task_polls_a_crowd_and_of_it_those_that_were_woken() {
        let (convoys, socket) = (Arc::new(Convoys::default()), socket().await);
        let (first, _first) = Probe::start(&convoys, &socket, 7);
        let (second, _second) = Probe::start(&convoys, &socket, 7);
        let (other, _other) = Probe::start(&convoys, &socket, 8);
        joined([&first, &second, &other].into_iter()).await;
        assert_eq!(first.task(), second.task());
        assert_ne!(first.task(), other.task());
        for _ in 0..5 {
            first.poll().await;
        }
        assert_eq!((first.polls(), second.polls(), other.polls()), (7, 2, 2));
    }

    #[tokio::test]
    async fn a_member_that_ends_or_panics_takes_nobody_with_it() {
        let (convoys, socket) = (Arc::new(Convoys::default()), socket().await);
        let probes: Vec<_> = (0..3).map(|_| Probe::start(&convoys, &socket, 7)).collect();
        joined(probes.iter().map(|(probe, _)| probe)).await;
        probes[0].0.panics.store(true, Ordering::Relaxed);
        probes[1].0.ends.store(true, Ordering::Relaxed);
        for (probe, _) in &probes {
            probe.poll().await;
        }
        let (last, _) = &probes[2];
        let (task, polls) = (last.task(), last.polls());
        // A waker that outlives its connection wakes nobody else for long.
        probes[0].0.waker.wake();
        last.poll().await;
        assert_eq!((last.task(), last.polls()), (task, polls + 1));
        last.ends.store(true, Ordering::Relaxed);
        last.poll().await;
        until(|| convoys_of(&convoys, 7) == 0).await;
    }

    #[tokio::test]
    async fn a_member_whose_answer_has_ended_goes_its_own_way() {
        let (convoys, socket) = (Arc::new(Convoys::default()), socket().await);
        let (stays, _stays) = Probe::start(&convoys, &socket, 7);
        let (leaves, seated) = Probe::start(&convoys, &socket, 7);
        joined([&stays, &leaves].into_iter()).await;
        drop(seated);
        // The convoy polls it a last time.
        leaves.poll().await;
        leaves.poll().await;
        assert_ne!(leaves.task(), stays.task());
        assert_eq!(stays.polls(), 2);
        leaves.ends.store(true, Ordering::Relaxed);
        leaves.poll().await;
        assert_eq!(convoys_of(&convoys, 7), 1);
    }

    #[tokio::test]
    async fn a_crowd_that_is_too_large_has_several_convoys_and_none_stays_behind() {
        let (convoys, socket) = (Arc::new(Convoys::default()), socket().await);
        let probes: Vec<_> = (0..=CONVOY_MEMBERS_MAX)
            .map(|_| Probe::start(&convoys, &socket, 7))
            .collect();
        joined(probes.iter().map(|(probe, _)| probe)).await;
        assert_eq!(convoys_of(&convoys, 7), 2);
        for (probe, _) in &probes {
            probe.ends.store(true, Ordering::Relaxed);
            probe.waker.wake();
        }
        until(|| convoys_of(&convoys, 7) == 0).await;
        assert!(probes.iter().all(|(probe, _)| probe.polls() == 3));
    }
}
