"""What an attempt at a trial tells the ledger, whose answers are made up here."""

from sweeps.bench.sweep import UNTRACKED, _trials
from sweeps.ledger.contents import described
from sweeps.trials.attempt import attempt


class Told:
    """A ledger that notes what it is told of epochs."""

    def __init__(self):
        self.epochs, self.ended = [], []

    def begin(self, trial, worker):
        nothing_yet = {"checkpoint": None, "epoch": None, "cases": [], "epochs": [], "notes": []}
        return {"state": "go", "attempt": 1} | nothing_yet

    def epoch(self, name, report, attempt):
        self.epochs.append(report)

    def log(self, name, text):
        pass

    def done(self, name, summary, attempt):
        self.ended.append(name)


def test_checkpoints_are_handed_over_every_so_often_and_not_with_the_last_epochs_weights():
    (trial,) = map(described, _trials(1, epochs=4))
    ledger = Told()
    assert attempt(
        trial, lambda: None, ledger, device="cpu", threads=1, tracking=UNTRACKED,
        checkpoint_every=2, run="sweeps.bench.sweep:nothing",
    )  # fmt: skip
    assert ledger.ended == [trial["name"]]
    told = [(report["epoch"], report["checkpoint"]) for report in ledger.epochs]
    assert told == [(0, b"checkpoint"), (1, None), (2, b"checkpoint"), (3, None), (4, None)]
    assert [report["final"] is not None for report in ledger.epochs] == [False] * 4 + [True]
    assert ledger.epochs[-1]["final"]["model"] == b"checkpoint"
