"""Remake four of the photos, byte for byte: chelsea, coffee, and from Debian citrus and bridge.

chelsea and coffee come with scikit-image. citrus and bridge come with Debian's palapeli-data:
unpack it (`apt-get download palapeli-data`, `dpkg-deb -x`) and pass its folder `collection`.
The other eight are kept as they are: six were fetched from Wikimedia Commons (data/README.md has
the addresses), two are put together from these. Needs scikit-image; a few seconds, no network.

    python data/build/photos.py [path/to/usr/share/palapeli/collection]
"""

import sys
from pathlib import Path

from _common import DATA, check_sums, need, replacing, write_sums
from PIL import Image

SIDE = 400
KEPT = ["dog", "horses", "lemur", "macaw", "panda", "polar_bear"]
KEPT += ["collage_panda_dog", "collage_polar_macaw"]


def shrink(source, target):
    """Write `source` as a JPEG whose long side is 400 px."""
    with Image.open(source) as image:
        scale = SIDE / max(image.size)
        size = [round(side * scale) for side in image.size]
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    with replacing(target) as file:
        small.save(file, "JPEG", quality=85, optimize=True)


def sources(palapeli=None):
    """From the name of each photo whose source is at hand to that source."""
    import skimage

    from_skimage = Path(skimage.__file__).parent / "data"
    found = {name: from_skimage / f"{name}.png" for name in ("chelsea", "coffee")}
    if palapeli:
        found["citrus"] = Path(palapeli) / "citrus-fruits.jpg"
        found["bridge"] = Path(palapeli) / "cincinnati-bridge.jpg"
    return found


def remake(folder, palapeli=None):
    """Write the photos whose sources are at hand into `folder` and return their names."""
    found = sources(palapeli)
    for name, source in found.items():
        shrink(source, Path(folder) / f"{name}.jpg")
    return sorted(found)


if __name__ == "__main__":
    palapeli = sys.argv[1:]
    if strange := [given for given in palapeli if not Path(given).is_dir()]:
        sys.exit(
            f"photos.py takes a folder and no options, and {strange[0]} is no folder. Nothing was "
            "written."
        )
    need(packages=["skimage"])
    made = [f"photos/{name}.jpg" for name in sources(*palapeli)]
    check_sums(made=made)
    print("remade:", *remake(DATA / "photos", *palapeli))
    print("kept:", *KEPT)
    write_sums(made=made)
