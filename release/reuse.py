"""REUSE.toml: who holds which file under which licence, for `reuse lint` (REUSE specification 3.3).

Weights, graphs and JSON cannot carry a header, so that one file at the top speaks for all
(https://reuse.software/spec-3.3/#reusetoml). Weights that were made from other models are under
the terms of those as well, and say so.
"""

import json
from collections.abc import Sequence

NAME = "REUSE.toml"
_WEIGHTS = ("*.safetensors", "*.onnx")


def reuse_toml(copyright_text: str, expression: str, upstream: Sequence[str] = ()) -> str:
    """REUSE.toml of a folder in which every file is under ``expression``.

    ``upstream``: ids of the terms that the weights brought along.
    """
    tables = ["version = 1\n", _annotation(["**"], copyright_text, expression)]
    if upstream:
        own = f"({expression})" if " " in expression else expression
        both = " AND ".join([own, *upstream])
        tables.append(_annotation(_WEIGHTS, f"{copyright_text}, and the licensors upstream", both))
    return "\n".join(tables)


def licensors_toml(expression: str) -> str:
    """The annotation of the copies of upstream licences, which their licensors wrote."""
    return "\n" + _annotation(
        ["moeship/upstream/**"], "The licensors who are named in these files", expression
    )


def header(copyright_text: str, expression: str) -> str:
    """The two comment lines at the top of a YAML file."""
    # REUSE-IgnoreStart
    return (
        f"# SPDX-FileCopyrightText: {copyright_text}\n# SPDX-License-Identifier: {expression}\n\n"
    )
    # REUSE-IgnoreEnd


def _annotation(paths: Sequence[str], copyright_text: str, expression: str) -> str:
    # A JSON string is a TOML basic string; precedence override: a NOTICE that came from upstream
    # or a line of the card may quote tags that are not this file's own.
    return (
        "[[annotations]]\n"
        f"path = {json.dumps(list(paths))}\n"
        'precedence = "override"\n'
        f"SPDX-FileCopyrightText = {json.dumps(copyright_text, ensure_ascii=False)}\n"
        f"SPDX-License-Identifier = {json.dumps(expression)}\n"
    )
