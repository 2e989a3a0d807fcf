"""Import third-party code, and say in one sentence why it cannot be imported."""

import traceback
from collections.abc import Callable
from typing import Any

from dg_batchformer.errors import InputError


def import_foreign(what: str, module: str, load: Callable[[], Any]) -> Any:
    """Call a function that imports third-party code, and return its value; raise InputError for any exception.

    Args:
        what: is imported, for messages, such as "plug-in my_module".
        module: name of the imported module, to tell a missing one from a missing dependency.
        load: imports it.

    """
    try:
        return load()
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"{what}: there is no module {error.name}; run from the folder that contains it, or add that folder to "
                "PYTHONPATH"
            ) from None
        raise InputError(f"{what} needs the module {error.name}, which is not installed") from None
    except (Exception, SystemExit) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"  # it has both
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} cannot be imported: {reason}{where}") from None
