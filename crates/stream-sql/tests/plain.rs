//! Rows that are computed one by one: what is read, what is written, what is left out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail")]

mod common;

use common::{DOORS, Run, at};

#[test]
fn columns_are_computed_and_rows_left_out() {
    let mut run = Run::new(&format!(
        "{DOORS} SELECT UPPER(door) AS d, n + 1, ts FROM doors WHERE n > 1"
    ));
    run.push("doors", &[&at(1, "north", "ann", 1), &at(2, "south", "bob", 2)]);
    assert_eq!(run.rows(), ["SOUTH|3|2026-01-02 03:00:02"]);
    let sink = &run.job.program().sinks()[0];
    let names: Vec<(&str, &str)> = sink
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.sql_type.as_str()))
        .collect();
    assert_eq!(names, [("d", "STRING"), ("EXPR$1", "INT"), ("ts", "TIMESTAMP(3)")]);
}

#[test]
fn a_source_is_read_once_for_several_statements_and_views() {
    let mut run = Run::new(&format!(
        "{DOORS} CREATE TABLE a (door STRING) WITH ('connector' = 'kinesis'); CREATE TABLE b (n BIGINT) WITH ('connector' = 'kinesis');
         CREATE VIEW v (gate, number) AS SELECT door, n FROM doors;
         EXECUTE STATEMENT SET BEGIN
           INSERT INTO a SELECT gate FROM v;
           INSERT INTO b SELECT number FROM v UNION ALL SELECT n * 10 FROM doors;
         END;"
    ));
    assert_eq!(run.job.program().sources().len(), 1);
    run.push("doors", &[&at(1, "north", "ann", 1)]);
    assert_eq!(common::sorted(run.rows()), ["1", "10", "north"]);
}

#[test]
fn nested_values_are_read_at_their_paths() {
    let mut run = Run::new(
        "CREATE TABLE faces (
           who ROW<name STRING, tags ARRAY<STRING>>,
           more MAP<STRING, INT>,
           raw STRING,
           price DECIMAL(10, 2),
           arrived TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
           `partition-key` STRING METADATA VIRTUAL,
           arrived_hour AS HOUR(arrived),
           up AS UPPER(who.name)
         ) WITH ('connector' = 'kinesis');
         SELECT up, who.tags[2], more['b'], raw, price * 2, arrived, `partition-key`, arrived_hour FROM faces",
    );
    run.push("faces", &[r#"{"who":{"x":[{}],"name":"ann","tags":["p","q"]},"more":{"a":1,"b":2},"raw":{"z":[1, 2],"a":null},"price":1.005}"#]);
    assert_eq!(
        run.rows(),
        [r#"ANN|q|2|{"z":[1,2],"a":null}|2.02|2026-01-02 03:04:05.678Z|key|3"#]
    );
    run.push("faces", &["{}"]);
    assert_eq!(run.rows(), ["null|null|null|null|null|2026-01-02 03:04:05.678Z|key|3"]);
}

#[test]
fn lists_become_rows() {
    let mut run = Run::new(
        "CREATE TABLE faces (id INT, found ARRAY<ROW<score DOUBLE, matched ARRAY<ROW<name STRING>>>>) WITH ('connector' = 'kinesis');
         SELECT f.id, d.score, m.name FROM faces AS f CROSS JOIN UNNEST(f.found) AS d (score, matched) LEFT JOIN UNNEST(d.matched) AS m (name) ON TRUE",
    );
    run.push(
        "faces",
        &[
            r#"{"id":1,"found":[{"score":0.5,"matched":[{"name":"ann"},{"name":"bob"}]},{"score":0.25,"matched":[]}]}"#,
            r#"{"id":2,"found":[]}"#,
            r#"{"id":3}"#,
        ],
    );
    assert_eq!(run.rows(), ["1|0.5|ann", "1|0.5|bob", "1|0.25|null"]);
}

#[test]
fn records_that_do_not_fit_are_told_and_leave_nothing() {
    let mut run = Run::new(&format!("{DOORS} SELECT door, n, person FROM doors"));
    let rejected = run.push_any(
        "doors",
        0,
        &[
            "no json",
            "[1]",
            r#"{"door":"a","n":"seven","ts":"2026-01-02 03:00:00"}"#,
            r#"{"door":"b","n":99999999999,"ts":"2026-01-02 03:00:00"}"#,
            r#"{"door":"c","n":3,"ts":"yesterday"}"#,
            r#"{"door":"d","n":4}"#,
            r#"{"door":"e","n":5,"ts":"2026-01-02 03:00:00"} x"#,
            r#"{"door":"f","n":"6","ts":"2026-01-02T03:00:00.250","person":7.5}"#,
        ],
    );
    let indices: Vec<&str> = rejected.iter().filter_map(|one| one.split(':').next()).collect();
    assert_eq!(indices, ["0", "1", "2", "3", "4", "5", "6"], "{rejected:?}");
    assert!(rejected[2].contains("\"seven\" is no INT"), "{rejected:?}");
    assert!(rejected[5].contains("time of the event is NULL"), "{rejected:?}");
    assert_eq!(run.rows(), ["f|6|7.5"]);
}

#[test]
fn errors_may_be_null_where_the_table_says_so() {
    let mut run = Run::new(
        "CREATE TABLE t (a INT, b ARRAY<INT>, c STRING) WITH ('connector' = 'kinesis', 'json.ignore-parse-errors' = 'true'); SELECT * FROM t",
    );
    run.push("t", &[r#"{"a":"x","b":[1,"y",3],"c":"z"}"#, r#"{"a":{"q":1},"b":7}"#]);
    assert_eq!(run.rows(), ["null|[1,null,3]|z", "null|null|null"]);
}

#[test]
fn functions_give_what_flinks_give() {
    let cases = [
        ("DATE_FORMAT(ts, 'yyyy-MM-dd HH:mm')", "2026-01-02 03:00"),
        (
            "CAST(TO_TIMESTAMP('2026-01-02 03:04:05') AS STRING)",
            "2026-01-02T03:04:05",
        ),
        ("TO_TIMESTAMP('nonsense')", "null"),
        ("TO_TIMESTAMP_LTZ(n, 3)", "1970-01-01 00:00:00.007Z"),
        ("TO_TIMESTAMP_LTZ(1.5, 0)", "1970-01-01 00:00:01.5Z"),
        ("TIMESTAMPDIFF(SECOND, TIMESTAMP '2026-01-02 03:00:00', ts)", "1"),
        ("TIMESTAMPADD(MINUTE, 2, ts)", "2026-01-02 03:02:01"),
        ("EXTRACT(HOUR FROM ts)", "3"),
        ("SPLIT_INDEX('a,b,c', ',', 1)", "b"),
        ("REGEXP_EXTRACT('room-42', '([a-z]+)-([0-9]+)', 2)", "42"),
        ("JSON_VALUE('{\"a\":{\"b\":[1,2]}}', '$.a.b[1]')", "2"),
        ("JSON_EXISTS('{\"a\":1}', '$.b')", "false"),
        ("IFNULL(CAST(NULL AS STRING), 'x')", "x"),
        ("COALESCE(CAST(NULL AS INT), n)", "7"),
        ("CONCAT('a', CAST(NULL AS STRING))", "null"),
        ("'a' || door", "anorth"),
        ("IF(n > 1, 'many', 'one')", "many"),
        ("CASE WHEN n > 10 THEN 'x' ELSE 'y' END", "y"),
        ("n / 2", "3"),
        ("MOD(n, 4)", "3"),
        ("1.5 * 2", "3.0"),
        ("SUBSTRING(door FROM 2 FOR 2)", "or"),
        ("CHAR_LENGTH(door)", "5"),
        ("CAST(door AS VARCHAR(2))", "no"),
        ("ts - INTERVAL '1:30' MINUTE TO SECOND", "2026-01-02 02:58:31"),
        ("FLOOR(ts TO HOUR)", "2026-01-02 03:00:00"),
        ("POSITION('r' IN door)", "3"),
        ("ts + INTERVAL '1' HOUR", "2026-01-02 04:00:01"),
        ("CAST(ts AS DATE)", "2026-01-02"),
        ("UNIX_TIMESTAMP('1970-01-01 00:01:00')", "60"),
        ("FROM_UNIXTIME(60)", "1970-01-01 00:01:00"),
        ("door IN ('north', 'south')", "true"),
        ("door LIKE 'n%'", "true"),
    ];
    for (text, wanted) in cases {
        let mut run = Run::new(&format!("{DOORS} SELECT {text} FROM doors"));
        run.push("doors", &[&at(1, "north", "ann", 7)]);
        assert_eq!(run.rows(), [wanted], "{text}");
    }
}

#[test]
fn watermarks_are_of_the_slowest_partition_that_is_not_idle() {
    let mut run = Run::new(&format!("{DOORS} SELECT door FROM doors"));
    run.push_to("doors", 0, &[&at(10, "a", "b", 1)]);
    run.push_to("doors", 1, &[&at(20, "a", "b", 1)]);
    let second = 1_767_322_800_000;
    assert_eq!(run.job.watermark(), Some(second + 8_000 - 1));
    run.job.set_idle(0, 0, true).unwrap();
    assert_eq!(run.job.watermark(), Some(second + 18_000 - 1));
    let mut again = run.restored();
    assert_eq!(again.job.watermark(), Some(second + 18_000 - 1));
    again.push_to("doors", 0, &[&at(30, "a", "b", 1)]);
    assert_eq!(again.job.watermark(), Some(second + 18_000 - 1));
}

#[test]
fn rows_are_written_as_flinks_format_does() {
    let mut run = Run::new(
        "CREATE TABLE t (a INT, b ROW<c DOUBLE, d ARRAY<BOOLEAN>>, e TIMESTAMP(3), f TIMESTAMP_LTZ(3), g DATE, h BYTES, i DECIMAL(5, 2), j MAP<STRING, FLOAT>) WITH ('connector' = 'kinesis');
         SELECT * FROM t",
    );
    let line = r#"{"a":1,"b":{"c":0.1,"d":[true,null]},"e":"2026-01-02 03:04:05.6","f":"2026-01-02 03:04:05Z","g":"2026-01-02","h":"aGk=","i":1.50,"j":{"x":0.1}}"#;
    run.push("t", &[line, "{}"]);
    let mut lines = Vec::new();
    for rows in run.job.take() {
        stream_sql::encode_json(&rows.batch, |line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        });
    }
    assert_eq!(lines[0], line);
    assert_eq!(
        lines[1],
        r#"{"a":null,"b":null,"e":null,"f":null,"g":null,"h":null,"i":null,"j":null}"#
    );
}
