import subprocess
import sys

import pytest
import torch

from hwdse.errors import InputError
from hwdse.evaluate.fingerprint import fingerprint_of_batches
from hwdse.examples import _data, digits, digits_calibration, digits_evaluation, digits_example


@pytest.fixture(scope="module")
def network():
    return digits()


def address(model) -> str:
    return fingerprint_of_batches([list(model.state_dict().values())])


def test_it_is_accurate_on_images_it_has_not_seen(network):
    with torch.no_grad():
        right = sum(int((network(x).argmax(-1) == y).sum()) for x, y in digits_evaluation())
    samples = sum(len(y) for _, y in digits_evaluation())
    assert samples == 597
    assert right / samples > 0.97
    assert not network.training


def test_the_same_seed_gives_the_same_weights_with_any_number_of_threads(network):
    code = (
        "import torch; torch.set_num_threads(2); from hwdse.examples import digits\n"
        "from hwdse.evaluate.fingerprint import fingerprint_of_batches as address\n"
        "print(address([list(digits().state_dict().values())]), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == [address(network), "2"]


def test_another_seed_gives_other_weights_and_the_random_state_stays(network):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    assert address(digits(seed=1)) != address(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_nothing_is_evaluated_on_that_was_trained_or_calibrated_on():
    images, _ = _data()
    held_out = torch.cat([x for x, _ in digits_evaluation()])
    calibration = torch.cat(digits_calibration())
    assert torch.equal(held_out, images[-597:])
    assert torch.equal(calibration, images[:256])
    assert len(images) == 1797 > 256 + 597


def test_the_example_is_like_a_batch(network):
    assert network(digits_example()).shape == (2, 10)
    assert digits_example().shape[1:] == digits_calibration()[0].shape[1:]


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    _data.cache_clear()
    with pytest.raises(InputError, match=r"expected scikit-learn .*, got none; pip install hwdse\[examples\]"):
        digits()
    _data.cache_clear()
