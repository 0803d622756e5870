"""What the compilers say of calls in other languages: wrong inputs, and docs/calling.md.

In the folder of a client that was built.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLING = Path(__file__).parents[2] / "docs" / "calling.md"


@dataclass(frozen=True)
class Compiler:
    """How a language's code is compiled, and what is wrong there."""

    path: str  # of the code
    command: tuple[str, ...]
    file: str  # what stands around the code
    call: str  # what stands around what docs/calling.md has
    right: tuple[str, ...]  # a line each
    wrong: tuple[str, ...]


_UNUSED = ("--noUnusedLocals", "false", "--noUnusedParameters", "false")
COMPILERS = {
    "node": Compiler(
        path="src/compiled.ts",
        command=("node_modules/.bin/tsc", "--noEmit", *_UNUSED),
        file="""import { IMPORTED } from "./index.js";
CODE
""",
        call="export async function callNUMBER(outOfStock: string[]) {\nCODE\n}",
        right=(
            'export const aNUMBER: SasrecRow = { historyItemIds: ["1"] };',
            'export const aNUMBER: SasrecFilters = { where: { garmentGroupName: ["1"] } };',
            'export const aNUMBER: TwoTowerFilters = { exclude: ["1"], allow: ["2"] };',
        ),
        wrong=(
            "export const aNUMBER: SasrecRow = { historyItemIds: [1] };",
            'export const aNUMBER: SasrecRow = { historyItemIds: "1" };',
            'export const aNUMBER: SasrecRow = { history: ["1"] };',
            'export const aNUMBER: SasrecFilters = { where: { colour: ["1"] } };',
            "export const aNUMBER: TwoTowerFilters = { keepSeen: true };",
            "export const aNUMBER: SasrecSimilarFilters = { keepSeen: true };",
        ),
    ),
    "go": Compiler(
        path="cmd/compiled/main.go",
        command=("go", "build", "-gcflags=-e", "-o", "build/compiled", "seqrec/cmd/compiled"),
        file="""package main

import ("context"; "math"; "time"; "seqrec"; "seqrec/models")

var _, _ = math.NaN, time.Now
var _ context.Context
var _ = seqrec.Dial

CODE

func main() {}
""",
        call="""func callNUMBER(ctx context.Context, outOfStock []string) (any, error) {
CODE
    return answer, err
}
""",
        right=(
            'var _ = models.SasrecRow{HistoryItemIds: []string{"1"}}',
            'var _ = models.SasrecWhere{GarmentGroupName: seqrec.OneOf("1")}',
            'var _ = models.TwoTowerFilters{Exclude: []string{"1"}, Allow: seqrec.OneOf("1")}',
        ),
        wrong=(
            "var _ = models.SasrecRow{HistoryItemIds: []int{1}}",
            'var _ = models.SasrecRow{HistoryItemIds: "1"}',
            'var _ = models.SasrecRow{History: []string{"1"}}',
            'var _ = models.SasrecFilters{Where: models.SasrecWhere{Colour: seqrec.OneOf("1")}}',
            "var _ = models.TwoTowerFilters{KeepSeen: true}",
            "var _ = models.SasrecSimilarFilters{KeepSeen: true}",
        ),
    ),
    "java": Compiler(
        path="build/Compiled.java",
        command=("javac", "-proc:none", "-cp", "build/seqrec.jar", "-d", "build", "{path}"),
        file="""import java.time.Duration;
import java.util.List;
import seqrec.*;

class Compiled {
CODE
}
""",
        call="void callNUMBER(List<String> outOfStock) throws Exception {\nCODE\n}",
        right=(
            'Object aNUMBER = new SasrecClient.Row().historyItemIds(List.of("1"));',
            'Object aNUMBER = new SasrecClient.Filter().whereGarmentGroupName(List.of("1"));',
            'Object aNUMBER = new TwoTowerClient.Filter().exclude(List.of("1"));',
        ),
        wrong=(
            "Object aNUMBER = new SasrecClient.Row().historyItemIds(List.of(1));",
            'Object aNUMBER = new SasrecClient.Row().historyItemIds("1");',
            'Object aNUMBER = new SasrecClient.Row().history(List.of("1"));',
            'Object aNUMBER = new SasrecClient.Filter().whereColour(List.of("1"));',
            "Object aNUMBER = new TwoTowerClient.Filter().keepSeen(true);",
            "Object aNUMBER = new SasrecClient.SimilarFilter().keepSeen(true);",
        ),
    ),
    "cpp": Compiler(
        path="build/compiled.cpp",
        command=("g++", "-std=c++17", "-fsyntax-only", "-I.", "-isystem", "build", "{path}"),
        file="""#include <cmath>
#include "models/mlink.h"
#include "models/sasrec.h"
#include "models/two_tower.h"
using namespace std::chrono_literals;

CODE
""",
        call="void callNUMBER(const std::vector<std::string>& out_of_stock) {\nCODE\n}",
        right=(
            'void aNUMBER(seqrec::SasrecRow& row) { row.history_item_ids = {"1"}; }',
            'void aNUMBER(seqrec::SasrecFilters& f) { f.where.garment_group_name = {"1"}; }',
            'void aNUMBER(seqrec::TwoTowerFilters& filters) { filters.allow = {"1", "2", "3"}; }',
        ),
        wrong=(
            "void aNUMBER(seqrec::SasrecRow& row) { row.history_item_ids = {1, 2, 3}; }",
            "void aNUMBER(seqrec::SasrecRow& row) { row.history_item_ids = 1.5; }",
            'void aNUMBER(seqrec::SasrecRow& row) { row.history = {"1"}; }',
            'void aNUMBER(seqrec::SasrecFilters& filters) { filters.where.colour = {"1"}; }',
            "void aNUMBER(seqrec::TwoTowerFilters& filters) { filters.keep_seen = true; }",
            "void aNUMBER(seqrec::SasrecSimilarFilters& filters) { filters.keep_seen = true; }",
        ),
    ),
}


PAUSES = """package seqrec

import ("fmt"; "testing"; "time")

func TestPauses(t *testing.T) {
    longest := 100 * time.Millisecond
    for i := 0; i < 8; i++ {
        made := pause(longest)
        if made < longest/2 || made > longest { t.Error(made) }
        fmt.Println(made)
    }
}
"""


def same_pauses(folder: Path) -> Iterator[str]:
    """What is wrong with the pauses of a Go client: two processes must not come back at once."""
    file, program = folder / "pauses_test.go", folder / "build" / "pauses"
    file.write_text(PAUSES, encoding="utf-8")
    try:
        command = ["go", "test", "-c", "-o", str(program.resolve()), "seqrec"]
        subprocess.run(command, cwd=folder, env=os.environ | go_modules(folder), check=True)
        runs = [subprocess.run([program], capture_output=True, text=True) for _ in range(2)]
    finally:
        file.unlink()
    if runs[0].returncode:
        yield f"pauses: {runs[0].stdout}"
    if runs[0].stdout == runs[1].stdout:
        yield f"the pauses are the same in two processes: {runs[0].stdout}"


def go_modules(folder: Path) -> dict[str, str]:
    """Go without modules and without a C compiler, as the client's Makefile has it."""
    path = f"{folder.resolve()}/build:/usr/share/gocode"
    return {"GO111MODULE": "off", "CGO_ENABLED": "0", "GOPATH": path}


def complaints(language: str, folder: Path) -> Iterator[str]:
    """What a compiler says otherwise than it should.

    All that is right is one file, and all that is wrong another: a compiler takes most of its time
    to begin.
    """
    compiler = COMPILERS[language]
    file = folder / compiler.path
    command = [part.format(path=compiler.path) for part in compiler.command]

    def said(code: str) -> str:
        """What there is to complain of."""
        file.parent.mkdir(exist_ok=True)
        file.write_text(code, encoding="utf-8")
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | go_modules(folder),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            file.unlink()
        return done.stdout + done.stderr if done.returncode else ""

    right = whole(language, [*compiler.right, *documented(language)])
    if why := said(right):
        yield f"does not compile: {right}{why[-3000:]}"
    wrong = whole(language, compiler.wrong)
    wanted = [line.replace("NUMBER", f"{n}") for n, line in enumerate(compiler.wrong)]
    named = re.findall(rf"{re.escape(file.name)}[:(](\d+)", said(wrong))
    for number, line in enumerate(wrong.splitlines(), start=1):
        if line in wanted and str(number) not in named:
            yield f"compiles: {line}"


def whole(language: str, parts: Sequence[str]) -> str:
    """Lines and calls as a file, each under a name of its own."""
    types = ("SasrecFilters", "SasrecRow", "SasrecSimilarFilters", "TwoTowerFilters")
    imported = {f"type {name}" for name in types}
    imports = r"^import \{ (.*) \} from \"seqrec-client\";$"
    code = []
    for number, part in enumerate(parts):
        for names in re.findall(imports, part, re.MULTILINE):
            imported |= set(names.split(", "))
        code.append(re.sub(imports, "", part, flags=re.MULTILINE).replace("NUMBER", f"{number}"))
    file = COMPILERS[language].file.replace("IMPORTED", ", ".join(sorted(imported)))
    return file.replace("CODE", "\n".join(code))


def documented(language: str) -> Iterator[str]:
    """Each call in docs/calling.md, as a function."""
    fence = {"node": "ts"}.get(language, language)
    page = CALLING.read_text(encoding="utf-8")
    found = re.findall(f"```{fence}\n(.*?)```", page, re.DOTALL)
    assert len(found) == 4, language
    for call in found:
        yield COMPILERS[language].call.replace("CODE", call)
