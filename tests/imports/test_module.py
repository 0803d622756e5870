"""A module that was trained elsewhere is served as it answers itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrec_export.clients.python import Client
from seqrec_export.contract import SCORE_TOLERANCE, Graph
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.imports.module import import_module
from seqrec_export.models import wire
from seqrec_export.nn.ragged import Ragged
from seqrec_export.repository.publish import publish
from seqrec_export.training.run import load
from seqrec_export.verification.gate import refused, verify
from support.served import LOWEST, serving

ITEMS = [f"item {number}" for number in range(60)]
WINDOW, DIM, TOP_K = 8, 6, 5
HISTORIES = [
    ["item 3"],
    ["item 7", "item 7", "item 1"],
    ["item 5", "nobody knows it", "item 9", ""],
    [f"item {number}" for number in range(30)],
]


class Sums(nn.Module):
    """Scores by the sum of what came, which knows at which place an event stands."""

    def __init__(self, rows: int, output: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.items = nn.Embedding(rows, DIM, padding_idx=0)
        self.places = nn.Parameter(torch.rand(WINDOW, 1))
        self.output = output

    def forward(self, items: Tensor, lengths: Tensor | None = None) -> Tensor:
        states = (self.items(items) * self.places).cumsum(dim=1)
        if self.output == "every step":
            return states @ self.items.weight.T
        if lengths is None:
            return states[:, -1] @ self.items.weight.T
        last = states.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, DIM))[:, 0]
        return last @ self.items.weight.T


def own_scores(net: Sums, history: list[str], padding: str, lengths: bool) -> np.ndarray:
    """What the module itself says of each item, asked as its owner would."""
    rows = [ITEMS.index(item) + 1 for item in history if item in ITEMS][-WINDOW:]
    empty = [0] * (WINDOW - len(rows))
    asked = torch.tensor([rows + empty if padding == "right" else empty + rows])
    with torch.inference_mode():
        scores = net(asked, torch.tensor([len(rows)])) if lengths else net(asked)
        if scores.dim() == 3:
            scores = scores[:, len(rows) - 1] if padding == "right" else scores[:, -1]
    return scores[0, 1 : 1 + len(ITEMS)].numpy()


def padded(histories: list[list[str]]) -> np.ndarray:
    width = max(map(len, histories))
    return np.array([[*history, *[""] * (width - len(history))] for history in histories], object)


def answered(graph: Graph, run: Any, *inputs: np.ndarray) -> list[Tensor]:
    tensors = [torch.from_numpy(run.vocabularies["items"].encode(values)) for values in inputs]
    with torch.inference_mode():
        return list(graph.function(run.net, *map(Ragged.of, tensors)))


@pytest.mark.parametrize(
    ("padding", "lengths", "output"),
    [("left", False, "last"), ("right", True, "last"), ("right", False, "every step")],
)
def test_a_module_is_called_as_its_owner_calls_it(
    padding: Any, lengths: bool, output: str, tmp_path: Path
) -> None:
    net = Sums(len(ITEMS) + 3, output)
    run = import_module(
        net,
        tmp_path / "sums",
        name="sums",
        items=ITEMS,
        window=WINDOW,
        padding=padding,
        lengths=lengths,
    )
    scorer = run.model.graphs(run.config, TOP_K)["sums_scorer"]
    candidates = np.array([ITEMS] * len(HISTORIES), object)

    scores, known = answered(scorer, run, padded(HISTORIES), candidates)

    expected = [own_scores(net, history, padding, lengths) for history in HISTORIES]
    np.testing.assert_allclose(scores.view(len(HISTORIES), -1), expected, atol=1e-6)
    assert known[:, 0].tolist() == [1, 3, 2, 30]

    wide = run.model.graphs(run.config, len(ITEMS) + NUM_RESERVED + 4)["sums"]
    items, scores, _ = answered(wide, run, padded(HISTORIES))
    for row, history in enumerate(HISTORIES):
        count = len(ITEMS) - len({*history} & {*ITEMS})
        assert (items[row] >= NUM_RESERVED).tolist() == [i < count for i in range(len(items[row]))]
        assert (scores[row, count:] == LOWEST).all()


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    net = Sums(len(ITEMS) + 1, "last")
    run = import_module(
        net,
        tmp_path_factory.mktemp("imported") / "sums",
        name="sums",
        items=ITEMS,
        window=WINDOW,
        popularity=[float(number % 17) for number in range(len(ITEMS))],
        held_out=[{"history_item_ids": ["item 4", "item 2"], "candidate_ids": ["item 9"]}],
        source="a test",
    )
    return export_run(run, TOP_K)


def test_it_goes_through_the_gate_and_is_served(sums: Exported, tmp_path: Path) -> None:
    verdicts = verify(sums)
    assert not refused(sums, verdicts)
    assert "held-out rows" in str(verdicts["sums"].as_dict())
    page = (sums.run.path / "report.html").read_text()
    assert "It was not trained here." in page
    publish(sums, tmp_path / "models")

    with serving(tmp_path / "models") as url, Client(url) as client:
        rows = client.call("sums", [{"history_item_ids": history} for history in HISTORIES])
        (cold,) = client.call("sums", [{"history_item_ids": ["nobody knows it"]}])

    for row, history in zip(rows, HISTORIES, strict=True):
        scores = own_scores(sums.run.net.net, history, "left", False)
        scores[[ITEMS.index(item) for item in history if item in ITEMS]] = -np.inf
        best = np.argsort(-scores)[:TOP_K]
        assert row["item_ids"] == [ITEMS[i] for i in best]
        np.testing.assert_allclose(row["scores"], scores[best], atol=1e-5)
    assert cold["scores"].tolist() == [16.0, 16.0, 16.0, 15.0, 15.0]


def test_its_folder_does_not_hold_its_code(sums: Exported) -> None:
    with pytest.raises(SeqrecError, match=r"'sums', a module that .* call import_module again"):
        load(sums.run.path)


def test_a_run_of_another_model_is_never_replaced(sums: Exported, tmp_path: Path) -> None:
    shutil.copytree(sums.run.path, tmp_path / "sums")
    before = (tmp_path / "sums" / "weights.safetensors").read_bytes()
    net = Sums(len(ITEMS) + 1, "last")
    told: dict[str, Any] = {"items": ITEMS, "window": WINDOW}
    with pytest.raises(SeqrecError, match="holds a run of sums, not of other"):
        import_module(net, tmp_path / "sums", name="other", **told)
    assert (tmp_path / "sums" / "weights.safetensors").read_bytes() == before
    import_module(net, tmp_path / "sums", name="sums", **told)


def test_graphs_of_ones_own(tmp_path: Path) -> None:
    """A module that takes a number and rates what it is given."""

    class Rater(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.worth = nn.Parameter(torch.arange(len(ITEMS) + 2.0))

    def rate(net: Rater, age: Tensor, candidates: Ragged) -> tuple[Tensor, ...]:
        asked = torch.nan_to_num(age[:, 0]).clamp(0, 100)
        return (net.worth[candidates.values] * asked[candidates.rows] / 100,)

    def graphs(top_k: int) -> dict[str, Graph]:
        made = Graph(
            name="rater",
            meaning="what a candidate is worth at an age",
            function=rate,
            inputs=(wire.AGE, wire.CANDIDATES),
            outputs=(wire.SCORES,),
            tolerance=SCORE_TOLERANCE,
        )
        return {"rater": made}

    run = import_module(Rater(), tmp_path / "rater", name="rater", items=ITEMS, graphs=graphs)
    exported = export_run(run, 1)
    assert not refused(exported, verify(exported))


class Raises(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        raise RuntimeError("not today")


class OnlyFloat32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(len(ITEMS) + 1, DIM)

    def forward(self, items: Tensor) -> Tensor:
        return self.items(items).sum(dim=1) @ torch.ones(DIM, len(ITEMS) + 1)


class GivesNan(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return torch.full((len(items), len(ITEMS) + 1), torch.nan)


class GivesWholeNumbers(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return torch.zeros(len(items), len(ITEMS) + 1, dtype=torch.int64)


class LooksUp(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return {}["scores"]


class GivesNothing(nn.Module):
    def forward(self, items: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Raises, "float32: not today"),
        (OnlyFloat32, "in float64: "),
        (GivesNan, "not finite"),
        (GivesNothing, "gives NoneType"),
        (GivesWholeNumbers, "scores, floats"),
        (LooksUp, "in float32: 'scores'"),
        (
            lambda: Sums(len(ITEMS), "last"),
            r"gives \(2, 60\); it has to give scores, .* of 61",
        ),
    ],
)
def test_a_module_that_does_not_do_is_refused_before_anything_is_written(
    net: Callable[[], nn.Module], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SeqrecError, match=said):
        import_module(net(), tmp_path / "runs" / "x", name="x", items=ITEMS, window=WINDOW)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"items": ["a", "b", "a"]}, "'a' is in items twice"),
        ({"items": ["a", 2]}, "2 at place 1 of items"),
        ({"items": ["a", ""]}, "'' at place 1"),
        ({"items": []}, "items holds no ids"),
        ({"popularity": [1.0]}, r"popularity has the shape \(1,\)"),
        ({"graphs": lambda top_k: {}}, "one has to be called sums"),
        ({"name": "a/b"}, "a/b"),
        ({"window": 0}, "window is 0"),
        ({"name": "sasrec"}, "sasrec is a model of seqrec-export"),
        ({"tolerance": 1e-3}, "tolerance is 0.001; give a Tolerance"),
        ({"items": "abc"}, "items is one text"),
        ({"held_out": {"history_item_ids": ["a"]}}, "held_out is one request"),
        ({"padding": "middle"}, "padding is 'middle'"),
        ({"first_row": -1}, "first_row is -1"),
        ({"padding_row": 0.5}, "padding_row is 0.5"),
        ({"popularity": ["much"] * len(ITEMS)}, "popularity is not a list of numbers"),
        ({"held_out": [{"history": ["a"]}]}, r"held_out\[0\] gives history; every row gives"),
        ({"held_out": [{"history_item_ids": [1193]}]}, "give a list of texts"),
        ({"held_out": [{"history_item_ids": "a"}]}, "give a list of texts"),
        (
            {"held_out": [{"history_item_ids": ["a"]}, {"candidate_ids": ["a"]}]},
            r"held_out\[1\] gives candidate_ids",
        ),
    ],
)
def test_what_it_is_told_is_checked(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    told: dict[str, Any] = {"name": "sums", "items": ITEMS, "window": WINDOW} | wrong
    with pytest.raises(SeqrecError, match=said):
        import_module(Sums(len(ITEMS) + 1, "last"), tmp_path / "sums", **told)
    assert not (tmp_path / "sums").exists()


def test_the_module_of_the_caller_stays_as_it_was(tmp_path: Path) -> None:
    net = Sums(len(ITEMS) + 1, "last").train().double()
    import_module(net, tmp_path / "sums", name="sums", items=ITEMS, window=WINDOW)
    assert net.training
    assert net.places.dtype == torch.float64


@pytest.mark.parametrize("net", [Sums, len])
def test_what_is_no_module_is_refused_by_name(net: Any, tmp_path: Path) -> None:
    with pytest.raises(SeqrecError, match=f"found {net.__name__}; give an nn.Module"):
        import_module(net, tmp_path / "x", name="x", items=ITEMS)


def test_what_is_not_a_run_is_never_replaced(tmp_path: Path) -> None:
    script, folder = tmp_path / "train.py", tmp_path / "papers"
    script.write_text("precious")
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    for path, said in ((script, "is not a folder"), (folder, "holds thesis.tex and is not a run")):
        with pytest.raises(SeqrecError, match=said):
            import_module(Sums(len(ITEMS) + 1, "last"), path, name="x", items=ITEMS, window=WINDOW)
    assert script.read_text() == (folder / "thesis.tex").read_text() == "precious"
