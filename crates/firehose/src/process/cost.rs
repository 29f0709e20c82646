//! What a query may cost at most, worked out from its text: how many results it gives, how many bytes they have
//! together, and how many it makes on the way, as a polynomial of the record's length. Every construct either has a bound here or is refused.
//!
//! Bounds are generous: a query that takes fields apart and formats them is linear, whatever its factor. What is nested in
//! a pipe is bounded by `f(a) + f(b) <= f(a + b)`, which holds for every exponent from one on; what is constant is counted
//! once for each result.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part};

use crate::limits::QUERY_DEPTH_MAX;

/// The highest degree that is told apart from "without end".
const DEGREE_MAX: usize = 7;

/// A polynomial of the record's length: one coefficient for each degree, none below zero. What is of a higher degree than
/// [`DEGREE_MAX`] is infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound([f64; DEGREE_MAX + 1]);

/// What a query may cost at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Results.
    count: Bound,
    /// Bytes of all results; at least their count. They may share what they hold.
    total: Bound,
    /// Bytes that are made on the way, also of what is no result in the end.
    made: Bound,
}

/// A construct without a bound, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unbounded(String);

/// Of a value, without what it holds; and of a number as text.
const VALUE_BYTES: f64 = 32.0;

const ONE: Bound = Bound::constant(1.0);
const LINEAR: Bound = Bound([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);

impl Bound {
    const fn constant(c: f64) -> Bound {
        Bound([c, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    }

    /// The terms that are there: degree and coefficient.
    fn terms(self) -> impl Iterator<Item = (usize, f64)> {
        self.0.into_iter().enumerate().filter(|(_, c)| *c > 0.0)
    }

    fn add(&mut self, degree: usize, c: f64) {
        match self.0.get_mut(degree) {
            Some(term) => *term += c,
            None => self.0 = [f64::INFINITY; DEGREE_MAX + 1],
        }
    }

    fn plus(mut self, other: Bound) -> Bound {
        other.terms().for_each(|(degree, c)| self.add(degree, c));
        self
    }

    fn times(self, other: Bound) -> Bound {
        let mut product = Bound::constant(0.0);
        for (a, c) in self.terms() {
            other.terms().for_each(|(b, d)| product.add(a + b, c * d));
        }
        product
    }

    fn scaled(self, by: f64) -> Bound {
        Bound::constant(by).times(self)
    }

    /// No less than either of them.
    fn larger(mut self, other: Bound) -> Bound {
        self.0.iter_mut().zip(other.0).for_each(|(c, other)| *c = c.max(other));
        self
    }

    fn at(self, n: f64) -> f64 {
        self.terms()
            .fold(0.0, |sum, (degree, c)| sum + c * n.powf(degree as f64))
    }
}

impl Cost {
    /// Whether a record of so many bytes stays within a bound.
    pub fn fits(&self, record: usize, most: f64) -> bool {
        let n = record.max(1) as f64;
        [self.count, self.total, self.made]
            .iter()
            .all(|bound| bound.at(n) <= most)
    }

    fn single(total: Bound) -> Cost {
        Cost {
            count: ONE,
            total,
            made: total,
        }
    }

    fn or(self, other: Cost) -> Cost {
        Cost {
            count: self.count.plus(other.count),
            total: self.total.plus(other.total),
            made: self.made.plus(other.made),
        }
    }

    /// The results of one or those of the other; both may have been asked for.
    fn either(self, other: Cost) -> Cost {
        Cost {
            count: self.count.larger(other.count),
            total: self.total.larger(other.total),
            made: self.made.plus(other.made),
        }
    }

    /// Every result of one with every result of the other, put together without a copy.
    fn with(self, other: Cost) -> Cost {
        let count = self.count.times(other.count);
        let made = self.made.times(other.count).plus(other.made.times(self.count));
        Cost {
            count,
            total: self.total.times(other.count).plus(other.total.times(self.count)),
            made: made.plus(count.scaled(VALUE_BYTES)),
        }
    }

    /// `other` of every result of this.
    fn then(self, other: Cost) -> Cost {
        Cost {
            count: self.spread(other.count),
            total: self.spread(other.total),
            made: self.made.plus(self.spread(other.made)),
        }
    }

    /// The sum of a bound over the results. A constant counts once for each of them; of any other term the sum over the
    /// results is no more than that term of all of them at once.
    fn spread(self, of: Bound) -> Bound {
        let mut sum = Bound::constant(0.0);
        let mut power = self.count;
        let mut reached = 0;
        for (degree, c) in of.terms() {
            while reached < degree {
                power = match reached {
                    0 => self.total,
                    _ => power.times(self.total),
                };
                reached += 1;
            }
            sum = sum.plus(power.scaled(c));
        }
        sum
    }

    /// The results as one.
    fn gathered(self) -> Cost {
        Cost {
            count: ONE,
            total: self.total.plus(ONE),
            made: self.made.plus(self.count.scaled(VALUE_BYTES)),
        }
    }

    /// One number or boolean for each of so many results.
    fn small(self) -> Cost {
        let total = self.count.scaled(VALUE_BYTES);
        Cost {
            count: self.count,
            total,
            made: self.made.plus(total),
        }
    }

    /// The results, written anew.
    fn copied(self) -> Cost {
        self.scaled(1.0)
    }

    /// What is made of the results, so many times as large.
    fn scaled(self, by: f64) -> Cost {
        let total = self.total.scaled(by);
        Cost {
            count: self.count,
            total,
            made: self.made.plus(total),
        }
    }
}

/// `.`
const SAME: Cost = Cost {
    count: ONE,
    total: LINEAR,
    made: ONE,
};

/// `.[]`
const EACH: Cost = Cost {
    count: LINEAR,
    total: LINEAR,
    made: LINEAR,
};

/// A number, a boolean, or nothing.
const SMALL: Cost = Cost {
    count: ONE,
    total: Bound::constant(VALUE_BYTES),
    made: Bound::constant(VALUE_BYTES),
};

/// The bound of a query.
pub fn of(term: &Term<&str>) -> Result<Cost, Unbounded> {
    term_cost(term, 0)
}

fn refuse<T>(what: &str) -> Result<T, Unbounded> {
    Err(Unbounded(format!(
        "{what} cannot be carried out by this server, because it has no bound in time and memory"
    )))
}

fn term_cost(term: &Term<&str>, depth: usize) -> Result<Cost, Unbounded> {
    if depth > QUERY_DEPTH_MAX {
        return Err(Unbounded(format!("it is nested more than {QUERY_DEPTH_MAX} deep")));
    }
    let inner = |term: &Term<&str>| term_cost(term, depth + 1);
    match term {
        Term::Id => Ok(SAME),
        // Each value once for each level above it.
        Term::Recurse => Ok(Cost {
            count: LINEAR,
            total: LINEAR.scaled(crate::limits::JSON_DEPTH_MAX as f64),
            made: LINEAR,
        }),
        Term::Num(text) => Ok(Cost::single(Bound::constant(text.len() as f64 + 1.0))),
        Term::Str(format, parts) => string_cost(*format, parts, depth),
        Term::Arr(None) => Ok(SMALL),
        Term::Arr(Some(items)) => Ok(inner(items)?.gathered()),
        Term::Obj(entries) => object_cost(entries, depth),
        Term::Neg(of) => inner(of),
        Term::BinOp(left, op, right) => binary_cost(left, op, right, depth),
        Term::TryCatch(tried, caught) => {
            let tried = inner(tried)?;
            match caught {
                None => Ok(tried),
                // What is caught may hold what was tried, written out.
                Some(caught) => Ok(tried.or(SAME.scaled(8.0).or(tried.scaled(8.0)).then(inner(caught)?))),
            }
        }
        Term::IfThenElse(branches, otherwise) => {
            let mut conditions = Cost::single(ONE);
            let mut results = match otherwise {
                Some(otherwise) => inner(otherwise)?,
                None => SAME,
            };
            for (condition, result) in branches {
                conditions = conditions.with(inner(condition)?);
                results = results.either(inner(result)?);
            }
            Ok(conditions.with(results))
        }
        Term::Call(name, arguments) => call_cost(name, arguments, depth),
        Term::Path(of, path) => path_cost(inner(of)?, &path.0, depth),
        Term::Var(name) => refuse(&format!("the variable {name}")),
        Term::Def(..) => refuse("a definition (def)"),
        Term::Fold(name, ..) => refuse(name),
        Term::Label(..) | Term::Break(_) => refuse("a label"),
    }
}

fn string_cost(format: Option<&str>, parts: &[StrPart<&str, Term<&str>>], depth: usize) -> Result<Cost, Unbounded> {
    let mut cost = Cost::single(ONE);
    for part in parts {
        cost = cost.with(match part {
            StrPart::Str(text) => Cost::single(Bound::constant(text.len() as f64)),
            StrPart::Term(term) => term_cost(term, depth + 1)?.scaled(8.0),
            StrPart::Char(_) => Cost::single(Bound::constant(4.0)),
        });
    }
    match format {
        None => Ok(cost.copied()),
        Some(name) => Ok(cost.copied().then(call_cost(name, &[], depth + 1)?)),
    }
}

fn object_cost(entries: &[(Term<&str>, Option<Term<&str>>)], depth: usize) -> Result<Cost, Unbounded> {
    let mut cost = Cost::single(ONE);
    for (key, value) in entries {
        let key_cost = match (key, value) {
            // `{a}` is `{a: .a}`.
            (key, None) => term_cost(key, depth + 1)?.with(SAME),
            (key, Some(value)) => term_cost(key, depth + 1)?.with(term_cost(value, depth + 1)?),
        };
        cost = cost.with(key_cost);
    }
    Ok(cost)
}

fn binary_cost(left: &Term<&str>, op: &BinaryOp<&str>, right: &Term<&str>, depth: usize) -> Result<Cost, Unbounded> {
    let (a, b) = (term_cost(left, depth + 1)?, term_cost(right, depth + 1)?);
    match op {
        BinaryOp::Pipe(None) => Ok(a.then(b)),
        BinaryOp::Pipe(Some(_)) => refuse("a variable (as)"),
        BinaryOp::Comma => Ok(a.or(b)),
        BinaryOp::Alt => Ok(a.either(b)),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Cmp(_) => Ok(a.with(b).small()),
        // A text times a number is that text so many times over.
        BinaryOp::Math(Math::Mul) => match (literal(left), literal(right)) {
            (Some(factor), _) | (_, Some(factor)) => Ok(a.with(b).scaled(factor.abs().max(1.0))),
            (None, None) => refuse("a product of two values of the record"),
        },
        BinaryOp::Math(_) => Ok(a.with(b).copied()),
        BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => refuse("an assignment"),
    }
}

fn literal(term: &Term<&str>) -> Option<f64> {
    match term {
        Term::Num(text) => text.parse().ok(),
        Term::Neg(of) => literal(of),
        _ => None,
    }
}

fn path_cost(mut cost: Cost, path: &[(Part<Term<&str>>, Opt)], depth: usize) -> Result<Cost, Unbounded> {
    for (part, _) in path {
        match part {
            Part::Index(index) => cost = cost.with(indexed(index, depth)?),
            Part::Range(None, None) => cost = cost.then(EACH),
            Part::Range(from, to) => {
                for end in [from, to].into_iter().flatten() {
                    cost = cost.with(indexed(end, depth)?);
                }
                cost = cost.copied();
            }
        }
    }
    Ok(cost)
}

/// An index is worked out of the record and not of what it is looked up in; what is found is no larger than that.
fn indexed(term: &Term<&str>, depth: usize) -> Result<Cost, Unbounded> {
    term_cost(term, depth + 1)
}

/// What the functions cost of which a bound is known. What they make may be larger than what they get, by a factor.
fn call_cost(name: &str, arguments: &[Term<&str>], depth: usize) -> Result<Cost, Unbounded> {
    let unknown = || refuse(&format!("the function {name}/{}", arguments.len()));
    let inner = |term: &Term<&str>| term_cost(term, depth + 1);
    let linear = |factor: f64| Ok(SAME.scaled(factor));
    match arguments {
        [] => match name {
            "empty" | "true" | "false" | "null" | "not" | "length" | "utf8bytelength" | "type" | "floor" | "ceil"
            | "round" | "fabs" | "abs" | "sqrt" | "isnan" | "isinfinite" | "isnormal" | "any" | "all" | "now"
            | "mktime" | "infinite" | "nan" => Ok(SMALL),
            "error" | "tonumber" | "toboolean" | "ascii_downcase" | "ascii_upcase" | "ascii" | "trim" | "ltrim"
            | "rtrim" | "values" | "nulls" | "booleans" | "numbers" | "strings" | "arrays" | "objects"
            | "iterables" | "scalars" | "first" | "last" | "reverse" | "sort" | "unique" | "min" | "max" | "keys"
            | "keys_unsorted" | "implode" => linear(1.0),
            "todate" | "fromdate" | "todateiso8601" | "fromdateiso8601" | "gmtime" => Ok(SMALL),
            "to_entries" => linear(4.0),
            "tostring" | "tojson" | "@text" | "@json" | "@html" | "@uri" | "@sh" | "@base64" | "@base64d" | "@csv"
            | "@tsv" => linear(8.0),
            "fromjson" | "explode" => linear(16.0),
            // A sum of numbers may be longer than each of them.
            "add" => Ok(Cost::single(LINEAR.plus(SMALL.total))),
            "from_entries" | "flatten" => linear(1.0),
            _ => unknown(),
        },
        [one] => {
            let one_cost = inner(one)?;
            match name {
                "has" | "startswith" | "endswith" | "test" => Ok(SMALL.with(one_cost)),
                // Everything in one may be compared with everything in the other.
                "contains" | "inside" | "index" | "rindex" => Ok(Cost {
                    made: one_cost.made.plus(LINEAR.times(one_cost.total)),
                    ..SMALL.with(one_cost)
                }),
                "ltrimstr" | "rtrimstr" | "split" | "error" => Ok(SAME.with(one_cost).copied()),
                "strftime" | "strptime" => Ok(SMALL.with(one_cost.scaled(16.0))),
                "join" => {
                    let parts = SAME.scaled(8.0).total.times(one_cost.count);
                    let total = parts.plus(LINEAR.times(one_cost.total));
                    Ok(Cost {
                        count: one_cost.count,
                        total,
                        made: one_cost.made.plus(total),
                    })
                }
                // The first match alone: these take no flags.
                "match" | "capture" => Ok(SAME.scaled(32.0).with(one_cost)),
                "scan" => Ok(EACH.scaled(32.0).with(one_cost)),
                "select" => Ok(Cost {
                    count: one_cost.count,
                    total: SAME.total.times(one_cost.count),
                    made: one_cost.made,
                }),
                "map" => Ok(EACH.then(one_cost).gathered()),
                "any" | "all" => Ok(EACH.then(one_cost).gathered().then(SMALL)),
                "sort_by" | "group_by" | "unique_by" | "min_by" | "max_by" => {
                    Ok(SAME.with(EACH.then(one_cost).gathered()))
                }
                "first" | "last" => Ok(Cost { count: ONE, ..one_cost }),
                _ => unknown(),
            }
        }
        [pattern, by] if matches!(name, "sub" | "gsub") => {
            let (pattern, by) = (inner(pattern)?, inner(by)?);
            if by.count != ONE {
                // The texts before would go on with each of them.
                return refuse("a replacement with several results");
            }
            // Each match, with its groups, is handed to the replacement.
            Ok(pattern.with(SAME.or(EACH.scaled(32.0).then(by)).gathered()).copied())
        }
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use jaq_core::load::{lex, parse};

    use super::*;

    fn bound(query: &str) -> Result<Cost, Unbounded> {
        let tokens = lex::Lexer::new(query).lex().unwrap();
        of(&parse::Parser::new(&tokens).parse(|parser| parser.term()).unwrap())
    }

    #[test]
    fn taking_fields_apart_is_linear_and_nesting_is_not() {
        for (query, degree) in [
            (".", 1),
            (".a.b[0]", 1),
            (".a[]", 1),
            ("{a: .a, b: .b|tostring}", 1),
            ("[.[]|.a]", 1),
            ("map(select(.a == 1))", 1),
            ("\"x\\(.a)y\\(.b)\"", 1),
            ("[.[] + .[]]", 2),
            ("{a: .[], b: .[]}", 2),
            ("{a: .[], b: .[], c: .[]}", 3),
        ] {
            let cost = bound(query).unwrap();
            assert_eq!(cost.total.terms().last().unwrap().0, degree, "{query}");
        }
    }

    #[test]
    fn what_is_constant_beside_what_grows_does_not_grow() {
        let cost = bound("{a: (.s|startswith(\"x\")), b: (.d|add), c: (.d|length), d: .e}").unwrap();
        let n = 4096.0;
        assert!(cost.total.at(n) < 4.0 * n, "{cost:?}");
        assert_eq!(bound("[.[] + .[]]|length").unwrap().total, SMALL.total);
        assert!(bound("[.[] + .[]]|length").unwrap().made.at(n) >= n * n);
        let beyond = ["a: .[]"; DEGREE_MAX + 2].join(", ");
        assert_eq!(bound(&format!("{{{beyond}}}")).unwrap().total.at(1.0), f64::INFINITY);
        assert!(!bound(&format!("[{{{beyond}}}]|tojson")).unwrap().fits(1, f64::MAX));
    }

    #[test]
    fn doubling_doubles_the_bound_each_time() {
        let cost = bound(".+.|.+.|.+.").unwrap();
        assert_eq!(cost.total, LINEAR.scaled(8.0));
        // What was made on the way counts too: two, four and eight times.
        assert!(cost.fits(1000, 15_000.0) && !cost.fits(1000, 14_000.0));
    }

    #[test]
    fn what_a_query_makes_is_within_its_bound() {
        for query in [
            ".",
            ".a",
            ".[]",
            "[.[]|tostring]",
            "to_entries",
            "to_entries|from_entries",
            ".b|add",
            "[.a,.a]|add",
            "[.b,.b]|add",
            "[.,.]|add",
            "[.b,[.b,[.a]]]|flatten",
            "{a: .a, b: .a}",
            "tojson|tojson",
            "@base64",
            "[..]",
            "[.a,.a]|map([.,.])",
            ".a+.a",
            "keys",
            "\"\\(.)\\(.)\"",
        ] {
            let Ok(cost) = bound(query) else { continue };
            for n in [1_usize, 10, 1000] {
                let record = serde_json::json!({ "a": "\"x".repeat(n), "b": vec![1; n] }).to_string();
                let arena = jaq_core::load::Arena::default();
                let file = jaq_core::load::File { code: query, path: () };
                let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
                let Ok(modules) = jaq_core::load::Loader::new(definitions).load(&arena, file) else {
                    panic!("{query}");
                };
                let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
                let filter = jaq_core::Compiler::default()
                    .with_funs(functions)
                    .compile(modules)
                    .unwrap();
                let value = jaq_json::read::parse_single(record.as_bytes()).unwrap();
                let context =
                    jaq_core::Ctx::<jaq_core::data::JustLut<jaq_json::Val>>::new(&filter.lut, jaq_core::Vars::new([]));
                let made: usize = filter
                    .id
                    .run((context, value))
                    .map(|out| jaq_core::unwrap_valr(out).map_or(0, |value| value.to_string().len()))
                    .sum();
                assert!(
                    made as f64 <= cost.total.at(record.len() as f64) + 64.0,
                    "{query}: {made} of {}",
                    record.len()
                );
            }
        }
    }
}
