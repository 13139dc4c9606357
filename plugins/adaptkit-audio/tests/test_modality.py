"""What is read, and what is refused with which words."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from adaptkit_audio import AudioOptions
from adaptkit_audio.clip import AudioClip
from adaptkit_audio.modality import AudioModality
from PIL import Image

from adaptkit.errors import DataError

RATE = 8000
PCM = np.random.default_rng(0).integers(-9000, 9000, RATE // 2, dtype=np.int16)
SAMPLES = (PCM / 32768).astype(np.float32)


@pytest.fixture
def modality() -> AudioModality:
    return AudioModality()


def encode(samples: Any = PCM, kind: str = "WAV", rate: int = RATE, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, **settings)
    return buffer.getvalue()


def flac_claiming(num_samples: int) -> bytes:
    """A FLAC file whose header claims a length that it does not hold."""
    raw = bytearray(encode(kind="FLAC"))
    position = 8 + 13  # the last 36 bits before the MD5 sum of STREAMINFO
    low = num_samples & 0xFFFFFFFF
    raw[position] = (raw[position] & 0xF0) | (num_samples >> 32)
    raw[position + 1 : position + 5] = struct.pack(">I", low)
    return bytes(raw)


def test_every_kind_of_source_gives_the_same_recording(modality: AudioModality, tmp_path: Path) -> None:
    raw = encode()
    path = tmp_path / "recording"
    path.write_bytes(raw)
    uri = "data:audio/wav;base64," + base64.b64encode(raw).decode()
    file = io.BytesIO(raw)
    file.seek(9)
    with path.open("rb") as opened:
        encoded = [
            path,
            str(path),
            raw,
            bytearray(raw),
            uri,
            file,
            opened,
            {"bytes": raw, "path": None},
            {"path": path},
        ]
        arrays = [
            (PCM, RATE),
            [SAMPLES, RATE],
            (SAMPLES.astype(np.float64), float(RATE)),
            (SAMPLES.tolist(), np.int64(RATE)),
            (PCM.astype(np.int32) * 65536, RATE),
            {"array": SAMPLES, "sampling_rate": RATE, "path": "elsewhere.wav"},
            AudioClip(SAMPLES, RATE),
        ]
        for source in [*encoded, *arrays]:
            clip = modality.load(source)
            assert (clip.samples.dtype, clip.sampling_rate) == (np.float32, RATE)
            assert np.array_equal(clip.samples, SAMPLES)
        assert len({modality.content_key(source) for source in encoded}) == 1
        assert len({modality.content_key(source) for source in arrays}) == 1
    assert modality.content_key((PCM, RATE)) != modality.content_key((PCM, 2 * RATE))


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        ("WAV", {"subtype": "PCM_24"}, 0),
        ("WAV", {"subtype": "FLOAT"}, 0),
        ("WAV", {"subtype": "ULAW"}, 0.02),
        ("FLAC", {}, 0),
        ("AIFF", {}, 0),
        ("MP3", {}, 0.08),
        ("OGG", {}, 0.2),
    ],
)
def test_formats_are_told_by_their_content(
    modality: AudioModality, tmp_path: Path, kind: str, settings: dict[str, Any], error: float
) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 440 / RATE * np.arange(RATE))).astype(np.float32)
    path = tmp_path / "recording.jpg"
    path.write_bytes(encode(tone, kind, **settings))
    clip = modality.load(path)
    assert len(clip.samples) == len(tone)
    limit = error or 2**-14  # what is lossless differs by the rounding of its integers
    assert float(np.abs(clip.samples - tone).max()) <= limit


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_channels_are_averaged(modality: AudioModality, kind: str) -> None:
    stereo = np.stack([PCM, PCM // 3, -PCM], axis=1)
    expected = (stereo / 32768).mean(axis=1)
    for source in (encode(stereo, kind), (stereo, RATE), (stereo.T, RATE)):
        # float32 sums of three
        np.testing.assert_allclose(modality.load(source).samples, expected, atol=1e-7)


def test_a_recording_of_one_sample_is_one(modality: AudioModality) -> None:
    assert len(modality.load(encode(PCM[:1])).samples) == 1
    assert len(AudioClip(SAMPLES[:1], 48000).resampled(100).samples) == 1


def test_resampling_keeps_a_tone() -> None:
    tone = np.sin(2 * np.pi * 300 / RATE * np.arange(RATE)).astype(np.float32)
    clip = AudioClip(tone, RATE).resampled(16000)
    expected = np.sin(2 * np.pi * 300 / 16000 * np.arange(16000))
    assert (len(clip.samples), clip.sampling_rate, clip.seconds) == (16000, 16000, 1.0)
    # away from the ends, where the filter sees the edge, soxr's high quality is 20 bits
    assert float(np.abs(clip.samples - expected)[800:-800].max()) < 1e-4


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
@pytest.mark.parametrize("part", [0.5, 0.95])
def test_a_file_cut_short_is_refused_and_named(modality: AudioModality, tmp_path: Path, kind: str, part: float) -> None:
    raw = encode(np.tile(SAMPLES, 8), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(DataError, match=re.escape(str(path)) + r".*(cut short|empty)"):
        modality.load(path)


def test_an_mp3_cut_short_is_refused_where_its_header_tells_its_length(modality: AudioModality) -> None:
    raw = encode(np.tile(SAMPLES, 8), "MP3")
    with pytest.raises(DataError, match="cut short"):
        modality.load(raw[: len(raw) // 2])


def test_a_wav_written_to_a_pipe_has_no_length_and_is_read(modality: AudioModality) -> None:
    raw = encode()
    streamed = raw[:4] + b"\xff" * 4 + raw[8:40] + b"\xff" * 4 + raw[44:]
    assert raw[36:40] == b"data"
    assert np.array_equal(modality.load(streamed).samples, SAMPLES)


@pytest.mark.parametrize("hours", [1, 48])
def test_long_recordings_are_refused_by_their_header(
    modality: AudioModality, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = flac_claiming(hours * 3600 * RATE)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # not even tried
    with pytest.raises(DataError, match=rf"lasts {hours * 3600:,}\.0 seconds \({hours}\.0 hours\).*limit of 600 "):
        modality.load(raw)


def test_limits_can_be_set(tmp_path: Path) -> None:
    modality = AudioModality(AudioOptions(max_seconds=0.25, max_bytes=20_000))
    for source in (encode(), (PCM, RATE), AudioClip(SAMPLES, RATE)):
        with pytest.raises(DataError, match=r"0\.5 seconds.* 0\.25 \(max_seconds\)"):
            modality.load(source)
    raw = encode(np.tile(PCM, 3))
    path = tmp_path / "large.wav"
    path.write_bytes(raw)
    for source in (path, raw, io.BytesIO(raw), "data:audio/wav;base64," + base64.b64encode(raw).decode()):
        with pytest.raises(DataError, match=r"limit of 20,000 bytes \(max_bytes\)"):
            modality.load(source)


def test_silence_is_refused_unless_allowed(modality: AudioModality) -> None:
    silent = encode(np.zeros(80, dtype=np.int16))
    with pytest.raises(DataError, match=r"is silent.*allow_silence: true"):
        modality.load(silent)
    assert not AudioModality(AudioOptions(allow_silence=True)).load(silent).samples.any()
    nearly = encode(np.array([0, 1, 0], dtype=np.int16))
    assert modality.load(nearly).samples.any()


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such.wav", r"no recording at no/such\.wav"),
        ("a\0b.wav", "cannot read"),
        ("https://example.org/a.wav", "not fetched from URLs"),
        ("data:audio/wav;base64,????", "not valid base64"),
        ("data:audio/wav,abc", "not of the form"),
        (b"", "is empty"),
        (_jpeg(), "is not a readable recording"),
        (b"These are words, not sounds. " * 40, "is not a readable recording"),
        (b"ID3" + bytes(500), "is not a readable recording"),
        (encode(PCM[:0]), "is empty: it holds no samples"),
        (encode(np.array([0.1, np.nan, 0.1]), subtype="FLOAT"), "NaN or infinite samples.*at sample 1"),
        (encode(np.array([np.inf, 0.1]), subtype="DOUBLE"), "at sample 0"),
        (io.StringIO("text"), "binary mode"),
        (3, "cannot read a recording from int"),
        (["a.wav"], "a list of 1 is not a recording"),
        (["a.wav", "b.wav"], "a list of 2 is not a recording"),
        (SAMPLES, r"says nothing of its sampling rate: give \(array, sampling_rate\)"),
        ({"array": SAMPLES}, "needs 'array' and 'sampling_rate'"),
        ({"text": "a"}, r"this one has \['text'\]"),
        ((SAMPLES[:0], RATE), "is empty"),
        ((SAMPLES.reshape(2, 20, 100), RATE), "is not a recording: give"),
        ((np.ones((50, 90)), RATE), "is not a recording: give"),
        ((np.ones((2, 2)), RATE), "is not a recording: give"),
        ((SAMPLES * np.float32(32768), RATE), "must be about -1..1"),
        ((np.array([0.1, -np.inf]), RATE), "NaN or infinite"),
        ((PCM.astype(np.int64), RATE), "holds int64"),
        (([[1.0], [2.0, 3.0]], RATE), "cannot make an array"),
        (("a.wav", RATE), "holds <U5"),
        ((SAMPLES, 0), "a sampling rate of 0 is none"),
        ((SAMPLES, 8000.5), r"a sampling rate of 8000\.5 is none"),
        ((SAMPLES, float("nan")), "a sampling rate of nan is none"),
        ((SAMPLES, True), "a sampling rate of True is none"),
        (AudioClip(np.zeros(0, np.float32), RATE), "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # encoded floats carry the time they were made at
)
def test_wrong_sources_are_refused_in_words(modality: AudioModality, source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        modality.load(source)


def test_folders_and_devices_are_refused(modality: AudioModality, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="folder or device"):
            modality.load(path)


def test_html_plays_the_recording_itself(modality: AudioModality) -> None:
    shown = modality.to_html(AudioClip(SAMPLES, RATE))
    data = re.search(r'<audio controls src="data:audio/wav;base64,([^"]+)"></audio>', shown)
    assert data is not None
    with wave.open(io.BytesIO(base64.b64decode(data[1]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, len(PCM))
        played = np.frombuffer(file.readframes(len(PCM)), "<i2")
    assert int(np.abs(played.astype(int) - PCM).max()) <= 1
    assert shown.count("<svg") == 1
    assert "0.50 s at 8,000 Hz" in shown


def test_html_of_a_long_recording_stays_small(modality: AudioModality) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 48000 * 60).astype(np.float32)
    shown = modality.to_html(AudioClip(noise, 48000))
    assert len(shown) < 450_000
    assert "the first 10 s play" in shown


def test_variations_keep_rate_and_about_the_length(modality: AudioModality) -> None:
    clip = AudioClip(np.tile(SAMPLES, 4), RATE)
    varied = [modality.augment(clip, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(varied[0].samples, varied[1].samples)
    assert not np.array_equal(varied[0].samples[:100], varied[2].samples[:100])
    for one in varied:
        assert (one.sampling_rate, one.samples.dtype) == (RATE, np.float32)
        assert 0.85 * clip.seconds < one.seconds < 1.2 * clip.seconds + 0.1
        assert float(np.abs(one.samples).max()) <= 1
    assert np.array_equal(clip.samples, np.tile(SAMPLES, 4))


def encoded(samples, rate, format="FLAC"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["FLAC", "WAV", "OGG"])
def test_samples_and_channels_of_files_are_limited(format):
    rate = 48_000
    noise = np.random.default_rng(0).normal(0, 0.1, (rate, 2)).astype(np.float32)
    modality = AudioModality(AudioOptions(max_samples=rate - 1))
    with pytest.raises(DataError, match=r"47,999 \(max_samples\)"):
        modality.load(encoded(noise, rate, format))
    whole = AudioModality(AudioOptions(max_samples=rate)).load(encoded(noise, rate, format))
    assert len(whole.samples) == rate
    if format != "OGG":
        np.testing.assert_allclose(whole.samples, noise.mean(1), atol=1e-4)


def test_channels_of_files_are_limited():
    with pytest.raises(DataError, match="33 channels"):
        AudioModality().load(encoded(np.zeros((10, 33), np.float32), 8000, "WAV"))
