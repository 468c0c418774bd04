"""Names of the files in the folder of a run and of a sweep."""

EXPLANATIONS = "explanations.safetensors"
# A folder: one PNG file per image of each method.
IMAGES = "images"
CURED = "cured.safetensors"
CORRUPTED = "corrupted.safetensors"
SUSPECTED = "suspected.safetensors"
SAMPLES = "samples.safetensors"
# The columns of the atlas of neurons, the metadata that describes them, and the images of its page.
ATLAS, ATLAS_METADATA = "neuron_atlas/units.safetensors", "neuron_atlas"
ATLAS_IMAGES = "neuron_atlas/images.safetensors"
TRACEBACK = "traceback.txt"
CLASSES = "tables/classes.csv"
CORRUPTION = "tables/corruption.csv"
PAPER = "tables/paper.csv"
STATUS = "status.json"
METRICS = "metrics.json"
METHOD_SECONDS = "method_seconds.json"
INPUTS = "inputs.json"
LOCK = ".lock"
# Space for the final status on a full disk; deleted when the run ends.
RESERVE = ".reserve"
LOG = "cwx.log"
# Of a sweep: our file, Hydra's file, and the console output of a job.
SWEEP = "sweep.json"
MULTIRUN = "multirun.yaml"
OUTPUT = "output.log"
