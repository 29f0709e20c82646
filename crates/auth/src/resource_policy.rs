//! Policies that belong to a resource: the same subset as a key's, and each statement names its `Principal`. They let
//! other accounts in, and shut out those of the own one that they deny.

use std::fmt;

use base::{AccountId, Authorizer, Caller};
use serde_json::Value;

use crate::limits::{POLICY_BYTES_MAX, POLICY_LIST_MAX};
use crate::policy::{Policy, PolicyError};

/// What a resource's policy says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A statement denies it.
    Denied,
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement is about it.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    Everyone,
    Account(AccountId),
    Identity(String),
    /// A service of AWS; none calls this server.
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    denies: bool,
    principals: Vec<Principal>,
    /// The statement as a policy that only allows.
    says: Policy,
}

/// A parsed policy of a resource.
#[derive(Clone, PartialEq, Eq)]
pub struct ResourcePolicy {
    statements: Vec<Statement>,
}

impl fmt::Debug for ResourcePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourcePolicy({} statements)", self.statements.len())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(why.into()))
}

impl ResourcePolicy {
    /// Reads a policy. What is outside the subset is refused, so that no rule is silently ignored.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return refuse(format!("{} bytes, at most {POLICY_BYTES_MAX} are allowed", text.len()));
        }
        let mut document: Value = serde_json::from_str(text).map_err(|e| PolicyError(format!("not JSON: {e}")))?;
        let Some(list) = document.get_mut("Statement").map(Value::take) else {
            return refuse("Statement must be a statement or a list of statements");
        };
        let list = match list {
            Value::Array(many) if many.len() <= POLICY_LIST_MAX => many,
            Value::Array(many) => return refuse(format!("{} statements, at most {POLICY_LIST_MAX}", many.len())),
            one => vec![one],
        };
        let read = |(index, value): (usize, Value)| statement(index, value, &document);
        let statements = list.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(ResourcePolicy { statements })
    }

    /// What the policy says of an action of a caller on the resource.
    pub fn verdict(&self, caller: &Caller, action: &str, resource: &str) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in &self.statements {
            let about = statement.principals.iter().any(|p| p.is(caller)) && statement.says.allows(action, resource);
            match (about, statement.denies) {
                (true, true) => return Verdict::Denied,
                (true, false) => verdict = Verdict::Allowed,
                (false, _) => {}
            }
        }
        verdict
    }
}

impl Principal {
    fn is(&self, caller: &Caller) -> bool {
        match self {
            Principal::Everyone => true,
            Principal::Account(account) => *account == caller.account,
            Principal::Identity(arn) => **arn == *caller.principal_arn,
            Principal::Service => false,
        }
    }
}

fn statement(index: usize, value: Value, document: &Value) -> Result<Statement, PolicyError> {
    let Value::Object(mut members) = value else {
        return refuse(format!("Statement[{index}] is not an object"));
    };
    let Some(named) = members.remove("Principal") else {
        return refuse(format!("Statement[{index}]: Principal is needed"));
    };
    let principals = principals(&named).map_err(|why| PolicyError(format!("Statement[{index}].Principal: {why}")))?;
    let denies = members.get("Effect").and_then(Value::as_str) == Some("Deny");
    if denies {
        members.insert("Effect".to_owned(), "Allow".into());
    }
    let mut alone = document.clone();
    if let Some(place) = alone.as_object_mut() {
        place.insert("Statement".to_owned(), Value::Object(members));
    }
    let says = Policy::parse(&alone.to_string())
        .map_err(|PolicyError(why)| PolicyError(why.replacen("Statement[0]", &format!("Statement[{index}]"), 1)))?;
    Ok(Statement {
        denies,
        principals,
        says,
    })
}

fn principals(value: &Value) -> Result<Vec<Principal>, String> {
    let kinds = match value {
        Value::String(text) if text == "*" => return Ok(vec![Principal::Everyone]),
        Value::Object(kinds) if !kinds.is_empty() => kinds,
        _ => return Err("it is \"*\", or names accounts and identities under \"AWS\"".to_owned()),
    };
    let mut found = Vec::new();
    for (kind, value) in kinds {
        let texts: Vec<&str> = match value {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if texts.is_empty() || texts.len() > POLICY_LIST_MAX {
            return Err(format!("{kind} must hold 1 to {POLICY_LIST_MAX} strings"));
        }
        for text in texts {
            found.push(match kind.as_str() {
                "AWS" => aws(text).ok_or_else(|| format!("{text:?} is no account and no identity"))?,
                "Service" => Principal::Service,
                other => return Err(format!("{other:?} is not supported")),
            });
        }
    }
    Ok(found)
}

/// An account's number, the ARN of its root, or the ARN of an identity.
fn aws(text: &str) -> Option<Principal> {
    if text == "*" {
        return Some(Principal::Everyone);
    }
    if let Ok(account) = text.parse() {
        return Some(Principal::Account(account));
    }
    let mut parts = text.splitn(6, ':');
    let head = parts.next() == Some("arn") && parts.next()?.starts_with("aws");
    let service = parts.next()?;
    let (_, account) = (parts.next()?, parts.next()?.parse().ok()?);
    let rest = parts.next()?;
    match (head && matches!(service, "iam" | "sts"), rest) {
        (false, _) | (_, "") => None,
        (true, "root") => Some(Principal::Account(account)),
        (true, _) => Some(Principal::Identity(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Everything;

    impl Authorizer for Everything {
        fn allows(&self, _: &str, _: &str) -> bool {
            true
        }
    }

    fn caller(account: &str, name: &str) -> Caller {
        Caller {
            account: account.parse().unwrap(),
            region: "us-west-2".parse().unwrap(),
            access_key_id: "AKIA".into(),
            principal_arn: format!("arn:aws:iam::{account}:{name}").into(),
            authorizer: Arc::new(Everything),
        }
    }

    const STREAM: &str = "arn:aws:kinesis:us-west-2:000000000000:stream/seen";

    fn policy(statements: &str) -> ResourcePolicy {
        ResourcePolicy::parse(&format!("{{\"Version\":\"2012-10-17\",\"Statement\":{statements}}}")).unwrap()
    }

    #[test]
    fn who_is_named_is_let_in_and_nobody_else() {
        let p = policy(
            r#"[{"Sid":"a","Effect":"Allow","Principal":{"AWS":["111122223333","arn:aws:iam::444455556666:user/ann"]},
                 "Action":["kinesis:Get*","kinesis:PutRecord"],"Resource":"arn:aws:kinesis:us-west-2:000000000000:stream/seen"}]"#,
        );
        let says = |c: &Caller, action: &str| p.verdict(c, action, STREAM);
        assert_eq!(
            says(&caller("111122223333", "user/bob"), "kinesis:GetRecords"),
            Verdict::Allowed
        );
        assert_eq!(
            says(&caller("444455556666", "user/ann"), "kinesis:PutRecord"),
            Verdict::Allowed
        );
        assert_eq!(
            says(&caller("444455556666", "user/bob"), "kinesis:PutRecord"),
            Verdict::Silent
        );
        assert_eq!(
            says(&caller("111122223333", "root"), "kinesis:DeleteStream"),
            Verdict::Silent
        );
        assert_eq!(
            p.verdict(&caller("111122223333", "root"), "kinesis:PutRecord", "arn:x"),
            Verdict::Silent
        );
    }

    #[test]
    fn a_denial_wins_wherever_it_stands() {
        let p = policy(
            r#"[{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kinesis:Put*","Resource":"*"},
                {"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]"#,
        );
        assert_eq!(
            p.verdict(&caller("111122223333", "root"), "kinesis:PutRecords", STREAM),
            Verdict::Denied
        );
        assert_eq!(
            p.verdict(&caller("111122223333", "root"), "kinesis:GetRecords", STREAM),
            Verdict::Allowed
        );
        assert_eq!(
            p.verdict(&caller("222222222222", "root"), "kinesis:PutRecords", STREAM),
            Verdict::Allowed
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (statement, why) in [
            (
                r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#,
                "Principal is needed",
            ),
            (
                r#"{"Effect":"Allow","Principal":"me","Action":"*","Resource":"*"}"#,
                "Principal",
            ),
            (
                r#"{"Effect":"Allow","Principal":{"AWS":"me"},"Action":"*","Resource":"*"}"#,
                "no account",
            ),
            (
                r#"{"Effect":"Allow","Principal":{"AWS":[]},"Action":"*","Resource":"*"}"#,
                "must hold",
            ),
            (
                r#"{"Effect":"Allow","Principal":{"Federated":"x"},"Action":"*","Resource":"*"}"#,
                "not supported",
            ),
            (
                r#"{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{}}"#,
                "Condition",
            ),
            (
                r#"[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"},{"Effect":"no","Principal":"*","Action":"*","Resource":"*"}]"#,
                "Statement[1]",
            ),
            ("3", "not an object"),
        ] {
            let error = ResourcePolicy::parse(&format!("{{\"Statement\":{statement}}}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{statement}: {error}");
        }
        assert!(ResourcePolicy::parse("{}").is_err() && ResourcePolicy::parse("x").is_err());
    }
}
