//! Numbers and times as playlists and manifests spell them.

/// Milliseconds as seconds with three decimals: `1.857`.
#[must_use]
pub fn seconds(ms: impl Into<u64>) -> String {
    let ms = ms.into();
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// A number with one to three decimals: `15.0`, `29.97`.
#[must_use]
pub fn decimal(number: f64) -> String {
    let text = format!("{number:.3}");
    let short = text.trim_end_matches('0');
    if short.ends_with('.') {
        format!("{short}0")
    } else {
        short.to_owned()
    }
}

/// Milliseconds since the epoch as a date and time in UTC: `2022-01-28T07:00:35.931Z`. Years 1 to 9999; what lies beyond
/// is moved to the nearer end.
#[must_use]
pub fn iso8601(ms: i64) -> String {
    let ms = ms.clamp(-62_135_596_800_000, 253_402_300_799_999);
    let (day, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days since 0000-03-01 of the proleptic Gregorian calendar, in eras of 400 years.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Text inside an XML attribute in double quotes.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_date_is_the_one_that_a_calendar_shows() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_643_353_235_931, "2022-01-28T07:00:35.931Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0001-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(ms), text);
        }
    }

    #[test]
    fn numbers_are_spelt_as_players_read_them() {
        assert_eq!(seconds(1857_u32), "1.857");
        assert_eq!(seconds(0_u32), "0.000");
        assert_eq!(
            (decimal(15.0), decimal(29.97), decimal(23.976_02)),
            ("15.0".into(), "29.97".into(), "23.976".into())
        );
        assert_eq!(xml("a&b\"<\n"), "a&amp;b&quot;&lt;");
    }
}
