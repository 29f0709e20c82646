//! The worker's one loop: a job, its records as they come, its file as it grows.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use sql::job::{Job, Reason};
use sql::limits::{FROM_WORKER_BYTES_MAX, TO_WORKER_BYTES_MAX};
use sql::protocol::{FromWorker, ProtocolError, ToWorker, length};

use crate::decode::Table;
use crate::write::{FileWriter, WriteError};

/// Bytes asked of the pipe at once: as many as it holds.
const READ_BYTES: usize = 64 * 1024;

/// Records are gathered into columns until they have this many bytes, and then written.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// The file leaves in messages of about this many bytes.
const OUTPUT_BYTES: usize = FROM_WORKER_BYTES_MAX / 4;

/// Why the worker ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A pipe broke.
    #[error("pipe: {0}")]
    Pipe(#[from] io::Error),
    /// The server said something impossible.
    #[error("protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The server spoke out of turn.
    #[error("records without a job")]
    OutOfTurn,
}

/// Serves until the input ends.
pub fn serve(input: &mut impl Read, output: impl Write + Send + 'static) -> Result<(), ServeError> {
    let output = Output {
        shared: Arc::new(Mutex::new(Shared {
            writer: Box::new(output),
            file: Vec::new(),
            failed: None,
        })),
    };
    let mut inbox = Inbox::default();
    let mut work: Option<Work> = None;
    while let Some(message) = inbox.next(input)? {
        match (message, &mut work) {
            (ToWorker::Begin(job), work) => *work = Some(Work::begin(&job, &output)),
            (ToWorker::Records(records), Some(work)) => work.records(&records, &output)?,
            (ToWorker::End, work) => match work.take() {
                Some(work) => work.end(&output)?,
                None => return Err(ServeError::OutOfTurn),
            },
            (ToWorker::Records(_), None) => return Err(ServeError::OutOfTurn),
        }
    }
    Ok(())
}

/// A job that is being done; one that failed waits for its end, so that server and worker stay in step.
enum Work {
    Doing(Box<Doing>),
    Failed(String),
}

struct Doing {
    table: Table,
    file: FileWriter<Output>,
    piece: usize,
    index: u32,
    rows: u64,
}

impl Work {
    fn begin(job: &Job, output: &Output) -> Self {
        output.lock().file.clear();
        match FileWriter::new(job, output.clone()) {
            Ok(file) => Work::Doing(Box::new(Doing {
                table: Table::new(job),
                file,
                piece: 0,
                index: 0,
                rows: 0,
            })),
            Err(error) => Work::Failed(error.to_string()),
        }
    }

    fn records(&mut self, records: &[Bytes], output: &Output) -> io::Result<()> {
        let Work::Doing(doing) = self else { return Ok(()) };
        match doing.records(records, output) {
            Ok(()) => Ok(()),
            Err(WriteError::Sink(error)) => Err(error),
            Err(error) => {
                *self = Work::Failed(error.to_string());
                Ok(())
            }
        }
    }

    fn end(self, output: &Output) -> io::Result<()> {
        let answer = match self {
            Work::Failed(why) => FromWorker::Failed(why),
            Work::Doing(doing) => match doing.end(output) {
                Ok(rows) => FromWorker::Done(rows),
                Err(WriteError::Sink(error)) => return Err(error),
                Err(error) => FromWorker::Failed(error.to_string()),
            },
        };
        output.lock().say(&answer)
    }
}

impl Doing {
    fn records(&mut self, records: &[Bytes], output: &Output) -> Result<(), WriteError> {
        for record in records {
            match self.table.push(record) {
                Ok(rows) => self.rows += rows,
                Err(reason) => self.reject(reason, output)?,
            }
            self.index += 1;
            self.piece += record.len();
            if self.piece >= PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn reject(&self, reason: Reason, output: &Output) -> Result<(), WriteError> {
        let said = output.lock().say(&FromWorker::Rejected(self.index, reason));
        said.map_err(WriteError::Sink)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.piece = 0;
        match self.table.take()? {
            None => Ok(()),
            Some(batch) => self.file.write(&batch),
        }
    }

    fn end(mut self: Box<Self>, output: &Output) -> Result<u64, WriteError> {
        self.flush()?;
        if self.rows == 0 {
            return Ok(0);
        }
        self.file.close()?;
        output.lock().send_file().map_err(WriteError::Sink)?;
        Ok(self.rows)
    }
}

/// The pipe to the server, to which the file and what is said of records go in turns.
#[derive(Clone)]
struct Output {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    writer: Box<dyn Write + Send>,
    /// Bytes of the file that have not left.
    file: Vec<u8>,
    failed: Option<io::ErrorKind>,
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// One message, one write: what was said before a crash has been said.
    fn say(&mut self, message: &FromWorker) -> io::Result<()> {
        let mut out = Vec::new();
        message.encode(&mut out);
        let said = self.writer.write_all(&out);
        self.failed = said.as_ref().err().map(io::Error::kind).or(self.failed);
        said
    }

    fn send_file(&mut self) -> io::Result<()> {
        if self.file.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.file);
        self.say(&FromWorker::Output(bytes.into()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.lock();
        let bytes = bytes.get(..OUTPUT_BYTES).unwrap_or(bytes);
        shared.file.extend_from_slice(bytes);
        if shared.file.len() >= OUTPUT_BYTES {
            shared.send_file()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes read and not yet understood: one message at most, and what one read brought beyond it.
#[derive(Default)]
struct Inbox {
    bytes: BytesMut,
}

impl Inbox {
    /// The next message; `None` at the end of the input.
    fn next(&mut self, input: &mut impl Read) -> Result<Option<ToWorker>, ServeError> {
        loop {
            if let Some(prefix) = self.bytes.first_chunk::<4>() {
                let whole = 4 + length(*prefix, TO_WORKER_BYTES_MAX)?;
                if self.bytes.len() >= whole {
                    let message = self.bytes.split_to(whole).freeze().slice(4..);
                    return Ok(Some(ToWorker::decode(&message)?));
                }
                self.bytes.reserve(whole - self.bytes.len());
            }
            let start = self.bytes.len();
            self.bytes.resize(start + READ_BYTES, 0);
            let read = loop {
                match input.read(self.bytes.get_mut(start..).unwrap_or_default()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(None);
            }
        }
    }
}
