//! Bodies compressed as Firehose compresses them.

use std::io::{self, Cursor, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use uuid::Uuid;
use wire::firehose::CompressionFormat;
use zip::write::{SimpleFileOptions, ZipWriter};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not.
    None,
    /// One member of GZIP.
    Gzip,
    /// An archive with one file.
    Zip,
    /// The stream of snappy-java, which is what AWS writes: a header, and blocks of Snappy with their lengths.
    Snappy,
    /// Hadoop's framing of blocks of Snappy.
    HadoopSnappy,
    /// One frame of Zstandard, for channels.
    Zstd,
}

/// Fast rather than small; the program `firehose` of `bench` measures with `--levels` what the others cost and save.
const GZIP_LEVEL: u32 = 1;

/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

/// Uncompressed bytes of a block in snappy-java's stream; its default.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// Uncompressed bytes of a block in Hadoop's stream; its default (`io.compression.codec.snappy.buffersize`).
const HADOOP_BLOCK_BYTES: usize = 256 * 1024;

/// How snappy-java's stream begins: its magic bytes, its version, and the lowest version that reads it.
const SNAPPY_JAVA_HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

impl From<CompressionFormat> for Codec {
    fn from(format: CompressionFormat) -> Self {
        match format {
            CompressionFormat::Uncompressed => Codec::None,
            CompressionFormat::Gzip => Codec::Gzip,
            CompressionFormat::Zip => Codec::Zip,
            CompressionFormat::Snappy => Codec::Snappy,
            CompressionFormat::HadoopSnappy => Codec::HadoopSnappy,
        }
    }
}

impl Codec {
    /// What names of objects end with.
    pub fn extension(self) -> &'static str {
        match self {
            Codec::None => "",
            Codec::Gzip => ".gz",
            Codec::Zip => ".zip",
            Codec::Snappy => ".snappy",
            Codec::HadoopSnappy => ".hsnappy",
            Codec::Zstd => ".zst",
        }
    }

    /// Content-Encoding of objects.
    pub fn content_encoding(self) -> Option<&'static str> {
        match self {
            Codec::None => None,
            Codec::Gzip => Some("gzip"),
            Codec::Zip => Some("zip"),
            Codec::Snappy => Some("snappy-java"),
            Codec::HadoopSnappy => Some("hadoop-snappy"),
            Codec::Zstd => Some("zstd"),
        }
    }
}

/// The parts joined and compressed. Takes long for large bodies.
pub fn compress(codec: Codec, parts: &[Bytes]) -> io::Result<Bytes> {
    let total: usize = parts.iter().map(Bytes::len).sum();
    match codec {
        Codec::None => {
            let mut out = BytesMut::with_capacity(total);
            parts.iter().for_each(|part| out.extend_from_slice(part));
            Ok(out.freeze())
        }
        Codec::Gzip => {
            let encoder = GzEncoder::new(Vec::with_capacity(total / 4 + 64), Compression::new(GZIP_LEVEL));
            into(encoder, parts)?.finish().map(Bytes::from)
        }
        Codec::Zip => {
            let mut archive = ZipWriter::new(Cursor::new(Vec::with_capacity(total / 4 + 256)));
            let options = SimpleFileOptions::default()
                .compression_level(Some(i64::from(GZIP_LEVEL)))
                .large_file(total >= u32::MAX as usize);
            archive
                .start_file(Uuid::new_v4().to_string(), options)
                .map_err(io::Error::other)?;
            let archive = into(archive, parts)?.finish().map_err(io::Error::other)?;
            Ok(Bytes::from(archive.into_inner()))
        }
        Codec::Snappy => {
            let mut out = Vec::with_capacity(total / 2 + 64);
            out.extend_from_slice(&SNAPPY_JAVA_HEADER);
            blocks(parts, SNAPPY_BLOCK_BYTES, |_, packed| {
                out.put_u32(packed.len() as u32);
                out.extend_from_slice(packed);
            })?;
            Ok(Bytes::from(out))
        }
        Codec::HadoopSnappy => {
            let mut out = Vec::with_capacity(total / 2 + 64);
            blocks(parts, HADOOP_BLOCK_BYTES, |raw, packed| {
                out.put_u32(raw as u32);
                out.put_u32(packed.len() as u32);
                out.extend_from_slice(packed);
            })?;
            Ok(Bytes::from(out))
        }
        Codec::Zstd => {
            let encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(total / 4 + 64), ZSTD_LEVEL)?;
            into(encoder, parts)?.finish().map(Bytes::from)
        }
    }
}

/// Small writes cost more than they carry, so they are gathered.
fn into<W: Write>(mut writer: W, parts: &[Bytes]) -> io::Result<W> {
    const GATHERED: usize = 64 * 1024;
    let mut gathered = Vec::with_capacity(GATHERED);
    for part in parts {
        if gathered.len() + part.len() > GATHERED {
            writer.write_all(&gathered)?;
            gathered.clear();
        }
        match part.len() > GATHERED {
            true => writer.write_all(part)?,
            false => gathered.extend_from_slice(part),
        }
    }
    writer.write_all(&gathered)?;
    Ok(writer)
}

/// Cuts the joined parts into blocks, packs each, and hands it on with its length before.
fn blocks(parts: &[Bytes], size: usize, mut put: impl FnMut(usize, &[u8])) -> io::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    let mut packed = vec![0; snap::raw::max_compress_len(size)];
    let mut pack = |block: &[u8]| -> io::Result<()> {
        let length = encoder.compress(block, &mut packed).map_err(io::Error::other)?;
        put(block.len(), packed.get(..length).unwrap_or_default());
        Ok(())
    };
    let mut block = Vec::with_capacity(size);
    for part in parts {
        let mut rest = part.as_ref();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(size - block.len()));
            block.extend_from_slice(now);
            rest = later;
            if block.len() == size {
                pack(&block)?;
                block.clear();
            }
        }
    }
    match block.is_empty() {
        true => Ok(()),
        false => pack(&block),
    }
}
