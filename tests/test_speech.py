"""The spoken sentences, and the network whose layers go from who speaks to what is said."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from course_utils import datasets, models

BUILD = Path(__file__).resolve().parents[1] / "data" / "build"


@pytest.fixture(scope="module")
def speech():
    return datasets.load_speech()


@pytest.fixture(scope="module")
def trained():
    return models.load_trained("speech")


@pytest.fixture(scope="module")
def build():
    """The script that made the data."""
    sys.path.insert(0, str(BUILD))
    try:
        spec = importlib.util.spec_from_file_location("speech_build", BUILD / "speech.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BUILD))
    return module


def test_every_speaker_says_every_sentence_twice(speech):
    said = np.zeros((32, 10), int)
    np.add.at(said, (speech.speakers, speech.sentences), 1)
    np.testing.assert_array_equal(said, 2)
    assert len(set(speech.sentence_texts)) == 10
    assert len(set(speech.speaker_names)) == 32
    assert all(type(name) is str for name in speech.sentence_texts + speech.speaker_names)


def test_no_speaker_is_in_two_splits(speech):
    by_split = {s: set(speech.speakers[speech.split == s].tolist()) for s in set(speech.split)}
    assert {s: len(of) for s, of in by_split.items()} == {"train": 20, "validation": 6, "test": 6}
    assert len(set.union(*by_split.values())) == 32
    # Nor does the same voice variant come back under another accent.
    variants = [name.split("+")[1] for name in speech.speaker_names]
    assert len(set(variants)) == 32


def test_every_accent_is_heard_in_training(speech):
    accents = [name.split("+")[0] for name in speech.speaker_names]
    heard = {accents[speaker] for speaker in speech.speakers[speech.split == "train"]}
    assert heard == set(accents)
    assert len(heard) == 8


def test_sentences_come_in_pairs_of_the_same_words(speech):
    words = [sorted(text.lower().rstrip(".").split()) for text in speech.sentence_texts]
    assert words[::2] == words[1::2]


def test_spectrograms_are_scaled_to_the_loudest_of_each_clip(speech):
    assert speech.mels.shape == (640, 32, 96, 1)
    assert speech.mels.dtype == np.float32
    assert speech.sentences.dtype == speech.speakers.dtype == np.int64
    np.testing.assert_array_equal(speech.mels.max((1, 2, 3)), 1)
    np.testing.assert_array_equal(speech.mels.min((1, 2, 3)), 0)
    assert len(np.unique(speech.mels.reshape(640, -1), axis=0)) == 640


def test_each_call_gives_arrays_of_its_own(speech):
    datasets.load_speech().mels[:] = -1
    assert datasets.load_speech().mels.min() == 0


def test_the_network_is_the_one_described():
    model = models.speech_cnn()
    assert model.count_params() == 70_362
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [conv.name for conv in convs] == [f"conv_{k}" for k in range(1, 9)]
    assert [conv.filters for conv in convs] == [16, 16, 24, 24, 32, 32, 48, 64]
    assert [conv.strides[0] for conv in convs] == [1, 2, 1, 2, 1, 2, 2, 1]
    assert model.get_layer("relu_8").output.shape == (None, 2, 6, 64)
    assert model.optimizer is not None


def test_unheard_speakers_are_understood(speech, trained):
    test = speech.split == "test"
    _, accuracy = trained.evaluate(speech.mels[test], speech.sentences[test], verbose=0)
    assert accuracy >= 0.9


def test_weights_carry_the_moving_statistics(trained):
    arrays = datasets.load_arrays("speech_weights.npz")
    for k in range(1, 9):
        norm = trained.get_layer(f"batch_norm_{k}")
        for statistic in (norm.moving_mean, norm.moving_variance):
            np.testing.assert_array_equal(statistic, arrays[statistic.path].astype(np.float32))
        assert np.abs(norm.moving_mean.numpy()).max() > 0.01  # it starts at zero
        assert norm.moving_variance.numpy().min() > 1e-4  # far above the smallest half


def test_half_precision_hurts_no_answer(speech, trained):
    # What was rounded is gone, but moving each weight by up to half a unit in its last place
    # does as much as the rounding did.
    part = speech.mels[speech.split == "test"][::4]
    rng, shifted = np.random.default_rng(0), models.speech_cnn()
    shifted.set_weights(
        [w * (1 + rng.uniform(-1, 1, w.shape) * 2.0**-11) for w in trained.get_weights()]
    )
    moved = shifted.predict(part, verbose=0) - trained.predict(part, verbose=0)
    assert np.abs(moved).max() < 0.02


def test_layers_go_from_speaker_to_sentence_only_when_trained(speech, trained, build):
    test = speech.split == "test"
    found = build.purities(trained, speech, test)
    assert found[1][1] > 0.8  # speaker at layer 1
    assert found[8][0] > 0.9  # sentence at layer 8
    assert found[1][0] < 0.4
    assert found[8][1] < 0.4
    keras.utils.set_random_seed(0)
    assert build.purities(models.speech_cnn(), speech, test)[8][0] < 0.4


def test_a_tone_lights_the_bands_around_its_pitch(build):
    # 1000 Hz is 1000 mel; the band centres are evenly spaced in mel from 60 to 8000 Hz.
    time = np.arange(build.RATE) / build.RATE
    mel = build.log_mel(np.sin(2 * np.pi * 1000 * time), np.zeros(build.BANDS))
    low, high = (2595 * np.log10(1 + f / 700) for f in (60, 8000))
    band = round((1000 - low) / (high - low) * 33) - 1
    assert mel[:, 10].argmax() == band
    assert mel[band, 10] >= 253
    assert mel[30, 10] == 0
    assert mel[:, -1].max() == 0  # a second of sound, then silence


def test_gains_are_decibels(build):
    wave = np.random.default_rng(0).normal(size=build.RATE)
    gains = np.zeros(build.BANDS)
    gains[5:] = -12
    plain, changed = (build.log_mel(wave, g).astype(float) for g in (gains * 0, gains))
    quieter = (plain - changed)[:, :20] * build.RANGE / 255
    fall = np.median(quieter[5:], axis=1) - np.median(quieter[:5])
    np.testing.assert_allclose(fall, 12, atol=0.3)


def test_sound_that_does_not_fit_is_refused(build):
    with pytest.raises(ValueError, match=r"still speaks after 2\.37 s"):
        build.log_mel(np.ones(3 * build.RATE), np.zeros(build.BANDS))


def test_the_first_speaker_can_be_made_again(speech, build):
    program = shutil.which("espeak-ng")
    version = program and subprocess.run([program, "--version"], capture_output=True).stdout
    if not program or b" 1.51 " not in version:
        pytest.skip("espeak-ng 1.51 is not installed: apt-get install espeak-ng")
    names = build.speakers()
    assert tuple(names) == speech.speaker_names
    made = build.clips(names[:1])
    shipped = datasets.load_arrays("speech.npz")
    # Another processor's sine may round a value of a half to the other side.
    apart = np.abs(made["mels"].astype(int) - shipped["mels"][:20])
    assert apart.max() <= 1
    assert apart.mean() < 1e-3
    np.testing.assert_array_equal(made["sentences"], shipped["sentences"][:20])
    np.testing.assert_array_equal(made["split"], shipped["split"][:20])
