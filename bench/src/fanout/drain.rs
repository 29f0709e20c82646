//! Consumers: one thread that reads whatever arrives at many sockets and looks at nothing but when a frame was sent.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use matroska::{Event, Limits, Reader};
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::cameras::{STAMP_BYTES, now_ns};
use crate::Failure;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// What arrived in a window of time.
#[derive(Default)]
pub struct Arrived {
    /// From a frame's sending to its arrival, for each frame at each consumer.
    pub delays: Vec<Duration>,
    pub bytes: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// What is measured; `None` outside a window.
    window: Mutex<Option<Arrived>>,
}

/// Running consumers. Ended by [`Drain::stop`].
pub struct Drain {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), String>>,
}

impl Drain {
    /// Drains these connections, each of which is at the first byte of a chunked body.
    pub fn start(sockets: Vec<TcpStream>) -> Result<Drain, Failure> {
        let shared = Arc::new(Shared::default());
        let consumers = sockets.into_iter().map(Consumer::new).collect::<Result<Vec<_>, _>>()?;
        let of_thread = shared.clone();
        let thread =
            std::thread::spawn(move || drain(consumers, &of_thread).map_err(|error| format!("a consumer: {error}")));
        Ok(Drain { shared, thread })
    }

    /// Begins to measure.
    pub fn open_window(&self) {
        *self.shared.window.lock() = Some(Arrived::default());
    }

    /// Ends what [`Drain::open_window`] began.
    pub fn close_window(&self) -> Arrived {
        self.shared.window.lock().take().unwrap_or_default()
    }

    /// Closes the connections.
    pub fn stop(self) -> Result<(), Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| "the consumers' thread panicked")?;
        ended.map_err(Failure::from)
    }
}

fn drain(mut consumers: Vec<Consumer>, shared: &Shared) -> Result<(), Failure> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, consumer) in consumers.iter().enumerate() {
        epoll::add(
            &epoll,
            &consumer.stream,
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN,
        )?;
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(consumers.len().max(1));
    let sleep = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    while !shared.stop.load(Ordering::Relaxed) {
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&sleep))?;
        for event in events.drain(..) {
            let data = event.data;
            if let Some(consumer) = consumers.get_mut(data.u64() as usize) {
                consumer.read(&mut buffer, shared)?;
            }
        }
    }
    Ok(())
}

/// Where a consumer is in its chunked body.
enum Chunk {
    /// In a size line, with the value so far.
    Size(usize),
    /// In data, with the bytes left.
    Data(usize),
}

struct Consumer {
    stream: TcpStream,
    chunk: Chunk,
    reader: Reader,
    /// The last bytes of media.
    tail: [u8; STAMP_BYTES],
}

impl Consumer {
    fn new(stream: TcpStream) -> Result<Self, Failure> {
        stream.set_nonblocking(true)?;
        Ok(Consumer {
            stream,
            chunk: Chunk::Size(0),
            reader: Reader::new(Limits::default()),
            tail: [0; STAMP_BYTES],
        })
    }

    fn read(&mut self, buffer: &mut [u8], shared: &Shared) -> Result<(), Failure> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Err("the sender closed the connection".into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = now_ns();
        let mut rest = buffer.get(..len).unwrap_or_default();
        while let Some((first, after)) = rest.split_first() {
            match &mut self.chunk {
                Chunk::Size(size) => {
                    match char::from(*first).to_digit(16) {
                        Some(digit) => *size = *size * 16 + digit as usize,
                        // The line end before a size line counts for nothing, the one after it begins the data.
                        None if *first == b'\n' && *size > 0 => self.chunk = Chunk::Data(*size),
                        None => {}
                    }
                    rest = after;
                }
                Chunk::Data(left) => {
                    let (data, after) = rest.split_at((*left).min(rest.len()));
                    *left -= data.len();
                    if *left == 0 {
                        self.chunk = Chunk::Size(0);
                    }
                    rest = after;
                    self.media(data, now, shared)?;
                }
            }
        }
        Ok(())
    }

    fn media(&mut self, bytes: &[u8], now: u64, shared: &Shared) -> Result<(), Failure> {
        self.reader.push(Bytes::copy_from_slice(bytes));
        while let Some(event) = self.reader.next()? {
            match event {
                Event::Data(data) => {
                    let kept = data.len().min(STAMP_BYTES);
                    self.tail.copy_within(kept.., 0);
                    if let (Some(tail), Some(end)) =
                        (self.tail.get_mut(STAMP_BYTES - kept..), data.get(data.len() - kept..))
                    {
                        tail.copy_from_slice(end);
                    }
                }
                Event::BlockEnd(block) => {
                    let delay = Duration::from_nanos(now.saturating_sub(u64::from_le_bytes(self.tail)));
                    if let Some(window) = shared.window.lock().as_mut() {
                        window.delays.push(delay);
                        window.bytes += block.payload_len;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
