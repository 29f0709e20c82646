"""The main job, end to end, with the AWS SDK: a camera's video goes in, known faces come out.

Starts a server in a folder of its own, enrols people from photographs (boto3: rekognition), plays each video into a
stream as a camera would (`sightglass put --realtime`), reads what the stream processors wrote (boto3: kinesis) and prints
each recognition as it happens. Exits non-zero if an expected person was not recognised or a stranger was named.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

import boto3
from botocore.config import Config

HERE = pathlib.Path(__file__).resolve().parent
THRESHOLD = 80.0
READY = re.compile(r"sightglass ready (http\S+)")
PHOTOGRAPHS = {".jpg", ".jpeg", ".png"}
COLLECTION = "people"
ROLE = "arn:aws:iam::000000000000:role/demo"
POLL_SECONDS = 0.02
START_DEADLINE_SECONDS = 20
DRAIN_SECONDS = 15


class Colours:
    """ANSI colours on a terminal, nothing elsewhere or with NO_COLOR."""

    def __init__(self):
        on = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.known, self.unknown, self.faint, self.bold, self.bad, self.off = (
            ("\033[32m", "\033[33m", "\033[2m", "\033[1m", "\033[31m", "\033[0m") if on else ("",) * 6
        )


C = Colours()


@dataclass
class Camera:
    """One video that is played into one stream, and what must come out of it."""

    name: str
    video: pathlib.Path
    expect: list = field(default_factory=list)
    expect_unknown: bool = False
    strangers_only: bool = False
    frames_in: int = 0


@dataclass
class Tally:
    """What was seen of one camera."""

    analysed: int = 0
    faces: int = 0
    matched: int = 0
    unknown: int = 0
    names: dict = field(default_factory=dict)
    delays_ms: list = field(default_factory=list)


def step(text):
    print(f"{C.bold}▸ {text}{C.off}", flush=True)


def load_plan(args):
    """People and cameras: the user's own, or those that fetch.py brought from the package registries."""
    if args.video or args.faces:
        if not (args.video and args.faces):
            sys.exit("demo: VIDEO= and FACES= go together: a video, and a folder of photographs named after the people")
        people = people_of(pathlib.Path(args.faces))
        return people, [Camera("camera-1", pathlib.Path(args.video))]
    cache = pathlib.Path(args.cache)
    subprocess.run([sys.executable, str(HERE / "fetch.py"), str(cache)], check=True)
    plan = json.loads((cache / "plan.json").read_text())
    people = {name: [cache / photo for photo in photos] for name, photos in plan["people"].items()}
    cameras = [
        Camera(c["name"], cache / c["video"], c.get("expect", []), c.get("expect_unknown", False), c.get("strangers_only", False))
        for c in plan["cameras"]
    ]
    return people, cameras


def people_of(folder):
    """`ada.jpg` and `ada/any.jpg` are both photographs of ada; `ada-2.jpg` is one more of her."""
    people = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in PHOTOGRAPHS:
            continue
        name = path.parent.name if path.parent != folder else re.sub(r"[-_ ]?\d+$", "", path.stem)
        people.setdefault(re.sub(r"[^A-Za-z0-9_.:-]", "_", name), []).append(path)
    if not people:
        sys.exit(f"demo: {folder} holds no .jpg or .png photographs")
    return people


def as_mkv(video, folder):
    """H.264 in Matroska with a key frame a second and no B-frames, as a camera sends it; returns path and frame count."""
    target = folder / f"{video.stem}.mkv"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(video), "-an", "-sn", "-pix_fmt", "yuv420p", "-c:v", "libx264",
               "-preset", "veryfast", "-bf", "0", "-force_key_frames", "expr:gte(t,n_forced*1)",
               "-cluster_time_limit", "1000", "-fps_mode", "passthrough", str(target)]
    subprocess.run(command, check=True)
    probe = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-show_entries",
                            "stream=nb_read_packets", "-of", "csv=p=0", str(target)], check=True, capture_output=True, text=True)
    return target, int(probe.stdout.strip().strip(","))


class Server:
    """`sightglass serve` in a data directory of its own."""

    def __init__(self, args, folder):
        self.data = folder / "data"
        environment = dict(os.environ, SIGHTGLASS_WORKER=str(pathlib.Path(args.worker).resolve()))
        self.log = open(folder / "server.log", "w")
        self.binary = args.sightglass
        self.child = subprocess.Popen([args.sightglass, "serve", "--data-dir", str(self.data), "--listen", "127.0.0.1:0"],
                                      stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        line = self.child.stdout.readline()
        found = READY.search(line)
        if not found:
            sys.exit(f"demo: the server did not start; its log is {folder / 'server.log'}")
        self.url = found.group(1)
        said = subprocess.run([args.sightglass, "env", "--data-dir", str(self.data), "--json"], check=True, capture_output=True, text=True)
        self.environment = json.loads(said.stdout)
        self.environment["AWS_ENDPOINT_URL"] = self.url

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=self.environment["AWS_REGION"],
                            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
                            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
                            config=Config(retries={"max_attempts": 2}, max_pool_connections=8))

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(timeout=30)
        if code != 0:
            print(f"{C.bad}the server ended with {code}{C.off}")
        return code


def enrol(rekognition, people):
    rekognition.create_collection(CollectionId=COLLECTION)
    for name, photographs in people.items():
        for photograph in photographs:
            answer = rekognition.index_faces(CollectionId=COLLECTION, ExternalImageId=name, MaxFaces=1,
                                             Image={"Bytes": photograph.read_bytes()})
            stored = answer["FaceRecords"]
            reasons = [r for face in answer["UnindexedFaces"] for r in face["Reasons"]]
            print(f"  {name:<16} {photograph.name:<28} " + (
                f"{C.known}enrolled{C.off} face {stored[0]['Face']['FaceId']}" if stored else f"{C.bad}no face kept: {reasons or 'none found'}{C.off}"))


def set_up(server, cameras):
    video, kinesis, rekognition = (server.client(s) for s in ("kinesisvideo", "kinesis", "rekognition"))
    for camera in cameras:
        kinesis.create_stream(StreamName=f"{camera.name}-faces", ShardCount=1)
        data = kinesis.describe_stream_summary(StreamName=f"{camera.name}-faces")["StreamDescriptionSummary"]["StreamARN"]
        arn = video.create_stream(StreamName=camera.name, DataRetentionInHours=1, MediaType="video/h264")["StreamARN"]
        rekognition.create_stream_processor(
            Name=f"{camera.name}-processor", RoleArn=ROLE, Input={"KinesisVideoStream": {"Arn": arn}},
            Output={"KinesisDataStream": {"Arn": data}},
            Settings={"FaceSearch": {"CollectionId": COLLECTION, "FaceMatchThreshold": THRESHOLD}})
        rekognition.start_stream_processor(Name=f"{camera.name}-processor")
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    for camera in cameras:
        while True:
            status = rekognition.describe_stream_processor(Name=f"{camera.name}-processor")
            if status["Status"] == "RUNNING":
                break
            if status["Status"] == "FAILED" or time.monotonic() > deadline:
                sys.exit(f"demo: processor of {camera.name} is {status['Status']}: {status.get('StatusMessage')}")
            time.sleep(POLL_SECONDS)


class Watcher(threading.Thread):
    """Reads one camera's data stream and prints each recognition as it becomes readable."""

    terminal = threading.Lock()

    def __init__(self, server, camera):
        super().__init__(daemon=True)
        self.kinesis, self.camera, self.tally = server.client("kinesis"), camera, Tally()
        self.last_record, self.halt, self.failure = time.monotonic(), threading.Event(), None
        self.shown = {}

    def run(self):
        try:
            self.follow()
        except Exception as failure:  # a thread's failure is the demo's failure
            self.failure = failure

    def follow(self):
        stream = f"{self.camera.name}-faces"
        shard = self.kinesis.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
        iterator = self.kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while not self.halt.is_set():
            answer = self.kinesis.get_records(ShardIterator=iterator, Limit=1000)
            read_at = time.time()
            iterator = answer["NextShardIterator"]
            for record in answer["Records"]:
                self.last_record = time.monotonic()
                self.take(json.loads(record["Data"]), read_at)
            if not answer["Records"]:
                self.halt.wait(POLL_SECONDS)

    def take(self, record, read_at):
        arrived = record["Sightglass"]["FrameArrivalTimestamp"]
        delay_ms = (read_at - arrived) * 1000.0
        self.tally.analysed += 1
        self.tally.delays_ms.append(delay_ms)
        position = record["InputInformation"]["KinesisVideo"]
        when = position["ProducerTimestamp"] + position["FrameOffsetInSeconds"]
        for face in record["FaceSearchResponse"]:
            self.tally.faces += 1
            matches = face["MatchedFaces"]
            if matches:
                name, similarity = matches[0]["Face"]["ExternalImageId"], matches[0]["Similarity"]
                self.tally.matched += 1
                self.tally.names[name] = self.tally.names.get(name, 0) + 1
                self.show(when, name, f"{similarity:5.1f} %", delay_ms, C.known)
            else:
                self.tally.unknown += 1
                self.show(when, "unknown", "      –", delay_ms, C.unknown)

    def show(self, when, name, similarity, delay_ms, colour):
        """At most two lines a second for a name, so that a person can read along; every record is counted."""
        if when - self.shown.get(name, -1.0) < 0.5:
            return
        self.shown[name] = when
        clock = time.strftime("%H:%M:%S", time.localtime(when)) + f".{int(when * 1000) % 1000:03d}"
        line = f"  {self.camera.name:<16} {clock}  {colour}{name:<16}{C.off} {similarity}  {C.faint}after {delay_ms:6.1f} ms{C.off}"
        with self.terminal:
            print(line, flush=True)


def play(server, cameras):
    """Every camera at once, in real time; then waits until the records stop coming."""
    watchers = [Watcher(server, camera) for camera in cameras]
    for watcher in watchers:
        watcher.start()
    environment = dict(os.environ, **server.environment)
    senders = [subprocess.Popen([server.binary, "put", camera.name, str(camera.video), "--realtime"], env=environment, stdout=subprocess.DEVNULL)
               for camera in cameras]
    codes = [sender.wait() for sender in senders]
    ended = time.monotonic()
    for watcher in watchers:
        while watcher.is_alive() and watcher.tally.analysed < watcher.camera.frames_in:
            quiet = time.monotonic() - max(watcher.last_record, ended)
            if quiet > 2.0 or time.monotonic() - ended > DRAIN_SECONDS:
                break
            time.sleep(POLL_SECONDS)
    for watcher in watchers:
        watcher.halt.set()
        watcher.join(timeout=10)
        if watcher.failure:
            raise watcher.failure
    if any(codes):
        sys.exit(f"demo: a camera could not send its video: exit codes {codes}")
    return {watcher.camera.name: watcher.tally for watcher in watchers}


def percentile(values, share):
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else (values or [float("nan")])[0]


def summary(cameras, tallies):
    head = f"{'camera':<16}{'frames in':>10}{'analysed':>10}{'skipped':>9}{'faces':>7}{'matched':>9}{'unknown':>9}{'p50 ms':>8}{'p95 ms':>8}  seen"
    print(f"\n{C.bold}{head}{C.off}")
    for camera in cameras:
        t = tallies[camera.name]
        seen = ", ".join(f"{name} ×{count}" for name, count in sorted(t.names.items())) or "nobody known"
        print(f"{camera.name:<16}{camera.frames_in:>10}{t.analysed:>10}{max(0, camera.frames_in - t.analysed):>9}{t.faces:>7}{t.matched:>9}{t.unknown:>9}"
              f"{percentile(t.delays_ms, 50):>8.1f}{percentile(t.delays_ms, 95):>8.1f}  {seen}")


def judge(cameras, tallies):
    """What went wrong, in words; empty when the demo kept its promise."""
    wrong = []
    for camera in cameras:
        tally = tallies[camera.name]
        if tally.analysed == 0:
            wrong.append(f"{camera.name}: no frame was analysed")
        for name in camera.expect:
            if name not in tally.names:
                wrong.append(f"{camera.name}: {name} was not recognised")
        for name, count in tally.names.items():
            if (camera.expect or camera.strangers_only) and name not in camera.expect:
                wrong.append(f"{camera.name}: {count} face(s) were taken for {name}, who is not in the video")
        if camera.expect_unknown and tally.unknown == 0:
            wrong.append(f"{camera.name}: the stranger in it was never reported as unknown")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sightglass", required=True, help="the server binary")
    parser.add_argument("--worker", required=True, help="the vision worker binary")
    parser.add_argument("--video", help="your own video; goes with --faces")
    parser.add_argument("--faces", help="your own folder of photographs; goes with --video")
    parser.add_argument("--cache", default=".cache/demo", help="where the demo's input is unpacked")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON too")
    args = parser.parse_args()

    people, cameras = load_plan(args)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sightglass-demo-"))
    try:
        step("Preparing the videos as a camera sends them")
        for camera in cameras:
            camera.video, camera.frames_in = as_mkv(camera.video, folder)
            print(f"  {camera.name:<16} {camera.frames_in} frames")
        step("Starting the server")
        server = Server(args, folder)
        print(f"  {server.url}")
        try:
            step(f"Enrolling {len(people)} people")
            enrol(server.client("rekognition"), people)
            set_up(server, cameras)
            step("Cameras on")
            tallies = play(server, cameras)
        finally:
            code = server.stop()
        summary(cameras, tallies)
        wrong = judge(cameras, tallies) + ([] if code == 0 else [f"the server ended with {code}"])
        if args.json:
            print(json.dumps({c.name: vars(tallies[c.name]) | {"frames_in": c.frames_in} for c in cameras}))
        for line in wrong:
            print(f"{C.bad}✗ {line}{C.off}")
        if not wrong:
            print(f"{C.known}✓ everyone expected was recognised, no stranger was named{C.off}")
            shutil.rmtree(folder)
        else:
            print(f"  the server's log and data are in {folder}")
        return 1 if wrong else 0
    except BaseException:
        print(f"  the server's log and data are in {folder}", file=sys.stderr)
        raise


if __name__ == "__main__":
    sys.exit(main())
