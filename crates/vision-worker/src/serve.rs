//! The worker's one loop: read what has arrived, let each session have a turn, answer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use bytes::{Bytes, BytesMut};
use vision::protocol::{FromWorker, MAX_TO_WORKER, ProtocolError, ToWorker, length};
use vision::{ImageAnalysis, ImageError, LabelAnalysis};

use crate::analyse::{Analyser, Wanted};
use crate::codec::Scaler;
use crate::engine::EngineError;
use crate::image;
use crate::session::Session;
use crate::stills::Stills;

/// Bytes asked of the pipe at once: as many as it holds.
const READ_BYTES: usize = 64 * 1024;

/// Reads before the sessions have a turn, while there is something to read: what several cameras send in the time of their
/// pictures' analysis is more than the pipe holds, and a picture must be known to overtake an older one.
const READS_MAX: usize = 32;

/// Why the worker ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A pipe broke.
    #[error("pipe: {0}")]
    Pipe(#[from] std::io::Error),
    /// The server said something impossible.
    #[error("protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// A network failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Serves until the input ends.
pub fn serve(
    input: &mut (impl Read + AsFd),
    output: &mut impl Write,
    analyser: &mut Analyser,
) -> Result<(), ServeError> {
    let mut inbox = Inbox::default();
    let mut sessions: BTreeMap<u32, Session> = BTreeMap::new();
    let mut stills = None;
    let mut out = Vec::new();
    let mut broken = None;
    loop {
        for _ in 0..READS_MAX {
            let idle = !sessions.values().any(Session::has_work);
            if !inbox.fill(input, idle)? {
                return Ok(());
            }
            while let Some(message) = inbox.next()? {
                receive(message, &mut sessions, &mut stills, analyser, |answer| {
                    keep_first(&mut broken, send(output, &mut out, answer));
                })?;
            }
            if broken.is_some() || !crate::readable(input.as_fd())? {
                break;
            }
        }
        for session in sessions.values_mut().filter(|s| s.has_work()) {
            session.turn(analyser, &mut |answer| {
                keep_first(&mut broken, send(output, &mut out, answer));
            })?;
        }
        sessions.retain(|_, session| !session.is_drained());
        if let Some(error) = broken.take() {
            return Err(ServeError::Pipe(error));
        }
    }
}

fn keep_first(broken: &mut Option<std::io::Error>, result: std::io::Result<()>) {
    if let Err(error) = result {
        broken.get_or_insert(error);
    }
}

/// One message, one write: what was said before a crash has been said.
fn send(output: &mut impl Write, out: &mut Vec<u8>, answer: &FromWorker) -> std::io::Result<()> {
    out.clear();
    answer.encode(out);
    output.write_all(out)
}

fn receive(
    message: ToWorker,
    sessions: &mut BTreeMap<u32, Session>,
    stills: &mut Option<Stills>,
    analyser: &mut Analyser,
    mut say: impl FnMut(&FromWorker),
) -> Result<(), ServeError> {
    match message {
        ToWorker::Open(open) => {
            sessions.insert(open.session, Session::open(&open));
        }
        ToWorker::Packet(packet) => {
            if let Some(session) = sessions.get_mut(&packet.session) {
                session.push(packet);
            }
        }
        ToWorker::EndOfInput { session } => {
            if let Some(session) = sessions.get_mut(&session) {
                session.end();
            }
        }
        ToWorker::SetLive { session, live } => {
            if let Some(session) = sessions.get_mut(&session) {
                session.set_live(live);
            }
        }
        ToWorker::Close { session } => {
            sessions.remove(&session);
        }
        ToWorker::Image {
            request,
            embed,
            attributes,
            max_pixels,
            data,
        } => {
            let wanted = Wanted { embed, attributes };
            let result = analyse_image(&data, wanted, max_pixels, analyser)?;
            say(&FromWorker::Image { request, result });
        }
        ToWorker::Labels {
            request,
            max_pixels,
            data,
        } => {
            let result = label_image(&data, max_pixels, analyser)?;
            say(&FromWorker::Labels { request, result });
        }
        ToWorker::Stills(open) => *stills = Some(Stills::open(&open)),
        ToWorker::Look(open) => *stills = Some(Stills::look(&open)),
        ToWorker::StillPacket(frame) => {
            if let Some(stills) = stills.as_mut().filter(|stills| stills.is(frame.request)) {
                stills.frame(&frame, analyser, &mut say)?;
            }
        }
        ToWorker::EndOfStills { request } => {
            if let Some(stills) = stills.take_if(|stills| stills.is(request)) {
                stills.end(analyser, &mut say)?;
            }
        }
        // A process of its own does that: `film::serve`.
        ToWorker::Film { .. } | ToWorker::FilmBytes { .. } => {}
    }
    Ok(())
}

fn analyse_image(
    file: &[u8],
    wanted: Wanted,
    max_pixels: u32,
    analyser: &mut Analyser,
) -> Result<Result<ImageAnalysis, ImageError>, EngineError> {
    let planar = match image::decode(file, max_pixels, &mut Scaler::new()) {
        Ok(planar) => planar,
        Err(error) => return Ok(Err(error)),
    };
    let Some(view) = planar.view() else {
        return Ok(Err(ImageError::NotAnImage));
    };
    let faces = analyser.image(&view, wanted)?;
    Ok(Ok(ImageAnalysis {
        width: planar.width as u32,
        height: planar.height as u32,
        faces,
    }))
}

fn label_image(
    file: &[u8],
    max_pixels: u32,
    analyser: &mut Analyser,
) -> Result<Result<LabelAnalysis, ImageError>, EngineError> {
    let planar = match image::decode(file, max_pixels, &mut Scaler::new()) {
        Ok(planar) => planar,
        Err(error) => return Ok(Err(error)),
    };
    let Some(view) = planar.view() else {
        return Ok(Err(ImageError::NotAnImage));
    };
    let objects = analyser.objects(&view)?;
    Ok(Ok(LabelAnalysis {
        width: planar.width as u32,
        height: planar.height as u32,
        objects,
    }))
}

/// Bytes read and not yet understood: one message at most, and what one read brought beyond it.
#[derive(Default)]
struct Inbox {
    bytes: BytesMut,
}

impl Inbox {
    /// Reads what is there; waits for something only when `idle`. False at the end of the input.
    fn fill(&mut self, input: &mut (impl Read + AsFd), idle: bool) -> std::io::Result<bool> {
        if !idle && !crate::readable(input.as_fd())? {
            return Ok(true);
        }
        let start = self.bytes.len();
        self.bytes.resize(start + READ_BYTES, 0);
        let read = loop {
            match input.read(self.bytes.get_mut(start..).unwrap_or_default()) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
        read.map(|n| n > 0)
    }

    fn next(&mut self) -> Result<Option<ToWorker>, ProtocolError> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = length(*prefix, MAX_TO_WORKER)?;
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let message: Bytes = self.bytes.split_to(4 + length).freeze().slice(4..);
        ToWorker::decode(&message).map(Some)
    }
}
