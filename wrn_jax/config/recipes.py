"""The recipes that come with the package: `configs/` of the repository, which an installed package holds as `recipes/`."""

from pathlib import Path

from wrn_jax.runtime.files import user_path


def folder() -> Path:
    """Where the recipes lie."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """What `--config` accepts in place of a file, sorted."""
    return sorted(path.stem for path in folder().glob("*.py"))


def find(path_or_name: str | Path) -> Path:
    """The file that `path_or_name` means: itself, if there is one, or the recipe of that name; else the path as it is."""
    path = user_path(path_or_name)
    return folder() / f"{path}.py" if str(path) in names() and not path.is_file() else path
