# SPDX-License-Identifier: Apache-2.0
"""Pages that load nothing: a template whose marks are filled, and the files beside this module that go into it."""

import re
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def fill(template, parts):
    """Puts parts into the template's <!--name--> marks; what is put in is not searched again."""
    return re.sub(r"<!--(\w+)-->", lambda mark: parts[mark.group(1)], template)


def resource(*names):
    """The text of these files of the package, one after the other; a name may begin with a folder."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
