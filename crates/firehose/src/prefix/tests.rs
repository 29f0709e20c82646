use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// 2018-08-27T10:30:05.123Z, a Monday.
const AT: Timestamp = Timestamp::from_millis(1_535_365_805_123);

fn values<'a>(query: &'a Keys, lambda: &'a Keys) -> Values<'a> {
    Values {
        at: AT,
        random: [7; 16],
        query_keys: query,
        lambda_keys: lambda,
        error: Some(ErrorOutputType::Processing),
    }
}

fn render(text: &str, zone: Option<&str>, usage: Use) -> Result<String, String> {
    let none = Keys::new();
    let prefix = Prefix::parse(Some(text), zone, usage).map_err(|refused| refused.0)?;
    prefix.render(&values(&none, &none)).map_err(|refused| refused.0)
}

#[test]
fn the_guides_examples_come_out_as_the_guide_has_them() {
    let (delivered, failed) = Prefix::pair(
        None,
        Some("myFirehoseFailures/!{firehose:error-output-type}/"),
        None,
        false,
    )
    .unwrap();
    let none = Keys::new();
    assert_eq!(delivered.render(&values(&none, &none)).unwrap(), "2018/08/27/10/");
    assert_eq!(
        failed.render(&values(&none, &none)).unwrap(),
        "myFirehoseFailures/processing-failed/"
    );

    let refused = Prefix::pair(Some("!{timestamp:yyyy/MM/dd}"), None, None, false).unwrap_err();
    assert!(
        refused
            .0
            .contains("ErrorOutputPrefix can't be null when Prefix contains expressions")
    );

    for (text, usage, wanted) in [
        (
            "myPrefix/year=!{timestamp:yyyy}/month=!{timestamp:MM}/day=!{timestamp:dd}/hour=!{timestamp:HH}/",
            Use::Plain,
            "myPrefix/year=2018/month=08/day=27/hour=10/",
        ),
        (
            "myErrorPrefix/!{timestamp:'year='yyyy'/month='MM'/day='dd'/hour='HH}/!{firehose:error-output-type}",
            Use::Errors,
            "myErrorPrefix/year=2018/month=08/day=27/hour=10/processing-failed",
        ),
        ("myFirehosePrefix", Use::Plain, "myFirehosePrefix2018/08/27/10/"),
        (
            "myFirehosePrefix/",
            Use::Errors,
            "myFirehosePrefix/processing-failed/2018/08/27/10/",
        ),
    ] {
        assert_eq!(render(text, None, usage).unwrap(), wanted);
    }
}

#[test]
fn a_zone_moves_the_hour_and_the_day() {
    assert_eq!(render("", Some("Asia/Tokyo"), Use::Plain).unwrap(), "2018/08/27/19/");
    assert_eq!(
        render("", Some("Pacific/Honolulu"), Use::Plain).unwrap(),
        "2018/08/27/00/"
    );
    assert_eq!(render("", Some(""), Use::Plain).unwrap(), "2018/08/27/10/");
    assert!(
        render("", Some("Atlantis/Capital"), Use::Plain)
            .unwrap_err()
            .contains("Atlantis")
    );
}

#[test]
fn keys_are_filled_in_and_a_missing_one_refuses_the_record() {
    let text = "c=!{partitionKeyFromQuery:customer}/!{partitionKeyFromLambda:kind}/";
    let prefix = Prefix::parse(Some(text), None, Use::Partitioned).unwrap();
    assert_eq!(prefix.query_keys().collect::<Vec<_>>(), ["customer"]);
    assert_eq!(prefix.lambda_keys().collect::<Vec<_>>(), ["kind"]);
    let query = vec![("customer".to_owned(), "17".to_owned())];
    let lambda = vec![("kind".to_owned(), "door".to_owned())];
    assert_eq!(prefix.render(&values(&query, &lambda)).unwrap(), "c=17/door/");
    let refused = prefix.render(&values(&query, &Keys::new())).unwrap_err();
    assert!(refused.0.contains("partitionKeyFromLambda:kind"));
    let long = vec![("customer".to_owned(), "x".repeat(600))];
    assert!(prefix.render(&values(&long, &lambda)).unwrap_err().0.contains("512"));
}

#[test]
fn random_strings_differ_within_a_prefix_and_not_between_two_attempts() {
    let text = "!{firehose:random-string}/!{firehose:random-string}/!{timestamp:HH}/";
    let first = render(text, None, Use::Plain).unwrap();
    assert_eq!(first, render(text, None, Use::Plain).unwrap());
    let parts: Vec<&str> = first.split('/').collect();
    assert_eq!((parts[0].len(), parts[1].len(), parts[2]), (11, 11, "10"));
    assert_ne!(parts[0], parts[1]);
    let none = Keys::new();
    let prefix = Prefix::parse(Some("!{firehose:random-string}"), None, Use::Plain).unwrap();
    let all: HashSet<String> = (0..2000_u128)
        .map(|n| {
            prefix
                .render(&Values {
                    random: n.to_le_bytes(),
                    ..values(&none, &none)
                })
                .unwrap()
        })
        .collect();
    assert_eq!(all.len(), 2000);
}

#[test]
fn what_breaks_a_rule_is_refused_in_words() {
    for (text, usage, word) in [
        ("a!{b", Use::Plain, "!{namespace:value}"),
        ("a!{timestamp:yyyy", Use::Plain, "!{namespace:value}"),
        ("!{timestamp:}", Use::Plain, "!{namespace:value}"),
        ("!{other:x}", Use::Plain, "namespace"),
        ("!{firehose:x}", Use::Plain, "random-string"),
        ("!{firehose:error-output-type}", Use::Plain, "error-output-type"),
        ("!{timestamp:HH}", Use::Errors, "error-output-type"),
        ("!{partitionKeyFromQuery:a}", Use::Plain, "Dynamic Partitioning"),
        (
            "!{partitionKeyFromQuery:a}!{firehose:error-output-type}",
            Use::Errors,
            "Dynamic Partitioning",
        ),
        ("plain/", Use::Partitioned, "Dynamic Partitioning"),
        ("!{timestamp:bb}", Use::Plain, "Unknown pattern letter: b"),
        ("!{timestamp:ddd}", Use::Plain, "Too many pattern letters: d"),
        ("!{timestamp:'open}", Use::Plain, "!{namespace:value}"),
        ("!{timestamp:HH]}", Use::Plain, "]"),
        ("!{timestamp:HH#}", Use::Plain, "reserved"),
        ("!{timestamp:pp}", Use::Plain, "Pad letter"),
    ] {
        let error = render(text, None, usage).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    assert!(render(&"x".repeat(600), None, Use::Plain).unwrap_err().contains("512"));
    assert!(Prefix::pair(Some("!{partitionKeyFromQuery:a}/"), None, None, true).is_err());
}

/// Vectors of `java.time` (17, en-US): zone, milliseconds, pattern, text.
#[test]
fn times_are_written_as_java_writes_them() {
    let vectors = include_str!("java_time.tsv");
    let mut compared = 0;
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let [zone, millis, pattern, wanted] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a vector: {line}");
        };
        let zone = time::zone(zone).unwrap();
        let at = jiff::Timestamp::from_millisecond(millis.parse().unwrap())
            .unwrap()
            .to_zoned(zone);
        let mut text = String::new();
        Pattern::parse(pattern).unwrap().format(&at, &mut text);
        assert_eq!(text, wanted, "{line}");
        compared += 1;
    }
    assert!(compared > 500, "{compared}");
}

proptest! {
    #[test]
    fn no_text_and_no_time_does_more_than_be_refused(text in "(!\\{[a-zA-Z]{0,9}:?|timestamp:|firehose:|[\\}'\\[\\]]|\\PC){0,12}", millis: i64, seed: [u8; 16]) {
        let keys = Keys::new();
        for usage in [Use::Plain, Use::Partitioned, Use::Errors] {
            if let Ok(prefix) = Prefix::parse(Some(&text), Some("America/St_Johns"), usage) {
                let values = Values { at: Timestamp::from_millis(millis), random: seed, ..values(&keys, &keys) };
                if let Ok(name) = prefix.render(&values) {
                    prop_assert!(name.chars().count() <= PREFIX_CHARACTERS_MAX);
                    prop_assert_eq!(&name, &prefix.render(&values).unwrap());
                }
            }
        }
    }

    #[test]
    fn text_without_expressions_is_kept(text in "[a-z0-9=/_.-]{0,60}") {
        let name = render(&text, None, Use::Plain).unwrap();
        prop_assert_eq!(name, format!("{text}2018/08/27/10/"));
    }
}
