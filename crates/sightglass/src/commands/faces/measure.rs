//! The measurement itself, through the public API alone: a collection for the time being, IndexFaces of every image,
//! SearchFaces of every face at threshold 0.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Backoff, Client, ClientError, Service};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::progress::Progress;
use super::super::{Failure, connect};
use super::folder::{Labelled, Pair, Pairs};
use super::metrics::{Histogram, Scored, Tally};

/// Calls at once: one is worked on while others are read, sent and counted.
pub const AT_ONCE: usize = 4;
/// Matches of one search; the most that the API gives.
pub const MATCHES_MAX: u32 = 4096;
/// Faces of one image among which the subject is chosen.
const FACES_PER_IMAGE: u32 = 10;
/// Faces of one DeleteFaces.
const DELETED_AT_ONCE: usize = 1000;
/// How often a call is made again while the server is busy.
const ATTEMPTS: u32 = 8;

/// What was measured.
pub struct Measured {
    pub model: String,
    /// Images whose face is in the collection.
    pub enrolled: usize,
    /// Why others are not.
    pub not_enrolled: BTreeMap<String, usize>,
    pub tally: Tally,
    pub scored: Vec<Scored>,
    /// Probes, and those whose nearest face of the gallery is of the same person.
    pub probes: u64,
    pub identified: u64,
    /// People with a face in the gallery that are searched for.
    pub gallery: usize,
    /// The highest similarity below which a search gave nothing for want of room; 0 where every answer was whole.
    pub cut_at: f32,
    pub index_seconds: f64,
    pub search_seconds: f64,
}

/// A collection that is there as long as the measurement.
pub struct Session<'a> {
    client: &'a Client,
    collection: String,
    filter: &'a str,
}

/// Calls an operation of Rekognition, again while the server is busy.
pub async fn call<T: DeserializeOwned>(client: &Client, operation: &str, input: &Value) -> Result<T, ClientError> {
    let mut failures = 0;
    loop {
        match client.call_as(Service::Rekognition, operation, input).await {
            Err(busy) if busy.is_transient() && failures + 1 < ATTEMPTS => {
                failures += 1;
                tokio::time::sleep(Backoff::default().draw(failures)).await;
            }
            other => return other,
        }
    }
}

/// What IndexFaces said of one image.
enum Outcome {
    Face { id: u128, others: Vec<String> },
    None(String),
}

impl<'a> Session<'a> {
    /// Makes the collection; the model's id is the answer's second half.
    pub async fn open(
        client: &'a Client,
        collection: String,
        filter: &'a str,
    ) -> Result<(Session<'a>, String), Failure> {
        let input = json!({ "CollectionId": collection });
        let made = client.call(Service::Rekognition, "CreateCollection", &input).await;
        let made = made.map_err(connect::explained)?;
        let model = made.get("FaceModelVersion").and_then(Value::as_str).unwrap_or_default();
        let session = Session {
            client,
            collection,
            filter,
        };
        Ok((session, model.to_owned()))
    }

    /// Deletes the collection.
    pub async fn close(self) -> Result<(), Failure> {
        let input = json!({ "CollectionId": self.collection });
        call::<Value>(self.client, "DeleteCollection", &input)
            .await
            .map_err(connect::explained)?;
        Ok(())
    }

    /// Enrols every image and searches every face.
    pub async fn measure(
        &self,
        labelled: &Labelled,
        pairs: &Pairs,
        model: String,
        progress: &mut Progress,
    ) -> Result<Measured, Failure> {
        let clock = self.client.clock().clone();
        let start = clock.monotonic();
        let (faces, not_enrolled) = self.index(labelled, progress).await?;
        let indexed = clock.monotonic();
        let mut count = Count::new(labelled, &pairs.pairs, &faces);
        self.search(&faces, &mut count, progress).await?;
        let searched = clock.monotonic();
        progress.clear();
        Ok(Measured {
            model,
            enrolled: count.enrolled,
            not_enrolled,
            probes: count.probes,
            identified: count.identified,
            gallery: count.gallery_people,
            cut_at: count.cut_at,
            scored: count.scored(),
            tally: count.tally,
            index_seconds: (indexed - start).as_secs_f64(),
            search_seconds: (searched - indexed).as_secs_f64(),
        })
    }

    /// Of each image the id of its subject's face.
    async fn index(
        &self,
        labelled: &Labelled,
        progress: &mut Progress,
    ) -> Result<(Vec<Option<u128>>, BTreeMap<String, usize>), Failure> {
        let total = labelled.images.len();
        let mut faces: Vec<Option<u128>> = vec![None; total];
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut others = Vec::new();
        let answers = futures_util::stream::iter(labelled.images.iter().enumerate());
        let answers = answers.map(|(index, path)| async move { (index, self.index_one(index, path).await) });
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        let mut done = 0;
        while let Some((index, answer)) = answers.next().await {
            match answer? {
                Outcome::Face { id, others: beside } => {
                    if let Some(face) = faces.get_mut(index) {
                        *face = Some(id);
                    }
                    others.extend(beside);
                }
                Outcome::None(why) => *reasons.entry(why).or_default() += 1,
            }
            done += 1;
            progress.show(|| format!("{done} of {total} images read"));
        }
        // Bystanders would be somebody's nearest face.
        for ids in others.chunks(DELETED_AT_ONCE) {
            let input = json!({ "CollectionId": self.collection, "FaceIds": ids });
            call::<Value>(self.client, "DeleteFaces", &input)
                .await
                .map_err(connect::explained)?;
        }
        Ok((faces, reasons))
    }

    async fn index_one(&self, index: usize, path: &Path) -> Result<Outcome, Failure> {
        let image = tokio::fs::read(path).await;
        let image = image.map_err(|error| format!("{}: {error}", path.display()))?;
        let input = json!({
            "CollectionId": self.collection, "Image": { "Bytes": STANDARD.encode(&image) }, "ExternalImageId": index.to_string(),
            "MaxFaces": FACES_PER_IMAGE, "QualityFilter": self.filter,
        });
        match call::<Indexed>(self.client, "IndexFaces", &input).await {
            Ok(answer) => Ok(answer.outcome()),
            // The image is at fault; what else is refused would be refused for every image.
            Err(ClientError::Refused(refused))
                if refused.code.contains("Image")
                    || (refused.code == "InvalidParameterException" && refused.status == 400) =>
            {
                Ok(Outcome::None(refused.code))
            }
            Err(other) => Err(connect::explained(other)),
        }
    }

    async fn search(
        &self,
        faces: &[Option<u128>],
        count: &mut Count<'_>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let enrolled = faces.iter().enumerate().filter_map(|(index, id)| Some((index, (*id)?)));
        let answers = futures_util::stream::iter(enrolled).map(|(index, id)| async move {
            let input = json!({
                "CollectionId": self.collection, "FaceId": face_id(id), "FaceMatchThreshold": 0, "MaxFaces": MATCHES_MAX,
            });
            (index, call::<Found>(self.client, "SearchFaces", &input).await)
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        let (mut done, total) = (0, count.enrolled);
        while let Some((probe, answer)) = answers.next().await {
            count.answer(probe, &answer.map_err(connect::explained)?.face_matches);
            done += 1;
            progress.show(|| format!("{done} of {total} faces searched"));
        }
        Ok(())
    }
}

/// Members of IndexFaces' answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Indexed {
    #[serde(default)]
    face_records: Vec<Record>,
    #[serde(default)]
    unindexed_faces: Vec<Unindexed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    face: Face,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unindexed {
    #[serde(default)]
    reasons: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Face {
    pub face_id: String,
    #[serde(default)]
    pub bounding_box: Bounds,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Bounds {
    width: f32,
    height: f32,
    left: f32,
    top: f32,
}

impl Bounds {
    /// How likely it is the one that the picture was taken of: large, and in the middle.
    fn weight(self) -> f32 {
        let (x, y) = (self.left + self.width / 2.0 - 0.5, self.top + self.height / 2.0 - 0.5);
        self.width * self.height - 2.0 * (x * x + y * y)
    }
}

/// Members of SearchFaces' answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Found {
    #[serde(default)]
    pub face_matches: Vec<Match>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Match {
    pub similarity: f32,
    pub face: Face,
}

impl Indexed {
    fn outcome(mut self) -> Outcome {
        self.face_records
            .sort_by(|a, b| b.face.bounding_box.weight().total_cmp(&a.face.bounding_box.weight()));
        let mut ids = self.face_records.into_iter().map(|record| record.face.face_id);
        let subject = ids.next();
        match subject.as_deref().and_then(parse_id) {
            Some(id) => Outcome::Face {
                id,
                others: ids.collect(),
            },
            None => {
                let reason = self
                    .unindexed_faces
                    .into_iter()
                    .next()
                    .and_then(|face| face.reasons.into_iter().next());
                Outcome::None(reason.unwrap_or_else(|| "no face".to_owned()))
            }
        }
    }
}

/// A face id as a number: 16 bytes instead of 60.
pub fn parse_id(text: &str) -> Option<u128> {
    u128::from_str_radix(&text.replace('-', ""), 16).ok()
}

pub fn face_id(id: u128) -> String {
    let hex = format!("{id:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    parts.join("-")
}

/// What the answers of the searches come to.
struct Count<'a> {
    labelled: &'a Labelled,
    image_of: HashMap<u128, u32>,
    enrolled: usize,
    /// Of each image whether it is its person's one in the gallery.
    in_gallery: Vec<bool>,
    gallery_people: usize,
    probes: u64,
    identified: u64,
    pairs: &'a [Pair],
    /// Where a pair is among `pairs`.
    places: HashMap<(usize, usize), usize>,
    similarities: Vec<f32>,
    tally: Tally,
    cut_at: f32,
}

impl<'a> Count<'a> {
    fn new(labelled: &'a Labelled, pairs: &'a [Pair], faces: &[Option<u128>]) -> Self {
        let numbered = faces.iter().enumerate();
        let image_of: HashMap<u128, u32> = numbered
            .filter_map(|(index, id)| Some(((*id)?, index as u32)))
            .collect();
        let has_face = |image: usize| faces.get(image).is_some_and(Option::is_some);
        let enrolled = faces.iter().flatten().count();
        let mut in_gallery = vec![false; faces.len()];
        let (mut probes, mut gallery_people) = (0, 0);
        let mut genuine_of_faces = 0;
        for range in &labelled.of {
            // A person whose gallery image has no face cannot be found: every probe is a miss.
            if let Some(first) = in_gallery.get_mut(range.start) {
                *first = has_face(range.start);
            }
            if range.len() > 1 {
                probes += range.len() as u64 - 1;
                gallery_people += 1;
            }
            let with_face = range.clone().filter(|image| has_face(*image)).count() as u64;
            genuine_of_faces += with_face * with_face.saturating_sub(1);
        }
        let ordered = |pair: &Pair| (pair.a.min(pair.b), pair.a.max(pair.b));
        Count {
            labelled,
            image_of,
            enrolled,
            in_gallery,
            gallery_people,
            probes,
            identified: 0,
            pairs,
            places: pairs
                .iter()
                .enumerate()
                .map(|(place, pair)| (ordered(pair), place))
                .collect(),
            similarities: vec![0.0; pairs.len()],
            tally: Tally {
                genuine: Histogram::new(),
                impostor: Histogram::new(),
                genuine_total: labelled.genuine_views(),
                impostor_total: enrolled as u64 * (enrolled as u64).saturating_sub(1) - genuine_of_faces,
            },
            cut_at: 0.0,
        }
    }

    /// One probe and what was found for it, most similar first.
    fn answer(&mut self, probe: usize, matches: &[Match]) {
        let person = self.labelled.person_of(probe);
        let is = |gallery: &[bool], image: usize| gallery.get(image).copied().unwrap_or(false);
        let own = person.and_then(|person| self.labelled.of.get(person as usize));
        let mut searching = own.is_some_and(|images| images.start != probe);
        for found in matches {
            let image = parse_id(&found.face.face_id).and_then(|id| self.image_of.get(&id));
            let Some(image) = image.map(|image| *image as usize) else {
                continue;
            };
            let same = self.labelled.person_of(image) == person;
            if same {
                self.tally.genuine.add(found.similarity);
            } else {
                self.tally.impostor.add(found.similarity);
            }
            if searching && is(&self.in_gallery, image) {
                searching = false;
                self.identified += u64::from(same);
            }
            if let Some(place) = self.places.get(&(probe.min(image), probe.max(image)))
                && let Some(similarity) = self.similarities.get_mut(*place)
            {
                *similarity = found.similarity;
            }
        }
        if matches.len() >= MATCHES_MAX as usize
            && let Some(last) = matches.last()
        {
            self.cut_at = self.cut_at.max(last.similarity);
        }
    }

    fn scored(&self) -> Vec<Scored> {
        let scored = |(pair, similarity): (&Pair, &f32)| Scored {
            fold: pair.fold,
            same: self.labelled.person_of(pair.a) == self.labelled.person_of(pair.b),
            similarity: *similarity,
        };
        self.pairs.iter().zip(&self.similarities).map(scored).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A match.
    pub fn found(image: u128, similarity: f32) -> Match {
        Match {
            similarity,
            face: Face {
                face_id: face_id(image),
                bounding_box: Bounds::default(),
            },
        }
    }

    #[test]
    fn an_image_without_a_face_is_a_miss_everywhere() {
        // Ann has images 0 to 2, of which 2 has no face; Bea has 3 and 4, of which her gallery's 3 has none; Cid has 5.
        let labelled = Labelled {
            people: ["Ann", "Bea", "Cid"].map(str::to_owned).to_vec(),
            images: vec![Default::default(); 6],
            of: vec![0..3, 3..5, 5..6],
            person: vec![0, 0, 0, 1, 1, 2],
        };
        let faces = [Some(10), Some(11), None, None, Some(14), Some(15)];
        let pair = |a, b| Pair { fold: 0, a, b };
        let pairs = [pair(1, 0), pair(0, 2), pair(4, 5)];
        let mut count = Count::new(&labelled, &pairs, &faces);
        count.answer(0, &[found(11, 90.0), found(14, 20.0), found(15, 10.0)]);
        count.answer(1, &[found(10, 90.0), found(14, 30.0), found(15, 5.0)]);
        count.answer(4, &[found(15, 40.0), found(1, 30.0), found(10, 20.0), found(11, 30.0)]);
        count.answer(5, &[found(14, 40.0), found(10, 10.0), found(11, 5.0)]);
        assert_eq!((count.probes, count.identified, count.gallery_people), (3, 1, 2));
        assert_eq!(
            (count.tally.genuine_total, count.tally.genuine.at_or_above(0.0)),
            (3 * 2 + 2, 2)
        );
        assert_eq!(
            (count.tally.impostor_total, count.tally.impostor.at_or_above(0.0)),
            (4 * 3 - 2, 10)
        );
        let similarities: Vec<(bool, f32)> = count.scored().iter().map(|s| (s.same, s.similarity)).collect();
        assert_eq!(similarities, [(true, 90.0), (true, 0.0), (false, 40.0)]);
    }

    #[test]
    fn the_subject_is_large_and_in_the_middle() {
        let answer = json!({ "FaceRecords": [
            { "Face": { "FaceId": face_id(1), "BoundingBox": { "Width": 0.2, "Height": 0.2, "Left": 0.0, "Top": 0.0 } } },
            { "Face": { "FaceId": face_id(2), "BoundingBox": { "Width": 0.3, "Height": 0.3, "Left": 0.35, "Top": 0.35 } } },
        ] });
        let indexed: Indexed = serde_json::from_value(answer).unwrap();
        match indexed.outcome() {
            Outcome::Face { id, others } => assert_eq!((id, others), (2, vec![face_id(1)])),
            Outcome::None(why) => panic!("{why}"),
        }
        let answer = json!({ "UnindexedFaces": [{ "Reasons": ["EXTREME_POSE"] }] });
        let indexed: Indexed = serde_json::from_value(answer).unwrap();
        assert!(matches!(indexed.outcome(), Outcome::None(why) if why == "EXTREME_POSE"));
        assert_eq!(face_id(0x1234), "00000000-0000-0000-0000-000000001234");
    }
}
