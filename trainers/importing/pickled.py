"""Reads the pickles that hold weights, without unpickling them.

A pickle is a program for a small stack machine, and one of its instructions calls any function that Python can import. This
interpreter knows the instructions that saved tensors use; what a file wants to call is looked up in a table of our own
functions, and everything else is refused by name. Nothing is imported, no attribute is read or set, no foreign object is made.
Instructions: the comments of CPython's `pickletools`, whose `genops` decodes them here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

from configs.errors import DataError

MAX_INSTRUCTIONS = 300_000
"""Weights of BERT-large take about 20,000."""


MAX_SHARING = 4
"""Tensors may share their elements (tied weights); all together they may be this many times as large as the file."""


class Bytes(Protocol):
    """A file or a memory map."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self) -> bytes: ...


class Symbol(NamedTuple):
    """A function or class that the file names; only its name is here."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Grammar:
    """What one kind of file may name."""

    functions: Mapping[Symbol, Callable[..., Any]]
    """What may be called, and what of ours is called instead."""
    names: frozenset[Symbol] = frozenset()
    """What may be named as an argument, but not called."""
    persistent: Callable[[Any], Any] | None = None
    """Makes an object from a persistent id; None: the file may not have any."""
    builders: Mapping[type, Callable[[Any, Any], None]] = field(default_factory=dict)
    """By our types: what takes an object and the state that the file gives to what it stands for."""


class Budget:
    """Bytes that may still be made of a file: what it refers to twice must not fill the memory."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes

    def take(self, num_bytes: int) -> None:
        """Count bytes; ValueError when there are more than allowed."""
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("its content refers to itself so often that it is many times as large as the file")


def ordered_dict(*arguments: Any) -> dict[Any, Any]:
    """Stands for collections.OrderedDict, which is pickled empty and filled afterwards (or, long ago, as a list of pairs)."""
    if not arguments:
        return {}
    (pairs,) = arguments
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise ValueError("a dictionary of something else than pairs")
    return {_key(pair[0]): pair[1] for pair in pairs}


def read_pickle(stream: Bytes, grammar: Grammar, where: str) -> Any:
    """The value of one pickle; `where` names the file. The stream is left behind its end.

    Raises DataError for an instruction or a name that weights do not need, and for a damaged file. Nothing of the file is run.
    """
    machine = _Machine(grammar, where)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream), start=1):  # type: ignore[arg-type]
            if number > MAX_INSTRUCTIONS:
                machine.refuse(f"it has more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except DataError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{where}: damaged, or not a file of weights ({error})", "copy it again from its source"
        ) from error
    raise DataError(f"{where}: ends in the middle", "copy it again from its source")


def _key(value: Any) -> str | int:
    # Only these: hashing nested tuples of a hostile file could take for ever.
    if isinstance(value, (str, int)):
        return value
    raise ValueError(f"a dictionary key of type {type(value).__name__}")


@dataclass
class _Machine:
    grammar: Grammar
    where: str
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def refuse(self, what: str) -> NoReturn:
        raise DataError(
            f"{self.where}: refused: {what}. Weights do not need that; nothing of the file was run",
            "get the model as safetensors (model.safetensors) from a source you trust",
        )

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("an instruction finds nothing to work on")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def run(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            self.refuse(f"it uses the instruction {name}")

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            self.refuse("it sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            self.refuse("it appends to something that is no list")
        target.extend(items)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name_symbol(self, symbol: Symbol) -> None:
        if symbol not in self.grammar.functions and symbol not in self.grammar.names:
            self.refuse(f"it asks for {symbol}")
        self.stack.append(symbol)

    def stack_symbol(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.refuse("it asks for something without a name")
        self.name_symbol(Symbol(module, name))

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Symbol) or target not in self.grammar.functions or not isinstance(arguments, tuple):
            self.refuse(
                f"it calls {target if isinstance(target, Symbol) else f'an object of type {type(target).__name__}'}"
            )
        self.stack.append(self.grammar.functions[target](*arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        builder = self.grammar.builders.get(type(target))
        if builder is not None:
            builder(target, state)
        elif not isinstance(target, dict):  # an OrderedDict's attributes (PyTorch's _metadata) hold no weights
            self.refuse(f"it sets the state of an object of type {type(target).__name__}")

    def persistent(self) -> None:
        if self.grammar.persistent is None:
            self.refuse("it refers to objects outside the file")
        self.stack.append(self.grammar.persistent(self.pop()))


_IGNORED = frozenset(("PROTO", "FRAME"))
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINSTRING", "SHORT_BINSTRING"),
    )
)
"""Instructions that push their own argument. Strings of Python 2 arrive as text in latin-1."""
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "BINPUT": lambda machine, index: machine.put(index),
    "LONG_BINPUT": lambda machine, index: machine.put(index),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": lambda machine, text: machine.name_symbol(Symbol(*text.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.stack_symbol(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
}
