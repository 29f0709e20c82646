"""Users of collections, comparison of photographs and images in buckets, as boto3 drives them; and that what is deleted is
in no file of the data directory."""

import base64
import sqlite3
import struct

import pytest

from harness import code_of, failure, refusal

UNKNOWN = "11111111-2222-3333-4444-555555555555"
MISSING = ("ResourceNotFoundException", 400)
INVALID = ("InvalidParameterException", 400)


@pytest.fixture
def rekognition(server):
    # Bad arguments must reach the server, not the SDK's own checks.
    return server.client("rekognition", parameter_validation=False)


@pytest.fixture
def collection(rekognition, name):
    rekognition.create_collection(CollectionId=name)
    return name


def enrol(rekognition, collection, photograph):
    [record] = rekognition.index_faces(CollectionId=collection, Image={"Bytes": photograph}, MaxFaces=1)["FaceRecords"]
    return record["Face"]["FaceId"]


def test_a_person_of_several_photographs_is_found_by_face_user_and_image(rekognition, collection, photographs):
    first, second = (enrol(rekognition, collection, photographs[who]) for who in ("obama", "obama-2"))
    other = enrol(rekognition, collection, photographs["biden"])
    for user in ("barack", "joe"):
        rekognition.create_user(CollectionId=collection, UserId=user)
    assert rekognition.describe_collection(CollectionId=collection)["UserCount"] == 2
    listed = [u for page in rekognition.get_paginator("list_users").paginate(CollectionId=collection, PaginationConfig={"PageSize": 1}) for u in page["Users"]]
    assert listed == [{"UserId": "barack", "UserStatus": "CREATED"}, {"UserId": "joe", "UserStatus": "CREATED"}]
    answer = rekognition.associate_faces(CollectionId=collection, UserId="barack", FaceIds=[first, second])
    assert [face["FaceId"] for face in answer["AssociatedFaces"]] == [first, second] and answer["UserStatus"] == "ACTIVE"
    answer = rekognition.associate_faces(CollectionId=collection, UserId="joe", FaceIds=[other, first, UNKNOWN])
    assert [face["FaceId"] for face in answer["AssociatedFaces"]] == [other]
    assert answer["UnsuccessfulFaceAssociations"] == [
        {"FaceId": first, "UserId": "barack", "Reasons": ["ASSOCIATED_TO_A_DIFFERENT_USER"]}, {"FaceId": UNKNOWN, "Reasons": ["FACE_NOT_FOUND"]}]
    rekognition.disassociate_faces(CollectionId=collection, UserId="barack", FaceIds=[second])
    [low] = rekognition.associate_faces(CollectionId=collection, UserId="joe", FaceIds=[second])["UnsuccessfulFaceAssociations"]
    assert low["Reasons"] == ["LOW_MATCH_CONFIDENCE"] and low["Confidence"] < 75
    by_face = rekognition.search_users(CollectionId=collection, FaceId=second)
    assert by_face["SearchedFace"]["FaceId"] == second and by_face["FaceModelVersion"]
    assert [m["User"] for m in by_face["UserMatches"]] == [{"UserId": "barack", "UserStatus": "ACTIVE"}]
    by_user = rekognition.search_users(CollectionId=collection, UserId="joe", UserMatchThreshold=0)
    assert [m["User"]["UserId"] for m in by_user["UserMatches"]] == ["barack"] and by_user["SearchedUser"] == {"UserId": "joe"}
    found = rekognition.search_users_by_image(CollectionId=collection, Image={"Bytes": photographs["biden"]}, MaxUsers=1)
    assert found["UserMatches"][0]["User"]["UserId"] == "joe" and found["SearchedFace"]["FaceDetail"]["BoundingBox"]
    assert [f["UserId"] for f in rekognition.list_faces(CollectionId=collection, UserId="joe")["Faces"]] == ["joe"]
    matches = rekognition.search_faces(CollectionId=collection, FaceId=second)["FaceMatches"]
    assert [(m["Face"]["FaceId"], m["Face"]["UserId"]) for m in matches] == [(first, "barack")]
    [kept] = rekognition.delete_faces(CollectionId=collection, FaceIds=[first])["UnsuccessfulFaceDeletions"]
    assert kept == {"FaceId": first, "UserId": "barack", "Reasons": ["ASSOCIATED_TO_AN_EXISTING_USER"]}
    rekognition.delete_user(CollectionId=collection, UserId="barack")
    assert rekognition.search_users(CollectionId=collection, FaceId=second)["UserMatches"] == []
    assert rekognition.delete_faces(CollectionId=collection, FaceIds=[first])["DeletedFaces"] == [first]


def test_errors_of_users_are_declared(rekognition, collection, photographs):
    face = enrol(rekognition, collection, photographs["obama"])
    rekognition.create_user(CollectionId=collection, UserId="ada", ClientRequestToken="once")
    rekognition.create_user(CollectionId=collection, UserId="ada", ClientRequestToken="once")
    assert failure(lambda: rekognition.create_user(CollectionId=collection, UserId="ada")) == ("ConflictException", 400)
    assert code_of(lambda: rekognition.create_user(CollectionId=collection, UserId="bob", ClientRequestToken="once")) == "IdempotentParameterMismatchException"
    for call in (lambda: rekognition.create_user(CollectionId="missing", UserId="ada"), lambda: rekognition.delete_user(CollectionId=collection, UserId="nobody"),
                 lambda: rekognition.list_users(CollectionId="missing"), lambda: rekognition.list_faces(CollectionId=collection, UserId="nobody"),
                 lambda: rekognition.associate_faces(CollectionId=collection, UserId="nobody", FaceIds=[face]),
                 lambda: rekognition.disassociate_faces(CollectionId=collection, UserId="nobody", FaceIds=[face]),
                 lambda: rekognition.search_users(CollectionId=collection, UserId="nobody")):
        assert failure(call) == MISSING
    for call in (lambda: rekognition.search_users(CollectionId=collection), lambda: rekognition.search_users(CollectionId=collection, UserId="ada", FaceId=face),
                 lambda: rekognition.search_users(CollectionId=collection, FaceId=UNKNOWN)):
        assert failure(call) == INVALID
    for arguments in ({"UserId": "no spaces"}, {"UserId": "u" * 129}, {"UserId": ""}, {"UserId": "x", "ClientRequestToken": "t" * 65}):
        code, status = failure(lambda: rekognition.create_user(CollectionId=collection, **arguments))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), arguments
    for faces in ([], [face] * 101, ["no-id"]):
        code, status = failure(lambda: rekognition.associate_faces(CollectionId=collection, UserId="ada", FaceIds=faces))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), faces
    assert code_of(lambda: rekognition.list_users(CollectionId=collection, NextToken="nonsense")) == "InvalidPaginationTokenException"
    many = [f"{number:08x}-2222-3333-4444-555555555555" for number in range(4097)]
    assert len(rekognition.delete_faces(CollectionId=collection, FaceIds=many[:4096])["UnsuccessfulFaceDeletions"]) == 4096
    assert rekognition.list_faces(CollectionId=collection, FaceIds=many[:4096])["Faces"] == []
    for call in (lambda: rekognition.delete_faces(CollectionId=collection, FaceIds=many), lambda: rekognition.list_faces(CollectionId=collection, FaceIds=many)):
        code, status = failure(call)
        assert status == 400 and code in ("InvalidParameterException", "ValidationException")


def test_users_and_images_of_another_account_are_as_if_they_were_not_there(server, rekognition, collection, name, photographs):
    rekognition.create_user(CollectionId=collection, UserId="ada")
    bucket = name.lower()[:60]
    s3 = server.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket=bucket, Key="people/obama.jpg", Body=photographs["obama"])
    image = {"S3Object": {"Bucket": bucket, "Name": "people/obama.jpg"}}
    assert len(rekognition.detect_faces(Image=image)["FaceDetails"]) == 1
    key, secret = server.make_key(account="111111111111")
    theirs = server.client("rekognition", access_key=key, secret=secret)
    for call in (lambda: theirs.list_users(CollectionId=collection), lambda: theirs.delete_user(CollectionId=collection, UserId="ada"),
                 lambda: theirs.search_users(CollectionId=collection, UserId="ada")):
        assert failure(call) == MISSING
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "rekognition:*", "Resource": "*"}]}
    key, secret = server.make_key(policy=policy)
    without = server.client("rekognition", access_key=key, secret=secret)
    words = "Unable to get object metadata from S3. Check object key, region and/or access permissions."
    for call in (lambda: theirs.detect_faces(Image=image), lambda: without.detect_faces(Image=image),
                 lambda: rekognition.detect_faces(Image={"S3Object": {"Bucket": bucket, "Name": "missing"}})):
        assert refusal(call) == ("InvalidS3ObjectException", 400, words)


def test_photographs_in_buckets_serve_every_image_operation(server, rekognition, collection, name, photographs):
    bucket = name.lower()[:60]
    s3 = server.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for key, body in [("a", photographs["obama"]), ("b", photographs["obama-2"]), ("text", b"no picture"), ("huge", b"\xff\xd8" + bytes(15 << 20))]:
        s3.put_object(Bucket=bucket, Key=key, Body=body)

    def image(key, **more):
        return {"S3Object": {"Bucket": bucket, "Name": key, **more}}

    rekognition.index_faces(CollectionId=collection, Image=image("a"), ExternalImageId="barack")
    [match] = rekognition.search_faces_by_image(CollectionId=collection, Image=image("b"))["FaceMatches"]
    assert match["Face"]["ExternalImageId"] == "barack"
    assert rekognition.search_users_by_image(CollectionId=collection, Image=image("b"))["UserMatches"] == []
    compared = rekognition.compare_faces(SourceImage=image("a"), TargetImage=image("b"))
    assert compared["FaceMatches"][0]["Similarity"] >= 80 and compared["SourceImageFace"]["BoundingBox"]
    for key, more, expected in [("text", {}, "InvalidImageFormatException"), ("huge", {}, "ImageTooLargeException"), ("a", {"Version": "1"}, "InvalidS3ObjectException")]:
        assert failure(lambda: rekognition.detect_faces(Image=image(key, **more))) == (expected, 400)
        assert failure(lambda: rekognition.compare_faces(SourceImage=image("a"), TargetImage=image(key, **more))) == (expected, 400)


def test_two_photographs_are_compared(rekognition, photographs):
    def compare(source, target, **more):
        return rekognition.compare_faces(SourceImage={"Bytes": photographs[source]}, TargetImage={"Bytes": photographs[target]}, **more)

    same = compare("obama", "obama-2")
    assert [match["Similarity"] >= 80 for match in same["FaceMatches"]] == [True] and same["SourceImageFace"]["Confidence"] > 90
    assert {"BoundingBox", "Confidence", "Landmarks", "Pose", "Quality"} <= set(same["FaceMatches"][0]["Face"])
    other = compare("obama", "biden")
    assert other["FaceMatches"] == [] and len(other["UnmatchedFaces"]) == 1
    assert len(compare("obama", "biden", SimilarityThreshold=0)["FaceMatches"]) == 1
    assert failure(lambda: compare("obama", "biden", SimilarityThreshold=101))[1] == 400
    broken = {"Bytes": b"no picture"}
    assert failure(lambda: rekognition.compare_faces(SourceImage=broken, TargetImage={"Bytes": photographs["obama"]})) == ("InvalidImageFormatException", 400)


def stored_vectors(server, collection):
    """The vectors of a collection as they lie in the file: slots of 128 numbers behind a head of one page."""
    with sqlite3.connect(f"file:{server.data_dir}/faces.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT b.data, f.slot - b.first_slot FROM collections c JOIN faces f ON f.collection = c.id "
                                "JOIN blocks b ON b.collection = c.id AND f.slot / 128 = b.first_slot / 128 WHERE c.name = ?", (collection,)).fetchall()
    return [data[4096 + slot * 512:4096 + (slot + 1) * 512] for data, slot in rows]


def forms(vector):
    """A vector in every form in which a program might write it."""
    numbers = struct.unpack("<128f", vector)
    largest = max(map(abs, numbers))
    plain = [vector] + [bytes(round(x * scale) & 0xff for x in numbers) for scale in (127, 127 / largest)]
    return [form[8:72] for form in plain] + [base64.b64encode(form[shift:])[:64] for form in plain for shift in range(3)]


def traces(server, vectors):
    wanted = [form for vector in vectors for form in forms(vector)]
    files = [path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()]
    return sum(form in content for form in wanted for content in files)


def test_a_deleted_face_or_person_is_in_no_file_of_the_data_directory(own_server, photographs):
    rekognition = own_server.client("rekognition")
    rekognition.create_collection(CollectionId="staff")
    faces = [enrol(rekognition, "staff", photographs[who]) for who in ("obama", "obama-2", "biden")]
    rekognition.create_user(CollectionId="staff", UserId="barack")
    rekognition.associate_faces(CollectionId="staff", UserId="barack", FaceIds=faces[:2])
    vectors = stored_vectors(own_server, "staff")
    assert len(vectors) == 3 and traces(own_server, vectors) == 3, "each is in one file, as it is"
    parts = [struct.unpack("<128f", vector) for vector in vectors[:2]]
    mean = [sum(pair) / 2 for pair in zip(*parts)]
    norm = sum(x * x for x in mean) ** 0.5
    fused = struct.pack("<128f", *(x / norm for x in mean))
    assert traces(own_server, [fused]) == 0, "the vector of a user is in no file"
    rekognition.delete_user(CollectionId="staff", UserId="barack")
    rekognition.delete_faces(CollectionId="staff", FaceIds=faces[:1])
    assert traces(own_server, vectors[:1]) == 0 and traces(own_server, vectors[1:]) == 2
    rekognition.delete_collection(CollectionId="staff")
    assert traces(own_server, vectors) == 0


def test_users_survive_a_kill(own_server, photographs):
    rekognition = own_server.client("rekognition")
    rekognition.create_collection(CollectionId="staff")
    face = enrol(rekognition, "staff", photographs["obama"])
    rekognition.create_user(CollectionId="staff", UserId="barack")
    rekognition.associate_faces(CollectionId="staff", UserId="barack", FaceIds=[face])
    own_server.kill()
    own_server.restart()
    rekognition = own_server.client("rekognition")
    found = rekognition.search_users_by_image(CollectionId="staff", Image={"Bytes": photographs["obama-2"]})
    assert [match["User"]["UserId"] for match in found["UserMatches"]] == ["barack"]
