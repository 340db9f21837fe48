"""What the site's Markdown makes of docstrings' examples."""

import re

from griffe import Extension

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # a paragraph that begins so


class Examples(Extension):
    """Shows the examples of docstrings as code, where Markdown would take them for quotations."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            fenced = EXAMPLE.sub(lambda x: f"```pycon\n{x[0]}\n```", obj.docstring.value)
            obj.docstring.value = fenced
