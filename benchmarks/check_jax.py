"""WellDataset and DataLoader with framework="jax" against NumPy, in an environment that has JAX (torch is not needed).

python -m venv jax-environment && jax-environment/bin/pip install -e . jax
jax-environment/bin/python benchmarks/check_jax.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import wellkit
from wellkit.frameworks import framework_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.trees import make_tree


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = make_tree(Path(folder), resolution=(32, 24))
        ours, reference = (
            wellkit.WellDataset(
                path=tree, well_split_name="train", use_normalization=True, n_steps_input=2, framework=framework
            )
            for framework in ("jax", "numpy")
        )
        pairs = [(ours[index], reference[index]) for index in (0, 5)]
        batches = (wellkit.DataLoader(data, batch_size=4, shuffle=False) for data in (ours, reference))
        pairs += list(zip(*batches, strict=True))
        for found, expected in pairs:
            for key, value in expected.items():
                assert framework_of(found[key]) == "jax", key
                np.testing.assert_allclose(np.asarray(found[key]), value, rtol=1e-6, err_msg=key)
        restored = ours.norm.denormalize_flattened(ours[0]["output_fields"], "variable")
        assert framework_of(restored) == "jax"
    print(f"{len(pairs)} samples and batches equal; torch imported: {'torch' in sys.modules}")


if __name__ == "__main__":
    main()
