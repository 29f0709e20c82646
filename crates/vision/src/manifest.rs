//! `manifest.json` of a folder of models: which files the worker loads, what the vectors they make are called, and what
//! their cosines mean. Beside it `added.json` has the embedders that the user added and what the user measured, which
//! preparing the folder anew leaves alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::protocol::MAX_EMBEDDING;

/// The only format so far.
const FORMAT: u32 = 1;

/// Hexadecimal digits, of the file and its form, at the end of an added embedder's id: another file under the same name
/// is another model, whose vectors are never compared with the first one's.
pub const ID_DIGITS: usize = 8;

/// A folder of prepared models.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The inference engine's shared library.
    pub engine: Component,
    /// The face detector, YuNet's form.
    pub detector: Component,
    /// The face embedder that is used.
    pub embedder: Embedder,
    /// Further ones, of which the configuration may choose one instead.
    #[serde(skip)]
    embedders: Vec<Embedder>,
    /// What tells age, expression and the like; absent where the folder was prepared without.
    pub attributes: Option<AttributeModels>,
    /// The detector of objects, CenterNet's form with COCO's 80 classes; absent where the folder was prepared without.
    pub labels: Option<Component>,
}

/// `added.json`.
#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    embedders: Vec<Embedder>,
    /// By the embedder's id; they take the place of [`Embedder::calibration`].
    #[serde(default)]
    calibrations: BTreeMap<String, Vec<(f32, f32)>>,
}

/// The models of face attributes.
#[derive(Clone, Debug, Deserialize)]
pub struct AttributeModels {
    /// 468 points of a face, MediaPipe's face mesh.
    pub mesh: Component,
    /// Lids and iris of an eye, MediaPipe's iris.
    pub iris: Component,
    /// HSE-FaceRes.
    pub age_gender: Component,
    /// Seven expressions, trained on FER2013.
    pub emotion: Component,
}

impl AttributeModels {
    fn components(&self) -> [&Component; 4] {
        [&self.mesh, &self.iris, &self.age_gender, &self.emotion]
    }
}

/// A file of the folder.
#[derive(Clone, Debug, Deserialize)]
pub struct Component {
    /// What it is, with its version.
    pub id: String,
    /// Its name in the folder.
    pub file: PathBuf,
    /// Of the file, as hexadecimal digits.
    pub sha256: String,
}

/// An ONNX model that takes 112 x 112 pixels aligned to ArcFace's template and gives a vector.
#[derive(Clone, Debug, Deserialize)]
pub struct Embedder {
    /// The file.
    #[serde(flatten)]
    pub component: Component,
    /// Numbers in a vector; 0 in a manifest that is made to find it out.
    #[serde(default)]
    pub length: usize,
    /// The order of the colours.
    pub channels: Channels,
    /// Subtracted from each value of 0 to 255 first.
    pub mean: f32,
    /// Multiplied with the difference.
    pub scale: f32,
    /// Cosines of its vectors and the similarities, 0 to 100, that they stand for, both rising; empty where nobody
    /// measured it.
    #[serde(default)]
    pub calibration: Vec<(f32, f32)>,
}

impl Embedder {
    /// Whether this is its id, or its id without the digits that `models add` puts behind a name.
    pub fn is_called(&self, name: &str) -> bool {
        let id = self.component.id.as_str();
        let digits = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        id == name || digits.is_some_and(|d| d.len() == ID_DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

/// The order of the colour planes that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

impl Manifest {
    /// Where the manifest of a folder is.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("manifest.json")
    }

    /// Where the embedders are listed that the user added.
    pub fn added_path(folder: &Path) -> PathBuf {
        folder.join("added.json")
    }

    /// Reads and checks a folder's manifest, and chooses the embedder: the one with this id, or the folder's first. The
    /// error is in words for the operator.
    pub fn read(folder: &Path, embedder: Option<&str>) -> Result<Manifest, String> {
        let manifest = Self::read_candidate(folder, embedder)?;
        if manifest.embedder.length == 0 {
            return Err(format!(
                "the length of {}'s vectors is missing",
                manifest.embedder.component.id
            ));
        }
        Ok(manifest)
    }

    /// As [`read`](Self::read), of a folder whose embedder's length may be missing.
    #[allow(clippy::disallowed_methods, reason = "models are configuration, read at start")]
    pub fn read_candidate(folder: &Path, embedder: Option<&str>) -> Result<Manifest, String> {
        let text = std::fs::read_to_string(Self::path(folder)).map_err(|e| e.to_string())?;
        let mut manifest: Manifest = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let added = Self::added_path(folder);
        match std::fs::read_to_string(&added) {
            Ok(text) => {
                let read: Result<Added, _> = serde_json::from_str(&text);
                manifest.take(read.map_err(|e| format!("{}: {e}", added.display()))?);
            }
            Err(none) if none.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", added.display())),
        }
        manifest.choose(embedder)?;
        manifest.check(folder)?;
        Ok(manifest)
    }

    fn take(&mut self, added: Added) {
        self.embedders = added.embedders;
        for embedder in std::iter::once(&mut self.embedder).chain(&mut self.embedders) {
            if let Some(measured) = added.calibrations.get(&embedder.component.id) {
                embedder.calibration.clone_from(measured);
            }
        }
    }

    /// Every embedder of the folder, the chosen one first.
    pub fn embedders(&self) -> impl Iterator<Item = &Embedder> {
        std::iter::once(&self.embedder).chain(&self.embedders)
    }

    fn choose(&mut self, wanted: Option<&str>) -> Result<(), String> {
        let Some(wanted) = wanted.filter(|wanted| !self.embedder.is_called(wanted)) else {
            return Ok(());
        };
        let mut called =
            (0..self.embedders.len()).filter(|&at| self.embedders.get(at).is_some_and(|e| e.is_called(wanted)));
        let Some(found) = called.next() else {
            let all: Vec<&str> = self.embedders().map(|other| other.component.id.as_str()).collect();
            return Err(format!("no embedder is called {wanted}; there are {}", all.join(", ")));
        };
        if called.next().is_some() {
            return Err(format!(
                "several embedders are called {wanted}; name one by its whole id"
            ));
        }
        let other = self.embedders.swap_remove(found);
        self.embedders.push(std::mem::replace(&mut self.embedder, other));
        Ok(())
    }

    fn check(&self, folder: &Path) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", self.format));
        }
        if self.embedder.length > MAX_EMBEDDING {
            return Err(format!("vectors of {} numbers are not possible", self.embedder.length));
        }
        let more = self
            .attributes
            .iter()
            .flat_map(AttributeModels::components)
            .chain(&self.labels);
        for component in [&self.engine, &self.detector, &self.embedder.component]
            .into_iter()
            .chain(more)
        {
            let plain = component.file.components().count() == 1 && component.file.file_name().is_some();
            if !plain || !folder.join(&component.file).is_file() {
                return Err(format!("{} is not a file of the folder", component.file.display()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "makes a folder to read")]
mod tests {
    use super::*;

    fn folder(embedder_file: &str, length: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in ["engine.so", "detector.onnx", "embedder.onnx", "second.onnx"] {
            std::fs::write(folder.path().join(file), b"").unwrap();
        }
        let part =
            |id: &str, file: &str| format!(r#""id": "{id}", "file": "{file}", "sha256": "00", "licence": "MIT""#);
        let text = format!(
            r#"{{"format": 1, "engine": {{{}}}, "detector": {{{}}},
                "embedder": {{{}, "length": {length}, "channels": "rgb", "mean": 0.0, "scale": 1.0,
                              "calibration": [[0.375, 80.0]]}}}}"#,
            part("e-1", "engine.so"),
            part("d-1", "detector.onnx"),
            part("v-1", embedder_file),
        );
        let added = format!(
            r#"{{"embedders": [{{{}, "length": 512, "channels": "bgr", "mean": 127.5, "scale": 0.0078125}}],
                "calibrations": {{"v-2-0123abcd": [[0.25, 80.0], [0.5, 99.0]]}}}}"#,
            part("v-2-0123abcd", "second.onnx"),
        );
        std::fs::write(Manifest::added_path(folder.path()), added).unwrap();
        std::fs::write(Manifest::path(folder.path()), text).unwrap();
        folder
    }

    #[test]
    fn the_embedders_id_is_the_model_version() {
        let manifest = Manifest::read(folder("embedder.onnx", 128).path(), None).unwrap();
        assert_eq!(
            (manifest.embedder.component.id.as_str(), manifest.embedder.length),
            ("v-1", 128)
        );
    }

    #[test]
    fn another_embedder_is_chosen_by_its_id() {
        let folder = folder("embedder.onnx", 128);
        let chosen = |id| {
            Manifest::read(folder.path(), id).map(|manifest| (manifest.embedder.component.id, manifest.embedder.length))
        };
        for name in ["v-2", "v-2-0123abcd"] {
            assert_eq!(chosen(Some(name)), Ok(("v-2-0123abcd".to_owned(), 512)));
        }
        assert_eq!(chosen(Some("v-1")), Ok(("v-1".to_owned(), 128)));
        let error = chosen(Some("v-3")).unwrap_err();
        assert!(error.contains("v-1, v-2-0123abcd"), "{error}");
        assert!(chosen(Some("v")).is_err() && chosen(Some("v-2-0123")).is_err());
    }

    #[test]
    fn each_embedder_has_the_calibration_that_was_made_for_it() {
        let manifest = Manifest::read(folder("embedder.onnx", 128).path(), None).unwrap();
        let calibrations: Vec<_> = manifest
            .embedders()
            .map(|embedder| embedder.calibration.clone())
            .collect();
        assert_eq!(calibrations, [vec![(0.375, 80.0)], vec![(0.25, 80.0), (0.5, 99.0)]]);
    }

    #[test]
    fn a_missing_file_and_one_outside_of_the_folder_are_refused() {
        assert!(
            Manifest::read(folder("other.onnx", 128).path(), None)
                .unwrap_err()
                .contains("other.onnx")
        );
        assert!(Manifest::read(folder("../embedder.onnx", 128).path(), None).is_err());
        assert!(Manifest::read(folder("embedder.onnx", 0).path(), None).is_err());
        assert!(Manifest::read(Path::new("/nonexistent"), None).is_err());
    }
}
