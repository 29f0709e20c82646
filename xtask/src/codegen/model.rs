//! A service model as far as the generator needs it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Outcome;
use super::services::Service;

/// A parsed model with its supplement merged in.
pub struct Model {
    /// What the generator adds to the model.
    pub service: &'static Service,
    metadata: Map<String, Value>,
    /// The operations by name.
    pub operations: BTreeMap<String, Value>,
    shapes: BTreeMap<String, Value>,
}

/// A member of a structure.
pub struct MemberModel<'a> {
    /// Its name on the wire.
    pub name: &'a str,
    /// The name of its shape.
    pub shape: &'a str,
    /// A request without it is refused.
    pub required: bool,
    /// The header that carries it, in lower case.
    pub header: Option<String>,
}

impl Model {
    /// Reads a model's JSON text.
    pub fn parse(service: &'static Service, text: &str) -> Outcome<Model> {
        let main: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut model = Model {
            service,
            metadata: main
                .get("metadata")
                .and_then(Value::as_object)
                .cloned()
                .ok_or("no metadata")?,
            operations: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        model.merge(&main)?;
        if let Some(supplement) = service.supplement {
            model.merge(&serde_json::from_str(supplement).map_err(|e| format!("supplement: {e}"))?)?;
        }
        for wanted in service.shaped {
            if !model.operations.contains_key(*wanted) {
                return Err(format!("the model has no operation {wanted}"));
            }
        }
        Ok(model)
    }

    fn merge(&mut self, part: &Value) -> Outcome {
        for (key, into) in [("operations", &mut self.operations), ("shapes", &mut self.shapes)] {
            let entries = part.get(key).and_then(Value::as_object).ok_or(format!("no {key}"))?;
            into.extend(entries.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(())
    }

    /// True when the operation's shapes are generated.
    pub fn is_shaped(&self, operation: &str) -> bool {
        self.service.shaped.is_empty() || self.service.shaped.contains(&operation)
    }

    /// A text of the model's metadata; empty where absent.
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The service's name in a SigV4 scope.
    pub fn signing_name(&self) -> &str {
        match self.metadata("signingName") {
            "" => self.metadata("endpointPrefix"),
            name => name,
        }
    }

    /// A shape.
    pub fn shape(&self, name: &str) -> Outcome<&Value> {
        self.shapes
            .get(name)
            .ok_or_else(|| format!("{}: no shape {name}", self.service.model))
    }

    /// A shape's type in the model.
    pub fn kind(&self, name: &str) -> Outcome<&str> {
        self.shape(name)?
            .get("type")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{name}: no type"))
    }

    /// The input or output shape of an operation.
    pub fn side<'a>(&self, operation: &'a Value, side: &str) -> Option<&'a str> {
        operation.get(side)?.get("shape")?.as_str()
    }

    /// The members of a structure, without the one that is a stream.
    pub fn members<'a>(&'a self, name: &'a str) -> Outcome<Vec<MemberModel<'a>>> {
        let shape = self.shape(name)?;
        let required: Vec<&str> = shape
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let members = shape
            .get("members")
            .and_then(Value::as_object)
            .ok_or(format!("{name}: no members"))?;
        let mut found = Vec::new();
        for (member, value) in members {
            let target = value
                .get("shape")
                .and_then(Value::as_str)
                .ok_or(format!("{name}.{member}: no shape"))?;
            if self.is_stream(target)? {
                continue;
            }
            let header = match value.get("location").and_then(Value::as_str) {
                None => None,
                Some("header") => value
                    .get("locationName")
                    .and_then(Value::as_str)
                    .map(str::to_ascii_lowercase),
                Some(other) => return Err(format!("{name}.{member}: location {other} is not known")),
            };
            found.push(MemberModel {
                name: member,
                shape: target,
                required: required.contains(&member.as_str())
                    && !self.service.optional.contains(&(name, member.as_str())),
                header,
            });
        }
        Ok(found)
    }

    /// True for a streaming blob and for an event stream.
    pub fn is_stream(&self, name: &str) -> Outcome<bool> {
        let shape = self.shape(name)?;
        let flag = |key: &str| shape.get(key).and_then(Value::as_bool).unwrap_or(false);
        Ok(flag("streaming") || flag("eventstream"))
    }

    /// True when an input or output has a streaming member.
    pub fn has_stream(&self, name: Option<&str>) -> Outcome<bool> {
        let Some(name) = name else { return Ok(false) };
        for target in self.targets(name)? {
            if self.is_stream(target)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The structure of an operation's events; errors left out. The name of an event must be that of its structure.
    pub fn event<'a>(&'a self, operation: &'a Value) -> Outcome<Option<&'a str>> {
        let Some(output) = self.side(operation, "output") else {
            return Ok(None);
        };
        for target in self.targets(output)? {
            if self.shape(target)?.get("eventstream").is_none() {
                continue;
            }
            let members = self.shape(target)?.get("members").and_then(Value::as_object);
            let mut events = Vec::new();
            for (name, member) in members.into_iter().flatten() {
                let shape = member.get("shape").and_then(Value::as_str).unwrap_or_default();
                if self.shape(shape)?.get("exception").is_none() {
                    events.push((name, shape));
                }
            }
            return match events.as_slice() {
                [(name, shape)] if name == shape => Ok(Some(shape)),
                _ => Err(format!(
                    "{target}: one event of its structure's name is known, not {events:?}"
                )),
            };
        }
        Ok(None)
    }

    /// The shapes that a shape names directly.
    fn targets(&self, name: &str) -> Outcome<Vec<&str>> {
        let shape = self.shape(name)?;
        let one = |key: &str| shape.get(key)?.get("shape")?.as_str();
        let mut targets: Vec<&str> = ["member", "key", "value"].into_iter().filter_map(one).collect();
        if let Some(members) = shape.get("members").and_then(Value::as_object) {
            targets.extend(members.values().filter_map(|m| m.get("shape")?.as_str()));
        }
        Ok(targets)
    }

    /// Every shape reachable from the operations' inputs and outputs; errors, streams and their wrappers left out.
    pub fn reachable(&self) -> Outcome<BTreeSet<&str>> {
        let mut found = BTreeSet::new();
        let shaped = self.operations.iter().filter(|(name, _)| self.is_shaped(name));
        let sides = shaped.flat_map(|(_, o)| [self.side(o, "input"), self.side(o, "output")]);
        let mut queue: Vec<&str> = sides.flatten().collect();
        while let Some(name) = queue.pop() {
            let exception = self.shape(name)?.get("exception").is_some();
            if exception || found.contains(name) {
                continue;
            }
            if !self.is_stream(name)? {
                found.insert(name);
            }
            queue.extend(self.targets(name)?);
        }
        Ok(found)
    }

    /// The operation's declared errors: the code on the wire and the HTTP status.
    pub fn errors(&self, operation: &Value) -> Outcome<Vec<(String, u64)>> {
        let listed = operation
            .get("errors")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let names = listed.iter().filter_map(|e| e.get("shape")?.as_str());
        let mut found = Vec::new();
        for name in names {
            let shape = self.shape(name)?;
            let error = shape.get("error");
            let code = error.and_then(|e| e.get("code")?.as_str()).unwrap_or(name);
            let fault = shape.get("fault").and_then(Value::as_bool).unwrap_or(false);
            let status = error.and_then(|e| e.get("httpStatusCode")?.as_u64());
            found.push((code.to_owned(), status.unwrap_or(if fault { 500 } else { 400 })));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}
