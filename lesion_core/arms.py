"""Which arms does a sweep compare, what do they differ by, and what do they share?  Without torch.

An arm is a loss and the settings that its networks are trained with.  sweep.json says the settings
of a trial where they are not the sweep's own; what an arm is called follows from all of them, so
it is computed on reading, here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lesion_core.settings import EVALUATION, NNUNET_MOMENTUM, READ_BY, TrainSettings, reads

if TYPE_CHECKING:
    from lesion_core.losses import Loss

WEIGHTS = frozenset(("network", "filters"))
"""Settings by which networks begin with other weights."""
BATCHES = frozenset(
    ("batch_size", "patch_size", "stride", "flip", "augment", "background_windows")
)  # fmt: skip
"""Settings by which networks see other batches."""
NEITHER = frozenset(
    (
        "epochs", "learning_rate", "precision", "optimiser", "schedule", "warmup_epochs",
        "momentum", "weight_decay", "clip_norm", "threshold", "min_lesion_mm3", "deterministic",
        *EVALUATION,
    )
)  # fmt: skip
"""Settings that leave initial weights and batches as they are."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things that a sweep compares: ``--arms my_arms.py:ARMS`` names a list of them."""

    loss: str | Loss = "xent"
    """A loss, or its name as of ``--losses``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainSettings` that are not as the flags say."""
    label: str | None = None
    """What reports call it; none: its loss and what it differs by."""


# ------------------------------------------------------------------------------------- what differs
def complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings (`TrainSettings.to_dict`) with later fields that are absent at their default.

    Nothing is checked, and a field that this release does not know stays.
    """
    return _DEFAULTS | {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }


_DEFAULTS = {f.name: f.default for f in fields(TrainSettings) if f.default is not MISSING}


def differing(settings: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by which complete settings differ from others, as plain JSON values."""
    nothing = object()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if value != base.get(name, nothing)
    }


def settings_of(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a trial, given its row of sweep.json and the ``settings`` there."""
    return complete({**base, **(row.get("settings") or {})})


def asked_rows(meta: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """sweep.json's rows by name, each with all its settings: what trial.json must agree with."""
    rows = {row["name"]: dict(row) for row in meta["trials"]}
    if meta.get("settings"):
        for row in rows.values():
            row["settings"] = settings_of(row, meta["settings"])
    return rows


# ------------------------------------------------------------------------------------ what they are
@dataclass(frozen=True)
class Arms:
    """The arms of a sweep, in the order in which their first trials were asked for."""

    label_of: dict[str, str]
    """Label by name of the trial."""
    losses: dict[str, str]
    """Label of the loss, by arm."""
    settings: dict[str, dict[str, Any]]
    """All settings, by arm."""
    varied: tuple[str, ...]
    """Settings that are not the same in all of them."""

    @property
    def labels(self) -> list[str]:
        """What they are called."""
        return list(self.losses)

    @property
    def short_names(self) -> dict[str, str]:
        """What arms are called where it is said once how they differ, by label: themselves, or
        without what all share.

        That is the loss, if there is one; else the names of the settings, where the label of every
        arm gives each of them a value.
        """
        losses = dict.fromkeys(self.losses.values())
        names = {label: label for label in self.labels}
        if self.varied and len(losses) == 1:
            names = {label: label.removeprefix(f"{next(iter(losses))}, ") for label in names}
        elif self.varied and all(label == ", ".join(self._parts(label)) for label in names):
            names = {label: ", ".join(self._parts(label, briefly=True)) for label in names}
        return names if len(set(names.values())) == len(names) else {each: each for each in names}

    def _parts(self, label: str, briefly: bool = False) -> list[str]:
        """An arm's loss and settings as its label has them, if nobody gave it one; ``briefly``
        without names of settings, but where a value such as true says nothing by itself."""
        own = [(name, self.settings[label].get(name)) for name in self.varied]
        return [
            self.losses[label],
            *(
                worded(value)
                if briefly and not isinstance(value, bool | None)
                else f"{name} {worded(value)}"
                for name, value in own
            ),
        ]

    @property
    def factors(self) -> tuple[str, ...]:
        """What they differ by: ``loss``, and settings; not those by which they differ only because
        some have no use for them."""
        own = [n for n in self.varied if not _is_one_where_read(n, list(self.settings.values()))]
        return ("loss",) * (len(set(self.losses.values())) > 1) + tuple(own)

    def levels(self, label: str) -> dict[str, str]:
        """What an arm has of every factor, in words."""
        own = {"loss": self.losses[label]} | self.settings[label]
        return {name: worded(own.get(name)) for name in self.factors}

    def values(self, name: str) -> list[str]:
        """The values of a setting in all arms that have a use for it, in words, each once."""
        having = [each for each in self.settings.values() if _has_use(name, each)]
        return list(dict.fromkeys(worded(each.get(name)) for each in having))

    def sharing(self, a: str, b: str) -> Sharing:
        """What two arms of a (seed, fold) share."""
        return sharing(self.settings.get(a, {}), self.settings.get(b, {}))

    @property
    def share_all(self) -> bool:
        """Whether all arms of a (seed, fold) begin with the same weights and see the same
        batches."""
        first, *others = self.labels or [""]
        return all(self.sharing(first, other) == Sharing(True, True) for other in others)


def arms_of(meta: Mapping[str, Any]) -> Arms:
    """The arms of a sweep, given sweep.json.

    Where only losses differ an arm is called as its loss; else its label also says the settings
    that are not the same in all trials, or it has a label of its own.

    >>> base = TrainSettings().to_dict()
    >>> rows = [{"name": "a", "loss": "xent"}]
    >>> rows.append({"name": "b", "loss": "xent", "settings": {"learning_rate": 3e-4}})
    >>> arms_of({"settings": base, "trials": rows}).labels
    ['xent, learning_rate 0.0001', 'xent, learning_rate 0.0003']
    """
    base = meta.get("settings") or {}
    known: dict[str, dict[str, Any]] = {}
    keys: dict[str, tuple[str, str]] = {}
    for row in meta["trials"]:
        own = json.dumps(row.get("settings") or {}, sort_keys=True)
        if own not in known:
            known[own] = settings_of(row, base)
        keys[row["name"]] = (str(row.get("loss")), own)
    varied = _varied(known.values())
    same: dict[str, str] = {}
    for own, settings in known.items():  # the same settings may be said in several ways
        same[own] = json.dumps([worded(settings.get(name)) for name in varied])
    own_labels = {row["name"]: row["label"] for row in meta["trials"] if row.get("label")}
    by_arm: dict[tuple[str, str], str] = {}
    losses: dict[str, str] = {}
    settings_by: dict[str, dict[str, Any]] = {}
    given: dict[tuple[str, str], str] = {}
    for name, (loss, own) in keys.items():
        if name in own_labels:
            given.setdefault((loss, same[own]), own_labels[name])
    label_of = {}
    for name, (loss, own) in keys.items():
        arm = (loss, same[own])
        if arm not in by_arm:
            wanted = given.get(arm) or ", ".join([loss, *_said(known[own], varied)])
            label, number = wanted, 1
            while label in losses:  # only a folder that somebody made up has two alike
                number += 1
                label = f"{wanted} ({number})"
            by_arm[arm], losses[label], settings_by[label] = label, loss, known[own]
        label_of[name] = by_arm[arm]
    return Arms(label_of, losses, settings_by, varied)


def worded(value: object) -> str:
    """A value of a setting as labels and flags write it.

    >>> worded(3e-4), worded((8, 16, 32)), worded(True), worded(None)
    ('0.0003', '8x16x32', 'true', 'none')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list | tuple):
        return "x".join(map(worded, value))
    return str(value)


def _varied(known: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Fields that are not the same in all settings; not those that only follow another one, and
    not what trials are evaluated on, by which no training differs."""
    known = list(known)
    names = dict.fromkeys(name for settings in known for name in settings)
    varied = [
        name
        for name in names
        if name not in EVALUATION and len({worded(each.get(name)) for each in known}) > 1
    ]
    for name, (other, follows) in _FOLLOW.items():
        if other in varied and all(follows(each) for each in known):
            varied = [each for each in varied if each != name]
    return tuple(each for each in varied if each in _FOLLOW or not _is_one_where_read(each, known))


def _is_one_where_read(name: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting that only some choices of another one read has one value in all of them."""
    if name not in READ_BY:
        return False
    return len({worded(each.get(name)) for each in known if _has_use(name, each)}) < 2


def _has_use(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a training of these settings, which may be anybody's, reads this one."""
    try:
        return name not in READ_BY or reads(name, str(settings.get(READ_BY[name])))
    except ValueError:
        return True


def _said(settings: Mapping[str, Any], varied: Iterable[str]) -> list[str]:
    """What a label says of settings: those that vary, but for what the arm has no use for."""
    return [f"{name} {worded(settings.get(name))}" for name in varied if _has_use(name, settings)]


def _overlap_by_half(settings: Mapping[str, Any]) -> bool:
    size = settings.get("patch_size")
    return type(size) is int and settings.get("stride") == max(1, size // 2)


def _has_usual_momentum(settings: Mapping[str, Any]) -> bool:
    usual = NNUNET_MOMENTUM if settings.get("optimiser") == "sgd" else None
    return settings.get("momentum") == usual


_FOLLOW = {
    "stride": ("patch_size", _overlap_by_half),
    "momentum": ("optimiser", _has_usual_momentum),
}
"""Settings that have their value from another one where nobody gives one, and whether they do."""


# ---------------------------------------------------------------------------------- what they share
@dataclass(frozen=True)
class Sharing:
    """What two trainings of the same (seed, fold) have in common."""

    weights: bool
    """The same initial weights."""
    batches: bool
    """The same patches in the same batches."""

    @property
    def in_words(self) -> str:
        """What is shared.

        >>> Sharing(True, False).in_words
        'weights'
        """
        shared = [name for name in ("weights", "batches") if getattr(self, name)]
        return " and ".join(shared) or "nothing"


def sharing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Sharing:
    """What two trainings of the same (seed, fold) share, given all their settings.

    Weights and batch order come from seed and fold alone, so networks of one form begin alike, and
    patches that are cut and stacked alike come in the same batches.
    """
    a, b = complete(a), complete(b)
    differ = {name for name in a | b if a.get(name) != b.get(name)}
    return Sharing(weights=not differ & WEIGHTS, batches=not differ & BATCHES)
