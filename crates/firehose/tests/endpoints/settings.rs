//! Descriptions, and what is refused.

use super::*;

fn refusal(input: &fh::CreateDeliveryStreamInput) -> String {
    let error = endpoints::describe(input).unwrap_err();
    assert_eq!(error.code, "InvalidArgumentException");
    error.message
}

fn http(change: impl FnOnce(&mut fh::HttpEndpointDestinationConfiguration)) -> fh::CreateDeliveryStreamInput {
    let mut http = fh::HttpEndpointDestinationConfiguration {
        endpoint_configuration: fh::HttpEndpointConfiguration {
            url: "https://receiver.example/".to_owned(),
            name: None,
            access_key: Some("sesame".to_owned()),
        },
        s3_configuration: s3(),
        ..Default::default()
    };
    change(&mut http);
    asked(|input| input.http_endpoint_destination_configuration = Some(http))
}

#[test]
fn what_cannot_be_carried_out_is_refused_when_it_is_asked_for() {
    for url in [
        "http://receiver.example/",
        "https://",
        "https:///x",
        "https://user@receiver.example/",
    ] {
        let input = http(|http| http.endpoint_configuration.url = url.to_owned());
        assert!(refusal(&input).contains("URL"), "{url}");
    }
    let half = fh::HttpEndpointBufferingHints {
        size_in_m_bs: Some(1),
        interval_in_seconds: None,
    };
    assert!(refusal(&http(|http| http.buffering_hints = Some(half))).contains("together"));
    let elsewhere = fh::SecretsManagerConfiguration {
        enabled: true,
        ..Default::default()
    };
    let input = http(|http| http.secrets_manager_configuration = Some(elsewhere));
    assert!(refusal(&input).contains("Secrets Manager"));
    let twice = fh::HttpEndpointRequestConfiguration {
        common_attributes: Some(vec![fh::HttpEndpointCommonAttribute::default(); 2]),
        content_encoding: None,
    };
    assert!(refusal(&http(|http| http.request_configuration = Some(twice))).contains("twice"));
    let iceberg = asked(|input| input.iceberg_destination_configuration = Some(Default::default()));
    assert!(refusal(&iceberg).contains("Iceberg"));
}

#[test]
fn a_search_engine_needs_one_address_and_a_name_that_it_takes() {
    let search = |change: &dyn Fn(&mut fh::AmazonopensearchserviceDestinationConfiguration)| {
        let mut search = fh::AmazonopensearchserviceDestinationConfiguration {
            cluster_endpoint: Some("https://search.example".to_owned()),
            index_name: "logs".to_owned(),
            s3_configuration: s3(),
            ..Default::default()
        };
        change(&mut search);
        refusal(&asked(|input| {
            input.amazonopensearchservice_destination_configuration = Some(search);
        }))
    };
    assert!(search(&|search| search.cluster_endpoint = None).contains("Either"));
    assert!(search(&|search| search.domain_arn = Some(LOGS.to_owned())).contains("Either"));
    assert!(search(&|search| search.index_name = "Logs".to_owned()).contains("IndexName"));
    assert!(search(&|search| search.vpc_configuration = Some(fh::VpcConfiguration::default())).contains("VPC"));
}

#[test]
fn what_is_not_said_has_aws_s_defaults_and_a_secret_stays_out_of_sight() {
    let (description, secrets) = endpoints::describe(&http(|_| {})).unwrap().unwrap();
    assert_eq!(secrets, Secrets::from([("AccessKey".to_owned(), "sesame".to_owned())]));
    let http = description.http_endpoint_destination_description.unwrap();
    assert_eq!(http.retry_options.unwrap().duration_in_seconds, Some(300));
    assert_eq!(http.s3_backup_mode, Some(fh::HttpEndpointS3BackupMode::FailedDataOnly));
    assert_eq!(
        http.request_configuration.unwrap().content_encoding,
        Some(fh::ContentEncoding::None)
    );
    let backup = http.s3_destination_description.unwrap();
    let hints = (
        backup.buffering_hints.size_in_m_bs,
        backup.buffering_hints.interval_in_seconds,
    );
    assert_eq!(hints, (Some(5), Some(300)));
    assert_eq!(backup.compression_format, fh::CompressionFormat::Uncompressed);
}

#[test]
fn an_update_changes_what_it_names_and_keeps_the_rest() {
    let old = endpoints::describe(&http(|_| {})).unwrap().unwrap();
    let update = |asked: fh::HttpEndpointDestinationUpdate| {
        let input = fh::UpdateDestinationInput {
            http_endpoint_destination_update: Some(asked),
            ..Default::default()
        };
        let (new, secrets) = endpoints::update((&old.0, &old.1), &input).unwrap().unwrap();
        (new.http_endpoint_destination_description.unwrap(), secrets)
    };
    let (new, secrets) = update(fh::HttpEndpointDestinationUpdate {
        retry_options: Some(fh::HttpEndpointRetryOptions {
            duration_in_seconds: Some(1),
        }),
        s3_update: Some(fh::S3DestinationUpdate {
            prefix: Some("p/".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    });
    let was = old.0.http_endpoint_destination_description.clone().unwrap();
    assert_eq!(secrets, old.1);
    assert_eq!(new.retry_options.unwrap().duration_in_seconds, Some(1));
    assert_eq!(new.endpoint_configuration, was.endpoint_configuration);
    let (s3, was) = (
        new.s3_destination_description.unwrap(),
        was.s3_destination_description.unwrap(),
    );
    assert_eq!((s3.prefix.as_deref(), s3.bucket_arn), (Some("p/"), was.bucket_arn));
    // A new endpoint has no key but the one that came with it.
    let (_, secrets) = update(fh::HttpEndpointDestinationUpdate {
        endpoint_configuration: Some(fh::HttpEndpointConfiguration {
            url: "https://b.example".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    assert!(secrets.is_empty());
}

#[test]
fn a_destination_stays_of_its_kind() {
    let (description, secrets) = endpoints::describe(&http(|_| {})).unwrap().unwrap();
    let update = |input: fh::UpdateDestinationInput| endpoints::update((&description, &secrets), &input);
    let other = update(fh::UpdateDestinationInput {
        splunk_destination_update: Some(fh::SplunkDestinationUpdate::default()),
        ..Default::default()
    });
    assert_eq!(other.unwrap_err().code, "InvalidArgumentException");
    assert!(update(fh::UpdateDestinationInput::default()).unwrap().is_none());
}
