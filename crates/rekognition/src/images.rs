//! Images of requests, and DetectFaces.

use base::{ApiError, Handle, Reply, Request, RequestContext};
use bytes::Bytes;
use vision::{ImageAnalysis, ImageOptions};
use wire::rekognition::{self as w, op};

use crate::attributes::Wanted;
use crate::ports::ObjectFailure;
use crate::service::Rekognition;
use crate::{error, limits};

fn too_large(bytes: u64, allowed: usize) -> ApiError {
    let message = format!("the image has {bytes} bytes; {allowed} are allowed");
    ApiError::client("ImageTooLargeException", message)
}

/// AWS does not tell a bucket that is not there from one that the caller may not read.
fn no_object() -> ApiError {
    ApiError::client(
        "InvalidS3ObjectException",
        "Unable to get object metadata from S3. Check object key, region and/or access permissions.",
    )
}

impl Rekognition {
    /// The bytes of a request's image, sent with it or in a bucket of the caller's account that the caller may read.
    pub(crate) async fn bytes_of(&self, context: &RequestContext, image: w::Image) -> Result<Bytes, ApiError> {
        match (image.bytes, image.s3_object) {
            (Some(_), Some(_)) => Err(error::invalid_parameter("Image has both Bytes and S3Object; send one")),
            (Some(bytes), None) if bytes.len() > limits::IMAGE_BYTES_MAX => {
                Err(too_large(bytes.len() as u64, limits::IMAGE_BYTES_MAX))
            }
            (Some(bytes), None) => Ok(bytes),
            (None, Some(object)) => self.object(context, object).await,
            (None, None) => Err(error::invalid_parameter("Image has neither Bytes nor S3Object")),
        }
    }

    async fn object(&self, context: &RequestContext, object: w::S3Object) -> Result<Bytes, ApiError> {
        let (Some(bucket), Some(key)) = (object.bucket, object.name) else {
            return Err(error::invalid_parameter("S3Object needs Bucket and Name"));
        };
        if object.version.is_some() {
            let message = "objects of this server have no versions; leave S3Object.Version out";
            return Err(ApiError::client("InvalidS3ObjectException", message));
        }
        let caller = &context.caller;
        let arn = format!("arn:aws:s3:::{bucket}/{key}");
        if !caller.authorizer.allows("s3:GetObject", &arn) {
            return Err(no_object());
        }
        let read = self
            .objects
            .read(caller.account, &bucket, &key, limits::OBJECT_BYTES_MAX);
        read.await.map_err(|failure| match failure {
            ObjectFailure::Absent => no_object(),
            ObjectFailure::TooLarge(bytes) => too_large(bytes, limits::OBJECT_BYTES_MAX),
            ObjectFailure::Failed(detail) => error::internal(detail),
        })
    }

    /// The faces of an image, largest first.
    pub(crate) async fn analyze(
        &self,
        context: &RequestContext,
        image: Bytes,
        embed: bool,
        wanted: Wanted,
    ) -> Result<ImageAnalysis, ApiError> {
        let options = ImageOptions {
            embed,
            attributes: wanted.beyond_default(),
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
        let wanted = Wanted::of(request.input.attributes.as_deref(), self.vision.abilities())?;
        let image = self.bytes_of(&request.context, request.input.image).await?;
        let analysis = self.analyze(&request.context, image, false, wanted).await?;
        let answer = w::DetectFacesResponse {
            face_details: Some(analysis.faces.iter().map(|face| wanted.detail(face)).collect()),
            orientation_correction: None,
        };
        Ok(answer.into())
    }
}
