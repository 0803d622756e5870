"""What is not followed is refused by name; hostile and damaged checkpoints do nothing."""

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec_export.errors import SeqrecError
from seqrec_export.imports.libraries import import_recbole, import_rectools
from seqrec_export.training.run import Run
from support.foreign import (
    DIM,
    ITEMS,
    WINDOW,
    RecBoleGRU4Rec,
    RecBoleSASRec,
    RecTools,
    random_weights,
    recbole_checkpoint,
    rectools_checkpoint,
    saved_by_rectools,
    write,
)
from support.toys import toy

RECTOOLS = random_weights(RecTools(categories=True))
SASREC, GRU4REC = random_weights(RecBoleSASRec()), random_weights(RecBoleGRU4Rec())


def rectools(folder: Path, content: bytes) -> Run:
    return import_rectools(write(folder, "checkpoint", content), folder / "run")


def recbole(folder: Path, content: bytes) -> Run:
    items = write(folder, "ids.json", json.dumps(ITEMS).encode())
    return import_recbole(write(folder, "checkpoint", content), folder / "run", items=items)


OTHER = "somebody.elses.Class"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *[
            ({f"{name}_type": OTHER}, f"{name}_type = '{OTHER}'")
            for name in (
                "data_preparator",
                "transformer_layers",
                "lightning_module",
                "similarity_module",
                "backbone",
                "pos_encoding",
                "item_net_constructor",
            )
        ],
        ({"cls": "BERT4RecModel"}, "RecTools BERT4RecModel with cls"),
        ({"item_net_block_types": [OTHER]}, f"item_net_block_types {OTHER}"),
        ({"item_net_block_types": None}, "item_net_block_types None"),
        ({"backbone_kwargs": {"gates": 2}}, "backbone_kwargs = "),
        ({"data_preparator_kwargs": {"add_unix_ts": True}}, "add_unix_ts in data_preparator"),
        ({"data_preparator_kwargs": {"extra_cols": ["x"]}}, "extra_cols in data_preparator"),
        ({"similarity_module_kwargs": {"distance": "euclid"}}, "the distance 'euclid'"),
        ({"pos_encoding_kwargs": 3}, "pos_encoding_kwargs = 3"),
        ({"use_pos_emb": "yes"}, "use_pos_emb = 'yes'"),
        ({"n_blocks": 3}, "n_blocks = 3 and weights of 2"),
        ({"n_heads": 5}, f"n_heads = 5 for vectors of {DIM}"),
        ({"n_factors": 0}, "n_factors = 0"),
        ({"n_factors": 60_000}, r"instead of \(32, 60000\)"),
        ({"session_max_len": WINDOW + 1}, r"positions.weight has the shape \(6, 12\)"),
    ],
)
def test_a_setting_of_rectools_that_is_not_followed(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SeqrecError, match=said):
        rectools(tmp_path, rectools_checkpoint(RECTOOLS, settings))
    assert not (tmp_path / "run").exists()


BIAS = "torch_model.transformer_layers.transformer_blocks.0.multi_head_attn.in_proj_bias"
BAG = "torch_model.item_model.item_net_blocks.1"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ids": ITEMS[1:]}, "29 item ids and vectors of 30"),
        ({"ids": [1.5, *ITEMS[1:]]}, "neither whole numbers nor texts"),
        ({"ids": [1, "1", *ITEMS[2:]]}, "such as 1 and '1'"),
        ({"ids": ["", *ITEMS[1:]]}, "'' at place 0"),
        ({"hyper_parameters": {}}, "model_config is missing"),
        ({"state_dict": {}}, "n_blocks = 2 and weights of 0"),
        ({"state_dict": 3}, "state_dict is missing or no dict"),
        ({"weights": {"torch_model.gate": torch.zeros(2)}}, "the weights gate"),
        ({"weights": {BIAS: torch.zeros(7)}}, r"in_proj_bias of the shape \(7,\)"),
        ({"weights": {BIAS: "text"}}, "a name, setting or weight is none"),
        ({"weights": {BIAS: torch.full((3 * DIM,), torch.nan)}}, "the training diverged"),
        ({"weights": {f"{BAG}.input_lengths": torch.full((31,), 2**40)}}, "item by item"),
        ({"weights": {f"{BAG}.offsets": torch.ones(31, dtype=torch.int64)}}, "item by item"),
        ({"weights": {f"{BAG}.emb_bag_inputs": torch.full((30,), 99)}}, "one of the 4 vectors"),
        ({"weights": {f"{BAG}.extra": torch.zeros(2)}}, "an item net of"),
    ],
)
def test_a_checkpoint_of_rectools_that_does_not_fit(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SeqrecError, match=said):
        rectools(tmp_path, rectools_checkpoint(RECTOOLS, **changed))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (saved_by_rectools(b"", "bert4rec.BERT4RecModel"), "bert4rec.BERT4RecModel, not RecTools'"),
        (pickle.dumps({"epochs": 3}, 5), "holds no fitted model"),
        (b"", "neither saved by RecTools nor"),
        (b"{}", "neither saved by RecTools nor"),
        (recbole_checkpoint(SASREC), "damaged, or of another library: Unsupported operand"),
    ],
)
def test_what_is_no_checkpoint_of_rectools(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(SeqrecError, match=said):
        rectools(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (recbole_checkpoint(SASREC, {"hidden_act": "elu"}), "hidden_act = 'elu'"),
        (recbole_checkpoint(SASREC, {"loss_type": "XX"}), "loss_type = 'XX'"),
        (recbole_checkpoint(SASREC, {"layer_norm_eps": 0}), "layer_norm_eps = 0"),
        (recbole_checkpoint(SASREC, {"n_layers": 1}), "n_layers = 1 and weights of 2"),
        (recbole_checkpoint(SASREC, {"inner_size": 99_999}), r"instead of \(99999, 12\)"),
        (recbole_checkpoint(GRU4REC, {"num_layers": 2}), "lacks gru.1"),
        (recbole_checkpoint(GRU4REC, {"hidden_size": 11}), "has the shape"),
        (recbole_checkpoint(GRU4REC, {"MAX_ITEM_LIST_LENGTH": None}), "MAX_ITEM_LIST_LENGTH"),
        (
            recbole_checkpoint(GRU4REC, weights={"gru_layers.bias_ih_l0": torch.zeros(30)}),
            "the weights gru_layers.bias_ih_l0",
        ),
        (recbole_checkpoint(GRU4REC, model="NARM"), "names recbole.*narm.NARM"),
        (recbole_checkpoint(GRU4REC, state_dict={}), "without item_embedding.weight"),
        (recbole_checkpoint(GRU4REC, config={}), "config is missing or no dict"),
        (rectools_checkpoint(RECTOOLS), "config is missing or no dict"),
        (pickle.dumps([1]), "not a checkpoint of torch.save"),
    ],
)
def test_a_checkpoint_of_recbole_that_is_not_followed(
    content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SeqrecError, match=said):
        recbole(tmp_path, content)
    assert not (tmp_path / "run").exists()


EVENTS = "user_id:token\titem_id:token\n" + "".join(f"u\t{item}\n" for item in ITEMS)


@pytest.mark.parametrize(
    ("settings", "events", "said"),
    [
        ({}, EVENTS + "u\tone more\n", "has 31 items after RecBole's filters, the network 30"),
        ({}, "user_id:token\tsku:token\n", "no column item_id; its first line names user_id, sku"),
        ({}, "", "no column user_id, item_id; its first line names none"),
        ({}, "\x80", "cannot be read as RecBole reads it"),
        ({"encoding": "no such"}, EVENTS, "cannot be read as RecBole reads it"),
        ({"field_separator": "::"}, EVENTS, "field_separator = '::'"),
        ({"rm_dup_inter": "first"}, EVENTS, "rm_dup_inter = 'first' changes the numbering"),
        ({"val_interval": {"rating": "[3,inf)"}}, EVENTS, "val_interval = "),
        ({"benchmark_filename": ["part1"]}, EVENTS, "benchmark_filename = "),
        ({"alias_of_item_id": ["items"]}, EVENTS, "alias_of_item_id = "),
        ({"filter_inter_by_user_or_item": 3}, EVENTS, "filter_inter_by_user_or_item = 3"),
        ({"load_col": None}, EVENTS, "load_col = None: other files may hold items too"),
        ({"load_col": {"inter": [], "item": []}}, EVENTS, "load_col = "),
        ({"item_inter_num_interval": "[5,9]"}, EVENTS, r"item_inter_num_interval = '\[5,9\]'"),
    ],
)
def test_ids_of_an_inter_file_that_cannot_be_numbered(
    settings: dict[str, Any], events: str, said: str, tmp_path: Path
) -> None:
    file = write(tmp_path, "checkpoint", recbole_checkpoint(GRU4REC, settings))
    inter = write(tmp_path, "log.inter", events.encode("latin-1"))
    with pytest.raises(SeqrecError, match=said):
        import_recbole(file, tmp_path / "run", inter=inter)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (json.dumps(ITEMS[1:]), "has 29 ids, the network 30 items"),
        (json.dumps([*ITEMS[1:], ITEMS[1]]), "'item 1' is in the catalogue twice"),
        (json.dumps(list(range(len(ITEMS)))), "a list of texts"),
        (json.dumps({"ids": ITEMS}), "a list of texts"),
        ("item 1\nitem 2\n", "holds no JSON"),
    ],
)
def test_ids_of_a_json_file_that_do_not_fit(ids: str, said: str, tmp_path: Path) -> None:
    file = write(tmp_path, "checkpoint", recbole_checkpoint(GRU4REC))
    with pytest.raises(SeqrecError, match=said):
        import_recbole(file, tmp_path / "run", items=write(tmp_path, "ids", ids.encode()))


def test_one_source_of_ids_has_to_be_named(tmp_path: Path) -> None:
    file = write(tmp_path, "checkpoint", recbole_checkpoint(GRU4REC))
    for given in ({}, {"items": file, "inter": file}):
        with pytest.raises(SeqrecError, match="holds no item ids; give either"):
            import_recbole(file, tmp_path / "run", **given)


def test_a_log_of_other_items(tmp_path: Path) -> None:
    file = write(tmp_path, "checkpoint", rectools_checkpoint(RECTOOLS))
    with pytest.raises(SeqrecError, match="no item of toy is in the catalogue"):
        import_rectools(file, tmp_path / "run", log=toy([["a", "b", "c"]]))


class RunsCode:
    """What a pickle calls when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.mark}'",)


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that would write a file, in every place that a checkpoint has for one."""
    evil, found = RunsCode(mark), {}
    for protocol in (0, 2, 4, 5):
        found[f"a pickle, protocol {protocol}"] = pickle.dumps(evil, protocol)
        inside = {"fitted_checkpoint": pickle.dumps(evil, protocol)}
        found[f"in another, protocol {protocol}"] = pickle.dumps(inside, protocol)
        saved = saved_by_rectools(pickle.dumps(evil, protocol))
        found[f"as RecTools saves, protocol {protocol}"] = saved
    for protocol in (2, 4, 5):
        out = io.BytesIO()
        content = {"config": evil, "state_dict": evil, "hyper_parameters": evil}
        torch.save(content, out, pickle_protocol=protocol)
        found[f"of torch.save, protocol {protocol}"] = out.getvalue()
    settings = {"dropout_rate": evil}
    found["a setting of RecTools"] = saved_by_rectools(rectools_checkpoint(RECTOOLS, settings))
    found["a setting of RecBole"] = recbole_checkpoint(SASREC, settings)
    found["an optimizer"] = recbole_checkpoint(SASREC, optimizer=evil)
    for unlisted in (getattr, mark):
        name = f"the name of a {type(unlisted).__name__}"
        found[name] = recbole_checkpoint(SASREC, {"dropout_rate": unlisted})
    return found


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
def test_nothing_of_a_pickle_runs(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "code ran"
    content = hostile(mark)[kind]
    if kind == "a pickle, protocol 0":
        pickle.loads(content)  # it is as hostile as it says
        assert mark.exists()
        mark.unlink()
    for reads in (rectools, recbole):
        with pytest.raises(SeqrecError):
            reads(tmp_path, content)
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def repacked(content: bytes, damage: Callable[[bytearray], bytes]) -> bytes:
    """A checkpoint whose pickle is damaged and whose checksums are right."""
    begin = content.find(b"PK\x03\x04")
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content[begin:])) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            read = old.read(entry)
            pickled = entry.filename.endswith("/data.pkl")
            new.writestr(entry.filename, damage(bytearray(read)) if pickled else read)
    return out.getvalue()


@pytest.mark.parametrize(
    ("reads", "content"),
    [
        (rectools, saved_by_rectools(rectools_checkpoint(RECTOOLS))),
        (recbole, recbole_checkpoint(SASREC)),
        (recbole, recbole_checkpoint(GRU4REC)),
    ],
    ids=["RecTools", "RecBole SASRec", "RecBole GRU4Rec"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_refused_or_a_network(
    reads: Callable[[Path, bytes], Run], content: bytes, tmp_path: Path
) -> None:
    rng, said = random.Random(0), []

    def flipped(data: bytearray) -> bytes:
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    for number in range(240):
        match number % 4:
            case 0:
                damaged = content[: rng.randrange(len(content))]
            case 1:
                damaged = flipped(bytearray(content))
            case _:
                damaged = repacked(content, flipped)
        try:
            run = reads(tmp_path, damaged)
        except SeqrecError as error:
            said.append(str(error))
        else:
            assert len(run.vocabularies["items"].ids) == len(ITEMS)
    assert len(said) > 120
    assert "weights_only" not in " ".join(said)  # PyTorch advises to do without it
