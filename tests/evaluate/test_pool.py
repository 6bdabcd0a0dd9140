import os
import re
import sqlite3
import threading
import zlib
from contextlib import closing
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


def test_what_is_there_is_left_as_it_is(somewhere):
    pool = Pool(somewhere.place)
    assert pool.get(KEY) is None
    pool.put(KEY, SCORES)
    pool.put(KEY, Scores(np.ones(2, dtype=np.float32), 9.0))
    pool.put(KEY, Scores(np.ones(4, dtype=np.float32), 9.0))
    assert len(pool) == 1
    again = Pool(somewhere.place)
    for opened in (pool, again):
        assert len(opened) == 1
        assert opened.get(KEY).per_sample.tobytes() == SCORES.per_sample.tobytes()
        assert opened.get(KEY).seconds == 0.125
        opened.close()


def test_more_samples_replace_fewer(somewhere):
    pool = Pool(somewhere.place)
    pool.put(KEY, SCORES)
    more = Scores(np.array([0.0, 1.0, 0.5, 0.25, 0.75], dtype=np.float32), 0.5)
    pool.put(KEY, more)
    assert len(pool) == 1
    assert pool.get(KEY).per_sample.tolist() == more.per_sample.tolist()
    assert pool.get(KEY).seconds == 0.5
    assert somewhere.execute("SELECT samples, quality FROM evaluations") == [(5, 0.5)]
    pool.close()


@pytest.mark.parametrize("field", ["network", "data", "scheme", "recipe", "metric", "bits"])
def test_every_part_of_a_key_matters(field):
    pool = Pool()
    pool.put(KEY, SCORES)
    other = replace(KEY, **{field: getattr(KEY, field) + "x"})
    assert other.fingerprint != KEY.fingerprint
    assert pool.get(other) is None
    pool.put(other, SCORES)
    assert len(pool) == 2
    pool.close()


def test_keys_of_any_length_are_kept(somewhere):
    pool = Pool(somewhere.place)
    long = Key(*(letter * 3000 if letter in "srm" else letter for letter in "ndsrm"), " ".join(["W4A8"] * 500))
    pool.put(long, SCORES)
    assert pool.get(long).per_sample.tolist() == SCORES.per_sample.tolist()
    pool.close()


def test_many_are_found_at_once(somewhere):
    pool = Pool(somewhere.place)
    keys = [replace(KEY, bits=str(i)) for i in range(450)]
    for i, key in enumerate(keys[:420]):
        pool.put(key, Scores(np.full(3, i, dtype=np.float32), float(i)))
    found = pool.get_many(reversed(keys))
    assert found.keys() == set(keys[:420])
    assert all(
        found[key].per_sample.tolist() == [i] * 3 and found[key].seconds == i for i, key in enumerate(keys[:420])
    )
    assert pool.get_many([]) == {}
    pool.close()


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


def test_rows_that_were_compressed_harder_are_read(somewhere):
    pool = Pool(somewhere.place)
    pool.put(KEY, SCORES)
    packed = zlib.compress(SCORES.per_sample.tobytes(), 9).hex()
    literal = f"x'{packed}'" if isinstance(somewhere.place, Path) else f"'\\x{packed}'"
    somewhere.execute(f"UPDATE evaluations SET scores = {literal}")
    assert pool.get(KEY).per_sample.tobytes() == SCORES.per_sample.tobytes()
    pool.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_another_schema_version_is_refused_and_left_alone(read_only, somewhere):
    Pool(somewhere.place).close()
    somewhere.execute("UPDATE about SET value = '7' WHERE key = 'schema'")
    with pytest.raises(
        somewhere.error, match=rf"expected a pool of schema version 1 in {re.escape(somewhere.name)}, got 7; "
    ):
        Pool(somewhere.place, read_only=read_only)
    assert somewhere.execute("SELECT key, value FROM about") == [("schema", "7")]


DAMAGE = {
    "no compression": "'abc'",
    "nothing": "''",
    "fewer than it says": zlib.compress(SCORES.per_sample[:3].tobytes()),
    "more than it says": zlib.compress(np.zeros(2_000_000, dtype="<f4").tobytes()),
    "half a row": zlib.compress(SCORES.per_sample.tobytes())[:-6],
    "no numbers": zlib.compress(np.full(4, np.nan, dtype="<f4").tobytes()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_row_is_named(name, somewhere):
    pool = Pool(somewhere.place)
    pool.put(KEY, SCORES)
    pool.put(replace(KEY, bits="W2A2"), SCORES)
    value = DAMAGE[name]
    if isinstance(value, bytes):
        value = f"x'{value.hex()}'" if isinstance(somewhere.place, Path) else f"'\\x{value.hex()}'"
    somewhere.execute(f"UPDATE evaluations SET scores = {value} WHERE bits = 'W8A8 W4A8'")
    sentence = rf"expected the scores of W8A8 W4A8 in {re.escape(somewhere.name)}, got damaged ones \("
    for ask in (lambda: pool.get(KEY), lambda: pool.get_many([replace(KEY, bits="W2A2"), KEY])):
        with pytest.raises(somewhere.error, match=sentence):
            ask()
    assert pool.get(replace(KEY, bits="W2A2")).per_sample.tolist() == SCORES.per_sample.tolist()
    pool.close()


@pytest.mark.parametrize("samples", ["'many'", "1e999", "NULL", "-1", "2.5", "9223372036854775807"])
def test_a_damaged_number_of_samples_is_found_and_not_passed_on(samples, tmp_path):
    path = tmp_path / "pool.db"
    pool, other = Pool(path), Pool()
    pool.put(KEY, SCORES)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE evaluations DROP COLUMN samples")
        database.execute(f"ALTER TABLE evaluations ADD COLUMN samples DEFAULT {samples}")
    for ask in (lambda: pool.get(KEY), lambda: pool.share(other)):
        with pytest.raises(RunFolderError, match=r"expected the scores of W8A8 W4A8 in .*pool.db, got damaged ones \("):
            ask()
    assert len(other) == 0


def test_a_row_that_nobody_asked_for_is_a_damaged_pool(tmp_path):
    path = tmp_path / "pool.db"
    pool = Pool(path)
    pool.put(KEY, SCORES)
    pool.close()
    with closing(sqlite3.connect(path)) as database, database:
        (made,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'evaluations'").fetchone()
        database.execute("ALTER TABLE evaluations RENAME TO before")
        database.execute(made.replace("fingerprint VARCHAR(32)", "fingerprint VARCHAR(32) COLLATE NOCASE"))
        database.execute("INSERT INTO evaluations SELECT * FROM before")
        database.execute("UPDATE evaluations SET fingerprint = upper(fingerprint)")
    with pytest.raises(RunFolderError, match=r"expected an index of its own rows in .*pool.db, got another one's"):
        Pool(path).get(KEY)


def test_a_pool_may_be_read_only(somewhere):
    with pytest.raises(somewhere.error, match="expected a pool of evaluations in "):
        Pool(somewhere.place, read_only=True)
    writer = Pool(somewhere.place)
    writer.put(KEY, SCORES)
    reader = Pool(somewhere.place, read_only=True)
    assert (reader.is_read_only, writer.is_read_only) == (True, False)
    assert reader.get(KEY).per_sample.tolist() == SCORES.per_sample.tolist()
    with pytest.raises(somewhere.error, match=r"read-?only"):
        reader.put(replace(KEY, bits="W2A2"), SCORES)
    assert len(reader) == len(writer) == 1
    for pool in (reader, writer):
        pool.close()


def test_what_another_pool_lacks_is_passed_on(somewhere):
    ours, theirs = Pool(), Pool(somewhere.place)
    keys = [replace(KEY, bits=str(i)) for i in range(430)]
    for i, key in enumerate(keys):
        ours.put(key, Scores(np.full(4, i, dtype=np.float32), 1.0))
    for key, samples in ((keys[0], 2), (keys[1], 4), (keys[2], 6)):
        theirs.put(key, Scores(np.full(samples, -1, dtype=np.float32), 2.0))
    ours.share(theirs)
    assert len(theirs) == 430
    found = theirs.get_many(keys)
    assert [found[key].per_sample.tolist() for key in keys[:4]] == [[0] * 4, [-1] * 4, [-1] * 6, [3] * 4]
    assert all(found[key].per_sample.tolist() == [i] * 4 for i, key in enumerate(keys) if i not in (1, 2))
    for pool in (ours, theirs):
        pool.close()


def test_a_child_leaves_its_parents_connections_alone(somewhere):
    pool = Pool(somewhere.place)
    pool.put(KEY, SCORES)
    child = os.fork()
    if child == 0:
        pool.put(replace(KEY, bits="W2A2"), SCORES)
        pool.close()
        os._exit(0 if len(pool) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.put(replace(KEY, bits="W4A4"), SCORES)
    assert len(pool) == 3
    pool.close()


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
    with pytest.raises(RunFolderError, match="has no column named"):
        pool.put(KEY, SCORES)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS {} FROM n"
PROGRAMS = {
    "view 'about'": ["DROP TABLE about", f"CREATE VIEW about AS {ENDLESS.format('key')}"],
    "view 'evaluations'": ["DROP TABLE evaluations", f"CREATE VIEW evaluations AS {ENDLESS.format('fingerprint')}"],
    "trigger 'also'": ["CREATE TRIGGER also AFTER INSERT ON evaluations BEGIN DELETE FROM evaluations; END"],
}


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_in_a_file_is_run(program, read_only, tmp_path):
    path = tmp_path / "pool.db"
    Pool(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        for statement in PROGRAMS[program]:
            database.execute(statement)
    before = path.read_bytes()

    with pytest.raises(RunFolderError, match=f"expected tables alone in .*pool.db, got the {program}; explore again"):
        Pool(path, read_only=read_only)

    assert path.read_bytes() == before


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


def test_a_schema_that_is_no_text_is_a_damaged_pool(tmp_path):
    """The database's own complaint quotes it, and cannot be decoded."""
    path = tmp_path / "evaluations.db"
    Pool(path).close()
    content = path.read_bytes()
    assert b"evaluationsevaluations" in content
    broken = content.replace(b"evaluationsevaluations", b"\xcf" * 22).replace(
        b"CREATE TABLE eval", b"BREAK! TABLE eval"
    )
    path.write_bytes(broken)
    with pytest.raises(RunFolderError, match="expected a pool of evaluations in"):
        Pool(path).get(Key("n", "d", "s", "r", "m", "b"))
