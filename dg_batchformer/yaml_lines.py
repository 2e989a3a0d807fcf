"""YAML in which every value remembers its line, so that an error can point at it."""

from pathlib import Path
from typing import Any

import yaml

from dg_batchformer.errors import InputError
from dg_batchformer.regular_files import TEXT, read_text

Key = tuple[str | int, ...]


class LinedYaml:
    """A YAML document (safe types only) with the line of every key and item.

    Raises InputError for a file that cannot be read, is not YAML, or gives a key twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Key, int] = {}
        self._built: dict[int, Any] = {}  # by node, so that anchors are shared and never multiply
        try:
            text = read_text(path, TEXT)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        try:
            self._loader = yaml.SafeLoader(text)
            root = self._loader.get_single_node()
            self.data = None if root is None else self._build(root, ())
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from None
        except RecursionError:
            raise InputError(f"{path}: not valid YAML: an anchor holds itself, or nesting is too deep") from None
        except InputError:
            raise
        except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None

    def error(self, key: Key, message: str) -> InputError:
        """Build an error that names the file and the line of a key (or of what is nearest above it)."""
        while key not in self.lines and key:
            key = key[:-1]
        return InputError(f"{self.path}:{self.lines.get(key, 1)}: {message}")

    def _build(self, node: yaml.Node, key: Key) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if id(node) not in self._built:
            self._built[id(node)] = self._construct(node, key)
        return self._built[id(node)]

    def _construct(self, node: yaml.Node, key: Key) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*key, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._loader.construct_object(node)
        mapping: dict[str, Any] = {}
        for name_node, value in node.value:
            name = str(name_node.value)
            self.lines[(*key, name)] = name_node.start_mark.line + 1
            if name in mapping:
                raise self.error((*key, name), f"key {name!r} is given twice")
            mapping[name] = self._build(value, (*key, name))
        return mapping
