"""A page in headless Chromium on this machine: onnxruntime-web, as npm serves it."""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config.target import BrowserTarget
from compress.errors import ConfigError
from compress.graph.session import CPU
from compress.runner.machine import machine_facts
from compress.sources.npm import installed
from compress.targets.local import RUNNER, ThisMachine, run_alone
from compress.targets.node import JAVASCRIPT, check_version, find_node

# All that runs there beside Python's, for the version of a stage's code.
SOURCES = (
    "../runner/javascript/browser.mjs",
    "../runner/javascript/card.mjs",
    "../runner/javascript/counters.mjs",
    "../runner/javascript/external.mjs",
    "../runner/javascript/model.mjs",
    "../runner/javascript/npz.mjs",
    "../runner/javascript/page.html",
    "../runner/javascript/page.mjs",
    "../runner/javascript/page_worker.mjs",
    "../runner/javascript/protocol.mjs",
    "../runner/javascript/server.mjs",
    "../runner/javascript/package-lock.json",
)
PROVIDERS = {"wasm": CPU, "webgpu": "WebGpuExecutionProvider"}  # as a trace names them
FLAGS = {
    "wasm": ["--disable-gpu"],
    "webgpu": ["--enable-unsafe-webgpu", "--enable-features=Vulkan"],  # Linux asks for both
}
EMULATED = "swiftshader"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
FACTS_SECONDS = 120.0
_OPENS = """
// npm install onnxruntime-web@{version}. As it was timed: in a Web Worker, of a page that is served with
//   Cross-Origin-Opener-Policy: same-origin
//   Cross-Origin-Embedder-Policy: require-corp
import * as ort from "onnxruntime-web/{provider}";

ort.env.wasm.numThreads = {threads};
const session = await ort.InferenceSession.create("{model}", {{ executionProviders: ["{provider}"] }});
// feeds: name of an input -> new ort.Tensor("int64", BigInt64Array.from([101n, 102n]), [1, 2])
export const inputNames = session.inputNames;
export const run = (feeds) => session.run(feeds);
"""


class Browser(ThisMachine):
    card_language = "js"

    def __init__(self, config: BrowserTarget) -> None:
        super().__init__(config)
        self.provider, self.program = config.provider.value, config.browser
        if self.provider == "webgpu":
            self.advice += "; a GPU without 16-bit floats (shader-f16) runs no fp16 or q4f16"

    def find_facts(self) -> Mapping[str, Any]:
        words = [*self._script(), "--facts", *FLAGS[self.provider]]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            facts = machine_facts(json.loads(run_alone(words, Path(scratch), FACTS_SECONDS)))
        check_page(self.provider, self.config.threads, facts["runtime"])
        return facts

    def runs_with(self) -> Mapping[str, Any]:
        become = [sys.executable, "-P", str(RUNNER), "--become"]
        return {
            "threads": self.threads(),
            "provider": PROVIDERS[self.provider],
            "command": [*become, *self._script(), *FLAGS[self.provider]],
        }

    def javascript(self, model: str) -> str:
        version = self.facts()["runtime"]["version"]
        return _OPENS.format(version=version, model=model, threads=self.threads(), provider=self.provider)

    def _script(self) -> list[str]:
        node, browser = find_node("node"), find_browser(self.program)
        folder = installed(JAVASCRIPT / "package-lock.json")
        return [node, str(JAVASCRIPT / "browser.mjs"), str(folder), browser]


def find_browser(program: str | None) -> str:
    """The absolute path of Chromium. Raises ConfigError where there is none."""
    found = next(filter(None, map(shutil.which, [program] if program else PROGRAMS)), None)
    if found is None:
        raise ConfigError(
            "there is no Chromium",
            found=program or f"none of {', '.join(PROGRAMS)}",
            next="install it, on Debian: apt-get install chromium; or target.browser=/path/to/chromium",
        )
    return str(Path(found).absolute())


def check_page(provider: str, threads: int, runtime: Mapping[str, Any]) -> None:
    """Raise ConfigError where pages of this browser have not what is asked for."""
    check_version(runtime["node"])
    adapter = runtime["webgpu"]
    if provider == "webgpu" and (adapter is None or EMULATED in adapter):
        raise ConfigError(
            "this browser has no GPU for WebGPU",
            found=adapter and f"{adapter}, which computes on the CPU",
            allowed="target.provider=wasm",
            next=f"look at chrome://gpu in Chromium {runtime['browser']}; it needs a GPU and its driver",
        )
    if not runtime["simd"]:
        raise ConfigError("this browser's WebAssembly has no SIMD", found=runtime["browser"])
    if threads != 1 and not runtime["crossOriginIsolated"]:
        raise ConfigError(
            "this browser gives pages no threads",
            found=f"crossOriginIsolated is false in {runtime['browser']}",
            allowed="target.threads=1",
        )
