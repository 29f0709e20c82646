//! Ids that follow from what they name. AWS gives identical images the same `FaceId`s in every collection of one model
//! version; a version-5 UUID over account, model version, image bytes and face box does that without keeping the image.

use std::fmt;

use base::AccountId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::Rect;

/// Names a face within a collection; rendered as a lower-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaceId(pub Uuid);

/// Names the image that a face was found in; rendered as a lower-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub Uuid);

/// SHA-256 of an image's bytes as they were sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ImageDigest([u8; 32]);

/// The root of both kinds of id: a version-5 UUID in the URL namespace.
const ROOT: Uuid = Uuid::from_u128(0x6a6f_7c5e_37a1_5d0c_8f5e_2b1d_9c40_7e11);

impl ImageDigest {
    /// The digest of the image's bytes.
    pub fn of(image: &[u8]) -> Self {
        ImageDigest(Sha256::digest(image).into())
    }
}

impl ImageId {
    /// The id of an image sent by `account`.
    pub fn derive(account: AccountId, image: &ImageDigest) -> Self {
        let mut name = format!("image\n{account}\n").into_bytes();
        name.extend_from_slice(&image.0);
        ImageId(Uuid::new_v5(&ROOT, &name))
    }
}

impl FaceId {
    /// No id is greater.
    pub(crate) const LAST: FaceId = FaceId(Uuid::from_u128(u128::MAX));

    /// The id of a face of `account` that is in no image; `sighting` names it among all of the account's.
    pub fn of_sighting(account: AccountId, sighting: &str) -> Self {
        FaceId(Uuid::new_v5(
            &ROOT,
            format!("sighting\n{account}\n{sighting}").as_bytes(),
        ))
    }

    /// The id of the face at `rect` in an image. The box is rounded to thousandths of the image, so that arithmetic
    /// noise of a decoder does not change it.
    ///
    /// One image may be in a collection under several `ExternalImageId`s; `discriminator` tells those entries apart.
    pub(crate) fn derive(
        account: AccountId,
        model: &str,
        image: &ImageDigest,
        rect: &Rect,
        discriminator: Option<&str>,
    ) -> Self {
        let mut name = format!("face\n{account}\n{model}\n").into_bytes();
        name.extend_from_slice(&image.0);
        for side in [rect.left, rect.top, rect.width, rect.height] {
            let thousandths = (side * 1000.0).round() as i32;
            name.extend_from_slice(&thousandths.to_be_bytes());
        }
        if let Some(text) = discriminator {
            name.extend_from_slice(text.as_bytes());
        }
        FaceId(Uuid::new_v5(&ROOT, &name))
    }

    /// Reads the form that AWS uses, 8-4-4-4-12 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        Uuid::try_parse(text).ok().map(FaceId)
    }
}

impl fmt::Display for FaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for FaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_account_model_image_and_box_alone() {
        let image = ImageDigest::of(b"jpeg");
        let rect = Rect {
            left: 0.1,
            top: 0.2,
            width: 0.3,
            height: 0.4,
        };
        let base = FaceId::derive(AccountId::DEFAULT, "m1", &image, &rect, None);
        let noisy = Rect {
            left: 0.100_000_1,
            ..rect
        };
        assert_eq!(base, FaceId::derive(AccountId::DEFAULT, "m1", &image, &noisy, None));
        let moved = Rect { left: 0.2, ..rect };
        let other: AccountId = "111111111111".parse().unwrap();
        for different in [
            FaceId::derive(other, "m1", &image, &rect, None),
            FaceId::derive(AccountId::DEFAULT, "m2", &image, &rect, None),
            FaceId::derive(AccountId::DEFAULT, "m1", &ImageDigest::of(b"png"), &rect, None),
            FaceId::derive(AccountId::DEFAULT, "m1", &image, &moved, None),
            FaceId::derive(AccountId::DEFAULT, "m1", &image, &rect, Some("bob")),
        ] {
            assert_ne!(base, different);
        }
        assert_eq!(FaceId::parse(&base.to_string()), Some(base));
        assert_eq!(FaceId::parse("6a6f7c5e37a15d0c8f5e2b1d9c407e11"), None);
    }
}
