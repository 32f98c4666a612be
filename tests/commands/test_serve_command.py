"""What `myna serve` adds to the server: models by their names."""

from pathlib import Path

import pytest

from myna.commands.serve import _pulled
from myna.provider.local import Loading
from myna.records import RequestError


@pytest.mark.parametrize("name", ["nope", "../../etc", "/etc", ""])
def test_a_model_that_a_client_names_and_that_is_not_here_is_the_clients_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYNA_HOME", str(tmp_path))
    with pytest.raises(RequestError) as raised:
        _pulled(name, Loading())
    assert (raised.value.param, raised.value.code) == ("model", "model_not_found")
