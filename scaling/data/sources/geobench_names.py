"""Names in GEO-Bench v1.0: of the sets, of Sentinel-2's bands as stored, of the classes.

Bands and classes: ServiceNow/geo-bench, `geobench/dataset.py` and `make_benchmark/dataset_converters/`, which take the
order of classes from torchgeo.
"""

# Sets with a class for every pixel; the first class is `no data`.
MASK_CLASSES = {
    "m-cashew-plant": (
        "no data; well-managed plantation; poorly-managed plantation; non-plantation; residential; background; "
        "uncertain"
    ),
    "m-SA-crop-type": (
        "No Data; Lucerne/Medics; Planted pastures (perennial); Fallow; Wine grapes; Weeds; Small grain grazing; "
        "Wheat; Canola; Rooibos"
    ),
}

SETS = ("m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln", "m-forestnet", "m-pv4ger", *MASK_CLASSES)

SENTINEL2 = {
    "01 - Coastal aerosol": "B01",
    "02 - Blue": "B02",
    "03 - Green": "B03",
    "04 - Red": "B04",
    "05 - Vegetation Red Edge": "B05",
    "06 - Vegetation Red Edge": "B06",
    "07 - Vegetation Red Edge": "B07",
    "08 - NIR": "B08",
    "08A - Vegetation Red Edge": "B8A",
    "09 - Water vapour": "B09",
    "10 - SWIR - Cirrus": "B10",
    "11 - SWIR": "B11",
    "12 - SWIR": "B12",
}

# The true names of the bands of SENTINEL2 from the sixth on, in the two sets whose files misname them ("Known issues"
# in the README of ServiceNow/geo-bench, its issues 28 and 29). The last three of m-brick-kiln are an 8-bit picture.
CORRECTED = {
    "m-eurosat": ("B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"),
    "m-brick-kiln": ("B07", "B8A", "B08", "B11", "B12", "TCI_R", "TCI_G", "TCI_B"),
}

CLASS_NAMES = {
    "m-eurosat": (
        "AnnualCrop; Forest; HerbaceousVegetation; Highway; Industrial; Pasture; PermanentCrop; Residential; River; "
        "SeaLake"
    ),
    "m-so2sat": (
        "Compact high rise; Compact mid rise; Compact low rise; Open high rise; Open mid rise; Open low rise; "
        "Lightweight low rise; Large low rise; Sparsely built; Heavy industry; Dense trees; Scattered trees; "
        "Bush or scrub; Low plants; Bare rock or paved; Bare soil or sand; Water"
    ),
    "m-brick-kiln": "not brick kiln; brick kiln",
    "m-bigearthnet": (
        "Continuous urban fabric; Discontinuous urban fabric; Industrial or commercial units; "
        "Road and rail networks and associated land; Port areas; Airports; Mineral extraction sites; Dump sites; "
        "Construction sites; Green urban areas; Sport and leisure facilities; Non-irrigated arable land; "
        "Permanently irrigated land; Rice fields; Vineyards; Fruit trees and berry plantations; Olive groves; "
        "Pastures; Annual crops associated with permanent crops; Complex cultivation patterns; "
        "Land principally occupied by agriculture, with significant areas of natural vegetation; Agro-forestry areas; "
        "Broad-leaved forest; Coniferous forest; Mixed forest; Natural grassland; Moors and heathland; "
        "Sclerophyllous vegetation; Transitional woodland/shrub; Beaches, dunes, sands; Bare rock; "
        "Sparsely vegetated areas; Burnt areas; Inland marshes; Peatbogs; Salt marshes; Salines; Intertidal flats; "
        "Water courses; Water bodies; Coastal lagoons; Estuaries; Sea and ocean"
    ),
}
