"""Node.js on this machine: onnxruntime-node, as npm serves it."""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config.target import NodeTarget
from compress.errors import ConfigError
from compress.graph.session import CPU
from compress.runner.machine import machine_facts
from compress.sources.npm import installed
from compress.targets.local import RUNNER, ThisMachine, run_alone

JAVASCRIPT = RUNNER / "javascript"
# All that runs there beside Python's, for the version of a stage's code.
SOURCES = (
    "../runner/javascript/node.mjs",
    "../runner/javascript/card.mjs",
    "../runner/javascript/model.mjs",
    "../runner/javascript/npz.mjs",
    "../runner/javascript/counters.mjs",
    "../runner/javascript/protocol.mjs",
    "../runner/javascript/package-lock.json",
)
FACTS_SECONDS = 60.0
_OPENS = """
// npm install onnxruntime-node@{version}
import * as ort from "onnxruntime-node";

const options = {{ intraOpNumThreads: {threads}, interOpNumThreads: 1 }}; // as it was timed
const session = await ort.InferenceSession.create("{model}", options);
// feeds: name of an input -> new ort.Tensor("int64", BigInt64Array.from([101n, 102n]), [1, 2])
export const inputNames = session.inputNames;
export const run = (feeds) => session.run(feeds);
"""
OLDEST = 20


class Node(ThisMachine):
    card_language = "js"

    def __init__(self, config: NodeTarget) -> None:
        super().__init__(config)
        self.program = config.node or "node"

    def find_facts(self) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            printed = run_alone([*self._script(), "--facts"], Path(scratch), FACTS_SECONDS)
        facts = machine_facts(json.loads(printed))
        check_version(facts["runtime"]["node"])
        return facts

    def runs_with(self) -> Mapping[str, Any]:
        become = [sys.executable, "-P", str(RUNNER), "--become"]
        return {
            "threads": self.threads(),
            "provider": CPU,  # as a trace names it
            "command": [*become, *self._script()],
        }

    def javascript(self, model: str) -> str:
        version = self.facts()["runtime"]["version"]
        return _OPENS.format(version=version, model=model, threads=self.threads())

    def _script(self) -> list[str]:
        return [
            find_node(self.program),
            str(JAVASCRIPT / "node.mjs"),
            str(installed(JAVASCRIPT / "package-lock.json")),
        ]


def find_node(program: str) -> str:
    """The absolute path of Node.js. Raises ConfigError where there is none."""
    found = shutil.which(program)
    if found is None:
        raise ConfigError(
            "there is no Node.js",
            found=program,
            next="install it, on Debian: apt-get install nodejs npm; or target.node=/path/to/node",
        )
    return str(Path(found).absolute())


def check_version(version: str) -> None:
    """Raise ConfigError where this Node.js cannot run our worker."""
    if int(version.partition(".")[0]) < OLDEST:
        raise ConfigError(
            "this Node.js is too old",
            found=version,
            allowed=f"{OLDEST} or newer",
            next="target.node=/path/to/a/newer/node",
        )
