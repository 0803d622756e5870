"""What the compilers say of calls in other languages: wrong inputs, and docs/calling.md.

In the folder of a client that was built.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLING = Path(__file__).parents[2] / "docs" / "calling.md"


@dataclass(frozen=True)
class Compiler:
    """How a language's code is compiled, and what is wrong there."""

    path: str  # of the code
    command: tuple[str, ...]
    row: str  # code with ROW in it
    right: str
    wrong: tuple[str, ...]
    call: str  # code around what docs/calling.md has


COMPILERS = {
    "node": Compiler(
        path="src/compiled.ts",
        command=("node_modules/.bin/tsc", "--noEmit"),
        row="""import type { SasrecRow } from "./index.js";
export const row: SasrecRow = { ROW };
""",
        right='historyItemIds: ["1"]',
        wrong=("historyItemIds: [1]", 'historyItemIds: "1"', 'history: ["1"]'),
        call="CALL\n",
    ),
    "go": Compiler(
        path="cmd/compiled/main.go",
        command=("go", "build", "-o", "build/compiled", "seqrec/cmd/compiled"),
        row="""package main

import "seqrec/models"

func main() { _ = models.SasrecRow{ROW} }
""",
        right='HistoryItemIds: []string{"1"}',
        wrong=("HistoryItemIds: []int{1}", 'HistoryItemIds: "1"', 'History: []string{"1"}'),
        call="""package main

import ("context"; "math"; "time"; "seqrec"; "seqrec/models")

var _, _ = math.NaN, time.Now

func call(ctx context.Context) (any, error) {
CALL
    return answer, err
}

func main() { call(context.Background()) }
""",
    ),
    "java": Compiler(
        path="build/Compiled.java",
        command=("javac", "-proc:none", "-cp", "build/seqrec.jar", "-d", "build", "{path}"),
        row="""import java.util.List;

class Compiled { Object row = new seqrec.SasrecClient.Row().ROW; }
""",
        right='historyItemIds(List.of("1"))',
        wrong=("historyItemIds(List.of(1))", 'historyItemIds("1")', 'history(List.of("1"))'),
        call="""import java.time.Duration;
import java.util.List;
import seqrec.*;

class Compiled {
    void call() throws Exception {
CALL
    }
}
""",
    ),
    "cpp": Compiler(
        path="build/compiled.cpp",
        command=("g++", "-std=c++17", "-fsyntax-only", "-I.", "-isystem", "build", "{path}"),
        row="""#include "models/sasrec.h"

void set(seqrec::SasrecRow& row) { row.ROW; }
""",
        right='history_item_ids = {"1"}',
        wrong=("history_item_ids = {1, 2, 3}", "history_item_ids = 1.5", 'history = {"1"}'),
        call="""#include <cmath>
#include "models/mlink.h"
#include "models/sasrec.h"
using namespace std::chrono_literals;

void call() {
CALL
}
""",
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
    """What a compiler says otherwise than it should."""
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
        return (done.stdout + done.stderr)[-2000:] if done.returncode else ""

    for code in (compiler.row.replace("ROW", compiler.right), *documented(language)):
        if why := said(code):
            yield f"does not compile: {code}{why}"
    for value in compiler.wrong:
        if not said(compiler.row.replace("ROW", value)):
            yield f"compiles: {value}"


def documented(language: str) -> Iterator[str]:
    """Each call in docs/calling.md, as a whole file."""
    fence = {"node": "ts"}.get(language, language)
    page = CALLING.read_text(encoding="utf-8")
    found = re.findall(f"```{fence}\n(.*?)```", page, re.DOTALL)
    assert len(found) == 2, language
    for call in found:
        if language == "node":  # where a name that nobody uses is an error
            call = re.sub("^const ", "export const ", call, flags=re.MULTILINE)
        code = COMPILERS[language].call.replace("CALL", call)
        yield code.replace('"seqrec-client"', '"./index.js"')
