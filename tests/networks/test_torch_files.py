"""Files of torch.save without torch: the numbers are torch's own, and hostile ones are refused with nothing run."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.importers.pickled_tensors import read_pickle
from toolkit.networks.importers.stored_tensors import PickleError, StoredTensor
from toolkit.networks.importers.torch_files import MAGIC, open_torch_file
from toolkit.networks.network import Network

EXTRA = "torch is not installed (extra: train)"
# A state dict's pickle by hand: {"0.weight": a view of storage "0", of four float32 numbers}.
VIEW = (
    b"\x80\x02}(X\x08\x00\x00\x000.weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloat"
    b"Storage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK%cK\x02K\x02\x86K%cK\x01\x86\x89ccollections\nOrderedDict"
    b"\n)RtRu."
)
NUMBERS = np.array([1.0, -2.0, 0.5, 3.0], dtype="<f4")


def zipped(path: Path, program: bytes, storages: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("w/data.pkl", program)
        for key, content in storages.items():
            archive.writestr(f"w/data/{key}", content)
    return path


def view(offset: int = 0, stride: int = 2) -> bytes:
    return VIEW % (offset, stride)


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.pth", view(), {"0": NUMBERS.tobytes()})
    network = Network.load(path, "mlp")
    np.testing.assert_array_equal(network.layers[0].to_sparse().toarray(), [[1.0, -2.0], [0.5, 3.0]])


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_torchs_own(legacy: bool, tmp_path: Path) -> None:
    """Transposed, cut, of every floating type, parameters, tied: as torch.load(weights_only=True) gives them."""
    torch = pytest.importorskip("torch", reason=EXTRA)
    torch.manual_seed(0)
    whole = torch.randn(6, 7)
    state = {
        "plain": whole,
        "transposed": whole.t(),
        "cut": whole[1:5:2, 2:],
        "double": torch.randn(3, 4, dtype=torch.float64),
        "half": torch.randn(5).half(),
        "bfloat": torch.randn(5).bfloat16(),
        "parameter": torch.nn.Parameter(torch.randn(2, 1, 3)),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "subnormal": torch.tensor([1e-45, -0.0, 3e38]),
    }
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    again = torch.load(tmp_path / "w.pth", weights_only=True)
    with open_torch_file(tmp_path / "w.pth") as file:
        assert list(file.value) == list(state)
        for key, tensor in file.value.items():
            expected = again[key].detach().double().numpy()
            found = tensor.values(file.content)
            assert found.dtype == np.float64
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_checkpoints_hold_other_things_beside(protocol: int, tmp_path: Path) -> None:
    """What torch.load(weights_only=True) allows: sizes, devices, types, sets, bytes, an optimiser's state."""
    torch = pytest.importorskip("torch", reason=EXTRA)
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    beside = {
        "epoch": 3, "size": torch.Size([2]), "device": torch.device("cpu"), "dtype": torch.float32, "seen": {1},
        "name": "ε" * 300, "loss": 0.1, "raw": b"x", "betas": (0.9, 0.999), "optimizer": optimiser.state_dict(),
    }  # fmt: skip
    torch.save({"model": module.state_dict(), **beside}, tmp_path / "w.pth", pickle_protocol=protocol)
    assert Network.load(tmp_path / "w.pth", "mlp").digest == Network.from_torch(module, (3,)).digest


PUBLISHED = ("convex_adversarial/mnist.pth", "robust-verify-benchmark/mnist_MLP_9_100_LPD.pth")


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_weights_are_torchs_own(file: str, data_dir: Path) -> None:
    torch = pytest.importorskip("torch", reason=EXTRA)
    expected = torch.load(data_dir / file, map_location="cpu", weights_only=True)
    with open_torch_file(data_dir / file) as found:
        assert list(found.value) == list(expected)
        for key, tensor in found.value.items():
            np.testing.assert_array_equal(tensor.values(found.content), expected[key].double().numpy())


def test_state_dicts_are_read_without_torch(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.pth", view(), {"0": NUMBERS.tobytes()})
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)
sys.meta_path.insert(0, Absent())
from toolkit import Network
assert Network.load({str(path)!r}, "mlp").output_size == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Calls:
    """Pickled as a call of any function on any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


def as_zip(program: bytes, folder: Path) -> Path:
    return zipped(folder / "w.pth", program, {"0": NUMBERS.tobytes()})


def as_stream(program: bytes, folder: Path) -> Path:
    start = b"".join(pickle.dumps(one, 2) for one in (MAGIC, 1001, {"little_endian": True}))
    rest = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + NUMBERS.tobytes()
    (folder / "w.pth").write_bytes(start + program + rest)
    return folder / "w.pth"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a call of the system": (b"cos\nsystem\n(X\x0a\x00\x00\x00touch OWNEDtR.", "asks for os.system"),
    "a call of open": (pickle.dumps(Calls(open, "OWNED", "w"), 2), r"asks for _?io\.open"),
    "eval by protocol 4": (pickle.dumps(Calls(eval, "open('OWNED', 'w')"), 4), "asks for builtins.eval"),
    "a name inside a name": (b"\x80\x04\x8c\x05torch\x94\x8c\x0eload.__class__\x94\x93.", "asks for torch.load"),
    "an object by its class": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "it uses NEWOBJ"),
    "an instance": (b"(ios\nsystem\n.", "it uses INST|damaged"),
    "an extension code": (b"\x80\x02\x82\x01.", "it uses EXT1"),
    "state of a function": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",
        "sets the state of an object",
    ),
    "a call of a tensor": (VIEW[:-1].replace(b"%c", b"\x00") + b")R.", "calls what is no function|damaged"),
    "no end": (b"\x80\x02}", "damaged|leave one object"),
    "an empty stack": (b"\x80\x02u.", "damaged"),
    "a memo that is not there": (b"\x80\x02h\x05.", "damaged"),
    "two objects": (b"\x80\x02}}.", "must leave one object"),
    "a key that is a list": (b"\x80\x02}]K\x01s.", "a key is a list"),
    "a key whose hash was chosen": (
        b"\x80\x02}\x8a\x08" + ((1 << 61) - 1).to_bytes(8, "little") + b"Ns.",
        "of 61 bits",
    ),
    "a module's source": (b"\x80\x02(X\x06\x00\x00\x00moduletQ.", "storages are of another kind"),
}


@pytest.mark.parametrize("write", [as_zip, as_stream])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_refused_with_nothing_run(
    name: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, message = HOSTILE[name]
    with pytest.raises(ValueError, match=rf"w\.pth: not a state dict: .*({message})") as caught:
        Network.load(write(program, tmp_path), "mlp")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


BAD_VIEWS: dict[str, tuple[bytes, str]] = {
    "behind its storage": (view(offset=1), "lie in its storage of 4 numbers, got number 4"),
    "a stride that leaves it": (view(stride=200), "lie in its storage of 4 numbers, got number 201"),
    "a negative offset": (view().replace(b"tQK\x00", b"tQJ\xff\xff\xff\xff"), "an offset must be a whole number ≥ 0"),
    "a size as text": (view().replace(b"K\x02K\x02\x86", b"X\x01\x00\x00\x002K\x02\x86"), "a size must be a whole num"),
    "a storage of other size": (view().replace(b"K\x04tQ", b"K\x05tQ"), "must hold 5 numbers of 4 bytes, got 16 bytes"),
    "a negated view": (view().replace(b")RtRu", b")R}X\x03\x00\x00\x00neg\x88stRu"), "more than a view of numbers"),
    "three sizes, two strides": (view().replace(b"K\x02K\x02\x86", b"K\x02K\x01K\x02\x87"), "more than a view|damaged"),
    "a missing storage": (view().replace(b"\x01\x00\x00\x000X", b"\x01\x00\x00\x007X"), "'w/data/7' is missing"),
    "a storage elsewhere": (
        view().replace(b"X\x01\x00\x00\x000X", b"X\x0e\x00\x00\x00../../../etc/pX"),
        "'w/data/../../../etc/p' is missing",
    ),
}


@pytest.mark.parametrize("name", BAD_VIEWS)
def test_views_that_leave_their_storage_are_refused(name: str, tmp_path: Path) -> None:
    program, message = BAD_VIEWS[name]
    with pytest.raises(ValueError, match=message):
        Network.load(as_zip(program, tmp_path), "mlp")


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_storage_of_another_size_names_its_entry(size: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.pth", view(), {"0": bytes(size)})
    with pytest.raises(ValueError, match=rf"w.pth: entry '0.weight': .* 4 numbers of 4 bytes, got {size} bytes$"):
        Network.load(path, "mlp")


def test_members_said_to_lie_before_the_file_are_damage(tmp_path: Path) -> None:
    path = as_zip(view(), tmp_path)
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x05\x06") + 16  # where the directory is said to begin
    content[directory : directory + 4] = struct.pack("<I", 1 << 30)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w.pth: not a state dict: its zip archive is damaged: "):
        Network.load(path, "mlp")


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Many names for one storage, deflated zeros, a memo index of billions, tuples of tuples."""
    count = b"J\x40\x0d\x03\x00"  # 200,000
    tensor = view(stride=1).replace(b"K\x04tQ", count + b"tQ").replace(b"K\x02K\x02\x86", count + b"K\x01\x86")
    tensor = tensor[tensor.index(b"c") : tensor.rindex(b"u.")]
    entries = (b"X\x0c\x00\x00\x00%05d.weight" % k + tensor for k in range(900))
    path = zipped(tmp_path / "many.pth", b"\x80\x02}(" + b"".join(entries) + b"u.", {"0": bytes(800_000)})
    with pytest.raises(ValueError, match="show the same numbers again and again"):
        Network.load(path, "mlp")
    with pytest.raises(ValueError, match="must not be compressed"):
        Network.load(zipped(tmp_path / "z.pth", view(), {"0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED), "mlp")
    assert read_pickle(io.BytesIO(b"\x80\x02}r\xff\xff\xff\xff.")) == {}
    nested = b"\x80\x02)" + b"q\x00h\x00\x86" * 60  # 2**60 places
    with pytest.raises(ValueError, match="got tuple"):
        Network.load(as_zip(b"\x80\x02}X\x01\x00\x00\x00w" + nested[2:] + b"s.", tmp_path), "mlp")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = as_zip(view(), tmp_path)
    content = path.read_bytes()
    place = content.index(NUMBERS.tobytes())
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(ValueError, match=r"w\.pth: not a state dict: its zip archive is damaged: Bad CRC-32"):
        Network.load(path, "mlp")


def test_every_cut_of_a_file_is_refused_or_whole(tmp_path: Path) -> None:
    for write in (as_zip, as_stream):
        content = write(view(), tmp_path).read_bytes()
        for end in range(0, len(content), 7):
            (tmp_path / "cut.pth").write_bytes(content[:end])
            with pytest.raises(ValueError, match=r"cut\.pth: not a state dict"):
                Network.load(tmp_path / "cut.pth", "mlp")


def test_a_program_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.networks.importers.pickled_tensors.LONGEST_PROGRAM", 100)
    with pytest.raises(PickleError, match="at most 100 bytes"):
        read_pickle(io.BytesIO(b"\x80\x02]" + b"N" * 200 + b"."))


def test_opcodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen million of one byte each would take half a minute."""
    monkeypatch.setattr("toolkit.networks.importers.pickled_tensors.MOST_STEPS", 50)
    assert read_pickle(io.BytesIO(b"\x80\x02]" + b"Na" * 20 + b".")) == [None] * 20
    with pytest.raises(PickleError, match="at most 50 opcodes"):
        read_pickle(io.BytesIO(b"\x80\x02]" + b"Na" * 25 + b"."))


def test_lists_and_numbers_are_pickles_own() -> None:
    value = {"a": [1, -5, 2**40, 1.5, None, True, ("x", b"y", ())], "b": {"c": [[]]}}
    for protocol in (2, 3, 4, 5):
        assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == {
            **value, "a": [*value["a"][:-1], ("x", b"y" if protocol > 2 else None, ())]
        }  # fmt: skip
    assert StoredTensor.check  # what a state dict holds instead of torch's tensors
