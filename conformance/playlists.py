"""What Apple's rules demand of the playlists that a player fetched one after the other: nothing that was said is unsaid."""

import dataclasses
import re


@dataclasses.dataclass
class Segment:
    uri: str
    duration: float
    discontinuity: bool
    map: str
    parts: list


@dataclasses.dataclass
class Playlist:
    target: int
    media_sequence: int
    discontinuity_sequence: int
    segments: list
    ended: bool
    part_target: float


def parse(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert lines[0] == "#EXTM3U", lines[0]
    number = lambda name, default: next((line.split(":", 1)[1] for line in lines if line.startswith(f"#{name}:")), default)
    part_target = re.search(r"#EXT-X-PART-INF:.*PART-TARGET=([\d.]+)", text)
    found = Playlist(int(number("EXT-X-TARGETDURATION", -1)), int(number("EXT-X-MEDIA-SEQUENCE", 0)),
                     int(number("EXT-X-DISCONTINUITY-SEQUENCE", 0)), [], "#EXT-X-ENDLIST" in lines,
                     float(part_target.group(1)) if part_target else 0.0)
    duration, discontinuity, initial, parts = None, False, "", []
    for line in lines:
        if line.startswith("#EXTINF:"):
            duration = float(line[8:].split(",")[0])
        elif line == "#EXT-X-DISCONTINUITY":
            discontinuity = True
        elif line.startswith("#EXT-X-MAP:"):
            initial = re.search(r'URI="([^"]+)"', line).group(1)
        elif line.startswith("#EXT-X-PART:"):
            parts.append(float(re.search(r"DURATION=([\d.]+)", line).group(1)))
        elif not line.startswith("#"):
            assert duration is not None, f"{line} has no EXTINF"
            found.segments.append(Segment(line, duration, discontinuity, initial, parts))
            duration, discontinuity, parts = None, False, []
    return found


def check_one(playlist):
    assert playlist.target >= 1
    for segment in playlist.segments:
        assert round(segment.duration) <= playlist.target, f"{segment} is longer than the target {playlist.target}"
        if segment.parts:
            assert abs(sum(segment.parts) - segment.duration) < 0.05, f"the parts of {segment.uri} do not add up to it"


def identity(uri):
    """A segment's name without what changes from session to session."""
    return re.search(r"FragmentNumber=(\d+)", uri).group(1) if "FragmentNumber=" in uri else uri


def discontinuity_numbers(playlist):
    """RFC 8216, 6.2.2 and 4.3.3.3: the sequence of the playlist plus the tags up to the segment."""
    number, found = playlist.discontinuity_sequence, []
    for segment in playlist.segments:
        number += segment.discontinuity
        found.append((segment, number))
    return found


def check_reload(earlier, later):
    """Two answers of one session."""
    assert later.target == earlier.target, "EXT-X-TARGETDURATION must not change"
    assert later.media_sequence >= earlier.media_sequence, "EXT-X-MEDIA-SEQUENCE went back"
    assert later.discontinuity_sequence >= earlier.discontinuity_sequence, "EXT-X-DISCONTINUITY-SEQUENCE went back"
    assert not earlier.ended or later == earlier, "an ended playlist changed"
    shift = later.media_sequence - earlier.media_sequence
    kept = earlier.segments[shift:]
    for old, new in zip(kept, later.segments):
        assert identity(old.uri) == identity(new.uri), f"the number of {old.uri} went to {new.uri}"
        assert abs(old.duration - new.duration) < 0.0005, f"{old.uri} changed its duration"
        assert old.map == new.map, f"{old.uri} changed its map"
    assert len(later.segments) >= len(kept), "a segment vanished from the end"
    numbers = {identity(segment.uri): number for segment, number in discontinuity_numbers(later)}
    for segment, number in discontinuity_numbers(earlier)[shift:]:
        assert numbers[identity(segment.uri)] == number, (
            f"{segment.uri} went from discontinuity sequence number {number} to {numbers[identity(segment.uri)]}")


def check(texts, parts_within_target=True):
    """All media playlists of one session in the order in which they came; returns the last. A camera that stood still for
    longer than a part makes longer ones."""
    playlists = [parse(text) for text in texts]
    assert playlists, "no media playlist was fetched"
    for playlist in playlists:
        check_one(playlist)
    # A short pause in the middle of a part makes that one longer.
    parts = {(identity(segment.uri), at): (part, playlist.part_target)
             for playlist in playlists for segment in playlist.segments for at, part in enumerate(segment.parts)}
    long = [part for part, target in parts.values() if part > target + 0.001]
    assert not parts_within_target or len(long) * 25 <= len(parts), f"{len(long)} of {len(parts)} parts are longer than the target: {long}"
    for earlier, later in zip(playlists, playlists[1:]):
        check_reload(earlier, later)
    return playlists[-1]
