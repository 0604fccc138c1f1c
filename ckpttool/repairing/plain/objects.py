"""Objects of any class as plain data: their attributes as a dict, their items as a list, their value."""

from __future__ import annotations

from ckpttool.editing import Editor
from ckpttool.model import Call, Global, Mapping, Node, Sequence, Value
from ckpttool.repairing.plain.allowed import is_allowed
from ckpttool.repairing.plain.made import Made, described, dict_of, removed
from ckpttool.repairing.plain.meanings import MEANINGS
from ckpttool.repairing.plain.numpy_rest import of_numpy
from ckpttool.repairing.plain.standard import pairs_of, text_of
from ckpttool.safety import canonical, may_be_called, standing


def of_call(editor: Editor, node: Call) -> Made:
    """What an object becomes. Objects that torch builds stay; of classes that nobody should load a text is left."""
    if node.how == "PERSID":
        return removed("a persistent id that is no storage")
    module, name = canonical(node.module, node.name)
    special = MEANINGS.get((module, name))
    made = None if special is None else special(editor, node)
    if made is not None:
        return made
    text = text_of(editor.nodes, module, node)
    if text is not None:
        return Made(Value(text), f"{module}.{name}", "text")
    made = of_numpy(editor, module, node)
    return _by_standing(editor, node, module, name) if made is None else made


def of_name(node: Global) -> Made:
    """What a class or function becomes that is named and not called."""
    if is_allowed(node.module, node.name):
        return Made(node)
    module, name = canonical(node.module, node.name)
    if is_allowed(module, name):
        return Made(Global(module, name), node.dotted, f"{module}.{name}, as it is called today")
    unsafe = standing(node.module, node.name) == "unsafe"
    return removed(node.dotted) if unsafe else Made(Value(node.dotted), node.dotted, "its name as text", "describe")


def _by_standing(editor: Editor, node: Call, module: str, name: str) -> Made:
    cls = _class_of(editor, node)
    if cls is None and may_be_called(module, name) in ("as torch does", "never"):
        return described(f"{node.dotted} with arguments that torch does not write")
    dotted = node.dotted if cls is None else cls.dotted
    judged = standing(module, name) if cls is None else standing(cls.module, cls.name)
    # ``object`` and the builtin containers are what old pickles name beside the class itself.
    if judged == "unsafe":
        return removed(dotted)
    return _attributes(editor, node, dotted)


def _class_of(editor: Editor, node: Call) -> Global | None:
    """The class that ``copyreg._reconstructor(class, base, state)`` makes an object of."""
    if canonical(node.module, node.name) != ("copyreg", "_reconstructor") or not node.args:
        return None
    cls = editor.nodes[node.args[0]]
    return cls if isinstance(cls, Global) else None


# --- objects of any class ------------------------------------------------------------------------------------


def _attributes(editor: Editor, node: Call, dotted: str) -> Made:
    """An object by what pickle set on it: entries, items, attributes; else what it was called with."""
    nodes = editor.nodes
    state = None if node.state is None else nodes[node.state]
    pairs = pairs_of(nodes, state)
    inner = _wrapped(editor, dotted, pairs or [])
    if inner is not None:
        return Made(inner, dotted, "what it holds")
    if pairs is None and state is not None and not (isinstance(state, Value) and state.value is None):
        pairs = [(editor.value("state"), node.state or 0)]
    if node.keys:
        return _entries(editor, node, pairs or [], dotted)
    if node.items:
        items = Sequence("list", node.items)
        if not pairs:
            return Made(items, dotted, "a list")
        return Made(dict_of([(editor.value("items"), editor.put(items)), *pairs]), dotted, "a dict")
    if pairs is not None:
        return Made(dict_of(pairs), dotted, "a dict of its attributes")
    return _arguments(editor, node, dotted)


def _entries(editor: Editor, node: Call, pairs: list[tuple[int, int]], dotted: str) -> Made:
    entries = list(zip(node.keys, node.values, strict=True))
    if node.items:
        entries.append((editor.value("items"), editor.put(Sequence("list", node.items))))
    known = {_face(editor.nodes[key]) for key, _ in entries}
    entries += [(key, value) for key, value in pairs if _face(editor.nodes[key]) not in known]
    return Made(dict_of(entries), dotted, "a dict")


def _face(node: Node) -> object:
    return (type(node.value), node.value) if isinstance(node, Value) else node


def _arguments(editor: Editor, node: Call, dotted: str) -> Made:
    """An object without attributes: an enum's member, a tuple with names, what a function of a project makes."""
    args = node.args[2:] if node.name == "_reconstructor" else node.args
    args = args[:-1] if node.how == "NEWOBJ_EX" else args
    if not args:
        return described(dotted)
    if len(args) == 1:
        return Made(args[0], dotted, "its value")
    if node.how.startswith("NEWOBJ"):
        return Made(Sequence("tuple", args), dotted, "a tuple")
    named = [("call", editor.value(dotted)), ("args", editor.put(Sequence("tuple", args)))]
    return Made(dict_of([(editor.value(key), value) for key, value in named]), dotted, "a dict of its arguments")


def _wrapped(editor: Editor, dotted: str, pairs: list[tuple[int, int]]) -> int | None:
    """The node that a wrapper is about: OmegaConf's ``_content`` and ``_val``, pydantic's ``__dict__``."""
    named = {}
    for key, value in pairs:
        text = editor.nodes[key]
        if isinstance(text, Value) and isinstance(text.value, str):
            named[text.value] = value
    if dotted.startswith("omegaconf."):
        return named.get("_content", named.get("_val"))
    inner = named.get("__dict__")
    if inner is not None and isinstance(editor.nodes[inner], Mapping):
        return inner
    return None
