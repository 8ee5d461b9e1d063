"""The 1,797 handwritten digits that ship with scikit-learn, read pixel by pixel."""

import torch

from momentumrnn.data.sequences import LabelledSequences, Splits

SPLIT_SEED = 0
TEST_SIZE = 360
VALIDATION_SIZE = 360


def load_digits() -> Splits:
    """Read the 8 × 8 images row by row: T = 64, values in [0, 1].

    Returns:
        1,077 training, 360 validation and 360 test images, each with the same share of every digit.
        The split is fixed: seeds differ in weights and batches, not in data.
    """
    from sklearn.datasets import load_digits as read
    from sklearn.model_selection import train_test_split

    pixels, labels = read(return_X_y=True)
    rest, test = train_test_split(
        range(len(labels)), test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SIZE, random_state=SPLIT_SEED, stratify=labels[rest]
    )
    whole = LabelledSequences(
        values=torch.from_numpy(pixels).to(torch.uint8),
        labels=torch.from_numpy(labels).to(torch.int64),
        classes=10,
        scale=16.0,
        name="digits",
    )
    return Splits(*(whole.select(torch.tensor(rows)) for rows in (train, validation, test)))
