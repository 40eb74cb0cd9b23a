"""Trained networks as files that other programs run: MONAI bundle, ONNX, TorchScript.

`together.py` makes one network of several, `formats.py` its files, `described.py` says what a
stranger must know to use it, `bundle.py` and `in_bundle.py` are the MONAI bundle, `card.py` is the
model card, `folder.py` puts everything in its place.
"""
