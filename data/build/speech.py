"""Make speech.npz and speech_weights.npz: synthetic speakers, and the network trained on them.

The speakers are voices of espeak-ng, a synthesiser of Debian: `apt-get install espeak-ng`,
version 1.51 for the same bytes. Nothing else needs it, and none of it is shipped. About three
minutes on two cores, no network. `python data/build/speech.py --check` prints what the README
and the course say of the shipped data and network, and makes nothing.
"""

import argparse
import subprocess

import keras
import numpy as np
from _common import need, write_arrays, write_weights

from course_utils import datasets, models

SEED = 0
# Pairs of the same words in another order: what is heard over the whole clip does not tell
# them apart, only when it is heard.
SENTENCES = [
    "Anna gave the book to Peter.",
    "Peter gave the book to Anna.",
    "The dog ran after the cat.",
    "The cat ran after the dog.",
    "First we eat and then we sing.",
    "First we sing and then we eat.",
    "The cup is under the bowl.",
    "The bowl is under the cup.",
    "Red paint goes over blue paint.",
    "Blue paint goes over red paint.",
]
ACCENTS = [
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-us",
    "en-us-nyc",
    "en-029",
]
# One to a speaker. Left out: whispers, robots, jokes, the slowest, and those nearly equal to one
# that is here, which would let a speaker be in two splits in all but name.
VARIANTS = [
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("adam", "marcelo", "Andrea", "Annie", "antonio", "victor", "belinda", "boris", "david"),
    *("edward", "Gene", "Mike", "Jacky", "linda", "robert", "michel", "rob", "steph", "zac"),
]
SPLITS = {"train": 20, "validation": 6, "test": 6}  # speakers
TAKES = 2

RATE = 22050  # samples a second, espeak-ng's own
WINDOW, HOP, BANDS, FRAMES = 1024, 540, 32, 96  # 41 frames a second, 2.4 seconds
RANGE = 60  # decibels between black and white


def speakers():
    """The names of the speakers, accent+variant: the first 20 train, the next 6 validate.

    The variants are shuffled and the accents take turns, so that each accent has two or three
    speakers in training and at most one in validation and in testing.
    """
    variants = np.random.default_rng(SEED).permutation(VARIANTS)
    return [f"{ACCENTS[i % len(ACCENTS)]}+{variant}" for i, variant in enumerate(variants)]


def clips(names):
    """The arrays of speech.npz for these speakers, in the order speaker, sentence, take."""
    rng = np.random.default_rng(SEED + 1)
    mels, sentences, speaker_of = [], [], []
    for speaker, name in enumerate(names):
        gains = microphone(rng)
        for sentence, text in enumerate(SENTENCES):
            for pitch in rng.choice(np.arange(40, 61), TAKES, replace=False):
                speed = rng.integers(155, 191)
                mels.append(log_mel(speak(text, name, pitch, speed), gains))
                sentences.append(sentence)
                speaker_of.append(speaker)
    split_of = np.repeat(list(SPLITS), list(SPLITS.values()))
    return {
        "mels": np.stack(mels),
        "sentences": np.array(sentences, np.uint8),
        "speakers": np.array(speaker_of, np.uint8),
        "split": split_of[speaker_of],
        "sentence_texts": np.array(SENTENCES),
        "speaker_names": np.array(names),
    }


def speak(text, voice, pitch, speed):
    """The waveform of `text`, float64 in -1..1; pitch 0 to 99, speed in words a minute."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-p", str(pitch), "-s", str(speed), text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(wav[44:], "<i2") / 32768  # the header of a .wav is 44 bytes


def microphone(rng):
    """A speaker's own microphone: gains (BANDS,) in decibels, smooth, some ten up or down.

    The voices alone are too alike: without it even an untrained network finds the sentence.
    """
    return np.interp(np.arange(BANDS), np.linspace(0, BANDS - 1, 6), rng.normal(0, 10, 6))


def log_mel(wave, gains):
    """The log-mel spectrogram of a waveform: uint8 (BANDS, FRAMES), 255 where it is loudest.

    `gains` in decibels (BANDS,) are added to the bands. In the result 0 is RANGE decibels below
    the loudest or less; band 0 is the lowest; the end is silence, added or cut.
    """
    length = WINDOW + (FRAMES - 1) * HOP
    if np.abs(wave[length:]).max(initial=0) > 0.01 * np.abs(wave).max():
        raise ValueError(f"the clip still speaks after {length / RATE:.2f} s, all that fits.")
    wave = np.pad(wave[:length], (0, max(0, length - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    mel = power @ mel_filters().T * 10 ** (gains / 10)
    decibels = 10 * np.log10(np.maximum(mel / mel.max(), 10 ** (-RANGE / 10)))
    return np.round(255 * (decibels / RANGE + 1)).astype(np.uint8).T


def mel_filters(low=60, high=8000):
    """Triangles evenly spaced in mel, which is how ears space pitches: (BANDS, WINDOW // 2 + 1)."""
    to_mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(to_mel(low), to_mel(high), BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    return np.maximum(0, np.minimum(rise, fall))


def vary(mels, rng):
    """Copies of spectrograms (N, BANDS, FRAMES, 1) as other speakers might have said them.

    Each starts up to six frames later, is slower here and faster there (by up to e to the 0.6),
    is up to one band higher or lower, and goes through another microphone. Without the changes
    of pace the network fails on the validation speaker whose rhythm is unlike the others'.
    """
    varied = np.zeros_like(mels)
    for mel, out in zip(mels, varied, strict=True):
        knots = np.exp(rng.uniform(-0.6, 0.6, 9))
        pace = np.interp(np.arange(FRAMES), np.linspace(0, FRAMES, 9), knots)
        at = np.round(np.cumsum(pace) - pace[0] - rng.integers(0, 7)).astype(int)
        mel = mel[:, np.clip(at, 0, FRAMES - 1)] * ((at >= 0) & (at < FRAMES))[:, None]
        mel = np.where(mel > 0, np.clip(mel + microphone(rng)[:, None, None] / RANGE, 0, 1), 0)
        up = rng.integers(-1, 2)
        out[max(up, 0) : BANDS + min(up, 0)] = mel[max(-up, 0) : BANDS - max(up, 0)]
    return varied


def train(epochs=30):
    """Train on the training speakers, varied anew in each epoch.

    What `vary` does, its strengths and the number of epochs were chosen on the validation
    speakers alone. The test speakers were looked at when all was settled, and once more after
    two takes were found to be the same and all clips were made again; nothing was chosen by them.
    """
    speech = datasets.load_speech()
    training = speech.split == "train"
    x, y = speech.mels[training], speech.sentences[training]
    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = models.speech_cnn()
    steps = epochs * -(-len(x) // 32)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    for epoch in range(epochs):
        history = model.fit(vary(x, rng), y, batch_size=32, verbose=0).history
        print(f"epoch {epoch + 1}: training accuracy {history['accuracy'][0]:.3f}", flush=True)
    return model


def accuracy(model, speech, split):
    """The share of the clips of a split whose sentence the model names."""
    part = speech.split == split
    named = model.predict(speech.mels[part], verbose=0).argmax(1)
    return np.mean(named == speech.sentences[part])


def purities(model, speech, part):
    """For layers 1, 4 and 8: how often the nearest neighbour has the same sentence, speaker.

    A layer's output is averaged over time and cut to 50 principal components. The neighbour in
    sentence is sought among the other speakers, the neighbour in speaker among the other
    sentences, so that neither is found merely because the clips are all but the same.
    """
    from sklearn.decomposition import PCA

    sentences, speakers = speech.sentences[part], speech.speakers[part]
    found = {}
    for k in (1, 4, 8):
        layer = keras.Model(model.inputs[0], model.get_layer(f"relu_{k}").output)
        outputs = layer.predict(speech.mels[part], verbose=0).mean(axis=2)  # bands, time, channels
        features = outputs.reshape(len(outputs), -1)
        features = PCA(min(50, *features.shape), random_state=SEED).fit_transform(features)
        squares = (features**2).sum(1)
        distances = squares[:, None] + squares - 2 * features @ features.T
        found[k] = [
            np.mean(label == label[np.where(alike, np.inf, distances).argmin(1)])
            for label, alike in (
                (sentences, speakers[:, None] == speakers),
                (speakers, sentences[:, None] == sentences),
            )
        ]
    return found


def check():
    """Print what is said of the shipped data and network."""
    speech = datasets.load_speech()
    model = models.load_trained("speech")
    for split in SPLITS:
        print(f"{split} accuracy {accuracy(model, speech, split):.3f}")
    untrained = []
    for seed in range(5):
        keras.utils.set_random_seed(seed)
        untrained.append(models.speech_cnn())
    parts = {"all speakers": speech.split != "", "test speakers": speech.split == "test"}
    for heard, part in parts.items():
        for state, networks in (("trained", [model]), ("five untrained, mean", untrained)):
            found = [purities(network, speech, part) for network in networks]
            for k in found[0]:
                sentence, speaker = np.mean([each[k] for each in found], axis=0)
                print(f"{heard}, {state}, layer {k}: sentence {sentence:.2f} speaker {speaker:.2f}")


def make():
    """Write both files, and print what half precision costs."""
    write_arrays("speech.npz", **clips(speakers()))
    model = train()
    write_weights("speech", model)
    speech = datasets.load_speech()
    part = speech.mels[speech.split == "validation"]
    half = models.load_trained("speech").predict(part, verbose=0)
    cost = np.abs(half - model.predict(part, verbose=0)).max()
    print(f"half precision moves a probability by at most {cost:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print figures, make nothing")
    parser.add_argument("--compare", action="store_true", help="write nothing, say what differs")
    if not parser.parse_args().check:
        need(packages=["sklearn"], programs=["espeak-ng"])
        make()
    check()
