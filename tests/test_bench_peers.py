"""The benchmark beside libraries in other environments: its processes, its verdict, its network."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import _again
import _bench
import peers
from _bench import Timing, faster

TOY = """
import sys
sys.path.append({folder!r})
from _peer import given, serve

images = given()["images"]

def doubled(amount):
    print("a library's progress")
    return 2 * images[:amount]

serve({{"toy: doubled": doubled}}, "numpy")
"""


def test_a_process_answers_with_times_and_maps_whatever_its_library_prints(tmp_path, monkeypatch):
    images = np.arange(12.0).reshape(3, 2, 2)
    np.savez(tmp_path / "given.npz", images=images)
    script = TOY.format(folder=str(peers.HERE))
    (tmp_path / "_peer_toy.py").write_text(script)
    monkeypatch.setattr(peers, "HERE", tmp_path)
    monkeypatch.setitem(peers.PROCESSES, "toy", (Path(sys.executable), ("toy",)))
    worker = peers.start("toy", tmp_path / "given.npz")
    assert worker.methods == ["toy: doubled"]
    assert worker.versions == {"numpy": np.__version__}
    times = peers.ask(worker, "toy: doubled", 2, tmp_path / "map.npy")
    assert len(times) == 2
    assert all(0 <= time < 10 for time in times)
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), 2 * images[:2])
    worker.process.stdin.write(json.dumps(["toy: no such method", 1, None]) + "\n")
    with pytest.raises(SystemExit, match="ended with"):
        peers.ask(worker, "toy: doubled", 1)
    worker.process.stdin.close()


@pytest.mark.parametrize(
    ("one", "other", "way"),
    [
        ([1.0] * 10, [2.0] * 10, 1),
        ([1.0] * 10, [2.0] * 9 + [0.5], 1),
        ([1.0] * 10, [2.0] * 8 + [0.5] * 2, 0),
        ([2.0] * 10, [1.0] * 9 + [3.0], -1),
    ],
)
def test_faster_is_what_nine_rounds_of_ten_say(one, other, way):
    assert faster(one, other) == way


def test_the_verdict_names_rows_in_which_a_library_is_ahead_or_rounds_disagree():
    def timings(theirs, bare):
        taken = {
            "this course": [2.0, 2.0],
            "Xplique": theirs,
            "course": [1.0, 1.0],
            "xplique": bare,
        }
        return {name: Timing([], cpu, 0.0) for name, cpu in taken.items()}

    ahead = {"a": timings([3.0, 3.0], [1.0, 1.0]), "b": timings([4.0, 5.0], [1.0, 1.0])}
    assert peers.verdicts(ahead).count(", in every row.") == 2
    mixed = peers.verdicts(
        {**ahead, "c": timings([1.0, 3.0], [1.0, 1.0]), "d": timings([3.0, 3.0], [2.0, 2.0])}
    )
    assert mixed.count(", in every row but these.") == 2
    by_time, by_share = mixed.split("\n\n")
    assert "A library" not in by_time
    assert by_time.endswith("disagree: c (Xplique, 1.00 times as much).")
    assert "takes less: d (Xplique, 0.75 times as much)." in by_share


def test_maps_are_compared_each_on_its_own_scale():
    maps = np.array([[[0.0, 1.0]], [[0.0, 0.0]], [[-4.0, 2.0]]])
    assert peers.on_one_scale(maps).tolist() == [0, 1, 0, 0, -1, 0.5]
    assert peers.on_one_scale(maps[2]).tolist() == [-1, 0.5]


def test_a_network_for_torch_has_its_activations_behind_its_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            kl.Conv2D(4, 3, padding="same", activation="relu", name="first"),
            kl.MaxPooling2D(),
            kl.Flatten(),
            kl.Dense(1, activation="sigmoid"),
        ]
    )
    layers, places = peers.for_torch(model)
    assert [kind for kind, _ in layers] == ["conv", "relu", "max", "flatten", "dense"]
    assert layers[0][1]["padding"] == "same"
    assert layers[places["first"]] == ["relu", {}]


def test_ratios_of_two_days_are_found_by_their_table_row_and_column():
    page = """## Occlusion

**64 pixels**

|  | time | ratio | of both |
| --- | --: | --: | --: |
| ours | 2.50 s | 1.00 | 3 ms (0.47) |
| theirs | 5.00 s | 2.00 | – |
"""
    assert _again.ratios(page) == {
        ("Occlusion", "**64 pixels**", "ours", "time, ratio"): 1.0,
        ("Occlusion", "**64 pixels**", "ours", "of both"): 0.47,
        ("Occlusion", "**64 pixels**", "theirs", "time, ratio"): 2.0,
    }


def test_the_answer_at_the_top_of_the_page_is_that_of_its_tables(tmp_path, monkeypatch):
    page = _bench.PAGE.read_text(encoding="utf8")
    monkeypatch.setattr(_bench, "PAGE", tmp_path / "page.md")
    _bench.PAGE.write_text(page, encoding="utf8")
    _bench.write_page(_bench.read_page())
    assert _bench.PAGE.read_text(encoding="utf8") == page


def test_the_answer_reads_the_numbers_of_a_table():
    rows = ("| | time |", "| --- | --: |", "| one | 0.5 s |", "| two | 1,064 ms |", "| three | – |")
    tables = _bench.tables_of("\n".join(rows))
    said = _bench.answer({"The labs, every task solved": tables})
    assert "[The labs, every task solved](#the-labs-every-task-solved)" in said
    assert "0.5 to 1.06 s" in said
    assert _bench.answer({"A section without an answer": tables}) == ""
