"""A missing optional package is one sentence with the extra that brings it."""

import sys

import pytest

from ppl_fast._extras import missing, needing, on_first_use


def test_the_sentence_names_what_needs_it_and_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    sentence = "^charts need Pillow, which is not installed: pip install 'ppl_fast\\[viz\\]', or draw none$"
    with pytest.raises(ImportError, match=sentence), needing("charts need", "viz", otherwise="draw none"):
        from PIL import Image  # noqa: F401


def test_other_errors_stay_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="No module named 'ppl_fast.nowhere'"), needing("x needs", "viz"):
        import ppl_fast.nowhere  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nothing'"), needing("x needs", "viz"):
        from json import nothing  # noqa: F401


def test_a_name_is_imported_on_first_use(monkeypatch):
    find = on_first_use("ppl_fast.data", {"Labels": "labels", "ImageFolder": "images"}, "data")
    assert find("Labels").__module__ == "ppl_fast.data.labels"
    with pytest.raises(AttributeError, match="module 'ppl_fast.data' has no attribute 'Label'"):
        find("Label")
    monkeypatch.setitem(sys.modules, "ppl_fast.data.images", None)
    with pytest.raises(ModuleNotFoundError, match="ppl_fast.data.images"):
        find("ImageFolder")
    monkeypatch.delitem(sys.modules, "ppl_fast.data.images")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="ppl_fast.data.ImageFolder needs Pillow, which"):
        find("ImageFolder")


def test_the_error_knows_its_package():
    assert missing("yaml", "configs need", "train").name == "yaml"
