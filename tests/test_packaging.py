"""What is shipped: every package is listed, the wheel holds all of it and nothing else."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("broker", "worker", "client", "bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED_BESIDE_CODE = ("py.typed", "*.md", "vectors/*.json")


def source_files(pattern: str) -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob(pattern)
        if "__pycache__" not in path.parts
    )


def test_every_folder_with_code_is_a_listed_package() -> None:
    found = {path.parent.relative_to(ROOT) for path in source_files("*.py")}
    expected = {f"pronghorn.{'.'.join(folder.parts)}" for folder in found}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(expected)


def test_every_package_has_an_init_file() -> None:
    # The editable installation would find it without one, mypy and the wheel would not.
    folders = {path.parent for path in source_files("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_is_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_refuses_to_be_imported_under_its_bare_name(folder: str) -> None:
    spec = importlib.util.spec_from_file_location(folder, ROOT / folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=f"import pronghorn.{folder}"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_for_the_type_checkers_lead_to_the_package(folder: str) -> None:
    assert (ROOT / "scripts" / "ns" / "pronghorn" / folder).resolve() == ROOT / folder


def test_console_script_can_be_called() -> None:
    (script,) = (
        entry
        for entry in importlib.metadata.distribution("pronghorn").entry_points
        if entry.group == "console_scripts"
    )
    assert (script.name, script.value) == ("pronghorn", PROJECT["project"]["scripts"]["pronghorn"])
    assert callable(script.load())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Build a wheel from a copy: setuptools leaves build/ and *.egg-info where it works."""
    source = tmp_path_factory.mktemp("source")
    output = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name)
    if importlib.util.find_spec("pip") is None:
        command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(output), str(source)]
    else:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(output), str(source)]
    built = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    assert built.returncode == 0, built.stderr
    (path,) = output.glob("*.whl")
    return zipfile.Path(path)


@pytest.mark.slow
def test_wheel_holds_all_of_the_packages_and_nothing_else(wheel: zipfile.Path) -> None:
    names = {name for name in wheel.root.namelist() if not name.endswith("/")}
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    expected = {
        f"pronghorn/{path.relative_to(ROOT).as_posix()}"
        for pattern in ("*.py", *SHIPPED_BESIDE_CODE)
        for path in source_files(pattern)
    }
    assert names - about == expected


@pytest.mark.slow
def test_wheel_installs_one_top_level_name(wheel: zipfile.Path) -> None:
    (about,) = (each for each in wheel.iterdir() if each.name.endswith(".dist-info"))
    assert (about / "top_level.txt").read_text().split() == ["pronghorn"]
    assert "pronghorn = pronghorn.client.cli:main" in (about / "entry_points.txt").read_text()
    assert (about / "licenses" / "LICENSE").is_file()
