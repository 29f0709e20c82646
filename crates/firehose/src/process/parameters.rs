//! The parameters of a processor: names and texts, each at most once.

use std::ops::RangeInclusive;

use wire::firehose::Processor;

use crate::types::Refused;

/// The parameters of one processor.
pub struct Parameters<'a> {
    processor: &'a str,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Parameters<'a> {
    /// Takes them apart; those that the processor does not have, and those that are there twice, are refused.
    pub fn of(processor: &'a Processor, allowed: &[&str]) -> Result<Self, Refused> {
        let kind = processor.r#type.as_str();
        let mut named: Vec<(&str, &str)> = Vec::new();
        for parameter in processor.parameters.iter().flatten() {
            let name = parameter.parameter_name.as_str();
            if !allowed.contains(&name) {
                return Err(Refused(format!("Processor {kind} has no parameter {name}.")));
            }
            if named.iter().any(|(other, _)| *other == name) {
                return Err(Refused(format!("Processor {kind} has the parameter {name} twice.")));
            }
            named.push((name, &parameter.parameter_value));
        }
        Ok(Parameters { processor: kind, named })
    }

    /// A parameter, if it is there.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.named
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    }

    /// A parameter that must be there.
    pub fn required(&self, name: &str) -> Result<&'a str, Refused> {
        let missing = || Refused(format!("Processor {} needs the parameter {name}.", self.processor));
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Refused> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            Refused(format!(
                "The parameter {name} of processor {} must be a number from {} to {}.",
                self.processor,
                range.start(),
                range.end()
            ))
        })
    }

    /// A parameter that has one legal value.
    pub fn only(&self, name: &str, value: &str) -> Result<(), Refused> {
        match self.get(name) {
            Some(given) if !given.eq_ignore_ascii_case(value) => Err(Refused(format!(
                "The parameter {name} of processor {} must be {value}.",
                self.processor
            ))),
            _ => Ok(()),
        }
    }
}
