"""A file of weights from anybody is read as what it says it is, or refused in one line."""

import io
import pickle
import zipfile

import pytest
import torch

from lesion_core.predict import load_network
from lesion_core.unet import UNet3d


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def model(**changes) -> dict:
    weights = UNet3d(1, (8, 16)).state_dict()
    return {"in_channels": 1, "filters": [8, 16], "weights": weights} | changes


def wide(weight) -> dict:
    """A network of 7 GB, of such weights."""
    with torch.device("meta"):
        shapes = {name: w.shape for name, w in UNet3d(1, (8000, 8000)).state_dict().items()}
    weights = {name: weight(shape) for name, shape in shapes.items()}
    return model(filters=[8000, 8000], weights=weights)


def compressed(content: bytes) -> bytes:
    """The same zip, its parts compressed, with a hundred megabytes of zeros beside them."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        new.writestr("archive/data/bomb", bytes(10**8))
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return print, ("run",)


BAD = {
    "nothing": lambda: b"",
    "text": lambda: b"<html>404</html>",
    "cut": lambda: saved(model())[:-100],
    "a zip bomb": lambda: compressed(saved(model())),
    "code": lambda: saved({"in_channels": Evil()}),
    "a bare pickle": lambda: pickle.dumps(Evil()),
    "a list": lambda: saved([1]),
    "no filters": lambda: saved({"weights": {}}),
    "a network of terabytes": lambda: saved(model(filters=[65536, 65536, 65536])),
    "a thousand levels": lambda: saved(model(filters=[8] * 1000)),
    "filters of text": lambda: saved(model(filters="ab")),
    "weights of another network": lambda: saved(model(in_channels=2)),
    "one weight less": lambda: saved(model(weights={})),
    "gigabytes that are all one number": lambda: saved(wide(torch.zeros(1).expand)),
    "gigabytes without values": lambda: saved(
        wide(lambda shape: torch.empty(shape, device="meta"))
    ),
    "sparse weights": lambda: saved(wide(lambda shape: torch.zeros(1).to_sparse())),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_network_is_one_line(bad, capsys):
    with pytest.raises(ValueError, match=r"^model\.pt: ") as error:
        load_network(BAD[bad]())
    assert "\n" not in str(error.value) and "run" not in capsys.readouterr().out


def test_lists_that_hold_each_other_are_gone_through_once():
    many: list = []
    for _ in range(64):
        many = [many, many]
    with pytest.raises(ValueError, match=r"holds no network"):
        load_network(saved({"in_channels": 1, "filters": many, "weights": {}}))


def test_a_network_is_read_back():
    network = load_network(saved(model()))
    assert sum(weight.numel() for weight in network.parameters()) > 0
