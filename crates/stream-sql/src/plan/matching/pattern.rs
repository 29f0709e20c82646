//! The sequence of a pattern's variables.

use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_sql::sqlparser::ast::{MatchRecognizePattern, MatchRecognizeSymbol, RepetitionQuantifier};

/// A variable and how often it may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Variable {
    pub name: String,
    pub least: u32,
    pub most: Option<u32>,
    pub reluctant: bool,
}

/// The variables of a pattern in their order.
pub(super) fn variables(pattern: &MatchRecognizePattern) -> Result<Vec<Variable>> {
    let mut found = Vec::new();
    sequence(pattern, &mut found)?;
    for (at, variable) in found.iter().enumerate() {
        if found.iter().skip(at + 1).any(|other| other.name == variable.name) {
            return not_impl_err!(
                "Variable '{}' stands twice in the PATTERN, which is not there, as in Flink",
                variable.name
            );
        }
    }
    if let Some(last) = found.last()
        && last.most.is_none()
        && !last.reluctant
    {
        return not_impl_err!(
            "Greedy quantifiers are not allowed as the last element of a Pattern yet, as in Flink: finish with another variable"
        );
    }
    if found.iter().all(|variable| variable.least == 0) {
        return plan_err!("The PATTERN would match no row at all");
    }
    Ok(found)
}

fn sequence(pattern: &MatchRecognizePattern, found: &mut Vec<Variable>) -> Result<()> {
    match pattern {
        MatchRecognizePattern::Concat(parts) => parts.iter().try_for_each(|part| sequence(part, found)),
        MatchRecognizePattern::Group(inner) => sequence(inner, found),
        MatchRecognizePattern::Symbol(symbol) => {
            found.push(variable(symbol)?);
            Ok(())
        }
        MatchRecognizePattern::Repetition(inner, quantifier) => {
            found.push(repeated(inner, quantifier)?);
            Ok(())
        }
        MatchRecognizePattern::Alternation(_) => not_impl_err!("'|' in a PATTERN is not there, as in Flink"),
        MatchRecognizePattern::Permute(_) => not_impl_err!("PERMUTE in a PATTERN is not there, as in Flink"),
        MatchRecognizePattern::Exclude(_) => not_impl_err!("{{- -}} in a PATTERN is not there, as in Flink"),
    }
}

fn variable(symbol: &MatchRecognizeSymbol) -> Result<Variable> {
    match symbol {
        MatchRecognizeSymbol::Named(name) => Ok(Variable {
            name: name.value.clone(),
            least: 1,
            most: Some(1),
            reluctant: false,
        }),
        other => not_impl_err!("'{other}' in a PATTERN is not there, as in Flink"),
    }
}

fn repeated(inner: &MatchRecognizePattern, quantifier: &RepetitionQuantifier) -> Result<Variable> {
    match inner {
        MatchRecognizePattern::Symbol(symbol) => {
            let mut variable = variable(symbol)?;
            (variable.least, variable.most) = bounds(quantifier);
            if variable.most.is_some_and(|most| most < variable.least || most == 0) {
                return plan_err!("Variable '{}' of the PATTERN can never come so often", variable.name);
            }
            Ok(variable)
        }
        // A quantifier behind a quantifier is the question mark of those that take as little as may be.
        MatchRecognizePattern::Repetition(inner, first) if *quantifier == RepetitionQuantifier::AtMostOne => {
            let mut variable = repeated(inner, first)?;
            variable.reluctant = true;
            Ok(variable)
        }
        _ => not_impl_err!("A quantifier behind a group of the PATTERN is not there, as in Flink"),
    }
}

fn bounds(quantifier: &RepetitionQuantifier) -> (u32, Option<u32>) {
    match quantifier {
        RepetitionQuantifier::ZeroOrMore => (0, None),
        RepetitionQuantifier::OneOrMore => (1, None),
        RepetitionQuantifier::AtMostOne => (0, Some(1)),
        RepetitionQuantifier::Exactly(n) => (*n, Some(*n)),
        RepetitionQuantifier::AtLeast(n) => (*n, None),
        RepetitionQuantifier::AtMost(n) => (0, Some(*n)),
        RepetitionQuantifier::Range(n, m) => (*n, Some(*m)),
    }
}
