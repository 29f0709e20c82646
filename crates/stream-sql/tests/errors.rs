//! What cannot be planned is told with its place.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail")]

mod common;

use common::{DOORS, refused};

#[test]
fn every_kind_of_mistake_has_its_line_and_column() {
    let script =
        |text: &str| format!("{DOORS}CREATE TABLE out (door STRING, n BIGINT) WITH ('connector' = 'kinesis');\n{text}");
    for (text, place, word) in [
        ("SELEC 1", "line 3, column 1", "SELEC"),
        ("SELECT", "line 3, column", "expression"),
        (
            "INSERT INTO out SELECT door,\n  nowhere FROM doors",
            "line 4, column 3",
            "nowhere",
        ),
        (
            "INSERT INTO out SELECT door, n FROM doors, ",
            "line 3, column",
            "identifier",
        ),
        (
            "INSERT INTO nowhere SELECT * FROM doors",
            "line 3, column 13",
            "nowhere",
        ),
        (
            "INSERT INTO out SELECT door, n FROM nowhere",
            "line 3, column 37",
            "nowhere",
        ),
        (
            "INSERT INTO out SELECT n, door FROM doors",
            "line 3, column 13",
            "STRING",
        ),
        (
            "INSERT INTO out SELECT door FROM doors",
            "line 3, column 13",
            "Different number of columns",
        ),
        (
            "INSERT INTO out SELECT door, NO_SUCH(n) FROM doors",
            "line 3, column 30",
            "NO_SUCH",
        ),
        ("INSERT INTO out SELECT 1", "line 3", "table"),
        ("SELECT * FROM doors ORDER BY n", "line 3", "ORDER BY"),
        ("SELECT * FROM doors LIMIT 3", "line 3", "LIMIT"),
        ("SELECT SUM(n) OVER (PARTITION BY door) FROM doors", "line 3", "OVER"),
        (
            "SELECT a.door FROM doors a JOIN doors b ON a.door = b.door",
            "line 3",
            "bounds of their times",
        ),
        ("SELECT door + ts FROM doors", "line 3", ""),
        ("CREATE TABLE x (a TEXT)", "line 3, column 19", "TEXT"),
        ("CREATE TABLE x (a INT, WATERMARK FOR b AS b)", "line 3", "b"),
        ("CREATE TABLE x (a INT, WATERMARK FOR a AS a)", "line 3", "TIMESTAMP(3)"),
        (
            "CREATE TABLE x (a TIMESTAMP(3), WATERMARK FOR a AS a * 2)",
            "line 3, column 52",
            "watermark",
        ),
        ("CREATE VIEW doors AS SELECT 1 FROM doors", "line 3, column 13", "doors"),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE doors, DESCRIPTOR(door), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
            "line 3",
            "time attribute",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(HOP(TABLE doors, DESCRIPTOR(ts), INTERVAL '2' MINUTE, INTERVAL '3' MINUTE)) GROUP BY window_start, window_end",
            "line 3",
            "multiple",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE doors, DESCRIPTOR(ts), INTERVAL '1' MONTH)) GROUP BY window_start, window_end",
            "line 3",
            "SIZE",
        ),
        ("SET 'a'", "line 3", "key"),
        (
            "SELECT 1 FROM doors SELECT 2",
            "line 3, column 21",
            "end of the statement",
        ),
        ("SELECT 'open FROM doors", "line 3", ""),
        ("DROP TABLE doors", "line 3, column 1", "DROP"),
    ] {
        let message = refused(&script(text));
        assert!(
            message.starts_with(place) && message.to_lowercase().contains(&word.to_lowercase()),
            "{text}\n  {message}\n  wanted {place}, {word}"
        );
    }
    assert!(refused("").contains("no INSERT INTO"));
    assert!(refused(&format!("SELECT {}1{} FROM x", "(".repeat(500), ")".repeat(500))).starts_with("line 1"));
}

#[test]
fn declared_tables_are_told_by_their_names() {
    let table = stream_sql::Table {
        name: "given".to_owned(),
        columns: vec![stream_sql::table::Column {
            name: "a".to_owned(),
            sql_type: "NOTHING".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let error = stream_sql::Program::plan("SELECT 1", &[table]).unwrap_err();
    assert!(
        error.message.contains("'given'") && error.message.contains("NOTHING"),
        "{error}"
    );
}
