//! One attempt at a job: decodes the footage, finds and tracks faces in some of its frames, searches each track once it has
//! ended, and writes the results. Memory is bounded: one row of appearances, the open tracks, and two numbers and ten ids
//! for each track that has ended.

use std::collections::HashSet;

use parking_lot::Mutex;
use vision::{Face, Frame, FrameOutcome, Mode, OpenError, SessionConfig};

use super::StoredVideo;
use super::footage::{Flow, FootageError, FootageFrame};
use super::job::{Ending, Job, JobKey, Kind, Metadata, Status};
use super::results::{Appearance, ROW, Results, TrackRow};
use super::tracks::{Ended, Persons, Tracks, in_order_of_appearance};
use crate::limits::{
    RETRY_PAUSE, STORED_FACES_MAX, STORED_TRACKS_MAX, STORED_VIDEO_CLOCK_SET_BACK_MS, STORED_VIDEO_RATE,
};
use crate::processors::search::{SearchError, Searcher, Target};

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) enum Stop {
    /// For good, in words for the caller.
    Failed(String),
    /// To be tried again, in words for the log.
    Again(String),
}

impl From<FootageError> for Stop {
    fn from(error: FootageError) -> Self {
        match error {
            FootageError::Bad(why) => Stop::Failed(why),
            FootageError::Busy => Stop::Again(error.to_string()),
            FootageError::Failed(why) => Stop::Again(why),
        }
    }
}

impl From<storage::CatalogError> for Stop {
    fn from(error: storage::CatalogError) -> Self {
        Stop::Again(format!("results cannot be written: {error}"))
    }
}

impl From<SearchError> for Stop {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::CollectionGone => Stop::Failed("Collection not found".to_owned()),
            SearchError::Failed(why) => Stop::Again(why),
        }
    }
}

/// Carries a job out once, from its start.
pub(crate) async fn attempt(stored: &StoredVideo, key: &JobKey, job: &Job) -> Result<Ending, Stop> {
    let results = Results::of(&stored.store, key);
    results.clear().await?;
    let mut flow = loop {
        match Flow::open(&*stored.vision, &*stored.video, &*stored.buckets, key, job).await {
            Err(FootageError::Busy) => tokio::time::sleep(RETRY_PAUSE).await,
            opened => break opened?,
        }
    };
    let mut gathering = Gathering {
        results,
        searcher: searcher(stored, key, job),
        tracks: Tracks::default(),
        persons: Persons::new(&stored.faces.scale(&stored.vision.model().id)),
        rows: Vec::new(),
        pending: Vec::new(),
        rows_written: 0,
        faces: 0,
        analysed: 0,
        size: None,
    };
    let mut next = flow.next().await?;
    if next.is_none() {
        return Err(Stop::Failed("The video has no frames.".to_owned()));
    }
    while let Some(first) = next.take() {
        next = session(stored, (key, job), &mut flow, first, &mut gathering).await?;
    }
    gathering.finish(flow.metadata()).await
}

fn searcher(stored: &StoredVideo, key: &JobKey, job: &Job) -> Option<Searcher> {
    let Kind::Search {
        collection,
        collection_id,
        threshold,
    } = &job.kind
    else {
        return None;
    };
    let target = Target {
        collection: key.named(collection),
        collection_id: *collection_id,
        model: stored.vision.model().id,
        threshold: *threshold,
    };
    Some(Searcher::new(stored.faces.clone(), target))
}

/// Sends frames to one vision session as long as they can go into it; gives the first one that cannot.
async fn session(
    stored: &StoredVideo,
    (key, job): (&JobKey, &Job),
    flow: &mut Flow,
    first: FootageFrame,
    gathering: &mut Gathering<'_>,
) -> Result<Option<FootageFrame>, Stop> {
    let format = first.format.clone();
    let config = SessionConfig {
        mode: Mode::CatchUp,
        max_rate: Some(STORED_VIDEO_RATE),
        orientation: format.orientation,
        background: true,
        attributes: job.kind == Kind::Detection { attributes: true },
        ..SessionConfig::new(key.account, format.codec, format.codec_private.clone())
    };
    let (sink, mut outcomes) = loop {
        match stored.vision.open_session(config.clone()) {
            Ok(opened) => break opened,
            Err(OpenError::NoCapacity(workers)) if workers > 0 => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => return Err(Stop::Failed(format!("The video cannot be decoded: {error}"))),
        }
    };
    // Frames that are decoded for the sake of others alone.
    let hidden: Mutex<HashSet<u64>> = Mutex::default();
    let feed = async {
        // Dropping it ends the input; what the decoder still holds comes out.
        let mut sink = sink;
        let (mut frame, mut newest_ms) = (first, i64::MIN);
        for id in 1.. {
            newest_ms = newest_ms.max(frame.time_ms);
            if !frame.shown {
                hidden.lock().insert(id);
            }
            let sent = Frame {
                id,
                time_ms: frame.time_ms,
                key: frame.key,
                data: frame.data,
            };
            let closed = |_| Stop::Again("the vision session was closed".to_owned());
            sink.send(sent).await.map_err(closed)?;
            match flow.next().await? {
                Some(next)
                    if next.format == format
                        && next.time_ms > newest_ms.saturating_sub(STORED_VIDEO_CLOCK_SET_BACK_MS) =>
                {
                    frame = next;
                }
                other => return Ok(other),
            }
        }
        Ok(None)
    };
    let gather = async {
        while let Some(outcome) = outcomes.next().await {
            gathering.take(outcome, &hidden).await?;
        }
        gathering.settle_all().await
    };
    let (next, ()) = tokio::try_join!(feed, gather)?;
    Ok(next)
}

struct Gathering<'a> {
    results: Results<'a>,
    /// `None`: nobody is looked for.
    searcher: Option<Searcher>,
    tracks: Tracks,
    persons: Persons,
    /// By number of the track.
    rows: Vec<TrackRow>,
    /// The last row of appearances, not yet written.
    pending: Vec<Appearance>,
    rows_written: usize,
    faces: u32,
    analysed: u64,
    /// Of the first picture.
    size: Option<(u32, u32)>,
}

impl Gathering<'_> {
    async fn take(&mut self, outcome: FrameOutcome, hidden: &Mutex<HashSet<u64>>) -> Result<(), Stop> {
        let (id, time_ms, size, faces) = match outcome {
            FrameOutcome::Skipped { id, .. } => {
                hidden.lock().remove(&id);
                return Ok(());
            }
            // Ids of tracks start anew.
            FrameOutcome::WorkerRestarted => return self.settle_all().await,
            FrameOutcome::Analysed {
                id,
                time_ms,
                width,
                height,
                faces,
            } => (id, time_ms, (width, height), faces),
        };
        if hidden.lock().remove(&id) {
            return Ok(());
        }
        self.analysed += 1;
        self.size.get_or_insert(size);
        for face in &faces {
            self.seen(time_ms, face).await?;
        }
        let ended = self.tracks.ended(time_ms);
        self.settle(ended).await
    }

    async fn seen(&mut self, time_ms: i64, face: &Face) -> Result<(), Stop> {
        let vector = face.embedding.as_deref();
        let track = match face.track_id {
            Some(id) => self.tracks.seen(id, time_ms, vector),
            None => {
                let alone = self.tracks.alone(time_ms, vector);
                let track = alone.track;
                self.settle(vec![alone]).await?;
                track
            }
        };
        self.faces += 1;
        if self.faces > STORED_FACES_MAX || self.tracks.count() > STORED_TRACKS_MAX {
            return Err(Stop::Failed(format!(
                "The video shows more faces than one job holds: {STORED_FACES_MAX} in its frames, of {STORED_TRACKS_MAX} appearances."
            )));
        }
        self.pending.push(Appearance::new(time_ms, track, face));
        if self.pending.len() >= ROW {
            self.write_row().await?;
        }
        Ok(())
    }

    async fn write_row(&mut self) -> Result<(), Stop> {
        self.results.put_appearances(self.rows_written, &self.pending).await?;
        self.rows_written += 1;
        self.pending.clear();
        Ok(())
    }

    async fn settle_all(&mut self) -> Result<(), Stop> {
        let all = self.tracks.all();
        self.settle(all).await
    }

    /// Looks the tracks up that have ended.
    async fn settle(&mut self, ended: Vec<Ended>) -> Result<(), Stop> {
        for track in ended {
            let person = self.persons.of(&track);
            let mut matches = Vec::new();
            if let Some(searcher) = &mut self.searcher {
                let probe = Face {
                    embedding: track.vector,
                    ..Face::default()
                };
                let found = searcher.search(vec![probe]).await?;
                let found = found.iter().flat_map(|(_, matches)| matches.iter());
                matches = found
                    .map(|found| (found.face.face_id.to_string(), found.similarity))
                    .collect();
            }
            let number = track.track as usize;
            if self.rows.len() <= number {
                self.rows.resize(number + 1, TrackRow::default());
            }
            if let Some(row) = self.rows.get_mut(number) {
                *row = TrackRow { person, matches };
            }
        }
        Ok(())
    }

    async fn finish(mut self, mut metadata: Metadata) -> Result<Ending, Stop> {
        if self.analysed == 0 {
            return Err(Stop::Failed("No frame of the video can be decoded.".to_owned()));
        }
        if !self.pending.is_empty() {
            self.write_row().await?;
        }
        let mut persons: Vec<u32> = self.rows.iter().map(|row| row.person).collect();
        in_order_of_appearance(&mut persons);
        for (row, person) in self.rows.iter_mut().zip(&persons) {
            row.person = *person;
        }
        self.results.put_tracks(&self.rows).await?;
        if self.searcher.is_some() {
            let order = self.order(&persons).await?;
            self.results.put_order(&order).await?;
        }
        if let (0, Some((width, height))) = (metadata.width, self.size) {
            (metadata.width, metadata.height) = (width, height);
        }
        Ok(Ending {
            status: Status::Succeeded,
            message: None,
            metadata: Some(metadata),
            faces: self.faces,
        })
    }

    /// The positions of the appearances by person, and by time among those of one.
    async fn order(&self, persons: &[u32]) -> Result<Vec<u32>, Stop> {
        let mut order: Vec<(u32, u32)> = Vec::with_capacity(self.faces as usize);
        for row in 0..self.rows_written {
            let places: Vec<usize> = (row * ROW..(row + 1) * ROW).collect();
            for seen in self.results.appearances(&places).await? {
                let person = persons.get(seen.track as usize).copied().unwrap_or(u32::MAX);
                order.push((person, u32::try_from(order.len()).unwrap_or(u32::MAX)));
            }
        }
        order.sort_unstable();
        Ok(order.into_iter().map(|(_, position)| position).collect())
    }
}
