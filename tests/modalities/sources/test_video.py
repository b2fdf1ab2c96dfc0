"""Video files: read frame by frame to the bit; broken or hostile ones get one sentence."""

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, clips, spec_of, video, videofiles
from fieldloom.modalities.sources.video import Frames
from fieldloom.permit import Permit
from fuzz import good
from media import noise
from refusals import READERS, draw, refused, write

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- films and sounds


def test_films_beyond_the_limits(tmp_path, monkeypatch, cached):
    path = str(write(tmp_path / "a.mp4", good.film(draw(), "mp4")))
    for module, name, most, words in (
        (clips, "PIXELS", 200, "frames of 16 x 16.* 256 pixels in a frame, and more than 200"),
        (video, "VIDEO", 600, "tells of 768 pixels in its frames, and more than 600"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            refused(words, READERS["video"], path)
            assert READERS["video"](path, permit=LARGE).data.shape == (1, 3, 3, 16, 16)
            shutil.rmtree(cached)  # what was decoded once is not decoded again
    for start, stop, step in ((10**30, None, 1), (0, 10**30, 1), (0, None, 10**30)):
        refused("source.frames", Frames, start, stop, step)


def test_films_that_are_cut_off(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for frame in draw().integers(0, 256, (9, 16, 16, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    assert READERS["video"](str(path)).data.shape[2] == 9
    for share in (0.1, 0.5, 0.8, 0.98):
        write(path, whole[: int(share * len(whole))])
        refused("no video|cut off or damaged", READERS["video"], str(path))
    for content in (b"", b"\0" * 5000, whole[:4]):
        refused("no video that can be read", READERS["video"], str(write(path, content)))


def test_films_name_no_other_file(tmp_path, monkeypatch):
    """FFmpeg would follow lists of files, and addresses."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.mp4", good.film(draw(), "mp4"))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    for text in (
        "ffconcat version 1.0\nfile good.mp4\n",
        playlist.format("good.mp4"),
        playlist.format("http://127.0.0.1:9/good.ts"),
    ):
        path = str(write(tmp_path / "a.mp4", text.encode()))
        refused("no video that can be read", READERS["video"], path)


IMAGE = Grid()
FILM = Grid(axes=3)


# -- sources


def lossless(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    """Frames uint8 (T, H, W, 3) as FFV1 in Matroska, to the bit."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_a_film_to_the_bit(tmp_path, cached):
    frames = noise(7, 6, 10, 3)
    path = lossless(tmp_path / "a.mkv", frames)
    source = SOURCES["video"](FILM, str(path))
    assert source.data.shape == (1, 3, 7, 6, 10)
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 3, 0), frames)
    assert source.suggests == {"modality": {"size": [7, 6, 10], "rate": 10.0}}
    again = SOURCES["video"](Grid(axes=3, size=(7, 6, 10)), str(path))
    assert again.facts() == source.facts()
    assert len(list(cached.iterdir())) == 1
    part = SOURCES["video"](FILM, str(path), Frames(start=1, stop=6, step=2))
    np.testing.assert_array_equal(part.data.tensor[0].permute(1, 2, 3, 0), frames[1:6:2])
    assert part.suggests == {"modality": {"size": [3, 6, 10], "rate": 5.0}}
    grey = SOURCES["video"](Grid(axes=3, channels=1), str(path))
    np.testing.assert_array_equal(
        grey.data.tensor[0, 0, 2], Image.fromarray(frames[2]).convert("L")
    )


def test_a_film_in_a_given_size(tmp_path):
    frames = noise(6, 8, 12, 3)
    path = lossless(tmp_path / "a.mkv", frames)
    source = SOURCES["video"](Grid(axes=3, size=(3, 4, 4)), str(path))
    assert source.data.shape == (1, 3, 3, 4, 4)
    assert source.filter == "bicubic"
    assert source.suggests == {"modality": {"size": [3, 4, 4], "rate": 5.0}}
    Image.fromarray(frames[3]).save(tmp_path / "a.png")  # the second of three shares: 2 and 3
    still = SOURCES["folder"](Grid(size=4), str(tmp_path / "a.png"))
    assert torch.equal(source.data.tensor[0, :, 1], still.data.tensor[0])
    with pytest.raises(InputError, match="asks for 7 frames, and .* has 6"):
        SOURCES["video"](Grid(axes=3, size=(7, 4, 4)), str(path))


def test_a_folder_of_frames_is_a_film(tmp_path):
    frames = noise(4, 6, 5, 3)
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i:03d}.png")
    source = SOURCES["video"](FILM, str(folder), Frames(stop=3))
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 3, 0), frames[:3])
    assert source.suggests == {"modality": {"size": [3, 6, 5]}}
    Image.fromarray(frames[3]).save(folder / "001.png")  # one frame is another
    changed = SOURCES["video"](FILM, str(folder), Frames(stop=3))
    np.testing.assert_array_equal(changed.data.tensor[0, :, 1].permute(1, 2, 0), frames[3])


def test_films_of_other_kinds(tmp_path):
    frames = np.repeat(noise(5, 1, 1, 3), 16, 1).repeat(16, 2)
    export.gif(frames, tmp_path / "a.gif", 0.1)
    export.mp4(frames, tmp_path / "a.mp4", 7.5)
    for name, rate in [("a.gif", 10.0), ("a.mp4", 7.5)]:
        source = SOURCES["video"](FILM, str(tmp_path / name))
        close = source.data.tensor[0].permute(1, 2, 3, 0).numpy().astype(int) - frames
        assert np.abs(close).mean() < 8, name
        assert source.suggests["modality"]["rate"] == pytest.approx(rate), name


def test_a_film_that_was_held_upright(tmp_path):
    """The matrix of a telephone's film turns it clockwise by a quarter."""
    frames = np.zeros((2, 16, 32, 3), np.uint8)
    frames[:, :, :16] = 255  # bright on the left, and so above
    content = export.mp4(frames, tmp_path / "a.mp4").read_bytes()
    one = 1 << 16
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 16 * one, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:at] + turned + content[at + len(plain) :])
    data = SOURCES["video"](FILM, str(tmp_path / "a.mp4")).data.tensor[0, 0, 0].float()
    assert data.shape == (32, 16)
    assert data[:14].mean() > 240
    assert data[18:].mean() < 15


def test_films_that_are_none(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"a\.mp4' is no video that can be read"):
        SOURCES["video"](FILM, str(tmp_path / "a.mp4"))
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    with pytest.raises(InputError, match="has no images"):
        SOURCES["video"](FILM, str(tmp_path / "a.wav"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        SOURCES["video"](FILM, str(tmp_path / "empty"))
    path = str(lossless(tmp_path / "b.mkv", noise(2, 4, 4, 3)))
    with pytest.raises(InputError, match="ends before frame 2"):
        SOURCES["video"](FILM, path, Frames(start=2))
    with pytest.raises(InputError, match="three axes"):
        SOURCES["video"](IMAGE, path)
    for wrong in [{"start": -1}, {"start": 3, "stop": 3}, {"step": 0}]:
        with pytest.raises(InputError, match=r"source\.frames"):
            Frames(**wrong)


# -- frames at their own times

RED, GREEN, BLUE, GOLD = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)
COLOURS = (RED, GREEN, BLUE, GOLD)


def flat(colour, size=16, alpha=None) -> np.ndarray:
    """A frame of one colour; alpha: of its lower half."""
    image = np.full((size, size, 4), (*colour, 255), np.uint8)
    image[size // 2 :, :, 3] = 255 if alpha is None else alpha
    return image


def film(path: Path, frames, times=None, codec="ffv1", form="bgra", rate=10, **options) -> str:
    """RGBA frames at these times in milliseconds; None: evenly."""
    kind = "matroska" if path.suffix == ".mkv" else None
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = form
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for i, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=form)
            if times is not None:
                image.pts, image.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return str(path)


def read(path, *given, **named):
    return SOURCES["video"](FILM, str(path), *given, **named)


def nearest(source) -> list[int]:
    """Which of the colours each frame has."""
    seen = source.data.tensor[0, :, :, 3, 3].T.numpy().astype(int)
    far = np.abs(seen[:, None] - np.array(COLOURS)).max(2)
    assert (far.min(1) < 8).all()
    return far.argmin(1).tolist()


@pytest.mark.parametrize("first", [0, 500])
@pytest.mark.parametrize(
    ("name", "codec", "form", "options"),
    [("a.mkv", "ffv1", "bgra", {}), ("a.mp4", "libx264", "yuv420p", {"bf": "2"}),
     ("a.mov", "qtrle", "argb", {}), ("a.avi", "mpeg4", "yuv420p", {}),
     ("a.webm", "libvpx-vp9", "yuv420p", {})],
)  # fmt: skip
def test_films_of_a_variable_rate(tmp_path, name, codec, form, options, first):
    """The fourth frame is shown at 3.2 s, and so it is the 33rd of 10 a second."""
    first = 0 if name == "a.avi" else first  # its frames are counted from 0
    times = [first + time for time in (0, 100, 200, 3200)]
    frames = [flat(colour) for colour in COLOURS]
    path = film(tmp_path / name, frames, times, codec, form, **options)
    source = read(path)
    assert nearest(source) == [0, 1, *[2] * 30, 3]
    assert source.suggests == {"modality": {"size": [33, 16, 16], "rate": 10.0}}
    assert "variable rate: 4 frames at their own times, as 33 at 10 per second" in (
        source.summary.describe()
    )
    assert nearest(read(path, Frames(1, 33, 31))) == [1, 3]
    few = SOURCES["video"](Grid(axes=3, size=(3, 16, 16)), path)
    assert nearest(few) == [2, 2, 2]
    assert few.summary.taken["thinned"] == "3 of 33 frames, evenly spaced"
    assert few.suggests["modality"]["rate"] == pytest.approx(10 / 11)


def test_one_lost_frame_moves_no_other(tmp_path):
    which = [0, 1, 2, 3, 0, 1, 2, 3, 1, 2, 3]  # the ninth is lost
    times = [round(1000 * i / 30) for i in range(12) if i != 8]
    source = read(film(tmp_path / "a.mkv", [flat(COLOURS[i]) for i in which], times))
    assert nearest(source) == [0, 1, 2, 3, 0, 1, 2, 3, 3, 1, 2, 3]
    assert source.suggests["modality"]["rate"] == pytest.approx(30, rel=0.01)


def test_a_film_without_times(tmp_path):
    frames = [flat(colour) for colour in COLOURS]
    source = read(film(tmp_path / "a.h264", frames, None, "libx264", "yuv420p"))
    assert nearest(source) == [0, 1, 2, 3]
    assert source.summary.taken["times"] == "frames without times, as even"


def test_a_film_that_is_cut_by_its_edit_list(tmp_path):
    """The first two of six frames are left out; they are needed for decoding alone."""
    path = tmp_path / "a.mp4"
    frames = [flat(COLOURS[i]) for i in (0, 0, 1, 2, 3, 3)]
    film(path, frames, None, "libx264", "yuv420p", bf="0")
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 16
    (start,) = struct.unpack(">i", content[at : at + 4])
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    content[at : at + 4] = struct.pack(">i", start + round(Fraction(2, 10) / tick))
    source = read(write(path, bytes(content)))
    assert nearest(source) == [1, 2, 3, 3]
    assert source.suggests["modality"] == {"size": [4, 16, 16], "rate": pytest.approx(10, rel=0.04)}


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_frames_of_image_files_have_durations(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    first, *rest = [Image.fromarray(flat(colour)[..., :3]) for colour in COLOURS[:3]]
    write_all = {"save_all": True, "append_images": rest}
    first.save(path, duration=[100, 3000, 100], **write_all)
    source = read(path)
    assert nearest(source) == [0, *[1] * 30, 2]
    assert source.suggests["modality"]["rate"] == 10
    first.save(path, duration=[40, 40, 40], **write_all)
    assert nearest(read(path)) == [0, 1, 2]
    assert read(path).suggests["modality"]["rate"] == 25


def test_image_files_of_other_frames(tmp_path):
    first, *rest = [Image.fromarray(flat(colour)[..., :3]) for colour in COLOURS]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    source = read(tmp_path / "a.tif")
    assert nearest(source) == [0, 1, 2, 3]
    assert source.suggests == {"modality": {"size": [4, 16, 16]}}
    assert source.summary.describe() == "1 video, 4 frames of 16 x 16, without times, as even"
    first.save(tmp_path / "b.tif", save_all=True, append_images=[rest[0].resize((20, 30))])
    assert nearest(read(tmp_path / "b.tif")) == [0, 1]
    assert read(tmp_path / "b.tif").summary.taken["sizes"] == (
        "1 of another size than the first, cropped and resized to it"
    )
    first.save(
        tmp_path / "a.png", save_all=True, append_images=rest, duration=50, default_image=True
    )
    assert nearest(read(tmp_path / "a.png")) == [1, 2, 3]  # the first is for those without films
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=0)
    assert read(tmp_path / "a.gif").suggests["modality"]["rate"] == 10  # as browsers show it
    first.save(tmp_path / "a.jpg")
    assert nearest(read(tmp_path / "a.jpg")) == [0]
    assert read(tmp_path / "a.jpg").suggests == {"modality": {"size": [1, 16, 16]}}


def test_long_pauses_are_refused_before_they_are_filled(tmp_path):
    frames = [flat(colour) for colour in COLOURS]
    path = film(tmp_path / "a.mkv", frames, [0, 1, 2, 10**9])
    refused("rate of 1000 per second tells of 1,000,000,001 frames for its 4", read, path)
    refused("tells of 10,001 frames for its 4", read, path, Frames(0, 10_001))
    assert nearest(read(path, Frames(0, 4))) == [0, 1, 2, 2]


# -- transparency and colours


@pytest.mark.parametrize(
    ("name", "codec", "form", "options"),
    [("a.mkv", "ffv1", "bgra", {}), ("a.mkv", "ffv1", "yuva420p", {}),
     ("a.mov", "qtrle", "argb", {}), ("a.mov", "png", "rgba", {}),
     ("a.mov", "prores_ks", "yuva444p10le", {}), ("a.webm", "libvpx-vp9", "yuva420p", {}),
     ("a.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0"})],
)  # fmt: skip
def test_transparent_pixels_are_shown_on_white(tmp_path, name, codec, form, options):
    frames = [flat(RED, alpha=64)] * 2
    data = read(film(tmp_path / name, frames, None, codec, form, **options)).data.tensor
    assert data.shape == (1, 3, 2, 16, 16)
    for place, colour in ((1, RED), (14, (241, 191, 191))):  # 64 / 255 of red, the rest white
        np.testing.assert_allclose(data[0, :, 1, place, place], colour, atol=2)


def test_transparent_frames_of_image_files(tmp_path):
    frames = [Image.fromarray(flat(RED, alpha=0)), Image.fromarray(flat(BLUE, alpha=0))]
    for kind, options in (("gif", {"disposal": 2}), ("webp", {"lossless": True}), ("png", {})):
        path = tmp_path / f"a.{kind}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
        data = read(path).data.tensor[0]
        assert data[:, 0, 1, 1].tolist() == list(RED), kind
        assert data[:, 1, 1, 1].tolist() == list(BLUE), kind
        assert data[:, :, 14, 14].tolist() == [[255, 255]] * 3, kind


def test_transparency_that_no_decoder_reads_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(videofiles, "ALPHA", {})
    frames = [flat(RED, alpha=64)]
    source = read(film(tmp_path / "a.webm", frames, None, "libvpx-vp9", "yuva420p"))
    assert source.summary.taken["alpha"] == "transparency is not read"


@pytest.mark.parametrize("form", ["yuv444p", "yuv444p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(5, 0.299, 0.114), (1, 0.2126, 0.0722)])
def test_colours_by_matrix_and_range(tmp_path, matrix, red, blue, full, form):
    """ITU-T H.273: matrix 5 is BT.601, 1 is BT.709; 8 and 10 bits."""
    colour = np.array([200, 30, 60]) / 255
    luma = red * colour[0] + (1 - red - blue) * colour[1] + blue * colour[2]
    chroma = (colour[2] - luma) / (2 - 2 * blue), (colour[0] - luma) / (2 - 2 * red)
    low, scales = (0, (255, 255)) if full else (16, (219, 224))
    levels = [low + scales[0] * luma, *(128 + scales[1] * c for c in chroma)]
    bits, kind = (4, np.dtype("<u2")) if form.endswith("le") else (1, np.dtype("u1"))
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 16, form
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1 + full
        frame = av.VideoFrame(64, 16, form)
        for plane, level in zip(frame.planes, levels, strict=True):
            count = plane.buffer_size // kind.itemsize
            plane.update(np.full(count, round(level * bits), kind).tobytes())
        frame.colorspace, frame.color_range = matrix, 1 + full
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read(path).data.tensor[0, :, 0, 3, 3], [200, 30, 60], atol=2)


# -- what a film holds beside its frames


def test_a_container_of_several_streams(tmp_path):
    """Two films, of which the second is the default one, and a sound."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 16, 16, "bgra"
        streams[0].disposition = 0
        streams[1].disposition = av.stream.Disposition.default
        for stream, colour in zip(streams, (RED, BLUE), strict=True):
            frame = av.VideoFrame.from_ndarray(flat(colour), format="rgba").reformat(format="bgra")
            container.mux(stream.encode(frame))
        wave = av.AudioFrame.from_ndarray(np.full((1, 800), 1 << 14, np.int16), "s16", "mono")
        wave.sample_rate = 8000
        container.mux(sound.encode(wave))
        for stream in (*streams, sound):
            container.mux(stream.encode(None))
    source = read(path)
    assert nearest(source) == [2]
    assert source.summary.taken["stream"] == "video stream 2 of 2"
    assert source.summary.taken["sound"] == "without its sound"
    assert spec_of(str(path))["name"] == "video"
    assert spec_of(str(path), "audio")["name"] == "audio"
    heard = SOURCES["audio"](Grid(axes=1, channels=1), str(path))
    np.testing.assert_allclose(heard.data.tensor, np.full((1, 1, 800), 0.75))


def test_a_cover_is_no_film(tmp_path):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(flat(RED), format="rgba").reformat(format="yuvj420p")
        packets = [*cover.encode(image), *cover.encode(None)]
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        wave.sample_rate = 8000
        container.mux([*packets, *sound.encode(wave), *sound.encode(None)])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    refused("has no images: it is no video", read, path)


def test_pixels_that_are_not_square_and_fields_are_said(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"x264-params": "interlaced=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = read(path)
    assert source.data.shape == (1, 3, 1, 32, 64)
    assert source.summary.taken["pixels"] == "pixels of 16:11 (width to height) kept as stored"
    assert source.summary.taken["interlaced"] == "interlaced frames kept as stored"


def test_colours_of_uncertain_meaning_are_said(tmp_path):
    path = tmp_path / "a.mkv"
    for height, transfer, key in ((720, 2, "matrix"), (16, 16, "colours"), (16, 2, None)):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 16, height, "yuv420p"
            stream.codec_context.color_trc = transfer
            frame = av.VideoFrame.from_ndarray(np.zeros((height, 16, 3), np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.color_trc = transfer
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        taken = read(path).summary.taken
        assert {"matrix", "colours"} & set(taken) == ({key} if key else set()), taken


def test_the_line_of_a_film(tmp_path):
    path = film(tmp_path / "a.mkv", [flat(COLOURS[i % 4]) for i in range(12)], None)
    assert read(path).summary.describe() == "1 video, 12 frames of 16 x 16, 1.2 s at 10 per second"
    grid = Grid(axes=3, size=(4, 8, 4))
    assert SOURCES["video"](grid, path, Frames(2, 10)).summary.describe() == (
        "1 video, 4 frames of 8 x 4, 0.8 s at 5 per second, frames from 2 to 10 of 12, 4 of 8 "
        "frames, evenly spaced, cropped and resized from 16 x 16 to 8 x 4 (bicubic)"
    )


def test_frames_in_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    for number, colour in ((1, RED), (2, GREEN), (10, BLUE), (33, GOLD)):
        Image.fromarray(flat(colour)).save(tmp_path / f"frame{number}.png")
    write(tmp_path / "notes.txt", b"")
    write(tmp_path / "._frame1.png", b"")
    source = read(tmp_path)
    assert nearest(source) == [0, 1, 2, 3]
    assert source.summary.describe() == (
        "1 video, 4 frames of 16 x 16, in the order of the numbers in their names; "
        "1 file passed over: 1 not images (.txt)"
    )
    Image.fromarray(flat(BLUE, size=20)).save(tmp_path / "frame10.png")
    source = read(tmp_path)
    assert nearest(source) == [0, 1, 2, 3]
    assert source.summary.taken["sizes"] == (
        "1 of another size than the first, cropped and resized to it"
    )
    (tmp_path / "padded").mkdir()
    for number, colour in ((2, GREEN), (10, BLUE), (1, RED), (33, GOLD)):
        Image.fromarray(flat(colour)).save(tmp_path / "padded" / f"a-{number:04d}.png")
    plain = read(tmp_path / "padded")
    assert nearest(plain) == [0, 1, 2, 3]
    assert "order" not in plain.summary.taken
