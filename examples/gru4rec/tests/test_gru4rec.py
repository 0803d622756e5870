"""GRU4Rec holds what every model of seqrec-export promises."""

import pytest
from seqrec_gru4rec import MODEL

from seqrec_export.testing import Check, checks

SMALL = {"dim": 16, "max_length": 9}


@pytest.mark.parametrize("check", checks(MODEL, SMALL))
def test_gru4rec(check: Check) -> None:
    check()
