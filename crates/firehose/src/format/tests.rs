use std::io::{Cursor, Read};

use async_trait::async_trait;
use base::Timestamp;
use serde_json::{Value, json};
use storage::SequenceNumber;
use wire::firehose::{InputFormatConfiguration, OpenXJsonSerDe, OrcSerDe, OutputFormatConfiguration, ParquetSerDe};

use super::*;
use crate::ports::{Converted, Schemas};

fn about() -> About {
    About {
        account: "000000000000".parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
        name: "door".to_owned(),
        arn: "arn:aws:firehose:us-west-2:000000000000:deliverystream/door".to_owned(),
        source_arn: None,
    }
}

fn ready(data: &str) -> Ready {
    Ready {
        data: Bytes::from(data.to_owned()),
        arrival: Timestamp::from_millis(7),
        sequence: Some((SequenceNumber::new(Timestamp::from_millis(0), 0, 0), 3)),
        ..Ready::default()
    }
}

/// Parts of all sizes: empty ones, ones that end in the middle of blocks, and ones larger than a block.
fn parts() -> (Vec<Bytes>, Vec<u8>) {
    let parts: Vec<Bytes> = [0, 1, 1000, 40_000, 300_000, 0, 7, 70_000]
        .iter()
        .map(|size| {
            (0..*size)
                .map(|n: usize| (n * n / 7 % 251) as u8)
                .collect::<Vec<u8>>()
                .into()
        })
        .collect();
    let whole = parts.concat();
    (parts, whole)
}

#[test]
fn what_is_compressed_comes_out_as_it_went_in() {
    let (parts, whole) = parts();
    assert_eq!(compress(Codec::None, &parts).unwrap(), whole);
    let packed = compress(Codec::Gzip, &parts).unwrap();
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).unwrap();
    assert_eq!(out, whole);
    let packed = compress(Codec::Zip, &parts).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(&packed)).unwrap();
    assert_eq!(archive.len(), 1);
    out.clear();
    archive.by_index(0).unwrap().read_to_end(&mut out).unwrap();
    assert_eq!(out, whole);
    assert_eq!(
        zstd::decode_all(&compress(Codec::Zstd, &parts).unwrap()[..]).unwrap(),
        whole
    );
}

/// Reads lengths and blocks as the documentation of the two streams has them.
fn unpacked(mut rest: &[u8], hadoop: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |rest: &mut &[u8]| {
        let (word, after) = rest.split_first_chunk::<4>().unwrap();
        *rest = after;
        u32::from_be_bytes(*word) as usize
    };
    while !rest.is_empty() {
        let raw = hadoop.then(|| word(&mut rest));
        let length = word(&mut rest);
        let (block, after) = rest.split_at(length);
        rest = after;
        let block = snap::raw::Decoder::new().decompress_vec(block).unwrap();
        assert!(raw.is_none_or(|raw| raw == block.len()));
        out.extend(block);
    }
    out
}

#[test]
fn both_streams_of_snappy_are_as_their_readers_expect_them() {
    let (parts, whole) = parts();
    let packed = compress(Codec::Snappy, &parts).unwrap();
    assert_eq!(&packed[..8], b"\x82SNAPPY\x00");
    assert_eq!(unpacked(&packed[16..], false), whole);
    assert_eq!(unpacked(&compress(Codec::HadoopSnappy, &parts).unwrap(), true), whole);
}

#[tokio::test]
async fn records_are_joined_as_they_are_and_named_after_their_compression() {
    for (compression, extension, encoding) in [
        (CompressionFormat::Uncompressed, "", None),
        (CompressionFormat::Gzip, ".gz", Some("gzip")),
        (CompressionFormat::Zip, ".zip", Some("zip")),
        (CompressionFormat::Snappy, ".snappy", Some("snappy-java")),
        (CompressionFormat::HadoopSnappy, ".hsnappy", Some("hadoop-snappy")),
    ] {
        let format = Format::new(compression, None, &about(), &Ports::default()).unwrap();
        assert!(!format.converts());
        assert_eq!(format.extension(), extension);
        let encoded = format.encode(vec![ready("a"), ready(""), ready("b\n")]).await.unwrap();
        assert_eq!(encoded.content_encoding, encoding);
        if compression == CompressionFormat::Uncompressed {
            assert_eq!(encoded.body.concat(), b"ab\n");
        }
        let large = "x".repeat(100_000);
        assert!(!format.encode(vec![ready(&large)]).await.unwrap().body.is_empty());
        assert!(format.encode(vec![]).await.unwrap().body.is_empty());
    }
}

#[test]
fn lines_of_the_error_output_have_awss_shape() {
    let failed = Failed {
        raw: Bytes::from_static(b"raw\n"),
        arrival: Timestamp::from_millis(1_642_118_621_432),
        code: "Lambda.FunctionError".to_owned(),
        message: "it said \"no\"".to_owned(),
        attempts: 4,
        kind: ErrorOutputType::Processing,
        sequence: Some(SequenceNumber::new(Timestamp::from_millis(0), 0, 0)),
        more: vec![("lambdaARN", "\"arn:aws:lambda\"".to_owned())],
    };
    let conversion = Failed {
        kind: ErrorOutputType::FormatConversion,
        more: vec![
            ("subSequenceNumber", "0".to_owned()),
            ("dataCatalogTable", "{\"tableName\":\"t\"}".to_owned()),
        ],
        ..failed.clone()
    };
    let lines = error_lines(&[failed.clone(), conversion], Timestamp::from_millis(1_642_118_631_572));
    let lines: Vec<Value> = lines
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let wanted = json!({ "attemptsMade": 4, "arrivalTimestamp": 1_642_118_621_432_i64, "errorCode": "Lambda.FunctionError",
        "errorMessage": "it said \"no\"", "attemptEndingTimestamp": 1_642_118_631_572_i64, "rawData": "cmF3Cg==",
        "lambdaARN": "arn:aws:lambda" });
    assert_eq!(lines[0], wanted);
    let wanted = json!({ "attemptsMade": 4, "arrivalTimestamp": 1_642_118_621_432_i64, "lastErrorCode": "Lambda.FunctionError",
        "lastErrorMessage": "it said \"no\"", "attemptEndingTimestamp": 1_642_118_631_572_i64, "rawData": "cmF3Cg==",
        "sequenceNumber": failed.sequence.unwrap().to_string(), "subSequenceNumber": 0, "dataCatalogTable": { "tableName": "t" } });
    assert_eq!(lines[1], wanted);
}

/// Takes what has an even length.
struct Even;

#[async_trait]
impl Converter for Even {
    fn check(&self, _: &TableSchema, _: &Deserializer, _: &Serializer) -> Result<(), ConvertError> {
        Ok(())
    }

    async fn convert(&self, wanted: Conversion) -> Result<Converted, ConvertError> {
        let odd = |(place, record): (usize, &Bytes)| {
            (record.len() % 2 == 1).then(|| (place, "DataFormatConversion.MalformedData".to_owned(), "odd".to_owned()))
        };
        Ok(Converted {
            failed: wanted.records.iter().enumerate().filter_map(odd).collect(),
            body: Bytes::from_static(b"file"),
        })
    }
}

struct OneTable;

impl Schemas for OneTable {
    fn schema(&self, table: &TableName) -> Option<Arc<TableSchema>> {
        let columns = vec![("a".to_owned(), "int".to_owned())];
        (table.table == "events").then(|| Arc::new(TableSchema { columns }))
    }
}

fn conversion(table: &str, output: Serializer) -> DataFormatConversionConfiguration {
    DataFormatConversionConfiguration {
        enabled: None,
        schema_configuration: Some(SchemaConfiguration {
            database_name: Some("door".to_owned()),
            table_name: Some(table.to_owned()),
            ..SchemaConfiguration::default()
        }),
        input_format_configuration: Some(InputFormatConfiguration {
            deserializer: Some(Deserializer {
                open_x_json_ser_de: Some(OpenXJsonSerDe::default()),
                hive_json_ser_de: None,
            }),
        }),
        output_format_configuration: Some(OutputFormatConfiguration {
            serializer: Some(output),
        }),
    }
}

#[tokio::test]
async fn conversion_names_the_table_in_the_errors_of_its_records() {
    let ports = Ports {
        converter: Arc::new(Even),
        schemas: Arc::new(OneTable),
        ..Ports::default()
    };
    let parquet = Serializer {
        parquet_ser_de: Some(ParquetSerDe::default()),
        orc_ser_de: None,
    };
    let orc = Serializer {
        parquet_ser_de: None,
        orc_ser_de: Some(OrcSerDe::default()),
    };
    let new = |compression, conversion: &DataFormatConversionConfiguration, ports: &Ports| {
        Format::new(compression, Some(conversion), &about(), ports).map_err(|refused| refused.0)
    };
    let format = new(CompressionFormat::Uncompressed, &conversion("events", orc), &ports).unwrap();
    assert_eq!((format.extension(), format.converts()), (".orc", true));
    let wanted = conversion("events", parquet.clone());
    let format = new(CompressionFormat::Uncompressed, &wanted, &ports).unwrap();
    assert_eq!(format.extension(), ".parquet");
    let encoded = format
        .encode(vec![ready("{}"), ready("odd"), ready("even")])
        .await
        .unwrap();
    assert_eq!(encoded.body.concat(), b"file");
    let line: Value = serde_json::from_slice(&error_lines(&encoded.failed, Timestamp::from_millis(9))).unwrap();
    assert_eq!(
        (&line["lastErrorCode"], &line["subSequenceNumber"]),
        (&json!("DataFormatConversion.MalformedData"), &json!(3))
    );
    let table = &line["dataCatalogTable"];
    assert_eq!(
        (&table["databaseName"], &table["tableName"], &table["region"]),
        (&json!("door"), &json!("events"), &json!("us-west-2"))
    );
    assert_eq!(encoded.failed[0].raw, "odd");

    assert!(
        new(CompressionFormat::Gzip, &wanted, &ports)
            .unwrap_err()
            .contains("UNCOMPRESSED")
    );
    assert!(
        new(
            CompressionFormat::Uncompressed,
            &conversion("other", parquet.clone()),
            &ports
        )
        .unwrap_err()
        .contains("[schemas.\"door.other\"]")
    );
    let without = Ports {
        schemas: Arc::new(OneTable),
        ..Ports::default()
    };
    assert!(
        new(CompressionFormat::Uncompressed, &wanted, &without)
            .unwrap_err()
            .contains("sql-worker")
    );
    let off = DataFormatConversionConfiguration {
        enabled: Some(false),
        ..conversion("other", parquet)
    };
    assert!(
        !new(CompressionFormat::Gzip, &off, &Ports::default())
            .unwrap()
            .converts()
    );
}
