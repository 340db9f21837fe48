"""What MkDocs adds to the site: the API, a page for each package."""

import re
from pathlib import Path

from griffe import Extension
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PACKAGES = ("baselines_tf2", "omd_tf2", "envs")
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # a paragraph that begins so


class Examples(Extension):
    """Shows the examples of docstrings as code, where Markdown would take them for quotations."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            fenced = EXAMPLE.sub(lambda x: f"```pycon\n{x[0]}\n```", obj.docstring.value)
            obj.docstring.value = fenced


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
    return config


def on_files(files, config):
    for name, modules in rooms().items():
        # What a package's __init__ only passes on is shown where it is written.
        own = f"::: {name}\n    options:\n      members: false\n"
        text = "\n".join([f"# {name}\n", own, *(f"::: {module}\n" for module in modules[1:])])
        files.append(File.generated(config, f"reference/api/{name}.md", content=text))
    return files
