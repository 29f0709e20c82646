//! The operation tables agree with what clients send: without this a call would reach the wrong operation, or none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::HashSet;

use wire::generated_services;
use wire::{Access, Address, Protocol, Registry, Resource, all_operations};

#[test]
fn every_operation_has_an_address_of_its_own_and_resolves_to_itself() {
    let registry = Registry::new();
    let mut seen = HashSet::new();
    for info in all_operations() {
        let service = info.service;
        for path in info.paths {
            let target = format!("{}.{}", service.target_prefix, info.name);
            let json = service.protocol == Protocol::AwsJson;
            if service.protocol == Protocol::RpcCbor {
                continue;
            }
            assert!(
                seen.insert((service.signing_name, target.clone(), *path)),
                "{}: {path}",
                info.action
            );
            let address = Address {
                method: info.method,
                path,
                scope_service: (info.access != Access::SessionToken).then_some(service.signing_name),
                target: json.then_some(target.as_str()),
                action: (service.protocol == Protocol::Query).then_some(info.name),
                content_type: None,
            };
            let route = registry.resolve(&address).unwrap();
            assert!(
                std::ptr::eq(route.info(), info),
                "{} went to {}",
                info.action,
                route.info().action
            );
        }
    }
}

#[test]
fn every_error_has_a_status_and_every_action_its_services_prefix() {
    for info in all_operations() {
        // Policies name this service as its documentation does, not as signatures do.
        let prefix = match info.service.signing_name {
            "monitoring" => "cloudwatch",
            name => name,
        };
        assert_eq!(info.action, format!("{prefix}:{}", info.name));
        for (code, status) in info.errors {
            assert!(
                !code.is_empty() && (400..600).contains(status),
                "{}: {code} {status}",
                info.name
            );
        }
    }
}

#[test]
fn the_services_have_the_operations_that_the_facts_count() {
    let count = |name| {
        let service = generated_services().iter().find(|s| s.name == name);
        service.map_or(0, |s| s.operations.len())
    };
    assert_eq!(count("kinesisvideo"), 32);
    assert_eq!(
        count("kinesis-video-media"),
        2,
        "GetMedia, and PutMedia of the supplement"
    );
    assert_eq!(
        count("kinesis-video-archived-media"),
        6 + 6 + 1,
        "six of the model, six of players, and GetStoredMediaMap"
    );
    assert_eq!(
        count("rekognition"),
        75 + 2 + 5,
        "75 of the model, two over a stream's stored video, and five over unknown faces"
    );
    assert_eq!(count("kinesis"), 57);
    assert_eq!(count("firehose"), 12);
    assert_eq!(count("kinesisanalyticsv2"), 41);
    assert_eq!(count("sts"), 11);
}

#[test]
fn policies_speak_of_the_resource_that_the_request_names() {
    let of = |action: &str| all_operations().find(|o| o.action == action).unwrap().resource;
    let names = |resource| match resource {
        Resource::Members(members) => members.iter().map(|m| m.member).collect::<Vec<_>>(),
        Resource::Handler => vec!["by handler"],
    };
    assert_eq!(names(of("kinesisvideo:DescribeStream")), ["StreamARN", "StreamName"]);
    assert_eq!(names(of("kinesisvideo:PutMedia")), ["StreamARN", "StreamName"]);
    assert_eq!(names(of("kinesis:PutRecord")), ["StreamARN", "StreamName"]);
    assert_eq!(names(of("kinesis:GetRecords")), ["by handler"]);
    assert_eq!(names(of("rekognition:IndexFaces")), ["CollectionId"]);
    assert_eq!(names(of("rekognition:StartStreamProcessor")), ["Name"]);
    assert_eq!(names(of("rekognition:DetectFaces")), [""; 0]);
    assert_eq!(names(of("sts:AssumeRole")), ["RoleArn"]);
}

#[test]
fn an_unknown_operation_is_refused_in_the_protocol_of_its_caller() {
    let registry = Registry::new();
    let refused = |address: Address<'_>| registry.resolve(&address).unwrap_err();
    let json = refused(Address {
        method: "POST",
        path: "/",
        scope_service: Some("kinesis"),
        target: Some("Kinesis_20131202.Nothing"),
        action: None,
        content_type: None,
    });
    assert_eq!(
        (json.error.code.as_ref(), json.protocol),
        ("UnknownOperationException", Protocol::AwsJson)
    );
    let rest = refused(Address {
        method: "POST",
        path: "/nothing",
        scope_service: Some("kinesisvideo"),
        ..Address::default()
    });
    assert_eq!((rest.error.status, rest.protocol), (Some(404), Protocol::RestJson));
    let method = refused(Address {
        method: "DELETE",
        path: "/putMedia",
        scope_service: Some("kinesisvideo"),
        ..Address::default()
    });
    assert_eq!(method.error.code, "MethodNotAllowed");
    let query = refused(Address {
        method: "POST",
        path: "/",
        scope_service: Some("sts"),
        action: Some("Nothing"),
        ..Address::default()
    });
    assert_eq!(
        (query.error.code.as_ref(), query.protocol),
        ("InvalidAction", Protocol::Query)
    );
    // Signed for one service, addressed to another: a policy for one must not open the other.
    let crossed = Address {
        method: "POST",
        path: "/",
        scope_service: Some("rekognition"),
        target: Some("Kinesis_20131202.PutRecord"),
        action: None,
        content_type: None,
    };
    assert!(registry.resolve(&crossed).is_err());
}
