"""What is served after any row of publishes and rollbacks, against a small model of it."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository import publish as publishing
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import rolled_back, served_version, versions
from seqrec_export.repository.rollback import roll_back

GRAPHS = ("caser_encoder", "caser_scorer")


@pytest.fixture(scope="module")
def contents(trained: list[Exported], tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    """The runs with two of their graphs, and hardly a file: a publish takes milliseconds."""
    small = []
    for number, exported in enumerate(trained):
        folder = tmp_path_factory.mktemp("small") / str(number)
        for name in GRAPHS:
            shutil.copytree(exported.folder / name, folder / name)
        graphs = {name: exported.graphs[name] for name in GRAPHS}
        run = replace(exported.run, metrics=MappingProxyType(dict(exported.run.metrics)))
        small.append(replace(exported, run=run, folder=folder, graphs=graphs))
    return small


@dataclass
class Model:
    """What must be served, in the simplest words."""

    good: dict[int, int] = field(default_factory=dict)  # version -> content, not taken back
    rejected: dict[int, int] = field(default_factory=dict)
    given: int = 0

    def publish(self, content: int, keep: int) -> None:
        if not self.good or self.good[max(self.good)] != content:
            self.given += 1
            self.good[self.given] = content
        gone = sorted(self.good)[:-keep]
        for version in gone:
            del self.good[version]
        stay = [] if gone else sorted(self.rejected)[-keep:]
        self.rejected = {version: self.rejected[version] for version in stay}

    def roll_back(self, to: int | None) -> bool:
        """False if it is to be refused."""
        if not self.good:
            return False
        if to is None:
            older = sorted(self.good)[:-1]
            if not older:
                return False
            to = older[-1]
        if to in self.rejected:
            self.good[to] = self.rejected.pop(to)
        if to not in self.good:
            return False
        for version in [v for v in self.good if v > to]:
            self.rejected[version] = self.good.pop(version)
        return True


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("back")),
    st.tuples(st.just("to"), st.integers(1, 6)),
)


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEPS, min_size=3, max_size=9))
def test_what_is_served_is_never_what_was_rejected(
    contents: list[Exported], tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]
) -> None:
    place = tmp_path_factory.mktemp("steps") / "repository"
    model = Model()
    publish(contents[0], place)
    model.publish(0, 3)
    for step in steps:
        if step[0] == "publish":
            publish(contents[step[1]], place, keep=step[2])
            model.publish(step[1], step[2])
        else:
            to = step[1] if step[0] == "to" else None
            expected = model.roll_back(to)
            try:
                roll_back(place, "caser", to)
                done = True
            except SeqrecError:
                done = False
            assert done == expected
        for name in GRAPHS:
            assert versions(place / name) == sorted(model.good)
            assert versions(rolled_back(place, name)) == sorted(model.rejected)
            assert served_version(place, name) == max(model.good)
            newest = place / name / str(max(model.good)) / "model.onnx"
            content = contents[model.good[max(model.good)]]
            assert newest.read_bytes() == content.model_file(name).read_bytes()
    shutil.rmtree(place.parent)


def test_back_goes_past_what_was_rejected_before(contents: list[Exported], tmp_path: Path) -> None:
    place = tmp_path / "repository"
    publish(contents[0], place)
    publish(contents[1], place)
    assert roll_back(place, "caser").version == 1
    assert {p.version for p in publish(contents[2], place)} == {3}
    assert roll_back(place, "caser").version == 1
    with pytest.raises(
        SeqrecError, match=r"no sound version older than 1 .*; it has 1, 2, 3; --to"
    ):
        roll_back(place, "caser")
    assert roll_back(place, "caser", 2).version == 2


def test_keep_counts_only_versions_that_can_be_served(
    contents: list[Exported], tmp_path: Path
) -> None:
    place = tmp_path / "repository"
    for number in range(5):  # 2, 4 are rejected; 1, 3, 5 are good
        publish(contents[number % 3], place)
        if number % 2:
            roll_back(place, "caser")
    assert [versions(place / name) for name in GRAPHS] == [[1, 3, 5]] * 2
    assert versions(rolled_back(place, GRAPHS[0])) == [2, 4]
    damaged = place / GRAPHS[0] / "3" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    publish(contents[2], place)  # 3 cannot be served either, so 1 stays
    assert versions(place / GRAPHS[0]) == [1, 3, 5, 6]
    assert served_version(place, GRAPHS[0]) == 6
    publish(contents[0], place)  # now a good one goes, and with it all that is not
    assert versions(place / GRAPHS[0]) == [5, 6, 7]
    assert not versions(rolled_back(place, GRAPHS[0]))


def test_a_number_is_not_given_again_after_somebody_deleted_the_newest(
    contents: list[Exported], tmp_path: Path
) -> None:
    place = tmp_path / "repository"
    publish(contents[0], place)
    publish(contents[1], place)
    for name in GRAPHS:
        shutil.rmtree(place / name / "2")
    assert {p.version for p in publish(contents[2], place)} == {3}
    assert served_version(place, GRAPHS[0]) == 3


def test_nothing_is_left_of_a_publish_that_the_disk_refuses(
    contents: list[Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "repository"
    write_manifest = publishing.write_manifest

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "manifest.json")

    monkeypatch.setattr(publishing, "write_manifest", full)
    with pytest.raises(OSError, match="No space"):
        publish(contents[0], place)
    assert [path.name for path in place.iterdir()] == [".seqrec.lock"]
    monkeypatch.setattr(publishing, "write_manifest", write_manifest)
    assert {p.version for p in publish(contents[0], place)} == {1}
