"""A machine that we cannot reach: a folder is carried there and does its jobs; its times come back."""

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BenchmarkError, ConfigError
from compress.runner.jobs import OUTPUTS
from compress.runner.package import PACKAGE, RESULTS, VERSION
from compress.system.disk import sha256_file
from compress.targets.bundle import RUNNER, moved, pack, placed

Feeds = Mapping[str, Mapping[str, np.ndarray]]  # workload -> name of an input -> array
README = """\
1. Copy this folder to the machine. It needs Python 3.11: python3 -m pip install numpy onnxruntime=={version}
2. There, in the folder, while nothing else runs (about {minutes} min): python3 {runner} --package .
3. Bring the file {results} back into this folder, and read it here: compress bench --import {folder}
"""


@dataclass(frozen=True)
class Asked:
    """What a package was made of, as `package.json` keeps it for the way back."""

    models: Mapping[str, Path]
    workloads: Feeds
    benchmark: Mapping[str, Any]  # settings of the group benchmark
    given: Sequence[str]  # inputs that were not made up


def write(
    folder: Path,
    asked: Asked,
    timing: tuple[dict[str, Any], Sequence[Path]],
    runs_with: Mapping[str, Any],
    onnxruntime: str,
) -> None:
    """Make the package in `folder`, whole or not at all. `timing`: the job and the files that it names.

    Raises ConfigError where something lies there already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("the folder of a package is not empty", found=folder, next="name another folder")
    job, files = timing
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        there, copies = placed([*files, pack(part)])
        for each in there:
            (part / each.place).parent.mkdir(exist_ok=True)
            if each.place != RUNNER:
                shutil.copyfile(each.path, part / each.place)
        models = {name: copies[str(path.absolute())] for name, path in asked.models.items()}
        jobs: dict[str, Any] = {}
        for number, (name, place) in enumerate(models.items()):
            checked = {"do": "outputs", "name": name, "path": place, "feeds": "check.npz"}
            jobs[f"outputs {number}"] = {**runs_with, **checked}
        jobs["time"] = {**runs_with, **moved(job, copies)}
        arrays = [of_workload.items() for of_workload in asked.workloads.values()]
        check = {f"{number}.{name}": array for number, each in enumerate(arrays) for name, array in each}
        np.savez(part / "check.npz", **check)  # type: ignore[arg-type]
        names = [each.place for each in there] + ["check.npz"]
        seconds = float(job["max_seconds"])
        content = {
            "package_version": VERSION,
            "runtime": "onnxruntime",
            "files": {name: sha256_file(part / name) for name in names},
            "jobs": jobs,
            "seconds": seconds,
            "models": models,
            "workloads": {name: moved(path, copies) for name, path in job["workloads"].items()},
            "benchmark": dict(asked.benchmark),
            "given": list(asked.given),
        }
        (part / PACKAGE).write_text(json.dumps(content, indent=1))
        words = {"version": onnxruntime, "minutes": f"{max(1.0, seconds / 60):.0f}", "runner": RUNNER}
        text = README.format(**words, results=RESULTS, folder=folder)
        (part / "README.md").write_text(text)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class Brought:
    """The target that a package was carried to: it answers what the package asked it."""

    interleaves = False
    card_language = ""

    def __init__(self, folder: Path) -> None:
        """Raises BenchmarkError for what is not a package, or was not brought back whole, of these models."""
        self.folder = folder
        self.package = _read_package(folder)
        self.results = folder / RESULTS
        try:
            with zipfile.ZipFile(self.results) as back:
                broken = back.testzip()
                if broken is not None:
                    raise zipfile.BadZipFile(f"{broken} is damaged")
                self.told: dict[str, Any] = json.loads(back.read("results.json"))
        except FileNotFoundError:
            raise BenchmarkError(
                "nothing was brought back",
                found=f"no {RESULTS} in {folder}",
                next=f"run the package on its machine ({folder / 'README.md'}) and copy the file here",
            ) from None
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise BenchmarkError(
                "what was brought back is damaged",
                found=f"{self.results}: {error}",
                next="copy it again, or run the package again",
            ) from None
        self._check()

    def _check(self) -> None:
        version = self.told.get("package_version")
        if version != VERSION:
            raise BenchmarkError(
                "what was brought back is of another version", found=version, allowed=VERSION,
                next="write the package again and run that",
            )  # fmt: skip
        wanted, found = self.package["files"], self.told.get("files", {})
        for place in wanted.keys() | found.keys():
            if wanted.get(place) != found.get(place):
                models = {path: name for name, path in self.package["models"].items()}
                raise BenchmarkError(
                    "what was brought back was measured on other files than this package holds",
                    found=f"another {place}" + (f", the model {models[place]!r}" if place in models else ""),
                    allowed=f"results of the package in {self.folder}",
                    next="bring back the results of this package, or name the folder that they belong to",
                )
        samples = self.told.get("results", {}).get("time", {})
        timed = samples.get("workloads", {})
        for workload in self.package["workloads"]:
            for model in self.package["models"]:
                if not timed.get(workload, {}).get(model):
                    raise BenchmarkError(
                        "what was brought back is not whole",
                        found=f"no times of {model!r} at {workload}",
                        next="run the package again",
                    )

    def asked(self) -> Asked:
        """What the package measures, from the files in its folder."""
        package, workloads = self.package, {}
        for name, place in package["workloads"].items():
            with np.load(self.folder / place, allow_pickle=False) as arrays:
                workloads[name] = {key: arrays[key] for key in arrays.files}
        models = {name: self.folder / place for name, place in package["models"].items()}
        return Asked(models, workloads, package["benchmark"], package["given"])

    def facts(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = self.told["facts"]
        return facts

    def cpu_flags(self) -> tuple[str, ...]:
        return tuple(self.facts()["flags"])

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def runs_with(self) -> Mapping[str, Any]:
        job = self.package["jobs"]["time"]
        return {"threads": job.get("threads", self.facts()["threads"]), "provider": job["provider"]}

    def opening(self, model: str, generates: bool) -> str:
        raise NotImplementedError("a package times files, it ships nothing")

    def javascript(self, model: str) -> str:
        raise NotImplementedError("a package times files, it ships nothing")

    def run(
        self, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        if job["do"] == "time":
            samples: dict[str, Any] = self.told["results"]["time"]
            return samples
        number = list(self.package["models"]).index(job["name"])
        with zipfile.ZipFile(self.results) as back, back.open(f"outputs {number}.npz") as given:
            (scratch / OUTPUTS).write_bytes(given.read())
        result: dict[str, Any] = self.told["results"][f"outputs {number}"]
        return result


def _read_package(folder: Path) -> dict[str, Any]:
    """`package.json`, whose files lie beside it as they were packed."""
    try:
        package: dict[str, Any] = json.loads((folder / PACKAGE).read_text())
        files: dict[str, str] = package["files"]
    except (OSError, ValueError, KeyError) as error:
        raise BenchmarkError(
            "not a package",
            found=f"{folder}: {error}",
            allowed="a folder that compress bench --package wrote",
        ) from None
    for place, wanted in files.items():
        path = folder / place
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BenchmarkError("a package names a file outside of its folder", found=place)
        if not path.is_file() or sha256_file(path) != wanted:
            raise BenchmarkError(
                "a file of the package is not what was packed",
                found=path if path.is_file() else f"no file {path}",
                next="write the package again and run that",
            )
    return package
