//! Sends the frames of cameras to sockets at their pace, in one thread around one epoll: a frame is made once and written
//! once to each socket that takes its camera. What a socket does not take at once waits for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::cameras::{Cameras, Dialect, FRAMES_PER_SECOND, now_ns};
use crate::Failure;

/// Bytes that may wait for one socket; beyond it the measurement has failed.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Longest sleep, so that the end is noticed.
const SLEEP_NS_MAX: u64 = 100_000_000;

struct Out {
    stream: TcpStream,
    waiting: VecDeque<Bytes>,
}

impl Out {
    fn send(&mut self, chunk: &Bytes) -> Result<(), Failure> {
        if !self.waiting.is_empty() {
            self.waiting.push_back(chunk.clone());
            let bytes: usize = self.waiting.iter().map(Bytes::len).sum();
            return if bytes > WAITING_BYTES_MAX {
                Err("a socket takes nothing any more".into())
            } else {
                Ok(())
            };
        }
        match self.stream.write(chunk) {
            Ok(sent) if sent == chunk.len() => Ok(()),
            Ok(sent) => {
                self.waiting.push_back(chunk.slice(sent..));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.waiting.push_back(chunk.clone());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while let Some(chunk) = self.waiting.front_mut() {
            match self.stream.write(chunk) {
                Ok(sent) if sent == chunk.len() => {
                    self.waiting.pop_front();
                }
                Ok(sent) => chunk.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads acks and throws them away, but for an error.
    fn read(&mut self) -> Result<(), Failure> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(len) => {
                    let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default());
                    if text.contains("\"ERROR\"") {
                        return Err(format!("the server refuses: {text}").into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends until `stop`: each socket takes the frames of the camera beside it. Cameras are numbered from 0; their frames
/// are spread evenly over the time of a frame.
pub fn run(dialect: Dialect, sockets: Vec<(usize, TcpStream)>, stop: &AtomicBool) -> Result<(), Failure> {
    let cameras = sockets.iter().map(|(camera, _)| camera + 1).max().unwrap_or(1);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut by_camera: Vec<Vec<usize>> = vec![Vec::new(); cameras];
    let mut outs = Vec::new();
    for (camera, stream) in sockets {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut interest = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        if dialect == Dialect::PutMedia {
            interest |= epoll::EventFlags::IN;
        }
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(outs.len() as u64), interest)?;
        by_camera.get_mut(camera).ok_or("no such camera")?.push(outs.len());
        outs.push(Out {
            stream,
            waiting: VecDeque::new(),
        });
    }
    let maker = Cameras::new(dialect);
    let step_ns = 1_000_000_000 / FRAMES_PER_SECOND / cameras as u64;
    let start = now_ns();
    let mut events = Vec::with_capacity(outs.len().max(1));
    let mut tick = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        while now_ns() >= start + tick * step_ns {
            let (camera, frame) = ((tick % cameras as u64) as usize, tick / cameras as u64);
            let chunk = maker.chunk(camera, frame);
            for index in by_camera.get(camera).into_iter().flatten() {
                if let Some(out) = outs.get_mut(*index) {
                    out.send(&chunk)?;
                }
            }
            tick += 1;
        }
        let sleep_ns = (start + tick * step_ns).saturating_sub(now_ns()).min(SLEEP_NS_MAX);
        let sleep = Timespec {
            tv_sec: 0,
            tv_nsec: i64::try_from(sleep_ns)?,
        };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&sleep))?;
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            let Some(out) = outs.get_mut(data.u64() as usize) else {
                continue;
            };
            if flags.contains(epoll::EventFlags::OUT) {
                out.flush()?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP) && dialect == Dialect::PutMedia {
                out.read()?;
            }
        }
    }
    Ok(())
}
