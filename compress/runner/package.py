"""A package: models, inputs and jobs in a folder that is carried to a machine, where this does the jobs.

`package.json`: {"package_version", "runtime", "files": {path in the folder: its SHA-256}, "jobs": {name:
job}, "seconds": about how long they take}; jobs name the files by these paths. `results.zip` is brought back:
`results.json` with "package_version", the "files" as they are found here, the "facts" of this machine and the
"results" of the jobs, and a file NAME.npz for each job that computed outputs.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from compress.runner.machine import machine_facts
from compress.runner.worker import Failure, runtime

VERSION = 1
PACKAGE, RESULTS = "package.json", "results.zip"
Jobs = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]


def do_package(folder: str, jobs: Jobs, outputs: str) -> None:
    """Do the jobs of a package in order; `results.zip` appears whole or not at all.

    `outputs`: the file that some jobs write beside their result. Raises Failure for a damaged package.
    """
    folder = os.path.abspath(folder)
    try:
        with open(os.path.join(folder, PACKAGE)) as file:
            package = json.load(file)
    except (OSError, ValueError) as error:
        raise Failure(f"no package in {folder}: {error}") from None
    if package["package_version"] != VERSION:
        raise Failure(f"the package is of version {package['package_version']}, its runner of {VERSION}")
    found = {place: sha256(os.path.join(folder, place)) for place in package["files"]}
    for place, wanted in package["files"].items():
        if found[place] != wanted:
            raise Failure(f"{place} is not the file that was packed: copy the package again")
    facts = machine_facts(runtime(package["runtime"]).runtime_facts())
    print(f"measuring for about {package['seconds']:.0f} s: let nothing else run meanwhile", flush=True)
    paths = {place: os.path.join(folder, place) for place in found}
    target = os.path.join(folder, RESULTS)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.chdir(scratch)
        results = {}
        try:
            with zipfile.ZipFile("results", "w", zipfile.ZIP_DEFLATED) as back:
                for name, job in package["jobs"].items():
                    job = {"threads": facts["threads"], **placed(job, paths)}
                    results[name] = jobs[job["do"]](job)
                    if os.path.exists(outputs):
                        back.write(outputs, f"{name}.npz")
                        os.remove(outputs)
                told = {"package_version": VERSION, "files": found, "facts": facts, "results": results}
                back.writestr("results.json", json.dumps(told))
            os.replace("results", target)
        finally:
            os.chdir(folder)
    print(f"done: bring {target} back")


def placed(job: Any, paths: Mapping[str, str]) -> Any:
    """`job` with where the files lie here in place of their paths in the package."""
    if isinstance(job, dict):
        return {key: placed(value, paths) for key, value in job.items()}
    if isinstance(job, list):
        return [placed(value, paths) for value in job]
    return paths.get(job, job) if isinstance(job, str) else job


def sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Failure(f"the package lacks a file: {error}") from None
