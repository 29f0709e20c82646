"""S3 through boto3, unchanged: every operation that is there, and what is refused."""

import datetime
import functools
import hashlib
import json
import os
import random
import socket
import subprocess
import threading

import pytest
from botocore.exceptions import ClientError

import harness
from harness import eventually, failure, refusal
from s3 import CHECKSUMS, b64, checksum, error_code, raw

MIB = 1 << 20
ODD_KEYS = ["a b", "a+b", "ü/ö", "%41", "a&b=c?d#e", "quote'\"<>", "tab\tline\n", "..", "a//b", "/leading", "trailing/", "emoji \U0001F3A5", "*", "~" * 1024,
            "\u007f", "a\\b", "semi;colon:at@"]


@pytest.fixture
def s3(server):
    return server.client("s3")


@pytest.fixture
def bucket(s3, name):
    named = name.lower()[:60].strip("-")
    s3.create_bucket(Bucket=named, CreateBucketConfiguration={"LocationConstraint": harness.REGION})
    return named


# The others need a package that boto3 does not bring along.
SDK_COMPUTES = ("CRC32", "SHA1", "SHA256")


def body_of(answer):
    return answer["Body"].read()


def test_a_bucket_is_made_found_listed_and_removed(s3, bucket):
    head = s3.head_bucket(Bucket=bucket)
    assert head["BucketRegion"] == harness.REGION
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == harness.REGION
    assert bucket in [found["Name"] for found in s3.list_buckets()["Buckets"]]
    assert [found["Name"] for found in s3.list_buckets(Prefix=bucket, MaxBuckets=1)["Buckets"]] == [bucket]
    assert failure(lambda: s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})) == ("BucketAlreadyOwnedByYou", 409)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    assert failure(lambda: s3.delete_bucket(Bucket=bucket)) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_bucket(Bucket=bucket)
    assert failure(lambda: s3.head_bucket(Bucket=bucket)) == ("404", 404)
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="a")) == ("NoSuchBucket", 404)
    for call in (s3.list_objects_v2, s3.delete_bucket, s3.get_bucket_location, s3.get_bucket_versioning, s3.list_multipart_uploads, s3.get_bucket_acl):
        assert failure(lambda: call(Bucket=bucket)) == ("NoSuchBucket", 404), call
    for bad in ("ab", "Upper", "a_b", "192.168.0.1"):
        url = f"{s3.meta.endpoint_url}/{bad}"
        assert failure(lambda: s3.create_bucket(Bucket=bad))[0] in ("InvalidBucketName",), url


def test_pages_of_buckets(server):
    key, secret = server.make_key(account="777777777777")
    s3 = server.client("s3", access_key=key, secret=secret, region="us-east-1")
    names = [f"page-{number:02}" for number in range(7)]
    for each in names:
        s3.create_bucket(Bucket=each)
    found = [each["Name"] for page in s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 3}) for each in page["Buckets"]]
    assert found == names
    # us-east-1 takes the second creation for the first, and says no location.
    s3.create_bucket(Bucket=names[0])
    assert s3.get_bucket_location(Bucket=names[0])["LocationConstraint"] is None


def test_an_object_comes_back_with_all_that_was_said_of_it(s3, bucket):
    expires = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    put = s3.put_object(Bucket=bucket, Key="a/b", Body=b"hello world", ContentType="text/plain; charset=utf-8", ContentEncoding="identity",
                        ContentLanguage="de", ContentDisposition='attachment; filename="x"', CacheControl="max-age=60", Expires=expires,
                        Metadata={"Camera": "door", "number": "7"}, Tagging="place=gate&floor=2%20b")
    assert put["ETag"] == f'"{hashlib.md5(b"hello world").hexdigest()}"'
    assert put["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]
    for got in (s3.get_object(Bucket=bucket, Key="a/b"), s3.head_object(Bucket=bucket, Key="a/b")):
        assert (got["ContentType"], got["ContentEncoding"], got["ContentLanguage"]) == ("text/plain; charset=utf-8", "identity", "de")
        assert (got["ContentDisposition"], got["CacheControl"]) == ('attachment; filename="x"', "max-age=60")
        assert got["Metadata"] == {"camera": "door", "number": "7"}
        assert (got["ContentLength"], got["ETag"], got["AcceptRanges"]) == (11, put["ETag"], "bytes")
        assert got["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Mon, 03 Feb 2031 04:05:06 GMT"
        assert abs((datetime.datetime.now(datetime.timezone.utc) - got["LastModified"]).total_seconds()) < 60
    assert body_of(s3.get_object(Bucket=bucket, Key="a/b")) == b"hello world"
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="a/b")["TagSet"]}
    assert tags == {"place": "gate", "floor": "2 b"}
    assert s3.get_object(Bucket=bucket, Key="a/b")["TagCount"] == 2
    answer = s3.get_object(Bucket=bucket, Key="a/b", ResponseContentType="video/mp4", ResponseCacheControl="no-store")
    assert (answer["ContentType"], answer["CacheControl"]) == ("video/mp4", "no-store")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"")
    got = s3.get_object(Bucket=bucket, Key="plain")
    assert (got["ContentType"], got["ContentLength"], body_of(got)) == ("binary/octet-stream", 0, b"")
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="none")) == ("NoSuchKey", 404)
    assert failure(lambda: s3.head_object(Bucket=bucket, Key="none")) == ("404", 404)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="a/b", ObjectAttributes=["ETag", "ObjectSize", "Checksum", "StorageClass"])
    assert (attributes["ObjectSize"], attributes["ETag"]) == (11, put["ETag"].strip('"'))
    assert s3.get_object_acl(Bucket=bucket, Key="a/b")["Owner"]["ID"] == "000000000000"


def test_tags_of_objects_and_buckets(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    etag = s3.head_object(Bucket=bucket, Key="a")["ETag"]
    tags = [{"Key": "k", "Value": "v"}]
    s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="a")
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == []
    assert s3.head_object(Bucket=bucket, Key="a")["ETag"] == etag
    many = [{"Key": str(number), "Value": ""} for number in range(11)]
    assert failure(lambda: s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": many}))[1] == 400
    assert failure(lambda: s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": tags * 2})) == ("InvalidTag", 400)
    assert failure(lambda: s3.put_object_tagging(Bucket=bucket, Key="none", Tagging={"TagSet": tags})) == ("NoSuchKey", 404)
    assert failure(lambda: s3.get_bucket_tagging(Bucket=bucket)) == ("NoSuchTagSet", 404)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    assert s3.head_object(Bucket=bucket, Key="a")["ETag"] == etag
    s3.delete_bucket_tagging(Bucket=bucket)
    assert failure(lambda: s3.get_bucket_tagging(Bucket=bucket)) == ("NoSuchTagSet", 404)


def test_ranges(s3, bucket):
    body = bytes(range(256)) * 8192
    s3.put_object(Bucket=bucket, Key="r", Body=body)
    size = len(body)
    for sent, first, last in [("bytes=0-0", 0, 0), ("bytes=5-", 5, size - 1), ("bytes=-7", size - 7, size - 1), (f"bytes=10-{size * 2}", 10, size - 1),
                              (f"bytes=-{size * 2}", 0, size - 1), (f"bytes={MIB - 3}-{MIB + 5}", MIB - 3, MIB + 5)]:
        got = s3.get_object(Bucket=bucket, Key="r", Range=sent)
        assert got["ContentRange"] == f"bytes {first}-{last}/{size}", sent
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert body_of(got) == body[first:last + 1], sent
        assert s3.head_object(Bucket=bucket, Key="r", Range=sent)["ContentLength"] == last - first + 1
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="r", Range=f"bytes={size}-")) == ("InvalidRange", 416)
    assert body_of(s3.get_object(Bucket=bucket, Key="r")) == body


def test_conditions_of_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="c", Body=b"1")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="c")["LastModified"]
    before = modified - datetime.timedelta(seconds=5)
    for call in (s3.get_object, s3.head_object):
        call(Bucket=bucket, Key="c", IfMatch=etag, IfUnmodifiedSince=before)
        call(Bucket=bucket, Key="c", IfNoneMatch='"other"', IfModifiedSince=modified)
        call(Bucket=bucket, Key="c", IfModifiedSince=before)
        assert failure(lambda: call(Bucket=bucket, Key="c", IfMatch='"other"'))[1] == 412
        assert failure(lambda: call(Bucket=bucket, Key="c", IfUnmodifiedSince=before))[1] == 412
        assert failure(lambda: call(Bucket=bucket, Key="c", IfNoneMatch=etag))[1] == 304
        assert failure(lambda: call(Bucket=bucket, Key="c", IfModifiedSince=modified))[1] == 304


def test_conditions_of_writes_let_one_of_many_win(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="w", Body=b"1", IfNoneMatch="*")
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="w", Body=b"2", IfNoneMatch="*")) == ("PreconditionFailed", 412)
    etag = s3.head_object(Bucket=bucket, Key="w")["ETag"]
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="w", Body=b"2", IfMatch='"0"')) == ("PreconditionFailed", 412)
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="none", Body=b"2", IfMatch=etag)) == ("NoSuchKey", 404)
    s3.put_object(Bucket=bucket, Key="w", Body=b"2", IfMatch=etag)
    won = []

    def race(number):
        try:
            server.client("s3").put_object(Bucket=bucket, Key="race", Body=str(number).encode(), IfNoneMatch="*")
            won.append(str(number).encode())
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"

    threads = [threading.Thread(target=race, args=[number]) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [body_of(s3.get_object(Bucket=bucket, Key="race"))] == won
    assert failure(lambda: s3.delete_object(Bucket=bucket, Key="race", IfMatch='"0"')) == ("PreconditionFailed", 412)
    s3.delete_object(Bucket=bucket, Key="race", IfMatch=s3.head_object(Bucket=bucket, Key="race")["ETag"])
    s3.delete_object(Bucket=bucket, Key="race")


@pytest.mark.parametrize("algorithm", sorted(CHECKSUMS))
def test_checksums_are_verified_kept_and_given_back(s3, bucket, algorithm):
    body = os.urandom(100_000)
    member, value = checksum(algorithm, body)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **{member: value})
    assert (put[member], put["ChecksumType"]) == (value, "FULL_OBJECT")
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (got[member], body_of(got)) == (value, body)
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[member] == value
    assert s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum"])["Checksum"][member] == value
    wrong = checksum(algorithm, body + b"x")[1]
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="bad", Body=body, **{member: wrong})) == ("BadDigest", 400)
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="bad", Body=body, **{member: "AAAA"})) == ("InvalidRequest", 400)
    assert failure(lambda: s3.head_object(Bucket=bucket, Key="bad"))[1] == 404
    # Computed by the SDK, in a header or behind the body, as it sees fit.
    if algorithm in SDK_COMPUTES:
        put = s3.put_object(Bucket=bucket, Key="sdk", Body=body, ChecksumAlgorithm=algorithm)
        assert put[member] == value


def test_without_a_checksum_it_is_crc64nvme(server, bucket):
    plain = server.client("s3", request_checksum_calculation="when_required")
    body = b"some bytes"
    put = plain.put_object(Bucket=bucket, Key="k", Body=body)
    assert put["ChecksumCRC64NVME"] == checksum("CRC64NVME", body)[1]
    assert failure(lambda: plain.put_object(Bucket=bucket, Key="k", Body=body, ContentMD5=b64(hashlib.md5(b"x").digest()))) == ("BadDigest", 400)
    assert failure(lambda: plain.put_object(Bucket=bucket, Key="k", Body=body, ContentMD5="AAAA")) == ("InvalidDigest", 400)
    plain.put_object(Bucket=bucket, Key="k", Body=body, ContentMD5=b64(hashlib.md5(body).digest()))


def parts_of(s3, bucket, key, upload, bodies, sums=None, **more):
    done = []
    for number, body in enumerate(bodies, 1):
        more = sums(body) if sums else more
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **more)
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        part.update({member: answer[member] for member in answer if member.startswith("Checksum") and member != "ChecksumType"})
        done.append(part)
    return done


def test_an_upload_in_parts(s3, bucket):
    bodies = [os.urandom(5 * MIB), os.urandom(6 * MIB), b"the end"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ContentType="video/mp4", Metadata={"a": "b"}, Tagging="t=1")["UploadId"]
    assert failure(lambda: s3.head_object(Bucket=bucket, Key="m"))[1] == 404
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"replaced")
    done = parts_of(s3, bucket, "m", upload, bodies)
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=9, Body=b"not in the object")
    listed = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)
    assert [(part["PartNumber"], part["Size"]) for part in listed["Parts"]] == [(1, 5 * MIB), (2, 6 * MIB), (3, 7), (9, 17)]
    page = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, MaxParts=2)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 2
    page = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, PartNumberMarker=2)
    assert [part["PartNumber"] for part in page["Parts"]] == [3, 9]
    uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(each["Key"], each["UploadId"]) for each in uploads] == [("m", upload)]

    def complete(parts, **more):
        return s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts}, **more)

    assert failure(lambda: complete(done[::-1])) == ("InvalidPartOrder", 400)
    assert failure(lambda: complete([dict(done[0], ETag='"0"')])) == ("InvalidPart", 400)
    assert failure(lambda: complete([done[0], {"PartNumber": 8, "ETag": done[0]["ETag"]}])) == ("InvalidPart", 400)
    assert failure(lambda: complete(done[2:] + [{"PartNumber": 9, "ETag": listed["Parts"][3]["ETag"]}])) == ("EntityTooSmall", 400)
    assert failure(lambda: complete(done, MpuObjectSize=1))[1] == 400
    made = complete(done, IfNoneMatch="*")
    whole = b"".join(bodies)
    expected = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
    assert made["ETag"] == f'"{expected}-3"'
    got = s3.get_object(Bucket=bucket, Key="m")
    assert (got["ContentType"], got["Metadata"], got["ETag"], got["TagCount"]) == ("video/mp4", {"a": "b"}, made["ETag"], 1)
    assert body_of(got) == whole
    first, last = 5 * MIB - 10, 11 * MIB + 3
    assert body_of(s3.get_object(Bucket=bucket, Key="m", Range=f"bytes={first}-{last}")) == whole[first:last + 1]
    second = s3.get_object(Bucket=bucket, Key="m", PartNumber=2)
    assert (second["PartsCount"], body_of(second)) == (3, bodies[1])
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="m", PartNumber=4))[1] == 416
    for call in (lambda: complete(done), lambda: s3.list_parts(Bucket=bucket, Key="m", UploadId=upload),
                 lambda: s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b""),
                 lambda: s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload)):
        assert failure(call) == ("NoSuchUpload", 404)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert s3.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts"])["ObjectParts"]["TotalPartsCount"] == 3


ZEROS = bytes(5 * MIB)
# Computed in Python these take seconds.
CHECKSUMS["CRC32C"] = functools.cache(CHECKSUMS["CRC32C"])
CHECKSUMS["CRC64NVME"] = functools.cache(CHECKSUMS["CRC64NVME"])


@pytest.mark.parametrize("algorithm,kind", [("CRC32", "FULL_OBJECT"), ("CRC32C", "COMPOSITE"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE"), ("SHA1", "COMPOSITE")])
def test_checksums_of_uploads_in_parts(s3, bucket, algorithm, kind):
    bodies = [ZEROS, b"tail"]
    begun = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm=algorithm, ChecksumType=kind)
    assert (begun["ChecksumAlgorithm"], begun["ChecksumType"]) == (algorithm, kind)
    upload = begun["UploadId"]
    done = parts_of(s3, bucket, "m", upload, bodies, sums=lambda body: dict([checksum(algorithm, body)]))
    member = f"Checksum{algorithm}"
    assert done[1][member] == checksum(algorithm, bodies[1])[1]
    made = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": done})
    if kind == "COMPOSITE":
        assert made[member] == b64(CHECKSUMS[algorithm](b"".join(CHECKSUMS[algorithm](body) for body in bodies))) + "-2"
    elif algorithm == "CRC32":
        assert made[member] == checksum(algorithm, b"".join(bodies))[1]
    assert made["ChecksumType"] == kind
    assert failure(lambda: s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT"))[1] == 400


def test_an_aborted_upload_gives_its_space_back(own_server):
    s3 = own_server.client("s3")
    s3.create_bucket(Bucket="space")
    objects = own_server.data_dir / "objects"

    def used():
        return sum(path.stat().st_size for path in objects.rglob("*") if path.is_file())

    upload = s3.create_multipart_upload(Bucket="space", Key="m")["UploadId"]
    parts_of(s3, "space", "m", upload, [os.urandom(MIB)] * 3)
    s3.put_object(Bucket="space", Key="a", Body=bytes(MIB))
    assert used() == 4 * MIB
    s3.abort_multipart_upload(Bucket="space", Key="m", UploadId=upload)
    eventually(lambda: used() == MIB)
    s3.put_object(Bucket="space", Key="a", Body=b"small")
    assert used() == 5
    s3.delete_object(Bucket="space", Key="a")
    assert used() == 0
    upload = s3.create_multipart_upload(Bucket="space", Key="m")["UploadId"]
    done = parts_of(s3, "space", "m", upload, [os.urandom(5 * MIB), b"1"])
    s3.complete_multipart_upload(Bucket="space", Key="m", UploadId=upload, MultipartUpload={"Parts": done})
    s3.delete_object(Bucket="space", Key="m")
    eventually(lambda: used() == 0)
    s3.delete_bucket(Bucket="space")


def test_copies(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from ü", Body=b"bytes", ContentType="text/plain", Metadata={"a": "1"}, Tagging="t=1")
    source = {"Bucket": bucket, "Key": "from ü"}
    copied = s3.copy_object(Bucket=bucket, Key="to", CopySource=source)["CopyObjectResult"]
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (body_of(got), got["ContentType"], got["Metadata"], got["ETag"], got["TagCount"]) == (b"bytes", "text/plain", {"a": "1"}, copied["ETag"], 1)
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source, MetadataDirective="REPLACE", ContentType="video/mp4", Metadata={"b": "2"},
                   TaggingDirective="REPLACE", Tagging="u=2")
    got = s3.head_object(Bucket=bucket, Key="to")
    assert (got["ContentType"], got["Metadata"]) == ("video/mp4", {"b": "2"})
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == [{"Key": "u", "Value": "2"}]
    assert failure(lambda: s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"})) == ("InvalidRequest", 400)
    s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"}, MetadataDirective="REPLACE", Metadata={"c": "3"})
    assert body_of(s3.get_object(Bucket=bucket, Key="to")) == b"bytes"
    assert failure(lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource=source, CopySourceIfMatch='"0"')) == ("PreconditionFailed", 412)
    assert failure(lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "none"})) == ("NoSuchKey", 404)
    assert failure(lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": "no-such-bucket", "Key": "a"})) == ("NoSuchBucket", 404)
    big = os.urandom(5 * MIB + 100)
    s3.put_object(Bucket=bucket, Key="big", Body=big)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    done = []
    for number, span in enumerate([f"bytes=0-{5 * MIB - 1}", f"bytes={5 * MIB}-{5 * MIB + 99}"], 1):
        part = s3.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, CopySource={"Bucket": bucket, "Key": "big"}, CopySourceRange=span)
        done.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    assert failure(lambda: s3.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=3, CopySource={"Bucket": bucket, "Key": "big"},
                                               CopySourceRange="bytes=0-99999999"))[1] == 400
    s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": done})
    assert body_of(s3.get_object(Bucket=bucket, Key="m")) == big


def test_more_than_a_page_of_keys_with_prefixes_and_delimiters(s3, bucket):
    keys = sorted([f"d{number % 7}/{number:04}" for number in range(1150)] + ["a", "b", "z"])
    random.Random(1).shuffle(order := list(keys))
    threads = [threading.Thread(target=lambda part=order[start::16]: [s3.put_object(Bucket=bucket, Key=key, Body=b"") for key in part]) for start in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for operation in ("list_objects", "list_objects_v2"):
        paginator = s3.get_paginator(operation)
        for size in (1000, 333):
            pages = list(paginator.paginate(Bucket=bucket, PaginationConfig={"PageSize": size}))
            assert [item["Key"] for page in pages for item in page["Contents"]] == keys
            assert len(pages) == -(-len(keys) // size)
        pages = list(paginator.paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}))
        assert [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])] == [f"d{number}/" for number in range(7)]
        assert [item["Key"] for page in pages for item in page.get("Contents", [])] == ["a", "b", "z"]
        found = [item["Key"] for page in paginator.paginate(Bucket=bucket, Prefix="d3/", PaginationConfig={"PageSize": 100}) for item in page["Contents"]]
        assert found == [key for key in keys if key.startswith("d3/")]
    got = s3.list_objects_v2(Bucket=bucket, StartAfter="d6/1149", FetchOwner=True)
    assert [item["Key"] for item in got["Contents"]] == ["z"]
    assert (got["KeyCount"], got["Contents"][0]["Owner"]["ID"], got["Contents"][0]["StorageClass"]) == (1, "000000000000", "STANDARD")
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0
    assert failure(lambda: s3.list_objects_v2(Bucket=bucket, ContinuationToken="?")) == ("InvalidArgument", 400)
    assert failure(lambda: s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)) == ("InvalidArgument", 400)
    while found := s3.list_objects_v2(Bucket=bucket).get("Contents"):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": item["Key"]} for item in found], "Quiet": len(found) < 1000})
        assert "Errors" not in answer and len(answer.get("Deleted", [])) == (1000 if len(found) == 1000 else 0)


def test_odd_keys_stay_what_they_are(s3, bucket):
    for key in ODD_KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(ODD_KEYS, key=str.encode)
    assert [item["Key"] for item in s3.list_objects(Bucket=bucket)["Contents"]] == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        assert body_of(s3.get_object(Bucket=bucket, Key=key)) == key.encode(), key
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
        assert body_of(s3.get_object(Bucket=bucket, Key="copy")) == key.encode(), key
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in [*ODD_KEYS, "copy", "never was"]]})
    assert sorted(item["Key"] for item in answer["Deleted"]) == sorted([*ODD_KEYS, "copy", "never was"])
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="k" * 1025, Body=b"")) == ("KeyTooLongError", 400)


@pytest.fixture
def signer(server):
    """Signs URLs and forms with version 4; boto3 does not by itself."""
    return server.client("s3", signature_version="s3v4")


def test_urls_presigned_with_version_2_are_taken_as_sdks_make_them(server, s3, bucket):
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "p q"}, ExpiresIn=60)
    assert "AWSAccessKeyId=" in put
    assert raw("PUT", put, b"old style").status == 200
    get = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "p q"}, ExpiresIn=60)
    assert raw("GET", get).data == b"old style"
    assert error_code(raw("GET", get.replace("p%20q", "other"))) == "SignatureDoesNotMatch"
    assert error_code(raw("PUT", get, b"x")) == "SignatureDoesNotMatch"
    assert error_code(raw("GET", get.partition("Expires=")[0] + "Expires=1000000000")) in ("AccessDenied", "SignatureDoesNotMatch")
    other = server.make_key(account="123456789012")
    assert error_code(raw("GET", get.replace(server.access_key, other[0]))) == "SignatureDoesNotMatch"
    assert error_code(raw("GET", get.replace(server.access_key, "AKIANOBODY"))) == "InvalidAccessKeyId"
    assert error_code(raw("GET", get + "&X-Amz-Signature=00")) == "InvalidArgument"


def test_presigned_urls_let_in_whoever_has_them_until_they_expire(server, signer, bucket):
    s3 = signer
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "p q", "ContentType": "text/plain"}, ExpiresIn=60)
    assert raw("PUT", put, b"signed before", {"content-type": "text/plain"}).status == 200
    assert error_code(raw("PUT", put, b"x", {"content-type": "video/mp4"})) == "SignatureDoesNotMatch"
    get = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "p q", "ResponseContentType": "video/mp4"}, ExpiresIn=60)
    answer = raw("GET", get)
    assert (answer.status, answer.data, answer.headers["content-type"]) == (200, b"signed before", "video/mp4")
    part = raw("GET", get, headers={"range": "bytes=0-5"})
    assert (part.status, part.data) == (206, b"signed")
    assert error_code(raw("GET", get.replace("p%20q", "other"))) == "SignatureDoesNotMatch"
    assert error_code(raw("GET", get, headers={"x-amz-meta-more": "1"})) != ""
    old = get.replace("X-Amz-Expires=60", "X-Amz-Expires=0")
    assert raw("GET", old).status in (400, 403)
    sts = server.client("sts").get_session_token()["Credentials"]
    temporary = server.client("s3", access_key=sts["AccessKeyId"], secret=sts["SecretAccessKey"], token=sts["SessionToken"], signature_version="s3v4")
    assert body_of(temporary.get_object(Bucket=bucket, Key="p q")) == b"signed before"
    url = temporary.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "p q"})
    assert raw("GET", url).data == b"signed before"
    assert error_code(raw("GET", url.replace("X-Amz-Security-Token=", "X-Amz-Security-Token=x"))) == "InvalidToken"


def test_a_form_that_a_browser_posts(server, s3, signer, bucket):
    post = signer.generate_presigned_post(bucket, "uploads/a.txt", Fields={"Content-Type": "text/plain", "x-amz-meta-who": "me", "success_action_status": "201"},
                                      Conditions=[{"Content-Type": "text/plain"}, {"x-amz-meta-who": "me"}, {"success_action_status": "201"},
                                                  ["content-length-range", 1, 1000]], ExpiresIn=60)

    def send(fields, body):
        return server_post(post["url"], dict(fields), body)

    def server_post(url, fields, body):
        import urllib3
        data, kind = urllib3.encode_multipart_formdata([*fields.items(), ("file", ("a.txt", body, "text/plain"))])
        return raw("POST", url, data, {"content-type": kind})

    answer = send(post["fields"], b"posted")
    assert answer.status == 201, answer.data
    got = s3.get_object(Bucket=bucket, Key="uploads/a.txt")
    assert (body_of(got), got["Metadata"], got["ContentType"]) == (b"posted", {"who": "me"}, "text/plain")
    assert send(post["fields"], b"x" * 2000).status == 400
    assert send(dict(post["fields"], key="elsewhere"), b"x").status == 403
    assert error_code(send(dict(post["fields"], **{"x-amz-signature": "0" * 64}), b"x")) == "SignatureDoesNotMatch"
    unsigned = {"key": "k"}
    assert send(unsigned, b"x").status == 403
    key, secret = server.make_key(policy={"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]})
    post = server.client("s3", access_key=key, secret=secret, signature_version="s3v4").generate_presigned_post(bucket, "denied")
    assert error_code(send(post["fields"], b"x")) == "AccessDenied"


def test_who_may_not_is_told_nothing(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/1", Body=b"1")
    s3.put_object(Bucket=bucket, Key="b/1", Body=b"1")
    other_key, other_secret = server.make_key(account="123456789012")
    other = server.client("s3", access_key=other_key, secret=other_secret)
    for call in (lambda: other.get_object(Bucket=bucket, Key="a/1"), lambda: other.list_objects_v2(Bucket=bucket),
                 lambda: other.put_object(Bucket=bucket, Key="x", Body=b""), lambda: other.delete_bucket(Bucket=bucket),
                 lambda: other.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "a/1"})):
        assert failure(call) == ("NoSuchBucket", 404)
    # Names are an account's own.
    other.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert "Contents" not in other.list_objects_v2(Bucket=bucket)
    wrong = server.client("s3", secret="x" * 40)
    assert failure(lambda: wrong.list_buckets()) == ("SignatureDoesNotMatch", 403)
    assert failure(lambda: wrong.put_object(Bucket=bucket, Key="x", Body=b"1")) == ("SignatureDoesNotMatch", 403)
    unknown = server.client("s3", access_key="AKIANOBODYNOBODYNOBO")
    assert failure(lambda: unknown.list_buckets()) == ("InvalidAccessKeyId", 403)
    assert raw("GET", f"http://{bucket}.localhost:{server.port}/a/1".replace(f"{bucket}.localhost", "127.0.0.1"), headers={"host": f"{bucket}.localhost"}).status == 403
    policy = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": f"arn:aws:s3:::{bucket}/a/*"}]}
    key, secret = server.make_key(policy=policy)
    some = server.client("s3", access_key=key, secret=secret)
    assert body_of(some.get_object(Bucket=bucket, Key="a/1")) == b"1"
    some.put_object(Bucket=bucket, Key="a/2", Body=b"2")
    for call in (lambda: some.get_object(Bucket=bucket, Key="b/1"), lambda: some.get_object(Bucket=bucket, Key="a/none"), lambda: some.list_objects_v2(Bucket=bucket),
                 lambda: some.list_buckets(), lambda: some.copy_object(Bucket=bucket, Key="a/3", CopySource={"Bucket": bucket, "Key": "b/1"}),
                 lambda: some.create_multipart_upload(Bucket=bucket, Key="b/2"), lambda: some.delete_bucket(Bucket=bucket)):
        assert failure(call) == ("AccessDenied", 403)
    answer = some.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a/2"}, {"Key": "b/1"}]})
    assert [item["Key"] for item in answer["Deleted"]] == ["a/2"]
    assert [(item["Key"], item["Code"]) for item in answer["Errors"]] == [("b/1", "AccessDenied")]
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="a/1", ExpectedBucketOwner="123456789012")) == ("AccessDenied", 403)
    old = raw("GET", f"{server.url}/{bucket}/a/1", headers={"authorization": "AWS AKIA:c2ln", "date": "Mon, 01 Jan 2024 00:00:00 GMT"})
    assert (old.status, error_code(old)) == (400, "InvalidRequest")


def test_what_is_not_there_says_so(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    for call in (lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}), lambda: s3.list_object_versions(Bucket=bucket),
                 lambda: s3.put_object(Bucket=bucket, Key="e", Body=b"1", ServerSideEncryption="AES256"),
                 lambda: s3.put_object(Bucket=bucket, Key="e", Body=b"1", ServerSideEncryption="aws:kms"),
                 lambda: s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [{"ID": "r", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}]}),
                 lambda: s3.put_bucket_policy(Bucket=bucket, Policy="{}"), lambda: s3.get_bucket_encryption(Bucket=bucket),
                 lambda: s3.put_object_lock_configuration(Bucket=bucket), lambda: s3.select_object_content(
                     Bucket=bucket, Key="a", Expression="x", ExpressionType="SQL", InputSerialization={"CSV": {}}, OutputSerialization={"CSV": {}})):
        assert failure(call) == ("NotImplemented", 501)
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="e", Body=b"1", ACL="public-read")) == ("AccessControlListNotSupported", 400)
    assert failure(lambda: s3.put_object(Bucket=bucket, Key="e", Body=b"1", StorageClass="GLACIER")) == ("InvalidStorageClass", 400)
    assert failure(lambda: s3.get_object(Bucket=bucket, Key="a", VersionId="x")) == ("NoSuchVersion", 404)
    s3.put_object(Bucket=bucket, Key="e", Body=b"1", ACL="bucket-owner-full-control", StorageClass="STANDARD")
    code, status, message = refusal(lambda: s3.put_object(Bucket=bucket, Key="m", Body=b"1", Metadata={"a": "x" * 3000}))
    assert (code, status) == ("MetadataTooLarge", 400), message


def test_a_client_that_waits_for_100_continue_is_told_so_or_refused_first(server, s3, signer, bucket):
    def begin(url, length):
        path = url.partition(f":{server.port}")[2]
        talk = socket.create_connection((server.host, server.port))
        talk.settimeout(20)
        talk.sendall(f"PUT {path} HTTP/1.1\r\nhost: {server.host}:{server.port}\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n".encode())
        return talk, talk.recv(65536).decode()

    url = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "waited"})
    talk, said = begin(url, 5)
    assert said.startswith("HTTP/1.1 100 ")
    talk.sendall(b"hello")
    assert talk.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert body_of(s3.get_object(Bucket=bucket, Key="waited")) == b"hello"
    for bad in (url.replace("waited", "other"), signer.generate_presigned_url("put_object", Params={"Bucket": "no-such-bucket", "Key": "k"})):
        _, said = begin(bad, 5)
        assert said.startswith(("HTTP/1.1 403 ", "HTTP/1.1 404 ")), said


def test_a_body_that_breaks_off_leaves_nothing(server, s3, bucket):
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "half"})
    path = url.partition(f":{server.port}")[2]
    talk = socket.create_connection((server.host, server.port))
    talk.sendall(f"PUT {path} HTTP/1.1\r\nhost: {server.host}:{server.port}\r\ncontent-length: {8 * MIB}\r\n\r\n".encode() + bytes(4 * MIB))
    objects = server.data_dir / "objects"
    eventually(lambda: list(objects.rglob("*.new")))
    talk.close()
    eventually(lambda: not list(objects.rglob("*.new")))
    assert failure(lambda: s3.head_object(Bucket=bucket, Key="half"))[1] == 404


def test_large_uploads_take_constant_memory_and_a_kill_leaves_whole_objects_or_none(own_server):
    s3 = own_server.client("s3", max_pool_connections=20)
    s3.create_bucket(Bucket="large")
    s3.put_object(Bucket="large", Key="warm", Body=bytes(8 * MIB))
    before = own_server.rss_kib()
    size = 192 * MIB
    path = own_server.folder / "body"
    with open(path, "wb") as out:
        out.truncate(size)
    with open(path, "rb") as body:
        s3.put_object(Bucket="large", Key="one", Body=body)
    got = s3.get_object(Bucket="large", Key="one")["Body"]
    assert sum(len(piece) for piece in got.iter_chunks(MIB)) == size
    grown = own_server.rss_kib() - before
    assert grown < 48 * 1024, f"{grown} KiB for {size} bytes"
    upload = s3.create_multipart_upload(Bucket="large", Key="two")["UploadId"]
    parts_of(s3, "large", "two", upload, [bytes(5 * MIB)])
    stopped = threading.Event()

    def endless():
        url = s3.generate_presigned_url("put_object", Params={"Bucket": "large", "Key": "cut"})
        talk = socket.create_connection((own_server.host, own_server.port))
        talk.sendall(f"PUT {url.partition(f':{own_server.port}')[2]} HTTP/1.1\r\nhost: {own_server.host}:{own_server.port}\r\ncontent-length: {1 << 32}\r\n\r\n".encode())
        try:
            while not stopped.is_set():
                talk.sendall(bytes(MIB))
        except OSError:
            pass

    sender = threading.Thread(target=endless)
    sender.start()
    eventually(lambda: [path for path in (own_server.data_dir / "objects").rglob("*.new") if path.stat().st_size > 4 * MIB])
    own_server.kill()
    stopped.set()
    sender.join()
    own_server.restart()
    s3 = own_server.client("s3")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="large")["Contents"]] == ["one", "warm"]
    eventually(lambda: not list((own_server.data_dir / "objects").rglob("*.new")))
    s3.complete_multipart_upload(Bucket="large", Key="two", UploadId=upload, MultipartUpload={"Parts": [
        {"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in s3.list_parts(Bucket="large", Key="two", UploadId=upload)["Parts"]]})
    assert body_of(s3.get_object(Bucket="large", Key="two")) == bytes(5 * MIB)
    assert own_server.stop() == 0
    said = json.loads(own_server.run("fsck", "--json").stdout)
    assert said["objects"]["findings"] == []
    assert said["objects"]["objects"] == 3


def test_a_backup_made_while_objects_come_and_go_holds_what_was_there(own_server, tmp_path):
    s3 = own_server.client("s3")
    s3.create_bucket(Bucket="kept")
    bodies = {f"k{number}": os.urandom(200_000) for number in range(20)}
    for key, body in bodies.items():
        s3.put_object(Bucket="kept", Key=key, Body=body)
    upload = s3.create_multipart_upload(Bucket="kept", Key="m")["UploadId"]
    done = parts_of(s3, "kept", "m", upload, [ZEROS, b"end"])
    s3.complete_multipart_upload(Bucket="kept", Key="m", UploadId=upload, MultipartUpload={"Parts": [
        {"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in done]})
    stop = threading.Event()

    def churn():
        busy, number = own_server.client("s3"), 0
        while not stop.is_set():
            busy.put_object(Bucket="kept", Key=f"churn{number % 5}", Body=os.urandom(50_000))
            busy.delete_object(Bucket="kept", Key=f"churn{(number + 2) % 5}")
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        own_server.run("backup", str(tmp_path / "backup"))
    finally:
        stop.set()
        thread.join()
    own_server.stop()
    restored = tmp_path / "restored"
    subprocess.run([harness.binary(), "restore", "--data-dir", str(restored), str(tmp_path / "backup")], check=True, capture_output=True)
    said = json.loads(subprocess.run([harness.binary(), "fsck", "--data-dir", str(restored), "--json"], check=True, capture_output=True, text=True).stdout)
    assert said["objects"]["findings"] == []
    second = harness.Server(restored)
    s3 = second.client("s3")
    for key, body in bodies.items():
        assert body_of(s3.get_object(Bucket="kept", Key=key)) == body
    assert body_of(s3.get_object(Bucket="kept", Key="m")) == ZEROS + b"end"
    assert second.stop() == 0
