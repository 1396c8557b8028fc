"""A whole data set: any explanation of all its images, on one machine or many, and its clusters."""

import functools
import hashlib
import mmap
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import dask
import keras
import numpy as np
import zarr
from scipy.sparse import csgraph, linalg
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph
from tqdm.auto import tqdm

import course_utils
from course_utils import _store
from course_utils._arrays import centre_square, check_whole
from course_utils._scores import predict, score_model
from course_utils._shared import channels_first, check_images, check_targets
from course_utils.datasets import load_photo
from course_utils.models import ImageClassifier, imagenet_classifier, load_trained

_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
_ONE_AT_A_TIME = threading.Lock()  # TensorFlow has the cores to itself


def explain_dataset(
    explain,
    model,
    images,
    out,
    *,
    targets=None,
    client=None,
    chunk=256,
    progress=False,
    **options,
):
    """Explain every image of a data set, into a folder, and go on there where it was stopped.

    A chunk of images is in memory at a time, for each worker. A chunk is finished or not begun,
    whenever the process is killed: called again, only the missing ones are computed. The numbers
    are those of one process, whatever the number of workers and the order in which they finish,
    to the bit on processors of one kind.

    Parameters
    ----------
    explain : function
        ``explain(model, images, targets, **options)`` -> heatmaps (N, H, W), as those of the
        course; or a functools.partial of one.
    model : keras.Model, ImageClassifier, or str
        A str is the name of a network that the course ships, or the path of a ``.keras`` file.
    images : array, memory map, Zarr or Dask array (N, H, W, C), or path of a folder
        As the model takes them. Of a folder, the JPEG, PNG and WebP files in the order of their
        names: the centre square of each at the model's size, which has to be a square's, in 0..1;
        for an ImageClassifier as its `preprocess` makes them.
    out : str or path
        The folder, a Zarr group. One that holds explanations of another model, of other images or
        with other settings is refused. Of an `explain` of your own its code counts, its defaults,
        what it encloses, and the numbers, texts, arrays and networks of its module that it reads;
        not what the functions do that it calls, nor lists and dictionaries that it reads.
    targets : int or int array (N,), optional
        The class to explain, for all images or for each; each image's likeliest if not given: of a
        single output class 1 above one half behind a sigmoid, above 0 without one.
    client : distributed.Client, optional
        The Dask cluster that does the work. Its workers must see `out` and a folder of images, and
        have the course installed; they load the network from its name or file. If not given, this
        process does it, with Dask's own scheduler.
    chunk : int
        Images to a chunk; their heatmaps are one file.
    progress : bool
        Show a progress bar.
    **options
        Of `explain`.

    Returns
    -------
    zarr.Group
        ``heatmaps`` float32 (N, H, W); ``scores`` float32 (N, K), what the model says of each
        image; ``targets`` int64 (N,); ``digests`` uint8 (chunks, 32), the sha256 of each chunk's
        images. Its attributes hold the settings, the package's version and the sha256 of the
        network's weights and of what it does with them.

    Raises
    ------
    ValueError
        If an argument does not fit or is an object whose settings cannot be recorded, `out` holds
        other explanations, the disk is full or must not be written to, or a chunk kills the
        workers that take it. What is finished stays.
    """
    check_whole("chunk", chunk, 1)
    chunk = int(chunk)
    name, network, prepare = _network(model)
    images = _files(images) if isinstance(images, (str, os.PathLike)) else images
    count = images.shape[0] if hasattr(images, "shape") else len(images)
    if count == 0:
        raise ValueError("there are no images: pass at least one.")
    first = check_images(network, prepare(_read(_part(images, 0, 1))))
    every = None if targets is None else check_targets(network, targets, count)
    settings = {
        "made_by": "course_utils.at_scale",
        "version": course_utils.__version__,
        "explain": _store.recorded(explain),
        "options": _store.recorded(options),
        "images": count,
        "chunk": chunk,
        "targets_given": _store.recorded(every),
        "weights_sha256": _store.weights_sha256(network),
        "layers": _store.layer_kinds(network),
        "graph_sha256": _store.graph_sha256(network),
    }
    starts = range(0, count, chunk)
    shapes = {
        "targets": ((count,), "int64", -1),
        "scores": ((count, network.outputs[0].shape[-1]), "float32", np.nan),
        "heatmaps": ((count, *first.shape[1:3]), "float32", np.nan),
        "digests": ((len(starts), 32), "uint8", 0),
    }
    store = _store.open_store(out, settings, shapes, chunk)
    done = store["digests"][:].any(axis=1)
    _check_pictures(images, chunk, done, store["digests"], out)
    begun = str(Path(out).absolute()), dict(store.attrs)
    work = functools.partial(_explain_chunk, *begun, explain, options, chunk)
    parts = (
        (start // chunk, _part(images, start, start + chunk), _targets_of(every, start, chunk))
        for start in starts
        if not done[start // chunk]
    )
    run = _here(work, (network, prepare), parts)
    if client is not None and not done.all():
        known = settings["weights_sha256"], settings["graph_sha256"]
        found = functools.partial(_on_worker, work, name or _saved(network, out), known)
        run = _on_cluster(found, client, parts)
    bar = tqdm(total=len(starts), initial=int(done.sum()), disable=not progress, unit="chunk")
    with bar, closing(run):
        for _ in run:
            bar.update()
    return zarr.open_group(out, mode="r")


def _network(model):
    """The name or file that a worker loads it from (or None), the network, what prepares files."""
    if isinstance(model, (str, os.PathLike)):
        network = _load(str(model))
        return str(Path(model).absolute()) if _is_file(model) else str(model), *network
    if isinstance(model, ImageClassifier):
        return model.name, model.model, functools.partial(_prepared, model.preprocess)
    check_targets(model, 0, 1)
    return None, model, functools.partial(_prepared, functools.partial(_squares, model))


def _is_file(name):
    return Path(name).suffix == ".keras"


def _load(name):
    if _is_file(name):
        if not os.path.isfile(name):
            raise ValueError(f"there is no network {name}.")
        return _network(keras.models.load_model(name, compile=False))[1:]
    try:
        return _network(load_trained(name))[1:]
    except ValueError as error:
        if "has no trained network" not in str(error):
            raise
        try:
            return _network(imagenet_classifier(name))[1:]
        except ValueError:
            raise error from None


@functools.lru_cache(maxsize=1)
def _loaded(name, weights_sha256, graph_sha256):
    """A worker's network, loaded once and known by its weights and its graph."""
    network, prepare = _load(name)
    if _store.weights_sha256(network) != weights_sha256:
        raise ValueError(
            f"the network that a worker finds as {name} has other weights than the one it shall "
            "explain. Save that one with model.save, and pass the path of its .keras file."
        )
    return network, prepare


def _saved(network, out):
    """Keep the network beside the store, as `out`.keras, where workers find it."""
    path = Path(f"{Path(out).absolute()}.keras")
    beside = path.with_name(f".{path.stem}.part.keras")
    with _store.writing(path):
        network.save(beside)
        os.replace(beside, path)
    return str(path)


def _prepared(prepare, pictures):
    """Pictures from files, a list, as the network takes them; arrays are so already."""
    if isinstance(pictures, list):
        return np.concatenate([prepare(picture) for picture in pictures])
    return pictures


def _squares(model, photo):
    first, shape = channels_first(model), tuple(model.inputs[0].shape[1:])
    sizes = [size or "any" for size in (shape[1:] if first else shape[:2])]
    if sizes == ["any", "any"] or sizes != 2 * sizes[:1]:
        raise ValueError(
            "the pictures of a folder are cut to squares of the model's size, and this model takes "
            f"{' × '.join(map(str, sizes))} pixels. Cut or resize them yourself, and pass an array."
        )
    square = np.float32(centre_square(photo, sizes[0]))[np.newaxis] / 255
    return np.moveaxis(square, -1, 1) if first else square


def _files(folder):
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}. images is an array, or a folder of files.")
    found = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in _PICTURES)
    if not found:
        raise ValueError(f"{folder} holds no picture: JPEG, PNG or WebP files are looked for.")
    return found


def _part(images, start, stop):
    """What tells a worker the images of a chunk: the pixels, the files, or where they stand."""
    if isinstance(images, zarr.Array):
        return _Slice(images, start, stop)
    part = images[start:stop]
    if isinstance(images, np.memmap):
        part = np.array(part)
        # What numpy computed from a memory map is of its kind, and lies in memory.
        if hasattr(mmap, "MADV_DONTNEED") and images._mmap is not None and images.mode != "c":
            images._mmap.madvise(mmap.MADV_DONTNEED)  # or what was read would count as memory
    return part


class _Slice(NamedTuple):
    """A part of a Zarr array, which whoever needs it reads."""

    array: zarr.Array
    start: int
    stop: int


def _read(part):
    """The pixels of a part, or, of files, a list of photos."""
    if isinstance(part, _Slice):
        return part.array[part.start : part.stop]
    if isinstance(part, list):
        return [load_photo(file, None) for file in part]
    return np.asarray(part)


def _digest(part):
    """The sha256 of a part's images, or of the files they are in, uint8 (32,)."""
    digest = hashlib.sha256()
    if isinstance(part, list):
        for file in part:
            digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    else:
        pixels = _read(part)
        digest.update(f"{pixels.dtype}{pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels))
    return np.frombuffer(digest.digest(), np.uint8)


def _check_pictures(images, chunk, done, digests, out):
    """Raise ValueError if what is finished was made from other images."""
    for k in np.flatnonzero(done):
        if (_digest(_part(images, k * chunk, (k + 1) * chunk)) != digests[k]).any():
            raise ValueError(
                f"{out} holds explanations of other images: those from {k * chunk} on differ. "
                "Name another folder, or delete that one."
            )


def _targets_of(targets, start, chunk):
    return None if targets is None else targets[start : start + chunk]


def _explain_chunk(out, settings, explain, options, chunk, network, k, part, targets):
    """Explain a chunk and write it; its digest, written last, says that it is finished."""
    model, prepare = network
    images = prepare(_read(part))
    checked = check_images(model, images)
    scores = predict(score_model(model, "probability"), checked, 64)
    if targets is None:
        targets = _likeliest(model, scores)
    heatmaps = np.asarray(explain(model, images, targets, **options))
    if heatmaps.shape != checked.shape[:3] or not np.isfinite(heatmaps).all():
        raise ValueError(
            f"explain must return finite heatmaps of shape {checked.shape[:3]}, got shape "
            f"{heatmaps.shape}{' with NaN or infinity' * (heatmaps.shape == checked.shape[:3])}."
        )
    found = {"targets": targets, "scores": scores, "heatmaps": heatmaps}
    with _store.writing(out):
        store = zarr.open_group(out, mode="r+")
        if dict(store.attrs) != settings:
            raise ValueError(
                f"{out} was begun anew by another call while this one ran: give each a folder."
            )
        for name, values in found.items():
            store[name][k * chunk : k * chunk + len(values)] = values
        store["digests"][k] = _digest(part)


def _likeliest(model, scores):
    """The class that each row of scores speaks for, int64 (N,)."""
    if scores.shape[1] > 1:
        return scores.argmax(axis=1).astype(np.int64)
    try:
        gives_logits = score_model(model, "logit") is score_model(model, "probability")
    except ValueError as error:
        raise ValueError(
            "it cannot be seen whether the model's single output is a probability or a logit, and "
            f"so not which of its two classes is the likelier: pass targets. {error}"
        ) from None
    return (scores[:, 0] > (0 if gives_logits else 0.5)).astype(np.int64)


def _here(work, network, parts):
    """Do the work in this process, a chunk at a time."""
    task = dask.delayed(functools.partial(work, network), pure=False, traverse=False)
    for k, part, targets in parts:
        yield task(k, part, targets).compute(scheduler="synchronous")


def _on_worker(work, name, known, k, part, targets):
    with _ONE_AT_A_TIME:
        work(_loaded(name, *known), k, part, targets)


def _on_cluster(work, client, parts):
    """Let the workers do it, each with a chunk in hand and one to come, in whatever order."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    finished, running = as_completed(loop=client.loop), {}

    def feed():
        while len(running) < 2 * max(1, len(client.nthreads())):
            following = next(parts, None)
            if following is None:
                return
            k, part, targets = following
            part = client.compute(part) if dask.is_dask_collection(part) else part
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "4 GB"}):
                future = client.submit(work, k, part, targets, pure=False)
            running[future] = k
            finished.add(future)

    try:
        feed()
        for future in finished:
            k = running.pop(future)
            try:
                yield future.result()
            except KilledWorker:
                raise ValueError(
                    f"chunk {k} killed every worker that took it, most likely for want of memory. "
                    "Give workers more, or make chunks smaller; what is finished is kept."
                ) from None
            feed()
    finally:
        client.cancel(list(running))


class MapClusters(NamedTuple):
    """Groups of images whose heatmaps look alike."""

    index: np.ndarray
    """int64 (n,): which images of the store were clustered."""
    labels: np.ndarray
    """int64 (n,): the cluster of each, 0 the largest."""
    eigenvalues: np.ndarray
    """float64: the smallest of the graph's Laplacian, ascending. As many clusters as come before
    the widest gap in them."""
    vectors: np.ndarray
    """float64 (n, clusters): their eigenvectors, in which the clusters lie apart."""
    features: np.ndarray
    """float32 (n, size * size): the maps as they were compared."""


def cluster_maps(store, *, target=None, clusters=None, size=16, neighbours=10, most=20, seed=0):
    """Return groups of images that are explained alike: spectral relevance analysis (SpRAy).

    Each heatmap is shrunk, and divided by the sum of its absolute values. Every map is joined to
    its nearest neighbours; the smallest eigenvalues of that graph's normalised Laplacian tell how
    many groups hang together, and its eigenvectors, by k-means, which.

    Parameters
    ----------
    store : zarr.Group, str or path, or array (N, H, W)
        What `explain_dataset` returned, or its folder. What is not finished is left out. Or
        heatmaps from elsewhere.
    target : int, optional
        Only images explained for this class; all if not given.
    clusters : int, optional
        How many; as the widest gap between the eigenvalues has it if not given.
    size : int
        Heatmaps are shrunk to `size` × `size`.
    neighbours : int
        To how many maps each is joined.
    most : int
        How many eigenvalues are looked at.
    seed : int
        Of k-means, and of where the search for eigenvectors begins.

    Returns
    -------
    MapClusters

    Raises
    ------
    ValueError
        If an argument does not fit, or there are not more than `neighbours` finished maps.

    References
    ----------
    Lapuschkin et al., Unmasking Clever Hans Predictors and Assessing What Machines Really Learn
    (2019); von Luxburg, A Tutorial on Spectral Clustering (2007), for the gap.
    """
    check_whole("size", size, 1)
    check_whole("neighbours", neighbours, 1)
    check_whole("seed", seed, 0)
    index, features = _features(store, target, size)
    if len(index) <= neighbours:
        raise ValueError(
            f"there are {len(index)} finished heatmaps of this class, and each shall be joined to "
            f"{neighbours} others: take fewer neighbours, or explain more images."
        )
    check_whole("most", most, 2)
    eigenvalues, vectors, degrees = _spectrum(features, neighbours, most, seed)
    if clusters is None:
        clusters = int(np.diff(eigenvalues).argmax()) + 1
    check_whole("clusters", clusters, 1, len(eigenvalues))
    vectors = vectors[:, :clusters] / np.sqrt(degrees)[:, np.newaxis]
    labels = KMeans(clusters, n_init=10, random_state=seed).fit_predict(vectors)
    sizes = np.bincount(labels, minlength=clusters)
    place = np.empty(clusters, np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(clusters)
    return MapClusters(index, place[labels], eigenvalues, vectors, features)


def _features(store, target, size):
    """The finished maps of a target as vectors, read a chunk at a time."""
    if isinstance(store, np.ndarray):
        if store.ndim != 3 or target is not None:
            raise ValueError(f"heatmaps are (N, H, W), without a target, got {store.shape}.")
        return np.arange(len(store)), _vectors(store, size)
    store = store if isinstance(store, zarr.Group) else zarr.open_group(store, mode="r")
    targets, done = store["targets"][:], store["digests"][:].any(axis=1)
    chunk = store.attrs["chunk"]
    wanted = np.repeat(done, chunk)[: len(targets)]
    if target is not None:
        wanted &= targets == target
    found = [np.empty((0, size * size), np.float32)]
    for start in range(0, len(targets), chunk):
        chosen = wanted[start : start + chunk]
        if chosen.any():
            found.append(_vectors(store["heatmaps"][start : start + chunk][chosen], size))
    return np.flatnonzero(wanted), np.concatenate(found)


def _vectors(maps, size):
    """Shrunk maps, each divided by the sum of its absolute values, float32 (N, size * size)."""
    maps = np.asarray(maps, np.float32)
    small = [cv2.resize(m, (size, size), interpolation=cv2.INTER_AREA) for m in maps]
    vectors = np.reshape(small, (len(maps), -1))
    total = np.abs(vectors).sum(axis=1, keepdims=True)
    return vectors / np.where(total > 0, total, 1)


def _spectrum(features, neighbours, most, seed):
    """The smallest eigenvalues of the neighbours' graph, their eigenvectors, and the degrees."""
    graph = kneighbors_graph(features, neighbours)
    graph = (graph + graph.T) / 2
    laplacian, roots = csgraph.laplacian(graph, normed=True, return_diag=True)
    count = min(most, len(features))
    if len(features) <= 500:  # the whole spectrum costs nothing
        eigenvalues, vectors = np.linalg.eigh(laplacian.toarray())
    else:
        # The smallest of L are the largest of 2 - L, which are found without solving for anything.
        start = np.random.default_rng(seed).normal(size=len(features))
        shifted = -laplacian
        shifted.setdiag(shifted.diagonal() + 2)
        eigenvalues, vectors = linalg.eigsh(shifted, count, which="LA", v0=start, tol=1e-8)
        order = np.argsort(-eigenvalues)
        eigenvalues, vectors = 2 - eigenvalues[order], vectors[:, order]
    return eigenvalues[:count], vectors[:, :count], roots**2
