//! Names of indices that go with the time: a part of the arrival's UTC date and time behind the name that was configured.

use base::Timestamp;
use wire::firehose::{AmazonopensearchserviceIndexRotationPeriod, ElasticsearchIndexRotationPeriod};

const DAY_MS: i64 = 86_400_000;

/// How often a new index begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Never.
    Never,
    /// `-2016-02-25-13`
    Hour,
    /// `-2016-02-25`
    Day,
    /// `-2016-w09`; weeks begin on Sunday, and the first is the one with the year's first Saturday. (That is the rule of
    /// AWS's documentation; in the table beside it the same day is in `w08`, which the rule does not give.)
    Week,
    /// `-2016-02`
    Month,
}

impl From<AmazonopensearchserviceIndexRotationPeriod> for Rotation {
    fn from(period: AmazonopensearchserviceIndexRotationPeriod) -> Self {
        use AmazonopensearchserviceIndexRotationPeriod as Period;
        match period {
            Period::NoRotation => Rotation::Never,
            Period::OneHour => Rotation::Hour,
            Period::OneDay => Rotation::Day,
            Period::OneWeek => Rotation::Week,
            Period::OneMonth => Rotation::Month,
        }
    }
}

impl From<ElasticsearchIndexRotationPeriod> for Rotation {
    fn from(period: ElasticsearchIndexRotationPeriod) -> Self {
        use ElasticsearchIndexRotationPeriod as Period;
        match period {
            Period::NoRotation => Rotation::Never,
            Period::OneHour => Rotation::Hour,
            Period::OneDay => Rotation::Day,
            Period::OneWeek => Rotation::Week,
            Period::OneMonth => Rotation::Month,
        }
    }
}

impl Rotation {
    /// The name of the index for what arrived at a time.
    pub fn index(self, name: &str, arrival: Timestamp) -> String {
        let iso = |arrival| wire::time::to_iso8601(arrival);
        let text = iso(arrival);
        let part = |len: usize| text.get(..len).unwrap_or_default().replace('T', "-");
        match self {
            Rotation::Never => name.to_owned(),
            Rotation::Hour => format!("{name}-{}", part("2016-02-25T13".len())),
            Rotation::Day => format!("{name}-{}", part("2016-02-25".len())),
            Rotation::Month => format!("{name}-{}", part("2016-02".len())),
            Rotation::Week => {
                // A week belongs to the year in which its Saturday is.
                let day = arrival.millis().div_euclid(DAY_MS);
                // 1970-01-01 was a Thursday, two days before a Saturday.
                let saturday = day + (2 - day).rem_euclid(7);
                let of_saturday = iso(Timestamp::from_millis(saturday * DAY_MS));
                let year = of_saturday.get(..4).unwrap_or_default();
                let new_year = wire::time::parse_iso8601(&format!("{year}-01-01T00:00:00Z"));
                let first = new_year.map_or(saturday, |at| at.millis().div_euclid(DAY_MS));
                format!("{name}-{year}-w{:02}", (saturday - first) / 7 + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        wire::time::parse_iso8601(text).unwrap()
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let arrival = at("2016-02-25T13:00:00Z");
        let name = |rotation: Rotation| rotation.index("myindex", arrival);
        assert_eq!(name(Rotation::Never), "myindex");
        assert_eq!(name(Rotation::Hour), "myindex-2016-02-25-13");
        assert_eq!(name(Rotation::Day), "myindex-2016-02-25");
        assert_eq!(name(Rotation::Week), "myindex-2016-w09");
        assert_eq!(name(Rotation::Month), "myindex-2016-02");
    }

    #[test]
    fn weeks_begin_on_sunday_and_the_first_has_the_first_saturday() {
        let week = |text: &str| Rotation::Week.index("i", at(text));
        // 2016-01-02 was a Saturday.
        assert_eq!(week("2016-01-02T23:59:59Z"), "i-2016-w01");
        assert_eq!(week("2016-01-03T00:00:00Z"), "i-2016-w02");
        // 2017-01-01 was a Sunday, so that all of its week lies in 2017.
        assert_eq!(week("2016-12-31T23:59:59Z"), "i-2016-w53");
        assert_eq!(week("2017-01-01T00:00:00Z"), "i-2017-w01");
        // The week of Sunday 2017-12-31 ends in 2018.
        assert_eq!(week("2017-12-30T12:00:00Z"), "i-2017-w52");
        assert_eq!(week("2017-12-31T12:00:00Z"), "i-2018-w01");
        assert_eq!(week("1970-01-01T00:00:00Z"), "i-1970-w01");
        assert_eq!(week("1970-01-04T00:00:00Z"), "i-1970-w02");
    }
}
