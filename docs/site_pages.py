"""Pages that MkDocs adds to the site: the API, one for each package, and the results if there are."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PACKAGES = ("baselines_tf2", "omd_tf2", "envs")


def rooms() -> dict[str, list[str]]:
    """Each package and subpackage with its modules, by dotted name."""
    found = {}
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            modules = sorted(path.stem for path in init.parent.glob("*.py") if path != init)
            found[name] = [name, *(f"{name}.{module}" for module in modules)]
    return found


def on_config(config):
    pages = [{name: f"reference/api/{name}.md"} for name in rooms()]
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference.append({"API": pages})
    if (ROOT / "docs" / "results.md").exists():
        config.nav.insert(-4, {"Results": "results.md"})
    return config


def on_files(files, config):
    for name, modules in rooms().items():
        text = "\n".join([f"# {name}\n", *(f"::: {module}\n" for module in modules)])
        files.append(File.generated(config, f"reference/api/{name}.md", content=text))
    return files
