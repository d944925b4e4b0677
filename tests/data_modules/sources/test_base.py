"""What all sources have in common."""

import pkgutil

import data_modules.sources
from cmrvlm.runs.code_key import import_closure


def test_sources_do_not_import_storage():
    """Storage knows sources; the other way round would be a circle of packages."""
    modules = [
        found.name
        for found in pkgutil.walk_packages(data_modules.sources.__path__, "data_modules.sources.")
    ]
    closure = import_closure(modules)
    assert "data_modules.sources.base" in closure
    assert not [name for name in closure if name.startswith("data_modules.storage")]
