"""A camera of the tests' own. Every picture carries a number as black and white squares, so that whoever sees the picture, in
a browser or in a decoder, knows which one it is: its index in a recorded film, or the wall clock's millisecond when it was
made by a live camera. FFmpeg encodes; the Matroska around it is the tests' own writer's."""

import subprocess
import threading
import time

import mkv
import putmedia

# Squares of the number: 8 in a row, 3 rows, 24 bits, most significant first; below them a bar that moves.
BITS_ACROSS, BITS_DOWN = 8, 3
BITS = BITS_ACROSS * BITS_DOWN
RATE = 30
AUDIO_RATE, AUDIO_SAMPLES = 48000, 1024
AUD, SPS, PPS = 9, 7, 8


def picture(number, width, height):
    """Grey bytes of one picture."""
    square, rows = width // BITS_ACROSS, []
    for row in range(BITS_DOWN):
        bits = ((number >> (BITS - 1 - row * BITS_ACROSS - column)) & 1 for column in range(BITS_ACROSS))
        line = b"".join((b"\xeb" if bit else b"\x10") * square for bit in bits)
        rows.append(line.ljust(width, b"\x10") * square)
    left = b"".join(rows)
    bar = number * 4 % (width - 16)
    line = b"\x40" * bar + b"\xc0" * 16 + b"\x40" * (width - 16 - bar)
    return left + line * (height - square * BITS_DOWN)


def units(access_unit):
    """NAL units of Annex B bytes."""
    for part in access_unit.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01"):
        if part:
            yield part.rstrip(b"\x00") if part[0] & 31 in (SPS, PPS) else part


def avc_config(sps, pps):
    """AVCDecoderConfigurationRecord with four-byte lengths."""
    return (bytes([1]) + sps[1:4] + bytes([0xFF, 0xE1]) + len(sps).to_bytes(2, "big") + sps
            + bytes([1]) + len(pps).to_bytes(2, "big") + pps)


class Encoder:
    """FFmpeg as a pipe: pictures in, access units out, one for each picture and without delay."""

    def __init__(self, width=320, height=192, codec_options=(), key_every=RATE):
        self.size = (width, height)
        self.child = subprocess.Popen(
            ["ffmpeg", "-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{height}",
             "-r", str(RATE), "-i", "-", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p",
             "-g", str(key_every), "-keyint_min", str(key_every), "-sc_threshold", "0", "-bf", "0", "-x264-params", "aud=1",
             *codec_options, "-flush_packets", "1", "-f", "h264", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.config = None

    def feed(self, number):
        self.child.stdin.write(picture(number, *self.size))
        self.child.stdin.flush()

    def end(self):
        self.child.stdin.close()

    def frames(self):
        """(key, length-prefixed frame) in order. A frame is known to be whole when the next begins."""
        data, mark = b"", b"\x00\x00\x00\x01" + bytes([AUD])
        while piece := self.child.stdout.read1(65536):
            data += piece
            while (at := data.find(mark, 1)) > 0:
                yield self._frame(data[:at])
                data = data[at:]
        if data:
            yield self._frame(data)
        self.child.wait()

    def _frame(self, access_unit):
        kept, key, sets = [], False, {}
        for unit in units(access_unit):
            kind = unit[0] & 31
            if kind in (SPS, PPS):
                sets[kind] = unit
            elif kind != AUD:
                kept.append(len(unit).to_bytes(4, "big") + unit)
                key = key or kind == 5
        if len(sets) == 2 and self.config is None:
            self.config = avc_config(sets[SPS], sets[PPS])
        return key, b"".join(kept)


def header(config, width, height, audio=None):
    """A stream's header with an H.264 track and perhaps an AAC one."""
    video = mkv.element(0xE0, mkv.number(0xB0, width, 2) + mkv.number(0xBA, height, 2), 1)
    entries = mkv.element(0xAE, mkv.number(0xD7, 1, 1) + mkv.number(0x73C5, 1) + mkv.number(0x83, 1, 1)
                          + mkv.element(0x86, b"V_MPEG4/ISO/AVC", 1) + mkv.element(0x63A2, config, 4) + video, 4)
    if audio:
        import struct
        sound = mkv.element(0xE1, mkv.element(0xB5, struct.pack(">d", AUDIO_RATE), 1) + mkv.number(0x9F, 1, 1), 1)
        entries += mkv.element(0xAE, mkv.number(0xD7, 2, 1) + mkv.number(0x73C5, 2) + mkv.number(0x83, 2, 1)
                               + mkv.element(0x86, b"A_AAC", 1) + mkv.element(0x63A2, audio, 4) + sound, 4)
    return (mkv.EBML_HEADER + mkv.SEGMENT_UNKNOWN + mkv.element(mkv.INFO, mkv.number(mkv.TIMECODE_SCALE, 1_000_000), 2)
            + mkv.element(mkv.TRACKS, entries, 4))


def tone(seconds):
    """AudioSpecificConfig and raw AAC frames of a sine."""
    adts = subprocess.run(
        ["ffmpeg", "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", f"sine=frequency=440:sample_rate={AUDIO_RATE}:duration={seconds}",
         "-ac", "1", "-c:a", "aac", "-b:a", "64k", "-f", "adts", "-"], check=True, capture_output=True).stdout
    frames, at = [], 0
    while at + 7 <= len(adts):
        length = (adts[at + 3] & 3) << 11 | adts[at + 4] << 3 | adts[at + 5] >> 5
        frames.append(adts[at + (7 if adts[at + 1] & 1 else 9):at + length])
        at += length
    # AAC LC, 48 kHz, one channel.
    return bytes([0x11, 0x88]), frames


def film(start_ms, seconds, *, width=320, height=192, first=0, sound=False, key_every=RATE):
    """A PutMedia body: `seconds` of pictures numbered from `first`, one fragment for each key frame, from `start_ms` on."""
    encoder = Encoder(width, height, key_every=key_every)
    count = int(seconds * RATE)

    def feed():
        for index in range(count):
            encoder.feed(first + index)
        encoder.end()

    threading.Thread(target=feed, daemon=True).start()
    frames = list(encoder.frames())
    assert len(frames) == count, f"{len(frames)} frames of {count}"
    config, notes = tone(seconds) if sound else (None, [])
    events = [(index * 1000 // RATE, 1, key, data) for index, (key, data) in enumerate(frames)]
    events += [(index * AUDIO_SAMPLES * 1000 // AUDIO_RATE, 2, False, data) for index, data in enumerate(notes)]
    events.sort(key=lambda event: (event[0], event[1]))
    body, base = [header(encoder.config, width, height, config)], 0
    for at, track, key, data in events:
        if track == 1 and key:
            base = at
            body.append(mkv.cluster(start_ms + base))
        body.append(mkv.block(data, at - base, track, key))
    return b"".join(body)


class LiveCamera:
    """Sends pictures of the wall clock in real time until it is closed. `silence` and `speak` are the network's mood."""

    def __init__(self, server, stream, *, width=320, height=192, key_every=RATE):
        self.server, self.stream = server, stream
        self.encoder = Encoder(width, height, key_every=key_every)
        self.times, self.stopping, self.silent = [], threading.Event(), threading.Event()
        self.sent = threading.Event()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._film, self._send)]
        for thread in self.threads:
            thread.start()

    def _film(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            now = time.time_ns() // 1_000_000
            self.times.append(now)
            self.encoder.feed(now % (1 << BITS))
            due += 1 / RATE
            self.stopping.wait(max(0.0, due - time.monotonic()))
        self.encoder.end()

    def _send(self):
        put, base = None, None
        for index, (key, data) in enumerate(self.encoder.frames()):
            if self.silent.is_set():
                if put:
                    put.finish()
                    put.rest()
                    put.close()
                put = None
                continue
            at = self.times[index]
            pieces = []
            if key:
                if put is None:
                    put = putmedia.Put(self.server, self.stream)
                    pieces.append(header(self.encoder.config, *self.encoder.size))
                base = at
                pieces.append(mkv.cluster(base))
            if put is None:
                continue
            pieces.append(mkv.block(data, at - base, 1, key))
            body = b"".join(pieces)
            if not put.send(body, len(body)):
                raise ConnectionError("the server closed the camera's connection")
            self.sent.set()
        if put:
            put.finish()
            put.rest()
            put.close()

    def longest_gap_ms(self):
        """Between two pictures: more than 1000 / RATE where the camera did not get the processor."""
        times = list(self.times)
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0)

    def silence(self):
        self.silent.set()

    def speak(self):
        self.silent.clear()

    def close(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=30)
        self.encoder.child.kill()
