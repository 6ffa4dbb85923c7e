"""The reader of pickles: what it admits, and that nothing else is run, looked up, changed or allocated."""

import argparse
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from published_cases import streamed, zipped
from torch import nn

from ppl_fast.published import archives
from ppl_fast.published.pickles import Held, StandIn

FLOATS = torch.arange(6, dtype=torch.float32)
BYTES = FLOATS.numpy().tobytes()
# Pieces of pickles, protocol 2: a storage "0" of six floats, and the tensor (2, 3) on it.
PID = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"


def tensor_of(pid=PID, offset=b"K\x00", size=b"K\x02K\x03\x86", stride=b"K\x03K\x01\x86"):
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + offset + size + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def write(kind, path, program):
    """A file in either format, with storage "0" where the program refers to it."""
    program = b"\x80\x02" + program + b"."
    used = b"storagec" in program
    if kind == "zip":
        return zipped(path, program, {"data/0": BYTES})
    return streamed(path, program, {"0": FLOATS} if used else None)


@pytest.fixture(params=["zip", "stream"])
def read(request, tmp_path):
    return lambda program: archives.read(write(request.param, tmp_path / "x.pth", program))


def test_handwritten_tensor(read):
    found = read(tensor_of())
    assert isinstance(found, Held) and torch.equal(found.tensor, FLOATS.view(2, 3))


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_what_torch_saves(tmp_path, new):
    shared = torch.randn(4, 6)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2, True), nn.Upsample(scale_factor=0.5, mode="bilinear"),
        nn.ModuleList([nn.Linear(2, 3), nn.GELU(), nn.Dropout(0.0), nn.LayerNorm(3)]), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    layers[0].weight.requires_grad_(False)
    saved = {
        "layers": layers,
        "views": [shared[1:, ::2], shared.T],
        "state": layers.state_dict(),
        "options": argparse.Namespace(thick=1e-3, name="x"),
        "kinds": [
            torch.float16,
            torch.Size([2, 3]),
            torch.device("cuda", 1),
            {1, 2},
            None,
            True,
            2.5,
            "word",
            -(2**70),
        ],
        "numbers": [
            torch.tensor(3),
            torch.tensor([True]),
            torch.zeros(0, 3),
            torch.ones(2).half(),
            torch.ones(1).bfloat16(),
        ],
    }
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    found = archives.read(tmp_path / "x.pth")
    assert found["kinds"] == [torch.float16, (2, 3), "cuda:1", {1, 2}, None, True, 2.5, "word", -(2**70)]
    assert found["options"].kind == "argparse.Namespace" and found["options"].state == {"thick": 1e-3, "name": "x"}
    assert all(torch.equal(a.tensor, b) for a, b in zip(found["views"], saved["views"], strict=True))
    assert (
        found["views"][0].tensor.untyped_storage().data_ptr() == found["views"][1].tensor.untyped_storage().data_ptr()
    )
    for a, b in zip(found["numbers"], saved["numbers"], strict=True):
        assert a.tensor.dtype == b.dtype and torch.equal(a.tensor, b)
    assert {key: value.tensor.tolist() for key, value in found["state"].items()} == {
        key: value.tolist() for key, value in layers.state_dict().items()
    }
    assert found["layers"].kind == "torch.nn.modules.container.Sequential"
    first = found["layers"].state["_modules"]["0"]
    assert isinstance(first, StandIn) and first.kind == "torch.nn.modules.conv.Conv2d"
    assert torch.equal(first.state["_parameters"]["weight"].tensor, layers[0].weight)
    assert first.state["stride"] == (1, 1)


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def dump(value, protocol=2):
    """The opcodes of a value, without start and end."""
    return pickle.dumps(value, protocol)[2:-1]


MARKER = "published_pickle_was_run"
NAMED = {
    "posix.system": Call(os.system, f"touch {MARKER}"),
    "__builtin__.eval": Call(eval, f"open('{MARKER}', 'w')"),
    "__builtin__.getattr": Call(getattr, "x", "upper"),
    "torch.serialization.load": Call(torch.load, MARKER),
    "torch.hub.load_state_dict_from_url": Call(torch.hub.load_state_dict_from_url, "file:///x"),
    "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b"x"),
    "torch.random.manual_seed": b"ctorch.random\nmanual_seed\nK\x01\x85R",  # by name: torch.compile may wrap it
    "operator.attrgetter": b"coperator\nattrgetter\nX\x01\x00\x00\x00x\x85R",
    "functools.partial": b"cfunctools\npartial\n)R",
    "copy_reg._reconstructor": b"ccopy_reg\n_reconstructor\n)R",
    "torch._utils._rebuild_wrapper_subclass": b"ctorch._utils\n_rebuild_wrapper_subclass\n)R",
    "torch.nn.modules.module.register_module_forward_hook": b"ctorch.nn.modules.module\nregister_module_forward_hook\n",
    "torch.nn.modules.module._WrappedHook": b"ctorch.nn.modules.module\n_WrappedHook\n",
    "models.modules.Anything": b"cmodels.modules\nAnything\n",
    "models.elsewhere.Memory": b"cmodels.elsewhere\nMemory\n",
    "torch.nn.Linear": b"ctorch.nn\nLinear\n",
    "torch.load": b"ctorch\nload\n",
}


@pytest.mark.parametrize("name", NAMED)
def test_everything_else_is_refused_by_name(read, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    program = NAMED[name] if isinstance(NAMED[name], bytes) else dump(NAMED[name])
    with pytest.raises(ValueError, match=f"x.pth: refused without running anything: it asks for {name}$") as raised:
        read(program)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("torch.nn.modules.linear", "Linear.__init__.__globals__"),
        ("torch.nn.modules.linear", "Linear.forward"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch", "float32.__class__"),
        ("os", "system"),
        ("models.modules", "ResBlock.__subclasses__"),
        ("torch.nn.modules.linear\nos", "system"),
    ],
)
def test_names_with_dots_reach_nothing(tmp_path, module, name):
    text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
    path = zipped(tmp_path / "x.pth", b"\x80\x04" + b"".join(text) + b"\x93.")
    with pytest.raises(ValueError, match="refused without running anything: it asks for "):
        archives.read(path)


LINEAR = b"ctorch.nn.modules.linear\nLinear\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
EVIL = b"}X\x04\x00\x00\x00evilK\x01s"  # {"evil": 1}
TRICKS = {
    "a stand-in's class is called": (LINEAR + b"K\x02K\x03\x86R", "calls the class torch.nn.modules.linear.Linear"),
    "a stand-in's class is called without arguments": (LINEAR + b")R", "calls the class"),
    "a stand-in gets arguments": (LINEAR + b"K\x02\x85\x81", "passes arguments to the class"),
    "a stand-in's state is no dict": (
        LINEAR + b")\x81K\x01b",
        "the state of a torch.nn.modules.linear.Linear is a int",
    ),
    "a stand-in's state is a pair of dicts": (LINEAR + b")\x81" + EVIL + EVIL + b"\x86b", "is a tuple"),
    "an attribute's name is a number": (LINEAR + b")\x81}K\x01K\x01sb", "Linear is named by a int"),
    "a class gets a state": (LINEAR + EVIL + b"b", "__setstate__"),
    "a class gets slots": (LINEAR + b"N" + EVIL + b"\x86b", "__setstate__"),
    "a function gets a state": (REBUILD + EVIL + b"b", "sets an attribute of a function"),
    "a function gets slots": (REBUILD + b"N}X\x05\x00\x00\x00_callNs\x86b", "sets an attribute of a function"),
    "a dtype gets a state": (b"ctorch\nfloat32\nN" + EVIL + b"\x86b", "AttributeError"),
    "a tensor gets a state": (tensor_of() + b"(" + PID + b"K\x00K\x01\x85K\x01\x85tb", "sets the state of a tensor"),
    "a storage gets a state": (PID + b"K\x01K\x02\x86b", "sets the state of a tensor"),
    "a tensor is indexed": (tensor_of() + b"K\x00K\x01s", "TypeError"),
    "a parameter of no tensor": (b"ctorch._utils\n_rebuild_parameter\n(K\x01\x88NtR", "a parameter from a int"),
    "a tensor of no storage": (tensor_of(b"K\x05"), "something else than a storage"),
    "a tensor past its storage": (tensor_of(size=b"K\x02K\x04\x86"), r"\(2, 4\) does not fit in its storage of 6"),
    "a tensor behind its storage": (tensor_of(offset=b"K\x01"), "does not fit"),
    "a tensor of negative stride": (tensor_of(stride=b"K\x03J\xff\xff\xff\xff\x86"), "something else than"),
    "a tensor expanded": (tensor_of(size=b"J\x00\x00\x00\x7f\x85", stride=b"K\x00\x85"), "does not fit"),
    "sizes and strides of different length": (tensor_of(stride=b"K\x01\x85"), "ValueError"),
    "a size that is a string": (tensor_of(size=b"X\x01\x00\x00\x003K\x01\x86"), "something else than"),
    "a device that is no text": (b"ctorch\ndevice\n)\x85R", "TypeError"),
    "an id that is a file name": (b"X\x0b\x00\x00\x00/etc/passwdQ", "outside of it that is no storage"),
    "an id in text": (b"P/etc/passwd\n", "the opcode PERSID"),
    "an id of something else": (b"X\x04\x00\x00\x00fileX\x01\x00\x00\x000\x86Q", "no storage"),
    "a source file beside a function": (b"X\x06\x00\x00\x00module" + REBUILD + b"NN(tQ", "IndexError|no storage"),
    "a negative number of elements": (PID.replace(b"K\x06tQ", b"J\xff\xff\xff\xfftQ"), "no storage"),
    "a view of a storage": (PID.replace(b"K\x06tQ", b"K\x06K\x01tQ"), "no storage"),
    "an extension code": (b"\x82\x01", "the opcode EXT1"),
    "INST": (b"(itorch.nn.modules.linear\nLinear\n", "the opcode INST"),
    "OBJ": (b"(" + LINEAR + b"o", "the opcode OBJ"),
    "NEWOBJ_EX": (LINEAR + b")}\x92", "the opcode NEWOBJ_EX"),
    "a byte array that is not there": (b"\x96" + struct.pack("<Q", 1 << 40), "ValueError|BYTEARRAY8"),
    "a string that is not there": (b"\x8d" + struct.pack("<Q", 1 << 40), "ValueError"),
    "a memo of billions": (b"Nr\xff\xff\xff\x7f", "numbers more objects than it has"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_end_in_one_sentence(read, trick):
    program, message = TRICKS[trick]
    with pytest.raises(ValueError, match=message) as raised:
        read(program)
    assert "x.pth: " in str(raised.value) and "\n" not in str(raised.value)


def test_nothing_lasts_in_the_process(read):
    read(LINEAR + b")\x81" + EVIL + b"b")
    assert not hasattr(nn.Linear, "evil") and not hasattr(StandIn, "evil")
    found = read(b"ccollections\nOrderedDict\n)R" + b"}X\x05\x00\x00\x00itemsK\x01sb")
    assert list(found.items()) == [] and not hasattr(OrderedDict(), "evil")


def test_a_class_s_source_in_the_stream_is_not_looked_at(tmp_path):
    # torch's own reader of this format compares the source and may write a patch file beside.
    pid = b"(X\x06\x00\x00\x00module" + LINEAR + dump("linear.py") + dump("import os") + b"tQ"
    found = archives.read(streamed(tmp_path / "x.pth", b"\x80\x02" + pid + b")\x81}b."))
    assert found.kind == "torch.nn.modules.linear.Linear" and os.listdir(tmp_path) == ["x.pth"]


def test_oversized_claims_take_no_memory(tmp_path):
    claim = PID.replace(b"K\x06tQ", b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"tQ")
    program = b"\x80\x02" + tensor_of(claim) + b"."
    for path in (zipped(tmp_path / "a.pth", program, {"data/0": BYTES}), streamed(tmp_path / "b.pth", program)):
        with pytest.raises(ValueError, match="claim more bytes than the file has"):
            archives.read(path)
    claim = PID.replace(b"K\x06tQ", b"K\x07tQ")
    path = zipped(tmp_path / "c.pth", b"\x80\x02" + tensor_of(claim) + b".", {"data/0": BYTES})
    with pytest.raises(ValueError, match="storage 0 claims 7 elements but has 24 bytes"):
        archives.read(path)


def test_a_zip_bomb_is_refused(tmp_path):
    path = zipped(tmp_path / "x.pth", pickle.dumps("x" * 10**7), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match="data.pkl is compressed"):
        archives.read(path)
    big = zipped(tmp_path / "y.pth", b"\x80\x02N.", {"byteorder": b"big"})
    with pytest.raises(ValueError, match="big-endian"):
        archives.read(big)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_truncated_anywhere(tmp_path, new):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.randn(30), "b": nn.Linear(2, 3)}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for length in [0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 100, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="x.pth: truncated, or not a checkpoint written by torch.save"):
            archives.read(path)


def test_damaged_storage(tmp_path):
    torch.save({"a": torch.randn(1000)}, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(ValueError, match="truncated, or not a checkpoint"):
        archives.read(tmp_path / "x.pth")


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        archives.read(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="no such file"):
        archives.read(tmp_path)
    (tmp_path / "text.pth").write_text("not a checkpoint\n")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    zipped(tmp_path / "script.pth", b"\x80\x02c__torch__.torch.nn.modules.linear\nLinear\n)\x81.")
    for name, message in (
        ("text", "truncated, or not"),
        ("other", "truncated, or not"),
        ("script", "asks for __torch__"),
    ):
        with pytest.raises(ValueError, match=message):
            archives.read(tmp_path / f"{name}.pth")
