import sys

import pytest

from hwdse.errors import InputError
from hwdse.examples import digits
from hwdse.factories import load_factory


@pytest.fixture
def write(tmp_path):
    def write(text, name="parts.py", folder="here"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
        return tmp_path / folder

    return write


def test_packages_and_files(write):
    assert load_factory("hwdse.examples:digits", folder=write("")) is digits
    assert load_factory("parts.py:five", folder=write("def five(): return 5"))() == 5


def test_files_of_one_name_do_not_meet(write):
    one = load_factory("parts.py:number", folder=write("def number(): return 1", folder="one"))
    two = load_factory("parts.py:number", folder=write("def number(): return 2", folder="two"))
    assert (one(), two()) == (1, 2)
    assert one.__module__ != two.__module__
    assert "parts" not in sys.modules


def test_a_file_is_run_once(write):
    folder = write("import itertools\ncalls = itertools.count()\nfirst = next(calls)\ndef count(): return next(calls)")
    assert [load_factory("parts.py:count", folder=folder)() for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("parts.py", "", "package.module:function or file.py:function, got 'parts.py'"),
        (":five", "", "got ':five'"),
        ("parts.py:", "", "got 'parts.py:'"),
        ("parts.py:a.b", "", "got 'parts.py:a.b'"),
        ("other.py:five", "", r"expected a Python file for factory 'other.py:five', got no file .*other\.py"),
        ("parts.py:fife", "def five(): pass", r"function 'fife' in parts\.py, got none; did you mean five\?"),
        ("parts.py:zzz", "def five(): pass\ndef _six(): pass", "got none; it has five"),
        ("parts.py:zzz", "", "got none; it has none"),
        ("parts.py:number", "number = 5", "expected a function 'number' in parts.py, got none"),
        ("parts.py:five", "def five(:", "to import, got SyntaxError: .*; run its file on its own"),
        ("parts.py:five", "1 / 0", "to import, got ZeroDivisionError: division by zero"),
        ("parts.py:five", "raise SystemExit(3)", "to import, got SystemExit: 3"),
        ("parts.py:five", "import no_such_thing", "got ModuleNotFoundError: No module named 'no_such_thing'"),
        ("no.such:five", "", r"expected an installed module for factory .no\.such:five., got: No module named .no."),
        ("hwdse.examples:digit", "", r"function 'digit' in hwdse.examples, got none; did you mean digits\?"),
    ],
)
def test_what_is_wrong_is_named(name, text, sentence, write):
    with pytest.raises(InputError, match=sentence):
        load_factory(name, folder=write(text))


def test_a_file_that_explains_itself_is_quoted(write):
    folder = write("from hwdse.errors import InputError\nraise InputError('expected data, got none; fetch them')")
    with pytest.raises(InputError, match=r"^expected data, got none; fetch them$"):
        load_factory("parts.py:five", folder=folder)


def test_a_file_that_failed_is_tried_again(write):
    folder = write("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load_factory("parts.py:five", folder=folder)
    write("def five(): return 5")
    assert load_factory("parts.py:five", folder=folder)() == 5


def test_a_file_beside_is_offered_for_a_module_that_is_not_installed(tmp_path):
    (tmp_path / "my_net.py").write_text("def model():\n    return 5\n")
    with pytest.raises(InputError, match=r"No module named 'my_net'; did you mean my_net\.py:model, the file beside\?"):
        load_factory("my_net:model", folder=tmp_path)
