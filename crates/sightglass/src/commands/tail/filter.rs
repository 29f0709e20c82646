//! Which records are shown, and what of them: JSON paths of RFC 9535.

use serde_json::Value;
use serde_json_path::JsonPath;

/// What must hold for a record.
#[derive(Debug)]
pub enum Condition {
    /// A path that finds something in the record.
    Finds(JsonPath),
    /// An expression on `@`, the record: a filter of a list that holds the record alone.
    Holds(JsonPath),
}

impl Condition {
    /// A path when it begins with `$`, else an expression on `@`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('$') {
            return path(text)
                .map(Condition::Finds)
                .map_err(|wrong| format!("{wrong}; a condition begins with @, the record: '@.temperature > 30'"));
        }
        JsonPath::parse(&format!("$[?{text}]")).map(Condition::Holds).map_err(|_| {
            format!(
                "{text:?} is no condition; write a JSON path such as '$.FaceSearchResponse[*]', or '@.temperature > 30'"
            )
        })
    }

    fn holds(&self, listed: &Value) -> bool {
        match self {
            Condition::Finds(path) => listed.get(0).is_some_and(|record| !path.query(record).is_empty()),
            Condition::Holds(path) => !path.query(listed).is_empty(),
        }
    }
}

/// A JSON path.
pub fn path(text: &str) -> Result<JsonPath, String> {
    JsonPath::parse(text).map_err(|error| format!("{text:?} is no JSON path: {error}"))
}

/// A record as JSON, ready to be asked.
pub struct Document(Value);

impl Document {
    /// The record's data.
    pub fn new(record: Value) -> Self {
        Document(Value::Array(vec![record]))
    }

    /// The data.
    pub fn value(&self) -> &Value {
        self.0.get(0).unwrap_or(&Value::Null)
    }

    /// Whether everything holds.
    pub fn fits(&self, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| condition.holds(&self.0))
    }

    /// What a path finds.
    pub fn found(&self, path: &JsonPath) -> Vec<&Value> {
        path.query(self.value()).all()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_and_conditions_hold() {
        let face =
            |similarity: f64| json!({ "FaceSearchResponse": [{ "MatchedFaces": [{ "Similarity": similarity }] }] });
        let fits = |text: &str, record: Value| Document::new(record).fits(&[Condition::parse(text).unwrap()]);
        let near = "$.FaceSearchResponse[*].MatchedFaces[?@.Similarity > 95]";
        assert!(fits(near, face(99.0)) && !fits(near, face(90.0)) && !fits(near, json!(3)));
        let hot = "@.t > 30 && @.room == 'kitchen'";
        assert!(fits(hot, json!({ "t": 31, "room": "kitchen" })));
        assert!(!fits(hot, json!({ "t": 31, "room": "hall" })) && !fits(hot, json!({})));
        assert!(fits("match(@.who, 'A.*')", json!({ "who": "Ann" })) && fits("@ == 3", json!(3)));
        assert!(fits("!@.error", json!({ "ok": 1 })));
        assert_eq!(
            Document::new(face(7.0)).found(&path("$..Similarity").unwrap()),
            [&json!(7.0)]
        );
    }

    #[test]
    fn what_is_no_path_is_told_with_an_example() {
        for wrong in ["$.a >", "$.a > 3", "temperature > 30", "", "@.a >"] {
            let said = Condition::parse(wrong).unwrap_err();
            assert!(said.contains("@.temperature > 30"), "{wrong}: {said}");
        }
    }
}
