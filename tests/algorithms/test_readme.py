import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_of_algorithms_is_what_the_registry_says():
    tool = runpy.run_path(str(ROOT / "tools" / "algorithms_readme.py"))

    assert tool["README"].read_text() == tool["readme"](), "run tools/algorithms_readme.py"
