//! Copies within the data directory: the bytes are read, checked and written anew.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::LocalBucket;
use super::object::{Expected, NewObject};
use crate::ObjectError;
use crate::limits::PUT_BYTES_MAX;
use crate::row::Object;

impl LocalBucket {
    /// Copies an object to `key` of this bucket. `choose` is told what the source is, and gives up with an error of its own
    /// or says what the copy is to be.
    pub async fn copy<E: From<ObjectError>>(
        self: &Arc<Self>,
        key: &str,
        from: &LocalBucket,
        from_key: &str,
        choose: impl Fn(&Object) -> Result<NewObject, E>,
    ) -> Result<(Object, Object), E> {
        let (source, mut bytes) = from
            .read(from_key, |source| {
                choose(source)?;
                if source.size > PUT_BYTES_MAX {
                    return Err(too_large().into());
                }
                Ok::<_, E>((0, source.size))
            })
            .await?;
        let mut writer = self.write(key, choose(&source)?, PUT_BYTES_MAX)?;
        while let Some(piece) = bytes.try_next().await? {
            writer.write(piece).await?;
        }
        let expected = Expected {
            bytes: Some(source.size),
            ..Expected::default()
        };
        let copy = writer.finish(&expected).await?;
        Ok((source, copy))
    }
}

pub(super) fn too_large() -> ObjectError {
    ObjectError::TooLarge {
        what: "the source of the copy",
        limit: PUT_BYTES_MAX,
    }
}
