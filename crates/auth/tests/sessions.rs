//! Temporary credentials: what ends them, and what an assumed role may do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use auth::{AuthError, Credentials, Sts, sign, sts::AssumeRole};
use base::{AccountId, Clock};
use common::*;

#[test]
fn a_session_ends_with_its_time_its_token_or_its_parent() {
    let house = house();
    let parent = block(house.keys.create("111122223333".parse().unwrap(), None)).unwrap();
    let as_parent = Req::new("POST", "/x", "", &[("host", "h")])
        .signed(&parent, "")
        .tried(&house, "")
        .unwrap();
    assert_eq!(as_parent.account.to_string(), "111122223333");
    let sts = Sts::new(Arc::clone(&house.keys), house.clock.clone());
    let given = sts.get_session_token(&as_parent, Some(900)).unwrap();
    assert_eq!(given.expiration, NOW.plus_millis(900_000));
    let temporary = given.credentials;
    let req = Req::new("POST", "/x", "", &[("host", "h")]).signed(&temporary, "");
    let caller = req.tried(&house, "").unwrap();
    assert_eq!(
        (caller.account, &caller.principal_arn),
        (as_parent.account, &as_parent.principal_arn)
    );
    assert!(
        sts.get_session_token(&caller, None).is_err(),
        "as on AWS, not from temporary credentials"
    );
    let refused = |req: Req| req.tried(&house, "").unwrap_err();
    assert_eq!(
        refused(req.clone().without("x-amz-security-token")),
        AuthError::UnknownKey
    );
    let other = sts
        .get_session_token(&as_parent, None)
        .unwrap()
        .credentials
        .session_token
        .unwrap();
    assert_eq!(
        refused(req.clone().set("x-amz-security-token", &other)),
        AuthError::UnknownKey
    );
    let token = temporary.session_token.clone().unwrap();
    for at in (0..token.len()).step_by(7) {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(
            refused(req.clone().set("x-amz-security-token", &forged)),
            AuthError::UnknownKey,
            "{at}"
        );
    }
    let mine = Req::new("POST", "/x", "", &[("host", "h")]).signed(
        &Credentials {
            session_token: Some(token),
            ..root()
        },
        "",
    );
    assert_eq!(refused(mine), AuthError::UnknownKey, "a token of another key");
    house.clock.advance(Duration::from_secs(900));
    let late = house.clock.now();
    let mut again = Req::new("POST", "/x", "", &[("host", "h")]);
    let added = again.with(|head| sign(head, &temporary, SCOPE, late, EMPTY));
    again
        .headers
        .extend(added.into_iter().map(|(n, v)| (n, v.into_bytes())));
    assert_eq!(refused(again), AuthError::ExpiredToken);
    house.clock.set_wall(NOW);
    assert!(req.tried(&house, "").is_ok());
    block(house.keys.revoke(&parent.access_key_id)).unwrap();
    assert_eq!(refused(req), AuthError::UnknownKey, "a session dies with its key");
}

#[test]
fn an_assumed_role_can_do_what_both_policies_allow() {
    let house = house();
    let sts = Sts::new(Arc::clone(&house.keys), house.clock.clone());
    let policy = r#"{"Statement":{"Effect":"Allow","Action":["kinesisvideo:*","sts:*"],"Resource":"*"}}"#;
    let key = block(house.keys.create(AccountId::DEFAULT, Some(policy))).unwrap();
    let caller = |credentials: &Credentials| {
        Req::new("POST", "/x", "", &[("host", "h")])
            .signed(credentials, "")
            .tried(&house, "")
            .unwrap()
    };
    let parent = caller(&key);
    assert!(!parent.authorizer.allows("kinesis:PutRecord", "*"));
    let narrow = r#"{"Statement":{"Effect":"Allow","Action":["kinesisvideo:PutMedia","kinesis:*"],"Resource":"*"}}"#;
    let input = AssumeRole {
        role_arn: "arn:aws:iam::000000000000:role/camera".into(),
        role_session_name: "door-1".into(),
        policy: Some(narrow.into()),
        duration_seconds: None,
    };
    let assumed = sts.assume_role(&parent, &input).unwrap();
    let role = caller(&assumed.credentials.credentials);
    assert!(role.authorizer.allows("kinesisvideo:PutMedia", "*"));
    assert!(
        !role.authorizer.allows("kinesisvideo:GetMedia", "*"),
        "not in the session policy"
    );
    assert!(
        !role.authorizer.allows("kinesis:PutRecord", "*"),
        "not in the key's policy"
    );
    assert_eq!(
        sts.get_caller_identity(&role).arn,
        "arn:aws:sts::000000000000:assumed-role/camera/door-1"
    );
    assert_eq!(
        sts.get_caller_identity(&house.keys.root_caller("r".parse().unwrap()))
            .user_id,
        "000000000000"
    );
    let all = r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let wider = AssumeRole {
        policy: Some(all.into()),
        ..input.clone()
    };
    let deeper = caller(&sts.assume_role(&role, &wider).unwrap().credentials.credentials);
    assert!(
        !deeper.authorizer.allows("kinesisvideo:GetMedia", "*"),
        "a second role does not widen the first"
    );
    for (bad, code) in [
        (
            AssumeRole {
                role_arn: "arn:aws:iam::111122223333:role/camera".into(),
                ..input.clone()
            },
            "AccessDenied",
        ),
        (
            AssumeRole {
                role_arn: "camera".into(),
                ..input.clone()
            },
            "ValidationError",
        ),
        (
            AssumeRole {
                role_session_name: "a b".into(),
                ..input.clone()
            },
            "ValidationError",
        ),
        (
            AssumeRole {
                duration_seconds: Some(899),
                ..input.clone()
            },
            "ValidationError",
        ),
        (
            AssumeRole {
                policy: Some("{".into()),
                ..input.clone()
            },
            "MalformedPolicyDocument",
        ),
        (
            AssumeRole {
                policy: Some(format!("{narrow}{}", " ".repeat(2048))),
                ..input.clone()
            },
            "ValidationError",
        ),
    ] {
        assert_eq!(sts.assume_role(&parent, &bad).unwrap_err().code, code, "{bad:?}");
    }
    let mut deep = role;
    for _ in 0..4 {
        deep = caller(&sts.assume_role(&deep, &wider).unwrap().credentials.credentials);
    }
    assert_eq!(sts.assume_role(&deep, &wider).unwrap_err().code, "PackedPolicyTooLarge");
}
