//! Policies in a subset of IAM's JSON: `Version`, `Statement` with `Effect`, `Action` or `NotAction`, `Resource` or
//! `NotResource`, `*` and `?`. What is not in the subset (`Condition`, `Principal`, policy variables) is refused when the
//! key is made, so that no rule is ever silently ignored. A denial wins over every permission.

use std::fmt;

use base::{ApiError, Authorizer, Caller};
use serde_json::{Map, Value};

use crate::limits::{POLICY_BYTES_MAX, POLICY_LIST_MAX};

/// The text is not a policy of the subset; the message says where and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy: {0}")]
pub struct PolicyError(pub String);

/// Which names a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    /// Those that match one of the patterns.
    Of(Vec<String>),
    /// Those that match none.
    NotOf(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    denies: bool,
    actions: Names,
    resources: Names,
}

/// A parsed policy.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    text: String,
    statements: Vec<Statement>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(why.into()))
}

impl Policy {
    /// Reads a policy. Errors name the statement and the member.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return refuse(format!("{} bytes, at most {POLICY_BYTES_MAX} are allowed", text.len()));
        }
        let value: Value = serde_json::from_str(text).map_err(|e| PolicyError(format!("not JSON: {e}")))?;
        let Value::Object(members) = value else {
            return refuse("the document is not an object");
        };
        if let Some(unknown) = members
            .keys()
            .find(|k| !matches!(k.as_str(), "Version" | "Id" | "Statement"))
        {
            return refuse(format!("unknown member {unknown:?}"));
        }
        match members.get("Version") {
            None => {}
            Some(Value::String(version)) if version == "2012-10-17" || version == "2008-10-17" => {}
            Some(other) => return refuse(format!("Version {other} is not \"2012-10-17\"")),
        }
        let statements = match members.get("Statement") {
            Some(Value::Object(one)) => vec![statement(0, one)?],
            Some(Value::Array(many)) if many.len() <= POLICY_LIST_MAX => statements(many)?,
            _ => return refuse("Statement must be a statement or a list of statements"),
        };
        Ok(Policy {
            text: text.to_owned(),
            statements,
        })
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn statements(many: &[Value]) -> Result<Vec<Statement>, PolicyError> {
    let one = |(index, value): (usize, &Value)| match value {
        Value::Object(members) => statement(index, members),
        _ => refuse(format!("Statement[{index}] is not an object")),
    };
    many.iter().enumerate().map(one).collect()
}

fn statement(index: usize, members: &Map<String, Value>) -> Result<Statement, PolicyError> {
    for key in members.keys() {
        match key.as_str() {
            "Sid" | "Effect" | "Action" | "NotAction" | "Resource" | "NotResource" => {}
            "Condition" => return refuse(format!("Statement[{index}]: Condition is not supported")),
            "Principal" | "NotPrincipal" => {
                return refuse(format!(
                    "Statement[{index}]: {key} does not belong in the policy of a key"
                ));
            }
            _ => return refuse(format!("Statement[{index}]: unknown member {key:?}")),
        }
    }
    let denies = match members.get("Effect").and_then(Value::as_str) {
        Some("Allow") => false,
        Some("Deny") => true,
        _ => return refuse(format!("Statement[{index}]: Effect must be \"Allow\" or \"Deny\"")),
    };
    Ok(Statement {
        denies,
        actions: names(index, members, "Action", "NotAction", action_shape)?,
        resources: names(index, members, "Resource", "NotResource", resource_shape)?,
    })
}

fn action_shape(pattern: &str) -> Result<(), &'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'*' | b'?' | b':');
    let service = pattern.split_once(':').filter(|(service, name)| {
        !service.is_empty() && !name.is_empty() && !name.contains(':') && pattern.bytes().all(legal)
    });
    if pattern == "*" || service.is_some() {
        return Ok(());
    }
    Err("an action is \"*\" or \"service:Name\"")
}

fn resource_shape(pattern: &str) -> Result<(), &'static str> {
    if pattern.contains("${") {
        return Err("policy variables are not supported");
    }
    if pattern == "*" || pattern.starts_with("arn:") {
        return Ok(());
    }
    Err("a resource is \"*\" or an ARN")
}

fn names(
    index: usize,
    members: &Map<String, Value>,
    of: &str,
    not_of: &str,
    shape: fn(&str) -> Result<(), &'static str>,
) -> Result<Names, PolicyError> {
    let (name, value) = match (members.get(of), members.get(not_of)) {
        (Some(value), None) => (of, value),
        (None, Some(value)) => (not_of, value),
        _ => {
            return refuse(format!(
                "Statement[{index}]: exactly one of {of} and {not_of} is needed"
            ));
        }
    };
    let one = |value: &Value| match value {
        Value::String(pattern) => shape(pattern)
            .map(|()| pattern.clone())
            .map_err(|why| PolicyError(format!("Statement[{index}].{name}: {pattern:?}: {why}"))),
        _ => refuse(format!("Statement[{index}].{name} must hold strings")),
    };
    let patterns = match value {
        Value::Array(many) if many.is_empty() || many.len() > POLICY_LIST_MAX => {
            return refuse(format!(
                "Statement[{index}].{name} must hold 1 to {POLICY_LIST_MAX} strings"
            ));
        }
        Value::Array(many) => many.iter().map(one).collect::<Result<_, _>>()?,
        single => vec![one(single)?],
    };
    Ok(if name == of {
        Names::Of(patterns)
    } else {
        Names::NotOf(patterns)
    })
}

/// Does `pattern` match all of `text`? `*` is any run of characters, `?` any one; everything in `text` is literal.
fn covers(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

/// Is there a text beginning with `prefix` that `pattern` matches?
fn meets(pattern: &[u8], prefix: &[u8]) -> bool {
    // The positions of `pattern` that can be reached after each byte of `prefix`.
    let mut reached = vec![false; pattern.len() + 1];
    reach(&mut reached, pattern, 0);
    for byte in prefix {
        let mut next = vec![false; pattern.len() + 1];
        for (position, wanted) in pattern.iter().enumerate() {
            if reached.get(position) != Some(&true) {
                continue;
            }
            match wanted {
                b'*' => reach(&mut next, pattern, position),
                c if *c == b'?' || c == byte => reach(&mut next, pattern, position + 1),
                _ => {}
            }
        }
        reached = next;
    }
    reached.contains(&true)
}

/// Marks a position, and those behind it that a `*` lets pass without a byte.
fn reach(marks: &mut [bool], pattern: &[u8], from: usize) {
    let mut position = from;
    while let Some(mark) = marks.get_mut(position) {
        *mark = true;
        if pattern.get(position) != Some(&b'*') {
            return;
        }
        position += 1;
    }
}

/// What of a name the request knows.
#[derive(Clone, Copy)]
enum Known<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The literal text, and the prefix that is known of it: the request's resource ends in `/*`.
    Prefix(&'a [u8], &'a [u8]),
}

impl<'a> Known<'a> {
    fn of(resource: &'a str) -> Self {
        match resource.strip_suffix('*').filter(|prefix| prefix.ends_with('/')) {
            Some(prefix) => Known::Prefix(resource.as_bytes(), prefix.as_bytes()),
            None => Known::Whole(resource.as_bytes()),
        }
    }

    /// Every resource that is meant matches.
    fn surely(self, pattern: &str) -> bool {
        let (Known::Whole(text) | Known::Prefix(text, _)) = self;
        covers(pattern.as_bytes(), text)
    }

    /// Some resource that may be meant matches.
    fn perhaps(self, pattern: &str) -> bool {
        match self {
            Known::Whole(text) => covers(pattern.as_bytes(), text),
            Known::Prefix(_, prefix) => meets(pattern.as_bytes(), prefix),
        }
    }
}

impl Statement {
    fn is_about(&self, action: &str) -> bool {
        let one = |pattern: &String| covers(pattern.to_ascii_lowercase().as_bytes(), action.as_bytes());
        match &self.actions {
            Names::Of(patterns) => patterns.iter().any(one),
            Names::NotOf(patterns) => !patterns.iter().any(one),
        }
    }

    /// A permission needs certainty, a denial takes the possibility.
    fn applies_to(&self, resource: Known<'_>) -> bool {
        match (&self.resources, self.denies) {
            (Names::Of(patterns), false) => patterns.iter().any(|p| resource.surely(p)),
            (Names::Of(patterns), true) => patterns.iter().any(|p| resource.perhaps(p)),
            (Names::NotOf(patterns), false) => !patterns.iter().any(|p| resource.perhaps(p)),
            (Names::NotOf(patterns), true) => !patterns.iter().any(|p| resource.surely(p)),
        }
    }
}

/// Actions match in any case, resources exactly. A resource that ends in `/*` stands for one whose end is not known yet
/// (`arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/*`): it is allowed only by a pattern that covers all of
/// them, and denied by one that covers any.
impl Authorizer for Policy {
    fn allows(&self, action: &str, resource: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let known = Known::of(resource);
        let mut allowed = false;
        for statement in self.statements.iter().filter(|s| s.is_about(&action)) {
            if statement.applies_to(known) {
                if statement.denies {
                    return false;
                }
                allowed = true;
            }
        }
        allowed
    }
}

/// AWS's answer to a caller whose policy does not allow an action.
pub fn access_denied(caller: &Caller, action: &str, resource: &str) -> ApiError {
    let who = &caller.principal_arn;
    ApiError::client(
        "AccessDeniedException",
        format!("User: {who} is not authorized to perform: {action} on resource: {resource}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: &str = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1795347223436";

    fn policy(statement: &str) -> Policy {
        Policy::parse(&format!("{{\"Version\":\"2012-10-17\",\"Statement\":{statement}}}")).unwrap()
    }

    #[test]
    fn only_what_is_allowed_is_allowed() {
        let p = policy(
            r#"{"Effect":"Allow","Action":["kinesisvideo:Put*","kinesisvideo:Get?edia"],
                "Resource":"arn:aws:kinesisvideo:*:000000000000:stream/door/*"}"#,
        );
        assert!(p.allows("kinesisvideo:PutMedia", DOOR));
        assert!(p.allows("KinesisVideo:getmedia", DOOR));
        assert!(!p.allows("kinesisvideo:GetClip", DOOR));
        assert!(!p.allows("kinesis:PutMedia", DOOR));
        assert!(!p.allows("kinesisvideo:PutMedia", &DOOR.replace("door", "Door")));
        assert!(!p.allows("kinesisvideo:PutMedia", "*"));
    }

    #[test]
    fn a_denial_wins_wherever_it_stands() {
        for order in [
            r#"[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"kinesisvideo:Delete*","Resource":"*"}]"#,
            r#"[{"Effect":"Deny","Action":"kinesisvideo:Delete*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]"#,
        ] {
            let p = policy(order);
            assert!(p.allows("kinesisvideo:GetMedia", DOOR));
            assert!(!p.allows("kinesisvideo:DeleteStream", DOOR));
        }
    }

    #[test]
    fn not_action_and_not_resource_mean_all_others() {
        let p = policy(
            r#"[{"Effect":"Allow","NotAction":"rekognition:*","NotResource":"arn:aws:kinesisvideo:*:*:stream/vault/*"}]"#,
        );
        assert!(p.allows("kinesisvideo:GetMedia", DOOR));
        assert!(!p.allows("rekognition:ListFaces", "*"));
        assert!(!p.allows("kinesisvideo:GetMedia", &DOOR.replace("door", "vault")));
        let p = policy(
            r#"[{"Effect":"Allow","Action":"*","Resource":"*"},
                {"Effect":"Deny","Action":"*","NotResource":"arn:aws:kinesisvideo:*:*:stream/door/*"}]"#,
        );
        assert!(p.allows("kinesisvideo:GetMedia", DOOR));
        assert!(!p.allows("kinesisvideo:GetMedia", &DOOR.replace("door", "yard")));
    }

    #[test]
    fn a_resource_known_by_name_alone_is_allowed_for_sure_or_denied_by_possibility() {
        let open = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/*";
        let allow = |pattern: &str| policy(&format!(r#"{{"Effect":"Allow","Action":"*","Resource":"{pattern}"}}"#));
        assert!(allow(open).allows("a:B", open));
        assert!(allow("*").allows("a:B", open));
        assert!(allow("arn:aws:kinesisvideo:*:*:stream/d*/*").allows("a:B", open));
        assert!(!allow(DOOR).allows("a:B", open), "one creation time does not cover all");
        assert!(!allow("arn:aws:kinesisvideo:*:*:stream/yard/*").allows("a:B", open));
        let deny = |pattern: &str| {
            policy(&format!(
                r#"[{{"Effect":"Allow","Action":"*","Resource":"*"}},{{"Effect":"Deny","Action":"*","Resource":"{pattern}"}}]"#
            ))
        };
        assert!(!deny(DOOR).allows("a:B", open), "it may be the denied one");
        assert!(!deny("arn:*/1795347223436").allows("a:B", open));
        assert!(!deny("arn:aws:kinesisvideo:us-west-2:000000000000:stream/d?or/1*").allows("a:B", open));
        assert!(deny("arn:aws:kinesisvideo:us-west-2:000000000000:stream/yard/*").allows("a:B", open));
        assert!(deny("arn:aws:kinesisvideo:us-west-2:000000000000:stream/doo").allows("a:B", open));
    }

    #[test]
    fn what_is_not_understood_is_refused_at_once() {
        for (text, why) in [
            ("", "not JSON"),
            ("[]", "not an object"),
            (r#"{"Version":"2013-01-01","Statement":[]}"#, "Version"),
            (r#"{"Statement":3}"#, "Statement must be"),
            (r#"{"Statement":[],"Extra":1}"#, "unknown member"),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}}"#,
                "Condition",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}"#,
                "Principal",
            ),
            (
                r#"{"Statement":{"Effect":"allow","Action":"*","Resource":"*"}}"#,
                "Effect",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*"}}"#,
                "exactly one of Resource",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}}"#,
                "exactly one of Action",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"PutMedia","Resource":"*"}}"#,
                "an action is",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}"#,
                "must hold 1 to",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"stream/x"}}"#,
                "a resource is",
            ),
            (
                r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username}"}}"#,
                "variables",
            ),
        ] {
            let error = Policy::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!(r#"{{"Statement":[],"Id":"{}"}}"#, "x".repeat(POLICY_BYTES_MAX));
        assert!(Policy::parse(&long).is_err());
    }

    #[test]
    fn patterns_agree_with_an_obvious_matcher() {
        fn obvious(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) if obvious(rest, text) => true,
                (Some((b'*', _)), Some((_, tail))) => obvious(pattern, tail),
                (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && obvious(rest, tail),
                _ => false,
            }
        }
        let words = |n: usize| {
            (0..n).map(|i| {
                (0..i % 5 + i / 600 % 2)
                    .map(move |j| b"ab*?"[(i / 4usize.pow(j as u32)) % 4])
                    .collect::<Vec<u8>>()
            })
        };
        let texts: Vec<Vec<u8>> = words(700)
            .filter(|w| !w.contains(&b'*') && !w.contains(&b'?'))
            .collect();
        for pattern in words(1200) {
            for text in &texts {
                assert_eq!(covers(&pattern, text), obvious(&pattern, text), "{pattern:?} {text:?}");
            }
            for prefix in &texts {
                let some = texts.iter().any(|t| t.starts_with(prefix) && obvious(&pattern, t));
                assert!(!some || meets(&pattern, prefix), "{pattern:?} {prefix:?}");
            }
        }
        assert!(meets(b"ab*", b"abc") && meets(b"abcd", b"ab") && meets(b"*d", b"abc") && meets(b"a?c*", b"a"));
        assert!(!meets(b"abx*", b"abc") && !meets(b"ab", b"abc") && !meets(b"", b"a"));
    }
}
