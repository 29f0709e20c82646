//! Decode, detect, track, align and embed, make still images, and take films apart, behind a locked door: the process in which hostile bytes meet a decoder
//! (invariant 7). It is started by `vision` with a folder of models, speaks `vision::protocol` on its standard streams,
//! and knows no key, no collection and no stream. The only crate that links FFmpeg and an inference engine.

pub mod align;
pub mod analyse;
pub mod attributes;
pub mod codec;
pub mod detect;
pub mod encode;
pub mod engine;
pub mod film;
pub mod frames;
pub mod halve;
pub mod image;
pub mod labels;
pub mod measure;
pub mod mesh;
pub mod serve;
pub mod session;
pub mod stills;
pub mod track;

use std::os::fd::{AsRawFd, BorrowedFd};

/// Memory for data: two 40-megapixel pictures with their copies, 16 video decoders, models and engine.
pub const MEMORY_MAX: u64 = 3 * 1024 * 1024 * 1024;

/// Whether a read would return at once.
#[allow(unsafe_code)]
pub(crate) fn readable(fd: BorrowedFd<'_>) -> std::io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure that lives through the call.
    match unsafe { libc::poll(&raw mut poll, 1, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        ready => Ok(ready > 0),
    }
}
