//! The query protocol of STS: a form in, XML out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::conform::Malformed;
use crate::limits::{DOCUMENT_DEPTH_MAX, FORM_PAIRS_MAX};
use crate::operation::OperationInfo;
use crate::schema::{Kind, Schema};
use crate::time::to_iso8601;
use crate::value::Value;

/// A decoded form: `a=b&c=d`, percent-decoded, `+` for a space. Of equal names the last counts.
pub type Form = BTreeMap<String, String>;

/// Reads a form body or query string.
pub fn parse_form(body: &[u8]) -> Result<Form, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed("the form is not UTF-8".to_owned()))?;
    let mut form = Form::new();
    for pair in text.trim().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        form.insert(decode(name)?, decode(value)?);
        if form.len() > FORM_PAIRS_MAX {
            return Err(Malformed(format!("more than {FORM_PAIRS_MAX} form fields")));
        }
    }
    Ok(form)
}

/// The operation that a form names.
pub fn action(form: &Form) -> Option<&str> {
    form.get("Action").map(String::as_str)
}

fn decode(text: &str) -> Result<String, Malformed> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                match (high, low) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(Malformed("a percent sign without two hexadecimal digits".to_owned())),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| Malformed("the form is not UTF-8".to_owned()))
}

/// Gathers a form's fields into the tree that a schema describes (`Tags.member.1.Key=...`).
pub fn gather<'a>(form: &'a Form, schema: &'static Schema) -> Value<'a> {
    gather_at(form, schema, "", 0).unwrap_or(Value::Map(Vec::new()))
}

fn gather_at<'a>(form: &'a Form, schema: &'static Schema, prefix: &str, depth: usize) -> Option<Value<'a>> {
    if depth > DOCUMENT_DEPTH_MAX {
        return None;
    }
    match &schema.kind {
        Kind::Structure(members) => {
            let found: Vec<_> = members
                .iter()
                .filter_map(|member| {
                    let name = if prefix.is_empty() {
                        member.name.to_owned()
                    } else {
                        format!("{prefix}.{}", member.name)
                    };
                    let value = gather_at(form, member.schema, &name, depth + 1)?;
                    Some((Cow::Borrowed(member.name), value))
                })
                .collect();
            (!found.is_empty()).then_some(Value::Map(found))
        }
        Kind::List { element, .. } => {
            let item = |i: usize| gather_at(form, element, &format!("{prefix}.member.{i}"), depth + 1);
            let items: Vec<_> = (1..=FORM_PAIRS_MAX).map_while(item).collect();
            (!items.is_empty()).then_some(Value::List(items))
        }
        Kind::Map { value, .. } => {
            let entry = |i: usize| {
                let key = form.get(&format!("{prefix}.entry.{i}.key"))?;
                let value = gather_at(form, value, &format!("{prefix}.entry.{i}.value"), depth + 1)?;
                Some((Cow::Borrowed(key.as_str()), value))
            };
            let entries: Vec<_> = (1..=FORM_PAIRS_MAX).map_while(entry).collect();
            (!entries.is_empty()).then_some(Value::Map(entries))
        }
        _ => form.get(prefix).map(|text| Value::Text(Cow::Borrowed(text))),
    }
}

/// The XML answer of an operation.
pub fn write(info: &OperationInfo, value: &Value<'_>, schema: &'static Schema, request_id: &str) -> Vec<u8> {
    let mut out = format!(
        "<{0}Response xmlns=\"{1}\">\n  <{0}Result>",
        info.name, info.service.xml_namespace
    );
    write_value(&mut out, value, schema);
    out.push_str(&format!("</{}Result>\n  <ResponseMetadata><RequestId>", info.name));
    escape(&mut out, request_id);
    out.push_str(&format!("</RequestId></ResponseMetadata>\n</{}Response>\n", info.name));
    out.into_bytes()
}

/// The XML answer for an error. `sender` is true when the caller can mend it.
pub fn write_error(namespace: &str, code: &str, message: &str, sender: bool, request_id: &str) -> Vec<u8> {
    let mut out = format!(
        "<ErrorResponse xmlns=\"{namespace}\">\n  <Error>\n    <Type>{}</Type>\n    <Code>",
        if sender { "Sender" } else { "Receiver" }
    );
    escape(&mut out, code);
    out.push_str("</Code>\n    <Message>");
    escape(&mut out, message);
    out.push_str("</Message>\n  </Error>\n  <RequestId>");
    escape(&mut out, request_id);
    out.push_str("</RequestId>\n</ErrorResponse>\n");
    out.into_bytes()
}

fn write_value(out: &mut String, value: &Value<'_>, schema: &'static Schema) {
    let element = |out: &mut String, name: &str, value: &Value<'_>, schema: &'static Schema| {
        out.push_str(&format!("<{name}>"));
        write_value(out, value, schema);
        out.push_str(&format!("</{name}>"));
    };
    match (value, &schema.kind) {
        (Value::Fields(values), Kind::Structure(members)) => {
            for (value, member) in values.iter().zip(members.iter()).filter(|(v, _)| **v != Value::Null) {
                element(out, member.name, value, member.schema);
            }
        }
        (Value::List(items), Kind::List { element: inner, .. }) => {
            items.iter().for_each(|item| element(out, "member", item, inner));
        }
        (Value::Map(entries), Kind::Map { key, value: inner, .. }) => {
            for (name, value) in entries {
                out.push_str("<entry>");
                element(out, "key", &Value::Text(Cow::Borrowed(name)), key);
                element(out, "value", value, inner);
                out.push_str("</entry>");
            }
        }
        (Value::Text(text), _) => escape(out, text),
        (Value::Int(number), _) => out.push_str(&number.to_string()),
        (Value::Double(number), _) => out.push_str(&number.to_string()),
        (Value::Single(number), _) => out.push_str(&number.to_string()),
        (Value::Bool(flag), _) => out.push_str(if *flag { "true" } else { "false" }),
        (Value::Time(time), _) => out.push_str(&to_iso8601(*time)),
        (Value::Blob(bytes), _) => base64_simd::STANDARD.encode_append(bytes, out),
        _ => {}
    }
}

/// Text for XML; characters that XML cannot hold become U+FFFD.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}
