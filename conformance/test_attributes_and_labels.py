"""Attributes of faces and labels of pictures as boto3 asks for them."""

import pytest

from harness import failure
from test_rekognition import png

UNTOLD = {"Beard", "Mustache", "Eyeglasses", "Sunglasses", "FaceOccluded", "EyeDirection"}
TOLD = {"AgeRange", "Gender", "Smile", "EyesOpen", "MouthOpen", "Emotions"}
DEFAULT = {"BoundingBox", "Confidence", "Landmarks", "Pose", "Quality"}


@pytest.fixture
def rekognition(server):
    return server.client("rekognition", parameter_validation=False)


@pytest.fixture(autouse=True)
def models_of_attributes(rekognition):
    """Where the models were prepared without, there is nothing to test."""
    try:
        rekognition.detect_faces(Image={"Bytes": png(100, 100)}, Attributes=["GENDER"])
    except rekognition.exceptions.InvalidParameterException:
        pytest.skip("skipped: models prepared without attributes")


def faces(rekognition, photograph, *attributes):
    return rekognition.detect_faces(Image={"Bytes": photograph}, Attributes=list(attributes))["FaceDetails"]


def test_all_attributes_of_known_faces(rekognition, photographs):
    [obama] = faces(rekognition, photographs["obama"], "ALL")
    [biden] = faces(rekognition, photographs["biden"], "ALL")
    for face in (obama, biden):
        assert set(face) == DEFAULT | TOLD
        assert face["Gender"]["Value"] == "Male" and face["Gender"]["Confidence"] > 80
        assert face["EyesOpen"]["Value"] and 0 < face["AgeRange"]["Low"] < face["AgeRange"]["High"] <= 120
        assert sum(emotion["Confidence"] for emotion in face["Emotions"]) == pytest.approx(100, abs=0.1)
    assert obama["Smile"]["Value"] and obama["MouthOpen"]["Value"] and obama["Emotions"][0]["Type"] == "HAPPY"
    assert not biden["Smile"]["Value"] and not biden["MouthOpen"]["Value"]
    assert biden["AgeRange"]["Low"] > obama["AgeRange"]["Low"], "a man of 70 beside one of 51"


def test_thirty_landmarks_lie_where_a_face_has_them(rekognition, photographs):
    for person in ("obama", "biden", "resident"):
        [face] = faces(rekognition, photographs[person], "ALL")
        at = {mark["Type"]: mark for mark in face["Landmarks"]}
        assert len(at) == len(face["Landmarks"]) == 30
        xs = [at[name]["X"] for name in ("upperJawlineLeft", "leftEyeLeft", "leftPupil", "leftEyeRight", "nose", "rightEyeLeft", "rightPupil", "rightEyeRight", "upperJawlineRight")]
        ys = [at[name]["Y"] for name in ("leftEyeBrowUp", "leftEyeUp", "leftEyeDown", "nose", "mouthUp", "mouthDown", "chinBottom")]
        assert xs == sorted(xs) and ys == sorted(ys), person


def test_attributes_are_mixed_as_aws_mixes_them(rekognition, photographs):
    photograph = photographs["biden"]
    assert set(faces(rekognition, photograph)[0]) == set(faces(rekognition, photograph, "DEFAULT")[0]) == DEFAULT
    assert set(faces(rekognition, photograph, "GENDER", "EMOTIONS")[0]) == DEFAULT | {"Gender", "Emotions"}
    assert set(faces(rekognition, photograph, "DEFAULT", "ALL", "GENDER")[0]) == DEFAULT | TOLD
    for unknown in ("BEARD", "SUNGLASSES", "FACE_OCCLUDED", "EYE_DIRECTION", "HAIR"):
        code, status = failure(lambda: faces(rekognition, photograph, "DEFAULT", unknown))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), unknown


def test_index_faces_tells_attributes_too(rekognition, photographs, name):
    rekognition.create_collection(CollectionId=name)
    enrolled = rekognition.index_faces(CollectionId=name, Image={"Bytes": photographs["obama"]}, DetectionAttributes=["ALL"])
    [record] = enrolled["FaceRecords"]
    assert set(record["FaceDetail"]) == DEFAULT | TOLD and len(record["FaceDetail"]["Landmarks"]) == 30


def test_labels_of_a_photograph(rekognition, photographs):
    answer = rekognition.detect_labels(Image={"Bytes": photographs["biden"]})
    labels = {label["Name"]: label for label in answer["Labels"]}
    person = labels["Person"]
    assert person["Confidence"] >= 55 and person["Aliases"] == [{"Name": "Human"}] and person["Categories"] == [{"Name": "Person Description"}]
    [instance] = person["Instances"]
    box = instance["BoundingBox"]
    assert box["Width"] > 0.4 and box["Height"] > 0.6 and instance["Confidence"] == person["Confidence"]
    confidences = [label["Confidence"] for label in answer["Labels"]]
    assert confidences == sorted(confidences, reverse=True) and answer["LabelModelVersion"]
    assert rekognition.detect_labels(Image={"Bytes": png(200, 200)})["Labels"] == []


def test_labels_are_limited_and_filtered(rekognition, photographs):
    image = {"Bytes": photographs["obama"]}

    def names(**more):
        return [label["Name"] for label in rekognition.detect_labels(Image=image, **more)["Labels"]]

    assert names(MinConfidence=100) == [] and names(MaxLabels=0) == []
    assert len(names(MinConfidence=0)) >= len(names()) >= 1
    assert names(Settings={"GeneralLabels": {"LabelInclusionFilters": ["Person"]}}) == ["Person"]
    assert "Person" not in names(Settings={"GeneralLabels": {"LabelExclusionFilters": ["Person"]}})
    assert "Person" not in names(Settings={"GeneralLabels": {"LabelCategoryExclusionFilters": ["Person Description"]}})
    assert names(Settings={"GeneralLabels": {"LabelCategoryInclusionFilters": ["Animals and Pets"]}}) == []


def test_bad_label_requests_are_declared_errors(rekognition, photographs):
    image = {"Bytes": photographs["obama"]}
    for request in ({"Image": {}}, {"Image": {"Bytes": b"GIF89a"}}, {"Image": image, "MinConfidence": 101}, {"Image": image, "MaxLabels": -1},
                    {"Image": image, "Features": ["IMAGE_PROPERTIES"]}, {"Image": image, "Features": ["SMELL"]}):
        code, status = failure(lambda: rekognition.detect_labels(**request))
        assert status == 400 and code in ("InvalidParameterException", "InvalidImageFormatException", "ValidationException"), (request.keys(), code)
