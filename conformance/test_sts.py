"""STS: who am I, and credentials that end."""

import pytest
from botocore.exceptions import ClientError


def test_the_root_key_is_told_who_it_is(server):
    identity = server.client("sts").get_caller_identity()
    assert identity["Account"] == "000000000000" and identity["Arn"].endswith(":root") and identity["UserId"]


def test_a_session_works_with_its_token_and_not_without(server):
    made = server.client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    session = {"access_key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}
    assert server.client("sts", token=made["SessionToken"], **session).get_caller_identity()["Account"] == "000000000000"
    server.client("kinesisvideo", token=made["SessionToken"], **session).list_streams()
    for token in (None, made["SessionToken"][:-4] + "AAAA"):
        with pytest.raises(ClientError) as failed:
            server.client("sts", token=token, **session).get_caller_identity()
        assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_role_is_assumed_with_a_policy_that_narrows_it(server):
    sts = server.client("sts")
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kinesis:ListStreams","Resource":"*"}]}'
    role = sts.assume_role(RoleArn="arn:aws:iam::000000000000:role/viewer", RoleSessionName="test", Policy=policy)
    made = role["Credentials"]
    assert role["AssumedRoleUser"]["Arn"].endswith("assumed-role/viewer/test")
    session = {"access_key": made["AccessKeyId"], "secret": made["SecretAccessKey"], "token": made["SessionToken"]}
    assert server.client("sts", **session).get_caller_identity()["Arn"].endswith("assumed-role/viewer/test")
    server.client("kinesis", **session).list_streams()
    with pytest.raises(ClientError) as failed:
        server.client("kinesisvideo", **session).list_streams()
    assert failed.value.response["Error"]["Code"] in ("NotAuthorizedException", "AccessDeniedException")


@pytest.mark.parametrize("arguments", [
    {"RoleArn": "arn:aws:iam::999999999999:role/any", "RoleSessionName": "test"},
    {"RoleArn": "arn:aws:iam::000000000000:user/somebody", "RoleSessionName": "test"},
    {"RoleArn": "arn:aws:iam::000000000000:role/any", "RoleSessionName": "test", "DurationSeconds": 100},
    {"RoleArn": "arn:aws:iam::000000000000:role/any", "RoleSessionName": "test", "Policy": "{"},
])
def test_a_role_that_cannot_be_assumed_is_a_declared_error(server, arguments):
    with pytest.raises(ClientError) as failed:
        server.client("sts", parameter_validation=False).assume_role(**arguments)
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
    assert failed.value.response["Error"]["Code"] in ("AccessDenied", "ValidationError", "MalformedPolicyDocument")
