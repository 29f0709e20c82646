//! The two networks on ONNX Runtime, each on one thread. Everything is loaded before the worker locks itself down.

use std::path::Path;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use vision::manifest::{Channels, Embedder, Manifest};

use crate::align::SIDE;
use crate::detect::{Detection, InputShape, Level, STRIDES, faces};

/// Loading or running a network failed; in words for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("inference: {0}")]
pub struct EngineError(String);

pub(crate) fn wrong(error: impl std::fmt::Display) -> EngineError {
    EngineError(error.to_string())
}

/// Both networks.
pub struct Engine {
    environment: Environment,
    detector: Session,
    embedder: Session,
    embedder_input: String,
    embedder_output: String,
    form: Embedder,
}

impl Engine {
    /// Loads the engine's library and the models of a folder, and runs each network once.
    pub fn load(folder: &Path, manifest: &Manifest) -> Result<Engine, EngineError> {
        let library = folder.join(&manifest.engine.file);
        let environment = ort::init_from(library)
            .map_err(wrong)?
            .with_telemetry(false)
            .build()
            .map_err(wrong)?;
        let open = |file: &Path| open(&environment, &folder.join(file));
        let embedder = open(&manifest.embedder.component.file)?;
        let name = |outlets: &[ort::value::Outlet]| outlets.first().map(|o| o.name().to_owned());
        let mut engine = Engine {
            detector: open(&manifest.detector.file)?,
            embedder_input: name(embedder.inputs()).ok_or_else(|| wrong("the embedder has no input"))?,
            embedder_output: name(embedder.outputs()).ok_or_else(|| wrong("the embedder has no output"))?,
            embedder,
            form: manifest.embedder.clone(),
            environment,
        };
        engine.warm_up()?;
        Ok(engine)
    }

    /// Opens another model beside the two.
    pub(crate) fn open(&self, file: &Path) -> Result<Session, EngineError> {
        open(&self.environment, file)
    }

    /// Reads every weight and takes the memory that a run needs, so that the first frame does not wait for it.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let shape = InputShape::new(640, 384, 640);
        self.detect(&vec![0.0; shape.len()], &shape, 1.0)?;
        self.embed(&mut vec![0.0; 3 * SIDE * SIDE]).map(|_| ())
    }

    /// The faces in an input made by [`InputShape::fill`], in picture pixels, best first.
    pub fn detect(&mut self, input: &[f32], shape: &InputShape, score_min: f32) -> Result<Vec<Detection>, EngineError> {
        let sizes = [1, 3, shape.padded_height, shape.padded_width];
        let tensor = TensorRef::from_array_view((sizes, input)).map_err(wrong)?;
        let outputs = self.detector.run(ort::inputs!["input" => tensor]).map_err(wrong)?;
        let column = |kind: &str, stride: usize| -> Result<&[f32], EngineError> {
            let name = format!("{kind}_{stride}");
            let value = outputs
                .get(&name)
                .ok_or_else(|| wrong(format!("the detector gave no {name}")))?;
            value.try_extract_tensor::<f32>().map(|(_, data)| data).map_err(wrong)
        };
        let level = |stride| {
            Ok::<_, EngineError>(Level {
                stride,
                cls: column("cls", stride)?,
                obj: column("obj", stride)?,
                bbox: column("bbox", stride)?,
                kps: column("kps", stride)?,
            })
        };
        let [fine, middle, coarse] = STRIDES;
        let levels = [level(fine)?, level(middle)?, level(coarse)?];
        Ok(faces(&levels, shape, score_min))
    }

    /// The unit vector of a crop made by [`crate::align::crop`], which is normalised in place.
    pub fn embed(&mut self, crop: &mut [f32]) -> Result<Vec<f32>, EngineError> {
        if self.form.channels == Channels::Bgr {
            let (red, rest) = crop.split_at_mut(SIDE * SIDE);
            let (_, blue) = rest.split_at_mut(SIDE * SIDE);
            red.swap_with_slice(blue);
        }
        let (mean, scale) = (self.form.mean, self.form.scale);
        if mean != 0.0 || scale != 1.0 {
            crop.iter_mut().for_each(|value| *value = (*value - mean) * scale);
        }
        let tensor = TensorRef::from_array_view(([1, 3, SIDE, SIDE], &*crop)).map_err(wrong)?;
        let outputs = self
            .embedder
            .run(ort::inputs![self.embedder_input.as_str() => tensor])
            .map_err(wrong)?;
        let output = outputs
            .get(&self.embedder_output)
            .ok_or_else(|| wrong("the embedder gave no vector"))?;
        let (_, vector) = output.try_extract_tensor::<f32>().map_err(wrong)?;
        if self.form.length == 0 {
            self.form.length = vector.len();
        }
        if vector.len() != self.form.length {
            return Err(wrong(format!(
                "a vector of {} numbers, not {}",
                vector.len(),
                self.form.length
            )));
        }
        unit(vector).ok_or_else(|| wrong("a vector without length"))
    }

    /// As [`embed`](Self::embed), of the crop and its mirror image together: a second run, and a vector that depends less
    /// on the light's side and on where the landmarks were found (docs/reference/accuracy.md has what it brings).
    pub fn embed_both_sides(&mut self, crop: &mut [f32]) -> Result<Vec<f32>, EngineError> {
        let mut mirrored = crop.to_vec();
        mirrored.chunks_exact_mut(SIDE).for_each(<[f32]>::reverse);
        let (one, other) = (self.embed(crop)?, self.embed(&mut mirrored)?);
        let sum: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + b).collect();
        // Opposite vectors have no mean.
        Ok(unit(&sum).unwrap_or(one))
    }

    /// Numbers in a vector.
    pub fn embedding_len(&self) -> usize {
        self.form.length
    }
}

fn open(environment: &Environment, file: &Path) -> Result<Session, EngineError> {
    Session::builder(environment)
        .map_err(wrong)?
        .with_intra_threads(1)
        .map_err(wrong)?
        .with_inter_threads(1)
        .map_err(wrong)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(wrong)?
        .commit_from_file(file)
        .map_err(wrong)
}

/// The vector at length 1; `None` for nothing and for numbers that are none.
pub fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    (length.is_finite() && length > 1e-9).then(|| vector.iter().map(|v| v / length).collect())
}
