import os
import sqlite3
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwdse.errors import RunFolderError
from hwdse.evaluate import Key, Pool, Scores

KEY = Key(network="n", data="d", scheme="s", recipe="r", metric="top1", bits="W8A8 W4A8")
SCORES = Scores(np.array([0.0, 1.0, 0.1, -3e-8], dtype=np.float32), 0.125)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.floats(0, 1e6, allow_nan=False),
)
def test_scores_come_back_bit_for_bit(values, seconds):
    pool = Pool()
    pool.put(KEY, Scores(values, seconds))
    kept = pool.get(KEY)
    assert kept.per_sample.dtype == np.float32
    assert kept.per_sample.tobytes() == values.tobytes()
    assert kept.seconds == seconds
    pool.close()


def test_what_is_there_is_left_as_it_is(tmp_path):
    pool = Pool(tmp_path / "pool.db")
    assert pool.get(KEY) is None
    pool.put(KEY, SCORES)
    pool.put(KEY, Scores(np.ones(2, dtype=np.float32), 9.0))
    assert len(pool) == 1
    assert pool.get(KEY).per_sample.tolist() == SCORES.per_sample.tolist()
    assert pool.get(KEY).seconds == 0.125
    again = Pool(tmp_path / "pool.db")
    assert len(again) == 1
    assert again.get(KEY).per_sample.tolist() == SCORES.per_sample.tolist()


@pytest.mark.parametrize("field", ["network", "data", "scheme", "recipe", "metric", "bits"])
def test_every_part_of_a_key_matters(field):
    pool = Pool()
    pool.put(KEY, SCORES)
    other = replace(KEY, **{field: getattr(KEY, field) + "x"})
    assert other.fingerprint != KEY.fingerprint
    assert pool.get(other) is None
    pool.put(other, SCORES)
    assert len(pool) == 2


def test_nothing_is_pickled(tmp_path):
    pool = Pool(tmp_path / "pool.db")
    pool.put(KEY, SCORES)
    pool.close()
    database = sqlite3.connect(tmp_path / "pool.db")
    row = dict(zip([c[1] for c in database.execute("PRAGMA table_info(evaluations)")],
                   database.execute("SELECT * FROM evaluations").fetchone(), strict=True))  # fmt: skip
    database.close()
    assert zlib.decompress(row.pop("scores")) == SCORES.per_sample.astype("<f4").tobytes()
    assert all(isinstance(value, str | int | float) for value in row.values())
    assert row["quality"] == pytest.approx(float(SCORES.per_sample.mean(dtype=np.float64)))
    assert row["samples"] == 4
    assert {k: row[k] for k in vars(KEY)} == vars(KEY)


def test_another_schema_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "pool.db"
    Pool(path).close()
    database = sqlite3.connect(path)
    database.execute("UPDATE about SET value = '7' WHERE key = 'schema'")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(RunFolderError, match=r"schema version 1 in .*pool\.db, got 7; explore again"):
        Pool(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_pool_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "pool.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(
        RunFolderError, match=r"expected a pool of evaluations in .*pool\.db, got: file is not a database"
    ):
        Pool(path)
    assert path.read_bytes() == b"no database" * 100


def test_a_pool_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "pool.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE evaluations (fingerprint TEXT PRIMARY KEY)")
    database.commit()
    database.close()
    pool = Pool(path)
    with pytest.raises(RunFolderError, match="no such column"):
        pool.get(KEY)
    with pytest.raises(RunFolderError, match="no such column"):
        pool.put(KEY, SCORES)


@pytest.mark.parametrize("name", ["a?b=1", "a#b", "100%25", "a b", "ü;&"])
def test_a_folder_may_have_any_name(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    pool = Pool(folder / "pool.db")
    pool.put(KEY, SCORES)
    pool.close()
    assert [p.name for p in folder.iterdir()] == ["pool.db"]
    assert os.listdir(tmp_path) == [name]


def test_writers_need_no_coordination(tmp_path):
    path = tmp_path / "pool.db"
    Pool(path).close()

    def write(first: int) -> None:
        pool = Pool(path)
        for i in range(first, first + 12):
            pool.put(replace(KEY, bits=str(i)), Scores(np.full(3, i, dtype=np.float32), 1.0))
        pool.close()

    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 6, 12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    pool = Pool(path)
    assert len(pool) == 24
    assert all(pool.get(replace(KEY, bits=str(i))).per_sample.tolist() == [i] * 3 for i in range(24))


def test_a_pool_needs_a_folder():
    with pytest.raises(RunFolderError, match="unable to open database file"):
        Pool(Path("/nonexistent/folder/pool.db"))
