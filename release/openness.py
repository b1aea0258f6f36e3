"""The class of a release in the Model Openness Framework, from what it holds and declares.

The framework (White et al., arXiv:2403.13784; MOF 1.0 of the LF AI & Data Foundation) has three
classes, each with all of the one before: III Open Model, II Open Tooling, I Open Science. A class
is reached if every component it asks for is published under an open licence.

The components and their classes are those of the foundation's own tool, the Model Openness Tool
(github.com/lfai/model_openness_tool, ``web/modules/mof/config/install/mof.settings.yml`` at commit
1711a30a700e: 17 components, 14 of them ``required``). The other three (sample model outputs,
supporting libraries and tools, model metadata) decide nothing here and are left out. Of technical
report and research paper either does for classes III and II: the tool's test data (``Test_Data``
there, ``Class2RTestFile...``) have a file of each kind that reaches them in full. That test data,
of June 2025, still counts supporting libraries and tools among what class II asks for.

What lies in the release is looked at here. What lies elsewhere is what release.yaml declares
(``openness``): an address and a licence, which nobody has visited.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from release import spdx
from release.fields import Line, Strict
from release.markdown import counted, escape, table
from release.records import MofClass, ReleaseRecord

CLASS_NAMES = {"III": "Open Model", "II": "Open Tooling", "I": "Open Science"}

OPEN_LICENSES = frozenset({
    "Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "BSL-1.0", "Zlib",
    "Unlicense", "0BSD", "MPL-2.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only",
    "GPL-3.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only",
    "LGPL-3.0-or-later", "AGPL-3.0-only", "AGPL-3.0-or-later", "EUPL-1.2", "CC0-1.0", "CC-BY-4.0",
    "CC-BY-SA-4.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "PDDL-1.0", "ODC-By-1.0",
})  # fmt: skip
"""Licences that count as open: of the OSI's list for code, of the Open Definition's for documents
and data (https://opensource.org/licenses, https://opendefinition.org/licenses). Any other counts
as not open, also if it only is not in this list."""

Address = Annotated[str, StringConstraints(pattern=r"^https://[^\s<>|]+$", max_length=400)]


class Declared(Strict):
    """A component that was published elsewhere, and its licence."""

    at: Address = Field(description="https address where it was published")
    license: Line = Field(description="SPDX licence expression of the component")

    @field_validator("license")
    @classmethod
    def _is_spdx(cls, value: str) -> str:
        return spdx.normalize(value)


class Openness(Strict):
    """The ``openness`` section of release.yaml."""

    data_card: Declared | None = None
    technical_report: Declared | None = None
    evaluation_results: Declared | None = None
    training_code: Declared | None = None
    inference_code: Declared | None = None
    evaluation_code: Declared | None = None
    evaluation_data: Declared | None = None
    research_paper: Declared | None = None
    datasets: Declared | None = None
    preprocessing_code: Declared | None = None
    intermediate_checkpoints: Declared | None = None


@dataclass(frozen=True)
class Component:
    """What a class asks for. ``field``: of `Openness`; empty if the release itself holds it."""

    name: str
    level: Literal["III", "II", "I"]
    field: str = ""


COMPONENTS = (
    Component("model architecture", "III"),
    Component("final model parameters", "III"),
    Component("model card", "III"),
    Component("data card", "III", "data_card"),
    Component("technical report or research paper", "III", "technical_report"),
    Component("evaluation results", "III", "evaluation_results"),
    Component("training, validation and testing code", "II", "training_code"),
    Component("inference code", "II", "inference_code"),
    Component("evaluation code", "II", "evaluation_code"),
    Component("evaluation data", "II", "evaluation_data"),
    Component("research paper", "I", "research_paper"),
    Component("datasets", "I", "datasets"),
    Component("data preprocessing code", "I", "preprocessing_code"),
    Component("intermediate model parameters", "I", "intermediate_checkpoints"),
)


@dataclass(frozen=True)
class Finding:
    """A component: where it is, its licence; ``missing`` says why it does not count, or is ""."""

    component: Component
    where: str
    license: str
    missing: str


@dataclass(frozen=True)
class Assessment:
    """``mof_class`` is "none" if a component of class III is missing."""

    mof_class: MofClass
    findings: tuple[Finding, ...]

    def lacking(self, level: str) -> list[Finding]:
        """What keeps the release from ``level``; of that level itself."""
        return [f for f in self.findings if f.missing and f.component.level == level]


def is_open(expression: str) -> bool:
    """Whether a reader can choose open terms only: any side of OR, every side of AND."""
    return _is_open(_spdx().parse(expression))


@cache
def _spdx() -> Any:
    """The library's list, which takes 60 ms to be read: once, not once a component."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _is_open(node: Any) -> bool:
    parts = getattr(node, "args", ())
    operator = (getattr(node, "operator", "") or "").strip()
    if operator == "OR":
        return any(_is_open(part) for part in parts)
    if operator == "AND":
        return all(_is_open(part) for part in parts)
    # With an exception ("GPL-2.0-only WITH Classpath-exception-2.0") more is allowed, not less.
    main = getattr(node, "license_symbol", node)
    return str(main.key) in OPEN_LICENSES


def assess(release: ReleaseRecord, declared: Openness | None) -> Assessment:
    """The class, and every component with what was found of it."""
    findings = tuple(_find(component, release, declared) for component in COMPONENTS)
    reached: MofClass = "none"
    levels: tuple[Literal["III", "II", "I"], ...] = ("III", "II", "I")
    for level in levels:
        if any(f.missing for f in findings if f.component.level == level):
            break
        reached = level
    return Assessment(reached, findings)


def _find(component: Component, release: ReleaseRecord, declared: Openness | None) -> Finding:
    if not component.field:
        where = {
            "model architecture": ", ".join(["config.json", *(g.file for g in release.graphs)]),
            "final model parameters": counted(len(release.weights.files), "safetensors file"),
            "model card": "README.md",
        }[component.name]
        return _judged(component, where, release.license)
    one = getattr(declared, component.field) if declared else None
    if one is None and component.field == "technical_report" and declared:
        one = declared.research_paper  # the framework takes either
    if one is None:
        return Finding(component, "", "", "not declared")
    return _judged(component, one.at, one.license)


def _judged(component: Component, where: str, license: str) -> Finding:
    why = "" if is_open(license) else f"{license} is not among the open licences"
    return Finding(component, where, license, why)


def section(release: ReleaseRecord, declared: Openness | None) -> str:
    """Markdown of the model card; empty unless release.yaml has the section."""
    if declared is None:
        return ""
    found = assess(release, declared)
    rows = [
        [f.component.level, f.component.name, escape(f.where) or "-",
         f"missing: {escape(f.missing)}" if f.missing else f"`{f.license}`"]
        for f in found.findings
    ]  # fmt: skip
    head = ["Class", "Component", "Where", "License"]
    return "\n\n".join(["## Openness", _verdict(found), table(head, rows), _NOTE])


def _verdict(found: Assessment) -> str:
    framework = "[Model Openness Framework](https://arxiv.org/abs/2403.13784) 1.0"
    if found.mof_class == "none":
        said = f"**This release reaches no class of the {framework}.**"
    else:
        name = CLASS_NAMES[found.mof_class]
        said = f"**Class {found.mof_class} ({name})** of the {framework}."
    after = {"none": "III", "III": "II", "II": "I", "I": ""}[found.mof_class]
    if not after:
        return said
    names = ", ".join(f.component.name for f in found.lacking(after))
    return f"{said} Class {after} lacks: {names}."


_NOTE = (
    "Worked out by moeship from this folder and from what its publisher declares. The addresses "
    "were not visited. Numerical validation is not an evaluation of the model's quality."
)
