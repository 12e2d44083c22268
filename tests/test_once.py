import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.once import Folders, shared_folder


def test_several_who_ask_at_once_wait_for_one_build(tmp_path):
    threads = []

    def build(folder):
        threads.append(threading.get_ident())
        time.sleep(0.2)
        (folder / "file").write_text("built")

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: shared_folder(tmp_path, "x", build), range(4)))
        assert {(folder / "file").read_text() for folder in folders} == {"built"}
    assert len(threads) == 1


def test_a_failed_build_leaves_nothing_and_is_tried_again(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        shared_folder(tmp_path, "x", fail)
    folder = shared_folder(tmp_path, "x", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_folders_are_built_when_they_are_asked_for(tmp_path):
    built = []
    folders = Folders(("a", "b"), lambda name: built.append(name) or tmp_path / name)
    assert list(folders) == ["a", "b"]
    assert built == []
    assert folders["b"] == tmp_path / "b"
    assert built == ["b"]
    with pytest.raises(KeyError):
        folders["c"]
