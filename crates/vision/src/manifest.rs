//! `manifest.json` of a folder of models: which files the worker loads, and what the vectors they make are called.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::protocol::MAX_EMBEDDING;

/// The only format so far.
const FORMAT: u32 = 1;

/// A folder of prepared models.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The inference engine's shared library.
    pub engine: Component,
    /// The face detector, YuNet's form.
    pub detector: Component,
    /// The face embedder.
    pub embedder: Embedder,
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
    /// Numbers in a vector.
    pub length: usize,
    /// The order of the colours.
    pub channels: Channels,
    /// Subtracted from each value of 0 to 255 first.
    pub mean: f32,
    /// Multiplied with the difference.
    pub scale: f32,
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

    /// Reads and checks a folder's manifest; the error is in words for the operator.
    #[allow(clippy::disallowed_methods, reason = "models are configuration, read at start")]
    pub fn read(folder: &Path) -> Result<Manifest, String> {
        let text = std::fs::read_to_string(Self::path(folder)).map_err(|e| e.to_string())?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        manifest.check(folder)?;
        Ok(manifest)
    }

    fn check(&self, folder: &Path) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", self.format));
        }
        if !(1..=MAX_EMBEDDING).contains(&self.embedder.length) {
            return Err(format!("vectors of {} numbers are not possible", self.embedder.length));
        }
        for component in [&self.engine, &self.detector, &self.embedder.component] {
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
        for file in ["engine.so", "detector.onnx", "embedder.onnx"] {
            std::fs::write(folder.path().join(file), b"").unwrap();
        }
        let part =
            |id: &str, file: &str| format!(r#""id": "{id}", "file": "{file}", "sha256": "00", "licence": "MIT""#);
        let text = format!(
            r#"{{"format": 1, "engine": {{{}}}, "detector": {{{}}},
                "embedder": {{{}, "length": {length}, "channels": "rgb", "mean": 0.0, "scale": 1.0}}}}"#,
            part("e-1", "engine.so"),
            part("d-1", "detector.onnx"),
            part("v-1", embedder_file),
        );
        std::fs::write(Manifest::path(folder.path()), text).unwrap();
        folder
    }

    #[test]
    fn the_embedders_id_is_the_model_version() {
        let manifest = Manifest::read(folder("embedder.onnx", 128).path()).unwrap();
        assert_eq!(
            (manifest.embedder.component.id.as_str(), manifest.embedder.length),
            ("v-1", 128)
        );
    }

    #[test]
    fn a_missing_file_and_one_outside_of_the_folder_are_refused() {
        assert!(
            Manifest::read(folder("other.onnx", 128).path())
                .unwrap_err()
                .contains("other.onnx")
        );
        assert!(Manifest::read(folder("../embedder.onnx", 128).path()).is_err());
        assert!(Manifest::read(folder("embedder.onnx", 0).path()).is_err());
        assert!(Manifest::read(Path::new("/nonexistent")).is_err());
    }
}
