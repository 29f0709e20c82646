//! What a program measured, as a table for a person or as JSON for another program, and whether it is as promised.

use std::process::ExitCode;

use serde_json::{Value, json};

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    AtMost(f64),
    AtLeast(f64),
}

impl Promise {
    fn is_kept(self, measured: f64) -> bool {
        match self {
            Promise::AtMost(most) => measured <= most,
            Promise::AtLeast(least) => measured >= least,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    measured: f64,
    unit: &'static str,
    promise: Option<Promise>,
    /// What stands beside it: name and value.
    beside: Vec<(&'static str, f64)>,
}

impl Figure {
    pub fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Figure {
            what: what.into(),
            measured,
            unit,
            promise: None,
            beside: Vec::new(),
        }
    }

    #[must_use]
    pub fn promised(mut self, promise: Promise) -> Self {
        self.promise = Some(promise);
        self
    }

    #[must_use]
    pub fn beside(mut self, name: &'static str, value: f64) -> Self {
        self.beside.push((name, value));
        self
    }

    fn is_kept(&self) -> bool {
        self.promise.is_none_or(|promise| promise.is_kept(self.measured))
    }

    fn row(&self) -> String {
        let promise = match self.promise {
            None => String::new(),
            Some(Promise::AtMost(most)) => format!("at most {most:<6}"),
            Some(Promise::AtLeast(least)) => format!("at least {least:<5}"),
        };
        let kept = match (self.promise, self.is_kept()) {
            (None, _) => "",
            (Some(_), true) => "kept",
            (Some(_), false) => "MISSED",
        };
        let beside: Vec<String> = self
            .beside
            .iter()
            .map(|(name, value)| format!("{name} {value:.2}"))
            .collect();
        let (what, measured, unit) = (&self.what, self.measured, self.unit);
        let row = format!(
            "{what:<62} {measured:>9.2} {unit:<3} {promise:<15} {kept:<7}{}",
            beside.join(", ")
        );
        row.trim_end().to_owned()
    }

    fn json(&self) -> Value {
        let promise = self.promise.map(|promise| match promise {
            Promise::AtMost(most) => json!({ "at_most": most }),
            Promise::AtLeast(least) => json!({ "at_least": least }),
        });
        let beside: serde_json::Map<String, Value> = self
            .beside
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({ "what": self.what, "measured": self.measured, "unit": self.unit, "promise": promise,
            "kept": self.is_kept(), "beside": beside })
    }
}

/// The figures of one program.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    json: bool,
    figures: Vec<Figure>,
}

impl Report {
    /// `json` keeps standard output for one JSON document at the end.
    pub fn new(name: &'static str, json: bool) -> Self {
        Report {
            name,
            json,
            figures: Vec::new(),
        }
    }

    /// Says something that is no figure.
    pub fn say(&self, what: &str) {
        if self.json {
            eprintln!("{what}");
        } else {
            println!("{what}");
        }
    }

    pub fn add(&mut self, figure: Figure) {
        self.say(&figure.row());
        self.figures.push(figure);
    }

    /// Prints the document if it is wanted; fails where a promise is missed.
    pub fn finish(self) -> ExitCode {
        let kept = self.figures.iter().all(Figure::is_kept);
        if self.json {
            let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
            println!("{}", json!({ "bench": self.name, "kept": kept, "figures": figures }));
        }
        if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_its_promise_is_kept() {
        let figure = |measured, promise| Figure::new("pages", measured, "ms").promised(promise);
        assert!(figure(20.0, Promise::AtMost(20.0)).is_kept() && !figure(20.1, Promise::AtMost(20.0)).is_kept());
        assert!(figure(0.7, Promise::AtLeast(0.7)).is_kept() && !figure(0.69, Promise::AtLeast(0.7)).is_kept());
        assert!(figure(3.0, Promise::AtMost(2.0)).row().contains("MISSED"));
        assert!(Figure::new("memory", 1e9, "MiB").is_kept());
        assert_eq!(
            figure(1.0, Promise::AtMost(2.0)).beside("slowest", 3.5).json()["beside"]["slowest"],
            3.5
        );
    }
}
