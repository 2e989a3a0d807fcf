"""YAML parsing that keeps the line of every value, for error messages, and its text, which may be a name."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import YAML, read_text

Key = tuple[str | int, ...]

# YAML 1.1 parses 010 as 8 and 1:30 as 90, which users do not expect.
_SURPRISING = re.compile(r"[-+]?0[0-9_]+|.*:.*")


class LinedYaml:
    """A YAML document (safe types only) with the line of every key and item.

    ``comment`` is the text of the comment at the top.

    Raises InputError if the file cannot be read, is not valid YAML, or has a duplicate key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Key, int] = {}
        self._root: yaml.Node | None = None
        self._built: dict[int, Any] = {}  # by node, so that nested anchors do not multiply
        try:
            text = read_text(path, YAML)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        leading = takewhile(lambda line: line.startswith("#"), text.lstrip().splitlines())
        self.comment = " ".join(line.strip("# ") for line in leading).strip()
        try:
            self._loader = yaml.SafeLoader(text)
            self._root = self._loader.get_single_node()
            self.data = None if self._root is None else self._build(self._root, ())
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from None
        except RecursionError:
            raise InputError(f"{path}: not valid YAML: an anchor contains itself, or nesting is too deep") from None
        except InputError:
            raise
        except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None

    def error(self, key: Key, message: str) -> InputError:
        """Build an error with the file and the line of a key, or of its closest parent with a line."""
        while key not in self.lines and key:
            key = key[:-1]
        return InputError(f"{self.path}:{self.lines.get(key, 1)}: {message}")

    def text(self, key: Key) -> str | None:
        """Return the value of a key as written, such as ``010``, ``no`` or ``~``; None for a list or mapping."""
        node = self._root
        for part in key:
            assert isinstance(node, yaml.CollectionNode)  # the key exists in ``data``
            by_name = {str(name.value): value for name, value in node.value} if isinstance(part, str) else node.value
            node = by_name[part]
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def _build(self, node: yaml.Node, key: Key) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if id(node) not in self._built:
            self._built[id(node)] = self._construct(node, key)
        return self._built[id(node)]

    def _construct(self, node: yaml.Node, key: Key) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*key, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            value = self._loader.construct_object(node)
            is_text = isinstance(value, int | float) and _SURPRISING.fullmatch(node.value)
            return node.value if is_text else value
        mapping: dict[str, Any] = {}
        for name_node, value in node.value:
            name = str(name_node.value)
            self.lines[(*key, name)] = name_node.start_mark.line + 1
            if name in mapping:
                raise self.error((*key, name), f"key {name!r} is given twice")
            mapping[name] = self._build(value, (*key, name))
        return mapping
