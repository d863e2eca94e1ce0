"""IBM and ESA's TerraMind 1.0: its encoder for one modality given as pixels; the file has all modalities.

Base and large have SwiGLU and no biases, tiny and small GELU and biases; LayerNorms have no biases. The embedding of
the modality is added to every patch and becomes the bias of the patch embedding. Statistics: terratorch 1.2.11.
"""

from scaling.interop.family import Family, timm_block
from scaling.interop.mapping import Place
from scaling.interop.positions import LEARNED, POSITIONS

# modality: its key in the file, and mean and deviation of every band in the units of the images
MODALITIES = {
    "s2l2a": (
        "sen2l2a",
        {
            "B01": (1390.458, 2106.761),
            "B02": (1503.317, 2141.107),
            "B03": (1718.197, 2038.973),
            "B04": (1853.91, 2134.138),
            "B05": (2199.1, 2085.321),
            "B06": (2779.975, 1889.926),
            "B07": (2987.011, 1820.257),
            "B08": (3083.234, 1871.918),
            "B8A": (3132.22, 1753.829),
            "B09": (3162.988, 1797.379),
            "B11": (2424.884, 1434.261),
            "B12": (1857.648, 1334.311),
        },
    ),
    "s2l1c": (
        "sen2l1c",
        {
            "B01": (2357.089, 1624.683),
            "B02": (2137.385, 1675.806),
            "B03": (2018.788, 1557.708),
            "B04": (2082.986, 1833.702),
            "B05": (2295.651, 1823.738),
            "B06": (2854.537, 1733.977),
            "B07": (3122.849, 1732.131),
            "B08": (3040.56, 1679.732),
            "B8A": (3306.481, 1727.26),
            "B09": (1473.847, 1024.687),
            "B10": (506.07, 442.165),
            "B11": (2472.825, 1331.411),
            "B12": (1838.929, 1160.419),
        },
    ),
    "rgb": ("sen2rgb", {"red": (87.271, 58.767), "green": (80.931, 47.663), "blue": (66.667, 42.631)}),
    "s1grd": ("sen1grd", {"VV": (-12.599, 5.195), "VH": (-20.293, 5.890)}),
    "s1rtc": ("sen1rtc", {"VV": (-10.93, 4.391), "VH": (-17.329, 4.459)}),
    "dem": ("dem", {"elevation": (670.665, 951.272)}),
}


def _family(name: str) -> Family:
    key, statistics = MODALITIES[name]
    embedding = f"encoder_embeddings.untok_{key}@224"
    block = timm_block("encoder.{i}", "encoder/blocks")
    for index, layer in enumerate(("fc1", "fc3")):
        block[f"encoder.{{i}}.mlp.{layer}.weight"] = Place("encoder/blocks/mlp_in/kernel", ("gate", index))
    return Family(
        name=f"terramind_{name}",
        prefixes=("",),
        signature=f"{embedding}.proj.weight",
        table={
            f"{embedding}.proj.weight": Place("encoder/patch/kernel"),
            f"{embedding}.mod_emb": Place("encoder/patch/bias"),
            f"{embedding}.pos_emb": POSITIONS,
            LEARNED: Place("encoder/position/embedding"),
            "encoder_norm.weight": Place("encoder/norm/scale"),
            "encoder_norm.bias": Place("encoder/norm/bias"),
            **block,
        },
        unused=("encoder_embeddings.*", "decoder*", "mask_token", "*.norm_mean", "*.norm_std"),
        absent={"*/bias": 0.0},
        norm_eps=1e-6,
        licence="Apache-2.0",
        objective="terramind",
        fixed_positions=True,
        bands=tuple(statistics),
        mean=tuple(mean for mean, _ in statistics.values()),
        std=tuple(std for _, std in statistics.values()),
    )


TERRAMIND = tuple(_family(name) for name in MODALITIES)
