//! Partition keys out of records, by queries in the language of jq 1.6: `{customer: .customer_id, year: .at|strftime("%Y")}`.
//! The library `jaq` compiles and runs them.
//!
//! It runs inside the server, over strangers' records, and cannot be interrupted. So a query is run only if a bound for
//! what it makes out of a record can be worked out beforehand ([`cost`]): what could run for ever, fill the memory, read
//! the environment or end the process is refused when the delivery stream is made.

use std::sync::Arc;

use jaq_core::data::JustLut;
use jaq_core::load::parse::Term;
use jaq_core::load::{Arena, File, Loader, lex, parse};
use jaq_core::native::{Fun, bome, run, v};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::{Num, Val, read};

use crate::limits::{JSON_DEPTH_MAX, PARTITION_KEYS_MAX, QUERY_CHARACTERS_MAX, QUERY_COST_MAX, QUERY_RECORD_BYTES};
use crate::process::cost::{self, Cost};
use crate::process::split::too_deep;
use crate::types::{Keys, Refused};

type Data = JustLut<Val>;

/// The stack for reading and compiling a query, which recurse; a query is short, but it may be all brackets.
const COMPILE_STACK_BYTES: usize = 256 * 1024 * 1024;

/// A query that was compiled. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    compiled: Arc<Compiled>,
}

struct Compiled {
    filter: Filter<Data>,
    cost: Cost,
    /// The keys that it names as such; `None` where they are computed.
    keys: Option<Vec<String>>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("keys", &self.compiled.keys)
            .finish_non_exhaustive()
    }
}

impl Query {
    /// Compiles a query.
    pub fn compile(text: &str) -> Result<Query, Refused> {
        if text.chars().count() > QUERY_CHARACTERS_MAX {
            return Err(Refused(format!(
                "MetadataExtractionQuery has more than {QUERY_CHARACTERS_MAX} characters."
            )));
        }
        let text = text.to_owned();
        let builder = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
        let thread = builder.spawn(move || compile(&text));
        let failed = || Refused("MetadataExtractionQuery could not be compiled.".to_owned());
        let compiled = thread.map_err(|_| failed())?.join().map_err(|_| failed())??;
        Ok(Query {
            compiled: Arc::new(compiled),
        })
    }

    /// The keys that it gives every record, where they stand in the query as such.
    pub fn keys(&self) -> Option<&[String]> {
        self.compiled.keys.as_deref()
    }

    /// The keys of a record, or why it has none, in words for the error output.
    pub fn extract(&self, record: &[u8]) -> Result<Keys, String> {
        if !self.compiled.cost.fits(record.len(), QUERY_COST_MAX) {
            return Err(format!(
                "The query may make too much out of a record of {} bytes.",
                record.len()
            ));
        }
        let value = parse_bounded(record)?;
        let context = Ctx::<Data>::new(&self.compiled.filter.lut, Vars::new([]));
        let mut outputs = self.compiled.filter.id.run((context, value)).map(unwrap_valr);
        let output = match outputs.next() {
            Some(Ok(output)) => output,
            Some(Err(error)) => return Err(shortened(&error.to_string())),
            None => return Err("The query gave nothing for the record.".to_owned()),
        };
        if outputs.next().is_some() {
            return Err("The query gave more than one result for the record.".to_owned());
        }
        keys(&output)
    }
}

fn parse_bounded(record: &[u8]) -> Result<Val, String> {
    if too_deep(record) {
        return Err(format!("The record is nested more than {JSON_DEPTH_MAX} deep."));
    }
    if std::str::from_utf8(record).is_err() {
        return Err("Non UTF-8 record provided. The record could not be parsed.".to_owned());
    }
    read::parse_single(record).map_err(|_| "Non JSON record provided. The record could not be parsed.".to_owned())
}

fn keys(output: &Val) -> Result<Keys, String> {
    let Val::Obj(entries) = output else {
        return Err("The query must give an object of partition keys.".to_owned());
    };
    if entries.len() > PARTITION_KEYS_MAX {
        return Err(format!("The query gave more than {PARTITION_KEYS_MAX} partition keys."));
    }
    entries
        .iter()
        .map(|(key, value)| {
            let Val::TStr(key) = key else {
                return Err("A partition key has a name that is no text.".to_owned());
            };
            let key = String::from_utf8_lossy(key).into_owned();
            let text = match value {
                Val::TStr(text) => String::from_utf8_lossy(text).into_owned(),
                Val::Bool(value) => value.to_string(),
                Val::Num(number) => written(number),
                Val::Null => String::new(),
                _ => {
                    return Err(format!(
                        "The value of partition key {key:?} must be a text, a number or a boolean."
                    ));
                }
            };
            match text.is_empty() {
                true => Err(format!("Partition key's value should not be null or empty: {key:?}.")),
                false => Ok((key, text)),
            }
        })
        .collect()
}

fn written(number: &Num) -> String {
    Val::Num(number.clone()).to_string()
}

fn shortened(text: &str) -> String {
    text.chars().take(512).collect()
}

/// As jaq's own, but for what is nested too deeply for a reader that recurses.
fn from_json() -> Fun<Data> {
    run::<Data>(("fromjson", v(0), |cv| {
        let text = match &cv.1 {
            Val::TStr(text) | Val::BStr(text) => text.clone(),
            other => {
                let error = jaq_core::Error::str(format!("{other} cannot be parsed as JSON"));
                return bome(Err(error));
            }
        };
        bome(parse_bounded(&text).map_err(jaq_core::Error::str))
    }))
}

fn compile(text: &str) -> Result<Compiled, Refused> {
    let refused = |why: String| Refused(format!("Invalid MetadataExtractionQuery: {}.", shortened(&why)));
    let tokens = lex::Lexer::new(text).lex();
    let tokens = tokens.map_err(|errors| {
        let at = errors.first().map_or("", |(_, at)| at);
        refused(format!("not a query at {:?}", at.chars().take(40).collect::<String>()))
    })?;
    let term = parse::Parser::new(&tokens).parse(|parser| parser.term());
    let term = term.map_err(|errors| match errors.first() {
        Some((expected, Some(found))) => {
            let found: String = found.0.chars().take(40).collect();
            refused(format!("expected {} at {found:?}", expected.as_str()))
        }
        Some((expected, None)) => refused(format!("expected {} at the end", expected.as_str())),
        None => refused("it is no query".to_owned()),
    })?;
    let cost = cost::of(&term).map_err(|why| refused(why.to_string()))?;
    if !cost.fits(QUERY_RECORD_BYTES, QUERY_COST_MAX) {
        return Err(refused(format!(
            "it may make more than {} MiB out of a record of {QUERY_RECORD_BYTES} bytes",
            QUERY_COST_MAX / 1024.0 / 1024.0
        )));
    }
    let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let own = jaq_json::funs().filter(|fun| fun.0 != "fromjson").chain([from_json()]);
    let functions = jaq_core::funs().chain(jaq_std::funs()).chain(own);
    let arena = Arena::default();
    let file = File { code: text, path: () };
    let modules = Loader::new(definitions).load(&arena, file);
    let modules = modules.map_err(|_| refused("it is no query".to_owned()))?;
    let filter = Compiler::default().with_funs(functions).compile(modules);
    let filter = filter.map_err(|errors| {
        let first = errors.first().and_then(|(_, errors)| errors.first());
        refused(first.map_or_else(String::new, |(name, _)| format!("{name:?} is not defined")))
    })?;
    Ok(Compiled {
        filter,
        cost,
        keys: named_keys(&term),
    })
}

/// The keys of an object that is written out.
fn named_keys(term: &Term<&str>) -> Option<Vec<String>> {
    let Term::Obj(entries) = term else { return None };
    let name = |key: &Term<&str>| match key {
        Term::Str(None, parts) => match &parts[..] {
            [lex::StrPart::Str(name)] => Some((*name).to_owned()),
            _ => None,
        },
        Term::Var(name) => Some(name.trim_start_matches('$').to_owned()),
        _ => None,
    };
    entries.iter().map(|(key, _)| name(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(query: &str, record: &str) -> Result<Keys, String> {
        Query::compile(query)
            .map_err(|refused| refused.0)?
            .extract(record.as_bytes())
    }

    fn pairs(keys: &Keys) -> Vec<(&str, &str)> {
        keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    const RECORD: &str = r#"{"type":{"device":"mobile","event":"user_clicked_submit_button"},"customer_id":"1234567890",
        "event_timestamp":1565382027,"region":"sample_region","on":true,"none":null,"list":[3,1,2],"embedded":"{\"a\":7}"}"#;

    #[test]
    fn the_guides_queries_give_the_guides_keys() {
        let query = r#"{customer_id: .customer_id, device: .type.device, year: .event_timestamp| strftime("%Y"),
            month:.event_timestamp| strftime("%m"), day:.event_timestamp|strftime("%d"), hour:.event_timestamp|strftime("%H")}"#;
        let keys = keys_of(query, RECORD).unwrap();
        let wanted = [
            ("customer_id", "1234567890"),
            ("device", "mobile"),
            ("year", "2019"),
            ("month", "08"),
            ("day", "09"),
            ("hour", "20"),
        ];
        assert_eq!(pairs(&keys), wanted);
        let compiled = Query::compile(query).unwrap();
        assert_eq!(compiled.keys().unwrap(), wanted.map(|(key, _)| key));
    }

    #[test]
    fn values_are_texts_numbers_and_booleans() {
        let query = r#"{a: .event_timestamp, b: .on, "c d": (.list|length), e: (.embedded|fromjson|.a), f: (.list|sort|first),
            g: (.region|ascii_upcase|.[0:3]), h: (.none // "nothing"), i: "\(.region)-\(.customer_id)", j: (.customer_id|tonumber % 7)}"#;
        let keys = keys_of(query, RECORD).unwrap();
        let wanted = [
            ("a", "1565382027"),
            ("b", "true"),
            ("c d", "3"),
            ("e", "7"),
            ("f", "1"),
            ("g", "SAM"),
            ("h", "nothing"),
            ("i", "sample_region-1234567890"),
            ("j", "3"),
        ];
        assert_eq!(pairs(&keys), wanted);
    }

    #[test]
    fn a_record_without_keys_says_why() {
        for (query, record, word) in [
            ("{a: .a}", "{}", "null or empty"),
            ("{a: .a}", r#"{"a":""}"#, "null or empty"),
            ("{a: .a}", r#"{"a":[1]}"#, "text, a number or a boolean"),
            ("{a: .a}", "no json", "Non JSON"),
            ("{a: .a}", "", "Non JSON"),
            ("{a: .a}", "{} {}", "Non JSON"),
            ("{a: .a}", "[1]", "index"),
            ("{a: .a[]}", r#"{"a":[1,2]}"#, "more than one"),
            ("{a: .a[]}", r#"{"a":[]}"#, "nothing"),
            (".a", r#"{"a":1}"#, "object of partition keys"),
        ] {
            let error = keys_of(query, record).unwrap_err();
            assert!(error.contains(word), "{query} {record}: {error}");
        }
        assert!(
            Query::compile("{a: .a}")
                .unwrap()
                .extract(b"{\"a\":\"\xff\"}")
                .unwrap_err()
                .contains("UTF-8")
        );
        let deep = "[".repeat(100_000);
        assert!(keys_of("{a: .a}", &deep).unwrap_err().contains("deep"));
        let record = serde_json::json!({ "a": deep }).to_string();
        assert!(keys_of("{a: (.a|fromjson)}", &record).unwrap_err().contains("deep"));
    }

    #[test]
    fn what_could_run_for_ever_or_fill_the_memory_is_refused() {
        let doubled = format!("{{a: (.a{})}}", "|.+.".repeat(60));
        let brackets = "(".repeat(5000);
        let minus = format!("{}1", "-".repeat(5000));
        let pipes = format!(".{}", "|.".repeat(2000));
        for query in [
            "{a: [range(1000000000)]|length}",
            "def f: f; f",
            "{a: (def f: 1 + f; f)}",
            "[recurse(.)]",
            "{a: (\"x\" * .n)}",
            "{a: ([limit(3; repeat(.))])}",
            "{a: ([{a: .d[], b: .d[], c: .d[]}]|length)}",
            "{a: (.a|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|.+.|length)}",
            "{a: (.d|any(. as $x | [$x]))}",
            "{a: (.s|gsub(\"a\"; \"x\", \"y\"))}",
            "{a: env.PATH}",
            "{a: $ENV.PATH}",
            "halt",
            "{a: input}",
            "reduce .[] as $x (0; . + $x)",
            "[.[]|.[]|.[]] | [.[] as $x | .[] | [$x, .]]",
            doubled.as_str(),
            brackets.as_str(),
            minus.as_str(),
            pipes.as_str(),
            "{a:",
            "",
            "{a: undefined_function}",
        ] {
            let refused = Query::compile(query).map(|_| ()).unwrap_err();
            assert!(
                refused.0.starts_with("Invalid MetadataExtractionQuery"),
                "{}",
                refused.0
            );
        }
    }

    /// Vectors of libjq. Keys come in the order of the query here, in any order there.
    #[test]
    fn queries_give_what_jq_gives() {
        let (mut compared, mut different) = (0, Vec::new());
        for line in include_str!("jq.tsv").lines().filter(|line| !line.starts_with('#')) {
            let [query, record, wanted] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not a vector: {line}");
            };
            let sorted = |mut keys: Keys| {
                keys.sort();
                keys
            };
            let found = keys_of(query, record).map(sorted);
            let same = match wanted {
                "-" => found.is_err(),
                wanted => found.as_ref() == Ok(&sorted(serde_json::from_str(wanted).unwrap())),
            };
            if !same {
                different.push(format!("{line}: {found:?}"));
            }
            compared += 1;
        }
        assert!(different.is_empty(), "{}", different.join("\n"));
        assert!(compared > 300, "{compared}");
    }
}
