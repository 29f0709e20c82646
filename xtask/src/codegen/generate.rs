//! The shapes of a service: types, schemas and operation markers. Never the models' prose.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use super::model::Model;
use super::names::{field_name, quoted, type_name, variant_name};
use super::operations::{self, HEAD};
use super::services::CUSTOM_PATTERNS;
use super::{GeneratedFile, Outcome};

/// Every generated source file of `wire`.
pub fn all(models: &[Model]) -> Outcome<Vec<GeneratedFile>> {
    let mut files = Vec::new();
    for model in models {
        let named = |e| format!("{}: {e}", model.service.model);
        files.push(operations::table(model).map_err(named)?);
        files.push(shapes(model).map_err(named)?);
    }
    files.push(module_list(models));
    files.push(operation_module_list(models));
    Ok(files)
}

fn module_list(models: &[Model]) -> GeneratedFile {
    let mut text = format!("{HEAD}pub mod operations;\npub mod reasons;\n\n");
    for model in models {
        let service = model.service;
        let _ = writeln!(
            text,
            "#[cfg(feature = {:?})]\npub mod {};",
            service.feature, service.module
        );
    }
    GeneratedFile {
        path: "crates/wire/src/generated/mod.rs".to_owned(),
        text,
    }
}

fn operation_module_list(models: &[Model]) -> GeneratedFile {
    let mut text = format!("{HEAD}use crate::operation::ServiceInfo;\n\n");
    for model in models {
        let _ = writeln!(text, "pub mod {};", model.service.module);
    }
    text.push_str("\npub static SERVICES: &[&ServiceInfo] = &[\n");
    for model in models {
        let _ = writeln!(text, "&{}::SERVICE,", model.service.module);
    }
    text.push_str("];\n");
    GeneratedFile {
        path: "crates/wire/src/generated/operations/mod.rs".to_owned(),
        text,
    }
}

fn shapes(model: &Model) -> Outcome<GeneratedFile> {
    let reachable = model.reachable()?;
    let defaults = Defaults::new(model, &reachable)?;
    let mut types = String::new();
    let mut schemas = String::new();
    let mut patterns = BTreeMap::new();
    for name in &reachable {
        match model.kind(name)? {
            "structure" => types.push_str(&structure(model, name, &defaults)?),
            "string" if model.shape(name)?.get("enum").is_some() => types.push_str(&enumeration(model, name)?),
            _ => {}
        }
        schemas.push_str(&schema(model, name, &mut patterns)?);
    }
    for (pattern, constant) in &patterns {
        schemas.push_str(&pattern_static(pattern, constant)?);
    }
    let mut markers = String::new();
    for (index, (name, operation)) in model.operations.iter().enumerate() {
        if !model.is_shaped(name) || model.side(operation, "input").is_none() && operation.get("access").is_some() {
            continue;
        }
        let side = |side| match model.side(operation, side) {
            Some(shape) => format!("super::{}", type_name(shape)),
            None => "()".to_owned(),
        };
        let output = match model.event(operation)? {
            Some(event) => {
                let event = type_name(event);
                format!("WithEvents<{}, super::{event}>", side("output"))
            }
            None => side("output"),
        };
        let _ = writeln!(
            markers,
            "operation!({name}, {:?}, {}, {}, &OPERATIONS[{index}]);",
            model.signing_name(),
            side("input"),
            output,
        );
    }
    let with_events = match markers.contains("WithEvents<") {
        true => "use crate::event_stream::WithEvents;\n",
        false => "",
    };
    Ok(GeneratedFile {
        path: format!("crates/wire/src/generated/{}.rs", model.service.module),
        text: format!(
            "{HEAD}{}\n{types}\npub mod op {{\n{with_events}use crate::generated::operations::{}::OPERATIONS;\n\
             use crate::shape::operation;\n\n{markers}}}\n\nmod schema {{\n{}\n{schemas}}}\n",
            type_imports(&types),
            model.service.module,
            schema_imports(&schemas),
        ),
    })
}

fn type_imports(types: &str) -> String {
    let mut text = String::new();
    for (mark, import) in [
        ("BTreeMap<", "use std::collections::BTreeMap;\n\n"),
        (" Timestamp", ""),
        ("Bytes", ""),
    ] {
        if types.contains(mark) {
            text.push_str(import);
        }
    }
    if types.contains("Timestamp,") || types.contains("<Timestamp>") {
        text.push_str("use base::Timestamp;\n");
    }
    if types.contains(": Bytes,") || types.contains("<Bytes>") {
        text.push_str("use bytes::Bytes;\n\n");
    }
    let macros: Vec<&str> = ["enumeration", "structure"]
        .into_iter()
        .filter(|name| types.contains(&format!("{name}!")))
        .collect();
    text + &format!("use crate::shape::{{{}}};\n", macros.join(", "))
}

fn schema_imports(schemas: &str) -> String {
    let mut names: Vec<&str> = vec!["Schema"];
    for (name, mark) in [
        ("ANY", "ANY"),
        ("Kind", "Kind::"),
        ("Pattern", "Pattern::"),
        ("length", "length("),
        ("optional", "optional("),
        ("required", "required("),
    ] {
        if schemas.contains(mark) {
            names.push(name);
        }
    }
    let patterns = if schemas.contains("patterns::") {
        "use crate::patterns;\n"
    } else {
        ""
    };
    format!("{patterns}use crate::schema::{{{}}};\n", names.join(", "))
}

fn rust_type(model: &Model, name: &str) -> Outcome<String> {
    let shape = model.shape(name)?;
    let inner = |key: &str| {
        shape
            .get(key)
            .and_then(|m| m.get("shape")?.as_str())
            .ok_or(format!("{name}: no {key}"))
    };
    Ok(match model.kind(name)? {
        "structure" => type_name(name),
        "string" if shape.get("enum").is_some() => type_name(name),
        "string" => "String".to_owned(),
        "integer" => "i32".to_owned(),
        "long" => "i64".to_owned(),
        "float" => "f32".to_owned(),
        "double" => "f64".to_owned(),
        "boolean" => "bool".to_owned(),
        "timestamp" => "Timestamp".to_owned(),
        "blob" => "Bytes".to_owned(),
        "list" => format!("Vec<{}>", rust_type(model, inner("member")?)?),
        "map" => format!("BTreeMap<String, {}>", rust_type(model, inner("value")?)?),
        other => return Err(format!("{name}: type {other} is not known")),
    })
}

fn structure(model: &Model, name: &str, defaults: &Defaults<'_>) -> Outcome<String> {
    let derive = if defaults.has(name) { "#[derive(Default)]\n" } else { "" };
    let mut text = format!("structure! {{\n{derive}{} {{\n", type_name(name));
    for member in model.members(name)? {
        let plain = rust_type(model, member.shape)?;
        let rust = if member.required {
            plain
        } else {
            format!("Option<{plain}>")
        };
        let _ = writeln!(text, "{}: {rust},", field_name(member.name));
    }
    text.push_str("}\n}\n\n");
    Ok(indent(&text))
}

fn enumeration(model: &Model, name: &str) -> Outcome<String> {
    let mut text = format!("enumeration! {{\n{} {{\n", type_name(name));
    let mut seen = BTreeSet::new();
    for value in enum_values(model, name)? {
        let mut variant = variant_name(value);
        while !seen.insert(variant.clone()) {
            variant.push('_');
        }
        let _ = writeln!(text, "{variant} = {value:?},");
    }
    text.push_str("}\n}\n\n");
    Ok(indent(&text))
}

/// rustfmt leaves the inside of macro braces alone.
fn indent(text: &str) -> String {
    let mut depth = 0usize;
    let mut out = String::new();
    for line in text.lines() {
        depth -= usize::from(line.starts_with('}'));
        if !line.is_empty() {
            out.push_str(&"    ".repeat(depth));
        }
        out.push_str(line);
        out.push('\n');
        depth += usize::from(line.ends_with('{'));
    }
    out
}

fn enum_values<'a>(model: &'a Model, name: &str) -> Outcome<Vec<&'a str>> {
    let values = model
        .shape(name)?
        .get("enum")
        .and_then(Value::as_array)
        .ok_or("no enum")?;
    Ok(values.iter().filter_map(Value::as_str).collect())
}

fn schema<'a>(model: &'a Model, name: &str, patterns: &mut BTreeMap<&'a str, String>) -> Outcome<String> {
    let shape = model.shape(name)?;
    let reference = |key: &str| {
        let target = shape.get(key).and_then(|m| m.get("shape")?.as_str());
        target
            .map(|t| format!("&{}", static_name(t)))
            .ok_or(format!("{name}: no {key}"))
    };
    let made = match model.kind(name)? {
        "structure" => format!("structure({name:?}, &[{}])", members(model, name)?),
        "list" => format!("list({name:?}, {}, {})", reference("member")?, length(shape)),
        "map" => format!(
            "map({name:?}, {}, {}, {})",
            reference("key")?,
            reference("value")?,
            length(shape)
        ),
        "string" if shape.get("enum").is_some() => format!("enumeration({name:?}, &{:?})", enum_values(model, name)?),
        "string" => match shape.get("pattern").and_then(Value::as_str) {
            None => format!("text({name:?}, {})", length(shape)),
            Some(pattern) => {
                let next = format!("PATTERN_{}", patterns.len());
                let constant = patterns.entry(pattern).or_insert(next);
                format!("pattern({name:?}, {}, &{constant})", length(shape))
            }
        },
        "integer" => format!(
            "new({name:?}, Kind::Integer({}))",
            whole(shape, i64::from(i32::MIN), i64::from(i32::MAX))
        ),
        "long" => format!("new({name:?}, Kind::Long({}))", whole(shape, i64::MIN, i64::MAX)),
        "float" => format!("new({name:?}, Kind::Float({}))", real(shape)),
        "double" => format!("new({name:?}, Kind::Double({}))", real(shape)),
        "boolean" => format!("new({name:?}, Kind::Boolean)"),
        "timestamp" => format!("new({name:?}, Kind::Timestamp)"),
        "blob" => format!("new({name:?}, Kind::Blob({}))", length(shape)),
        other => return Err(format!("{name}: type {other} is not known")),
    };
    let sensitive = if shape.get("sensitive").is_some() {
        ".sensitive()"
    } else {
        ""
    };
    Ok(format!(
        "pub static {}: Schema = Schema::{made}{sensitive};\n",
        static_name(name)
    ))
}

/// Schemas have the name of their type; text and the like have none, so any name will do.
fn static_name(name: &str) -> String {
    type_name(name)
}

fn members(model: &Model, name: &str) -> Outcome<String> {
    let mut text = String::new();
    for member in model.members(name)? {
        let function = if member.required { "required" } else { "optional" };
        let header = member.header.map(|h| format!(".in_header({h:?})")).unwrap_or_default();
        let _ = write!(
            text,
            "{function}({:?}, &{}){header}, ",
            member.name,
            static_name(member.shape)
        );
    }
    Ok(text)
}

fn length(shape: &Value) -> String {
    let bound = |key: &str| shape.get(key).and_then(Value::as_u64);
    match (bound("min"), bound("max")) {
        (None, None) => "ANY".to_owned(),
        (min, Some(max)) => format!("length({}, {max})", min.unwrap_or(0)),
        (Some(min), None) => format!("length({min}, u64::MAX)"),
    }
}

fn whole(shape: &Value, lowest: i64, highest: i64) -> String {
    let bound = |key: &str, otherwise| shape.get(key).and_then(Value::as_i64).unwrap_or(otherwise);
    let show = |value: i64| match value {
        i64::MIN => "i64::MIN".to_owned(),
        i64::MAX => "i64::MAX".to_owned(),
        other => other.to_string(),
    };
    format!("{}, {}", show(bound("min", lowest)), show(bound("max", highest)))
}

fn real(shape: &Value) -> String {
    let bound = |key: &str| shape.get(key).and_then(Value::as_f64);
    let min = bound("min").map_or("f64::NEG_INFINITY".to_owned(), |v| format!("{v:?}"));
    let max = bound("max").map_or("f64::INFINITY".to_owned(), |v| format!("{v:?}"));
    format!("{min}, {max}")
}

fn pattern_static(pattern: &str, constant: &str) -> Outcome<String> {
    let custom = CUSTOM_PATTERNS.iter().find(|(known, _)| *known == pattern);
    let text = quoted(pattern);
    if let Some((_, function)) = custom {
        return Ok(format!(
            "static {constant}: Pattern = Pattern::custom({text}, patterns::{function});\n"
        ));
    }
    regex_lite::Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| format!("pattern {pattern}: {e}: needs a function in wire::patterns"))?;
    Ok(format!("static {constant}: Pattern = Pattern::regex({text});\n"))
}

/// Which structures have a default: those whose required members all have one.
struct Defaults<'a>(BTreeSet<&'a str>);

impl<'a> Defaults<'a> {
    fn new(model: &'a Model, reachable: &BTreeSet<&'a str>) -> Outcome<Self> {
        let mut with = BTreeSet::new();
        loop {
            let before = with.len();
            for name in reachable {
                if model.kind(name)? != "structure" || with.contains(name) {
                    continue;
                }
                let mut all = true;
                for member in model.members(name)?.iter().filter(|m| m.required) {
                    all &= match model.kind(member.shape)? {
                        "structure" => with.contains(member.shape),
                        "string" => model.shape(member.shape)?.get("enum").is_none(),
                        _ => true,
                    };
                }
                if all {
                    with.insert(*name);
                }
            }
            if with.len() == before {
                return Ok(Defaults(with));
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
