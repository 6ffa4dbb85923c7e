"""`ppl-fast doctor` reports what runs, and fails when a backend computes wrongly."""

import importlib.metadata

import pytest
import torch

from ppl_fast import _backend, _library, _selftest, doctor
from ppl_fast._library import OPERATORS


def test_reports_backends_and_agreement(capsys):
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    for op in OPERATORS:
        assert f"{op}: auto uses cpp" in out
    assert "All available backends agree." in out
    assert out.count("ok, largest relative error") >= 2 * len(OPERATORS)


def test_a_wrong_backend_gives_exit_code_1(capsys, monkeypatch):
    honest, wrong = _selftest.run, next(iter(OPERATORS))

    def crooked(op, backend, device, dtype):
        outputs = honest(op, backend, device, dtype)
        return [o * 1.01 for o in outputs] if (op, backend) == (wrong, "cpp") else outputs

    monkeypatch.setattr(_selftest, "run", crooked)
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert out.count("WRONG") == 1
    assert "A backend disagrees with the reference" in out


def test_says_what_a_self_test_found(capsys, monkeypatch):
    found = "its self-test on cuda:0 found a relative error of 1.0e-02"
    monkeypatch.setattr(_backend, "failed_test", lambda op, backend, device: found if backend == "cpp" else None)
    assert doctor.main() == 1
    assert f"WRONG, so auto leaves it out: {found}" in capsys.readouterr().out


def test_says_why_a_library_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(_library._failures, "_C_cuda", "ppl_fast._C_cuda does not load: libcudart.so.13 is missing")
    monkeypatch.delitem(_library._loaded, "_C_cuda", raising=False)
    doctor.main()
    assert "_C_cuda: ppl_fast._C_cuda does not load: libcudart.so.13 is missing" in capsys.readouterr().out


def test_lists_what_the_installation_asks_for(capsys, monkeypatch):
    asked = ["torch>=2.10", "numpy", "nowhere-to-be-found>=2; extra == 'viz'", 'pytest; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    doctor.main()
    out = capsys.readouterr().out
    assert f"numpy {importlib.metadata.version('numpy')}" in out
    assert "extra viz: nowhere-to-be-found not installed" in out
    assert "pytest" not in out


def test_nan_counts_as_wrong(monkeypatch):
    monkeypatch.setattr(_selftest, "run", lambda *a: [torch.tensor([1.0, torch.nan])])
    assert not _selftest.largest_error("", "cpp", "cpu") <= _selftest.TOLERANCE


@pytest.mark.parametrize("op", OPERATORS)
def test_examples_are_not_trivial(op):
    for tensor in _selftest.run(op, "reference", "cpu", torch.float64):
        assert tensor.abs().max() > 1e-3
