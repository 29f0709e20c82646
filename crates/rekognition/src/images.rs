//! Images of requests, and DetectFaces.

use base::{ApiError, Handle, Reply, Request, RequestContext};
use bytes::Bytes;
use vision::{ImageAnalysis, ImageOptions};
use wire::rekognition::{self as w, Attribute, op};

use crate::service::Rekognition;
use crate::{error, limits, shapes};

/// The bytes of a request's image.
pub(crate) fn bytes_of(image: w::Image) -> Result<Bytes, ApiError> {
    match (image.bytes, image.s3_object) {
        (Some(_), Some(_)) => Err(error::invalid_parameter("Image has both Bytes and S3Object; send one")),
        (Some(bytes), None) if bytes.len() > limits::IMAGE_BYTES_MAX => Err(ApiError::client(
            "ImageTooLargeException",
            format!(
                "the image has {} bytes; {} are allowed",
                bytes.len(),
                limits::IMAGE_BYTES_MAX
            ),
        )),
        (Some(bytes), None) => Ok(bytes),
        (None, Some(_)) => Err(ApiError::client(
            "InvalidS3ObjectException",
            "this server cannot read images from S3 yet; send the image's bytes in Image.Bytes",
        )),
        (None, None) => Err(error::invalid_parameter("Image has neither Bytes nor S3Object")),
    }
}

/// Refuses to be asked for an attribute that no model here can tell. ALL is taken as "all there are": every member of
/// the answer is optional.
pub(crate) fn check_attributes(attributes: Option<&[Attribute]>) -> Result<(), ApiError> {
    let known = |attribute: &Attribute| matches!(attribute, Attribute::Default | Attribute::All);
    match attributes
        .unwrap_or_default()
        .iter()
        .find(|attribute| !known(attribute))
    {
        Some(unknown) => Err(error::invalid_parameter(format!(
            "the attribute {unknown} is not available in this version; DEFAULT is"
        ))),
        None => Ok(()),
    }
}

impl Rekognition {
    /// The faces of an image, largest first.
    pub(crate) async fn analyze(
        &self,
        context: &RequestContext,
        image: Bytes,
        embed: bool,
    ) -> Result<ImageAnalysis, ApiError> {
        let options = ImageOptions {
            embed,
            ..ImageOptions::default()
        };
        let analysed = self.vision.analyze_image(context.caller.account, image, options).await;
        let mut analysis = analysed.map_err(error::from_image)?;
        analysis
            .faces
            .sort_by(|a, b| crate::quality::area(b).total_cmp(&crate::quality::area(a)));
        analysis.faces.truncate(limits::FACES_PER_IMAGE_MAX);
        Ok(analysis)
    }
}

impl Handle<op::DetectFaces> for Rekognition {
    async fn handle(&self, request: Request<w::DetectFacesRequest>) -> Result<Reply<w::DetectFacesResponse>, ApiError> {
        check_attributes(request.input.attributes.as_deref())?;
        let image = bytes_of(request.input.image)?;
        let analysis = self.analyze(&request.context, image, false).await?;
        let answer = w::DetectFacesResponse {
            face_details: Some(analysis.faces.iter().map(shapes::face_detail).collect()),
            orientation_correction: None,
        };
        Ok(answer.into())
    }
}
