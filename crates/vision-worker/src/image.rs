//! Still images: what a file is and how large, before a decoder sees it; then its pixels, upright.

use std::borrow::Cow;

use vision::ImageError;
use vision::limits::{MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_JPEG_SCANS, MIN_IMAGE_SIDE};

use crate::codec::{Decoder, Format, Planar, Scaler};

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// JPEG or PNG.
    pub format: Format,
    /// Pixels, before rotation.
    pub width: u32,
    /// Pixels, before rotation.
    pub height: u32,
    /// EXIF orientation, 1 to 8; 1 where the file does not say.
    pub orientation: u8,
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The chunks of a PNG that its pixels are made of.
const PNG_PIXELS: [&[u8]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"];

/// Beginnings of other image formats: GIF, TIFF, BMP, WebP, HEIF and AVIF, JPEG XL, JPEG 2000.
const OTHERS: [(usize, &[u8]); 9] = [
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"BM"),
    (8, b"WEBP"),
    (4, b"ftyp"),
    (0, b"\xff\x0a"),
    (4, b"JXL "),
    (4, b"jP  "),
];

/// Reads the head of a file.
pub fn header(file: &[u8]) -> Result<Header, ImageError> {
    if file.len() > MAX_IMAGE_BYTES {
        return Err(ImageError::TooLarge { width: 0, height: 0 });
    }
    if file.starts_with(PNG_SIGNATURE) {
        return png_header(file).ok_or(ImageError::NotAnImage);
    }
    if file.starts_with(b"\xff\xd8\xff") {
        return jpeg_header(file).ok_or(ImageError::NotAnImage);
    }
    let known = |(at, magic): &(usize, &[u8])| file.get(*at..).is_some_and(|f| f.starts_with(magic));
    Err(if OTHERS.iter().any(known) {
        ImageError::UnsupportedFormat
    } else {
        ImageError::NotAnImage
    })
}

fn be16(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b)))
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// PNG specification, 5.2 and 11.2.2: the header chunk comes first. eXIf is looked for up to the picture's data.
fn png_header(file: &[u8]) -> Option<Header> {
    let ihdr = file.get(8..)?;
    if ihdr.get(4..8)? != b"IHDR" {
        return None;
    }
    let (width, height) = (be32(ihdr.get(8..)?)?, be32(ihdr.get(12..)?)?);
    let mut orientation = 1;
    let mut at = 8usize;
    while let Some(chunk) = file.get(at..) {
        let (Some(length), Some(kind)) = (be32(chunk), chunk.get(4..8)) else {
            break;
        };
        let length = length as usize;
        match kind {
            b"IDAT" | b"IEND" => break,
            b"eXIf" => {
                orientation = chunk
                    .get(8..8usize.saturating_add(length))
                    .and_then(exif_orientation)
                    .unwrap_or(1);
            }
            _ => {}
        }
        at = at.saturating_add(length).saturating_add(12);
    }
    Some(Header {
        format: Format::Png,
        width,
        height,
        orientation,
    })
}

/// ITU-T T.81, annex B: segments up to the frame header, which holds the size.
fn jpeg_header(file: &[u8]) -> Option<Header> {
    let mut orientation = 1;
    let mut at = 2usize;
    loop {
        let segment = file.get(at..)?;
        let [0xff, marker, ..] = *segment else { return None };
        if marker == 0xff {
            at += 1;
            continue;
        }
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            at += 2;
            continue;
        }
        let length = be16(segment.get(2..)?)? as usize;
        let body = segment.get(4..2usize.saturating_add(length))?;
        match marker {
            // Every frame header but DHT (c4), JPG (c8) and DAC (cc).
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some(Header {
                    format: Format::Jpeg,
                    width: be16(body.get(3..)?)?,
                    height: be16(body.get(1..)?)?,
                    orientation,
                });
            }
            0xe1 => {
                if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
                    orientation = exif_orientation(exif).unwrap_or(1);
                }
            }
            0xd9 | 0xda => return None,
            _ => {}
        }
        at = at.saturating_add(2).saturating_add(length);
    }
}

/// EXIF 2.32: tag 0x0112 of the first directory of a TIFF structure.
fn exif_orientation(tiff: &[u8]) -> Option<u8> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk::<2>()?;
        Some(if little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let offset = *tiff.get(4..)?.first_chunk::<4>()?;
    let directory = if little {
        u32::from_le_bytes(offset)
    } else {
        u32::from_be_bytes(offset)
    } as usize;
    let entries = usize::from(u16_at(directory)?);
    for entry in 0..entries {
        let at = directory.checked_add(2 + entry * 12)?;
        if u16_at(at)? == 0x0112 {
            return u8::try_from(u16_at(at.checked_add(8)?)?)
                .ok()
                .filter(|o| (1..=8).contains(o));
        }
    }
    None
}

/// What the decoder gets to see of a file; `None` where it would work on it for hours.
fn pixels_alone(file: &[u8], format: Format) -> Option<Cow<'_, [u8]>> {
    if format == Format::Png {
        return Some(Cow::Owned(png_pixels(file)));
    }
    // Within a scan's own data such a pair cannot occur; in a thumbnail it may, twice or thrice.
    let scans = file.windows(2).filter(|pair| *pair == [0xff, 0xda]).count();
    (scans <= MAX_JPEG_SCANS).then_some(Cow::Borrowed(file))
}

/// A PNG without the chunks that are not needed for its pixels. Texts and profiles among them may be packed a thousand
/// times smaller than they are, and the decoder would unpack them, whatever they hold.
fn png_pixels(file: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(file.len());
    kept.extend_from_slice(PNG_SIGNATURE);
    let mut at = PNG_SIGNATURE.len();
    while let Some(chunk) = file.get(at..)
        && let (Some(length), Some(kind)) = (be32(chunk), chunk.get(4..8))
    {
        let end = at.saturating_add(length as usize).saturating_add(12).min(file.len());
        if PNG_PIXELS.contains(&kind) {
            kept.extend_from_slice(file.get(at..end).unwrap_or_default());
        }
        at = end;
    }
    kept
}

/// The pixels of a file, upright.
pub fn decode(file: &[u8], max_pixels: u32, scaler: &mut Scaler) -> Result<Planar, ImageError> {
    let header = header(file)?;
    let (width, height) = (header.width, header.height);
    if width > MAX_IMAGE_SIDE || height > MAX_IMAGE_SIDE || u64::from(width) * u64::from(height) > u64::from(max_pixels)
    {
        return Err(ImageError::TooLarge { width, height });
    }
    if width < MIN_IMAGE_SIDE || height < MIN_IMAGE_SIDE {
        return Err(ImageError::TooSmall { width, height });
    }
    let unreadable = |_| ImageError::NotAnImage;
    let mut decoder = Decoder::open(header.format, &[], max_pixels).map_err(unreadable)?;
    let seen = pixels_alone(file, header.format).ok_or(ImageError::NotAnImage)?;
    decoder.send(&seen, 0, true).map_err(unreadable)?;
    decoder.finish();
    let picture = decoder.receive().map_err(unreadable)?.ok_or(ImageError::NotAnImage)?;
    if (picture.width(), picture.height()) != (width, height) {
        return Err(ImageError::NotAnImage);
    }
    let planar = picture.to_planar(scaler).map_err(unreadable)?;
    Ok(planar.oriented(header.orientation))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A JPEG's segments up to its frame header, with or without EXIF.
    fn jpeg_head(width: u16, height: u16, exif: Option<&[u8]>) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        if let Some(exif) = exif {
            file.extend([0xff, 0xe1]);
            file.extend(((exif.len() + 8) as u16).to_be_bytes());
            file.extend(b"Exif\0\0");
            file.extend(exif);
        }
        file.extend([0xff, 0xff, 0xc0, 0, 11, 8]);
        file.extend(height.to_be_bytes());
        file.extend(width.to_be_bytes());
        file.extend([1, 1, 0x11, 0]);
        file
    }

    fn exif(orientation: u16, little: bool) -> Vec<u8> {
        let mut tiff = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        let put16 = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let put32 = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        tiff.extend(put32(8));
        tiff.extend(put16(2));
        for (tag, value) in [(0x010fu16, 0u16), (0x0112, orientation)] {
            tiff.extend(put16(tag));
            tiff.extend(put16(3));
            tiff.extend(put32(1));
            tiff.extend(put16(value));
            tiff.extend(put16(0));
        }
        tiff
    }

    #[test]
    fn the_head_of_a_jpeg_tells_size_and_orientation() {
        for little in [true, false] {
            let head = header(&jpeg_head(4032, 3024, Some(&exif(6, little)))).unwrap();
            let wanted = Header {
                format: Format::Jpeg,
                width: 4032,
                height: 3024,
                orientation: 6,
            };
            assert_eq!(head, wanted);
        }
        assert_eq!(
            header(&jpeg_head(100, 100, Some(&exif(99, true)))).unwrap().orientation,
            1
        );
        assert_eq!(header(&jpeg_head(100, 100, None)).unwrap().orientation, 1);
    }

    #[test]
    fn too_large_and_too_small_images_are_refused_by_their_heads() {
        let mut scaler = Scaler::new();
        let mut refused = |w, h| decode(&jpeg_head(w, h, None), 40_000_000, &mut scaler).err().unwrap();
        assert!(matches!(
            refused(10_000, 200),
            ImageError::TooLarge {
                width: 10_000,
                height: 200
            }
        ));
        assert!(matches!(refused(9_000, 9_000), ImageError::TooLarge { .. }));
        assert!(matches!(refused(79, 4_000), ImageError::TooSmall { width: 79, .. }));
        assert!(matches!(refused(1, 1), ImageError::TooSmall { .. }));
        assert_eq!(refused(200, 200), ImageError::NotAnImage);
    }

    #[test]
    fn the_decoder_sees_no_chunk_of_a_png_but_those_of_its_pixels() {
        let chunk = |kind: &[u8; 4], body: &[u8]| {
            let mut chunk = (body.len() as u32).to_be_bytes().to_vec();
            chunk.extend(kind);
            chunk.extend(body);
            chunk.extend(b"CRC.");
            chunk
        };
        let (head, data, end) = (chunk(b"IHDR", &[7; 13]), chunk(b"IDAT", b"pixels"), chunk(b"IEND", b""));
        let plain = [PNG_SIGNATURE, &head, &data, &end].concat();
        let (text, profile) = (chunk(b"zTXt", &[1; 300]), chunk(b"iCCP", &[2; 300]));
        let whole = [PNG_SIGNATURE, &head, &profile, &text, &data, &text, &end].concat();
        assert_eq!(png_pixels(&whole), plain);
        assert_eq!(png_pixels(&plain), plain);
        for cut in 0..whole.len() {
            let kept = png_pixels(&whole[..cut]);
            assert!(plain.starts_with(&kept), "{cut}");
        }
        let mut lying = plain.clone();
        lying[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(png_pixels(&lying), lying);
    }

    #[test]
    fn a_jpeg_of_thousands_of_scans_is_refused_unread() {
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0, 0, 0];
        let file = [jpeg_head(9_000, 4_000, None), scan.repeat(MAX_JPEG_SCANS + 1)].concat();
        assert_eq!(pixels_alone(&file, Format::Jpeg), None);
        let fewer = &file[..file.len() - scan.len()];
        assert_eq!(pixels_alone(fewer, Format::Jpeg).as_deref(), Some(fewer));
    }

    #[test]
    fn other_formats_are_told_from_noise() {
        for other in [
            &b"GIF89a\x01\0"[..],
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"\0\0\0\x20ftypheic",
            b"BM\0\0\0\0",
        ] {
            assert_eq!(header(other), Err(ImageError::UnsupportedFormat));
        }
        for noise in [
            &b""[..],
            b"hello",
            b"\xff\xd8",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe1\xff\xff",
        ] {
            assert_eq!(header(noise), Err(ImageError::NotAnImage));
        }
    }

    #[test]
    fn heads_cut_and_flipped_anywhere_never_panic() {
        let whole = jpeg_head(200, 200, Some(&exif(3, true)));
        let mut rng = fastrand::Rng::with_seed(3);
        for cut in 0..whole.len() {
            let _ = header(&whole[..cut]);
            for _ in 0..20 {
                let mut flipped = whole.clone();
                flipped[cut] ^= 1 << rng.u8(..8);
                let _ = header(&flipped);
            }
        }
        let mut png = PNG_SIGNATURE.to_vec();
        png.extend(b"\0\0\0\x0dIHDR\0\0\0\xff\0\0\0\xff\x08\x02\0\0\0....\xff\xff\xff\xffeXIfII*\0");
        assert_eq!(header(&png).unwrap().width, 255);
    }
}
