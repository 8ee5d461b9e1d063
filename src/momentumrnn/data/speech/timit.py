"""TIMIT as the Linguistic Data Consortium delivers it: TRAIN and TEST, dialects, speakers, sentences."""

from pathlib import Path

from momentumrnn.data.speech.folder import PARTS, SUFFIXES, files_in, load_parts
from momentumrnn.data.speech.speakers import CORE_TEST, DEVELOPMENT
from momentumrnn.data.speech.utterances import SpeechSplits
from momentumrnn.errors import DataError, DataMissingError

# Eight sentences of each of 462, 24 and 50 speakers. The paper counts 3,640 for training without saying why.
UTTERANCES = {"train": 3_696, "validation": 192, "test": 400}
PLACES = ("timit", "TIMIT", "speech/timit", "speech/TIMIT")


def find_timit(data: Path) -> Path:
    """The folder of the LDC tree.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: There is none.
    """
    for place in PLACES:
        if (data / place).is_dir():
            return data / place
    raise DataMissingError(
        f"TIMIT: looked for the LDC tree (TRAIN/DR1/FCJF0/SA1.WAV and so on) in "
        f"{', '.join(str(data / place) for place in PLACES)}. It is licensed: get it from the Linguistic "
        "Data Consortium (LDC93S1), and put or link it there, or name the folder that holds it with "
        "--data-folder or the environment variable MOMENTUMRNN_DATA. Free speech to run on instead: "
        "--set data.name=prompts, or any folder of recordings"
    )


def timit_parts(root: Path) -> dict[str, list[str]]:
    """The utterances of TIMIT by part, found by their place in the tree, in capitals or not.

    Training: every speaker under TRAIN. Validation: the 24 speakers of the core test set. Test: the 50
    speakers of the development set. The two sentences that every speaker reads (SA1, SA2) are in none.

    Args:
        root: The folder of the tree.

    Returns:
        Part → paths in the folder, sorted.

    Raises:
        DataError: They are not as many as there should be.
    """
    found: dict[str, dict[tuple[str, str], str]] = {part: {} for part in PARTS}
    for name in files_in(root):
        *_, half, dialect, speaker, file = ("", "", "", "", *name.lower().split("/"))
        if Path(file).suffix not in SUFFIXES or not dialect.startswith("dr") or file.startswith(("sa", ".")):
            continue
        part = (
            "train"
            if half == "train"
            else "test"
            if speaker in DEVELOPMENT
            else "validation"
            if speaker in CORE_TEST
            else None
        )
        if part is not None:
            # Some copies hold SX1.WAV and beside it SX1.WAV.wav, the same in another format.
            found[part].setdefault((speaker, file.partition(".")[0]), name)
    for part, expected in UTTERANCES.items():
        if len(found[part]) != expected:
            raise DataError(
                f"{root}: expected {expected} utterances of TIMIT for {part}, got {len(found[part])}; the "
                "copy is not whole, holds more, or is no LDC tree (…/TRAIN/DR1/FCJF0/SX37.WAV): copy it again"
            )
    return {part: sorted(members.values()) for part, members in found.items()}


def load_timit(data: Path) -> SpeechSplits:
    """Read TIMIT.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: It is not there.
        DataError: It is incomplete, or a file cannot be read.
    """
    root = find_timit(data)
    return load_parts(root, timit_parts(root))
