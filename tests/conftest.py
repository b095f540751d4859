"""What a test changes in torch for its own use is as before when the test after it begins."""

import sys

import pytest

pytest.register_assert_rewrite("checks")


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch := sys.modules.get("torch"):
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()
        assert torch.backends.mkldnn.enabled
        if threads is not None:
            torch.set_num_threads(threads)
