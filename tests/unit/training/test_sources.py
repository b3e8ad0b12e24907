"""Reading data sets of every kind, and what is said about bad ones."""

from __future__ import annotations

import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fupruner.errors import DataError
from fupruner.training import decode
from fupruner.training.data import check_labels, load_data
from image_files import png, write_folder, write_table


def refusal(source: object, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_data(str(source), **options)
    return str(caught.value)


def test_digits_are_divided_always_in_the_same_way():
    first, second = load_data("digits"), load_data("digits")
    assert first.train.images.shape == (1438, 1, 8, 8)
    assert first.validation.images.shape == (359, 1, 8, 8)
    assert first.train.images.dtype == torch.uint8
    assert int(first.train.images.max()) == 255
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.validation.labels, second.validation.labels)
    assert first.augment == "shift"
    assert len(first.classes) == 10


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install 'fupruner[digits]'" in refusal("digits")


def test_digits_have_no_other_split():
    said = refusal("digits", validation_split="dev")
    assert "There is no split 'dev' in digits" in said
    assert "Splits there: train, validation" in said


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "test"])
def test_class_folders_with_splits(tmp_path, validation):
    write_folder(tmp_path / "train", {"cat": 3, "dog": 2})
    write_folder(tmp_path / validation, {"dog": 1})
    data = load_data(str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.validation.labels.tolist() == [1]
    assert data.train.images.shape == (5, 3, 5, 6)
    assert data.train.images[1, :, 0, 0].tolist() == [10, 0, 245]
    assert data.notes == ()


def test_single_folder_of_classes_is_divided_and_says_so(tmp_path):
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    data, again = load_data(str(tmp_path)), load_data(str(tmp_path))
    assert (len(data.train), len(data.validation)) == (16, 4)
    assert torch.equal(data.validation.labels, again.validation.labels)
    assert "4 of its 20 images, drawn with seed 0, are kept for validation" in data.notes[0]


def test_named_splits_are_used(tmp_path):
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "dev", {"cat": 1, "dog": 1})
    assert len(load_data(str(tmp_path), validation_split="dev").validation) == 2
    assert len(load_data(str(tmp_path), train_split="dev", validation_split="train").train) == 2


def test_unknown_split_lists_those_there(tmp_path):
    write_folder(tmp_path / "train", {"cat": 1, "dog": 1})
    write_folder(tmp_path / "dev", {"cat": 1, "dog": 1})
    for options in ({"validation_split": "devel"}, {"train_split": "training", "validation_split": "dev"}, {}):
        said = refusal(tmp_path, **options)
        assert "There is no split" in said
        assert "Splits there: dev, train. Choose with --train-split and --validation-split." in said


def test_missing_and_unusable_paths(tmp_path):
    assert f"There is no data at {tmp_path / 'none'}" in refusal(tmp_path / "none")
    assert f"There are no folders of images in {tmp_path}" in refusal(tmp_path)
    (tmp_path / "cat").mkdir()
    assert f"There are no images in the folders of {tmp_path}" in refusal(tmp_path)
    (tmp_path / "data.zip").write_text("x")
    assert "neither a folder nor a parquet file" in refusal(tmp_path / "data.zip")


def test_empty_training_split(tmp_path):
    write_folder(tmp_path / "validation", {"cat": 1, "dog": 1})
    (tmp_path / "train").mkdir()
    assert f"There are no images in {tmp_path / 'train'}" in refusal(tmp_path)


def test_single_class_is_refused(tmp_path):
    write_folder(tmp_path, {"cat": 4})
    said = refusal(tmp_path)
    assert "All 4 images" in said
    assert "belong to one class" in said


def test_validation_class_that_training_lacks(tmp_path):
    write_folder(tmp_path / "train", {"cat": 1, "dog": 1})
    write_folder(tmp_path / "validation", {"cat": 1, "emu": 1})
    said = refusal(tmp_path)
    assert "that the training split does not have: emu" in said
    assert "Classes of the training split: cat, dog." in said


def test_validation_label_that_training_lacks(tmp_path):
    write_table(tmp_path / "train.parquet", [0, 1])
    write_table(tmp_path / "validation.parquet", [0, 7])
    said = refusal(tmp_path)
    assert "Classes in" in said
    assert "no image of: 7" in said


@pytest.mark.parametrize("content", [b"not an image", png()[:50]], ids=["text", "truncated"])
def test_corrupt_image_names_its_file_or_row(tmp_path, content):
    write_folder(tmp_path / "a", {"cat": 2, "dog": 2})
    (tmp_path / "a/dog/01.png").write_bytes(content)
    said = refusal(tmp_path / "a", image_shape=(3, 5, 6))
    assert f"Image {tmp_path / 'a/dog/01.png'} cannot be decoded" in said
    table = write_table(tmp_path / "b.parquet", [0, 1, 0, 1], [png(), png(), content, png()])
    said = refusal(table, image_shape=(3, 5, 6))
    assert f"The image in row 2 of {table} cannot be decoded" in said


def test_corrupt_first_image_is_found_where_it_gives_the_shape(tmp_path):
    table = write_table(tmp_path / "train.parquet", [0, 1], [b"no", png()])
    write_table(tmp_path / "test.parquet", [0])
    assert f"row 0 of {table} cannot be decoded: it is not an image" in refusal(tmp_path)


def test_images_of_more_than_8_bits_are_refused_rather_than_cut_off(tmp_path):
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    Image.fromarray(np.full((5, 6), 3000, np.uint16)).save(tmp_path / "cat/00.png")
    assert f"{tmp_path / 'cat/00.png'} has pixels of more than 8 bits (mode I;16)" in refusal(tmp_path)


def test_parquet_folder_with_shards_and_class_names(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["emu", "fox"])})
    pixels = [Image.new("RGB", (4, 4), (i, i, i)) for i in range(4)]
    table = datasets.Dataset.from_dict({"image": pixels, "label": [0, 1, 1, 0]}, features=features)
    (tmp_path / "data").mkdir()
    table.select([0, 1]).to_parquet(str(tmp_path / "data/train-00000-of-00002.parquet"))
    table.select([2, 3]).to_parquet(str(tmp_path / "data/train-00001-of-00002.parquet"))
    table.select([1]).to_parquet(str(tmp_path / "data/test-00000-of-00001.parquet"))
    data = load_data(str(tmp_path))
    assert data.classes == ("emu", "fox")
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert len(data.validation) == 1


def test_parquet_in_a_folder_per_split_and_as_a_list_of_files(tmp_path):
    first = write_table(tmp_path / "train/a.parquet", [0, 1, 1])
    second = write_table(tmp_path / "validation/b.parquet", [1])
    assert len(load_data(str(tmp_path)).train) == 3
    data = load_data(f"{first},{second}", train_split="a", validation_split="b")
    assert (len(data.train), len(data.validation)) == (3, 1)


def test_single_parquet_file_is_divided_and_messages_keep_its_rows(tmp_path):
    path = write_table(tmp_path / "all.parquet", [0, 1] * 10)
    data = load_data(str(path))
    assert (len(data.train), len(data.validation)) == (16, 4)
    assert str(path) in data.notes[0]
    reds = torch.cat([data.train.images, data.validation.images])[:, 0, 0, 0].tolist()
    assert sorted(reds) == [10 * index for index in range(20)]


def test_missing_columns_list_those_there(tmp_path):
    path = write_table(tmp_path / "a.parquet", [0, 1], names=("picture", "label"))
    said = refusal(path)
    assert f"There is no column 'image' in {path}" in said
    assert "Its columns: picture, label" in said
    path = write_table(tmp_path / "b.parquet", [0, 1], names=("image", "kind"))
    assert f"There is no column 'label' in {path}" in refusal(path)


@pytest.mark.parametrize(("labels", "shown"), [([0, None], "None"), (["a", "b"], "'a'"), ([0.0, 1.0], "0.0")])
def test_labels_that_are_no_indices(tmp_path, labels, shown):
    path = write_table(tmp_path / "a.parquet", labels)
    said = refusal(path)
    assert f"has the label {shown}" in said
    assert "class indices from 0" in said


def test_negative_label_names_its_row(tmp_path):
    path = write_table(tmp_path / "a.parquet", [0, 1, -1])
    assert f"The image in row 2 of {path} has label -1, which is no class" in refusal(path)


def test_image_column_of_numbers(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), path)
    assert f"Column image of {path} does not hold encoded images" in refusal(path)


def test_file_that_is_no_parquet_and_missing_file(tmp_path):
    (tmp_path / "a.parquet").write_text("hello")
    assert f"Cannot read {tmp_path / 'a.parquet'} as parquet" in refusal(tmp_path / "a.parquet")
    assert f"There is no file {tmp_path / 'b.parquet'}" in refusal(tmp_path / "b.parquet")


def test_hub_data_set_by_name(monkeypatch):
    pixels = [Image.new("L", (4, 4), i) for i in range(4)]
    table = datasets.Dataset.from_dict({"img": pixels, "label": [0, 1, 1, 0]}).cast_column("img", datasets.Image())
    asked = []

    def fake(name):
        asked.append(name)
        return datasets.DatasetDict({"train": table, "test": table.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load_data("hf:someone/pictures")
    assert asked == ["someone/pictures"]
    assert data.train.images.shape == (4, 1, 4, 4)
    assert data.classes == ("0", "1")
    assert "There is no split 'dev' in hf:someone/pictures" in refusal("hf:someone/pictures", validation_split="dev")


def test_hub_data_set_that_cannot_be_loaded(monkeypatch):
    def fake(name):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fake)
    said = refusal("hf:someone/pictures")
    assert "Cannot load the data set someone/pictures from the Hugging Face hub: ConnectionError: no route" in said


def test_images_are_converted_to_the_channels_and_size_of_the_model(tmp_path):
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    data = load_data(str(tmp_path), image_shape=(1, 8, 8))
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert data.train.images.unique().numel() > 1


def test_scaling_keeps_proportions_and_cuts_out_the_centre(tmp_path):
    columns = np.repeat(np.array([0, 0, 200, 200, 200, 200, 0, 0], np.uint8)[None], 4, axis=0)
    for index in range(4):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        Image.fromarray(columns).save(tmp_path / str(index % 2) / f"{index}.png")
    data = load_data(str(tmp_path), image_shape=(1, 4, 4))
    assert data.train.images.unique().tolist() == [200]


def test_large_images_are_decoded_at_any_size(tmp_path):
    for index, size in enumerate([(100, 90), (300, 80), (70, 71), (200, 200)]):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        (tmp_path / str(index % 2) / f"{index}.png").write_bytes(png(40, size))
    data = load_data(str(tmp_path), image_shape=(3, 80, 96))
    assert data.train.images.shape == (4 - 1, 3, 80, 96)
    assert data.train.images[:, 0].unique().tolist() == [40]


def test_a_table_that_memory_does_not_hold_even_encoded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_MEMORY_LIMIT", 1000)
    write_table(tmp_path / "train.parquet", [0, 1] * 10)
    said = refusal(tmp_path / "train.parquet", image_shape=(3, 32, 32))
    assert "16 images in" in said
    assert "GiB of memory as they are" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_shape": (5, 8, 8)}, "wants images of 5 channels"),
        ({"image_shape": (8,)}, "inputs of shape 8, which are no images"),
        ({"image_shape": (1, 8, 8), "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}, "for 3 channels; images have 1"),
    ],
)
def test_model_that_takes_no_such_images(options, said):
    assert said in refusal("digits", **options)


def test_labels_beyond_the_outputs_of_the_model():
    data = load_data("digits")
    check_labels(data, 10)
    with pytest.raises(DataError, match=r"of the training split has label 9, but the model has 9 outputs"):
        check_labels(data, 9)
