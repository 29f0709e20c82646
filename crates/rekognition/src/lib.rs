//! Rekognition: collections, images and stream processors.
