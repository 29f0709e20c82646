//! A future beside a busy one in the same task.
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
    call: Arc<Call>,
    /// Wakes `call`.
    waker: Waker,
    /// The task's waker that `call` has.
    task: Option<Waker>,
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

impl<T> Aside<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let call = Arc::new(Call {
            called: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Aside {
            future: Some(Box::pin(future)),
            waker: Waker::from(call.clone()),
            call,
            task: None,
        }
    }
}

impl<T> Future for Aside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if !this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            this.call.task.register(cx.waker());
            this.task = Some(cx.waker().clone());
        }
        if !this.call.called.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        this.call.called.store(false, Ordering::Release);
        // `wake` takes the registered waker out; it is put back before anything can call again.
        this.call.task.register(cx.waker());
        let ready = ready!(future.as_mut().poll(&mut Context::from_waker(&this.waker)));
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
