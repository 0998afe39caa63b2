"""The suite is no test file of its own, so pytest has to be told to explain its assertions."""

import pytest

pytest.register_assert_rewrite("tests.contract.tier_contract")
