//! Times as a person types them.

use std::time::Duration;

use base::Timestamp;

/// `now`, `2026-11-22T18:56:50Z`, seconds since 1970, or so long ago: `-90s`, `-10m`, `-2h`, `-1d`, `-1h30m`,
/// with a unit also without the sign.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is no time; write 2026-11-22T18:56:50Z, seconds since 1970, now, or how long ago: -10m, -2h, -1d"
        )
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return self::ago(ago, now).ok_or_else(wrong);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_seconds(seconds).ok_or_else(wrong);
    }
    rfc3339(text).or_else(|| ago(text, now)).ok_or_else(wrong)
}

fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let millis = i64::try_from(duration(text)?.as_millis()).ok()?;
    Some(now.plus_millis(-millis))
}

/// Whether the text names a fragment and no time.
pub fn is_fragment_number(text: &str) -> bool {
    text.len() == 47 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Numbers with units; without one, seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_len)?;
        let seconds = match unit {
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// With `Z` or an offset.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let upper = text.to_ascii_uppercase().replacen(' ', "T", 1);
    if upper.ends_with('Z') {
        return wire::time::parse_iso8601(&upper);
    }
    let (local, offset) = upper.split_at_checked(upper.len().checked_sub(6)?)?;
    let sign = match offset.get(..1)? {
        "+" => -1,
        "-" => 1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    let time = wire::time::parse_iso8601(&format!("{local}Z"))?;
    Some(time.plus_millis(sign * minutes * 60_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_a_person_means_it() {
        let now = Timestamp::from_millis(1_795_347_223_500);
        let at = |text| parse(text, now).unwrap().millis();
        assert_eq!(at("now"), 1_795_347_223_500);
        assert_eq!(at("-10m"), 1_795_346_623_500);
        assert_eq!(at("-1h30m"), 1_795_341_823_500);
        assert_eq!((at("10m"), at("1h30m")), (at("-10m"), at("-1h30m")));
        assert_eq!(at("1795347223.5"), 1_795_347_223_500);
        assert_eq!(at("2026-11-22T11:33:43.500Z"), 1_795_347_223_500);
        assert_eq!(at("2026-11-22T12:33:43.500+01:00"), 1_795_347_223_500);
        assert_eq!(at("2026-11-22 11:33:43.500z"), 1_795_347_223_500);
        for wrong in ["", "-", "yesterday", "10x", "-10x", "2026-11-22", "12:00"] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
