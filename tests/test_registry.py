import textwrap
import uuid

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / f"methods_{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "__init__.py").write_text("class Method: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def _write(folder, name, text):
    (folder / name).write_text(f"from {folder.name} import Method\n" + textwrap.dedent(text))


def _registry(folder):
    return Registry("method", folder.name, f"{folder.name}:Method")


def test_a_class_is_registered_by_being_defined(package):
    _write(package, "one.py", "class One(Method): pass\nclass _Hidden(Method): pass\n")
    _write(package, "two.py", f"from {package.name}.one import One\nclass Two(One): pass\n")
    _write(package, "base.py", "class Base(Method): registered = False\n")

    registry = _registry(package)

    assert list(registry) == ["One", "Two"]
    with pytest.raises(InputError, match="unknown method 'Tow'; did you mean 'Two'"):
        registry["Tow"]


def test_two_classes_of_one_name_are_refused(package):
    _write(package, "one.py", "class One(Method): pass\n")
    _write(package, "two.py", "class One(Method): pass\n")

    with pytest.raises(InputError, match=r"two methods are called One: .*one and .*two"):
        len(_registry(package))
