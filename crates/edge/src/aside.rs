//! A future beside a busy one in the same task, and the bell that tells such futures apart.
//!
//! A connection that streams wakes for every piece it sends. What waits beside it for rare events (a drain, a deadline, the
//! peer's close) would be polled each time, and those polls take locks that all connections share. An [`Aside`] is polled
//! only when it was woken itself. Measured with 200 consumers of one camera, the polls cost a tenth of the server's time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;

/// See the module. After it was ready it is never ready again.
pub(crate) struct Aside<T> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    bell: Bell,
}

/// Wakes its task as any waker does, and tells that it was this one that did.
pub(crate) struct Bell {
    call: Arc<Call>,
    /// Wakes `call`.
    waker: Waker,
}

struct Call {
    called: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Bell {
    /// A bell that has rung once, so that what it is for is polled a first time.
    pub(crate) fn new() -> Self {
        let call = Arc::new(Call {
            called: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Bell {
            waker: Waker::from(call.clone()),
            call,
        }
    }

    /// Whether it has rung since it was asked last. To be asked each time the task is polled, and what it is for to be
    /// polled with [`Bell::waker`] when it has.
    pub(crate) fn has_rung(&self, cx: &Context<'_>) -> bool {
        // At each poll, since a call takes the registered waker out, be it one whose news were heard already; and before the
        // news are looked at, so that a call after that finds it.
        self.call.task.register(cx.waker());
        self.call.called.load(Ordering::Acquire) && self.call.called.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl<T> Aside<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Aside {
            future: Some(Box::pin(future)),
            bell: Bell::new(),
        }
    }
}

impl<T> Future for Aside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let Some(future) = this.future.as_mut().filter(|_| this.bell.has_rung(cx)) else {
            return Poll::Pending;
        };
        let ready = ready!(future.as_mut().poll(&mut Context::from_waker(this.bell.waker())));
        this.future = None;
        Poll::Ready(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    /// Counts how often it is polled.
    struct Counted<F>(F, Arc<AtomicUsize>);

    impl<F: Future + Unpin> Future for Counted<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll(cx)
        }
    }

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_with_its_neighbour() {
        let (event, polls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let waiting = event.clone();
        let inner = Box::pin(async move { waiting.notified().await });
        let mut aside = Aside::new(Counted(inner, polls.clone()));
        for _ in 0..10 {
            tokio::select! {
                biased;
                () = &mut aside => panic!("nobody called"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        event.notify_one();
        (&mut aside).await;
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_call_that_is_heard_before_it_wakes_does_not_silence_the_next() {
        struct Task(AtomicUsize);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let task = Arc::new(Task(AtomicUsize::new(0)));
        let (waker, bell) = (Waker::from(task.clone()), Bell::new());
        let cx = Context::from_waker(&waker);
        assert!(bell.has_rung(&cx));
        // A call in its two steps, with the task polled between them for another reason.
        bell.call.called.store(true, Ordering::Release);
        assert!(bell.has_rung(&cx));
        bell.call.task.wake();
        assert!(!bell.has_rung(&cx));
        bell.waker().wake_by_ref();
        assert_eq!(task.0.load(Ordering::SeqCst), 2, "the second call wakes too");
        assert!(bell.has_rung(&cx));
    }

    #[tokio::test]
    async fn it_wakes_its_task_again_and_again() {
        let (events, seen) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (inner_events, inner_seen) = (events.clone(), seen.clone());
        let aside = Aside::new(async move {
            for _ in 0..3 {
                inner_events.notified().await;
                inner_seen.fetch_add(1, Ordering::Relaxed);
            }
        });
        let task = tokio::spawn(aside);
        for count in 1..=3 {
            events.notify_one();
            while seen.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        }
        task.await.unwrap();
    }
}
