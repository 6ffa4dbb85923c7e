"""`ppl-fast doctor` reports what runs, and fails when a backend computes wrongly."""

import pytest
import torch

from ppl_fast import _library, doctor


def test_reports_backends_and_agreement(capsys):
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    for op in doctor.OPERATORS:
        assert f"{op}: auto uses cpp" in out
    assert "All available backends agree." in out
    assert out.count("ok, largest relative error") >= 2 * len(doctor.OPERATORS)


def test_a_wrong_backend_gives_exit_code_1(capsys, monkeypatch):
    honest = doctor._run

    def crooked(op, backend, device, dtype):
        outputs = honest(op, backend, device, dtype)
        return [o * 1.01 for o in outputs] if (op, backend) == ("affine_warp", "cpp") else outputs

    monkeypatch.setattr(doctor, "_run", crooked)
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert out.count("WRONG") == 1
    assert "A backend disagrees with the reference" in out


def test_says_why_a_library_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(_library._failures, "_C_cuda", "ppl_fast._C_cuda does not load: libcudart.so.13 is missing")
    monkeypatch.delitem(_library._loaded, "_C_cuda", raising=False)
    doctor.main()
    assert "_C_cuda: ppl_fast._C_cuda does not load: libcudart.so.13 is missing" in capsys.readouterr().out


def test_nan_counts_as_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "_run", lambda *a: [torch.tensor([1.0, torch.nan])])
    assert not doctor._self_test("affine_warp", "cpp", "cpu") <= doctor.TOLERANCE


@pytest.mark.parametrize("op", doctor.OPERATORS)
def test_examples_are_not_trivial(op):
    for tensor in doctor._run(op, "reference", "cpu", torch.float64):
        assert tensor.abs().max() > 1e-3
