"""Code blocks of the documentation and of the README are tests: see tests/code_blocks.py."""

from sybil import Sybil

from tests import code_blocks

pytest_collect_file = (
    Sybil(
        parsers=code_blocks.PARSERS,
        patterns=["docs/*.md"],
        setup=code_blocks.enter_folder,
        teardown=code_blocks.leave_folder,
    )
    + Sybil(
        parsers=code_blocks.PARSERS,
        patterns=["README.md"],
        excludes=["*/README.md"],
        setup=code_blocks.enter_folder_of_readme,
        teardown=code_blocks.leave_folder,
    )
).pytest()
