//! The results of a job in the catalog: appearances of faces in the order of their times, what is known of each track, and
//! for a search the order by person. Rows hold so many entries that a page of an answer reads few of them. They hold boxes,
//! times and the ids of faces, never a vector (invariant 8).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, put_json};
use storage::{CatalogError, Change, Expect};
use vision::{BoundingBox, Face, FaceAttributes, FaceMesh, Landmarks, MESH_LANDMARKS, Point, Pose, Quality};

use super::job::{JobKey, Store, results_key};

/// Appearances and tracks in one row: some 150 kB, with attributes 400 kB, of 1 MiB that a value may have.
pub(crate) const ROW: usize = 500;

/// Positions in one row.
const ORDER_ROW: usize = 20_000;

/// Rows deleted at once.
const DELETE_PAGE: usize = 200;

/// A face in a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Appearance {
    /// Milliseconds from the start of the video.
    #[serde(rename = "t")]
    pub(crate) time_ms: i64,
    /// Number of the track within the job.
    #[serde(rename = "k")]
    pub(crate) track: u32,
    /// Box, confidence, landmarks, pose, quality.
    #[serde(rename = "v")]
    numbers: [f32; 20],
    /// See [`attributes_to_numbers`].
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<f32>>,
}

/// Age, gender, expressions, and of the mesh eyes, mouth and points, to 5 digits: what is stored of a face's attributes.
fn attributes_to_numbers(attributes: &FaceAttributes) -> Vec<f32> {
    let mut numbers = vec![attributes.age, attributes.male];
    numbers.extend(attributes.emotions);
    if let Some(mesh) = &attributes.mesh {
        numbers.extend([mesh.eyes_open, mesh.mouth_open]);
        numbers.extend(mesh.points.iter().flat_map(|point| [point.x, point.y]));
    }
    for number in &mut numbers {
        // JSON has no NaN and no infinity.
        *number = if number.is_finite() {
            (*number * 1e5).round() / 1e5
        } else {
            0.0
        };
    }
    numbers
}

fn attributes_of_numbers(numbers: &[f32]) -> Option<FaceAttributes> {
    let (&[age, male], rest) = numbers.split_first_chunk()?;
    let (&emotions, rest) = rest.split_first_chunk()?;
    let mesh = rest.split_first_chunk().map(|(&[eyes_open, mouth_open], places)| {
        let mut points = [Point::default(); MESH_LANDMARKS.len()];
        for (point, place) in points.iter_mut().zip(places.as_chunks::<2>().0) {
            let [x, y] = *place;
            *point = Point { x, y };
        }
        FaceMesh {
            points,
            eyes_open,
            mouth_open,
        }
    });
    Some(FaceAttributes {
        age,
        male,
        emotions,
        mesh,
    })
}

impl Appearance {
    pub(crate) fn new(time_ms: i64, track: u32, face: &Face) -> Self {
        let (area, pose, quality) = (&face.bounding_box, &face.pose, &face.quality);
        let mut numbers = [0.0; 20];
        let landmarks = face.landmarks.named().map(|(_, point)| [point.x, point.y]);
        let values = [area.left, area.top, area.width, area.height, face.confidence]
            .into_iter()
            .chain(landmarks.into_iter().flatten())
            .chain([pose.pitch, pose.roll, pose.yaw, quality.brightness, quality.sharpness]);
        for (slot, value) in numbers.iter_mut().zip(values) {
            // JSON has no NaN and no infinity.
            *slot = if value.is_finite() { value } else { 0.0 };
        }
        Appearance {
            time_ms,
            track,
            numbers,
            attributes: face.attributes.as_deref().map(attributes_to_numbers),
        }
    }

    pub(crate) fn face(&self) -> Face {
        let [
            left,
            top,
            width,
            height,
            confidence,
            ex,
            ey,
            fx,
            fy,
            nx,
            ny,
            mx,
            my,
            lx,
            ly,
            pitch,
            roll,
            yaw,
            b,
            s,
        ] = self.numbers;
        let point = |x, y| Point { x, y };
        Face {
            bounding_box: BoundingBox {
                left,
                top,
                width,
                height,
            },
            confidence,
            landmarks: Landmarks {
                eye_left: point(ex, ey),
                eye_right: point(fx, fy),
                nose: point(nx, ny),
                mouth_left: point(mx, my),
                mouth_right: point(lx, ly),
            },
            pose: Pose { pitch, roll, yaw },
            quality: Quality {
                brightness: b,
                sharpness: s,
            },
            attributes: self.attributes.as_deref().and_then(attributes_of_numbers).map(Box::new),
            ..Face::default()
        }
    }
}

/// What is known of a track.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackRow {
    /// Index of the person, from 0.
    #[serde(rename = "p")]
    pub(crate) person: u32,
    /// Ids of faces and similarities, best first.
    #[serde(rename = "m")]
    pub(crate) matches: Vec<(String, f32)>,
}

/// Results of one job.
pub(crate) struct Results<'a> {
    store: &'a Store,
    key: &'a JobKey,
}

impl<'a> Results<'a> {
    pub(crate) fn of(store: &'a Store, key: &'a JobKey) -> Self {
        Results { store, key }
    }

    fn row_key(&self, kind: &str, row: usize) -> String {
        results_key(self.key).with(&format!("{kind}{row:08}")).into()
    }

    async fn put<T: Serialize>(&self, kind: &str, row: usize, value: &T) -> Result<(), CatalogError> {
        let put = put_json(self.row_key(kind, row), value, Expect::Any)?;
        self.store.catalog.commit(vec![put]).await.map(drop)
    }

    async fn row<T: DeserializeOwned>(&self, kind: &str, row: usize) -> Result<Vec<T>, CatalogError> {
        let found = get_json::<Vec<T>>(&*self.store.catalog, self.row_key(kind, row)).await?;
        Ok(found.map(|entry| entry.value).unwrap_or_default())
    }

    /// Removes all of them.
    pub(crate) async fn clear(&self) -> Result<(), CatalogError> {
        let below = results_key(self.key).below();
        loop {
            let page = self.store.catalog.page(&below, None, DELETE_PAGE).await?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let delete = |(key, _)| Change::Delete {
                key,
                expect: Expect::Any,
            };
            let changes = page.entries.into_iter().map(delete).collect();
            self.store.catalog.commit(changes).await?;
        }
    }

    /// Writes a row of appearances, [`ROW`] of them but for the last.
    pub(crate) async fn put_appearances(&self, row: usize, appearances: &[Appearance]) -> Result<(), CatalogError> {
        self.put("a", row, &appearances).await
    }

    /// Writes the tracks.
    pub(crate) async fn put_tracks(&self, tracks: &[TrackRow]) -> Result<(), CatalogError> {
        for (row, tracks) in tracks.chunks(ROW).enumerate() {
            self.put("t", row, &tracks).await?;
        }
        Ok(())
    }

    /// Writes the positions of the appearances in the order of persons.
    pub(crate) async fn put_order(&self, order: &[u32]) -> Result<(), CatalogError> {
        for (row, positions) in order.chunks(ORDER_ROW).enumerate() {
            self.put("i", row, &positions).await?;
        }
        Ok(())
    }

    /// The positions of so many appearances in the order of persons.
    pub(crate) async fn order(&self, from: usize, count: usize) -> Result<Vec<usize>, CatalogError> {
        let mut found: Vec<usize> = Vec::with_capacity(count);
        while found.len() < count {
            let at = from + found.len();
            let row: Vec<u32> = self.row("i", at / ORDER_ROW).await?;
            let wanted = row.iter().skip(at % ORDER_ROW).take(count - found.len());
            let before = found.len();
            found.extend(wanted.map(|position| *position as usize));
            if found.len() == before {
                break;
            }
        }
        Ok(found)
    }

    /// The entries at these positions, in their order; one that is not there is left out.
    async fn at<T: DeserializeOwned + Clone>(&self, kind: &str, places: &[usize]) -> Result<Vec<T>, CatalogError> {
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (slot, place) in places.iter().enumerate() {
            rows.entry(place / ROW).or_default().push(slot);
        }
        let mut found: Vec<Option<T>> = vec![None; places.len()];
        for (row, slots) in rows {
            let entries: Vec<T> = self.row(kind, row).await?;
            for slot in slots {
                let entry = places.get(slot).and_then(|place| entries.get(place % ROW));
                if let Some(into) = found.get_mut(slot) {
                    *into = entry.cloned();
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    pub(crate) async fn appearances(&self, places: &[usize]) -> Result<Vec<Appearance>, CatalogError> {
        self.at("a", places).await
    }

    /// The tracks of these appearances, in their order.
    pub(crate) async fn tracks(&self, appearances: &[Appearance]) -> Result<Vec<TrackRow>, CatalogError> {
        let places: Vec<usize> = appearances.iter().map(|seen| seen.track as usize).collect();
        self.at("t", &places).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::AccountId;
    use storage::MemoryCatalog;

    use super::*;

    fn seen(time_ms: i64, track: u32) -> Appearance {
        let face = Face {
            bounding_box: BoundingBox {
                left: 0.25,
                top: f32::NAN,
                width: 0.5,
                height: 0.125,
            },
            confidence: 99.5,
            quality: Quality {
                brightness: 40.0,
                sharpness: 60.0,
            },
            ..Face::default()
        };
        Appearance::new(time_ms, track, &face)
    }

    #[test]
    fn a_face_comes_back_as_it_was_seen() {
        let face = seen(7, 3).face();
        assert_eq!(
            (face.bounding_box.left, face.bounding_box.top, face.bounding_box.height),
            (0.25, 0.0, 0.125)
        );
        assert_eq!((face.confidence, face.quality.sharpness), (99.5, 60.0));
        assert_eq!(face.landmarks, Landmarks::default());
    }

    #[test]
    fn attributes_come_back_as_they_were_told_and_a_profile_without_a_mesh() {
        let mut points = [Point::default(); MESH_LANDMARKS.len()];
        for (n, point) in (0u8..).zip(&mut points) {
            *point = Point {
                x: f32::from(n) / 64.0,
                y: -f32::from(n) / 32.0,
            };
        }
        let mut told = FaceAttributes {
            age: 40.5,
            male: 0.25,
            emotions: [0.0, 0.125, 0.25, 0.5, 0.0, 0.125, 0.0],
            mesh: Some(FaceMesh {
                points,
                eyes_open: 0.75,
                mouth_open: 0.5,
            }),
        };
        for mesh in [told.mesh.clone(), None] {
            told.mesh = mesh;
            let face = Face {
                attributes: Some(Box::new(told.clone())),
                ..Face::default()
            };
            let stored = serde_json::to_string(&Appearance::new(1, 2, &face)).unwrap();
            assert!(stored.len() < 1_000);
            let read: Appearance = serde_json::from_str(&stored).unwrap();
            let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
            let back = *read.face().attributes.unwrap();
            assert_eq!(
                (back.age, back.male, back.emotions),
                (told.age, told.male, told.emotions)
            );
            match (&back.mesh, &told.mesh) {
                (Some(back), Some(told)) => {
                    assert!(
                        back.points
                            .iter()
                            .zip(&told.points)
                            .all(|(a, b)| close(a.x, b.x) && close(a.y, b.y))
                    );
                    assert_eq!((back.eyes_open, back.mouth_open), (told.eyes_open, told.mouth_open));
                }
                (back, told) => assert_eq!(back, told),
            }
        }
    }

    #[tokio::test]
    async fn pages_read_over_rows_in_any_order_and_nothing_is_left_of_what_is_cleared() {
        let store = Store {
            catalog: Arc::new(MemoryCatalog::new()),
        };
        let key = JobKey {
            account: AccountId::DEFAULT,
            region: "us-west-2".parse().unwrap(),
            id: "ab".repeat(32),
        };
        let results = Results::of(&store, &key);
        let all: Vec<Appearance> = (0..2500).map(|n| seen(n, n as u32 % 3)).collect();
        for (row, appearances) in all.chunks(ROW).enumerate() {
            results.put_appearances(row, appearances).await.unwrap();
        }
        let track = |person| TrackRow {
            person,
            matches: vec![("face".to_owned(), 99.0)],
        };
        results.put_tracks(&[track(0), track(1), track(0)]).await.unwrap();
        results.put_order(&(0..25_000).rev().collect::<Vec<_>>()).await.unwrap();
        let places = [2499, 0, 999, 1000, 9_999];
        let read = results.appearances(&places).await.unwrap();
        assert_eq!(
            read.iter().map(|seen| seen.time_ms).collect::<Vec<_>>(),
            [2499, 0, 999, 1000]
        );
        let tracks = results.tracks(&read).await.unwrap();
        assert_eq!(
            tracks.iter().map(|track| track.person).collect::<Vec<_>>(),
            [0, 0, 0, 1]
        );
        let order = results.order(19_999, 3).await.unwrap();
        assert_eq!(order, [5000, 4999, 4998]);
        assert_eq!(results.order(24_999, 5).await.unwrap(), [0]);
        results.clear().await.unwrap();
        assert!(results.appearances(&[0]).await.unwrap().is_empty());
        let left = store.catalog.page("0", None, 10).await.unwrap();
        assert!(left.entries.is_empty(), "{:?}", left.entries.len());
    }
}
