"""Deletion that deletes: after DeleteFaces, DeleteUser and DeleteCollection have answered, no file of the whole data directory has the
vector any more, in any form, also where the server is killed at that moment, or in the middle of something else."""

import random
import threading
import time

import pytest

import vectors
from test_stream_processor import prepared

pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

ROUNDS = 3


def enrol(rekognition, collection, photographs, suffix=""):
    """Every photograph's face; ids by name."""
    ids = {}
    for name, image in photographs.items():
        # Another byte behind the picture is another image, whose face has an id of its own.
        answer = rekognition.index_faces(CollectionId=collection, Image={"Bytes": image + suffix.encode()}, ExternalImageId=name + suffix, MaxFaces=1)
        ids[name] = answer["FaceRecords"][0]["Face"]["FaceId"]
    return ids


class Churn:
    """Faces that come and go in another collection, so that a kill meets the file in the middle of a change."""

    def __init__(self, server, image):
        self.rekognition, self.image = server.client("rekognition"), image
        self.rekognition.create_collection(CollectionId="churn")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        for number in range(1000):
            try:
                added = self.rekognition.index_faces(CollectionId="churn", Image={"Bytes": self.image + str(number).encode()}, MaxFaces=1)
                self.rekognition.delete_faces(CollectionId="churn", FaceIds=[r["Face"]["FaceId"] for r in added["FaceRecords"]])
            except Exception:  # the server is gone
                return


def test_no_file_of_the_data_directory_has_a_deleted_vector_even_after_a_kill(own_server, photographs):
    chance = random.Random(5)
    gone = []
    for number in range(ROUNDS):
        rekognition = own_server.client("rekognition")
        rekognition.create_collection(CollectionId="people")
        ids = enrol(rekognition, "people", photographs, suffix=f"-{number}")
        rekognition.create_user(CollectionId="people", UserId="ada")
        rekognition.associate_faces(CollectionId="people", UserId="ada", FaceIds=[ids["obama"], ids["obama-2"]], UserMatchThreshold=0)
        rekognition.search_faces(CollectionId="people", FaceId=ids["biden"], FaceMatchThreshold=0)
        rekognition.search_users(CollectionId="people", UserId="ada")
        kept = vectors.stored(own_server.data_dir)
        mine = {name: kept[face] for name, face in ids.items()}
        assert vectors.found(own_server.data_dir, mine.values()), "the search must be able to find some"
        churn = Churn(own_server, photographs["resident"])
        rekognition.delete_user(CollectionId="people", UserId="ada")
        doomed = ["obama", "obama-2", "biden"]
        deleted = rekognition.delete_faces(CollectionId="people", FaceIds=[ids[name] for name in doomed])["DeletedFaces"]
        assert sorted(deleted) == sorted(ids[name] for name in doomed)
        # The same picture gives the same vector: what is looked for must be in no other face.
        gone += [mine[name] for name in doomed]
        time.sleep(chance.uniform(0, 0.3))
        own_server.kill()
        churn.thread.join()
        assert vectors.found(own_server.data_dir, gone) == [], f"round {number}, right after the kill"
        own_server.restart()
        assert vectors.found(own_server.data_dir, gone) == [], f"round {number}, after the start"
        rekognition = own_server.client("rekognition")
        assert [f["FaceId"] for f in rekognition.list_faces(CollectionId="people")["Faces"]] == [ids["resident"]]
        for collection in rekognition.list_collections()["CollectionIds"]:
            rekognition.delete_collection(CollectionId=collection)
        own_server.kill()
        gone.append(mine["resident"])
        assert vectors.found(own_server.data_dir, gone) == [], f"round {number}, after the collection's end"
        own_server.restart()
        assert vectors.stored(own_server.data_dir) == {}
        # The next round enrols the same faces again.
        gone.clear()
