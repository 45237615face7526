"""Prompts as one agent sees them: a template over the prompt, what the data answer, and the sample's columns.

It is how an agent knows more than another of the same sample, a solution say, or is asked in other words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.errors import MeshError
from kdmesh.streams.texts import LEARNED, Sample

if TYPE_CHECKING:
    from jinja2.runtime import Context

PROMPT, TEXT = "prompt", "text"
LONGEST = 10_000_000
"""Characters that a template may write, and places of a text or list that it repeats: far more than a prompt has."""
LARGEST_POWER = 64
STEPS = 1_000_000
"""Places of what it loops over, filters and joins, and calls, that a template may have for one prompt."""
CALL = 10  # of these: what a call takes is as much
COUNTED = "counted by kdmesh"  # the name of a filter that no template can write


class PromptView:
    """A jinja template, in a sandbox, that makes a prompt of its own of a sample. ``where`` in the mesh it stands.

    It may name ``prompt`` (of a chat: its last turn that is not the assistant's), ``text`` (what the data answer, where
    they do) and the columns of the data. MeshError for a template that is none.
    """

    def __init__(self, template: str, where: str) -> None:
        from jinja2 import TemplateSyntaxError, meta

        self.where = where
        self._sandbox = environment = _sandbox()
        try:
            parsed = environment.parse(template)
            self.names = meta.find_undeclared_variables(parsed) - environment.globals.keys()
            found = meta.find_referenced_templates(parsed)
            self._template = environment.from_string(environment.counted(parsed))
        except TemplateSyntaxError as error:
            what = f"the template cannot be read: {error.message}"
            raise MeshError(what, where=self.where, instead="jinja, such as '{{ prompt }} Hint: {{ text }}'") from None
        for other in found:
            what = f"the template reads another, {other or 'that it computes'}, and there is none"
            raise MeshError(what, where=where, instead="its words here, without include, import and extends")

    def __call__(self, sample: Sample, columns: Mapping[str, Any]) -> Sample:
        """The sample with the prompt that is made of it. MeshError, which names it, where a field is missing."""
        if sample.messages is None:
            return replace(sample, prompt=self._say(sample, columns, sample.prompt or "", sample.text or None))
        turns: list[Any] = list(sample.messages)
        answer = len(turns) - (turns[-1][0] == LEARNED)
        asked = max((at for at in range(answer) if turns[at][0] != LEARNED), default=-1)
        if asked < 0:
            self._refuse(sample, "no turn stands before the assistant's", "chats that ask something")
        text = turns[answer][1] if answer < len(turns) else None
        role, words, *more = turns[asked]
        turns[asked] = (role, self._say(sample, columns, words, text), *more)
        return replace(sample, messages=tuple(turns))

    def _say(self, sample: Sample, columns: Mapping[str, Any], prompt: str, text: str | None) -> str:
        """``text`` None: the data answer nothing, so that a template that names it fails."""
        from jinja2 import TemplateError

        there = {**columns, PROMPT: prompt} | ({} if text is None else {TEXT: text})
        try:
            made = self._written(there)
            made.encode()
            return made
        except TemplateError as error:
            known = ", ".join(there) + ("" if text is not None or TEXT in columns else " (the data answer nothing)")
            self._refuse(sample, f"the template fails: {error.message}", f"what there is: {known}")
        except OverflowError as error:
            self._refuse(sample, f"the template fails: {error}", "one that writes a prompt")
        except Exception as error:  # an expression in it, such as one that adds a number to a text
            self._refuse(sample, f"the template fails: {type(error).__name__}: {error}", "an expression over texts")

    def _written(self, there: Mapping[str, Any]) -> str:
        """What the template writes, as far as a prompt can be: one that writes on and on would take all memory."""
        parts: list[str] = []
        length = self._sandbox.steps = 0
        for part in self._template.generate(there):
            parts.append(part)
            length += len(part)
            if length > LONGEST:
                raise OverflowError(f"it writes more than {LONGEST:,} characters")
        return "".join(parts)

    def _refuse(self, sample: Sample, what: str, instead: str) -> NoReturn:
        raise MeshError(f"{sample.at or 'a sample'}: {what}", where=self.where, instead=instead)


def _sandbox() -> Any:
    """What templates are read in: nothing of Python can be reached, nothing is drawn, and no work takes all memory, or
    hours.
    """
    from jinja2 import StrictUndefined, Undefined, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))
        steps = 0

        def __init__(self) -> None:
            super().__init__(undefined=StrictUndefined, finalize=_written)
            del self.globals["lipsum"], self.filters["random"]  # what is drawn would differ each time
            self.filters[COUNTED] = self.count

        def counted(self, template: nodes.Template) -> nodes.Template:
            """The template with what its loops and filters read, and what it joins, counted before it is."""
            for loop in template.find_all(nodes.For):
                loop.iter = self._counted(loop.iter)
            for made in [*template.find_all(nodes.Filter)]:
                if made.node is not None and made.name != COUNTED:
                    made.node = self._counted(made.node)
            for joined in [*template.find_all(nodes.Concat)]:
                joined.nodes = [self._counted(one) for one in joined.nodes]
            for both in [*template.find_all(nodes.Add)]:
                both.left, both.right = self._counted(both.left), self._counted(both.right)
            return template

        def _counted(self, node: nodes.Node) -> nodes.Filter:
            return nodes.Filter(node, COUNTED, [], [], None, None, lineno=node.lineno, environment=self)

        def count(self, value: Any) -> Any:
            """The value, when its places are counted; what makes them one by one is counted as it does."""
            if isinstance(value, Undefined):
                return value
            self.spend(1 + (len(value) if hasattr(value, "__len__") else 0))
            return self._each(value) if isinstance(value, Iterator) else value

        def _each(self, values: Iterator[Any]) -> Iterator[Any]:
            for value in values:
                self.spend(1)
                yield value

        def spend(self, steps: int) -> None:
            self.steps += steps
            if self.steps > STEPS:
                raise OverflowError(f"it takes more than {STEPS:,} steps")

        def call(self, context: Context, called: Any, /, *args: Any, **settings: Any) -> Any:
            self.spend(CALL)
            return super().call(context, called, *args, **settings)

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and not (abs(left) <= LONGEST and abs(right) <= LARGEST_POWER):
                raise OverflowError(f"{left} ** {right} is too large")
            for many, often in ((left, right), (right, left)):
                if operator == "*" and hasattr(many, "__len__") and len(many) * often > LONGEST:
                    raise OverflowError(f"what has {len(many)} places is repeated {often} times")
            return super().call_binop(context, operator, left, right)

    return Sandbox()


def _written(value: Any) -> Any:
    """What stands between `{{` and `}}`, if it can be written. TypeError for what is no text and stands for none."""
    if isinstance(value, Mapping):
        raise TypeError(f"what it would write has parts: name one, {' or '.join(map(str, value))}")
    if callable(value) and not hasattr(value, "_undefined_name"):
        raise TypeError(f"{getattr(value, '__name__', value)} is called with parentheses")
    return value
