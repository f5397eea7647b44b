"""Does every published form of a data set give its images, and does a malformed one give one clear line?

And is what comes out the same for the same seed, whatever the number of threads?
"""

import itertools
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from accelsim.capture import data  # noqa: E402
from accelsim.capture.data import open_dataset  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402

RAW = {"mean": (0, 0, 0), "std": (1 / 255,) * 3}  # bytes come out as they went in


def refused(*where, **how):
    with pytest.raises(AccelsimError) as caught:
        list(open_dataset(*where, **how).batches(1))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(dataset, **how):
    images, labels = zip(*dataset.batches(1, drop_last=False, **how), strict=True)
    return torch.cat(images), torch.cat(labels)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


# ---- batches


def test_a_batch_is_normalised_numbers_of_the_stated_shape():
    dataset = open_dataset(shape=(3, 24, 40), num_classes=7, length=64)
    assert (len(dataset), dataset.num_classes, dataset.shape, dataset.skipped) == (64, 7, (3, 24, 40), 0)
    images, labels = next(dataset.batches(32))
    assert images.shape == (32, 3, 24, 40) and images.dtype == torch.float32 and images.is_contiguous()
    assert labels.shape == (32,) and labels.dtype == torch.int64 and set(labels.tolist()) <= set(range(7))
    assert abs(images.mean()) < 0.3 and 0.7 < images.std() < 1.3


def test_the_same_seed_gives_the_same_batches_and_another_seed_or_epoch_others():
    def run(**how):
        return list(open_dataset(length=20, shape=(3, 8, 8)).batches(4, **{"augment": True, **how}))

    assert same(run(), run()) and same(run(workers=3), run())
    assert not same(run(seed=1), run()) and not same(run(epoch=1), run())


def test_other_synthetic_images_for_another_seed_and_for_the_test_split_of_the_same_classes():
    first, again, other, test = (
        everything(open_dataset(length=8, shape=(3, 8, 8), **how), shuffle=False)
        for how in ({}, {}, {"seed": 1}, {"split": "test"})
    )
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], test[0])


def test_an_epoch_has_each_image_once_and_the_last_part_of_a_batch_if_wanted(tmp_path):
    dataset = open_dataset(an_npz(tmp_path, 10), **RAW)
    assert [len(labels) for _, labels in dataset.batches(4)] == [4, 4]
    assert [len(labels) for _, labels in dataset.batches(4, drop_last=False)] == [4, 4, 2]
    images, _ = everything(dataset)
    expected, _ = everything(dataset, shuffle=False)
    assert sorted(map(str, images.sum((1, 2, 3)).tolist())) == sorted(map(str, expected.sum((1, 2, 3)).tolist()))
    assert not torch.equal(images, expected)


def test_steps_are_the_batches_of_one_epoch_after_the_other():
    dataset = open_dataset(length=10, shape=(3, 4, 4))
    got = list(itertools.islice(dataset.steps(4, seed=3), 5))
    wanted = [batch for epoch in range(3) for batch in dataset.batches(4, seed=3, epoch=epoch)]
    assert same(got, wanted[:5])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(AccelsimError, match="a batch of 11"):
        next(open_dataset(length=10).steps(11))
    for how in ({"batch_size": 0}, {"batch_size": 1, "seed": -1}, {"batch_size": 1, "epoch": -1}):
        with pytest.raises(AccelsimError, match="must be"):
            next(open_dataset(length=10).batches(**how))
    for how in ({"split": "val"}, {"shape": (3, 0, 1)}, {"shape": (3, 3)}, {"num_classes": 0}, {"length": 0}):
        assert "must be" in refused(**how)
    assert "seed 0 or more" in refused(seed=-1)
    assert "3 numbers" in refused(mean=(0.5,)) and "std above 0" in refused(std=(0, 1, 1))


def test_a_network_learns_the_synthetic_classes():
    torch.manual_seed(0)
    train = open_dataset(num_classes=4, length=512, shape=(3, 16, 16))
    test = open_dataset(num_classes=4, length=128, shape=(3, 16, 16), split="test")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(392, 4)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for images, labels in itertools.islice(train.steps(32), 64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = everything(test)
    assert (model(images).argmax(1) == labels).float().mean() > 0.7


# ---- CIFAR and .npz


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), np.uint8)


def an_npz(folder, count, name="a.npz", **changed):
    arrays = {"x": pixels(count).transpose(0, 2, 3, 1).copy(), "y": np.arange(count) % 10, **changed}
    np.savez_compressed(folder / name, **{key: value for key, value in arrays.items() if value is not None})
    return folder / name


def binary(file, images, *labels):
    file.parent.mkdir(exist_ok=True)
    rows = np.column_stack([*(np.array(column, np.uint8) for column in labels), images.reshape(len(images), -1)])
    file.write_bytes(rows.tobytes())


def string(text):
    return b"U" + bytes([len(text)]) + text


def python2(images, labels, key=b"labels", dtype=b"u1", fortran=False, shape=None):
    """The bytes of CIFAR's published pickles: protocol 2 as Python 2 wrote it, its strings being bytes."""
    flat = images.reshape(len(images), -1)
    rows, columns = shape or flat.shape
    raw = flat.tobytes(order="F" if fortran else "C")
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR"
    array += b"(K\1(J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", columns) + b"t"
    array += b"cnumpy\ndtype\n(" + string(dtype) + b"K\0K\1tR(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array += (b"\x88" if fortran else b"\x89") + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\2}(" + string(b"data") + array + string(key) + numbers + b"u."


def python3(images, labels, key="labels", protocol=2):
    return pickle.dumps({"data": images.reshape(len(images), -1), key: list(labels)}, protocol)


def check_images(dataset, images, labels):
    got, found = everything(dataset, shuffle=False)
    assert np.abs(got.numpy() - images).max() < 1e-3 and found.tolist() == list(labels)
    assert dataset.labels.tolist() == list(labels) and dataset.shape == (3, 32, 32)


def test_cifar10_binary(tmp_path):
    images, labels = pixels(10), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    folder = tmp_path / "cifar-10-batches-bin"
    for batch in range(5):
        part = slice(2 * batch, 2 * batch + 2)
        binary(folder / f"data_batch_{batch + 1}.bin", images[part], labels[part])
    binary(folder / "test_batch.bin", images[::-1][:3], labels[:3])
    for path in (folder, tmp_path):  # the published folder, or where it was unpacked
        dataset = open_dataset(path, **RAW)
        check_images(dataset, images, labels)
        assert dataset.num_classes == 10 and "CIFAR-10 train" in dataset.name and "of 5" not in dataset.name
        check_images(open_dataset(path, split="test", **RAW), images[::-1][:3], labels[:3])
    (folder / "data_batch_3.bin").unlink()
    assert len(open_dataset(folder)) == 8 and "4 of 5 files" in open_dataset(folder).name


def test_cifar100_binary_takes_the_fine_label(tmp_path):
    binary(tmp_path / "train.bin", pixels(3), [19, 0, 1], [99, 0, 50])
    dataset = open_dataset(tmp_path, **RAW)
    check_images(dataset, pixels(3), [99, 0, 50])
    assert dataset.num_classes == 100
    assert "must hold test.bin" in refused(tmp_path, split="test")


@pytest.mark.parametrize("written", [python2, python3], ids=["python2", "python3"])
def test_cifar_python(tmp_path, written):
    (tmp_path / "data_batch_1").write_bytes(written(pixels(4), [0, 9, 1, 2]))
    (tmp_path / "data_batch_2").write_bytes(written(pixels(2, 1), [5, 6]))
    check_images(open_dataset(tmp_path, **RAW), np.concatenate([pixels(4), pixels(2, 1)]), [0, 9, 1, 2, 5, 6])
    inner = tmp_path / "hundred" / "cifar-100-python"
    inner.mkdir(parents=True)
    (inner / "train").write_bytes(written(pixels(2), [99, 7], b"fine_labels" if written is python2 else "fine_labels"))
    (inner / "test").write_bytes(python2(pixels(2), [98, 8], b"fine_labels", fortran=True))
    check_images(open_dataset(tmp_path / "hundred", **RAW), pixels(2), [99, 7])
    check_images(open_dataset(tmp_path / "hundred", split="test", **RAW), pixels(2), [98, 8])
    assert open_dataset(inner).num_classes == 100


def test_an_npz_by_its_name_or_alone_in_a_folder(tmp_path):
    file = an_npz(tmp_path, 12)
    for path in (file, tmp_path, str(file)):
        check_images(open_dataset(path, **RAW), pixels(12), np.arange(12) % 10)
    assert open_dataset(file).num_classes == 10 and open_dataset(file, num_classes=20).num_classes == 20
    grey = open_dataset(an_npz(tmp_path, 4, "grey.npz", x=np.zeros((4, 5, 6, 1), np.uint8)))
    assert next(grey.batches(4))[0].shape == (4, 1, 5, 6)
    assert "holds 2" in refused(tmp_path)


def test_augmentation_crops_after_padding_by_4_and_mirrors(tmp_path):
    dataset = open_dataset(an_npz(tmp_path, 40), **RAW)
    images, _ = everything(dataset, shuffle=False, augment=True)
    again, _ = everything(dataset, shuffle=False, augment=True)
    assert torch.equal(images, again)
    offsets, mirrored = set(), 0
    for image, plain in zip(images.round().numpy(), np.pad(pixels(40), ((0, 0), (0, 0), (4, 4), (4, 4))), strict=True):
        found = [
            (top, left, flip)
            for top, left, flip in itertools.product(range(9), range(9), (1, -1))
            if np.array_equal(image[..., ::flip], plain[:, top : top + 32, left : left + 32])
        ]
        assert len(found) == 1
        offsets.add(found[0][:2])
        mirrored += found[0][2] == -1
    assert len(offsets) > 20 and 10 < mirrored < 30


def test_a_malformed_array_file_is_refused(tmp_path):
    good = an_npz(tmp_path, 4).read_bytes()
    objects = np.array([{}, {}], object)
    for changed, words in [
        ({"y": None}, "y: must be in the file"),
        ({"x": None}, "x: must be in the file"),
        ({"x": np.zeros((4, 8, 8, 3), np.float32)}, "x must be uint8"),
        ({"x": np.zeros((4, 8, 8), np.uint8)}, "x must be uint8"),
        ({"x": np.zeros((4, 0, 8, 3), np.uint8)}, "x must be uint8"),
        ({"y": np.arange(3)}, "y must be 4 integers"),
        ({"y": np.arange(4) / 2}, "y must be 4 integers"),
        ({"y": np.arange(4) - 1}, "labels must be"),
        ({"y": objects}, "must not be a pickled array"),
        ({"y": np.array(["a"] * 4)}, "must be numbers"),
        ({"x": np.zeros((0, 8, 8, 3), np.uint8), "y": np.zeros(0, int)}, "at least one image"),
    ]:
        file = an_npz(tmp_path, 4, "b.npz", **changed)
        message = refused(file)
        assert words in message and message.startswith(str(file))
    file = tmp_path / "c.npz"
    for content in (b"", b"PK", good[:-40], good[:2000] + b"\xff" * 8 + good[2008:]):
        file.write_bytes(content)
        assert refused(file).startswith(str(file))
    assert "one part" in refused(tmp_path / "a.npz", split="test")
    assert "labels must be 0…1" in refused(tmp_path / "a.npz", num_classes=2)
    assert "must not be asked for" in refused(tmp_path / "a.npz", shape=(3, 64, 64))


def test_a_malformed_cifar_is_refused(tmp_path):
    file = tmp_path / "data_batch_1.bin"
    for content in (b"", b"\0" * 3072, b"\0" * 3074):
        file.write_bytes(content)
        assert "images of 3073 bytes" in refused(tmp_path)
    binary(file, pixels(1), [10])
    assert "labels must be 0…9" in refused(tmp_path)
    file.unlink()
    file = tmp_path / "data_batch_1"
    two, images = [1, 2], pixels(2)
    for content, words in [
        (b"", "must be a pickled dictionary"),
        (b"not a pickle", "must be a pickled dictionary"),
        (pickle.dumps([1, 2]), "must be a pickled dictionary"),
        (pickle.dumps({"data": b"abc", "labels": two}), "must be a pickled dictionary"),
        (python3(images, two, "fine_labels"), "must be a pickled dictionary"),
        (python3(images, ["a", "b"]), "must be a pickled dictionary"),
        (python3(images.astype(np.int64), two), "must be an array of bytes"),
        (python2(images, two, dtype=b"O8"), "must be an array of bytes"),
        (python2(images, two, shape=(10**9, 3072)), "must be a pickled dictionary"),
        (python2(images, two, shape=(4, 1536)), "must have shape (2, 3072)"),
        (python2(images, [1]), "must have shape (1, 3072)"),
        (python2(images, [1, 10]), "labels must be 0…9"),
    ]:
        file.write_bytes(content)
        assert words in refused(tmp_path)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path):
    trap = tmp_path / "trap"
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "data_batch_1"
    for call in [
        (os.mkdir, str(trap)),
        (eval, "1"),
        (np.load, str(trap)),
        (np.ndarray, (10**6,)),
        (getattr, 1, "real"),
    ]:
        file.write_bytes(pickle.dumps({"data": Evil(*call), "labels": [1]}, 2))
        message = refused(folder)
        assert "would run" in message or call[0] is np.ndarray
    assert not trap.exists()
    # A memo at position 2³¹ and an array of 10¹² items: nothing of that size is allocated.
    file.write_bytes(b"\x80\2}r\xff\xff\xff\x7f.")
    assert "must be a pickled dictionary" in refused(folder)
    file.write_bytes(b"\x80\2cnumpy\nndarray\n(\x8a\6\0\x10\xa5\xd4\xe8\0tR.")
    assert "must be a pickled dictionary" in refused(folder)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_of_a_pickle_gives_another_error(tmp_path_factory, drawn):
    content = bytearray(python2(pixels(1), [1]))
    for _ in range(drawn.draw(st.integers(1, 3))):
        at = drawn.draw(st.one_of(st.integers(0, 160), st.integers(len(content) - 24, len(content) - 1)))
        content[at] = drawn.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("cifar")
    (folder / "data_batch_1").write_bytes(content)
    try:
        open_dataset(folder)
    except AccelsimError as error:
        assert "\n" not in str(error)


# ---- folders of images


@pytest.fixture(scope="module")
def Image():
    return pytest.importorskip("PIL.Image")


def picture(height=40, width=60, seed=0, channels=3):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, channels), np.uint8)
    return np.repeat(np.repeat(coarse, height // 4, 0), width // 6, 1)


@pytest.fixture
def folder(tmp_path, Image):
    for number, name in enumerate(("cat", "dog", "eel")):
        for index in range(3):
            file = tmp_path / name / ("deeper" if index == 2 else "") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed=10 * number + index)).save(file)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_a_folder_for_each_class(folder):
    dataset = open_dataset(folder)
    assert (len(dataset), dataset.num_classes, dataset.shape) == (9, 3, (3, 224, 224))
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    images, labels = next(dataset.batches(9))
    assert images.shape == (9, 3, 224, 224) and sorted(labels.tolist()) == dataset.labels.tolist()
    again = next(open_dataset(folder).batches(9, workers=2))
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])


def test_folders_train_and_val(folder):
    for split in ("train", "val"):
        (folder / split).mkdir()
    (folder / "cat").rename(folder / "train" / "cat")
    for name in ("dog", "eel"):
        (folder / name).rename(folder / "val" / name)
    assert open_dataset(folder).num_classes == 1 and open_dataset(folder, split="test").num_classes == 2
    assert "folders train and val" in refused(folder / "train", split="test")


def test_an_image_is_resized_to_cover_and_cut_in_the_middle(folder, Image):
    got, _ = everything(open_dataset(folder, shape=(3, 28, 28), **RAW), shuffle=False)
    with Image.open(folder / "cat" / "0.png") as opened:
        wanted = np.asarray(opened.resize((48, 32), Image.Resampling.BILINEAR))[2:30, 10:38]
    assert np.abs(got[0].numpy() - wanted.transpose(2, 0, 1)).max() < 1e-3
    wide = open_dataset(folder, shape=(3, 10, 50))
    assert next(wide.batches(2))[0].shape == (2, 3, 10, 50)


def test_augmented_images_follow_the_seed_and_differ_by_epoch(folder):
    dataset = open_dataset(folder, shape=(3, 16, 16))
    first, again, other, plain = (
        everything(dataset, shuffle=False, **how)[0]
        for how in ({"augment": True}, {"augment": True, "workers": 2}, {"augment": True, "epoch": 1}, {})
    )
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, plain)


def test_every_kind_of_image_comes_out_upright_in_colour(tmp_path, Image):
    colour = Image.fromarray(picture())
    kinds = {
        "rgba.png": colour.convert("RGBA"),
        "cmyk.jpg": colour.convert("CMYK"),
        "grey.png": colour.convert("L"),
        "deep.png": Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257),
        "palette.gif": colour.convert("P"),
        "bits.png": colour.convert("1"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    colour.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{name},1\n" for name in [*kinds, "turned.png"]))
    dataset = open_dataset(tmp_path, shape=(3, 28, 42), **RAW)
    got, _ = everything(dataset, shuffle=False)
    assert dataset.skipped == 0 and dataset.num_classes == 2
    by_name = dict(zip([*kinds, "turned.png"], got, strict=True))
    colour.save(tmp_path / "plain.png")
    (tmp_path / "labels.csv").write_text("file,label\nplain.png,0\n")
    plain = everything(open_dataset(tmp_path, shape=(3, 28, 42), **RAW))[0][0]
    assert torch.allclose(by_name["turned.png"], plain) and torch.allclose(by_name["rgba.png"], plain)
    assert (by_name["cmyk.jpg"] - plain).abs().mean() < 12
    assert torch.allclose(by_name["grey.png"], by_name["deep.png"])
    assert (by_name["grey.png"][0] == by_name["grey.png"][2]).all()


def test_images_that_do_not_open_are_skipped_and_counted(folder):
    (folder / "cat" / "broken.jpg").write_bytes(b"no image at all")
    whole = (folder / "dog" / "0.png").read_bytes()
    (folder / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "eel" / "empty.png").write_bytes(b"")
    dataset = open_dataset(folder, shape=(3, 8, 8))
    assert (len(dataset), dataset.skipped) == (12, 0)  # nothing is decoded before it is needed
    assert len(everything(dataset)[0]) == 9 and dataset.skipped == len(dataset.reasons) == 3
    assert any("broken.jpg" in reason for reason in dataset.reasons)
    assert len(everything(dataset, workers=2)[0]) == 9 and dataset.skipped == 3
    assert [len(labels) for _, labels in dataset.batches(9)] == [9]
    with pytest.raises(AccelsimError, match="has 9"):
        next(dataset.steps(10))


def test_a_folder_in_which_nothing_opens_is_refused(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "cat").mkdir()
    for number in range(8):
        (tmp_path / "cat" / f"{number}.jpg").write_bytes(b"no")
    dataset = open_dataset(tmp_path)
    with pytest.raises(AccelsimError, match=r"none of the 8 images opens; .*\.jpg"):
        next(dataset.steps(2))
    assert dataset.skipped == 8 and len(dataset.reasons) == data.REASONS


def test_labels_of_a_table_are_numbers_or_names(folder):
    table = folder / "labels.csv"
    table.write_text("label,file\n7,cat/0.png\n3,dog/1.png\n")
    dataset = open_dataset(folder)
    assert dataset.labels.tolist() == [7, 3] and dataset.num_classes == 8
    assert open_dataset(folder, num_classes=1000).num_classes == 1000
    table.write_text("\ufefffile,label\ncat/0.png,wolf\ndog/1.png,ant\ndog/0.png,wolf\ngone.png,bee\n", "utf-8")
    dataset = open_dataset(folder)
    assert dataset.labels.tolist() == [2, 0, 2, 1] and dataset.num_classes == 3
    assert len(everything(dataset)[0]) == 3 and dataset.skipped == 1


def test_a_malformed_folder_is_refused(tmp_path, folder):
    table = folder / "labels.csv"
    for content, words in [
        (b"", "columns file and label"),
        (b"name,class\na,1\n", "columns file and label"),
        (b"file,label\n", "at least one image"),
        (b"file,label\na.png\n", "row 1"),
        (b"file,label\na.png,1\n../../a.png,1\n", "row 2"),
        (b"file,label\n/etc/a.png,1\n", "row 1"),
        (b"\xff\xfe\x00", "must be CSV in UTF-8"),
    ]:
        table.write_bytes(content)
        assert words in refused(folder)
    table.write_text("file,label\ncat/0.png,1\n")
    assert "one part" in refused(folder, split="test") and "3 channels" in refused(folder, shape=(1, 8, 8))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "must hold a folder of images for each class" in refused(empty)
    assert "no such file" in refused(empty / "gone")
    (empty / "a.tar.gz").write_bytes(b"")
    assert "unpack" in refused(empty / "a.tar.gz")


def test_pillow_is_needed_for_images_only(folder, monkeypatch):
    npz = an_npz(folder, 2)
    code = "import sys; from accelsim.capture.data import open_dataset as o\n"
    code += "for path in (None, sys.argv[1]): next(o(path).batches(2, augment=True))\nassert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, npz], check=True)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install pillow" in refused(folder)


# ---- the real thing


@pytest.mark.skipif("ACCELSIM_DATA" not in os.environ, reason="ACCELSIM_DATA names no folder of real data")
def test_real_images_are_found():
    root = Path(os.environ["ACCELSIM_DATA"])
    cifar, photos = open_dataset(root / "cifar10"), open_dataset(root / "photos", num_classes=1000)
    assert len(cifar) == 4000 and cifar.num_classes == 10 and len(photos) == 128
    images, _ = next(cifar.batches(4000, shuffle=False))
    assert images.mean().abs() < 0.05 and abs(images.std() - 1.25) < 0.05
    assert sum(len(labels) for _, labels in photos.batches(32, workers=2)) == 128 and photos.skipped == 0
